"""Run parameters: what is allowed makes a run, anything else is told in one line before any work is done."""

import dataclasses
import re
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.inputs import PARAMETERS, message, values
from support.studies import small, write_study

from grok_utils.engine.machine import stack_size
from grok_utils.errors import BadInput
from grok_utils.pipeline.parameters import make_run, on_this_machine, run_from_parameters

BAD_PARAMETERS = [
    ("schedule", "exponential", "schedule: 'exponential' is not an arm of study tiny (baseline, linear)"),
    ("schedule", ["linear"], "schedule: ['linear'] is not an arm"),
    ("device", "gpu", "device: 'gpu' is not one of auto, cpu, cuda"),
    ("device", ["cpu"], "device: ['cpu'] is not one of"),
    ("precision", "fp8", "precision: 'fp8' is not one of float32, "),
    ("seeds", [], "seeds: [] is not a non-empty list"),
    ("seeds", "all", "seeds: 'all' is not a non-empty list"),
    ("seeds", [1, 1], "seeds: [1, 1] is not free of repetitions"),
    ("threads", 0, "threads: 0 is not a whole number from 1"),
    ("threads", "2", "threads: '2' is not"),
    ("results", 3, "results: 3 is not the path of a folder"),
    ("results", "", "results: '' is not the path of a folder"),
    ("results", "a\0b", "results: 'a\\x00b' is not the path of a folder"),
    ("study", None, "study: None is not a study's name"),
    ("lerning_rate", 0.1, "parameter: 'lerning_rate' is not known (allowed: study, schedule, seeds, results, device"),
]


@pytest.mark.parametrize(("name", "value", "said"), BAD_PARAMETERS)
def test_a_parameter_that_is_not_allowed_is_named(tmp_path, name, value, said):
    namespace = PARAMETERS | {"study": write_study(tmp_path)} | {name: value}
    assert message(run_from_parameters, namespace).startswith(said)


@pytest.mark.parametrize("name", ["study", "schedule", "seeds"])
def test_a_parameter_without_default_that_is_missing_is_named(tmp_path, name):
    namespace = PARAMETERS | {"study": write_study(tmp_path)}
    del namespace[name]
    assert message(run_from_parameters, namespace) == f"parameter: '{name}' is not given"


def test_cuda_where_there_is_none_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = make_run(write_study(tmp_path), "linear", [0], device="cuda")
    text = message(on_this_machine, run)
    assert text == "device: 'cuda' is not available here, PyTorch sees no CUDA GPU (allowed: auto, cpu)"


def test_a_run_that_a_notebook_makes_itself_is_checked_too(tmp_path):
    run = dataclasses.replace(make_run(write_study(tmp_path), "linear", [0]), device="gpu")
    text = message(on_this_machine, run)
    assert text == "device: 'gpu' is not one of auto, cpu, cuda"


def test_tf32_without_a_gpu_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    expected = "precision: 'tf32' is not available on a CPU (allowed: float32, bf16)"
    run = make_run(write_study(tmp_path), "linear", [0], precision="tf32")
    assert message(on_this_machine, run) == expected
    assert message(make_run, write_study(tmp_path), "linear", [0], device="cpu", precision="tf32") == expected


def of_size(folder, size, seeds=1, **changes):
    """A run of `seeds` seeds of two operations on a constant batch size."""
    study = write_study(folder, arms=small("baseline", hi=size), **changes)
    return make_run(study, "baseline", list(range(seeds)), device="cpu")


def test_a_run_that_cannot_fit_into_memory_is_told_with_what_it_needs_and_how_many_fit(tmp_path):
    text = message(on_this_machine, of_size(tmp_path, 10**9))
    start = r"seeds: a stack of 2 members needs some 75,9\d\d\.\d GiB of memory, more than the [\d,.]+ here, "
    end = r"which hold about 0: take smaller batches, fewer cells or operations, or fewer runs at a time \(-j\)"
    assert re.fullmatch(start + end, text)
    grid = {"learning_rate": [i / 1000 for i in range(1000)]}
    for run in (of_size(tmp_path, 10**6, 1000), of_size(tmp_path, 10**6, grid=grid)):
        assert message(on_this_machine, run).startswith("seeds: a stack of 2000 members needs some ")
    assert on_this_machine(of_size(tmp_path, 4096))


def test_as_many_members_fit_as_are_said_to(tmp_path, monkeypatch):
    members, each = stack_size(of_size(tmp_path, 4096, 3))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=members * each + 1))
    assert members == 6 and on_this_machine(of_size(tmp_path, 4096, 3))
    text = message(on_this_machine, of_size(tmp_path, 4096, 4))
    assert text.startswith("seeds: a stack of 8 members needs some ")
    assert ", which hold about 6: take SEEDS_PER_RUN=3, fewer cells or operations" in text


def test_the_parameters_cell_can_be_run_again_in_a_notebook_that_has_gone_on(tmp_path):
    namespace = PARAMETERS | {"study": write_study(tmp_path), "_": 1, "In": [], "run_from_parameters": None}
    first = run_from_parameters(namespace)
    namespace |= {"run": first, "alt": "text", "schedule": "baseline"}
    assert run_from_parameters(namespace).arm.name == "baseline"


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["schedule", "seeds", "device", "threads", "precision", "results"]), values))
def test_any_parameters_make_a_run_or_are_refused_in_one_line(tmp_path_factory, changes):
    namespace = PARAMETERS | {"study": write_study(tmp_path_factory.getbasetemp())} | changes
    try:
        run_from_parameters(namespace)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
