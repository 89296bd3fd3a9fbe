"""Functions of text in expressions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream._namespaces.base import Namespace
from millstream.errors import SchemaError
from millstream.types import TypeLike, data_type

if TYPE_CHECKING:
    from millstream.expr import Expr

__all__ = ["StringNamespace"]


def _optional(value: str | None) -> tuple[str, ...]:
    return () if value is None else (value,)


class StringNamespace(Namespace):
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
            The text to put between two texts.

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
