//! `join_asof`: joins each left row with the newest right row of its key that is not after it.
//!
//! ```text
//!   right rows ──► versions of each key, by event time            `versions`
//!   left rows  ──► before the right watermark:  answered at once
//!             └──► the others wait until it has passed them       `waiting`
//! ```
//!
//! Once the right watermark has passed a time, no right row of that time or an earlier one comes any more, but late ones. So a
//! left row that is before the watermark has its final answer, in whatever order the right rows came. Of right rows of the
//! same time the one that came last counts.
//!
//! A left row that is on time is never before both watermarks, so of each key the newest version at or before the lesser
//! one and all later ones are kept, within the tolerance. Rows that are older than the watermark of their own split are late:
//! left ones go to port 1 and right ones to port 2. So the result does not depend on when versions are dropped.
//!
//! Versions that can no longer be needed are not searched for at each watermark, but once there may be as many of them as
//! of the others. Then the rest is rewritten.

mod versions;
mod waiting;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mill_plan::{How, LookupPlan};
use mill_protocol::{Batch, Error, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark};
use mill_state::StateBackend;

use crate::accumulator::state_error;
use crate::description::{Described, Description, Shape, own};
use crate::join::late::push_late;
use crate::pair::{Joined, Runs, split_late, taken};
use versions::Versions;
use waiting::Waiting;

/// The number of the left input.
const LEFT: usize = 0;
/// The number of the right input.
const RIGHT: usize = 1;
/// The port of left rows that came too late.
const LEFT_LATE: usize = 1;
/// The port of right rows that came too late.
const RIGHT_LATE: usize = 2;
/// How many frames are emitted at a time.
const FRAMES: usize = 8;

/// Finds the version of each left row.
pub(crate) struct AsofJoin {
    how: How,
    /// How many columns of each input are not computed for the join.
    own: [usize; 2],
    backend: StateBackend,
    is_persistent: bool,
    versions: Versions,
    waiting: Waiting,
    joined: Joined,
    left_watermark: i64,
    right_watermark: i64,
    described: Described,
}

impl AsofJoin {
    /// An instance whose results have these columns.
    pub(crate) fn new(
        schema: &SchemaRef,
        context: &TaskContext,
        plan: &LookupPlan,
        tolerance_us: Option<i64>,
    ) -> Result<AsofJoin> {
        if !matches!(plan.how, How::Inner | How::Left) {
            return Err(Error::internal(format!("an as-of join with how={:?}", plan.how)));
        }
        let [left, right] = &plan.inputs;
        let mut backend = StateBackend::new(context.groups.clone(), context.is_persistent);
        let versions = Runs::new(&mut backend, "versions", right, false)?;
        let waiting = Runs::new(&mut backend, "waiting", left, true)?;
        let shape = Shape::Asof { left: Arc::clone(left), keys: plan.keys.clone(), tolerance_us };
        let described = Description { schema: Arc::clone(right), keeps_pending: false, shape }.described();
        Ok(AsofJoin {
            how: plan.how,
            own: plan.own,
            is_persistent: context.is_persistent,
            versions: Versions::new(plan, tolerance_us, context, versions)?,
            waiting: Waiting::new(left, &plan.keys[LEFT], waiting)?,
            joined: Joined::new(schema, &plan.columns)?,
            left_watermark: i64::MIN,
            right_watermark: i64::MIN,
            backend,
            described,
        })
    }

    /// Right rows of a state, as it is read: all that are kept.
    pub(crate) fn kept(&mut self) -> Result<Vec<RecordBatch>> {
        self.versions.drop_before(self.left_watermark.min(self.right_watermark), &mut self.backend, false)?;
        self.versions.all()
    }

    fn take_right(&mut self, batch: &Batch, out: &mut Outbox) -> Result<()> {
        let rest = match split_late(batch, self.right_watermark)? {
            None => batch.clone(),
            Some((late, rest)) => {
                push_late(RIGHT_LATE, batch, self.own[RIGHT], late, out)?;
                taken(batch, rest)?
            }
        };
        self.versions.insert(&rest, self.is_persistent.then_some(&mut self.backend))?;
        self.versions.compact(self.left_watermark.min(self.right_watermark), &mut self.backend, self.is_persistent)
    }

    fn take_left(&mut self, batch: &Batch, out: &mut Outbox) -> Result<()> {
        let rest = match split_late(batch, self.left_watermark)? {
            None => batch.clone(),
            Some((late, rest)) => {
                push_late(LEFT_LATE, batch, self.own[LEFT], late, out)?;
                taken(batch, rest)?
            }
        };
        if let Some(due) = self.waiting.push(rest.with_behind(None), self.right_watermark)? {
            self.answer(&due, out)?;
        }
        Ok(())
    }

    fn answer(&mut self, left: &Batch, out: &mut Outbox) -> Result<()> {
        let positions = self.versions.probe(left)?;
        let store = self.versions.store();
        out.push(match self.how {
            How::Inner => self.joined.matching_rows(left, store, positions)?,
            _ => self.joined.rows(left, store, &positions)?,
        });
        Ok(())
    }

    /// Answers rows that wait, a few frames of them.
    fn release(&mut self, out: &mut Outbox) -> Result<Progress> {
        for _ in 0..FRAMES {
            match self.waiting.pop(self.right_watermark)? {
                Some(due) => self.answer(&due, out)?,
                None => return Ok(Progress::Done),
            }
        }
        Ok(Progress::More)
    }
}

/// The event times of records.
fn times_of(batch: &Batch) -> Result<&[i64]> {
    batch.times().map(|times| &times[..]).ok_or_else(|| Error::internal("a join by time needs event time"))
}

impl Operator for AsofJoin {
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        match input {
            LEFT => self.take_left(&batch, out)?,
            _ => self.take_right(&batch, out)?,
        }
        Ok(Progress::Done)
    }

    fn on_watermark(&mut self, input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        if input == LEFT {
            self.left_watermark = self.left_watermark.max(at.0);
            return Ok(Progress::Done);
        }
        self.right_watermark = self.right_watermark.max(at.0);
        self.waiting.look_again(self.right_watermark);
        self.release(out)
    }

    fn on_input_end(&mut self, input: usize, _out: &mut Outbox) -> Result<Progress> {
        if input == RIGHT {
            self.versions.settle();
        }
        Ok(Progress::Done)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.release(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        self.waiting.write(&mut self.backend, self.right_watermark)?;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.left_watermark.to_le_bytes());
        bytes.extend_from_slice(&self.right_watermark.to_le_bytes());
        bytes.extend_from_slice(&self.versions.next_run().to_le_bytes());
        bytes.extend_from_slice(&self.waiting.next_run().to_le_bytes());
        bytes.extend_from_slice(&self.backend.snapshot(snapshot.is_full, &mut snapshot.blocks));
        snapshot.bytes = Some(self.described.of(&bytes));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let damaged = || Error::checkpoint("the state of join_asof() is damaged: it ends too early");
        let mut descriptions = Vec::with_capacity(restored.bytes.len());
        // At an aligned barrier all instances have the same watermarks; without alignment nothing may be lost.
        let (mut left, mut right) = (i64::MAX, i64::MAX);
        for bytes in &restored.bytes {
            let mut rest = own(bytes)?;
            let mut word = || {
                let (word, after) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
                rest = after;
                Ok::<u64, Error>(u64::from_le_bytes(*word))
            };
            (left, right) = (left.min(word()? as i64), right.min(word()? as i64));
            let (versions, waiting) = (word()?, word()?);
            self.versions.restored_run(versions);
            self.waiting.restored_run(waiting);
            descriptions.push(rest);
        }
        if descriptions.is_empty() {
            return Ok(());
        }
        (self.left_watermark, self.right_watermark) = (left, right);
        self.backend.restore(&descriptions, &restored.blocks).map_err(state_error)?;
        self.versions.restore(&self.backend)?;
        self.waiting.restore(&self.backend, right)
    }
}

#[cfg(test)]
mod tests;
