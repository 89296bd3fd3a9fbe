"""Windows compared with DuckDB and Polars, in alternating runs: many open windows, overlapping windows, sessions.

    python benches/jobs/windows.py [--rows 2000000] [--runs 3]

Two million records of a thousand keys from memory, two threads each; of the many users ten million records. Every result is
compared before anything is timed. Prints
millions of records a second, medians, and how many rows each job results in. Polars and DuckDB group a table that is complete;
Millstream reads it as a stream, with a watermark after each record.
"""

from __future__ import annotations

from turns import THREADS, Contest, Job, main

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

import millstream as mill
from millstream import col

KEYS = 1000
SECOND = 1_000_000


def records(rows: int, open_windows: int) -> pa.Table:
    """Return a thousand records a second, each up to so many seconds out of order."""
    dice = np.random.default_rng(1)
    at = np.arange(rows, dtype=np.int64) * 1000 - dice.integers(0, open_windows, rows) * SECOND
    columns = {"k": dice.integers(0, KEYS, rows), "x": dice.integers(0, 100, rows), "t": pa.array(at).cast(pa.timestamp("us"))}
    return pa.table(columns).combine_chunks()


def visits(rows: int) -> pa.Table:
    """Return records of a tenth as many users within an hour: each visits twice, with five records in ten seconds."""
    dice = np.random.default_rng(2)
    begun = np.repeat(dice.integers(0, 3600 * SECOND, rows // 5), 5)
    at = begun + dice.integers(0, 10 * SECOND, len(begun))
    user = np.repeat(dice.permutation(rows // 5) % (rows // 10), 5)
    order = np.argsort(at + dice.integers(0, 2 * SECOND, len(at)))
    columns = {"k": user[order], "x": dice.integers(0, 100, len(at)), "t": pa.array(at[order]).cast(pa.timestamp("us"))}
    return pa.table(columns).combine_chunks()


def timed(table: pa.Table, bound: int) -> mill.KeyedStream:
    """Return the records as a keyed stream of event time."""
    return mill.from_arrow(table).event_time("t", watermark=f"{bound}s").key_by("k")


def jobs(rows: int) -> dict[str, Contest]:
    """Return the jobs by name. Each returns the number of rows and their total."""
    found: dict[str, Contest] = {}
    db = duckdb.connect()
    db.execute(f"SET threads = {THREADS}")

    def of(stream: mill.Stream) -> Job:
        def run() -> tuple[int, int]:
            table = stream.collect(parallelism=THREADS).to_arrow()
            return table.num_rows, int(np.sum(table["s"].to_numpy()))

        return run

    def sql(table: pa.Table, query: str) -> Job:
        def run() -> tuple[int, int]:
            db.register("records", table)
            result = db.sql(query).to_arrow_table()
            return result.num_rows, int(np.sum(result["s"].to_numpy().astype(np.int64)))

        return run

    def grouped(table: pa.Table) -> Job:
        def run() -> tuple[int, int]:
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            result = frame.lazy().group_by("k", pl.col("t").dt.truncate("1s")).agg(n=pl.len(), s=pl.col("x").sum()).collect()
            return result.height, int(result["s"].sum())

        return run

    for open_windows in (1, 100, 1_000, 10_000):
        table = records(rows, open_windows)
        windows = timed(table, open_windows + 1).window(mill.tumbling("1s"))
        query = "SELECT k, date_trunc('second', t) AS w, count(*) AS n, sum(x) AS s FROM records GROUP BY ALL"
        ours = of(windows.agg(n=mill.count(), s=col("x").sum()))
        found[f"tumbling 1 s, {open_windows} open"] = (rows, ours, grouped(table), sql(table, query))
    table = records(rows, 1)
    for size, slide in ((10, 2), (600, 1)):
        windows = timed(table, 2).window(mill.sliding(f"{size}s", slide=f"{slide}s"))
        # Each second, then what the seconds of a window add up to.
        query = f"""WITH seconds AS (SELECT k, epoch(date_trunc('second', t))::BIGINT AS sec, sum(x) AS s FROM records GROUP BY ALL),
            ends AS (SELECT k, s, unnest(range(sec - sec % {slide} + {slide}, sec + {size} + 1, {slide})) AS until FROM seconds)
            SELECT k, until, sum(s) AS s FROM ends GROUP BY ALL"""
        found[f"sliding {size} s by {slide} s"] = (rows, of(windows.agg(s=col("x").sum())), None, sql(table, query))
    for name, table, gap in (("sessions, gap 1 s", table, 1), ("sessions of many users", visits(5 * rows), 30)):
        sessions = timed(table, 2).window(mill.session(f"{gap}s"))
        query = f"""WITH gaps AS (SELECT *, t - lag(t) OVER (PARTITION BY k ORDER BY t) >= INTERVAL {gap} SECOND AS starts FROM records),
            numbered AS (SELECT *, sum(CASE WHEN starts THEN 1 ELSE 0 END) OVER (PARTITION BY k ORDER BY t) AS session FROM gaps)
            SELECT k, session, sum(x) AS s FROM numbered GROUP BY ALL"""
        found[name] = (len(table), of(sessions.agg(s=col("x").sum())), None, sql(table, query))
    return found


if __name__ == "__main__":
    main(__doc__, jobs)
