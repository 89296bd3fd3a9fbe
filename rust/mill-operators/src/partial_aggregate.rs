//! Aggregation before the exchange: partial results travel instead of records.
//!
//! ```text
//!   combining     records ──► table ──flush──► partial results, one a key (and window)
//!       │  ▲        flush: at a barrier, at the end, when the table is large, when a window is complete,
//!       │  │               and without windows when the results have waited long enough
//!       ▼  │
//!   passing on    records ──► partial results, one a record
//! ```
//!
//! When flushing a full table shows that it has hardly made fewer of them, combining is a waste: records pass on one by
//! one for a while, then it tries again. It holds no state across a barrier, so none is checkpointed. With windows it also
//! decides about lateness, since only it sees the records: late ones go to port 1 as they came.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use mill_plan::{AggregateSpec, Stage, WindowSpec};
use mill_protocol::{Batch, Epoch, Error, Operator, Outbox, Progress, Result, Watermark};
use mill_frame::hash::KEY_GROUPS;
use mill_state::{Cursor, Span, TableOptions};

use crate::accumulator::{GroupOptions, Groups, records};
use crate::aggregate::EMIT_ROWS;
use crate::windows::{Aligned, Assigned, Assigner, Part, push_late, shares_panes, within_reach};

/// How many rows are held back at most in hash tables: as many as the second-level cache holds with ease. Rows of keys that
/// are near each other as numbers are in arrays instead, which bound themselves; a key may have one here and one there.
const HELD_ROWS_MAX: usize = 32 << 10;
/// Combining pays if it makes at least this many times fewer of them.
const REDUCTION_MIN: usize = 2;
/// How many records pass on one by one before combining is tried again; doubles each time it still does not pay.
const PASSING_RECORDS: usize = 1 << 20;
const PASSING_RECORDS_MAX: usize = 1 << 25;
/// After how many records of windows it is asked whether combining pays: windows that are complete leave before there is too much.
const JUDGED_RECORDS: usize = 32 << 10;
/// How long results wait without windows.
const WAIT_US: i64 = 50_000;

/// What is going out.
struct Flush {
    cursor: Cursor,
    pane: i64,
    what: Going,
}

/// Which rows go out.
#[derive(Clone, Copy)]
enum Going {
    /// Those of windows that are complete at this watermark, for good.
    Windows(Watermark),
    /// All there are, for now.
    All,
    /// Those that are hashed, for now.
    Hashed,
}

/// Combines records of one key before they travel.
pub(crate) struct PartialAggregate {
    groups: Groups,
    /// Rebuilds them.
    make: Box<dyn Fn() -> Result<Groups> + Send>,
    schema: SchemaRef,
    keys: Vec<usize>,
    assigner: Option<Assigner>,
    /// The type that the bounds of windows have in results.
    bound_type: Option<DataType>,
    watermark: Watermark,
    flush: Option<Flush>,
    /// Records hashed since the table was last empty.
    taken: usize,
    /// Records still to be passed on one by one; 0 when combining.
    passing: usize,
    passing_next: usize,
    /// Records of windows combined since this was last judged, and rows that have gone out since.
    combined: usize,
    given: usize,
    /// When the results are to go out; `i64::MIN` while it is not known what time it is.
    deadline: Option<i64>,
}

impl PartialAggregate {
    pub(crate) fn new(
        stage: &Stage,
        keys: &[usize],
        aggregates: &[AggregateSpec],
        window: Option<(&WindowSpec, DataType)>,
    ) -> Result<PartialAggregate> {
        let (window, bound_type) = window.unzip();
        let assigner = window.map(|spec| {
            let windows = Aligned::of(spec);
            Assigner { windows, shares_panes: shares_panes(&windows, aggregates) }
        });
        let first = assigner.map_or(0, |assigner| if assigner.shares_panes { 2 } else { 1 });
        let fields = &stage.schema.fields()[first..first + keys.len()];
        let key_types: Vec<_> = fields.iter().map(|field| field.data_type().clone()).collect();
        let (of_keys, aggregates) = (keys.to_vec(), aggregates.to_vec());
        let make = move || {
            // Its keys are not yet where they belong, so it holds all key groups.
            let table = TableOptions::new(0..KEY_GROUPS);
            let options = GroupOptions {
                table,
                is_partial: false,
                keeps_pending: false,
                is_ahead: true,
                is_timed: false,
                owner_columns: None,
                has_tally: false,
                carries_at: None,
            };
            Groups::new(&of_keys, &key_types, &aggregates, &options)
        };
        Ok(PartialAggregate {
            groups: make()?,
            make: Box::new(make),
            schema: stage.schema.clone(),
            keys: keys.to_vec(),
            assigner,
            bound_type,
            watermark: Watermark::MIN,
            flush: None,
            taken: 0,
            passing: 0,
            passing_next: PASSING_RECORDS,
            combined: 0,
            given: 0,
            deadline: None,
        })
    }

    /// What is before the keys: the start of the pane or window of each row, and which of the two it is if windows share
    /// panes.
    fn placed(&self, starts: Int64Array, is_window: bool) -> Vec<ArrayRef> {
        let Some(assigner) = self.assigner else { return Vec::new() };
        let rows = starts.len();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(starts)];
        if assigner.shares_panes {
            columns.push(Arc::new(BooleanArray::from(vec![is_window; rows])));
        }
        columns
    }

    /// Emits partial results of single records.
    fn pass_on(&mut self, batch: &Batch, mut columns: Vec<ArrayRef>, out: &mut Outbox) -> Result<()> {
        self.groups.prepare_values(batch.data())?;
        columns.extend(self.keys.iter().map(|&key| Arc::clone(batch.column(key))));
        columns.extend(self.groups.singles()?);
        out.push(records(&self.schema, columns)?);
        self.passing = self.passing.saturating_sub(batch.rows());
        Ok(())
    }

    /// Emits partial results of the records of these parts one by one.
    fn pass_on_parts(&mut self, batch: &Batch, parts: &[(Part, Vec<u32>)], out: &mut Outbox) -> Result<()> {
        for is_window in [false, true] {
            let of_kind = || parts.iter().filter(|(part, _)| matches!(part, Part::Window(_)) == is_window);
            let rows: UInt32Array = of_kind().flat_map(|(_, records)| records.iter().copied()).collect();
            if rows.is_empty() {
                continue;
            }
            let starts = of_kind().flat_map(|(part, records)| {
                let (Part::Pane(start) | Part::Window(start)) = *part;
                std::iter::repeat_n(start, records.len())
            });
            let placed = self.placed(Int64Array::from_iter_values(starts), is_window);
            let kept = batch.take(&rows).map_err(|error| Error::internal(error.to_string()))?;
            self.pass_on(&kept, placed, out)?;
        }
        Ok(())
    }

    /// Emits values that the sums of their rows have no room for, as partial results of their own.
    fn pass_on_spilled(&mut self, batch: &Batch, out: &mut Outbox) -> Result<()> {
        let mut spilled = self.groups.take_spilled();
        spilled.sort_unstable();
        for of_one in spilled.chunk_by(|a, b| a.0 == b.0) {
            let rows: UInt32Array = of_one.iter().map(|&(_, _, record)| record as u32).collect();
            let kept = batch.take(&rows).map_err(|error| Error::internal(error.to_string()))?;
            let mut columns = self.placed(of_one.iter().map(|&(_, pane, _)| pane).collect(), false);
            columns.extend(self.keys.iter().map(|&key| Arc::clone(kept.column(key))));
            self.groups.prepare_values(kept.data())?;
            columns.extend(self.groups.singles_of(of_one[0].0)?);
            out.push(records(&self.schema, columns)?);
        }
        Ok(())
    }

    fn pass_on_windows(&mut self, batch: &Batch, assigner: Assigner, out: &mut Outbox) -> Result<()> {
        let assigned = assigner.assign(batch, self.watermark)?;
        match assigned.whole {
            Some(part) => {
                let (Part::Pane(start) | Part::Window(start)) = part;
                let starts = Int64Array::from_value(start, batch.rows());
                let placed = self.placed(starts, matches!(part, Part::Window(_)));
                self.pass_on(batch, placed, out)?;
            }
            None => self.pass_on_parts(batch, &assigned.parts, out)?,
        }
        push_late(batch, assigned.late, out)
    }

    /// Passes records on one by one, each with its window, where they are scattered over many windows, since to combine those of
    /// each would cost more than it saves, and where combining has turned out not to pay. Whether it did.
    fn pass_on_scattered(&mut self, batch: &Batch, out: &mut Outbox) -> Result<bool> {
        let Some(assigner) = self.assigner else { return Ok(false) };
        let assigned = match self.passing {
            0 => assigner.scattered(batch, self.watermark, false),
            _ => assigner.each_in_one(batch, self.watermark),
        };
        let Some((ids, late)) = assigned else { return Ok(false) };
        if late.is_empty() {
            self.pass_on(batch, self.placed(Int64Array::from(ids), true), out)?;
        } else {
            let mut is_late = vec![false; batch.rows()];
            late.iter().for_each(|&record| is_late[record as usize] = true);
            let kept: Vec<u32> = (0..batch.rows() as u32).filter(|&record| !is_late[record as usize]).collect();
            let ids = Int64Array::from_iter_values(kept.iter().map(|&record| ids[record as usize]));
            let rest = batch.take(&kept.into()).map_err(|error| Error::internal(error.to_string()))?;
            self.pass_on(&rest, self.placed(ids, true), out)?;
        }
        push_late(batch, late, out)?;
        Ok(true)
    }

    fn combine(&mut self, batch: &Batch, out: &mut Outbox) -> Result<()> {
        let mut assigned = match &self.assigner {
            Some(assigner) => assigner.assign(batch, self.watermark)?,
            None => Assigned { whole: Some(Part::Window(0)), ..Assigned::default() },
        };
        self.groups.prepare(batch.data())?;
        if let Some(Part::Pane(pane) | Part::Window(pane)) = assigned.whole {
            self.groups.update_span(pane, Span { start: 0, len: batch.rows() })?;
        }
        // Where windows share panes, records of single windows are few.
        let is_own = |part: &Part| self.assigner.is_some_and(|it| it.shares_panes) && matches!(part, Part::Window(_));
        let of_windows: Vec<(Part, Vec<u32>)> = assigned.parts.extract_if(.., |(part, _)| is_own(part)).collect();
        for (Part::Pane(pane) | Part::Window(pane), records) in &assigned.parts {
            self.groups.update_picked(*pane, records)?;
        }
        self.groups.reject_problems(batch.data(), out);
        self.combined += batch.rows() - assigned.late.len();
        if self.groups.is_hashed() {
            self.taken += batch.rows() - assigned.late.len();
        }
        self.pass_on_spilled(batch, out)?;
        if !of_windows.is_empty() {
            self.pass_on_parts(batch, &of_windows, out)?;
        }
        push_late(batch, assigned.late, out)
    }

    fn start_flush(&mut self, what: Going, out: &mut Outbox) -> Result<Progress> {
        if matches!(what, Going::All) {
            self.deadline = None;
        }
        let Some(pane) = self.next_pane(what) else { return Ok(Progress::Done) };
        self.flush = Some(Flush { cursor: Cursor::default(), pane, what });
        self.resume(out)
    }

    /// The next pane that has rows to give.
    fn next_pane(&self, what: Going) -> Option<i64> {
        match what {
            Going::All => self.groups.first_filled(),
            Going::Hashed => self.groups.panes().first_filled(),
            Going::Windows(at) => {
                let first = self.groups.first_pane()?;
                let assigner = self.assigner.as_ref()?;
                let windows = &assigner.windows;
                let end = if assigner.shares_panes { windows.pane(first).first_end } else { windows.end_of(first) };
                windows.is_complete(end, at).then_some(first)
            }
        }
    }

    /// What goes out because there is too much of it; decides whether combining pays.
    fn too_much(&mut self) -> Option<Going> {
        let hashed = self.groups.panes().rows();
        let (what, taken, rows) = match self.groups.crowd() {
            Some((taken, rows)) => (Going::All, taken, rows),
            None if hashed >= HELD_ROWS_MAX => (Going::Hashed, self.taken, hashed),
            None => return None,
        };
        self.judge(taken, rows);
        Some(what)
    }

    /// Stops combining for a while if so many records have become that many rows.
    fn judge(&mut self, records: usize, rows: usize) {
        if records < rows * REDUCTION_MIN {
            self.passing = self.passing_next;
            self.passing_next = (self.passing_next * 2).min(PASSING_RECORDS_MAX);
        } else {
            self.passing_next = PASSING_RECORDS;
        }
    }

    /// The same for windows, which are complete and leave before there is too much of them.
    fn judge_windows(&mut self) {
        if self.assigner.is_some() && self.combined >= JUDGED_RECORDS && self.passing == 0 {
            let (records, rows) = (std::mem::take(&mut self.combined), std::mem::take(&mut self.given) + self.groups.rows());
            self.judge(records, rows);
        }
    }
}

impl Operator for PartialAggregate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let batch = match self.assigner {
            Some(assigner) => within_reach(batch, assigner.windows.reach(), self.bound_type.as_ref(), out)?,
            None => batch,
        };
        if self.pass_on_scattered(&batch, out)? {
            return Ok(Progress::Done);
        }
        if self.passing > 0 {
            match self.assigner {
                Some(assigner) => self.pass_on_windows(&batch, assigner, out)?,
                None => self.pass_on(&batch, Vec::new(), out)?,
            }
            return Ok(Progress::Done);
        }
        self.combine(&batch, out)?;
        if self.assigner.is_none() && self.deadline.is_none() {
            self.deadline = Some(i64::MIN);
        }
        match self.too_much() {
            Some(what) => self.start_flush(what, out),
            None => Ok(Progress::Done),
        }
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        if self.assigner.is_some() { self.start_flush(Going::Windows(self.watermark), out) } else { Ok(Progress::Done) }
    }

    fn next_time(&self) -> Option<i64> {
        self.deadline
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        match self.deadline {
            Some(i64::MIN) => {
                self.deadline = Some(now.saturating_add(WAIT_US));
                Ok(Progress::Done)
            }
            Some(deadline) if deadline <= now => self.start_flush(Going::All, out),
            _ => Ok(Progress::Done),
        }
    }

    fn on_barrier(&mut self, _epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        self.start_flush(Going::All, out)
    }

    fn forget(&mut self) -> Result<()> {
        // All has gone out at the barrier. What is left says where rows go and whether combining pays.
        self.groups = (self.make)()?;
        (self.taken, self.combined, self.given) = (0, 0, 0);
        (self.passing, self.passing_next) = (0, PASSING_RECORDS);
        self.deadline = None;
        Ok(())
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.start_flush(Going::All, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        loop {
            let Some(flush) = &mut self.flush else { return Ok(Progress::Done) };
            let (pane, what) = (flush.pane, flush.what);
            let is_near_wanted = !matches!(what, Going::Hashed);
            if let Some((keys, results)) = self.groups.partials(pane, &mut flush.cursor, EMIT_ROWS, is_near_wanted)? {
                let rows = results.first().or(keys.first()).map_or(0, |column| column.len());
                self.given += rows;
                let mut columns = self.placed(Int64Array::from_value(pane, rows), false);
                columns.extend(keys);
                columns.extend(results);
                out.push(records(&self.schema, columns)?);
                return Ok(Progress::More);
            }
            // What is filled again keeps its memory.
            if matches!(what, Going::Windows(_)) { self.groups.close(pane) } else { self.groups.reset(pane) }
            self.flush = self.next_pane(what).map(|pane| Flush { cursor: Cursor::default(), pane, what });
            if self.flush.is_none() {
                self.judge_windows();
                self.taken = self.taken.min(self.groups.panes().rows());
            }
        }
    }
}

#[cfg(test)]
mod tests;
