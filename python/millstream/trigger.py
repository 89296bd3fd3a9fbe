"""Triggers: when windows have results besides the one at their end."""

from __future__ import annotations

from dataclasses import dataclass

from millstream._counts import count
from millstream.errors import PlanError
from millstream.time import Duration, microseconds

__all__ = ["Firing", "Trigger", "check_trigger", "each", "every", "on_count", "on_processing_time", "on_watermark"]

_ROWS_MAX = 2**63 - 1


@dataclass(frozen=True)
class Firing:
    """How often a window has results; made by :func:`every` and :func:`each`.

    Attributes
    ----------
    rows
        After how many records a result is emitted; None for after each batch of records.

    Examples
    --------
    >>> mill.every(100)
    Firing(rows=100)
    """

    rows: int | None = None


@dataclass(frozen=True)
class Trigger:
    """When windows have results besides the one at their end; made by :func:`on_watermark` and the others.

    Attributes
    ----------
    early
        How often before the watermark has reached the end of the window: a duration of processing time, or :class:`Firing`.
    late
        How often after that, while the window accepts late records.

    Raises
    ------
    PlanError
        When a value is neither a duration above zero nor a :class:`Firing`.

    Examples
    --------
    >>> mill.on_watermark(early="1s", late=mill.each())
    Trigger(early='1s', late=Firing(rows=None))
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
        if firing.rows is None:
            return "each", 0
        return "rows", count(firing.rows, f"{what} of a trigger is a number of records of at least 1", 1, _ROWS_MAX)
    if isinstance(firing, Trigger):
        raise PlanError(
            f"{what} of a trigger is how often: a duration of processing time, mill.every(100) or mill.each(), and not a trigger "
            f"itself; write {what}={_shown(firing.early if firing.late is None else firing.late)}"
        )
    if not isinstance(firing, Duration | int | float):
        raise PlanError(
            f'{what} of a trigger is how often: a duration of processing time such as "1s", mill.every(100) or mill.each(), not {firing!r:.200}'
        )
    interval = microseconds(firing, f"{what} of a trigger")
    if interval == 0:
        raise PlanError(f'{what} of a trigger is "0s", which leaves no time between results; use mill.each()')
    return "interval", interval


def _shown(firing: Duration | Firing | None) -> str:
    """Return how a user writes it."""
    if not isinstance(firing, Firing):
        return repr(firing)
    return "mill.each()" if firing.rows is None else f"mill.every({firing.rows})"


def check_trigger(trigger: object) -> None:
    """Refuse what is no trigger."""
    if trigger is None or isinstance(trigger, Trigger):
        return
    if isinstance(trigger, Firing):
        shown = _shown(trigger)
        raise PlanError(f"trigger= takes a trigger, and {shown} is how often one fires; write trigger=mill.on_watermark(early={shown})")
    if isinstance(trigger, Duration):
        raise PlanError(f"trigger= takes a trigger, not the duration {trigger!r:.80}; write trigger=mill.on_processing_time({trigger!r:.80})")
    raise PlanError(f"trigger= takes a trigger such as mill.on_count(100), not {trigger!r:.200}")


def every(rows: int) -> Firing:
    """Fire after this many records of a window; an argument of :func:`on_watermark`.

    Parameters
    ----------
    rows
        How many records, at least 1.

    Raises
    ------
    PlanError
        When ``rows`` is not an integer of at least 1.

    Examples
    --------
    >>> mill.on_watermark(early=mill.every(100))
    Trigger(early=Firing(rows=100), late=None)
    """
    return Firing(count(rows, "every() takes a number of records of at least 1", 1, _ROWS_MAX))


def each() -> Firing:
    """Fire after each batch of records that changes a window; an argument of :func:`on_watermark`.

    Examples
    --------
    >>> mill.on_watermark(late=mill.each())
    Trigger(early=None, late=Firing(rows=None))
    """
    return Firing()


def on_watermark(early: Duration | Firing | None = None, late: Duration | Firing | None = None) -> Trigger:
    """Return a trigger that also fires before and after the end of a window.

    A window always has the result of its end. With ``early`` it has results before that, with ``late`` after it: then the
    result of the end is emitted when the watermark has reached it, and records within ``allowed_lateness`` lead to further
    results. Without ``late``, the result of the end is emitted when the allowed lateness is over. If a window changed since
    its last result, it fires once more when it is dropped.

    Parameters
    ----------
    early
        How often: a duration of processing time, :func:`every` so many records, or :func:`each` batch.
    late
        The same for results after the end.

    Returns
    -------
    Trigger
        The result of windows with a trigger is an updating stream: the latest row counts of each key and window. Each row
        has ``pane``, the number of the result of its window from 0 on, and ``pane_timing``: ``"early"``, ``"on_time"`` or
        ``"late"``. A session that grew replaces the row of the session that no longer exists.

    Raises
    ------
    PlanError
        When a value is neither a duration above zero nor made by :func:`every` or :func:`each`.

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
    """Return a trigger that also fires after every so many records of a window.

    Parameters
    ----------
    rows
        How many records, at least 1.

    Raises
    ------
    PlanError
        When ``rows`` is not an integer of at least 1.

    Examples
    --------
    >>> mill.on_count(100)
    Trigger(early=Firing(rows=100), late=None)
    """
    return Trigger(Firing(count(rows, "on_count() takes a number of records of at least 1", 1, _ROWS_MAX)))


def on_processing_time(interval: Duration) -> Trigger:
    """Return a trigger that also fires at an interval of processing time, for windows that changed.

    Parameters
    ----------
    interval
        The interval, more than zero.

    Raises
    ------
    PlanError
        When ``interval`` is not a duration above zero.

    Examples
    --------
    >>> mill.on_processing_time("1s")
    Trigger(early='1s', late=None)
    """
    if isinstance(interval, Firing):
        raise PlanError(f"on_processing_time() takes a duration such as \"1s\", not {interval!r}; for numbers of records use on_count()")
    if microseconds(interval, "on_processing_time()") == 0:
        raise PlanError(
            f"on_processing_time() takes a duration above zero, not {interval!r:.80}; on_watermark(early=mill.each()) fires after each batch"
        )
    return Trigger(interval)
