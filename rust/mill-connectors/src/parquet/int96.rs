//! `INT96` times, exactly.
//!
//! Such a time is a day and the nanoseconds within it, which is more than 64 bits of any unit hold. The library converts it
//! to a unit by arithmetic that wraps around: to microseconds it does so exactly in any year people write down, but drops
//! the last three digits; to nanoseconds it has the digits, but wraps around before 1677 and after 2262. Read both ways,
//! the two together are the time:
//!
//! ```text
//!   rest = nanos - micros * 1000      modulo 2^64, where the wrapping cancels out: 0 ..= 999
//!   time = micros * 1000 + rest       in nanoseconds, if it fits 64 bits
//!   time = micros                     in microseconds, if rest is 0
//! ```

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, ListArray, MapArray, PrimitiveArray, StructArray,
};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType};
use arrow::error::ArrowError;

/// What a time that has no exact value in the unit asked for is.
pub(super) struct Misfit {
    /// In microseconds since 1970.
    pub(super) micros: i64,
    /// In words.
    pub(super) reason: &'static str,
}

/// Why a column of times could not be put together.
pub(super) enum Failure {
    Misfit(Misfit),
    Arrow(ArrowError),
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Failure {
        Failure::Arrow(error)
    }
}

/// The column out of its two readings: in nanoseconds where `to` asks for them, else in microseconds.
pub(super) fn settle(micros: &ArrayRef, nanos: &ArrayRef, to: &DataType) -> Result<ArrayRef, Failure> {
    let within = |data_type: &DataType| match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => {
            item.data_type().clone()
        }
        other => other.clone(),
    };
    Ok(match (micros.data_type(), nanos.data_type()) {
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(TimeUnit::Nanosecond, _)) => {
            let is_nanos = matches!(to, DataType::Timestamp(TimeUnit::Nanosecond, _));
            check(micros.as_primitive(), nanos.as_primitive(), is_nanos)?;
            Arc::clone(if is_nanos { nanos } else { micros })
        }
        (DataType::List(_), DataType::List(_)) => {
            let (micros, nanos) = (micros.as_list::<i32>(), nanos.as_list::<i32>());
            let values = settle(micros.values(), nanos.values(), &within(to))?;
            let item = Arc::new(element(micros.data_type()).with_data_type(values.data_type().clone()));
            Arc::new(ListArray::try_new(item, micros.offsets().clone(), values, micros.nulls().cloned())?)
        }
        (DataType::FixedSizeList(_, size), DataType::FixedSizeList(..)) => {
            let (micros, nanos) = (micros.as_fixed_size_list(), nanos.as_fixed_size_list());
            let values = settle(micros.values(), nanos.values(), &within(to))?;
            let item = Arc::new(element(micros.data_type()).with_data_type(values.data_type().clone()));
            let nulls = micros.nulls().cloned();
            Arc::new(FixedSizeListArray::try_new_with_length(item, *size, values, nulls, micros.len())?)
        }
        (DataType::Map(_, is_sorted), DataType::Map(..)) => {
            let (micros, nanos) = (micros.as_map(), nanos.as_map());
            let entries = |map: &MapArray| Arc::new(map.entries().clone()) as ArrayRef;
            let values = settle(&entries(micros), &entries(nanos), &within(to))?;
            let field = Arc::new(element(micros.data_type()).with_data_type(values.data_type().clone()));
            let (offsets, nulls) = (micros.offsets().clone(), micros.nulls().cloned());
            Arc::new(MapArray::try_new(field, offsets, values.as_struct().clone(), nulls, *is_sorted)?)
        }
        (DataType::Struct(fields), DataType::Struct(_)) => {
            let (micros, nanos) = (micros.as_struct(), nanos.as_struct());
            let mut columns = Vec::with_capacity(fields.len());
            let mut settled = Vec::with_capacity(fields.len());
            for (index, field) in fields.iter().enumerate() {
                let to = match to {
                    DataType::Struct(parts) => parts.find(field.name()).map(|(_, part)| part.data_type()),
                    _ => None,
                };
                let column = settle(micros.column(index), nanos.column(index), to.unwrap_or(&DataType::Null))?;
                settled.push(field.as_ref().clone().with_data_type(column.data_type().clone()));
                columns.push(column);
            }
            Arc::new(StructArray::try_new_with_length(settled.into(), columns, micros.nulls().cloned(), micros.len())?)
        }
        // Not a column of times.
        _ => Arc::clone(micros),
    })
}

fn element(data_type: &DataType) -> arrow::datatypes::Field {
    match data_type {
        DataType::List(item) | DataType::FixedSizeList(item, _) | DataType::Map(item, _) => item.as_ref().clone(),
        other => arrow::datatypes::Field::new("item", other.clone(), true),
    }
}

/// Refuses the first time that the unit asked for does not hold exactly.
fn check(
    micros: &PrimitiveArray<TimestampMicrosecondType>,
    nanos: &PrimitiveArray<TimestampNanosecondType>,
    is_nanos: bool,
) -> Result<(), Failure> {
    let fits = |micros: i64, nanos: i64| match is_nanos {
        true => nanos.div_euclid(1000) == micros,
        false => nanos == micros.wrapping_mul(1000),
    };
    let mut are_all = true;
    for (&micros, &nanos) in micros.values().iter().zip(nanos.values()) {
        are_all &= fits(micros, nanos);
    }
    if are_all {
        return Ok(());
    }
    // What a null has for a value does not count.
    let misfit = (0..micros.len()).find(|&i| micros.is_valid(i) && !fits(micros.value(i), nanos.value(i)));
    match misfit {
        None => Ok(()),
        Some(place) => Err(Failure::Misfit(Misfit {
            micros: micros.value(place),
            reason: match is_nanos {
                true => "is outside the years 1677 to 2262, which timestamp[ns] holds; read the column with schema= as \
                         mill.Timestamp(\"us\")",
                false => "has nanoseconds, which are lost in a coarser unit; read the column with schema= as \
                          mill.Timestamp(\"ns\")",
            },
        })),
    }
}
