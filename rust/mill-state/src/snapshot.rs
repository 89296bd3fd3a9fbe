//! Tables into checkpoints and back.
//!
//! A snapshot hands on one list, which was made as the chunks changed, and looks at none of them. Which rows of a chunk
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

use mill_frame::block::{BlockKind, Blocks, RestoredBlock};

use crate::bucket::Chunk;
use crate::chunk::ChunkData;
use crate::error::{Result, StateError};
use crate::handover::{Handover, PART_SHIFT, with_part};
use crate::image::{check_rows, parse};
use crate::table::StateTable;

impl StateTable {
    /// Gives what changed since the last snapshot (or everything), to be made blocks of this table address, and ends the
    /// epoch: the next change of a chunk finds it at rest.
    ///
    /// It takes the same time however much has changed; only if everything is to be given, each chunk is looked at.
    ///
    /// # Panics
    /// If the table was made without persistence.
    pub fn snapshot(&mut self, table: i64, is_full: bool, out: &mut Blocks) {
        assert!(self.options().is_persistent, "the table is not persistent");
        let next = Vec::with_capacity(self.touched.len());
        let mut touched = std::mem::replace(&mut self.touched, next);
        let ended = self.end_epoch();
        if is_full {
            touched.extend(self.chunks.iter().filter(|chunk| chunk.epoch != ended).map(Chunk::touched_again));
        }
        let dropped = std::mem::take(&mut self.dropped);
        if !touched.is_empty() || !dropped.is_empty() {
            let (layout, part) = (Arc::clone(self.layout()), self.options().part);
            out.push(Handover { layout, table, part, is_full, dropped, touched });
        }
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
            chunks.push(Chunk::of_data(group, id, capacity, count, data, &options));
        }
        self.adopt(chunks);
        Ok(())
    }
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

