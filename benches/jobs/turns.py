"""Jobs of Millstream, Polars and DuckDB in turns: results are compared first, then the medians of some runs are printed.

Millions of records a second by the clock, and nanoseconds of processor time a record, of all threads. The latter says more on a machine
that is busy with other work.

Import it before polars: it says how many threads that takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

THREADS = 2
os.environ.setdefault("POLARS_MAX_THREADS", str(THREADS))

Job = Callable[[], Any]
"""Returns how many rows it has resulted in, and something that tells them from others."""
Contest = tuple[int, Job, Job | None, Job]
"""How many records go in; the job in Millstream, in Polars if that can do it, and in DuckDB."""


def main(about: str | None, jobs: Callable[[int], dict[str, Contest]]) -> None:
    """Run the jobs over as many rows as the command line says, and print the medians."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="only jobs with this in their name")
    options = parser.parse_args()
    peers = f"{'millstream':>11} {'polars':>8} {'duckdb':>8}"
    print(f"{'':28} {'':>10}   {'M records/s':29}   {'ns CPU a record':29}\n{'job':28} {'rows':>10}   {peers}   {peers}")
    for name, (records, *of_each) in jobs(options.rows).items():
        if options.only not in name:
            continue
        results = [job() for job in of_each if job is not None]
        assert all(result == results[0] for result in results), f"{name}: {results}"
        seconds: list[list[float]] = [[] for _ in of_each]
        busy: list[list[float]] = [[] for _ in of_each]
        for _ in range(options.runs):
            for place, job in enumerate(of_each):
                if job is not None:
                    began, began_busy = time.perf_counter(), time.process_time()
                    job()
                    seconds[place].append(time.perf_counter() - began)
                    busy[place].append(time.process_time() - began_busy)
        rates = [f"{records / statistics.median(found) / 1e6:.2f}" if found else "-" for found in seconds]
        costs = [f"{statistics.median(found) / records * 1e9:.0f}" if found else "-" for found in busy]
        of_all = "   ".join(f"{shown[0]:>11} {shown[1]:>8} {shown[2]:>8}" for shown in (rates, costs))
        print(f"{name:28} {results[0][0]:>10}   {of_all}", flush=True)
