"""What there is of the tuned answer's studies, each record reduced to a row a member, and what lacks."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from grok_utils.analysis.crossings import MEMBER
from grok_utils.page.prose import listed
from grok_utils.pipeline.study_files import STUDIES, load_study
from grok_utils.store.records import makings, read_study, records_there
from grok_utils.studies import Arm, Study
from grok_utils.tuned import choices, decisions
from grok_utils.tuned.choices import POINT
from grok_utils.tuned.stages import STAGE_1, STAGE_2, selected

# Of each, the names of its studies; * stands for anything.
STAGES = {"surface": STAGE_1, "law": ("law",), "shapes": ("shapes",), "select": STAGE_2}
STAGES |= {"tuned": ("tuned-*",), "controls": ("controls",), "noise": ("noise*",), "oracle": ("oracle",)}
SURFACE, LAW, SHAPES, SELECT, TUNED, CONTROLS, NOISE, ORACLE = STAGES

# Of `choices.outcomes`, with study.
MEMBERS = [*MEMBER, "diverged", "horizon", "reached", "updates", "examples_seen", "restricted", "restricted_examples"]
MEMBERS += ["outcome", *POINT, "final_accuracy", "study"]


class Tuned(NamedTuple):
    """What there is of the studies of part two.

    studies: stage, study, title, seeds, models and updates (planned), records, planned, seconds (of training, told
    by the records). loaded: the studies by name. members: of each stage that has records but TUNED, the rows of
    `choices.outcomes` with study. chosen: stage 2's table, as `choices.compared` gives. horizons: stage 3's members at
    each, as `decisions.at_horizons` gives. lasting: of stage 3, as `decisions.after_touch_at` gives. metadata: of
    every record.
    """

    studies: pd.DataFrame
    loaded: dict[str, Study]
    members: dict[str, pd.DataFrame]
    chosen: pd.DataFrame
    horizons: dict[int, pd.DataFrame]
    lasting: pd.DataFrame
    metadata: list[dict[str, Any]]

    @property
    def arms(self) -> dict[str, Arm]:
        """The arms of all its studies, by name."""
        return {arm.name: arm for study in self.loaded.values() for arm in study.arms}

    def of(self, stage: str) -> pd.DataFrame:
        """The members of a stage; no rows where it has no record."""
        return self.members.get(stage, pd.DataFrame(columns=MEMBERS))

    def complete(self, *stages: str) -> bool:
        """Whether these stages have study files and every record."""
        return not self.lacks(*stages)

    def lacks(self, *stages: str) -> str:
        """One line that names the studies of these stages that have no study file, no or not all records."""
        told = []
        for stage in stages:
            rows = self.studies[self.studies["stage"] == stage]
            if rows.empty:
                told.append(f"`{STAGES[stage][0]}` (its study files are not there yet)")
            short = rows[rows["records"] < rows["planned"]]
            told += [f"`{r.study}` ({r.records:,} of {r.planned:,} records)" for r in short.itertuples()]
        return f"**Not known yet**: this waits for {listed(told)}." if told else ""

    @property
    def source(self) -> str:
        """The stage that tells how soon tuned arms are: the third, or the last complete one until it is."""
        if self.complete(SELECT, TUNED):
            return "stage 3"
        return "stage 2" if self.complete(SELECT) else "stage 1"

    def waits(self, *stages: str) -> str:
        """`lacks` in short, for these stages are among those of the answer, which tells it in full."""
        return "" if self.complete(*stages) else "**Not known yet**: see [the answer](#section-the-answer)."


def read_tuned(results: Path | str, folder: Path = STUDIES) -> Tuned:
    """All that `results` holds of the studies of part two, whose files are in `folder`. Raises Damaged on a bad record.

    `noise` records are read where they are asked for: what they measure is a course, and no member's one number.
    """
    rows, loaded, members, metadata, restricted, lasting = [], {}, {}, [], [], []
    chosen = pd.DataFrame()
    for stage in STAGES:
        of_stage = []
        files = (file for name in STAGES[stage] for file in sorted(folder.glob(f"{name}.yaml"), key=lambda f: f.stem))
        for study in (load_study(str(file)) for file in files):
            loaded[study.name] = study
            there = records_there(study, results)
            seconds = 0.0
            if any(there):
                frame, about = read_study(study, results)
                metadata += about
                seconds = sum(made["seconds"] * made["share"] for made in makings(about))
                if stage == TUNED:
                    restricted.append(decisions.at_horizons(study, frame))
                    lasting.append(decisions.after_touch_at(frame, chosen))
                else:
                    of_stage.append(choices.outcomes(frame).assign(study=study.name))
            models = sum(len(arm.members(study.seeds)) for arm in study.arms)
            row = {"stage": stage, "study": study.name, "title": study.title, "seeds": len(study.seeds)}
            row |= {"models": models, "updates": study.updates, "records": sum(there), "planned": len(there)}
            rows.append(row | {"seconds": seconds})
        if of_stage:
            members[stage] = pd.concat(of_stage, ignore_index=True)
        if stage == SELECT and of_stage:
            chosen = selected(members[stage])
    at = decisions.HORIZONS if restricted else ()
    joined = {horizon: pd.concat([of[horizon] for of in restricted], ignore_index=True) for horizon in at}
    last = pd.concat(lasting, ignore_index=True) if lasting else pd.DataFrame()
    return Tuned(pd.DataFrame(rows), loaded, members, chosen, joined, last, metadata)
