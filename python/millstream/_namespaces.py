"""Functions of text, times, lists, structs and maps in expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream._engine import RawExpr
from millstream.errors import PlanError, SchemaError
from millstream.types import TypeLike, data_type

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["DateTimeNamespace", "ListNamespace", "MapNamespace", "StringNamespace", "StructNamespace"]


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
    """Functions of text: ``col("s").str``.

    Notes
    -----
    Null in, null out. A function of a column that is not text is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> s = mill.from_iter(["Big Fish"])
    >>> s.select(a=col("value").str.to_lowercase(), b=col("value").str.split(" ")).collect().to_pylist()
    [{'a': 'big fish', 'b': ['Big', 'Fish']}]
    """

    __slots__ = ()
    _prefix = "str"

    def to_lowercase(self) -> Expr:
        """Convert to lower case.

        Examples
        --------
        >>> mill.from_iter(["Big Fish"]).select(x=col("value").str.to_lowercase()).collect()["x"]
        ['big fish']
        """
        return self._call("to_lowercase")

    def to_uppercase(self) -> Expr:
        """Convert to upper case.

        Notes
        -----
        The mapping is Unicode's, so the number of characters may change: ``ß`` becomes ``SS``.

        Examples
        --------
        >>> mill.from_iter(["Big Fish"]).select(x=col("value").str.to_uppercase()).collect()["x"]
        ['BIG FISH']
        """
        return self._call("to_uppercase")

    def len_chars(self) -> Expr:
        """Count the characters (Unicode code points).

        Examples
        --------
        >>> mill.from_iter(["Aé"]).select(x=col("value").str.len_chars()).collect()["x"]
        [2]
        """
        return self._call("len_chars")

    def len_bytes(self) -> Expr:
        """Count the bytes of the UTF-8 encoding.

        Examples
        --------
        >>> mill.from_iter(["Aé"]).select(x=col("value").str.len_bytes()).collect()["x"]
        [3]
        """
        return self._call("len_bytes")

    def contains(self, pattern: str, *, literal: bool = False) -> Expr:
        """Test whether a pattern occurs in the text.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate, or plain text if ``literal``.
        literal
            Whether ``pattern`` is plain text.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression.

        Examples
        --------
        >>> mill.from_iter(["ab1", "abc"]).select(x=col("value").str.contains("[0-9]")).collect()["x"]
        [True, False]
        """
        return self._call("contains", pattern, literal)

    def starts_with(self, prefix: str | Expr) -> Expr:
        """Test whether the text starts with a prefix.

        Parameters
        ----------
        prefix
            The prefix: a string, which is taken literally, or an expression.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``prefix`` is not text.

        Examples
        --------
        >>> mill.from_iter(["apple", "pear"]).select(x=col("value").str.starts_with("ap")).collect()["x"]
        [True, False]
        """
        return self._call("starts_with", prefix)

    def ends_with(self, suffix: str | Expr) -> Expr:
        """Test whether the text ends with a suffix.

        Parameters
        ----------
        suffix
            The suffix: a string, which is taken literally, or an expression.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``suffix`` is not text.

        Examples
        --------
        >>> mill.from_iter(["a.csv", "a.txt"]).select(x=col("value").str.ends_with(".csv")).collect()["x"]
        [True, False]
        """
        return self._call("ends_with", suffix)

    def replace(self, pattern: str, value: str, *, literal: bool = False) -> Expr:
        """Replace the first match of a pattern.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate, or plain text if ``literal``.
        value
            The replacement. ``$1`` or ``${1}`` inserts what the first group matched, unless ``literal``.
        literal
            Whether ``pattern`` is plain text.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression.

        Examples
        --------
        >>> mill.from_iter(["a-b-c"]).select(x=col("value").str.replace("-", "+")).collect()["x"]
        ['a+b-c']
        """
        return self._call("replace", pattern, value, literal)

    def replace_all(self, pattern: str, value: str, *, literal: bool = False) -> Expr:
        """Replace all matches of a pattern.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate, or plain text if ``literal``.
        value
            The replacement. ``$1`` or ``${1}`` inserts what the first group matched, unless ``literal``.
        literal
            Whether ``pattern`` is plain text.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression.

        Examples
        --------
        >>> mill.from_iter(["2024-05"]).select(x=col("value").str.replace_all("([0-9]+)-([0-9]+)", "$2/$1")).collect()["x"]
        ['05/2024']
        """
        return self._call("replace_all", pattern, value, literal)

    def extract(self, pattern: str, group: int = 1) -> Expr:
        """Return what a group of a regular expression matched.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate.
        group
            The number of the group; 0 is the whole match.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression.

        Notes
        -----
        Only the first match counts. The result is null where nothing matches.

        Examples
        --------
        >>> mill.from_iter(["id=17", "none"]).select(x=col("value").str.extract("id=([0-9]+)")).collect()["x"]
        ['17', None]
        """
        return self._call("extract", pattern, group)

    def extract_groups(self, pattern: str) -> Expr:
        """Return what all groups of a regular expression matched, as a struct.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate, with at least one group. A group without a name is
            called by its number, ``"1"`` for the first.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression, or has no group.

        Notes
        -----
        Only the first match counts. The fields are null where nothing matches, or where their group took no part in the match.

        Examples
        --------
        >>> lines = mill.from_iter(["GET /a", "PUT /b"])
        >>> lines.select(x=col("value").str.extract_groups("(?<verb>[A-Z]+) (?<path>.*)")).collect()["x"]
        [{'verb': 'GET', 'path': '/a'}, {'verb': 'PUT', 'path': '/b'}]
        """
        return self._call("extract_groups", pattern)

    def json_decode(self, dtype: TypeLike, *, strict: bool = True) -> Expr:
        """Read the text as a JSON value of a type.

        Parameters
        ----------
        dtype
            The type: a Python type such as ``list[int]``, one of :mod:`millstream.types`, an Arrow type, or for an object
            a dict of its keys to types.
        strict
            Whether a text that is not JSON of this type is an error of its record. Otherwise it becomes null.

        Raises
        ------
        SchemaError
            When ``dtype`` is not a type, or when a step uses the expression and the type cannot be read from JSON.
        DataError
            When the job runs with ``strict`` and a text does not fit. The message names the place in the value.

        Notes
        -----
        Values are read as :func:`read_json` reads them: exactly, or not at all. Keys that the type does not have are left
        out, and keys that an object does not have are null.

        Examples
        --------
        >>> s = mill.from_iter(['{"id": 1, "tags": ["a"]}', '{"id": 2}'])
        >>> s.select(x=col("value").str.json_decode({"id": int, "tags": list[str]})).collect()["x"]
        [{'id': 1, 'tags': ['a']}, {'id': 2, 'tags': None}]
        """
        from millstream.expr import lit

        kind = data_type(dtype, place="json_decode()")
        if repr(kind) == "object":
            raise SchemaError(
                "json_decode() makes values of a type, and object is none: give the keys and their types, as in "
                "json_decode({'id': int}), or use map() with json.loads and schema={…: object}"
            )
        return self._call("json_decode", lit(None).cast(kind), strict)

    def json_path_match(self, path: str, *, strict: bool = True) -> Expr:
        """Return the value at a place within a JSON text, as text.

        Parameters
        ----------
        path
            Keys and places from ``$`` on, the whole value: ``"$.user.tags[0]"``, ``"$['first name']"``. A negative place
            counts from the end. Other parts of JSONPath, which find several values, are refused.
        strict
            Whether a text that is not JSON is an error of its record. Otherwise it becomes null.

        Raises
        ------
        PlanError
            When the expression is used in a step and the path is not one.
        DataError
            When the job runs with ``strict`` and a text is not JSON.

        Notes
        -----
        A string is returned without its quotes and escapes, and numbers, arrays and objects as they are written. The result
        is null where there is no such place, and of a JSON null. Of a key that an object has twice, the last counts.

        Examples
        --------
        >>> s = mill.from_iter(['{"user": {"tags": ["a", "b"]}}', "{}"])
        >>> s.select(x=col("value").str.json_path_match("$.user.tags[-1]")).collect()["x"]
        ['b', None]
        """
        return self._call("json_path_match", path, strict)

    def extract_all(self, pattern: str) -> Expr:
        """Return all matches of a regular expression as a list.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression.

        Examples
        --------
        >>> mill.from_iter(["a1b22", "c"]).select(x=col("value").str.extract_all("[0-9]+")).collect()["x"]
        [['1', '22'], []]
        """
        return self._call("extract_all", pattern)

    def split(self, by: str) -> Expr:
        """Split the text into a list at each occurrence of a separator.

        Parameters
        ----------
        by
            The separator, taken literally. An empty one splits the text into its characters.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``by`` is not text.

        Examples
        --------
        >>> mill.from_iter(["a,b", ""]).select(x=col("value").str.split(",")).collect()["x"]
        [['a', 'b'], ['']]
        """
        return self._call("split", by)

    def join(self, delimiter: str = "") -> Expr:
        """Join the texts of all records; an aggregate.

        Parameters
        ----------
        delimiter
            What stands between two texts.

        Notes
        -----
        Nulls are left out; of no text the result is empty. The order is that of :meth:`Expr.collect`: event time, or arrival.
        To join the texts of some records only, write ``col("s").collect().filter(condition).list.join(delimiter)``.

        Examples
        --------
        >>> mill.from_iter(["a", None, "b"]).agg(x=col("value").str.join("-")).collect()["x"]
        ['a-b']
        """
        return self._expr.collect().list.join(delimiter)

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """Return part of the text, by character positions.

        Parameters
        ----------
        offset
            The position of the first character, from 0. A negative offset counts from the end.
        length
            How many characters to return at most; by default all up to the end.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``offset`` or ``length`` is not an integer.

        Examples
        --------
        >>> mill.from_iter(["abcde"]).select(x=col("value").str.slice(1, 2)).collect()["x"]
        ['bc']
        """
        return self._call("slice", offset) if length is None else self._call("slice", offset, length)

    def head(self, n: int) -> Expr:
        """Return the first characters.

        Parameters
        ----------
        n
            How many characters. A negative number leaves out that many at the end.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``n`` is not an integer.

        Examples
        --------
        >>> mill.from_iter(["abcde"]).select(x=col("value").str.head(2)).collect()["x"]
        ['ab']
        """
        return self._call("head", n)

    def tail(self, n: int) -> Expr:
        """Return the last characters.

        Parameters
        ----------
        n
            How many characters. A negative number leaves out that many at the start.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``n`` is not an integer.

        Examples
        --------
        >>> mill.from_iter(["abcde"]).select(x=col("value").str.tail(2)).collect()["x"]
        ['de']
        """
        return self._call("tail", n)

    def strip_chars(self, characters: str | None = None) -> Expr:
        """Remove white space or given characters from both ends.

        Parameters
        ----------
        characters
            The characters to remove, in any order; by default all white space.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``characters`` is not text.

        Examples
        --------
        >>> mill.from_iter([" a ", "b"]).select(x=col("value").str.strip_chars()).collect()["x"]
        ['a', 'b']
        """
        return self._call("strip_chars", *_optional(characters))

    def strip_chars_start(self, characters: str | None = None) -> Expr:
        """Remove white space or given characters from the start.

        Parameters
        ----------
        characters
            The characters to remove, in any order; by default all white space.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``characters`` is not text.

        Examples
        --------
        >>> mill.from_iter(["00120"]).select(x=col("value").str.strip_chars_start("0")).collect()["x"]
        ['120']
        """
        return self._call("strip_chars_start", *_optional(characters))

    def strip_chars_end(self, characters: str | None = None) -> Expr:
        """Remove white space or given characters from the end.

        Parameters
        ----------
        characters
            The characters to remove, in any order; by default all white space.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``characters`` is not text.

        Examples
        --------
        >>> mill.from_iter(["1.500"]).select(x=col("value").str.strip_chars_end("0")).collect()["x"]
        ['1.5']
        """
        return self._call("strip_chars_end", *_optional(characters))

    def pad_start(self, length: int, fill_char: str = " ") -> Expr:
        """Pad the text at the start to a minimum length.

        Parameters
        ----------
        length
            How many characters the result has at least. Longer text is returned unchanged.
        fill_char
            The character to fill with.

        Raises
        ------
        PlanError
            When the expression is used in a step and ``length`` is not between 0 and 1048576, or ``fill_char`` is not one character.

        Examples
        --------
        >>> mill.from_iter(["7"]).select(x=col("value").str.pad_start(3, ".")).collect()["x"]
        ['..7']
        """
        return self._call("pad_start", length, fill_char)

    def pad_end(self, length: int, fill_char: str = " ") -> Expr:
        """Pad the text at the end to a minimum length.

        Parameters
        ----------
        length
            How many characters the result has at least. Longer text is returned unchanged.
        fill_char
            The character to fill with.

        Raises
        ------
        PlanError
            When the expression is used in a step and ``length`` is not between 0 and 1048576, or ``fill_char`` is not one character.

        Examples
        --------
        >>> mill.from_iter(["7"]).select(x=col("value").str.pad_end(3, ".")).collect()["x"]
        ['7..']
        """
        return self._call("pad_end", length, fill_char)

    def reverse(self) -> Expr:
        """Reverse the order of the characters.

        Examples
        --------
        >>> mill.from_iter(["abc"]).select(x=col("value").str.reverse()).collect()["x"]
        ['cba']
        """
        return self._call("reverse")

    def to_integer(self, *, base: int = 10, strict: bool = True) -> Expr:
        """Parse the text as an integer.

        Parameters
        ----------
        base
            The base, from 2 to 36.
        strict
            Whether text that is not an integer is an error of its record. Otherwise it becomes null.

        Raises
        ------
        DataError
            When the job runs with ``strict`` and a value is not an integer in this base, or does not fit in 64 bits.

        Examples
        --------
        >>> mill.from_iter(["ff", "x"]).select(x=col("value").str.to_integer(base=16, strict=False)).collect()["x"]
        [255, None]
        """
        return self._call("to_integer", base, strict)

    def to_titlecase(self) -> Expr:
        """Convert the first letter of each word to upper case, and the others to lower case.

        Examples
        --------
        >>> mill.from_iter(["big FISH"]).select(x=col("value").str.to_titlecase()).collect()["x"]
        ['Big Fish']
        """
        return self._call("to_titlecase")

    def strip_prefix(self, prefix: str) -> Expr:
        """Remove a prefix, where the text has it.

        Parameters
        ----------
        prefix
            The prefix, taken literally.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``prefix`` is not text.

        Examples
        --------
        >>> mill.from_iter(["id-7", "7"]).select(x=col("value").str.strip_prefix("id-")).collect()["x"]
        ['7', '7']
        """
        return self._call("strip_prefix", prefix)

    def strip_suffix(self, suffix: str) -> Expr:
        """Remove a suffix, where the text has it.

        Parameters
        ----------
        suffix
            The suffix, taken literally.

        Raises
        ------
        SchemaError
            When the expression is used in a step and ``suffix`` is not text.

        Examples
        --------
        >>> mill.from_iter(["5 kg", "5"]).select(x=col("value").str.strip_suffix(" kg")).collect()["x"]
        ['5', '5']
        """
        return self._call("strip_suffix", suffix)

    def zfill(self, length: int) -> Expr:
        """Pad a number with zeros after its sign to a minimum length.

        Parameters
        ----------
        length
            How many characters the result has at least. Longer text is returned unchanged.

        Raises
        ------
        PlanError
            When the expression is used in a step and ``length`` is not between 0 and 1048576.

        Examples
        --------
        >>> mill.from_iter(["7", "-7"]).select(x=col("value").str.zfill(3)).collect()["x"]
        ['007', '-07']
        """
        return self._call("zfill", length)

    def find(self, pattern: str, *, literal: bool = False) -> Expr:
        """Return the position of the first match of a pattern, in bytes from the start.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate, or plain text if ``literal``.
        literal
            Whether ``pattern`` is plain text.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression.

        Notes
        -----
        The result is null where nothing matches. Positions count bytes of UTF-8, as in Polars.

        Examples
        --------
        >>> mill.from_iter(["abc", "xyz"]).select(x=col("value").str.find("c")).collect()["x"]
        [2, None]
        """
        return self._call("find", pattern, literal)

    def count_matches(self, pattern: str, *, literal: bool = False) -> Expr:
        """Count the matches of a pattern that do not overlap.

        Parameters
        ----------
        pattern
            A regular expression in the syntax of Rust's ``regex`` crate, or plain text if ``literal``.
        literal
            Whether ``pattern`` is plain text.

        Raises
        ------
        PlanError
            When the expression is used in a step and the pattern is not a valid regular expression.

        Examples
        --------
        >>> mill.from_iter(["a1b22"]).select(x=col("value").str.count_matches("[0-9]+")).collect()["x"]
        [2]
        """
        return self._call("count_matches", pattern, literal)

    def to_datetime(self, format: str | None = None, *, time_unit: str = "us", strict: bool = True) -> Expr:
        """Parse the text as a point in time.

        Parameters
        ----------
        format
            A format of Python's ``strptime``; by default ISO 8601 is read. A format with an offset (``%z``) returns times in UTC.
        time_unit
            The unit of the result: ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``.
        strict
            Whether text that is not a time is an error of its record. Otherwise it becomes null.

        Raises
        ------
        DataError
            When the job runs with ``strict`` and a value does not match the format, has digits finer than ``time_unit``,
            or has an offset where none is expected.

        Notes
        -----
        A format reads what ``datetime.strptime`` reads in the C locale, with the digits 0 to 9. Fields that it does not name
        are those of 1900-01-01 00:00:00. In addition ``%F``, ``%T``, ``%R``, ``%D`` and ``%e`` are read, and ``%.f``: a decimal
        point with up to nine digits, or nothing.

        Examples
        --------
        >>> mill.from_iter(["17.05.24 12:30"]).select(t=col("value").str.to_datetime("%d.%m.%y %H:%M")).collect()["t"]
        [datetime.datetime(2024, 5, 17, 12, 30)]
        """
        return self._call("to_datetime", format, time_unit, strict)

    def to_date(self, format: str | None = None, *, strict: bool = True) -> Expr:
        """Parse the text as a date.

        Parameters
        ----------
        format
            A format of Python's ``strptime``; by default ISO 8601 is read.
        strict
            Whether text that is not a date is an error of its record. Otherwise it becomes null.

        Raises
        ------
        DataError
            When the job runs with ``strict`` and a value is not a date in this format.

        Examples
        --------
        >>> mill.from_iter(["2024-05-17"]).select(x=col("value").str.to_date()).collect()["x"]
        [datetime.date(2024, 5, 17)]
        """
        return self._call("to_date", format, strict)


class DateTimeNamespace(_Namespace):
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


class ListNamespace(_Namespace):
    """Functions of lists: ``col("l").list``.

    Notes
    -----
    Null in, null out. A function of a column that is not a list is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> s = mill.from_iter([{"l": [1, 2, 3]}])
    >>> s.select(n=col("l").list.len(), last=col("l").list.get(-1)).collect().to_pylist()
    [{'n': 3, 'last': 3}]
    """

    __slots__ = ()
    _prefix = "list"

    def len(self) -> Expr:
        """Count the elements, nulls included.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.len()).collect()["x"]
        [3]
        """
        return self._call("len")

    def get(self, index: int | str | Expr, *, null_on_oob: bool = False) -> Expr:
        """Return the element at a position.

        Parameters
        ----------
        index
            The position, from 0. A negative position counts from the end. A string is the name of a column of positions.
        null_on_oob
            Whether a position outside of the list returns null.

        Raises
        ------
        DataError
            When the job runs without ``null_on_oob`` and a list has no such position.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.get(-1)).collect()["x"]
        [8]
        """
        return self._call_columns("get", index, null_on_oob)

    def first(self) -> Expr:
        """Return the first element; null if the list is empty.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.first()).collect()["x"]
        [3]
        """
        return self._call("first")

    def last(self) -> Expr:
        """Return the last element; null if the list is empty.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.last()).collect()["x"]
        [5]
        """
        return self._call("last")

    def contains(self, value: Any) -> Expr:
        """Test whether an element equals a value.

        Parameters
        ----------
        value
            The value to look for, or an expression.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.contains(5)).collect()["x"]
        [True]
        """
        return self._call("contains", value)

    def join(self, separator: str) -> Expr:
        """Join the elements of a list of text.

        Parameters
        ----------
        separator
            What is put between two elements.

        Notes
        -----
        Null elements are left out.

        Examples
        --------
        >>> mill.from_iter([{"l": ["a", None, "b"]}]).select(x=col("l").list.join("-")).collect()["x"]
        ['a-b']
        """
        return self._call("join", separator)

    def sum(self) -> Expr:
        """Add the elements; the sum of an empty list is 0.

        Raises
        ------
        DataError
            When the job runs and a total does not fit the type of the result.

        Notes
        -----
        Nulls are skipped. Intermediate sums never overflow, and a sum of floats is the float nearest to the exact sum.

        Examples
        --------
        >>> mill.from_iter([{"l": [1e16, 1.0, -1e16]}]).select(x=col("l").list.sum()).collect()["x"]
        [1.0]
        """
        return self._call("sum")

    def mean(self) -> Expr:
        """Return the mean of the elements; null if there are none.

        Notes
        -----
        Nulls are skipped. The result is the float nearest to the exact mean.

        Examples
        --------
        >>> mill.from_iter([{"l": [1, 2, None]}]).select(x=col("l").list.mean()).collect()["x"]
        [1.5]
        """
        return self._call("mean")

    def min(self) -> Expr:
        """Return the smallest element; null if there are none.

        Notes
        -----
        Nulls are skipped. NaN is greater than any number.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.min()).collect()["x"]
        [1]
        """
        return self._call("min")

    def max(self) -> Expr:
        """Return the largest element; null if there are none.

        Notes
        -----
        Nulls are skipped. NaN is greater than any number.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.max()).collect()["x"]
        [3]
        """
        return self._call("max")

    def sort(self, *, descending: bool = False) -> Expr:
        """Sort the elements; nulls come first.

        Parameters
        ----------
        descending
            Whether to sort from the largest to the smallest. Nulls come first in either direction.

        Notes
        -----
        NaN is greater than any number.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, None, 1]}]).select(x=col("l").list.sort()).collect()["x"]
        [[None, 1, 3]]
        """
        return self._call("sort", descending)

    def eval(self, expr: Expr) -> Expr:
        """Apply an expression to each element.

        Parameters
        ----------
        expr
            An expression of :func:`millstream.element`, which is each element in turn.

        Raises
        ------
        PlanError
            When the expression is used in a step and has a column of the stream, an aggregate or a function of yours in it.
        DataError
            When the job runs and the expression fails for an element: an error of the record.

        Examples
        --------
        >>> s = mill.from_iter([{"l": ["3", "x"]}])
        >>> s.select(x=col("l").list.eval(mill.element().cast(int, strict=False).fill_null(0))).collect()["x"]
        [[3, 0]]
        """
        from millstream.expr import Expr

        if not isinstance(expr, Expr):
            raise PlanError(f"list.eval() takes an expression of mill.element(), as in mill.element() * 2, not {expr!r:.200}")
        return Expr(RawExpr.list_eval(self._expr._raw, expr._raw))

    def mode(self) -> Expr:
        """Return the elements that occur most often, in their order; nulls are skipped.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 1, 3, None, 1]}]).select(x=col("l").list.mode()).collect()["x"]
        [[1, 3]]
        """
        return self._call("mode")

    def reverse(self) -> Expr:
        """Reverse the order of the elements.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5]}]).select(x=col("l").list.reverse()).collect()["x"]
        [[5, 3]]
        """
        return self._call("reverse")

    def unique(self) -> Expr:
        """Remove duplicates, and keep the first of equal elements.

        Notes
        -----
        The order stays. ``-0.0`` equals ``0.0``, NaN equals NaN and null equals null.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 1, 3]}]).select(x=col("l").list.unique()).collect()["x"]
        [[3, 1]]
        """
        return self._call("unique")

    def slice(self, offset: int, length: int | None = None) -> Expr:
        """Return part of the list.

        Parameters
        ----------
        offset
            The position of the first element, from 0. A negative offset counts from the end.
        length
            How many elements to return at most; by default all up to the end.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.slice(1, 2)).collect()["x"]
        [[5, 8]]
        """
        return self._call("slice", offset) if length is None else self._call("slice", offset, length)

    def head(self, n: int) -> Expr:
        """Return the first elements.

        Parameters
        ----------
        n
            How many elements. A negative number leaves out that many at the end.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.head(2)).collect()["x"]
        [[3, 5]]
        """
        return self._call("head", n)

    def tail(self, n: int) -> Expr:
        """Return the last elements.

        Parameters
        ----------
        n
            How many elements. A negative number leaves out that many at the start.

        Examples
        --------
        >>> mill.from_iter([{"l": [3, 5, 8]}]).select(x=col("l").list.tail(2)).collect()["x"]
        [[5, 8]]
        """
        return self._call("tail", n)

    def set_union(self, other: Expr | str) -> Expr:
        """Return the elements that are in either of two lists, each once.

        Parameters
        ----------
        other
            The other list: the name of a column, or an expression.

        Notes
        -----
        The elements of this list come first, in their order. The result is null if one of the lists is null.

        Examples
        --------
        >>> s = mill.from_iter([{"l": [3, 1, 3], "m": [1, 5]}])
        >>> s.select(x=col("l").list.set_union("m")).collect()["x"]
        [[3, 1, 5]]
        """
        return self._call_columns("set_union", other)

    def set_intersection(self, other: Expr | str) -> Expr:
        """Return the elements that are in both lists, each once.

        Parameters
        ----------
        other
            The other list: the name of a column, or an expression.

        Notes
        -----
        The elements have the order of this list. The result is null if one of the lists is null.

        Examples
        --------
        >>> s = mill.from_iter([{"l": [3, 1, 3], "m": [1, 5]}])
        >>> s.select(x=col("l").list.set_intersection("m")).collect()["x"]
        [[1]]
        """
        return self._call_columns("set_intersection", other)

    def set_difference(self, other: Expr | str) -> Expr:
        """Return the elements of this list that are not in the other one, each once.

        Parameters
        ----------
        other
            The other list: the name of a column, or an expression.

        Notes
        -----
        The elements have the order of this list. The result is null if one of the lists is null.

        Examples
        --------
        >>> s = mill.from_iter([{"l": [3, 1, 3], "m": [1, 5]}])
        >>> s.select(x=col("l").list.set_difference("m")).collect()["x"]
        [[3]]
        """
        return self._call_columns("set_difference", other)


class StructNamespace(_Namespace):
    """Functions of structs: ``col("s").struct``.

    Notes
    -----
    Null in, null out. A field that does not exist is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> s = mill.from_iter([{"at": {"x": 1, "y": 2}}])
    >>> s.select(col("at").struct.field("y")).collect().to_pylist()
    [{'y': 2}]
    """

    __slots__ = ()
    _prefix = "struct"

    def field(self, name: str) -> Expr:
        """Return one field of a struct.

        Parameters
        ----------
        name
            The name of the field.

        Notes
        -----
        ``col("at").struct["y"]`` is the same.

        Examples
        --------
        >>> mill.from_iter([{"at": {"x": 1, "y": 2}}]).select(y=col("at").struct.field("y")).collect()["y"]
        [2]
        """
        return self._call("field", name)

    def json_encode(self) -> Expr:
        """Write each struct as a JSON object.

        Raises
        ------
        SchemaError
            When the expression is used in a step and the column is not a struct.

        Notes
        -----
        Values have the form in which :meth:`Stream.write_json` writes them, so :meth:`StringNamespace.json_decode` reads them
        back. A null is null, and not the text ``null``.

        Examples
        --------
        >>> s = mill.from_iter([{"p": {"x": 1, "tags": ["a", None]}}])
        >>> s.select(x=col("p").struct.json_encode()).collect()["x"]
        ['{"x":1,"tags":["a",null]}']
        """
        return self._call("json_encode")

    def __getitem__(self, name: str) -> Expr:
        """Return one field; the same as :meth:`field`."""
        return self.field(name)


def _optional(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


class MapNamespace(_Namespace):
    """Functions of maps: ``col("m").map``.

    Notes
    -----
    Null in, null out. A function of a column that is not a map is a :class:`SchemaError` of the step that uses it.

    Examples
    --------
    >>> import pyarrow as pa
    >>> tags = pa.array([[("env", "prod"), ("zone", "a")], []], pa.map_(pa.string(), pa.string()))
    >>> s = mill.from_arrow(pa.table({"tags": tags}))
    >>> s.select(env=col("tags").map.get("env"), n=col("tags").map.len()).collect().to_pylist()
    [{'env': 'prod', 'n': 2}, {'env': None, 'n': 0}]
    """

    __slots__ = ()
    _prefix = "map"

    def get(self, key: Any) -> Expr:
        """Return the value of a key; null if the map does not have it.

        Parameters
        ----------
        key
            A constant, or an expression.

        Notes
        -----
        Of a key that a map has twice, the value of the last is returned.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34)]], pa.map_(pa.string(), pa.int64()))
        >>> s = mill.from_arrow(pa.table({"ages": ages, "who": ["ann"]}))
        >>> s.select(x=col("ages").map.get("ann"), y=col("ages").map.get(col("who"))).collect().to_pylist()
        [{'x': 34, 'y': 34}]
        """
        return self._call("get", key)

    def contains_key(self, key: Any) -> Expr:
        """Return whether a map has a key.

        Parameters
        ----------
        key
            A constant, or an expression.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.contains_key("bob")).collect()["x"]
        [False]
        """
        return self._call("contains_key", key)

    def keys(self) -> Expr:
        """Return the keys as a list, in the order of the map.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34), ("bob", None)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.keys()).collect()["x"]
        [['ann', 'bob']]
        """
        return self._call("keys")

    def values(self) -> Expr:
        """Return the values as a list, in the order of the map.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34), ("bob", None)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.values()).collect()["x"]
        [[34, None]]
        """
        return self._call("values")

    def len(self) -> Expr:
        """Count the entries.

        Examples
        --------
        >>> import pyarrow as pa
        >>> ages = pa.array([[("ann", 34)]], pa.map_(pa.string(), pa.int64()))
        >>> mill.from_arrow(pa.table({"ages": ages})).select(x=col("ages").map.len()).collect()["x"]
        [1]
        """
        return self._call("len")
