"""How long a join without windows keeps its rows: of bounded events all of them, as the reference does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.errors import PlanError
from millstream.expr import col

if TYPE_CHECKING:
    from millstream.nexmark import Nexmark
    from millstream.stream import Stream

__all__ = ["bids_in_time", "check_bounded", "ttl_of"]

_TTL = "1h"


def ttl_of(events: Nexmark) -> str | None:
    """Return for how long rows are kept."""
    return None if events.bids.is_bounded else _TTL


def check_bounded(events: Nexmark, name: str) -> None:
    """Refuse events without end for a query over winning bids, each of which could change as long as there are events."""
    if not events.bids.is_bounded:
        raise PlanError(
            f"query {name} takes the mean of winning bids, which are known when the events end; give it bounded events, as in "
            "mill.nexmark(events=1_000_000)"
        )


def bids_in_time(events: Nexmark, bids: tuple[str, ...], auctions: tuple[str, ...]) -> Stream:
    """Return the bids that came while their auction was open, with columns of both.

    The columns of the bid are called ``auction``, ``price``, ``bid_date_time`` and ``bid_extra``; those of the auction keep their
    names.
    """
    left = events.bids.select(*bids).rename({name: f"bid_{name}" for name in ("date_time", "extra") if name in bids})
    right = events.auctions.select(*auctions)
    both = left.join(right, left_on="auction", right_on="id", ttl=ttl_of(events))
    return both.filter(col("bid_date_time").is_between("date_time", "expires"))
