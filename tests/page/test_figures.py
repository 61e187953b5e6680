"""Figures and tables as a reader meets them: what is drawn, the same bytes for the same data, small, legible, named."""

import dataclasses
import itertools
import re
import xml.etree.ElementTree as ET
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from support.synthetic import PROVENANCE

from grok_utils.analysis import moves
from grok_utils.analysis.crossings import crossings
from grok_utils.analysis.measured import course
from grok_utils.analysis.summaries import summarise
from grok_utils.page import figures, notebook, prose, style, tables
from grok_utils.pipeline import plan
from grok_utils.pipeline.study_files import STUDIES, load_study, make_study
from grok_utils.studies import Scheduled

ARMS = ["baseline", "linear", "exponential", "logarithmic", "cyclic"]


def study(arms=ARMS, operations=("x_plus_y", "permutation"), seeds=3, logs=60) -> pd.DataFrame:
    """A synthetic study: accuracy rises at an update that depends on the member, and never does on `permutation`."""
    rng = np.random.default_rng(0)
    updates = 10 * np.arange(1, logs + 1)
    rows = []
    for arm, operation, seed in itertools.product(arms, operations, range(seeds)):
        at = 99 * logs if operation == "permutation" else 10 * logs * rng.uniform(0.2, 0.8)
        accuracy = 1 / (1 + np.exp(np.clip((at - updates) / logs, -30, 30)))
        row = {"schedule": arm, "operation": operation, "seed": seed, "cell": "", "update": updates, "batch_size": 32}
        row |= {
            "examples_seen": 32 * updates,
            "train_loss": 0.01,
            "train_accuracy": 1.0,
            "val_loss": 3 - 2.9 * accuracy,
        }
        rows.append(pd.DataFrame(row | {"val_accuracy": accuracy + rng.normal(0, 1e-3, logs), "diverged": False}))
    return pd.concat(rows, ignore_index=True).astype({"val_accuracy": np.float32, "val_loss": np.float32})


def before_the_touch(frame: pd.DataFrame) -> style.Picture:
    """Validation loss beside accuracy; whoever has not touched 99 % before does at the last log."""
    accuracy = frame["val_accuracy"].where(frame["update"] < frame["update"].max(), 1.0)
    frame = frame.assign(weight_norm=frame["val_loss"], val_accuracy=accuracy)
    return figures.before_the_touch(moves.aligned(frame, ["weight_norm"]), moves.gaps(moves.phases(frame)))


DRAWINGS = {
    "schedules": lambda frame: figures.schedules({a: np.arange(1, 61) for a in frame["schedule"].unique()}),
    "curves": figures.learning_curves,
    "examples": lambda frame: figures.learning_curves(frame, against="examples_seen"),
    "losses": figures.loss_curves,
    "measure": lambda frame: figures.measure(course(frame, "val_loss"), "val_loss"),
    "moves": before_the_touch,
    "share": lambda frame: figures.share_grokked(crossings(frame)),
    "times": lambda frame: figures.updates_to_99(crossings(frame)),
    "cells": lambda frame: figures.rmst_by_cell(
        pd.concat(summarise(crossings(frame)).assign(cell=f"learning_rate={rate}") for rate in (0.001, 0.002))
    ),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_same_data_same_svg_whatever_was_drawn_before(draw):
    frame = study()
    first = style.svg(draw(frame).figure, "one")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        figure = draw(frame).figure
        assert style.svg(figure, "one") == first
    assert style.svg(figure, "one") == first  # saving a figure twice does not move it


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_svg_stands_alone_is_small_and_legible(draw):
    text = style.svg(draw(study(logs=750, seeds=5)).figure, "one")
    root = ET.fromstring(text)  # well formed
    assert len(text) < 150_000
    assert float(root.get("width").removesuffix("pt")) <= 7 * 72
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )*([\d.]+)px", text)]
    assert sizes and min(sizes) >= 6  # exponents; words have 9 points
    assert not re.search(r"<script|<image|http(?!://www\.w3\.org/)|\d{4}-\d\d-\d\dT", text)


def test_coordinates_are_rounded_and_words_are_not():
    text = style.svg(figures.measure(course(study().assign(small=0.0558), "small"), "small").figure, "one")
    assert {"0.054", "0.056", "0.058"} <= set(re.findall(r">([^<>]+)</text>", text))
    assert not re.search(r"\d\.\d{3}", re.sub(r">[^<]*<", "><", text))


def test_figures_on_one_page_share_no_identifier():
    frame = study()
    ids = [set(re.findall(r'id="([^"]+)"', style.svg(draw(frame).figure, name))) for name, draw in DRAWINGS.items()]
    assert all(not a & b for a, b in itertools.combinations(ids, 2)) and any(ids)
    text = style.svg(figures.learning_curves(frame).figure, "curves")
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    assert used and used <= set(re.findall(r'id="([^"]+)"', text))


def test_schedules_are_drawn_as_given():
    sizes = {"linear": np.arange(32, 62), "cyclic": np.arange(61, 31, -1)}
    (ax,) = figures.schedules(sizes).figure.axes
    lines = {line.get_color(): line for line in ax.lines}
    for arm, batch in sizes.items():
        x, y = lines[style.look(arm).colour].get_data()
        assert x.tolist() == list(range(10, 310, 10)) and y.tolist() == batch.tolist()


def test_learning_curves_are_medians_in_a_band_over_all_seeds():
    frame = study(arms=["baseline"], operations=["x_plus_y"])
    (ax,) = figures.learning_curves(frame).figure.axes
    seeds = np.stack([rows["val_accuracy"] for _, rows in frame.groupby("seed")])
    assert any(np.allclose(line.get_ydata(), np.median(seeds, axis=0)) for line in ax.lines)
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == pytest.approx((seeds.min(), seeds.max()))


def test_a_measure_is_drawn_as_means_in_a_band_over_all_seeds():
    frame = study(arms=["baseline"], operations=["x_plus_y"]).assign(weight_norm=lambda rows: rows["seed"] + 5.0)
    told = course(frame, "weight_norm")
    (ax,) = figures.measure(told, "weight_norm").figure.axes
    assert ax.get_yscale() == "linear"
    assert figures.means_show(told, "weight_norm").endswith(" Band: from the lowest seed to the highest.")
    assert [line.get_ydata().tolist() for line in ax.lines if len(line.get_xdata())] == [[6.0] * 30]
    band = ax.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (5.0, 7.0)


def test_a_measure_over_decades_is_drawn_below_zero_too_and_a_ratio_where_it_is_known():
    frame = study(arms=["baseline"], operations=["x_plus_y"])
    frame["gradient_square"] = np.where(frame["update"] == 50, -1e6 * frame["seed"], 10.0 ** (frame["update"] / 100))
    frame["gradient_trace"] = 100.0
    square = course(frame, "gradient_square", points=60)
    (ax,) = figures.measure(square, "gradient_square").figure.axes
    assert ax.get_yscale() == "symlog" and not ax.collections
    assert figures.means_show(square, "gradient_square").endswith("last point. Around zero the axis is linear.")
    x, y = next(line for line in ax.lines if len(line.get_xdata())).get_data()
    expected = np.where(x == 50, -1e6, 10.0 ** (x / 100))  # of the seeds 0, 1 and 2
    assert x.tolist() == [*range(10, 610, 10)] and np.allclose(y, expected)
    expected = np.where(x == 50, np.nan, expected)  # a gap: of one seed it is positive, its mean is not
    scale = course(frame, "noise_scale", points=60)
    said = figures.means_show(scale, "noise_scale")
    assert said.endswith("since the last point. Gaps: what it would be divided by is not positive.")
    (ax,) = figures.measure(scale, "noise_scale").figure.axes
    line = next(line for line in ax.lines if len(line.get_xdata()))
    assert np.allclose(line.get_ydata(), 100 / expected, equal_nan=True)


def test_a_point_between_two_gaps_is_marked():
    frame = study(arms=["baseline"], operations=["x_plus_y"])
    frame = frame.assign(weight_norm=frame["val_loss"].where(frame["update"].isin([10, 100, 300, 310, 320, 600])))
    everywhere = pd.concat([frame, frame.assign(schedule="linear", weight_norm=1.0)])
    (ax,) = figures.measure(course(everywhere, "weight_norm", points=60), "weight_norm").figure.axes
    lone, whole = (line for line in ax.lines if len(line.get_xdata()))
    marks = [lone.get_xdata()[i] for i in lone.get_markevery() if np.isfinite(lone.get_ydata()[i])]
    assert {10, 100, 600} <= set(marks) and not {300, 320} & set(marks)
    assert whole.get_markevery() == [*range(5, 60, 10)] and np.isfinite(whole.get_ydata()).all()
    assert ax.get_xlim() == (0, 618)


def test_many_arms_are_drawn_without_bands_and_the_caption_says_so():
    few, many = study(arms=ARMS), study(arms=[*ARMS, "constant-32", "constant-64"])
    assert "band" in figures.curves_show(few) and "band" not in figures.curves_show(many)
    for frame, bands, lines in ((few, 5, 10), (many, 0, 7)):
        for ax in figures.learning_curves(frame).figure.axes:
            assert len(ax.collections) == bands and len([x for x in ax.lines if len(x.get_xdata())]) == lines


def test_thinning_keeps_the_last_log_and_every_member():
    frame = study(logs=751)
    kept = figures.thin(frame)
    assert kept["update"].max() == 7510 and kept["update"].nunique() <= figures.POINTS
    assert (kept.groupby(["schedule", "operation", "seed"]).size() == kept["update"].nunique()).all()
    assert len(figures.thin(frame[frame["update"] <= 30])) == 3 * 30


def test_censored_seeds_are_drawn_open_and_at_the_horizon():
    members = crossings(study(arms=["baseline", "linear"]))
    reached, never = figures.updates_to_99(members).figure.axes
    assert [c.get_offsets()[:, 0].tolist() for c in never.collections if len(c.get_offsets())] == [[600] * 6]
    drawn = np.concatenate([c.get_offsets()[:, 0] for c in reached.collections])
    assert sorted(drawn) == sorted(members.loc[members["operation"] == "x_plus_y", "restricted"])


@pytest.mark.parametrize("operations", [["x_plus_y"], ["x_plus_y", "x_minus_y", "x_div_y"]])
@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS)
def test_one_or_three_operations_one_seed_one_arm(draw, operations):
    frame = study(arms=["constant-128"], operations=operations, seeds=1, logs=4)
    frame.loc[frame["update"] > 20, ["val_loss", "train_loss", "val_accuracy"]] = np.nan, np.nan, 0.0
    assert "<svg" in style.svg(draw(frame).figure, "one")


def contrast(a: str, b: str) -> float:
    """WCAG 2 contrast of two colours."""
    linear = [np.array(matplotlib.colors.to_rgb(c)) for c in (a, b)]
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in linear]
    low, high = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in linear)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("arm", [*style.LOOKS, "mine", "another"])
def test_arms_stand_out_from_light_and_dark_ground(arm):
    assert contrast(style.look(arm).colour, "#ffffff") >= 3 and contrast(style.look(arm).colour, "#0f1318") >= 3


def test_words_meet_wcag_aa_on_light_and_dark_ground():
    assert contrast(style.INK, "#ffffff") >= 4.5 and contrast(style.INK_ON_DARK, "#0f1318") >= 4.5


# What linear RGB becomes for readers without one kind of cone: Machado et al. 2009 (10.1109/TVCG.2009.113), severity 1.
SEEN_BY = {
    "anyone": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def oklab(colours, seen) -> np.ndarray:
    """Colours in OKLab (Ottosson 2020), where a distance of 0.02 is just noticeable, as `seen` with this matrix."""
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.transpose(seen)
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear.clip(0, 1) @ np.transpose(cones)) @ np.transpose(lab)


LEAST = {"anyone": 0.07, "protanopes": 0.07, "deuteranopes": 0.07, "tritanopes": 0.05}


def differ_in_length_alone(a, b) -> bool:
    """Whether two arms' batch sizes follow one schedule at two lengths."""
    both = isinstance(a, Scheduled) and isinstance(b, Scheduled)
    return both and a != b and dataclasses.replace(a, length=None) == dataclasses.replace(b, length=None)


TOLD_BY_TABLES = ("controls", "shapes", "select-shapes")
COLOURED = sorted(p.stem for p in STUDIES.glob("*.yaml") if not p.stem.startswith(TOLD_BY_TABLES))


@pytest.mark.parametrize("study", [*COLOURED, "explore"])
def test_arms_of_a_study_differ_in_colour_for_colour_blind_readers_too(study):
    """Not arms of one schedule at several lengths, for so many colours that all differ do not exist: they have one
    colour, and differ in marker and in dashes. Nor the 40 courses of shapes and the arms of controls, which tables
    tell."""
    explored = dict.fromkeys(["mine", *ARMS])
    sizes = explored if study == "explore" else {a.name: a.settings.batch_size for a in load_study(study).arms}
    sizes = {name: size for name, size in sizes.items() if not name.startswith("geometric")}
    for seen, matrix in SEEN_BY.items():
        places = oklab([style.look(arm).colour for arm in sizes], matrix)
        for (a, at_a), (b, at_b) in itertools.combinations(zip(sizes, places, strict=True), 2):
            if differ_in_length_alone(sizes[a], sizes[b]):
                one, other = style.look(a), style.look(b)
                assert one.colour == other.colour and one.marker != other.marker and one.line != other.line, (a, b)
            else:
                assert np.linalg.norm(at_a - at_b) >= LEAST[seen], (a, b, seen)


def test_each_arm_has_a_look_of_its_own():
    assert len(set(style.LOOKS.values())) == len(style.LOOKS)
    for part in zip(*(style.look(arm) for arm in [*ARMS, "stepwise"]), strict=True):
        assert len(set(part)) == 6  # told by colour, by marker, or by dashes alone
    assert style.look("mine") == style.look("mine") != style.look("another")


# --- the cells of a grid -------------------------------------------------------------------------------------------


def grid(arms, operations, settings: dict[str, list[float]], reached: int = 3) -> pd.DataFrame:
    """Rows as of `summarise`: RMST 1,000 and 100 more in each further cell, whatever the arm."""
    cells = [" ".join(f"{k}={v:g}" for k, v in zip(settings, at, strict=True)) for at in product(*settings.values())]
    rows = [(o, a, c, reached, 1000.0 + 100 * i) for o, a in product(operations, arms) for i, c in enumerate(cells)]
    return pd.DataFrame(rows, columns=["operation", "schedule", "cell", "reached", "rmst"])


def drawn(ax) -> dict[tuple[int, int], tuple[tuple[float, ...], str]]:
    """Colour and text of each cell by its row and column."""
    at = {(round(b.get_y() + 0.5), round(b.get_x() + 0.5)): b.get_facecolor() for b in ax.patches}
    texts = {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts}
    return {place: (colour, texts[place]) for place, colour in at.items()}


def panels_of(picture) -> list:
    """Its axes but for the colour bar's."""
    return [ax for ax in picture.figure.axes if ax.get_label() != "<colorbar>"]


RATES, DECAYS = [0.0005, 0.002, 0.01], [0.5, 1]


def test_heat_map_shows_each_cell_where_it_belongs_in_its_colour_with_its_number():
    cells = grid(["baseline", "linear"], ["x_plus_y"], {"learning_rate": RATES, "weight_decay": DECAYS})
    cells.loc[3, "reached"] = 0  # baseline at rate 0.002 and decay 1
    cells = cells.drop(index=[8])  # linear at rate 0.002 and decay 0.5
    baseline, linear = panels_of(picture := figures.rmst_by_cell(cells.sample(frac=1, random_state=0)))
    numbers = {place: text for place, (_, text) in drawn(baseline).items()}
    assert numbers == {(0, 0): "1000", (0, 1): "1100", (1, 0): "1200", (1, 1): "×", (2, 0): "1400", (2, 1): "1500"}
    assert set(numbers) - set(drawn(linear)) == {(1, 0)}  # blank
    assert [t.get_text() for t in baseline.get_yticklabels()] == ["0.0005", "0.002", "0.01"]
    assert [t.get_text() for t in linear.get_xticklabels()] == ["0.5", "1"]
    assert (picture.figure.get_supylabel(), picture.figure.get_supxlabel()) == ("learning rate", "weight decay")
    for ax in (baseline, linear):  # one scale, from the least to the greatest of all
        for (row, column), (colour, _) in drawn(ax).items():
            part = (2 * row + column) / 5
            assert colour == pytest.approx(figures.CELL_COLOURS(part))
    assert [ax.get_title(loc="left") for ax in (baseline, linear)] == ["baseline", "linear"]


@pytest.mark.parametrize(("operations", "shape"), [(3, (2, 3)), (4, (2, 4)), (5, (4, 4))])
def test_heat_map_has_a_row_an_arm_and_at_most_four_in_a_row(operations, shape):
    names = ["x_plus_y", "x_minus_y", "x_div_y", "permutation", "mine"][:operations]
    cells = grid(["baseline", "linear"], names, {"learning_rate": RATES, "weight_decay": DECAYS})
    axes = panels_of(figures.rmst_by_cell(cells))
    places = axes[0].get_subplotspec().get_gridspec()
    assert (places.nrows, places.ncols) == shape and sum(bool(ax.patches) for ax in axes) == 2 * operations


def test_heat_map_of_one_setting_is_a_strip_and_of_three_shows_the_best_of_the_third():
    (strip,) = panels_of(figures.rmst_by_cell(grid(["linear"], ["x_plus_y"], {"learning_rate": RATES})))
    assert {p: t for p, (_, t) in drawn(strip).items()} == {(0, 0): "1000", (1, 0): "1100", (2, 0): "1200"}
    three = grid(["linear"], ["x_plus_y"], {"learning_rate": RATES, "weight_decay": DECAYS, "beta2": [0.95, 0.98]})
    (ax,) = panels_of(figures.rmst_by_cell(three))
    assert sorted(t for _, t in drawn(ax).values()) == ["1000", "1200", "1400", "1600", "1800", "2000"]
    assert prose.grid_caption(three).endswith("Of beta2 the best.")
    assert "the best" not in prose.grid_caption(three[three["cell"].str.endswith("beta2=0.95")])


def test_an_arms_own_setting_has_a_place_of_its_own():
    cells = grid(["linear"], ["x_plus_y"], {"learning_rate": RATES, "weight_decay": DECAYS})
    own = grid(["annealed"], ["x_plus_y"], {"weight_decay": DECAYS})
    _, annealed = panels_of(figures.rmst_by_cell(pd.concat([cells, own], ignore_index=True)))
    assert [t.get_text() for t in annealed.get_yticklabels()] == ["0.0005", "0.002", "0.01", "own"]
    assert set(drawn(annealed)) == {(3, 0), (3, 1)}


def test_numbers_stay_away_where_they_do_not_fit():
    many = {"learning_rate": [k / 1e4 for k in range(1, 10)], "weight_decay": [k / 10 for k in range(1, 10)]}
    ax = panels_of(figures.rmst_by_cell(grid(["linear"], ["x_plus_y", "x_minus_y", "x_div_y"], many)))[0]
    assert {t for _, t in drawn(ax).values()} == {""}


def test_heat_map_is_legible_on_light_and_dark_ground():
    """Numbers against their cell; the cells' edges, which the page lightens on dark ground, against the ground."""
    picture = figures.rmst_by_cell(grid(["linear"], ["x_plus_y"], {"learning_rate": [k / 1e3 for k in range(1, 40)]}))
    (ax,) = panels_of(picture)
    for bar, text in zip(ax.patches, ax.texts, strict=True):
        assert contrast(bar.get_facecolor()[:3], text.get_color()) >= 4.5
        assert matplotlib.colors.to_hex(bar.get_edgecolor()) == style.INK
    text = style.svg(picture.figure, "grid")
    assert f"stroke: {style.INK}" in text and "<image" not in text
    dark = style.picture_files(text, "grid")["grid-dark.svg"]
    assert style.INK not in dark and f"stroke: {style.INK_ON_DARK}" in dark


# --- what was trained -----------------------------------------------------------------------------------------------


def test_what_a_page_says_of_the_model_is_the_study_s():
    usual, narrow = {"baseline": None}, {"narrow": {"width": 64, "heads": 2, "blocks": 3, "optimizer": "muon"}}
    said = [prose.model(make_study("mine", {"arms": arms})) for arms in (usual, narrow, usual | narrow)]
    assert "(blocks: 2, width: 128, heads: 4)" in said[0] and " AdamW minimises " in said[0]
    assert "(blocks: 3, width: 64, heads: 2)" in said[1] and " Muon minimises " in said[1]
    assert "(blocks: 2 or 3, width: 128 or 64, heads: 4 or 2)" in said[2] and " AdamW or Muon minimises " in said[2]
    both = prose.model(make_study("mine", {"arms": usual | {"whole": {"batch_size": "all"}}}))
    assert "on batches drawn with replacement or of all training pairs. " in both
    assert "on batches drawn with replacement. " in said[0]
    settings = [
        tables.settings(make_study("mine", {"arms": arms, "warm_up": warm_up})).set_index("setting")["value"]
        for arms, warm_up in ((usual, 50), (narrow, 20), (usual | narrow, 50))
    ]
    assert settings[0]["learning rate (AdamW, 50 updates of warm-up)"] == "0.001"
    assert settings[1]["learning rate (Muon, 20 updates of warm-up)"] == "0.001"
    unusual = ["updates of warm-up", "optimizer", "width of the decoder", "heads", "blocks"]
    assert not set(unusual) & set(settings[0].index)
    assert settings[1][unusual].tolist() == ["20", "muon", "64", "2", "3"]
    assert settings[2]["width of the decoder"] == "128: baseline\n64: narrow"
    assert not any("128" in value for value in (said[1], *settings[1]))
    assert ["as the original's" in text for text in said] == [True, False, False]


def test_the_limits_of_a_study_are_what_its_arms_share():
    usual, muon = {"baseline": None}, {"muon": {"optimizer": "muon"}}
    narrow = {"narrow": {"width": 64, "train_fraction": 0.3}}
    said = [prose.nothing_of_others(make_study("mine", {"arms": a})) for a in (usual, usual | muon, usual | narrow)]
    assert [text.partition(".")[0] for text in said] == [
        "- One architecture, one optimiser and one training fraction",
        "- One architecture and one training fraction",
        "- One optimiser",
    ]
    assert prose.nothing_of_others(make_study("mine", {"arms": usual | muon | narrow})) == ""


def test_a_page_says_in_a_line_how_many_records_are_not_there():
    study = make_study("mine", {"arms": {"baseline": None, "muon": {"optimizer": "muon"}}, "seeds": [0, 1]})
    made = [{"schedule": arm, "seed": seed, "made": [PROVENANCE]} for arm in ("baseline", "muon") for seed in (0, 1)]
    assert "records are there" not in prose.heading(study, made)
    assert "**3 of 4 records are there**: `make all STUDY=mine` makes the others." in prose.heading(study, made[:3])


def test_a_setting_of_the_grid_is_told_as_that_of_the_cell():
    falling = {"learning_rate": {"schedule": "linear", "lo": 0.001, "hi": 0.0001}}
    grid = {"learning_rate": [0.001, 0.002], "weight_decay": [0.5, 1.0]}
    study = make_study("mine", {"arms": {"baseline": None, "falling": falling}, "grid": grid})
    value = tables.settings(study).set_index("setting")["value"]
    rate = "the cell's: baseline\nlinear from 0.001 to 0.0001: falling"
    assert value["learning rate (AdamW, 50 updates of warm-up)"] == rate
    assert (value["weight decay"], value["beta1"]) == ("the cell's", "0.9")
    assert value["cells of the grid"].startswith("learning_rate=0.001 weight_decay=0.5, ")


# --- where the numbers come from -----------------------------------------------------------------------------------


def test_a_version_is_told_that_only_younger_records_name():
    old = PROVENANCE | {"share": 1.0}
    new = old | {"versions": old["versions"] | {"triton": "3.6.0"}}
    for made, expected in (([old, new], "none\n3.6.0"), ([new, old], "3.6.0\nnone"), ([new], "3.6.0")):
        assert tables.provenance(made).set_index("item")["value"]["triton"] == expected
    assert "triton" not in set(tables.provenance([old])["item"])


# --- what notebooks show -------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    """What was displayed: (data, metadata) each."""
    outputs = []
    monkeypatch.setattr(notebook.InteractiveShell, "initialized", lambda: True)
    monkeypatch.setattr(notebook, "display", lambda data, metadata, **_: outputs.append((data, metadata)))
    return outputs


def test_publish_keeps_the_picture_and_shows_it_with_its_words(tmp_path, shown):
    picture = figures.schedules({"linear": np.arange(9)})
    notebook.publish(picture, "one", "Sizes.", tmp_path / "new")
    ((data, metadata),) = shown
    assert style.CSS in data["image/svg+xml"]
    assert metadata["image/svg+xml"] == {"name": "one", "alt": picture.alt, "caption": "Sizes.", "wide": False}
    light, dark = ((tmp_path / "new" / name).read_text() for name in ("one.svg", "one-dark.svg"))
    assert light == data["image/svg+xml"].replace(style.CSS, style.LINES) and "@media" not in light
    assert style.INK in light and style.INK not in dark and dark.count(style.INK_ON_DARK) == light.count(style.INK)
    assert len(list((tmp_path / "new").iterdir())) == 2


TABLE = pd.DataFrame(
    {
        "operation": ["x_plus_y", "x_plus_y", "x<y", "x<y"],
        "n": [3, 3, 12000, 3],
        "rmst": [2973.33, 2116.7, 7500.0, 7500.0],
        "low": [856.1, np.nan, 1.0, -20.4],
        "high": [5090.6, np.nan, 2.0, 30.6],
        "reached": [True, False, True, True],
    }
)


def rows_of(html: str) -> list[list[str]]:
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html)]


def test_publish_table_formats_and_marks_the_best(tmp_path, shown):
    headings = {"operation": "operation", "n": "n", "rmst": "RMST", ("low", "high"): "interval", "reached": "reached"}
    words = {"low": "none"}
    notebook.publish_table(TABLE, "times", "Times.", tmp_path, headings, {"rmst": "min"}, words)
    assert rows_of(shown[0][0]["text/html"]) == [
        ["operation", "n", "RMST", "interval", "reached"],
        ["x + y", "3", "2,973", "856.1 to 5,090.6", "yes"],
        ["x + y", "3", "<b>2,117</b>", "none", "no"],
        ["x&lt;y", "12,000", "7,500", "1.0 to 2.0", "yes"],  # equals have no best
        ["x&lt;y", "3", "7,500", "−20.4 to 30.6", "yes"],
    ]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "times.csv"), TABLE)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([127.88, 216.9, None], ["128", "217", "–"]),  # such as margins, of which some claims have none
        ([0.0312, 0.00002, 1.0], ["0.0312", "&lt; 0.0001", "1.0000"]),  # a p is never 0
        ([0.9987, 0.41, 0.0], ["0.999", "0.410", "0.000"]),
        ([-0.3, 250.8, 1000.4], ["0", "251", "1,000"]),
        ([12.34, -1.0, 40.0], ["12.3", "−1.0", "40.0"]),
        ([1.234, 2.0, np.nan], ["1.23", "2.00", "–"]),
    ],
)
def test_numbers_have_the_digits_that_their_column_calls_for(values, shown):
    frame = pd.DataFrame({"value": pd.Series(values, dtype=object if None in values else float)})
    html = notebook.table_html(frame, {"value": "value"}, {}, {})
    assert re.findall(r'<td class="number">(.*?)</td>', html) == shown


def test_bold_is_the_best_of_an_operation_unless_all_are_equal():
    bold = notebook.bold_cells(TABLE, {"rmst": "min", "n": "max"})
    assert bold["rmst"].tolist() == [False, True, False, False] and bold["n"].tolist() == [False, False, True, False]


def test_cells_of_several_lines_keep_them_and_long_texts_wrap(shown):
    notebook.publish_table(
        pd.DataFrame({"claim": ["short", "one line\nand another", "long " * 20]}), "claims", "Claims."
    )
    assert re.findall(r"<td( class=\"\w+\")?>", shown[0][0]["text/html"]) == [
        ' class="text"',
        ' class="lines"',
        ' class="text"',
    ]


NO_LOGS = np.full((1, 2, 4), np.nan)  # none that is finite


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(notebook.time, "monotonic", lambda: self.now)


def test_progress_is_one_display_that_is_replaced(monkeypatch):
    clock, shown = Clock(monkeypatch), []
    monkeypatch.setattr(notebook, "show", lambda data, about=None, handle=None: shown.append(data) or "handle")
    progress = notebook.Progress(1000, "linear-seed0", figure=True)
    logs = np.zeros((100, 2, 4))
    for block in range(5, 101, 5):
        clock.now += 0.5  # as `train` calls it
        progress(10 * block, logs[:block])
    bars = [data["text/plain"] for data in shown if "image/svg+xml" not in data]
    assert len(bars) == 20
    assert 4 <= len(shown) - len(bars) <= 7
    assert style.look("linear").colour in shown[-1]["image/svg+xml"]  # the arm's, as in every other figure
    assert "100%" in bars[-1] and "1,000 of 1,000 updates" in bars[-1] and "left" not in bars[-1]


def test_time_left_counts_from_where_a_resumed_run_went_on(monkeypatch):
    clock, shown = Clock(monkeypatch), []
    monkeypatch.setattr(notebook, "show", lambda data, about=None, handle=None: shown.append(data) or "handle")
    progress = notebook.Progress(1000, "linear-seed0")
    progress(510, NO_LOGS)
    clock.now += 10
    progress(520, NO_LOGS)
    assert shown[-1]["text/plain"].endswith("52%  520 of 1,000 updates  0:00:10, 0:08:00 left")


def test_time_left_is_reckoned_in_work(monkeypatch):
    clock, shown = Clock(monkeypatch), []
    monkeypatch.setattr(notebook, "show", lambda data, about=None, handle=None: shown.append(data) or "handle")
    progress = notebook.Progress(40, "linear-seed0", work=np.array([1, 1, 2, 6]))
    progress(10, NO_LOGS)
    clock.now += 10
    progress(20, NO_LOGS)
    assert shown[-1]["text/plain"].endswith(" 50%  20 of 40 updates  0:00:10, 0:01:20 left")


@pytest.mark.parametrize(("seconds", "text"), [(59.6, "0:01:00"), (3599, "0:59:59"), (36000, "10:00:00")])
def test_clock(seconds, text):
    assert plan.clock(seconds) == text


def test_the_live_figure_says_what_it_has_reached(monkeypatch):
    said = []
    monkeypatch.setattr(notebook, "show", lambda data, about=None, handle=None: said.append(about) or "handle")
    for accuracy in (0.5, np.nan):
        notebook.Progress(1000, "linear-seed0", figure=True)(1000, np.full((100, 2, 4), accuracy))
    alts = [about["image/svg+xml"]["alt"] for about in said if about]
    told = "Line chart of validation accuracy of linear-seed0 up to update 1,000"
    assert alts == [f"{told}: 50.0%.", f"{told}."]


def test_progress_outside_ipython_shows_nothing_and_works(monkeypatch, capsys):
    monkeypatch.setattr(notebook.InteractiveShell, "initialized", lambda: False)
    progress = notebook.Progress(20, "linear-seed0", figure=True)
    progress(10, np.zeros((1, 2, 4)))
    progress(20, np.full((2, 2, 4), np.nan))
    notebook.publish_table(TABLE, "times", "Times.")
    assert capsys.readouterr().out == ""
