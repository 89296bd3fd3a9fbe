//! What values become in SQLite: integers, reals, text and blobs; moments and decimals as text.
//!
//! SQLite has no NaN: it stores null for it, and 0.0 for -0.0. Whole numbers have 63 bits and a sign; larger ones are an
//! error. Everything else is read back as what it was.

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, UInt64Array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Int64Type, Schema};
use mill_frame::text::TextColumn;
use mill_frame::types::type_name;
use mill_protocol::{Error, Result};
use crate::objects::advice;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};


/// The class of a type in SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nothing but nulls.
    Null,
    Integer,
    Real,
    Text,
    Blob,
}

impl Class {
    pub(super) fn declared(self) -> &'static str {
        match self {
            Class::Null => "",
            Class::Integer => "INTEGER",
            Class::Real => "REAL",
            Class::Text => "TEXT",
            Class::Blob => "BLOB",
        }
    }

    pub(super) fn of(data_type: &DataType) -> Option<Class> {
        Some(match data_type {
            DataType::Null => Class::Null,
            DataType::Boolean => Class::Integer,
            t if t.is_integer() => Class::Integer,
            t if t.is_floating() => Class::Real,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Class::Blob,
            DataType::Dictionary(_, value) => return Class::of(value),
            t if t.is_nested() || matches!(t, DataType::Interval(_)) => return None,
            _ => Class::Text,
        })
    }
}

/// Refuses columns that SQLite has no values for.
pub(super) fn check(schema: &Schema) -> Result<()> {
    for field in schema.fields() {
        if Class::of(field.data_type()).is_none() {
            return Err(Error::schema(format!(
                "column {:?} is {}, which SQLite cannot hold: {}",
                field.name(),
                type_name(field.data_type()),
                advice(field.data_type())
            )));
        }
    }
    Ok(())
}

/// A column laid out for row by row access.
pub(super) enum Column {
    Null,
    Integer(Int64Array),
    Boolean(BooleanArray),
    Real(Float64Array),
    Text(StringArray),
    Blob(BinaryArray),
}

impl Column {
    pub(super) fn new(name: &str, array: &ArrayRef) -> Result<Column> {
        let cast = |to: &DataType| {
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(array, to, &options).map_err(|e| {
                Error::data(format!("column {name:?} does not fit SQLite: {e}")).because(e)
            })
        };
        let value_type = match array.data_type() {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        Ok(match value_type {
            DataType::Null => Column::Null,
            DataType::UInt64 => Column::Integer(signed(name, cast(&DataType::UInt64)?.as_primitive())?),
            DataType::Boolean => Column::Boolean(cast(&DataType::Boolean)?.as_boolean().clone()),
            t if t.is_integer() => Column::Integer(cast(&DataType::Int64)?.as_primitive().clone()),
            t if t.is_floating() => Column::Real(cast(&DataType::Float64)?.as_primitive().clone()),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Column::Blob(cast(&DataType::Binary)?.as_binary().clone())
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Column::Text(cast(&DataType::Utf8)?.as_string().clone())
            }
            _ => Column::Text(formatted(name, array)?),
        })
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        match self {
            Column::Null => true,
            Column::Integer(array) => array.is_null(row),
            Column::Boolean(array) => array.is_null(row),
            Column::Real(array) => array.is_null(row),
            Column::Text(array) => array.is_null(row),
            Column::Blob(array) => array.is_null(row),
        }
    }

    pub(super) fn is_float(&self) -> bool {
        matches!(self, Column::Real(_))
    }

    pub(super) fn is_nan(&self, row: usize) -> bool {
        matches!(self, Column::Real(array) if array.is_valid(row) && array.value(row).is_nan())
    }

    /// The value in this row, borrowed where it has a length.
    pub(super) fn value(&self, row: usize) -> ToSqlOutput<'_> {
        if self.is_null(row) || self.is_nan(row) {
            return ToSqlOutput::Owned(Value::Null);
        }
        match self {
            Column::Null => ToSqlOutput::Owned(Value::Null),
            Column::Integer(array) => ToSqlOutput::Owned(Value::Integer(array.value(row))),
            Column::Boolean(array) => ToSqlOutput::Owned(Value::Integer(i64::from(array.value(row)))),
            Column::Real(array) => ToSqlOutput::Owned(Value::Real(array.value(row))),
            Column::Text(array) => ToSqlOutput::Borrowed(ValueRef::Text(array.value(row).as_bytes())),
            Column::Blob(array) => ToSqlOutput::Borrowed(ValueRef::Blob(array.value(row))),
        }
    }
}

/// Unsigned numbers, where SQLite has them.
fn signed(name: &str, array: &UInt64Array) -> Result<Int64Array> {
    array.try_unary::<_, Int64Type, _>(|value| i64::try_from(value).map_err(|_| value)).map_err(|value: u64| {
        Error::data(format!(
            "column {name:?}: {value} is larger than any whole number that SQLite has (9223372036854775807); write it as \
             text: cast({{{name:?}: str}})"
        ))
    })
}

/// Moments, durations and decimals as text, in ISO 8601 where it has a form for them.
fn formatted(name: &str, array: &ArrayRef) -> Result<StringArray> {
    let failed = |e: arrow::error::ArrowError| {
        Error::data(format!("column {name:?} cannot be written as text: {e}")).because(e)
    };
    let column = TextColumn::new(array).map_err(failed)?.ok_or_else(|| Error::internal("the types were checked"))?;
    let text_of = |row| {
        let mut text = String::new();
        column.push(row, &mut text);
        text
    };
    Ok((0..array.len()).map(|row| (!column.is_null(row)).then(|| text_of(row))).collect())
}
