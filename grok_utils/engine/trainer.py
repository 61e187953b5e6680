"""The stack: members trained side by side under one schedule, an update after another, validated every block of 10.

Nothing random is left to chance: weights, split and batches are functions of (operation, seed) and of the block, so the
same seed means the same start, split and stream of examples under every arm and beside any neighbours.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grok_utils.engine.stack import PLAIN, Attention, Layout, stacked_logits
from grok_utils.model import initial_decoder
from grok_utils.schedules import BLOCK
from grok_utils.studies import ExecutionPath
from grok_utils.tasks import Task, stream

WARM_UP = 50  # updates
BETAS, EPS = (0.9, 0.98), 1e-8
# Pairs validated at once on a CPU: larger chunks spill the cache (medians within 10 % from 600 to 2,400).
CPU_CHUNK = 1176


def learning_rate(update: int, full: float) -> float:
    """Rate of update number `update` (from 0): linear warm-up over 50 updates."""
    return full * min(update / WARM_UP, 1.0)


def draw_batches(task: Task, block: int, batch_size: int) -> Tensor:
    """The examples of the 10 updates of `block`, uniform with replacement: rows of `task.train` [10, batch_size].

    Example i of an update is the same pair whatever the batch size, so arms share their stream as far as it goes.
    """
    generator = stream("batches", task.operation, task.seed, counter=block)
    return torch.from_numpy(generator.integers(len(task.train), size=(batch_size, BLOCK)).T)


def loss_and_accuracy(
    layout: Layout,
    flat: Tensor,
    x: Tensor,
    y: Tensor,
    label: Tensor,
    weight: Tensor,
    beyond: Tensor,
    distinct: bool,
    attention: Attention,
) -> Tensor:
    """Cross-entropy and correctness of each member's examples, summed by their `weight`: float32 [M, 2].

    `x`, `y`, `label` are int64 [M, B], `weight` is of a shape that broadcasts to theirs; `beyond` [M, 1, classes] is
    -inf for the classes that a member's task does not have, else 0. `distinct`, `attention`: see `stacked_logits`.
    """
    logits = stacked_logits(layout.views(flat), x, y, distinct, attention).float() + beyond
    loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(label)
    correct = (logits.argmax(-1) == label).float()
    return torch.stack([(loss * weight).sum(1), (correct * weight).sum(1)], dim=1)


class Trainer:
    """A stack of M members: their parameters [M, P], AdamW's state, and the logs so far [logs, M, 4].

    `rate` is the learning rate after the warm-up: one number, or one for each block.
    """

    attention = PLAIN  # of compiled code

    def __init__(
        self, tasks: list[Task], batch_sizes: np.ndarray, rate: float | np.ndarray, decay: float, path: ExecutionPath
    ) -> None:
        torch.set_num_threads(path.threads)
        self.tasks, self.batch_sizes, self.path = tasks, batch_sizes, path
        self.layout = Layout(tasks)
        self.flat = self.layout.pack(map(initial_decoder, tasks)).to(path.device).requires_grad_()
        full = np.broadcast_to(rate, len(batch_sizes)).repeat(BLOCK)
        self.rates = [learning_rate(k, float(r)) for k, r in enumerate(full)]
        self.optimizer = self._optimizer(decay)
        self.logs = torch.full((len(batch_sizes), len(tasks), 4), torch.nan, device=path.device)
        self.block = 0  # blocks completed
        classes = torch.tensor([t.elements for t in tasks])
        beyond = torch.arange(int(classes.max())) >= classes[:, None]
        self.beyond = torch.zeros(beyond.shape).masked_fill(beyond, -torch.inf).unsqueeze(1).to(path.device)
        self.trained = torch.zeros(len(tasks), 2, device=path.device)  # loss and accuracy, summed over the block
        self.pairs = torch.tensor([[len(t.validation)] for t in tasks], device=path.device)
        self.train = pad_sequence([t.train for t in tasks], batch_first=True).to(path.device)  # [M, most pairs, 3]
        self.members = torch.arange(len(tasks), device=path.device).unsqueeze(1)
        # Members are independent, so the gradient of each is that of its own loss; accuracy has none.
        self.of_loss = torch.tensor([1.0, 0.0], device=path.device).expand(len(tasks), 2).contiguous()
        self.measure = loss_and_accuracy
        if path.compiled:
            torch._dynamo.config.automatic_dynamic_shapes = False  # only the batch size changes, and it is marked
            # Past 8 variants in a process, PyTorch would go on uncompiled with no more than a warning.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            self.measure = torch.compile(loss_and_accuracy)
        self.validation = list(self._validation_chunks())
        if path.compiled:
            self._compile()

    def _optimizer(self, decay: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW([self.flat], betas=BETAS, eps=EPS, weight_decay=decay, fused=True)

    def _validation_chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Every validation pair once, as (members, pairs [3, m, n], their weight): a member and CPU_CHUNK at a time."""
        for i, task in enumerate(self.tasks):
            for chunk in task.validation.T.contiguous().chunk(math.ceil(len(task.validation) / CPU_CHUNK), dim=1):
                yield slice(i, i + 1), chunk.unsqueeze(1), torch.ones(())

    def _compile(self) -> None:
        """Compile at fixed sizes whatever the schedule, so that a resumed run gets the code it began with."""
        pairs = torch.zeros(3, len(self.tasks), 509, dtype=torch.int64)
        self._measure(self.flat, slice(None), pairs, torch.ones(())).backward(self.of_loss)
        self.optimizer.zero_grad()
        self._validate(self.flat)

    def _measure(self, flat: Tensor, members: slice, pairs: Tensor, weight: Tensor) -> Tensor:
        """`loss_and_accuracy` of some members for `pairs` [3, m, B] of x, y, label, on this trainer's path: [m, 2]."""
        x, y, label = (part.contiguous() for part in pairs)
        compiled = self.path.compiled and x.shape[1] > 1  # compiled code cannot hold a batch size of 1 open
        if compiled:
            for t in (x, y, label, weight):
                if t.dim() > 0:
                    torch._dynamo.mark_dynamic(t, t.dim() - 1)
        with torch.autocast(self.path.device, torch.bfloat16, enabled=self.path.precision == "bf16"):
            # Rows for each element cost less than rows for each example from about one example an element on. Compiled,
            # there is one way for all batch sizes, and a GPU's kernels have no other; with 97 classes it costs little.
            distinct = compiled or x.shape[1] > self.beyond.shape[-1]
            measure, attention = (self.measure, self.attention) if compiled else (loss_and_accuracy, PLAIN)
            return measure(self.layout, flat, x, y, label, weight, self.beyond[members], distinct, attention)

    def _update(self, pairs: Tensor, weight: Tensor) -> None:
        """One update from `pairs` [3, M, B], each example weighing `weight`; its loss and accuracy join `trained`."""
        measured = self._measure(self.flat, slice(None), pairs, weight)
        measured.backward(self.of_loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.trained += measured.detach()

    def _pairs(self, rows: Tensor) -> Tensor:
        """The training pairs [..., 3, M, B] of `rows` [..., M, B] of each member's own table."""
        return self.train[self.members, rows].movedim(-1, -3)

    def _train_block(self, rows: Tensor) -> None:
        """The ten updates of the examples `rows` int64 [10, M, B]."""
        for i, pairs in enumerate(self._pairs(rows)):
            self.optimizer.param_groups[0]["lr"] = self.rates[self.block * BLOCK + i]
            self._update(pairs, torch.tensor(1 / pairs.shape[-1]))

    def run_block(self) -> None:
        """Ten updates at this block's batch size, then a validation; the log gets one more row."""
        size = int(self.batch_sizes[self.block])
        self.trained.zero_()
        self._train_block(torch.stack([draw_batches(t, self.block, size) for t in self.tasks], dim=1))
        self.logs[self.block, :, :2] = self.trained / BLOCK
        self._log_validation()
        self.block += 1

    def _log_validation(self) -> None:
        self.logs[self.block, :, 2:] = self._validate(self.flat)

    @torch.no_grad()
    def _validate(self, flat: Tensor) -> Tensor:
        """Loss and accuracy of members with parameters `flat` on their whole validation sets: float32 [M, 2]."""
        totals = torch.zeros_like(self.trained)
        for members, pairs, weight in self.validation:
            totals[members] += self._measure(flat[members], members, pairs, weight)
        return totals / self.pairs

    def logged(self) -> Tensor:
        """The logs so far [logs, M, 4]."""
        return self.logs[: self.block]

    def state(self) -> dict[str, Tensor]:
        """Everything that changes while training; with the constructor's arguments, all that a resumed run needs."""
        adam = self.optimizer.state[self.flat]
        zeros = torch.zeros_like(self.flat)
        tensors = {"parameters": self.flat.detach(), "logs": self.logged()}
        return tensors | {k: adam.get(k, zeros) for k in ("exp_avg", "exp_avg_sq")}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`, as an uninterrupted run would."""
        self.block = len(state["logs"])
        self.logs[: self.block] = state["logs"].to(self.path.device)
        with torch.no_grad():
            self.flat.copy_(state["parameters"])
        adam = {k: state[k].to(self.path.device) for k in ("exp_avg", "exp_avg_sq")}
        adam["step"] = torch.tensor(float(self.block * BLOCK), device=self.path.device)
        self.optimizer.state[self.flat] = adam
