"""Query 18: the last bid of each bidder on each auction.

Of several bids at the same time the reference takes any. Here it is the one with the highest price, then that whose text is the
last, so that the result is the same in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the last bid of each bidder on each auction"
SQL = """
SELECT auction, bidder, price, channel, url, date_time, extra
FROM bid
QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price DESC, extra DESC) <= 1
"""


def query(events: Nexmark) -> Stream:
    """Return the last bids; their ``rank`` is 1."""
    return events.bids.key_by("bidder", "auction").top_n(1, by=["date_time", "price", "extra"])
