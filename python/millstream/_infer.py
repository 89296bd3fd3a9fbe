"""Schemas from values, where nobody has declared one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from millstream._engine import DataType
from millstream._foreign import is_missing, unit_of
from millstream._texts import counted, with_article
from millstream.errors import SchemaError
from millstream.types import Duration, Schema, Timestamp, data_type, schema_of

__all__ = ["infer_schema", "literal_type"]

ROWS_MAX = 1_000
"""How many records are looked at."""

_TIME = re.compile(r"(?P<kind>timestamp|duration)\[(?P<unit>\w+)(?P<zone>.*)\]")

_NAMES: dict[type, str] = {
    bool: "bool",
    int: "int64",
    float: "float64",
    str: "str",
    bytes: "binary",
    bytearray: "binary",
    date: "date",
    timedelta: "duration[us]",
    time: "time",
}


_INT64_MAX = 2**63 - 1
_UINT64_MAX = 2**64 - 1


def literal_type(value: Any) -> DataType | None:
    """Return the column type of a constant; None when it is none."""
    if type(value) is int and _INT64_MAX < value <= _UINT64_MAX:
        return DataType.parse("uint64")
    try:
        kind = _type_of(value, "a constant")
    except SchemaError:
        return None
    return None if kind is None or repr(kind) == "object" else kind


def infer_schema(rows: Sequence[Any], *, what: str, scalar: str = "value") -> Schema:
    """Return the schema that all of these records fit.

    Parameters
    ----------
    rows
        The first records.
    what
        Where they come from, for messages.
    scalar
        The name of the column when the records are plain values.

    Raises
    ------
    SchemaError
        When there are none, or a column has no type or several.
    """
    if not rows:
        raise SchemaError(f"{what} has no record to infer the columns from; pass schema=")
    first = next((row for row in rows if row is not None and not is_missing(row)), None)
    if first is None:
        raise SchemaError(f"{what} has nothing but None; pass schema=")
    names, values = _columns(rows, first, what, scalar)
    columns = []
    for name, column in zip(names, values, strict=True):
        kind: DataType | None = None
        try:
            for value in column:
                kind = _unite(kind, _type_of(value, f"column {name!r}"), f"{what}: column {name!r}")
        except RecursionError:
            raise SchemaError(
                f"{what}: column {name!r} holds values that nest too deep for a type; pass schema= (object takes any value)"
            ) from None
        if kind is None:
            raise SchemaError(f"{what}: column {name!r} holds nothing but None in the first {counted(len(rows), 'record')}; pass schema=")
        columns.append((name, kind))
    return schema_of(columns)


def _columns(rows: Sequence[Any], first: Any, what: str, scalar: str) -> tuple[list[str], list[list[Any]]]:
    if isinstance(first, Mapping):
        names: dict[str, None] = {}
        for row in rows:
            if not isinstance(row, Mapping):
                raise SchemaError(f"{what}: {with_article(type(row).__name__)} among dicts: {row!r:.200}; make all records alike")
            for name in row:
                if not isinstance(name, str):
                    raise SchemaError(f"{what}: {name!r} is no name of a column; names are texts")
            names.update(dict.fromkeys(row))
        return list(names), [[row.get(name) for row in rows] for name in names]
    if dataclasses.is_dataclass(first):
        fields = [field.name for field in dataclasses.fields(first)]
        return fields, [[getattr(row, name) for row in rows] for name in fields]
    if isinstance(first, tuple):
        fields = list(getattr(first, "_fields", ())) or [f"column_{place}" for place in range(len(first))]
        for row in rows:
            if not isinstance(row, tuple) or len(row) != len(fields):
                raise SchemaError(f"{what}: {row!r:.200} does not have {counted(len(fields), 'value')} like the first record")
        return fields, [[row[place] for row in rows] for place in range(len(fields))]
    return [scalar], [list(rows)]


def _type_of(value: Any, place: str) -> DataType | None:
    if value is None:
        return None
    name = _NAMES.get(type(value))
    if name is not None:
        return DataType.parse(name)
    if is_missing(value):
        return None
    foreign = unit_of(value)
    if foreign is not None:
        is_length, unit = foreign
        if unit == "date":
            return DataType.parse("date")
        return Duration(unit) if is_length else Timestamp(unit, _zone_of(value, place))
    if isinstance(value, datetime):
        return Timestamp("us", _zone_of(value, place))
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        return DataType.decimal(38, max(0, -exponent) if isinstance(exponent, int) else 0)
    if isinstance(value, Mapping):
        fields = [(str(key), _type_of(item, place) or DataType.parse("null")) for key, item in value.items()]
        return DataType.struct(fields) if fields else DataType.parse("object")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return data_type(type(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        item: DataType | None = None
        for element in value:
            item = _unite(item, _type_of(element, place), place)
        return DataType.list(item or DataType.parse("null"))
    for base in (bool, int, float, str, bytes, date, timedelta):
        if isinstance(value, base):
            return DataType.parse(_NAMES[base])
    if type(value).__module__ == "numpy" and hasattr(value, "dtype"):
        if getattr(value, "ndim", 0) == 0:
            if type(value.item()) is type(value):
                # Wider than Python's float, and no object of Python's own is the same value.
                return DataType.parse("object")
            return _type_of(value.item(), place)
        return _type_of(value.tolist(), place)
    return DataType.parse("object")


def _zone_of(value: Any, place: str) -> str | None:
    """Return the name of a time's zone, or its offset; None if it has none."""
    zone = getattr(value, "tzinfo", None)
    if zone is None:
        return None
    # zoneinfo's name is the key, pytz's the zone.
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if isinstance(name, str):
        return name
    offset = value.utcoffset()
    if isinstance(zone, timezone) and offset is not None and offset % timedelta(minutes=1) == timedelta(0):
        if not offset:
            return "UTC"
        minutes = abs(offset) // timedelta(minutes=1)
        return f"{'-' if offset < timedelta(0) else '+'}{minutes // 60:02}:{minutes % 60:02}"
    if not offset and zone.tzname(None) == "UTC":
        return "UTC"
    raise SchemaError(
        f'{place} has the time zone {zone!r}, whose name is not known; pass schema= with mill.Timestamp("us", tz="Europe/Berlin") or the like'
    )


def _unite(known: DataType | None, found: DataType | None, place: str) -> DataType | None:
    """Return the type that values of both types fit."""
    if known is None or found is None or repr(known) == repr(found):
        return known or found
    names = {repr(known), repr(found)}
    if names == {"int64", "float64"}:
        return DataType.parse("float64")
    if "null" in names:
        return found if repr(known) == "null" else known
    times = [_TIME.fullmatch(name) for name in names]
    if all(times) and len({(found["kind"], found["zone"]) for found in times if found}) == 1:
        return max((known, found), key=lambda kind: ("s", "ms", "us", "ns").index(str(_TIME.fullmatch(repr(kind))["unit"])))  # type: ignore[index]
    if all(name.startswith("decimal") for name in names):
        return DataType.decimal(38, max(int(name.split(",")[1].rstrip("] ")) for name in names))
    united = _unite_nested(known, found, place)
    if united is not None:
        return united
    raise SchemaError(f"{place} holds both {known!r} and {found!r}; pass schema= (object takes any value)")


def _unite_nested(known: DataType, found: DataType, place: str) -> DataType | None:
    left, right = known.item(), found.item()
    if left is not None and right is not None:
        item = _unite(left, right, place)
        return None if item is None else DataType.list(item)
    fields, others = known.fields(), found.fields()
    if fields is not None and others is not None:
        merged = dict(fields)
        for name, kind in others:
            merged[name] = _unite(merged.get(name), kind, f"{place}.{name}") or kind
        return DataType.struct(list(merged.items()))
    return None
