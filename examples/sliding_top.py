"""Hot items: the three items with the most bids of the last ten seconds, every two seconds, as in query 5 of Nexmark.

Two steps: bids are counted by item and window, then the counts of each window are compared.

    python examples/sliding_top.py [--rows 1000000] [--output out/hot]
"""

import argparse
from datetime import datetime
from pathlib import Path

import millstream as mill
from millstream import col, lit

START = datetime(2024, 3, 1)


def bids(rows: int) -> mill.Stream:
    """Made-up bids, 10,000 a second, on items that come and go."""
    index = mill.index()
    item = index // 30_000 * 10 + index * index % 101 % 40
    made = mill.generate(rows=rows, item=item, since=index // 10)
    at = lit(START) + col("since").cast(mill.types.Duration("ms"))
    return made.select("item", at=at.cast(mill.Timestamp("ms")))


def hot(rows: int) -> mill.Stream:
    """The three items with the most bids of each window."""
    counted = (
        bids(rows)
        .event_time("at", watermark="1s")
        .key_by("item")
        .window(mill.sliding("10s", slide="2s"))
        .agg(bids=mill.count())
        .name("counts")
    )
    # All counts of a window have one event time, so two seconds hold those of one window. Of equal counts the item with the
    # smaller number comes first.
    bounds = counted.select("item", "bids", since="window_start", until="window_end")
    best = bounds.key_by("since", "until").top_n(3, by=[col("bids"), -col("item")], within=mill.tumbling("2s"))
    return best.select("since", "until", "rank", "item", "bids")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path("out/hot"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()
    print(mill.run(hot(options.rows).write_json(options.output), parallelism=options.parallelism, progress=True))
    mill.read_json(options.output).show(5)


if __name__ == "__main__":
    main()
