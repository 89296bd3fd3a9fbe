//! Which window each record of a batch belongs to, and which records are too late.
//!
//! A record is late for its window if, when it was read, the watermark of its own split had passed the window's end and
//! the allowed lateness. That depends on the order of the split alone. The stream's watermark is asked too, for records
//! of a split that had been idle or was found when time had gone on. For all others it changes nothing: the stream's
//! watermark is never greater than that of a split that counts.

use std::collections::HashMap;

use mill_plan::Window;
use mill_protocol::{Batch, Error, Outbox, Result, Watermark};

/// The records of a batch by window.
#[derive(Default)]
pub(crate) struct Slices {
    /// Set if all records belong to one window and none is late; the rest is empty then.
    pub(crate) whole: Option<i64>,
    /// The records of each window, in order, by the window's start.
    pub(crate) windows: Vec<(i64, Vec<u32>)>,
    /// Records that are too late.
    pub(crate) late: Vec<u32>,
}

/// Tells windows and lateness.
#[derive(Clone, Copy)]
pub(crate) struct Slicer {
    pub(crate) window: Window,
    pub(crate) allowed_lateness_us: i64,
}

impl Slicer {
    /// The watermark up to and including which records of this window are taken.
    pub(crate) fn last_watermark(&self, start: i64) -> i64 {
        self.window.end_of(start).saturating_sub(1).saturating_add(self.allowed_lateness_us)
    }

    /// Whether the window is complete at this watermark.
    pub(crate) fn is_complete(&self, start: i64, at: Watermark) -> bool {
        at == Watermark::MAX || at.0 > self.last_watermark(start)
    }

    /// The time of the earliest result that a window may still have at this watermark: windows that are not complete take
    /// records, and the first of them is the one that holds the watermark less the allowed lateness.
    pub(crate) fn earliest_result(&self, at: Watermark) -> Watermark {
        if self.allowed_lateness_us == 0 || at == Watermark::MIN || at == Watermark::MAX {
            // Without lateness, windows that are not complete end after the watermark.
            return Watermark::MAX;
        }
        let first = self.window.start_of(at.0.saturating_sub(self.allowed_lateness_us));
        Watermark(self.window.end_of(first).saturating_sub(1))
    }

    /// Sorts the records of a batch into windows.
    pub(crate) fn slice(&self, batch: &Batch, stream: Watermark) -> Result<Slices> {
        let times = batch.times().ok_or_else(|| Error::internal("a window needs event time"))?;
        let Some(&first) = times.first() else { return Ok(Slices::default()) };
        let start = self.window.start_of(first);
        let end = self.window.end_of(start);
        let is_taken = stream == Watermark::MIN || !self.is_complete(start, stream);
        if batch.behind().is_none() && is_taken && times.iter().all(|&time| start <= time && time < end) {
            return Ok(Slices { whole: Some(start), ..Slices::default() });
        }
        let mut slices = Slices::default();
        let mut places: HashMap<i64, usize> = HashMap::new();
        // The window of the record before, and its place if it takes records: times mostly go on in the same window.
        let mut now = (start, end);
        let mut place = None;
        for (record, &time) in times.iter().enumerate() {
            if record == 0 || time < now.0 || time >= now.1 {
                let start = self.window.start_of(time);
                now = (start, self.window.end_of(start));
                place = (stream == Watermark::MIN || !self.is_complete(start, stream)).then(|| {
                    *places.entry(start).or_insert_with(|| {
                        slices.windows.push((start, Vec::new()));
                        slices.windows.len() - 1
                    })
                });
            }
            let is_late = batch.behind().is_some_and(|behind| {
                let behind = behind[record];
                behind > time && behind > self.last_watermark(now.0)
            });
            match place {
                Some(place) if !is_late => slices.windows[place].1.push(record as u32),
                _ => slices.late.push(record as u32),
            }
        }
        slices.windows.retain(|(_, records)| !records.is_empty());
        Ok(slices)
    }
}

/// Hands late records on as they came, on port 1, and counts them.
pub(crate) fn push_late(batch: &Batch, late: Vec<u32>, out: &mut Outbox) -> Result<()> {
    if late.is_empty() {
        return Ok(());
    }
    out.count_late(late.len() as u64);
    let late = batch.take(&late.into()).map_err(|error| Error::internal(error.to_string()))?;
    out.push_to(1, late);
    Ok(())
}
