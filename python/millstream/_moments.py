"""Times as the engine counts them: microseconds since 1970-01-01."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

__all__ = ["EPOCH", "EPOCH_WITHOUT_ZONE", "shown_moment", "since_epoch", "utc_moment"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_WITHOUT_ZONE = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_CYCLE = timedelta(days=146_097)


def utc_moment(microseconds: int) -> datetime:
    """Return the time so many microseconds after the epoch, in UTC.

    Examples
    --------
    >>> from millstream._moments import utc_moment
    >>> utc_moment(1_500_000).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return EPOCH + timedelta(microseconds=microseconds)


def shown_moment(microseconds: int) -> str:
    """Return the time so many microseconds after the epoch as text, also of a year that no ``datetime`` has.

    Examples
    --------
    >>> from millstream._moments import shown_moment
    >>> shown_moment(253_402_300_800_000_000)
    '+10000-01-01T00:00:00'
    """
    # The calendar repeats itself after 400 years.
    cycles, rest = divmod(microseconds, _CYCLE // _MICROSECOND)
    at = EPOCH_WITHOUT_ZONE + timedelta(microseconds=rest)
    year = at.year + 400 * cycles
    shown = f"{year:04}" if 0 <= year <= 9999 else f"{year:+05}"
    return shown + at.isoformat()[4:]


def since_epoch(at: datetime) -> int:
    """Return the microseconds between the epoch and a time; one without a zone is counted as in UTC.

    Examples
    --------
    >>> from datetime import datetime
    >>> from millstream._moments import since_epoch
    >>> since_epoch(datetime(1970, 1, 1, 0, 0, 1))
    1000000
    """
    return (at - (EPOCH_WITHOUT_ZONE if at.tzinfo is None else EPOCH)) // _MICROSECOND
