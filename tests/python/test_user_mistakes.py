"""Mistakes in functions and arguments of the user's: refused where they are declared, or named where they show."""

from __future__ import annotations

import functools
import logging
import operator
import unittest.mock
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


# -- names -----------------------------------------------------------------------------------------------------------------


class Does(mill.ProcessFunction):
    value = mill.ValueState(int)
    items = mill.ListState(int)

    def __init__(self, what: Callable[[Any, Any, Any], object]) -> None:
        self.what = what

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        self.what(self, row, ctx)
        yield {"n": 1}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda own, row, ctx: own.value.valu, "'ValueState' object has no attribute 'valu'; did you mean 'value'?"),
        (lambda own, row, ctx: setattr(own.value, "valu", 1), "did you mean 'value'?"),
        (lambda own, row, ctx: own.items.ad(1), "'ListState' object has no attribute 'ad'; did you mean 'add'?"),
        (lambda own, row, ctx: own.valeu, "'Does' object has no attribute 'valeu'; did you mean 'value'?"),
        (lambda own, row, ctx: ctx.keyy, "'ProcessContext' object has no attribute 'keyy'; did you mean 'key'?"),
        (lambda own, row, ctx: ctx.timers.event_tim(1), "did you mean 'event_time'?"),
        (lambda own, row, ctx: row.amuont, "no column 'amuont'; did you mean 'amount'? there are k, amount"),
        (lambda own, row, ctx: row["amuont"], "no column 'amuont'; did you mean 'amount'? there are k, amount"),
        (lambda own, row, ctx: row.as_dict(), "did you mean 'asdict'?"),
        (lambda own, row, ctx: row.zzz, "no column 'zzz'; there are k, amount"),
        (lambda own, row, ctx: ctx.side_output("od", row), "no side output 'od'; did you mean 'odd'? it has 'odd', 'even'"),
        (
            lambda own, row, ctx: ctx.side_output("audit", row),
            "no side output 'audit'; it has 'odd', 'even'; declare it: process(…, side_outputs={'audit': {…}})",
        ),
    ],
)
def test_a_function_that_asks_for_what_is_not_there_is_told_what_is_near(what: Any, said: str) -> None:
    stream = mill.from_iter([{"k": 1, "amount": 2}]).key_by("k")
    sides = {"odd": {"k": int}, "even": {"k": int}}
    with pytest.raises(mill.UserFunctionError) as caught:
        stream.process(Does(what), schema={"n": int}, side_outputs=sides).collect()
    assert said in str(caught.value)
    assert str(caught.value).count("did you mean") == ("did you mean" in said)


def test_an_attribute_error_of_something_else_stays_as_it_is() -> None:
    class Other:
        pass

    stream = mill.from_iter([{"k": 1}]).key_by("k")
    with pytest.raises(mill.UserFunctionError, match=r"'Other' object has no attribute 'keyy'; record"):
        stream.process(Does(lambda own, row, ctx: Other().keyy), schema={"n": int}).collect()  # type: ignore[attr-defined]


def _timed() -> Any:
    return mill.from_iter([{"k": 1, "amount": 2, "at": datetime(2024, 1, 1)}]).event_time("at")


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda: mill.ValueSate, "module 'millstream' has no attribute 'ValueSate'; did you mean 'ValueState'?"),
        (lambda: mill.hop, 'millstream has no hop; use mill.sliding("10m", slide="1m")'),
        (lambda: mill.tumble, 'use mill.tumbling("1m")'),
        (lambda: mill.hopping, "use mill.sliding"),
        (lambda: mill.TumblingWindows, "use mill.tumbling"),
        (lambda: mill.TumblingEventTimeWindows, "use mill.tumbling"),
        (lambda: mill.no_such_thing, "module 'millstream' has no attribute 'no_such_thing'"),
        (lambda: mill.WatermarkStrategy.for_bounded_out_of_orderness("5s"), 'use bounded_out_of_orderness("5s")'),
        (lambda: mill.WatermarkStrategy.ascendin(), "did you mean 'ascending'?"),
        (lambda: mill.WatermarkStrategy.ascending().with_timestamp_assigner(id), 'event_time("at", watermark=…)'),
        (lambda: _timed().group_by_dynamic("at"), 'window_all(mill.tumbling("1m"))'),
        (lambda: _timed().filtr(), "'Stream' object has no attribute 'filtr'; did you mean 'filter'?"),
        (lambda: _timed().key_by("k").proces(), "did you mean 'process'?"),
        (lambda: _timed().key_by("k").window(mill.tumbling("1m")).proces(), "if 'process' is meant: use apply()"),
    ],
)
def test_a_name_that_is_not_there_is_answered_with_what_is_meant(use: Any, said: str) -> None:
    with pytest.raises(AttributeError) as caught:
        use()
    assert said in str(caught.value)


def test_the_package_is_probed_as_any_other() -> None:
    assert not hasattr(mill, "__wrapped__")
    assert getattr(mill, "_no_such_thing", 3) == 3
    with pytest.raises(ImportError):
        exec("from millstream import no_such_thing")


def _function(**methods: Any) -> mill.ProcessFunction:
    return type("Rise", (mill.ProcessFunction,), methods)()


def _process(self: Any, row: Any, ctx: Any) -> list[Any]:
    return []


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ({"proces": _process}, r"Rise has a method proces\(\) that is never called; did you mean process\(self, row, ctx\)\?"),
        ({"prcoess": _process}, r"did you mean process\("),
        ({"Process": _process}, r"did you mean process\("),
        ({"process": _process, "ontimer": _process}, r"did you mean on_timer\(self, at, ctx\)\?"),
        ({"process": _process, "onTimer": _process}, r"did you mean on_timer\("),
        ({"process": _process, "on_ned": lambda self, ctx: []}, r"did you mean on_end\("),
        ({"process": _process, "opne": lambda self: None}, r"did you mean open\(self\)\?"),
        ({"process": _process, "clos": lambda self: None}, r"did you mean close\(self\)\?"),
    ],
)
def test_a_method_whose_name_is_a_slip_is_refused(methods: dict[str, Any], said: str) -> None:
    with pytest.raises(mill.PlanError, match=said):
        _timed().key_by("k").process(_function(**methods), schema={"n": int})


def _made(base: type, **body: Any) -> Any:
    return type("Mine", (base,), body)()


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (
            lambda: _timed().event_time("at", watermark=_made(mill.WatermarkGenerator, on_bacth=lambda self, times, batch: None)),
            r"Mine has a method on_bacth\(\) that is never called; did you mean on_batch\(self, times, batch\)\?",
        ),
        (
            lambda: _timed().event_time("at", watermark=_made(mill.WatermarkGenerator, on_batch=lambda self, times: None)),
            r"event_time\(Mine\) calls <lambda>\(times, batch\)",
        ),
        (
            lambda: mill.from_iter([1]).sink_to(_made(Closing, delet=lambda self, batch: None)),
            r"Mine has a method delet\(\) that is never called; did you mean delete\(self, batch\)\?",
        ),
        (
            lambda: mill.from_iter([1]).sink_to(_made(Closing, write=lambda self: None)),
            r"sink_to\(Mine\) calls <lambda>\(batch\), and <lambda>\(\) takes no argument",
        ),
    ],
)
def test_sinks_and_generators_of_watermarks_are_checked_too(use: Any, said: str) -> None:
    with pytest.raises(mill.PlanError, match=said):
        use()


class Losing(mill.ProcessFunction):
    def process(self, row: Any, ctx: Any) -> list[Any]:
        return []

    def lose(self) -> None:
        pass


class InAComprehension(Losing):
    def on_end(self, ctx: Any) -> list[Any]:
        return [self.lose() for _ in range(2)]


class InALambda(Losing):
    def on_end(self, ctx: Any) -> list[Any]:
        return sorted([], key=lambda row: [self.lose() for _ in range(2)])


class InAProperty(Losing):
    @property
    def lost(self) -> None:
        return self.lose()


class InAStaticMethod(Losing):
    @staticmethod
    def lose_all(those: list[Losing]) -> None:
        for each in those:
            each.lose()


def _decorated(function: Any) -> Any:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


class Decorated(Losing):
    @_decorated
    def on_end(self, ctx: Any) -> list[Any]:
        self.lose()
        return []


@pytest.mark.parametrize("kind", [InAComprehension, InALambda, InAProperty, InAStaticMethod, Decorated])
def test_a_method_is_used_wherever_in_its_class_it_is_called(kind: type[mill.ProcessFunction]) -> None:
    # Only the code of the methods themselves was looked at, and not that of functions inside it.
    _timed().key_by("k").process(kind(), schema={"n": int})


def test_a_helper_that_only_other_code_calls_is_told_apart_by_an_underscore() -> None:
    with pytest.raises(mill.PlanError, match=r"did you mean close\(self\)\? If it is a helper of yours, call it lose_\(\)"):
        _timed().key_by("k").process(Losing(), schema={"n": int})


def test_methods_with_names_of_their_own_are_left_alone() -> None:
    class Helped(mill.ProcessFunction):
        def process(self, row: Any, ctx: Any) -> list[Any]:
            return self.proces(row, ctx)

        def proces(self, row: Any, ctx: Any) -> list[Any]:
            return []

        def processed(self, row: Any, ctx: Any) -> None: ...
        def opened(self) -> None: ...
        def closed(self) -> None: ...
        def on_time(self) -> None: ...

        @staticmethod
        def on_ed(ctx: Any) -> None: ...

    assert _timed().key_by("k").process(Helped(), schema={"n": int}).schema.names == ["n"]


# -- numbers of parameters -------------------------------------------------------------------------------------------------


class Product:
    def create(self) -> int:
        return 1

    def add(self, state: int) -> int:
        return state

    def merge(self, left: int, right: int) -> int:
        return left * right

    def result(self, state: int) -> int:
        return state


class Adds:
    def __call__(self, a: Any, b: Any) -> Any:
        return a


async def _nothing() -> None:
    pass


def _finds_nothing() -> dict[int, Any]:
    return {}


def _windowed() -> Any:
    return _timed().key_by("k").window(mill.tumbling("1m"))


X = {"n": int}


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda: _timed().map(lambda: 1, schema=X), r"map\(\) calls <lambda>\(row\), and <lambda>\(\) takes no argument"),
        (lambda: _timed().map(lambda: 1), r"map\(\) calls"),
        (lambda: _timed().flat_map(lambda a, b: 1, schema=X), r"flat_map\(\) calls .*\(a, b\) takes 2 arguments"),
        (lambda: _timed().filter(lambda a, b: True), r"filter\(\) calls"),
        (lambda: _timed().inspect(lambda: None), r"inspect\(\) calls"),
        (lambda: _timed().map_batches(lambda: None), r"map_batches\(\) calls <lambda>\(batch\)"),
        (lambda: _timed().for_each(lambda: None), r"for_each\(\) calls"),
        (lambda: _timed().for_each_batch(lambda: None), r"for_each_batch\(\) calls"),
        (lambda: _timed().map_async(_nothing, schema=X), r"map_async\(\) calls _nothing\(row\)"),
        (lambda: _timed().map_batches_async(_nothing), r"map_batches_async\(\) calls"),
        (lambda: mill.lookup(_finds_nothing, schema=X), r"lookup\(\) calls _finds_nothing\(keys\)"),
        (lambda: _timed().key_by("k").reduce(lambda a: a), r"reduce\(\) calls <lambda>\(before, row\), and <lambda>\(a\) takes one argument"),
        (lambda: _windowed().reduce(lambda a: a), r"reduce\(\) calls"),
        (lambda: _windowed().apply(lambda rows: rows, schema=X), r"apply\(\) calls <lambda>\(key, window, rows\)"),
        (lambda: mill.ReducingState(int, lambda a: a), r"a ReducingState calls <lambda>\(before, value\)"),
        (lambda: mill.aggregate(Product, "amount"), r"aggregate\(Product\) calls add\(state, value\), and add\(state\) takes one"),
        (lambda: mill.udf(returns=int)(lambda a, b: a)("amount"), r"calls <lambda>\(value_1\), and <lambda>\(a, b\) takes 2"),
        (lambda: _timed().map(Adds(), schema=X), r"map\(\) calls Adds\(row\), and Adds\(a, b\) takes 2"),
        (lambda: _timed().map(functools.partial(Adds(), 1, 2), schema=X), r"takes no argument"),
        (lambda: _timed().map(lambda *, row: 1, schema=X), r"takes row by name only"),
        (lambda: _timed().map(lambda a, b, *c: 1, schema=X), r"takes at least 2 arguments"),
        (lambda: _timed().map(lambda a, b, c=1: 1, schema=X), r"takes 2 to 3 arguments"),
        (lambda: _timed().key_by("k").process(_function(process=lambda self, row: []), schema=X), r"<lambda>\(row, ctx\)"),
        (lambda: _timed().key_by("k").process(_function(process=_process, on_timer=lambda self, at: []), schema=X), r"<lambda>\(at, ctx\)"),
        (lambda: _timed().key_by("k").process(_function(process=_process, on_end=lambda self: []), schema=X), r"<lambda>\(ctx\)"),
        (lambda: _timed().key_by("k").process(_function(process=_process, open=lambda self, ctx: 0), schema=X), r"<lambda>\(ctx\) takes one"),
        (
            lambda: _timed().key_by("k").connect(_timed().key_by("k")).process(
                _function(process_left=lambda self, row: [], process_right=_process), schema=X
            ),
            r"<lambda>\(row, ctx\)",
        ),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_where_it_is_declared(use: Any, said: str) -> None:
    with pytest.raises(mill.PlanError, match=said):
        use()


def _passes_more(function: Any) -> Any:
    @functools.wraps(function)
    def calls(row: Any) -> Any:
        return function(row, 1)

    return calls


@pytest.mark.parametrize(
    "function",
    [
        lambda *all: 1,
        lambda row, more=1, *rest, named=2, **others: 1,
        len,
        str,
        operator.itemgetter("k"),
        functools.partial(Adds(), 1),
        functools.partial(lambda a, b: a, b=1),
        functools.lru_cache(lambda row: 1),
        _passes_more(lambda row, more: 1),
        unittest.mock.Mock(),
    ],
)
def test_what_may_be_callable_is_taken(function: Any) -> None:
    assert _timed().map(function, schema=X).schema.names == ["n"]


def test_functions_of_numba_are_taken() -> None:
    numba = pytest.importorskip("numba")
    add = numba.njit(lambda a, b: a + b)
    assert _timed().map(add, schema=X).schema.names == ["n"]
    assert _timed().select(s=mill.udf(returns=int)(add)("k", "amount")).collect()["s"] == [3]


# -- options and values ----------------------------------------------------------------------------------------------------


def _updating() -> Any:
    return _timed().key_by("k").agg(n=mill.count(), emit="each")


async def _maps(row: Any):  # type: ignore[no-untyped-def]
    return {"n": 1}


class Silent(mill.WatermarkGenerator):
    period = "1s"

    def on_batch(self, times: Any, batch: Any) -> None:
        return None


class Never(mill.WatermarkGenerator):
    def on_batch(self, times: Any, batch: Any) -> None:
        return None

    def on_periodic(self) -> None:
        return None


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda: _updating().map(lambda row: {"n": 1}), r"^map\(\) does not take an updating stream"),
        (lambda: _updating().flat_map(lambda row: [{"n": 1}]), r"^flat_map\(\) does not take an updating stream"),
        (lambda: _updating().map_async(_maps), r"^map_async\(\) does not take an updating stream"),
        (lambda: _timed().event_time("at", watermark=None), r'watermark= is how far records may be out of order, such as "5s"'),
        (lambda: mill.WatermarkStrategy(), "this one has none; write bounded_out_of_orderness"),
        (lambda: mill.WatermarkStrategy("1s", column="at"), "this one has 2; write"),
        (lambda: mill.on_watermark(late=mill.on_count(3)), r"mill\.every\(100\) or mill\.each\(\).*write late=mill\.every\(3\)"),
        (lambda: mill.on_watermark(early=mill.on_processing_time("1s")), "write early='1s'"),
        (lambda: mill.on_watermark(early=[]), r"such as \"1s\", mill\.every\(100\) or mill\.each\(\), not \[\]"),
        (
            lambda: _timed().key_by("k").window(mill.tumbling("1m"), trigger=mill.each()),
            r"mill\.each\(\) is how often one fires; write trigger=mill\.on_watermark\(early=mill\.each\(\)\)",
        ),
        (lambda: _timed().key_by("k").window(mill.tumbling("1m"), trigger=mill.every(3)), r"early=mill\.every\(3\)"),
        (lambda: _timed().key_by("k").window(mill.tumbling("1m"), trigger="5s"), r"mill\.on_processing_time\('5s'\)"),
        (lambda: _timed().key_by("k").agg(n=mill.count(), emits="each"), r"agg\(\) has no emits=; did you mean emit='each'\?"),
        (lambda: _timed().key_by("k").agg(n=mill.count(), emit="eachs"), r'emit is \'eachs\'; did you mean "each"\?'),
        (lambda: _timed().key_by("k").agg(n=mill.count(), emit="5"), r"which is not a duration"),
        (lambda: mill.tumbling("10000000w"), "too long: '10000000w'; a duration has at most 53375995 days"),
        (lambda: mill.WatermarkStrategy("1s").with_alignment("1s", group=""), "takes a name"),
        (lambda: mill.WatermarkStrategy("1s").with_alignment("1s", group=" "), "takes a name"),
        (lambda: _timed().event_time("at", watermark=Silent()), r"Silent has period='1s' and no on_periodic\(\)"),
        (lambda: _timed().event_time("at", watermark=Never()), r"Never has on_periodic\(\) and no period"),
        (lambda: mill.ValueState(int, clock="processing"), 'clock="processing" of a state is about the age of values, and without ttl='),
        (lambda: mill.ListState(int, refresh="read"), 'refresh="read" of a state is about the age of values'),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_with_what_is(use: Any, said: str) -> None:
    with pytest.raises(mill.PlanError, match=said):
        use()


def test_a_default_of_another_type_is_named_as_one() -> None:
    with pytest.raises(mill.SchemaError) as caught:
        mill.ValueState(int, default="x")  # type: ignore[arg-type]
    assert str(caught.value) == "a ValueState of int64 cannot have the default 'x': the state is int64 and cannot hold 'x' (str)"


def test_a_state_of_two_classes_is_refused_with_their_names() -> None:
    shared = mill.ValueState(int)

    class First(mill.ProcessFunction):
        total = shared

        def process(self, row: Any, ctx: Any) -> list[Any]:
            return []

    def again(owner: type) -> type:
        """Make the class again, as a decorator does."""
        return type(owner.__name__, owner.__bases__, {**vars(owner), "__dict__": None, "__weakref__": None})

    again(First)
    assert _timed().key_by("k").process(First(), schema=X).schema.names == ["n"]

    class Second(First):
        total = shared

    with pytest.raises(mill.PlanError, match="one state belongs to two classes, as 'total' to First and as 'total' to Second"):
        _timed().key_by("k").process(Second(), schema=X)


@pytest.mark.parametrize(("returned", "shown"), [(3, "an int"), (0, "an int"), ({"n": 1}, "a dict"), ("ab", "a str")])
def test_flat_map_says_what_it_was_returned(returned: Any, shown: str) -> None:
    said = rf"takes a function that returns several records \(a list, a generator\), and this one returned {shown}; yield it, or return \[it\]"
    with pytest.raises(mill.UserFunctionError, match=said):
        _timed().flat_map(lambda row: returned, schema=X).collect()
    with pytest.raises(mill.UserFunctionError, match=said):
        _timed().flat_map(lambda row: returned)


def test_all_nan_are_one_key_of_a_map() -> None:
    """Each NaN was an entry of its own, and after a call none of them was found."""

    class Counts(mill.ProcessFunction):
        seen = mill.MapState(float, int)
        aged = mill.MapState(float, int, ttl="1d", clock="processing")

        def process(self, row: Any, ctx: Any) -> Iterator[Any]:
            for counts in (self.seen, self.aged):
                counts[row.x] = counts.get(row.x, 0) + 1
            yield {"n": self.seen[float("nan")], "aged": self.aged[float("nan")], "all": len(self.seen), "is_in": float("nan") in self.seen}

    rows = [{"k": 1, "x": x} for x in (float("nan"), -float("nan"), float("nan"), 0.0, -0.0)]
    stream = mill.from_iter(rows).key_by("k").process(Counts(), schema={"n": int, "aged": int, "all": int, "is_in": bool})
    found: list[Any] = []
    mill.testing.simulate(stream.for_each(lambda row: found.append(tuple(row))), seed=1, frame_rows=2, parallelism=1)
    assert found == [(1, 1, 1, True), (2, 2, 1, True), (3, 3, 1, True), (3, 3, 2, True), (3, 3, 2, True)]


class Limits(mill.ProcessFunction):
    limits = mill.MapState(float, int, broadcast=True)

    def __init__(self, at_open: Any = None, at_broadcast: Any = None) -> None:
        self.at_open, self.at_broadcast = at_open, at_broadcast

    def open(self) -> None:
        if self.at_open is not None:
            self.at_open(self)

    def process_broadcast(self, row: Any, ctx: Any) -> None:
        self.limits[row.x] = self.limits.get(row.x, 0) + 1
        if self.at_broadcast is not None:
            self.at_broadcast(self)

    def process(self, row: Any, ctx: Any) -> Iterator[Any]:
        yield {"n": len(self.limits)}


def test_broadcast_state_has_the_same_care() -> None:
    def stream(function: mill.ProcessFunction) -> mill.Stream:
        rules = mill.from_iter([{"x": float("nan")}, {"x": float("nan")}])
        return _timed().key_by("k").process(function, schema=X, broadcast=rules)

    assert stream(Limits()).collect()["n"] == [1]
    with pytest.raises(mill.UserFunctionError, match="state 'limits' can be used while a job calls"):
        stream(Limits(at_open=lambda own: len(own.limits))).collect()
    with pytest.raises(mill.UserFunctionError, match="'MapState' object has no attribute 'claer'; did you mean 'clear'"):
        stream(Limits(at_broadcast=lambda own: own.limits.claer())).collect()
    with pytest.raises(mill.PlanError, match=r"process\(\) calls <lambda>\(row, ctx\), and <lambda>\(row\) takes one argument"):
        stream(_made(Limits, process_broadcast=lambda self, row: None))
    with pytest.raises(mill.PlanError, match=r"migrate= of a state calls <lambda>\(old\), and <lambda>\(\) takes no argument"):
        mill.ValueState(int, migrate=lambda: 1)  # type: ignore[misc, arg-type]
