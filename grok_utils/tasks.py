"""The binary operations of the study as whole tensors, and their split into training and validation pairs."""

import hashlib
import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

OPERATOR, EQUALS, SPECIAL_TOKENS = 0, 1, 2  # the vocabulary's first two entries; element e is token e + 2
PERMUTATIONS = torch.tensor(list(itertools.permutations(range(5))))  # the 120 elements of S5, in lexicographic order
FORMULA = re.compile(r"([xy][23]?)+(_(plus|minus|div)_([xy][23]?)+)*")
SIGNS = {"_plus_": " + ", "_minus_": " − ", "_div_": " / ", "2": "²", "3": "³"}


class Operation(NamedTuple):
    """A binary operation: `result(x, y, p)` maps int64 tensors of elements to the element `x ∘ y`."""

    result: Callable[[Tensor, Tensor, int], Tensor]
    smallest_y: int = 0  # x_div_y has no y = 0
    elements: int | None = None  # None: the residues 0 .. modulus - 1
    multiplicative: bool = False  # of residues: it is the product of a group, that of those without 0


def inverse(y: Int[Tensor, "*n"], p: int) -> Int[Tensor, "*n"]:
    """Multiplicative inverse of each nonzero residue `y` modulo the prime `p`."""
    return torch.tensor([0] + [pow(a, -1, p) for a in range(1, p)])[y]


def compose(x: Int[Tensor, "*n"], y: Int[Tensor, "*n"], _: int) -> Int[Tensor, "*n"]:
    """Composition in S5, `result[i] = x[y[i]]`, on indices into `PERMUTATIONS`."""
    digits = 5 ** torch.arange(5)
    index_of = torch.empty(5**5, dtype=torch.int64)
    index_of[PERMUTATIONS @ digits] = torch.arange(len(PERMUTATIONS))
    return index_of[PERMUTATIONS[x].gather(-1, PERMUTATIONS[y]) @ digits]


# The first four are the study's; the others complete the modular operations of Power et al. 2022 (arXiv 2201.02177).
OPERATIONS: dict[str, Operation] = {
    "x_plus_y": Operation(lambda x, y, p: (x + y) % p),
    "x_minus_y": Operation(lambda x, y, p: (x - y) % p),
    "x_div_y": Operation(lambda x, y, p: (x * inverse(y, p)) % p, smallest_y=1, multiplicative=True),
    "permutation": Operation(compose, elements=len(PERMUTATIONS)),
    "x2_plus_y2": Operation(lambda x, y, p: (x**2 + y**2) % p),
    "x2_plus_xy_plus_y2": Operation(lambda x, y, p: (x**2 + x * y + y**2) % p),
    "x2_plus_xy_plus_y2_plus_x": Operation(lambda x, y, p: (x**2 + x * y + y**2 + x) % p),
    "x3_plus_xy": Operation(lambda x, y, p: (x**3 + x * y) % p),
    "x3_plus_xy2_plus_y": Operation(lambda x, y, p: (x**3 + x * y**2 + y) % p),
}


def written(operation: str) -> str:
    """An operation as people write it: `x_minus_y` as x − y, `permutation` as S₅; as it is, where it is no formula."""
    if FORMULA.fullmatch(operation):
        return re.sub("|".join(SIGNS), lambda sign: SIGNS[sign[0]], operation)
    return "S₅" if operation == "permutation" else operation


@dataclass(frozen=True)
class Task:
    """One operation, split: rows of (x, y, result), as elements."""

    operation: str
    seed: int
    elements: int  # also the number of classes
    train: Int64[Tensor, "n 3"]
    validation: Int64[Tensor, "m 3"]

    @property
    def vocabulary(self) -> int:
        """Number of tokens: the elements and the two special tokens."""
        return self.elements + SPECIAL_TOKENS


def key(*parts: str | int) -> int:
    """A 64-bit key for random streams, the same on every machine, distinct for distinct `parts`."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "little")


def stream(*parts: str | int, counter: int = 0) -> np.random.Generator:
    """A generator that depends on `parts` and `counter` alone (Philox, counter-based: nothing to save or restore)."""
    return np.random.Generator(np.random.Philox(key=np.array([key(*parts), counter], dtype=np.uint64)))


def count_pairs(operation: str, modulus: int) -> int:
    """Number of pairs of `operation`."""
    elements = OPERATIONS[operation].elements or modulus
    return elements * (elements - OPERATIONS[operation].smallest_y)


def cyclic_order(operation: str, modulus: int) -> tuple[int, ...] | None:
    """The residues in the order in which adding one, or multiplying by one of them, goes through them all.

    0, 1, 2, … for an operation modulo `modulus`; for a multiplicative one 1, g, g², …, the powers of the least
    generator g, so that a residue's place is its discrete logarithm. None for an operation on other elements.
    """
    op = OPERATIONS[operation]
    if op.elements is not None:
        return None
    if not op.multiplicative:
        return tuple(range(modulus))
    powers = ([pow(g, k, modulus) for k in range(modulus - 1)] for g in range(1, modulus))
    return next(tuple(of) for of in powers if len(set(of)) == modulus - 1)


def count_train(operation: str, modulus: int, train_fraction: float) -> int:
    """Number of pairs of `operation` that are for training: `floor(train_fraction · pairs)`."""
    return math.floor(train_fraction * count_pairs(operation, modulus))


def all_pairs(operation: str, modulus: int) -> Int64[Tensor, "pairs 3"]:
    """Every (x, y, result) of `operation` in order of x, then y."""
    op = OPERATIONS[operation]
    elements = op.elements or modulus
    x, y = torch.cartesian_prod(torch.arange(elements), torch.arange(op.smallest_y, elements)).T
    return torch.stack([x, y, op.result(x, y, modulus)], dim=1)


def make_task(operation: str, seed: int, modulus: int = 97, train_fraction: float = 0.5) -> Task:
    """Shuffle all pairs by (operation, seed) and split: `floor(train_fraction · pairs)` train, the rest validation."""
    pairs = all_pairs(operation, modulus)
    shuffled = pairs[torch.from_numpy(stream("split", operation, seed).permutation(len(pairs)))]
    n = count_train(operation, modulus, train_fraction)
    elements = OPERATIONS[operation].elements or modulus
    return Task(operation, seed, elements, train=shuffled[:n], validation=shuffled[n:])
