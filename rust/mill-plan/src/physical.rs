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
mod keeps;
mod kind;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_protocol::Source;

pub use self::graph::{Graph, GraphEdge, GraphNode};
pub(crate) use self::kind::described_state;
pub use self::kind::{AsyncStage, BroadcastStage, Ordering, ProcessStage, Shifted, StageKind, WatermarksOf, WindowCompute};
use crate::lower::PlanOptions;
use crate::outline::Outline;

/// A job as chains and edges.
#[derive(Clone, Debug)]
pub struct PhysicalPlan {
    /// The chains, sources first: an edge always leads from a lower to a higher index.
    pub chains: Vec<Chain>,
    /// What joins them.
    pub edges: Vec<Edge>,
    /// What the plan was made for.
    pub options: PlanOptions,
    /// The plan as the user wrote it, for comparison with that of another run.
    pub outline: Outline,
    /// Steps that have another name than before, with the one that they had.
    pub renamed: Vec<(String, String)>,
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
    /// Where the records of each entry go first: the source is entry 0, and an edge names its own.
    pub entries: Vec<Vec<Target>>,
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
    /// Whether something downstream depends on the order of records within a split.
    pub is_ordered: bool,
    /// Where records go that could not be read, if anyone asked for them.
    pub errors: Vec<Target>,
}

/// One stage of a chain.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The identity of its state.
    pub uid: String,
    /// Its name in plans and figures.
    pub name: String,
    /// The name that the user's step has, which is the one for messages: `agg` of the stage `agg.partial`.
    pub step: String,
    /// What it does.
    pub kind: StageKind,
    /// The columns it returns on port 0.
    pub schema: SchemaRef,
    /// Where the records of each port go. An output nobody asked for has no target.
    pub ports: Vec<Vec<Target>>,
    /// The name of each port: that of the step's output, `result` for the first one of most steps.
    pub outputs: Vec<Cow<'static, str>>,
    /// Where records go that could not be processed, if anyone asked for them; see [`error_schema`].
    pub errors: Vec<Target>,
    /// What must be the same for its state to be taken up again, readable; empty for a stage without state.
    pub signature: String,
    /// The parts of the signature that may come and go without the rest: the aggregates, by column, and what each is.
    pub parts: Vec<(String, String)>,
    /// Set where the stage's *input* is an updating stream: the columns of the input that are its key. A filter then
    /// turns rows that do not pass into deletes of their key, and a sink upserts.
    pub updating: Option<Vec<usize>>,
}

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A stage of the same chain, and the number of its input.
    Stage(usize, usize),
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
    /// The entry of that chain.
    pub entry: usize,
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
    /// Each record to every task; it comes from one task, so that all of them get the records in the same order.
    Broadcast,
}

impl PhysicalPlan {
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

/// FNV-1a: plain, and the same forever.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The columns of a stream of records that could not be processed.
pub fn error_schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![text("step"), text("error"), text("traceback"), text("record")]))
}
