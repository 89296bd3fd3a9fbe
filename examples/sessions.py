"""Visits out of clicks: session windows, with the late clicks apart, exactly once into Parquet.

A visit of a user ends when there has been no click for 30 minutes. Clicks come up to a minute out of order; a few come hours late.

    python examples/sessions.py [--rows 200000] [--output out/visits] [--state state/visits]
"""

import argparse
from datetime import datetime
from pathlib import Path

import millstream as mill
from millstream import col, lit

START = datetime(2024, 3, 1)


def clicks(rows: int) -> mill.Stream:
    """Made-up clicks: 2,000 users, a click every 300 ms on average."""
    index = mill.index()
    out_of_order = index * 7919 % 60_000
    lateness = mill.when(index % 1009 == 0).then(5 * 3_600_000).otherwise(0)
    milliseconds = index * 300 - out_of_order - lateness
    made = mill.generate(
        rows=rows,
        user=index * 104_729 % 2_000 * (index // 40_000 % 3 + 1) % 2_000,
        page=index * 31 % 17,
        since=milliseconds,
    )
    at = lit(START) + col("since").cast(mill.types.Duration("ms"))
    return made.select("user", "page", at=at.cast(mill.Timestamp("ms")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--output", type=Path, default=Path("out/visits"))
    parser.add_argument("--state", type=Path, default=Path("state/visits"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()

    visits = (
        clicks(options.rows)
        .event_time("at", watermark="1m")
        .key_by("user")
        .window(mill.session("30m"))
        .agg(
            clicks=mill.count(),
            pages=col("page").n_unique(),
            entry=col("page").first(),
            exit=col("page").last(),
        )
        .name("visits")
    )
    report = mill.run(
        visits.write_parquet(options.output / "visits"),
        visits.late.write_parquet(options.output / "late"),
        checkpoint=mill.Checkpoint(options.state, every="200ms"),
        parallelism=options.parallelism,
        progress=True,
    )
    print(report)
    mill.read_parquet(options.output / "visits").show(5)


if __name__ == "__main__":
    main()
