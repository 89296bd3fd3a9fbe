//! The stable hash of keys, and the key groups derived from it.
//!
//! State on disk is addressed by this hash, so it must be the same in every process, on every machine and in every
//! version: changing it is a change of format. Its bits are used apart: the highest [`KEY_GROUP_BITS`] choose the key
//! group (and thereby the task), the next ones the chunk within a table, the lowest the slot within a chunk.

mod columns;

pub use columns::hash_columns;

/// How many bits of the hash choose the key group.
pub const KEY_GROUP_BITS: u32 = 7;
/// How many key groups there are; also the highest parallelism of a keyed step.
pub const KEY_GROUPS: u16 = 1 << KEY_GROUP_BITS;

/// The key group of a key with this hash.
#[inline]
pub fn key_group(hash: u64) -> u16 {
    (hash >> (64 - KEY_GROUP_BITS)) as u16
}

/// The task, out of `parallelism`, that owns a key group. Each task owns one contiguous range of groups.
#[inline]
pub fn task_of_group(group: u16, parallelism: usize) -> usize {
    usize::from(group) * parallelism / usize::from(KEY_GROUPS)
}

/// The key groups that a task owns.
pub fn groups_of_task(task: usize, parallelism: usize) -> std::ops::Range<u16> {
    let first = |task: usize| (task * usize::from(KEY_GROUPS)).div_ceil(parallelism) as u16;
    first(task)..first(task + 1)
}
