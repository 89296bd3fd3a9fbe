//! Runs a job by hand: on the caller's thread, in an order drawn from a seed, for as many steps as are wanted.
//!
//! A job that is left before its end is left as a kill leaves it: nothing is closed, committed or cleaned up. The next
//! call on the same state directory recovers from what lies there.

use mill_plan::{SinkNode, lower};
use mill_protocol::{Error, Result};
use mill_runtime::Report;

use crate::job::plan_options;
use crate::options::Options;
use crate::supervisor::run_options;
use crate::{graph, recovery};

/// Frames that a queue holds: few, so that queues are often full.
const QUEUE_CAPACITY: usize = 2;

/// Takes up to `steps` steps of a job (all, if `None`) under the schedule of this seed. Gives its report if it ended.
///
/// # Errors
/// What the job fails with, or what [`start`](crate::start) would fail with.
pub fn simulate(sinks: &[SinkNode], options: &Options, seed: u64, steps: Option<u64>) -> Result<Option<Report>> {
    options.check()?;
    let plan = lower(sinks, &plan_options(options)?)?;
    let recovered = recovery::open(options.checkpoint.as_ref())?;
    let mut run = run_options(&plan, options, recovered)?;
    run.schedule_seed = Some(seed);
    run.queue_capacity = QUEUE_CAPACITY;
    let handle = mill_runtime::start(graph::job_graph(&plan), run)?;
    if !handle.run_steps(steps.unwrap_or(u64::MAX)) {
        return match steps {
            Some(_) => Ok(None),
            None => Err(Error::internal("nothing can happen any more, and the job has not ended")),
        };
    }
    match handle.wait(None) {
        Some(outcome) => outcome.map(Some),
        None => Err(Error::internal("the job is over and has no outcome")),
    }
}
