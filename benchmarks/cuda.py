"""This engine on one GPU: time of all runs of `paper`, beside the usual loop and the floor, and of other stacks."""

import argparse
import gc
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn
import torch
from matplotlib.figure import Figure
from torch.profiler import ProfilerActivity, profile

from benchmarks.cpu import UsualLoop, at_sizes, block_flops, seconds
from grok_utils.engine.cuda import GraphedTrainer
from grok_utils.engine.machine import set_up
from grok_utils.page.notebook import save
from grok_utils.page.style import look, panels, svg
from grok_utils.pipeline.parameters import make_run
from grok_utils.schedules import BLOCK
from grok_utils.studies import ExecutionPath

EVERY = 10  # blocks of which one is timed: a tenth of each schedule, the same mix of batch sizes
STATE_BYTES = 8 * 4  # AdamW reads and writes parameter and two moments, and the gradient is written and read


def synchronised(f, *arguments: object) -> float:
    """Seconds of one call, the GPU's work included."""
    torch.cuda.synchronize()
    return seconds(f, *arguments) + seconds(torch.cuda.synchronize)


def driver() -> str:
    """The version of NVIDIA's driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def ceilings() -> dict[str, float]:
    """Operations a second of a large matrix product in each precision, and bytes a second of a large copy."""
    found = {}
    a = torch.randn(8192, 8192, device="cuda")
    for precision, matrix in (("float32", a), ("tf32", a), ("bf16", a.bfloat16())):
        set_up(ExecutionPath("cuda", precision, compiled=False, threads=1))
        times = [synchronised(torch.mm, matrix, matrix) for _ in range(6)]
        found[precision] = 2 * 8192**3 / statistics.median(times[1:])
    big = torch.randn(2**29, device="cuda")
    target = torch.empty_like(big)
    found["copy"] = 2 * 4 * 2**29 / statistics.median([synchronised(target.copy_, big) for _ in range(6)][1:])
    return found


def trainer(
    arm: str, seeds: list[int], precision: str, compiled: bool, sizes: np.ndarray | None = None
) -> GraphedTrainer:
    """A stack of the four operations and `seeds` under an arm of `paper`, at every tenth of its batch sizes."""
    run = make_run("paper", arm, seeds, device="cuda", precision=precision)
    sizes = run.batch_sizes[EVERY - 1 :: EVERY].copy() if sizes is None else sizes
    path = ExecutionPath("cuda", precision, compiled, threads=1)
    return GraphedTrainer(run.tasks(), at_sizes(run, sizes), path, run.arm.settings)


def memory_before() -> int:
    """Bytes allocated before a stack is set up; the peak counts from here on."""
    gc.collect()  # stacks of earlier measurements
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_gib(before: int) -> float:
    """Gibibytes that what was set up since took at most."""
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def time_blocks(engine: GraphedTrainer) -> float:
    """Seconds of all its blocks, after one to warm up."""
    engine.run_block()
    engine.block = 0

    def all_blocks() -> None:
        for _ in range(engine.blocks):
            engine.run_block()
        engine.logged()

    return synchronised(all_blocks)


def time_side_by_side(engines: list[GraphedTrainer]) -> float:
    """Seconds of all blocks of several stacks, each on a stream of its own, as runs that share a card by MPS."""
    streams = [torch.cuda.Stream() for _ in engines]

    def all_blocks() -> None:
        for engine in engines:
            engine.block = 0
        for _ in range(engines[0].blocks):
            for engine, stream in zip(engines, streams, strict=True):
                with torch.cuda.stream(stream):
                    engine.run_block()

    return synchronised(all_blocks)


def time_paper(precision: str, seeds: list[int], limits: dict[str, float]) -> pd.DataFrame:
    """One row an arm of `paper`, all seeds in one stack, beside its floors; and a row of all arms side by side."""
    rows, engines = [], []
    for arm in (a.name for a in make_run("paper", "baseline", seeds, device="cuda").study.arms):
        before, start = memory_before(), time.perf_counter()
        engine = trainer(arm, seeds, precision, compiled=True)
        ready = time.perf_counter() - start
        flops = EVERY * sum(block_flops(engine, int(size)) for size in engine.courses.batch_size[:, 0])
        state = EVERY * engine.blocks * BLOCK * STATE_BYTES * engine.flat.numel()
        row = {"precision": precision, "arm": arm, "members": len(engine.tasks), "set_up_s": ready}
        row |= {"train_s": EVERY * time_blocks(engine), "flops_floor_s": flops / limits[precision]}
        row |= {"state_floor_s": state / limits["copy"]}
        rows.append(row | {"peak_gib": peak_gib(before)})
        engines.append(engine)
        print(f"{precision} {arm}: {row['train_s']:.1f} s", file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    together = dict(table.sum(numeric_only=True)) | {"train_s": EVERY * time_side_by_side(engines)}
    table.loc[len(table)] = {"precision": precision, "arm": "all side by side", **together}
    table["times_floor"] = table.train_s / (table.flops_floor_s + table.state_floor_s)
    return table


def time_members(counts: list[int]) -> pd.DataFrame:
    """One row a number of members, until the card is full: seconds of 7,500 updates at batch 512 a member, float32."""
    rows = []
    for count in counts:
        before = memory_before()
        try:
            engine = trainer("baseline", list(range(count // 4)), "float32", True, sizes=np.full(8, 512))
            whole = time_blocks(engine) / 8 * 750
        except torch.OutOfMemoryError:
            print(f"{count} members do not fit", file=sys.stderr)
            break
        rows.append({"members": count, "train_s": whole, "s_a_member": whole / count, "peak_gib": peak_gib(before)})
        print(f"{count} members: {whole / count:.2f} s a member", file=sys.stderr, flush=True)
        del engine
    return pd.DataFrame(rows)


def waits_in_a_block(engine: GraphedTrainer) -> dict[str, int]:
    """Calls that make the host wait for the GPU, counted by the profiler over a block, and the graphs launched."""
    engine.run_block()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        engine.run_block()
    calls = {e.key: e.count for e in profiled.key_averages()}
    waits = sum(n for name, n in calls.items() if name in ("cudaStreamSynchronize", "cudaEventSynchronize"))
    return {"waits": waits, "graph_launches": calls.get("cudaGraphLaunch", 0)}


def scaling(table: pd.DataFrame) -> Figure:
    """Seconds of training a member against the members in a stack, from the rows of `time_members`."""
    with panels([""], None, height=2.2) as (figure, axes):
        ax = axes[""]
        seaborn.lineplot(
            table, x="members", y="s_a_member", marker="o", markersize=6, color=look("linear").colour, ax=ax
        )
        ax.set(xscale="log", ylim=(0, None))
        ax.set_xticks(table["members"], [str(n) for n in table["members"]])
        ax.minorticks_off()
        figure.supxlabel("members in a stack", fontsize=9)
        figure.supylabel("seconds of training a member", fontsize=9)
    return figure


def main() -> None:
    """Measure, print what was found, and keep it where --out says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__)
    parser.add_argument("--precisions", nargs="+", default=["float32", "tf32", "bf16"])
    parser.add_argument("--members", type=int, nargs="*", default=[4, 12, 60, 240, 960], metavar="N")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write the text, tables and figure there")
    arguments = parser.parse_args()
    found: dict[str, str] = {"cuda.txt": ""}

    def say(text: str) -> None:
        print(text, flush=True)
        found["cuda.txt"] += f"{text}\n"

    limits, run = ceilings(), make_run("paper", "baseline", [0, 1, 2], device="cuda")
    say(f"{torch.cuda.get_device_name()}, driver {driver()}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    say("ceilings: " + ", ".join(f"{k} {v / 1e12:.3g} T{'B' if k == 'copy' else 'FLOP'}/s" for k, v in limits.items()))
    usual = UsualLoop(run.tasks()[0], "cuda", run.arm.settings)
    block = statistics.median([synchronised(usual.run_block, 512) for _ in range(6)][1:])
    say(f"the usual loop: {block:.3f} s a block of 10 updates at batch 512, {60 * 750 * block:,.0f} s for 60 runs\n")
    paper = []
    for precision in arguments.precisions:
        paper.append(time_paper(precision, [0, 1, 2], limits))
        say(paper[-1].to_string(index=False, float_format="{:.2f}".format))
        one_by_one, together = paper[-1].train_s.iloc[:-1].sum(), paper[-1].train_s.iloc[-1]
        say(f"all 60 runs in {precision}: {one_by_one:.1f} s arm by arm, {together:.1f} s side by side\n")
    found["cuda-paper.csv"] = pd.concat(paper).to_csv(index=False)
    say(f"within a block: {waits_in_a_block(trainer('linear', [0, 1, 2], 'float32', compiled=True))}\n")
    if arguments.members:
        members = time_members(arguments.members)
        say(members.to_string(index=False, float_format="{:.2f}".format))
        found |= {"cuda-members.csv": members.to_csv(index=False), "cuda-members.svg": svg(scaling(members), "scaling")}
    for name, text in found.items():
        save(text, arguments.out, name)


if __name__ == "__main__":
    main()
