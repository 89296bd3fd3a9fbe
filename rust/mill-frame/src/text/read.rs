//! Makes a column of texts.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, FixedSizeBinaryBuilder, NullArray, PrimitiveBuilder,
    StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type,
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::moment::{Moment, Moments};
use super::number::{parse_any_float, parse_decimal, parse_float, parse_integer};
use super::span::{parse_date, parse_duration, parse_time};
use super::Misfit;
use crate::zone::{Zone, is_utc};

/// What is read for one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// Text, as of a CSV field or a JSON string.
    Text(&'a [u8]),
    /// The digits of a JSON number: for a date they count days, where a text of digits is a date without its hyphens.
    Number(&'a [u8]),
}

/// Whether [`read`] makes columns of this type.
pub fn can_read(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => can_read(value),
        DataType::Interval(_) | DataType::RunEndEncoded(..) | DataType::Union(..) => false,
        DataType::Timestamp(_, Some(zone)) => zone.parse::<Zone>().is_ok(),
        other => !other.is_nested(),
    }
}

/// A column of this type, of as many rows as there are cells. What does not fit becomes null, and `misfit` is called
/// with its row, in order.
///
/// # Panics
/// If the type is none that [`can_read`] admits.
///
/// # Examples
/// ```
/// use arrow::array::{Array, AsArray};
/// use arrow::datatypes::{DataType, Int64Type};
/// use mill_frame::text::{Cell, Misfit, read};
///
/// let mut misfits = Vec::new();
/// let cells = [Cell::Text(b"1"), Cell::Null, Cell::Text(b"x")].into_iter();
/// let column = read(cells, 3, &DataType::Int64, |row, _, misfit| misfits.push((row, misfit)));
/// assert_eq!(column.as_primitive::<Int64Type>().value(0), 1);
/// assert_eq!(column.null_count(), 2);
/// assert_eq!(misfits, [(2, Misfit::Form)]);
/// ```
pub fn read<'a>(
    cells: impl Iterator<Item = Cell<'a>>,
    rows: usize,
    to: &DataType,
    misfit: impl FnMut(usize, &'a [u8], Misfit),
) -> ArrayRef {
    let column = Column { cells, rows, to, misfit };
    match to {
        DataType::Null => column.nulls(),
        DataType::Boolean => column.booleans(),
        DataType::Int8 => column.primitive::<Int8Type>(|bytes, _| parse_integer(bytes)),
        DataType::Int16 => column.primitive::<Int16Type>(|bytes, _| parse_integer(bytes)),
        DataType::Int32 => column.primitive::<Int32Type>(|bytes, _| parse_integer(bytes)),
        DataType::Int64 => column.primitive::<Int64Type>(|bytes, _| parse_integer(bytes)),
        DataType::UInt8 => column.primitive::<UInt8Type>(|bytes, _| parse_integer(bytes)),
        DataType::UInt16 => column.primitive::<UInt16Type>(|bytes, _| parse_integer(bytes)),
        DataType::UInt32 => column.primitive::<UInt32Type>(|bytes, _| parse_integer(bytes)),
        DataType::UInt64 => column.primitive::<UInt64Type>(|bytes, _| parse_integer(bytes)),
        DataType::Float64 => column.primitive::<Float64Type>(|bytes, _| parse_float(bytes)),
        DataType::Float32 => column.primitive::<Float32Type>(|bytes, _| parse_any_float(bytes)),
        DataType::Float16 => column.primitive::<Float16Type>(|bytes, _| {
            let wide = parse_float(bytes)?;
            let value = <Float16Type as ArrowPrimitiveType>::Native::from_f64(wide);
            if value.is_infinite() && wide.is_finite() { Err(Misfit::Range) } else { Ok(value) }
        }),
        DataType::Decimal32(p, s) => column.primitive::<Decimal32Type>(|bytes, _| parse_decimal(bytes, *p, *s)),
        DataType::Decimal64(p, s) => column.primitive::<Decimal64Type>(|bytes, _| parse_decimal(bytes, *p, *s)),
        DataType::Decimal128(p, s) => column.primitive::<Decimal128Type>(|bytes, _| parse_decimal(bytes, *p, *s)),
        DataType::Decimal256(p, s) => column.primitive::<Decimal256Type>(|bytes, _| parse_decimal(bytes, *p, *s)),
        DataType::Utf8 => column.strings(),
        DataType::LargeUtf8 | DataType::Utf8View => recast(&read(column.cells, rows, &DataType::Utf8, column.misfit), to),
        DataType::Binary => column.binary(),
        DataType::LargeBinary | DataType::BinaryView => {
            recast(&read(column.cells, rows, &DataType::Binary, column.misfit), to)
        }
        DataType::FixedSizeBinary(size) => column.fixed_binary(*size),
        DataType::Date32 => {
            let mut moments = Moments::default();
            column.primitive::<Date32Type>(|bytes, is_number| {
                i32::try_from(days(&mut moments, bytes, is_number)?).map_err(|_| Misfit::Range)
            })
        }
        DataType::Date64 => {
            const MILLIS_PER_DAY: i64 = 86_400_000;
            let mut moments = Moments::default();
            column.primitive::<Date64Type>(|bytes, is_number| {
                days(&mut moments, bytes, is_number)?.checked_mul(MILLIS_PER_DAY).ok_or(Misfit::Range)
            })
        }
        DataType::Time32(TimeUnit::Second) => column.times::<Time32SecondType>(TimeUnit::Second),
        DataType::Time32(_) => column.times::<Time32MillisecondType>(TimeUnit::Millisecond),
        DataType::Time64(TimeUnit::Nanosecond) => column.times::<Time64NanosecondType>(TimeUnit::Nanosecond),
        DataType::Time64(_) => column.times::<Time64MicrosecondType>(TimeUnit::Microsecond),
        DataType::Duration(unit) => {
            let parse = |bytes: &[u8], _| parse_duration(bytes, *unit);
            match unit {
                TimeUnit::Second => column.primitive::<DurationSecondType>(parse),
                TimeUnit::Millisecond => column.primitive::<DurationMillisecondType>(parse),
                TimeUnit::Microsecond => column.primitive::<DurationMicrosecondType>(parse),
                TimeUnit::Nanosecond => column.primitive::<DurationNanosecondType>(parse),
            }
        }
        DataType::Timestamp(unit, None) => column.moments(*unit, |moment| moment.naive_in_unit(*unit)),
        DataType::Timestamp(unit, Some(zone)) if is_utc(zone) => column.moments(*unit, |moment| moment.in_unit(*unit)),
        DataType::Timestamp(unit, Some(zone)) => {
            let zone: Zone = zone.parse().expect("can_read admits only zones that are known");
            column.moments(*unit, |moment| moment.zoned_in_unit(*unit, &zone))
        }
        DataType::Dictionary(_, value) => {
            let values = read(column.cells, rows, value, column.misfit);
            recast(&values, to)
        }
        other => panic!("{other} is not read from text"),
    }
}

/// Another layout of the same values.
fn recast(array: &ArrayRef, to: &DataType) -> ArrayRef {
    cast(array, to).expect("values are laid out anew: text as text, bytes as bytes, values as a dictionary of them")
}

fn days(moments: &mut Moments, bytes: &[u8], is_number: bool) -> Result<i64, Misfit> {
    if is_number { parse_integer(bytes) } else { parse_date(moments, bytes) }
}

struct Column<'t, C, M> {
    cells: C,
    rows: usize,
    to: &'t DataType,
    misfit: M,
}

impl<'a, C: Iterator<Item = Cell<'a>>, M: FnMut(usize, &'a [u8], Misfit)> Column<'_, C, M> {
    /// Calls `visit` with each row's value, surrounding spaces aside; what it refuses is null, as is empty text.
    #[inline(always)]
    fn each(self, mut visit: impl FnMut(Option<(&'a [u8], bool)>) -> Result<(), Misfit>) {
        let mut misfit = self.misfit;
        let mut take = |row: usize, bytes: &'a [u8], is_number: bool| {
            let bytes = bytes.trim_ascii();
            let value = (!bytes.is_empty()).then_some((bytes, is_number));
            if let Err(why) = visit(value) {
                misfit(row, bytes, why);
            }
        };
        for (row, cell) in self.cells.enumerate() {
            match cell {
                Cell::Null => take(row, b"", false),
                Cell::Text(bytes) => take(row, bytes, false),
                Cell::Number(bytes) => take(row, bytes, true),
            }
        }
    }

    #[inline(always)]
    fn primitive<T: ArrowPrimitiveType>(self, mut parse: impl FnMut(&[u8], bool) -> Result<T::Native, Misfit>) -> ArrayRef {
        let mut builder = PrimitiveBuilder::<T>::with_capacity(self.rows).with_data_type(self.to.clone());
        self.each(|value| {
            let Some((bytes, is_number)) = value else {
                builder.append_null();
                return Ok(());
            };
            match parse(bytes, is_number) {
                Ok(value) => builder.append_value(value),
                Err(misfit) => {
                    builder.append_null();
                    return Err(misfit);
                }
            }
            Ok(())
        });
        Arc::new(builder.finish())
    }

    fn moments(self, unit: TimeUnit, convert: impl Fn(Moment) -> Result<i64, Misfit>) -> ArrayRef {
        let mut moments = Moments::default();
        let parse = |bytes: &[u8], _| match moments.parse(bytes) {
            Some(moment) => convert(moment),
            // A number counts units.
            None => parse_integer(bytes),
        };
        match unit {
            TimeUnit::Second => self.primitive::<TimestampSecondType>(parse),
            TimeUnit::Millisecond => self.primitive::<TimestampMillisecondType>(parse),
            TimeUnit::Microsecond => self.primitive::<TimestampMicrosecondType>(parse),
            TimeUnit::Nanosecond => self.primitive::<TimestampNanosecondType>(parse),
        }
    }

    fn times<T: ArrowPrimitiveType<Native: TryFrom<i64>>>(self, unit: TimeUnit) -> ArrayRef {
        self.primitive::<T>(|bytes, _| T::Native::try_from(parse_time(bytes, unit)?).map_err(|_| Misfit::Range))
    }

    fn booleans(self) -> ArrayRef {
        let mut builder = BooleanBuilder::with_capacity(self.rows);
        self.each(|value| {
            match value {
                None => builder.append_null(),
                Some((b"true" | b"True" | b"TRUE" | b"1", _)) => builder.append_value(true),
                Some((b"false" | b"False" | b"FALSE" | b"0", _)) => builder.append_value(false),
                Some(_) => {
                    builder.append_null();
                    return Err(Misfit::Form);
                }
            }
            Ok(())
        });
        Arc::new(builder.finish())
    }

    fn nulls(self) -> ArrayRef {
        let rows = self.rows;
        self.each(|value| if value.is_none() { Ok(()) } else { Err(Misfit::Form) });
        Arc::new(NullArray::new(rows))
    }

    /// Text as it is, with its spaces; empty text is empty text.
    fn strings(self) -> ArrayRef {
        const BYTES_EXPECTED: usize = 16;
        let mut builder = StringBuilder::with_capacity(self.rows, self.rows * BYTES_EXPECTED);
        let mut misfit = self.misfit;
        for (row, cell) in self.cells.enumerate() {
            let (Cell::Text(bytes) | Cell::Number(bytes)) = cell else {
                builder.append_null();
                continue;
            };
            match std::str::from_utf8(bytes) {
                Ok(text) => builder.append_value(text),
                Err(_) => {
                    misfit(row, bytes, Misfit::Form);
                    builder.append_null();
                }
            }
        }
        Arc::new(builder.finish())
    }

    fn binary(self) -> ArrayRef {
        let mut builder = BinaryBuilder::with_capacity(self.rows, self.rows);
        let mut misfit = self.misfit;
        let mut out = Vec::new();
        for (row, cell) in self.cells.enumerate() {
            match cell {
                Cell::Null => builder.append_null(),
                Cell::Text(bytes) if decode_hex(bytes, &mut out) => builder.append_value(&out),
                Cell::Text(bytes) | Cell::Number(bytes) => {
                    misfit(row, bytes, Misfit::Form);
                    builder.append_null();
                }
            }
        }
        Arc::new(builder.finish())
    }

    fn fixed_binary(self, size: i32) -> ArrayRef {
        let mut builder = FixedSizeBinaryBuilder::with_capacity(self.rows, size);
        let mut misfit = self.misfit;
        let mut out = Vec::new();
        for (row, cell) in self.cells.enumerate() {
            match cell {
                Cell::Null => builder.append_null(),
                Cell::Text(bytes) if decode_hex(bytes, &mut out) && builder.append_value(&out).is_ok() => {}
                Cell::Text(bytes) | Cell::Number(bytes) => {
                    misfit(row, bytes, Misfit::Form);
                    builder.append_null();
                }
            }
        }
        Arc::new(builder.finish())
    }
}

/// Replaces `out` by the bytes that hexadecimal digits stand for; whether they do.
fn decode_hex(digits: &[u8], out: &mut Vec<u8>) -> bool {
    let value = |digit: u8| (digit as char).to_digit(16);
    out.clear();
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        && pairs.iter().all(|[high, low]| match (value(*high), value(*low)) {
            (Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                true
            }
            _ => false,
        })
}
