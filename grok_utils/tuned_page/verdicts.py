"""What tuning makes of the original's fourteen claims, and of what the page of the claims says.

`claimed` is the table verdicts.csv of that page: claim, text, verdict and n, at the original's rate and decay.
"""

import pandas as pd

from grok_utils.page.prose import listed, on_operations, signed
from grok_utils.tasks import written
from grok_utils.tuned import claims
from grok_utils.tuned.claims import COMPARATOR, FAMILIES, NOT_TESTED, S5, SHARE_OF
from grok_utils.tuned_page.answer import SETTINGS, soonest
from grok_utils.tuned_page.reading import Tuned


def second_verdicts(t: Tuned, claimed: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: claim, text, first, tuned, kept, survives, and stage_2, what that stage saw of what stage 3 does
    not test."""
    claimed = claimed.set_index("claim")
    table = claims.second_verdicts(t.horizons, t.chosen, claimed["verdict"])
    seen = {n: seen_in_stage_2(t.chosen, n) for n in table.index[table["tuned"] == NOT_TESTED]}
    table = table.assign(survives=table["survives"].map({True: "yes", False: "no"}), stage_2=pd.Series(seen, dtype=str))
    table.insert(0, "text", claimed["text"])
    return table.fillna("").reset_index(names="claim")


def seen_in_stage_2(chosen: pd.DataFrame, number: int) -> str:
    """The restricted means of stage 2 of the arms that a claim's contrasts of times speak of, a contrast a line, and
    where it speaks of shares or final accuracies, of how many seeds reach."""
    means = chosen[chosen["outcome"] == "touch"].set_index(["operation", "schedule"])
    told, counted = [], [SHARE_OF[number]] if number in SHARE_OF else []
    for test in FAMILIES.get(number, ()):
        if test.column != "restricted":
            counted += [test.arm, test.reference]
        elif (test.operation, test.arm) in means.index:
            row = means.loc[(test.operation, test.arm)]
            reference = row["comparator"] if test.reference == COMPARATOR else test.reference
            if (test.operation, reference) in means.index:
                other = means.loc[(test.operation, reference), "mean"]
                ours = f"{test.arm} {row['mean']:,.0f} against {reference} {other:,.0f}"
                told.append(f"{ours} on {written(test.operation)}")
    for arm in dict.fromkeys(arm for arm in counted if (S5, arm) in means.index):
        row = means.loc[(S5, arm)]
        told.append(f"{arm} reaches in {row['reached']} of {row['n']} seeds on {written(S5)}")
    return "\n".join(told)


def verdict_line(table: pd.DataFrame) -> str:
    """How many claims hold at the original's setting, tuned, and in both."""
    supported = int((table["first"] == "supported").sum())
    are = "is" if supported == 1 else "are"
    told = [f"At the original's rate and decay {supported} of {len(table)} claims {are} supported."]
    survive = table[table["survives"] == "yes"]
    settled = table["tuned"].str.startswith(claims.SETTLED)
    counts = table.loc[~settled, "tuned"].value_counts()
    each = listed(f"{n} *{verdict}*" for verdict, n in counts.items())
    told.append(f"Tuned, the others' verdicts are {each}. {settled.sum()} stay wrong by arithmetic or formula.")
    told.append(
        f"What survives tuning, supported in the first and holding in the second: "
        f"{listed(f'claim {n}' for n in survive['claim'])}."
        if len(survive)
        else "No claim survives tuning: none is both supported in the first and holds in the second."
    )
    return " ".join(told)


def contrasts(t: Tuned) -> pd.DataFrame:
    """The claims' contrasts at HORIZON, by touch, that have data."""
    table = claims.claim_contrasts(t.horizons, t.chosen)
    return table[table["n"] > 0].reset_index(drop=True)


def no_longer(t: Tuned, points: pd.DataFrame, first: pd.Series) -> pd.DataFrame:
    """What the page of the claims says, and whether it holds tuned: said, tuned.

    Of the soonest constant, of linear beside 512 and beside the best constant, and of growth beyond the dose.
    """
    best = soonest(points).query("constant").set_index(["setting", "operation"])
    linear = points[points["schedule"] == "linear"].set_index(["setting", "operation"])["rmst"]
    percent = (100 * (linear / best["rmst"].reindex(linear.index) - 1)).dropna().map(signed) + " %"
    first_constant, constant = ({o: v for (s, o), v in best["schedule"].items() if s == of} for of in SETTINGS)
    first_percent, percent_now = ({o: v for (s, o), v in percent.items() if s == of} for of in SETTINGS)
    said = [
        f"The soonest constant is {listed(on_operations(first_constant))}",
        f"linear needs beside the soonest constant, in updates, {listed(on_operations(first_percent))}",
        f"Growth matters beyond the dose (claim 3): {first[3]}",
    ]
    same = [o for o in constant if constant[o] == first_constant[o]]
    holds = f"On {listed(map(written, same))} alone" if same else "No longer"
    again = claims.by_outcome(t.horizons, t.chosen, first.loc[[3]], "touch")[3]
    tuned = [
        f"{'Still so' if len(same) == len(constant) else holds}: it is {listed(on_operations(constant))}",
        listed(on_operations(percent_now)) if percent_now else "Stage 3 does not have linear: stage 2 left it behind",
        f"linear over W updates beside the shrinking one and beside the soonest constant: {again}",
    ]
    return pd.DataFrame({"said": said, "tuned": tuned})
