"""Carries a tree of windows out with the engine, killed and restored at random, and reads what it committed."""

from __future__ import annotations

import random
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from engine import STARTS_MAX, committed
from levels import VALUES, Case, Row, Source, Split, Step, Tree

import millstream as mill
from millstream import col

EPOCH = datetime(1970, 1, 1)
IDLENESS = timedelta(milliseconds=50)
STALLED_POLLS = 10
"""The pauses between them add up to more than the idleness."""


def duration(microseconds: int) -> timedelta:
    """A duration as the engine takes it."""
    return timedelta(microseconds=microseconds)


class Partitions(mill.Source):
    """The splits of a source of the tree."""

    schema = {"k": int, "v": int, "n": int, "at": datetime}

    def __init__(self, splits: list[Split], rows_at_once: int) -> None:
        self.splits = {f"split {i}": split for i, split in enumerate(splits)}
        self.rows_at_once = rows_at_once

    def partitions(self) -> list[str]:
        """The names of the splits."""
        return list(self.splits)

    def open(self, partition: str, position: Any) -> mill.SourceReader:
        """A reader that continues from a position."""
        return Reader(self.splits[partition], position or 0, self.rows_at_once)


class Reader(mill.SourceReader):
    """Reads a split, and gives nothing for a while where it stalls."""

    def __init__(self, split: Split, at: int, rows_at_once: int) -> None:
        self.split, self.at, self.rows_at_once = split, at, rows_at_once
        self.polls = 0

    def next_batch(self) -> Any:
        """The next rows."""
        stalls_at = self.split.stalls_at
        if self.at == stalls_at and self.polls < STALLED_POLLS:
            self.polls += 1
            return []
        if self.at == len(self.split.rows):
            return None
        end = min(self.at + self.rows_at_once, len(self.split.rows))
        if stalls_at is not None and self.at < stalls_at:
            end = min(end, stalls_at)
        rows, self.at = self.split.rows[self.at : end], end
        return [row | {"at": EPOCH + duration(row["at"])} for row in rows]

    def position(self) -> int:
        """How many rows were given."""
        return self.at


def declare(case: Case, rows_at_once: int) -> list[mill.Stream]:
    """The result of a case, and the late rows of each window, inner ones first."""
    late: list[mill.Stream] = []
    return [_stream(case.tree, late, rows_at_once, []), *late]


def _stream(tree: Tree, late: list[Any], rows_at_once: int, names: list[str]) -> Any:
    if isinstance(tree, Source):
        return _source(tree, rows_at_once, names)
    inputs = [_stream(inner, late, rows_at_once, names) for inner in tree.inputs]
    stream, than = inputs[0], tree.given.get("than")
    if tree.verb == "filter":
        return stream.filter(col("v") > than)
    if tree.verb == "map":
        return stream.map(lambda row: {"k": row.k, "v": row.v, "n": row.n}, schema={"k": int, "v": int, "n": int})
    if tree.verb == "flat_map":
        return stream.flat_map(lambda row: [dict(row.items())] * (2 if row.v > than else 1), schema={"k": int, "v": int, "n": int})
    if tree.verb == "branch":
        yes, no = stream.branch(col("v") > than)
        return yes.union(no)
    if tree.verb == "rebalance":
        return stream.rebalance()
    if tree.verb == "union":
        return stream.union(*inputs[1:])
    return _window(tree, stream, late)


def _source(source: Source, rows_at_once: int, names: list[str]) -> Any:
    watermark = mill.WatermarkStrategy.bounded_out_of_orderness(duration(source.bound))
    if source.idleness:
        watermark = watermark.with_idleness(IDLENESS)
    if source.is_table:
        rows = source.splits[0].rows
        types = {"k": pa.int64(), "v": pa.int64(), "n": pa.int64(), "at": pa.timestamp("us")}
        stream: Any = mill.from_arrow(pa.table({name: pa.array([row[name] for row in rows], of) for name, of in types.items()}))
    else:
        # Sources of one class are told apart by their names, also two that have the same records.
        name = f"source {zlib.crc32(repr(source).encode())}"
        names.append(name)
        name += f" {names.count(name)}"
        stream = mill.from_source(Partitions(source.splits, rows_at_once)).name(name)
    return stream.event_time("at", watermark=watermark).select("k", "v", "n")


def _window(step: Step, stream: Any, late: list[Any]) -> Any:
    given = step.given
    size, slide, offset = (duration(given[name]) for name in ("size", "slide", "offset"))
    window: mill.Window = {
        "tumbling": lambda: mill.tumbling(size, offset=offset),
        "sliding": lambda: mill.sliding(size, slide=slide, offset=offset),
        "session": lambda: mill.session(size),
        "cumulative": lambda: mill.cumulative(step=slide, size=size, offset=offset),
    }[given["kind"]]()
    keyed = stream.key_by(key=col("k") % given["modulo"]).window(window, allowed_lateness=duration(given["lateness"]))
    if given["how"] == "agg":
        made = keyed.agg(value=getattr(col("v"), given["value"])(), count=col("n").sum())
    else:
        made = keyed.apply(summary(given["value"]), schema={"value": int, "count": int})
    late.append(made.late.select("k", "v", "n"))
    return made.select(k=col("key"), v=col("value").cast(int), n=col("count"))


def summary(value: str) -> Any:
    """What an aggregate computes, as a function of the rows of a window."""

    def computed(key: Any, window: Any, rows: Any) -> dict[str, int]:
        return {"value": VALUES[value](rows["v"].to_pylist()), "count": sum(rows["n"].to_pylist())}

    return computed


def carry_out(case: Case, work: Path) -> tuple[list[list[Row]], int | None]:
    """The committed rows of each output, and how many rows were reported late if nothing was restored."""
    from millstream import testing

    dice = random.Random(case.seed)
    is_restored = dice.random() < 0.6
    report = None
    for start in range(STARTS_MAX):
        streams = declare(case, dice.choice([1, 3, 50]))
        sinks = [stream.write_parquet(work / str(i)) for i, stream in enumerate(streams)]
        is_last = start == STARTS_MAX - 1 or not is_restored
        report = testing.simulate(
            *sinks,
            checkpoint=mill.Checkpoint(work / "state", every="1ms"),
            seed=dice.randrange(2**32),
            parallelism=dice.randint(1, 5),
            frame_rows=dice.choice([1, 3, 64, 8192]),
            chaining=dice.random() < 0.7,
            steps=None if is_last else dice.choice([50, 200, 1000, 4000]) * (1 + start),
        )
        if report is not None:
            break
    assert report is not None, "the job came to no end"
    rows_late = None if is_restored else report.rows_late
    return [committed(work / str(i)) for i in range(len(streams))], rows_late
