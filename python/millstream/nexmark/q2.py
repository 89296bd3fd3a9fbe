"""Query 2: the bids on certain auctions, of which there are as many as one in 123."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the bids on certain auctions"
SQL = "SELECT auction, price FROM bid WHERE auction % 123 = 0"


def query(events: Nexmark) -> Stream:
    """Return auction and price of these bids."""
    return events.bids.filter(col("auction") % 123 == 0).select("auction", "price")
