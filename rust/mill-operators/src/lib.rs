//! The operators: one a file, each over the contract of `mill-protocol`.
//!
//! ```text
//!   mill-plan: Stage { kind, schema, … } ──build()──► Box<dyn Operator>
//!
//!   without state    project filter branch explode unnest pass user
//!   a few numbers    limit (rows left)   event_time (the latest time of each split)
//! ```
//!
//! Invariants: an operator knows no thread, clock or file; what it gives depends on the sequence of records alone and
//! not on how they are cut into frames; its state goes into a snapshot at any record. The test kit
//! ([`mill_protocol::testkit`]) checks all three for each of them.

mod attempt;
mod branch;
mod event_time;
mod explode;
mod filter;
mod limit;
mod pass;
mod project;
mod record;
mod unnest;
mod user;

#[cfg(test)]
mod fixture;

use std::sync::Arc;

use mill_plan::{Stage, StageKind};
use mill_protocol::{Error, Operator, Result, TaskContext};

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
        StageKind::EventTime { column, strategy } => {
            Box::new(event_time::EventTime::new(*column, strategy.clone(), &stage.schema, context)?)
        }
        StageKind::Pass => Box::new(pass::Pass),
        other => {
            let message = format!("no operator is made for a stage of kind {}", other.label());
            return Err(Error::internal(message).in_step(&stage.name));
        }
    })
}
