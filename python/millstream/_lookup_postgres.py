"""Look-ups in a table of a PostgreSQL database: what :meth:`Stream.enrich` takes in the place of a function of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream._call_options import BATCHES_IN_FLIGHT, checked_batch_rows, checked_cache
from millstream._engine import RawPostgresTable
from millstream._lookup_functions import Lookup, OneKeyError
from millstream._texts import text
from millstream.errors import PlanError
from millstream.functions import check_pyarrow
from millstream.io.postgres import checked_url, password
from millstream.time import Duration, microseconds
from millstream.types import DataType, Schema, SchemaLike, schema_of

__all__ = ["lookup_postgres"]

_INTEGERS = range(-(2**63), 2**63)


def lookup_postgres(
    url: str,
    table: str,
    *,
    key: str | Sequence[str],
    schema: SchemaLike = None,
    cache: int = 10_000,
    ttl: Duration | None = "1m",
    timeout: Duration = "10s",
    batch_rows: int | None = None,
) -> Lookup:
    """Return a look-up in a table of a PostgreSQL database, for :meth:`Stream.enrich`.

    Parameters
    ----------
    url
        As for :func:`read_postgres`.
    table
        The table, or a view: ``"users"`` or ``"crm.users"``.
    key
        The column that is looked up, or several of them, in the order of ``on``: whole numbers, text, bytes, dates, booleans or
        UUIDs. They should have an index, and no two rows may have the same key.
    schema
        The columns to add, and their types, which must hold every value of the column; by default all columns but the key, as
        :func:`read_postgres` reads them.
    cache, ttl, batch_rows
        As for :func:`lookup`.
    timeout
        How long a query may take, and how long it is repeated while the server is unavailable; after that the job fails, whatever
        ``on_error`` is.

    Returns
    -------
    Lookup
        What :meth:`Stream.enrich` takes.

    Raises
    ------
    PlanError
        When an option is out of range, or when ``enrich`` is called and the columns ``on`` are of other types than the key.
    SchemaError
        When the table has no such column, or a column is of a type that cannot be read.
    ConnectorError
        When there is no such database or table, or it cannot be read. While the job runs, this fails the job whatever
        ``on_error`` is.
    DataError
        When the job runs and a value does not fit its column exactly, or several rows have the key: an error of the records with this
        key, and of no others. The message names table, column and key.

    Notes
    -----
    One query asks for all keys of a frame that are not in the cache. What another program has committed by then is found; see
    :func:`lookup` for what that means after a failure.

    Examples
    --------
    >>> users = mill.lookup_postgres(url, "crm.users", key="id", ttl="5m")  # doctest: +SKIP
    >>> clicks.enrich(users, on="user", how="left")  # doctest: +SKIP
    """
    method = "lookup_postgres"
    check_pyarrow(method)
    where = text(table, f"{method}(table)", "crm.users")
    keys = (key,) if isinstance(key, str) else key
    if not isinstance(keys, (list, tuple)) or not keys or not all(isinstance(name, str) for name in keys):
        raise PlanError(f'{method}(): key= is a column of the table or several, as in key="id", not {key!r:.200}')
    if len(set(keys)) < len(keys):
        raise PlanError(f"{method}(): key= names a column twice")
    size, ttl_us = checked_cache(method, cache, ttl)
    timeout_us = microseconds(timeout, f"{method}(): timeout")
    rows = None if batch_rows is None else checked_batch_rows(method, batch_rows)
    given = None if schema is None else schema_of(schema)
    raw = RawPostgresTable(checked_url(url, method), password(), where, list(keys), None if given is None else given._raw, timeout_us)
    found = PostgresTable(raw, where, tuple(keys))
    return Lookup(found, found.schema, size, ttl_us, rows, BATCHES_IN_FLIGHT, None, found)


class PostgresTable:
    """A table that is asked for the rows of keys."""

    def __init__(self, raw: RawPostgresTable, table: str, keys: tuple[str, ...]) -> None:
        import pyarrow as pa

        self._raw = raw
        self._table = table
        self._keys = keys
        self.schema = Schema(raw.schema())
        self._kinds = pa.schema(Schema(raw.key())).types
        self.__name__ = f"{table} in {raw.server()}"

    def check_keys(self, on: Sequence[str], kinds: Sequence[DataType]) -> None:
        """Refuse columns that cannot have the values of the key."""
        self._raw.check_keys(list(on), list(kinds))

    def __call__(self, keys: list[Any]) -> dict[Any, Any]:
        """Return the records of keys."""
        import pyarrow as pa

        parts = [keys] if len(self._keys) == 1 else list(zip(*keys, strict=True))
        columns = []
        for kind, values in zip(self._kinds, parts, strict=True):
            # A number that PostgreSQL cannot hold is in no row.
            fitting = [None if type(value) is int and value not in _INTEGERS else value for value in values]
            columns.append(pa.array(fitting, type=kind))
        numbers, rows, bad = self._raw.find(pa.RecordBatch.from_arrays(columns, names=[f"k{n}" for n in range(len(columns))]))
        for number, why in bad:
            raise OneKeyError(f"{why}, in the row with {self._shown(keys[number])}")
        found: dict[Any, Any] = {}
        for number, record in zip(numbers, rows.to_pylist(), strict=True):
            key = keys[number]
            if key in found:
                raise OneKeyError(f"table {self._table!r} has several rows with {self._shown(key)}; a look-up needs one at most")
            found[key] = record
        return found

    def _shown(self, key: Any) -> str:
        values = (key,) if len(self._keys) == 1 else key
        return ", ".join(f"{name} = {value!r:.200}" for name, value in zip(self._keys, values, strict=True))
