//! Integers, floats and decimals out of bytes.

use std::str::FromStr;

use arrow::array::ArrowNativeTypeOp;

use super::Misfit;

/// An integer in decimal with an optional sign; also `12.0` and `1.2e1`, which are whole.
///
/// # Errors
/// [`Misfit::Digits`] if it is a number with a fraction, [`Misfit::Range`] if it does not fit.
///
/// # Examples
/// ```
/// use mill_frame::text::{Misfit, parse_integer};
/// assert_eq!(parse_integer::<i64>(b"-9223372036854775808"), Ok(i64::MIN));
/// assert_eq!(parse_integer::<i64>(b"1.75"), Err(Misfit::Digits));
/// ```
#[inline]
pub fn parse_integer<T: TryFrom<i64> + TryFrom<i128>>(bytes: &[u8]) -> Result<T, Misfit> {
    // Up to 18 digits cannot overflow an i64.
    const DIGITS_MAX: usize = 18;
    let (is_negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return parse_any_integer(bytes);
    }
    let mut value = 0i64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return parse_any_integer(bytes);
        }
        value = value * 10 + i64::from(digit);
    }
    T::try_from(if is_negative { -value } else { value }).map_err(|_| Misfit::Range)
}

/// Long integers, and those written as decimals.
#[cold]
fn parse_any_integer<T: TryFrom<i128>>(bytes: &[u8]) -> Result<T, Misfit> {
    let value: i128 = parse_decimal(bytes, 38, 0)?;
    T::try_from(value).map_err(|_| Misfit::Range)
}

/// Powers of ten that are exact as f64.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A float, rounded correctly.
///
/// # Errors
/// [`Misfit::Form`] if it is none; [`Misfit::Range`] if it is finite and would become infinite; [`Misfit::Digits`] if it
/// is an integer whose digits the float does not keep.
///
/// # Examples
/// ```
/// use mill_frame::text::{Misfit, parse_float};
/// assert_eq!(parse_float(b"0.1"), Ok(0.1));
/// assert_eq!(parse_float(b"1e400"), Err(Misfit::Range));
/// assert_eq!(parse_float(b"9007199254740993"), Err(Misfit::Digits));
/// ```
#[inline]
pub fn parse_float(bytes: &[u8]) -> Result<f64, Misfit> {
    // Short decimals, by far the most: digits and power of ten are both exact, so one division rounds once.
    const DIGITS_MAX: usize = 15;
    let (is_negative, unsigned) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if unsigned.len() > DIGITS_MAX + 1 {
        return parse_any_float(bytes);
    }
    let (mut digits, mut value, mut point) = (0, 0u64, None);
    for (at, &byte) in unsigned.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                value = value * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(unsigned.len() - at - 1),
            _ => return parse_any_float(bytes),
        }
    }
    if digits == 0 || digits > DIGITS_MAX {
        return parse_any_float(bytes);
    }
    let value = value as f64 / POWERS[point.unwrap_or(0)];
    Ok(if is_negative { -value } else { value })
}

/// What both widths of floats have.
pub(super) trait Float: Copy + FromStr + std::fmt::LowerExp {
    fn is_infinite(self) -> bool;
}

impl Float for f64 {
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

impl Float for f32 {
    fn is_infinite(self) -> bool {
        self.is_infinite()
    }
}

/// A float of either width, by the slow and general way.
pub(super) fn parse_any_float<F: Float>(bytes: &[u8]) -> Result<F, Misfit> {
    let value: F = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or(Misfit::Form)?;
    let digits = bytes.strip_prefix(b"-").or(bytes.strip_prefix(b"+")).unwrap_or(bytes);
    if value.is_infinite() {
        // The names of infinity begin with a letter.
        let is_named = digits.first().is_some_and(u8::is_ascii_alphabetic);
        return if is_named { Ok(value) } else { Err(Misfit::Range) };
    }
    if digits.iter().all(u8::is_ascii_digit) && !keeps_digits(digits, value) {
        return Err(Misfit::Digits);
    }
    Ok(value)
}

/// Whether a float is exactly this integer, or is written with these digits: then nothing is lost.
fn keeps_digits<F: Float>(digits: &[u8], value: F) -> bool {
    let trimmed = |digits: &[u8]| -> Vec<u8> {
        let first = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
        let last = digits.iter().rposition(|digit| *digit != b'0').map_or(first, |at| at + 1);
        digits[first..last].to_vec()
    };
    let digits = trimmed(digits);
    let significant = |text: String| -> Vec<u8> {
        let mantissa = text.split('e').next().unwrap_or_default();
        trimmed(&mantissa.bytes().filter(u8::is_ascii_digit).collect::<Vec<_>>())
    };
    // With that many digits after the first an integer is written out exactly.
    significant(format!("{value:e}")) == digits || significant(format!("{value:.320e}")) == digits
}

/// A decimal number as the integer that a decimal type of this precision and scale stores.
///
/// # Errors
/// [`Misfit::Digits`] if digits would be lost after the point, [`Misfit::Range`] if there are too many before it.
///
/// # Examples
/// ```
/// use mill_frame::text::{Misfit, parse_decimal};
/// assert_eq!(parse_decimal::<i128>(b"12.5", 10, 2), Ok(1250));
/// assert_eq!(parse_decimal::<i128>(b"1.25e1", 10, 2), Ok(1250));
/// assert_eq!(parse_decimal::<i128>(b"12.345", 10, 2), Err(Misfit::Digits));
/// ```
pub fn parse_decimal<N: ArrowNativeTypeOp>(bytes: &[u8], precision: u8, scale: i8) -> Result<N, Misfit> {
    let (is_negative, unsigned) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (mantissa, exponent) = match unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&unsigned[..at], exponent_of(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    let is_number = !(whole.is_empty() && fraction.is_empty());
    if !is_number || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(Misfit::Form);
    }
    // Zeros at either end say nothing but where the point is.
    let digit = |at: usize| if at < whole.len() { whole[at] } else { fraction[at - whole.len()] };
    let count = whole.len() + fraction.len();
    let Some(first) = (0..count).find(|at| digit(*at) != b'0') else { return Ok(N::ZERO) };
    let last = (first..count).rfind(|at| digit(*at) != b'0').map_or(count, |at| at + 1);
    // The value is its digits times ten to this power, in units of the last digit that the type stores.
    let power = exponent - fraction.len() as i64 + (count - last) as i64 + i64::from(scale);
    if power < 0 {
        return Err(Misfit::Digits);
    }
    let digits = (last - first) as i64;
    if digits.saturating_add(power) > i64::from(precision) {
        return Err(Misfit::Range);
    }
    let ten = N::usize_as(10);
    let step = |value: N, add: u8| {
        value.mul_checked(ten).and_then(|value| value.add_checked(N::usize_as(usize::from(add)))).map_err(|_| Misfit::Range)
    };
    let mut value = N::ZERO;
    for at in first..last {
        value = step(value, digit(at) - b'0')?;
    }
    for _ in 0..power {
        value = step(value, 0)?;
    }
    if is_negative { value.neg_checked().map_err(|_| Misfit::Range) } else { Ok(value) }
}

fn exponent_of(bytes: &[u8]) -> Result<i64, Misfit> {
    const DIGITS_MAX: usize = 12;
    let (is_negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Misfit::Form);
    }
    // A longer one is out of every range; what its digits are does not matter.
    let kept = &digits[..digits.len().min(DIGITS_MAX)];
    let value = kept.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    Ok(if is_negative { -value } else { value })
}
