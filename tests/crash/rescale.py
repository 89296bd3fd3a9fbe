"""Stop the jobs at parallelism 2 in mid-run and resume them with 1, 3 and 8: the output must be the same.

    python tests/crash/rescale.py --attempts 3 --seed 1

Each resumed job is killed once more on its way and goes on with yet another parallelism, so that state that was split
anew is itself checkpointed and split again.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import damage
import jobs
import kill
from launcher import Failed, spread

PARALLELISMS = (1, 3, 8)


def resume(root: Path, seed: int, calm: dict[str, tuple[float, list[str]]], item: tuple[str, int, int]) -> str:
    """Interrupt a job at parallelism 2, resume it with another, and compare; gives what is wrong."""
    job, parallelism, attempt = item
    dice = random.Random(f"{seed} {item}")
    seconds, expected = calm[job]
    try:
        work = damage.interrupted(job, root / job / f"{parallelism}-{attempt}", dice, seconds)
        child = kill.start(job, work, "exactly_once", parallelism, "20ms")
        if child.ends_within(dice.uniform(0, seconds / 2)):
            child.finish()
        else:
            child.kill()
            kill.start(job, work, "exactly_once", dice.choice(PARALLELISMS), "20ms").finish()
        return jobs.verdict(job, "exactly_once", expected, jobs.committed(work))
    except Failed as error:
        return str(error)


def main() -> None:
    """Run the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2, help="how many runs go on at a time")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        calm = {}
        for job in sorted(jobs.JOBS):
            jobs.prepare(job)
            calm[job] = kill.calm(job, "exactly_once", 2, "20ms", root / job / "calm")
        todo = [(job, p, attempt) for job in sorted(jobs.JOBS) for p in PARALLELISMS for attempt in range(given.attempts)]
        for (job, parallelism, attempt), wrong in spread(todo, partial(resume, root, given.seed, calm), given.workers):
            failed += bool(wrong)
            print(f"{job}: 2 -> {parallelism}, attempt {attempt}: {wrong or 'equal'}", flush=True)
    print(f"{len(todo)} resumed under another parallelism, {failed} different")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
