"""Values in the form in which a state returns them later: as read back from a checkpoint, from the moment they are set.

A state is a typed column between calls: 3 in a column of floats is 3.0, a tuple in a column of lists is a list. Converting when
a value is set, and not when the engine next takes it, makes what a function reads independent of where a frame ends.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable
from typing import Any

from millstream._engine import RawSchema, rows_to_table
from millstream.errors import MillstreamError
from millstream.types import DataType

__all__ = ["exact_class", "kept_by"]

Kept = Callable[[Any], Any]
"""Converts a value. What its type cannot hold is returned as it is: the engine refuses it and names state and record."""

_EXACT: dict[str, type] = {
    "bool": bool,
    "float64": float,
    "str": str,
    "binary": bytes,
    "date": datetime.date,
    "time": datetime.time,
    "timestamp[us]": datetime.datetime,
    "duration[us]": datetime.timedelta,
} | {f"{sign}int{bits}": int for sign in ("", "u") for bits in (8, 16, 32, 64)}


def exact_class(kind: DataType) -> type | None:
    """Return the class whose values a column of the type returns as they were; None where there is none."""
    return _EXACT.get(repr(kind))


def kept_by(kind: DataType) -> Kept | None:
    """Return what converts values of a type; None for objects, which are kept as they are.

    Lists and structs are always new ones, so this also copies them.
    """
    name = repr(kind)
    if name == "object":
        return None
    slow = _by_column(kind)
    item, fields = kind.item(), kind.fields()
    if (exact := exact_class(kind)) is not None:
        return _exact(exact, slow)
    if name == "float32":
        return _single(slow)
    if fields is not None and name.startswith("struct"):
        return _struct([(field, kept_by(of)) for field, of in fields], slow)
    if item is not None and name.startswith("list["):
        return _list(exact_class(item), kept_by(item), slow)
    return slow


def _by_column(kind: DataType) -> Kept:
    schema = RawSchema([("value", kind)])

    def kept(value: Any) -> Any:
        if value is None:
            return None
        try:
            return rows_to_table(schema, [{"value": value}]).column(0)[0]
        except (MillstreamError, TypeError, ValueError, OverflowError):
            return value

    return kept


def _exact(exact: type, slow: Kept) -> Kept:
    def kept(value: Any) -> Any:
        return value if value.__class__ is exact or value is None else slow(value)

    return kept


def _single(slow: Kept) -> Kept:
    single = struct.Struct("f")
    pack, unpack = single.pack, single.unpack

    def kept(value: Any) -> Any:
        if value.__class__ is not float:
            return slow(value)
        try:
            return unpack(pack(value))[0]
        except OverflowError:
            return slow(value)

    return kept


def _struct(fields: list[tuple[str, Kept | None]], slow: Kept) -> Kept:
    names = {name for name, _ in fields}

    def kept(value: Any) -> Any:
        if value.__class__ is not dict or not names.issuperset(value):
            return slow(value)
        get = value.get
        return {name: get(name) if of is None else of(get(name)) for name, of in fields}

    return kept


def _list(exact: type | None, item: Kept | None, slow: Kept) -> Kept:
    plain = {exact, type(None)}

    def kept(value: Any) -> Any:
        if value.__class__ is not list and value.__class__ is not tuple:
            return slow(value)
        if item is None or (exact is not None and plain.issuperset(map(type, value))):
            return list(value)
        return list(map(item, value))

    return kept
