//! Hands results to the caller: the basis of `collect`, `iter_batches` and `show`.
//!
//! ```text
//!   writers (one a task) ──► bounded queue of batches ──► CollectReceiver on the caller's thread
//! ```
//!
//! The queue is bounded, so a caller that is slower than the job holds the job back: `is_ready` is false while the
//! queue is full. Dropping the receiver, or reaching the limit, finishes the writers. Records count as delivered when
//! they enter the queue; a job that starts over after the caller has taken some is an error rather than duplicates.
//!
//! The caller sleeps until it has what it waits for: one batch for [`receive`](CollectReceiver::receive), the end for
//! [`receive_all`](CollectReceiver::receive_all). Writers wake it then and not once a batch, and the last writer that
//! goes wakes it in any case.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Batch, Commit, Committer, Epoch, Error, PreCommit, Recovered, Result, Sink, SinkKind, SinkWriter, TaskContext,
};

/// How long a blocked writer sleeps before it looks again whether anyone still reads.
const FULL_WAIT: Duration = Duration::from_millis(50);

/// Records as they reach the caller.
#[derive(Clone, Debug)]
pub struct Collected {
    /// The columns.
    pub data: RecordBatch,
    /// In an updating stream: which rows withdraw the row of their key.
    pub deletes: Option<BooleanBuffer>,
}

/// What a receiver got.
#[derive(Debug)]
pub enum Received {
    /// Records.
    Batch(Collected),
    /// Nothing came in the time given. The job may still run: ask it.
    Nothing,
    /// All writers are gone: the job has ended, or is about to start again. Ask it.
    Ended,
    /// The limit is reached; nothing more comes.
    Finished,
}

/// A sink that hands its records to a [`CollectReceiver`].
#[derive(Clone)]
pub struct CollectSink {
    shared: Arc<Shared>,
}

/// The caller's end of a [`CollectSink`].
pub struct CollectReceiver {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    limit: u64,
}

#[derive(Default)]
struct State {
    batches_max: usize,
    queue: VecDeque<Collected>,
    /// Rows that entered the queue; never above the limit.
    rows: u64,
    /// Whether the receiver has taken any.
    is_taken: bool,
    /// Whether the receiver is gone.
    is_closed: bool,
    key: Option<Vec<String>>,
    /// Writers that live; `None` before the first.
    writers: Option<usize>,
    /// How many batches the sleeping receiver waits for; 0 if it does not sleep.
    wanted: usize,
    /// The writers that have found no room.
    waiting: Vec<Waker>,
}

impl State {
    fn has_ended(&self) -> bool {
        self.writers == Some(0)
    }

    /// Lets those look again that have found no room.
    fn wake_writers(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the queue whole: every change is a single push or pop.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_finished(&self, state: &State) -> bool {
        state.is_closed || state.rows >= self.limit
    }
}

impl CollectSink {
    /// A sink and its receiver: at most `limit` rows, at most `batches_max` batches waiting.
    pub fn new(limit: Option<u64>, batches_max: usize) -> (CollectSink, CollectReceiver) {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { batches_max: batches_max.max(1), ..State::default() }),
            changed: Condvar::new(),
            limit: limit.unwrap_or(u64::MAX),
        });
        (CollectSink { shared: Arc::clone(&shared) }, CollectReceiver { shared })
    }
}

impl fmt::Debug for CollectSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectSink").field("limit", &self.shared.limit).finish()
    }
}

impl fmt::Debug for CollectReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectReceiver").finish_non_exhaustive()
    }
}

impl CollectReceiver {
    /// The next records, waiting for them up to this long.
    pub fn receive(&self, timeout: Duration) -> Received {
        let mut state = self.wait(timeout, 1);
        if let Some(collected) = state.queue.pop_front() {
            state.is_taken = true;
            self.shared.changed.notify_all();
            state.wake_writers();
            return Received::Batch(collected);
        }
        self.standing(&state)
    }

    /// Takes all there are, after waiting up to this long for the end; returns what follows them, which is never a batch.
    /// The queue has no bound from now on: who takes everything has room for everything.
    pub fn receive_all(&self, timeout: Duration, into: &mut Vec<Collected>) -> Received {
        let mut state = self.shared.lock();
        state.batches_max = usize::MAX;
        state.wake_writers();
        drop(state);
        self.shared.changed.notify_all();
        let mut state = self.wait(timeout, usize::MAX);
        state.is_taken |= !state.queue.is_empty();
        into.extend(state.queue.drain(..));
        self.standing(&state)
    }

    /// Sleeps until that many batches are there, none will come, or the time is over.
    fn wait(&self, timeout: Duration, wanted: usize) -> MutexGuard<'_, State> {
        let until = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while state.queue.len() < wanted && state.rows < self.shared.limit && !state.has_ended() {
            let now = Instant::now();
            if now >= until {
                break;
            }
            state.wanted = wanted;
            state = self.shared.changed.wait_timeout(state, until - now).unwrap_or_else(PoisonError::into_inner).0;
            state.wanted = 0;
        }
        state
    }

    fn standing(&self, state: &State) -> Received {
        if state.rows >= self.shared.limit {
            Received::Finished
        } else if state.has_ended() {
            Received::Ended
        } else {
            Received::Nothing
        }
    }

    /// The key columns, if the stream is an updating one; known once the plan was checked.
    pub fn key(&self) -> Option<Vec<String>> {
        self.shared.lock().key.clone()
    }
}

impl Drop for CollectReceiver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closed = true;
        state.queue.clear();
        state.wake_writers();
        self.shared.changed.notify_all();
    }
}

impl Sink for CollectSink {
    fn name(&self) -> String {
        match self.shared.limit {
            u64::MAX => "collect()".to_owned(),
            limit => format!("collect(limit={limit})"),
        }
    }

    fn kind(&self) -> SinkKind {
        SinkKind::Immediate
    }

    fn check(&self, _schema: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        self.shared.lock().key = key.map(<[String]>::to_vec);
        Ok(())
    }

    fn writer(&self, _schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        *self.shared.lock().writers.get_or_insert(0) += 1;
        Ok(Box::new(CollectWriter { shared: Arc::clone(&self.shared), waker: context.waker.clone() }))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(CollectCommitter { shared: Arc::clone(&self.shared) }))
    }
}

struct CollectWriter {
    shared: Arc<Shared>,
    /// Wakes its task when there may be room.
    waker: Waker,
}

impl SinkWriter for CollectWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let mut state = self.shared.lock();
        while state.queue.len() >= state.batches_max && !self.shared.is_finished(&state) {
            state = self.shared.changed.wait_timeout(state, FULL_WAIT).unwrap_or_else(PoisonError::into_inner).0;
        }
        if self.shared.is_finished(&state) {
            return Ok(());
        }
        let rows = (batch.rows() as u64).min(self.shared.limit - state.rows);
        let batch = batch.slice(0, rows as usize);
        state.rows += rows;
        state.queue.push_back(Collected { data: batch.data().clone(), deletes: batch.deletes().cloned() });
        if self.shared.is_finished(&state) {
            state.wake_writers();
        }
        if state.wanted > 0 && (state.queue.len() >= state.wanted || self.shared.is_finished(&state)) {
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        Ok(None)
    }

    fn is_ready(&self) -> bool {
        let mut state = self.shared.lock();
        let is_ready = state.queue.len() < state.batches_max || self.shared.is_finished(&state);
        if !is_ready && !state.waiting.iter().any(|waker| waker.will_wake(&self.waker)) {
            state.waiting.push(self.waker.clone());
        }
        is_ready
    }

    fn is_finished(&self) -> bool {
        self.shared.is_finished(&self.shared.lock())
    }
}

impl Drop for CollectWriter {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.writers = state.writers.map(|writers| writers.saturating_sub(1));
        if state.has_ended() {
            self.shared.changed.notify_all();
        }
    }
}

struct CollectCommitter {
    shared: Arc<Shared>,
}

impl Committer for CollectCommitter {
    fn begin(&mut self) -> Result<()> {
        let mut state = self.shared.lock();
        if state.is_taken {
            return Err(Error::connector(
                "the job started anew after records had been handed to the caller: they would come twice; \
                 write to a sink that is committed instead",
            ));
        }
        state.queue.clear();
        state.rows = 0;
        Ok(())
    }

    fn commit(&mut self, _commits: &[Commit]) -> Result<()> {
        Ok(())
    }

    fn recover(&mut self, _recovered: &Recovered<'_>) -> Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
