"""Let a job run for a long time, with a checkpoint every 100 ms and random kills, and see that nothing grows.

    python tests/crash/soak.py --minutes 60 --seed 1
    python tests/crash/soak.py --minutes 60 --kill-every 0        one process from beginning to end

The job keeps running totals of a thousand keys and opens and drops windows, both into SQLite tables of a size that does
not change. Every second the memory, file descriptors and threads of the process are looked at, and the size and number
of files of its state directory and of its output. At the end the three of the start, the middle and the end stand in a
table, taken over a tenth of the time each, from processes that had run a while; the totals must be exactly those of all
records; and what has grown by more than a quarter is a failure. With ``--idle`` a job without input is watched after it:
its CPU time over that many seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from launcher import Child

import millstream as mill
from millstream import col

KEYS = 1000
SLOTS = 20
WARM = 10.0
"""Seconds after which a process has what it needs."""
GROWTH_MAX = 1.25


@dataclass
class Sample:
    """What there was at a moment."""

    at: float
    age: float
    rss: int
    descriptors: int
    threads: int
    state_bytes: int
    state_files: int
    output_bytes: int

    FIGURES = ("rss", "descriptors", "threads", "state_bytes", "state_files", "output_bytes")


def run(work: Path, rows: int, rate: int) -> None:
    """Run the job to its end."""
    at = (mill.index() * 100).cast(mill.Timestamp("us"))
    events = mill.generate(rows=rows, rate=rate, key=mill.index() % KEYS, value=mill.index(), at=at)
    totals = events.key_by("key").agg(n=mill.count(), total=col("value").sum(), emit="checkpoint")
    windows = events.event_time("at", watermark="1s").key_by("key").window(mill.tumbling("2s")).agg(n=mill.count())
    slot = (col("window_start").cast(int) // 2_000_000) % SLOTS
    slots = windows.select("key", "n", slot=slot)
    (work / "out").mkdir(parents=True, exist_ok=True)
    mill.run(
        totals.write_sqlite(work / "out" / "totals.db", "totals", key="key"),
        slots.write_sqlite(work / "out" / "slots.db", "slots", key=["slot", "key"]),
        checkpoint=mill.Checkpoint(work / "state", every="100ms"),
        parallelism=2,
    )


def look(pid: int, work: Path, began: float, started: float) -> Sample | None:
    """Take a sample; None if the process has ended meanwhile."""
    now = time.monotonic()
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        rss, threads = int(fields["VmRSS"].split()[0]) << 10, int(fields["Threads"])
    except (OSError, KeyError):
        return None
    state, output = sizes(work / "state"), sizes(work / "out")
    return Sample(now - began, now - started, rss, descriptors, threads, sum(state), len(state), sum(output))


def sizes(folder: Path) -> list[int]:
    """The sizes of the files in a folder, of those that do not vanish while they are looked at."""
    found = []
    for entry in os.scandir(folder) if folder.exists() else ():
        try:
            found.append(entry.stat().st_size)
        except FileNotFoundError:
            continue
    return found


def watch(work: Path, rows: int, rate: int, kill_every: float, dice: random.Random) -> tuple[list[Sample], int]:
    """Run the job to its end, killing it now and then; gives the samples and the number of kills."""
    samples: list[Sample] = []
    kills, began, said = 0, time.monotonic(), 0.0
    while True:
        started = time.monotonic()
        child = Child(partial(run, work, rows, rate), work / "log")
        life = dice.uniform(0, 2 * kill_every) if kill_every else float("inf")
        while not child.ends_within(1.0):
            sample = look(child.pid, work, began, started)
            if sample is not None:
                samples.append(sample)
                if sample.at >= said:
                    print(f"{sample.at:7.0f} s, {kills} kills, {sample.rss >> 20} MB, {sample.state_files} files", flush=True)
                    said += 60
            if time.monotonic() - started > life:
                break
        else:
            child.finish()
            return samples, kills
        child.kill()
        kills += 1


def check_totals(work: Path, rows: int) -> str:
    """What is wrong with the totals; empty if nothing."""
    with sqlite3.connect(work / "out" / "totals.db") as database:
        found = {key: (n, total) for key, n, total in database.execute("SELECT key, n, total FROM totals")}
    expected = {key: (len(range(key, rows, KEYS)), sum(range(key, rows, KEYS))) for key in range(min(KEYS, rows))}
    wrong = [key for key in expected if found.get(key) != expected[key]]
    if not wrong:
        return ""
    return f"{len(wrong)} are wrong, such as key {wrong[0]}: {found.get(wrong[0])}, not {expected[wrong[0]]}"


def report(samples: list[Sample]) -> list[str]:
    """Print the table; gives what has grown."""
    warm = [sample for sample in samples if sample.age >= WARM]
    total = samples[-1].at
    spans = {"start": (0.0, 0.1), "middle": (0.45, 0.55), "end": (0.9, 1.0)}
    means: dict[str, dict[str, float]] = {}
    for name, (first, last) in spans.items():
        # The first warm samples come late in a short run: the nearest tenth of them then.
        inside = [sample for sample in warm if first <= sample.at / total <= last]
        if not inside:
            inside = sorted(warm, key=lambda sample: abs(sample.at / total - (first + last) / 2))[: max(1, len(warm) // 10)]
        means[name] = {figure: sum(getattr(s, figure) for s in inside) / len(inside) for figure in Sample.FIGURES}
    print(f"{'':>14} {'start':>14} {'middle':>14} {'end':>14}")
    grown = []
    for figure in Sample.FIGURES:
        values = [means[name][figure] for name in spans]
        print(f"{figure:>14} " + " ".join(f"{value:>14,.0f}" for value in values))
        # What only goes to and fro is no growth: the end stands against the higher of the two before.
        if values[2] > max(values[:2]) * GROWTH_MAX:
            grown.append(f"{figure} grew from {values[0]:,.0f} to {values[2]:,.0f}")
    return grown


def idle(work: Path, seconds: float) -> None:
    """Print the CPU time of a job that has nothing to do."""
    (work / "in").mkdir(parents=True)

    def wait() -> None:
        lines = mill.read_text(work / "in" / "*.txt", follow=True)
        job = mill.start(lines.write_csv(work / "idle"), checkpoint=mill.Checkpoint(work / "idle-state", every="100ms"))
        threading.Event().wait()
        job.stop()

    child = Child(wait, work / "idle-log")

    def ticks() -> int:
        user, system = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return int(user) + int(system)

    time.sleep(2)
    before = ticks()
    if child.ends_within(seconds):
        child.finish()
    used = (ticks() - before) / os.sysconf("SC_CLK_TCK")
    child.kill()
    print(f"an idle job with a checkpoint every 100 ms: {used:.2f} s of CPU time in {seconds:.0f} s")


def main() -> None:
    """Run the harness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=int, default=50_000, help="records a second")
    parser.add_argument("--kill-every", type=float, default=40, help="seconds between kills, on average; 0: none")
    parser.add_argument("--idle", type=float, default=0, help="watch an idle job for so many seconds afterwards")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, help="where to work")
    given = parser.parse_args()
    print(f"{given.minutes:g} minutes, {given.rate:,} records a second, seed {given.seed}", flush=True)
    rows = int(given.minutes * 60 * given.rate)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        work = Path(folder)
        samples, kills = watch(work, rows, given.rate, given.kill_every, random.Random(given.seed))
        wrong = check_totals(work, rows)
        print(f"{rows:,} records in {samples[-1].at / 60:.1f} minutes, {kills} kills, totals {wrong or 'exact'}")
        grown = report(samples)
        for line in grown:
            print(line)
        if given.idle:
            idle(work, given.idle)
    sys.exit(1 if wrong or grown else 0)


if __name__ == "__main__":
    main()
