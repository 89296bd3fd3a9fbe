"""Query 16: bids, different bidders and different auctions of each channel and day, by the level of the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col
from millstream.nexmark._ranks import SQL_BIDS, SQL_DISTINCT, by_rank, distinct

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids, bidders and auctions of each channel and day by price"
SQL = f"""
SELECT channel, strftime(date_time, '%Y-%m-%d') AS day, max(strftime(date_time, '%H:%M')) AS minute, {SQL_BIDS}, {SQL_DISTINCT}
FROM bid GROUP BY ALL
"""


def query(events: Nexmark) -> Stream:
    """Return ``channel``, ``day``, ``minute`` (the last one), and what query 15 returns."""
    at = col("date_time").dt
    channels = events.bids.key_by("channel", day=at.strftime("%Y-%m-%d"))
    return channels.agg(*by_rank(), *distinct(), minute=at.strftime("%H:%M").max())
