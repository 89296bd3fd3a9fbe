//! Tables into checkpoints; `restore` has the way back.
//!
//! A snapshot hands on one list, which was made as the chunks changed, and looks at none of them. Which rows of a chunk
//! changed stands in the rows; the writer looks for them, and lays the bytes out, on its own thread.
//!
//! ```text
//!   chunk is new, or was doubled, halved, split, merged  Full       (and Drop for chunks that were split or merged)
//!   more than half of its rows changed                   Full
//!   some rows changed or were removed                    Rows
//!   nothing changed                                      nothing
//! ```

use mill_frame::block::Blocks;

use crate::handover::Handover;
use crate::table::StateTable;

impl StateTable {
    /// Returns what changed since the last snapshot (or everything), to be made blocks of this namespace, and ends the
    /// epoch: the next change of a chunk finds it at rest.
    ///
    /// It takes the same time however much has changed; only if everything is to be given, each chunk is looked at.
    ///
    /// # Panics
    /// If the table was made without persistence.
    pub fn snapshot(&mut self, namespace: i64, is_full: bool, out: &mut Blocks) {
        assert!(self.options().is_persistent, "the table is not persistent");
        if let Some(handover) = Handover::take(self, namespace, is_full) {
            out.push(handover);
        }
    }
}
