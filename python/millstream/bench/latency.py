"""Latency of a keyed count: from the time a record was due until its result reaches the sink.

The generator has a timetable: record i is due at ``start + (i + 1) / rate``, whether or not it comes on time. Delays of the
source, the engine and the machine all count as latency, so that a stall is seen by every record that it holds up.
The time of arrival is a column that the last step before the sink adds; only the sink is Python, and stores the results.

The source does not report when it began. But no record can be made before it is due, so the record that was made
soonest after its time shows it, to within the few microseconds that this record was late.
"""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import millstream as mill
from millstream.bench.result import Bar, Result, Settings, Workload, rate
from millstream.errors import PlanError
from millstream.expr import col

__all__ = ["WORKLOAD"]

_RATES = (10_000, 100_000, 1_000_000)
_BUSY_RATE = 100_000
_BATCHES_FROM = 500_000
_KEYS = 1_000
_WARM_SECONDS = 1.0
_QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)


@dataclass(frozen=True)
class _Line:
    """What is measured together."""

    per_second: int
    threads: int
    is_saved: bool
    is_busy: bool = False

    def __str__(self) -> str:
        saved = "a checkpoint a second" if self.is_saved else "no checkpoints"
        return f"{rate(self.per_second)}, {_threads(self.threads)}, {saved}" + (", with busy processes" if self.is_busy else "")


def _threads(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


@contextlib.contextmanager
def _busy(processes: int) -> Iterator[None]:
    """Keep that many processes at work for as long as it lasts."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


class _Kept:
    """Three numbers a result, in memory that is all there before the first one comes.

    A sink that takes new memory with each result is held up by the system now and then, which clears a page of 2 MiB
    before it gives it: 0.2 ms, and several on a virtual machine whose host has to find it first.
    """

    def __init__(self, results_max: int) -> None:
        self._columns = [memoryview(array("q", [1]) * results_max) for _ in range(3)]
        self._lock = threading.Lock()
        self._used = 0

    def _take(self, rows: int) -> int:
        with self._lock:
            self._used += rows
            return self._used - rows

    def keep_one(self, result: Any) -> None:
        """Keep a result."""
        place = self._take(1)
        due, made, arrived = self._columns
        due[place], made[place], arrived[place] = result["due"], result["made"], result["arrived"]

    def keep(self, batch: Any) -> None:
        """Keep the results of a `pyarrow.RecordBatch`."""
        rows = batch.num_rows
        place = self._take(rows)
        for kept, name in zip(self._columns, ("due", "made", "arrived"), strict=True):
            column = batch.column(name)
            values = memoryview(column.buffers()[1]).cast("q")
            kept[place : place + rows] = values[column.offset : column.offset + rows]

    def columns(self) -> list[Any]:
        """Return them as Arrow arrays: when due, when made, when they arrived."""
        import pyarrow as pa

        return [pa.Array.from_buffers(pa.int64(), self._used, [None, pa.py_buffer(column)]) for column in self._columns]


def _measure(line: _Line, seconds: float) -> list[float]:
    """Return the latency of each result in milliseconds, in order."""
    import pyarrow.compute as pc

    rows = int(line.per_second * (seconds + _WARM_SECONDS))
    due_us = (mill.index() + 1) * 1_000_000 // line.per_second
    made = mill.generate(rows=rows, rate=line.per_second, due=due_us, key=mill.index() % _KEYS).with_columns(made=mill.now())
    timed = made.with_columns(at=col("due").cast(mill.Timestamp("us")), made=col("made").cast(int))
    counts = timed.event_time("at", watermark="0s").key_by("key")
    counted = counts.agg(n=mill.count(), due=col("due").max(), made=col("made").max(), emit="each")
    arriving = counted.with_columns(arrived=mill.now()).with_columns(arrived=col("arrived").cast(int))
    kept = _Kept(rows)
    # Records that come one by one are given one by one; a batch pays for itself from some records on.
    sink = arriving.for_each_batch(kept.keep) if line.per_second >= _BATCHES_FROM else arriving.for_each(kept.keep_one)
    with tempfile.TemporaryDirectory() as folder, _busy(2 * line.threads if line.is_busy else 0):
        checkpoint = mill.Checkpoint(folder, every="1s", mode="at_least_once") if line.is_saved else None
        mill.run(sink, checkpoint=checkpoint, parallelism=line.threads, progress=False)
    due, made_at, arrived = kept.columns()
    began = pc.min(pc.subtract(made_at, due))
    late_us = pc.subtract(pc.subtract(arrived, due), began)
    late_us = late_us.filter(pc.greater(due, int(_WARM_SECONDS * 1e6)))
    return [late / 1e3 for late in sorted(late_us.to_pylist())]


def _machine(seconds: float) -> list[float]:
    """Return how late a thread that only sleeps wakes, in milliseconds, in order."""
    began = time.perf_counter()
    late = array("d", [0.0]) * int(_RATES[0] * seconds)
    for number in range(len(late)):
        due = began + (number + 1) / _RATES[0]
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        late[number] = -left * 1e3
    return sorted(late)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _lines(settings: Settings) -> list[_Line]:
    rates = (settings.rows,) if settings.rows else _RATES
    threads = sorted({1, settings.parallelism})
    lines = [_Line(one, count, is_saved) for one in rates for count in threads for is_saved in (False, True)]
    return [*lines, _Line(settings.rows or _BUSY_RATE, settings.parallelism, is_saved=True, is_busy=True)]


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    if importlib.util.find_spec("pyarrow") is None:
        raise PlanError("the workload latency needs pyarrow: pip install pyarrow")
    rows, bars, figures = [], [], []
    tell("latency: the machine alone")
    alone = _machine(settings.seconds)
    found = [_quantile(alone, share) for share in _QUANTILES] + [alone[-1]]
    rows.append([rate(_RATES[0]), "", "the machine", *(f"{value:,.2f}" for value in found), f"{len(alone):,}"])
    for line in _lines(settings):
        tell(f"latency: {line}")
        ordered = _measure(line, settings.seconds)
        found = [_quantile(ordered, share) for share in _QUANTILES] + [ordered[-1]]
        saved = ("1 s" if line.is_saved else "none") + (", busy machine" if line.is_busy else "")
        rows.append([rate(line.per_second), str(line.threads), saved, *(f"{value:,.2f}" for value in found), f"{len(ordered):,}"])
        bars.append(Bar(f"{line}: p99", _quantile(ordered, 0.99), line.is_saved, f"{line.per_second}"))
        figures.append(
            {"rate": line.per_second, "threads": line.threads, "checkpoints": line.is_saved, "busy": line.is_busy}
            | {"results": len(ordered), "max_ms": ordered[-1]}
            | {f"p{share * 100:g}_ms": _quantile(ordered, share) for share in _QUANTILES}
        )
    columns = ["rate", "threads", "checkpoints", *(f"p{share * 100:g}" for share in _QUANTILES), "longest", "results"]
    notes = [
        "in milliseconds: from the time a record was due until the count of its key reaches the sink",
        "the machine: how late it wakes a thread that only sleeps until the next record would be due, as engines do at low rates",
        "every result counts; the first second is left out",
        "the sink is a Python function, called per record, and per batch from 500,000 records per second on; it stores three numbers per result",
        "busy machine: two other processes per thread compete for the processor",
    ]
    title = f"Latency of a keyed count over {_KEYS:,} keys ({settings.seconds:g} s each)"
    return Result("latency", title, columns, rows, bars, "ms at the 99th percentile", figures, notes)


WORKLOAD = Workload(
    "latency", "from the time a record is due to its result, at fixed rates", _run, ("seconds", "parallelism")
)
