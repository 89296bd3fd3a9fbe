"""Query 0: pass all bids on.

It measures what an engine costs that has nothing to do::

    SELECT auction, bidder, price, date_time, extra FROM bid
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "all bids as they are"
SQL = "SELECT auction, bidder, price, date_time, extra FROM bid"


def query(events: Nexmark) -> Stream:
    """Return all bids."""
    return events.bids.select("auction", "bidder", "price", "date_time", "extra")
