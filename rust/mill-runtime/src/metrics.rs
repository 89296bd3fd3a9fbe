//! Metrics of a running job.
//!
//! Tasks count into atomics of their own, once a frame; a reader adds them up. The counts are exact once the job has ended;
//! before that they may lag slightly.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use mill_protocol::Watermark;

use crate::alignment::{AlignmentBoard, Paused};
use crate::held::{Held, HeldStep, held};

/// What a job has done so far.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Each step, in the order of the plan; sources among them.
    pub steps: Vec<StepMetrics>,
    /// Each edge.
    pub edges: Vec<EdgeMetrics>,
    /// Checkpoints so far.
    pub checkpoints: CheckpointMetrics,
    /// How many records the sources have returned, and how many they will return, if all of them know.
    pub progress: ProgressInfo,
}

/// What one step has done so far, over all its tasks.
#[derive(Clone, Debug, Default)]
pub struct StepMetrics {
    /// The identity of its state.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// The name of the user's step that it is of, which its dead letters have.
    pub step: String,
    /// Records taken.
    pub rows_in: u64,
    /// Records emitted, over all ports.
    pub rows_out: u64,
    /// Records that came too late for their window.
    pub rows_late: u64,
    /// Records that could not be processed and were left out.
    pub rows_skipped: u64,
    /// Records that could not be processed and went to `errors`.
    pub rows_routed: u64,
    /// How often an input of the step was truncated while it was read.
    pub truncations: u64,
    /// How many bytes of the input were truncated before they had been read.
    pub bytes_lost: u64,
    /// The watermark of the slowest task, once there is one.
    pub watermark: Option<Watermark>,
    /// How many bytes of its state the last checkpoint wrote.
    pub checkpoint_bytes: u64,
    /// What has held back the watermark that this step makes, if anything has for some seconds.
    pub held: Option<Held>,
    /// The splits of this step that pause because they are too far ahead of others, if any do.
    pub paused: Option<Paused>,
}

/// How full the queues of an edge are.
#[derive(Clone, Debug, Default)]
pub struct EdgeMetrics {
    /// The chain that writes.
    pub from: String,
    /// The chain that reads.
    pub to: String,
    /// Frames in the fullest queue.
    pub fill: usize,
    /// How many frames a queue holds.
    pub capacity: usize,
}

/// What has become of the checkpoints.
#[derive(Clone, Debug, Default)]
pub struct CheckpointMetrics {
    /// How many were completed, savepoints among them.
    pub completed: u64,
    /// How many failed.
    pub failed: u64,
    /// The number of the last one that was completed.
    pub last_id: Option<u64>,
    /// How long that took, from the request to the commit.
    pub last_duration: Duration,
    /// How many bytes it wrote.
    pub last_bytes: u64,
    /// Why the last one that failed did.
    pub last_error: Option<String>,
    /// The one under way, if it has been for far too long.
    pub overdue: Option<Overdue>,
}

/// A checkpoint that has been under way for more than ten intervals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overdue {
    /// Its number.
    pub id: u64,
    /// For how long it has been under way.
    pub since: Duration,
    /// The tasks that its barrier has not come through; empty if it is being written.
    pub waits_for: Vec<String>,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.since.as_secs_f64();
        write!(f, "checkpoint {} has been under way for {seconds:.1} s, more than ten times its interval: ", self.id)?;
        match self.waits_for.as_slice() {
            [] => f.write_str("it is still being written"),
            tasks => write!(f, "{} is still at work on what came before it", tasks.join(", ")),
        }
    }
}

/// How far the input has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressInfo {
    /// Records read.
    pub rows_read: u64,
    /// Records there are, where all sources know.
    pub rows_total: Option<u64>,
}

/// The counters of one stage in one task.
#[derive(Debug, Default)]
pub(crate) struct StageCounters {
    pub(crate) rows_in: Counter,
    pub(crate) rows_out: Counter,
    pub(crate) rows_late: Counter,
    pub(crate) rows_skipped: Counter,
    pub(crate) rows_routed: Counter,
    pub(crate) truncations: Counter,
    pub(crate) bytes_lost: Counter,
    pub(crate) watermark: Level,
}

impl StageCounters {
    /// What a task that goes back counts again. The input is not truncated again then.
    fn all(&self) -> [&Counter; 5] {
        [&self.rows_in, &self.rows_out, &self.rows_late, &self.rows_skipped, &self.rows_routed]
    }

    /// All counts.
    pub(crate) fn values(&self) -> [u64; 5] {
        self.all().map(Counter::value)
    }

    /// Sets all counts, to take back what was counted since.
    pub(crate) fn set(&self, values: [u64; 5]) {
        for (counter, value) in self.all().into_iter().zip(values) {
            // Relaxed: one thread writes, and the count stands for itself.
            counter.0.store(value, Ordering::Relaxed);
        }
    }
}

/// A count with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds to the count.
    pub(crate) fn add(&self, rows: u64) {
        // Relaxed, and no read-modify-write: one thread writes, and the count stands for itself.
        self.0.store(self.0.load(Ordering::Relaxed) + rows, Ordering::Relaxed);
    }

    /// The count.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value with one writer; absent until it is first set.
#[derive(Debug)]
pub(crate) struct Level(AtomicI64, AtomicBool);

impl Default for Level {
    fn default() -> Level {
        Level(AtomicI64::new(i64::MIN), AtomicBool::new(false))
    }
}

impl Level {
    /// Sets the value.
    pub(crate) fn set(&self, value: i64) {
        // Relaxed: the value stands for itself.
        self.0.store(value, Ordering::Relaxed);
        self.1.store(true, Ordering::Relaxed);
    }

    /// The value, if it was ever set.
    pub(crate) fn value(&self) -> Option<i64> {
        self.1.load(Ordering::Relaxed).then(|| self.0.load(Ordering::Relaxed))
    }
}

/// Where the counters of one step are found.
#[derive(Debug)]
pub(crate) struct RegisteredStep {
    pub(crate) uid: String,
    pub(crate) name: String,
    /// The name of the user's step that it is of.
    pub(crate) step: String,
    /// Those of its tasks.
    pub(crate) counters: Vec<Arc<StageCounters>>,
}

/// Where the counters of a whole job are found.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) steps: Vec<RegisteredStep>,
    /// For each edge: from, to, capacity, and the fill level of each of its writers.
    pub(crate) edges: Vec<(String, String, usize, Vec<Arc<Level>>)>,
    /// Which steps are sources.
    pub(crate) sources: Vec<usize>,
    /// The steps that make watermarks of unbounded sources.
    pub(crate) held: Vec<HeldStep>,
    /// The steps whose splits keep together, the board of their group, and the entries of their tasks.
    pub(crate) aligned: Vec<(usize, Arc<AlignmentBoard>, Vec<usize>)>,
    pub(crate) rows_total: Option<u64>,
    /// Bytes of state by uid, as of the last checkpoint, and the figures of the checkpoints; written by the coordinator.
    pub(crate) checkpoints: parking_lot::Mutex<(CheckpointMetrics, std::collections::HashMap<String, u64>)>,
    /// What tasks note for the user.
    pub(crate) notes: Arc<TaskNotes>,
}

/// How many notes of tasks wait to be taken; the oldest go first.
const NOTES_MAX: usize = 100;

/// What tasks note for the user, until it is taken.
#[derive(Debug, Default)]
pub(crate) struct TaskNotes(parking_lot::Mutex<Vec<String>>);

impl TaskNotes {
    /// Adds a note.
    pub(crate) fn add(&self, note: String) {
        let mut notes = self.0.lock();
        if notes.len() == NOTES_MAX {
            notes.remove(0);
        }
        notes.push(note);
    }

    /// Takes the notes that nobody has taken yet.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Registry {
    /// The steps whose watermark has been held back for some seconds, at this time of the job's clock.
    pub(crate) fn held(&self, now: i64) -> Vec<(&str, Held)> {
        held(&self.held, now).into_iter().map(|(step, held)| (self.steps[step].name.as_str(), held)).collect()
    }

    /// Adds everything up, for a job that runs at this time of its clock, or is over.
    pub(crate) fn collect(&self, now: Option<i64>) -> Metrics {
        let (checkpoints, state) = self.checkpoints.lock().clone();
        let steps = self.steps.iter().map(|RegisteredStep { uid, name, step, counters }| {
            let sum = |of: fn(&StageCounters) -> &Counter| counters.iter().map(|c| of(c).value()).sum();
            let watermarks: Vec<i64> = counters.iter().filter_map(|c| c.watermark.value()).collect();
            StepMetrics {
                uid: uid.clone(),
                name: name.clone(),
                step: step.clone(),
                rows_in: sum(|c| &c.rows_in),
                rows_out: sum(|c| &c.rows_out),
                rows_late: sum(|c| &c.rows_late),
                rows_skipped: sum(|c| &c.rows_skipped),
                rows_routed: sum(|c| &c.rows_routed),
                truncations: sum(|c| &c.truncations),
                bytes_lost: sum(|c| &c.bytes_lost),
                watermark: watermarks.into_iter().min().map(Watermark),
                checkpoint_bytes: state.get(uid).copied().unwrap_or(0),
                held: None,
                paused: None,
            }
        });
        let mut steps: Vec<StepMetrics> = steps.collect();
        for (step, held) in now.map(|now| held(&self.held, now)).into_iter().flatten() {
            steps[step].held = Some(held);
        }
        for (step, board, entries) in self.aligned.iter().filter(|_| now.is_some()) {
            steps[*step].paused = board.paused(entries);
        }
        let edges = self.edges.iter().map(|(from, to, capacity, fills)| EdgeMetrics {
            from: from.clone(),
            to: to.clone(),
            fill: fills.iter().filter_map(|fill| fill.value()).max().unwrap_or(0) as usize,
            capacity: *capacity,
        });
        let edges = edges.collect();
        let rows_read = self.sources.iter().map(|&source| steps[source].rows_out).sum();
        Metrics { steps, edges, checkpoints, progress: ProgressInfo { rows_read, rows_total: self.rows_total } }
    }
}
