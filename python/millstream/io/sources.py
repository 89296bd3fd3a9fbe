"""Sources of your own, and how the engine reads sources that are written in Python."""

from __future__ import annotations

import collections.abc
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from millstream import _live
from millstream._closing import closed
from millstream._engine import RawStream
from millstream._foreign import check_frame
from millstream.errors import PlanError
from millstream.stream import Stream
from millstream.types import SchemaLike, schema_of

__all__ = ["Source", "SourceReader", "from_source"]

_QUICK_SECONDS = 0.002
_SLOW_SECONDS = 0.010
_PAUSE_SECONDS_MIN, _PAUSE_SECONDS_MAX = 0.001, 0.1


class SourceReader(ABC):
    """Reads one partition of a :class:`Source`.

    Examples
    --------
    >>> class Countdown(mill.SourceReader):
    ...     def __init__(self, n):
    ...         self.n = n
    ...     def next_batch(self):
    ...         if self.n == 0:
    ...             return None
    ...         self.n -= 1
    ...         return [{"n": self.n}]
    ...     def position(self):
    ...         return self.n
    >>> reader = Countdown(2)
    >>> reader.next_batch(), reader.position()
    ([{'n': 1}], 1)
    """

    @abstractmethod
    def next_batch(self) -> Any:
        """Return the next records.

        Returns
        -------
        list of records, Arrow batch, or None
            Records as :func:`from_iter` takes them, or anything with an Arrow interface. An empty list means that there is
            nothing now, None that the partition has ended.

        Notes
        -----
        Return an empty list rather than wait for long. A job that ends leaves a reader between two calls. A call that does
        not return keeps its thread, and what it returns later is lost.
        """

    @abstractmethod
    def position(self) -> Any:
        """Return the position of the reader, after all records that it has returned.

        Returns
        -------
        object
            Anything that JSON can hold: a number, a string, a list, a dict. It is stored in each checkpoint.
        """

    def close(self) -> None:
        """Release what the reader holds.

        It is called once, when the partition or the job ends, however it ends, and before a restart. An exception is logged
        as a warning.
        """


class Source(ABC):
    """A source of your own: subclass it, and read it with :func:`from_source`.

    Attributes
    ----------
    schema
        The columns, in any of the forms that a schema can have.
    is_bounded : bool
        Whether it ends; by default True.
    is_replayable : bool
        Whether a reader that is opened at a position returns the same records again; by default True. Exactly-once and
        at-least-once need it.

    Examples
    --------
    >>> class Countdown(mill.Source):
    ...     schema = {"n": int}
    ...     def partitions(self):
    ...         return ["only"]
    ...     def open(self, partition, position):
    ...         return CountdownReader(3 if position is None else position)
    >>> class CountdownReader(mill.SourceReader):
    ...     def __init__(self, n):
    ...         self.n = n
    ...     def next_batch(self):
    ...         if self.n == 0:
    ...             return None
    ...         self.n -= 1
    ...         return [{"n": self.n}]
    ...     def position(self):
    ...         return self.n
    >>> mill.from_source(Countdown()).collect().to_pylist()
    [{'n': 2}, {'n': 1}, {'n': 0}]
    """

    schema: SchemaLike
    is_bounded: bool = True
    is_replayable: bool = True

    def partitions(self) -> Sequence[str]:
        """Return the names of the partitions.

        Returns
        -------
        sequence of str
            Unique names, the same in every run. Partitions are read in parallel, and each has its own order and watermark.
        """
        return ["0"]

    @abstractmethod
    def open(self, partition: str, position: Any | None) -> SourceReader:
        """Open a partition.

        Parameters
        ----------
        partition
            The name of the partition.
        position
            What :meth:`SourceReader.position` of an earlier reader returned, to continue there. None at the start.

        Returns
        -------
        SourceReader
            A reader whose first record is the one after the position.
        """


def from_source(source: Source) -> Stream:
    """Read a source of your own.

    Parameters
    ----------
    source
        An object of your subclass of :class:`Source`.

    Raises
    ------
    PlanError
        When it is not such an object, or has no ``schema``.
    SchemaError
        When its ``schema`` is not a schema.
    ConnectorError
        When the job runs and the source raises; the exception is its ``__cause__``.

    Examples
    --------
    >>> class Once(mill.SourceReader):
    ...     def __init__(self, position):
    ...         self.place = position or 0
    ...     def next_batch(self):
    ...         self.place += 1
    ...         return [{"n": 7}] if self.place == 1 else None
    ...     def position(self):
    ...         return self.place
    >>> class Seven(mill.Source):
    ...     schema = {"n": int}
    ...     def open(self, partition, position):
    ...         return Once(position)
    >>> mill.from_source(Seven()).collect().to_pylist()
    [{'n': 7}]
    """
    if not isinstance(source, Source):
        hint = "; pass an object, not the class" if isinstance(source, type) else ""
        raise PlanError(f"from_source() takes a mill.Source, not {source!r:.200}{hint}")
    name = type(source).__name__
    schema = getattr(source, "schema", None)
    if schema is None:
        raise PlanError(f"{name} declares no columns; set its attribute schema")
    adapter = _SourceAdapter(source)
    return Stream(RawStream.from_python(adapter, name, schema_of(schema)._raw, source.is_bounded, source.is_replayable))


Answer = tuple[str, Any, bytes]


class _SourceAdapter:
    """A source of the user's as the engine calls it."""

    __slots__ = ("_source",)

    def __init__(self, source: Source) -> None:
        self._source = source

    def splits(self) -> list[str]:
        """Return the names of the partitions."""
        names = self._source.partitions()
        verb = f"{type(self._source).__name__}.partitions()"
        if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
            raise PlanError(f"{verb} returns the names of the partitions as a list, not {names!r:.200}; write [{names!r:.200}]")
        names = list(names)
        for name in names:
            if not isinstance(name, str):
                raise PlanError(f"{verb}: the name of a partition is a text, not {name!r:.200}")
        if len(set(names)) != len(names):
            raise PlanError(f"{type(self._source).__name__}.partitions() returns a name twice: {names}")
        return names

    def open(self, split: str, position: bytes | None) -> _ReaderAdapter:
        """Open a partition."""
        import json

        start = None if position is None else json.loads(position)
        return _ReaderAdapter(self._source.open(split, start), type(self._source).__name__)


class _ReaderAdapter:
    """A reader of the user's as the engine calls it; its batches are cut to the size asked for."""

    __slots__ = ("_is_done", "_name", "_pause", "_reader", "_where")

    def __init__(self, reader: SourceReader, name: str) -> None:
        self._reader = reader
        self._name = name
        self._pause = _PAUSE_SECONDS_MIN
        self._is_done = False

    def next(self, rows_max: int) -> Answer:
        """Return the next records, and the reader's position after them."""
        _live.check()
        given = None if self._is_done else self._reader.next_batch()
        if given is None:
            if not self._is_done:
                self._is_done = True
                self._where = self._position()
            return "end", None, self._where
        position = self._position()
        if hasattr(given, "__arrow_c_array__") or hasattr(given, "__arrow_c_stream__"):
            check_frame(given, "next_batch()")
            self._pause = _PAUSE_SECONDS_MIN
            return "arrow", given, position
        if isinstance(given, (str, bytes, collections.abc.Mapping)) or not isinstance(given, Iterable):
            raise TypeError(f"next_batch() returns a list of records, an Arrow batch, or None at the end, not {given!r:.200}")
        rows = list(given)
        if not rows:
            pause, self._pause = self._pause, min(self._pause * 2, _PAUSE_SECONDS_MAX)
            return "pending", pause, position
        self._pause = _PAUSE_SECONDS_MIN
        return "rows", rows, position

    def close(self) -> None:
        """Release what the reader holds."""
        closed(self._reader.close, self._name)

    def _position(self) -> bytes:
        import json

        position = self._reader.position()
        try:
            return json.dumps(position).encode()
        except TypeError as error:
            raise TypeError(f"position() returns something that JSON can hold (a number, a text, a list, a dict), not {position!r:.200}") from error


class IterableAdapter:
    """An iterable as a source with one partition, whose position is the number of records that it has returned."""

    __slots__ = ("_close", "_name", "_open")

    def __init__(self, name: str, open: Callable[[int], Iterable[Any]], close: Callable[[], object] | None = None) -> None:
        self._name = name
        self._open = open
        self._close = close

    def splits(self) -> list[str]:
        """Return the one partition."""
        return ["0"]

    def open(self, split: str, position: bytes | None) -> _IterableReader:
        """Open it after the records that an earlier run has read."""
        start = 0 if position is None else int.from_bytes(position, "little")
        records = iter(self._open(start))
        return _IterableReader(self._name, records, start, self._close or getattr(records, "close", None))


class _IterableReader:
    """Takes records in chunks that grow while records arrive quickly, so that slow ones are passed on one by one."""

    __slots__ = ("_chunk", "_close", "_given", "_name", "_records")

    def __init__(self, name: str, records: Iterator[Any], given: int, close: Callable[[], object] | None) -> None:
        self._name = name
        self._records = records
        self._given = given
        self._close = close
        self._chunk = 1

    def next(self, rows_max: int) -> Answer:
        """Return the next records and how many there were with them."""
        wanted = max(1, min(self._chunk, rows_max))
        began = time.perf_counter()
        _live.check()
        rows = list(itertools.islice(self._records, wanted))
        took = time.perf_counter() - began
        if took < _QUICK_SECONDS:
            self._chunk = min(self._chunk * 4, 1 << 16)
        elif took > _SLOW_SECONDS:
            self._chunk = max(1, self._chunk // 4)
        self._given += len(rows)
        position = self._given.to_bytes(8, "little")
        return ("rows", rows, position) if rows else ("end", None, position)

    def close(self) -> None:
        """Release the iterable, so that a generator's ``finally`` runs."""
        if self._close is not None:
            closed(self._close, self._name)
