"""The three jobs that are counted in lines do the same in each engine that is here."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benches" / "lines" / "run.py"


def test_the_jobs_do_the_same_in_each_engine() -> None:
    command = [sys.executable, str(PROGRAM), "--engines", "millstream,polars,duckdb"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [line.split("|")[1:-1] for line in done.stdout.splitlines()[2:]]
    assert [job.strip() for job, *_ in jobs] == ["means", "live", "upserts"]
    assert all("lines" in ours for _, ours, *_ in jobs)
