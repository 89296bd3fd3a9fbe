//! The list that a table hands over at a barrier, and the blocks that the writer makes of it.
//!
//! Nothing here is done for a chunk at the barrier: the list of changes is maintained while the chunks change, and is
//! passed to the writer as it is.

use std::sync::Arc;

use mill_frame::block::{Block, BlockAddress, BlockKind, BlockPayload, BlockSource};

use crate::bucket::Chunk;
use crate::image::ChunkImage;
use crate::layout::RowLayout;
use crate::shared::Promise;
use crate::table::StateTable;

/// A chunk as the next barrier hands it over: made when it first changes in an epoch.
#[derive(Debug)]
pub(crate) struct Touched {
    pub(crate) data: Promise,
    /// How much of the arena the checkpoints so far hold.
    pub(crate) arena_from: usize,
    pub(crate) id: u32,
    pub(crate) group: u16,
    /// The checkpoints so far hold this chunk, under its id and with these slots.
    pub(crate) is_based: bool,
    /// The checkpoints so far hold something at its address.
    pub(crate) is_held: bool,
    /// The slots that rows were taken out of, a bit each; some may have a row again. `None` for none.
    pub(crate) emptied: Option<Box<[u64]>>,
}

impl Touched {
    /// The slots that rows were taken out of, of a chunk with so many.
    pub(crate) fn emptied(&mut self, capacity: u32) -> &mut [u64] {
        self.emptied.get_or_insert_with(|| vec![0; (capacity as usize).div_ceil(64)].into())
    }
}

/// What a snapshot of a table consists of.
///
/// Invariant: the table has ended the epoch in which it made the promises of `touched`. [`take`](Handover::take) sees to
/// it, and there is no other way to make one.
#[derive(Debug)]
pub(crate) struct Handover {
    layout: Arc<RowLayout>,
    state: u16,
    namespace: i64,
    is_full: bool,
    dropped: Vec<(u16, u32)>,
    touched: Vec<Touched>,
}

impl Handover {
    /// Takes what changed in a table since the last snapshot (or everything), and ends its epoch. `None` if there is nothing.
    pub(crate) fn take(from: &mut StateTable, namespace: i64, is_full: bool) -> Option<Handover> {
        let next = Vec::with_capacity(from.touched.len());
        let mut touched = std::mem::replace(&mut from.touched, next);
        let ended = from.end_epoch();
        if is_full {
            touched.extend(from.chunks.iter().filter(|chunk| chunk.epoch != ended).map(Chunk::touched_again));
        }
        let dropped = std::mem::take(&mut from.dropped);
        let (layout, state) = (Arc::clone(from.layout()), from.options().state);
        let is_something = !touched.is_empty() || !dropped.is_empty();
        is_something.then(|| Handover { layout, state, namespace, is_full, dropped, touched })
    }
}

impl BlockSource for Handover {
    fn make(self: Box<Self>, out: &mut Vec<Block>) {
        let Handover { layout, state, namespace, is_full, dropped, touched } = *self;
        let address = |group, id| BlockAddress { state, namespace, group, chunk: id };
        out.reserve(dropped.len() + touched.len());
        out.extend(dropped.into_iter().map(|(group, id)| drop_block(address(group, id))));
        for Touched { data, arena_from, id, group, is_based, emptied, .. } in touched {
            // SAFETY: the table has ended the epoch in which it made the promises of `touched` (invariant of the type).
            let data = unsafe { data.keep() };
            let arena = arena_from..data.arena.bytes().len();
            let is_whole = is_full || !is_based;
            let image = ChunkImage::new(data, Arc::clone(&layout), is_whole, arena, emptied);
            out.push(block(address(group, id), image, is_whole));
        }
    }
}

fn block(address: BlockAddress, image: ChunkImage, is_whole: bool) -> Block {
    if is_whole {
        return Block { address, kind: BlockKind::Full, payload: Box::new(image) };
    }
    if image.is_whole() {
        return Block { address, kind: BlockKind::Rows, payload: Box::new(image) };
    }
    // A few rows are laid out at once, so that the data goes back to its table, which then need not copy it.
    let mut bytes = vec![0; image.size()];
    image.write(&mut bytes);
    Block { address, kind: BlockKind::Rows, payload: Box::new(bytes) }
}

/// Chunks of tables that are gone.
pub(crate) struct Drops(pub(crate) Vec<BlockAddress>);

impl BlockSource for Drops {
    fn make(self: Box<Self>, out: &mut Vec<Block>) {
        out.extend(self.0.into_iter().map(drop_block));
    }
}

/// A block that says that a chunk is gone.
fn drop_block(address: BlockAddress) -> Block {
    Block { address, kind: BlockKind::Drop, payload: Box::new(Vec::new()) }
}

#[cfg(test)]
mod tests;
