"""Triggers: when windows have results besides that of their end."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from millstream.errors import PlanError
from millstream.time import Duration, microseconds

__all__ = ["Firing", "Trigger", "each", "every", "on_count", "on_processing_time", "on_watermark"]


@dataclass(frozen=True)
class Firing:
    """How often a window has results; made by :func:`every` and :func:`each`.

    Attributes
    ----------
    rows
        After how many records; None after each batch of records.
    """

    rows: int | None = None


@dataclass(frozen=True)
class Trigger:
    """When windows have results besides that of their end; made by :func:`on_watermark` and the others.

    Attributes
    ----------
    early
        How often before the watermark has reached the end of the window.
    late
        How often after that, while the window takes late records.
    """

    early: Duration | Firing | None = None
    late: Duration | Firing | None = None

    def __post_init__(self) -> None:
        """Check the durations."""
        self._raw()

    def _raw(self) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        return _raw(self.early, "early"), _raw(self.late, "late")


def _raw(firing: Duration | Firing | None, what: str) -> tuple[str, int] | None:
    if firing is None:
        return None
    if isinstance(firing, Firing):
        return ("each", 0) if firing.rows is None else ("rows", firing.rows)
    interval = microseconds(firing, f"{what} of a trigger")
    if interval == 0:
        raise PlanError(f'{what} of a trigger is "0s", which leaves no time between results; use mill.each()')
    return "interval", interval


def every(rows: int) -> Firing:
    """Return: a result after this many records of the window.

    Examples
    --------
    >>> mill.on_watermark(early=mill.every(100))
    Trigger(early=Firing(rows=100), late=None)
    """
    try:
        number = operator.index(rows)
    except TypeError:
        raise PlanError(f"every() takes a number of records, not {rows!r:.200}") from None
    if not 1 <= number < 2**63:
        raise PlanError(f"every() takes a number of records of at least one, found {number}")
    return Firing(number)


def each() -> Firing:
    """Return: a result after each batch of records that changes the window.

    Examples
    --------
    >>> mill.on_watermark(late=mill.each())
    Trigger(early=None, late=Firing(rows=None))
    """
    return Firing()


def on_watermark(early: Duration | Firing | None = None, late: Duration | Firing | None = None) -> Trigger:
    """Return a trigger with results also before and after the end of a window.

    A window always has the result of its end. With ``early`` it has results before that, with ``late`` after it: then the
    result of the end comes when the watermark has reached it, and records within ``allowed_lateness`` lead to further
    results. Without ``late`` the result of the end comes when the allowed lateness is over. What has changed since the last
    result has one when the window is dropped.

    Results are an updating stream: the latest row counts of each key and window. Each row has ``pane``, the number of the
    result of its window from 0 on, and ``pane_timing``: ``"early"``, ``"on_time"`` or ``"late"``. A session that grew
    replaces the row of the session that no longer exists.

    Parameters
    ----------
    early
        How often: a duration of processing time, :func:`every` so many records, or :func:`each` batch.
    late
        The same for results after the end.

    Examples
    --------
    >>> from datetime import datetime
    >>> s = mill.from_iter([{"k": 1, "at": datetime(2024, 1, 1, 0, 0, second)} for second in (1, 2, 3)]).event_time("at")
    >>> counts = s.key_by("k").window(mill.tumbling("10s"), trigger=mill.on_watermark(early=mill.every(2))).agg(n=mill.count())
    >>> [(row["n"], row["pane"], row["pane_timing"]) for row in counts.collect().to_pylist()]
    [(3, 1, 'on_time')]
    """
    return Trigger(early, late)


def on_count(rows: int) -> Trigger:
    """Return a trigger with a result after every so many records of a window, besides that of its end.

    Examples
    --------
    >>> mill.on_count(100)
    Trigger(early=Firing(rows=100), late=None)
    """
    return Trigger(every(rows))


def on_processing_time(interval: Duration) -> Trigger:
    """Return a trigger with a result at this interval of processing time if the window changed, besides that of its end.

    Examples
    --------
    >>> mill.on_processing_time("1s")
    Trigger(early='1s', late=None)
    """
    return Trigger(interval)
