//! Conversions between types: exact, or refused with the first value that does not fit.
//!
//! Every reader, writer, function result and `cast()` converts columns here, so that one table of rules decides what
//! a value may become:
//!
//! ```text
//!   exact   what arrives must be what was declared: readers, Arrow in, results of functions
//!   cast    what a user asked for: also formats and parses text, rounds times down to a coarser unit
//! ```
//!
//! | from → to | [`exact`] | [`cast`] also |
//! | --- | --- | --- |
//! | integer → integer | in range | |
//! | integer → float | if the float is the same number: 2**53 + 1 is refused | |
//! | float → integer | whole numbers in range; fractions, NaN and infinities are refused | |
//! | float → smaller float, decimal → float | to the nearest; overflow to infinity is refused | |
//! | number → decimal, decimal → integer | without losing a digit (a float by its shortest text) | |
//! | bool → number, number → bool | refused | 0 and 1; zero is false |
//! | text ↔ binary | UTF-8 | |
//! | time, timestamp, duration → coarser unit | if divisible | rounded down, also before 1970 |
//! | … → finer unit | in range | |
//! | date ↔ timestamp without a zone | midnight | the date that holds the time |
//! | zone → another zone | the same instant | |
//! | no zone ↔ zone | refused | refused, except that of UTC |
//! | integer, float, decimal ↔ time, date, duration | refused | as the number of units |
//! | anything flat ↔ text | refused | formatted in ISO 8601, parsed |
//! | list, struct, map, dictionary | value by value; structs by field name | |
//!
//! Null stays null. A conversion never half succeeds: the strict functions return the first row that does not fit, the
//! `_or_null` functions put null in the place of each value that does not fit.
//!
//! The loops are Arrow's kernels, or one loop over the values, and run once a column. Where the two types prove that
//! every value fits ([`Verdict::Exact`]), nothing is checked.

mod decimal;
mod flat;
mod nested;
mod number;
mod reason;
mod rules;
mod time;

use std::error::Error;
use std::fmt;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;

pub use self::reason::show;

/// What the two types alone decide about a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The types are equal.
    Same,
    /// Every value fits.
    Exact,
    /// It depends on the values.
    Checked,
    /// There is no such conversion.
    Refused,
}

/// The first value that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inexact {
    /// The row of the array that was to be converted.
    pub row: usize,
    /// The value, as a user would write it.
    pub value: String,
    /// Why it does not fit and what to do, as the rest of a sentence that begins with the value.
    pub reason: String,
}

impl fmt::Display for Inexact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.value, self.reason)
    }
}

impl Error for Inexact {}

/// How freely values are converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Only as what they are.
    Exact,
    /// As a user's `cast()` does.
    Cast,
}

/// What becomes of a value that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Miss {
    Refuse,
    Null,
}

/// Returns what the types decide about [`exact`].
///
/// ```
/// use arrow::datatypes::DataType;
/// use mill_frame::convert::{Verdict, verdict};
///
/// assert_eq!(verdict(&DataType::Int32, &DataType::Float64), Verdict::Exact);
/// assert_eq!(verdict(&DataType::Int64, &DataType::Float64), Verdict::Checked);
/// assert_eq!(verdict(&DataType::Utf8, &DataType::Float64), Verdict::Refused);
/// ```
pub fn verdict(from: &DataType, to: &DataType) -> Verdict {
    rules::verdict(from, to, Ask::Exact)
}

/// Returns what the types decide about [`cast`].
pub fn cast_verdict(from: &DataType, to: &DataType) -> Verdict {
    rules::verdict(from, to, Ask::Cast)
}

/// Returns why two types never convert, and what to do where that is known; for messages about [`Verdict::Refused`].
pub fn why_refused(from: &DataType, to: &DataType) -> Option<String> {
    rules::advice(from, to)
}

/// Converts a column whose values must be what was declared.
///
/// # Errors
/// The first value that is not exactly a value of the type.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Float64Array};
/// use arrow::datatypes::DataType;
/// use mill_frame::convert::exact;
///
/// let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.5]));
/// let refused = exact(&floats, &DataType::Int64).unwrap_err();
/// assert_eq!((refused.row, refused.value.as_str()), (1, "2.5"));
/// ```
pub fn exact(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Inexact> {
    nested::convert(array, to, Ask::Exact, Miss::Refuse)
}

/// As [`exact`], with null for each value that does not fit.
///
/// # Errors
/// When there is no such conversion at all.
pub fn exact_or_null(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Inexact> {
    nested::convert(array, to, Ask::Exact, Miss::Null)
}

/// Converts a column as a user's `cast()` does.
///
/// # Errors
/// The first value that does not fit.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
/// use arrow::datatypes::{DataType, TimeUnit, TimestampSecondType};
/// use mill_frame::convert::cast;
///
/// let before_1970: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1]));
/// let seconds = cast(&before_1970, &DataType::Timestamp(TimeUnit::Second, None)).unwrap();
/// assert_eq!(seconds.as_primitive::<TimestampSecondType>().value(0), -1);
/// ```
pub fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Inexact> {
    nested::convert(array, to, Ask::Cast, Miss::Refuse)
}

/// As [`cast`], with null for each value that does not fit.
///
/// # Errors
/// When there is no such conversion at all.
pub fn cast_or_null(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, Inexact> {
    nested::convert(array, to, Ask::Cast, Miss::Null)
}

#[cfg(test)]
mod tests;
