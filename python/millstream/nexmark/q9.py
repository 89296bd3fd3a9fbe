"""Query 9: the winning bid of each auction: the highest one that came while it was open, of several the earliest.

Of several at the same time the reference takes any. Here it is the one whose text is the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.nexmark._kept import bids_in_time

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the winning bid of each auction"
SQL = """
SELECT A.*, B.auction, B.bidder, B.price, B.date_time AS bid_date_time, B.extra AS bid_extra
FROM auction A JOIN bid B ON A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires
QUALIFY row_number() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.date_time ASC, B.extra DESC) <= 1
"""


def query(events: Nexmark) -> Stream:
    """Return all columns of the auction, and of the bid ``auction``, ``bidder``, ``price``, ``bid_date_time``, ``bid_extra``."""
    columns = tuple(events.auctions.schema.names)
    bids = bids_in_time(events, ("auction", "bidder", "price", "date_time", "extra"), columns)
    return bids.key_by("auction").top_n(1, by=["price", "bid_date_time", "bid_extra"], descending=[True, False, True])
