//! PostgreSQL's `numeric` in binary form.
//!
//! ```text
//!   digits i16 | weight i16 | sign u16 | scale u16 | digits × i16, each of four decimal digits
//! ```
//!
//! The value is the sum of `digit[i] * 10000^(weight - i)`; `scale` is how many decimal digits are shown after the point.

use std::fmt::Write as _;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;

/// Appends the number that these decimal digits are, of which `scale` come after the point.
pub(super) fn push(is_negative: bool, digits: &str, scale: i32, out: &mut Vec<u8>) {
    let mut digits = digits.trim_start_matches('0').to_owned();
    // Digits before the point that a negative scale leaves out.
    for _ in scale..0 {
        if !digits.is_empty() {
            digits.push('0');
        }
    }
    let shown = scale.max(0);
    // The point is to be between two groups of four.
    digits.extend(std::iter::repeat_n('0', ((4 - shown % 4) % 4) as usize));
    let fraction_groups = (shown + 3) / 4;
    let missing = (4 - digits.len() % 4) % 4;
    digits.insert_str(0, &"000"[..missing]);
    let group = |four: &[u8]| four.iter().fold(0, |sum, digit| sum * 10 + i16::from(digit - b'0'));
    let groups: Vec<i16> = digits.as_bytes().chunks(4).map(group).collect();
    let weight = groups.len() as i32 - fraction_groups - 1;
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let kept = &groups[first..last];
    let weight = if kept.is_empty() { 0 } else { weight - first as i32 };
    out.extend_from_slice(&(kept.len() as i16).to_be_bytes());
    out.extend_from_slice(&(weight as i16).to_be_bytes());
    out.extend_from_slice(&(if is_negative && !kept.is_empty() { NEGATIVE } else { POSITIVE }).to_be_bytes());
    out.extend_from_slice(&(shown as u16).to_be_bytes());
    for group in kept {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// The digits of a number with `scale` of them after the point, with its sign; an error says what it is instead.
pub(super) fn digits(bytes: &[u8], scale: i32) -> Result<String, String> {
    let damaged = || "a numeric has a form that is not known".to_owned();
    let word = |at: usize| bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]])).ok_or_else(damaged);
    let (count, weight, sign) = (usize::from(word(0)?), i32::from(word(2)? as i16), word(4)?);
    match sign {
        POSITIVE | NEGATIVE => {}
        0xC000 => return Err("the value is NaN, which no decimal is".to_owned()),
        0xD000 => return Err("the value is Infinity, which no decimal is".to_owned()),
        0xF000 => return Err("the value is -Infinity, which no decimal is".to_owned()),
        _ => return Err(damaged()),
    }
    if bytes.len() != 8 + 2 * count {
        return Err(damaged());
    }
    let mut text = String::new();
    for index in 0..count {
        let group = word(8 + 2 * index)?;
        if group > 9999 {
            return Err(damaged());
        }
        let _ = write!(text, "{group:04}");
    }
    // Where the point is: so many digits of the text are before it.
    let before = (weight + 1) * 4;
    let wanted = before + scale;
    let is_zero = text.bytes().all(|digit| digit == b'0');
    if is_zero {
        return Ok("0".to_owned());
    }
    if wanted < 0 {
        return Err("the value has more digits after the point than the column".to_owned());
    }
    let wanted = wanted as usize;
    if text.len() > wanted {
        if text[wanted..].bytes().any(|digit| digit != b'0') {
            return Err("the value has more digits after the point than the column".to_owned());
        }
        text.truncate(wanted);
    } else {
        text.extend(std::iter::repeat_n('0', wanted - text.len()));
    }
    let trimmed = text.trim_start_matches('0');
    Ok(format!("{}{trimmed}", if sign == NEGATIVE { "-" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(number: i128, scale: i32) -> Vec<u8> {
        let mut out = Vec::new();
        push(number < 0, &number.unsigned_abs().to_string(), scale, &mut out);
        out
    }

    #[test]
    fn numbers_have_the_bytes_that_postgresql_sends() {
        // As `SELECT numeric_send(…)` shows them.
        for (number, scale, bytes) in [
            (0, 0, "0000000000000000"),
            (0, 2, "0000000000000002"),
            (1, 0, "00010000000000000001"),
            (12345, 0, "000200010000000000010929"),
            (-12345, 2, "0002000040000002007b1194"),
            (10000, 0, "00010001000000000001"),
            (1, 4, "0001ffff000000040001"),
            (1, 5, "0001fffe0000000503e8"),
            (100, 2, "00010000000000020001"),
        ] {
            let hex: String = encoded(number, scale).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, bytes, "{number} / 10^{scale}");
        }
    }

    #[test]
    fn numbers_come_back() {
        let mut numbers = vec![0, 1, -1, 9999, 10000, 10001, i128::from(u64::MAX), 10i128.pow(37), -(10i128.pow(38) - 1)];
        numbers.extend((0..60).map(|n| 7i128.pow(n % 45) * if n % 2 == 0 { 1 } else { -1 }));
        for number in numbers {
            for scale in [0, 1, 2, 3, 4, 5, 8, 19, 38] {
                assert_eq!(digits(&encoded(number, scale), scale).unwrap(), number.to_string(), "{scale}");
            }
            if number.abs() < 10i128.pow(30) {
                assert_eq!(digits(&encoded(number, -3), 0).unwrap(), (number * 1000).to_string());
                assert_eq!(digits(&encoded(number, 2), 5).unwrap(), (number * 1000).to_string());
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert!(digits(&encoded(123, 3), 2).is_err());
        assert_eq!(digits(&encoded(120, 3), 2).unwrap(), "12");
        assert!(digits(&encoded(1, 38), 2).is_err());
        assert!(digits(&[0, 0, 0, 0, 0xC0, 0, 0, 0], 2).unwrap_err().contains("NaN"));
        for bytes in [&[][..], &[0, 1, 0, 0, 0, 0, 0, 0], &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10], &[0, 0, 0, 0, 1, 0, 0, 0]] {
            assert!(digits(bytes, 2).is_err(), "{bytes:?}");
        }
    }
}
