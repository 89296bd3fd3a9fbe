"""What the tests of process functions share: times, records by key, and runs with kills and restores."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import millstream as mill
from millstream import testing

EPOCH = datetime(2024, 1, 1)
SECOND = timedelta(seconds=1)


def at(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def seconds(moment: datetime) -> int:
    return (moment - EPOCH) // SECOND


def keyed(rows: list[dict[str, Any]], **event_time: Any) -> mill.KeyedStream:
    stream = mill.from_iter(rows)
    return (stream.event_time("at", **event_time) if "at" in rows[0] else stream).key_by("k")


def run_through_restarts(declare: Any, seed: int, path: Path, *others: Any, on_error: Any = "fail") -> Any:
    """Run to the end under random schedules, with kills and other parallelisms; return the rows of each stream."""
    dice = random.Random(seed)
    streams = [declare, *others]
    for start in range(200):
        sinks = [stream().write_json(path / f"out{n}") for n, stream in enumerate(streams)]
        done = testing.simulate(
            *sinks,
            seed=dice.randrange(2**32),
            checkpoint=mill.Checkpoint(path / "state", every="1ms"),
            steps=dice.choice([20, 60, 150]) * (1 + start // 3) if start < 60 else None,
            parallelism=dice.choice([1, 2, 3, 5]),
            frame_rows=dice.choice([1, 3, 16, 8192]),
            chaining=dice.random() < 0.7,
            on_error=on_error,
        )
        if done:
            break
    else:
        raise AssertionError("the job comes to no end")
    found = [
        mill.read_json(str(path / f"out{n}"), schema=stream().schema).collect().to_pylist()
        for n, stream in enumerate(streams)
    ]
    return found if others else found[0]
