"""Tumbling windows against a plain computation, with records out of order and late."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing

EPOCH = datetime(2024, 1, 1)


def records(seed: int, count: int, disorder: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    return [
        {"k": dice.randrange(3), "at": EPOCH + timedelta(seconds=i - dice.randrange(disorder)), "x": i}
        for i in range(count)
    ]


def oracle(rows: list[dict[str, Any]], size: int, offset: int, bound: int, lateness: int) -> tuple[dict[Any, Any], list[int]]:
    """One split: the watermark before a record is the largest time seen before it, less the bound."""
    windows: dict[Any, list[int]] = defaultdict(list)
    late: list[int] = []
    watermark = -(10**18)
    for row in rows:
        seconds = int((row["at"] - datetime(1970, 1, 1)).total_seconds())
        start = (seconds - offset) // size * size + offset
        is_late = watermark * 1_000_000 > (start + size + lateness) * 1_000_000 - 1 and seconds < watermark
        if is_late:
            late.append(row["x"])
        else:
            windows[row["k"], start].append(row["x"])
        watermark = max(watermark, seconds - bound)
    return windows, late


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("parallelism", [1, 3])
def test_windows_and_late_records(seed: int, parallelism: int) -> None:
    dice = random.Random(1000 + seed)
    size, offset = dice.choice([5, 10, 60]), dice.choice([0, 3])
    bound, lateness = dice.choice([0, 4, 20]), dice.choice([0, 7])
    rows = records(seed, 400, 30)
    windows, late = oracle(rows, size, offset, bound, lateness)
    result = (
        mill.from_iter(rows)
        .event_time("at", watermark=timedelta(seconds=bound))
        .key_by("k")
        .window(
            mill.tumbling(timedelta(seconds=size), offset=timedelta(seconds=offset)),
            allowed_lateness=timedelta(seconds=lateness),
        )
        .agg(n=mill.count(), s=col("x").sum(), top=col("x").max())
    )
    found: list[Any] = []
    found_late: list[int] = []
    report = mill.run(
        result.for_each(found.append),
        result.late.for_each(lambda row: found_late.append(row.x)),
        parallelism=parallelism,
    )
    assert sorted(found_late) == sorted(late)
    assert report.rows_late == len(late)
    wanted = {
        (k, datetime(1970, 1, 1) + timedelta(seconds=start)): (len(x), sum(x), max(x)) for (k, start), x in windows.items()
    }
    assert {(row.k, row.window_start): (row.n, row.s, row.top) for row in found} == wanted
    assert all(row.window_end - row.window_start == timedelta(seconds=size) for row in found)
    assert sum(row.n for row in found) + len(found_late) == len(rows)


def test_window_needs_event_time() -> None:
    with pytest.raises(mill.PlanError, match="event_time"):
        mill.from_iter([{"k": 1}]).key_by("k").window(mill.tumbling("1s"))


def test_event_time_of_what_is_no_time() -> None:
    with pytest.raises(mill.SchemaError, match="x"):
        mill.from_iter([{"x": "a"}]).event_time("x")


def test_durations() -> None:
    from millstream.time import microseconds

    assert microseconds("1m30s") == microseconds(timedelta(seconds=90)) == 90_000_000
    assert microseconds("1d2h3m4s5ms6us") == 93_784_005_006
    for bare in (5, 1.5):
        with pytest.raises(mill.PlanError, match="bare number"):
            mill.tumbling(bare)  # type: ignore[arg-type]
    for wrong in ("", "5", "s", "5 parsecs", "1m-3s", "5s x"):
        with pytest.raises(mill.PlanError, match="not a duration"):
            mill.tumbling(wrong)
    with pytest.raises(mill.PlanError, match="must not be negative"):
        mill.tumbling("-5s")
    with pytest.raises(mill.PlanError, match="more than nothing"):
        mill.tumbling("0s")


def test_event_time_passes_through_python_functions() -> None:
    rows = [{"at": EPOCH + timedelta(seconds=i), "x": i} for i in range(100)]
    stream = (
        mill.from_iter(rows)
        .event_time("at")
        .filter(lambda row: row.x % 2 == 0)
        .flat_map(lambda row: [{"x": row.x}] * 2, schema={"x": int})
        .map(lambda row: {"x": row.x, "k": 0}, schema={"x": int, "k": int})
    )
    found = stream.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count()).collect().to_pylist()
    assert sorted((row["window_start"], row["n"]) for row in found) == [(EPOCH + timedelta(seconds=10 * i), 10) for i in range(10)]


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize(
    "window", [mill.tumbling("20s"), mill.sliding("30s", slide="10s"), mill.cumulative("10s", "40s"), mill.session("2s")], ids=str
)
def test_first_last_and_collect_follow_event_time(window: mill.Window, parallelism: int) -> None:
    chance = random.Random(11)
    start = datetime(2024, 1, 1)
    rows = []
    for number in range(500):
        name = None if number % 7 == 0 else f"record {number}"
        at = start + timedelta(seconds=number // 3 - chance.randrange(20))
        rows.append({"k": number % 3, "at": at, "n": None if number % 11 == 0 else number, "s": name})
    windows = mill.from_iter(rows).event_time("at", watermark="30s").key_by("k").window(window)
    aggregates = {}
    for name in ("n", "s"):
        aggregates |= {f"{name}_first": col(name).first(), f"{name}_last": col(name).last(), f"{name}_all": col(name).collect()}
        aggregates[f"{name}_some"] = col(name).last().filter(col("n") % 2 == 0)
    found = windows.agg(**aggregates).collect(parallelism=parallelism).to_pylist()
    assert len(found) >= 3
    for row in found:
        # The sort is stable: records of one time stay in the order in which they came.
        inside = [r for r in rows if r["k"] == row["k"] and row["window_start"] <= r["at"] < row["window_end"]]
        inside.sort(key=lambda r: r["at"])
        for name in ("n", "s"):
            assert row[f"{name}_first"] == inside[0][name]
            assert row[f"{name}_last"] == inside[-1][name]
            assert row[f"{name}_all"] == [r[name] for r in inside]
            some = [r[name] for r in inside if r["n"] is not None and r["n"] % 2 == 0]
            assert row[f"{name}_some"] == (some[-1] if some else None)


@pytest.mark.parametrize("lateness", [0, 30])
@pytest.mark.parametrize("disorder", [2, 400])
def test_records_scattered_over_many_windows(disorder: int, lateness: int, tmp_path: Path) -> None:
    """Windows of few records share a table; a window goes on in the form in which it began, also over a restart."""
    for seed in range(3):
        dice = random.Random(seed)
        rows = []
        for i in range(3000):
            at = i // 6 - dice.randrange(disorder) if dice.random() < 0.9 else i // 6
            # From time to time all records are of one moment, so that a window gets a table of its own.
            at = i // 6 if i // 500 % 2 else at
            rows.append({"k": dice.choice([None, "a", "b", "c"]), "at": EPOCH + timedelta(seconds=at), "x": i})
        latest, late = None, []
        expected: dict[Any, list[int]] = defaultdict(list)
        bound = timedelta(seconds=disorder // 2)
        for row in rows:
            start = EPOCH + (row["at"] - EPOCH) // timedelta(seconds=2) * timedelta(seconds=2)
            is_behind = latest is not None and latest - bound > row["at"]
            if is_behind and latest - bound >= start + timedelta(seconds=2 + lateness):
                late.append(row["x"])
            else:
                expected[row["k"], start].append(row["x"])
            latest = row["at"] if latest is None else max(latest, row["at"])
        schema = pa.schema({"k": pa.string(), "at": pa.timestamp("us"), "x": pa.int64()})
        table = pa.concat_tables([pa.Table.from_pylist(rows[i : i + 100], schema) for i in range(0, len(rows), 100)])

        def result(table: pa.Table = table, bound: timedelta = bound) -> mill.Stream:
            keyed = mill.from_arrow(table).event_time("at", watermark=bound).key_by("k")
            windows = keyed.window(mill.tumbling("2s"), allowed_lateness=timedelta(seconds=lateness))
            return windows.agg(n=mill.count(), total=col("x").sum(), first=col("x").first())

        def check(found: list[dict[str, Any]], expected: dict[Any, list[int]] = expected, rows: list[Any] = rows) -> None:
            seen = {(row["k"], row["window_start"]): (row["n"], row["total"], row["first"]) for row in found}
            assert len(seen) == len(found)
            first = {key: min(xs, key=lambda x: (rows[x]["at"], x)) for key, xs in expected.items()}
            assert seen == {key: (len(xs), sum(xs), first[key]) for key, xs in expected.items()}

        for parallelism in (1, 3):
            check(result().collect(parallelism=parallelism).to_pylist())
            assert sorted(row["x"] for row in result().late.collect(parallelism=parallelism).to_pylist()) == sorted(late)
        # Sums alone are combined ahead of the exchange.
        keyed = mill.from_arrow(table).event_time("at", watermark=bound).key_by("k")
        sums = keyed.window(mill.tumbling("2s"), allowed_lateness=timedelta(seconds=lateness)).agg(s=col("x").sum())
        for parallelism in (1, 3):
            found = sums.collect(parallelism=parallelism).to_pylist()
            assert {(row["k"], row["window_start"]): row["s"] for row in found} == {key: sum(xs) for key, xs in expected.items()}
        steps = 80 + 60 * seed
        folder = tmp_path / f"{seed}"
        checkpoint = mill.Checkpoint(folder / "state", every="1ms")
        sink = result().write_parquet(folder / "out")
        testing.simulate(sink, seed=seed, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=100)
        mill.run(result().write_parquet(folder / "out"), checkpoint=checkpoint, parallelism=3)
        check(mill.read_parquet(folder / "out").collect().to_pylist())
