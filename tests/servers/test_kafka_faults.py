"""What a user does wrong, and what a cluster refuses or forgets: told in time, and never at the price of a message."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import kafka
import pytest
from cluster import Cluster
from test_kafka_sink import SECONDS_MAX, Job, numbers, squares, wait_for

import millstream as mill

SECRET = "hunter2-hunter2"
NUMBER = {"n": int}


def wait_until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS_MAX
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_state_holds_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(5000))
    options = {"sasl.password": SECRET, "ssl.key.password": SECRET}
    stream = mill.read_kafka(cluster.address, source, format="json", schema=NUMBER, until="end", options=options)
    sink = stream.write_kafka(cluster.address, target, format="json", options=options)
    report = mill.run(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="20ms"))
    assert SECRET not in repr(report) + str(report)
    found = files(tmp_path)
    assert found
    assert not [path for path in found if SECRET.encode() in path.read_bytes()]


# -- messages that can never be sent ----------------------------------------------------------------------------------------


def at(seconds: float) -> datetime:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).replace(tzinfo=None)


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
@pytest.mark.parametrize(
    ("topic", "column", "bad", "message"),
    [
        ({}, "partition", 2, r'column "partition" is 2, and topic ".*" has 2 partitions'),
        ({}, "partition", -1, r'column "partition" is -1, which is no partition'),
        ({}, "partition", 2**32, r'column "partition" is 4294967296, which is no partition'),
        ({}, "text", "x" * 1_000_001, r"the message has 1000\d\d\d bytes .* more than the 1000000 of message.max.bytes"),
        ({"max.message.bytes": "2000"}, "text", "x" * 2000, r'more than the 2000 that topic ".*" takes \(max.message.bytes\)'),
        ({"cleanup.policy": "compact"}, "key", None, r'column "key" is null, and topic ".*" is compacted'),
        ({}, "time", at(1e6), r'column "time" is \d+ ms since 1970, more than 3600000 ms after now'),
        ({}, "time", datetime(1970, 1, 1), r'column "time" is .*, and a message has a time after 1970'),
    ],
)
def test_a_message_that_can_never_be_sent(
    cluster: Cluster, tmp_path: Path, topic: dict[str, str], column: str, bad: Any, message: str, delivery: Any
) -> None:
    """It would be in a checkpoint, and every restart would try to send it."""
    name = cluster.topic("out", 2, **topic)
    rows = [{"n": n, "key": "k", "partition": n % 2, "text": "x", "time": at(0)} for n in range(10)]
    rows[5] = {**rows[5], column: bad}
    schema = {"n": int, "key": str, "partition": int, "text": str, "time": datetime}
    stream = mill.from_iter(rows, schema=schema)
    sink = stream.write_kafka(
        cluster.address, name, format="json", key="key", partition="partition", timestamp="time", delivery=delivery
    )
    with pytest.raises(mill.DataError, match=message) as info:
        mill.run(sink, checkpoint=tmp_path / "fails")
    assert info.value.step is not None
    assert "write_kafka" in info.value.step
    report = mill.run(sink, checkpoint=tmp_path / "skips", on_error="skip")
    assert report.rows_skipped == 1
    # A job at least once may have sent some before it failed.
    found = [row["n"] for row in cluster.rows(name)]
    expected = [n for n in range(10) if n != 5]
    assert sorted(found) == expected if delivery == "exactly_once" else set(found) == set(expected)


def test_partitions_that_are_added_can_be_written(cluster: Cluster, tmp_path: Path) -> None:
    source, target = cluster.topic("in"), cluster.topic("out")
    stream = mill.read_kafka(cluster.address, source, format="json", schema=NUMBER)
    sink = stream.write_kafka(cluster.address, target, format="json", partition="n")
    job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"))
    cluster.send(source, [{"n": 0}])
    wait_until(lambda: len(cluster.read(target)) == 1)
    cluster.add_partitions(target, 2)
    cluster.send(source, [{"n": 1}])
    wait_until(lambda: len(cluster.read(target)) == 2)
    job.stop()
    job.wait()
    assert [(found.partition(), found.value()) for found in cluster.read(target)] == [(0, b'{"n":0}'), (1, b'{"n":1}')]


def test_small_messages_into_a_topic_with_small_batches(cluster: Cluster, tmp_path: Path) -> None:
    """Each message fits, and many of them in one batch would not."""
    target = cluster.topic("out", 1, **{"max.message.bytes": "1000"})
    sink = mill.from_iter(numbers(5000)).write_kafka(cluster.address, target, format="json")
    mill.run(sink, checkpoint=tmp_path / "state")
    assert [row["n"] for row in cluster.rows(target)] == list(range(5000))


# -- where a job begins and ends -------------------------------------------------------------------------------------------


def test_the_latest_is_that_of_the_first_start(cluster: Cluster, tmp_path: Path) -> None:
    """A job that dies before its first regular checkpoint continues from where it began, not after the messages that have arrived since."""
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(10))
    arguments = ("squares", cluster.address, source, target, tmp_path / "state", "--endless", "--start", "latest")
    job = Job(tmp_path, *arguments, "--every", "10m")
    wait_for(lambda: any(path.name.startswith("manifest-") for path in files(tmp_path / "state")), job)
    cluster.send(source, numbers(10, 10))
    job.kill()
    cluster.send(source, numbers(10, 20))
    job = Job(tmp_path, *arguments, "--every", "50ms")
    wait_for(lambda: len(cluster.read(target)) >= 20, job)
    job.kill()
    assert squares(cluster, target) == list(range(10, 30))


def test_the_end_holds_for_partitions_that_are_added(cluster: Cluster, tmp_path: Path) -> None:
    source = cluster.topic("in")
    times = [1_700_000_000_000, 1_700_000_010_000]
    for number, time_ms in enumerate(times):
        cluster.send(source, numbers(10, 10 * number), timestamp=time_ms)
    seen: list[int] = []
    fails = True

    def see(row: Any) -> None:
        if fails:
            raise RuntimeError("dies")
        seen.append(row.n)

    start, until = (datetime.fromtimestamp(time_ms / 1000, timezone.utc) for time_ms in times)
    stream = mill.read_kafka(cluster.address, source, format="json", schema=NUMBER, start=start, until=until)
    checkpoint = mill.Checkpoint(tmp_path / "state", every="10m", mode="at_least_once")
    with pytest.raises(mill.UserFunctionError):
        mill.run(stream.for_each(see), checkpoint=checkpoint)
    cluster.add_partitions(source, 2)
    for number, time_ms in enumerate(times):
        cluster.send(source, numbers(10, 100 + 10 * number), partition=1, timestamp=time_ms)
    fails = False
    mill.run(stream.for_each(see), checkpoint=checkpoint)
    assert sorted(seen) == [*range(10), *range(100, 110)]


# -- other topics, other promises --------------------------------------------------------------------------------------------


def test_a_job_that_goes_on_in_another_topic(cluster: Cluster, tmp_path: Path) -> None:
    """It is another one to the cluster: neither fences the other, and the former topic is not continued by accident."""
    source, first, second = cluster.topic("in"), cluster.topic("first"), cluster.topic("second")
    cluster.send(source, numbers(100))
    endless = ("--endless", "--every", "50ms")
    one = Job(tmp_path / "1", "squares", cluster.address, source, first, tmp_path / "state", *endless)
    wait_for(lambda: len(cluster.read(first)) == 100, one)
    one.process.send_signal(signal.SIGSTOP)
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    one.process.send_signal(signal.SIGCONT)
    restore = ("--restore-from", tmp_path / "copy")
    two = Job(tmp_path / "2", "squares", cluster.address, source, second, tmp_path / "other", *endless, *restore)
    for start in (100, 200):
        cluster.send(source, numbers(100, start))
        wait_for(lambda start=start: len(cluster.read(first)) == start + 100, one)  # type: ignore[misc]
        wait_for(lambda start=start: len(cluster.read(second)) == start, two)  # type: ignore[misc]
    one.kill()
    two.kill()
    assert squares(cluster, first) == list(range(300))
    assert squares(cluster, second) == list(range(100, 300))
    moved = Job(tmp_path / "3", "squares", cluster.address, source, second, tmp_path / "state", *endless)
    assert moved.process.wait(SECONDS_MAX) == 1
    assert f'the topic was "{first}" when the checkpoint was taken' in moved.said()


@pytest.mark.parametrize("step", ["kafka.begin:2", "kafka.noted:2", "kafka.committed:2"])
def test_from_exactly_once_to_at_least_once(cluster: Cluster, tmp_path: Path, step: str) -> None:
    """What a checkpoint still holds is taken up first, once, and no file is left."""
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(3000))
    arguments = ("squares", cluster.address, source, target, tmp_path / "state", "--every", "10m", "--parallelism", 1)
    assert Job(tmp_path, *arguments, fail_point=step).process.wait(SECONDS_MAX) == -signal.SIGKILL
    assert list((tmp_path / "state").rglob("*.messages"))
    Job(tmp_path, *arguments, "--delivery", "at_least_once").finish()
    assert squares(cluster, target) == list(range(3000))
    assert not list((tmp_path / "state").rglob("*.messages"))


# -- a cluster that hangs or forgets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_cancel_while_the_broker_hangs(broker: kafka.Broker, cluster: Cluster, tmp_path: Path, delivery: Any) -> None:
    """Whatever waits for the cluster sees that the job ends."""
    target = cluster.topic("out")
    stream = mill.generate(rate=20_000, n=mill.index(), text=mill.lit("x" * 1000))
    sink = stream.write_kafka(cluster.address, target, format="json", delivery=delivery)
    job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="100ms"))
    wait_until(lambda: len(cluster.read(target)) > 0)
    broker.pause()
    try:
        time.sleep(2)
        began = time.monotonic()
        job.cancel()
        job.wait(timeout=f"{SECONDS_MAX}s")
        assert time.monotonic() - began < 30
        assert job.status.state == "cancelled"
    finally:
        broker.go_on()


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[kafka.Broker]:
    """Give a broker that keeps the offsets of groups for a minute."""
    if kafka.missing() is not None:
        pytest.skip(str(kafka.missing()))
    extra = "offsets.retention.minutes=1\noffsets.retention.check.interval.ms=1000\n"
    (tmp_path / "forgetful").mkdir()
    started = kafka.Broker(tmp_path / "forgetful", extra=extra).start()
    yield started
    started.kill()


def test_a_note_is_kept_up_while_nothing_happens(forgetful: kafka.Broker, tmp_path: Path) -> None:
    from confluent_kafka import Consumer, TopicPartition

    cluster = Cluster(forgetful.address, "quiet")
    source, target = cluster.topic("in"), cluster.topic("out")
    cluster.send(source, numbers(100))
    job = Job(tmp_path, "squares", cluster.address, source, target, tmp_path / "state", "--endless", "--every", "200ms")
    wait_for(lambda: len(cluster.read(target)) == 100, job)
    consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": "oracle"})

    def written() -> int:
        parts = [TopicPartition("__consumer_offsets", part) for part in range(4)]
        return sum(consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts)

    before = written()
    wait_for(lambda: written() > before, job)
    consumer.close()
    cluster.send(source, numbers(100, 100))
    wait_for(lambda: len(cluster.read(target)) == 200, job)
    job.kill()
    assert squares(cluster, target) == list(range(200))


# -- a cluster that refuses --------------------------------------------------------------------------------------------------

LOGIN = """\
listeners=PLAINTEXT://127.0.0.1:{{port}},SASL_PLAINTEXT://127.0.0.1:{login},CONTROLLER://127.0.0.1:{{controller}}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},SASL_PLAINTEXT://127.0.0.1:{login}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_reader="{secret}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


def test_a_cluster_that_refuses(tmp_path: Path) -> None:
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        AdminClient,
        ResourcePatternType,
        ResourceType,
    )

    if kafka.missing() is not None:
        pytest.skip(str(kafka.missing()))
    login = kafka.free_port()
    (tmp_path / "broker").mkdir()
    started = kafka.Broker(tmp_path / "broker", extra=LOGIN.format(login=login, secret=SECRET)).start()
    try:
        cluster = Cluster(started.address, "acl")
        admin = AdminClient({"bootstrap.servers": started.address})
        topic = cluster.topic("in")
        cluster.send(topic, numbers(10))
        user = {"security.protocol": "sasl_plaintext", "sasl.mechanism": "PLAIN", "sasl.username": "reader"}

        def read(password: str, name: str = topic) -> list[Any]:
            options = {**user, "sasl.password": password}
            stream = mill.read_kafka(f"127.0.0.1:{login}", name, format="json", schema=NUMBER, until="end", options=options)
            return [row["n"] for row in stream.collect().to_pylist()]

        def allow(operation: Any) -> None:
            binding = AclBinding(
                ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:reader", "*", operation, AclPermissionType.ALLOW
            )
            for done in admin.create_acls([binding]).values():
                done.result()

        with pytest.raises(mill.ConnectorError, match="refuses the login") as info:
            read(SECRET[::-1])
        assert SECRET[::-1] not in str(info.value)
        with pytest.raises(mill.ConnectorError, match="no permission for the topic: a source needs READ"):
            read(SECRET)
        allow(AclOperation.DESCRIBE)
        with pytest.raises(mill.ConnectorError, match="no permission for the topic: a source needs READ"):
            read(SECRET)
        allow(AclOperation.READ)
        wait_until(lambda: read(SECRET) == list(range(10)))
    finally:
        started.kill()
