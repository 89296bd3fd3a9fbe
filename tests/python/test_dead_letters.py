"""Dead letters of a whole job: one stream for all steps, what a letter is of, and which steps need a sink for theirs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

import millstream as mill
from millstream import col

AT = datetime(2026, 1, 1)


def nothing(row: Any) -> None:
    """Take a row."""


class Inverse(mill.ProcessFunction):
    def process(self, row: Any, ctx: mill.ProcessContext) -> Any:
        yield {"x": 1 / row.n}


# -- what a letter is of -------------------------------------------------------------------------------------------------


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __repr__(self) -> str:
        return f"Point({self.x})"


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Gone:
    def __reduce__(self) -> Any:
        return int, ("not a number",)


OBJECTS: list[tuple[Any, Any]] = [
    (Point(1), "Point(1)"),
    ({"a": [1, None, "é"], "b": {"c": 1.5}}, {"a": [1, None, "é"], "b": {"c": 1.5}}),
    ([Point(2), AT, Decimal("1.50"), b"\x00"], ["Point(2)", "2026-01-01T00:00:00", "Decimal('1.50')", "b'\\x00'"]),
    ("text", "text"),
    (1, 1),
    (True, True),
    (None, None),
    (float("nan"), "nan"),
    ({(1, 2): 3}, "{(1, 2): 3}"),
    ({1, 2}, "{1, 2}"),
    ("\udc80", "\udc80"),
    (Mute(), "<a Mute whose repr raises RuntimeError>"),
    ([Mute()], ["<a Mute whose repr raises RuntimeError>"]),
]


@pytest.mark.parametrize("place", range(len(OBJECTS)))
def test_objects_are_in_the_record_at_every_kind_of_step(place: int) -> None:
    value, shown = OBJECTS[place]
    stream = mill.from_iter([{"n": "x", "o": value}], schema={"n": str, "o": object})
    steps = [
        stream.with_columns(n=col("n").cast(int)),
        stream.filter(col("n").cast(int) > 0),
        stream.map(lambda row: {"n": int(row.n)}, schema={"n": int}),
        stream.map_batches(lambda batch: 1 // 0, schema={"n": int}),
        stream.key_by("n").process(Inverse(), schema={"x": float}),
        stream.key_by(k=col("n").cast(int)).agg(n=mill.count()),
    ]
    for failing in steps:
        [letter] = failing.all_errors.collect(on_error="route").to_pylist()
        assert json.loads(letter["record"]) == {"n": "x", "o": shown}, failing


def test_an_object_is_cut_only_where_its_repr_is_long() -> None:
    long = mill.from_iter([{"n": "x", "o": [Point(10**20_0)] * 3000}, {"n": "x", "o": set(range(10_000))}], schema={"n": str, "o": object})
    first, second = (json.loads(record) for record in long.with_columns(n=col("n").cast(int)).errors.collect(parallelism=1, on_error="route")["record"])
    assert len(first["o"]) == 3000
    assert len(second["o"]) == 10_001 and second["o"].endswith("…")


def test_an_object_that_cannot_be_unpickled_says_so() -> None:
    stream = mill.from_iter([{"n": "x", "o": Gone()}], schema={"n": str, "o": object})
    [letter] = stream.with_columns(n=col("n").cast(int)).errors.collect(on_error="route").to_pylist()
    assert json.loads(letter["record"])["o"].startswith("<an object that cannot be unpickled: ValueError")


BIG = 2**62
ROWS = [{"k": "a", "v": BIG, "w": 1, "t": AT}, {"k": "a", "v": BIG, "w": 2, "t": AT}, {"k": "b", "v": 1, "w": 3, "t": AT}]
WINDOW = {"window_start": "2026-01-01T00:00:00", "window_end": "2026-01-01T00:00:10"}
RESULTS: dict[str, tuple[Callable[[mill.Stream, Any], mill.Stream], dict[str, Any]]] = {
    "agg": (lambda s, sums: s.key_by("k").agg(**sums), {"k": "a"}),
    "agg each": (lambda s, sums: s.key_by("k").agg(**sums, emit="each"), {"k": "a"}),
    "no key": (lambda s, sums: s.agg(**sums), {"n": 3, "start": 3}),
    "tumbling": (lambda s, sums: s.key_by("k").window(mill.tumbling("10s")).agg(**sums), {"k": "a", **WINDOW}),
    "sliding": (lambda s, sums: s.key_by("k").window(mill.sliding("10s", slide="10s")).agg(**sums), {"k": "a", **WINDOW}),
    "all": (lambda s, sums: s.window_all(mill.tumbling("10s")).agg(**sums), {"n": 3, "start": 3, **WINDOW}),
    "session": (lambda s, sums: s.key_by("k").window(mill.session("10s")).agg(**sums), {"k": "a", **WINDOW}),
    "count": (lambda s, sums: s.key_by("k").window(mill.count_window(2)).agg(**sums), {"k": "a"}),
    "rolling": (lambda s, sums: s.key_by("k").rolling("10s").agg(**sums), {"k": "a"}),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_that_does_not_fit_is_shown_with_the_others(kind: str) -> None:
    """It had its key alone, and without a key nothing: "{}"."""
    stream = mill.from_iter(ROWS).event_time("t", watermark="1s")
    make, expected = RESULTS[kind]
    result = make(stream, {"total": col("v").sum(), "n": mill.count(), "start": col("w").max()})
    found = result.errors.collect(on_error="route", parallelism=1).to_pylist()
    assert found
    for letter in found:
        record = json.loads(letter["record"])
        assert re.search(r'sum "total" is \d+ and overflows int64', letter["error"])
        assert record.pop("total", "absent") is None
        wanted = {"n": 2, "start": 2, **expected}
        assert record == wanted or kind == "rolling" and wanted.items() <= record.items(), letter


def test_a_result_within_an_expression_is_named_in_the_error() -> None:
    stream = mill.from_iter(ROWS)
    [letter] = stream.agg(x=col("v").sum() / mill.count(), most=col("w").max()).errors.collect(on_error="route").to_pylist()
    assert json.loads(letter["record"]) == {"most": 3}
    assert letter["error"].startswith(f"a sum is {2 * BIG + 1} and overflows int64")
    [letter] = stream.agg(x=col("v").sum() / mill.count()).errors.collect(on_error="route").to_pylist()
    assert letter["record"] == "{}"
