//! The exact sum of floats.
//!
//! ```text
//!   add ──► high + low, as long as both additions are exact ──► one rounding
//!            │ not exact
//!            ▼
//!           an integer of 2176 bits, whose last bit is 2^-1074: all floats, and sums of 2^31 of them, are such integers
//! ```

use std::cmp::Ordering;

/// How many words of 64 bits hold any sum: 1024 + 1074 bits, 31 for the number of addends, the sign.
const WORDS: usize = 34;

/// A sum of floats that loses nothing.
#[derive(Default)]
pub(super) struct Total {
    high: f64,
    low: f64,
    /// The sum so far and all of what follows, in two's complement, once `high + low` cannot hold it.
    words: Option<Box<[u64; WORDS]>>,
    is_wide: bool,
    /// The sum of infinities and NaN, if there are any.
    special: Option<f64>,
}

impl Total {
    /// Starts over.
    pub(super) fn clear(&mut self) {
        (self.high, self.low, self.is_wide, self.special) = (0.0, 0.0, false, None);
    }

    /// Adds a float.
    pub(super) fn add(&mut self, x: f64) {
        if !x.is_finite() {
            self.special = Some(self.special.map_or(x, |so_far| so_far + x));
            return;
        }
        if !self.is_wide {
            let (high, rest) = two_sum(self.high, x);
            let (low, lost) = two_sum(self.low, rest);
            if high.is_finite() && lost == 0.0 {
                (self.high, self.low) = (high, low);
                return;
            }
            self.words.get_or_insert_with(|| Box::new([0; WORDS])).fill(0);
            self.is_wide = true;
            let (high, low) = (self.high, self.low);
            self.add_wide(high);
            self.add_wide(low);
        }
        self.add_wide(x);
    }

    fn add_wide(&mut self, x: f64) {
        let Some(words) = &mut self.words else { return };
        let bits = x.abs().to_bits();
        let (exponent, fraction) = ((bits >> 52) as usize, bits & ((1 << 52) - 1));
        // A float is its mantissa times a power of two from 2^-1074 on.
        let (mantissa, place) = if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        let shifted = u128::from(mantissa) << (place % 64);
        let parts = [shifted as u64, (shifted >> 64) as u64];
        let mut carry = false;
        for (i, word) in words[place / 64..].iter_mut().enumerate() {
            let part = parts.get(i).copied().unwrap_or(0);
            if i >= parts.len() && !carry {
                break;
            }
            let (value, first) = if x < 0.0 { word.overflowing_sub(part) } else { word.overflowing_add(part) };
            let (value, second) = match x < 0.0 {
                true => value.overflowing_sub(u64::from(carry)),
                false => value.overflowing_add(u64::from(carry)),
            };
            *word = value;
            carry = first || second;
        }
    }

    /// The float nearest to the sum divided by a number of at most 31 bits.
    pub(super) fn over(&self, count: u32) -> f64 {
        if let Some(special) = self.special {
            return special;
        }
        match &self.words {
            Some(words) if self.is_wide => nearest(words, count),
            _ if count == 1 => self.high + self.low,
            _ if self.low == 0.0 => self.high / f64::from(count),
            _ => {
                let mut wide = Total { words: Some(Box::new([0; WORDS])), ..Total::default() };
                wide.add_wide(self.high);
                wide.add_wide(self.low);
                wide.words.map_or(0.0, |words| nearest(&words, count))
            }
        }
    }
}

/// A sum, and what its rounding lost: together they are exact, unless the sum is infinite.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_in_sum = sum - a;
    let lost = (a - (sum - b_in_sum)) + (b - b_in_sum);
    (sum, lost)
}

/// The float nearest to an integer of units of 2^-1074, divided by `count`.
fn nearest(words: &[u64; WORDS], count: u32) -> f64 {
    let mut words = *words;
    let is_negative = words[WORDS - 1] >> 63 == 1;
    if is_negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
    }
    let count = u64::from(count);
    let mut rest = 0;
    for word in words.iter_mut().rev() {
        let dividend = u128::from(rest) << 64 | u128::from(*word);
        (*word, rest) = ((dividend / u128::from(count)) as u64, (dividend % u128::from(count)) as u64);
    }
    let magnitude = rounded(&words, rest, count);
    if is_negative { -magnitude } else { magnitude }
}

/// The float nearest to `words + rest / count` units of 2^-1074, half to even.
fn rounded(words: &[u64; WORDS], rest: u64, count: u64) -> f64 {
    let top = words.iter().rposition(|word| *word != 0).unwrap_or(0);
    if top == 0 && words[0] < 1 << 53 {
        // The bits of so small a float are the number of its units.
        let is_up = match (2 * rest).cmp(&count) {
            Ordering::Less => false,
            Ordering::Equal => words[0] % 2 == 1,
            Ordering::Greater => true,
        };
        return f64::from_bits(words[0] + u64::from(is_up));
    }
    // The first 64 bits; what is cut off is kept as the last of them.
    let zeros = words[top].leading_zeros();
    let below = top.checked_sub(1).map_or(0, |i| words[i]);
    let both = (u128::from(words[top]) << 64 | u128::from(below)) << zeros;
    let cut = both as u64 != 0 || words[..top.saturating_sub(1)].iter().any(|word| *word != 0) || rest != 0;
    let first = (both >> 64) as u64 | u64::from(cut);
    let exponent = top as i32 * 64 - zeros as i32 - 1074;
    // In two steps, as the power itself may be no float.
    let half = exponent / 2;
    first as f64 * 2f64.powi(half) * 2f64.powi(exponent - half)
}

#[cfg(test)]
mod tests {
    use super::Total;

    fn over(values: &[f64], count: u32) -> f64 {
        let mut total = Total::default();
        // A total that was used before starts from nothing.
        for _ in 0..2 {
            total.clear();
            values.iter().for_each(|x| total.add(*x));
        }
        total.over(count)
    }

    #[test]
    fn sums_are_rounded_once() {
        let tiny = f64::from_bits(1);
        for (values, expected) in [
            (vec![], 0.0),
            (vec![-0.0, -0.0], 0.0),
            (vec![0.1; 10], 1.0),
            (vec![1e16, 1.0, -1e16], 1.0),
            (vec![1e300, tiny, -1e300, 1.0, -1.0], tiny),
            (vec![1e308, 1e308, -1e308], 1e308),
            (vec![1e308, 1e308], f64::INFINITY),
            (vec![-1e308, -1e308, 1e-300], f64::NEG_INFINITY),
            (vec![f64::MAX, -f64::MAX, tiny, -1e-320], tiny - 1e-320),
            (vec![1.0, 2f64.powi(-53), tiny], 1.0 + f64::EPSILON),
            (vec![1.0, 2f64.powi(-53), -tiny], 1.0),
            (vec![1e100, 1.0, f64::INFINITY], f64::INFINITY),
        ] {
            assert_eq!(over(&values, 1).to_bits(), f64::to_bits(expected), "{values:?}: {}", over(&values, 1));
        }
        assert!(over(&[f64::INFINITY, 1.0, f64::NEG_INFINITY], 1).is_nan());
    }

    #[test]
    fn means_are_rounded_once() {
        let tiny = f64::from_bits(1);
        for (values, expected) in [
            (vec![1e308, 1e308], 1e308),
            (vec![1.7e308, 1.7e308, -1e-300], 1.7e308 * (2.0 / 3.0)),
            (vec![1e16, 1.0, -1e16], 1.0 / 3.0),
            (vec![tiny, 0.0], 0.0),
            (vec![tiny, tiny, tiny, 0.0], tiny),
            (vec![-tiny, -tiny, -tiny, 0.0], -tiny),
        ] {
            let found = over(&values, values.len() as u32);
            assert!((found - expected).abs() <= expected.abs() * f64::EPSILON, "{values:?}: {found}");
        }
    }
}
