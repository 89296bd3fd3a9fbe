"""LaminarDB: continuous SQL over rows that are inserted as Arrow batches.

Its streams have no end: the time is up to the last rows that came before some seconds of silence. It has no source for files
of text, CSV or Parquet; the lines of the word count are inserted, too, loaded before the clock runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import laminardb
import pyarrow as pa
import pyarrow.compute as pc
from task import Cannot, Task

ROWS = {"words": 100_000, "keyed": 2_000_000, "window": 3_000_000, "million": 400_000, "checkpoint": 400_000}
_SUMS = "SELECT auction, COUNT(*) AS n, SUM(price) AS total FROM bids GROUP BY auction"
# The pattern has the apostrophe's number: with a quote that is doubled, no row comes out.
_WORDS = r"SELECT unnest(string_to_array(trim(regexp_replace(lower(line), '[^a-z\x27]+', ' ', 'g')), ' ')) AS word FROM bids"
_QUERIES = {
    "words": f"SELECT word, COUNT(*) AS n FROM ({_WORDS}) WHERE word <> '' GROUP BY word",
    "map": "SELECT CAST(price AS DOUBLE) * 0.908 AS price FROM bids",
    "filter": "SELECT auction, price FROM bids WHERE auction % 123 = 0",
    "keyed": _SUMS,
    "million": _SUMS,
    "checkpoint": _SUMS,
    # The window's start cannot be selected: with `window_start` or `TUMBLE(...)` as a column no row comes out.
    "window": """SELECT auction, MIN(at) AS first_at, COUNT(*) AS n, MAX(price) AS top
                 FROM bids GROUP BY auction, TUMBLE(at, INTERVAL '10' SECOND)""",
}
_WINDOW_MS = 10_000
_BATCH = 65_536
_SILENCE_FIRST_MS = 30_000
_SILENCE_MS = 3_000
_WITHOUT = {
    "parquet": "no source of Parquet files",
    "csv": "no source of CSV files",
    "lambda": "no functions in Python",
    "batch": "no functions in Python",
}
_seconds: list[float] = []
_saved: list[int] = []


def versions() -> dict[str, str]:
    """Say what this is."""
    return {"laminardb": version("laminardb")}


def extras() -> dict[str, Any]:
    """Give the seconds without the silence, and how many checkpoints have any state in them."""
    found: dict[str, Any] = {"seconds": _seconds.pop()} if _seconds else {}
    return found | ({"checkpoints": _saved.pop()} if _saved else {})


def _load(task: Task) -> pa.Table:
    if task.job == "words":
        return pa.table({"line": task.file("words.txt").read_text(encoding="utf-8").splitlines()})
    columns = ["auction", "price"] + ["at"] * (task.job == "window")
    bids = task.table("drawn" if task.job in ("million", "checkpoint") else "bids", columns)
    return bids.cast(pa.schema([(name, pa.int64()) for name in columns]))


def prepare(task: Task) -> Callable[[], Any]:
    """Load the rows; each run has a database of its own, since a stream cannot start over."""
    if task.job in _WITHOUT:
        raise Cannot(_WITHOUT[task.job])
    records = _load(task)
    batches = records.combine_chunks().to_batches(_BATCH)
    types = {pa.int64(): "BIGINT", pa.string(): "VARCHAR"}
    columns = ", ".join(f"{field.name} {types[field.type]}" for field in records.schema)

    def run() -> Any:
        options: dict[str, Any] = {}
        if task.checkpoint_seconds:
            state = task.fresh("state")
            options = {"storage_dir": str(state), "checkpoint_interval_ms": int(task.checkpoint_seconds * 1000)}
        database = laminardb.open(":memory:", config=laminardb.LaminarConfig(**options))
        database.execute(f"CREATE SOURCE bids ({columns})")
        database.execute(f"CREATE STREAM results AS {_QUERIES[task.job]}")
        database.start()
        results = database.subscribe_stream("results")
        found: list[pa.Table] = []
        began = last = time.perf_counter()
        with database.writer("bids") as writer:
            for batch in batches:
                writer.insert(batch)
        while True:
            try:
                result = results.next_timeout(_SILENCE_MS if found else _SILENCE_FIRST_MS)
            except laminardb.SubscriptionError:
                break
            if result is None:
                break
            found.append(result.arrow())
            last = time.perf_counter()
        _seconds.append(last - began)
        results.cancel()
        database.close()
        if task.checkpoint_seconds:
            manifests = [json.loads(path.read_text()) for path in state.rglob("manifest.json")]
            _saved.append(sum(1 for manifest in manifests if manifest["operator_states"]))
        return task, found

    return run


def answer(result: Any) -> Any:
    """Put the results together; of a key's sums the last ones count."""
    task, found = result
    if not found:
        raise RuntimeError("no row came out")
    table = pa.concat_tables(found)
    if task.job == "window":
        start = pc.multiply(pc.divide(table["first_at"], _WINDOW_MS), _WINDOW_MS)
        return table.drop_columns(["first_at"]).append_column("window_start", start)
    if "n" not in table.column_names:
        return table
    key = table.column_names[0]
    most = table.group_by(key).aggregate([("n", "max"), *([("total", "max")] if "total" in table.column_names else [])])
    return most.rename_columns([name.removesuffix("_max") for name in most.column_names])
