//! The contract between the runtime and what it runs: operators, sources and sinks.
//!
//! The runtime knows nothing of plans, expressions or connectors; operators know nothing of threads, clocks or disks.
//! They meet here.
//!
//! ```text
//!             Source ─► SplitReader            Operator                      Sink ─► SinkWriter, Committer
//!                         │  Read                │  Event in, Outbox out             │
//!   runtime:   polls ─────┘            drives ───┘                         drives ───┘ commits after the manifest
//! ```

mod clock;
mod error;
mod operator;
mod sink;
mod snapshot;
mod source;
pub mod testkit;
mod watermarks;

pub use clock::{Clock, ManualClock, SteadyClock, SystemClock, shown_time, with_shown_time};
pub use error::{Error, ErrorKind, Rejected, Result};
pub use operator::{Alignment, Emission, Operator, Outbox, Progress, Quiet, Room, TaskContext, Waiting, Watermark};
pub use sink::{Commit, Committer, Delivery, Ending, PreCommit, Recovered, Run, Sink, SinkKind, SinkWriter};
pub use snapshot::{Epoch, Restored, Snapshot};
pub use source::{
    Comparison, Condition, Discovery, Mark, Position, PositionListener, Read, Source, SourceChanges, SourceProperties, Split, SplitReader, SplitState, Truncation, go_on,
};
pub use watermarks::Watermarks;

pub use mill_frame::{Batch, SplitId};
