"""The stacked decoder against plain models of PyTorch's own layers, in float64."""

import itertools
import math

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from support.models import SHAPES, moved, sequence
from torch import nn

from grok_utils.engine.stack import Layout, stacked_logits
from grok_utils.model import initial_decoder
from grok_utils.studies import PROTOCOL
from grok_utils.tasks import make_task

STUDY = ["x_plus_y", "x_minus_y", "x_div_y", "permutation"]
BATCH = 150  # above 120, so that some elements occur more than once and gathered gradients must add up


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def setup(members, batch=BATCH, dtype=torch.float64, shape=PROTOCOL.shape):
    """Tasks, trained-looking decoders, and one batch [M, batch, 3]."""
    tasks = [make_task(operation, seed) for operation, seed in members]
    decoders = [moved(initial_decoder(t, shape).to(dtype), t.seed) for t in tasks]
    draws = [torch.randint(len(t.train), (batch,), generator=torch.Generator().manual_seed(t.seed)) for t in tasks]
    rows = torch.stack([t.train[d] for t, d in zip(tasks, draws, strict=True)])
    return tasks, decoders, rows


def run_stack(tasks, decoders, rows, distinct, shape=PROTOCOL.shape):
    """Masked logits [M, B, classes], loss of each member [M], and the gradient of their sum [M, P] with its layout."""
    layout = Layout(tasks, shape)
    flat = layout.pack(decoders).requires_grad_()
    logits = stacked_logits(layout, flat, rows[..., 0], rows[..., 1], distinct)
    classes = torch.tensor([t.elements for t in tasks])
    logits = logits.masked_fill(torch.arange(logits.shape[-1]) >= classes[:, None, None], -math.inf)
    loss = F.cross_entropy(logits.mT, rows[..., 2], reduction="none").mean(1)
    (gradient,) = torch.autograd.grad(loss.sum(), flat)
    return layout, logits.detach(), loss.detach(), gradient


def run_plain(decoder, rows):
    decoder.zero_grad()
    logits = decoder(sequence(rows[:, 0], rows[:, 1]))
    loss = F.cross_entropy(logits, rows[:, 2])
    loss.backward()
    return logits.detach(), loss.detach(), {n: p.grad for n, p in decoder.named_parameters()}


def close(a, b, tolerance):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize(
    "members",
    [[("x_div_y", 0)], [("permutation", 0), ("permutation", 1)], [(o, 0) for o in STUDY]],
    ids=["one", "two_seeds", "mixed"],
)
def test_stack_equals_plain_decoders(members, distinct):
    tasks, decoders, rows = setup(members)
    layout, logits, loss, gradient = run_stack(tasks, decoders, rows, distinct)
    gradients = layout.views(gradient)
    for m, (task, decoder) in enumerate(zip(tasks, decoders, strict=True)):
        plain_logits, plain_loss, plain_gradients = run_plain(decoder, rows[m])
        close(logits[m, :, : task.elements], plain_logits, 1e-9)
        close(loss[m], plain_loss, 1e-9)
        assert set(gradients) == set(plain_gradients)
        for name, expected in plain_gradients.items():
            close(gradients[name][m, : len(expected)], expected, 1e-9)
            assert (gradients[name][m, len(expected) :] == 0).all(), f"padding of {name} has a gradient"


@pytest.mark.parametrize("distinct", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_stack_equals_plain_decoders_in_every_shape(shape, distinct):
    tasks, decoders, rows = setup([("x_plus_y", 0), ("permutation", 1)], shape=shape)
    assert (decoders[0].blocks[0].attention.num_heads, len(decoders[0].blocks)) == shape[1:]
    layout, logits, _, gradient = run_stack(tasks, decoders, rows, distinct, shape)
    gradients = layout.views(gradient)
    for m, (task, decoder) in enumerate(zip(tasks, decoders, strict=True)):
        plain_logits, _, plain_gradients = run_plain(decoder, rows[m])
        close(logits[m, :, : task.elements], plain_logits, 1e-9)
        assert set(gradients) == set(plain_gradients)
        for name, expected in plain_gradients.items():
            close(gradients[name][m, : len(expected)], expected, 1e-9)


@pytest.mark.parametrize("batch", [1, 2, 40])
def test_small_batches_equal_the_plain_decoder(batch):
    tasks, decoders, rows = setup([("x_plus_y", 0)], batch)
    for distinct in (True, False):
        close(run_stack(tasks, decoders, rows, distinct)[1][0], run_plain(decoders[0], rows[0])[0], 1e-9)


def test_pack_and_views_keep_every_weight():
    tasks, decoders, _ = setup([(o, 0) for o in STUDY])
    layout = Layout(tasks)
    views = layout.views(layout.pack(decoders))
    for m, decoder in enumerate(decoders):
        for name, p in decoder.named_parameters():
            assert torch.equal(views[name][m, : len(p)], p) and (views[name][m, len(p) :] == 0).all()


@pytest.mark.parametrize("distinct", [True, False])
def test_member_does_not_depend_on_its_neighbours(distinct):
    tasks, decoders, rows = setup([(o, 0) for o in STUDY])
    layout, logits, loss, gradient = run_stack(tasks, decoders, rows, distinct)
    together = layout.views(gradient)
    for m, task in enumerate(tasks):
        own, alone_logits, alone_loss, alone = run_stack([task], [decoders[m]], rows[m : m + 1], distinct)
        close(logits[m, :, : task.elements], alone_logits[0], 1e-12)
        close(loss[m], alone_loss[0], 1e-12)
        for name, g in own.views(alone).items():
            close(together[name][m, : g.shape[1]], g[0], 1e-12)


def test_gradient_does_not_leak_between_members():
    """The loss of one member, even a broken one, gives its neighbours no gradient."""
    tasks, decoders, rows = setup([(o, 0) for o in STUDY])
    layout = Layout(tasks)
    flat = layout.pack(decoders)
    flat[0] = math.nan
    flat.requires_grad_()
    logits = stacked_logits(layout, flat, rows[..., 0], rows[..., 1], True)
    assert logits[0].isnan().all() and logits[1:].isfinite().all()
    (gradient,) = torch.autograd.grad(logits[2].square().sum(), flat)
    assert (gradient[[1, 3]] == 0).all() and gradient[2].abs().max() > 0


def test_plain_decoder_is_pytorchs_post_norm_transformer():
    """A second oracle: `nn.TransformerEncoder` with a causal mask and the same weights."""
    _, (decoder,), rows = setup([("permutation", 0)])
    layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, activation="gelu", batch_first=True, norm_first=False)
    encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(128), enable_nested_tensor=False).double()
    rename = {"attention": "self_attn", "up": "linear1", "down": "linear2", "blocks": "layers"}
    state = {".".join(rename.get(part, part) for part in n.split(".")): p for n, p in decoder.state_dict().items()}
    encoder.load_state_dict({n: p for n, p in state.items() if n.startswith(("layers", "norm"))})
    x, y = rows[0, :, 0], rows[0, :, 1]
    tokens = torch.stack([x + 2, torch.zeros_like(x), y + 2, torch.ones_like(x)], 1)
    hidden = state["tokens.weight"][tokens] + state["positions.weight"][:4]
    hidden = encoder(hidden, mask=nn.Transformer.generate_square_subsequent_mask(4, dtype=torch.float64))
    expected = F.linear(hidden[:, -1], state["head.weight"], state["head.bias"])
    close(decoder(sequence(x, y)), expected, 1e-9)


def test_plain_decoder_is_causal():
    _, (decoder,), rows = setup([("x_plus_y", 0)], batch=1)
    x = decoder.tokens(sequence(rows[0, :, 0], rows[0, :, 1])).detach()

    def hidden(x):
        for block in decoder.blocks:
            x = block(x)
        return x

    for i in range(1, 4):
        changed = x.clone()
        changed[:, i] += 1
        close(hidden(changed)[:, :i], hidden(x)[:, :i], 1e-12)
        assert (hidden(changed)[:, i:] - hidden(x)[:, i:]).abs().amin(dim=(0, 2)).max() > 0


@pytest.mark.parametrize("distinct", [True, False])
def test_float32_is_close_to_float64(distinct):
    tasks, double, rows = setup([(o, 0) for o in STUDY])
    _, single, _ = setup([(o, 0) for o in STUDY], dtype=torch.float32)
    _, logits, loss, gradient = run_stack(tasks, double, rows, distinct)
    _, logits32, loss32, gradient32 = run_stack(tasks, single, rows, distinct)
    close(logits32.double(), logits, 2e-5)
    close(loss32.double(), loss, 2e-6)
    assert (gradient32 - gradient).norm() < 2e-6 * gradient.norm()


def test_decoder_has_the_protocols_parameters():
    shapes = {n: tuple(p.shape) for n, p in initial_decoder(make_task("x_plus_y", 0)).named_parameters()}
    assert shapes["tokens.weight"] == (99, 128) and shapes["positions.weight"] == (5, 128)
    assert shapes["head.weight"] == (97, 128) and shapes["blocks.0.up.weight"] == (512, 128)
    block = 4 * 128 * 128 + 4 * 128 + 2 * 512 * 128 + 512 + 128 + 4 * 128
    assert sum(map(math.prod, shapes.values())) == 99 * 128 + 5 * 128 + 2 * block + 256 + 97 * 128 + 97


def initial_law(name):
    """PyTorch's default law of a parameter, as scipy's name, location and scale; a number where it is constant."""
    if name in ("tokens.weight", "positions.weight"):
        return "norm", 0, 1
    if "norm" in name:
        return 1 if name.endswith("weight") else 0
    if "attention" in name and name.endswith("bias"):
        return 0
    # Xavier over the joint projection; elsewhere Kaiming with a = √5, which is 1/√fan_in.
    bound = math.sqrt(6 / (128 + 384)) if "in_proj" in name else 1 / math.sqrt(512 if "down" in name else 128)
    return "uniform", -bound, 2 * bound


def test_initial_weights_follow_pytorchs_defaults():
    decoders = [initial_decoder(make_task(operation, seed)) for operation in STUDY for seed in range(3)]
    for name in dict(decoders[0].named_parameters()):
        values = torch.cat([d.get_parameter(name).detach().flatten() for d in decoders]).double().numpy()
        law = initial_law(name)
        if isinstance(law, int):
            assert (values == law).all(), name
        else:
            expected = getattr(scipy.stats, law[0])(*law[1:])
            assert scipy.stats.kstest(values, expected.cdf).pvalue > 1e-4, name
            assert abs(values.std() / expected.std() - 1) < 4 / math.sqrt(2 * len(values)), name


def test_initial_weights_depend_on_operation_and_seed_alone():
    def weights(operation="x_plus_y", seed=0, fraction=0.5):
        decoder = initial_decoder(make_task(operation, seed, train_fraction=fraction))
        return torch.cat([p.detach().flatten() for p in decoder.parameters()])

    torch.manual_seed(1)
    first, state = weights(), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, weights()) and torch.equal(first, weights(fraction=0.3))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # the global generator was not touched
    others = [weights(seed=1), weights("x_minus_y")]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations([first, *others], 2))


def test_layout_leaves_the_global_generator_alone():
    tasks, _, _ = setup([("x_plus_y", 0)])
    state = torch.get_rng_state()
    Layout(tasks)
    assert torch.equal(state, torch.get_rng_state())
