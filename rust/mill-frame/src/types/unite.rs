//! The type that holds the values of two types exactly: what the files of one directory have in common.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use super::plain::plain_type;

/// The digits of a decimal of 128 bits.
const DIGITS_MAX: i16 = 38;

/// The type that holds every value of both types; `None` if there is none, or if one kind of value would have to pass for
/// another (a number for text, a time without a zone for one with a zone, a boolean for a number).
///
/// Integers and floats meet in `float64` although it does not hold every integer: a value that it does not hold is found
/// when it is converted.
///
/// # Examples
/// ```
/// use arrow::datatypes::DataType;
/// use mill_frame::types::unite;
///
/// assert_eq!(unite(&DataType::Int32, &DataType::UInt32), Some(DataType::Int64));
/// assert_eq!(unite(&DataType::Int32, &DataType::Utf8), None);
/// ```
pub fn unite(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{
        Binary, BinaryView, Date32, Date64, Decimal128, Dictionary, Duration, FixedSizeBinary, FixedSizeList, LargeBinary,
        LargeUtf8, List, Map, Null, Struct, Time32, Time64, Timestamp, Utf8, Utf8View,
    };
    let (a, b) = (&plain_type(a), &plain_type(b));
    if a == b {
        return Some(a.clone());
    }
    Some(match (a, b) {
        (Null, other) | (other, Null) => other.clone(),
        (Dictionary(key, x), Dictionary(_, y)) => Dictionary(key.clone(), Box::new(unite(x, y)?)),
        (Dictionary(_, values), other) | (other, Dictionary(_, values)) => unite(values, other)?,
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => Utf8,
        (
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_),
            Binary | LargeBinary | BinaryView | FixedSizeBinary(_),
        ) => Binary,
        (x, y) if is_number(x) && is_number(y) => unite_numbers(x, y)?,
        (Decimal128(p1, s1), Decimal128(p2, s2)) => decimal((*p1, *s1), (*p2, *s2))?,
        (Decimal128(precision, scale), other) | (other, Decimal128(precision, scale)) if other.is_integer() => {
            decimal((*precision, *scale), (digits(other), 0))?
        }
        (Date32, Date64) | (Date64, Date32) => Date64,
        (Time32(u1) | Time64(u1), Time32(u2) | Time64(u2)) => match finer(*u1, *u2) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        (Timestamp(u1, None), Timestamp(u2, None)) => Timestamp(finer(*u1, *u2), None),
        (Timestamp(u1, Some(z1)), Timestamp(u2, Some(z2))) if is_same_zone(z1, z2) => {
            Timestamp(finer(*u1, *u2), Some(Arc::clone(z1)))
        }
        (Duration(u1), Duration(u2)) => Duration(finer(*u1, *u2)),
        (List(x) | FixedSizeList(x, _), List(y) | FixedSizeList(y, _)) => List(unite_fields(x, y)?),
        (Struct(xs), Struct(ys)) if xs.len() == ys.len() => {
            let united: Option<Fields> = xs.iter().map(|x| unite_fields(x, ys.find(x.name())?.1)).collect();
            Struct(united?)
        }
        (Map(x, is_sorted), Map(y, _)) => Map(unite_fields(x, y)?, *is_sorted),
        _ => return None,
    })
}

fn unite_fields(a: &FieldRef, b: &FieldRef) -> Option<FieldRef> {
    let united = Field::new(a.name(), unite(a.data_type(), b.data_type())?, a.is_nullable() || b.is_nullable());
    Some(Arc::new(united.with_metadata(a.metadata().clone())))
}

/// Whether two names of zones mean the same zone: `UTC` has several.
pub fn is_same_zone(a: &str, b: &str) -> bool {
    let is_utc = |zone: &str| {
        ["UTC", "Z", "Etc/UTC", "Etc/UCT", "Etc/Zulu", "Etc/Universal", "UCT", "Zulu", "Universal", "+00:00", "-00:00", "+00", "+0000"]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(zone))
    };
    a == b || (is_utc(a) && is_utc(b))
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    a.max(b)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_floating()
}

/// How many digits the greatest integer of a type has.
fn digits(data_type: &DataType) -> u8 {
    match data_type {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        _ => 20,
    }
}

fn decimal((p1, s1): (u8, i8), (p2, s2): (u8, i8)) -> Option<DataType> {
    let scale = s1.max(s2);
    let whole = (i16::from(p1) - i16::from(s1)).max(i16::from(p2) - i16::from(s2));
    let precision = whole + i16::from(scale);
    (precision <= DIGITS_MAX).then_some(DataType::Decimal128(precision.max(1) as u8, scale))
}

fn unite_numbers(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::{Float16, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32};
    let bits = |data_type: &DataType| data_type.primitive_width().unwrap_or(8) * 8;
    if a.is_floating() && b.is_floating() {
        return Some(if bits(a) > bits(b) { a.clone() } else { b.clone() });
    }
    if a.is_floating() || b.is_floating() {
        let (float, integer) = if a.is_floating() { (a, b) } else { (b, a) };
        return Some(match (float, integer) {
            (Float16 | Float32, Int8 | UInt8 | Int16 | UInt16) => Float32,
            _ => Float64,
        });
    }
    if a.is_signed_integer() == b.is_signed_integer() {
        return Some(if bits(a) > bits(b) { a.clone() } else { b.clone() });
    }
    let (signed, unsigned) = if a.is_signed_integer() { (a, b) } else { (b, a) };
    let needed = match unsigned {
        UInt8 => 16,
        UInt16 => 32,
        UInt32 => 64,
        // No integer type holds both the negative numbers and the upper half of uint64.
        _ => return None,
    };
    Some(match bits(signed).max(needed) {
        16 => Int16,
        32 => Int32,
        _ => Int64,
    })
}
