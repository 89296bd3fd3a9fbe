"""Joins compared with DuckDB and Polars, in alternating runs: close in time, and in the same window.

    python benches/jobs/joins.py [--rows 2000000] [--runs 3]

Impressions and half as many clicks from memory, two threads each: keys that move on (each impression has a key of its own) and a
thousand keys for ever. Every result is compared before anything is timed. Prints millions of records of both sides a second, medians,
and how many rows each job results in. Polars and DuckDB join tables that are complete; Millstream reads streams, with a watermark after
each batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from turns import THREADS, Contest, Job, main

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

import millstream as mill

SECOND = 1_000_000


def tables(rows: int, keys: int | None) -> tuple[pa.Table, pa.Table]:
    """Return impressions, 10,000 a second, and clicks on every second of them, up to ten seconds later."""
    dice = np.random.default_rng(1)
    at = np.arange(rows, dtype=np.int64) * 100
    ids = np.arange(rows, dtype=np.int64) if keys is None else dice.integers(0, keys, rows)
    clicked = np.arange(0, rows, 2)
    moments = at[clicked] + dice.integers(0, 10 * SECOND, len(clicked))
    order = np.argsort(moments, kind="stable")

    def table(**columns: Any) -> pa.Table:
        arrays = {name: pa.array(values) for name, values in columns.items()}
        return pa.table(arrays | {"t": arrays["t"].cast(pa.timestamp("us"))}).combine_chunks()

    left = table(id=ids, x=dice.integers(0, 100, rows), t=at)
    right = table(id=ids[clicked][order], y=dice.integers(0, 100, len(clicked)), t=moments[order])
    return left, right


def jobs(rows: int) -> dict[str, Contest]:
    """Return the jobs by name. Each returns the number of rows and their total."""
    found: dict[str, Contest] = {}
    db = duckdb.connect()
    db.execute(f"SET threads = {THREADS}")

    def ours(stream: mill.Stream) -> Job:
        def run() -> tuple[int, int]:
            table = stream.select("x", "y").collect(parallelism=THREADS).to_arrow()
            return table.num_rows, int(np.sum(table["x"].to_numpy()) + np.sum(table["y"].to_numpy()))

        return run

    def sql(left: pa.Table, right: pa.Table, condition: str) -> Job:
        def run() -> tuple[int, int]:
            db.register("a", left)
            db.register("b", right)
            table = db.sql(f"SELECT x, y FROM a JOIN b ON a.id = b.id AND {condition}").to_arrow_table()
            return table.num_rows, int(np.sum(table["x"].to_numpy()) + np.sum(table["y"].to_numpy()))

        return run

    def frames(left: pa.Table, right: pa.Table, join: Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]) -> Job:
        def run() -> tuple[int, int]:
            a, b = pl.from_arrow(left), pl.from_arrow(right)
            assert isinstance(a, pl.DataFrame)
            assert isinstance(b, pl.DataFrame)
            result = join(a.lazy(), b.lazy()).select("x", "y").collect()
            return result.height, int(result["x"].sum() + result["y"].sum())

        return run

    def close(upper: int) -> Callable[[pl.LazyFrame, pl.LazyFrame], pl.LazyFrame]:
        def join(a: pl.LazyFrame, b: pl.LazyFrame) -> pl.LazyFrame:
            distance = pl.col("t_right") - pl.col("t")
            return a.join(b, on="id").filter(distance.is_between(pl.duration(), pl.duration(seconds=upper)))

        return join

    def together(a: pl.LazyFrame, b: pl.LazyFrame) -> pl.LazyFrame:
        window = pl.col("t").dt.truncate("10s").alias("w")
        return a.with_columns(window).join(b.with_columns(window), on=["id", "w"])

    for name, keys, upper in (("moving keys", None, 10), ("1,000 keys", 1000, 1)):
        left, right = tables(rows, keys)
        both = len(left) + len(right)
        a = mill.from_arrow(left).event_time("t")
        b = mill.from_arrow(right).event_time("t")
        near = ours(a.join_interval(b, on="id", lower="0s", upper=f"{upper}s"))
        condition = f"b.t BETWEEN a.t AND a.t + INTERVAL {upper} SECOND"
        found[f"interval, {name}"] = (both, near, frames(left, right, close(upper)), sql(left, right, condition))
        if keys is None:
            windowed = ours(a.join(b, on="id", window=mill.tumbling("10s")))
            condition = "time_bucket(INTERVAL 10 SECOND, a.t) = time_bucket(INTERVAL 10 SECOND, b.t)"
            found[f"window, {name}"] = (both, windowed, frames(left, right, together), sql(left, right, condition))
    return found


if __name__ == "__main__":
    main(__doc__, jobs)
