//! When sessions may be complete.
//!
//! ```text
//!   slot of time ─► keys of sessions that ended in it when they were put there
//! ```
//!
//! A record that extends a session leaves it in its slot. When the watermark has passed the slot, the session is asked for its
//! end and put into a later one.

use std::collections::BTreeMap;

use crate::accumulator::{Groups, WrittenKeys};

/// Written keys by the ends of their sessions.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// How many microseconds a slot has.
    width: i64,
    slots: BTreeMap<i64, WrittenKeys>,
    /// The slot that is being read, and how many of its keys have been.
    reading: Option<(WrittenKeys, usize)>,
}

impl Deadlines {
    pub(super) fn new(width: i64) -> Deadlines {
        Deadlines { width: width.max(1), slots: BTreeMap::new(), reading: None }
    }

    /// The start of the slot of this end.
    fn slot(&self, end: i64) -> i64 {
        end.div_euclid(self.width).saturating_mul(self.width)
    }

    /// Adds the session of a record of the frame that these groups have taken up.
    pub(super) fn add_of(&mut self, groups: &Groups, record: u32, end: i64) {
        let slot = self.slot(end);
        self.slots.entry(slot).or_default().push_of(groups, record);
    }

    /// Adds a session.
    pub(super) fn add(&mut self, key: &[u8], end: i64) {
        let slot = self.slot(end);
        self.slots.entry(slot).or_default().push(key);
    }

    /// Adds a session again that ends after `passed`, up to which slots have been read.
    pub(super) fn add_again(&mut self, key: &[u8], end: i64, passed: i64) {
        let slot = self.slot(end);
        // The rest of a slot that has been read is read again at its exact time, and not with each watermark.
        let slot = if slot > passed { slot } else { end };
        self.slots.entry(slot).or_default().push(key);
    }

    /// Takes out sessions that may end by `deadline`, so many at most; none if there are no more.
    pub(super) fn take(&mut self, deadline: i64, sessions_max: usize) -> WrittenKeys {
        let mut taken = WrittenKeys::default();
        loop {
            if let Some((keys, from)) = &mut self.reading {
                let until = keys.len().min(*from + sessions_max - taken.len());
                (*from..until).for_each(|key| taken.push(keys.get(key)));
                *from = until;
                if until < keys.len() {
                    return taken;
                }
                self.reading = None;
            }
            match self.slots.first_entry() {
                Some(first) if *first.key() <= deadline && taken.len() < sessions_max => self.reading = Some((first.remove(), 0)),
                _ => return taken,
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.reading = None;
    }
}
