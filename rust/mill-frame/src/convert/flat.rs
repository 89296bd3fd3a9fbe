//! Conversions of arrays that hold one value a row: which loop does which pair of types.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options, nullif};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;

use super::rules::{Class, class, per_second, unit};
use super::{Ask, decimal, number, time};
use crate::text::{Cell, TextColumn, read};

pub(super) const LENIENT: CastOptions<'static> = CastOptions { safe: true, format_options: FormatOptions::new() };

pub(super) type Converted = Result<ArrayRef, ArrowError>;

/// Converted values, null where one does not fit.
pub(super) struct Flat {
    pub(super) values: ArrayRef,
    /// The first row that does not fit and why, if that is known already.
    pub(super) misfit: Option<(usize, String)>,
}

/// Converts by Arrow's kernel, with null where a value does not fit.
pub(super) fn kernel(array: &ArrayRef, to: &DataType) -> Converted {
    if array.data_type() == to { Ok(Arc::clone(array)) } else { cast_with_options(array, to, &LENIENT) }
}

/// The same values and nulls, and null where the mask is true.
pub(super) fn null_where(values: &ArrayRef, mask: &BooleanArray) -> Converted {
    if mask.true_count() == 0 { Ok(Arc::clone(values)) } else { nullif(values, mask) }
}

/// Converts; the rules have admitted the pair of types.
pub(super) fn convert(array: &ArrayRef, to: &DataType, ask: Ask) -> Result<Flat, ArrowError> {
    let from = array.data_type();
    match (class(from), class(to)) {
        (Class::Text, Class::Text | Class::Bytes) | (Class::Bytes, Class::Bytes) => {}
        (Class::Text, _) => return parse(array, to),
        (class, Class::Text) if class != Class::Bytes => {
            return Ok(Flat { values: format(array, to)?, misfit: None });
        }
        _ => {}
    }
    Ok(Flat { values: values(array, to, ask)?, misfit: None })
}

fn values(array: &ArrayRef, to: &DataType, ask: Ask) -> Converted {
    use Class::{Bool, Bytes, Date, Decimal, Duration, Float, Int, Naive, Text, Time, Zoned};
    let from = array.data_type();
    match (class(from), class(to)) {
        (Int, Float) => number::int_to_float(array, to),
        (Float, Int) => number::float_to_int(array, to),
        (Float, Float) => number::float_to_float(array, to),
        (Int, Decimal) => decimal::rescale(&kernel(array, &decimal::of_integers(from))?, to),
        (Decimal, Decimal) => decimal::rescale(array, to),
        (Decimal, Int) => decimal::to_int(array, to),
        (Decimal, Float) => decimal::to_float(array, to),
        (Float, Decimal) => decimal::from_float(array, to),
        (Decimal, Bool) => decimal::is_not_zero(array),
        (Bool, Decimal) => values(&kernel(array, &DataType::Int8)?, to, ask),
        (Date, Date) => time::date_to_date(array, to, ask),
        (Date, Naive | Zoned) => time::date_to_timestamp(array, to),
        (Naive | Zoned, Date) => time::timestamp_to_date(array, to, ask),
        (Naive | Zoned, Time) => time::time_of_day(array, to),
        (Naive | Zoned, Naive | Zoned) | (Time, Time) | (Duration, Duration) => time::rescale(array, to, ask),
        // Dates count days, whichever way they are stored.
        (Int | Float | Decimal, Date) => {
            let days = values(array, &DataType::Int32, ask)?;
            kernel(&kernel(&days, &DataType::Date32)?, to)
        }
        (Date, Int | Float | Decimal) => {
            let days = time::date_to_date(array, &DataType::Date32, ask)?;
            values(&kernel(&days, &DataType::Int32)?, to, ask)
        }
        (Int | Float | Decimal, Time) => {
            let units = values(array, &DataType::Int64, ask)?;
            let day = 86_400 * unit(to).map_or(1, per_second);
            let units = units.as_primitive::<Int64Type>().unary_opt::<_, Int64Type>(|units| (0..day).contains(&units).then_some(units));
            time::from_units(&units, to)
        }
        (Int | Float | Decimal, Naive | Zoned | Duration) => {
            time::from_units(values(array, &DataType::Int64, ask)?.as_primitive(), to)
        }
        (Time | Naive | Zoned | Duration, Int | Float | Decimal) => {
            let units: ArrayRef = Arc::new(time::units(array)?);
            if to == &DataType::Int64 { Ok(units) } else { values(&units, to, ask) }
        }
        (Text | Bytes, Text | Bytes) => text_or_bytes(array, to),
        _ => kernel(array, to),
    }
}

/// Text and bytes in another layout; bytes that are no UTF-8 are no text.
fn text_or_bytes(array: &ArrayRef, to: &DataType) -> Converted {
    match (array.data_type(), to) {
        (from, DataType::FixedSizeBinary(_)) if from != &DataType::Binary => {
            kernel(&kernel(array, &DataType::Binary)?, to)
        }
        (DataType::FixedSizeBinary(_), to) if class(to) == Class::Text => kernel(&kernel(array, &DataType::Binary)?, to),
        _ => kernel(array, to),
    }
}

/// Values as text, in the form that files have.
fn format(array: &ArrayRef, to: &DataType) -> Converted {
    let Some(column) = TextColumn::new(array)? else { return kernel(array, to) };
    let mut built = StringBuilder::with_capacity(array.len(), array.len() * 8);
    let mut text = String::new();
    for row in 0..array.len() {
        if column.is_null(row) {
            built.append_null();
        } else {
            text.clear();
            column.push(row, &mut text);
            built.append_value(&text);
        }
    }
    let texts: ArrayRef = Arc::new(built.finish());
    kernel(&texts, to)
}

/// Values of text, in any form that files may have.
fn parse(array: &ArrayRef, to: &DataType) -> Result<Flat, ArrowError> {
    let texts = kernel(array, &DataType::Utf8)?;
    let texts = texts.as_string::<i32>();
    let cells = texts.iter().map(|text| text.map_or(Cell::Null, |text| Cell::Text(text.as_bytes())));
    let mut misfit = None;
    let values = read(cells, texts.len(), to, |row, _, why| {
        misfit.get_or_insert_with(|| (row, why.reason(to)));
    });
    // The reader takes text without anything in it for no value; a cast has no reason to.
    let is_empty = |row: usize| texts.is_valid(row) && texts.value(row).trim_ascii().is_empty();
    if let Some(row) = (0..texts.len()).find(|row| is_empty(*row))
        && misfit.as_ref().is_none_or(|(first, _)| row < *first)
    {
        misfit = Some((row, crate::text::Misfit::Form.reason(to)));
    }
    Ok(Flat { values, misfit })
}
