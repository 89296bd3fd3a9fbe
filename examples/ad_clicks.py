"""Which ads are clicked: impressions joined with the clicks of the next five minutes, exactly once into Parquet.

An impression that is clicked has a row for each click; one that is not has a row with nulls, once no click can come any more. Clicks come
up to a minute out of order; a few come long after their ad, and some an hour late.

    python examples/ad_clicks.py [--rows 200000] [--output out/ads] [--state state/ads]
"""

import argparse
from datetime import datetime
from pathlib import Path

import millstream as mill
from millstream import col, lit

START = datetime(2024, 3, 1)


def at(milliseconds: mill.Expr) -> mill.Expr:
    """Return so many milliseconds after the start as a time."""
    return (lit(START) + milliseconds.cast(mill.types.Duration("ms"))).cast(mill.Timestamp("ms"))


def impressions(rows: int) -> mill.Stream:
    """Return made-up impressions of 40 campaigns, one every 100 ms."""
    index = mill.index()
    return mill.generate(rows=rows, impression=index, campaign=index * 7919 % 40, at=at(index * 100))


def clicks(rows: int) -> mill.Stream:
    """Return made-up clicks on every fifth impression."""
    index = mill.index()
    delay = index * 104_729 % 360_000
    out_of_order = mill.when(index % 997 == 0).then(3_600_000).otherwise(0)
    made = mill.generate(
        rows=rows // 5,
        impression=index * 5,
        user=index * 31 % 1_000,
        since=index * 500 + delay,
        out_of_order=out_of_order,
    )
    # A click is read when it happens; its time is that of a clock which is an hour slow now and then.
    return made.select("impression", "user", at=at(col("since") - col("out_of_order")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--output", type=Path, default=Path("out/ads"))
    parser.add_argument("--state", type=Path, default=Path("state/ads"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()

    shown = (
        impressions(options.rows)
        .event_time("at")
        .join_interval(
            clicks(options.rows).event_time("at", watermark="6m"), on="impression", lower="0s", upper="5m", how="left"
        )
        .name("clicked")
    )
    report = mill.run(
        shown.write_parquet(options.output / "shown"),
        shown.late_right.write_parquet(options.output / "late"),
        checkpoint=mill.Checkpoint(options.state, every="200ms"),
        parallelism=options.parallelism,
        progress=True,
    )
    print(report)
    mill.read_parquet(options.output / "shown").show(5)


if __name__ == "__main__":
    main()
