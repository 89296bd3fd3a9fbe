//! Decimals with more digits than their type says.
//!
//! Nothing in Arrow's layout keeps a `decimal(38, 0)` from having 39 digits, and some libraries export such: the 128-bit
//! integers of DuckDB are one. Everything that goes by the type would print or compare them wrongly.

use arrow::array::{Array, ArrayRef, AsArray, make_array};
use arrow::datatypes::{DataType, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DecimalType};

use super::{children, plain_array, plain_type, type_name};

/// A decimal that its type does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digits {
    /// The row of the column.
    pub row: usize,
    /// The value with all its digits, and what the type holds.
    pub message: String,
}

/// The first decimal of a column, or of something within it, that has more digits than its type.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Decimal128Array};
/// use mill_frame::types::too_many_digits;
///
/// let column: ArrayRef = Arc::new(Decimal128Array::from(vec![99, 100]).with_precision_and_scale(2, 1)?);
/// let found = too_many_digits(&column).unwrap();
/// assert_eq!((found.row, found.message.as_str()), (1, "10.0 has 3 digits, and decimal[2, 1] holds 2"));
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
pub fn too_many_digits(column: &ArrayRef) -> Option<Digits> {
    // Nearly all columns are passed here, without a look at nulls and rows.
    if !has_decimals(column.data_type()) || !is_suspect(column) {
        return None;
    }
    match column.data_type() {
        DataType::Decimal32(precision, scale) => flat::<Decimal32Type>(column, *precision, *scale),
        DataType::Decimal64(precision, scale) => flat::<Decimal64Type>(column, *precision, *scale),
        DataType::Decimal128(precision, scale) => flat::<Decimal128Type>(column, *precision, *scale),
        DataType::Decimal256(precision, scale) => flat::<Decimal256Type>(column, *precision, *scale),
        DataType::RunEndEncoded(..) => too_many_digits(&plain_array(column, &plain_type(column.data_type())).ok()?),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let found: Vec<Option<Digits>> =
                (0..dictionary.values().len()).map(|place| too_many_digits(&dictionary.values().slice(place, 1))).collect();
            let keys = dictionary.normalized_keys();
            let of_row = |row: usize| Some(Digits { row, ..found[keys[row]].clone()? });
            (0..column.len()).filter(|&row| !column.is_null(row)).find_map(of_row)
        }
        // Of the others only elements that a row has count: what a null, or a slice, hides has no meaning.
        _ => (0..column.len()).find_map(|row| within(column, row).map(|found| Digits { row, ..found })),
    }
}

fn has_decimals(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..)
    ) || children(data_type).into_iter().any(has_decimals)
}

/// Whether any decimal is too long, be it one that no row has.
fn is_suspect(column: &ArrayRef) -> bool {
    fn any<T: DecimalType>(column: &ArrayRef, precision: u8) -> bool {
        column.as_primitive::<T>().values().iter().any(|&value| !T::is_valid_decimal_precision(value, precision))
    }
    match column.data_type() {
        DataType::Decimal32(precision, _) => any::<Decimal32Type>(column, *precision),
        DataType::Decimal64(precision, _) => any::<Decimal64Type>(column, *precision),
        DataType::Decimal128(precision, _) => any::<Decimal128Type>(column, *precision),
        DataType::Decimal256(precision, _) => any::<Decimal256Type>(column, *precision),
        _ => column.to_data().child_data().iter().any(|child| is_suspect(&make_array(child.clone()))),
    }
}

fn flat<T: DecimalType>(column: &ArrayRef, precision: u8, scale: i8) -> Option<Digits> {
    let column = column.as_primitive::<T>();
    let is_unfit = |value: T::Native| !T::is_valid_decimal_precision(value, precision);
    let row = (0..column.len()).find(|&row| !column.is_null(row) && is_unfit(column.value(row)))?;
    let digits = format!("{:?}", column.value(row));
    let count = digits.trim_start_matches('-').len();
    let value = pointed(&digits, scale);
    let message = format!("{value} has {count} digits, and {} holds {precision}", type_name(column.data_type()));
    Some(Digits { row, message })
}

/// Digits with the point that a scale puts among them.
fn pointed(digits: &str, scale: i8) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(scale) => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            format!("{sign}{whole}.{fraction}")
        }
        Err(_) => format!("{sign}{digits}e{}", -i16::from(scale)),
    }
}

/// The first of the decimals within a row.
fn within(column: &ArrayRef, row: usize) -> Option<Digits> {
    if column.is_null(row) {
        return None;
    }
    match column.data_type() {
        DataType::List(_) => too_many_digits(&column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => too_many_digits(&column.as_list::<i64>().value(row)),
        DataType::ListView(_) => too_many_digits(&column.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => too_many_digits(&column.as_list_view::<i64>().value(row)),
        DataType::FixedSizeList(..) => too_many_digits(&column.as_fixed_size_list().value(row)),
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            entries.columns().iter().find_map(too_many_digits)
        }
        DataType::Struct(_) => column.as_struct().columns().iter().find_map(|part| too_many_digits(&part.slice(row, 1))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
