"""Bytewax: operators over Python values, on one worker (a second one shares the interpreter's lock, and made it slower).

Records are made into Python values before the clock runs, keys into the strings that Bytewax wants. Maps and filters are a
call a record, as its documentation writes them; the function of batches gets Arrow batches as items.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from bytewax.connectors.files import FileSource
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main
from task import Task

ROWS = {
    "words": 100_000,
    "map": 8_000_000,
    "filter": 8_000_000,
    "keyed": 1_000_000,
    "window": 60_000,
    "million": 100_000,
    "checkpoint": 100_000,
    "parquet": 500_000,
    "csv": 500_000,
    "lambda": 8_000_000,
}
_BATCH = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_WINDOW = timedelta(seconds=10)


def versions() -> dict[str, str]:
    """Say what this is."""
    return {"bytewax": version("bytewax")}


class _Part(StatefulSourcePartition):
    """Returns ready-made batches; knows how many it has returned."""

    def __init__(self, batches: Any, given: int) -> None:
        self._batches, self._given = iter(batches), given

    def next_batch(self) -> Any:
        batch = next(self._batches)
        self._given += 1
        return batch

    def snapshot(self) -> int:
        return self._given


class _Source(FixedPartitionedSource):
    """One partition with a list of batches, or what makes them."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def list_parts(self) -> list[str]:
        return ["one"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Part:
        return _Part(self._batches() if callable(self._batches) else self._batches[resume_state or 0 :], resume_state or 0)


class _Kept(StatelessSinkPartition):
    def __init__(self, kept: list[Any]) -> None:
        self._kept = kept

    def write_batch(self, items: list[Any]) -> None:
        self._kept.extend(items)


class _Sink(DynamicSink):
    """Keeps what comes, in a list."""

    def __init__(self, kept: list[Any]) -> None:
        self._kept = kept

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Kept:
        return _Kept(self._kept)


def _batches(items: list[Any]) -> list[list[Any]]:
    return [items[begin : begin + _BATCH] for begin in range(0, len(items), _BATCH)]


def _parquet(task: Task) -> Callable[[], Any]:
    def read() -> Any:
        for batch in pyarrow.parquet.ParquetFile(task.file("bids.parquet")).iter_batches(_BATCH, columns=["auction", "price"]):
            yield list(zip(map(str, batch["auction"].to_pylist()), batch["price"].to_pylist()))

    return read


def _source(task: Task) -> Any:
    """Load what the job reads."""
    if task.job in ("words", "csv"):
        return FileSource(task.file("words.txt" if task.job == "words" else "bids.csv"), batch_size=_BATCH)
    if task.job == "parquet":
        return _Source(_parquet(task))
    bids = task.table("drawn" if task.job in ("million", "checkpoint") else "bids", ["auction", "price"] + ["at"] * (task.job == "window"))
    if task.job == "batch":
        return _Source([[batch] for batch in bids.combine_chunks().to_batches(65_536)])
    prices = bids["price"].to_pylist()
    if task.job in ("map", "lambda"):
        return _Source(_batches(prices))
    auctions = bids["auction"].to_pylist()
    if task.job == "filter":
        return _Source(_batches(list(zip(auctions, prices))))
    keys = map(str, auctions)
    if task.job == "window":
        times = [_EPOCH + timedelta(milliseconds=at) for at in bids["at"].cast(pa.int64()).to_pylist()]
        return _Source(_batches(list(zip(keys, zip(prices, times)))))
    return _Source(_batches(list(zip(keys, prices))))


def _pair(line: str) -> tuple[str, int]:
    auction, _, price, _ = line.split(",")
    return auction, int(price)


def _steps(task: Task, records: Any) -> Any:
    """Give the job's steps."""
    if task.job == "words":
        import re

        token = re.compile("[a-z']+")
        return op.count_final("count", op.flat_map("words", records, lambda line: token.findall(line.lower())), lambda word: word)
    if task.job in ("map", "lambda"):
        return op.map("map", records, lambda price: price * 0.908)
    if task.job == "batch":
        return op.map("map", records, lambda batch: pc.multiply(batch["price"], 0.908))
    if task.job == "filter":
        return op.filter("filter", records, lambda bid: bid[0] % 123 == 0)
    if task.job == "window":
        clock = win.EventClock(lambda value: value[1], wait_for_system_duration=timedelta(seconds=1))
        windower = win.TumblingWindower(length=_WINDOW, align_to=_EPOCH)
        add = lambda sum, value: (sum[0] + 1, max(sum[1], value[0]))
        merge = lambda one, other: (one[0] + other[0], max(one[1], other[1]))
        return win.fold_window("window", records, clock, windower, lambda: (0, -1), add, merge, ordered=False).down
    if task.job == "csv":
        records = op.map("pair", op.filter("names", records, lambda line: line[0].isdigit()), _pair)
    return op.fold_final("sum", records, lambda: (0, 0), lambda sum, price: (sum[0] + 1, sum[1] + price))


def prepare(task: Task) -> Callable[[], Any]:
    """Make the records; the flow is built when it runs, since each run wants one of its own."""
    source = _source(task)

    def run() -> Any:
        kept: list[Any] = []
        flow = Dataflow("job")
        op.output("out", _steps(task, op.input("in", flow, source)), _Sink(kept))
        if task.checkpoint_seconds:
            folder = task.fresh("recovery")
            init_db_dir(folder, 1)
            run_main(flow, epoch_interval=timedelta(seconds=task.checkpoint_seconds), recovery_config=RecoveryConfig(folder))
        else:
            run_main(flow)
        return task, kept

    return run


def answer(result: Any) -> Any:
    """Make a table of what the sink got."""
    task, kept = result
    if task.job in ("map", "lambda"):
        return {"price": pa.array(kept, pa.float64())}
    if task.job == "batch":
        return pa.table({"price": pa.chunked_array(kept)})
    if task.job == "words":
        return {"word": [word for word, _ in kept], "n": [n for _, n in kept]}
    if task.job == "filter":
        return {"auction": [bid[0] for bid in kept], "price": [bid[1] for bid in kept]}
    auctions = [int(key) for key, _ in kept]
    if task.job == "window":
        length = _WINDOW // timedelta(milliseconds=1)
        starts = [window * length for _, (window, _) in kept]
        return {"auction": auctions, "window_start": starts, "n": [sum[0] for _, (_, sum) in kept], "top": [sum[1] for _, (_, sum) in kept]}
    return {"auction": auctions, "n": [sum[0] for _, sum in kept], "total": [sum[1] for _, sum in kept]}
