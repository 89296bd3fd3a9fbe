"""Query 8: who has signed up and opened an auction within the same ten seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.window import tumbling

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "new persons who opened an auction within the same 10 s"
SQL = """
WITH p AS (
    SELECT DISTINCT id, name, time_bucket(INTERVAL 10 SECOND, date_time) AS starttime FROM person
), a AS (
    SELECT DISTINCT seller, time_bucket(INTERVAL 10 SECOND, date_time) AS starttime FROM auction
)
SELECT p.id, p.name, p.starttime FROM p JOIN a ON p.id = a.seller AND p.starttime = a.starttime
"""


def query(events: Nexmark) -> Stream:
    """Return ``id``, ``name`` and ``starttime``, once for each person."""
    persons = events.persons.select("id", "name", "date_time")
    sellers = events.auctions.select("seller", "date_time")
    both = persons.join(sellers, left_on="id", right_on="seller", window=tumbling("10s"), how="semi")
    return both.select("id", "name", starttime="window_start")
