"""Code for a CPU that is compiled before it is called."""

import pytest
import torch
from torch._inductor import cpp_builder

from grok_utils.engine.beside import compile_for
from grok_utils.engine.machine import has_compiler, set_up
from grok_utils.studies import ExecutionPath

pytestmark = pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler here")


@pytest.fixture
def graphs(monkeypatch, tmp_path):
    """PyTorch's count of graphs, with its switches as a compiled run's, on one core, with nothing compiled before."""
    set_up(ExecutionPath("cpu", "float32", compiled=True, threads=1))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with torch._inductor.config.patch(compile_threads=1):
        yield torch._dynamo.utils.counters["stats"]


def test_what_is_compiled_ahead_is_not_carried_out_and_not_compiled_again(graphs, monkeypatch):
    ended, commands = [], []
    compiled, run = torch.compile(lambda x: (x * 3).sin() + 1), cpp_builder.run_compile_cmd
    monkeypatch.setattr(cpp_builder, "run_compile_cmd", lambda *a, **k: (commands.append(a[0]), run(*a, **k))[1])

    def f(x):
        (gradient,) = torch.autograd.grad(compiled(x).sum(), x)
        ended.append(True)
        return gradient

    before, x = graphs["unique_graphs"], torch.arange(7.0, requires_grad=True)
    assert compile_for(f, x) is None
    assert (ended, graphs["unique_graphs"]) == ([], before + 1)
    assert torch.allclose(f(x), 3 * (x * 3).cos())
    assert (ended, graphs["unique_graphs"]) == ([True], before + 1)
    assert sum(".main.cpp " in command for command in commands) == 2  # there and back, once each


def test_what_calls_nothing_compiled_is_carried_out():
    ended = []
    compile_for(ended.append, True)
    assert ended == [True]


def test_a_compiler_that_fails_is_told_of_when_its_code_is_called_and_then_asked_again(graphs, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("g++ says no")

    compiled, x = torch.compile(lambda x: (x * 5).cos()), torch.arange(5.0)
    with monkeypatch.context() as broken:
        broken.setattr(cpp_builder, "run_compile_cmd", fail)
        compile_for(compiled, x)
        with pytest.raises(RuntimeError, match="g\\+\\+ says no"):
            compiled(x)
    assert torch.allclose(compiled(x), (x * 5).cos())
