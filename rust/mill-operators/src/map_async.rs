//! `map_async`, `map_batches_async`: a user's asynchronous function of records.
//!
//! ```text
//!   batch ──► Waiting: parts with a ticket a record ──start, as many as capacity allows──► AsyncTask
//!                │ not settled: in the snapshot                                               │ wakes
//!                ▼                                                                            ▼
//!             least event time: no watermark beyond it          answers ──► as they come, or in the order of tickets
//! ```
//!
//! The operator never waits: it takes records and returns, and the runtime calls it again when it was woken. So a barrier
//! can pass while calls are in flight. A record is *settled* once its results have been emitted, or it was rejected. Those
//! that are not settled are the state. After a restart they are called again, whether they had been answered or not.
//!
//! Invariants:
//!
//! - A ticket is settled once. An answer to any other one is a broken rule of the function's adapter, and an error.
//! - At most `capacity` calls are in flight. Where results come in order, those that wait for an earlier one count as well, so
//!   that one slow call does not let results pile up.
//! - No watermark beyond the least event time of the records that are not settled is passed on.
//! - While calls are in flight and records wait for their turn, no further records are taken, but those before a barrier; and
//!   none at all while [`ROWS_MAX`] wait.

mod ordered;
mod waiting;

use std::sync::Arc;
use std::task::Waker;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use mill_plan::{AsyncAnswers, AsyncCalls, AsyncStage, AsyncTask, type_name};
use mill_protocol::{
    Batch, Epoch, Error, Operator, Outbox, Progress, Rejected, Restored, Result, Room, Snapshot, TaskContext, Watermark,
};

use self::ordered::Ordered;
use self::waiting::Waiting;

/// How many records wait in a task at most, for their turn or their answer.
const ROWS_MAX: usize = 1 << 20;

/// Calls a user's asynchronous function.
pub(crate) struct MapAsync {
    name: String,
    task: Box<dyn AsyncTask>,
    calls: AsyncCalls,
    schema: SchemaRef,
    waiting: Waiting,
    /// The answers that wait for earlier ones, where results come in order.
    ordered: Option<Ordered>,
    /// How many calls have been started and have not ended.
    in_flight: usize,
    /// Which instance this is, and of how many.
    place: (usize, usize),
    waker: Waker,
}

impl MapAsync {
    pub(crate) fn new(stage: &AsyncStage, schema: SchemaRef, context: &TaskContext) -> Result<MapAsync> {
        Ok(MapAsync {
            name: stage.function.name(),
            task: stage.function.open(context.waker.clone())?,
            calls: stage.calls,
            schema,
            waiting: Waiting::new(SchemaRef::clone(&stage.records)),
            ordered: stage.calls.is_ordered.then(Ordered::default),
            in_flight: 0,
            place: (context.index, context.parallelism),
            waker: context.waker.clone(),
        })
    }

    /// How many calls count towards the capacity.
    fn occupied(&self) -> usize {
        self.ordered.as_ref().map_or(self.in_flight, Ordered::calls)
    }

    /// Starts on records that wait for their turn, as far as the capacity allows.
    fn start(&mut self) -> Result<()> {
        loop {
            let room = self.calls.capacity.saturating_sub(self.occupied());
            if room == 0 {
                return Ok(());
            }
            let Some((first, records)) = self.waiting.next(self.calls.batch_rows.unwrap_or(room)) else { return Ok(()) };
            let rows = records.num_rows();
            let calls = if self.calls.batch_rows.is_some() { 1 } else { rows };
            self.in_flight += calls;
            if let Some(ordered) = &mut self.ordered {
                ordered.start(first, rows, calls);
            }
            self.task.start(first, &records)?;
        }
    }

    /// Takes the answers that have come, emits what can be emitted, and starts on others.
    fn go_on(&mut self, out: &mut Outbox) -> Result<()> {
        let AsyncAnswers { results, failed, answered, calls } = self.task.take()?;
        if answered.is_empty() && calls == 0 {
            return self.start();
        }
        self.in_flight = self.in_flight.checked_sub(calls).ok_or_else(|| self.broken("more calls ended than were started"))?;
        for (tickets, reason) in failed {
            for ticket in tickets {
                let record = self.waiting.record_json(ticket).ok_or_else(|| self.broken("a record failed that is not there"))?;
                out.reject(Rejected { record, ..reason.clone() });
                self.waiting.settle(ticket);
            }
        }
        let results = results.into_iter().map(|(data, origin)| Ok((self.with_schema(data)?, origin)));
        let results = results.collect::<Result<Vec<_>>>()?;
        match &mut self.ordered {
            None => {
                for (data, origin) in results {
                    self.waiting.emit(&data, &origin, out).map_err(|what| broken(&self.name, what))?;
                }
                answered.into_iter().flatten().for_each(|ticket| self.waiting.settle(ticket));
            }
            Some(ordered) => {
                ordered.take(results, answered).map_err(|what| broken(&self.name, what))?;
                let ready = ordered.ready();
                if let Some((data, origin)) = ready.rows {
                    self.waiting.emit(&data, &origin, out).map_err(|what| broken(&self.name, what))?;
                }
                ready.tickets.for_each(|ticket| self.waiting.settle(ticket));
            }
        }
        self.waiting.drop_settled();
        self.start()
    }

    /// The columns under the planned schema, which may know more of them (metadata) than the function does.
    fn with_schema(&self, data: RecordBatch) -> Result<RecordBatch> {
        let found = data.schema();
        let types = |schema: &SchemaRef| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if types(&found) != types(&self.schema) {
            let shown = |schema: &SchemaRef| types(schema).iter().map(type_name).collect::<Vec<_>>().join(", ");
            let what = format!("it returned columns of ({}), and its schema has ({})", shown(&found), shown(&self.schema));
            return Err(broken(&self.name, &what));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(data.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), data.columns().to_vec(), &options)
            .map_err(|error| Error::schema(format!("{} returned columns that do not fit: {error}", self.name)))
    }

    fn broken(&self, what: &str) -> Error {
        broken(&self.name, what)
    }

    fn progress(&self) -> Progress {
        if self.waiting.is_empty() { Progress::Done } else { Progress::Pending }
    }
}

/// A broken rule of the adapter of a function.
fn broken(name: &str, what: &str) -> Error {
    Error::internal(format!("{name}: {what}"))
}

impl Operator for MapAsync {
    fn on_batch(&mut self, _input: usize, batch: Batch, _out: &mut Outbox) -> Result<Progress> {
        self.waiting.push(batch);
        self.start()?;
        Ok(Progress::Done)
    }

    fn room(&self) -> Room {
        match self.waiting.rows() {
            rows if rows >= ROWS_MAX => Room::No,
            _ if self.waiting.has_next() => Room::ForBarrier,
            _ => Room::ForAll,
        }
    }

    fn can_replay(&self) -> bool {
        false
    }

    fn awaits(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn on_wake(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)?;
        Ok(Progress::Done)
    }

    fn earliest_result(&self) -> Watermark {
        self.waiting.earliest()
    }

    fn on_barrier(&mut self, _epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        // What has been answered by now need not be called again.
        self.go_on(out)?;
        Ok(Progress::Done)
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.resume(out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)?;
        Ok(self.progress())
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        snapshot.bytes = Some(self.waiting.write()?);
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let (index, parallelism) = self.place;
        for bytes in restored.bytes.iter().skip(index).step_by(parallelism) {
            self.waiting.read(bytes)?;
        }
        if !self.waiting.is_empty() {
            // Nothing else calls the operator before its next record.
            self.waker.wake_by_ref();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
