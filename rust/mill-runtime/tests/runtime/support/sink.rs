use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arrow::datatypes::SchemaRef;
use mill_protocol::{
    Batch, Commit, Committer, Epoch, Error, PreCommit, Recovered, Result, Sink, SinkKind, SinkWriter, TaskContext,
};

use super::rows_of;

/// What is outside the process: it outlives a kill.
#[derive(Debug, Default)]
pub struct Target {
    pub visible: Vec<Vec<i64>>,
    prepared: BTreeMap<Vec<u8>, Vec<Vec<i64>>>,
    committed: BTreeSet<Vec<u8>>,
    transactions: u64,
    pub aborts: u64,
    pub begins: u64,
    pub recoveries: u64,
    /// Pre-commits fail while this is set.
    pub is_broken: bool,
}

impl Target {
    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        for commit in commits {
            match self.prepared.remove(&commit.handle) {
                Some(rows) => {
                    self.visible.extend(rows);
                    self.committed.insert(commit.handle.clone());
                }
                None if self.committed.contains(&commit.handle) => {}
                None => return Err(Error::connector(format!("transaction {:?} is gone", commit.handle))),
            }
        }
        Ok(())
    }

    pub fn has_prepared(&self) -> bool {
        !self.prepared.is_empty()
    }
}

/// A transactional sink into memory.
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    pub target: Arc<Mutex<Target>>,
}

impl MemorySink {
    pub fn sorted(&self) -> Vec<Vec<i64>> {
        let mut rows = self.target.lock().unwrap().visible.clone();
        rows.sort();
        rows
    }
}

impl Sink for MemorySink {
    fn name(&self) -> String {
        "to_memory()".to_owned()
    }
    fn kind(&self) -> SinkKind {
        SinkKind::Transactional
    }
    fn check(&self, _schema: &SchemaRef, _key: Option<&[String]>) -> Result<()> {
        Ok(())
    }
    fn writer(&self, _schema: &SchemaRef, _context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer { target: self.target.clone(), rows: Vec::new() }))
    }
    fn committer(&self) -> Result<Box<dyn Committer>> {
        Ok(Box::new(MemoryCommitter(self.target.clone())))
    }
}

struct Writer {
    target: Arc<Mutex<Target>>,
    rows: Vec<Vec<i64>>,
}

impl SinkWriter for Writer {
    fn write(&mut self, batch: Batch) -> Result<()> {
        self.rows.extend(rows_of(batch.data()));
        Ok(())
    }
    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        if self.rows.is_empty() {
            return Ok(None);
        }
        let (rows, target) = (std::mem::take(&mut self.rows), self.target.clone());
        Ok(Some(Box::new(move || {
            let mut target = target.lock().unwrap();
            if target.is_broken {
                return Err(Error::connector("the target is broken"));
            }
            target.transactions += 1;
            let handle = target.transactions.to_le_bytes().to_vec();
            target.prepared.insert(handle.clone(), rows);
            Ok(handle)
        })))
    }
}

struct MemoryCommitter(Arc<Mutex<Target>>);

impl Committer for MemoryCommitter {
    fn begin(&mut self) -> Result<()> {
        let mut target = self.0.lock().unwrap();
        target.begins += 1;
        target.prepared.clear();
        Ok(())
    }
    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        self.0.lock().unwrap().commit(commits)
    }
    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        let mut target = self.0.lock().unwrap();
        target.recoveries += 1;
        target.commit(recovered.commits)?;
        target.prepared.clear();
        Ok(())
    }
    fn abort(&mut self) -> Result<()> {
        let mut target = self.0.lock().unwrap();
        target.aborts += 1;
        target.prepared.clear();
        Ok(())
    }
}
