"""Query 12: how many bids each user makes in ten seconds of processing time.

The result depends on when the bids are processed, so no query over a table asks the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import count, now
from millstream.window import tumbling

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids of each user and 10 s of processing time"
SQL = None


def query(events: Nexmark) -> Stream:
    """Return ``bidder``, ``bid_count``, ``starttime`` and ``endtime``."""
    bids = events.bids.select("bidder", p_time=now()).event_time("p_time")
    counts = bids.key_by("bidder").window(tumbling("10s")).agg(bid_count=count())
    return counts.rename({"window_start": "starttime", "window_end": "endtime"})
