"""The crash harnesses in brief: a few draws of each with a fixed seed, so that every change meets them.

The full runs are scripts of their own: see kill.py, rescale.py and damage.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import millstream as mill
from millstream import testing

HERE = Path(__file__).parent


def run(script: str, *arguments: object) -> None:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once", "none"])
def test_killed_job_keeps_the_promise_of_its_mode(mode: str) -> None:
    run("kill.py", "rows", "--runs", 3, "--seed", 1, "--mode", mode)


@pytest.mark.parametrize("mode", ["exactly_once", "at_least_once", "none"])
def test_killed_job_leaves_single_files_whole(mode: str) -> None:
    run("kill.py", "single", "--runs", 4, "--seed", 6, "--mode", mode, "--parallelism", 1, 2)


@pytest.mark.parametrize("job", ["count", "running", "flights"])
def test_killed_job_gives_the_same_output_under_any_parallelism(job: str) -> None:
    run("kill.py", job, "--runs", 3, "--seed", 2, "--parallelism", 1, 2, 3)


@pytest.mark.parametrize("job", ["delta", "delta-keyed", "iceberg", "iceberg-keyed"])
def test_killed_job_leaves_each_row_once_in_a_table_of_a_lake(job: str) -> None:
    pytest.importorskip("deltalake")
    pytest.importorskip("pyiceberg")
    run("stores.py", job, "--runs", 2, "--seed", 1)


def test_damaged_file_is_noticed() -> None:
    run("damage.py", "--job", "count", "--places", 1, "--seed", 3)


def test_crash_matrix_has_no_wrong_run() -> None:
    run("torture.py", "--runs", 300, "--seed", 4)
    run("torture.py", "--runs", 40, "--seed", 5, "--cells", "*kill*")


def test_crash_matrix_notices_a_sink_that_shows_output_too_early() -> None:
    sabotage = """
import torture, torture_jobs

def early(self, epoch, pre_commit=torture_jobs.Hidden.pre_commit):
    name = pre_commit(self, epoch)
    if name is not None:
        self.commit([(epoch, name)])
    return name

torture_jobs.Hidden.pre_commit = early
torture.main()
"""
    command = [sys.executable, "-c", sabotage, "--runs", "100", "--seed", "3"]
    command += ["--cells", "* / stateless / custom / exactly_once"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "surplus" in done.stdout, done.stdout + done.stderr


def test_report_says_that_recovery_went_back_to_an_older_checkpoint(tmp_path: Path) -> None:
    def attempt(steps: int | None) -> mill.Report | None:
        totals = mill.generate(rows=3000, k=mill.index() % 7).key_by("k").agg(n=mill.count(), emit="end")
        checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms")
        sink = totals.write_csv(tmp_path / "out")
        return testing.simulate(sink, seed=1, checkpoint=checkpoint, steps=steps, frame_rows=10)

    while len(manifests := sorted((tmp_path / "state").glob("manifest-*"))) < 2:
        assert attempt(200) is None
    content = bytearray(manifests[-1].read_bytes())
    content[len(content) // 2] ^= 1
    manifests[-1].write_bytes(content)
    report = attempt(None)
    assert report is not None
    assert any("going back to checkpoint" in note for note in report.notes), report.notes
    assert sum(row["n"] for row in mill.read_csv(tmp_path / "out").collect()) == 3000
