"""Processing time that a test moves by hand."""

from __future__ import annotations

import weakref
from datetime import date, datetime
from typing import TYPE_CHECKING

from millstream._engine import RawClock
from millstream._moments import since_epoch, utc_moment
from millstream.errors import PlanError
from millstream.time import Duration, microseconds

if TYPE_CHECKING:
    from millstream.testing.job import Job

__all__ = ["Clock", "Moment", "moment"]

Moment = datetime | date | str
"""What is taken as a time: without a zone it is one of UTC, as in a column without a zone."""


def moment(at: Moment, what: str) -> int:
    """Return a time in microseconds since the epoch.

    Parameters
    ----------
    at
        The time; one without a zone is in UTC.
    what
        The start of the message of an error.

    Returns
    -------
    int
        Microseconds since 1970-01-01 00:00 UTC.

    Raises
    ------
    PlanError
        When it is not a time.

    Examples
    --------
    >>> from millstream.testing.clock import moment
    >>> moment("1970-01-01T00:00:01", "a time")
    1000000
    """
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError as error:
            raise PlanError(f'{what} such as "2024-01-01T12:00:00" or a datetime, not {at!r:.80}') from error
    if not isinstance(at, datetime):
        if not isinstance(at, date):
            raise PlanError(f'{what} such as "2024-01-01T12:00:00" or a datetime, not {at!r:.80}')
        at = datetime(at.year, at.month, at.day)
    return since_epoch(at)


class Clock:
    """The processing time of jobs under test, which stands still until it is moved.

    ``emit="1s"``, triggers on processing time, idleness and :func:`millstream.now` use processing time. Event time is
    independent of it and comes from records and watermarks.

    Parameters
    ----------
    now
        The time at which it starts; one without a zone is in UTC.

    Raises
    ------
    PlanError
        When ``now`` is not a time.

    Examples
    --------
    >>> from millstream import testing
    >>> clock = testing.Clock("2024-01-01")
    >>> clock.advance("1m30s")
    >>> clock.now
    datetime.datetime(2024, 1, 1, 0, 1, 30, tzinfo=datetime.timezone.utc)
    """

    __slots__ = ("_jobs", "_raw")

    def __init__(self, now: Moment = "2000-01-01") -> None:
        self._raw = RawClock(moment(now, "a clock begins at a time"))
        self._jobs: weakref.WeakSet[Job] = weakref.WeakSet()

    def __repr__(self) -> str:
        """Show the time."""
        return f"<Clock {self.now}>"

    @property
    def now(self) -> datetime:
        """The current time, in UTC.

        Examples
        --------
        >>> from millstream import testing
        >>> testing.Clock("2024-01-01").now
        datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
        """
        return utc_moment(self._raw.now())

    def advance(self, by: Duration) -> None:
        """Move the time forward, and run the jobs that use this clock.

        First the jobs run until they are quiet, so that records pushed before have the earlier processing time. Then the
        clock moves to each time that one of them waits for, in order, and finally to its new time: a timer that is due
        every second fires ten times in ten seconds.

        Parameters
        ----------
        by
            How far to move.

        Raises
        ------
        PlanError
            When ``by`` is not a duration, or is negative.
        MillstreamError
            When a job fails meanwhile.

        Examples
        --------
        >>> from millstream import testing
        >>> clock = testing.Clock("2024-01-01")
        >>> source = testing.Source({"k": str, "x": int})
        >>> totals = source.stream().key_by("k").agg(total=col("x").sum(), emit="10s")
        >>> with testing.Job(totals, clock=clock) as job:
        ...     source.push({"k": "a", "x": 1}, {"k": "a", "x": 2})
        ...     clock.advance("9s")
        ...     before = job.collect()
        ...     clock.advance("1s")
        ...     before, job.collect()
        ([], [{'op': 'insert', 'k': 'a', 'total': 3}])
        """
        self._move(self._raw.now() + microseconds(by, "advance() of the clock"))

    def move_to(self, at: Moment) -> None:
        """Move the time forward to a given time, as :meth:`advance` does.

        Parameters
        ----------
        at
            The new time; one without a zone is in UTC.

        Raises
        ------
        PlanError
            When it is not a time, or earlier than now: processing time does not go back.
        MillstreamError
            When a job fails meanwhile.

        Examples
        --------
        >>> from millstream import testing
        >>> clock = testing.Clock("2024-01-01")
        >>> clock.move_to("2024-01-02")
        >>> clock.now.day
        2
        """
        target = moment(at, "move_to() takes a time")
        if target < self._raw.now():
            raise PlanError(f"move_to() a time before that of the clock, {self.now}: processing time does not go back")
        self._move(target)

    def _move(self, target: int) -> None:
        jobs = sorted(self._jobs, key=lambda job: job._number)
        for job in jobs:
            job.run()
        while times := [at for job in jobs if (at := job._next_time()) is not None and at <= target]:
            self._raw.set(min(times))
            for job in jobs:
                job.run()
        self._raw.set(target)
        for job in jobs:
            job.run()
