"""Millstream: streams of columns; results as a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow.compute as pc
from task import Task

import millstream as mill
from millstream import col

ROWS = {"lambda": 5_000_000, "checkpoint": 200_000_000}
_SUMS = {"n": mill.count(), "total": col("price").sum()}
_checkpoints: list[int] = []


def versions() -> dict[str, str]:
    """Say what this is."""
    return {"millstream": mill.__version__}


def extras() -> dict[str, Any]:
    """Say how many checkpoints the last run took."""
    return {"checkpoints": _checkpoints.pop()} if _checkpoints else {}


def _stream(task: Task) -> mill.Stream:
    if task.job == "words":
        words = col("line").str.to_lowercase().str.extract_all(r"[a-z']+")
        return mill.read_text(task.file("words.txt")).select(word=words).explode("word").key_by("word").agg(n=mill.count())
    if task.job == "parquet":
        return mill.read_parquet(task.file("bids.parquet")).key_by("auction").agg(**_SUMS)
    if task.job == "csv":
        return mill.read_csv(task.file("bids.csv")).key_by("auction").agg(**_SUMS)
    if task.job in ("million", "checkpoint"):
        return mill.from_arrow(task.table("drawn", ["auction", "price"])).key_by("auction").agg(**_SUMS)
    bids = mill.from_arrow(task.table("bids", ["auction", "price", "at"]))
    if task.job == "map":
        return bids.select(price=col("price") * 0.908)
    if task.job == "filter":
        return bids.filter(col("auction") % 123 == 0).select("auction", "price")
    if task.job == "keyed":
        return bids.key_by("auction").agg(**_SUMS)
    if task.job == "lambda":
        return bids.map(lambda bid: bid.price * 0.908, schema={"price": float})
    if task.job == "batch":
        return bids.select("price").map_batches(lambda batch: {"price": pc.multiply(batch["price"], 0.908)}, schema={"price": float})
    windows = bids.event_time("at", watermark="1s").key_by("auction").window(mill.tumbling("10s"))
    return windows.agg(n=mill.count(), top=col("price").max())


def prepare(task: Task) -> Callable[[], Any]:
    """Build the stream."""
    stream = _stream(task)
    if task.job != "checkpoint":
        return lambda: stream.collect(parallelism=task.threads).to_arrow()

    def saved() -> Any:
        batches: list[Any] = []
        every = task.checkpoint_seconds
        checkpoint = mill.Checkpoint(task.fresh("state"), every=f"{every:g}s", mode="at_least_once") if every else None
        report = mill.run(stream.for_each_batch(batches.append), checkpoint=checkpoint, parallelism=task.threads, progress=False)
        if checkpoint:
            _checkpoints.append(report.checkpoints_taken)
        return batches

    return saved


def answer(result: Any) -> Any:
    """Make a table of the result of the run."""
    import pyarrow as pa

    return pa.Table.from_batches(result) if isinstance(result, list) else result
