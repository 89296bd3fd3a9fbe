//! From a time column to microseconds, and which records lie behind.

use arrow::array::types::{
    Date32Type, Date64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, TimeUnit};
use mill_frame::text::record_json;
use mill_plan::type_name;
use mill_protocol::{Batch, Error, Outbox, Rejected, Result};


const US_PER_DAY: i64 = 86_400_000_000;

/// Refuses a column that holds no time.
pub(super) fn check(field: &Field) -> Result<()> {
    match field.data_type() {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => Ok(()),
        other => Err(Error::schema(format!("event_time() of column {:?}, which is {}", field.name(), type_name(other)))),
    }
}

/// The batch with event times; records that have none are rejected. `None` if no record is left.
pub(super) fn with_times(batch: Batch, column: usize, name: &str, out: &mut Outbox) -> Result<Option<Batch>> {
    let values = batch.column(column);
    let (times, valid) = microseconds(values, name)?;
    let Some(valid) = valid else {
        return Ok((batch.rows() > 0).then(|| batch.with_times(Some(times))));
    };
    for row in (0..batch.rows()).filter(|&row| !valid.value(row)) {
        let error = if values.is_null(row) {
            format!("the event time in column {name:?} is null; filter such records out before event_time()")
        } else {
            format!("the event time in column {name:?} is beyond what 64 bits of microseconds hold")
        };
        out.reject(Rejected::new(error, record_json(batch.data(), row)));
    }
    let kept = batch
        .with_times(Some(times))
        .filter(&BooleanArray::new(valid, None))
        .map_err(|error| Error::internal(format!("event_time: {error}")))?;
    Ok((kept.rows() > 0).then_some(kept))
}

/// The records that have a watermark in this column or none; those with one that is beyond all times are rejected. `None` if
/// no record is left.
pub(super) fn with_watermarks(batch: Batch, column: usize, name: &str, out: &mut Outbox) -> Result<Option<Batch>> {
    let values = batch.column(column);
    let (_, Some(valid)) = microseconds(values, name)? else { return Ok(Some(batch)) };
    let is_beyond = |row: usize| !valid.value(row) && values.is_valid(row);
    if !(0..batch.rows()).any(is_beyond) {
        return Ok(Some(batch));
    }
    for row in (0..batch.rows()).filter(|&row| is_beyond(row)) {
        let error = format!("the watermark in column {name:?} is beyond what 64 bits of microseconds hold");
        out.reject(Rejected::new(error, record_json(batch.data(), row)));
    }
    let is_kept = BooleanBuffer::collect_bool(batch.rows(), |row| !is_beyond(row));
    let kept = batch.filter(&BooleanArray::new(is_kept, None)).map_err(|error| Error::internal(format!("event_time: {error}")))?;
    Ok((kept.rows() > 0).then_some(kept))
}

/// Microseconds since the epoch, and which of them are valid if not all are.
///
/// # Errors
/// When the column holds no times.
pub(super) fn microseconds(values: &ArrayRef, name: &str) -> Result<(ScalarBuffer<i64>, Option<BooleanBuffer>)> {
    let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.inner().clone());
    Ok(match values.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (values.as_primitive::<TimestampMicrosecondType>().values().clone(), nulls)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let values = values.as_primitive::<TimestampNanosecondType>().values();
            (values.iter().map(|ns| ns.div_euclid(1000)).collect(), nulls)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            scaled(values.as_primitive::<TimestampMillisecondType>().values(), 1000, nulls)
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            scaled(values.as_primitive::<TimestampSecondType>().values(), 1_000_000, nulls)
        }
        DataType::Date64 => scaled(values.as_primitive::<Date64Type>().values(), 1000, nulls),
        DataType::Date32 => {
            let days: Vec<i64> = values.as_primitive::<Date32Type>().values().iter().map(|&days| i64::from(days)).collect();
            scaled(&days, US_PER_DAY, nulls)
        }
        other => return Err(Error::schema(format!("{name} has {}, and event times and watermarks are times", type_name(other)))),
    })
}

/// Values in a coarser unit; one that does not fit becomes invalid.
fn scaled(
    values: &[i64],
    factor: i64,
    nulls: Option<BooleanBuffer>,
) -> (ScalarBuffer<i64>, Option<BooleanBuffer>) {
    let limit = i64::MAX / factor;
    let scaled = values.iter().map(|&value| value.wrapping_mul(factor)).collect();
    if values.iter().all(|value| (-limit..=limit).contains(value)) {
        return (scaled, nulls);
    }
    let fits = BooleanBuffer::collect_bool(values.len(), |row| (-limit..=limit).contains(&values[row]));
    (scaled, Some(match nulls {
        Some(nulls) => &nulls & &fits,
        None => fits,
    }))
}

/// The latest time including these records, and the split's watermark in front of each if any is behind it.
pub(super) fn behind(times: &[i64], latest: Option<i64>, disorder: i64) -> (i64, Option<ScalarBuffer<i64>>) {
    let before = latest.unwrap_or(i64::MIN);
    let (least, greatest) = least_and_greatest(times);
    let after = before.max(greatest);
    // No record can be behind a watermark that even the last one reaches no further than the earliest time.
    if least >= after.saturating_sub(disorder) || !is_any_behind(times, before, disorder) {
        return (after, None);
    }
    let mut latest = before;
    let watermarks = times.iter().map(|&time| {
        let watermark = latest.saturating_sub(disorder);
        latest = latest.max(time);
        watermark
    });
    (after, Some(watermarks.collect()))
}

fn least_and_greatest(times: &[i64]) -> (i64, i64) {
    times.iter().fold((i64::MAX, i64::MIN), |(least, greatest), &time| (least.min(time), greatest.max(time)))
}

fn is_any_behind(times: &[i64], before: i64, disorder: i64) -> bool {
    let mut latest = before;
    let mut is_any = false;
    for &time in times {
        is_any |= time < latest.saturating_sub(disorder);
        latest = latest.max(time);
    }
    is_any
}
