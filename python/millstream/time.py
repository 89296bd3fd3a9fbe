"""Durations and watermarks.

A duration is a :class:`datetime.timedelta` or text such as ``"1m30s"``. A bare number is an error, because a reader of
``within=5`` cannot know whether it is seconds or milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from millstream._hints import no_attribute
from millstream._texts import text
from millstream.errors import PlanError

if TYPE_CHECKING:
    from millstream.expr import Expr
    from millstream.watermark import WatermarkGenerator

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
    """Return a duration in microseconds.

    Parameters
    ----------
    duration
        A ``timedelta``, or text of numbers with the units ``us ms s m h d w``.
    name
        What the duration is for; part of the message of an error.
    is_negative_allowed
        Whether it may be below zero.

    Returns
    -------
    int
        Microseconds.

    Raises
    ------
    PlanError
        When it is a bare number, not a duration, negative, or finer than a microsecond.

    Examples
    --------
    >>> from millstream.time import microseconds
    >>> microseconds("1m30s")
    90000000
    >>> microseconds("1.5ms")
    1500
    """
    if duration != duration:
        raise PlanError(f"{name} is {duration!r}, which is not a duration")
    if isinstance(duration, timedelta):
        # pandas.Timedelta is a timedelta that also counts nanoseconds.
        if getattr(duration, "nanoseconds", 0):
            raise PlanError(f"{name} is {duration!r}, which is finer than a microsecond; durations are whole microseconds")
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
        raise PlanError(f"{name} is too long: {duration!r:.80}; a duration has at most {_DURATION_MAX // _UNITS['d']} days")
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


class _Named(type):
    """Names methods of Millstream for those of other libraries."""

    if not TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Any:
            """Raise an error that names the method of Millstream for one of another library."""
            raise no_attribute(cls, name)


@dataclass(frozen=True)
class WatermarkStrategy(metaclass=_Named):
    """How event time advances.

    Every split (a file, a partition) has its own watermark. The watermark of the stream is the least of them.

    Attributes
    ----------
    out_of_orderness
        The watermark of a split is its latest event time, less this duration: how much older than the latest record of its
        split a record may be without being late.
    idleness
        How long a split may have no records before the others no longer wait for it; ``"never"`` waits for every split. By
        default this is one minute for followed files (``follow=True``), and ``"never"`` for all other sources.
    column
        The watermark of a split is the greatest value of this column so far.
    generator
        The watermark of a split is the greatest that this :class:`WatermarkGenerator` has returned for it.
    max_drift, group
        How far a split may be ahead of the slowest one while it is read, and which steps are aligned together; see
        :meth:`with_alignment`.

    Raises
    ------
    PlanError
        When there is not exactly one of ``out_of_orderness``, ``column`` and ``generator``, or a value is not a duration.

    Notes
    -----
    A split is idle if it was asked for records and has had none for that long. When all splits are idle, time advances to
    the latest that any of them has reached. An idle split that has records again is waited for again. Those of its records
    whose window has closed meanwhile are late, and are in ``.late``.

    Followed files have a default because nobody can know that a full file gets no more records. With ``"never"``, the last
    record of the first rotated file would hold time back for good, and so would a followed directory without any file. The
    default is not for writers that pause for longer than a minute and then continue with older times: give them a longer
    idleness.

    Idleness is measured by a clock that does not change when the time of the machine is set.

    In a job that merges several inputs, an idle input takes on the time of the inputs that it is merged with.

    :attr:`Job.status` names the split that a job waits for.

    Examples
    --------
    >>> import millstream as mill
    >>> mill.WatermarkStrategy.bounded_out_of_orderness("5s").with_idleness("10s")
    WatermarkStrategy(out_of_orderness='5s', idleness='10s')
    """

    out_of_orderness: Duration | None = None
    idleness: Duration | None = None
    column: str | None = None
    generator: WatermarkGenerator | None = None
    max_drift: Duration | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        """Check that there is one way to make watermarks, and the durations."""
        made_from = [it for it in (self.out_of_orderness, self.column, self.generator) if it is not None]
        if len(made_from) != 1:
            raise PlanError(
                "a WatermarkStrategy has exactly one of out_of_orderness, column and generator, and this one has "
                f'{len(made_from) or "none"}; write bounded_out_of_orderness("5s"), ascending(), from_column("mark") or '
                "from_generator(Made())"
            )
        if self.out_of_orderness is not None:
            microseconds(self.out_of_orderness, "watermark")
        if self.idleness is not None and self.idleness != NEVER:
            microseconds(self.idleness, "idleness")
        if self.max_drift is not None and microseconds(self.max_drift, "max_drift") == 0:
            raise PlanError("max_drift is more than zero: splits have no records of the very same time")
        if self.column is not None:
            text(self.column, "WatermarkStrategy(column=…)", "mark")
        if self.group is not None:
            text(self.group, "with_alignment(group=…)", "orders")
            if not self.group.strip():
                raise PlanError(f'with_alignment(group=…) takes a name, as in "orders", not {self.group!r}; leave it out for no group')
        if self.group is not None and self.max_drift is None:
            raise PlanError("a group needs max_drift; use with_alignment(max_drift=..., group=...)")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise an error that names the method of Millstream for one of another library."""
            raise no_attribute(self, name)

    def __repr__(self) -> str:
        """Show what was given."""
        given = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return f"WatermarkStrategy({', '.join(f'{name}={value!r}' for name, value in given if value is not None)})"

    @staticmethod
    def bounded_out_of_orderness(bound: Duration) -> WatermarkStrategy:
        """Return the strategy for records that may be out of order by at most ``bound``.

        Parameters
        ----------
        bound
            How much older than the latest record of its split a record may be without being late.

        Raises
        ------
        PlanError
            When ``bound`` is not a duration.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.WatermarkStrategy.bounded_out_of_orderness("5s")
        WatermarkStrategy(out_of_orderness='5s')
        """
        return WatermarkStrategy(bound)

    @staticmethod
    def ascending() -> WatermarkStrategy:
        """Return the strategy for event times that never decrease within a split.

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

    @staticmethod
    def from_column(column: str | Expr) -> WatermarkStrategy:
        """Return the strategy whose watermarks are in the records: punctuated watermarks.

        Parameters
        ----------
        column
            A timestamp or date column, by name or as ``col("mark")``. After each record, the watermark of its split is the
            greatest value so far; null changes nothing. Add the column with :meth:`Stream.with_columns` if the source has
            none.

        Raises
        ------
        PlanError
            When ``column`` is neither a name nor a plain column.

        Examples
        --------
        A record with ``is_last`` ends its minute:

        >>> import millstream as mill
        >>> from millstream import col
        >>> from datetime import datetime
        >>> rows = [{"at": datetime(2024, 1, 1, 12, m, s), "is_last": e} for m, s, e in [(0, 5, False), (1, 0, True), (0, 9, False)]]
        >>> marked = mill.from_iter(rows).with_columns(mark=mill.when(col("is_last")).then("at"))
        >>> timed = marked.event_time("at", watermark=mill.WatermarkStrategy.from_column("mark"))
        >>> counts = timed.window_all(mill.tumbling("1m")).agg(n=mill.count())
        >>> [row["n"] for row in counts.collect().to_pylist()], [row["at"].second for row in counts.late.collect().to_pylist()]
        ([1, 1], [9])
        """
        from millstream.expr import plain_column

        return WatermarkStrategy(column=plain_column(column, "WatermarkStrategy.from_column()"))

    @staticmethod
    def from_generator(generator: WatermarkGenerator) -> WatermarkStrategy:
        """Return the strategy whose watermarks are made by an object of yours.

        Parameters
        ----------
        generator
            An object of your subclass of :class:`WatermarkGenerator`.

        Raises
        ------
        PlanError
            When it is not such an object, or has no ``on_batch``.

        Examples
        --------
        >>> import millstream as mill
        >>> class Latest(mill.WatermarkGenerator):
        ...     columns = ()
        ...     def on_batch(self, times, batch):
        ...         return times
        >>> mill.WatermarkStrategy.from_generator(Latest()).with_idleness("10s").idleness
        '10s'
        """
        from millstream.watermark import check_generator

        check_generator(generator)
        return WatermarkStrategy(generator=generator)

    def with_idleness(self, idleness: Duration) -> WatermarkStrategy:
        """Return the same strategy, which does not wait for splits without records for this long.

        Parameters
        ----------
        idleness
            How long, or ``"never"`` to wait for every split, whatever the source.

        Raises
        ------
        PlanError
            When ``idleness`` is not a duration.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.WatermarkStrategy.ascending().with_idleness("5m").idleness
        '5m'
        >>> mill.WatermarkStrategy.ascending().with_idleness("never").idleness
        'never'
        """
        return replace(self, idleness=idleness)

    def with_alignment(self, max_drift: Duration, *, group: str | None = None) -> WatermarkStrategy:
        """Return the same strategy, in which fast splits wait for slow ones.

        A split whose watermark is more than ``max_drift`` ahead of that of the slowest split pauses: it is not read until
        the slowest has come closer. So the state of windows and joins stays bounded where one input is read much faster
        than another, such as history and live data.

        Parameters
        ----------
        max_drift
            How far a split may be ahead, more than zero.
        group
            A name for the splits that are aligned together: all steps of a job with the same name wait for each other. By default the
            splits of one ``event_time()`` are; after ``union()`` those are the splits of all its inputs.

        Raises
        ------
        PlanError
            When ``max_drift`` is not a duration above zero, or ``group`` is not a name.

        Notes
        -----
        Splits that are idle or have ended are not waited for. A split that has had no watermark yet is the slowest; give it
        an idleness, or the others wait for it for good. Frames are read whole, so a split can be ahead by one frame more. A
        source that may block is read by its own thread, which is a few frames ahead.

        All splits are read in turn, files too, so all of them are open at once.

        Do not put the table of an ``enrich()`` into a group with the stream that it enriches: the stream is not read before
        the table is loaded, and the table would wait for the stream.

        :attr:`Job.status` and :attr:`StepMetrics.paused` name a split that pauses, and the one that it waits for.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.WatermarkStrategy.bounded_out_of_orderness("5s").with_alignment("1m", group="orders")
        WatermarkStrategy(out_of_orderness='5s', max_drift='1m', group='orders')
        """
        return replace(self, max_drift=max_drift, group=group)
