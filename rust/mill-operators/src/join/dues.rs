//! Which rows are to be dropped, by time: a few sorted runs, merged as they grow.
//!
//! A batch adds one run. A run is merged with the one before it unless that one is more than twice as long, so there are at
//! most as many runs as the number of rows has bits, and a row is merged about as often.

use super::index::Entry;

/// Rows by the time when they are dropped.
#[derive(Default)]
pub(crate) struct Dues {
    runs: Vec<Run>,
}

struct Run {
    rows: Vec<Entry>,
    next: usize,
}

impl Run {
    fn left(&self) -> &[Entry] {
        &self.rows[self.next..]
    }
}

impl Dues {
    /// Adds rows.
    pub(crate) fn add(&mut self, mut rows: Vec<Entry>) {
        if !rows.is_sorted() {
            rows.sort_unstable();
        }
        // Rows mostly come in order; then there is one run.
        if let Some(last) = self.runs.last_mut()
            && last.rows.last() <= rows.first()
        {
            last.rows.extend_from_slice(&rows);
            return;
        }
        while let Some(last) = self.runs.last()
            && last.left().len() <= 2 * rows.len()
        {
            rows = merged(last.left(), &rows);
            self.runs.pop();
        }
        self.runs.push(Run { rows, next: 0 });
    }

    /// Takes out rows that are dropped before this time, `rows_max` of them at most, in no order; whether there are more.
    pub(crate) fn take(&mut self, before: i64, rows_max: usize, out: &mut Vec<u64>) -> bool {
        let mut has_more = false;
        for run in &mut self.runs {
            let due = run.left().partition_point(|&(due, _)| due < before);
            let taken = due.min(rows_max - out.len());
            out.extend(run.left()[..taken].iter().map(|&(_, row)| row));
            run.next += taken;
            has_more |= taken < due;
            if run.next > run.rows.len() / 2 {
                run.rows.drain(..run.next);
                run.next = 0;
            }
        }
        self.runs.retain(|run| !run.left().is_empty());
        has_more
    }

    /// The time at which the first row is dropped.
    pub(crate) fn first(&self) -> Option<i64> {
        self.runs.iter().filter_map(|run| run.left().first()).map(|&(due, _)| due).min()
    }

    /// Gives every row another number; the order of numbers must stay.
    pub(crate) fn renumber(&mut self, number: impl Fn(u64) -> u64) {
        for run in &mut self.runs {
            run.rows.drain(..run.next);
            run.next = 0;
            run.rows.iter_mut().for_each(|(_, row)| *row = number(*row));
        }
    }
}

fn merged(a: &[Entry], b: &[Entry]) -> Vec<Entry> {
    let mut rows = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a, b);
    while let (Some(x), Some(y)) = (a.first(), b.first()) {
        if x <= y {
            rows.push(*x);
            a = &a[1..];
        } else {
            rows.push(*y);
            b = &b[1..];
        }
    }
    rows.extend_from_slice(a);
    rows.extend_from_slice(b);
    rows
}
