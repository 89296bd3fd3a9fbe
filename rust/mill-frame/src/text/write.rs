//! Writes values as text that [`read`](super::read) reads back to the same value, whatever the value is.

use std::fmt::Write as _;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int64Array, StringArray,
    UInt64Array,
};
use arrow::compute::{cast, kernels::numeric::div};
use arrow::datatypes::{
    DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type,
    Int64Type, TimeUnit, UInt64Type,
};
use arrow::error::ArrowError;

use super::calendar::date_of;
use super::moment::per_second;
use crate::zone::{Zone, is_utc};

/// A column whose values are written as text, one at a time.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, DurationMillisecondArray};
/// use mill_frame::text::TextColumn;
///
/// let spans: ArrayRef = Arc::new(DurationMillisecondArray::from(vec![Some(90_500), None]));
/// let column = TextColumn::new(&spans)?.unwrap();
/// let mut text = String::new();
/// column.push(0, &mut text);
/// assert_eq!(text, "PT90.5S");
/// assert!(column.is_null(1));
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
#[derive(Debug)]
pub struct TextColumn {
    values: Values,
}

#[derive(Debug)]
enum Values {
    Null,
    Boolean(BooleanArray),
    Signed(Int64Array),
    Unsigned(UInt64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal32(ArrayRef, i8),
    Decimal64(ArrayRef, i8),
    Decimal128(ArrayRef, i8),
    Decimal256(ArrayRef, i8),
    Text(StringArray),
    Binary(BinaryArray),
    Date(Int64Array),
    Time(Int64Array, TimeUnit),
    Moment(Int64Array, TimeUnit, Clock),
    Duration(Int64Array, TimeUnit),
}

/// The clock by which moments are written.
#[derive(Debug)]
enum Clock {
    Naive,
    Utc,
    Of(Zone),
}

impl TextColumn {
    /// The values of a column; `None` if its type has no form as text (lists, structs, maps, intervals).
    ///
    /// # Errors
    /// When Arrow cannot lay out the values again: an invalid dictionary, a zone that is not known.
    pub fn new(array: &ArrayRef) -> Result<Option<TextColumn>, ArrowError> {
        let as_type = |data_type: &DataType| cast(array, data_type);
        let signed = || Ok::<_, ArrowError>(as_type(&DataType::Int64)?.as_primitive::<Int64Type>().clone());
        let values = match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(array.as_boolean().clone()),
            t if t.is_signed_integer() => Values::Signed(signed()?),
            t if t.is_unsigned_integer() => {
                Values::Unsigned(as_type(&DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            DataType::Float16 | DataType::Float32 => {
                Values::Float32(as_type(&DataType::Float32)?.as_primitive::<Float32Type>().clone())
            }
            DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>().clone()),
            DataType::Decimal32(_, s) => Values::Decimal32(array.clone(), *s),
            DataType::Decimal64(_, s) => Values::Decimal64(array.clone(), *s),
            DataType::Decimal128(_, s) => Values::Decimal128(array.clone(), *s),
            DataType::Decimal256(_, s) => Values::Decimal256(array.clone(), *s),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Values::Text(as_type(&DataType::Utf8)?.as_string().clone())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Values::Binary(as_type(&DataType::Binary)?.as_binary().clone())
            }
            DataType::Date32 => Values::Date(cast(&as_type(&DataType::Int32)?, &DataType::Int64)?.as_primitive().clone()),
            DataType::Date64 => {
                let millis = signed()?;
                let is_whole = millis.iter().flatten().all(|millis| millis % 86_400_000 == 0);
                if is_whole {
                    Values::Date(div(&millis, &Int64Array::new_scalar(86_400_000))?.as_primitive().clone())
                } else {
                    // Some programs keep a time of day in it.
                    Values::Moment(millis, TimeUnit::Millisecond, Clock::Naive)
                }
            }
            DataType::Time32(unit) => {
                Values::Time(cast(&as_type(&DataType::Int32)?, &DataType::Int64)?.as_primitive().clone(), *unit)
            }
            DataType::Time64(unit) => Values::Time(signed()?, *unit),
            DataType::Timestamp(unit, zone) => {
                let clock = match zone.as_deref() {
                    None => Clock::Naive,
                    Some(zone) if is_utc(zone) => Clock::Utc,
                    Some(zone) => Clock::Of(zone.parse()?),
                };
                Values::Moment(signed()?, *unit, clock)
            }
            DataType::Duration(unit) => Values::Duration(signed()?, *unit),
            DataType::Dictionary(_, value) => return TextColumn::new(&as_type(value)?),
            _ => return Ok(None),
        };
        Ok(Some(TextColumn { values }))
    }

    /// Whether a row has no value.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match &self.values {
            Values::Null => true,
            Values::Boolean(array) => array.is_null(row),
            Values::Signed(array)
            | Values::Date(array)
            | Values::Time(array, _)
            | Values::Moment(array, _, _)
            | Values::Duration(array, _) => array.is_null(row),
            Values::Unsigned(array) => array.is_null(row),
            Values::Float32(array) => array.is_null(row),
            Values::Float64(array) => array.is_null(row),
            Values::Decimal32(array, ..)
            | Values::Decimal64(array, ..)
            | Values::Decimal128(array, ..)
            | Values::Decimal256(array, ..) => array.is_null(row),
            Values::Text(array) => array.is_null(row),
            Values::Binary(array) => array.is_null(row),
        }
    }

    /// The value itself, where it is text.
    #[inline]
    pub fn text(&self, row: usize) -> Option<&str> {
        match &self.values {
            Values::Text(array) => Some(array.value(row)),
            _ => None,
        }
    }

    /// Whether the values are text.
    pub fn is_text(&self) -> bool {
        matches!(self.values, Values::Text(_))
    }

    /// Whether the value is a finite number or a boolean: what JSON writes without quotes.
    #[inline]
    pub fn is_bare(&self, row: usize) -> bool {
        match &self.values {
            Values::Boolean(_)
            | Values::Signed(_)
            | Values::Unsigned(_)
            | Values::Decimal32(..)
            | Values::Decimal64(..)
            | Values::Decimal128(..)
            | Values::Decimal256(..) => true,
            Values::Float32(array) => array.value(row).is_finite(),
            Values::Float64(array) => array.value(row).is_finite(),
            _ => false,
        }
    }

    /// Writes the value of a row that is not null.
    #[inline]
    pub fn push(&self, row: usize, out: &mut String) {
        match &self.values {
            Values::Null => {}
            Values::Boolean(array) => out.push_str(if array.value(row) { "true" } else { "false" }),
            Values::Signed(array) => push_signed(array.value(row), out),
            Values::Unsigned(array) => push_unsigned(array.value(row), 1, out),
            Values::Float32(array) => push_float(array.value(row), out),
            Values::Float64(array) => push_float(array.value(row), out),
            Values::Decimal32(array, s) => push_decimal::<Decimal32Type>(array, row, *s, out),
            Values::Decimal64(array, s) => push_decimal::<Decimal64Type>(array, row, *s, out),
            Values::Decimal128(array, s) => push_decimal::<Decimal128Type>(array, row, *s, out),
            Values::Decimal256(array, s) => push_decimal::<Decimal256Type>(array, row, *s, out),
            Values::Text(array) => out.push_str(array.value(row)),
            Values::Binary(array) => push_hex(array.value(row), out),
            Values::Date(array) => push_date(array.value(row), out),
            Values::Time(array, unit) => push_time(array.value(row), *unit, out),
            Values::Moment(array, unit, clock) => push_moment(array.value(row), *unit, clock, out),
            Values::Duration(array, unit) => push_duration(array.value(row), *unit, out),
        }
    }
}

/// The shortest digits that are read back as the same number.
fn push_float(value: impl std::fmt::Debug, out: &mut String) {
    // `Debug` writes NaN and infinities as they are read, and very large and small values with an exponent.
    write!(out, "{value:?}").expect("writing to a string does not fail");
}

fn push_decimal<T: DecimalType>(array: &ArrayRef, row: usize, scale: i8, out: &mut String) {
    if array.as_primitive::<T>().value(row).is_zero() && scale < 0 {
        // The formatter appends as many zeros as the scale says.
        return out.push('0');
    }
    // All digits: those beyond the precision of the type would be cut off, and a record with them is shown as it is.
    out.push_str(&T::format_decimal(array.as_primitive::<T>().value(row), u8::MAX, scale));
}

fn push_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

#[inline]
fn push_signed(value: i64, out: &mut String) {
    if value < 0 {
        out.push('-');
    }
    push_unsigned(value.unsigned_abs(), 1, out);
}

/// A number in decimal with at least so many digits.
#[inline]
fn push_unsigned(mut value: u64, digits_min: usize, out: &mut String) {
    const DIGITS_MAX: usize = 20;
    let mut digits = [b'0'; DIGITS_MAX];
    let mut at = DIGITS_MAX;
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let first = at.min(DIGITS_MAX - digits_min);
    out.push_str(std::str::from_utf8(&digits[first..]).expect("digits are ASCII"));
}

fn push_date(days: i64, out: &mut String) {
    let (year, month, day) = date_of(days);
    match year {
        0..=9_999 => {}
        10_000.. => out.push('+'),
        _ => out.push('-'),
    }
    push_unsigned(year.unsigned_abs(), 4, out);
    out.push('-');
    push_unsigned(u64::from(month), 2, out);
    out.push('-');
    push_unsigned(u64::from(day), 2, out);
}

/// Hours, minutes, seconds, and the fraction in thousandths, millionths or billionths if there is one.
fn push_clock(second_of_day: u64, nanos: u64, out: &mut String) {
    push_unsigned(second_of_day / 3600, 2, out);
    out.push(':');
    push_unsigned(second_of_day / 60 % 60, 2, out);
    out.push(':');
    push_unsigned(second_of_day % 60, 2, out);
    let (fraction, digits) = match nanos {
        0 => return,
        nanos if nanos % 1_000_000 == 0 => (nanos / 1_000_000, 3),
        nanos if nanos % 1_000 == 0 => (nanos / 1_000, 6),
        nanos => (nanos, 9),
    };
    out.push('.');
    push_unsigned(fraction, digits, out);
}

/// Whole seconds, rounded down, and the nanoseconds that are left.
fn split(value: i64, unit: TimeUnit) -> (i64, u64) {
    let per_second = per_second(unit);
    let rest = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    (value.div_euclid(per_second), rest as u64)
}

fn push_time(value: i64, unit: TimeUnit, out: &mut String) {
    let (seconds, nanos) = split(value, unit);
    if (0..86_400).contains(&seconds) {
        push_clock(seconds as u64, nanos, out);
    } else {
        // No time of any day, which the type does not forbid: the number itself, which reading it refuses.
        push_signed(value, out);
    }
}

fn push_moment(value: i64, unit: TimeUnit, clock: &Clock, out: &mut String) {
    let (seconds, nanos) = split(value, unit);
    let offset = match clock {
        Clock::Of(zone) => zone.offset_at(seconds),
        _ => 0,
    };
    // An offset with seconds has no form in ISO 8601: the moment is written in UTC.
    let offset = if offset % 60 == 0 { offset } else { 0 };
    // At the ends of the range of seconds local time may be out of it.
    let local = i128::from(seconds) + i128::from(offset);
    push_date(local.div_euclid(86_400) as i64, out);
    out.push('T');
    push_clock(local.rem_euclid(86_400) as u64, nanos, out);
    match (clock, offset) {
        (Clock::Naive, _) => {}
        (_, 0) => out.push('Z'),
        (_, offset) => {
            out.push(if offset < 0 { '-' } else { '+' });
            push_unsigned(u64::from(offset.unsigned_abs() / 3600), 2, out);
            out.push(':');
            push_unsigned(u64::from(offset.unsigned_abs() / 60 % 60), 2, out);
        }
    }
}

fn push_duration(value: i64, unit: TimeUnit, out: &mut String) {
    let per_second = per_second(unit).unsigned_abs();
    let (whole, rest) = (value.unsigned_abs() / per_second, value.unsigned_abs() % per_second);
    out.push_str(if value < 0 { "-PT" } else { "PT" });
    push_unsigned(whole, 1, out);
    if rest > 0 {
        out.push('.');
        push_unsigned(rest, per_second.ilog10() as usize, out);
        out.truncate(out.trim_end_matches('0').len());
    }
    out.push('S');
}
