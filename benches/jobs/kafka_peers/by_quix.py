"""Quix Streams: a streaming dataframe that reads, and the producer of an application that sends."""

from __future__ import annotations

import os
from typing import Any

from messages import FETCH, SEND, Found, Task, main, values
from quixstreams import Application

IDLE_SECONDS = 60


def application(task: Task) -> Any:
    """Make an application, whose consumer group is of this process."""
    return Application(
        broker_address=task.address,
        consumer_group=f"quix-{os.getpid()}",
        auto_offset_reset="earliest",
        consumer_extra_config=dict(FETCH),
        producer_extra_config=dict(SEND),
        loglevel="WARNING",
    )


def read(task: Task) -> Found:
    """Count and sum what a topic has."""
    found = Found()
    app = application(task)
    frame = app.dataframe(app.topic(task.topic, value_deserializer="bytes"))
    frame.update(lambda value: found.add((value,)))
    app.run(count=task.count, timeout=IDLE_SECONDS)
    return found


def write(task: Task) -> Found:
    """Send messages that are made before."""
    made = values()
    with application(task).get_producer() as producer:
        for begin in range(0, task.count, len(made)):
            for value in made[: task.count - begin]:
                producer.produce(topic=task.topic, value=value)
    return Found()


if __name__ == "__main__":
    main({"from": read, "to": write})
