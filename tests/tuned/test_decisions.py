"""Stage 3's decisions on synthetic members whose truth is known: a test for each rule of the plan's part two."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.synthetic import rows
from support.tuned import spread, stage_2, stage_3

from grok_utils.analysis import equivalence, inference
from grok_utils.pipeline.study_files import load_study
from grok_utils.studies import runs_of
from grok_utils.tuned import choices, costs, decisions

ALL = frozenset({"constant-128", "baseline", "constant-2048"})


# --- members ---------------------------------------------------------------------------------------------------------


def records(updates, tmp_path, crossings=(1500.0, np.inf)):
    """The study `surface-schedules` as if of so many updates, and rows of members of `linear` that cross there."""
    study = replace(load_study("surface-schedules"), updates=updates)
    run = next(run for run in runs_of(study, tmp_path) if run.arm.name == "linear")
    first = {m.seed: i for i, m in reversed(list(enumerate(run.members)))}
    seeds = sorted(first)[: len(crossings)]
    return study, pd.concat(rows(run, first[s], at) for s, at in zip(seeds, crossings, strict=True))


def test_beyond_the_horizon_a_time_counts_as_the_horizon_and_as_its_examples(tmp_path):
    study, frame = records(2000, tmp_path)
    _, longer = records(7500, tmp_path)
    seen = longer[longer["seed"] == longer["seed"].min()].set_index("update")["examples_seen"]
    for horizon, times in {1000: (1000, 1000), 2000: (1500, 2000), 7500: (1500, 7500)}.items():
        found = decisions.at_horizons(study, frame)[horizon].query("outcome == 'touch'")
        assert found["restricted"].tolist() == [*times]
        assert found["reached"].tolist() == [horizon > 1000, False] and found["horizon"].eq(2000).all()
        assert found["updates"].notna().tolist() == found["examples_seen"].notna().tolist() == [horizon > 1000, False]
        assert found["restricted_examples"].tolist() == seen[[*times]].tolist()


def test_final_accuracy_is_that_of_the_last_log_by_the_horizon(tmp_path):
    study, frame = records(2000, tmp_path)
    at = {h: decisions.at_horizons(study, frame)[h]["final_accuracy"].iloc[0] for h in decisions.HORIZONS}
    assert at[1000] == pytest.approx(0.2 + 0.6 * 1000 / 1500) and at[2000] == at[7500] == pytest.approx(0.999)


def test_the_held_out_operation_takes_the_other_ones_cells_and_comparator_and_resolution():
    both = pd.concat([stage_3({"linear": [100, 200]}, o) for o in ("x_div_y", "x_minus_y")])
    elsewhere = both.assign(learning_rate=0.001, restricted=9.0)
    chosen = stage_2(both, second_to_first=1.2)
    found = decisions.at_chosen(pd.concat([both, elsewhere]), chosen)
    held_out = found[found["operation"] == "x_minus_y"]
    assert held_out["learning_rate"].eq(0.008).all() and held_out["second_to_first"].eq(1.2).all()
    assert held_out["comparator"].eq("constant-128").all() and len(found) == 4


def test_each_outcome_is_read_at_its_own_cell_and_kept_on_permutation_at_touchs():
    members = pd.concat(
        [stage_3({"linear": [9]}, o, outcome) for o in ("x_plus_y", "permutation") for outcome in ("touch", "kept")]
    )
    members = pd.concat([members, members.assign(learning_rate=0.001)])
    chosen = stage_2(members)
    chosen.loc[chosen["outcome"] == "kept", "learning_rate"] = 0.001
    found = decisions.at_chosen(members, chosen).set_index(["operation", "outcome"])["learning_rate"]
    expected = {("x_plus_y", "touch"): 0.008, ("x_plus_y", "kept"): 0.001}
    assert found.to_dict() == expected | {("permutation", "touch"): 0.008, ("permutation", "kept"): 0.008}


# --- contrasts -------------------------------------------------------------------------------------------------------


def one(second_to_first=1.0, arm="linear", reference="constant-128", **times):
    """The contrast of `linear` with the comparator, of these times."""
    members = stage_3({arm: times["ours"], reference: times["theirs"], "baseline": times["theirs"]})
    table = decisions.contrasts(members, stage_2(members, second_to_first=second_to_first))
    return table.query("schedule == @arm").iloc[0]


def test_equivalent_is_looked_at_first_however_small_p_is():
    base = spread(500, seeds=60)
    row = one(ours=base * 1.03, theirs=base * spread(1, 0.01, 60, 1))
    assert row["adjusted_p"] < 0.001 and row["verdict"] == "equivalent"


def test_equivalence_needs_the_shares_too():
    base = spread(500, seeds=30)
    ours = np.where(np.arange(30) < 3, 9999.0, base * spread(1, 0.01, 30, 1))
    row = one(ours=ours, theirs=base)
    assert row["ratio_low"] > 0.98 and row["ratio_high"] < 1.02 and row["ratio_n"] == 27
    assert row["share_low"] < -0.1 and row["verdict"] == "cannot tell"


@pytest.mark.parametrize(("factor", "expected"), [(0.8, "sooner"), (1.25, "later")])
def test_sooner_and_later_are_by_restricted_means_with_failures_counted(factor, expected):
    base = spread(500)
    row = one(ours=factor * base * spread(1, 0.05, 30, 1), theirs=base)
    assert row["verdict"] == expected and row["mean"] / row["reference_mean"] == pytest.approx(factor, rel=0.02)
    fails = one(ours=np.where(np.arange(30) < 12, 9999.0, 0.8 * base), theirs=base)  # sooner where it reaches
    assert fails["ratio"] < 0.81 and fails["verdict"] == "later"


def test_without_a_small_p_it_cannot_be_told():
    base = spread(500, 0.3)
    assert one(ours=spread(520, 0.3, 30, 1), theirs=base)["verdict"] == "cannot tell"


@pytest.mark.parametrize("factor", [0.8, 1.25])
@pytest.mark.parametrize(("second_to_first", "resolved"), [(1.2, True), (1.3, False)])
def test_a_difference_below_the_larger_second_to_first_is_unresolved(factor, second_to_first, resolved):
    base = spread(500)
    members = stage_3({"linear": factor * base, "constant-128": base, "baseline": base})
    chosen = stage_2(members)
    for arm in ("linear", "constant-128"):
        either = chosen.assign(second_to_first=np.where(chosen["schedule"] == arm, second_to_first, 1.0))
        found = decisions.contrasts(members, either).set_index("schedule")["verdict"]["linear"]
        assert found == (("sooner" if factor < 1 else "later") if resolved else "unresolved")


def test_the_numbers_of_a_contrast_are_those_of_part_one():
    base = spread(500)
    members = stage_3({"linear": 0.9 * base * spread(1, 0.1, 30, 1), "constant-128": base, "baseline": base})
    row = decisions.contrasts(members, stage_2(members)).set_index("schedule").loc["linear"]
    c = inference.paired_contrast(members, "linear", "constant-128", "x_plus_y")
    assert row[["n", "difference", "low", "high", "p"]].tolist() == [c.n, c.difference, c.low, c.high, c.p]
    ratio = equivalence.ratio(members, "linear", "constant-128", "x_plus_y")
    assert row[["ratio_n", "ratio", "ratio_low", "ratio_high"]].tolist() == [*ratio]
    shares = equivalence.shares(members, "linear", "constant-128", "x_plus_y")
    assert row[["share_difference", "share_low", "share_high"]].tolist() == [*shares[1:]]


def test_families_are_three_over_all_operations_and_one_outcome_without_kept_on_permutation():
    arms = ["baseline", "constant-128", "constant-2048", "linear", "cyclic-500", "geometric-128-512-100"]
    times = {arm: spread(500 + 3 * i, 0.1, 8, i) for i, arm in enumerate(arms)}
    operations = ("x_plus_y", "x_div_y", "x_minus_y", "permutation")
    members = pd.concat([stage_3(times, o, outcome) for o in operations for outcome in ("touch", "kept")])
    table = decisions.contrasts(members, stage_2(members))
    of = table.groupby("family")
    assert {family: {*rows["schedule"]} for family, rows in of} == {
        "constants": {"constant-128", "constant-2048"},
        "dynamic arms": {"linear", "cyclic-500"},
        "shapes": {"geometric-128-512-100"},
    }
    assert {family: {*rows["reference"]} for family, rows in of} == {
        "constants": {"baseline"},
        "dynamic arms": {"constant-128"},
        "shapes": {"constant-128"},
    }
    reported = (table["operation"] == "permutation") & (table["outcome"] == "kept")
    assert table[reported]["adjusted_p"].isna().all() and (table[reported]["verdict"] == "").all()
    assert reported.sum() == 5 and table[reported]["difference"].notna().all()
    for _, family in table[~reported].groupby(["family", "outcome"]):
        assert family["adjusted_p"].tolist() == inference.holm(family["p"]).tolist()
    assert len(table.query("family == 'dynamic arms' and outcome == 'touch'")) == 8


# --- horizons, and words ---------------------------------------------------------------------------------------------


def test_a_verdict_that_changes_depends_on_the_horizon():
    base = spread(500)
    tables = {}
    for horizon in decisions.HORIZONS:
        slow = np.where(np.arange(30) < 8, 3000.0, 0.7 * base)  # eight need 3,000 updates
        members = stage_3(
            {"linear": slow, "cyclic": 0.7 * base, "constant-128": base, "baseline": base}, horizon=horizon
        )
        tables[horizon] = decisions.contrasts(members, stage_2(members))
    found = decisions.over_horizons(tables, ["family", *decisions.KEY]).set_index("schedule")
    assert found["verdict"]["cyclic"] == "sooner" and found["verdict"]["linear"] == "depends on the horizon"
    assert found["verdict_1000"]["linear"] == "cannot tell" and found["verdict_7500"]["linear"] == "later"
    assert found["difference"]["linear"] == tables[2000].set_index("schedule")["difference"]["linear"]


@pytest.mark.parametrize(
    ("touch", "kept", "said"),
    [
        ("sooner", "sooner", "groks sooner"),
        ("later", "later", "groks later"),
        ("sooner", "cannot tell", "touches 99 % sooner"),
        ("sooner", "", "touches 99 % sooner"),
        ("unresolved", "sooner", "keeps 99 % sooner"),
        ("sooner", "later", "touches 99 % sooner, keeps 99 % later"),
        ("equivalent", "equivalent", "equivalent"),
        ("equivalent", "depends on the horizon", "touch: equivalent, kept: depends on the horizon"),
        ("cannot tell", "", "touch: cannot tell"),
    ],
)
def test_groks_sooner_needs_both_outcomes(touch, kept, said):
    table = pd.DataFrame({"outcome": ["touch", "kept"], "verdict": [touch, kept]})
    table = table.assign(family="shapes", operation="x_plus_y", schedule="a")
    assert decisions.groks(table)["said"].tolist() == [said]
    if not kept:
        assert decisions.groks(table[:1])["said"].tolist() == [said]


# --- beats the constants ---------------------------------------------------------------------------------------------

CONSTANTS = {"constant-128": 520.0, "baseline": 350.0, "constant-2048": 300.0}


def world(outcomes=("touch", "kept"), operations=("x_plus_y",), **schedules):
    """Members of CONSTANTS and schedules at a batch of 256, and stage 2's table; the comparator is the largest."""
    middle = CONSTANTS | schedules
    base = spread(1, 0.05)
    times = {arm: m * base * spread(1, 0.02, 30, 1 + i) for i, (arm, m) in enumerate(middle.items())}
    members = pd.concat([stage_3(times, o, outcome) for o in operations for outcome in outcomes])
    return members, stage_2(members, "constant-2048")


def test_the_three_ways_tell_apart_what_is_sooner_what_is_below_and_what_dominates():
    members, chosen = world(linear=280, cyclic=380, stepwise=320, exponential=450)
    tests = decisions.beats_constants(
        members, chosen, dict.fromkeys(("linear", "cyclic", "stepwise", "exponential"), ALL), 499
    )
    found = decisions.ways(tests).query("outcome == 'touch' and verdict == 'beats the constants'")
    # at 256 examples an update the frontier is near 430; the comparator's 300 allows a ratio of 1.10
    assert {*found[["schedule", "way"]].itertuples(index=False, name=None)} == {
        ("linear", "sooner"),
        ("linear", "frontier"),
        ("linear", "domination"),
        ("cyclic", "frontier"),
        ("stepwise", "frontier"),
        ("stepwise", "domination"),
    }


def test_sooner_than_every_constant_means_each_of_them():
    members, chosen = world(linear=310)  # sooner than two of three
    tests = decisions.beats_constants(members, chosen, {"linear": ALL}, 99)
    rows = tests[(tests["way"] == "sooner") & (tests["outcome"] == "touch")].set_index("reference")
    assert rows["passes"].to_dict() == {"constant-128": True, "baseline": True, "constant-2048": False}
    found = decisions.ways(tests).set_index(["way", "outcome"])["verdict"]
    assert found["sooner", "touch"] == "does not"


def test_each_way_has_a_family_for_each_outcome_over_schedules_and_operations():
    against = dict.fromkeys(("linear", "cyclic"), ALL) | {"stepwise": ALL - {"constant-2048"}}  # two frontiers
    members, chosen = world(
        operations=("x_plus_y", "x_div_y", "x_minus_y", "permutation"), linear=320, cyclic=400, stepwise=340
    )
    tests = decisions.beats_constants(members, chosen, against, 99)
    sizes = {"sooner": 3 + 3 + 2, "frontier": 3, "domination": 6}  # an operation
    for (way, outcome), of in tests.groupby(["way", "outcome"]):
        assert of["adjusted_p"].tolist() == pytest.approx(inference.holm(of["p"]).tolist(), nan_ok=True)
        assert len(of) == sizes[way] * (4 if outcome == "touch" else 3)  # kept on permutation is in none
    rule = tests.query("way == 'domination'")
    dominates = (rule["difference"] < 0) & (rule["adjusted_p"] < 0.05) & (rule["ratio_high"] < costs.NO_WORSE)
    assert (rule["passes"] == dominates).all()


def test_outside_the_frontiers_range_there_is_no_verdict():
    members, chosen = world(linear=300)
    far = members["schedule"] == "linear"
    members.loc[far, ["examples_seen", "restricted_examples"]] *= 100
    found = decisions.ways(decisions.beats_constants(members, chosen, {"linear": ALL}, 99))
    assert set(found.query("way == 'frontier'")["verdict"]) == {"no verdict"}


def test_against_the_constants_within_its_own_range_a_schedule_has_fewer_rivals_and_its_own_comparator():
    studies = [load_study("surface"), load_study("surface-schedules")]
    everything, own = decisions.rivals(studies), decisions.rivals(studies, own_range=True)
    assert {len(of) for of in everything.values()} == {7} and "all-pairs" not in everything and len(everything) == 13
    assert own["shrinking-500"] == own["linear"] == everything["linear"] - {"constant-1024", "constant-2048"}
    members, chosen = world(linear=320)
    within = {"linear": ALL - {"constant-2048"}}
    tests = decisions.beats_constants(members, chosen, within, 99)
    assert decisions.ways(tests).query("way == 'sooner'")["verdict"].eq("beats the constants").all()
    better = tests.query("way == 'domination' and outcome == 'touch' and better == 'updates'").iloc[0]
    base = inference.paired_contrast(members[members["outcome"] == "touch"], "linear", "baseline", "x_plus_y")
    assert better["difference"] == pytest.approx(base.difference)  # the soonest of the two in stage 2


def test_the_comparator_of_all_constants_is_stage_twos():
    parts = [stage_3({arm: [m, m]}).assign(learning_rate=0.001) for arm, m in CONSTANTS.items()]
    parts[2].loc[0, ["reached", "restricted"]] = [False, 250.0]
    parts[2] = pd.concat([parts[2].assign(seed=s, reached=False) for s in range(2)])  # sooner, and not eligible
    members = pd.concat(parts)
    found = choices.compared(members, choices.chosen(members), CONSTANTS)
    assert (
        choices.soonest_of(found, CONSTANTS)["schedule"].tolist()
        == ["baseline"]
        == found["comparator"].unique().tolist()
    )


def test_by_one_outcome_alone_it_is_worded_so_and_equivalence_with_the_comparator_is_said_too():
    key = {"operation": "x_plus_y", "schedule": "linear", "way": "frontier"}
    beats, not_so = "beats the constants", "does not"
    expected = {
        (beats, beats): "beats the constants: below the frontier",
        (beats, not_so): "touches 99 % below the frontier",
        (not_so, beats): "keeps 99 % below the frontier",
        (not_so, not_so): "",
    }
    for verdicts, said in expected.items():
        found = pd.DataFrame(
            [key | {"outcome": o, "verdict": v} for o, v in zip(("touch", "kept"), verdicts, strict=True)]
        )
        for beside in ("sooner", "equivalent", "unresolved"):
            compared = found.drop(columns="way").assign(verdict=["later", beside])
            (row,) = decisions.beaten(found, compared)["said"]
            more = f"; by kept its contrast with the comparator is {beside}"
            assert row == said + (more if verdicts[1] == beats and beside != "sooner" else "")


# --- what lasts ------------------------------------------------------------------------------------------------------


def test_the_share_after_the_touch_is_of_the_chosen_cell_and_of_those_that_touch_in_time(tmp_path):
    _, frame = records(2000, tmp_path, crossings=(900.0, 1600.0))
    other = frame.assign(cell="learning_rate=0.5 weight_decay=1", learning_rate=0.5)
    chosen = stage_2(stage_3({"linear": [1]}, frame["operation"].iloc[0]))
    chosen[choices.POINT] = frame[choices.POINT].iloc[0].tolist()
    for dip, above in ((1390, 1), (1400, 0)):
        lost = frame.assign(val_accuracy=frame["val_accuracy"].mask(frame["update"] == dip, 0.5))
        (row,) = decisions.after_touch_at(pd.concat([lost, other]), chosen).to_dict("records")
        assert (row["cell"], row["outcome"], row["n"]) == (frame["cell"].iloc[0], "touch", 1) and row["above"] == above
