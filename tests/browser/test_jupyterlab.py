"""`make lab` as a person uses it: explore.ipynb runs, is watched, interrupted and run again; run.ipynb by hand."""

import json
import re
import secrets
import socket
import subprocess
import time
import urllib.request

import nbformat
import pytest
from support.project import copy_project, environment, shrink

from grok_utils.page.export import export_html
from grok_utils.store.records import read_record

PATIENCE = 240  # seconds until a wait is given up: a training and another process's Chromium share the cores with this
PARAMETERS = {"operation": "x_plus_y", "modulus": 31, "updates": 500, "device": "cpu"}
LIVE = ".jp-Cell:has-text('Progress(updates') .jp-OutputArea-output"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project whose explore.ipynb and study `quick` have a tiny setting."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    path = folder / "notebooks" / "explore.ipynb"
    notebook = nbformat.read(path, as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    for name, value in PARAMETERS.items():
        cell.source, found = re.subn(rf"(?m)^{name} = .*$", lambda _, n=name, v=value: f"{n} = {v!r}", cell.source)
        assert found == 1, name
    nbformat.write(notebook, path)
    shrink(folder / "notebooks" / "studies" / "quick.yaml", most=2)
    return folder


@pytest.fixture(scope="module")
def explore(project):
    """The path of the copy's explore.ipynb."""
    return project / "notebooks" / "explore.ipynb"


@pytest.fixture(scope="module")
def address(project, tmp_path_factory):
    """Where JupyterLab says that it is, started by `make lab` alone; port and token are in a user's settings."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, folder = secrets.token_hex(16), tmp_path_factory.mktemp("jupyter")
    settings = {"port": port, "port_retries": 0, "open_browser": False, "allow_root": True}
    (folder / "CONFIG").mkdir()
    (folder / "CONFIG" / "jupyter_server_config.json").write_text(
        json.dumps({"ServerApp": settings, "IdentityProvider": {"token": token}})
    )
    another = folder / "DATA" / "kernels" / "python3"  # a user's kernel of the same name, which is not this project's
    another.mkdir(parents=True)
    (another / "kernel.json").write_text(
        json.dumps({"argv": ["false"], "display_name": "Another", "language": "python"})
    )
    variables = environment() | {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    variables |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    with open(folder / "log", "w") as log:
        server = subprocess.Popen(["make", "lab"], cwd=project, env=variables, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/api?token={token}"), server, folder / "log")
        told = re.search(rf"http://127\.0\.0\.1:{port}/\S*\?token=", (folder / "log").read_text())[0]
        yield told + token
    finally:
        server.terminate()
        server.wait(PATIENCE)


def answers(url):
    """Whether something answers there."""
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def wait_for(condition, server, log):
    """Wait until `condition` holds; the server's log where it ended or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def lab(browser, address):
    """The notebook, open in JupyterLab with its kernel idle; the window is high, so that every cell is drawn."""
    context = browser.new_context(viewport={"width": 1300, "height": 3200})
    context.set_default_timeout(1000 * PATIENCE)
    asked = []
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.asked = asked
    page.goto(address)  # which opens explore.ipynb
    page.locator(LIVE.split(" .")[0]).wait_for()
    decline = page.get_by_role("button", name="No", exact=True)  # to news from jupyter.org
    page.wait_for_timeout(1000)
    if decline.is_visible():
        decline.click()
    until_idle(page)
    yield page
    context.close()


def until_idle(page):
    """Wait until a kernel is there and idle: without one yet it says idle too, and cells run then are let fall."""
    kernel = page.locator(".jp-KernelName", has_not_text="No Kernel")
    bar = page.locator(".jp-NotebookPanel-toolbar", has=kernel)
    bar.locator("[data-status='idle'].jp-Notebook-ExecutionIndicator").wait_for()


def choose(page, menu, item):
    """Choose an item of the menu bar."""
    page.locator(".lm-MenuBar-item", has_text=re.compile(f"^{menu}$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile(f"^{item}")).first.click()


def put(page, cell, text):
    """Put `text` in the place of what the cell that has `cell` says."""
    page.locator(f".jp-Cell:has-text('{cell}') .cm-content").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)


def watched(page, enough):
    """The distinct states of progress and figure, in order, until `enough` of them says that it is."""
    states, deadline = [], time.monotonic() + PATIENCE
    while not enough(states):
        assert time.monotonic() < deadline, states
        texts = page.locator(f"{LIVE} pre").all_inner_texts()
        figure = page.locator(f"{LIVE} img").first
        source = figure.get_attribute("src") if figure.count() else None
        state = (" ".join(texts), source)
        if texts and (not states or states[-1] != state):
            states.append(state)
        page.wait_for_timeout(100)
    return states


def shown(states, total):
    """The updates that each state of the progress says are done, of `total`."""
    found = (re.search(rf"([\d,]+) of {total:,} updates", text) for text, _ in states)
    return [int(m[1].replace(",", "")) for m in found if m]


def test_it_runs_to_the_end_and_the_figure_changes_while_it_trains(lab):
    choose(lab, "Run", "Run All Cells$")
    states = watched(lab, lambda states: states and "100%" in states[-1][0])
    training = {source for text, source in states if source and "100%" not in text}
    assert len(training) >= 2, [text for text, _ in states]
    assert any(re.search(r"\d:\d\d left", text) for text, _ in states)
    until_idle(lab)
    assert lab.locator(f"{LIVE} img").first.get_attribute("src") not in training
    table = lab.locator(".jp-RenderedHTML table").last
    table.wait_for()
    assert "mine" in table.inner_text()
    assert lab.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert {url.split("/")[2].split(":")[0] for url in lab.asked if url.startswith("http")} == {"127.0.0.1"}


def test_what_it_saves_exports_to_a_page_without_scripts(lab, explore):
    choose(lab, "File", "Save Notebook")
    deadline = time.monotonic() + PATIENCE
    while "image/svg+xml" not in explore.read_text() or "crossings" not in explore.read_text():
        assert time.monotonic() < deadline
        lab.wait_for_timeout(200)
    executed = json.loads(explore.read_text())
    assert "widgets" not in executed["metadata"]
    assert "widget-view" not in explore.read_text()
    outputs = [len(cell["outputs"]) for cell in executed["cells"] if "Progress(" in "".join(cell["source"])]
    assert outputs == [2]  # the bar and the figure, each in its last state
    export_html(explore, explore.with_suffix(".html"))
    text = explore.with_suffix(".html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert re.findall(r'<svg role="img" aria-label="(.{0,30})"', text) == []  # every figure says what it shows
    assert len(re.findall(r"<b>Figure \d\. </b>\w{3}", text)) == text.count('class="picture"') == 4
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", text) == []


def states_in(checkpoints):
    """The names of what a folder of checkpoints holds, but for the locks."""
    return [path.name for path in checkpoints.iterdir() if path.suffix != ".lock"]


def test_interrupting_leaves_a_usable_kernel_and_running_again_goes_on(lab, explore):
    checkpoints = explore.parent.parent / "results" / "explore" / "checkpoints"
    lines = [f"{name} = {value!r}" for name, value in (PARAMETERS | {"updates": 700}).items()]
    lines += ["train_fraction = 0.8", "seed = 1", "results = committed = '../results'"]
    put(lab, "modulus = 31", "\n".join(lines))
    choose(lab, "Run", "Run All Cells$")
    interrupted = shown(watched(lab, lambda states: max(shown(states, 700), default=0) >= 100), 700)
    choose(lab, "Kernel", "Interrupt Kernel")
    until_idle(lab)
    assert interrupted[-1] < 700
    lab.locator(".jp-Cell:has-text('KeyboardInterrupt')").first.wait_for()
    assert states_in(checkpoints) == ["mine-seed1.safetensors"]  # and nothing half written
    choose(lab, "Run", "Run All Cells$")
    continued = shown(watched(lab, lambda states: 700 in shown(states, 700)), 700)
    assert min(continued) >= interrupted[-1]  # it went on from the checkpoint
    until_idle(lab)
    assert "mine" in lab.locator(".jp-RenderedHTML table").last.inner_text()


def train_anew(lab, schedule, **settings):
    """Write another schedule and settings and run all cells until the training is in its middle; the states seen."""
    mine = {"batch_size": {"schedule": "mine"}} | settings
    lines = ["from grok_utils.schedules import SCHEDULES", f'SCHEDULES["mine"] = {schedule}', f"mine = {mine}"]
    put(lab, 'SCHEDULES["mine"]', "\n".join(lines))
    choose(lab, "Edit", "Clear Outputs of All Cells$")  # which is where the last run got to
    choose(lab, "Run", "Run All Cells$")
    return watched(lab, lambda states: any(100 <= done < 700 for done in shown(states, 700)))


def test_what_its_one_cell_varies_trains_anew_and_nothing_is_red(lab, explore):
    """After a run that was completed, and after one that was interrupted."""
    plain = lab.locator("[data-mime-type='application/vnd.jupyter.stdout']")
    seen = shown(train_anew(lab, "lambda s, T, lo, hi: lo + (hi - lo) * s / T"), 700)
    assert min(seen) < 100
    assert plain.count() == 0
    choose(lab, "Kernel", "Interrupt Kernel")
    until_idle(lab)
    varied = {"learning_rate": 2.0e-3, "weight_decay": 1.0, "optimizer": "muon", "width": 64}
    seen = shown(train_anew(lab, "lambda s, T, lo, hi: hi - (hi - lo) * s / T", **varied), 700)
    assert min(seen) < 100
    assert plain.all_inner_texts() == [
        "../results/explore/checkpoints/mine-seed1.safetensors was made with other settings: "
        "it is not used, the run starts again\n"
    ]
    watched(lab, lambda states: 700 in shown(states, 700))
    until_idle(lab)
    assert "mine" in lab.locator(".jp-RenderedHTML table").last.inner_text()
    assert lab.locator(".jp-Cell:has-text('Error')").count() == 0
    assert lab.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert states_in(explore.parent.parent / "results" / "explore" / "checkpoints") == []


def test_run_ipynb_opened_by_hand_leaves_what_papermill_leaves(lab, address, project):
    lab.goto(address.replace("explore.ipynb?", "run.ipynb?reset&"))
    lab.locator(".jp-Cell:has-text('write_records(result)')").first.wait_for()
    until_idle(lab)
    choose(lab, "Run", "Run All Cells$")
    lab.locator(".jp-Cell:has-text('crossings(frame)') table").wait_for()
    until_idle(lab)
    assert lab.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    make = ["make", "run", "STUDY=quick", "SCHEDULE=linear", "SEED=0", "RESULTS=elsewhere"]
    subprocess.run(make, cwd=project, env=environment(), check=True)
    (by_hand, about), (made, about_made) = (
        read_record(project / results / "quick" / "records" / "linear-seed0.parquet")
        for results in ("results", "elsewhere")
    )
    assert by_hand.equals(made)
    assert about.keys() == about_made.keys()
    assert {name for name in about if about[name] != about_made[name]} <= {"made"}
    (one,), (other,) = about["made"], about_made["made"]
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} <= {"started", "seconds"}
