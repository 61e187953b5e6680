"""The stack: members trained side by side, an update after another, logged every block of 10, and when that may end."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grok_utils.engine import products
from grok_utils.engine.beside import compile_for
from grok_utils.engine.examples import draw_batches, validation_chunks
from grok_utils.engine.machine import one_by_one, set_up
from grok_utils.engine.stack import PLAIN, Kernels, Layout, stacked_rows
from grok_utils.measures import MEASURES, Stack, columns_of
from grok_utils.model import initial_decoder
from grok_utils.optimizers import OPTIMIZERS, Hyper, OfMembers, State, hyper_table
from grok_utils.schedules import BLOCK
from grok_utils.studies import PROTOCOL, THRESHOLD, Courses, ExecutionPath, Settings
from grok_utils.tasks import Task

MEASURED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")  # of a log, then the measures' columns


def diverged(logs: Float[np.ndarray, "logs *of columns"]) -> Bool[np.ndarray, " logs *of"]:
    """Whether, by each of `logs`, a loss was not finite."""
    losses = logs[..., [MEASURED.index("train_loss"), MEASURED.index("val_loss")]]
    return np.logical_or.accumulate(~np.isfinite(losses).all(axis=-1))


def early_end(logs: Float[np.ndarray, "logs M columns"], stop_after: int | None) -> int | None:
    """After how many of `logs` a run ends early; None where, by them, it does not.

    That is at the first log by which every member has kept 99 % for `stop_after` updates, or has diverged.
    """
    if stop_after is None:
        return None
    log, above = np.arange(len(logs))[:, None], logs[..., MEASURED.index("val_accuracy")] > np.float32(THRESHOLD)
    row = log - np.maximum.accumulate(np.where(above, -1, log))  # how many logs in a row have been above
    settled = ((row > stop_after // BLOCK) | diverged(logs)).all(axis=1)
    return int(settled.argmax()) + 1 if settled.any() else None


def loss_and_accuracy(
    layout: Layout,
    parameters: Float[Tensor, "M P"] | dict[str, Tensor],
    x: Int64[Tensor, "M B"],
    y: Int64[Tensor, "M B"],
    label: Int64[Tensor, "M B"],
    weight: Float[Tensor, "..."],
    beyond: Float[Tensor, "M 1 classes"],
    distinct: bool,
    kernels: Kernels,
) -> Float[Tensor, "M 2"]:
    """Cross-entropy and correctness of each member's examples, summed by their `weight`, which broadcasts to them.

    The parameters are as one tensor, or as its views by the decoder's names. `beyond` is -inf for the classes that a
    member's task does not have, else 0. `distinct`, `kernels`: see `stacked_rows`.
    """
    p = parameters if isinstance(parameters, dict) else layout.views(parameters)
    rows = stacked_rows(layout.shape, p, x, y, distinct, kernels)
    products = kernels.linear(rows, p["head.weight"], None)
    return kernels.measured(products, p["head.bias"].unsqueeze(1) + beyond, label, weight)


class Trainer:
    """A stack of M members: their parameters [M, P], the optimizer's state, and the logs so far [logs, M, 4 + columns].

    A log is loss and accuracy in training, then in validation, then the columns of the `measures`.
    """

    def __init__(
        self,
        tasks: list[Task],
        courses: Courses,
        path: ExecutionPath,
        settings: Settings = PROTOCOL,
        measures: tuple[str, ...] = (),
    ) -> None:
        set_up(path)
        self.tasks, self.courses, self.path, self.settings = tasks, courses, path, settings
        self.blocks, self.block = len(courses.batch_size), 0  # in all, and completed
        # Members of one operation and seed share their start, split and stream of batches.
        own = {(t.operation, t.seed): t for t in tasks}
        self.splits, places = list(own.values()), {name: i for i, name in enumerate(own)}
        self.split_of = torch.tensor([places[t.operation, t.seed] for t in tasks], device=path.device)
        self.train = pad_sequence([t.train for t in self.splits], batch_first=True).to(path.device)
        # A GPU loads several numbers at a time where it knows that rows begin at multiples of 16.
        self.layout = Layout(tasks, settings.shape, multiple=16 if path.device == "cuda" else 1)
        starts = (initial_decoder(t, settings.shape) for t in self.splits)
        self.flat = self.layout.pack(starts).to(path.device)[self.split_of]
        optimizer = OPTIMIZERS[settings.optimizer]
        self.rule = optimizer.rule
        self.state_of_rule = {name: torch.zeros_like(self.flat) for name in optimizer.state}
        self.asked = [MEASURES[name] for name in measures]
        self.stack = Stack(tasks, self.flat, self.layout.views(self.flat), any(m.gradients for m in self.asked))
        self.logs = torch.full((self.blocks, len(tasks), 4 + len(columns_of(measures))), torch.nan, device=path.device)
        beyond = pad_sequence([torch.zeros(t.elements) for t in tasks], batch_first=True, padding_value=-torch.inf)
        self.beyond = beyond.unsqueeze(1).to(path.device)
        self.trained = torch.zeros(len(tasks), 2, device=path.device)  # loss and accuracy, summed over the block
        self.pairs = torch.tensor([[len(t.validation)] for t in tasks], device=path.device)
        self.validation = validation_chunks(tasks, path.device)
        # Members are independent, so the gradient of each is that of its own loss; accuracy has none.
        self.of_loss = torch.tensor([1.0, 0.0], device=path.device).expand(len(tasks), 2).contiguous()
        self.apart = [slice(None)]  # members that are computed side by side, one such slice after another
        self.kernels, self.measure = PLAIN, loss_and_accuracy
        batch_size = float(courses.batch_size[:, 0].mean())
        if one_by_one(path, settings.shape, batch_size) and self.flat.dtype == torch.float32:
            self.apart = [slice(i, i + 1) for i in range(len(tasks))]
            self.kernels = PLAIN._replace(linear=products.linear)
        self.step: Callable[[Tensor, Tensor, State, Tensor], None] = self.step_by_rule
        if path.compiled:
            self.measure, self.step = torch.compile(loss_and_accuracy), torch.compile(self.step_by_rule)
        if optimizer.cpu and path.device == "cpu" and self.flat.dtype == torch.float32:
            self.step = optimizer.cpu
        if path.compiled and path.device == "cpu":
            self._compile()
        self._log_measures()  # what they make once is made here; the first block overwrites it

    def _compile(self) -> None:
        """Compile at fixed sizes whatever the schedule, so that a resumed run gets the code it began with.

        The examples lie in memory as a block's do: where they lay otherwise, the first block compiled all once more.
        """
        pairs = self._pairs(torch.zeros(1, len(self.splits), 509, dtype=torch.int64))[0]
        compile_for(self._gradient, self.apart[0], pairs, torch.ones(len(self.tasks), 509))
        self._validate(self.flat)

    def step_by_rule(
        self, parameters: OfMembers, gradient: OfMembers, state: State, hyper: Float[Tensor, "K M 1"]
    ) -> None:
        """The optimizer's rule in place, with the update's `hyper`, which a graph reads at each replay."""
        rows = Hyper(*hyper.to(parameters.dtype).unbind())
        moved, new = self.rule(parameters, gradient, state, rows, self.layout)
        parameters.copy_(moved)
        for name, value in new.items():
            state[name].copy_(value)

    def _measure(self, parameters: Tensor | dict[str, Tensor], members: slice, pairs: Tensor, weight: Tensor) -> Tensor:
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
            measure = self.measure if compiled else loss_and_accuracy
            return measure(self.layout, parameters, x, y, label, weight, self.beyond[members], distinct, self.kernels)

    def _gradient(self, members: slice, pairs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """What `_measure` gives of some members for `pairs` [3, M, B], and their losses' gradient: [m, 2], [m, P]."""
        flat = self.flat[members].detach().requires_grad_()
        if len(self.apart) > 1:  # a copy, as compiled code would hold where in memory a slice begins
            weight = weight[members].clone()
        measured = self._measure(flat, members, pairs[:, members], weight)
        (gradient,) = torch.autograd.grad(measured, flat, self.of_loss[members])
        return measured.detach(), gradient

    def _update(self, pairs: Tensor, weight: Tensor, hyper: Tensor) -> None:
        """One update from `pairs` [3, M, B], each example weighing `weight` [M, B], with its `hyper` [K, M, 1]."""
        for members in self.apart:
            measured, gradient = self._gradient(members, pairs, weight)
            self.stack.each_update(gradient, members)
            state = {name: value[members] for name, value in self.state_of_rule.items()}
            self.step(self.flat[members], gradient, state, hyper[:, members])
            self.trained[members].add_(measured)  # `+=` would copy the slice onto itself

    def _batches(self) -> tuple[Tensor, Tensor]:
        """This block's examples, and their weights in the mean, of each split: int64 [10 or 1, splits, B], [splits, B].

        Examples are rows of `train`. Undrawn they are all of them, repeated up to the largest set with no weight.
        """
        if self.courses.drawn:
            size = int(self.courses.batch_size[self.block, 0])
            rows = torch.stack([draw_batches(t, self.block, size) for t in self.splits], dim=1)
            return rows, torch.full(rows.shape[1:], 1 / size)
        sizes, example = torch.tensor([[len(t.train)] for t in self.splits]), torch.arange(self.train.shape[1])
        return (example % sizes).unsqueeze(0), (example < sizes) / sizes

    def _pairs(self, rows: Tensor) -> Tensor:
        """The training pairs [10, 3, M, B] of every member, of `rows` [10 or 1, splits, B] of its split."""
        pairs = self.train[self.split_of.unsqueeze(1), rows[:, self.split_of]].movedim(-1, 1)
        return pairs.expand(BLOCK, -1, -1, -1)

    def _train_block(self, rows: Tensor, weight: Tensor, hyper: Tensor) -> None:
        """The ten updates of examples as `_batches` gives them, with their `hyper` float64 [10, K, M, 1]."""
        weight = weight[self.split_of]
        for pairs, row in zip(self._pairs(rows), hyper, strict=True):
            self._update(pairs, weight, row)

    def run_block(self) -> None:
        """Ten updates with this block's courses, then a validation; the log gets one more row."""
        self.trained.zero_()
        self.stack.start_block(int(self.courses.batch_size[self.block, 0]) if self.courses.drawn else None)
        hyper = hyper_table(self.courses, self.block, self.settings.warm_up)
        self._train_block(*self._batches(), torch.from_numpy(hyper))
        self.logs[self.block, :, :2] = self.trained / BLOCK
        self._log_measures()
        self._log_validation()
        self.block += 1

    def _log_validation(self) -> None:
        self.logs[self.block, :, 2:4] = self._validate(self.flat)

    @torch.no_grad()
    def _log_measures(self) -> None:
        found = [column for measure in self.asked for column in torch.atleast_2d(measure.of(self.stack))]
        for i, column in zip(range(4, self.logs.shape[2]), found, strict=True):
            self.logs[self.block, :, i] = column

    @torch.no_grad()
    def _validate(self, flat: Tensor) -> Tensor:
        """Loss and accuracy of members with parameters `flat` on their whole validation sets: float32 [M, 2]."""
        totals = torch.zeros_like(self.trained)
        for members, pairs, weight in self.validation:
            totals[members] += self._measure(flat[members], members, pairs, weight)
        return totals / self.pairs

    def logged(self) -> Float[Tensor, "logs M columns"]:
        """The logs so far, of four columns and those of the measures."""
        return self.logs[: self.block]

    def state(self) -> dict[str, Tensor]:
        """Everything that changes while training; with the constructor's arguments, all that a resumed run needs."""
        rows = {"parameters": self.flat} | self.state_of_rule
        count = sum(self.layout.sizes)  # without what a row is padded with
        return {name: value[:, :count] for name, value in rows.items()} | {"logs": self.logged()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`, as an uninterrupted run would; captured graphs hold the addresses, so all is copied."""
        self.block = len(state["logs"])
        for name, value in self.state().items():
            value.copy_(state[name])
