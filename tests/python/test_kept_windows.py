"""Sessions, windows of a number of records, functions of windows and triggers, against plain Python."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import statistics
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, lit, testing
from millstream.errors import DataError, PlanError, SchemaError, UserFunctionError

START = datetime(2024, 1, 1)


def fields(row: Any) -> dict[str, Any]:
    return row.asdict()


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def disordered(seed: int, rows: int = 400, keys: int = 5, spread: int = 40) -> list[dict[str, Any]]:
    """Return records of several keys whose times are out of order by up to ``spread`` seconds."""
    chance = random.Random(seed)
    now, records = 0, []
    for number in range(rows):
        now += chance.choice([0, 1, 2, 3, 20, 60]) if chance.random() < 0.6 else 0
        records.append(
            {
                "k": chance.choice(["a", "b", None, "d", "e"][:keys]),
                "x": chance.randrange(100),
                "at": at(now - chance.randrange(spread + 1)),
                "number": number,
            }
        )
    return records


def sessions(records: list[dict[str, Any]], gap: timedelta) -> dict[Any, list[list[dict[str, Any]]]]:
    """Return the sessions of each key, their records by time and then by arrival."""
    found: dict[Any, list[list[dict[str, Any]]]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r["at"]):
        of_key = found[record["k"]]
        if of_key and record["at"] < of_key[-1][-1]["at"] + gap:
            of_key[-1].append(record)
        else:
            of_key.append([record])
    return found


def late_of(records: list[dict[str, Any]], bound: timedelta, lateness: timedelta) -> list[int]:
    """Return the numbers of records of one split that are late by more than the lateness."""
    late, latest = [], None
    for record in records:
        if latest is not None and record["at"] + lateness < latest - bound:
            late.append(record["number"])
        latest = record["at"] if latest is None else max(latest, record["at"])
    return late


def in_order(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: tuple((row[name] is not None, row[name]) for name in names))


@pytest.mark.parametrize("parallelism", [1, 2, 4])
@pytest.mark.parametrize(("bound", "lateness"), [(40, 0), (10, 0), (5, 20), (0, 7)])
def test_sessions(bound: int, lateness: int, parallelism: int) -> None:
    gap = timedelta(seconds=15)
    for seed in range(3):
        records = disordered(seed * 7 + bound)
        late = set(late_of(records, timedelta(seconds=bound), timedelta(seconds=lateness)))
        expected = [
            {
                "k": key,
                "window_start": rows[0]["at"],
                "window_end": rows[-1]["at"] + gap,
                "n": len(rows),
                "total": sum(r["x"] for r in rows),
                "middle": float(statistics.median(r["x"] for r in rows)),
                "different": len({r["x"] for r in rows}),
                "all": [r["x"] for r in rows],
                "last": rows[-1]["x"],
            }
            for key, of_key in sessions([r for r in records if r["number"] not in late], gap).items()
            for rows in of_key
        ]
        stream = mill.from_iter(records).event_time("at", watermark=timedelta(seconds=bound))
        result = (
            stream.key_by("k")
            .window(mill.session(gap), allowed_lateness=timedelta(seconds=lateness))
            .agg(
                n=mill.count(),
                total=col("x").sum(),
                middle=col("x").median(),
                different=col("x").n_unique(),
                all=col("x").collect(),
                last=col("x").last(),
            )
        )
        late_rows: list[int] = []
        found: list[dict[str, Any]] = []
        mill.run(
            result.for_each(lambda row: found.append(fields(row))),
            result.late.for_each(lambda row: late_rows.append(row.number)),
            parallelism=parallelism,
        )
        assert in_order(found, "k", "window_start") == in_order(expected, "k", "window_start")
        assert sorted(late_rows) == sorted(late)


def test_sessions_that_touch_stay_apart() -> None:
    times = [0, 5, 9, 19, 29, 38]
    stream = mill.from_iter([{"k": 1, "at": at(t)} for t in times]).event_time("at")
    rows = stream.key_by("k").window(mill.session("10s")).agg(n=mill.count()).collect().to_pylist()
    ends = [(row["window_start"], row["window_end"], row["n"]) for row in in_order(rows, "window_start")]
    assert ends == [(at(0), at(19), 3), (at(19), at(29), 1), (at(29), at(48), 2)]


def test_a_gap_per_record() -> None:
    chance = random.Random(5)
    records = [{"k": chance.randrange(3), "at": at(chance.randrange(400)), "gap": chance.randrange(1, 30)} for _ in range(120)]
    expected = []
    for key in range(3):
        current: list[Any] | None = None
        for record in sorted((r for r in records if r["k"] == key), key=lambda r: r["at"]):
            end = record["at"] + timedelta(seconds=record["gap"])
            if current is not None and record["at"] < current[2]:
                current[2], current[3] = max(current[2], end), current[3] + 1
            else:
                current = [key, record["at"], end, 1]
                expected.append(current)
    stream = mill.from_iter(records).event_time("at", watermark="400s")
    window = mill.session(col("gap") * lit(timedelta(seconds=1)))
    rows = stream.key_by("k").window(window).agg(n=mill.count()).collect(parallelism=2).to_pylist()
    found = [[row["k"], row["window_start"], row["window_end"], row["n"]] for row in in_order(rows, "k", "window_start")]
    assert found == expected


@pytest.mark.parametrize(("unit", "gap"), [("s", timedelta(milliseconds=2500)), ("ms", timedelta(microseconds=500)), ("s", timedelta(microseconds=1))])
def test_a_gap_finer_than_the_unit_of_event_time_is_an_error_of_its_record(unit: str, gap: timedelta) -> None:
    rows = [{"at": at(1), "gap": gap}, {"at": at(100), "gap": timedelta(seconds=2)}]
    stream = mill.from_iter(rows, schema={"at": mill.Timestamp(unit), "gap": timedelta}).event_time("at")
    windows = stream.window_all(mill.session(col("gap")))
    counted = windows.agg(n=mill.count(), last=col("at").max())
    applied = windows.apply(lambda key, w, rows: {"n": rows.num_rows, "last": rows["at"][-1].as_py()}, schema={"n": int, "last": datetime})
    early = stream.window_all(mill.session(col("gap")), trigger=mill.on_count(1)).agg(n=mill.count(), last=col("at").max())
    for result in (counted, applied, early):
        with pytest.raises(DataError, match=f"event time counts whole {'seconds' if unit == 's' else 'milliseconds'}, which cannot hold"):
            result.collect()
        [row] = result.collect(on_error="skip").to_pylist()
        assert (row["window_start"], row["window_end"], row["last"]) == (at(100), at(102), at(100))
        [letter] = result.errors.collect(on_error="route").to_pylist()
        # The gap is no column of the record.
        assert set(json.loads(letter["record"])) == {"at", "gap"}


def test_gaps_that_cannot_be() -> None:
    stream = mill.from_iter([{"k": 1, "at": at(0), "gap": timedelta(seconds=-1)}]).event_time("at")
    with pytest.raises(DataError, match="the gap of the record's session is -1000000 microseconds, and must be positive"):
        stream.key_by("k").window(mill.session(col("gap"))).agg(n=mill.count()).collect()
    with pytest.raises(SchemaError, match=r'a gap per record is a duration, and col\("k"\) is int64'):
        stream.key_by("k").window(mill.session(col("k")))
    with pytest.raises(PlanError, match="bare number 5"):
        mill.session(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize(("n", "slide", "partial"), [(3, None, False), (3, None, True), (4, 1, False), (5, 2, True), (1, 1, False)])
def test_count_windows(n: int, slide: int | None, partial: bool, parallelism: int) -> None:
    records = disordered(n, rows=157)
    expected = []
    for key in {r["k"] for r in records}:
        values = [r["x"] for r in records if r["k"] == key]
        for start in range(0, len(values), slide or n):
            window = values[start : start + n]
            if len(window) == n or partial:
                expected.append({"k": key, "all": window, "total": sum(window)})
    result = (
        mill.from_iter(records).key_by("k").window(mill.count_window(n, slide, partial)).agg(all=col("x").collect(), total=col("x").sum())
    )
    rows = result.collect(parallelism=parallelism).to_pylist()
    assert in_order(rows, "k", "all") == in_order(expected, "k", "all")


@pytest.mark.parametrize(
    "window",
    [mill.tumbling("20s"), mill.sliding("30s", slide="10s"), mill.sliding("25s", slide="10s"), mill.cumulative("10s", "40s")],
    ids=str,
)
@pytest.mark.parametrize("lateness", [0, 15])
def test_functions_of_whole_windows_see_what_aggregates_see(window: mill.Window, lateness: int) -> None:
    records = disordered(11)
    stream = mill.from_iter(records).event_time("at", watermark="5s")
    windows = stream.key_by("k").window(window, allowed_lateness=timedelta(seconds=lateness))
    counted = windows.agg(n=mill.count(), total=col("x").sum())

    def summed(key: Any, bounds: mill.WindowBounds, rows: pa.RecordBatch) -> dict[str, Any]:
        times = rows["at"].to_pylist()
        assert times == sorted(times)
        assert all(bounds.start <= time < bounds.end for time in times)
        assert set(rows["k"].to_pylist()) == {key}
        return {"n": rows.num_rows, "total": sum(rows["x"].to_pylist())}

    applied = windows.apply(summed, schema={"n": int, "total": int})
    assert applied.schema.names == counted.schema.names
    folded = windows.reduce(lambda a, b: {**fields(a), "x": a.x + b.x})
    names = ("k", "window_start", "window_end")
    expected = in_order(counted.collect(parallelism=2).to_pylist(), *names)
    assert in_order(applied.collect(parallelism=2).to_pylist(), *names) == expected
    totals = [row["x"] for row in in_order(folded.collect(parallelism=2).to_pylist(), *names)]
    assert totals == [row["total"] for row in expected]


def test_what_a_function_of_windows_returns() -> None:
    stream = mill.from_iter([{"a": i % 2, "b": "x", "v": i} for i in range(4)])
    windows = stream.key_by("a", "b").window(mill.global_window())
    seen = []

    def several(key: Any, bounds: Any, rows: pa.RecordBatch) -> Any:
        seen.append((key.a, key.b, bounds))
        return ({"w": v.as_py() * 2} for v in rows["v"])

    rows = windows.apply(several, schema={"w": int}).collect(parallelism=1).to_pylist()
    assert in_order(rows, "w") == [{"a": w // 2 % 2, "b": "x", "w": w} for w in (0, 2, 4, 6)]
    assert sorted(seen) == [(0, "x", None), (1, "x", None)]
    as_arrow = windows.apply(lambda k, w, rows: rows.select(["v"]), schema={"v": int})
    assert sorted(row["v"] for row in as_arrow.collect().to_pylist()) == [0, 1, 2, 3]
    none = windows.apply(lambda k, w, rows: None, schema={"v": int})
    assert none.collect().to_pylist() == []
    own = windows.apply(lambda k, w, rows: {"b": "mine", "n": rows.num_rows}, schema={"b": str, "n": int})
    assert own.schema.names == ["a", "b", "n"]
    assert in_order(own.collect().to_pylist(), "a") == [{"a": a, "b": "mine", "n": 2} for a in (0, 1)]
    with pytest.raises(UserFunctionError, match="oh no"):
        windows.apply(lambda k, w, rows: (_ for _ in ()).throw(ValueError("oh no")), schema={"v": int}).collect()
    left = windows.apply(lambda k, w, rows: {"v": 1} if k.a else {"v": "text"}, schema={"v": int})
    assert left.collect(on_error="skip").to_pylist() == [{"a": 1, "b": "x", "v": 1}]


def test_without_a_key() -> None:
    records = disordered(3, rows=60)
    stream = mill.from_iter(records).event_time("at", watermark="40s")
    rows = stream.window_all(mill.session("15s")).agg(n=mill.count()).collect().to_pylist()
    expected = sessions([{**r, "k": 0} for r in records], timedelta(seconds=15))[0]
    assert [row["n"] for row in in_order(rows, "window_start")] == [len(found) for found in expected]
    counted = stream.window_all(mill.count_window(7, partial=True)).agg(n=mill.count()).collect(parallelism=3).to_pylist()
    assert sorted(row["n"] for row in counted) == sorted([7] * (60 // 7) + [60 % 7])


# -- triggers --------------------------------------------------------------------------------------------------------------


TRIGGERS = [
    mill.on_watermark(early=mill.every(2)),
    mill.on_watermark(early=mill.each()),
    mill.on_watermark(early="1ms", late=mill.each()),
    mill.on_watermark(late=mill.every(1)),
    mill.on_count(3),
    mill.on_processing_time("1ms"),
]
WINDOWS = [
    mill.tumbling("20s"),
    mill.sliding("30s", slide="10s"),
    mill.sliding("25s", slide="10s"),
    mill.cumulative("10s", "40s"),
    mill.session("15s"),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=str)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_last_rows_of_triggers_are_those_without(window: mill.Window, trigger: mill.Trigger) -> None:
    records = disordered(17, rows=300)
    stream = mill.from_iter(records).event_time("at", watermark="10s")
    keyed = stream.key_by("k")
    names = ("k", "window_start", "window_end")
    for lateness in ("0s", "25s"):
        if lateness == "0s" and trigger.late is not None and trigger.early is None:
            continue
        plain = keyed.window(window, allowed_lateness=lateness).agg(n=mill.count(), total=col("x").sum())
        fired = keyed.window(window, allowed_lateness=lateness, trigger=trigger).agg(n=mill.count(), total=col("x").sum())
        assert fired.schema.names == [*names, "pane", "pane_timing", "n", "total"]
        expected = in_order(plain.collect(parallelism=2).to_pylist(), *names)
        for parallelism in (1, 3):
            rows = in_order(fired.collect(parallelism=parallelism).to_pylist(), *names)
            assert {row.pop("pane_timing") for row in rows} <= {"on_time", "late"}
            for row in rows:
                row.pop("pane")
            assert rows == expected


def test_count_triggers_fire_after_exactly_so_many_records() -> None:
    stream = mill.from_iter([{"k": 1, "x": x, "at": at(x % 10)} for x in range(25)]).event_time("at", watermark="20s")
    fired = stream.key_by("k").window(mill.tumbling("1m"), trigger=mill.on_count(10)).agg(n=mill.count())
    rows = fired.collect().to_pylist()
    assert [(row["n"], row["pane"], row["pane_timing"]) for row in rows] == [(25, 2, "on_time")]


def test_a_global_window_with_a_trigger() -> None:
    stream = mill.from_iter([{"k": i % 2, "x": i} for i in range(20)])
    fired = stream.key_by("k").window(mill.global_window(), trigger=mill.on_count(4)).agg(total=col("x").sum())
    rows = in_order(fired.collect(parallelism=2).to_pylist(), "k")
    assert rows == [
        {"k": k, "pane": 2, "pane_timing": "on_time", "total": sum(range(k, 20, 2))} for k in (0, 1)
    ]


def _lists(key: Any, bounds: Any, rows: pa.RecordBatch) -> dict[str, Any]:
    xs = rows["number"].to_pylist()
    return {"first": xs[0], "last": xs[-1], "all": xs}


ORDERED = {"first": col("number").first(), "last": col("number").last(), "all": col("number").collect()}
OF_ALL_RECORDS: dict[str, Any] = {
    "agg": lambda k: k.agg(**ORDERED),
    "agg each": lambda k: k.agg(**ORDERED, emit="each"),
    "window": lambda k: k.window(mill.global_window()).agg(**ORDERED),
    "rows": lambda k: k.window(mill.global_window(), trigger=mill.on_count(7)).agg(first=ORDERED["first"], last=ORDERED["last"]),
    "records": lambda k: k.window(mill.global_window(), trigger=mill.on_count(7)).agg(**ORDERED),
    "apply": lambda k: k.window(mill.global_window()).apply(_lists, schema={"first": int, "last": int, "all": list[int]}),
}


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("way", list(OF_ALL_RECORDS))
def test_all_records_of_a_key_are_in_order_of_event_time(way: str, parallelism: int) -> None:
    records = disordered(31, rows=300)
    # Also times before 1970 have an order.
    records += [{**record, "at": record["at"] - timedelta(days=30000), "number": 1000 + record["number"]} for record in records[:50]]
    expected: dict[Any, list[int]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r["at"]):
        expected[record["k"]].append(record["number"])
    stream = mill.from_iter(records).event_time("at", watermark="5s")
    rows = OF_ALL_RECORDS[way](stream.key_by("k")).collect(parallelism=parallelism).to_pylist()
    assert {row["k"]: (row["first"], row["last"]) for row in rows} == {k: (of[0], of[-1]) for k, of in expected.items()}
    if way != "rows":
        assert {row["k"]: row["all"] for row in rows} == expected
    # Without event time the order is that of arrival.
    arrived = {row["k"]: row["last"] for row in OF_ALL_RECORDS[way](mill.from_iter(records).key_by("k")).collect().to_pylist()}
    assert arrived == {record["k"]: record["number"] for record in records}


def test_windows_and_triggers_that_cannot_be() -> None:
    bounded = mill.from_iter([{"k": 1, "at": at(0)}])
    timed = bounded.event_time("at")
    for window in (mill.session("1s"), mill.tumbling("1s")):
        with pytest.raises(PlanError, match="a window needs event time: call event_time"):
            bounded.key_by("k").window(window)
    with pytest.raises(PlanError, match="takes a trigger, not the duration '1s'; write trigger=mill.on_processing_time"):
        timed.key_by("k").window(mill.tumbling("1s"), trigger="1s")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"global_window\(\) has no end in event time.*on_count\(\)"):
        timed.key_by("k").window(mill.global_window(), trigger=mill.on_watermark(early=mill.each(), late=mill.each()))
    with pytest.raises(PlanError, match="fires when it is full and takes no trigger"):
        timed.key_by("k").window(mill.count_window(3), trigger=mill.on_count(1))
    with pytest.raises(PlanError, match="without allowed_lateness= a window takes none"):
        timed.key_by("k").window(mill.tumbling("1s"), trigger=mill.on_watermark(late=mill.each()))
    with pytest.raises(PlanError, match="leave allowed_lateness= out"):
        timed.key_by("k").window(mill.count_window(3), allowed_lateness="1s")
    unbounded = mill.generate(rate=10, k=mill.index() % 3)
    with pytest.raises(PlanError, match="global_window\\(\\) ends with its input, and this input has no end"):
        unbounded.key_by("k").window(mill.global_window()).agg(n=mill.count())
    with pytest.raises(PlanError, match="must not be greater than its size"):
        mill.count_window(3, slide=4)
    for wrong in (0, -1, 1.5, "3"):
        with pytest.raises(PlanError):
            mill.count_window(wrong)  # type: ignore[arg-type]
        with pytest.raises(PlanError):
            mill.every(wrong)  # type: ignore[arg-type]
    early = timed.key_by("k").window(mill.tumbling("1s"), trigger=mill.on_count(1)).agg(n=mill.count())
    with pytest.raises(PlanError, match="cannot take an updating stream"):
        early.write_csv("nowhere")
    seconds = bounded.cast({"at": mill.Timestamp("s")}).event_time("at")
    with pytest.raises(PlanError, match="whole seconds"):
        seconds.key_by("k").window(mill.session("1500ms"))
    with pytest.raises(PlanError, match="apply\\(\\) needs schema="):
        timed.key_by("k").window(mill.tumbling("1s")).apply(lambda key, window, rows: None)


def test_plans_show_what_is_kept() -> None:
    stream = mill.from_iter([{"k": 1, "at": at(0)}]).event_time("at")
    sessions = stream.key_by("k").window(mill.session("30m"), allowed_lateness="1m").agg(n=mill.count())
    text = str(sessions.explain())
    assert 'session("30m"), allowed_lateness="1m"' in text
    assert "keeps a row a key and session until" in text
    one = mill.from_iter([{"k": 1}]).key_by("k").window(mill.count_window(3)).agg(n=mill.count())
    assert "what a window holds depends on timing, if the source has several splits" in str(one.explain(parallelism=2))
    several = mill.from_iter([{"k": 1}]).union(mill.from_iter([{"k": 1}])).key_by("k").window(mill.count_window(3))
    text = str(several.agg(n=mill.count()).explain(parallelism=2))
    assert "what a window holds depends on timing, as several tasks read its input" in text


# -- restarts --------------------------------------------------------------------------------------------------------------

SCHEMA = pa.schema({"k": pa.string(), "x": pa.int64(), "at": pa.timestamp("us"), "number": pa.int64()})


def pieces(records: list[dict[str, Any]]) -> pa.Table:
    """Return records in small batches, so that a job can be left between them."""
    return pa.concat_tables([pa.Table.from_pylist(records[i : i + 10], SCHEMA) for i in range(0, len(records), 10)])


@pytest.mark.parametrize(
    "make",
    [
        lambda k: k.window(mill.session("15s"), allowed_lateness="5s").agg(n=mill.count(), xs=col("x").collect()),
        lambda k: k.window(mill.session("15s")).apply(lambda key, w, rows: {"n": rows.num_rows, "xs": rows["x"].to_pylist()}, schema={"n": int, "xs": list[int]}),
        lambda k: k.window(mill.count_window(4, slide=3, partial=True)).agg(n=mill.count(), xs=col("x").collect()),
        lambda k: k.window(mill.sliding("30s", slide="10s")).apply(lambda key, w, rows: {"n": rows.num_rows, "xs": rows["x"].to_pylist()}, schema={"n": int, "xs": list[int]}),
        lambda k: k.window(mill.global_window()).apply(lambda key, w, rows: {"n": rows.num_rows, "xs": rows["x"].to_pylist()}, schema={"n": int, "xs": list[int]}),
        lambda k: k.agg(first=col("number").first(), xs=col("x").collect()),
    ],
    ids=["session", "session apply", "count", "sliding apply", "global apply", "all"],
)
def test_a_restart_changes_no_result(make: Any, tmp_path: Path) -> None:
    records = disordered(23, rows=250)
    table = pieces(records)
    read: list[int] = []

    def flow(folder: Path) -> mill.Sink:
        def noted(batch: pa.RecordBatch) -> pa.RecordBatch:
            read.extend(batch["number"].to_pylist())
            return batch

        stream = mill.from_arrow(table).map_batches(noted).event_time("at", watermark="5s")
        return make(stream.key_by("k")).write_parquet(folder / "out")

    plain = tmp_path / "plain"
    mill.run(flow(plain), parallelism=1)
    expected = sorted(map(repr, mill.read_parquet(plain / "out").collect().to_pylist()))
    starts = []
    for steps in range(40, 700, 110):
        folder = tmp_path / str(steps)
        checkpoint = mill.Checkpoint(folder / "state", every="1ms")
        testing.simulate(flow(folder), seed=steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10)
        read.clear()
        mill.run(flow(folder), checkpoint=checkpoint, parallelism=3)
        starts.append(min(read, default=len(records)))
        assert sorted(map(repr, mill.read_parquet(folder / "out").collect().to_pylist())) == expected
    assert any(0 < start < len(records) for start in starts), f"none went on in the middle: {starts}"


@pytest.mark.parametrize("trigger", [mill.on_count(3), mill.on_watermark(early=mill.each(), late=mill.every(2))], ids=str)
@pytest.mark.parametrize("window", [mill.tumbling("20s"), mill.session("15s")], ids=str)
def test_a_restart_ends_with_the_same_rows_of_triggers(window: mill.Window, trigger: mill.Trigger, tmp_path: Path) -> None:
    records = disordered(29, rows=250)
    table = pieces(records)

    def windows() -> mill.WindowedStream:
        keyed = mill.from_arrow(table).event_time("at", watermark="10s").key_by("k")
        return keyed.window(window, allowed_lateness="20s", trigger=trigger)

    plain = mill.from_arrow(table).event_time("at", watermark="10s").key_by("k").window(window, allowed_lateness="20s")
    expected = {
        (row["k"], str(row["window_start"]), str(row["window_end"])): (row["n"], row["total"])
        for row in plain.agg(n=mill.count(), total=col("x").sum()).collect().to_pylist()
    }
    for steps in range(60, 900, 140):
        path = tmp_path / f"{steps}.db"

        def flow(path: Path = path) -> mill.Sink:
            result = windows().agg(n=mill.count(), total=col("x").sum())
            return result.write_sqlite(path, "rows", key=["k", "window_start", "window_end"])

        checkpoint = mill.Checkpoint(tmp_path / f"state{steps}", every="1ms")
        testing.simulate(flow(), seed=steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10)
        mill.run(flow(), checkpoint=checkpoint, parallelism=3)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("select k, window_start, window_end, n, total from rows").fetchall()
        found = {(k, start.replace("T", " "), end.replace("T", " ")): (n, total) for k, start, end, n, total in rows}
        assert len(found) == len(rows)
        assert found == expected


def test_the_state_of_open_sessions_can_be_read(tmp_path: Path) -> None:
    records = [{"k": "ab"[i % 2], "x": i, "at": at(i), "number": i} for i in range(300)]
    shown = 0
    for steps in range(60, 500, 60):
        keyed = mill.from_arrow(pieces(records)).event_time("at", watermark="1h").key_by("k")
        step = keyed.window(mill.session("10s")).agg(n=mill.count(), top=col("x").max()).name("visits")
        checkpoint = mill.Checkpoint(tmp_path / str(steps), every="1ms")
        sink = step.write_csv(tmp_path / f"out{steps}")
        testing.simulate(sink, seed=steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10)
        if not mill.checkpoints(tmp_path / str(steps)) or mill.checkpoints(tmp_path / str(steps))[-1].is_finished:
            continue
        for row in mill.read_state(tmp_path / str(steps), step="visits").to_pylist():
            # A record every two seconds from the start on: one session, as far as the checkpoint has read.
            assert row["window_start"] == at("ab".index(row["k"]))
            assert (row["n"], row["window_end"]) == (row["top"] // 2 + 1, at(row["top"] + 10))
            shown += 1
    assert shown > 0


@pytest.mark.parametrize("window", [mill.tumbling("20s"), mill.sliding("20s", slide="10s"), mill.global_window()], ids=str)
def test_the_state_of_windows_with_triggers_can_be_read(window: mill.Window, tmp_path: Path) -> None:
    records = [{"k": "ab"[i % 2], "x": i, "at": at(i // 4), "number": i} for i in range(300)]
    shown = 0
    for steps in range(60, 500, 60):
        keyed = mill.from_arrow(pieces(records)).event_time("at", watermark="30s").key_by("k")
        step = keyed.window(window, trigger=mill.on_count(7)).agg(n=mill.count(), top=col("x").max(), least=col("x").min()).name("visits")
        checkpoint = mill.Checkpoint(tmp_path / str(steps), every="1ms")
        sink = step.to_changelog().write_csv(tmp_path / f"out{steps}")
        testing.simulate(sink, seed=steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10)
        if not mill.checkpoints(tmp_path / str(steps)) or mill.checkpoints(tmp_path / str(steps))[-1].is_finished:
            continue
        for row in mill.read_state(tmp_path / str(steps), step="visits").to_pylist():
            # Every other record from the first of the window on, as far as the checkpoint has read; a result after each seventh.
            assert row["n"] == (row["top"] - row["least"]) // 2 + 1
            assert (row["pane"], row["pane_timing"]) == (row["n"] // 7, "on_time")
            if "window_start" in row:
                assert row["window_start"] <= at(row["least"] // 4) <= at(row["top"] // 4) < row["window_end"]
            shown += 1
    assert shown > 0


# -- rolling ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("bound", [40, 5])
@pytest.mark.parametrize("length", [1, 30, 600])
def test_rolling(length: int, bound: int, parallelism: int) -> None:
    records = disordered(41 + length, rows=300)
    late = set(late_of(records, timedelta(seconds=bound), timedelta(0)))
    kept = [record for record in records if record["number"] not in late]
    stream = mill.from_iter(records).event_time("at", watermark=timedelta(seconds=bound))
    result = stream.key_by("k").rolling(timedelta(seconds=length)).agg(
        n=mill.count(), total=col("x").sum(), middle=col("x").median(), all=col("x").collect(), half=col("x").sum() / mill.count()
    )
    assert result.schema.names == ["k", "x", "at", "number", "n", "total", "middle", "all", "half"]
    expected = []
    for record in kept:
        start = record["at"] - timedelta(seconds=length)
        within = [r for r in kept if r["k"] == record["k"] and start < r["at"] <= record["at"]]
        xs = [r["x"] for r in sorted(within, key=lambda r: r["at"])]
        middle = float(statistics.median(xs))
        expected.append({**record, "n": len(xs), "total": sum(xs), "middle": middle, "all": xs, "half": sum(xs) / len(xs)})
    found = result.collect(parallelism=parallelism).to_pylist()
    assert in_order(found, "number") == in_order(expected, "number")
    assert sorted(row["number"] for row in result.late.collect(parallelism=parallelism).to_pylist()) == sorted(late)


def test_rolling_keeps_event_time_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    records = disordered(43, rows=250)

    def flow(folder: Path) -> mill.Sink:
        keyed = mill.from_arrow(pieces(records)).event_time("at", watermark="10s").key_by("k")
        recent = keyed.rolling("1m").agg(n=mill.count())
        return recent.key_by("k").window(mill.tumbling("1m")).agg(most=col("n").max(), n=mill.count()).write_parquet(folder / "out")

    mill.run(flow(tmp_path / "plain"))
    expected = sorted(map(repr, mill.read_parquet(tmp_path / "plain" / "out").collect().to_pylist()))
    assert len(expected) > 20
    for steps in range(50, 900, 120):
        folder = tmp_path / str(steps)
        checkpoint = mill.Checkpoint(folder / "state", every="1ms")
        testing.simulate(flow(folder), seed=steps, steps=steps, checkpoint=checkpoint, parallelism=2, frame_rows=10)
        mill.run(flow(folder), checkpoint=checkpoint, parallelism=3)
        assert sorted(map(repr, mill.read_parquet(folder / "out").collect().to_pylist())) == expected


def test_rolling_by_a_dictionary_and_mistakes() -> None:
    table = pa.table({"k": pa.array(["a", "b", "a"]).dictionary_encode(), "x": [1, 2, 3], "at": [at(0), at(1), at(2)]})
    rows = mill.from_arrow(table).event_time("at").key_by("k").rolling("1m").agg(total=col("x").sum()).collect().to_pylist()
    assert [(row["k"], row["x"], row["total"]) for row in in_order(rows, "x")] == [("a", 1, 1), ("b", 2, 2), ("a", 3, 4)]
    with pytest.raises(PlanError, match="rolling\\(\\) needs event time"):
        mill.from_arrow(table).key_by("k").rolling("1m")
    with pytest.raises(PlanError, match="must be more than nothing"):
        mill.from_arrow(table).event_time("at").key_by("k").rolling("0s")
    with pytest.raises(PlanError, match="gives two columns the name 'x'|gives two columns the name \"x\""):
        mill.from_arrow(table).event_time("at").key_by("k").rolling("1s").agg(col("x").sum())


# -- the ends ----------------------------------------------------------------------------------------------------------------


def keyed_at(times: list[int], unit: str = "us", **columns: list[Any]) -> mill.KeyedStream:
    """Return records of one key at these times since 1970."""
    at_times = pa.array(times, pa.int64()).cast(pa.timestamp(unit))
    table = pa.table({"k": [1] * len(times), "at": at_times, **columns})
    return mill.from_arrow(table).event_time("at", watermark="1h").key_by("k")


@pytest.mark.parametrize("end", [2**63 - 1, 2**63 - 1_000, -(2**63) + 1, -(2**63) + 1_000])
@pytest.mark.parametrize(
    "make",
    [
        lambda k: k.window(mill.tumbling("10s")).agg(n=mill.count()),
        lambda k: k.window(mill.sliding("10s", slide="3s")).agg(n=mill.count()),
        lambda k: k.window(mill.sliding("10s", slide="3s")).agg(m=col("k").median()),
        lambda k: k.window(mill.cumulative("5s", "10s")).agg(m=col("k").n_unique()),
        lambda k: k.window(mill.tumbling("10s"), trigger=mill.on_count(1)).agg(n=mill.count()),
        lambda k: k.window(mill.tumbling("10s")).apply(lambda key, w, rows: {"n": 1}, schema={"n": int}),
        lambda k: k.window(mill.session("10s"), trigger=mill.on_count(1)).agg(n=mill.count()),
        lambda k: k.window(mill.session("10s")).agg(n=mill.count()),
        lambda k: k.rolling("10s").agg(n=mill.count()),
        lambda k: k.top_n(1, by="k", within=mill.sliding("10s", slide="3s")),
        lambda k: k.deduplicate(within="10s"),
    ],
)
def test_a_record_at_the_end_of_all_times_is_refused(make: Any, end: int) -> None:
    with pytest.raises(DataError, match="so near the (start|end) of all times"):
        make(keyed_at([end])).collect(until="20s")
    rows = make(keyed_at([0, end] if end < 0 else [0])).collect(on_error="skip", until="20s").to_pylist()
    assert rows


@pytest.mark.parametrize("end", [2**63 - 1, -(2**63) + 1])
@pytest.mark.parametrize(
    "make",
    [
        lambda k: k.window(mill.tumbling("10s")).agg(n=mill.count()),
        lambda k: k.window(mill.sliding("10s", slide="3s")).agg(n=mill.count()),
        lambda k: k.window(mill.tumbling("10s"), trigger=mill.on_count(1)).agg(n=mill.count()),
        lambda k: k.top_n(1, by="k", within=mill.sliding("10s", slide="3s")),
    ],
)
def test_a_record_whose_window_ends_after_the_last_nanosecond_is_refused(make: Any, end: int) -> None:
    with pytest.raises(DataError, match="so near the last"):
        make(keyed_at([end], "ns")).collect(until="20s")
    rows = make(keyed_at([0, end] if end < 0 else [0], "ns")).collect(on_error="skip", until="20s").to_pylist()
    assert rows


def test_nanoseconds_have_no_order_within_a_microsecond() -> None:
    keyed = keyed_at([999, 10_000_000_000], "ns", gap=pa.array([1500, 1500], pa.duration("ns")))
    tumbling, session = mill.tumbling("10s"), mill.session("10s")
    assert sorted(row["n"] for row in keyed.window(tumbling).agg(n=mill.count()).collect().to_pylist()) == [1, 1]
    for make in (
        lambda: keyed.window(session).agg(n=mill.count()),
        lambda: keyed.rolling("10s").agg(n=mill.count()),
        lambda: keyed.window(tumbling).agg(col("k").first().alias("f")),
        lambda: keyed.window(mill.global_window()).agg(col("k").last().alias("f")),
        lambda: keyed.agg(col("k").collect().alias("f")),
        lambda: keyed.window(tumbling).reduce(lambda a, b: a),
    ):
        with pytest.raises(PlanError, match=r'cast it before event_time\(\), as in cast\({"at": mill.Timestamp\("us"\)}\)'):
            make()
    with pytest.raises(SchemaError, match="the gap col.* nanoseconds; cast it"):
        keyed.window(mill.session(col("gap")))


def test_functions_of_windows_with_triggers(tmp_path: Path) -> None:
    keyed = mill.from_arrow(pieces([{"k": "a", "x": i, "at": at(i), "number": i} for i in range(3)])).event_time("at", watermark="1h").key_by("k")
    early = keyed.window(mill.tumbling("10s"), trigger=mill.on_count(1))
    several = early.apply(lambda key, w, rows: [{"n": 1}, {"n": 2}], schema={"n": int})
    with pytest.raises(DataError, match="returned 2 records for a window; with a trigger"):
        several.collect()

    def at_most_two(key: Any, window: Any, rows: pa.RecordBatch) -> Any:
        if rows.num_rows > 2:
            raise ValueError("too many")
        return {"n": rows.num_rows}

    for function in (at_most_two, lambda key, w, rows: {"n": rows.num_rows} if rows.num_rows <= 2 else None):
        result = early.apply(function, schema={"n": int})
        assert result.collect(on_error="skip").to_pylist() == [], "an early result does not outlive its window"
        with pytest.raises(PlanError, match="withdraw|delete"):
            result.for_each(lambda row: None)


def test_the_state_of_sessions_that_grew(tmp_path: Path) -> None:
    records = [{"k": "a", "x": i, "at": at(i), "number": i} for i in range(40)]
    table = pa.concat_tables([pa.Table.from_pylist([record], SCHEMA) for record in records])
    seen = 0
    for how in ("agg", "apply", "reduce"):
        for steps in range(200, 700, 40):
            folder = tmp_path / f"{how}{steps}"
            windows = mill.from_arrow(table).event_time("at", watermark="1h").key_by("k").window(mill.session("30s"), trigger=mill.on_count(3))
            made = {
                "agg": lambda w=windows: w.agg(n=mill.count()),
                "apply": lambda w=windows: w.apply(lambda key, bounds, rows: {"n": rows.num_rows}, schema={"n": int}),
                "reduce": lambda w=windows: w.reduce(lambda a, b: b),
            }[how]()
            sink = made.name("grown").to_changelog().write_json(folder / "out")
            checkpoint = mill.Checkpoint(folder / "state", every="1ms")
            testing.simulate(sink, seed=1, steps=steps, checkpoint=checkpoint, frame_rows=1, parallelism=1)
            found = mill.checkpoints(folder / "state") if (folder / "state" / "MILLSTREAM").exists() else []
            if not found or found[-1].is_finished:
                continue
            rows = mill.read_state(folder / "state", step="grown").to_pylist()
            if how == "agg" and rows:
                assert [(row["k"], row["window_start"]) for row in rows] == [("a", at(0))]
                assert rows[0]["window_end"] == at(rows[0]["n"] - 1 + 30)
            seen += bool(rows)
    assert seen > 3


WINDOWS_OF_ALL_KINDS = [mill.session("5s"), mill.tumbling("5s"), mill.global_window()]


@pytest.mark.parametrize(
    ("window", "trigger"),
    [(mill.count_window(1), None), *((window, trigger) for window in WINDOWS_OF_ALL_KINDS for trigger in (None, mill.on_count(1)))],
    ids=str,
)
@pytest.mark.parametrize("aggregate", ["collect", "n_unique", "first"])
def test_keys_of_dictionaries_whose_late_records_are_taken(window: Any, aggregate: str, trigger: Any) -> None:
    # Records keep the columns they came with for .late, so the plain key has a name of its own, by which the result had none.
    columns = {"k": pa.array(["a", "b", "a"]).dictionary_encode(), "at": pa.array([1, 2, 3], pa.timestamp("us")), "v": [1, 2, 3]}
    keyed = mill.from_arrow(pa.table(columns)).event_time("at", watermark="1s").key_by("k")
    result = keyed.window(window, trigger=trigger).agg(x=getattr(col("v"), aggregate)())
    keys: list[Any] = []
    late: list[Any] = []
    rows = result if result.updating_key is None else result.to_changelog()
    mill.run(rows.for_each(lambda row: keys.append(row.k)), result.late.for_each(late.append))
    assert set(keys) == {"a", "b"} and late == []
