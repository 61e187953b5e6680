"""Alternative texts: what they say is what the figures show, on data whose extremes are known."""

import re

import numpy as np
import pandas as pd
import pytest

from grok_utils.analysis import moves
from grok_utils.analysis.crossings import crossings
from grok_utils.analysis.measured import course
from grok_utils.analysis.summaries import summarise
from grok_utils.evidence import figures as of_evidence
from grok_utils.page import figures


@pytest.fixture
def frame():
    """Two arms on two operations, three seeds: `linear` crosses at 20, `baseline` at 30; on S₅ only linear."""
    rows = []
    for operation, arm, seed in [
        (o, a, s) for o in ("x_plus_y", "permutation") for a in ("baseline", "linear") for s in range(3)
    ]:
        crossing = {"linear": 20, "baseline": 30 if operation == "x_plus_y" else 99}[arm]
        for update in (10, 20, 30, 40):
            row = {"schedule": arm, "operation": operation, "seed": seed, "update": update, "diverged": False}
            row |= {"cell": "", "examples_seen": update * (4 if arm == "linear" else 16)}
            row |= {"val_accuracy": np.float32(0.999 if update >= crossing else 0.1)}
            row |= {"train_accuracy": 1.0, "train_loss": 0.01}
            rows.append(row | {"val_loss": 100.0 / update if arm == "linear" else 200.0 / update})
    return pd.DataFrame(rows)


def test_schedules_are_told_by_how_they_go():
    sizes = {"baseline": [8, 8, 8], "linear": [2, 5, 8], "mine": [8, 8, 2], "cyclic": [8, 2, 5]}
    text = figures.schedules({arm: np.array(size) for arm, size in sizes.items()}).alt
    assert text.endswith(
        "baseline stays at 8, linear grows from 2 to 8, mine shrinks from 8 to 2, cyclic varies between 2 and 8."
    )


def test_learning_curves_name_first_and_last_and_who_never_gets_there(frame):
    text = figures.learning_curves(frame).alt
    assert "validation accuracy against update, a panel" in text
    assert text.endswith("on x + y from 20 (linear) to 30 (baseline). On S₅ 20 (linear), never (baseline).")
    text = figures.learning_curves(frame, "examples_seen").alt
    assert "validation accuracy against examples seen, a panel" in text
    assert text.endswith("on x + y from 80 (linear) to 480 (baseline). On S₅ 80 (linear), never (baseline).")


def test_losses_times_and_shares(frame):
    members = crossings(frame)
    assert "on x + y up to 20, at the end from 2.5 (linear) to 5 (baseline). On S₅" in figures.loss_curves(frame).alt
    assert figures.updates_to_99(members).alt.endswith(
        "on x + y from 20 (linear) to 30 (baseline). On S₅ from 20 (linear) to 40 (baseline)."
    )
    assert figures.share_grokked(members).alt.endswith(
        "on x + y 100 % (all). On S₅ from 0 % (baseline) to 100 % (linear)."
    )


def test_measures_say_where_they_begin_and_end(frame):
    told = course(frame.assign(weight_norm=frame["val_loss"] + frame["seed"]), "weight_norm")
    text = figures.measure(told, "weight_norm").alt
    assert text.startswith(
        "Line charts of weight norm against update, a panel for each operation, a line for each arm."
    )
    each = "at first from 11 (linear) to 21 (baseline), at the end from 3.5 (linear) to 6 (baseline)"
    assert text.endswith(f"The mean over seeds: on x + y {each}. On S₅ {each}.")


def test_what_moves_is_told_from_the_first_log_to_the_touch(frame):
    measured = frame.assign(weight_norm=frame["val_loss"])
    text = figures.before_the_touch(moves.aligned(measured, ["weight_norm"]), moves.gaps(moves.phases(frame))).alt
    assert "a panel for each operation and arm, a line for each measure" in text
    # 200 / update to update 37.5 of a touch at 30: from 20 to 6.67 at the touch, where it is least; or 100 / update.
    assert "On x + y, baseline val accuracy from 0.00 to 1.00; weight norm from 1.00 to 0.00" in text
    assert "S₅, linear" in text and "S₅, baseline" not in text
    known = moves.aligned(measured, ["weight_norm"]).query("measure != 'weight_norm' or share < 0.7")
    text = figures.before_the_touch(known, moves.gaps(moves.phases(frame))).alt
    assert re.search(
        r"On x \+ y, baseline val accuracy from 0.00 to 1.00; weight norm from 1.00 to 0\.\d\d, known until 0.68", text
    )


def test_heat_maps_name_the_best_and_the_worst_cell(frame):
    cells = summarise(crossings(frame))
    slow = cells.assign(rmst=cells["rmst"] + 5)
    table = pd.concat([cells.assign(cell="learning_rate=0.002"), slow.assign(cell="learning_rate=0.004")])
    text = figures.rmst_by_cell(table.reset_index(drop=True)).alt
    assert "a row for each arm, over learning rate. No seed reached 99 % in 2 of 8 cells." in text
    both = "linear from 20 (learning_rate=0.002) to 25 (learning_rate=0.004)"
    assert f"on x + y baseline from 30 (learning_rate=0.002) to 35 (learning_rate=0.004), {both}. On S₅" in text


def test_what_is_not_finite_is_left_out(frame):
    nothing = frame.assign(val_accuracy=0.0, val_loss=np.nan)
    assert "on x + y never (baseline, linear)" in figures.learning_curves(nothing).alt
    assert "on x + y at the end without a finite value" in figures.loss_curves(nothing).alt
    overflown = frame.assign(val_loss=frame["val_loss"].where(frame["update"] < 40, np.inf))
    assert "on x + y up to 20, at the end without a finite value" in figures.loss_curves(overflown).alt


def test_the_evidences_figures():
    dose = pd.DataFrame(
        {
            "operation": "x_plus_y",
            "schedule": ["baseline", "constant-32", "linear"],
            "constant": [True, True, False],
            "rmst": [2500, 3800.4, 2100],
            "low": [2400, 3700, 2000],
            "high": [2600, 3900, 2200],
            "dose": [512, 32, 200],
        }
    )
    assert of_evidence.dose_response(dose).alt.endswith(
        "on x + y constants from 2,500 (baseline) to 3,800 (constant-32), others 2,100 (linear)."
    )
    rows = pd.DataFrame({"operation": "x_plus_y", "label": ["a", "b"], "arm": "linear", "difference": [-300.2, 12]})
    rows = rows.assign(low=rows["difference"] - 9, high=rows["difference"] + 9)
    assert of_evidence.forest(rows, {}, "updates", "it").alt.endswith(
        "it, on the horizontal axis: on x + y from −300 (a) to +12 (b)."
    )
    both = of_evidence.forest(rows.assign(label="a", arm=["linear", "cyclic"]), {}, "updates", "it").alt
    assert both.endswith("on x + y from −300 (a linear) to +12 (a cyclic).")
    band = pd.DataFrame({"schedule": ["linear", "linear"], "update": [750, 3000], "reached": [1, 9], "n": 10})
    band = band.assign(share=band["reached"] / 10, low=0.0, high=1.0, operation="permutation")
    between = band.head(1).assign(update=1000)
    text = of_evidence.share_with_band(pd.concat([band, between]), [750, 3000]).alt
    assert text.endswith("by update 750 linear 1 of 10; by update 3,000 linear 9 of 10.")
    table = pd.DataFrame({"operation": "x_plus_y", "schedule": ["a", "b"], "crossed": [2, 0], "share_below": [0.05, 0]})
    members = table.assign(seed=0, logs_after=table["crossed"])
    assert of_evidence.stability(members, table).alt.endswith("The mean: on x + y 5.0 % (a).")
