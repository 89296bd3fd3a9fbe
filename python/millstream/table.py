"""Results in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from millstream._counts import count
from millstream._engine import RawTable
from millstream._texts import counted, directions
from millstream.errors import PlanError
from millstream.types import Schema

__all__ = ["Table"]

_SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 40


class Table:
    """Records in memory, by column; any library that knows Arrow reads it without a copy.

    Notes
    -----
    A table can be pickled, as Arrow's IPC stream, which needs pyarrow; types, metadata and the order of rows are kept. ``copy`` and
    ``deepcopy`` share the records, as a table never changes.

    Examples
    --------
    >>> table = mill.from_iter([{"a": 1, "b": "x"}, {"a": 2, "b": None}]).collect()
    >>> len(table), table.schema
    (2, Schema(a: int64, b: str))
    >>> table.to_pylist()
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': None}]
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: RawTable) -> None:
        self._raw = raw

    @property
    def schema(self) -> Schema:
        """The names and types of the columns.

        Examples
        --------
        >>> mill.from_iter([{"a": 1}]).collect().schema
        Schema(a: int64)
        """
        return Schema(self._raw.schema())

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._raw)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over the rows as dicts."""
        return iter(self._raw.rows())

    @property
    def columns(self) -> list[str]:
        """The names of the columns.

        Examples
        --------
        >>> mill.from_iter([{"x": 1, "y": 2}]).collect().columns
        ['x', 'y']
        """
        return list(self.schema.names)

    @overload
    def __getitem__(self, key: str) -> list[Any]: ...
    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: slice | list[str]) -> Table: ...
    def __getitem__(self, key: str | int | slice | list[str]) -> list[Any] | dict[str, Any] | Table:
        """Return the values of a column by its name, a row by its number, or some rows or columns as a table.

        Examples
        --------
        >>> table = mill.from_iter([{"a": 1, "b": "x"}, {"a": 2, "b": None}]).collect()
        >>> table["a"], table[-1], table[["b"]].columns, len(table[:1])
        ([1, 2], {'a': 2, 'b': None}, ['b'], 1)
        """
        if isinstance(key, str):
            return self._raw.column(self._place(key))
        if isinstance(key, slice):
            rows = range(len(self))[key]
            if rows.step == 1:
                return Table(self._raw.slice(rows.start, len(rows)))
            return self._of_rows(self._raw.rows()[key])
        if isinstance(key, list):
            return Table(self._raw.select([self._place(name) for name in key]))
        try:
            row = range(len(self))[key]
        except IndexError:
            raise IndexError(f"no row {key}; there are {len(self):,}") from None
        except TypeError:
            raise TypeError(
                f"a table is indexed by the name of a column, a list of names, a row number or a slice, not {key!r:.80}"
            ) from None
        [found] = self._raw.slice(row, 1).rows()
        return found

    def _place(self, name: str) -> int:
        names = self.schema.names
        if name not in names:
            raise KeyError(f"no column {name!r}; there are {', '.join(names)}")
        return names.index(name)

    def _of_rows(self, rows: list[dict[str, Any]]) -> Table:
        from millstream._engine import rows_to_table

        return Table(rows_to_table(self.schema._raw, rows))

    def head(self, rows: int = 5) -> Table:
        """Return the first rows.

        Parameters
        ----------
        rows
            The greatest number of rows.

        Returns
        -------
        Table
            These rows.

        Raises
        ------
        PlanError
            When ``rows`` is not a whole number of at least 0.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).collect().head(2)["value"]
        [1, 2]
        """
        return self[: count(rows, "head() takes a number of rows of at least 0", 0)]

    def tail(self, rows: int = 5) -> Table:
        """Return the last rows.

        Parameters
        ----------
        rows
            The greatest number of rows.

        Returns
        -------
        Table
            These rows.

        Raises
        ------
        PlanError
            When ``rows`` is not a whole number of at least 0.

        Examples
        --------
        >>> mill.from_iter([1, 2, 3]).collect().tail(2)["value"]
        [2, 3]
        """
        return self[max(0, len(self) - count(rows, "tail() takes a number of rows of at least 0", 0)) :]

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export through Arrow's C stream interface."""
        return self._raw.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """Export the schema through Arrow's C interface."""
        return self._raw.schema().__arrow_c_schema__()

    def to_arrow(self) -> Any:
        """Convert to a ``pyarrow.Table``.

        Returns
        -------
        pyarrow.Table
            The same columns. A column of type ``object`` is the bytes of its pickled values.

        Examples
        --------
        >>> mill.from_iter([1, 2]).collect().to_arrow().num_rows
        2
        """
        import pyarrow as pa

        return pa.table(self)

    def to_polars(self) -> Any:
        """Convert to a ``polars.DataFrame``.

        Returns
        -------
        polars.DataFrame
            The same columns. Columns that hold objects become ``pl.Object``.

        Raises
        ------
        SchemaError
            When Polars has no type for a column: decimals of more than 38 digits or a negative scale, zones that are an
            offset.
        DataError
            When Polars would change a value, such as a time in seconds that is out of range in milliseconds.

        Examples
        --------
        >>> mill.from_iter([1, 2]).collect().to_polars().shape
        (2, 1)
        """
        from millstream._frames import to_polars

        return to_polars(self._raw)

    def to_pandas(self) -> Any:
        """Convert to a ``pandas.DataFrame``.

        Returns
        -------
        pandas.DataFrame
            The same columns. Integers with nulls become nullable integers, such as ``Int64``, so that no digit is lost.
            Lists, structs and maps that hold such integers become Python values, and columns that hold objects become the
            objects. Null is NaN in a column of floats, and None in one of truth values.

        Raises
        ------
        DataError
            When pandas cannot hold a value of a column.

        Examples
        --------
        >>> mill.from_iter([1, 2]).collect().to_pandas().shape
        (2, 1)
        >>> mill.from_iter([{"x": 2**53 + 1}, {"x": None}]).collect().to_pandas()["x"].tolist()
        [9007199254740993, <NA>]
        """
        from millstream._frames import to_pandas

        return to_pandas(self._raw)

    def to_pylist(self) -> list[dict[str, Any]]:
        """Convert to a list of rows.

        Returns
        -------
        list of dict
            The values of each row by the names of the columns; null is None.

        Examples
        --------
        >>> mill.from_iter([1]).collect().to_pylist()
        [{'value': 1}]
        """
        return self._raw.rows()

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as a list of dicts; the same as :meth:`to_pylist`, by the name that Polars has for it.

        Examples
        --------
        >>> mill.from_iter([1]).collect().to_dicts()
        [{'value': 1}]
        """
        return self._raw.rows()

    def sort(self, *columns: str, descending: bool | Sequence[bool] = False) -> Table:
        """Return the rows sorted by columns.

        Rows of different keys are in no defined order, so sorting makes a result look the same each time.

        Parameters
        ----------
        *columns
            The names of the columns, the most significant one first; by default all.
        descending
            Whether the greatest value comes first. A list has one truth value for each column. Nulls come last either way.

        Returns
        -------
        Table
            The sorted rows.

        Raises
        ------
        KeyError
            When there is no such column.
        PlanError
            When the values of a column have no order, or ``descending`` does not match the columns.

        Notes
        -----
        NaN is greater than all numbers, at the top and within lists and structs. A list comes before a longer one that begins
        with it; structs are compared field by field. Equal rows keep their order.

        Examples
        --------
        >>> mill.from_iter([3, 1, 2]).collect().sort()["value"]
        [1, 2, 3]
        >>> mill.from_iter([3, None, 2]).collect().sort("value", descending=True)["value"]
        [3, 2, None]
        """
        names = list(columns) or self.schema.names
        for name in names:
            self._place(name)
        turned = directions(descending, len(names), "sort()")
        rows = self.to_pylist()
        # The sort is stable, so the most significant column is the last one that rows are sorted by.
        for name, is_descending in reversed(list(zip(names, turned, strict=True))):
            try:
                if is_descending:
                    rows.sort(key=lambda row: (row[name] is not None, _rank(row[name])), reverse=True)
                else:
                    rows.sort(key=lambda row: _rank(row[name]))
            except TypeError as error:
                raise PlanError(
                    f"sort(): the values of {name!r} ({self.schema[name]!r}) have no order: {error}; sort by other columns"
                ) from None
        return self._of_rows(rows)

    def _head(self) -> list[dict[str, Any]]:
        return self._raw.slice(0, _SHOWN_ROWS).rows()

    def __reduce__(self) -> tuple[Callable[..., Table], tuple[Any, ...]]:
        """Pickle the table as Arrow's IPC stream, with its exact types."""
        from millstream._table_pickle import restored, taken_apart

        return restored, taken_apart(self)

    def __copy__(self) -> Table:
        """Return a table of the same records, which are shared: no table ever changes."""
        return Table(self._raw)

    def __deepcopy__(self, memo: object) -> Table:
        """Return a table of the same records, as :func:`copy.copy` does; objects are made anew whenever a table is asked for them."""
        return Table(self._raw)

    def __repr__(self) -> str:
        """Show the first rows."""
        names = self.schema.names
        kinds = [repr(kind) for kind in self.schema.values()]
        lines = [names, kinds, *([_text(row[name]) for name in names] for row in self._head())]
        widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
        lines.insert(2, ["-" * width for width in widths])
        shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        if len(self) > _SHOWN_ROWS:
            shown.append(f"... {len(self):,} rows")
        return "\n".join(shown)

    def _repr_html_(self) -> str:
        """Show the first rows in a notebook."""
        import html

        names = "".join(f"<th>{html.escape(name)}</th>" for name in self.schema.names)
        kinds = "".join(f"<td><small>{html.escape(repr(kind))}</small></td>" for kind in self.schema.values())
        body = "".join(f"<tr>{_cells(row.values())}</tr>" for row in self._head())
        note = counted(len(self), "row")
        return f"<table><thead><tr>{names}</tr><tr>{kinds}</tr></thead><tbody>{body}</tbody></table><small>{note}</small>"


def _rank(value: Any) -> tuple[Any, ...]:
    """Return what a value is sorted by: numbers, then NaN, then null."""
    if value is None:
        return (2,)
    if isinstance(value, dict):
        return (0, tuple(_rank(item) for item in value.values()))
    if isinstance(value, (list, tuple)):
        return (0, tuple(_rank(item) for item in value))
    # NaN is the one value that differs from itself, of floats and decimals alike.
    return (0, value) if value == value else (1,)


def _text(value: Any) -> str:
    text = "null" if value is None else str(value)
    text = text.replace("\n", "\\n")
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _cells(values: Iterable[Any]) -> str:
    import html

    return "".join(f"<td>{html.escape(_text(value))}</td>" for value in values)
