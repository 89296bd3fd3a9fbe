"""Streams with a key, and their windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from millstream._engine import RawKeyedStream, RawWindowedStream
from millstream.errors import PlanError
from millstream.expr import Expr
from millstream.functions import FoldAdapter, check_callable, function_name
from millstream.stream import Stream, _columns
from millstream.time import Duration, microseconds
from millstream.window import Window

__all__ = ["KeyedStream", "WindowedStream"]

Emit = Literal["end", "checkpoint", "each"] | Duration | None
"""When an aggregate without windows gives results."""


def _emit(emit: Emit) -> tuple[str, int | None]:
    if emit is None:
        return "default", None
    if emit in ("end", "checkpoint", "each"):
        return str(emit), None
    interval = microseconds(emit, "emit")
    if interval == 0:
        raise PlanError('emit="0s" leaves no time between results; use emit="each"')
    return "every", interval


class KeyedStream:
    """A stream grouped by a key; made by :meth:`Stream.key_by`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: RawKeyedStream) -> None:
        self._raw = raw

    def __repr__(self) -> str:
        """Show the key."""
        return f"<KeyedStream by {', '.join(self.keys)}>"

    @property
    def keys(self) -> list[str]:
        """The columns of the key."""
        return self._raw.keys()

    def agg(self, *aggregates: Expr, emit: Emit = None, **named: Expr) -> Stream:
        """Aggregate the records of each key.

        Parameters
        ----------
        *aggregates
            Aggregates, each named by its column.
        emit
            When results are given: ``"end"`` (each key once), an interval such as ``"1s"``, ``"checkpoint"`` or
            ``"each"`` (at each record). By default ``"end"`` on bounded and ``"1s"`` on unbounded input. All but
            ``"end"`` make an updating stream: the latest row of a key counts.
        **named
            Aggregates by the name of their column.

        Examples
        --------
        >>> s = mill.from_iter([{"k": "a", "x": 1}, {"k": "a", "x": 4}])
        >>> s.key_by("k").agg(col("x").max(), n=mill.count(), mean=col("x").mean()).collect().to_pylist()
        [{'k': 'a', 'x': 4, 'n': 2, 'mean': 2.5}]
        """
        name, interval = _emit(emit)
        return Stream(self._raw.agg(_columns(aggregates, named, "agg"), name, interval))

    def reduce(self, function: Callable[[Any, Any], Any], *, emit: Emit = None) -> Stream:
        """Fold the records of each key with a function of the record so far and the next one.

        Parameters
        ----------
        function
            Takes two rows, gives a record with the same columns.
        emit
            As of :meth:`agg`.

        Examples
        --------
        >>> s = mill.from_iter([{"k": 1, "x": 2}, {"k": 1, "x": 5}])
        >>> s.key_by("k").reduce(lambda a, b: {"k": a.k, "x": a.x + b.x}).collect().to_pylist()
        [{'k': 1, 'x': 7}]
        """
        check_callable(function, "reduce")
        name, interval = _emit(emit)
        fields = tuple(self._raw.stream().schema().names())
        adapter = FoldAdapter(function, fields)
        return Stream(self._raw.reduce(f"reduce({function_name(function)})", adapter, name, interval))

    def window(self, window: Window, *, allowed_lateness: Duration = "0s") -> WindowedStream:
        """Cut the records of each key into windows of event time.

        Parameters
        ----------
        window
            The windows: :func:`tumbling`, :func:`sliding` or :func:`cumulative`.
        allowed_lateness
            How long after its end a window still takes records; its one result comes after that.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1, 0, 0, 7)}]).event_time("at")
        >>> s.key_by("k").window(mill.tumbling("10s")).agg(n=mill.count()).select("window_start", "n").collect().to_pylist()
        [{'window_start': datetime.datetime(2024, 1, 1, 0, 0), 'n': 1}]
        """
        if not isinstance(window, Window):
            verb = "window" if self.keys else "window_all"
            raise PlanError(f'{verb}() takes a window such as mill.tumbling("10s"), not {window!r:.200}')
        return WindowedStream(self._raw.window(window._raw(), microseconds(allowed_lateness, "allowed_lateness")))


class WindowedStream:
    """A keyed stream cut into windows; made by :meth:`KeyedStream.window`."""

    __slots__ = ("_raw",)

    def __init__(self, raw: RawWindowedStream) -> None:
        self._raw = raw

    def agg(self, *aggregates: Expr, **named: Expr) -> Stream:
        """Aggregate the records of each key and window.

        A window gives one row when the watermark has passed its end and the allowed lateness: the key, ``window_start``
        and ``window_end`` (half-open), and the aggregates. What came too late is in ``.late`` of the result.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1)}]).event_time("at")
        >>> s.key_by("k").window(mill.tumbling("1h")).agg(n=mill.count()).schema.names
        ['k', 'window_start', 'window_end', 'n']
        """
        return Stream(self._raw.agg(_columns(aggregates, named, "agg")))
