"""Mistakes in functions and arguments of the user's: refused where they are declared, or named where they show."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
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


# -- times that no datetime can hold ---------------------------------------------------------------------------------------

YEAR_1, YEAR_10000 = -62_135_596_800_000_000, 253_402_300_800_000_000


class Asks(mill.ProcessFunction):
    def __init__(self, what: str) -> None:
        self.what = what

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        n = row.n
        if self.what == "timestamp":
            yield {"n": n, "at": ctx.timestamp}
        elif self.what == "timer":
            ctx.timers.event_time(ctx.timestamp)  # type: ignore[arg-type]
        elif self.what == "watermark":
            yield {"n": n, "at": ctx.watermark}
        else:
            yield {"n": n, "at": None}

    def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"n": 0, "at": at}


@pytest.mark.parametrize(
    ("us", "shown"),
    [
        (YEAR_10000, "+10000-01-01T00:00:00"),
        (2**63 - 1, "+294247-01-10T04:00:54.775807"),
        (YEAR_1 - 1_000_000, "0000-12-31T23:59:59"),
        (YEAR_1 - 366 * 86_400_000_000 - 1, "-0001-12-31T23:59:59.999999"),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_an_event_time_beyond_all_datetimes_is_a_failure_of_its_record(us: int, shown: str, zone: str | None) -> None:
    """The last of all times was 9999-12-31T23:59:59.999999, timers at it too; others were an OverflowError of the function."""
    table = pa.table({"k": [1, 1], "at": pa.array([0, us], pa.timestamp("us", zone)), "n": [0, 1]})
    stream = mill.from_arrow(table).event_time("at", watermark="0s").key_by("k")
    schema = {"n": int, "at": mill.Timestamp("us", zone)}
    assert stream.process(Asks("nothing"), schema=schema).collect(parallelism=1)["n"] == [0, 1]
    for what in ("timestamp", "timer"):
        asked = stream.process(Asks(what), schema=schema)
        with pytest.raises(mill.UserFunctionError) as caught:
            asked.collect(parallelism=1)
        said = f"the event time is {shown}{'Z' if zone else ''}, and no datetime of Python's is before year 1 or after 9999"
        assert said in str(caught.value)
        assert [value.timestamp() for value in asked.collect(parallelism=1, on_error="skip").to_arrow()["at"].cast(pa.timestamp("us", "UTC")).to_pylist()] == [0]


def test_a_watermark_beyond_all_datetimes_is_the_first_or_last_of_them() -> None:
    times = [YEAR_1 - 2_000_000, YEAR_1 - 1_000_000, YEAR_10000, YEAR_10000 + 1_000_000]
    table = pa.table({"k": [1] * 4, "at": pa.array(times, pa.timestamp("us", "UTC")), "n": range(4)})
    found: list[Any] = []
    stream = mill.from_arrow(table).event_time("at", watermark="0s").key_by("k")
    schema = {"n": int, "at": mill.Timestamp("us", "UTC")}
    output = stream.process(Asks("watermark"), schema=schema).for_each(lambda row: found.append(row.at))
    mill.testing.simulate(output, seed=1, frame_rows=1, parallelism=1)
    assert found == [None, datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]


def test_a_timer_beyond_all_datetimes_of_the_zone_is_refused_where_it_is_set() -> None:
    class Late(mill.ProcessFunction):
        def process(self, row: Any, ctx: mill.ProcessContext) -> None:
            ctx.timers.event_time(datetime.max.replace(tzinfo=UTC))

        def on_timer(self, at: datetime, ctx: mill.ProcessContext) -> None:
            raise AssertionError("no datetime of this zone can hold it")

    table = pa.table({"k": [1], "at": pa.array([0], pa.timestamp("us", "Europe/Berlin"))})
    stream = mill.from_arrow(table).event_time("at").key_by("k").process(Late(), schema={"k": int})
    with pytest.raises(mill.UserFunctionError, match=r"the event time is 9999-12-31T23:59:59.999999Z, .*1970-01-01"):
        stream.collect()
