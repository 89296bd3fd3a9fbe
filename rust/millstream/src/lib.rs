//! The engine: takes declared streams, runs them, and keeps their promise across failures.
//!
//! ```text
//!   Stream … SinkNode ──lower──► PhysicalPlan ──graph──► JobGraph ──► runtime
//!                                                           │
//!        Job ── supervisor thread: open store ► recover ► run ► on failure: wait, and again
//! ```
//!
//! This crate puts the layers together and owns the properties of a whole job: its options, its restarts, its report. It
//! can be used from Rust without Python.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use millstream::connectors::{CollectSink, GenerateSource, Received};
//! use millstream::plan::{Expr, Stream};
//! use millstream::{Options, start};
//!
//! # fn main() -> millstream::Result<()> {
//! let numbers = Stream::source(Arc::new(GenerateSource::new(Some(1000), None)?)).limit(10)?;
//! let (sink, rows) = CollectSink::new(None, 16);
//! let job = start(&[numbers.sink(Arc::new(sink))?], Options::default())?;
//! job.wait(None).expect("no time limit was given")?;
//! let mut count = 0;
//! while let Received::Batch(batch) = rows.receive(Duration::ZERO) {
//!     count += batch.data.num_rows();
//! }
//! assert_eq!(count, 10);
//! # Ok(())
//! # }
//! ```

mod apart;
mod by_hand;
mod graph;
mod job;
mod look;
mod options;
mod place;
mod process;
mod recovery;
mod simulate;
mod supervisor;

pub use by_hand::{HandJob, Standing};
pub use job::{Job, JobState, Status, check, explain, start};
pub use look::{Pickled, PlanDiff, StepDiff, checkpoints, diff, pickled_state, read_state, verify};
pub use mill_connectors as connectors;
pub use mill_plan as plan;
pub use mill_protocol::{Error, ErrorKind, ManualClock, Result};
pub use mill_runtime::{AllowNew, Held, Metrics, Overdue, Owner, Paused, Report, StepMetrics, spawn_thread};
pub use mill_fault as fault;
pub use mill_snapshot::{CheckpointInfo, Fault as DiskFault, FaultDisk, VerifyReport};
pub use options::{CheckpointOptions, OnHeld, OnText, Options, Restart};
pub use simulate::{Simulation, simulate};
