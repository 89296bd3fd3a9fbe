//! The types of columns, as far as a sample of a file tells them safely.
//!
//! A type is taken only if every value of the sample is of it: `true`/`false`, integers, numbers, dates and timestamps
//! in ISO 8601; anything else, and integers with leading zeros (codes rather than numbers), stay text. A column without
//! any value is text. What the sample did not show turns up later as a malformed record, never as another value.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};

use super::number::{parse_float, parse_integer};
use super::tokens::Field;
use crate::timestamp::{has_zone, parse_moment};

/// What the values of a column have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Common {
    Nothing,
    Boolean,
    Integer,
    Float,
    Date,
    Naive,
    Zoned,
    Text,
}

impl Common {
    fn of(value: &[u8]) -> Common {
        match value {
            b"true" | b"True" | b"TRUE" | b"false" | b"False" | b"FALSE" => return Common::Boolean,
            _ => {}
        }
        let digits = value.strip_prefix(b"-").unwrap_or(value);
        let has_leading_zero = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
        let is_numeric = digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.');
        if is_numeric && !has_leading_zero {
            if parse_integer::<i64>(value).is_some() {
                return Common::Integer;
            }
            if parse_float(value).is_some() {
                return Common::Float;
            }
        }
        match value {
            b"NaN" | b"nan" | b"inf" | b"-inf" => Common::Float,
            value if parse_moment(value).is_none() => Common::Text,
            value if value.len() == 10 => Common::Date,
            value if has_zone(value) => Common::Zoned,
            _ => Common::Naive,
        }
    }

    fn and(self, other: Common) -> Common {
        match (self, other) {
            (Common::Nothing, one) | (one, Common::Nothing) => one,
            (a, b) if a == b => a,
            (Common::Integer, Common::Float) | (Common::Float, Common::Integer) => Common::Float,
            (Common::Date, Common::Naive) | (Common::Naive, Common::Date) => Common::Naive,
            _ => Common::Text,
        }
    }
}

/// The type of each column of a sample.
pub(crate) fn infer_types(data: &[u8], fields: &[Field], columns: usize, nulls: &[String]) -> Vec<DataType> {
    let mut common = vec![Common::Nothing; columns];
    for record in fields.chunks_exact(columns) {
        for (common, field) in common.iter_mut().zip(record) {
            let value = field.bytes(data).trim_ascii();
            let is_null = value.is_empty() || nulls.iter().any(|null| null.as_bytes() == value);
            if *common != Common::Text && !is_null {
                *common = common.and(Common::of(value));
            }
        }
    }
    common.into_iter().map(Common::data_type).collect()
}

impl Common {
    fn data_type(self) -> DataType {
        match self {
            Common::Nothing | Common::Text => DataType::Utf8,
            Common::Boolean => DataType::Boolean,
            Common::Integer => DataType::Int64,
            Common::Float => DataType::Float64,
            Common::Date => DataType::Date32,
            Common::Naive => DataType::Timestamp(TimeUnit::Microsecond, None),
            Common::Zoned => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC"))),
        }
    }
}

/// The type that holds the values of both.
pub(crate) fn unite(a: &DataType, b: &DataType) -> DataType {
    use DataType::{Date32, Float64, Int64, Timestamp, Utf8};
    match (a, b) {
        (a, b) if a == b => a.clone(),
        (Int64, Float64) | (Float64, Int64) => Float64,
        (Date32, Timestamp(unit, None)) | (Timestamp(unit, None), Date32) => Timestamp(*unit, None),
        _ => Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_every_value_is_becomes_the_type() {
        let of = |values: &[&str]| {
            values.iter().map(|v| Common::of(v.as_bytes())).fold(Common::Nothing, Common::and)
        };
        assert_eq!(of(&["1", "-5", "0"]), Common::Integer);
        assert_eq!(of(&["1", "2.5", "1e9"]), Common::Float);
        assert_eq!(of(&["007", "1"]), Common::Text);
        assert_eq!(of(&["0.5"]), Common::Float);
        assert_eq!(of(&["true", "1"]), Common::Text);
        assert_eq!(of(&["2013-01-01", "2013-01-01T05:00:00"]), Common::Naive);
        assert_eq!(of(&["2013-01-01T05:00:00Z", "2013-01-01T05:00:00+02:00"]), Common::Zoned);
        assert_eq!(of(&["2013-01-01T05:00:00Z", "2013-01-01T05:00:00"]), Common::Text);
        assert_eq!(of(&["NA", "1"]), Common::Text);
        assert_eq!(of(&["99999999999999999999"]), Common::Float);
    }
}
