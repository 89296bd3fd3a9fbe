"""Carries a case out with the engine, killed and restored at random, and reads what it committed."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import oracle
import pyarrow as pa
import pyarrow.parquet as pq
from oracle import Row, Term
from plans import Case

import millstream as mill
from millstream import col, lit, when

EPOCH = datetime(1970, 1, 1)
SECOND = 1_000_000
STARTS_MAX = 200
ARROW = {
    "int": pa.int64(),
    "float": pa.float64(),
    "str": pa.string(),
    "bool": pa.bool_(),
    "list": pa.list_(pa.string()),
    "time": pa.timestamp("us"),
}
PYTHON = {"int": int, "float": float, "str": str, "bool": bool}


def expression(term: Term) -> mill.Expr:
    """The term as the engine's expression."""
    if term.op == "col":
        return col(term.args[0])
    if term.op == "lit":
        return lit(term.args[0])
    args = [expression(arg) for arg in term.args]
    binary = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": lambda a, b: a / b,
        "mod": lambda a, b: a % b,
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,
        "ge": lambda a, b: a >= b,
        "and": lambda a, b: a & b,
        "or": lambda a, b: a | b,
        "not": lambda a: ~a,
        "is_null": lambda a: a.is_null(),
        "fill_null": lambda a, b: a.fill_null(b),
        "upper": lambda a: a.str.to_uppercase(),
        "length": lambda a: a.str.len_chars(),
        "when": lambda condition, yes, no: when(condition).then(yes).otherwise(no),
    }
    return binary[term.op](*args)


def aggregates(given: oracle.Aggregates) -> dict[str, mill.Expr]:
    """The aggregates as the engine's expressions."""
    return {
        name: mill.count() if term is None else getattr(expression(term), kind)() for name, (kind, term) in given.items()
    }


def table(case: Case) -> pa.Table:
    """The records of a case."""
    columns = {}
    for name, kind in case.schema.items():
        values = [row[name] for row in case.rows]
        columns[name] = pa.array(values, ARROW[kind])
    return pa.table(columns)


def _plain(row: Any) -> Row:
    """A record of a Python function as the oracle's terms take it."""
    return {name: _number(row[name]) for name in row.keys()}


def _number(value: Any) -> Any:
    return (value - EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def declare(case: Case) -> dict[str, mill.Stream]:
    """The streams of a case by output name."""
    stream = mill.from_arrow(table(case))
    for name, given in case.steps:
        stream = _step(stream, name, given)
        if name == "window":
            return {"result": stream, "late": stream.late}
    return {"result": stream}


def _step(stream: Any, name: str, given: dict[str, Any]) -> Any:
    if name == "with_columns":
        return stream.with_columns(**{n: expression(term) for n, term in given["columns"].items()})
    if name == "python_map":
        columns = given["columns"]
        schema = stream.schema
        names = {n: schema.field(n).type for n in schema.names} | {n: ARROW[given["kinds"][n]] for n in columns}

        def compute(row: Any) -> Row:
            plain = _plain(row)
            return dict(row.items()) | {n: oracle.evaluate(term, plain) for n, term in columns.items()}

        return stream.map(compute, schema=names)
    if name == "filter":
        return stream.filter(expression(given["condition"]))
    if name == "python_filter":
        return stream.filter(lambda row: oracle.evaluate(given["condition"], _plain(row)) is True)
    if name == "batches":
        return stream.filter(expression(given["condition"])).map_batches(lambda batch: batch, schema=stream.schema)
    if name == "select":
        return stream.select(*given["columns"])
    if name == "explode":
        return stream.explode(given["column"], keep_empty=given["keep_empty"])
    if name == "python_flat_map":
        return stream.flat_map(lambda row: (dict(row.items()) for _ in range(given["times"])), schema=stream.schema)
    if name == "union":
        return stream.filter(expression(given["condition"])).union(stream)
    if name == "rebalance":
        return stream.rebalance()
    if name == "event_time":
        return stream.event_time(given["column"], watermark=timedelta(microseconds=given["bound"]))
    if name == "aggregate":
        return stream.key_by(*given["keys"]).agg(**aggregates(given["aggregates"]), emit="end")
    if name == "window":
        size, offset = timedelta(microseconds=given["size"]), timedelta(microseconds=given["offset"])
        step = timedelta(microseconds=given["size"] // given["parts"])
        is_sliding = given["kind"] == "sliding"
        window: mill.Window = mill.sliding(size, step, offset) if is_sliding else mill.cumulative(step, size, offset)
        if given["parts"] == 1:
            window = mill.tumbling(size, offset=offset)
        lateness = timedelta(microseconds=given["lateness"])
        keyed = stream.key_by(*given["keys"])
        return keyed.window(window, allowed_lateness=lateness).agg(**aggregates(given["aggregates"]))
    raise AssertionError(name)


def carry_out(case: Case, work: Path) -> dict[str, list[Row]]:
    """Run the case under a random schedule, dropping everything and restoring at random steps, to its end."""
    from millstream import testing

    dice = random.Random(case.seed)
    is_restored = dice.random() < 0.7
    for start in range(STARTS_MAX):
        streams = declare(case)
        sinks = [stream.write_parquet(work / name) for name, stream in streams.items()]
        is_last = start == STARTS_MAX - 1 or not is_restored
        done = testing.simulate(
            *sinks,
            checkpoint=mill.Checkpoint(work / "state", every="1ms"),
            seed=dice.randrange(2**32),
            parallelism=dice.choice([1, 2, 3, 8]),
            frame_rows=dice.choice([1, 3, 64, 8192]),
            chaining=dice.random() < 0.7,
            steps=None if is_last else dice.choice([5, 20, 100, 500]) * (1 + start),
        )
        if done:
            break
    return {name: committed(work / name) for name in streams}


def committed(folder: Path) -> list[Row]:
    """The rows that a reader of the directory sees."""
    rows: list[Row] = []
    for path in sorted(folder.glob("*.parquet")):
        if not path.name.startswith("."):
            rows += [{name: _number(value) for name, value in row.items()} for row in pq.read_table(path).to_pylist()]
    return rows
