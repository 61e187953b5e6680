"""Studies: which arm has which cells and members, what each trains with, and by which values a run is known."""

import json
from itertools import product

import numpy as np
import pytest
from support.studies import TINY, run_of, small, write_study

from grok_utils import schedules
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.study_files import load_study, make_study
from grok_utils.studies import DEFAULTS, HYPER, Cell, Scheduled, unlike
from grok_utils.tasks import OPERATIONS, Operation

GRID = {"weight_decay": [0.5, 1], "learning_rate": [1e-3, 2e-3]}
RATE = {"schedule": "linear", "lo": 1e-3, "hi": 1e-4}


def study(**changes):
    return make_study("tiny", TINY | changes)


def arm(settings=None, **changes):
    """An arm of a constant batch size with these settings of its own."""
    return study(arms={"mine": {"batch_size": 8} | (settings or {})}, **changes).arm("mine")


def names(of):
    return [cell.name for cell in of.cells]


def course(of, name, operation="x_plus_y", cell=0, updates=60):
    return of.course(name, updates, operation, of.cells[cell]).tolist()


# --- cells and members ---------------------------------------------------------------------------------------------


def test_a_grid_is_crossed_in_the_order_of_the_settings():
    crossed = arm(grid=GRID)
    assert names(crossed) == [
        "learning_rate=0.001 weight_decay=0.5",
        "learning_rate=0.001 weight_decay=1",
        "learning_rate=0.002 weight_decay=0.5",
        "learning_rate=0.002 weight_decay=1",
    ]
    assert all(cell.operations == ("x_plus_y", "x_minus_y") for cell in crossed.cells)
    assert names(arm()) == [""]


def test_the_cells_of_a_list_are_joined_and_equal_ones_are_one():
    grid = [
        {"learning_rate": [1e-3, 2e-3], "weight_decay": [0.5]},
        {"weight_decay": [0.5, 1], "learning_rate": [1e-3]},
        {"weight_decay": [0.25]},
        {"learning_rate": [0.1 + 0.2], "weight_decay": [1]},
        {"learning_rate": [0.3], "weight_decay": [1]},  # no other number at 12 digits, and no other name
    ]
    assert names(arm(grid=grid)) == [
        "learning_rate=0.001 weight_decay=0.5",
        "learning_rate=0.002 weight_decay=0.5",
        "learning_rate=0.001 weight_decay=1",
        "weight_decay=0.25",
        "learning_rate=0.3 weight_decay=1",
    ]


def test_a_mapping_that_names_operations_is_theirs_alone():
    both, one = ("x_plus_y", "x_minus_y"), ("x_minus_y",)
    mine = arm(grid=[{"learning_rate": [1e-3]}, {"learning_rate": [1e-3, 4e-3], "operations": ["x_minus_y"]}])
    assert [(c.name, c.operations) for c in mine.cells] == [("learning_rate=0.001", both), ("learning_rate=0.004", one)]
    per = {"x_plus_y": [2e-3], "x_minus_y": [1e-3, 2e-3]}
    mine = arm(grid=[{"learning_rate": values, "operations": [o]} for o, values in per.items()])
    assert [(c.name, c.operations) for c in mine.cells] == [("learning_rate=0.002", both), ("learning_rate=0.001", one)]


def test_what_an_arm_gives_itself_is_not_crossed():
    assert names(arm({"learning_rate": RATE}, grid=GRID)) == ["weight_decay=0.5", "weight_decay=1"]
    assert names(arm({"learning_rate": 4e-3, "weight_decay": 2}, grid=GRID)) == [""]
    assert names(arm({"operations": ["x_div_y"]}, grid=GRID)) == names(arm(grid=GRID))
    assert [c.operations for c in arm({"operations": ["x_div_y"]}, grid=GRID).cells] == [("x_div_y",)] * 4


def test_an_arm_s_own_grid_replaces_the_study_s():
    assert names(arm({"grid": {"beta2": [0.9, 0.99]}}, grid=GRID)) == ["beta2=0.9", "beta2=0.99"]
    other = study(arms={"mine": {"grid": {"beta2": [0.9]}}, "linear": None}, grid=GRID).arm("linear")
    assert len(other.cells) == 4


def test_arm_beats_grid_beats_top():
    top = {"learning_rate": 7e-3, "weight_decay": 7, "beta1": 0.7, "grid": {"learning_rate": [2e-3], "beta2": [0.5]}}
    plain, own = arm(**top), arm({"learning_rate": 3e-3, "beta1": 0.3}, **top)
    assert [course(plain, n)[0] for n in HYPER] == [8, 2e-3, 7, 0.7, 0.5]
    assert [course(own, n)[0] for n in HYPER] == [8, 3e-3, 7, 0.3, 0.5]
    # `linear` says its batch size by its name, `baseline` says none.
    of = study(batch_size=9, arms={"linear": None, "baseline": None})
    assert course(of.arm("linear"), "batch_size") == [112, 192, 272, 352, 432, 512]
    assert course(of.arm("baseline"), "batch_size") == [9] * 6


def test_members_go_by_operation_then_cell_then_seed():
    mine = arm(grid=[{"beta1": [0.5]}, {"beta1": [0.6], "operations": ["x_minus_y"]}])
    expected = [("x_plus_y", "beta1=0.5", 0), ("x_plus_y", "beta1=0.5", 4)]
    expected += list(product(["x_minus_y"], ["beta1=0.5", "beta1=0.6"], [0, 4]))
    assert [(m.operation, m.cell.name, m.seed) for m in mine.members((0, 4))] == expected


def test_a_run_s_courses_and_tasks_are_in_the_order_of_its_members(tmp_path):
    per = {"x_plus_y": 4e-3, "x_minus_y": RATE}
    arms = {"linear": {"batch_size": {"schedule": "linear", "lo": 4, "hi": 16}, "learning_rate": per}}
    run = run_of(tmp_path, seeds=[0, 1], arms=arms, grid={"weight_decay": [0.5, 1]})
    assert [(t.operation, t.seed) for t in run.tasks()] == [(m.operation, m.seed) for m in run.members]
    c = run.courses
    assert c.batch_size.dtype == np.int64 and c.drawn
    assert c.batch_size.tolist() == [[b] * 8 for b in (6, 8, 10, 12, 14, 16)]
    assert c.learning_rate == pytest.approx(
        np.array([[4e-3] * 4 + [r] * 4 for r in (8.5e-4, 7e-4, 5.5e-4, 4e-4, 2.5e-4, 1e-4)])
    )
    assert c.weight_decay.tolist() == [[0.5, 0.5, 1, 1] * 2] * 6
    assert c.beta1.tolist() == [[0.9] * 8] * 6 and c.beta2.tolist() == [[0.98] * 8] * 6
    assert run.batch_sizes.tolist() == [6, 8, 10, 12, 14, 16]


def test_the_reference_and_the_operations_of_a_study():
    assert study(arms=small("linear", "baseline")).reference == "baseline"
    assert study(arms=small("linear", "cyclic")).reference == "linear"
    arms = {"baseline": None, "mine": {"operations": ["permutation", "x_plus_y"], "modulus": 13}}
    assert study(arms=arms).operations == ("x_plus_y", "x_minus_y", "permutation")


@pytest.mark.parametrize("name", HYPER)
def test_a_hyper_parameter_varies_where_it_is_not_its_default_throughout(name):
    value = 8 if name == "batch_size" else 0.75
    plain = {"arms": {"baseline": None, "other": {"precision": "bf16"}}}
    assert not study(**plain).varies(name)
    assert study(**plain | {name: value}).varies(name)
    assert study(arms={"baseline": None, "other": {name: value}}).varies(name)
    if name != "batch_size":
        assert study(**plain, grid={name: [value]}).varies(name)
    assert not study(**plain | {name: DEFAULTS[name]}).varies(name)


# --- courses -------------------------------------------------------------------------------------------------------


def test_a_batch_size_is_whole_before_its_control():
    batch = {"schedule": "linear", "lo": 1, "hi": 16}
    plain = [3, 6, 8, 11, 13, 16]
    assert course(arm({"batch_size": batch}), "batch_size") == plain
    assert course(arm({"batch_size": batch | {"control": "reverse", "window": 30}}), "batch_size") == [
        *plain[2::-1],
        *plain[3:],
    ]
    assert course(arm({"batch_size": batch | {"control": "mean"}}), "batch_size") == [10] * 6  # of 57/6 = 9.5
    mixed = course(arm({"batch_size": batch | {"control": "shuffle", "order": 3}}), "batch_size")
    assert sorted(mixed) == plain != mixed
    rate = {"schedule": "linear", "lo": 0.1, "hi": 0.7, "control": "mean", "window": 20}
    assert course(arm({"learning_rate": rate}), "learning_rate") == pytest.approx([0.25, 0.25, 0.4, 0.5, 0.6, 0.7])


def test_any_hyper_parameter_takes_a_schedule_with_a_length():
    for name in HYPER[1:]:
        own = {name: {"schedule": "linear", "lo": 0.8, "hi": 0.2, "length": 40}}
        assert course(arm(own), name) == pytest.approx([0.65, 0.5, 0.35, 0.2, 0.2, 0.2])


def test_a_batch_of_all_has_as_many_examples_as_its_operation_has_pairs_in_training():
    mine = arm({"batch_size": "all", "operations": ["x_plus_y", "x_div_y", "permutation"]}, train_fraction=0.4)
    sizes = [course(mine, "batch_size", o) for o in mine.settings.operations]
    assert sizes == [[48] * 6, [44] * 6, [5760] * 6]  # floor(0.4 · 121), floor(0.4 · 110), floor(0.4 · 14,400)
    assert mine.identity(60)["batch_size"] == "all"


def test_all_is_not_drawn(tmp_path):
    assert not run_of(tmp_path, "mine", arms={"mine": {"batch_size": "all"}}).courses.drawn


@pytest.mark.parametrize("batch", [{"schedule": "linear"}, {"schedule": "exponential"}, 128])
def test_a_rate_that_follows_its_own_batch_size(batch):
    own = {"batch_size": batch, "learning_rate": {"follows": "batch_size", "value": 1e-3, "at": 512, "power": 0.5}}
    mine = arm(own, updates=7500)
    sizes = np.array(course(mine, "batch_size", updates=7500))
    found = np.array(course(mine, "learning_rate", updates=7500))
    expected = 1e-3 * np.sqrt(sizes / 512)  # what rate_factor: sqrt_batch was
    assert found == pytest.approx(expected, rel=1e-15)
    assert np.array_equal(found.astype(np.float32), expected.astype(np.float32))


def test_a_rate_that_follows_a_schedule_of_another_batch():
    follows = {"follows": {"schedule": "linear", "lo": 32, "hi": 512}, "value": 1e-3, "at": 32, "power": -0.5}
    mine = arm({"batch_size": 512, "learning_rate": follows}, updates=7500)
    found = np.array(course(mine, "learning_rate", updates=7500))
    linear = np.floor(32 + 480 * np.arange(10, 7501, 10) / 7500)
    expected = 1e-3 * np.sqrt(32 / linear)  # what rate_factor: mirror_linear was
    assert found == pytest.approx(expected, rel=1e-15)
    assert np.array_equal(found.astype(np.float32), expected.astype(np.float32))
    assert (found[0], found[-1]) == (1e-3, 2.5e-4)


def test_the_project_s_study_of_rates_says_the_two_factors_it_had():
    rates = load_study("rates")
    assert [len(rates.arm(n).cells) for n in ("baseline", "linear", "linear-sqrt-batch", "baseline-mirrored")] == [
        7,
        7,
        1,
        1,
    ]
    sizes = np.array(course(rates.arm("linear"), "batch_size", updates=7500))
    scaled, mirrored = (
        course(rates.arm(n), "learning_rate", updates=7500) for n in ("linear-sqrt-batch", "baseline-mirrored")
    )
    assert scaled == pytest.approx(1e-3 * np.sqrt(sizes / 512), rel=1e-15)
    assert mirrored == pytest.approx(1e-3 * np.sqrt(32 / sizes), rel=1e-15)


def test_values_for_each_operation():
    per = {"x_plus_y": 4e-3, "x_minus_y": {"follows": "batch_size", "value": 1, "at": 4, "power": -1}, "x_div_y": 0.5}
    mine = arm({"learning_rate": per})
    assert course(mine, "learning_rate", "x_plus_y") == [4e-3] * 6
    assert course(mine, "learning_rate", "x_minus_y") == [0.5] * 6
    assert mine.settings.learning_rate[0] == ("x_plus_y", 4e-3) and len(mine.settings.learning_rate) == 2


# --- identity ------------------------------------------------------------------------------------------------------


def identity(settings=None, **changes):
    return arm(settings, **changes).identity(changes.get("updates", TINY["updates"]))


def apart(one, other):
    return unlike(json.loads(json.dumps(one)), other)


def test_an_identity_is_numbers_and_digests_as_json_has_them():
    found = identity({"learning_rate": RATE})
    assert json.loads(json.dumps(found)) == found
    assert found.pop("operations").keys() == {"x_plus_y", "x_minus_y"}
    assert len(found.pop("learning_rate")) == 16
    assert found == {
        "batch_size": 8, "weight_decay": 0.5, "beta1": 0.9, "beta2": 0.98, "modulus": 11, "train_fraction": 0.5,
        "precision": "float32", "optimizer": "adamw", "warm_up": 50, "width": 128, "heads": 4, "blocks": 2,
        "updates": 60,
    }  # fmt: skip


def test_changed_values_are_another_identity():
    plain = identity()
    changes = {"modulus": 13, "train_fraction": 0.6, "precision": "bf16", "updates": 70} | dict.fromkeys(HYPER[1:], 0.7)
    changes |= {"optimizer": "muon", "warm_up": 0, "width": 64, "heads": 8, "blocks": 3}
    for name, value in changes.items():
        assert name in apart(plain, identity(**{name: value}))
        if name not in ("modulus", "updates"):
            assert apart(plain, identity(**{name: value})) == [name]
    assert apart(plain, identity({"batch_size": 9})) == ["batch_size"]
    assert apart(plain, identity(operations=["x_plus_y"])) == ["operations"]
    assert apart(plain, identity(grid={"beta1": [0.9]})) == ["cells"]
    assert apart(identity(grid={"beta1": [0.9]}), identity(grid={"beta1": [0.9, 0.8]})) == ["beta1", "cells"]
    swapped = {"x_plus_y": 0.1, "x_minus_y": 0.2}, {"x_plus_y": 0.2, "x_minus_y": 0.1}
    assert apart(*(identity({"beta1": per}) for per in swapped)) == ["beta1"]


def test_editing_an_operation_s_function_is_another_identity(monkeypatch):
    plain = identity()
    monkeypatch.setitem(OPERATIONS, "x_minus_y", Operation(lambda x, y, p: (x - y + (x == 10)) % p))
    found = identity()
    assert apart(plain, found) == ["operations"]
    assert [o for o in found["operations"] if found["operations"][o] != plain["operations"][o]] == ["x_minus_y"]
    monkeypatch.setitem(OPERATIONS, "x_minus_y", Operation(lambda x, y, p: (x + (p - 1) * y) % p))
    assert apart(plain, identity()) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("batch_size", "schedule"), *product(HYPER[1:], ["schedule", "per operation", "follows"])],
)
def test_editing_a_schedule_of_any_hyper_parameter_is_another_identity(monkeypatch, name, kind):
    ends = {"lo": 4, "hi": 16} if name == "batch_size" else {"lo": 0.1, "hi": 0.9}
    value = {"schedule": "linear"} | ends
    if kind == "per operation":
        value = {"x_plus_y": 0.25, "x_minus_y": value}
    if kind == "follows":
        value = {"follows": {"schedule": "linear", "lo": 4, "hi": 16}, "value": 0.1, "at": 4, "power": 0.5}
    plain = identity({name: value})
    edited = lambda s, T, lo, hi: lo + (hi - lo) * (s / T if s < 60 else 0.9)  # noqa: E731
    monkeypatch.setitem(schedules.SCHEDULES, "linear", edited)
    assert apart(plain, identity({name: value})) == [name]


@pytest.mark.parametrize("name", HYPER)
def test_renaming_a_schedule_s_function_disowns_nothing(monkeypatch, name):
    ends = {"lo": 4, "hi": 16} if name == "batch_size" else {"lo": 0.1, "hi": 0.9}
    plain = identity({name: {"schedule": "exponential"} | ends})
    renamed = {"grows": schedules.SCHEDULES["exponential"]}
    monkeypatch.setattr(schedules, "SCHEDULES", renamed)
    monkeypatch.setattr("grok_utils.pipeline.settings.SCHEDULES", renamed)
    assert identity({name: {"schedule": "grows"} | ends}) == plain


def test_other_words_for_the_same_values_disown_nothing():
    plain = identity()
    assert identity({"learning_rate": {"x_plus_y": 1e-3, "x_minus_y": 1e-3}}) == plain
    level = {"schedule": "linear", "lo": 1e-3, "hi": 1e-3}
    assert identity({"learning_rate": level}) == plain
    follows = {"follows": "batch_size", "value": 1e-3 * (1 + 1e-15), "at": 8, "power": 1}
    assert identity({"learning_rate": follows}) == plain  # to 12 digits
    assert study(arms=small("linear"), title="other", seeds=[7]).arm("linear").identity(60) == study(
        arms={"mine": {"batch_size": {"schedule": "linear", "lo": 4, "hi": 16}}}
    ).arm("mine").identity(60)


def test_the_order_of_the_grid_and_of_the_operations_disowns_nothing():
    plain = identity(grid=GRID)
    turned = {k: GRID[k][::-1] for k in reversed(GRID)}
    assert identity(grid=turned) == plain
    assert identity(grid=[{"learning_rate": [r], "weight_decay": [1, 0.5]} for r in (2e-3, 1e-3)]) == plain
    assert apart(plain, identity(grid=GRID, operations=["x_minus_y", "x_plus_y"])) == []


def test_a_field_with_a_default_that_a_record_does_not_name_disowns_nothing():
    plain = identity()
    for name in ("precision", "train_fraction", "beta1", "weight_decay", "optimizer", "warm_up", "width", "blocks"):
        older = {k: v for k, v in plain.items() if k != name}
        assert unlike(older, plain) == unlike(plain, older) == []
    older = {k: v for k, v in plain.items() if k != "precision"}
    assert unlike(older, identity(precision="bf16")) == ["precision"]


# --- a run's name and files ----------------------------------------------------------------------------------------


def test_run_names_seeds_and_paths(tmp_path):
    path = write_study(tmp_path)
    found = {
        tuple(seeds): make_run(path, "linear", seeds, device="cpu").name
        for seeds in ([3], [2, 0, 1], [5, 0], list(range(0, 400, 2)))
    }
    assert list(found.values())[:3] == ["linear-seed3", "linear-seeds0-2", "linear-seeds0,5"]
    assert max(map(len, found.values())) < 200  # a file's name
    run = make_run(path, "linear", [2, 0], results=str(tmp_path))
    assert run.seeds == (0, 2)
    assert run.record(2) == tmp_path / "tiny" / "records" / "linear-seed2.parquet"


def test_a_cell_s_name_tells_its_values():
    assert Cell((("learning_rate", 2e-3), ("weight_decay", 1.0)), ("x_plus_y",)).name == (
        "learning_rate=0.002 weight_decay=1"
    )
    assert Cell((), ("x_plus_y",)).name == ""
    assert Scheduled("linear", 1, 2).values(40, True).tolist() == [1, 1, 1, 2]
