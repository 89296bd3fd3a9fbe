//! Blocks: the pieces of keyed state that a checkpoint writes and a recovery reads.
//!
//! State tables produce blocks, the checkpoint writer stores them, recovery returns them as mapped bytes in the order
//! in which they were written: of two blocks with the same address the later one wins or builds on the earlier one, as
//! its [`BlockKind`] says. Neither side knows the other's types.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// What a block is about: a chunk of one state of an operator, in a namespace and a key group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockAddress {
    /// The state within the operator: 0 is the first that it declares.
    pub state: u16,
    /// The namespace within the state: 0 where there is one, the start of the pane for windows.
    pub namespace: i64,
    /// The key group that owns the chunk.
    pub group: u16,
    /// The chunk within the namespace and the group.
    pub chunk: u32,
}

/// How a block relates to the blocks before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// The whole chunk as it is; earlier blocks of the same address no longer count.
    Full = 1,
    /// The rows of the chunk that changed since the checkpoint before.
    Rows = 2,
    /// The chunk is gone (it was merged or split into chunks with other addresses).
    Drop = 3,
    /// All chunks of this state in this namespace are gone, in all groups of this task (a closed pane); group and chunk
    /// are 0.
    DropTable = 4,
}

/// Bytes of a block that are yet to be laid out; written on a background thread while the state lives on.
pub trait BlockPayload: Send {
    /// How many bytes [`write`](BlockPayload::write) fills.
    fn size(&self) -> usize;
    /// Lays the bytes out; `out` has exactly [`size`](BlockPayload::size) bytes and is aligned to 64, or to 8 if the block is
    /// of another kind than [`Full`](BlockKind::Full).
    fn write(&self, out: &mut [u8]);
    /// Whether a block announced as [`Rows`](BlockKind::Rows) gives the whole chunk after all, because most of it
    /// changed. Looking for that may take long, so it is left to the background thread.
    fn is_whole(&self) -> bool {
        false
    }
}

impl BlockPayload for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }
    fn write(&self, out: &mut [u8]) {
        out.copy_from_slice(self);
    }
}

/// A block on its way into a checkpoint.
pub struct Block {
    /// What it is about.
    pub address: BlockAddress,
    /// How it relates to earlier blocks; see [`settled_kind`](Block::settled_kind).
    pub kind: BlockKind,
    /// Its bytes.
    pub payload: Box<dyn BlockPayload>,
}

impl Block {
    /// The kind under which it is written.
    pub fn settled_kind(&self) -> BlockKind {
        if self.kind == BlockKind::Rows && self.payload.is_whole() { BlockKind::Full } else { self.kind }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block")
            .field("address", &self.address)
            .field("kind", &self.kind)
            .field("bytes", &self.payload.size())
            .finish()
    }
}

/// Blocks that are yet to be made: what a barrier cuts off is handed on as it is, and taken apart on the writer's thread.
pub trait BlockSource: Send {
    /// Makes the blocks, in their order.
    fn make(self: Box<Self>, out: &mut Vec<Block>);
}

impl BlockSource for Block {
    fn make(self: Box<Self>, out: &mut Vec<Block>) {
        out.push(*self);
    }
}

/// The blocks of a snapshot, in their order. At a barrier nothing is done for a block, only for a source of blocks.
#[derive(Default)]
pub struct Blocks {
    sources: Vec<Box<dyn BlockSource>>,
}

impl Blocks {
    /// Adds what this source makes; a [`Block`] is a source of itself.
    pub fn push(&mut self, source: impl BlockSource + 'static) {
        self.sources.push(Box::new(source));
    }

    /// Makes all blocks.
    pub fn make(self) -> Vec<Block> {
        let mut blocks = Vec::new();
        self.sources.into_iter().for_each(|source| source.make(&mut blocks));
        blocks
    }
}

impl fmt::Debug for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocks({} sources)", self.sources.len())
    }
}

/// Read-only bytes that something else keeps alive: a mapped file, a frame, a vector. Cloning shares them.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    start: usize,
    end: usize,
}

impl SharedBytes {
    /// All bytes of the owner.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> SharedBytes {
        let end = (*owner).as_ref().len();
        SharedBytes { owner, start: 0, end }
    }

    /// A part of these bytes, sharing the owner.
    ///
    /// # Panics
    /// If the range is not within the bytes.
    pub fn slice(&self, start: usize, end: usize) -> SharedBytes {
        assert!(start <= end && self.start + end <= self.end, "range {start}..{end} of {} bytes", self.len());
        SharedBytes { owner: Arc::clone(&self.owner), start: self.start + start, end: self.start + end }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.start..self.end]
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> SharedBytes {
        SharedBytes::new(Arc::new(bytes))
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({} bytes)", self.len())
    }
}

/// A block that recovery returns. Its checksum has been verified; its content has not been interpreted.
#[derive(Clone, Debug)]
pub struct RestoredBlock {
    /// What it is about.
    pub address: BlockAddress,
    /// How it relates to the blocks given before it.
    pub kind: BlockKind,
    /// Its bytes, aligned to 64 and usable in place if it is full, else to 8.
    pub bytes: SharedBytes,
    /// What [`Inspect`] returned; 0 if nobody looked.
    pub seen: u32,
}

/// Looks a full block of keyed state over right after its checksum was taken, while its bytes are in the nearest cache, so
/// that whoever restores need not fetch them again. Returns what it found, or 0 for nothing that can be relied on.
pub type Inspect = fn(&[u8]) -> u32;
