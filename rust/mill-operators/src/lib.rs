//! The operators: one a file, each over the contract of `mill-protocol`.
//!
//! ```text
//!   mill-plan: Stage { kind, schema, … } ──build()──► Box<dyn Operator>
//!
//!   without state    project filter branch explode unnest pass user from_changelog
//!   a few numbers    limit (rows left)   event_time (the latest time of each split)
//!   in front of an   partial_aggregate: what one task has at hand, passed on before every barrier, so no state
//!   exchange
//!   keyed state      aggregate  window_aggregate (a table a pane)  reduce  top_n  deduplicate  to_changelog, over the
//!                    tables of mill-state
//!                    session_aggregate (a row a session)  triggered_aggregate (a row a key and window, with triggers)
//!                    kept_windows (records by key and time)
//!                    process (states of the user's, timers)
//!                    join (records of two inputs)  regular_join (rows of two inputs that change)
//!   in flight        map_async: the records that a user's asynchronous function works on
//!   two inputs       asof_join  enrich: rows of one input are looked up for those of the other
//! ```
//!
//! Invariants: an operator knows no thread, clock or file; its output depends on the sequence of records alone and
//! not on how they are cut into frames; its state goes into a snapshot at any record. The test kit
//! ([`mill_protocol::testkit`]) checks all three for each of them.

mod accumulator;
mod aggregate;
mod asof_join;
mod attempt;
mod branch;
mod changelog;
mod deduplicate;
mod description;
mod enrich;
mod event_time;
mod explode;
mod filter;
mod join;
mod kept_windows;
mod limit;
mod map_async;
mod partial_aggregate;
mod pair;
mod pass;
mod process;
mod project;
mod reduce;
mod regular_join;
mod row_codec;
mod session_aggregate;
mod shift;
mod state_view;
mod timers;
mod top_n;
mod triggered_aggregate;
mod unnest;
mod user;
mod window_aggregate;
mod windows;

#[cfg(test)]
mod fixture;

use std::sync::Arc;

use mill_frame::block::SharedBytes;
use mill_plan::{JoinKind, LookupKind, Stage, StageKind};
use mill_protocol::{Error, Operator, Result, TaskContext};

pub use state_view::{has_keyed_state, pickled_state, read_state};

/// Fails if a stage cannot continue from the state without key that its former instances have left, though it is found to be the
/// same step: its aggregates may be others, or the states of its function.
///
/// # Errors
/// Says what does not fit, all of it.
pub fn check_state(kind: &StageKind, bytes: &[SharedBytes], has_other_parts: bool) -> Result<()> {
    let Some(first) = bytes.iter().find(|bytes| description::is_described(bytes)) else { return Ok(()) };
    match kind {
        StageKind::Process(process) => process::check_state(&process.states, first),
        kind => accumulator::check_aggregates(kind, first, has_other_parts),
    }
}

/// Makes one parallel instance of a stage.
///
/// # Errors
/// When the stage is a sink (the runtime drives those by another contract), or its columns are not what its kind needs.
pub fn build(stage: &Stage, context: &TaskContext) -> Result<Box<dyn Operator>> {
    let schema = Arc::clone(&stage.schema);
    Ok(match &stage.kind {
        StageKind::Project { exprs } => Box::new(project::Project::new(exprs.clone(), schema)),
        StageKind::Filter(predicate) => Box::new(filter::Filter::new(predicate.clone(), stage.updating.is_some())),
        StageKind::Branch(predicate) => Box::new(branch::Branch::new(predicate.clone())),
        StageKind::Explode { column, keep_empty } => Box::new(explode::Explode::new(*column, *keep_empty, schema)),
        StageKind::Unnest { column } => Box::new(unnest::Unnest::new(*column, schema)),
        StageKind::Limit(rows) => Box::new(limit::Limit::new(*rows)),
        StageKind::User { kind, function } => Box::new(user::User::new(*kind, Arc::clone(function), schema)),
        StageKind::EventTime { column, watermarks, idleness_us, alignment } => {
            let alignment = alignment.clone();
            Box::new(event_time::EventTime::new(*column, watermarks, *idleness_us, alignment, &stage.schema, context)?)
        }
        StageKind::Pass => Box::new(pass::Pass),
        StageKind::PartialAggregate { keys, aggregates, window, bound_type } => {
            let window = window.as_ref().zip(bound_type.clone());
            Box::new(partial_aggregate::PartialAggregate::new(stage, keys, aggregates, window)?)
        }
        StageKind::Aggregate { keys, aggregates, is_partial, emit } => {
            Box::new(aggregate::Aggregate::new(stage, context, keys, aggregates, *is_partial, *emit)?)
        }
        StageKind::WindowAggregate { keys, aggregates, is_partial, window } => {
            Box::new(window_aggregate::WindowAggregate::new(stage, context, keys, aggregates, *is_partial, window)?)
        }
        StageKind::SessionAggregate { keys, aggregates, gap, allowed_lateness_us } => {
            let (gap, allowed_lateness_us) = (*gap, *allowed_lateness_us);
            let parts = session_aggregate::SessionParts { keys, aggregates, gap, allowed_lateness_us };
            Box::new(session_aggregate::SessionAggregate::new(stage, context, parts)?)
        }
        StageKind::TriggeredAggregate { keys, aggregates, spec } => {
            Box::new(triggered_aggregate::TriggeredAggregate::new(stage, context, keys, aggregates, spec)?)
        }
        StageKind::KeptWindow { keys, kept, records, spec, compute } => {
            let parts = kept_windows::KeptParts { keys, kept, records, spec, compute };
            Box::new(kept_windows::KeptWindows::new(stage, context, parts)?)
        }
        StageKind::Reduce { keys, function, emit } => {
            Box::new(reduce::Reduce::new(stage, context, keys, Arc::clone(function), *emit)?)
        }
        StageKind::MapAsync(of) => Box::new(map_async::MapAsync::new(of, schema, context)?),
        StageKind::Process(process) => Box::new(process::Process::new(stage, process, context)?),
        StageKind::TopN { keys, by, rows, emit, window: None } => {
            Box::new(top_n::TopN::new(stage, context, keys, by.clone(), *rows, *emit)?)
        }
        StageKind::TopN { keys, by, rows, emit: _, window: Some(window) } => {
            Box::new(top_n::WindowTopN::new(stage, context, keys, by.clone(), *rows, window)?)
        }
        StageKind::Deduplicate { keys, within_us: None } => {
            Box::new(deduplicate::Deduplicate::new(stage, context, keys)?)
        }
        StageKind::Deduplicate { keys, within_us: Some(us) } => {
            Box::new(deduplicate::DeduplicateWithin::new(stage, context, keys, *us)?)
        }
        StageKind::Shift { keys, rows, columns } => Box::new(shift::Shift::new(stage, context, keys, *rows, columns)?),
        StageKind::Lookup(plan) => match plan.kind {
            LookupKind::Asof { tolerance_us } => {
                Box::new(asof_join::AsofJoin::new(&schema, context, plan, tolerance_us)?)
            }
            LookupKind::Enrich { rows, until_loaded } => {
                Box::new(enrich::Enrich::new(&schema, context, plan, (rows, until_loaded))?)
            }
        },
        StageKind::ToChangelog { keys } => Box::new(changelog::ToChangelog::of(stage, context, keys)?),
        StageKind::LatestRows { keys, by } => Box::new(changelog::LatestRows::new(stage, context, keys, by)?),
        StageKind::FromChangelog { op } => Box::new(changelog::FromChangelog::new(*op, schema)),
        StageKind::Join(plan) => match plan.kind {
            JoinKind::Session { gap_us } => Box::new(join::SessionJoin::new(stage, context, plan, gap_us)?),
            JoinKind::Interval { .. } | JoinKind::Window(_) => Box::new(join::BufferedJoin::new(stage, context, plan)?),
        },
        StageKind::RegularJoin(plan) => Box::new(regular_join::RegularJoin::new(stage, context, plan)?),
        StageKind::Sink(_) => {
            return Err(Error::internal("no operator is made for a sink").in_step(&stage.step));
        }
    })
}
