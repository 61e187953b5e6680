"""The choices of the plan's part two, on tables small enough to read."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from grok_utils.tuned import choices, costs
from grok_utils.tuned.choices import POINT
from grok_utils.tuned.fitting import seed_weights


def members(times, horizon=2500, arm="a", operation="x_plus_y", outcome="touch", accuracy=0.5):
    """Rows as `outcomes` has them, of {(rate, decay): a time, or None, for each seed}."""
    rows = [
        {
            "schedule": arm,
            "operation": operation,
            "outcome": outcome,
            "learning_rate": rate,
            "weight_decay": decay,
            "seed": seed,
            "updates": np.nan if t is None else float(t),
            "restricted": float(horizon if t is None else t),
            "reached": t is not None,
            "horizon": horizon,
            "restricted_examples": 64.0 * (horizon if t is None else t),
            "final_accuracy": accuracy,
        }
        for (rate, decay), of in times.items()
        for seed, t in enumerate(of)
    ]
    return pd.DataFrame(rows)


def order(cells):
    return list(cells[POINT].itertuples(index=False, name=None))


def test_never_is_later_than_any_time_and_equals_go_by_the_product_then_the_rate():
    times = {
        (4e-3, 0.5): [100, None, None],
        (2e-3, 1.0): [300, 400, 500],
        (1e-3, 2.0): [400] * 3,
        (1e-3, 1.0): [400] * 3,
    }
    cells = choices.ranked(members(times))
    assert order(cells) == [(1e-3, 1.0), (1e-3, 2.0), (2e-3, 1.0), (4e-3, 0.5)]
    assert list(cells["median"]) == [400, 400, 400, np.inf] and list(cells["reached"]) == [3, 3, 3, 1]
    assert order(choices.best(cells)) == [(1e-3, 1.0)]


def test_nothing_is_chosen_by_kept_on_permutation():
    both = pd.concat([members({(1e-3, 1.0): [9]}, operation="permutation", outcome=o) for o in ("touch", "kept")])
    assert list(choices.ranked(both)["outcome"]) == ["touch"]


CORNER = {(8e-3, d) for d in (0.25, 0.5, 1.0, 2.0)} | {(r, 2.0) for r in (1e-3, 2e-3, 4e-3)}
GRID = [(r, d) for r in (1e-3, 2e-3, 4e-3) for d in (0.25, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("soonest", "expected"),
    [
        ([(2e-3, 0.5)], set()),
        ([(4e-3, 0.5)], {(8e-3, 0.25), (8e-3, 0.5), (8e-3, 1.0)}),
        ([(2e-3, 0.25)], {(2e-3, 0.125), (4e-3, 0.125)}),  # at 1e-3 the timescale would be 8,000
        ([(1e-3, 0.5)], {(5e-4, 0.5), (5e-4, 1.0)}),
        ([(4e-3, 1.0)], CORNER),
        (
            [(4e-3, 0.5), (2e-3, 1.0)],
            {(8e-3, d) for d in (0.25, 0.5, 1.0, 2.0)} | {(r, 2.0) for r in (1e-3, 2e-3, 4e-3)},
        ),
    ],
)
def test_a_grid_grows_by_a_row_or_a_column_where_a_soonest_cell_is_on_its_edge(soonest, expected):
    assert choices.beyond(GRID, soonest) == expected


def test_an_edge_beyond_which_all_is_too_slow_is_none():
    assert choices.beyond([(5e-4, 0.5), *product((7.5e-4, 1e-3), (0.25, 0.5))], [(7.5e-4, 0.25)]) == set()


def test_neighbours_are_eight_at_factors_of_the_square_root_of_two():
    found = choices.around([(2e-3, 0.5)], 2**0.5) - {(2e-3, 0.5)}
    assert len(found) == 8 and (2.828e-3, 0.3536) in found and (2e-3, 0.7071) in found
    for rate, decay in found:
        steps = np.log2([rate / 2e-3, decay / 0.5]) * 2
        assert np.allclose(steps, np.round(steps), atol=1e-3) and set(abs(np.round(steps))) <= {0, 1}


def test_the_soonest_arms_are_those_by_either_outcome_and_have_a_median():
    touch = [members({(1e-3, 1.0): [t]}, arm=a) for a, t in {"a": 1, "b": 2, "c": 3, "d": None}.items()]
    kept = [members({(1e-3, 1.0): [t]}, arm=a, outcome="kept") for a, t in {"a": 1, "b": 9, "c": 3}.items()]
    cells = choices.ranked(pd.concat(touch + kept))
    assert choices.soonest_arms(cells, {"a", "b", "c", "d"}, most=1) == {("x_plus_y", "a")}
    assert {arm for _, arm in choices.soonest_arms(cells, {"b", "c", "d"}, most=1)} == {"b", "c"}
    assert {arm for _, arm in choices.soonest_arms(cells, {"a", "b", "c", "d"})} == {"a", "b", "c"}


def test_candidates_are_up_to_three_within_half_as_much_again():
    times = {
        (1e-3, 0.25): [100] * 3,
        (1e-3, 0.5): [150] * 3,
        (1e-3, 1.0): [151] * 3,
        (2e-3, 0.5): [149] * 3,
        (2e-3, 1.0): [148] * 3,
    }
    assert order(choices.candidates(choices.ranked(members(times)))) == [(1e-3, 0.25), (2e-3, 1.0), (2e-3, 0.5)]
    assert order(choices.candidates(choices.ranked(members(times)), most=9))[-1] == (1e-3, 0.5)


def test_without_a_median_candidates_go_by_seeds_that_reach_then_by_final_accuracy():
    parts = [members({(1e-3, 1.0): [None] * 3}, accuracy=0.9), members({(2e-3, 1.0): [None] * 3}, accuracy=0.95)]
    parts += [members({(4e-3, 1.0): [7, None, None]}, accuracy=0.1), members({(8e-3, 1.0): [None] * 3}, accuracy=0.2)]
    assert order(choices.candidates(choices.ranked(pd.concat(parts)))) == [(4e-3, 1.0), (2e-3, 1.0), (1e-3, 1.0)]


@pytest.mark.parametrize(
    ("touch", "kept", "expected"), [(100, 250, 1000), (100, 260, 2500), (600, 626, 7500), (9, None, 7500)]
)
def test_the_horizon_is_at_least_four_times_the_later_outcome(touch, kept, expected):
    both = pd.concat([members({(1e-3, 1.0): [t]}, outcome=o) for o, t in {"touch": touch, "kept": kept}.items()])
    assert choices.horizons(choices.ranked(both)) == {("x_plus_y", "a"): expected}


def test_of_eligible_cells_as_soon_as_the_soonest_the_slowest_product_is_chosen():
    times = {
        (4e-3, 1.0): [100] * 16,
        (2e-3, 1.0): [103] * 16,
        (1e-3, 1.0): [104] * 16,
        (1e-3, 0.5): [90] * 14 + [None] * 2,
    }
    (row,) = choices.chosen(members(times)).itertuples()
    assert (row.learning_rate, row.weight_decay, row.eligible) == (2e-3, 1.0, True)
    assert row.second_to_first == pytest.approx(1.03)


def test_one_failure_of_sixteen_leaves_a_cell_eligible_and_counts_as_the_horizon():
    (row,) = choices.chosen(members({(1e-3, 1.0): [100] * 15 + [None]})).itertuples()
    assert row.eligible and row.restricted == (1500 + 2500) / 16 and row.second_to_first == 1


def test_where_no_cell_is_eligible_most_seeds_that_reach_go_first_and_it_is_not_tuned():
    times = {
        (1e-3, 1.0): [10] * 8 + [None] * 8,
        (2e-3, 1.0): [2000] * 9 + [None] * 7,
        (4e-3, 1.0): [1000] * 9 + [None] * 7,
    }
    (row,) = choices.chosen(members(times)).itertuples()
    assert row.learning_rate == 4e-3 and not row.eligible


ARMS = {"constant-64": [100] * 3, "constant-128": [80, 80, None], "linear": [150] * 3, "cyclic": [151] * 3}


def test_the_comparator_is_the_soonest_constant_at_the_smallest_horizon_of_all():
    parts = [members({(1e-3, 1.0): of}, arm=arm, horizon=200 if arm == "linear" else 2500) for arm, of in ARMS.items()]
    both = pd.concat(parts)
    found = choices.compared(both, choices.chosen(both), {"constant-64", "constant-128"}).set_index("schedule")
    assert set(found["comparator"]) == {"constant-64"}  # 128: (80 + 80 + 200) / 3
    assert (
        found["mean"]["constant-128"] == 120 and found["times"]["linear"] == 1.5 and found["horizon"]["cyclic"] == 2500
    )


def test_an_eligible_constant_goes_before_a_sooner_one_that_is_not():
    both = pd.concat(
        [members({(1e-3, 1.0): [900] * 3}, arm="a"), members({(1e-3, 1.0): [9, None, None]}, arm="b", horizon=1000)]
    )
    assert set(choices.compared(both, choices.chosen(both), {"a", "b"})["comparator"]) == {"a"}


def test_stage_three_takes_all_constants_and_of_each_other_kind_those_within_reach_and_at_least_four():
    times = (
        {"slow": 9.0, "comparator": 1.0} | {f"near{i}": 1.5 for i in range(5)} | {f"far{i}": 1.6 + i for i in range(6)}
    )
    found = pd.DataFrame(
        {"operation": "x_plus_y", "outcome": "kept", "schedule": times.keys(), "times": times.values()}
    )
    taken = choices.taken(
        found, {"slow", "comparator"}, [a for a in times if "near" in a], [a for a in times if "far" in a]
    )
    assert set(taken["schedule"]) == {
        "slow",
        "comparator",
        *(f"near{i}" for i in range(5)),
        *(f"far{i}" for i in range(4)),
    }


def test_the_frontier_takes_the_lowest_of_those_within_its_range():
    def at(arm, updates, examples):
        return members({(1e-3, 1.0): [updates]}, arm=arm).assign(restricted_examples=float(examples))

    known = [at("constant-64", 400, 100), at("constant-128", 100, 400)]
    shapes = [at("under", 150, 200), at("over", 300, 200), at("outside", 50, 900), at("lowest", 100, 200)]
    every = pd.concat(known + shapes)
    best = choices.best(choices.ranked(every))
    names = {"under", "over", "outside", "lowest"}
    lowest = choices.below_frontier(every, best, {"constant-64", "constant-128"}, names, most=2)
    assert lowest == {("x_plus_y", "lowest"), ("x_plus_y", "under")}
    assert len(choices.below_frontier(every, best, {"constant-64", "constant-128"}, names)) == 3


# --- the selection redone --------------------------------------------------------------------------------------------


def three_cells(seed, seeds=12, failing=0.05):
    """Members of one arm in three cells that are nearly as good, some of which fail."""
    rng = np.random.default_rng(seed)
    times = {}
    for rate, middle in ((8e-3, 500), (4e-3, 510), (2e-3, 540)):
        drawn = middle * np.exp(rng.normal(0, 0.06, seeds))
        times[rate, 1.0] = [None if rng.random() < failing else t for t in drawn]
    return members(times)


@pytest.mark.parametrize("failing", [0.0, 0.05, 0.2, 0.6])
def test_chosen_again_is_chosen_of_each_resample(failing):
    for seed in range(6):
        table = three_cells(seed, failing=failing)
        found = choices.chosen_again(table, "restricted", 40)
        weights = seed_weights(np.ones((12, 1)), 40).astype(int)
        for again, times in zip(found, weights, strict=True):
            drawn = [table[table["seed"] == s].assign(seed=100 * s + k) for s, n in enumerate(times) for k in range(n)]
            resample = pd.concat(drawn, ignore_index=True)
            assert again == pytest.approx(choices.chosen(resample)["restricted"].item())


def test_steps_by_selection_are_those_of_stage_3_where_there_is_nothing_to_choose_and_find_b_c_where_there_is():
    sizes = {"constant-64": 64, "constant-256": 256, "baseline": 512, "constant-1024": 1024}
    rng, parts, luck = np.random.default_rng(0), [], np.random.default_rng(1).normal(0, 0.05, 16)
    for arm, size in sizes.items():
        cells = {}
        for rate, factor in ((4e-3, 1.0), (8e-3, 1.02)):
            times = 25 + 100 * (1 + 300 / size) * factor * np.exp(luck + rng.normal(0, 0.15, 16))
            cells[rate, 1.0] = times.tolist()
        parts.append(members(cells, 7500, arm))
    table = pd.concat(parts, ignore_index=True)
    kept = table.assign(outcome="kept", restricted=9.0)
    found = choices.steps_by_selection(pd.concat([table, kept]), sizes, 500)
    of = found.query("form == 'hyperbola' and coefficient == 'B_c'").iloc[0]
    assert of["low"] < 300 < of["high"] and of["seeds"] == 16 and of["operation"] == "x_plus_y"
    one = table[table["learning_rate"] == 4e-3]
    plain = costs.steps_and_examples(one, sizes, 500)
    pd.testing.assert_frame_equal(choices.steps_by_selection(one, sizes, 500), plain)
    assert of["estimate"] != plain.query("form == 'hyperbola' and coefficient == 'B_c'")["estimate"].iloc[0]
