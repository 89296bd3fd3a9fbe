//! The positions of a source in a checkpoint: for each split its name, where its reader stands, whether it has ended.
//!
//! ```text
//!   u32 count, then for each split: u64 id, u32 length + name, u8 flags (1 = position, 2 = ended), u32 length + position
//! ```
//!
//! All numbers are little endian. Every instance of a source stores the splits it owns; after a restart every instance
//! reads the maps of all, and takes from them what it owns now.

use std::collections::BTreeMap;

use mill_protocol::{Error, Position, Result, SplitId};

/// Where the reader of a split stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitPosition {
    pub(crate) name: String,
    /// `None` at the start.
    pub(crate) position: Option<Position>,
    pub(crate) is_ended: bool,
}

/// The positions of some splits.
pub(crate) type Positions = BTreeMap<SplitId, SplitPosition>;

const HAS_POSITION: u8 = 1;
const IS_ENDED: u8 = 2;

/// The bytes that a checkpoint stores.
pub(crate) fn encode(positions: &Positions) -> Vec<u8> {
    let mut out = Vec::new();
    let put_bytes = |out: &mut Vec<u8>, bytes: &[u8]| {
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    };
    out.extend_from_slice(&(positions.len() as u32).to_le_bytes());
    for (id, split) in positions {
        out.extend_from_slice(&id.0.to_le_bytes());
        put_bytes(&mut out, split.name.as_bytes());
        let flags = if split.position.is_some() { HAS_POSITION } else { 0 } | if split.is_ended { IS_ENDED } else { 0 };
        out.push(flags);
        put_bytes(&mut out, split.position.as_deref().unwrap_or_default());
    }
    out
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// When the bytes are something else.
pub(crate) fn decode(bytes: &[u8]) -> Result<Positions> {
    let mut rest = bytes;
    let positions = decode_from(&mut rest).filter(|_| rest.is_empty());
    positions.ok_or_else(|| Error::checkpoint("the positions of a source in the checkpoint are damaged"))
}

fn decode_from(rest: &mut &[u8]) -> Option<Positions> {
    let count = take_u32(rest)?;
    let mut positions = Positions::new();
    for _ in 0..count {
        let id = SplitId(u64::from_le_bytes(take(rest, 8)?.try_into().ok()?));
        let length = take_u32(rest)?;
        let name = String::from_utf8(take(rest, length)?.to_vec()).ok()?;
        let flags = take(rest, 1)?[0];
        let length = take_u32(rest)?;
        let position = take(rest, length)?.to_vec();
        let position = (flags & HAS_POSITION != 0).then_some(position);
        positions.insert(id, SplitPosition { name, position, is_ended: flags & IS_ENDED != 0 });
    }
    Some(positions)
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
