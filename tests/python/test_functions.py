"""Python functions as steps: rows, results, schemas, failures."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import pytest

import millstream as mill
from millstream import col
from millstream._bytecode import is_followed
from millstream.functions import MapAdapter, View

ROWS = [{"price": float(i), "qty": i % 4, "name": f"n{i}"} for i in range(1000)]


@dataclass
class Total:
    name: str
    total: float


class TotalTuple(NamedTuple):
    name: str
    total: float


class TotalDict(TypedDict):
    name: str
    total: float


WANTED = [{"name": r["name"], "total": r["price"] * r["qty"]} for r in ROWS]


@pytest.fixture
def stream() -> mill.Stream:
    return mill.from_iter(ROWS)


def as_dict(row: Any) -> dict[str, Any]:
    return {"name": row.name, "total": row.price * row.qty}


def as_dataclass(row: Any) -> Total:
    return Total(row["name"], row["price"] * row["qty"])


def as_named_tuple(row: Any) -> TotalTuple:
    return TotalTuple(row[2], row[0] * row[1])


def as_typed_dict(row: Any) -> TotalDict:
    return {"name": row.name, "total": row.price * row.qty}


def as_tuple(row: Any) -> tuple[str, float]:
    return row.name, row.price * row.qty


@pytest.mark.parametrize("function", [as_dict, as_dataclass, as_named_tuple, as_typed_dict, as_tuple])
@pytest.mark.parametrize("schema", [{"name": str, "total": float}, Total, TotalTuple, TotalDict])
def test_map_takes_every_form_of_record(stream: mill.Stream, function: Any, schema: Any) -> None:
    assert stream.map(function, schema=schema).collect().to_pylist() == WANTED


@pytest.mark.parametrize("function", [as_dataclass, as_named_tuple, as_typed_dict])
def test_annotation_gives_the_schema(stream: mill.Stream, function: Any) -> None:
    mapped = stream.map(function)
    assert mapped.schema == {"name": str, "total": float}
    assert mapped.collect().to_pylist() == WANTED


def test_first_values_give_the_schema(stream: mill.Stream) -> None:
    assert stream.map(lambda row: {"half": row.qty / 2}).schema == {"half": float}
    assert stream.map(lambda row: row.name).schema == {"value": str}
    assert stream.flat_map(lambda row: [row.qty] * 2).schema == {"value": int}


def test_schema_from_first_values_is_enforced() -> None:
    stream = mill.from_iter(range(500)).map(lambda row: row.value if row.value < 200 else "text")
    assert stream.schema == {"value": int}
    with pytest.raises(mill.UserFunctionError, match=r"cannot hold 'text'"):
        stream.collect()


def test_first_values_of_what_can_be_read_once_are_not_taken() -> None:
    stream = mill.from_iter(iter([1, 2, 3]), schema=int)
    with pytest.raises(mill.SchemaError, match="write map"):
        stream.map(lambda row: row.value)
    assert stream.collect()["value"] == [1, 2, 3]


def test_row_access(stream: mill.Stream) -> None:
    def check(row: Any) -> bool:
        assert row.price == row["price"] == row[0] == row.get("price")
        assert row.get("nothing", 7) == 7
        assert tuple(row) == (row.price, row.qty, row.name)
        assert row.asdict() == dict(row.items()) == {name: row[name] for name in row.keys()}
        assert repr(row).startswith("Row(price=")
        with pytest.raises(AttributeError, match=r"no column 'prise'; did you mean 'price'\? there are price, qty, name"):
            _ = row.prise
        with pytest.raises(KeyError, match="no column 'prise'"):
            row["prise"]
        return True

    assert len(stream.filter(check).collect()) == len(ROWS)


def test_columns_named_like_methods_and_keywords() -> None:
    stream = mill.from_iter([{"count": 1, "index": 2, "class": 3, "a b": 4, "__x": 5}])
    found = stream.map(lambda row: (row.count, row.index, row["class"], row["a b"], row["__x"]), schema=dict.fromkeys("abcde", int))
    assert list(found.collect().to_pylist()[0].values()) == [1, 2, 3, 4, 5]


VIEWS = [
    (lambda row: row.price * 2, ("price",)),
    (lambda row: row["price"] * 2, ("price",)),
    (lambda row: row.price + row["price"], ("price", "qty", "name")),
    (lambda row: row[0], ("price", "qty", "name")),
    (lambda row: row, ("price", "qty", "name")),
    (lambda row: [row.price for _ in range(2)][0], None),
    (lambda row: (lambda: row.price)(), ("price", "qty", "name")),
    (lambda row: row.get("price"), ("price", "qty", "name")),
    (lambda row: 1, ()),
    (as_dict, ("price", "qty", "name")),
]


@pytest.mark.parametrize("place", range(len(VIEWS)))
def test_a_cursor_gives_what_rows_give(place: int) -> None:
    function, fields = VIEWS[place]
    names = ("price", "qty", "name")
    columns = [[row[name] for row in ROWS] for name in names]
    view = View(function, names)
    if fields is not None and is_followed():
        assert view.fields == fields
    given = columns if view.used is None else [c for c, used in zip(columns, view.used, strict=True) if used]
    results, left, failures = MapAdapter(function, view)(given, len(ROWS))
    make = mill._row.row_class(names)
    assert results == [function(tuple.__new__(make, values)) for values in zip(*columns, strict=True)]
    assert left is None
    assert not failures


def test_flat_map_with_a_generator(stream: mill.Stream) -> None:
    def repeat(row: Any) -> Iterator[dict[str, Any]]:
        for number in range(row.qty):
            yield {"name": row.name, "number": number}

    found = stream.flat_map(repeat, schema={"name": str, "number": int}).collect().to_pylist()
    assert found == [{"name": r["name"], "number": n} for r in ROWS for n in range(r["qty"])]


def test_flat_map_of_one_record_is_refused(stream: mill.Stream) -> None:
    with pytest.raises(mill.UserFunctionError, match="returns several records"):
        stream.flat_map(lambda row: {"a": 1}, schema={"a": int}).collect()


def test_map_batches_takes_what_has_an_arrow_interface(stream: mill.Stream) -> None:
    import polars as pl
    import pyarrow as pa
    import pyarrow.compute as pc

    def as_record_batch(batch: Any) -> Any:
        return pa.record_batch({"x": pc.multiply(batch["price"], 2.0)})

    def as_arrays(batch: Any) -> Any:
        return {"x": pc.multiply(batch["price"], 2.0)}

    def as_polars(batch: Any) -> Any:
        return pl.DataFrame(batch).select(x=pl.col("price") * 2)

    def as_numpy(batch: Any) -> Any:
        return {"x": batch["price"].to_numpy() * 2}

    for function in (as_record_batch, as_arrays, as_polars, as_numpy):
        found = stream.map_batches(function, schema={"x": float}).collect()
        assert found["x"] == [r["price"] * 2 for r in ROWS], function.__name__


def test_map_batches_with_other_columns_than_declared(stream: mill.Stream) -> None:
    with pytest.raises(mill.UserFunctionError, match=r'unknown column "y"; the schema has x'):
        stream.map_batches(lambda batch: {"y": batch["price"]}, schema={"x": float}).collect()


def test_udf() -> None:
    @mill.udf(returns=float)
    def scaled(price: float, qty: int) -> float:
        return price * qty

    @mill.udf()
    def first_letter(text: str) -> str:
        return text[:1]

    found = mill.from_iter(ROWS).select(t=scaled(col("price"), col("qty")) + 1, n=first_letter(col("name"))).collect().to_pylist()
    assert found == [{"t": r["price"] * r["qty"] + 1, "n": "n"} for r in ROWS]
    assert scaled(2.0, 3) == 6.0
    nulls = mill.from_iter(["a", None]).select(n=first_letter(col("value"))).collect()
    assert nulls["n"] == ["a", None]


def test_compiled_udf() -> None:
    @mill.udf(returns=float, compiled=True)
    def scaled(price: float, qty: int) -> float:
        if qty < 0:
            raise ValueError("negative")
        return price * qty

    @mill.udf(returns=bool, compiled=True)
    def is_dear(price: float) -> bool:
        return price > 500

    stream = mill.from_iter(ROWS).select(t=scaled(col("price"), col("qty")), d=is_dear(col("price")))
    assert stream.collect().to_pylist() == [{"t": r["price"] * r["qty"], "d": r["price"] > 500} for r in ROWS]
    assert "compiled" in stream.explain()
    nulls = mill.from_iter([{"p": 1.0, "q": 2}, {"p": None, "q": 3}, {"p": 2.0, "q": 4}])
    assert nulls.select(t=scaled(col("p"), col("q"))).collect()["t"] == [2.0, None, 8.0]
    failing = mill.from_iter([{"p": 1.0, "q": -1}]).select(t=scaled(col("p"), col("q")))
    with pytest.raises(mill.UserFunctionError, match="negative") as info:
        failing.collect()
    assert isinstance(info.value.__cause__, ValueError)
    with pytest.raises(mill.SchemaError, match="numbers and truth values, not str"):
        mill.from_iter(["a"]).select(d=is_dear(col("value")))


def fragile(row: Any) -> dict[str, Any]:
    if row.value == 13:
        raise ValueError("unlucky")
    return {"n": row.value}


def test_failure_keeps_the_exception_and_names_step_and_record() -> None:
    stream = mill.from_iter(range(20)).map(fragile, schema={"n": int})
    with pytest.raises(mill.UserFunctionError, match="unlucky") as info:
        stream.collect()
    message = str(info.value)
    assert "fragile" in message
    assert '{"value":13}' in message
    cause = info.value.__cause__
    assert isinstance(cause, ValueError)
    assert cause.__traceback__ is not None
    frames = []
    trace = cause.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "fragile" in frames


def test_failure_skipped_is_counted() -> None:
    kept: list[int] = []
    stream = mill.from_iter(range(20)).map(fragile, schema={"n": int})
    report = mill.run(stream.for_each(lambda row: kept.append(row.n)), on_error="skip")
    assert kept == [n for n in range(20) if n != 13]
    assert report.rows_skipped == 1


def test_failure_routed() -> None:
    kept: list[int] = []
    failed: list[dict[str, Any]] = []
    stream = mill.from_iter(range(20)).map(fragile, schema={"n": int}).name("risky")
    report = mill.run(
        stream.for_each(lambda row: kept.append(row.n)),
        stream.errors.for_each(lambda row: failed.append(row.asdict())),
        on_error="route",
    )
    assert kept == [n for n in range(20) if n != 13]
    assert report.rows_routed == 1
    [error] = failed
    assert error["step"] == "risky"
    assert "unlucky" in error["error"]
    assert "in fragile" in error["traceback"]
    assert error["record"] == '{"value":13}'


def test_result_that_does_not_fit_is_a_failure_of_its_record() -> None:
    stream = mill.from_iter(range(5)).map(lambda row: {"n": "x" if row.value == 2 else row.value}, schema={"n": int})
    with pytest.raises(mill.UserFunctionError, match=r"""column "n" is int64 and cannot hold 'x'"""):
        stream.collect()
    assert stream.collect(on_error="skip")["n"] == [0, 1, 3, 4]


def test_result_with_unknown_columns_is_refused() -> None:
    stream = mill.from_iter(range(5)).map(lambda row: {"m": row.value}, schema={"n": int})
    with pytest.raises(mill.UserFunctionError, match="unknown column 'm'; the schema has n"):
        stream.collect()


def test_stop_iteration_of_a_function_is_a_failure_of_its_record() -> None:
    def stops(row: Any) -> int:
        if row.value == 2:
            raise StopIteration
        return int(row.value)

    assert mill.from_iter(range(5)).map(stops, schema=int).collect(on_error="skip")["value"] == [0, 1, 3, 4]


def test_object_columns_carry_any_value() -> None:
    stream = mill.from_iter([{"k": i, "o": {i, "x"}} for i in range(5)], schema={"k": int, "o": object})
    found = stream.map(lambda row: {"o": row.o | {"y"}}, schema={"o": object}).collect()
    assert found["o"] == [{i, "x", "y"} for i in range(5)]


def test_functions_run_without_a_leak_of_threads_or_objects() -> None:
    stream = mill.from_iter(range(10_000)).map(lambda row: row.value + 1, schema=int)
    stream.collect()
    gc.collect()
    threads = threading.active_count()
    for _ in range(5):
        stream.collect()
    assert threading.active_count() <= threads


def test_coroutines_are_refused() -> None:
    async def later(row: Any) -> int:
        return 1

    with pytest.raises(mill.PlanError, match="asynchronous"):
        mill.from_iter([1]).map(later, schema=int)
