//! Times from strings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{NaiveDate, Timelike};
use mill_frame::convert;
use mill_protocol::{Error, Result};

use super::super::arguments::{as_string, constant_bool, constant_str, first, mapped};
use super::strptime::Format;
use super::{unit_of, units};
use crate::compiled::bind::Typed;
use crate::compiled::value::{failed, inexact};
use crate::types::per_second;

fn format_of(name: &str, arg: Option<&Typed>) -> Result<Option<Format>> {
    let Some(text) = arg.map(|arg| constant_str(name, "format", arg)).transpose()?.flatten() else { return Ok(None) };
    Format::new(&text).map(Some).ok_or_else(|| {
        Error::plan(format!(
            "{name}(): {text:?} is no format; it takes the directives of Python's strptime, such as \"%Y-%m-%d %H:%M:%S\""
        ))
    })
}

/// Applies a reader to each string; what it cannot read is an error or null.
fn read<T>(
    texts: &StringArray,
    strict: bool,
    format: &Format,
    what: &str,
    f: impl Fn(&str) -> std::result::Result<T, Option<String>>,
) -> Result<Vec<Option<T>>> {
    let mut values = Vec::with_capacity(texts.len());
    for text in texts {
        values.push(match text.map(|text| (text, f(text))) {
            None => None,
            Some((_, Ok(value))) => Some(value),
            Some((text, Err(why))) if strict => {
                let why = why.unwrap_or_else(|| format!("is no {what} of the form {:?}", format.text));
                return Err(Error::data(format!("{text:?} {why}; strict=False makes it null")));
            }
            Some(_) => None,
        });
    }
    Ok(values)
}

/// Reads ISO 8601, as a cast does.
fn read_iso(array: &ArrayRef, to: &DataType, strict: bool) -> Result<ArrayRef> {
    match strict {
        true => convert::cast(array, to).map_err(|found| Error::data(format!("{found}; strict=False makes it null"))),
        false => convert::cast_or_null(array, to).map_err(inexact),
    }
}

/// `to_date(format=None, strict=True)`.
pub(super) fn to_date(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let format = format_of(name, args.get(1))?;
    let strict = constant_bool(name, "strict", args.get(2), true)?;
    let arg = as_string(name, first(args)?)?;
    let epoch = NaiveDate::default();
    let kernel = mapped(move |array| {
        let Some(format) = &format else { return read_iso(array, &DataType::Date32, strict) };
        let day = |text: &str| {
            let date = format.read(text).ok_or(None)?.date();
            i32::try_from(date.signed_duration_since(epoch).num_days()).map_err(|_| None)
        };
        Ok(Arc::new(Date32Array::from(read(array.as_string::<i32>(), strict, format, "date", day)?)) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Date32, text)
}

/// `to_datetime(format=None, time_unit="us", strict=True)`; a format with an offset returns UTC.
pub(super) fn to_datetime(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let format = format_of(name, args.get(1))?;
    let unit = args.get(2).map(|arg| constant_str(name, "unit", arg)).transpose()?.flatten();
    let unit = unit.map_or(Ok(TimeUnit::Microsecond), |unit| unit_of(name, &unit))?;
    let strict = constant_bool(name, "strict", args.get(3), true)?;
    let arg = as_string(name, first(args)?)?;
    let has_offset = format.as_ref().is_some_and(|format| format.has_offset);
    let data_type = DataType::Timestamp(unit, has_offset.then(|| "UTC".into()));
    let to = data_type.clone();
    let nanos_per_unit = (1_000_000_000 / per_second(unit)) as u32;
    let kernel = mapped(move |array| {
        let Some(format) = &format else { return read_iso(array, &to, strict) };
        let value = |text: &str| {
            let time = format.read(text).ok_or(None)?;
            if !time.nanosecond().is_multiple_of(nanos_per_unit) {
                return Err(Some("has a finer fraction of a second than time_unit=".to_owned() + unit_name(unit)));
            }
            units(time, unit).ok_or_else(|| Some(format!("is out of the range of {}", crate::types::type_name(&to))))
        };
        let values = read(array.as_string::<i32>(), strict, format, "timestamp", value)?;
        cast(&Int64Array::from(values), &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "\"s\" holds",
        TimeUnit::Millisecond => "\"ms\" holds",
        TimeUnit::Microsecond => "\"us\" holds",
        TimeUnit::Nanosecond => "\"ns\" holds",
    }
}
