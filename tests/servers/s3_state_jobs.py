"""Jobs whose checkpoints are in an object store, which a test starts as processes, to kill them.

    python s3_state_jobs.py ENDPOINT STATE OUT --rows 3000 --parallelism 2
"""

from __future__ import annotations

import argparse
import collections
import os
import time
from datetime import datetime, timedelta
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import s3

import millstream as mill

KEYS = 7


def slowly(batch: Any) -> Any:
    """Take so long that a run has several checkpoints."""
    time.sleep(len(batch) * 0.0005)
    return batch


def sums(source: mill.Stream) -> mill.Stream:
    """Sum up by key and window: what is lost or counted twice changes a sum."""
    timed = source.with_columns(t=mill.lit(datetime(2024, 1, 1)) + mill.col("n") * mill.lit(timedelta(seconds=1)))
    windows = timed.event_time("t", watermark="1m").key_by(k=mill.col("n") % KEYS).window(mill.tumbling("1m"))
    return windows.agg(total=mill.col("n").sum(), count=mill.count(), least=mill.col("n").min()).name("sums")


def wide(source: mill.Stream) -> mill.Stream:
    """Return rows that are so long that those of an epoch are in a file of the state directory."""
    return source.select("n", text=mill.col("n").cast(str) + mill.lit(":" + "x" * 5_000))


def expected(rows: int) -> list[tuple[int, int, int]]:
    """Return what :func:`sums` gives, by plain counting: least number, how many, and sum."""
    found = collections.defaultdict(list)
    for n in range(rows):
        found[n % KEYS, n // 60].append(n)
    return sorted((numbers[0], len(numbers), sum(numbers)) for numbers in found.values())


def main() -> None:
    """Sum up numbers into JSON."""
    parser = argparse.ArgumentParser()
    for name in ("endpoint", "state", "target"):
        parser.add_argument(name)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--every", default="20ms")
    parser.add_argument("--table", help="of a database, or the topic of a broker, instead of objects")
    given = parser.parse_args()
    mill.storage({**s3.OPTIONS, "aws_endpoint": given.endpoint})
    numbers = mill.generate(rows=given.rows, n=mill.index()).map_batches(slowly)
    if given.table is None:
        sink = sums(numbers).write_json(given.target)
    elif given.target.startswith("postgresql"):
        sink = wide(numbers).write_postgres(given.target, given.table)
    else:
        sink = wide(numbers).write_kafka(given.target, given.table, format="json")
    checkpoint = mill.Checkpoint(given.state, every=given.every)
    print(mill.run(sink, checkpoint=checkpoint, parallelism=given.parallelism).status)


if __name__ == "__main__":
    main()
