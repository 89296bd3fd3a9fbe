"""Types of columns, and the forms in which a schema can be given.

A type is a Python type (``int``, ``list[str]``, ``datetime`` ...; a dataclass or a dict of fields for a struct; ``dict[str,
int]`` for a map, whose values are lists of pairs), one of the types of this module, or an Arrow type (anything with
``__arrow_c_schema__``: pyarrow, polars). ``object`` is any Python value. A schema is a dict of column to type, a dataclass,
a ``TypedDict``, a ``NamedTuple`` or an Arrow schema.
"""

from __future__ import annotations

import dataclasses
import sys
import types as python_types
import typing
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal as PythonDecimal
from typing import Any, NamedTuple

from millstream._engine import DataType, RawSchema
from millstream.errors import SchemaError

__all__ = [
    "DataType",
    "Decimal",
    "Duration",
    "Field",
    "Schema",
    "SchemaLike",
    "Timestamp",
    "TypeLike",
    "data_type",
    "schema_of",
]

TypeLike = Any
"""What is taken as a type: a Python type, a type of this module, an Arrow type."""

SchemaLike = Any
"""What is taken as a schema: a dict, a dataclass, a TypedDict, a NamedTuple, an Arrow schema."""

_SIMPLE: dict[Any, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "str",
    bytes: "binary",
    date: "date",
    datetime: "timestamp[us]",
    timedelta: "duration[us]",
    time: "time",
    object: "object",
    Any: "object",
    type(None): "null",
    None: "null",
}


def Timestamp(unit: str = "us", tz: str | None = None) -> DataType:
    """Return the type of a point in time.

    Parameters
    ----------
    unit
        ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``. Where text or numbers are read, a number counts these units since 1970.
    tz
        The time zone: a name such as ``"Europe/Berlin"``, or an offset such as ``"+02:00"``; None for times without a zone.

    Raises
    ------
    SchemaError
        When there is no such unit or zone.

    Examples
    --------
    >>> import millstream as mill
    >>> mill.Timestamp("ms")
    timestamp[ms]
    >>> mill.Timestamp("us", tz="UTC")
    timestamp[us, UTC]
    """
    return DataType.timestamp(unit, tz)


def Duration(unit: str = "us") -> DataType:
    """Return the type of a length of time.

    Parameters
    ----------
    unit
        ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``.

    Raises
    ------
    SchemaError
        When there is no such unit.

    Examples
    --------
    >>> import millstream as mill
    >>> mill.types.Duration("ms")
    duration[ms]
    """
    return DataType.duration(unit)


_DIGITS_MAX = 38


def Decimal(precision: int = 38, scale: int = 9) -> DataType:
    """Return the type of a decimal number with a fixed number of digits.

    Parameters
    ----------
    precision
        How many digits it has in all, 1 to 38.
    scale
        How many of them are after the decimal point.

    Raises
    ------
    SchemaError
        When ``precision`` or ``scale`` is out of range.

    Examples
    --------
    >>> import millstream as mill
    >>> mill.types.Decimal(10, 2)
    decimal[10, 2]
    """
    for number in (precision, scale):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _DIGITS_MAX:
            raise SchemaError(
                f"Decimal() takes 1 to {_DIGITS_MAX} digits and no more of them after the point than that, not ({precision!r:.40}, {scale!r:.40})"
            )
    return DataType.decimal(precision, scale)


class Field(NamedTuple):
    """A column of a schema, as a pair of name and type.

    Attributes
    ----------
    name
        The name of the column.
    type
        The type of the column.

    Examples
    --------
    >>> name, kind = mill.from_iter([{"x": 1}]).schema.field("x")
    >>> name, kind
    ('x', int64)
    """

    name: str
    type: DataType


class Schema(Mapping[str, DataType]):
    """The columns of a stream or table: a mapping of name to type, in order.

    Parameters
    ----------
    columns
        The columns, in any of the forms that a schema can have.

    Raises
    ------
    SchemaError
        When it is not a schema, or two columns have the same name.

    Examples
    --------
    >>> import millstream as mill
    >>> s = mill.from_iter([{"x": 1, "y": "a"}])
    >>> s.schema
    Schema(x: int64, y: str)
    >>> s.schema["x"] == int
    True
    """

    __slots__ = ("_raw",)

    def __init__(self, columns: SchemaLike) -> None:
        self._raw: RawSchema = columns if isinstance(columns, RawSchema) else schema_of(columns)._raw

    @property
    def names(self) -> list[str]:
        """The names of the columns.

        Examples
        --------
        >>> mill.from_iter([{"x": 1, "y": "a"}]).schema.names
        ['x', 'y']
        """
        return self._raw.names()

    def __getitem__(self, name: str) -> DataType:
        """Return the type of a column."""
        try:
            return self._raw.types()[self._raw.names().index(name)]
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._raw.names())

    def __len__(self) -> int:
        """Count the columns."""
        return len(self._raw.names())

    def __eq__(self, other: object) -> bool:
        """Test whether names and types are the same; ``other`` may have any form of a schema."""
        if not isinstance(other, Schema):
            try:
                other = schema_of(other)
            except SchemaError:
                return NotImplemented
        return self.names == other.names and self._raw.types() == other._raw.types()

    def __hash__(self) -> int:
        """Hash names and types."""
        return hash((tuple(self.names), tuple(map(repr, self._raw.types()))))

    def __repr__(self) -> str:
        """Show names and types."""
        return f"Schema({', '.join(f'{name}: {kind!r}' for name, kind in self.items())})"

    def __arrow_c_schema__(self) -> object:
        """Export as an Arrow schema."""
        return self._raw.__arrow_c_schema__()

    def field(self, name: str) -> Field:
        """Return a column as a pair of name and type.

        Parameters
        ----------
        name
            The name of the column.

        Raises
        ------
        KeyError
            When there is no such column.

        Examples
        --------
        >>> mill.from_iter([{"x": 1}]).schema.field("x").type
        int64
        """
        return Field(name, self[name])

    def to_arrow(self) -> Any:
        """Convert to a ``pyarrow.Schema``.

        Returns
        -------
        pyarrow.Schema
            The same columns.

        Examples
        --------
        >>> import millstream as mill
        >>> mill.from_iter([{"x": 1}]).schema.to_arrow().names
        ['x']
        """
        import pyarrow as pa

        return pa.schema(self)


def data_type(kind: TypeLike, *, place: str = "type") -> DataType:
    """Return the column type for a Python or Arrow type.

    Parameters
    ----------
    kind
        The type.
    place
        What it is the type of, for messages.

    Raises
    ------
    SchemaError
        When it is not a type of a column.

    Examples
    --------
    >>> from millstream.types import data_type
    >>> data_type(list[str])
    list[str]
    >>> data_type({"street": str, "number": int})
    struct[street: str, number: int64]
    """
    if isinstance(kind, DataType):
        return kind
    try:
        simple = _SIMPLE.get(kind)
    except TypeError:
        simple = None
    if simple is not None:
        return DataType.parse(simple)
    if kind is PythonDecimal:
        return Decimal()
    if kind is Timestamp or kind is Duration or kind is Decimal:
        return kind()
    if isinstance(kind, str):
        try:
            return DataType.parse(kind)
        except ValueError as error:
            raise SchemaError(f"{place}: {error}") from None
    if hasattr(kind, "__arrow_c_schema__"):
        return DataType.from_arrow(kind)
    nested = _nested(kind, place)
    if nested is not None:
        return nested
    fields = _fields(kind)
    if fields is not None:
        return DataType.struct([(name, data_type(item, place=f"{place}.{name}")) for name, item in fields])
    converted = _through_arrow(kind)
    if converted is not None:
        return converted
    name = getattr(kind, "__name__", repr(kind))
    raise SchemaError(
        f"{place}: {name} is not a column type; use a Python type (int, float, str, bool, bytes, datetime, date, timedelta, "
        f"Decimal, list[...], a dict of fields), mill.Timestamp(...), an Arrow type, or object for any Python value"
    )


def _nested(kind: Any, place: str) -> DataType | None:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is typing.Union or origin is python_types.UnionType:
        some = [item for item in arguments if item is not type(None)]
        if len(some) == 1:
            return data_type(some[0], place=place)
        return DataType.parse("object")
    if origin is typing.Annotated:
        return data_type(arguments[0], place=place)
    if origin in (typing.Required, typing.NotRequired):
        return data_type(arguments[0], place=place)
    if origin is typing.Literal:
        kinds = {type(value) for value in arguments}
        return data_type(kinds.pop(), place=place) if len(kinds) == 1 else None
    if origin is list or kind is list:
        if not arguments:
            raise SchemaError(f"{place}: list has no element type; write list[str] or the like")
        return DataType.list(data_type(arguments[0], place=f"{place}[]"))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return DataType.map(data_type(arguments[0], place=f"{place} key"), data_type(arguments[1], place=f"{place} value"))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Iterable) and len(arguments) == 1:
        return DataType.list(data_type(arguments[0], place=f"{place}[]"))
    if isinstance(kind, list) and len(kind) == 1:
        return DataType.list(data_type(kind[0], place=f"{place}[]"))
    return None


def _through_arrow(kind: Any) -> DataType | None:
    """Convert types of other libraries that reveal their Arrow type only through an empty array (polars, numpy)."""
    module = getattr(type(kind), "__module__", "") if not isinstance(kind, type) else kind.__module__
    if module.split(".")[0] == "polars":
        import polars as pl

        return DataType.from_arrow_array(pl.Series("", [], dtype=kind))
    if module.split(".")[0] == "numpy":
        import numpy as np

        name = np.dtype(kind).name
        try:
            return DataType.parse(name)
        except ValueError:
            return None
    return None


def _fields(kind: Any) -> list[tuple[str, Any]] | None:
    """Return names and types of the fields of a type, with annotations that are text resolved; None where it has no fields."""
    if isinstance(kind, Mapping):
        return [(str(name), item) for name, item in kind.items()]
    if not isinstance(kind, type):
        return None
    is_record = dataclasses.is_dataclass(kind) or typing.is_typeddict(kind)
    is_record = is_record or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    if not is_record:
        return None
    namespace = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}
    try:
        hints = typing.get_type_hints(kind, globalns=namespace)
    except NameError as error:
        raise SchemaError(f"the annotations of {kind.__name__} cannot be resolved: {error}") from error
    if dataclasses.is_dataclass(kind):
        return [(field.name, hints[field.name]) for field in dataclasses.fields(kind)]
    names = getattr(kind, "_fields", None) or list(hints)
    return [(name, hints.get(name, object)) for name in names]


def schema_of(schema: SchemaLike, *, scalar: str = "value") -> Schema:
    """Return the schema for any of the forms that a schema can have.

    Parameters
    ----------
    schema
        A dict of column to type, a dataclass, a TypedDict, a NamedTuple, an Arrow schema, or a single type, which is that
        of one column.
    scalar
        The name of that one column.

    Raises
    ------
    SchemaError
        When it is not a schema, has no columns, or has two columns of the same name.

    Examples
    --------
    >>> from millstream.types import schema_of
    >>> schema_of({"at": mill.Timestamp("ms"), "n": int})
    Schema(at: timestamp[ms], n: int64)
    >>> schema_of(float)
    Schema(value: float64)
    """
    if isinstance(schema, Schema):
        return schema
    if isinstance(schema, RawSchema):
        return Schema(schema)
    if isinstance(schema, DataType):
        return Schema(RawSchema([(scalar, schema)]))
    fields = _fields(schema)
    if fields is None and isinstance(schema, Iterable) and not isinstance(schema, (str, bytes, type)):
        pairs = list(schema) if not hasattr(schema, "__arrow_c_schema__") else []
        if pairs and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            fields = pairs
    if fields is not None:
        if not fields:
            raise SchemaError("the schema has no columns; name at least one")
        names = [name for name, _ in fields]
        for name in names:
            if names.count(name) > 1:
                raise SchemaError(f"the schema has two columns named {name!r}; rename one")
        try:
            columns = [(name, data_type(kind, place=f"column {name!r}")) for name, kind in fields]
        except RecursionError:
            raise SchemaError("the schema has a column whose types nest too deep; at most 48 are supported") from None
        return Schema(RawSchema(columns))
    if hasattr(schema, "__arrow_c_schema__"):
        return Schema(RawSchema.from_arrow(schema, scalar))
    return Schema(RawSchema([(scalar, data_type(schema, place="schema"))]))
