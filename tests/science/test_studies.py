"""A run's name, where its files are, and the learning rate of each of its blocks."""

import pytest
from support.studies import write_study

from grok_utils.pipeline.parameters import make_run


def test_run_names_seeds_and_paths(tmp_path):
    study = write_study(tmp_path)
    names = {
        tuple(seeds): make_run(study, "linear", seeds, device="cpu").name
        for seeds in ([3], [2, 0, 1], [5, 0], list(range(0, 400, 2)))
    }
    assert list(names.values())[:3] == ["linear-seed3", "linear-seeds0-2", "linear-seeds0,5"]
    assert max(map(len, names.values())) < 200  # a file's name
    run = make_run(study, "linear", [2, 0], results=str(tmp_path))
    assert run.seeds == (0, 2)
    assert run.record(2) == tmp_path / "tiny" / "records" / "linear-seed2.parquet"


def test_learning_rate_follows_its_factor_block_by_block(tmp_path):
    study = write_study(tmp_path, learning_rate=2e-3, rate_factor="mirror_linear", updates=100)
    run, linear = (make_run(study, arm, [0], tmp_path) for arm in ("baseline", "linear"))
    assert run.rates == pytest.approx([2e-3 * (4 / b) ** 0.5 for b in linear.batch_sizes])
