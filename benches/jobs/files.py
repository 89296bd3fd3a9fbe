"""Jobs that read files: the engine compared with DuckDB and Polars, in alternating runs.

    python benches/jobs/files.py [--rows 4000000] [--text-mb 100] [--runs 5] [--jobs words,csv] [--folder DIR]

`words` and `split` count the words of a text file, by a regular expression and by spaces. `csv` and `parquet` are
a keyed count and sum over bids; the `filter` jobs keep a tenth of a percent of the bids, by time and by price. All
engines get two threads and the same files, which lie in the page cache. Every result is compared, group by group, before
anything is timed; a difference ends the run. Prints medians of the rates in millions of words or rows a second, and of the
processor time a word or row, which changes less when the machine has something else to do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

THREADS = 2
os.environ.setdefault("POLARS_MAX_THREADS", str(THREADS))

import duckdb  # noqa: E402
import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.csv  # noqa: E402
import pyarrow.parquet  # noqa: E402

import millstream as mill  # noqa: E402
from millstream import col  # noqa: E402

KEYS = 100_000
CHANNELS = ("apple", "google", "facebook", "baidu")
WORD = "[a-z']+"
LATE = "2026-01-01T00:09:50"
DEAR = 999
Table = pl.DataFrame
Job = Callable[[], Table]


def make_text(path: Path, megabytes: int) -> None:
    """The source text of Python's standard library, again and again, up to about this size."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    sources = [p.read_bytes() for p in sorted(folder.rglob("*.py")) if "site-packages" not in p.parts]
    # What is no UTF-8, ends lines in another way or has an İ is read or lower-cased differently by each engine.
    odd = (b"\r", b"\0", b"\1", "İ".encode())
    plain = [s for s in sources if s.decode("utf-8", "ignore").encode() == s and not any(o in s for o in odd)]
    text = b"".join(plain)
    with path.open("wb") as out:
        while out.tell() < megabytes << 20:
            out.write(text[: (megabytes << 20) - out.tell()].rpartition(b"\n")[0] + b"\n")


def make_bids(folder: Path, rows: int) -> None:
    """Bids like Nexmark's, ten minutes of them in order of time, as CSV and as Parquet."""
    index = np.arange(rows, dtype=np.int64)
    micros = index * 600_000_000 // rows
    table = pa.table(
        {
            "auction": (index * 7919) % KEYS,
            "bidder": (index * 104_729) % 1_000_000 + 1000,
            "price": ((index * 31) % 100_000) / 100.0,
            "channel": pa.DictionaryArray.from_arrays(pa.array(index % 4, pa.int8()), list(CHANNELS)).cast(pa.string()),
            "at": pa.array(np.datetime64("2026-01-01", "us").astype(np.int64) + micros).cast(pa.timestamp("us")),
        }
    )
    options = pyarrow.csv.WriteOptions(quoting_style="none")
    as_text = table.set_column(4, "at", pa.compute.strftime(table["at"], format="%Y-%m-%dT%H:%M:%S"))
    pyarrow.csv.write_csv(as_text, folder / "bids.csv", options)
    pyarrow.parquet.write_table(table, folder / "bids.parquet", row_group_size=250_000)


def millstream_jobs(folder: Path) -> dict[str, Job]:
    """The engine's."""

    def collected(stream: mill.Stream) -> Job:
        return lambda: pl.from_arrow(stream.collect(parallelism=THREADS).to_arrow())

    lines = mill.read_text(folder / "words.txt")
    line = col("line").str
    csv, parquet = mill.read_csv(folder / "bids.csv"), mill.read_parquet(folder / "bids.parquet")
    jobs = {
        "words": lines.select(word=line.to_lowercase().str.extract_all(WORD)),
        "split": lines.select(word=line.split(" ")),
    }
    jobs = {name: words.explode("word").filter(col("word") != "").key_by("word").agg(n=mill.count()) for name, words in jobs.items()}
    for name, bids in {"csv": csv, "parquet": parquet}.items():
        jobs[name] = bids.key_by("auction").agg(n=mill.count(), total=col("price").sum())
        late = mill.lit(LATE).str.to_datetime()
        jobs[f"{name} late"] = bids.filter(col("at") >= late).select("auction", "price")
        jobs[f"{name} dear"] = bids.filter(col("price") >= DEAR).select("auction", "price")
    return {name: collected(stream) for name, stream in jobs.items()}


def duckdb_jobs(folder: Path) -> dict[str, Job]:
    """DuckDB's."""
    db = duckdb.connect(config={"threads": THREADS, "preserve_insertion_order": False})

    def arrow(query: str) -> Job:
        return lambda: pl.from_arrow(db.sql(query).to_arrow_table())

    # One column, whatever is in a line: the delimiter is a character that the text does not have.
    options = "header=false, auto_detect=false, columns={'line': 'VARCHAR'}, delim='\x01', quote='', escape=''"
    lines = f"read_csv('{folder}/words.txt', {options})"
    matches = {"words": f"regexp_extract_all(lower(line), '{WORD.replace(chr(39), chr(39) * 2)}')", "split": "string_split(coalesce(line, ''), ' ')"}
    jobs = {
        name: f"SELECT word, count(*) n FROM (SELECT unnest({tokens}) AS word FROM {lines}) WHERE word <> '' GROUP BY word"
        for name, tokens in matches.items()
    }
    for name in ("csv", "parquet"):
        bids = f"read_{name}('{folder}/bids.{name}')"
        jobs[name] = f"SELECT auction, count(*) n, sum(price) total FROM {bids} GROUP BY auction"
        jobs[f"{name} late"] = f"SELECT auction, price FROM {bids} WHERE \"at\" >= TIMESTAMP '{LATE}'"
        jobs[f"{name} dear"] = f"SELECT auction, price FROM {bids} WHERE price >= {DEAR}"
    return {name: arrow(query) for name, query in jobs.items()}


def polars_jobs(folder: Path) -> dict[str, Job]:
    """Polars'."""

    def collected(frame: pl.LazyFrame) -> Job:
        return lambda: frame.collect(engine="streaming")

    text = folder / "words.txt"
    lines = pl.scan_csv(text, has_header=False, new_columns=["line"], separator="\x01", quote_char=None, infer_schema=False)
    line = pl.col("line").str
    jobs = {"words": lines.select(line.to_lowercase().str.extract_all(WORD).alias("word")), "split": lines.select(line.split(" ").alias("word"))}
    jobs = {name: words.explode("word").filter(pl.col("word") != "").group_by("word").agg(n=pl.len()) for name, words in jobs.items()}
    inputs = {"csv": pl.scan_csv(folder / "bids.csv", try_parse_dates=True), "parquet": pl.scan_parquet(folder / "bids.parquet")}
    for name, bids in inputs.items():
        jobs[name] = bids.group_by("auction").agg(n=pl.len(), total=pl.col("price").sum())
        late = pl.lit(LATE).str.to_datetime(time_unit="us")
        jobs[f"{name} late"] = bids.filter(pl.col("at") >= late).select("auction", "price")
        jobs[f"{name} dear"] = bids.filter(pl.col("price") >= DEAR).select("auction", "price")
    return {name: collected(frame) for name, frame in jobs.items()}


def comparable(table: Table) -> Table:
    """The rows in one order and in one set of types; sums rounded, since floats add up differently in another order."""
    casts = [pl.col("n").cast(pl.Int64)] if "n" in table.columns else []
    casts += [pl.col(name).round(3) for name in ("total", "price") if name in table.columns]
    return table.with_columns(casts).sort(table.columns)


def main() -> None:
    """Compare, then time in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--text-mb", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=lambda names: names.split(","), help="only these")
    parser.add_argument("--folder", type=Path, help="where the files are kept, to be used again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "words.txt").exists():
            make_text(folder / "words.txt", arguments.text_mb)
        if not (folder / "bids.parquet").exists():
            make_bids(folder, arguments.rows)
        rows = pyarrow.parquet.read_metadata(folder / "bids.parquet").num_rows
        engines = {"millstream": millstream_jobs(folder), "duckdb": duckdb_jobs(folder), "polars": polars_jobs(folder)}
        print(f"{rows} rows, {THREADS} threads, median of {arguments.runs} in turns; M records/s (x the engine's), ns of CPU a record")
        for job in engines["millstream"]:
            if arguments.jobs and job not in arguments.jobs:
                continue
            results = {name: comparable(jobs[job]()) for name, jobs in engines.items()}
            for name, result in results.items():
                if not result.equals(results["millstream"]):
                    sys.exit(f"{job}: {name} and millstream differ:\n{result}\n{results['millstream']}")
            count = int(results["millstream"]["n"].sum()) if job in ("words", "split") else rows
            seconds: dict[str, list[float]] = {name: [] for name in engines}
            cpu: dict[str, list[float]] = {name: [] for name in engines}
            for _ in range(arguments.runs):
                for name, jobs in engines.items():
                    began, cpu_began = time.perf_counter(), time.process_time()
                    jobs[job]()
                    seconds[name].append(time.perf_counter() - began)
                    cpu[name].append(time.process_time() - cpu_began)
            medians = {name: statistics.median(values) for name, values in seconds.items()}
            nanos = {name: statistics.median(values) / count * 1e9 for name, values in cpu.items()}
            ours = medians["millstream"]
            line = "  ".join(
                f"{name} {count / value / 1e6:7.1f} (x{ours / value:.2f}) {nanos[name]:6.1f}" for name, value in medians.items()
            )
            print(f"{job:13} {line}", flush=True)


if __name__ == "__main__":
    main()
