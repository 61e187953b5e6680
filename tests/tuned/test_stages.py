"""The study files of the tuned answer follow from the records: derived again, they are those committed."""

import dataclasses
import shutil

import pandas as pd
import yaml
from support.synthetic import write_study

from grok_utils.analysis import moves
from grok_utils.pipeline.study_files import STUDIES, load_study
from grok_utils.store.files import ROOT
from grok_utils.store.records import read_record
from grok_utils.studies import PROTOCOL, Cell, Follows, Scheduled
from grok_utils.tuned import choices, stages

FIRST = (stages.CONSTANTS, stages.DYNAMIC)


def derived(folder, results):
    return list(stages.derive(results, folder))


def test_derived_again_the_files_are_those_committed(tmp_path):
    for path in STUDIES.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    lines = derived(tmp_path, ROOT / "results")
    names = {
        line.split(":")[0]
        for line in lines
        if "records that are not there yet" not in line and "not needed" not in line
    }
    assert {*stages.EDGES[:1], stages.EDGES[2]} <= names
    for name in names:
        assert (tmp_path / f"{name}.yaml").read_bytes() == (STUDIES / f"{name}.yaml").read_bytes(), name
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in STUDIES.glob("*.yaml")}


def test_each_stage_waits_for_the_records_of_the_one_before(tmp_path, monkeypatch):
    course = {"schedule": "geometric", "lo": 64, "hi": 512, "length": 100}
    monkeypatch.setattr(stages, "SHAPES", {"geometric-64-512-100": course})
    common = {
        "grid": {"learning_rate": [1.0e-3, 2.0e-3], "weight_decay": [0.5, 1.0]},
        "operations": ["x_plus_y", "x_div_y"],
    }
    common |= {"seeds": [1100], "updates": 2500}
    arms = {stages.CONSTANTS: {"constant-64": {"batch_size": 64}, "baseline": None}}
    arms |= {stages.DYNAMIC: {"linear": None, stages.ANCHOR: {"batch_size": "all"}}}
    for name, of in arms.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, "arms": of} | common))
    results = tmp_path / "results"

    times = {("linear", o): 190.0 for o in ("x_plus_y", "x_div_y")} | {("constant-64", "x_div_y"): 180.0}

    def load(name):
        return load_study(str(tmp_path / f"{name}.yaml"))

    def make(*names):
        for name in names:
            write_study(
                results, load(name), lambda study, arm, operation, seed: times.get((arm.name, operation), 200.0)
            )

    assert all("not there yet" in line for line in derived(tmp_path, results))
    assert len(list(tmp_path.glob("*.yaml"))) == 2
    after = [FIRST, stages.EDGES[::2], stages.EDGES[1::2], ("surface-near",)]
    after += [("shapes", "select-1000", "select-2500")]
    for ready in (*after, ("select-shapes-1000",)):
        make(*ready)
        lines = derived(tmp_path, results)
    assert not any("not there yet" in line for line in lines)
    # All cells are equal, so the lowest rate × decay goes first: two steps of two, as far as 1 / (rate × decay) allows.
    edge, twice, near, select = map(load, (*stages.EDGES[:2], "surface-near", "select-1000"))
    assert {cell.name for cell in edge.arm("baseline").cells} == {
        f"learning_rate={r:.12g} weight_decay={d:.12g}" for r, d in [(5e-4, 0.5), (5e-4, 1), (1e-3, 0.25), (2e-3, 0.25)]
    }
    assert (edge.updates, near.updates, select.updates) == (7500, 2500, 1000)
    assert edge.arm("baseline").settings.precision == "tf32" and select.arm("linear").settings.precision == "float32"
    assert len(twice.arms) == 2 and {arm.name for arm in near.arms} == {"baseline", "linear"}
    assert {arm.name for arm in select.arms} == {"baseline", "constant-64", "linear"}
    assert [a.name for a in load("select-2500").arms] == [stages.ANCHOR]
    assert all(len(arm.cells) == 3 for arm in select.arms) and select.seeds == tuple(range(1200, 1216))
    (shape,), (going_on,) = load("shapes").arms, load("select-shapes-1000").arms
    assert len(shape.cells) == 9 and shape.name == going_on.name
    assert shape.settings.batch_size == Scheduled("geometric", 64, 512, 100)
    tuned = load("tuned-2000-60")
    assert {arm.name for arm in tuned.arms} == {"baseline", "constant-64", "linear", shape.name}
    assert all(arm.settings.operations == ("x_plus_y", "x_minus_y", "x_div_y") for arm in tuned.arms)
    assert tuned.seeds == tuple(range(3000, 3060)) and all(len(arm.cells) == 1 for arm in tuned.arms)
    noise = load("noise-1000")
    assert {arm.name for arm in noise.arms} == {"baseline", "constant-64"} and noise.measures == ("gradient_noise",)
    for arm in noise.arms:  # by touch alone; stage 3 has the cells chosen by kept too
        assert {c.name for c in arm.cells} <= {c.name for c in tuned.arm(arm.name).cells}
    assert {*noise.seeds} < {*tuned.seeds} and "x_minus_y" not in noise.operations
    oracle, controls = load("oracle"), load("controls")
    (ours,) = oracle.arms[0].cells  # all are equal: the lowest rate × decay of all that were tried
    assert ours == Cell((("learning_rate", 0.0001768), ("weight_decay", 0.7071)), stages.ORACLE)
    constants = {"baseline", "constant-64"}
    assert {a.name for a in controls.arms} == {
        f"{arm}-{name}" for arm in constants for name in (*stages.CONTROLS, stages.OTHER)
    } | {"linear-as-tuned", *(f"linear-rate-follows-{rate:g}" for rate in (8.84e-05, 0.0001768, 0.0003536))}
    narrow, sgd, other = (controls.arm(f"constant-64-{name}") for name in ("width-64", "sgd", stages.OTHER))
    assert (narrow.settings.width, narrow.settings.batch_size, len(narrow.cells)) == (64, 64, 9)
    assert (sgd.settings.optimizer, len(sgd.cells), len(controls.arm("baseline-muon").cells)) == ("sgd", 24, 22)
    assert (other.settings.operations, len(other.cells)) == (("x3_plus_xy",), 1)
    follows = controls.arm("linear-rate-follows-0.0001768")
    assert follows.settings.learning_rate == Follows(0.0001768, 512, 0.5) and len(follows.cells) == 3
    sizes = follows.course("batch_size", controls.updates, "x_div_y", follows.cells[0])
    rates = follows.course("learning_rate", controls.updates, "x_div_y", follows.cells[0])
    assert rates[0] == 0.0001768 * (sizes[0] / 512) ** 0.5 and sizes[0] == 33


def test_what_moves_is_asked_at_the_best_cell_of_512_of_stage_1():
    frames = []
    for name in stages.STAGE_1:
        if paths := sorted((ROOT / "results" / name / "records").glob("baseline-*.parquet")):
            frames.append(choices.outcomes(pd.concat([read_record(path)[0] for path in paths])))
    best = choices.best(choices.ranked(pd.concat(frames))).query("outcome == 'touch'").set_index("operation")
    study = load_study("before-grokking")
    usual, tuned = (study.arm(name) for name in ("baseline", "tuned"))
    untuned = dataclasses.replace(tuned.settings, learning_rate=1e-3, weight_decay=0.5)
    assert usual.settings == untuned == PROTOCOL
    for operation in study.operations:
        of = best.loc[stages.ITS_CHOICE if operation == stages.HELD_OUT else operation, choices.POINT]
        own = [tuned.course(name, 10, operation, tuned.cells[0])[0] for name in choices.POINT]
        assert own == of.tolist(), operation
    text = " ".join((ROOT / "ANALYSIS_PLAN.md").read_text(encoding="utf-8").split())
    assert f"seeds {study.seeds[0]:,} to {study.seeds[-1]:,}, {study.updates:,} updates" in text
    assert f"gap of {moves.APART} updates or more" in text and moves.SMOOTH == 5 and "means over five logs" in text
