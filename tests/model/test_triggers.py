"""Random windows with random triggers, killed and restored at random: the rows that are left at the end are those of the oracle.

Half of the cases have aggregates for which windows keep a row, half some for which they keep their records.

``MILL_CASES`` sets how many cases are drawn (60 unless set), ``MILL_SEED`` the first of them. A failure prints its seed:
``MILL_SEED=<seed> MILL_CASES=1`` replays it.
"""

from __future__ import annotations

import os
import random
import sqlite3
import statistics
from collections import defaultdict
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import oracle
import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing

FIRST = int(os.environ.get("MILL_SEED", "1"))
CASES = int(os.environ.get("MILL_CASES", "60"))
EPOCH = datetime(1970, 1, 1)
SECOND = 1_000_000
KEYS: dict[str, list[Any]] = {
    "int64": [None, -3, 0, 7],
    "string": [None, "", "a", "a key that is longer than twelve bytes"],
    "double": [None, -1.5, 0.0, float("inf")],
    "bool": [None, True, False],
}
TYPES = {"int64": pa.int64(), "string": pa.string(), "double": pa.float64(), "bool": pa.bool_()}
Row = tuple[Any, int, int]
"""A key, a time in microseconds, a value."""


def splits_of(dice: random.Random, keys: list[Any]) -> list[list[Row]]:
    """Return the rows of one to three splits, out of order, with equal times, some before 1970."""
    splits = []
    for _ in range(dice.choice([1, 1, 2, 3])):
        clock, rows = dice.randint(-60, 20) * SECOND, []
        for _ in range(dice.choice([0, 5, 40, 120])):
            clock += dice.choice([0, 0, 1, 2, 9]) * SECOND // 2
            rows.append((dice.choice(keys), clock - dice.choice([0, 0, 1, 3, 15]) * SECOND, dice.randint(-99, 99)))
        splits.append(rows)
    return splits


def window_of(dice: random.Random) -> tuple[str, int, int, mill.Window]:
    """Return the kind of windows, their size or gap, their slide or step, and themselves."""
    kind = dice.choice(["tumbling", "sliding", "cumulative", "session", "session"])
    size = dice.choice([2, 6, 12, 60]) * SECOND
    slide = size // dice.choice([1, 2, 4] if kind == "cumulative" else [1, 2, 3]) if kind != "tumbling" else size
    length, step = timedelta(microseconds=size), timedelta(microseconds=slide)
    made: dict[str, Any] = {
        "tumbling": lambda: mill.tumbling(length),
        "sliding": lambda: mill.sliding(length, slide=step),
        "cumulative": lambda: mill.cumulative(step=step, size=length),
        "session": lambda: mill.session(length),
    }
    return kind, size, slide, made[kind]()


def trigger_of(dice: random.Random, lateness: int) -> mill.Trigger:
    """Return a trigger."""
    firing = lambda: dice.choice([mill.each(), mill.every(1), mill.every(dice.randint(2, 9)), "1ms"])
    if lateness and dice.random() < 0.5:
        return mill.on_watermark(early=firing() if dice.random() < 0.5 else None, late=firing())
    return dice.choice([mill.on_watermark(early=firing()), mill.on_count(dice.randint(1, 6)), mill.on_processing_time("1ms")])


def expected_of(splits: list[list[Row]], kind: str, size: int, slide: int, bound: int, lateness: int) -> dict[Any, list[int]]:
    """Return the values of each key and window."""
    taken: list[tuple[Any, int, int, int]] = []
    for rows in splits:
        latest = -(2**62)
        for key, at, value in rows:
            taken.append((key, at, value, latest - bound))
            latest = max(latest, at)
    found: dict[Any, list[int]] = defaultdict(list)
    if kind != "session":
        for key, at, value, behind in taken:
            for start, end in oracle.windows_of(kind, size, slide, 0, at):
                if behind <= at or behind <= end - 1 + lateness:
                    found[key, start, end].append(value)
        return found
    of_keys: dict[Any, list[tuple[int, int]]] = defaultdict(list)
    for key, at, value, behind in taken:
        if behind <= at + lateness:
            of_keys[key].append((at, value))
    for key, rows in of_keys.items():
        rows.sort(key=lambda row: row[0])
        first = 0
        for place in range(1, len(rows) + 1):
            if place == len(rows) or rows[place][0] >= rows[place - 1][0] + size:
                found[key, rows[first][0], rows[place - 1][0] + size] = [value for _, value in rows[first:place]]
                first = place
    return found


@pytest.mark.parametrize("seed", range(FIRST, FIRST + CASES))
def test_the_rows_that_are_left_are_those_of_the_oracle(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    key_type = dice.choice(list(KEYS))
    splits = splits_of(dice, KEYS[key_type])
    kind, size, slide, window = window_of(dice)
    bound, lateness = dice.choice([0, 2, 20]) * SECOND, dice.choice([0, 0, 3, 30]) * SECOND
    trigger = trigger_of(dice, lateness)
    keeps_records = dice.random() < 0.5
    schema = pa.schema({"k": TYPES[key_type], "at": pa.timestamp("us"), "v": pa.int64()})

    def flow() -> mill.Output:
        streams = []
        for rows in splits:
            table = pa.table([pa.array([row[i] for row in rows], schema.field(i).type) for i in range(3)], schema=schema)
            stream = mill.from_arrow(table).event_time("at", watermark=timedelta(microseconds=bound))
            streams.append(stream.select("k", "v"))
        stream = streams[0].union(*streams[1:]) if len(streams) > 1 else streams[0]
        windows = stream.key_by("k").window(window, allowed_lateness=timedelta(microseconds=lateness), trigger=trigger)
        v = col("v")
        of_values = {"middle": v.median(), "d": v.n_unique()} if keeps_records else {"middle": v.mean(), "d": v.max() - v.min()}
        result = windows.agg(n=mill.count(), total=v.sum(), **of_values)
        return result.write_sqlite(tmp_path / "rows.db", "rows", key=["k", "window_start", "window_end"])

    report = None
    for start in range(4):
        report = testing.simulate(
            flow(),
            checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"),
            seed=dice.randrange(2**32),
            parallelism=dice.randint(1, 4),
            frame_rows=dice.choice([1, 3, 64]),
            chaining=dice.random() < 0.7,
            steps=None if start == 3 else dice.choice([50, 200, 1000]) * (1 + start),
        )
        if report is not None:
            break
    assert report is not None, "the job came to no end"
    expected = expected_of(splits, kind, size, slide, bound, lateness)
    case = (
        f"case {seed}: {window}, lateness {lateness}, bound {bound}, {trigger}, {key_type}, {[len(rows) for rows in splits]}, "
        f"{'records' if keeps_records else 'rows'}"
    )
    with closing(sqlite3.connect(tmp_path / "rows.db")) as connection:
        rows = connection.execute("SELECT k, window_start, window_end, n, total, middle, d FROM rows").fetchall()
    found: dict[Any, tuple[Any, ...]] = {}
    for key, start, end, *values in rows:
        key = bool(key) if key_type == "bool" and key is not None else key
        bounds = [(datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1) for text in (start, end)]
        found[key, *bounds] = tuple(values)
    assert len(found) == len(rows), case

    def result_of(values: list[int]) -> tuple[Any, ...]:
        if keeps_records:
            return len(values), sum(values), float(statistics.median(values)), len(set(values))
        return len(values), sum(values), sum(values) / len(values), max(values) - min(values)

    assert found == {window: result_of(values) for window, values in expected.items()}, case
