//! Formats of times as Python's `strptime` reads them.
//!
//! A format becomes a regular expression, and what its groups hold becomes a time, by the rules of CPython's `_strptime`.
//! Most texts are read without it: each [`Piece`] takes what the expression would try first, and only where that leads nowhere
//! is the expression asked.
//!
//! What a format does not name is that of 1900-01-01 00:00:00, the years of `%y` begin in 1969, a weekday decides only beside a
//! week, and a day of the year goes before month and day. Beyond Python there are `%F`, `%T`, `%R`, `%D`, `%e`, and `%.f`, a point
//! with up to nine digits, or nothing.

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
    /// The format piece by piece; `None` if only the expression can read it.
    pieces: Option<Vec<Piece>>,
    regex: Regex,
    /// The directive of each group of the expression.
    directives: Vec<char>,
}

/// A piece of a format that is read in one step.
#[derive(Clone, Copy)]
enum Piece {
    /// This character, in either case.
    Text(u8),
    /// Whitespace.
    Space,
    /// The number of this directive: two digits in this range, or else one.
    Two(char, u32, u32),
    /// The number of this directive: so many digits.
    Digits(char, usize),
    /// Up to six digits of a fraction.
    Fraction,
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
        let regex = Regex::new(&pattern).ok()?;
        Some(Format { text: text.to_owned(), has_offset, pieces: pieces(text), regex, directives })
    }

    /// The time that a text names, in UTC if the format has an offset; `None` if it names none.
    pub(super) fn read(&self, text: &str) -> Option<NaiveDateTime> {
        let found = match self.pieces.as_ref().and_then(|pieces| in_one_go(pieces, text.as_bytes())) {
            Some(found) => found,
            None => {
                let groups = self.regex.captures(text)?;
                // The first match decides, as in Python: what it leaves over is not looked for another way.
                if groups.get(0)?.end() != text.len() {
                    return None;
                }
                self.found(&groups)?
            }
        };
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
                'b' | 'B' => found.month = Some(named(&MONTHS)? + 1),
                'a' | 'A' => found.weekday = named(&DAYS),
                'p' => found.is_afternoon = text.eq_ignore_ascii_case("pm"),
                'f' => found.fraction(number()?, text.len()),
                'z' => found.offset = offset(text)?,
                'Z' => {}
                _ => found.number(directive, number()?),
            }
        }
        Some(found)
    }
}

impl Found {
    fn number(&mut self, directive: char, number: u32) {
        match directive {
            'Y' => self.year = Some(number as i32),
            'y' => self.year = Some(if number <= 68 { 2000 + number as i32 } else { 1900 + number as i32 }),
            'G' => self.iso_year = Some(number as i32),
            'm' => self.month = Some(number),
            'd' | 'e' => self.day = Some(number),
            // From Sunday on.
            'w' => self.weekday = Some((number + 6) % 7),
            'u' => self.weekday = Some(number - 1),
            'j' => self.day_of_year = Some(number),
            'U' => self.week = Some((number, false)),
            'W' => self.week = Some((number, true)),
            'V' => self.iso_week = Some(number),
            // Of two hours the later in the text is meant.
            'H' => (self.hour, self.hour_of_12) = (Some(number), None),
            'I' => self.hour_of_12 = Some(number),
            'M' => self.minute = number,
            'S' => self.second = number,
            _ => {}
        }
    }

    fn fraction(&mut self, number: u32, digits: usize) {
        const DIGITS: usize = 9;
        self.nanosecond = number * 10u32.pow((DIGITS - digits) as u32);
    }

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

/// A format as pieces, if it has no others than these.
fn pieces(format: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut bytes = format.bytes();
    while let Some(byte) = bytes.next() {
        if byte.is_ascii_whitespace() {
            if !matches!(pieces.last(), Some(Piece::Space)) {
                pieces.push(Piece::Space);
            }
            continue;
        }
        if byte != b'%' {
            pieces.push(Piece::Text(byte));
            continue;
        }
        let directive = char::from(bytes.next()?);
        pieces.push(match directive {
            'Y' => Piece::Digits(directive, 4),
            'y' => Piece::Digits(directive, 2),
            'm' => Piece::Two(directive, 1, 12),
            'd' => Piece::Two(directive, 1, 31),
            'H' => Piece::Two(directive, 0, 23),
            'M' => Piece::Two(directive, 0, 59),
            'S' => Piece::Two(directive, 0, 61),
            'f' => Piece::Fraction,
            '%' => Piece::Text(b'%'),
            _ => return None,
        });
    }
    Some(pieces)
}

/// What a text names, if taking for each piece what the expression would try first reads all of it: then the expression would
/// find the same.
fn in_one_go(pieces: &[Piece], mut text: &[u8]) -> Option<Found> {
    let mut found = Found::default();
    let digit = |text: &[u8], at: usize| text.get(at).filter(|byte| byte.is_ascii_digit()).map(|byte| u32::from(byte - b'0'));
    for piece in pieces {
        let taken = match *piece {
            Piece::Text(byte) => text.first().filter(|found| found.eq_ignore_ascii_case(&byte)).map(|_| 1)?,
            Piece::Space => text.iter().take_while(|byte| byte.is_ascii_whitespace()).count(),
            Piece::Two(directive, least, most) => {
                let first = digit(text, 0)?;
                let two = digit(text, 1).map(|second| first * 10 + second).filter(|two| (least..=most).contains(two));
                let number = two.or(Some(first).filter(|one| *one >= least))?;
                found.number(directive, number);
                1 + usize::from(two.is_some())
            }
            Piece::Digits(directive, count) => {
                let number = (0..count).try_fold(0, |number, at| Some(number * 10 + digit(text, at)?))?;
                found.number(directive, number);
                count
            }
            Piece::Fraction => {
                const DIGITS_MAX: usize = 6;
                let count = text.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit()).count();
                let number = (0..count).try_fold(0, |number, at| Some(number * 10 + digit(text, at)?))?;
                found.fraction(number, count);
                count
            }
        };
        if taken == 0 {
            return None;
        }
        text = text.get(taken..)?;
    }
    text.is_empty().then_some(found)
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
