//! Windows: which records belong together, and what their parts add up to.
//!
//! ```text
//!   record ──assign──► panes: the pieces of time of which windows are made           `aligned`, `assign`
//!   panes ──combine──► the rows of a window                                          `combine`
//! ```

mod aligned;
mod assign;
mod combine;

use mill_plan::{AggregateSpec, WindowSpec};

pub(crate) use aligned::Aligned;
pub(crate) use assign::{Assigned, Assigner, Part, push_late};
pub(crate) use combine::Combiner;

/// Whether overlapping windows share the rows of their panes: if all aggregates can be merged, and a window has one result.
pub(crate) fn shares_panes(spec: &WindowSpec, aggregates: &[AggregateSpec]) -> bool {
    spec.trigger.is_default() && aggregates.iter().all(|aggregate| aggregate.kind.is_mergeable())
}
