"""The shapes that signatures state, checked at run time: in a process of its own, where nothing is compiled."""

import os
import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError, jaxtyped
from support.project import ROOT
from support.shapes import checked

from grok_utils.engine.stack import Layout, stacked_logits
from grok_utils.optimizers import adamw
from grok_utils.studies import Shape
from grok_utils.tasks import make_task

STATED = ["tasks", "schedules", "optimizers", "measures", "model", "studies"]
STATED += [f"engine.{name}" for name in ("stack", "products", "examples", "trainer", "logs", "machine")]
EAGER = [
    "tests/science/test_tasks.py",
    "tests/science/test_schedules.py",
    "tests/science/test_optimizers.py::test_in_float32_a_rule_and_the_fused_kernel_are_pytorchs_to_rounding",
    "tests/science/test_measures.py",
    "tests/engine/test_measures_at_logs.py::test_no_measure_changes_a_bit_of_what_else_is_recorded",
    "tests/science/test_model.py::test_stack_equals_plain_decoders_in_every_shape",
    "tests/science/test_studies.py",
    "tests/engine/test_products.py::test_products_and_gradients_are_those_in_float64",
    "tests/engine/test_products.py::test_the_operator_is_what_pytorch_asks_of_one",
    "tests/engine/test_products.py::test_one_by_one_a_members_bits_do_not_depend_on_its_neighbours",
    "tests/engine/test_machine.py::test_work_is_counted_in_forward_passes",
    "tests/engine/test_early_end.py::test_a_run_ends_once_every_member_has_kept_99_percent_or_has_diverged",
    "tests/engine/test_trainer.py::test_a_member_whose_loss_is_not_finite_is_diverged_and_the_others_go_on",
    "tests/engine/test_trainer.py::test_going_on_from_a_state_is_bit_identical",
]


def test_shapes_are_as_the_signatures_state_them():
    modules = ",".join(f"grok_utils.{name}" for name in STATED)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--jaxtyping-packages={modules},support.checked", "-k", "not has_an_oracle", *EAGER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout[-3000:]


def test_another_shape_is_refused():
    layout = Layout([make_task("x_plus_y", 0, 5)], Shape(8, 2, 1))
    flat, x, wrong = torch.zeros(2, sum(layout.sizes)), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 3)
    logits = jaxtyped(stacked_logits, typechecker=checked)
    assert logits(layout, flat, x, x, True).shape == (2, 3, 5)
    for bad in ((flat[0], x, x), (flat, x[:1], x), (flat, x, x[:, :2]), (flat, x, x.float())):
        with pytest.raises(TypeCheckError):
            logits(layout, *bad, True)
    with pytest.raises(TypeCheckError):
        jaxtyped(adamw, typechecker=checked)(flat, wrong, {}, None, None)
