"""Python functions: a value, a record, a batch, compiled; each beside the same without an engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import millstream as mill
from millstream.bench.result import Bar, Difference, Result, Settings, Workload, in_turns, rate
from millstream.expr import col

__all__ = ["WORKLOAD"]

_ROWS_DEFAULT = 1_000_000
_ROWS_FACTOR = 10


@dataclass(frozen=True)
class _Pair:
    """A job of ours, the job that it is compared with, and the results of both."""

    name: str
    about: str
    rows: int
    ours: Callable[[], Any]
    other: str
    theirs: Callable[[], Any]
    our_values: Callable[[], list[Any]]
    their_values: Callable[[], list[Any]]


class _Record:
    """A ready-made object for the plain loop."""

    __slots__ = ("price", "qty")

    def __init__(self, price: float, qty: int) -> None:
        self.price = price
        self.qty = qty


def _scaled(row: Any) -> Any:
    return row.price * 0.908 + row.qty


def _is_dear(row: Any) -> bool:
    return bool(row.price > 500)


def _as_dict(row: Any) -> dict[str, Any]:
    return {"total": row.price * row.qty, "qty": row.qty}


def _table(rows: int) -> mill.Table:
    number = mill.index()
    return mill.generate(rows=rows, price=(number % 1000).cast(float), qty=number % 7).limit(rows).collect()


def _dropped(stream: mill.Stream) -> Callable[[], Any]:
    """Return a run that keeps no result: so that the function is measured, and not the memory for its results."""
    return lambda: mill.run(stream.for_each_batch(lambda batch: None), parallelism=1, progress=False)


def _pairs(rows: int) -> list[_Pair]:
    few, many = _table(rows), rows * _ROWS_FACTOR
    records = [_Record(price, qty) for price, qty in zip(few["price"], few["qty"], strict=True)]
    stream = mill.from_arrow(few)

    def collected(steps: mill.Stream, column: str) -> Callable[[], list[Any]]:
        return lambda: steps.collect(parallelism=1)[column]

    def record(name: str, about: str, steps: mill.Stream, column: str, loop: Callable[[], list[Any]], values: Callable[[], list[Any]]) -> _Pair:
        return _Pair(name, about, rows, lambda: steps.collect(parallelism=1), "list comprehension", loop, collected(steps, column), values)

    found = [
        record(
            "map", "a number a record", stream.map(_scaled, schema={"value": float}), "value",
            lambda: [_scaled(row) for row in records], lambda: [_scaled(row) for row in records],
        ),
        record(
            "map to dict", "a record a record", stream.map(_as_dict, schema={"total": float, "qty": int}), "total",
            lambda: [_as_dict(row) for row in records], lambda: [_as_dict(row)["total"] for row in records],
        ),
        record(
            "filter", "keep or drop a record", stream.filter(_is_dear), "price",
            lambda: [row for row in records if _is_dear(row)], lambda: [row.price for row in records if _is_dear(row)],
        ),
    ]
    if importlib.util.find_spec("pyarrow") is None:
        return found
    return found + _of_columns(many)


def _of_columns(rows: int) -> list[_Pair]:
    import pyarrow.compute as pc

    # One chunk, as a table from pandas or Polars is; frames are cut from it as large as the engine wants them.
    arrow = _table(rows).to_arrow().combine_chunks()
    stream = mill.from_arrow(arrow)
    schema: dict[str, Any] = {"price": float, "qty": int}

    def cheaper(batch: Any) -> Any:
        return batch.set_column(0, "price", pc.multiply(batch["price"], 0.908))

    def values(steps: mill.Stream, column: str) -> Callable[[], list[Any]]:
        return lambda: steps.limit(1000).collect(parallelism=1)[column]

    batches = stream.map_batches(cheaper, schema=schema)
    found = [
        _Pair(
            "map_batches", "a pyarrow function a batch", rows, _dropped(batches), "once on the whole table",
            lambda: pc.multiply(arrow["price"], 0.908),
            values(batches, "price"), lambda: pc.multiply(arrow["price"].slice(0, 1000), 0.908).to_pylist(),
        )
    ]
    if importlib.util.find_spec("numba") is not None:
        function = mill.udf(returns=float, compiled=True)(_of_values)
        compiled = stream.select(value=function(col("price"), col("qty")))
        native = stream.select(value=col("price") * 0.908 + col("qty"))
        found.append(
            _Pair(
                "compiled udf", "a function compiled by numba", rows, _dropped(compiled), "native expression",
                _dropped(native), values(compiled, "value"), values(native, "value"),
            )
        )
    return found


def _of_values(price: float, qty: int) -> float:
    return price * 0.908 + qty


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    tell("udf: making records")
    lines, bars, figures = [], [], []
    pairs = _pairs(settings.rows or _ROWS_DEFAULT)
    for pair in pairs:
        tell(f"udf: {pair.name}")
        if sorted(pair.our_values()) != sorted(pair.their_values()):
            raise Difference(f"udf: {pair.name} does not return what the {pair.other} returns")
        seconds = in_turns({"ours": pair.ours, "theirs": pair.theirs}, settings.runs)
        ours, theirs = pair.rows / seconds["ours"], pair.rows / seconds["theirs"]
        lines.append([pair.name, pair.about, rate(ours), pair.other, rate(theirs), f"x{ours / theirs:.2f}"])
        bars.append(Bar(pair.name, ours / 1e6, True, pair.name))
        bars.append(Bar(pair.other, theirs / 1e6, False, pair.name))
        figures.append({"function": pair.name, "rows_per_second": ours, "beside": pair.other, "beside_rows_per_second": theirs})
    notes = ["one thread; the list comprehension calls the same function over objects that were made before"]
    if len(pairs) < 4:
        notes.append("map_batches and compiled functions are left out: pip install pyarrow numba")
    columns = ["function", "what it does", "millstream", "compared with", "", "ours"]
    title = f"Python functions (median of {settings.runs})"
    return Result("udf", title, columns, lines, bars, "M rows/s", figures, notes)


WORKLOAD = Workload("udf", "Python functions of a record, of a batch, and compiled", _run, ("runs",))
