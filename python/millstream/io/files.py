"""Sources of files: text, CSV, JSON lines and Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from millstream._counts import count
from millstream._engine import read_files
from millstream._paths import file_or_object
from millstream._reading import CsvReading, Reading, reading
from millstream._texts import character, choice, flag, optional_text, text, texts
from millstream.errors import PlanError
from millstream.stream import Stream
from millstream.types import SchemaLike, schema_of

__all__ = ["read_arrow", "read_csv", "read_json", "read_parquet", "read_text"]

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
Encoding = Literal["utf8", "utf8-lossy"]
JsonLayout = Literal["auto", "lines", "values"]
MissingColumns = Literal["raise", "insert"]
NullValues = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None


def _paths(path: Paths, reader: str) -> list[str]:
    if isinstance(path, (str, os.PathLike)):
        return [file_or_object(path, f"{reader}()")]
    if isinstance(path, (bytes, bytearray)) or not isinstance(path, Iterable):
        raise PlanError(f"{reader}() takes a path, a glob, or a list of them, not {path!r:.80}")
    paths = [file_or_object(item, f"{reader}()") for item in path]
    if not paths:
        raise PlanError(f"{reader}() was given no path")
    return paths


def _read(
    kind: str,
    path: Paths,
    schema: SchemaLike,
    reading: Reading,
    csv: CsvReading | None = None,
    layout: JsonLayout | None = None,
) -> Stream:
    declared = None if schema is None else schema_of(schema)._raw
    return Stream(read_files(kind, _paths(path, f"read_{kind}"), declared, reading, csv, layout))


def read_text(
    path: Paths,
    *,
    recursive: bool = False,
    include_file_paths: str | None = None,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    hive_partitioning: bool = False,
    hive_schema: SchemaLike = None,
    follow: bool = False,
) -> Stream:
    """Read lines of text as a column ``line``.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them. Files ending in ``.gz``, ``.zst``, ``.bz2``, ``.xz`` and ``.lz4`` are
        decompressed. ``~`` is the home directory. A file is the same file however its path is written: relative or absolute,
        with dots, or through links. ``"-"`` is standard input, which is read once, as it comes, and without options about files.
        ``"s3://bucket/in/*.txt"`` and URLs of other object stores are read in the same way; :func:`storage` sets credentials.
    recursive
        Whether the files of a directory are also those of the directories in it, at any depth.
    include_file_paths
        The name of a column to add with the absolute path of the file that a record is from.
    row_index_name
        The name of a column to add with the number of a record in its file.
    row_index_offset
        The number of the first record of each file.
    hive_partitioning
        Whether directories named ``key=value`` are columns. Directories are then looked into as with ``recursive``.
    hive_schema
        The types of these columns; by default a type that holds the values of all files.
    follow
        Whether to wait for new files and for files that grow, without end. Of objects of a store: whether to wait for new objects.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths, an option is not one of its choices, or options contradict each other.
    SchemaError
        When partitions are not those of all files, or an added column has the name of another.
    ConnectorError
        When no file is found, or the job runs and a file cannot be read, or has changed where the job had read it.
    DataError
        When the job runs and a line is not UTF-8; ``on_error`` can skip or route such records.

    Notes
    -----
    Each file is a split with its own order and watermark. Files with numbered rows are each read by one task, and records
    that cannot be read are not counted.

    The key of a partition is null in a directory ``key=__HIVE_DEFAULT_PARTITION__``; ``%`` and two hexadecimal digits in its
    value stand for a byte. All files must have the same keys. A column of the files with the name of a key is not read.

    Followed files are read as by ``tail -F``: a file that is renamed is read on, another file under its old name is a new
    one, a file that is truncated or rewritten is read from its start, and a file that was read may be deleted. Compressed
    files may be appended to by whole members, streams or frames.

    A bounded job that is resumed reads what it has not read yet of the files as they are then. It refuses a file that was
    changed where the job had read it, and an input that includes the output of the same job.

    Examples
    --------
    >>> with open("some.txt", "w") as file:
    ...     _ = file.write("one\\ntwo\\n")
    >>> mill.read_text("some.txt").collect().to_pylist()
    [{'line': 'one'}, {'line': 'two'}]
    >>> mill.read_text("some.txt", row_index_name="number", row_index_offset=1).collect().to_pylist()
    [{'number': 1, 'line': 'one'}, {'number': 2, 'line': 'two'}]
    """
    options = reading(
        "read_text",
        follow=follow,
        recursive=recursive,
        include_file_paths=include_file_paths,
        row_index_name=row_index_name,
        row_index_offset=row_index_offset,
        hive_partitioning=hive_partitioning,
        hive_schema=hive_schema,
    )
    return _read("text", path, None, options)


def read_csv(
    path: Paths,
    *,
    schema: SchemaLike = None,
    columns: Sequence[str] | None = None,
    has_header: bool = True,
    separator: str = ",",
    quote_char: str | None = '"',
    escape_char: str | None = None,
    comment_prefix: str | None = None,
    skip_lines: int = 0,
    skip_rows: int = 0,
    skip_rows_after_header: int = 0,
    new_columns: Sequence[str] | None = None,
    null_values: NullValues = None,
    truncate_ragged_lines: bool = False,
    try_parse_dates: bool = True,
    decimal_comma: bool = False,
    encoding: Encoding = "utf8",
    missing_columns: MissingColumns = "raise",
    recursive: bool = False,
    include_file_paths: str | None = None,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    hive_partitioning: bool = False,
    hive_schema: SchemaLike = None,
    follow: bool = False,
) -> Stream:
    r"""Read CSV files.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them, as for :func:`read_text`; ``"-"`` is standard input.
    schema
        The columns of the files; by default they are inferred from samples of the files.
    columns
        The names of the columns to read, in this order; by default all. Of other columns neither the types nor whether all files
        have them matters.
    has_header
        Whether the first row of each file names the columns. Without a header they are ``column_1``, ``column_2`` and so on,
        or what ``schema`` or ``new_columns`` names.
    separator
        The character between fields.
    quote_char
        The character that encloses fields; two of them inside a quoted field stand for one. None if quotes have no meaning.
    escape_char
        A character inside quoted fields that makes the next one stand for itself, such as ``"\\"``.
    comment_prefix
        What a line begins with that is not read, such as ``"#"``.
    skip_lines
        How many lines to skip at the start of each file, whatever they hold.
    skip_rows
        How many rows to skip at the start of each file, before the header. Comments do not count, and a line break in quotes
        ends no row.
    skip_rows_after_header
        How many rows to skip after the header.
    new_columns
        Names for all columns, instead of those in the header. All files must then have the same header.
    null_values
        Fields that mean null, besides the empty field: a text, a list of them, or a dict from columns to either.
    truncate_ragged_lines
        Whether to drop the fields of a row that are too many, and to read null where some are missing at its end. By default
        such a row is an error.
    try_parse_dates
        Whether columns of dates and times are inferred as such, and not as text.
    decimal_comma
        Whether numbers have a comma where others have a point, as in ``1,5``. The separator must be another character.
    encoding
        ``"utf8"``, or ``"utf8-lossy"`` to replace bytes that are not UTF-8 by ``"\ufffd"``.
    missing_columns
        What a file without one of the columns is: ``"raise"`` for an error, ``"insert"`` to read null for the column.
    recursive, include_file_paths, row_index_name, row_index_offset, hive_partitioning, hive_schema
        As for :func:`read_text`.
    follow
        Whether to wait for new files and for files that grow, as for :func:`read_text`.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths, an option is not one of its choices, or options contradict each other.
    SchemaError
        When ``schema`` is not a schema, or does not fit the header of a file, or a column is named that does not exist.
    ConnectorError
        When no file is found, or a file cannot be read.
    DataError
        When the job runs and a line is malformed, or a value does not fit its column; ``on_error`` can skip or route such
        records. The message names file and line.

    Notes
    -----
    An empty field is null. ``""`` is empty text, and null in a column that is not text. No value changes on its way in:
    integers with leading zeros or a plus sign are inferred as text, integers beyond 64 bits as decimals. Times are read as
    ISO 8601, or as a number that counts units of the column's type.

    Examples
    --------
    >>> with open("some.csv", "w") as file:
    ...     _ = file.write("a,b\n1,x\n")
    >>> mill.read_csv("some.csv").collect().to_pylist()
    [{'a': 1, 'b': 'x'}]

    A file as spreadsheets write it in Germany, below a line that is not part of the table:

    >>> with open("export.csv", "w") as file:
    ...     _ = file.write("Export\nname;price\nTee;2,50\nKaffee;n/a\n")
    >>> mill.read_csv("export.csv", separator=";", decimal_comma=True, skip_lines=1, null_values="n/a").collect().to_pylist()
    [{'name': 'Tee', 'price': 2.5}, {'name': 'Kaffee', 'price': None}]
    """
    nulls, column_nulls = _null_values(null_values)
    csv: CsvReading = {
        "separator": character(separator, "read_csv(separator=…)", ";"),
        "quote_char": None if quote_char is None else character(quote_char, "read_csv(quote_char=…)", "'"),
        "escape_char": None if escape_char is None else character(escape_char, "read_csv(escape_char=…)", "\\"),
        "has_header": flag(has_header, "read_csv(has_header=…)"),
        "new_columns": None if new_columns is None else texts(new_columns, "read_csv(new_columns=…)"),
        "skip_lines": count(skip_lines, "read_csv(skip_lines=…) takes a number of lines"),
        "skip_rows": count(skip_rows, "read_csv(skip_rows=…) takes a number of rows"),
        "skip_rows_after_header": count(skip_rows_after_header, "read_csv(skip_rows_after_header=…) takes a number of rows"),
        "comment_prefix": optional_text(comment_prefix, "read_csv(comment_prefix=…)", "#"),
        "null_values": nulls,
        "column_nulls": column_nulls,
        "truncate_ragged_lines": flag(truncate_ragged_lines, "read_csv(truncate_ragged_lines=…)"),
        "try_parse_dates": flag(try_parse_dates, "read_csv(try_parse_dates=…)"),
        "decimal_comma": flag(decimal_comma, "read_csv(decimal_comma=…)"),
        "is_lossy": _is_lossy(encoding),
    }
    options = reading(
        "read_csv",
        follow=follow,
        columns=columns,
        missing_columns=missing_columns,
        recursive=recursive,
        include_file_paths=include_file_paths,
        row_index_name=row_index_name,
        row_index_offset=row_index_offset,
        hive_partitioning=hive_partitioning,
        hive_schema=hive_schema,
    )
    return _read("csv", path, schema, options, csv)


def _null_values(value: Any) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the texts that mean null in all columns, and those of single columns."""
    place = "read_csv(null_values=…)"
    if value is None:
        return [], []
    if isinstance(value, Mapping):
        return [], [(text(name, place, "price"), texts(nulls, place, "n/a")) for name, nulls in value.items()]
    return texts(value, place, "n/a"), []


def _is_lossy(encoding: Any) -> bool:
    if not isinstance(encoding, str) or encoding not in ("utf8", "utf8-lossy"):
        raise PlanError(
            f"read_csv() reads UTF-8, and encoding is {encoding!r:.80}: convert the file first, as in "
            '"iconv -f latin1 -t utf-8 in.csv > out.csv", or read it with encoding="utf8-lossy", which replaces what is not UTF-8'
        )
    return encoding == "utf8-lossy"


def read_json(
    path: Paths,
    *,
    schema: SchemaLike = None,
    columns: Sequence[str] | None = None,
    format: JsonLayout = "auto",
    recursive: bool = False,
    include_file_paths: str | None = None,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    hive_partitioning: bool = False,
    hive_schema: SchemaLike = None,
    follow: bool = False,
) -> Stream:
    """Read JSON files: a record in each line, an array of records, or records one after another.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them, as for :func:`read_text`; ``"-"`` is standard input.
    schema
        The columns; by default they are inferred from samples of the files. Keys that a schema leaves out are ignored; a
        key that inferred columns do not have is an error of its record.
    columns
        The names of the columns to read, in this order; by default all. Of other columns neither the types nor whether all files
        have them matters.
    format
        ``"lines"`` for one record in each line; ``"values"`` for records one after another or in an array, whatever their line
        breaks. By default a file that begins with ``[`` is an array, and any other one has lines.
    recursive, include_file_paths, row_index_name, row_index_offset, hive_partitioning, hive_schema
        As for :func:`read_text`.
    follow
        Whether to wait for new files and for files that grow, as for :func:`read_text`.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths, an option is not one of its choices, or options contradict each other.
    SchemaError
        When ``schema`` is not a schema, no columns can be inferred, or a column is named that does not exist.
    ConnectorError
        When no file is found, or a file cannot be read.
    DataError
        When the job runs and a line is malformed, or a value does not fit its column; ``on_error`` can skip or route such
        records. The message names file and line.

    Notes
    -----
    Large files of lines are read by all tasks at once, other ones by one task. A file of values that is cut off, or has no JSON
    between two values, is an error of the job, because it is not clear which values belong together.

    A column of text takes values of any kind, as they are written in the file; columns of several kinds are inferred as
    text. Times are read as ISO 8601, or as a number that counts units of the column's type; durations as ISO 8601
    (``"PT90.5S"``); bytes as hexadecimal digits; floats also from the texts ``"NaN"`` and ``"Infinity"``.

    Examples
    --------
    >>> with open("some.json", "w") as file:
    ...     _ = file.write('{"a": 1}\\n')
    >>> mill.read_json("some.json").collect().to_pylist()
    [{'a': 1}]
    >>> with open("array.json", "w") as file:
    ...     _ = file.write('[{"a": 1},\\n {"a": 2}]')
    >>> mill.read_json("array.json").collect().to_pylist()
    [{'a': 1}, {'a': 2}]
    """
    choice(format, "read_json(format=…)", "auto", "lines", "values")
    options = reading(
        "read_json",
        follow=follow,
        columns=columns,
        recursive=recursive,
        include_file_paths=include_file_paths,
        row_index_name=row_index_name,
        row_index_offset=row_index_offset,
        hive_partitioning=hive_partitioning,
        hive_schema=hive_schema,
    )
    return _read("json", path, schema, options, layout=format)


def read_parquet(
    path: Paths,
    *,
    schema: SchemaLike = None,
    columns: Sequence[str] | None = None,
    missing_columns: MissingColumns = "raise",
    recursive: bool = False,
    include_file_paths: str | None = None,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    hive_partitioning: bool = False,
    hive_schema: SchemaLike = None,
    follow: bool = False,
) -> Stream:
    """Read Parquet files.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them, as for :func:`read_text`.
    schema
        The columns to read and their types. By default all columns, each in the type that holds the values of all files.
        None can be ``object``, since unpickling bytes of a file could run any code.
    columns
        The names of the columns to read, in this order; by default all. Of other columns neither the types nor whether all files
        have them matters.
    missing_columns
        What a file without one of the columns is: ``"raise"`` for an error, ``"insert"`` to read null for the column.
    recursive, include_file_paths, row_index_name, row_index_offset, hive_partitioning, hive_schema
        As for :func:`read_text`.
    follow
        Whether to wait for new files or objects, without end. One that is replaced is read as a new one.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths, an option is not one of its choices, or options contradict each other.
    SchemaError
        When ``schema`` is not a schema, a column is named that does not exist, or files have types with nothing in common,
        such as text and numbers, or times with and without a zone.
    ConnectorError
        When no file is found, or a file cannot be read, or is not a complete Parquet file.
    DataError
        When the job runs and a value does not fit its column; ``on_error`` can skip or route such records. The message
        names file, row, column and value.

    Notes
    -----
    No value changes on its way in. Where files differ, integers are read in the wider type, integers and floats as
    ``float64``, times in the finer unit.

    ``INT96`` times are read as ``timestamp[ns]``; for years before 1677 or after 2262, use ``mill.Timestamp("us")``. Maps
    become lists of pairs of key and value. Decimals with more digits than their type are errors of their record. Columns of
    bytes stay bytes, whatever their metadata says about Python objects. Page checksums are verified where a file has them.

    Examples
    --------
    >>> import polars as pl
    >>> pl.DataFrame({"a": [1, 2]}).write_parquet("some.parquet")
    >>> len(mill.read_parquet("some.parquet").collect())
    2
    >>> pl.DataFrame({"a": [0.5]}).write_parquet("other.parquet")
    >>> mill.read_parquet(["some.parquet", "other.parquet"]).schema
    Schema(a: float64)
    """
    options = reading(
        "read_parquet",
        follow=follow,
        columns=columns,
        missing_columns=missing_columns,
        recursive=recursive,
        include_file_paths=include_file_paths,
        row_index_name=row_index_name,
        row_index_offset=row_index_offset,
        hive_partitioning=hive_partitioning,
        hive_schema=hive_schema,
    )
    return _read("parquet", path, schema, options)


def read_arrow(
    path: Paths,
    *,
    schema: SchemaLike = None,
    columns: Sequence[str] | None = None,
    missing_columns: MissingColumns = "raise",
    recursive: bool = False,
    include_file_paths: str | None = None,
    row_index_name: str | None = None,
    row_index_offset: int = 0,
    hive_partitioning: bool = False,
    hive_schema: SchemaLike = None,
    follow: bool = False,
) -> Stream:
    """Read Arrow IPC files, also called Feather, and Arrow streams.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them, as for :func:`read_text`. What a file begins with says whether it is a
        file or a stream.
    schema
        The columns to read and their types. By default all columns, each in the type that holds the values of all files.
        None can be ``object``, since unpickling bytes of a file could run any code.
    columns
        The names of the columns to read, in this order; by default all. Of other columns neither the types nor whether all files
        have them matters.
    missing_columns
        What a file without one of the columns is: ``"raise"`` for an error, ``"insert"`` to read null for the column.
    recursive, include_file_paths, row_index_name, row_index_offset, hive_partitioning, hive_schema
        As for :func:`read_text`.
    follow
        Whether to wait for new files or objects, without end. One that is replaced is read as a new one.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths, an option is not one of its choices, or options contradict each other.
    SchemaError
        When ``schema`` is not a schema, a column is named that does not exist, or files have types with nothing in common,
        such as text and numbers, or times with and without a zone.
    ConnectorError
        When no file is found, or a file cannot be read, or is not a complete Arrow file.
    DataError
        When the job runs and a value does not fit its column; ``on_error`` can skip or route such records. The message
        names file, row, column and value.

    Notes
    -----
    No value changes on its way in, and types are as :func:`read_parquet` has them. Batches may be compressed with LZ4 or
    Zstandard. A large file or stream is read by several tasks, and a run that continues goes to the batch where it was. A
    stream has an end mark, without which it is refused: it was cut off, or is still being written.

    Examples
    --------
    >>> import polars as pl
    >>> pl.DataFrame({"a": [1, 2]}).write_ipc("some.arrow")
    >>> mill.read_arrow("some.arrow").collect()["a"]
    [1, 2]
    """
    options = reading(
        "read_arrow",
        follow=follow,
        columns=columns,
        missing_columns=missing_columns,
        recursive=recursive,
        include_file_paths=include_file_paths,
        row_index_name=row_index_name,
        row_index_offset=row_index_offset,
        hive_partitioning=hive_partitioning,
        hive_schema=hive_schema,
    )
    return _read("arrow", path, schema, options)
