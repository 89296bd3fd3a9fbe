"""Query 17: how many bids each auction has a day, by the level of the price, and what the prices are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col
from millstream.nexmark._ranks import SQL_BIDS, by_rank

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids and prices of each auction and day"
SQL = f"""
SELECT auction, strftime(date_time, '%Y-%m-%d') AS day, {SQL_BIDS}, min(price) AS min_price, max(price) AS max_price,
    sum(price)::BIGINT // count(*) AS avg_price, sum(price)::BIGINT AS sum_price
FROM bid GROUP BY ALL
"""


def query(events: Nexmark) -> Stream:
    """Return ``auction``, ``day``, the counts, and ``min_price``, ``max_price``, ``avg_price`` (rounded down) and ``sum_price``."""
    price = col("price")
    auctions = events.bids.key_by("auction", day=col("date_time").dt.strftime("%Y-%m-%d"))
    totals = auctions.agg(*by_rank(), min_price=price.min(), max_price=price.max(), sum_price=price.sum())
    return totals.with_columns(avg_price=col("sum_price") // col("total_bids"))
