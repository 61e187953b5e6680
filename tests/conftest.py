"""A tiny study for every test that needs one: modulus 11, two operations, two arms, 60 updates at batches up to 16."""

import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: kernels and sub-processes inherit it

import pytest
import torch
import yaml

from grok_utils.parameters import make_run
from grok_utils.records import write_records
from grok_utils.training import train

signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job begins with it ignored

TINY = {
    "schedules": ["baseline", "linear"],
    "seeds": [0, 1],
    "operations": ["x_plus_y", "x_minus_y"],
    "modulus": 11,
    "updates": 60,
    "lo": 4,
    "hi": 16,
}


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


def write_study(folder, name="tiny", **changes):
    """The path of a study file that says what TINY says but for `changes`."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(TINY | changes), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The results of a completed run of arm `linear`, seeds 0 and 1, without any notebook. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    run = make_run(write_study(folder), "linear", [0, 1], str(folder / "results"), "cpu")
    result = train(run)
    rows = write_records(result)
    return run, result, rows
