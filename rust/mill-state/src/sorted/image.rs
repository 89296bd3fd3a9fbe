//! All rows of a key group, as they are written into a checkpoint. Little-endian.
//!
//! ```text
//!    0  magic u32 = "MSTO"   4  version u32 = 1
//!    8  fingerprint u64: xxh3 over what the rows mean, in words
//!   16  rows u64
//!   24  the rows, ascending: order i64, bytes of the key u32, bytes of the value u32, key, value
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use mill_frame::block::BlockPayload;

use super::Entry;
use super::leaf::Leaf;
use crate::error::{Result, StateError};

const MAGIC: &[u8; 4] = b"MSTO";
/// The version of the format, of all rows and of changes.
pub(crate) const VERSION: u32 = 1;
const HEADER: usize = 24;
/// What a row has before its key and value.
pub(super) const ROW_HEADER: usize = 16;

/// The rows of a group as they were at the barrier.
pub(super) struct RowsImage {
    fingerprint: u64,
    leaves: VecDeque<Arc<Leaf>>,
}

impl RowsImage {
    pub(super) fn new(fingerprint: u64, leaves: VecDeque<Arc<Leaf>>) -> RowsImage {
        RowsImage { fingerprint, leaves }
    }

    fn rows(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.len()).sum()
    }
}

impl BlockPayload for RowsImage {
    fn size(&self) -> usize {
        let of_leaf = |leaf: &Arc<Leaf>| leaf.len() * ROW_HEADER + leaf.live_bytes();
        HEADER + self.leaves.iter().map(of_leaf).sum::<usize>()
    }

    fn write(&self, out: &mut [u8]) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(MAGIC);
        put(&VERSION.to_le_bytes());
        put(&self.fingerprint.to_le_bytes());
        put(&(self.rows() as u64).to_le_bytes());
        for entry in self.leaves.iter().flat_map(|leaf| leaf.entries()) {
            put(&entry.order.to_le_bytes());
            put(&(entry.key.len() as u32).to_le_bytes());
            put(&(entry.value.len() as u32).to_le_bytes());
            put(entry.key);
            put(entry.value);
        }
        assert_eq!(at, out.len(), "a block has the size it was announced with");
    }
}

/// What is wrong with a block.
pub(super) type Parsed<T> = std::result::Result<T, String>;

/// Reads the rows of a group. The inner error is what is wrong with the block.
pub(super) fn parse(bytes: &[u8], fingerprint: u64) -> Result<Parsed<Vec<Entry<'_>>>> {
    let mut reader = Reader { rest: bytes };
    let (Ok(magic), Ok(version)) = (reader.take(4), reader.u32()) else {
        return Ok(Err("it is shorter than its header".to_owned()));
    };
    if magic != MAGIC {
        return Ok(Err("it does not hold sorted rows".to_owned()));
    }
    if version != VERSION {
        return Err(StateError::Version { found: version, expected: VERSION });
    }
    match reader.u64() {
        Ok(found) if found != fingerprint => return Err(StateError::Layout { expected: fingerprint, found }),
        Ok(_) => Ok(entries(reader)),
        Err(what) => Ok(Err(what)),
    }
}

fn entries(mut reader: Reader<'_>) -> Parsed<Vec<Entry<'_>>> {
    let rows = reader.u64()?;
    if rows > (reader.rest.len() / ROW_HEADER) as u64 {
        return Err(format!("it counts {rows} rows in {} bytes", reader.rest.len()));
    }
    let mut entries: Vec<Entry<'_>> = Vec::with_capacity(rows as usize);
    for row in 0..rows {
        let entry = reader.entry()?;
        if entries.last().is_some_and(|last| (last.order, last.key) >= (entry.order, entry.key)) {
            return Err(format!("row {row} does not come after the one before it"));
        }
        entries.push(entry);
    }
    reader.end()?;
    Ok(entries)
}

/// Bytes that are read from the front.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let short = || format!("it ends {} bytes too early", count - self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.take(N).map(|bytes| bytes.try_into().expect("so many bytes were taken"))
    }

    pub(super) fn u8(&mut self) -> Parsed<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Parsed<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Parsed<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Parsed<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn entry(&mut self) -> Parsed<Entry<'a>> {
        let (order, key, value) = (self.i64()?, self.u32()?, self.u32()?);
        Ok(Entry { order, key: self.take(key as usize)?, value: self.take(value as usize)? })
    }

    pub(super) fn end(&self) -> Parsed<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("{} bytes follow its end", self.rest.len())) }
    }
}
