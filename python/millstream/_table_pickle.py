"""Tables as bytes: Arrow's IPC stream.

A table with Python objects is its schema as such a stream, and its rows: Arrow has no type for objects, and bytes that come
from Arrow are never unpickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream._engine import rows_to_table
from millstream.types import Schema, data_type

if TYPE_CHECKING:
    from millstream.table import Table

__all__ = ["restored", "taken_apart"]


def taken_apart(table: Table) -> tuple[bytes, list[str], list[tuple[Any, ...]]]:
    """Return a table as an Arrow IPC stream; with columns of objects, as the schema, their names, and the rows.

    Raises
    ------
    TypeError
        When pyarrow is not installed, or objects are within lists, structs or maps.
    DataError
        When a table with objects has a value in another column that Python cannot hold.

    Examples
    --------
    >>> from millstream._table_pickle import restored, taken_apart
    >>> table = mill.from_iter([{"a": 1}]).collect()
    >>> restored(*taken_apart(table)).to_pylist()
    [{'a': 1}]
    """
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        raise TypeError("pickling a table needs pyarrow: pip install pyarrow, or pickle its to_pylist()") from None
    objects = [table.columns[place] for place in table._raw.object_columns()]
    for name in objects:
        if table.schema[name] != data_type(object):
            raise TypeError(
                f"a table with Python objects inside of a list, struct or map (column {name!r}) cannot be pickled; pickle its to_pylist()"
            )
    whole = table.to_arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        if not objects:
            writer.write_table(whole)
    return sink.getvalue().to_pybytes(), objects, [tuple(row.values()) for row in table._raw.rows()] if objects else []


def restored(data: bytes, objects: list[str], rows: list[tuple[Any, ...]]) -> Table:
    """Return the table that :func:`taken_apart` was called with.

    Examples
    --------
    >>> from millstream._table_pickle import restored, taken_apart
    >>> table = mill.from_iter([{"a": {1}}], schema={"a": object}).collect()
    >>> restored(*taken_apart(table)).to_pylist()
    [{'a': {1}}]
    """
    import pyarrow as pa

    from millstream.io.memory import from_arrow
    from millstream.table import Table

    whole = pa.ipc.open_stream(data).read_all()
    if not objects:
        # One task keeps the rows in their order.
        return from_arrow(whole).collect(parallelism=1)
    schema = Schema({field.name: object if field.name in objects else field.type for field in whole.schema})
    return Table(rows_to_table(schema._raw, [dict(zip(schema.names, row, strict=True)) for row in rows]))
