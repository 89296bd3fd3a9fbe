"""Query 14: bids within bounds, with their price in euros, the time of day, and how often a letter occurs in a text."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from millstream._conditions import when
from millstream.expr import col, lit

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids within bounds, with calculated columns"
SQL = """
SELECT auction, bidder, 0.908 * price AS price,
    CASE WHEN hour(date_time) BETWEEN 8 AND 18 THEN 'dayTime'
         WHEN hour(date_time) <= 6 OR hour(date_time) >= 20 THEN 'nightTime'
         ELSE 'otherTime' END AS bid_time_type,
    date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
"""


def query(events: Nexmark) -> Stream:
    """Return ``auction``, ``bidder``, ``price``, ``bid_time_type``, ``date_time``, ``extra`` and ``c_counts``."""
    hour, price = col("date_time").dt.hour(), col("price")
    bids = events.bids.with_columns(price=lit(Decimal("0.908")) * price)
    return bids.filter((price > 1_000_000) & (price < 50_000_000)).select(
        "auction",
        "bidder",
        "price",
        "date_time",
        "extra",
        bid_time_type=when(hour.is_between(8, 18))
        .then(lit("dayTime"))
        .when((hour <= 6) | (hour >= 20))
        .then(lit("nightTime"))
        .otherwise(lit("otherTime")),
        c_counts=col("extra").str.count_matches("c", literal=True),
    )
