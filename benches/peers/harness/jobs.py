"""The jobs: what they are called, which records they take, what is right, and how a result is held against that.

The oracle is numpy and plain Python, and shares no code with any peer. Prices are whole numbers, so that sums are exact in any
order; `price * 0.908` is one multiplication of doubles, and has to be equal to the last bit.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["JOBS", "Job", "Oracle", "difference"]

WINDOW_MS = 10_000
Answer = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """A line of the table."""

    name: str
    about: str
    file: str
    """Which records: `bids` and `drawn` are loaded before, files with a suffix are read while the clock runs."""
    keys: tuple[str, ...]
    """The columns that order a result."""


JOBS = {
    job.name: job
    for job in (
        Job("words", "word count, text file", "words.txt", ("word",)),
        Job("map", "map: `price * 0.908`", "bids", ("price",)),
        Job("filter", "filter: `auction % 123 = 0`", "bids", ("auction", "price")),
        Job("keyed", "keyed count + sum, 600 k moving keys", "bids", ("auction",)),
        Job("window", "tumbling 10 s, count + max a key", "bids", ("auction", "window_start")),
        Job("million", "keyed count + sum, 1 M keys", "drawn", ("auction",)),
        Job("checkpoint", "the same, checkpoint every 1 s", "drawn", ("auction",)),
        Job("parquet", "Parquet in, keyed count + sum", "bids.parquet", ("auction",)),
        Job("csv", "CSV in, keyed count + sum", "bids.csv", ("auction",)),
        Job("lambda", "Python lambda a record", "bids", ("price",)),
        Job("batch", "Python function a batch (Arrow)", "bids", ("price",)),
    )
}


class Oracle:
    """Knows what is right over the first rows of a folder's records."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[str, int], Answer] = {}

    def answer(self, job: Job, rows: int, text: Path | None = None) -> Answer:
        """Give the result in order of the job's keys."""
        kind = {"lambda": "map", "batch": "map", "checkpoint": "million", "parquet": "keyed", "csv": "keyed"}.get(job.name, job.name)
        if (kind, rows) not in self._known:
            self._known = {known: answer for known, answer in self._known.items() if known[0] == kind}
            self._known[kind, rows] = _ordered(_words(text) if text else self._of_records(job, kind, rows), job.keys)
        return self._known[kind, rows]

    def _of_records(self, job: Job, kind: str, rows: int) -> Answer:
        columns = {path.name.split(".")[1]: np.fromfile(path, np.int64) for path in self._folder.glob(f"{job.file.partition('.')[0]}.*.i64")}
        times = max(1, rows // len(columns["auction"]))
        answer = _of_records(kind, {name: column[: rows // times] for name, column in columns.items()})
        # The same records again add the same to counts and sums.
        return {name: column * times if name in ("n", "total") else column for name, column in answer.items()}


def _words(path: Path) -> Answer:
    counts: Counter[str] = Counter()
    token = re.compile("[a-z']+")
    with path.open(encoding="utf-8") as file:
        for line in file:
            counts.update(token.findall(line.lower()))
    return {"word": np.array(list(counts), dtype=object), "n": np.array(list(counts.values()))}


def _of_records(kind: str, columns: dict[str, np.ndarray]) -> Answer:
    auction, price = columns["auction"], columns["price"]
    if kind == "map":
        return {"price": price * 0.908}
    if kind == "filter":
        kept = auction % 123 == 0
        return {"auction": auction[kept], "price": price[kept]}
    if kind == "window":
        start = columns["at"] // WINDOW_MS
        groups, place = np.unique((start - start[0]) << 32 | auction, return_inverse=True)
        top = np.full(len(groups), -1)
        np.maximum.at(top, place, price)
        starts = ((groups >> 32) + start[0]) * WINDOW_MS
        return {"auction": groups & 0xFFFF_FFFF, "window_start": starts, "n": np.bincount(place), "top": top}
    counts = np.bincount(auction)
    keys = np.flatnonzero(counts)
    return {"auction": keys, "n": counts[keys], "total": np.bincount(auction, price)[keys].astype(np.int64)}


def _ordered(answer: Answer, keys: tuple[str, ...]) -> Answer:
    if len(keys) == 1 and len(answer) == 1:
        return {keys[0]: np.sort(answer[keys[0]])}
    order = np.lexsort([answer[key] for key in reversed(keys)])
    return {name: column[order] for name, column in answer.items()}


def difference(job: Job, right: Answer, path: Path) -> str | None:
    """Say what is wrong with a result file in a few words; None if nothing is."""
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    missing = [name for name in right if name not in table.column_names]
    if missing:
        return f"no column {missing[0]!r}"
    columns = {name: _plain(table[name], right[name]) for name in right}
    rows, rows_right = table.num_rows, len(next(iter(right.values())))
    if rows != rows_right:
        return f"{rows:,} rows, not {rows_right:,}"
    ours = _ordered(columns, job.keys)
    for name, column in right.items():
        unequal = int((ours[name] != column).sum())
        if unequal:
            return f"{unequal:,} of {rows:,} rows have another {name}"
    return None


def _plain(column: Any, like: np.ndarray) -> np.ndarray:
    """Give a column in the type the oracle has; times in milliseconds."""
    if pa.types.is_timestamp(column.type):
        column = pc.cast(pc.cast(column, pa.timestamp("ms", column.type.tz)), pa.int64())
    if like.dtype == object:
        return np.array(column.to_pylist(), dtype=object)
    target = pa.float64() if like.dtype == np.float64 else pa.int64()
    return np.asarray(pc.fill_null(pc.cast(column, target), -1))
