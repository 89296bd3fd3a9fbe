"""Windows: which slices of event time belong together."""

from __future__ import annotations

from dataclasses import dataclass

from millstream._engine import RawWindow
from millstream.errors import PlanError
from millstream.time import Duration, microseconds

__all__ = ["CumulativeWindow", "SlidingWindow", "TumblingWindow", "Window", "cumulative", "sliding", "tumbling"]


def _length(duration: Duration, what: str) -> int:
    length = microseconds(duration, f"{what} of a window")
    if length == 0:
        raise PlanError(f"the {what} of a window must be more than nothing")
    return length


def _offset(duration: Duration) -> int:
    return microseconds(duration, "offset of a window", is_negative_allowed=True)


class Window:
    """Windows of any kind; made by :func:`tumbling`, :func:`sliding` and :func:`cumulative`."""

    def __post_init__(self) -> None:
        """Check the durations."""
        self._raw()

    def _raw(self) -> RawWindow:
        raise PlanError("windows are made by mill.tumbling(), mill.sliding() and mill.cumulative()")


@dataclass(frozen=True)
class TumblingWindow(Window):
    """Windows of one size, each beginning where the one before ends; made by :func:`tumbling`."""

    size: Duration
    offset: Duration = "0s"

    def _raw(self) -> RawWindow:
        return RawWindow.tumbling(_length(self.size, "size"), _offset(self.offset))


@dataclass(frozen=True)
class SlidingWindow(Window):
    """Windows of one size that overlap; made by :func:`sliding`."""

    size: Duration
    slide: Duration
    offset: Duration = "0s"

    def _raw(self) -> RawWindow:
        return RawWindow.sliding(_length(self.size, "size"), _length(self.slide, "slide"), _offset(self.offset))


@dataclass(frozen=True)
class CumulativeWindow(Window):
    """Windows that begin together and end one step after the other; made by :func:`cumulative`."""

    step: Duration
    size: Duration
    offset: Duration = "0s"

    def _raw(self) -> RawWindow:
        return RawWindow.cumulative(_length(self.step, "step"), _length(self.size, "size"), _offset(self.offset))


def tumbling(size: Duration, offset: Duration = "0s") -> TumblingWindow:
    """Return windows of one size that follow each other without a gap.

    Parameters
    ----------
    size
        How long a window is.
    offset
        Where windows begin: at ``offset + n * size`` since 1970-01-01.

    Notes
    -----
    Windows have a fixed length: ``"1d"`` is 24 hours, counted from midnight UTC, also where the event time has a zone.
    On the days on which the clocks of that zone change, such a window therefore does not begin at local midnight; for days
    of the calendar, use ``.dt.truncate("1d")`` of the local time as a key.

    The unit of the event time must be able to hold the bounds: ``tumbling("1500ms")`` over times in seconds is refused.

    Examples
    --------
    >>> mill.tumbling("1m")
    TumblingWindow(size='1m', offset='0s')
    """
    return TumblingWindow(size, offset)


def sliding(size: Duration, slide: Duration, offset: Duration = "0s") -> SlidingWindow:
    """Return windows of one size that overlap: one begins every ``slide``.

    A record belongs to every window that holds its time. One that is late for some of its windows still counts in the
    others; it is in ``.late`` only if it is late for all of them.

    Parameters
    ----------
    size
        How long a window is.
    slide
        How long after the beginning of a window the next one begins. At most the size.
    offset
        Where windows begin: at ``offset + n * slide`` since 1970-01-01.

    Notes
    -----
    A record is counted once, in the piece of time (pane) that its windows share, if all aggregates can be merged: count,
    sum, mean, min, max, std and var. Any other aggregate in the same ``agg`` makes a record count once a window.

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
    """Return windows that begin together and end one step after the other, such as the day so far, every hour.

    Parameters
    ----------
    step
        How much longer each window is than the one before.
    size
        How long the longest window is: a multiple of the step. Then the next windows begin.
    offset
        Where windows begin: at ``offset + n * size`` since 1970-01-01.

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
