"""Peak memory of long jobs: each runs in a process of its own, which prints what it used.

python benches/jobs/memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

JOBS = ("count", "parquet")


def count() -> None:
    """100 million generated records through a keyed count of 10,000 keys."""
    import millstream as mill

    table = mill.generate(rows=100_000_000, key=mill.index() % 10_000).key_by("key").agg(n=mill.count()).collect()
    assert len(table) == 10_000
    assert {row["n"] for row in table.to_pylist()} == {10_000}


def parquet() -> None:
    """10 million rows of Parquet through a filter and a window."""
    import millstream as mill
    from millstream import col

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events"
        subprocess.run([sys.executable, __file__, "--make", str(path)], check=True)
        events = mill.read_parquet(path).event_time("at", watermark="1s").filter(col("value") % 2 == 0)
        windows = events.key_by("key").window(mill.tumbling("1m")).agg(n=mill.count(), top=col("value").max())
        report = mill.run(windows.write_parquet(Path(folder) / "out"))
        print(report)


def make(path: Path) -> None:
    """The Parquet input, in a process of its own so that it does not count."""
    import millstream as mill

    base = mill.generate(rows=10_000_000, value=mill.index(), key=mill.index() % 1000, at=(mill.index() * 10).cast(mill.Timestamp("ms")))
    mill.run(base.write_parquet(path))


def main() -> None:
    """Run all jobs, or the one named."""
    if sys.argv[1:2] == ["--make"]:
        make(Path(sys.argv[2]))
        return
    if sys.argv[1:]:
        {"count": count, "parquet": parquet}[sys.argv[1]]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"{sys.argv[1]}: peak resident {peak / 1024:.0f} MB")
        return
    for job in JOBS:
        subprocess.run([sys.executable, __file__, job], check=True)


if __name__ == "__main__":
    main()
