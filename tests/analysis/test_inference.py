"""Inference against brute force, hand computations, scipy's own tests, and simulations whose truth is known."""

import math
from collections import Counter
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.project import ROOT
from support.synthetic import crossing, member

from grok_utils.analysis import crossings, inference, intervals, summaries
from grok_utils.analysis.inference import Contrast
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_study


def table(times: dict[str, list[int]], logs: int = 100) -> pd.DataFrame:
    """`crossings` of arms whose seeds 0, 1, … cross at these updates."""
    return crossings.crossings(
        pd.concat([crossing(s, t, arm, logs) for arm, of in times.items() for s, t in enumerate(of)])
    )


@pytest.fixture(scope="module")
def paper() -> pd.DataFrame:
    return read_study(load_study("paper"), ROOT / "results")[0].assign(cell="")


# --- intervals -------------------------------------------------------------------------------------------------------


def bca(x: np.ndarray, level: float) -> tuple[float, float]:
    """Efron's BCa interval of a mean, by its definition, in loops: its own resamples, jackknife and percentiles."""
    rng = np.random.default_rng(5)
    means = np.array([x[rng.integers(0, len(x), len(x))].mean() for _ in range(20_000)])
    bias = stats.norm.ppf((means < x.mean()).mean() + (means == x.mean()).mean() / 2)
    left_out = np.array([np.delete(x, i).mean() for i in range(len(x))])
    u = left_out.mean() - left_out
    acceleration = (u**3).sum() / (6 * (u**2).sum() ** 1.5)
    z = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    return tuple(np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z))))


@pytest.mark.parametrize("level", [0.90, 0.95])
def test_bootstrap_interval_is_efrons(level):
    x = np.random.default_rng(0).exponential(600, 15)  # skewed: percentiles without correction lie elsewhere
    ours, oracle = intervals.bootstrap_interval(x, level), bca(x, level)
    assert ours == pytest.approx(oracle, abs=0.03 * x.std())
    rng = np.random.default_rng(1)
    plain = stats.bootstrap((x,), np.mean, confidence_level=level, method="percentile", random_state=rng)
    assert abs(plain.confidence_interval.high - oracle[1]) > 0.05 * x.std()


def test_bootstrap_interval_covers_about_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(100, 20, (300, 25))
    covered = np.mean([low <= 100 <= high for low, high in map(intervals.bootstrap_interval, draws)])
    assert 0.90 <= covered <= 0.98
    narrow = np.mean([low <= 100 <= high for low, high in (intervals.bootstrap_interval(x, 0.6) for x in draws[:150])])
    assert 0.48 <= narrow <= 0.72


def test_resampling_repeats_itself():
    x = np.random.default_rng(2).normal(0, 1, 25)
    assert intervals.bootstrap_interval(x) == intervals.bootstrap_interval(x)
    assert inference.sign_flip_p(x) == inference.sign_flip_p(x)
    assert intervals.bootstrap_interval(x) == intervals.bootstrap_interval(x[::-1])
    assert inference.sign_flip_p(x) == inference.sign_flip_p(x[::-1])


def test_percentiles_where_bca_degenerates():
    """Two values so near to each other that the squares in BCa's acceleration underflow to 0/0."""
    low, high = intervals.bootstrap_interval(np.array([0, 1e-200, 1e-200]))
    assert 0 == low < high == 1e-200


@pytest.mark.parametrize("column", ["restricted", "reached"])
def test_no_value_may_be_missing(column):
    with pytest.raises(ValueError, match="2 of 4 values"):
        inference.sign_flip_p([1, np.nan, 3, np.inf])
    members = table({"a": [10] * 4, "b": [20] * 4}).astype({column: float})
    members.loc[:1, column] = np.nan
    with pytest.raises(ValueError, match="2 of 4 values"):
        inference.paired_contrast(members, "a", "b", "x_plus_y", column)


# --- sign flips ------------------------------------------------------------------------------------------------------


def flips(d: list[int]) -> float:
    """p by its definition, in exact integers."""
    hits = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True))) >= abs(sum(d))
        for signs in product((-1, 1), repeat=len(d))
    ]
    return sum(hits) / len(hits)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
def test_sign_flips_are_enumerated(n):
    for scale in (3, 600):  # with many ties, and with few
        d = np.random.default_rng(n).normal(scale / 2, scale, n).round().astype(int).tolist()
        assert inference.sign_flip_p(d) == flips(d)
        assert inference.sign_flip_p(np.negative(d)) == flips(d)


def test_exact_p_is_scipys():
    d = np.random.default_rng(4).normal(300, 600, 13)
    oracle = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert len(oracle.null_distribution) == 2**13
    assert inference.sign_flip_p(d) == pytest.approx(oracle.pvalue, rel=1e-12)


def test_p_is_exact_up_to_twenty_pairs_and_sampled_beyond():
    d = np.random.default_rng(4).normal(300, 600, 21).round(-1)
    bits = np.arange(2**20)[:, None] >> np.arange(20) & 1
    exact = np.mean(np.abs((2 * bits - 1) @ d[:20]) >= abs(d[:20].sum()))
    assert inference.sign_flip_p(d[:20]) == exact
    assert inference.sign_flip_p(d) * 100_001 == pytest.approx(round(inference.sign_flip_p(d) * 100_001))


def convolved(d: np.ndarray) -> float:
    """Exact p of whole numbers at any n: the distribution of the signed sum, a pair after another."""
    reach = int(np.abs(d).sum())
    shares = np.zeros(2 * reach + 1)
    shares[reach] = 1
    for x in np.abs(d[d != 0]):
        shares = (np.roll(shares, x) + np.roll(shares, -x)) / 2  # never over the ends: they are out of reach
    return float(shares[np.abs(np.arange(-reach, reach + 1)) >= abs(d.sum())].sum())


@pytest.mark.parametrize(("n", "mean"), [(30, 22), (30, 30), (120, 10), (120, 17)])
def test_sampled_p_is_near_the_exact_one(n, mean):
    d = np.random.default_rng(n + mean).normal(mean, 60, n).round().astype(int)
    exact = convolved(d)
    assert 0.001 < exact < 0.5 and convolved(d[:10]) == pytest.approx(flips(d[:10].tolist()))
    assert inference.sign_flip_p(d) == pytest.approx(exact, abs=5 * np.sqrt(exact / 100_000))


@pytest.mark.parametrize("n", [3, 5, 20])
def test_all_of_one_sign_has_the_smallest_exact_p(n):
    assert inference.sign_flip_p(np.arange(1, n + 1)) == 2 / 2**n  # 0.25 with three seeds


@pytest.mark.parametrize("n", [1, 20, 30])
def test_all_zero_differences_give_one(n):
    assert inference.sign_flip_p([0] * n) == 1


def test_monte_carlo_agrees_with_enumeration_and_never_gives_zero(monkeypatch):
    d = np.random.default_rng(9).normal(200, 600, 16)
    exact = inference.sign_flip_p(d)
    assert 0.05 < exact < 0.5
    monkeypatch.setattr(inference, "EXACT_UP_TO", 15)
    sampled = inference._sign_flip_p.__wrapped__(np.sort(d).tobytes())  # not as it was remembered
    assert sampled != exact and sampled == pytest.approx(exact, abs=5 * np.sqrt(exact / 100_000))
    assert inference.sign_flip_p(np.arange(1, 61)) == 1 / 100_001  # 0 + 1 hits


def test_sums_that_tie_but_for_rounding_count_as_ties():
    tenths = np.array([9, 4, 3, 1, 1, 8, -4])  # taken as they are, sums of tenths would miss one pattern and its mirror
    assert inference.sign_flip_p(tenths / 10) == flips(tenths.tolist())


def test_sign_flips_reject_a_true_null_hypothesis_as_often_as_they_say():
    p = np.array([inference.sign_flip_p(d) for d in np.random.default_rng(7).laplace(0, 600, (1500, 11))])
    for alpha in (0.05, 0.2):
        assert (p <= alpha).mean() == pytest.approx(alpha, abs=4 * np.sqrt(alpha * (1 - alpha) / 1500))


# --- contrasts -------------------------------------------------------------------------------------------------------


def test_paired_contrast_by_hand():
    times = {"baseline": [400, 600, 700, 900, 500], "linear": [200, 500, 400, 2000]}  # no seed 4; one never crosses
    members = table(times)
    ours = inference.paired_contrast(members.sample(frac=1, random_state=0), "linear", "baseline", "x_plus_y")
    d = [-200, -100, -300, 100]  # 1,000 is the horizon
    assert (ours.n, ours.reference_mean, ours.difference) == (4, 650, -125)
    assert ours.p == flips(d) == 6 / 16  # ±700 twice, ±500 four times
    assert (ours.low, ours.high) == pytest.approx(stats.ttest_1samp(d, 0).confidence_interval(0.95))
    assert (ours.low_90, ours.high_90) == pytest.approx(stats.ttest_1samp(d, 0).confidence_interval(0.90))


@pytest.mark.parametrize("n", [29, 30])
def test_the_interval_is_students_below_thirty_pairs_and_a_bootstrap_from_there_on(n):
    rng = np.random.default_rng(6)
    start, d = 10 * rng.integers(300, 500, n), 10 * rng.integers(-60, 200, n)
    ours = inference.paired_contrast(table({"a": (start + d).tolist(), "b": start.tolist()}, 750), "a", "b", "x_plus_y")
    student = [stats.ttest_1samp(d, 0).confidence_interval(level) for level in (0.95, 0.90)]
    bootstrap = [bca(d, level) for level in (0.95, 0.90)]
    (low, high), (low_90, high_90) = student if n < 30 else bootstrap
    assert ours[3:7] == pytest.approx((low, high, low_90, high_90), abs=0.01 * d.std() if n < 30 else 0.03 * d.std())
    assert abs(student[0].low - bootstrap[0][0]) + abs(student[0].high - bootstrap[0][1]) > 0.04 * d.std()


def test_pairs_do_not_cross_operations_and_other_columns_can_be_contrasted():
    frame = pd.concat([crossing(0, t, a, operation=o) for a, o, t in [("a", "p", 20), ("b", "p", 50), ("a", "q", 90)]])
    members = crossings.crossings(frame)
    assert inference.paired_contrast(members, "a", "b", "p")[:3] == (1, 50, -30)
    assert inference.paired_contrast(members, "a", "b", "p", "examples_seen")[:3] == (1, 32 * 50, -32 * 30)
    none = inference.paired_contrast(members, "a", "b", "q")
    assert none.n == 0 and np.isnan(none[1:]).all()


def test_a_diverged_member_stays_in_its_pair_with_the_horizon():
    frame = pd.concat([crossing(0, 30), member("linear", 0, [1.0] * 10, diverged=9)])
    assert inference.paired_contrast(crossings.crossings(frame), "linear", "baseline", "x_plus_y").difference == 70


def test_a_seed_that_comes_twice_is_an_error():
    members = pd.concat([table({"a": [10], "b": [20]})] * 2)
    with pytest.raises(ValueError, match="a seed comes twice"):
        inference.paired_contrast(members, "a", "b", "x_plus_y")


@pytest.mark.parametrize(("both", "only_a", "only_b"), [(2, 7, 3), (4, 20, 12), (3, 0, 0)])
def test_contrast_of_shares_is_mcnemars_exact_test(both, only_a, only_b):
    """Twice the tail of binomial coefficients, in whole numbers; exact beyond twenty pairs too."""
    times = {"a": [10] * (both + only_a) + [2000] * only_b, "b": [10] * both + [2000] * only_a + [10] * only_b}
    ours = inference.paired_contrast(table(times), "a", "b", "x_plus_y", "reached")
    unlike = only_a + only_b
    tail = sum(math.comb(unlike, k) for k in range(max(only_a, only_b), unlike + 1)) / 2**unlike
    assert ours.p == pytest.approx(min(1, 2 * tail)) and ours.n == both + unlike
    assert ours.difference == pytest.approx((only_a - only_b) / (both + unlike))


# --- Holm, equivalence, verdicts -------------------------------------------------------------------------------------


def closed_testing(p: np.ndarray) -> list[float]:
    """Adjusted p of each hypothesis: the largest Bonferroni p of any set of hypotheses that contains it."""
    m = len(p)
    sets = [s for k in range(1, m + 1) for s in combinations(range(m), k)]
    return [max(min(1, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(m)]


@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_holm_is_the_closed_bonferroni_test(m):
    rng = np.random.default_rng(m)
    for p in (rng.uniform(0, 1, m), rng.uniform(0, 0.1, m), rng.choice([0.01, 0.02], m)):
        assert inference.holm(p).tolist() == pytest.approx(closed_testing(p))


def test_holm_by_hand():
    assert inference.holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])
    assert inference.holm([0.01, 0.5, 0.6]).tolist() == pytest.approx([0.03, 1, 1])
    assert inference.holm([0.02, np.nan, 0.01]).tolist() == pytest.approx([0.04, np.nan, 0.03], nan_ok=True)
    assert inference.holm([]).tolist() == []


def test_holm_within_families_of_a_table():
    rows = pd.DataFrame({"family": ["a", "b", "a", "b"], "p": [0.03, 0.5, 0.01, 0.02]})
    assert rows.groupby("family")["p"].transform(inference.holm).tolist() == pytest.approx([0.03, 0.5, 0.02, 0.04])


def contrast(low_90: float, high_90: float) -> Contrast:
    return Contrast(30, 3700, (low_90 + high_90) / 2, low_90 - 40, high_90 + 40, low_90, high_90, 0.5, 0)


@pytest.mark.parametrize(
    ("low", "high", "shares", "expected"),
    [
        (-149, 149, (1, 0.8), True),  # the 95 % interval does not lie inside: it need not
        (-149, 151, (1, 1), False),
        (-150, 100, (1, 1), False),
        (200, 300, (1, 1), False),
        (-10, 10, (1, 0.79), None),
        (-10, 10, (0.79, 1), None),
        (200, 300, (0, 1), None),
        (-10, 10, (1, np.nan), None),
        (np.nan, np.nan, (1, 1), None),
    ],
)
def test_equivalence(low, high, shares, expected):
    assert inference.equivalent(contrast(low, high), 150, shares) is expected


def test_equivalence_is_claimed_wrongly_in_at_most_about_a_twentieth():
    """At a true difference of exactly the margin, two one-sided tests at 5 % err 5 % of the time."""
    claimed = []
    for d in np.random.default_rng(8).normal(150, 300, (250, 40)):
        interval = intervals.bootstrap_interval(d, 0.90)
        claimed.append(inference.equivalent(contrast(*interval), 150, (1, 1)))
    assert 0.01 <= np.mean(claimed) <= 0.10


@pytest.mark.parametrize(
    ("difference", "p", "same", "claimed", "expected"),
    [
        (-300, 0.01, False, -1, "supported"),
        (300, 0.01, False, -1, "contradicted"),
        (300, 0.01, False, 1, "supported"),
        (-300, 0.01, None, 1, "contradicted"),
        (-300, 0.05, False, -1, "cannot tell"),
        (-300, 0.2, None, -1, "cannot tell"),
        (-20, 0.2, True, -1, "equivalent"),
        (-20, 0.01, True, -1, "equivalent"),
        (-20, 0.01, True, 0, "supported"),
        (-300, 0.01, False, 0, "contradicted"),
        (-300, 0.2, False, 0, "cannot tell"),
        (np.nan, np.nan, None, -1, "cannot tell"),
    ],
)
def test_verdicts(difference, p, same, claimed, expected):
    assert inference.verdict(difference, p, same, claimed) == expected


# --- share grokked, with its band ------------------------------------------------------------------------------------


def test_share_band_by_hand():
    members = table({"linear": [100, 300, 300, 2000, 500], "baseline": [400] * 5})
    band = inference.share_band(members, [0, 290, 300, 1000])
    assert band["schedule"].tolist() == ["baseline"] * 4 + ["linear"] * 4 and band["n"].eq(5).all()
    linear = band[band["schedule"] == "linear"]
    assert linear["reached"].tolist() == [0, 1, 3, 4] and linear["share"].tolist() == [0, 0.2, 0.6, 0.8]
    # Clopper and Pearson's bounds are quantiles of beta distributions.
    assert linear["low"].tolist() == pytest.approx([0, *(stats.beta.ppf(0.025, k, 6 - k) for k in (1, 3, 4))])
    assert linear["high"].tolist() == pytest.approx([stats.beta.ppf(0.975, k + 1, 5 - k) for k in (0, 1, 3, 4)])


def test_without_updates_the_band_is_told_at_both_ends_and_where_it_steps(paper):
    members = crossings.crossings(paper)
    curve = inference.share_band(members)
    band = inference.share_band(members, range(members["horizon"].max() + 1))
    steps = band[band["share"].diff().ne(0) | band["update"].isin([0, members["horizon"].max()])]
    pd.testing.assert_frame_equal(curve, steps.reset_index(drop=True), check_dtype=False)
    assert ((band["low"] <= band["share"]) & (band["share"] <= band["high"])).all()


def test_a_diverged_member_is_not_grokked_at_any_update():
    members = crossings.crossings(pd.concat([crossing(0, 30), member("baseline", 1, [1.0] * 10, diverged=9)]))
    assert inference.share_band(members, [10, 30, 100])["reached"].tolist() == [0, 1, 1]


def test_no_share_past_the_horizon():
    with pytest.raises(ValueError, match="update 110 is past the horizon 100"):
        inference.share_band(table({"linear": [30]}, logs=10), [30, 110])


# --- the clock of examples -------------------------------------------------------------------------------------------


def test_restricted_examples_by_hand():
    """A log is 320 examples; arm `small` sees a tenth of them, and ends before 2,000."""
    frame = [crossing(s, t, "linear") for s, t in enumerate([20, 60, 70, 999])]  # at 640, 1,920, 2,240, never
    frame += [member("linear", 4, [1.0] * 10, diverged=9)]  # after crossing, and after 2,000 examples
    small = crossing(0, 20, "small")
    small["examples_seen"] //= 10
    members = inference.crossings_by_examples(pd.concat([*frame, small]), horizon=2000)
    assert set(members["schedule"]) == {"linear"}
    assert members["restricted"].tolist() == [640, 1920, 2000, 2000, 2000]
    assert members["reached"].tolist() == [True, True, False, False, False]
    assert members["horizon"].eq(2000).all() and members["updates"].tolist()[:2] == [20, 60]
    assert members[["updates", "examples_seen"]].iloc[2:].isna().all(axis=None)
    cell = summaries.summarise(members).iloc[0]
    assert (cell["rmst"], cell["reached"], cell["median"]) == (1712, 2, pytest.approx(np.nan, nan_ok=True))


def test_an_arm_that_just_reaches_the_horizon_stays():
    frame = crossing(0, 100)  # the last of ten logs, at 3,200 examples
    assert inference.crossings_by_examples(frame, 3200)["restricted"].tolist() == [3200]
    assert inference.crossings_by_examples(frame, 3201).empty


def test_restricted_examples_of_paper_against_a_loop(paper):
    members = inference.crossings_by_examples(paper)
    assert len(members) == 60  # exponential sees exactly the horizon's 1,297,120
    values = members.set_index(crossings.MEMBER)["restricted"]
    for key, rows in paper.groupby(crossings.MEMBER):
        seen = [e for e, a in zip(rows["examples_seen"], rows["val_accuracy"], strict=True) if a > 0.99]
        assert values[key] == min([*seen, 1_297_120])


# --- robustness ------------------------------------------------------------------------------------------------------


def sustained(accuracy: list[float], logs: int, threshold: float = 0.99) -> int | None:
    """Log number of the first of `logs` logs in a row above the threshold, in a loop."""
    for i in range(len(accuracy) - logs + 1):
        if all(a > np.float32(threshold) for a in accuracy[i : i + logs]):
            return i
    return None


@pytest.mark.parametrize(
    ("accuracy", "updates"),
    [
        ([0.5, 1, 0.5, 1, 1, 1, 0.5], 40),
        ([1, 1, 0.99, 1, 1, 0.5], np.nan),  # 0.99 is not above it
        ([0.5, 1, 1, 1], 20),  # the run ends with them
        ([0.5, 0.5, 1, 1], np.nan),  # it ends too soon
        ([1, 1, np.nan, 1, 1], np.nan),
    ],
)
def test_sustained_crossing_by_hand(accuracy, updates):
    row = inference.sustained_crossings(member("linear", 0, accuracy).sample(frac=1, random_state=0), logs=3).iloc[0]
    assert row["updates"] == pytest.approx(updates, nan_ok=True) and row["reached"] == (updates > 0)
    assert row["restricted"] == (updates if updates > 0 else 10 * len(accuracy))


def test_sustained_crossing_counts_no_diverged_member_and_no_neighbour():
    """Members lie one after another: the last logs of one and the first of the next are no row of ten."""
    frame = pd.concat([member("a", 0, [0.5, 1, 1]), member("a", 1, [1, 1, 0.5]), member("b", 0, [1] * 3, diverged=2)])
    assert inference.sustained_crossings(frame, logs=3)["restricted"].eq(30).all()
    assert inference.sustained_crossings(frame, logs=2)["updates"].tolist()[:2] == [20, 10]


def test_sustained_crossings_of_paper_against_a_loop(paper):
    members = inference.sustained_crossings(paper).set_index(crossings.MEMBER)
    first = crossings.crossings(paper).set_index(crossings.MEMBER)
    assert members.index.tolist() == first.index.tolist() and (members["restricted"] >= first["restricted"]).all()
    for key, rows in paper.groupby(crossings.MEMBER):
        at = sustained(rows["val_accuracy"].tolist(), 10)
        assert members.loc[key, "restricted"] == (7500 if at is None else rows["update"].iloc[at])
        assert at is None or members.loc[key, "examples_seen"] == rows["examples_seen"].iloc[at]
    assert (members["restricted"] > first["restricted"]).any()


def test_instability_by_hand():
    rows = [
        member("a", 0, [0.5, 1, 0.99, 1, 0.4]),  # two of three
        member("a", 1, [0.5, 0.5, 0.5, 0.5, 0.7]),  # never crosses
        member("a", 2, [0.5, 0.5, 0.5, 0.5, 1]),  # no logs after
        member("a", 3, [0.5, 1, np.nan, 0.1, np.nan], diverged=2),  # it did cross
    ]
    ours = inference.instability(pd.concat(rows).sample(frac=1, random_state=0)).sort_values("seed")
    assert ours["updates"].tolist() == pytest.approx([20, np.nan, 50, 20], nan_ok=True)
    assert ours["logs_after"].tolist() == [3, 0, 0, 3]
    assert ours["share_below"].tolist() == pytest.approx([2 / 3, np.nan, np.nan, 1], nan_ok=True)
    assert ours["final_accuracy"].tolist() == pytest.approx([0.4, 0.7, 1, np.nan], nan_ok=True)
    assert ours["diverged"].tolist() == [False, False, False, True]


def test_instability_of_paper_against_a_loop(paper):
    ours = inference.instability(paper).set_index(crossings.MEMBER)
    assert len(ours) == 60 and ours["share_below"].max() > 0.1
    for key, rows in paper.groupby(crossings.MEMBER):
        accuracy = rows["val_accuracy"].tolist()
        later = accuracy[next((i for i, a in enumerate(accuracy) if a > 0.99), len(accuracy)) + 1 :]
        share = np.mean([a <= 0.99 for a in later]) if later else np.nan
        assert ours.loc[key, "share_below"] == pytest.approx(share, nan_ok=True)
        assert ours.loc[key, "final_accuracy"] == accuracy[-1] and ours.loc[key, "logs_after"] == len(later)


def test_every_contrast_of_paper(paper):
    """Three seeds decide nothing: no p below 2/2³. Twelve contrasts at each clock."""
    frames = {"updates": crossings.crossings(paper), "examples": inference.crossings_by_examples(paper)}
    for members in frames.values():
        for operation, arm in product(members["operation"].unique(), ["linear", "exponential", "cyclic"]):
            ours = inference.paired_contrast(members, arm, "baseline", operation)
            rmst = Counter(dict(members[members["operation"] == operation].groupby("schedule")["restricted"].mean()))
            assert ours.n == 3 and ours.difference == pytest.approx(rmst[arm] - rmst["baseline"])
            assert ours.p >= 0.25 and (np.isnan(ours.low) or ours.low <= ours.difference <= ours.high)


def test_share_above_after_the_touch_is_of_those_that_touch_in_time():
    """200 logs; 99 % must still hold 500 updates later, and who touches after 1,500 is not asked."""
    at = {0: [*range(100, 2001, 10)], 1: [100, *range(700, 2001, 10)], 2: [*range(1500, 2001, 10)]}
    at |= {3: [*range(1510, 2001, 10)], 4: [], 5: [*range(100, 2001, 10)]}
    runs = [
        member(
            "linear",
            seed,
            [1.0 if u in above else 0.5 for u in range(10, 2001, 10)],
            diverged=30 if seed == 5 else None,
        )
        for seed, above in at.items()
    ]
    frame = pd.concat(runs)
    frame.loc[frame["diverged"], "val_accuracy"] = np.nan
    found = inference.after_touch(frame).iloc[0]
    assert found[["n", "above", "share"]].tolist() == [4, 2, 0.5]  # of 0, 1, 2 and 5: 1 has lost it, 5 diverged
    assert (found["low"], found["high"]) == intervals.share_interval(2, 4)
    assert inference.after_touch(frame[frame["seed"].isin([3, 4])]).empty
