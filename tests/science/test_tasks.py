"""Tasks against brute force on Python integers and tuples."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from support.additions import require_oracles

from grok_utils.tasks import OPERATIONS, all_pairs, cyclic_order, key, make_task, stream, written

POLYNOMIALS = {
    "x_plus_y": lambda x, y: x + y,
    "x_minus_y": lambda x, y: x - y,
    "x2_plus_y2": lambda x, y: x * x + y * y,
    "x2_plus_xy_plus_y2": lambda x, y: x * x + x * y + y * y,
    "x2_plus_xy_plus_y2_plus_x": lambda x, y: x * x + x * y + y * y + x,
    "x3_plus_xy": lambda x, y: x * x * x + x * y,
    "x3_plus_xy2_plus_y": lambda x, y: x * x * x + x * y * y + y,
}


def modular_rows(operation, p):
    """(x, y, result) by brute force; a quotient is the one r with r·y = x."""
    if operation == "x_div_y":
        return [(r * y % p, y, r) for y in range(1, p) for r in range(p)]
    return [(x, y, POLYNOMIALS[operation](x, y) % p) for x in range(p) for y in range(p)]


def permutation_rows():
    s5 = list(itertools.permutations(range(5)))
    index = {x: i for i, x in enumerate(s5)}
    return [(index[x], index[y], index[tuple(x[i] for i in y)]) for x in s5 for y in s5]


def rows(t):
    return sorted(map(tuple, t.tolist()))


def test_every_operation_has_an_oracle():
    known = {*POLYNOMIALS, "x_div_y", "permutation"}
    require_oracles("the polynomial", OPERATIONS, known, "POLYNOMIALS in tests/science/test_tasks.py")


def test_an_operation_is_written_as_people_write_it():
    for name, said in {
        "x_plus_y": "x + y",
        "x_minus_y": "x − y",
        "x_div_y": "x / y",
        "permutation": "S₅",
        "x2_plus_y2": "x² + y²",
        "x2_plus_xy_plus_y2": "x² + xy + y²",
        "x2_plus_xy_plus_y2_plus_x": "x² + xy + y² + x",
        "x3_plus_xy": "x³ + xy",
        "x3_plus_xy2_plus_y": "x³ + xy² + y",
    }.items():
        assert name in OPERATIONS and written(name) == said
    assert written("xy_plus_y") == "xy + y"  # one that a person adds
    for name in ("mine", "xy_times_y", "x_plus", "float32", "x and y"):
        assert written(name) == name


@pytest.mark.parametrize("p", [2, 3, 5, 7, 31, 97])
@pytest.mark.parametrize("operation", [*POLYNOMIALS, "x_div_y"])
def test_modular_table(operation, p):
    assert rows(all_pairs(operation, p)) == sorted(modular_rows(operation, p))


def test_permutation_table():
    assert rows(all_pairs("permutation", 97)) == sorted(permutation_rows())


def test_permutation_is_not_commutative_and_keeps_its_convention():
    """x swaps the first two, y rotates to the left: result[i] = x[y[i]]."""
    s5 = list(itertools.permutations(range(5)))
    x, y, product = s5.index((1, 0, 2, 3, 4)), s5.index((1, 2, 3, 4, 0)), s5.index((0, 2, 3, 4, 1))
    table = {(a, b): c for a, b, c in all_pairs("permutation", 97).tolist()}
    assert table[x, y] == product != table[y, x]


@pytest.mark.parametrize(
    "operation, pairs, vocabulary, classes",
    [
        ("x_plus_y", 97 * 97, 99, 97),
        ("x_minus_y", 97 * 97, 99, 97),
        ("x_div_y", 97 * 96, 99, 97),
        ("permutation", 120 * 120, 122, 120),
    ],
)
def test_sizes_of_the_protocol(operation, pairs, vocabulary, classes):
    task = make_task(operation, seed=0)
    labels = torch.cat([task.train, task.validation])[:, 2]
    assert len(labels) == pairs
    assert (task.vocabulary, task.elements) == (vocabulary, classes)
    assert labels.unique().tolist() == list(range(classes))


@pytest.mark.parametrize("fraction", ["0.5", "0.3", "0.8", "0.01", "0.99"])
@pytest.mark.parametrize(
    "operation, modulus", [("x_plus_y", 97), ("x_plus_y", 67), ("x_div_y", 97), ("permutation", 97)]
)
def test_split_is_disjoint_complete_and_of_the_right_size(operation, modulus, fraction):
    task = make_task(operation, 3, modulus, float(fraction))
    pairs = all_pairs(operation, modulus)
    assert len(task.train) == math.floor(Fraction(fraction) * len(pairs))
    assert rows(torch.cat([task.train, task.validation])) == rows(pairs)


def test_split_is_keyed_by_operation_and_seed_alone():
    def split(operation="x_plus_y", seed=0):
        return make_task(operation, seed).train[:, :2]  # x and y; results differ between operations anyway

    torch.manual_seed(1)
    first, state = split(), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(first, split())
    torch.manual_seed(1)
    split()
    assert torch.equal(state, torch.get_rng_state())  # nothing drawn from the global generator
    others = [split(seed=1), split(seed=2), split("x_minus_y")]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations([first, *others], 2))


@pytest.mark.parametrize("modulus", [2, 3, 5, 23, 97])
def test_cyclic_orders_go_round_by_one_step(modulus):
    for operation in POLYNOMIALS:
        assert cyclic_order(operation, modulus) == tuple(range(modulus))
    powers = cyclic_order("x_div_y", modulus)
    assert sorted(powers) == [*range(1, modulus)]
    steps = {b * pow(a, -1, modulus) % modulus for a, b in zip(powers, [*powers[1:], powers[0]], strict=True)}
    assert powers[0] == 1 and len(steps) == 1  # the last goes on to the first
    assert cyclic_order("permutation", modulus) is None


def test_the_order_of_97_is_that_of_its_least_primitive_root():
    assert cyclic_order("x_div_y", 97)[:4] == (1, 5, 25, 28)


def test_split_at_a_larger_fraction_extends_the_smaller():
    small, large = make_task("x_plus_y", 0, train_fraction=0.3), make_task("x_plus_y", 0, train_fraction=0.5)
    assert torch.equal(large.train[: len(small.train)], small.train)


def test_split_shuffles():
    """Half of a shuffled table holds about half of each x: 48.5 ± 5 of 97; in order it would hold 97 or 0."""
    counts = torch.bincount(make_task("x_plus_y", 0).train[:, 0], minlength=97)
    assert counts.min() > 25 and counts.max() < 72


@pytest.mark.parametrize("seed", range(8))
def test_stream_uses_its_whole_key_and_counter(seed):
    """Half of all keys exceed 2^63, where a list of Python integers would pass through floating point."""
    state = stream("split", "x_plus_y", seed, counter=7).bit_generator.state["state"]["key"]
    assert [int(k) for k in state] == [key("split", "x_plus_y", seed), 7]


def test_streams_differ_by_counter_and_parts():
    draws = [stream(*parts, counter=c).integers(1 << 62) for parts in [("a", 0), ("a", 1), ("b", 0)] for c in (0, 1)]
    assert len(set(draws)) == 6
    assert draws[0] == stream("a", 0).integers(1 << 62)
