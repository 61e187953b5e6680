"""Records: what is written is what is read, by anyone's tools; a changed file is named and never read as another."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.studies import mutate, run_of, small, write_study

from grok_utils import schedules
from grok_utils.errors import Damaged
from grok_utils.page import tables
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.provenance import provenance
from grok_utils.store.records import (
    digest,
    frame,
    is_complete,
    measured_columns,
    read_like,
    read_record,
    read_study,
    write_record,
    write_records,
)
from grok_utils.studies import ExecutionPath, Result, runs_of
from grok_utils.tasks import OPERATIONS, Operation

# Readers and other tools rely on these names.
DTYPES = {
    "schedule": "str",
    "operation": "str",
    "seed": "int32",
    "cell": "str",
    "update": "int32",
    "batch_size": "int32",
    "learning_rate": "float64",
    "weight_decay": "float64",
    "examples_seen": "int64",
    "train_loss": "float32",
    "train_accuracy": "float32",
    "val_loss": "float32",
    "val_accuracy": "float32",
    "diverged": "bool",
}
KEYS = ["schedule", "operation", "cell", "seed", "update"]
GRID = {"learning_rate": [1e-3, 2e-3], "weight_decay": [0.5, 1]}


def result_of(run):
    """What a completed run might leave, without the training."""
    shape = len(run.batch_sizes), len(run.members), len(measured_columns(run.study))
    logs = np.random.default_rng(7).random(shape, np.float32)
    path = ExecutionPath("cpu", run.arm.settings.precision, False, 1)
    return Result(run, path, logs, "2026-01-02T03:04:05+00:00", 12.3456)


def write(folder, **changes):
    """The records of every arm of a study in `folder`/results; the study."""
    study = load_study(write_study(folder, **changes))
    for run in runs_of(study, folder / "results"):
        write_records(result_of(run))
    return study


def in_order(rows):
    return rows.sort_values(KEYS, ignore_index=True)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """A run of arm linear and two seeds, what it left, and its rows as they were written. Not to be changed."""
    run = run_of(tmp_path_factory.mktemp("untrained"), seeds=[0, 1])
    result = result_of(run)
    return run, result, write_records(result)


def damage(call, path):
    """The one line of the Damaged that `call(path)` raises; it names the file."""
    with pytest.raises(Damaged) as caught:
        call(path)
    text = str(caught.value)
    assert str(path) in text
    assert len(text.splitlines()) == 1
    return text


@pytest.fixture
def record(tmp_path, untrained):
    """A copy of a valid record, of arm linear and seed 0."""
    return shutil.copy(untrained[0].record(0), tmp_path / "linear-seed0.parquet")


def test_a_record_is_read_as_it_was_written(untrained):
    run, result, rows = untrained
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


def test_updates_batches_and_examples_seen(untrained):
    rows = read_record(untrained[0].record(0))[0]
    for _, member in rows.groupby("operation"):
        assert member["update"].tolist() == [10, 20, 30, 40, 50, 60]
        assert member["batch_size"].tolist() == [6, 8, 10, 12, 14, 16]  # 4 + 12·p
        assert member["examples_seen"].tolist() == [60, 140, 240, 360, 500, 660]


def test_pandas_alone_reads_a_record(untrained):
    path = untrained[0].record(1)
    pd.testing.assert_frame_equal(pd.read_parquet(path), read_record(path)[0])


def test_metadata_say_how_the_numbers_came_about(untrained):
    run, result, _ = untrained
    metadata = read_record(run.record(1))[1]
    assert metadata.pop("identity") == run.identity
    (made,) = metadata.pop("made")
    assert metadata == {"schema_version": 2, "study": "tiny", "schedule": "linear", "seed": 1}
    expected = {
        "device": "cpu", "precision": "float32", "compiled": False, "threads": 1, "started": result.started,
        "seconds": 12.346, "seeds": [0, 1], "share": 0.5,
    }  # fmt: skip
    assert {k: made[k] for k in expected} == expected
    assert made["versions"].keys() >= {"torch", "numpy", "pandas", "pyarrow", "python"}
    assert made.keys() >= {"commit", "dirty", "device_name"}
    assert str(run.results) not in json.dumps(made)


@pytest.mark.parametrize(
    ("device", "compiled", "shape", "attention"),
    [
        ("cuda", True, {}, "kernels"),
        ("cuda", True, {"width": 64, "heads": 2, "blocks": 3}, "kernels"),
        ("cuda", True, {"width": 96, "heads": 3}, "stacked"),
        ("cuda", True, {"width": 512}, "stacked"),
        ("cuda", False, {}, "stacked"),
        ("cpu", True, {}, None),
    ],
)
def test_a_record_made_on_a_gpu_says_what_computed_its_attention(
    tmp_path, monkeypatch, device, compiled, shape, attention
):
    run = run_of(tmp_path, **shape)
    here = provenance("cpu")
    monkeypatch.setattr("grok_utils.store.records.provenance", lambda device: here)
    path = ExecutionPath(device, "float32", compiled, 1)
    write_records(dataclasses.replace(result_of(run), path=path))
    (made,) = read_record(run.record(0))[1]["made"]
    assert made.get("attention") == attention
    told = [words for words in tables.execution(made).split(", ") if "attention" in words]
    assert told == ([f"attention {attention}"] if attention else [])


def test_a_grid_s_rows_say_what_their_cells_train_with(tmp_path):
    rate = {"x_plus_y": 4e-3, "x_minus_y": {"schedule": "linear", "lo": 7e-3, "hi": 1e-3}}
    arms = small("linear")
    arms["linear"]["learning_rate"] = rate
    write(tmp_path, arms=arms, grid=GRID)
    rows = read_record(tmp_path / "results" / "tiny" / "records" / "linear-seed1.parquet")[0]
    assert list(rows.columns) == list(DTYPES)
    members = {k: m for k, m in rows.groupby(["operation", "cell"])}
    assert list(members) == [(o, f"weight_decay={d}") for o in ("x_minus_y", "x_plus_y") for d in ("0.5", "1")]
    for (operation, cell), member in members.items():
        plus = operation == "x_plus_y"
        assert member["weight_decay"].tolist() == [float(cell.split("=")[1])] * 6
        assert member["learning_rate"].tolist() == pytest.approx(
            [4e-3] * 6 if plus else [6e-3, 5e-3, 4e-3, 3e-3, 2e-3, 1e-3]
        )
        assert member["batch_size"].tolist() == [6, 8, 10, 12, 14, 16]
        assert member["update"].tolist() == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("varied", [["beta1"], ["beta2"], ["beta1", "beta2"]])
def test_betas_have_columns_where_the_study_varies_them_in_any_arm(tmp_path, varied):
    arms = small("baseline", "linear")
    arms["linear"] |= dict.fromkeys(varied, 0.75)
    study = write(tmp_path, arms=arms)
    rows, _ = read_study(study, tmp_path / "results")
    assert list(rows.columns) == [*DTYPES, *varied]
    for name in varied:
        assert rows[name].dtype == np.float64
        means = rows.groupby("schedule")[name].agg(["min", "max"])
        assert means.loc["linear"].tolist() == [0.75] * 2
        assert means.loc["baseline"].tolist() == [{"beta1": 0.9, "beta2": 0.98}[name]] * 2


def test_measures_have_columns_after_all_others_and_may_be_thinned(tmp_path):
    measures, columns = ["gradient_noise", "weight_norm"], ["gradient_square", "gradient_trace", "weight_norm"]
    arms, thin = small("linear") | {"baseline": {"beta1": 0.8}}, ["gradient_trace"]
    study = write(tmp_path, arms=arms, measures=measures, every_tenth=thin)
    run = next(runs_of(study, tmp_path / "results"))
    rows, logs = read_record(run.record(0))[0], result_of(run).logs
    assert list(rows) == [*DTYPES, "beta1", *columns]
    assert set(rows[columns].dtypes) == {np.dtype("float32")}
    for i, member in enumerate(run.members):
        if member.seed == 0:
            of = rows[rows["operation"] == member.operation]
            np.testing.assert_array_equal(of[["gradient_square", "weight_norm"]], logs[:, i, [4, 6]])
            assert of["gradient_trace"].isna().tolist() == [True] * 5 + [False]


def test_what_a_measure_does_not_know_is_null(tmp_path):
    run = run_of(tmp_path, operations=["x_plus_y", "permutation"], measures=["fourier_concentration"])
    result = result_of(run)
    result.logs[:, 1, 4] = np.nan
    write_records(result)
    table = pq.read_table(run.record(0))
    assert table["fourier_concentration"].null_count == 6
    known = read_record(run.record(0))[0].groupby("operation")["fourier_concentration"].count()
    assert known.to_dict() == {"x_plus_y": 6, "permutation": 0}


@pytest.mark.parametrize(("updates", "kept"), [(60, [60]), (200, [100, 200]), (130, [100, 130])])
def test_some_columns_are_kept_at_every_tenth_log_and_the_last(tmp_path, updates, kept):
    thin = ["train_loss", "val_accuracy"]
    run = run_of(tmp_path, seeds=[0], updates=updates, every_tenth=thin)
    full = write_records(result_of(run))
    rows = read_record(run.record(0))[0]
    there = rows["update"].isin(kept)
    assert rows[thin].notna().eq(there, axis=0).all(axis=None)
    assert rows.drop(columns=thin).notna().all(axis=None)
    columns = ["train_accuracy", "val_loss", "batch_size", "learning_rate"]
    pd.testing.assert_frame_equal(rows[columns], full[columns].astype(rows[columns].dtypes), check_exact=True)
    np.testing.assert_array_equal(rows.loc[there, thin].to_numpy(), full.loc[there, thin].to_numpy())
    table = pq.read_table(run.record(0))
    assert {c: table[c].null_count for c in table.column_names if table[c].null_count} == dict.fromkeys(
        thin, int((~there).sum())
    )
    assert full[thin].notna().all(axis=None)  # a report in the same notebook has them all


def test_a_record_is_small_and_compressed_by_columns(untrained):
    column = pq.read_metadata(untrained[0].record(0)).row_group(0).column(list(DTYPES).index("val_loss"))
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings


@pytest.mark.parametrize("name", ["train_loss", "val_loss"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_diverged_from_the_first_log_on_whose_loss_is_not_finite(untrained, name, value):
    run, result, _ = untrained
    logs = result.logs.copy()
    logs[3, 2, ["train_loss", "train_accuracy", "val_loss", "val_accuracy"].index(name)] = value  # one log only
    rows = frame(run, logs)
    flags = rows.groupby(["operation", "seed"])["diverged"].agg(list)
    assert flags.pop(("x_minus_y", 0)) == [False, False, False, True, True, True]
    assert not any(map(any, flags))


def test_not_finite_numbers_survive(untrained, tmp_path):
    run, result, _ = untrained
    logs = result.logs.copy()
    logs[2, 0, 0], logs[3, 0, 2], logs[4, 0, 2] = np.nan, np.inf, -0.0
    rows = frame(run, logs)
    run = dataclasses.replace(run, results=tmp_path)
    write_record(run, 0, rows[rows["seed"] == 0], [])
    read = read_record(run.record(0))[0]
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
        other = {"schedule": "baseline", "operation": "x_div_y", "cell": "beta1=0.5", "diverged": True}
        changed.loc[3, name] = other.get(name, 7)
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

    monkeypatch.setattr(pq, "ParquetFile", refused)
    text = damage(read_record, record)
    assert "cannot be read: Failed to open local file" in text
    assert "change its owner or its rights" in text and "delete" not in text


def test_a_renamed_record_is_told(record):
    renamed = record.rename(record.with_name("linear-seed1.parquet"))
    assert "holds schedule linear, seed 0" in damage(read_record, renamed)


def rewritten(record, change):
    """The record with metadata as `change` leaves them, under a checksum that is right."""
    table = pq.read_table(record)
    metadata = json.loads(table.schema.metadata[b"grok_utils"])
    change(metadata)
    text = json.dumps(metadata)
    pq.write_table(table.replace_schema_metadata({"grok_utils": text, "sha256": digest(table, text)}), record)


def test_a_record_of_another_schema_is_told(record):
    rewritten(record, lambda m: m.update(schema_version=1))
    assert "has another schema than this version reads" in damage(read_record, record)
    rewritten(record, lambda m: m.pop("schema_version"))
    assert "is not a readable record (KeyError: 'schema_version')" in damage(read_record, record)


def test_a_record_with_columns_of_other_types_or_without_one_is_told(record):
    table = pq.read_table(record)
    text = table.schema.metadata[b"grok_utils"].decode()
    wide = table.set_column(2, "seed", table["seed"].cast(pa.int64()))
    for changed in (wide, table.drop_columns(["cell"]), table.select(table.column_names[::-1])):
        about = {"grok_utils": text, "sha256": digest(changed, text)}
        pq.write_table(changed.replace_schema_metadata(about), record)
        assert "has another schema than this version reads" in damage(read_record, record)


def test_columns_of_a_measure_are_no_other_schema(record):
    table = pq.read_table(record)
    text = table.schema.metadata[b"grok_utils"].decode()
    more = table.append_column("weight_norm", pa.array(np.arange(table.num_rows, dtype=np.float32)))
    pq.write_table(more.replace_schema_metadata({"grok_utils": text, "sha256": digest(more, text)}), record)
    assert list(read_record(record)[0]) == [*DTYPES, "weight_norm"]


# --- a record and what the study says now --------------------------------------------------------------------------

OUT = "give what was changed a name of its own, or choose another folder (RESULTS=elsewhere), or move "


def told(folder, arm="linear", **changes):
    """What is said of the record of `arm` and seed 0 in `folder`, without its ways out, once a study has changed."""
    run = run_of(folder, arm, **changes)
    text = damage(lambda _: is_complete(run, 0), run.record(0))
    said, out = text.split(": ", 1)
    assert out == f"{OUT}{run.record(0)} away"
    return said.replace(str(run.record(0)), "RECORD")


def test_a_record_is_complete_only_for_the_settings_it_was_made_with(tmp_path):
    assert not is_complete(run_of(tmp_path), 0)
    write(tmp_path)
    assert is_complete(run_of(tmp_path), 0)
    # Other arms and seeds of the study, its title and the order of what it says are not the record's business.
    changes = {
        "arms": small("cyclic", "linear"),
        "seeds": [0, 5],
        "title": "new",
        "operations": ["x_minus_y", "x_plus_y"],
    }
    assert is_complete(run_of(tmp_path, **changes), 0)
    assert told(tmp_path, modulus=13) == "RECORD was made with modulus = 11, the study says 13"
    assert told(tmp_path, updates=70) == "RECORD was made with updates = 60, the study says 70"
    assert told(tmp_path, precision="bf16") == "RECORD was made with precision = 'float32', the study says 'bf16'"
    assert told(tmp_path, train_fraction=0.6) == "RECORD was made with train_fraction = 0.5, the study says 0.6"
    other = run_of(tmp_path, name="other")
    other.record(0).parent.mkdir(parents=True)
    shutil.copy(run_of(tmp_path).record(0), other.record(0))
    assert damage(lambda _: is_complete(other, 0), other.record(0)).endswith(
        " is of study tiny, not of other: move it away"
    )


def test_a_record_without_a_measure_that_the_study_asks_for_is_told(tmp_path):
    write(tmp_path, measures=["weight_norm"])
    assert is_complete(run_of(tmp_path, measures=["weight_norm"]), 0)
    assert is_complete(run_of(tmp_path), 0)  # more than is asked for does not harm
    run = run_of(tmp_path, measures=["gradient_noise", "weight_norm"])
    path = run.record(0)
    assert damage(lambda _: is_complete(run, 0), path) == (
        f"{path} was made without gradient_square, gradient_trace, which the study's measures ask for: "
        "give the study with measures a name of its own, or choose another folder (RESULTS=elsewhere), or move "
        f"{path} away"
    )
    assert told(tmp_path, modulus=13, measures=["gradient_noise"]).startswith("RECORD was made with modulus = 11")


def test_an_edited_schedule_is_told_in_words_with_its_update(tmp_path, monkeypatch):
    study = write(tmp_path)
    edited = lambda s, T, lo, hi: lo + (hi - lo) * (s / T) - (s > 30)  # noqa: E731
    monkeypatch.setitem(schedules.SCHEDULES, "linear", edited)
    said = "linear's values of batch_size differ from those its records were made with, from update 31 on "
    assert told(tmp_path) == said + "(12 there, 11 in the study)"
    assert is_complete(run_of(tmp_path, "baseline"), 0)
    with pytest.raises(Damaged, match="linear's values of batch_size differ"):
        read_study(study, tmp_path / "results")


@pytest.mark.parametrize(("name", "default"), [("learning_rate", "0.001"), ("weight_decay", "0.5")])
def test_another_rate_or_decay_is_told_in_words_with_its_update(tmp_path, name, default):
    write(tmp_path)
    start = f"linear's values of {name} differ from those its records were made with, from update "
    assert told(tmp_path, **{name: 0.25}) == f"{start}1 on ({default} there, 0.25 in the study)"
    later = {"schedule": "linear", "lo": float(default), "hi": float(default), "control": None}
    assert is_complete(run_of(tmp_path, **{name: later}), 0)
    per = {"x_plus_y": float(default), "x_minus_y": 0.25}
    assert told(tmp_path, **{name: per}) == f"{start}1 on ({default} there, 0.25 in the study)"


def test_betas_are_told_from_which_update_on_where_the_record_has_them(tmp_path):
    write(tmp_path)
    assert told(tmp_path, beta1=0.5) == "linear's values of beta1 differ from those its records were made with"
    shutil.rmtree(tmp_path / "results")
    write(tmp_path, beta2={"schedule": "linear", "lo": 0.2, "hi": 0.8})
    said = "linear's values of beta2 differ from those its records were made with, from update 1 on (0.3 there, "
    assert told(tmp_path, beta2=0.98) == f"{said}0.98 in the study)"


def test_another_grid_is_told_as_cells(tmp_path):
    write(tmp_path, grid=GRID)
    said = "linear's cells of the grid differ from those its records were made with, in "
    assert told(tmp_path, grid=GRID | {"weight_decay": [0.5, 1, 2]}) == f"{said}x_minus_y, x_plus_y"
    assert told(tmp_path) == f"{said}x_minus_y, x_plus_y"
    more = [GRID, {"learning_rate": [4e-3], "operations": ["x_plus_y"]}]
    assert told(tmp_path, grid=more) == f"{said}x_plus_y"
    assert is_complete(run_of(tmp_path, grid={k: v[::-1] for k, v in GRID.items()}), 0)


def test_the_earliest_difference_of_a_grid_is_told(tmp_path, monkeypatch):
    rates = {
        "x_plus_y": {"schedule": "mine", "lo": 0.1, "hi": 0.9},
        "x_minus_y": {"schedule": "yours", "lo": 0.1, "hi": 0.9},
    }
    for name in ("mine", "yours"):
        monkeypatch.setitem(schedules.SCHEDULES, name, schedules.linear)
    write(tmp_path, learning_rate=rates, grid={"weight_decay": [0.5, 1]})
    monkeypatch.setitem(
        schedules.SCHEDULES, "mine", lambda s, T, lo, hi: 0.5 if s > 40 else schedules.linear(s, T, lo, hi)
    )
    monkeypatch.setitem(
        schedules.SCHEDULES, "yours", lambda s, T, lo, hi: 0.6 if s > 10 else schedules.linear(s, T, lo, hi)
    )
    said = told(tmp_path, learning_rate=rates, grid={"weight_decay": [0.5, 1]})
    assert said.endswith(", from update 11 on (0.366667 there, 0.6 in the study)")


def test_an_edited_operation_is_told_by_its_name(tmp_path, monkeypatch):
    write(tmp_path)
    said = "linear's operations differ from those its records were made with, in "
    assert told(tmp_path, operations=["x_plus_y"]) == f"{said}x_minus_y"
    assert told(tmp_path, operations=["x_plus_y", "x_minus_y", "x_div_y"]) == f"{said}x_div_y"
    monkeypatch.setitem(OPERATIONS, "x_plus_y", Operation(lambda x, y, p: (x + y + 1) % p))
    assert told(tmp_path) == f"{said}x_plus_y"


def test_a_field_that_is_younger_than_a_record_has_its_default(record, untrained, tmp_path):
    rewritten(record, lambda m: m["identity"].pop("precision"))
    run = dataclasses.replace(untrained[0], results=tmp_path)
    run.record(0).parent.mkdir(parents=True)
    record.rename(run.record(0))
    assert is_complete(run, 0)
    assert not is_complete(dataclasses.replace(run, seeds=(1,)), 1)


def test_a_valid_record_is_left_as_it_is(tmp_path, untrained):
    run, result, _ = untrained
    run = dataclasses.replace(run, results=tmp_path)
    run.record(0).parent.mkdir(parents=True)
    shutil.copy(untrained[0].record(0), run.record(0))
    before = run.record(0).stat().st_mtime_ns
    write_records(dataclasses.replace(result, run=run))
    assert run.record(0).stat().st_mtime_ns == before
    assert is_complete(run, 1)
    assert sorted(p.name for p in run.folder.rglob("*") if p.is_file()) == [
        "linear-seed0.parquet",
        "linear-seed1.parquet",
    ]


def test_a_study_is_read_whole_or_not_at_all(tmp_path, untrained):
    run, _, rows = untrained
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


def test_a_study_with_a_grid_is_one_tidy_table_as_pandas_reads_its_folder(tmp_path):
    arms = small("baseline", "linear") | {
        "annealed": {"batch_size": 8, "learning_rate": {"schedule": "linear", "lo": 0.1, "hi": 0.01}}
    }
    study = write(tmp_path, arms=arms, grid=GRID | {"beta2": [0.9]}, every_tenth=["train_loss"])
    rows, metadata = read_study(study, tmp_path / "results")
    assert list(rows.columns) == [*DTYPES, "beta2"]
    pd.testing.assert_frame_equal(
        in_order(rows), in_order(pd.read_parquet(tmp_path / "results" / "tiny" / "records")), check_exact=True
    )
    assert not rows.duplicated(KEYS).any()
    cells = rows.groupby("schedule")["cell"].nunique()
    assert cells.to_dict() == {"annealed": 2, "baseline": 4, "linear": 4}
    assert len(rows) == (4 + 4 + 2) * 2 * 2 * 6  # cells, operations, seeds, logs
    assert [(m["schedule"], m["seed"]) for m in metadata] == [(arm, seed) for arm in arms for seed in (0, 1)]


def test_only_records_that_the_study_names_are_read(untrained):
    run, _, rows = untrained
    fewer = dataclasses.replace(run.study, seeds=(1,))
    read, metadata = read_study(fewer, run.results)
    assert [m["seed"] for m in metadata] == [1] and len(read) == len(rows) / 2
    other = dataclasses.replace(run.study, arms=(run.study.arm("baseline"),))
    with pytest.raises(Damaged, match="holds no records yet: make the runs first, by make all STUDY=tiny"):
        read_study(other, run.results)


def test_read_like_takes_the_records_on_the_same_pairs_for_as_long(tmp_path, untrained):
    rows = untrained[2]
    arms = {"mine": {"batch_size": 8, "learning_rate": {"schedule": "linear", "lo": 0.1, "hi": 0.2}}}
    like = pd.concat(read_like(untrained[0].folder, run_of(tmp_path, "mine", [7], arms=arms, weight_decay=2)))
    assert set(like.schedule) == {"linear"} and set(like.seed) == {0, 1} and len(like) == len(rows)
    narrow = {"mine": {"optimizer": "muon", "width": 64}}
    assert pd.concat(read_like(untrained[0].folder, run_of(tmp_path, "mine", arms=narrow))).equals(like)
    others = {"updates": 70}, {"modulus": 13}, {"operations": ["x_plus_y"]}, {"train_fraction": 0.4}, {"grid": GRID}
    for changes in others:
        assert read_like(untrained[0].folder, run_of(tmp_path, "baseline", **changes)) == []
    assert read_like(tmp_path / "nowhere", untrained[0]) == []
