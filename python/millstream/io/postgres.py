"""PostgreSQL: tables and queries as sources, tables as sinks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from millstream import _engine
from millstream._texts import choice, flag, text, texts
from millstream.errors import PlanError
from millstream.io.sinks import Output, output
from millstream.stream import Stream

__all__ = ["read_postgres", "read_postgres_changes"]

PostgresVia = Literal["auto", "copy", "upsert", "two_phase"]
"""How rows become visible."""

_URL = "postgresql://user@localhost:5432/shop"


def read_postgres(
    url: str,
    table_or_query: str,
    *,
    order_by: str | Sequence[str] | None = None,
    follow: bool = False,
) -> Stream:
    """Read a table or a query of a PostgreSQL database.

    Parameters
    ----------
    url
        ``"postgresql://user:password@host:5432/database?sslmode=require"``. A password that is not in the URL is taken from the
        environment variable ``PGPASSWORD``. It is shown nowhere.
    table_or_query
        A table or view as ``"orders"`` or ``"shop.orders"``, or a query that begins with ``select``, ``with``, ``values`` or
        ``table``.
    order_by
        The columns in whose order rows are read: whole numbers, decimals, text, bytes, dates or times without nulls. They need
        not be unique. By default the primary key of the table.
    follow
        Whether rows that are added later are read, too; the stream does not end then. It needs a table, and in ``order_by`` one
        column that a sequence fills (``GENERATED … AS IDENTITY``, ``serial``) and an index begins with. Changed and deleted rows
        are not noticed: that is what :func:`read_postgres_changes` is for.

    Returns
    -------
    Stream
        A stream that ends after the last row, or with ``follow=True`` never. Its columns are those of the table or query.

    Raises
    ------
    PlanError
        When the URL or an option cannot be used, ``order_by`` is missing and there is no primary key, or ``follow=True`` could
        miss rows of this table.
    SchemaError
        When a column does not exist, or is of a type that has no exact form.
    ConnectorError
        When the server cannot be reached or the table cannot be read; also while the job runs, once it was unavailable
        for a minute.
    DataError
        When the job runs and a column of ``order_by`` has a null, or a value has no form in its column (``infinity``, an
        interval with months); ``on_error`` can skip or route such rows. With ``follow=True`` also when the sequence was set back.

    Notes
    -----
    Rows are read from one snapshot of the database. The position in a checkpoint is the last key: a run that continues after a
    failure, or after the connection was lost, reads the rows with a larger key, from a new snapshot. So rows that were read are
    not read again, and the result is exact as long as nobody changes rows with keys that are still to come, or adds rows with
    keys that were passed.

    With ``follow=True`` the table is asked for new rows ten times a second. A transaction may take a number from the sequence and
    commit long after transactions with larger numbers. So rows up to a number are read only after all transactions have ended that
    wrote into the table when it was seen. A transaction that writes and stays open delays the stream, but no row is missed. This
    holds for rows that get their number when they are inserted; a program that asks the sequence first and inserts later can be
    overtaken.

    Rows with the same key are returned together; more than a million of them are an error.

    Examples
    --------
    >>> orders = mill.read_postgres(url, "shop.orders", order_by="id")  # doctest: +SKIP
    >>> recent = mill.read_postgres(  # doctest: +SKIP
    ...     url, "select id, amount::numeric(18, 2) from shop.orders where day > '2026-01-01'", order_by="id"
    ... )
    """
    by = [] if order_by is None else texts(order_by, "read_postgres(order_by=…)", "id")
    if order_by is not None and not by:
        raise PlanError("read_postgres(order_by=…) needs at least one column; leave it out for the primary key of a table")
    is_followed = flag(follow, "read_postgres(follow=…)")
    where = text(table_or_query, "read_postgres(table_or_query)", "shop.orders")
    return Stream(_engine.read_postgres(checked_url(url, "read_postgres"), password(), where, by, is_followed))


def read_postgres_changes(
    url: str,
    publication: str,
    slot: str,
    *,
    table: str | None = None,
    columns: Sequence[str] | None = None,
    create_slot: bool = True,
    snapshot: Literal["initial", "never"] = "initial",
    until: Literal["end"] | None = None,
) -> Stream:
    """Follow a table of a PostgreSQL database: its rows, and then every change of them.

    Parameters
    ----------
    url
        As for :func:`read_postgres`. The user needs the attribute ``REPLICATION`` and the permission to read the table.
    publication
        A publication that has the table, made with ``CREATE PUBLICATION … FOR TABLE …``.
    slot
        A replication slot that nobody else uses. The server keeps the changes that the slot has not confirmed.
    table
        The table as ``"orders"`` or ``"shop.orders"``. It can be left out if the publication has only one.
    columns
        The columns to read, including the key. By default all that the publication has.
    create_slot
        Whether a slot that does not exist is created. The slot is never dropped.
    snapshot
        ``"initial"`` begins with the rows that are in the table, ``"never"`` with the first change that the slot has not confirmed.
    until
        ``"end"`` ends the stream at what is committed when the job starts. By default the stream does not end.

    Returns
    -------
    Stream
        An updating stream, whose key is the primary key of the table (or the columns of its ``REPLICA IDENTITY`` index): the row of a
        key is set or deleted. Its columns are those of the table.

    Raises
    ------
    PlanError
        When an argument cannot be used, the publication does not exist, does not have the table or leaves out updates or deletes, or the
        table has no key.
    SchemaError
        When a column is of a type that has no exact form; also while the job runs, after a column that is read was altered.
    ConnectorError
        When the server cannot be reached, has another ``wal_level`` than ``logical``, or the slot cannot be used; also while the job
        runs, once the server has been unavailable for a minute.
    CheckpointError
        When the slot no longer has the changes that a checkpoint continues with: it was dropped, it has lost them, or it was used by
        another reader.
    DataError
        When the job runs and the table is truncated, or a value of a change is not known (see the notes) or has no exact form;
        ``on_error`` can skip or route such a change.

    Notes
    -----
    The rows are read from a snapshot of the database, and the changes begin at the point of that snapshot, so nothing is missing
    and nothing is read twice. The position in a checkpoint is a place in the log of the server. It is confirmed to the slot once
    the checkpoint is complete, so a job without a checkpoint path makes the server keep its log until the job ends.

    An update does not contain values that are stored out of line (long texts, for example) and were not changed. Such a
    change is an error, unless the table has ``REPLICA IDENTITY FULL`` or the column is left out.

    PostgreSQL 14 or newer is needed.

    Examples
    --------
    >>> orders = mill.read_postgres_changes(url, "shop", "reports")  # doctest: +SKIP
    >>> sink = orders.write_sqlite("orders.db", "orders", key="id")  # doctest: +SKIP
    """
    call = "read_postgres_changes"
    where = None if table is None else text(table, f"{call}(table=…)", "shop.orders")
    names = None if columns is None else texts(columns, f"{call}(columns=…)", "id")
    if names == []:
        raise PlanError(f"{call}(columns=…) needs at least the columns of the key; leave it out for all columns")
    creates = flag(create_slot, f"{call}(create_slot=…)")
    choice(snapshot, f"{call}(snapshot=…)", "initial", "never")
    if until not in (None, "end"):
        raise PlanError(f'{call}(until=…) takes "end" or None, not {until!r:.80}')
    published = text(publication, f"{call}(publication)", "shop")
    of_slot = text(slot, f"{call}(slot)", "reports")
    only_changes = snapshot == "never"
    raw = _engine.read_postgres_changes(
        checked_url(url, call), password(), published, of_slot, where, names, not creates, only_changes, until is not None
    )
    return Stream(raw)


def postgres_sink(
    stream: Stream,
    url: str,
    table: str,
    key: str | Sequence[str] | None,
    create: bool,
    via: PostgresVia,
) -> Output:
    """Write into a table of a PostgreSQL database."""
    keys = None if key is None else texts(key, "write_postgres(key=…)", "id")
    choice(via, "write_postgres(via=…)", "auto", "copy", "upsert", "two_phase")
    if via == "copy" and keys is not None:
        raise PlanError('write_postgres(via="copy") adds rows, and key= replaces them; leave one of them out')
    if via == "upsert" and keys is None:
        raise PlanError('write_postgres(via="upsert") replaces rows by their key: pass key=')
    creates = flag(create, "write_postgres(create=…)")
    where = text(table, "write_postgres(table)", "shop.totals")
    of_url = checked_url(url, "write_postgres")
    raw = _engine.write_postgres(stream._raw, of_url, password(), where, keys, not creates, via == "two_phase")
    return output(raw)


def checked_url(url: str, call: str) -> str:
    """Return a URL; what is none is not repeated, as it may hold a password."""
    if not isinstance(url, str):
        raise PlanError(f'{call}(): the URL is a text such as "{_URL}", not an object of type {type(url).__name__}')
    return url


def password() -> str | None:
    """Return the password of the environment."""
    return os.environ.get("PGPASSWORD") or None
