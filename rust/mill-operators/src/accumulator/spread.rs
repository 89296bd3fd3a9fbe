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

use super::double::Double;

/// Number, sum and spread of values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) n: i64,
    pub(super) sum: Double,
    pub(super) squares: Double,
}

impl Spread {
    #[inline(always)]
    pub(super) fn from_words(words: [u64; 5]) -> Spread {
        Spread {
            n: words[0] as i64,
            sum: Double::from_words([words[1], words[2]]),
            squares: Double::from_words([words[3], words[4]]),
        }
    }

    #[inline(always)]
    pub(super) fn to_words(self) -> [u64; 5] {
        let (sum, squares) = (self.sum.to_words(), self.squares.to_words());
        [self.n as u64, sum[0], sum[1], squares[0], squares[1]]
    }

    /// One value.
    pub(super) fn of(value: Double) -> Spread {
        Spread { n: 1, sum: value, squares: Double::default() }
    }

    /// One value more.
    #[inline(always)]
    pub(super) fn add(self, value: Double) -> Spread {
        /// Up to here the product of two neighbouring counts is exact.
        const EXACT_MAX: i64 = 1 << 26;
        if self.n == 0 {
            return Spread::of(value);
        }
        let (count, next) = (self.n as f64, (self.n + 1) as f64);
        let square = value.scaled(count).minus(self.sum).squared();
        let distance = if self.n < EXACT_MAX { square.divided(count * next) } else { square.divided(count).divided(next) };
        Spread { n: self.n + 1, sum: self.sum.merge(value), squares: self.squares.merge(distance) }
    }

    /// The values of both.
    #[inline(always)]
    pub(super) fn merge(self, other: Spread) -> Spread {
        if self.n == 0 || other.n == 0 {
            return if self.n == 0 { other } else { self };
        }
        let (m, n) = (self.n as f64, other.n as f64);
        let square = other.sum.scaled(m).minus(self.sum.scaled(n)).squared();
        let distance = square.divided(m).divided(n).divided(m + n);
        Spread {
            n: self.n + other.n,
            sum: self.sum.merge(other.sum),
            squares: self.squares.merge(other.squares).merge(distance),
        }
    }

    /// The variance of a sample. At least two values.
    pub(super) fn variance(self) -> f64 {
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
