//! How many rows are worked on at once, so that a slow function never works on one piece for long.
//!
//! ```text
//!   rows a piece ──► work ──► (rows, time) ──► cost = fixed + rows × slope ──► rows of the next piece
//! ```
//!
//! What a row costs is not known before the work has been done, and may change while the job runs. So a step that calls a function
//! of the user's begins with few rows, and each piece says how large the next one is: as many rows as take about [`PIECE_US`].
//!
//! A call may have a cost of its own, whatever the number of rows (a request to a server). To make such calls shorter would make
//! them many. Two pieces of different sizes tell both costs apart: where the cost of the call is what takes the time, the rows may
//! take twice as long as it does, so that at least two thirds of the time go to them.
//!
//! A piece that was held up by something else (the processor was busy, the function loaded a model when it was called first)
//! makes the next one too small. It grows again fourfold a piece, so one such piece costs little.

use std::sync::Arc;

use mill_queue::sync::atomic::{AtomicUsize, Ordering};

/// How long a piece of work is to take, in microseconds.
const PIECE_US: f64 = 20_000.0;
/// How much work may wait in front of a task, in microseconds: enough to bridge the time until more comes, and no longer than a
/// barrier should wait.
const WAITING_US: f64 = 50_000.0;
/// How many times as large a piece may be as the one before it.
const GROWTH_MAX: usize = 4;
/// How many times as large one piece must be as another one, for the two to tell what a call costs.
const FAR: f64 = 2.0;
/// Of two pieces the smaller one took so many times as long: something else held it up.
const HELD_UP: f64 = 1.5;
/// What is worked on without a pause for so long is measured as one, in microseconds.
const MEASURED_US_MIN: i64 = 5_000;

/// How many rows are worked on at once.
#[derive(Clone, Debug)]
pub(crate) struct Portion {
    /// The number of rows is a multiple of this.
    unit: usize,
    most: usize,
    rows: usize,
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
    /// So many rows as long as nothing is known, a multiple of `unit`; never more than `most` unless a unit is.
    pub(crate) fn new(first: usize, unit: usize, most: usize) -> Portion {
        assert!(unit > 0 && most > 0, "unit={unit} most={most}");
        let mut portion = Portion { unit, most: most.max(unit), rows: 0, last: None, other: None };
        portion.set(first);
        portion
    }

    /// How many rows to take next.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether the time that rows take is no reason to take fewer of them.
    pub(crate) fn is_most(&self) -> bool {
        self.rows + self.unit > self.most
    }

    /// How many rows may wait.
    pub(crate) fn waiting(&self) -> usize {
        let Some(last) = self.last else { return self.rows.saturating_mul(GROWTH_MAX) };
        let rows = WAITING_US / (last.us / last.rows);
        if rows.is_finite() { (rows as usize).max(self.rows) } else { usize::MAX }
    }

    /// Takes note of a piece of work.
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
        if wanted <= self.rows {
            self.set(wanted);
        } else if rows.saturating_mul(2) >= self.rows {
            self.set(wanted.min(self.rows.saturating_mul(GROWTH_MAX)));
        }
        // Few rows that were fast say nothing of many.
    }

    /// How many rows are worth a piece, as far as the pieces so far tell.
    fn wanted(&self, last: Piece) -> usize {
        let per_row = last.us / last.rows;
        let slope = self.other.map_or(per_row, |other| {
            let (small, large) = if other.rows < last.rows { (other, last) } else { (last, other) };
            if small.us > large.us * HELD_UP {
                return per_row;
            }
            ((large.us - small.us) / (large.rows - small.rows)).clamp(0.0, per_row)
        });
        let fixed = last.us - slope * last.rows;
        let room = (PIECE_US - fixed).max(2.0 * fixed);
        let rows = room / slope;
        if rows < self.most as f64 { rows as usize } else { self.most }
    }

    fn set(&mut self, rows: usize) {
        self.rows = (rows.min(self.most) / self.unit * self.unit).max(self.unit);
    }
}

/// Pieces that are too short to be measured each by itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    pieces: usize,
    rows: usize,
    us: i64,
}

impl Measured {
    /// Adds a piece; returns what the pieces so far have on average, rows and time, once that is worth a note.
    pub(crate) fn add(&mut self, rows: usize, us: i64, full: usize) -> Option<(usize, i64)> {
        self.pieces += 1;
        self.rows += rows;
        self.us += us;
        if self.us < MEASURED_US_MIN && self.rows < full {
            return None;
        }
        let Measured { pieces, rows, us } = std::mem::take(self);
        Some((rows.div_ceil(pieces), us / pieces as i64))
    }
}

/// What a task takes from each of its channels: set by the task, and read by those who send.
#[derive(Debug)]
pub(crate) struct Allowance {
    piece: AtomicUsize,
    waiting: AtomicUsize,
}

impl Allowance {
    /// Of a task that takes what comes.
    pub(crate) fn unlimited() -> Arc<Allowance> {
        Arc::new(Allowance { piece: AtomicUsize::new(usize::MAX), waiting: AtomicUsize::new(usize::MAX) })
    }

    /// Of a task that works on such portions, and has so many channels.
    pub(crate) fn set(&self, portion: &Portion, channels: usize) {
        let (piece, waiting) = if portion.is_most() {
            (usize::MAX, usize::MAX)
        } else {
            // However many channels there are, in each of them half a piece may wait: with less, tasks would wait for each other.
            let waiting = (portion.waiting() / channels.max(1)).max(portion.rows() / 2).max(portion.unit);
            (portion.rows().min(waiting), waiting)
        };
        // Relaxed: each stands for itself, and an old one is as good for a while.
        self.piece.store(piece, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// How many rows an envelope should have at most.
    pub(crate) fn piece(&self) -> usize {
        self.piece.load(Ordering::Relaxed)
    }

    /// How many rows may wait in a channel, unless they are in one envelope.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
