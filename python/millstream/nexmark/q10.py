"""Query 10: all bids with their day and minute, by which a log is divided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "all bids with day and minute, for a log"
SQL = """
SELECT auction, bidder, price, date_time, extra, strftime(date_time, '%Y-%m-%d') AS dt, strftime(date_time, '%H:%M') AS hm
FROM bid
"""


def query(events: Nexmark) -> Stream:
    """Return the bids with ``dt`` and ``hm``."""
    at = col("date_time").dt
    return events.bids.select(
        "auction", "bidder", "price", "date_time", "extra", dt=at.strftime("%Y-%m-%d"), hm=at.strftime("%H:%M")
    )
