"""What the README and the pages of docs show works as it is written there."""

import re
import shlex
import subprocess
import tomllib

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from support.project import ROOT
from support.studies import write_study

from grok_utils import measures, optimizers, schedules, tasks
from grok_utils.errors import Damaged
from grok_utils.evidence.members import STUDIES
from grok_utils.model import initial_decoder
from grok_utils.page import style
from grok_utils.page.prose import schedule_formulas
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.plan import planned_runs
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import VARIED, read_record, write_records
from grok_utils.studies import Scheduled, runs_of
from grok_utils.training import train

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]
ALL = "\n".join(PAGES)
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
ADD = "Add an operation, an optimizer, a measure"


def block(section: str, language: str, holds: str = "") -> str:
    """The first code block of a language under a heading that `holds` something; one of the pages has it."""
    (text,) = (page.split(f"\n## {section}\n")[1].split("\n## ")[0] for page in PAGES if f"\n## {section}\n" in page)
    return next(code for code in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if holds in code)


def added(source: str, module, names: dict) -> str:
    """The name that `source`, executed as part of `module`, adds to `names`, be it among them already or not."""
    others = dict(names)
    names.clear()
    exec(compile(source, "README.md", "exec"), dict(vars(module)))
    (name,) = names
    names.update({other: value for other, value in others.items() if other != name})
    return name


@pytest.fixture
def untouched():
    """The schedules, operations, optimizers and measures as they were, after the test."""
    registries = schedules.SCHEDULES, tasks.OPERATIONS, optimizers.OPTIMIZERS, measures.MEASURES
    before = [dict(names) for names in registries]
    yield
    for names, old in zip(registries, before, strict=True):
        names.clear()
        names.update(old)


def test_a_schedule_is_at_most_five_lines_and_trains(untouched, tmp_path):
    source = block("Change a schedule", "python")
    assert len(source.splitlines()) <= 5
    name = added(source, schedules, schedules.SCHEDULES)
    of_rate = {"learning_rate": {"schedule": name, "lo": 2.0e-3, "hi": 1.0e-3}}
    study = write_study(tmp_path, arms={name: {}, "of-rate": {"batch_size": 4} | of_rate})
    p = np.array([s / 60 for s in range(10, 61, 10)])
    rows = trained(study, name, tmp_path)
    assert np.array_equal(rows.batch_size, (32 + 480 * p**0.5).astype(int))
    assert np.allclose(trained(study, "of-rate", tmp_path).learning_rate, 2e-3 - 1e-3 * p**0.5, rtol=1e-12)
    assert schedule_formulas([name]) == rf"- `{name}`: $b_0 + (b_1 - b_0)\,\sqrt{{p}}$"


def trained(study, arm, folder):
    """The rows, on x_plus_y, of the record of an arm and the study's first seed, which is trained first."""
    run = make_run(study, arm, load_study(study).seeds[:1], folder / "results", "cpu")
    write_records(train(run))
    rows = read_record(run.record(run.seeds[0]))[0]
    return rows[rows.operation == "x_plus_y"].sort_values(["cell", "update"])


def test_what_is_said_when_a_schedule_is_edited(untouched):
    study = load_study("paper")
    assert planned_runs(study, ROOT / "results") == []
    schedules.SCHEDULES["linear"] = lambda s, T, lo, hi: lo + (hi - lo) * (s / T) ** 0.9
    with pytest.raises(Damaged) as told:
        planned_runs(study, ROOT / "results")
    message, ways_out = str(told.value).split(": ", 1)
    assert f"`{message}`" in " ".join(ALL.split())
    assert "a name of its own" in ways_out and "RESULTS=elsewhere" in ways_out


def test_an_operation_is_at_most_five_lines_and_trains(untouched, tmp_path):
    source = block(ADD, "python", "OPERATIONS")
    assert len(source.splitlines()) <= 5
    name = added(source, tasks, tasks.OPERATIONS)
    pairs = tasks.all_pairs(name, 11)
    assert [int(z) for x, y, z in pairs] == [(int(x) * int(y) + int(y)) % 11 for x, y, _ in pairs]
    run = make_run(write_study(tmp_path, operations=[name]), "linear", [0], tmp_path / "results", "cpu")
    write_records(train(run))
    assert set(read_record(run.record(0))[0].operation) == {name}


def test_an_optimizer_is_a_few_lines_and_trains(untouched, tmp_path):
    source = block(ADD, "python", "OPTIMIZERS")
    assert len(source.splitlines()) <= 7
    name = added(source, optimizers, optimizers.OPTIMIZERS)
    study = write_study(tmp_path, optimizer=name, grid={"learning_rate": [1.0e-3, 4.0e-3]})
    rows = trained(study, "linear", tmp_path)
    losses = rows[rows["update"] == 60].set_index("cell").train_loss
    assert np.isfinite(losses).all() and losses.nunique() == 2
    hyper = optimizers.Hyper(*torch.tensor([1, 0.25, 0.5, 0.9, 0.99, 0.1, 0.01])[:, None, None])
    mean, gradient = torch.tensor([[-1.0, 2.0, -3.0]]), torch.tensor([[10.0, 1.0, 20.0]])
    moved, state = optimizers.OPTIMIZERS[name].rule(torch.ones(1, 3), gradient, {"exp_avg": mean}, hyper, None)
    assert moved.tolist() == [[0.625, 0.625, 1.125]]  # 1 - 0.25 · 0.5, less 0.25 in the direction of + + -
    assert state["exp_avg"].numpy() == pytest.approx(np.array([[-0.89, 1.99, -2.77]]))


def test_a_measure_is_at_most_six_lines_and_is_recorded(untouched, tmp_path):
    source = block(ADD, "python", "MEASURES")
    assert len(source.splitlines()) <= 6
    name = added(source, measures, measures.MEASURES)
    study = write_study(tmp_path, measures=["weight_norm", name])
    rows = trained(study, "linear", tmp_path)
    assert list(rows)[-2:] == ["weight_norm", name]
    rate_0 = write_study(tmp_path, "still", measures=[name], learning_rate=0.0)
    embedding = initial_decoder(tasks.make_task("x_plus_y", 0, 11)).tokens.weight
    assert trained(rate_0, "linear", tmp_path)[name].tolist() == pytest.approx([embedding.norm().item()] * 6, rel=1e-5)
    assert rows[name].between(0.5 * embedding.norm().item(), rows["weight_norm"]).all()


def study_shown(section, folder):
    """The study that the YAML of a section is, and the path of the same with fewer pairs and updates."""
    path, tiny = folder / "mine.yaml", folder / "tiny.yaml"
    path.write_text(block(section, "yaml"), encoding="utf-8")
    values = yaml.safe_load(path.read_text(encoding="utf-8")) | {"modulus": 11, "updates": 20}
    tiny.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return load_study(str(path)), str(tiny)


def test_the_study_of_your_own_is_allowed(tmp_path):
    (tmp_path / "mine.yaml").write_text(block("A study of your own", "yaml"), encoding="utf-8")
    sizes = [arm.settings.batch_size for arm in load_study(str(tmp_path / "mine.yaml")).arms]
    assert sizes[:3] == [512, 128, Scheduled("linear", 32, 512)]
    assert [size.control for size in sizes[3:]] == ["reverse", "shuffle", "mean"]


def test_the_readme_varies_what_is_allowed(tmp_path):
    study, tiny = study_shown("Vary anything", tmp_path)
    assert [arm.name for arm in study.arms] == ["baseline", "linear", "faster", "falling", "narrow-muon"]
    assert study.arm("linear").settings.batch_size == Scheduled("linear", 32, 512)
    assert trained(tiny, "faster", tmp_path).learning_rate.tolist() == [2e-3, 2e-3]
    assert study.arm("narrow-muon").settings.shape == (64, 2, 3)


def test_all_that_varies_is_allowed_and_trains(tmp_path):
    study, tiny = study_shown("All that varies", tmp_path)
    assert study.seeds == (300, 301, 302)
    rate, decay = (
        {arm.name: arm.courses(name, 7500) for arm in study.arms} for name in ("learning_rate", "weight_decay")
    )
    on = {name: {o: course for (o, _), course in of.items()} for name, of in rate.items()}
    assert set(on["baseline"]["x_plus_y"]) == {1e-3} and set(on["faster"]["x_plus_y"]) == {2e-3}
    assert on["falling"]["x_plus_y"][[99, 199, -1]] == pytest.approx([5.5e-4, 1e-4, 1e-4])
    assert on["linear-scaled"]["x_div_y"][-1] == pytest.approx(1e-3)
    assert on["linear-scaled"]["x_div_y"][374] == pytest.approx(1e-3 * (288 / 512) ** 0.5)
    assert {o: set(course) for (o, _), course in decay["by-operation"].items()} == {"x_plus_y": {0.5}, "x_div_y": {1}}
    assert set(on["all-pairs"]) == {"x_plus_y"}
    narrow = study.arm("narrow-muon").settings
    assert (narrow.optimizer, narrow.warm_up, narrow.shape) == ("muon", 20, (64, 2, 3))
    told = re.search(r"There are ([^.]*), values of the setting `optimizer`", " ".join(ALL.split()))[1]
    assert {"adamw", "sgd", "muon"} <= set(re.findall(r"`(\w+)`", told)) <= optimizers.OPTIMIZERS.keys()
    assert all(f"`{name}`" in ALL for name in ("warm_up", *narrow.shape._fields))
    sizes = {arm.name: trained(tiny, arm.name, tmp_path).batch_size.tolist() for arm in study.arms}
    assert sizes["all-pairs"] == [60, 60] and sizes["linear-scaled"] == [288, 512]


def test_the_sweep_is_allowed_and_an_arm_trains_in_one_stack(tmp_path):
    study, tiny = study_shown("Sweep", tmp_path)
    names = [f"learning_rate={rate} weight_decay={decay}" for rate in (0.001, 0.002, 0.004) for decay in (0.5, 1)]
    assert [[cell.name for cell in arm.cells] for arm in study.arms] == [names, names]
    planned = [(run.arm.name, run.seeds, len(run.members)) for run in planned_runs(load_study(tiny), tmp_path)]
    assert planned == [(arm, (seed,), 12) for arm in ("baseline", "linear") for seed in (300, 301, 302)]
    rows = trained(tiny, "linear", tmp_path)
    assert rows.cell.tolist() == sorted(2 * names)
    rates = zip(rows.learning_rate, rows.weight_decay, strict=True)
    assert [f"learning_rate={rate:g} weight_decay={decay:g}" for rate, decay in rates] == rows.cell.tolist()


def test_the_records_are_read_as_the_readme_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    *lines, last = block("Read with pandas", "python").splitlines()
    names = {}
    exec("\n".join(lines), names)
    best = eval(last, names)
    assert isinstance(best, pd.Series) and len(best) >= 20 and best.between(0, 1).all()
    told = re.search(r"Columns: `([^`]*)`", ALL)[1]
    assert re.split(r",\s+", told) == list(names["frame"].columns)
    assert all(f"`{name}`" in ALL for name in VARIED)


def commands() -> list[str]:
    """Every make command in a shell block or between backticks."""
    lines = [line.split("#")[0] for text in re.findall(r"```sh\n(.*?)```", ALL, re.DOTALL) for line in text.split("\n")]
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", ALL, flags=re.DOTALL))
    parts = [part.strip() for line in lines + inline for part in line.split("&&")]
    return sorted({" ".join(part.split()) for part in parts if re.match(r"make( |$)", part)})


def test_there_are_commands():
    assert len(commands()) >= 20
    assert {"make pdf STUDY=paper", "make select", "make site"} <= set(commands())


def test_the_readme_is_short_and_begins_with_what_sets_everything_up():
    assert len(README.splitlines()) <= 180
    first = re.search(r"```sh\n(.*?)```", README, re.DOTALL)[1]
    assert [line.split("#")[0].strip() for line in first.splitlines()] == ["make quick", "make test", "make all"]


@pytest.mark.parametrize("command", commands())
def test_a_make_command_names_targets_and_settings_that_exist(command):
    words = shlex.split(command)[1:]
    for word in words:
        if re.match(r"[A-Z_]+=", word):
            assert re.search(rf"^{word.split('=')[0]} \?=|\$\({word.split('=')[0]}\)", MAKEFILE, re.MULTILINE), word
    # PYTHON=true: even with -n, a recipe that calls make again is carried out.
    done = subprocess.run(["make", "-n", *words, "VENV=", "PYTHON=true"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_and_modules_that_the_pages_name_exist():
    named = set(re.findall(r"(?:grok_utils|notebooks|results|docs)/[\w./-]*\w\.\w+", ALL)) - {
        "notebooks/studies/mine.yaml",
        "notebooks/studies/vary.yaml",
        "notebooks/studies/sweep.yaml",
        "results/quick/report.html",
        "results/evidence/report.html",
        "results/paper/report.pdf",
    }
    assert {name for name in named if not (ROOT / name).exists()} == set()
    tree = README.split("## What is where")[1].split("```")[1]
    rooms = {path.name for path in ROOT.glob("grok_utils/*.py")} - {"__init__.py"}
    rooms |= {f"{path.parent.name}/" for path in ROOT.glob("grok_utils/*/__init__.py")}
    assert rooms <= set(re.findall(r"\w+(?:\.py|/)", tree))


def test_what_the_pages_link_to_is_there():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            if not link.startswith("https://"):
                page, _, heading = link.partition("#")
                assert (path.parent / page).exists(), link
                if heading:
                    found = re.findall(r"(?m)^#+ (.*)$", (path.parent / page).read_text(encoding="utf-8"))
                    assert heading in [re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in found], link
    assert all(f"(docs/{page.name})" in README for page in (ROOT / "docs").glob("*.md"))


def test_every_picture_is_there_for_light_and_for_dark_ground():
    pictures = re.findall(r"<picture>(.*?)</picture>", README, re.DOTALL)
    assert pictures and len(re.findall(r"!\[|<img", README)) == len(pictures)
    for picture in pictures:
        dark = re.search(r'media="\(prefers-color-scheme: dark\)" srcset="([^"]+)"', picture)[1]
        light = re.search(r'<img alt="[^"]{20,}" src="([^"]+)"', picture)[1]
        for path, ink, other in ((light, style.INK, style.INK_ON_DARK), (dark, style.INK_ON_DARK, style.INK)):
            text = (ROOT / path).read_text(encoding="utf-8")
            assert ink in text and other not in text and "prefers-color-scheme" not in text


def test_the_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format demands
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "2408.06292" in str(citation["references"]) and "2408.06292" in README


def row_of(page: str, name: str) -> list[str]:
    """The cells of a page's table row that begins with `name`."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


MODULAR = ("x_plus_y", "x_minus_y", "x_div_y")
TABLES = ROOT / "results" / "evidence" / "tables"


def test_the_front_page_says_what_the_evidence_says():
    front = " ".join(README.split("## Start")[0].split())
    contrasts = pd.read_csv(TABLES / "contrasts.csv").set_index(["claim", "reference", "operation"])
    shown = {(3, "linear-reversed"): "its batch sizes in reverse order", (1, "baseline"): "a constant batch of 512"}
    for test, words in shown.items():
        rows = contrasts.loc[[(*test, operation) for operation in MODULAR]]
        assert set(rows["arm"]) == {"linear"}
        numbers = [[f"{row[k]:+,.0f}" for k in ("difference", "low", "high")] for _, row in rows.iterrows()]
        cells = [f"{d} ({low} to {high})".replace("(+", "(").replace("to +", "to ") for d, low, high in numbers]
        assert row_of(README, words) == [cell.replace("-", "−") for cell in cells] + [f"{rows['n'].iloc[0]}"]
    reverse = contrasts.loc[[(3, "linear-reversed", operation) for operation in MODULAR], "verdict"]
    assert reverse.tolist() == ["contradicted", "equivalent", "contradicted"]  # sooner or equally soon in reverse
    assert pd.read_csv(TABLES / "verdicts.csv").set_index("claim").loc[3, "verdict"] == "contradicted"
    dose = pd.read_csv(TABLES / "dose-response-table.csv").query("operation != 'permutation'")
    soonest = dose.loc[dose.groupby("operation")["rmst"].idxmin()]
    assert set(soonest["schedule"]) == {"constant-128", "constant-144"} and set(dose["n"]) == {30}
    assert "a constant batch of 128 does better" in front
    assert "learning rate 1e-3 and weight decay 0.5 alone" in front


def test_the_front_page_says_what_the_tuned_answer_says():
    front, tables = " ".join(README.split("## Start")[0].split()), ROOT / "results" / "tuned" / "tables"
    both = pd.read_csv(tables / "answer-table.csv").set_index(["outcome", "setting", "operation"])
    table = both.loc["touch"]
    rows = {"512, at the original's rate and decay": ("original", "512"), "512, tuned": ("tuned", "512")}
    rows |= {f"the soonest {of}, tuned": ("tuned", f"soonest {of}") for of in ("constant", "schedule")}
    for words, (setting, column) in rows.items():
        told = table.loc[setting].loc[["x + y", "x − y", "x / y", "S₅"], column]
        assert row_of(README, words) == [cell.split(": ")[-1] for cell in told], words
    usual = both["512"].str.split().str[0].str.replace(",", "").astype(int)
    for outcome, words in {"touch": "times as fast to touch 99 %", "kept": "times to keep it"}.items():
        times = usual[outcome, "original"] / usual[outcome, "tuned"]
        assert f"{times.min():.1f} to {times.max():.1f} {words}" in front
    contrasts = pd.read_csv(tables / "contrasts.csv").query("family != 'constants'")
    assert "sooner" not in set(contrasts.query("outcome == 'touch'")["verdict"]) and set(contrasts["n"]) == {30, 60}
    pairs = contrasts.drop_duplicates(["operation", "schedule"])
    beaten = pd.read_csv(tables / "beaten.csv")
    assert len(pairs) == 40 and len(beaten) == 8 and set(beaten["kind"]) == {"shrinking"}
    assert "Eight of 40 pairs" in front and not beaten["said"].str.startswith("beats").any()
    claims = pd.read_csv(tables / "claims.csv")
    assert (claims["first"] == "supported").sum() == 1 and len(claims) == 14 and "one is supported at its own" in front
    assert "holds" not in set(claims["tuned"]) and (claims["tuned"] == "not tested").sum() == 8


def test_the_front_page_counts_the_records_and_models_of_both_pages():
    tuned = pd.read_csv(ROOT / "results" / "tuned" / "tables" / "studies.csv")
    runs = [run for study in map(load_study, STUDIES) for run in runs_of(study, ROOT / "results")]
    assert all(run.record(seed).exists() for run in runs for seed in run.seeds)
    records = pd.read_csv(TABLES / "studies.csv")["records"].sum() + tuned["records"].sum()
    models = sum(len(run.members) for run in runs) + tuned["models"].sum()
    assert f"{records:,} records of {models:,} models" in " ".join(README.split())


def test_what_is_said_of_lower_precisions_is_what_was_measured():
    same = pd.read_csv(ROOT / "results" / "evidence" / "tables" / "precision.csv").set_index("precision")["equivalent"]
    assert "All six differences of tf32 and five of six of bf16 are equivalent" in " ".join(ALL.split())
    assert same["tf32"].eq(True).sum() == len(same["tf32"]) == 6
    assert (same["bf16"].eq(True).sum(), len(same["bf16"])) == (5, 6)


def test_the_times_on_a_gpu_are_those_of_the_bench():
    bench = ROOT / "results" / "bench"
    paper = pd.read_csv(bench / "cuda-paper.csv")
    together = paper["arm"] == "all side by side"
    for precision in ("float32", "tf32", "bf16"):
        one, all_ = (paper[which & (paper["precision"] == precision)] for which in (~together, together))
        floor = all_.filter(like="_floor_s").sum(axis=1).item()
        seconds = one["train_s"].sum(), all_["train_s"].item(), floor, all_["times_floor"].item()
        assert "| {} | {:.1f} | {:.1f} | {:.1f} | {:.1f} |\n".format(precision, *seconds) in ALL
    usual = re.search(r"([\d,]+) s for 60 runs", (bench / "cuda.txt").read_text(encoding="utf-8"))[1]
    assert f"| the usual loop, float32 | {usual} | | | |\n" in ALL
    members = pd.read_csv(bench / "cuda-members.csv").set_index("members")
    assert list(members.index) == [4, 12, 60, 240, 960]
    assert row_of(ALL, "models in the stack") == [f"{m}" for m in members.index]
    assert row_of(ALL, "seconds a model") == [f"{seconds:.2f}" for seconds in members["s_a_member"]]
    assert row_of(ALL, "of these stacks, times the floor") == [f"{times:.1f}" for times in members["times_floor"]]
    assert f"960 need {members['peak_gib'].iloc[-1]:.0f} GiB" in ALL
    sweep = pd.read_csv(bench / "cuda-sweep.csv")
    for size, rows in sweep.groupby("batch_size"):
        told = [f"{row.models_an_hour:,.0f} ({row.times_floor:.1f})" for row in rows.itertuples()]
        assert row_of(ALL, f"at batch {size}") == told and set(rows["members"]) == {240}


def test_the_times_of_make_all_on_a_gpu_are_those_of_the_bench():
    made, said = pd.read_csv(ROOT / "results" / "bench" / "cuda-make.csv").set_index("how"), " ".join(ALL.split())
    cold, warm, shared, sweep = (f"{round(s) // 60}:{round(s) % 60:02}" for s in made["to_page_s"])
    assert list(made.index) == ["nothing compiled before", "compiled before", "under MPS", "under MPS, tf32"]
    assert f"{cold} minutes from that command to its report on a machine that has just started" in said
    of_cold, of_warm, of_shared = made["longest_run_s"].iloc[:3]
    assert round(of_cold) <= round(of_warm)
    assert f"and {warm} where all has been compiled before, of which {of_warm:.0f} s are training" in said
    assert f"{of_shared:.0f} s of training instead of {of_warm:.0f}, and {shared} in all" in said
    last = made.iloc[-1]
    assert f"{last['models']:,} models, rate × decay at four batch sizes in tf32, takes {sweep} minutes" in said
    assert f"{last['models_an_hour']:,.0f} models an hour" in said
    assert f"{last['percent']:.0f} % of the time after the first minute is training" in said


@pytest.mark.parametrize(("device", "column", "digits"), [("cpu", 0, 2), ("cuda", 1, 1)])
def test_what_measures_cost_is_what_the_bench_found(device, column, digits):
    table = pd.read_csv(ROOT / "results" / "bench" / f"{device}-measures.csv").set_index("measures")
    costs = table.drop(index="none", errors="ignore")
    *alone, together = costs.index
    assert {"weight_norm", "gradient_noise", "fourier_concentration"} <= set(alone) <= measures.MEASURES.keys()
    assert together.split() == alone
    for name, told in [*((name, f"`{name}`") for name in alone), (together, "all three")]:
        small, large = (f"{costs.loc[name, percent]:.{digits}f}" for percent in ("percent_32", "percent_512"))
        assert row_of(ALL, told)[column] == f"{small} and {large} %", name
