"""Mistakes in functions and arguments of the user's: refused where they are declared, or named where they show."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from process_runs import keyed

import millstream as mill

# -- open() and close() ----------------------------------------------------------------------------------------------------


class Opened(mill.ProcessFunction):
    value = mill.ValueState(int)
    known = mill.ValueState(int, default=3)
    items = mill.ListState(int)
    seen = mill.MapState(str, int)
    top = mill.ReducingState(int, max)

    def __init__(self, at_open: Any = None, at_close: Any = None) -> None:
        self.at_open, self.at_close = at_open, at_close

    def open(self) -> None:
        if self.at_open is not None:
            self.at_open(self)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        self.value.value = (self.value.value or 0) + 1
        yield {"n": self.value.value}

    def close(self) -> None:
        if self.at_close is not None:
            self.at_close(self)


USES: list[tuple[str, Callable[[Any], Any]]] = [
    ("value", lambda function: setattr(function.value, "value", 42)),
    ("value", lambda function: function.value.clear()),
    ("known", lambda function: function.known.value),
    ("items", lambda function: function.items.add(1)),
    ("seen", lambda function: function.seen.get("a")),
    ("top", lambda function: function.top.add(1)),
]


@pytest.mark.parametrize(("name", "use"), USES)
def test_a_state_cannot_be_used_where_there_is_no_key(name: str, use: Any, caplog: pytest.LogCaptureFixture) -> None:
    """In open() what was set was lost, or an IndexError of the engine's own came; in close() every value was None."""
    said = f"state '{name}' can be used while a job calls process\\(\\), on_timer\\(\\) or on_end\\(\\), not outside of one"
    rows = [{"k": "a", "x": 1}, {"k": "a", "x": 2}]
    with pytest.raises(mill.UserFunctionError, match=said):
        keyed(rows).process(Opened(use), schema={"n": int}).collect()
    with caplog.at_level(logging.WARNING, "millstream"):
        result = keyed(rows).process(Opened(None, use), schema={"n": int}).collect(parallelism=1)
    assert result["n"] == [1, 2]
    assert f"state {name!r} can be used while" in caplog.text


def _raises(*_: object) -> None:
    raise OSError("the disk is gone")


class Closing(mill.Sink):
    kind = "idempotent"

    def write(self, batch: Any) -> None:
        pass

    close = _raises


class Ahead(mill.Sink):
    kind = "write-ahead"

    def deliver(self, batch: Any, epoch: int) -> None:
        pass

    close = _raises


class Reader(mill.SourceReader):
    def next_batch(self) -> Any:
        return None

    def position(self) -> int:
        return 0

    close = _raises


class Numbers(mill.Source):
    schema = {"n": int}

    def partitions(self) -> list[str]:
        return ["0"]

    def open(self, partition: str, position: Any) -> Reader:
        return Reader()


def _records(start: int) -> Iterator[int]:
    try:
        yield from range(start, 10**9)
    finally:
        _raises()


@pytest.mark.parametrize(
    ("step", "output"),
    [
        ("process(Opened)", lambda: keyed([{"k": "a", "x": 1}]).process(Opened(None, _raises), schema={"n": int}).for_each(id)),
        ("Closing", lambda: mill.from_iter([1]).sink_to(Closing())),
        ("Ahead", lambda: mill.from_iter([1]).sink_to(Ahead())),
        ("Numbers", lambda: mill.from_source(Numbers()).for_each(id)),
        ("from_iter(_records)", lambda: mill.from_iter(_records, schema={"value": int}).limit(1).for_each(id)),
    ],
)
def test_an_exception_in_close_is_logged_with_the_step(step: str, output: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It was swallowed: "Exception ignored in: <millstream._process.Task object at …>"."""
    with caplog.at_level(logging.WARNING, "millstream"):
        mill.run(output(), parallelism=1)
    records = [record for record in caplog.records if "close()" in record.message]
    assert [record.message for record in records] == [f"{step}: close() raised OSError: the disk is gone"]
    assert records[0].exc_info is not None
