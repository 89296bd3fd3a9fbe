//! The first row of each key, where keys are numbers near each other: no hashes, no search.
//!
//! ```text
//!   key  1007          low 1000
//!          │
//!          └─ 1007 − 1000 = 7 ─► positions[7]      NO_ROW: there is no row of this key
//! ```

use arrow::buffer::NullBuffer;

use crate::pair::NO_ROW;

/// How many possible keys there are at most for each row …
const KEYS_PER_ROW_MAX: u64 = 8;
/// … or in all.
const KEYS_MIN: u64 = 1 << 16;

/// The lowest and the highest of some keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    low: i64,
    high: i64,
}

impl Bounds {
    /// Those of no key.
    pub(super) const NONE: Bounds = Bounds { low: i64::MAX, high: i64::MIN };

    /// Those of these keys too; nulls don't count.
    pub(super) fn and(self, words: &[u64], nulls: Option<&NullBuffer>) -> Bounds {
        let wider = |bounds: Bounds, word: u64| Bounds { low: bounds.low.min(word as i64), high: bounds.high.max(word as i64) };
        match nulls {
            None => words.iter().fold(self, |bounds, &word| wider(bounds, word)),
            Some(nulls) => nulls.valid_indices().fold(self, |bounds, row| wider(bounds, words[row])),
        }
    }
}

/// Positions by key.
pub(super) struct NearIndex {
    low: u64,
    positions: Vec<u32>,
}

impl NearIndex {
    /// An index for so many rows with keys within these bounds; `None` if most of it would be empty.
    pub(super) fn new(bounds: Bounds, rows: usize) -> Option<NearIndex> {
        let keys = match bounds.low > bounds.high {
            true => 0,
            false => bounds.high.abs_diff(bounds.low).checked_add(1)?,
        };
        let is_dense = keys <= KEYS_MIN.max((rows as u64).saturating_mul(KEYS_PER_ROW_MAX));
        is_dense.then(|| NearIndex { low: bounds.low as u64, positions: vec![NO_ROW; keys as usize] })
    }

    /// The place for the position of the first row of a key that is within the bounds.
    ///
    /// # Panics
    /// If it is not.
    pub(super) fn first(&mut self, word: u64) -> &mut u32 {
        &mut self.positions[word.wrapping_sub(self.low) as usize]
    }

    /// The positions of the first rows of these keys, [`NO_ROW`] of those that have none and of nulls.
    pub(super) fn find(&self, words: &[u64], nulls: Option<&NullBuffer>) -> Vec<u32> {
        let position = |word: u64| {
            let slot = usize::try_from(word.wrapping_sub(self.low)).unwrap_or(usize::MAX);
            self.positions.get(slot).copied().unwrap_or(NO_ROW)
        };
        match nulls {
            None => words.iter().map(|&word| position(word)).collect(),
            Some(nulls) => words.iter().zip(nulls).map(|(&word, is_valid)| if is_valid { position(word) } else { NO_ROW }).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_at_their_distance_from_the_lowest() {
        let words = [-3_i64, 5, 0].map(|key| key as u64);
        let bounds = Bounds::NONE.and(&words, None);
        let mut index = NearIndex::new(bounds, 3).expect("nine keys are dense");
        for (position, &word) in words.iter().enumerate() {
            *index.first(word) = position as u32;
        }
        let asked = [5_i64, -3, -4, 6, 0, i64::MIN, i64::MAX].map(|key| key as u64);
        assert_eq!(index.find(&asked, None), [1, 0, NO_ROW, NO_ROW, 2, NO_ROW, NO_ROW]);
        let nulls = NullBuffer::from(vec![false, true, true, true, true, true, true]);
        assert_eq!(index.find(&asked, Some(&nulls))[..2], [NO_ROW, 0]);
    }

    #[test]
    fn keys_far_from_each_other_have_no_index() {
        let far = [0_i64, i64::MAX].map(|key| key as u64);
        assert!(NearIndex::new(Bounds::NONE.and(&far, None), 2).is_none());
        let farthest = [i64::MIN, i64::MAX].map(|key| key as u64);
        assert!(NearIndex::new(Bounds::NONE.and(&farthest, None), 2).is_none());
        // A null is no key, whatever its word is.
        let nulls = NullBuffer::from(vec![true, false]);
        let index = NearIndex::new(Bounds::NONE.and(&far, Some(&nulls)), 2).expect("one key is dense");
        assert_eq!(index.find(&[0, 1], None), [NO_ROW, NO_ROW]);
        let empty = NearIndex::new(Bounds::NONE, 0).expect("no key is dense");
        assert_eq!(empty.find(&[0, u64::MAX, i64::MAX as u64], None), [NO_ROW; 3]);
    }
}
