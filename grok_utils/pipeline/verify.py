"""`make verify`: a study's records are whole, which code made them, and whether this tree makes one of them again."""

import dataclasses
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from grok_utils.engine.machine import has_compiler
from grok_utils.engine.trainer import early_end
from grok_utils.errors import Damaged, require
from grok_utils.schedules import BLOCK
from grok_utils.store.provenance import output_of, provenance
from grok_utils.store.records import frame, kept, measured_columns, read_record, read_study
from grok_utils.studies import ExecutionPath, Run, Study
from grok_utils.training import make_trainer

SECONDS = 60.0  # of training a record again: a short one whole, of a longer one the beginning
# What decides a record's numbers.
CODE = [
    *("tasks", "schedules", "studies", "model", "optimizers", "measures", "training", "store/records"),
    *("engine/stack", "engine/examples", "engine/machine", "engine/trainer", "engine/cuda", "engine/products"),
    *("engine/beside", "engine/gpu/adamw", "engine/gpu/attention", "engine/gpu/block", "engine/gpu/launch"),
    *("engine/gpu/loss", "engine/gpu/products", "pipeline/settings", "pipeline/study_files"),
]
MEND = "check out the code that made it, or move it away and let this code make it anew"
ROUNDING = {"float32": 1e-3, "tf32": 1e-2, "bf16": 3e-2}  # relative, of the first log's losses, by precision


def verify(study: Study, results: Path, name: str | None = None) -> Iterator[str]:
    """Yield what is found, a line each; the record `name`, such as linear-seed0 (default: any), is made again.

    Raises Damaged where a record is not valid or is not made again, BadInput where there is no record of that name.
    """
    _, metadata = read_study(study, results)
    missing = len(study.arms) * len(study.seeds) - len(metadata)
    yield f"{study.name}: {len(metadata)} records, {missing} missing; every checksum is right"
    for commit, dirty in sorted({(made["commit"] or "", bool(made["dirty"])) for m in metadata for made in m["made"]}):
        yield code_line(commit, dirty)
    records = {f"{m['schedule']}-seed{m['seed']}": m for m in metadata}
    chosen = name or random.choice(list(records))
    require(chosen in records, "record", chosen, f"a record that is there, such as {next(iter(records))}")
    yield from made_again(study, results, records[chosen])
    how = "" if name else ", chosen at random,"
    well = f"the records are whole, and this tree makes one of them{how} again"
    yield f"{study.name}: all is well: {well} (README.md, Trust, says what that means)"


def changed_since(commit: str) -> list[str] | None:
    """The files of CODE that differ between `commit` and the tree; None where git does not know."""
    names = [f"grok_utils/{name}.py" for name in CODE]
    changes = output_of("git", "diff", "--name-only", commit, "--", *names) if commit else None
    return None if changes is None else changes.split()


def code_line(commit: str, dirty: bool) -> str:
    """Whether the code of records made at `commit` is the code in the tree."""
    made = f"code: records of commit {commit[:10] or 'unknown'}"
    changed = changed_since(commit)
    if dirty:
        return f"{made}, made with uncommitted changes: nobody can tell which code that was"
    if changed is None:
        return f"{made}: this tree has no such commit to compare with"
    return f"{made}: " + (f"since then changed {', '.join(changed)}" if changed else "the same code is in this tree")


def path_here(made: dict[str, Any]) -> ExecutionPath:
    """The path that a record was made on, where this machine has it, else eager on the CPU."""
    path = ExecutionPath(**{f.name: made[f.name] for f in dataclasses.fields(ExecutionPath)})
    if path.device == "cuda" and not torch.cuda.is_available():
        precision = "float32" if path.precision == "tf32" else path.precision
        return ExecutionPath("cpu", precision, compiled=False, threads=1)
    return dataclasses.replace(path, compiled=path.compiled and has_compiler(path.device))


def differences_of(m: dict[str, Any], path: ExecutionPath) -> list[str]:
    """What differs between the making of a record and its making here on `path`, and may round otherwise."""
    here, differs = _decisive(provenance(path.device) | dataclasses.asdict(path)), []
    for made in m["made"]:
        differs += [f"{k} {was} there, {here[k]} here" for k, was in _decisive(made).items() if was != here[k]]
        if made["dirty"] or changed_since(made["commit"] or "") != []:
            differs.append("perhaps other code")
    return list(dict.fromkeys(differs))


def _decisive(made: dict[str, Any]) -> dict[str, Any]:
    versions = {k: made["versions"].get(k) for k in ("torch", "triton", "numpy", "cuda")}
    return {k: made[k] for k in ("device_name", "compiled", "precision")} | versions


def made_again(study: Study, results: Path, m: dict[str, Any]) -> Iterator[str]:
    """Train the record with metadata `m` again for SECONDS, and compare it with what is made."""
    path, seeds = path_here(m["made"][0]), tuple(m["made"][0].get("seeds", [m["seed"]]))
    run = Run(study, study.arm(m["schedule"]), seeds, results)
    record, differs = run.record(m["seed"]), differences_of(m, path)
    least = 10 if study.every_tenth else 1  # blocks up to the first whole log
    yield f"training {record.stem} again for up to {SECONDS:.0f} s"
    trainer, start = make_trainer(run, path), time.monotonic()
    end = m["made"][0].get("ended", study.updates) // BLOCK
    while trainer.block < end and (trainer.block < least or time.monotonic() - start < SECONDS):
        trainer.run_block()
    logs, last = trainer.logged().cpu().numpy(), trainer.block
    key, measured = ["operation", "cell", "seed", "update"], measured_columns(study)
    new = kept(study, frame(run, logs)).query(f"seed == {m['seed']}").set_index(key)[measured]
    old = read_record(record)[0].set_index(key)[measured].reindex(new.index)
    yield f"again: {record.name}, updates 1 to {BLOCK * last:,} of {BLOCK * end:,}"
    if not differs:
        yield "equal means bit for bit: same code, device, path and versions"
        if len(apart := new.compare(old)):  # NaN is like NaN
            first = apart.index.get_level_values("update").min()
            raise Damaged(f"{record} is not what this tree makes, from update {first:,} on: {MEND}")
        if last == end < trainer.blocks and early_end(logs, study.stop_after) != end:
            raise Damaged(f"{record} is not what this tree makes: it does not end at update {BLOCK * end:,}: {MEND}")
        yield "equal"
        return
    limit = ROUNDING[run.arm.settings.precision]
    yield (
        f"equal means the losses of the first log to {limit:.1%}; from there rounding grows, training is chaotic, and "
        f"only many seeds could be compared ({'; '.join(differs)})"
    )
    new, old = (table[["train_loss", "val_loss"]] for table in (new, old))
    error = (new / old - 1).abs().mask(new.eq(old) | (new.isna() & old.isna()), 0.0).fillna(float("inf"))
    error = error[old.notna().any(axis=1)].max(axis=1).groupby("update").max()
    if error.iloc[0] >= limit:
        raise Damaged(f"{record} is not what this tree makes, its first log differs by {error.iloc[0]:.2%}: {MEND}")
    apart = error.index[error >= limit]
    until = f"update {apart.min():,}" if len(apart) else "the last one compared"
    yield f"equal: the first log to {error.iloc[0]:.1e}, and all others up to {until}"
