"""What a run leaves: one Parquet file for each schedule and seed, with its provenance, checked when it is read back."""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from grok_utils.errors import Damaged, one_line, with_remedy
from grok_utils.schedules import BLOCK
from grok_utils.store.files import written_whole
from grok_utils.store.provenance import provenance
from grok_utils.studies import Run, Study
from grok_utils.training import Result

SCHEMA_VERSION = 1
LOGGED = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
# One row a log. Readers and other tools rely on these names: add columns, don't rename them.
COLUMNS = {
    "schedule": pa.string(),
    "operation": pa.string(),
    "seed": pa.int32(),
    "update": pa.int32(),
    "batch_size": pa.int32(),
    "examples_seen": pa.int64(),
    **dict.fromkeys(LOGGED, pa.float32()),
    "diverged": pa.bool_(),  # true from the first log on whose loss is not finite
}
SCHEMA = pa.schema(list(COLUMNS.items()))


def frame(run: Run, logs: np.ndarray) -> pd.DataFrame:
    """The logs [logs, M, 4] of a run, complete or not, as one row a log: member by member, in the columns above."""
    sizes = run.batch_sizes[: len(logs)]
    members = []
    for i, task in enumerate(run.tasks()):
        finite = np.isfinite(logs[:, i, [LOGGED.index("train_loss"), LOGGED.index("val_loss")]]).all(axis=1)
        member = {"schedule": run.arm.name, "operation": task.operation, "seed": task.seed}
        member |= {"update": BLOCK * np.arange(1, len(logs) + 1), "batch_size": sizes}
        member |= {"examples_seen": BLOCK * sizes.cumsum()} | dict(zip(LOGGED, logs[:, i].T, strict=True))
        members.append(pd.DataFrame(member | {"diverged": np.logical_or.accumulate(~finite)}))
    return pd.concat(members, ignore_index=True)


def write_records(result: Result) -> pd.DataFrame:
    """Write one record for each seed of a completed run, then remove its checkpoint; returns all rows.

    A valid record that is already there is left as it is.
    """
    run = result.run
    rows = frame(run, result.logs)
    shared = run.study.settings(run.arm) | asdict(result.path) | provenance(result.path.device)
    shared |= {"study": run.study.name, "schedule": run.arm.name, "schema_version": SCHEMA_VERSION}
    shared |= {"started": result.started, "seconds": round(result.seconds, 3), "members": result.logs.shape[1]}
    shared |= {"seeds": list(run.seeds)}  # of the stack
    for seed in run.seeds:
        if not is_complete(run, seed):
            write_record(run.record(seed), rows[rows["seed"] == seed], shared | {"seed": seed})
    run.checkpoint.unlink(missing_ok=True)
    return rows


def write_record(path: Path, rows: pd.DataFrame, metadata: dict[str, Any]) -> None:
    """Write `rows` (the columns above) and JSON-able `metadata` atomically."""
    table = pa.Table.from_pandas(rows, schema=SCHEMA, preserve_index=False)
    text = json.dumps(metadata, sort_keys=True)
    write_table(path, table.replace_schema_metadata({"grok_utils": text, "sha256": digest(table, text)}))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a record's table, with its metadata, atomically and in few bytes: thousands of records live in git."""
    encodings = dict.fromkeys(LOGGED, "BYTE_STREAM_SPLIT")
    encodings |= {f.name: "DELTA_BINARY_PACKED" for f in SCHEMA if pa.types.is_integer(f.type)}
    texts = [f.name for f in SCHEMA if pa.types.is_string(f.type)]
    options = {"compression": "zstd", "compression_level": 19, "use_dictionary": texts, "column_encoding": encodings}
    # A third of a record of one operation would be statistics, and Arrow's schema beside Parquet's own.
    options |= {"write_statistics": False, "store_schema": False}
    with written_whole(path) as temporary, pq.ParquetWriter(temporary, table.schema, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(table.schema.metadata)


def digest(table: pa.Table, text: str) -> str:
    """SHA-256 over the columns' names, types and values, and over the metadata's `text`."""
    h = hashlib.sha256(text.encode())
    for name in table.column_names:
        column = table[name]
        h.update(f"{name}{column.type}{len(column)}".encode())
        values = column.to_numpy(zero_copy_only=False)
        h.update("\0".join(values).encode() if pa.types.is_string(column.type) else np.ascontiguousarray(values))
    return h.hexdigest()


def read_record(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The rows and the metadata of one record. Raises Damaged unless both are exactly what was written there."""
    mend = "move it away or delete it, then run make again"
    try:
        table = pq.read_table(path, partitioning=None)
        stored = table.schema.metadata
        text = stored[b"grok_utils"].decode()
        intact = digest(table, text) == stored[b"sha256"].decode()
        metadata = json.loads(text)
        version, name = metadata["schema_version"], f"{metadata['schedule']}-seed{metadata['seed']}.parquet"
    except Exception as error:  # whatever a parser may raise on arbitrary bytes
        if getattr(error, "errno", None):  # it was not even read
            raise Damaged(f"{path} cannot be read: {with_remedy(error)}") from None
        reason = one_line(error)[:200]
        raise Damaged(f"{path} is not a readable record ({type(error).__name__}: {reason}): {mend}") from None
    if not intact:
        raise Damaged(f"{path} is damaged (its checksum differs): {mend}")
    if version != SCHEMA_VERSION or not table.schema.equals(SCHEMA):
        raise Damaged(f"{path} has another schema than this version reads: {mend}")
    if path.name != name:
        raise Damaged(f"{path} holds schedule {metadata['schedule']}, seed {metadata['seed']}: give it back its name")
    return table.to_pandas(), metadata


def recorded_setting(metadata: dict[str, Any], name: str) -> Any:
    """The value of a setting of the study that a record was made with."""
    defaults = {f.name: f.default for f in fields(Study)}  # a setting younger than the record had its default then
    return metadata.get(name, defaults.get(name))


def is_complete(run: Run, seed: int) -> bool:
    """Whether the record of this seed exists. Raises Damaged where it is no valid record of this study's settings."""
    path = run.record(seed)
    if not path.exists():
        return False
    check_settings(path, read_record(path)[1], settings(run))
    return True


def settings(run: Run) -> dict[str, Any]:
    """What the metadata of the run's records must say."""
    return run.study.settings(run.arm) | {"study": run.study.name}


def check_settings(path: Path, metadata: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise Damaged unless the record at `path` was made with the `expected` settings."""
    for name, value in expected.items():
        recorded = recorded_setting(metadata, name)
        if recorded != value:
            how = f"{path} was made with {name} = {recorded!r}, the study says {value!r}"
            raise Damaged(f"{how}: move it away, or give the changed study a name of its own")


def read_study(study: Study, results: Path | str) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """All rows of the records that the study names and `results` holds, and each record's metadata.

    Records of other arms or seeds in the folder are left alone. Raises Damaged on a bad record, on one that was made
    with other settings, and where there is none.
    """
    frames, metadata = [], []
    for arm in study.schedules:
        run = Run(study, arm, study.seeds, Path(results))
        expected = settings(run)
        for path in filter(Path.exists, map(run.record, study.seeds)):
            rows, about = read_record(path)
            check_settings(path, about, expected)
            frames.append(rows)
            metadata.append(about)
    if not frames:
        first = f"make the runs first, by make all STUDY={study.name}"
        raise Damaged(f"{Path(results, study.name)} holds no records yet: {first}")
    return pd.concat(frames, ignore_index=True), metadata


def read_like(folder: Path | str, run: Run) -> pd.DataFrame:
    """The rows of the records in `folder`/records that were made with `run`'s settings, arm and seeds aside.

    The columns alone where no record was. Raises Damaged on a bad record.
    """
    alike = {k: v for k, v in run.study.settings(run.arm).items() if k not in ("arm", "batch_sizes_sha256")}
    kept = [SCHEMA.empty_table().to_pandas()]
    for rows, metadata in map(read_record, sorted(Path(folder).glob("records/*.parquet"))):
        if all(recorded_setting(metadata, name) == value for name, value in alike.items()):
            kept.append(rows)
    return pd.concat(kept[1:] or kept, ignore_index=True)


# --- provenance ----------------------------------------------------------------------------------------------------


def part_of_run(m: dict[str, Any]) -> float:
    """The part of its run's time that falls to a record: a run of several seeds leaves one record for each."""
    return len(m["operations"]) / m["members"]
