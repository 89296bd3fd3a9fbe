"""A table of an SQLite database that is asked for the rows of keys."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from millstream._lookup_functions import OneKeyError
from millstream._texts import counted
from millstream.errors import ConnectorError, PlanError, SchemaError
from millstream.types import DataType, Schema, schema_of

__all__ = ["SqliteTable"]

_DECLARED = {"INTEGER": int, "INT": int, "BIGINT": int, "REAL": float, "DOUBLE": float, "TEXT": str, "VARCHAR": str, "BLOB": bytes}
"""What columns hold, by their declared types; of others the user says it."""
_CLASSES = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}
_INTEGER_MAX = 2**63 - 1
_BELOW_MICROSECONDS = re.compile(r"[.,][0-9]{6}0*[1-9]")
"""Digits that a time of Python's has no room for, and would be cut off."""
_PAUSE_SECONDS = 0.05
"""How long a locked database is left alone before it is asked again."""


class SqliteTable:
    """A table that is asked for the rows of keys."""

    schema: Schema

    def __init__(self, path: str, shown: str, table: str, keys: tuple[str, ...], seconds: float) -> None:
        self._path = path
        self._table = table
        self._keys = keys
        self._seconds = seconds
        self._own = threading.local()
        self.__name__ = f"{table} in {shown}"

    def declare(self, given: Schema | None) -> None:
        """Find out which columns there are, and of which types."""
        if not os.path.isfile(self._path):
            raise ConnectorError(f"lookup_sqlite(): there is no database {self._path!r}")
        try:
            declared = {name: str(kind).split("(")[0].strip().upper() for name, kind in self._asked(_COLUMNS, [self._table])}
            if not declared:
                names = [name for (name,) in self._asked("select name from sqlite_master where type in ('table', 'view') order by name", [])]
                raise ConnectorError(
                    f"lookup_sqlite(): the database {self._path!r} has no table {self._table!r}; it has {', '.join(names) or 'none'}"
                )
        except sqlite3.Error as error:
            raise ConnectorError(f"lookup_sqlite(): the database {self._path!r} cannot be read: {error}") from error
        self._declared = declared
        wanted = list(given.names) if given is not None else [name for name in declared if name not in self._keys]
        for name in (*self._keys, *wanted):
            if name not in declared:
                raise SchemaError(f"lookup_sqlite(): table {self._table!r} has no column {name!r}; it has {', '.join(declared)}")
        if not wanted:
            raise SchemaError(f"lookup_sqlite(): table {self._table!r} has no column but the key; list columns in schema=")
        if given is None:
            unknown = [name for name in wanted if declared[name] not in _DECLARED]
            if unknown:
                raise SchemaError(
                    f"lookup_sqlite(): column {unknown[0]!r} of table {self._table!r} is declared as {declared[unknown[0]] or 'nothing'}, which "
                    f"does not say what it holds; write schema={{{unknown[0]!r}: …}} with all columns that you need"
                )
            given = schema_of({name: _DECLARED[declared[name]] for name in wanted})
        self.schema = given
        self._readers = [(name, _reader(kind, name, self._table)) for name, kind in given.items()]
        columns = ", ".join(f"t.{_quoted(name)}" for name in wanted)
        match = " and ".join(f"t.{_quoted(name)} = asked.k{n} collate binary" for n, name in enumerate(self._keys))
        key_names = ", ".join(f"k{n}" for n in range(len(self._keys)))
        # In this order, so that the index of the table is used; without one, SQLite makes one for the query.
        self._head = f"with asked(n, {key_names}) as (values "
        self._tail = f") select asked.n, {columns} from asked cross join {_quoted(self._table)} as t on {match}"

    def check_keys(self, on: Sequence[str], kinds: Sequence[DataType]) -> None:
        """Refuse columns that cannot have the values of the key."""
        if len(on) != len(self._keys):
            raise PlanError(
                f"enrich(): on= names {counted(len(on), 'column')}, and the key of table {self._table!r} has {len(self._keys)}: {', '.join(self._keys)}"
            )
        for name, kind, key in zip(on, kinds, self._keys, strict=True):
            own = _class_of(repr(kind))
            if own is None:
                raise PlanError(f"enrich(): the key column {name!r} is {kind!r}, and keys in SQLite are whole numbers, text or bytes; cast it")
            declared = _DECLARED.get(self._declared[key])
            if declared is not None and declared is not own:
                raise PlanError(
                    f"enrich(): column {name!r} is {kind!r}, and {key!r} of table {self._table!r} is {_CLASSES[declared]}; cast {name!r}"
                )

    def __call__(self, keys: list[Any]) -> dict[Any, Any]:
        """Return the records of keys; a database that cannot be asked fails the job, as no record is to blame."""
        try:
            return self._found(keys)
        except sqlite3.Error as error:
            raise ConnectorError(f"table {self._table!r} of {self._path} cannot be read: {error}") from error

    def _found(self, keys: list[Any]) -> dict[Any, Any]:
        width = len(self._keys)
        found: dict[Any, Any] = {}
        step = max(1, (self._limit() - 1) // (width + 1))
        # A number that SQLite cannot hold is in no row.
        keys = [key for key in keys if all(type(part) is not int or part <= _INTEGER_MAX for part in ((key,) if width == 1 else key))]
        for first in range(0, len(keys), step):
            piece = keys[first : first + step]
            values = ", ".join(["(" + ", ".join("?" * (width + 1)) + ")"] * len(piece))
            parameters: list[Any] = []
            for n, key in enumerate(piece):
                parameters += (n, key) if width == 1 else (n, *key)
            for n, *values_of in self._asked(self._head + values + self._tail, parameters):
                key = piece[n]
                if key in found:
                    raise OneKeyError(f"table {self._table!r} has several rows with {self._key(key)}; a look-up needs one at most")
                found[key] = {name: self._read(key, name, read, value) for (name, read), value in zip(self._readers, values_of, strict=True)}
        return found

    def _key(self, key: Any) -> str:
        values = (key,) if len(self._keys) == 1 else key
        return ", ".join(f"{name} = {value!r:.200}" for name, value in zip(self._keys, values, strict=True))

    def _read(self, key: Any, name: str, read: Callable[[Any], Any], value: Any) -> Any:
        if value is None:
            return None
        try:
            return read(value)
        except (TypeError, ValueError, ArithmeticError) as error:
            kind = self.schema[name]
            raise OneKeyError(
                f"column {name!r} of table {self._table!r} is {kind!r}, and the row with {self._key(key)} has {value!r:.200}"
                + (f": {error}" if str(error) else "")
            ) from None

    def _limit(self) -> int:
        return int(self._connection().getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))

    def _connection(self) -> sqlite3.Connection:
        """Return the connection of this thread."""
        connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"file:{quote(self._path)}?mode=ro",
                uri=True,
                timeout=0,
                isolation_level=None,
                # It may be dropped by another thread than its own.
                check_same_thread=False,
                factory=_Connection,
            )
            self._own.connection = connection
        return connection

    def _asked(self, query: str, parameters: list[Any]) -> list[Any]:
        """Ask, and ask again while the database is locked."""
        until = time.monotonic() + self._seconds
        while True:
            try:
                return self._connection().execute(query, parameters).fetchall()
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    # Whatever it was, the next query begins anew: the file may be another one by then.
                    self._forget()
                    raise
                if time.monotonic() >= until:
                    raise
                time.sleep(_PAUSE_SECONDS)

    def _forget(self) -> None:
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._own.connection.close()
            del self._own.connection


_COLUMNS = "select name, type from pragma_table_info(?)"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _class_of(kind: str) -> type | None:
    """Return which values of SQLite a key of this type is: whole numbers, text or bytes."""
    if kind.startswith(("int", "uint")):
        return int
    return {"str": str, "large_str": str, "binary": bytes, "large_binary": bytes}.get(kind)


def _reader(kind: DataType, name: str, table: str) -> Callable[[Any], Any]:
    """Return what makes a value of this type of one of SQLite."""
    text = repr(kind)
    plain = {int: ("int", "uint"), float: ("float",), str: ("str", "large_str"), bytes: ("binary", "large_binary")}
    for own, names in plain.items():
        if text.startswith(names) and not text.startswith("struct"):
            return _exactly(own)
    if text == "bool":
        return _boolean
    if text == "date":
        return lambda value: datetime.date.fromisoformat(_exactly(str)(value))
    if text.startswith("timestamp"):
        return lambda value: datetime.datetime.fromisoformat(_to_microseconds(value))
    if text.startswith("time"):
        return lambda value: datetime.time.fromisoformat(_to_microseconds(value))
    if text.startswith("decimal"):
        return lambda value: decimal.Decimal(_exactly(str)(value))
    raise SchemaError(f"lookup_sqlite(): column {name!r} of table {table!r} cannot be read as {text}; read it as str, int, float or bytes")


def _exactly(own: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if value.__class__ is not own:
            raise TypeError
        return value

    return read


def _to_microseconds(value: Any) -> str:
    text: str = _exactly(str)(value)
    if _BELOW_MICROSECONDS.search(text):
        raise ValueError("it has digits below a microsecond, which would be lost; read the column as str")
    return text


def _boolean(value: Any) -> bool:
    if value.__class__ is not int or value not in (0, 1):
        raise TypeError
    return bool(value)


class _Connection(sqlite3.Connection):
    """Closes itself when it is dropped; ``sqlite3`` would warn that it was not closed.

    An object beside it that closes it would not do: the garbage collector calls finalizers of a cycle in any order.
    """

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
