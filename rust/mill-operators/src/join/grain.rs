//! Time in grains of one length, and what is added to the tag of a key for one.

/// A grain of time: the last one that was looked at, as most times have that of the time before them.
#[derive(Clone, Copy)]
pub(super) struct Grain {
    pub(super) number: i64,
    start: i64,
    /// The first time after it, unless it is the last one.
    pub(super) end: i64,
}

impl Grain {
    /// Holds no time.
    pub(super) const NONE: Grain = Grain { number: 0, start: i64::MAX, end: i64::MIN };

    pub(super) fn of(time: i64, length: i64) -> Grain {
        let number = time.div_euclid(length);
        let start = number.saturating_mul(length);
        Grain { number, start, end: start.saturating_add(length) }
    }

    #[inline]
    pub(super) fn holds(&self, time: i64) -> bool {
        self.start <= time && time < self.end
    }

    /// What is added to the tag of a key for this grain.
    #[inline]
    pub(super) fn salt(&self) -> u32 {
        salt(self.number)
    }
}

/// What is added to the tag of a key for the grain of this number.
#[inline]
pub(super) fn salt(number: i64) -> u32 {
    ((number as u64).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
}

/// The tag of a key.
#[inline]
pub(super) fn tag(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
}
