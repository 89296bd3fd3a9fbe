"""Look-ups by a function: what :meth:`Stream.enrich` takes in the place of a table."""

from __future__ import annotations

import collections
import collections.abc
import itertools
import threading
import time
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream._call_options import (
    BACKOFF,
    BACKOFF_MAX,
    BATCH_ROWS,
    BATCHES_IN_FLIGHT,
    RetryOn,
    checked_batch_rows,
    checked_cache,
    checked_capacity,
    checked_policy,
)
from millstream._engine import RawTable, rows_to_table
from millstream._parameters import check_parameters
from millstream._row import row_class
from millstream._texts import counted
from millstream.errors import PlanError, SchemaError
from millstream.functions import BatchAdapter, check_pyarrow, function_name, is_async, is_async_generator, is_generator
from millstream.table import Table
from millstream.time import Duration
from millstream.types import Schema, SchemaLike, schema_of

if TYPE_CHECKING:
    from millstream._async import Policy
    from millstream._lookup_postgres import PostgresTable
    from millstream._sqlite_table import SqliteTable
    from millstream.stream import Stream

__all__ = ["Lookup", "OneKeyError", "lookup"]

_SHOWN = 5


class OneKeyError(ValueError):
    """The row of one key cannot be used. The engine asks for the other keys again, and only the records of this key fail."""


@dataclass(frozen=True, repr=False)
class Lookup:
    """A function that finds records by their keys; made by :func:`lookup`, for :meth:`Stream.enrich`.

    Examples
    --------
    >>> def find(keys):
    ...     return {key: {"name": f"user {key}"} for key in keys}
    >>> mill.lookup(find, schema={"name": str})
    <Lookup find Schema(name: str)>
    """

    _function: Callable[[list[Any]], Any]
    _schema: Schema
    _cache: int
    _ttl_us: int | None
    _batch_rows: int | None
    _capacity: int
    _policy: Policy | None
    """None for a plain function."""
    _table: SqliteTable | PostgresTable | None = None
    """The function once more where it is a table, which knows its key and may be asked again for the other keys if one fails."""

    def __repr__(self) -> str:
        """Show the function and what it finds."""
        return f"<Lookup {function_name(self._function)} {self._schema!r}>"

    def _enrich(self, stream: Stream, on: object, how: str, suffix: object) -> Stream:
        """Add what is found to the records of a stream."""
        from millstream._found import Matches
        from millstream.stream import Stream

        keys = _keys(stream, on)
        if self._table is not None:
            self._table.check_keys(keys, [stream.schema[key] for key in keys])
        if not isinstance(suffix, str):
            raise PlanError(f'enrich(): suffix= is a text such as "_right", not {suffix!r:.200}')
        own = dict(stream.schema.items())
        columns: dict[str, str] = {}
        for name in self._schema.names:
            columns[name] = name + suffix if name in own else name
        taken = [name for name in columns.values() if name in own or list(columns.values()).count(name) > 1]
        if taken:
            raise PlanError(f"enrich(): the column {taken[0]!r} would exist twice; pass another suffix=")
        mark = _free_name({*own, *columns.values()}) if how == "inner" else None
        found = {columns[name]: kind for name, kind in self._schema.items()}
        schema = schema_of({**own, **found, **({} if mark is None else {mark: bool})})
        finder = _Finder(self, keys, tuple(own), tuple(columns.values()), mark)
        name = f"enrich(lookup({function_name(self._function)}), on={', '.join(keys)})"
        if self._policy is None:
            raw = stream._raw.map_batches(name, BatchAdapter(finder.call), schema._raw, self._batch_rows, True)
        else:
            from millstream._async import AsyncBatchAdapter

            adapter = AsyncBatchAdapter(finder.ask, prepare=finder.begin, finish=finder.end)
            raw = stream._raw.map_async(name, adapter, schema._raw, self._capacity, self._batch_rows, True, True)
        if mark is None:
            return Stream(raw)
        return Matches(Stream(raw), mark)


def _free_name(taken: Set[str]) -> str:
    """Return a free name for the column that marks records with a match, until those without one are dropped."""
    name = "__found"
    while name in taken:
        name += "_"
    return name


def _keys(stream: Stream, on: object) -> tuple[str, ...]:
    names = (on,) if isinstance(on, str) else on
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) for name in names):
        raise PlanError(
            f'enrich() with a look-up by a function needs on=, the columns that it is called with, as in on="id", not {on!r:.200}; '
            "with_columns() makes a column of an expression"
        )
    missing = [name for name in names if name not in stream.schema.names]
    if missing:
        # The message of select() names the columns there are.
        stream.select(*missing)
    for name in names:
        kind = repr(stream.schema[name])
        if kind.startswith(("list", "struct", "map", "object")):
            raise PlanError(
                f"enrich(): the key column {name!r} is {kind}, and keys are plain values; take the value out with with_columns()"
            )
    return tuple(names)


class _Cache:
    """Records by key: the least recently used one goes first, and each at its age."""

    def __init__(self, rows_max: int, ttl_us: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rows_max = rows_max
        self._seconds = None if ttl_us is None else ttl_us / 1e6
        self._records: collections.OrderedDict[Any, tuple[float, Any]] = collections.OrderedDict()
        # Tasks of the engine share it where the function is a plain one.
        self._lock = threading.Lock()

    def take(self, keys: Sequence[Any]) -> tuple[dict[Any, Any], list[Any]]:
        """Return the records that are known, and the keys that are not."""
        known: dict[Any, Any] = {}
        unknown: list[Any] = []
        now = self._clock()
        with self._lock:
            for key in keys:
                entry = self._records.get(key)
                if entry is None or (self._seconds is not None and now - entry[0] >= self._seconds):
                    unknown.append(key)
                else:
                    known[key] = entry[1]
                    self._records.move_to_end(key)
        return known, unknown

    def put(self, records: Mapping[Any, Any], asked_at: float) -> None:
        """Keep records; an age counts from when they were asked for."""
        if not self._rows_max:
            return
        with self._lock:
            for key, record in records.items():
                self._records[key] = (asked_at, record)
                self._records.move_to_end(key)
            while len(self._records) > self._rows_max:
                self._records.popitem(last=False)

    def forget(self, keys: Iterable[Any]) -> None:
        """Keep nothing of these keys."""
        with self._lock:
            for key in keys:
                self._records.pop(key, None)


@dataclass
class _Asked:
    """A batch on its way: the key of each record, None where a part of it is null; what is known; and those to be asked for."""

    batch: Any
    keys: Sequence[Any]
    records: dict[Any, Any]
    unknown: list[Any]
    asked_at: float = 0.0
    given: Any = None


class _Finder:
    """Finds what belongs to the records of a batch."""

    def __init__(
        self, lookup: Lookup, keys: tuple[str, ...], own: tuple[str, ...], found: tuple[str, ...], mark: str | None
    ) -> None:
        self._function = lookup._function
        self._name = function_name(lookup._function)
        self._policy = lookup._policy
        self._schema = lookup._schema
        self._misfit = ValueError if lookup._table is None else OneKeyError
        self._cache = _Cache(lookup._cache, lookup._ttl_us)
        self._keys = keys
        self._row = row_class(keys) if len(keys) > 1 else None
        self._own = own
        self._found = found
        self._mark = mark

    def call(self, batch: Any) -> Any:
        """Add columns to a batch."""
        asked = self.begin(batch)
        if asked.unknown:
            asked.asked_at = time.monotonic()
            asked.given = self._function(list(asked.unknown))
        return self.end(asked)

    def begin(self, batch: Any) -> _Asked:
        """Find out which keys are to be asked for."""
        columns = [batch[name].to_pylist() for name in self._keys]
        keys: list[Any] = columns[0]
        if self._row is not None:
            make = self._row
            keys = [None if None in values else tuple.__new__(make, values) for values in zip(*columns, strict=True)]
        known, unknown = self._cache.take([key for key in dict.fromkeys(keys) if key is not None])
        return _Asked(batch, keys, known, unknown)

    async def ask(self, asked: _Asked) -> _Asked:
        """Ask for them."""
        assert self._policy is not None
        if asked.unknown:
            asked.asked_at = time.monotonic()
            asked.given = await self._policy.call(self._function, list(asked.unknown))
        return asked

    def end(self, asked: _Asked) -> Any:
        """Return the batch with its columns, and remember what was found."""
        new = self._matched(asked.unknown, asked.given) if asked.unknown else {}
        records = {**asked.records, **new}
        try:
            batch = self._columns(asked.batch, asked.keys, records)
        except Exception:
            # Whatever it is that does not fit is asked for again, and does not fail those batches that come later.
            self._cache.forget(records)
            raise
        self._cache.put(new, asked.asked_at)
        return batch

    def _matched(self, keys: Sequence[Any], given: Any) -> dict[Any, Any]:
        """Return the record of each key, None where it has none."""
        if isinstance(given, collections.abc.Mapping):
            asked = set(keys)
            unasked = list(itertools.islice((key for key in given if key not in asked), _SHOWN))
            if unasked:
                raise ValueError(f"{self._name} returned records of keys that it was not asked for, such as {unasked!r:.200}")
            return {key: given.get(key) for key in keys}
        if isinstance(given, (list, tuple)) and not hasattr(given, "_fields"):
            if len(given) != len(keys):
                raise ValueError(
                    f"{self._name} was asked for {counted(len(keys), 'key')} and returned {counted(len(given), 'record')}; "
                    "it returns one or None for each"
                )
            return dict(zip(keys, given, strict=True))
        raise TypeError(
            f"{self._name} is called with a list of keys, and returns a dict by key or a list with a record or None for each, "
            f"not {type(given).__name__}"
        )

    def _columns(self, batch: Any, keys: Sequence[Any], records: Mapping[Any, Any]) -> Any:
        import pyarrow as pa

        found = {key: record for key, record in records.items() if record is not None}
        places = {key: place for place, key in enumerate(found)}
        table = Table(self._converted(found)).to_arrow()
        rows = pa.array([None if key is None else places.get(key) for key in keys], type=pa.int64())
        columns: dict[str, Any] = {name: batch[name] for name in self._own}
        for name, result in zip(self._schema.names, self._found, strict=True):
            columns[result] = table[name].combine_chunks().take(rows)
        if self._mark is not None:
            columns[self._mark] = rows.is_valid()
        return columns

    def _converted(self, found: Mapping[Any, Any]) -> RawTable:
        """Return records as a table; one that does not fit is an error that names its key."""
        try:
            return rows_to_table(self._schema._raw, list(found.values()))
        except Exception:
            for key, record in found.items():
                try:
                    rows_to_table(self._schema._raw, [record])
                except Exception as error:
                    reason = str(error).removeprefix("record 0: ")
                    raise self._misfit(f"{self._name} returned for the key {key!r:.200} a record that does not fit: {reason}") from error
            raise


def lookup(
    function: Callable[[list[Any]], Any],
    *,
    schema: SchemaLike = None,
    cache: int = 10_000,
    ttl: Duration | None = "1m",
    batch_rows: int | None = None,
    capacity: int = BATCHES_IN_FLIGHT,
    timeout: Duration | None = None,
    retries: int = 0,
    retry_on: RetryOn = Exception,
    backoff: Duration = BACKOFF,
    backoff_max: Duration = BACKOFF_MAX,
) -> Lookup:
    """Return a look-up by a function, for :meth:`Stream.enrich`.

    Parameters
    ----------
    function
        A plain or an ``async def`` function. It is called with a list of keys, each of them once and none of them null:
        values of the column ``on``, or rows of several columns. It returns a dict of records by key, or a list with a
        record for each key. A key that is missing, or whose record is None, has no match. A record is a dict, a tuple, a
        dataclass, or a plain value for a schema of one column.
    schema
        The columns of a record; by default those of the annotation, as in ``-> dict[int, User]``.
    cache
        How many keys are cached with their records, including keys without a match. The least recently used key is dropped
        first. 0 turns the cache off.
    ttl
        How long a key is cached; None for until others take its place.
    batch_rows
        How many records a call looks up at most: by default 1024 for an asynchronous function, and as for
        :meth:`Stream.map_batches` for a plain one.
    capacity, timeout, retries, retry_on, backoff, backoff_max
        For asynchronous functions only, as for :meth:`Stream.map_batches_async`. Timeout and retries apply to a call.

    Returns
    -------
    Lookup
        What :meth:`Stream.enrich` takes.

    Raises
    ------
    PlanError
        When ``function`` is not a function, an option is out of range, or an option for asynchronous functions is used with
        a plain one, with another value than its default.
    SchemaError
        When the columns are not known.

    Notes
    -----
    The result depends on when a key is looked up: after a failure, a job may find something else for a record whose results
    were not in the last checkpoint. A table that is part of the job, ``enrich(table)``, does not have this problem.

    If the function raises, or a record that it returns does not fit the schema, all records of the call fail: ``on_error="skip"``
    drops them all. A smaller ``batch_rows`` limits how many.

    All tasks of the step in a process share one cache, which is not part of checkpoints.

    Examples
    --------
    >>> names = {1: "ann", 2: "bob"}
    >>> async def find(keys):
    ...     return {key: {"name": names[key]} for key in keys if key in names}
    >>> clicks = mill.from_iter([{"user": 1}, {"user": 3}, {"user": 1}])
    >>> users = mill.lookup(find, schema={"name": str}, ttl="5m")
    >>> clicks.enrich(users, on="user").collect().to_pylist()
    [{'user': 1, 'name': 'ann'}, {'user': 1, 'name': 'ann'}]
    >>> clicks.enrich(users, on="user", how="left").collect().to_pylist()[1]
    {'user': 3, 'name': None}
    """
    method = "lookup"
    check_pyarrow(method)
    if not callable(function):
        raise PlanError(f"lookup() takes a function of a list of keys, not {function!r:.200}")
    if is_generator(function) or is_async_generator(function):
        raise PlanError(f"lookup() takes a function that returns a dict or a list, and {function_name(function)} is a generator")
    check_parameters(function, "lookup()", "keys")
    given = schema_of(schema) if schema is not None else _annotated(function)
    if given is None:
        name = function_name(function)
        raise SchemaError(
            f"the columns that {name} finds are not known; write lookup({name}, schema=…) or annotate it, as in -> dict[int, User]"
        )
    if not given.names:
        raise PlanError("lookup() needs a schema with at least one column")
    size, ttl_us = checked_cache(method, cache, ttl)
    rows = None if batch_rows is None else checked_batch_rows(method, batch_rows)
    calls = checked_capacity(method, capacity)
    policy: Policy | None = checked_policy(method, timeout, retries, retry_on, backoff, backoff_max)
    if is_async(function):
        return Lookup(function, given, size, ttl_us, BATCH_ROWS if rows is None else rows, calls, policy)
    options = {
        "capacity": capacity != BATCHES_IN_FLIGHT,
        "timeout": timeout is not None,
        "retries": retries != 0,
        "retry_on": retry_on is not Exception,
        "backoff": backoff != BACKOFF,
        "backoff_max": backoff_max != BACKOFF_MAX,
    }
    meant = [f"{name}=" for name, is_given in options.items() if is_given]
    if meant:
        name = function_name(function)
        raise PlanError(f"lookup(): {' and '.join(meant)} would do nothing: {name} is a plain function; make it an async def one")
    return Lookup(function, given, size, ttl_us, rows, calls, None)


def _annotated(function: Any) -> Schema | None:
    """Return the columns that the annotation of a function declares: those of a dict's values or of a list's elements."""
    try:
        hint = typing.get_type_hints(function).get("return")
    except (NameError, TypeError, AttributeError):
        return None
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if not isinstance(origin, type) or not arguments:
        return None
    if issubclass(origin, collections.abc.Mapping) or issubclass(origin, collections.abc.Sequence):
        kinds = [kind for kind in _alternatives(arguments[-1]) if kind is not type(None)]
        if len(kinds) == 1 and kinds[0] not in (dict, tuple, list, object, Any):
            try:
                return schema_of(kinds[0])
            except SchemaError:
                return None
    return None


def _alternatives(hint: Any) -> Iterator[Any]:
    """Iterate over the kinds that a value may be of: those of ``User | None``."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType":
        yield from arguments
    else:
        yield hint
