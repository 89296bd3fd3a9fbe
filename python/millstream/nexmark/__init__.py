"""Nexmark: the events of an online auction, and the queries that stream processors are compared by.

:func:`millstream.nexmark` generates the events. Each query is a module of this package (``q0``, ``q1``, …). It has a
function ``query``, which takes the events and returns the stream of results, and a text ``SQL``, the same query for DuckDB
over tables ``person``, ``auction`` and ``bid``. :func:`query` returns one of them by name.

The package itself can be called in place of its function: ``mill.nexmark(events=1000)``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from millstream._counts import count
from millstream._engine import RawStream
from millstream._nearest import did_you_mean
from millstream.errors import PlanError
from millstream.stream import Stream
from millstream.time import Duration, microseconds

__all__ = ["QUERIES", "Nexmark", "Query", "nexmark", "query"]

_EVENT_RATE = 10_000.0
_SPLITS = 16
_SPLITS_MAX = 1024

QUERIES = tuple(f"q{number}" for number in range(24))
"""The names of the queries."""


@dataclass(frozen=True)
class Nexmark:
    """The events of an online auction: three streams; returned by :func:`nexmark`.

    Attributes
    ----------
    persons
        Persons who sign up: ``id``, ``name``, ``email_address``, ``credit_card``, ``city``, ``state``, ``date_time``,
        ``extra``.
    auctions
        What they put up for auction: ``id``, ``item_name``, ``description``, ``initial_bid``, ``reserve``, ``date_time``,
        ``expires``, ``seller``, ``category``, ``extra``.
    bids
        Bids on auctions: ``auction``, ``bidder``, ``price``, ``channel``, ``url``, ``date_time``, ``extra``.

    Examples
    --------
    >>> events = mill.nexmark(events=50)
    >>> len(events.persons.collect()), len(events.auctions.collect()), len(events.bids.collect())
    (1, 3, 46)
    """

    persons: Stream
    auctions: Stream
    bids: Stream


@dataclass(frozen=True)
class Query:
    """A query of Nexmark; returned by :func:`query`.

    Attributes
    ----------
    name
        Its name, such as ``"q5"``.
    about
        What it asks, in a line.
    sql
        The same query for DuckDB over tables ``person``, ``auction`` and ``bid``; None where SQL cannot express it.
    stream
        A function that takes the events and returns the results.

    Examples
    --------
    >>> from millstream.nexmark import query
    >>> query("q1").stream(mill.nexmark(events=100)).schema.names
    ['auction', 'bidder', 'date_time', 'extra', 'price']
    """

    name: str
    about: str
    sql: str | None
    stream: Callable[[Nexmark], Stream]


def nexmark(
    events: int | None = None,
    rate: float | None = None,
    *,
    seed: int = 0,
    event_rate: float | None = None,
    out_of_order: Duration = "3s",
    splits: int | None = None,
) -> Nexmark:
    """Generate the events of an online auction by the rules of the Nexmark benchmark.

    Parameters
    ----------
    events
        How many events of all three kinds; None for unbounded streams.
    rate
        How many events of all kinds per second; None for as fast as they are processed.
    seed
        What the random values depend on, an integer from 0.
    event_rate
        How many events of all kinds there are in a second of event time: by default ``rate``, or else 10,000. The first
        event happens at 2015-07-15 00:00 UTC.
    out_of_order
        How late an event may arrive, in whole milliseconds. A tenth of all events are late, by up to this, and have the
        time at which they happened. ``"0s"`` keeps all in order.
    splits
        How many splits the events have, which are read in parallel: by default 16, or 1 if there is a ``rate``.

    Returns
    -------
    Nexmark
        The streams ``persons``, ``auctions`` and ``bids``, with the event time ``date_time`` and the watermark that fits.
        Only streams and columns that are used are generated.

    Raises
    ------
    PlanError
        When a number is out of range.

    Notes
    -----
    Of 50 events the first is a person, the next 3 are auctions and 46 are bids. Half of the bids are on one hot auction,
    three quarters are by one hot bidder, and three quarters of the auctions are of one hot seller; every hundred auctions
    or persons another one becomes the hot one. Prices are cents, from one dollar to a million.

    An event depends on the seed and its number alone. So it is the same in every run, whatever the splits and the
    parallelism, and a job that continues from a checkpoint resumes where it stopped. The rules are those of the generator of
    Apache Beam; the random values are others.

    Examples
    --------
    >>> auction = mill.nexmark(events=1000)
    >>> len(auction.persons.collect()), len(auction.auctions.collect()), len(auction.bids.collect())
    (20, 60, 920)
    >>> top = auction.bids.key_by("auction").window(mill.tumbling("10s")).agg(n=mill.count())
    >>> max(top.collect()["n"]) > 400
    True
    """
    if events is not None:
        count(events, "nexmark(events=...) takes a number of events")
    count(seed, "nexmark(seed=...) takes a whole number from 0")
    for name, value in (("rate", rate), ("event_rate", event_rate)):
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0):
            raise PlanError(f"nexmark({name}=...) takes events a second, above 0, not {value!r:.80}")
    late = microseconds(out_of_order, "out_of_order")
    if late % 1000:
        raise PlanError(f"nexmark(out_of_order=...) takes whole milliseconds, not {out_of_order!r}")
    if splits is None:
        splits = _SPLITS if rate is None else 1
    count(splits, "nexmark(splits=...) takes a number of splits from 1", 1, _SPLITS_MAX)
    pace = None if rate is None else float(rate)
    density = float(event_rate) if event_rate is not None else pace or _EVENT_RATE

    def stream(kind: str) -> Stream:
        raw = RawStream.nexmark(kind, events, pace, density, seed, splits, late // 1000)
        return Stream(raw).event_time("date_time", watermark=f"{late}us")

    return Nexmark(stream("persons"), stream("auctions"), stream("bids"))


def query(name: str) -> Query:
    """Return a query by its name.

    Parameters
    ----------
    name
        One of :data:`QUERIES`.

    Raises
    ------
    PlanError
        When there is no query of this name.

    Examples
    --------
    >>> from millstream.nexmark import query
    >>> query("q2").about
    'the bids on certain auctions'
    >>> len(query("q2").stream(mill.nexmark(events=100_000)).collect()) > 100
    True
    """
    import importlib

    if name not in QUERIES:
        raise PlanError(f"there is no query {name!r:.80}; there are {', '.join(QUERIES)}{did_you_mean(name, QUERIES)}")
    module = importlib.import_module(f"millstream.nexmark.{name}")
    return Query(name, module.ABOUT, module.SQL, module.query)


class _Package(ModuleType):
    """The package is what ``mill.nexmark`` is: called, it makes the events, as the function in it does."""

    __call__ = staticmethod(nexmark)
    __signature__ = inspect.signature(nexmark)


# A function of the same name in millstream would hide the package from "import millstream.nexmark as …".
sys.modules[__name__].__class__ = _Package
