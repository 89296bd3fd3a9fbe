"""Damage every file of a state directory in every way, and see that recovery is right or refuses.

    python tests/crash/damage.py --job count --places 50 --seed 1

A job is killed in mid-run. Then, for each file of its state directory: the file is deleted, truncated at random places,
and has single bits flipped at random places, each time in a fresh copy; the job is run on from there, in a process of its
own. Allowed are the undisturbed result, or a refusal that says why. A wrong result, another exception, a crash, a job
that hangs, or a start from nothing (which would repeat committed rows) is a failure.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jobs
import kill
from launcher import Child, Failed, spread

Damage = tuple[Path, str, int, int]
"""A file, what is done to it (``delete``, ``cut`` or ``flip``), the byte it is done at, and the bit."""


def damages(work: Path, places: int, dice: random.Random) -> Iterator[Damage]:
    """All that is done to the files of a state directory."""
    for path in sorted(path for path in (work / "state").rglob("*") if path.is_file()):
        file, size = path.relative_to(work), path.stat().st_size
        yield file, "delete", 0, 0
        for _ in range(places if size else 0):
            yield file, "cut", dice.randrange(size), 0
        for _ in range(places if size else 0):
            yield file, "flip", dice.randrange(size), dice.randrange(8)


def inflict(path: Path, what: str, place: int, bit: int) -> None:
    """Damage a file."""
    if what == "delete":
        path.unlink()
    elif what == "cut":
        os.truncate(path, place)
    else:
        content = bytearray(path.read_bytes())
        content[place] ^= 1 << bit
        path.write_bytes(content)


def interrupted(job: str, root: Path, dice: random.Random, seconds: float, every: str = "5ms") -> Path:
    """A work directory as a kill in mid-run leaves it, with at least two checkpoints and work left to do."""
    for attempt in range(100):
        work = root / f"interrupted-{attempt}"
        child = kill.start(job, work, "exactly_once", 2, every)
        until = time.monotonic() + seconds * dice.uniform(0.1, 0.8)
        while not child.ends_within(0.001):
            if time.monotonic() > until and len(list((work / "state").glob("manifest-*"))) >= 2:
                child.kill()
                return work
        child.finish()
        shutil.rmtree(work, ignore_errors=True)
    raise RuntimeError("no kill left a job in mid-run")


def carry_on(job: str, work: Path) -> None:
    """Run the job on, and leave word of how it went."""
    import millstream as mill

    try:
        checkpoint = mill.Checkpoint(work / "state", every="1s")
        report = mill.run(*jobs.JOBS[job](work), checkpoint=checkpoint, parallelism=2)
    except mill.CheckpointError as error:
        outcome = "refused" if str(error).strip() else "FAILED: refused without a word"
    except mill.ConnectorError as error:
        # Falling back would give out again what the sink already shows: it says so and takes nothing.
        is_known = "already shows output of later checkpoints" in str(error)
        outcome = "refused by the sink" if is_known else f"FAILED: {error}"
    except Exception as error:
        outcome = f"FAILED: {type(error).__name__}: {error}"
    else:
        outcome = "fell back and said so" if report.notes else "nothing lost"
    (work / "outcome").write_text(outcome)


def judge(job: str, work: Path, expected: list[str], root: Path, damage: Damage) -> str:
    """Inflict one damage on a copy, run it on, and say how it went."""
    file, what, place, bit = damage
    copy = root / f"try-{file.name}-{what}-{place}-{bit}"
    shutil.copytree(work, copy)
    inflict(copy / file, what, place, bit)
    try:
        Child(partial(carry_on, job, copy), copy / "log").finish()
        outcome = (copy / "outcome").read_text()
        if not outcome.startswith(("FAILED", "refused")) and jobs.committed(copy) != expected:
            outcome = f"FAILED: wrong result ({outcome})"
    except Failed as error:
        outcome = f"FAILED: {error}"
    shutil.rmtree(copy, ignore_errors=True)
    return outcome


def main() -> None:
    """Run the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=sorted(jobs.JOBS), default="count")
    parser.add_argument("--places", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2, help="how many runs go on at a time")
    given = parser.parse_args()
    dice = random.Random(given.seed)
    print(f"job {given.job}, seed {given.seed}", flush=True)
    jobs.prepare(given.job)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds, expected = kill.calm(given.job, "exactly_once", 2, "20ms", root / "calm")
        work = interrupted(given.job, root, dice, seconds)
        todo = list(damages(work, given.places, dice))
        outcomes: Counter[str] = Counter()
        failed = 0
        for damage, outcome in spread(todo, partial(judge, given.job, work, expected, root), given.workers):
            if outcome.startswith("FAILED"):
                failed += 1
                print(f"{damage}: {outcome}", flush=True)
            else:
                outcomes[outcome] += 1
        files = len({file for file, *_ in todo})
        print(f"{given.job}: {files} files, {len(todo)} damages: {dict(outcomes)}, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
