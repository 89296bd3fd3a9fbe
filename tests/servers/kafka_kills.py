"""Kills `examples/kafka_wordcount.py` at random moments while lines keep coming, and compares what it has written.

    python tests/servers/kafka_kills.py --kills 200 --seed 7

The judge is Confluent's client with ``read_committed``, and a count of the words that were sent:

- the last message of each word has its count, as after an undisturbed run of the same program, into another topic;
- the counts of a word rise from message to message: none is sent twice, and none comes after a later one.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kafka
from cluster import Cluster

EXAMPLE = Path(__file__).parents[2] / "examples" / "kafka_wordcount.py"
PARTITIONS = 3
WORDS = [f"w{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{'x' * (n // 676)}" for n in range(1500)]
SECONDS_MAX = 180


class Lines:
    """A producer of lines that runs beside the job."""

    def __init__(self, cluster: Cluster, topic: str, seed: int) -> None:
        self.words: collections.Counter[str] = collections.Counter()
        self.lines = 0
        self._topic, self._random = topic, random.Random(seed)
        self._producer = cluster.producer(**{"enable.idempotence": True})
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._ends.wait(0.02):
            for _ in range(20):
                words = self._random.choices(WORDS, k=6)
                self.words.update(words)
                self.lines += 1
                line = json.dumps({"line": " ".join(words)})
                self._producer.produce(self._topic, line.encode(), partition=self._random.randrange(PARTITIONS))
            self._producer.poll(0)

    def end(self) -> None:
        """Send no more."""
        self._ends.set()
        self._thread.join()
        assert self._producer.flush(60) == 0


@dataclass
class Outcome:
    """What was seen."""

    kills: int
    kills_of_work: int
    """Kills of a job that had written since the one before."""
    lines: int
    words: int
    messages: int
    seconds: float


def _counts(cluster: Cluster, topic: str) -> Iterator[tuple[str, int]]:
    for message in cluster.read(topic):
        value: dict[str, Any] = json.loads(message.value())
        assert message.key().decode() == value["word"]
        yield value["word"], value["n"]


def _start(cluster: Cluster, source: str, target: str, state: Path, parallelism: int, *more: str) -> subprocess.Popen[bytes]:
    arguments = [cluster.address, source, target, "--state", str(state), "--every", "50ms", "--parallelism", str(parallelism)]
    with (state.parent / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, str(EXAMPLE), *arguments, *more], stdout=log, stderr=log)


def kill_often(cluster: Cluster, folder: Path, kills: int, seed: int) -> Outcome:
    """Kill the job so often, and compare.

    Raises
    ------
    AssertionError
        When the topic has something else than it would have had without the kills.
    """
    begin = time.monotonic()
    rng = random.Random(seed)
    source, target, undisturbed = cluster.topic("lines", PARTITIONS), cluster.topic("words", 2), cluster.topic("undisturbed", 2)
    state = folder / "killed" / "state"
    state.parent.mkdir(parents=True)
    lines = Lines(cluster, source, seed)
    kills_of_work, seen = 0, 0
    for _ in range(kills):
        job = _start(cluster, source, target, state, rng.choice([1, 2, 3]))
        try:
            job.wait(rng.uniform(0.3, 3))
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
        else:
            raise AssertionError("the job ended by itself:\n" + (state.parent / "log").read_text()[-3000:])
        now = cluster.end(target)
        kills_of_work += now > seen
        seen = now
    lines.end()
    job = _start(cluster, source, target, state, 2)
    try:
        end = time.monotonic() + SECONDS_MAX
        while dict(_counts(cluster, target)) != lines.words:
            assert job.poll() is None, (state.parent / "log").read_text()[-3000:]
            assert time.monotonic() < end, "the counts are not those of the words that were sent"
            time.sleep(0.2)
        # What is sent once too often would come now.
        time.sleep(0.5)
    finally:
        job.kill()
        job.wait()
    last: dict[str, int] = {}
    messages = 0
    for word, count in _counts(cluster, target):
        messages += 1
        assert count > last.get(word, 0), f"{word!r} has the count {count} after {last[word]}"
        last[word] = count
    assert last == lines.words
    alone = folder / "alone" / "state"
    alone.parent.mkdir()
    assert _start(cluster, source, undisturbed, alone, 2, "--bounded").wait(SECONDS_MAX) == 0
    assert last == dict(_counts(cluster, undisturbed))
    return Outcome(kills, kills_of_work, lines.lines, len(last), messages, time.monotonic() - begin)


def main() -> None:
    """Run a broker, and kill the job."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    reason = kafka.missing()
    if reason is not None:
        raise SystemExit(reason)
    kafka.fetch()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kafka").mkdir()
        broker = kafka.Broker(Path(folder) / "kafka").start()
        try:
            print(kill_often(Cluster(broker.address, "kills"), Path(folder), given.kills, given.seed))
        finally:
            broker.kill()


if __name__ == "__main__":
    main()
