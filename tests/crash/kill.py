"""Kill a job with SIGKILL at random instants, run it again until it is done, and judge what it committed.

    python tests/crash/kill.py count --runs 200 --seed 1 --parallelism 1 2 3

Prints the seed, a line for each run that broke its mode's promise (see :func:`jobs.verdict`), and a summary; exits with 1
when one did. Each run has dice of its own, made of the seed and its number: ``--only 17`` replays run 17 alone.

A run is killed one to four times: anywhere between the first instruction and the end that is to be expected, more often
within the first moments, in which a job opens its state and recovers, and around the end, where it commits for the last
time.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jobs
from launcher import Child, Failed, spread

STARTS_MAX = 40
OPENING = 0.03
"""Seconds within which a job has opened its state and recovered."""


@dataclass
class Plan:
    """What the runs of a campaign have in common."""

    job: str
    mode: str
    every: str
    parallelisms: list[int]
    seed: int
    root: Path
    seconds: float
    expected: list[str]


@dataclass
class Outcome:
    """How a run went."""

    kills: int = 0
    wrong: str = ""
    has_surplus: bool = False
    has_missing: bool = False


def start(job: str, work: Path, mode: str, parallelism: int, every: str) -> Child:
    """Start a job in a process of its own."""
    return Child(partial(jobs.run, job, work, mode, parallelism, every), work / "log")


def instant(dice: random.Random, seconds: float) -> float:
    """When to kill a job that is expected to run this long."""
    where = dice.random()
    if where < 0.15:
        return dice.uniform(0, OPENING)
    if where < 0.35:
        return seconds * dice.uniform(0.85, 1.05)
    return dice.uniform(0, seconds)


def disturb(plan: Plan, work: Path, dice: random.Random) -> int:
    """Run the job to its end, killing it one or more times on the way; gives the number of kills that hit."""
    kills, wanted = 0, 1 if dice.random() < 0.6 else dice.randint(2, 4)
    left = plan.seconds
    for _ in range(STARTS_MAX):
        child = start(plan.job, work, plan.mode, dice.choice(plan.parallelisms), plan.every)
        delay = instant(dice, left)
        if kills == wanted or child.ends_within(delay):
            child.finish()
            return kills
        child.kill()
        kills += 1
        left = max(left - delay, OPENING)
    raise Failed(f"not done after {STARTS_MAX} starts")


def carry_out(plan: Plan, run: int) -> Outcome:
    """One run from its first start to its verdict."""
    work = plan.root / f"run-{run}"
    outcome = Outcome()
    try:
        dice = random.Random(f"{plan.seed} {run}")
        outcome.kills = disturb(plan, work, dice)
        found = jobs.committed(work)
        if plan.job == "single":
            # Complete files stay what they are, whether a run after the end is killed or not.
            again = start(plan.job, work, plan.mode, dice.choice(plan.parallelisms), plan.every)
            again.finish() if again.ends_within(dice.uniform(0, OPENING)) else again.kill()
            start(plan.job, work, plan.mode, dice.choice(plan.parallelisms), plan.every).finish()
            if jobs.committed(work) != found:
                raise Failed("a run after the end has changed the output")
            if hidden := [path.name for path in (work / "out").glob(".*")]:
                raise Failed(f"left behind: {hidden}")
        outcome.wrong = jobs.verdict(plan.job, plan.mode, plan.expected, found)
        outcome.has_surplus = bool(Counter(found) - Counter(plan.expected))
        outcome.has_missing = bool(Counter(plan.expected) - Counter(found))
    except Failed as error:
        outcome.wrong = str(error)
    shutil.rmtree(work, ignore_errors=True)
    return outcome


def calm(job: str, mode: str, parallelism: int, every: str, work: Path) -> tuple[float, list[str]]:
    """The undisturbed run: how long it takes, and what it commits."""
    began = time.monotonic()
    start(job, work, mode, parallelism, every).finish()
    seconds = time.monotonic() - began
    expected = jobs.committed(work)
    if not expected:
        raise Failed("the undisturbed run committed nothing")
    return seconds, expected


def main() -> None:
    """Run the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=sorted(jobs.JOBS))
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", type=int, help="replay this run alone")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--mode", default="exactly_once", choices=["exactly_once", "at_least_once", "none"])
    parser.add_argument("--every", help="the checkpoint interval (20ms; at least once 5ms, to meet more of them)")
    parser.add_argument("--parallelism", type=int, nargs="+", default=[2], help="one of these is drawn at every start")
    parser.add_argument("--workers", type=int, default=2, help="how many runs go on at a time")
    given = parser.parse_args()
    jobs.check_mode(given.job, given.mode)
    every = given.every or ("5ms" if given.mode == "at_least_once" else "20ms")
    print(f"job {given.job}, mode {given.mode}, every {every}, seed {given.seed}", flush=True)
    jobs.prepare(given.job)

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds, expected = calm(given.job, given.mode, given.parallelism[0], every, root / "calm")
        print(f"undisturbed: {seconds:.2f} s, {len(expected)} rows", flush=True)
        plan = Plan(given.job, given.mode, every, given.parallelism, given.seed, root, seconds, expected)
        runs = range(given.runs) if given.only is None else [given.only]
        outcomes = []
        for run, outcome in spread(runs, partial(carry_out, plan), given.workers):
            outcomes.append(outcome)
            if outcome.wrong:
                print(f"run {run}: {outcome.wrong}", flush=True)
    failed = sum(bool(outcome.wrong) for outcome in outcomes)
    print(
        f"{given.job}, {given.mode}: {len(outcomes)} runs, {sum(o.kills for o in outcomes)} kills "
        f"({sum(o.kills > 0 for o in outcomes)} runs were hit), {failed} failed; "
        f"runs with rows beyond the undisturbed ones: {sum(o.has_surplus for o in outcomes)}, "
        f"with rows missing: {sum(o.has_missing for o in outcomes)}"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
