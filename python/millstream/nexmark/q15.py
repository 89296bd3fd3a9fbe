"""Query 15: bids, different bidders and different auctions of each day, by the level of the price."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col
from millstream.nexmark._ranks import SQL_BIDS, SQL_DISTINCT, by_rank, distinct

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids, bidders and auctions of each day by price"
SQL = f"SELECT strftime(date_time, '%Y-%m-%d') AS day, {SQL_BIDS}, {SQL_DISTINCT} FROM bid GROUP BY ALL"


def query(events: Nexmark) -> Stream:
    """Return ``day``, ``total_bids``, ``rank1_bids``, …, and the same for ``bidders`` and ``auctions``."""
    days = events.bids.key_by(day=col("date_time").dt.strftime("%Y-%m-%d"))
    return days.agg(*by_rank(), *distinct())
