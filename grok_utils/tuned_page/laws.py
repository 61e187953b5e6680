"""The law of the times in rate and decay, the edge of stability, and steps against examples: tables and words."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import by_operation, in_order, rows_in_order
from grok_utils.page.prose import count, from_to, listed
from grok_utils.store.records import read_study
from grok_utils.tasks import OPERATIONS, written
from grok_utils.tuned import choices, costs, decisions, law
from grok_utils.tuned.decisions import HELD_OUT, ITS_CHOICE
from grok_utils.tuned.stages import EDGES, kinds
from grok_utils.tuned_page.reading import LAW, NOISE, SELECT, SURFACE, Tuned

OF_LAW = ("x_plus_y", ITS_CHOICE)  # operations
GRID = ("surface", *EDGES[:2], "law")  # studies: without the neighbours, which have another horizon
# Exponents of rate × decay, of the delay after memorising; and the range that the plan gives them.
PUBLISHED = "−1 (arXiv 2603.13331, arXiv 2605.18845; the plan names −1 to −0.5)"
PRODUCT_ALONE = 0.15  # the second coefficient within ± this says that rate and decay act through their product
FACTOR = 2.0  # within which a noise scale predicts B_c
MUCH = 1e5  # a B_c beyond this is none: the curve is a power of B throughout


def sizes(t: Tuned) -> dict[str, int]:
    """The constants of all studies with their batch sizes."""
    batches: dict[str, Any] = {name: arm.settings.batch_size for name, arm in t.arms.items()}
    return {name: batch for name, batch in batches.items() if isinstance(batch, int)}


# --- the law ----------------------------------------------------------------------------------------------------------


def law_members(t: Tuned, outcome: str = "touch") -> pd.DataFrame:
    """The members of the constants on OF_LAW by one outcome: stage 1's grid, and the further seeds of LAW."""
    rows = pd.concat([t.members[stage] for stage in (SURFACE, LAW)])
    kept = rows["study"].isin(GRID) & rows["operation"].isin(OF_LAW) & rows["schedule"].isin(kinds(rows)[0])
    return rows[kept & (rows["outcome"] == outcome)]


def surface(t: Tuned, outcome: str = "touch") -> pd.DataFrame:
    """`law.surface` of `law_members`, with the batch size."""
    table = law.surface(law_members(t, outcome))
    return table.assign(batch=table["schedule"].map(sizes(t)))


def laws(t: Tuned) -> pd.DataFrame:
    """`law.laws` of the sizes that LAW has."""
    members = law_members(t)
    return law.laws(members[members["schedule"].isin(t.members[LAW]["schedule"])])


def law_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row an operation and batch size: cells, seeds, the coefficients of rate × decay (product), of rate / decay
    (ratio) and gamma with their intervals, product_alone, and aic_difference, the product's less the timescale's."""
    rows = []
    for (operation, arm), of in table.groupby(["operation", "schedule"], sort=False):
        row = {"operation": operation, "schedule": arm, "cells": of["cells"].iloc[0], "seeds": of["seeds"].iloc[0]}
        aic = of.drop_duplicates("law").set_index("law")["aic"]
        row["aic_difference"] = aic["product"] - aic["timescale"] if len(aic) == 2 else np.nan
        for coefficient, name in {"rate × decay": "product", "rate / decay": "ratio", "gamma": "gamma"}.items():
            for found in of[of["coefficient"] == coefficient].itertuples():
                row |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
                if name == "ratio":
                    row["product_alone"] = bool(max(-found.low_90, found.high_90) < PRODUCT_ALONE)
        rows.append(row)
    columns = [f"{name}{end}" for name in ("product", "ratio", "gamma") for end in ("", "_low", "_high")]
    key = ["operation", "schedule", "cells", "seeds"]
    return pd.DataFrame(rows, columns=[*key, *columns, "product_alone", "aic_difference"])


def law_line(t: Tuned, cells: pd.DataFrame, table: pd.DataFrame) -> str:
    """What the law says, and for which batch sizes of LAW no cell counts."""
    told, exponents, alone = [], table["product"].dropna(), table["product_alone"]
    batches = {sizes(t)[arm] for arm in table["schedule"]}
    without = sorted({sizes(t)[arm] for arm in t.members[LAW]["schedule"]} - batches)
    if len(exponents):
        power = from_to(exponents, "{:.2f}").replace("-", "−")
        told.append(
            f"In {len(table)} fits ({count(table['operation'].unique(), 'operation')}, batch sizes "
            f"{listed(f'{size:,}' for size in sorted(batches))}) the time goes as (rate × decay) to the power of "
            f"{power}. A time that is a multiple of τ would give −1. Published exponents are {PUBLISHED}. Rate and "
            f"decay act through their product alone, within ± {PRODUCT_ALONE}, in {int(alone.eq(True).sum())} of "
            f"{len(table)}."
        )
        if without:
            told.append(f"At a batch of {listed(f'{size:,}' for size in without)} no cell counts.")
        better = table["aic_difference"].dropna()
        told.append(
            f"$T = T_0 + c\\,τ^γ$ is the better of the two by AIC in {int((better > 0).sum())} of {len(better)} fits, "
            f"the power of the product in {int((better < 0).sum())}."
        )
    counting = cells[cells["counts"].astype(bool)]
    if len(counting):
        told.append(f"Over the {len(counting)} cells that count, T / τ is {from_to(counting['in_tau'], '{:.2f}')}.")
        ends = [of["in_tau"].iloc[[0, -1]] for _, of in by_operation(in_tau(cells))]
        more = sum(of.iloc[0] < of.iloc[1] for of in ends)
        told.append(
            f"From the smallest to the largest batch that has such cells it rises on {more} of {len(ends)} operations "
            "([Table](#in-tau))."
        )
        if more == len(ends):
            told.append("So a larger batch needs no fewer τ. What it gains is that it bears a higher rate × decay.")
    return " ".join(told)


def in_tau(cells: pd.DataFrame) -> pd.DataFrame:
    """The mean of T / τ over the cells that count: operation, batch, cells, in_tau."""
    groups = cells[cells["counts"].astype(bool)].groupby(["operation", "batch"])["in_tau"]
    return rows_in_order(groups.agg(cells="size", in_tau="mean").reset_index())


def edges(t: Tuned) -> pd.DataFrame:
    """`law.edges` of stage 1's grid, with the batch size."""
    table = law.edges(*(surface(t, outcome) for outcome in decisions.OUTCOMES))
    return table.assign(batch=table["schedule"].map(sizes(t)))


def limits(table: pd.DataFrame) -> pd.DataFrame:
    """The highest rate and the highest decay (limit) at which all seeds reach, an operation a row, at the smallest and
    the largest batch size; `table` as from `edges`."""
    rows, ends = [], (table["batch"].min(), table["batch"].max())
    for limit in ("rate", "decay"):
        for operation, of in by_operation(table[table["of"] == limit]):
            reach = of.groupby("batch")["reach"].max()
            told = {f"at {size:,}": f"{reach[size]:g}" for size in ends if reach.get(size, 0) > 0}
            rows.append({"limit": limit, "operation": operation} | told)
    return pd.DataFrame(rows)


def edge_line(table: pd.DataFrame) -> str:
    """Whether a larger batch bears a higher rate and a higher decay, from `limits`."""
    small, large = (table.iloc[:, i].astype(float) for i in (2, -1))
    higher = (large > small).groupby(table["limit"], sort=False)
    told = [f"a higher {limit} on {more.sum()} of {len(more)} operations" for limit, more in higher]
    return f"Beside the smallest batch, the largest bears {listed(told)} ([Table](#limits))."


# --- steps and examples -----------------------------------------------------------------------------------------------


def steps(t: Tuned) -> pd.DataFrame:
    """The fits of S = S_min (1 + B_c / B) and of its power form: by stage 3, and by stage 2, its selection redone."""
    own_horizon = pd.concat(rows[rows["horizon"] == horizon] for horizon, rows in t.horizons.items())
    at = decisions.at_chosen(own_horizon, t.chosen)
    third = costs.steps_and_examples(at[at["outcome"] == "touch"], sizes(t)).assign(stage="stage 3")
    reach = t.chosen[(t.chosen["outcome"] == "touch") & (t.chosen["reached"] > t.chosen["n"] / 2)]
    members = t.members[SELECT].merge(reach[["operation", "schedule"]])
    second = choices.steps_by_selection(members, sizes(t)).assign(stage="stage 2, selection redone")
    return pd.concat([third, second], ignore_index=True)


def noise(t: Tuned, results: Path | str) -> pd.DataFrame:
    """The gradient noise scale at each constant, in examples, from the records of NOISE, at the cells chosen by touch:
    operation, schedule, batch, members, opposed (the share of logs at which |G|² is not above 0, so that the gradients
    of a block oppose each other), n (members with a scale), noise_scale (their median)."""
    rows = []
    for name in t.studies[t.studies["stage"] == NOISE]["study"]:
        frame, _ = read_study(t.loaded[name], results)
        found = choices.outcomes(frame)
        scale = costs.noise_scale(frame, decisions.at_chosen(found[found["outcome"] == "touch"], t.chosen))
        for (operation, arm), of in scale.groupby(["operation", "schedule"], sort=False):
            row = {"operation": operation, "schedule": arm, "batch": sizes(t)[arm], "members": len(of)}
            row |= {"opposed": of["opposed"].mean(), "n": int(of["noise_scale"].count())}
            rows.append(row | {"noise_scale": of["noise_scale"].median()})
    return rows_in_order(pd.DataFrame(rows), batch=True)


def steps_line(table: pd.DataFrame, scale: pd.DataFrame) -> str:
    """What B_c is, from either stage, whether γ is 1, and whether the noise scale predicts it."""
    told = []
    for stage, of in table.groupby("stage", sort=False):
        found = of[(of["form"] == "hyperbola") & (of["coefficient"] == "B_c")]["estimate"]
        told.append(f"$B_c$ is {from_to(found, '{:,.0f}')} from {stage} ({from_to(of['seeds'])} seeds).")
    told.append("[Table](#steps) has it by operation, with intervals.")
    first = table[table["stage"] == table["stage"].iloc[0]]
    gamma = first[(first["form"] == "power") & (first["coefficient"] == "gamma")]
    holds = int(((gamma["low"] <= 1) & (gamma["high"] >= 1)).sum())
    told.append(f"The interval of $γ$ in the form with $(B_c / B)^γ$ holds 1 on {holds} of {len(gamma)} operations.")
    told.append(noise_line(first, scale))
    return " ".join(told)


def noise_line(fits: pd.DataFrame, scale: pd.DataFrame) -> str:
    """Whether the noise scale at 512 predicts B_c, and where there is none."""
    of = fits[(fits["form"] == "hyperbola") & (fits["coefficient"] == "B_c")].set_index("operation")["estimate"]
    at = scale[scale["schedule"] == "baseline"].set_index("operation")["noise_scale"]
    both = [o for o in in_order(of.index, OPERATIONS) if o in at.index and o != HELD_OUT]
    within = [o for o in both if 1 / FACTOR <= at[o] / of[o] <= FACTOR]
    each = [f"{at[o]:,.0f} examples beside {of[o]:,.0f} on {written(o)}" for o in both if at[o] > 0]
    verdict = "predicts" if len(within) >= 2 else "does not predict"
    none = int((scale["n"] == 0).sum())
    known = f"is {listed(each)}" if each else "cannot be given"
    told = f"The gradient noise scale along tuned runs at 512 {known}. It lies within a factor of {FACTOR:g} of $B_c$"
    told += f" on {len(within)} of {len(both)} operations. So, by the plan, it {verdict} $B_c$."
    if none:
        told += (
            f" In {none} of {len(scale)} arms and operations no member has one ([Table](#noise)), as the ten gradients "
            "of a block oppose each other. We take it that the weights swing from side to side at these rates. Then "
            "the mean of the gradients is less than their noise alone would leave, and the estimate of its square is "
            "negative. The estimate supposes weights that hardly move within a block of ten updates."
        )
    return f"{told} It ignores AdamW's preconditioning, too."


def frontier_table(tests: pd.DataFrame) -> pd.DataFrame:
    """How far each schedule lies from the constants' frontier: operation, schedule, outcome, seeds, distance and its
    interval as ratios of updates, adjusted_p, passes, from `answer.Decided.tests`."""
    rows = tests[tests["way"] == "frontier"].dropna(subset=["distance"])
    ratios = np.exp(rows[["distance", "low", "high"]])
    bounded = np.isfinite(ratios["high"]) & (ratios["low"] > 0)  # else the arm leaves the range in some resamples
    ratios[["low", "high"]] = ratios[["low", "high"]].where(bounded)
    return rows[["operation", "schedule", "outcome", "seeds", "adjusted_p", "passes"]].join(ratios)


def steps_table(table: pd.DataFrame) -> pd.DataFrame:
    """`steps` with `told`, the estimate and its interval in words."""

    def words(row: Any) -> str:
        digits = ".2f" if row.coefficient == "gamma" else ",.0f"
        if row.estimate > MUCH or (row.coefficient == "S_min" and row.estimate < 1):
            return "none: a power of B throughout"
        high = f"{row.high:{digits}}" if row.high <= MUCH else "no bound"
        return f"{row.estimate:{digits}} ({row.low:{digits}} to {high})"

    return table.assign(told=[words(row) for row in table.itertuples()])
