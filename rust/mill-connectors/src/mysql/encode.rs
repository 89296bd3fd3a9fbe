//! Columns as values in SQL.
//!
//! ```text
//!   numbers  their digits          text  '…' with \\, '' and \0     bytes  X'…'     times  '2026-01-02 03:04:05.678901'
//! ```
//!
//! The connection that takes them is set to UTF-8, UTC and a mode in which a backslash escapes. Types were compared before the first record
//! ([`super::form`]); errors of a single value name the column and the value.

use std::io::Write as _;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal256Array, Float32Array, Float64Array, Int64Array, StringArray, UInt64Array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Date32Type, Decimal256Type, DecimalType, Int64Type, TimeUnit};
use mill_frame::convert::show;
use mill_frame::json::{JsonRows, names};
use mill_frame::words::counted;
use mill_protocol::{Error, Result};

use super::calendar;
use super::form::Form;
use super::name::push_bytes;
use super::table::{Column, End};

/// The longest time that a column has: 838:59:59.
const TIME_MICROS_MAX: i64 = (838 * 3600 + 59 * 60 + 59) * 1_000_000;
/// The moments that a `TIMESTAMP` of every server has: from the second after 1970 began to 2038.
const TIMESTAMP_MICROS: std::ops::Range<i64> = 1_000_000..(1 << 31) * 1_000_000;

/// A column laid out for row by row access.
pub(super) struct Values {
    array: ArrayRef,
    laid: Laid,
}

enum Laid {
    Null,
    Bool(BooleanArray),
    Int(Int64Array),
    Unsigned(UInt64Array),
    Float(Float32Array),
    Double(Float64Array),
    Decimal(Decimal256Array, i8),
    Text(StringArray),
    Binary(BinaryArray),
    /// Days since 1970.
    Date(Int64Array),
    /// In a unit.
    Time(Int64Array, TimeUnit),
    Datetime(Int64Array, TimeUnit),
    Timestamp(Int64Array, TimeUnit),
    Json(ArrayRef),
}

impl Values {
    /// Lays out a column to be written in this form.
    pub(super) fn new(array: &ArrayRef, form: Form) -> Result<Values> {
        let cast = |to: &DataType| {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, to, &options).map_err(|e| Error::data(format!("a column cannot be written to MySQL: {e}")).because(e))
        };
        let value_type = match array.data_type() {
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            other => other.clone(),
        };
        let plain = |array: ArrayRef, to: &DataType| {
            cast_with_options(&array, to, &CastOptions::default()).map_err(|e| Error::internal(e.to_string()))
        };
        let ticks = || -> Result<Int64Array> {
            let own = cast(&value_type)?;
            let own = if matches!(value_type, DataType::Time32(_)) { plain(own, &DataType::Int32)? } else { own };
            Ok(plain(own, &DataType::Int64)?.as_primitive().clone())
        };
        let laid = match &value_type {
            DataType::Null => Laid::Null,
            DataType::Boolean => Laid::Bool(cast(&DataType::Boolean)?.as_boolean().clone()),
            DataType::UInt64 => Laid::Unsigned(cast(&DataType::UInt64)?.as_primitive().clone()),
            t if t.is_integer() => Laid::Int(cast(&DataType::Int64)?.as_primitive().clone()),
            DataType::Float16 | DataType::Float32 => Laid::Float(cast(&DataType::Float32)?.as_primitive().clone()),
            DataType::Float64 => Laid::Double(cast(&DataType::Float64)?.as_primitive().clone()),
            DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale)
            | DataType::Decimal256(_, scale) => Laid::Decimal(cast(&DataType::Decimal256(76, *scale))?.as_primitive().clone(), *scale),
            DataType::Date64 => {
                let millis = plain(cast(&value_type)?, &DataType::Int64)?;
                Laid::Date(millis.as_primitive::<Int64Type>().unary(|millis| millis.div_euclid(86_400_000)))
            }
            DataType::Date32 => Laid::Date(cast(&DataType::Date32)?.as_primitive::<Date32Type>().unary(i64::from)),
            DataType::Time32(unit) | DataType::Time64(unit) | DataType::Duration(unit) => Laid::Time(ticks()?, *unit),
            DataType::Timestamp(unit, None) => Laid::Datetime(ticks()?, *unit),
            DataType::Timestamp(unit, Some(_)) => Laid::Timestamp(ticks()?, *unit),
            _ => match Form::for_column(&value_type) {
                Some(Form::Text) => Laid::Text(cast(&DataType::Utf8)?.as_string().clone()),
                Some(Form::Binary) => Laid::Binary(cast(&DataType::Binary)?.as_binary().clone()),
                Some(Form::Json) => Laid::Json(Arc::clone(array)),
                _ => {
                    let shown = super::form::shown(&value_type);
                    return Err(Error::internal(format!("{} is written as {}", mill_frame::words::with_article(shown), form.declared())));
                }
            },
        };
        Ok(Values { array: Arc::clone(array), laid })
    }

    /// Whether the value of a row is null.
    pub(super) fn is_null(&self, row: usize) -> bool {
        match &self.laid {
            Laid::Null => true,
            Laid::Bool(array) => array.is_null(row),
            Laid::Int(array) | Laid::Date(array) | Laid::Time(array, _) | Laid::Datetime(array, _) | Laid::Timestamp(array, _) => {
                array.is_null(row)
            }
            Laid::Unsigned(array) => array.is_null(row),
            Laid::Float(array) => array.is_null(row),
            Laid::Double(array) => array.is_null(row),
            Laid::Decimal(array, _) => array.is_null(row),
            Laid::Text(array) => array.is_null(row),
            Laid::Binary(array) => array.is_null(row),
            Laid::Json(array) => array.logical_nulls().is_some_and(|nulls| nulls.is_null(row)),
        }
    }

    /// Appends the value of a row.
    ///
    /// # Errors
    /// Why the value cannot be written, to be said after the column and the value.
    pub(super) fn push(&self, column: &Column, row: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        if self.is_null(row) {
            out.extend_from_slice(b"NULL");
            return Ok(());
        }
        // Nothing is refused by a vector.
        match &self.laid {
            Laid::Null => {}
            Laid::Bool(array) => out.push(if array.value(row) { b'1' } else { b'0' }),
            Laid::Int(array) => drop(write!(out, "{}", array.value(row))),
            Laid::Unsigned(array) => drop(write!(out, "{}", array.value(row))),
            Laid::Float(array) => push_float(f64::from(array.value(row)), out)?,
            Laid::Double(array) => push_float(array.value(row), out)?,
            Laid::Decimal(array, scale) => out.extend_from_slice(Decimal256Type::format_decimal(array.value(row), 76, *scale).as_bytes()),
            Laid::Text(array) => {
                check_length(column, array.value(row))?;
                push_text(array.value(row), out);
            }
            Laid::Binary(array) => {
                let bytes = array.value(row);
                let limit = column.bytes_max.unwrap_or(usize::MAX);
                if bytes.len() > limit || (column.end == End::Filled && bytes.len() < limit) {
                    return Err(format!("has {}, and the column of the table {limit}", counted(bytes.len(), "byte")));
                }
                push_bytes(bytes, out);
            }
            Laid::Date(array) => {
                let day = calendar::day_text(array.value(row)).ok_or(OUTSIDE)?;
                drop(write!(out, "'{day}'"));
            }
            Laid::Time(array, unit) => {
                let micros = micros(array.value(row), *unit)?;
                if micros.abs() > TIME_MICROS_MAX {
                    return Err("is longer than 838:59:59, and a TIME of MySQL is not; cast() it to int".to_owned());
                }
                let sign = if micros < 0 { "-" } else { "" };
                drop(write!(out, "'{sign}{}'", calendar::clock_text(micros.abs())));
            }
            Laid::Datetime(array, unit) => {
                let moment = calendar::moment_text(micros(array.value(row), *unit)?).ok_or(OUTSIDE)?;
                drop(write!(out, "'{moment}'"));
            }
            Laid::Timestamp(array, unit) => {
                let moment = Some(micros(array.value(row), *unit)?).filter(|micros| TIMESTAMP_MICROS.contains(micros));
                let moment = moment.and_then(calendar::moment_text).ok_or(
                    "is outside the years that a TIMESTAMP of MySQL has (1970 to 2038); cast() the column to a timestamp without a zone, \
                     which is a DATETIME",
                )?;
                drop(write!(out, "'{moment}'"));
            }
            Laid::Json(array) => {
                let text = json(array, row)?;
                check_length(column, &text)?;
                push_text(&text, out);
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

const OUTSIDE: &str = "is outside the years that MySQL has (0001 to 9999)";

fn push_float(number: f64, out: &mut Vec<u8>) -> std::result::Result<(), String> {
    if !number.is_finite() {
        return Err("is no number that MySQL has; fill_nan() it or leave such records out".to_owned());
    }
    drop(write!(out, "{number:e}"));
    Ok(())
}

/// Refuses a text that is too long for its column, or whose end would be lost.
fn check_length(column: &Column, text: &str) -> std::result::Result<(), String> {
    if column.end == End::Blanks && text.ends_with(' ') {
        return Err("ends with a blank, which the column of the table takes off, or takes for nothing in a key".to_owned());
    }
    if let Some(limit) = column.bytes_max.filter(|limit| text.len() > *limit) {
        return Err(format!("has {}, and the column of the table {limit}", counted(text.len(), "byte")));
    }
    if let Some(limit) = column.characters_max.filter(|limit| text.len() > *limit && text.chars().count() > *limit) {
        return Err(format!("has {}, and the column of the table {limit}", counted(text.chars().count(), "character")));
    }
    Ok(())
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'\'');
    for byte in text.bytes() {
        match byte {
            b'\'' => out.extend_from_slice(b"''"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0 => out.extend_from_slice(b"\\0"),
            byte => out.push(byte),
        }
    }
    out.push(b'\'');
}

/// Microseconds, where there is nothing finer.
fn micros(ticks: i64, unit: TimeUnit) -> std::result::Result<i64, String> {
    let scaled = |factor| ticks.checked_mul(factor).ok_or_else(|| "is too large for the microseconds that MySQL counts".to_owned());
    match unit {
        TimeUnit::Second => scaled(1_000_000),
        TimeUnit::Millisecond => scaled(1000),
        TimeUnit::Microsecond => Ok(ticks),
        TimeUnit::Nanosecond if ticks % 1000 == 0 => Ok(ticks / 1000),
        TimeUnit::Nanosecond => Err("has nanoseconds, and MySQL counts microseconds: truncate it first".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_within_its_quotes() {
        let mut out = Vec::new();
        push_text("it's \\ \0 \"é", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "'it''s \\\\ \\0 \"é'");
    }

    #[test]
    fn numbers_have_all_their_digits() {
        for (number, text) in [(0.1, "1e-1"), (-0.0, "-0e0"), (f64::MAX, "1.7976931348623157e308"), (5e-324, "5e-324")] {
            let mut out = Vec::new();
            push_float(number, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        assert!(push_float(f64::NAN, &mut Vec::new()).is_err());
    }
}
