"""What all clients do alike: the options, the arguments, the messages that are sent, and the count and sum of those that are read."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SIZE = 100
DIGITS = 10
CHUNK = 100_000
FETCH = {
    "queued.min.messages": 1_000_000,
    "queued.max.messages.kbytes": 1 << 20,
    "fetch.message.max.bytes": 8 << 20,
    "fetch.max.bytes": 64 << 20,
    "fetch.queue.backoff.ms": 5,
}
SEND = {
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 2_000_000,
}


@dataclass(frozen=True)
class Task:
    """What is to be done: ``from`` or ``to`` a topic."""

    what: str
    address: str
    topic: str
    count: int


@dataclass
class Found:
    """The messages that were read."""

    rows: int = 0
    total: int = 0

    def add(self, values: Iterable[bytes]) -> None:
        """Count messages, and sum their numbers."""
        for value in values:
            assert len(value) == SIZE, value
            self.rows += 1
            self.total += int(value[:DIGITS])


def values() -> list[bytes]:
    """Make a chunk of messages, which is sent over and over."""
    return [b"%010d" % number + b"x" * (SIZE - DIGITS) for number in range(CHUNK)]


def main(jobs: dict[str, Callable[[Task], Found | tuple[Found, float]]]) -> None:
    """Run a job; print its seconds, by its own count if it has one, and what was read."""
    what, address, topic, count = sys.argv[1:]
    task = Task(what, address, topic, int(count))
    began = time.perf_counter()
    done = jobs[what](task)
    found, seconds = done if isinstance(done, tuple) else (done, time.perf_counter() - began)
    print("RESULT", json.dumps({"seconds": seconds, "rows": found.rows, "total": found.total}), flush=True)
