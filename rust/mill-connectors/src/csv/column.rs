//! Makes a column of fields.
//!
//! Integers, floats, booleans, text and timestamps are read straight from the bytes; every other type goes through text
//! and Arrow's cast. A field that is not of its column's type is noted with its row, and the row is left out later, so
//! one bad field costs one record.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanBuilder, PrimitiveArray, PrimitiveBuilder, StringArray, StringBuilder,
};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use mill_protocol::{Error, Result};

use super::number::{parse_float, parse_integer};
use super::tokens::{Field, unescape};
use crate::timestamp::{Moment, Moments, is_utc};

/// Whether fields can be read as this type.
pub(crate) fn can_read(data_type: &DataType) -> bool {
    !data_type.is_nested() && !matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        && can_cast_types(&DataType::Utf8, data_type)
}

/// The fields of one column.
pub(crate) struct Fields<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) fields: &'a [Field],
    /// Fields a record, and which of them.
    pub(crate) columns: usize,
    pub(crate) column: usize,
    pub(crate) quote: u8,
    pub(crate) nulls: &'a [String],
}

/// Takes note of rows that are no record.
pub(crate) struct BadRows<'a> {
    pub(crate) name: &'a str,
    pub(crate) rows: Vec<(usize, String)>,
}

impl BadRows<'_> {
    fn push(&mut self, row: usize, value: &[u8], data_type: &DataType) {
        const VALUE_CHARS_MAX: usize = 100;
        let value: String = String::from_utf8_lossy(value).chars().take(VALUE_CHARS_MAX).collect();
        self.rows.push((row, format!("column {:?}: {value:?} is not {}", self.name, described(data_type))));
    }
}

fn described(data_type: &DataType) -> String {
    match data_type {
        t if t.is_integer() => format!("an integer ({t})"),
        DataType::Float32 | DataType::Float64 => "a number".to_owned(),
        DataType::Boolean => "true or false".to_owned(),
        DataType::Timestamp(..) => "a timestamp in ISO 8601".to_owned(),
        DataType::Date32 | DataType::Date64 => "a date in ISO 8601".to_owned(),
        DataType::Utf8 => "UTF-8".to_owned(),
        other => format!("of type {other}"),
    }
}

impl<'a> Fields<'a> {
    fn rows(&self) -> usize {
        self.fields.len() / self.columns
    }

    /// Each row's field, `None` for null.
    #[inline]
    fn values(&self) -> impl Iterator<Item = Option<Field>> + '_ {
        let records = self.fields.chunks_exact(self.columns);
        records.map(|record| {
            let field = record[self.column];
            (!self.is_null(field)).then_some(field)
        })
    }

    #[inline]
    fn is_null(&self, field: Field) -> bool {
        let bytes = field.bytes(self.data);
        if bytes.is_empty() {
            return !field.is_quoted();
        }
        !self.nulls.is_empty() && !field.is_quoted() && self.nulls.iter().any(|null| null.as_bytes() == bytes)
    }

    /// The column as this type.
    pub(crate) fn read(&self, data_type: &DataType, bad: &mut BadRows<'_>) -> Result<ArrayRef> {
        Ok(match data_type {
            DataType::Int64 => Arc::new(self.integers::<Int64Type>(data_type, bad)),
            DataType::Int32 => Arc::new(self.integers::<Int32Type>(data_type, bad)),
            DataType::Int16 => Arc::new(self.integers::<Int16Type>(data_type, bad)),
            DataType::Int8 => Arc::new(self.integers::<Int8Type>(data_type, bad)),
            DataType::UInt64 => Arc::new(self.integers::<UInt64Type>(data_type, bad)),
            DataType::UInt32 => Arc::new(self.integers::<UInt32Type>(data_type, bad)),
            DataType::UInt16 => Arc::new(self.integers::<UInt16Type>(data_type, bad)),
            DataType::UInt8 => Arc::new(self.integers::<UInt8Type>(data_type, bad)),
            DataType::Float64 => Arc::new(self.parsed::<Float64Type>(data_type, bad, parse_float)),
            DataType::Float32 => {
                Arc::new(self.parsed::<Float32Type>(data_type, bad, |bytes| parse_float(bytes).map(|v| v as f32)))
            }
            DataType::Boolean => self.booleans(bad),
            DataType::Utf8 => Arc::new(self.strings(bad)?),
            DataType::Timestamp(unit, zone) if zone.as_deref().is_none_or(is_utc) => {
                let array: ArrayRef = match unit {
                    TimeUnit::Second => self.moments::<TimestampSecondType>(data_type, bad, Moment::seconds),
                    TimeUnit::Millisecond => self.moments::<TimestampMillisecondType>(data_type, bad, Moment::millis),
                    TimeUnit::Microsecond => self.moments::<TimestampMicrosecondType>(data_type, bad, Moment::micros),
                    TimeUnit::Nanosecond => self.moments::<TimestampNanosecondType>(data_type, bad, Moment::nanos),
                };
                array
            }
            other => self.cast(other, bad)?,
        })
    }

    /// A column of what `parse` makes of each field, surrounding spaces aside.
    fn parsed<T: ArrowPrimitiveType>(
        &self,
        data_type: &DataType,
        bad: &mut BadRows<'_>,
        mut parse: impl FnMut(&[u8]) -> Option<T::Native>,
    ) -> PrimitiveArray<T> {
        let mut builder = PrimitiveBuilder::<T>::with_capacity(self.rows()).with_data_type(data_type.clone());
        for (row, field) in self.values().enumerate() {
            let bytes = field.map(|field| field.bytes(self.data).trim_ascii());
            match bytes {
                // A field of nothing but quotes or spaces is no number, and no mistake either.
                None | Some(b"") => builder.append_null(),
                Some(bytes) => match parse(bytes) {
                    Some(value) => builder.append_value(value),
                    None => {
                        bad.push(row, bytes, data_type);
                        builder.append_null();
                    }
                },
            }
        }
        builder.finish()
    }

    fn integers<T>(&self, data_type: &DataType, bad: &mut BadRows<'_>) -> PrimitiveArray<T>
    where
        T: ArrowPrimitiveType,
        T::Native: TryFrom<i64> + std::str::FromStr,
    {
        self.parsed::<T>(data_type, bad, parse_integer::<T::Native>)
    }

    fn moments<T: ArrowPrimitiveType<Native = i64>>(
        &self,
        data_type: &DataType,
        bad: &mut BadRows<'_>,
        convert: impl Fn(Moment) -> Option<i64>,
    ) -> ArrayRef {
        let mut moments = Moments::default();
        Arc::new(self.parsed::<T>(data_type, bad, |bytes| convert(moments.parse(bytes)?)))
    }

    fn booleans(&self, bad: &mut BadRows<'_>) -> ArrayRef {
        let mut builder = BooleanBuilder::with_capacity(self.rows());
        for (row, field) in self.values().enumerate() {
            let bytes = field.map(|field| field.bytes(self.data).trim_ascii());
            match bytes {
                None | Some(b"") => builder.append_null(),
                Some(b"true" | b"True" | b"TRUE" | b"1") => builder.append_value(true),
                Some(b"false" | b"False" | b"FALSE" | b"0") => builder.append_value(false),
                Some(bytes) => {
                    bad.push(row, bytes, &DataType::Boolean);
                    builder.append_null();
                }
            }
        }
        Arc::new(builder.finish())
    }

    fn strings(&self, bad: &mut BadRows<'_>) -> Result<StringArray> {
        let mut builder = StringBuilder::with_capacity(self.rows(), self.rows() * 16);
        let mut unescaped = Vec::new();
        for (row, field) in self.values().enumerate() {
            let Some(field) = field else {
                builder.append_null();
                continue;
            };
            let mut bytes = field.bytes(self.data);
            if field.is_quoted() && memchr::memchr(self.quote, bytes).is_some() {
                unescaped.clear();
                unescape(bytes, self.quote, &mut unescaped);
                bytes = &unescaped;
            }
            match std::str::from_utf8(bytes) {
                Ok(text) => builder.append_value(text),
                Err(_) => {
                    bad.push(row, bytes, &DataType::Utf8);
                    builder.append_null();
                }
            }
        }
        Ok(builder.finish())
    }

    fn cast(&self, data_type: &DataType, bad: &mut BadRows<'_>) -> Result<ArrayRef> {
        let strings = self.strings(bad)?;
        let options = CastOptions { safe: true, ..CastOptions::default() };
        let array = cast_with_options(&strings, data_type, &options)
            .map_err(|e| Error::schema(format!("column {:?} cannot be read as {data_type}", bad.name)).because(e))?;
        for row in 0..strings.len() {
            if array.is_null(row) && strings.is_valid(row) && !strings.value(row).is_empty() {
                bad.push(row, strings.value(row).as_bytes(), data_type);
            }
        }
        Ok(array)
    }
}
