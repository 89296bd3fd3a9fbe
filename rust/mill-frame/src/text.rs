//! Values as text, and text as values: one form for each type, whatever the file around it.
//!
//! ```text
//!   CSV fields, JSON strings and numbers ─► Cell ─► read()   ─► a column, and the rows that do not fit
//!   a column                             ─► TextColumn::push ─► text that read() reads back to the same value
//! ```
//!
//! | type | written as | also read |
//! | --- | --- | --- |
//! | integer | `-12` | `+12`, and decimals that are whole: `12.0`, `1.2e1` |
//! | float | `0.1`, `1e300`, `NaN`, `inf`, `-inf` | `Infinity`, any decimal |
//! | decimal | `12.50` | any decimal that loses no digit |
//! | boolean | `true`, `false` | `True`, `TRUE`, `1` and so on |
//! | date | `2024-01-31`, `+10000-01-01`, `-0001-12-31` | `20240131` |
//! | time of day | `05:15:00.250` | `05:15`, a number of units |
//! | timestamp | `2024-01-31T05:15:00.250` | a space for the `T`, no seconds, a date alone, a number of units |
//! | timestamp with a zone | `2024-01-31T05:15:00+02:00`, `…Z` | an offset as `+0200` or `+02`; without one, local time |
//! | duration | `PT90.5S`, `-PT1S` | `P1DT2H3M4S`, a number of units |
//! | binary | `0aff` | `0AFF` |
//!
//! A value that does not fit its type exactly is a [`Misfit`]: digits are never cut, numbers never wrap, and a text with
//! an offset is not read as a time without a zone. Only the decimals of floats are rounded, to the nearest float.

mod calendar;
mod moment;
mod number;
mod read;
mod record;
mod span;
mod write;

pub use moment::{Moment, Moments};
pub use number::{parse_decimal, parse_float, parse_integer};
pub use read::{Cell, can_read, read};
pub use record::{ObjectJson, push_json_string, record_json, shortened, show_objects_with};
pub use span::{parse_duration, parse_time};
pub use write::TextColumn;

use arrow::datatypes::DataType;

use crate::types::type_name;

/// Why a text is not a value of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misfit {
    /// It does not have the form of one.
    Form,
    /// The type cannot hold it: it is too large or too small.
    Range,
    /// It has more digits than the type can hold.
    Digits,
    /// It has an offset, and the type has no zone.
    Zone,
    /// It is a local time that the zone skips, or has twice.
    Local,
}

impl Misfit {
    /// What is said after the value: `is not a number`, `is too large or too small for int64`.
    ///
    /// # Examples
    /// ```
    /// use arrow::datatypes::DataType;
    /// use mill_frame::text::{Misfit, parse_integer};
    ///
    /// let misfit = parse_integer::<i8>(b"200").unwrap_err();
    /// assert_eq!(misfit, Misfit::Range);
    /// assert_eq!(misfit.reason(&DataType::Int8), "is too large or too small for int8");
    /// ```
    pub fn reason(self, to: &DataType) -> String {
        let name = type_name(to);
        match (self, to) {
            (Misfit::Form, _) => format!("is not {}", expected(to)),
            (Misfit::Range, _) => format!("is too large or too small for {name}"),
            (Misfit::Digits, t) if t.is_integer() => format!("is not a whole number, which {name} needs"),
            (Misfit::Digits, DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_)) => {
                format!("has a finer fraction of a second than {name} holds")
            }
            (Misfit::Digits, _) => format!("has more digits than {name} holds"),
            (Misfit::Zone, _) => format!("has an offset, and {name} has no time zone (mill.Timestamp(unit, tz=\"UTC\") has one)"),
            (Misfit::Local, _) => format!("is a local time that does not exist or exists twice in the zone of {name}"),
        }
    }
}

/// What a text should be, with its article.
fn expected(to: &DataType) -> String {
    match to {
        DataType::Null => "null".to_owned(),
        t if t.is_integer() => format!("an integer ({})", type_name(t)),
        t if t.is_floating() => "a number".to_owned(),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            format!("a number ({})", type_name(to))
        }
        DataType::Boolean => "true or false".to_owned(),
        DataType::Timestamp(..) => "a timestamp in ISO 8601".to_owned(),
        DataType::Date32 | DataType::Date64 => "a date in ISO 8601".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "a time of day in ISO 8601".to_owned(),
        DataType::Duration(_) => "a duration in ISO 8601, such as PT1.5S".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "UTF-8".to_owned(),
        DataType::FixedSizeBinary(size) => format!("{size} bytes in hexadecimal digits"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes in hexadecimal digits".to_owned(),
        DataType::Dictionary(_, value) => expected(value),
        other => format!("of type {}", type_name(other)),
    }
}

#[cfg(test)]
mod tests;
