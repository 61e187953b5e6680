"""This engine against the usual training loop, side by side on this machine: `python -m grok_utils.bench`."""

import argparse
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from grok_utils.model import WIDTH, initial_decoder
from grok_utils.schedules import BLOCK
from grok_utils.studies import Study, make_run
from grok_utils.tasks import EQUALS, OPERATOR, SPECIAL_TOKENS, Task
from grok_utils.training import BETAS, CPU_CHUNK, WARM_UP, Trainer, choose_path

VALIDATION_BATCHES, VALIDATION_BATCH = 8, 512  # of the usual loop
START_SECONDS = 8  # of a notebook with torch, without compiling
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


# --- the usual loop --------------------------------------------------------------------------------------------------


class Examples(IterableDataset):
    """Endless (tokens, result), each drawn, looked up and encoded on its own."""

    def __init__(self, rows: Tensor) -> None:
        self.pairs = [(x, y) for x, y, _ in rows.tolist()]
        self.results = {(x, y): result for x, y, result in rows.tolist()}

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x, y = random.choice(self.pairs)
            tokens = [x + SPECIAL_TOKENS, OPERATOR, y + SPECIAL_TOKENS, EQUALS]
            yield torch.tensor(tokens), torch.tensor(self.results[x, y])


class UsualLoop:
    """One model trained as the grokking template of The AI Scientist does it, without that code's avoidable costs.

    The template computes each result anew in Python, attention weights that nobody reads, and logits at all four
    positions; here results are looked up, and the model is the plain `Decoder`.
    """

    def __init__(self, task: Task, study: Study) -> None:
        self.training, self.validation = Examples(task.train), Examples(task.validation)
        self.model = initial_decoder(task)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=study.learning_rate, betas=BETAS, weight_decay=study.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda update: min(update / WARM_UP, 1))

    def _measure(self, data: Examples, batches: int, batch_size: int, train: bool) -> tuple[float, float]:
        """Mean loss and accuracy over `batches` batches, with an update after each when training."""
        self.model.train(train)
        loss_total, correct, total = 0.0, 0, 0
        for _, (tokens, labels) in zip(range(batches), DataLoader(data, batch_size)):
            output = self.model(tokens)
            loss = F.cross_entropy(output, labels)
            if train:
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
            loss_total += loss.item() * len(labels)
            correct += (output.argmax(1) == labels).sum().item()
            total += len(labels)
        return loss_total / total, correct / total

    def run_block(self, batch_size: int) -> dict[str, float]:
        """Ten updates, then validation on eight drawn batches."""
        train_loss, train_accuracy = self._measure(self.training, BLOCK, batch_size, train=True)
        with torch.no_grad():
            val_loss, val_accuracy = self._measure(self.validation, VALIDATION_BATCHES, VALIDATION_BATCH, train=False)
        return dict(train_loss=train_loss, train_accuracy=train_accuracy, val_loss=val_loss, val_accuracy=val_accuracy)


# --- operations and ceiling ------------------------------------------------------------------------------------------


def forward_flops(batch: int, elements: int) -> int:
    """Floating-point operations of the matrix products in one member's forward pass.

    With D the width, n rows for each of x and y (the distinct elements, or the batch where that is smaller), and a
    multiply-add counted as two operations, the multiply-adds are, in units of D²:
    block 1: queries, keys, values of 2n + 2 rows: 3 (2n + 2); output projection and FFN (1 + 4 + 4) of x, the operator,
    y and equals, of which the last two are a row for each example: 9 (2n + 2B);
    block 2: a query B, keys and values 2 (2n + 2B), output projection and FFN 9B; and the head B · elements / D.
    Together 28n + 32B + 6. The scores and mixes of attention over four positions are elementwise and not counted.
    """
    return 2 * WIDTH * (WIDTH * (28 * min(elements, batch) + 32 * batch + 6) + batch * elements)


def block_flops(tasks: list[Task], batch: int) -> int:
    """Operations of ten updates (a backward pass costs two forward passes) and a validation, over the whole stack."""
    elements = max(t.elements for t in tasks)
    chunks = [min(CPU_CHUNK, len(t.validation) - i) for t in tasks for i in range(0, len(t.validation), CPU_CHUNK)]
    return 3 * BLOCK * len(tasks) * forward_flops(batch, elements) + sum(forward_flops(c, elements) for c in chunks)


def seconds(f: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def ceiling(dtype: torch.dtype) -> float:
    """Operations a second that a 1024³ matrix product reaches: the best of five."""
    a = torch.randn(1024, 1024).to(dtype)
    return 2 * 1024**3 / min(seconds(lambda: a @ a) for _ in range(5))


# --- measuring -------------------------------------------------------------------------------------------------------


def peak_memory() -> float:
    """Largest resident memory of this process so far, GB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def measure(usual: list[UsualLoop], engines: dict[str, Trainer], sizes: list[int]) -> pd.DataFrame:
    """Seconds of a block of the whole stack, by turns: the usual loop, each engine, the ceilings; then the same again.

    `sizes` are the engines' batch sizes, block by block. Columns: batch_size, loop, seconds, ceiling (operations/s).
    """
    rows = []
    for i, size in enumerate(sizes):
        rows.append((size, "usual", sum(seconds(lambda u=u: u.run_block(size)) for u in usual), np.nan))
        for name, engine in engines.items():
            rows.append((size, name, seconds(engine.run_block), ceiling(DTYPES[name])))
        print(f"\rmeasured {i + 1} of {len(sizes)} rounds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    table = pd.DataFrame(rows, columns=["batch_size", "loop", "seconds", "ceiling"])
    return table[table.groupby(["batch_size", "loop"]).cumcount() > 0]  # the first of each was a warm-up


def summarise(table: pd.DataFrame, tasks: list[Task]) -> pd.DataFrame:
    """One row for each precision and batch size: medians, the range of the ratio over the rounds, the ceiling's share."""
    rows = []
    for (name, size), own in table[table.loop != "usual"].groupby(["loop", "batch_size"], sort=False):
        usual = table[(table.loop == "usual") & (table.batch_size == size)]
        ratios = usual.seconds.to_numpy() / own.seconds.to_numpy()
        flops, top = block_flops(tasks, size), own.ceiling.max()
        rows.append(
            {
                "precision": name,
                "batch_size": size,
                "rounds": len(own),
                "usual_seconds": usual.seconds.median() / len(tasks),
                "engine_seconds": own.seconds.median() / len(tasks),
                "times_faster": usual.seconds.median() / own.seconds.median(),
                "lowest": ratios.min(),
                "highest": ratios.max(),
                "gflop_a_second": flops / own.seconds.median() / 1e9,
                "ceiling_gflop_a_second": top / 1e9,
                "ceiling_reached": flops / own.seconds.median() / top,
            }
        )
    return pd.DataFrame(rows)


def projected_hours(study: Study, summary: pd.DataFrame, stack: int, start: float, cores: int) -> float:
    """Hours for every run of `study`, one on each core, from the block times, linear in the batch size between them."""
    points = summary.sort_values("batch_size")
    total = 0.0
    for arm in study.schedules:
        blocks = np.interp(arm.batch_sizes(study), points.batch_size, points.engine_seconds * stack)
        total += len(study.seeds) * (blocks.sum() + start)
    return total / cores / 3600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.replace("`", ""))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[512, 272, 128, 32], metavar="N")
    parser.add_argument("--precisions", nargs="+", choices=DTYPES, help="default: float32, and bf16 where it is faster")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measured rounds a batch size (default 5)")
    parser.add_argument("--eager", action="store_true", help="without torch.compile, which a paper run would use")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the table as CSV, such as results/bench/cpu.csv"
    )
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    faster = ceiling(torch.bfloat16) > 1.2 * ceiling(torch.float32)
    precisions = arguments.precisions or (["float32", "bf16"] if faster else ["float32"])
    sizes = [size for size in arguments.batch_sizes for _ in range(arguments.rounds + 1)]
    engines, start = {}, {}
    for name in precisions:
        run = make_run("paper", "baseline", [0], device="cpu", precision=name)
        path = choose_path(run)
        path = replace(path, compiled=path.compiled and not arguments.eager)
        print(f"preparing {path}", file=sys.stderr)
        began = time.perf_counter()
        engines[name] = Trainer(run.tasks(), np.array(sizes), run.study.learning_rate, run.study.weight_decay, path)
        start[name] = time.perf_counter() - began
    tasks = run.tasks()
    summary = summarise(measure([UsualLoop(task, run.study) for task in tasks], engines, sizes), tasks)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(
        f"A block of {BLOCK} updates with its validation, seconds a model; {len(tasks)} models, one thread, medians of"
    )
    print(
        f"{arguments.rounds} rounds in alternation; torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}."
    )
    print(summary.to_string(index=False, float_format="{:.3f}".format))
    for name, rows in summary.groupby("precision", sort=False):
        hours = projected_hours(run.study, rows, len(tasks), START_SECONDS + start[name], cores)
        print(
            f"paper study in {name} on {cores} cores: {hours:.2f} h, of which {start[name]:.0f} s a run is preparation"
        )
    print(f"peak memory {peak_memory():.2f} GB, the usual loop and all engines in one process")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        summary.to_csv(arguments.out, index=False)


if __name__ == "__main__":
    main()
