"""This engine against the usual training loop, side by side on this machine: `python -m benchmarks.cpu`."""

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.flop_counter import FlopCounterMode

from grok_utils.engine import products
from grok_utils.engine.machine import choose_path, cores, set_up
from grok_utils.engine.stack import Layout, stacked_logits
from grok_utils.engine.trainer import Trainer
from grok_utils.measures import MEASURES, Stack
from grok_utils.model import initial_decoder
from grok_utils.page.notebook import save
from grok_utils.pipeline.parameters import make_run
from grok_utils.schedules import BLOCK
from grok_utils.store.provenance import provenance
from grok_utils.studies import DEFAULTS, HYPER, Courses, ExecutionPath, Run, Shape, Study, runs_of
from grok_utils.tasks import EQUALS, OPERATOR, SPECIAL_TOKENS, Task, make_task

VALIDATION_BATCHES, VALIDATION_BATCH = 8, 512  # of the usual loop
BATCH_SIZES, ROUNDS = (512, 272, 128, 32), 5  # that are measured, and how often each
SWEEP = 1000  # models, of which is said how long they take
NOTEBOOK_SECONDS = 8  # from papermill's start to a notebook with torch imported


# --- the usual loop --------------------------------------------------------------------------------------------------


class Examples(IterableDataset):
    """Endless (tokens, result), each drawn with its result and encoded on its own."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows.tolist()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            x, y, result = random.choice(self.rows)
            tokens = [x + SPECIAL_TOKENS, OPERATOR, y + SPECIAL_TOKENS, EQUALS]
            yield torch.tensor(tokens), torch.tensor(result)


class UsualLoop:
    """One model trained as the grokking template of The AI Scientist does it, without that code's avoidable costs.

    The template also computes each result anew in Python, attention weights that nobody reads and logits at all four
    positions; here results are drawn with their pairs and the model is the plain `Decoder`. Its optimizer is AdamW.
    """

    def __init__(self, task: Task, device: str = "cpu") -> None:
        self.training, self.validation, self.device = Examples(task.train), Examples(task.validation), device
        self.model = initial_decoder(task).to(device)
        s = DEFAULTS
        options = {"lr": s["learning_rate"], "betas": (s["beta1"], s["beta2"]), "weight_decay": s["weight_decay"]}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), **options)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda update: min(update / s["warm_up"], 1))

    def _measure(self, data: Examples, batches: int, batch_size: int, train: bool) -> np.ndarray:
        """Mean loss and accuracy over `batches` batches, with an update after each when training."""
        self.model.train(train)
        measured = []
        for tokens, labels in islice(DataLoader(data, batch_size), batches):
            tokens, labels = tokens.to(self.device), labels.to(self.device)
            output = self.model(tokens)
            loss = F.cross_entropy(output, labels)
            if train:
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                self.scheduler.step()
            measured.append((loss.item(), (output.argmax(1) == labels).float().mean().item()))
        return np.mean(measured, axis=0)

    def run_block(self, batch_size: int) -> list[float]:
        """Ten updates, then validation on eight drawn batches: the four numbers of a log."""
        trained = self._measure(self.training, BLOCK, batch_size, train=True)
        with torch.no_grad():
            return [*trained, *self._measure(self.validation, VALIDATION_BATCHES, VALIDATION_BATCH, train=False)]


# --- operations and ceiling ------------------------------------------------------------------------------------------


@cache
def forward_cost(batch: int, elements: int, shape: Shape) -> tuple[int, int]:
    """Operations of the matrix products of one member's forward pass, as PyTorch counts them, and the numbers between.

    However well it is fused between products, elementwise work reads what one made and writes what the next one takes.
    """
    layout = Layout([make_task("x_plus_y", 0, elements)], shape)
    x = torch.zeros(1, batch, dtype=torch.int64)
    between = {torch.ops.aten.bmm: lambda a, b, *_, out_shape, **__: math.prod(a) + math.prod(out_shape)}
    numbers = FlopCounterMode(display=False, custom_mapping=between)
    with FlopCounterMode(display=False) as flops, numbers, torch.no_grad():
        stacked_logits(layout, torch.zeros(1, sum(layout.sizes)), x, x, distinct=batch > elements)
    return flops.get_total_flops(), numbers.get_total_flops()


def block_cost(engine: Trainer, batch: int) -> tuple[int, int]:
    """Operations, and numbers between products, of ten updates and a validation, over the whole stack.

    A backward pass costs two products for each of the forward pass, and the gradients of the same numbers.
    """
    elements, shape = max(task.elements for task in engine.tasks), engine.layout.shape
    flops, numbers = forward_cost(batch, elements, shape)
    validation = [forward_cost(len(task.validation), elements, shape) for task in engine.tasks]
    updates = BLOCK * len(engine.tasks)
    return 3 * updates * flops + sum(f for f, _ in validation), 2 * updates * numbers + sum(n for _, n in validation)


def at_sizes(run: Run, sizes: np.ndarray) -> Courses:
    """The courses of the run's first block throughout, but for the batch sizes [blocks]."""
    shape = len(sizes), run.courses.batch_size.shape[1]
    rows = {name: getattr(run.courses, name)[0] for name in HYPER} | {"batch_size": sizes[:, None]}
    return Courses(**{name: np.broadcast_to(row, shape) for name, row in rows.items()}, drawn=True)


def seconds(f: Callable[..., object], *arguments: object) -> float:
    """Wall time of one call, the work that it leaves to a GPU included."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    wait()
    start = time.perf_counter()
    f(*arguments)
    wait()
    return time.perf_counter() - start


def ceiling(precision: str, n: int = 1024, device: str = "cpu", own: bool = True) -> float:
    """Operations a second in a product of two n × n matrices, as the engine multiplies, or by torch.mm: best of 5."""
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    own = own and device == "cpu" and precision == "float32" and products.AVAILABLE
    times = [seconds(products.product, a, a, None) if own else seconds(torch.mm, a, a) for _ in range(5)]
    return 2 * n**3 / min(times)


def measure(usual: list[UsualLoop], engines: dict[str, Trainer], sizes: list[int]) -> pd.DataFrame:
    """Times of a block of the whole stack, by turns: the usual loop, each engine; then the same again.

    `sizes` are the engines' batch sizes, block by block. One row for each precision and batch size: medians, the
    rounds' range of the ratio, and the share that the engine reaches of the ceiling, and of that of torch.mm.
    """
    rows = []
    for i, size in enumerate(sizes):
        theirs = sum(seconds(loop.run_block, size) for loop in usual)
        for precision, engine in engines.items():
            ours = seconds(engine.run_block)
            rows.append((precision, size, theirs, ours, ceiling(precision), ceiling(precision, own=False)))
        print(f"round {i + 1} of {len(sizes)} done (batch {size})", file=sys.stderr)
    rounds = pd.DataFrame(rows, columns=["precision", "batch_size", "usual", "engine", "ceiling", "mm"])
    rounds = rounds[rounds.groupby(["precision", "batch_size"]).cumcount() > 0]  # the first of each was a warm-up
    stacks = rounds.assign(ratio=rounds.usual / rounds.engine).groupby(["precision", "batch_size"], sort=False)
    table = stacks[["usual", "engine"]].median().add_suffix("_ms") * 1e3 / len(usual)
    table = table.assign(n=stacks.size(), times_faster=table.usual_ms / table.engine_ms)
    table = table.assign(lowest=stacks.ratio.min(), highest=stacks.ratio.max())
    table = table.assign(ceiling_gflops=stacks.ceiling.max() / 1e9, mm_gflops=stacks.mm.max() / 1e9).reset_index()
    done = [block_cost(engines[row.precision], row.batch_size)[0] / len(usual) for row in table.itertuples()]
    table["gflops"] = done / table.engine_ms / 1e6
    return table.assign(reached=table.gflops / table.ceiling_gflops, of_mm=table.gflops / table.mm_gflops)


def costs_of_measures(engine: Trainer, rounds: int, blocks: pd.Series) -> pd.DataFrame:
    """What each measure and all of them add to a block, a model: ms, and per cent of `blocks`, ms by batch size.

    Medians of `rounds` rounds.
    """
    stack, gradient = Stack(engine.tasks, engine.flat, engine.layout.views(engine.flat), True), engine.flat.clone()
    stack.start_block(512)
    costs = {}
    for name, measure in MEASURES.items():
        updates = BLOCK if measure.gradients else 0
        times = [
            seconds(measure.of, stack) + sum(seconds(stack.each_update, gradient) for _ in range(updates))
            for _ in range(rounds + 1)
        ]
        costs[name] = 1e3 * float(np.median(times[1:])) / len(engine.tasks)
    table = pd.Series(costs | {" ".join(costs): sum(costs.values())}, name="ms").rename_axis("measures").reset_index()
    return table.assign(**{f"percent_{size}": 100 * table["ms"] / blocks[size] for size in (32, 512)})


def hours(rows: pd.DataFrame, batch_sizes: np.ndarray | int) -> float:
    """Hours of one core for blocks of a model at these batch sizes: block times linear in batch size."""
    rows = rows.sort_values("batch_size")
    return float(np.interp(batch_sizes, rows.batch_size, rows.engine_ms).sum() / 3.6e6)


def kept_in(folder: Path | None, name: str) -> Callable[[str], None]:
    """What prints a text, and keeps all that it has printed in `folder`/`name`; nowhere without a folder."""
    said: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        said.append(f"{text}\n")
        save("".join(said), folder, name)

    return say


def main() -> None:
    """Measure, print the tables, and write them where --out says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__.split(":")[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="also write the tables there")
    arguments = parser.parse_args()
    say = kept_in(arguments.out, "cpu.txt")

    set_up(ExecutionPath("cpu", "float32", compiled=False, threads=1))
    sizes = [size for size in BATCH_SIZES for _ in range(ROUNDS + 1)]
    engines, start = {}, {}
    for precision in ["float32", "bf16"] if ceiling("bf16") > 1.2 * ceiling("float32") else ["float32"]:
        began = time.perf_counter()
        run = make_run("paper", "baseline", [0], device="cpu", precision=precision)
        path, study, tasks = choose_path(run), run.study, run.tasks()
        engines[precision] = Trainer(tasks, at_sizes(run, np.array(sizes)), path, run.arm.settings)
        start[precision] = NOTEBOOK_SECONDS + time.perf_counter() - began
        print(f"ready: {path}", file=sys.stderr)
    usual = [UsualLoop(task) for task in tasks]
    summary = measure(usual, engines, sizes)

    about = provenance("cpu")
    able = torch.backends.cpu.get_cpu_capability()
    say(f"{about['device_name']}, {able}; torch {torch.__version__}; commit {about['commit']}\n")
    say(f"A block of {BLOCK} updates and its validation, ms a model of {len(tasks)}; medians of n by turns, one thread")
    say(summary.to_string(index=False, float_format="{:.2f}".format) + "\n")
    blocks = summary[summary["precision"] == "float32"].set_index("batch_size")["engine_ms"]
    costs = costs_of_measures(engines["float32"], ROUNDS, blocks)
    say("Measures add to a block, a model: ms, and per cent at batch 32 and 512:")
    say(costs.to_string(index=False, float_format="{:.2f}".format) + "\n")
    for precision, rows in summary.groupby("precision", sort=False):
        trains = sum(hours(rows, run.batch_sizes) * len(run.members) for run in runs_of(study, Path()))
        begins = len(study.arms) * len(study.seeds) * start[precision] / 3600
        models = SWEEP * Study.updates / BLOCK / cores()
        sweeps = [f"{models * hours(rows, size):.1f} h at batch {size}" for size in (64, 512)]
        after = f"(a run begins after {start[precision]:.0f} s)"
        say(f"On {cores()} cores in {precision}: `paper` takes {(trains + begins) / cores():.2f} h {after},")
        say(f"{SWEEP:,} models of a sweep, {Study.updates:,} updates each, train for {' and '.join(sweeps)}.")
    save(summary.to_csv(index=False), arguments.out, "cpu.csv")
    save(costs.to_csv(index=False), arguments.out, "cpu-measures.csv")


if __name__ == "__main__":
    main()
