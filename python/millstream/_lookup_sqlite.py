"""Look-ups in a table of an SQLite database: what :meth:`Stream.enrich` takes in the place of a function of the user's."""

from __future__ import annotations

import os
from collections.abc import Sequence

from millstream._call_options import BATCHES_IN_FLIGHT, checked_batch_rows, checked_cache
from millstream._lookup_functions import Lookup
from millstream._paths import local_path
from millstream.errors import PlanError
from millstream.functions import check_pyarrow
from millstream.time import Duration, microseconds
from millstream.types import SchemaLike, schema_of

__all__ = ["lookup_sqlite"]

def lookup_sqlite(
    path: str | os.PathLike[str],
    table: str,
    *,
    key: str | Sequence[str],
    schema: SchemaLike = None,
    cache: int = 10_000,
    ttl: Duration | None = "1m",
    timeout: Duration = "10s",
    batch_rows: int | None = None,
) -> Lookup:
    """Return a look-up in a table of an SQLite database, for :meth:`Stream.enrich`.

    Parameters
    ----------
    path
        The database file. It is opened for reading only.
    table
        The table, or a view.
    key
        The column that is looked up, or several of them, in the order of ``on``. They should have an index, and no two rows may
        have the same key.
    schema
        The columns to add, and their types; by default all columns but the key, if they are declared as ``INTEGER``, ``REAL``,
        ``TEXT`` or ``BLOB``. Booleans are read from 0 and 1; dates, times and decimals from text as :meth:`Stream.write_sqlite`
        stores them, with six digits of a second at most.
    cache, ttl, batch_rows
        As for :func:`lookup`.
    timeout
        How long a query is repeated while the database is locked; after that the job fails, whatever ``on_error`` is.

    Returns
    -------
    Lookup
        What :meth:`Stream.enrich` takes.

    Raises
    ------
    PlanError
        When an option is out of range, or when ``enrich`` is called and the columns ``on`` are of other types than the key.
    SchemaError
        When the table has no such column, or a column is of a type that cannot be read or is not known.
    ConnectorError
        When there is no such database or table, or it cannot be read. While the job runs, this fails the job whatever
        ``on_error`` is, and so does a database that stays locked for longer than ``timeout``.
    DataError
        When the job runs and a value does not fit the type of its column, or several rows have the key: an error of the
        records with this key, and of no others. The message names table, column, key and value.

    Notes
    -----
    One query asks for all keys of a frame that are not in the cache. What another program has committed by then is found; see
    :func:`lookup` for what that means after a failure.

    Examples
    --------
    >>> import sqlite3
    >>> from contextlib import closing
    >>> with closing(sqlite3.connect("crm.db")) as database, database:
    ...     _ = database.execute("create table users (id integer primary key, name text)")
    ...     _ = database.execute("insert into users values (1, 'ann'), (2, 'bob')")
    >>> users = mill.lookup_sqlite("crm.db", "users", key="id")
    >>> clicks = mill.from_iter([{"user": 2}, {"user": 3}])
    >>> clicks.enrich(users, on="user", how="left").collect().to_pylist()
    [{'user': 2, 'name': 'bob'}, {'user': 3, 'name': None}]
    """
    # Only who uses it pays for SQLite when the package is imported.
    from millstream._sqlite_table import SqliteTable

    method = "lookup_sqlite"
    check_pyarrow(method)
    where = local_path(path, f"{method}()")
    if not isinstance(table, str) or not table:
        raise PlanError(f"{method}(): a table is named by a text, not {table!r:.200}")
    keys = (key,) if isinstance(key, str) else key
    if not isinstance(keys, (list, tuple)) or not keys or not all(isinstance(name, str) for name in keys):
        raise PlanError(f'{method}(): key= is a column of the table or several, as in key="id", not {key!r:.200}')
    if len(set(keys)) < len(keys):
        raise PlanError(f"{method}(): key= names a column twice")
    size, ttl_us = checked_cache(method, cache, ttl)
    seconds = microseconds(timeout, f"{method}(): timeout") / 1e6
    rows = None if batch_rows is None else checked_batch_rows(method, batch_rows)
    given = None if schema is None else schema_of(schema)
    found = SqliteTable(where, os.fspath(path), table, tuple(keys), seconds)
    found.declare(given)
    return Lookup(found, found.schema, size, ttl_us, rows, BATCHES_IN_FLIGHT, None, found)
