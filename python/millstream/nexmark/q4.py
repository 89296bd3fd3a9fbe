"""Query 4: the mean of the winning prices of each category, rounded down.

The winning price of an auction is the highest one that was bid while it was open. It is final when the events end, so they
have to be bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col, count
from millstream.nexmark._kept import bids_in_time, check_bounded

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the mean winning price of each category"
SQL = """
SELECT category, sum(final)::BIGINT // count(*) AS final
FROM (
    SELECT max(B.price) AS final, A.category
    FROM auction A JOIN bid B ON A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires
    GROUP BY A.id, A.category
)
GROUP BY category
"""


def query(events: Nexmark) -> Stream:
    """Return ``category`` and ``final``."""
    check_bounded(events, "q4")
    bids = bids_in_time(events, ("auction", "price", "date_time"), ("id", "category", "date_time", "expires"))
    winning = bids.key_by("auction", "category").agg(final=col("price").max())
    totals = winning.key_by("category").agg(total=col("final").sum(), auctions=count())
    return totals.select("category", final=col("total") // col("auctions"))
