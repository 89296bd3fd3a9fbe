//! Sums in twice the precision of a float.
//!
//! A sum is a pair: the rounded sum, and what rounding has lost. Adding is exact but for the loss of the loss, some 2^-106
//! of the sum. So the rounded total does not depend on the order of the values, short of one case in about 2^40, and a
//! mean does not suffer from values that nearly cancel. Variances: see `spread`.
//!
//! From: T. Ogita, S. M. Rump, S. Oishi, Accurate Sum and Dot Product, SIAM J. Sci. Comput. 26 (2005).

/// A rounded sum and what rounding has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Double {
    pub(super) sum: f64,
    pub(super) lost: f64,
}

impl Double {
    #[inline(always)]
    pub(super) fn from_words(words: [u64; 2]) -> Double {
        Double { sum: f64::from_bits(words[0]), lost: f64::from_bits(words[1]) }
    }

    #[inline(always)]
    pub(super) fn to_words(self) -> [u64; 2] {
        [self.sum.to_bits(), self.lost.to_bits()]
    }

    #[inline(always)]
    pub(super) fn add(self, value: f64) -> Double {
        let (sum, lost) = two_sum(self.sum, value);
        Double { sum, lost: self.lost + lost }
    }

    #[inline(always)]
    pub(super) fn merge(self, other: Double) -> Double {
        let (sum, lost) = two_sum(self.sum, other.sum);
        Double { sum, lost: self.lost + (lost + other.lost) }
    }

    /// The number nearest to a whole one that is `digits`, and what that loses.
    pub(super) fn of_whole(digits: i128) -> Double {
        let near = digits as f64;
        Double { sum: near, lost: digits.wrapping_sub(near as i128) as f64 }
    }

    /// The total, rounded once. Infinities and NaN are those of the plain sum.
    #[inline(always)]
    pub(super) fn total(self) -> f64 {
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }

    /// The mean of so many whole numbers that have this sum, to the nearest whole number; of two, the even one.
    pub(super) fn whole_mean(self, n: i64) -> i128 {
        let (sum, n) = (self.sum as i128 + self.lost as i128, i128::from(n));
        let (below, rest) = (sum.div_euclid(n), sum.rem_euclid(n));
        below + i128::from(2 * rest > n || 2 * rest == n && below % 2 != 0)
    }

    /// The whole number that is nearest to this and another one together; of two, the even one.
    pub(super) fn nearest(self, more: i128) -> i128 {
        let own = self.normal();
        let (whole, part) = (own.sum.floor(), own.sum - own.sum.floor() + own.lost);
        let (floor, rest) = (part.floor(), part - part.floor());
        let below = more + whole as i128 + floor as i128;
        below + i128::from(rest > 0.5 || rest == 0.5 && below % 2 != 0)
    }

    /// What [`unwrapped`](Double::unwrapped) is to be multiplied with in the end.
    pub(super) const UNWRAPPED: f64 = (1u128 << 64) as f64;

    /// The sum of both modulo 2^1024, and how often it wraps around: for sums of finite numbers that are infinite. Others
    /// are what they are.
    #[cold]
    pub(super) fn wrapped(self, other: Double) -> (Double, i64) {
        if !(self.sum.is_finite() && other.sum.is_finite()) {
            return (self.merge(other), 0);
        }
        // Both have one sign, as their sum is too large; half of what is taken away is taken from each of them.
        let half = 2f64.powi(1023).copysign(self.sum);
        let less = |of: Double| of.merge(Double::of(-half));
        let sum = less(self).merge(less(other));
        (sum, if half < 0.0 { -1 } else { 1 })
    }

    /// What a sum was before it wrapped around so many times, divided by 2^64.
    pub(super) fn unwrapped(self, times: i64) -> Double {
        let small = 2f64.powi(-64);
        Double { sum: self.sum * small, lost: self.lost * small }.merge(Double::of(times as f64 * 2f64.powi(960)))
    }

    /// A value that a float holds.
    #[inline(always)]
    pub(super) fn of(value: f64) -> Double {
        Double { sum: value, lost: 0.0 }
    }

    #[inline(always)]
    pub(super) fn minus(self, other: Double) -> Double {
        self.merge(Double { sum: -other.sum, lost: -other.lost })
    }

    /// The same total with as much of it in the sum as fits.
    #[inline(always)]
    fn normal(self) -> Double {
        let (sum, lost) = two_sum(self.sum, self.lost);
        if sum.is_finite() { Double { sum, lost } } else { Double::of(self.sum) }
    }

    #[inline(always)]
    pub(super) fn scaled(self, by: f64) -> Double {
        let (sum, lost) = two_product(self.sum, by);
        Double { sum, lost: lost + self.lost * by }
    }

    /// The same as [`scaled`](Double::scaled) by a whole number of at most [`SMALL_MAX`], in fewer steps.
    #[inline(always)]
    pub(super) fn scaled_by_small(self, by: f64) -> Double {
        let (sum, lost) = small_product(self.sum, by);
        Double { sum, lost: lost + self.lost * by }
    }

    /// The square, with as much of it in the sum as fits.
    #[inline(always)]
    pub(super) fn squared(self) -> Double {
        let own = self.normal();
        let (sum, lost) = two_product(own.sum, own.sum);
        Double { sum, lost: lost + 2.0 * own.sum * own.lost }.normal()
    }

    #[inline(always)]
    pub(super) fn divided(self, by: f64) -> Double {
        self.normal().quotient(by, two_product)
    }

    /// The same as [`divided`](Double::divided) of what has as much in the sum as fits, by a whole number of at most [`SMALL_MAX`], in
    /// fewer steps.
    #[inline(always)]
    pub(super) fn divided_by_small(self, by: f64) -> Double {
        self.quotient(by, small_product)
    }

    #[inline(always)]
    fn quotient(self, by: f64, product: impl Fn(f64, f64) -> (f64, f64)) -> Double {
        let first = self.sum / by;
        let (product, product_lost) = product(first, by);
        let rest = ((self.sum - product) - product_lost + self.lost) / by;
        Double { sum: first, lost: rest }.normal()
    }
}

/// Up to here a whole number has no lower half.
pub(super) const SMALL_MAX: f64 = (1u32 << 26) as f64;

/// The rounded sum and what rounding has lost, exactly.
#[inline(always)]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// The rounded product and what rounding has lost, exactly, but for values beyond 1e290.
#[inline(always)]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (halves(a), halves(b));
    let lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (product, if lost.is_finite() { lost } else { 0.0 })
}

/// The same of a whole number `b` of at most [`SMALL_MAX`]: what is multiplied with its lower half is nothing.
#[inline(always)]
fn small_product(a: f64, b: f64) -> (f64, f64) {
    let product = a * b;
    let (a_high, a_low) = halves(a);
    let lost = (a_high * b - product) + a_low * b;
    (product, if lost.is_finite() { lost } else { 0.0 })
}

/// Two floats of half as many digits that add up to this one.
#[inline(always)]
fn halves(value: f64) -> (f64, f64) {
    const SPLITTER: f64 = 134_217_729.0; // 2^27 + 1
    let scaled = SPLITTER * value;
    let high = scaled - (scaled - value);
    (high, value - high)
}

#[cfg(test)]
mod tests;
