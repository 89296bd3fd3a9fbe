//! Keys: from columns to what a row holds, and back.
//!
//! ```text
//!   kind     for                                    in the row
//!   Word     one column of at most 8 bytes          its value widened to 64 bits; null is in the tag
//!   Words    several such columns, or decimals      a word (two) a column, then a word of null bits
//!   Bytes    one column of text or binary           16-byte view of the bytes; null is in the tag
//!   Mixed    anything else                          16-byte view of an encoding of all columns
//!
//!   view     ┌─────────┬───────────────────────────┐  at most 12 bytes
//!            │ len u32 │ bytes, padded with zero   │
//!            ├─────────┼──────────┬────────────────┤  more
//!            │ len u32 │ 4 bytes  │ offset u64     │  into the arena of the chunk (or of the batch)
//!            └─────────┴──────────┴────────────────┘
//! ```
//!
//! Equal keys have equal words: integers are widened, floats have one NaN and one zero, dictionaries count by value. So
//! comparing keys is comparing words, and bytes only for long keys.

mod coder;
mod decode;
mod distinct;
mod encode;
mod stored;

use arrow::datatypes::DataType;

use crate::error::{Result, StateError};
use crate::layout::{TAG_HASH, TAG_NULL, TAG_OCCUPIED};

pub(crate) use decode::last_number;
pub(crate) use encode::column_words;
pub use coder::{KeyCoder, Renumbering};
pub use decode::KeyDecoder;
pub use distinct::DistinctKeys;
pub use encode::{HASH_OF_NOTHING, KeyEncoder};

/// How many bytes a view holds itself.
pub(crate) const VIEW_INLINE: usize = 12;
/// How long a key may be.
pub const KEY_BYTES_MAX: usize = 1 << 24;

/// How a column of a key is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// One word.
    Word,
    /// Two words.
    Pair,
    /// Text or binary.
    Bytes,
    /// Lists and structs: in the comparable row encoding of Arrow.
    Nested,
}

impl Column {
    fn of(data_type: &DataType) -> Result<Column> {
        use DataType::*;
        Ok(match data_type {
            Null | Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 => Column::Word,
            Float16 | Float32 | Float64 | Decimal32(..) | Decimal64(..) => Column::Word,
            Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_) => Column::Word,
            Decimal128(..) => Column::Pair,
            Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Column::Bytes,
            Dictionary(_, values) => Column::of(values)?,
            List(_) | LargeList(_) | FixedSizeList(..) | Struct(_) | Decimal256(..) => Column::Nested,
            other => return Err(StateError::KeyType(other.clone())),
        })
    }
}

/// How keys are held in rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyKind(pub(crate) Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Words { columns: Vec<Column>, words: usize },
    Bytes,
    Mixed { columns: Vec<Column> },
}

impl KeyKind {
    /// How keys of columns with these types are held.
    ///
    /// # Errors
    /// When a type cannot be a key.
    pub fn of(types: &[DataType]) -> Result<KeyKind> {
        let columns = types.iter().map(Column::of).collect::<Result<Vec<Column>>>()?;
        Ok(KeyKind(match columns.as_slice() {
            [Column::Word] => Kind::Word,
            [Column::Bytes] => Kind::Bytes,
            _ if columns.iter().all(|column| matches!(column, Column::Word | Column::Pair)) => {
                let values: usize = columns.iter().map(|column| if *column == Column::Pair { 2 } else { 1 }).sum();
                let words = values + columns.len().div_ceil(64);
                Kind::Words { columns, words }
            }
            _ => Kind::Mixed { columns },
        }))
    }

    /// How many words of a row the key takes.
    pub fn words(&self) -> usize {
        match &self.0 {
            Kind::Word => 1,
            Kind::Words { words, .. } => *words,
            Kind::Bytes | Kind::Mixed { .. } => 2,
        }
    }

    /// Whether the words are a view of bytes that may lie elsewhere.
    pub fn is_view(&self) -> bool {
        matches!(self.0, Kind::Bytes | Kind::Mixed { .. })
    }

    /// Which word of a row the last column is, if it is a number that takes one.
    pub(crate) fn last_word(&self) -> Option<usize> {
        match &self.0 {
            Kind::Word => Some(1),
            Kind::Words { columns, words } => Some(words - columns.len().div_ceil(64)),
            Kind::Bytes | Kind::Mixed { .. } => None,
        }
    }

    pub(crate) fn signature(&self) -> String {
        // Keys of text and others were once written with all bytes of each number.
        let version = if matches!(self.0, Kind::Mixed { .. }) { 2 } else { 1 };
        format!("key {version} {:?};", self.0)
    }
}

/// The keys of a batch of records, encoded for look-up.
#[derive(Debug, Default)]
pub struct KeyBatch {
    pub(crate) hashes: Vec<u64>,
    /// `stride` words a row.
    pub(crate) words: Vec<u64>,
    pub(crate) stride: usize,
    /// Whether the single key column is null; empty if it never is.
    pub(crate) nulls: Vec<bool>,
    /// What long views point into; empty if there are none.
    pub(crate) bytes: KeyBytes,
}

/// The bytes that views of a batch point into.
#[derive(Debug)]
pub(crate) enum KeyBytes {
    Own(Vec<u8>),
    Column(arrow::buffer::Buffer),
}

impl Default for KeyBytes {
    fn default() -> KeyBytes {
        KeyBytes::Own(Vec::new())
    }
}

impl KeyBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            KeyBytes::Own(bytes) => bytes,
            KeyBytes::Column(buffer) => buffer.as_slice(),
        }
    }
}

impl KeyBatch {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hashes of the keys.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The words of the keys, so many a key as its kind says.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Puts each key into the key group of another key: the top bits of its hash become those of `owners`.
    ///
    /// What is kept per key and value (the distinct values of each key) must live where the key lives.
    ///
    /// # Panics
    /// If there is not one owner a key.
    pub fn adopt_groups(&mut self, owners: &[u64]) {
        assert_eq!(owners.len(), self.hashes.len(), "one owner a key");
        for (hash, owner) in self.hashes.iter_mut().zip(owners) {
            *hash = (*hash & TAG_HASH) | (owner & !TAG_HASH);
        }
    }

    #[inline(always)]
    pub(crate) fn tag(&self, row: usize) -> u64 {
        let null = if self.nulls.is_empty() || !self.nulls[row] { 0 } else { TAG_NULL };
        (self.hashes[row] & TAG_HASH) | TAG_OCCUPIED | null
    }

    #[inline(always)]
    pub(crate) fn key(&self, row: usize) -> &[u64] {
        &self.words[row * self.stride..][..self.stride]
    }
}

/// The length a view tells.
#[inline(always)]
pub(crate) fn view_length(view: &[u64]) -> usize {
    (view[0] & u64::from(u32::MAX)) as usize
}

/// The bytes of a view; long ones are in `arena`. `None` if they do not lie there wholly.
#[inline]
pub(crate) fn view_bytes<'a>(view: &'a [u64], inline: &'a mut [u8; 16], arena: &'a [u8]) -> Option<&'a [u8]> {
    let length = view_length(view);
    if length <= VIEW_INLINE {
        inline[..8].copy_from_slice(&view[0].to_le_bytes());
        inline[8..].copy_from_slice(&view[1].to_le_bytes());
        return Some(&inline[4..4 + length]);
    }
    let start = usize::try_from(view[1]).ok()?;
    arena.get(start..start.checked_add(length)?)
}

/// The view of these bytes, which lie at `offset` if they are long.
#[inline(always)]
pub(crate) fn view_of(bytes: &[u8], offset: u64) -> [u64; 2] {
    let mut view = [0u8; 16];
    view[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    if bytes.len() <= VIEW_INLINE {
        view[4..4 + bytes.len()].copy_from_slice(bytes);
        let (low, high) = view.split_at(8);
        return [le_word(low), le_word(high)];
    }
    view[4..8].copy_from_slice(&bytes[..4]);
    [le_word(&view[..8]), offset]
}

#[inline(always)]
pub(crate) fn le_word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes were sliced"))
}

#[cfg(test)]
mod tests;
