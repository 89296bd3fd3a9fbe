//! Columns as the values of binary COPY, and as parameters.
//!
//! ```text
//!   value   length i32 (-1: null) | bytes
//!   array   dimensions i32 | has nulls i32 | type of elements u32 | elements i32 | lower bound i32 | each as a value
//! ```
//!
//! Types were compared before the first record ([`super::form`]); errors of a single value name the column and the value.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal256Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    ListArray, StringArray, UInt32Array, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type, TimeUnit};
use mill_frame::convert::show;
use mill_frame::json::{JsonRows, names};
use mill_protocol::{Error, Result};
use std::sync::Arc;

use super::form::Form;
use super::numeric;

/// Days from 1970 to 2000, which is where PostgreSQL counts from.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * 86_400_000_000;
/// The first day that PostgreSQL has, and the one after the last; from 2000.
const DAYS: std::ops::Range<i64> = -2_451_545..2_145_031_949;
/// The first moment that PostgreSQL has, and the end of the last; from 2000.
const MICROS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
const DAY_MICROS: i64 = 86_400_000_000;
/// PostgreSQL takes no value that is longer.
const BYTES_MAX: usize = 1 << 30;

/// A column laid out for row by row access.
pub(super) struct Values {
    array: ArrayRef,
    form: Form,
    laid: Laid,
}

enum Laid {
    Null,
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Oid(UInt32Array),
    Unsigned(UInt64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Decimal(Decimal256Array, i32),
    Text(StringArray, Option<usize>),
    Uuid(StringArray),
    Bytea(BinaryArray),
    /// Days since 1970.
    Date(Int64Array),
    /// In a unit.
    Time(Int64Array, TimeUnit),
    Moment(Int64Array, TimeUnit),
    Span(Int64Array, TimeUnit),
    Json { rows: Vec<ArrayRef>, is_binary: bool },
    Array { list: ListArray, items: Box<Values>, number: u32 },
}

impl Values {
    /// Lays out a column to be written in this form.
    pub(super) fn new(array: &ArrayRef, form: &Form) -> Result<Values> {
        let cast = |to: &DataType| {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, to, &options)
                .map_err(|e| Error::data(format!("a column cannot be written to PostgreSQL: {e}")).because(e))
        };
        let value_type = match array.data_type() {
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            other => other.clone(),
        };
        let units = |of: &DataType| match of {
            DataType::Time32(unit) | DataType::Time64(unit) | DataType::Timestamp(unit, _) | DataType::Duration(unit) => *unit,
            _ => TimeUnit::Microsecond,
        };
        let ticks = || -> Result<Int64Array> {
            let plain = cast(&value_type)?;
            let plain = match &value_type {
                DataType::Time32(_) => cast_with_options(&plain, &DataType::Int32, &CastOptions::default()),
                _ => Ok(plain),
            };
            let numbers = plain.and_then(|plain| cast_with_options(&plain, &DataType::Int64, &CastOptions::default()));
            Ok(numbers.map_err(|e| Error::internal(e.to_string()))?.as_primitive().clone())
        };
        let laid = match form {
            _ if value_type == DataType::Null => Laid::Null,
            Form::Bool => Laid::Bool(cast(&DataType::Boolean)?.as_boolean().clone()),
            Form::Int2 => Laid::Int2(cast(&DataType::Int16)?.as_primitive().clone()),
            Form::Int4 => Laid::Int4(cast(&DataType::Int32)?.as_primitive().clone()),
            Form::Int8 => Laid::Int8(cast(&DataType::Int64)?.as_primitive().clone()),
            Form::Oid => Laid::Oid(cast(&DataType::UInt32)?.as_primitive().clone()),
            Form::Float4 => Laid::Float4(cast(&DataType::Float32)?.as_primitive().clone()),
            Form::Float8 => Laid::Float8(cast(&DataType::Float64)?.as_primitive().clone()),
            Form::Numeric(_) => match &value_type {
                DataType::UInt64 => Laid::Unsigned(cast(&DataType::UInt64)?.as_primitive().clone()),
                t if t.is_integer() => Laid::Int8(cast(&DataType::Int64)?.as_primitive().clone()),
                DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale)
                | DataType::Decimal256(_, scale) => {
                    Laid::Decimal(cast(&DataType::Decimal256(76, *scale))?.as_primitive().clone(), i32::from(*scale))
                }
                other => return Err(unfit(other, form)),
            },
            Form::Text(limit) => Laid::Text(cast(&DataType::Utf8)?.as_string().clone(), *limit),
            Form::Uuid => Laid::Uuid(cast(&DataType::Utf8)?.as_string().clone()),
            Form::Bytea => Laid::Bytea(cast(&DataType::Binary)?.as_binary().clone()),
            Form::Date => match &value_type {
                DataType::Date64 => {
                    let millis = cast_with_options(&cast(&value_type)?, &DataType::Int64, &CastOptions::default());
                    let millis = millis.map_err(|e| Error::internal(e.to_string()))?;
                    Laid::Date(millis.as_primitive::<Int64Type>().unary(|millis| millis.div_euclid(86_400_000)))
                }
                _ => Laid::Date(cast(&DataType::Date32)?.as_primitive::<Date32Type>().unary(i64::from)),
            },
            Form::Time => Laid::Time(ticks()?, units(&value_type)),
            Form::Timestamp | Form::Timestamptz => Laid::Moment(ticks()?, units(&value_type)),
            Form::Interval => Laid::Span(ticks()?, units(&value_type)),
            Form::Json | Form::Jsonb => Laid::Json { rows: vec![Arc::clone(array)], is_binary: *form == Form::Jsonb },
            Form::Array(item, number) => {
                let (DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _)) = &value_type else {
                    return Err(unfit(&value_type, form));
                };
                let list = DataType::List(Arc::new(Field::new("item", field.data_type().clone(), true)));
                let list = cast(&list)?.as_list::<i32>().clone();
                let items = Box::new(Values::new(list.values(), item)?);
                Laid::Array { list, items, number: *number }
            }
            Form::Padded | Form::Label => return Err(unfit(&value_type, form)),
        };
        Ok(Values { array: Arc::clone(array), form: form.clone(), laid })
    }

    /// Whether the value of a row is null.
    pub(super) fn is_null(&self, row: usize) -> bool {
        match &self.laid {
            Laid::Null => true,
            Laid::Text(array, _) | Laid::Uuid(array) => array.is_null(row),
            Laid::Int8(array) => array.is_null(row),
            Laid::Bytea(array) => array.is_null(row),
            Laid::Json { rows, .. } => rows[0].logical_nulls().is_some_and(|nulls| nulls.is_null(row)),
            Laid::Array { list, .. } => list.is_null(row),
            Laid::Bool(array) => array.is_null(row),
            Laid::Int2(array) => array.is_null(row),
            Laid::Int4(array) => array.is_null(row),
            Laid::Oid(array) => array.is_null(row),
            Laid::Unsigned(array) => array.is_null(row),
            Laid::Float4(array) => array.is_null(row),
            Laid::Float8(array) => array.is_null(row),
            Laid::Decimal(array, _) => array.is_null(row),
            Laid::Date(array) | Laid::Time(array, _) | Laid::Moment(array, _) | Laid::Span(array, _) => array.is_null(row),
        }
    }

    /// Appends the value of a row with its length.
    ///
    /// # Errors
    /// Why the value cannot be written, to be said after the column and the value.
    pub(super) fn push(&self, row: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        if self.is_null(row) {
            out.extend_from_slice(&(-1i32).to_be_bytes());
            return Ok(());
        }
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.push_bytes(row, out)?;
        let length = out.len() - start - 4;
        if length >= BYTES_MAX {
            return Err("is longer than 1 GiB, which no value in PostgreSQL is".to_owned());
        }
        out[start..start + 4].copy_from_slice(&(length as i32).to_be_bytes());
        Ok(())
    }

    fn push_bytes(&self, row: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        match &self.laid {
            Laid::Null => {}
            Laid::Bool(array) => out.push(u8::from(array.value(row))),
            Laid::Int2(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Laid::Int4(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Laid::Int8(array) => match self.form {
                Form::Numeric(_) => push_whole(array.value(row) < 0, array.value(row).unsigned_abs(), out),
                _ => out.extend_from_slice(&array.value(row).to_be_bytes()),
            },
            Laid::Oid(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Laid::Unsigned(array) => push_whole(false, array.value(row), out),
            Laid::Float4(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Laid::Float8(array) => out.extend_from_slice(&array.value(row).to_be_bytes()),
            Laid::Decimal(array, scale) => {
                let digits = array.value(row).to_string();
                match digits.strip_prefix('-') {
                    Some(digits) => numeric::push(true, digits, *scale, out),
                    None => numeric::push(false, &digits, *scale, out),
                }
            }
            Laid::Text(array, limit) => {
                let text = array.value(row);
                check_text(text)?;
                if limit.is_some_and(|limit| text.len() > limit && text.chars().count() > limit) {
                    return Err(format!("has {}, and the column of the table {}", mill_frame::words::counted(text.chars().count(), "character"), self.form.declared()));
                }
                out.extend_from_slice(text.as_bytes());
            }
            Laid::Uuid(array) => {
                let bytes = uuid(array.value(row));
                out.extend_from_slice(&bytes.ok_or("is not a UUID in lower case, which the column of the table holds")?);
            }
            Laid::Bytea(array) => out.extend_from_slice(array.value(row)),
            Laid::Date(array) => {
                let days = array.value(row) - i64::from(EPOCH_DAYS);
                if !DAYS.contains(&days) {
                    return Err("is outside the years that a date of PostgreSQL has (4713 BC to 5874897)".to_owned());
                }
                out.extend_from_slice(&(days as i32).to_be_bytes());
            }
            Laid::Time(array, unit) => {
                let micros = micros(array.value(row), *unit)?;
                if !(0..=DAY_MICROS).contains(&micros) {
                    return Err("is no time of a day".to_owned());
                }
                out.extend_from_slice(&micros.to_be_bytes());
            }
            Laid::Moment(array, unit) => {
                let micros = micros(array.value(row), *unit)?.checked_sub(EPOCH_MICROS).filter(|micros| MICROS.contains(micros));
                let micros = micros.ok_or("is outside the years that a timestamp of PostgreSQL has (4713 BC to 294276)")?;
                out.extend_from_slice(&micros.to_be_bytes());
            }
            Laid::Span(array, unit) => {
                out.extend_from_slice(&micros(array.value(row), *unit)?.to_be_bytes());
                // No days and no months: how long these are depends on when they are added.
                out.extend_from_slice(&[0; 8]);
            }
            Laid::Json { rows, is_binary } => {
                let text = json(&rows[0], row)?;
                if *is_binary {
                    if text.contains("\\u0000") && has_nul(&text) {
                        return Err("has a text with the character NUL, which jsonb cannot hold".to_owned());
                    }
                    out.push(1);
                }
                out.extend_from_slice(text.as_bytes());
            }
            Laid::Array { list, items, number } => {
                let offsets = list.value_offsets();
                let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                let has_nulls = (first..end).any(|item| items.is_null(item));
                let dimensions = i32::from(first < end);
                out.extend_from_slice(&dimensions.to_be_bytes());
                out.extend_from_slice(&i32::from(has_nulls).to_be_bytes());
                out.extend_from_slice(&number.to_be_bytes());
                if first < end {
                    out.extend_from_slice(&((end - first) as i32).to_be_bytes());
                    out.extend_from_slice(&1i32.to_be_bytes());
                }
                for item in first..end {
                    items.push(item, out)?;
                }
            }
        }
        Ok(())
    }

    /// The value of a row, for messages.
    pub(super) fn shown(&self, row: usize) -> String {
        let shown = show(&self.array, row);
        match shown.char_indices().nth(200) {
            Some((end, _)) => format!("{}…", &shown[..end]),
            None => shown,
        }
    }
}

fn unfit(data_type: &DataType, form: &Form) -> Error {
    Error::internal(format!("{} is written as {}", mill_frame::words::with_article(super::form::shown(data_type)), form.declared()))
}

fn push_whole(is_negative: bool, value: u64, out: &mut Vec<u8>) {
    numeric::push(is_negative, &value.to_string(), 0, out);
}

/// Microseconds, where there is nothing finer.
fn micros(ticks: i64, unit: TimeUnit) -> std::result::Result<i64, String> {
    let scaled = |factor| ticks.checked_mul(factor).ok_or_else(|| "is too large for the microseconds that PostgreSQL counts".to_owned());
    match unit {
        TimeUnit::Second => scaled(1_000_000),
        TimeUnit::Millisecond => scaled(1000),
        TimeUnit::Microsecond => Ok(ticks),
        TimeUnit::Nanosecond if ticks % 1000 == 0 => Ok(ticks / 1000),
        TimeUnit::Nanosecond => Err("has nanoseconds, and PostgreSQL counts microseconds: truncate it first".to_owned()),
    }
}

fn check_text(text: &str) -> std::result::Result<(), String> {
    if text.as_bytes().contains(&0) {
        return Err("has the character NUL, which no text in PostgreSQL has".to_owned());
    }
    Ok(())
}

/// Whether a JSON text has the escape of NUL, and not an escaped backslash before `u0000`.
fn has_nul(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        if rest[at + 1..].starts_with(b"u0000") {
            return true;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

/// One value as JSON.
fn json(array: &ArrayRef, row: usize) -> std::result::Result<String, String> {
    let names = names(["v"]);
    // One row is laid out at a time: values of lists and structs are few and long.
    let rows = JsonRows::new(&names, &[array.slice(row, 1)]).map_err(|e| format!("cannot be written as JSON: {e}"))?;
    let mut text = String::new();
    rows.push(0, &mut text);
    Ok(text[1 + names[0].len()..text.len() - 1].to_owned())
}

/// The bytes of a UUID in its usual form, with or without hyphens.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let is_usual = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
    if !is_usual && text.len() != 32 {
        return None;
    }
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    // What is read back is the usual form in lower case; another spelling would come back as another text.
    if !is_usual || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let digits = std::str::from_utf8(&digits).ok()?;
    let mut bytes = [0; 16];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}
