"""Functions of dates, times and durations in expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream._namespaces.base import Namespace

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["DateTimeNamespace"]


class DateTimeNamespace(Namespace):
    """Functions of dates, times and durations: ``col("t").dt``.

    Notes
    -----
    Null in, null out. Fields of a time with a zone are those of local time in that zone. A function of a column of another type
    is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> from datetime import datetime
    >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30)])
    >>> s.select(h=col("value").dt.hour(), day=col("value").dt.truncate("1d")).collect().to_pylist()
    [{'h': 12, 'day': datetime.datetime(2024, 5, 17, 0, 0)}]
    """

    __slots__ = ()
    _prefix = "dt"

    def year(self) -> Expr:
        """Return the year.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.year()).collect()["x"]
        [2024]
        """
        return self._call("year")

    def quarter(self) -> Expr:
        """Return the quarter, 1 to 4.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.quarter()).collect()["x"]
        [2]
        """
        return self._call("quarter")

    def month(self) -> Expr:
        """Return the month, 1 to 12.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.month()).collect()["x"]
        [5]
        """
        return self._call("month")

    def week(self) -> Expr:
        """Return the week of the year by ISO 8601, 1 to 53.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.week()).collect()["x"]
        [20]
        """
        return self._call("week")

    def weekday(self) -> Expr:
        """Return the day of the week by ISO 8601: Monday is 1, Sunday is 7.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.weekday()).collect()["x"]
        [5]
        """
        return self._call("weekday")

    def day(self) -> Expr:
        """Return the day of the month, 1 to 31.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.day()).collect()["x"]
        [17]
        """
        return self._call("day")

    def ordinal_day(self) -> Expr:
        """Return the day of the year, 1 to 366.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.ordinal_day()).collect()["x"]
        [138]
        """
        return self._call("ordinal_day")

    def hour(self) -> Expr:
        """Return the hour, 0 to 23.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.hour()).collect()["x"]
        [12]
        """
        return self._call("hour")

    def minute(self) -> Expr:
        """Return the minute, 0 to 59.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.minute()).collect()["x"]
        [30]
        """
        return self._call("minute")

    def second(self) -> Expr:
        """Return the second, 0 to 59.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.second()).collect()["x"]
        [5]
        """
        return self._call("second")

    def millisecond(self) -> Expr:
        """Return the milliseconds within the second, 0 to 999.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.millisecond()).collect()["x"]
        [250]
        """
        return self._call("millisecond")

    def microsecond(self) -> Expr:
        """Return the microseconds within the second, 0 to 999,999.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.microsecond()).collect()["x"]
        [250000]
        """
        return self._call("microsecond")

    def nanosecond(self) -> Expr:
        """Return the nanoseconds within the second, 0 to 999,999,999.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.nanosecond()).collect()["x"]
        [250000000]
        """
        return self._call("nanosecond")

    def date(self) -> Expr:
        """Return the date without the time of day.

        Notes
        -----
        For a column with a time zone this is the local date in that zone.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.date()).collect()["x"]
        [datetime.date(2024, 5, 17)]
        """
        return self._call("date")

    def epoch(self, unit: str = "us") -> Expr:
        """Count the units of time since 1970-01-01 00:00 UTC.

        Parameters
        ----------
        unit
            The unit to count in: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``.

        Raises
        ------
        PlanError
            When the expression is used in a step and there is no such unit.
        DataError
            When the job runs and a count does not fit in 64 bits: nanoseconds hold the years 1677 to 2262.

        Notes
        -----
        Times before 1970 are negative and are rounded down. A time without a zone counts as one in UTC.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.epoch("s")).collect()["x"]
        [1715949005]
        """
        return self._call("epoch", unit)

    def truncate(self, every: str) -> Expr:
        """Round down to a multiple of a span of time.

        Parameters
        ----------
        every
            One or more numbers with units: ``ns us ms s m h`` have a fixed length, ``d w mo q y`` follow the calendar.

        Raises
        ------
        PlanError
            When the expression is used in a step and ``every`` is not a span.

        Notes
        -----
        Local time in the zone of the column counts. Where the clock shows the result twice, because it was set back, a calendar
        span starts at the earlier of the two times, and a span of hours or less at the latest one that is not after the value.
        Where the clock skips the result, because it was set forward, the end of the gap is returned.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.truncate("15m")).collect()["x"]
        [datetime.datetime(2024, 5, 17, 12, 30)]
        """
        return self._call("truncate", every)

    def round(self, every: str) -> Expr:
        """Round to the nearest start of a span.

        Parameters
        ----------
        every
            A span as :meth:`truncate` takes it.

        Raises
        ------
        PlanError
            When the expression is used in a step and ``every`` is not one positive span, or is finer than the column's unit.

        Notes
        -----
        A time in the middle of a span is rounded up. The spans are those of :meth:`truncate`.

        Examples
        --------
        >>> import datetime as dt
        >>> s = mill.from_iter([dt.datetime(2026, 1, 5, 10, 37), dt.datetime(2026, 1, 5, 10, 22)])
        >>> s.select(x=col("value").dt.round("15m").dt.strftime("%H:%M")).collect()["x"]
        ['10:30', '10:15']
        """
        return self._call("round", every)

    def month_start(self) -> Expr:
        """Move to the first day of the month, at the same time of day.

        Raises
        ------
        SchemaError
            When the expression is used in a step and the column is not a date or timestamp.

        Examples
        --------
        >>> import datetime as dt
        >>> mill.from_iter([dt.date(2024, 2, 12)]).select(x=col("value").dt.month_start()).collect()["x"]
        [datetime.date(2024, 2, 1)]
        """
        return self._call("month_start")

    def month_end(self) -> Expr:
        """Move to the last day of the month, at the same time of day.

        Raises
        ------
        SchemaError
            When the expression is used in a step and the column is not a date or timestamp.

        Examples
        --------
        >>> import datetime as dt
        >>> mill.from_iter([dt.date(2024, 2, 12)]).select(x=col("value").dt.month_end()).collect()["x"]
        [datetime.date(2024, 2, 29)]
        """
        return self._call("month_end")

    def strftime(self, format: str) -> Expr:
        """Format as text.

        Parameters
        ----------
        format
            A format of Python's ``strftime``. ``%Z`` is the abbreviation of the zone in use at the time, such as ``CET``.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.strftime("%d.%m.%Y")).collect()["x"]
        ['17.05.2024']
        """
        return self._call("strftime", format)

    def iso_year(self) -> Expr:
        """Return the year that the ISO 8601 week belongs to.

        Notes
        -----
        Around New Year it can differ from :meth:`year`: 2021-01-03 is in week 53 of 2020.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2021, 1, 3)])
        >>> s.select(x=col("value").dt.iso_year()).collect()["x"]
        [2020]
        """
        return self._call("iso_year")

    def time(self) -> Expr:
        """Return the time of day.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.time()).collect()["x"]
        [datetime.time(12, 30, 5, 250000)]
        """
        return self._call("time")

    def offset_by(self, by: str) -> Expr:
        """Move by a span of time.

        Parameters
        ----------
        by
            A span such as ``"1mo"`` or ``"-1d"``.
            One or more numbers with units: ``ns us ms s m h`` have a fixed length, ``d w mo q y`` follow the calendar.

        Raises
        ------
        PlanError
            When the expression is used in a step and ``by`` is not a span.
        DataError
            When the job runs and the result is out of the range of times.

        Notes
        -----
        Calendar spans keep the local time of day, so ``24h`` differs from ``1d`` on days on which the clock changes. A day that
        a month does not have becomes its last day. Where the clock shows the result twice, the time with the offset of the value
        is returned, or else the earlier one. Where the clock skips the result, it is moved forward by the length of the gap.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 1, 31)])
        >>> s.select(x=col("value").dt.offset_by("1mo")).collect()["x"]
        [datetime.datetime(2024, 2, 29, 0, 0)]
        """
        return self._call("offset_by", by)

    def cast_time_unit(self, unit: str) -> Expr:
        """Convert to another unit of time, and keep the point in time.

        Parameters
        ----------
        unit
            The unit of the result: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``.

        Raises
        ------
        PlanError
            When the expression is used in a step and there is no such unit.
        DataError
            When the job runs and a time does not fit in the unit: nanoseconds hold the years 1677 to 2262.

        Notes
        -----
        A coarser unit rounds down, also before 1970.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.cast_time_unit("ms")).collect()["x"]
        [datetime.datetime(2024, 5, 17, 12, 30, 5, 250000)]
        """
        return self._call("cast_time_unit", unit)

    def convert_time_zone(self, zone: str) -> Expr:
        """Convert to another time zone, and keep the point in time.

        Parameters
        ----------
        zone
            The name of a zone in the IANA database, such as ``"Europe/Berlin"``, or ``"UTC"``.

        Raises
        ------
        PlanError
            When the expression is used in a step and there is no such zone.

        Notes
        -----
        A column without a zone is taken as UTC.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.convert_time_zone("Asia/Tokyo").dt.hour()).collect()["x"]
        [21]
        """
        return self._call("convert_time_zone", zone)

    def replace_time_zone(self, zone: str | None) -> Expr:
        """Set the time zone, and keep the local time.

        Parameters
        ----------
        zone
            The name of a zone in the IANA database; None removes the zone.

        Raises
        ------
        PlanError
            When the expression is used in a step and there is no such zone.
        DataError
            When the job runs and the clock of the zone shows a time twice or never, because it was set back or forward.

        Examples
        --------
        >>> from datetime import datetime
        >>> s = mill.from_iter([datetime(2024, 5, 17, 12, 30, 5, 250_000)])
        >>> s.select(x=col("value").dt.replace_time_zone("UTC")).collect()["x"]
        [datetime.datetime(2024, 5, 17, 12, 30, 5, 250000, tzinfo=datetime.timezone.utc)]
        """
        return self._call("replace_time_zone", zone)

    def total_nanoseconds(self) -> Expr:
        """Return a duration in nanoseconds.

        Raises
        ------
        DataError
            When the job runs and a duration does not fit in 64 bits of nanoseconds: about 292 years.

        Examples
        --------
        >>> from datetime import timedelta
        >>> s = mill.from_iter([timedelta(days=1, minutes=61, seconds=30)])
        >>> s.select(x=col("value").dt.total_nanoseconds()).collect()["x"]
        [90090000000000]
        """
        return self._call("total_nanoseconds")

    def total_days(self) -> Expr:
        """Return a duration in whole days, rounded towards zero.

        Examples
        --------
        >>> from datetime import timedelta
        >>> s = mill.from_iter([timedelta(days=1, minutes=61, seconds=30)])
        >>> s.select(x=col("value").dt.total_days()).collect()["x"]
        [1]
        """
        return self._call("total_days")

    def total_hours(self) -> Expr:
        """Return a duration in whole hours, rounded towards zero.

        Examples
        --------
        >>> from datetime import timedelta
        >>> s = mill.from_iter([timedelta(days=1, minutes=61, seconds=30)])
        >>> s.select(x=col("value").dt.total_hours()).collect()["x"]
        [25]
        """
        return self._call("total_hours")

    def total_minutes(self) -> Expr:
        """Return a duration in whole minutes, rounded towards zero.

        Examples
        --------
        >>> from datetime import timedelta
        >>> s = mill.from_iter([timedelta(days=1, minutes=61, seconds=30)])
        >>> s.select(x=col("value").dt.total_minutes()).collect()["x"]
        [1501]
        """
        return self._call("total_minutes")

    def total_seconds(self) -> Expr:
        """Return a duration in whole seconds, rounded towards zero.

        Examples
        --------
        >>> from datetime import timedelta
        >>> s = mill.from_iter([timedelta(days=1, minutes=61, seconds=30)])
        >>> s.select(x=col("value").dt.total_seconds()).collect()["x"]
        [90090]
        """
        return self._call("total_seconds")

    def total_milliseconds(self) -> Expr:
        """Return a duration in whole milliseconds, rounded towards zero.

        Examples
        --------
        >>> from datetime import timedelta
        >>> s = mill.from_iter([timedelta(days=1, minutes=61, seconds=30)])
        >>> s.select(x=col("value").dt.total_milliseconds()).collect()["x"]
        [90090000]
        """
        return self._call("total_milliseconds")

    def total_microseconds(self) -> Expr:
        """Return a duration in whole microseconds, rounded towards zero.

        Examples
        --------
        >>> from datetime import timedelta
        >>> s = mill.from_iter([timedelta(days=1, minutes=61, seconds=30)])
        >>> s.select(x=col("value").dt.total_microseconds()).collect()["x"]
        [90090000000]
        """
        return self._call("total_microseconds")
