//! Formats of times as Python's `strptime` reads them.
//!
//! A format becomes a regular expression, and what its groups hold becomes a time, by the rules of CPython's `_strptime`:
//! what a format does not name is that of 1900-01-01 00:00:00, the years of `%y` begin in 1969, a weekday decides only
//! beside a week, and a day of the year goes before month and day. Beyond Python there are `%F`, `%T`, `%R`, `%D`, `%e`, and
//! `%.f`, a point with up to nine digits, or nothing.

use std::fmt::Write;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use regex::{Captures, Regex};

const MONTHS: [&str; 12] = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
];
/// From Monday on.
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
/// How many letters an abbreviation has.
const SHORT: usize = 3;

/// A format by which texts are read.
pub(super) struct Format {
    pub(super) text: String,
    pub(super) has_offset: bool,
    regex: Regex,
    /// The directive of each group of the expression.
    directives: Vec<char>,
}

/// What a text names.
#[derive(Default)]
struct Found {
    year: Option<i32>,
    iso_year: Option<i32>,
    month: Option<u32>,
    day: Option<u32>,
    /// From Monday on, which is 0.
    weekday: Option<u32>,
    day_of_year: Option<u32>,
    /// The week, and whether it begins on a Monday.
    week: Option<(u32, bool)>,
    iso_week: Option<u32>,
    hour: Option<u32>,
    hour_of_12: Option<u32>,
    is_afternoon: bool,
    minute: u32,
    second: u32,
    nanosecond: u32,
    offset: TimeDelta,
}

impl Format {
    /// `None` if it is no format.
    pub(super) fn new(text: &str) -> Option<Format> {
        let (mut pattern, mut directives) = (String::from("(?i)^"), Vec::new());
        add(text, &mut pattern, &mut directives)?;
        let has_offset = directives.contains(&'z');
        Some(Format { text: text.to_owned(), has_offset, regex: Regex::new(&pattern).ok()?, directives })
    }

    /// The time that a text names, in UTC if the format has an offset; `None` if it names none.
    pub(super) fn read(&self, text: &str) -> Option<NaiveDateTime> {
        let groups = self.regex.captures(text)?;
        // The first match decides, as in Python: what it leaves over is not looked for another way.
        if groups.get(0)?.end() != text.len() {
            return None;
        }
        let found = self.found(&groups)?;
        found.date()?.and_time(found.time()?).checked_sub_signed(found.offset)
    }

    fn found(&self, groups: &Captures<'_>) -> Option<Found> {
        let mut found = Found::default();
        for (group, &directive) in groups.iter().skip(1).zip(&self.directives) {
            let Some(text) = group.map(|group| group.as_str()) else { continue };
            let number = || text.trim_start().parse::<u32>().ok();
            let named = |names: &[&str]| {
                let is_named = |name: &&str| name.eq_ignore_ascii_case(text) || name[..SHORT].eq_ignore_ascii_case(text);
                names.iter().position(is_named).map(|place| place as u32)
            };
            match directive {
                'Y' => found.year = Some(number()? as i32),
                'y' => found.year = number().map(|year| if year <= 68 { 2000 + year as i32 } else { 1900 + year as i32 }),
                'G' => found.iso_year = Some(number()? as i32),
                'm' => found.month = number(),
                'b' | 'B' => found.month = Some(named(&MONTHS)? + 1),
                'd' | 'e' => found.day = number(),
                'a' | 'A' => found.weekday = named(&DAYS),
                // From Sunday on.
                'w' => found.weekday = Some((number()? + 6) % 7),
                'u' => found.weekday = Some(number()? - 1),
                'j' => found.day_of_year = number(),
                'U' => found.week = Some((number()?, false)),
                'W' => found.week = Some((number()?, true)),
                'V' => found.iso_week = number(),
                'H' => found.hour = number(),
                'I' => found.hour_of_12 = number(),
                'p' => found.is_afternoon = text.eq_ignore_ascii_case("pm"),
                'M' => found.minute = number()?,
                'S' => found.second = number()?,
                'f' => {
                    const DIGITS: u32 = 9;
                    found.nanosecond = number()? * 10u32.pow(DIGITS - text.len() as u32);
                }
                'z' => found.offset = offset(text)?,
                _ => {}
            }
        }
        Some(found)
    }
}

impl Found {
    fn time(&self) -> Option<NaiveTime> {
        const NOON: u32 = 12;
        let hour = match self.hour_of_12 {
            Some(hour) => hour % NOON + if self.is_afternoon { NOON } else { 0 },
            None => self.hour.unwrap_or(0),
        };
        // No leap seconds: Python has none.
        NaiveTime::from_hms_nano_opt(hour, self.minute, self.second, self.nanosecond)
    }

    fn date(&self) -> Option<NaiveDate> {
        if let Some(year) = self.iso_year {
            if self.day_of_year.is_some() {
                return None;
            }
            let weekday = chrono::Weekday::try_from(self.weekday? as u8).ok()?;
            return NaiveDate::from_isoywd_opt(year, self.iso_week?, weekday).filter(|date| date.year() > 0);
        }
        if self.iso_week.is_some() {
            return None;
        }
        const YEAR: i32 = 1900;
        let year = Some(self.year.unwrap_or(YEAR)).filter(|&year| year > 0)?;
        let first = NaiveDate::from_ymd_opt(year, 1, 1)?;
        let of_week = || Some(day_of_year(first, self.week?, self.weekday?));
        match self.day_of_year.map(i64::from).or_else(of_week) {
            Some(day) => first.checked_add_signed(TimeDelta::days(day - 1)).filter(|date| date.year() > 0),
            None => NaiveDate::from_ymd_opt(year, self.month.unwrap_or(1), self.day.unwrap_or(1)),
        }
    }
}

/// The day of the year, from 1 on, of a weekday in a week of which the first begins on the first Sunday or Monday; days
/// before the year are zero and less.
fn day_of_year(first: NaiveDate, (week, begins_on_monday): (u32, bool), weekday: u32) -> i64 {
    let of_first = first.weekday().num_days_from_monday();
    let shift = u32::from(!begins_on_monday);
    let (of_first, weekday) = (i64::from((of_first + shift) % 7), i64::from((weekday + shift) % 7));
    match week {
        0 => 1 + weekday - of_first,
        _ => 1 + (7 - of_first) % 7 + 7 * (i64::from(week) - 1) + weekday,
    }
}

/// `Z`, `+0100`, `-01:00`, `+01:00:30.5`; fractions as in Python up to microseconds.
fn offset(text: &str) -> Option<TimeDelta> {
    if text == "Z" {
        return Some(TimeDelta::zero());
    }
    let (sign, rest) = (if text.starts_with('-') { -1 } else { 1 }, text[1..].replace(':', ""));
    let (whole, fraction) = rest.split_once('.').unwrap_or((&rest, ""));
    let part = |from: usize| whole.get(from..from + 2).map_or(Some(0), |digits| digits.parse::<i64>().ok());
    let (hours, minutes, seconds) = (part(0)?, part(2)?, part(4)?);
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    // An offset is less than a day.
    let size = (hours < 24).then(|| TimeDelta::microseconds(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros))?;
    Some(size * sign)
}

/// Adds what a format matches to a pattern.
fn add(format: &str, pattern: &mut String, directives: &mut Vec<char>) -> Option<()> {
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            while chars.next_if(|next| next.is_whitespace()).is_some() {}
            pattern.push_str(r"\s+");
            continue;
        }
        if c != '%' {
            pattern.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
            continue;
        }
        let mut directive = chars.next()?;
        let has_point = directive == '.';
        if directive == ':' || has_point {
            let of = chars.next().filter(|&of| of == if has_point { 'f' } else { 'z' });
            directive = of?;
        }
        let names = |names: &[&str], letters: usize| {
            let short: Vec<&str> = names.iter().map(|name| &name[..letters.min(name.len())]).collect();
            short.join("|")
        };
        let others = match directive {
            'F' => Some("%Y-%m-%d"),
            'T' | 'X' => Some("%H:%M:%S"),
            'R' => Some("%H:%M"),
            'D' | 'x' => Some("%m/%d/%y"),
            'c' => Some("%a %b %d %H:%M:%S %Y"),
            _ => None,
        };
        if let Some(others) = others {
            add(others, pattern, directives)?;
            continue;
        }
        let group = match directive {
            '%' => {
                pattern.push('%');
                continue;
            }
            'd' | 'e' => "3[0-1]|[1-2][0-9]|0[1-9]|[1-9]| [1-9]".to_owned(),
            'f' if has_point => "[0-9]{1,9}".to_owned(),
            'f' => "[0-9]{1,6}".to_owned(),
            'H' => "2[0-3]|[0-1][0-9]|[0-9]".to_owned(),
            'I' => "1[0-2]|0[1-9]|[1-9]".to_owned(),
            'G' | 'Y' => "[0-9]{4}".to_owned(),
            'j' => "36[0-6]|3[0-5][0-9]|[1-2][0-9][0-9]|0[1-9][0-9]|00[1-9]|[1-9][0-9]|0[1-9]|[1-9]".to_owned(),
            'm' => "1[0-2]|0[1-9]|[1-9]".to_owned(),
            'M' => "[0-5][0-9]|[0-9]".to_owned(),
            'S' => "6[0-1]|[0-5][0-9]|[0-9]".to_owned(),
            'U' | 'W' => "5[0-3]|[0-4][0-9]|[0-9]".to_owned(),
            'V' => "5[0-3]|0[1-9]|[1-4][0-9]|[0-9]".to_owned(),
            'w' => "[0-6]".to_owned(),
            'u' => "[1-7]".to_owned(),
            'y' => "[0-9]{2}".to_owned(),
            'z' => r"[+-][0-9]{2}:?[0-5][0-9](?::?[0-5][0-9](?:\.[0-9]{1,6})?)?|(?-i:Z)".to_owned(),
            'Z' => "utc|gmt".to_owned(),
            'A' => names(&DAYS, usize::MAX),
            'a' => names(&DAYS, SHORT),
            'B' => names(&MONTHS, usize::MAX),
            'b' | 'h' => names(&MONTHS, SHORT),
            'p' => "am|pm".to_owned(),
            _ => return None,
        };
        let directive = if directive == 'h' { 'b' } else { directive };
        if directives.contains(&directive) {
            return None;
        }
        directives.push(directive);
        // Writing into a string does not fail.
        let _ = if has_point { write!(pattern, r"(?:\.({group}))?") } else { write!(pattern, "({group})") };
    }
    Some(())
}
