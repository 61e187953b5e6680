"""A stack compiled for a CPU, in shapes that no GPU compiles, against plain decoders in float64."""

import numpy as np
import pytest
import torch
from support.courses import courses_of
from support.models import measured, moved, relative

from grok_utils.engine.examples import draw_batches
from grok_utils.engine.machine import has_compiler
from grok_utils.engine.trainer import Trainer
from grok_utils.model import initial_decoder
from grok_utils.studies import ExecutionPath, Settings
from grok_utils.tasks import make_task

COMPILED = ExecutionPath("cpu", "float32", compiled=True, threads=1)


@pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler here")
@pytest.mark.parametrize(("width", "heads", "blocks"), [(96, 3, 1), (24, 24, 3)])  # at first half a minute each
def test_losses_and_gradients_equal_the_plain_decoders(width, heads, blocks):
    # At a rate of 0 the parameters stay, so a block's ten gradients have the mean that all its examples have at once.
    settings, size = Settings(width=width, heads=heads, blocks=blocks), 37
    tasks = [make_task("x_plus_y", 0), make_task("permutation", 1)]
    stats = torch._dynamo.utils.counters["stats"]
    graphs = stats["unique_graphs"]
    trainer = Trainer(tasks, courses_of([size], 2, rate=0.0), COMPILED, settings, measures=("gradient_noise",))
    decoders = [moved(initial_decoder(task, settings.shape), task.seed) for task in tasks]
    trainer.flat.copy_(trainer.layout.pack(decoders))
    trainer.run_block()
    assert stats["unique_graphs"] == graphs + 2  # an update's and a validation's: nothing ran otherwise
    gradients = trainer.layout.views(trainer.stack.gradient_sum / 10)
    for i, (task, decoder) in enumerate(zip(tasks, decoders, strict=True)):
        decoder.double()
        loss, accuracy = measured(decoder, task.train[draw_batches(task, 0, size).flatten()])
        loss.backward()
        with torch.no_grad():
            expected = [loss.item(), accuracy.item(), *(m.item() for m in measured(decoder, task.validation))]
        np.testing.assert_allclose(trainer.logged()[0, i, :4], expected, rtol=5e-6)
        for name, p in decoder.named_parameters():
            assert relative(gradients[name][i][: len(p)].double(), p.grad) < 5e-6, name
