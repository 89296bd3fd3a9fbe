//! The layout of a row of a state table.
//!
//! ```text
//!   word 0            1 .. 1+K        .. accumulators ..            .. words of further flags ..
//!   ┌───────────────┬───────────────┬───────┬───────┬─────┬───────┐ ┌──────────────┐
//!   │ tag           │ key           │ value │ value │  …  │ value │ │ 64 flags     │
//!   └───────────────┴───────────────┴───────┴───────┴─────┴───────┘ └──────────────┘
//!     63 occupied
//!     62 the key is the single null
//!     61 the row changed since the last snapshot; of no meaning in a checkpoint
//!     60..57 the first four flags
//!     56..0 the low 57 bits of the key's hash
//! ```
//!
//! All words have 8 bytes, so that every field is aligned and a row of an integer key with a count and a sum is half a
//! cache line. The hash's top seven bits are the key group, which the chunk knows; their place in the tag holds what
//! every row must say anyway. Values of variable length are in cells outside the row.

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Result, StateError};
use crate::key::KeyKind;

/// The row is taken.
pub(crate) const TAG_OCCUPIED: u64 = 1 << 63;
/// The key is one column and it is null.
pub(crate) const TAG_NULL: u64 = 1 << 62;
/// The row changed since the last snapshot.
pub(crate) const TAG_DIRTY: u64 = 1 << 61;
/// The bits of the hash that the tag keeps.
pub(crate) const TAG_HASH: u64 = (1 << 57) - 1;
/// What must be equal for two keys to be equal.
pub(crate) const TAG_MATCH: u64 = TAG_OCCUPIED | TAG_NULL | TAG_HASH;
pub(crate) const TAG_FLAG_FIRST: u32 = 57;
const TAG_FLAGS: usize = 4;
/// The bits of the tag that are flags.
pub(crate) const TAG_FLAGS_MASK: u64 = ((1 << TAG_FLAGS) - 1) << TAG_FLAG_FIRST;

/// How many words a row may have: sixteen rows fill the smallest chunk, which has a mebibyte then.
pub const ROW_WORDS_MAX: usize = 8192;
/// How many cells a row may have.
pub const CELLS_MAX: usize = 8192;

/// A place for one bit in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The word it is in.
    pub word: usize,
    /// The bit within the word.
    pub mask: u64,
}

/// A place in a row that a value has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A word, by its number in the row.
    Word(usize),
    /// A bit.
    Flag(Flag),
    /// A cell beside the row.
    Cell(usize),
}

/// The layout of the rows of a table: what the key takes, how many words and cells the values take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowLayout {
    pub(crate) key: KeyKind,
    pub(crate) row_words: usize,
    pub(crate) cells: usize,
    pub(crate) fingerprint: u64,
}

impl RowLayout {
    /// Starts a layout for keys of this kind.
    pub fn builder(key: KeyKind) -> LayoutBuilder {
        LayoutBuilder { next_word: 1 + key.words(), key, flags: 0, flag_words: Vec::new(), cells: 0, taken: Vec::new() }
    }

    /// How many words of 8 bytes a row has.
    pub fn row_words(&self) -> usize {
        self.row_words
    }

    /// How many cells stand beside each row.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// The first word after the key.
    pub(crate) fn value_word(&self) -> usize {
        1 + self.key.words()
    }

    /// What must be equal for the rows of a checkpoint to be rows of this layout.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Lays out the values of a row, one after the other.
#[derive(Clone, Debug)]
pub struct LayoutBuilder {
    key: KeyKind,
    next_word: usize,
    flags: usize,
    flag_words: Vec<usize>,
    cells: usize,
    taken: Vec<Taken>,
}

impl LayoutBuilder {
    /// All that was taken so far, in that order: values that are laid out alike take alike places.
    pub fn taken(&self) -> &[Taken] {
        &self.taken
    }

    /// Takes `count` consecutive words; they start as zero. Returns the first.
    pub fn words(&mut self, count: usize) -> usize {
        let first = self.next_word;
        self.next_word += count;
        self.taken.extend((first..self.next_word).map(Taken::Word));
        first
    }

    /// Takes one bit; it starts as zero.
    pub fn flag(&mut self) -> Flag {
        let flag = self.flags;
        self.flags += 1;
        let flag = match flag.checked_sub(TAG_FLAGS) {
            None => Flag { word: 0, mask: 1 << (TAG_FLAG_FIRST as usize + flag) },
            Some(beyond) => {
                if beyond % 64 == 0 {
                    // A word of flags belongs to no value: each takes its bits.
                    self.flag_words.push(self.next_word);
                    self.next_word += 1;
                }
                let word = *self.flag_words.last().expect("a word was taken for the first of 64 flags");
                Flag { word, mask: 1 << (beyond % 64) }
            }
        };
        self.taken.push(Taken::Flag(flag));
        flag
    }

    /// Takes one cell; it starts empty. Returns its place.
    pub fn cell(&mut self) -> usize {
        self.cells += 1;
        self.taken.push(Taken::Cell(self.cells - 1));
        self.cells - 1
    }

    /// Ends the layout. `signature` says in words what the values mean; it becomes part of the fingerprint.
    ///
    /// # Errors
    /// When a row would be too large.
    pub fn finish(self, signature: &str) -> Result<RowLayout> {
        if self.next_word > ROW_WORDS_MAX || self.cells > CELLS_MAX {
            return Err(StateError::RowTooLarge { words: self.next_word.max(self.cells) });
        }
        let mut hasher = Xxh3::new();
        hasher.update(self.key.signature().as_bytes());
        hasher.update(&(self.next_word as u64).to_le_bytes());
        hasher.update(&(self.cells as u64).to_le_bytes());
        hasher.update(signature.as_bytes());
        Ok(RowLayout { key: self.key, row_words: self.next_word, cells: self.cells, fingerprint: hasher.digest() })
    }
}
