"""Sources of files: text, CSV, JSON lines and Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from millstream._engine import read_files
from millstream._paths import local_path
from millstream.errors import PlanError
from millstream.stream import Stream
from millstream.types import SchemaLike, schema_of

__all__ = ["read_csv", "read_json", "read_parquet", "read_text"]

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def _paths(path: Paths, reader: str) -> list[str]:
    if isinstance(path, (str, os.PathLike)):
        return [local_path(path, f"{reader}()")]
    if isinstance(path, (bytes, bytearray)) or not isinstance(path, Iterable):
        raise PlanError(f"{reader}() takes a path, a glob, or a list of them, not {path!r:.80}")
    paths = [local_path(item, f"{reader}()") for item in path]
    if not paths:
        raise PlanError(f"{reader}() was given no path")
    return paths


def _read(kind: str, path: Paths, schema: SchemaLike, follow: bool) -> Stream:
    declared = None if schema is None else schema_of(schema)._raw
    return Stream(read_files(kind, _paths(path, f"read_{kind}"), declared, follow))


def read_text(path: Paths, *, follow: bool = False) -> Stream:
    """Read lines of text as a column ``line``.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them. Files ending in ``.gz`` and ``.zst`` are decompressed. ``~`` is the
        home directory. A file is the same file however its path is written: relative or absolute, with dots, or through
        links.
    follow
        Whether to wait for new files and for files that grow, without end.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths.
    ConnectorError
        When no file is found, or the job runs and a file cannot be read, or has changed where the job had read it.
    DataError
        When the job runs and a line is not UTF-8; ``on_error`` can skip or route such records.

    Notes
    -----
    Each file is a split with its own order and watermark.

    Followed files are read as by ``tail -F``: a file that is renamed is read on, another file under its old name is a new
    one, a file that is truncated or rewritten is read from its start, and a file that was read may be deleted. Compressed
    files may be appended to by whole gzip members or zstd frames.

    A bounded job that is resumed reads what it has not read yet of the files as they are then. It refuses a file that was
    changed where the job had read it, and an input that includes the output of the same job.

    Examples
    --------
    >>> with open("some.txt", "w") as file:
    ...     _ = file.write("one\\ntwo\\n")
    >>> mill.read_text("some.txt").collect().to_pylist()
    [{'line': 'one'}, {'line': 'two'}]
    """
    return _read("text", path, None, follow)


def read_csv(path: Paths, *, schema: SchemaLike = None, follow: bool = False) -> Stream:
    """Read CSV files with a header.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them, as for :func:`read_text`.
    schema
        The columns; by default they are inferred from samples of the files.
    follow
        Whether to wait for new files and for files that grow, as for :func:`read_text`.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths.
    SchemaError
        When ``schema`` is not a schema, or does not fit the header of a file.
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
    ...     _ = file.write("a,b\\n1,x\\n")
    >>> mill.read_csv("some.csv").collect().to_pylist()
    [{'a': 1, 'b': 'x'}]
    """
    return _read("csv", path, schema, follow)


def read_json(path: Paths, *, schema: SchemaLike = None, follow: bool = False) -> Stream:
    """Read JSON files with one record in each line.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them, as for :func:`read_text`.
    schema
        The columns; by default they are inferred from samples of the files. Keys that a schema leaves out are ignored; a
        key that inferred columns do not have is an error of its record.
    follow
        Whether to wait for new files and for files that grow, as for :func:`read_text`.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths.
    SchemaError
        When ``schema`` is not a schema, or no columns can be inferred.
    ConnectorError
        When no file is found, or a file cannot be read.
    DataError
        When the job runs and a line is malformed, or a value does not fit its column; ``on_error`` can skip or route such
        records. The message names file and line.

    Notes
    -----
    A column of text takes values of any kind, as they are written in the file; columns of several kinds are inferred as
    text. Times are read as ISO 8601, or as a number that counts units of the column's type; durations as ISO 8601
    (``"PT90.5S"``); bytes as hexadecimal digits; floats also from the texts ``"NaN"`` and ``"Infinity"``.

    Examples
    --------
    >>> with open("some.json", "w") as file:
    ...     _ = file.write('{"a": 1}\\n')
    >>> mill.read_json("some.json").collect().to_pylist()
    [{'a': 1}]
    """
    return _read("json", path, schema, follow)


def read_parquet(path: Paths, *, schema: SchemaLike = None, follow: bool = False) -> Stream:
    """Read Parquet files.

    Parameters
    ----------
    path
        A file, a glob, a directory, or a list of them, as for :func:`read_text`.
    schema
        The columns to read and their types. By default all columns, each in the type that holds the values of all files.
        None can be ``object``, since unpickling bytes of a file would run what they ask for.
    follow
        Whether to wait for new files, without end. A file that is replaced is read as a new one.

    Raises
    ------
    PlanError
        When ``path`` is not a path or a list of paths.
    SchemaError
        When ``schema`` is not a schema, or files have types with nothing in common, such as text and numbers, or times with
        and without a zone.
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
    return _read("parquet", path, schema, follow)
