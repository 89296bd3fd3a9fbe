//! The rows of open windows, and which of them have something to come.
//!
//! ```text
//!   end of a window ──► keys of its rows      all, until the window takes no more records
//!                          └─ how many have been asked for the result of the end; the others are asked with the next watermark
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::accumulator::{Groups, WrittenKeys};

/// Written keys of rows, each with the end of its window.
#[derive(Debug, Default)]
pub(super) struct Listed {
    pub(super) keys: WrittenKeys,
    pub(super) ends: Vec<i64>,
}

impl Listed {
    pub(super) fn push(&mut self, key: &[u8], end: i64) {
        self.keys.push(key);
        self.ends.push(end);
    }

    /// Adds the key of a record of the frame that these groups have taken up.
    pub(super) fn push_of(&mut self, groups: &Groups, record: u32, end: i64) {
        self.keys.push_of(groups, record);
        self.ends.push(end);
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

#[derive(Debug, Default)]
struct Open {
    keys: WrittenKeys,
    /// How many of the keys have been asked for the result of the end.
    asked: usize,
}

/// The rows of windows that take records.
#[derive(Debug, Default)]
pub(super) struct OpenWindows {
    windows: BTreeMap<i64, Open>,
    /// The windows with keys that have not been asked.
    unasked: BTreeSet<i64>,
    /// The keys of a complete window that is being taken out, and how many of them have been.
    taking: Option<(WrittenKeys, usize)>,
}

impl OpenWindows {
    fn window(&mut self, end: i64) -> &mut Open {
        self.windows.entry(end).or_insert_with(|| {
            self.unasked.insert(end);
            Open::default()
        })
    }

    /// Adds rows, each with the end of its window, of records of the frame that these groups have taken up.
    pub(super) fn add_of(&mut self, groups: &Groups, mut records: Vec<u32>, ends: &[i64]) {
        // By window, so that each is looked for once.
        records.sort_unstable_by_key(|&record| ends[record as usize]);
        for of_window in records.chunk_by(|&a, &b| ends[a as usize] == ends[b as usize]) {
            let end = ends[of_window[0] as usize];
            let window = self.window(end);
            let is_asked = window.asked == window.keys.len();
            of_window.iter().for_each(|&record| window.keys.push_of(groups, record));
            if is_asked {
                self.unasked.insert(end);
            }
        }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, key: &[u8], end: i64) {
        self.window(end).keys.push(key);
    }

    /// Takes out rows of the earliest windows for which this holds, so many at most; none if there are no more.
    pub(super) fn take(&mut self, is_complete: impl Fn(i64) -> bool, rows_max: usize) -> WrittenKeys {
        let mut taken = WrittenKeys::default();
        while taken.len() < rows_max {
            let Some((keys, from)) = &mut self.taking else {
                match self.windows.first_entry() {
                    Some(first) if is_complete(*first.key()) => {
                        self.unasked.remove(first.key());
                        self.taking = Some((first.remove().keys, 0));
                    }
                    _ => return taken,
                }
                continue;
            };
            let until = keys.len().min(*from + rows_max - taken.len());
            (*from..until).for_each(|key| taken.push(keys.get(key)));
            *from = until;
            if until == keys.len() {
                self.taking = None;
            }
        }
        taken
    }

    /// The rows of windows that end by `watermark` and have not been asked for the result of that, so many at most.
    pub(super) fn ask(&mut self, watermark: i64, rows_max: usize) -> WrittenKeys {
        let mut asked = WrittenKeys::default();
        while asked.len() < rows_max
            && let Some(&end) = self.unasked.first()
            && end <= watermark
        {
            let Some(window) = self.windows.get_mut(&end) else { break };
            let until = window.keys.len().min(window.asked + rows_max - asked.len());
            (window.asked..until).for_each(|key| asked.push(window.keys.get(key)));
            window.asked = until;
            if until == window.keys.len() {
                self.unasked.remove(&end);
            }
        }
        asked
    }

    pub(super) fn clear(&mut self) {
        *self = OpenWindows::default();
    }
}
