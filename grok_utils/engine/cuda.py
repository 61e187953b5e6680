"""The loop on a GPU: the same updates as `Trainer`'s, recorded once as CUDA graphs and replayed.

A stack of small models leaves a GPU waiting for launches. An update is captured once for each rounded-up batch size:
rows beyond the batch repeat it and weigh zero, so they change nothing. The host draws the next block's batches while
the GPU trains; nothing inside a block waits for the GPU.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grok_utils.engine.trainer import BETAS, EPS, ExecutionPath, Trainer
from grok_utils.errors import BadInput
from grok_utils.schedules import BLOCK
from grok_utils.tasks import Task

ROUND = 32  # batch sizes are rounded up to a multiple: at most 16 graphs up to 512, 5 % of rows wasted


def rounded_up(batch_size: int) -> int:
    """The size of the graph that trains this batch size: the next multiple of ROUND."""
    return -(-batch_size // ROUND) * ROUND


def captured(work: Callable[[], object], stream: torch.cuda.Stream, pool: object) -> torch.cuda.CUDAGraph:
    """The graph of what `work` launches, with `stream`'s priority; work is also done twice, to compile and set up."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # the graph takes as much again for its own
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool, stream=stream):
        work()
    return graph


class GraphedTrainer(Trainer):
    """A stack of members on one GPU; float32 products are exact float32 unless the precision is tf32."""

    def __init__(
        self, tasks: list[Task], batch_sizes: np.ndarray, rate: float | np.ndarray, decay: float, path: ExecutionPath
    ) -> None:
        torch.set_float32_matmul_precision("high" if path.precision == "tf32" else "highest")
        torch._inductor.config.deterministic = True  # no benchmarking that could choose other code the next time
        torch._inductor.config.combo_kernels = True  # small kernels launched together: a tenth of an update
        if path.compiled:
            from grok_utils.engine import (
                attention,  # Triton is where PyTorch can compile for a GPU, and perhaps only there
            )

            self.attention = attention.first_attention, attention.last_attention
        largest = rounded_up(int(batch_sizes.max()))
        self.buffer = torch.zeros(3 * len(tasks) * largest, dtype=torch.int64, device=path.device)
        self.weight = torch.zeros(largest, device=path.device)
        self.lr = torch.zeros((), device=path.device)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        super().__init__(tasks, batch_sizes, rate, decay, path)
        self.device_rates = torch.tensor(self.rates, device=path.device)
        self.snapshot, self.validated = self.flat.detach().clone(), torch.zeros_like(self.trained)
        self.side = torch.cuda.Stream()
        self._capture_all()

    def _optimizer(self, decay: float) -> torch.optim.Optimizer:
        options = {"betas": BETAS, "eps": EPS, "weight_decay": decay, "fused": True, "capturable": True}
        return torch.optim.AdamW([self.flat], lr=self.lr, **options)

    def _validation_chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """All pairs of the members whose operations have equally many elements at once; what pads a set weighs zero."""
        start = 0
        for _, group in groupby(self.tasks, key=lambda t: t.elements):
            sets = [t.validation for t in group]
            pairs = pad_sequence(sets).permute(2, 1, 0).contiguous().to(self.path.device)
            weight = pad_sequence([torch.ones(len(s)) for s in sets], batch_first=True).to(self.path.device)
            yield slice(start, start + len(sets)), pairs, weight
            start += len(sets)

    def _compile(self) -> None:
        """Nothing: capturing runs everything once, at fixed sizes."""

    def _static(self, size: int) -> tuple[Tensor, Tensor]:
        """The inputs that the graph of batch size `size` reads: pairs [3, M, size] and weights [size]."""
        return self.buffer[: 3 * len(self.tasks) * size].view(3, len(self.tasks), size), self.weight[:size]

    def _capture_all(self) -> None:
        """Capture a validation and an update of every size, and leave parameters and AdamW's state as they were."""
        parameters = self.flat.detach().clone()
        main, pool = torch.cuda.Stream(priority=-1), torch.cuda.graph_pool_handle()
        for size in sorted({rounded_up(int(b)) for b in self.batch_sizes}, reverse=True):
            self.graphs[size] = captured(lambda size=size: self._update(*self._static(size)), main, pool)
        # Graphs that run at the same time share neither memory nor cuBLAS's workspace, which belongs to a stream.
        work = lambda: self.validated.copy_(self._validate(self.snapshot))  # noqa: E731
        self.validation_graph = captured(work, self.side, torch.cuda.graph_pool_handle())
        with torch.no_grad():
            self.flat.copy_(parameters)
            for value in self.optimizer.state[self.flat].values():
                value.zero_()

    def _train_block(self, rows: Tensor) -> None:
        size = rows.shape[-1]
        rounded = rounded_up(size)
        pairs, weight = self._static(rounded)
        weight.zero_()
        weight[:size] = 1 / size
        # A row that weighs zero is one of the batch's: a class of its member's (0 · inf is not 0), and not one element
        # many times, whose gradient one program would sum.
        rows = rows[..., torch.arange(rounded) % size]
        batches = self._pairs(rows.pin_memory().to(self.path.device, non_blocking=True))
        for i in range(BLOCK):
            pairs.copy_(batches[i])
            self.lr.copy_(self.device_rates[self.block * BLOCK + i])
            self.graphs[rounded].replay()

    def _log_validation(self) -> None:
        """Validate a copy of the parameters beside the next block's updates, which leave much of the GPU idle."""
        torch.cuda.current_stream().wait_stream(self.side)  # the last validation has read its copy
        self.snapshot.copy_(self.flat.detach())
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self.validation_graph.replay()
            self.logs[self.block, :, 2:].copy_(self.validated)

    def logged(self) -> Tensor:
        torch.cuda.current_stream().wait_stream(self.side)
        return super().logged()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`; the graphs hold the addresses of AdamW's state, so its values are copied in place."""
        adam = dict(self.optimizer.state[self.flat])
        super().restore(state)
        for name, value in adam.items():
            value.copy_(self.optimizer.state[self.flat][name])
        self.optimizer.state[self.flat] = adam


def graphed_trainer(
    tasks: list[Task], batch_sizes: np.ndarray, rate: float | np.ndarray, decay: float, path: ExecutionPath
) -> GraphedTrainer:
    """A `GraphedTrainer`. Raises BadInput where the GPU's memory does not suffice, saying how many members fit."""
    try:
        return GraphedTrainer(tasks, batch_sizes, rate, decay, path)
    except torch.OutOfMemoryError:
        pass  # within this clause the error still holds the memory that it could not complete
    fit = members_that_fit(tasks, int(batch_sizes.max()), path)
    seeds = fit * len({t.seed for t in tasks}) // len(tasks)
    raise BadInput(
        f"seeds: a stack of {len(tasks)} members does not fit on {torch.cuda.get_device_name()} beside what is there: "
        f"about {fit} do, so take SEEDS_PER_RUN={max(seeds, 1)}, or fewer runs at a time (-j)"
    )


def members_that_fit(tasks: list[Task], batch_size: int, path: ExecutionPath) -> int:
    """How many such members the GPU's free memory holds, from what small stacks take (compiled, they take less)."""

    def taken(members: int) -> int:
        gc.collect()
        torch.cuda.empty_cache()
        before, _ = torch.cuda.mem_get_info()
        some = [tasks[i * len(tasks) // members] for i in range(members)]
        probe = GraphedTrainer(some, np.array([batch_size]), 0.0, 0.0, replace(path, compiled=False))
        used = before - torch.cuda.mem_get_info()[0]
        del probe
        return used

    few, more = 4, 12
    each = (taken(more) - taken(few)) / (more - few)  # what a first stack takes once is no part of it
    return int(torch.cuda.mem_get_info()[0] / each)
