"""Rows on their way into a table of a lake: with the table's own types, and as the last change of each key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from millstream.errors import DataError, SchemaError

if TYPE_CHECKING:
    import pyarrow as pa

    from millstream.types import Schema

__all__ = ["exact_rows", "last_changes", "packed", "stored_columns", "unpacked"]


def exact_rows(batch: Any, columns: pa.Schema, keys: Sequence[str]) -> Any:
    """Return a frame with the columns of a table, each value exactly.

    Parameters
    ----------
    batch
        The frame.
    columns
        The columns of the table. One that the frame has not is null.
    keys
        The columns that may not be null, whatever the table says.

    Raises
    ------
    DataError
        When a value does not fit, or is null where it may not be.
    """
    import pyarrow as pa

    found = []
    for field in columns:
        if field.name not in batch.schema.names:
            found.append(pa.nulls(batch.num_rows, field.type))
            continue
        try:
            exact = _cast(batch.column(field.name), field.type)
        except pa.ArrowInvalid as error:
            raise DataError(f"column {field.name!r}: {error}") from error
        is_key = field.name in keys
        if exact.null_count and (not field.nullable or is_key):
            raise DataError(f"column {field.name!r} is null, and {'it is of the key' if is_key else 'the column of the table is NOT NULL'}")
        found.append(exact)
    return pa.Table.from_arrays(found, schema=columns)


def last_changes(changes: Sequence[tuple[Any, bool]], keys: Sequence[str]) -> Any:
    """Return the last change of each key.

    Parameters
    ----------
    changes
        Rows in the order in which they came, and whether their keys are deleted.
    keys
        The columns of the key.

    Returns
    -------
    pyarrow.Table
        The rows, and as its last column whether the key is deleted.
    """
    import pyarrow as pa

    deletes = _free_name("__deletes", changes[0][0].column_names)
    table = pa.concat_tables([rows.append_column(deletes, pa.repeat(is_deleted, rows.num_rows)) for rows, is_deleted in changes])
    number = _free_name("__number", table.schema.names)
    numbered = table.select(keys).append_column(number, pa.array(range(table.num_rows), type=pa.int64()))
    last = numbered.group_by(keys, use_threads=False).aggregate([(number, "max")])[f"{number}_max"]
    return table.take(last)


def packed(table: Any) -> bytes:
    """Return a table as a compressed Arrow stream."""
    import pyarrow as pa

    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(buffer.getvalue())


def unpacked(stream: bytes) -> Any:
    """Return the table of a stream."""
    import pyarrow as pa

    return pa.ipc.open_stream(stream).read_all()


def _cast(column: Any, kind: Any) -> Any:
    """Return a column in another type, exactly or not at all."""
    import pyarrow as pa

    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    return column if column.type == kind else column.cast(kind)


def _free_name(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name


def stored_columns(schema: Schema, call: str, store: str, readers: str, stored: Callable[[Any], tuple[Any, str]]) -> Any:
    """Return the columns as a table of a store has them; ``stored`` returns the type of one there, or None and advice."""
    import pyarrow as pa

    names: dict[str, str] = {}
    for name in schema:
        other = names.setdefault(name.lower(), name)
        if other != name:
            raise SchemaError(f"{call}: {readers} not tell the columns {other!r} and {name!r} apart; rename() one of them")
    fields = []
    for field, (name, kind) in zip(schema.to_arrow(), schema.items(), strict=True):
        # Values of Python are bytes underneath.
        advice = "leave it out with drop()" if repr(kind) == "object" else None
        found = None
        if advice is None:
            found, advice = stored(field.type)
        if found is None:
            raise SchemaError(f"{call}: column {name!r} is {kind!r}, for which {store} has no type that holds every value exactly; {advice}")
        fields.append(pa.field(name, found))
    return pa.schema(fields)
