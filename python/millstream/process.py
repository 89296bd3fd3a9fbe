"""Functions of records and timers with state for each key: what :meth:`KeyedStream.process` calls.

A :class:`ProcessFunction` gets the records of each key in their order. It declares its states in its class body; the engine
keeps them as typed columns in its checkpoints. A timer calls the function later, by event time or by the clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, overload

from millstream._engine import RawSchema, rows_to_table
from millstream._parameters import check_parameters
from millstream._row import Row
from millstream.errors import PlanError, SchemaError
from millstream.time import Duration, microseconds
from millstream.types import DataType, TypeLike, data_type

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ListState",
    "MapState",
    "ProcessContext",
    "ProcessFunction",
    "ReducingState",
    "Timers",
    "ValueState",
]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

Clock = Literal["event", "processing"]
"""What the age of a value goes by."""
Refresh = Literal["write", "read"]
"""What makes a value young again."""

_MIGRATES_NOTHING, _MIGRATES_ADDED_FIELDS, _MIGRATES_ALL = range(3)
"""Which other types of a checkpoint a state takes values of, as the engine counts: none, those with fewer fields, all."""


class State(ABC):
    """State that a process function keeps for each key; declared in its class body."""

    kind = "state"
    _how_to_set = "write self.{}.value = …"

    def __init__(
        self,
        ttl: Duration | None,
        clock: Clock,
        refresh: Refresh,
        *,
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        if clock not in ("event", "processing"):
            raise PlanError(f'the clock of a state is "event" or "processing", not {clock!r:.40}')
        if refresh not in ("write", "read"):
            raise PlanError(f'refresh of a state is "write" or "read", not {refresh!r:.40}')
        self._ttl = None if ttl is None else microseconds(ttl, "ttl of a state")
        if self._ttl == 0:
            raise PlanError('ttl="0s" would keep nothing; remove ttl=, or the state')
        if broadcast and self._ttl is not None:
            raise PlanError(
                "broadcast state takes no ttl=: the tasks would forget it at different times; delete what is over in "
                "process_broadcast()"
            )
        if migrate is not None:
            _check_plain(migrate, "migrate= of a state takes a function of the old value")
            check_parameters(migrate, "migrate= of a state", "old")
        self._migrate = migrate
        self._is_broadcast = broadcast
        for name, value, default in (("clock", clock, "event"), ("refresh", refresh, "write")):
            if self._ttl is None and value != default:
                raise PlanError(
                    f'{name}="{value}" of a state is about the age of values, and without ttl= they have none; pass ttl=, or remove {name}='
                )
        self._clock: Clock = clock
        self._refresh: Refresh = refresh
        self._names: list[str] = []
        self._owners: list[str] = []

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember the name under which the class declares it."""
        of_class = f"{owner.__module__}.{owner.__name__}"
        if (of_class, name) in zip(self._owners, self._names, strict=True):
            # The class was made again, as a decorator does.
            return
        self._owners.append(of_class)
        self._names.append(name)

    def _migration(self) -> int:
        """Return what becomes of values that a checkpoint has as another type."""
        return _MIGRATES_NOTHING if self._migrate is None else _MIGRATES_ALL

    def _migrated(self, old: Any) -> Any:
        """Return the value of now for one of another type."""
        return None if self._migrate is None else self._migrate(old)

    @abstractmethod
    def _types(self) -> list[tuple[str, DataType]]:
        """Return the suffix of the name of each column, and its type; without the column for the time of writing."""

    def _shown_default(self) -> str | None:
        """Return what is read where nothing is set, as text that is the same in every run; None if that is None or not known."""
        return None

    def _is_list(self) -> bool:
        """Return whether each entry has its own time of writing."""
        return False

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        """Return the state itself on the class; on an object it exists only while a job runs."""
        if instance is None:
            return self
        raise RuntimeError(
            f"state {self._names[0] if self._names else '?'!r} can be used while a job calls process(), on_timer() or on_end(), "
            "not outside of one"
        )


class ValueState(State, Generic[T]):
    """A value for each key.

    ``value`` is the value, or the default where none is set. Setting it to None removes it, as :meth:`clear` does. A value
    that equals the default is kept like any other.

    Parameters
    ----------
    type
        The type of the value, as in a schema.
    default
        What ``value`` returns where none is set.
    ttl
        How long a value can be read after it was written. A value of this age is never returned, and its memory is freed.
    clock
        What the age is measured by: ``"event"`` (the event time of records, and watermarks) or ``"processing"``.
    refresh
        What resets the age: ``"write"``, or ``"read"`` for both. Asking for the number of entries, or whether there is one
        (``len``, ``in``), is no read.

    broadcast
        Whether it belongs to no key, and is the same in every task: written by ``process_broadcast`` alone, as
        :meth:`KeyedStream.process` describes for its ``broadcast=``. It takes no ``ttl``.
    migrate
        A function from the old value to the new one, for a checkpoint in which the state has another type. It is called once,
        when the job continues from it. A wider type (``int32`` to ``int64``, more fields in a struct) needs none.

    Raises
    ------
    PlanError
        When an option is not one of its choices, ``migrate`` is not a plain function, or broadcast state has a ``ttl``.
    SchemaError
        When ``type`` is not a type, or ``default`` is not of this type.

    Examples
    --------
    >>> class Rise(mill.ProcessFunction):
    ...     last = mill.ValueState(int, default=0)
    ...     def process(self, row, ctx):
    ...         yield {"k": ctx.key, "by": row.x - self.last.value}
    ...         self.last.value = row.x
    >>> s = mill.from_iter([{"k": "a", "x": 3}, {"k": "a", "x": 10}])
    >>> s.key_by("k").process(Rise(), schema={"k": str, "by": int}).collect().to_pylist()
    [{'k': 'a', 'by': 3}, {'k': 'a', 'by': 7}]
    """

    kind = "value"
    value: T
    """The value of the key."""

    @overload
    def __init__(
        self,
        type: type[T],
        *,
        default: T,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ValueState[V | None],
        type: type[V],
        *,
        default: None = None,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ValueState[Any],
        type: TypeLike,
        *,
        default: Any = None,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        type: TypeLike,
        *,
        default: Any = None,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(ttl, clock, refresh, broadcast=broadcast, migrate=migrate)
        self._type = data_type(type, place="the type of a ValueState")
        self._default = _as_kept(default, self._type)

    def _migration(self) -> int:
        if self._migrate is None and isinstance(self._default, dict) and repr(self._type).startswith("struct"):
            return _MIGRATES_ADDED_FIELDS
        return super()._migration()

    def _migrated(self, old: Any) -> Any:
        # Fields that the type has more take their values of the default.
        return {**self._default, **old} if self._migrate is None else self._migrate(old)

    def _shown_default(self) -> str | None:
        # Objects of a class may show their address in memory.
        is_plain = repr(self._type) != "object" or isinstance(self._default, bool | int | float | str | bytes)
        return None if self._default is None or not is_plain else f"{self._default!r:.200}"

    def _types(self) -> list[tuple[str, DataType]]:
        return [("", self._type)]

    if TYPE_CHECKING:

        def __get__(self, instance: object | None, owner: type | None = None) -> Self: ...

    def clear(self) -> None:
        """Remove the value; then ``value`` is the default."""
        raise self._outside()

    def _outside(self) -> RuntimeError:
        return RuntimeError("a state can be used while a job calls a process function, not outside of one")


def _check_plain(function: Any, what: str) -> None:
    """Refuse what is no function that returns a value."""
    # That module also serves functions of streams, which this one knows nothing of.
    from millstream.functions import function_name, is_async, is_async_generator, is_generator

    if not callable(function):
        raise PlanError(f"{what}, not {function!r:.200}")
    is_lazy = is_generator(function)
    if is_lazy or is_async(function) or is_async_generator(function):
        raise PlanError(f"{what}, and {function_name(function)} is {'a generator' if is_lazy else 'asynchronous'}")


def _as_kept(default: Any, kind: DataType) -> Any:
    """Return a default as it would be read from a checkpoint: 0 as 0.0 for a float."""
    if default is None or repr(kind) == "object":
        return default
    try:
        kept = rows_to_table(RawSchema([("default", kind)]), [{"default": default}])
    except SchemaError as error:
        # It was converted as a column of its own.
        reason = str(error).removeprefix("record 0: ").replace('column "default"', "the state", 1)
        raise SchemaError(f"a ValueState of {kind!r} cannot have the default {default!r:.200}: {reason}") from None
    return kept.column(0)[0]


class ReducingState(State, Generic[T]):
    """A value for each key that other values are folded into.

    Parameters
    ----------
    type
        The type of the value, as in a schema.
    function
        Takes the value so far and the next one, returns the new one. The first value is taken as it is.
    ttl, clock, refresh
        As for :class:`ValueState`.
    migrate
        A function from the old value to the new one, for a checkpoint in which the state has another type. It is called once,
        when the job continues from it. A wider type (``int32`` to ``int64``, more fields in a struct) needs none.

    Raises
    ------
    PlanError
        When ``function`` cannot be called, is asynchronous or a generator, or an option is not one of its choices.
    SchemaError
        When ``type`` is not a type.

    Examples
    --------
    >>> class Highest(mill.ProcessFunction):
    ...     top = mill.ReducingState(int, max)
    ...     def process(self, row, ctx):
    ...         yield {"top": self.top.add(row.x)}
    >>> s = mill.from_iter([{"k": 1, "x": x} for x in (3, 9, 4)])
    >>> s.key_by("k").process(Highest(), schema={"top": int}).collect().to_pylist()
    [{'top': 3}, {'top': 9}, {'top': 9}]
    """

    kind = "reducing"
    _how_to_set = "write self.{0}.add(…), or self.{0}.value = …"

    @overload
    def __init__(
        self,
        type: type[T],
        function: Callable[[T, T], T],
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ReducingState[Any],
        type: TypeLike,
        function: Callable[[Any, Any], Any],
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        type: TypeLike,
        function: Callable[[Any, Any], Any],
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(ttl, clock, refresh, migrate=migrate)
        _check_plain(function, "a ReducingState takes a function of two values")
        check_parameters(function, "a ReducingState", "before", "value")
        self._type = data_type(type, place="the type of a ReducingState")
        self._function = function

    def _types(self) -> list[tuple[str, DataType]]:
        return [("", self._type)]

    if TYPE_CHECKING:

        def __get__(self, instance: object | None, owner: type | None = None) -> Self: ...

        @property
        def value(self) -> T | None:
            """The value of the key; None where nothing was added. Setting it replaces what was added."""

        @value.setter
        def value(self, value: T | None) -> None: ...

        def add(self, value: T) -> T:
            """Fold a value in, and return the result.

            Parameters
            ----------
            value
                The value to fold in.

            Returns
            -------
            object
                The new value of the key.
            """

        def clear(self) -> None:
            """Remove the value."""


class ListState(State, Generic[T]):
    """A list of values for each key, in the order in which they were added.

    All values of a key are passed to the function when the key has a record, so a list is for some hundred values. What
    grows without end belongs into the key, or into a window.

    Parameters
    ----------
    type
        The type of a value, as in a schema.
    ttl, clock, refresh
        As for :class:`ValueState`; each value has its own age.
    migrate
        A function from each old value to the new one, for a checkpoint in which the state has another type. It is called once,
        when the job continues from it. A wider type (``int32`` to ``int64``, more fields in a struct) needs none.

    Raises
    ------
    PlanError
        When an option is not one of its choices, or ``migrate`` is not a plain function.
    SchemaError
        When ``type`` is not a type.

    Examples
    --------
    >>> class Pairs(mill.ProcessFunction):
    ...     items = mill.ListState(int)
    ...     def process(self, row, ctx):
    ...         self.items.add(row.x)
    ...         if len(self.items) == 2:
    ...             yield {"pair": self.items.get()}
    ...             self.items.clear()
    >>> s = mill.from_iter([{"k": 1, "x": x} for x in (3, 9, 4)])
    >>> s.key_by("k").process(Pairs(), schema={"pair": list[int]}).collect().to_pylist()
    [{'pair': [3, 9]}]
    """

    kind = "list"
    _how_to_set = "write self.{0}.add(…), or self.{0}.set(…)"

    @overload
    def __init__(
        self,
        type: type[T],
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ListState[Any],
        type: TypeLike,
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        type: TypeLike,
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(ttl, clock, refresh, migrate=migrate)
        self._type = data_type(type, place="the type of a ListState")

    def _types(self) -> list[tuple[str, DataType]]:
        return [("", DataType.list(self._type))]

    def _is_list(self) -> bool:
        return True

    if TYPE_CHECKING:

        def __get__(self, instance: object | None, owner: type | None = None) -> Self: ...

        def get(self) -> list[T]:
            """Return a copy of the values as a list."""

        def add(self, value: T) -> None:
            """Append a value.

            Parameters
            ----------
            value
                The value.
            """

        def extend(self, values: Iterable[T]) -> None:
            """Append several values.

            Parameters
            ----------
            values
                The values.
            """

        def set(self, values: Iterable[T]) -> None:
            """Replace all values.

            Parameters
            ----------
            values
                The new values.
            """

        def clear(self) -> None:
            """Remove all values."""

        def __iter__(self) -> Iterator[T]: ...
        def __len__(self) -> int: ...
        @overload
        def __getitem__(self, place: int) -> T: ...
        @overload
        def __getitem__(self, place: slice) -> list[T]: ...
        def __getitem__(self, place: int | slice) -> T | list[T]: ...
        def __contains__(self, value: object) -> bool: ...


if TYPE_CHECKING:

    class _MapBase(State, MutableMapping[K, V]):
        pass

else:

    class _MapBase(State, Generic[K, V]):
        pass


class MapState(_MapBase[K, V], Generic[K, V]):
    """A mapping of entry keys to values for each key; it is used as a ``dict``.

    All entries of a key are passed to the function when the key has a record, so a map is for some hundred entries.

    Parameters
    ----------
    key
        The type of an entry key, as in a schema: not a list, a struct or ``object``. All NaN are one key, and so are
        ``-0.0`` and ``0.0``.
    value
        The type of a value. A value that was read and changed in place has to be set again.
    ttl, clock, refresh
        As for :class:`ValueState`; each entry has its own age.

    broadcast
        Whether it belongs to no key, and is the same in every task: written by ``process_broadcast`` alone, as
        :meth:`KeyedStream.process` describes for its ``broadcast=``. It takes no ``ttl``.
    migrate
        A function from each old value to the new one, for a checkpoint in which the state has another type; entry keys stay. It
        is called once, when the job continues from it. A wider type (``int32`` to ``int64``, more fields in a struct) needs none.

    Raises
    ------
    PlanError
        When ``key`` is not a plain type, an option is not one of its choices, ``migrate`` is not a plain
        function, or broadcast state has a ``ttl``.
    SchemaError
        When ``key`` or ``value`` is not a type.

    Examples
    --------
    >>> class Counts(mill.ProcessFunction):
    ...     seen = mill.MapState(str, int)
    ...     def process(self, row, ctx):
    ...         self.seen[row.page] = self.seen.get(row.page, 0) + 1
    ...         yield {"page": row.page, "n": self.seen[row.page]}
    >>> s = mill.from_iter([{"user": "ann", "page": page} for page in "aba"])
    >>> s.key_by("user").process(Counts(), schema={"page": str, "n": int}).collect().to_pylist()
    [{'page': 'a', 'n': 1}, {'page': 'b', 'n': 1}, {'page': 'a', 'n': 2}]
    """

    kind = "map"
    _how_to_set = "write self.{0}[key] = …, or self.{0}.update(…)"

    @overload
    def __init__(
        self,
        key: type[K],
        value: type[V],
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: MapState[Any, Any],
        key: TypeLike,
        value: TypeLike,
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None: ...
    def __init__(
        self,
        key: TypeLike,
        value: TypeLike,
        *,
        ttl: Duration | None = None,
        clock: Clock = "event",
        refresh: Refresh = "write",
        broadcast: bool = False,
        migrate: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(ttl, clock, refresh, broadcast=broadcast, migrate=migrate)
        self._key = data_type(key, place="the key of a MapState")
        name = repr(self._key)
        if name == "object" or "[" in name and not name.startswith(("timestamp", "duration", "decimal", "time")):
            raise PlanError(f"the key of a MapState is a plain value such as str or int, not {name}")
        self._value = data_type(value, place="the value of a MapState")

    def _types(self) -> list[tuple[str, DataType]]:
        return [("", DataType.list(self._value)), ("@keys", DataType.list(self._key))]

    def _is_list(self) -> bool:
        return True

    if TYPE_CHECKING:

        def __get__(self, instance: object | None, owner: type | None = None) -> Self: ...
        def __getitem__(self, key: K) -> V: ...
        def __setitem__(self, key: K, value: V) -> None: ...
        def __delitem__(self, key: K) -> None: ...
        def __iter__(self) -> Iterator[K]: ...
        def __len__(self) -> int: ...


class Timers(Protocol):
    """The timers of a key, as ``ctx.timers``.

    They are a set: a key has at most one timer for each clock and time. A timer that is set for a time already passed fires
    at the next watermark.

    Examples
    --------
    >>> from datetime import datetime, timedelta
    >>> class Remind(mill.ProcessFunction):
    ...     def process(self, row, ctx):
    ...         ctx.timers.event_time(row.at + timedelta(minutes=5))
    ...     def on_timer(self, at, ctx):
    ...         yield {"minute": at.minute}
    >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1, 0, 7)}]).event_time("at")
    >>> s.key_by("k").process(Remind(), schema={"minute": int}).collect()["minute"]
    [12]
    """

    def event_time(self, at: datetime) -> None:
        """Set a timer by event time: ``on_timer`` is called once no record of this time or an earlier one can follow.

        Parameters
        ----------
        at
            The time, with or without a zone as the event time of the stream.
        """

    def processing_time(self, at: datetime) -> None:
        """Set a timer by processing time: ``on_timer`` is called when the clock has reached this time.

        Parameters
        ----------
        at
            The time, with a zone, as ``ctx.now`` has one.
        """

    def delete_event_time(self, at: datetime) -> None:
        """Delete a timer by event time, if there is one.

        Parameters
        ----------
        at
            The time for which it was set.
        """

    def delete_processing_time(self, at: datetime) -> None:
        """Delete a timer by processing time, if there is one.

        Parameters
        ----------
        at
            The time for which it was set.
        """


class ProcessContext(Protocol):
    """The record or timer that a process function is called for, and what the function can do besides returning records.

    Examples
    --------
    >>> class Show(mill.ProcessFunction):
    ...     def process(self, row, ctx):
    ...         yield {"key": ctx.key, "timed": ctx.timestamp is not None}
    >>> s = mill.from_iter([{"k": 1}])
    >>> s.key_by("k").process(Show(), schema={"key": int, "timed": bool}).collect().to_pylist()
    [{'key': 1, 'timed': False}]
    """

    @property
    def key(self) -> Any:
        """The key: its value, or a :class:`Row` of several columns."""

    @property
    def timestamp(self) -> datetime | None:
        """The event time of the record or timer; None without event time.

        A time that no ``datetime`` can hold, before year 1 or after 9999, is a :class:`DataError` of the record.
        """

    @property
    def watermark(self) -> datetime | None:
        """The watermark: None before the first one, ``datetime.max`` when the input has ended.

        A watermark before year 1 is ``datetime.min``, one after 9999 ``datetime.max``.
        """

    @property
    def now(self) -> datetime:
        """The processing time, in UTC."""

    @property
    def broadcast(self) -> Mapping[Any, Row]:
        """The latest row of each key of ``broadcast=``, by the key, where the function has no ``process_broadcast``.

        A key of several columns is a tuple of their values.
        """

    @property
    def timers(self) -> Timers:
        """The timers of the key."""

    @property
    def timer(self) -> Clock | None:
        """The clock of the timer that ``on_timer`` is called for; None in ``process`` and ``on_end``."""

    @property
    def is_draining(self) -> bool:
        """Whether the input has ended, so that all timers fire at once."""

    def side_output(self, name: str, row: Any) -> None:
        """Emit a record to a side output.

        Parameters
        ----------
        name
            The name of the output, as declared in ``side_outputs``.
        row
            The record.
        """


class ProcessFunction:
    """A function of the records and timers of each key, with state; for :meth:`KeyedStream.process`.

    Subclass it, declare states in the class body, and define :meth:`process`. Each parallel task works with a deep copy of
    the object; open what cannot be copied, such as a connection, in :meth:`open`. Methods yield records, or return a list
    of them, or None.

    Notes
    -----
    If a call fails, its state changes, timers and results are discarded, and ``on_error`` decides what happens to the
    record. After that, earlier records may be passed to the function again, so keep what the function remembers in states
    and nowhere else.

    Examples
    --------
    >>> from datetime import datetime, timedelta
    >>> class Quiet(mill.ProcessFunction):
    ...     last = mill.ValueState(datetime)
    ...     def process(self, row, ctx):
    ...         self.last.value = ctx.timestamp
    ...         ctx.timers.event_time(ctx.timestamp + timedelta(minutes=10))
    ...     def on_timer(self, at, ctx):
    ...         if at - self.last.value == timedelta(minutes=10):
    ...             yield {"user": ctx.key, "since": self.last.value}
    >>> visits = [("ann", 0), ("bob", 2), ("ann", 5)]
    >>> s = mill.from_iter([{"user": user, "at": datetime(2024, 1, 1, 0, minute)} for user, minute in visits])
    >>> quiet = s.event_time("at").key_by("user").process(Quiet(), schema={"user": str, "since": datetime})
    >>> sorted((row["user"], row["since"].minute) for row in quiet.collect().to_pylist())
    [('ann', 5), ('bob', 2)]
    """

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            """Refuse to replace a state by a value, which all keys would share."""
            state = getattr(type(self), name, None)
            if isinstance(state, State):
                raise AttributeError(f"{name!r} is a state; {state._how_to_set.format(name)}", name=name, obj=self)
            object.__setattr__(self, name, value)

    def process(self, row: Any, ctx: ProcessContext) -> Iterable[Any] | None:
        """Process a record; the records of a key arrive in their order.

        Parameters
        ----------
        row
            The record, a :class:`Row`.
        ctx
            The key, the times and the timers: a :class:`ProcessContext`.

        Returns
        -------
        iterable or None
            The records to emit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no process(row, ctx)")

    def process_left(self, row: Any, ctx: ProcessContext) -> Iterable[Any] | None:
        """Process a record of the first of two connected streams, instead of :meth:`process`.

        Parameters
        ----------
        row
            The record, a :class:`Row`.
        ctx
            The key, the times and the timers: a :class:`ProcessContext`.

        Returns
        -------
        iterable or None
            The records to emit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no process_left(row, ctx)")

    def process_right(self, row: Any, ctx: ProcessContext) -> Iterable[Any] | None:
        """Process a record of the second of two connected streams, instead of :meth:`process`.

        Parameters
        ----------
        row
            The record, a :class:`Row`.
        ctx
            The key, the times and the timers: a :class:`ProcessContext`.

        Returns
        -------
        iterable or None
            The records to emit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no process_right(row, ctx)")

    def process_broadcast(self, row: Any, ctx: ProcessContext) -> None:
        """Process a record of the ``broadcast=`` stream, in every task; it writes broadcast state and emits nothing.

        Parameters
        ----------
        row
            The record, a :class:`Row`.
        ctx
            Its ``timestamp``; the record is of no key, and what may differ between tasks is not there.
        """
        raise NotImplementedError(f"{type(self).__name__} has no process_broadcast(row, ctx)")

    def on_timer(self, at: datetime, ctx: ProcessContext) -> Iterable[Any] | None:
        """Process a timer that is due; timers fire in order of time.

        Parameters
        ----------
        at
            The time for which it was set.
        ctx
            The key, the times and the timers: a :class:`ProcessContext`.

        Returns
        -------
        iterable or None
            The records to emit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no on_timer(at, ctx)")

    def on_end(self, ctx: ProcessContext) -> Iterable[Any] | None:
        """Process the end of the input: called once for each key that still has state, after its timers.

        Parameters
        ----------
        ctx
            The key, the times and the timers: a :class:`ProcessContext`.

        Returns
        -------
        iterable or None
            The records to emit.
        """
        raise NotImplementedError(f"{type(self).__name__} has no on_end(ctx)")

    def open(self) -> None:
        """Prepare this copy, before its first record. States belong to keys, so they cannot be used here."""

    def close(self) -> None:
        """Release what :meth:`open` has opened, when the job ends.

        An exception is logged as a warning, since the outcome of the job is decided. States cannot be used here.
        """
