"""Power by formula against simulated experiments that the project's own tests judge."""

import numpy as np
import pytest
from scipy import stats
from support.tuned import spread, stage_2, stage_3

from grok_utils.analysis import equivalence, inference
from grok_utils.tuned import power

RUNS = 3_000


@pytest.mark.parametrize("n", [30, 60])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 20])
def test_power_of_a_difference_is_that_of_simulated_t_tests(n, alpha):
    draws = np.random.default_rng(0).normal(0.1, 0.25, (RUNS, n))
    found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < alpha)
    assert power.t_power(0.1 / 0.25, n, alpha) == pytest.approx(found, abs=4 * np.sqrt(0.25 / RUNS))


def test_power_of_a_difference_is_that_of_the_sign_flip_test():
    draws = np.random.default_rng(1).normal(0.1, 0.25, (300, 30))
    found = np.mean([inference.sign_flip_p(d) < 0.05 for d in draws])
    assert power.t_power(0.1 / 0.25, 30, 0.05) == pytest.approx(found, abs=0.09)


@pytest.mark.parametrize(("n", "sd"), [(30, 0.15), (30, 0.3), (60, 0.3), (60, 0.05)])
def test_power_of_equivalence_is_that_of_simulated_intervals(n, sd):
    draws = np.random.default_rng(2).normal(0, sd, (RUNS, n))
    half = stats.t.ppf(0.95, n - 1) * stats.sem(draws, axis=1)
    low, high = np.exp([draws.mean(1) - half, draws.mean(1) + half])
    found = np.mean((low >= equivalence.RATIOS[0]) & (high <= equivalence.RATIOS[1]))
    assert power.ratio_power(sd, n) == pytest.approx(found, abs=4 * np.sqrt(0.25 / RUNS))


@pytest.mark.parametrize(("only", "other", "n"), [(0, 0, 30), (0.03, 0.0, 30), (0.05, 0.02, 60)])
def test_power_of_shares_is_that_of_simulated_pairs(only, other, n):
    counts = np.random.default_rng(3).multinomial(n, [only, other, 1 - only - other], 500)
    ends = [equivalence.score_interval(b, c, n, 0.9) for b, c, _ in counts.tolist()]
    found = np.mean([max(-low, high) <= 0.10 for low, high in ends])
    assert power.shares_power(only, other, n) == pytest.approx(found, abs=4 * np.sqrt(0.25 / 500))


def test_spreads_are_those_of_stage_two_and_holm_counts_the_held_out_operation():
    base = spread(500, 0.1, 16)
    times = {"linear": base * spread(1, 0.2, 16, 1), "constant-128": base, "baseline": base}
    members = stage_3(times, "x_div_y")
    found = power.power(members, stage_2(members)).set_index(["schedule", "seeds"])
    row, d = found.loc[("linear", 60)], times["linear"] - base
    assert row["sd"] == pytest.approx(d.std(ddof=1) / base.mean()) and row["sd_log"] == pytest.approx(0.2)
    assert row["difference"] == power.t_power(0.1 / row["sd"], 60, 0.05)
    assert row["in_family"] == power.t_power(0.1 / row["sd"], 60, 0.05 / 2)
    assert row["equivalence"] == pytest.approx(power.ratio_power(0.2, 60))
    assert found.loc[("constant-128", 30), ["sd", "difference", "equivalence"]].isna().all()  # no spread at all


def test_a_large_effect_is_found_surely():
    assert [power.t_power(effect, n, 0.05 / 80) for n in (30, 60) for effect in (5.0, 20.0, 1e3)] == [1.0] * 6
