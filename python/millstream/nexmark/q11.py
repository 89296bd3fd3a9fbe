"""Query 11: how many bids each user makes in a session, which ends after ten seconds without a bid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import count
from millstream.window import session

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids of each user and session, gap 10 s"
SQL = """
WITH steps AS (
    SELECT bidder, date_time, date_time - lag(date_time) OVER w >= INTERVAL 10 SECOND AS is_new
    FROM bid WINDOW w AS (PARTITION BY bidder ORDER BY date_time)
), numbered AS (
    SELECT bidder, date_time, sum(coalesce(is_new, true)::INT) OVER (PARTITION BY bidder ORDER BY date_time) AS number FROM steps
)
SELECT bidder, count(*) AS bid_count, min(date_time) AS starttime, max(date_time) + INTERVAL 10 SECOND AS endtime
FROM numbered GROUP BY bidder, number
"""


def query(events: Nexmark) -> Stream:
    """Return ``bidder``, ``bid_count``, ``starttime`` and ``endtime`` of each session."""
    sessions = events.bids.key_by("bidder").window(session("10s")).agg(bid_count=count())
    return sessions.rename({"window_start": "starttime", "window_end": "endtime"})
