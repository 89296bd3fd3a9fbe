"""Query 6: the mean of the last eleven winning prices of each seller, rounded down, with each auction that was won.

The winning bid of an auction is the highest one that came while it was open, of several the earliest. It is final when the
events end, so they have to be bounded. Auctions that were won at the same time are in the order of their numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.expr import col
from millstream.nexmark._kept import bids_in_time, check_bounded
from millstream.window import global_window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the mean of the last winning prices of each seller"
SQL = """
WITH winning AS (
    SELECT A.id, A.seller, B.price, B.date_time
    FROM auction A JOIN bid B ON A.id = B.auction AND B.date_time BETWEEN A.date_time AND A.expires
    QUALIFY row_number() OVER (PARTITION BY A.id ORDER BY B.price DESC, B.date_time, B.extra DESC) = 1
)
SELECT seller, (sum(price) OVER w)::BIGINT // count(*) OVER w AS avg_price
FROM winning
WINDOW w AS (PARTITION BY seller ORDER BY date_time, id ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
"""

_ROWS = 11


def query(events: Nexmark) -> Stream:
    """Return ``seller`` and ``avg_price``, once for each auction that was won."""
    check_bounded(events, "q6")
    bids = bids_in_time(events, ("auction", "price", "date_time", "extra"), ("id", "seller", "date_time", "expires"))
    by = ["price", "bid_date_time", "bid_extra"]
    winning = bids.key_by("auction", "seller").top_n(1, by=by, descending=[True, False, True])
    won = winning.select("seller", "auction", "price", at=col("bid_date_time").cast(int))
    return won.key_by("seller").window(global_window()).apply(_means, schema={"avg_price": int}).select("seller", "avg_price")


def _means(key: Any, window: Any, rows: Any) -> Iterator[dict[str, int]]:
    """Return the mean of each price and the ten before it."""
    # A seller has a few rows: Python sorts them before Arrow would have begun.
    columns = (rows.column(name).to_pylist() for name in ("at", "auction", "price"))
    prices = [price for _, _, price in sorted(zip(*columns, strict=True))]
    for end in range(1, len(prices) + 1):
        last = prices[max(0, end - _ROWS) : end]
        yield {"avg_price": sum(last) // len(last)}
