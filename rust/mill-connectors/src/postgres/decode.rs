//! Values of PostgreSQL in binary form as columns.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder as _, ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder, DurationMicrosecondBuilder,
    Float32Builder, Float64Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder, UInt32Builder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, i256};

use super::encode::{EPOCH_DAYS, EPOCH_MICROS};
use super::form::Form;
use super::numeric;

type Outcome<T> = std::result::Result<T, String>;

/// Builds a column.
pub(super) enum Builder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Oid(UInt32Builder),
    Float4(Float32Builder),
    Float8(Float64Builder),
    Decimal(Decimal128Builder, i32),
    LongDecimal(Decimal256Builder, i32),
    Text(StringBuilder),
    Jsonb(StringBuilder),
    Uuid(StringBuilder),
    Bytea(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, bool),
    Interval(DurationMicrosecondBuilder),
    Array { items: Box<Builder>, item: DataType, offsets: Vec<i32>, valid: Vec<bool>, count: i32 },
}

impl Builder {
    /// A column of values in this form, which has one.
    pub(super) fn new(form: &Form) -> Outcome<Builder> {
        Ok(match form {
            Form::Bool => Builder::Bool(BooleanBuilder::new()),
            Form::Int2 => Builder::Int2(Int16Builder::new()),
            Form::Int4 => Builder::Int4(Int32Builder::new()),
            Form::Int8 => Builder::Int8(Int64Builder::new()),
            Form::Oid => Builder::Oid(UInt32Builder::new()),
            Form::Float4 => Builder::Float4(Float32Builder::new()),
            Form::Float8 => Builder::Float8(Float64Builder::new()),
            Form::Numeric(limits) => {
                let Some((precision, scale)) = *limits else { return Err("a numeric without a precision is no column".to_owned()) };
                let kept = |e: arrow::error::ArrowError| e.to_string();
                match form.column()? {
                    DataType::Decimal128(..) => {
                        let builder = Decimal128Builder::new().with_precision_and_scale(precision as u8, scale as i8).map_err(kept)?;
                        Builder::Decimal(builder, scale)
                    }
                    _ => {
                        let builder = Decimal256Builder::new().with_precision_and_scale(precision as u8, scale as i8).map_err(kept)?;
                        Builder::LongDecimal(builder, scale)
                    }
                }
            }
            Form::Text(_) | Form::Padded | Form::Label | Form::Json => Builder::Text(StringBuilder::new()),
            Form::Jsonb => Builder::Jsonb(StringBuilder::new()),
            Form::Uuid => Builder::Uuid(StringBuilder::new()),
            Form::Bytea => Builder::Bytea(BinaryBuilder::new()),
            Form::Date => Builder::Date(Date32Builder::new()),
            Form::Time => Builder::Time(Time64MicrosecondBuilder::new()),
            Form::Timestamp => Builder::Timestamp(TimestampMicrosecondBuilder::new(), false),
            Form::Timestamptz => Builder::Timestamp(TimestampMicrosecondBuilder::new(), true),
            Form::Interval => Builder::Interval(DurationMicrosecondBuilder::new()),
            Form::Array(item, _) => {
                let kind = item.column()?;
                Builder::Array { items: Box::new(Builder::new(item)?), item: kind, offsets: vec![0], valid: Vec::new(), count: 0 }
            }
        })
    }

    /// Adds a value, or null. After an error nothing was added, but elements of an array that no row has.
    pub(super) fn push(&mut self, value: Option<&[u8]>) -> Outcome<()> {
        let Some(bytes) = value else {
            self.push_null();
            return Ok(());
        };
        match self {
            Builder::Bool(builder) => builder.append_value(fixed::<1>(bytes)?[0] != 0),
            Builder::Int2(builder) => builder.append_value(i16::from_be_bytes(fixed(bytes)?)),
            Builder::Int4(builder) => builder.append_value(i32::from_be_bytes(fixed(bytes)?)),
            Builder::Int8(builder) => builder.append_value(i64::from_be_bytes(fixed(bytes)?)),
            Builder::Oid(builder) => builder.append_value(u32::from_be_bytes(fixed(bytes)?)),
            Builder::Float4(builder) => builder.append_value(f32::from_be_bytes(fixed(bytes)?)),
            Builder::Float8(builder) => builder.append_value(f64::from_be_bytes(fixed(bytes)?)),
            Builder::Decimal(builder, scale) => {
                let digits = numeric::digits(bytes, *scale)?;
                builder.append_value(digits.parse().map_err(|_| too_many(&digits))?);
            }
            Builder::LongDecimal(builder, scale) => {
                let digits = numeric::digits(bytes, *scale)?;
                builder.append_value(i256::from_string(&digits).filter(|_| digits.len() <= 77).ok_or_else(|| too_many(&digits))?);
            }
            Builder::Text(builder) => builder.append_value(text(bytes)?),
            Builder::Jsonb(builder) => match bytes.split_first() {
                Some((1, rest)) => builder.append_value(text(rest)?),
                _ => return Err("a jsonb has a form that is not known".to_owned()),
            },
            Builder::Uuid(builder) => builder.append_value(uuid(fixed(bytes)?)),
            Builder::Bytea(builder) => builder.append_value(bytes),
            Builder::Date(builder) => match i32::from_be_bytes(fixed(bytes)?) {
                i32::MAX | i32::MIN => return Err("the value is infinity, which no date is".to_owned()),
                days => builder.append_value(days.checked_add(EPOCH_DAYS).ok_or("the date is too late")?),
            },
            Builder::Time(builder) => match i64::from_be_bytes(fixed(bytes)?) {
                micros if (0..86_400_000_000).contains(&micros) => builder.append_value(micros),
                _ => return Err("the value is 24:00:00, which no time here is".to_owned()),
            },
            Builder::Timestamp(builder, _) => match i64::from_be_bytes(fixed(bytes)?) {
                i64::MAX | i64::MIN => return Err("the value is infinity, which no timestamp is".to_owned()),
                micros => builder.append_value(micros.checked_add(EPOCH_MICROS).ok_or("the timestamp is too late")?),
            },
            Builder::Interval(builder) => {
                let bytes: [u8; 16] = fixed(bytes)?;
                let (micros, rest) = bytes.split_at(8);
                if rest.iter().any(|byte| *byte != 0) {
                    return Err("the interval has days or months, whose length depends on when they are added; select seconds, as in \
                         make_interval(secs => extract(epoch FROM x))"
                        .to_owned());
                }
                builder.append_value(i64::from_be_bytes(fixed(micros)?));
            }
            Builder::Array { items, offsets, valid, count, .. } => {
                let added = push_items(items, bytes, *count);
                // What was added of an array that is wrong belongs to the null that takes its place.
                *count = items.len() as i32;
                added?;
                offsets.push(*count);
                valid.push(true);
            }
        }
        Ok(())
    }

    /// How many values there are.
    fn len(&self) -> usize {
        match self {
            Builder::Bool(builder) => builder.len(),
            Builder::Int2(builder) => builder.len(),
            Builder::Int4(builder) => builder.len(),
            Builder::Int8(builder) => builder.len(),
            Builder::Oid(builder) => builder.len(),
            Builder::Float4(builder) => builder.len(),
            Builder::Float8(builder) => builder.len(),
            Builder::Decimal(builder, _) => builder.len(),
            Builder::LongDecimal(builder, _) => builder.len(),
            Builder::Text(builder) | Builder::Jsonb(builder) | Builder::Uuid(builder) => builder.len(),
            Builder::Bytea(builder) => builder.len(),
            Builder::Date(builder) => builder.len(),
            Builder::Time(builder) => builder.len(),
            Builder::Timestamp(builder, _) => builder.len(),
            Builder::Interval(builder) => builder.len(),
            Builder::Array { valid, .. } => valid.len(),
        }
    }

    fn push_null(&mut self) {
        match self {
            Builder::Bool(builder) => builder.append_null(),
            Builder::Int2(builder) => builder.append_null(),
            Builder::Int4(builder) => builder.append_null(),
            Builder::Int8(builder) => builder.append_null(),
            Builder::Oid(builder) => builder.append_null(),
            Builder::Float4(builder) => builder.append_null(),
            Builder::Float8(builder) => builder.append_null(),
            Builder::Decimal(builder, _) => builder.append_null(),
            Builder::LongDecimal(builder, _) => builder.append_null(),
            Builder::Text(builder) | Builder::Jsonb(builder) | Builder::Uuid(builder) => builder.append_null(),
            Builder::Bytea(builder) => builder.append_null(),
            Builder::Date(builder) => builder.append_null(),
            Builder::Time(builder) => builder.append_null(),
            Builder::Timestamp(builder, _) => builder.append_null(),
            Builder::Interval(builder) => builder.append_null(),
            Builder::Array { offsets, valid, count, .. } => {
                offsets.push(*count);
                valid.push(false);
            }
        }
    }

    /// The column; the builder begins another one.
    pub(super) fn finish(&mut self) -> Outcome<ArrayRef> {
        Ok(match self {
            Builder::Bool(builder) => Arc::new(builder.finish()),
            Builder::Int2(builder) => Arc::new(builder.finish()),
            Builder::Int4(builder) => Arc::new(builder.finish()),
            Builder::Int8(builder) => Arc::new(builder.finish()),
            Builder::Oid(builder) => Arc::new(builder.finish()),
            Builder::Float4(builder) => Arc::new(builder.finish()),
            Builder::Float8(builder) => Arc::new(builder.finish()),
            Builder::Decimal(builder, _) => Arc::new(builder.finish()),
            Builder::LongDecimal(builder, _) => Arc::new(builder.finish()),
            Builder::Text(builder) | Builder::Jsonb(builder) | Builder::Uuid(builder) => Arc::new(builder.finish()),
            Builder::Bytea(builder) => Arc::new(builder.finish()),
            Builder::Date(builder) => Arc::new(builder.finish()),
            Builder::Time(builder) => Arc::new(builder.finish()),
            Builder::Timestamp(builder, false) => Arc::new(builder.finish()),
            Builder::Timestamp(builder, true) => Arc::new(builder.finish().with_timezone("UTC")),
            Builder::Interval(builder) => Arc::new(builder.finish()),
            Builder::Array { items, item, offsets, valid, count } => {
                let field = Arc::new(Field::new("item", item.clone(), true));
                let offsets = OffsetBuffer::new(std::mem::replace(offsets, vec![0]).into());
                let nulls = NullBuffer::from(std::mem::take(valid));
                *count = 0;
                let items = items.finish()?;
                Arc::new(ListArray::try_new(field, offsets, items, Some(nulls)).map_err(|e| e.to_string())?)
            }
        })
    }
}

/// Adds the elements of an array.
fn push_items(items: &mut Builder, bytes: &[u8], before: i32) -> Outcome<()> {
    let damaged = || "an array has a form that is not known".to_owned();
    let mut rest = bytes;
    let dimensions = take_i32(&mut rest).ok_or_else(damaged)?;
    let (_flags, _kind) = (take_i32(&mut rest).ok_or_else(damaged)?, take_i32(&mut rest).ok_or_else(damaged)?);
    if dimensions == 0 {
        return Ok(());
    }
    if dimensions != 1 {
        return Err(format!("the array has {dimensions} dimensions, and a list has one"));
    }
    let count = take_i32(&mut rest).ok_or_else(damaged)?;
    if take_i32(&mut rest).ok_or_else(damaged)? != 1 {
        return Err("the array does not begin at 1, which a list does".to_owned());
    }
    before.checked_add(count).ok_or("the arrays of a batch have too many elements")?;
    for _ in 0..count {
        let length = take_i32(&mut rest).ok_or_else(damaged)?;
        let value = match usize::try_from(length) {
            Err(_) => None,
            Ok(length) => {
                let (value, tail) = rest.split_at_checked(length).ok_or_else(damaged)?;
                rest = tail;
                Some(value)
            }
        };
        items.push(value)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(damaged()) }
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (front, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*front))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Outcome<[u8; N]> {
    bytes.try_into().map_err(|_| format!("a value has {} bytes, and its type {N}", bytes.len()))
}

fn text(bytes: &[u8]) -> Outcome<&str> {
    std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".to_owned())
}

fn too_many(digits: &str) -> String {
    format!("the value has {}, more than the column", mill_frame::words::counted(digits.trim_start_matches('-').len(), "digit"))
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
