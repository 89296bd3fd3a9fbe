"""Query 21: the number of each bid's channel, by its name or from the address.

Bids without a number are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream._conditions import when
from millstream.expr import col, lit

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "the number of each bid's channel"
SQL = r"""
SELECT auction, bidder, price, channel,
    CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
         ELSE nullif(regexp_extract(url, '(&|^)channel_id=([^&]*)', 2), '') END AS channel_id
FROM bid
WHERE channel_id IS NOT NULL
"""


def query(events: Nexmark) -> Stream:
    """Return ``auction``, ``bidder``, ``price``, ``channel`` and ``channel_id``."""
    name = col("channel").str.to_lowercase()
    number = (
        when(name == "apple")
        .then(lit("0"))
        .when(name == "google")
        .then(lit("1"))
        .when(name == "facebook")
        .then(lit("2"))
        .when(name == "baidu")
        .then(lit("3"))
        .otherwise(col("url").str.extract("(&|^)channel_id=([^&]*)", 2))
    )
    bids = events.bids.select("auction", "bidder", "price", "channel", channel_id=number)
    return bids.filter(col("channel_id").is_not_null())
