"""Messages from Kafka and to Kafka, beside the clients that do nothing else, in turns.

    python benches/jobs/kafka.py [--messages 10_000_000] [--runs 3] [--partitions 8] [--only from] [--performance PATH] [--peers a,b]

A broker of its own (``tests/servers/kafka.py``: Java 17, Maven) runs on the same machine, and takes its share of it. Messages have 100
bytes: a number of ten digits and letters.

| from Kafka | to Kafka |
| --- | --- |
| ``confluent_kafka``: ``consume`` in batches, which are counted | ``produce`` of messages that are made before, one by one |
| ``kcat``, if it is installed: prints nothing | sends the lines of a file |
| ``rdkafka_performance``: one message after the other | messages of its own |
| ours: ``read_kafka(format="raw")``, batches of Arrow, which are counted and whose numbers are summed | ``write_kafka(format="raw")`` of \
a table in memory, at least once (and idempotent), and exactly once with a checkpoint a second |

``rdkafka_performance`` is an example of librdkafka's source, which the crate ``rdkafka-sys`` has in its build folder::

    built=$(ls -d ~/.cache/millstream/target/release/build/rdkafka-sys-*/out | tail -1)
    zstd=$(ls $built/../../zstd-sys-*/out/libzstd.a | tail -1)
    gcc -O2 -w -I$built -I$built/src $built/examples/rdkafka_performance.c $built/src/librdkafka.a $zstd \\
        -lm -lssl -lcrypto -lz -ldl -lpthread -o /tmp/rdkafka_performance

Other engines run in environments of their own (``benches/peers``), by the programs in ``kafka_peers``: ``bytewax`` and ``quix`` with their own
sources and sinks, on fewer messages, because they take a call of Python for each; ``flink`` by SQL, with the connector that Maven fetches. They
report their own time, without the start of the process; one that cannot run is printed with the reason.

After each run that sends, all messages are read again by ``confluent_kafka``: their number, and the sum of their numbers. Printed are
medians: messages a second by the clock, our rate divided by that of the client, and nanoseconds of processor time a message, of the client
alone. Time begins with the client's or the job's start; ``rdkafka_performance`` tells its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

import millstream as mill

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "servers"))
# At the end: some of its modules have the names of packages.
sys.path.append(str(Path(__file__).parents[1] / "peers" / "harness"))
sys.path.append(str(Path(__file__).with_name("kafka_peers")))

import kafka
from cluster import Cluster
from environment import CannotInstall, Environment, cache, environment
from messages import CHUNK, DIGITS, FETCH, SEND, SIZE

THREADS = 2
SECONDS_MAX = 600
DELIVERIES = ("at_least_once", "exactly_once")
JAVA = ("-Xmx2g", "-XX:+UseSerialGC")
# What is deleted after a run must not fill the disk.
PROPERTIES = "log.segment.delete.delay.ms=1000\n"
UNDER_WAY_MAX = 1_000_000

Job = Callable[[], float | None]
"""Returns the seconds that it took by its own count, or None."""


@dataclass(frozen=True)
class Peer:
    """Another engine: its program, what is installed for it, and the most messages that it gets."""

    program: str
    environment: str
    messages_max: int
    # Whether what it sends are the first messages over and over, as Confluent's client does.
    is_in_chunks: bool
    has_jar: bool = False


HERE = Path(__file__).parent
PEERS = {
    "bytewax": Peer("by_bytewax.py", "bytewax-kafka", 1_000_000, True),
    "quix": Peer("by_quix.py", "quix-kafka", 200_000, True),
    "flink": Peer("by_flink.py", "flink", 1 << 40, False, has_jar=True),
}


def tell(text: str) -> None:
    """Say how far it is."""
    print(text, file=sys.stderr, flush=True)


def make(count: int) -> pa.Table:
    """Make messages, with a number each, from 0."""
    letters = np.random.default_rng(1).integers(ord("a"), ord("z") + 1, (CHUNK, SIZE), dtype=np.uint8)
    chunks = []
    for begin in range(0, count, CHUNK):
        rows = min(CHUNK, count - begin)
        bytes_of = letters[:rows].copy()
        rest = np.arange(begin, begin + rows)
        for place in reversed(range(DIGITS)):
            rest, digit = np.divmod(rest, 10)
            bytes_of[:, place] = ord("0") + digit
        offsets = np.arange(0, (rows + 1) * SIZE, SIZE, dtype=np.int32)
        chunks.append(pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(bytes_of)]))
    return pa.table({"value": pa.chunked_array(chunks)})


def total(values: bytes | memoryview) -> int:
    """Sum the numbers of messages that follow each other."""
    digits = np.frombuffer(values, np.uint8).reshape(-1, SIZE)[:, :DIGITS]
    sums = digits.sum(axis=0, dtype=np.int64) - ord("0") * len(digits)
    return int(sums @ 10 ** np.arange(DIGITS - 1, -1, -1))


class Bench:
    """A broker with a topic of messages, and the jobs."""

    def __init__(self, address: str, table: pa.Table, partitions: int, folder: Path, performance: str | None) -> None:
        self.address = address
        self.table = table
        self.count = table.num_rows
        self.total = self.count * (self.count - 1) // 2
        self.partitions = partitions
        self.folder = folder
        self.performance = performance
        self._numbers = itertools.count()
        self.cluster = Cluster(address, "bench")
        self.values = table["value"].slice(0, CHUNK).to_pylist()
        self.source = self.cluster.topic("source", partitions)
        self.target = ""
        self.parts: dict[int, str] = {}

    def consume(self, topic: str, count: int, look: Callable[[list[Any]], object]) -> None:
        """Read so many messages by Confluent's client; give each batch to a function."""
        config = {"bootstrap.servers": self.address, "group.id": "bench", "enable.auto.commit": False, **FETCH}
        consumer = Consumer(config)
        consumer.assign([TopicPartition(topic, part, 0) for part in range(self.partitions)])
        end = time.monotonic() + SECONDS_MAX
        while count > 0:
            assert time.monotonic() < end, f"{topic} ends before its last {count} messages"
            batch = consumer.consume(CHUNK, 0.1)
            look(batch)
            count -= len(batch)
        assert count == 0, f"{topic} has {-count} messages more"
        consumer.close()

    def check(self, topic: str, wanted: int | None, count: int | None = None) -> None:
        """Read a topic to its end; compare the count of its messages and, if they are ours, the sum of their numbers."""
        count = self.count if count is None else count
        found = [0, 0]

        def look(batch: list[Any]) -> None:
            for message in batch:
                assert message.error() is None, message.error()
            values = b"".join(message.value() for message in batch)
            found[0] += len(values)
            found[1] += total(values) if wanted is not None else 0

        self.consume(topic, count, look)
        assert found[0] == count * SIZE, f"{topic} has {found[0]:,} bytes"
        assert wanted is None or found[1] == wanted, f"{topic}: the sum is {found[1]:,}, not {wanted:,}"

    def by_client(self) -> None:
        """Count what Confluent's client reads."""
        self.consume(self.source, self.count, len)

    def by_kcat(self) -> None:
        """Let kcat read, and print nothing."""
        # That of Debian is linked with an older librdkafka.
        known = {name: value for name, value in FETCH.items() if name != "fetch.queue.backoff.ms"}
        options = [option for name, value in known.items() for option in ("-X", f"{name}={value}")]
        command = [
            "kcat",
            "-C",
            "-b",
            self.address,
            "-t",
            self.source,
            "-o",
            "beginning",
            "-c",
            str(self.count),
            "-q",
            "-f",
            "",
            *options,
        ]
        subprocess.run(command, check=True, timeout=SECONDS_MAX)

    def by_performance(self) -> float:
        """Let librdkafka's own program read, as a group of one member; its time begins with the first message."""
        config = {**FETCH, "auto.offset.reset": "earliest", "enable.auto.commit": "false"}
        options = [option for name, value in config.items() for option in ("-X", f"{name}={value}")]
        return self._performed(["-G", f"performance-{next(self._numbers)}", "-t", self.source, *options])

    def by_us(self) -> None:
        """Count and sum what our source reads."""
        found = [0, 0]

        def look(batch: pa.RecordBatch) -> None:
            offsets, values = batch["value"].buffers()[1:]
            begin, end = (
                int(np.frombuffer(offsets, np.int32)[place + batch["value"].offset]) for place in (0, batch.num_rows)
            )
            found[0] += batch.num_rows
            found[1] += total(memoryview(values)[begin:end])

        stream = mill.read_kafka(self.address, self.source, format="raw", until="end").select("value")
        mill.run(stream.for_each_batch(look), parallelism=THREADS, progress=False)
        assert found == [self.count, self.total], found

    def to_client(self) -> None:
        """Send by Confluent's client, one by one: ``produce_batch`` takes more processor time."""
        producer = self.cluster.producer(**SEND)
        target, produce = self.target, producer.produce
        for begin in range(0, self.count, CHUNK):
            for value in self.values[: self.count - begin]:
                produce(target, value)
            while len(producer) > UNDER_WAY_MAX:
                producer.poll(0.01)
        assert producer.flush(SECONDS_MAX) == 0

    def to_kcat(self) -> None:
        """Let kcat send the lines of a file."""
        options = [option for name, value in SEND.items() for option in ("-X", f"{name}={value}")]
        command = ["kcat", "-P", "-b", self.address, "-t", self.target, "-l", str(self.folder / "lines"), *options]
        subprocess.run(command, check=True, timeout=SECONDS_MAX)

    def to_performance(self) -> float:
        """Let librdkafka's own program send messages of its own."""
        options = [option for name, value in SEND.items() for option in ("-X", f"{name}={value}")]
        return self._performed(["-P", "-t", self.target, "-s", str(SIZE), *options])

    def to_us(self, delivery: str) -> None:
        """Send a table by our sink."""
        sink = mill.from_arrow(self.table).write_kafka(self.address, self.target, format="raw")
        if delivery == "at_least_once":
            mill.run(sink, parallelism=THREADS, progress=False)
            return
        state = self.folder / "state"
        mill.run(sink, checkpoint=mill.Checkpoint(state, every="1s"), parallelism=THREADS, progress=False)
        shutil.rmtree(state)

    def by_peer(self, what: str, peer: Peer, made: Environment, jar: Path | None) -> float:
        """Let another engine read or send; its seconds, as it tells them."""
        count = min(self.count, peer.messages_max)
        topic = self.target
        if what == "from":
            topic = self.source if count == self.count else self.part(count)
        command = [str(made.python), str(HERE / "kafka_peers" / peer.program), what, self.address, topic, str(count)]
        variables = os.environ | made.variables | ({"KAFKA_JAR": str(jar)} if jar else {})
        done = subprocess.run(command, timeout=SECONDS_MAX, capture_output=True, text=True, env=variables, check=False)
        told = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        if done.returncode or not told:
            last = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()[-1]
            raise Failed(f"exit code {done.returncode}: {last}")
        found = json.loads(told[-1].removeprefix("RESULT "))
        if what == "from" and (found["rows"], found["total"]) != (count, count * (count - 1) // 2):
            raise Failed(f"wrong: {found}, and there are {count:,} messages")
        return float(found["seconds"])

    def part(self, count: int) -> str:
        """Return a topic of the first messages, which is made if there is none."""
        if count not in self.parts:
            self.parts[count] = self.cluster.topic(f"source-{count}", self.partitions)
            sink = mill.from_arrow(self.table.slice(0, count)).write_kafka(self.address, self.parts[count], format="raw")
            mill.run(sink, parallelism=THREADS, progress=False)
        return self.parts[count]

    def write_lines(self) -> None:
        """Write the messages as lines, for kcat."""
        with (self.folder / "lines").open("wb") as file:
            for chunk in self.table["value"].chunks:
                file.write(b"\n".join(chunk.to_pylist()) + b"\n")

    def _performed(self, arguments: list[str]) -> float:
        command = [str(self.performance), "-b", self.address, "-c", str(self.count), "-q", *arguments]
        done = subprocess.run(command, check=True, timeout=SECONDS_MAX, capture_output=True, text=True)
        told = re.findall(r"(\d+) messages .*? in (\d+)ms", done.stdout + done.stderr)
        assert told, done.stdout + done.stderr
        assert int(told[-1][0]) == self.count, told[-1]
        return int(told[-1][1]) / 1000


def processor_seconds() -> float:
    """Return those of this process and of all that it has waited for."""
    return sum(
        of.ru_utime + of.ru_stime
        for of in (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


class Failed(Exception):
    """A peer did not do what it was to do."""


def contest(bench: Bench, title: str, jobs: dict[str, Job], runs: int, *, is_sending: bool) -> None:
    """Run jobs in turns; print a table of medians. The last of ours is compared with the others."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    busy: dict[str, list[float]] = {name: [] for name in jobs}
    for run in range(runs):
        for name, job in jobs.items():
            if is_sending:
                bench.target = bench.cluster.topic(f"target-{run}-{name.replace(' ', '-')}", bench.partitions)
            began, began_busy = time.perf_counter(), processor_seconds()
            told = job()
            seconds[name].append(told or time.perf_counter() - began)
            busy[name].append(processor_seconds() - began_busy)
            tell(f"{title}, run {run + 1}: {name} {bench.count / seconds[name][-1] / 1e6:.2f} M/s")
            if is_sending:
                wanted = {"rdkafka_performance": None, "confluent_kafka": sent_in_chunks(bench.count)}.get(
                    name, bench.total
                )
                bench.check(bench.target, wanted)
                bench.cluster.delete(bench.target)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    ours = [name for name in jobs if name.startswith("millstream")]
    print(
        f"| {title}, {bench.count:,} messages | M/s | MB/s | ns CPU a message |"
        + "".join(f" {name} |" for name in ours)
    )
    print("| --- | ---: | ---: | ---: |" + " ---: |" * len(ours))
    for name, took in medians.items():
        cost = statistics.median(busy[name]) / bench.count * 1e9
        ratios = "".join(f" x{took / medians[own]:.2f} |" for own in ours)
        print(
            f"| {name} | {bench.count / took / 1e6:.2f} | {bench.count * SIZE / took / 1e6:.0f} | {cost:.0f} |{ratios}",
            flush=True,
        )


def sent_in_chunks(count: int) -> int:
    """Return the sum of the numbers that Confluent's client sends: always those of the first messages."""
    full, rest = divmod(count, CHUNK)
    return full * (CHUNK * (CHUNK - 1) // 2) + rest * (rest - 1) // 2


def contest_of_peers(bench: Bench, names: list[str], whats: list[str], runs: int) -> None:
    """Let other engines read and send, one after the other; print a table of medians."""
    print("| other engines | messages | from Kafka, M/s | to Kafka, M/s |")
    print("| --- | ---: | ---: | ---: |")
    for name in names:
        peer, cells = PEERS[name], []
        count = min(bench.count, peer.messages_max)
        for what in ("from", "to"):
            if what not in whats:
                cells.append("")
                continue
            try:
                made = environment(peer.environment, False, tell)
                jar = connector() if peer.has_jar else None
                seconds = []
                for run in range(runs):
                    bench.target = bench.cluster.topic(f"target-{run}-{name}", bench.partitions) if what == "to" else ""
                    seconds.append(bench.by_peer(what, peer, made, jar))
                    tell(f"{what} Kafka, run {run + 1}: {name} {count / seconds[-1] / 1e6:.2f} M/s")
                    if what == "to":
                        total = sent_in_chunks(count) if peer.is_in_chunks else count * (count - 1) // 2
                        bench.check(bench.target, total, count)
                        bench.cluster.delete(bench.target)
                cells.append(f"{count / statistics.median(seconds) / 1e6:.2f}")
            except (CannotInstall, Failed, subprocess.TimeoutExpired, AssertionError) as reason:
                cells.append(f"none: {reason}".replace("|", "/"))
        print(f"| {name} | {count:,} | {' | '.join(cells)} |", flush=True)


def connector() -> Path:
    """Let Maven copy Flink's connector, unless it is there."""
    folder = cache() / "flink-kafka"
    if not (folder / "complete").exists():
        command = ["mvn", "-q", "-B", "-f", str(HERE / "kafka_peers" / "pom.xml"), "dependency:copy-dependencies"]
        command += [f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotInstall(f"mvn: {(done.stdout.strip() or done.stderr.strip()).splitlines()[0]}")
        (folder / "complete").touch()
    return next(folder.glob("flink-sql-connector-kafka-*.jar"))


def names_of_peers(text: str) -> list[str]:
    """Read names with commas."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PEERS)}")
    return found


def main() -> None:
    """Start a broker, fill a topic, run the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("from", "to"))
    parser.add_argument("--performance", help="the program rdkafka_performance")
    parser.add_argument("--peers", type=names_of_peers, default=[], help=f"other engines, of {', '.join(PEERS)}")
    parser.add_argument(
        "--folder", type=Path, help="where the broker and our state are; by default among the temporary files"
    )
    options = parser.parse_args()
    reason = kafka.missing()
    if reason is not None:
        parser.error(reason)
    kafka.fetch()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        (Path(folder) / "kafka").mkdir()
        broker = kafka.Broker(Path(folder) / "kafka", extra=PROPERTIES, java=JAVA).start()
        try:
            measure(broker.address, Path(folder), options)
        finally:
            broker.kill()


def measure(address: str, folder: Path, options: argparse.Namespace) -> None:
    """Fill a topic, run the jobs."""
    bench = Bench(address, make(options.messages), options.partitions, folder, options.performance)
    bench.target = bench.source
    bench.to_us("at_least_once")
    bench.check(bench.source, bench.total)
    others: dict[str, tuple[Job, Job]] = {"confluent_kafka": (bench.by_client, bench.to_client)}
    if shutil.which("kcat"):
        bench.write_lines()
        others["kcat"] = (bench.by_kcat, bench.to_kcat)
    if options.performance:
        others["rdkafka_performance"] = (bench.by_performance, bench.to_performance)
    for name in {"kcat", "rdkafka_performance"} - set(others):
        tell(f"{name} is not there; see --help")
    if options.only != "to":
        ours: dict[str, Job] = {"millstream": bench.by_us}
        contest(
            bench, "from Kafka", {name: job for name, (job, _) in others.items()} | ours, options.runs, is_sending=False
        )
    if options.only != "from":
        ours = {f"millstream {delivery.replace('_', ' ')}": partial(bench.to_us, delivery) for delivery in DELIVERIES}
        contest(
            bench, "to Kafka", {name: job for name, (_, job) in others.items()} | ours, options.runs, is_sending=True
        )
    if options.peers:
        whats = [what for what in ("from", "to") if options.only in (None, what)]
        contest_of_peers(bench, options.peers, whats, options.runs)


if __name__ == "__main__":
    main()
