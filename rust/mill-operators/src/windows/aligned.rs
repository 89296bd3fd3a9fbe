//! Windows whose bounds follow from the time of a record: tumbling, sliding, cumulative.
//!
//! ```text
//!   sliding, size 5, slide 2:           cumulative, size 6, step 2:
//!
//!   ├─────────┤                         ├───┤
//!       ├─────────┤                     ├───────┤
//!           ├─────────┤                 ├───────────┤├───┤ …
//!   panes: │·│··│·│··│·│··              │···│···│···││···│
//! ```
//!
//! A pane is a piece of time between two neighbouring bounds of windows, so a window holds all of a pane or nothing of
//! it. Sliding windows have at most two panes a slide (Krishnamurthy, Wu, Franklin: "On-the-Fly Sharing for Streamed
//! Aggregation", SIGMOD 2006); tumbling windows are one pane each.
//!
//! Panes are known by their start. Windows are known by a number, their id, which grows with their end: the start of
//! windows of one size, the end of cumulative ones, which share their start.

use mill_plan::{Window, WindowSpec};
use mill_protocol::Watermark;

use super::period::Period;

/// Computes panes and windows. Times are microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aligned {
    size: i64,
    /// How far apart the ends of windows are.
    slide: i64,
    period: Period,
    offset: i64,
    /// Where windows end within a slide, if not at its start.
    cut: i64,
    is_cumulative: bool,
    allowed_lateness: i64,
}

/// A pane: from `start` to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pane {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// The end of the earliest window that holds it.
    pub(crate) first_end: i64,
}

/// The greatest `base + n * period` that is not after `time`.
#[inline]
fn floor(time: i64, base: i64, period: i64) -> i64 {
    time.saturating_sub(time.wrapping_sub(base).rem_euclid(period))
}

/// The least `base + n * period` that is not before `time`.
#[inline]
fn ceil(time: i64, base: i64, period: i64) -> i64 {
    let floor = floor(time, base, period);
    if floor == time { time } else { floor.saturating_add(period) }
}

impl Aligned {
    pub(crate) fn of(spec: &WindowSpec) -> Aligned {
        Aligned::new(spec.window, spec.allowed_lateness_us)
    }

    pub(crate) fn new(window: Window, allowed_lateness: i64) -> Aligned {
        let (size, slide, offset, is_cumulative) = match window {
            Window::Tumbling { size_us, offset_us } => (size_us, size_us, offset_us, false),
            Window::Sliding { size_us, slide_us, offset_us } => (size_us, slide_us, offset_us, false),
            Window::Cumulative { step_us, size_us, offset_us } => (size_us, step_us, offset_us, true),
        };
        let cut = if is_cumulative { 0 } else { size % slide };
        Aligned { size, slide, period: Period::new(slide), offset, cut, is_cumulative, allowed_lateness }
    }

    /// Whether windows begin together: one that loses a pane loses all it has.
    pub(crate) fn is_cumulative(&self) -> bool {
        self.is_cumulative
    }

    /// Whether a record may belong to several windows.
    pub(crate) fn is_overlapping(&self) -> bool {
        self.slide < self.size
    }

    /// The pane that holds this time.
    #[inline]
    pub(crate) fn pane(&self, time: i64) -> Pane {
        let first = self.period.floor(time, self.offset);
        let next = first.saturating_add(self.slide);
        if self.cut == 0 {
            return Pane { start: first, end: next, first_end: next };
        }
        let cut = first.saturating_add(self.cut);
        match time < cut {
            true => Pane { start: first, end: cut, first_end: cut },
            false => Pane { start: cut, end: next, first_end: next.saturating_add(self.cut) },
        }
    }

    /// The end of the latest window that holds this pane.
    pub(crate) fn last_end(&self, pane: i64) -> i64 {
        let base = if self.is_cumulative { self.size } else { self.slide };
        floor(pane, self.offset, base).saturating_add(self.size)
    }

    /// The end of the next window.
    pub(crate) fn next_end(&self, end: i64) -> i64 {
        end.saturating_add(self.slide)
    }

    /// The start of the window with this end.
    pub(crate) fn start_of(&self, end: i64) -> i64 {
        if self.is_cumulative { floor(end.saturating_sub(1), self.offset, self.size) } else { end.saturating_sub(self.size) }
    }

    /// The id of the window with this end.
    pub(crate) fn id_of(&self, end: i64) -> i64 {
        if self.is_cumulative { end } else { end.saturating_sub(self.size) }
    }

    /// The end of the window with this id.
    pub(crate) fn end_of(&self, id: i64) -> i64 {
        if self.is_cumulative { id } else { id.saturating_add(self.size) }
    }

    /// The watermark up to and including which the window with this end takes records.
    #[inline]
    pub(crate) fn last_watermark(&self, end: i64) -> i64 {
        end.saturating_sub(1).saturating_add(self.allowed_lateness)
    }

    /// Whether the window with this end takes no more records at this watermark.
    #[inline]
    pub(crate) fn is_complete(&self, end: i64, at: Watermark) -> bool {
        at == Watermark::MAX || at.0 > self.last_watermark(end)
    }

    /// The greatest end of a window that takes no more records at this watermark; `i64::MIN` if there is none.
    pub(crate) fn last_complete(&self, at: Watermark) -> i64 {
        if at == Watermark::MIN || at == Watermark::MAX {
            return at.0;
        }
        // `at > end - 1 + lateness`, that is `end <= at - lateness`.
        floor(at.0.saturating_sub(self.allowed_lateness), self.end_base(), self.slide)
    }

    /// The id of the last window that takes no more records at this watermark; `i64::MIN` if there is none.
    pub(crate) fn last_complete_id(&self, at: Watermark) -> i64 {
        match self.last_complete(at) {
            i64::MIN => i64::MIN,
            i64::MAX => i64::MAX,
            end => self.id_of(end),
        }
    }

    /// How far apart windows are, and their ids.
    pub(crate) fn slide(&self) -> i64 {
        self.slide
    }

    /// One of the times at which windows end.
    fn end_base(&self) -> i64 {
        if self.is_cumulative { self.offset } else { self.offset.wrapping_add(self.size) }
    }

    /// The ids of the windows that hold this pane and take records at this watermark, in order.
    pub(crate) fn open_ids(&self, pane: &Pane, at: Watermark) -> impl Iterator<Item = i64> + use<> {
        let (windows, last) = (*self, self.last_end(pane.start));
        let first = (at != Watermark::MAX).then(|| self.first_open(pane.first_end, at));
        let ends = std::iter::successors(first, move |&end| Some(windows.next_end(end)));
        ends.take_while(move |&end| end <= last).map(move |end| windows.id_of(end))
    }

    /// How far windows reach before and after the records in them at most, with the time for which they wait.
    pub(crate) fn reach(&self) -> i64 {
        self.size.saturating_mul(2).saturating_add(self.allowed_lateness).saturating_add(1)
    }

    /// The first of the ends from `end` on that is not before `from`.
    pub(crate) fn first_end_from(&self, end: i64, from: i64) -> i64 {
        if end >= from { end } else { ceil(from, end, self.slide) }
    }

    /// The end of the earliest window that holds this pane and takes records at this watermark, if there is one.
    pub(crate) fn first_open_end(&self, pane: &Pane, at: Watermark) -> Option<i64> {
        let first = (at != Watermark::MAX).then(|| self.first_open(pane.first_end, at))?;
        (first <= self.last_end(pane.start)).then_some(first)
    }

    /// The end of the earliest of the windows from `end` on that takes records at this watermark.
    fn first_open(&self, end: i64, at: Watermark) -> i64 {
        // `last_watermark(e) >= at`, that is `e > at - lateness`.
        let after = at.0.saturating_sub(self.allowed_lateness).saturating_add(1);
        self.first_end_from(end, after)
    }

    /// The time of the earliest result that a window may still have at this watermark.
    pub(crate) fn earliest_result(&self, at: Watermark) -> Watermark {
        if self.allowed_lateness == 0 || at == Watermark::MIN || at == Watermark::MAX {
            // Without lateness, windows that are not complete end after the watermark.
            return Watermark::MAX;
        }
        let end = ceil(at.0.saturating_sub(self.allowed_lateness).saturating_add(1), self.end_base(), self.slide);
        Watermark(end.saturating_sub(1))
    }
}

#[cfg(test)]
pub(crate) mod tests;
