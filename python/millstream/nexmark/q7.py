"""Query 7: the highest bid of every ten seconds.

As in the reference, the greatest price of each window is joined with the bids of that price from its start to its end, both
included: a bid at the very end of a window, which is in the next one, counts if it has the price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col
from millstream.window import tumbling

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the highest bids of every 10 s"
SQL = """
WITH highest AS (
    SELECT max(price) AS most, time_bucket(INTERVAL 10 SECOND, date_time) AS starttime FROM bid GROUP BY ALL
)
SELECT auction, price, bidder, date_time, extra
FROM bid JOIN highest ON price = most AND date_time BETWEEN starttime AND starttime + INTERVAL 10 SECOND
"""


def query(events: Nexmark) -> Stream:
    """Return ``auction``, ``price``, ``bidder``, ``date_time`` and ``extra`` of the highest bids."""
    bids = events.bids.select("auction", "price", "bidder", "date_time", "extra")
    highest = bids.window_all(tumbling("10s")).agg(most=col("price").max())
    # The time of a window's row is one microsecond before its end.
    both = bids.join_interval(highest, left_on="price", right_on="most", lower="-1us", upper="9999999us")
    return both.select("auction", "price", "bidder", "date_time", "extra")
