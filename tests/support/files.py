"""Folders that cannot be written to."""

import contextlib
import subprocess

import pytest


@contextlib.contextmanager
def read_only(folder):
    """A folder that not even root can write to."""
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a checkpoint that was read is mapped


def mount(*arguments):
    """Mount, or skip the test where that is not allowed."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs a file system of its own, and mount says: {done.stderr.strip()}")
