"""`read_sql` and `write_sql`: which database a URL is of, and what is wrong with a source or sink that can be known without a server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import millstream as mill

SECRET = "hunter2-hunter2"
URL = f"mysql://ann:{SECRET}@127.0.0.1:1/shop"


def stream(**columns: Any) -> mill.Stream:
    return mill.from_arrow(pa.table(columns or {"id": [1], "name": ["a"]}))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("shop.db", r"begins with none of the databases that there are \(postgresql://.*mysql://.*mariadb://.*sqlite:///path\)"),
        ("oracle://host/x", "begins with none of the databases that there are"),
        ("mysq://host/x", "did you mean mysql://"),
        ("postgre://host/x", "did you mean postgres"),
        ("mysql+pymysql://host/x", "did you mean mysql://"),
        ("MySQL://host/x", "did you mean mysql://"),
        (7, "the URL is a text such as postgresql://.*, not an object of type int"),
    ],
)
def test_a_url_of_no_database(url: Any, message: str) -> None:
    for call in (lambda: stream().write_sql(url, "t"), lambda: mill.read_sql(url, "t")):
        with pytest.raises(mill.PlanError, match=message):
            call()


def test_the_url_says_which_database(tmp_path: Path) -> None:
    names = [repr(stream().write_sql(url, "t", key="id")) for url in ("mysql://h/x", "mariadb://h/x", "postgresql://h/x", "sqlite:///x.db")]
    assert names[:3] == ['<Sink write_sql("t")>', '<Sink write_sql("t")>', '<Sink write_postgres("t")>']
    assert "write_sqlite" in names[3]
    rows = mill.from_iter([{"k": 1, "x": "a"}, {"k": 1, "x": "b"}])
    mill.run(rows.write_sql(f"sqlite:///{tmp_path}/out%20put.db", "latest", key="k"))
    with closing(sqlite3.connect(tmp_path / "out put.db")) as database:
        assert database.execute("select * from latest").fetchall() == [(1, "b")]
    for url in ("sqlite://x.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///x.db?mode=ro"):
        with pytest.raises(mill.PlanError, match=r"a URL of SQLite is sqlite:///orders.db"):
            rows.write_sql(url, "t")
    with pytest.raises(mill.PlanError, match="is not for SQLite"):
        rows.write_sql("sqlite:///x.db", "t", create=False)
    with pytest.raises(mill.PlanError, match=r"does not read SQLite: .*lookup_sqlite\(\).*from_iter\(\)"):
        mill.read_sql("sqlite:///x.db", "t")


@pytest.mark.parametrize(
    ("table", "options", "kind", "message"),
    [
        ("", {}, mill.PlanError, '"" is not the name of a table'),
        ("a.b.c", {}, mill.PlanError, "table or database.table"),
        ("x" * 65, {}, mill.SchemaError, "is no name of a table in MySQL"),
        ("_millstream_epochs", {}, mill.PlanError, "where the engine notes"),
        ("t", {"key": []}, mill.PlanError, "key"),
        ("t", {"key": "nam"}, mill.SchemaError, 'key column "nam" is not a column of the stream; did you mean "name"'),
        ("t", {"create": 1}, mill.PlanError, "create"),
    ],
)
def test_a_sink_that_cannot_be(table: str, options: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        stream().write_sql(URL, table, **options)


def test_columns_that_have_no_type() -> None:
    with pytest.raises(mill.SchemaError, match='key column "k" is a .*, which is written as JSON, and that is no key'):
        stream(k=pa.array([{"a": 1}])).write_sql(URL, "t", key="k")
    with pytest.raises(mill.SchemaError, match='key column "k" is a float64, which is written as DOUBLE, and that is no key'):
        stream(k=pa.array([1.5])).write_sql(URL, "t", key="k")
    with pytest.raises(mill.SchemaError, match='column "k" is a decimal.*, which MySQL has no type for'):
        stream(k=pa.array([None], pa.decimal256(70, 2))).write_sql(URL, "t")
    with pytest.raises(mill.SchemaError, match='the columns "id" and "ID" have the same name in MySQL'):
        stream(id=[1], ID=[2]).write_sql(URL, "t")
    changes = stream().key_by("id").agg(n=mill.count(), emit="each")
    with pytest.raises(mill.PlanError, match="it only adds rows"):
        changes.write_sql(URL, "t")
    with pytest.raises(mill.PlanError, match='it has another key .*pass key=\\["id"\\]'):
        changes.write_sql(URL, "t", key="n")


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://ann:{SECRET}?x@host/shop",
        f"mysql://ann@host/shop?{SECRET}=1",
        f"mysql://ann@host:{SECRET}/shop",
        f"mysql://ann:{SECRET}/@host/shop",
        f"mariadb://ann@host/shop/{SECRET}",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    for call in (lambda: stream().write_sql(url, "t"), lambda: mill.read_sql(url, "t")):
        with pytest.raises(mill.PlanError, match="the URL cannot be read") as info:
            call()
        assert SECRET not in str(info.value)


def test_options_of_a_url() -> None:
    for options, message in [
        ("ssl-mode=always", "ssl-mode is .*; it is disabled, preferred, required, verify-ca or verify-identity"),
        ("connect-timeout=soon", "connect-timeout is .*; it is a whole number of seconds"),
        ("charset=latin1", "there are ssl-mode, ssl-ca, socket and connect-timeout"),
        ("ssl-mode", "an option has no value"),
    ]:
        with pytest.raises(mill.PlanError, match=message):
            stream().write_sql(f"mysql://host/x?{options}", "t")
    for call in (lambda: stream().write_sql("mysql://host", "t"), lambda: mill.read_sql("mysql://host", "t")):
        with pytest.raises(mill.PlanError, match='in which database is "t"'):
            call()


def test_nobody_sees_the_password() -> None:
    sink = stream().write_sql(URL, "t", key="id")
    said = [repr(sink), str(sink), repr(mill.graph(sink)), str(mill.graph(sink))]
    for call in (lambda: mill.run(sink), lambda: mill.read_sql(URL, "t")):
        with pytest.raises(mill.ConnectorError, match=r"cannot connect to mysql://ann@127\.0\.0\.1:1/shop") as info:
            call()
        said.append(str(info.value))
    assert not [text for text in said if SECRET in text]


@pytest.mark.parametrize(("key", "said"), [(None, "delivered after the checkpoint with its number"), ("id", "upserts by key")])
def test_the_plan_says_the_guarantee(key: str | None, said: str) -> None:
    plan = str(mill.graph(stream().write_sql(URL, "t", key=key), checkpoint="state"))
    assert f'write_sql("t")  [exactly_once: {said}]' in plan
