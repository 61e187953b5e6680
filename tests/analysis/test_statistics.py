"""Statistics against hand computations, scipy's own tests and brute force."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.synthetic import crossing, member

from grok_utils.analysis import crossings, inference, intervals, reported, summaries
from grok_utils.pipeline.study_files import make_study


@pytest.fixture
def members() -> pd.DataFrame:
    """Two arms, four seeds of one operation; one member of `linear` never crosses."""
    times = {"baseline": [40, 60, 70, 90], "linear": [20, 50, 40, 999]}
    return crossings.crossings(pd.concat([crossing(s, t, a) for a, of in times.items() for s, t in enumerate(of)]))


def test_crossing_is_the_first_log_strictly_above_the_threshold():
    table = crossings.crossings(member("linear", 0, [0.5, 0.99, 0.9901, 0.2, 1.0]))
    assert table.loc[0, ["reached", "updates", "restricted", "examples_seen"]].tolist() == [True, 30, 30, 960]


def test_a_member_that_never_crosses_is_restricted_to_the_horizon():
    row = crossings.crossings(member("linear", 0, [0.5, 0.99, 0.99])).iloc[0]
    assert not row["reached"] and row["restricted"] == row["horizon"] == 30
    assert np.isnan(row["updates"]) and np.isnan(row["examples_seen"])


@pytest.mark.parametrize("diverged", [1, 4])
def test_a_member_that_diverges_before_or_after_its_crossing_never_counts(diverged):
    row = crossings.crossings(member("linear", 0, [0.5, 0.5, 1.0, 1.0, 1.0], diverged=diverged)).iloc[0]
    assert row["diverged"] and not row["reached"] and row["restricted"] == 50


def test_accuracy_that_is_not_a_number_does_not_cross():
    assert not crossings.crossings(member("linear", 0, [np.nan, 0.5])).loc[0, "reached"]


def test_order_of_rows_does_not_matter():
    frame = pd.concat([crossing(s, 30 + 10 * s) for s in range(3)])
    shuffled = frame.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        crossings.crossings(shuffled).sort_values("seed", ignore_index=True),
        crossings.crossings(frame).sort_values("seed", ignore_index=True),
    )


def test_members_must_share_a_horizon():
    with pytest.raises(ValueError, match=r"\[50, 60\]"):
        crossings.crossings(pd.concat([crossing(0, 10, logs=5), crossing(1, 10, logs=6)]))


def test_rmst_is_the_area_under_the_survival_curve(members):
    """The restricted mean as an integral over updates of the share not yet grokked, against the mean."""
    cells = summaries.summarise(members).set_index("schedule")
    for arm, rows in members.groupby("schedule"):
        times = rows["updates"].fillna(np.inf).to_numpy()
        area = sum((times > u).mean() for u in range(100))  # a unit step a update
        assert cells.loc[arm, "rmst"] == pytest.approx(area)


def test_share_grokked_is_one_minus_scipys_kaplan_meier(members):
    curves = inference.share_band(members)
    for arm, rows in members.groupby("schedule"):
        data = stats.CensoredData.right_censored(rows["restricted"], ~rows["reached"])
        oracle = stats.ecdf(data).cdf
        curve = curves[curves["schedule"] == arm]
        assert curve["share"].tolist() == pytest.approx(oracle.evaluate(curve["update"]).tolist())
        assert curve["update"].iloc[[0, -1]].tolist() == [0, 100] and curve["n"].eq(4).all()


def test_cell_summary_by_hand(members):
    cells = summaries.summarise(members).set_index("schedule")
    assert cells.index.tolist() == ["baseline", "linear"]
    linear = cells.loc["linear"]
    assert (linear["n"], linear["reached"], linear["rmst"], linear["median"]) == (4, 3, 52.5, 45)
    low, high = stats.t.interval(0.95, 3, loc=52.5, scale=stats.sem([20, 50, 40, 100]))
    assert (linear["rmst_low"], linear["rmst_high"]) == pytest.approx((max(low, 0), min(high, 100)))
    assert linear["examples_seen"] == 32 * (20 + 50 + 40) / 3
    # Clopper and Pearson's bounds are quantiles of beta distributions.
    exact = stats.beta.ppf(0.025, 3, 2), stats.beta.ppf(0.975, 4, 1)
    assert (linear["share_low"], linear["share_high"]) == pytest.approx(exact)


def test_all_censored_has_no_interval_and_no_median():
    cell = summaries.summarise(crossings.crossings(pd.concat([crossing(s, 999) for s in range(3)]))).iloc[0]
    assert (cell["rmst"], cell["share"], cell["share_low"]) == (100, 0, 0)
    assert cell["share_high"] == pytest.approx(1 - 0.025 ** (1 / 3))
    assert np.isnan([cell["rmst_low"], cell["rmst_high"], cell["median"], cell["examples_seen"]]).all()


@pytest.mark.parametrize(("times", "median"), [([10, 999], np.nan), ([10, 30, 999], 30), ([10, 999, 999], np.nan)])
def test_median_counts_censored_members(times, median):
    rows = pd.concat([crossing(s, t) for s, t in enumerate(times)])
    assert summaries.summarise(crossings.crossings(rows))["median"].tolist() == pytest.approx([median], nan_ok=True)


def test_mean_interval_is_scipys_confidence_interval_of_a_t_test():
    x = np.random.default_rng(0).normal(5, 2, 7)
    ours = intervals.mean_interval([*x, np.nan, np.inf])
    oracle = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert ours == pytest.approx((7, x.mean(), x.std(ddof=1), oracle.low, oracle.high))
    assert intervals.mean_interval(x, least=ours.mean, greatest=ours.mean)[3:] == (ours.mean, ours.mean)


@pytest.mark.parametrize(("values", "n", "mean"), [([], 0, np.nan), ([3.0], 1, 3), ([3.0, 3.0, 3.0], 3, 3)])
def test_no_interval_without_spread(values, n, mean):
    ours = intervals.mean_interval(values)
    assert ours.n == n and np.isnan([ours.low, ours.high]).all()
    assert ours.mean == pytest.approx(mean, nan_ok=True)


def test_t_interval_covers_as_often_as_it_says():
    draws = np.random.default_rng(1).normal(0, 1, (4000, 3))
    covered = [e.low <= 0 <= e.high for e in map(intervals.mean_interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_paired_differences_are_those_of_scipys_paired_test():
    rng = np.random.default_rng(2)
    base, arm = 10 * rng.integers(30, 90, 6), 10 * rng.integers(10, 60, 6)
    rows = [crossing(s, t, logs=100) for s, t in enumerate(base)]
    rows += [crossing(s, t, "cyclic", logs=100) for s, t in enumerate(arm) if s != 2]  # seed 2 has no partner
    row = summaries.paired_differences(crossings.crossings(pd.concat(rows))).iloc[0]
    base, arm = np.delete(base, 2), np.delete(arm, 2)
    oracle = stats.ttest_rel(arm, base).confidence_interval(0.95)
    assert row["n"] == 5 and row["difference"] == pytest.approx((arm - base).mean())
    assert (row["low"], row["high"]) == pytest.approx((oracle.low, oracle.high))
    assert row["percent"] == pytest.approx(100 * (arm.mean() / base.mean() - 1))


@pytest.mark.parametrize(
    ("arm", "verdict"),
    [([20, 41, 60], "sooner"), ([61, 80, 101], "later"), ([30, 70, 80], "cannot tell"), ([40, 60, 80], "cannot tell")],
)
def test_verdicts_of_paired_differences(arm, verdict):
    rows = [crossing(s, t, logs=20) for s, t in enumerate([40, 60, 80])]
    rows += [crossing(s, t, "linear", logs=20) for s, t in enumerate(arm)]
    assert summaries.paired_differences(crossings.crossings(pd.concat(rows)))["verdict"].tolist() == [verdict]


def test_no_baseline_no_differences(members):
    only = members[members["schedule"] != "baseline"]
    assert summaries.paired_differences(only).empty and "verdict" in summaries.paired_differences(only)


def test_final_metrics_read_the_last_log():
    frame = pd.concat([crossing(s, 40 + 10 * s) for s in range(3)])
    frame.loc[frame["update"] < 100, "val_loss"] = 77
    final = summaries.final_metrics(frame.sample(frac=1, random_state=0)).set_index("metric")
    assert final.loc["final_val_loss", ["n", "mean", "sd"]].tolist() == [3, 2, 1]
    assert final.loc["step_val_acc_99", "mean"] == 50
    assert final.loc["final_val_acc", "mean"] == 1 and np.isnan(final.loc["final_val_acc", "low"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_final_metrics_leave_out_what_is_not_finite(value):
    frame = pd.concat([crossing(0, 40), crossing(1, 40)])
    frame.loc[(frame["seed"] == 1) & (frame["update"] == 100), "val_loss"] = value
    final = summaries.final_metrics(frame).set_index("metric")
    assert final.loc["final_val_loss", ["n", "mean"]].tolist() == [1, 1]


def test_arms_and_operations_come_in_the_protocols_order():
    names = ["zeta", "cyclic", "constant-128", "constant-64", "linear", "baseline"]
    assert crossings.in_order(names) == ["baseline", "linear", "cyclic", "constant-64", "constant-128", "zeta"]
    rows = pd.concat([crossing(0, 40, a, operation=o) for a in names for o in ("permutation", "x_plus_y")])
    cells = summaries.summarise(crossings.crossings(rows))
    assert cells["operation"].unique().tolist() == ["x_plus_y", "permutation"]
    assert cells["schedule"].tolist()[:6] == crossings.in_order(names)


# --- cells of a grid -----------------------------------------------------------------------------------------------

CELLS = [f"learning_rate={rate} weight_decay={decay}" for rate in ("0.0005", "0.002", "0.01") for decay in (0.5, 1)]


def grid(times: dict[tuple[str, str], list[int]], logs: int = 10) -> pd.DataFrame:
    """Rows of members by (arm, cell): seeds 0, 1, … cross at these updates."""
    frames = [
        crossing(s, t, arm, logs).assign(cell=cell) for (arm, cell), of in times.items() for s, t in enumerate(of)
    ]
    return pd.concat(frames, ignore_index=True)


def test_cells_are_groups_of_their_own_in_the_order_of_their_numbers():
    frame = grid({("linear", cell): [10 * i, 20 * i] for i, cell in enumerate(CELLS, start=1)})
    shuffled = frame.sample(frac=1, random_state=0)
    members = crossings.crossings(shuffled)
    assert members["cell"].unique().tolist() == CELLS and len(members) == 12
    cells = summaries.summarise(members)
    assert cells["cell"].tolist() == CELLS and cells["n"].eq(2).all()
    assert cells["rmst"].tolist() == [15, 30, 45, 60, 75, 80]  # 120 updates are restricted to 100
    final = summaries.final_metrics(shuffled)
    assert final.loc[final["metric"] == summaries.RMST, "mean"].tolist() == cells["rmst"].tolist()
    assert inference.share_band(members).groupby("cell")["n"].first().eq(2).all()


def test_an_arm_is_compared_with_the_reference_in_the_same_cell():
    """In the first cell linear is 20 and 40 sooner, in the second 10 and 30 later; the third has no reference."""
    a, b, c = CELLS[:3]
    times = {("baseline", a): [50, 90], ("linear", a): [30, 50], ("baseline", b): [20, 40], ("linear", b): [30, 70]}
    members = crossings.crossings(grid(times | {("linear", c): [10, 10]}))
    found = summaries.paired_differences(members)
    assert found[["cell", "n", "difference"]].to_numpy().tolist() == [[a, 2, -30], [b, 2, 20]]
    assert found["percent"].tolist() == pytest.approx([-100 * 30 / 70, 100 * 20 / 30])
    with pytest.raises(ValueError, match="a seed comes twice"):
        summaries.paired_differences(members, same_cell=False)
    best = summaries.at_best_cells(members, summaries.best_cells(summaries.summarise(members)))
    tuned = summaries.paired_differences(best, same_cell=False).iloc[0]  # linear in c less baseline in b
    assert (tuned["cell"], tuned["difference"]) == (c, -20)


def test_the_best_cell_has_the_smallest_rmst_and_of_equals_the_gentlest():
    low, lower_rate, higher_rate = (
        "learning_rate=0.01 weight_decay=0.5",
        CELLS[3],
        "learning_rate=0.004 weight_decay=0.5",
    )
    times = {("baseline", cell): [90] for cell in CELLS} | {("baseline", CELLS[4]): [20], ("linear", ""): [80]}
    times |= {("cyclic", cell): [50] for cell in (low, higher_rate, lower_rate)}  # 0.005, 0.002 and 0.002
    best = summaries.best_cells(summaries.summarise(crossings.crossings(grid(times))))
    assert best["schedule"].tolist() == ["baseline", "linear", "cyclic"]
    assert best["cell"].tolist() == [CELLS[4], "", lower_rate] and best["tried"].tolist() == [6, 1, 3]
    assert best["learning_rate"].tolist() == pytest.approx([0.01, np.nan, 0.002], nan_ok=True)
    assert best["weight_decay"].tolist() == pytest.approx([0.5, np.nan, 1], nan_ok=True)


def test_best_cells_differ_between_operations():
    one, two = (grid({("linear", a): [t], ("linear", b): [60]}) for a, b, t in [(*CELLS[:2], 30), (*CELLS[:2], 90)])
    frame = pd.concat([one, two.assign(operation="x_div_y")])
    best = summaries.best_cells(summaries.summarise(crossings.crossings(frame)))
    kept = summaries.at_best_cells(frame, best)
    assert kept.groupby("operation")["cell"].unique().to_dict() == {"x_plus_y": CELLS[0], "x_div_y": CELLS[1]}
    assert kept.groupby("operation").size().tolist() == [10, 10]


def test_without_a_grid_best_cells_are_all_there_is(members):
    cells = summaries.summarise(members)
    best = summaries.best_cells(cells)
    pd.testing.assert_frame_equal(best, cells.assign(tried=1))
    pd.testing.assert_frame_equal(summaries.at_best_cells(members, best), members)


def test_an_accuracy_kept_at_every_tenth_log_is_read_there():
    """Logs 10, 20, 25 of 25 have it, the last whatever its number: 99 % are first seen exceeded at log 20."""
    frame = crossing(0, 150, logs=25)
    frame.loc[~frame["update"].isin([100, 200, 250]), "val_accuracy"] = np.nan
    assert crossings.measured(frame, "val_accuracy")["update"].tolist() == [100, 200, 250]
    assert len(crossings.measured(frame, "val_loss")) == 25
    assert crossings.crossings(frame)["updates"].tolist() == [200]
    assert inference.sustained_crossings(frame, logs=2)["updates"].tolist() == [200]
    assert inference.instability(frame)[["logs_after", "share_below"]].to_numpy().tolist() == [[1, 0]]


# --- the reported numbers ------------------------------------------------------------------------------------------


def test_reported_results_are_the_originals():
    table = reported.REPORTED.set_index(["operation", "schedule", "metric"])["reported"]
    assert len(table) == 4 * 4 * 5 and table["x_div_y", "baseline", "step_val_acc_99"] == pytest.approx(
        4353.33, abs=0.01
    )
    assert table["permutation", "exponential", "final_val_acc"] == 0.416015625


def test_prediction_interval_holds_a_mean_of_three_as_often_as_it_says(monkeypatch):
    """Draw ours and a reported mean of 3 from one normal distribution many times: 95 % must agree."""
    rng, rows = np.random.default_rng(3), []
    for i in range(3000):
        ours, theirs = intervals.mean_interval(rng.normal(0, 1, 4)), rng.normal(0, 1, 3).mean()
        key = {"operation": str(i), "schedule": "a", "metric": "m"}
        rows.append(key | ours._asdict() | {"reported": theirs})
    table = pd.DataFrame(rows)
    monkeypatch.setattr(reported, "final_metrics", lambda frame: table.drop(columns="reported"))
    monkeypatch.setattr(reported, "REPORTED", table[["operation", "schedule", "metric", "reported"]])
    assert (reported.beside_reported(None)["verdict"] == "agrees").mean() == pytest.approx(0.95, abs=0.013)


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ([2600, 2640, 2680], "agrees"),
        ([1000, 1010, 1020], "differs"),
        ([2640], "agrees"),
        ([2650], "cannot tell"),
        ([2650, 2650, 2650], "cannot tell"),
    ],
)
def test_verdicts_beside_reported(times, verdict):
    """The original reported 2,640 for the baseline on x_plus_y."""
    frame = pd.concat([crossing(s, t, logs=750) for s, t in enumerate(times)])
    table = reported.beside_reported(frame).set_index("metric")
    assert table.loc["step_val_acc_99", ["reported", "verdict"]].tolist() == [2640, verdict]


def test_nothing_to_set_beside_an_arm_that_was_not_reported():
    assert reported.beside_reported(pd.concat([crossing(s, 40, "cyclic") for s in range(2)])).empty


def test_other_settings_are_named():
    def unlike(**changes):
        arms = {} if "arms" in changes else {"schedules": ["baseline", "linear", "cyclic"]}
        return reported.unlike_protocol(make_study("other", arms | changes))

    assert unlike() == unlike(precision="bf16") == unlike(operations=["x_plus_y"]) == []
    assert unlike(modulus=67, updates=1500) == ["updates 1,500 instead of 7,500", "modulus 67 instead of 97"]
    assert unlike(width=64, optimizer="muon") == ["optimizer muon instead of adamw", "width 64 instead of 128"]
    assert unlike(warm_up=0, heads=8, blocks=1)[1:] == ["heads 8 instead of 4", "blocks 1 instead of 2"]
    rate = ["another learning rate"]
    assert unlike(learning_rate=2e-3) == unlike(grid={"learning_rate": [1e-3, 2e-3]}) == rate
    assert unlike(grid={"learning_rate": [1e-3]}) == []
    schedule = {"schedule": "linear", "length": 3000}
    arms = {"linear": {"batch_size": schedule}, "cyclic": {"batch_size": 64}}
    assert unlike(arms=arms) == ["another batch size"]  # the original reported no cyclic
    assert unlike(arms=arms | {"baseline": None}) == ["another batch size (linear)"]
    assert unlike(updates=30000, arms={"linear": {"batch_size": schedule | {"length": 7500}}}) == [
        "updates 30,000 instead of 7,500"
    ]
