"""Study files and run parameters: what is allowed loads, anything else is told in one line before any work is done."""

import dataclasses
import math
import pathlib
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.inputs import HUGE, PARAMETERS, arm_settings, names, values
from support.studies import TINY, write_study

from grok_utils.errors import BadInput
from grok_utils.pipeline.study_files import load_study, make_run, on_this_machine, run_from_parameters
from grok_utils.studies import Study


def message(call, *arguments, **named):
    """The one line of the BadInput that `call` raises."""
    with pytest.raises(BadInput) as caught:
        call(*arguments, **named)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 1000
    return text


def test_defaults_are_the_protocol_s_and_the_studies_of_the_project_load():
    paper, quick = load_study("paper"), load_study("quick")
    assert [a.name for a in paper.schedules] == ["baseline", "linear", "exponential", "logarithmic", "cyclic"]
    protocol = Study(
        name="paper",
        title=paper.title,
        schedules=paper.schedules,
        seeds=(0, 1, 2),
        operations=("x_plus_y", "x_minus_y", "x_div_y", "permutation"),
        updates=7500,
        modulus=97,
        train_fraction=0.5,
        lo=32,
        hi=512,
        learning_rate=1e-3,
        weight_decay=0.5,
        precision="float32",
    )
    assert paper == protocol == Study(name="paper", title=paper.title, schedules=paper.schedules)
    assert [a.name for a in quick.schedules] == [a.name for a in paper.schedules]
    assert (quick.seeds, quick.operations, quick.lo, quick.hi) == ((0, 1), ("x_plus_y",), 32, 512)


def test_a_mapping_of_arms_with_controls_loads(tmp_path):
    arms = {
        "linear": None,
        "c100": {"schedule": "constant", "batch_size": 10},
        "back": {"schedule": "linear", "control": "reverse", "window": 30},
        "mixed": {"schedule": "linear", "control": "shuffle", "order": 3},
    }
    study = load_study(write_study(tmp_path, schedules=arms, lo=1, hi=16))
    sizes = {a.name: a.batch_sizes(study).tolist() for a in study.schedules}
    assert sizes["linear"] == [3, 6, 8, 11, 13, 16]
    assert sizes["c100"] == [10] * 6
    assert sizes["back"] == [8, 6, 3, 11, 13, 16]
    assert sorted(sizes["mixed"]) == sizes["linear"] != sizes["mixed"]


BAD = [
    # setting, value, what the line says besides the setting
    ("schedules", ["wobbly"], "'wobbly' is not a schedule (known: baseline, linear"),
    ("schedules", [], "is not a non-empty list or mapping of arms"),
    ("schedules", "linear", "'linear' is not a non-empty list or mapping of arms"),
    ("schedules", ["linear", "linear"], "free of repetitions"),
    ("schedules", [True], "True is not a name"),
    ("schedules", [HUGE], "is not a name"),
    ("schedules", {"../up": {"schedule": "linear"}}, "'../up' is not a name"),
    ("schedules", {"-o": {"schedule": "linear"}}, "'-o' is not a name"),
    ("schedules", {"a\nb": {"schedule": "linear"}}, "'a\\nb' is not a name"),
    ("schedules", {"x" * 300: {"schedule": "linear"}}, "at most 50"),
    ("schedules", {"linear": 3}, "3 is not a mapping"),
    ("schedules", {"linear": {"speed": 3}}, "'speed' is not a setting of an arm"),
    ("schedules", {"a": {"schedule": ["linear"]}}, "['linear'] is not a schedule"),
    ("schedules", {"a": {"schedule": "constant"}}, "batch_size: None is not a batch size"),
    ("schedules", {"a": {"schedule": "constant", "batch_size": 17}}, "17 is not a batch size, a whole number from 1"),
    ("schedules", {"a": {"schedule": "linear", "batch_size": 8}}, "only `constant`"),
    ("schedules", {"a": {"schedule": "linear", "control": "backwards"}}, "'backwards' is not one of reverse, shuffle"),
    ("schedules", {"a": {"schedule": "linear", "control": "reverse", "window": 55}}, "55 is not a multiple of 10"),
    ("schedules", {"a": {"schedule": "linear", "control": "reverse", "window": 70}}, "to updates = 60"),
    ("schedules", {"a": {"schedule": "linear", "control": "shuffle", "order": -1}}, "order: -1"),
    ("operations", ["x_times_y"], "'x_times_y' is not one of x_plus_y, x_minus_y"),
    ("operations", [], "[] is not a non-empty list"),
    ("operations", "x_plus_y", "is not a list"),
    ("operations", ["x_plus_y", "x_plus_y"], "free of repetitions"),
    ("operations", [["x_plus_y"]], "is not one of"),
    ("precision", "float16", "'float16' is not one of float32, "),
    ("precision", None, "None is not one of float32, "),
    ("modulus", 91, "91 is not a prime"),
    ("modulus", 1, "1 is not a prime"),
    ("modulus", -7, "-7 is not a prime"),
    ("modulus", 97.0, "97.0 is not a prime"),
    ("modulus", "97", "'97' is not a prime"),
    ("modulus", HUGE, "is not a prime"),
    ("train_fraction", 0, "0 is not a number between 0 and 1"),
    ("train_fraction", 1, "1 is not a number between 0 and 1"),
    ("train_fraction", -0.5, "-0.5 is not a number between 0 and 1"),
    ("train_fraction", math.nan, "nan is not a number between 0 and 1"),
    ("train_fraction", "0.5", "'0.5' is not a number between 0 and 1"),
    ("train_fraction", True, "True is not a number between 0 and 1"),
    ("train_fraction", 0.001, "a training and a validation pair of the 121 of x_plus_y"),
    ("lo", 0, "0 is not a batch size, a whole number from 1 to hi = 16"),
    ("lo", 17, "17 is not a batch size, a whole number from 1 to hi = 16"),
    ("lo", 4.5, "4.5 is not a batch size"),
    ("hi", 10**10, "10000000000 is not a batch size, a whole number from 1 to 2147483647"),
    ("hi", True, "True is not a batch size"),
    ("seeds", [], "[] is not a non-empty list of whole numbers"),
    ("seeds", [0, 1, 0], "[0, 1, 0] is not free of repetitions"),
    ("seeds", [-1], "[-1] is not"),
    ("seeds", [True], "[True] is not"),
    ("seeds", [0.0], "[0.0] is not"),
    ("seeds", ["0"], "['0'] is not"),
    ("seeds", 3, "3 is not a list"),
    ("seeds", [HUGE], "is not a non-empty list of whole numbers from 0 to 2147483647"),
    ("updates", 55, "55 is not a whole number from 10 to 1000000 that is a multiple of 10"),
    ("updates", 0, "0 is not a whole number"),
    ("updates", 60.0, "60.0 is not a whole number"),
    ("updates", "60", "'60' is not a whole number"),
    ("updates", 10**9, "1000000000 is not"),
    ("schedule_length", 55, "55 is not a whole number"),
    ("learning_rate", "1e-3", "'1e-3' is not a number from 0 to 1 (write 1.0e-3)"),
    ("learning_rate", math.inf, "inf is not a number"),
    ("learning_rate", -1e-3, "-0.001 is not a number"),
    ("learning_rate", HUGE, "is not a number"),
    ("rate_factor", "sqrt", "'sqrt' is not one of constant, "),
    ("weight_decay", math.nan, "nan is not a number from 0 to 100"),
    ("weight_decay", "half", "'half' is not a number from 0 to 100"),
    ("title", 5, "5 is not one line of text"),
    ("title", "a\nb", "is not one line of text"),
    ("title", "\ud800", "is not one line of text"),
]


@pytest.mark.parametrize(("setting", "value", "said"), BAD, ids=lambda v: str(v)[:30])
def test_a_setting_that_is_not_allowed_is_named_with_its_value_and_what_is(tmp_path, setting, value, said):
    text = message(load_study, write_study(tmp_path, **{setting: value}))
    assert said in text
    assert setting.rstrip("s") in text


def test_numbers_that_yaml_reads_as_strings_are_told(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("schedules: [linear]\nlearning_rate: 1e-3\n")
    assert message(load_study, str(path)) == ("learning_rate: '1e-3' is not a number from 0 to 1 (write 1.0e-3)")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"schedules: [linear", "cannot be read as YAML"),
        (b"\xff\xfe\x00schedules", "cannot be read as YAML"),
        (b"- linear\n", "is not a YAML mapping"),
        (b"", "is not a YAML mapping"),
        (b"schedules: [linear]\nupdates: 60\nupdates: 70\n", "'updates' is given twice"),
        (b"schedules: {a: {schedule: linear, order: 1, order: 2}}\n", "'order' is given twice"),
        (b"schedules: [linear]\nlerning_rate: 0.1\n", "'lerning_rate' is not a setting (allowed: schedules, title"),
        (b"schedules: [linear]\nname: other\n", "'name' is not a setting"),
        (b"schedules: [linear]\n1: 2\n", "1 is not a setting"),
        (b"seeds: [0]\n", "schedules: None is not given"),
        (b"schedules: !!python/object/apply:os.system ['touch executed']\n", "cannot be read as YAML"),
        (b"schedules: !!python/name:os.system\n", "cannot be read as YAML"),
        (b"schedules: [linear]\nupdates: 2001-13-45\n", "cannot be read as YAML"),
        (b"schedules: !!set [linear]\n", "cannot be read as YAML"),
        (b"schedules: [linear]\nupdates: !!timestamp soon\n", "cannot be read as YAML"),
        (b"schedules: [linear]\nupdates: " + b"9" * 5000, "cannot be read as YAML"),
        (b"schedules: [linear]\nupdates: 0x" + b"f" * 5000, "updates: a huge number is not"),
        (b"schedules: " + b"[" * 5000, "cannot be read as YAML"),
        (b"schedules: &a [*a]\n", "is not a name"),
    ],
    ids=range(19),
)
def test_an_unreadable_study_file_is_told(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.yaml"
    path.write_bytes(content)
    assert said in message(load_study, str(path))
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]


def test_merged_keys_are_no_repetition(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("schedules:\n  a: &a {schedule: linear, order: 1}\n  b: {<<: *a, order: 2}\n")
    assert [(arm.name, arm.order) for arm in load_study(str(path)).schedules] == [("a", 1), ("b", 2)]


def test_a_study_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    path = write_study(tmp_path)

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(pathlib.Path, "read_text", refused)  # nothing is refused to root
    assert message(load_study, path).startswith(f"study: Permission denied: '{path}': change its owner or its rights")


@pytest.mark.parametrize("study", ["nowhere", "nowhere.yaml", "../quick", "", "x" * 300, "a\0b", None, 3, ["quick"]])
def test_a_study_that_is_not_there_is_told(study):
    assert message(load_study, study).startswith("study: ")


def test_a_study_cannot_have_the_name_of_another_folder_of_results(tmp_path):
    text = message(load_study, write_study(tmp_path, name="evidence"))
    assert text.startswith("study: 'evidence' is not a name for a study: results/evidence")
    assert message(load_study, "evidence").endswith("; make evidence builds the page of the claims")
    assert "make evidence" not in message(load_study, "nowhere")


@pytest.mark.parametrize("name", ["..", ".hidden", "-x", "a b", "x" * 60])
def test_a_study_s_name_cannot_lead_out_of_the_results(tmp_path, name):
    text = message(load_study, write_study(tmp_path, name=name))
    assert text.startswith(f"study: {name!r} is not a name of at most 50 letters")


def test_a_schedule_that_overflows_is_told(tmp_path):
    path = write_study(tmp_path, schedules=["exponential"], updates=10_000, schedule_length=10)
    try:  # either it stays at hi, or the line names it
        study = load_study(path)
    except BadInput as error:
        assert str(error).startswith("schedules.exponential: ")
    else:
        assert study.schedules[0].batch_sizes(study)[-1] == study.hi


BAD_PARAMETERS = [
    ("schedule", "exponential", "schedule: 'exponential' is not an arm of study tiny (baseline, linear)"),
    ("schedule", ["linear"], "schedule: ['linear'] is not an arm"),
    ("device", "gpu", "device: 'gpu' is not one of auto, cpu, cuda"),
    ("device", ["cpu"], "device: ['cpu'] is not one of"),
    ("precision", "fp8", "precision: 'fp8' is not one of float32, "),
    ("seeds", [], "seeds: [] is not a non-empty list"),
    ("seeds", "0", "seeds: '0' is not a non-empty list"),
    ("seeds", [1, 1], "seeds: [1, 1] is not free of repetitions"),
    ("threads", 0, "threads: 0 is not a whole number from 1"),
    ("threads", "2", "threads: '2' is not"),
    ("results", 3, "results: 3 is not the path of a folder"),
    ("results", "", "results: '' is not the path of a folder"),
    ("results", "a\0b", "results: 'a\\x00b' is not the path of a folder"),
    ("study", None, "study: None is not a study's name"),
    ("lerning_rate", 0.1, "parameter: 'lerning_rate' is not known (allowed: study, schedule, seeds, results, device"),
]


@pytest.mark.parametrize(("name", "value", "said"), BAD_PARAMETERS)
def test_a_parameter_that_is_not_allowed_is_named(tmp_path, name, value, said):
    namespace = PARAMETERS | {"study": write_study(tmp_path)} | {name: value}
    assert message(run_from_parameters, namespace).startswith(said)


@pytest.mark.parametrize("name", ["study", "schedule", "seeds"])
def test_a_parameter_without_default_that_is_missing_is_named(tmp_path, name):
    namespace = PARAMETERS | {"study": write_study(tmp_path)}
    del namespace[name]
    assert message(run_from_parameters, namespace) == f"parameter: '{name}' is not given"


def test_cuda_where_there_is_none_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = make_run(write_study(tmp_path), "linear", [0], device="cuda")
    text = message(on_this_machine, run)
    assert text == "device: 'cuda' is not available here, PyTorch sees no CUDA GPU (allowed: auto, cpu)"


def test_a_run_that_a_notebook_makes_itself_is_checked_too(tmp_path):
    run = dataclasses.replace(make_run(write_study(tmp_path), "linear", [0]), device="gpu")
    text = message(on_this_machine, run)
    assert text == "device: 'gpu' is not one of auto, cpu, cuda"


def test_tf32_without_a_gpu_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    expected = "precision: 'tf32' is not available on a CPU (allowed: float32, bf16)"
    run = make_run(write_study(tmp_path), "linear", [0], precision="tf32")
    assert message(on_this_machine, run) == expected
    assert message(make_run, write_study(tmp_path), "linear", [0], device="cpu", precision="tf32") == expected


def test_a_run_that_cannot_fit_into_memory_is_told_with_what_it_needs(tmp_path):
    huge = {"hi": 10**9, "updates": 10**6, "schedule_length": 1000}
    text = message(on_this_machine, make_run(write_study(tmp_path, **huge), "baseline", [0], device="cpu"))
    start = r"seeds: a stack of 2 members needs some 75,9\d\d\.\d GiB of memory, more than the [\d,.]+ here, "
    assert re.fullmatch(
        start + r"which hold about 0: take smaller batches, fewer cells or operations, or fewer runs at a time \(-j\)",
        text,
    )
    run = make_run(write_study(tmp_path, hi=10**5), "baseline", list(range(10**5)), device="cpu")
    text = message(on_this_machine, run)
    assert re.search(r"^seeds: a stack of 200000 members needs .* about \d+: take (SEEDS_PER_RUN=\d+|smaller)", text)
    assert on_this_machine(make_run(write_study(tmp_path, hi=4096), "baseline", [0], device="cpu"))


def test_the_parameters_cell_can_be_run_again_in_a_notebook_that_has_gone_on(tmp_path):
    namespace = PARAMETERS | {"study": write_study(tmp_path), "_": 1, "In": [], "run_from_parameters": None}
    first = run_from_parameters(namespace)
    namespace |= {"run": first, "alt": "text", "schedule": "baseline"}
    assert run_from_parameters(namespace).arm.name == "baseline"


def loads_or_says_why(path):
    try:
        load_study(path)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(names, values, max_size=3)
    | st.fixed_dictionaries({"schedules": st.dictionaries(st.text(max_size=3), arm_settings, max_size=2)})
)
def test_any_mapping_loads_or_is_refused_in_one_line(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(TINY | changes, allow_unicode=True), encoding="utf-8")
    loads_or_says_why(str(path))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="schedules: [linear]{}&*!|-<>\n\t'\"%@", max_size=60).map(str.encode))
def test_any_bytes_load_or_are_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    loads_or_says_why(str(path))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["schedule", "seeds", "device", "threads", "precision", "results"]), values))
def test_any_parameters_make_a_run_or_are_refused_in_one_line(tmp_path_factory, changes):
    namespace = PARAMETERS | {"study": write_study(tmp_path_factory.getbasetemp())} | changes
    try:
        run_from_parameters(namespace)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
