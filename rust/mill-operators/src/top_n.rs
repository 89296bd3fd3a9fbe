//! `top_n`: the first rows of each key, emitted at the end or as they change.
//!
//! The result is keyed by the key and the rank. Rows are only ever added, so a rank that has a row keeps one and nothing
//! is withdrawn. A row that enters in front moves others: the ranks from its own on are emitted, and no others.

mod board;
mod boards;
mod window;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use mill_plan::{Emit, Ordering, Stage};
use mill_protocol::{Batch, Epoch, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext};
use mill_state::{Cursor, Span, StateTable, TableOptions};

pub(crate) use self::window::WindowTopN;
use self::boards::Boards;
use crate::accumulator::{records, state_error};
use crate::aggregate::{EMIT_ROWS, Schedule};
use crate::attempt::attempt;
use crate::description::{Described, Description, Shape, own};

/// Keeps the first rows of each key.
pub(crate) struct TopN {
    boards: Boards,
    table: StateTable,
    schema: SchemaRef,
    schedule: Schedule,
    described: Described,
    emitting: Option<(Cursor, bool)>,
}

/// The columns of the rows themselves: those of the result but for the last ones, which are added.
fn rows_of(schema: &SchemaRef, added: usize) -> SchemaRef {
    let fields = schema.fields()[..schema.fields().len() - added].to_vec();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

impl TopN {
    pub(crate) fn new(
        stage: &Stage,
        context: &TaskContext,
        keys: &[usize],
        by: Vec<Ordering>,
        rows: usize,
        emit: Emit,
    ) -> Result<TopN> {
        let schedule = Schedule::new(emit);
        let schema = Arc::clone(&stage.schema);
        let tracks_changes = schedule.tracks_changes();
        let boards = Boards::new(rows_of(&schema, 1), keys, by, rows, tracks_changes)?;
        let options = TableOptions {
            groups: context.groups.clone(),
            state: 0,
            is_persistent: context.is_persistent,
            tracks_changes,
        };
        let table = StateTable::new(Arc::clone(boards.layout()), options);
        let shape = Shape::TopN { keys: keys.to_vec(), window: None };
        let described = Description { schema: Arc::clone(&schema), keeps_pending: tracks_changes, shape }.described();
        Ok(TopN { boards, table, schema, schedule, described, emitting: None })
    }

    /// Emits all rows, or those whose rank changed.
    pub(crate) fn emit(&mut self, is_changed: bool, out: &mut Outbox) -> Result<Progress> {
        self.emitting = Some((Cursor::default(), is_changed));
        self.resume(out)
    }
}

/// How many keys make up one emitted batch.
fn keys_at_once(boards: &Boards) -> usize {
    (EMIT_ROWS / boards.rows_max()).max(1)
}

impl Operator for TopN {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let (boards, table) = (&mut self.boards, &mut self.table);
        attempt(batch, out, &mut |batch, _| {
            let frame = boards.prepare(batch.data())?;
            boards.update(table, &frame, Span { start: 0, len: batch.rows() })
        })?;
        if self.schedule.on_change() { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn can_replay(&self) -> bool {
        !self.schedule.keeps_pending()
    }

    fn next_time(&self) -> Option<i64> {
        self.schedule.next_time()
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        if self.schedule.on_time(now) { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn on_barrier(&mut self, _epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        if self.schedule.on_barrier() { self.emit(true, out) } else { Ok(Progress::Done) }
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        let is_changed = self.schedule.tracks_changes();
        self.emit(is_changed, out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        let Some((cursor, is_changed)) = &mut self.emitting else { return Ok(Progress::Done) };
        let (keys, is_changed) = (keys_at_once(&self.boards), *is_changed);
        let rows = match is_changed {
            true => self.table.scan_changed(cursor, keys, self.boards.pending()),
            false => self.table.scan(cursor, keys),
        };
        if rows.is_empty() {
            self.emitting = None;
            return Ok(Progress::Done);
        }
        let (data, ranks) = self.boards.read(&rows, is_changed)?;
        let mut columns = data.columns().to_vec();
        columns.push(ranks);
        out.push(records(&self.schema, columns)?);
        Ok(Progress::More)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.table.snapshot(0, snapshot.is_full, &mut snapshot.blocks);
        snapshot.bytes = Some(self.described.of(&[]));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        restored.bytes.iter().try_for_each(|bytes| own(bytes).map(drop))?;
        self.schedule.on_restore();
        self.table.restore(&restored.blocks).map_err(state_error)?;
        if self.boards.pending().is_some() {
            self.table.mark_changed();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
