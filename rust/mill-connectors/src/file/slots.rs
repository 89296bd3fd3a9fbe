//! How many followed files may be held open at once, whatever their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A process may have 256 descriptors where little is allowed; this leaves most of them to others.
const SLOTS: usize = 64;

/// The slots of one source.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    taken: AtomicUsize,
}

/// The right to hold a file open.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Slots>);

impl Slots {
    /// Takes a slot, if one is free.
    pub(crate) fn try_take(self: &Arc<Slots>) -> Option<Slot> {
        // Relaxed, here and below: the number alone counts, nothing is handed over with it.
        let is_free = |taken| (taken < SLOTS).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_free);
        taken.is_ok().then(|| Slot(Arc::clone(self)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
