"""Any study file and command line through the whole command: told in one line, or right; nothing is written."""

import contextlib
import io
import os
import string

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.inputs import HUGE, PARAMETERS, arm_settings, courses, grids, names, values
from support.studies import TINY, write_study

from grok_utils.__main__ import main
from grok_utils.errors import BadInput
from grok_utils.pipeline.parameters import run_from_parameters
from grok_utils.pipeline.study_files import OF_STUDY, load_study
from grok_utils.studies import DEFAULTS, HYPER

EXAMPLES = settings(max_examples=600, deadline=None)
fields = [*OF_STUDY, "arms", "schedules", "grid", *DEFAULTS]
numbers = st.integers() | st.floats() | st.sampled_from([10**6, 10**9, HUGE, -HUGE, 0, -0.0, 1e308, 5e-324])
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def answer(folder, *arguments):
    """The exit code and stderr of a command in the empty `folder`, which it leaves empty."""
    folder.mkdir(exist_ok=True)
    before, out, err = os.getcwd(), io.StringIO(), io.StringIO()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(a) for a in arguments])
            except SystemExit as stop:
                code = stop.code
        assert list(folder.iterdir()) == []
    finally:
        os.chdir(before)
    return code, err.getvalue()


def told_or_right(folder, *arguments):
    code, err = answer(folder, *arguments)
    assert (code, err) == (0, "") or (code in (1, 2) and len(err.splitlines()) == 1 and len(err) < 1500), (code, err)
    return code, err


def place(tmp_path_factory):
    return tmp_path_factory.getbasetemp() / "any.yaml", tmp_path_factory.getbasetemp() / "empty"


@EXAMPLES
@given(st.dictionaries(names, values | numbers, min_size=1, max_size=3))
def test_any_settings(tmp_path_factory, changes):
    path, folder = place(tmp_path_factory)
    path.write_text(yaml.safe_dump(TINY | changes, allow_unicode=True), encoding="utf-8")
    told_or_right(folder, "plan", path, "--device", "cpu")


@EXAMPLES
@given(st.sampled_from(fields), values | numbers | courses | grids)
def test_one_setting_that_is_refused_is_named(tmp_path_factory, field, value):
    path, _ = place(tmp_path_factory)
    path.write_text(yaml.safe_dump(TINY | {field: value}, allow_unicode=True), encoding="utf-8")
    try:
        study = load_study(str(path))
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).startswith((f"{field}: ", f"{field}.", *(["arms: "] if field == "schedules" else [])))
    else:
        if field in ("title", "updates"):
            assert getattr(study, field) == value
        if field in DEFAULTS and field not in (*HYPER, "operations"):
            assert {getattr(arm.settings, field) for arm in study.arms} == {value}


@EXAMPLES
@given(st.dictionaries(words, arm_settings, max_size=2))
def test_any_arms(tmp_path_factory, arms):
    path, folder = place(tmp_path_factory)
    path.write_text(yaml.safe_dump(TINY | {"arms": arms}, allow_unicode=True), encoding="utf-8")
    told_or_right(folder, "plan", path, "--device", "cpu")


TAGS = ["!!python/object/apply:os.system", "!!python/object:os.Popen", "!!python/name:os.system", "!!binary", "!!set"]
TAGS += [
    "!!timestamp",
    "!!omap",
    "!!float",
    "!!python/tuple",
    "!!int",
    "!!bool",
    "!unknown",
    "!!python/object/new:subprocess.Popen",
]


@EXAMPLES
@given(
    st.sampled_from(fields), st.sampled_from(TAGS), st.sampled_from(["touch made", "[touch made]", "{a: 1}", "1", ""])
)
def test_a_yaml_tag_makes_no_object(tmp_path_factory, field, tag, value):
    path, folder = place(tmp_path_factory)
    left_out = {field, "arms"} if field == "schedules" else {field}
    plain = yaml.safe_dump({k: v for k, v in TINY.items() if k not in left_out})
    path.write_text(f"{plain}{field}: {tag} {value}\n", encoding="utf-8")
    code, _ = told_or_right(folder, "plan", path, "--device", "cpu")
    assert code == 2 or not tag.startswith(("!!python", "!u"))


@EXAMPLES
@given(st.sampled_from(sorted(TINY)))
def test_a_repeated_key_is_named(tmp_path_factory, field):
    path, folder = place(tmp_path_factory)
    path.write_text(yaml.safe_dump(TINY) + yaml.safe_dump({field: TINY[field]}), encoding="utf-8")
    code, err = told_or_right(folder, "plan", path)
    assert code == 2 and f"{field!r} is given twice" in err


@EXAMPLES
@given(st.sampled_from(["../", "/", "..", "a/../../", "./", "~/", "\\", "%2e%2e/"]), words)
def test_a_name_that_leads_elsewhere(tmp_path_factory, start, rest):
    _, folder = place(tmp_path_factory)
    for asked in (start + rest, f"{start}{rest}.yaml"):
        code, err = told_or_right(folder, "plan", "--", asked)
        assert code == 2 and err.startswith("study: ")


commands = st.sampled_from(["plan", "run", "status", "report", "verify", "pdf"])
options = st.sampled_from(
    ["--results", "--precision", "--device", "--threads", "--seeds", "--schedule", "--seeds-per-run"]
)
said = st.text(string.printable, max_size=8) | st.sampled_from(
    ["linear", "0", "0,1", "cpu", "cuda", "-1", "nan", "1e9"]
)


@EXAMPLES
@given(commands, st.lists(st.tuples(options, said), max_size=4))
def test_any_command_line_on_a_study_that_is_wrong(tmp_path_factory, command, given_options):
    _, folder = place(tmp_path_factory)
    path = write_study(tmp_path_factory.getbasetemp(), "wrong", updates=55)
    code, _ = told_or_right(folder, command, path, *(f"{name}={value}" for name, value in given_options))
    assert code == 2


@EXAMPLES
@given(
    st.dictionaries(
        st.sampled_from(["study", "schedule", "seeds", "results", "device", "threads", "precision", "lerning_rate"]),
        values | numbers,
        min_size=1,
    )
)
def test_any_parameters_cell(tmp_path_factory, changes):
    namespace = PARAMETERS | {"study": write_study(tmp_path_factory.getbasetemp())} | changes
    try:
        run = run_from_parameters(namespace)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
        assert any(str(error).startswith(name) for name in (*changes, "parameter", "seeds", "study", "schedule"))
    else:
        assert "lerning_rate" not in changes and run.folder.parent == run.results
        assert all(run.folder in p.parents for p in (run.record(0), run.checkpoint))
