//! Running a job: workers, tasks, channels, barriers, watermarks, checkpoints.
//!
//! ```text
//!   JobGraph ──start──► tasks on workers ◄── requests ── coordinator ── manifests ──► store
//!                          │  envelopes in SPSC queues       ▲    │
//!                          └── snapshots, failures ──────────┘    └── commits ──► sinks
//! ```
//!
//! The runtime knows operators, sources and sinks by their contract alone (`mill-protocol`). Invariants it keeps:
//!
//! - a task never blocks: it is polled by its worker, and all work in progress can be left as it is;
//! - queues are bounded, and a full one holds up everything in front of it, up to the source (I10);
//! - the work queued before a barrier is bounded by the time that it takes: slow steps get few rows at once, and few
//!   wait for them (I18);
//! - the merged watermark of a task never goes back (I8);
//! - exactly once: nothing after a barrier is seen by a task before its snapshot, and no sink commits before the
//!   manifest is published (I1, I3);
//! - the first failure ends the job, with the name of the step, and everything else is cancelled.

mod alignment;
mod build;
mod chain;
mod channel;
mod checkpoint;
mod comparison;
mod coordinator;
mod discovered;
mod edge_writer;
mod envelope;
mod graph;
mod held;
mod input;
mod input_log;
mod job;
mod job_result;
mod listeners;
mod merge;
mod metrics;
mod monitor;
mod options;
mod panics;
mod portion;
mod positions;
mod reader;
mod rebuild;
mod recovery;
mod rejects;
mod schedule;
mod shared;
mod sinks;
mod source_task;
mod stage;
mod storage;
mod task;
mod threads;
mod time_board;
mod wake;
mod wire;
mod worker;
mod writers;

pub use alignment::Paused;
pub use comparison::{AllowNew, Changes, Comparison, StepVerdict, Verdict, compare};
pub use graph::{ChainDef, CheckOfState, EdgeDef, EdgeKind, JobGraph, OperatorFactory, SourceDef, StageBody, StageDef, StateCheck, Target, UserCode};
pub use held::Held;
pub use job::{JobHandle, start};
pub use job_result::{Report, Status};
pub use metrics::{CheckpointMetrics, EdgeMetrics, Metrics, Overdue, ProgressInfo, StepMetrics};
pub use monitor::Monitor;
pub use options::{Mode, OnError, RunOptions, SavepointCopier, TaskRestarts};
pub use recovery::check_mode;
pub use rejects::errors_schema;
pub use storage::PLAN_NOTE;
pub use threads::{Owner, guarded, spawn as spawn_thread};
