//! The types of columns, as far as samples of files show them: one lattice for CSV and JSON.
//!
//! ```text
//!   Nothing ─► Boolean
//!           ─► Integer ─► Float           integers that a float does not keep, and floats: Text
//!           ─► Date ─► Moment             with and without a zone: Text
//!           ─► List, Struct               item by item, field by field
//!                        any two others ─► Text
//! ```
//!
//! A type is inferred only if every value of the samples is of it and the reader of that type reads it to the same value.
//! What the samples did not show turns up later as a malformed record, never as another value.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use mill_frame::text::{Moments, parse_decimal, parse_float, parse_integer};

/// What a message of a value that does not fit an inferred type adds.
pub(crate) const ADVICE: &str = "; the type was inferred from a sample of the files: give schema= to choose another";
/// The digits of the widest decimal.
const DECIMAL_DIGITS: u8 = 38;
/// Integers up to this, and no further, are all exact as floats.
const FLOAT_INTEGER_MAX: i128 = 1 << 53;

/// What the values of a column have in common.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Common {
    Nothing,
    Boolean,
    /// Whole numbers between these two.
    Integer(i128, i128),
    Float,
    /// Texts for what is no number to JSON: NaN and the infinities. With numbers they are floats, else text.
    NotFinite,
    Date,
    Moment(Needs),
    Text,
    List(Box<Common>),
    Struct(Vec<(String, Common)>),
}

/// What moments of a column need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Whether they name an offset.
    is_zoned: bool,
    /// Whether one has a fraction finer than a microsecond.
    is_fine: bool,
    /// Whether one is out of the years that nanoseconds reach.
    is_far: bool,
}

impl Common {
    /// Of the text of a JSON string.
    pub(crate) fn of_string(text: &[u8]) -> Common {
        match text {
            b"NaN" | b"Infinity" | b"-Infinity" | b"inf" | b"-inf" => Common::NotFinite,
            text => Common::of_moment(text).unwrap_or(Common::Text),
        }
    }

    /// Of the digits of a number.
    pub(crate) fn of_number(digits: &[u8]) -> Common {
        let is_integer = digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
        match is_integer {
            true => match parse_integer::<i64>(digits) {
                Ok(value) => Common::Integer(value.into(), value.into()),
                Err(_) => match parse_decimal::<i128>(digits, DECIMAL_DIGITS, 0) {
                    Ok(value) => Common::Integer(value, value),
                    Err(_) => Common::Text,
                },
            },
            false if parse_float(digits).is_ok() => Common::Float,
            false => Common::Text,
        }
    }

    /// Of a field of a CSV file that is not empty.
    pub(crate) fn of_field(value: &[u8]) -> Common {
        match value {
            b"true" | b"True" | b"TRUE" | b"false" | b"False" | b"FALSE" => return Common::Boolean,
            b"NaN" | b"nan" | b"inf" | b"-inf" => return Common::Float,
            _ => {}
        }
        let digits = value.strip_prefix(b"-").unwrap_or(value);
        let has_leading_zero = digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit();
        let is_numeric = digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.');
        if is_numeric && !has_leading_zero {
            let common = Common::of_number(value);
            if common != Common::Text {
                return common;
            }
        }
        Common::of_moment(value).unwrap_or(Common::Text)
    }

    fn of_moment(text: &[u8]) -> Option<Common> {
        let moment = Moments::default().parse(text)?;
        if moment.is_date {
            // A year beyond those of a 32-bit count of days is not worth another type.
            let is_date = i32::try_from(moment.seconds.div_euclid(86_400)).is_ok();
            return is_date.then_some(Common::Date);
        }
        let is_fine = moment.in_unit(TimeUnit::Microsecond).is_err();
        let is_far = moment.in_unit(TimeUnit::Nanosecond).is_err();
        Some(Common::Moment(Needs { is_zoned: moment.offset.is_some(), is_fine, is_far }))
    }

    /// What both have in common.
    pub(crate) fn and(self, other: Common) -> Common {
        use Common::{Date, Float, Integer, List, Moment, NotFinite, Nothing, Struct, Text};
        match (self, other) {
            (Nothing, one) | (one, Nothing) => one,
            (Integer(a, b), Integer(c, d)) => Integer(a.min(c), b.max(d)),
            (Moment(a), Moment(b)) if a.is_zoned == b.is_zoned => Moment(Needs {
                is_zoned: a.is_zoned,
                is_fine: a.is_fine || b.is_fine,
                is_far: a.is_far || b.is_far,
            }),
            (List(a), List(b)) => List(Box::new(a.and(*b))),
            (Struct(mut a), Struct(b)) => {
                b.into_iter().for_each(|(name, common)| add(&mut a, name, common));
                Struct(a)
            }
            (a, b) if a == b => a,
            (Integer(least, most), Float | NotFinite) | (Float | NotFinite, Integer(least, most)) => {
                let is_exact = least >= -FLOAT_INTEGER_MAX && most <= FLOAT_INTEGER_MAX;
                if is_exact { Float } else { Text }
            }
            (Float, NotFinite) | (NotFinite, Float) => Float,
            // A date is midnight. Dates may be out of the range of nanoseconds.
            (Date, Moment(moments)) | (Moment(moments), Date) if !moments.is_zoned && !moments.is_fine => {
                Moment(Needs { is_far: true, ..moments })
            }
            _ => Text,
        }
    }

    /// The type that holds the values.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Common::Nothing | Common::Text | Common::NotFinite => DataType::Utf8,
            Common::Boolean => DataType::Boolean,
            Common::Integer(least, most) => match (i64::try_from(*least), i64::try_from(*most)) {
                (Ok(_), Ok(_)) => DataType::Int64,
                _ if *least >= 0 && u64::try_from(*most).is_ok() => DataType::UInt64,
                _ => DataType::Decimal128(DECIMAL_DIGITS, 0),
            },
            Common::Float => DataType::Float64,
            Common::Date => DataType::Date32,
            Common::Moment(Needs { is_fine: true, is_far: true, .. }) => DataType::Utf8,
            Common::Moment(moments) => {
                let unit = if moments.is_fine { TimeUnit::Nanosecond } else { TimeUnit::Microsecond };
                DataType::Timestamp(unit, moments.is_zoned.then(|| Arc::from("UTC")))
            }
            Common::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type(), true))),
            // An object without keys has no type of its own.
            Common::Struct(columns) if columns.is_empty() => DataType::Utf8,
            Common::Struct(columns) => {
                let fields = columns.iter().map(|(name, common)| Field::new(name, common.data_type(), true));
                DataType::Struct(fields.collect::<Fields>())
            }
        }
    }
}

/// Adds what a column of this name has to what is known of the columns.
pub(crate) fn add(columns: &mut Vec<(String, Common)>, name: String, common: Common) {
    match columns.iter_mut().find(|(other, _)| *other == name) {
        Some((_, known)) => *known = std::mem::replace(known, Common::Nothing).and(common),
        None => columns.push((name, common)),
    }
}

#[cfg(test)]
mod tests;
