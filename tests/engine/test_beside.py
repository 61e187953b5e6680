"""Code for a CPU that is compiled before it is called."""

import pytest
import torch
from torch._inductor import cpp_builder

from grok_utils.engine.beside import compile_for
from grok_utils.engine.machine import has_compiler, set_up
from grok_utils.studies import ExecutionPath

pytestmark = pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler here")


@pytest.fixture
def graphs():
    """PyTorch's count of graphs, with its switches as a compiled run of a CPU has them."""
    set_up(ExecutionPath("cpu", "float32", compiled=True, threads=1))
    return torch._dynamo.utils.counters["stats"]


def test_what_is_compiled_ahead_is_not_carried_out_and_not_compiled_again(graphs):
    ended = []
    compiled = torch.compile(lambda x: (x * 3).sin() + 1)

    def f(x):
        y = compiled(x)
        ended.append(True)
        return y

    before, x = graphs["unique_graphs"], torch.arange(7.0)
    assert compile_for(f, x) is None
    assert (ended, graphs["unique_graphs"]) == ([], before + 1)
    assert torch.allclose(f(x), (x * 3).sin() + 1)
    assert (ended, graphs["unique_graphs"]) == ([True], before + 1)


def test_what_calls_nothing_compiled_is_carried_out():
    ended = []
    compile_for(ended.append, True)
    assert ended == [True]


def test_a_compiler_that_fails_is_told_of_when_its_code_is_called(graphs, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("g++ says no")

    monkeypatch.setattr(cpp_builder, "run_compile_cmd", fail)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # that of an earlier test run has it
    compiled, x = torch.compile(lambda x: (x * 5).cos()), torch.arange(5.0)
    compile_for(compiled, x)
    with pytest.raises(RuntimeError, match="g\\+\\+ says no"):
        compiled(x)
