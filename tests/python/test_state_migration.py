"""States whose types change between runs: what is converted, what a function makes of it, and what is refused."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill

KEYS = [*"abcdef", None]
"""Of several tasks and frames."""


def run(tmp_path: Path, states: dict[str, Any], does: Any, *, parallelism: int, broadcast: dict[str, Any] | None = None) -> None:
    """Run the next records, one of each key, with a function that has these states; go on from the last checkpoint."""

    def process(self: Any, row: Any, ctx: Any) -> Iterator[Any]:
        yield {"what": f"{ctx.key} {row.x} {does(self, row.x)!r}"}

    members: dict[str, Any] = {"process": process, **states}
    options: dict[str, Any] = {}
    if broadcast is not None:
        members |= {"process_broadcast": lambda self, row, ctx: does(self, row.x) and None, **broadcast}
        options["broadcast"] = mill.from_iter([{"x": 5}], schema={"x": int})
    function = type("Made", (mill.ProcessFunction,), members)()
    rows = tmp_path / "rows"
    rows.mkdir(exist_ok=True)
    x = len(list(rows.iterdir()))
    (rows / f"{x}.json").write_text("".join(json.dumps({"k": key, "x": x}) + "\n" for key in KEYS))
    stream = mill.read_json(str(rows), schema={"k": str, "x": int}, follow=True).key_by("k")
    made = stream.process(function, schema={"what": str}, **options).name("made")
    checkpoint = mill.Checkpoint(tmp_path / "state", every="50ms")
    job = mill.start(made.write_json(tmp_path / "out"), checkpoint=checkpoint, parallelism=parallelism)
    # What the source has read may still wait in the function for the end of the broadcast side, and a stop keeps it there.
    until = time.monotonic() + 60
    while written(job) < len(KEYS) and time.monotonic() < until and job.status.state in ("starting", "running"):
        time.sleep(0.005)
    job.stop()
    job.wait("60s")


def written(job: Any) -> int:
    return next((step.rows_in for step in job.metrics().steps if step.name == "write_json"), 0)


def seen(tmp_path: Path) -> list[str]:
    return sorted(row["what"] for row in mill.read_json(str(tmp_path / "out"), schema={"what": str}).collect().to_pylist())


def evolve(tmp_path: Path, before: Any, put: Any, after: Any) -> list[str]:
    """Put values with one state, and return what a function with another one reads after a restart."""

    def first(self: Any, x: int) -> None:
        put(self, x)

    run(tmp_path, {"state": before}, first, parallelism=2)
    run(tmp_path, {"state": after}, lambda self, x: self.state.value, parallelism=3)
    return [what.split(" ", 2)[2] for what in seen(tmp_path) if " 1 " in what]


def set_value(value: Any) -> Any:
    return lambda self, x: setattr(self.state, "value", value)


STRUCT = pa.struct([("a", pa.int64())])
MORE = pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.int64())]))])
WIDER: list[tuple[Any, Any, Any, Any]] = [
    (pa.int8(), int, -100, -100),
    (pa.uint32(), int, 2**32 - 1, 2**32 - 1),
    (pa.int32(), float, -(2**31), float(-(2**31))),
    (pa.float32(), float, 0.1, 0.10000000149011612),
    (mill.types.Duration("ms"), timedelta, timedelta(milliseconds=5), timedelta(milliseconds=5)),
    (mill.types.Decimal(8, 2), mill.types.Decimal(20, 2), Decimal(1), Decimal("1.00")),
    (pa.list_(pa.int16()), list[int], [1, None, 3], [1, None, 3]),
    (pa.struct([("a", pa.int16())]), {"b": str, "a": int}, {"a": 7}, {"b": None, "a": 7}),
    (pa.list_(STRUCT), pa.list_(MORE), [{"a": 1}, None], [{"a": 1, "b": None}, None]),
]


@pytest.mark.parametrize(("before", "after", "value", "expected"), WIDER, ids=str)
def test_a_wider_type_has_the_old_values(tmp_path: Path, before: Any, after: Any, value: Any, expected: Any) -> None:
    assert evolve(tmp_path, mill.ValueState(before), set_value(value), mill.ValueState(after)) == [repr(expected)] * len(KEYS)


def test_fields_that_are_added_have_their_defaults(tmp_path: Path) -> None:
    after = mill.ValueState({"a": int, "b": str, "c": int}, default={"a": 0, "b": "new", "c": 9})
    before = mill.ValueState({"a": int})
    assert evolve(tmp_path, before, set_value({"a": 3}), after) == ["{'a': 3, 'b': 'new', 'c': 9}"] * len(KEYS)


def test_a_function_makes_new_values_of_any_kind_of_state(tmp_path: Path) -> None:
    def put(self: Any, x: int) -> None:
        self.value.value = 3
        self.items.extend([1, 2])
        self.seen["a"] = 1
        self.top.add(7)
        self.pickled.value = 5
        self.aged.value = 8
        self.same.value = "same"

    before = {
        "value": mill.ValueState(int),
        "items": mill.ListState(int),
        "seen": mill.MapState(str, int),
        "top": mill.ReducingState(int, max),
        "pickled": mill.ValueState(int),
        "aged": mill.ValueState(int, ttl="1h", clock="processing"),
        "same": mill.ValueState(str),
    }

    def as_text(old: int) -> str:
        return f"was {old}"

    after = {
        "value": mill.ValueState(str, migrate=as_text),
        "items": mill.ListState(str, migrate=as_text),
        "seen": mill.MapState(str, {"n": int}, migrate=lambda old: {"n": old}),
        "top": mill.ReducingState({"top": int}, lambda a, b: a, migrate=lambda old: {"top": old}),
        "pickled": mill.ValueState(object, migrate=lambda old: {old}),
        "aged": mill.ValueState(str, ttl="1h", clock="processing", migrate=as_text),
        "same": mill.ValueState(str, migrate=lambda old: 1 / 0),
    }
    run(tmp_path, before, put, parallelism=1)

    def show(self: Any, x: int) -> Any:
        return [self.value.value, self.items.get(), dict(self.seen), self.top.value, self.pickled.value, self.aged.value, self.same.value]

    run(tmp_path, after, show, parallelism=2)
    values = ["was 3", ["was 1", "was 2"], {"a": {"n": 1}}, {"top": 7}, {5}, "was 8", "same"]
    assert [what for what in seen(tmp_path) if " 1 " in what] == sorted(f"{key} 1 {values!r}" for key in KEYS)


def test_a_migration_runs_once_and_is_then_part_of_the_state(tmp_path: Path) -> None:
    calls = itertools.count()

    def double(old: int) -> str:
        next(calls)
        return str(old * 2)

    run(tmp_path, {"state": mill.ValueState(int)}, lambda self, x: setattr(self.state, "value", 4), parallelism=2)
    run(tmp_path, {"state": mill.ValueState(str, migrate=double)}, lambda self, x: self.state.value, parallelism=1)
    assert next(calls) == len(KEYS)
    run(tmp_path, {"state": mill.ValueState(str)}, lambda self, x: self.state.value, parallelism=3)
    assert next(calls) == len(KEYS) + 1
    assert [what.replace(" 2 ", " 1 ") for what in seen(tmp_path) if " 2 " in what] == sorted(f"{key} 1 '8'" for key in KEYS)


def test_broadcast_state_evolves_too(tmp_path: Path) -> None:
    def put(self: Any, x: int) -> Any:
        if x == 5:
            self.rules["a"] = 3
            self.last.value = 4

    before = {"rules": mill.MapState(str, int, broadcast=True), "last": mill.ValueState(pa.int8(), broadcast=True)}
    run(tmp_path, {}, put, parallelism=2, broadcast=before)
    after = {
        "rules": mill.MapState(str, str, broadcast=True, migrate=lambda old: f"was {old}"),
        "last": mill.ValueState(int, broadcast=True),
    }
    run(tmp_path, {}, lambda self, x: [dict(self.rules), self.last.value], parallelism=3, broadcast=after)
    assert [what for what in seen(tmp_path) if " 1 " in what] == sorted(f"{key} 1 {[{'a': 'was 3'}, 4]!r}" for key in KEYS)


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    before = {
        "wide": mill.ValueState(int),
        "pair": mill.ValueState({"a": int, "b": str, "c": int}),
        "seen": mill.MapState(int, int),
        "gone": mill.ValueState(int),
        "fine": mill.ValueState(int),
    }

    def put(self: Any, x: int) -> None:
        self.wide.value, self.gone.value, self.fine.value = 1, 1, 1
        self.pair.value = {"a": 1, "b": "b", "c": 1}
        self.seen[1] = 1

    run(tmp_path, before, put, parallelism=2)
    after = {
        "wide": mill.ValueState(pa.int32()),
        "pair": mill.ValueState({"a": str, "c": int}),
        "seen": mill.MapState(str, int, migrate=lambda old: old),
        "fine": mill.ValueState(str, migrate=str),
    }
    with pytest.raises(mill.CheckpointError) as info:
        run(tmp_path, after, lambda self, x: None, parallelism=2)
    text = str(info.value)
    for part in (
        'state "wide" holds int64 and would hold int32',
        'field "a" of state "pair" holds int64 and would hold str',
        'field "b" of state "pair" is gone',
        'the entry key of state "seen" holds int64 and would hold str',
        'state "gone" is in it, and the function keeps it no more',
        "or a migrate= that makes a new value of an old one",
    ):
        assert part in text, text
    assert "fine" not in text


@pytest.mark.parametrize(
    ("migrate", "said"),
    [(lambda old: 1 / (old - 3), "migrate= of state 'state' fails on 3: division by zero"), (lambda old: object(), "does not fit")],
)
def test_an_error_in_the_function_names_state_and_value(tmp_path: Path, migrate: Any, said: str) -> None:
    with pytest.raises(mill.UserFunctionError, match=said):
        evolve(tmp_path, mill.ValueState(int), set_value(3), mill.ValueState(str, migrate=migrate))


def test_what_is_no_plain_function_is_refused() -> None:
    async def later(old: Any) -> Any:
        return old

    def several(old: Any) -> Iterator[Any]:
        yield old

    with pytest.raises(mill.PlanError, match="later is asynchronous"):
        mill.ValueState(int, migrate=later)
    with pytest.raises(mill.PlanError, match="several is a generator"):
        mill.MapState(int, int, migrate=several)
    with pytest.raises(mill.PlanError, match="not 3"):
        mill.ListState(int, migrate=3)  # type: ignore[call-overload]
    with pytest.raises(mill.PlanError, match="a ReducingState takes a function of two values, and later is asynchronous"):
        mill.ReducingState(int, later)
    with pytest.raises(mill.PlanError, match="several is a generator"):
        mill.ReducingState(int, several)
