"""Jobs of Millstream, Polars and DuckDB in turns: results are compared first, then the medians of some runs are printed.

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
    """Run the jobs over as many rows as the command line says, and print millions of records a second."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(f"{'job':28} {'rows':>10} {'millstream':>11} {'polars':>8} {'duckdb':>8}")
    for name, (records, *of_each) in jobs(options.rows).items():
        results = [job() for job in of_each if job is not None]
        assert all(result == results[0] for result in results), f"{name}: {results}"
        seconds: list[list[float]] = [[] for _ in of_each]
        for _ in range(options.runs):
            for place, job in enumerate(of_each):
                if job is not None:
                    began = time.perf_counter()
                    job()
                    seconds[place].append(time.perf_counter() - began)
        rates = [f"{records / statistics.median(found) / 1e6:.2f}" if found else "-" for found in seconds]
        print(f"{name:28} {results[0][0]:>10} {rates[0]:>11} {rates[1]:>8} {rates[2]:>8}", flush=True)
