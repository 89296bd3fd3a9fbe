"""The crash matrix with real servers: every job with every fault, under changing parallelism, judged by other clients.

    python tests/servers/torture.py --runs 2000 --seed 7
    python tests/servers/torture.py --runs 100 --cells "kafka / window / *" "* / * / lease"
    python tests/servers/torture.py --runs 2000 --seed 7 --only 1234     one run again, with what it did

A run takes one cell of the matrix: it disturbs a job one to three times with one kind of fault, each time under another
parallelism and another interval of checkpoints, then lets it end and compares what an independent client sees (Confluent's with
``read_committed``, psycopg, boto3, DuckDB) with plain counting. After that nothing may be left over: no open or prepared
transaction, no session, no temporary slot or table, no file of rows, no upload with parts, no lease.

Each worker has one server of each kind for all its runs. The jobs are in ``matrix_jobs.py``, the faults:

==============  =======================================================================================================
kill            the job is killed at a random instant
kill at step    the job is killed at a named step of a checkpoint, a commit or a recovery
step fails      such a step fails, once or a few times
stopped         the job is asked to stop
server killed   a server is killed and started again, perhaps the job, too (the object store is in memory: it cannot be reached)
server stopped  a server hangs for up to 3 s (SIGSTOP); perhaps the job is killed, and the next one starts meanwhile
connections     connections are reset at random bytes, by a proxy of the tests
timeouts        the job (SIGSTOP), or a connection, hangs for longer than servers wait for a transaction
disk full       the filesystem of the state (and of the Delta table, and of the cache) is full for a while
lease           the holder of the lease of checkpoints in S3 hangs until another machine has taken over, and goes on
==============  =======================================================================================================
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import kafka
import matrix_faults
import postgres
import s3
from launcher import spread
from matrix_faults import FAULTS, Cell
from matrix_jobs import PLANS
from matrix_servers import apart

RARELY = {"lease": 3, "server killed": 3, "server stopped": 7, "timeouts": 5}
"""Faults that take long: so many runs in ten rounds over the matrix."""
SLOW_SECONDS = 40
"""A run that takes longer is printed."""


def can_mount() -> bool:
    """Whether this process may mount a small filesystem, and have a name of a machine of its own."""

    def look() -> None:
        matrix_faults.be_another_host("another")

    try:
        apart(look)
    except RuntimeError:
        return False
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=False)
        return done.returncode == 0


def cells(is_root: bool) -> list[Cell]:
    """The cells of the matrix that make sense."""
    found = []
    for name, plan in PLANS.items():
        for fault in FAULTS:
            if fault in ("lease", "disk full") and not is_root:
                continue
            if fault == "lease" and name != "state":
                continue
            found.append(Cell(plan.kinds(0)[0], name, fault))
    return found


def deal(runs: int, patterns: list[str], is_root: bool) -> list[tuple[int, Cell]]:
    """The cells of all runs."""
    chosen = [cell for cell in cells(is_root) if any(fnmatch(str(cell), pattern) for pattern in patterns)]
    if not chosen:
        raise SystemExit(f"no cell of the matrix is called {patterns}")
    dealt: list[Cell] = []
    rounds = 0
    while len(dealt) < runs:
        dealt += [cell for cell in chosen if cell.fault not in RARELY or rounds % 10 < RARELY[cell.fault]]
        rounds += 1
        if rounds >= 10 and not dealt:
            break
    return list(enumerate(dealt[:runs]))


def table(counts: Counter[Cell], broken: Counter[Cell]) -> str:
    """Runs a cell; runs that broke their promise behind a cross."""

    def show(chosen: list[Cell]) -> str:
        runs, bad = sum(counts[cell] for cell in chosen), sum(broken[cell] for cell in chosen)
        return "-" if not runs else f"{runs} x{bad}" if bad else str(runs)

    lines = [["", *PLANS, "all"]]
    for fault in (*FAULTS, "all"):
        of_fault = [cell for cell in counts if fault in (cell.fault, "all")]
        lines.append([fault, *(show([cell for cell in of_fault if cell.plan == plan]) for plan in PLANS), show(of_fault)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Run the matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, nargs="+", help="replay these runs of the same seed, cells and number of runs")
    parser.add_argument("--cells", nargs="+", default=["*"], help='only these, such as "kafka / window / *"')
    parser.add_argument("--workers", type=int, default=1, help="how many runs go on at a time, each with servers of its own")
    parser.add_argument("--mode", choices=["exactly_once", "dedup"], default="exactly_once", help="of the jobs")
    parser.add_argument("--keep", type=Path, help="where the folders of wrong runs are kept")
    given = parser.parse_args()
    for reason in (kafka.missing(), postgres.missing(), s3.missing()):
        if reason is not None:
            raise SystemExit(reason)
    kafka.fetch()
    is_root = can_mount()
    if not is_root:
        print('no right to mount: without the faults "disk full" and "lease"')
    todo = deal(given.runs, given.cells, is_root)
    if given.only is not None:
        todo = [todo[run] for run in given.only]
    print(f"{len(todo)} runs, seed {given.seed}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    counts: Counter[Cell] = Counter()
    broken: Counter[Cell] = Counter()
    hits: Counter[str] = Counter()
    died_at: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    failures, timeouts, longest, held = 0, 0, 0.0, 0.0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        work = partial(matrix_faults.carry_out, Path(root), given.keep, given.seed, given.mode, given.only is not None)
        try:
            for (run, cell), outcome in spread(todo, work, given.workers):
                counts[cell] += 1
                hits[cell.fault] += outcome.hits
                died_at.update(outcome.died_at)
                failures += outcome.failures
                timeouts += outcome.timeouts
                seconds[cell.fault] += outcome.seconds  # type: ignore[assignment]
                longest, held = max(longest, outcome.seconds), max(held, outcome.held)
                if outcome.wrong:
                    broken[cell] += 1
                    print("\n".join([f"WRONG run {run}, {cell}: {outcome.wrong}", *outcome.story[1:]]), flush=True)
                elif outcome.seconds > SLOW_SECONDS:
                    print("\n".join([f"slow: run {run}, {cell}, took {outcome.seconds:.0f} s", *outcome.story[1:]]), flush=True)
                if sum(counts.values()) % 100 == 0:
                    print(f"{sum(counts.values())} runs in {time.monotonic() - began:.0f} s, {sum(broken.values())} wrong", flush=True)
        except KeyboardInterrupt:
            print("interrupted: the table is of what was done until then", flush=True)
        # They stop their servers.
        for worker in multiprocessing.active_children():
            worker.join()
    print(table(counts, broken))
    print("faults that hit: " + ", ".join(f"{fault} {count}" for fault, count in hits.items()))
    print("seconds a run: " + ", ".join(f"{fault} {took / sum(n for cell, n in counts.items() if cell.fault == fault):.1f}" for fault, took in seconds.items()))
    if died_at:
        print("died at: " + ", ".join(f"{step} {count}" for step, count in sorted(died_at.items())))
    print(f"{timeouts} times, a server ended an open transaction of a job that hung; {failures} jobs failed with an error and went on later")
    print(f"readers waited {held:.2f} s at most; the longest run took {longest:.0f} s")
    print(
        f"{sum(counts.values())} runs in {time.monotonic() - began:.0f} s, seed {given.seed}, "
        f"{sum(hits.values())} faults hit, {sum(broken.values())} runs wrong"
    )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
