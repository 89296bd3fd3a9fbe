//! Number, sum and spread of values: what a mean, a variance and a standard deviation are made of.
//!
//! The spread is the sum of the squared distances from the mean, kept as values arrive and as partial results merge, by
//! the updates of T. F. Chan, G. H. Golub and R. J. LeVeque (Algorithms for Computing the Sample Variance, The American
//! Statistician 37, 1983). For two sets of m and n values with sums S and T, and spreads of their own,
//!
//! ```text
//!   spread = spread(S) + spread(T) + (m T - n S)² / (m n (m + n))
//! ```
//!
//! and one value more is the case n = 1. Sums of squares, the obvious other way, cancel: ten values near 1.7e15 leave no
//! digit of their variance even in twice the precision of a float. Here nothing cancels but the difference m T - n S, and
//! all is computed in twice the precision ([`Double`]), so that the rounded result does not depend on the order in which
//! values came or sets were merged.

//!
//! Squares of numbers beyond 1e154 or below 1e-154 are no floats, though their deviation is one. So where values are that
//! large or small, sum and spread are kept of the values divided by a power of two, which the largest of them decides.

use super::double::{Double, SMALL_MAX};

/// Number, sum and spread of values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) n: i64,
    /// What values have been divided by: this power of 2^256.
    scale: i32,
    pub(super) sum: Double,
    pub(super) squares: Double,
}

/// The bits of the first word that hold the number; the scale is in those above.
const COUNT_BITS: u32 = 48;
/// The binary exponents up to which values are kept as they are.
const EXPONENT_MAX: i32 = 320;

/// The binary exponent of a number other than zero.
#[inline(always)]
fn exponent(value: f64) -> i32 {
    (value.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

/// Whether sums of squares of this number and of others like it are floats.
#[inline(always)]
fn is_plain(value: f64) -> bool {
    exponent(value).abs() <= EXPONENT_MAX || value == 0.0
}

/// The number divided by a power of 2^256.
fn shifted(number: Double, by: i32) -> Double {
    let factor = 2f64.powi(if by < 0 { 256 } else { -256 });
    (0..by.unsigned_abs()).fold(number, |Double { sum, lost }, _| Double { sum: sum * factor, lost: lost * factor })
}

impl Spread {
    #[inline(always)]
    pub(super) fn from_words(words: [u64; 5]) -> Spread {
        Spread {
            n: (words[0] & ((1 << COUNT_BITS) - 1)) as i64,
            scale: (words[0] as i64 >> COUNT_BITS) as i32,
            sum: Double::from_words([words[1], words[2]]),
            squares: Double::from_words([words[3], words[4]]),
        }
    }

    #[inline(always)]
    pub(super) fn to_words(self) -> [u64; 5] {
        let (sum, squares) = (self.sum.to_words(), self.squares.to_words());
        [self.n as u64 | (i64::from(self.scale) << COUNT_BITS) as u64, sum[0], sum[1], squares[0], squares[1]]
    }

    /// One value.
    pub(super) fn of(value: Double) -> Spread {
        let one = Spread { n: 1, scale: 0, sum: value, squares: Double::default() };
        if is_plain(value.sum) || !value.sum.is_finite() {
            return one;
        }
        one.at_scale((exponent(value.sum) + 128).div_euclid(256))
    }

    /// The same with its values divided by another power.
    fn at_scale(self, scale: i32) -> Spread {
        let by = scale - self.scale;
        Spread { n: self.n, scale, sum: shifted(self.sum, by), squares: shifted(self.squares, 2 * by) }
    }

    /// Whether all values are zero, so that any scale is theirs.
    fn is_zero(&self) -> bool {
        self.sum == Double::default() && self.squares == Double::default()
    }

    /// Both at the scale of the larger values.
    #[cold]
    fn aligned(self, other: Spread) -> (Spread, Spread) {
        let scale = match (self.is_zero(), other.is_zero()) {
            (true, false) => other.scale,
            (false, true) => self.scale,
            _ => self.scale.max(other.scale),
        };
        (self.at_scale(scale), other.at_scale(scale))
    }

    /// One value more.
    #[inline(always)]
    pub(super) fn add(self, value: Double) -> Spread {
        /// Up to here the product of two neighbouring counts is exact.
        const EXACT_MAX: i64 = 1 << 26;
        if self.n == 0 {
            return Spread::of(value);
        }
        if self.scale != 0 || !is_plain(value.sum) {
            return self.merge(Spread::of(value));
        }
        let (count, next) = (self.n as f64, (self.n + 1) as f64);
        let distance = if count * next <= SMALL_MAX {
            // Most sets are small, and for them half of the steps are enough.
            value.scaled_by_small(count).minus(self.sum).squared().divided_by_small(count * next)
        } else {
            let square = value.scaled(count).minus(self.sum).squared();
            if self.n < EXACT_MAX { square.divided(count * next) } else { square.divided(count).divided(next) }
        };
        Spread { n: self.n + 1, scale: 0, sum: self.sum.merge(value), squares: self.squares.merge(distance) }
    }

    /// The values of both.
    #[inline(always)]
    pub(super) fn merge(self, other: Spread) -> Spread {
        if self.n == 0 || other.n == 0 {
            return if self.n == 0 { other } else { self };
        }
        if self.scale != other.scale {
            let (own, other) = self.aligned(other);
            return own.merge(other);
        }
        let (m, n) = (self.n as f64, other.n as f64);
        let square = other.sum.scaled(m).minus(self.sum.scaled(n)).squared();
        let distance = square.divided(m).divided(n).divided(m + n);
        Spread {
            n: self.n + other.n,
            scale: self.scale,
            sum: self.sum.merge(other.sum),
            squares: self.squares.merge(other.squares).merge(distance),
        }
    }

    /// The variance of a sample. At least two values.
    pub(super) fn variance(self) -> f64 {
        let squares = shifted(Double::of(self.scaled_variance()), -2 * self.scale);
        squares.sum
    }

    /// The standard deviation of a sample. At least two values.
    pub(super) fn deviation(self) -> f64 {
        shifted(Double::of(self.scaled_variance().sqrt()), -self.scale).sum
    }

    /// The variance of the values as they are kept.
    fn scaled_variance(self) -> f64 {
        if !self.sum.sum.is_finite() {
            return f64::NAN;
        }
        let count = self.n as f64;
        let mean = self.sum.total() / count;
        let squares = self.squares.total();
        // Two floats that differ leave more than 2^-108 of the square of the mean; less is noise of equal values.
        if squares <= mean * mean * 2f64.powi(-130) { 0.0 } else { self.squares.divided(count - 1.0).total() }
    }

    /// The mean. At least one value.
    pub(super) fn mean(n: i64, sum: Double) -> f64 {
        let plain = sum.total();
        if plain.is_finite() { sum.divided(n as f64).total() } else { plain }
    }
}

#[cfg(test)]
mod tests;
