//! How watermarks follow event time.
//!
//! Each split has a watermark of its own, made in one of three ways:
//!
//! | made from | the watermark after a record |
//! | --- | --- |
//! | [`Bound`](WatermarksFrom::Bound) | the greatest event time so far, less a bound |
//! | [`Column`](WatermarksFrom::Column) | the greatest value of a column so far |
//! | [`Function`](WatermarksFrom::Function) | the greatest that a user's function has returned so far |

use std::sync::Arc;

use mill_protocol::Source;

use crate::function::WatermarkFunction;

/// How watermarks follow event time.
#[derive(Clone, Debug)]
pub struct WatermarkStrategy {
    /// What they are made from.
    pub from: WatermarksFrom,
    /// After how long without records a split no longer holds back the others. `None` leaves it to the source: one whose
    /// splits turn up while it is read waits [`FOLLOWED_IDLENESS_US`](WatermarkStrategy::FOLLOWED_IDLENESS_US), others forever.
    pub idleness_us: Option<i64>,
    /// How splits keep together while they are read, if they do.
    pub drift: Option<Drift>,
}

/// What watermarks are made from.
#[derive(Clone, Debug)]
pub enum WatermarksFrom {
    /// The latest event time, less this many microseconds.
    Bound(i64),
    /// A column with a watermark beside some records or all.
    Column(String),
    /// A function of the user's.
    Function(Arc<dyn WatermarkFunction>),
}

/// How far splits may be apart while they are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// How far a split may be ahead of the slowest one, in microseconds.
    pub us_max: i64,
    /// Which steps keep together; `None`: the splits of the one step.
    pub group: Option<String>,
}

impl WatermarkStrategy {
    /// The idleness of a split that is waited for whatever happens.
    pub const WAITS_FOR_EVER: i64 = i64::MAX;
    /// After how long the quiet splits of a followed source are skipped, unless the user says otherwise: a minute. Long
    /// enough for a writer that collects records before it writes them, and short enough that rotated files do not stop time.
    pub const FOLLOWED_IDLENESS_US: i64 = 60_000_000;

    /// Records may be this far out of order.
    pub fn bounded(out_of_orderness_us: i64) -> WatermarkStrategy {
        WatermarkStrategy { from: WatermarksFrom::Bound(out_of_orderness_us), idleness_us: None, drift: None }
    }

    /// The same strategy with this idleness.
    #[must_use]
    pub fn with_idleness(self, idleness_us: Option<i64>) -> WatermarkStrategy {
        WatermarkStrategy { idleness_us, ..self }
    }

    /// The same strategy with splits that keep together so.
    #[must_use]
    pub fn with_drift(self, drift: Option<Drift>) -> WatermarkStrategy {
        WatermarkStrategy { drift, ..self }
    }

    /// After how long a split is skipped of the source that the step reads, if it reads one; `None`: never.
    pub(crate) fn effective_idleness(&self, source: Option<&dyn Source>) -> Option<i64> {
        match self.idleness_us {
            Some(WatermarkStrategy::WAITS_FOR_EVER) => None,
            None => source?.properties().discovers_splits.then_some(WatermarkStrategy::FOLLOWED_IDLENESS_US),
            idleness => idleness,
        }
    }
}
