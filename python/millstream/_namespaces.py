"""The functions of texts, times, lists and structs that expressions have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["DateTimeNamespace", "ListNamespace", "StringNamespace", "StructNamespace"]


class _Namespace:
    __slots__ = ("_expr",)

    _prefix = ""

    def __init__(self, expr: Expr) -> None:
        self._expr = expr

    def _call(self, function: str, *args: Any) -> Expr:
        return self._expr._call(f"{self._prefix}.{function}", *args)

    def _call_columns(self, function: str, *args: Any) -> Expr:
        return self._expr._call_columns(f"{self._prefix}.{function}", *args)


class StringNamespace(_Namespace):
    """Functions of texts: ``col("s").str``.

    Examples
    --------
    >>> s = mill.from_iter(["Big Fish"])
    >>> s.select(a=col("value").str.to_lowercase(), b=col("value").str.split(" ")).collect().to_pylist()
    [{'a': 'big fish', 'b': ['Big', 'Fish']}]
    """

    __slots__ = ()
    _prefix = "str"

    def to_lowercase(self) -> Expr:
        """Give the text in lower case."""
        return self._call("to_lowercase")

    def to_uppercase(self) -> Expr:
        """Give the text in upper case."""
        return self._call("to_uppercase")

    def len_chars(self) -> Expr:
        """Count the characters."""
        return self._call("len_chars")

    def len_bytes(self) -> Expr:
        """Count the bytes in UTF-8."""
        return self._call("len_bytes")

    def contains(self, pattern: str, *, literal: bool = False) -> Expr:
        """Tell whether a regular expression (or, if ``literal``, a text) occurs."""
        return self._call("contains", pattern, literal)

    def starts_with(self, prefix: str | Expr) -> Expr:
        """Tell whether the text begins so."""
        return self._call("starts_with", prefix)

    def ends_with(self, suffix: str | Expr) -> Expr:
        """Tell whether the text ends so."""
        return self._call("ends_with", suffix)

    def replace(self, pattern: str, value: str, *, literal: bool = False) -> Expr:
        """Replace the first match of a regular expression (or, if ``literal``, of a text)."""
        return self._call("replace", pattern, value, literal)

    def replace_all(self, pattern: str, value: str, *, literal: bool = False) -> Expr:
        """Replace all matches of a regular expression (or, if ``literal``, of a text)."""
        return self._call("replace_all", pattern, value, literal)

    def extract(self, pattern: str, group: int = 1) -> Expr:
        """Give what a group of a regular expression matched; null where it does not match."""
        return self._call("extract", pattern, group)

    def extract_all(self, pattern: str) -> Expr:
        """Give all matches of a regular expression as a list.

        Examples
        --------
        >>> mill.from_iter(["a1b22"]).select(n=col("value").str.extract_all("[0-9]+")).collect().to_pylist()
        [{'n': ['1', '22']}]
        """
        return self._call("extract_all", pattern)

    def split(self, by: str) -> Expr:
        """Cut the text into a list."""
        return self._call("split", by)

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """Give a part of the text, counted in characters; a negative offset counts from the end."""
        return self._call("slice", offset) if length is None else self._call("slice", offset, length)

    def head(self, n: int) -> Expr:
        """Give the first characters."""
        return self._call("head", n)

    def tail(self, n: int) -> Expr:
        """Give the last characters."""
        return self._call("tail", n)

    def strip_chars(self, characters: str | None = None) -> Expr:
        """Take white space, or these characters, off both ends."""
        return self._call("strip_chars", *_optional(characters))

    def strip_chars_start(self, characters: str | None = None) -> Expr:
        """Take white space, or these characters, off the start."""
        return self._call("strip_chars_start", *_optional(characters))

    def strip_chars_end(self, characters: str | None = None) -> Expr:
        """Take white space, or these characters, off the end."""
        return self._call("strip_chars_end", *_optional(characters))

    def pad_start(self, length: int, fill_char: str = " ") -> Expr:
        """Fill the text up at the start to this many characters."""
        return self._call("pad_start", length, fill_char)

    def pad_end(self, length: int, fill_char: str = " ") -> Expr:
        """Fill the text up at the end to this many characters."""
        return self._call("pad_end", length, fill_char)

    def reverse(self) -> Expr:
        """Give the characters in reverse order."""
        return self._call("reverse")

    def to_integer(self, *, base: int = 10, strict: bool = True) -> Expr:
        """Read the text as a whole number to a base; null where it is none, unless ``strict``."""
        return self._call("to_integer", base, strict)

    def to_titlecase(self) -> Expr:
        """Give the text with each word's first letter in upper case."""
        return self._call("to_titlecase")

    def strip_prefix(self, prefix: str) -> Expr:
        """Take a text off the start, where it is there."""
        return self._call("strip_prefix", prefix)

    def strip_suffix(self, suffix: str) -> Expr:
        """Take a text off the end, where it is there."""
        return self._call("strip_suffix", suffix)

    def zfill(self, length: int) -> Expr:
        """Fill a number up with zeros to this many characters, behind its sign."""
        return self._call("zfill", length)

    def find(self, pattern: str, *, literal: bool = False) -> Expr:
        """Give where the first match begins, in bytes; null if there is none."""
        return self._call("find", pattern, literal)

    def count_matches(self, pattern: str, *, literal: bool = False) -> Expr:
        """Count the matches of a regular expression (or, if ``literal``, of a text)."""
        return self._call("count_matches", pattern, literal)

    def to_datetime(self, format: str | None = None, *, time_unit: str = "us", strict: bool = True) -> Expr:
        """Read the text as a point in time, by a format of Python's ``strptime`` or as ISO 8601; a format with an offset gives UTC.

        Notes
        -----
        A format reads what ``datetime.strptime`` reads in the C locale, with the digits 0 to 9, and refuses the rest; what it does not name is that of
        1900-01-01 00:00:00. ``%F``, ``%T``, ``%R``, ``%D`` and ``%e`` are read as well, and ``%.f``: a point with up to nine
        digits, or nothing. A fraction finer than ``time_unit`` is an error.

        Examples
        --------
        >>> mill.from_iter(["17.05.24 12:30"]).select(t=col("value").str.to_datetime("%d.%m.%y %H:%M")).collect().to_pylist()
        [{'t': datetime.datetime(2024, 5, 17, 12, 30)}]
        """
        return self._call("to_datetime", format, time_unit, strict)

    def to_date(self, format: str | None = None, *, strict: bool = True) -> Expr:
        """Read the text as a date, by a ``strptime`` format or as ISO 8601."""
        return self._call("to_date", format, strict)


class DateTimeNamespace(_Namespace):
    """Functions of dates, times and durations: ``col("t").dt``.

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
        """Give the year."""
        return self._call("year")

    def quarter(self) -> Expr:
        """Give the quarter, 1 to 4."""
        return self._call("quarter")

    def month(self) -> Expr:
        """Give the month, 1 to 12."""
        return self._call("month")

    def week(self) -> Expr:
        """Give the ISO week, 1 to 53."""
        return self._call("week")

    def weekday(self) -> Expr:
        """Give the day of the week, Monday 1 to Sunday 7."""
        return self._call("weekday")

    def day(self) -> Expr:
        """Give the day of the month, 1 to 31."""
        return self._call("day")

    def ordinal_day(self) -> Expr:
        """Give the day of the year, 1 to 366."""
        return self._call("ordinal_day")

    def hour(self) -> Expr:
        """Give the hour."""
        return self._call("hour")

    def minute(self) -> Expr:
        """Give the minute."""
        return self._call("minute")

    def second(self) -> Expr:
        """Give the second."""
        return self._call("second")

    def millisecond(self) -> Expr:
        """Give the milliseconds within the second."""
        return self._call("millisecond")

    def microsecond(self) -> Expr:
        """Give the microseconds within the second."""
        return self._call("microsecond")

    def nanosecond(self) -> Expr:
        """Give the nanoseconds within the second."""
        return self._call("nanosecond")

    def date(self) -> Expr:
        """Give the date without the time."""
        return self._call("date")

    def epoch(self, unit: str = "us") -> Expr:
        """Count the units (``s ms us ns``) since 1970."""
        return self._call("epoch", unit)

    def truncate(self, every: str) -> Expr:
        """Round down to a multiple of a duration like ``"1h"``; ``d``, ``w``, ``mo``, ``q`` and ``y`` go by the calendar.

        Notes
        -----
        What counts is what the clock of the column's zone shows. Where the clock shows the result twice, a span of the calendar
        begins at the earlier, and one of hours or less at the latest that is not after the time. Where the clock skips the
        result, it is the end of what is skipped.
        """
        return self._call("truncate", every)

    def strftime(self, format: str) -> Expr:
        """Write as text by a format of Python's ``strftime``; ``%Z`` is the name of the zone in use at the time, such as ``CET``."""
        return self._call("strftime", format)

    def iso_year(self) -> Expr:
        """Give the year that the ISO week belongs to."""
        return self._call("iso_year")

    def time(self) -> Expr:
        """Give the time of day."""
        return self._call("time")

    def offset_by(self, by: str) -> Expr:
        """Move by a duration like ``"-1d"``; ``d``, ``w``, ``mo``, ``q`` and ``y`` go by the calendar.

        Notes
        -----
        Spans of the calendar keep what the clock of the column's zone shows; ``24h`` is not ``1d`` where the clock changes. A day
        that a month lacks becomes its last. Where the clock shows the result twice, the one with the offset of before is
        meant, or the earlier; where the clock skips it, the result is later by as much as is skipped.
        """
        return self._call("offset_by", by)

    def cast_time_unit(self, unit: str) -> Expr:
        """Count in another unit: ``s ms us ns``."""
        return self._call("cast_time_unit", unit)

    def convert_time_zone(self, zone: str) -> Expr:
        """Show the same point in time in another zone."""
        return self._call("convert_time_zone", zone)

    def replace_time_zone(self, zone: str | None) -> Expr:
        """Take what the clock shows as the time of another zone; a time it shows twice or never is an error."""
        return self._call("replace_time_zone", zone)

    def total_nanoseconds(self) -> Expr:
        """Give a duration in nanoseconds."""
        return self._call("total_nanoseconds")

    def total_days(self) -> Expr:
        """Give a duration in whole days."""
        return self._call("total_days")

    def total_hours(self) -> Expr:
        """Give a duration in whole hours."""
        return self._call("total_hours")

    def total_minutes(self) -> Expr:
        """Give a duration in whole minutes."""
        return self._call("total_minutes")

    def total_seconds(self) -> Expr:
        """Give a duration in whole seconds."""
        return self._call("total_seconds")

    def total_milliseconds(self) -> Expr:
        """Give a duration in whole milliseconds."""
        return self._call("total_milliseconds")

    def total_microseconds(self) -> Expr:
        """Give a duration in whole microseconds."""
        return self._call("total_microseconds")


class ListNamespace(_Namespace):
    """Functions of lists: ``col("l").list``.

    Examples
    --------
    >>> s = mill.from_iter([{"l": [1, 2, 3]}])
    >>> s.select(n=col("l").list.len(), last=col("l").list.get(-1)).collect().to_pylist()
    [{'n': 3, 'last': 3}]
    """

    __slots__ = ()
    _prefix = "list"

    def len(self) -> Expr:
        """Count the elements."""
        return self._call("len")

    def get(self, index: int | str | Expr, *, null_on_oob: bool = False) -> Expr:
        """Give the element at a place; a negative place counts from the end, a string is a column of places.

        Where there is no such place it is an error of the record, or null if ``null_on_oob``.
        """
        return self._call_columns("get", index, null_on_oob)

    def first(self) -> Expr:
        """Give the first element; null where there is none."""
        return self._call("first")

    def last(self) -> Expr:
        """Give the last element; null where there is none."""
        return self._call("last")

    def contains(self, value: Any) -> Expr:
        """Tell whether an element equals this value."""
        return self._call("contains", value)

    def join(self, separator: str) -> Expr:
        """Join texts."""
        return self._call("join", separator)

    def sum(self) -> Expr:
        """Add the elements; the sum of none is 0.

        Only the total decides whether a sum fits, and a sum of floats is the float nearest to the exact one.

        Examples
        --------
        >>> import millstream as mill
        >>> from millstream import col
        >>> mill.from_iter([[1e16, 1.0, -1e16]], schema=list[float]).select(s=col("value").list.sum()).collect()["s"]
        [1.0]
        """
        return self._call("sum")

    def mean(self) -> Expr:
        """Give the mean of the elements: the float nearest to the exact one; of none it is null."""
        return self._call("mean")

    def min(self) -> Expr:
        """Give the smallest element."""
        return self._call("min")

    def max(self) -> Expr:
        """Give the largest element."""
        return self._call("max")

    def sort(self, *, descending: bool = False) -> Expr:
        """Sort the elements; nulls come first."""
        return self._call("sort", descending)

    def reverse(self) -> Expr:
        """Give the elements in reverse order."""
        return self._call("reverse")

    def unique(self) -> Expr:
        """Give each element once: the first of those that are equal, as it is. ``-0.0`` equals ``0.0``, and NaN itself."""
        return self._call("unique")

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """Give a part of the list; a negative offset counts from the end."""
        return self._call("slice", offset) if length is None else self._call("slice", offset, length)

    def head(self, n: int) -> Expr:
        """Give the first elements."""
        return self._call("head", n)

    def tail(self, n: int) -> Expr:
        """Give the last elements."""
        return self._call("tail", n)

    def set_union(self, other: Expr | str) -> Expr:
        """Give what is in one of two lists, each once, the elements of this list first; of a null list null."""
        return self._call_columns("set_union", other)

    def set_intersection(self, other: Expr | str) -> Expr:
        """Give the elements of this list that are in the other too, each once; of a null list null."""
        return self._call_columns("set_intersection", other)

    def set_difference(self, other: Expr | str) -> Expr:
        """Give the elements of this list that are not in the other, each once; of a null list null."""
        return self._call_columns("set_difference", other)


class StructNamespace(_Namespace):
    """Functions of structs: ``col("s").struct``.

    Examples
    --------
    >>> s = mill.from_iter([{"at": {"x": 1, "y": 2}}])
    >>> s.select(col("at").struct.field("y")).collect().to_pylist()
    [{'y': 2}]
    """

    __slots__ = ()
    _prefix = "struct"

    def field(self, name: str) -> Expr:
        """Give one field."""
        return self._call("field", name)

    def __getitem__(self, name: str) -> Expr:
        """Give one field."""
        return self.field(name)


def _optional(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)
