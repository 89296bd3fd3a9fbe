"""What checkpoints cost: the rate of a keyed sum without and with one a second, and what each writes."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import millstream as mill
from millstream._conditions import when
from millstream.bench.result import Bar, Result, Settings, Workload, rate
from millstream.expr import col

__all__ = ["WORKLOAD", "changing_totals"]

_KEYS_DEFAULT = 1_000_000
_SHARES = (0.01, 0.1, 1.0)
_LOOK_SECONDS = 0.005
_FILL_SECONDS_MAX = 120.0


@dataclass(frozen=True)
class _Measured:
    rows_per_second: float
    written: list[int]
    took: list[float]


def changing_totals(keys: int, share: float) -> mill.Stream:
    """Count and sum over a full table of keys, of which only a share keeps changing; results are wanted once an hour."""
    number, hot = mill.index(), max(1, int(keys * share))
    key = when(number < keys).then(number).otherwise((number * 7919) % hot)
    return mill.generate(key=key, value=number % 1000).key_by("key").agg(n=mill.count(), total=col("value").sum(), emit="1h")


def _measure(keys: int, share: float, seconds: float, parallelism: int, folder: str | None) -> _Measured:
    """Run the job over a full table of keys for some seconds; of each key group only a share keeps changing."""
    totals = changing_totals(keys, share)
    checkpoint = None if folder is None else mill.Checkpoint(folder, every="1s", mode="at_least_once")
    written, took = [], []
    with mill.start(totals.for_each_batch(lambda batch: None), checkpoint=checkpoint, parallelism=parallelism) as job:
        limit = time.monotonic() + _FILL_SECONDS_MAX
        while (metrics := job.metrics()).rows_in < 2 * keys and time.monotonic() < limit:
            time.sleep(_LOOK_SECONDS)
        if folder is not None:
            # The first checkpoint holds everything; what follows is what is measured.
            job.checkpoint()
            job.checkpoint()
        metrics = job.metrics()
        rows, began, seen = metrics.rows_in, time.perf_counter(), metrics.checkpoints_taken
        while time.perf_counter() - began < seconds:
            time.sleep(_LOOK_SECONDS)
            metrics = job.metrics()
            if metrics.checkpoints_taken > seen:
                seen = metrics.checkpoints_taken
                written.append(metrics.checkpoint_bytes)
                took.append(metrics.checkpoint_duration.total_seconds())
        metrics = job.metrics()
        per_second = (metrics.rows_in - rows) / (time.perf_counter() - began)
        job.cancel()
    return _Measured(per_second, written, took)


def _run(settings: Settings, tell: Callable[[str], None]) -> Result:
    keys = settings.rows or _KEYS_DEFAULT
    lines, bars, figures = [], [], []
    for share in _SHARES:
        tell(f"checkpoint: {keys:,} keys, {share:.0%} of them changing")
        with tempfile.TemporaryDirectory() as folder:
            plain = _measure(keys, share, settings.seconds, settings.parallelism, None)
            saved = _measure(keys, share, settings.seconds, settings.parallelism, f"{folder}/state")
        ratio = saved.rows_per_second / max(plain.rows_per_second, 1e-9)
        written = statistics.median(saved.written) if saved.written else 0
        took = statistics.median(saved.took) if saved.took else 0.0
        changed = max(1, int(keys * share))
        lines.append(
            [f"{share:.0%}", f"{changed:,}", rate(plain.rows_per_second), rate(saved.rows_per_second), f"x{ratio:.2f}"]
            + [f"{written / 1e6:,.2f} MB", f"{written / changed:,.0f}", f"{took * 1e3:,.0f} ms", str(len(saved.written))]
        )
        bars.append(Bar(f"{share:.0%} changing, without", plain.rows_per_second / 1e6, False, f"{share}"))
        bars.append(Bar(f"{share:.0%} changing, with", saved.rows_per_second / 1e6, True, f"{share}"))
        figures.append(
            {"keys": keys, "changing": share, "rows_per_second_without": plain.rows_per_second}
            | {"rows_per_second_with": saved.rows_per_second, "bytes": saved.written, "seconds": saved.took}
        )
    columns = ["changing", "keys", "without", "with", "ratio", "written each", "bytes a key", "takes", "checkpoints"]
    threads = f"{settings.parallelism} thread{'s' if settings.parallelism > 1 else ''}"
    title = f"A checkpoint a second over {keys:,} keys, count and sum ({threads}, {settings.seconds:g} s each)"
    notes = [
        "all keys are in the state; only the changing ones get records, and a checkpoint writes what has changed",
        "takes: from the start of a checkpoint until it is durable; the job continues meanwhile",
    ]
    return Result("checkpoint", title, columns, lines, bars, "M rows/s", figures, notes)


WORKLOAD = Workload(
    "checkpoint", "what a checkpoint a second costs, and what it writes", _run, ("seconds", "parallelism")
)
