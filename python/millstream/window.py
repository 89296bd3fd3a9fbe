"""Windows: which records are aggregated together."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from datetime import datetime

from millstream._engine import RawWindow
from millstream.errors import PlanError
from millstream.expr import Expr
from millstream.time import Duration, microseconds

__all__ = [
    "CountWindow",
    "CumulativeWindow",
    "GlobalWindow",
    "SessionWindow",
    "SlidingWindow",
    "TumblingWindow",
    "Window",
    "WindowBounds",
    "count_window",
    "cumulative",
    "global_window",
    "session",
    "sliding",
    "tumbling",
]


def _length(duration: Duration, what: str) -> int:
    length = microseconds(duration, f"{what} of a window")
    if length == 0:
        raise PlanError(f"the {what} of a window must be more than nothing")
    return length


def _offset(duration: Duration) -> int:
    return microseconds(duration, "offset of a window", is_negative_allowed=True)


class Window:
    """Windows of any kind; made by :func:`tumbling`, :func:`sliding`, :func:`session` and the others.

    Examples
    --------
    >>> isinstance(mill.tumbling("1m"), mill.Window)
    True
    """

    def __post_init__(self) -> None:
        """Check the parameters."""
        self._raw()

    def _raw(self) -> RawWindow:
        raise PlanError(
            "windows are made by mill.tumbling(), mill.sliding(), mill.cumulative(), mill.session(), mill.count_window() "
            "and mill.global_window()"
        )


@dataclass(frozen=True)
class TumblingWindow(Window):
    """Windows of one size that follow each other; made by :func:`tumbling`.

    Attributes
    ----------
    size
        The length of a window.
    offset
        Windows start at ``offset + n * size`` since 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        When ``size`` is not a duration above zero, or ``offset`` is not a duration.

    Examples
    --------
    >>> mill.tumbling("1m").size
    '1m'
    """

    size: Duration
    offset: Duration = "0s"

    def _raw(self) -> RawWindow:
        return RawWindow.tumbling(_length(self.size, "size"), _offset(self.offset))


@dataclass(frozen=True)
class SlidingWindow(Window):
    """Windows of one size that overlap; made by :func:`sliding`.

    Attributes
    ----------
    size
        The length of a window.
    slide
        The time from the start of one window to the start of the next.
    offset
        Windows start at ``offset + n * slide`` since 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        When ``size`` or ``slide`` is not a duration above zero, ``slide`` is longer than ``size``, or ``offset`` is not a
        duration.

    Examples
    --------
    >>> mill.sliding("1m", slide="10s").slide
    '10s'
    """

    size: Duration
    slide: Duration
    offset: Duration = "0s"

    def _raw(self) -> RawWindow:
        return RawWindow.sliding(_length(self.size, "size"), _length(self.slide, "slide"), _offset(self.offset))


@dataclass(frozen=True)
class CumulativeWindow(Window):
    """Windows that start together and end one step after the other; made by :func:`cumulative`.

    Attributes
    ----------
    step
        How much longer each window is than the one before.
    size
        The length of the longest window.
    offset
        Windows start at ``offset + n * size`` since 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        When ``step`` or ``size`` is not a duration above zero, ``size`` is not a multiple of ``step``, or ``offset`` is not
        a duration.

    Examples
    --------
    >>> mill.cumulative(step="1h", size="1d").step
    '1h'
    """

    step: Duration
    size: Duration
    offset: Duration = "0s"

    def _raw(self) -> RawWindow:
        return RawWindow.cumulative(_length(self.step, "step"), _length(self.size, "size"), _offset(self.offset))


@dataclass(frozen=True)
class SessionWindow(Window):
    """Windows of records that follow each other within a gap; made by :func:`session`.

    Attributes
    ----------
    gap
        How long after its last record a session ends: a duration, or an expression of type duration.

    Raises
    ------
    PlanError
        When ``gap`` is neither a duration above zero nor an expression.

    Examples
    --------
    >>> mill.session("30m").gap
    '30m'
    """

    gap: Duration | Expr

    def _raw(self) -> RawWindow:
        if isinstance(self.gap, Expr):
            return RawWindow.session_each(self.gap._raw)
        try:
            return RawWindow.session(_length(self.gap, "gap"))
        except PlanError as error:
            if isinstance(self.gap, str) and self.gap.isidentifier():
                raise PlanError(f"{error}; for a gap from a column, write session(col({self.gap!r}))") from None
            raise


@dataclass(frozen=True)
class CountWindow(Window):
    """Windows of a number of records; made by :func:`count_window`.

    Attributes
    ----------
    n
        How many records a window has.
    slide
        After how many records the next window starts; None for ``n``.
    partial
        Whether windows that the end of the input leaves incomplete have a result.

    Raises
    ------
    PlanError
        When ``n`` or ``slide`` is not an integer of at least 1, or ``slide`` is greater than ``n``.

    Examples
    --------
    >>> mill.count_window(100).n
    100
    """

    n: int
    slide: int | None = None
    partial: bool = False

    def _raw(self) -> RawWindow:
        n = _rows(self.n, "n")
        if not isinstance(self.partial, bool):
            raise PlanError(f"partial of a count window is True or False, not {self.partial!r:.200}")
        return RawWindow.count(n, n if self.slide is None else _rows(self.slide, "slide"), self.partial)


@dataclass(frozen=True)
class GlobalWindow(Window):
    """One window with all records of a key; made by :func:`global_window`.

    Examples
    --------
    >>> mill.global_window()
    GlobalWindow()
    """

    def _raw(self) -> RawWindow:
        return RawWindow.global_window()


@dataclass(frozen=True)
class WindowBounds:
    """The bounds of a window, as functions of :meth:`WindowedStream.apply` get them.

    Attributes
    ----------
    start
        The first moment of the window.
    end
        The first moment after the window.

    Examples
    --------
    >>> from datetime import datetime
    >>> bounds = mill.WindowBounds(datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 13))
    >>> str(bounds.end - bounds.start)
    '1:00:00'
    """

    start: datetime
    end: datetime


def _rows(number: int, what: str) -> int:
    try:
        rows = operator.index(number)
    except TypeError:
        raise PlanError(f"{what} of a count window is a number of records, not {number!r:.200}") from None
    if not 1 <= rows < 2**63:
        raise PlanError(f"{what} of a count window must be at least one record, found {rows}")
    return rows


def tumbling(size: Duration, offset: Duration = "0s") -> TumblingWindow:
    """Return windows of one size that follow each other without a gap.

    Parameters
    ----------
    size
        The length of a window.
    offset
        Windows start at ``offset + n * size`` since 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        When ``size`` is not a duration above zero, or ``offset`` is not a duration.

    Notes
    -----
    Windows have a fixed length: ``"1d"`` is 24 hours from midnight UTC, also where the event time has a zone. Where the
    clock of that zone changes, such a window does not start at local midnight. For calendar days, use
    ``.dt.truncate("1d")`` of the local time as a key.

    The unit of the event time must be able to hold the bounds: ``tumbling("1500ms")`` over times in seconds is refused.

    Examples
    --------
    >>> from datetime import datetime
    >>> s = mill.from_iter([{"at": datetime(2024, 1, 1, 12, 0, second)} for second in (5, 50, 59)]).event_time("at")
    >>> counts = s.window_all(mill.tumbling("30s")).agg(n=mill.count())
    >>> [(row["window_start"].second, row["n"]) for row in counts.collect().sort("window_start")]
    [(0, 1), (30, 2)]
    """
    return TumblingWindow(size, offset)


def sliding(size: Duration, slide: Duration, offset: Duration = "0s") -> SlidingWindow:
    """Return windows of one size that overlap: a new one starts every ``slide``.

    A record belongs to every window that contains its time. One that is late for some of its windows still counts in the
    others. It is in ``.late`` only if it is late for all of them.

    Parameters
    ----------
    size
        The length of a window.
    slide
        The time from the start of one window to the start of the next. At most the size.
    offset
        Windows start at ``offset + n * slide`` since 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        When ``size`` or ``slide`` is not a duration above zero, ``slide`` is longer than ``size``, or ``offset`` is not a
        duration.

    Notes
    -----
    If all aggregates can be merged (count, sum, mean, min, max, std and var), a record is counted once, in the slice of
    time (pane) that its windows share. Panes are combined by the two-stacks method (Tangwongsan, Hirzel and Schneider,
    2021), at a cost that does not depend on the length of the windows. With any other aggregate in the same ``agg``, a
    record is counted once for each of its windows.

    Examples
    --------
    >>> from datetime import datetime
    >>> at = [datetime(2024, 1, 1, 0, 0, second) for second in (1, 3, 4)]
    >>> s = mill.from_iter([{"k": 1, "at": t} for t in at]).event_time("at")
    >>> per_window = s.key_by("k").window(mill.sliding("4s", slide="2s")).agg(n=mill.count())
    >>> rows = per_window.select(second=col("window_end").dt.second(), n=col("n")).collect().to_pylist()
    >>> sorted((row["second"], row["n"]) for row in rows)
    [(2, 1), (4, 2), (6, 2), (8, 1)]
    """
    return SlidingWindow(size, slide, offset)


def cumulative(step: Duration, size: Duration, offset: Duration = "0s") -> CumulativeWindow:
    """Return windows that start together and end one step after the other, such as the day so far, every hour.

    Parameters
    ----------
    step
        How much longer each window is than the one before.
    size
        The length of the longest window, a multiple of the step. Then the next windows start.
    offset
        Windows start at ``offset + n * size`` since 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        When ``step`` or ``size`` is not a duration above zero, ``size`` is not a multiple of ``step``, or ``offset`` is not
        a duration.

    Examples
    --------
    >>> from datetime import datetime
    >>> at = [datetime(2024, 1, 1, hour) for hour in (0, 1, 3)]
    >>> s = mill.from_iter([{"k": 1, "at": t} for t in at]).event_time("at")
    >>> so_far = s.key_by("k").window(mill.cumulative(step="1h", size="4h")).agg(n=mill.count())
    >>> rows = so_far.select(hour=col("window_end").dt.hour(), n=col("n")).collect().to_pylist()
    >>> sorted((row["hour"], row["n"]) for row in rows)
    [(1, 1), (2, 2), (3, 2), (4, 3)]
    """
    return CumulativeWindow(step, size, offset)


def session(gap: Duration | Expr) -> SessionWindow:
    """Return windows of records that follow each other within a gap, such as a visit or a trip.

    A session is ``[first, last + gap)``. Sessions that only touch stay separate: a record at ``last + gap`` starts a new
    one.

    Parameters
    ----------
    gap
        How long after its last record a session ends; or an expression for a gap per record, of type duration. Then a
        session ends at the latest ``time + gap`` of its records.

    Raises
    ------
    PlanError
        When ``gap`` is neither a duration above zero nor an expression.

    Notes
    -----
    A record is late if it is older than the watermark of its split by more than ``allowed_lateness``. A session is emitted
    when the watermark has reached its end and the allowed lateness. So sessions of a key never overlap, and they depend on
    neither the order of arrival nor the parallelism. (Flink also accepts a late record whose own session would still be
    open, and can then emit sessions that overlap.)

    Every aggregate and function can be used. If all aggregates are among count, sum, mean, min, max, std and var, the state
    has one row for each open session; otherwise it has the records of open sessions. ``first``, ``last`` and ``collect``
    follow event time, ties the order of arrival.

    Examples
    --------
    >>> from datetime import datetime
    >>> at = [datetime(2024, 1, 1, 0, minute) for minute in (0, 10, 50)]
    >>> s = mill.from_iter([{"user": "ann", "at": t} for t in at]).event_time("at")
    >>> visits = s.key_by("user").window(mill.session("30m")).agg(clicks=mill.count())
    >>> rows = visits.select(until=col("window_end").dt.strftime("%H:%M"), clicks=col("clicks")).collect().to_pylist()
    >>> sorted((row["until"], row["clicks"]) for row in rows)
    [('00:40', 2), ('01:20', 1)]
    """
    return SessionWindow(gap)


def count_window(n: int, slide: int | None = None, partial: bool = False) -> CountWindow:
    """Return windows of ``n`` records of a key, in their order of arrival.

    Parameters
    ----------
    n
        How many records a window has.
    slide
        After how many records the next window starts, at most ``n``; by default when the one before is full.
    partial
        Whether windows that the end of the input leaves incomplete have a result.

    Raises
    ------
    PlanError
        When ``n`` or ``slide`` is not an integer of at least 1, or ``slide`` is greater than ``n``.

    Notes
    -----
    Results have no ``window_start`` and ``window_end``, and no event time. Where records of a key come from several splits,
    or through ``union`` or ``rebalance``, their order depends on timing, and so do the windows.

    Examples
    --------
    >>> s = mill.from_iter([{"k": 1, "x": x} for x in range(5)])
    >>> s.key_by("k").window(mill.count_window(2)).agg(total=col("x").sum()).collect().to_pylist()
    [{'k': 1, 'total': 1}, {'k': 1, 'total': 5}]
    >>> s.key_by("k").window(mill.count_window(3, slide=1)).agg(total=col("x").sum()).collect().to_pylist()
    [{'k': 1, 'total': 3}, {'k': 1, 'total': 6}, {'k': 1, 'total': 9}]
    """
    return CountWindow(n, slide, partial)


def global_window() -> GlobalWindow:
    """Return one window with all records of a key; it ends with the input.

    On unbounded input it needs a trigger, such as :func:`on_count`. Results have no ``window_start`` and ``window_end``.

    Examples
    --------
    >>> s = mill.from_iter([{"k": 1, "x": x} for x in range(4)])
    >>> s.key_by("k").window(mill.global_window()).agg(total=col("x").sum()).collect().to_pylist()
    [{'k': 1, 'total': 6}]
    """
    return GlobalWindow()
