//! Moments in ISO 8601: `2013-01-01`, `2013-01-01T05:15`, `2013-01-01 05:15:00.123456789Z`, `…+02:00`, `+10000-01-01`.

use arrow::datatypes::TimeUnit;

use super::Misfit;
use super::calendar::days_of;
use crate::zone::Zone;

/// A moment: seconds since the epoch and nanoseconds within the second, an offset taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Whole seconds since 1970-01-01T00:00:00, rounded down.
    pub seconds: i64,
    /// Nanoseconds within the second.
    pub nanos: u32,
    /// The offset that was written, in seconds; `None` if none was.
    pub offset: Option<i32>,
    /// Whether it was a date without a time of day.
    pub is_date: bool,
}

/// How many of a unit a second has.
pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

impl Moment {
    /// The number of units since the epoch.
    ///
    /// # Errors
    /// [`Misfit::Digits`] if the unit is too coarse, [`Misfit::Range`] if it overflows.
    #[inline]
    pub fn in_unit(self, unit: TimeUnit) -> Result<i64, Misfit> {
        let per_second = per_second(unit);
        let nanos_per_unit = 1_000_000_000 / per_second as u32;
        if !self.nanos.is_multiple_of(nanos_per_unit) {
            return Err(Misfit::Digits);
        }
        let rest = i64::from(self.nanos / nanos_per_unit);
        if let Some(value) = self.seconds.checked_mul(per_second).and_then(|value| value.checked_add(rest)) {
            return Ok(value);
        }
        // The least values: the second that they are in begins before the first that fits.
        i64::try_from(i128::from(self.seconds) * i128::from(per_second) + i128::from(rest)).map_err(|_| Misfit::Range)
    }

    /// The same for a column without a zone, which a text with an offset other than zero does not fit.
    ///
    /// # Errors
    /// Also [`Misfit::Zone`].
    #[inline]
    pub fn naive_in_unit(self, unit: TimeUnit) -> Result<i64, Misfit> {
        if self.offset.is_some_and(|offset| offset != 0) {
            return Err(Misfit::Zone);
        }
        self.in_unit(unit)
    }

    /// The same for a column of this zone; a text without an offset is local time there.
    ///
    /// # Errors
    /// Also [`Misfit::Local`].
    pub fn zoned_in_unit(self, unit: TimeUnit, zone: &Zone) -> Result<i64, Misfit> {
        if self.offset.is_some() {
            return self.in_unit(unit);
        }
        let offset = zone.offsets_of_local(self.seconds).single().ok_or(Misfit::Local)?;
        let seconds = self.seconds.checked_sub(i64::from(offset)).ok_or(Misfit::Range)?;
        Moment { seconds, ..self }.in_unit(unit)
    }
}

/// Reads moments one after the other: in a stream most have the date of the one before, which is read once.
#[derive(Debug)]
pub struct Moments {
    date: [u8; 10],
    midnight: i64,
}

impl Default for Moments {
    fn default() -> Moments {
        Moments { date: *b"1970-01-01", midnight: 0 }
    }
}

impl Moments {
    /// A date, or a date and a time of day with `T` or a space between them.
    ///
    /// # Examples
    /// ```
    /// use arrow::datatypes::TimeUnit;
    /// use mill_frame::text::Moments;
    /// let moment = Moments::default().parse(b"1970-01-01T00:00:01.5").unwrap();
    /// assert_eq!(moment.in_unit(TimeUnit::Millisecond), Ok(1500));
    /// ```
    #[inline]
    pub fn parse(&mut self, bytes: &[u8]) -> Option<Moment> {
        let (date, rest) = bytes.split_first_chunk::<10>()?;
        if *date != self.date {
            if matches!(date[0], b'+' | b'-') {
                return parse_expanded(bytes);
            }
            self.midnight = midnight_of(date)?;
            self.date = *date;
        }
        at_time(i128::from(self.midnight), rest)
    }
}

/// The first second of a date of ten characters.
fn midnight_of(date: &[u8; 10]) -> Option<i64> {
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    Some(days_of(i64::from(number(&date[..4])?), number(&date[5..7])?, number(&date[8..])?)? * 86_400)
}

/// A moment in a year beyond 9999 or before 0, written with a sign.
#[cold]
fn parse_expanded(bytes: &[u8]) -> Option<Moment> {
    let (days, rest) = parse_signed_date(bytes)?;
    at_time(i128::from(days) * 86_400, rest)
}

/// Days since the epoch of a date whose year has a sign, and what follows it.
pub(super) fn parse_signed_date(bytes: &[u8]) -> Option<(i64, &[u8])> {
    const YEAR_DIGITS: std::ops::RangeInclusive<usize> = 4..=12;
    let (sign, digits) = match bytes {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !YEAR_DIGITS.contains(&count) {
        return None;
    }
    let year = digits[..count].iter().fold(0i64, |year, digit| year * 10 + i64::from(digit - b'0'));
    let (month_and_day, rest) = digits[count..].split_first_chunk::<6>()?;
    if month_and_day[0] != b'-' || month_and_day[3] != b'-' {
        return None;
    }
    Some((days_of(sign * year, number(&month_and_day[1..3])?, number(&month_and_day[4..])?)?, rest))
}

/// The moment with this time of day, as it is written after a date.
#[inline]
fn at_time(midnight: i128, rest: &[u8]) -> Option<Moment> {
    let [b'T' | b't' | b' ', time @ ..] = rest else {
        let seconds = i64::try_from(midnight).ok()?;
        return rest.is_empty().then_some(Moment { seconds, nanos: 0, offset: None, is_date: true });
    };
    let (second_of_day, nanos, rest) = clock(time)?;
    let offset = offset_seconds(rest)?;
    let seconds = midnight + i128::from(second_of_day) - i128::from(offset.unwrap_or(0));
    Some(Moment { seconds: i64::try_from(seconds).ok()?, nanos, offset, is_date: false })
}

/// `05:15`, `05:15:00` or `05:15:00.25`: the second of the day, nanoseconds, and what follows.
#[inline]
pub(super) fn clock(time: &[u8]) -> Option<(u32, u32, &[u8])> {
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
            nanos = nanos_of(&fraction[..digits])?;
            rest = &fraction[digits..];
        }
    }
    (hour < 24 && minute < 60 && second < 60).then_some((hour * 3600 + minute * 60 + second, nanos, rest))
}

/// The digits of a fraction of a second; `None` if there is none, or one finer than a nanosecond.
pub(super) fn nanos_of(digits: &[u8]) -> Option<u32> {
    let kept = digits.len().min(9);
    if kept == 0 || digits[kept..].iter().any(|digit| *digit != b'0') {
        return None;
    }
    Some(number(&digits[..kept])? * 10u32.pow(9 - kept as u32))
}

/// `Z`, `+02:00`, `+0200`, `+02`, `+00:53:28` or nothing, in seconds.
fn offset_seconds(bytes: &[u8]) -> Option<Option<i32>> {
    let bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
    let (sign, digits) = match bytes {
        b"" => return Some(None),
        b"Z" | b"z" => return Some(Some(0)),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes, seconds) = match digits {
        [a, b] => (number(&[*a, *b])?, 0, 0),
        [a, b, c, d] | [a, b, b':', c, d] => (number(&[*a, *b])?, number(&[*c, *d])?, 0),
        [a, b, b':', c, d, b':', e, f] => (number(&[*a, *b])?, number(&[*c, *d])?, number(&[*e, *f])?),
        _ => return None,
    };
    let is_offset = hours < 24 && minutes < 60 && seconds < 60;
    is_offset.then(|| Some(sign * (hours * 3600 + minutes * 60 + seconds) as i32))
}

/// Two to nine decimal digits.
#[inline]
pub(super) fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0'))
    })
}
