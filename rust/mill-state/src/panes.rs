//! Tables of panes: one state table for each piece of event time.
//!
//! A pane is opened by its first record and dropped as a whole when its windows have fired; that leaves all of its memory to
//! the panes after it at once, and costs a checkpoint one small block a chunk.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use mill_frame::block::{BlockAddress, BlockKind, Blocks, RestoredBlock};

use crate::error::Result;
use crate::handover::Drops;
use crate::layout::RowLayout;
use crate::pool::Pool;
use crate::table::{Shape, StateTable, TableOptions};

/// How large a table that is kept for the next pane may be.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// The tables of all open panes, by the start of the pane.
#[derive(Debug)]
pub struct PaneTables {
    layout: Arc<RowLayout>,
    options: TableOptions,
    /// What closed panes leave is taken by the next ones.
    pool: Pool,
    /// As large as the last pane that closed was, the next one is expected to be.
    shape: Shape,
    panes: BTreeMap<i64, StateTable>,
    /// A small table that has been closed: the next one of its shape takes its chunks as they are.
    spare: Option<StateTable>,
    /// Chunks of closed panes that checkpoints still hold.
    closed: Vec<BlockAddress>,
}

impl PaneTables {
    /// No panes yet; each gets a table of this layout with these options.
    pub fn new(layout: Arc<RowLayout>, options: TableOptions) -> PaneTables {
        let pool = StateTable::pool_for(&layout);
        PaneTables { layout, options, pool, shape: Shape::SMALL, panes: BTreeMap::new(), spare: None, closed: Vec::new() }
    }

    /// The layout of the rows.
    pub fn layout(&self) -> &Arc<RowLayout> {
        &self.layout
    }

    /// Makes it another state of its step, before it is restored.
    pub(crate) fn set_state(&mut self, state: u16) {
        self.options.state = state;
        self.spare = None;
    }

    /// The table of a pane, opened if need be, as large as the last one that closed.
    pub fn open(&mut self, start: i64) -> &mut StateTable {
        let shape = self.shape;
        self.open_as(start, shape)
    }

    /// The table of a pane, opened if need be for about so many rows.
    pub fn open_for(&mut self, start: i64, rows: usize) -> &mut StateTable {
        let shape = StateTable::shape_for(&self.layout, self.options.groups.len(), rows);
        self.open_as(start, shape)
    }

    fn open_as(&mut self, start: i64, shape: Shape) -> &mut StateTable {
        self.panes.entry(start).or_insert_with(|| {
            if let Some(table) = self.spare.take_if(|spare| spare.is_like(shape)) {
                return table;
            }
            let mut table = StateTable::with_pool(Arc::clone(&self.layout), self.options.clone(), self.pool.clone());
            table.expect(shape);
            table
        })
    }

    /// The table of a pane, if it is open.
    pub fn pane(&mut self, start: i64) -> Option<&mut StateTable> {
        self.panes.get_mut(&start)
    }

    /// Whether the pane is open.
    pub fn has(&self, start: i64) -> bool {
        self.panes.contains_key(&start)
    }

    /// The start of the earliest pane that has rows.
    pub fn first_filled(&self) -> Option<i64> {
        self.panes.iter().find(|(_, table)| !table.is_empty()).map(|(&start, _)| start)
    }

    /// The start of the earliest open pane.
    pub fn first(&self) -> Option<i64> {
        self.panes.first_key_value().map(|(&start, _)| start)
    }

    /// The starts of the open panes, in order.
    pub fn starts(&self) -> impl Iterator<Item = i64> + '_ {
        self.panes.keys().copied()
    }

    /// The starts of the open panes within a range, in order.
    pub fn starts_in(&self, range: Range<i64>) -> impl Iterator<Item = i64> + '_ {
        self.panes.range(range).map(|(&start, _)| start)
    }

    /// Closes a pane and frees its memory.
    pub fn close(&mut self, start: i64) {
        let Some(mut table) = self.panes.remove(&start) else { return };
        self.shape = table.shape();
        if table.memory() <= SPARE_BYTES_MAX && table.recycle() {
            self.spare = Some(table);
            return;
        }
        if self.options.is_persistent {
            let state = self.options.state;
            let address = |(group, chunk)| BlockAddress { state, namespace: start, group, chunk };
            self.closed.extend(table.into_drops().into_iter().map(address));
        }
    }

    /// Empties a pane but keeps its memory, see [`StateTable::reset`].
    pub fn reset(&mut self, start: i64) {
        if let Some(table) = self.panes.get_mut(&start) {
            table.reset();
        }
    }

    /// How many panes are open.
    pub fn len(&self) -> usize {
        self.panes.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.panes.is_empty()
    }

    /// How many rows all panes have.
    pub fn rows(&self) -> usize {
        self.panes.values().map(StateTable::len).sum()
    }

    /// How many rows a pane has.
    pub fn rows_of(&self, start: i64) -> usize {
        self.panes.get(&start).map_or(0, StateTable::len)
    }

    /// About how many bytes of memory all panes take.
    pub fn memory(&self) -> usize {
        self.panes.values().chain(&self.spare).map(StateTable::memory).sum()
    }

    /// Returns what changed since the last snapshot (or everything), to be made blocks of.
    pub fn snapshot(&mut self, is_full: bool, out: &mut Blocks) {
        if !self.closed.is_empty() {
            out.push(Drops(std::mem::take(&mut self.closed)));
        }
        for (&start, table) in &mut self.panes {
            table.snapshot(start, is_full, out);
        }
    }

    /// Takes up the panes that these blocks leave, oldest first, in place of those that are open. Blocks of other states
    /// are skipped.
    ///
    /// # Errors
    /// When blocks are of another layout, or contradict each other or themselves.
    pub fn restore<'b>(&mut self, blocks: impl IntoIterator<Item = &'b RestoredBlock>) -> Result<()> {
        let mut by_pane: BTreeMap<i64, Vec<&RestoredBlock>> = BTreeMap::new();
        for block in blocks.into_iter().filter(|block| block.address.state == self.options.state) {
            let of_pane = by_pane.entry(block.address.namespace).or_default();
            if block.kind == BlockKind::DropTable {
                of_pane.clear();
            } else {
                of_pane.push(block);
            }
        }
        self.panes.clear();
        self.spare = None;
        self.closed.clear();
        for (start, blocks) in by_pane {
            let mut table = StateTable::with_pool(Arc::clone(&self.layout), self.options.clone(), self.pool.clone());
            table.restore(blocks)?;
            if table.has_chunks() {
                self.panes.insert(start, table);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
