"""Offsets in a consumer group, as tools that measure lag ask for them."""

from __future__ import annotations

import time
from pathlib import Path

from cluster import SECONDS_MAX, Cluster
from confluent_kafka import Consumer, TopicPartition

import millstream as mill


def committed(cluster: Cluster, group: str, topic: str, partitions: int) -> list[int]:
    consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": group})
    found = consumer.committed([TopicPartition(topic, part) for part in range(partitions)], timeout=SECONDS_MAX)
    consumer.close()
    return [part.offset for part in found]


def test_a_group_has_the_positions_of_completed_checkpoints(cluster: Cluster, tmp_path: Path) -> None:
    source, target = cluster.topic("in", 3), cluster.topic("out")
    group = f"group-{source}"
    stream = mill.read_kafka(cluster.address, source, format="json", schema={"n": int}, group=group)
    sink = stream.write_kafka(cluster.address, target, format="json")

    def run(every: str, count: int) -> mill.Job:
        job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every=every), parallelism=2)
        end = time.monotonic() + SECONDS_MAX
        while sum(max(offset, 0) for offset in committed(cluster, group, source, 3)) < count:
            assert time.monotonic() < end
            assert job.status.state != "failed"
            time.sleep(0.05)
        return job

    cluster.send(source, [{"n": n} for n in range(100)], partition=0)
    cluster.send(source, [{"n": n} for n in range(50)], partition=2)
    job = run("50ms", 150)
    # A partition of which nothing was read stands at its beginning.
    assert committed(cluster, group, source, 3) == [100, 0, 50]
    # What the group has is visible in the sink.
    assert len(cluster.read(target)) == 150
    job.cancel()
    job.wait()
    # Where the next run begins is the checkpoint's to say, whatever the group has.
    consumer = Consumer({"bootstrap.servers": cluster.address, "group.id": group})
    consumer.commit(offsets=[TopicPartition(source, 0, 7)], asynchronous=False)
    consumer.close()
    cluster.send(source, [{"n": n} for n in range(10)], partition=1)
    job = run("50ms", 160)
    job.stop()
    job.wait()
    assert committed(cluster, group, source, 3) == [100, 10, 50]
    assert len(cluster.read(target)) == 160


def test_a_bounded_job_ends_with_its_last_positions(cluster: Cluster, tmp_path: Path) -> None:
    source = cluster.topic("in", 2)
    group = f"group-{source}"
    cluster.send(source, [{"n": n} for n in range(101)])
    stream = mill.read_kafka(cluster.address, source, format="json", schema={"n": int}, until="end", group=group)
    mill.run(stream.for_each(lambda row: None), checkpoint=mill.Checkpoint(tmp_path / "state", mode="at_least_once"))
    assert committed(cluster, group, source, 2) == [51, 50]


def test_without_a_checkpoint_no_group_is_touched(cluster: Cluster) -> None:
    source = cluster.topic("in")
    cluster.send(source, [{"n": 1}])
    mill.read_kafka(cluster.address, source, format="json", schema={"n": int}, until="end", group=f"group-{source}").collect()
    assert f"group-{source}" not in cluster.groups()
