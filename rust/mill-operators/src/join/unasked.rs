//! Rows that are in no index yet, as nobody has asked for their keys.
//!
//! A side whose partners are few and far between (the greatest price of ten seconds) is asked for few of its keys, and most of its rows
//! are dropped unasked. So rows wait here, with the hashes and the bytes of their keys. A batch of the other side that is small beside
//! them goes through the hashes and takes the rows of its keys; one that is not takes them all.

use std::collections::VecDeque;

/// A batch is small beside so many rows for each of its own.
const ROWS_A_RECORD: usize = 16;
/// Rows are gone through so often before all of them are taken.
const LOOKS_MAX: usize = 64;
/// The bits by which most hashes are passed over.
const FILTER_BITS: usize = 1 << 13;

/// Rows by number, with their keys.
#[derive(Default)]
pub(super) struct Unasked {
    batches: VecDeque<Waiting>,
    rows: usize,
    /// How many rows have been looked at since all were taken, and the records of the last batch that asked.
    looked_at: usize,
    asked: usize,
    /// How many rows were added after it.
    added: usize,
}

struct Waiting {
    first: u64,
    hashes: Vec<u64>,
    /// The bytes of all keys, and where each ends.
    keys: Vec<u8>,
    ends: Vec<u32>,
    /// Which rows are still here, and how many.
    is_here: Vec<bool>,
    here: usize,
}

/// A row that leaves.
pub(super) struct Taken<'a> {
    pub(super) number: u64,
    pub(super) hash: u64,
    pub(super) key: &'a [u8],
}

impl Waiting {
    fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.keys[start as usize..self.ends[row] as usize]
    }
}

impl Unasked {
    /// Whether rows had better go into the index at once: those of the other side come in batches that ask for many keys.
    pub(super) fn is_passed_over(&self) -> bool {
        self.added < self.asked.saturating_mul(ROWS_A_RECORD)
    }

    /// So many rows have been added, here or to the index.
    pub(super) fn count(&mut self, rows: usize) {
        self.added += rows;
    }

    /// Adds rows, the first of which has this number.
    pub(super) fn add<'k>(&mut self, first: u64, rows: usize, key: impl Fn(usize) -> (u64, &'k [u8])) {
        let mut waiting = Waiting {
            first,
            hashes: Vec::with_capacity(rows),
            keys: Vec::new(),
            ends: Vec::with_capacity(rows),
            is_here: vec![true; rows],
            here: rows,
        };
        for row in 0..rows {
            let (hash, key) = key(row);
            waiting.hashes.push(hash);
            waiting.keys.extend_from_slice(key);
            waiting.ends.push(u32::try_from(waiting.keys.len()).expect("the keys of a batch have fewer than 2^32 bytes"));
        }
        self.batches.push_back(waiting);
        self.rows += rows;
    }

    /// Records with these hashes ask for rows; takes those that may be theirs, or all.
    pub(super) fn ask(&mut self, hashes: impl ExactSizeIterator<Item = u64>, mut take: impl FnMut(Taken<'_>)) {
        (self.asked, self.added) = (hashes.len(), 0);
        if self.rows == 0 || hashes.len() == 0 {
            return;
        }
        self.looked_at += self.rows;
        if hashes.len().saturating_mul(ROWS_A_RECORD) > self.rows || self.looked_at > self.rows.saturating_mul(LOOKS_MAX) {
            self.take_all(take);
            return;
        }
        let mut filter = vec![0_u64; FILTER_BITS / 64];
        let bit = |hash: u64| ((hash >> 6) as usize % (FILTER_BITS / 64), 1 << (hash % 64));
        let mut asked: Vec<u64> = hashes.collect();
        asked.sort_unstable();
        for &hash in &asked {
            let (word, bit) = bit(hash);
            filter[word] |= bit;
        }
        for batch in &mut self.batches {
            for row in 0..batch.hashes.len() {
                let hash = batch.hashes[row];
                let (word, bit) = bit(hash);
                if filter[word] & bit == 0 || !batch.is_here[row] || asked.binary_search(&hash).is_err() {
                    continue;
                }
                batch.is_here[row] = false;
                batch.here -= 1;
                self.rows -= 1;
                take(Taken { number: batch.first + row as u64, hash, key: batch.key(row) });
            }
        }
        self.batches.retain(|batch| batch.here > 0);
    }

    /// Takes all rows.
    pub(super) fn take_all(&mut self, mut take: impl FnMut(Taken<'_>)) {
        for batch in std::mem::take(&mut self.batches) {
            for row in (0..batch.hashes.len()).filter(|&row| batch.is_here[row]) {
                take(Taken { number: batch.first + row as u64, hash: batch.hashes[row], key: batch.key(row) });
            }
        }
        (self.rows, self.looked_at) = (0, 0);
    }

    /// Drops rows, which are here; their numbers ascend.
    pub(super) fn drop(&mut self, numbers: &[u64]) {
        let mut at = 0;
        for &number in numbers {
            while self.batches.get(at).is_some_and(|batch| batch.first + batch.hashes.len() as u64 <= number) {
                at += 1;
            }
            let batch = &mut self.batches[at];
            batch.is_here[(number - batch.first) as usize] = false;
            batch.here -= 1;
            self.rows -= 1;
        }
        self.batches.retain(|batch| batch.here > 0);
    }

    /// How many rows there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rows
    }
}
