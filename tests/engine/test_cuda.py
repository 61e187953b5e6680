"""The engine on a GPU. Skipped where there is none; `make test` on a GPU machine runs them."""

import gc
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.courses import courses_of, varied
from support.models import SHAPES, relative, sequence
from support.oracle import LAYOUT, ORACLES, trajectories

from grok_utils.engine import stack
from grok_utils.engine.machine import has_kernels, set_up
from grok_utils.engine.stack import PLAIN, Kernels, Layout, linear, stacked_logits
from grok_utils.engine.trainer import Trainer
from grok_utils.errors import BadInput
from grok_utils.measures import MEASURES
from grok_utils.model import initial_decoder
from grok_utils.optimizers import OPTIMIZERS
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.study_files import make_study
from grok_utils.schedules import BLOCK
from grok_utils.studies import PROTOCOL, ExecutionPath, Settings, Shape
from grok_utils.tasks import make_task

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and PyTorch sees none"),
]
SIZES = [32, 45, 512, 33, 64, 300, 31, 97]
ALL = tuple(MEASURES)
EAGER = ExecutionPath("cpu", "float32", compiled=False, threads=1)


@pytest.fixture(params=["eager", "compiled"])
def path(request):
    return ExecutionPath("cuda", "float32", request.param == "compiled", threads=1)


def tasks(seeds=(0, 1), operations=("x_plus_y", "permutation")):
    return [make_task(operation, seed) for operation in operations for seed in seeds]


@pytest.fixture(params=OPTIMIZERS)
def settings(request):
    return Settings(optimizer=request.param)


def trainer(path, members=None, courses=None, settings=PROTOCOL, measures=()):
    from grok_utils.engine.cuda import GraphedTrainer

    members = members or tasks()
    return GraphedTrainer(members, courses or courses_of(SIZES, len(members)), path, settings, measures)


def trained(it, blocks=None):
    for _ in range(blocks or it.blocks):
        it.run_block()
    return it.logged().cpu()


@pytest.fixture
def kernels():
    from grok_utils.engine.gpu import attention, block, loss, products

    of_attention = attention.first_attention, attention.last_attention
    return Kernels(*of_attention, products.linear, block.rest_of_block, loss.measured)


def compare_with_plain_models(logits_of, shape=PROTOCOL.shape):
    """Hold logits `logits_of(layout, flat, x, y)` and their gradients against the plain decoders' in float64."""
    torch.set_float32_matmul_precision("highest")
    members = tasks()
    decoders = [initial_decoder(t, shape) for t in members]
    layout = Layout(members, shape)
    flat = layout.pack(decoders).cuda().requires_grad_()
    x, y, label = torch.stack([t.train[:256] for t in members]).permute(2, 0, 1).cuda()
    logits = logits_of(layout, flat, x, y)
    losses = [
        F.cross_entropy(row[:, : t.elements], target) for row, t, target in zip(logits, members, label, strict=True)
    ]
    sum(losses).backward()
    gradients = layout.views(flat.grad.cpu())
    for i, (task, decoder) in enumerate(zip(members, decoders, strict=True)):
        decoder.double()
        expected = decoder(sequence(x[i].cpu(), y[i].cpu()))
        F.cross_entropy(expected, label[i].cpu()).backward()
        assert relative(logits[i, :, : task.elements].detach().cpu().double(), expected.detach()) < 1e-4
        for name, p in decoder.named_parameters():
            own, expected = gradients[name][i][: len(p)].double(), p.grad
            # A key bias shifts all scores of a query alike: its gradient is zero, and rounding is all that is left.
            if name.endswith("in_proj_bias"):
                own, expected = (torch.cat([q, v]) for q, _, v in (own.chunk(3), expected.chunk(3)))
            assert relative(own, expected) < 1e-4, name


@pytest.mark.parametrize("rows", ["examples", "elements", "kernels"])
def test_logits_and_gradients_equal_the_plain_models(rows, kernels):
    used = kernels if rows == "kernels" else PLAIN
    compare_with_plain_models(lambda *inputs: stacked_logits(*inputs, rows != "examples", used))


@pytest.mark.parametrize("shape", [PROTOCOL.shape, *SHAPES], ids=str)
def test_logits_and_gradients_equal_the_plain_models_in_every_shape_as_a_run_computes_it(shape, kernels):
    path = ExecutionPath("cuda", "float32", compiled=True, threads=1)
    set_up(path)
    compiled = has_kernels(path, shape)
    logits, used = (torch.compile(stacked_logits), kernels) if compiled else (stacked_logits, PLAIN)
    compare_with_plain_models(lambda *inputs: logits(*inputs, True, used), shape)


@pytest.mark.parametrize("examples", [1, 37, 600])  # 600: more than a program looks through at once
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "heads"), [(128, 4), (32, 8), (64, 1), (256, 2), (16, 16)])
def test_attention_kernels_equal_the_plain_functions_in_float64(kernels, width, heads, examples, dtype):
    generator = torch.Generator("cuda").manual_seed(examples)
    members, n = 3, 11

    def drawn(*shape):
        return torch.randn(members, *shape, generator=generator, device="cuda").to(dtype).requires_grad_()

    def results(f, inputs, indices, seeds):
        out = f(*inputs, *indices, heads)
        out = (out,) if isinstance(out, torch.Tensor) else out
        return *out, *torch.autograd.grad([(t * g).sum() for t, g in zip(out, seeds, strict=True)], inputs)

    def compare(kernel, plain, inputs, indices, *shapes):
        seeds = [drawn(*shape).detach() for shape in shapes]
        own = results(kernel, inputs, indices, seeds)
        doubles = [t.detach().double().requires_grad_() for t in inputs]
        for a, b in zip(own, results(plain, doubles, indices, seeds), strict=True):
            assert relative(a.double(), b) < (3e-6 if dtype == torch.float32 else 5e-3)

    x, y = torch.randint(n, (2, members, examples), generator=generator, device="cuda")
    rows, inputs = (2 * n + 2 * examples, width), [drawn(2 * n + 2, width), drawn(2 * n + 2, 3 * width)]
    compare(kernels[0], PLAIN[0], inputs, [x, y], rows, rows)
    inputs = [drawn(examples, width), drawn(2 * n + 2 * examples, 2 * width), drawn(3 * width)]
    compare(kernels[1], PLAIN[1], inputs, [x], (examples, width))


@pytest.mark.parametrize(("rows", "keep", "final"), [(1, 1, False), (37, 20, True), (600, 600, False), (1218, 0, True)])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-6), ("tf32", 2e-3), ("bf16", 2e-2)])
@pytest.mark.parametrize("width", [16, 128, 256])
def test_the_rest_of_a_block_equals_pytorchs_in_float64(width, precision, tolerance, rows, keep, final):
    """Its results, with a final LayerNorm and without, also where no gradient follows, and all gradients."""
    from grok_utils.engine.gpu.block import rest_of_block

    set_up(ExecutionPath("cuda", precision, compiled=False, threads=1))
    layout = Layout(tasks(), Shape(width, heads=2, blocks=1))
    generator = torch.Generator("cuda").manual_seed(rows)
    flat, x, attention, of_out, of_low = (
        torch.randn(4, *shape, generator=generator, device="cuda")
        for shape in [(sum(layout.sizes),), (rows, width), (rows, width), (keep, width), (rows, width)]
    )

    def layers(flat):
        p = layout.views(flat / width**0.5)
        return stack.layers_of(p, 0) + [(p["norm.weight"], p["norm.bias"])] * final

    def results(f, *inputs):
        flat, *rows = inputs = [t.detach().requires_grad_() for t in inputs]
        out, low = f(layers(flat), *rows, keep, linear)
        seeds = of_out.to(out.dtype), of_low.to(low.dtype)
        return out, low, *torch.autograd.grad((out, low), inputs, seeds)

    exact = results(stack.rest_of_block, flat.double(), x.double(), attention.double())
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
        own = results(rest_of_block, flat, x, attention)
        with torch.no_grad():
            own = *rest_of_block(layers(flat), x, attention, keep, linear), *own
    for mine, expected in zip(own, (*exact[:2], *exact), strict=True):
        assert mine.shape == expected.shape
        assert not mine.numel() or relative(mine.double(), expected) < tolerance


def test_gelu_is_as_near_to_float64_as_pytorchs():
    from grok_utils.engine.gpu.block import gelu_forward

    z = torch.linspace(-15, 15, 512 * 4000, device="cuda").view(1, 4000, 512)
    own, exact = torch.empty_like(z), F.gelu(z.double())
    gelu_forward[(1000, 1)](z, torch.zeros(1, 512, device="cuda"), own, 4000, 512, 512, 4)
    error, of_pytorch = (((y - exact) / (1 + z.abs())).abs().max() for y in (own, F.gelu(z)))
    assert error < 1.5e-7
    assert error < 3 * of_pytorch


@pytest.mark.parametrize("examples", [1, 37, 600])
@pytest.mark.parametrize("classes", [97, 120, 1999])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_loss_and_its_gradients_equal_pytorchs_in_float64(kernels, dtype, tolerance, classes, examples):
    generator = torch.Generator("cuda").manual_seed(examples)
    draw = lambda *shape: torch.randn(*shape, generator=generator, device="cuda")  # noqa: E731
    products, offset, weight = (3 * draw(3, examples, classes)).to(dtype), draw(3, 1, classes), draw(3, examples).abs()
    offset[1, :, classes - 9 :] = -torch.inf  # a smaller task's
    weight[:, examples // 2 + 1 :] = 0
    label = torch.randint(classes - 9, (3, examples), generator=generator, device="cuda")
    seeds = draw(3, 2)

    def results(f, *inputs):
        inputs = [t.detach().requires_grad_() for t in inputs]
        sums = f(*inputs, label, weight.to(inputs[1].dtype))
        return sums, *torch.autograd.grad(sums, inputs, seeds.to(sums.dtype))

    exact = results(stack.measured, products.double(), offset.double())
    for mine, expected in zip(results(kernels.measured, products, offset), exact, strict=True):
        assert relative(mine.double(), expected) < tolerance


@pytest.mark.parametrize("rows", [1, 37, 600, 15_000])  # 15,000: what all training pairs of permutation make
@pytest.mark.parametrize(("width", "out"), [(16, 97), (128, 512), (512, 128), (97, 130)])
def test_products_are_as_near_to_float64_as_cublas(rows, width, out):
    """Of numbers of all sizes, in weights that lie among others as a member's do, and for both gradients."""
    from grok_utils.engine.gpu.products import linear

    torch.set_float32_matmul_precision("highest")
    generator = torch.Generator("cuda").manual_seed(rows)

    def drawn(*shape):
        size = torch.randint(-30, 30, shape, generator=generator, device="cuda")
        return torch.ldexp(torch.randn(shape, generator=generator, device="cuda"), size)

    for beside in (0, 8, 3):  # numbers between two members' weights: an alignment to 8, and to none
        x, flat, seed = drawn(3, rows, width), drawn(3, out * width + beside), drawn(3, rows, out)
        weight = flat[:, : out * width].unflatten(1, (out, width))
        inputs = x.requires_grad_(), weight.requires_grad_()
        doubles = [t.detach().double().requires_grad_() for t in inputs]

        def results(multiply, inputs, seed=seed):
            y = multiply(*inputs)
            return y, *torch.autograd.grad(y, inputs, seed.to(y.dtype))

        def plain(x, weight):
            return torch.bmm(x, weight.mT)

        exact = results(plain, doubles)
        own, cublas = results(lambda *t: linear(*t, None), inputs), results(plain, inputs)
        for mine, theirs, expected in zip(own, cublas, exact, strict=True):
            assert relative(mine.double(), expected) < max(relative(theirs.double(), expected), 5e-7)


def test_what_is_not_finite_stays_so_in_products():
    from grok_utils.engine.gpu.products import linear

    x, weight = torch.ones(2, 40, 64, device="cuda"), torch.ones(2, 70, 64, device="cuda")
    x[0, 1, 2], x[0, 3, 4], x[1, 5, 6] = torch.nan, torch.inf, 3e38
    weight[1, :, 6] = 3e38
    assert torch.equal(linear(x, weight, None).isfinite(), torch.bmm(x, weight.mT).isfinite())


def test_every_block_trains_at_its_own_batch_size(path):
    """Graphs are captured at rounded-up sizes; the plain loop, uncaptured and at the exact sizes, must log the same."""
    graphed = trained(trainer(path))
    cpu = trained(Trainer(tasks(), courses_of(SIZES, 4), EAGER))
    assert graphed.isfinite().all()
    assert torch.allclose(graphed[:3, :, [0, 2]], cpu[:3, :, [0, 2]], rtol=2e-3)
    # Accuracy over a block is a whole number of examples out of 10 · batch size.
    hits = graphed[:, :, 1] * torch.tensor(SIZES)[:, None] * BLOCK
    assert torch.allclose(hits, hits.round(), atol=0.02)


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("compiled", [False, True])
def test_in_a_replayed_graph_a_rule_is_pytorchs_optimizer_to_rounding(compiled, name):
    """Rates, decays and betas differ by member and change from block to block, in one graph."""
    from grok_utils.engine.cuda import captured

    torch.set_float32_matmul_precision("highest")
    holder = SimpleNamespace(rule=OPTIMIZERS[name].rule, layout=LAYOUT)
    step = lambda *arguments: Trainer.step_by_rule(holder, *arguments)  # noqa: E731
    step = torch.compile(step) if compiled else step
    graph, static = None, []

    def replayed(parameters, gradient, state, hyper):
        nonlocal graph
        if graph is None:
            static.extend([gradient.clone(), hyper.to("cuda", torch.float32)])
            start = parameters.clone()
            graph = captured(lambda: step(parameters, static[0], state, static[1]), torch.cuda.Stream(), None)
            parameters.copy_(start)
            for value in state.values():
                value.zero_()
        static[0].copy_(gradient)
        static[1].copy_(hyper)
        graph.replay()

    own, expected = trajectories(replayed, torch.float32, "cuda", name)
    assert (own - expected).abs().max() < 5e-6


def test_an_earlier_graph_is_not_destroyed_during_a_capture():
    from grok_utils.engine.cuda import captured

    x, calls = torch.zeros(3, device="cuda"), []
    earlier = [captured(lambda: x.add_(1), torch.cuda.Stream(), None)]

    def work():
        calls.append(x.mul_(2))
        if len(calls) == 3:  # the one that is captured
            holder = SimpleNamespace(graph=earlier.pop())
            holder.itself = holder  # which only a collection ends
            del holder
            garbage = [[] for _ in range(10_000)]  # in the midst of which Python would collect
            assert len(garbage) == 10_000 and not gc.isenabled()
            x.add_(1)

    graph = captured(work, torch.cuda.Stream(), None)
    assert gc.isenabled()
    x.fill_(1)
    graph.replay()
    assert x.tolist() == [3] * 3


@pytest.mark.parametrize("low", [False, True])
def test_the_kernel_of_adamw_is_pytorchs_to_rounding(low):
    """From gradients of which some lie in a larger tensor, as a block's vectors do."""
    from grok_utils.engine.gpu import adamw

    def step(parameters, gradient, state, hyper):
        copy = torch.empty_like(parameters, dtype=torch.bfloat16)
        parts = tuple(part.clone() if part.dim() == 3 else part for part in LAYOUT.views(gradient).values())
        assert not all(part.is_contiguous() for part in parts)
        adamw.step(parameters, copy if low else None, parts, state, hyper.to("cuda", torch.float32))
        assert not low or torch.equal(copy, parameters.bfloat16())

    own, expected = trajectories(step, torch.float32, "cuda")
    assert (own - expected).abs().max() < 5e-6


def test_kernels_are_compiled_ahead_and_side_by_side(monkeypatch):
    """In a shape that no other test has: what a process has compiled it does not compile again."""
    import triton

    from grok_utils.engine.gpu import launch

    compiled = []
    hook = lambda fn, **_: compiled.append((fn.name, fn.module, launch.ahead.get())) and None  # noqa: E731
    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", hook)
    whole = trained(trainer(ExecutionPath("cuda", "float32", True, 1), settings=Settings(width=64, heads=16)))
    ours = [(name, ahead) for name, module, ahead in compiled if module.startswith("grok_utils")]
    assert {name for name, _ in ours} >= {"adamw", "block_forward", "norm_backward", "first_elements", "last_elements"}
    assert all(ahead for _, ahead in ours)
    assert whole.isfinite().all()


def test_products_load_four_numbers_at_a_time():
    """Of sizes that are multiples of 16: one number at a time they take a fifth longer, all training in float32."""
    from grok_utils.engine.gpu import products

    kernels = products.tile_of_product.jitted.device_caches
    kernels.clear()  # of what other tests compiled
    torch.set_float32_matmul_precision("highest")
    a, b = (torch.randn(2, 64, 48, device="cuda") for _ in range(2))
    for left, right in ((a, b.mT), (a.mT, b), (a.mT.contiguous().mT, b.mT)):
        found = products.products(left, right)
        assert torch.allclose(found, left @ right, rtol=1e-4, atol=1e-4)
    loads = [re.findall(r"cp\.async.*\], (\w+)", kernel.asm["ptx"]) for kernel in kernels[0][0].values()]
    assert loads and all(widths and set(widths) == {"0x10"} for widths in loads)


@pytest.mark.parametrize("changed", ["decay", "beta1", "beta2"])
def test_what_changes_between_blocks_changes_in_the_replayed_graph(changed):
    path = ExecutionPath("cuda", "float32", compiled=False, threads=1)
    values = {"decay": [0.5, 0.5, 20.0, 20.0], "beta1": [0.9, 0.9, 0.5, 0.5], "beta2": [0.98, 0.98, 0.8, 0.8]}[changed]
    schedule = {changed: np.array(values)[:, None]}
    fixed, other = (trainer(path, courses=courses_of([64] * 4, 4, **c)) for c in ({}, schedule))
    assert len(fixed.graphs) == len(other.graphs) == 1
    before, after = trained(fixed), trained(other)
    assert torch.equal(before[:2], after[:2])
    assert not torch.equal(before[2:, :, 2], after[2:, :, 2])
    cpu = Trainer(tasks(), courses_of([64] * 4, 4, **schedule), EAGER)
    assert torch.allclose(after[..., [0, 2]], trained(cpu)[..., [0, 2]], rtol=5e-3)
    # Key biases have a gradient of rounding alone, which AdamW makes as large as any: a hundredth, of a fifth.
    assert relative(other.state()["parameters"].cpu(), cpu.flat) < 1e-2


def test_rates_of_every_member_are_those_of_the_cpu(path, settings):
    courses = varied([64, 45, 33, 64], 4)
    graphed, cpu = trainer(path, courses=courses, settings=settings), Trainer(tasks(), courses, EAGER, settings)
    assert torch.allclose(trained(graphed)[:3, :, [0, 2]], trained(cpu)[:3, :, [0, 2]], rtol=5e-3)


@pytest.mark.parametrize("shape", [{"width": 64, "heads": 2, "blocks": 3}, {"width": 60, "heads": 5, "blocks": 1}])
def test_another_shape_trains_as_on_the_cpu(path, shape):
    settings = Settings(**shape, warm_up=5)
    graphed, cpu = trainer(path, settings=settings), Trainer(tasks(), courses_of(SIZES, 4), EAGER, settings)
    assert torch.allclose(trained(graphed)[:3, :, [0, 2]], trained(cpu)[:3, :, [0, 2]], rtol=5e-3)
    assert torch.equal(trained(trainer(path, settings=settings)), graphed.logged().cpu())


def test_undrawn_every_update_is_of_all_training_pairs(path):
    members = tasks(seeds=(0,), operations=("x_div_y", "permutation"))  # of 4,656 and 7,200 pairs
    courses = courses_of([[len(t.train) for t in members]] * 2, 2, drawn=False)
    graphed, cpu = trainer(path, members, courses), Trainer(members, courses, EAGER)
    assert len(graphed.graphs) == 1
    assert torch.allclose(trained(graphed)[..., [0, 2]], trained(cpu)[..., [0, 2]], rtol=2e-3)
    assert torch.equal(trained(trainer(path, members, courses)), graphed.logged().cpu())


CASES = pytest.mark.parametrize(("courses", "name"), [(courses_of, "adamw"), *((varied, name) for name in OPTIMIZERS)])


@CASES
def test_a_rerun_is_bit_identical(path, courses, name):
    settings = Settings(optimizer=name)
    first, second = (trained(trainer(path, courses=courses(SIZES, 4), settings=settings)) for _ in range(2))
    assert torch.equal(first, second)


@CASES
def test_a_resumed_run_is_bit_identical(path, courses, name):
    settings = Settings(optimizer=name)
    whole, first, second = (trainer(path, courses=courses(SIZES, 4), settings=settings) for _ in range(3))
    trained(first, blocks=3)
    second.restore({name: t.cpu().clone() for name, t in first.state().items()})
    assert torch.equal(trained(second, blocks=len(SIZES) - 3), trained(whole))


def test_measures_change_no_bit_of_what_else_is_logged_and_are_those_of_the_cpu(path):
    members = tasks(operations=("x_div_y", "permutation"))
    plain, measuring = trainer(path, members), trainer(path, members, measures=ALL)
    expected, logs = trained(plain), trained(measuring)
    assert torch.equal(logs[..., :4], expected)
    assert torch.equal(plain.flat, measuring.flat)
    assert torch.equal(trained(trainer(path, members, measures=ALL)).nan_to_num(), logs.nan_to_num())
    cpu = Trainer(members, courses_of(SIZES, 4), EAGER, measures=ALL)
    own, theirs = logs[:2, :, 4:], trained(cpu, 2)[:2, :, 4:]
    assert torch.allclose(own[..., [0, 3]], theirs[..., [0, 3]], rtol=1e-3, equal_nan=True)
    # Differences of squares: to a thousandth of what they are taken from.
    assert torch.allclose(own[..., [1, 2]], theirs[..., [1, 2]], rtol=5e-3, atol=1e-3 * theirs[..., 2].abs().max())


@pytest.mark.parametrize("drawn", [True, False])
def test_a_resumed_run_has_the_same_measures_bit_by_bit(path, drawn):
    members = tasks(seeds=(0,), operations=("x_div_y", "permutation"))
    sizes = SIZES[:4] if drawn else [[len(t.train) for t in members]] * 4
    make = lambda: trainer(path, members, courses_of(sizes, 2, drawn=drawn), measures=ALL)  # noqa: E731
    whole, first, second = make(), make(), make()
    trained(first, 2)
    second.restore({name: t.cpu().clone() for name, t in first.state().items()})
    assert torch.equal(trained(second, 2).nan_to_num(), trained(whole).nan_to_num())
    assert whole.logged()[..., 6].isnan().all() != drawn


def test_members_do_not_depend_on_their_neighbours(path, settings):
    """Beside others in a stack of the same shape a member's logs are the same bits; alone, the same to rounding."""
    stack, others = (trained(trainer(path, tasks(seeds), settings=settings), blocks=2) for seeds in ((0, 1), (0, 7)))
    assert torch.equal(stack[:2, [0, 2]], others[:2, [0, 2]])
    assert not torch.equal(stack[:2, [1, 3]], others[:2, [1, 3]])
    if not path.compiled:  # compiling a stack of another size would take a minute and show nothing more
        for i, task in enumerate(tasks()):
            alone = trained(trainer(path, [task], settings=settings), blocks=2)
            assert torch.allclose(alone[:2, 0], stack[:2, i], rtol=1e-3, atol=1e-3)


def test_members_do_not_depend_on_the_cells_beside_them(path, settings):
    members = tasks(seeds=(0,)) * 2  # two operations in two cells
    logs = [
        trained(trainer(path, members, courses_of(SIZES, 4, rate=[1e-3, 1e-3, *others]), settings), blocks=3)
        for others in ([1e-3, 1e-3], [4e-3, 0.0])
    ]
    assert torch.equal(logs[0][:, :2], logs[1][:, :2])
    assert not torch.equal(logs[0][1:, 2:], logs[1][1:, 2:])


def test_a_diverged_member_leaves_the_others_as_they_were(path):
    whole, poisoned = trainer(path), trainer(path)
    with torch.no_grad():
        poisoned.flat[1] = torch.nan
    expected, got = trained(whole, 3), trained(poisoned, 3)
    assert got[:3, 1, 0].isnan().all()
    assert torch.equal(got[:, [0, 2, 3]].nan_to_num(), expected[:, [0, 2, 3]].nan_to_num())


def test_nothing_waits_for_the_gpu_within_a_block(path, settings):
    it = trainer(path, settings=settings, measures=ALL)
    it.run_block()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            it.run_block()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_stack_that_does_not_fit_is_told_how_many_would(tmp_path, monkeypatch):
    from grok_utils.engine.cuda import graphed_trainer

    def run(seeds):
        values = {"arms": {"baseline": None}, "operations": ["x_plus_y", "permutation"], "updates": BLOCK}
        return make_run(make_study("mine", values), "baseline", list(seeds), tmp_path, "cuda")

    torch.cuda.empty_cache()
    left, total = 3 * 2**30, torch.cuda.mem_get_info()[1]
    # A card with so much left. Filling this one instead would take the memory of tests beside this one.
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (left, total))
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + left) / total)
    path = ExecutionPath("cuda", "float32", False, threads=1)
    try:
        with pytest.raises(
            BadInput, match=r"seeds: a stack of 120 members .* hold about (\d+): take SEEDS_PER_RUN="
        ) as told:
            graphed_trainer(run(range(60)), path)
        fit = int(re.search(r"about (\d+):", str(told.value))[1])
        # Two operations: a fourth of what is told, of which eager takes more.
        graphed_trainer(run(range(max(fit // 8, 1))), path)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


LOWER = pytest.mark.parametrize("precision", ["tf32", "bf16"])


@LOWER
def test_compiled_in_a_lower_precision_runs_repeat_resume_and_depend_on_no_neighbour(precision):
    path = ExecutionPath("cuda", precision, compiled=True, threads=1)
    whole, again, first, second = (trainer(path) for _ in range(4))
    expected = trained(whole)
    assert torch.equal(trained(again), expected)
    trained(first, blocks=3)
    second.restore({name: t.cpu().clone() for name, t in first.state().items()})
    assert torch.equal(trained(second, blocks=len(SIZES) - 3), expected)
    others = trained(trainer(path, tasks((0, 7))), blocks=2)
    assert torch.equal(others[:2, [0, 2]], expected[:2, [0, 2]])


@LOWER
@pytest.mark.parametrize("compiled", [False, True])
def test_lower_precisions_learn_the_same_at_first(compiled, precision):
    exact = trained(trainer(ExecutionPath("cuda", "float32", False, 1)), 4)
    lower = trained(trainer(ExecutionPath("cuda", precision, compiled, 1)), 4)
    assert not torch.equal(exact[:4, :, 0], lower[:4, :, 0])
    assert torch.allclose(exact[:4, :, 0], lower[:4, :, 0], rtol=0.05)
