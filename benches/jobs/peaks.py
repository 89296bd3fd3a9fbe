"""What memory the queries of ``millstream bench shapes`` need, beside DuckDB and Polars.

    python benches/jobs/peaks.py [--rows 3_000_000] [query or family ...]

Each engine answers each query in a process of its own, once, with two threads. Printed is the peak of the resident memory of that process in
megabytes, with its data, which is there before, and its result; in brackets, by how much it rose above what was there before.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path

THREADS = 2
os.environ.setdefault("POLARS_MAX_THREADS", str(THREADS))

from millstream.bench.contest import OURS, Query
from millstream.bench.result import Settings
from millstream.bench.shapes import _FAMILIES

PEERS = ("duckdb", "polars")


def queries(rows: int, names: list[str], folder: Path) -> list[Query]:
    """Return queries by name, with their data."""
    settings = Settings(rows=rows, runs=1, parallelism=THREADS, against=PEERS, queries=tuple(names))
    families = [module for module in _FAMILIES.values() if set(names) & set(module.QUERIES)]
    return [query for module in families for query in module.queries(rows, settings, folder) if query.name in names]


def kilobytes(name: str) -> int:
    """Return a figure of the memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def one(rows: int, name: str, engine: str) -> None:
    """Answer a query once, and print the megabytes that it took."""
    with tempfile.TemporaryDirectory() as folder:
        query = queries(rows, [name], Path(folder))[0]
        job = query.ours if engine == OURS else query.peers.get(engine)
        if job is None:
            print("")
            return
        gc.collect()
        before = kilobytes("VmRSS")
        # From here on the peak is counted anew.
        Path("/proc/self/clear_refs").write_text("5")
        result = job()
        peak = kilobytes("VmHWM")
        print(peak / 1024, (peak - before) / 1024)
        del result


def main() -> None:
    """Print a table of all queries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", nargs="*", help="queries or families; all by default")
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        one(given.rows, *given.one)
        return
    print(f"| query | {OURS} | {' | '.join(PEERS)} | ours / least |\n| --- | ---: | ---: | ---: | ---: |")
    for family, module in _FAMILIES.items():
        for name in module.QUERIES:
            if given.queries and name not in given.queries and family not in given.queries:
                continue
            peaks: list[tuple[float, float] | None] = []
            for engine in (OURS, *PEERS):
                command = [sys.executable, __file__, "--rows", str(given.rows), "--one", name, engine]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                peaks.append((float(said[0]), float(said[1])) if said else None)
            ours, *theirs = [None if peak is None else peak[0] for peak in peaks]
            least = min(peak for peak in theirs if peak is not None)
            cells = " | ".join("" if peak is None else f"{peak[0]:.0f} ({peak[1]:+.0f})" for peak in peaks)
            print(f"| {name} | {cells} | {(ours or 0) / least:.2f} |", flush=True)


if __name__ == "__main__":
    main()
