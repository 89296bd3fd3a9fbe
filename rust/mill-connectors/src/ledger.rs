//! A sink in memory that shows a test what has been committed and what is pending.
//!
//! ```text
//!   write ──► open ── pre-commit ──► prepared ── commit ──► committed ── take ──► the test
//!              └──── a kill removes what no checkpoint names ────┘
//! ```
//!
//! It outlives the runs of a job, as a database would, and keeps rows in the order in which they were written. A sink that
//! is *immediate* has no such states: rows are committed as they arrive, and are emitted again after a restart.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Batch, Commit, Committer, Epoch, Error, PreCommit, Recovered, Result, Sink, SinkKind, SinkWriter, TaskContext,
};

use crate::collect::Collected;
use crate::latest::{Change, LatestRows};

/// A sink whose output a [`Ledger`] shows.
#[derive(Clone)]
pub struct LedgerSink {
    shared: Arc<Shared>,
}

/// What a [`LedgerSink`] has taken.
pub struct Ledger {
    shared: Arc<Shared>,
    schema: SchemaRef,
    /// In an updating stream: the table that the rows taken so far leave.
    latest: Option<LatestRows>,
}

/// Rows, in the order in which they were written.
#[derive(Debug)]
pub struct Entries {
    /// The columns.
    pub batches: Vec<RecordBatch>,
    /// In an updating stream: what each row does to its key.
    pub changes: Option<Vec<Change>>,
}

struct Shared {
    is_immediate: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last numbers that were used.
    writer: u64,
    handle: u64,
    pending: Vec<Pending>,
    committed: Vec<Collected>,
}

/// Rows that are not committed.
struct Pending {
    writer: u64,
    /// Set once they are prepared.
    handle: Option<u64>,
    rows: Collected,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the rows whole: every change is a single push or one pass.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        let handles = commits.iter().map(|commit| {
            let bytes = commit.handle.as_slice().try_into();
            bytes.map(u64::from_le_bytes).map_err(|_| Error::checkpoint("a handle of the results of a test is damaged"))
        });
        let handles = handles.collect::<Result<Vec<_>>>()?;
        // Rows that are not there any more were committed before.
        let is_due = |pending: &mut Pending| pending.handle.is_some_and(|handle| handles.contains(&handle));
        self.committed.extend(self.pending.extract_if(.., is_due).map(|pending| pending.rows));
        Ok(())
    }
}

impl LedgerSink {
    /// A sink for a stream of these columns, and what shows its output. `key` is set in an updating stream.
    ///
    /// # Errors
    /// When a key column does not exist.
    pub fn new(schema: SchemaRef, key: Option<&[String]>, is_immediate: bool) -> Result<(LedgerSink, Ledger)> {
        let latest = key.map(|key| LatestRows::new(Arc::clone(&schema), key)).transpose()?;
        let shared = Arc::new(Shared { is_immediate, state: Mutex::new(State::default()) });
        Ok((LedgerSink { shared: Arc::clone(&shared) }, Ledger { shared, schema, latest }))
    }
}

impl Ledger {
    /// Takes the rows that have been committed since the last call.
    ///
    /// # Errors
    /// When rows do not fit the table that they update.
    pub fn take(&mut self) -> Result<Entries> {
        let taken = std::mem::take(&mut self.shared.lock().committed);
        entries(taken, self.latest.as_mut())
    }

    /// The rows that are not committed yet.
    ///
    /// # Errors
    /// When rows do not fit the table that they update.
    pub fn pending(&mut self, key: Option<&[String]>) -> Result<Entries> {
        let state = self.shared.lock();
        let pending: Vec<Collected> = state.pending.iter().map(|pending| pending.rows.clone()).collect();
        let committed = state.committed.clone();
        drop(state);
        let (Some(latest), Some(key)) = (&mut self.latest, key) else { return entries(pending, None) };
        let mut table = LatestRows::new(Arc::clone(&self.schema), key)?;
        table.push(latest.table()?, None)?;
        for rows in committed {
            table.push(rows.data, rows.deletes.as_ref())?;
        }
        entries(pending, Some(&mut table))
    }

    /// Of an updating stream: the latest row of each key among those that were taken.
    ///
    /// # Errors
    /// When the rows outgrow what one batch can hold.
    pub fn latest(&mut self) -> Result<Option<RecordBatch>> {
        self.latest.as_mut().map(LatestRows::table).transpose()
    }
}

fn entries(rows: Vec<Collected>, latest: Option<&mut LatestRows>) -> Result<Entries> {
    let changes = match latest {
        None => None,
        Some(latest) => {
            let mut changes = Vec::new();
            for rows in &rows {
                latest.push_with(rows.data.clone(), rows.deletes.as_ref(), |change| changes.push(change))?;
            }
            Some(changes)
        }
    };
    Ok(Entries { batches: rows.into_iter().map(|rows| rows.data).collect(), changes })
}

impl fmt::Debug for LedgerSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerSink").field("is_immediate", &self.shared.is_immediate).finish_non_exhaustive()
    }
}

impl Sink for LedgerSink {
    fn name(&self) -> String {
        "testing.collect()".to_owned()
    }

    fn kind(&self) -> SinkKind {
        if self.shared.is_immediate { SinkKind::Immediate } else { SinkKind::Transactional }
    }

    fn check(&self, _schema: &SchemaRef, _key: Option<&[String]>) -> Result<()> {
        Ok(())
    }

    fn writer(&self, _schema: &SchemaRef, _context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        let mut state = self.shared.lock();
        state.writer += 1;
        Ok(Box::new(LedgerWriter { shared: Arc::clone(&self.shared), number: state.writer }))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(LedgerCommitter { shared: Arc::clone(&self.shared) }))
    }
}

struct LedgerWriter {
    shared: Arc<Shared>,
    number: u64,
}

impl SinkWriter for LedgerWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        let rows = Collected { data: batch.data().clone(), deletes: batch.deletes().cloned() };
        let mut state = self.shared.lock();
        if self.shared.is_immediate {
            state.committed.push(rows);
        } else {
            state.pending.push(Pending { writer: self.number, handle: None, rows });
        }
        Ok(())
    }

    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        let mut state = self.shared.lock();
        let handle = state.handle + 1;
        let mut is_any = false;
        for pending in &mut state.pending {
            if pending.writer == self.number && pending.handle.is_none() {
                pending.handle = Some(handle);
                is_any = true;
            }
        }
        if !is_any {
            return Ok(None);
        }
        state.handle = handle;
        Ok(Some(Box::new(move || Ok(handle.to_le_bytes().to_vec()))))
    }
}

struct LedgerCommitter {
    shared: Arc<Shared>,
}

impl Committer for LedgerCommitter {
    fn begin(&mut self) -> Result<()> {
        self.shared.lock().pending.clear();
        Ok(())
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        self.shared.lock().commit(commits)
    }

    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        let mut state = self.shared.lock();
        state.commit(recovered.commits)?;
        state.pending.clear();
        Ok(())
    }

    fn abort(&mut self) -> Result<()> {
        self.shared.lock().pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
