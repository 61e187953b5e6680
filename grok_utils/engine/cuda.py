"""The loop on a GPU: the same updates as `Trainer`'s, recorded once as CUDA graphs and replayed.

A stack of small models leaves a GPU waiting for launches. An update is captured once for each rounded-up batch size:
rows beyond the batch repeat it and weigh zero, so they change nothing. What changes from update to update, examples
and hyper-parameters, lies in a block's buffers, of which a graph reads what it is the turn of. The host draws the next
block's batches while the GPU trains; nothing inside a block waits for the GPU.
"""

import gc
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from grok_utils.engine.machine import does_not_fit, has_kernels, has_tf32, stack_size
from grok_utils.engine.stack import PLAIN
from grok_utils.engine.trainer import Trainer
from grok_utils.optimizers import State, hyper_table
from grok_utils.schedules import BLOCK
from grok_utils.studies import PROTOCOL, Courses, ExecutionPath, Run, Settings
from grok_utils.tasks import Task

ROUND = 32  # batch sizes are rounded up to a multiple: at most 16 graphs up to 512, 5 % of rows wasted


def rounded_up(batch_size: int) -> int:
    """The size of the graph that trains this batch size: the next multiple of ROUND."""
    return -(-batch_size // ROUND) * ROUND


def captured(work: Callable[[], object], stream: torch.cuda.Stream, pool: Any) -> torch.cuda.CUDAGraph:
    """The graph of what `work` launches, with `stream`'s priority; work is also done twice, to compile and set up."""
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()  # the graph takes as much again for its own
    graph, collects = torch.cuda.CUDAGraph(), gc.isenabled()
    gc.disable()  # Python would end an earlier trainer's graphs whenever it collects: a capture does not survive that
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            work()
    finally:
        if collects:
            gc.enable()
    return graph


class GraphedTrainer(Trainer):
    """A stack of members on one GPU; products in float32 are as exact as that, unless the precision is tf32."""

    def __init__(
        self,
        tasks: list[Task],
        courses: Courses,
        path: ExecutionPath,
        settings: Settings = PROTOCOL,
        measures: tuple[str, ...] = (),
    ) -> None:
        super().__init__(tasks, courses, path, settings, measures)
        self.step_of_parts: Callable[[Tensor, Tensor | None, tuple[Tensor, ...], State, Tensor], None] | None = None
        self.low: Tensor | None = None  # the parameters in bf16, as maps take them: [M, P]
        self.compiled_ahead: Callable[[], AbstractContextManager[None]] | None = None
        if has_kernels(path, settings.shape):
            # Triton is where PyTorch can compile for a GPU, and perhaps only there.
            from grok_utils.engine.gpu import adamw, attention, block, launch, loss, products

            self.compiled_ahead = launch.compiled_ahead
            if settings.optimizer == "adamw":
                self.step_of_parts = adamw.step
                self.low = self.flat.bfloat16() if path.precision == "bf16" else None
            self.kernels = PLAIN._replace(
                first=attention.first_attention, last=attention.last_attention, measured=loss.measured
            )
            if has_tf32():
                self.kernels = self.kernels._replace(linear=products.linear, rest_of_block=block.rest_of_block)
        sizes = courses.batch_size[:, 0] if courses.drawn else [self.train.shape[1]]
        sizes = sorted({rounded_up(int(size)) for size in sizes}, reverse=True)
        self.example = torch.arange(sizes[0], device=path.device)
        self.batches = BLOCK if courses.drawn else 1  # in a block
        self.buffer = torch.zeros(self.batches * 3 * len(tasks) * sizes[0], dtype=torch.int64, device=path.device)
        self.weight, self.weighs = torch.zeros(len(tasks) * sizes[0], device=path.device), 0  # for which batch size
        hyper = hyper_table(courses, 0, settings.warm_up)
        self.hyper = torch.from_numpy(hyper).to(path.device, self.flat.dtype)
        self.turn = torch.zeros(1, dtype=torch.int64, device=path.device)  # which update of the block
        self.snapshot, self.validated = self.flat.clone(), torch.zeros_like(self.trained)
        self.side = torch.cuda.Stream()
        self._capture(sizes)

    def _static(self, size: int) -> tuple[Tensor, Tensor]:
        """The inputs that the graph of batch size `size` reads: pairs [10 or 1, 3, M, size] and weights [M, size]."""
        members = len(self.tasks)
        pairs, weight = self.buffer[: self.batches * 3 * members * size], self.weight[: members * size]
        return pairs.view(self.batches, 3, members, size), weight.view(members, size)

    def _next_update(self, size: int) -> None:
        """The update whose turn it is, from the buffers."""
        pairs, weight = self._static(size)
        own = pairs[0] if self.batches == 1 else pairs.index_select(0, self.turn)[0]
        self._update(own, weight, self.hyper.index_select(0, self.turn)[0])
        self.turn.add_(1)

    def _update(self, pairs: Tensor, weight: Tensor, hyper: Tensor) -> None:
        """As the trainer's, but where a kernel takes each parameter's gradient as it lies, none is copied for it."""
        if self.step_of_parts is None:
            return super()._update(pairs, weight, hyper)
        views = self.layout.views(self.flat)
        if self.low is not None:
            low = self.layout.views(self.low)
            views |= {name: low[name] for name in low if name.startswith(("blocks", "head")) and low[name].dim() == 3}
        parts = {name: view.detach().requires_grad_() for name, view in views.items()}
        measured = self._measure(parts, slice(None), pairs, weight)
        gradients = torch.autograd.grad(measured, [*parts.values()], self.of_loss)
        if self.stack.gradients:
            self.stack.each_update(self.layout.joined(gradients))
        self.step_of_parts(self.flat, self.low, gradients, self.state_of_rule, hyper)
        self.trained.add_(measured.detach())

    def _validate(self, flat: Tensor) -> Tensor:
        """As the trainer's; not compiled where nearly all of it is kernels of ours, as it takes seconds for nothing."""
        ours = self.kernels.rest_of_block is not PLAIN.rest_of_block and self.settings.blocks <= 2
        with torch.compiler.set_stance("force_eager" if ours else "default"):
            return super()._validate(flat)

    def _capture(self, sizes: list[int]) -> None:
        """Capture a validation and an update of every size, and leave parameters and optimizer as they were."""
        # Compiled code may hang on the size that it is first met with. PyTorch's cache does not ask for that: a rerun
        # would get what another arm left there.
        torch.compiler.config.cache_key_tag += f", batch size {sizes[0]}"
        main, pool = torch.cuda.Stream(priority=-1), torch.cuda.graph_pool_handle()
        if self.compiled_ahead is not None:
            main.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(main), self.compiled_ahead():
                self._validate(self.snapshot)  # first, as its kernels take longest
                for size in sizes:
                    self.turn.zero_()
                    self._next_update(size)
        self.graphs = {}
        for size in sizes:
            self.turn.zero_()
            self.graphs[size] = captured(partial(self._next_update, size), main, pool)
        # Graphs that run at the same time share neither memory nor cuBLAS's workspace, which belongs to a stream.
        work = lambda: self.validated.copy_(self._validate(self.snapshot))  # noqa: E731
        self.validation_graph = captured(work, self.side, torch.cuda.graph_pool_handle())
        self.flat.copy_(self.snapshot)
        for value in self.state_of_rule.values():
            value.zero_()

    def _sent(self, values: Tensor) -> Tensor:
        """A copy on the GPU, for which the host does not wait."""
        return values.pin_memory().to(self.path.device, non_blocking=True)

    def _train_block(self, rows: Tensor, weight: Tensor, hyper: Tensor) -> None:
        size = rows.shape[-1]
        rounded = rounded_up(size)
        pairs, static_weight = self._static(rounded)
        # A row that weighs zero is one of the batch's: a class of its member's (0 · inf is not 0), and not one element
        # many times, whose gradient one program would sum.
        rows = self._sent(rows)[..., self.example[:rounded] % size]
        pairs.copy_(self._pairs(rows)[: self.batches])
        if size != self.weighs:  # which is all that weights depend on
            static_weight.copy_(self._sent(F.pad(weight, (0, rounded - size)))[self.split_of])
            self.weighs = size
        self.hyper.copy_(self._sent(hyper.to(self.flat.dtype)))
        if self.low is not None:
            self.low.copy_(self.flat)
        self.turn.zero_()
        for _ in range(BLOCK):
            self.graphs[rounded].replay()

    def _log_validation(self) -> None:
        """Validate a copy of the parameters beside the next block's updates, which leave much of the GPU idle."""
        torch.cuda.current_stream().wait_stream(self.side)  # the last validation has read its copy
        self.snapshot.copy_(self.flat)
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            self.validation_graph.replay()
            self.logs[self.block, :, 2:4].copy_(self.validated)

    def logged(self) -> Tensor:
        torch.cuda.current_stream().wait_stream(self.side)
        return super().logged()


def graphed_trainer(run: Run, path: ExecutionPath) -> GraphedTrainer:
    """The run's trainer. Raises BadInput where the GPU's memory does not suffice, saying how many members fit."""
    try:
        return GraphedTrainer(run.tasks(), run.courses, path, run.arm.settings, run.study.measures)
    except torch.OutOfMemoryError:
        pass  # within this clause the error still holds the memory that it could not complete
    gc.collect()
    torch.cuda.empty_cache()
    free, (members, each) = torch.cuda.mem_get_info()[0], stack_size(run)
    raise does_not_fit(members, len(run.seeds), max(each, free // members + 1), free)  # which they did take
