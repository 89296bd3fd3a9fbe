//! Rows of overlapping windows out of the rows of their panes.
//!
//! ```text
//!                 front                          recent
//!   panes     p1    p2    p3    p4     │     p5    p6                    a window: p2 … p6
//!   undo      u1    u2    u3    u4     │
//!   total     what p2 … p6 add up to
//!   recent    what p5 … p6 add up to
//! ```
//!
//! Every key has one row in `total`, from which results are read. A new pane is added to `total` and to `recent`. To
//! take away the oldest pane, its undo says what the rows of its keys had been without it and with all panes up to the
//! last turn; what has come since is in `recent`. When no undo is left, the recent panes become the front: they are added
//! up from the newest to the oldest, and each keeps as its undo what was there before it. So a row of a pane costs five
//! merges at most, however long the windows are: two when it comes, one at the turn, two when it goes. It is the
//! two-stacks method of Tangwongsan, Hirzel and Schneider ("In-Order Sliding-Window Aggregation in Worst-Case Constant
//! Time", VLDB Journal 2021, section 3), kept per key. It needs no inverse of the aggregate.
//!
//! All of this follows from the panes and is in no checkpoint; it is rebuilt after a restart. Panes that are in it do
//! not change any more: a record that comes later is late for the window that has had its result, and goes to the others
//! by itself (see [`assign`](super::assign)).

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_frame::hash::KEY_GROUPS;
use mill_plan::AggregateSpec;
use mill_protocol::{Error, Outbox, Result};
use mill_state::{Cursor, TableOptions};

use crate::accumulator::{GroupOptions, Groups, records};
use crate::aggregate::EMIT_ROWS;

/// The one table of `total` and `recent`.
const ALL: i64 = 0;

/// What takes a pane away again.
struct Undo {
    pane: i64,
    chunks: Vec<UndoChunk>,
}

/// A part of the rows of a pane.
struct UndoChunk {
    /// Their keys.
    keys: Vec<ArrayRef>,
    /// The rows without the pane, of those keys that have one: keys and partial results.
    before: RecordBatch,
    /// Which keys these are.
    known: Vec<u32>,
}

/// Adds panes up.
pub(crate) struct Combiner {
    schema: SchemaRef,
    keys: usize,
    total: Groups,
    recent: Groups,
    /// A total with rows of a single window added.
    mixed: Groups,
    undo: VecDeque<Undo>,
    /// The start of the oldest pane that is in `recent`.
    recent_from: Option<i64>,
    /// Panes that start before this are in `total`, unless they have been taken away.
    end: i64,
    /// Whether windows lose all their panes at once, so that `recent` is of no use.
    is_cumulative: bool,
}

impl Combiner {
    /// For keys of these types and aggregates that can be merged.
    pub(crate) fn new(key_types: &[DataType], aggregates: &[AggregateSpec], is_cumulative: bool) -> Result<Combiner> {
        let keys = key_types.len();
        let key = |(place, data_type): (usize, &DataType)| Field::new(format!("key {place}"), data_type.clone(), true);
        let mut fields: Vec<Field> = key_types.iter().enumerate().map(key).collect();
        let mut merged = Vec::with_capacity(aggregates.len());
        for spec in aggregates {
            merged.push(AggregateSpec { input: Some(fields.len()), filter: None, ..spec.clone() });
            fields.extend(spec.partial_fields());
        }
        let places: Vec<usize> = (0..keys).collect();
        let groups = || {
            let table = TableOptions::new(0..KEY_GROUPS);
            let carries_at = Some(fields.len());
            let options = GroupOptions { table, is_partial: true, keeps_pending: false, is_ahead: false, is_timed: false, owner_columns: None, has_tally: false, carries_at };
            Groups::new(&places, key_types, &merged, &options)
        };
        let total = groups()?;
        let schema = Arc::new(Schema::new([fields.clone(), total.carry_fields()].concat()));
        Ok(Combiner {
            schema,
            keys,
            total,
            recent: groups()?,
            mixed: groups()?,
            undo: VecDeque::new(),
            recent_from: None,
            end: i64::MIN,
            is_cumulative,
        })
    }

    /// Forgets everything: the panes are others now.
    pub(crate) fn clear(&mut self) {
        self.total.reset(ALL);
        self.recent.reset(ALL);
        self.undo.clear();
        self.recent_from = None;
        self.end = i64::MIN;
    }

    /// Makes the total that of the panes from `start` to `end`. Neither may be smaller than the last time.
    pub(crate) fn advance(&mut self, panes: &mut Groups, start: i64, end: i64, out: &mut Outbox) -> Result<()> {
        while self.undo.front().is_some_and(|undo| undo.pane < start) {
            let undo = self.undo.pop_front().expect("there is a front");
            undo.chunks.iter().try_for_each(|chunk| self.take_away(chunk, out))?;
        }
        if self.recent_from.is_some_and(|from| from < start) {
            self.turn(panes, start, out)?;
        }
        let from = self.end.max(start);
        let added: Vec<i64> = panes.panes().starts_in(from..end.max(from)).collect();
        for pane in added {
            self.recent_from.get_or_insert(pane);
            let mut cursor = Cursor::default();
            while let Some(rows) = read(&self.schema, panes, pane, &mut cursor)? {
                self.total.absorb(ALL, &rows, out)?;
                if !self.is_cumulative {
                    self.recent.absorb(ALL, &rows, out)?;
                }
            }
        }
        self.end = self.end.max(end);
        Ok(())
    }

    /// Makes the panes that are in the total and not before `start` the front.
    fn turn(&mut self, panes: &mut Groups, start: i64, out: &mut Outbox) -> Result<()> {
        let end = self.end;
        self.clear();
        self.end = end;
        let kept: Vec<i64> = panes.panes().starts_in(start..end.max(start)).collect();
        for &pane in kept.iter().rev() {
            let mut chunks = Vec::new();
            let mut cursor = Cursor::default();
            while let Some(rows) = read(&self.schema, panes, pane, &mut cursor)? {
                let keys = rows.columns()[..self.keys].to_vec();
                let (before, known) = rows_of(&self.schema, &mut self.total, &keys, rows.num_rows())?;
                self.total.absorb(ALL, &rows, out)?;
                chunks.push(UndoChunk { keys, before, known });
            }
            self.undo.push_front(Undo { pane, chunks });
        }
        Ok(())
    }

    fn take_away(&mut self, chunk: &UndoChunk, out: &mut Outbox) -> Result<()> {
        // A step without keys has one row.
        let rows = chunk.keys.first().map_or(1, |keys| keys.len());
        let mut is_gone = vec![true; rows];
        self.total.clear(ALL, &chunk.keys, rows)?;
        self.total.absorb(ALL, &chunk.before, out)?;
        chunk.known.iter().for_each(|&row| is_gone[row as usize] = false);
        if self.recent_from.is_some() {
            let (since, known) = rows_of(&self.schema, &mut self.recent, &chunk.keys, rows)?;
            self.total.absorb(ALL, &since, out)?;
            known.iter().for_each(|&row| is_gone[row as usize] = false);
        }
        self.total.remove(ALL, &chunk.keys, &is_gone)
    }

    /// Adds the rows of a single window to the total; results are then read with `is_mixed`.
    pub(crate) fn mix(&mut self, windows: &mut Groups, id: i64, out: &mut Outbox) -> Result<()> {
        self.mixed.reset(ALL);
        for (groups, place) in [(&mut self.total, ALL), (windows, id)] {
            let mut cursor = Cursor::default();
            while let Some(rows) = read(&self.schema, groups, place, &mut cursor)? {
                self.mixed.absorb(ALL, &rows, out)?;
            }
        }
        Ok(())
    }

    /// Where the results are: the total, or the total that has been mixed.
    pub(crate) fn result(&mut self, is_mixed: bool) -> (&mut Groups, i64) {
        (if is_mixed { &mut self.mixed } else { &mut self.total }, ALL)
    }
}

/// Reads on in a pane or window: keys and partial results.
fn read(schema: &SchemaRef, groups: &mut Groups, place: i64, cursor: &mut Cursor) -> Result<Option<RecordBatch>> {
    let Some((mut columns, partials)) = groups.partials(place, cursor, EMIT_ROWS, false)? else { return Ok(None) };
    columns.extend(partials);
    Ok(Some(records(schema, columns)?.data().clone()))
}

/// The rows of those keys that have one, and which keys these are.
fn rows_of(schema: &SchemaRef, groups: &mut Groups, keys: &[ArrayRef], rows: usize) -> Result<(RecordBatch, Vec<u32>)> {
    let (known, partials) = groups.partials_of(ALL, keys, rows)?;
    let found = UInt32Array::from(known.clone());
    let taken = |column: &ArrayRef| take(column, &found, None).map_err(|error| Error::internal(error.to_string()));
    let mut columns = keys.iter().map(taken).collect::<Result<Vec<_>>>()?;
    columns.extend(partials);
    Ok((records(schema, columns)?.data().clone(), known))
}
