//! Streams: the logical plan, built step by step and checked at every step.
//!
//! A [`Stream`] is a handle on an output of a step; steps form an acyclic graph that handles share. Adding a step checks
//! it at once against what is known of its input (columns and types, boundedness, event time, whether it is updating), so
//! that a mistake is an error at the user's line. Nothing is ever changed in place: the same stream may be used several
//! times, and is then read once.

mod aggregate;
mod checks;
mod keyed;
mod sink;
mod steps;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::types::check_fields;
use mill_protocol::{Error, Result, Source};

pub(crate) use self::aggregate::AggregateParts;
pub(crate) use self::checks::column_index;
pub(crate) use self::keyed::key_fields;
pub use self::keyed::{KeyedStream, WindowedStream};
pub use self::sink::SinkNode;
use crate::expr::Expr;
use crate::function::{BatchFunction, ReduceFunction};
use crate::lower::PlanOptions;
use crate::physical::error_schema;
use crate::window::WindowSpec;
pub(crate) use crate::window::duration;

/// How many steps may follow one another.
pub const STEPS_MAX: usize = 2000;

/// The records that come out of a step.
#[derive(Clone)]
pub struct Stream {
    pub(crate) node: Arc<Node>,
    pub(crate) port: Port,
}

/// Which output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    /// The result.
    Out,
    /// What a branch says no to.
    No,
    /// What came too late for its window.
    Late,
    /// What could not be processed.
    Errors,
}

/// A step.
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<Stream>,
    /// The columns of port `Out`.
    pub(crate) schema: SchemaRef,
    pub(crate) facts: Facts,
    depth: usize,
}

/// What a step does.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Source(Arc<dyn Source>),
    /// One expression a column; `verb` is what the user called.
    Project { exprs: Vec<Expr>, verb: &'static str },
    Filter(Expr),
    Branch(Expr),
    Explode { column: String, keep_empty: bool },
    Unnest(String),
    Limit(u64),
    Union,
    Rebalance,
    /// Names the step it stands on.
    Named(String),
    EventTime { column: String, strategy: WatermarkStrategy },
    User { kind: UserStepKind, function: Arc<dyn BatchFunction> },
    Aggregate { keys: Vec<String>, aggregates: Vec<Expr>, emit: Emit },
    Window { keys: Vec<String>, aggregates: Vec<Expr>, window: WindowSpec },
    Reduce { keys: Vec<String>, function: Arc<dyn ReduceFunction>, emit: Emit },
}

impl Op {
    /// The word for it in names and messages.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Op::Source(_) => "source",
            Op::Project { verb, .. } => verb,
            Op::Filter(_) => "filter",
            Op::Branch(_) => "branch",
            Op::Explode { .. } => "explode",
            Op::Unnest(_) => "unnest",
            Op::Limit(_) => "limit",
            Op::Union => "union",
            Op::Rebalance => "rebalance",
            Op::Named(_) => "name",
            Op::EventTime { .. } => "event_time",
            Op::User { kind, .. } => kind.label(),
            Op::Aggregate { .. } => "agg",
            Op::Window { .. } => "window",
            Op::Reduce { .. } => "reduce",
        }
    }

    /// Whether the step keeps state (or positions) of its own.
    pub(crate) fn is_stateful(&self) -> bool {
        matches!(
            self,
            Op::Source(_)
                | Op::Limit(_)
                | Op::EventTime { .. }
                | Op::Aggregate { .. }
                | Op::Window { .. }
                | Op::Reduce { .. }
        )
    }

    /// Whether single records can fail in the step.
    fn can_fail(&self) -> bool {
        !matches!(self, Op::Limit(_) | Op::Union | Op::Rebalance | Op::Named(_) | Op::Unnest(_) | Op::Explode { .. })
    }
}

/// What is known of a stream besides its columns.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) is_bounded: bool,
    pub(crate) event_time: Option<EventTime>,
    /// The key columns whose latest row counts, in an updating stream.
    pub(crate) updating: Option<Vec<String>>,
}

/// Where a stream's event time came from.
#[derive(Clone, Debug)]
pub(crate) struct EventTime {
    /// The column that still holds it, if any.
    pub(crate) column: Option<String>,
    /// The timestamp type of window bounds.
    pub(crate) data_type: DataType,
}

/// How the user called a function of whole records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UserStepKind {
    /// One record in, one out.
    Map,
    /// One record in, any number out.
    FlatMap,
    /// Keeps records or not.
    Filter,
    /// Batches in, batches out.
    MapBatches,
    /// Looks at records and passes them on as they are.
    Inspect,
}

impl UserStepKind {
    /// The method's name.
    pub fn label(self) -> &'static str {
        match self {
            UserStepKind::Map => "map",
            UserStepKind::FlatMap => "flat_map",
            UserStepKind::Filter => "filter",
            UserStepKind::MapBatches => "map_batches",
            UserStepKind::Inspect => "inspect",
        }
    }
}

/// When a keyed step without windows gives results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Emit {
    /// `End` on bounded input, every second on unbounded.
    Default,
    /// Once a key, when the input ends.
    End,
    /// What changed, every so many microseconds.
    Every(i64),
    /// What changed, at each checkpoint.
    Checkpoint,
    /// At each record.
    Each,
}

impl fmt::Display for Emit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Emit::Default => f.write_str("default"),
            Emit::End => f.write_str("end"),
            Emit::Every(us) => f.write_str(&duration(*us)),
            Emit::Checkpoint => f.write_str("checkpoint"),
            Emit::Each => f.write_str("each"),
        }
    }
}

/// How watermarks follow event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatermarkStrategy {
    /// How far records may be out of order: the watermark lags this far behind the latest time seen.
    pub out_of_orderness_us: i64,
    /// After how long without records a split no longer holds back the others; never if absent.
    pub idleness_us: Option<i64>,
}

impl Stream {
    /// The records of a source.
    pub fn source(source: Arc<dyn Source>) -> Stream {
        let schema = source.schema();
        let facts = Facts { is_bounded: source.properties().is_bounded, event_time: None, updating: None };
        let node = Node { op: Op::Source(source), inputs: Vec::new(), schema, facts, depth: 1 };
        Stream { node: Arc::new(node), port: Port::Out }
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        match self.port {
            Port::Out | Port::No => Arc::clone(&self.node.schema),
            Port::Late => self.node.inputs[0].schema(),
            Port::Errors => error_schema(),
        }
    }

    /// What is known of the stream besides its columns.
    pub(crate) fn facts(&self) -> Facts {
        match self.port {
            Port::Out | Port::No => self.node.facts.clone(),
            Port::Late => self.node.inputs[0].facts(),
            Port::Errors => {
                Facts { is_bounded: self.node.facts.is_bounded, event_time: None, updating: None }
            }
        }
    }

    /// Whether the stream ends.
    pub fn is_bounded(&self) -> bool {
        self.node.facts.is_bounded
    }

    /// Whether records have an event time.
    pub fn has_event_time(&self) -> bool {
        self.facts().event_time.is_some()
    }

    /// The column that holds the event time, if there is one and it is still there.
    pub fn event_time_column(&self) -> Option<String> {
        self.facts().event_time.and_then(|time| time.column)
    }

    /// The key columns of an updating stream, one in which the latest row of a key counts; `None` for a stream that only
    /// grows.
    pub fn is_updating(&self) -> Option<&[String]> {
        match self.port {
            Port::Out | Port::No => self.node.facts.updating.as_deref(),
            Port::Late | Port::Errors => None,
        }
    }

    /// The plan as text, as it would run into a table with these options.
    ///
    /// # Errors
    /// When the plan as a whole cannot be run so.
    pub fn explain(&self, options: &PlanOptions) -> Result<String> {
        Ok(crate::lower::lower(&[sink::preview(self)?], options)?.explain())
    }

    /// A new step on these inputs.
    fn step(op: Op, inputs: Vec<Stream>, schema: SchemaRef, facts: Facts) -> Result<Stream> {
        let depth = 1 + inputs.iter().map(|input| input.node.depth).max().unwrap_or(0);
        if depth > STEPS_MAX {
            return Err(Error::plan(format!("more than {STEPS_MAX} steps follow one another; split the job")));
        }
        check_fields(schema.fields()).map_err(|error| Error::schema(error.to_string()).in_step(op.label()))?;
        let node = Node { op, inputs, schema, facts, depth };
        Ok(Stream { node: Arc::new(node), port: Port::Out })
    }

    /// The step itself, behind any names given to it.
    pub(crate) fn unnamed(&self) -> &Stream {
        let mut stream = self;
        while let Op::Named(_) = stream.node.op {
            stream = &stream.node.inputs[0];
        }
        stream
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}: ", self.node.op.label())?;
        for (i, field) in self.schema().fields().iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{} {}", field.name(), crate::types::type_name(field.data_type()))?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests;
