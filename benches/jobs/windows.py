"""Windows beside DuckDB and Polars, in turns in one run: many open windows, overlapping windows, sessions.

    python benches/jobs/windows.py [--rows 2000000] [--runs 3]

Two million records of a thousand keys from memory, two threads each; of the many users ten million records. Every result is
compared before anything is timed. Prints
millions of records a second, medians, and how many rows each job results in. Polars and DuckDB group a table that is complete;
Millstream reads it as a stream, with a watermark behind each record.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

THREADS = 2
os.environ.setdefault("POLARS_MAX_THREADS", str(THREADS))

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

import millstream as mill
from millstream import col

KEYS = 1000
SECOND = 1_000_000
Job = Callable[[], Any]


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


Jobs = tuple[int, Job, Job | None, Job]


def jobs(rows: int) -> dict[str, Jobs]:
    """Return by name how many records a job has, and the job for Millstream, Polars and DuckDB: the number of rows and their total."""
    found: dict[str, Jobs] = {}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(f"{'job':26} {'rows':>10} {'millstream':>11} {'polars':>8} {'duckdb':>8}")
    for name, (records_of_job, *of_each) in jobs(options.rows).items():
        results = [job() for job in of_each if job is not None]
        assert all(result == results[0] for result in results), f"{name}: {results}"
        rates = []
        seconds: list[list[float]] = [[] for _ in of_each]
        for _ in range(options.runs):
            for place, job in enumerate(of_each):
                if job is not None:
                    began = time.perf_counter()
                    job()
                    seconds[place].append(time.perf_counter() - began)
        rates = [f"{records_of_job / statistics.median(found) / 1e6:.2f}" if found else "-" for found in seconds]
        print(f"{name:26} {results[0][0]:>10} {rates[0]:>11} {rates[1]:>8} {rates[2]:>8}", flush=True)


if __name__ == "__main__":
    main()
