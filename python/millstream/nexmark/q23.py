"""Query 23: bids by persons who have opened auctions themselves, with person and auctions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.nexmark._kept import ttl_of

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["ABOUT", "SQL", "query"]

ABOUT = "bids with their bidder and the auctions that the bidder has opened"
SQL = """
SELECT bidder, price, channel, url, B.extra AS bid_extra,
    P.id AS person_id, name, email_address, credit_card, city, state, P.extra AS person_extra,
    item_name, description, initial_bid, reserve, A.date_time AS auction_date_time, expires,
    seller, category, A.extra AS auction_extra
FROM bid B JOIN person P ON P.id = B.bidder JOIN auction A ON A.seller = B.bidder
"""


def query(events: Nexmark) -> Stream:
    """Return the columns of all three; names that several have begin with ``bid_``, ``person_`` or ``auction_``."""
    ttl = ttl_of(events)
    bids = events.bids.drop("auction").rename({"date_time": "bid_date_time", "extra": "bid_extra"})
    persons = events.persons.rename({"id": "person_id", "date_time": "person_date_time", "extra": "person_extra"})
    auctions = events.auctions.drop("id").rename({"date_time": "auction_date_time", "extra": "auction_extra"})
    bidders = bids.join(persons, left_on="bidder", right_on="person_id", ttl=ttl)
    both = bidders.join(auctions, left_on="bidder", right_on="seller", ttl=ttl)
    return both.drop("bid_date_time", "person_date_time")
