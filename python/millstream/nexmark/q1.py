"""Query 1: convert the price of each bid from dollars to euros, as an exact decimal."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from millstream.expr import col, lit

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the price of each bid in euros"
SQL = "SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid"


def query(events: Nexmark) -> Stream:
    """Return the bids with prices in euros."""
    euros = lit(Decimal("0.908")) * col("price")
    return events.bids.select("auction", "bidder", "date_time", "extra", price=euros)
