//! Which panes and windows the records of a batch belong to, and which records are too late.
//!
//! A record is late for a window if, when it was read, the watermark of its own split had passed the window's end and
//! the allowed lateness. That depends on the order of the split alone. The stream's watermark is asked too, for records
//! of a split that had been idle or was found when time had gone on. For all others it changes nothing: the stream's
//! watermark is never greater than that of a split that counts.
//!
//! A record that is late for some of its windows only must not enter the pane that all of them share. It goes to each of
//! the others by itself; there are few such records. Where panes cannot be combined, all records go to windows.

use std::collections::HashMap;

use mill_protocol::{Batch, Error, Outbox, Result, Watermark};

use super::aligned::{Aligned, Pane};
use super::sparse::is_scattered;

/// A table that records go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// That of the pane with this start.
    Pane(i64),
    /// That of the window with this id alone.
    Window(i64),
}

/// The records of a batch by pane or window.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    /// Set if all records belong to one table and none is late; the rest is empty then.
    pub(crate) whole: Option<Part>,
    /// The records of each table, in order.
    pub(crate) parts: Vec<(Part, Vec<u32>)>,
    /// Records that are too late for all of their windows.
    pub(crate) late: Vec<u32>,
}

/// Assigns records.
#[derive(Clone, Copy)]
pub(crate) struct Assigner {
    pub(crate) windows: Aligned,
    /// Whether the windows that share a pane share its rows; if not, each has a table of its own.
    pub(crate) shares_panes: bool,
}

impl Assigner {
    /// Assigns the records of a batch.
    pub(crate) fn assign(&self, batch: &Batch, stream: Watermark) -> Result<Assigned> {
        let times = batch.times().ok_or_else(|| Error::internal("a window needs event time"))?;
        let Some(&first) = times.first() else { return Ok(Assigned::default()) };
        let windows = &self.windows;
        // The pane of the record before, and where its records go: times mostly go on in the same pane.
        let mut now = windows.pane(first);
        let one = self.one(&now, stream);
        if let Some(part) = one
            && batch.behind().is_none()
            && times.iter().all(|&time| now.start <= time && time < now.end)
        {
            return Ok(Assigned { whole: Some(part), ..Assigned::default() });
        }
        let mut parts = Parts::default();
        let mut late = Vec::new();
        let mut place = one.map(|part| parts.place(part));
        for (record, &time) in times.iter().enumerate() {
            if time < now.start || time >= now.end {
                now = windows.pane(time);
                place = self.one(&now, stream).map(|part| parts.place(part));
            }
            let behind = batch.behind().map(|behind| behind[record]).filter(|&behind| behind > time);
            let is_behind = behind.is_some_and(|behind| behind > windows.last_watermark(now.first_end));
            match place {
                Some(place) if !is_behind => parts.all[place].1.push(record as u32),
                _ => {
                    let at = behind.map_or(stream, |behind| stream.max(Watermark(behind)));
                    if !parts.each_window(windows, &now, at, record as u32) {
                        late.push(record as u32);
                    }
                }
            }
        }
        let mut all = parts.all;
        all.retain(|(_, records)| !records.is_empty());
        Ok(Assigned { whole: None, parts: all, late })
    }

    /// The windows of the records of a batch, if each belongs to one and they are scattered over many, or over some `small` ones;
    /// and the records that are too late for theirs.
    pub(crate) fn scattered(&self, batch: &Batch, stream: Watermark, small: bool) -> Option<(Vec<i64>, Vec<u32>)> {
        let times = batch.times()?;
        let windows = &self.windows;
        if windows.is_overlapping() || !is_scattered(times.len(), small, |record| windows.pane(times[record]).start) {
            return None;
        }
        self.each_in_one(batch, stream)
    }

    /// The windows of the records of a batch, if each belongs to one; and the records that are too late for theirs.
    pub(crate) fn each_in_one(&self, batch: &Batch, stream: Watermark) -> Option<(Vec<i64>, Vec<u32>)> {
        let times = batch.times()?;
        let windows = &self.windows;
        let first = times.first()?;
        if windows.is_overlapping() {
            return None;
        }
        let mut now = windows.pane(*first);
        let ids: Vec<i64> = times
            .iter()
            .map(|&time| {
                if time < now.start || time >= now.end {
                    now = windows.pane(time);
                }
                windows.id_of(now.first_end)
            })
            .collect();
        let is_complete = |id: i64, at: Watermark| windows.is_complete(windows.end_of(id), at);
        let late = match batch.behind() {
            None => (0..).zip(&ids).filter(|&(_, &id)| is_complete(id, stream)).map(|(record, _)| record).collect(),
            Some(behind) => {
                let at = |behind: i64, time: i64| if behind > time { stream.max(Watermark(behind)) } else { stream };
                let late = (0..).zip(&ids).zip(times.iter().zip(behind.iter()));
                let late = late.filter(|&((_, &id), (&time, &behind))| is_complete(id, at(behind, time)));
                late.map(|((record, _), _)| record).collect()
            }
        };
        Some((ids, late))
    }

    /// The one table that records of this pane go to; `None` if they go to several windows each, or to none.
    fn one(&self, pane: &Pane, stream: Watermark) -> Option<Part> {
        let windows = &self.windows;
        if windows.is_complete(pane.first_end, stream) {
            return None;
        }
        if !windows.is_overlapping() {
            return Some(Part::Window(windows.id_of(pane.first_end)));
        }
        self.shares_panes.then_some(Part::Pane(pane.start))
    }

    /// The tables for rows of a pane that somebody else has assigned: none if it is too late for all windows.
    pub(crate) fn parts_of_pane(&self, start: i64, stream: Watermark, parts: &mut Vec<Part>) {
        let pane = self.windows.pane(start);
        match self.one(&pane, stream) {
            Some(part) => parts.push(part),
            None => parts.extend(self.windows.open_ids(&pane, stream).map(Part::Window)),
        }
    }
}

/// The parts of a batch as they are found.
#[derive(Default)]
struct Parts {
    all: Vec<(Part, Vec<u32>)>,
    places: HashMap<Part, usize>,
}

impl Parts {
    fn place(&mut self, part: Part) -> usize {
        *self.places.entry(part).or_insert_with(|| {
            self.all.push((part, Vec::new()));
            self.all.len() - 1
        })
    }

    /// Puts a record into each of its windows that takes it at this watermark; whether there was one.
    fn each_window(&mut self, windows: &Aligned, pane: &Pane, at: Watermark, record: u32) -> bool {
        let mut is_taken = false;
        for id in windows.open_ids(pane, at) {
            let place = self.place(Part::Window(id));
            self.all[place].1.push(record);
            is_taken = true;
        }
        is_taken
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
