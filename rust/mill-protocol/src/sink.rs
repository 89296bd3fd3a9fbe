//! Sinks: where results go, and how they become visible exactly once.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use mill_frame::Batch;

use crate::error::{Rejected, Result};
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

/// Makes what was written durable; runs on a background thread and returns the handle that the checkpoint stores.
pub type PreCommit = Box<dyn FnOnce() -> Result<Vec<u8>> + Send>;

/// One handle that a checkpoint holds for a sink.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The epoch whose output it is.
    pub epoch: Epoch,
    /// What [`PreCommit`] returned.
    pub handle: Vec<u8>,
}

/// A description of a sink.
pub trait Sink: Send + Sync + fmt::Debug {
    /// What it is, for messages and `explain()`: `write_parquet("out/")`.
    fn name(&self) -> String;

    /// What tells it from every sink that writes elsewhere: the same text in every run, however the user spelt it. `None`:
    /// nothing does, so two sinks of one name may differ.
    fn identity(&self) -> Option<String> {
        None
    }

    /// How it keeps its guarantee.
    fn kind(&self) -> SinkKind;

    /// What it keeps in a job that promises this (`None`: one without checkpoints), in the words of `explain()`; `None`: what its
    /// kind says.
    fn keeps(&self, delivery: Option<Delivery>) -> Option<&'static str> {
        let _ = delivery;
        None
    }

    /// Why no job with checkpoints can write it, and what to do instead; `None`: any can.
    fn refuses_checkpoints(&self) -> Option<&str> {
        None
    }

    /// The same sink with what belongs to one run alone, if its committer and its writers share such. Asked once a run, before
    /// anything else of it.
    ///
    /// # Errors
    /// When it cannot be made.
    fn of_run(&self) -> Result<Option<Arc<dyn Sink>>> {
        Ok(None)
    }

    /// Checks that it can take this stream, before anything runs. `key` is set in an updating stream: the columns whose
    /// latest row counts.
    fn check(&self, schema: &SchemaRef, key: Option<&[String]>) -> Result<()>;

    /// The highest parallelism it can be written with, if limited.
    fn parallelism_max(&self) -> Option<usize> {
        None
    }

    /// Whether its writers call code of the user's, of which nobody knows how long a record takes it. Then the first
    /// [`write`](SinkWriter::write) has few records, and later ones as many as are written in a short time.
    fn calls_user_code(&self) -> bool {
        false
    }

    /// A file that it writes, or one like those it will write, if it writes files: a job must not read what it writes.
    fn writes(&self) -> Option<PathBuf> {
        None
    }

    /// Where the output goes, the same text in every run that writes there; a checkpoint keeps it, so that a job whose
    /// output has moved can be told from one whose output is lost.
    fn target(&self) -> Option<String> {
        None
    }

    /// Whether a job that has written to this former [`target`](Sink::target) can continue with the one of now. Only looks.
    ///
    /// # Errors
    /// When it cannot, with both targets and what to do.
    fn check_target(&self, _was: &str) -> Result<()> {
        Ok(())
    }

    /// What a later run, in whose plan this sink is not any more, needs to commit what is pending of it: in the words of the connector,
    /// which makes a committer of them. Nothing where only the sink itself can commit. Asked once the plan has been checked.
    fn handover(&self) -> Option<String> {
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

    /// The records of the last [`write`](SinkWriter::write) that can never be written (a message that is too large); the job does
    /// with them what it does with all records that fail.
    fn take_rejected(&mut self) -> Vec<Rejected> {
        Vec::new()
    }

    /// The input of a bounded job has ended: nothing more is written, and one [`pre_commit`](SinkWriter::pre_commit)
    /// follows. Not called where a job is stopped before its end.
    ///
    /// # Errors
    /// When what is to be left at the end cannot be written.
    fn end(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends the output of this epoch. `None` if nothing was written since the last.
    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<PreCommit>>;

    /// Whether it takes records now; the runtime asks before each [`write`](SinkWriter::write) and holds the records back
    /// while it does not (a consumer that is slower than the job). A writer that has returned `false` wakes
    /// [`TaskContext::waker`] when that may have changed; nobody asks before. A `write` all the same may block.
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

/// Says to whoever waits on behalf of a job (for a server that does not answer) that the job is to end now.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    /// Lets those who wait give up.
    pub fn set(&self) {
        // Relaxed: no other memory is published with the flag.
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether to give up.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The run of a job, as its sinks learn it before anything else.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// What the job promises.
    pub delivery: Delivery,
    /// The identity of the job: the same in all its runs, and in those that continue from its savepoints. `None` for a job
    /// that keeps no state: no later run will ask what this one has committed.
    pub job: Option<u64>,
    /// The identity of the sink within the job.
    pub sink: &'a str,
    /// The checkpoint that was restored.
    pub restored: Option<Epoch>,
    /// The newest checkpoint that the state directory knows of: output up to it may be visible. Later than
    /// [`restored`](Run::restored) where recovery had to pass over a damaged checkpoint.
    pub newest: Option<Epoch>,
    /// The state directory. A sink may keep files of its own in a directory in there, until they are committed: what a handle
    /// refers to goes where the checkpoint goes. `None` for a job that keeps no state.
    pub directory: Option<&'a Path>,
    /// Set once the job was cancelled or has failed: then a call that waits is to return, with an error. What it was about is
    /// taken up by the next recovery.
    pub ending: Option<&'a Ending>,
}

impl Default for Run<'_> {
    fn default() -> Self {
        Run { delivery: Delivery::ExactlyOnce, job: None, sink: "", restored: None, newest: None, directory: None, ending: None }
    }
}

/// What a checkpoint holds for a sink.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovered<'a> {
    /// The handles that it names.
    pub commits: &'a [Commit],
    /// Whether all of them are known to have been committed. Then nothing has to be left of them but what the
    /// [`receipt`](Recovered::receipt) claims: their output may have been taken away since.
    pub is_settled: bool,
    /// What [`Committer::receipt`] returned when the checkpoint was published.
    pub receipt: Option<&'a str>,
    /// What [`Sink::target`] was when the checkpoint was published.
    pub target: Option<&'a str>,
    /// The state directory that the checkpoint is in: that of the run, unless the job begins with a checkpoint of another.
    pub directory: Option<&'a Path>,
}

/// Makes output visible once its checkpoint is durable.
///
/// Before anything else it learns, by [`promise`](Committer::promise), of the run it works for.
/// The runtime calls exactly one of [`begin`](Committer::begin) (nothing was restored) and
/// [`recover`](Committer::recover) (a checkpoint was) before the first record.
///
/// # Handles
///
/// A handle belongs to the checkpoints that name it. It is settled once its commit is known to have happened: the next
/// checkpoint no longer names it, the state directory notes which checkpoint was settled last, and a savepoint is
/// written after its own handles were. So what a handle refers to (a hidden file, rows in a spool) may be removed by the
/// commit itself; what must stay is the target's own note that it was committed.
pub trait Committer: Send {
    /// Learns of the run. Of an exactly-once job a target that already shows output of a later epoch than the restored
    /// one is to be refused: that output would come again.
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        let _ = run;
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

    /// The files that a handle refers to, by their names within the state directory: they travel with a checkpoint that is kept elsewhere.
    fn files(&self, commit: &Commit) -> Vec<String> {
        let _ = commit;
        Vec::new()
    }

    /// Whether a job that promises at least once may commit before the checkpoint is durable. Not so if a commit gives up what an
    /// earlier checkpoint needs.
    fn commits_early(&self) -> bool {
        true
    }

    /// Called at each checkpoint, after what it commits, also where that is nothing: keeps up what a target forgets after a while.
    fn keep_up(&mut self) -> Result<()> {
        Ok(())
    }

    /// What the target shows of everything that was committed so far, in the sink's own words. The next checkpoint keeps
    /// it, and a recovery compares it with the target, which may have been lost or put back from a copy.
    fn receipt(&self) -> Option<String> {
        None
    }

    /// After a restart: compares the target with the checkpoint, commits what the checkpoint names, then removes what it
    /// does not.
    ///
    /// # Errors
    /// When the target lacks output that the checkpoint knows to be committed, or a handle that may not have been
    /// committed has lost what it refers to.
    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()>;

    /// The job failed or runs without checkpoints and ends early: removes what was not committed. Not to be called while
    /// a durable checkpoint names output that is not committed yet: [`recover`](Committer::recover) needs it.
    fn abort(&mut self) -> Result<()>;
}
