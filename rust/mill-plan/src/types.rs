//! Types: their names in messages, and the type in which two values meet.

use arrow::datatypes::{DataType, Field, TimeUnit};
pub use mill_frame::types::type_name;

/// The key and value of a field's metadata that mark a column of Python objects, pickled.
const TYPE_KEY: &str = "millstream.type";
const TYPE_OBJECT: &str = "object";

/// Whether the column holds Python objects.
pub(crate) fn is_object(field: &Field) -> bool {
    field.metadata().get(TYPE_KEY).is_some_and(|name| name == TYPE_OBJECT)
}

/// Whether the column holds Python objects, at any depth.
pub(crate) fn holds_objects(field: &Field) -> bool {
    let of_type = match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => holds_objects(item),
        DataType::Struct(fields) => fields.iter().any(|field| holds_objects(field)),
        _ => false,
    };
    of_type || is_object(field)
}

/// Whether values of the type are strings.
pub(crate) fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Whether values of the type are integers or floats.
pub(crate) fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_floating()
}

/// Whether values of the type are decimals.
pub(crate) fn is_decimal(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// Whether values of the type are points in time or spans of it.
pub(crate) fn is_temporal(data_type: &DataType) -> bool {
    data_type.is_temporal()
}

/// The type in which values of both types can be compared, added or stand in one column; `None` if there is none.
pub(crate) fn supertype(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Binary, Boolean, Date32, Date64, Decimal128, Dictionary, Duration, Null, Time32, Time64, Timestamp, Utf8};
    if a == b {
        return Some(a.clone());
    }
    Some(match (a, b) {
        (Null, other) | (other, Null) => other.clone(),
        (Dictionary(_, values), other) | (other, Dictionary(_, values)) => return supertype(values, other),
        (a, b) if is_string(a) && is_string(b) => Utf8,
        (a, b) if is_binary(a) && is_binary(b) => Binary,
        (Boolean, other) | (other, Boolean) if is_number(other) => other.clone(),
        (a, b) if is_number(a) && is_number(b) => number_supertype(a, b),
        (Decimal128(p1, s1), Decimal128(p2, s2)) => {
            let scale = (*s1).max(*s2);
            let whole = (i16::from(*p1) - i16::from(*s1)).max(i16::from(*p2) - i16::from(*s2));
            Decimal128((whole + i16::from(scale)).clamp(1, 38) as u8, scale)
        }
        (Decimal128(..), other) | (other, Decimal128(..)) if other.is_floating() => DataType::Float64,
        (Decimal128(_, scale), other) | (other, Decimal128(_, scale)) if other.is_integer() => Decimal128(38, *scale),
        (Timestamp(u1, z1), Timestamp(u2, z2)) if z1.is_some() == z2.is_some() => {
            Timestamp(finer(*u1, *u2), z1.clone())
        }
        (Time32(u1) | Time64(u1), Time32(u2) | Time64(u2)) => match finer(*u1, *u2) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        (Duration(u1), Duration(u2)) => Duration(finer(*u1, *u2)),
        (Date32 | Date64, Timestamp(unit, zone)) | (Timestamp(unit, zone), Date32 | Date64) => {
            Timestamp(*unit, zone.clone())
        }
        (Date32, Date64) | (Date64, Date32) => Date64,
        (DataType::List(x), DataType::List(y)) => DataType::new_list(supertype(x.data_type(), y.data_type())?, true),
        _ => return None,
    })
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// The finer of two units.
pub(crate) fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    if per_second(a) >= per_second(b) { a } else { b }
}

/// How many of a unit make a second.
pub(crate) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The bits of a number type.
fn bits(data_type: &DataType) -> u32 {
    use DataType::{Float16, Float32, Int8, Int16, Int32, UInt8, UInt16, UInt32};
    match data_type {
        Int8 | UInt8 => 8,
        Int16 | UInt16 | Float16 => 16,
        Int32 | UInt32 | Float32 => 32,
        _ => 64,
    }
}

/// The type in which two different number types meet: by Polars' rules, but for uint64 and a signed type, which Polars
/// rounds to floats.
fn number_supertype(a: &DataType, b: &DataType) -> DataType {
    let signed = |bits: u32| match bits {
        8 => DataType::Int8,
        16 => DataType::Int16,
        32 => DataType::Int32,
        _ => DataType::Int64,
    };
    if a.is_floating() || b.is_floating() {
        // A 32-bit float holds integers of up to 16 bits exactly.
        let is_small = |t: &DataType| if t.is_floating() { bits(t) <= 32 } else { bits(t) <= 16 };
        return if is_small(a) && is_small(b) { DataType::Float32 } else { DataType::Float64 };
    }
    if a.is_signed_integer() == b.is_signed_integer() {
        return if bits(a) >= bits(b) { a.clone() } else { b.clone() };
    }
    let (signed_bits, unsigned_bits) = if a.is_signed_integer() { (bits(a), bits(b)) } else { (bits(b), bits(a)) };
    match unsigned_bits {
        // No integer type holds all values of both; one that does not fit is an error of its record.
        64 => DataType::Int64,
        _ => signed(signed_bits.max(unsigned_bits * 2)),
    }
}

#[cfg(test)]
mod tests;
