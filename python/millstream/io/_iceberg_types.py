"""Which type of Iceberg holds the values of which column, whether a table's column does, and how tables are partitioned."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from millstream._nearest import did_you_mean
from millstream.errors import SchemaError
from millstream.io._table_rows import stored_columns

if TYPE_CHECKING:
    from millstream.types import Schema

__all__ = ["arrow_schema", "arrow_type", "check_fits", "check_partitions", "iceberg_schema", "partition_spec", "shown_spec", "stored_schema"]

_DECIMAL_DIGITS_MAX = 38
_DIGITS = {"int32": 10, "int64": 19}
"""How many digits the integers of Iceberg have at most."""
_TRANSFORMS = {
    "bucket": "bucket",
    "truncate": "truncate",
    **{name + plural: name for name in ("year", "month", "day", "hour") for plural in ("", "s")},
}
_CALL = re.compile(r"(\w+)\((?:\s*(\d+)\s*,)?\s*(.+?)\s*\)")
_FIRST_PARTITION_ID = 1000


# -- columns ---------------------------------------------------------------------------------------------------------------


def stored_schema(schema: Schema, call: str) -> Any:
    """Return the columns as a table of Iceberg has them, as a ``pyarrow.Schema``.

    Raises
    ------
    SchemaError
        When a column has values for which Iceberg has no exact form.
    """
    return stored_columns(schema, call, "Iceberg", "most readers of Iceberg do", _stored)


def _stored(kind: Any) -> tuple[Any, str]:
    """Return the type, or None and advice."""
    import pyarrow as pa

    is_kind = pa.types
    if is_kind.is_dictionary(kind):
        return _stored(kind.value_type)
    if is_kind.is_boolean(kind) or kind in (pa.float32(), pa.float64(), pa.date32()):
        return kind, ""
    if is_kind.is_signed_integer(kind):
        return (pa.int64() if kind.bit_width == 64 else pa.int32()), ""
    if is_kind.is_unsigned_integer(kind):
        wider = {8: pa.int32(), 16: pa.int32(), 32: pa.int64(), 64: pa.decimal128(20, 0)}
        return wider[kind.bit_width], ""
    if kind == pa.float16():
        return pa.float32(), ""
    if is_kind.is_string(kind) or is_kind.is_large_string(kind) or is_kind.is_string_view(kind):
        return pa.string(), ""
    if is_kind.is_binary(kind) or is_kind.is_large_binary(kind) or is_kind.is_binary_view(kind):
        return pa.binary(), ""
    if is_kind.is_fixed_size_binary(kind):
        return kind, ""
    if is_kind.is_decimal(kind):
        if kind.precision > _DECIMAL_DIGITS_MAX or kind.scale < 0:
            return None, f"its decimals have up to {_DECIMAL_DIGITS_MAX} digits: cast() it to mill.types.Decimal or to str"
        return pa.decimal128(kind.precision, kind.scale), ""
    if is_kind.is_timestamp(kind):
        if kind.unit == "ns":
            return None, 'its times have microseconds: use .dt.cast_time_unit("us")'
        return pa.timestamp("us", None if kind.tz is None else "UTC"), ""
    if is_kind.is_time(kind):
        return (None if kind.unit == "ns" else pa.time64("us")), "its times of day have microseconds: cast() it to str"
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


def iceberg_schema(stored: Any) -> Any:
    """Return stored columns as a ``pyiceberg.schema.Schema``; all are optional."""
    from pyiceberg.schema import Schema as IcebergSchema
    from pyiceberg.types import NestedField

    numbers = itertools.count(1)
    return IcebergSchema(*(NestedField(next(numbers), field.name, _iceberg_type(field.type, numbers), required=False) for field in stored))


def _iceberg_type(kind: Any, numbers: Iterator[int]) -> Any:
    import pyarrow as pa
    from pyiceberg import types as own

    is_kind = pa.types
    if is_kind.is_decimal(kind):
        return own.DecimalType(kind.precision, kind.scale)
    if is_kind.is_fixed_size_binary(kind):
        return own.FixedType(kind.byte_width)
    if is_kind.is_list(kind):
        number = next(numbers)
        return own.ListType(number, _iceberg_type(kind.value_type, numbers), element_required=False)
    if is_kind.is_map(kind):
        key, value = next(numbers), next(numbers)
        return own.MapType(key, _iceberg_type(kind.key_type, numbers), value, _iceberg_type(kind.item_type, numbers), value_required=False)
    if is_kind.is_struct(kind):
        fields = [(next(numbers), field.name, field.type) for field in kind]
        return own.StructType(*(own.NestedField(number, name, _iceberg_type(inner, numbers), required=False) for number, name, inner in fields))
    plain = {
        pa.bool_(): own.BooleanType(),
        pa.int32(): own.IntegerType(),
        pa.int64(): own.LongType(),
        pa.float32(): own.FloatType(),
        pa.float64(): own.DoubleType(),
        pa.date32(): own.DateType(),
        pa.time64("us"): own.TimeType(),
        pa.timestamp("us"): own.TimestampType(),
        pa.timestamp("us", "UTC"): own.TimestamptzType(),
        pa.string(): own.StringType(),
        pa.binary(): own.BinaryType(),
    }
    return plain[kind]


def arrow_type(kind: Any) -> Any:
    """Return the type of a column of a table as Arrow has it; None if this package does not know it."""
    import pyarrow as pa
    from pyiceberg import types as own

    if isinstance(kind, own.DecimalType):
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, own.FixedType):
        return pa.binary(len(kind))
    if isinstance(kind, own.ListType):
        item = arrow_type(kind.element_type)
        return None if item is None else pa.list_(pa.field("element", item, nullable=not kind.element_required))
    if isinstance(kind, own.MapType):
        key, value = arrow_type(kind.key_type), arrow_type(kind.value_type)
        return None if key is None or value is None else pa.map_(key, pa.field("value", value, nullable=not kind.value_required))
    if isinstance(kind, own.StructType):
        fields = [(field, arrow_type(field.field_type)) for field in kind.fields]
        return None if any(inner is None for _, inner in fields) else pa.struct([pa.field(field.name, inner, nullable=not field.required) for field, inner in fields])
    plain: dict[Any, Any] = {
        own.BooleanType: pa.bool_(),
        own.IntegerType: pa.int32(),
        own.LongType: pa.int64(),
        own.FloatType: pa.float32(),
        own.DoubleType: pa.float64(),
        own.DateType: pa.date32(),
        own.TimeType: pa.time64("us"),
        own.TimestampType: pa.timestamp("us"),
        own.TimestamptzType: pa.timestamp("us", "UTC"),
        own.StringType: pa.string(),
        own.BinaryType: pa.binary(),
    }
    return plain.get(type(kind))


def arrow_schema(columns: Any, call: str) -> Any:
    """Return the columns of a table as Arrow has them.

    Raises
    ------
    SchemaError
        When one is of a type that this package does not know.
    """
    import pyarrow as pa

    fields = []
    for field in columns.fields:
        kind = arrow_type(field.field_type)
        if kind is None:
            raise SchemaError(f"{call}: column {field.name!r} of the table is {field.field_type}, which Millstream has no type for")
        fields.append(pa.field(field.name, kind, nullable=not field.required))
    return pa.schema(fields)


def check_fits(name: str, kind: object, stored: Any, column: Any, call: str) -> None:
    """Refuse a column whose values the table's column of this name does not hold exactly."""
    known = arrow_type(column.field_type)
    if known is None or not _fits(stored, known):
        raise SchemaError(
            f"{call}: column {name!r} of the table is {column.field_type}, which does not hold every {kind!r} exactly; cast() the column, or "
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
    if is_kind.is_fixed_size_binary(own):
        return bool(is_kind.is_binary(column))
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


# -- partitions ------------------------------------------------------------------------------------------------------------


def partition_spec(given: Sequence[str], columns: Any, call: str) -> Any:
    """Return the partitions that a user asks for, such as ``["country", "day(at)", "bucket(16, id)"]``.

    Parameters
    ----------
    given
        The columns, or transforms of columns.
    columns
        The columns of the table, as a ``pyiceberg.schema.Schema``.
    call
        Begins the message of an error.

    Raises
    ------
    SchemaError
        When there is no such column or transform, or it does not go with the type of the column.
    """
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.transforms import parse_transform

    names = [field.name for field in columns.fields]
    fields: list[Any] = []
    for text in given:
        name, transform, suffix = text, "identity", ""
        found = _CALL.fullmatch(text)
        if text not in names and found is not None:
            function, number, name = found.groups()
            takes_number = function in ("bucket", "truncate")
            if function not in _TRANSFORMS or takes_number != (number is not None) or number == "0":
                raise SchemaError(
                    f"{call}(partition_by=…): {text!r} is none of year(…), month(…), day(…), hour(…), bucket(16, …), truncate(4, …)"
                    f"{did_you_mean(function, list(_TRANSFORMS))}"
                )
            transform = _TRANSFORMS[function] + (f"[{number}]" if takes_number else "")
            suffix = "_trunc" if function == "truncate" else f"_{_TRANSFORMS[function]}"
        if name not in names:
            raise SchemaError(f"{call}(partition_by=…): there is no column {name!r}{did_you_mean(name, names)}")
        column = columns.find_field(name)
        made = parse_transform(transform)
        _check_transform(made, column, text, f"{call}(partition_by=…)")
        if any(field.source_id == column.field_id for field in fields):
            raise SchemaError(f"{call}(partition_by=…) names column {name!r} twice")
        fields.append(PartitionField(column.field_id, _FIRST_PARTITION_ID + len(fields), made, name + suffix))
    return PartitionSpec(*fields)


def check_partitions(spec: Any, columns: Any, call: str) -> None:
    """Refuse partitions of a table that exists, where rows cannot be put into them exactly."""
    sources = [field.source_id for field in spec.fields]
    for field in spec.fields:
        column = next((each for each in columns.fields if each.field_id == field.source_id), None)
        if column is None:
            raise SchemaError(f"{call}: the table is partitioned by {field.name!r}, a part of a nested column, which write_iceberg() does not do")
        if sources.count(field.source_id) > 1:
            raise SchemaError(f"{call}: the table is partitioned twice by column {column.name!r}, which pyiceberg cannot write")
        if str(field.transform) != "void":
            _check_transform(field.transform, column, shown_spec(spec, columns), call)


def _check_transform(transform: Any, column: Any, text: str, call: str) -> None:
    from pyiceberg import types as own

    kind = column.field_type
    if str(transform) == "identity":
        good = isinstance(
            kind, (own.StringType, own.IntegerType, own.LongType, own.BooleanType, own.DateType, own.TimestampType, own.TimestamptzType)
        )
        if not good:
            raise SchemaError(f"{call}: column {column.name!r} is {kind}; a partition is of text, whole numbers, booleans, dates or timestamps")
    elif isinstance(kind, own.TimeType):
        raise SchemaError(f"{call}: column {column.name!r} is a time of day, by which pyiceberg cannot partition")
    elif type(transform).__name__ == "UnknownTransform" or not transform.can_transform(kind):
        raise SchemaError(f"{call}: {text!r} does not go with column {column.name!r}, which is {kind}")


def shown_spec(spec: Any, columns: Any) -> str:
    """Return the partitions of a table as :func:`partition_spec` takes them."""
    texts = []
    for field in spec.fields:
        name = columns.find_column_name(field.source_id)
        function, _, number = str(field.transform).rstrip("]").partition("[")
        texts.append(name if function == "identity" else f"{function}({number + ', ' if number else ''}{name})")
    return ", ".join(texts)
