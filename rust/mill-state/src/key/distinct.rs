//! The distinct keys among records.

use super::{KeyBatch, KeyKind, view_bytes};
use crate::select::Select;

/// No key yet in a place of the index.
const EMPTY: u32 = u32::MAX;

/// The distinct keys of some records, in the order of their first records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DistinctKeys {
    /// Of each record the number of its key.
    pub of_records: Vec<u32>,
    /// Of each key its first record, as a place in the batch.
    pub firsts: Vec<u32>,
}

impl KeyBatch {
    /// Numbers the distinct keys of these records; `kind` is that of the encoder that encoded them.
    pub fn distinct<S: Select>(&self, kind: &KeyKind, select: S) -> DistinctKeys {
        let capacity = (select.len() * 2).next_power_of_two().max(16);
        let mut index = vec![EMPTY; capacity];
        let mut keys = DistinctKeys { of_records: Vec::with_capacity(select.len()), firsts: Vec::new() };
        for record in (0..select.len()).map(|place| select.at(place)) {
            // The top bits choose the key group and are alike in one task, so the lower ones choose the place.
            let mut place = self.hashes[record] as usize & (capacity - 1);
            let number = loop {
                match index[place] {
                    EMPTY => {
                        let number = keys.firsts.len() as u32;
                        index[place] = number;
                        keys.firsts.push(record as u32);
                        break number;
                    }
                    number if self.is_same(kind, keys.firsts[number as usize] as usize, record) => break number,
                    _ => place = (place + 1) & (capacity - 1),
                }
            };
            keys.of_records.push(number);
        }
        keys
    }

    /// Whether two records have one key.
    fn is_same(&self, kind: &KeyKind, a: usize, b: usize) -> bool {
        let is_null = |record: usize| self.nulls.get(record).copied().unwrap_or_default();
        if self.hashes[a] != self.hashes[b] || is_null(a) != is_null(b) {
            return false;
        }
        if !kind.is_view() {
            return self.key(a) == self.key(b);
        }
        let (mut of_a, mut of_b) = ([0; 16], [0; 16]);
        let bytes = self.bytes.as_slice();
        view_bytes(self.key(a), &mut of_a, bytes) == view_bytes(self.key(b), &mut of_b, bytes)
    }
}

#[cfg(test)]
mod tests;
