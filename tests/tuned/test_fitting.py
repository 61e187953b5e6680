"""Batched fits against scipy's, and the bootstrap of seeds against simulations whose truth is known."""

import numpy as np
import pytest
from scipy import optimize, stats

from grok_utils.tuned import fitting


def rosenbrock(theta, rows, valley=(1.0, 10.0, 100.0)):
    """A curved valley for each row, its curvature by Gauss and Newton."""
    x, y = theta.T
    k = np.array(valley)[rows]
    residual = np.stack([1 - x, np.sqrt(k) * (y - x**2)], axis=1)
    slope = np.zeros((len(rows), 2, 2))
    slope[:, 0, 0], slope[:, 1, 0], slope[:, 1, 1] = -1, -2 * np.sqrt(k) * x, np.sqrt(k)
    gradient = np.einsum("rni,rn->ri", slope, residual)
    return (residual**2).sum(1) / 2, gradient, np.einsum("rni,rnj->rij", slope, slope)


def test_minimise_finds_each_rows_minimum_at_its_own_pace():
    calls = []

    def objective(theta, rows):
        calls.append(rows.tolist())
        return rosenbrock(theta, rows)

    found = fitting.minimise(objective, np.array([[-1.2, 1.0], [1.0, 1.0], [-1.2, 1.0]]))
    oracle = optimize.minimize(lambda z: rosenbrock(z[None], np.array([2]))[0][0], [-1.2, 1], tol=1e-12)
    assert found == pytest.approx(np.tile(oracle.x, (3, 1)), abs=1e-4)
    assert calls[1] == [0, 1, 2] and calls[2] == [0, 2]  # a row that is done is left alone


def test_minimise_steps_back_from_what_is_no_number():
    def objective(theta, rows):
        with np.errstate(invalid="ignore"):
            value = theta[:, 0] - np.log(theta[:, 0])  # least at 1, none below 0
        return value, 1 - 1 / theta, 1 / theta[..., None] ** 2

    assert fitting.minimise(objective, np.array([[2.5]])) == pytest.approx(1)  # Newton's first step goes to −1.25


def test_the_best_fit_is_the_least_of_all_starts():
    def two_wells(theta, rows):
        """(x² − 1)² + depth · x: least near −1 where depth > 0, near 1 where it is below 0."""
        x, depth = theta[:, 0], np.array([0.2, -0.2])[rows]
        value, slope = (x**2 - 1) ** 2 + depth * x, 4 * x * (x**2 - 1) + depth
        return value, slope[:, None], (12 * x**2 - 4)[:, None, None]

    theta, values = fitting.best_fits(two_wells, np.array([[1.5], [-1.5]]), 2)
    oracle = optimize.minimize_scalar(lambda x: (x**2 - 1) ** 2 + 0.2 * x, bounds=(-2, 0))
    assert theta[:, 0] == pytest.approx([oracle.x, -oracle.x], abs=1e-4)
    assert values == pytest.approx([oracle.fun] * 2)


def test_seeds_of_the_same_arms_are_drawn_among_themselves():
    present = np.array([[1, 1], [1, 0], [1, 1], [1, 0], [1, 0]])
    first, *others = fitting.seed_weights(present, 4_000)
    weights = np.array(others)
    assert (
        first.tolist() == [1] * 5
        and (weights[:, [0, 2]].sum(1) == 2).all()
        and (weights[:, [1, 3, 4]].sum(1) == 3).all()
    )
    assert weights.mean(0) == pytest.approx(1, abs=0.05)
    assert weights[:, 1].var() == pytest.approx(3 * 1 / 3 * 2 / 3, abs=0.05)  # binomial(3, 1/3)
    assert (weights == fitting.seed_weights(present, 4_000)[1:]).all()


@pytest.mark.parametrize("level", [0.90, 0.95])
def test_expanded_percentiles_of_eight_seeds_cover_where_plain_ones_do_not(level):
    rng, weights = np.random.default_rng(0), fitting.seed_weights(np.ones((8, 1)), 1_000)[1:]
    draws = [weights @ x / 8 for x in rng.normal(0, 1, (1_000, 8))]
    ends = np.array([fitting.percentile_interval(d, 8, level) for d in draws])
    plain = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=1).T
    covered, too_few = (np.mean((e[:, 0] <= 0) & (e[:, 1] >= 0)) for e in (ends, plain))
    assert covered == pytest.approx(level, abs=0.025) and too_few < level - 0.04


def test_expanded_percentiles_of_many_seeds_are_the_plain_ones():
    draws = np.random.default_rng(0).normal(size=100_000)
    assert fitting.percentile_interval(draws, 10_000) == pytest.approx(stats.norm.interval(0.95), abs=0.02)


def test_draws_without_a_value_count_as_beyond_either_end():
    draws = np.r_[np.arange(98.0), np.nan, np.nan]
    assert fitting.percentile_interval(draws, 10_000, 0.94) == (0.0, 97.0)  # the third of 100 from either end
    assert fitting.percentile_interval(draws, 10_000, 0.99) == (-np.inf, np.inf)
    assert np.isnan(fitting.percentile_interval(draws, 1)).all()
