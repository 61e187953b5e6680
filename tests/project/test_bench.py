"""The bench's count of operations against PyTorch's own, and its reference loop."""

import math
import random

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cpu import Examples, UsualLoop, forward_flops
from grok_utils.engine.stack import Layout, stacked_logits
from grok_utils.model import initial_decoder
from grok_utils.pipeline.study_files import load_study
from grok_utils.tasks import make_task


@pytest.mark.parametrize("batch", [32, 97, 98, 512])
def test_flops_equal_pytorchs_count(batch):
    task = make_task("x_plus_y", 0)
    layout = Layout([task])
    x, y, _ = task.train[:batch].T.unsqueeze(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        stacked_logits(layout.views(layout.pack([initial_decoder(task)])), x, y, distinct=batch > task.elements)
    assert counter.get_total_flops() == forward_flops(batch, task.elements)


def test_usual_loop_learns():
    random.seed(0)  # the loop draws its examples from it
    task = make_task("x_plus_y", 0, modulus=7, train_fraction=0.8)
    loop = UsualLoop(task, load_study("quick"))
    losses = [loop.run_block(32)[0] for _ in range(6)]
    assert all(map(math.isfinite, losses)) and losses[-1] < 0.75 * losses[0]


def test_usual_examples_are_the_tasks_own():
    task = make_task("permutation", 0)
    rows = set(map(tuple, task.train.tolist()))
    for (tokens, result), _ in zip(Examples(task.train), range(100), strict=False):
        x, operator, y, equals = tokens.tolist()
        assert (operator, equals) == (0, 1) and (x - 2, y - 2, result.item()) in rows
