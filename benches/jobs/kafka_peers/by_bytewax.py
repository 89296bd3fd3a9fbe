"""Bytewax: its own Kafka source and sink, on one worker (a second one shares the interpreter's lock)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from messages import CHUNK, FETCH, SEND, Found, Task, main, values

BATCH = 10_000


class Counting(DynamicSink[Any], StatelessSinkPartition[Any]):
    """Counts and sums what comes."""

    def __init__(self) -> None:
        self.found = Found()

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Counting:
        """Return itself: there is one worker."""
        return self

    def write_batch(self, items: list[Any]) -> None:
        """Count and sum."""
        self.found.add(item.value for item in items)


class Made(DynamicSource[Any], StatelessSourcePartition[Any]):
    """Returns messages that are made before."""

    def __init__(self, count: int) -> None:
        made: list[Any] = [KafkaSinkMessage(key=None, value=value) for value in values()]
        self._batches: Iterator[list[Any]] = (
            made[begin % CHUNK :][: min(BATCH, count - begin)] for begin in range(0, count, BATCH)
        )

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Made:
        """Return itself: there is one worker."""
        return self

    def next_batch(self) -> list[Any]:
        """Return the next batch."""
        return next(self._batches)


def read(task: Task) -> Found:
    """Count and sum what a topic has."""
    counting = Counting()
    options: dict[str, Any] = {name: str(value) for name, value in FETCH.items()}
    source = KafkaSource([task.address], [task.topic], tail=False, add_config=options, batch_size=BATCH)
    flow = Dataflow("from")
    op.output("out", op.input("in", flow, source), counting)
    run_main(flow)
    return counting.found


def write(task: Task) -> Found:
    """Send messages that are made before."""
    options: dict[str, Any] = {name: str(value) for name, value in SEND.items()}
    flow = Dataflow("to")
    op.output("out", op.input("in", flow, Made(task.count)), KafkaSink([task.address], task.topic, add_config=options))
    run_main(flow)
    return Found()


if __name__ == "__main__":
    main({"from": read, "to": write})
