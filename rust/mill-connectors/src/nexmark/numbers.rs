//! Random numbers that depend on the seed, what they are for and the number of the event, and on nothing before them.

use std::sync::OnceLock;

/// The odd constant whose multiples the generator SplitMix64 hashes.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Prices are drawn from so many levels on each of two scales.
const LEVEL_BITS: u32 = 10;
/// 10 to the power of 6 / 2^20: how much a level is above the one before.
const LEVEL_STEP: f64 = 1.000_013_175_584_384_4;
/// The least price, in cents.
const PRICE_MIN: f64 = 100.0;

/// The finalizer of SplitMix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The draws for one purpose.
#[derive(Clone, Copy)]
pub(super) struct Draws(u64);

impl Draws {
    /// The draws of a seed for one of several purposes.
    pub(super) fn new(seed: u64, purpose: u64) -> Draws {
        Draws(mix(mix(seed.wrapping_add(GOLDEN)) ^ purpose.wrapping_mul(GOLDEN)))
    }

    /// The draw for an event.
    #[inline]
    pub(super) fn of(self, number: u64) -> Draw {
        Draw(mix(self.0.wrapping_add(number.wrapping_mul(GOLDEN))))
    }
}

/// 64 random bits, of which each half serves one choice.
#[derive(Clone, Copy)]
pub(super) struct Draw(u64);

impl Draw {
    /// A number below `n`, by the upper half.
    #[inline]
    pub(super) fn high(self, n: u64) -> u64 {
        ((self.0 >> 32) * n) >> 32
    }

    /// A number below `n`, by the lower half.
    #[inline]
    pub(super) fn low(self, n: u64) -> u64 {
        ((self.0 & 0xFFFF_FFFF) * n) >> 32
    }

    /// A number below `n`, by one of four quarters.
    #[inline]
    pub(super) fn quarter(self, which: u32, n: u64) -> u64 {
        (((self.0 >> (16 * which)) & 0xFFFF) * n) >> 16
    }
}

/// Prices in cents from one to a million dollars, each order of magnitude as likely as the other.
pub(super) struct Prices {
    coarse: [f64; 1 << LEVEL_BITS],
    fine: [f64; 1 << LEVEL_BITS],
}

impl Prices {
    /// The table, made on first use. It takes multiplications alone, so that it is the same on every machine.
    pub(super) fn table() -> &'static Prices {
        static TABLE: OnceLock<Prices> = OnceLock::new();
        TABLE.get_or_init(|| {
            let mut fine = [PRICE_MIN; 1 << LEVEL_BITS];
            for level in 1..fine.len() {
                fine[level] = fine[level - 1] * LEVEL_STEP;
            }
            let step = fine[fine.len() - 1] * LEVEL_STEP / PRICE_MIN;
            let mut coarse = [1.0; 1 << LEVEL_BITS];
            for level in 1..coarse.len() {
                coarse[level] = coarse[level - 1] * step;
            }
            Prices { coarse, fine }
        })
    }

    /// The price of a draw.
    #[inline]
    pub(super) fn of(&self, draw: Draw) -> i64 {
        const LEVELS: u64 = 1 << LEVEL_BITS;
        (self.coarse[draw.high(LEVELS) as usize] * self.fine[draw.low(LEVELS) as usize] + 0.5) as i64
    }
}
