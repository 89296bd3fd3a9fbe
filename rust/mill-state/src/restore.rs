//! Tables out of checkpoints.
//!
//! ```text
//!   blocks, oldest first ─► by address ─► each address on its own, on all cores ─► chunks of whole groups ─► table
//! ```
//!
//! A job waits for this before its first record, so the rows are read once at most, by all cores: rows of a whole block
//! stay where they are mapped, and are only looked over. Which of them are still to be given stands in the rows and is
//! looked for when they are (see [`StateTable::mark_changed`]).

use std::sync::Arc;

use mill_frame::block::{BlockAddress, BlockKind, RestoredBlock};
use mill_frame::on_all_cores;
use rayon::prelude::*;

use crate::bucket::Chunk;
use crate::chunk::ChunkData;
use crate::error::{Result, StateError};
use crate::image::{check_rows, parse};
use crate::layout::RowLayout;
use crate::table::{StateTable, TableOptions};

/// How many addresses a thread takes at a time.
const ADDRESSES_MIN: usize = 64;

/// A block of the table, and its place among all of them.
struct Placed<'b> {
    group: u16,
    id: u32,
    order: usize,
    block: &'b RestoredBlock,
}

impl StateTable {
    /// Takes up the state that these blocks leave, oldest first, in place of what the table has. Blocks of other states
    /// and of key groups that the table does not hold are skipped; the namespace is not looked at.
    ///
    /// # Errors
    /// When blocks are of another layout, or contradict each other or themselves.
    pub fn restore<'b>(&mut self, blocks: impl IntoIterator<Item = &'b RestoredBlock>) -> Result<()> {
        let options = self.options().clone();
        let mut placed: Vec<Placed<'b>> = Vec::new();
        for block in blocks {
            let BlockAddress { state, group, chunk: id, .. } = block.address;
            if state != options.state {
                continue;
            }
            if block.kind == BlockKind::DropTable {
                placed.clear();
                continue;
            }
            if !options.groups.contains(&group) {
                continue;
            }
            if id == 0 || id.ilog2() > StateTable::depth_max() {
                let what = "there is no such chunk".to_owned();
                return Err(StateError::Damaged { group, chunk: id, what });
            }
            placed.push(Placed { group, id, order: placed.len(), block });
        }
        on_all_cores(|| placed.par_sort_unstable_by_key(|placed| (placed.group, placed.id, placed.order)));
        let addresses: Vec<&[Placed<'b>]> = placed.chunk_by(|a, b| (a.group, a.id) == (b.group, b.id)).collect();
        let layout = self.layout();
        let of_address = |blocks: &[Placed<'b>]| chunk(blocks, layout, &options);
        let restored: Vec<Result<Option<Chunk>>> =
            on_all_cores(|| addresses.into_par_iter().with_min_len(ADDRESSES_MIN).map(of_address).collect());
        let chunks: Vec<Chunk> = restored.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
        check_cover(&chunks)?;
        self.adopt(chunks);
        Ok(())
    }
}

/// The chunk that the blocks of one address leave.
fn chunk(blocks: &[Placed<'_>], layout: &Arc<RowLayout>, options: &TableOptions) -> Result<Option<Chunk>> {
    // The rows in all, their data, and how many are taken if that is known.
    let mut draft: Option<(u32, ChunkData, Option<u32>)> = None;
    let Some(&Placed { group, id, .. }) = blocks.first() else { return Ok(None) };
    let damaged = |what: String| StateError::Damaged { group, chunk: id, what };
    for Placed { block, .. } in blocks {
        match block.kind {
            BlockKind::Full => {
                let image = parse(&block.bytes, layout, true)?.map_err(damaged)?;
                draft = Some((image.capacity, image.into_data(), block.seen.checked_sub(1)));
            }
            BlockKind::Rows => {
                let image = parse(&block.bytes, layout, false)?.map_err(damaged)?;
                let Some((capacity, data, count)) = &mut draft else {
                    return Err(damaged("rows of it changed, but it is not there".to_owned()));
                };
                if *capacity != image.capacity {
                    return Err(damaged(format!("it has {} rows, its base {capacity}", image.capacity)));
                }
                if data.is_mapped() {
                    *data = data.copy(None);
                }
                image.apply(data, layout).map_err(damaged)?;
                *count = None;
            }
            BlockKind::Drop => draft = None,
            BlockKind::DropTable => unreachable!("it is not about an address"),
        }
    }
    let Some((capacity, data, count)) = draft else { return Ok(None) };
    let (count, garbage) = check_rows(&data, layout, count).map_err(damaged)?;
    Ok(Some(Chunk { garbage, ..Chunk::of_data(group, id, capacity, count, data, options) }))
}

/// Checks that the chunks of each key group share out its hashes: no two hold the same, none are missing.
fn check_cover(chunks: &[Chunk]) -> Result<()> {
    let mut spans: Vec<(u16, u64, u32)> = chunks.iter().map(|chunk| (chunk.group, start(chunk.id), chunk.id)).collect();
    on_all_cores(|| spans.par_sort_unstable());
    for of_group in spans.chunk_by(|a, b| a.0 == b.0) {
        let mut next = 0;
        for &(group, start, id) in of_group {
            if start != next {
                let what = "the chunks of its group do not fit together".to_owned();
                return Err(StateError::Damaged { group, chunk: id, what });
            }
            next = start + width(id);
        }
        if next != 1 << StateTable::depth_max() {
            let what = "chunks of its group are missing".to_owned();
            return Err(StateError::Damaged { group: of_group[0].0, chunk: 1, what });
        }
    }
    Ok(())
}

/// How many of the smallest prefixes a chunk holds.
fn width(id: u32) -> u64 {
    1 << (StateTable::depth_max() - id.ilog2())
}

/// The first of the smallest prefixes that a chunk holds.
fn start(id: u32) -> u64 {
    u64::from(id - (1 << id.ilog2())) * width(id)
}
