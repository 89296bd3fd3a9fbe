//! Which windows the records of a batch belong to.

use mill_protocol::{Batch, Error, Result, Watermark};

use crate::windows::Aligned;

/// About how many pairs of a record and a window are taken at a time: a record may be in many windows.
const PAIRS: usize = 32_768;

/// Pairs of a record and a window, in the order of the records.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    /// The record of each; not set if they are all records, each once.
    pub(super) records: Option<Vec<u32>>,
    /// The end of the window of each.
    pub(super) ends: Vec<i64>,
    /// The first record that has not been looked at.
    pub(super) next: usize,
}

/// The windows of the next records of a batch, from this one on. Records that are too late for all of theirs go to `late`.
pub(super) fn assign(windows: &Aligned, batch: &Batch, stream: Watermark, from: usize, late: &mut Vec<u32>) -> Result<Pairs> {
    let times = batch.times().ok_or_else(|| Error::internal("a window needs event time"))?;
    let mut ends = Vec::with_capacity(times.len() - from);
    let mut records: Vec<u32> = Vec::new();
    // Set once records and pairs are not the same.
    let mut is_picked = from > 0 || windows.is_overlapping();
    let mut now = windows.pane(times[from]);
    let mut first = windows.first_open_end(&now, stream);
    let mut record = from;
    while record < times.len() && (ends.len() < PAIRS || !windows.is_overlapping()) {
        let time = times[record];
        if time < now.start || time >= now.end {
            now = windows.pane(time);
            first = windows.first_open_end(&now, stream);
        }
        let behind = batch.behind().map(|behind| behind[record]).filter(|&behind| behind > time);
        let first = match behind {
            Some(behind) => windows.first_open_end(&now, stream.max(Watermark(behind))),
            None => first,
        };
        match first {
            None => {
                if !is_picked {
                    records.extend(0..record as u32);
                    is_picked = true;
                }
                late.push(record as u32);
            }
            Some(mut end) => {
                let last = windows.last_end(now.start);
                while end <= last {
                    ends.push(end);
                    if is_picked {
                        records.push(record as u32);
                    }
                    end = windows.next_end(end);
                }
            }
        }
        record += 1;
    }
    Ok(Pairs { records: is_picked.then_some(records), ends, next: record })
}
