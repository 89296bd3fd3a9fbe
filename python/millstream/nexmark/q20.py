"""Query 20: bids on auctions of category 10, with all that is known of the auction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col
from millstream.nexmark._kept import ttl_of

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids in category 10 with their auction"
SQL = """
SELECT auction, bidder, price, channel, url, B.date_time AS bid_date_time, B.extra AS bid_extra,
    item_name, description, initial_bid, reserve, A.date_time AS auction_date_time, expires,
    seller, category, A.extra AS auction_extra
FROM bid B JOIN auction A ON B.auction = A.id
WHERE A.category = 10
"""


def query(events: Nexmark) -> Stream:
    """Return the columns of both; ``date_time`` and ``extra`` are called ``bid_date_time``, ``auction_extra`` and so on."""
    own = {name: f"auction_{name}" for name in ("date_time", "extra")}
    auctions = events.auctions.filter(col("category") == 10).rename(own)
    bids = events.bids.rename({name: f"bid_{name}" for name in own})
    return bids.join(auctions, left_on="auction", right_on="id", ttl=ttl_of(events)).drop("id")
