//! From the physical plan to what the runtime runs: descriptions become factories.

use std::sync::Arc;

use mill_operators::{build, check_state};
use mill_plan::{self as physical, Mode, OnError, PhysicalPlan, Rung, StageKind};
use mill_protocol::TaskContext;
use mill_runtime::{ChainDef, EdgeDef, EdgeKind, JobGraph, SourceDef, StageBody, StageDef, StateCheck, Target, UserCode};

/// How many records the first call gets of a function that is called once a record. Where one takes a tenth of a second, the
/// others wait for less than one.
const ROWS_FIRST: usize = 8;
/// The same of functions that are called once a frame.
const BATCH_ROWS_FIRST: usize = 64;

/// The runtime's graph for a plan.
pub(crate) fn job_graph(plan: &PhysicalPlan) -> JobGraph {
    JobGraph {
        chains: plan.chains.iter().map(chain).collect(),
        edges: plan.edges.iter().map(edge).collect(),
    }
}

/// The runtime's word for a mode.
pub(crate) fn mode(mode: Mode) -> mill_runtime::Mode {
    match mode {
        Mode::ExactlyOnce => mill_runtime::Mode::ExactlyOnce,
        Mode::AtLeastOnce => mill_runtime::Mode::AtLeastOnce,
        Mode::Dedup => mill_runtime::Mode::Dedup,
        Mode::None => mill_runtime::Mode::None,
    }
}

/// The runtime's word for what happens to bad records.
pub(crate) fn on_error(on_error: OnError) -> mill_runtime::OnError {
    match on_error {
        OnError::Fail => mill_runtime::OnError::Fail,
        OnError::Skip => mill_runtime::OnError::Skip,
        OnError::Route => mill_runtime::OnError::Route,
    }
}

fn chain(chain: &physical::Chain) -> ChainDef {
    ChainDef {
        name: chain.name.clone(),
        parallelism: chain.parallelism,
        source: chain.source.as_ref().map(|stage| SourceDef {
            uid: stage.uid.clone(),
            name: stage.name.clone(),
            source: Arc::clone(&stage.source),
            is_ordered: stage.is_ordered,
            errors: targets(&stage.errors),
        }),
        entries: chain.entries.iter().map(|entry| targets(entry)).collect(),
        stages: chain.stages.iter().map(stage).collect(),
    }
}

fn stage(stage: &physical::Stage) -> StageDef {
    let body = match &stage.kind {
        StageKind::Sink(sink) => StageBody::Sink { sink: Arc::clone(sink), schema: Arc::clone(&stage.schema) },
        _ => {
            let stage = stage.clone();
            StageBody::Operator(Arc::new(move |context: &TaskContext| build(&stage, context)))
        }
    };
    StageDef {
        uid: stage.uid.clone(),
        name: stage.name.clone(),
        step: stage.step.clone(),
        signature: stage.signature.clone(),
        parts: stage.parts.clone(),
        check: is_checked(&stage.kind).then(|| {
            let kind = stage.kind.clone();
            StateCheck(Arc::new(move |bytes, has_other_parts| check_state(&kind, bytes, has_other_parts)))
        }),
        body,
        inputs: stage.kind.inputs(),
        ports: stage.ports.iter().map(|port| targets(port)).collect(),
        errors: targets(&stage.errors),
        user_code: user_code(&stage.kind),
    }
}

/// Whether what a former run has stored may be such that the stage cannot continue from it, though its signature is the same.
fn is_checked(kind: &StageKind) -> bool {
    matches!(
        kind,
        StageKind::Process(_)
            | StageKind::Aggregate { .. }
            | StageKind::WindowAggregate { .. }
            | StageKind::SessionAggregate { .. }
            | StageKind::TriggeredAggregate { .. }
            | StageKind::KeptWindow { .. }
    )
}

fn user_code(kind: &StageKind) -> Option<UserCode> {
    let rows_first = match kind {
        StageKind::Sink(sink) => sink.calls_user_code().then_some(ROWS_FIRST),
        _ => match kind.rung() {
            Rung::Native => None,
            Rung::Compiled | Rung::Batch => Some(BATCH_ROWS_FIRST),
            Rung::Record => Some(ROWS_FIRST),
        },
    };
    let batch_rows = kind.batch_rows();
    batch_rows.or(rows_first).map(|rows_first| UserCode { rows_first, batch_rows })
}

fn targets(targets: &[physical::Target]) -> Vec<Target> {
    targets
        .iter()
        .map(|target| match target {
            physical::Target::Stage(stage, input) => Target::Stage(*stage, *input),
            physical::Target::Edge(edge) => Target::Edge(*edge),
        })
        .collect()
}

fn edge(edge: &physical::Edge) -> EdgeDef {
    EdgeDef {
        from: edge.from,
        to: edge.to,
        entry: edge.entry,
        kind: match &edge.kind {
            physical::EdgeKind::Forward => EdgeKind::Forward,
            physical::EdgeKind::Hash(columns) => EdgeKind::Hash(columns.clone()),
            physical::EdgeKind::Rebalance => EdgeKind::Rebalance,
            physical::EdgeKind::Gather => EdgeKind::Gather,
            physical::EdgeKind::Broadcast => EdgeKind::Broadcast,
        },
        schema: Arc::clone(&edge.schema),
    }
}
