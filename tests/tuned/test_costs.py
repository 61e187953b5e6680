"""Updates against examples, against scipy's fits and hulls, and simulations whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, spatial
from support.synthetic import crossing, member

from grok_utils.analysis import inference
from grok_utils.analysis.crossings import crossings
from grok_utils.tuned import costs

SIZES = {f"constant-{size}": size for size in (32, 64, 128, 256, 512, 1024, 2048)}


def table(updates: dict[str, np.ndarray], sizes: dict[str, float], operation: str = "x_plus_y", horizon: int = 7500):
    """`crossings` of arms whose seeds 0, 1, … reach at these updates, at `sizes` examples an update."""
    rows = pd.concat(
        pd.DataFrame({"schedule": arm, "seed": np.arange(len(of)), "updates": of}) for arm, of in updates.items()
    )
    rows["reached"] = rows["updates"] <= horizon
    rows["restricted"], rows["updates"] = rows["updates"].clip(upper=horizon), rows["updates"].where(rows["reached"])
    rows["restricted_examples"] = rows["restricted"] * rows["schedule"].map(sizes)
    rows["examples_seen"] = rows["restricted_examples"].where(rows["reached"])
    return rows.assign(operation=operation, cell="", horizon=horizon).reset_index(drop=True)


def hyperbola(rng, seeds=30, sd=0.1, gamma=1.0, sizes=SIZES, least=300, critical=200):
    luck = rng.normal(0, sd, seeds)  # common to all arms
    return {
        arm: 25 + least * (1 + (critical / size) ** gamma) * np.exp(luck + rng.normal(0, sd, seeds))
        for arm, size in sizes.items()
    }


# --- steps and examples ----------------------------------------------------------------------------------------------


def test_steps_and_examples_is_scipys_least_squares():
    members = table(hyperbola(np.random.default_rng(0), gamma=0.8), SIZES)
    found = costs.steps_and_examples(members, SIZES, 50).set_index(["form", "coefficient"])
    log_s = [np.log(members.loc[members["schedule"] == arm, "restricted"] - 25).mean() for arm in SIZES]
    batch = np.array(list(SIZES.values()))

    def curve(b, least, critical, gamma=1.0):
        return np.log(least) + np.log1p((critical / b) ** gamma)

    for form, start in {"hyperbola": [300, 200], "power": [300, 200, 1]}.items():
        fitted, _ = optimize.curve_fit(curve, batch, log_s, start)
        assert found.loc[form, "estimate"].tolist() == pytest.approx(fitted.tolist(), rel=1e-3)
        error = ((curve(batch, *fitted) - log_s) ** 2).mean()
        assert found.loc[form, "aic"].to_numpy() == pytest.approx(7 * np.log(error) + 2 * (len(start) + 1))


def test_intervals_of_the_critical_batch_cover_the_truth_about_as_often_as_they_say():
    covered, clear = [], []
    for run in range(60):
        members = table(hyperbola(np.random.default_rng([1, run]), seeds=10), SIZES)
        found = costs.steps_and_examples(members, SIZES, 300).set_index(["form", "coefficient"])
        for form, name, truth in (("hyperbola", "B_c", 200), ("power", "gamma", 1)):
            row = found.loc[(form, name)]
            covered.append([row["low"] <= truth <= row["high"], row["low_90"] <= truth <= row["high_90"]])
        bent = table(hyperbola(np.random.default_rng([2, run]), seeds=10, gamma=0.6), SIZES)
        row = costs.steps_and_examples(bent, SIZES, 300).set_index("coefficient").loc["gamma"]
        clear.append(row["high"] < 1)
    wide, narrow = np.mean(covered, axis=0)
    assert 0.89 <= wide <= 0.99 and 0.83 <= narrow <= 0.96 and np.mean(clear) > 0.9


def test_an_arm_with_fewer_seeds_keeps_them_in_each_resample():
    times = hyperbola(np.random.default_rng(0), seeds=20)
    few = {arm: of if arm == "constant-512" else of[:8] for arm, of in times.items()}
    wide = costs.by_seed(table(few, SIZES), "restricted")
    means = costs._means(wide, 500)
    assert means[0] == pytest.approx([few[arm].mean() for arm in wide]) and np.isfinite(means).all()
    spread = means[1:].std(axis=0) / [few[arm].std() / np.sqrt(len(few[arm])) for arm in wide]
    # strata of 8 and 12 seeds: of constant-512 only the spread within each is drawn
    assert spread == pytest.approx(1, abs=0.15)
    assert costs.steps_and_examples(table(few, SIZES), SIZES, 10)["seeds"].eq(8).all()


# --- the frontier ----------------------------------------------------------------------------------------------------


def height(x, y, at):
    """The lower hull of the undominated points at `at`, from scipy's convex hull; NaN outside its range."""
    points = np.array(
        [p for p in zip(x, y, strict=True) if not any((q <= p).all() and (q < p).any() for q in np.c_[x, y])]
    )
    points = points[np.argsort(points[:, 0])]
    if not points[0, 0] <= at <= points[-1, 0]:
        return np.nan
    if len(points) > 2:
        points = points[np.sort(spatial.ConvexHull(points).vertices)]
    on_hull = [points[0]]  # of the vertices those that no chord of others lies below
    for p in points[1:]:
        below = [
            np.interp(p[0], [a[0], b[0]], [a[1], b[1]]) < p[1] for a in points for b in points if a[0] < p[0] < b[0]
        ]
        if not any(below):
            on_hull.append(p)
    return np.interp(at, *np.transpose(on_hull))


def test_distance_to_the_frontier_is_that_to_scipys_hull():
    rng = np.random.default_rng(0)
    x, y, at, value = rng.normal(size=(300, 7)), rng.normal(size=(300, 7)), rng.normal(size=300), rng.normal(size=300)
    x[:50, 1] = x[:50, 0]  # ties
    found = costs.above_frontier(x, y, at, value)
    oracle = [v - height(a, b, t) for a, b, t, v in zip(x, y, at, value, strict=True)]
    assert found == pytest.approx(oracle, nan_ok=True)
    assert 50 < np.isnan(found).sum() < 250


def test_on_the_frontier_itself_the_distance_is_zero_and_its_ends_are_within():
    x, y = np.array([[0.0, 1.0, 2.0, 3.0]]), np.array([[3.0, 1.0, 0.5, 2.0]])  # the last one is dominated
    for at, least in ((0, 3), (0.5, 2), (1, 1), (1.5, 0.75), (2, 0.5)):
        assert costs.above_frontier(x, y, np.array([at]), np.array([least]))[0] == 0
    alone = costs.above_frontier(np.ones((2, 1)), np.full((2, 1), 5.0), np.array([1.0, 1.1]), np.full(2, 7.0))
    assert alone.tolist() == pytest.approx([2.0, np.nan], nan_ok=True)
    for at in (-0.01, 2.01):
        assert np.isnan(costs.above_frontier(x, y, np.array([at]), np.array([1.0])))[0]


@pytest.mark.parametrize("critical", [50, 200, 1000])
def test_a_constant_between_two_lies_at_most_six_percent_below(critical):
    tried, between = np.array(list(SIZES.values())), np.geomspace(32, 2048, 500)
    (x, y), (at, value) = ((np.log(b + critical), np.log(1 + critical / b)) for b in (tried, between))
    found = costs.above_frontier(np.tile(x, (500, 1)), np.tile(y, (500, 1)), at, value)
    assert -0.06 < np.nanmin(found) < -0.03 and np.nanmax(found) < 1e-9


def test_a_schedule_is_below_the_frontier_where_it_is_and_not_where_it_is_on_it():
    rng = np.random.default_rng(3)
    curve = hyperbola(rng, sd=0.03)
    middle = 25 + 300 * (1 + 200 / 180) * np.exp(rng.normal(0, 0.03, 30))  # as a constant 180 would do
    sizes = SIZES | {"below": 180, "on": 180, "outside": 5000}
    members = table(curve | {"below": 0.8 * middle, "on": middle, "outside": middle}, sizes)
    both = pd.concat([members, members.assign(operation="x_div_y")])
    found = costs.frontier(both, SIZES, 1_999).set_index(["operation", "schedule"])
    assert len(found) == 6 and found["passes"].sum() == 2
    for operation in ("x_plus_y", "x_div_y"):
        rows = found.loc[operation]
        assert rows.loc["below", "passes"] and rows.loc["below", "low"] < np.log(0.8) + 0.05 < 0
        assert rows.loc["on", "low"] < 0 < rows.loc["on", "high"] and rows.loc["on", "p"] > 0.05
        assert rows.loc["outside", ["distance", "low", "high", "p"]].isna().all()
    assert found.loc[("x_plus_y", "below"), "adjusted_p"] == pytest.approx(6 * 2 / 2000)  # of six tests, two without p


def test_an_arm_that_resamples_put_outside_the_range_has_no_verdict():
    rng = np.random.default_rng(0)
    curve = hyperbola(rng, sd=0.05)
    edge = {"edge": curve["constant-2048"][rng.permutation(30)]}  # at some 0.99 of the largest one's examples
    members = table(curve | edge, SIZES | {"edge": 0.99 * 2048})
    members.loc[members["schedule"] == "edge", "restricted"] *= 0.7
    row = costs.frontier(members, SIZES, 999).iloc[0]
    assert row["distance"] < -0.2 and row["low"] == -np.inf and row["high"] == np.inf and row["p"] > 0.05


# --- domination, and the noise scale ---------------------------------------------------------------------------------


def test_a_schedule_dominates_by_the_cost_in_which_it_is_better():
    rng = np.random.default_rng(0)
    base = rng.normal(1000, 50, 30)
    near = base * np.exp(rng.normal(0, 0.02, 30))
    updates = {"comparator": base, "cheap": near, "quick": 0.8 * near, "slow": 1.15 * near, "same": near}
    sizes = {"comparator": 512, "cheap": 300, "quick": 640, "slow": 200, "same": 512}
    members = table(updates, sizes)
    found = costs.domination(members, {"x_plus_y": "comparator"}, ["cheap", "quick", "slow", "same", "absent"])
    ways = found[found["passes"]].set_index("schedule")["better"]
    assert ways.to_dict() == {"cheap": "examples_seen", "quick": "updates"}
    cheap = found.set_index(["schedule", "better"]).loc[("cheap", "examples_seen")]
    contrast = inference.paired_contrast(members, "cheap", "comparator", "x_plus_y", "restricted_examples")
    assert (cheap["difference"], cheap["p"]) == (contrast.difference, contrast.p)
    assert cheap["ratio"] == pytest.approx(np.exp(np.log(near / base).mean()))
    assert found["adjusted_p"].tolist() == inference.holm(found["p"]).tolist() and len(found) == 8


def test_noise_scale_is_the_ratio_of_means_within_the_run():
    frame = pd.concat([crossing(0, 200, logs=30), crossing(1, 900, logs=30), crossing(2, 100, logs=30)])
    frame["gradient_trace"], frame["gradient_square"] = frame["update"].astype(float), 2.0
    frame.loc[frame["update"] < 20, "gradient_trace"] = 1e9
    frame.loc[frame["update"] > 180, "gradient_trace"] = 1e9
    frame.loc[frame["seed"] == 2, "gradient_square"] = -0.1
    found = costs.noise_scale(frame, crossings(frame)).set_index("seed")
    assert found.index.tolist() == [0, 2]  # seed 1 never reaches
    assert found.loc[0, "noise_scale"] == np.mean(np.arange(20, 181, 10)) / 2 and np.isnan(found.loc[2, "noise_scale"])


def test_restricted_examples_are_those_of_the_whole_run_where_it_never_reaches():
    members = crossings(pd.concat([member("linear", 0, [0.5, 1.0, 1.0]), member("linear", 1, [0.5, 0.5, 0.5])]))
    assert members["restricted_examples"].tolist() == [640, 960]
