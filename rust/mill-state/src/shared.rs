//! The data of a chunk between its table, which changes it, and the writer of a checkpoint, which reads it.
//!
//! ```text
//!            TableData::own                          barrier
//!   at rest ───────────────► own, with a Promise ──────────────► handed over ─── the writer lets go ───► at rest
//!   table and writer read    the table alone                     table and writer read
//!                            reads and writes                        │
//!                                 ▲             own: a copy          │
//!                                 └──────────────────────────────────┘
//! ```
//!
//! When a table makes the data of a chunk its own, it takes a [`Promise`] of it, which nobody can read by. At the barrier
//! it hands all promises on at once, without looking at any of them, and ends its epoch: from then on it takes none of
//! its chunks for its own. Who gets the promises then turns them into [`Handed`] data, to be read.
//!
//! Why nobody reads what is written to:
//!
//! 1. A table writes to the data of a chunk, by pointer or by [`TableData::write`], only if the chunk became its own in
//!    the present epoch (`Chunk::epoch`, and the tag of an entry of the directory).
//! 2. A chunk becomes the table's own by [`TableData::own`]. If any other handle of the data is left there, the table
//!    gets a copy, so at that moment nobody else can reach what it is going to write to; from then on only the promise
//!    can, and it lies in the table until the barrier.
//! 3. Promises leave the table only when it ends its epoch, and [`Promise::keep`] is called only on such that have left.
//!    By 1 the table then writes to that data no more, until 2 starts over.
//! 4. What was written happens before what is read, as promises go to another thread by a channel; what was read happens
//!    before what is written next, as `Arc::get_mut` in [`TableData::own`] sees the other handle go.

use std::cell::UnsafeCell;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use crate::cell::Cell;
use crate::chunk::ChunkData;
use crate::pool::Pool;

#[derive(Debug)]
struct Shared {
    data: UnsafeCell<ChunkData>,
    /// The rows that the writer found to have changed, a bit each; so that the table need not look for them again.
    changed: OnceLock<Box<[u64]>>,
}

// SAFETY: `ChunkData` may be read by several threads at once (it has no interior mutability), and nobody reads what is
// written to: see the module. The rest is Sync.
unsafe impl Sync for Shared {}

/// The data of a chunk, as its table has it.
#[derive(Debug)]
pub(crate) struct TableData(Arc<Shared>);

/// The data of a chunk that the next barrier will hand over; not to be read before.
#[derive(Debug)]
pub(crate) struct Promise(Arc<Shared>);

/// The data of a chunk as it stood at a barrier.
#[derive(Debug)]
pub(crate) struct Handed(Arc<Shared>);

impl TableData {
    pub(crate) fn new(data: ChunkData) -> TableData {
        TableData(Arc::new(Shared { data: UnsafeCell::new(data), changed: OnceLock::new() }))
    }

    /// Makes the data exclusively the table's, copying it if someone else holds it or if it is mapped. Returns the pointers to
    /// write through, valid until the epoch of the table ends, and the rows marked as changed, a bit each, if the writer
    /// has told them.
    pub(crate) fn own(&mut self, pool: Option<&Pool>) -> (*mut u64, *mut Cell, Option<Box<[u64]>>) {
        let is_own = Arc::get_mut(&mut self.0).is_some_and(|shared| !shared.data.get_mut().is_mapped());
        if !is_own {
            *self = TableData::new(self.copy(pool));
        }
        let shared = Arc::get_mut(&mut self.0).expect("the data was unique or has just been made");
        let data = shared.data.get_mut();
        let rows = data.words_mut().expect("mapped data has just been copied").as_mut_ptr();
        (rows, data.cells.as_mut_ptr(), shared.changed.take())
    }

    /// What the next barrier is to hand over.
    pub(crate) fn promise(&self) -> Promise {
        Promise(Arc::clone(&self.0))
    }

    /// The data, for changing.
    ///
    /// # Safety
    /// - The data was made the table's own in the present epoch, so that nobody else reads it.
    pub(crate) unsafe fn write(&mut self) -> &mut ChunkData {
        // SAFETY: only the table and a promise have the data, says the caller; a promise is not read by, and the table's
        // handle is borrowed exclusively.
        unsafe { &mut *self.0.data.get() }
    }
}

impl Deref for TableData {
    type Target = ChunkData;
    fn deref(&self) -> &ChunkData {
        // SAFETY: who writes to the data is the table, through this handle borrowed exclusively, or through pointers to
        // rows and cells while it reads neither by this reference.
        unsafe { &*self.0.data.get() }
    }
}

impl Promise {
    /// The data, to be read.
    ///
    /// # Safety
    /// - The table has handed the promise over and ended the epoch in which it made it.
    pub(crate) unsafe fn keep(self) -> Handed {
        Handed(self.0)
    }
}

impl Handed {
    /// Tells the table which rows are marked as changed, all of them.
    pub(crate) fn tell_changed(&self, rows: Box<[u64]>) {
        // Whoever told it before has read the same rows.
        let _ = self.0.changed.set(rows);
    }
}

impl Deref for Handed {
    type Target = ChunkData;
    fn deref(&self) -> &ChunkData {
        // SAFETY: the table does not write to data that it has handed over while there is a handle of it, see the module.
        unsafe { &*self.0.data.get() }
    }
}
