"""Query 13: look each bid up in a table of 10,000 rows, which is read before the first bid passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col
from millstream.io import generate, index

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids with a value from a table of 10,000 rows"
SQL = """
SELECT auction, bidder, price, date_time, value
FROM bid JOIN (SELECT range AS key, range::VARCHAR AS value FROM range(10000)) ON auction % 10000 = key
"""

_ROWS = 10_000


def query(events: Nexmark) -> Stream:
    """Return ``auction``, ``bidder``, ``price``, ``date_time`` and ``value``."""
    table = generate(rows=_ROWS, key=index(), value=index().cast(str))
    bids = events.bids.select("auction", "bidder", "price", "date_time")
    found = bids.enrich(table, left_on=col("auction") % _ROWS, right_on="key")
    return found.select("auction", "bidder", "price", "date_time", "value")
