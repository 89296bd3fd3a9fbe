"""Look-ups by a function: what :meth:`Stream.enrich` takes in the place of a table."""

from __future__ import annotations

import collections
import collections.abc
import inspect
import itertools
import threading
import time
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream._async_steps import RetryOn, _capacity, _policy
from millstream._counts import count
from millstream._engine import rows_to_table
from millstream._row import row_class
from millstream.errors import PlanError, SchemaError
from millstream.functions import BatchAdapter, check_pyarrow, function_name
from millstream.table import Table
from millstream.time import Duration, microseconds
from millstream.types import Schema, SchemaLike, schema_of

if TYPE_CHECKING:
    from millstream._async import Policy
    from millstream.stream import Stream

__all__ = ["Lookup", "lookup"]

_FOUND = "__found"
"""The column that tells whether a record has a match, until those without one are left out."""

_CACHE_MAX = 100_000_000
_SHOWN = 5


@dataclass(frozen=True, repr=False)
class Lookup:
    """A function that finds records by their keys; made by :func:`lookup`, and taken by :meth:`Stream.enrich`."""

    _function: Callable[[list[Any]], Any]
    _schema: Schema
    _cache: int
    _ttl_us: int | None
    _batch_rows: int
    _capacity: int
    _policy: Policy | None

    def __repr__(self) -> str:
        """Show the function and what it finds."""
        return f"<Lookup {function_name(self._function)} {self._schema!r}>"

    def _enrich(self, stream: Stream, on: object, how: str, suffix: object) -> Stream:
        """Add what is found to the records of a stream."""
        from millstream.expr import col
        from millstream.stream import Stream

        keys = _keys(stream, on)
        if not isinstance(suffix, str):
            raise PlanError(f'enrich(): suffix= is a text such as "_right", not {suffix!r:.200}')
        own = dict(stream.schema.items())
        columns: dict[str, str] = {}
        for name in self._schema.names:
            columns[name] = name + suffix if name in own else name
        taken = [name for name in columns.values() if name in own or list(columns.values()).count(name) > 1]
        if taken or _FOUND in own or _FOUND in columns.values():
            raise PlanError(f"enrich(): the column {(taken or [_FOUND])[0]!r} would be there twice; give another suffix=")
        found = {columns[name]: kind for name, kind in self._schema.items()}
        schema = schema_of({**own, **found, **({_FOUND: bool} if how == "inner" else {})})
        finder = _Finder(self, keys, tuple(own), tuple(columns.values()), how == "inner")
        name = f"enrich(lookup({function_name(self._function)}), on={', '.join(keys)})"
        if self._policy is None:
            raw = stream._raw.map_batches(name, BatchAdapter(finder.call), schema._raw, None)
        else:
            from millstream._async import AsyncBatchAdapter, Policy

            # Tries are those of the function, not of the whole batch.
            once = Policy(None, 0, (), 1, 1)
            adapter = AsyncBatchAdapter(finder.call_async, once)
            raw = stream._raw.map_async(name, adapter, schema._raw, self._capacity, self._batch_rows, True)
        if how != "inner":
            return Stream(raw)
        return Stream(raw).filter(col(_FOUND)).drop(_FOUND)


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

    def __init__(self, rows_max: int, ttl_us: int | None) -> None:
        self._rows_max = rows_max
        self._seconds = None if ttl_us is None else ttl_us / 1e6
        self._records: collections.OrderedDict[Any, tuple[float, Any]] = collections.OrderedDict()
        # Tasks of the engine share it where the function is a plain one.
        self._lock = threading.Lock()

    def take(self, keys: Sequence[Any]) -> tuple[dict[Any, Any], list[Any]]:
        """Return the records that are known, and the keys that are not."""
        known: dict[Any, Any] = {}
        unknown: list[Any] = []
        now = time.monotonic()
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


class _Finder:
    """Finds what belongs to the records of a batch."""

    def __init__(
        self, lookup: Lookup, keys: tuple[str, ...], own: tuple[str, ...], found: tuple[str, ...], is_inner: bool
    ) -> None:
        self._function = lookup._function
        self._name = function_name(lookup._function)
        self._policy = lookup._policy
        self._schema = lookup._schema
        self._cache = _Cache(lookup._cache, lookup._ttl_us)
        self._keys = keys
        self._row = row_class(keys) if len(keys) > 1 else None
        self._own = own
        self._found = found
        self._is_inner = is_inner

    def call(self, batch: Any) -> Any:
        """Add columns to a batch."""
        keys, known, unknown = self._begin(batch)
        if unknown:
            asked_at = time.monotonic()
            known.update(self._take(unknown, self._function(list(unknown)), asked_at))
        return self._columns(batch, keys, known)

    async def call_async(self, batch: Any) -> Any:
        """Add columns to a batch, by an asynchronous function."""
        assert self._policy is not None
        keys, known, unknown = self._begin(batch)
        if unknown:
            asked_at = time.monotonic()
            given = await self._policy.call(self._function, list(unknown))
            known.update(self._take(unknown, given, asked_at))
        return self._columns(batch, keys, known)

    def _begin(self, batch: Any) -> tuple[list[Any], dict[Any, Any], list[Any]]:
        """Return the key of each record, None where a part of it is null; what is known of them; and those to be asked for."""
        columns = [batch[name].to_pylist() for name in self._keys]
        keys: list[Any] = columns[0]
        if self._row is not None:
            make = self._row
            keys = [None if None in values else tuple.__new__(make, values) for values in zip(*columns, strict=True)]
        distinct = [key for key in dict.fromkeys(keys) if key is not None]
        known, unknown = self._cache.take(distinct)
        return keys, known, unknown

    def _take(self, keys: Sequence[Any], given: Any, asked_at: float) -> dict[Any, Any]:
        """Return the record of each key, None where it has none."""
        if isinstance(given, collections.abc.Mapping):
            asked = set(keys)
            unasked = list(itertools.islice((key for key in given if key not in asked), _SHOWN))
            if unasked:
                raise ValueError(f"{self._name} returned records of keys that it was not asked for, such as {unasked!r:.200}")
            records = {key: given.get(key) for key in keys}
        elif isinstance(given, (list, tuple)) and not hasattr(given, "_fields"):
            if len(given) != len(keys):
                raise ValueError(
                    f"{self._name} was asked for {len(keys)} keys and returned {len(given)} records; it returns one or None for each"
                )
            records = dict(zip(keys, given, strict=True))
        else:
            raise TypeError(
                f"{self._name} is called with a list of keys, and returns a dict by key or a list with a record or None for each, "
                f"not {type(given).__name__}"
            )
        self._cache.put(records, asked_at)
        return records

    def _columns(self, batch: Any, keys: Sequence[Any], records: Mapping[Any, Any]) -> Any:
        import pyarrow as pa

        places: dict[Any, int] = {}
        found: list[Any] = []
        for key, record in records.items():
            if record is not None:
                places[key] = len(found)
                found.append(record)
        table = Table(rows_to_table(self._schema._raw, found)).to_arrow()
        rows = pa.array([None if key is None else places.get(key) for key in keys], type=pa.int64())
        columns: dict[str, Any] = {name: batch[name] for name in self._own}
        for name, result in zip(self._schema.names, self._found, strict=True):
            columns[result] = table[name].combine_chunks().take(rows)
        if self._is_inner:
            columns[_FOUND] = rows.is_valid()
        return columns


def lookup(
    function: Callable[[list[Any]], Any],
    *,
    schema: SchemaLike = None,
    cache: int = 10_000,
    ttl: Duration | None = "1m",
    batch_rows: int = 1024,
    capacity: int = 8,
    timeout: Duration | None = None,
    retries: int = 0,
    retry_on: RetryOn = Exception,
    backoff: Duration = "100ms",
    backoff_max: Duration = "10s",
) -> Lookup:
    """Return a look-up by a function, for :meth:`Stream.enrich`.

    Parameters
    ----------
    function
        A plain or an ``async def`` function. It is called with a list of keys, each of them once and none of them null: values of
        the column ``on``, or rows of several columns. It returns a dict of records by key, or a list with a record for each
        key. A key that is missing, or whose record is None, has no match. A record is a dict, a tuple, a dataclass, or a plain
        value for a schema of one column.
    schema
        The columns of a record; by default those of the annotation, as in ``-> dict[int, User]``.
    cache
        How many keys are remembered with their records, those of no match among them. The least recently used one is forgotten
        first. 0: none is.
    ttl
        For how long a key is remembered. None: until others take its place.
    batch_rows, capacity, timeout, retries, retry_on, backoff, backoff_max
        Of an asynchronous function, as of :meth:`Stream.map_batches_async`. A time-out and tries are those of a call.

    Returns
    -------
    Lookup
        What ``enrich`` takes.

    Raises
    ------
    PlanError
        When it is no function, a number or duration is none, or a plain function is given what only an asynchronous one can have.
    SchemaError
        When the columns are not known.

    Notes
    -----
    What is found depends on when it is looked up: a job that goes on after a failure may find something else for a record whose
    results were not in the last checkpoint. A table that is part of the job, ``enrich(table)``, does not have this.

    The cache is one for all tasks of the step in a process, and is no state.

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
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PlanError(f"lookup() takes a function that returns a dict or a list, and {function_name(function)} is a generator")
    given = schema_of(schema) if schema is not None else _annotated(function)
    if given is None:
        name = function_name(function)
        raise SchemaError(
            f"the columns that {name} finds are not known; say lookup({name}, schema=…) or annotate it, as in -> dict[int, User]"
        )
    if not given.names:
        raise PlanError("lookup() needs a schema with at least one column")
    size = count(cache, "lookup(): cache= is a number of keys", 0, _CACHE_MAX)
    ttl_us = None if ttl is None else microseconds(ttl, "lookup(): ttl")
    if ttl_us is not None and ttl_us <= 0:
        raise PlanError(f"lookup(): ttl= is more than zero, not {ttl!r:.80}; cache=0 remembers nothing")
    rows = count(batch_rows, "lookup(): batch_rows= is a number of records of at least 1", 1)
    calls = _capacity(method, capacity)
    # Only who uses it pays for asyncio when the package is imported.
    from millstream._async import is_async

    policy: Policy | None = _policy(method, timeout, retries, retry_on, backoff, backoff_max)
    if not is_async(function):
        if timeout is not None or retries:
            name = function_name(function)
            raise PlanError(f"lookup(): timeout= and retries= are for async def functions, and {name} is a plain one")
        policy = None
    return Lookup(function, given, size, ttl_us, rows, calls, policy)


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
    """Go through the kinds that a value may be of: those of ``User | None``."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union or type(hint).__name__ == "UnionType":
        yield from arguments
    else:
        yield hint
