"""Apache Kafka: topics as sources and sinks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

from millstream import _engine
from millstream._reading import KafkaReading, KafkaWriting
from millstream._texts import choice, mapping, text, texts
from millstream.errors import PlanError
from millstream.expr import Expr, name_of
from millstream.io.sinks import Output, output
from millstream.stream import Stream
from millstream.types import SchemaLike, schema_of

if TYPE_CHECKING:
    from millstream.io._registry import Registry

__all__ = ["read_kafka"]

Place = tuple[str, int | None, list[tuple[str, int, int]]]

Offsets = Mapping[tuple[str, int], int]
"""Offsets by topic and partition."""

KafkaFormat = Literal["json", "avro", "raw"]
"""What the value of a message is that is written."""

KafkaReadFormat = Literal["json", "debezium-json", "avro", "raw"]
"""What a message is that is read."""

KafkaDelivery = Literal["exactly_once", "at_least_once"]
"""What a Kafka sink promises."""


def read_kafka(
    brokers: str | Sequence[str],
    topics: str | Sequence[str],
    *,
    format: KafkaReadFormat,
    schema: SchemaLike = None,
    key: str | Sequence[str] | None = None,
    avro_schema: str | Mapping[str, Any] | None = None,
    registry: str | None = None,
    metadata: str | Sequence[str] = (),
    start: Literal["earliest", "latest", "committed"] | datetime | Offsets = "earliest",
    until: Literal["end"] | datetime | Offsets | None = None,
    group: str | None = None,
    options: Mapping[str, str | float] | None = None,
) -> Stream:
    """Read the messages of Kafka topics.

    Parameters
    ----------
    brokers
        ``"host:port"``, or a list of them.
    topics
        A name, a list of names, or a pattern that starts with ``^`` and matches whole names.
    format
        ``"json"``: the value is a JSON object, read as :func:`read_json` reads a line. ``"debezium-json"``: the value is a
        change event of Debezium, and the stream is an updating one, with the rows of the table. ``"avro"``: the value is a
        record in Avro. ``"raw"``: the columns are ``key`` and ``value``, as bytes.
    schema
        The columns, for ``"json"`` and ``"debezium-json"``.
    key
        The columns of the key, for ``"debezium-json"``: those that the key of each message has.
    avro_schema
        The schema of a record, for ``"avro"``: JSON as text, or as a dict. Without ``registry``, values are records that were
        written with it, and nothing else. With it, values become records of this schema; by default of the latest one of the
        subject ``<topic>-value``, which is asked for when the stream is declared.
    registry
        The URL of a schema registry, for ``"avro"``: values begin with a zero and the number of their schema, as Confluent's
        clients write them. User and password may be part of the URL; they are shown nowhere.
    metadata
        What is added as columns: ``"key"`` (``_key``, bytes), ``"topic"``, ``"partition"``, ``"offset"``, ``"timestamp"``,
        ``"headers"`` (a list of names with bytes).
    start
        Where a job without a checkpoint starts: at the first message, after the last one, at the committed offsets of
        ``group``, at the first message that is not older than a time, or at an offset for each partition.
    until
        Where the input ends: ``"end"`` is what can be read when the job starts. A time, or an offset for each partition, is
        not read any more. None: the stream is unbounded.
    group
        A consumer group: that of ``start="committed"``. In a job with a checkpoint, the offsets of completed checkpoints are
        committed to it, for tools that measure lag; a restart does not use them.
    options
        Options of librdkafka, by its names. ``isolation.level`` is ``read_committed`` by default.

    Raises
    ------
    PlanError
        When an argument is not one of its choices, or ``schema``, ``key`` or ``avro_schema`` is missing, or set for another
        ``format``.
    SchemaError
        When a schema is none, has no column of ``key``, or a field that no column holds.
    ConnectorError
        When the job runs and the brokers cannot be reached, a topic does not exist, or offsets were removed before they
        were read.
    DataError
        When the job runs and a message is not a record; ``on_error`` can skip or route such messages. The message of the
        error names topic, partition and offset.

    Notes
    -----
    A partition is a split. Offsets are stored in the checkpoint of the job; no consumer group decides who reads what. Of
    transactions, only committed messages are read. Partitions that are added while the job runs are found within
    ``topic.metadata.refresh.interval.ms`` (5 minutes) and read from their first message.

    Change events: ``c``, ``r`` and ``u`` set the row of the key to ``after``. ``d``, and a message without a value, delete it. A
    value converts exactly by the schema that the connector writes beside it, or is an error; without that schema, numbers for
    timestamps, and texts for numbers or bytes, are errors, since JSON does not say what they mean.

    In ``.errors`` the record is JSON with topic, partition, offset, key and value. Offsets that were removed before they
    were read (by retention, or with the topic) are an error, and before the first record where a job starts, unless
    ``options`` has ``auto.offset.reset``.

    Examples
    --------
    >>> clicks = mill.read_kafka("localhost:9092", "clicks", format="json", schema={"user": str, "ms": float})
    >>> clicks.schema.names
    ['user', 'ms']
    >>> users = mill.read_kafka(
    ...     "localhost:9092", "shop.public.users", format="debezium-json", schema={"id": int, "name": str}, key="id"
    ... )
    >>> users.updating_key
    ['id']
    """
    columns = None
    keys: list[str] = []
    choice(format, "read_kafka(format=…)", "json", "debezium-json", "avro", "raw")
    names = texts(topics, "read_kafka(topics)", "clicks")
    asked = _registry_of(registry, "read_kafka")
    avro = _avro_schema(avro_schema, asked, format, "read_kafka")
    if format == "debezium-json":
        if key is None:
            raise PlanError('read_kafka(format="debezium-json") takes key=, the columns of the key of the messages, as in key="id"')
        keys = texts(key, "read_kafka(key=…)", "id")
    elif key is not None:
        raise PlanError(f'read_kafka(format={format!r}) has no key=; metadata="key" adds the key of each message as a column')
    if format == "avro":
        if schema is not None:
            raise PlanError('read_kafka(format="avro") takes avro_schema=, a schema of Avro, in place of schema=')
        if avro is None:
            avro = _latest(asked, names)
    elif format != "raw":
        if schema is None:
            raise PlanError(f'read_kafka(format={format!r}) takes schema=, such as {{"user": str, "ms": float}}')
        columns = schema_of(schema)._raw
    elif schema is not None:
        raise PlanError('read_kafka(format="raw") has the columns key and value; leave schema out, or use format="json"')
    if isinstance(start, str) and start not in ("earliest", "latest", "committed"):
        raise PlanError(f'read_kafka(): start is {start!r:.100}; it is "earliest", "latest", "committed", a time or offsets')
    if isinstance(until, str) and until != "end":
        raise PlanError(f'read_kafka(): until is {until!r:.100}; it is "end", a time, offsets or None')
    raw = _engine.read_kafka(
        _brokers(brokers, "read_kafka"),
        names,
        KafkaReading(format=format, key=keys, avro_schema=avro, registry=asked),
        columns,
        texts(metadata, "read_kafka(metadata=…)", "offset"),
        _place(start, "start"),
        None if until is None else _place(until, "until"),
        None if group is None else text(group, "read_kafka(group=…)", "my-job"),
        _options(options, "read_kafka"),
    )
    return Stream(raw)


def kafka_sink(
    stream: Stream,
    brokers: str | Sequence[str],
    topic: str,
    format: KafkaFormat,
    key: str | Sequence[str] | Expr | None,
    columns: Mapping[str, str | Expr | None],
    delivery: KafkaDelivery | None,
    options: Mapping[str, str | float] | None,
    avro_schema: str | Mapping[str, Any] | None,
    registry: str | None,
) -> Output:
    """Write a topic; `columns` says what becomes the partition, the headers and the timestamp of a message."""
    if format == "debezium-json":  # type: ignore[comparison-overlap]
        raise PlanError('write_kafka(format="debezium-json"): only read_kafka has it; write "json" with key=')
    choice(format, "write_kafka(format=…)", "json", "avro", "raw")
    asked = _registry_of(registry, "write_kafka")
    avro = _avro_schema(avro_schema, asked, format, "write_kafka")
    if delivery not in (None, "exactly_once", "at_least_once"):
        raise PlanError(f'write_kafka(): delivery is {delivery!r:.100}; it is "exactly_once", "at_least_once" or None')
    if isinstance(topic, Expr):
        raise PlanError("write_kafka(): a topic that is an expression is not supported yet; filter() the stream, and write each part")
    left_out: list[str] = []
    names: dict[str, str | None] = {}
    keys = None
    key = _named(key)
    if isinstance(key, Expr):
        columns = {**columns, "key": key}
    elif key is not None:
        given_keys = key if isinstance(key, str) or not isinstance(key, Iterable) else [_named(one) for one in key]
        keys = texts(given_keys, "write_kafka(key=…)", "user")
    taken = set(stream.schema.names)
    for part, of in columns.items():
        given = _named(of)
        if isinstance(given, Expr):
            # A column of the user's may have the name.
            name = next(name for name in (f"__kafka_{part}{'_' * count}" for count in itertools.count()) if name not in taken)
            stream = stream.with_columns(**{name: given})
            left_out.append(name)
            names[part] = name
        else:
            names[part] = None if given is None else text(given, f"write_kafka({part}=…)", part)
    if names.get("key") is not None:
        keys = [str(names["key"])]
    raw = _engine.write_kafka(
        stream._raw,
        _brokers(brokers, "write_kafka"),
        text(topic, "write_kafka(topic)", "totals"),
        KafkaWriting(format=format, avro_schema=avro, registry=asked),
        keys,
        names["partition"],
        names["headers"],
        names["timestamp"],
        left_out,
        delivery,
        _options(options, "write_kafka"),
    )
    return output(raw)


def _registry_of(url: Any, call: str) -> Registry | None:
    """Return the registry of an argument; what it needs is imported only where there is one."""
    if url is None:
        return None
    from millstream.io._registry import registry

    return registry(url, call)


def _avro_schema(schema: Any, asked: Registry | None, format: str, call: str) -> str | None:
    """Return a schema of Avro as text."""
    if format != "avro":
        if schema is not None or asked is not None:
            raise PlanError(f'{call}(format={format!r}) has no avro_schema= and no registry=; they belong to format="avro"')
        return None
    if isinstance(schema, Mapping):
        import json

        try:
            return json.dumps(dict(schema))
        except (TypeError, ValueError) as error:
            raise PlanError(f"{call}(avro_schema=…) is a schema of Avro, which JSON can hold: {error}") from None
    return None if schema is None else text(schema, f"{call}(avro_schema=…)", '{"type": "record", …}')


def _latest(asked: Registry | None, topics: Sequence[str]) -> str:
    """Return the latest schema of the values of a topic."""
    if asked is None:
        raise PlanError('read_kafka(format="avro") takes avro_schema=, the schema of a record, or registry=, the URL of a schema registry')
    if len(topics) != 1 or topics[0].startswith("^"):
        raise PlanError('read_kafka(format="avro") of several topics takes avro_schema=, of which all of them are')
    return asked.latest(f"{topics[0]}-value")


def _named(value: Any) -> Any:
    """Return ``"x"`` for ``col("x")``, and anything else as it is."""
    name = name_of(value)
    return value if name is None else name


def _brokers(brokers: str | Sequence[str], call: str) -> str:
    return ",".join(texts(brokers, f"{call}(brokers)", "localhost:9092"))


def _options(options: Mapping[str, Any] | None, call: str) -> list[tuple[str, str]]:
    if options is None:
        return []
    # No message repeats a value: it may be a password, even under a name that does not say so.
    if not isinstance(options, Mapping):
        kind = type(options).__name__
        raise PlanError(f'{call}(options=…) takes a dict, as in {{"security.protocol": "ssl"}}, not an object of type {kind}')
    settings = []
    for name, value in options.items():
        if not isinstance(name, str):
            raise PlanError(f"{call}(): options has a name of type {type(name).__name__}; names are texts, values texts or numbers")
        if not isinstance(value, (str, int, float)):
            raise PlanError(
                f"{call}(): options has {name!r:.100} with a value of type {type(value).__name__}; names are texts, values texts "
                "or numbers"
            )
        settings.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return settings


def _place(place: str | datetime | Offsets, argument: str) -> Place:
    if isinstance(place, str):
        return place, None, []
    if isinstance(place, datetime):
        if place.tzinfo is None:
            raise PlanError(
                f"read_kafka(): {argument} is a time without a zone, and messages have times in UTC; give one such as "
                "datetime(2026, 1, 1, tzinfo=timezone.utc)"
            )
        if place < datetime(1970, 1, 1, tzinfo=timezone.utc):
            raise PlanError(f"read_kafka(): {argument} is {place}, before 1970, and messages have times since then")
        since = place - datetime(1970, 1, 1, tzinfo=timezone.utc)
        # Up to the next millisecond: Kafka knows no finer ones.
        milliseconds = -((-since.days * 86_400_000_000 - since.seconds * 1_000_000 - since.microseconds) // 1000)
        return "time", milliseconds, []
    offsets = []
    for where, offset in mapping(place, f"read_kafka({argument}=…)", '{("clicks", 0): 100}').items():
        if (
            not isinstance(where, tuple)
            or [type(part) for part in where] != [str, int]
            or type(offset) is not int
            or offset < 0
        ):
            raise PlanError(
                f"read_kafka(): {argument} has {where!r:.100}: {offset!r:.100}; offsets go by topic and partition, as in "
                '{("clicks", 0): 100}'
            )
        offsets.append((where[0], where[1], offset))
    return "offsets", None, offsets
