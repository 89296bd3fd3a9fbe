//! Keys as bytes, for state that is sorted by them: equal keys are equal bytes, and the bytes become a key to look up again.
//!
//! ```text
//!   hash u64, big-endian    0: it is the single null, 1: it is not
//!   its words, little-endian; or the bytes that its view is of
//! ```
//!
//! The hash comes first, so that keys sort by key group whatever the parallelism.

use super::{KEY_BYTES_MAX, KeyBatch, KeyBytes, KeyKind, VIEW_INLINE, le_word, view_bytes, view_of};
use crate::error::{Result, StateError};

/// What comes before the words or bytes.
const HEADER: usize = 9;

impl KeyBatch {
    /// Appends the key of a record as bytes; `kind` is that of the encoder that encoded it.
    ///
    /// # Panics
    /// If the record does not exist or the kind is another one.
    pub fn write_key(&self, kind: &KeyKind, record: usize, out: &mut Vec<u8>) {
        let key = self.key(record);
        assert_eq!(key.len(), kind.words(), "a key of {} words is of another kind", key.len());
        let is_null = self.nulls.get(record).is_some_and(|&is_null| is_null);
        if let (&[word], false) = (key, kind.is_view()) {
            let mut bytes = [0; HEADER + size_of::<u64>()];
            bytes[..HEADER - 1].copy_from_slice(&self.hashes[record].to_be_bytes());
            bytes[HEADER - 1] = u8::from(!is_null);
            bytes[HEADER..].copy_from_slice(&word.to_le_bytes());
            out.extend_from_slice(&bytes);
            return;
        }
        out.extend(self.hashes[record].to_be_bytes());
        out.push(u8::from(!is_null));
        if kind.is_view() {
            let bytes = view_bytes(key, &mut [0; 16], self.bytes.as_slice()).map(|bytes| out.extend(bytes));
            bytes.expect("the bytes of a key are in its batch");
        } else {
            for word in key {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
    }

    /// The hash of a key that [`write_key`](KeyBatch::write_key) wrote; `None` if it is no such key.
    pub fn hash_of(key: &[u8]) -> Option<u64> {
        key.first_chunk().map(|hash| u64::from_be_bytes(*hash))
    }

    /// The keys that [`write_key`](KeyBatch::write_key) wrote, for look-up.
    ///
    /// # Errors
    /// When one of them is no such key.
    pub fn of_written<'k>(kind: &KeyKind, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<KeyBatch> {
        let damaged = || StateError::Description("a key in sorted state is damaged".to_owned());
        let mut batch = KeyBatch { stride: kind.words(), ..KeyBatch::default() };
        let mut bytes = Vec::new();
        for written in keys {
            let (header, key) = written.split_at_checked(HEADER).ok_or_else(damaged)?;
            batch.hashes.push(KeyBatch::hash_of(header).ok_or_else(damaged)?);
            batch.nulls.push(match header[HEADER - 1] {
                0 => true,
                1 => false,
                _ => return Err(damaged()),
            });
            if kind.is_view() {
                if key.len() > KEY_BYTES_MAX {
                    return Err(damaged());
                }
                batch.words.extend(view_of(key, bytes.len() as u64));
                bytes.extend_from_slice(if key.len() > VIEW_INLINE { key } else { &[] });
            } else {
                if key.len() != kind.words() * size_of::<u64>() {
                    return Err(damaged());
                }
                batch.words.extend(key.chunks_exact(size_of::<u64>()).map(le_word));
            }
        }
        if !batch.nulls.contains(&true) {
            batch.nulls.clear();
        }
        batch.bytes = KeyBytes::Own(bytes);
        Ok(batch)
    }
}

#[cfg(test)]
mod tests;
