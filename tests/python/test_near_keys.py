"""Keys that are whole numbers near each other are combined in arrays, all others in hash tables: nobody sees which."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col

FRAME = 2048
START = datetime(2024, 1, 1)

# What a key is in record `i` of frame `f`: arrays begin at 1,024 records a frame.
PATTERNS = {
    "near": lambda f, i, dice: dice.randrange(500),
    "moving": lambda f, i, dice: 40_000 * f + i + dice.randrange(100),
    "far apart": lambda f, i, dice: dice.randrange(500) * 1_000_003,
    "several ranges": lambda f, i, dice: (f % 7) * 10**9 + dice.randrange(300),
    "sparse ranges": lambda f, i, dice: (f % 6) * 10**9 + dice.randrange(900) * 30,
    "now near, now far": lambda f, i, dice: dice.randrange(1000) * (1 if f % 2 else 12_345_678),
    "some null": lambda f, i, dice: None if f % 3 == 0 and i % 50 == 0 else dice.randrange(500),
    "the ends of the range": lambda f, i, dice: (-(2**63), 2**63 - 600)[f % 2] + dice.randrange(600),
}


def records(pattern: str) -> pa.Table:
    """Sixteen frames of records, their times mostly in order."""
    dice = random.Random(pattern)
    keys, values, times = [], [], []
    for frame in range(16):
        for i in range(FRAME):
            keys.append(PATTERNS[pattern](frame, i, dice))
            values.append(dice.randrange(-1000, 1000))
            times.append(START + timedelta(milliseconds=2 * (frame * FRAME + i) + dice.randrange(900)))
    columns = {"k": pa.array(keys, pa.int64()), "v": pa.array(values), "at": pa.array(times, pa.timestamp("us"))}
    return pa.Table.from_batches(pa.table(columns).to_batches(max_chunksize=FRAME))


def expected(table: pa.Table, windowed: bool) -> set[tuple[Any, ...]]:
    """Count, sum, least and greatest by window and key, in plain Python."""
    groups = defaultdict(list)
    for row in table.to_pylist():
        window = (row["at"] - START) // timedelta(seconds=5) if windowed else 0
        groups[window, row["k"]].append(row["v"])
    return {(*key, len(values), sum(values), min(values), max(values)) for key, values in groups.items()}


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_sums_are_those_of_plain_python(pattern: str, parallelism: int) -> None:
    table = records(pattern)
    calls = {"n": mill.count(), "s": col("v").sum(), "least": col("v").min(), "most": col("v").max()}
    rows = mill.from_arrow(table).key_by("k").agg(**calls).collect(parallelism=parallelism).to_arrow().to_pylist()
    assert {(0, *row.values()) for row in rows} == expected(table, windowed=False)
    assert len(rows) == len({row["k"] for row in rows})


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_so_are_those_of_windows(pattern: str, parallelism: int) -> None:
    table = records(pattern)
    windows = mill.from_arrow(table).event_time("at", watermark="2s").key_by("k").window(mill.tumbling("5s"))
    calls = {"n": mill.count(), "s": col("v").sum(), "least": col("v").min(), "most": col("v").max()}
    rows = windows.agg(**calls).collect(parallelism=parallelism).to_arrow().to_pylist()
    found = {((row.pop("window_start") - START) // timedelta(seconds=5), *(row[name] for name in ("k", *calls))) for row in rows}
    assert found == expected(table, windowed=True)


@pytest.mark.parametrize("key_type", [pa.int16(), pa.uint16(), pa.uint64(), pa.date32(), pa.timestamp("ms"), pa.duration("s")])
def test_keys_come_back_as_they_were(key_type: pa.DataType) -> None:
    table = records("near").select(["k", "v"])
    keys = table["k"].combine_chunks()
    column = keys.cast(pa.int32()).cast(key_type) if pa.types.is_date(key_type) else keys.cast(key_type)
    frames = pa.table({"k": column, "v": table["v"].combine_chunks()}).to_batches(max_chunksize=FRAME)
    counted = mill.from_arrow(pa.Table.from_batches(frames)).key_by("k").agg(n=mill.count()).collect(parallelism=2).to_arrow()
    assert counted["k"].type == key_type
    assert dict(zip(counted["k"].to_pylist(), counted["n"].to_pylist(), strict=True)) == {
        entry["values"]: entry["counts"] for entry in column.value_counts().to_pylist()
    }
