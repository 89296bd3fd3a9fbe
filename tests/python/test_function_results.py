"""What functions return, held to the declared columns; what they raise, with its traceback; how much they may return."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill
from millstream import col, lit
from millstream.errors import DataError, PlanError, UserFunctionError
from millstream.functions import PIECE_ROWS

NUMBERS = mill.from_iter([{"k": 0, "x": i} for i in range(6)])


# -- map_batches ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, Any, str]] = {
    "text": (pa.array(["x", "y", "3"]), int, r'row 0: column "v" is int64 and cannot hold "?x"?'),
    "fraction": (pa.array([1.0, 1.7, 2.0]), int, r'row 1: column "v" is int64 and cannot hold 1\.7'),
    "nan": (pa.array([1.0, 2.0, math.nan]), int, r'row 2: column "v"'),
    "range": (pa.array([1, 300, -1]), pa.uint8(), r'row 1: column "v" is uint8 and cannot hold 300'),
    "negative": (pa.array([1, 2, -1]), pa.uint8(), r"row 2.*-1"),
    "inexact": (pa.array([1, 2, 2**53 + 1]), float, r"row 2.*9007199254740993"),
    "truth": (pa.array([True, False, True]), int, r'column "v"'),
    "number as truth": (pa.array([1, 0, 1]), bool, r'column "v"'),
    "overflow to float32": (pa.array([1.0, 1e300, 0.0]), pa.float32(), r"row 1.*1e300|row 1"),
    "coarser time": (pa.array([0, 1, 1000], pa.timestamp("ms")), mill.Timestamp("s"), r"row 1"),
    "zone": (pa.array([0, 1, 2], pa.timestamp("us")), mill.Timestamp("us", "UTC"), r'column "v"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_batch_with_other_values_than_declared_is_refused(name: str) -> None:
    array, kind, message = REFUSED[name]
    stream = mill.from_iter([1, 2, 3]).map_batches(lambda batch: {"v": array}, schema={"v": kind})
    with pytest.raises(mill.UserFunctionError, match=message) as info:
        stream.collect(parallelism=1)
    assert "map_batches" in str(info.value)


def test_values_that_stay_the_same_are_converted() -> None:
    stream = mill.from_iter([1, 2, 3])
    for array, kind, wanted in [
        (pa.array([1.0, 2.0, None]), int, [1, 2, None]),
        (pa.array([1, 2, 3], pa.int8()), float, [1.0, 2.0, 3.0]),
        (pa.array(["a", None, "c"], pa.large_string()), str, ["a", None, "c"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), str, ["a", "b", "a"]),
        (pa.array([None, None, None]), int, [None, None, None]),
    ]:
        found = stream.map_batches(lambda batch, array=array: {"v": array}, schema={"v": kind})
        assert found.collect(parallelism=1)["v"] == wanted


def test_of_a_batch_that_is_row_for_row_only_what_does_not_fit_is_rejected() -> None:
    array = pa.array([1.0, 1.5, 2.0, 2.5])
    stream = mill.from_iter([10, 11, 12, 13]).map_batches(lambda batch: {"v": array}, schema={"v": int})
    assert stream.collect(parallelism=1, on_error="skip")["v"] == [1, 2]
    errors = stream.errors.collect(parallelism=1, on_error="route").to_pylist()
    assert [row["record"] for row in errors] == ['{"value":11}', '{"value":13}']


COLUMNS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "missing": (lambda batch: {}, 'column "v" is missing'),
    "unknown": (lambda batch: {"v": batch["value"], "w": batch["value"]}, 'unknown column "w"'),
    "twice": (lambda batch: pa.record_batch([batch["value"], batch["value"]], ["v", "v"]), 'two columns have the name "v"'),
    "lengths": (lambda batch: {"v": pa.array([1]), "w": pa.array([1, 2])}, "raised"),
    "no batch": (lambda batch: 5, "returns a pyarrow.RecordBatch"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_other_columns_than_declared_are_refused(name: str) -> None:
    function, message = COLUMNS[name]
    schema: dict[str, Any] = {"v": int, "w": int} if name == "lengths" else {"v": int}
    stream = mill.from_iter([1, 2]).map_batches(function, schema=schema)
    with pytest.raises(mill.UserFunctionError, match=message):
        stream.collect(parallelism=1)
    assert stream.collect(parallelism=1, on_error="skip").to_pylist() == []


# -- compiled ------------------------------------------------------------------------------------------------------------


def half(v: Any) -> Any:
    return v / 2


def product(v: Any) -> Any:
    return v * 3037000500


def power(v: Any) -> Any:
    return v**3


def summed(v: Any) -> Any:
    total = v
    total += 9223372036854775800
    return total


def negated(v: Any) -> Any:
    return -v


def shifted(v: Any) -> Any:
    return v << 40


def same(v: Any) -> Any:
    return v


def nan(v: Any) -> Any:
    return v * math.nan


COMPILED: list[tuple[Callable[[Any], Any], Any, list[Any], Any]] = [
    (half, int, [1, 3], None),
    (half, int, [2, 4], None),
    (half, float, [1, 2], None),
    (product, int, [1, 3037000500], None),
    (power, int, [-3, 2097152], None),
    (summed, int, [1, 8], None),
    (negated, int, [5, -(2**63)], None),
    (shifted, int, [1, 2**30], None),
    (nan, int, [1.0], None),
    (same, pa.uint8(), [255, 256], None),
    (same, pa.uint8(), [-1], None),
    (same, float, [2**53, 2**53 + 1], None),
    (same, pa.float32(), [1.0, 1e300], None),
    (same, float, [None, 1.5], None),
    (product, pa.uint64(), [2**33], pa.uint64()),
    (same, pa.uint64(), [2**63], pa.uint64()),
    (same, pa.float32(), [0.1], pa.float32()),
    (lambda v: v + 0.1, float, [0.1], pa.float32()),
    (lambda v: v + v, int, [100], pa.int8()),
]


@pytest.mark.parametrize("place", range(len(COMPILED)))
def test_a_compiled_function_gives_what_the_interpreter_gives(place: int) -> None:
    function, returns, values, kind = COMPILED[place]
    schema = {"v": kind or (float if any(isinstance(value, float) for value in values) else int)}
    compiled, plain = mill.udf(returns=returns, compiled=True)(function), mill.udf(returns=returns)(function)
    for value in values:
        stream = mill.from_iter([{"v": value}], schema=schema)

        def found(made: Any, stream: mill.Stream = stream) -> Any:
            try:
                return stream.select(o=made("v")).collect().to_pylist()
            except mill.MillstreamError as error:
                return type(error).__mro__[-4:]

        ours, theirs = found(compiled), found(plain)
        if value == 2**63 and isinstance(theirs, list):
            # An unsigned number beyond the signed ones is refused by compiled code; it is never another number.
            assert isinstance(ours, tuple)
        else:
            assert repr(ours) == repr(theirs), value


def test_a_compiled_function_of_another_kind_is_refused_where_it_is_used() -> None:
    stream = mill.from_iter([1])
    for function, returns, message in [
        (lambda v: v > 1, int, "returns bool, not int64"),
        (lambda v: v + 1, bool, "returns int64, not bool"),
        (lambda v: "x", int, "a number or a truth value"),
    ]:
        with pytest.raises(mill.PlanError, match=message):
            stream.select(o=mill.udf(returns=returns, compiled=True)(function)("value"))

    def sometimes(v: Any) -> Any:
        if v > 0:
            return v
        return None

    with pytest.raises(mill.PlanError, match="None on some of its ways"):
        stream.select(o=mill.udf(returns=int, compiled=True)(sometimes)("value"))


# -- what is raised ------------------------------------------------------------------------------------------------------


def boom(value: Any) -> Any:
    if value == 5:
        raise ValueError("boom")
    return value


class Sum(mill.Aggregate):
    """A sum that fails for one value."""

    def create(self) -> int:
        return 0

    def add(self, state: int, value: int) -> int:
        return state + int(boom(value))

    def merge(self, left: int, right: int) -> int:
        return left + right

    def result(self, state: int) -> int:
        return state


def fold(left: Any, right: Any) -> Any:
    boom(right.x)
    return right


def compiled_boom(value: int) -> int:
    if value == 5:
        raise ValueError("boom")
    return value


class Each(mill.ProcessFunction):
    """Fails for one value, in the method that it names."""

    last = mill.ValueState(int)

    def __init__(self, method: str) -> None:
        self.method = method

    def fail(self, method: str, value: Any) -> Any:
        return boom(value) if method == self.method else value

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        self.last.value = row.x
        ctx.timers.processing_time(ctx.now + timedelta(seconds=row.x))
        yield {"x": self.fail("process", row.x)}

    def on_timer(self, at: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"x": self.fail("on_timer", 5)}

    def on_end(self, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"x": self.fail("on_end", 5)}


class Folded(mill.ProcessFunction):
    total = mill.ReducingState(int, lambda a, b: boom(b) + a)

    def process(self, row: Any, ctx: mill.ProcessContext) -> Iterator[Any]:
        yield {"x": self.total.add(row.x)}


async def boom_later(row: Any) -> Any:
    return {"x": boom(row.x)}


def find(keys: list[int]) -> dict[int, int]:
    return {key: boom(key) for key in keys}


RAISING: dict[str, mill.Stream] = {
    "map": NUMBERS.map(lambda row: {"x": boom(row.x)}, schema={"x": int}),
    "filter": NUMBERS.filter(lambda row: boom(row.x) >= 0),
    "inspect": NUMBERS.inspect(lambda row: boom(row.x)),
    "flat_map": NUMBERS.flat_map(lambda row: [{"x": boom(row.x)}], schema={"x": int}),
    "udf": NUMBERS.select(y=mill.udf(returns=int)(boom)("x")),
    "compiled": NUMBERS.select(y=mill.udf(returns=int, compiled=True)(compiled_boom)("x")),
    "reduce": NUMBERS.key_by("k").reduce(fold),
    "aggregate": NUMBERS.key_by("k").agg(s=mill.aggregate(Sum, "x")),
    "process": NUMBERS.key_by("k").process(Each("process"), schema={"x": int}),
    "on_timer": NUMBERS.filter(col("x") == 5).key_by("k").process(Each("on_timer"), schema={"x": int}),
    "on_end": NUMBERS.filter(col("x") == 5).key_by("k").process(Each("on_end"), schema={"x": int}),
    "reducing": NUMBERS.key_by("k").process(Folded(), schema={"x": int}),
    "window reduce": NUMBERS.key_by("k").window(mill.count_window(6)).reduce(fold),
    "apply": NUMBERS.key_by("k").window(mill.count_window(6)).apply(lambda key, window, rows: boom(5), schema={"x": int}),
    "window aggregate": NUMBERS.key_by("k").window(mill.count_window(6)).agg(s=mill.aggregate(Sum, "x")),
    "map_async": NUMBERS.map_async(boom_later, schema={"x": int}),
    "lookup": NUMBERS.enrich(mill.lookup(find, schema={"y": int}, batch_rows=1), on="x"),
    "left lookup": NUMBERS.enrich(mill.lookup(find, schema={"y": int}, batch_rows=1), on="x", how="left"),
    "named lookup": NUMBERS.enrich(mill.lookup(find, schema={"y": int}, batch_rows=1), on="x").name("find"),
    "map_batches": NUMBERS.map_batches(lambda batch: [boom(x) for x in batch["x"].to_pylist()], schema={"x": int}),
}


@pytest.mark.parametrize("name", RAISING)
def test_what_is_raised_keeps_its_traceback(name: str) -> None:
    stream = RAISING[name]
    with pytest.raises(mill.UserFunctionError, match="boom") as info:
        stream.collect(parallelism=1)
    cause = info.value.__cause__
    assert isinstance(cause, ValueError)
    assert any(frame.name in ("boom", "compiled_boom") for frame in traceback.extract_tb(cause.__traceback__))
    errors = stream.errors.collect(parallelism=1, on_error="route").to_pylist()
    assert len(errors) == (6 if name == "map_batches" else 1)
    for row in errors:
        assert "ValueError: boom" in row["traceback"]
        assert "in boom" in row["traceback"] or "in compiled_boom" in row["traceback"]
        assert row["record"]


class Mean(Sum):
    """A sum that is returned as a half."""

    def result(self, state: int) -> Any:
        return state / 2


MISFITS: dict[str, mill.Stream] = {
    "map": NUMBERS.map(lambda row: {"x": row.x + 0.5}, schema={"x": int}),
    "flat_map": NUMBERS.flat_map(lambda row: [{"x": row.x + 0.5}], schema={"x": int}),
    "udf": NUMBERS.select(y=mill.udf(returns=int)(lambda x: x + 0.5)("x")),
    "compiled": NUMBERS.select(y=mill.udf(returns=int, compiled=True)(lambda x: x + 0.5)("x")),
    "reduce": NUMBERS.key_by("k").reduce(lambda left, right: {"k": 0, "x": left.x + right.x + 0.5}),
    "aggregate": mill.from_iter([{"k": 0, "x": 1}]).key_by("k").agg(s=mill.aggregate(Mean, "x", returns=int)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_result_that_does_not_fit_is_a_failure_of_the_function(name: str) -> None:
    with pytest.raises(mill.UserFunctionError, match=r"does not fit.*column .* is int64 and cannot hold \d+\.5"):
        MISFITS[name].collect(parallelism=1)


def test_a_function_that_fails_while_its_columns_are_found_out() -> None:
    mixed = mill.from_iter(["1", "x", "3"]).map(lambda row: {"n": int(row.value)})
    assert mixed.schema == {"n": int}
    assert mixed.collect(on_error="skip")["n"] == [1, 3]
    with pytest.raises(mill.UserFunctionError, match="invalid literal") as info:
        mill.from_iter([{"x": "oops"}]).map(lambda row: {"x": int(row.x)})
    assert "map(<lambda>)" in str(info.value)
    assert '{"x":"oops"}' in str(info.value)
    assert "schema=" in str(info.value)
    assert isinstance(info.value.__cause__, ValueError)
    endless = mill.from_iter([1]).flat_map(lambda row: itertools.count(row.value))
    assert endless.schema == {"value": int}


def test_udf_without_parentheses() -> None:
    @mill.udf
    def upper(text: str) -> str:
        return text.upper()

    assert mill.from_iter(["a"]).select(u=upper("value")).collect()["u"] == ["A"]
    with pytest.raises(mill.PlanError, match="the type that .* returns is not known"):
        mill.udf(lambda text: text)


# -- many results --------------------------------------------------------------------------------------------------------


def test_results_come_in_order_whatever_their_number() -> None:
    sizes = [0, 1, 3, PIECE_ROWS - 4, PIECE_ROWS - 1, PIECE_ROWS, PIECE_ROWS + 1, 2, 3 * PIECE_ROWS + 5, 0, 7]

    def made(row: Any) -> Iterator[dict[str, int]]:
        for place in range(row.value):
            yield {"size": row.value, "place": place}

    found = mill.from_iter(sizes).flat_map(made, schema={"size": int, "place": int}).collect(parallelism=1).to_arrow()
    assert found["size"].to_pylist() == [size for size in sizes for _ in range(size)]
    assert found["place"].to_pylist() == [place for size in sizes for place in range(size)]


@pytest.mark.parametrize("before", [0, 10, PIECE_ROWS - 1])
@pytest.mark.parametrize("until", [0, 5, PIECE_ROWS - 1, PIECE_ROWS, PIECE_ROWS + 3, 2 * PIECE_ROWS + 1])
def test_a_record_that_fails_midway(before: int, until: int) -> None:
    def made(row: Any) -> Iterator[int]:
        for place in range(row.value):
            if row.value == 10_000_000 and place == until:
                raise ValueError("midway")
            yield row.value

    stream = mill.from_iter([before, 10_000_000, 4]).flat_map(made, schema=int)
    found = stream.collect(parallelism=1, on_error="skip")["value"]
    passed_on = until // PIECE_ROWS * PIECE_ROWS
    assert found == [before] * before + [10_000_000] * passed_on + [4] * 4
    [error] = stream.errors.collect(parallelism=1, on_error="route").to_pylist()
    assert "midway" in error["traceback"]


def test_a_limit_ends_a_function_without_end() -> None:
    endless = mill.from_iter([1]).flat_map(lambda row: itertools.count(), schema=int)
    for parallelism in (1, 2, 3):
        assert endless.limit(PIECE_ROWS + 10).collect(parallelism=parallelism)["value"] == list(range(PIECE_ROWS + 10))
        assert endless.filter(col("value") % 2 == 1).limit(3).collect(parallelism=parallelism)["value"] == [1, 3, 5]
        assert len(endless.limit(0).collect(parallelism=parallelism)) == 0
        assert endless.collect(limit=3, parallelism=parallelism)["value"] == [0, 1, 2]
    # Both ends of a stream that parts.
    seen: list[list[int]] = [[], []]
    mill.run(*(endless.limit(5).for_each(lambda row, into=into: into.append(row.value)) for into in seen), parallelism=2)
    assert seen == [[0, 1, 2, 3, 4]] * 2


def test_a_function_without_end_can_be_cancelled() -> None:
    entered = threading.Event()

    def slow(row: Any) -> Iterator[int]:
        entered.set()
        for place in itertools.count():
            time.sleep(0.01)
            yield place

    job = mill.start(mill.from_iter([1]).flat_map(slow, schema=int).for_each(lambda row: None), parallelism=1)
    assert entered.wait(20)
    began = time.monotonic()
    job.cancel()
    assert time.monotonic() - began < 10


def test_memory_does_not_grow_with_the_number_of_results() -> None:
    def peak(results: int) -> int:
        code = f"""
import resource, millstream as mill
def made(row):
    for _ in range({results}): yield {{"y": "q" * 1000}}
mill.run(mill.generate(rows=8, k=mill.index()).flat_map(made, schema={{"y": str}}).for_each_batch(lambda batch: None))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
        return int(subprocess.check_output([sys.executable, "-c", code]))

    small, large = peak(1_000), peak(40_000)
    assert large < small + 150, f"{small} MB for 8,000 results, {large} MB for 320,000"


def test_a_record_that_failed_shows_its_values_as_files_do() -> None:
    far = pa.array([2**62, None], pa.timestamp("s"))
    nested = pa.array([[{"at": 2**62, "t": 'say "x"'}], None], pa.list_(pa.struct([("at", pa.timestamp("s")), ("t", pa.string())])))
    table = pa.table(
        {
            "a": ["x", "y"],
            "far": far,
            "d": pa.array([2**62, 1], pa.duration("s")),
            "l": nested,
            "m": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
            "c": pa.array(["p", None]).dictionary_encode(),
            "n": pa.nulls(2),
        }
    )
    stream = mill.from_arrow(table).with_columns(col("a").cast(int).alias("i"))
    first, second = (row["record"] for row in stream.errors.collect(parallelism=1, on_error="route").to_pylist())
    assert "ERROR" not in first and "<invalid>" not in first
    year, nothing = "+146138514283-06-19T07:45:04", {"far": None, "l": None, "c": None, "n": None}
    nested = [{"at": year, "t": 'say "x"'}]
    assert json.loads(first) == {"a": "x", "far": year, "d": "PT4611686018427387904S", "l": nested, "m": {"k": 1}, "c": "p", "n": None}
    assert json.loads(second) == {"a": "y", "d": "PT1S", "m": {}, **nothing}


def test_a_dead_letter_is_the_whole_record(tmp_path: Path) -> None:
    strings = ["x" * 10_000, 'quote " backslash \\ tab \t', "\x00\x1b\u2028 \U0001f600", ""]
    record = {"n": "oops", "texts": strings, "f": float("nan"), "inf": float("-inf"), "b": b"\x00\xff", "d": Decimal("1.50"), 'a "name"': None}
    stream = mill.from_iter([record], schema={"n": str, "texts": list[str], "f": float, "inf": float, "b": bytes, "d": pa.decimal128(5, 2), 'a "name"': int})
    expected = {"n": "oops", "texts": strings, "f": "NaN", "inf": "-inf", "b": "00ff", "d": 1.5, 'a "name"': None}
    native, function = stream.with_columns(n=col("n").cast(int)), stream.map(lambda row: {"n": int(row.n)}, schema={"n": int})
    for failing in (native, function, function.select("n").filter(col("n") > 1).name("other")):
        [letter] = failing.all_errors.collect(on_error="route").to_pylist()
        assert json.loads(letter["record"]) == expected
        with pytest.raises((DataError, UserFunctionError)) as caught:
            failing.collect()
        assert len(str(caught.value)) < 5000
    # What JSON files have can be read back from it.
    mill.run(stream.write_json(tmp_path / "as-written"))
    [line] = next((tmp_path / "as-written").glob("*.json")).read_text().rstrip("\n").split("\n")
    assert json.loads(line) == expected
    lines = tmp_path / "long.csv"
    lines.write_bytes(b"n,t\n1,a\nx," + b"y" * 5000 + b"\n2,\xff\xfe\n")
    letters = mill.read_csv(lines, schema={"n": int, "t": str}).errors.collect(on_error="route")["record"]
    assert letters == ["x," + "y" * 5000, "2,\\xff\\xfe"]


def test_no_record_vanishes_with_route() -> None:
    rows = mill.from_iter([{"id": i, "x": x} for i, x in enumerate(["1", "oops", "0", "4"])])
    cast = rows.with_columns(n=col("x").cast(int)).name("cast")
    inverse = cast.map(lambda row: {"id": row.id, "inv": 1 / row.n}, schema={"id": int, "inv": float}).name("inverse")
    whole: list[Any] = []
    with pytest.raises(PlanError, match='records that fail in "cast" would reach no sink: write its .errors, or mill.all_errors'):
        mill.run(inverse.for_each(whole.append), inverse.errors.for_each(whole.append), on_error="route")
    with pytest.raises(PlanError, match="no sink takes the .errors of any step: write mill.all_errors"):
        mill.run(inverse.for_each(whole.append), on_error="route")
    assert not whole
    letters: list[Any] = []
    report = mill.run(inverse.for_each(whole.append), inverse.all_errors.for_each(letters.append), on_error="route")
    assert ([row.id for row in whole], sorted((row.step, json.loads(row.record)["id"]) for row in letters)) == ([0, 3], [("cast", 1), ("inverse", 2)])
    assert (report.rows_routed, report.rows_skipped) == (2, 0)
    assert {step.name: step.rows_routed for step in report.steps if step.rows_routed} == {"cast": 1, "inverse": 1}
    # What no plan expects fails the job, rather than being lost.
    sums = mill.from_iter([{"k": 1, "v": 2**62}] * 2).key_by("k").agg(total=col("v").sum())
    asked = rows.map(lambda row: row, schema={"id": int, "x": str})
    with pytest.raises(DataError, match="no sink takes the .errors of this step"):
        mill.run(sums.for_each(whole.append), asked.errors.for_each(letters.append), on_error="route")


class Inverse(mill.ProcessFunction):
    def process(self, row: Any, ctx: mill.ProcessContext) -> Any:
        yield {"x": 1 / row.n}


UNFIT: dict[str, Callable[[mill.Stream], mill.Stream]] = {
    "cast": lambda s: s.with_columns(y=col("x").cast(int)),
    "to_integer": lambda s: s.with_columns(y=col("x").str.to_integer(base=16)),
    "to_date": lambda s: s.filter(col("x").str.to_date("%Y") > date(2000, 1, 1)),
    "to_datetime": lambda s: s.with_columns(y=col("x").str.to_datetime("%Y-%m-%d", strict=True)),
    "branch": lambda s: s.branch(col("x").cast(int) > 0)[0],
    "process": lambda s: s.key_by("n").process(Inverse(), schema={"x": float}),
    "agg": lambda s: s.key_by("n").agg(y=col("x").cast(int).sum()),
    "window": lambda s: s.key_by("n").window(mill.tumbling("1s")).agg(y=col("x").cast(int).sum()),
    "kept window": lambda s: s.key_by("n").window(mill.sliding("2s", "1s")).agg(y=col("x").cast(int).quantile(0.5)),
    "gap": lambda s: s.key_by("n").window(mill.session(gap=col("x").cast(int) * lit(timedelta(seconds=1)))).agg(y=mill.count()),
    "top_n": lambda s: s.key_by("n").top_n(1, by=col("x").cast(int)),
    "join": lambda s: s.join(mill.from_iter([{"id": 1}]), left_on=col("x").cast(int), right_on="id"),
    "enrich": lambda s: s.enrich(mill.from_iter([{"id": 1}]), left_on=col("x").cast(int), right_on="id"),
}


@pytest.mark.parametrize("step", UNFIT)
def test_a_step_whose_records_may_fail_needs_a_sink_for_them(step: str) -> None:
    record = {"n": 0, "x": "oops", "t": datetime(2026, 1, 1)}
    failing = UNFIT[step](mill.from_iter([record]).event_time("t", watermark="1s"))
    other = mill.from_iter([{"x": "1"}]).map(lambda row: row)
    with pytest.raises(PlanError, match="would reach no sink: write its .errors"):
        mill.run(failing.for_each(print), other.errors.for_each(print), on_error="route")
    letters = failing.all_errors.collect(on_error="route").to_pylist()
    assert [json.loads(letter["record"])["n"] for letter in letters] == [0]


def test_a_step_whose_records_cannot_fail_needs_none() -> None:
    stream = mill.from_iter([{"x": "oops"}])
    fits = stream.with_columns(
        a=col("x").str.to_integer(strict=False), b=col("x").str.to_date(strict=False), c=col("x").cast(int, strict=False), d=col("x").cast(str)
    )
    whole: list[Any] = []
    mill.run(fits.for_each(whole.append), stream.map(lambda row: row).errors.for_each(print), on_error="route")
    assert [(row.a, row.b, row.c, row.d) for row in whole] == [(None, None, None, "oops")]


def test_a_reduce_keeps_its_key() -> None:
    rows = [{"k": 1, "x": 1}, {"k": 1, "x": 2}, {"k": 2, "x": 9}]
    keyed = mill.from_iter(rows).key_by("k")
    with pytest.raises(mill.MillstreamError, match='another key: column "k"'):
        keyed.reduce(lambda a, b: {"k": 2, "x": a.x + b.x}).collect()
    # Zero has no sign in a key, and NaN is one key.
    odd = [{"k": k, "x": 1} for k in (0.0, -0.0, float("nan"), float("nan"), None, None)]
    kept = mill.from_iter(odd).key_by("k").reduce(lambda a, b: {"k": b.k, "x": a.x + b.x}).collect()
    assert kept["x"] == [2, 2, 2]


def test_whole_numbers_of_python_in_small_floats() -> None:
    schema = pa.schema([("v", pa.float32())])
    assert mill.from_iter([{"v": 16777216}, {"v": 0.1}], schema=schema).collect()["v"][0] == 16777216.0
    for value in (16777217, 2**31 - 1, 2**63 - 1, 2**63):
        for call in (
            lambda value=value: mill.from_iter([{"v": value}], schema=schema).collect(),
            lambda value=value: mill.from_iter([1]).map(lambda r: {"v": value}, schema=schema).collect(),
        ):
            if value == 2**63:
                assert call()["v"] == [2.0**63]
                continue
            with pytest.raises(mill.MillstreamError, match=str(value)):
                call()


def test_messages_show_a_record_in_one_form() -> None:
    def fails(*given: Any) -> Any:
        raise ValueError("no")

    async def fails_later(row: Any) -> Any:
        raise ValueError("no")

    stream = mill.from_iter([{"k": "a", "n": 3, "t": None}], schema={"k": str, "n": int, "t": float})
    runs: list[Callable[[], Any]] = [
        lambda: stream.map(fails, schema={"n": int}).collect(),
        lambda: stream.map(fails),
        lambda: stream.map_async(fails_later, schema={"n": int}).collect(),
        lambda: stream.filter(fails).collect(),
        lambda: stream.map_batches(fails, schema={"n": int}).collect(),
        lambda: mill.run(stream.for_each(fails)),
    ]
    for run in runs:
        with pytest.raises(mill.UserFunctionError, match=r'ValueError: no; record: \{"k":"a","n":3,"t":null\}'):
            run()
