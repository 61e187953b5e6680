"""One GPU: `make all`; then all runs of `paper` in one process, beside the usual loop and the floor; other stacks."""

import argparse
import gc
import itertools
import signal
import statistics
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.commands import time_commands
from benchmarks.cpu import BATCH_SIZES, SWEEP, UsualLoop, at_sizes, block_cost, ceiling, hours, kept_in, seconds
from grok_utils.engine.cuda import GraphedTrainer
from grok_utils.engine.machine import cores, has_tf32, set_up
from grok_utils.measures import MEASURES
from grok_utils.page.notebook import save
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.study_files import load_study
from grok_utils.schedules import BLOCK
from grok_utils.store.provenance import provenance
from grok_utils.studies import ExecutionPath, Run, Study, runs_of
from grok_utils.tasks import Task

PRECISIONS = ("float32", "tf32", "bf16")
EVERY = 10  # blocks of which one is timed: a tenth of each schedule, the same mix of batch sizes
BLOCKS = Study.updates // BLOCK  # of a whole run
STATE_BYTES = 8 * 4  # AdamW reads and writes parameter and two moments, and the gradient is written and read


def ceilings() -> dict[str, float]:
    """Operations a second of a large matrix product in each precision, and bytes a second of a large copy.

    Where the engine's products in float32 are three of tf32, those of float32 are a third of tf32's.
    """
    found = {}
    for precision in PRECISIONS:
        set_up(ExecutionPath("cuda", precision, compiled=False, threads=1))
        found[precision] = ceiling(precision, 8192, "cuda")
    if has_tf32():
        found["float32"] = found["tf32"] / 3
    big = torch.randn(2**29, device="cuda")
    target = torch.empty_like(big)
    return found | {"copy": 2 * big.nbytes / min(seconds(target.copy_, big) for _ in range(5))}


def trainer(
    arm: str, seeds: list[int], precision: str, sizes: np.ndarray | None = None, measures: tuple[str, ...] = ()
) -> GraphedTrainer:
    """A stack of the four operations and `seeds` under an arm of `paper`, at every tenth of its batch sizes."""
    run = make_run("paper", arm, seeds, device="cuda", precision=precision)
    sizes = run.batch_sizes[EVERY - 1 :: EVERY].copy() if sizes is None else sizes
    path = ExecutionPath("cuda", precision, compiled=True, threads=1)
    return GraphedTrainer(run.tasks(), at_sizes(run, sizes), path, run.arm.settings, measures)


def time_blocks(engines: list[GraphedTrainer]) -> float:
    """Seconds of all blocks of stacks, after one to warm up; several are each on a stream of its own, as by MPS."""
    streams = [torch.cuda.Stream() for _ in engines] if len(engines) > 1 else [torch.cuda.current_stream()]

    def run_blocks(blocks: int) -> None:
        for engine in engines:
            engine.block = 0
        for _ in range(blocks):
            for engine, stream in zip(engines, streams, strict=True):
                with torch.cuda.stream(stream):
                    engine.run_block()

    run_blocks(1)
    return seconds(run_blocks, engines[0].blocks)


def floors(engine: GraphedTrainer, precision: str, limits: dict[str, float]) -> dict[str, float]:
    """Seconds that 7,500 updates with their validation take at least, by the `ceilings` of what must be done."""
    costs = [block_cost(engine, int(size)) for size in engine.courses.batch_size[:, 0]]
    flops, numbers = BLOCKS * np.mean(costs, axis=0)
    moved = {"state": BLOCKS * BLOCK * STATE_BYTES * engine.flat.numel()}
    moved["elementwise"] = numbers * (2 if precision == "bf16" else 4)
    of_bytes = {f"{what}_floor_s": count / limits["copy"] for what, count in moved.items()}
    return {"flops_floor_s": flops / limits[precision]} | of_bytes


def time_stack(
    arm: str, seeds: list[int], precision: str, limits: dict[str, float], sizes: np.ndarray | None = None
) -> tuple[dict[str, Any], GraphedTrainer]:
    """What is to be said of a `trainer`, its seconds as of 7,500 updates, and the trainer."""
    gc.collect()  # stacks of earlier measurements
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    engine = trainer(arm, seeds, precision, sizes)
    row: dict[str, Any] = {"precision": precision, "arm": arm, "members": len(engine.tasks)}
    row |= {"set_up_s": time.perf_counter() - start, "train_s": time_blocks([engine]) / engine.blocks * BLOCKS}
    row |= {"s_a_member": row["train_s"] / row["members"]}
    row |= {"peak_gib": (torch.cuda.max_memory_allocated() - before) / 2**30}
    row |= (least := floors(engine, precision, limits))
    row |= {"times_floor": row["train_s"] / sum(least.values())}
    print("{precision} {arm}, {members} members: {train_s:.1f} s".format(**row), file=sys.stderr, flush=True)
    return row, engine


def time_paper(precision: str, seeds: list[int], limits: dict[str, float]) -> pd.DataFrame:
    """One row an arm of `paper`, all seeds in one stack, beside its floors; and a row of all arms side by side."""
    arms = [arm.name for arm in load_study("paper").arms]
    rows, engines = zip(*(time_stack(arm, seeds, precision, limits) for arm in arms), strict=True)
    table = pd.DataFrame(rows)
    together = dict(table.sum(numeric_only=True)) | {"train_s": EVERY * time_blocks([*engines])}
    table.loc[len(table)] = {"precision": precision, "arm": "all side by side", **together}
    table["s_a_member"] = table.train_s / table.members
    table["times_floor"] = table.train_s / table.filter(like="_floor_s").sum(axis=1)
    return table


def time_members(counts: list[int], limits: dict[str, float]) -> pd.DataFrame:
    """One row a number of members, until the card is full: seconds of 7,500 updates at batch 512 a member, float32."""
    rows = []
    for count in counts:
        try:
            rows.append(time_stack("baseline", list(range(count // 4)), "float32", limits, np.full(8, 512))[0])
        except torch.OutOfMemoryError:
            print(f"{count} members do not fit", file=sys.stderr)
            break
    return pd.DataFrame(rows)[["members", "train_s", "s_a_member", "peak_gib", "times_floor"]]


def time_measures(precision: str, seeds: list[int]) -> pd.DataFrame:
    """One row a measure, all of them and none: seconds of 7,500 updates at batch 32 and at 512, and per cent more."""
    rows = []
    for measures in ((), *((name,) for name in MEASURES), tuple(MEASURES)):
        row: dict[str, object] = {"measures": " ".join(measures) or "none"}
        for size in (32, 512):
            engine = trainer("baseline", seeds, precision, np.full(40, size), measures)
            row[f"train_s_{size}"] = min(time_blocks([engine]) for _ in range(3)) / 40 * BLOCKS
        rows.append(row)
    table = pd.DataFrame(rows)
    for size in (32, 512):
        table[f"percent_{size}"] = 100 * (table[f"train_s_{size}"] / table[f"train_s_{size}"].iloc[0] - 1)
    return table


def time_sweep(sizes: list[int], limits: dict[str, float]) -> pd.DataFrame:
    """How many models an hour go through 7,500 updates, 240 in a stack: a row a precision and batch size."""
    rows = []
    for precision, size in itertools.product(PRECISIONS, sizes):
        row, _ = time_stack("baseline", list(range(60)), precision, limits, np.full(8, size))
        rows.append(row | {"batch_size": size, "models_an_hour": 3600 / row["s_a_member"]})
    return pd.DataFrame(rows)[["precision", "batch_size", "members", "models_an_hour", "times_floor"]]


def time_usual_loop(task: Task, runs: list[Run]) -> pd.DataFrame:
    """Seconds of a block of the usual loop, a row a batch size, medians of five; and of all models of `runs`."""
    loop, rows = UsualLoop(task, "cuda"), []
    for size in BATCH_SIZES:
        block = statistics.median([seconds(loop.run_block, size) for _ in range(6)][1:])
        rows.append({"batch_size": size, "engine_ms": 1e3 * block})
    table = pd.DataFrame(rows)
    return table.assign(whole_s=3600 * sum(hours(table, run.batch_sizes) * len(run.members) for run in runs))


def end(number: int, frame: FrameType | None) -> None:
    """End, and with it what was begun. A signal to the whole group comes again, from make: that is not heeded."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    """Measure, print what was found, and keep it where --out says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write the text and tables there")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, end)
    say = kept_in(arguments.out, "cuda.txt")

    def keep(name: str, table: pd.DataFrame) -> None:
        save(table.to_csv(index=False), arguments.out, f"cuda-{name}.csv")
        say(table.to_string(index=False, float_format="{:,.2f}".format) + "\n")

    rows = []
    for row in time_commands():
        print("make all, {study}, {how}: {to_page_s:.1f} s".format(**row), file=sys.stderr, flush=True)
        rows.append(row)
        save(pd.DataFrame(rows).round(1).to_csv(index=False), arguments.out, "cuda-make.csv")  # what follows may fail
    about, commands = provenance("cuda"), pd.DataFrame(rows)
    versions = ", ".join(f"{name} {about['versions'][name]}" for name in ("driver", "torch", "cuda"))
    say(f"{about['device_name']}, {versions}; {cores()} CPU cores; commit {about['commit']}\n")
    say("make all, seconds from the command on, and per cent of the time after the first minute in which a run trains:")
    say(commands.to_string(index=False, float_format="{:,.1f}".format) + "\n")
    limits, run = ceilings(), make_run("paper", "baseline", [0, 1, 2], device="cuda")
    say("ceilings: " + ", ".join(f"{k} {v / 1e12:.3g} T{'B' if k == 'copy' else 'FLOP'}/s" for k, v in limits.items()))
    usual = time_usual_loop(run.tasks()[0], [*runs_of(run.study, Path())])
    blocks = ", ".join(f"{row.engine_ms:.0f} at batch {row.batch_size}" for row in usual.itertuples())
    say(f"the usual loop: {blocks} ms a block of 10 updates, {usual['whole_s'].iloc[0]:,.0f} s for 60 runs\n")
    paper = pd.concat(time_paper(precision, [0, 1, 2], limits) for precision in PRECISIONS)
    say("all runs of `paper` in one process, an arm in a stack:")
    keep("paper", paper)
    for precision, arms in paper.groupby("precision", sort=False):
        one_by_one, together = arms["train_s"].iloc[:-1].sum(), arms["train_s"].iloc[-1]
        say(f"all 60 runs in {precision}: {one_by_one:.1f} s arm by arm, {together:.1f} s side by side")
    say("\nmeasures, each alone and all, 12 members in float32:")
    keep("measures", time_measures("float32", [0, 1, 2]))
    say("models in a stack at batch 512 in float32:")
    keep("members", time_members([4, 12, 60, 240, 960], limits))
    say("models an hour, 240 of them in a stack:")
    keep("sweep", sweep := time_sweep([64, 512], limits))
    for study, each in commands.groupby("study", sort=False):
        times = ", ".join(f"{row.to_page_s:.0f} s {row.how}" for row in each.itertuples())
        say(f"`{study}`, {each['models'].iloc[0]:,} models, from `make all` to its page: {times}")
    for precision, rates in sweep.groupby("precision", sort=False):
        minutes = [
            f"{60 * SWEEP / row.models_an_hour:.0f} minutes at batch {row.batch_size}" for row in rates.itertuples()
        ]
        say(
            f"{SWEEP:,} models of a sweep train, {Study.updates:,} updates each in {precision}: {' and '.join(minutes)}"
        )


if __name__ == "__main__":
    main()
