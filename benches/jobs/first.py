"""First speed figures: the engine compared with DuckDB, Polars and a hand-written Rust loop, in alternating runs.

    python benches/jobs/first.py [--rows 10000000] [--runs 5] [--loop target/release/mill-loop]

Ten million rows from memory: made-up events over 100,000 keys that take turns, bids like Nexmark's over 600,000 auctions, and
a million keys drawn evenly; and words out of a file. Every result is compared before anything is timed. DuckDB and Polars get the same two
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
import pyarrow.compute as pc

import millstream as mill
from millstream import col

KEYS = 100_000
AUCTIONS = 600_000
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


def dice(rows: int) -> np.ndarray:
    """Pseudo-random numbers (splitmix64), as the loop draws them."""
    with np.errstate(over="ignore"):
        mixed = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def bids(rows: int, auctions: int) -> pa.Table:
    """Bids as Nexmark has them: on one of the latest hundred auctions, which move on, at 100 a millisecond."""
    index, drawn = np.arange(rows, dtype=np.int64), dice(rows)
    auction = np.maximum(index * auctions // rows - (drawn % np.uint64(100)).astype(np.int64), 0)
    price = (drawn >> np.uint64(40)).astype(np.int64) % 10_000
    return pa.table({"auction": auction, "price": price, "at": pa.array(index // 100, pa.int64()).cast(pa.timestamp("ms"))})


def even(rows: int, keys: int) -> pa.Table:
    """Keys drawn evenly."""
    drawn = dice(rows)
    key = (drawn % np.uint64(keys)).astype(np.int64)
    return pa.table({"auction": key, "price": (drawn >> np.uint64(40)).astype(np.int64) % 10_000})


def text(folder: Path) -> Path:
    """The source text of Python's standard library, twice over, as one file."""
    path = folder / "words.txt"
    with path.open("wb") as out:
        for _ in range(2):
            for source in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
                out.write(source.read_bytes())
    return path


def total(column: pa.ChunkedArray) -> float:
    """The sum of a column."""
    return float(pc.sum(column).as_py())


def millstream_jobs(table: pa.Table, nexmark: pa.Table, million: pa.Table, words: Path) -> dict[str, Job]:
    """The engine's."""
    stream, bid, drawn = mill.from_arrow(table), mill.from_arrow(nexmark), mill.from_arrow(million)
    sums = {"n": mill.count(), "total": col("price").sum()}
    bid_window = bid.event_time("at", watermark="1s").key_by("auction").window(mill.tumbling("10s"))
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
        "keyed": lambda: total(keyed.collect(parallelism=THREADS).to_arrow()["total"]),
        "window": lambda: total(window.agg(n=mill.count(), top=col("price").max()).collect(parallelism=THREADS).to_arrow()["n"]),
        "bids keyed": lambda: total(bid.key_by("auction").agg(**sums).collect(parallelism=THREADS).to_arrow()["total"]),
        "bids window": lambda: total(
            bid_window.agg(n=mill.count(), top=col("price").max()).collect(parallelism=THREADS).to_arrow()["n"]
        ),
        "million": lambda: total(drawn.key_by("auction").agg(**sums).collect(parallelism=THREADS).to_arrow()["total"]),
        "words": lambda: total(counted.collect(parallelism=THREADS).to_arrow()["n"]),
    }


def duckdb_jobs(table: pa.Table, nexmark: pa.Table, million: pa.Table, words: Path) -> dict[str, Job]:
    """DuckDB's."""
    db = duckdb.connect(config={"threads": THREADS})
    for name, records in {"events": table, "bids": nexmark, "drawn": million}.items():
        db.register("records", records)
        db.execute(f"CREATE TABLE {name} AS SELECT * FROM records")
        db.unregister("records")

    def arrow(query: str) -> pa.Table:
        return db.execute(query).to_arrow_table()

    tokens = f"SELECT unnest(regexp_extract_all(lower(line), '[a-z'']+')) AS word FROM read_csv('{words}', header=false, columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='', auto_detect=false)"
    return {
        "map": lambda: len(arrow("SELECT price * 0.908 AS price FROM events")),
        "filter": lambda: len(arrow("SELECT key, price FROM events WHERE key % 123 = 0")),
        "keyed": lambda: total(arrow("SELECT key, count(*) n, sum(price) total FROM events GROUP BY key")["total"]),
        "window": lambda: total(
            arrow("SELECT key, time_bucket(INTERVAL 10 SECOND, \"at\") w, count(*) n, max(price) top FROM events GROUP BY key, w")["n"]
        ),
        "bids keyed": lambda: total(arrow("SELECT auction, count(*) n, sum(price) total FROM bids GROUP BY auction")["total"]),
        "bids window": lambda: total(
            arrow("SELECT auction, time_bucket(INTERVAL 10 SECOND, \"at\") w, count(*) n, max(price) top FROM bids GROUP BY auction, w")["n"]
        ),
        "million": lambda: total(arrow("SELECT auction, count(*) n, sum(price) total FROM drawn GROUP BY auction")["total"]),
        "words": lambda: total(arrow(f"SELECT word, count(*) n FROM ({tokens}) GROUP BY word")["n"]),
    }


def polars_jobs(table: pa.Table, nexmark: pa.Table, million: pa.Table, words: Path) -> dict[str, Job]:
    """Polars'."""
    lazy, bid, drawn = (pl.DataFrame(records).lazy() for records in (table, nexmark, million))
    sums = [pl.len().alias("n"), pl.col("price").sum().alias("total")]
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
        "bids keyed": lambda: bid.group_by("auction").agg(sums).collect(engine="streaming")["total"].sum(),
        "bids window": lambda: bid.group_by("auction", pl.col("at").dt.truncate("10s"))
        .agg(pl.len().alias("n"), pl.col("price").max().alias("top"))
        .collect(engine="streaming")["n"]
        .sum(),
        "million": lambda: drawn.group_by("auction").agg(sums).collect(engine="streaming")["total"].sum(),
        "words": lambda: tokens.drop_nulls().group_by("word").agg(pl.len().alias("n")).collect(engine="streaming")["n"].sum(),
    }


def main() -> None:
    """Compare, then time in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", nargs="+", help="these only")
    parser.add_argument("--markdown", action="store_true", help="print a table for docs/BENCHMARKS.md")
    parser.add_argument("--loop", type=Path, help="the binary of benches/loop")
    arguments = parser.parse_args()
    data = events(arguments.rows), bids(arguments.rows, AUCTIONS), even(arguments.rows, 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        words = text(Path(folder))
        engines = {
            "millstream": millstream_jobs(*data, words),
            "duckdb": duckdb_jobs(*data, words),
            "polars": polars_jobs(*data, words),
        }
        print(f"{arguments.rows} rows, {THREADS} threads, median of {arguments.runs} in turns; M records/s (x the engine's)")
        head = ["job", *engines, *(["rust loop"] if arguments.loop else [])]
        if arguments.markdown:
            print("| " + " | ".join(head) + " |\n| --- |" + " ---: |" * (len(head) - 1))
        for job in arguments.jobs or engines["millstream"]:
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
                command = [str(arguments.loop), job.replace(" ", "-"), str(arguments.rows), str(words)]
                medians["rust loop"] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])
            ours = medians["millstream"]
            if arguments.markdown:
                cells = [f"{count / value / 1e6:,.1f}" + (f" (x{ours / value:.2f})" if name != "millstream" else "") for name, value in medians.items()]
                print(f"| {job} | " + " | ".join(cells) + " |", flush=True)
                continue
            line = "  ".join(f"{name} {count / value / 1e6:8.1f} (x{ours / value:.2f})" for name, value in medians.items())
            print(f"{job:12} {line}", flush=True)


if __name__ == "__main__":
    main()
