//! `window(tumbling | sliding | cumulative).agg`: one result a key and window.
//!
//! ```text
//!   records ──assign──► window tables: row of the key             of one window each
//!                └────► pane tables: row of the key ──combine──►  shared by windows that overlap
//!   watermark > window_end - 1 + allowed lateness ──► the window's rows go out; panes that no window needs are dropped
//!   late records ──► port 1, as they came
//! ```
//!
//! A window has its results once. Windows fire in the order of their ends, each in chunks; the watermark passes on when
//! the last one it completes is out, and never beyond the results that windows may still have which wait for late
//! records: those are not late for the next step. Where partial results come in, their maker has decided about lateness.
//!
//! Overlapping windows share panes if their aggregates can be merged. If not, a record goes into a table of each of its
//! windows.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use mill_plan::{AggregateKind, AggregateSpec, Stage, WindowSpec};
use mill_protocol::{
    Batch, Epoch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};
use mill_state::{Cursor, Span, TableOptions};

use crate::accumulator::{GroupOptions, Groups, UnfitRow, former_aggregates, records};
use crate::aggregate::EMIT_ROWS;
use crate::description::{Described, Description, Shape, restored_watermark};
use crate::windows::{
    Aligned, Assigned, Assigner, Combiner, Part, Sparse, bound_columns, is_scattered, push_late, shares_panes, time_column,
    within_reach,
};

/// Keeps one row of accumulators a key and open window, or a key and pane.
pub(crate) struct WindowAggregate {
    /// Tables of single windows, by their id.
    windows: Groups,
    /// Tables of panes, by their start, if windows share them.
    shared: Option<Shared>,
    /// Windows of few records each, if a record belongs to one.
    sparse: Option<Sparse>,
    schema: SchemaRef,
    keys: usize,
    is_partial: bool,
    assigner: Assigner,
    watermark: Watermark,
    described: Described,
    firing: Option<Firing>,
}

/// Panes that windows share.
struct Shared {
    panes: Groups,
    combiner: Combiner,
    /// Windows with ends up to this one have had their results.
    fired: i64,
}

/// The window that is going out, and how far it is.
struct Firing {
    end: i64,
    cursor: Cursor,
    from: From,
}

/// Where the rows of a window are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    /// In the table of the window.
    Window,
    /// In the total of the combiner.
    Total,
    /// In that total with the table of the window added.
    Mixed,
}

impl WindowAggregate {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        aggregates: &[AggregateSpec],
        is_partial: bool,
        spec: &WindowSpec,
    ) -> Result<WindowAggregate> {
        let windows = Aligned::of(spec);
        let assigner = Assigner { windows, shares_panes: shares_panes(&windows, aggregates) };
        let key_types: Vec<_> =
            stage.schema.fields()[..keys.len()].iter().map(|field| field.data_type().clone()).collect();
        let groups = |state| {
            let table = TableOptions {
                groups: context.groups.clone(),
                state,
                is_persistent: context.is_persistent,
                tracks_changes: false,
            };
            let options = GroupOptions { table, is_partial, keeps_pending: false, is_ahead: false, is_timed: true, owner_columns: None, has_tally: false, carries_at: None };
            Groups::new(keys, &key_types, aggregates, &options)
        };
        let shared = if assigner.shares_panes {
            let combiner = Combiner::new(&key_types, aggregates, windows.is_cumulative())?;
            Some(Shared { panes: groups(1)?, combiner, fired: i64::MIN })
        } else {
            None
        };
        // Those that keep tables of their own drop them window by window.
        let has_tables = aggregates.iter().any(|spec| matches!(spec.kind, AggregateKind::NUnique));
        let sparse = if windows.is_overlapping() || has_tables {
            None
        } else {
            let table = TableOptions {
                groups: context.groups.clone(),
                state: 2,
                is_persistent: context.is_persistent,
                tracks_changes: false,
            };
            // Before partial results comes the start of their window; else it is added after all columns.
            let mut places = keys.to_vec();
            places.push(if is_partial { 0 } else { usize::MAX });
            let mut types = key_types.clone();
            types.push(DataType::Int64);
            let owner_columns = Some(keys.len());
            let options =
                GroupOptions {
                table,
                is_partial,
                keeps_pending: false,
                is_ahead: false,
                is_timed: true,
                owner_columns,
                has_tally: false,
                carries_at: None,
            };
            Some(Sparse::new(Groups::new(&places, &types, aggregates, &options)?, windows.slide()))
        };
        let shape = Shape::Aggregate { keys: keys.len(), aggregates: aggregates.to_vec(), window: Some(*spec) };
        Ok(WindowAggregate {
            windows: groups(0)?,
            shared,
            sparse,
            schema: stage.schema.clone(),
            keys: keys.len(),
            is_partial,
            assigner,
            watermark: Watermark::MIN,
            described: Description { schema: stage.schema.clone(), keeps_pending: false, shape }.described(),
            firing: None,
        })
    }

    /// The tables that the maker of partial results has named.
    fn parts_of_partials(&self, batch: &Batch) -> Result<Assigned> {
        let starts = batch.column(0).as_primitive_opt::<Int64Type>();
        let starts = starts.ok_or_else(|| Error::internal("partial results begin with the start of their window"))?;
        let starts = starts.values();
        // Windows that overlap have a column that says whether the start is that of a window, and not of a pane.
        let is_window = match &self.shared {
            None => None,
            Some(_) => {
                let column = batch.column(1).as_boolean_opt();
                let column = column.ok_or_else(|| Error::internal("partial results of panes say which are of windows"))?;
                (column.true_count() > 0).then(|| column.values().clone())
            }
        };
        let windows = &self.assigner.windows;
        let parts_of = |start: i64, is_window: bool, parts: &mut Vec<Part>| {
            parts.clear();
            if self.shared.is_some() && !is_window {
                self.assigner.parts_of_pane(start, self.watermark, parts);
            } else if !windows.is_complete(windows.end_of(start), self.watermark) {
                parts.push(Part::Window(start));
            }
        };
        let mut parts = Vec::new();
        // Results come part by part, mostly of one: it is asked for once for all that follow each other.
        if let Some(&first) = starts.first()
            && is_window.is_none()
            && starts.iter().all(|&start| start == first)
        {
            parts_of(first, false, &mut parts);
            if let [part] = parts[..] {
                return Ok(Assigned { whole: Some(part), ..Assigned::default() });
            }
        }
        let mut assigned = Assigned::default();
        let kind = |row: usize| is_window.as_ref().is_some_and(|is_window| is_window.value(row));
        let mut row = 0;
        while row < starts.len() {
            let first = row;
            while row < starts.len() && starts[row] == starts[first] && kind(row) == kind(first) {
                row += 1;
            }
            let records = first as u32..row as u32;
            parts_of(starts[first], kind(first), &mut parts);
            if parts.is_empty() {
                assigned.late.extend(records.clone());
            }
            for &part in &parts {
                match assigned.parts.iter_mut().rev().find(|(of, _)| *of == part) {
                    Some((_, of)) => of.extend(records.clone()),
                    None => assigned.parts.push((part, records.clone().collect())),
                }
            }
        }
        Ok(assigned)
    }

    /// The windows of the records of a batch, if they are scattered over many, and which of them are late.
    fn scattered(&self, batch: &Batch) -> Option<(Vec<i64>, Vec<u32>)> {
        self.sparse.as_ref()?;
        if !self.is_partial {
            return self.assigner.scattered(batch, self.watermark, true);
        }
        let ids = batch.column(0).as_primitive_opt::<Int64Type>()?.values();
        if !is_scattered(ids.len(), true, |record| ids[record]) {
            return None;
        }
        let windows = &self.assigner.windows;
        let is_late = |&record: &usize| windows.is_complete(windows.end_of(ids[record]), self.watermark);
        let late = (0..ids.len()).filter(is_late).map(|record| record as u32).collect();
        Some((ids.to_vec(), late))
    }

    /// Takes records of many windows: those of windows with a table of their own there, the others together.
    fn update_scattered(&mut self, batch: &Batch, ids: &[i64], late: &[u32], out: &mut Outbox) -> Result<()> {
        let mut dense: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        let mut rest: Option<Vec<u32>> = None;
        if !late.is_empty() || !self.windows.panes().is_empty() {
            let mut of_sparse = Vec::with_capacity(ids.len());
            let mut late = late.iter().copied().peekable();
            for (record, &id) in (0..).zip(ids) {
                if late.next_if_eq(&record).is_some() {
                    continue;
                }
                match self.windows.panes().has(id) {
                    true => dense.entry(id).or_default().push(record),
                    false => of_sparse.push(record),
                }
            }
            rest = Some(of_sparse);
        }
        if !dense.is_empty() {
            self.windows.times(batch.times().map(|times| &times[..]));
            self.windows.prepare(batch.data())?;
            for (id, records) in &dense {
                self.windows.update_picked(*id, records)?;
            }
            self.windows.reject_problems(batch.data(), out);
        }
        self.update_sparse(batch, ids, rest.as_deref(), out)
    }

    /// Takes records into the table that windows share.
    fn update_sparse(&mut self, batch: &Batch, ids: &[i64], records: Option<&[u32]>, out: &mut Outbox) -> Result<()> {
        let Some(sparse) = &mut self.sparse else { return Ok(()) };
        if records.is_some_and(<[u32]>::is_empty) {
            return Ok(());
        }
        sparse.update(batch, records, ids, self.is_partial, out)
    }

    /// Takes out of what was assigned the records of windows that are in the table that windows share, and updates those.
    fn update_known(&mut self, batch: &Batch, assigned: &mut Assigned, out: &mut Outbox) -> Result<()> {
        let Some(sparse) = self.sparse.as_ref().filter(|sparse| !sparse.is_empty()) else { return Ok(()) };
        let own = self.windows.panes();
        let is_known = |part: &Part| matches!(part, Part::Window(id) if sparse.has(*id) && !own.has(*id));
        let known: Vec<(Part, Vec<u32>)> = match assigned.whole.take_if(|part| is_known(part)) {
            Some(part) => vec![(part, (0..batch.rows() as u32).collect())],
            None => assigned.parts.extract_if(.., |(part, _)| is_known(part)).collect(),
        };
        if known.is_empty() {
            return Ok(());
        }
        let mut ids = vec![0; batch.rows()];
        for (Part::Pane(id) | Part::Window(id), records) in &known {
            records.iter().for_each(|&record| ids[record as usize] = *id);
        }
        let records: Vec<u32> = known.into_iter().flat_map(|(_, records)| records).collect();
        self.update_sparse(batch, &ids, Some(&records), out)
    }

    fn update(&mut self, batch: &Batch, assigned: &Assigned, out: &mut Outbox) -> Result<()> {
        let is_of_pane = |part: &Part| matches!(part, Part::Pane(_));
        let is_of_window = |part: &Part| !is_of_pane(part);
        let parts = || assigned.whole.iter().chain(assigned.parts.iter().map(|(part, _)| part));
        if let Some(shared) = &mut self.shared
            && parts().any(is_of_pane)
        {
            update(&mut shared.panes, batch, assigned, is_of_pane)?;
            shared.panes.reject_problems(batch.data(), out);
        }
        if parts().any(is_of_window) {
            update(&mut self.windows, batch, assigned, is_of_window)?;
            self.windows.reject_problems(batch.data(), out);
        }
        Ok(())
    }

    /// The end of the next window that is complete and may have results.
    fn next_complete(&mut self) -> Option<i64> {
        let windows = &self.assigner.windows;
        let mut next = self.windows.panes().first().map(|id| windows.end_of(id));
        if let Some(shared) = &mut self.shared {
            // Panes whose windows have all fired are of no more use.
            while let Some(first) = shared.panes.panes().first()
                && windows.last_end(first) <= shared.fired
            {
                shared.panes.close(first);
            }
            if let Some(first) = shared.panes.panes().first() {
                let after = if shared.fired == i64::MIN { i64::MIN } else { windows.next_end(shared.fired) };
                let end = windows.pane(first).first_end.max(after);
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        next.filter(|&end| windows.is_complete(end, self.watermark))
    }

    /// Begins to emit the window with this end.
    fn begin(&mut self, end: i64, out: &mut Outbox) -> Result<Firing> {
        let windows = &self.assigner.windows;
        let id = windows.id_of(end);
        let has_own = self.windows.panes().has(id);
        let from = match &mut self.shared {
            None => From::Window,
            Some(shared) => {
                shared.combiner.advance(&mut shared.panes, windows.start_of(end), end, out)?;
                shared.fired = end;
                if has_own {
                    shared.combiner.mix(&mut self.windows, id, out)?;
                    From::Mixed
                } else {
                    From::Total
                }
            }
        };
        Ok(Firing { end, cursor: Cursor::default(), from })
    }

    /// Emits complete windows of few records each, many at a time.
    fn fire_sparse(&mut self, out: &mut Outbox) -> Result<Progress> {
        let Some(sparse) = &mut self.sparse else { return Ok(Progress::Done) };
        let (windows, at) = (self.assigner.windows, self.watermark);
        let taken = sparse.take(windows.last_complete_id(at), EMIT_ROWS, out)?;
        let bounds = |row: &UnfitRow| {
            let id = row.keys.last().and_then(|ids| ids.as_primitive_opt::<Int64Type>());
            let id = id.ok_or_else(|| Error::internal("rows of windows have their id"))?;
            bound_columns(&windows, vec![windows.end_of(id.value(0))], &self.schema, self.keys).map(Vec::from)
        };
        sparse.groups.reject_unfit(&self.schema, bounds, out)?;
        let Some((mut columns, ids, results)) = taken else { return Ok(Progress::Done) };
        let ends: Vec<i64> = ids.iter().map(|&id| windows.end_of(id)).collect();
        let times: Vec<i64> = ends.iter().map(|end| end.saturating_sub(1)).collect();
        columns.extend(bound_columns(&windows, ends, &self.schema, self.keys)?);
        columns.extend(results);
        out.push(records(&self.schema, columns)?.with_times(Some(times.into())));
        Ok(Progress::More)
    }

    fn fire(&mut self, out: &mut Outbox) -> Result<Progress> {
        loop {
            let mut firing = match self.firing.take() {
                Some(firing) => firing,
                None => match self.next_complete() {
                    Some(end) => self.begin(end, out)?,
                    None => return self.fire_sparse(out),
                },
            };
            let id = self.assigner.windows.id_of(firing.end);
            let (groups, place) = match (&mut self.shared, firing.from) {
                (Some(shared), From::Total | From::Mixed) => shared.combiner.result(firing.from == From::Mixed),
                _ => (&mut self.windows, id),
            };
            let results = groups.results(place, &mut firing.cursor, EMIT_ROWS, false)?;
            let bounds = |_: &UnfitRow| bounds_of(&self.assigner.windows, firing.end, 1, &self.schema, self.keys);
            groups.reject_unfit(&self.schema, bounds, out)?;
            let Some((mut columns, results)) = results else {
                self.windows.close(id);
                continue;
            };
            let rows = results.first().or(columns.first()).map_or(0, |column| column.len());
            columns.extend(bounds_of(&self.assigner.windows, firing.end, rows, &self.schema, self.keys)?);
            columns.extend(results);
            let times = std::iter::repeat_n(firing.end.saturating_sub(1), rows).collect();
            out.push(records(&self.schema, columns)?.with_times(Some(times)));
            self.firing = Some(firing);
            return Ok(Progress::More);
        }
    }
}

/// `window_start` and `window_end` of the window with this end, that often. They come in `schema` after so many keys.
fn bounds_of(windows: &Aligned, end: i64, rows: usize, schema: &SchemaRef, keys: usize) -> Result<Vec<ArrayRef>> {
    Ok(vec![
        time_column(windows.start_of(end), rows, schema.field(keys).data_type())?,
        time_column(end, rows, schema.field(keys + 1).data_type())?,
    ])
}

/// Takes the records of those parts that these groups keep.
fn update(groups: &mut Groups, batch: &Batch, assigned: &Assigned, is_kept: impl Fn(&Part) -> bool) -> Result<()> {
    let (Part::Pane(place) | Part::Window(place)) = assigned.whole.unwrap_or(Part::Window(0));
    groups.times(batch.times().map(|times| &times[..]));
    groups.prepare(batch.data())?;
    if assigned.whole.is_some() {
        groups.update_span(place, Span { start: 0, len: batch.rows() })?;
    }
    for (part, records) in assigned.parts.iter().filter(|(part, _)| is_kept(part)) {
        let (Part::Pane(place) | Part::Window(place)) = *part;
        groups.update_picked(place, records)?;
    }
    Ok(())
}

impl Operator for WindowAggregate {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        // Partial results are of windows that have been found.
        let bound_type = self.schema.field(self.keys).data_type();
        let batch = match self.is_partial {
            true => batch,
            false => within_reach(batch, self.assigner.windows.reach(), Some(bound_type), out)?,
        };
        if let Some((ids, late)) = self.scattered(&batch) {
            self.update_scattered(&batch, &ids, &late, out)?;
            match self.is_partial {
                true => out.count_late(late.len() as u64),
                false => push_late(&batch, late, out)?,
            }
            return Ok(Progress::Done);
        }
        let mut assigned = if self.is_partial {
            self.parts_of_partials(&batch)?
        } else {
            self.assigner.assign(&batch, self.watermark)?
        };
        self.update_known(&batch, &mut assigned, out)?;
        self.update(&batch, &assigned, out)?;
        if self.is_partial {
            out.count_late(assigned.late.len() as u64);
        } else {
            push_late(&batch, assigned.late, out)?;
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        self.fire(out)
    }

    fn on_barrier(&mut self, _epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        if let Some(sparse) = &mut self.sparse {
            sparse.flush_all(out)?;
        }
        Ok(Progress::Done)
    }

    fn earliest_result(&self) -> Watermark {
        self.assigner.windows.earliest_result(self.watermark)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.on_watermark(0, Watermark::MAX, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.fire(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.windows.snapshot(snapshot);
        if let Some(shared) = &mut self.shared {
            shared.panes.snapshot(snapshot);
        }
        if let Some(sparse) = &mut self.sparse {
            sparse.snapshot(snapshot)?;
        }
        snapshot.bytes = Some(self.described.of(&self.watermark.0.to_le_bytes()));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.watermark = restored_watermark(restored)?;
        let former = former_aggregates(restored)?;
        let former = former.as_deref();
        self.windows.restore(restored, former)?;
        if let Some(sparse) = &mut self.sparse {
            let complete = self.assigner.windows.last_complete_id(self.watermark);
            sparse.restore(restored, former, complete, &mut self.windows)?;
        }
        let Some(shared) = &mut self.shared else { return Ok(()) };
        shared.panes.restore(restored, former)?;
        shared.combiner.clear();
        // Windows that were complete have fired before the snapshot.
        shared.fired = self.assigner.windows.last_complete(self.watermark);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
