"""Options that all readers of files have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from millstream._counts import count
from millstream._texts import choice, flag, optional_text, text, texts
from millstream.errors import PlanError
from millstream.types import SchemaLike, schema_of

if TYPE_CHECKING:
    from millstream._engine import RawSchema
    from millstream.io._registry import Registry

__all__ = ["CsvReading", "KafkaReading", "KafkaWriting", "Reading", "reading"]


class Reading(TypedDict):
    """How files are read, whatever is in them."""

    follow: bool
    columns: list[str] | None
    recursive: bool
    include_file_paths: str | None
    row_index: tuple[str, int] | None
    hive_partitioning: bool
    hive_schema: RawSchema | None
    insert_missing_columns: bool


class CsvReading(TypedDict):
    """How CSV is read."""

    separator: int
    quote_char: int | None
    escape_char: int | None
    has_header: bool
    new_columns: list[str] | None
    skip_lines: int
    skip_rows: int
    skip_rows_after_header: int
    comment_prefix: str | None
    null_values: list[str]
    column_nulls: list[tuple[str, list[str]]]
    truncate_ragged_lines: bool
    try_parse_dates: bool
    decimal_comma: bool
    is_lossy: bool


class KafkaReading(TypedDict):
    """What a message is."""

    format: str
    key: list[str]
    avro_schema: str | None
    registry: Registry | None


class KafkaWriting(TypedDict):
    """What becomes the value of a message."""

    format: str
    avro_schema: str | None
    registry: Registry | None


def reading(
    reader: str,
    *,
    follow: Any,
    columns: Sequence[str] | None = None,
    recursive: Any = False,
    include_file_paths: Any = None,
    row_index_name: Any = None,
    row_index_offset: Any = 0,
    hive_partitioning: Any = False,
    hive_schema: SchemaLike = None,
    missing_columns: Any = "raise",
) -> Reading:
    """Return the options as the engine takes them.

    Parameters
    ----------
    reader
        The name of the reader, which begins the message of an error.
    follow, columns, recursive, include_file_paths, row_index_name, row_index_offset, hive_partitioning, hive_schema, missing_columns
        The options of the reader of these names.

    Raises
    ------
    PlanError
        When an option is not of its type.

    Examples
    --------
    >>> from millstream._reading import reading
    >>> reading("read_json", follow=False, columns="a")["columns"]
    ['a']
    """
    row_index = None
    if row_index_name is not None:
        name = text(row_index_name, f"{reader}(row_index_name=…)", "row")
        row_index = (name, count(row_index_offset, f"{reader}(row_index_offset=…) takes the number of the first row", most=2**63 - 1))
    elif row_index_offset != 0:
        raise PlanError(f"{reader}(row_index_offset=…) has a meaning with row_index_name only, which names the column")
    return {
        "follow": flag(follow, f"{reader}(follow=…)"),
        "columns": None if columns is None else texts(columns, f"{reader}(columns=…)", "price"),
        "recursive": flag(recursive, f"{reader}(recursive=…)"),
        "include_file_paths": optional_text(include_file_paths, f"{reader}(include_file_paths=…)", "path"),
        "row_index": row_index,
        "hive_partitioning": flag(hive_partitioning, f"{reader}(hive_partitioning=…)"),
        "hive_schema": None if hive_schema is None else schema_of(hive_schema)._raw,
        "insert_missing_columns": choice(missing_columns, f"{reader}(missing_columns=…)", "raise", "insert") == "insert",
    }
