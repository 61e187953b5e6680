"""How measures go and what they are at the crossing, on numbers whose means are known."""

import numpy as np
import pandas as pd
import pytest
from support.synthetic import crossing, member

from grok_utils.analysis.crossings import crossings
from grok_utils.analysis.measured import at_crossing, course, courses, shown

NOISE = ["gradient_square", "gradient_trace"]


def study(**columns):
    """Two seeds of baseline that cross at 30 and 60, one of linear that never does, ten logs; with these columns."""
    members = [crossing(0, 30), crossing(1, 60), member("linear", 0, [0.5] * 10)]
    for frame, values in zip(members, zip(*columns.values(), strict=True), strict=True):
        frame[[*columns]] = np.array([np.broadcast_to(value, 10) for value in values]).T
    return pd.concat(members, ignore_index=True)


def test_ratios_are_shown_where_both_their_columns_are():
    assert shown(["weight_norm"]) == ["weight_norm"]
    assert shown(["gradient_noise", "weight_norm"]) == [*NOISE, "weight_norm", "noise_scale"]
    assert shown([]) == []


def test_a_course_is_the_mean_over_the_logs_up_to_each_point():
    frame = study(weight_norm=[np.arange(10.0), np.arange(10.0) ** 2, 3.0])
    told = course(frame, "weight_norm", points=5)
    baseline = told[told["schedule"] == "baseline"].set_index(["seed", "update"])["weight_norm"]
    assert baseline[0].to_dict() == {20: 0.5, 40: 2.5, 60: 4.5, 80: 6.5, 100: 8.5}
    assert baseline[1].to_dict() == {20: 0.5, 40: 6.5, 60: 20.5, 80: 42.5, 100: 72.5}
    uneven = course(frame, "weight_norm", points=4)["update"].unique().tolist()
    assert uneven == [10, 40, 70, 100]  # the last log is always a point
    assert len(course(frame, "weight_norm")) == 3 * 10


def test_what_was_kept_at_every_tenth_log_or_is_null_is_left_out():
    thin = np.where(np.arange(10) % 5 == 4, np.arange(10.0), np.nan)
    told = course(study(fourier_concentration=[thin, thin, np.nan]), "fourier_concentration")
    assert told["update"].tolist() == [50, 100] * 2 and set(told["schedule"]) == {"baseline"}
    none = study(fourier_concentration=[np.nan] * 3, weight_norm=[1.0] * 3)
    assert [column for column, _ in courses(none, ["fourier_concentration", "weight_norm"])] == ["weight_norm"]


def test_the_noise_scale_is_a_ratio_of_means_over_seeds_and_logs():
    square = [[1.0, 3.0] * 5, [8.0, -4.0] * 5, [1.0, -2.0] * 5]
    frame = study(gradient_square=square, gradient_trace=[[10.0, 30.0] * 5, 60.0, 7.0])
    told = course(frame, "noise_scale", points=5)
    assert list(told) == ["operation", "schedule", "cell", "update", "noise_scale"]
    of = told.groupby("schedule")["noise_scale"].agg(list)
    assert of["baseline"] == [(20 + 60) / 2 / ((2 + 2) / 2)] * 5
    assert np.isnan(of["linear"]).all()  # whose mean square is negative


def test_at_the_crossing_stand_medians_over_those_that_crossed_and_ratios_of_means():
    frame = study(
        gradient_square=[np.arange(10.0), np.arange(10.0) + 10, 0.0], gradient_trace=[40.0, 80.0, 0.0],
        weight_norm=[np.arange(10.0), np.where(np.arange(10) < 7, np.nan, 9), 0.0],
    )  # fmt: skip
    baseline, linear = at_crossing(frame, crossings(frame), ["gradient_noise", "weight_norm"]).to_dict("records")
    at = {
        "gradient_square": (2 + 15) / 2,
        "gradient_trace": 60,
        "weight_norm": (2 + 9) / 2,
    }  # 9: at the next that is known
    key = {"operation": "x_plus_y", "schedule": "baseline", "cell": "", "reached": 2}
    assert baseline == key | at | {"noise_scale": pytest.approx(120 / 17)}
    assert linear["reached"] == 0 and all(np.isnan(linear[c]) for c in (*NOISE, "weight_norm", "noise_scale"))
