//! Refusals in words.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::rules::{Class, advice, class, per_second, unit, verdict};
use super::{Ask, Verdict};
use crate::text::TextColumn;
use crate::types::type_name;

/// How many characters of a value a message shows.
const SHOWN_MAX: usize = 80;

/// Returns a value as a user would write it, cut where it is long.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, StringArray};
///
/// let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a\tb"), None]));
/// assert_eq!(mill_frame::convert::show(&texts, 0), r#""a\tb""#);
/// assert_eq!(mill_frame::convert::show(&texts, 1), "None");
/// ```
pub fn show(array: &ArrayRef, row: usize) -> String {
    let one = array.slice(row, 1);
    if one.logical_nulls().is_some_and(|nulls| nulls.is_null(0)) || one.data_type() == &DataType::Null {
        return "None".to_owned();
    }
    let is_text = matches!(class(one.data_type()), Class::Text)
        || matches!(one.data_type(), DataType::Dictionary(_, values) if class(values) == Class::Text);
    let text = match TextColumn::new(&one) {
        Ok(Some(column)) => {
            let mut text = String::new();
            column.push(0, &mut text);
            text
        }
        _ => nested(&one),
    };
    let text = if is_text { format!("{text:?}") } else { text };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The one value of an array that has no form as text of its own.
fn nested(one: &ArrayRef) -> String {
    let all = |values: &ArrayRef| {
        let shown: Vec<String> = (0..values.len().min(SHOWN_MAX)).map(|row| show(values, row)).collect();
        shown.join(", ")
    };
    match one.data_type() {
        DataType::List(_) => format!("[{}]", all(&one.as_list::<i32>().value(0))),
        DataType::LargeList(_) => format!("[{}]", all(&one.as_list::<i64>().value(0))),
        DataType::FixedSizeList(..) => format!("[{}]", all(&one.as_fixed_size_list().value(0))),
        DataType::Struct(fields) => {
            let values = fields.iter().zip(one.as_struct().columns());
            let shown: Vec<String> = values.map(|(field, column)| format!("{}: {}", field.name(), show(column, 0))).collect();
            format!("{{{}}}", shown.join(", "))
        }
        _ => {
            let options = FormatOptions::new().with_display_error(false).with_null("None");
            let shown = ArrayFormatter::try_new(one, &options).ok().and_then(|all| all.value(0).try_to_string().ok());
            shown.unwrap_or_else(|| format!("a value of {}", type_name(one.data_type())))
        }
    }
}

/// Why there is no conversion, as the end of a sentence that begins with a value.
pub(super) fn refused(from: &DataType, to: &DataType, ask: Ask) -> String {
    let hint = match advice(from, to) {
        Some(advice) => format!(": {advice}"),
        None if ask == Ask::Exact && verdict(from, to, Ask::Cast) != Verdict::Refused => ": convert it with cast()".to_owned(),
        None => String::new(),
    };
    format!("is {} and not {}{hint}", type_name(from), type_name(to))
}

/// Why a value does not fit, as the end of a sentence that begins with it.
pub(super) fn misfit(array: &ArrayRef, row: usize, to: &DataType, ask: Ask) -> String {
    use Class::{Bytes, Date, Decimal, Duration, Float, Int, Naive, Text, Time, Zoned};
    let from = array.data_type();
    let name = type_name(to);
    let out_of_range = || match range(to) {
        Some(range) => format!("is out of the range of {name}, {range}"),
        None => format!("is out of the range of {name}"),
    };
    match (class(from), class(to)) {
        (Float, Int | Date | Time | Naive | Zoned | Duration) => match float(array, row) {
            value if !value.is_finite() => {
                format!("is not a whole number, which {name} needs: fill_nan() or filter() it first")
            }
            value if value.fract() != 0.0 => {
                format!("has a fraction, which {name} cannot hold: use floor(), round() or trunc() first")
            }
            _ => out_of_range(),
        },
        (Decimal, Int) => {
            let whole = super::decimal::to_int(&array.slice(row, 1), &DataType::Decimal128(38, 0));
            match whole.is_ok_and(|whole| whole.null_count() == 0) {
                true => out_of_range(),
                false => format!("has a fraction, which {name} cannot hold: use floor(), round() or trunc() first"),
            }
        }
        (Int, Float) => format!("has more digits than {name} holds exactly"),
        (Float, Decimal) if !float(array, row).is_finite() => format!("is no decimal number, which {name} needs"),
        (Float | Decimal | Int, Decimal) => {
            format!("has more digits than {name} holds: use round() first, or a decimal with more digits")
        }
        (Decimal | Float, Float) => format!("is out of the range of {name}"),
        (Bytes, Text) => "is not text in UTF-8".to_owned(),
        (Bytes | Text, Bytes) => format!("has another length than {name} has"),
        (Naive | Zoned, Date) if ask == Ask::Exact => {
            "has a time of day, which a date cannot hold: use dt.date(), or dt.truncate(\"1d\")".to_owned()
        }
        (Naive | Zoned | Time | Duration | Date, _) if ask == Ask::Exact && is_coarser(from, to) => format!(
            "is finer than {name} holds: use cast() to round it down, or declare the finer unit"
        ),
        _ => out_of_range(),
    }
}

fn is_coarser(from: &DataType, to: &DataType) -> bool {
    match (unit(from), unit(to)) {
        (Some(a), Some(b)) => per_second(b) < per_second(a),
        _ => matches!((from, to), (DataType::Date64, DataType::Date32)),
    }
}

fn float(array: &ArrayRef, row: usize) -> f64 {
    use arrow::datatypes::Float64Type;
    match super::flat::kernel(&array.slice(row, 1), &DataType::Float64) {
        Ok(value) => value.as_primitive::<Float64Type>().value(0),
        Err(_) => f64::NAN,
    }
}

/// What an integer type holds.
fn range(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Int8 => format!("{} to {}", i8::MIN, i8::MAX),
        DataType::Int16 => format!("{} to {}", i16::MIN, i16::MAX),
        DataType::Int32 => format!("{} to {}", i32::MIN, i32::MAX),
        DataType::Int64 => format!("{} to {}", i64::MIN, i64::MAX),
        DataType::UInt8 => format!("0 to {}", u8::MAX),
        DataType::UInt16 => format!("0 to {}", u16::MAX),
        DataType::UInt32 => format!("0 to {}", u32::MAX),
        DataType::UInt64 => format!("0 to {}", u64::MAX),
        _ => return None,
    })
}
