//! Dates, times of day and durations out of bytes.

use arrow::datatypes::TimeUnit;

use super::moment::{Moments, clock, nanos_of, number, parse_signed_date, per_second};
use super::number::parse_integer;
use super::{Misfit, calendar};

/// Days since the epoch: `2024-01-31`, `20240131`, `+10000-01-01`.
#[inline]
pub(super) fn parse_date(moments: &mut Moments, bytes: &[u8]) -> Result<i64, Misfit> {
    if let Some((b'+' | b'-', _)) = bytes.split_first() {
        let (days, rest) = parse_signed_date(bytes).ok_or(Misfit::Form)?;
        return if rest.is_empty() { Ok(days) } else { Err(Misfit::Form) };
    }
    if bytes.len() == 8 && bytes.iter().all(u8::is_ascii_digit) {
        let part = |range: std::ops::Range<usize>| number(&bytes[range]).ok_or(Misfit::Form);
        return calendar::days_of(i64::from(part(0..4)?), part(4..6)?, part(6..8)?).ok_or(Misfit::Form);
    }
    match moments.parse(bytes) {
        Some(moment) if moment.is_date => Ok(moment.seconds.div_euclid(86_400)),
        _ => Err(Misfit::Form),
    }
}

/// A time of day in units since midnight: `05:15`, `05:15:00.25`, or the number of units.
///
/// # Errors
/// [`Misfit::Digits`] if the unit is too coarse, [`Misfit::Range`] if a number is no time of one day.
///
/// # Examples
/// ```
/// use arrow::datatypes::TimeUnit;
/// use mill_frame::text::parse_time;
/// assert_eq!(parse_time(b"00:01:30.5", TimeUnit::Millisecond), Ok(90_500));
/// ```
pub fn parse_time(bytes: &[u8], unit: TimeUnit) -> Result<i64, Misfit> {
    let per_second = per_second(unit);
    if let Some((second, nanos, [])) = clock(bytes) {
        let nanos_per_unit = 1_000_000_000 / per_second as u32;
        if !nanos.is_multiple_of(nanos_per_unit) {
            return Err(Misfit::Digits);
        }
        return Ok(i64::from(second) * per_second + i64::from(nanos / nanos_per_unit));
    }
    let value: i64 = parse_integer(bytes)?;
    if (0..86_400 * per_second).contains(&value) { Ok(value) } else { Err(Misfit::Range) }
}

/// A duration in units: `PT1.5S`, `-P1DT2H`, or the number of units.
///
/// # Errors
/// [`Misfit::Form`] if it is none, or has months or years, whose length is not fixed; [`Misfit::Digits`] if the unit is
/// too coarse, [`Misfit::Range`] if it overflows.
///
/// # Examples
/// ```
/// use arrow::datatypes::TimeUnit;
/// use mill_frame::text::parse_duration;
/// assert_eq!(parse_duration(b"PT1M30S", TimeUnit::Millisecond), Ok(90_000));
/// assert_eq!(parse_duration(b"-PT0.000001S", TimeUnit::Microsecond), Ok(-1));
/// ```
pub fn parse_duration(bytes: &[u8], unit: TimeUnit) -> Result<i64, Misfit> {
    let (sign, rest) = match bytes {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        rest => (1, rest),
    };
    let [b'P', rest @ ..] = rest else { return parse_integer(bytes) };
    let nanos = sign * nanos_of_parts(rest).ok_or(Misfit::Form)?;
    let nanos_per_unit = i128::from(1_000_000_000 / per_second(unit));
    if nanos % nanos_per_unit != 0 {
        return Err(Misfit::Digits);
    }
    i64::try_from(nanos / nanos_per_unit).map_err(|_| Misfit::Range)
}

/// What follows the `P`: weeks and days, then after a `T` hours, minutes and seconds, each with its letter.
fn nanos_of_parts(mut rest: &[u8]) -> Option<i128> {
    /// Letter, whether it comes after the `T`, and how many seconds it is.
    const PARTS: [(u8, bool, i128); 5] =
        [(b'W', false, 604_800), (b'D', false, 86_400), (b'H', true, 3_600), (b'M', true, 60), (b'S', true, 1)];
    const DIGITS_MAX: usize = 24;
    let (mut nanos, mut is_time, mut next) = (0i128, false, 0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        if rest[0] == b'T' && !is_time {
            is_time = true;
            rest = &rest[1..];
        }
        let (sign, unsigned) = match rest {
            [b'-', unsigned @ ..] => (-1, unsigned),
            unsigned => (1, unsigned),
        };
        let count = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > DIGITS_MAX {
            return None;
        }
        let whole = unsigned[..count].iter().fold(0i128, |value, digit| value * 10 + i128::from(digit - b'0'));
        rest = &unsigned[count..];
        let mut fraction = 0;
        if let [b'.' | b',', digits @ ..] = rest {
            let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            fraction = nanos_of(&digits[..count])?;
            rest = &digits[count..];
        }
        let (letter, after) = rest.split_first()?;
        let at = next + PARTS[next..].iter().position(|part| part.0 == *letter && part.1 == is_time)?;
        if fraction > 0 && *letter != b'S' {
            return None;
        }
        nanos = nanos.checked_add(sign * (whole * PARTS[at].2 * 1_000_000_000 + i128::from(fraction)))?;
        next = at + 1;
        rest = after;
    }
    Some(nanos)
}
