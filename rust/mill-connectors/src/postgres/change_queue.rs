//! What the thread that reads changes hands to the reader: pieces with the places in them, by a queue of two.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::postgres::CancelToken;
use arrow::array::RecordBatch;
use mill_protocol::Error;

use super::address::Attempt;
use super::change_place::{Place, Within};
use super::pgoutput::Lsn;
use super::wire::POLL;

/// So many pieces wait at most.
const PIECES_MAX: usize = 2;
/// How long a call waits for a piece before it says that there is none yet.
const ANSWER_WAIT: Duration = Duration::from_millis(20);

/// Rows and what becomes of their keys, and the places after them.
pub(super) struct Piece {
    pub(super) batch: RecordBatch,
    pub(super) bad: Vec<(usize, String)>,
    pub(super) places: Places,
}

pub(super) enum Places {
    /// Of rows of the table: the place at the start, and the point of the snapshot.
    Rows(Place, Lsn),
    /// The place before them, and those after so many changes; the last one is after all of them.
    Changes(Place, Vec<Mark>),
}

/// The place after so many changes.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pub(super) end: usize,
    pub(super) lsn: Lsn,
    pub(super) within: Option<Within>,
}

pub(super) enum Item {
    Piece(Piece),
    End,
    Failed(Error),
}

#[derive(Default)]
pub(super) struct Waiting {
    items: VecDeque<Item>,
    pub(super) is_over: bool,
    pub(super) cancel: Option<CancelToken>,
}

/// What the thread and the reader share.
#[derive(Default)]
pub(super) struct Link {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Link {
    pub(super) fn held(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_over(&self) -> bool {
        self.held().is_over
    }

    /// The reader wants no more; how a query that runs is cancelled.
    pub(super) fn end(&self) -> Option<CancelToken> {
        let mut held = self.held();
        held.is_over = true;
        self.changed.notify_all();
        held.cancel.take()
    }

    /// Waits until there is room; meanwhile calls `idle` now and then. Returns whether the item is wanted.
    pub(super) fn push(&self, item: Item, idle: &mut dyn FnMut() -> Attempt<()>) -> Attempt<bool> {
        loop {
            let held = self.held();
            let is_full = |waiting: &mut Waiting| !waiting.is_over && waiting.items.len() >= PIECES_MAX;
            let (mut held, _) = self.changed.wait_timeout_while(held, POLL, is_full).unwrap_or_else(PoisonError::into_inner);
            if held.is_over {
                return Ok(false);
            }
            if held.items.len() < PIECES_MAX {
                held.items.push_back(item);
                self.changed.notify_all();
                return Ok(true);
            }
            drop(held);
            idle()?;
        }
    }

    /// Waits a little for an item.
    pub(super) fn pop(&self) -> Option<Item> {
        let held = self.held();
        let wait = self.changed.wait_timeout_while(held, ANSWER_WAIT, |waiting| waiting.items.is_empty());
        let item = wait.unwrap_or_else(PoisonError::into_inner).0.items.pop_front();
        self.changed.notify_all();
        item
    }
}
