//! Times from strings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::format::{Item, StrftimeItems};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use mill_frame::convert;
use mill_protocol::{Error, Result};

use super::super::arguments::{as_string, constant_bool, constant_str, first, mapped};
use super::{unit_of, units};
use crate::compiled::bind::Typed;
use crate::compiled::value::{failed, inexact};

fn format_of(name: &str, arg: Option<&Typed>) -> Result<Option<String>> {
    let format = arg.map(|arg| constant_str(name, "format", arg)).transpose()?.flatten().map(|format| python_format(&format, true));
    match format {
        Some(format) if StrftimeItems::new(&format).any(|item| item == Item::Error) => Err(Error::plan(format!(
            "{name}(): {format:?} is no format such as \"%Y-%m-%d %H:%M:%S\""
        ))),
        other => Ok(other),
    }
}

/// A format as Chrono has it: Python's `%f` is a fraction of a second with six digits; after a point, any number of digits
/// is read.
pub(super) fn python_format(format: &str, is_read: bool) -> String {
    let mut out = String::with_capacity(format.len() + 2);
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        let (before, directive) = rest.split_at(at);
        out.push_str(before);
        let length = 1 + directive[1..].chars().next().map_or(0, char::len_utf8);
        let (directive, after) = directive.split_at(length);
        match (directive, is_read && out.ends_with('.')) {
            ("%f", true) => {
                out.pop();
                out.push_str("%.f");
            }
            ("%f", false) => out.push_str("%6f"),
            _ => out.push_str(directive),
        }
        rest = after;
    }
    out + rest
}

fn unreadable(text: &str, what: &str, format: Option<&str>) -> Error {
    let as_format = format.map_or_else(|| " in ISO 8601".to_owned(), |format| format!(" of the form {format:?}"));
    Error::data(format!("{text:?} is no {what}{as_format}; strict=False makes it null"))
}

/// Applies a reader to each string; what it cannot read is an error or null.
fn read<T>(texts: &StringArray, strict: bool, f: impl Fn(&str) -> Option<T>, what: &str, format: Option<&str>) -> Result<Vec<Option<T>>> {
    texts
        .iter()
        .map(|text| match text.map(|text| (text, f(text))) {
            None => Ok(None),
            Some((text, None)) if strict => Err(unreadable(text, what, format)),
            Some((_, found)) => Ok(found),
        })
        .collect()
}

/// Reads ISO 8601 as every reader does.
fn read_iso(array: &ArrayRef, to: &DataType, strict: bool, what: &str) -> Result<ArrayRef> {
    let result = convert::cast_or_null(array, to).map_err(inexact)?;
    if strict && result.null_count() > array.null_count() {
        let texts = array.as_string::<i32>();
        let bad = (0..texts.len()).find(|&row| texts.is_valid(row) && result.is_null(row));
        return Err(unreadable(bad.map_or("", |row| texts.value(row)), what, None));
    }
    Ok(result)
}

/// `to_date(format=None, strict=True)`.
pub(super) fn to_date(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let format = format_of(name, args.get(1))?;
    let strict = constant_bool(name, "strict", args.get(2), true)?;
    let arg = as_string(name, first(args)?)?;
    let epoch = NaiveDate::default();
    let kernel = mapped(move |array| {
        let Some(format) = &format else { return read_iso(array, &DataType::Date32, strict, "date") };
        let day = |text: &str| {
            let date = NaiveDate::parse_from_str(text, format)
                .ok()
                .or_else(|| NaiveDateTime::parse_from_str(text, format).ok().map(|time| time.date()))?;
            i32::try_from(date.signed_duration_since(epoch).num_days()).ok()
        };
        let days = read(array.as_string::<i32>(), strict, day, "date", Some(format))?;
        Ok(Arc::new(Date32Array::from(days)) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Date32, text)
}

/// `to_datetime(format=None, time_unit="us", strict=True)`; a format with an offset gives UTC.
pub(super) fn to_datetime(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let format = format_of(name, args.get(1))?;
    let unit = args.get(2).map(|arg| constant_str(name, "unit", arg)).transpose()?.flatten();
    let unit = unit.map_or(Ok(TimeUnit::Microsecond), |unit| unit_of(name, &unit))?;
    let strict = constant_bool(name, "strict", args.get(3), true)?;
    let arg = as_string(name, first(args)?)?;
    let has_offset = format.as_deref().is_some_and(|f| ["%z", "%:z", "%::z", "%#z", "%+"].iter().any(|z| f.contains(z)));
    let data_type = DataType::Timestamp(unit, has_offset.then(|| "UTC".into()));
    let to = data_type.clone();
    let kernel = mapped(move |array| {
        let Some(format) = &format else { return read_iso(array, &to, strict, "timestamp") };
        let value = |text: &str| {
            let time = if has_offset {
                DateTime::parse_from_str(text, format).ok()?.naive_utc()
            } else {
                match NaiveDateTime::parse_from_str(text, format) {
                    Ok(time) => time,
                    // A format without a time of day means midnight.
                    Err(_) => NaiveDate::parse_from_str(text, format).ok()?.and_hms_opt(0, 0, 0)?,
                }
            };
            units(time, unit)
        };
        let values = read(array.as_string::<i32>(), strict, value, "timestamp", Some(format))?;
        cast(&Int64Array::from(values), &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}
