"""As-of joins and enrichment compared with DuckDB and Polars, in alternating runs.

    python benches/jobs/lookups.py [--rows 2000000] [--runs 3]

Two million records from memory, two threads each: as of a hundred versions of each of a thousand keys, and with a table of a million
rows. Every result is compared before anything is timed. Prints millions of left records a second, medians.
"""

from __future__ import annotations

from typing import Any

from turns import THREADS, Contest, Job, main

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

import millstream as mill

SECOND = 1_000_000
KEYS = 1000
VERSIONS = 100
TABLE_ROWS = 1_000_000


def times(at: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(at).cast(pa.timestamp("us"))


def jobs(rows: int) -> dict[str, Contest]:
    """Return the jobs by name. Each returns the number of rows and a total."""
    dice = np.random.default_rng(1)
    db = duckdb.connect()
    db.execute(f"SET threads = {THREADS}")
    at = np.sort(dice.integers(SECOND, rows // 1000 * SECOND, rows))
    trades = pa.table({"k": dice.integers(0, KEYS, rows), "x": dice.integers(0, 100, rows), "t": times(at)})
    count = KEYS * VERSIONS
    rate_at = np.sort(dice.choice(rows // 1000 * SECOND, count, replace=False))
    rates = pa.table({"k": dice.integers(0, KEYS, count), "y": dice.integers(0, 100, count), "t": times(rate_at)})
    table = pa.table({"id": dice.permutation(TABLE_ROWS), "y": dice.integers(0, 100, TABLE_ROWS)})
    events = pa.table({"id": dice.integers(0, TABLE_ROWS * 5 // 4, rows), "x": dice.integers(0, 100, rows)})
    db.register("trades", trades)
    db.register("rates", rates)
    db.register("names", table)
    db.register("events", events)

    def total(result: pa.Table) -> tuple[int, int]:
        return result.num_rows, int(result["y"].drop_null().to_numpy().astype(np.int64).sum())

    def ours(stream: mill.Stream) -> Job:
        return lambda: total(stream.collect(parallelism=THREADS).to_arrow())

    def sql(query: str) -> Job:
        return lambda: total(db.sql(query).to_arrow_table())

    def frame(data: pa.Table) -> pl.LazyFrame:
        made = pl.from_arrow(data)
        assert isinstance(made, pl.DataFrame)
        return made.lazy()

    def plan(lazy: pl.LazyFrame) -> Job:
        return lambda: total(lazy.collect().to_arrow())

    a, b = (mill.from_arrow(data).event_time("t", watermark="0s") for data in (trades, rates))
    return {
        "as of 100,000 versions": (
            rows,
            ours(a.join_asof(b, on="k").select("k", "x", "t", "y")),
            plan(frame(trades).join_asof(frame(rates), on="t", by="k", check_sortedness=False)),
            sql("SELECT trades.*, rates.y FROM trades ASOF LEFT JOIN rates ON trades.k = rates.k AND trades.t >= rates.t"),
        ),
        "enrich from a million rows": (
            rows,
            ours(mill.from_arrow(events).enrich(table, on="id")),
            plan(frame(events).join(frame(table), on="id")),
            sql("SELECT events.*, names.y FROM events JOIN names USING (id)"),
        ),
        "enrich, how=left": (
            rows,
            ours(mill.from_arrow(events).enrich(table, on="id", how="left")),
            plan(frame(events).join(frame(table), on="id", how="left")),
            sql("SELECT events.*, names.y FROM events LEFT JOIN names USING (id)"),
        ),
    }


if __name__ == "__main__":
    main(__doc__, jobs)
