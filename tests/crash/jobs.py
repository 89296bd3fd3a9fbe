"""The jobs that the crash harness kills: each takes a work directory and is run as a script of its own.

    python jobs.py JOB WORKDIR [--mode exactly_once] [--parallelism 2] [--every 20ms]

A job writes into ``WORKDIR/out`` and keeps its checkpoints in ``WORKDIR/state``; run again, it goes on. What it has
committed is read back by :func:`committed`, without the engine.
"""

from __future__ import annotations

import argparse
import csv
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

ROWS = 2_000_000
KEYS = 1_000


def flights(work: Path) -> list[object]:
    """The main job of the examples, as it is."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
    import flights as example

    return list(example.sinks(work / "out"))


def count(work: Path) -> list[object]:
    """A keyed count and sum over two million generated records, one row a key at the end."""
    import millstream as mill
    from millstream import col

    events = mill.generate(rows=ROWS, key=(mill.index() * 7919) % KEYS, value=mill.index() % 1000)
    totals = events.key_by("key").agg(n=mill.count(), total=col("value").sum(), emit="end")
    return [totals.write_csv(work / "out")]


def running(work: Path) -> list[object]:
    """The same count as an updating stream into a keyed SQLite table."""
    import millstream as mill
    from millstream import col

    events = mill.generate(rows=ROWS, key=(mill.index() * 7919) % KEYS, value=mill.index() % 1000)
    totals = events.key_by("key").agg(n=mill.count(), total=col("value").sum(), emit="checkpoint")
    (work / "out").mkdir(parents=True, exist_ok=True)
    return [totals.write_sqlite(work / "out" / "totals.db", "totals", key="key")]


def rows(work: Path) -> list[object]:
    """Every record of a filtered stream, as it is: what is lost or repeated shows as a row."""
    import millstream as mill
    from millstream import col

    events = mill.generate(rows=ROWS // 4, value=mill.index())
    return [events.filter(col("value") % 3 == 0).write_csv(work / "out")]


JOBS: dict[str, Callable[[Path], list[object]]] = {"flights": flights, "count": count, "running": running, "rows": rows}


def committed(work: Path) -> list[str]:
    """All rows that are visible in the output, as sorted lines."""
    found: list[str] = []
    out = work / "out"
    for path in sorted(out.rglob("*")):
        if path.name.startswith(".") or not path.is_file():
            continue
        label = path.parent.relative_to(out).as_posix()
        if path.suffix == ".csv":
            with path.open(newline="") as file:
                found += [f"{label}|{','.join(row)}" for row in list(csv.reader(file))[1:]]
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            found += [f"{label}|{row!r}" for row in pq.read_table(path).to_pylist()]
        elif path.suffix == ".json":
            found += [f"{label}|{line}" for line in path.read_text().splitlines()]
        elif path.suffix == ".db":
            with sqlite3.connect(path) as database:
                found += [f"{label}|{row!r}" for row in database.execute("SELECT * FROM totals")]
    return sorted(found)


def main() -> None:
    """Run one job to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=sorted(JOBS))
    parser.add_argument("work", type=Path)
    parser.add_argument("--mode", default="exactly_once")
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--every", default="20ms")
    arguments = parser.parse_args()

    import millstream as mill

    checkpoint = mill.Checkpoint(arguments.work / "state", every=arguments.every, mode=arguments.mode)
    mill.run(*JOBS[arguments.job](arguments.work), checkpoint=checkpoint, parallelism=arguments.parallelism)


if __name__ == "__main__":
    main()
