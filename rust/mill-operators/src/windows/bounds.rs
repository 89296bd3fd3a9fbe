//! The bounds of windows: as columns, and within the times that there are.

use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use mill_frame::text::record_json;
use mill_plan::type_name;
use mill_protocol::{Batch, Error, Outbox, Rejected, Result};

use super::Aligned;


/// The times, in microseconds, that bounds of this type can be; all where windows have no bounds in their results.
pub(super) fn times_of(bound_type: Option<&DataType>) -> RangeInclusive<i64> {
    match bound_type {
        Some(DataType::Timestamp(TimeUnit::Nanosecond, _)) => i64::MIN / 1000..=i64::MAX / 1000,
        _ => i64::MIN..=i64::MAX,
    }
}

/// The records whose windows do not reach beyond the times that there are; the others are rejected, since no window could hold
/// them. `reach` is how many microseconds windows reach before and after their records at most, and `bound_type` the type of their
/// bounds in results, if they have any.
pub(crate) fn within_reach(batch: Batch, reach: i64, bound_type: Option<&DataType>, out: &mut Outbox) -> Result<Batch> {
    let Some(times) = batch.times() else { return Ok(batch) };
    let all = times_of(bound_type);
    let within = all.start().saturating_add(reach)..=all.end().saturating_sub(reach);
    if times.iter().all(|time| within.contains(time)) {
        return Ok(batch);
    }
    let mut kept = Vec::with_capacity(times.len());
    for (record, time) in times.iter().enumerate() {
        if within.contains(time) {
            kept.push(record as u32);
            continue;
        }
        let error = match bound_type.filter(|_| all.end() < &i64::MAX) {
            Some(bound_type) => Error::data(format!(
                "the event time of the record, {time} microseconds from 1970, is so near the last {} that its window would reach beyond \
                 it; cast the event time to mill.Timestamp(\"us\") before event_time(), or filter such records out",
                type_name(bound_type)
            )),
            None => Error::data(format!(
                "the event time of the record, {time} microseconds from 1970, is so near the {} of all times that its window, or its \
                 allowed lateness, would reach beyond it; filter such records out before event_time()",
                if *time < 0 { "start" } else { "end" }
            )),
        };
        out.reject(Rejected::of(error, record_json(batch.data(), record)));
    }
    batch.take(&kept.into()).map_err(|error| Error::internal(error.to_string()))
}

/// A time in microseconds as a column of this type.
pub(crate) fn time_column(time_us: i64, rows: usize, data_type: &DataType) -> Result<ArrayRef> {
    column(Int64Array::from_value(in_unit(time_us, data_type)?, rows), data_type)
}

/// Times in microseconds as a column of this type.
fn times_column(times_us: Vec<i64>, data_type: &DataType) -> Result<ArrayRef> {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, _) => column(Int64Array::from(times_us), data_type),
        _ => time_values(times_us.into_iter().map(Some), data_type),
    }
}

/// `window_start` and `window_end` of windows with these ends. They come in `schema` after so many keys.
pub(crate) fn bound_columns(windows: &Aligned, ends: Vec<i64>, schema: &SchemaRef, keys: usize) -> Result<[ArrayRef; 2]> {
    let starts = ends.iter().map(|&end| windows.start_of(end)).collect();
    Ok([times_column(starts, schema.field(keys).data_type())?, times_column(ends, schema.field(keys + 1).data_type())?])
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
