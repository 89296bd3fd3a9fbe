"""Process functions: states, outputs, errors, changes and mistakes, against plain Python."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from process_runs import SECOND, at, keyed, run_through_restarts, seconds

import millstream as mill
from millstream import testing


def of_key(rows: list[dict[str, Any]], key: Any) -> list[dict[str, Any]]:
    return [row for row in rows if row["k"] == key]


class Sum(mill.ProcessFunction):
    total = mill.ValueState(int, default=0)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        self.total.value += row.x
        yield {"k": ctx.key, "total": self.total.value}


SUM = {"k": str, "total": int}


# -- states ----------------------------------------------------------------------------------------------------------------


def test_a_value_is_kept_of_each_key() -> None:
    rows = [{"k": k, "x": x} for x, k in enumerate("abcabca" * 1000)]
    result = keyed(rows).process(Sum(), schema=SUM).collect(parallelism=2).to_pylist()
    expected: list[dict[str, Any]] = []
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["k"]] = totals.get(row["k"], 0) + row["x"]
        expected.append({"k": row["k"], "total": totals[row["k"]]})
    for key in "abc":
        assert of_key(result, key) == of_key(expected, key)


class Kinds(mill.ProcessFunction):
    mutable = mill.ValueState(list[int], default=[])
    anything = mill.ValueState(object)
    items = mill.ListState(str)
    seen = mill.MapState(str, int)
    top = mill.ReducingState(float, max)
    moment = mill.ValueState(datetime)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        self.mutable.value.append(row.x)
        self.anything.value = {"last": row.x, "before": self.anything.value and self.anything.value["last"]}
        self.items.add(str(row.x))
        self.seen[f"m{row.x % 2}"] = self.seen.get(f"m{row.x % 2}", 0) + 1
        self.top.add(float(row.x))
        self.moment.value = at(row.x)
        yield {
            "k": ctx.key,
            "mutable": self.mutable.value,
            "before": self.anything.value["before"],
            "items": self.items.get(),
            "seen": sorted(self.seen.items()),
            "top": self.top.value,
            "moment": self.moment.value,
        }


KINDS = {
    "k": str, "mutable": list[int], "before": int, "items": list[str], "seen": object, "top": float, "moment": datetime,
}  # fmt: skip


def test_every_kind_of_state_lasts_over_restarts(tmp_path: Path) -> None:
    rows = [{"k": k, "x": x} for x, k in enumerate("abcab" * 12)]
    stream = keyed(rows).process(Kinds(), schema=KINDS)
    result = run_through_restarts(
        lambda: stream.map(lambda row: {"row": repr(row.asdict())}, schema={"row": str}), 5, tmp_path
    )
    expected = []
    state: dict[str, list[int]] = {}
    for row in rows:
        xs = state.setdefault(row["k"], [])
        xs.append(row["x"])
        seen: dict[str, int] = {}
        for x in xs:
            seen[f"m{x % 2}"] = seen.get(f"m{x % 2}", 0) + 1
        expected.append(
            {
                "k": row["k"],
                "mutable": list(xs),
                "before": xs[-2] if len(xs) > 1 else None,
                "items": [str(x) for x in xs],
                "seen": sorted(seen.items()),
                "top": float(max(xs)),
                "moment": at(xs[-1]),
            }
        )
    assert sorted(row["row"] for row in result) == sorted(repr(row) for row in expected)


def test_maps_are_mappings_and_lists_are_lists() -> None:
    class Used(mill.ProcessFunction):
        seen = mill.MapState(str, int)
        items = mill.ListState(int)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            if row.x == 0:
                self.seen.update({"a": 1, "b": 2, "c": 3})
                self.items.extend([1, 2, 3])
                return
            assert "b" in self.seen and "z" not in self.seen
            assert len(self.seen) == 3 and list(self.seen) == ["a", "b", "c"]
            assert self.seen.pop("a") == 1 and self.seen.setdefault("d", 4) == 4
            del self.seen["b"]
            with pytest.raises(KeyError):
                self.seen["b"]
            assert self.items[0] == 1 and self.items[1:] == [2, 3] and 3 in self.items and len(self.items) == 3
            self.items.set(x * 2 for x in self.items)
            yield {"seen": dict(self.seen), "items": list(self.items)}
            self.seen.clear()
            self.items.clear()
            assert not len(self.seen) and not self.items.get()

    rows = [{"k": 1, "x": 0}, {"k": 1, "x": 1}]
    result = keyed(rows).process(Used(), schema={"seen": object, "items": list[int]}).collect().to_pylist()
    assert result == [{"seen": {"c": 3, "d": 4}, "items": [2, 4, 6]}]


def test_a_value_of_none_is_no_value() -> None:
    class Clears(mill.ProcessFunction):
        last = mill.ValueState(int, default=7)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"before": self.last.value}
            self.last.value = row.x

    rows = [{"k": 1, "x": x} for x in (1, None, 2, 0, 3)]
    result = mill.from_iter(rows, schema={"k": int, "x": int}).key_by("k").process(Clears(), schema={"before": int})
    assert [row["before"] for row in result.collect().to_pylist()] == [7, 1, 7, 2, 0]


# -- age -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refresh", ["write", "read"])
def test_a_value_whose_age_has_come_to_its_ttl_is_not_returned(refresh: Any) -> None:
    class Aged(mill.ProcessFunction):
        value = mill.ValueState(int, default=-1, ttl="10s", refresh=refresh)
        items = mill.ListState(int, ttl="10s", refresh=refresh)
        seen = mill.MapState(int, int, ttl="10s", refresh=refresh)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            if row.x is None:
                yield {
                    "value": self.value.value,
                    "items": self.items.get(),
                    "seen": [self.seen.get(x) for x in range(3)],
                }
            else:
                self.value.value = row.x
                self.items.add(row.x)
                self.seen[row.x] = row.x

    steps = [(0, 0), (5, 1), (9, None), (10, None), (14, None), (15, None), (30, 2), (39, None), (45, None)]
    rows = [{"k": 1, "at": at(t), "x": x} for t, x in steps]
    stream = mill.from_iter(rows, schema={"k": int, "at": datetime, "x": int}).event_time("at").key_by("k")
    result = stream.process(Aged(), schema={"value": int, "items": list[int], "seen": list[int]}).collect().to_pylist()
    value: tuple[int, int] | None = None
    entries: dict[int, int] = {}
    expected = []
    for now, x in steps:
        entries = {entry: written for entry, written in entries.items() if now - written < 10}
        value = value if value is not None and now - value[1] < 10 else None
        if x is not None:
            value, entries[x] = (x, now), now
            continue
        expected.append(
            {
                "value": value[0] if value else -1,
                "items": sorted(entries),
                "seen": [x if x in entries else None for x in range(3)],
            }
        )
        if refresh == "read":
            value = (value[0], now) if value else None
            entries = dict.fromkeys(entries, now)
    assert result == expected


def test_memory_of_old_values_is_given_back(tmp_path: Path) -> None:
    class Aged(mill.ProcessFunction):
        value = mill.ValueState(int, ttl="10s")
        items = mill.ListState(int, ttl="20s")

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            self.value.value = row.x
            self.items.add(row.x)

    rows = [{"k": n, "at": at(n), "x": n} for n in range(500)]

    def sink() -> mill.Sink:
        return keyed(rows).process(Aged(), schema={"x": int}).name("aged").write_json(tmp_path / "out")

    sizes = []
    for start in range(1, 40):
        done = testing.simulate(
            sink(),
            seed=start,
            checkpoint=mill.Checkpoint(tmp_path / "state", every="1ms"),
            steps=60,
            frame_rows=10,
            parallelism=1,
        )
        if done:
            break
        if mill.checkpoints(tmp_path / "state"):
            sizes.append(len(mill.read_state(tmp_path / "state", step="aged")))
    assert sizes and max(sizes) <= 45, sizes


# -- outputs and errors ----------------------------------------------------------------------------------------------------


def test_results_have_the_time_of_their_record_or_timer() -> None:
    class Both(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            ctx.timers.event_time(row.at + 60 * SECOND)
            yield {"what": "record"}

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"what": "timer"}

    rows = [{"k": n % 3, "at": at(n)} for n in range(100)]
    windows = (
        keyed(rows)
        .process(Both(), schema={"what": str})
        .key_by("what")
        .window(mill.tumbling("50s"))
        .agg(n=mill.count())
    )
    found = sorted((row["what"], seconds(row["window_start"]), row["n"]) for row in windows.collect().to_pylist())
    assert found == [("record", 0, 50), ("record", 50, 50), ("timer", 50, 40), ("timer", 100, 50), ("timer", 150, 10)]


def test_what_a_failing_record_did_is_undone_and_the_record_is_routed() -> None:
    class Fails(mill.ProcessFunction):
        total = mill.ValueState(int, default=0)
        items = mill.ListState(int)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            self.total.value += row.x
            self.items.add(row.x)
            ctx.timers.event_time(row.at + row.x * SECOND)
            ctx.side_output("audit", {"x": row.x})
            yield {"k": ctx.key, "what": f"{self.total.value} {self.items.get()}"}
            if row.x == 3:
                raise ValueError("no threes")
            if row.x == 4:
                yield {"k": ctx.key, "what": 4}
            if row.x == 5:
                self.total.value = "five"  # type: ignore[assignment]

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"k": ctx.key, "what": f"timer {seconds(at)}"}
            if seconds(at) == 10 + 8:
                raise RuntimeError("no eights")

    rows = [{"k": "a", "x": x, "at": at(10)} for x in (1, 2, 3, 4, 5, 6, 3, 7, 8)]
    stream = keyed(rows).process(Fails(), schema={"k": str, "what": str}, side_outputs={"audit": {"x": int}})
    kept = [1, 2, 6, 7, 8]
    expected = [f"{sum(kept[:n])} {kept[:n]}" for n in range(1, 6)] + [f"timer {10 + x}" for x in kept if x != 8]
    assert [row["what"] for row in stream.collect(on_error="skip").to_pylist()] == expected
    assert [row["x"] for row in stream.side_output("audit").collect(on_error="skip").to_pylist()] == kept
    errors = stream.errors.collect(on_error="route").to_pylist()
    assert [row["step"] for row in errors] == ["process"] * 5
    first = next(row for row in errors if "no threes" in row["error"])
    assert "process(Fails) raised ValueError: no threes" in first["error"]
    assert '"k":"a","x":3' in first["record"]
    assert 'raise ValueError("no threes")' in first["traceback"]
    assert any('"what" is str and cannot hold 4' in row["error"] for row in errors)
    assert any("state \"total\" is int64 and cannot hold 'five'" in row["error"] for row in errors)
    assert any(json.loads(row["record"]).get("timer") == "2024-01-01T00:00:18" for row in errors)
    with pytest.raises(mill.UserFunctionError, match="no threes") as caught:
        stream.collect()
    assert isinstance(caught.value.__cause__, ValueError)


def test_each_instance_works_with_a_copy_of_its_own() -> None:
    opened: list[Any] = []
    closed: list[Any] = []

    class Copied(mill.ProcessFunction):
        def __init__(self) -> None:
            self.factor = 3

        def open(self) -> None:
            opened.append(self)

        def close(self) -> None:
            closed.append(self)

        def process(self, row: Any, ctx: mill.ProcessContext) -> list[Any]:
            assert any(self is one for one in opened)
            return [{"x": row.x * self.factor}]

    rows = [{"k": n, "x": n} for n in range(50)]
    result = keyed(rows).process(Copied(), schema={"x": int}).collect(parallelism=3).to_pylist()
    assert sorted(row["x"] for row in result) == [n * 3 for n in range(50)]
    assert len({id(one) for one in opened}) == 3
    assert len(closed) == 3


# -- looking into state, and changing it -----------------------------------------------------------------------------------


def test_read_state_shows_states_and_timers(tmp_path: Path) -> None:
    class Shown(mill.ProcessFunction):
        last = mill.ValueState(float)
        items = mill.ListState(int)
        seen = mill.MapState(str, int, ttl="1d")
        thing = mill.ValueState(object)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            if row.k != "timers":
                self.last.value = row.x / 2
                self.items.extend([row.x, row.x])
                self.seen["x"] = row.x
                self.thing.value = (row.x,)
            ctx.timers.event_time(at(1000 + row.x))
            ctx.timers.processing_time(datetime(2100, 1, 1, tzinfo=UTC))

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> None:
            pass

    path = tmp_path / "rows.json"
    path.write_text(
        "".join(f'{{"k": "{k}", "x": {x}, "at": "2024-01-01T00:00:00"}}\n' for k, x in [("a", 1), ("timers", 2)])
    )
    stream = (
        mill.read_json(str(path), schema={"k": str, "x": int, "at": datetime}, follow=True).event_time("at").key_by("k")
    )
    shown = stream.process(Shown(), schema={"x": int}).name("shown")
    text = shown.explain()
    assert "value last (float64)" in text and "map seen" in text and "pickled" in text
    job = mill.start(shown.write_json(tmp_path / "out"), checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"))
    import time

    until = time.monotonic() + 20
    rows: list[Any] = []
    while len(rows) < 2 and time.monotonic() < until:
        time.sleep(0.1)
        if mill.checkpoints(tmp_path / "state"):
            rows = mill.read_state(tmp_path / "state", step="shown").to_pylist()
    job.stop()
    job.wait("30s")
    rows.sort(key=lambda row: str(row["k"]))
    year = datetime(2100, 1, 1, tzinfo=UTC)
    assert rows == [
        {
            "k": "a",
            "last": 0.5,
            "items": [1, 1],
            "seen": [("x", 1)],
            "thing": (1,),
            "event_timers": [at(1001)],
            "processing_timers": [year],
        },
        {
            "k": "timers",
            "last": None,
            "items": None,
            "seen": None,
            "thing": None,
            "event_timers": [at(1002)],
            "processing_timers": [year],
        },
    ]


def changed(tmp_path: Path, first: mill.ProcessFunction, second: mill.ProcessFunction) -> list[Any]:
    """Run half of the records with one function and the rest with another, on one checkpoint."""
    path = tmp_path / "rows"
    path.mkdir(exist_ok=True)

    def run(function: mill.ProcessFunction, name: str, xs: range) -> None:
        (path / f"{name}.json").write_text("".join(f'{{"k": "a", "x": {x}}}\n' for x in xs))
        stream = mill.read_json(str(path), schema={"k": str, "x": int}, follow=True).key_by("k")
        sink = stream.process(function, schema={"what": str}).name("changed").write_json(tmp_path / "out")
        job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"), parallelism=1)
        import time

        until = time.monotonic() + 20
        while (
            job.metrics().rows_in < len(xs) and time.monotonic() < until and job.status.state in ("starting", "running")
        ):
            time.sleep(0.05)
        job.stop()
        job.wait("30s")

    run(first, "1", range(3))
    run(second, "2", range(3, 6))
    return [row["what"] for row in mill.read_json(str(tmp_path / "out"), schema={"what": str}).collect().to_pylist()]


class Before(mill.ProcessFunction):
    n = mill.ValueState(int, default=0)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        self.n.value += 1
        yield {"what": f"{self.n.value}"}


def test_a_state_that_is_added_begins_with_its_default(tmp_path: Path) -> None:
    class After(Before):
        more = mill.ValueState(str, default="new")
        items = mill.ListState(int)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            self.n.value += 1
            self.items.add(row.x)
            yield {"what": f"{self.n.value} {self.more.value} {self.items.get()}"}
            self.more.value = "old"

    assert sorted(changed(tmp_path, Before(), After())) == [
        "1",
        "2",
        "3",
        "4 new [3]",
        "5 old [3, 4]",
        "6 old [3, 4, 5]",
    ]


def test_a_state_that_is_gone_or_has_another_type_is_refused_by_name(tmp_path: Path) -> None:
    class Gone(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None: ...

    class Retyped(mill.ProcessFunction):
        n = mill.ValueState(str)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None: ...

    with pytest.raises(mill.CheckpointError, match=r'state "n" is in it'):
        changed(tmp_path, Before(), Gone())
    with pytest.raises(mill.CheckpointError, match=r'state "n" holds int64 and would hold str'):
        changed(tmp_path / "other", Before(), Retyped()) if (tmp_path / "other").mkdir() is None else None


# -- mistakes --------------------------------------------------------------------------------------------------------------


def test_mistakes_are_errors_where_the_function_is_declared() -> None:
    stream = mill.from_iter([{"k": "a", "x": 1}]).key_by("k")
    with pytest.raises(mill.PlanError, match=r"write Sum\(\)"):
        stream.process(Sum, schema=SUM)  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match="takes a mill.ProcessFunction"):
        stream.process(lambda row: row, schema=SUM)  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match="needs schema="):
        stream.process(Sum())
    with pytest.raises(mill.PlanError, match="ttl of a state"):
        mill.ValueState(int, ttl=5)  # type: ignore[call-overload]
    with pytest.raises(mill.SchemaError, match="the type of a ValueState"):
        mill.ValueState(threading_lock_type())
    with pytest.raises(mill.SchemaError, match="cannot have the default 'none'"):
        mill.ValueState(int, default="none")  # type: ignore[arg-type]
    assert repr(mill.ValueState(float, default=0)._default) == "0.0"
    with pytest.raises(mill.PlanError, match="the key of a MapState is a plain value"):
        mill.MapState(list[int], int)

    class Two(mill.ProcessFunction):
        first = second = mill.ValueState(int)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None: ...

    with pytest.raises(mill.PlanError, match="one state has two names, 'first' and 'second'"):
        stream.process(Two(), schema=SUM)

    class InInit(Sum):
        def __init__(self) -> None:
            self.other = mill.ValueState(int)

    with pytest.raises(mill.PlanError, match="declare it in the class body"):
        stream.process(InInit(), schema=SUM)

    class Aged(Sum):
        total = mill.ValueState(int, default=0, ttl="1h")

    with pytest.raises(mill.PlanError, match="goes by event time, and the stream has none"):
        stream.process(Aged(), schema=SUM)
    with pytest.raises(mill.PlanError, match="side output"):
        stream.process(Sum(), schema=SUM, side_outputs={"errors": {"x": int}})
    result = stream.process(Sum(), schema=SUM, side_outputs={"audit": {"x": int}})
    with pytest.raises(mill.PlanError, match='it has "audit"'):
        result.side_output("other")
    with pytest.raises(mill.PlanError, match="has no side outputs"):
        mill.from_iter([1]).side_output("audit")
    with pytest.raises(RuntimeError, match="not outside of one"):
        Sum().total.value


def threading_lock_type() -> Any:
    return 3


def test_mistakes_with_timers_are_errors_of_the_record() -> None:
    class Silent(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(row.at)

    class Wrong(mill.ProcessFunction):
        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> None: ...

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(5 if row.k == "number" else datetime(2024, 1, 1, tzinfo=UTC))  # type: ignore[arg-type]

    def message(function: mill.ProcessFunction, row: dict[str, Any], is_timed: bool = True) -> str:
        stream = mill.from_iter([row])
        stream = stream.event_time("at") if is_timed else stream
        with pytest.raises(mill.UserFunctionError) as caught:
            stream.key_by("k").process(function, schema={"x": int}).collect()
        return str(caught.value)

    assert "has no on_timer()" in message(Silent(), {"k": "a", "at": at(0)})
    assert "is set to a datetime, not 5" in message(Wrong(), {"k": "number", "at": at(0)})
    assert "has a zone, and the event times of the stream have none" in message(Wrong(), {"k": "zone", "at": at(0)})
    assert "the stream has none; call event_time()" in message(Wrong(), {"k": "zone", "at": at(0)}, is_timed=False)


def test_several_key_columns_are_a_row() -> None:
    class Keys(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"a": ctx.key.a, "b": ctx.key["b"], "whole": tuple(ctx.key) == (row.a, row.b)}

    rows = [{"a": n % 3, "b": "xy"[n % 2], "x": n} for n in range(30)]
    result = (
        mill.from_iter(rows)
        .key_by("a", "b")
        .process(Keys(), schema={"a": int, "b": str, "whole": bool})
        .collect()
        .to_pylist()
    )
    assert sorted((row["a"], row["b"], row["whole"]) for row in result) == sorted(
        (row["a"], row["b"], True) for row in rows
    )


def test_keys_of_every_kind_have_timers() -> None:
    class Reminds(mill.ProcessFunction):
        n = mill.ValueState(int, default=0)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            self.n.value += 1
            ctx.timers.event_time(row.at + 3 * SECOND)

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"k": repr(ctx.key), "n": self.n.value, "at": at}

    kinds: list[tuple[Any, list[Any]]] = [
        (str, ["", "a", None, "long " * 20]),
        (float, [0.0, 1.5, None]),
        (datetime, [at(1), None]),
        (bool, [True, False, None]),
        (bytes, [b"", b"x"]),
    ]
    for kind, keys in kinds:
        rows = [{"k": key, "at": at(n)} for n, key in enumerate(keys * 3)]
        stream = mill.from_iter(rows, schema={"k": kind, "at": datetime}).event_time("at").key_by("k")
        result = (
            stream.process(Reminds(), schema={"k": str, "n": int, "at": datetime}).collect(parallelism=2).to_pylist()
        )
        expected = sorted((repr(row["k"]), row["at"] + 3 * SECOND) for row in rows)
        assert sorted((row["k"], row["at"]) for row in result) == expected, kind
        assert {row["k"]: row["n"] for row in result if row["at"] >= at(len(rows) + 3 - len(keys))} == {
            repr(key): 3 for key in keys
        }


def test_times_are_in_the_zone_of_the_stream() -> None:
    zone = mill.Timestamp("ms", tz="Europe/Berlin")

    class Zoned(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            assert ctx.timestamp == row.at and str(ctx.timestamp.tzinfo) == str(row.at.tzinfo)
            ctx.timers.event_time(ctx.timestamp + timedelta(hours=1))
            # The same moment in another zone is the same timer.
            ctx.timers.event_time((ctx.timestamp + timedelta(hours=1)).astimezone(UTC))

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
            yield {"hour": at.hour}

    rows = [{"k": 1, "at": datetime(2024, 7, 1, 10, tzinfo=UTC)}]
    stream = mill.from_iter(rows, schema={"k": int, "at": zone}).event_time("at").key_by("k")
    assert stream.process(Zoned(), schema={"hour": int}).collect().to_pylist() == [{"hour": 13}]


# -- two streams -----------------------------------------------------------------------------------------------------------


class Pairs(mill.ProcessFunction):
    """Each pair of records of a key, whichever comes first; forgotten a minute after the key was last seen."""

    lefts = mill.ListState(int)
    rights = mill.ListState(str)

    def process_left(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        assert row.keys() == ("k", "x", "at") and row.k == ctx.key
        self.lefts.add(row.x)
        yield from ({"k": ctx.key, "x": row.x, "name": name} for name in self.rights)

    def process_right(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        assert row["key"] == ctx.key and ctx.timestamp == row.at
        self.rights.add(row.name)
        ctx.timers.event_time(row.at + SECOND)
        yield from ({"k": ctx.key, "x": x, "name": row.name} for x in self.lefts)

    def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"k": ctx.key, "x": seconds(at), "name": "timer"}


@pytest.mark.parametrize("seed", range(4))
def test_two_streams_share_the_state_of_a_key(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    lefts = [{"k": dice.choice("abc"), "x": n, "at": at(n)} for n in range(40)]
    rights = [{"key": dice.choice("abcd"), "name": f"n{n}", "at": at(2 * n)} for n in range(25)]

    def declared() -> mill.Stream:
        left = mill.from_iter(lefts, schema={"k": str, "x": int, "at": datetime}).event_time("at").key_by("k")
        right = mill.from_iter(rights, schema={"key": str, "name": str, "at": datetime}).event_time("at").key_by("key")
        return left.connect(right).process(Pairs(), schema={"k": str, "x": int, "name": str})

    found = run_through_restarts(declared, seed, tmp_path)
    expected = [(a["k"], a["x"], b["name"]) for a in lefts for b in rights if a["k"] == b["key"]]
    expected += [(b["key"], seconds(b["at"]) + 1, "timer") for b in rights]
    assert sorted((row["k"], row["x"], row["name"]) for row in found) == sorted(expected)


def test_mistakes_with_two_streams_are_errors_where_they_are_declared() -> None:
    left = mill.from_iter([{"k": "a", "x": 1, "at": at(0)}])
    right = mill.from_iter([{"k": 5, "thing": object()}], schema={"k": int, "thing": object})
    with pytest.raises(mill.PlanError, match="the keys k are str, and k are int64; cast one of them"):
        left.key_by("k").connect(right.key_by("k"))
    with pytest.raises(mill.PlanError, match="takes a keyed stream"):
        left.key_by("k").connect(right)  # type: ignore[arg-type]
    both = left.key_by("x").connect(right.key_by("k"))
    with pytest.raises(mill.PlanError, match="does not define process_left"):
        both.process(Sum(), schema=SUM)
    with pytest.raises(mill.PlanError, match="column 'thing' is object"):
        both.process(Pairs(), schema=SUM)
    with pytest.raises(mill.PlanError, match="the right stream has no event time"):
        left.event_time("at").key_by("x").connect(right.key_by("k")).process(Pairs(), schema=SUM)
    with pytest.raises(mill.PlanError, match=r"does not define process\(self, row, ctx\)"):
        left.key_by("k").process(Pairs(), schema=SUM)
