"""How the queries of ``millstream bench shapes`` scale from one thread to two.

    python benches/jobs/scale.py [--rows 3_000_000] [--runs 5] [query or family ...]

Each query runs with one thread and with two, in turns; results are compared first. Printed are medians: millions of rows a second by the
clock, what the second thread brings, and nanoseconds of processor time a row, which shows what the threads cost each other.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from millstream.bench.contest import Query, _compare
from millstream.bench.result import Settings
from millstream.bench.shapes import _FAMILIES

THREADS = (1, 2)


def in_turns(query: dict[int, Query], runs: int) -> dict[int, tuple[float, float]]:
    """Return the seconds by the clock and of the processors, by the number of threads."""
    walls: dict[int, list[float]] = {threads: [] for threads in THREADS}
    busy: dict[int, list[float]] = {threads: [] for threads in THREADS}
    for _ in range(runs):
        for threads in THREADS:
            began, began_busy = time.perf_counter(), time.process_time()
            query[threads].ours()
            walls[threads].append(time.perf_counter() - began)
            busy[threads].append(time.process_time() - began_busy)
    return {threads: (statistics.median(walls[threads]), statistics.median(busy[threads])) for threads in THREADS}


def main() -> None:
    """Print a table of all queries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", nargs="*", help="queries or families; all by default")
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    print("| query | 1 thread | 2 threads | gain | ns CPU, 1 | ns CPU, 2 |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    for family, module in _FAMILIES.items():
        names = [name for name in module.QUERIES if not given.queries or name in given.queries or family in given.queries]
        if not names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            of_each = {}
            for threads in THREADS:
                place = Path(folder, str(threads))
                place.mkdir()
                of_each[threads] = {query.name: query for query in module.queries(given.rows, Settings(parallelism=threads), place)}
            for name in names:
                query = {threads: of_each[threads][name] for threads in THREADS}
                _compare(query[1], query[1].read(query[1].ours()), query[2].read(query[2].ours()), "two threads")
                took = in_turns(query, given.runs)
                rows = query[1].rows
                rates = [rows / took[threads][0] / 1e6 for threads in THREADS]
                costs = [took[threads][1] / rows * 1e9 for threads in THREADS]
                print(f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} | x{rates[1] / rates[0]:.2f} | {costs[0]:.1f} | {costs[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
