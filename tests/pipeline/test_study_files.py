"""Study files: what is allowed loads, anything else is told in one line that names field, value and what is allowed."""

import json
import math
import pathlib
from dataclasses import fields

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.inputs import HUGE, arm_settings, courses, grids, message, names, values
from support.project import shrink
from support.studies import TINY, write_study

from grok_utils import schedules
from grok_utils.errors import BadInput
from grok_utils.pipeline.settings import RETIRED
from grok_utils.pipeline.study_files import STUDIES, load_study, make_study
from grok_utils.schedules import SCHEDULES
from grok_utils.studies import Arm, Cell, Follows, Scheduled, Settings, Shape, Study

# --- what is allowed -----------------------------------------------------------------------------------------------


def test_the_defaults_are_the_protocol_s():
    protocol = Settings(
        batch_size=512,
        learning_rate=1e-3,
        weight_decay=0.5,
        beta1=0.9,
        beta2=0.98,
        operations=("x_plus_y", "x_minus_y", "x_div_y", "permutation"),
        modulus=97,
        train_fraction=0.5,
        precision="float32",
        optimizer="adamw",
        warm_up=50,
        width=128,
        heads=4,
        blocks=2,
    )
    paper = load_study("paper")
    assert [a.name for a in paper.arms] == ["baseline", "linear", "exponential", "logarithmic", "cyclic"]
    assert paper.arm("baseline") == Arm("baseline", protocol, (Cell((), protocol.operations),))
    assert paper.arm("linear").settings.batch_size == Scheduled("linear", 32, 512)
    assert (paper.seeds, paper.updates, paper.every_tenth) == ((0, 1, 2), 7500, ())
    assert make_study("paper", {"title": paper.title, "schedules": [a.name for a in paper.arms]}) == paper


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_project_s_studies_load_also_shrunk(tmp_path, path):
    study = load_study(path.stem)
    assert study.name == path.stem and study.title
    tiny = tmp_path / path.name
    tiny.write_bytes(path.read_bytes())
    shrink(tiny)
    small = load_study(str(tiny))
    assert {a.name for a in small.arms} <= {a.name for a in study.arms}
    assert max(a.course("batch_size", 60, "x_plus_y", a.cells[0]).max() for a in small.arms) <= 16


def test_the_example_of_the_design_loads():
    study = make_study("design", yaml.safe_load(DESIGN))
    assert [a.name for a in study.arms] == list(yaml.safe_load(DESIGN)["arms"])
    cells = {a.name: len(a.cells) for a in study.arms}
    assert cells.pop("annealed") == 2
    assert set(cells.values()) == {6}
    assert study.seeds == (300, 301, 302)
    assert study.arm("gentle").settings.batch_size == Scheduled("linear", 64, 256, 2000)
    assert study.arm("linear-reversed").settings.batch_size == Scheduled(
        "linear", 32, 512, control="reverse", window=2000
    )
    assert study.arm("annealed").settings.learning_rate == Scheduled("linear", 1e-3, 1e-4, 2000)
    assert study.arm("mirrored").settings.weight_decay == Follows(1e-3, 32, -0.5, Scheduled("linear", 32, 512))
    assert study.arm("narrow").settings.operations == ("x_plus_y",)
    assert study.arm("narrow-muon").settings.shape == Shape(64, 2, 3)


DESIGN = """
title: Which batch size groks soonest, with rate and decay tuned for each
arms:
  baseline:
  constant-128: {batch_size: 128}
  linear:
  gentle: {batch_size: {schedule: linear, lo: 64, hi: 256, length: 2000}}
  linear-reversed: {batch_size: {schedule: linear, lo: 32, hi: 512, control: reverse, window: 2000}}
  annealed: {learning_rate: {schedule: linear, lo: 1.0e-3, hi: 1.0e-4, length: 2000}}
  narrow: {precision: bf16, modulus: 13, operations: [x_plus_y]}
  narrow-muon: {optimizer: muon, width: 64, heads: 2, blocks: 3, operations: [x_plus_y]}
  mirrored:
    weight_decay: {follows: {schedule: linear, lo: 32, hi: 512}, value: 1.0e-3, at: 32, power: -0.5}
    grid: {learning_rate: [0.1, 0.2, 0.3], beta1: [0.5, 0.6]}
grid:
  learning_rate: [1.0e-3, 2.0e-3, 4.0e-3]
  weight_decay: [0.5, 1.0]
seeds: 300..302
operations: [x_plus_y, x_div_y]
every_tenth: [train_loss]
updates: 7500
"""


def test_measures_are_the_studys_and_change_no_arms_identity(tmp_path):
    plain, asked = (load_study(write_study(tmp_path, measures=names)) for names in ([], ["gradient_noise"]))
    assert (plain.measures, asked.measures) == ((), ("gradient_noise",))
    assert [a.identity(60) for a in plain.arms] == [a.identity(60) for a in asked.arms]
    thin = write_study(tmp_path, measures=["gradient_noise"], every_tenth=["gradient_trace", "val_loss"])
    assert load_study(thin).every_tenth == ("gradient_trace", "val_loss")


def test_what_stops_a_run_is_seen_at_every_log(tmp_path):
    assert load_study(write_study(tmp_path, stop_after=500, every_tenth=["val_loss"])).stop_after == 500
    with pytest.raises(BadInput, match=r"^every_tenth: \['val_accuracy'\] is not free of val_accuracy, by which stop_"):
        load_study(write_study(tmp_path, stop_after=500, every_tenth=["val_accuracy"]))


def test_the_short_form_names_arms_and_nothing_more(tmp_path):
    short = load_study(write_study(tmp_path, schedules=["baseline", "cyclic"]))
    assert short == load_study(write_study(tmp_path, arms={"baseline": None, "cyclic": {}}))


@pytest.mark.parametrize(
    ("given", "seeds"),
    [
        ([2, 0, 1], (0, 1, 2)),
        ("300..302", (300, 301, 302)),
        ("7..7", (7,)),
        ("0..11", tuple(range(12))),
        ("9,0..2", (0, 1, 2, 9)),
    ],
)
def test_seeds_are_a_list_or_a_range(tmp_path, given, seeds):
    assert load_study(write_study(tmp_path, seeds=given)).seeds == seeds


def test_a_range_of_seeds_is_read_from_a_file_as_it_is_written(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("schedules: [linear]\nseeds: 300..302\n")
    assert load_study(str(path)).seeds == (300, 301, 302)


def test_a_precision_of_the_command_line_replaces_the_study_s(tmp_path):
    path = write_study(tmp_path, precision="float32")
    assert {a.settings.precision for a in load_study(path, "bf16").arms} == {"bf16"}


def test_merged_keys_are_no_repetition(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("arms:\n  a: &a {batch_size: 8, beta1: 0.5}\n  b: {<<: *a, beta1: 0.6}\n")
    assert [(a.settings.batch_size, a.settings.beta1) for a in load_study(str(path)).arms] == [(8, 0.5), (8, 0.6)]


# --- what is not ---------------------------------------------------------------------------------------------------


def mine(**own):
    return {"mine": {"batch_size": 8} | own}


BATCH = "is not a whole number from 1 to 2147483647, all, or a schedule"
CROSSED = "is not a setting that can vary within a stack (learning_rate, weight_decay, beta1, beta2); what else varies"
LINEAR = {"schedule": "linear", "lo": 4, "hi": 16}
FOLLOWS = {"follows": "batch_size", "value": 1e-3, "at": 512, "power": 0.5}
BAD = [
    # setting, value, how the line starts
    ("title", 5, "title: 5 is not one line of text"),
    ("title", "a\nb", "title: 'a\\nb' is not one line of text"),
    ("title", "\ud800", "title: '\\ud800' is not one line of text"),
    ("seeds", [], "seeds: [] is not a non-empty list of whole numbers from 0 to 2147483647, or such as 300..302"),
    ("seeds", [0, 1, 0], "seeds: [0, 1, 0] is not free of repetitions"),
    ("seeds", [-1], "seeds: [-1] is not"),
    ("seeds", [True], "seeds: [True] is not"),
    ("seeds", [0.0], "seeds: [0.0] is not"),
    ("seeds", ["0"], "seeds: ['0'] is not"),
    ("seeds", 3, "seeds: 3 is not a non-empty list"),
    ("seeds", [HUGE], "seeds: [1000000"),
    ("seeds", "302..300", "seeds: '302..300' is not a non-empty list of whole numbers"),
    ("seeds", "0..9999999999", "seeds: '0..9999999999' is not a non-empty list of whole numbers"),
    ("seeds", "0,1..2..3", "seeds: '0,1..2..3' is not a non-empty list of whole numbers"),
    ("seeds", "2147483647..2147483648", "seeds: '2147483647..2147483648' is not a non-empty list"),
    ("seeds", "0...3", "seeds: '0...3' is not"),
    ("seeds", "0..3\n", "seeds: '0..3\\n' is not"),
    ("seeds", "-1..3", "seeds: '-1..3' is not"),
    ("seeds", "٣..٤", "seeds: '٣..٤' is not"),
    ("updates", 55, "updates: 55 is not a whole number from 10 to 1000000 that is a multiple of 10, the log interval"),
    ("updates", 0, "updates: 0 is not a whole number"),
    ("updates", 60.0, "updates: 60.0 is not a whole number"),
    ("updates", "60", "updates: '60' is not a whole number"),
    ("updates", 10**9, "updates: 1000000000 is not a whole number"),
    ("stop_after", 90, "stop_after: 90 is not a whole number of updates from 100 to 1000000 that is a multiple"),
    ("stop_after", 505, "stop_after: 505 is not a whole number of updates from 100"),
    ("stop_after", "500", "stop_after: '500' is not a whole number"),
    ("stop_after", True, "stop_after: True is not a whole number"),
    ("stop_after", 10**9, "stop_after: 1000000000 is not a whole number"),
    ("arms", mine(stop_after=500), "arms.mine: 'stop_after' is not a setting (allowed: "),
    (
        "every_tenth",
        "train_loss",
        "every_tenth: 'train_loss' is not a list of distinct train_loss, train_accuracy, val_loss, ",
    ),
    ("every_tenth", ["update"], "every_tenth: ['update'] is not a list of distinct train_loss, "),
    ("every_tenth", [["train_loss"]], "every_tenth: [['train_loss']] is not a list of distinct train_loss, "),
    ("every_tenth", ["weight_norm"], "every_tenth: ['weight_norm'] is not a list of distinct train_loss, "),
    ("measures", "weight_norm", "measures: 'weight_norm' is not a list of distinct weight_norm, gradient_noise, "),
    ("measures", ["gradient_square"], "measures: ['gradient_square'] is not a list of distinct weight_norm, "),
    ("measures", ["weight_norm", "weight_norm"], "measures: ['weight_norm', 'weight_norm'] is not a list of distinct "),
    ("measures", None, "measures: None is not a list of distinct "),
    ("arms", mine(measures=["weight_norm"]), "arms.mine: 'measures' is not a setting (allowed: "),
    ("precision", "float16", "precision: 'float16' is not one of float32, tf32, bf16"),
    ("optimizer", "adam", "optimizer: 'adam' is not one of adamw, sgd, muon"),
    ("optimizer", ["sgd"], "optimizer: ['sgd'] is not one of adamw, "),
    ("warm_up", -1, "warm_up: -1 is not a whole number of updates from 0 to 1000000"),
    ("warm_up", True, "warm_up: True is not a whole number"),
    ("width", 0, "width: 0 is not a whole number from 1 to 1024"),
    ("width", 64.0, "width: 64.0 is not a whole number"),
    ("width", 66, "width: 66 is not a multiple of the 4 heads"),
    ("heads", 3, "heads: 3 is not a divisor of the width 128"),
    ("heads", 0, "heads: 0 is not a whole number from 1 to 64"),
    ("blocks", 5, "blocks: 5 is not a whole number from 1 to 4"),
    ("blocks", 0, "blocks: 0 is not a whole number from 1 to 4"),
    ("arms", mine(heads=3), "arms.mine.heads: 3 is not a divisor of the width 128"),
    ("precision", None, "precision: None is not one of float32, "),
    ("precision", ["bf16"], "precision: ['bf16'] is not one of float32, "),
    ("modulus", 91, "modulus: 91 is not a prime from 2 to 1999"),
    ("modulus", 1, "modulus: 1 is not a prime"),
    ("modulus", -7, "modulus: -7 is not a prime"),
    ("modulus", 97.0, "modulus: 97.0 is not a prime"),
    ("modulus", "97", "modulus: '97' is not a prime"),
    ("modulus", 2003, "modulus: 2003 is not a prime from 2 to 1999"),
    ("modulus", HUGE, "modulus: 1000000"),
    ("train_fraction", 0, "train_fraction: 0 is not a number between 0 and 1"),
    ("train_fraction", 1, "train_fraction: 1 is not a number between 0 and 1"),
    ("train_fraction", -0.5, "train_fraction: -0.5 is not a number between 0 and 1"),
    ("train_fraction", math.nan, "train_fraction: nan is not a number between 0 and 1"),
    ("train_fraction", "0.5", "train_fraction: '0.5' is not a number between 0 and 1"),
    ("train_fraction", True, "train_fraction: True is not a number between 0 and 1"),
    (
        "train_fraction",
        0.001,
        "train_fraction: 0.001 is not enough for a pair in either set of x_plus_y, which has 121",
    ),
    ("operations", ["x_times_y"], "operations: ['x_times_y'] is not a non-empty list of distinct x_plus_y, x_minus_y"),
    ("operations", [], "operations: [] is not a non-empty list"),
    ("operations", "x_plus_y", "operations: 'x_plus_y' is not a non-empty list"),
    (
        "operations",
        ["x_plus_y", "x_plus_y"],
        "operations: ['x_plus_y', 'x_plus_y'] is not a non-empty list of distinct",
    ),
    ("operations", [["x_plus_y"]], "operations: [['x_plus_y']] is not a non-empty list of distinct"),
    ("operations", [HUGE], "operations: [1000000"),
    # hyper-parameters as numbers
    ("batch_size", 0, f"batch_size: 0 {BATCH}"),
    ("batch_size", 4.5, f"batch_size: 4.5 {BATCH}"),
    ("batch_size", True, f"batch_size: True {BATCH}"),
    ("batch_size", 2**31, f"batch_size: 2147483648 {BATCH}"),
    ("batch_size", "some", f"batch_size: 'some' {BATCH}"),
    ("batch_size", None, f"batch_size: None {BATCH}"),
    (
        "learning_rate",
        "1e-3",
        "learning_rate: '1e-3' is not a number from 0 to 1 (write 1.0e-3), a schedule, one that ",
    ),
    ("learning_rate", math.inf, "learning_rate: inf is not a number from 0 to 1"),
    ("learning_rate", -1e-3, "learning_rate: -0.001 is not a number from 0 to 1"),
    ("learning_rate", HUGE, "learning_rate: 1000000"),
    ("learning_rate", [1e-3], "learning_rate: [0.001] is not a number from 0 to 1"),
    ("weight_decay", math.nan, "weight_decay: nan is not a number from 0 to 100, a schedule"),
    ("weight_decay", "half", "weight_decay: 'half' is not a number from 0 to 100"),
    ("beta1", 1, "beta1: 1 is not a number from 0 to below 1"),
    ("beta2", -0.1, "beta2: -0.1 is not a number from 0 to below 1"),
    # arms
    ("schedules", ["wobbly"], "arms: 'wobbly' is not baseline, a schedule (linear, exponential, "),
    ("schedules", [], "arms: {} is not a non-empty mapping of arms"),
    (
        "schedules",
        "linear",
        "schedules: 'linear' is not a list of arms' names; what differs between arms stands in arms",
    ),
    ("schedules", {"linear": None}, "schedules: {'linear': None} is not a list of arms' names; what differs between"),
    ("schedules", ["linear", "linear"], "schedules: ['linear', 'linear'] is not free of repetitions"),
    ("schedules", [True], "schedules: True is not a name of at most 50 letters"),
    ("schedules", [HUGE], "schedules: 1000000"),
    ("arms", ["linear"], "arms: ['linear'] is not a non-empty mapping of arms"),
    ("arms", {}, "arms: {} is not a non-empty mapping of arms"),
    ("arms", None, "arms: None is not a non-empty mapping of arms"),
    ("arms", {"wobbly": None}, "arms: 'wobbly' is not baseline, a schedule (linear, "),
    ("arms", {1: {}}, "arms: 1 is not a name of at most 50 letters, digits, _ . and -, which . and - do not begin"),
    ("arms", {"../up": LINEAR}, "arms: '../up' is not a name"),
    ("arms", {"-o": LINEAR}, "arms: '-o' is not a name"),
    ("arms", {"a\nb": LINEAR}, "arms: 'a\\nb' is not a name"),
    ("arms", {"a\n": LINEAR}, "arms: 'a\\n' is not a name"),
    ("arms", {"x" * 300: LINEAR}, "arms: 'xxx"),
    ("arms", {"linear": 3}, "arms.linear: 3 is not a mapping of settings"),
    ("arms", {"linear": []}, "arms.linear: [] is not a mapping of settings"),
    ("arms", mine(speed=3), "arms.mine: 'speed' is not a setting (allowed: batch_size, learning_rate, "),
    ("arms", mine(seeds=[0]), "arms.mine: 'seeds' is not a setting (allowed: "),
    ("arms", mine(updates=60), "arms.mine: 'updates' is not a setting (allowed: "),
    ("arms", mine(batch_size=-1), f"arms.mine.batch_size: -1 {BATCH}"),
    ("arms", mine(operations=["x_times_y"]), "arms.mine.operations: ['x_times_y'] is not a non-empty list of"),
    ("arms", mine(modulus=4), "arms.mine.modulus: 4 is not a prime"),
    ("arms", mine(train_fraction=2), "arms.mine.train_fraction: 2 is not a number between 0 and 1"),
    ("arms", mine(precision="f"), "arms.mine.precision: 'f' is not one of float32, "),
    # schedules
    ("batch_size", {}, "batch_size.schedule: None is not one of linear, exponential"),
    ("learning_rate", {}, "learning_rate.schedule: None is not one of linear, exponential"),
    ("batch_size", {"schedule": ["linear"]}, "batch_size.schedule: ['linear'] is not one of linear, exponential"),
    (
        "batch_size",
        LINEAR | {"speed": 3},
        "batch_size: 'speed' is not a key of a schedule (allowed: schedule, lo, hi, ",
    ),
    ("batch_size", LINEAR | {"lo": 0}, "batch_size.lo: 0 is not given: a whole number from 1 to 2147483647"),
    ("batch_size", LINEAR | {"hi": 16.0}, "batch_size.hi: 16.0 is not given: a whole number from 1 to 2147483647"),
    ("batch_size", LINEAR | {"hi": 10**10}, "batch_size.hi: 10000000000 is not given: a whole number from 1"),
    ("batch_size", LINEAR | {"length": 55}, "batch_size.length: 55 is not a whole number from 10 to 1000000"),
    ("batch_size", LINEAR | {"control": "back"}, "batch_size.control: 'back' is not one of reverse, shuffle, mean"),
    ("batch_size", LINEAR | {"control": ["mean"]}, "batch_size.control: ['mean'] is not one of reverse, shuffle, mean"),
    ("batch_size", LINEAR | {"window": 30}, "batch_size.window: 30 is not a whole number of updates from 0 to 60"),
    (
        "batch_size",
        LINEAR | {"control": "mean", "window": 55},
        "batch_size.window: 55 is not a whole number of updates",
    ),
    (
        "batch_size",
        LINEAR | {"control": "mean", "window": 70},
        "batch_size.window: 70 is not a whole number of updates",
    ),
    (
        "batch_size",
        LINEAR | {"control": "mean", "order": 1},
        "batch_size.order: 1 is not a whole number from 0 on, with",
    ),
    (
        "batch_size",
        LINEAR | {"control": "shuffle", "order": -1},
        "batch_size.order: -1 is not a whole number from 0 on",
    ),
    ("learning_rate", {"schedule": "linear"}, "learning_rate.lo: None is not given: a number from 0 to 1"),
    ("learning_rate", {"schedule": "linear", "lo": 0.1, "hi": 2}, "learning_rate.hi: 2 is not given: a number from 0"),
    ("learning_rate", {"schedule": "linear", "lo": -1, "hi": 1}, "learning_rate.lo: -1 is not given: a number from 0"),
    ("beta1", {"schedule": "linear", "lo": 0.9, "hi": 1}, "beta1.hi: 1 is not given: a number from 0 to below 1"),
    (
        "weight_decay",
        {"schedule": "geometric", "lo": 0, "hi": 1},
        "weight_decay: schedule geometric has no value at update 10 (division by zero)",
    ),
    ("arms", mine(beta2={"schedule": "rise"}), "arms.mine.beta2.schedule: 'rise' is not one of linear, exponential"),
    # what follows the batch size
    ("batch_size", FOLLOWS, "batch_size: 'follows' is not a key of a schedule"),
    (
        "learning_rate",
        FOLLOWS | {"lo": 3},
        "learning_rate: 'lo' is not a key of what follows the batch size (allowed: ",
    ),
    (
        "learning_rate",
        FOLLOWS | {"follows": "beta1"},
        "learning_rate.follows: 'beta1' is not batch_size, or a schedule",
    ),
    ("learning_rate", {"follows": "batch_size"}, "learning_rate.value: None is not given: a number from 0 to 100"),
    ("learning_rate", FOLLOWS | {"value": -1}, "learning_rate.value: -1 is not given: a number from 0 to 100"),
    ("learning_rate", FOLLOWS | {"at": 0}, "learning_rate.at: 0 is not given: a number from 1e-09 to "),
    ("learning_rate", FOLLOWS | {"power": "half"}, "learning_rate.power: 'half' is not given: a number from -10 to 10"),
    (
        "learning_rate",
        FOLLOWS | {"follows": {"schedule": "rise"}},
        "learning_rate.follows.schedule: 'rise' is not one of",
    ),
    ("learning_rate", FOLLOWS | {"follows": LINEAR | {"lo": 0}}, "learning_rate.follows.lo: 0 is not given: a whole "),
    (
        "learning_rate",
        FOLLOWS | {"value": 10},
        "learning_rate: 1.76776695296636",  # 10 · (16 / 512)^½
    ),
    # for each operation
    ("learning_rate", {"x_plus_y": 0.1}, "learning_rate: {'x_plus_y': 0.1} is not given for x_minus_y"),
    ("learning_rate", {"x_plus_y": 0.1, "x_minus_y": 2}, "learning_rate.x_minus_y: 2 is not a number from 0 to 1"),
    ("learning_rate", {"x_plus_y": 0.1, "z": 2}, "learning_rate: 'z' is not an operation (allowed: x_plus_y, "),
    ("learning_rate", {"x_plus_y": 0.1, "schedule": "linear"}, "learning_rate: 'schedule' is not an operation"),
    ("batch_size", {"x_plus_y": 8, "x_minus_y": 16}, "batch_size: 'x_plus_y' is not a key of a schedule"),
    # grids
    ("grid", 3, "grid: 3 is not a mapping of settings to lists of numbers"),
    ("grid", {}, "grid: {} is not a mapping of settings to lists of numbers"),
    ("grid", [{}], "grid: {} is not a mapping of settings to lists of numbers"),
    ("grid", {"batch_size": [8, 16]}, f"grid: 'batch_size' {CROSSED}"),
    ("grid", {"modulus": [11]}, f"grid: 'modulus' {CROSSED}"),
    ("grid", {"lerning_rate": [0.1]}, f"grid: 'lerning_rate' {CROSSED}"),
    ("grid", {"beta1": 0.5}, "grid.beta1: 0.5 is not a non-empty list"),
    ("grid", {"beta1": []}, "grid.beta1: [] is not a non-empty list"),
    ("grid", {"beta1": [1]}, "grid.beta1: 1 is not a number from 0 to below 1"),
    ("grid", {"learning_rate": ["1e-3"]}, "grid.learning_rate: '1e-3' is not a number from 0 to 1 (write 1.0e-3)"),
    ("grid", {"learning_rate": [LINEAR]}, "grid.learning_rate: {'hi': 16, 'lo': 4, 'schedule': 'linear'} is not a num"),
    ("grid", {"weight_decay": [0.5], "operations": "x_plus_y"}, "grid.operations: 'x_plus_y' is not a non-empty list"),
    (
        "grid",
        {"weight_decay": [0.5], "operations": ["x_plus_y", "x_minus_y", "x_div_y"]},
        "grid.operations: 'x_div_y' is not an operation that it is for",
    ),
    ("grid", {"weight_decay": [0.5], "operations": [[]]}, "grid.operations: [[]] is not a non-empty list of distinct"),
    (
        "grid",
        {"weight_decay": [0.5], "operations": ["x_plus_y"]},
        "grid: 'x_minus_y' is not an operation that any mapping of it has cells for",
    ),
    ("arms", mine(grid={"modulus": [11]}), f"arms.mine.grid: 'modulus' {CROSSED}"),
    ("arms", mine(beta1=0.5, grid={"beta1": [0.5]}), "arms.mine.grid: 'beta1' is not for a grid: the arm gives it "),
    (
        "arms",
        mine(grid=[{"beta1": [0.5]}, {"beta1": [0.5], "operations": ["x_div_y"]}]),
        "arms.mine.grid.operations: 'x_div_y' is not an operation that",
    ),
    # what there was
    (
        "arms",
        mine(schedule="linear"),
        "arms.mine: schedule is no setting any more: write batch_size: {schedule: linear, ",
    ),
    (
        "rate_factor",
        "sqrt_batch",
        "study: rate_factor is no setting any more: write learning_rate: {follows: batch_size, ",
    ),
    (
        "schedule_length",
        7500,
        "study: schedule_length is no setting any more: write batch_size: {schedule: linear, len",
    ),
    ("lo", 32, "study: lo is no setting any more: write batch_size: {schedule: linear, lo: 32, hi: 512} at each arm"),
    ("hi", 512, "study: hi is no setting any more: write batch_size: {schedule: linear, lo: 32, hi: 512} at each arm"),
    ("arms", mine(rate_factor="constant"), "arms.mine: rate_factor is no setting any more: write learning_rate: {foll"),
    (
        "lerning_rate",
        0.1,
        "study: 'lerning_rate' is not a setting (allowed: title, seeds, updates, every_tenth, measures, ",
    ),
]


@pytest.mark.parametrize(("setting", "value", "said"), BAD, ids=[f"{s}-{str(v)[:40]}" for s, v, _ in BAD])
def test_what_is_not_allowed_is_named_with_its_field_its_value_and_what_is(tmp_path, setting, value, said):
    arms = {"arms": mine()} if setting in ("operations",) else {"arms": {"baseline": None}}
    arms = {} if setting in ("schedules", "arms") else arms
    top = {"batch_size": 16} if setting == "learning_rate" else {}
    text = message(load_study, write_study(tmp_path, **arms | top | {setting: value}))
    assert text.startswith(said), text


@pytest.mark.parametrize(("name", "bad"), [("batch_size", -1), ("modulus", 4), ("precision", "f"), ("beta1", LINEAR)])
def test_a_bad_value_at_the_top_is_told_also_where_every_arm_has_its_own(name, bad):
    own = {"batch_size": 8, "modulus": 11, "precision": "bf16", "beta1": 0.5}
    assert message(make_study, "tiny", TINY | {name: bad, "arms": {"mine": own}}).startswith((f"{name}: ", f"{name}."))


def test_what_was_said_before_is_told_in_what_to_write_instead():
    """Each retired key's line is itself a study file's, but for where it stands."""
    for key in RETIRED:
        line = message(make_study, "tiny", TINY | {key: 1}).split(": write ")[1].removesuffix(" at each arm")
        assert make_study("tiny", TINY | {"arms": {"mine": yaml.safe_load(line)}, "updates": 7500})


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "beta1", "batch_size"])
@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda s, T, lo, hi: math.nan, "schedule mine is nan at update 10, which is not finite"),
        (lambda s, T, lo, hi: lo if s < 40 else math.inf, "schedule mine is inf at update 40, which is not finite"),
        (lambda s, T, lo, hi: lo / (s - 60), "schedule mine has no value at update 60 ("),
    ],
)
def test_a_schedule_that_is_not_finite_is_told(monkeypatch, name, f, said):
    monkeypatch.setitem(SCHEDULES, "mine", f)
    course = (
        {"schedule": "mine", "lo": 1, "hi": 8} if name == "batch_size" else {"schedule": "mine", "lo": 0, "hi": 0.5}
    )
    changes = {"arms": {"arm": {"batch_size": 8} | {name: course}}}
    assert f"arm.{name}: {said}" in message(make_study, "tiny", TINY | changes)
    with_top = {"arms": {"baseline": None}, name: course}
    assert message(make_study, "tiny", TINY | with_top).startswith(f"{name}: {said}")


def test_a_course_that_leaves_what_is_allowed_is_told_with_its_update(monkeypatch):
    arms = mine(beta1={"follows": LINEAR, "value": 0.5, "at": 8, "power": 1})
    text = message(make_study, "tiny", TINY | {"arms": arms})
    assert text.startswith(
        "arms.mine.beta1: 1.0 is not allowed, at update 60 of its course: a number from 0 to below 1"
    )
    # A schedule cannot leave what is between its ends, though its function may.
    monkeypatch.setitem(schedules.SCHEDULES, "dives", lambda s, T, lo, hi: lo - s)
    study = make_study("tiny", TINY | {"arms": mine(beta1={"schedule": "dives", "lo": 0.5, "hi": 0.9})})
    assert set(study.arm("mine").course("beta1", 60, "x_plus_y", study.arm("mine").cells[0])) == {0.5}


def test_numbers_that_yaml_reads_as_strings_are_told(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("schedules: [linear]\nlearning_rate: 1e-3\n")
    assert message(load_study, str(path)).startswith(
        "learning_rate: '1e-3' is not a number from 0 to 1 (write 1.0e-3), a schedule"
    )


UNREADABLE = [
    (b"schedules: [linear", "cannot be read as YAML"),
    (b"\xff\xfe\x00schedules", "cannot be read as YAML"),
    (b"- linear\n", "is not a YAML mapping"),
    (b"", "is not a YAML mapping"),
    (b"schedules: [linear]\nupdates: 60\nupdates: 70\n", "'updates' is given twice"),
    (b"arms: {a: {batch_size: {schedule: linear, lo: 1, lo: 2}}}\n", "'lo' is given twice"),
    (b"arms: {linear: , linear: }\n", "'linear' is given twice"),
    (b"schedules: [linear]\n1: 2\n", "study: 1 is not a setting"),
    (b"schedules: [linear]\nname: other\n", "study: 'name' is not a setting (allowed: "),
    (b"seeds: [0]\n", "arms: None is not a non-empty mapping of arms"),
    (b"schedules: [linear]\narms: {linear: }\n", "schedules: ['linear'] is not a list of arms' names; what differs"),
    (b"schedules: !!python/object/apply:os.system ['touch executed']\n", "cannot be read as YAML"),
    (b"schedules: !!python/name:os.system\n", "cannot be read as YAML"),
    (b"schedules: [linear]\nupdates: 2001-13-45\n", "cannot be read as YAML"),
    (b"schedules: !!set [linear]\n", "cannot be read as YAML"),
    (b"schedules: [linear]\nupdates: !!timestamp soon\n", "cannot be read as YAML"),
    (b"schedules: [linear]\nupdates: " + b"9" * 5000, "cannot be read as YAML"),
    (b"schedules: [linear]\nupdates: 0x" + b"f" * 5000, "updates: a huge number is not"),
    (b"schedules: " + b"[" * 5000, "cannot be read as YAML"),
    (b"schedules: &a [*a]\n", "is not a name"),
    (b"arms: &a {linear: *a}\n", "arms.linear: 'linear' is not a setting"),
    (b"arms: {linear: {learning_rate: &a {follows: *a}}}\n", "arms.linear.learning_rate.value: None is not given"),
    (b"arms: {linear: {learning_rate: &a {x_plus_y: *a}}}\noperations: [x_plus_y]\n", "arms.linear.learning_rate.x_pl"),
]


@pytest.mark.parametrize(("content", "said"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_an_unreadable_study_file_is_told(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_bytes(content)
    assert said in message(load_study, str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_study_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = write_study(tmp_path)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(pathlib.Path, "read_text", refused)  # nothing is refused to root
    assert message(load_study, path).startswith(f"study: Permission denied: '{path}': change its owner or its rights")


@pytest.mark.parametrize("study", ["nowhere", "nowhere.yaml", "../quick", "", "x" * 300, "a\0b", None, 3, ["quick"]])
def test_a_study_that_is_not_there_is_told(study):
    assert message(load_study, study).startswith("study: ")


def test_a_study_cannot_have_the_name_of_another_folder_of_results(tmp_path):
    for name in ("evidence", "tuned"):
        text = message(load_study, write_study(tmp_path, name=name))
        assert text.startswith(f"study: {name!r} is not a name for a study: results/evidence, results/tuned")
        assert message(load_study, name).endswith("; make evidence builds that page")
    assert "make evidence" not in message(load_study, "nowhere")


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "x" * 60])
def test_a_study_s_name_cannot_lead_out_of_the_results(tmp_path, name):
    text = message(load_study, write_study(tmp_path, name=name))
    assert text.startswith(f"study: {name!r} is not a name of at most 50 letters")


# --- whatever the file says ----------------------------------------------------------------------------------------


def loads_or_says_why(path):
    try:
        study = load_study(path)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(study, Study)
        assert all(getattr(arm.settings, f.name) is not None for arm in study.arms for f in fields(Settings))
        if study.updates < 1000:  # what is loaded has its courses, and an identity that a record can hold
            for arm in study.arms:
                identity = arm.identity(study.updates)
                assert json.loads(json.dumps(identity, allow_nan=False)) == identity


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(names, values, max_size=3)
    | st.fixed_dictionaries({"arms": st.dictionaries(st.sampled_from(["mine", "linear"]), arm_settings, max_size=2)})
    | st.fixed_dictionaries({"grid": grids}, optional={"learning_rate": courses, "batch_size": courses})
)
def test_any_mapping_loads_or_is_refused_in_one_line(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(TINY | changes, allow_unicode=True), encoding="utf-8")
    loads_or_says_why(str(path))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="schedules: [linear]{}&*!|-<>\n\t'\"%@", max_size=60).map(str.encode))
def test_any_bytes_load_or_are_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    loads_or_says_why(str(path))
