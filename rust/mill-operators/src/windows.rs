//! Windows: which records belong together, and what their parts add up to.
//!
//! ```text
//!   record ──assign──► panes: the pieces of time of which windows are made           `aligned`, `assign`
//!   panes ──combine──► the rows of a window                                          `combine`
//! ```

mod aligned;
mod assign;
mod bounds;
mod combine;
mod gaps;
mod period;
mod sparse;
mod timing;
mod triggers;

use mill_plan::AggregateSpec;

pub(crate) use aligned::{Aligned, Pane};
pub(crate) use assign::{Assigned, Assigner, Part, push_late};
pub(crate) use bounds::{bound_columns, time_column, time_values, within_reach};
pub(crate) use combine::Combiner;
pub(crate) use gaps::Gaps;
pub(crate) use sparse::{Sparse, is_scattered};
pub(crate) use timing::{Emitted, Timing};
pub(crate) use triggers::Triggers;

#[cfg(test)]
pub(crate) use aligned::tests;

/// Whether overlapping windows share the rows of their panes: if all aggregates can be merged.
pub(crate) fn shares_panes(windows: &Aligned, aggregates: &[AggregateSpec]) -> bool {
    windows.is_overlapping() && aggregates.iter().all(|aggregate| aggregate.kind.is_mergeable())
}
