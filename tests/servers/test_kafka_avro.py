"""Avro in Kafka, with and without a registry; what bytes mean is fastavro's to say."""

from __future__ import annotations

import io
import itertools
import json
import random
import threading
from collections.abc import Iterator
from datetime import datetime, time, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastavro
import pytest
from cluster import Cluster

import millstream as mill
from millstream import col

USER = {
    "type": "record",
    "name": "User",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "name", "type": ["null", "string"], "default": None},
        {"name": "score", "type": "double"},
    ],
}


class RegistryServer(ThreadingHTTPServer):
    """The two endpoints of a schema registry, and the latest version of a subject."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.schemas: dict[int, str] = {}
        self.subjects: dict[str, list[int]] = {}
        self.more: dict[int, Any] = {}
        self.asked: list[str] = []
        self.authorization: set[str | None] = set()
        self.is_broken = False
        self._numbers = itertools.count(1000)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, subject: str, schema: Any) -> int:
        text = schema if isinstance(schema, str) else json.dumps(schema)
        with self._lock:
            known = [number for number, one in self.schemas.items() if json.loads(one) == json.loads(text)]
            number = known[0] if known else next(self._numbers)
            self.schemas[number] = text
            versions = self.subjects.setdefault(subject, [])
            if number not in versions:
                versions.append(number)
        return number


class _Handler(BaseHTTPRequestHandler):
    server: RegistryServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, code: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _seen(self) -> bool:
        self.server.asked.append(self.path)
        self.server.authorization.add(self.headers.get("Authorization"))
        if self.server.is_broken:
            self._answer(500, {"error_code": 50001, "message": "the store is away"})
        return not self.server.is_broken

    def do_GET(self) -> None:
        if not self._seen():
            return
        parts = self.path.strip("/").split("/")
        if parts[:2] == ["schemas", "ids"] and int(parts[2]) in self.server.schemas:
            self._answer(200, {"schema": self.server.schemas[int(parts[2])], **self.server.more.get(int(parts[2]), {})})
        elif parts[0] == "subjects" and parts[2:] == ["versions", "latest"] and parts[1] in self.server.subjects:
            number = self.server.subjects[parts[1]][-1]
            self._answer(200, {"subject": parts[1], "id": number, "version": 1, "schema": self.server.schemas[number]})
        else:
            self._answer(404, {"error_code": 40403, "message": "not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._seen():
            parts = self.path.strip("/").split("/")
            assert (parts[0], parts[2]) == ("subjects", "versions")
            self._answer(200, {"id": self.server.add(parts[1], body["schema"])})


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    server = RegistryServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def encode(schema: Any, row: Any, number: int | None = None) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), row)
    return (b"" if number is None else b"\0" + number.to_bytes(4, "big")) + out.getvalue()


def decode(schema: Any, value: bytes) -> Any:
    stream = io.BytesIO(value)
    # A UUID is the text that it is.
    plain = json.loads(json.dumps(schema).replace(', "logicalType": "uuid"', ""))
    row = fastavro.schemaless_reader(stream, fastavro.parse_schema(plain), None)
    assert stream.read() == b""
    return row


def read(cluster: Cluster, topic: str, **more: Any) -> mill.Stream:
    return mill.read_kafka(cluster.address, topic, format="avro", **{"until": "end", **more})


def users(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": n, "name": None if n % 5 == 0 else f"n\u00e4me {n}", "score": n / 3} for n in range(start, start + count)]


def by_id(table: Any) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def test_records_of_a_schema(cluster: Cluster) -> None:
    topic = cluster.topic("in", 2)
    cluster.send(topic, [encode(USER, row) for row in users(3000)])
    stream = read(cluster, topic, avro_schema=USER)
    assert stream.schema == {"id": int, "name": str, "score": float}
    assert by_id(stream.collect(parallelism=2)) == users(3000)
    assert by_id(stream.select("id").collect()) == [{"id": n} for n in range(3000)]
    assert len(read(cluster, topic, avro_schema=json.dumps(USER), metadata="offset").select("_offset").collect()) == 3000


EVERY = {
    "type": "record",
    "name": "Every",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "flag", "type": "boolean"},
        {"name": "long", "type": ["long", "null"]},
        {"name": "float", "type": "float"},
        {"name": "bytes", "type": "bytes"},
        {"name": "fixed", "type": {"type": "fixed", "name": "F", "size": 3}},
        {"name": "text", "type": "string"},
        {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "enum", "type": {"type": "enum", "name": "E", "symbols": ["RED", "GREEN"]}},
        {"name": "enum_or_null", "type": ["null", "E"]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "ms", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "us", "type": {"type": "long", "logicalType": "time-micros"}},
        {"name": "at_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "at_us", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-micros"}},
        {"name": "list", "type": {"type": "array", "items": ["null", "long"]}},
        {"name": "map", "type": {"type": "map", "values": "double"}},
        {"name": "inner", "type": ["null", {"type": "record", "name": "In", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": ["null", "string"]}]}]},
    ],
}


def anything(rng: random.Random, number: int) -> dict[str, Any]:
    at = datetime(rng.randint(1900, 2200), rng.randint(1, 12), rng.randint(1, 28), rng.randint(0, 23), 1, 2, rng.randrange(10**6))
    maybe = lambda value: value if rng.random() < 0.7 else None
    text = "".join(chr(rng.choice([rng.randint(32, 126), rng.randint(0x100, 0x2FFF), 0x1F600])) for _ in range(rng.randrange(6)))
    return {
        "id": number,
        "flag": rng.random() < 0.5,
        "long": maybe(rng.choice([-(2**63), 2**63 - 1, 0, -1, rng.randint(-(10**12), 10**12)])),
        "float": rng.choice([0.5, -1.25, float("inf")]),
        "bytes": rng.randbytes(rng.randrange(5)),
        "fixed": rng.randbytes(3),
        "text": text,
        "uuid": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
        "enum": rng.choice(["RED", "GREEN"]),
        "enum_or_null": maybe("GREEN"),
        "price": Decimal(rng.randint(-(10**12) + 1, 10**12 - 1)).scaleb(-3),
        "day": at.date(),
        "ms": time(at.hour, 1, 2, at.microsecond // 1000 * 1000),
        "us": at.time(),
        "at_ms": at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=timezone.utc),
        "at_us": maybe(at.replace(tzinfo=timezone.utc)),
        "local": at,
        "list": [maybe(n) for n in range(rng.randrange(4))],
        "map": {f"k{n}": n / 2 for n in range(rng.randrange(3))},
        "inner": maybe({"a": number, "b": maybe("x")}),
    }


def same(row: dict[str, Any]) -> dict[str, Any]:
    """Show a map as a dict, however it came."""
    return {**row, "map": dict(row["map"])}


def test_every_type_there_and_back(cluster: Cluster, registry: RegistryServer) -> None:
    rng = random.Random(11)
    rows = [anything(rng, number) for number in range(300)]
    topic, copy, plain = cluster.topic("in"), cluster.topic("copy"), cluster.topic("plain")
    cluster.send(topic, [encode(EVERY, row) for row in rows])
    stream = read(cluster, topic, avro_schema=EVERY)
    assert [same(row) for row in by_id(stream.collect())] == rows
    mill.run(stream.write_kafka(cluster.address, copy, format="avro", avro_schema=EVERY, registry=registry.url))
    (number,) = registry.schemas
    assert registry.subjects == {f"{copy}-value": [number]}
    messages = cluster.read(copy)
    assert {message.value()[:5] for message in messages} == {b"\0" + number.to_bytes(4, "big")}
    assert [decode(EVERY, message.value()[5:]) for message in messages] == rows
    # A schema that the columns make: enums are texts in it, and everything may be null.
    mill.run(stream.write_kafka(cluster.address, plain, format="avro", registry=registry.url))
    made = json.loads(registry.schemas[registry.subjects[f"{plain}-value"][0]])
    assert [decode(made, message.value()[5:]) for message in cluster.read(plain)] == rows
    assert [same(row) for row in by_id(read(cluster, plain, registry=registry.url).collect())] == rows


def test_values_of_older_and_newer_schemas(cluster: Cluster, registry: RegistryServer) -> None:
    """Fields by name, defaults, wider numbers: what fastavro makes of them, too."""
    older = {"type": "record", "name": "User", "namespace": "shop", "fields": [{"name": "score", "type": "int"}, {"name": "id", "type": "int"}]}
    newer = {**USER, "fields": [{"name": "extra", "type": {"type": "array", "items": "string"}}, *USER["fields"]]}  # type: ignore[dict-item]
    topic = cluster.topic("in")
    rows: list[tuple[Any, dict[str, Any]]] = []
    for n in range(60):
        schema = [older, USER, newer][n // 7 % 3]
        rows.append((schema, {"id": n, "score": n if schema is older else n / 4, "name": "x", "extra": ["a", "b"]}))
    numbers = [registry.add(f"{topic}-value", schema) for schema in (older, newer, USER)]
    assert len(set(numbers)) == 3
    cluster.send(topic, [encode(schema, row, registry.add(f"{topic}-value", schema)) for schema, row in rows])
    expected = []
    for schema, row in rows:
        out = io.BytesIO(encode(schema, row))
        expected.append(fastavro.schemaless_reader(out, fastavro.parse_schema(schema), fastavro.parse_schema(USER)))
    found = by_id(read(cluster, topic, registry=registry.url).collect())
    assert found == expected
    # Each schema was asked for once, beside the latest one.
    assert sorted(registry.asked) == sorted([f"/subjects/{topic}-value/versions/latest", *(f"/schemas/ids/{n}" for n in numbers)])
    assert by_id(read(cluster, topic, avro_schema={**USER, "fields": USER["fields"][:1]}, registry=registry.url).collect()) == [
        {"id": n} for n in range(60)
    ]


def test_what_is_no_record(cluster: Cluster, registry: RegistryServer) -> None:
    topic = cluster.topic("in")
    number = registry.add(f"{topic}-value", USER)
    other = registry.add("other", {"type": "record", "name": "User", "namespace": "shop", "fields": [{"name": "id", "type": "string"}]})
    good = [encode(USER, row, number) for row in users(3)]
    # Schemas that the registry has and Avro alone cannot read, as another team writes into the topic.
    protobuf, referring = registry.add("protobuf", {"type": "record", "name": "P", "fields": []}), registry.add("referring", {"type": "record", "name": "R", "fields": []})
    registry.more = {protobuf: {"schemaType": "PROTOBUF"}, referring: {"references": [{"name": "x", "subject": "x", "version": 1}]}}
    bad = [
        (None, "the message has no value"),
        (b"", "does not begin with a 0"),
        (b"\1\0\0\0\1abc", "does not begin with a 0"),
        (good[1][:-1], "no record of its schema"),
        (good[1] + b"x", "no record of its schema"),
        (good[1] + good[1], "no record of its schema"),
        (b"\0" + (77).to_bytes(4, "big") + good[0][5:], "schema 77, which the registry does not have"),
        (b"\0" + protobuf.to_bytes(4, "big") + b"a", f"schema {protobuf}, which is PROTOBUF, not Avro"),
        (b"\0" + referring.to_bytes(4, "big") + b"a", f"schema {referring}, which refers to other schemas"),
        (b"\0" + other.to_bytes(4, "big") + b"\2a", f"schema {other}, of which no record"),
        (encode(USER, {"id": 1, "name": "\u00e4", "score": 0}, number).replace("\u00e4".encode(), b"\xff\xff"), "no record of its schema"),
    ]
    cluster.send(topic, [good[0], *(value for value, _ in bad), good[1], good[2]], key=b"k")
    assert by_id(read(cluster, topic, registry=registry.url).collect(on_error="skip")) == users(3)
    with pytest.raises(mill.DataError, match=rf"{topic}\[0\] offset 1: the message has no value"):
        read(cluster, topic, registry=registry.url).collect()
    stream = read(cluster, topic, registry=registry.url, metadata="offset")
    offsets: list[int] = []
    routed: list[str] = []
    mill.run(
        stream.for_each(lambda row: offsets.append(row._offset)),
        stream.errors.for_each(lambda row: routed.append(row.error)),
        on_error="route",
    )
    assert offsets == [0, len(bad) + 1, len(bad) + 2]
    for offset, (error, (_, message)) in enumerate(zip(routed, bad, strict=True), 1):
        assert error.startswith(f"{topic}[0] offset {offset}: ")
        assert message in error


def test_any_bytes_are_a_record_or_an_error(cluster: Cluster) -> None:
    """A value that is cut, or has more behind it, is refused; one with other bytes is a record or refused, and harms no other."""
    rng = random.Random(5)
    topic = cluster.topic("in")
    kinds, values = [], []
    for number in range(600):
        value = bytearray(encode(EVERY, anything(rng, number)))
        kinds.append(rng.choice(["good", "cut", "longer", "changed"]))
        if kinds[-1] == "cut":
            del value[rng.randrange(len(value)) :]
        elif kinds[-1] == "longer":
            value += rng.randbytes(rng.randint(1, 9))
        elif kinds[-1] == "changed":
            for _ in range(rng.randint(1, 3)):
                value[rng.randrange(len(value))] = rng.randrange(256)
        values.append(bytes(value))
    cluster.send(topic, values)
    stream = read(cluster, topic, avro_schema=EVERY, metadata="offset")
    found: list[int] = []
    routed: list[int] = []
    sinks = [
        stream.for_each(lambda row: found.append(row._offset)),
        stream.errors.for_each(lambda row: routed.append(json.loads(row.record)["offset"])),
    ]
    mill.run(*sinks, on_error="route")
    assert sorted([*found, *routed]) == list(range(600))
    assert {"cut", "longer"} & {kinds[offset] for offset in found} == set()
    assert "good" not in {kinds[offset] for offset in routed}
    good = {offset for offset, kind in enumerate(kinds) if kind == "good"}
    rows = stream.filter(col("_offset").is_in(sorted(good))).drop("_offset").collect(on_error="skip").to_pylist()
    assert [same(row) for row in rows] == [decode(EVERY, values[offset]) for offset in sorted(good)]


def test_a_registry_that_does_not_answer(cluster: Cluster, registry: RegistryServer) -> None:
    topic = cluster.topic("in")
    number = registry.add(f"{topic}-value", USER)
    cluster.send(topic, [encode(USER, users(1)[0], number)])
    url = registry.url.replace("http://", "http://ann:s3cret@")
    stream = read(cluster, topic, registry=url)
    registry.is_broken = True
    with pytest.raises(mill.ConnectorError, match=r"the schema registry http://127.* refuses /schemas/ids/1000: 500 the store is away") as info:
        stream.collect(on_error="skip")
    assert "s3cret" not in str(info.value)
    assert registry.authorization == {"Basic YW5uOnMzY3JldA=="}
    with pytest.raises(mill.ConnectorError, match="refuses /subjects"):
        read(cluster, topic, registry=registry.url)
    registry.is_broken = False
    with pytest.raises(mill.SchemaError, match="has no subject 'nothing-value'; pass avro_schema="):
        mill.read_kafka(cluster.address, "nothing", format="avro", registry=registry.url)
    with pytest.raises(mill.ConnectorError, match="cannot be asked for"):
        read(cluster, topic, registry="http://127.0.0.1:1")


def test_an_updating_stream_exactly_once(cluster: Cluster, registry: RegistryServer, tmp_path: Path) -> None:
    topic = cluster.topic("out", 1, **{"cleanup.policy": "compact"})
    changes = mill.from_changelog(
        mill.from_iter([{"op": "insert", "k": "a", "n": 1}, {"op": "delete", "k": "a", "n": None}, {"op": "insert", "k": "b", "n": 2}]), key="k"
    )
    schema = {"type": "record", "name": "T", "fields": [{"name": "k", "type": "string"}, {"name": "n", "type": "int"}]}
    sink = changes.write_kafka(cluster.address, topic, format="avro", avro_schema=schema, registry=registry.url, key="k")
    mill.run(sink, checkpoint=tmp_path / "state")
    found = [(message.key(), message.value() and decode(schema, message.value()[5:])) for message in cluster.read(topic)]
    assert found == [(b"a", {"k": "a", "n": 1}), (b"a", None), (b"b", {"k": "b", "n": 2})]


def test_what_a_field_does_not_hold(cluster: Cluster) -> None:
    topic = cluster.topic("out")

    def of(kind: Any) -> Any:
        return {"type": "record", "name": "T", "fields": [{"name": "x", "type": kind}]}

    def write(value: Any, kind: Any, **more: Any) -> Any:
        rows = [{"x": value}, {"x": None}] if more else [{"x": value}]
        stream = mill.from_iter(rows, schema={"x": more.pop("schema", type(value))})
        return stream.write_kafka(cluster.address, topic, format="avro", avro_schema=of(kind))

    at = datetime(2024, 1, 1, 0, 0, 0, 5)
    for value, kind, message in [
        (2**31, "int", 'column "x" is 2147483648, which the field of the schema, int32, does not hold'),
        (0.1, "float", "does not hold"),
        (at, {"type": "long", "logicalType": "local-timestamp-millis"}, "does not hold"),
        ("BLUE", {"type": "enum", "name": "E", "symbols": ["RED"]}, "which is no symbol of the enum"),
        (b"abc", {"type": "fixed", "name": "F", "size": 2}, 'column "x"'),
    ]:
        with pytest.raises(mill.DataError, match=message):
            mill.run(write(value, kind))
        assert mill.run(write(value, kind), on_error="skip").rows_skipped == 1
    with pytest.raises(mill.DataError, match='column "x" is null, and the field of the schema has no null'):
        mill.run(write(1, "long", schema=int))
    before = len(cluster.read(topic))
    assert mill.run(write(1, "long", schema=int), on_error="skip").rows_skipped == 1
    assert [message.value() for message in cluster.read(topic)][before:] == [b"\2"]
    for value, kind, message in [
        (1, "string", r'column "x" is int64, and the field of the schema str; cast\(\) it'),
        (at, {"type": "long", "logicalType": "timestamp-micros"}, "cast"),
        (1, {"type": "array", "items": "int"}, "cast"),
        (1, ["int", "string"], "a union of several types, which no column becomes"),
    ]:
        with pytest.raises(mill.SchemaError, match=message):
            write(value, kind)
    two = mill.from_iter([{"x": 1, "y": 2}])
    with pytest.raises(mill.SchemaError, match='the schema has no field for "y"'):
        two.write_kafka(cluster.address, topic, format="avro", avro_schema=of("long"))
    with pytest.raises(mill.SchemaError, match='has a field "x", and the stream no such column'):
        two.select("y").write_kafka(cluster.address, topic, format="avro", avro_schema=of("long"))


def test_what_is_no_schema() -> None:
    for schema, message in [
        ("{", "the Avro schema: it is not JSON"),
        ('{"type": "string"}', "has to be that of a record"),
        ({"type": "record", "name": "T", "fields": [{"name": "x", "type": "nothing"}]}, "the Avro schema"),
        ({"type": "record", "name": "T", "fields": [{"name": "x", "type": ["int", "string"]}]}, "a union of several types, which no column holds"),
        ({"type": "record", "name": "T", "fields": [{"name": "x", "type": ["null", "T"]}]}, "has itself within it"),
        ({"type": "record", "name": "T"}, "has no fields"),
    ]:
        with pytest.raises(mill.SchemaError, match=message):
            mill.read_kafka("localhost:1", "x", format="avro", avro_schema=schema)  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match="takes avro_schema="):
        mill.read_kafka("localhost:1", "x", format="avro")
    with pytest.raises(mill.PlanError, match="of several topics takes avro_schema="):
        mill.read_kafka("localhost:1", ["x", "y"], format="avro", registry="http://localhost:1")
    with pytest.raises(mill.PlanError, match="has no avro_schema="):
        mill.read_kafka("localhost:1", "x", format="raw", avro_schema=USER)
    with pytest.raises(mill.PlanError, match="in place of schema="):
        mill.read_kafka("localhost:1", "x", format="avro", schema={"x": int}, avro_schema=USER)
    with pytest.raises(mill.PlanError, match="begins with http://"):
        mill.read_kafka("localhost:1", "x", format="avro", registry="ftp://ann:s3cret@localhost")
