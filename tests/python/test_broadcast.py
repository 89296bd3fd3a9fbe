"""Broadcast state of process functions: the same in every task, at any parallelism and over restarts; and mistakes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from process_runs import at, run_through_restarts

import millstream as mill
from millstream import col, lit, testing
from millstream.errors import PlanError, UserFunctionError

RULE, ROW = {"name": str, "least": int}, {"k": str, "x": int}
HIT = {"k": str, "x": int, "rules": list[str], "n": int}


class Match(mill.ProcessFunction):
    """Which rules a record fulfils, and how many records of its key there were before."""

    rules = mill.MapState(str, int, broadcast=True)
    count = mill.ValueState(int, default=0, broadcast=True)
    seen = mill.ValueState(int, default=0)

    def process_broadcast(self, row: Any, ctx: Any) -> None:
        self.count.value += 1
        if row.least is None:
            self.rules.pop(row.name, None)
        else:
            self.rules[row.name] = row.least

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"k": ctx.key, "x": row.x, "rules": [n for n, least in self.rules.items() if row.x >= least], "n": self.seen.value}
        self.seen.value += 1


RULES = [{"name": f"r{n % 7}", "least": None if n % 5 == 4 else n} for n in range(40)]
ROWS = [{"k": "abcdef"[n % 6], "x": n % 50} for n in range(300)]


def expected() -> list[dict[str, Any]]:
    rules: dict[str, int] = {}
    for rule in RULES:
        if rule["least"] is None:
            rules.pop(rule["name"], None)
        else:
            rules[rule["name"]] = rule["least"]
    seen: dict[str, int] = {}
    out = []
    for row in ROWS:
        n = seen.get(row["k"], 0)
        out.append(row | {"rules": [name for name, least in rules.items() if row["x"] >= least], "n": n})
        seen[row["k"]] = n + 1
    return out


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["k"], row["n"]))


def matched(rules: Any = None) -> mill.Stream:
    rules = mill.from_iter(RULES, schema=RULE) if rules is None else rules
    return mill.from_iter(ROWS).key_by("k").process(Match(), schema=HIT, broadcast=rules)


@pytest.mark.parametrize("parallelism", [1, 2, 5])
def test_a_bounded_stream_is_there_before_the_first_record(parallelism: int) -> None:
    assert in_order(testing.collect(matched(), parallelism=parallelism, seed=parallelism)) == in_order(expected())


def test_the_whole_job_does_the_same() -> None:
    assert in_order(matched().collect(parallelism=2).to_pylist()) == in_order(expected())


@pytest.mark.parametrize("seed", range(6))
def test_restarts_at_other_parallelisms_change_nothing(seed: int, tmp_path: Any) -> None:
    assert in_order(run_through_restarts(matched, seed, tmp_path)) == in_order(expected())


@pytest.mark.parametrize("seed", range(6))
def test_keyed_records_are_kept_where_their_source_cannot_wait(seed: int, tmp_path: Any) -> None:
    """The rules are made of the very stream that they are for."""

    def declare() -> mill.Stream:
        rows = mill.from_iter(ROWS)
        rules = rows.filter(col("x") < 3).select(name=col("k"), least=col("x") * 10)
        return rows.key_by("k").process(Match(), schema=HIT, broadcast=rules)

    rules = {row["k"]: row["x"] * 10 for row in ROWS if row["x"] < 3}
    assert "keeps keyed records until the broadcast stream has ended" in declare().explain()
    for row in run_through_restarts(declare, seed, tmp_path):
        assert sorted(row["rules"]) == sorted(name for name, least in rules.items() if row["x"] >= least)


def test_an_unbounded_stream_is_seen_as_it_comes_and_survives_kills() -> None:
    rules, rows = testing.Source(RULE), testing.Source(ROW)
    hits = rows.stream().key_by("k").process(Match(), schema=HIT, broadcast=rules.stream())
    with testing.Job(hits, parallelism=3) as job:
        rows.push({"k": "a", "x": 5})
        assert [row["rules"] for row in job.collect()] == [[]]
        rules.push({"name": "one", "least": 1}, {"name": "nine", "least": 9})
        job.run()
        rows.push(*({"k": k, "x": 5} for k in "abcdefgh"))
        assert [row["rules"] for row in job.collect()] == [["one"]] * 8
        for parallelism in (1, 5, 2):
            job.kill_and_restore(parallelism=parallelism)
            rows.push(*({"k": k, "x": 12} for k in "abcdefgh"))
            assert [row["rules"] for row in job.collect()] == [["one", "nine"]] * 8
        rules.push({"name": "nine", "least": None})
        job.run()
        rows.push(*({"k": k, "x": 12} for k in "abcdefgh"))
        assert [row["rules"] for row in job.collect()] == [["one"]] * 8
        rows.end()
        rules.end()


class Late(mill.ProcessFunction):
    names = mill.ValueState(list[str], default=[], broadcast=True)

    def process_broadcast(self, row: Any, ctx: Any) -> None:
        self.names.value = [*self.names.value, f"{row.name} {ctx.timestamp and ctx.timestamp.second}"]

    def process(self, row: Any, ctx: mill.ProcessContext) -> None:
        ctx.timers.event_time(row.at)

    def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"k": ctx.key, "at": at, "names": self.names.value}


def test_time_is_the_lesser_one_of_both_streams() -> None:
    rules, rows = testing.Source({"name": str, "at": datetime}), testing.Source({"k": str, "at": datetime})
    timed = rules.stream().event_time("at")
    late = rows.stream().event_time("at").key_by("k").process(Late(), schema={"k": str, "at": datetime, "names": list[str]}, broadcast=timed)
    with testing.Job(late, parallelism=2) as job:
        rows.push({"k": "a", "at": at(1)}, {"k": "b", "at": at(50)})
        assert job.collect() == []
        rules.push({"name": "x", "at": at(2)})
        assert job.collect() == [{"k": "a", "at": at(1), "names": ["x 2"]}]
        job.kill_and_restore(parallelism=3)
        rows.push({"k": "a", "at": at(60)})
        rules.push({"name": "y", "at": at(55)})
        assert job.collect() == [{"k": "b", "at": at(50), "names": ["x 2", "y 55"]}]
        rules.end()
        rows.end()
        assert [row["names"] for row in job.collect()] == [["x 2", "y 55"]]


def test_a_stream_without_event_time_does_not_hold_time_back() -> None:
    rules, rows = testing.Source({"name": str}), testing.Source({"k": str, "at": datetime})
    late = rows.stream().event_time("at").key_by("k").process(Late(), schema={"k": str, "at": datetime, "names": list[str]}, broadcast=rules.stream())
    with testing.Job(late, parallelism=2) as job:
        rules.push({"name": "x"})
        job.run()
        rows.push({"k": "a", "at": at(1)}, {"k": "b", "at": at(50)})
        assert job.collect() == [{"k": "a", "at": at(1), "names": ["x None"]}]
        rows.end()
        assert [row["k"] for row in job.collect()] == ["b"]
        rules.end()


def test_connected_streams_have_one_too() -> None:
    class Both(mill.ProcessFunction):
        factor = mill.ValueState(int, broadcast=True)

        def process_broadcast(self, row: Any, ctx: Any) -> None:
            self.factor.value = row.factor

        def process_left(self, row: Any, ctx: Any) -> Iterator[Any]:
            yield {"y": row.x * self.factor.value}

        def process_right(self, row: Any, ctx: Any) -> Iterator[Any]:
            yield {"y": -row.x * self.factor.value}

    left, right = ([{"k": n % 3, "x": n} for n in range(10)] for _ in range(2))
    both = mill.from_iter(left).key_by("k").connect(mill.from_iter(right).key_by("k"))
    found = both.process(Both(), schema={"y": int}, broadcast=mill.from_iter([{"factor": 7}])).collect(parallelism=2)
    assert sorted(found["y"]) == sorted([n * 7 for n in range(10)] + [-n * 7 for n in range(10)])


# -- mistakes --------------------------------------------------------------------------------------------------------------


def job_of(function: mill.ProcessFunction, broadcast: Any = None) -> mill.Stream:
    rules = mill.from_iter([{"name": "r", "least": 1}], schema=RULE) if broadcast is None else broadcast
    return mill.from_iter(ROWS[:3]).key_by("k").process(function, schema=HIT, broadcast=rules)


def made(**members: Any) -> mill.ProcessFunction:
    kind: type[mill.ProcessFunction] = type("Made", (Match,), members)
    return kind()


class Latest(mill.ProcessFunction):
    """What the latest rule of a key says, and which keys have one."""

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        rule = ctx.broadcast.get((row.k, row.x % 3))
        yield {"k": ctx.key, "x": row.x, "least": None if rule is None else rule.least, "n": len(ctx.broadcast)}


LATEST = {"k": str, "x": int, "least": int, "n": int}
OF_KEYS = [{"name": "abc"[n % 3] if n % 4 else None, "m": n % 3, "least": n, "is_gone": n % 5 == 0} for n in range(60)]


@pytest.mark.parametrize("form", ["key_by", "changelog", "agg"])
def test_the_latest_rows_of_a_stream_with_a_key(form: str, tmp_path: Path) -> None:
    of_rules = mill.from_iter(OF_KEYS)
    latest: dict[Any, int] = {}
    for rule in OF_KEYS:
        key = rule["name"], rule["m"]
        if form == "changelog" and rule["is_gone"]:
            latest.pop(key, None)
        elif form == "agg":
            latest[key] = max(latest.get(key, 0), rule["least"])
        else:
            latest[key] = rule["least"]
    if form == "key_by":
        rules: Any = of_rules.key_by("name", "m")
    elif form == "changelog":
        changes = of_rules.with_columns(op=mill.when(col("is_gone")).then(lit("delete")).otherwise(lit("update"))).drop("is_gone")
        rules = mill.from_changelog(changes, key=["name", "m"])
    else:
        rules = of_rules.key_by("name", "m").agg(least=col("least").max(), emit="each")
    wanted = [row | {"least": latest.get((row["k"], row["x"] % 3)), "n": len(latest)} for row in ROWS]
    for parallelism in (1, 3):
        found = mill.from_iter(ROWS).key_by("k").process(Latest(), schema=LATEST, broadcast=rules)
        assert in_order(found.collect(parallelism=parallelism).to_pylist()) == in_order(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_latest_rows_survive_kills_and_other_parallelisms(seed: int, tmp_path: Path) -> None:
    def flow(folder: Path) -> mill.Output:
        rules = mill.generate(rows=40, name=mill.index() % 5, least=mill.index())
        rows = mill.generate(rows=4000, k=mill.index() % 7, x=mill.index())
        found = rows.key_by("k").process(Seen(), schema={"x": int, "least": int}, broadcast=rules.key_by("name"))
        return found.write_csv(folder / "out")

    checkpoint = mill.Checkpoint(tmp_path / "state", every="1ms")
    for number, parallelism in enumerate((2, 1, 3)):
        testing.simulate(flow(tmp_path), seed=seed + 10 * number, steps=300 + 200 * seed, checkpoint=checkpoint, parallelism=parallelism)
    mill.run(flow(tmp_path), checkpoint=checkpoint, parallelism=2)
    rows = mill.read_csv(tmp_path / "out").collect().to_pylist()
    assert sorted(row["x"] for row in rows) == list(range(4000))
    assert all(row["least"] == 35 + row["x"] % 5 for row in rows)


class Seen(mill.ProcessFunction):
    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"x": row.x, "least": ctx.broadcast[row.x % 5].least}


def test_latest_rows_of_plain_values_are_not_copied() -> None:
    class Asks(mill.ProcessFunction):
        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            latest, nan = ctx.broadcast, float("nan")
            assert (1.0 in latest, nan in latest, 3.0 in latest, None in latest) == (True, True, False, False)
            yield {"same": latest[1.0] is latest[1.0] and latest.get(nan) is latest[nan]}

    rows = mill.from_iter([{"k": 1}]).key_by("k")
    plain = mill.from_iter([{"id": 1.0, "v": "a"}, {"id": float("nan"), "v": "b"}]).key_by("id")
    assert rows.process(Asks(), schema={"same": bool}, broadcast=plain).collect()["same"] == [True]
    # A list could be changed in place.
    lists = mill.from_iter([{"id": 1.0, "v": ["a"]}, {"id": float("nan"), "v": ["b"]}]).key_by("id")
    assert rows.process(Asks(), schema={"same": bool}, broadcast=lists).collect()["same"] == [False]


def test_latest_rows_are_only_read() -> None:
    class Spoils(mill.ProcessFunction):
        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            ctx.broadcast[1].v.append(7)
            yield {"v": ctx.broadcast[1].v, "nan": ctx.broadcast.get(float("nan")) is not None}

    class Writes(mill.ProcessFunction):
        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            ctx.broadcast[1] = row
            yield {"v": []}

    rows = mill.from_iter([{"k": 1}]).key_by("k")
    rules = mill.from_iter([{"id": 1.0, "v": [1]}, {"id": float("nan"), "v": [2]}, {"id": float("nan"), "v": [3]}])
    assert rows.process(Spoils(), schema={"v": list[int], "nan": bool}, broadcast=rules.key_by("id")).collect().to_pylist() == [
        {"v": [1], "nan": True}
    ]
    with pytest.raises(UserFunctionError, match="does not support item assignment"):
        rows.process(Writes(), schema={"v": list[int]}, broadcast=rules.key_by("id")).collect()
    with pytest.raises(PlanError, match=r'pass a stream with a key, as in broadcast=rules.key_by\("id"\)'):
        rows.process(Spoils(), schema={"v": list[int], "nan": bool}, broadcast=rules)
    with pytest.raises(UserFunctionError, match="ctx.broadcast has the latest rows of broadcast="):
        rows.process(Spoils(), schema={"v": list[int], "nan": bool}).collect()
    with pytest.raises(PlanError, match="leave that out, or pass broadcast=rules.to_changelog"):
        keyed = mill.from_iter([{"name": "a", "least": 1}]).key_by("name").agg(least=col("least").max(), emit="each")
        mill.from_iter(ROWS).key_by("k").process(Match(), schema=HIT, broadcast=keyed)


def test_mistakes_are_found_at_the_line_that_makes_them() -> None:
    rows = mill.from_iter(ROWS).key_by("k")
    with pytest.raises(mill.PlanError, match=r"Match declares broadcast state 'rules', and process\(\) has no broadcast= stream"):
        rows.process(Match(), schema=HIT)
    with pytest.raises(mill.PlanError, match="takes a stream without key_by"):
        job_of(Match(), mill.from_iter(RULES, schema=RULE).key_by("name"))
    with pytest.raises(mill.PlanError, match="broadcast= takes a stream, as in"):
        job_of(Match(), RULES)

    class Plain(mill.ProcessFunction):
        def process(self, row: Any, ctx: Any) -> None:
            pass

    class NoState(Plain):
        def process_broadcast(self, row: Any, ctx: Any) -> None:
            pass

    with pytest.raises(mill.PlanError, match=r"Plain does not define process_broadcast\(self, row, ctx\)"):
        job_of(Plain())
    with pytest.raises(mill.PlanError, match=r"NoState declares no state that process_broadcast\(\) could write"):
        job_of(NoState())
    with pytest.raises(mill.PlanError, match=r"NoState defines process_broadcast\(\), and process\(\) has no broadcast= stream"):
        rows.process(NoState(), schema=HIT)
    with pytest.raises(mill.PlanError, match=r"process_broadcast\(\) of Made yields records"):

        def process_broadcast(self: Any, row: Any, ctx: Any) -> Iterator[Any]:
            yield row

        job_of(made(process_broadcast=process_broadcast))
    with pytest.raises(mill.PlanError, match="broadcast state takes no ttl="):
        mill.MapState(str, int, broadcast=True, ttl="1h")
    with pytest.raises(mill.PlanError, match='broadcast state "count" holds Python objects'):
        job_of(made(count=mill.ValueState(object, broadcast=True)))
    latest = mill.from_iter(RULES, schema=RULE).key_by("name").agg(least=col("least").max(), emit="each")
    with pytest.raises(mill.PlanError, match="broadcast= is an updating stream, whose latest rows are in ctx.broadcast"):
        job_of(Match(), latest)


def fails(function: mill.ProcessFunction, pattern: str, **options: Any) -> None:
    with pytest.raises(mill.UserFunctionError, match=pattern):
        job_of(function).collect(**options)


def test_only_the_method_for_it_writes_broadcast_state() -> None:
    def set_value(self: Any, row: Any, ctx: Any) -> None:
        self.count.value = 1

    def set_entry(self: Any, row: Any, ctx: Any) -> None:
        self.rules["x"] = 1

    for process in (set_value, set_entry):
        fails(made(process=process), r"is broadcast state: process_broadcast\(\) alone can write it")


def test_what_is_read_is_a_copy() -> None:
    class Lists(mill.ProcessFunction):
        names = mill.ValueState(list[str], default=["d"], broadcast=True)
        sizes = mill.MapState(str, list[int], broadcast=True)

        def process_broadcast(self, row: Any, ctx: Any) -> None:
            self.sizes[row.name] = [row.least]

        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            self.names.value.append("seen")
            self.sizes["r"].append(2)
            yield {"names": self.names.value, "sizes": self.sizes["r"]}

    rules = mill.from_iter([{"name": "r", "least": 1}], schema=RULE)
    found = mill.from_iter(ROWS[:2]).key_by("k").process(Lists(), schema={"names": list[str], "sizes": list[int]}, broadcast=rules)
    assert found.collect().to_pylist() == [{"names": ["d"], "sizes": [1]}] * 2


def test_a_broadcast_record_has_no_key_and_emits_nothing() -> None:
    def uses(name: str) -> Any:
        return lambda self, row, ctx: getattr(ctx, name)

    for name, why in (
        ("key", "of no key"),
        ("timers", "belongs to a key"),
        ("now", "the clock"),
        ("watermark", "ahead"),
        ("side_output", "emits nothing"),
    ):
        fails(made(process_broadcast=uses(name)), rf"ctx.{name} does not exist in process_broadcast\(\): .*{why}")
    fails(made(process_broadcast=lambda self, row, ctx: self.seen.value), "state 'seen' belongs to a key")
    fails(made(process_broadcast=lambda self, row, ctx: [row]), r"process_broadcast\(\) returned a list")


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_an_error_in_it_fails_the_job_and_names_the_record(on_error: Any) -> None:
    def process_broadcast(self: Any, row: Any, ctx: Any) -> None:
        raise ValueError("no such rule")

    function = made(process_broadcast=process_broadcast)
    fails(function, r'(?s)process\(Made\).*no such rule.*every task calls.*record: \{"name":"r","least":1\}', on_error=on_error)


def test_states_may_be_added_and_others_are_refused(tmp_path: Path) -> None:
    class More(Match):
        more = mill.ValueState(str, default="new", broadcast=True)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"k": ctx.key, "x": row.x, "rules": [*self.rules, self.more.value], "n": self.count.value}

    class Other(Match):
        rules = mill.MapState(str, str, broadcast=True)  # type: ignore[assignment]

    class Less(Match):
        count = None  # type: ignore[assignment]

        def process_broadcast(self, row: Any, ctx: Any) -> None: ...

    def rows(start: int) -> Iterator[Any]:
        yield from [{"k": "a", "x": x} for x in range(start, 2)]
        if not (tmp_path / "go").exists():
            while not any(found.id > 1 for found in mill.checkpoints(tmp_path / "state")):
                time.sleep(0.005)
            raise RuntimeError("stop here")
        yield from [{"k": "a", "x": x} for x in range(max(start, 2), 4)]

    def run(function: mill.ProcessFunction) -> list[Any]:
        stream = mill.from_iter(rows, schema=ROW).key_by("k")
        hits = stream.process(function, schema=HIT, broadcast=mill.from_iter(RULES[:2], schema=RULE))
        mill.run(hits.write_json(tmp_path / "out"), checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
        return mill.read_json(str(tmp_path / "out"), schema=HIT).collect().to_pylist()

    with pytest.raises(mill.MillstreamError, match="stop here"):
        run(Match())
    (tmp_path / "go").touch()
    with pytest.raises(mill.CheckpointError, match='state "rules" holds int64 and would hold str'):
        run(Other())
    with pytest.raises(mill.CheckpointError, match='state "count" is in it, and the function keeps it no more'):
        run(Less())
    later = [row for row in run(More()) if row["x"] >= 2]
    assert [(row["rules"], row["n"]) for row in later] == [(["r0", "r1", "new"], 2)] * 2


def test_explain_shows_it() -> None:
    text = matched().explain()
    assert "broadcast" in text
    assert "keeps map rules (str to int64), value count (int64, default 0) in every task; the keyed stream is read once" in text


def test_a_bounded_stream_of_many_files_has_the_same_latest_rows_each_time(tmp_path: Path) -> None:
    for file in range(8):
        # The first file is the longest, so that tasks that read side by side would end with it.
        (tmp_path / f"{file}.csv").write_text("name,least\n" + f"r,{file}\n" * (20_000 if file == 0 else 1))
    rules = mill.read_csv(tmp_path, schema=RULE).with_columns(name=col("name").str.to_uppercase())

    class Read(mill.ProcessFunction):
        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            yield {"least": ctx.broadcast["R"].least}

    latest = mill.from_iter(ROWS).key_by("k").process(Read(), schema={"least": int}, broadcast=rules.key_by("name"))
    for _ in range(5):
        assert set(latest.collect(parallelism=4)["least"]) == {7}


def test_a_stream_from_many_tasks_reaches_all_in_one_order() -> None:
    """Two tasks write the rules: whoever wrote last must be the same in every task."""

    class Last(mill.ProcessFunction):
        last = mill.ValueState(int, broadcast=True)

        def process_broadcast(self, row: Any, ctx: Any) -> None:
            self.last.value = row.x

        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            yield {"last": self.last.value}

    for seed in range(8):
        rules = mill.from_iter([{"x": x} for x in range(50)]).rebalance().map(lambda row: {"x": row.x}, schema={"x": int})
        rows = mill.from_iter([{"k": k} for k in range(40)])
        last = rows.key_by("k").process(Last(), schema={"last": int}, broadcast=rules)
        found = testing.collect(last, parallelism=5, seed=seed)
        assert len(found) == 40
        assert len({row["last"] for row in found}) == 1
