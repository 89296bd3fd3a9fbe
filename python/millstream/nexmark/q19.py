"""Query 19: the ten highest bids of each auction.

Of several bids of the same price the reference ranks any first. Here it is the earliest one, then that whose text is the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the ten highest bids of each auction"
SQL = """
SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time ASC, extra DESC) AS rank_number
FROM bid
QUALIFY rank_number <= 10
"""


def query(events: Nexmark) -> Stream:
    """Return the bids with their ``rank_number``."""
    bids = events.bids.key_by("auction").top_n(10, by=["price", "date_time", "extra"], descending=[True, False, True])
    return bids.rename({"rank": "rank_number"})
