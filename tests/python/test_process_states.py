"""States of process functions: what is set is kept and read back as it will be later, and mistakes are named."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from process_runs import at, keyed

import millstream as mill
from millstream import testing


def values(function: mill.ProcessFunction, rows: list[dict[str, Any]], frame_rows: int = 8192) -> list[Any]:
    """Return what a function yields as ``what``, with frames of so many rows."""
    found: list[Any] = []
    stream = keyed(rows).process(function, schema={"what": object})
    testing.simulate(stream.for_each(lambda row: found.append(row.what)), seed=1, frame_rows=frame_rows, parallelism=1)
    return found


# -- defaults --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [None, "1d"])
def test_what_is_cleared_reads_as_the_default_at_once(ttl: Any) -> None:
    class Cleared(mill.ProcessFunction):
        last = mill.ValueState(int, default=7, ttl=ttl)
        other = mill.ValueState(str, ttl=ttl)

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            self.last.value, self.other.value = row.x, "a"
            before = self.last.value, self.other.value
            self.last.clear()
            self.other.clear()
            cleared = self.last.value, self.other.value
            self.last.value = row.x
            self.last.value = None  # type: ignore[assignment]
            yield {"what": (before, cleared, self.last.value)}

    rows = [{"k": 1, "x": x, "at": at(x)} for x in (1, 2)]
    assert values(Cleared(), rows) == [((1, "a"), (7, None), 7), ((2, "a"), (7, None), 7)]


class Defaults(mill.ProcessFunction):
    """Sets a state to its very default for one key, reads it for another, and sets and clears it for a third."""

    n = mill.ValueState(int, default=7)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        if row.k == "set":
            self.n.value = 7
        if row.k == "cleared":
            self.n.value = 8
            self.n.clear()
        yield {"what": f"{row.k} {self.n.value}"}

    def on_end(self, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"what": f"end of {ctx.key}"}


def test_a_value_that_is_set_to_its_default_is_kept(tmp_path: Path) -> None:
    rows = [{"k": k} for k in ("set", "read", "cleared", "set")]
    stream = mill.from_iter(rows).key_by("k").process(Defaults(), schema={"what": str}).name("defaults")
    mill.run(stream.write_json(tmp_path / "out"), checkpoint=tmp_path / "state")
    found = mill.read_json(str(tmp_path / "out"), schema={"what": str}).collect().to_pylist()
    assert sorted(row["what"] for row in found) == ["cleared 7", "end of set", "read 7", "set 7", "set 7"]


def test_a_value_that_is_set_to_its_default_is_in_the_checkpoint(tmp_path: Path) -> None:
    class Kept(mill.ProcessFunction):
        n = mill.ValueState(int, default=7)
        seen = mill.ValueState(bool)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            self.seen.value = True
            if row.k == "set":
                self.n.value = 7

    path = tmp_path / "rows.json"
    path.write_text('{"k": "set"}\n{"k": "other"}\n')
    stream = mill.read_json(str(path), schema={"k": str}, follow=True).key_by("k")
    sink = stream.process(Kept(), schema={"x": int}).name("kept").write_json(tmp_path / "out")
    import time

    job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"))
    rows: list[Any] = []
    until = time.monotonic() + 20
    while len(rows) < 2 and time.monotonic() < until:
        time.sleep(0.1)
        if mill.checkpoints(tmp_path / "state"):
            rows = mill.read_state(tmp_path / "state", step="kept").to_pylist()
    job.stop()
    job.wait("30s")
    assert {row["k"]: row["n"] for row in rows} == {"set": 7, "other": None}


# -- what is read back -----------------------------------------------------------------------------------------------------


class Converted(mill.ProcessFunction):
    """Reads states before it sets them, so that it sees what the record before has left."""

    single = mill.ValueState(pa.float32())
    number = mill.ValueState(float)
    pair = mill.ValueState({"a": int, "b": int})
    items = mill.ValueState(list[float])
    pairs = mill.ListState({"a": int, "b": int})
    seen = mill.MapState(str, float)
    top = mill.ReducingState(pa.float32(), max)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {
            "what": repr(
                (
                    self.single.value,
                    self.number.value,
                    self.pair.value,
                    self.items.value,
                    self.pairs.get(),
                    dict(self.seen),
                    self.top.value,
                )
            )
        }
        self.single.value = 0.1
        self.number.value = 3
        self.pair.value = {"a": 3}
        self.items.value = (1, 2)  # type: ignore[assignment]
        self.items.value.append(3)
        self.pairs.set([{"a": 3}])
        self.seen["x"] = 3
        self.top.add(0.1)
        assert self.single.value == 0.10000000149011612
        assert repr(self.pair.value) == "{'a': 3, 'b': None}"


def test_what_is_read_does_not_depend_on_where_a_frame_ends() -> None:
    rows = [{"k": 1, "x": x} for x in range(6)]
    later = (
        0.10000000149011612,
        3.0,
        {"a": 3, "b": None},
        [1.0, 2.0, 3.0],
        [{"a": 3, "b": None}],
        {"x": 3.0},
        0.10000000149011612,
    )
    expected = [repr((None, None, None, None, [], {}, None)), *[repr(later)] * 5]
    for frame_rows in (1, 2, 8192):
        assert values(Converted(), rows, frame_rows) == expected


def test_what_a_type_cannot_hold_is_still_refused_with_the_state() -> None:
    class Wrong(mill.ProcessFunction):
        pair = mill.ValueState({"a": int})

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            self.pair.value = {"a": "five"}

    with pytest.raises(mill.UserFunctionError, match='state "pair"'):
        keyed([{"k": 1, "x": 1}]).process(Wrong(), schema={"x": int}).collect()


def test_a_struct_that_is_changed_in_place_is_kept() -> None:
    class Changed(mill.ProcessFunction):
        pair = mill.ValueState({"a": int, "b": str}, default={"a": 0, "b": "x"})
        pairs = mill.ReducingState({"a": int}, lambda one, other: {"a": one["a"] + other["a"]})
        by_name = mill.MapState(str, {"a": int})

        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            before = (self.pair.value["a"], self.pairs.value and self.pairs.value["a"], self.by_name.get("n"))
            yield {"what": before}
            self.pair.value["a"] += row.x
            self.pairs.add({"a": row.x})["a"] += 100
            self.by_name["n"] = {"a": row.x}
            self.by_name["n"]["a"] = -1

    rows = [{"k": 1, "x": x} for x in (1, 2, 3)]
    expected = [(0, None, None), (1, 101, {"a": 1}), (3, 203, {"a": 2})]
    for frame_rows in (1, 8192):
        assert values(Changed(), rows, frame_rows) == expected


def test_a_value_that_is_set_to_none_reads_as_the_default_however_it_is_set() -> None:
    def forget(state: Any) -> None:
        state.value = None

    class Forgets(mill.ProcessFunction):
        n = mill.ValueState(int, default=7)

        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            before = self.n.value
            self.n.value = row.x
            first = self.n.value
            self.n.value = 1
            forget(self.n)
            yield {"what": (before, first, self.n.value)}
            self.n.value = row.x

    rows = [{"k": 1, "x": x} for x in (None, 2, None, 7, 3)]
    expected = [(7, 7, 7), (7, 2, 7), (2, 7, 7), (7, 7, 7), (7, 3, 7)]
    for frame_rows in (1, 8192):
        assert values(Forgets(), rows, frame_rows) == expected


def nothing(state: Any) -> None:
    state.value = None


class SetToNone(mill.ProcessFunction):
    """Sets a state with a default to None in one of many ways, and reads it at once."""

    last = mill.ValueState(int, default=5)

    def __init__(self, how: str) -> None:
        self.how = how

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        before = self.last.value
        self.last.value = 7
        set_ = self.last.value
        if self.how == "column":
            self.last.value = row.x
        elif self.how == "choice":
            self.last.value = set_ + 1 if row.x else None
        elif self.how == "call":
            self.last.value = {"x": 1}.get("y")
        elif self.how == "function":
            nothing(self.last)
        elif self.how == "attribute":
            setattr(self.last, "value", row.x)
        elif self.how == "clear":
            self.last.clear()
        else:
            self.last.value = None
        after = self.last.value
        yield {"before": before, "set": set_, "after": after}


class SetInHelper(SetToNone):
    def forget(self, value: Any) -> None:
        self.last.value = value

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        before = self.last.value
        self.last.value = 7
        set_ = self.last.value
        self.forget(row.x)
        yield {"before": before, "set": set_, "after": self.last.value}


@pytest.mark.parametrize("how", ["column", "choice", "call", "function", "attribute", "clear", "constant", "helper"])
def test_a_value_that_is_set_to_none_reads_as_its_default_at_once(how: str) -> None:
    """It read as None until the call was over, unless None stood in the code of the function."""
    function = SetInHelper(how) if how == "helper" else SetToNone(how)
    rows = mill.from_iter([{"k": 1, "x": None}] * 3, schema={"k": int, "x": int})
    schema = {"before": int, "set": int, "after": int}
    got = rows.key_by("k").process(function, schema=schema).collect().to_pylist()
    assert got == [{"before": 5, "set": 7, "after": 5}] * 3


# -- mistakes --------------------------------------------------------------------------------------------------------------


def raised(use: Any) -> str:
    """Return the message of the exception that a function raises when it does this."""

    class Uses(mill.ProcessFunction):
        last = mill.ValueState(int, default=0)
        aged = mill.ValueState(int, ttl="1d", clock="processing")
        items = mill.ListState(int)
        seen = mill.MapState(str, int)
        top = mill.ReducingState(int, max)

        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            use(self, ctx)

    with pytest.raises(mill.UserFunctionError) as caught:
        keyed([{"k": 1, "x": 1}]).process(Uses(), schema={"x": int}).collect()
    return str(caught.value.__cause__)


def test_a_state_that_is_assigned_to_is_refused() -> None:
    def assigns(name: str) -> Any:
        return lambda own, ctx: setattr(own, name, 5)

    assert raised(assigns("last")) == "'last' is a state; write self.last.value = …"
    assert "write self.items.add(…), or self.items.set(…)" in raised(assigns("items"))
    assert "write self.seen[key] = …" in raised(assigns("seen"))
    assert "write self.top.add(…)" in raised(assigns("top"))

    class InInit(mill.ProcessFunction):
        last = mill.ValueState(int)

        def __init__(self) -> None:
            self.factor = 2
            self.last = 5  # type: ignore[assignment]

    with pytest.raises(AttributeError, match="'last' is a state"):
        InInit()


def test_messages_name_states_as_they_were_declared() -> None:
    assert "'ValueState' and 'int'" in raised(lambda own, ctx: own.last + 1)
    assert raised(lambda own, ctx: own.last.get()) == "ValueState has no get; use .value"
    assert raised(lambda own, ctx: own.aged.get()) == "ValueState has no get; use .value"
    assert raised(lambda own, ctx: own.items.append(1)) == "ListState has no append; use add()"
    assert raised(lambda own, ctx: own.seen.put("a", 1)) == "MapState has no put; write self.state[key] = value"
    assert raised(lambda own, ctx: own.top.update(1)) == "ReducingState has no update; use add()"
    assert "'ProcessContext' object" in raised(lambda own, ctx: ctx.timestap)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        *[(name, "that is a method") for name in ("open", "close", "process", "on_timer", "on_end", "process_left", "process_right")],
        ("k", "is named as a key column"),
        ("event_timers", "shows timers"),
        ("processing_timers", "shows timers"),
    ],
)
def test_a_state_whose_name_means_something_else_is_refused(name: str, why: str) -> None:
    def process(self: Any, row: Any, ctx: mill.ProcessContext) -> None: ...

    kind = type("Named", (mill.ProcessFunction,), {"process": process, name: mill.ValueState(int)})
    with pytest.raises(mill.PlanError, match=why):
        keyed([{"k": 1, "x": 1}]).process(kind(), schema={"x": int})


# -- copies of the function ------------------------------------------------------------------------------------------------


def test_each_instance_has_all_of_the_object_for_itself() -> None:
    class Remembers(mill.ProcessFunction):
        def __init__(self) -> None:
            self.seen: dict[int, int] = {}

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            self.seen[row.x] = 1
            yield {"seen": len(self.seen)}

    function = Remembers()
    rows = [{"k": n, "x": n} for n in range(50)]
    stream = keyed(rows).process(function, schema={"seen": int})
    function.seen[-1] = 1
    result = [row["seen"] for row in stream.collect(parallelism=3).to_pylist()]
    assert function.seen == {-1: 1}
    assert min(result) == 1 and result.count(1) == 3


def test_what_cannot_be_copied_is_named() -> None:
    class Locks(mill.ProcessFunction):
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def process(self, row: Any, ctx: mill.ProcessContext) -> None: ...

    with pytest.raises(mill.PlanError, match=r"Locks, and self\.lock cannot be copied .*; make it in open\(self\)"):
        keyed([{"k": 1, "x": 1}]).process(Locks(), schema={"x": int})


# -- age -------------------------------------------------------------------------------------------------------------------


def test_asking_whether_there_is_an_entry_does_not_make_it_young() -> None:
    class Asks(mill.ProcessFunction):
        items = mill.ListState(int, ttl="10s", refresh="read")
        seen = mill.MapState(int, int, ttl="10s", refresh="read")

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            if row.x == 0:
                self.items.add(1)
                self.seen[1] = 1
            yield {"what": (1 in self.items, 1 in self.seen)}

    rows = [{"k": 1, "x": x, "at": at(x)} for x in (0, 6, 12)]
    assert values(Asks(), rows) == [(True, True), (True, True), (False, False)]


@pytest.mark.parametrize("is_removed", [False, True])
def test_an_entry_that_is_set_again_after_it_has_grown_too_old_is_the_last(is_removed: bool) -> None:
    class Orders(mill.ProcessFunction):
        seen = mill.MapState(str, int, ttl="10s")

        def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
            self.seen[row.name] = row.x
            yield {"what": list(self.seen.items())}

    # Whether the old entry is still in memory depends on the watermark, which another key moves on.
    moves = [{"k": 2, "name": "other", "x": 9, "at": at(11)}] if is_removed else []
    rows = [
        {"k": 1, "name": "old", "x": 0, "at": at(0)},
        {"k": 1, "name": "young", "x": 1, "at": at(5)},
        *moves,
        {"k": 1, "name": "old", "x": 2, "at": at(12)},
    ]
    assert values(Orders(), rows, frame_rows=1)[-1] == [("young", 1), ("old", 2)]
