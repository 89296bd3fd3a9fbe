//! Values that Polars would change: checked before a table is handed over.
//!
//! Polars counts times and durations in milliseconds at most, and converts seconds without a look at overflow. It has
//! decimals of 38 digits with a scale from zero, and zones with a name.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::datatypes::{DataType, DurationSecondType, Field, Int64Type, Schema, TimeUnit, TimestampSecondType};
use mill_frame::convert::show;
use mill_frame::types::children;
use pyo3::prelude::*;

use crate::error::{DataError, SchemaError};
use crate::types::type_name;

/// How many milliseconds a second has.
const MILLISECONDS: i64 = 1_000;

/// Refuses the first column that Polars does not hold as it is.
///
/// # Errors
/// A `SchemaError` for a type that Polars does not have, a `DataError` for a value; both name the column.
pub fn check(schema: &Schema, batches: &[RecordBatch]) -> PyResult<()> {
    for (place, field) in schema.fields().iter().enumerate() {
        if let Some(reason) = unknown_type(field.data_type()) {
            let (name, kind) = (field.name(), type_name(field));
            return Err(SchemaError::new_err(format!("to_polars(): column {name:?} is {kind}, and {reason}")));
        }
        for batch in batches {
            check_values(field, batch.column(place))?;
        }
    }
    Ok(())
}

/// Why Polars has no such type, and what to do.
fn unknown_type(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Decimal256(..) => {
            Some("Polars has decimals of up to 38 digits: cast the column to a decimal with fewer, or to str")
        }
        DataType::Decimal32(_, scale) | DataType::Decimal64(_, scale) | DataType::Decimal128(_, scale) if *scale < 0 => {
            Some("Polars has no decimals with a negative scale: cast the column to a decimal with scale 0, or to str")
        }
        DataType::Timestamp(_, Some(zone)) if zone.starts_with(['+', '-']) => {
            Some("Polars has zones with a name alone: use .dt.convert_time_zone(\"UTC\") before")
        }
        other => children(other).into_iter().find_map(unknown_type),
    }
}

fn check_values(field: &Field, column: &ArrayRef) -> PyResult<()> {
    let Some(value) = beyond_milliseconds(column) else { return Ok(()) };
    Err(DataError::new_err(format!(
        "to_polars(): column {:?} holds {value}, which is out of range in milliseconds, the coarsest unit \
         that Polars has: leave the record out, or cast the column to int",
        field.name()
    )))
}

/// The first number of seconds, in the column or within it, that milliseconds do not reach.
fn beyond_milliseconds(array: &ArrayRef) -> Option<String> {
    let seconds = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().reinterpret_cast::<Int64Type>(),
        DataType::Duration(TimeUnit::Second) => array.as_primitive::<DurationSecondType>().reinterpret_cast::<Int64Type>(),
        _ => return array.to_data().child_data().iter().find_map(|child| beyond_milliseconds(&make_array(child.clone()))),
    };
    let is_beyond = |seconds: i64| seconds.checked_mul(MILLISECONDS).is_none();
    let row = (0..seconds.len()).find(|&row| !seconds.is_null(row) && is_beyond(seconds.value(row)))?;
    Some(show(array, row))
}
