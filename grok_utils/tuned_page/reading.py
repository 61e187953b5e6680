"""The tuned answer's studies, each record reduced to a row a member, and what lacks before there is an answer."""

from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from grok_utils.errors import Damaged
from grok_utils.page.prose import lacking
from grok_utils.pipeline.study_files import STUDIES, load_study
from grok_utils.store.records import makings, read_study
from grok_utils.studies import Arm, Study
from grok_utils.tuned import choices, decisions
from grok_utils.tuned.stages import STAGE_1, STAGE_2, selected

# Of each, the names of its studies; * stands for anything.
STAGES = {"surface": STAGE_1, "law": ("law",), "shapes": ("shapes",), "select": STAGE_2}
STAGES |= {"tuned": ("tuned-*",), "controls": ("controls",), "noise": ("noise*",), "oracle": ("oracle",)}
SURFACE, LAW, SHAPES, SELECT, TUNED, CONTROLS, NOISE, ORACLE = STAGES


class Tuned(NamedTuple):
    """The studies of part two.

    studies: stage, study, title, seeds, models, updates, records, seconds (of training, told by the records).
    loaded: the studies by name. members: of each stage but TUNED, the rows of `choices.outcomes` with study. chosen:
    stage 2's table, as `choices.compared` gives. horizons: stage 3's members at each, as `decisions.at_horizons` gives.
    lasting: of stage 3, as `decisions.after_touch_at` gives. metadata: of every record.
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


READ: dict[tuple[str, str], Tuned] = {}  # by `read_ahead`


def studies_of(folder: Path = STUDIES) -> dict[str, list[Study]]:
    """The studies of each of STAGES, whose files are in `folder`."""
    return {
        stage: [load_study(str(f)) for name in names for f in sorted(folder.glob(f"{name}.yaml"), key=lambda f: f.stem)]
        for stage, names in STAGES.items()
    }


def read_ahead(results: Path | str, folder: Path) -> None:
    """Have the next `read_tuned` of the same find it read: by a kernel, before its notebook begins."""
    with suppress(Damaged):  # which the notebook then says
        READ[str(results), str(folder)] = read_tuned(results, folder)


def read_tuned(results: Path | str, folder: Path = STUDIES) -> Tuned:
    """The studies of part two, whose files are in `folder`, from `results`. Raises Damaged on a bad or absent record.

    `noise` records are read where they are asked for: what they measure is a course, and no member's one number.
    """
    if read := READ.pop((str(results), str(folder)), None):
        return read
    of_stages = studies_of(folder)
    loaded = {study.name: study for study in chain(*of_stages.values())}
    if waits_for := lacking(loaded.values(), results):
        raise Damaged(f"there is no tuned answer yet: it waits for {waits_for}")
    rows, members, metadata, restricted, lasting = [], {}, [], [], []
    chosen = pd.DataFrame()
    for stage, studies in of_stages.items():
        of_stage = []
        for study in studies:
            frame, about = read_study(study, results)
            metadata += about
            if stage == TUNED:
                restricted.append(decisions.at_horizons(study, frame))
                lasting.append(decisions.after_touch_at(frame, chosen))
            else:
                of_stage.append(choices.outcomes(frame).assign(study=study.name))
            models = sum(len(arm.members(study.seeds)) for arm in study.arms)
            row = {"stage": stage, "study": study.name, "title": study.title, "seeds": len(study.seeds)}
            row |= {"models": models, "updates": study.updates, "records": len(about)}
            rows.append(row | {"seconds": sum(made["seconds"] * made["share"] for made in makings(about))})
        if of_stage:
            members[stage] = pd.concat(of_stage, ignore_index=True)
        if stage == SELECT:
            chosen = selected(members[stage])
    at = {h: pd.concat([of[h] for of in restricted], ignore_index=True) for h in decisions.HORIZONS}
    return Tuned(pd.DataFrame(rows), loaded, members, chosen, at, pd.concat(lasting, ignore_index=True), metadata)
