//! Records on the way into the panes of a join, column by column, and what is known of them there.

/// Records, column by column.
#[derive(Default)]
pub(super) struct Records {
    /// The key of each, or its hash if the key is in `keys`.
    pub(super) words: Vec<u64>,
    /// The hash that decides about the task.
    pub(super) hashes: Vec<u64>,
    pub(super) dues: Vec<i64>,
    /// Needed where words are hashes.
    pub(super) keys: Keys,
}

impl Records {
    /// Only these of them.
    pub(super) fn chosen(&self, places: &[usize]) -> Records {
        let mut keys = Keys::default();
        if !self.keys.is_empty() {
            places.iter().for_each(|&place| keys.push(self.keys.get(place)));
        }
        Records {
            words: places.iter().map(|&place| self.words[place]).collect(),
            hashes: places.iter().map(|&place| self.hashes[place]).collect(),
            dues: places.iter().map(|&place| self.dues[place]).collect(),
            keys,
        }
    }
}

/// The bytes of keys.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    /// Room for so many keys of one number each, with its hash, and the end of a window.
    pub(super) fn with_capacity(keys: usize) -> Keys {
        Keys { bytes: Vec::with_capacity(25 * keys), ends: Vec::with_capacity(keys) }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Ends the key whose bytes were added.
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.end();
    }

    /// A key; empty if there are none.
    #[inline]
    pub(super) fn get(&self, place: usize) -> &[u8] {
        match self.ends.get(place) {
            Some(&end) => &self.bytes[if place == 0 { 0 } else { self.ends[place - 1] }..end],
            None => &[],
        }
    }
}

/// What is known of a row beside its columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    /// The hash that decides which task has its key.
    pub(super) hash: u64,
    /// Its number in checkpoints.
    pub(super) durable: u64,
    pub(super) is_matched: bool,
}

/// What a record looks for: rows of its key that are due between two times, both included. Rows of a window are due with it.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) word: u64,
    /// Empty where the word is the key.
    pub(super) key: &'a [u8],
    pub(super) from: i64,
    pub(super) to: i64,
}
