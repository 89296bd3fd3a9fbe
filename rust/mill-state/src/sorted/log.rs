//! What changed in a key group since the last snapshot, in order. Little-endian.
//!
//! ```text
//!   0  version u32 = 1   4  0 u32   8  changes u64
//!  16  the changes: 1 inserted    order i64, bytes of the key u32, bytes of the value u32, key, value
//!                   2 removed     order i64, bytes of the key u32, key
//!                   3 the first rows taken: how many u64
//!                   4 removed, all keys that begin like this: order i64, bytes u32, the beginning
//! ```

use super::image::{Parsed, Reader, VERSION};
use super::{Entry, Group, Place};
use crate::error::{Result, StateError};

const HEADER: usize = 16;
const INSERT: u8 = 1;
const REMOVE: u8 = 2;
const TAKE_FIRST: u8 = 3;
const REMOVE_PREFIX: u8 = 4;

/// A change of a group.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change<'a> {
    /// A row is there, with this value.
    Insert(Entry<'a>),
    /// A row is gone.
    Remove { order: i64, key: &'a [u8] },
    /// So many rows are gone, the first ones.
    TakeFirst(u64),
    /// The rows are gone whose keys begin like this.
    RemovePrefix { order: i64, prefix: &'a [u8] },
}

#[derive(Debug, Default)]
pub(super) struct Log {
    changes: u64,
    bytes: Vec<u8>,
}

impl Log {
    pub(super) fn push(&mut self, change: Change<'_>) {
        let out = &mut self.bytes;
        if self.changes == 0 {
            out.resize(HEADER, 0);
        }
        self.changes += 1;
        match change {
            Change::Insert(entry) => {
                out.push(INSERT);
                out.extend(entry.order.to_le_bytes());
                out.extend((entry.key.len() as u32).to_le_bytes());
                out.extend((entry.value.len() as u32).to_le_bytes());
                out.extend(entry.key);
                out.extend(entry.value);
            }
            Change::Remove { order, key } => push_key(out, REMOVE, order, key),
            Change::TakeFirst(rows) => {
                out.push(TAKE_FIRST);
                out.extend(rows.to_le_bytes());
            }
            Change::RemovePrefix { order, prefix } => push_key(out, REMOVE_PREFIX, order, prefix),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    /// The payload of its block.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().max(HEADER), 0);
        self.bytes[..4].copy_from_slice(&VERSION.to_le_bytes());
        self.bytes[8..HEADER].copy_from_slice(&self.changes.to_le_bytes());
        self.bytes
    }
}

fn push_key(out: &mut Vec<u8>, change: u8, order: i64, key: &[u8]) {
    out.push(change);
    out.extend(order.to_le_bytes());
    out.extend((key.len() as u32).to_le_bytes());
    out.extend(key);
}

/// Applies the changes of a block to the group that they were noted for. The inner error is what does not fit.
pub(super) fn apply(bytes: &[u8], group: &mut Group) -> Result<Parsed<()>> {
    let mut reader = Reader { rest: bytes };
    match reader.u32() {
        Ok(VERSION) => Ok(apply_all(reader, group)),
        Ok(found) => Err(StateError::Version { found, expected: VERSION }),
        Err(what) => Ok(Err(what)),
    }
}

fn apply_all(mut reader: Reader<'_>, group: &mut Group) -> Parsed<()> {
    if reader.u32()? != 0 {
        return Err("its header is not zero where it has to be".to_owned());
    }
    for change in 0..reader.u64()? {
        let misfit = |what: &str| format!("change {change} {what}");
        match reader.u8()? {
            INSERT => _ = group.insert(reader.entry()?),
            kind @ (REMOVE | REMOVE_PREFIX) => {
                let (order, length) = (reader.i64()?, reader.u32()?);
                let key = reader.take(length as usize)?;
                let was_there =
                    if kind == REMOVE { group.remove(order, key) } else { group.remove_prefix(order, key) > 0 };
                if !was_there {
                    return Err(misfit("removes a row that is not there"));
                }
            }
            TAKE_FIRST => {
                let rows = reader.u64()?;
                if rows == 0 || rows > group.rows as u64 {
                    return Err(misfit("takes more rows than there are, or none"));
                }
                group.remove_rows(Place { leaf: 0, row: 0 }, rows as usize);
            }
            _ => return Err(misfit("is of an unknown kind")),
        }
    }
    reader.end()
}
