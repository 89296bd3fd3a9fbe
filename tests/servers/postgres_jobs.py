"""Jobs that a test starts as processes, to kill them.

    python postgres_jobs.py windows URL IN TABLE STATE --parallelism 2
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import millstream as mill
from millstream import col


def windows(given: argparse.Namespace) -> mill.Output:
    """Counts by key and minute, appended."""
    events = mill.read_csv(given.source, schema={"key": str, "at": "timestamp[us]", "x": int})
    counted = events.event_time("at", watermark="10s").key_by("key").window(mill.tumbling("1m")).agg(n=mill.count(), total=col("x").sum())
    return counted.write_postgres(given.url, given.target, via=given.via)


def latest(given: argparse.Namespace) -> mill.Output:
    """Running counts by key, replaced, and deleted once they are a multiple of 5."""
    events = mill.read_csv(given.source, schema={"key": str, "at": "timestamp[us]", "x": int})
    counted = events.key_by("key").agg(n=mill.count(), total=col("x").sum(), emit="each")
    return counted.filter(col("n") % 5 != 0).write_postgres(given.url, given.target, key="key", via=given.via)


def table(given: argparse.Namespace) -> mill.Output:
    """A table into another."""
    return mill.read_postgres(given.url, given.source).write_postgres(given.url, given.target)


def growing(given: argparse.Namespace) -> mill.Output:
    """The rows that are added to a table, into another."""
    return mill.read_postgres(given.url, given.source, follow=True).write_postgres(given.url, given.target)


def changes(given: argparse.Namespace) -> mill.Output:
    """A table that is followed into another; the source is the name of its schema, publication and slot."""
    stream = mill.read_postgres_changes(given.url, given.source, given.source)
    return stream.write_postgres(given.url, f"{given.target}.out", key="id")


def changelog(given: argparse.Namespace) -> mill.Output:
    """The changes of a table, appended one by one."""
    stream = mill.read_postgres_changes(given.url, given.source, given.source)
    return stream.to_changelog().write_postgres(given.url, f"{given.target}.log")


JOBS = {"windows": windows, "latest": latest, "table": table, "growing": growing, "changes": changes, "changelog": changelog}


def main() -> None:
    """Run a job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=list(JOBS))
    for name in ("url", "source", "target", "state"):
        parser.add_argument(name)
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--every", default="30ms")
    parser.add_argument("--via", default="auto")
    given = parser.parse_args()
    sink = JOBS[given.job](given)
    print(mill.run(sink, checkpoint=mill.Checkpoint(given.state, every=given.every), parallelism=given.parallelism).status)


if __name__ == "__main__":
    main()
