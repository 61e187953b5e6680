"""Which examples a stack sees.

Nothing random is left to chance: weights, split and batches are functions of (operation, seed) and of the block, so the
same seed means the same start, split and stream of examples under every arm and cell, and beside any neighbours.
"""

import math
from itertools import groupby

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from grok_utils.schedules import BLOCK
from grok_utils.tasks import Task, stream

# Pairs validated at once on a CPU: 4,705 took 44 ms in chunks of up to 600, 39 in those of 1,200 and 37 in these.
CPU_CHUNK = 2400


def draw_batches(task: Task, block: int, batch_size: int) -> Int64[Tensor, "10 {batch_size}"]:
    """The examples of the 10 updates of `block`, uniform with replacement: rows of `task.train`.

    Example i of an update is the same pair whatever the batch size, so arms share their stream as far as it goes.
    """
    generator = stream("batches", task.operation, task.seed, counter=block)
    return torch.from_numpy(generator.integers(len(task.train), size=(batch_size, BLOCK)).T)


def validation_chunks(
    tasks: list[Task], device: str
) -> list[tuple[slice, Int64[Tensor, "3 _ _"], Float[Tensor, "..."]]]:
    """Every validation pair once, as (members, pairs, their weight): what pads a set weighs zero.

    On a CPU a member and CPU_CHUNK pairs at a time; on a GPU all pairs of the neighbours with equally many elements.
    """
    chunks, start = [], 0
    if device == "cpu":
        for i, task in enumerate(tasks):
            for chunk in task.validation.T.contiguous().chunk(math.ceil(len(task.validation) / CPU_CHUNK), dim=1):
                chunks.append((slice(i, i + 1), chunk.unsqueeze(1), torch.ones(())))
        return chunks
    for _, group in groupby(tasks, key=lambda t: t.elements):
        sets = [t.validation for t in group]
        pairs = pad_sequence(sets).permute(2, 1, 0).contiguous().to(device)
        weight = pad_sequence([torch.ones(len(s)) for s in sets], batch_first=True).to(device)
        chunks.append((slice(start, start + len(sets)), pairs, weight))
        start += len(sets)
    return chunks
