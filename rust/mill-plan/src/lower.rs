//! Lowering: from a logical plan to chains and edges.
//!
//! ```text
//!   sinks ──► StepGraph       each step once, with its name and identity (graph, identities)
//!               │ check   guarantees of sources and sinks (guarantees)
//!               │ rewrite filters go down, event time moves before exchanges (rewrite)
//!               │ prune   only columns that someone needs are read and computed (columns)
//!               ▼
//!         PhysicalPlan    stages in chains, edges where records must change the task (chains, keyed)
//! ```
//!
//! Names and identities are assigned, and what keys and aggregates are made of is noted, before anything is rewritten, so
//! that they depend only on what the user wrote. The passes know no step by name: they ask [the step](crate::steps) for
//! whatever depends on what it does.

mod chains;
mod columns;
mod graph;
mod guarantees;
mod identities;
mod join;
mod keyed;
mod lineage;
mod pushdown;
mod rewrite;
mod waits;

use mill_protocol::{Error, Result};

pub(crate) use self::chains::Builder;
pub(crate) use self::graph::{StepGraph, Vertex, call_name};
pub(crate) use self::guarantees::effective;
pub(crate) use self::join::JoinInputs;
pub(crate) use self::keyed::{Aggregation, KeptWindows, WindowCall, Windowing, rename};
pub(crate) use self::lineage::Lineage;
use crate::outline::Outline;
use crate::physical::PhysicalPlan;
use crate::steps::SinkNode;

/// What the output is worth after a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Each record counts once.
    #[default]
    ExactlyOnce,
    /// Each record counts, some of them twice.
    AtLeastOnce,
    /// Each record counts once, and a task that fails goes back alone.
    Dedup,
    /// Nothing is replayed: what was under way is lost.
    None,
}

impl Mode {
    /// Whether each record counts once.
    pub fn is_exactly_once(self) -> bool {
        matches!(self, Mode::ExactlyOnce | Mode::Dedup)
    }

    /// The word users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::ExactlyOnce => "exactly_once",
            Mode::AtLeastOnce => "at_least_once",
            Mode::Dedup => "dedup",
            Mode::None => "none",
        }
    }
}

/// What becomes of a record that cannot be processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnError {
    /// The job fails.
    #[default]
    Fail,
    /// It is left out and counted.
    Skip,
    /// It goes to the `.errors` of its step.
    Route,
}

/// What a plan is lowered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanOptions {
    /// How many tasks a chain has, where nothing limits it.
    pub parallelism: usize,
    /// The guarantee asked for.
    pub mode: Mode,
    /// Whether checkpoints are stored.
    pub is_checkpointed: bool,
    /// Whether steps are fused into chains; without it each has tasks of its own.
    pub is_chaining: bool,
    /// What becomes of a record that cannot be processed.
    pub on_error: OnError,
}

impl Default for PlanOptions {
    fn default() -> PlanOptions {
        PlanOptions {
            parallelism: 1,
            mode: Mode::ExactlyOnce,
            is_checkpointed: false,
            is_chaining: true,
            on_error: OnError::Fail,
        }
    }
}

/// Checks a plan as a whole, optimises it and cuts it into chains.
///
/// # Errors
/// When the plan cannot keep what the options ask for, or two steps have one name.
pub fn lower(sinks: &[SinkNode], options: &PlanOptions) -> Result<PhysicalPlan> {
    if sinks.is_empty() {
        return Err(Error::plan("there is nothing to run: give at least one sink, such as stream.write_csv(\"out/\")"));
    }
    let highest = usize::from(mill_frame::hash::KEY_GROUPS);
    if options.parallelism == 0 || options.parallelism > highest {
        return Err(Error::plan(format!("parallelism is between 1 and {highest}, found {}", options.parallelism)));
    }
    let mut graph = StepGraph::new(sinks)?;
    guarantees::check(&graph, options)?;
    let outline = Outline::of(&graph);
    rewrite::event_time_before_exchange(&mut graph);
    rewrite::filters_down(&mut graph);
    graph.sort();
    columns::prune(&mut graph)?;
    pushdown::into_sources(&mut graph)?;
    chains::place(&graph, options, outline)
}
