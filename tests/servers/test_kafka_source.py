"""`read_kafka` against a real broker; what it should give is known from what was sent, or read by Confluent's client."""

from __future__ import annotations

import base64
import json
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cluster import Cluster

import millstream as mill
from millstream import col

SCHEMA = {"n": int, "word": str}


def numbers(count: int, start: int = 0) -> list[dict[str, object]]:
    return [{"n": n, "word": f"w{n % 7}"} for n in range(start, start + count)]


def by_n(table: object) -> list[dict[str, object]]:
    return sorted(table.to_pylist(), key=lambda row: row["n"])  # type: ignore[attr-defined]


def read(cluster: Cluster, topic: str, **more: object) -> mill.Stream:
    return mill.read_kafka(cluster.address, topic, format="json", schema=SCHEMA, **{"until": "end", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_all_messages_of_all_partitions(cluster: Cluster, parallelism: int) -> None:
    topic = cluster.topic("in", 4)
    cluster.send(topic, numbers(5000))
    assert by_n(read(cluster, topic).collect(parallelism=parallelism)) == numbers(5000)
    assert read(cluster, cluster.topic("empty", 2)).collect().to_pylist() == []


def test_what_is_known_of_a_message(cluster: Cluster) -> None:
    topic = cluster.topic("in", 2)
    headers = [("trace", b"\x00\x01"), ("trace", b"again"), ("none", None)]
    cluster.send(topic, [{"n": 1}, {"n": 2}], key=b"k\xff", headers=headers, timestamp=1_700_000_000_123)
    metadata = ["key", "topic", "partition", "offset", "timestamp", "headers"]
    found = by_n(read(cluster, topic, metadata=metadata).collect())
    at = datetime.fromtimestamp(1_700_000_000, timezone.utc).replace(microsecond=123_000)
    for number, row in enumerate(found):
        assert row == {
            "n": number + 1,
            "word": None,
            "_key": b"k\xff",
            "_topic": topic,
            "_partition": number,
            "_offset": 0,
            "_timestamp": at,
            "_headers": [{"key": name, "value": value} for name, value in headers],
        }
    raw = mill.read_kafka(cluster.address, topic, format="raw", metadata="partition", until="end")
    rows = sorted(raw.collect().to_pylist(), key=lambda row: row["_partition"])
    assert rows[0] == {"key": b"k\xff", "value": b'{"n": 1}', "_partition": 0}
    only = raw.select("_partition").collect().to_pylist()
    assert sorted(row["_partition"] for row in only) == [0, 1]


def test_transactions(cluster: Cluster) -> None:
    """What was aborted is not read, and neither that nor a mark at the end keeps a bounded input from ending."""
    topic = cluster.topic("in", 2)
    producer = cluster.producer(**{"transactional.id": topic})
    producer.init_transactions()
    for start, is_committed in ((0, True), (100, False), (200, True), (300, False)):
        producer.begin_transaction()
        cluster.send(topic, numbers(100, start), producer=producer)
        producer.flush()
        (producer.commit_transaction if is_committed else producer.abort_transaction)()
    expected = numbers(100) + numbers(100, 200)
    assert by_n(read(cluster, topic).collect()) == expected
    # One that is still open hides itself, and what is behind it.
    producer.begin_transaction()
    cluster.send(topic, numbers(100, 400), producer=producer)
    producer.flush()
    cluster.send(topic, numbers(10, 900))
    assert by_n(read(cluster, topic).collect()) == expected
    uncommitted = read(cluster, topic, options={"isolation.level": "read_uncommitted"}).collect()
    assert len(uncommitted) == 510
    producer.commit_transaction()
    assert by_n(read(cluster, topic).collect()) == expected + numbers(100, 400) + numbers(10, 900)


def test_only_marks_and_aborted_messages(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    producer = cluster.producer(**{"transactional.id": topic})
    producer.init_transactions()
    for _ in range(3):
        producer.begin_transaction()
        cluster.send(topic, numbers(10), producer=producer)
        producer.flush()
        producer.abort_transaction()
    assert read(cluster, topic).collect().to_pylist() == []


def test_where_it_begins_and_ends(cluster: Cluster) -> None:
    topic = cluster.topic("in", 2)
    for second, start in enumerate((0, 100, 200)):
        cluster.send(topic, numbers(100, start), timestamp=1_700_000_000_000 + 1000 * second)
    at = [datetime.fromtimestamp(1_700_000_000 + second, timezone.utc) for second in range(5)]
    assert by_n(read(cluster, topic, start=at[1]).collect()) == numbers(200, 100)
    assert by_n(read(cluster, topic, until=at[2]).collect()) == numbers(200)
    assert by_n(read(cluster, topic, start=at[1], until=at[2]).collect()) == numbers(100, 100)
    assert read(cluster, topic, start=at[4]).collect().to_pylist() == []
    assert read(cluster, topic, start="latest").collect().to_pylist() == []
    here = {(topic, 0): 149, (topic, 1): 148}
    assert [row["n"] for row in by_n(read(cluster, topic, start=here).collect())] == [297, 298, 299]
    there = {(topic, 0): 1, (topic, 1): 2}
    assert [row["n"] for row in by_n(read(cluster, topic, until=there).collect())] == [0, 1, 3]
    with pytest.raises(mill.ConnectorError, match=r"until offset 151, and ends at 150"):
        read(cluster, topic, until={(topic, 0): 151, (topic, 1): 0}).collect()
    with pytest.raises(mill.PlanError, match=r'start has no offset for ".*\[1\]"'):
        read(cluster, topic, start={(topic, 0): 0}).collect()


def test_where_a_group_stands(cluster: Cluster) -> None:
    from confluent_kafka import Consumer, TopicPartition

    topic = cluster.topic("in", 2)
    cluster.send(topic, numbers(100))
    group = f"group-{topic}"
    consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 49)], asynchronous=False)
    consumer.close()
    with pytest.raises(mill.ConnectorError, match=rf"group \"{group}\" has no offset for {topic}\[1\]; .* has messages from offset 0 to 50"):
        read(cluster, topic, start="committed", group=group).collect()
    options = {"auto.offset.reset": "latest"}
    found = read(cluster, topic, start="committed", group=group, options=options).collect()
    assert [row["n"] for row in found.to_pylist()] == [98]


def test_several_topics_and_a_pattern(cluster: Cluster) -> None:
    first, second = cluster.topic("one"), cluster.topic("two")
    other = cluster.topic("two-not")
    for start, topic in enumerate((first, second, other)):
        cluster.send(topic, numbers(10, 10 * start))
    several = mill.read_kafka(cluster.address, [second, first], format="json", schema=SCHEMA, until="end")
    assert by_n(several.collect()) == numbers(20)
    prefix = first.removesuffix("one")
    assert by_n(read(cluster, f"^{prefix}(one|two)").collect()) == numbers(20)
    with pytest.raises(mill.ConnectorError, match="no topic matches"):
        read(cluster, "^nothing-like-it-.*").collect()


def test_what_is_no_record(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    bad = [b"{", None, b"", b'{"n": "x"}', b"\xff\xfe", b'{"n": 1}{"n": 2}', b'["n"]']
    cluster.send(topic, [{"n": 0}, *bad, {"n": 9}], key=b"\xfe")
    with pytest.raises(mill.DataError, match=rf"{topic}\[0\] offset 1: the value is not one complete JSON object"):
        read(cluster, topic).collect()
    skipped = read(cluster, topic).collect(on_error="skip")
    assert [row["n"] for row in skipped.to_pylist()] == [0, 9]
    stream = read(cluster, topic)
    errors: list[str] = []
    rows: list[int] = []
    sinks = [stream.for_each(lambda row: rows.append(row.n)), stream.errors.for_each(lambda row: errors.append(row.record))]
    mill.run(*sinks, on_error="route")
    assert rows == [0, 9]
    told = [json.loads(record) for record in errors]
    assert [record["offset"] for record in told] == list(range(1, 8))
    for record, value in zip(told, bad, strict=True):
        assert (record["topic"], record["partition"], base64.b64decode(record["key"])) == (topic, 0, b"\xfe")
        if value == b"\xff\xfe":
            assert base64.b64decode(record["value"]) == value
        else:
            assert record["value"] == (None if value is None else value.decode())


def test_offsets_that_were_removed(cluster: Cluster, tmp_path: Path) -> None:
    topic = cluster.topic("in")
    cluster.send(topic, numbers(100))
    seen: list[int] = []

    def job(options: dict[str, str]) -> None:
        stream = mill.read_kafka(cluster.address, topic, format="json", schema=SCHEMA, options=options)
        sink = stream.for_each(lambda row: seen.append(row.n))
        checkpoint = mill.Checkpoint(tmp_path / "state", every="50ms", mode="at_least_once")
        started = mill.start(sink, checkpoint=checkpoint)
        end = time.monotonic() + 60
        while (not seen or seen[-1] != count - 1) and time.monotonic() < end and not started.status.state == "failed":
            time.sleep(0.02)
        started.stop()
        started.wait()

    count = 100
    job({})
    assert seen == list(range(100))
    cluster.send(topic, numbers(100, 100))
    cluster.delete_records(topic, 0, 150)
    with pytest.raises(mill.ConnectorError, match=rf"continues at offset 100 of {topic}\[0\], which was removed, .* from offset 150 to 200"):
        job({})
    assert seen == list(range(100))
    count = 200
    job({"auto.offset.reset": "earliest"})
    assert seen == [*range(100), *range(150, 200)]


def test_partitions_that_are_added(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    cluster.send(topic, numbers(10))
    seen: set[int] = set()
    is_there = threading.Event()

    def see(row: object) -> None:
        seen.add(row.n)  # type: ignore[attr-defined]
        if len(seen) == 30:
            is_there.set()

    options = {"topic.metadata.refresh.interval.ms": 100}
    stream = mill.read_kafka(cluster.address, topic, format="json", schema=SCHEMA, options=options)
    job = mill.start(stream.for_each(see))
    cluster.add_partitions(topic, 3)
    cluster.send(topic, numbers(10, 10), partition=1)
    cluster.send(topic, numbers(10, 20), partition=2)
    assert is_there.wait(60)
    job.stop()
    job.wait()
    assert seen == set(range(30))


def test_what_is_wrong_is_told_before_the_first_record(cluster: Cluster) -> None:
    topic = cluster.topic("clicks")
    with pytest.raises(mill.ConnectorError, match=f'has no topic "{topic[:-1]}"; did you mean "{topic}'):
        read(cluster, topic[:-1]).collect()
    with pytest.raises(mill.PlanError, match=r'there is no option "fetch.min.byte"; did you mean "fetch.min.bytes"'):
        read(cluster, topic, options={"fetch.min.byte": 1})
    with pytest.raises(mill.PlanError, match=r'option "fetch.min.bytes" cannot be "x"'):
        read(cluster, topic, options={"fetch.min.bytes": "x"})
    with pytest.raises(mill.PlanError, match=r'"enable.auto.commit", which is not for you to set: positions are in the checkpoint'):
        read(cluster, topic, options={"enable.auto.commit": True})


def test_windows_by_the_time_of_messages(cluster: Cluster) -> None:
    topic = cluster.topic("in", 3)
    for second in range(10):
        cluster.send(topic, numbers(9, 9 * second), timestamp=1_700_000_000_000 + 1000 * second)
    stream = read(cluster, topic, metadata="timestamp")
    windows = stream.event_time("_timestamp").key_by("word").window(mill.tumbling("5s")).agg(n=mill.count(), sum=col("n").sum())
    found = windows.collect(parallelism=2).to_pylist()
    expected: dict[tuple[str, int], list[int]] = {}
    for row in numbers(90):
        n = int(str(row["n"]))
        expected.setdefault((str(row["word"]), n // 45), []).append(n)
    assert {(row["word"], row["window_start"].second // 5 % 2, row["n"], row["sum"]) for row in found} == {
        (word, half, len(ns), sum(ns)) for (word, half), ns in expected.items()
    }
