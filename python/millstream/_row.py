"""Records as Python functions see them.

A row is a tuple with names: ``row.price``, ``row["price"]`` and ``row[2]`` are the same. One class is made a set of
columns; attributes are the C-level getters of ``namedtuple``, so that reading one costs as much as there.
"""

from __future__ import annotations

import functools
import itertools
from _collections import _tuplegetter  # type: ignore[import-not-found]
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from millstream._nearest import did_you_mean

__all__ = ["Row", "row_class", "rows"]


class Row(tuple[Any, ...]):
    """A record, with access to its values by attribute, key and index; read-only.

    Examples
    --------
    >>> s = mill.from_iter([{"price": 2.0, "qty": 3}])
    >>> s.map(lambda row: {"total": row.price * row["qty"]}, schema={"total": float}).collect().to_pylist()
    [{'total': 6.0}]
    """

    __slots__ = ()
    _fields: tuple[str, ...] = ()
    _places: dict[str, int] = {}

    def __getitem__(self, key: Any) -> Any:
        """Return a value by name, position or slice."""
        if key.__class__ is str:
            try:
                return tuple.__getitem__(self, self._places[key])
            except KeyError:
                raise KeyError(_no_column(key, self._fields)) from None
        return tuple.__getitem__(self, key)

    def __getattr__(self, name: str) -> Any:
        """Raise an error that names the columns that exist."""
        raise AttributeError(_no_column(name, self._fields))

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        """Refuse: the record belongs to the stream."""
        raise AttributeError(f"rows are read-only; make a new record: row.asdict() | {{{name!r}: …}}")

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        """Refuse: the record belongs to the stream."""
        raise TypeError(f"rows are read-only; make a new record: row.asdict() | {{{key!r}: …}}")

    def __repr__(self) -> str:
        """Show names and values."""
        return f"Row({', '.join(f'{name}={value!r}' for name, value in zip(self._fields, self, strict=True))})"

    def __reduce__(self) -> tuple[Callable[..., Row], tuple[tuple[str, ...], tuple[Any, ...]]]:
        """Pickle by names and values, as the class is made on the fly."""
        return _rebuild, (self._fields, tuple(self))

    def asdict(self) -> dict[str, Any]:
        """Convert to a dict.

        Returns
        -------
        dict
            The values by the names of the columns.

        Examples
        --------
        >>> s = mill.from_iter([{"x": 1}])
        >>> s.map(lambda row: row.asdict() | {"y": 2}, schema={"x": int, "y": int}).collect().to_pylist()
        [{'x': 1, 'y': 2}]
        """
        return dict(zip(self._fields, self, strict=True))

    def keys(self) -> tuple[str, ...]:
        """Return the names of the columns.

        Examples
        --------
        >>> s = mill.from_iter([{"x": 1, "y": 2}])
        >>> s.map(lambda row: {"names": list(row.keys())}, schema={"names": list[str]}).collect()["names"]
        [['x', 'y']]
        """
        return self._fields

    def items(self) -> Iterator[tuple[str, Any]]:
        """Return an iterator over pairs of name and value.

        Examples
        --------
        >>> s = mill.from_iter([{"x": 1, "y": 2}])
        >>> s.map(lambda row: {"text": str(dict(row.items()))}, schema={"text": str}).collect()["text"]
        ["{'x': 1, 'y': 2}"]
        """
        return zip(self._fields, self, strict=True)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value by name, or a default if there is no such column.

        Parameters
        ----------
        name
            The name of the column.
        default
            What is returned if there is no such column.

        Examples
        --------
        >>> s = mill.from_iter([{"x": 1}])
        >>> s.map(lambda row: {"y": row.get("y", 7)}, schema={"y": int}).collect()["y"]
        [7]
        """
        place = self._places.get(name)
        return default if place is None else tuple.__getitem__(self, place)


@functools.lru_cache(maxsize=256)
def _no_column(name: str, fields: tuple[str, ...]) -> str:
    # Functions may ask each row for a column that is not there, as in getattr(row, "note", None).
    hint = did_you_mean(name, (*fields, "asdict", "keys", "items", "get"))
    return f"no column {name!r}{hint or ';'} there are {', '.join(fields)}"


def _rebuild(fields: tuple[str, ...], values: tuple[Any, ...]) -> Row:
    return tuple.__new__(row_class(fields), values)


@functools.lru_cache(maxsize=1024)
def row_class(fields: tuple[str, ...]) -> type[Row]:
    """Return the class of rows with these columns."""
    getters: dict[str, Any] = {
        name: _tuplegetter(place, f"The column {name!r}.")
        for place, name in enumerate(fields)
        if name.isidentifier() and not (name.startswith("__") and name.endswith("__"))
    }
    body = {"__slots__": (), **getters, "_fields": fields, "_places": {name: i for i, name in enumerate(fields)}}
    return type("Row", (Row,), body)


def rows(make: Callable[[Iterable[Any]], Row], columns: Sequence[Sequence[Any]], count: int) -> Iterator[Row]:
    """Iterate over the rows of columns; ``make`` builds one of a tuple."""
    if not columns:
        return map(make, itertools.repeat((), count))
    return map(make, zip(*columns))
