"""The crash matrix: every job with every fault in every mode, under changing parallelism, against an undisturbed run.

    make torture                                     a few minutes
    make torture RUNS=20000 SEED=7                   more, or others
    python tests/crash/torture.py --only 1234 --seed 7 --runs 20000     one run again, with what it did

A run takes one cell of the matrix: it disturbs a job one to three times with one kind of fault, each time under another
parallelism, frame size and order of steps, then lets it end and compares. Most runs are made by hand in this process
(``millstream.testing``), where a fault hits a precise step and thousands of runs take minutes; the others are processes
that are killed. It ends with a table of counts and exits with 1 if any run broke its promise.

==================  ===================================================================================================
left                a job by hand is left at a random step
step                the process dies (by hand) at a named step of a checkpoint, a commit or a recovery
step fails          such a step fails, once or a few times; the job goes on, or fails and is run again
disk full           the disk of the state directory has no space left, and later has
sink full           what the sink writes to has no space left, and later has
disk errors         creates, writes, syncs, renames, lists … of the state directory fail
machine crash       the machine dies at an operation of the state directory; unsynced names and sectors are lost at random
state fails long    checkpoints cannot be published, up to thousands of times in a row
second job          another job writes into the same table while the job is down
inputs change       files grow or are rewritten while the job is down
clock               the clock jumps up to a day to and fro, and the job is left at a random step
function raises     a Python function raises
task fails          a call of an operator fails or panics, in a task that goes back alone
kill                a process is killed at a random instant
kill at step        a process is killed at a named step
panic in a thread   a thread of the engine panics, and the job fails by name or starts again in the same process
function kills      a Python function kills the process
function hangs      a Python function hangs, and the process is killed
==================  ===================================================================================================
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from fnmatch import fnmatch
from functools import partial
from itertools import chain
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torture_faults
import torture_jobs
from launcher import spread
from torture_faults import FAULTS, MODES, Cell

REAL_SHARE = 10
"""One in so many rounds over the matrix is made with real processes, too."""


def cells(is_real: bool) -> list[Cell]:
    """The cells of the matrix that make sense."""
    found = []
    for fault, is_process in FAULTS.items():
        for plan in torture_jobs.PLANS:
            for sink in torture_jobs.SINKS:
                for mode in MODES:
                    if is_process != is_real or (fault.startswith("function") and plan not in torture_jobs.HOOKED):
                        continue
                    if fault == "inputs change" and plan != "stateless":
                        continue
                    if fault == "second job" and sink != "sqlite":
                        continue
                    # Positions that are not synced survive the process and not the machine: mode none promises no more.
                    if fault == "machine crash" and mode == "none":
                        continue
                    # A record counts in several windows, fewer if it is late: without all records that cannot be compared.
                    if plan == "sliding" and mode == "none":
                        continue
                    # Where one is lost, another one has no partner, or no rule: a row that is in no complete result.
                    if plan in ("joined", "enriched", "broadcast") and mode == "none":
                        continue
                    # A table shows the latest total, and a record that comes twice is two.
                    if plan == "regular" and mode not in ("exactly_once", "dedup"):
                        continue
                    # Operators can be made to fail where a task goes back alone.
                    if fault == "task fails" and mode != "dedup":
                        continue
                    found.append(Cell(fault, plan, sink, mode))
    return found


def deal(runs: int, real_share: int, patterns: list[str]) -> list[tuple[int, Cell]]:
    """The cells of all runs: exactly once in three of four, by hand but for the share of real processes."""
    by_hand, real = ([c for c in cells(is_real) if any(fnmatch(str(c), p) for p in patterns)] for is_real in (False, True))
    has_exact = any(cell.mode == "exactly_once" for cell in by_hand + real)
    dealt: list[Cell] = []
    rounds = 0
    while len(dealt) < runs:
        rounds += 1
        share = by_hand + (real if not by_hand or (real_share and rounds % real_share == 0) else [])
        if not share and rounds > real_share:
            raise SystemExit(f"no cell of the matrix is called {patterns}")
        dealt += [cell for cell in share if cell.mode == "exactly_once" or not has_exact or rounds % 6 == 0]
    return list(enumerate(dealt[:runs]))


def table(counts: Counter[Cell], broken: Counter[Cell]) -> str:
    """Runs a cell, of exactly once by fault and job, then by mode; runs that broke their promise behind a cross."""
    jobs = [(plan, sink) for plan in torture_jobs.PLANS for sink in torture_jobs.SINKS]

    def show(chosen: list[Cell]) -> str:
        runs, bad = sum(counts[cell] for cell in chosen), sum(broken[cell] for cell in chosen)
        return "-" if not runs else f"{runs} x{bad}" if bad else str(runs)

    head = ["exactly_once", *(f"{plan[:6]}/{sink[:4]}" for plan, sink in jobs), "all", *(f"({mode})" for mode in MODES[1:])]
    lines = [head]
    for fault in FAULTS:
        row = [show([Cell(fault, plan, sink, MODES[0])]) for plan, sink in jobs]
        for mode in MODES:
            row.append(show([Cell(fault, plan, sink, mode) for plan, sink in jobs]))
        lines.append([fault, *row])
    totals = [show([Cell(fault, plan, sink, MODES[0]) for fault in FAULTS]) for plan, sink in jobs]
    totals += [show([Cell(fault, *job, mode) for fault in FAULTS for job in jobs]) for mode in MODES]
    lines.append(["all", *totals])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def main() -> None:
    """Run the matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", type=int, nargs="+", help="replay these runs of the same seed and number of runs")
    parser.add_argument("--cells", nargs="+", default=["*"], help='only these, such as "clock / * / custom / none"')
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="how many runs go on at a time")
    help_real = "one in so many rounds with real processes; 0: none"
    parser.add_argument("--real-share", type=int, default=REAL_SHARE, help=help_real)
    parser.add_argument("--folder", type=Path, help="where to work (in memory, if the machine offers that)")
    given = parser.parse_args()
    folder = given.folder or (Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None)
    todo = deal(given.runs, given.real_share, given.cells)
    if given.only is not None:
        todo = [todo[run] for run in given.only]
    print(f"{len(todo)} runs, seed {given.seed}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    counts: Counter[Cell] = Counter()
    broken: Counter[Cell] = Counter()
    disturbances: Counter[str] = Counter()
    died_at: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as root:
        torture_jobs.write_inputs(Path(root) / "inputs")
        work = partial(torture_faults.carry_out, Path(root), given.seed, given.only is not None)
        # Workers that run jobs themselves have threads, so those that fork are others.
        shares = [[item for item in todo if FAULTS[item[1].fault] == is_real] for is_real in (False, True)]
        try:
            for (run, cell), outcome in chain.from_iterable(spread(share, work, given.workers) for share in shares):
                counts[cell] += 1
                disturbances[cell.fault] += outcome.disturbances
                died_at.update(outcome.died_at)
                if outcome.wrong:
                    broken[cell] += 1
                    print(f"run {run}, {cell}: {outcome.wrong}", flush=True)
        except KeyboardInterrupt:
            print("interrupted: the table is of what was done until then", flush=True)
    print(table(counts, broken))
    hits = ", ".join(f"{fault} {count}" for fault, count in disturbances.items())
    print(f"faults that hit: {hits}")
    if died_at:
        print("died at: " + ", ".join(f"{step} {count}" for step, count in sorted(died_at.items())))
    print(
        f"{sum(counts.values())} runs in {time.monotonic() - began:.0f} s, seed {given.seed}, "
        f"{sum(disturbances.values())} faults hit, {sum(broken.values())} runs wrong"
    )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
