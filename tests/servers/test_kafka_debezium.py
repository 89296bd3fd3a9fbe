"""Change events of Debezium, sent as the connector writes them, against the rows that a table would have."""

from __future__ import annotations

import base64
import json
import random
import time
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster

import millstream as mill
from millstream import col

SCHEMA = {"id": int, "name": str, "n": int}


class Table:
    """A table, and the events of its changes as Debezium's PostgreSQL connector writes them."""

    def __init__(self, *, has_schemas: bool, has_before: bool = True) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.events: list[tuple[bytes, bytes | None]] = []
        self._has_schemas = has_schemas
        self._has_before = has_before

    def set(self, row: dict[str, Any], op: str | None = None) -> None:
        before = self.rows.get(row["id"])
        self.rows[row["id"]] = row
        self._event(row["id"], op or ("u" if before else "c"), before, row)

    def delete(self, key: int) -> None:
        self._event(key, "d", self.rows.pop(key), None)
        self.events.append((self._key(key), None))

    def _envelope(self, schema: dict[str, Any], payload: Any) -> bytes:
        return json.dumps({"schema": schema, "payload": payload} if self._has_schemas else payload).encode()

    def _key(self, key: int) -> bytes:
        fields = [{"type": "int32", "optional": False, "field": "id"}]
        return self._envelope({"type": "struct", "fields": fields, "optional": False, "name": "t.Key"}, {"id": key})

    def _event(self, key: int, op: str, before: Any, after: Any) -> None:
        payload = {
            "before": before if self._has_before else None,
            "after": after,
            "source": {"connector": "postgresql", "table": "t"},
            "op": op,
            "ts_ms": 1,
        }
        fields = [{"type": "int32", "field": "id"}, {"type": "string", "field": "name"}, {"type": "int64", "field": "n"}]
        row = {"type": "struct", "fields": fields, "optional": True, "name": "t.Value"}
        schema = {"type": "struct", "fields": [{**row, "field": "before"}, {**row, "field": "after"}], "name": "t.Envelope"}
        self.events.append((self._key(key), self._envelope(schema, payload)))


def send(cluster: Cluster, topic: str, events: list[tuple[bytes, bytes | None]], partitions: int = 1) -> None:
    producer = cluster.producer()
    for key, value in events:
        cluster.send(topic, [value], key=key, partition=hash(key) % partitions, producer=producer)
    assert producer.flush(60) == 0


def read(cluster: Cluster, topic: str, schema: Any = SCHEMA, key: Any = "id", **more: Any) -> mill.Stream:
    return mill.read_kafka(cluster.address, topic, format="debezium-json", schema=schema, key=key, **{"until": "end", **more})


def by_id(table: Any) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row["id"])


@pytest.mark.parametrize("has_schemas", [True, False])
@pytest.mark.parametrize("has_before", [True, False])
def test_changes_become_the_rows_of_the_table(cluster: Cluster, has_schemas: bool, has_before: bool) -> None:
    topic = cluster.topic("in", 3)
    table = Table(has_schemas=has_schemas, has_before=has_before)
    rng = random.Random(7)
    for n in range(20):
        table.set({"id": n, "name": f"first \u00e4 {n}", "n": n}, op="r")
    for n in range(600):
        key = rng.randrange(60)
        if key in table.rows and rng.random() < 0.3:
            table.delete(key)
        else:
            table.set({"id": key, "name": rng.choice(["x", "y \"z\"", None]), "n": n})
    send(cluster, topic, table.events, 3)
    stream = read(cluster, topic)
    assert stream.updating_key == ["id"]
    assert by_id(stream.collect(parallelism=2)) == [table.rows[key] for key in sorted(table.rows)]
    few = stream.filter(col("n") % 2 == 0).select("id", double=col("n") * 2)
    assert by_id(few.collect(parallelism=2)) == [
        {"id": key, "double": row["n"] * 2} for key, row in sorted(table.rows.items()) if row["n"] % 2 == 0
    ]
