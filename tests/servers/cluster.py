"""What tests ask a cluster for, through Confluent's client: topics, messages, transactions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

SECONDS_MAX = 60


class Cluster:
    """A cluster, with topics of one test."""

    def __init__(self, address: str, prefix: str) -> None:
        self.address = address
        self._prefix = prefix
        self._admin = AdminClient({"bootstrap.servers": address, "log_level": 4})

    def topic(self, name: str, partitions: int = 1, **config: str) -> str:
        """Create a topic; give its whole name."""
        full = f"{self._prefix}-{name}"
        new = NewTopic(full, num_partitions=partitions, replication_factor=1, config=config)
        for done in self._admin.create_topics([new]).values():
            done.result()
        self._until(lambda: len(self._admin.list_topics(full, timeout=10).topics[full].partitions) == partitions)
        return full

    def ready(self) -> None:
        """Wait until the cluster answers."""
        self._admin.list_topics(timeout=SECONDS_MAX)

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        for done in self._admin.delete_topics([topic]).values():
            done.result()

    def hidden(self, topic: str) -> int:
        """Give how many offsets of a topic `read_committed` does not show yet, since a transaction before them is open."""
        parts = [TopicPartition(topic, part) for part in self._admin.list_topics(topic, timeout=10).topics[topic].partitions]
        ends = []
        for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED):
            found = self._admin.list_offsets({part: OffsetSpec.latest() for part in parts}, isolation_level=level)
            ends.append(sum(future.result().offset for future in found.values()))
        return ends[0] - ends[1]

    def add_partitions(self, topic: str, total: int) -> None:
        """Give a topic more partitions."""
        for done in self._admin.create_partitions([NewPartitions(topic, total)]).values():
            done.result()
        self._until(lambda: len(self._admin.list_topics(topic, timeout=10).topics[topic].partitions) == total)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Remove what is older than an offset, as retention does."""
        for done in self._admin.delete_records([TopicPartition(topic, partition, before)]).values():
            done.result()

    def producer(self, **config: Any) -> Producer:
        """Give a producer, which keeps the order of messages also where a busy broker makes it send some again."""
        return Producer({"bootstrap.servers": self.address, "linger.ms": 5, "enable.idempotence": True, **config})

    def send(self, topic: str, values: Iterable[Any], *, partition: int | None = None, producer: Producer | None = None, **more: Any) -> None:
        """Send values, bytes as they are and others as JSON, one after the other over the partitions."""
        sender = producer or self.producer()
        count = len(self._admin.list_topics(topic, timeout=10).topics[topic].partitions)
        for number, value in enumerate(values):
            data = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
            where = number % count if partition is None else partition
            while True:
                try:
                    sender.produce(topic, data, partition=where, **more)
                    break
                except BufferError:
                    sender.poll(0.01)
        if producer is None:
            assert sender.flush(SECONDS_MAX) == 0

    def read(self, topic: str, *, level: str = "read_committed") -> list[Any]:
        """Give all messages up to the present end, partition after partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "oracle",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": level,
                "fetch.wait.max.ms": 20,
            }
        )
        parts = sorted(self._admin.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, part, 0) for part in parts])
        found: list[Any] = []
        open_parts = set(parts)
        end = time.monotonic() + SECONDS_MAX
        while open_parts:
            assert time.monotonic() < end, f"{topic} has no end"
            for message in consumer.consume(1000, 0.1):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_parts.discard(message.partition())
                else:
                    raise KafkaException(error)
        consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def rows(self, topic: str, *, level: str = "read_committed") -> list[Any]:
        """Give the values of all messages as JSON."""
        return [json.loads(message.value()) for message in self.read(topic, level=level)]

    def end(self, topic: str) -> int:
        """Give how many offsets a topic has, those of marks and of what was aborted among them."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "oracle"})
        parts = self._admin.list_topics(topic, timeout=10).topics[topic].partitions
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, part), timeout=SECONDS_MAX)[1] for part in parts]
        consumer.close()
        return sum(ends)

    def groups(self) -> Sequence[str]:
        """Give the names of all consumer groups."""
        return [group.group_id for group in self._admin.list_consumer_groups().result().valid]

    def note(self, group: str, topic: str) -> str | None:
        """Give the words beside the offset that a group has in the first partition of a topic."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group})
        (found,) = consumer.committed([TopicPartition(topic, 0)], timeout=SECONDS_MAX)
        try:
            return found.metadata if found.offset >= 0 else None
        except UnicodeDecodeError as error:
            # The client does not end the words where they end; what comes after them is anything.
            return str(error.object[: error.start].decode())
        finally:
            consumer.close()

    def delete_group(self, group: str) -> None:
        """Delete a group with its offsets."""
        for done in self._admin.delete_consumer_groups([group]).values():
            done.result()

    @staticmethod
    def _until(is_true: Any) -> None:
        end = time.monotonic() + SECONDS_MAX
        while not is_true():
            assert time.monotonic() < end
            time.sleep(0.05)
