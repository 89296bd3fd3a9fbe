"""Regular joins against plain Python, which joins the rows that are left, and against DuckDB; with crashes and a clock moved by hand."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

import millstream as mill
from millstream import col, testing
from millstream.errors import PlanError, SchemaError

HOWS = ["inner", "left", "right", "full", "semi", "anti"]
START = datetime(2024, 1, 1)
Row = dict[str, Any]


def changes_of(rng: random.Random, key: list[str], rows: int, ids: int) -> tuple[list[Row], list[Row]]:
    """Changes of keys and the rows that they leave; deletes of what is not there among them."""
    latest: dict[tuple[Any, ...], Row] = {}
    changes = []
    for number in range(rows):
        row = {"k": rng.choice([None, 0, 1, 2, 3, 4]), "id": rng.randrange(ids), "x": rng.choice([None, number])}
        of = tuple(row[name] for name in key)
        if rng.random() < 0.35:
            row.update(latest.pop(of, {}))
            changes.append({"op": "delete", **row})
        else:
            changes.append({"op": "insert", **row})
            latest[of] = row
    return changes, list(latest.values())


def rows_of(rng: random.Random, rows: int) -> list[Row]:
    return [{"k": rng.choice([None, 0, 1, 2, 3, 4]), "id": rng.randrange(4), "x": number} for number in range(rows)]


def side(rng: random.Random, kind: str, rows: int = 80) -> tuple[Callable[[], mill.Stream], list[Row]]:
    """A stream of a kind, and the rows that are there in the end."""
    if kind == "append":
        made = rows_of(rng, rows)
        return (lambda: mill.from_iter(made, schema={"k": int, "id": int, "x": int})), made
    key = {"unique": ["k"], "updating": ["k", "id"], "moving": ["id"]}[kind]
    changes, left = changes_of(rng, key, rows, ids=9 if kind == "moving" else 4)
    if kind == "unique":
        # A full join could not tell rows apart whose whole key is null.
        changes, left = ([row for row in of if row["k"] is not None] for of in (changes, left))
    schema = {"op": str, "k": int, "id": int, "x": int}
    return (lambda: mill.from_changelog(mill.from_iter(changes, schema=schema), key=key)), left


def joined(how: str, left: list[Row], right: list[Row]) -> Counter[tuple[Any, ...]]:
    """Join by looking at every pair."""
    found: Counter[tuple[Any, ...]] = Counter()

    def is_pair(a: Row, b: Row) -> bool:
        return a["k"] is not None and a["k"] == b["k"]

    for a in left:
        partners = [b for b in right if is_pair(a, b)]
        if how in ("semi", "anti"):
            if bool(partners) == (how == "semi"):
                found[a["k"], a["id"], a["x"]] += 1
            continue
        for b in partners:
            found[a["k"], a["id"], a["x"], b["id"], b["x"]] += 1
        if not partners and how in ("left", "full"):
            found[a["k"], a["id"], a["x"], None, None] += 1
    if how in ("right", "full"):
        for b in right:
            if not any(is_pair(a, b) for a in left):
                found[b["k"], None, None, b["id"], b["x"]] += 1
    return found


def columns(how: str) -> list[str]:
    return ["k", "id", "x"] if how in ("semi", "anti") else ["k", "id", "x", "id_right", "x_right"]


def shown(rows: list[Row], how: str) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(row[name] for name in columns(how)) for row in rows)


KINDS = ["append", "updating", "unique", "moving"]


@pytest.mark.parametrize("how", HOWS)
def test_the_rows_that_are_left_are_joined(how: str) -> None:
    rng = random.Random(how)
    for case in range(32):
        left, of_left = side(rng, KINDS[case % 4])
        right, of_right = side(rng, KINDS[case // 4 % 4])
        for ttl in (None, "10000d"):
            result = left().join(right(), on="k", how=how, ttl=ttl)  # type: ignore[arg-type]
            found = result.collect(parallelism=1 + case % 3).to_pylist()
            assert shown(found, how) == joined(how, of_left, of_right), (case, ttl)
            key = result.updating_key
            if key is not None:
                assert max(Counter(tuple(row[name] for name in key) for row in found).values(), default=1) == 1


@pytest.mark.parametrize("how", HOWS)
def test_every_change_is_of_what_is_there(how: str) -> None:
    rng = random.Random(f"changes {how}")
    for case in range(16):
        left, of_left = side(rng, KINDS[case % 4])
        right, of_right = side(rng, KINDS[case // 4 % 4])
        result = left().join(right(), on="k", how=how, ttl="10000d")  # type: ignore[arg-type]
        key = result.updating_key
        if key is None:
            assert how in ("inner", "semi") and case == 0
            continue
        rows: dict[tuple[Any, ...], Row] = {}
        for row in result.to_changelog().collect(parallelism=1 + case % 3).to_pylist():
            of = tuple(row[name] for name in key)
            op = row.pop("op")
            assert (of in rows) == (op != "insert"), "an insert is of what is not there, all else of what is"
            if op == "delete":
                assert rows.pop(of) == row
            else:
                rows[of] = row
        assert shown(list(rows.values()), how) == joined(how, of_left, of_right)


@pytest.mark.parametrize("how", HOWS)
def test_duckdb_joins_bounded_streams_the_same(how: str) -> None:
    rng = random.Random(f"duckdb {how}")
    left, right = rows_of(rng, 300), rows_of(rng, 300)
    schema = {"k": int, "id": int, "x": int}
    a, b = mill.from_iter(left, schema=schema), mill.from_iter(right, schema=schema)
    result = a.join(b, on="k", how=how)  # type: ignore[arg-type]
    assert result.updating_key is None, "what is bounded and kept for ever has each row once"
    connection = duckdb.connect()
    connection.register("a", a.collect().to_arrow())
    connection.register("b", b.collect().to_arrow())
    if how in ("semi", "anti"):
        sql = f"SELECT a.k, a.id, a.x FROM a {how} JOIN b ON a.k = b.k"
    else:
        sql = f"SELECT coalesce(a.k, b.k), a.id, a.x, b.id, b.x FROM a {how} JOIN b ON a.k = b.k"
    for parallelism in (1, 3):
        found = shown(result.collect(parallelism=parallelism).to_pylist(), how)
        assert found == Counter(connection.execute(sql).fetchall())


def table(path: Path, name: str) -> list[Row]:
    connection = sqlite3.connect(path)
    try:
        cursor = connection.execute(f"SELECT * FROM {name}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    finally:
        connection.close()


@pytest.mark.parametrize("how", HOWS)
def test_a_keyed_table_survives_crashes(how: str, tmp_path: Path) -> None:
    for seed in range(4):
        rng = random.Random(f"{seed} {how}")
        kinds = rng.choice([("moving", "updating"), ("moving", "append"), ("unique", "moving"), ("append", "append")])
        (left, of_left), (right, of_right) = side(rng, kinds[0]), side(rng, kinds[1])
        path = tmp_path / f"{seed}.db"
        a, b = left(), right()

        def job(a: mill.Stream = a, b: mill.Stream = b, path: Path = path) -> Any:
            result = a.join(b, on="k", how=how, ttl="10000d")  # type: ignore[arg-type]
            return result.write_sqlite(path, "rows", key=result.updating_key)

        for attempt in range(12):
            steps = rng.randrange(20, 400) if attempt < 11 else None
            report = testing.simulate(
                job(),
                seed=seed * 100 + attempt,
                checkpoint=str(tmp_path / f"state {seed}"),
                frame_rows=rng.choice([1, 7, 64]),
                steps=steps,
                parallelism=rng.randrange(1, 4),
            )
            if report is not None:
                break
        assert shown(table(path, "rows"), how) == joined(how, of_left, of_right), (seed, kinds)


@pytest.mark.parametrize("restarts", [False, True])
def test_rows_that_were_not_used_are_gone_by_the_clock(restarts: bool) -> None:
    clock = testing.Clock()
    orders, prices = testing.Source({"k": int, "x": int}), testing.Source({"k": int, "y": int})
    result = orders.stream().join(prices.stream(), on="k", how="left", ttl="1m").to_changelog()
    with testing.Job(result, clock=clock) as job:

        orders.push({"k": 1, "x": 10})
        for number, (wait, price) in enumerate([("59s", 5), ("59s", 6), ("60s", 7)]):
            clock.advance(wait)
            if restarts:
                job.checkpoint()
                job.kill_and_restore(parallelism=1 + number)
            prices.push({"k": 1, "y": price})
            job.run()
        found = [(row["op"], row["k"], row["x"], row["y"]) for row in job.collect(result)]
        assert found == [("insert", 1, 10, None), ("delete", 1, 10, None), ("insert", 1, 10, 5), ("insert", 1, 10, 6)]


@pytest.mark.parametrize("how", ["semi", "inner"])
def test_an_update_is_a_use_whether_or_not_anything_reads_what_has_changed(how: Any) -> None:
    clock = testing.Clock()
    orders, prices = testing.Source({"k": int, "x": int}), testing.Source({"op": str, "k": int, "y": int})
    priced = mill.from_changelog(prices.stream(), key="k")
    joined = orders.stream().join(priced, on="k", how=how, ttl="10s")
    result = joined.select("k", "left_row", "x")
    with testing.Job(result, clock=clock) as job:
        orders.push({"k": 1, "x": 7})
        prices.push({"op": "insert", "k": 1, "y": 1})
        clock.advance("6s")
        prices.push({"op": "update", "k": 1, "y": 2})
        clock.advance("6s")
        assert [row["x"] for row in job.latest()] == [7]
        prices.push({"op": "delete", "k": 1})
        assert job.latest() == []


def test_event_time_is_what_a_ttl_goes_by_where_both_sides_have_it() -> None:
    def timed(values: list[tuple[int, int]]) -> mill.Stream:
        rows = [{"k": 1, "x": x, "at": START + timedelta(seconds=second)} for x, second in values]
        return mill.from_iter(rows).event_time("at", watermark="5s")

    left = timed([(1, 0), (2, 100), (3, 50), (4, 101)])
    right = timed([(7, 20), (8, 130)])
    result = left.join(right, on="k", ttl="40s")
    assert result.updating_key is None
    assert [row["x"] for row in result.late.collect().to_pylist()] == [3]
    assert result.late_right.collect().to_pylist() == []
    found = {(row["x"], row["x_right"]) for row in result.collect(parallelism=2).to_pylist()}
    assert found == {(1, 7), (2, 8), (4, 8)}
    assert "ttl=\"40s\"; keeps a row of each side until it has been neither changed nor joined for 40s by event time" in result.explain()


def test_joined_results_are_joined_again() -> None:
    rng = random.Random(5)
    (a, of_a), (b, of_b), (c, of_c) = side(rng, "append", 30), side(rng, "unique", 30), side(rng, "updating", 30)
    first = a().join(b(), on="k", how="left")
    assert first.updating_key == ["k", "left_row"]
    second = first.select("k", "left_row", "id", "x").join(c().rename({"id": "other", "x": "y"}), on="k", how="anti")
    assert second.updating_key == ["k", "left_row"]
    keys = {row["k"] for row in of_c if row["k"] is not None}
    expected = Counter((row["k"], row["id"], row["x"]) for row in of_a if row["k"] not in keys)
    for parallelism in (1, 3):
        assert shown(second.collect(parallelism=parallelism).to_pylist(), "anti") == expected
    assert of_b


def test_what_tells_rows_apart_is_the_key() -> None:
    plain = mill.from_iter([{"k": 1, "id": 2}])
    unique = mill.from_iter([{"k": 1, "n": 2}]).key_by("k").agg(n=col("n").sum(), emit="each")
    pairs = mill.from_iter([{"k": 1, "p": 2, "n": 2}]).key_by("k", "p").agg(n=col("n").sum(), emit="each")

    def key(left: mill.Stream, right: mill.Stream, how: Any, **on: Any) -> Any:
        return left.join(right, how=how, ttl="1h", **(on or {"on": "k"})).updating_key

    assert key(plain, plain, "inner") is None
    assert key(plain, plain, "semi") is None
    assert key(plain, plain, "anti") == ["k", "left_row"]
    assert key(plain, plain, "full") == ["k", "left_row", "right_row"]
    assert key(plain, unique, "inner") == ["k", "left_row"]
    assert key(plain, unique, "right") == ["k", "left_row"]
    assert key(unique, unique, "full") == ["k"]
    assert key(unique, pairs, "left") == ["k", "p"]
    assert key(pairs, unique, "semi") == ["k", "p"]
    assert key(plain, pairs, "inner", left_on="id", right_on="p") == ["left_row", "k_right", "p"]
    assert key(pairs, pairs, "inner", left_on="k", right_on="p") == ["k", "p", "k_right", "p_right"]
    moving = mill.from_iter([{"k": 1, "p": 2}]).key_by("p").agg(k=col("k").max(), emit="each")
    assert key(moving, unique, "left") == ["k", "p"]
    assert key(plain, moving, "inner", left_on="id", right_on="k") == ["k_right", "left_row", "p"]
    assert "keeps the latest row a key for as long as the job runs" in moving.join(unique, on="k", ttl="1h").explain()
    # No column is lost by which rows are told apart.
    assert unique.join(pairs, on="k", ttl="1h").select("k", "p").collect().to_pylist() == [{"k": 1, "p": 2}]


def test_an_update_is_an_update_and_no_two_changes() -> None:
    changes = [
        {"op": "insert", "k": 1, "y": 5},
        {"op": "update", "k": 1, "y": 6},
        {"op": "delete", "k": 1, "y": 6},
    ]
    unique = mill.from_changelog(mill.from_iter(changes), key="k")
    one = mill.from_iter([{"k": 1, "x": 7}])
    result = unique.join(one.key_by("k").agg(x=mill.count(), emit="each"), on="k", how="right", ttl="1h").to_changelog()
    ops = [row["op"] for row in result.collect(parallelism=1).to_pylist()]
    assert ops[0] == "insert" and set(ops[1:]) <= {"update"}, "the row with nulls has the key of the joined one"


def test_mistakes() -> None:
    plain = mill.from_iter([{"k": 1, "id": 2}])
    endless = mill.generate(k=mill.index() % 10)
    with pytest.raises(PlanError, match=r'the left stream has no end: ttl="1h" .*window=.*join_interval\(\)'):
        endless.join(plain, on="k")
    with pytest.raises(PlanError, match=r"the right stream has no end"):
        plain.join(endless, on="k", how="left")
    with pytest.raises(PlanError, match="takes window= or ttl=, not both"):
        plain.join(plain, on="k", ttl="1h", window=mill.tumbling("1s"))
    with pytest.raises(PlanError, match="ttl is the bare number 5"):
        plain.join(plain, on="k", ttl=5)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="ttl= must be a positive duration"):
        plain.join(plain, on="k", ttl="0s")
    with pytest.raises(PlanError, match=r'adds a column "left_row".*drop\("left_row"\)'):
        plain.rename({"id": "left_row"}).join(plain, on="k", how="left", ttl="1h")
    with pytest.raises(SchemaError, match='column "nobody" does not exist'):
        plain.join(plain, on="nobody", ttl="1h")
    with pytest.raises(PlanError, match="both sides have a column"):
        plain.join(plain, on="k", suffix="")
    with pytest.raises(PlanError, match="cannot take an updating stream"):
        plain.join(plain, on="k", how="left", ttl="1h").write_csv("out")
    with pytest.raises(PlanError, match="late records come from a window step or a join"):
        _ = plain.join(plain, on="k").late
    unique = mill.from_changelog(mill.from_iter([{"op": "insert", "k": None, "x": 1}], schema={"op": str, "k": int, "x": int}), key="k")
    with pytest.raises(mill.errors.MillstreamError, match=r"the key of this (left|right) row is null.*is_not_null"):
        unique.join(unique, on="k", how="full").collect()


def test_state_is_shown(tmp_path: Path) -> None:
    rng = random.Random(1)
    (left, of_left), (right, _) = side(rng, "append", 50), side(rng, "updating", 50)
    result = left().join(right(), on="k", how="left", ttl="1d").name("pairs")
    job = result.write_sqlite(tmp_path / "a.db", "rows", key=result.updating_key)
    for steps in (100, 200, 400, 800, None):
        if testing.simulate(job, seed=2, checkpoint=str(tmp_path / "state"), steps=steps, frame_rows=4) is not None:
            break
    state = mill.read_state(tmp_path / "state", step="pairs")
    assert state.schema.names == ["side", "k", "id", "x", "id_right", "x_right", "left_row"]
    kept = {(row["k"], row["id"], row["x"]) for row in state.to_pylist() if row["side"] == "left"}
    assert kept and kept <= {(row["k"], row["id"], row["x"]) for row in of_left}


@pytest.mark.parametrize("how", ["inner", "left", "right", "full", "semi", "anti"])
@pytest.mark.parametrize("right_on", ["c", "expression"])
def test_the_keys_of_both_sides_may_have_names_of_their_own(how: Any, right_on: str) -> None:
    # The key of the left side was looked for among the columns of the right one.
    orders = [{"order": i, "c": i % 4, "x": i} for i in range(12)]
    customers = [{"cust": i, "c": i % 6, "y": i} for i in range(9)]
    left = mill.from_changelog(mill.from_iter([{"op": "insert", **row} for row in orders]), key="order")
    right = mill.from_changelog(mill.from_iter([{"op": "insert", **row} for row in customers]), key="cust")
    on = {"on": "c"} if right_on == "c" else {"left_on": "c", "right_on": col("c") + 0}
    changes = left.join(right, how=how, ttl="1h", **on).to_changelog().collect(parallelism=2).to_pylist()
    count = Counter[tuple[Any, Any]]()
    for row in changes:
        identity = (row.get("order"), row.get("cust"))
        if row["op"] == "insert":
            count[identity] += 1
        elif row["op"] == "delete":
            count[identity] -= 1
    pairs = {(a["order"], b["cust"]) for a in orders for b in customers if a["c"] == b["c"]}
    alone = {(a["order"], None) for a in orders if not any(a["c"] == b["c"] for b in customers)}
    alone_right = {(None, b["cust"]) for b in customers if not any(a["c"] == b["c"] for a in orders)}
    expected = {
        "inner": pairs, "left": pairs | alone, "right": pairs | alone_right, "full": pairs | alone | alone_right,
        "semi": {(order, None) for order, _ in pairs}, "anti": alone,
    }[how]  # fmt: skip
    assert {identity for identity, n in count.items() if n} == expected
    assert set(count.values()) <= {0, 1}


@pytest.mark.parametrize("how", ["semi", "anti"])
def test_many_rows_of_a_key_are_not_gone_over_for_each_other(how: Any) -> None:
    import time

    def spent(keys: int) -> float:
        rows = [{"k": i % keys, "x": i} for i in range(6000)]
        joined = mill.from_iter(rows).join(mill.from_iter(rows), on="k", how=how)
        began = time.process_time()
        joined.collect(parallelism=1)
        return time.process_time() - began

    # Every right row went over all left rows of its key: a hundred times as much as with keys of their own.
    assert min(spent(1) for _ in range(2)) < 20 * min(spent(6000) for _ in range(3)) + 0.2
