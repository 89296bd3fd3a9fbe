//! The positions of a source in a checkpoint: for each split what it is, where its reader is, whether it has ended.
//!
//! ```text
//!   u32 mark, u32 count, then for each split:
//!   u64 id, u8 flags (1 = position, 2 = ended), name, detail, position      each of these three: u32 length + bytes
//! ```
//!
//! All numbers are little endian. The mark is greater than any count of the first form, which began with its count and had
//! no detail. Every instance of a source stores the splits it owns; after a restart the maps of all are read, and each
//! instance takes what it owns now.

use std::collections::BTreeMap;

use mill_protocol::{Error, Result, Split, SplitId, SplitState};

/// The splits of a source, by their identity.
pub(crate) type Positions = BTreeMap<SplitId, SplitState>;

const MARK: u32 = 0xFFFF_0002;
const HAS_POSITION: u8 = 1;
const IS_ENDED: u8 = 2;

/// Splits on their way into a checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoded {
    count: u32,
    bytes: Vec<u8>,
}

impl Encoded {
    /// Adds a split, read up to `position`.
    pub(crate) fn add(&mut self, split: &Split, position: Option<&[u8]>, is_ended: bool) {
        let flags = if position.is_some() { HAS_POSITION } else { 0 } | if is_ended { IS_ENDED } else { 0 };
        self.count += 1;
        self.bytes.extend_from_slice(&split.id.0.to_le_bytes());
        self.bytes.push(flags);
        for part in [split.name.as_bytes(), &split.detail, position.unwrap_or_default()] {
            self.bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            self.bytes.extend_from_slice(part);
        }
    }

    /// The bytes that a checkpoint stores.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.bytes.len());
        out.extend_from_slice(&MARK.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }
}

/// One split as a checkpoint stores it.
pub(crate) fn encode_one(state: &SplitState) -> Vec<u8> {
    let mut encoded = Encoded::default();
    encoded.add(&state.split, state.position.as_deref(), state.is_ended);
    encoded.finish()
}

/// Reads what [`Encoded`] wrote.
///
/// # Errors
/// When the bytes are something else.
pub(crate) fn decode(bytes: &[u8]) -> Result<Positions> {
    let damaged = || Error::checkpoint("the positions of a source in the checkpoint are damaged");
    let mut rest = bytes;
    let mark = take_u32(&mut rest).ok_or_else(damaged)?;
    if mark != MARK as usize {
        return Err(Error::checkpoint(
            "the positions of a source in the checkpoint were written by another version of Millstream, which this one \
             cannot go on from; let that version finish the job, or start with another checkpoint directory",
        ));
    }
    decode_from(&mut rest).filter(|_| rest.is_empty()).ok_or_else(damaged)
}

fn decode_from(rest: &mut &[u8]) -> Option<Positions> {
    let count = take_u32(rest)?;
    let mut positions = Positions::new();
    for _ in 0..count {
        let id = SplitId(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?));
        let flags = take(rest, 1)?[0];
        let name = String::from_utf8(take_part(rest)?.to_vec()).ok()?;
        let detail = take_part(rest)?.to_vec();
        let position = take_part(rest)?.to_vec();
        let split = Split::with_detail(id, name, detail);
        let position = (flags & HAS_POSITION != 0).then_some(position);
        positions.insert(id, SplitState { split, position, is_ended: flags & IS_ENDED != 0 });
    }
    Some(positions)
}

fn take_part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u32(rest)?;
    take(rest, length)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take_u32(rest: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests;
