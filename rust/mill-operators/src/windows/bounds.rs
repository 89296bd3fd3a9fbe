//! The bounds of windows as columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use mill_plan::type_name;
use mill_protocol::{Error, Result};

/// A time in microseconds as a column of this type.
pub(crate) fn time_column(time_us: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    column(Int64Array::from_value(in_unit(time_us, data_type)?, rows), data_type)
}

/// Times in microseconds as a column of this type; `None` is null.
pub(crate) fn time_values(times_us: impl Iterator<Item = Option<i64>>, data_type: &DataType) -> Result<ArrayRef> {
    let times = times_us.map(|time| time.map(|time| in_unit(time, data_type)).transpose());
    column(times.collect::<Result<Int64Array>>()?, data_type)
}

fn column(times: Int64Array, data_type: &DataType) -> Result<ArrayRef> {
    let times: ArrayRef = Arc::new(times);
    cast(&times, data_type).map_err(|error| Error::internal(error.to_string()))
}

fn in_unit(time_us: i64, data_type: &DataType) -> Result<i64> {
    let time = match data_type {
        DataType::Timestamp(TimeUnit::Second, _) => Some(time_us.div_euclid(1_000_000)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(time_us.div_euclid(1000)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => time_us.checked_mul(1000),
        _ => Some(time_us),
    };
    time.ok_or_else(|| {
        Error::data(format!(
            "a window that begins or ends {time_us} microseconds from 1970 is out of range for {}; cast the event time to \
             mill.Timestamp(\"us\") before event_time()",
            type_name(data_type)
        ))
    })
}
