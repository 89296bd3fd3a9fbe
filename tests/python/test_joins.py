"""Joins against plain Python, which looks at every pair of records, and against DuckDB on records in order."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import col, testing
from millstream.errors import PlanError, SchemaError

START = datetime(2024, 1, 1)
HOWS = ["inner", "left", "right", "full", "semi", "anti"]
SCHEMA = {"k": str, "x": int, "at": datetime}
Row = dict[str, Any]


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def records(seed: int, rows: int = 150, spread: int = 20, keys: int = 4) -> list[Row]:
    """Return records of several keys, some of them null, with ties in time, up to ``spread`` seconds out of order."""
    chance = random.Random(seed)
    now, result = 0, []
    for number in range(rows):
        now += chance.choice([0, 0, 1, 2, 5])
        key = chance.choice(["a", "b", "c", "d", "e", "f"][:keys]) if chance.random() < 0.9 else None
        result.append({"k": key, "x": number, "at": at(now - chance.randrange(spread + 1))})
    return result


def judged(rows: list[Row], bound: int, is_late: Callable[[Row, datetime], bool]) -> tuple[list[Row], list[Row]]:
    """Return the records of one split that are in time, and those that are late."""
    good, late, latest = [], [], datetime.min + timedelta(days=1)
    for row in rows:
        (late if is_late(row, latest - timedelta(seconds=bound)) else good).append(row)
        latest = max(latest, row["at"])
    return good, late


def joined(
    left: list[Row], right: list[Row], how: str, is_pair: Callable[[Row, Row], bool], more: Any = None
) -> list[Row]:
    """Return the rows of a join on ``k``, from every pair."""
    rows: list[Row] = []
    more = more or (lambda row: {})
    with_left: set[int] = set()
    with_right: set[int] = set()
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            if a["k"] is not None and a["k"] == b["k"] and is_pair(a, b):
                with_left.add(i)
                with_right.add(j)
                if how not in ("semi", "anti"):
                    rows.append(
                        {"k": a["k"], "x": a["x"], "at": a["at"], "x_right": b["x"], "at_right": b["at"]} | more(a)
                    )
    for i, a in enumerate(left):
        own = {"k": a["k"], "x": a["x"], "at": a["at"]}
        if (how == "semi" and i in with_left) or (how == "anti" and i not in with_left):
            rows.append(own | more(a))
        elif how in ("left", "full") and i not in with_left:
            rows.append(own | {"x_right": None, "at_right": None} | more(a))
    for j, b in enumerate(right):
        if how in ("right", "full") and j not in with_right:
            rows.append({"k": b["k"], "x": None, "at": None, "x_right": b["x"], "at_right": b["at"]} | more(b))
    return rows


def interval(
    left: list[Row], right: list[Row], how: str, lower: int, upper: int, bounds: tuple[int, int]
) -> list[list[Row]]:
    """Return the rows of an interval join, and the late records of both sides."""

    def is_late(row: Row, watermark: datetime) -> bool:
        return bool(row["at"] < watermark)

    (left, late), (right, late_right) = judged(left, bounds[0], is_late), judged(right, bounds[1], is_late)
    first, last = timedelta(seconds=lower), timedelta(seconds=upper)
    return [joined(left, right, how, lambda a, b: first <= b["at"] - a["at"] <= last), late, late_right]


def windows_of(window: tuple[str, int, int], moment: datetime) -> list[tuple[datetime, datetime]]:
    """Return the windows (kind, size, slide or step in seconds) that hold a moment."""
    kind, size, slide = window
    second = (moment - START) // timedelta(seconds=1)
    if kind == "cumulative":
        start = second // size * size
        ends = [start + step for step in range(slide, size + 1, slide) if second < start + step]
        return [(at(start), at(end)) for end in ends]
    first = second // slide * slide
    starts = [first - back * slide for back in range(size // slide + 1)]
    return [(at(start), at(start + size)) for start in starts if start <= second < start + size]


def windowed(
    left: list[Row], right: list[Row], how: str, window: tuple[str, int, int], bounds: tuple[int, int]
) -> list[list[Row]]:
    """Return the rows of a window join, and the late records of both sides."""
    spread: list[list[Row]] = []
    late: list[list[Row]] = []
    for rows, bound in ((left, bounds[0]), (right, bounds[1])):
        good, bad, latest = [], [], datetime.min + timedelta(days=1)
        for row in rows:
            watermark = latest - timedelta(seconds=bound)
            taken = [(start, end) for start, end in windows_of(window, row["at"]) if end > watermark]
            good += [row | {"window_start": start, "window_end": end} for start, end in taken]
            bad += [] if taken else [row]
            latest = max(latest, row["at"])
        spread.append(good)
        late.append(bad)

    def is_pair(a: Row, b: Row) -> bool:
        return bool((a["window_start"], a["window_end"]) == (b["window_start"], b["window_end"]))

    def bounds_of(row: Row) -> Row:
        return {"window_start": row["window_start"], "window_end": row["window_end"]}

    return [joined(spread[0], spread[1], how, is_pair, bounds_of), *late]


def sessions(left: list[Row], right: list[Row], how: str, gap: int, bounds: tuple[int, int]) -> list[list[Row]]:
    """Return the rows of a join in sessions, and the late records of both sides."""

    def is_late(row: Row, watermark: datetime) -> bool:
        return bool(row["at"] < watermark)

    sides, late = [], []
    for rows, bound in ((left, bounds[0]), (right, bounds[1])):
        good, bad = judged(rows, bound, is_late)
        sides.append([dict(row) for row in good])
        late.append(bad)
    for row in sides[0] + sides[1]:
        # A record with a null key is alone.
        row["window_start"], row["window_end"] = row["at"], row["at"] + timedelta(seconds=gap)
    for key in {row["k"] for row in sides[0] + sides[1]} - {None}:
        session: list[Row] = []
        for row in sorted((row for row in sides[0] + sides[1] if row["k"] == key), key=lambda row: row["at"]):
            if session and row["at"] >= session[-1]["window_end"]:
                session = []
            session.append(row)
            for other in session:
                other["window_start"], other["window_end"] = session[0]["at"], row["window_end"]

    def is_pair(a: Row, b: Row) -> bool:
        return bool((a["window_start"], a["window_end"]) == (b["window_start"], b["window_end"]))

    def bounds_of(row: Row) -> Row:
        return {"window_start": row["window_start"], "window_end": row["window_end"]}

    return [joined(sides[0], sides[1], how, is_pair, bounds_of), *late]


def counted(rows: list[Row]) -> Counter[Any]:
    return Counter(tuple(sorted(row.items(), key=lambda item: item[0])) for row in rows)


def declared(left: list[Row], right: list[Row], bounds: tuple[int, int]) -> list[mill.Stream]:
    return [
        mill.from_iter(rows, schema=SCHEMA).event_time("at", watermark=timedelta(seconds=bound))
        for rows, bound in ((left, bounds[0]), (right, bounds[1]))
    ]


def outputs(result: mill.Stream) -> list[mill.Stream]:
    return [result, result.late, result.late_right]


def seconds(number: int) -> timedelta:
    return timedelta(seconds=number)


def raw_window(window: tuple[str, int, int]) -> mill.Window:
    kind, size, slide = window
    if kind == "cumulative":
        return mill.cumulative(seconds(slide), seconds(size))
    return mill.tumbling(seconds(size)) if size == slide else mill.sliding(seconds(size), seconds(slide))


def check(result: mill.Stream, expected: list[list[Row]], parallelism: int) -> None:
    found = [stream.collect(parallelism=parallelism).to_pylist() for stream in outputs(result)]
    for rows, wanted in zip(found, expected, strict=True):
        assert counted(rows) == counted(wanted)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("lower", "upper"), [(-5, 10), (0, 0), (3, 12), (-9, -2)])
def test_intervals(how: Any, lower: int, upper: int) -> None:
    for seed in range(4):
        left, right = records(seed), records(seed + 100, rows=120)
        bounds = (20, 4) if seed % 2 else (6, 20)
        a, b = declared(left, right, bounds)
        result = a.join_interval(b, on="k", lower=seconds(lower), upper=seconds(upper), how=how)
        check(result, interval(left, right, how, lower, upper, bounds), 1 + seed % 3)


WINDOWS = [("tumbling", 10, 10), ("sliding", 20, 5), ("sliding", 12, 5), ("cumulative", 30, 10)]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_windows(how: Any, window: tuple[str, int, int]) -> None:
    for seed in range(3):
        left, right = records(seed), records(seed + 100, rows=120)
        bounds = (20, 4) if seed % 2 else (6, 20)
        a, b = declared(left, right, bounds)
        result = a.join(b, on="k", window=raw_window(window), how=how)
        check(result, windowed(left, right, how, window, bounds), 1 + seed % 3)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("gap", [1, 4, 9])
def test_sessions(how: Any, gap: int) -> None:
    for seed in range(3):
        left, right = records(seed, keys=6), records(seed + 100, rows=120, keys=6)
        bounds = (20, 4) if seed % 2 else (6, 20)
        a, b = declared(left, right, bounds)
        result = a.join(b, on="k", window=mill.session(seconds(gap)), how=how)
        check(result, sessions(left, right, how, gap, bounds), 1 + seed % 3)


@pytest.mark.parametrize("kind", ["interval", "window", "session"])
@pytest.mark.parametrize("how", HOWS)
def test_each_row_once_over_restarts(how: Any, kind: str, tmp_path: Path) -> None:
    for seed in range(3):
        dice = random.Random(f"{seed} {how} {kind}")
        left, right, bounds = records(seed, spread=10), records(seed + 50, spread=10), (10, 5)
        window = dice.choice(WINDOWS)
        work = tmp_path / str(seed)
        for start in range(200):
            a, b = declared(left, right, bounds)
            if kind == "interval":
                result = a.join_interval(b, on="k", lower="-5s", upper="8s", how=how)
            elif kind == "session":
                result = a.join(b, on="k", window=mill.session("3s"), how=how)
            else:
                result = a.join(b, on="k", window=raw_window(window), how=how)
            names = ["result", "late", "late_right"]
            sinks = [stream.write_parquet(work / name) for name, stream in zip(names, outputs(result), strict=True)]
            done = testing.simulate(
                *sinks,
                checkpoint=mill.Checkpoint(work / "state", every="1ms"),
                seed=dice.randrange(2**32),
                parallelism=dice.choice([1, 2, 3]),
                frame_rows=dice.choice([1, 3, 64]),
                chaining=dice.random() < 0.7,
                steps=None if start == 199 else dice.choice([20, 100, 300]) * (1 + start),
            )
            if done:
                break
        if kind == "interval":
            expected = interval(left, right, how, -5, 8, bounds)
        elif kind == "session":
            expected = sessions(left, right, how, 3, bounds)
        else:
            expected = windowed(left, right, how, window, bounds)
        for name, wanted in zip(names, expected, strict=True):
            files = [path for path in sorted((work / name).glob("*.parquet")) if not path.name.startswith(".")]
            rows = [row for path in files for row in pq.read_table(path).to_pylist()]
            assert counted(rows) == counted(wanted), (seed, name)


def in_order(seed: int, rows: int = 5000, keys: int = 200) -> pa.Table:
    chance = random.Random(seed)
    now, times, ids = 0, [], []
    for _ in range(rows):
        now += chance.randrange(3)
        times.append(at(now))
        ids.append(chance.randrange(keys) if chance.random() < 0.95 else None)
    columns = {
        "id": pa.array(ids, pa.int64()),
        "x": pa.array(range(rows), pa.int64()),
        "at": pa.array(times, pa.timestamp("us")),
    }
    return pa.table(columns)


@pytest.mark.parametrize(
    ("how", "sql"), [("inner", "JOIN"), ("left", "LEFT JOIN"), ("right", "RIGHT JOIN"), ("full", "FULL JOIN")]
)
def test_the_same_as_duckdb(how: Any, sql: str) -> None:
    a, b = in_order(1), in_order(2)
    found = (
        mill.from_arrow(a)
        .event_time("at")
        .join_interval(mill.from_arrow(b).event_time("at"), on="id", lower="-30s", upper="1m", how=how)
        .select("id", "x", "x_right")
        .collect(parallelism=2)
        .to_pylist()
    )
    with duckdb.connect() as connection:
        connection.register("a", a)
        connection.register("b", b)
        condition = 'a.id = b.id AND b."at" BETWEEN a."at" - INTERVAL 30 SECOND AND a."at" + INTERVAL 1 MINUTE'
        rows = connection.execute(f"SELECT coalesce(a.id, b.id), a.x, b.x FROM a {sql} b ON {condition}").fetchall()
    assert Counter((row["id"], row["x"], row["x_right"]) for row in found) == Counter(rows)
    assert len(rows) > 1000


def test_a_stream_joins_itself() -> None:
    rows = records(7, spread=0)
    stream = mill.from_iter(rows, schema=SCHEMA).event_time("at")
    result = stream.join_interval(stream, on="k", lower="1s", upper="5s")
    for parallelism in (1, 2):
        check(result, interval(rows, rows, "inner", 1, 5, (0, 0)), parallelism)


def test_keys_are_expressions_of_each_side() -> None:
    left = mill.from_iter([{"id": n, "at": at(n)} for n in range(10)]).event_time("at")
    right = mill.from_iter([{"name": f"U{n}", "at": at(n)} for n in range(10)]).event_time("at")
    result = left.join_interval(
        right, left_on=col("id").cast(str), right_on=col("name").str.slice(1), lower="0s", upper="0s", how="full"
    )
    assert result.schema.names == ["id", "at", "name", "at_right"]
    rows = result.collect(parallelism=2).to_pylist()
    assert sorted((row["id"], row["name"]) for row in rows) == [(n, f"U{n}") for n in range(10)]


def test_late_records_come_as_they_were_beside_computed_keys() -> None:
    left = mill.from_iter([{"id": n, "at": at(s)} for n, s in ((1, 0), (2, 100), (3, 5))]).event_time("at")
    right = mill.from_iter([{"id": 1, "at": at(0)}]).event_time("at")
    result = left.join_interval(right, left_on=col("id") + 1, right_on="id", lower="0s", upper="1s")
    assert result.late.collect().to_pylist() == [{"id": 3, "at": at(5)}]


def test_types_of_keys_meet_exactly() -> None:
    def side(kind: Any, values: list[Any]) -> mill.Stream:
        table = pa.table({"id": pa.array(values, kind), "at": pa.array([at(0)] * len(values), pa.timestamp("us"))})
        return mill.from_arrow(table).event_time("at")

    def pairs(a: mill.Stream, b: mill.Stream) -> list[Any]:
        rows = a.join_interval(b, on="id", lower="0s", upper="0s").collect(parallelism=2)
        return sorted(row["id"] for row in rows.to_pylist())

    assert pairs(side(pa.int8(), [1, -2, None]), side(pa.int64(), [1, -2, 2**40, None])) == [-2, 1]
    assert pairs(side(pa.uint32(), [4_000_000_000]), side(pa.int32(), [5])) == []
    assert pairs(side(pa.int32(), [3]), side(pa.float64(), [3.0, 3.5])) == [3.0]
    assert pairs(side(pa.dictionary(pa.int32(), pa.string()), ["a", "b"]), side(pa.large_string(), ["b"])) == ["b"]
    assert pairs(side(pa.float64(), [float("nan"), -0.0]), side(pa.float64(), [0.0])) == [0.0]
    with pytest.raises(SchemaError, match=r'the key "id" is int64 on the left and str on the right'):
        pairs(side(pa.int64(), [1]), side(pa.string(), ["1"]))
    with pytest.raises(SchemaError, match=r'the key "id" is int64 on the left and float64 on the right'):
        pairs(side(pa.int64(), [1]), side(pa.float64(), [1.0]))
    with pytest.raises(SchemaError, match=r'the key "id" is uint64 on the left and int64 on the right'):
        pairs(side(pa.uint64(), [1]), side(pa.int64(), [1]))


def test_event_times_of_rows() -> None:
    """A window after the join sees the later time of a pair, and a record's own time where it is alone."""
    a = mill.from_iter([{"k": "a", "at": at(5)}, {"k": "b", "at": at(100)}]).event_time("at")
    b = mill.from_iter([{"k": "a", "at": at(12)}]).event_time("at")
    result = a.join_interval(b, on="k", lower="0s", upper="10s", how="left")
    counts = result.window_all(mill.tumbling("10s")).agg(n=mill.count()).collect().to_pylist()
    assert [(row["window_start"], row["n"]) for row in counts] == [(at(10), 1), (at(100), 1)]
    within = a.join(b, on="k", window=mill.tumbling("20s"), how="full").window_all(mill.tumbling("1s"))
    assert [row["window_end"] for row in within.agg(n=mill.count()).collect().to_pylist()] == [at(20), at(120)]


def test_no_row_after_a_join_is_late() -> None:
    for how in HOWS:
        for seed in range(3):
            left, right = records(seed), records(seed + 9)
            a, b = declared(left, right, (5, 20))
            result = a.join_interval(b, on="k", lower="-7s", upper="11s", how=how)  # type: ignore[arg-type]
            counts = result.window_all(mill.tumbling("3s")).agg(n=mill.count())
            assert counts.late.collect(parallelism=2).to_pylist() == []
            rows = interval(left, right, how, -7, 11, (5, 20))[0]
            assert sum(row["n"] for row in counts.collect(parallelism=2).to_pylist()) == len(rows)


def test_names_and_unused_columns() -> None:
    a = mill.from_iter([{"id": 1, "price": 5, "city": "x", "at": at(0)}]).event_time("at")
    b = mill.from_iter([{"id": 1, "price": 7, "name": "n", "at": at(1)}]).event_time("at")
    result = a.join_interval(b, on="id", lower="0s", upper="1s", suffix="_b")
    assert result.schema.names == ["id", "price", "city", "at", "price_b", "name", "at_b"]
    assert result.select("price_b", "city").collect().to_pylist() == [{"price_b": 7, "city": "x"}]
    assert result.select("name").collect().to_pylist() == [{"name": "n"}]
    other = b.rename({"name": "price_right"})
    with pytest.raises(PlanError, match=r'both sides have a column "price", .*"price_right", which there is already'):
        a.join_interval(other, on="id", lower="0s", upper="1s")
    with pytest.raises(PlanError, match=r'join\(\) adds a column "window_start"'):
        a.with_columns(window_start=col("id")).join(b, on="id", window=mill.tumbling("1s"))


def test_errors_at_the_line_of_the_join() -> None:
    plain = mill.from_iter([{"id": 1, "at": at(0)}])
    timed = plain.event_time("at")
    near: dict[str, Any] = {"lower": "0s", "upper": "1s"}
    with pytest.raises(PlanError, match=r"join_interval\(\) goes by event time, and the right stream has none"):
        timed.join_interval(plain, on="id", **near)
    with pytest.raises(PlanError, match=r"the left stream has none; call event_time"):
        plain.join(timed, on="id", window=mill.tumbling("1s"))
    with pytest.raises(SchemaError, match=r'on the right side, column "ids" does not exist; did you mean "id"\?'):
        timed.join_interval(timed, left_on="id", right_on="ids", **near)
    with pytest.raises(
        PlanError, match=r"how='outer' is not possible; .*'inner', 'left', 'right', 'full', 'semi', 'anti'"
    ):
        timed.join_interval(timed, on="id", how="outer", **near)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"did you mean 'inner'\?"):
        timed.join(timed, on="id", how="iner", window=mill.tumbling("1s"))  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r'lower="1s" is greater than upper="-1s"'):
        timed.join_interval(timed, on="id", lower="1s", upper="-1s")
    with pytest.raises(PlanError, match="lower is the bare number 5"):
        timed.join_interval(timed, on="id", lower=5, upper="6s")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="needs a key: on="):
        timed.join_interval(timed, **near)
    with pytest.raises(PlanError, match="needs a key: on="):
        timed.join_interval(timed, on=[], **near)
    with pytest.raises(PlanError, match="takes on=, or left_on= and right_on=, not both"):
        timed.join_interval(timed, on="id", left_on="id", **near)
    with pytest.raises(PlanError, match="left_on= has 2 columns and right_on= has 1 column"):
        timed.join_interval(timed, left_on=["id", "at"], right_on="id", **near)
    with pytest.raises(PlanError, match=r'the key has "id" twice'):
        timed.join_interval(timed, on=["id", "id"], **near)
    with pytest.raises(PlanError, match="joins with a stream, not int"):
        timed.join_interval(3, on="id", **near)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"join\(\) takes tumbling\(\), .* and sessions of one gap, not count_window"):
        timed.join(timed, on="id", window=mill.count_window(3))
    with pytest.raises(PlanError, match="does not take an updating stream"):
        timed.key_by("id").agg(n=mill.count(), emit="checkpoint").join_interval(timed, on="id", **near)
    coarse = mill.from_arrow(
        plain.collect().to_arrow().cast(pa.schema({"id": pa.int64(), "at": pa.timestamp("s")}))
    ).event_time("at")
    with pytest.raises(SchemaError, match="event time is .* on the left and .* on the right"):
        coarse.join_interval(timed, on="id", **near)
    with pytest.raises(PlanError, match="which cannot hold such bounds"):
        coarse.join(coarse, on="id", window=mill.tumbling("500ms"))
    lists = mill.from_iter([{"id": [1], "at": at(0)}]).event_time("at")
    with pytest.raises(SchemaError, match=r'on the left side, column "id" cannot be a key'):
        lists.join_interval(timed, on="id", **near)


def test_explain_says_what_is_kept() -> None:
    a, b = declared(records(1), records(2), (0, 0))
    text = a.join_interval(b, on="k", lower="-5m", upper="10m", how="left").explain()
    assert 'on k, how="left", right within -5m to 10m' in text
    assert "left until the right watermark is 10m after a record" in text
    assert "right until the left watermark is 5m after a record" in text
    assert "hash(k) ══► chain 2, left" in text and "hash(k) ══► chain 2, right" in text
    text = a.join(b, on="k", window=mill.tumbling("1m")).explain()
    assert "keeps a record of each side until the watermark of the other has passed the end of its window" in text


def test_state_shows_what_each_side_keeps(tmp_path: Path) -> None:
    seen: list[int] = []

    def record(row: Any) -> Row:
        seen.append(row.i)
        return {"k": row.i % 7, "i": row.i, "at": at(row.i)}

    numbers = (
        mill.generate(rate=2000, i=mill.index())
        .map(record, schema={"k": int, "i": int, "at": datetime})
        .event_time("at")
    )
    odd, all_of_them = numbers.filter(col("i") % 2 == 1), numbers.rename({"i": "y"})
    result = odd.join_interval(all_of_them, on="k", lower="0s", upper="0s", how="left").name("pairs")
    job = mill.start(
        result.for_each(lambda row: None), checkpoint=mill.Checkpoint(tmp_path, every="50ms", mode="at_least_once")
    )
    deadline = time.monotonic() + 30
    while len(seen) < 500:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    job.stop()
    job.wait()
    rows = mill.read_state(tmp_path, step="pairs").to_pylist()
    # Each side keeps what the watermark of the other has not passed: the last records, and few of all.
    assert {row["side"] for row in rows} <= {"left", "right"}
    assert 1 <= len(rows) <= len(seen) // 2
    for row in rows:
        number = row["i"] if row["side"] == "left" else row["y"]
        assert row["k"] == number % 7
        assert (row["y"] if row["side"] == "left" else row["i"]) is None


def test_dates_of_both_layouts_are_dates() -> None:
    days = [date(2024, 1, 1), date(1969, 12, 31), None]
    narrow = mill.from_arrow(pa.table({"k": pa.array(days, pa.date32()), "x": [1, 2, 3]}))
    wide = mill.from_arrow(pa.table({"k": pa.array(days[:2], pa.date64()), "y": [10, 20]}))
    for left, right in ((narrow, wide), (wide, narrow)):
        rows = left.join(right, on="k", ttl="1h").collect().to_pylist()
        assert sorted((row["k"], row["x"], row["y"]) for row in rows) == [(days[1], 2, 20), (days[0], 1, 10)]
    both = narrow.select("k").union(wide.select("k"))
    assert sorted(both.collect()["k"], key=str) == sorted([*days, *days[:2]], key=str)


def test_hints_name_the_key() -> None:
    left, right = mill.from_iter([{"when": 1}]), mill.from_iter([{"when": "a"}])
    with pytest.raises(SchemaError, match=r'cast one of them to the type of the other before join\(\), as in \.cast\(\{"when": …\}\)'):
        left.join(right, on="when", ttl="1h")
    for column, hint in (([1], "list.get"), (["a"], "list.join")):
        with pytest.raises(SchemaError, match=f"cannot be a key: it is list.*{hint}"):
            mill.from_arrow(pa.table({"k": [column]})).key_by("k")
    with pytest.raises(SchemaError, match="cannot be a key: it is map.*take what tells records apart out of it"):
        mill.from_arrow(pa.table({"k": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64()))})).key_by("k")
