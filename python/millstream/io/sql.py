"""Databases by their URL: PostgreSQL, MySQL, MariaDB and SQLite."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from urllib.parse import unquote

from millstream import _engine
from millstream._texts import flag, text, texts
from millstream.errors import PlanError
from millstream.io.postgres import postgres_sink, read_postgres
from millstream.io.sinks import Output, output, sqlite_sink
from millstream.stream import Stream

__all__ = ["read_sql"]

_KINDS = {"postgresql": "postgres", "postgres": "postgres", "mysql": "mysql", "mariadb": "mysql", "sqlite": "sqlite"}
"""The databases by the scheme of their URL."""

_FORMS = "postgresql://user@host:5432/database, mysql://user@host:3306/database, mariadb://user@host:3306/database or sqlite:///path"


def read_sql(url: str, table_or_query: str, *, order_by: str | Sequence[str] | None = None) -> Stream:
    """Read a table or a query of a database.

    Parameters
    ----------
    url
        ``"mysql://user:password@host:3306/database"``, the same with ``mariadb://``, or ``"postgresql://…"`` as for
        :func:`read_postgres`. A password that is not in the URL is taken from the environment variable ``MYSQL_PWD`` or
        ``PGPASSWORD``. It is shown nowhere.
    table_or_query
        A table or view as ``"orders"`` or ``"shop.orders"``, or a query that begins with ``select``, ``with``, ``values`` or
        ``table``.
    order_by
        The columns in whose order rows are read: whole numbers, decimals, text, bytes, dates or times without nulls. They need
        not be unique. By default the primary key of the table.

    Returns
    -------
    Stream
        A stream that ends after the last row. Its columns are those of the table or query.

    Raises
    ------
    PlanError
        When the URL or an argument cannot be used, or ``order_by`` is missing and there is no primary key. SQLite is not read.
    SchemaError
        When a column does not exist, or is of a type that has no exact form.
    ConnectorError
        When the server cannot be reached or the table cannot be read; also while the job runs, once it was unavailable
        for a minute.
    DataError
        When the job runs and a column of ``order_by`` has a null, or a value has no form in its column (the date ``0000-00-00``);
        ``on_error`` can skip or route such rows.

    Notes
    -----
    Rows are read from one snapshot of the database. The position in a checkpoint is the last key: a run that continues after a
    failure, or after the connection was lost, reads the rows with a larger key, from a new snapshot. So rows that were read are
    not read again, and the result is exact as long as nobody changes rows with keys that are still to come, or adds rows with
    keys that were passed.

    Of MySQL, ``TIMESTAMP`` is a timestamp in UTC, ``DATETIME`` one without a zone, ``TIME`` a duration, ``BIT(1)`` a bool, and
    ``TINYINT(1)`` an ``int8``, since it holds any small number.

    Examples
    --------
    >>> orders = mill.read_sql("mysql://ann@localhost/shop", "orders")  # doctest: +SKIP
    >>> recent = mill.read_sql(  # doctest: +SKIP
    ...     "mariadb://ann@localhost/shop", "select id, amount from orders where day > '2026-01-01'", order_by="id"
    ... )
    """
    kind = _kind(url, "read_sql")
    by = [] if order_by is None else texts(order_by, "read_sql(order_by=…)", "id")
    if order_by is not None and not by:
        raise PlanError("read_sql(order_by=…) needs at least one column; leave it out for the primary key of a table")
    where = text(table_or_query, "read_sql(table_or_query)", "shop.orders")
    if kind == "sqlite":
        raise PlanError(
            "read_sql() does not read SQLite: look its rows up with lookup_sqlite() in enrich(), or read the table with Python's "
            "sqlite3 and pass the rows to from_iter()"
        )
    if kind == "postgres":
        return read_postgres(url, where, order_by=by or None)
    return Stream(_engine.read_mysql(url, _password(), where, by))


def sql_sink(stream: Stream, url: str, table: str, key: str | Sequence[str] | None, create: bool) -> Output:
    """Write into a table of a database.

    Parameters
    ----------
    stream
        The rows.
    url, table, key, create
        As for :meth:`millstream.Stream.write_sql`.

    Examples
    --------
    >>> from millstream.io.sql import sql_sink
    >>> sql_sink(mill.from_iter([{"id": 1}]), "mysql://ann@localhost/shop", "orders", "id", True)
    <Sink write_sql("orders")>
    """
    kind = _kind(url, "write_sql")
    keys = None if key is None else texts(key, "write_sql(key=…)", "id")
    creates = flag(create, "write_sql(create=…)")
    where = text(table, "write_sql(table)", "shop.totals")
    if kind == "postgres":
        return postgres_sink(stream, url, where, keys, creates, "auto")
    if kind == "sqlite":
        if not creates:
            raise PlanError("write_sql(create=False) is not for SQLite, where a table that does not exist is created; leave it out")
        return sqlite_sink(stream, _sqlite_path(url), where, keys)
    return output(_engine.write_mysql(stream._raw, url, _password(), where, keys, not creates))


def _kind(url: str, call: str) -> str:
    """Return which database a URL is of; what is none is not repeated, as it may hold a password."""
    if not isinstance(url, str):
        raise PlanError(f"{call}(): the URL is a text such as {_FORMS}, not an object of type {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    # SQLAlchemy names the driver after a plus.
    kind, _, driver = scheme.partition("+")
    found = _KINDS.get(kind) if separator else None
    if found is not None and not driver:
        return found
    near = get_close_matches(kind.lower(), _KINDS, 1) if separator and scheme.isascii() and len(scheme) < 30 else []
    hint = f"; did you mean {near[0]}://" if near else ""
    raise PlanError(f"{call}(): the URL begins with none of the databases that there are{hint} ({_FORMS})")


def _sqlite_path(url: str) -> str:
    """Return the file of ``sqlite:///path``: three slashes before a relative path, four before an absolute one."""
    host, _, path = url.removeprefix("sqlite://").partition("/")
    if host or not path or path == ":memory:" or "?" in path:
        raise PlanError(
            "write_sql(): a URL of SQLite is sqlite:///orders.db for a file of the current directory, or sqlite:////data/orders.db for "
            f"an absolute path, not {url!r:.200}"
        )
    return unquote(path)


def _password() -> str | None:
    """Return the password of the environment."""
    return os.environ.get("MYSQL_PWD") or None
