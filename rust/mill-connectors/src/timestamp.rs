//! Moments in ISO 8601: `2013-01-01`, `2013-01-01T05:15:00`, `2013-01-01 05:15:00.123456789Z`, `…+02:00`.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::DataType;

/// A moment: seconds since the epoch and nanoseconds within the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    seconds: i64,
    nanos: u32,
}

impl Moment {
    /// Whole seconds since the epoch, rounded down.
    pub(crate) fn seconds(self) -> Option<i64> {
        Some(self.seconds)
    }

    /// Milliseconds since the epoch, rounded down; `None` if that overflows.
    pub(crate) fn millis(self) -> Option<i64> {
        self.seconds.checked_mul(1_000)?.checked_add(i64::from(self.nanos / 1_000_000))
    }

    /// Microseconds since the epoch, rounded down.
    pub(crate) fn micros(self) -> Option<i64> {
        self.seconds.checked_mul(1_000_000)?.checked_add(i64::from(self.nanos / 1_000))
    }

    /// Nanoseconds since the epoch; `None` outside the years 1677 to 2262.
    pub(crate) fn nanos(self) -> Option<i64> {
        i64::try_from(i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)).ok()
    }
}

/// The same column, a zone that is UTC by name given as an offset, which is formatted without a database of zones.
pub(crate) fn utc_as_offset(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(unit, Some(zone)) if is_utc(zone) => {
            let offset = DataType::Timestamp(*unit, Some(Arc::from("+00:00")));
            cast(column, &offset).unwrap_or_else(|_| Arc::clone(column))
        }
        _ => Arc::clone(column),
    }
}

/// Whether a zone is that of UTC under one of its names.
pub(crate) fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "utc" | "Z" | "+00:00" | "+0000" | "Etc/UTC" | "GMT")
}

/// Whether a moment names its zone: an offset or `Z` after the time of day.
pub(crate) fn has_zone(bytes: &[u8]) -> bool {
    bytes.len() > 16 && (bytes.ends_with(b"Z") || bytes[16..].iter().any(|byte| matches!(byte, b'+' | b'-')))
}

/// A date, or date and time with `T` or a space between them; an offset is taken off, no offset is UTC.
pub(crate) fn parse_moment(bytes: &[u8]) -> Option<Moment> {
    Moments::default().parse(bytes)
}

/// Reads moments one after the other: in a stream most have the date of the one before, which is read once.
pub(crate) struct Moments {
    date: [u8; 10],
    midnight: i64,
}

impl Default for Moments {
    fn default() -> Moments {
        Moments { date: *b"1970-01-01", midnight: 0 }
    }
}

impl Moments {
    /// As [`parse_moment`].
    #[inline]
    pub(crate) fn parse(&mut self, bytes: &[u8]) -> Option<Moment> {
        let (date, rest) = bytes.split_first_chunk::<10>()?;
        if *date != self.date {
            self.midnight = midnight_of(date)?;
            self.date = *date;
        }
        at_time(self.midnight, rest)
    }
}

/// The first second of a date.
fn midnight_of(date: &[u8; 10]) -> Option<i64> {
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    Some(days_since_epoch(number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?)? * 86_400)
}

/// The moment with this time of day, as it stands behind a date.
fn at_time(midnight: i64, rest: &[u8]) -> Option<Moment> {
    let [b'T' | b't' | b' ', time @ ..] = rest else {
        return rest.is_empty().then_some(Moment { seconds: midnight, nanos: 0 });
    };
    let (clock, mut rest) = time.split_at_checked(5)?;
    if clock[2] != b':' {
        return None;
    }
    let (hour, minute, mut second) = (number(&clock[..2])?, number(&clock[3..])?, 0);
    let mut nanos = 0;
    if let [b':', a, b, tail @ ..] = rest {
        second = number(&[*a, *b])?;
        rest = tail;
        if let [b'.' | b',', fraction @ ..] = rest {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            let kept = digits.min(9);
            nanos = number(&fraction[..kept])? * 10u32.pow(9 - kept as u32);
            rest = &fraction[digits..];
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let offset = offset_seconds(rest)?;
    Some(Moment { seconds: midnight + i64::from(hour * 3600 + minute * 60 + second) - offset, nanos })
}

/// `Z`, `+02:00`, `+0200`, `+02` or nothing, in seconds.
fn offset_seconds(bytes: &[u8]) -> Option<i64> {
    let bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
    let (sign, digits) = match bytes {
        b"" | b"Z" | b"z" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [a, b] => (number(&[*a, *b])?, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (number(&[*a, *b])?, number(&[*c, *d])?),
        _ => return None,
    };
    (hours < 24 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0'))
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` if there is no such date.
fn days_since_epoch(year: u32, month: u32, day: u32) -> Option<i64> {
    const DAYS: [u32; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = *DAYS.get(month.checked_sub(1)? as usize)? + u32::from(is_leap && month == 2);
    if day == 0 || day > days_in_month {
        return None;
    }
    // Years that begin in March, so that the leap day is the last of them; eras of 400 years.
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (i64::from(month) + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use arrow::array::timezone::Tz;
    use arrow::compute::kernels::cast_utils::string_to_datetime;

    use super::*;

    #[test]
    fn moments_are_read_as_arrow_reads_them() {
        let utc: Tz = "+00:00".parse().unwrap();
        for text in [
            "1970-01-01", "2013-01-01T05:15:00", "2013-01-01 05:15:00.5", "2000-02-29T23:59:59.123456789Z",
            "1600-03-01T00:00:00+02:00", "0001-01-01 00:00:00", "9999-12-31T23:59:59Z", "2013-06-01T00:00:00-0330",
        ] {
            let expected = string_to_datetime(&utc, text).unwrap();
            let found = parse_moment(text.as_bytes()).unwrap();
            assert_eq!((found.seconds, found.nanos), (expected.timestamp(), expected.timestamp_subsec_nanos()), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for text in [
            "", "2013", "2013-1-1", "2013-02-29", "2013-13-01", "2013-01-01T", "2013-01-01T24:00:00", "2013-01-01T1:2:3",
            "2013-01-01T05:15:00.", "2013-01-01T05:15:00+2", "2013-01-01x05:15", "2013-01-01T05:15:00Zx", "yesterday ",
            "\0\0\0\0\0\0\0\0\0\0",
        ] {
            assert_eq!(parse_moment(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn nanoseconds_that_overflow_are_refused() {
        assert_eq!(parse_moment(b"2300-01-01").unwrap().nanos(), None);
        assert_eq!(parse_moment(b"1969-12-31T23:59:59.5").unwrap().millis(), Some(-500));
    }

    #[test]
    fn a_zone_is_seen_where_there_is_one() {
        assert!(has_zone(b"2013-01-01T05:15:00Z") && has_zone(b"2013-01-01T05:15:00-05:00"));
        assert!(!has_zone(b"2013-01-01T05:15:00") && !has_zone(b"2013-01-01"));
    }
}
