"""What a test run asks of those who add a schedule, an operation or an optimizer."""

from collections.abc import Iterable

import pytest


def require_oracles(what: str, ours: Iterable[str], oracles: Iterable[str], where: str) -> None:
    """Fail, with one line of `what` to add `where`, unless each of `ours` has an oracle and each oracle is of one."""
    ours, oracles = set(ours), set(oracles)
    if ours - oracles:
        pytest.fail(f"add {what} of {', '.join(map(repr, sorted(ours - oracles)))} to {where}", pytrace=False)
    assert oracles <= ours
