//! How many rows are worked on at once, so that a slow function never works on one piece for long.
//!
//! ```text
//!   rows a piece ──► work ──► (rows, time) ──► cost ──► rows of the next piece
//!
//!   source ─► … ─► edge ─► queue ─► chain: stage ─► stage that calls user code
//!   └ TaskPortion  └ Allowance      └ TaskPortion   └ Portion
//! ```
//!
//! What a row costs is not known before the work has been done, and may change while the job runs. So a step that calls a
//! function of the user's begins with few rows, and each piece says how large the next one is: as many rows as take about
//! [`PIECE_US`].
//!
//! A [`Portion`] is of one step, whose calls are timed one by one. A [`TaskPortion`] is of a whole task: the time from the
//! entry of records until the chain is empty, waiting for room in the queues after it included. That time comes in lumps
//! (a queue takes three pieces at once, the next has to wait for all of them), so it is spread over some pieces.
//!
//! A call may have a cost of its own, whatever the number of rows (a request to a server). To make such calls shorter would
//! make them many. Two calls of different sizes tell both costs apart: where the cost of the call is what takes the time,
//! the rows may take twice as long as it does, so that at least two thirds of the time go to them. The task then takes at
//! least so many rows at once (its *floor*), and tells those who send to it.
//!
//! A piece that was held up by something else (the processor was busy, the function loaded a model when it was called first)
//! makes the next ones too small. They grow again by a multiple a piece, so one such piece costs little.

use std::sync::Arc;

use mill_queue::sync::atomic::{AtomicUsize, Ordering};

/// How long a piece of work is to take, in microseconds.
const PIECE_US: f64 = 20_000.0;
/// How much work may wait in front of a task, in microseconds: enough to bridge the time until more comes, and no longer
/// than a barrier should wait.
const WAITING_US: f64 = 50_000.0;
/// How many times as large a piece may be as the one before it, of a step.
const GROWTH_MAX: usize = 4;
/// The same of a task.
const TASK_GROWTH_MAX: usize = 2;
/// How much of what a task has measured counts after its next piece.
const REMEMBERED: f64 = 0.75;
/// How many times as large one piece must be as another one, for the two to tell what a call costs.
const FAR: f64 = 2.0;
/// How many rows a step takes at once at most, and how many may wait if that is limited; so many are never in a frame.
const ROWS_MAX: usize = 1 << 20;
/// Of two pieces the smaller one took so many times as long: something else held it up.
const HELD_UP: f64 = 1.5;

/// How many rows a step takes at once.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    rows: usize,
    /// Whether the calls take long whatever the number of rows.
    is_fixed: bool,
    last: Option<Piece>,
    /// The last piece before that one that was much larger or smaller.
    other: Option<Piece>,
}

/// How many rows a piece had, and how long it took.
#[derive(Clone, Copy, Debug)]
struct Piece {
    rows: f64,
    us: f64,
}

impl Piece {
    fn is_far_from(self, other: Piece) -> bool {
        self.rows >= other.rows * FAR || other.rows >= self.rows * FAR
    }
}

impl Portion {
    /// So many rows as long as nothing is known.
    pub(crate) fn new(first: usize) -> Portion {
        Portion { rows: first.clamp(1, ROWS_MAX), is_fixed: false, last: None, other: None }
    }

    /// How many rows to take next.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// How many rows a call has to have, if it takes long whatever their number.
    pub(crate) fn floor(&self) -> usize {
        if self.is_fixed { self.rows } else { 1 }
    }

    /// Takes note of a call.
    pub(crate) fn note(&mut self, rows: usize, us: i64) {
        if rows == 0 {
            return;
        }
        let mut piece = Piece { rows: rows as f64, us: us.max(0) as f64 };
        match self.last {
            Some(last) if piece.is_far_from(last) => self.other = Some(last),
            Some(last) => piece.us = (piece.us + last.us * piece.rows / last.rows) / 2.0,
            None => {}
        }
        self.last = Some(piece);
        let wanted = self.wanted(piece);
        // Few rows that were fast say nothing of many.
        if wanted <= self.rows || rows.saturating_mul(2) >= self.rows {
            self.rows = wanted.min(self.rows.saturating_mul(GROWTH_MAX)).clamp(1, ROWS_MAX);
        }
    }

    /// How many rows are worth a piece, as far as the pieces so far tell.
    fn wanted(&mut self, last: Piece) -> usize {
        let per_row = last.us / last.rows;
        let slope = self.other.map_or(per_row, |other| {
            let (small, large) = if other.rows < last.rows { (other, last) } else { (last, other) };
            if small.us > large.us * HELD_UP {
                return per_row;
            }
            ((large.us - small.us) / (large.rows - small.rows)).clamp(0.0, per_row)
        });
        let fixed = last.us - slope * last.rows;
        self.is_fixed = 2.0 * fixed > PIECE_US - fixed;
        let room = (PIECE_US - fixed).max(2.0 * fixed);
        capped(room / slope, ROWS_MAX)
    }
}

/// How many rows a task takes at once.
#[derive(Clone, Debug)]
pub(crate) struct TaskPortion {
    /// The number of rows is a multiple of this.
    unit: usize,
    most: usize,
    /// As many as are done with in the time of a piece.
    timed: usize,
    /// At least so many, whatever time they take.
    floor: usize,
    /// What the last pieces had and took; older ones count less.
    measured: Piece,
}

impl TaskPortion {
    /// So many rows as long as nothing is known, a multiple of `unit`, and never more than `most`.
    pub(crate) fn new(first: usize, unit: usize, most: usize) -> TaskPortion {
        assert!(first > 0 && (1..=most).contains(&unit), "first={first} unit={unit} most={most}");
        TaskPortion { unit, most, timed: first.min(most), floor: 1, measured: Piece { rows: 0.0, us: 0.0 } }
    }

    /// How many rows to take next.
    pub(crate) fn rows(&self) -> usize {
        (self.timed.max(self.floor).min(self.most) / self.unit * self.unit).max(self.unit)
    }

    /// Whether the time that rows take is no reason to take fewer of them.
    fn is_most(&self) -> bool {
        self.rows() + self.unit > self.most
    }

    /// How many rows may wait.
    fn waiting(&self) -> usize {
        if self.measured.rows == 0.0 {
            return self.rows().saturating_mul(GROWTH_MAX);
        }
        capped(WAITING_US / (self.measured.us / self.measured.rows), ROWS_MAX).max(self.rows())
    }

    /// Takes note of a piece, and of how many rows the calls in it have to have.
    pub(crate) fn note(&mut self, rows: usize, us: i64, floor: usize) {
        self.floor = floor;
        self.measured.rows = self.measured.rows * REMEMBERED + rows as f64;
        self.measured.us = self.measured.us * REMEMBERED + us.max(0) as f64;
        let wanted = capped(PIECE_US / (self.measured.us / self.measured.rows), self.most);
        // Few rows that were fast say nothing of many.
        if wanted <= self.timed || rows.saturating_mul(2) >= self.rows() {
            self.timed = wanted.min(self.timed.saturating_mul(TASK_GROWTH_MAX)).max(1);
        }
    }
}

/// A number of rows that may be infinite, or nothing through nothing.
fn capped(rows: f64, most: usize) -> usize {
    if rows < most as f64 { rows as usize } else { most }
}

/// What a task takes from each of its channels: set by the task, and read by those who send.
#[derive(Debug)]
pub(crate) struct Allowance {
    piece: AtomicUsize,
    waiting: AtomicUsize,
    floor: AtomicUsize,
}

impl Allowance {
    /// Of a task that takes what comes.
    pub(crate) fn unlimited() -> Arc<Allowance> {
        let [piece, waiting, floor] = [usize::MAX, usize::MAX, 1].map(AtomicUsize::new);
        Arc::new(Allowance { piece, waiting, floor })
    }

    /// Of a task that works on such portions, and has so many channels.
    pub(crate) fn set(&self, portion: &TaskPortion, channels: usize) {
        let (piece, waiting) = if portion.is_most() {
            (usize::MAX, usize::MAX)
        } else {
            // However many channels there are, in each of them half a piece may wait: with less, tasks would wait for each
            // other.
            let least = portion.floor.min(portion.most).max(portion.unit);
            let waiting = (portion.waiting() / channels.max(1)).max(portion.rows() / 2).max(least);
            (portion.rows().min(waiting), waiting)
        };
        self.floor.store(portion.floor, Ordering::Relaxed);
        // Relaxed: each stands for itself, and an old one is as good for a while.
        self.piece.store(piece, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// How many rows an envelope should have at most.
    pub(crate) fn piece(&self) -> usize {
        self.piece.load(Ordering::Relaxed)
    }

    /// How many rows a sender should have at least before it sends them.
    pub(crate) fn floor(&self) -> usize {
        self.floor.load(Ordering::Relaxed)
    }

    /// How many rows may wait in a channel, unless they are in one envelope.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
