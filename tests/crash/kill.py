"""Kill a job with SIGKILL at random instants, run it again until it is done, and compare what it committed.

    python tests/crash/kill.py count --runs 200 --seed 1

Prints the seed, one line a failed run, and a summary; exits with 1 when a run broke its mode's promise:

- ``exactly_once``: the committed rows, sorted, are those of the undisturbed run.
- ``at_least_once``: no committed row of the undisturbed run is missing. Meant for jobs whose rows are not
  totals: a total that counts a record twice is another row.
- ``none``: no row is there twice, and none is there that the undisturbed run does not have. Meant
  for jobs whose rows are not totals, too: state is lost at a kill, so totals come out smaller.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import jobs

HERE = Path(__file__).resolve().parent
ATTEMPTS_MAX = 40


def start(job: str, work: Path, mode: str, parallelism: int, every: str) -> subprocess.Popen[bytes]:
    """Start the job in a process of its own."""
    command = [sys.executable, str(HERE / "jobs.py"), job, str(work), "--mode", mode]
    command += ["--parallelism", str(parallelism), "--every", every]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the job's own end; its failure is ours."""
    _, err = process.communicate(timeout=300)
    if process.returncode != 0:
        raise RuntimeError(f"the job failed with {process.returncode}: {err.decode(errors='replace')[-2000:]}")


def disturbed(job: str, work: Path, mode: str, parallelisms: list[int], every: str, span: tuple[float, float], dice: random.Random) -> int:
    """Run the job to its end, killing it one or more times on the way; gives the number of kills that hit."""
    kills, wanted = 0, 1 if dice.random() < 0.6 else dice.randint(2, 4)
    for _ in range(ATTEMPTS_MAX):
        process = start(job, work, mode, dice.choice(parallelisms), every)
        if kills >= wanted:
            finish(process)
            return kills
        try:
            process.wait(timeout=dice.uniform(*span))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        finish(process)
        return kills
    raise RuntimeError(f"not done after {ATTEMPTS_MAX} starts")


def verdict(mode: str, expected: list[str], found: list[str]) -> str:
    """What is wrong with the output under this mode; empty if nothing is."""
    missing, surplus = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    if mode == "exactly_once" and (missing or surplus):
        return f"missing {sorted(missing.elements())[:3]}, surplus {sorted(surplus.elements())[:3]}"
    if mode == "at_least_once" and missing:
        return f"missing {sorted(missing.elements())[:3]}"
    if mode == "none" and surplus:
        return f"surplus {sorted(surplus.elements())[:3]}"
    return ""


def main() -> None:
    """Run the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=sorted(jobs.JOBS))
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--mode", default="exactly_once")
    parser.add_argument("--every", default="20ms")
    parser.add_argument("--parallelism", type=int, nargs="+", default=[2], help="one of these is drawn at every start")
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    print(f"job {arguments.job}, mode {arguments.mode}, seed {arguments.seed}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        calm = root / "calm"
        began = time.monotonic()
        finish(start(arguments.job, calm, arguments.mode, arguments.parallelism[0], arguments.every))
        seconds = time.monotonic() - began
        expected = jobs.committed(calm)
        if not expected:
            raise RuntimeError("the undisturbed run committed nothing")
        print(f"undisturbed: {seconds:.2f} s, {len(expected)} rows", flush=True)

        failed = hits = repeated = lost = 0
        for run in range(arguments.runs):
            work = root / f"run-{run}"
            hits += disturbed(
                arguments.job, work, arguments.mode, arguments.parallelism, arguments.every, (0.05, seconds), dice
            )
            found = jobs.committed(work)
            repeated += bool(Counter(found) - Counter(expected))
            lost += bool(Counter(expected) - Counter(found))
            wrong = verdict(arguments.mode, expected, found)
            if wrong:
                failed += 1
                print(f"run {run}: {wrong}", flush=True)
            shutil.rmtree(work)
        print(
            f"{arguments.runs} runs, {hits} kills, {failed} failed; "
            f"runs with rows beyond the undisturbed ones: {repeated}, with rows missing: {lost}"
        )
        sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
