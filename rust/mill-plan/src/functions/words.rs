//! Runs of bytes of one class: what `extract_all(r"[a-z']+")` finds, without a regular expression engine.
//!
//! A pattern that is one class of ASCII characters, repeated at least once, finds the longest runs of its bytes, and those
//! can be found with a table of 256 truth values. Sixty-four bytes make a mask of 64 bits, whose changes from bit to bit
//! are the starts and ends of runs:
//!
//! ```text
//!   bytes   t h e   c a t ,
//!   mask    1 1 1 0 1 1 1 0          changes = mask ^ (mask << 1 | carry)
//!   changes 1 . . 1 1 . . 1          start, end, start, end
//! ```
//!
//! Patterns of other shapes go to the regular expression engine; the result is the same list.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ListArray, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use mill_protocol::{Error, Result};
use regex::Regex;

/// A class of bytes, from a pattern such as `[a-z']+`, `[^,]+`, `\w+`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ByteClass {
    has: [bool; 256],
    /// Whether the class means more than its bytes beyond ASCII (`\w`), so that it holds for ASCII text only.
    is_for_ascii: bool,
}

impl ByteClass {
    /// The class, if the pattern is one class repeated at least once and nothing else.
    pub(super) fn of_pattern(pattern: &str) -> Option<ByteClass> {
        let class = pattern.strip_suffix('+')?;
        let mut result = ByteClass { has: [false; 256], is_for_ascii: false };
        if let Some(escape) = class.strip_prefix('\\') {
            return (escape.len() == 1 && result.add_escape(escape.as_bytes()[0])).then_some(result);
        }
        let inner = class.strip_prefix('[')?.strip_suffix(']')?;
        let (is_negated, inner) = inner.strip_prefix('^').map_or((false, inner), |inner| (true, inner));
        // What nests classes or combines them is left to the engine, as is a `]` or `-` in an odd place.
        let is_plain = inner.is_ascii() && !["[", "]", "&&", "--", "~~"].iter().any(|odd| inner.contains(odd));
        if inner.is_empty() || !is_plain {
            return None;
        }
        let bytes = inner.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let first = match bytes[at] {
                b'\\' => {
                    at += 1;
                    let escaped = *bytes.get(at)?;
                    if escaped.is_ascii_alphanumeric() {
                        if !result.add_escape(escaped) {
                            return None;
                        }
                        at += 1;
                        continue;
                    }
                    escaped
                }
                byte => byte,
            };
            at += 1;
            match (bytes.get(at), bytes.get(at + 1)) {
                (Some(b'-'), Some(&last)) if last != b'\\' => {
                    if first > last {
                        return None;
                    }
                    result.has[usize::from(first)..=usize::from(last)].fill(true);
                    at += 2;
                }
                (Some(b'-'), Some(_)) => return None,
                _ => result.has[usize::from(first)] = true,
            }
        }
        if is_negated {
            // All characters beyond ASCII are outside of the class, with all their bytes.
            if result.is_for_ascii {
                return None;
            }
            result.has.iter_mut().for_each(|has| *has = !*has);
        }
        Some(result)
    }

    /// Adds what `\w`, `\d`, `\s` and the escapes of single characters stand for.
    fn add_escape(&mut self, escape: u8) -> bool {
        let has: fn(u8) -> bool = match escape {
            b'w' => |b| b.is_ascii_alphanumeric() || b == b'_',
            b'd' => |b| b.is_ascii_digit(),
            b's' => |b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c),
            b'n' => |b| b == b'\n',
            b't' => |b| b == b'\t',
            b'r' => |b| b == b'\r',
            _ => return false,
        };
        self.is_for_ascii |= matches!(escape, b'w' | b'd' | b's');
        (0..=255_u8).filter(|&byte| has(byte)).for_each(|byte| self.has[usize::from(byte)] = true);
        true
    }
}

/// The strings of all rows, one after another, and where rows end.
struct Matches {
    bytes: Vec<u8>,
    ends: Vec<i32>,
    rows: Vec<i32>,
}

impl Matches {
    fn new(texts: &StringArray) -> Matches {
        let bytes = texts.value_data().len();
        let mut ends = Vec::with_capacity(bytes / 4 + 1);
        ends.push(0);
        let mut rows = Vec::with_capacity(texts.len() + 1);
        rows.push(0);
        Matches { bytes: Vec::with_capacity(bytes), ends, rows }
    }

    #[inline]
    fn push(&mut self, found: &[u8]) {
        self.bytes.extend_from_slice(found);
        self.ends.push(self.bytes.len() as i32);
    }

    #[inline]
    fn end_row(&mut self) {
        self.rows.push((self.ends.len() - 1) as i32);
    }

    fn finish(self, texts: &StringArray) -> Result<ArrayRef> {
        // All matches together are no longer than the text, whose own offsets fit in 32 bits.
        let broken = |error: arrow::error::ArrowError| Error::internal(error.to_string());
        let strings = StringArray::try_new(OffsetBuffer::new(self.ends.into()), self.bytes.into(), None).map_err(broken)?;
        let field = Arc::new(Field::new_list_field(DataType::Utf8, true));
        let rows = OffsetBuffer::new(self.rows.into());
        let lists = ListArray::try_new(field, rows, Arc::new(strings), texts.nulls().cloned()).map_err(broken)?;
        Ok(Arc::new(lists))
    }
}

/// All matches of a pattern in each string; null for null.
pub(super) fn extract_all(texts: &StringArray, class: Option<&ByteClass>, pattern: &Regex) -> Result<ArrayRef> {
    let mut matches = Matches::new(texts);
    let class = class.filter(|class| !class.is_for_ascii || texts.value_data().is_ascii());
    for row in 0..texts.len() {
        if texts.is_valid(row) {
            let text = texts.value(row);
            match class {
                Some(class) => runs(text.as_bytes(), &class.has, &mut matches),
                None => pattern.find_iter(text).for_each(|found| matches.push(found.as_str().as_bytes())),
            }
        }
        matches.end_row();
    }
    matches.finish(texts)
}

/// Pushes each longest run of bytes of the class.
fn runs(text: &[u8], has: &[bool; 256], matches: &mut Matches) {
    let mut carry = 0_u64;
    let mut start = 0;
    for (block, bytes) in text.chunks(64).enumerate() {
        let mut mask = 0_u64;
        for (bit, &byte) in bytes.iter().enumerate() {
            mask |= u64::from(has[usize::from(byte)]) << bit;
        }
        let mut changes = mask ^ (mask << 1 | carry);
        carry = mask >> 63;
        while changes != 0 {
            let bit = changes.trailing_zeros();
            let at = block * 64 + bit as usize;
            changes &= changes - 1;
            if mask >> bit & 1 == 1 {
                start = at;
            } else {
                matches.push(&text[start..at.min(text.len())]);
            }
        }
    }
    // A last block that is full and ends within a run shows no change.
    if carry == 1 {
        matches.push(&text[start..]);
    }
}

#[cfg(test)]
mod tests;
