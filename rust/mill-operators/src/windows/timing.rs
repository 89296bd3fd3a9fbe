//! When a window has a result, as the columns `pane` and `pane_timing` say.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};

/// When a window has a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timing {
    Early,
    OnTime,
    Late,
}

impl Timing {
    /// The word for it in results.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Timing::Early => "early",
            Timing::OnTime => "on_time",
            Timing::Late => "late",
        }
    }
}

/// Which result of its window a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Emitted {
    /// How many results the window has had before.
    pub(crate) pane: i64,
    pub(crate) timing: Timing,
}

impl Emitted {
    /// The columns `pane` and `pane_timing` of these results.
    pub(crate) fn columns(results: impl Iterator<Item = Emitted> + Clone) -> Vec<ArrayRef> {
        let panes: Int64Array = results.clone().map(|result| Some(result.pane)).collect();
        let timings: StringArray = results.map(|result| Some(result.timing.as_str())).collect();
        vec![Arc::new(panes), Arc::new(timings)]
    }
}
