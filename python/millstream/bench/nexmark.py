"""Bids of an auction house, after Nexmark: pass on, convert, filter, and two aggregates a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import millstream as mill
from millstream.bench.contest import Query, contest
from millstream.bench.peers import duckdb_answers, polars_frame
from millstream.bench.result import Result, Settings, Workload
from millstream.expr import col
from millstream.table import Table

__all__ = ["WORKLOAD", "bids"]

_ROWS_DEFAULT = 5_000_000
_BIDS_PER_SECOND = 10_000
_HOT_AUCTIONS = 2_000
_CATEGORIES = 10


def bids(rows: int) -> Table:
    """Make bids: 10,000 a second of event time, on auctions of which new ones become hot all the time."""
    number = mill.index()
    made = mill.generate(
        rows=rows,
        auction=number // 50 + (number * 7919) % _HOT_AUCTIONS,
        bidder=(number * 104_729) % 100_003,
        price=((number * 31) % 10_000).cast(float) + 0.5,
        at=(number * 1000 // _BIDS_PER_SECOND).cast(mill.Timestamp("ms")),
    )
    # A limit asks for the records in order, which is the order of their times.
    return made.limit(rows).collect()


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    rows = settings.rows or _ROWS_DEFAULT
    tell(f"nexmark: making {rows:,} bids")
    table = bids(rows)
    stream = mill.from_arrow(table)
    timed = stream.event_time("at", watermark="1s")
    window = mill.tumbling("10s")
    ours = {
        "q0": stream,
        "q1": stream.with_columns(price=col("price") * 0.908),
        "q2": stream.filter(col("auction") % 123 == 0).select("auction", "price"),
        "q4": timed.with_columns(category=col("auction") % _CATEGORIES)
        .key_by("category")
        .window(window)
        .agg(price=col("price").mean(), n=mill.count()),
        "q7": timed.key_by("auction").window(window).agg(top=col("price").max(), n=mill.count()),
    }
    abouts = {
        "q0": "pass all bids on",
        "q1": "convert the price of each",
        "q2": "keep the bids on some auctions",
        "q4": "mean price a category and 10 s",
        "q7": "highest bid an auction and 10 s",
    }
    others: dict[str, dict[str, Callable[[], Any]]] = {}
    if "duckdb" in settings.against:
        others["duckdb"] = _duckdb(table, settings.parallelism)
    if "polars" in settings.against:
        others["polars"] = _polars(table)

    def query(name: str) -> Query:
        answers = {engine: jobs[name] for engine, jobs in others.items()}
        return Query(name, abouts[name], rows, lambda: ours[name].collect(parallelism=settings.parallelism), answers)

    notes = ["q4 and q7 are like Nexmark's, over windows; every engine gives its answer as a table in memory"]
    return contest("nexmark", "Nexmark-like bids from memory", "rows", [query(name) for name in ours], settings, tell, notes)


def _duckdb(table: Table, parallelism: int) -> dict[str, Callable[[], Any]]:
    answer = duckdb_answers(table, parallelism)
    bucket = "time_bucket(INTERVAL 10 SECOND, \"at\") AS window_start"
    return {
        "q0": answer("SELECT * FROM events"),
        "q1": answer("SELECT auction, bidder, price * 0.908::DOUBLE AS price, \"at\" FROM events"),
        "q2": answer("SELECT auction, price FROM events WHERE auction % 123 = 0"),
        "q4": answer(f"SELECT auction % {_CATEGORIES} AS category, {bucket}, avg(price) AS price, count(*) AS n FROM events GROUP BY ALL"),
        "q7": answer(f"SELECT auction, {bucket}, max(price) AS top, count(*) AS n FROM events GROUP BY ALL"),
    }


def _polars(table: Table) -> dict[str, Callable[[], Any]]:
    import polars as pl

    lazy = polars_frame(table)
    start = pl.col("at").dt.truncate("10s").alias("window_start")
    category = (pl.col("auction") % _CATEGORIES).alias("category")
    plans = {
        "q0": lazy,
        "q1": lazy.with_columns(price=pl.col("price") * 0.908),
        "q2": lazy.filter(pl.col("auction") % 123 == 0).select("auction", "price"),
        "q4": lazy.group_by(category, start).agg(pl.col("price").mean(), pl.len().alias("n")),
        "q7": lazy.group_by("auction", start).agg(pl.col("price").max().alias("top"), pl.len().alias("n")),
    }

    def answer(plan: Any) -> Callable[[], Any]:
        return lambda: plan.collect(engine="streaming")

    return {name: answer(plan) for name, plan in plans.items()}


WORKLOAD = Workload("nexmark", "queries over the bids of an auction house, after Nexmark", _run)
