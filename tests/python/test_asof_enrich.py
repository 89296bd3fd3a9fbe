"""As-of joins and enrichment against plain Python, which looks at every pair of records, and against DuckDB and Polars."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import millstream as mill
from millstream import col, testing
from millstream.errors import CheckpointError, PlanError

START = datetime(2024, 1, 1)
SCHEMA = {"k": str, "x": int, "at": datetime}
Row = dict[str, Any]


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def records(seed: int, rows: int = 150, spread: int = 20) -> list[Row]:
    """Return records of several keys, some of them null, with ties in time, up to ``spread`` seconds out of order."""
    chance = random.Random(seed)
    now, result = 0, []
    for number in range(rows):
        now += chance.choice([0, 0, 1, 2, 5])
        key = chance.choice("abcd") if chance.random() < 0.9 else None
        result.append({"k": key, "x": number, "at": at(now - chance.randrange(spread + 1))})
    return result


def judged(rows: list[Row], bound: int) -> tuple[list[Row], list[Row]]:
    """Return the records of one split that are in time, and those that are late."""
    good, late, latest = [], [], datetime.min + timedelta(days=1)
    for row in rows:
        (late if row["at"] < latest - timedelta(seconds=bound) else good).append(row)
        latest = max(latest, row["at"])
    return good, late


def asof(left: list[Row], right: list[Row], how: str, tolerance: int | None, bounds: tuple[int, int]) -> list[list[Row]]:
    """Return the rows of an as-of join, and the late records of both sides."""
    (left, late), (right, late_right) = judged(left, bounds[0]), judged(right, bounds[1])
    rows = []
    for a in left:
        best = None
        for b in right:
            is_match = a["k"] is not None and a["k"] == b["k"] and b["at"] <= a["at"]
            is_near = tolerance is None or a["at"] - b["at"] <= timedelta(seconds=tolerance)
            if is_match and is_near and (best is None or b["at"] >= best["at"]):
                best = b
        if best:
            rows.append(a | {"x_right": best["x"], "at_right": best["at"]})
        elif how == "left":
            rows.append(a | {"x_right": None, "at_right": None})
    return [rows, late, late_right]


def declared(left: list[Row], right: list[Row], bounds: tuple[int, int]) -> tuple[mill.Stream, mill.Stream]:
    sides = ((left, bounds[0]), (right, bounds[1]))
    a, b = (mill.from_iter(rows, schema=SCHEMA).event_time("at", watermark=timedelta(seconds=bound)) for rows, bound in sides)
    return a, b


def counted(rows: list[Row]) -> Counter[tuple[tuple[str, Any], ...]]:
    return Counter(tuple(sorted(row.items())) for row in rows)


def runs(seed: Any) -> Iterator[dict[str, Any]]:
    """Give the settings of one start after the other, each of which gets further."""
    dice = random.Random(seed)
    for start in range(200):
        yield {
            "seed": dice.randrange(2**32),
            "parallelism": dice.choice([1, 2, 3]),
            "frame_rows": dice.choice([1, 3, 64]),
            "chaining": dice.random() < 0.7,
            "steps": None if start == 199 else dice.choice([20, 100, 300]) * (1 + start),
        }


def written(path: Path) -> list[Row]:
    files = [file for file in sorted(path.glob("*.parquet")) if not file.name.startswith(".")]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


# -- as-of joins ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["left", "inner"])
@pytest.mark.parametrize("tolerance", [None, 0, 7])
def test_the_newest_version_that_is_not_after_a_record(how: Any, tolerance: int | None) -> None:
    for seed in range(6):
        left, right = records(seed), records(seed + 100, rows=120)
        bounds = [(20, 20), (20, 4), (6, 20)][seed % 3]
        a, b = declared(left, right, bounds)
        within = None if tolerance is None else timedelta(seconds=tolerance)
        result = a.join_asof(b, on="k", tolerance=within, how=how)
        expected = asof(left, right, how, tolerance, bounds)
        for stream, wanted in zip((result, result.late, result.late_right), expected, strict=True):
            assert counted(stream.collect(parallelism=1 + seed % 3).to_pylist()) == counted(wanted), seed


@pytest.mark.parametrize("tolerance", [None, 5])
def test_each_record_once_over_restarts(tolerance: int | None, tmp_path: Path) -> None:
    for seed in range(4):
        left, right, bounds = records(seed, spread=10), records(seed + 50, spread=10), (10, 5)
        work = tmp_path / str(seed)
        for settings in runs(f"asof {seed} {tolerance}"):
            a, b = declared(left, right, bounds)
            within = None if tolerance is None else timedelta(seconds=tolerance)
            result = a.join_asof(b, on="k", tolerance=within)
            outputs = {"result": result, "late": result.late, "late_right": result.late_right}
            sinks = [stream.write_parquet(work / name) for name, stream in outputs.items()]
            if testing.simulate(*sinks, checkpoint=mill.Checkpoint(work / "state", every="1ms"), **settings):
                break
        for name, wanted in zip(outputs, asof(left, right, "left", tolerance, bounds), strict=True):
            assert counted(written(work / name)) == counted(wanted), (seed, name)


def ordered(seed: int, rows: int, keys: int) -> pa.Table:
    """Return records in order of time, no two of a key at the same one."""
    chance = random.Random(seed)
    now, times, ids = 0, [], []
    for _ in range(rows):
        now += 1 + chance.randrange(3)
        times.append(at(now))
        ids.append(chance.randrange(keys) if chance.random() < 0.95 else None)
    columns = {"id": pa.array(ids, pa.int64()), "x": pa.array(range(rows), pa.int64()), "at": pa.array(times, pa.timestamp("us"))}
    return pa.table(columns)


@pytest.mark.parametrize("tolerance", [None, 100])
def test_as_of_the_same_as_duckdb_and_polars(tolerance: int | None) -> None:
    a, b = ordered(1, 5000, 150), ordered(2, 4000, 200)
    within = None if tolerance is None else timedelta(seconds=tolerance)
    found = (
        mill.from_arrow(a)
        .event_time("at")
        .join_asof(mill.from_arrow(b).event_time("at"), on="id", tolerance=within)
        .select("id", "x", "x_right")
        .collect(parallelism=2)
        .to_pylist()
    )
    rows = Counter((row["id"], row["x"], row["x_right"]) for row in found)
    frame = pl.from_arrow(a)
    assert isinstance(frame, pl.DataFrame)
    other = pl.from_arrow(b)
    assert isinstance(other, pl.DataFrame)
    # Polars joins null keys as values of their own.
    other = other.filter(pl.col("id").is_not_null())
    joined = frame.join_asof(other, on="at", by="id", tolerance=within, check_sortedness=False)
    assert rows == Counter(joined.select("id", "x", "x_right").iter_rows())
    assert sum(x_right is not None for _, _, x_right in rows) > 500
    if tolerance is None:
        with duckdb.connect() as connection:
            connection.register("a", a)
            connection.register("b", b)
            sql = 'SELECT a.id, a.x, b.x FROM a ASOF LEFT JOIN b ON a.id = b.id AND a."at" >= b."at"'
            assert rows == Counter(connection.execute(sql).fetchall())


def test_of_versions_of_one_time_the_last_one_counts() -> None:
    versions = [{"k": "a", "x": n, "at": at(0)} for n in range(50)]
    for parallelism in (1, 3):
        a, b = declared([{"k": "a", "x": 0, "at": at(0)}], versions, (0, 0))
        assert [row["x_right"] for row in a.join_asof(b, on="k").collect(parallelism=parallelism)] == [49]


def test_expressions_are_keys_and_names_get_a_suffix() -> None:
    trades = mill.from_iter([{"pair": "EURUSD", "x": 1, "at": at(5)}]).event_time("at")
    rates = mill.from_iter([{"currency": "EUR", "x": 2, "at": at(3)}]).event_time("at")
    result = trades.join_asof(rates, left_on=col("pair").str.slice(0, 3), right_on="currency", suffix="_rate")
    assert result.collect().to_pylist() == [
        {"pair": "EURUSD", "x": 1, "at": at(5), "currency": "EUR", "x_rate": 2, "at_rate": at(3)}
    ]
    # The result has the event time of the trades.
    assert result.key_by("pair").window(mill.tumbling("10s")).agg(n=mill.count()).collect().to_pylist()[0]["n"] == 1


def test_errors_of_as_of_joins() -> None:
    a, b = declared(records(1), records(2), (0, 0))
    plain = mill.from_iter(records(3), schema=SCHEMA)
    for call, message in [
        (lambda: a.join_asof(b, on="k", how="full"), r"how='full' is not possible; it is one of 'left', 'inner'"),
        (lambda: a.join_asof(plain, on="k"), "the right stream has none"),
        (lambda: a.join_asof(b, on="k", tolerance=5), "tolerance"),
        (lambda: a.join_asof(b, on="k", tolerance="-5s"), "tolerance"),
        (lambda: a.join_asof(b), "needs a key"),
        (lambda: a.join_asof({"k": ["a"]}, on="k"), "joins with a stream, not dict"),
    ]:
        with pytest.raises(PlanError, match=message):
            call()


def test_explain_and_state_show_what_an_as_of_join_keeps(tmp_path: Path) -> None:
    a, b = declared(records(1), records(2), (20, 20))
    assert "tolerance=\"1m\"; keeps left rows until the right watermark has passed" in a.join_asof(b, on="k", tolerance="1m").explain()
    result = a.join_asof(b, on="k").name("priced")
    mill.run(result.write_parquet(tmp_path / "out"), checkpoint=mill.Checkpoint(tmp_path / "state", every="1h"))
    newest: dict[str, Row] = {}
    for row in records(2):
        if row["k"] is not None and (row["k"] not in newest or row["at"] >= newest[row["k"]]["at"]):
            newest[row["k"]] = row
    assert counted(mill.read_state(tmp_path / "state", step="priced").to_pylist()) == counted(list(newest.values()))


def test_state_of_another_tolerance_is_refused(tmp_path: Path) -> None:
    # Versions that the longer one asks for have been dropped.
    a, b = declared(records(1), records(2), (20, 20))
    checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms")
    for tolerance, steps in (("1s", 300), ("1d", None)):
        sink = a.join_asof(b, on="k", tolerance=tolerance).name("priced").write_parquet(tmp_path / "out")
        if steps is None:
            with pytest.raises(CheckpointError, match="priced"):
                testing.simulate(sink, checkpoint=checkpoint, seed=1, parallelism=1)
        else:
            assert testing.simulate(sink, checkpoint=checkpoint, seed=1, steps=steps, parallelism=1, frame_rows=1) is None
            assert mill.checkpoints(tmp_path / "state")


# -- enrichment ----------------------------------------------------------------------------------------------------------


def enriched(left: list[Row], table: list[Row], how: str) -> list[Row]:
    """Return the rows of an enrichment, from every pair."""
    rows: list[Row] = []
    for a in left:
        matches = [b for b in table if a["k"] is not None and a["k"] == b["k"]]
        if how in ("semi", "anti"):
            rows += [a] if bool(matches) == (how == "semi") else []
        elif matches:
            rows += [a | {"y": b["y"]} for b in matches]
        elif how == "left":
            rows.append(a | {"y": None})
    return rows


def table_of(seed: int, rows: int, is_unique: bool) -> list[Row]:
    chance = random.Random(seed)
    keys = chance.sample("abcdefgh", 6) if is_unique else [chance.choice("abcdxyz") for _ in range(rows)]
    return [{"k": key if chance.random() < 0.9 else None, "y": f"v{n}"} for n, key in enumerate(keys)]


def test_a_job_that_is_killed_after_its_end_comes_to_its_end_again(tmp_path: Path) -> None:
    left, right = {"v": range(5), "k": range(5)}, {"w": range(5), "k": range(5)}
    for seed in range(12):
        for steps in (400, None):
            joined = mill.from_arrow(pa.table(left)).enrich(pa.table(right), on="k")
            testing.simulate(
                joined.write_parquet(tmp_path / f"out {seed}"),
                seed=seed,
                checkpoint=mill.Checkpoint(tmp_path / f"state {seed}", every="1ms"),
                steps=steps,
                parallelism=4 if steps else 1,
            )
        assert sorted(row["w"] for row in written(tmp_path / f"out {seed}")) == list(range(5))


@pytest.mark.parametrize("how", ["inner", "left", "semi", "anti"])
def test_a_table(how: Any) -> None:
    for seed in range(6):
        left, table = records(seed), table_of(seed, 12, is_unique=seed % 2 == 0)
        for data in (mill.from_iter(table, schema={"k": str, "y": str}), pa.Table.from_pylist(table), pl.DataFrame(table)):
            stream = mill.from_iter(left, schema=SCHEMA)
            result = stream.enrich(data, on="k", how=how).collect(parallelism=1 + seed % 3)
            assert counted(result.to_pylist()) == counted(enriched(left, table, how)), seed


@pytest.mark.parametrize("how", ["inner", "left"])
def test_a_table_over_restarts(how: Any, tmp_path: Path) -> None:
    for seed in range(5):
        left, table = records(seed), table_of(seed, 40, is_unique=False)
        work = tmp_path / str(seed)
        for settings in runs(f"enrich {seed} {how}"):
            stream = mill.from_iter(left, schema=SCHEMA).event_time("at", watermark="20s")
            sink = stream.enrich(mill.from_iter(table, schema={"k": str, "y": str}), on="k", how=how).write_parquet(work / "out")
            if testing.simulate(sink, checkpoint=mill.Checkpoint(work / "state", every="1ms"), **settings):
                break
        assert counted(written(work / "out")) == counted(enriched(left, table, how)), seed


def test_a_table_of_the_stream_itself() -> None:
    # The source of the left side is that of the table, so it cannot wait for it.
    rows = records(4, rows=20_000)
    stream = mill.from_iter(rows, schema=SCHEMA)
    table = stream.filter(col("x") % 1000 == 0).select("k", y=col("x"))
    result = stream.enrich(table, on="k", how="left")
    assert "keeps left rows until the right side has ended" in result.explain()
    few = [{"k": row["k"], "y": row["x"]} for row in rows if row["x"] % 1000 == 0]
    for parallelism in (1, 2):
        assert counted(result.collect(parallelism=parallelism).to_pylist()) == counted(enriched(rows, few, "left"))


def test_two_tables_that_are_each_made_with_the_other_stream() -> None:
    a = mill.generate(rows=200_000, k=mill.index() % 100, x=mill.index())
    b = mill.generate(rows=200_000, k=mill.index() % 100, y=mill.index())
    first = a.enrich(b.filter(col("y") < 100), on="k").key_by("k").agg(n=mill.count())
    second = b.enrich(a.filter(col("x") < 100), on="k").key_by("k").agg(n=mill.count())
    assert [len(stream.collect(parallelism=2)) for stream in (first, second)] == [100, 100]
    # In one job one of them has to keep its left side.
    both = first.union(second)
    assert "the left side is read once the right one has ended" in both.explain()
    assert "keeps left rows until the right side has ended" in both.explain()
    assert len(both.collect(parallelism=2)) == 200


def test_the_left_side_waits_while_the_table_is_read(tmp_path: Path) -> None:
    # Far more left rows than queues hold; the state has next to none of them while the table is slow.
    stream = mill.generate(rows=5_000_000, k=mill.index() % 1000)
    slow = mill.generate(rows=2000, rate=2000.0, k=mill.index(), y=mill.index() * 2)
    counts = stream.enrich(slow, on="k").key_by("k").agg(n=mill.count(), y=col("y").max())
    report = mill.run(counts.write_parquet(tmp_path / "out"), checkpoint=mill.Checkpoint(tmp_path / "state", every="100ms"))
    rows = written(tmp_path / "out")
    assert len(rows) == 1000 and all(row["n"] == 5000 and row["y"] == 2 * row["k"] for row in rows)
    assert report.checkpoints_taken >= 1


def test_the_latest_row_of_an_updating_table_counts(tmp_path: Path) -> None:
    changes = [
        {"op": "insert", "k": "a", "y": 1},
        {"op": "insert", "k": "b", "y": 2},
        {"op": "update", "k": "a", "y": 3},
        {"op": "delete", "k": "b", "y": 2},
    ]
    table = mill.from_changelog(mill.from_iter(changes), key="k")
    left = mill.from_iter([{"k": "a"}, {"k": "b"}, {"k": "c"}])
    result = left.enrich(table, on="k", how="left")
    for parallelism in (1, 2):
        rows = result.collect(parallelism=parallelism).to_pylist()
        assert sorted(rows, key=lambda row: row["k"]) == [{"k": "a", "y": 3}, {"k": "b", "y": None}, {"k": "c", "y": None}]
    with pytest.raises(PlanError, match="looked up by all of these columns alone"):
        mill.from_iter([{"y": 1}]).enrich(table, on="y")
    with pytest.raises(PlanError, match="does not take an updating stream"):
        table.enrich({"k": ["a"]}, on="k")


def test_the_latest_row_of_a_stream_that_goes_on() -> None:
    def states(start: int) -> Iterator[Row]:
        yield from [{"k": "a", "y": 1}, {"k": "a", "y": 2}][start:]

    table = mill.from_iter(states, schema={"k": str, "y": int}, is_bounded=False)
    left = mill.from_iter([{"k": "a"}, {"k": "b"}])
    result = left.enrich(table, on="k", how="left")
    assert "keeps the latest right row of each key" in result.explain() and "depends on timing" in result.explain()


def test_tables_as_python_has_them() -> None:
    left = mill.from_iter([{"k": 1}, {"k": 2}])
    assert left.enrich({"k": [2], "y": ["b"]}, on="k").collect().to_pylist() == [{"k": 2, "y": "b"}]
    assert left.enrich([{"k": 2, "y": "b"}], on="k").collect().to_pylist() == [{"k": 2, "y": "b"}]
    assert left.enrich({"k": [2], "k_right": [5]}, left_on="k", right_on="k", suffix="_2").collect().to_pylist() == [
        {"k": 2, "k_2": 2, "k_right": 5}
    ]
    for table, message in [
        ({"k": [1, 2], "y": [1]}, "one length"),
        ({"k": "ab"}, "a dict of columns"),
        ({}, "a dict of columns"),
        (5, "takes a stream, or a table"),
    ]:
        with pytest.raises(PlanError, match=message):
            left.enrich(table, on="k")
    with pytest.raises(PlanError, match=r"it is one of 'inner', 'left', 'semi', 'anti'"):
        left.enrich({"k": [1]}, on="k", how="full")  # type: ignore[arg-type]


def test_state_shows_the_table(tmp_path: Path) -> None:
    table = [{"k": "a", "y": 1}, {"k": "b", "y": 2}, {"k": "a", "y": 3}]
    left = mill.from_iter(records(1), schema=SCHEMA)
    result = left.enrich(mill.from_iter(table), on="k").name("named")
    sink = result.write_parquet(tmp_path / "out")
    mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="1h"))
    kept = mill.read_state(tmp_path / "state", step="named").to_pylist()
    assert sorted(kept, key=lambda row: row["y"]) == table


def test_late_records_stay_late() -> None:
    rows = [{"k": "a", "x": 0, "at": at(100)}, {"k": "a", "x": 1, "at": at(0)}]
    stream = mill.from_iter(rows, schema=SCHEMA).event_time("at", watermark="5s").enrich({"k": ["a"], "y": [1]}, on="k")
    counts = stream.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count())
    assert len(counts.collect()) == 1
    assert [row["x"] for row in counts.late.collect()] == [1]


@pytest.mark.parametrize("kind", ["near", "far", "negative", "dates", "nulls", "twice", "text", "empty"])
@pytest.mark.parametrize("how", ["inner", "left", "semi", "anti"])
def test_tables_with_keys_of_every_kind_of_range(kind: str, how: Any) -> None:
    dice = random.Random(kind)
    spread = {"far": 10**12, "negative": 3000}.get(kind, 2000)
    numbers = [dice.randrange(-spread if kind in ("far", "negative") else 0, spread) for _ in range(0 if kind == "empty" else 1500)]
    if kind != "twice":
        numbers = list(dict.fromkeys(numbers))
    asked = [dice.choice(numbers or [0]) if dice.random() < 0.7 else dice.randrange(-2 * spread, 2 * spread) for _ in range(5000)]

    def key(number: int) -> Any:
        if kind in ("nulls", "twice") and number % 7 == 0:
            return None
        return START.date() + timedelta(days=number) if kind == "dates" else f"n{number}" if kind == "text" else number

    key_type = pa.date32() if kind == "dates" else pa.string() if kind == "text" else pa.int64()
    table = pa.table({"k": pa.array([key(n) for n in numbers], key_type), "y": pa.array(range(len(numbers)), pa.int64())})
    stream = pa.table({"k": pa.array([key(n) for n in asked], key_type), "x": pa.array(range(len(asked)), pa.int64())})
    found = mill.from_arrow(stream).enrich(table, on="k", how=how).collect(parallelism=2).to_pylist()

    of_key: dict[Any, list[int]] = {}
    for row in table.to_pylist():
        if row["k"] is not None:
            of_key.setdefault(row["k"], []).append(row["y"])
    expected = []
    for row in stream.to_pylist():
        matches = of_key.get(row["k"], [])
        if how in ("semi", "anti"):
            expected += [row] if bool(matches) == (how == "semi") else []
        else:
            expected += [row | {"y": y} for y in matches or ([None] if how == "left" else [])]
    assert Counter(map(str, found)) == Counter(map(str, expected))
