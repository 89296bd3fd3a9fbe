"""Views of advertisements a campaign and window, after the Yahoo streaming benchmark."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import millstream as mill
from millstream._conditions import when
from millstream.bench.contest import Query, contest
from millstream.bench.peers import duckdb_answers, polars_frame
from millstream.bench.result import Result, Settings, Workload
from millstream.expr import col, lit
from millstream.table import Table

__all__ = ["WORKLOAD"]

_ROWS_DEFAULT = 5_000_000
_EVENTS_PER_SECOND = 10_000
_ADS, _ADS_PER_CAMPAIGN = 1_000, 10


def _events(rows: int) -> Table:
    number = mill.index()
    kind = (number * 7919) % 3
    made = mill.generate(
        rows=rows,
        ad=(number * 104_729) % _ADS,
        kind=when(kind == 0).then(lit("view")).when(kind == 1).then(lit("click")).otherwise(lit("purchase")),
        at=(number * 1000 // _EVENTS_PER_SECOND).cast(mill.Timestamp("ms")),
    )
    # A limit asks for the records in order, which is the order of their times.
    return made.limit(rows).collect()


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    rows = settings.rows or _ROWS_DEFAULT
    tell(f"ysb: making {rows:,} events")
    table = _events(rows)
    views = (
        mill.from_arrow(table)
        .event_time("at", watermark="1s")
        .filter(col("kind") == "view")
        .select("at", campaign=col("ad") // _ADS_PER_CAMPAIGN)
        .key_by("campaign")
        .window(mill.tumbling("10s"))
        .agg(views=mill.count())
    )
    peers: dict[str, Callable[[], Any]] = {}
    if "duckdb" in settings.against:
        peers["duckdb"] = duckdb_answers(table, settings.parallelism)(
            f"SELECT ad // {_ADS_PER_CAMPAIGN} AS campaign, time_bucket(INTERVAL 10 SECOND, \"at\") AS window_start, "
            "count(*) AS views FROM events WHERE kind = 'view' GROUP BY ALL"
        )
    if "polars" in settings.against:
        peers["polars"] = _polars(table)
    query = Query("ysb", "views a campaign and 10 s", rows, lambda: views.collect(parallelism=settings.parallelism), peers)
    note = f"the campaign of an ad is its number // {_ADS_PER_CAMPAIGN}; the original looks it up in a table"
    return contest("ysb", "Advertisements, after the Yahoo streaming benchmark", "rows", [query], settings, tell, [note])


def _polars(table: Table) -> Callable[[], Any]:
    import polars as pl

    campaign = (pl.col("ad") // _ADS_PER_CAMPAIGN).alias("campaign")
    start = pl.col("at").dt.truncate("10s").alias("window_start")
    views = polars_frame(table).filter(pl.col("kind") == "view").group_by(campaign, start).agg(pl.len().alias("views"))
    return lambda: views.collect(engine="streaming")


WORKLOAD = Workload(
    "ysb", "views of advertisements a campaign and window", _run, ("runs", "parallelism", "against"), ("duckdb", "polars")
)
