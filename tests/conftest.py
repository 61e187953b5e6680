"""A tiny study for every test that needs one: modulus 11, two operations, two arms, 60 updates at batches up to 16."""

import os
import signal

from support.studies import write_study

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: kernels and sub-processes inherit it

import pytest
import torch

from grok_utils.pipeline.parameters import make_run
from grok_utils.store.records import write_records
from grok_utils.training import train

signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job begins with it ignored


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The results of a completed run of arm `linear`, seeds 0 and 1, without any notebook. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    run = make_run(write_study(folder), "linear", [0, 1], str(folder / "results"), "cpu")
    result = train(run)
    rows = write_records(result)
    return run, result, rows
