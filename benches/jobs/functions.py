"""Python functions: each kind compared with the same work without an engine, in alternating runs.

    python benches/jobs/functions.py [--rows 2000000] [--runs 5] [--cpu]

`process` with one value of state is compared with `map`: of seven keys, and of a hundred thousand.
`map` is compared with a list comprehension that calls the same lambda over ready-made objects, `map_batches` with the same
call on the whole table and with the goal of 150 M rows/s (its batches go to a function that drops them: keeping them would
time the memory), a compiled function with the native expression of the same meaning. Every result is compared before
anything is timed. All run on one thread (`parallelism=1`).
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import millstream as mill
from millstream import col

BATCHES_TARGET = 150e6
"""Rows a second that a cheap function of batches is to reach."""


@dataclass
class Contest:
    """One kind of function: how it runs here, and what it is held against."""

    name: str
    rows: int
    ours: Callable[[], Any]
    other: str
    theirs: Callable[[], Any]
    goal: float
    check: Callable[[], Any] | None = None
    check_theirs: Callable[[], Any] | None = None
    """Give the results to compare, where what is timed hands them on and keeps none."""


@dataclass(slots=True)
class Record:
    """A ready-made object."""

    price: float
    qty: int


@mill.udf(returns=float, compiled=True)
def compiled(price: float, qty: int) -> float:
    """Scale a price."""
    return price * 0.908 + qty


def scale(price: float, qty: int) -> float:
    """Scale a price."""
    return price * 0.908 + qty


plain = mill.udf(returns=float)(scale)


class Running(mill.ProcessFunction):
    """A running total, in a state of the key."""

    total = mill.ValueState(float, default=0.0)

    def process(self, row: Any, ctx: Any) -> Iterator[dict[str, Any]]:
        """Add a price."""
        self.total.value += row.price
        yield {"total": self.total.value, "qty": row.qty}



def table(rows: int) -> pa.Table:
    """The records."""
    index = np.arange(rows, dtype=np.int64)
    return pa.table({"price": (index % 1000).astype(np.float64), "qty": index % 7})


def column(stream: mill.Stream, name: str) -> Any:
    """Run a stream and give a column of it."""
    return stream.collect(parallelism=1).to_arrow()[name]


def drop(stream: mill.Stream) -> None:
    """Run a stream into a function that keeps nothing."""
    mill.run(stream.for_each_batch(lambda batch: None), parallelism=1)


def contests(rows: int) -> list[Contest]:
    """All of them."""
    few, many = table(rows), table(rows * 10)
    records = [Record(price, qty) for price, qty in zip(few["price"].to_pylist(), few["qty"].to_pylist(), strict=True)]
    scaled = lambda row: row.price * 0.908 + row.qty
    rooted = lambda row: math.sqrt(row.price) + abs(row.qty)
    pair = lambda row: {"total": row.price * row.qty, "qty": row.qty}
    dear = lambda row: row.price > 500
    memory, wide = mill.from_arrow(few), mill.from_arrow(many)
    numbered = few.append_column("k", pa.array(np.arange(rows, dtype=np.int64) * 7919 % 100_000))
    many_keys = mill.from_arrow(numbered).key_by("k")
    cheap = wide.map_batches(lambda batch: batch.set_column(0, "price", pc.multiply(batch["price"], 0.908)), schema=few.schema)
    machine = wide.select(value=compiled(col("price"), col("qty")))
    native = wide.select(value=col("price") * 0.908 + col("qty"))
    return [
        Contest(
            "map to a value",
            rows,
            lambda: column(memory.map(scaled, schema={"value": float}), "value"),
            "[fn(r) for r in objects]",
            lambda: [scaled(record) for record in records],
            0.9,
        ),
        Contest(
            "map, with a call",
            rows,
            lambda: column(memory.map(rooted, schema={"value": float}), "value"),
            "[fn(r) for r in objects]",
            lambda: [rooted(record) for record in records],
            0.9,
        ),
        Contest(
            "map to a dict",
            rows,
            lambda: column(memory.map(pair, schema={"total": float, "qty": int}), "total"),
            "[fn(r) for r in objects]",
            lambda: [row["total"] for row in [pair(record) for record in records]],
            0.9,
        ),
        Contest(
            "process, 7 keys",
            rows,
            lambda: column(memory.key_by("qty").process(Running(), schema={"total": float, "qty": int}), "qty"),
            "map to a dict",
            lambda: column(memory.map(pair, schema={"total": float, "qty": int}), "qty"),
            0.4,
        ),
        Contest(
            "process, many",
            rows,
            lambda: column(many_keys.process(Running(), schema={"total": float, "qty": int}), "qty"),
            "map to a dict",
            lambda: column(memory.map(pair, schema={"total": float, "qty": int}), "qty"),
            0.4,
        ),
        Contest(
            "filter",
            rows,
            lambda: column(memory.filter(dear), "price"),
            "[r for r in objects if fn(r)]",
            lambda: [record.price for record in [record for record in records if dear(record)]],
            0.9,
        ),
        Contest(
            "udf",
            rows,
            lambda: column(memory.select(value=plain(col("price"), col("qty"))), "value"),
            "[fn(r.a, r.b) for r in objects]",
            lambda: [scale(record.price, record.qty) for record in records],
            0.9,
        ),
        Contest(
            "map_batches",
            rows * 10,
            lambda: drop(cheap),
            "fn(table)",
            lambda: pc.multiply(many["price"], 0.908),
            0.0,
            lambda: column(cheap, "price"),
        ),
        Contest(
            "compiled udf",
            rows * 10,
            lambda: drop(machine),
            "native expression",
            lambda: drop(native),
            0.5,
            lambda: column(machine, "value"),
            lambda: column(native, "value"),
        ),
    ]


def is_equal(ours: Any, theirs: Any) -> bool:
    """Tell whether both have the same values in the same order."""
    return bool(np.array_equal(np.asarray(ours), np.asarray(theirs)))


def seconds(job: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Time one run; what is thrown away is not part of it."""
    gc.collect()
    began = clock()
    result = job()
    took = clock() - began
    del result
    return took


def main() -> None:
    """Compare, then time in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="records; functions of columns get ten times as many")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="time all threads' processor time, on a machine that does something else")
    parser.add_argument("--only", help="one of them, by a part of its name")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu else time.perf_counter
    print(f"median of {arguments.runs} in turns, one thread; M rows/s, and how many times the other's rate ours is")
    for contest in contests(arguments.rows):
        if arguments.only and arguments.only not in contest.name:
            continue
        if not is_equal((contest.check or contest.ours)(), (contest.check_theirs or contest.theirs)()):
            sys.exit(f"{contest.name}: the results differ")
        times = [(seconds(contest.ours, clock), seconds(contest.theirs, clock)) for _ in range(arguments.runs)]
        ours, theirs = (statistics.median(side) for side in zip(*times, strict=True))
        rate = contest.rows / ours / 1e6
        goal = f"goal x{contest.goal:.2f}" if contest.goal else f"goal {BATCHES_TARGET / 1e6:.0f} M/s"
        print(
            f"{contest.name:16} {rate:8.2f}   {contest.other:32} {contest.rows / theirs / 1e6:8.2f}   x{theirs / ours:.2f}  ({goal})",
            flush=True,
        )


if __name__ == "__main__":
    main()
