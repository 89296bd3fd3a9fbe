"""What `read_kafka` and `write_kafka` know without a broker; with one they are tested in `tests/servers`."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

import millstream as mill
from millstream import col

BROKER = "localhost:9092"
SCHEMA = {"n": int}


def test_columns() -> None:
    names = ["key", "topic", "partition", "offset", "timestamp", "headers"]
    stream = mill.read_kafka(BROKER, "in", format="json", schema=SCHEMA, metadata=names)
    assert stream.schema.names == ["n", *(f"_{name}" for name in names)]
    assert not stream.is_bounded
    raw = mill.read_kafka([BROKER, "other:9092"], ["a", "b"], format="raw", until="end")
    assert raw.schema.names == ["key", "value"]
    assert raw.is_bounded


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "json"}, 'takes schema=, such as {"user": str'),
        ({"format": "avro"}, "takes avro_schema=, the schema of a record, or registry="),
        ({"format": "csv"}, 'takes "json", "debezium-json", "avro" or "raw", not \'csv\''),
        ({"format": "raw", "schema": SCHEMA}, "has the columns key and value"),
        ({"format": "raw", "topics": []}, "needs the name of a topic"),
        ({"format": "raw", "topics": ["^a", "b"]}, "a pattern must be the only topic"),
        ({"format": "raw", "topics": "^("}, "cannot be read"),
        ({"format": "raw", "brokers": ""}, "needs at least one broker"),
        ({"format": "raw", "metadata": "offsets"}, 'no metadata "offsets"; did you mean "offset"'),
        ({"format": "raw", "metadata": ["key", "key"]}, 'names "key" twice'),
        ({"format": "json", "schema": {"_key": str}, "metadata": "key"}, "a column of the schema and of the metadata"),
        ({"format": "raw", "start": "begin"}, 'start is \'begin\'; it is "earliest"'),
        ({"format": "raw", "until": "now"}, "until is 'now'; it is \"end\""),
        ({"format": "raw", "start": "committed"}, "name it with group="),
        ({"format": "raw", "start": datetime(2026, 1, 1)}, "a time without a zone"),
        ({"format": "raw", "start": {"in": 1}}, "offsets go by topic and partition"),
        ({"format": "raw", "start": {("in", 0): -1}}, "offsets go by topic and partition"),
        ({"format": "raw", "options": {"grup.id": "x"}}, "no option \"grup.id\"; did you mean \"group.id\""),
        ({"format": "raw", "options": {"group.id": "x"}}, "a source takes group="),
        ({"format": "raw", "options": {"fetch.min.bytes": -1}}, "cannot be \"-1\""),
        ({"format": "raw", "options": {"x": None}}, "names are texts, values texts or numbers"),
        ({"format": "raw", "start": datetime(1969, 12, 31, tzinfo=timezone.utc)}, "start is 1969-12-31 00:00:00+00:00, before 1970"),
        ({"format": "raw", "until": datetime(1969, 12, 31, tzinfo=timezone.utc)}, "until is 1969-12-31 00:00:00+00:00, before 1970"),
    ],
)
def test_what_is_wrong_with_a_source(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(mill.PlanError) as info:
        mill.read_kafka(**{"brokers": BROKER, "topics": "in", **arguments})
    assert message in str(info.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "csv"}, 'takes "json", "avro" or "raw", not \'csv\''),
        ({"format": "json", "delivery": "once"}, 'it is "exactly_once", "at_least_once" or None'),
        ({"format": "json", "topic": ""}, "needs the name of a topic"),
        ({"format": "json", "topic": col("k")}, "a topic that is an expression is not supported yet"),
        ({"format": "json", "key": "kk"}, 'the key is to be column "kk", which the stream does not have; did you mean "k"'),
        ({"format": "json", "partition": "k"}, "a str; it has to be a whole number"),
        ({"format": "json", "timestamp": "n"}, "it has to be a timestamp"),
        ({"format": "json", "headers": "n"}, "it has to be a map of text"),
        ({"format": "raw"}, 'needs a column "value" of text or bytes'),
        ({"format": "json", "options": {"acks.": 1}}, 'no option "acks."; did you mean "acks"'),
        ({"format": "json", "options": {"enable.idempotence": False}}, "a sink never runs without it"),
        ({"format": "json", "options": {"acks": 1}}, 'option "acks" is "1", and has to be "all"'),
        ({"format": "json", "options": {"max.in.flight": 6}}, 'option "max.in.flight" is "6", and has to be at most 5'),
        ({"format": "json", "options": {"retries": 0}}, 'option "retries" is "0", and has to be at least 1'),
    ],
)
def test_what_is_wrong_with_a_sink(arguments: dict[str, Any], message: str) -> None:
    stream = mill.from_iter([{"k": "a", "n": 1}])
    with pytest.raises(mill.PlanError) as info:
        stream.write_kafka(**{"brokers": BROKER, "topic": "out", **arguments})
    assert message in str(info.value)


def test_an_updating_stream_needs_its_key() -> None:
    counts = mill.from_iter([{"k": "a"}]).key_by("k").agg(n=mill.count(), emit="each")
    with pytest.raises(mill.PlanError, match=r'it only adds rows; use emit="end" on bounded input, leave trigger=.*to_changelog\(\).*key=\["k"\]'):
        counts.write_kafka(BROKER, "out", format="json")
    with pytest.raises(mill.PlanError, match='it has another key \\("n"\\): pass key=\\["k"\\]'):
        counts.write_kafka(BROKER, "out", format="json", key="n")
    counts.write_kafka(BROKER, "out", format="json", key="k")
    counts.write_kafka(BROKER, "out", format="json", key=col("k"))
    with pytest.raises(mill.PlanError, match=r'written with an expression as its key: pass key=\["k"\]'):
        counts.write_kafka(BROKER, "out", format="json", key=col("k").str.to_lowercase())


SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    "options",
    [
        {"sasl.pasword": SECRET},
        {"sasl.password": SECRET.encode()},
        {"sasl.password": SECRET, "linger.ms": "x"},
        {"sasl.oauthbearer.token.endpoint.url": SECRET, "fetch.min.bytes": -1},
        {"enable.ssl.certificate.verification": True, "ssl.key.pasword": SECRET},
        {"sasl.kerberos.min.time.before.relogin": 1, "ssl.key.pem": [SECRET]},
        {("sasl.password", SECRET): 1},
        [("sasl.password", SECRET)],
        f"sasl.password={SECRET}",
        {"ssl.keystore.password": SECRET, "acks": 1},
    ],
)
def test_no_message_repeats_a_secret(options: Any) -> None:
    stream = mill.from_iter([{"k": "a"}])
    for call in (
        lambda: mill.read_kafka(BROKER, "in", format="raw", options=options),
        lambda: stream.write_kafka(BROKER, "out", format="json", options=options),
    ):
        try:
            made = call()
        except mill.PlanError as error:
            told: BaseException | None = error
            while told is not None:
                assert SECRET not in str(told)
                assert SECRET not in repr(told)
                told = told.__cause__ or told.__context__
        else:
            assert SECRET not in repr(made)


def test_a_good_secret_is_nowhere_to_be_seen() -> None:
    options = {"sasl.password": SECRET, "ssl.key.password": SECRET}
    stream = mill.read_kafka(BROKER, "in", format="raw", options=options)
    sink = stream.write_kafka(BROKER, "out", format="raw", options=options)
    assert SECRET not in stream.explain() + repr(stream) + repr(sink)


def test_explain_says_what_is_kept(tmp_path: Any) -> None:
    stream = mill.read_kafka(BROKER, "in", format="json", schema=SCHEMA)
    plan = stream.explain()
    assert 'read_kafka("in")' in plan
    assert repr(stream.write_kafka(BROKER, "out", format="json")) == '<Sink write_kafka("out")>'


@pytest.mark.parametrize(
    "url", ["http://ann:hunter/2@host:8081", "http://ann:hunter#2@host:8081", "http://host:ninety", "http://[::1", "http://ann:hunter?2@host"]
)
def test_the_url_of_a_registry_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(mill.PlanError, match="the URL of the schema registry has no valid host and port") as info:
        mill.read_kafka(BROKER, "in", format="avro", registry=url)
    assert "hunter" not in str(info.value)


def test_a_schema_that_json_cannot_hold() -> None:
    with pytest.raises(mill.PlanError, match="which JSON can hold"):
        mill.read_kafka(BROKER, "in", format="avro", avro_schema={"type": "record", "fields": {1, 2}})
