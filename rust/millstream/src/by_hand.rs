//! A job that is driven by its caller: on the caller's thread, in an order drawn from a seed, until it is quiet.
//!
//! ```text
//!   open ──► run ──► Quiet ──push, move the clock──► run ──► … ──► Over
//!                      └── drop: as a kill leaves it; open again on the same disk: as a restart finds it
//! ```
//!
//! The clock is the caller's, and so is the decision when a checkpoint is taken. Hence what a test sees depends on the seed, on
//! what it does and on nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mill_plan::{SinkNode, lower};
use mill_protocol::{Clock, Ending, Error, ErrorKind, ManualClock, Result, with_shown_time};
use mill_runtime::{JobHandle, Report, RunOptions, guarded};
use mill_snapshot::{Disk, FaultDisk};

use crate::job::plan_options;
use crate::options::Options;
use crate::supervisor::run_options;
use crate::{graph, recovery};

/// Frames that a queue holds: few, so that queues are often full.
const QUEUE_CAPACITY: usize = 2;
/// How many failures of single tasks a job survives in mode dedup; a function that always fails must come to an end.
const TASK_RESTARTS_MAX: u32 = 100;

/// A job before its first step, and what its recovery has to tell.
pub(crate) struct Opened {
    pub(crate) handle: JobHandle,
    pub(crate) notes: Vec<String>,
}

/// Opens a job whose steps are taken in an order drawn from a seed.
pub(crate) fn open(
    sinks: &[SinkNode],
    options: &Options,
    seed: u64,
    disk: Arc<dyn Disk>,
    adjust: impl FnOnce(&mut RunOptions),
) -> Result<Opened> {
    options.check()?;
    let plan = lower(sinks, &plan_options(options)?)?;
    let mut recovered = recovery::open(options.checkpoint.as_ref(), &plan, disk, &Ending::default(), &|_| {})?;
    let notes = std::mem::take(&mut recovered.notes);
    let scratch = recovered.scratch.take();
    let mut run = run_options(&plan, options, recovered)?;
    run.schedule_seed = Some(seed);
    run.queue_capacity = QUEUE_CAPACITY;
    let left = AtomicU32::new(TASK_RESTARTS_MAX);
    let take_one = move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
    run.task_restarts = Some(Arc::new(move |_| take_one().then_some(Duration::ZERO)));
    adjust(&mut run);
    let handle = mill_runtime::start(graph::job_graph(&plan), run)?;
    drop(scratch);
    Ok(Opened { handle, notes })
}

/// Where a job is after some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There are more steps to take.
    Busy,
    /// Nothing can happen before new input or a later time.
    Quiet,
    /// The job has ended.
    Over,
}

/// A job that is driven by hand. Dropped, it is left as a kill leaves it.
pub struct HandJob {
    handle: JobHandle,
    clock: Arc<ManualClock>,
    notes: Vec<String>,
}

impl HandJob {
    /// Opens a job: from the newest checkpoint on this disk, if there is one.
    ///
    /// # Errors
    /// What [`start`](crate::start) would fail with.
    pub fn open(
        sinks: &[SinkNode],
        options: &Options,
        seed: u64,
        disk: &FaultDisk,
        clock: &Arc<ManualClock>,
    ) -> Result<HandJob> {
        let opened = by_clock(clock, || {
            open(sinks, options, seed, Arc::new(disk.clone()), |run| {
                run.clock = Arc::clone(clock) as Arc<dyn Clock>;
                run.hand_clock = Some(Arc::clone(clock));
            })
        })?;
        Ok(HandJob { handle: opened.handle, clock: Arc::clone(clock), notes: opened.notes })
    }

    /// Takes up to that many steps, or fewer if it is enough before.
    ///
    /// # Errors
    /// What the job has failed with, once.
    pub fn run(&self, steps: u64, is_enough: impl Fn() -> bool) -> Result<Standing> {
        by_clock(&self.clock, || {
            for _ in 0..steps {
                if is_enough() {
                    return Ok(Standing::Busy);
                }
                if !self.handle.step() {
                    return self.standing();
                }
            }
            Ok(Standing::Busy)
        })
    }

    fn standing(&self) -> Result<Standing> {
        if !self.handle.status().is_over() {
            return Ok(Standing::Quiet);
        }
        match self.handle.wait(Some(Duration::ZERO)) {
            Some(Err(error)) => Err(error),
            _ => Ok(Standing::Over),
        }
    }

    /// The time at which something happens next though nothing comes in (microseconds), if there is one.
    pub fn next_time(&self) -> Option<i64> {
        self.handle.next_time().filter(|&at| at > self.clock.now())
    }

    /// Takes a checkpoint, which makes output visible.
    ///
    /// # Errors
    /// When it fails, or the job does while it is taken.
    pub fn checkpoint(&self) -> Result<()> {
        match by_clock(&self.clock, || self.handle.checkpoint_now().map(|_| ())) {
            // The job may have come to its end, or to grief, on the way: that is what counts.
            Err(error) if error.kind() == ErrorKind::Checkpoint => match self.standing()? {
                Standing::Over => Ok(()),
                Standing::Busy | Standing::Quiet => Err(error),
            },
            outcome => outcome,
        }
    }

    /// What the job has done, once it is over.
    ///
    /// # Errors
    /// When it has failed, or is not over.
    pub fn report(&self) -> Result<Report> {
        let outcome = self.handle.status().is_over().then(|| self.handle.wait(Some(Duration::ZERO))).flatten();
        let mut report = outcome.unwrap_or_else(|| Err(Error::plan("the job has not come to its end")))?;
        report.notes.splice(0..0, self.notes.iter().cloned());
        Ok(report)
    }

    /// Ends the job as of its last checkpoint: sinks remove what they have begun.
    pub fn cancel(self) {
        self.handle.cancel();
        // Whoever cancels has no use for how it ended.
        drop(by_clock(&self.clock, || {
            while self.handle.step() {}
            Ok(())
        }));
    }
}

/// Works on a job whose functions see the time of its clock; a panic is an error of the job.
fn by_clock<T>(clock: &Arc<ManualClock>, work: impl FnOnce() -> Result<T>) -> Result<T> {
    with_shown_time(clock, || guarded("the job", work))
}
