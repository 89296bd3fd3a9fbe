"""Fill a real small filesystem up in mid-job: the checkpoint fails and is reported, the job goes on, and recovers.

    sudo python tests/crash/full_disk.py            # mounts a tmpfs of 24 MB; needs the right to mount

The job keeps its state on the small filesystem and writes its output elsewhere. A ballast file takes the space away
while the job runs and gives it back later.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import millstream as mill
from millstream import col

SIZE = "24m"
TIMEOUT = 60.0


def ballast(path: Path) -> None:
    """Take all the space there is."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return


def wait_for(what: str, claim: object) -> None:
    """Wait until a claim holds."""
    until = time.monotonic() + TIMEOUT
    while not claim():  # type: ignore[operator]
        if time.monotonic() > until:
            raise SystemExit(f"FAILED: {what} did not happen within {TIMEOUT} s")
        time.sleep(0.02)
    print(f"ok: {what}", flush=True)


def main() -> None:
    """Run the scenario."""
    with tempfile.TemporaryDirectory() as folder:
        small, out = Path(folder) / "small", Path(folder) / "out"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(small)], check=True)
        try:
            events = mill.generate(rate=200_000, key=(mill.index() * 7919) % 50_000, value=mill.index())
            totals = events.key_by("key").agg(n=mill.count(), total=col("value").sum(), emit="checkpoint")
            out.mkdir()
            job = mill.start(
                totals.write_sqlite(out / "totals.db", "totals", key="key"),
                checkpoint=mill.Checkpoint(small / "state", every="100ms"),
                parallelism=2,
            )
            metrics = job.metrics
            wait_for("two checkpoints succeed", lambda: metrics().checkpoints_taken >= 2)
            ballast(small / "ballast")
            wait_for("a checkpoint fails on the full disk", lambda: metrics().checkpoints_failed >= 2)
            rows = metrics().rows_in
            wait_for("the job goes on", lambda: metrics().rows_in > rows + 100_000)
            if not any("space" in note for note in job.status.notes):
                raise SystemExit(f"FAILED: no note names the missing space: {job.status.notes}")
            (small / "ballast").unlink()
            taken = metrics().checkpoints_taken
            wait_for("checkpoints succeed again", lambda: metrics().checkpoints_taken >= taken + 2)
            job.stop()
            report = job.wait()
            print(f"ok: stopped; {report.checkpoints_taken} checkpoints taken, {report.checkpoints_failed} failed")
        finally:
            subprocess.run(["umount", "-l", str(small)], check=False)
    sys.exit(0)


if __name__ == "__main__":
    main()
