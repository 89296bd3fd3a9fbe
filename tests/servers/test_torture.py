"""A few runs of the crash matrix with real servers; the full ones are ``torture.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kafka
import postgres
import pytest
import s3
from conftest import skip_if_missing

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def all_servers() -> None:
    """See to it that there are servers."""
    for reason in (kafka.missing(), postgres.missing(), s3.missing()):
        skip_if_missing(reason)


def run(*arguments: object, script: str = "") -> subprocess.CompletedProcess[str]:
    start = ["-c", script] if script else ["torture.py"]
    command = [sys.executable, *start, *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=400)


def test_no_run_is_wrong() -> None:
    # One of each job and, between them, most faults; another machine takes a lease over in the long runs only.
    cells = ["* / copy / kill", "* / window / server stopped", "* / append / connections", "* / upsert / timeouts", "* / prepared / kill at step",
             "* / cdc / kill", "* / files / step fails", "* / state / kill at step", "* / delta / disk full", "* / cdc / server killed"]  # fmt: skip
    done = run("--runs", 20, "--seed", 4, "--cells", *cells)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_sink_that_sends_messages_twice_is_noticed() -> None:
    sabotage = """
import torture, matrix_jobs

def twice(self, run):
    stream = matrix_jobs.wide(matrix_jobs.from_topic(run))
    stream = stream.flat_map(lambda row: [row, row] if row["n"] % 100 == 7 else [row], schema=stream.schema)
    return stream.write_kafka(run.address("kafka"), run.target, format="json", key="n", delivery="at_least_once")

matrix_jobs.Copy.declare = twice
torture.main()
"""
    done = run("--runs", 6, "--seed", 3, "--cells", "kafka / copy / kill", script=sabotage)
    assert done.returncode == 1 and "surplus" in done.stdout, done.stdout + done.stderr
