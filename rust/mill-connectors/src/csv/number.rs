//! Numbers out of bytes.

/// An integer in decimal, with an optional sign; `None` if it is none or does not fit.
pub(crate) fn parse_integer<T: TryFrom<i64> + std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    // Up to 18 digits cannot overflow an i64.
    const DIGITS_MAX: usize = 18;
    let (is_negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return std::str::from_utf8(bytes).ok()?.parse().ok();
    }
    let mut value = 0i64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    T::try_from(if is_negative { -value } else { value }).ok()
}

/// Powers of ten that are exact as f64.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// A float, rounded correctly; `None` if it is none.
pub(crate) fn parse_float(bytes: &[u8]) -> Option<f64> {
    // Short decimals, by far the most: digits and power of ten are both exact, so one division rounds once.
    const DIGITS_MAX: usize = 15;
    let (is_negative, unsigned) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let slow = || std::str::from_utf8(bytes).ok()?.parse().ok();
    if unsigned.len() > DIGITS_MAX + 1 {
        return slow();
    }
    let (mut digits, mut value, mut point) = (0, 0u64, None);
    for (at, &byte) in unsigned.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                value = value * 10 + u64::from(byte - b'0');
                digits += 1;
            }
            b'.' if point.is_none() => point = Some(unsigned.len() - at - 1),
            _ => return slow(),
        }
    }
    if digits == 0 || digits > DIGITS_MAX {
        return slow();
    }
    let value = value as f64 / POWERS[point.unwrap_or(0)];
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges_of_integers() {
        assert_eq!(parse_integer::<i64>(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_integer::<i64>(b"9223372036854775808"), None);
        assert_eq!(parse_integer::<u64>(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_integer::<u8>(b"256"), None);
        assert_eq!(parse_integer::<u8>(b"-1"), None);
        for text in ["", "-", "+", "1.0", "1e3", "--1", "12a"] {
            assert_eq!(parse_integer::<i64>(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn odd_floats_are_read_as_std_does() {
        for text in ["0", "-0", ".5", "5.", ".", "", "-", "1e5", "inf", "NaN", "1.7976931348623157e308", "1..2", "0x1"] {
            let expected: Option<f64> = text.parse().ok();
            assert_eq!(parse_float(text.as_bytes()).map(f64::to_bits), expected.map(f64::to_bits), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn floats_round_as_std_does(value: f64, places in 0usize..12, scale in -3i32..9) {
            let value = value.sin() * 10f64.powi(scale);
            let text = format!("{value:.places$}");
            prop_assert_eq!(parse_float(text.as_bytes()).unwrap().to_bits(), text.parse::<f64>().unwrap().to_bits());
        }
    }
}
