"""Records: what is written is what is read, by anyone's tools; a changed file is named and never read as another."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.studies import mutate, write_study

from grok_utils.errors import Damaged
from grok_utils.page.tables import provenance
from grok_utils.pipeline.parameters import make_run
from grok_utils.store.records import frame, is_complete, read_like, read_record, read_study, write_record, write_records

# Readers and other tools rely on these names.
DTYPES = {
    "schedule": "str",
    "operation": "str",
    "seed": "int32",
    "update": "int32",
    "batch_size": "int32",
    "examples_seen": "int64",
    "train_loss": "float32",
    "train_accuracy": "float32",
    "val_loss": "float32",
    "val_accuracy": "float32",
    "diverged": "bool",
}


def damage(call, path):
    """The one line of the Damaged that `call(path)` raises; it names the file."""
    with pytest.raises(Damaged) as caught:
        call(path)
    text = str(caught.value)
    assert str(path) in text
    assert len(text.splitlines()) == 1
    return text


@pytest.fixture
def record(tmp_path, trained):
    """A copy of a valid record, of arm linear and seed 0."""
    return shutil.copy(trained[0].record(0), tmp_path / "linear-seed0.parquet")


def test_a_record_is_read_as_it_was_written(trained):
    run, result, rows = trained
    for seed in run.seeds:
        read, metadata = read_record(run.record(seed))
        assert list(read.columns) == list(DTYPES)
        for name, dtype in DTYPES.items():
            assert read[name].dtype == dtype or (dtype == "str" and pd.api.types.is_string_dtype(read[name])), name
        written = rows[rows["seed"] == seed].reset_index(drop=True)
        pd.testing.assert_frame_equal(read, written.astype(read.dtypes), check_exact=True)
        assert metadata["seed"] == seed
    first = read[read["operation"] == "x_plus_y"]
    logs = result.logs[:, 1]  # members: x_plus_y seeds 0 and 1, x_minus_y seeds 0 and 1
    names = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    np.testing.assert_array_equal(first[names].to_numpy(), logs)


def test_updates_batches_and_examples_seen(trained):
    rows = read_record(trained[0].record(0))[0]
    for _, member in rows.groupby("operation"):
        assert member["update"].tolist() == [10, 20, 30, 40, 50, 60]
        assert member["batch_size"].tolist() == [6, 8, 10, 12, 14, 16]  # 4 + 12·p
        assert member["examples_seen"].tolist() == [60, 140, 240, 360, 500, 660]


def test_pandas_alone_reads_a_record(trained):
    path = trained[0].record(1)
    pd.testing.assert_frame_equal(pd.read_parquet(path), read_record(path)[0])


def test_metadata_say_how_the_numbers_came_about(trained):
    run, result, _ = trained
    metadata = read_record(run.record(1))[1]
    settings = run.study.settings(run.arm)
    assert {k: metadata[k] for k in settings} == settings
    assert settings.keys() >= {
        "operations", "updates", "modulus", "train_fraction", "lo", "hi", "learning_rate", "weight_decay", "precision",
    }  # fmt: skip
    expected = {
        "study": "tiny", "schedule": "linear", "seed": 1, "members": 4, "device": "cpu", "compiled": False,
        "threads": 1, "schema_version": 1, "started": result.started,
    }  # fmt: skip
    assert {k: metadata[k] for k in expected} == expected
    assert metadata["versions"].keys() >= {"torch", "numpy", "pandas", "pyarrow", "python"}
    assert metadata.keys() >= {"commit", "dirty", "device_name"}
    assert 0 < metadata["seconds"] == round(result.seconds, 3)
    text = json.dumps(metadata)
    assert str(run.results) not in text


def test_a_version_is_told_that_only_younger_records_name(trained):
    old = read_record(trained[0].record(1))[1]
    new = old | {"versions": old["versions"] | {"triton": "3.6.0"}}
    for records, expected in (([old, new], "none, 3.6.0"), ([new, old], "3.6.0, none"), ([new], "3.6.0")):
        assert provenance(records).set_index("item")["value"]["triton"] == expected
    assert "triton" not in set(provenance([old])["item"])


def test_a_record_is_small_and_compressed_by_columns(trained):
    column = pq.read_metadata(trained[0].record(0)).row_group(0).column(list(DTYPES).index("val_loss"))
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings


@pytest.mark.parametrize("name", ["train_loss", "val_loss"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_diverged_from_the_first_log_on_whose_loss_is_not_finite(trained, name, value):
    run, result, _ = trained
    logs = result.logs.copy()
    logs[3, 2, ["train_loss", "train_accuracy", "val_loss", "val_accuracy"].index(name)] = value  # one log only
    rows = frame(run, logs)
    flags = rows.groupby(["operation", "seed"])["diverged"].agg(list)
    assert flags.pop(("x_minus_y", 0)) == [False, False, False, True, True, True]
    assert not any(map(any, flags))


def test_not_finite_numbers_survive(trained, tmp_path):
    run, result, _ = trained
    logs = result.logs.copy()
    logs[2, 0, 0], logs[3, 0, 2], logs[4, 0, 2] = np.nan, np.inf, -0.0
    path = tmp_path / "linear-seed0.parquet"
    rows = frame(run, logs)
    write_record(path, rows[rows["seed"] == 0], read_record(run.record(0))[1])
    read = read_record(path)[0]
    np.testing.assert_array_equal(read["train_loss"].to_numpy()[:6], logs[:, 0, 0])
    assert read["val_loss"].to_numpy()[:6].tobytes() == logs[:, 0, 2].tobytes()


def test_a_changed_record_is_never_read_as_another(record):
    content, (rows, metadata) = record.read_bytes(), read_record(record)
    refused = 0
    for seed in range(300):
        record.write_bytes(mutate(content, seed))
        try:
            changed, other = read_record(record)
        except Damaged as error:
            assert str(record) in str(error)
            assert "move it away or delete it, then run make again" in str(error)
            assert len(str(error).splitlines()) == 1
            refused += 1
        else:
            pd.testing.assert_frame_equal(changed, rows, check_exact=True)
            assert other == metadata
    assert refused > 150  # the others touch statistics that reading does not use


def test_every_column_and_the_metadata_are_under_the_checksum(record):
    # A file that Parquet's own reader finds whole: rewritten with one value changed, and the old checksum.
    table = pq.read_table(record)
    for name in DTYPES:
        changed = table.to_pandas()
        changed.loc[3, name] = {"schedule": "baseline", "operation": "x_div_y", "diverged": True}.get(name, 7)
        pq.write_table(type(table).from_pandas(changed, schema=table.schema, preserve_index=False), record)
        assert "its checksum differs" in damage(read_record, record)
    stored = table.schema.metadata
    stored = {**stored, b"grok_utils": stored[b"grok_utils"].replace(b'"seed": 0', b'"seed": 3')}
    pq.write_table(table.replace_schema_metadata(stored), record.with_name("linear-seed3.parquet"))
    assert "its checksum differs" in damage(read_record, record.with_name("linear-seed3.parquet"))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 10, b"schedule,seed\nlinear,0\n"])
def test_what_is_no_parquet_file_is_told(record, content):
    record.write_bytes(content)
    assert "is not a readable record" in damage(read_record, record)


def test_a_record_that_may_not_be_read_is_not_to_be_deleted(record, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(13, f"Failed to open local file '{record}'")

    monkeypatch.setattr(pq, "read_table", refused)
    text = damage(read_record, record)
    assert "cannot be read: Failed to open local file" in text
    assert "change its owner or its rights" in text and "delete" not in text


def test_a_renamed_record_is_told(record):
    renamed = record.rename(record.with_name("linear-seed1.parquet"))
    assert "holds schedule linear, seed 0" in damage(read_record, renamed)


def test_a_record_of_another_schema_is_told(trained, record):
    rows, metadata = read_record(record)
    write_record(record, rows, metadata | {"schema_version": 0})
    assert "another schema" in damage(read_record, record)
    del metadata["schema_version"]
    write_record(record, rows, metadata)
    assert "is not a readable record (KeyError: 'schema_version')" in damage(read_record, record)


def test_a_record_is_complete_only_for_the_settings_it_was_made_with(tmp_path, trained):
    run = dataclasses.replace(trained[0], results=tmp_path / "results")
    assert not is_complete(run, 0)
    path = run.record(0)
    path.parent.mkdir(parents=True)
    shutil.copy(trained[0].record(0), path)
    assert is_complete(run, 0)
    for name, value in {"weight_decay": 0.25, "updates": 70, "operations": ["x_plus_y"], "hi": 17}.items():
        other = make_run(write_study(tmp_path, **{name: value}), "linear", [0], str(tmp_path / "results"))
        text = damage(lambda _, other=other: is_complete(other, 0), path)
        assert f"was made with {name} = " in text
        assert "the study says" in text
    # Other arms and seeds of the study, and its title, are not the record's business.
    changes = {"schedules": ["linear", "cyclic"], "seeds": [0, 5], "title": "new"}
    assert is_complete(make_run(write_study(tmp_path, **changes), "linear", [0], str(tmp_path / "results")), 0)


def test_a_valid_record_is_left_as_it_is(tmp_path, trained):
    run, result, _ = trained
    run = dataclasses.replace(run, results=tmp_path)
    run.record(0).parent.mkdir(parents=True)
    shutil.copy(trained[0].record(0), run.record(0))
    before = run.record(0).stat().st_mtime_ns
    write_records(dataclasses.replace(result, run=run))
    assert run.record(0).stat().st_mtime_ns == before
    assert is_complete(run, 1)
    assert sorted(p.name for p in run.folder.rglob("*") if p.is_file()) == [
        "linear-seed0.parquet",
        "linear-seed1.parquet",
    ]


def test_a_study_is_read_whole_or_not_at_all(tmp_path, trained):
    run, _, rows = trained
    read, metadata = read_study(run.study, run.results)
    pd.testing.assert_frame_equal(
        read.sort_values(["operation", "seed", "update"], ignore_index=True),
        rows.astype(read.dtypes).sort_values(["operation", "seed", "update"], ignore_index=True),
        check_exact=True,
    )
    assert [m["seed"] for m in metadata] == [0, 1]
    with pytest.raises(Damaged, match=f"{tmp_path / 'tiny'} holds no records yet"):
        read_study(run.study, tmp_path)
    shutil.copytree(run.folder, tmp_path / "tiny")
    bad = tmp_path / "tiny" / "records" / "linear-seed1.parquet"
    bad.write_bytes(bad.read_bytes()[:-9])
    with pytest.raises(Damaged, match=str(bad)):
        read_study(run.study, tmp_path)


def test_only_records_that_the_study_names_are_read(trained):
    run, _, rows = trained
    fewer = dataclasses.replace(run.study, seeds=(1,))
    read, metadata = read_study(fewer, run.results)
    assert [m["seed"] for m in metadata] == [1] and len(read) == len(rows) / 2
    other = dataclasses.replace(run.study, schedules=(run.study.arm("baseline"),))
    with pytest.raises(Damaged, match="holds no records yet"):
        read_study(other, run.results)
    changed = dataclasses.replace(run.study, weight_decay=0.25)
    with pytest.raises(Damaged, match=r"made with weight_decay = 0\.5, the study says 0\.25"):
        read_study(changed, run.results)


def test_read_like_takes_what_differs_in_arm_and_seed_alone(tmp_path, trained):
    rows = trained[2]
    baseline = make_run(write_study(tmp_path), "baseline", [7], tmp_path, "cpu")
    like = read_like(trained[0].folder, baseline)
    assert set(like.schedule) == {"linear"} and set(like.seed) == {0, 1} and len(like) == len(rows)
    longer = make_run(write_study(tmp_path, updates=70), "baseline", [0], tmp_path, "cpu")
    none = read_like(trained[0].folder, longer)
    assert len(none) == 0 and list(none.columns) == list(rows.columns)
    assert pd.concat([rows, none]).dtypes.equals(rows.dtypes)
