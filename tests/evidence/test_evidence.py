"""The evidence: synthetic worlds whose truth is known get the verdicts they deserve; the page answers what is asked."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from support.project import ROOT
from support.synthetic import BASELINE, Crossing, dose_only, growth_helps
from support.synthetic import rows as rows_of

from grok_utils.analysis.crossings import MEMBER, crossings
from grok_utils.analysis.inference import SIGN_PATTERNS
from grok_utils.errors import Damaged
from grok_utils.evidence import answer, claims, effects, rules, words
from grok_utils.evidence.members import CLOCKS, STUDIES, by_clock, read_evidence
from grok_utils.page.prose import p_value
from grok_utils.pipeline.study_files import load_study
from grok_utils.schedules import BLOCK, SCHEDULES
from grok_utils.studies import PROTOCOL, Arm, Study, runs_of

NEEDED = ("confirm", "order-x_plus_y", "order-x_minus_y", "order-x_div_y")


def members_of(study: Study, world: Crossing) -> pd.DataFrame:
    """The rows of `Evidence.members` of a study on the first clock, without any record."""
    rows = []
    for arm in study.arms:
        seen = BLOCK * effects.batch_sizes(study, arm.name).cumsum()
        for operation, cell, seed in arm.members(study.seeds):
            update = world(study, arm, operation, seed)
            reached = update <= study.updates
            until = int(update) if reached else study.updates
            row = {"study": study.name, "clock": CLOCKS[0], "schedule": arm.name, "cell": cell.name, "seed": seed}
            row |= {"operation": operation, "reached": reached, "updates": update if reached else np.nan}
            row |= {"restricted": until, "horizon": study.updates, "restricted_examples": seen[until // BLOCK - 1]}
            rows.append(row | {"diverged": False, "final_accuracy": 0.999 if reached else 0.2 + 1e-4 * (seed % 7)})
    return pd.DataFrame(rows)


@cache
def world(crossing: Crossing, names: Iterable[str] = NEEDED) -> pd.DataFrame:
    """The members of the named studies of a world, on the first clock."""
    return pd.concat([members_of(load_study(name), crossing) for name in names], ignore_index=True)


@cache
def decided(crossing: Crossing) -> tuple[pd.DataFrame, pd.Series]:
    """A world's contrasts and verdicts."""
    rows = claims.all_contrasts(world(crossing))
    return rows, claims.verdicts(world(crossing), rows)


def small_batches_are_later(study, arm, operation, seed):
    """The opposite of `dose_only`: an arm is as much later than 512 as it is sooner there."""
    time = dose_only(study, arm, operation, seed)
    return 2 * BASELINE[operation] - time if operation in BASELINE else 7000 + 10 * (seed % 5)


# --- verdicts of worlds whose truth is known -------------------------------------------------------------------------


def test_where_only_the_dose_counts_growth_is_not_the_reason():
    rows, found = decided(dose_only)
    assert found[1] == "supported" and found[3] == "contradicted"  # linear is sooner, its mean is equivalent
    mean = rows[(rows["claim"] == 3) & (rows["reference"] == "linear-mean")].set_index("operation")["verdict"]
    assert mean["x_div_y"] == "equivalent"
    assert found[4] == "contradicted"  # the smaller batches of exponential make it sooner than linear


def test_where_growth_helps_the_claim_is_supported():
    rows, found = decided(growth_helps)
    assert found[1] == found[3] == "supported"
    three = rows[rows["claim"] == 3]
    assert len(three) == 21 and three["decides"].sum() == 6 and (three["difference"] < 0).all()
    assert three["p_holm"].max() < 0.001  # 21 × 1 / 100,001
    assert found[4] == "supported"


def test_where_small_batches_are_later_the_claims_are_contradicted_and_s5_groks():
    _, found = decided(small_batches_are_later)
    assert [found[k] for k in (1, 2, 12, 13)] == ["contradicted"] * 4
    assert found[11] == "supported"  # exponential grows later than linear and is later


def test_what_never_groks_is_not_told_apart_and_claims_of_it_hold():
    rows, found = decided(dose_only)
    s5 = rows[(rows["operation"] == "permutation") & (rows["column"] == "restricted")]
    assert (
        len(s5) == 3
        and (s5["difference"] == 0).all()
        and s5["low"].isna().all()
        and (s5["verdict"] == "cannot tell").all()
    )
    assert found[2] == found[13] == "supported" and found[6] == "cannot tell"


def test_claims_at_odds_with_themselves_need_no_data():
    _, found = decided(dose_only)
    assert [found[k] for k in (5, 7, 8, 10)] == [
        "wrong by its own arithmetic",
        "wrong by its own formula",
        "wrong by its own formula",
        "wrong by its own arithmetic",
    ]
    assert not found.drop([5, 7, 8, 10]).str.startswith("wrong").any() and len(found) == 14


def test_by_examples_only_contrasts_of_times_have_a_verdict():
    found = claims.verdicts(world(dose_only), decided(dose_only)[0], CLOCKS[-1])
    assert {k for k in found.index if found[k]} == {1, 3, 4, 5, 9, 10, 11, 12}


# --- rules, to the letter of the plan --------------------------------------------------------------------------------


def test_the_families_are_those_of_the_plan():
    size = {c.number: len(c.family) for c in claims.CLAIMS}
    assert size == {1: 3, 2: 0, 3: 21, 4: 4, 5: 1, 6: 1, 7: 0, 8: 0, 9: 5, 10: 1, 11: 12, 12: 6, 13: 0, 14: 2}
    studies = {load_study(c.study): c for claim in claims.CLAIMS for c in claim.family}
    for claim in claims.CLAIMS:
        for c in claim.family:
            study = load_study(c.study)
            arms = {arm.name for arm in study.arms}
            assert {c.arm, c.reference} <= arms and c.operation in study.operations
    assert len(studies) == 4 and claims.grows_later() == [
        ("linear", "logarithmic"),
        ("exponential", "linear"),
        ("exponential", "logarithmic"),
    ]


def table(*verdict_of: str, decides: list[bool] | None = None, reference: str = "linear-mean") -> pd.DataFrame:
    rows = pd.DataFrame({"verdict": verdict_of, "reference": reference})
    return rows.assign(decides=[True] * len(rows) if decides is None else decides)


@pytest.mark.parametrize(
    ("rule", "rows", "expected"),
    [
        (rules.by_contrasts, table("supported", "supported"), "supported"),
        (rules.by_contrasts, table("supported", "cannot tell"), "cannot tell"),
        (rules.by_contrasts, table("supported", "contradicted"), "contradicted"),
        (rules.by_contrasts, table("cannot tell", "equivalent"), "contradicted"),
        (rules.by_contrasts, table("supported", "contradicted", decides=[True, False]), "supported"),
        (rules.by_order, table("equivalent", reference="linear-reversed"), "cannot tell"),
        (rules.by_order, table("contradicted", reference="linear-reversed"), "contradicted"),
        (rules.by_order, table("equivalent"), "contradicted"),
        (rules.by_any, table("supported", "contradicted"), "supported"),
        (rules.by_any, table("equivalent", "contradicted"), "contradicted"),
        (rules.by_any, table("equivalent", "cannot tell"), "cannot tell"),
        (rules.by_accuracy_and_share, table("supported", "cannot tell"), "supported"),
        (rules.by_accuracy_and_share, table("supported", "contradicted"), "contradicted"),
    ],
)
def test_rules(rule, rows, expected):
    assert rule(rows) == expected


def test_the_margin_is_a_twentieth_of_the_baselines_mean():
    members = world(dose_only)
    times = members.query("study == 'confirm' and schedule == 'baseline' and operation == 'x_plus_y'")["restricted"]
    assert rules.margins(members)["x_plus_y"] == pytest.approx(sum(times) / 30 / 20)
    rows = decided(dose_only)[0]
    assert rows.loc[rows["column"] == "final_accuracy", "margin"].dropna().tolist() == [0.05]  # claim 14; none in 6


def test_adjusted_p_of_a_family_by_hand():
    rows = decided(dose_only)[0]
    ours = rows[rows["claim"] == 12].sort_values("p")
    running, by_hand = 0.0, []
    for rank, p in enumerate(ours["p"]):
        running = max(running, min(1, (len(ours) - rank) * p))
        by_hand.append(running)
    assert ours["p_holm"].tolist() == pytest.approx(by_hand)


# --- beyond the claims -----------------------------------------------------------------------------------------------


def test_constants_added_up_predict_a_world_in_which_only_the_dose_counts():
    dose = effects.dose_response(world(dose_only))
    rows = dose[~dose["constant"] & (dose["operation"] != "permutation")]
    assert len(rows) == 15 and (rows["rmst"] / rows["added_up"] - 1).abs().max() < 0.04
    cyclic = rows[rows["schedule"] == "cyclic"]
    assert (cyclic["rmst"] / cyclic["curve"] - 1).max() < -0.05  # at its mean alone, a mixture is not predicted
    s5 = dose[dose["operation"] == "permutation"]
    assert (s5.loc[~s5["constant"], "added_up"] == 7500).all()


def test_dose_is_the_mean_batch_up_to_the_crossing():
    dose = effects.dose_response(world(dose_only)).set_index(["operation", "schedule"])
    assert dose.loc[("x_plus_y", "constant-96"), "dose"] == 96
    study = load_study("confirm")
    sizes = effects.batch_sizes(study, "linear")
    times = world(dose_only).query("study == 'confirm' and schedule == 'linear' and operation == 'x_plus_y'")
    by_hand = np.mean([sizes[: t // 10].mean() for t in times["restricted"]])
    assert dose.loc[("x_plus_y", "linear"), "dose"] == pytest.approx(by_hand)
    assert dose.loc[("permutation", "linear"), "dose"] == pytest.approx(sizes.mean())


def by_family(study: Study, arm: Arm, operation: str, seed: int) -> float:
    """As `dose_only`, but arms share the luck of the arm that their name begins with: baseline-tf32 is as baseline."""
    return dose_only(study, replace(arm, name=arm.name.split("-")[0]), operation, seed)


def test_interactions_pair_arms_by_seed_in_the_same_cell():
    members = world(by_family, ("confirm", "rates"))
    later = members["cell"].map(
        {"learning_rate=0.002 weight_decay=0.25": 100, "learning_rate=0.001 weight_decay=0.5": 7}
    )
    members = members.assign(restricted=members["restricted"] + later.fillna(0) * (members["schedule"] == "baseline"))
    ours = effects.interactions(members)
    assert len(ours) == 3 * (7 * 2 + 2) and (ours["n"] == 10).all() and ours["p_holm"].ge(ours["p"]).all()
    times = (
        members[members["study"] == "rates"]
        .set_index(["operation", "schedule", "cell", "seed"])["restricted"]
        .sort_index()
    )
    for row in ours.itertuples():
        cell = f"learning_rate={row.learning_rate:g} weight_decay={row.weight_decay:g}"
        arm, reference = (
            times[row.operation, row.arm, "" if row.follows else cell],
            times[row.operation, row.reference, cell],
        )
        assert row.difference == pytest.approx((arm - reference).mean())
    grid, following = ours[~ours["follows"]], ours[ours["follows"]]
    assert set(grid["reference"]) == {"baseline"} and set(grid["arm"]) == {"constant-128", "linear"}
    pairs = following.groupby(["arm", "reference", "learning_rate", "weight_decay"]).size().to_dict()
    assert pairs == {("linear-sqrt-batch", "baseline", 1e-3, 0.5): 3, ("baseline-mirrored", "linear", 1e-3, 0.5): 3}
    assert "- `linear-sqrt-batch` needs " in words.interaction_section(ours)
    assert "`constant-128` is sooner than `baseline` in 21 of 21" in words.interaction_section(ours)


def test_a_lower_precision_is_compared_with_the_arm_that_is_otherwise_the_same():
    same = effects.precision(world(by_family, ("confirm", "precision")))
    assert same.groupby(["precision", "arm"]).size().to_dict() == {
        (precision, arm): 3 for precision in ("tf32", "bf16") for arm in ("baseline", "linear")
    }
    assert (same["difference"] == 0).all() and (same["n"] == 30).all()
    assert same["equivalent"].isna().all()  # no spread, no interval


# --- words and tables ------------------------------------------------------------------------------------------------


def test_the_answer_says_what_the_world_is():
    for crossing, start in ((dose_only, "**No: growing"), (growth_helps, "**Yes: growing")):
        rows, found = decided(crossing)
        text = answer.answer(rows, found, effects.dose_response(world(crossing)))
        assert text.startswith(start) and "n = 120 seeds" in text and "claims" in text
    others = "its reverse, the constant at its mean and random orders of its batch sizes"
    assert f"Of 21 contrasts of `linear` with {others}, it is sooner in 21 and later in none (n = 120" in text


def test_an_outcome_is_a_word_and_is_counted():
    sides = pd.DataFrame(
        {
            "operation": ["x_plus_y", "x_minus_y", "x_div_y"],
            "difference": [5.0, 9, -2],
            "verdict": ["contradicted", "equivalent", "cannot tell"],
        }
    )
    assert answer.outcomes(sides).tolist() == ["later", "equivalent", "cannot tell"]
    told = answer.sides(pd.concat([sides] * 2).assign(n=30), "its mean")
    assert told == "Of 6 contrasts of `linear` with its mean, it is sooner in none and later in 2 (n = 30 seeds)."


def test_the_answer_in_numbers_has_a_verdict_beside_each_difference():
    rows, _ = decided(dose_only)
    table = answer.answer_table(rows)
    names = ["its reverse", "the constant at its mean", "the constant 512"]
    assert list(table) == ["operation", *(f"{name}{end}" for name in names for end in ("", ": verdict"))]
    assert table["operation"].tolist() == ["x_plus_y", "x_minus_y", "x_div_y"]
    mean = rows[(rows["claim"] == 3) & (rows["reference"] == "linear-mean")].set_index("operation")
    assert table["the constant at its mean: verdict"].tolist() == answer.outcomes(mean)[table["operation"]].tolist()
    assert (table["the constant 512: verdict"] == "sooner").all()
    assert table["the constant 512"].str.startswith("−").all()


def test_differences_are_more_or_fewer():
    assert answer.more_or_fewer(pd.Series([-17.2, -9.4]), " %") == "9 to 17 % fewer"
    assert answer.more_or_fewer(pd.Series([1361.2, 1361.4])) == "1,361 more"
    assert answer.more_or_fewer(pd.Series([-5, 3]), " %") == "−5 to +3 % more or fewer"


def test_the_answer_says_what_a_constant_does_at_other_rates_and_decays():
    ours = effects.interactions(world(by_family, ("confirm", "rates")))
    table = answer.by_rate_and_decay(ours).set_index(["learning_rate", "weight_decay"])
    assert list(table) == ["x_plus_y", "x_minus_y", "x_div_y"] and ("0.001", "0.5") in table.index
    first = ours[(ours["reference"] == "baseline") & ~ours["follows"]].iloc[0]
    at = f"{first['learning_rate']:g}", f"{first['weight_decay']:g}"
    assert table.loc[at, first["operation"]] == first["reference_mean"]
    text = answer.protocol_alone(ours)
    assert "learning rate 0.001 and weight decay 0.5 alone" in text and "% of the updates (n = 10, [Table]" in text


def test_the_verdict_table_sets_ours_beside_the_reported():
    rows, found = decided(dose_only)
    clocks = pd.DataFrame({"claim": found.index, **{clock: found.to_numpy() for clock in CLOCKS}})
    clocks.loc[clocks["claim"] == 1, "95 %"] = "cannot tell"
    ours = answer.verdict_table(world(dose_only), rows, clocks).set_index("claim")
    assert ours.loc[1, "reported"] == "−983, −37 %\n−1,597, −36 %\n−963, −22 %"
    assert ours.loc[1, "ours"].count("\n") == 2 and ours.loc[1, "n"] == "30" and ours.loc[3, "n"] == "120"
    assert ours.loc[1, "p"] == "\n".join(["< 0.001"] * 3) and ours.loc[2, "p"] == "–"
    assert ours.loc[14, "p"] == "–\n1.00" and ours.loc[14, "ours"].count("\n") == 1
    assert ours.loc[2, "ours"] == "0 of 30 seeds reach 99 % (0 to 12 %)"
    assert ours.loc[3, "reported"] == ours.loc[12, "reported"] == "not tested"
    assert ours.loc[6, "reported"] == "0.416 against 0.166"
    assert ours.loc[14, "reported"] == "–\n0.009 against 0.009"  # each beside our estimate of the same
    assert ours.loc[8, "ours"].startswith("logarithmic is above linear and exponential in 749 of 749")
    assert ours.loc[1, "other_clocks"] == "cannot tell (95 %)" and ours.loc[2, "other_clocks"] == "–"


@pytest.mark.parametrize(
    ("p", "said"), [(0.0004, "p < 0.001"), (0.0312, "p = 0.031"), (0.5, "p = 0.50"), (np.nan, "no p")]
)
def test_p_in_words(p, said):
    assert p_value(p) == said


# --- records and the page --------------------------------------------------------------------------------------------


PAGE = BeautifulSoup((ROOT / "results/evidence/report.html").read_text(encoding="utf-8"), "html.parser")


def test_reading_reduces_a_study_to_its_members(tmp_path):
    confirm = load_study("confirm")
    study = replace(confirm, seeds=confirm.seeds[:2])
    runs = list(runs_of(study, tmp_path))
    times = [[dose_only(study, run.arm, m.operation, m.seed) for m in run.members] for run in runs]
    frame = pd.concat(rows_of(run, i, t) for run, of in zip(runs, times, strict=True) for i, t in enumerate(of))
    members = by_clock(frame)
    assert set(members["clock"]) == set(CLOCKS)
    ours = members[members["clock"] == "99 %"].set_index(MEMBER)
    oracle = crossings(frame).set_index(MEMBER)["restricted"]
    assert len(ours) == 104 and (ours["restricted"] == oracle.reindex(ours.index)).all()
    for arm in study.arms:
        assert ours.loc[(arm.name, "", "x_plus_y", 100), "restricted"] == dose_only(study, arm, "x_plus_y", 100)
    by_examples = members.loc[members["clock"] == "examples seen", "schedule"]
    short = {arm.name for arm in study.arms} - set(by_examples)
    assert short == {f"constant-{size}" for size in (32, 64, 96, 128, 144)}


def test_without_every_record_nothing_is_judged_and_one_line_names_what_lacks(tmp_path):
    with pytest.raises(Damaged, match=r"wait for `confirm` \(0 of 390 records\), .* and `precision` \(0 of [\d,]+ rec"):
        read_evidence(tmp_path)


def test_the_page_begins_with_the_answer_and_its_methods_say_what_was_done():
    text = PAGE.get_text().replace("\u00a0", " ")
    assert f"Monte Carlo ({SIGN_PATTERNS:,} sign patterns)" in text and "constant-144 end before that" in text
    methods = section(PAGE, "section-methods")
    assert [name for name in SCHEDULES if f"{name}: " in methods] == [
        "linear",
        "exponential",
        "logarithmic",
        "cyclic",
        "stepwise",
    ]
    assert PAGE.select_one("main h2").get_text() == "The answer" and len(PAGE.select("figure.picture")) >= 4
    for tag in PAGE.select("main a[href^='#']"):
        assert PAGE.find(id=tag["href"][1:]) is not None


def section(page: BeautifulSoup, name: str) -> str:
    """The text between the heading of a section and the next, without code."""
    found = []
    for tag in page.find(id=name).find_next_siblings():
        if tag.name == "h2":
            break
        found += [] if tag.name == "details" else [tag.get_text()]
    return " ".join(found).replace("\u00a0", " ")


ASKED = {  # by reviewers; and what, in the sections that the page refers to, answers them
    "a statistical analysis": "two-sided sign-flip permutation test",
    "strong baselines": "The curve of the constants passes through",
    "the interaction with learning rate": "constant-128 is sooner than baseline in",
    "why these schedules": "Why these: the original reported",
    "a theoretical reading and related work": "no arm tells noise from the number of passes",
    "practical implications and cost": "The cheapest of the arms",
    "limitations": "One architecture",
}


def test_the_page_answers_each_thing_that_reviewers_asked():
    items = PAGE.find(id="section-what-reviewers-asked").find_next("ul").find_all("li")
    assert len(items) == len(ASKED)
    for item, (topic, answered) in zip(items, ASKED.items(), strict=True):
        sections = [section(PAGE, link["href"].removeprefix("#")) for link in item.find_all("a")]
        assert item.get_text().startswith(topic) and answered in " ".join(sections)
        assert all(len(text.split()) > 20 for text in sections)


def test_the_time_of_an_update_is_the_line_through_the_timed_arms(tmp_path):
    paper, bench = load_study("paper"), tmp_path / "cuda-paper.csv"
    rows = [
        {
            "precision": p,
            "arm": a.name,
            "members": 12,
            "train_s": k * 12 * 7500 * (2e-5 + 3e-8 * effects.batch_sizes(paper, a.name).mean()),
        }
        for p, k in (("float32", 1), ("tf32", 0.5))
        for a in paper.arms
    ]
    pd.DataFrame([*rows, rows[0] | {"arm": "all side by side", "train_s": 1.0}]).to_csv(bench, index=False)
    spent = pd.DataFrame({"updates": [1, 0], "examples": [0, 1]})
    assert effects.with_seconds(spent, bench)["seconds"].tolist() == pytest.approx([2e-5, 3e-8])
    assert list(effects.with_seconds(spent, tmp_path / "none.csv")) == ["updates", "examples"]


def test_records_of_an_unclean_tree_are_counted_and_told():
    clean, unclean = {"dirty": False}, {"dirty": True}
    assert words.uncommitted([{"made": [clean]}, {"made": [{"dirty": None}, clean]}]) == ""
    assert words.uncommitted([{"made": [clean, unclean]}, {"made": [clean]}]).startswith("1 of 2 records say")


def test_a_world_of_dose_alone_has_orders_as_the_constants_add_up():
    rows, _ = decided(dose_only)
    dose = effects.dose_response(world(dose_only))
    table = effects.order_added_up(rows, dose)
    assert set(table["operation"]) == {"x_plus_y", "x_minus_y", "x_div_y"} and len(table) == 21
    # By hand: the update at which Σ 10 / T(B) reaches 1, T interpolated between the constants against log B.
    row = table.query("operation == 'x_div_y' and reference == 'linear-reversed'").iloc[0]
    study, curve = load_study("order-x_div_y"), effects.constant_curve(dose, "x_div_y")
    reached = {}
    for arm in ("linear", "linear-reversed"):
        way = 0.0
        for block, size in enumerate(effects.batch_sizes(study, arm), start=1):
            way += 10 / np.interp(np.log(size), *curve)
            if way >= 1 - 1e-9:
                reached[arm] = 10 * block
                break
    assert row["predicted"] == reached["linear"] - reached["linear-reversed"]
    explained = words.order_explained(table).set_index("control")
    assert explained["contrasts"].tolist() == [15, 3, 3]
    parts = explained[["inside", "below", "above"]].sum(axis=1)
    assert (parts <= explained["contrasts"]).all()  # no interval where seeds agree


def test_the_model_of_the_methods_is_that_of_every_study():
    cells = nbformat.read(ROOT / "notebooks" / "evidence.ipynb", as_version=4).cells
    (methods,) = (cell.source for cell in cells if "**Model.**" in cell.source)
    width, heads, blocks = PROTOCOL.shape
    assert f"{blocks} blocks of width {width} with {heads} heads" in methods
    assert f"${width} \\to {4 * width} \\to {width}$" in methods
    assert f"warms up linearly over {PROTOCOL.warm_up} updates" in methods
    used = [arm.settings for study in map(load_study, STUDIES) for arm in study.arms]
    assert {(s.shape, s.optimizer, s.warm_up) for s in used} == {(PROTOCOL.shape, "adamw", PROTOCOL.warm_up)}
