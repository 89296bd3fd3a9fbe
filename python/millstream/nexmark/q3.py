"""Query 3: who sells what in category 10 in Oregon, Idaho and California."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.expr import col
from millstream.nexmark._kept import ttl_of

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "sellers of certain states, and what they sell in category 10"
SQL = """
SELECT P.name, P.city, P.state, A.id
FROM auction A JOIN person P ON A.seller = P.id
WHERE A.category = 10 AND P.state IN ('OR', 'ID', 'CA')
"""


def query(events: Nexmark) -> Stream:
    """Return ``name``, ``city``, ``state`` and the ``id`` of the auction."""
    auctions = events.auctions.filter(col("category") == 10).select("id", "seller", "date_time")
    persons = events.persons.filter(col("state").is_in(["OR", "ID", "CA"])).select("id", "name", "city", "state", "date_time")
    both = auctions.join(persons, left_on="seller", right_on="id", ttl=ttl_of(events), suffix="_of_person")
    return both.select("name", "city", "state", "id")
