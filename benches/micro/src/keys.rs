//! Keys as streams have them.

/// A generator of pseudo-random numbers (splitmix64): the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Keys drawn evenly.
pub(crate) fn even(records: usize, keys: u64) -> Vec<i64> {
    let mut dice = Dice(1);
    (0..records).map(|_| (dice.next() % keys) as i64).collect()
}

/// Keys as bids name auctions: mostly among the latest hundred, which move on.
pub(crate) fn moving(records: usize, keys: u64) -> Vec<i64> {
    let mut dice = Dice(1);
    let head = |record: usize| (record as u64 * keys / records as u64) as i64;
    (0..records).map(|record| (head(record) - (dice.next() % 100) as i64).max(0)).collect()
}
