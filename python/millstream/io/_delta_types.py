"""Which type of Delta holds the values of which column, and whether a table's column does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.errors import SchemaError
from millstream.io._table_rows import stored_columns

if TYPE_CHECKING:
    from millstream.types import Schema

__all__ = ["check_fits", "shown_type", "stored_schema"]

_DECIMAL_DIGITS_MAX = 38
_DIGITS = {"int8": 3, "int16": 5, "int32": 10, "int64": 19}
"""How many digits the integers of Delta have at most."""


def stored_schema(schema: Schema, call: str) -> Any:
    """Return the columns as a table of Delta has them, as a ``pyarrow.Schema``.

    Raises
    ------
    SchemaError
        When a column has values for which Delta has no exact form.
    """
    return stored_columns(schema, call, "Delta Lake", "Delta Lake does", _stored)


def _stored(kind: Any) -> tuple[Any, str]:
    """Return the type, or None and advice."""
    import pyarrow as pa

    is_kind = pa.types
    if is_kind.is_dictionary(kind):
        return _stored(kind.value_type)
    if is_kind.is_boolean(kind) or is_kind.is_signed_integer(kind) or kind in (pa.float32(), pa.float64(), pa.date32()):
        return kind, ""
    if is_kind.is_unsigned_integer(kind):
        wider = {8: pa.int16(), 16: pa.int32(), 32: pa.int64(), 64: pa.decimal128(20, 0)}
        return wider[kind.bit_width], ""
    if kind == pa.float16():
        return pa.float32(), ""
    if is_kind.is_string(kind) or is_kind.is_large_string(kind) or is_kind.is_string_view(kind):
        return pa.string(), ""
    if is_kind.is_binary(kind) or is_kind.is_large_binary(kind) or is_kind.is_binary_view(kind) or is_kind.is_fixed_size_binary(kind):
        return pa.binary(), ""
    if is_kind.is_decimal(kind):
        if kind.precision > _DECIMAL_DIGITS_MAX or kind.scale < 0:
            return None, f"its decimals have up to {_DECIMAL_DIGITS_MAX} digits: cast() it to mill.types.Decimal or to str"
        return pa.decimal128(kind.precision, kind.scale), ""
    if is_kind.is_timestamp(kind):
        if kind.unit == "ns":
            return None, 'its times have microseconds: use .dt.cast_time_unit("us")'
        return pa.timestamp("us", None if kind.tz is None else "UTC"), ""
    if is_kind.is_struct(kind) and kind.num_fields:
        fields = []
        for at in range(kind.num_fields):
            field, advice = _stored(kind.field(at).type)
            if field is None:
                return None, advice
            fields.append(pa.field(kind.field(at).name, field))
        return pa.struct(fields), ""
    if is_kind.is_list(kind) or is_kind.is_large_list(kind) or is_kind.is_fixed_size_list(kind):
        item, advice = _stored(kind.value_type)
        return (None if item is None else pa.list_(item)), advice
    if is_kind.is_map(kind):
        key, advice = _stored(kind.key_type)
        value, other = _stored(kind.item_type)
        return (None if key is None or value is None else pa.map_(key, value)), advice or other
    return None, "cast() it to str"


def check_fits(name: str, kind: object, stored: Any, column: Any, call: str) -> None:
    """Refuse a column whose values the table's column of this name does not hold exactly."""
    if not _fits(stored, column):
        raise SchemaError(
            f"{call}: column {name!r} of the table is {shown_type(column)}, which does not hold every {kind!r} exactly; cast() the column, or "
            "write into another table"
        )


def _fits(own: Any, column: Any) -> bool:
    import pyarrow as pa

    is_kind = pa.types
    if own == column and not is_kind.is_nested(own):
        return True
    if is_kind.is_integer(own) and is_kind.is_integer(column):
        return bool(own.bit_width <= column.bit_width)
    if is_kind.is_integer(own) and is_kind.is_decimal(column):
        return bool(_DIGITS[str(own)] <= column.precision - column.scale)
    if is_kind.is_floating(own) and is_kind.is_floating(column):
        return bool(own.bit_width <= column.bit_width)
    if is_kind.is_decimal(own) and is_kind.is_decimal(column):
        return bool(own.scale <= column.scale and own.precision - own.scale <= column.precision - column.scale)
    if is_kind.is_list(own) and is_kind.is_list(column):
        return column.value_field.nullable and _fits(own.value_type, column.value_type)
    if is_kind.is_map(own) and is_kind.is_map(column):
        return column.item_field.nullable and _fits(own.key_type, column.key_type) and _fits(own.item_type, column.item_type)
    if is_kind.is_struct(own) and is_kind.is_struct(column):
        own_fields, fields = list(own), list(column)
        return [field.name for field in own_fields] == [field.name for field in fields] and all(
            other.nullable and _fits(one.type, other.type) for one, other in zip(own_fields, fields, strict=True)
        )
    return False


def shown_type(kind: Any) -> str:
    """Return a type as Delta calls it.

    Examples
    --------
    >>> import pyarrow as pa
    >>> from millstream.io._delta_types import shown_type
    >>> shown_type(pa.int16()), shown_type(pa.timestamp("us"))
    ('short', 'timestamp_ntz')
    """
    import pyarrow as pa

    is_kind = pa.types
    names = {"int8": "byte", "int16": "short", "int32": "integer", "int64": "long", "float": "float", "double": "double", "bool": "boolean"}
    if is_kind.is_timestamp(kind):
        return "timestamp_ntz" if kind.tz is None else "timestamp"
    if is_kind.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if is_kind.is_list(kind):
        return f"array<{_shown_field(kind.value_field)}>"
    if is_kind.is_map(kind):
        return f"map<{shown_type(kind.key_type)},{_shown_field(kind.item_field)}>"
    if is_kind.is_struct(kind):
        return f"struct<{','.join(f'{field.name}:{_shown_field(field)}' for field in kind)}>"
    return names.get(str(kind), str(kind).removesuffix("32[day]"))


def _shown_field(field: Any) -> str:
    return shown_type(field.type) + ("" if field.nullable else " not null")
