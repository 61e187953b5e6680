"""Tiny studies and runs of them."""

import os
import random
import signal

import pytest
import yaml

from grok_utils import training
from grok_utils.__main__ import main
from grok_utils.pipeline.parameters import make_run
from grok_utils.training import train


def small(*names, lo=4, hi=16):
    """Arms of these names at small batch sizes: a constant `hi` for the baseline, else the schedule of the name."""
    return {n: {"batch_size": hi if n == "baseline" else {"schedule": n, "lo": lo, "hi": hi}} for n in names}


TINY = {
    "arms": small("baseline", "linear"),
    "seeds": [0, 1],
    "operations": ["x_plus_y", "x_minus_y"],
    "modulus": 11,
    "updates": 60,
}


def write_study(folder, name="tiny", **changes):
    """The path of a study file that says what TINY says but for `changes`; the short form `schedules` replaces arms."""
    path = folder / f"{name}.yaml"
    tiny = {k: v for k, v in TINY.items() if k != "arms" or "schedules" not in changes}
    path.write_text(yaml.safe_dump(tiny | changes, sort_keys=False), encoding="utf-8")
    return str(path)


def run_of(folder, schedule="linear", seeds=(0,), **changes):
    return make_run(write_study(folder, **changes), schedule, list(seeds), str(folder / "results"), "cpu")


def interrupted(run, monkeypatch, after=2, signals=(signal.SIGINT,)):
    """Train `run` anew until Ctrl-C, or `signals`, come at the end of block `after`; its checkpoint remains."""
    run.checkpoint.unlink(missing_ok=True)  # of a slow machine, which may leave one behind a run that was completed
    monkeypatch.setattr(training, "PROGRESS_SECONDS", -1.0, raising=False)

    def stop(updates, logs):
        if updates == after * 10:
            for number in signals:
                os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        train(run, stop)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def mutate(content, seed):
    """One seeded mutation: a byte changed, a truncation, an extension, or nothing left."""
    rng = random.Random(seed)
    content, at = bytearray(content), rng.randrange(len(content))
    if seed % 2:  # half of them in the header, where the metadata is
        at = rng.randrange(min(3000, len(content)))
    kind = rng.choice(["flip"] * 6 + ["truncate", "extend", "empty"])
    if kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "truncate":
        del content[at:]
    elif kind == "extend":
        content += rng.randbytes(1 + rng.randrange(100))
    else:
        content.clear()
    return bytes(content)


def outcome(capsys, *arguments):
    """Exit code and the lines on stdout and stderr of a command."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return code, said.out.splitlines(), said.err.splitlines()
