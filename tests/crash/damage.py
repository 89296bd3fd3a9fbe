"""Damage every file of a state directory in every way, and see that recovery is right or refuses.

    python tests/crash/damage.py --places 50 --seed 1

A job is killed in mid-run. Then, for each file of its state directory: the file is deleted, truncated at random places,
and has single bits flipped at random places, each time in a fresh copy; the job is run on from there. Allowed are the
undisturbed result, or a :class:`millstream.CheckpointError`. A wrong result, another exception, a crash, or a start
from nothing (which would repeat committed rows) is a failure.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jobs
import kill


def damages(path: Path, places: int, dice: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """Ways to damage a file: what was done, and the new content (None: the file is gone)."""
    content = path.read_bytes()
    yield "deleted", None
    for _ in range(places if content else 0):
        place = dice.randrange(len(content))
        yield f"truncated to {place} of {len(content)} bytes", content[:place]
    for _ in range(places if content else 0):
        place, bit = dice.randrange(len(content)), dice.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(flipped)


def interrupted(job: str, root: Path, dice: random.Random) -> Path:
    """A work directory as a kill in mid-run leaves it, with at least two checkpoints."""
    for attempt in range(100):
        work = root / f"interrupted-{attempt}"
        process = kill.start(job, work, "exactly_once", 2, "5ms")
        while process.poll() is None and len(list((work / "state").glob("manifest-*"))) < 2:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.02))
        if process.poll() is None:
            process.kill()
            process.communicate()
            return work
        process.communicate()
        shutil.rmtree(work, ignore_errors=True)
    raise RuntimeError("no kill left a job in mid-run")


def main() -> None:
    """Run the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=sorted(jobs.JOBS), default="count")
    parser.add_argument("--places", type=int, default=50)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    print(f"job {arguments.job}, seed {arguments.seed}", flush=True)

    import millstream as mill

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kill.finish(kill.start(arguments.job, root / "calm", "exactly_once", 2, "20ms"))
        expected = jobs.committed(root / "calm")
        work = interrupted(arguments.job, root, dice)
        files = sorted(path.relative_to(work) for path in (work / "state").rglob("*") if path.is_file())
        outcomes: Counter[str] = Counter()
        failed = 0
        for file in files:
            for what, content in damages(work / file, arguments.places, dice):
                shutil.rmtree(root / "try", ignore_errors=True)
                shutil.copytree(work, root / "try")
                if content is None:
                    (root / "try" / file).unlink()
                else:
                    (root / "try" / file).write_bytes(content)
                try:
                    checkpoint = mill.Checkpoint(root / "try" / "state", every="1s")
                    report = mill.run(*jobs.JOBS[arguments.job](root / "try"), checkpoint=checkpoint, parallelism=2)
                except mill.CheckpointError as error:
                    outcomes["refused"] += 1
                    if not str(error).strip():
                        failed += 1
                        print(f"{file} {what}: refused without a word", flush=True)
                    continue
                except mill.ConnectorError as error:
                    # Falling back would give out again what the sink already shows: it says so and takes nothing.
                    if "already shows output of later checkpoints" not in str(error):
                        failed += 1
                        print(f"{file} {what}: {error}", flush=True)
                    outcomes["refused by the sink"] += 1
                    continue
                except Exception as error:
                    failed += 1
                    print(f"{file} {what}: {type(error).__name__}: {error}", flush=True)
                    continue
                if jobs.committed(root / "try") != expected:
                    failed += 1
                    print(f"{file} {what}: wrong result", flush=True)
                outcomes["fell back and said so" if report.notes else "nothing lost"] += 1
        print(f"{len(files)} files, {sum(outcomes.values()) + failed} damages: {dict(outcomes)}, {failed} failed")
        sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
