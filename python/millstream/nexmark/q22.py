"""Query 22: the folders in the address of each bid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the folders in the address of each bid"
SQL = """
SELECT auction, bidder, price, channel,
    split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM bid
"""


def query(events: Nexmark) -> Stream:
    """Return ``auction``, ``bidder``, ``price``, ``channel`` and three folders."""
    parts = col("url").str.split("/").list
    return events.bids.select(
        "auction", "bidder", "price", "channel", dir1=parts.get(3), dir2=parts.get(4), dir3=parts.get(5)
    )
