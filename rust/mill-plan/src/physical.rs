//! The physical plan: chains of stages joined by edges, ready to be run.
//!
//! ```text
//!   Chain 0                                            Chain 1
//!   ┌──────────────────────────────────────┐          ┌──────────────────────────┐
//!   │ source ─entry─► stage 0 ─port 0─► 1  ├─edge 0──►│ entry ─► stage 0 ─► 1    │
//!   └──────────────────────────────────────┘  hash    └──────────────────────────┘
//! ```
//!
//! Invariants: a stage's targets within its chain have higher indices than itself; an edge leads from a chain to another
//! one with a higher index; every stage has an identity (`uid`) that depends on neither parallelism nor chaining.

mod explain;
mod graph;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::{Sink, Source};

pub use self::graph::{Graph, GraphEdge, GraphNode};
use crate::aggregate::AggregateSpec;
use crate::compiled::CompiledExpr;
use crate::function::{BatchFunction, ReduceFunction, Rung};
use crate::lower::PlanOptions;
use crate::steps::UserStepKind;
use crate::stream::{Emit, WatermarkStrategy, Window};

/// A job as chains and edges.
#[derive(Clone, Debug)]
pub struct PhysicalPlan {
    /// The chains, sources first: an edge always leads from a lower to a higher index.
    pub chains: Vec<Chain>,
    /// What joins them.
    pub edges: Vec<Edge>,
    /// What the plan was made for.
    pub options: PlanOptions,
}

/// Stages through which records pass by plain calls on one thread.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its name, unique in the plan.
    pub name: String,
    /// How many tasks run it.
    pub parallelism: usize,
    /// Where its records come from, if not from edges.
    pub source: Option<SourceStage>,
    /// Where the source's records, or those of any incoming edge, go first.
    pub entry: Vec<Target>,
    /// The stages; targets within the chain have higher indices than the stage itself.
    pub stages: Vec<Stage>,
}

/// A source at the head of a chain.
#[derive(Clone, Debug)]
pub struct SourceStage {
    /// The identity of its positions.
    pub uid: String,
    /// Its name in messages and figures.
    pub name: String,
    /// What is read.
    pub source: Arc<dyn Source>,
    /// Whether something behind it depends on the order of records within a split.
    pub is_ordered: bool,
    /// Where records go that could not be read, if anyone asked for them.
    pub errors: Vec<Target>,
}

/// One stage of a chain.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The identity of its state.
    pub uid: String,
    /// Its name in messages and figures.
    pub name: String,
    /// What it does.
    pub kind: StageKind,
    /// The columns it gives on port 0.
    pub schema: SchemaRef,
    /// Where the records of each port go. An output nobody asked for has no target.
    pub ports: Vec<Vec<Target>>,
    /// The name of each port: that of the step's output, `result` for the first one of most steps.
    pub outputs: Vec<Cow<'static, str>>,
    /// Where records go that could not be processed, if anyone asked for them; see [`error_schema`].
    pub errors: Vec<Target>,
    /// What must be the same for its state to be taken up again, readable; empty for a stage without state.
    pub signature: String,
    /// Set where the stage's *input* is an updating stream: the columns of the input that are its key. A filter then
    /// turns rows that do not pass into deletes of their key, and a sink upserts.
    pub updating: Option<Vec<usize>>,
}

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A stage of the same chain.
    Stage(usize),
    /// An edge of the plan.
    Edge(usize),
}

/// What joins two chains.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The chain it comes from.
    pub from: usize,
    /// The chain it leads to.
    pub to: usize,
    /// How records are distributed.
    pub kind: EdgeKind,
    /// The columns that travel.
    pub schema: SchemaRef,
}

/// How records are distributed over the tasks of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeKind {
    /// From task `i` to task `i`.
    Forward,
    /// By the hash of these columns.
    Hash(Vec<usize>),
    /// Evenly.
    Rebalance,
    /// All to the one task of the chain.
    Gather,
}

/// What a stage does.
#[derive(Clone, Debug)]
pub enum StageKind {
    /// Computes new columns.
    Project {
        /// One a column.
        exprs: Vec<CompiledExpr>,
    },
    /// Keeps rows for which it is true.
    Filter(CompiledExpr),
    /// Sends rows for which it is true to port 0, the others (null too) to port 1.
    Branch(CompiledExpr),
    /// One row for each element of a list column; the other columns are repeated.
    Explode {
        /// The list column.
        column: usize,
        /// Whether an empty or null list gives one row with null, instead of none.
        keep_empty: bool,
    },
    /// Puts the fields of a struct column in its place.
    Unnest {
        /// The struct column.
        column: usize,
    },
    /// The first rows, this many.
    Limit(u64),
    /// A user's function of batches.
    User {
        /// How the user called it.
        kind: UserStepKind,
        /// The function.
        function: Arc<dyn BatchFunction>,
    },
    /// Takes event time from a column and makes watermarks.
    EventTime {
        /// The column with the time.
        column: usize,
        /// How far watermarks lag behind.
        strategy: WatermarkStrategy,
    },
    /// Aggregates what one task has at hand, ahead of the exchange. Output: the start of the window (`window_start`,
    /// int64, microseconds) if windowed, then the keys, then the partial columns of each aggregate. If windowed, rows that
    /// are late go out on port 1 as they came.
    PartialAggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// The windows, if any.
        window: Option<Window>,
        /// How late a row may be for its window.
        allowed_lateness_us: i64,
    },
    /// One result a key.
    Aggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// Whether the input are partial results: keys, then the partial columns of each aggregate.
        is_partial: bool,
        /// When results are given.
        emit: Emit,
    },
    /// One result a key and window: keys, `window_start`, `window_end`, aggregates. Late rows go out on port 1 as they
    /// came.
    WindowAggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// Whether the input are partial results: `window_start` (int64, microseconds), keys, partial columns.
        is_partial: bool,
        /// The windows.
        window: Window,
        /// How late a row may be for its window.
        allowed_lateness_us: i64,
    },
    /// A user's fold, one row a key with the columns of the input.
    Reduce {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// The fold.
        function: Arc<dyn ReduceFunction>,
        /// When results are given.
        emit: Emit,
    },
    /// Writes records out.
    Sink(Arc<dyn Sink>),
    /// Passes records on as they are: a union, a rebalance.
    Pass,
}

impl StageKind {
    /// The word for it in plans and messages.
    pub fn label(&self) -> &'static str {
        match self {
            StageKind::Project { .. } => "project",
            StageKind::Filter(_) => "filter",
            StageKind::Branch(_) => "branch",
            StageKind::Explode { .. } => "explode",
            StageKind::Unnest { .. } => "unnest",
            StageKind::Limit(_) => "limit",
            StageKind::User { kind, .. } => kind.label(),
            StageKind::EventTime { .. } => "event_time",
            StageKind::PartialAggregate { .. } => "partial",
            StageKind::Aggregate { .. } => "agg",
            StageKind::WindowAggregate { .. } => "window",
            StageKind::Reduce { .. } => "reduce",
            StageKind::Sink(_) => "sink",
            StageKind::Pass => "pass",
        }
    }

    /// On which rung of the ladder it runs.
    pub fn rung(&self) -> Rung {
        match self {
            StageKind::Project { exprs } => exprs.iter().map(CompiledExpr::rung).max_by_key(|r| *r as u8).unwrap_or(Rung::Native),
            StageKind::Filter(expr) | StageKind::Branch(expr) => expr.rung(),
            StageKind::User { function, .. } => function.rung(),
            StageKind::Reduce { function, .. } => function.rung(),
            StageKind::Aggregate { aggregates, .. } | StageKind::WindowAggregate { aggregates, .. } => {
                let is_user = |spec: &AggregateSpec| matches!(spec.kind, crate::aggregate::AggregateKind::User(_));
                if aggregates.iter().any(is_user) { Rung::Batch } else { Rung::Native }
            }
            StageKind::Explode { .. }
            | StageKind::Unnest { .. }
            | StageKind::Limit(_)
            | StageKind::EventTime { .. }
            | StageKind::PartialAggregate { .. }
            | StageKind::Sink(_)
            | StageKind::Pass => Rung::Native,
        }
    }

    /// Whether it keeps state that a checkpoint holds.
    pub fn is_stateful(&self) -> bool {
        match self {
            StageKind::Limit(_)
            | StageKind::EventTime { .. }
            | StageKind::Aggregate { .. }
            | StageKind::WindowAggregate { .. }
            | StageKind::Reduce { .. }
            | StageKind::Sink(_) => true,
            StageKind::Project { .. }
            | StageKind::Filter(_)
            | StageKind::Branch(_)
            | StageKind::Explode { .. }
            | StageKind::Unnest { .. }
            | StageKind::User { .. }
            | StageKind::PartialAggregate { .. }
            | StageKind::Pass => false,
        }
    }
}

impl PhysicalPlan {
    /// What users should know about the plan before they wonder about its results.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for chain in &self.chains {
            let Some(source) = chain.source.as_ref().filter(|it| it.source.properties().discovers_splits) else { continue };
            let waits = chain.stages.iter().any(|stage| {
                matches!(&stage.kind, StageKind::EventTime { strategy, .. } if strategy.idleness_us.is_none())
            });
            if waits {
                notes.push(format!(
                    "event time waits for every file that {} follows, also for one that gets no more records; give its \
                     watermark .with_idleness(\"1m\"), say, to pass over files that have been quiet that long",
                    source.source.name()
                ));
            }
        }
        notes
    }

    /// A number that is the same for plans whose state can be exchanged: it depends on the identities and signatures of
    /// sources and stages with state, not on parallelism, chaining or user functions. Sixteen hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for chain in &self.chains {
            lines.extend(chain.source.iter().map(|source| format!("source {}", source.uid)));
            let stateful = chain.stages.iter().filter(|stage| !stage.signature.is_empty());
            lines.extend(stateful.map(|stage| format!("{} {}", stage.uid, stage.signature)));
        }
        lines.sort();
        format!("{:016x}", fnv(lines.join("\n").bytes()))
    }
}

/// FNV-1a: plain, and the same for ever.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The columns of a stream of records that could not be processed.
pub fn error_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![text("step"), text("error"), text("traceback"), text("record")]))
}
