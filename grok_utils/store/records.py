"""What a run leaves: one Parquet file for each schedule and seed, with its provenance, checked when it is read back."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grok_utils.engine.machine import has_kernels
from grok_utils.engine.trainer import MEASURED, diverged
from grok_utils.errors import Damaged, one_line, with_remedy
from grok_utils.measures import columns_of
from grok_utils.schedules import BLOCK
from grok_utils.store.files import written_whole
from grok_utils.store.provenance import provenance
from grok_utils.studies import DEFAULTS, HYPER, Result, Run, Study, runs_of, unlike

SCHEMA_VERSION = 2
# One row a log. Readers and other tools rely on these names: add columns, don't rename them.
COLUMNS = {
    "schedule": pa.string(),
    "operation": pa.string(),
    "seed": pa.int32(),
    "cell": pa.string(),  # of the grid; empty without one
    "update": pa.int32(),
    "batch_size": pa.int32(),
    "learning_rate": pa.float64(),  # of the block, before the warm-up
    "weight_decay": pa.float64(),
    "examples_seen": pa.int64(),
    **dict.fromkeys(MEASURED, pa.float32()),
    "diverged": pa.bool_(),  # true from the first log on whose loss is not finite
}
VARIED = {"beta1": pa.float64(), "beta2": pa.float64()}  # columns of a study that varies them
WORDS = {"operations": "operations", "cells": "cells of the grid"}  # first: they entail other hyper-parameters
WORDS |= {name: f"values of {name}" for name in HYPER}


def measured_columns(study: Study) -> list[str]:
    """The columns of a study's records that were measured, float32: losses, accuracies, then those of its measures."""
    return [*MEASURED, *columns_of(study.measures)]


def frame(run: Run, logs: np.ndarray, whole: bool = False) -> pd.DataFrame:
    """The logs [logs, M, 4 + columns] of a run, complete or not, as one row a log: member by member, as above.

    With `whole`, the rows go to the study's last update: where there is no log, what would be measured is NaN.
    """
    return pd.concat([rows_of(run, i, logs[:, i], whole) for i in range(len(run.members))], ignore_index=True)


def rows_of(run: Run, i: int, logs: np.ndarray, whole: bool = False) -> pd.DataFrame:
    """The logs [logs, 4 + columns] of member number `i` of a run as rows; `whole` as in `frame`."""
    member, n = run.members[i], len(run.courses.batch_size) if whole else len(logs)
    beyond = 0, n - len(logs)
    found = {"diverged": np.pad(diverged(logs), beyond, "edge")}
    logs = np.pad(logs, (beyond, (0, 0)), constant_values=np.nan)
    sizes = run.courses.batch_size[:n, i]
    rows = {"schedule": run.arm.name, "operation": member.operation, "seed": member.seed, "cell": member.cell.name}
    rows |= {"update": BLOCK * np.arange(1, n + 1), "batch_size": sizes}
    for name in ("learning_rate", "weight_decay", *filter(run.study.varies, VARIED)):
        rows[name] = getattr(run.courses, name)[:n, i]
    rows |= {"examples_seen": BLOCK * sizes.cumsum()} | dict(zip(measured_columns(run.study), logs.T, strict=True))
    table = pd.DataFrame(rows | found)
    return table[[*COLUMNS, *(c for c in table if c in VARIED), *columns_of(run.study.measures)]]


def write_records(result: Result) -> pd.DataFrame:
    """Write each seed's record of a completed run, but where it is, and remove its checkpoint; returns all rows."""
    run = result.run
    rows = frame(run, result.logs, whole=True)
    made = asdict(result.path) | provenance(result.path.device)
    if result.path.device == "cuda":  # of the first and the last block; what is between is stacked
        made["attention"] = "kernels" if has_kernels(result.path, run.arm.settings.shape) else "stacked"
    made |= {"started": result.started, "seconds": round(result.seconds, 3)}
    made |= {"seeds": list(run.seeds), "share": 1 / len(run.seeds)}  # of the run's time that falls to a record
    made |= {"ended": result.updates} if result.updates < run.study.updates else {}  # early, at this update
    for seed in run.seeds:
        if not is_complete(run, seed):
            write_record(run, seed, rows[rows["seed"] == seed], [made])
    run.checkpoint.unlink(missing_ok=True)
    return rows


def kept(study: Study, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` as a record keeps them: the columns in `every_tenth` at every tenth log and at the last, else null."""
    thin = (rows["update"] % (10 * BLOCK) != 0) & (rows["update"] != study.updates)
    return rows.assign(**{name: rows[name].mask(thin) for name in study.every_tenth})


def write_record(run: Run, seed: int, rows: pd.DataFrame, made: list[dict[str, Any]]) -> None:
    """Write `rows` (the columns above) of one seed of a run atomically, and how each part of them was `made`."""
    study = run.study
    metadata = {"schema_version": SCHEMA_VERSION, "study": study.name, "schedule": run.arm.name, "seed": seed}
    text = json.dumps(metadata | {"identity": run.identity, "made": made}, sort_keys=True)
    rows = kept(study, rows)
    types = COLUMNS | VARIED | dict.fromkeys(columns_of(study.measures), pa.float32())
    table = pa.Table.from_pandas(rows, pa.schema([(c, types[c]) for c in rows]), preserve_index=False)
    # In few bytes, as thousands of records live in git.
    encodings = dict.fromkeys(measured_columns(study), "BYTE_STREAM_SPLIT")
    encodings |= {f.name: "DELTA_BINARY_PACKED" for f in table.schema if pa.types.is_integer(f.type)}
    others = [name for name in table.column_names if name not in encodings and name != "diverged"]
    options = {"compression": "zstd", "compression_level": 19, "use_dictionary": others, "column_encoding": encodings}
    # A third of a record of one operation would be statistics, and Arrow's schema beside Parquet's own.
    options |= {"write_statistics": False, "store_schema": False}
    with written_whole(run.record(seed)) as temporary, pq.ParquetWriter(temporary, table.schema, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"grok_utils": text, "sha256": digest(table, text)})


def digest(table: pa.Table, text: str) -> str:
    """SHA-256 over the columns' names, types and values, and over the metadata's `text`."""
    h = hashlib.sha256(text.encode())
    for name in table.column_names:
        column = table[name]
        h.update(f"{name}{column.type}{len(column)}".encode())
        if pa.types.is_string(column.type):  # all in one list, joined: in a fifth of the time of Python's strings
            every = pa.ListArray.from_arrays([0, len(column)], column.combine_chunks())
            h.update(pc.binary_join(every, "\0")[0].as_buffer())
        else:
            h.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).data)
    return h.hexdigest()


def read_record(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows and the metadata of one record. Raises Damaged unless both are exactly what was written there."""
    mend = "move it away or delete it, then run make again"
    try:
        table = pq.ParquetFile(path).read()  # in two thirds of read_table's time, which looks for a data set first
        stored = table.schema.metadata
        text = stored[b"grok_utils"].decode()
        intact = digest(table, text) == stored[b"sha256"].decode()
        metadata = json.loads(text)
        version, name = metadata["schema_version"], f"{metadata['schedule']}-seed{metadata['seed']}.parquet"
        known = [f for f in table.schema if f.name in COLUMNS] == list(pa.schema(list(COLUMNS.items())))
    except Exception as error:  # whatever a parser may raise on arbitrary bytes
        if getattr(error, "errno", None):  # it was not even read
            raise Damaged(f"{path} cannot be read: {with_remedy(error)}") from None
        reason = one_line(error)[:200]
        raise Damaged(f"{path} is not a readable record ({type(error).__name__}: {reason}): {mend}") from None
    if not intact:
        raise Damaged(f"{path} is damaged (its checksum differs): {mend}")
    if version != SCHEMA_VERSION or not known:
        raise Damaged(f"{path} has another schema than this version reads: {mend}")
    if path.name != name:
        raise Damaged(f"{path} holds schedule {metadata['schedule']}, seed {metadata['seed']}: give it back its name")
    return table.to_pandas(split_blocks=True), metadata  # a third of the time: they are put together once, with others


def is_complete(run: Run, seed: int) -> bool:
    """Whether the record of this seed exists. Raises Damaged where it is no valid record of this study's settings."""
    return found_record(run, seed) is not None


def found_record(run: Run, seed: int) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """The rows and the metadata of the record of this seed; None where there is none.

    Raises Damaged unless it was made with the run's settings, saying in words what differs.
    """
    path = run.record(seed)
    if not path.exists():
        return None
    rows, metadata = read_record(path)
    if metadata["study"] != run.study.name:
        raise Damaged(f"{path} is of study {metadata['study']}, not of {run.study.name}: move it away")
    elsewhere = f"or choose another folder (RESULTS=elsewhere), or move {path} away"
    differ = unlike(metadata["identity"], run.identity)
    if not differ:
        if lacking := [column for column in columns_of(run.study.measures) if column not in rows]:
            asked = f"{path} was made without {', '.join(lacking)}, which the study's measures ask for"
            raise Damaged(f"{asked}: give the study with measures a name of its own, {elsewhere}")
        return rows, metadata
    name = min(differ, key=lambda name: [*WORDS].index(name) if name in WORDS else -1)
    there, here = (of.get(name, DEFAULTS.get(name)) for of in (metadata["identity"], run.identity))
    if name in WORDS:
        if name in HYPER:
            apart = first_difference(run, rows, name)
        else:
            there, here = there or {}, here or {}  # without a grid there are no cells
            apart = f", in {', '.join(o for o in there | here if there.get(o) != here.get(o))}"
        said = f"{run.arm.name}'s {WORDS[name]} differ from those its records were made with{apart}"
    else:
        said = f"{path} was made with {name} = {there!r}, the study says {here!r}"
    raise Damaged(f"{said}: give what was changed a name of its own, {elsewhere}")


def first_difference(run: Run, rows: pd.DataFrame, name: str) -> str:
    """From which update on a hyper-parameter of a record's `rows` is another than the run's, in words."""
    found = []
    for (operation, cell), course in run.arm.courses(name, run.study.updates).items() if name in rows else ():
        of = rows[(rows["operation"] == operation) & (rows["cell"] == cell.name)].sort_values("update")
        there = of[name].to_numpy()
        apart = ~np.isclose(there, course, rtol=1e-11, atol=0)
        if apart.any():
            i = int(apart.argmax())
            found.append((i, f", from update {BLOCK * i + 1:,} on ({there[i]:g} there, {course[i]:g} in the study)"))
    return min(found, default=(0, ""))[1]


def records_there(study: Study, results: Path | str) -> list[bool]:
    """Whether each record that makes the study complete exists, unread."""
    return [run.record(seed).exists() for run in runs_of(study, Path(results)) for seed in study.seeds]


def read_study(study: Study, results: Path | str) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """All rows of the records that the study names and `results` holds, and each record's metadata.

    Records of other arms or seeds in the folder are left alone. Raises Damaged on a bad record, on one that was made
    with other settings, and where there is none.
    """
    runs = runs_of(study, Path(results))
    found = [record for run in runs for seed in study.seeds if (record := found_record(run, seed)) is not None]
    if not found:
        first = f"make the runs first, by make all STUDY={study.name}"
        raise Damaged(f"{Path(results, study.name)} holds no records yet: {first}")
    return pd.concat([rows for rows, _ in found], ignore_index=True), [metadata for _, metadata in found]


def makings(metadata: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How each part of each record was made: versions, device, commit, time."""
    return [made for m in metadata for made in m["made"]]


def read_like(folder: Path | str, run: Run) -> list[pd.DataFrame]:
    """The rows of each record in `folder`/records that was made on `run`'s pairs for as long, without a grid.

    Raises Damaged on a bad record.
    """
    same = {"operations", "modulus", "train_fraction", "updates", "cells"}
    records = map(read_record, sorted(Path(folder).glob("records/*.parquet")))
    return [rows for rows, metadata in records if not same & set(unlike(metadata["identity"], run.identity))]
