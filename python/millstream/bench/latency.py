"""Latency of a keyed count: from the time a record was to come until its result reaches the sink.

The source has a timetable: record i is due at ``start + i / rate``, and gets that as its time whether or not it comes on
time. What the source, the engine or the machine is late with counts as latency, so that a stall is seen by every record
that it holds up.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from typing import Any

import millstream as mill
from millstream.bench.result import Bar, Result, Settings, Workload, rate
from millstream.errors import PlanError
from millstream.expr import col

__all__ = ["WORKLOAD"]

_RATES = (10_000, 100_000, 1_000_000)
_KEYS = 1_000
_WARM_SECONDS = 1.0
_TICK_SECONDS = 0.0002
_QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)


class _Timetable(mill.Source):
    """Records that are due at a rate, for some seconds."""

    schema = {"number": int}

    def __init__(self, per_second: int, seconds: float) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        self.per_second = per_second
        self.rows = int(per_second * seconds)
        self.began_us = 0
        numbers = pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), self.rows)), 1)
        self.records = pa.record_batch([numbers], names=["number"])

    def partitions(self) -> list[str]:
        """Give the one there is."""
        return ["timetable"]

    def open(self, partition: str, position: Any) -> _TimetableReader:
        """Begin with the first record, now."""
        return _TimetableReader(self)


class _TimetableReader(mill.SourceReader):
    """Gives what is due."""

    def __init__(self, source: _Timetable) -> None:
        self._source = source
        self._given = 0

    def next_batch(self) -> Any:
        """Give the records that are due and not given yet, as soon as there is one."""
        source, given = self._source, self._given
        if given >= source.rows:
            return None
        source.began_us = source.began_us or _now_us()
        while (due := min(source.rows, (_now_us() - source.began_us) * source.per_second // 1_000_000)) <= given:
            time.sleep(_TICK_SECONDS)
        self._given = due
        return source.records.slice(given, due - given)

    def position(self) -> int:
        """Give how many records were given."""
        return self._given


def _now_us() -> int:
    return time.time_ns() // 1000


def _measure(per_second: int, seconds: float, parallelism: int, folder: str | None) -> list[float]:
    """Give the latency of each result in milliseconds, in order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    source = _Timetable(per_second, seconds + _WARM_SECONDS)
    counted = mill.from_source(source).key_by(key=col("number") % _KEYS).agg(n=mill.count(), last=col("number").max(), emit="each")
    arrivals: list[tuple[int, Any]] = []

    def arrive(batch: Any) -> None:
        arrivals.append((_now_us(), batch["last"]))

    checkpoint = None if folder is None else mill.Checkpoint(folder, every="1s", mode="at_least_once")
    mill.run(counted.for_each_batch(arrive), checkpoint=checkpoint, parallelism=parallelism, progress=False)
    late = []
    for at, numbers in arrivals:
        warm = numbers.filter(pc.greater_equal(numbers, int(per_second * _WARM_SECONDS)))
        due_us = pc.multiply(pc.cast(warm, pa.float64()), 1e6 / per_second)
        late.append(pc.divide(pc.subtract(float(at - source.began_us), due_us), 1e3))
    latencies = pa.chunked_array(late, pa.float64()).combine_chunks()
    ordered: list[float] = latencies.take(pc.sort_indices(latencies)).to_pylist()
    return ordered


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    if importlib.util.find_spec("pyarrow") is None:
        raise PlanError("the workload latency needs pyarrow: pip install pyarrow")
    lines, bars, figures = [], [], []
    rates = (settings.rows,) if settings.rows else _RATES
    for per_second in rates:
        for is_saved in (False, True):
            with_or_without = "with a checkpoint a second" if is_saved else "without checkpoints"
            tell(f"latency: {rate(per_second)}, {with_or_without}")
            with tempfile.TemporaryDirectory() as folder:
                ordered = _measure(per_second, settings.seconds, settings.parallelism, f"{folder}/state" if is_saved else None)
            found = [_quantile(ordered, share) for share in _QUANTILES] + [ordered[-1]]
            lines.append([rate(per_second), "1 s" if is_saved else "none", *(f"{value:,.2f}" for value in found), f"{len(ordered):,}"])
            bars.append(Bar(f"{rate(per_second)}, p99 {'with' if is_saved else 'without'}", _quantile(ordered, 0.99), is_saved, f"{per_second}"))
            figures.append(
                {"rate": per_second, "checkpoints": is_saved, "results": len(ordered), "max_ms": ordered[-1]}
                | {f"p{share * 100:g}_ms": _quantile(ordered, share) for share in _QUANTILES}
            )
    columns = ["rate", "checkpoints", *(f"p{share * 100:g}" for share in _QUANTILES), "longest", "results"]
    threads = f"{settings.parallelism} thread{'s' if settings.parallelism > 1 else ''}"
    notes = [
        "in milliseconds: from the time a record was due to the call of the sink with the count of its key",
        "source and sink are Python; what they or the machine are late with counts as well",
    ]
    title = f"Latency of a keyed count over {_KEYS:,} keys ({threads}, {settings.seconds:g} s each)"
    return Result("latency", title, columns, lines, bars, "ms at the 99th percentile", figures, notes)


WORKLOAD = Workload("latency", "from the time a record is due to its result, at fixed rates", _run)
