//! Sinks: where results go, and how they become visible exactly once.

use std::fmt;
use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use mill_frame::Batch;

use crate::error::Result;
use crate::operator::TaskContext;
use crate::snapshot::Epoch;

/// How a sink keeps its guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkKind {
    /// Keyed upserts: writing the same rows again changes nothing.
    Idempotent,
    /// Two-phase commit: written but hidden, made visible after the checkpoint is durable.
    Transactional,
    /// Output is kept in the checkpoint, delivered after it, and the epoch is recorded in the target with it.
    WriteAhead,
    /// Output is kept in the checkpoint and delivered after it; the target cannot record the epoch, so the last epoch
    /// may be delivered again after a crash.
    WriteAheadAtLeastOnce,
    /// Records are delivered as they come (a Python callback, the terminal): after a crash some are delivered again.
    Immediate,
}

/// Makes what was written durable; runs on a background thread and gives the handle that the checkpoint stores.
pub type PreCommit = Box<dyn FnOnce() -> Result<Vec<u8>> + Send>;

/// One handle that a checkpoint holds for a sink.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The epoch whose output it is.
    pub epoch: Epoch,
    /// What [`PreCommit`] gave.
    pub handle: Vec<u8>,
}

/// A description of a sink.
pub trait Sink: Send + Sync + fmt::Debug {
    /// What it is, for messages and `explain()`: `write_parquet("out/")`.
    fn name(&self) -> String;

    /// How it keeps its guarantee.
    fn kind(&self) -> SinkKind;

    /// Checks that it can take this stream, before anything runs. `key` is set in an updating stream: the columns whose
    /// latest row counts.
    fn check(&self, schema: &SchemaRef, key: Option<&[String]>) -> Result<()>;

    /// The highest parallelism it can be written with, if limited.
    fn parallelism_max(&self) -> Option<usize> {
        None
    }

    /// A file that it writes, or one like those it will write, if it writes files: a job must not read what it writes.
    fn writes(&self) -> Option<PathBuf> {
        None
    }

    /// Opens one writer.
    fn writer(&self, schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>>;

    /// Opens what commits and cleans up; one a job, driven by the coordinator and never by a worker.
    fn committer(&self) -> Result<Box<dyn Committer>>;
}

/// Writes one task's share of the output.
pub trait SinkWriter: Send {
    /// Writes records; hidden until committed, if the sink can.
    fn write(&mut self, batch: Batch) -> Result<()>;

    /// Ends the output of this epoch. `None` if nothing was written since the last.
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<PreCommit>>;

    /// Whether it takes records now; the runtime asks before each [`write`](SinkWriter::write) and holds the records back
    /// while it does not (a consumer that is slower than the job). A `write` all the same may block.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether it needs no further input (a limit that is reached).
    fn is_finished(&self) -> bool {
        false
    }
}

/// What a job promises of the output it commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every record once: output is visible only if a durable checkpoint names it.
    ExactlyOnce,
    /// None is missing: output becomes visible before its checkpoint, and may come again after a crash.
    AtLeastOnce,
    /// None comes twice.
    AtMostOnce,
}

/// Makes output visible once its checkpoint is durable.
///
/// Before anything else it is told, by [`promise`](Committer::promise), what the job promises.
/// The runtime calls exactly one of [`begin`](Committer::begin) (nothing was restored) and
/// [`recover`](Committer::recover) (a checkpoint was) before the first record.
pub trait Committer: Send {
    /// What the job promises, and the checkpoint that was restored. Of an exactly-once job a target that already shows
    /// output of a later epoch is to be refused: an older checkpoint was restored, and that output would come again.
    fn promise(&mut self, delivery: Delivery, restored: Option<Epoch>) -> Result<()> {
        let _ = (delivery, restored);
        Ok(())
    }

    /// A job starts from nothing: refuses a target that already holds the output of another run, or clears it, as the
    /// sink was told. Without this call a sink cannot tell old output from its own, and refuses the first clash.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// Makes this output visible. Called again for the same handles after a crash: what is already visible stays as it
    /// is.
    fn commit(&mut self, commits: &[Commit]) -> Result<()>;

    /// After a restart: commits what the checkpoint names, then removes what it does not.
    fn recover(&mut self, commits: &[Commit]) -> Result<()>;

    /// The job failed or runs without checkpoints and ends early: removes what was not committed. Not to be called while
    /// a durable checkpoint names output that is not committed yet: [`recover`](Committer::recover) needs it.
    fn abort(&mut self) -> Result<()>;
}
