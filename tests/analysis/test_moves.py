"""What moves before a member groks: on courses whose halves are known, beside an accuracy whose half is known."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.synthetic import member

from grok_utils.analysis import moves
from grok_utils.analysis.intervals import median_interval
from grok_utils.page import prose

# Accuracy by log: memorised at 20, the half of validation accuracy at 70, the touch at 100.
TRAINING = [0.5] + [1.0] * 11
VALIDATION = [0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.9, 0.95, 0.95, 1.0, 1.0, 1.0]


def study(seeds=1, operation="x_plus_y", validation=VALIDATION, training=TRAINING, **columns):
    """Members that are alike but for their seeds, with these columns by log."""
    frames = [member("baseline", seed, validation, operation) for seed in range(seeds)]
    return pd.concat(frames, ignore_index=True).assign(
        train_accuracy=np.tile(training, seeds), **{name: np.tile(of, seeds) for name, of in columns.items()}
    )


def of(frame, measures, since="memorisation"):
    return moves.halves(frame, measures).query("since == @since").set_index("measure")


def test_the_interval_of_a_median_is_exact():
    values = np.array([5.0, 1, 9, 3, 7, 2, 8, 4, 6, 10])
    assert median_interval(values) == (2, 9)  # 98 %; 3 to 8 would hold it with 89 %
    for n in range(6, 40):
        low, _ = median_interval(np.arange(1, n + 1))  # the rank itself
        outside = lambda rank, n=n: 2 * stats.binom.cdf(rank - 1, n, 0.5)  # noqa: E731
        assert outside(low) <= 0.05 < outside(low + 1), n
    assert np.isnan(median_interval(np.arange(5))).all() and np.isnan(median_interval([])).all()


@pytest.mark.parametrize(
    ("course", "expected"),
    [
        ([0, 1, 2, 3, 4], 30),
        ([4, 3, 2, 1, 0], 30),
        ([0, 0, 0, 0, 1], 50),
        ([0, 9, 8, 10, 10], 20),
        ([0, 0, 30, 30, 1], np.nan),  # there and back
        ([2, 2, 2, 2, 2], np.nan),
        ([np.nan, 1, 2, 3, 4], np.nan),
        ([0, np.nan, 2, 3, 4], 30),
        ([0, 1, 2, 3, np.nan], np.nan),
    ],
)
def test_half_of_a_change(course, expected):
    assert moves.half(pd.Series(course, 10 * np.arange(1, 6), dtype=float)) == pytest.approx(expected, nan_ok=True)


def test_leads_are_counted_from_memorisation_and_from_the_start():
    norm = [20, 10, 9, 8, 4, 4, 4, 4, 4, 2, 2, 2]  # 10 to 2 since update 20: half of it at 50; 20 to 2: at 20
    found = of(study(weight_norm=norm), ["weight_norm"]).loc["weight_norm"]
    assert found[["start", "end", "half", "lead", "share", "ahead"]].tolist() == [10, 2, 50, 50, 0.5, 20]
    found = of(study(weight_norm=norm), ["weight_norm"], "the start").loc["weight_norm"]
    assert found[["start", "end", "half", "lead", "share", "ahead"]].tolist() == [20, 2, 20, 80, 0.8, 50]


def test_what_goes_over_decades_is_taken_in_logarithms_and_a_ratio_of_means():
    trace = 10.0 ** -np.arange(12)  # linearly, half of it is gone after a log
    square = np.r_[[1.0] * 5, -1.0, [1.0] * 6]
    frame = study(gradient_trace=trace, gradient_square=square)
    assert moves.told(["gradient_noise"]) == ["gradient_trace", "noise_scale"]
    assert of(frame, ["gradient_noise"]).loc["gradient_trace", "half"] == 60  # from 20 to 100
    scale = moves.followed(frame, ["gradient_noise"])["noise_scale"]
    assert scale[0] == 1 and scale[5] == pytest.approx(trace[1:6].sum() / 3) and scale.notna().all()
    negative = frame.assign(gradient_square=np.where(frame["update"] > 40, -1.0, 1.0))
    assert moves.unknown(negative, ["gradient_noise"]).to_dict() == {"noise_scale": 0.4}  # of ten logs 70 to 100
    assert negative.pipe(of, ["gradient_noise"])["ahead"].isna().tolist() == [False, True]


def test_what_is_not_defined_on_an_operation_is_not_unknown_there():
    # Of S₅ there are no frequencies; of x + y the first two of ten logs lack them.
    concentration = pd.Series([np.nan, np.nan, *[0.5] * 10])
    frame = pd.concat([study(fourier_concentration=concentration), study(operation="permutation")])
    assert moves.unknown(frame, ["fourier_concentration"]).to_dict() == {"fourier_concentration": 0.2}
    assert moves.unknown(study(fourier_concentration=[np.nan] * 12), ["fourier_concentration"]).empty


def test_what_moves_first_is_said_in_a_sentence():
    norm = [20.0, 10, 9, 8, 4, 4, 4, 4, 4, 2, 2, 2]  # its half at 20, at 70 that of validation accuracy
    frame = study(seeds=6, weight_norm=norm, gradient_trace=[1.0] * 12, gradient_square=[-1.0] * 12)
    measures = ["weight_norm", "gradient_noise"]
    counts = moves.counts(moves.summary(moves.halves(frame, measures)))
    told = prose.moves(moves.gaps(moves.phases(frame)), counts, moves.unknown(frame, measures))
    assert "pairs of operation and arm: weight norm before it in 1 and after it in 0 of 1." in told
    assert told.endswith(
        "the noise scale is not known, since the mean gradient square is not positive: a block's "
        "gradients oppose each other."
    )
    few = moves.counts(moves.summary(moves.halves(study(seeds=5, weight_norm=norm), ["weight_norm"])))
    assert prose.order_of_moves(few).endswith("pairs of operation and arm: of weight norm one cannot tell.")


def test_what_a_diverged_member_does_decides_nothing_for_the_others():
    frame = study(seeds=2, weight_norm=[20.0, 10, 9, 8, 4, 4, 4, 4, 4, 2, 2, 2])
    wild = frame.assign(weight_norm=frame["weight_norm"].where(frame["seed"] == 0, 1e9), diverged=frame["seed"] == 1)
    for table in (moves.halves, moves.aligned):
        alone = table(frame[frame["seed"] == 0], ["weight_norm"])
        pd.testing.assert_frame_equal(table(wild, ["weight_norm"]), alone)


def test_the_yardstick_is_validation_accuracy_whose_half_comes_before_the_touch_too():
    frame = study(seeds=8, weight_norm=VALIDATION, fourier_concentration=np.r_[[0.0] * 8, 5.0, 6.0, 6.0, 6.0])
    table = moves.summary(moves.halves(frame, ["weight_norm", "fourier_concentration"])).set_index(["since", "measure"])
    as_it = table.loc["memorisation", "weight_norm"]
    assert (as_it["lead"], as_it["ahead"], as_it["moves"]) == (30, 0, "cannot tell")
    late = table.loc["memorisation", "fourier_concentration"]
    assert (late["lead"], late["ahead"], late["low"], late["high"], late["moves"]) == (10, -20, -20, -20, "after")
    of = moves.counts(table.reset_index()).set_index(["measure", "since"])
    assert of.loc["fourier_concentration", "memorisation"].tolist() == [1, 0, 1, 0]  # pairs, before, after, cannot tell
    assert of.loc["weight_norm", "memorisation"].tolist() == [1, 0, 0, 1]
    early = study(seeds=8, weight_norm=np.r_[9.0, 9.0, [1.0] * 10])
    assert set(moves.summary(moves.halves(early, ["weight_norm"]))["moves"]) == {"before"}
    few = moves.summary(moves.halves(early[early["seed"] < 5], ["weight_norm"]))
    assert set(few["n"]) == {5} and few["low"].isna().all() and set(few["moves"]) == {"cannot tell"}


def test_who_memorises_and_touches_at_once_has_no_phase_between():
    at_once = study(seeds=2, training=[0.5] * 7 + [1.0] * 5, weight_norm=range(12))
    never = study(operation="permutation", validation=[0.1] * 12, weight_norm=range(12))
    frame = pd.concat([at_once, never, study(operation="x_div_y", weight_norm=range(12))], ignore_index=True)
    gaps = moves.gaps(moves.phases(frame)).set_index("operation")
    told = ["n", "memorised", "touched", "memorised_at", "touch_at", "gap", "together"]
    assert gaps.loc["x_plus_y", told].tolist() == [2, 2, 2, 80, 100, 20, 2]
    assert gaps.loc["x_div_y", told].tolist() == [1, 1, 1, 20, 100, 80, 0]
    assert gaps.loc["permutation", told[:4]].tolist() == [1, 1, 0, 20] and gaps.loc["permutation", "together"] == 0
    found = moves.halves(frame, ["weight_norm"])
    assert set(found.loc[found["since"] == "memorisation", "operation"]) == {"x_div_y"}
    assert set(found.loc[found["since"] == "the start", "operation"]) == {"x_div_y", "x_plus_y"}


def test_a_run_that_ended_early_may_not_have_memorised():
    frame = study(seeds=1, training=[0.5] * 12, weight_norm=np.arange(12.0))
    frame.loc[frame["update"] > 110, ["train_accuracy", "val_accuracy", "weight_norm"]] = np.nan
    (row,) = moves.phases(frame).itertuples()
    assert row.touch == 100 and np.isnan(row.memorised)
    assert set(moves.halves(frame, ["weight_norm"])["since"]) == {"the start"}
    assert moves.aligned(frame, ["weight_norm"])["share"].max() == pytest.approx(1.175)  # the last log is at 110


def test_courses_are_aligned_at_the_touch_between_their_least_and_greatest():
    never = study(operation="permutation", validation=[0.1] * 12, weight_norm=[1] * 12)
    frame = pd.concat([study(seeds=3, weight_norm=np.arange(12.0, 0, -1)), never], ignore_index=True)
    table = moves.aligned(frame, ["weight_norm"]).round(6)
    assert set(table["operation"]) == {"x_plus_y"}
    norm = table[table["measure"] == "weight_norm"].set_index("share")["level"]
    assert (norm.index.min(), norm.index.max()) == (0.1, moves.BEYOND)  # from the first log on
    assert norm[[0.1, 0.175, 0.2, 1.0, 1.25]].tolist() == pytest.approx([1, 1, 10 / 11, 2 / 11, 0], abs=1e-6)
    accuracy = table[table["measure"] == "val_accuracy"]["level"]
    assert (accuracy.min(), accuracy.max()) == (0, 1)


def test_an_aligned_course_is_left_out_where_fewer_than_half_of_the_seeds_have_it():
    frame = study(seeds=4, weight_norm=np.arange(12.0))
    for known, names in ((2, {"val_accuracy", "weight_norm"}), (1, {"val_accuracy"})):
        frame.loc[frame["seed"] >= known, "weight_norm"] = np.nan
        assert set(moves.aligned(frame, ["weight_norm"])["measure"]) == names


def test_where_nobody_touches_there_is_nothing():
    frame = study(validation=[0.1] * 12, weight_norm=range(12))
    assert moves.halves(frame, ["weight_norm"]).empty and moves.aligned(frame, ["weight_norm"]).empty
    assert moves.summary(moves.halves(frame, ["weight_norm"])).empty and moves.unknown(frame, ["weight_norm"]).empty
