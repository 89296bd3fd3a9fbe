//! Tables into checkpoints; `restore` has the way back.
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

use std::sync::Arc;

use mill_frame::block::Blocks;

use crate::bucket::Chunk;
use crate::handover::Handover;
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
}
