"""Pathway: tables that follow their inputs, on its Rust engine.

It reads CSV and writes CSV with its own native connectors, also where other peers have their records in memory: a connector in
Python (`next` a record) and `table_from_pandas` hand over a record at a time, and are five times slower.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

logging.disable(logging.CRITICAL)

import pathway as pw  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.csv  # noqa: E402
from task import Cannot, Task  # noqa: E402

ROWS = {"words": 50_000} | dict.fromkeys(("map", "filter", "keyed", "window", "million", "checkpoint", "csv", "lambda"), 500_000)
_TOKEN = re.compile("[a-z']+")
_written: list[Path] = []


def versions() -> dict[str, str]:
    """Say what this is."""
    return {"pathway": version("pathway")}


def extras() -> dict[str, Any]:
    """Say how many snapshots of its progress the last run left."""
    return {"checkpoints": sum(1 for path in _written.pop().rglob("*") if path.is_file())} if _written else {}


class _Bid(pw.Schema):
    auction: int
    price: int


class _TimedBid(pw.Schema):
    auction: int
    price: int
    at: int


def _tokens(line: str) -> tuple[str, ...]:
    return tuple(_TOKEN.findall(line.lower()))


def _input(task: Task) -> Callable[[], pw.Table]:
    """Write what is to be read, and give what reads it."""
    if task.job == "words":
        return lambda: pw.io.plaintext.read(task.file("words.txt"), mode="static", name="in")
    path = task.file("bids.csv")
    if task.job != "csv":
        columns = ["auction", "price"] + ["at"] * (task.job == "window")
        bids = task.table("drawn" if task.job in ("million", "checkpoint") else "bids", columns)
        if task.job == "window":
            bids = bids.set_column(2, "at", bids["at"].cast(pa.int64()))
        path = task.fresh("in") / "bids.csv"
        pyarrow.csv.write_csv(bids, path)
    schema = _TimedBid if task.job == "window" else _Bid
    return lambda: pw.io.csv.read(path, schema=schema, mode="static", name="in")


def _steps(task: Task, records: pw.Table) -> pw.Table:
    if task.job == "words":
        words = records.select(word=pw.apply(_tokens, pw.this.data)).flatten(pw.this.word)
        return words.groupby(pw.this.word).reduce(pw.this.word, n=pw.reducers.count())
    if task.job == "map":
        return records.select(price=pw.this.price * 0.908)
    if task.job == "lambda":
        return records.select(price=pw.apply_with_type(lambda price: price * 0.908, float, pw.this.price))
    if task.job == "filter":
        return records.filter(pw.this.auction % 123 == 0)
    if task.job == "window":
        windows = records.windowby(pw.this.at, window=pw.temporal.tumbling(duration=10_000), instance=pw.this.auction)
        start = pw.this._pw_window_start
        return windows.reduce(auction=pw.this._pw_instance, window_start=start, n=pw.reducers.count(), top=pw.reducers.max(pw.this.price))
    return records.groupby(pw.this.auction).reduce(pw.this.auction, n=pw.reducers.count(), total=pw.reducers.sum(pw.this.price))


def prepare(task: Task) -> Callable[[], Any]:
    """Write the input; the graph is built when it runs, since a run uses it up. `PATHWAY_THREADS` is in the environment."""
    if task.job == "parquet":
        raise Cannot("no reader of plain Parquet")
    if task.job == "batch":
        raise Cannot("functions of batches get lists, not Arrow")
    read = _input(task)

    def run() -> Path:
        pw.internals.parse_graph.G.clear()
        out = task.fresh("out") / "result.csv"
        pw.io.csv.write(_steps(task, read()), out)
        saved = None
        if task.checkpoint_seconds:
            folder = task.fresh("state")
            _written.append(folder)
            interval = int(task.checkpoint_seconds * 1000)
            saved = pw.persistence.Config(pw.persistence.Backend.filesystem(folder), snapshot_interval_ms=interval)
        pw.run(monitoring_level=pw.MonitoringLevel.NONE, persistence_config=saved)
        return out

    return run


def answer(result: Path) -> Any:
    """Read what it wrote; a line a change, of which those that add are what is left if none takes away."""
    table = pyarrow.csv.read_csv(result)
    if pa.compute.min(table["diff"]).as_py() != 1:
        raise ValueError("rows were taken back")
    return table
