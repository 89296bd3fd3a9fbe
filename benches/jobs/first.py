"""First speed figures: the engine beside DuckDB, Polars and a hand-written Rust loop, in turns in one run.

    python benches/jobs/first.py [--rows 10000000] [--runs 5] [--loop target/release/mill-loop]

Ten million rows from memory. Every result is compared before anything is timed. DuckDB and Polars get the same two
threads; the loop is single-threaded. Prints medians of the seconds and the rates relative to the engine's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2
os.environ.setdefault("POLARS_MAX_THREADS", str(THREADS))

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa

import millstream as mill
from millstream import col

KEYS = 100_000
Job = Callable[[], float]


def events(rows: int) -> pa.Table:
    """The records, as the loop makes them."""
    index = np.arange(rows, dtype=np.int64)
    return pa.table(
        {
            "key": (index * 7919) % KEYS,
            "price": (index % 1000).astype(np.float64),
            "at": pa.array(index // 100, pa.int64()).cast(pa.timestamp("ms")),
        }
    )


def text(folder: Path) -> Path:
    """The source text of Python's standard library, twice over, as one file."""
    path = folder / "words.txt"
    with path.open("wb") as out:
        for _ in range(2):
            for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
                out.write(source.read_bytes())
    return path


def millstream_jobs(table: pa.Table, words: Path) -> dict[str, Job]:
    """The engine's."""
    stream = mill.from_arrow(table)
    keyed = stream.key_by("key").agg(n=mill.count(), total=col("price").sum())
    window = stream.event_time("at", watermark="1s").key_by("key").window(mill.tumbling("10s"))
    counted = (
        mill.read_text(words)
        .select(word=col("line").str.to_lowercase().str.extract_all(r"[a-z']+"))
        .explode("word")
        .key_by("word")
        .agg(n=mill.count())
    )
    return {
        "map": lambda: stream.select(price=col("price") * 0.908).collect(parallelism=THREADS).to_arrow()["price"].length(),
        "filter": lambda: len(stream.filter(col("key") % 123 == 0).select("key", "price").collect(parallelism=THREADS)),
        "keyed": lambda: sum(keyed.collect(parallelism=THREADS).to_arrow()["total"].to_numpy()),
        "window": lambda: sum(
            window.agg(n=mill.count(), top=col("price").max()).collect(parallelism=THREADS).to_arrow()["n"].to_numpy()
        ),
        "words": lambda: sum(counted.collect(parallelism=THREADS).to_arrow()["n"].to_numpy()),
    }


def duckdb_jobs(table: pa.Table, words: Path) -> dict[str, Job]:
    """DuckDB's."""
    db = duckdb.connect(config={"threads": THREADS})
    db.register("records", table)
    db.execute("CREATE TABLE events AS SELECT * FROM records")

    def arrow(query: str) -> pa.Table:
        return db.execute(query).to_arrow_table()

    tokens = f"SELECT unnest(regexp_extract_all(lower(line), '[a-z'']+')) AS word FROM read_csv('{words}', header=false, columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='', auto_detect=false)"
    return {
        "map": lambda: len(arrow("SELECT price * 0.908 AS price FROM events")),
        "filter": lambda: len(arrow("SELECT key, price FROM events WHERE key % 123 = 0")),
        "keyed": lambda: sum(arrow("SELECT key, count(*) n, sum(price) total FROM events GROUP BY key")["total"].to_numpy()),
        "window": lambda: sum(
            arrow("SELECT key, time_bucket(INTERVAL 10 SECOND, \"at\") w, count(*) n, max(price) top FROM events GROUP BY key, w")["n"].to_numpy()
        ),
        "words": lambda: sum(arrow(f"SELECT word, count(*) n FROM ({tokens}) GROUP BY word")["n"].to_numpy()),
    }


def polars_jobs(table: pa.Table, words: Path) -> dict[str, Job]:
    """Polars'."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    lazy = frame.lazy()
    lines = pl.scan_csv(words, has_header=False, new_columns=["line"], separator="\x01", quote_char=None)
    tokens = lines.select(pl.col("line").str.to_lowercase().str.extract_all("[a-z']+").alias("word")).explode("word")
    return {
        "map": lambda: len(lazy.select(pl.col("price") * 0.908).collect(engine="streaming")),
        "filter": lambda: len(lazy.filter(pl.col("key") % 123 == 0).select("key", "price").collect(engine="streaming")),
        "keyed": lambda: lazy.group_by("key").agg(pl.len(), pl.col("price").sum().alias("total")).collect(engine="streaming")["total"].sum(),
        "window": lambda: lazy.group_by("key", pl.col("at").dt.truncate("10s"))
        .agg(pl.len().alias("n"), pl.col("price").max().alias("top"))
        .collect(engine="streaming")["n"]
        .sum(),
        "words": lambda: tokens.drop_nulls().group_by("word").agg(pl.len().alias("n")).collect(engine="streaming")["n"].sum(),
    }


def main() -> None:
    """Compare, then time in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop", type=Path, help="the binary of benches/loop")
    arguments = parser.parse_args()
    table = events(arguments.rows)
    with tempfile.TemporaryDirectory() as folder:
        words = text(Path(folder))
        engines = {
            "millstream": millstream_jobs(table, words),
            "duckdb": duckdb_jobs(table, words),
            "polars": polars_jobs(table, words),
        }
        print(f"{arguments.rows} rows, {THREADS} threads, median of {arguments.runs} in turns; M records/s (x the engine's)")
        for job in engines["millstream"]:
            results = {name: float(jobs[job]()) for name, jobs in engines.items()}
            if len({round(result) for result in results.values()}) != 1:
                sys.exit(f"{job}: results differ: {results}")
            count = results["millstream"] if job == "words" else arguments.rows
            seconds: dict[str, list[float]] = {name: [] for name in engines}
            for _ in range(arguments.runs):
                for name, jobs in engines.items():
                    began = time.perf_counter()
                    jobs[job]()
                    seconds[name].append(time.perf_counter() - began)
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            if arguments.loop:
                command = [str(arguments.loop), job, str(arguments.rows), str(words)]
                medians["rust loop"] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])
            ours = medians["millstream"]
            line = "  ".join(f"{name} {count / value / 1e6:8.1f} (x{ours / value:.2f})" for name, value in medians.items())
            print(f"{job:8} {line}", flush=True)


if __name__ == "__main__":
    main()
