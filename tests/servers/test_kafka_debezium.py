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
        # As Jackson writes it, without spaces.
        return json.dumps({"schema": schema, "payload": payload} if self._has_schemas else payload, separators=(",", ":")).encode()

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


def connect_decimal(value: Decimal) -> str:
    """Write a decimal as Java's BigInteger.toByteArray and the converter's base64 do."""
    sign, digits, _ = value.as_tuple()
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    return base64.b64encode(number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True)).decode()


EPOCH = datetime(1970, 1, 1)
AT = datetime(2024, 2, 29, 23, 59, 59, 123456)
MICROS = (AT - EPOCH) // timedelta(microseconds=1)

# Name of the type of Connect, its base type, its parameters; the value in JSON; the column, and its value.
TYPES: dict[str, tuple[str | None, str, dict[str, str] | None, Any, Any, Any]] = {
    "date": ("io.debezium.time.Date", "int32", None, (AT - EPOCH).days, date, AT.date()),
    "date_before": ("org.apache.kafka.connect.data.Date", "int32", None, -1, date, date(1969, 12, 31)),
    "date_int": ("io.debezium.time.Date", "int32", None, 3, int, 3),
    "millis": ("io.debezium.time.Timestamp", "int64", None, MICROS // 1000, mill.Timestamp("us"), AT.replace(microsecond=123000)),
    "micros": ("io.debezium.time.MicroTimestamp", "int64", None, MICROS, datetime, AT),
    "nanos": ("io.debezium.time.NanoTimestamp", "int64", None, MICROS * 1000, datetime, AT),
    "connect": ("org.apache.kafka.connect.data.Timestamp", "int64", None, -1000, mill.Timestamp("s"), datetime(1969, 12, 31, 23, 59, 59)),
    "zoned": ("io.debezium.time.ZonedTimestamp", "string", None, "2024-02-29T22:59:59.5Z", mill.Timestamp("us", tz="UTC"),
              datetime(2024, 2, 29, 22, 59, 59, 500000, timezone.utc)),
    "time_ms": ("io.debezium.time.Time", "int32", None, 3_723_004, clock, clock(1, 2, 3, 4000)),
    "time_us": ("io.debezium.time.MicroTime", "int64", None, 3_723_000_004, clock, clock(1, 2, 3, 4)),
    "interval": ("io.debezium.time.MicroDuration", "int64", None, -5, timedelta, timedelta(microseconds=-5)),
    "price": ("org.apache.kafka.connect.data.Decimal", "bytes", {"scale": "2"}, connect_decimal(Decimal("-123.45")),
              mill.types.Decimal(10, 2), Decimal("-123.45")),
    "big": ("org.apache.kafka.connect.data.Decimal", "bytes", {"scale": "0"}, connect_decimal(Decimal("1" + "0" * 37)),
            mill.types.Decimal(38, 0), Decimal("1" + "0" * 37)),
    "small": ("org.apache.kafka.connect.data.Decimal", "bytes", {"scale": "3"}, connect_decimal(Decimal("0.007")),
              mill.types.Decimal(10, 4), Decimal("0.007")),
    "price_text": ("org.apache.kafka.connect.data.Decimal", "bytes", {"scale": "1"}, connect_decimal(Decimal("0.5")), str, "0.5"),
    "price_float": ("org.apache.kafka.connect.data.Decimal", "bytes", {"scale": "1"}, connect_decimal(Decimal("2.5")), float, 2.5),
    "count_int": ("org.apache.kafka.connect.data.Decimal", "bytes", {"scale": "0"}, connect_decimal(Decimal(14153453)), int, 14153453),
    "numeric": ("io.debezium.data.VariableScaleDecimal", "struct", None, {"scale": 1, "value": connect_decimal(Decimal("1.5"))},
                mill.types.Decimal(10, 2), Decimal("1.5")),
    "as_string": (None, "string", None, "12.5", mill.types.Decimal(10, 2), Decimal("12.5")),
    "as_number": ("org.apache.kafka.connect.data.Decimal", "bytes", {"scale": "2"}, 1.5, mill.types.Decimal(10, 2), Decimal("1.5")),
    "bytes": (None, "bytes", None, base64.b64encode(b"\x00\xff{").decode(), bytes, b"\x00\xff{"),
    "json": ("io.debezium.data.Json", "string", None, '{"a": [1]}', str, '{"a": [1]}'),
    "flag": (None, "boolean", None, True, bool, True),
    "float": (None, "double", None, 0.1, float, 0.1),
    "nothing": ("io.debezium.time.MicroTimestamp", "int64", None, None, datetime, None),
}


def event(fields: dict[str, tuple[Any, ...]], op: str = "c", key: int = 1) -> tuple[bytes, bytes]:
    """Write an event of a row with an id and these fields, with its schema."""
    described = [{"type": "int32", "field": "id"}]
    for name, (kind, base, parameters, *_) in fields.items():
        field: dict[str, Any] = {"type": base, "field": name, "optional": True}
        described.append({**field, **({"name": kind} if kind else {}), **({"parameters": parameters} if parameters else {})})
    row = {"id": key, **{name: of[3] for name, of in fields.items()}}
    schema = {"type": "struct", "fields": [{"type": "struct", "fields": described, "field": "after", "optional": True}]}
    value = {"schema": schema, "payload": {"before": None, "after": row, "op": op}}
    return json.dumps({"id": key}).encode(), json.dumps(value).encode()


def test_values_are_what_the_schema_says(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    send(cluster, topic, [event(TYPES)])
    schema = {"id": int, **{name: of[4] for name, of in TYPES.items()}}
    (row,) = read(cluster, topic, schema).collect().to_pylist()
    assert row == {"id": 1, **{name: of[5] for name, of in TYPES.items()}}


def test_lists_have_values_of_the_schema(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    key, value = event({"days": (None, "array", None, [0, None, 19000])})
    described = json.loads(value)
    described["schema"]["fields"][0]["fields"][1]["items"] = {"type": "int32", "name": "io.debezium.time.Date", "optional": True}
    send(cluster, topic, [(key, json.dumps(described).encode())])
    (row,) = read(cluster, topic, {"id": int, "days": list[date]}).collect().to_pylist()
    assert row["days"] == [date(1970, 1, 1), None, date(2022, 1, 8)]


@pytest.mark.parametrize(
    ("kind", "base", "value", "column", "message"),
    [
        ("io.debezium.time.MicroTimestamp", "int64", 5, mill.Timestamp("ms"), "5 microseconds are no whole number of milliseconds"),
        ("io.debezium.time.MicroTimestamp", "int64", 5, mill.Timestamp("us", tz="UTC"), "timestamp without a time zone"),
        ("io.debezium.time.MicroTimestamp", "int64", 5, date, "the schema says timestamp"),
        ("io.debezium.time.Date", "int32", 5, datetime, "the schema says date, and the column is timestamp"),
        ("io.debezium.time.ZonedTimestamp", "string", "2024-02-29T22:59:59+01:00", datetime, "has an offset"),
        (None, "int64", 5, datetime, "the schema says int64, and the column is timestamp"),
        (None, "bytes", "1234", int, "the schema says bytes"),
        (None, "string", "ff", bytes, "the schema says string, and the column is binary"),
        (None, "string", "__debezium_unavailable_value", str, "REPLICA IDENTITY FULL"),
        (None, "bytes", base64.b64encode(b"__debezium_unavailable_value").decode(), bytes, "REPLICA IDENTITY FULL"),
        (None, "string", "x", int, "x is not an integer"),
    ],
)
def test_what_the_schema_forbids(cluster: Cluster, kind: str | None, base: str, value: Any, column: Any, message: str) -> None:
    topic = cluster.topic("in")
    send(cluster, topic, [event({"x": (kind, base, None, value)})])
    with pytest.raises(mill.DataError, match=rf"{topic}\[0\] offset 0: column \"x\".*{message}"):
        read(cluster, topic, {"id": int, "x": column}).collect()


def test_without_a_schema_json_decides_or_nothing(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    row = {"id": 1, "day": 19000, "at": "2024-02-29T22:59:59Z", "price": 1.25, "list": ["a"], "ratio": "NaN"}
    send(cluster, topic, [(b'{"id": 1}', json.dumps({"op": "c", "after": row}).encode())])
    schema = {"id": int, "day": date, "at": mill.Timestamp("us", tz="UTC"), "price": mill.types.Decimal(9, 2), "list": list[str]}
    found = read(cluster, topic, schema).collect().to_pylist()
    at = datetime(2024, 2, 29, 22, 59, 59, tzinfo=timezone.utc)
    assert found == [{"id": 1, "day": date(2022, 1, 8), "at": at, "price": Decimal("1.25"), "list": ["a"]}]
    for value, column, message in [
        (1_700_000_000_000, datetime, "a number may count milli-, micro- or nanoseconds.*declare the column as int"),
        (5, clock, "a number may count"),
        ("1234", mill.types.Decimal(9, 2), "a text may have the digits of a number, or its bytes in base64"),
        ("1234", int, "a text may have the digits of a number"),
        ("1234", bytes, "a text may have bytes in base64 or in hexadecimal digits"),
    ]:
        other = cluster.topic(f"in-{column}".translate({ord(c): "-" for c in "<>' (),[]"}))
        send(cluster, other, [(b'{"id": 1}', json.dumps({"op": "c", "after": {"id": 1, "x": value}}).encode())])
        with pytest.raises(mill.DataError, match=message):
            read(cluster, other, {"id": int, "x": column}).collect()


def test_what_is_no_event(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    good = b'{"op": "r", "after": {"id": 1, "name": "a", "n": 1}}'
    bad: list[tuple[bytes | None, bytes | None, str]] = [
        (None, good, "the message has no key"),
        (b"{", good, "the key is not one complete JSON object"),
        (b'{"name": "a"}', good, "key= names"),
        (b'{"id": 1, "part": 2}', good, "key= names"),
        (b'{"id": 2}', good, 'column "id" is 2 in the key of the message and 1 in its row'),
        (b'{"id": 1}', b"{", "the value is not one complete JSON object"),
        (b'{"id": 1}', b"[]", "the value is not a JSON object"),
        (b'{"id": 1}', b" null ", "the value is not a JSON object"),
        (b'{"id": 1}', good + b"x", "is not expected at its byte"),
        (b'{"id": 1}', b"\xff", "the value is not UTF-8"),
        (b'{"id": 1}', b'{"id": 1, "name": "a"}', 'the value has no "op"'),
        (b'{"id": 1}', b'{"op": "t"}', "TRUNCATE"),
        (b'{"id": 1}', b'{"op": "x"}', 'op is "x"'),
        (b'{"id": 1}', b'{"op": "u", "before": {"id": 1}}', "after is no JSON object"),
        (b'{"id": 1}', b'{"op": "u", "after": {"id": 1, "n": "x"}}', "a text may have the digits"),
        (b'{"id": 1}', b'{"op": "u", "after": {"id": 1, "n": 1, "n": 2}}', 'the key "n" twice'),
    ]
    events: list[Any] = [(b'{"id": 7}', b'{"op": "c", "after": {"id": 7, "name": "z", "n": 7}}')]
    events += [(key, value) for key, value, _ in bad]
    # A key alone, as ExtractField makes it, and one in an envelope; a deletion of what was never there.
    events += [(b"1", good), (b'{"schema": {"type": "int32"}, "payload": 8}', b'{"op": "c", "after": {"id": 8}}'), (b'{"id": 9}', None)]
    events += [(b'{"id": 7}', b'{"schema": null, "payload": null}'), (b'{"id": 7}', b'{"schema":{"type":"struct"},"payload":' + events[0][1] + b"}")]
    # The same schema again, in an envelope that does not end well.
    bad.append((b'{"id": 7}', b'{"schema":{"type":"struct"},"payload":null}}', "is not expected at its byte"))
    events.append(bad[-1][:2])
    send(cluster, topic, events)
    with pytest.raises(mill.DataError, match=rf"{topic}\[0\] offset 1: {bad[0][2]}"):
        read(cluster, topic).collect()
    expected = [{"id": 1, "name": "a", "n": 1}, {"id": 7, "name": "z", "n": 7}, {"id": 8, "name": None, "n": None}]
    assert by_id(read(cluster, topic).collect(on_error="skip")) == expected
    stream = read(cluster, topic)
    routed: list[tuple[str, str]] = []
    kept: list[Any] = []
    sinks = [
        stream.to_changelog().for_each(lambda row: kept.append(row.id)),
        stream.errors.for_each(lambda row: routed.append((row.error, row.record))),
    ]
    mill.run(*sinks, on_error="route", parallelism=1)
    assert sorted(kept) == [1, 7, 7, 7, 8]
    offsets = [*range(1, len(bad)), len(events) - 1]
    for offset, (error, record), (_, _, message) in zip(offsets, routed, bad, strict=True):
        assert error.startswith(f"{topic}[0] offset {offset}: ")
        assert message in error
        assert json.loads(record)["offset"] == offset


def test_keys_of_several_columns_and_what_is_asked_for(cluster: Cluster) -> None:
    topic = cluster.topic("in")
    rows = [("eu", 1, 5), ("us", 1, 6), ("eu", 1, 7)]
    events: list[Any] = [
        (json.dumps({"id": n, "part": part}).encode(), json.dumps({"op": "u", "after": {"part": part, "id": n, "x": x}}).encode())
        for part, n, x in rows
    ]
    events.append((b'{"id": 1, "part": "us"}', b'{"op": "d", "before": null, "after": null}'))
    send(cluster, topic, events)
    schema = {"part": str, "id": int, "x": int}
    stream = read(cluster, topic, schema, key=["id", "part"], metadata=["offset", "topic"])
    assert stream.updating_key == ["id", "part"]
    assert stream.collect().to_pylist() == [{"part": "eu", "id": 1, "x": 7, "_offset": 2, "_topic": topic}]
    assert stream.select("id", "part").collect().to_pylist() == [{"id": 1, "part": "eu"}]
    changes = stream.select("id", "part", "x").to_changelog().collect(parallelism=1).to_pylist()
    assert [(row["op"], row["part"], row["x"]) for row in changes] == [
        ("insert", "eu", 5), ("insert", "us", 6), ("update", "eu", 7), ("delete", "us", 6),
    ]
    with pytest.raises(mill.PlanError, match="updating stream"):
        stream.key_by("part")
    with pytest.raises(mill.SchemaError, match='no column "idd".*did you mean "id"'):
        read(cluster, topic, schema, key="idd")
    with pytest.raises(mill.PlanError, match="takes key="):
        mill.read_kafka(cluster.address, topic, format="debezium-json", schema=schema)
    with pytest.raises(mill.PlanError, match="has no key="):
        mill.read_kafka(cluster.address, topic, format="json", schema=schema, key="id")


def test_a_copy_of_a_table_goes_on_from_its_checkpoint(cluster: Cluster, tmp_path: Path) -> None:
    """Into a compacted topic, exactly once; the second run begins after the changes that the first has taken."""
    source, target = cluster.topic("in", 2), cluster.topic("out", 1, **{"cleanup.policy": "compact"})
    table = Table(has_schemas=False)
    seen = 0
    for run in range(3):
        for n in range(100):
            table.set({"id": n % 40, "name": f"{run}", "n": n})
        table.delete(run)
        send(cluster, source, table.events[seen:], 2)
        seen = len(table.events)
        stream = mill.read_kafka(cluster.address, source, format="debezium-json", schema=SCHEMA, key="id")
        sink = stream.write_kafka(cluster.address, target, format="json", key="id")
        job = mill.start(sink, checkpoint=mill.Checkpoint(tmp_path / "state", every="50ms"), parallelism=2)
        end = time.monotonic() + 60
        while len(cluster.read(target)) < seen and time.monotonic() < end:
            assert job.status.state != "failed"
            time.sleep(0.05)
        job.stop()
        job.wait()
    messages = cluster.read(target)
    # A deletion is two messages, of the event and of its tombstone.
    assert len(messages) == seen
    latest = {json.loads(message.key()): message.value() for message in messages}
    assert {key: json.loads(value) for key, value in latest.items() if value is not None} == table.rows
