"""Durations and watermarks.

A duration is a :class:`datetime.timedelta` or a text like ``"1m30s"``. A bare number is an error, because nobody who
reads ``within=5`` can tell seconds from milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction

from millstream.errors import PlanError

__all__ = ["Duration", "WatermarkStrategy", "microseconds"]

Duration = timedelta | str
"""What is taken as a duration."""

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
NEVER = "never"
"""The idleness under which every split is waited for."""

_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|µs|ms|s|m|h|d|w)")
_DURATION_MAX = 2**62


def microseconds(duration: Duration, name: str = "duration", *, is_negative_allowed: bool = False) -> int:
    """Give a duration in microseconds.

    Parameters
    ----------
    duration
        A ``timedelta``, or a text of numbers with the units ``us ms s m h d w``.
    name
        What the duration is for; stands in the message of an error.
    is_negative_allowed
        Whether it may be below zero.

    Returns
    -------
    int
        Microseconds.

    Raises
    ------
    PlanError
        When it is a bare number, or not a duration.

    Examples
    --------
    >>> from millstream.time import microseconds
    >>> microseconds("1m30s")
    90000000
    >>> microseconds("1.5ms")
    1500
    """
    if isinstance(duration, timedelta):
        total = (duration.days * 86_400 + duration.seconds) * 1_000_000 + duration.microseconds
    elif isinstance(duration, str):
        total = _parse(duration, name)
    elif isinstance(duration, (int, float)):
        raise PlanError(
            f"{name} is the bare number {duration!r}, which has no unit; write it as a text like "
            f'"{duration}s" or "{duration}ms", or as a timedelta'
        )
    else:
        raise PlanError(f'{name} must be a timedelta or a text like "1m30s", not {type(duration).__name__}')
    if total < 0 and not is_negative_allowed:
        raise PlanError(f"{name} must not be negative: {duration!r}")
    if abs(total) > _DURATION_MAX:
        raise PlanError(f"{name} is too long: {duration!r}")
    return total


def _parse(text: str, name: str) -> int:
    rest = text.strip()
    sign = 1
    if rest.startswith(("-", "+")):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    total = Fraction(0)
    position = 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:
            break
        number, unit = part.groups()
        scale = _UNITS["us" if unit == "µs" else unit]
        total += Fraction(number) * scale
        position = part.end()
    if position == 0 or rest[position:].strip():
        raise PlanError(f'{name} is {text!r}, which is not a duration; write numbers with units (us ms s m h d w): "1m30s"')
    if total.denominator != 1:
        raise PlanError(f"{name} is {text!r}, which is finer than a microsecond; durations are whole microseconds")
    return sign * int(total)


@dataclass(frozen=True)
class WatermarkStrategy:
    """How event time advances.

    Every split (a file, a partition) has a watermark of its own: its latest event time, less ``out_of_orderness``. The
    watermark of the stream is the least of them.

    Attributes
    ----------
    out_of_orderness
        How much older than the latest record of its split a record may be without being late.
    idleness
        How long a split may have no records before the others no longer wait for it; ``"never"`` waits for every split.
        By default this is one minute for followed files (``follow=True``), and ``"never"`` for all other sources.

    Notes
    -----
    A split that was asked for records and has had none for that long is passed over. When all splits are idle, time goes on
    to the latest that any of them has come to. An idle split that has records again is waited for again; those of its
    records whose window has closed meanwhile are late, and go to ``.late``.

    Followed files have a default because nobody can know that a full file gets no more records: under ``"never"`` the last
    record of the first rotated file holds time back for good, and so does a followed directory without any file. The default
    is not for writers that pause for longer than a minute and then go on with older times: give them a longer idleness.

    Idleness is measured by a clock that does not change when somebody sets the time of the machine.

    In a job that unites several inputs, an idle input takes on the time of the inputs it is united with.

    :attr:`Job.status` names the split that a job waits for.

    Examples
    --------
    >>> import millstream as mill
    >>> mill.WatermarkStrategy.bounded_out_of_orderness("5s").with_idleness("10s")
    WatermarkStrategy(out_of_orderness='5s', idleness='10s')
    """

    out_of_orderness: Duration
    idleness: Duration | None = None

    def __post_init__(self) -> None:
        """Check the durations."""
        microseconds(self.out_of_orderness, "watermark")
        if self.idleness is not None and self.idleness != NEVER:
            microseconds(self.idleness, "idleness")

    @staticmethod
    def bounded_out_of_orderness(bound: Duration) -> WatermarkStrategy:
        """Give the strategy under which records may come up to ``bound`` out of order.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.WatermarkStrategy.bounded_out_of_orderness("5s")
        WatermarkStrategy(out_of_orderness='5s', idleness=None)
        """
        return WatermarkStrategy(bound)

    @staticmethod
    def ascending() -> WatermarkStrategy:
        """Give the strategy for event times that never go back within a split.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.WatermarkStrategy.ascending().out_of_orderness
        '0s'
        """
        return WatermarkStrategy("0s")

    @staticmethod
    def monotonous() -> WatermarkStrategy:
        """Return the same as :meth:`ascending`, under the name that Flink has for it.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.WatermarkStrategy.monotonous() == mill.WatermarkStrategy.ascending()
        True
        """
        return WatermarkStrategy.ascending()

    def with_idleness(self, idleness: Duration) -> WatermarkStrategy:
        """Give the same strategy, not waiting for splits that have been quiet this long.

        Parameters
        ----------
        idleness
            How long, or ``"never"`` to wait for every split, whatever the source.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.WatermarkStrategy.ascending().with_idleness("5m").idleness
        '5m'
        >>> mill.WatermarkStrategy.ascending().with_idleness("never").idleness
        'never'
        """
        return replace(self, idleness=idleness)
