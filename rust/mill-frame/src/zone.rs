//! Time zones: the one place in which the offset of a zone is looked up.
//!
//! The table of the IANA database that is compiled in holds the changes of each clock up to 2099. Later changes follow from
//! the rules that zones have then: each names a month, a week and a day of the week, or a day of the month. So a year in which
//! the days fall on the same weekdays has the same changes, and [`TABLE`] names such a year for each of the seven weekdays on
//! which a year can begin. A leap year is like two others: up to February like one that begins on the same day, from March like
//! one that begins a day later. No clock changes at the end of February.
//!
//! Some zones list every change up to the 2080s, as they follow the moon; the years chosen are after the last of these.

use std::str::FromStr;

use arrow::error::ArrowError;
use chrono::{DateTime, Datelike, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, Offset, TimeZone};
use chrono_tz::{OffsetName, Tz};

/// The first second that the compiled table does not hold: the start of 2100, in UTC or on any clock.
const SECOND_END: i64 = 4_102_444_800;
/// The calendar repeats after 400 years, weekdays included.
const SECONDS_PER_CYCLE: i64 = 146_097 * 86_400;
/// Years of 365 days, by the weekday of 1 January from Monday on.
const TABLE: [i32; 7] = [2091, 2097, 2098, 2093, 2094, 2095, 2090];

/// Whether a zone is UTC under one of its names.
pub fn is_utc(zone: &str) -> bool {
    matches!(
        zone,
        "UTC" | "utc" | "Z" | "+00:00" | "+0000" | "-00:00" | "+00" | "Etc/UTC" | "Etc/GMT" | "GMT" | "Zulu" | "Etc/Zulu"
    )
}

/// A time zone: one of the IANA database, or a fixed offset.
///
/// # Examples
/// ```
/// use mill_frame::zone::Zone;
///
/// let zone: Zone = "America/New_York".parse()?;
/// let noon_in_july_2150 = 5_696_827_200;
/// assert_eq!(zone.offset_at(noon_in_july_2150), -4 * 3600);
/// assert!("Mars/Olympus".parse::<Zone>().is_err());
/// # Ok::<(), arrow::error::ArrowError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Named(Tz),
    Fixed(FixedOffset),
}

impl FromStr for Zone {
    type Err = ArrowError;

    /// Reads a name such as `Europe/Berlin` or `UTC`, or an offset such as `+05:30`, `+0530` or `+05`.
    fn from_str(text: &str) -> Result<Zone, ArrowError> {
        if let Some(offset) = fixed_offset(text) {
            return Ok(Zone(Kind::Fixed(offset)));
        }
        match text.parse::<Tz>() {
            Ok(zone) => Ok(Zone(Kind::Named(zone))),
            Err(_) if is_utc(text) => Ok(Zone(Kind::Named(Tz::UTC))),
            Err(_) => Err(ArrowError::ParseError(format!("{text:?} is no time zone"))),
        }
    }
}

/// `+05:30`, `+0530` or `+05`.
fn fixed_offset(text: &str) -> Option<FixedOffset> {
    let digits = match *text.as_bytes() {
        [_, a, b, b':', c, d] | [_, a, b, c, d] => [a, b, c, d],
        [_, a, b] => [a, b, b'0', b'0'],
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let [a, b, c, d] = digits.map(|digit| i32::from(digit - b'0'));
    let seconds = (a * 10 + b) * 3600 + (c * 10 + d) * 60;
    match text.as_bytes()[0] {
        b'+' => FixedOffset::east_opt(seconds),
        b'-' => FixedOffset::west_opt(seconds),
        _ => None,
    }
}

impl Zone {
    /// The seconds by which the clock of the zone is ahead of UTC at a second since the epoch.
    #[inline]
    pub fn offset_at(&self, second: i64) -> i32 {
        match self.0 {
            Kind::Fixed(offset) => offset.local_minus_utc(),
            Kind::Named(zone) => zone.offset_from_utc_datetime(&in_table(second)).fix().local_minus_utc(),
        }
    }

    /// The offsets with which the clock of the zone shows a time: none where it is put forward over it, two where it is put
    /// back to before it. The time counts seconds from 1970 on that clock.
    pub fn offsets_of_local(&self, second: i64) -> LocalResult<i32> {
        match self.0 {
            Kind::Fixed(offset) => LocalResult::Single(offset.local_minus_utc()),
            Kind::Named(zone) => {
                zone.offset_from_local_datetime(&in_table(second)).map(|offset| offset.fix().local_minus_utc())
            }
        }
    }

    /// Writes how the zone is called at a second since the epoch, as Python does: `CET`, `+03`, `UTC+05:30`.
    pub fn push_name(&self, second: i64, out: &mut String) {
        let zone = match self.0 {
            Kind::Named(zone) => zone,
            Kind::Fixed(offset) => {
                out.push_str("UTC");
                if offset.local_minus_utc() != 0 {
                    out.push_str(&offset.to_string());
                }
                return;
            }
        };
        let offset = zone.offset_from_utc_datetime(&in_table(second));
        match offset.abbreviation() {
            Some(name) => out.push_str(name),
            // The database calls these by their offset, with minutes only where there are any.
            None => {
                let minutes = offset.fix().local_minus_utc() / 60;
                let (sign, hours, minutes) = (if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60);
                out.push_str(&match minutes {
                    0 => format!("{sign}{hours:02}"),
                    _ => format!("{sign}{hours:02}{minutes:02}"),
                });
            }
        }
    }
}

/// The offset of a [`Zone`] at some time.
#[derive(Clone, Copy, Debug)]
pub struct ZoneOffset {
    zone: Zone,
    offset: FixedOffset,
}

impl ZoneOffset {
    fn new(zone: Zone, seconds: i32) -> ZoneOffset {
        ZoneOffset { zone, offset: FixedOffset::east_opt(seconds).expect("no zone is a day away from UTC") }
    }
}

impl std::fmt::Display for ZoneOffset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.offset.fmt(f)
    }
}

impl Offset for ZoneOffset {
    fn fix(&self) -> FixedOffset {
        self.offset
    }
}

impl TimeZone for Zone {
    type Offset = ZoneOffset;

    fn from_offset(offset: &ZoneOffset) -> Zone {
        offset.zone
    }

    fn offset_from_local_date(&self, local: &NaiveDate) -> LocalResult<ZoneOffset> {
        self.offset_from_local_datetime(&local.and_time(chrono::NaiveTime::MIN))
    }

    fn offset_from_local_datetime(&self, local: &NaiveDateTime) -> LocalResult<ZoneOffset> {
        self.offsets_of_local(local.and_utc().timestamp()).map(|seconds| ZoneOffset::new(*self, seconds))
    }

    fn offset_from_utc_date(&self, utc: &NaiveDate) -> ZoneOffset {
        self.offset_from_utc_datetime(&utc.and_time(chrono::NaiveTime::MIN))
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> ZoneOffset {
        ZoneOffset::new(*self, self.offset_at(utc.and_utc().timestamp()))
    }
}

/// The time, or one that the table holds and at which every clock is as far from UTC.
#[inline]
fn in_table(second: i64) -> NaiveDateTime {
    if second >= SECOND_END {
        return equivalent(second);
    }
    // The table begins long after the first year of the calendar: what is before all changes stays so.
    DateTime::from_timestamp(second, 0).map_or(NaiveDateTime::MIN, |time| time.naive_utc())
}

/// A time of a year in [`TABLE`] that has the same weekdays around it.
#[cold]
fn equivalent(second: i64) -> NaiveDateTime {
    let second = SECOND_END + (second - SECOND_END) % SECONDS_PER_CYCLE;
    in_same_calendar(DateTime::from_timestamp(second, 0).expect("it is before the year 2500").naive_utc())
}

fn in_same_calendar(time: NaiveDateTime) -> NaiveDateTime {
    let first = NaiveDate::from_yo_opt(time.year(), 1).expect("every year has a first day").weekday();
    let is_after_leap_day = time.date().leap_year() && time.month() > 2;
    let weekday = first.num_days_from_monday() as usize + usize::from(is_after_leap_day);
    let day = if (time.month(), time.day()) == (2, 29) { 28 } else { time.day() };
    let date = NaiveDate::from_ymd_opt(TABLE[weekday % 7], time.month(), day).expect("29 February is the one day that is missing");
    date.and_time(time.time())
}

#[cfg(test)]
mod tests;
