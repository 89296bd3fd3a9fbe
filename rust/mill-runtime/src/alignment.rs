//! Alignment of splits: a split that is too far ahead pauses until the slowest has come closer.
//!
//! Each task with a step that aligns its splits has an entry on the board of its group. It notes how far its slowest split
//! has come, and asks how far any split may be:
//!
//! ```text
//!   task 0   slowest: a at 10 ─┐ board: slowest of all is a at 10
//!   task 1   slowest: c at 30 ─┘ limit of each task: 10 + its own drift, say 15
//!            c at 30 pauses ───── waits for a limit of 30 …  woken when a has come to 15
//! ```
//!
//! A split that has had no watermark yet is slower than all others. Splits that are idle, that have ended, and tasks without
//! splits do not count; if nobody counts, nobody pauses.
//!
//! Nobody waits forever: the slowest split of a group is never ahead of the limit, so it is read, unless it waits for
//! something outside; and each change of the slowest wakes the tasks for which the limit has come far enough. Both are done
//! under one lock, and a task asks once more under it before it sleeps, so that no change is missed. A source takes part in
//! one group only: two groups could wait for each other.
//!
//! Frames are read whole, so a split can be ahead by the drift plus the span of its last frame.

use std::sync::Arc;

use mill_protocol::{SplitId, Watermark};
use mill_queue::Unparker;
use parking_lot::Mutex;

/// A split that pauses, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paused {
    /// How many splits of the step pause.
    pub splits: usize,
    /// One of them: the one that will be read first again.
    pub split: String,
    /// How far that one has come.
    pub watermark: Watermark,
    /// The slowest split of the group, which it waits for.
    pub slowest: String,
    /// How far that one has come; `None` if it has had no watermark yet.
    pub slowest_watermark: Option<Watermark>,
}

/// The tasks of one group.
#[derive(Debug, Default)]
pub(crate) struct AlignmentBoard(Mutex<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    drift_us_max: i64,
    /// The slowest split of the task and its name; `None` if none counts.
    slowest: Option<(Watermark, Arc<str>)>,
    paused: Option<PausedNote>,
    unparker: Unparker,
}

/// What a task has noted of its splits that pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PausedNote {
    pub(crate) splits: usize,
    /// The one that is the least ahead.
    pub(crate) name: Arc<str>,
    pub(crate) at: Watermark,
}

/// One task's entry.
#[derive(Debug)]
pub(crate) struct AlignmentSlot {
    board: Arc<AlignmentBoard>,
    entry: usize,
    /// What was noted last; compared first, so that the lock is taken for news only.
    slowest: Option<(SplitId, Watermark)>,
    is_reported: bool,
    paused: Option<(usize, SplitId)>,
}

impl AlignmentBoard {
    /// An entry for a task of this step. Until it says otherwise it counts as one that has read nothing.
    pub(crate) fn add(self: &Arc<AlignmentBoard>, step: &str, drift_us_max: i64, unparker: Unparker) -> AlignmentSlot {
        let mut entries = self.0.lock();
        let slowest = Some((Watermark::MIN, step.into()));
        entries.push(Entry { drift_us_max, slowest, paused: None, unparker });
        AlignmentSlot {
            board: Arc::clone(self),
            entry: entries.len() - 1,
            slowest: None,
            is_reported: false,
            paused: None,
        }
    }

    /// The splits of these entries that pause.
    pub(crate) fn paused(&self, of: &[usize]) -> Option<Paused> {
        let entries = self.0.lock();
        let notes = || of.iter().filter_map(|&entry| entries[entry].paused.as_ref());
        let first = notes().min_by_key(|note| note.at)?;
        let (slowest_at, slowest) = slowest(&entries)?.clone();
        Some(Paused {
            splits: notes().map(|note| note.splits).sum(),
            split: first.name.to_string(),
            watermark: first.at,
            slowest: slowest.to_string(),
            slowest_watermark: Some(slowest_at).filter(|at| *at > Watermark::MIN),
        })
    }
}

impl AlignmentSlot {
    /// Its place on the board.
    pub(crate) fn entry(&self) -> usize {
        self.entry
    }

    /// The board it is on.
    pub(crate) fn board(&self) -> &Arc<AlignmentBoard> {
        &self.board
    }

    /// Notes the slowest split of the task, and wakes those who may continue by that.
    pub(crate) fn report<'a>(
        &mut self,
        slowest: Option<(SplitId, Watermark)>,
        name: impl FnOnce(SplitId) -> Option<&'a str>,
    ) {
        if self.is_reported && slowest == self.slowest {
            return;
        }
        self.is_reported = true;
        self.slowest = slowest;
        let mut entries = self.board.0.lock();
        let before = limit(&entries, 0);
        let own = &mut entries[self.entry].slowest;
        *own = slowest.map(|(split, at)| {
            let name = name(split).unwrap_or("a split");
            let known = own.take().map(|(_, known)| known).filter(|known| **known == *name);
            (at, known.unwrap_or_else(|| name.into()))
        });
        if limit(&entries, 0) == before {
            return;
        }
        for entry in entries.iter() {
            let Some(paused) = &entry.paused else { continue };
            if limit(&entries, entry.drift_us_max).is_none_or(|limit| paused.at <= limit) {
                entry.unparker.unpark();
            }
        }
    }

    /// How far a split may have come that is read; `None`: any is.
    pub(crate) fn limit(&self) -> Option<Watermark> {
        let entries = self.board.0.lock();
        limit(&entries, entries[self.entry].drift_us_max)
    }

    /// Notes which splits pause: how many, and the one that is the least ahead. Returns whether that one may continue after all.
    pub(crate) fn pause(&mut self, paused: Option<(usize, SplitId, Watermark)>, name: impl FnOnce(SplitId) -> Arc<str>) -> bool {
        let noted = paused.map(|(splits, split, _)| (splits, split));
        if noted.is_none() && self.paused.is_none() {
            return false;
        }
        let mut entries = self.board.0.lock();
        if noted != self.paused {
            self.paused = noted;
            entries[self.entry].paused = paused.map(|(splits, split, at)| PausedNote { splits, name: name(split), at });
        }
        let limit = limit(&entries, entries[self.entry].drift_us_max);
        paused.is_some_and(|(_, _, at)| limit.is_none_or(|limit| at <= limit))
    }
}

fn slowest(entries: &[Entry]) -> Option<&(Watermark, Arc<str>)> {
    entries.iter().filter_map(|entry| entry.slowest.as_ref()).min_by_key(|(at, _)| *at)
}

fn limit(entries: &[Entry], drift_us_max: i64) -> Option<Watermark> {
    slowest(entries).map(|(at, _)| Watermark(at.0.saturating_add(drift_us_max)))
}

#[cfg(test)]
mod tests;
