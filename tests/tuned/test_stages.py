"""The study files of the tuned answer follow from the records: derived again, they are those committed."""

import shutil

import yaml
from support.synthetic import write_study

from grok_utils.pipeline.study_files import STUDIES, load_study
from grok_utils.store.files import ROOT
from grok_utils.tuned import stages

FIRST = (stages.CONSTANTS, stages.DYNAMIC)


def derived(folder, results):
    return list(stages.derive(results, folder))


def test_derived_again_the_files_are_those_committed(tmp_path):
    for path in STUDIES.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    lines = derived(tmp_path, ROOT / "results")
    names = {
        line.split(":")[0]
        for line in lines
        if "records that are not there yet" not in line and "not needed" not in line
    }
    assert {*stages.EDGES[:1], stages.EDGES[2]} <= names
    for name in names:
        assert (tmp_path / f"{name}.yaml").read_bytes() == (STUDIES / f"{name}.yaml").read_bytes(), name
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in STUDIES.glob("*.yaml")}


def test_each_stage_waits_for_the_records_of_the_one_before(tmp_path):
    common = {"grid": {"learning_rate": [1.0e-3, 2.0e-3], "weight_decay": [0.5, 1.0]}, "operations": ["x_plus_y"]}
    common |= {"seeds": [1100], "updates": 2500}
    arms = {stages.CONSTANTS: {"constant-64": {"batch_size": 64}, "baseline": None}}
    arms |= {stages.DYNAMIC: {"linear": None, stages.ANCHOR: {"batch_size": "all"}}}
    for name, of in arms.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, "arms": of} | common))
    results = tmp_path / "results"

    def make(*names, crossing=lambda *_: 200.0):
        for name in names:
            study = load_study(str(tmp_path / f"{name}.yaml"))
            write_study(results, study, crossing)

    assert all("not there yet" in line for line in derived(tmp_path, results))
    assert len(list(tmp_path.glob("*.yaml"))) == 2
    for ready in (FIRST, stages.EDGES[::2], stages.EDGES[1::2], ("surface-near",)):
        make(*ready)
        lines = derived(tmp_path, results)
    assert not any("not there yet" in line for line in lines)
    # All cells are equal, so the lowest rate × decay goes first: two steps of two, as far as 1 / (rate × decay) allows.
    edge, twice, near, select = (
        load_study(str(tmp_path / f"{name}.yaml")) for name in (*stages.EDGES[:2], "surface-near", "select-1000")
    )
    assert {cell.name for cell in edge.arm("baseline").cells} == {
        f"learning_rate={r:.12g} weight_decay={d:.12g}" for r, d in [(5e-4, 0.5), (5e-4, 1), (1e-3, 0.25), (2e-3, 0.25)]
    }
    assert (edge.updates, near.updates, select.updates) == (7500, 2500, 1000)
    assert edge.arm("baseline").settings.precision == "tf32" and select.arm("linear").settings.precision == "float32"
    assert len(twice.arms) == 2 and {arm.name for arm in near.arms} == {"baseline", "linear"}
    assert {arm.name for arm in select.arms} == {"baseline", "constant-64", "linear"}
    assert [a.name for a in load_study(str(tmp_path / "select-2500.yaml")).arms] == [stages.ANCHOR]
    assert all(len(arm.cells) == 3 for arm in select.arms) and select.seeds == tuple(range(1200, 1216))
