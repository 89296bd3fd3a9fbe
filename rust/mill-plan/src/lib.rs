//! The plan: what the user declared, checked, optimised and lowered to chains.
//!
//! ```text
//!   Expr ──bind to a schema──► CompiledExpr            col("x") * 2  ──►  typed kernels over Arrow columns
//!     │
//!   Stream ──lower──► PhysicalPlan                      source ► filter ► key_by ► agg ► sink
//!     each step checked       chains, edges, stages       ──►  [source filter project partial] ═hash═► [agg sink]
//!     when it is added        with identities
//! ```
//!
//! Everything that can be known to be wrong is an error here, before the first record: unknown columns and functions,
//! types that don't fit, an updating stream into an append-only sink, a source or sink that cannot keep the guarantee
//! asked for. This crate knows no thread, file or clock: it only describes.

mod aggregate;
mod asynchronous;
mod compiled;
mod expr;
mod function;
mod functions;
mod join;
mod logical;
mod lookup;
mod lower;
mod now;
mod outline;
mod physical;
mod process;
mod regular_join;
mod steps;
mod stream;
mod suggest;
mod types;
mod watermark;
mod window;

pub use aggregate::{AggregateCall, AggregateKind, AggregateSpec};
pub use asynchronous::{AsyncAnswers, AsyncCalls, AsyncFunction, AsyncTask};
pub use compiled::CompiledExpr;
pub use expr::{BinaryOp, DEPTH_MAX, ELEMENT_COLUMN, Expr, INDEX_COLUMN, UnaryOp};
pub use function::{
    AggregateFunction, BatchFunction, ColumnFunction, Origin, ReduceFunction, Rung, UserCall, UserOutput, UserPieces,
    WatermarkFunction, WatermarkGenerator, Watermarked, WindowFunction, WindowRecords,
};
pub use join::{How, JoinKind, JoinPlan, JoinedColumn};
pub use logical::{LogicalPlan, LogicalStep, Parameters};
pub use lookup::{LookupKind, LookupPlan, TableRows, UntilLoaded};
pub use lower::{Mode, OnError, PlanOptions, lower};
pub use outline::{Difference, DifferenceKind, Outline};
pub use physical::{
    AsyncStage, BroadcastStage, Chain, Edge, EdgeKind, Graph, GraphEdge, GraphNode, Ordering, PhysicalPlan, ProcessStage, Shifted,
    SourceStage, Stage, StageKind, Target, WatermarksOf, WindowCompute, error_schema,
};
pub use process::{
    BroadcastStates, Migration, ProcessCall, ProcessEvents, ProcessFailure, ProcessFunction, ProcessOrigin, ProcessOutput, ProcessRows, ProcessTask,
    StateSpec, TimerAction, TimerChange, TimerClock, Ttl,
};
pub use regular_join::{RegularJoinPlan, RowIdentity};
pub use steps::{BroadcastCall, JoinCall, JoinOn, SinkNode, UserStepKind, WindowedStream};
pub use stream::{Emit, EventTime, Facts, KeyedStream, Output, Stream};
pub use suggest::nearest;
pub use types::type_name;
pub use watermark::{Drift, WatermarkStrategy, WatermarksFrom};
pub use window::{
    CountWindow, Firing, Gap, KeptWindow, KeptWindowSpec, SessionGap, Trigger, Window, WindowKind, WindowSpec,
};

pub use datafusion_common::ScalarValue;
