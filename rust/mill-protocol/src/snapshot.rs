//! State on its way into a checkpoint and back.

use mill_frame::block::{Blocks, RestoredBlock, SharedBytes};

/// The number of a checkpoint; also the name of what is between it and the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The state of one operator instance at a barrier.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The operator's state that has no key (positions, watermarks, counters), in a form of its own. On restore every
    /// instance gets those of all instances.
    pub bytes: Option<Vec<u8>>,
    /// Keyed state: what changed since the snapshot before, or everything if `is_full`.
    pub blocks: Blocks,
    /// Set by the runtime: everything must be given, not only what changed since the snapshot before.
    pub is_full: bool,
}

/// The state of an operator as a checkpoint has it, from all instances that there were.
#[derive(Debug, Default)]
pub struct Restored {
    /// The state without key of each former instance.
    pub bytes: Vec<SharedBytes>,
    /// The blocks of the key groups that this instance owns now, oldest first.
    pub blocks: Vec<RestoredBlock>,
    /// Whether the former instances had other aggregates, so that rows have to be rewritten. The next snapshot is full then.
    pub has_other_parts: bool,
}
