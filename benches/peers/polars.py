"""Polars: lazy frames on the streaming engine; results as data frames. No stream, and no state that outlives the query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
from task import Cannot, Task

ROWS = {"lambda": 2_000_000}
_SUMS = [pl.len().alias("n"), pl.col("price").sum().alias("total")]


def versions() -> dict[str, str]:
    """Say what this is."""
    return {"polars": pl.__version__}


def _frame(task: Task) -> pl.LazyFrame:
    if task.job == "words":
        lines = pl.scan_csv(task.file("words.txt"), has_header=False, new_columns=["line"], separator="\x01", quote_char=None, infer_schema=False)
        words = lines.select(word=pl.col("line").str.to_lowercase().str.extract_all("[a-z']+")).explode("word").drop_nulls()
        return words.group_by("word").agg(n=pl.len())
    if task.job == "parquet":
        return pl.scan_parquet(task.file("bids.parquet")).group_by("auction").agg(_SUMS)
    if task.job == "csv":
        return pl.scan_csv(task.file("bids.csv")).group_by("auction").agg(_SUMS)
    if task.job == "million":
        return pl.DataFrame(task.table("drawn", ["auction", "price"])).lazy().group_by("auction").agg(_SUMS)
    bids = pl.DataFrame(task.table("bids", ["auction", "price", "at"])).lazy()
    if task.job == "map":
        return bids.select(pl.col("price") * 0.908)
    if task.job == "filter":
        return bids.filter(pl.col("auction") % 123 == 0).select("auction", "price")
    if task.job == "keyed":
        return bids.group_by("auction").agg(_SUMS)
    if task.job == "lambda":
        return bids.select(pl.col("price").map_elements(lambda price: price * 0.908, return_dtype=pl.Float64))
    if task.job == "batch":
        return bids.select(pl.col("price").map_batches(lambda prices: prices * 0.908, return_dtype=pl.Float64))
    if task.job == "window":
        window = pl.col("at").dt.truncate("10s").alias("window_start")
        return bids.group_by("auction", window).agg(n=pl.len(), top=pl.col("price").max())
    raise Cannot("a query has no checkpoints")


def prepare(task: Task) -> Callable[[], Any]:
    """Build the lazy frame. The environment sets the number of threads."""
    frame = _frame(task)
    return lambda: frame.collect(engine="streaming")


def answer(result: pl.DataFrame) -> Any:
    """Give the result as Arrow."""
    return result.to_arrow()
