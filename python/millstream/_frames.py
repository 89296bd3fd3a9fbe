"""Tables as frames of pandas and polars, without a value that changes.

Both libraries take Arrow data, and take some of it for something else: pandas makes floats of integers with nulls, polars
overflows times in seconds, and neither knows what a column of pickled objects is. Such columns go another way here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from millstream._engine import RawTable
from millstream.errors import DataError

__all__ = ["to_pandas", "to_polars"]


def to_pandas(table: RawTable) -> Any:
    """Return a ``pandas.DataFrame`` of a table.

    Raises
    ------
    DataError
        When pandas cannot hold a value of a column.

    Examples
    --------
    >>> from millstream._frames import to_pandas
    >>> to_pandas(mill.from_iter([1, None], schema=int).collect()._raw)["value"].dtype
    Int64Dtype()
    """
    import pandas as pd
    import pyarrow as pa

    names = table.schema().names()
    objects = set(table.object_columns())
    others = [place for place in range(len(names)) if place not in objects]
    arrow = pa.table(table.select(others))
    own: dict[int, Any] = {place: pd.Series(table.column(place), dtype=object) for place in objects}
    for place, column in zip(others, arrow.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count:
            name = str(column.type).replace("uint", "UInt") if "uint" in str(column.type) else str(column.type).title()
            own[place] = pd.Series(getattr(pd, f"{name}Dtype")().__from_arrow__(column))
        elif pa.types.is_nested(column.type) and any(_has_missing_integers(pa, chunk) for chunk in column.chunks):
            own[place] = pd.Series(table.column(place), dtype=object)
    plain = arrow.select([names[place] for place in others if place not in own])
    frame = _by_column(plain, lambda part: part.to_pandas(), "to_pandas()")
    for place in sorted(own):
        frame.insert(place, names[place], own[place])
    return frame


def to_polars(table: RawTable) -> Any:
    """Return a ``polars.DataFrame`` of a table.

    Raises
    ------
    SchemaError
        When polars has no such type.
    DataError
        When polars cannot hold a value.

    Examples
    --------
    >>> from millstream._frames import to_polars
    >>> to_polars(mill.from_iter([{"x": {1}}], schema={"x": object}).collect()._raw)["x"].to_list()
    [{1}]
    """
    import polars as pl

    table.check_for_polars()
    objects = table.object_columns()
    if not objects:
        return pl.DataFrame(table)
    names = table.schema().names()
    others = [place for place in range(len(names)) if place not in objects]
    columns = pl.DataFrame(table.select(others)).get_columns() if others else []
    for place in objects:
        columns.insert(place, pl.Series(names[place], table.column(place), dtype=pl.Object))
    return pl.DataFrame(columns)


def _has_missing_integers(pa: Any, array: Any) -> bool:
    """Report whether an array is integers with nulls, or holds such; pandas would see floats in them."""
    kind = array.type
    if pa.types.is_integer(kind):
        return bool(array.null_count)
    if pa.types.is_struct(kind):
        return any(_has_missing_integers(pa, array.field(place)) for place in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _has_missing_integers(pa, array.keys) or _has_missing_integers(pa, array.items)
    if pa.types.is_nested(kind):
        return _has_missing_integers(pa, array.values)
    return False


def _by_column(arrow: Any, convert: Callable[[Any], Any], place: str) -> Any:
    """Convert a table; a failure names the first column that cannot be converted by itself."""
    try:
        return convert(arrow)
    except Exception as error:
        for name in arrow.column_names:
            try:
                convert(arrow.select([name]))
            except Exception as reason:
                raise DataError(
                    f"{place}: column {name!r} ({arrow.schema.field(name).type}) cannot be converted: {reason}; cast it before, "
                    "or use to_pylist() or to_arrow()"
                ) from error
        raise
