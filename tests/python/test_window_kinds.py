"""Windows that overlap against a plain computation: records out of order and late, restarts, windows of windows."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, testing

EPOCH = datetime(2024, 1, 1)
ZERO = datetime(1970, 1, 1)
Bounds = list[tuple[int, int]]


def sliding_of(second: int, size: int, slide: int, offset: int) -> Bounds:
    starts = range(-(-(second - size + 1 - offset) // slide) * slide + offset, second + 1, slide)
    return [(start, start + size) for start in starts]


def cumulative_of(second: int, step: int, size: int, offset: int) -> Bounds:
    start = (second - offset) // size * size + offset
    return [(start, start + length) for length in range(step, size + 1, step) if second < start + length]


def seconds(time: datetime) -> int:
    return int((time - ZERO).total_seconds())


def make(dice: random.Random) -> tuple[mill.Window, Any]:
    offset = dice.choice([0, 3, -7])
    if dice.random() < 0.6:
        size, slide = dice.choice([(10, 5), (10, 3), (60, 1), (7, 7), (12, 5), (9, 4)])
        window: mill.Window = mill.sliding(f"{size}s", slide=f"{slide}s", offset=timedelta(seconds=offset))
        return window, lambda second: sliding_of(second, size, slide, offset)
    step, size = dice.choice([(5, 20), (10, 60), (4, 4)])
    window = mill.cumulative(step=f"{step}s", size=f"{size}s", offset=timedelta(seconds=offset))
    return window, lambda second: cumulative_of(second, step, size, offset)


def oracle(rows: list[dict[str, Any]], windows_of: Any, bound: int, lateness: int) -> tuple[dict[Any, Any], list[int]]:
    """One split: the watermark before a record is the largest time seen before it, less the bound."""
    windows: dict[Any, list[int]] = defaultdict(list)
    late: list[int] = []
    watermark = -(10**18)
    for row in rows:
        second = seconds(row["at"])
        # In microseconds a window's last time is its end less one; the watermark is a whole second.
        taking = [w for w in windows_of(second) if watermark <= second or watermark <= w[1] + lateness - 1]
        for start, end in taking:
            windows[row["k"], start, end].append(row["x"])
        if not taking:
            late.append(row["x"])
        watermark = max(watermark, second - bound)
    return windows, late


def made(seed: int) -> tuple[random.Random, mill.Window, Any, int, int, list[dict[str, Any]]]:
    dice = random.Random(seed)
    window, windows_of = make(dice)
    bound, lateness = dice.choice([0, 4, 20]), dice.choice([0, 7])
    rows = [
        {"k": dice.choice(["a", "b", None]), "at": EPOCH + timedelta(seconds=i - dice.randrange(30)), "x": i}
        for i in range(300)
    ]
    return dice, window, windows_of, bound, lateness, rows


def results(table: mill.Table, *columns: str) -> dict[Any, Any]:
    return {
        (row["k"], seconds(row["window_start"]), seconds(row["window_end"])): tuple(row[name] for name in columns)
        for row in table.to_pylist()
    }


@pytest.mark.parametrize("seed", range(40))
def test_results_and_late_records(seed: int) -> None:
    dice, window, windows_of, bound, lateness, rows = made(seed)
    expected, late = oracle(rows, windows_of, bound, lateness)
    is_mergeable = dice.random() < 0.6
    windowed = (
        mill.from_iter(rows)
        .event_time("at", watermark=timedelta(seconds=bound))
        .key_by("k")
        .window(window, allowed_lateness=timedelta(seconds=lateness))
    )
    aggregates = {"n": mill.count(), "s": col("x").sum(), "low": col("x").min(), "top": col("x").max(), "m": col("x").mean()}
    if not is_mergeable:
        aggregates |= {"d": (col("x") % 7).n_unique(), "p": col("x").median()}
    result = windowed.agg(**aggregates)
    parallelism = dice.randrange(1, 5)
    table = result.collect(parallelism=parallelism)
    found = results(table, *aggregates)
    assert len(found) == table.to_arrow().num_rows, "a window has one row a key"
    for (key, start, end), xs in expected.items():
        values: tuple[Any, ...] = (len(xs), sum(xs), min(xs), max(xs), statistics.fmean(xs))
        if not is_mergeable:
            values += (len({x % 7 for x in xs}), statistics.median(xs))
        assert found.pop((key, start, end)) == values, (window, key, start, end)
    assert not found
    assert sorted(row["x"] for row in result.late.collect(parallelism=parallelism).to_pylist()) == sorted(late)


@pytest.mark.parametrize("seed", range(100, 106))
def test_a_restart_goes_on_in_the_middle_of_windows(seed: int, tmp_path: Path) -> None:
    _, window, windows_of, bound, lateness, rows = made(seed)
    expected, _ = oracle(rows, windows_of, bound, lateness)
    schema = pa.schema({"k": pa.string(), "at": pa.timestamp("us"), "x": pa.int64()})
    pieces = [pa.Table.from_pylist(rows[first : first + 10], schema) for first in range(0, len(rows), 10)]
    read: list[int] = []

    def flow(folder: Path) -> mill.Sink:
        def noted(row: Any) -> dict[str, Any]:
            read.append(row.x)
            return {"k": row.k, "at": row.at, "x": row.x}

        stream = (
            mill.from_arrow(pa.concat_tables(pieces))
            .map(noted, schema={"k": str, "at": mill.Timestamp("us"), "x": int})
            .event_time("at", watermark=timedelta(seconds=bound))
            .key_by("k")
            .window(window, allowed_lateness=timedelta(seconds=lateness))
            .agg(n=mill.count(), top=col("x").max())
        )
        return stream.write_parquet(folder / "out")

    starts = []
    for steps in range(60, 1000, 120):
        folder = tmp_path / str(steps)
        checkpoint = mill.Checkpoint(folder / "state", every="1ms")
        # It is left after so many steps, as by a kill.
        testing.simulate(flow(folder), seed=seed + steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10)
        read.clear()
        mill.run(flow(folder), checkpoint=checkpoint, parallelism=3)
        starts.append(min(read, default=len(rows)))
        table = mill.read_parquet(folder / "out").collect()
        assert results(table, "n", "top") == {key: (len(xs), max(xs)) for key, xs in expected.items()}
        assert len(table.to_pylist()) == len(expected)
    assert any(0 < start < len(rows) for start in starts), f"none went on in the middle: {starts}"


def test_windows_of_windows_lose_nothing() -> None:
    rows = [{"k": i % 3, "at": EPOCH + timedelta(seconds=i), "x": 1} for i in range(600)]
    per_window = (
        mill.from_iter(rows).event_time("at").key_by("k").window(mill.sliding("20s", slide="10s")).agg(n=col("x").sum())
    )
    total = per_window.key_by("k").window(mill.tumbling("1m")).agg(n=col("n").sum())
    expected: dict[Any, int] = defaultdict(int)
    for row in rows:
        for _, end in sliding_of(seconds(row["at"]), 20, 10, 0):
            expected[row["k"], (end - 1) // 60 * 60] += 1
    for parallelism in (1, 2, 4):
        found = {(row["k"], seconds(row["window_start"])): row["n"] for row in total.collect(parallelism=parallelism).to_pylist()}
        assert found == expected


def test_a_long_window_that_slides_by_little_over_gaps() -> None:
    """Windows without records cost nothing, and keys that are gone have no rows."""
    at = [0, 1, 2, 10_000_000, 10_000_001, 20_000_000]
    rows = [{"k": i % 2, "at": EPOCH + timedelta(seconds=second), "x": second} for i, second in enumerate(at)]
    found = (
        mill.from_iter(rows).event_time("at").key_by("k").window(mill.sliding("10s", slide="1s")).agg(s=col("x").sum())
    ).collect(parallelism=1)
    expected: dict[Any, list[int]] = defaultdict(list)
    for row in rows:
        for start, end in sliding_of(seconds(row["at"]), 10, 1, 0):
            expected[row["k"], start, end].append(row["x"])
    assert results(found, "s") == {key: (sum(xs),) for key, xs in expected.items()}


def test_all_records_together() -> None:
    rows = [{"k": 0, "at": EPOCH + timedelta(seconds=i), "x": i} for i in range(5000)]
    stream = mill.from_iter(rows).event_time("at")
    expected: dict[Any, list[int]] = defaultdict(list)
    for row in rows:
        for bounds in sliding_of(seconds(row["at"]), 600, 200, 0):
            expected[bounds].append(row["x"])
    for parallelism in (1, 3):
        windowed = stream.window_all(mill.sliding("10m", slide="200s")).agg(n=mill.count(), s=col("x").sum())
        assert windowed.schema.names == ["window_start", "window_end", "n", "s"]
        found = {
            (seconds(row["window_start"]), seconds(row["window_end"])): (row["n"], row["s"])
            for row in windowed.collect(parallelism=parallelism).to_pylist()
        }
        assert found == {bounds: (len(xs), sum(xs)) for bounds, xs in expected.items()}
        for emit in ("end", "each", "checkpoint", "1s"):
            total = stream.agg(n=mill.count(), s=col("x").sum(), d=(col("x") % 7).n_unique(), emit=emit)
            assert total.collect(parallelism=parallelism).to_pylist() == [{"n": 5000, "s": sum(range(5000)), "d": 7}]
            nothing = stream.filter(col("x") < 0).agg(n=mill.count(), s=col("x").sum(), emit=emit)
            assert nothing.collect(parallelism=parallelism).to_pylist() == [{"n": 0, "s": None}]


def test_mistakes_are_named_when_the_plan_is_made() -> None:
    with pytest.raises(mill.PlanError, match="slide, '10s', must not be longer than its size, '5s'"):
        mill.sliding("5s", slide="10s")
    with pytest.raises(mill.PlanError, match="slide of a window must be more than nothing"):
        mill.sliding("5s", slide="0s")
    with pytest.raises(mill.PlanError, match="size, '10s', must be a multiple of its step, '3s'"):
        mill.cumulative(step="3s", size="10s")
    with pytest.raises(mill.PlanError, match="the bare number 5, which has no unit"):
        mill.sliding(5, slide=1)  # type: ignore[arg-type]
    stream = mill.from_iter([{"k": 1, "at": EPOCH}], schema={"k": int, "at": mill.Timestamp("s")})
    keyed = stream.event_time("at").key_by("k")
    with pytest.raises(mill.PlanError, match="the slide is 1500ms|the slide is 1s500ms"):
        keyed.window(mill.sliding("3s", slide="1500ms"))
    with pytest.raises(mill.PlanError, match="a window needs event time"):
        stream.key_by("k").window(mill.cumulative(step="1m", size="1h"))
    with pytest.raises(mill.PlanError, match=r"window\(\) takes a window"):
        keyed.window("10s")  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match=r"window_all\(\) takes a window"):
        stream.window_all("10s")  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match=r"before window_all\(\)"):
        stream.window_all(mill.tumbling("10s"))


def test_the_state_of_open_windows_can_be_read(tmp_path: Path) -> None:
    """What a checkpoint holds of panes is shown as windows, complete up to the last record that it knows."""
    rows = [{"k": i % 2, "at": EPOCH + timedelta(seconds=i), "x": i} for i in range(300)]
    pieces = [pa.Table.from_pylist(rows[first : first + 10]) for first in range(0, len(rows), 10)]
    found = 0
    for steps in range(40, 400, 40):
        state = tmp_path / str(steps)
        keyed = mill.from_arrow(pa.concat_tables(pieces)).event_time("at", watermark="1h").key_by("k")
        step = keyed.window(mill.sliding("1m", slide="20s")).agg(n=mill.count(), top=col("x").max()).name("open")
        checkpoint = mill.Checkpoint(state, every="1ms")
        sink = step.write_csv(tmp_path / f"out{steps}")
        testing.simulate(sink, seed=steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10)
        if not mill.checkpoints(state) or mill.checkpoints(state)[-1].is_finished:
            continue
        shown = results(mill.read_state(state, step="open"), "n", "top")
        known = max((top for _, top in shown.values()), default=-1)
        expected: dict[Any, list[int]] = defaultdict(list)
        for row in rows[: known + 1]:
            for start, end in sliding_of(seconds(row["at"]), 60, 20, 0):
                expected[row["k"], start, end].append(row["x"])
        assert shown == {key: (len(xs), max(xs)) for key, xs in expected.items()}
        found += bool(shown)
    assert found > 0, "some checkpoint has open windows"
