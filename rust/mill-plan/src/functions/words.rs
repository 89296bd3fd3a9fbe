//! Pieces of strings: what `extract_all(r"[a-z']+")` and `split(" ")` find, without a regular expression engine.
//!
//! A pattern that is one class of ASCII characters, repeated at least once, finds the longest runs of its bytes. Which bytes
//! of a batch are of the class is found first, for all rows at once, as a bit a byte; then each row's runs are where its
//! bits change:
//!
//! ```text
//!   bytes   t h e   c a t ,
//!   mask    1 1 1 0 1 1 1 0          changes = mask ^ (mask << 1 | carry)
//!   changes 1 . . 1 1 . . 1          start, end, start, end
//! ```
//!
//! Parts between a separator are found from the same bits. Patterns of other shapes go to the regular expression engine;
//! the result is the same list.

mod class;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use memchr::memmem::Finder;
use mill_protocol::{Error, Result};
use regex::Regex;

pub(super) use class::ByteClass;

/// The strings of all rows, one after another, and where rows end.
struct Pieces {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    rows: Vec<i32>,
}

impl Pieces {
    fn new(rows: usize, bytes: usize) -> Pieces {
        let mut ends = Vec::with_capacity(bytes / 4 + 1);
        ends.push(0);
        let mut row_ends = Vec::with_capacity(rows + 1);
        row_ends.push(0);
        Pieces { bytes: Vec::with_capacity(bytes + COPIED), ends, rows: row_ends }
    }

    /// Takes a piece of the text.
    #[inline(always)]
    fn push(&mut self, text: &[u8], start: usize, end: usize) {
        let length = end - start;
        match text.get(start..).and_then(<[u8]>::first_chunk::<COPIED>) {
            // A copy of a fixed length is two instructions; what is too much is cut off again.
            Some(chunk) if length <= COPIED => {
                let kept = self.bytes.len() + length;
                self.bytes.extend_from_slice(chunk);
                self.bytes.truncate(kept);
            }
            _ => self.bytes.extend_from_slice(&text[start..end]),
        }
        self.ends.push(self.bytes.len() as i32);
    }

    #[inline]
    fn end_row(&mut self) {
        self.rows.push((self.ends.len() - 1) as i32);
    }

    fn finish(self, texts: &StringArray) -> Result<ArrayRef> {
        // All pieces together are no longer than the text, whose own offsets fit in 32 bits.
        let broken = |error: arrow::error::ArrowError| Error::internal(error.to_string());
        let strings = StringArray::try_new(OffsetBuffer::new(self.ends.into()), self.bytes.into(), None).map_err(broken)?;
        let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let rows = OffsetBuffer::new(self.rows.into());
        let lists = ListArray::try_new(field, rows, Arc::new(strings), texts.nulls().cloned()).map_err(broken)?;
        Ok(Arc::new(lists))
    }
}

/// How many bytes of a short piece are copied at once.
const COPIED: usize = 16;

/// All matches of a pattern in each string; null for null.
pub(super) fn extract_all(texts: &StringArray, class: Option<&ByteClass>, pattern: &Regex) -> Result<ArrayRef> {
    match class.filter(|class| class.is_for(used(texts))) {
        Some(class) => {
            let bits = class.bits(used(texts));
            pieces(texts, |text, start, end, found| runs(&bits, text, start, end, found))
        }
        None => pieces(texts, |text, start, end, found| {
            // Rows begin and end between characters.
            let row = std::str::from_utf8(&text[start..end]).unwrap_or_default();
            pattern.find_iter(row).for_each(|part| found.push(text, start + part.start(), start + part.end()));
        }),
    }
}

/// What is between a separator, which is not empty, in each string; null for null.
pub(super) fn split(texts: &StringArray, separator: &str) -> Result<ArrayRef> {
    if let [byte] = separator.as_bytes() {
        let bits = ByteClass::of_byte(*byte).bits(used(texts));
        return pieces(texts, |text, start, end, found| parts(&bits, text, start, end, found));
    }
    let finder = Finder::new(separator);
    pieces(texts, |text, start, end, found| {
        let mut from = start;
        for at in finder.find_iter(&text[start..end]) {
            found.push(text, from, start + at);
            from = start + at + separator.len();
        }
        found.push(text, from, end);
    })
}

/// The bytes of the rows, without what the buffer has before and after them.
fn used(texts: &StringArray) -> &[u8] {
    let offsets = texts.value_offsets();
    &texts.value_data()[offsets[0] as usize..offsets[texts.len()] as usize]
}

/// The pieces that `find` finds in each row, which it is given as a stretch of the bytes of all.
fn pieces(texts: &StringArray, find: impl Fn(&[u8], usize, usize, &mut Pieces)) -> Result<ArrayRef> {
    let text = used(texts);
    let mut found = Pieces::new(texts.len(), text.len());
    let first = texts.value_offsets()[0];
    for (row, ends) in texts.value_offsets().windows(2).enumerate() {
        if texts.is_valid(row) {
            find(text, (ends[0] - first) as usize, (ends[1] - first) as usize, &mut found);
        }
        found.end_row();
    }
    found.finish(texts)
}

/// The bits of one word that belong to the bytes from `start` to `end`.
#[inline(always)]
fn within(bits: &[u64], word: usize, start: usize, end: usize) -> u64 {
    let mut mask = bits[word];
    if word == start / 64 {
        mask &= !0 << (start % 64);
    }
    if word == (end - 1) / 64 {
        mask &= !0 >> (63 - (end - 1) % 64);
    }
    mask
}

/// Pushes each longest run of set bits.
#[inline(always)]
fn runs(bits: &[u64], text: &[u8], start: usize, end: usize, found: &mut Pieces) {
    if start == end {
        return;
    }
    let (mut carry, mut from) = (0, start);
    for word in start / 64..=(end - 1) / 64 {
        let mask = within(bits, word, start, end);
        let mut changes = mask ^ (mask << 1 | carry);
        carry = mask >> 63;
        while changes != 0 {
            let bit = changes.trailing_zeros();
            changes &= changes - 1;
            let at = word * 64 + bit as usize;
            if mask >> bit & 1 == 1 {
                from = at;
            } else {
                found.push(text, from, at);
            }
        }
    }
    // A run up to the last bit of a word shows no change.
    if carry == 1 {
        found.push(text, from, end);
    }
}

/// Pushes what is between set bits.
#[inline(always)]
fn parts(bits: &[u64], text: &[u8], start: usize, end: usize, found: &mut Pieces) {
    let mut from = start;
    if start < end {
        for word in start / 64..=(end - 1) / 64 {
            let mut mask = within(bits, word, start, end);
            while mask != 0 {
                let at = word * 64 + mask.trailing_zeros() as usize;
                mask &= mask - 1;
                found.push(text, from, at);
                from = at + 1;
            }
        }
    }
    found.push(text, from, end);
}

#[cfg(test)]
mod tests;
