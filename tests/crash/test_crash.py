"""The crash harnesses in brief: a few draws of each with a fixed seed, so that every change meets them.

The full runs are scripts of their own: see kill.py, rescale.py and damage.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once", "none"])
def test_killed_job_keeps_the_promise_of_its_mode(mode: str) -> None:
    run("kill.py", "rows", "--runs", 3, "--seed", 1, "--mode", mode)


@pytest.mark.parametrize("job", ["count", "running", "flights"])
def test_killed_job_gives_the_same_output_under_any_parallelism(job: str) -> None:
    run("kill.py", job, "--runs", 3, "--seed", 2, "--parallelism", 1, 2, 3)


def test_damaged_file_is_noticed() -> None:
    run("damage.py", "--job", "count", "--places", 1, "--seed", 3)
