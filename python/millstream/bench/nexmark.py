"""The queries of Nexmark, over events that its generator has made in memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import millstream as mill
from millstream.bench.contest import Query, contest
from millstream.bench.result import Result, Settings, Workload
from millstream.nexmark import QUERIES, Nexmark, nexmark, query
from millstream.stream import Stream
from millstream.table import Table

__all__ = ["WORKLOAD", "make", "streams"]

_EVENTS_DEFAULT = 5_000_000
_DELAY = "3s"
_PEERS = ("duckdb",)
_TABLES = {"person": "persons", "auction": "auctions", "bid": "bids"}


def make(events: int, queries: Sequence[str]) -> dict[str, Table]:
    """Make tables ``person``, ``auction`` and ``bid`` with the columns that these queries use, in the order of arrival."""
    made = nexmark(events, out_of_order=_DELAY, splits=1)
    asked = [query(name).sql for name in queries]
    tables = {}
    for name, kind in _TABLES.items():
        stream: Stream = getattr(made, kind)
        # Where a text has all columns of a table, or there is none, any could be used.
        is_whole = any(sql is None or "*, " in sql or ".*" in sql for sql in asked)
        words = set(re.findall(r"\w+", " ".join(sql for sql in asked if sql is not None)))
        used = [column for column in stream.schema.names if is_whole or column in words or column == "date_time"]
        tables[name] = stream.select(*used).collect(parallelism=1)
    return tables


def streams(tables: Mapping[str, Table]) -> Nexmark:
    """Return the events of such tables."""
    persons, auctions, bids = (mill.from_arrow(tables[name]).event_time("date_time", watermark=_DELAY) for name in _TABLES)
    return Nexmark(persons, auctions, bids)


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    count = settings.rows or _EVENTS_DEFAULT
    asked = [query(name) for name in settings.queries or QUERIES]
    tell(f"nexmark: making {count:,} events")
    began = time.perf_counter()
    tables = make(count, [one.name for one in asked])
    seconds = time.perf_counter() - began
    events = streams(tables)
    answers = _duckdb(tables, settings.parallelism) if "duckdb" in settings.against else None

    def ours(stream: Stream) -> Callable[[], Table]:
        return lambda: stream.collect(parallelism=settings.parallelism)

    queries = []
    for one in asked:
        peers = {} if answers is None or one.sql is None else {"duckdb": answers(one.sql)}
        queries.append(Query(one.name, one.about, count, ours(one.stream(events)), peers))
    notes = [
        f"the events were made in {seconds:.1f} s on one thread and are in memory; a tenth of them are late, by up to {_DELAY}",
        "every engine returns its result as a table in memory",
        *(f"{name} is left out: the queries exist for {', '.join(_PEERS)}" for name in settings.against if name not in _PEERS),
    ]
    return contest("nexmark", "Nexmark from memory", "events", queries, settings, tell, notes)


def _duckdb(tables: Mapping[str, Table], parallelism: int) -> Callable[[str], Callable[[], Any]]:
    import duckdb

    database = duckdb.connect(config={"threads": parallelism})
    for name, table in tables.items():
        database.register("records", table.to_arrow())
        database.execute(f"CREATE TABLE {name} AS SELECT * FROM records")
        database.unregister("records")
    return lambda sql: lambda: database.sql(sql).to_arrow_table()


WORKLOAD = Workload(
    "nexmark", "the queries of the Nexmark benchmark, over the events of an auction house", _run, ("events", "query", "runs", "parallelism", "against"), _PEERS
)
