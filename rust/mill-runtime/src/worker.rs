//! A worker: an OS thread that owns tasks and polls them in turn.
//!
//! After a round in which no task did anything it parks, until a queue of one of its tasks changes, a timer is due, or the
//! coordinator has a request. A panic in a task is caught here, at the edge, and fails the job with the name of the step;
//! one of the worker itself is caught by the guard of its thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mill_protocol::Result;
use mill_queue::Parker;

use crate::panics;
use crate::shared::{Message, Shared};
use crate::task::{Step, Task};
use crate::threads;

/// How many inputs a task may take before the next task has its turn: some hundred microseconds of work.
const INPUTS_PER_STEP: u32 = 4;
/// How long a worker sleeps at most; only a guard, as everything that matters wakes it.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long the readers of a job that is over are waited for: one that is between two calls closes at once, one that is
/// inside a source that blocks cannot be helped.
const READERS_MAX: Duration = Duration::from_millis(300);

/// Runs tasks until the job is over.
pub(crate) fn run(mut tasks: Vec<Task>, mut parker: Parker, shared: &Arc<Shared>) {
    'work: while !shared.is_over() {
        mill_fault::pass("thread.worker");
        let mut has_worked = false;
        let mut wake_at: Option<i64> = None;
        for task in &mut tasks {
            match guarded_step(task, INPUTS_PER_STEP) {
                Ok(Step::Worked) => has_worked = true,
                Ok(Step::Blocked | Step::Waiting) => {}
                Ok(Step::Idle(at)) => wake_at = [wake_at, at].into_iter().flatten().min(),
                Err(error) => {
                    // One that can go back alone waits until it may.
                    let Some(error) = task.fail(error) else { continue };
                    shared.tell(Message::Failed(error));
                    // What a failed task holds is in no defined state: nothing is stepped any more.
                    park_until_over(&mut parker, shared);
                    break 'work;
                }
            }
        }
        if !has_worked {
            parker.park_timeout(sleep(wake_at, &tasks));
        }
    }
    // A task that is dropped may run code of the user's: a panic there must not take the worker's last word away.
    if let Err(error) = threads::guarded("the end of its tasks", || Ok(let_go(tasks, shared))) {
        shared.tell(Message::Failed(error));
    }
    shared.worker_gone();
}

/// Drops tasks, and sees their readers closed. Those that don't come out of their source in time are named.
fn let_go(mut tasks: Vec<Task>, shared: &Shared) {
    let mut readers: Vec<_> = tasks.iter_mut().flat_map(Task::take_readers).collect();
    drop(tasks);
    let until = Instant::now() + READERS_MAX;
    readers.retain_mut(|reader| !reader.closes_until(until));
    for reader in readers {
        let split = reader.split();
        shared.tell(Message::Note(format!("the reader of {split} is still inside its source; its thread ends when that returns")));
    }
}

/// Steps a task, with a panic turned into an error.
pub(crate) fn guarded_step(task: &mut Task, inputs_max: u32) -> Result<Step> {
    match catch_unwind(AssertUnwindSafe(|| task.step(inputs_max))) {
        Ok(result) => result,
        Err(panic) => Err(panics::as_error(panic).in_step(task.calling())),
    }
}

fn park_until_over(parker: &mut Parker, shared: &Shared) {
    while !shared.is_over() {
        parker.park_timeout(SLEEP_MAX);
    }
}

fn sleep(wake_at: Option<i64>, tasks: &[Task]) -> Duration {
    let (Some(at), Some(task)) = (wake_at, tasks.first()) else { return SLEEP_MAX };
    let micros = at.saturating_sub(task.clock().now()).max(0);
    Duration::from_micros(micros as u64).min(SLEEP_MAX)
}
