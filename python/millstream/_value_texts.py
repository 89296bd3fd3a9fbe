"""Values as JSON and as plain text, for services that take records as text. The forms are those of :meth:`Stream.write_json`."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone, tzinfo
from json.encoder import encode_basestring
from typing import Any, cast

from millstream.errors import DataError

__all__ = ["json_rows", "json_texts", "plain_texts"]

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_EPOCH = datetime(1970, 1, 1)
_quoted = encode_basestring


def json_rows(batch: Any) -> list[str]:
    """Return each row of a batch as a JSON object.

    Raises
    ------
    DataError
        When a value has no such form: a date or time beyond the years 1 to 9999.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from millstream._value_texts import json_rows
    >>> json_rows(pa.record_batch({"a": [1, None], "b": ["x", '"']}))
    ['{"a":1,"b":"x"}', '{"a":null,"b":"\\\\""}']
    """
    columns = [_named(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)]
    return ["{" + ",".join(row) + "}" for row in zip(*columns, strict=True)] if columns else ["{}"] * batch.num_rows


def _named(name: str, column: Any) -> list[str]:
    begin = f"{_quoted(name)}:"
    try:
        return [begin + text for text in json_texts(column)]
    except (OverflowError, UnicodeDecodeError) as error:
        raise DataError(f"column {name!r} cannot be written as text: {error}") from error


def plain_texts(column: Any) -> list[str | bytes | None]:
    """Return each value as text: text and bytes as they are, nested values as JSON, others as JSON has them without quotes.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from millstream._value_texts import plain_texts
    >>> plain_texts(pa.array([True, None])), plain_texts(pa.array([[1]]))
    (['true', None], ['[1]'])
    """
    import pyarrow as pa

    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    kind = column.type
    is_kind = pa.types
    if is_kind.is_null(kind):
        return [None] * len(column)
    if _is_text(kind) or _is_bytes(kind):
        return cast("list[str | bytes | None]", column.to_pylist())
    if is_kind.is_nested(kind):
        return [text if valid else None for text, valid in zip(json_texts(column), column.is_valid().to_pylist(), strict=True)]
    plain = _plain(kind)
    return [None if value is None else plain(value) for value in _values(column)]


def json_texts(column: Any) -> list[str]:
    """Return each value as JSON.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from millstream._value_texts import json_texts
    >>> json_texts(pa.array([1.5, float("nan"), None])), json_texts(pa.array([[1, 2], []]))
    (['1.5', '"NaN"', 'null'], ['[1,2]', '[]'])
    """
    import pyarrow as pa

    is_kind = pa.types
    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    kind = column.type
    if is_kind.is_null(kind):
        return ["null"] * len(column)
    if _is_text(kind):
        return ["null" if value is None else _quoted(value) for value in column.to_pylist()]
    if _is_bytes(kind):
        return ["null" if value is None else f'"{value.hex()}"' for value in column.to_pylist()]
    if is_kind.is_struct(kind):
        names = [_quoted(kind.field(at).name) + ":" for at in range(kind.num_fields)]
        fields = [json_texts(column.field(at)) for at in range(kind.num_fields)]
        rows = zip(*fields, strict=True) if fields else [()] * len(column)
        texts = ["{" + ",".join(map(str.__add__, names, row)) + "}" for row in rows]
        return [text if valid else "null" for text, valid in zip(texts, column.is_valid().to_pylist(), strict=True)]
    if is_kind.is_map(kind):
        keys, items = json_texts(column.keys), json_texts(column.items)
        names = [key if key.startswith('"') else f'"{key}"' for key in keys]
        entries = [f"{name}:{item}" for name, item in zip(names, items, strict=True)]
        return _lists(column, entries, "{}")
    if is_kind.is_fixed_size_list(kind):
        column = column.cast(pa.list_(kind.value_type))
        kind = column.type
    if is_kind.is_nested(kind):
        return _lists(column, json_texts(column.values), "[]")
    if is_kind.is_floating(kind):
        plain = _plain(kind)
        return ["null" if value is None else plain(value) if math.isfinite(value) else f'"{plain(value)}"' for value in _values(column)]
    plain = _plain(kind)
    if is_kind.is_integer(kind) or is_kind.is_decimal(kind) or is_kind.is_boolean(kind):
        return ["null" if value is None else plain(value) for value in _values(column)]
    return ["null" if value is None else f'"{plain(value)}"' for value in _values(column)]


def _lists(column: Any, items: list[str], brackets: str) -> list[str]:
    offsets = column.offsets.to_pylist()
    valid = column.is_valid().to_pylist()
    begin, end = brackets[0], brackets[1]
    return [begin + ",".join(items[offsets[at] : offsets[at + 1]]) + end if valid[at] else "null" for at in range(len(column))]


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    is_kind = pa.types
    return bool(is_kind.is_binary(kind) or is_kind.is_large_binary(kind) or is_kind.is_binary_view(kind) or is_kind.is_fixed_size_binary(kind))


def _values(column: Any) -> Any:
    """Return values of Python; times and durations as numbers of their units, which have no limits."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_duration(kind) or pa.types.is_time64(kind):
        return column.cast(pa.int64()).to_pylist()
    if pa.types.is_time32(kind):
        return column.cast(pa.int32()).to_pylist()
    return column.to_pylist()


def _plain(kind: Any) -> Callable[[Any], str]:
    """Return the function that makes text of a value that is not null."""
    import pyarrow as pa

    is_kind = pa.types
    if is_kind.is_boolean(kind):
        return lambda value: "true" if value else "false"
    if is_kind.is_floating(kind):
        return _float if kind.bit_width == 64 else _short_float
    if is_kind.is_decimal(kind):
        return lambda value: format(value, "f")
    if is_kind.is_date(kind):
        return date.isoformat
    if is_kind.is_timestamp(kind):
        per_second = _PER_SECOND[kind.unit]
        zone = None if kind.tz is None else _zone(kind.tz)
        return lambda value: _timestamp(value, per_second, zone)
    if is_kind.is_time(kind):
        per_second = _PER_SECOND[kind.unit]
        return lambda value: _clock(value, per_second)
    if is_kind.is_duration(kind):
        per_second = _PER_SECOND[kind.unit]
        return lambda value: _duration(value, per_second)
    return str


def _float(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value).replace("e+", "e").replace("e-0", "e-")


def _short_float(value: float) -> str:
    """Return the shortest digits that are the same float of 32 bits."""
    if math.isfinite(value):
        for digits in range(1, 9):
            short = float(f"{value:.{digits}g}")
            # The digits may be more than the type holds, where it is near its greatest value.
            with contextlib.suppress(OverflowError):
                if struct.unpack("f", struct.pack("f", short))[0] == value:
                    return _float(short)
    return _float(value)


def _fraction(part: int, per_second: int) -> str:
    """Return the digits after the second: 3, 6 or 9 of them, none for a whole second."""
    nanoseconds = part * (1_000_000_000 // per_second)
    digits = f"{nanoseconds:09}"
    return "" if nanoseconds == 0 else f".{digits[: 3 if digits.endswith('000000') else 6 if digits.endswith('000') else 9]}"


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    if name[:1] in "+-" and len(name) == len("+01:00"):
        minutes = int(name[1:3]) * 60 + int(name[4:6])
        return timezone(timedelta(minutes=-minutes if name[0] == "-" else minutes))
    return ZoneInfo(name)


def _timestamp(value: int, per_second: int, zone: tzinfo | None) -> str:
    seconds, part = divmod(value, per_second)
    moment = _EPOCH + timedelta(seconds=seconds)
    fraction = _fraction(part, per_second)
    if zone is None:
        return moment.isoformat() + fraction
    local = moment.replace(tzinfo=timezone.utc).astimezone(zone)
    offset = local.utcoffset() or timedelta()
    if offset.seconds % 60 or not offset:
        return f"{moment.isoformat() if offset else local.replace(tzinfo=None).isoformat()}{fraction}Z"
    return local.replace(tzinfo=None).isoformat() + fraction + local.isoformat()[-6:]


def _clock(value: int, per_second: int) -> str:
    seconds, part = divmod(value, per_second)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{_fraction(part, per_second)}"


def _duration(value: int, per_second: int) -> str:
    seconds, part = divmod(abs(value), per_second)
    fraction = _fraction(part, per_second).rstrip("0")
    return f"{'-' if value < 0 else ''}PT{seconds}{fraction}S"
