"""An alert when a small payment is followed by a large one on the same card, with state and timers of each card.

A payment of less than 1 tells a thief that a card works. A payment of more than 500 within a minute of one is an alert. A timer
forgets the small payment after the minute. The job is exactly once: kill it, run it again, and it continues.

    python examples/fraud_alert.py [--rows 100000] [--output out/alerts] [--state state/alerts]
"""

import argparse
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import millstream as mill
from millstream import col, lit

START = datetime(2024, 3, 1)
MINUTE = timedelta(minutes=1)


def payments(rows: int) -> mill.Stream:
    """Made-up payments: 500 cards, a payment a second, one in 50 small and one in 40 large."""
    index = mill.index()
    amount = mill.when(index % 50 == 7).then(0.5).when(index % 40 == 3).then(700.0).otherwise(20.0)
    at = lit(START) + index.cast(mill.types.Duration("s"))
    return mill.generate(rows=rows, card=(index // 9 * 7919 + index % 3) % 500, amount=amount, at=at)


class Fraud(mill.ProcessFunction):
    """Remembers when each card last had a small payment."""

    small = mill.ValueState(datetime)

    def process(self, row: mill.Row, ctx: mill.ProcessContext) -> Iterator[dict[str, object]]:
        small = self.small.value
        if row.amount > 500 and small is not None and row.at - small <= MINUTE:
            yield {"card": ctx.key, "at": row.at, "amount": row.amount, "after": row.at - small}
        if row.amount < 1:
            if small is not None:
                ctx.timers.delete_event_time(small + MINUTE)
            self.small.value = row.at
            ctx.timers.event_time(row.at + MINUTE)

    def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> None:
        # A payment that has come since, but is later than the timer, set a timer of its own.
        if self.small.value == at - MINUTE:
            self.small.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=Path("out/alerts"))
    parser.add_argument("--state", type=Path, default=Path("state/alerts"))
    parser.add_argument("--parallelism", type=int, default=None)
    options = parser.parse_args()

    alerts = (
        payments(options.rows)
        .event_time("at")
        .key_by("card")
        .process(Fraud(), schema={"card": int, "at": datetime, "amount": float, "after": timedelta})
        .name("fraud")
    )
    report = mill.run(
        alerts.write_parquet(options.output),
        checkpoint=mill.Checkpoint(options.state, every="200ms"),
        parallelism=options.parallelism,
        progress=True,
    )
    print(report)
    mill.read_parquet(options.output).filter(col("after") < timedelta(seconds=30)).show(5)


if __name__ == "__main__":
    main()
