"""A small world of all stages of the tuned answer: study files and records whose truth is known."""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_study, write_record
from grok_utils.studies import DEFAULTS, Member, Run, runs_of
from grok_utils.tuned import choices, stages
from support.synthetic import PROVENANCE, rows

# Updates, of an endless batch.
FASTEST = {"x_plus_y": 60, "x_minus_y": 70, "x_div_y": 80, "permutation": 150, "x3_plus_xy": 90}
CRITICAL = 256  # batch size at which twice as many are needed
ON = ["x_plus_y", "x_div_y", "permutation"]
CONSTANTS = {f"constant-{b}": {"batch_size": b} for b in (64, 256, 1024)} | {"baseline": None}
DYNAMIC = {"linear": None, "exponential": None, "cyclic": None}
DYNAMIC |= {"linear-500": {"batch_size": {"schedule": "linear", "length": 500}}}
DYNAMIC |= {"shrinking-500": {"batch_size": {"schedule": "linear", "lo": 512, "hi": 32, "length": 500}}}
SHAPE = {"geometric-256-1024-100": {"batch_size": {"schedule": "geometric", "lo": 256, "hi": 1024, "length": 100}}}
GRID = {"learning_rate": [2.0e-3, 4.0e-3, 8.0e-3], "weight_decay": [0.5, 1.0, 2.0]}
TWO, ONE = ({"learning_rate": rates, "weight_decay": [1.0]} for rates in ([4.0e-3, 8.0e-3], [8.0e-3]))
FIRST = {"seeds": "1100..1102", "updates": 2000, "operations": ON, "grid": GRID}
SECOND = {"seeds": "1200..1207", "updates": 1000, "operations": ON, "grid": TWO}
THIRD = {"seeds": "3000..3015", "updates": 2000, "grid": ONE}
MODULAR = {"operations": ["x_plus_y", "x_div_y"]}
STUDIES = {
    "surface": FIRST | {"arms": CONSTANTS | {"constant-128": {"batch_size": 128}}},
    "surface-schedules": FIRST | {"arms": DYNAMIC | {"all-pairs": {"batch_size": "all"}}},
    "law": FIRST | MODULAR | {"seeds": "1103..1105", "arms": {k: v for k, v in CONSTANTS.items() if v}},
    "shapes": FIRST | MODULAR | {"arms": SHAPE},
    "select-1000": SECOND | {"arms": CONSTANTS | DYNAMIC},
    "select-shapes-1000": SECOND | MODULAR | {"arms": SHAPE},
    "tuned-2000-60": THIRD | {"arms": CONSTANTS | DYNAMIC},
    "tuned-2000-30": THIRD | {"operations": [*FASTEST][:3], "arms": SHAPE},
    "noise": THIRD | MODULAR | {"seeds": "3000..3002", "measures": ["gradient_noise"], "arms": CONSTANTS},
    "oracle": {"seeds": "1400..1403", "updates": 1000, "operations": ON, "grid": ONE, "arms": {"baseline": None}},
    "controls": {"seeds": "1300..1302"},  # of what follows from the records of the first two stages
}
CONTROLS = (stages.UNCHANGED, "beta2-0.995", "width-64")  # of those with settings; the others follow by themselves


def time_of(run: Run, member: Member, growing: float) -> float:
    """25 + FASTEST (1 + CRITICAL / B) (τ / 125)^½ up to the luck of a seed, and an arm's own; never at τ below 100.

    B and the rate are means of the arm's first 300 updates; a schedule takes `growing` times as long. Where β₂ is not
    the protocol's, a batch of 512² / B does what one of B does elsewhere.
    """
    names = ("batch_size", "learning_rate", "weight_decay")
    courses = [run.arm.course(name, run.study.updates, member.operation, member.cell)[:30] for name in names]
    sizes, (rate, decay) = courses[0], (of.mean() for of in courses[1:])
    batch, tau = sizes.mean(), 1 / (rate * decay)
    if run.arm.settings.beta2 != DEFAULTS["beta2"]:
        batch = 512**2 / batch
    spread = [
        np.random.default_rng([member.seed, zlib.crc32(of.encode())]).normal(0, sd)
        for of, sd in ((member.operation, 0.05), (f"{member.operation} {run.arm.name}", 0.02))
    ]
    time = FASTEST[member.operation] * (1 + CRITICAL / batch) * (tau / 125) ** 0.5 * np.exp(sum(spread))
    return np.inf if tau < 100 else 25 + time * (growing if len(set(sizes)) > 1 else 1.0)


def write_stages(folder: Path, growing: float = 1.3, without: tuple[str, ...] = ()) -> tuple[Path, Path]:
    """Study files and records of STUDIES, but those `without`, in `folder`: the folders of either."""
    studies, results = folder / "studies", folder / "results"
    studies.mkdir()
    for name in (name for name in STUDIES if name not in without):
        path = studies / f"{name}.yaml"
        given = STUDIES[name] if name != "controls" else controls(studies, results) | STUDIES[name]
        path.write_text(yaml.safe_dump({"title": f"It is {name}"} | given, sort_keys=False))
        study = load_study(str(path))
        for run in runs_of(study, results):
            made = PROVENANCE | {"seeds": list(study.seeds), "share": 1 / len(study.seeds)}
            logs = [rows(run, i, 10 * np.ceil(time_of(run, m, growing) / 10)) for i, m in enumerate(run.members)]
            table = pd.concat(logs)
            for seed in study.seeds:
                write_record(run, seed, table[table["seed"] == seed], [made])
    return studies, results


def controls(studies: Path, results: Path) -> dict[str, Any]:
    """The study file of controls that follows from the records of the first two stages, with no other changes than
    CONTROLS."""
    parents = [load_study(str(studies / f"{name}.yaml")) for name in ("surface", "surface-schedules", "select-1000")]
    members = [choices.outcomes(read_study(study, results)[0]).assign(study=study.name) for study in parents]
    stage = next(stage for stage in stages.STAGES if stage.name == "controls")
    (draft,) = stage.drafts(pd.concat(members))
    study = yaml.safe_load(stages.study_text(stage, draft, studies))
    left_out = tuple(f"-{name}" for name in stages.CONTROLS if name not in CONTROLS)
    return study | {"arms": {name: arm for name, arm in study["arms"].items() if not name.endswith(left_out)}}
