"""Options of the sinks that write files."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from millstream._counts import count
from millstream._texts import character, choice, flag, optional_text, text, texts
from millstream.errors import PlanError

__all__ = ["ArrowCompression", "OnExisting", "ParquetCompression", "TextCompression", "Writing", "writing"]

OnExisting = Literal["refuse", "replace"]
"""What happens if the output of another run already exists."""

TextCompression = Literal["uncompressed", "gzip", "zstd"]
ArrowCompression = Literal["uncompressed", "lz4", "zstd"]
ParquetCompression = Literal["uncompressed", "snappy", "gzip", "lz4", "zstd", "brotli"]


class Writing(TypedDict):
    """How files are written."""

    replaces: bool
    compression: str | None
    compression_level: int | None
    row_group_size: int | None
    partition_by: list[str]
    max_rows_per_file: int | None
    approximate_bytes_per_file: int | None
    include_header: bool
    separator: int
    quote_char: int
    null_value: str
    decimal_comma: bool
    datetime_format: str | None
    date_format: str | None
    time_format: str | None


def writing(
    sink: str,
    *,
    on_existing: Any,
    compression: Any = None,
    compression_level: Any = None,
    row_group_size: Any = None,
    partition_by: Any = None,
    max_rows_per_file: Any = None,
    approximate_bytes_per_file: Any = None,
    include_header: Any = True,
    separator: Any = ",",
    quote_char: Any = '"',
    null_value: Any = None,
    decimal_comma: Any = False,
    datetime_format: Any = None,
    date_format: Any = None,
    time_format: Any = None,
) -> Writing:
    """Return the options as the engine takes them.

    Parameters
    ----------
    sink
        The name of the sink, which begins the message of an error.
    on_existing, compression, compression_level, row_group_size, partition_by, max_rows_per_file, approximate_bytes_per_file
        The options of the sink of these names.
    include_header, separator, quote_char, null_value, decimal_comma, datetime_format, date_format, time_format
        The same, of CSV.

    Raises
    ------
    PlanError
        When an option is not of its type.

    Examples
    --------
    >>> from millstream._writing import writing
    >>> writing("write_json", on_existing="refuse", partition_by="day")["partition_by"]
    ['day']
    """
    if compression_level is not None and (not isinstance(compression_level, int) or isinstance(compression_level, bool)):
        raise PlanError(f"{sink}(compression_level=…) takes a number, not {compression_level!r:.80}")

    def number(value: Any, name: str, of: str) -> int | None:
        return None if value is None else count(value, f"{sink}({name}=…) takes a number of {of}", 1, 2**63 - 1)

    return {
        "replaces": choice(on_existing, f"{sink}(on_existing=…)", "refuse", "replace") == "replace",
        "compression": optional_text(compression, f"{sink}(compression=…)", "zstd"),
        "compression_level": None if compression_level is None else max(-(2**31), min(compression_level, 2**31 - 1)),
        "row_group_size": number(row_group_size, "row_group_size", "rows"),
        "partition_by": [] if partition_by is None else texts(partition_by, f"{sink}(partition_by=…)", "day"),
        "max_rows_per_file": number(max_rows_per_file, "max_rows_per_file", "rows"),
        "approximate_bytes_per_file": number(approximate_bytes_per_file, "approximate_bytes_per_file", "bytes"),
        "include_header": flag(include_header, f"{sink}(include_header=…)"),
        "separator": character(separator, f"{sink}(separator=…)", ";"),
        "quote_char": character(quote_char, f"{sink}(quote_char=…)", "'"),
        "null_value": "" if null_value is None else text(null_value, f"{sink}(null_value=…)", "NA"),
        "decimal_comma": flag(decimal_comma, f"{sink}(decimal_comma=…)"),
        "datetime_format": optional_text(datetime_format, f"{sink}(datetime_format=…)", "%d.%m.%Y %H:%M:%S"),
        "date_format": optional_text(date_format, f"{sink}(date_format=…)", "%d.%m.%Y"),
        "time_format": optional_text(time_format, f"{sink}(time_format=…)", "%H:%M"),
    }
