"""What is wrong with a PostgreSQL source or sink, and can be known without a server, is told where it is declared."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

import millstream as mill

SECRET = "hunter2-hunter2"
URL = f"postgresql://ann:{SECRET}@127.0.0.1:1/shop"


def stream(**columns: Any) -> mill.Stream:
    return mill.from_arrow(pa.table(columns or {"id": [1], "name": ["a"]}))


@pytest.mark.parametrize(
    ("table", "options", "kind", "message"),
    [
        ("", {}, mill.PlanError, '"" is not the name of a table'),
        ("a.b.c", {}, mill.PlanError, "table or schema.table"),
        ("x" * 64, {}, mill.PlanError, "has 64 bytes, and a name in PostgreSQL 63 at most"),
        ("_millstream_epochs", {}, mill.PlanError, "where the engine notes"),
        ("t", {"key": []}, mill.PlanError, "key"),
        ("t", {"key": "nam"}, mill.SchemaError, 'key column "nam" is not a column of the stream; did you mean "name"'),
        ("t", {"via": "copy", "key": "id"}, mill.PlanError, "leave one of them out"),
        ("t", {"via": "upsert"}, mill.PlanError, "pass key="),
        ("t", {"via": "merge"}, mill.PlanError, "merge"),
        ("t", {"create": 1}, mill.PlanError, "create"),
    ],
)
def test_a_sink_that_cannot_be(table: str, options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        stream().write_postgres(URL, table, **options)


def test_columns_that_have_no_type() -> None:
    struct = pa.array([{"a": 1}])
    with pytest.raises(mill.SchemaError, match='key column "k" is a .*, which is written as jsonb, and that is no key'):
        stream(k=struct).write_postgres(URL, "t", key="k")
    with pytest.raises(mill.PlanError, match="has 64 bytes"):
        stream(**{"x" * 64: [1]}).write_postgres(URL, "t")
    changes = stream().key_by("id").agg(n=mill.count(), emit="each")
    with pytest.raises(mill.PlanError, match="it only adds rows"):
        changes.write_postgres(URL, "t")
    with pytest.raises(mill.PlanError, match='it has another key .*pass key=\\["id"\\]'):
        changes.write_postgres(URL, "t", key="n")


@pytest.mark.parametrize(
    "url",
    [
        f"ann:{SECRET}@host/x",
        f"postgresql://ann:{SECRET}?x@host/shop",
        f"postgresql://ann@host/shop?{SECRET}=1",
        f"postgresql://ann@host:{SECRET}/shop",
        f"host=db password={SECRET}",
        f"mysql://ann:{SECRET}@host/x",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    for call in (
        lambda: stream().write_postgres(url, "t"),
        lambda: mill.read_postgres(url, "t"),
        lambda: mill.lookup_postgres(url, "t", key="id"),
    ):
        with pytest.raises(mill.PlanError, match="the URL cannot be read") as info:
            call()
        assert SECRET not in str(info.value)
    with pytest.raises(mill.PlanError, match="sslmode is"):
        stream().write_postgres("postgresql://host/x?sslmode=always", "t")


def test_nobody_sees_the_password() -> None:
    sink = stream().write_postgres(URL, "t", key="id")
    said = [repr(sink), str(sink), repr(mill.graph(sink)), str(mill.graph(sink))]
    for call in (lambda: mill.run(sink), lambda: mill.read_postgres(URL, "t"), lambda: mill.lookup_postgres(URL, "t", key="id")):
        with pytest.raises(mill.ConnectorError, match=r"cannot connect to postgresql://ann@127.0.0.1:1/shop: .*refused") as info:
            call()
        said.append(str(info.value))
    assert not [text for text in said if SECRET in text]


def test_what_is_wrong_is_told_before_a_server_is_asked() -> None:
    with pytest.raises(mill.PlanError, match="follow"):
        mill.read_postgres(URL, "t", follow="yes")  # type: ignore[arg-type]
    for wrong in (1, None):
        with pytest.raises(mill.PlanError):
            mill.read_postgres(wrong, "t")  # type: ignore[arg-type]
        with pytest.raises(mill.PlanError):
            mill.read_postgres(URL, wrong)  # type: ignore[arg-type]
    with pytest.raises(mill.PlanError, match="order_by"):
        mill.read_postgres(URL, "t", order_by=[])
    with pytest.raises(mill.PlanError, match="names a column twice"):
        mill.lookup_postgres(URL, "t", key=["a", "a"])
