"""Files: from one format to another."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import millstream as mill
from millstream import col
from millstream.bench.contest import Query
from millstream.bench.result import Settings
from millstream.bench.shapes.source import pl

__all__ = ["NAME", "QUERIES", "queries"]

NAME = "files"
QUERIES = ("f-parquet", "f-csv-parquet", "f-parquet-csv", "f-parquet-json")


def _records(rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    dice = np.random.default_rng(6)
    names = pa.array([f"user-{n}" for n in range(10_000)])
    begin = np.datetime64("2026-01-01T00:00:00", "us")
    columns = {
        "id": np.arange(rows), "user": names.take(pa.array(dice.integers(0, 10_000, rows))), "amount": np.round(dice.uniform(0, 500, rows), 2),
        "items": dice.integers(0, 20, rows), "at": begin + dice.integers(0, 86_400_000_000, rows).astype("timedelta64[us]"),
    }
    return pa.table(columns)


def queries(rows: int, settings: Settings, folder: Path) -> Iterator[Query]:
    """Write the files, and return the questions over them."""
    import pyarrow.csv
    import pyarrow.parquet

    table = _records(rows)
    parquet, csv, out = folder / "in.parquet", folder / "in.csv", folder / "out"
    pyarrow.parquet.write_table(table, parquet, compression="snappy")
    pyarrow.csv.write_csv(table, csv)
    threads, counter = settings.parallelism, itertools.count()
    database: Any = None
    if "duckdb" in settings.against:
        import duckdb

        database = duckdb.connect(config={"threads": threads})

    def query(name: str, about: str, ours: Callable[[Path], mill.Output], sql: str, polars: Callable[[Path], None]) -> Query:
        """Return a question whose answer is a file."""
        suffix = name.rsplit("-", 1)[-1]

        def into(write: Callable[[Path], Any]) -> Callable[[], Path]:
            def run() -> Path:
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
                path = out / f"{next(counter)}.{suffix}"
                write(path)
                return path

            return run

        peers: dict[str, Callable[[], Any]] = {}
        if database is not None:
            peers["duckdb"] = into(lambda path: database.execute(sql.format(path=path)))
        if "polars" in settings.against:
            peers["polars"] = into(polars)
        run = into(lambda path: mill.run(ours(path), parallelism=threads, progress=False))
        return Query(name, about, rows, run, peers, _read)

    def frames() -> tuple[Any, Any]:
        import polars

        return polars.scan_parquet(parquet), polars.scan_csv(csv, try_parse_dates=True)

    stream = mill.read_parquet(parquet)
    yield query(
        "f-parquet", "Parquet to Parquet, half of the rows", lambda path: stream.filter(col("items") < 10).write_parquet(path),
        f"COPY (SELECT * FROM '{parquet}' WHERE items < 10) TO '{{path}}' (FORMAT parquet, COMPRESSION zstd)",
        lambda path: frames()[0].filter(pl("items") < 10).sink_parquet(path, compression="zstd"),
    )
    yield query(
        "f-csv-parquet", "CSV to Parquet", lambda path: mill.read_csv(csv).write_parquet(path),
        f"COPY (SELECT * FROM read_csv('{csv}')) TO '{{path}}' (FORMAT parquet, COMPRESSION zstd)",
        lambda path: frames()[1].sink_parquet(path, compression="zstd"),
    )
    yield query(
        "f-parquet-csv", "Parquet to CSV", lambda path: stream.write_csv(path),
        f"COPY (SELECT * FROM '{parquet}') TO '{{path}}' (FORMAT csv, HEADER true)",
        lambda path: frames()[0].sink_csv(path),
    )
    yield query(
        "f-parquet-json", "Parquet to JSON", lambda path: stream.write_json(path),
        f"COPY (SELECT * FROM '{parquet}') TO '{{path}}' (FORMAT json)",
        lambda path: frames()[0].sink_ndjson(path),
    )


def _read(path: Path) -> Any:
    """Return what was written; of times in text each engine has a form of its own."""
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path)
    table = (pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.json.read_json)(path)
    return table.drop_columns(["at"])
