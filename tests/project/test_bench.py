"""The bench's count of operations against one by hand, its courses, its reference loop, and its times of `make all`."""

import math
import random

import numpy as np
import pandas as pd
import pytest
from support.studies import run_of, write_study

from benchmarks import commands
from benchmarks.cpu import Examples, UsualLoop, at_sizes, costs_of_measures, forward_cost
from grok_utils.engine.trainer import Trainer
from grok_utils.measures import MEASURES
from grok_utils.studies import ExecutionPath, Shape
from grok_utils.tasks import make_task


@pytest.mark.parametrize("batch", [32, 97, 98, 512])
@pytest.mark.parametrize("shape", [Shape(128, 4, 2), Shape(64, 2, 1), Shape(32, 4, 4)])
def test_cost_is_that_of_the_products_that_a_forward_pass_needs_and_of_what_they_take_and_make(batch, shape):
    # Multiply-adds in units of width²: block 1, queries, keys and values of 2n + 2 rows, 3 each, and 1 + 4 + 4 for each
    # of the 2n + 2B rows; the last block, B queries, keys and values of 2n + 2B rows, and 9B; between them 3 + 9 for
    # each row; then the head. A block that is the first and the last has 9B.
    n, (width, _, blocks) = min(97, batch), shape
    whole = 2 * n + 2 * batch
    rows = 3 * (2 * n + 2) + 9 * batch
    if blocks > 1:
        rows += 9 * whole + 12 * whole * (blocks - 2) + batch + 2 * whole
    # What they take and make, in units of width: queries, keys and values 1 + 3, the rest 1 + 1, 1 + 4 and 4 + 1; where
    # only one position is read, a query 1 + 1 and what it sees 1 + 2.
    passed = 4 * (2 * n + 2) + 12 * batch
    if blocks > 1:
        passed += 12 * whole + 16 * whole * (blocks - 2) + 2 * batch + 3 * whole
    flops = 2 * (width * width * rows + width * 97 * batch)
    assert forward_cost(batch, 97, shape) == (flops, width * passed + (width + 97) * batch)


def test_usual_loop_learns():
    random.seed(0)  # the loop draws its examples from it
    task = make_task("x_plus_y", 0, modulus=7, train_fraction=0.8)
    loop = UsualLoop(task)
    losses = [loop.run_block(32)[0] for _ in range(6)]
    assert all(map(math.isfinite, losses)) and losses[-1] < 0.75 * losses[0]


def test_usual_examples_are_the_tasks_own():
    task = make_task("permutation", 0)
    rows = set(map(tuple, task.train.tolist()))
    for (tokens, result), _ in zip(Examples(task.train), range(100), strict=False):
        x, operator, y, equals = tokens.tolist()
        assert (operator, equals) == (0, 1) and (x - 2, y - 2, result.item()) in rows


def test_courses_are_the_runs_but_for_the_batch_sizes(tmp_path):
    found = at_sizes(run_of(tmp_path, learning_rate=2e-3), np.array([7, 9]))
    assert found.batch_size.tolist() == [[7, 7], [9, 9]]
    assert found.learning_rate.tolist() == [[2e-3] * 2] * 2


def test_every_measure_has_a_cost(tmp_path):
    run = run_of(tmp_path)
    engine = Trainer(run.tasks(), run.courses, ExecutionPath("cpu", "float32", False, 1))
    costs = costs_of_measures(engine, 1, pd.Series({32: 50.0, 512: 200.0})).set_index("measures")
    assert list(costs.index) == [*MEASURES, " ".join(MEASURES)] and (costs > 0).all(axis=None)
    assert costs["ms"].iloc[-1] == pytest.approx(costs["ms"].iloc[:-1].sum())
    assert np.allclose(costs["percent_32"], 2 * costs["ms"]) and np.allclose(costs["percent_512"], costs["ms"] / 2)


def test_a_make_all_is_timed_from_the_command_to_its_page(tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "FIRST", 0)
    monkeypatch.setenv("MAKEFLAGS", "DEVICE=nothing")  # as under `make bench`
    found = commands.time_all(
        write_study(tmp_path, arms={"baseline": {}}, seeds=[0]), tmp_path / "there", {}, DEVICE="cpu"
    )
    assert (found["study"], found["models"]) == ("tiny", 2)
    assert (tmp_path / "there" / "tiny" / "report.html").exists()
    assert 0 < found["trains_from_s"] < found["trains_to_s"] < found["to_page_s"]
    assert found["longest_run_s"] == pytest.approx(found["trains_to_s"] - found["trains_from_s"])
    assert found["percent"] == pytest.approx(100 * found["longest_run_s"] / found["to_page_s"], abs=2)
    assert found["models_an_hour"] == pytest.approx(2 * 3600 / found["to_page_s"])


def test_a_make_all_that_fails_says_what_make_said(tmp_path, capfdbinary):
    with pytest.raises(SystemExit, match="2"):
        commands.time_all("nowhere.yaml", tmp_path, {})
    assert b"nowhere.yaml" in capfdbinary.readouterr().err


@pytest.mark.parametrize("code", [0, 1])
def test_mps_is_there_for_what_comes_after_the_first_and_is_ended(tmp_path, monkeypatch, code):
    calls, given = tmp_path / "calls", []
    told = 'echo "$CUDA_MPS_PIPE_DIRECTORY $1$(test "$1" || cat)"'
    (tmp_path / commands.MPS).write_text(f"#!/bin/sh\n{told} >> {calls}\nexit {code}\n")
    (tmp_path / commands.MPS).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(commands, "time_all", lambda study, folder, env, **_: given.append(env) or {"study": study})
    hows = [row["how"] for row in commands.time_commands()]
    under = [env.get("CUDA_MPS_PIPE_DIRECTORY") for env in given]
    first = ["nothing compiled before", "compiled before"]
    if code:
        assert hows == [*first, "alone, tf32"] and under == [None] * 3
        assert calls.read_text().split()[1:] == ["-d"]
    else:
        assert hows == [*first, "under MPS", "under MPS, tf32"] and under == [None, None, under[2], under[2]]
        assert calls.read_text().split() == [under[2], "-d", under[2], "quit"]
    assert len({env["TRITON_CACHE_DIR"] for env in given}) == 1
