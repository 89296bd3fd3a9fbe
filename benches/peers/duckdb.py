"""DuckDB: SQL over a table in its memory; results as Arrow tables. No stream, and no state that outlives the query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
from task import Cannot, Task

ROWS = {"lambda": 2_000_000}
_LINES = "read_csv('{path}', header=false, auto_detect=false, columns={{'line': 'VARCHAR'}}, delim='\x01', quote='', escape='')"
_WORDS = f"SELECT unnest(regexp_extract_all(lower(line), '[a-z'']+')) AS word FROM {_LINES}"
_SUMS = "SELECT auction, count(*) AS n, sum(price) AS total FROM {source} GROUP BY auction"
_QUERIES = {
    "words": f"SELECT word, count(*) AS n FROM ({_WORDS}) GROUP BY word",
    "map": "SELECT price::DOUBLE * 0.908::DOUBLE AS price FROM bids",
    "filter": "SELECT auction, price FROM bids WHERE auction % 123 = 0",
    "keyed": _SUMS.format(source="bids"),
    "window": """SELECT auction, time_bucket(INTERVAL 10 SECOND, "at") AS window_start, count(*) AS n, max(price) AS top
                 FROM bids GROUP BY auction, window_start""",
    "million": _SUMS.format(source="drawn"),
    "parquet": _SUMS.format(source="read_parquet('{path}')"),
    "csv": _SUMS.format(source="read_csv('{path}')"),
    "lambda": "SELECT cheaper(price) AS price FROM bids",
    "batch": "SELECT cheaper(price) AS price FROM bids",
}
_FILES = {"words": "words.txt", "parquet": "bids.parquet", "csv": "bids.csv"}


def versions() -> dict[str, str]:
    """Say what this is."""
    return {"duckdb": duckdb.__version__}


def prepare(task: Task) -> Callable[[], Any]:
    """Load the table."""
    if task.job == "checkpoint":
        raise Cannot("a query has no checkpoints")
    db = duckdb.connect(config={"threads": task.threads, "preserve_insertion_order": False})
    if task.job in _FILES:
        query = _QUERIES[task.job].format(path=task.file(_FILES[task.job]))
    else:
        query = _QUERIES[task.job]
        name = "drawn" if task.job == "million" else "bids"
        db.register("records", task.table(name, ["auction", "price"] + ["at"] * (name == "bids")))
        db.execute(f"CREATE TABLE {name} AS SELECT * FROM records")
        db.unregister("records")
    if task.job == "lambda":
        db.create_function("cheaper", lambda price: price * 0.908, ["BIGINT"], "DOUBLE")
    elif task.job == "batch":
        import pyarrow.compute as pc

        db.create_function("cheaper", lambda prices: pc.multiply(prices, 0.908), ["BIGINT"], "DOUBLE", type="arrow")
    return lambda: db.sql(query).to_arrow_table()
