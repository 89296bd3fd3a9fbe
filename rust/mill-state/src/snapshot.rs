//! Tables into checkpoints and back.
//!
//! A snapshot moves pointers only: for each chunk touched since the last one it hands on the shared data. Which of its rows
//! changed stands in the rows; the writer looks for them, and lays the bytes out, on its own thread.
//!
//! ```text
//!   chunk is new, was doubled or split, or lost a row    Full       (and Drop for the chunk that was split)
//!   more than half of its rows changed                   Full
//!   some rows changed                                    Rows
//!   nothing changed                                      nothing
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use mill_frame::block::{Block, BlockAddress, BlockKind, RestoredBlock};

use crate::bucket::Chunk;
use crate::chunk::ChunkData;
use crate::error::{Result, StateError};
use crate::image::{ChunkImage, check_rows, parse};
use crate::table::StateTable;

const PART_SHIFT: u32 = 28;
/// How many chunks ahead of the one handed over are fetched, and how many counts of their data.
const FETCHED_CHUNKS: usize = 12;
const FETCHED_COUNTS: usize = 6;

impl StateTable {
    /// Gives what changed since the last snapshot (or everything) as blocks of this table address.
    ///
    /// # Panics
    /// If the table was made without persistence.
    pub fn snapshot(&mut self, table: i64, is_full: bool, out: &mut Vec<Block>) {
        assert!(self.options().is_persistent, "the table is not persistent");
        let part = u32::from(self.options().part) << PART_SHIFT;
        for (group, id) in std::mem::take(&mut self.dropped) {
            out.push(drop_block(table, group, id | part));
        }
        let touched = std::mem::take(&mut self.touched);
        if is_full {
            for place in 0..self.chunks.len() {
                self.snapshot_chunk(place, table, true, out);
            }
            return;
        }
        out.reserve(touched.len());
        for (index, &place) in touched.iter().enumerate() {
            // The task stands still meanwhile, and what it waits for is memory: first the chunk, then the count of its data.
            if let Some(&place) = touched.get(index + FETCHED_CHUNKS) {
                self.chunks[place as usize].prefetch();
            }
            if let Some(&place) = touched.get(index + FETCHED_COUNTS) {
                self.chunks[place as usize].prefetch_count();
            }
            self.snapshot_chunk(place as usize, table, false, out);
        }
    }

    fn snapshot_chunk(&mut self, place: usize, table: i64, is_full: bool, out: &mut Vec<Block>) {
        let layout = Arc::clone(self.layout());
        let part = u32::from(self.options().part) << PART_SHIFT;
        let chunk = &mut self.chunks[place];
        let address = BlockAddress { table, group: chunk.group(), chunk: chunk.id() | part };
        let is_based = std::mem::replace(&mut chunk.is_based, true);
        chunk.is_held = true;
        let arena_from = chunk.arena_based;
        let data = chunk.share();
        self.refresh(place);
        let arena_to = data.arena.bytes().len();
        let is_whole = is_full || !is_based;
        let kind = if is_whole { BlockKind::Full } else { BlockKind::Rows };
        out.push(Block { address, kind, payload: Box::new(ChunkImage::new(data, layout, is_whole, arena_from..arena_to)) });
    }

    /// Takes up the state that these blocks leave, oldest first, in place of what the table has. Blocks of other parts
    /// and of key groups that the table does not hold are passed over; the table address is not looked at.
    ///
    /// # Errors
    /// When blocks are of another layout, or contradict each other or themselves.
    pub fn restore<'b>(&mut self, blocks: impl IntoIterator<Item = &'b RestoredBlock>) -> Result<()> {
        let layout = Arc::clone(self.layout());
        let options = self.options().clone();
        let mut drafts: BTreeMap<(u16, u32), (u32, ChunkData)> = BTreeMap::new();
        for block in blocks {
            let address = block.address;
            let (group, id) = (address.group, address.chunk & ((1 << PART_SHIFT) - 1));
            if block.kind == BlockKind::DropTable {
                drafts.clear();
                continue;
            }
            if address.chunk >> PART_SHIFT != u32::from(options.part) || !options.groups.contains(&group) {
                continue;
            }
            let damaged = |what: String| StateError::Damaged { group, chunk: address.chunk, what };
            if id == 0 || id.ilog2() > StateTable::depth_max() {
                return Err(damaged("there is no such chunk".to_owned()));
            }
            match block.kind {
                BlockKind::Full => {
                    let image = parse(&block.bytes, &layout, true)?.map_err(damaged)?;
                    drafts.insert((group, id), (image.capacity, image.into_data()));
                }
                BlockKind::Rows => {
                    let image = parse(&block.bytes, &layout, false)?.map_err(damaged)?;
                    let Some((capacity, data)) = drafts.get_mut(&(group, id)) else {
                        return Err(damaged("rows of it changed, but it is not there".to_owned()));
                    };
                    if *capacity != image.capacity {
                        return Err(damaged(format!("it has {} rows, its base {capacity}", image.capacity)));
                    }
                    if data.is_mapped() {
                        *data = data.copy(None);
                    }
                    image.apply(data, &layout).map_err(damaged)?;
                }
                BlockKind::Drop => {
                    drafts.remove(&(group, id));
                }
                BlockKind::DropTable => unreachable!("handled above"),
            }
        }
        check_cover(drafts.keys().copied(), options.part)?;
        let mut chunks = Vec::with_capacity(drafts.len());
        for ((group, id), (capacity, data)) in drafts {
            let count =
                check_rows(&data, &layout).map_err(|what| StateError::Damaged { group, chunk: id, what })?;
            let mut chunk = Chunk::of_data(group, id, capacity, count, data, &options);
            (chunk.is_based, chunk.is_held) = (true, true);
            chunks.push(chunk);
        }
        self.adopt(chunks);
        Ok(())
    }
}

/// A block that says that a chunk is gone.
pub(crate) fn drop_block(table: i64, group: u16, chunk: u32) -> Block {
    let address = BlockAddress { table, group, chunk };
    Block { address, kind: BlockKind::Drop, payload: Box::new(Vec::new()) }
}

/// The address of a chunk of this part.
pub(crate) fn with_part(id: u32, part: u8) -> u32 {
    id | u32::from(part) << PART_SHIFT
}

/// Checks that the chunks of each key group share out its hashes: no two hold the same, none are missing.
fn check_cover(ids: impl Iterator<Item = (u16, u32)>, part: u8) -> Result<()> {
    let mut covered: BTreeMap<u16, (u64, Vec<(u64, u32)>)> = BTreeMap::new();
    for (group, id) in ids {
        let depth = id.ilog2();
        let width = 1u64 << (StateTable::depth_max() - depth);
        let start = u64::from(id - (1 << depth)) * width;
        let entry = covered.entry(group).or_default();
        entry.0 += width;
        entry.1.push((start, id));
    }
    for (group, (width, mut starts)) in covered {
        starts.sort_unstable();
        let mut next = 0;
        for &(start, id) in &starts {
            if start != next {
                let what = "the chunks of its group do not fit together".to_owned();
                return Err(StateError::Damaged { group, chunk: with_part(id, part), what });
            }
            next = start + (1u64 << (StateTable::depth_max() - id.ilog2()));
        }
        if width != 1 << StateTable::depth_max() {
            let what = "chunks of its group are missing".to_owned();
            return Err(StateError::Damaged { group, chunk: with_part(1, part), what });
        }
    }
    Ok(())
}

