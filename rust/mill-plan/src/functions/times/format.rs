//! Formats of times as Python's `strftime` and `strptime` mean them.
//!
//! Directives are chrono's but for those that mean something else in Python: `%f` is microseconds, six digits when it is
//! written and one to six when it is read; `%z` also reads `Z` and `+02:00`; the years of `%y` begin in 1969; `%I` without
//! `%p` is before noon; what a format does not name is the first (January, the first, midnight).

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::StringBuilder;
use arrow::datatypes::DataType;
use chrono::format::{Item, Parsed, StrftimeItems, parse_and_remainder};
use chrono::{NaiveDateTime, NaiveTime, TimeZone, Timelike};
use mill_protocol::{Error, Result};

use super::super::arguments::{constant_str, first, mapped};
use super::{as_timestamp, naive, numbers, out_of_range};
use crate::compiled::bind::Typed;

/// A format by which texts are read.
pub(super) struct Format {
    pub(super) text: String,
    /// The directives between each `%f` and the next.
    parts: Vec<Vec<Item<'static>>>,
    pub(super) has_offset: bool,
}

impl Format {
    /// `None` if it is no format.
    pub(super) fn new(text: &str) -> Option<Format> {
        let parts = split(text, |directive| match directive {
            'f' => None,
            'z' => Some("%#z"),
            _ => Some(""),
        });
        let parts: Option<Vec<_>> = parts.iter().map(|part| StrftimeItems::new(part).parse_to_owned().ok()).collect();
        let has_offset = ["%z", "%:z", "%::z", "%#z", "%+"].iter().any(|directive| text.replace("%%", "").contains(directive));
        Some(Format { text: text.to_owned(), parts: parts?, has_offset })
    }

    /// The time that a text names, in UTC if the format has an offset; `None` if it names none.
    pub(super) fn read(&self, text: &str) -> Option<NaiveDateTime> {
        let mut parsed = Parsed::new();
        let mut rest = text;
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                const DIGITS_MAX: usize = 6;
                let digits = rest.bytes().take(DIGITS_MAX).take_while(u8::is_ascii_digit).count();
                let number: i64 = rest.get(..digits)?.parse().ok()?;
                parsed.set_nanosecond(number * 10i64.pow(9 - digits as u32)).ok()?;
                rest = &rest[digits..];
            }
            rest = parse_and_remainder(&mut parsed, rest, part.iter()).ok()?;
        }
        if !rest.is_empty() {
            return None;
        }
        complete(&mut parsed)?;
        let date = parsed.to_naive_date().ok();
        let time = match (parsed.hour_mod_12(), parsed.timestamp()) {
            (None, None) => NaiveTime::MIN,
            _ => parsed.to_naive_time().ok().or_else(|| Some(parsed.to_naive_datetime_with_offset(0).ok()?.time()))?,
        };
        // Python has no leap seconds.
        if time.nanosecond() >= 1_000_000_000 {
            return None;
        }
        if let (true, Some(offset)) = (self.has_offset, parsed.offset()) {
            let local = date.map(|date| date.and_time(time)).or_else(|| parsed.to_naive_datetime_with_offset(offset).ok())?;
            return local.checked_sub_signed(chrono::TimeDelta::seconds(i64::from(offset)));
        }
        match date {
            Some(date) => Some(date.and_time(time)),
            None => parsed.to_naive_datetime_with_offset(0).ok(),
        }
    }
}

/// Fills in what the format does not name.
fn complete(parsed: &mut Parsed) -> Option<()> {
    if parsed.timestamp().is_some() {
        return Some(());
    }
    if let (Some(69), None, None) = (parsed.year_mod_100(), parsed.year(), parsed.year_div_100()) {
        parsed.set_year_div_100(19).ok()?;
    }
    let has_year = parsed.year().is_some() || parsed.year_mod_100().is_some();
    let has_week = parsed.week_from_sun().is_some() || parsed.week_from_mon().is_some();
    if has_year && parsed.ordinal().is_none() && !has_week {
        if parsed.month().is_none() && parsed.day().is_none() {
            parsed.set_month(1).ok()?;
        }
        if parsed.day().is_none() {
            parsed.set_day(1).ok()?;
        }
    }
    if parsed.hour_mod_12().is_some() {
        if parsed.hour_div_12().is_none() {
            parsed.set_ampm(false).ok()?;
        }
        if parsed.minute().is_none() && parsed.second().is_none() {
            parsed.set_minute(0).ok()?;
        }
        if parsed.second().is_none() && parsed.nanosecond().is_some() {
            parsed.set_second(0).ok()?;
        }
    }
    Some(())
}

/// The format with some directives put in other words: `None` cuts it there, and the empty string keeps the directive.
fn split(text: &str, words: impl Fn(char) -> Option<&'static str>) -> Vec<String> {
    let mut parts = vec![String::new()];
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
            None => parts.push(String::new()),
            Some("") => part.extend(['%', directive]),
            Some(other) => part.push_str(other),
        }
    }
    parts
}

/// `strftime(format)`.
pub(super) fn strftime(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let Some(format) = constant_str(name, "format", &args[1])? else {
        return Err(Error::plan(format!("{name}() needs a format such as \"%Y-%m-%d\"")));
    };
    let own = split(&format, |directive| if directive == 'f' { Some("%6f") } else { Some("") }).concat();
    let Ok(items) = StrftimeItems::new(&own).parse_to_owned() else {
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
            written.clear();
            let done = match zone {
                Some(zone) => write!(written, "{}", zone.from_utc_datetime(&time).format_with_items(items.iter())),
                None => write!(written, "{}", time.format_with_items(items.iter())),
            };
            done.map_err(|_| Error::data(format!("{format:?} asks for a zone, and {time} has none")))?;
            result.append_value(&written);
        }
        Ok(Arc::new(result.finish()) as _)
    });
    Typed::call(kernel, vec![arg], DataType::Utf8, text)
}
