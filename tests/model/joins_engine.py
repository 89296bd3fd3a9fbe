"""Carries a random join out with the engine, killed and restored at random, and reads what it committed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from engine import STARTS_MAX, committed
from joins import PLAIN, THEN, Case, Row, Side, answer, has_late
from levels import Source
from levels_engine import IDLENESS, Partitions, Reader, duration

import millstream as mill
from millstream import col

PYTHON: dict[str, Any] = {
    "int": int,
    "str": str,
    "float": float,
    "time": datetime,
    "struct": {"a": int, "b": str},
    "list": list[str],
}
ARROW = {
    "int": pa.int64(),
    "str": pa.string(),
    "float": pa.float64(),
    "time": pa.timestamp("us"),
    "struct": pa.struct([("a", pa.int64()), ("b", pa.string())]),
    "list": pa.list_(pa.string()),
}
UNSHOWN = ("at", "at_right", "left_row", "right_row")
"""What a keyed table is read without."""


class Rows(Partitions):
    """The splits of a source of a side."""

    def __init__(self, source: Source, rows_at_once: int, columns: dict[str, str]) -> None:
        super().__init__(source.splits, rows_at_once)
        self.schema = {name: PYTHON[kind] for name, kind in columns.items()}

    def open(self, partition: str, position: Any) -> mill.SourceReader:
        """A reader that continues from a position."""
        return Reader(self.splits[partition], position or 0, self.rows_at_once)


def _source(source: Source, name: str, columns: dict[str, str], rows_at_once: int, has_time: bool) -> Any:
    if source.is_table:
        rows = source.splits[0].rows
        # Both sides may be empty, and then nothing but their names tells them apart.
        table = pa.table({column: pa.array([row[column] for row in rows], ARROW[kind]) for column, kind in columns.items()})
        stream: Any = mill.from_arrow(table).name(name)
    else:
        # Sources of one class are told apart by their names.
        stream = mill.from_source(Rows(source, rows_at_once, columns)).name(name)
    if not has_time:
        return stream
    watermark = mill.WatermarkStrategy.bounded_out_of_orderness(duration(source.bound))
    return stream.event_time("at", watermark=watermark.with_idleness(IDLENESS) if source.idleness else watermark)


def _side(side: Side, place: str, columns: dict[str, str], rows_at_once: int, left: Any = None) -> Any:
    schema = {name: PYTHON[kind] for name, kind in columns.items()}
    if side.kind == "changes":
        return mill.from_changelog(mill.from_iter(side.changes, schema={"op": str, **schema}), key=side.key)
    stream = left
    if side.kind == "records":
        first, *others = [
            _source(source, f"{place} {number}", columns, rows_at_once, side.has_time) for number, source in enumerate(side.sources)
        ]
        stream = first.union(*others) if others else first
    for verb, than in side.steps:
        if verb == "filter":
            stream = stream.filter(col("v") > than)
        elif verb == "map":
            stream = stream.map(lambda row: dict(row.items()), schema=schema)
        elif verb == "project":
            stream = stream.with_columns(v=col("v") + than)
        elif verb == "rebalance":
            stream = stream.rebalance()
    return stream


KEYS: dict[str, dict[str, Any]] = {
    "k": {"on": "k"},
    "int32": {"on": "k"},
    "s": {"on": "s"},
    "k, s": {"on": ["k", "s"]},
    "k = v": {"left_on": "k", "right_on": "v"},
    "k + 1 = v, text": {"left_on": [col("k") + 1, "text"], "right_on": ["v", col("text")]},
    "str(k) = s": {"left_on": col("k").cast(str), "right_on": "s"},
    "f": {"on": "f"},
}


def declare(case: Case, rows_at_once: int) -> dict[str, mill.Stream]:
    """The outputs of a case."""
    left = _side(case.left, "left", case.columns, rows_at_once)
    right = _side(case.right, "right", case.columns, rows_at_once, left) if case.kind != "lookup" else None
    if case.on == "int32":
        right = right.cast({"k": "int32"})
    given, options = case.given, {**KEYS[case.on], "how": case.how}
    if case.kind == "window":
        made = left.join(right, window=_window(given), **options)
    elif case.kind == "interval":
        made = left.join_interval(right, lower=duration(given["lower"]), upper=duration(given["upper"]), **options)
    elif case.kind == "asof":
        made = left.join_asof(right, tolerance=None if given["tolerance"] is None else duration(given["tolerance"]), **options)
    elif case.kind == "enrich":
        made = left.enrich(right, **options)
    elif case.kind == "regular":
        made = left.join(right, ttl=given["ttl"], **options)
    else:
        made = left.enrich(_lookup(given, options["on"]), **options)
    outputs: dict[str, Any] = {"result": made}
    if case.kind in ("window", "interval", "asof") or has_late(case):
        outputs |= {"late": made.late, "late_right": made.late_right}
    if case.then == "count":
        counts = made.select("n", "v").window_all(_window(THEN)).agg(count=mill.count())
        outputs |= {"result": counts.select("window_start", "count"), "late_then": counts.late}
    elif case.then:
        assert case.third is not None
        third = _side(case.third, "third", PLAIN, rows_at_once)
        outputs |= _then(case, made.select("n", "v"), third.select("v", m="n"))
    return outputs


def _then(case: Case, made: Any, third: Any) -> dict[str, Any]:
    if case.then == "window":
        joined = made.join(third, on="v", window=_window(THEN), how="full")
    else:
        joined = made.join_interval(third, on="v", lower=duration(THEN["lower"]), upper=duration(THEN["upper"]), how="full")
    return {"result": joined, "late_then": joined.late, "late_third": joined.late_right}


def _window(given: dict[str, Any]) -> mill.Window:
    size, slide, offset = (duration(given[name]) for name in ("size", "slide", "offset"))
    return {
        "tumbling": lambda: mill.tumbling(size, offset=offset),
        "sliding": lambda: mill.sliding(size, slide=slide, offset=offset),
        "session": lambda: mill.session(size),
        "cumulative": lambda: mill.cumulative(step=slide, size=size, offset=offset),
    }[given["kind"]]()


def _lookup(given: dict[str, Any], on: Any) -> Any:
    def parts(key: Any) -> tuple[Any, ...]:
        return (key,) if isinstance(on, str) else tuple(getattr(key, name) for name in on)

    def find(keys: list[Any]) -> dict[Any, Any]:
        assert len(set(keys)) == len(keys)
        found = {key: answer(parts(key)) for key in keys}
        return {key: {"y": y} for key, y in found.items() if y is not None}

    async def find_later(keys: list[Any]) -> dict[Any, Any]:
        await asyncio.sleep(0)
        return find(keys)

    return mill.lookup(find_later if given["is_async"] else find, schema={"y": int}, cache=given["cache"])


def carry_out(case: Case, work: Path) -> tuple[dict[str, list[Row]], int | None]:
    """The committed rows of each output, and how many rows were reported late if nothing was restored."""
    from millstream import testing

    dice = random.Random(f"schedule {case.seed}")
    is_restored, is_real = dice.random() < 0.7, dice.random() < 0.03
    report = None
    for start in range(STARTS_MAX):
        outputs = declare(case, dice.choice([1, 3, 50]))
        sinks = [_into(stream, work, name) for name, stream in outputs.items()]
        checkpoint, parallelism = mill.Checkpoint(work / "state", every="1ms"), dice.randint(1, 5)
        is_last = start == STARTS_MAX - 1 or not is_restored
        if is_real and (is_last or start == 3):
            report = mill.run(*sinks, checkpoint=checkpoint, parallelism=parallelism)
            break
        report = testing.simulate(
            *sinks,
            checkpoint=checkpoint,
            seed=dice.randrange(2**32),
            parallelism=parallelism,
            frame_rows=dice.choice([1, 3, 64, 8192]),
            chaining=dice.random() < 0.7,
            steps=None if is_last else dice.choice([30, 100, 300, 1000]) * (1 + start),
        )
        if report is not None:
            break
    assert report is not None, "the job came to no end"
    return {name: shown(work, name) for name in outputs}, None if is_restored else report.rows_late


def _into(stream: Any, work: Path, name: str) -> mill.Output:
    key = stream.updating_key
    if key is None:
        return stream.write_parquet(work / name)
    return stream.write_sqlite(work / f"{name}.db", "rows", key=key)


def shown(work: Path, name: str) -> list[Row]:
    """The rows of an output; those of a table without what only tells them apart."""
    path = work / f"{name}.db"
    if not path.exists():
        return committed(work / name)
    with contextlib.closing(sqlite3.connect(path)) as database:
        cursor = database.execute("SELECT * FROM rows")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return [{name: value for name, value in row.items() if name not in UNSHOWN} for row in rows]
