//! Times as text, as Python's `strftime` writes them.
//!
//! Directives are chrono's but for those that mean something else in Python: `%f` is microseconds in six digits, `%Z` the
//! name of the zone that is in use at the time, and `%z` the offset with its seconds, which zones had before about 1900.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::StringBuilder;
use arrow::datatypes::DataType;
use chrono::format::{Item, StrftimeItems};
use chrono::{NaiveDateTime, TimeZone};
use mill_protocol::{Error, Result};

use super::super::arguments::{constant_str, first, mapped};
use super::{as_timestamp, naive, numbers, out_of_range};
use crate::compiled::bind::Typed;

/// Writes an offset from UTC: `+0100`, with seconds where there are any.
fn push_offset(seconds: i32, out: &mut String) {
    let (sign, size) = (if seconds < 0 { '-' } else { '+' }, seconds.unsigned_abs());
    let _ = write!(out, "{sign}{:02}{:02}", size / 3600, size / 60 % 60);
    if size % 60 != 0 {
        let _ = write!(out, "{:02}", size % 60);
    }
}

/// The format with some directives put in other words: `None` cuts it there, and the empty string keeps the directive. Returns
/// the pieces, and the directives at which it was cut.
fn split(text: &str, words: impl Fn(char) -> Option<&'static str>) -> (Vec<String>, Vec<char>) {
    let mut parts = vec![String::new()];
    let mut cuts = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let Some(part) = parts.last_mut() else { break };
        if c != '%' {
            part.push(c);
            continue;
        }
        let Some(directive) = chars.next() else {
            part.push('%');
            break;
        };
        match words(directive) {
            None => {
                parts.push(String::new());
                cuts.push(directive);
            }
            Some("") => part.extend(['%', directive]),
            Some(other) => part.push_str(other),
        }
    }
    (parts, cuts)
}

/// `strftime(format)`.
pub(super) fn strftime(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let Some(format) = constant_str(name, "format", &args[1])? else {
        return Err(Error::plan(format!("{name}() needs a format such as \"%Y-%m-%d\"")));
    };
    // Pieces between the names of zones, which chrono writes as offsets.
    let (pieces, cuts) = split(&format, |directive| match directive {
        'f' => Some("%6f"),
        'Z' | 'z' => None,
        _ => Some(""),
    });
    let pieces: std::result::Result<Vec<Vec<Item<'static>>>, _> =
        pieces.iter().map(|piece| StrftimeItems::new(piece).parse_to_owned()).collect();
    let Ok(pieces) = pieces else {
        return Err(Error::plan(format!(
            "{name}(): {format:?} is no format; it takes the directives of Python's strftime, such as \"%Y-%m-%d %H:%M\""
        )));
    };
    let (arg, unit, zone) = as_timestamp(name, first(args)?)?;
    let kernel = mapped(move |array| {
        let times = numbers(array)?;
        let mut result = StringBuilder::with_capacity(times.len(), times.len() * 20);
        let mut written = String::new();
        for (row, value) in times.iter().enumerate() {
            let Some(value) = value else {
                result.append_null();
                continue;
            };
            let time = naive(value, unit).ok_or_else(|| out_of_range(array, row))?;
            let second = time.and_utc().timestamp();
            written.clear();
            for (place, items) in pieces.iter().enumerate() {
                if let Some(cut) = place.checked_sub(1).map(|place| cuts[place]) {
                    if cut == 'z' {
                        let zone = zone.ok_or_else(|| no_zone(&format, time))?;
                        push_offset(zone.offset_at(second), &mut written);
                    } else {
                        zone.ok_or_else(|| no_zone(&format, time))?.push_name(second, &mut written);
                    }
                }
                let done = match zone {
                    Some(zone) => write!(written, "{}", zone.from_utc_datetime(&time).format_with_items(items.iter())),
                    None => write!(written, "{}", time.format_with_items(items.iter())),
                };
                done.map_err(|_| no_zone(&format, time))?;
            }
            result.append_value(&written);
        }
        Ok(Arc::new(result.finish()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Utf8, text)
}

fn no_zone(format: &str, time: NaiveDateTime) -> Error {
    Error::data(format!("{format:?} asks for a zone, and {time} has none"))
}
