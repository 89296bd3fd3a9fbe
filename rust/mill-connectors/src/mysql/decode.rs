//! Values of MySQL, as its binary protocol has them, as columns.

use std::sync::Arc;

use ::mysql::Value;
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder, DurationMicrosecondBuilder, Float32Builder,
    Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder, UInt8Builder,
    UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow::datatypes::i256;

use super::calendar;
use super::form::Form;

type Outcome<T> = std::result::Result<T, String>;

const DAY_MICROS: i64 = 86_400_000_000;

/// Builds a column.
pub(super) enum Builder {
    Bool(BooleanBuilder),
    Bits(UInt64Builder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, u8),
    LongDecimal(Decimal256Builder, u8),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    Date(Date32Builder),
    Time(DurationMicrosecondBuilder),
    Moment(TimestampMicrosecondBuilder, bool),
}

impl Builder {
    /// A column of values in this form.
    pub(super) fn new(form: Form) -> Outcome<Builder> {
        let kept = |e: arrow::error::ArrowError| e.to_string();
        Ok(match form {
            Form::Bit(1) => Builder::Bool(BooleanBuilder::new()),
            Form::Bit(_) => Builder::Bits(UInt64Builder::new()),
            Form::Int { bits, is_unsigned } => match (bits, is_unsigned) {
                (8, false) => Builder::Int8(Int8Builder::new()),
                (16, false) => Builder::Int16(Int16Builder::new()),
                (24 | 32, false) => Builder::Int32(Int32Builder::new()),
                (_, false) => Builder::Int64(Int64Builder::new()),
                (8, true) => Builder::UInt8(UInt8Builder::new()),
                (16, true) => Builder::UInt16(UInt16Builder::new()),
                (24 | 32, true) => Builder::UInt32(UInt32Builder::new()),
                (_, true) => Builder::UInt64(UInt64Builder::new()),
            },
            Form::Year => Builder::Int16(Int16Builder::new()),
            Form::Float => Builder::Float(Float32Builder::new()),
            Form::Double => Builder::Double(Float64Builder::new()),
            Form::Decimal(precision, scale) if precision <= 38 => {
                Builder::Decimal(Decimal128Builder::new().with_precision_and_scale(precision, scale as i8).map_err(kept)?, scale)
            }
            Form::Decimal(precision, scale) => {
                Builder::LongDecimal(Decimal256Builder::new().with_precision_and_scale(precision, scale as i8).map_err(kept)?, scale)
            }
            Form::Text | Form::Label | Form::Json => Builder::Text(StringBuilder::new()),
            Form::Binary => Builder::Binary(BinaryBuilder::new()),
            Form::Date => Builder::Date(Date32Builder::new()),
            Form::Time(_) => Builder::Time(DurationMicrosecondBuilder::new()),
            Form::Datetime(_) => Builder::Moment(TimestampMicrosecondBuilder::new(), false),
            Form::Timestamp(_) => Builder::Moment(TimestampMicrosecondBuilder::new(), true),
        })
    }

    /// Adds a value, or null. After an error nothing was added.
    pub(super) fn push(&mut self, value: &Value) -> Outcome<()> {
        if matches!(value, Value::NULL) {
            self.push_null();
            return Ok(());
        }
        match self {
            Builder::Bool(builder) => builder.append_value(bits(value)? != 0),
            Builder::Bits(builder) => builder.append_value(bits(value)?),
            Builder::Int8(builder) => builder.append_value(whole(value)?),
            Builder::Int16(builder) => builder.append_value(whole(value)?),
            Builder::Int32(builder) => builder.append_value(whole(value)?),
            Builder::Int64(builder) => builder.append_value(whole(value)?),
            Builder::UInt8(builder) => builder.append_value(whole(value)?),
            Builder::UInt16(builder) => builder.append_value(whole(value)?),
            Builder::UInt32(builder) => builder.append_value(whole(value)?),
            Builder::UInt64(builder) => builder.append_value(whole(value)?),
            Builder::Float(builder) => match value {
                Value::Float(number) => builder.append_value(*number),
                other => return Err(unknown(other)),
            },
            Builder::Double(builder) => match value {
                Value::Double(number) => builder.append_value(*number),
                other => return Err(unknown(other)),
            },
            Builder::Decimal(builder, scale) => {
                let digits = digits(bytes(value)?, *scale)?;
                builder.append_value(digits.parse().map_err(|_| too_many(&digits))?);
            }
            Builder::LongDecimal(builder, scale) => {
                let digits = digits(bytes(value)?, *scale)?;
                builder.append_value(i256::from_string(&digits).filter(|_| digits.len() <= 77).ok_or_else(|| too_many(&digits))?);
            }
            Builder::Text(builder) => {
                builder.append_value(std::str::from_utf8(bytes(value)?).map_err(|_| "a text is not UTF-8".to_owned())?);
            }
            Builder::Binary(builder) => builder.append_value(bytes(value)?),
            Builder::Date(builder) => builder.append_value(i32::try_from(days(value)?).map_err(|_| "the date is too late")?),
            Builder::Time(builder) => match value {
                Value::Time(is_negative, days, hours, minutes, seconds, micros) => {
                    let seconds = i64::from(*days) * 86_400 + i64::from(*hours) * 3600 + i64::from(*minutes) * 60 + i64::from(*seconds);
                    let micros = seconds * 1_000_000 + i64::from(*micros);
                    builder.append_value(if *is_negative { -micros } else { micros });
                }
                other => return Err(unknown(other)),
            },
            Builder::Moment(builder, _) => match value {
                Value::Date(_, _, _, hour, minute, second, micros) => {
                    let seconds = i64::from(*hour) * 3600 + i64::from(*minute) * 60 + i64::from(*second);
                    builder.append_value(days(value)? * DAY_MICROS + seconds * 1_000_000 + i64::from(*micros));
                }
                other => return Err(unknown(other)),
            },
        }
        Ok(())
    }

    fn push_null(&mut self) {
        match self {
            Builder::Bool(builder) => builder.append_null(),
            Builder::Bits(builder) | Builder::UInt64(builder) => builder.append_null(),
            Builder::Int8(builder) => builder.append_null(),
            Builder::Int16(builder) => builder.append_null(),
            Builder::Int32(builder) => builder.append_null(),
            Builder::Int64(builder) => builder.append_null(),
            Builder::UInt8(builder) => builder.append_null(),
            Builder::UInt16(builder) => builder.append_null(),
            Builder::UInt32(builder) => builder.append_null(),
            Builder::Float(builder) => builder.append_null(),
            Builder::Double(builder) => builder.append_null(),
            Builder::Decimal(builder, _) => builder.append_null(),
            Builder::LongDecimal(builder, _) => builder.append_null(),
            Builder::Text(builder) => builder.append_null(),
            Builder::Binary(builder) => builder.append_null(),
            Builder::Date(builder) => builder.append_null(),
            Builder::Time(builder) => builder.append_null(),
            Builder::Moment(builder, _) => builder.append_null(),
        }
    }

    /// The column; the builder begins another one.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Bool(builder) => Arc::new(builder.finish()),
            Builder::Bits(builder) | Builder::UInt64(builder) => Arc::new(builder.finish()),
            Builder::Int8(builder) => Arc::new(builder.finish()),
            Builder::Int16(builder) => Arc::new(builder.finish()),
            Builder::Int32(builder) => Arc::new(builder.finish()),
            Builder::Int64(builder) => Arc::new(builder.finish()),
            Builder::UInt8(builder) => Arc::new(builder.finish()),
            Builder::UInt16(builder) => Arc::new(builder.finish()),
            Builder::UInt32(builder) => Arc::new(builder.finish()),
            Builder::Float(builder) => Arc::new(builder.finish()),
            Builder::Double(builder) => Arc::new(builder.finish()),
            Builder::Decimal(builder, _) => Arc::new(builder.finish()),
            Builder::LongDecimal(builder, _) => Arc::new(builder.finish()),
            Builder::Text(builder) => Arc::new(builder.finish()),
            Builder::Binary(builder) => Arc::new(builder.finish()),
            Builder::Date(builder) => Arc::new(builder.finish()),
            Builder::Time(builder) => Arc::new(builder.finish()),
            Builder::Moment(builder, false) => Arc::new(builder.finish()),
            Builder::Moment(builder, true) => Arc::new(builder.finish().with_timezone("UTC")),
        }
    }
}

/// How many bytes a value takes, about.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len(),
        _ => 8,
    }
}

fn whole<T: TryFrom<i64> + TryFrom<u64>>(value: &Value) -> Outcome<T> {
    match value {
        Value::Int(number) => T::try_from(*number).map_err(|_| unknown(value)),
        Value::UInt(number) => T::try_from(*number).map_err(|_| unknown(value)),
        other => Err(unknown(other)),
    }
}

fn bytes(value: &Value) -> Outcome<&[u8]> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        other => Err(unknown(other)),
    }
}

fn bits(value: &Value) -> Outcome<u64> {
    let bytes = bytes(value)?;
    if bytes.len() > 8 {
        return Err(unknown(value));
    }
    Ok(bytes.iter().fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
}

fn days(value: &Value) -> Outcome<i64> {
    let Value::Date(year, month, day, ..) = value else { return Err(unknown(value)) };
    match (year, month, day) {
        (0, 0, 0) => Err("the value is the zero date 0000-00-00, which no date is; select NULLIF(x, 0) to read it as null".to_owned()),
        (_, 0, _) | (_, _, 0) => Err(format!("the value is {year:04}-{month:02}-{day:02}, a date without a month or day, which no date is")),
        _ => calendar::days(i64::from(*year), *month, *day)
            .ok_or_else(|| format!("the value is {year:04}-{month:02}-{day:02}, and the calendar has no such day")),
    }
}

/// The digits of a number with `scale` of them after the point, without the point.
fn digits(bytes: &[u8], scale: u8) -> Outcome<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "a decimal has a form that is not known".to_owned())?;
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (before, after) = rest.split_once('.').unwrap_or((rest, ""));
    if !before.bytes().chain(after.bytes()).all(|digit| digit.is_ascii_digit()) || (before.is_empty() && after.is_empty()) {
        return Err("a decimal has a form that is not known".to_owned());
    }
    let scale = usize::from(scale);
    if after.bytes().skip(scale).any(|digit| digit != b'0') {
        return Err("the value has more digits after the point than the column".to_owned());
    }
    let after = &after[..after.len().min(scale)];
    let all = format!("{before}{after:0<scale$}");
    let kept = all.trim_start_matches('0');
    Ok(if kept.is_empty() { "0".to_owned() } else { format!("{sign}{kept}") })
}

fn too_many(digits: &str) -> String {
    format!("the value has {}, more than the column", mill_frame::words::counted(digits.trim_start_matches('-').len(), "digit"))
}

fn unknown(value: &Value) -> String {
    format!("the value {} has a form that is not known", value.as_sql(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_the_digits_of_their_column() {
        for (text, scale, expected) in
            [("0", 0, "0"), ("-0.00", 2, "0"), ("1.5", 2, "150"), ("-12345.6700", 2, "-1234567"), (".5", 1, "5"), ("007", 0, "7")]
        {
            assert_eq!(digits(text.as_bytes(), scale).unwrap(), expected, "{text}");
        }
        for text in ["", "-", "1e5", "1.234", "nan"] {
            assert!(digits(text.as_bytes(), 2).is_err(), "{text}");
        }
    }

    #[test]
    fn a_zero_date_is_no_date() {
        let date = |year, month, day| days(&Value::Date(year, month, day, 0, 0, 0, 0));
        assert!(date(0, 0, 0).unwrap_err().contains("zero date"));
        assert!(date(2026, 0, 1).unwrap_err().contains("2026-00-01"));
        assert!(date(2026, 2, 30).unwrap_err().contains("no such day"));
        assert_eq!(date(1970, 1, 2), Ok(1));
    }
}
