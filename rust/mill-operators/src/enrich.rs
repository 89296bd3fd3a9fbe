//! `enrich`: joins each left row with the right rows of its key that have arrived.
//!
//! ```text
//!   the right side is bounded     left rows wait until it has ended: in their queues, or in the state    `waiting`
//!                                 then each meets all right rows of its key, or the latest one
//!   the right side goes on        each left row meets the latest right row of its key that has come      `index`
//! ```
//!
//! While the right side is loaded the operator asks for right records alone ([`Operator::wants`]), so that the left source
//! waits and nothing is kept of it. Left records come all the same while a checkpoint is taken: its barrier is after records
//! that are under way. Those are kept, in memory and in the state, until the right side has ended.
//!
//! The right rows are state. A job that continues from a checkpoint has those of the checkpoint, and reads none of them again.

mod index;
mod near;

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mill_plan::{How, LookupPlan, TableRows, UntilLoaded};
use mill_protocol::{
    Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark, Watermarks,
};
use mill_state::StateBackend;

use crate::accumulator::state_error;
use crate::description::{Described, Description, Shape, own};
use crate::pair::{Joined, Keys, NO_ROW, Runs, Written, taken};
use index::{Index, Matches};

/// The number of the left input.
const LEFT: usize = 0;
/// How many frames are emitted at a time.
const FRAMES: usize = 8;
/// How many rows a frame has about at most.
const FRAME_ROWS: usize = 65_536;

/// Finds the right rows of each left row.
pub(crate) struct Enrich {
    how: How,
    until_loaded: UntilLoaded,
    backend: StateBackend,
    is_persistent: bool,
    left: Keys,
    index: Index,
    joined: Joined,
    /// Left records that came before the right side had ended, and whether the state has them.
    waiting: VecDeque<(Batch, bool)>,
    waiting_runs: Runs,
    /// Whether the right side has ended, or is not waited for.
    is_loaded: bool,
    /// The batch whose rows are being emitted, and how far they are.
    pending: Option<Pending>,
    described: Described,
}

/// Left rows whose pairs are made and emitted some at a time: there may be far more of them than rows of both sides.
struct Pending {
    left: Batch,
    matches: Matches,
}

impl Enrich {
    /// An instance whose results have these columns.
    pub(crate) fn new(
        schema: &SchemaRef,
        context: &TaskContext,
        plan: &LookupPlan,
        (rows, until_loaded): (TableRows, UntilLoaded),
    ) -> Result<Enrich> {
        if matches!(plan.how, How::Right | How::Full) {
            return Err(Error::internal(format!("an enrichment with how={:?}", plan.how)));
        }
        let [left, right] = &plan.inputs;
        let mut backend = StateBackend::new(context.groups.clone(), context.is_persistent);
        let table_runs = Runs::new(&mut backend, "table", right, false)?;
        let waiting_runs = Runs::new(&mut backend, "waiting", left, false)?;
        let shape = Shape::Enrich { left: Arc::clone(left), keys: plan.keys.clone(), rows };
        let described = Description { schema: Arc::clone(right), keeps_pending: false, shape }.described();
        let left = Keys::new(left, &plan.keys[LEFT])?;
        let index = Index::new(right, &plan.keys[1], rows, context, table_runs)?;
        if left.encoder().kind() != index.keys().encoder().kind() {
            return Err(Error::internal("the keys of a join are of two kinds"));
        }
        Ok(Enrich {
            how: plan.how,
            until_loaded,
            is_persistent: context.is_persistent,
            left,
            index,
            joined: Joined::new(schema, &plan.columns)?,
            waiting: VecDeque::new(),
            waiting_runs,
            is_loaded: until_loaded == UntilLoaded::Pass,
            pending: None,
            backend,
            described,
        })
    }

    /// Right rows of a state, as it is read.
    pub(crate) fn kept(&mut self) -> Result<Vec<RecordBatch>> {
        self.index.all()
    }

    /// Looks a batch up; what there is to emit of it is pending then.
    fn look_up(&mut self, left: Batch, out: &mut Outbox) -> Result<()> {
        let positions = self.index.find(&mut self.left, left.data().columns(), left.rows())?;
        match self.how {
            How::Semi | How::Anti => {
                let is_match = self.how == How::Semi;
                let rows: Vec<u32> =
                    (0..left.rows() as u32).filter(|&row| (positions[row as usize] != NO_ROW) == is_match).collect();
                let rows = if rows.len() == left.rows() { left } else { taken(&left, rows)? };
                let none = vec![NO_ROW; rows.rows()];
                out.push(self.joined.rows(&rows, self.index.store(), &none)?);
            }
            // A row for each left row: nothing of the left side is copied.
            How::Left if self.index.is_unique() => out.push(self.joined.rows(&left, self.index.store(), &positions)?),
            _ if self.index.is_unique() => out.push(self.joined.matching_rows(&left, self.index.store(), positions)?),
            _ => {
                let matches = Matches::new(positions, self.how == How::Left);
                self.pending = Some(Pending { left, matches });
            }
        }
        Ok(())
    }

    /// Emits what is pending and what waits, a few frames of it.
    fn go_on(&mut self, out: &mut Outbox) -> Result<Progress> {
        for _ in 0..FRAMES {
            if let Some(mut pending) = self.pending.take() {
                let (rows, positions) = self.index.next_pairs(&mut pending.matches, FRAME_ROWS);
                if !rows.is_empty() {
                    let left = taken(&pending.left, rows)?;
                    out.push(self.joined.rows(&left, self.index.store(), &positions)?);
                }
                if !pending.matches.is_over() {
                    self.pending = Some(pending);
                }
                continue;
            }
            if !self.is_loaded {
                return Ok(Progress::Done);
            }
            if self.index.is_behind() {
                self.index.catch_up()?;
                continue;
            }
            match self.waiting.pop_front() {
                Some((left, _)) => self.look_up(left, out)?,
                None => return Ok(Progress::Done),
            }
        }
        Ok(Progress::More)
    }

    /// Brings the left records of the state up to date.
    fn write_waiting(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            self.waiting_runs.clear(&mut self.backend);
        }
        for (left, is_written) in self.waiting.iter_mut().filter(|(_, is_written)| !is_written) {
            self.left.encode(left.data().columns(), left.rows())?;
            let hashes = self.left.encoder().batch().hashes();
            self.waiting_runs.write(&mut self.backend, &Written { batch: left, hashes, rows: None })?;
            *is_written = true;
        }
        Ok(())
    }
}

impl Operator for Enrich {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        if input != LEFT {
            self.index.insert(&batch, self.is_persistent.then_some(&mut self.backend))?;
            return Ok(Progress::Done);
        }
        self.waiting.push_back((batch, false));
        self.go_on(out)
    }

    fn on_input_end(&mut self, input: usize, out: &mut Outbox) -> Result<Progress> {
        if input != LEFT {
            self.is_loaded = true;
            self.index.settle();
        }
        self.go_on(out)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
    }

    fn combine(&self, times: &Watermarks) -> Watermark {
        times.of(LEFT)
    }

    fn earliest_result(&self) -> Watermark {
        // Nothing has gone on before the right side has ended, so nothing has been said of time either.
        if self.is_loaded && self.waiting.is_empty() { Watermark::MAX } else { Watermark::MIN }
    }

    fn wants(&self, input: usize) -> bool {
        input != LEFT || self.is_loaded || self.until_loaded != UntilLoaded::Hold
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.write_waiting()?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.index.next_run().to_le_bytes());
        bytes.extend_from_slice(&self.waiting_runs.next().to_le_bytes());
        bytes.extend_from_slice(&self.backend.snapshot(snapshot.is_full, &mut snapshot.blocks));
        snapshot.bytes = Some(self.described.of(&bytes));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let damaged = || Error::checkpoint("the state of enrich() is damaged: it ends too early");
        let mut descriptions = Vec::with_capacity(restored.bytes.len());
        for bytes in &restored.bytes {
            let (table, rest) = own(bytes)?.split_first_chunk::<8>().ok_or_else(damaged)?;
            let (waiting, description) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
            self.index.restored_run(u64::from_le_bytes(*table));
            self.waiting_runs.restored(u64::from_le_bytes(*waiting));
            descriptions.push(description);
        }
        if descriptions.is_empty() {
            return Ok(());
        }
        self.backend.restore(&descriptions, &restored.blocks).map_err(state_error)?;
        self.index.restore(&self.backend)?;
        self.waiting.extend(self.waiting_runs.read(&self.backend)?.map(|left| (left, true)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
