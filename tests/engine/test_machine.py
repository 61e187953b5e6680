"""Which path a run takes, its work, and what fits into memory."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from support.studies import run_of

from grok_utils.engine import machine
from grok_utils.engine.machine import choose_path, does_not_fit, member_bytes, runs_that_fit
from grok_utils.engine.stack import Layout, stacked_logits
from grok_utils.errors import BadInput
from grok_utils.model import initial_decoder
from grok_utils.store.files import ROOT
from grok_utils.studies import PROTOCOL, ExecutionPath, Shape
from grok_utils.tasks import make_task

EAGER = ExecutionPath("cpu", "float32", compiled=False, threads=1)
ON_A_GPU = ExecutionPath("cuda", "float32", compiled=True, threads=1)


def test_a_run_is_compiled_where_a_compiler_exists_and_the_work_repays_it(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert not choose_path(run).compiled
    monkeypatch.setattr(machine, "COMPILE_FROM", machine.forward_passes(run))
    assert choose_path(run).compiled
    monkeypatch.setattr(machine, "COMPILE_FROM", machine.forward_passes(run) + 1)
    assert not choose_path(run).compiled
    monkeypatch.setattr(machine, "COMPILE_FROM", 0)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    assert choose_path(run) == EAGER  # PyTorch compiles by g++ alone, or by what CXX names
    monkeypatch.setenv("CXX", "gcc")
    assert choose_path(run).compiled


@pytest.mark.parametrize(("shape", "compiled"), [({}, True), ({"width": 60, "heads": 5}, False), ({"heads": 1}, True)])
def test_on_a_gpu_models_are_compiled_where_attention_has_kernels(tmp_path, monkeypatch, shape, compiled):
    monkeypatch.setattr(machine, "COMPILE_FROM", 0)
    monkeypatch.setattr(machine, "has_compiler", lambda device: True)
    run = run_of(tmp_path, **{"width": 128, "heads": 4} | shape)
    assert choose_path(run).compiled
    monkeypatch.setattr(machine, "on_cuda", lambda device: True)
    assert choose_path(run).compiled == compiled


def test_what_was_compiled_with_other_operators_of_ours_is_not_taken_from_a_cache(monkeypatch):
    tags, read = [], Path.read_bytes
    for edit in (b"", b"", b"# edited"):
        monkeypatch.setattr(Path, "read_bytes", lambda path, edit=edit: read(path) + edit)
        with torch._inductor.config.patch({"cpp.vec_isa_ok": None}):
            machine.set_up(ExecutionPath("cpu", "float32", compiled=True, threads=1))
        tags.append(torch.compiler.config.cache_key_tag)
    assert tags[0] == tags[1] != tags[2]


@pytest.mark.parametrize(("fails", "capability"), [(0, "AVX512"), (1, "AVX512"), (0, "AVX2")])
def test_avx512_needs_pytorch_and_the_compiler(tmp_path, monkeypatch, fails, capability):
    compiler = tmp_path / "g++"
    compiler.write_text(f"#!/bin/sh\nexit {fails}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert machine.has_avx512() == (not fails and capability == "AVX512")


@pytest.mark.skipif(not machine.has_avx512(), reason="needs a CPU with AVX-512 and a compiler that knows it")
def test_pytorch_would_choose_the_same_instructions_by_trying():
    from torch._inductor import cpu_vec_isa

    def found():
        for kind in (cpu_vec_isa.VecAVX512, cpu_vec_isa.VecAVX512VNNI, cpu_vec_isa.VecAMX):
            kind.__bool__.cache_clear()
        return cpu_vec_isa.valid_vec_isa_list.__wrapped__()

    with torch._inductor.config.patch({"cpp.vec_isa_ok": None}):
        tried = found()
        assert "avx512" in str(tried[0])
        machine.set_up(ExecutionPath("cpu", "float32", compiled=True, threads=1))
        assert torch._inductor.config.cpp.vec_isa_ok
        assert found() == tried


def test_work_is_counted_in_forward_passes(tmp_path):
    # baseline: 6 blocks of 10 updates at 16 count three each; 6 validations of ceil(121 / 2) pairs; 2 operations
    assert machine.forward_passes(run_of(tmp_path, "baseline")) == 2 * (3 * 6 * 10 * 16 + 6 * 61)
    # four blocks instead of two, of a quarter of the numbers
    assert machine.forward_passes(run_of(tmp_path, "baseline", width=64, blocks=4)) == (3 * 6 * 10 * 16 + 6 * 61)


def test_members_take_at_least_the_peak_that_was_measured_and_no_more_than_twice_that():
    measured = pd.read_csv(ROOT / "results" / "bench" / "cuda-members.csv")
    each = member_bytes(512, 97, ON_A_GPU)
    for members, peak in zip(measured["members"], measured["peak_gib"] * 2**30, strict=True):
        assert peak < members * each < 2 * peak or members < 60  # a small stack takes once what is no member's


def test_members_take_more_with_larger_batches_and_more_elements():
    small = member_bytes(32, 97, EAGER)
    assert small < member_bytes(512, 97, EAGER) < member_bytes(512, 1999, EAGER)
    assert member_bytes(512, 97, replace(ON_A_GPU, precision="bf16")) < member_bytes(512, 97, ON_A_GPU)


def test_the_check_of_memory_follows_the_shape(tmp_path):
    sizes = [machine.stack_size(run_of(tmp_path, **shape))[1] for shape in ({}, {"width": 256}, {"blocks": 4})]
    assert sizes[0] < min(sizes[1:])
    many = run_of(tmp_path, seeds=range(60), width=1024, batch_size=10**6)
    with pytest.raises(BadInput, match="seeds: a stack of 120 members needs"):
        machine.require_fit(many)


@pytest.mark.parametrize("shape", [PROTOCOL.shape, Shape(128, 4, 1), Shape(64, 2, 3), Shape(256, 16, 4)], ids=str)
def test_what_an_update_keeps_of_an_example_is_what_is_reckoned_with(shape):
    layout, saved = Layout([make_task("x_plus_y", 0)], shape), []
    flat = torch.zeros(1, sum(layout.sizes), requires_grad=True)

    def kept(batch):
        saved.clear()
        x, y = torch.zeros(2, 1, batch, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            stacked_logits(layout, flat, x, y, distinct=True).logsumexp(-1)
        return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in saved)}.values())

    reckoned = member_bytes(300, 97, EAGER, shape) - member_bytes(100, 97, EAGER, shape)
    assert kept(300) - kept(100) < reckoned < 2.5 * (kept(300) - kept(100))


@pytest.mark.parametrize("shape", [Shape(8, 2, 1), Shape(60, 5, 3)])
def test_the_parameters_that_are_reckoned_with_are_those_of_the_decoder(shape):
    decoder = initial_decoder(make_task("x_plus_y", 0, 11), shape)
    assert machine.parameters_of(11, shape) == sum(p.numel() for p in decoder.parameters())


@pytest.mark.parametrize(
    ("members", "seeds", "fit", "advice"),
    [
        (120, 60, 50, "take SEEDS_PER_RUN=25"),
        (120, 1, 50, "take smaller batches"),
        (120, 3, 39, "take smaller batches"),
    ],
)
def test_a_stack_that_does_not_fit_is_told_how_many_members_do(members, seeds, fit, advice):
    text = str(does_not_fit(members, seeds, 2**28, fit * 2**28))
    assert text.startswith(
        f"seeds: a stack of {members} members needs some {members / 4:.1f} GiB of memory, more than "
    )
    assert f"which hold about {fit}: {advice}, fewer cells or operations" in text
    assert len(text.splitlines()) == 1


def test_as_many_runs_fit_as_the_free_memory_holds(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (80 * 2**30, 80 * 2**30))
    monkeypatch.setattr(machine, "stack_size", lambda members: (members, member_bytes(512, 97, ON_A_GPU)))
    assert 30 < runs_that_fit([12]) < 53
    assert runs_that_fit([12, 960]) == 1  # whichever of them go on at a time
    assert runs_that_fit([10_000]) == 1
