"""Ratios and paired shares against scipy, published intervals, and a score test inverted by brute force."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from support.synthetic import crossing

from grok_utils.analysis import equivalence, intervals
from grok_utils.analysis.crossings import crossings
from grok_utils.analysis.equivalence import Paired


def table(times: dict[str, list[int]]) -> pd.DataFrame:
    """`crossings` of arms whose seeds 0, 1, … cross at these updates; beyond 1,000 never."""
    return crossings(pd.concat(crossing(s, t, arm, 100) for arm, of in times.items() for s, t in enumerate(of)))


# --- the score interval of paired shares -----------------------------------------------------------------------------


def inverted(only, other, n, level):
    """The ends of what the score test does not reject: its nuisance share found by maximising the likelihood."""
    rest, z, difference = n - only - other, stats.norm.ppf((1 + level) / 2), (only - other) / n

    def excess(delta):
        least, most = max(0, -delta), (1 - delta) / 2  # of q, the share of `other` alone; q + δ is that of `only`

        def unlikely(q):
            return -np.dot([only, other, rest], np.log(np.maximum([q + delta, q, 1 - 2 * q - delta], 1e-300)))

        q = optimize.minimize_scalar(unlikely, bounds=(least, most), options={"xatol": 1e-10}).x
        return abs(difference - delta) - z * np.sqrt((2 * q + delta - delta**2) / n)

    near = 1e-6
    low = optimize.brentq(excess, -1 + near, difference - near)
    return low, optimize.brentq(excess, difference + near, 1 - near) if difference < 1 else 1


@pytest.mark.parametrize(
    ("only", "other", "n"), [(12, 2, 50), (1, 7, 21), (0, 1, 44), (5, 5, 16), (3, 0, 60), (5, 0, 5)]
)
def test_score_interval_is_the_score_test_inverted(only, other, n):
    assert equivalence.score_interval(only, other, n, 0.9) == pytest.approx(inverted(only, other, n, 0.9), abs=1e-4)


def test_score_interval_is_the_published_one():
    """21 children of whom 1 had the first outcome alone and 7 the second: Fagerland, Lydersen and Laake, Stat. Med. 33
    (2014), their table of intervals, Tango's."""
    assert equivalence.score_interval(1, 7, 21, 0.95) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [16, 30, 60])
def test_shares_without_unlike_pairs_have_wilsons_interval(n):
    wilson = stats.binomtest(0, n).proportion_ci(0.9, method="wilson").high
    assert equivalence.score_interval(0, 0, n, 0.9) == pytest.approx((-wilson, wilson))


def test_score_interval_turns_round_with_its_arms():
    low, high = equivalence.score_interval(5, 0, 5, 0.9)
    assert high == 1 and equivalence.score_interval(0, 5, 5, 0.9) == pytest.approx((-1, -low))


def test_score_interval_where_every_pair_is_unlike():
    for n in range(2, 121):  # at some of them a square is below 0 by rounding
        low, high = equivalence.score_interval(0, n, n, 0.9)
        z2 = stats.norm.ppf(0.95) ** 2
        assert low == -1 and high == pytest.approx((z2 - n) / (z2 + n))
        assert equivalence.score_interval(n, 0, n, 0.9) == pytest.approx((-high, 1))


def test_score_interval_covers_about_as_often_as_it_says():
    rng, n, shares = np.random.default_rng(0), 30, [0.12, 0.04, 0.84]
    counts = rng.multinomial(n, shares, 1_000)
    ends = np.array([equivalence.score_interval(b, c, n, 0.9) for b, c, _ in counts.tolist()])
    assert np.mean((ends[:, 0] <= 0.08) & (ends[:, 1] >= 0.08)) == pytest.approx(0.9, abs=0.03)


# --- ratios, shares, and what counts as the same ---------------------------------------------------------------------


def test_ratio_is_a_geometric_mean_over_seeds_that_reach_in_both():
    members = table({"a": [200, 300, 9999, 500, 640], "b": [100, 300, 400, 9999, 400]})
    found = equivalence.ratio(members, "a", "b", "x_plus_y")
    logs = np.log([200 / 100, 300 / 300, 640 / 400])
    interval = stats.t.interval(0.90, 2, loc=logs.mean(), scale=stats.sem(logs))
    assert found == pytest.approx((3, stats.gmean([2, 1, 1.6]), *np.exp(interval)))
    assert equivalence.ratio(members, "a", "b", "x_plus_y", "examples_seen") == pytest.approx(found)
    assert equivalence.shares(members, "a", "b", "x_plus_y")[:2] == (5, 0)  # one reaches in either arm alone


def test_ratio_of_thirty_seeds_has_bcas_interval():
    rng = np.random.default_rng(0)
    times = {arm: (10 * rng.integers(20, 90, 30)).tolist() for arm in "ab"}
    found = equivalence.ratio(table(times), "a", "b", "x_plus_y")
    logs = np.log(np.array(times["a"]) / times["b"])
    assert found[2:] == pytest.approx(np.exp(intervals.bootstrap_interval(logs, 0.9)))


def test_without_pairs_or_spread_there_is_no_interval():
    members = table({"a": [200, 400, 9999], "b": [100, 200, 9999], "never": [9999] * 3})
    same = equivalence.ratio(members, "a", "b", "x_plus_y")
    assert same[:2] == (2, pytest.approx(2)) and np.isnan(same[2:]).all()
    for other in ("never", "missing"):
        none = equivalence.ratio(members, "a", other, "x_plus_y")
        assert none.n == 0 and np.isnan(none[1:]).all()
    assert np.isnan(equivalence.shares(members, "a", "missing", "x_plus_y")[1:]).all()
    assert equivalence.equivalent(same, equivalence.shares(members, "a", "b", "x_plus_y")) is None


def test_a_seed_that_comes_twice_is_refused():
    members = table({"a": [200, 300], "b": [100, 200]})
    with pytest.raises(ValueError, match="a seed comes twice"):
        equivalence.ratio(pd.concat([members, members.iloc[:1]]), "a", "b", "x_plus_y")


@pytest.mark.parametrize(
    ("ratio", "share", "same"),
    [
        ((0.91, 1.10), (-0.09, 0.09), True),
        ((0.89, 1.0), (0, 0), False),
        ((0.95, 1.12), (0, 0), False),
        ((0.95, 1.05), (-0.11, 0), False),
        ((0.95, 1.05), (0, 0.11), False),
        ((np.nan, np.nan), (0, 0), None),
    ],
)
def test_equivalent_needs_both_intervals_within_their_margins(ratio, share, same):
    assert equivalence.equivalent(Paired(30, 1, *ratio), Paired(30, 0, *share)) is same


def test_sixty_of_sixty_against_sixty_of_sixty_can_be_equivalent():
    rng = np.random.default_rng(0)
    times = {arm: (10 * rng.integers(48, 53, 60)).tolist() for arm in "ab"}
    members = table(times)
    shares = equivalence.shares(members, "a", "b", "x_plus_y")
    assert equivalence.equivalent(equivalence.ratio(members, "a", "b", "x_plus_y"), shares) is True


# --- runs without common seeds ---------------------------------------------------------------------------------------


def test_an_unpaired_ratio_has_the_interval_of_welch_s_t_by_hand():
    ours, theirs = np.array([100.0, 130, 160, 90]), np.array([110.0, 120, 100, 140, 95, 105])
    a, b = np.log(ours), np.log(theirs)
    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))  # Welch and Satterthwaite's
    half = stats.t.ppf(0.95, freedom) * np.sqrt(va + vb)
    middle = a.mean() - b.mean()
    expected = np.exp([middle, middle - half, middle + half])
    np.testing.assert_allclose(equivalence.unpaired_ratio(ours, theirs), expected, rtol=1e-9)
    assert np.isnan(equivalence.unpaired_ratio(ours[:1], theirs)).all()


def test_logs_as_drawn_are_binomial_shares_of_the_accuracy():
    frame = pd.DataFrame({"val_accuracy": np.repeat([0.0, 0.98, 1.0, np.nan], 5000).astype(np.float32), "kept": 1})
    drawn = equivalence.as_drawn(frame, 4096)["val_accuracy"].to_numpy().reshape(4, -1)
    assert (drawn[0] == 0).all() and (drawn[2] == 1).all() and (drawn[3] == 0).all()
    assert abs(drawn[1].mean() - 0.98) < 5 * np.sqrt(0.98 * 0.02 / 4096 / 5000)
    assert drawn[1].std() == pytest.approx(np.sqrt(0.98 * 0.02 / 4096), rel=0.05)
    assert np.array_equal(drawn[1] * 4096, np.round(drawn[1] * 4096))
    np.testing.assert_array_equal(equivalence.as_drawn(frame, 4096)["val_accuracy"].to_numpy().reshape(4, -1), drawn)
