"""Updating streams with withdrawals, changelogs, `top_n` and `deduplicate`, against plain Python."""

import random
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import millstream as mill
from millstream import col, testing

EPOCH = datetime(1970, 1, 1)


def table(path, name):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"SELECT * FROM {name}").fetchall()
    finally:
        connection.close()


def changes_of(seed, rows=400, keys=7):
    """Changes of keys, each of them possible, and the rows that they leave."""
    rng = random.Random(seed)
    latest, changes = {}, []
    for number in range(rows):
        key = rng.randrange(keys)
        if key in latest and rng.random() < 0.4:
            changes.append({"op": "delete", "k": key, "x": latest.pop(key)})
            continue
        changes.append({"op": "update" if key in latest else "insert", "k": key, "x": number})
        latest[key] = number
    return changes, latest


def crashed(job, seed, directory: Path):
    """Run a job that is killed at a few steps, and go on with another parallelism each time."""
    rng = random.Random(seed)
    for attempt in range(12):
        steps = rng.randrange(20, 400) if attempt < 11 else None
        options = dict(seed=seed * 100 + attempt, checkpoint=str(directory / "state"), frame_rows=rng.choice([1, 7, 64]))
        if testing.simulate(job(), steps=steps, parallelism=rng.randrange(1, 5), **options) is not None:
            return
    raise AssertionError("the last run was not left before its end")


# -- changelogs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_a_changelog_is_the_way_there_and_back(parallelism):
    changes, latest = changes_of(parallelism)
    updating = mill.from_changelog(mill.from_iter(changes), key="k")
    assert updating.updating_key == ["k"]
    rows = updating.collect(parallelism=parallelism).to_pylist()
    assert {row["k"]: row["x"] for row in rows} == latest
    assert len(rows) == len(latest)
    again = updating.to_changelog()
    assert again.updating_key is None
    named = again.collect(parallelism=parallelism).to_pylist()
    for key in range(7):
        of_key = [change for change in changes if change["k"] == key]
        assert [change for change in named if change["k"] == key] == of_key


def test_a_filter_withdraws_and_only_changes_come_out():
    rows = [{"op": "update", "k": k, "x": x} for k, x in [(1, 5), (2, 1), (1, 6), (1, 6), (1, 0), (1, 0), (2, 9)]]
    passing = mill.from_changelog(mill.from_iter(rows), key="k").filter(col("x") > 4).select("k", y=col("x"))
    assert passing.to_changelog(op="what").collect(parallelism=1).to_pylist() == [
        {"what": "insert", "k": 1, "y": 5},
        {"what": "update", "k": 1, "y": 6},
        {"what": "delete", "k": 1, "y": 6},
        {"what": "insert", "k": 2, "y": 9},
    ]
    assert passing.collect().to_pylist() == [{"k": 2, "y": 9}]


def test_short_forms_and_unknown_changes():
    rows = [{"op": op, "k": k} for op, k in [("+I", 1), ("+I", 2), ("-U", 1), ("+U", 3), ("-D", 2), ("Insert", 4)]]
    updating = mill.from_changelog(mill.from_iter(rows), key=["k"])
    assert updating.collect(on_error="skip").to_pylist() == [{"k": 3}]
    with pytest.raises(mill.DataError, match='column "op" is "Insert"; a change is "insert", "update" or "delete"'):
        updating.collect()
    errors = updating.errors.collect(on_error="route").to_pylist()
    assert [row["record"] for row in errors] == ['{"op":"Insert","k":4}']


def test_a_keyed_table_has_what_the_changes_leave(tmp_path):
    for seed in range(3):
        changes, latest = changes_of(seed)
        path = tmp_path / f"{seed}.db"
        source = mill.from_iter(changes)
        crashed(lambda source=source, path=path: mill.from_changelog(source, key="k").write_sqlite(path, "rows", key="k"),
                seed, tmp_path / str(seed))
        assert dict(table(path, "rows")) == latest


def test_a_changelog_after_crashes_replays_to_the_same_rows(tmp_path):
    for seed in range(4):
        changes, _ = changes_of(seed, keys=5)
        source = mill.from_iter(changes)
        path = tmp_path / f"{seed}.db"

        def job(source=source, path=path):
            passing = mill.from_changelog(source, key="k").filter(col("x") % 3 != 0)
            return passing.to_changelog().write_sqlite(path, "changes")

        crashed(job, seed, tmp_path / str(seed))
        found = {}
        for op, key, x in table(path, "changes"):
            found.setdefault(key, []).append((op, x))
        for key in range(5):
            expected, last = [], None
            for change in (change for change in changes if change["k"] == key):
                now = change["x"] if change["op"] != "delete" and change["x"] % 3 != 0 else None
                if now != last:
                    op = "delete" if now is None else "insert" if last is None else "update"
                    expected.append((op, last if now is None else now))
                last = now
            assert found.get(key, []) == expected


class Upserts(mill.Sink):
    kind = "idempotent"

    def __init__(self):
        self.rows = {}

    def write(self, batch):
        for row in batch.to_pylist():
            self.rows[row["k"]] = row["x"]


class Keyed(Upserts):
    def delete(self, batch):
        for row in batch.to_pylist():
            self.rows.pop(row["k"], None)


def test_a_sink_of_the_users_deletes():
    for seed in range(3):
        changes, latest = changes_of(seed)
        target = Keyed()
        mill.run(mill.from_changelog(mill.from_iter(changes), key="k").sink_to(target), parallelism=3)
        assert target.rows == latest


def test_what_cannot_show_withdrawals_refuses_them():
    updating = mill.from_changelog(mill.from_iter([{"op": "insert", "k": 1, "x": 1}]), key="k")
    with pytest.raises(mill.PlanError, match=r"Upserts cannot take a stream that withdraws rows.*give it a method delete"):
        updating.sink_to(Upserts())
    with pytest.raises(mill.PlanError, match=r"for_each\(.*cannot take a stream that withdraws rows.*put to_changelog\(\) before"):
        updating.for_each(lambda row: None)
    with pytest.raises(mill.PlanError, match=r"print\(\) cannot take a stream that withdraws rows"):
        updating.print()
    with pytest.raises(mill.PlanError, match=r"iter_batches\(\) cannot show .* withdrawn; put to_changelog\(\) before it"):
        updating.iter_batches()
    counts = mill.from_iter([{"k": 1}]).key_by("k").agg(x=mill.count(), emit="each")
    target = Upserts()
    mill.run(counts.sink_to(target))
    assert target.rows == {1: 1}, "no row of agg() is withdrawn"
    with pytest.raises(mill.PlanError, match="Upserts cannot take"):
        counts.filter(col("x") > 1).sink_to(Upserts())


def test_append_only_sinks_refuse_updating_streams(tmp_path):
    updating = mill.from_iter([{"k": 1, "x": 2}]).key_by("k").top_n(2, by="x", emit="each")
    for write in (updating.write_csv, updating.write_json, updating.write_parquet):
        with pytest.raises(mill.PlanError, match=r"cannot take an updating stream, in which the latest row a key of \(k, rank\)"):
            write(tmp_path / "out")
    updating.to_changelog().write_csv(tmp_path / "out")


def test_mistakes_about_changelogs():
    plain = mill.from_iter([{"op": "insert", "k": 1, "x": 1.5}])
    updating = mill.from_changelog(plain, key="k")
    with pytest.raises(mill.PlanError, match="to_changelog\\(\\) takes an updating stream"):
        plain.to_changelog()
    with pytest.raises(mill.PlanError, match='adds a column "x" and there is one already'):
        updating.to_changelog(op="x")
    with pytest.raises(mill.SchemaError, match='needs a column of text.*"x" is float64'):
        mill.from_changelog(plain, key="k", op="x")
    with pytest.raises(mill.PlanError, match='"op" says what happens, so it cannot be part of the key'):
        mill.from_changelog(plain, key=["k", "op"])
    with pytest.raises(mill.PlanError, match="needs the key columns"):
        mill.from_changelog(plain, key=[])
    with pytest.raises(mill.SchemaError, match='"id"'):
        mill.from_changelog(plain, key="id")
    with pytest.raises(mill.PlanError, match="takes a stream, not list"):
        mill.from_changelog([], key="k")
    for step in (
        lambda: updating.key_by("x"),
        lambda: updating.union(updating),
        lambda: updating.limit(1),
        lambda: updating.branch(col("x") > 1),
        lambda: updating.map(lambda row: row, schema={"k": int}),
        lambda: updating.filter(lambda row: True),
        lambda: updating.rebalance(),
    ):
        with pytest.raises(mill.PlanError, match=r"does not take an updating stream.*to_changelog\(\)"):
            step()


# -- top_n ---------------------------------------------------------------------------------------------------------------


def bids(seed, rows=500):
    rng = random.Random(seed)
    price = lambda: None if rng.random() < 0.1 else rng.randrange(20)
    return [{"item": rng.randrange(6), "price": price(), "who": f"bidder {number}"} for number in range(rows)]


def leaders(rows, n, *, descending=True):
    """Give the first rows by item: a stable sort with nulls last."""
    found = {}
    for item in {row["item"] for row in rows}:
        of_item = [row for row in rows if row["item"] == item]
        of_item.sort(key=lambda row: (row["price"] is None, (-1 if descending else 1) * (row["price"] or 0)))
        found[item] = [{**row, "rank": place} for place, row in enumerate(of_item[:n], start=1)]
    return found


def by_item(rows):
    found = {}
    for row in rows:
        found.setdefault(row["item"], []).append(row)
    return {item: sorted(of_item, key=lambda row: row["rank"]) for item, of_item in found.items()}


@pytest.mark.parametrize("parallelism", [1, 2, 3, 4])
@pytest.mark.parametrize("emit", ["end", "each", "checkpoint", "1s"])
def test_the_first_rows_are_those_of_a_stable_sort(parallelism, emit):
    rows = bids(parallelism)
    for n, descending in [(1, True), (3, False), (5, True)]:
        top = mill.from_iter(rows).key_by("item").top_n(n, by="price", descending=descending, emit=emit)
        assert top.updating_key == (None if emit == "end" else ["item", "rank"])
        found = by_item(top.collect(parallelism=parallelism).to_pylist())
        assert found == leaders(rows, n, descending=descending)


def test_a_leaderboard_in_a_keyed_table_survives_crashes(tmp_path):
    for seed in range(4):
        rows = bids(seed, rows=300)
        source = mill.from_iter(rows)
        path = tmp_path / f"{seed}.db"
        emit = ["each", "checkpoint", "1s"][seed % 3]

        def job(source=source, path=path, emit=emit):
            top = source.key_by("item").top_n(3, by="price", emit=emit)
            return top.write_sqlite(path, "leaders", key=["item", "rank"])

        crashed(job, seed, tmp_path / str(seed))
        names = ["item", "price", "who", "rank"]
        found = by_item([dict(zip(names, row, strict=True)) for row in table(path, "leaders")])
        assert found == leaders(rows, 3)


def test_several_columns_and_expressions():
    rows = [{"a": a, "b": b} for a in (2, 1, 3) for b in ("x", "z", "y")]
    top = mill.from_iter(rows).top_n(4, by=[col("a") % 2, "b"], descending=[False, True]).collect(parallelism=2)
    assert [(row["a"], row["b"]) for row in sorted(top.to_pylist(), key=lambda row: row["rank"])] == [
        (2, "z"), (2, "y"), (2, "x"), (1, "z")
    ]


def timed(seed, rows=400):
    rng = random.Random(seed)
    found, second = [], 0
    for number in range(rows):
        second += rng.randrange(3)
        at = EPOCH + timedelta(seconds=max(0, second - rng.randrange(40)))
        found.append({"at": at, "item": rng.randrange(3), "price": rng.randrange(9), "who": number})
    return found


def watermarks(rows, bound):
    """Give the watermark that each row met, in seconds; one split."""
    latest, found = None, []
    for row in rows:
        found.append(float("-inf") if latest is None else (latest - EPOCH).total_seconds() - bound)
        latest = row["at"] if latest is None else max(latest, row["at"])
    return found


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_each_window_has_its_own_first_rows(parallelism):
    rows = timed(parallelism)
    stream = mill.from_iter(rows).event_time("at", watermark="20s").key_by("item")
    for window, size, slide in [(mill.tumbling("30s"), 30, 30), (mill.sliding("30s", slide="10s"), 30, 10)]:
        for lateness in (0, 10):
            top = stream.top_n(2, by="price", within=window, allowed_lateness=f"{lateness}s")
            expected, late = {}, []
            for row, watermark in zip(rows, watermarks(rows, 20), strict=True):
                second = int((row["at"] - EPOCH).total_seconds())
                starts = range(second // slide * slide - size + slide, second + 1, slide)
                # Times are whole microseconds, so the last one of a window is one of them before its end.
                starts = [start for start in starts if start <= second < start + size]
                is_open = [start for start in starts if watermark <= start + size - 1e-6 + lateness]
                if not is_open:
                    late.append(row["who"])
                for start in is_open:
                    expected.setdefault((row["item"], start), []).append(row)
            wanted = {}
            for (item, start), of_window in expected.items():
                of_window.sort(key=lambda row: -row["price"])
                for place, row in enumerate(of_window[:2], start=1):
                    end = EPOCH + timedelta(seconds=start + size)
                    wanted[item, start, place] = {**row, "window_start": EPOCH + timedelta(seconds=start), "window_end": end}
            found = {}
            for row in top.collect(parallelism=parallelism).to_pylist():
                start = int((row["window_start"] - EPOCH).total_seconds())
                found[row["item"], start, row.pop("rank")] = row
            assert found == wanted
            assert sorted(row["who"] for row in top.late.collect(parallelism=parallelism).to_pylist()) == sorted(late)


def test_mistakes_about_top_n():
    rows = mill.from_iter([{"k": 1, "x": 2, "tags": ["a"]}])
    keyed = rows.key_by("k")
    for n in (0, 10_001):
        with pytest.raises(mill.PlanError, match=f"keeps from 1 to 10000 rows a key, found {n}"):
            keyed.top_n(n, by="x")
    with pytest.raises(mill.PlanError, match="takes a number of rows, not '3'"):
        keyed.top_n("3", by="x")
    with pytest.raises(mill.PlanError, match="needs a column to sort by"):
        keyed.top_n(3, by=[])
    with pytest.raises(mill.PlanError, match="sorts by a column, an expression or several"):
        keyed.top_n(3, by=5)
    with pytest.raises(mill.SchemaError, match='no column "y"|"y"'):
        keyed.top_n(3, by="y")
    with pytest.raises(mill.SchemaError, match="top_n\\(\\) sorts by numbers, texts, times and truth values"):
        keyed.top_n(3, by="tags")
    with pytest.raises(mill.PlanError, match="one of them for each of the 2 columns of by"):
        keyed.top_n(3, by=["x", "k"], descending=[True])
    with pytest.raises(mill.PlanError, match="needs event time"):
        keyed.top_n(3, by="x", within=mill.tumbling("1s"))
    with pytest.raises(mill.PlanError, match="needs the windows of within"):
        keyed.top_n(3, by="x", allowed_lateness="1s")
    with pytest.raises(mill.PlanError, match="a window emits its rows once"):
        keyed.top_n(3, by="x", within=mill.tumbling("1s"), emit="each")
    with pytest.raises(mill.PlanError, match='adds a column "rank" and there is one already.*rename'):
        rows.rename({"x": "rank"}).key_by("k").top_n(3, by="rank")
    updating = keyed.agg(n=mill.count(), emit="each")
    with pytest.raises(mill.PlanError, match="does not take an updating stream"):
        updating.top_n(3, by="n")


# -- deduplicate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_the_first_row_of_each_key_passes(parallelism):
    rng = random.Random(parallelism)
    rows = [{"id": rng.choice([None, 1, 2, 3, 70]), "name": rng.choice("ab"), "n": n} for n in range(300)]
    first = {}
    for row in rows:
        first.setdefault((row["id"], row["name"]), row)
    found = mill.from_iter(rows).key_by("id", "name").deduplicate().collect(parallelism=parallelism).to_pylist()
    assert sorted(found, key=lambda row: row["n"]) == sorted(first.values(), key=lambda row: row["n"])


def near(rows, within, bound):
    """Give the rows that pass and those that are late; nothing is ever forgotten."""
    passed, found, late = {}, [], []
    for row, watermark in zip(rows, watermarks(rows, bound), strict=True):
        second = (row["at"] - EPOCH).total_seconds()
        if second < watermark:
            late.append(row["who"])
        elif all(abs(second - other) >= within for other in passed.setdefault(row["item"], [])):
            passed[row["item"]].append(second)
            found.append(row["who"])
    return found, late


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_a_row_passes_unless_a_near_one_has(parallelism):
    for within in (1, 15, 60):
        rows = timed(parallelism + within)
        stream = mill.from_iter(rows).event_time("at", watermark="25s").key_by("item")
        passing = stream.deduplicate(within=f"{within}s")
        found, late = near(rows, within, 25)
        assert late, "some rows are late"
        assert sorted(row["who"] for row in passing.collect(parallelism=parallelism).to_pylist()) == found
        assert sorted(row["who"] for row in passing.late.collect(parallelism=parallelism).to_pylist()) == sorted(late)


def test_rows_pass_once_over_crashes(tmp_path):
    for seed in range(4):
        rows = timed(seed, rows=300)
        source = mill.from_iter(rows)
        path = tmp_path / f"{seed}.db"

        def job(source=source, path=path):
            passing = source.event_time("at", watermark="25s").key_by("item").deduplicate(within="20s")
            return passing.select("who").write_sqlite(path, "rows")

        crashed(job, seed, tmp_path / str(seed))
        found, _ = near(rows, 20, 25)
        assert sorted(who for (who,) in table(path, "rows")) == found


def test_mistakes_about_deduplicate():
    keyed = mill.from_iter([{"k": 1}]).key_by("k")
    with pytest.raises(mill.PlanError, match="needs event time"):
        keyed.deduplicate(within="1h")
    with pytest.raises(mill.PlanError, match="within must be a positive duration"):
        keyed.deduplicate(within="0s")
    with pytest.raises(mill.PlanError):
        keyed.deduplicate(within=5)


# -- what is kept --------------------------------------------------------------------------------------------------------


def test_state_can_be_read_and_plans_tell_what_is_kept(tmp_path):
    rows = [{"at": EPOCH + timedelta(seconds=n), "item": n % 2, "price": n, "who": f"bidder {n}"} for n in range(50)]
    stream = mill.from_iter(rows).event_time("at")
    keyed = stream.key_by("item")
    jobs = {
        "top": keyed.top_n(2, by="price", emit="checkpoint").name("top").write_sqlite(tmp_path / "a.db", "t", key=["item", "rank"]),
        "windows": keyed.top_n(2, by="price", within=mill.tumbling("20s")).name("windows").write_csv(tmp_path / "b"),
        "first": keyed.deduplicate().name("first").write_csv(tmp_path / "c"),
        "within": keyed.deduplicate(within="15s").name("within").write_csv(tmp_path / "d"),
        "changes": keyed.agg(n=mill.count(), emit="each").to_changelog().name("changes").write_csv(tmp_path / "e"),
    }
    found = {}
    for name, job in jobs.items():
        # A simulated job that is left before its end has checkpoints of its open state.
        for steps in (60, 120, 240, 480):
            if testing.simulate(job, seed=3, checkpoint=str(tmp_path / name), steps=steps, frame_rows=4) is not None:
                break
        found[name] = mill.read_state(tmp_path / name, step=name)
    assert found["top"].schema.names == ["at", "item", "price", "who", "rank"]
    assert found["windows"].schema.names == ["at", "item", "price", "who", "window_start", "window_end", "rank"]
    assert found["first"].schema.names == ["item"]
    assert found["within"].schema.names == ["item", "passed_at"]
    assert found["changes"].schema.names == ["item", "n"]
    assert sorted(row["item"] for row in found["first"].to_pylist()) == [0, 1]
    plan = keyed.top_n(2, by="price", emit="each").to_changelog().explain()
    assert "keeps 2 rows a key" in plan
    assert "keeps the latest row of each key" in plan
    assert "keeps every key for ever" in keyed.deduplicate().explain()
    assert 'keeps a key until the watermark is "30s" after its row' in keyed.deduplicate(within="15s").explain()
