//! What a stage does, and all that the plan knows of it. A new operator is a variant here.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::words::counted;
use mill_protocol::{Alignment, Sink};

use super::explain::names;
use crate::aggregate::{AggregateKind, AggregateSpec};
use crate::asynchronous::{AsyncCalls, AsyncFunction};
use crate::compiled::CompiledExpr;
use crate::function::{BatchFunction, ReduceFunction, Rung, WatermarkFunction, WindowFunction};
use crate::join::JoinPlan;
use crate::lookup::{LookupPlan, UntilLoaded};
use crate::process::{ProcessFunction, StateSpec, TimerClock};
use crate::regular_join::RegularJoinPlan;
use crate::steps::UserStepKind;
use crate::stream::{Emit, duration};
use crate::types::{holds_objects, is_object, type_name};
use crate::window::{KeptWindow, KeptWindowSpec, SessionGap, WindowKind, WindowSpec};

/// What rows are sorted by. Nulls come last.
#[derive(Clone, Debug)]
pub struct Ordering {
    /// The value.
    pub expr: CompiledExpr,
    /// Whether the greatest comes first.
    pub is_descending: bool,
}

/// A column that [`StageKind::Shift`] adds.
#[derive(Clone, Debug)]
pub struct Shifted {
    /// What is kept of each row; its name is that of the column.
    pub expr: CompiledExpr,
    /// What is computed of the value of a row and of an earlier one; without it the earlier one is what is added.
    pub(crate) difference: Option<CompiledExpr>,
}

/// What a stage does.
#[derive(Clone, Debug)]
pub enum StageKind {
    /// Computes new columns.
    Project {
        /// One a column.
        exprs: Vec<CompiledExpr>,
    },
    /// Keeps rows for which it is true.
    Filter(CompiledExpr),
    /// Sends rows for which it is true to port 0, the others (null too) to port 1.
    Branch(CompiledExpr),
    /// One row for each element of a list column; the other columns are repeated.
    Explode {
        /// The list column.
        column: usize,
        /// Whether an empty or null list becomes one row with null, instead of none.
        keep_empty: bool,
    },
    /// Puts the fields of a struct column in its place.
    Unnest {
        /// The struct column.
        column: usize,
    },
    /// The first rows, this many.
    Limit(u64),
    /// A user's function of batches.
    User {
        /// How the user called it.
        kind: UserStepKind,
        /// The function.
        function: Arc<dyn BatchFunction>,
    },
    /// Takes event time from a column and makes watermarks.
    EventTime {
        /// The column with the time.
        column: usize,
        /// What watermarks are made from.
        watermarks: WatermarksOf,
        /// After how long without records a split is skipped, in microseconds; `None`: never.
        idleness_us: Option<i64>,
        /// How splits keep together while they are read, if they do.
        alignment: Option<Alignment>,
    },
    /// Aggregates what one task has at hand, before the exchange. Output: the start of the window (`window_start`,
    /// int64, microseconds) if windowed, of the pane where windows overlap; there a column (`is_window`, bool) says which rows
    /// are of a single window after all; then the keys, then the partial columns of each aggregate. If windowed, rows that
    /// are late go out on port 1 as they came.
    PartialAggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// The windows, if any.
        window: Option<WindowSpec>,
        /// The type that the bounds of windows have in results, if there are windows.
        bound_type: Option<DataType>,
    },
    /// One result a key.
    Aggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// Whether the input are partial results: keys, then the partial columns of each aggregate.
        is_partial: bool,
        /// When results are emitted.
        emit: Emit,
    },
    /// One result a key and window: keys, `window_start`, `window_end`, aggregates. Late rows go out on port 1 as they
    /// came.
    WindowAggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// Whether the input are partial results: `window_start` (int64, microseconds), keys, partial columns.
        is_partial: bool,
        /// The windows.
        window: WindowSpec,
    },
    /// One result a key and session, of aggregates that can be merged: keys, `window_start`, `window_end`, aggregates. Late rows
    /// go out on port 1 as they came.
    SessionAggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// What ends a session.
        gap: SessionGap,
        /// How long after its end a session takes records, in microseconds.
        allowed_lateness_us: i64,
    },
    /// One row of accumulators a key and window, of windows that have results before and after their end, or whose end no time
    /// tells: keys, `window_start` and `window_end` of windows of event time, `pane` and `pane_timing` if there is a trigger,
    /// aggregates. Late rows go out on port 1 as they came.
    TriggeredAggregate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What is computed.
        aggregates: Vec<AggregateSpec>,
        /// The windows, of which [`KeptWindowSpec::is_of_rows`] holds.
        spec: KeptWindowSpec,
    },
    /// Keeps the records of windows and computes results of them: keys, `window_start` and `window_end` of windows of event
    /// time, `pane` and `pane_timing` if there is a trigger, then what is computed. Late rows go out on port 1 as they came.
    KeptWindow {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// The columns of the input that are kept.
        kept: Vec<usize>,
        /// What the kept columns are.
        records: SchemaRef,
        /// The windows.
        spec: KeptWindowSpec,
        /// What is computed.
        compute: WindowCompute,
    },
    /// A user's fold, one row a key with the columns of the input.
    Reduce {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// The fold.
        function: Arc<dyn ReduceFunction>,
        /// When results are emitted.
        emit: Emit,
    },
    /// The first rows of each key with their rank, in the order of their values. With windows: those of each key and window,
    /// with `window_start` and `window_end` before the rank, when the window is complete; late rows go out on port 1 as they
    /// came.
    TopN {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// What rows are sorted by.
        by: Vec<Ordering>,
        /// How many rows a key has at most.
        rows: usize,
        /// When results are emitted, without windows.
        emit: Emit,
        /// The windows, if any.
        window: Option<WindowSpec>,
    },
    /// The first row of each key; with `within_us` the first of those whose event times are less than that apart, and late
    /// rows go out on port 1 as they came.
    Deduplicate {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// For how long a key lets no other row pass, in microseconds; forever if absent.
        within_us: Option<i64>,
    },
    /// Adds columns with what the row of the key that came so many rows before had, or the difference to it.
    Shift {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// How many rows before.
        rows: usize,
        /// The columns, which come after those of the input.
        columns: Vec<Shifted>,
    },
    /// The changes of an updating stream, each with its kind (`insert`, `update`, `delete`) before its columns.
    ToChangelog {
        /// The key columns of the input.
        keys: Vec<usize>,
    },
    /// The changes of an updating stream, in which a row that gets other values in some columns withdraws the one before.
    LatestRows {
        /// The key columns of the input.
        keys: Vec<usize>,
        /// Those columns.
        by: Vec<usize>,
    },
    /// The updating stream that such changes make.
    FromChangelog {
        /// The column with the kind of change, which the result does not have.
        op: usize,
    },
    /// Joins two inputs: the columns that the plan names, of each pair of records. Late records go out as they came, those of
    /// the left input on port 1 and those of the right one on port 2.
    Join(Arc<JoinPlan>),
    /// Joins all rows of two inputs that have the same key, as they come, change and go. Late records go out as those of a
    /// join do.
    RegularJoin(Arc<RegularJoinPlan>),
    /// Looks rows of its second input up for those of its first one. Late records go out as those of a join do.
    Lookup(Arc<LookupPlan>),
    /// A user's function of the records and timers of each key, with state.
    Process(Box<ProcessStage>),
    /// A user's asynchronous function of records, with those that it is working on.
    MapAsync(Box<AsyncStage>),
    /// Writes records out.
    Sink(Arc<dyn Sink>),
    /// Passes records on as they are: a union, a rebalance.
    Pass,
}

/// A user's function of the records and timers of each key.
#[derive(Clone, Debug)]
pub struct ProcessStage {
    /// The key columns of the input.
    pub keys: Vec<usize>,
    /// The columns of the input.
    pub records: SchemaRef,
    /// The function.
    pub function: Arc<dyn ProcessFunction>,
    /// What it keeps of each key.
    pub states: Vec<StateSpec>,
    /// The columns of its outputs beside the result, which are ports from 1 on.
    pub sides: Vec<SchemaRef>,
    /// Whether records have an event time.
    pub is_timed: bool,
    /// The stream of which every task gets all records, as its second input.
    pub broadcast: Option<BroadcastStage>,
}

/// A stream of which every task of a process function gets all records, in the same order.
#[derive(Clone, Debug)]
pub struct BroadcastStage {
    /// Its columns.
    pub records: SchemaRef,
    /// What is kept of it, the same in each task.
    pub states: Vec<StateSpec>,
    /// Whether its watermark counts.
    pub is_timed: bool,
    /// What becomes of records of the keyed stream before it has ended.
    pub until_loaded: UntilLoaded,
}

/// A user's asynchronous function of records.
#[derive(Clone, Debug)]
pub struct AsyncStage {
    /// The function.
    pub function: Arc<dyn AsyncFunction>,
    /// How it is called.
    pub calls: AsyncCalls,
    /// The columns of the input.
    pub records: SchemaRef,
}

/// What the watermarks of a split are made from.
#[derive(Clone, Debug)]
pub enum WatermarksOf {
    /// The latest event time, less this many microseconds.
    Bound(i64),
    /// A column with a watermark beside some records or all.
    Column(usize),
    /// A function of the user's.
    Function {
        /// The function.
        function: Arc<dyn WatermarkFunction>,
        /// The columns it looks at.
        columns: Vec<usize>,
    },
}

/// What is computed of the records of a window.
#[derive(Clone, Debug)]
pub enum WindowCompute {
    /// Aggregates over the kept columns.
    Aggregates(Vec<AggregateSpec>),
    /// A user's fold over all columns.
    Reduce(Arc<dyn ReduceFunction>),
    /// A user's function of all records.
    Apply(Arc<dyn WindowFunction>),
}

impl StageKind {
    /// The word for it in plans and messages.
    pub fn label(&self) -> &'static str {
        match self {
            StageKind::Project { .. } => "project",
            StageKind::Filter(_) => "filter",
            StageKind::Branch(_) => "branch",
            StageKind::Explode { .. } => "explode",
            StageKind::Unnest { .. } => "unnest",
            StageKind::Limit(_) => "limit",
            StageKind::User { kind, .. } => kind.label(),
            StageKind::EventTime { .. } => "event_time",
            StageKind::PartialAggregate { .. } => "partial",
            StageKind::Aggregate { .. } => "agg",
            StageKind::WindowAggregate { .. }
            | StageKind::SessionAggregate { .. }
            | StageKind::TriggeredAggregate { .. }
            | StageKind::KeptWindow { .. } => "window",
            StageKind::Reduce { .. } => "reduce",
            StageKind::TopN { .. } => "top_n",
            StageKind::Deduplicate { .. } => "deduplicate",
            StageKind::Shift { columns, .. } => if columns.iter().all(|column| column.difference.is_some()) { "diff" } else { "shift" },
            StageKind::ToChangelog { .. } => "to_changelog",
            StageKind::LatestRows { .. } => "latest rows",
            StageKind::FromChangelog { .. } => "from_changelog",
            StageKind::Join(plan) => plan.kind.label(),
            StageKind::RegularJoin(_) => "join",
            StageKind::Lookup(plan) => plan.kind.label(),
            StageKind::Process(_) => "process",
            StageKind::MapAsync(stage) => stage.calls.label(),
            StageKind::Sink(_) => "sink",
            StageKind::Pass => "pass",
        }
    }

    /// On which rung of the ladder it runs.
    pub fn rung(&self) -> Rung {
        match self {
            StageKind::Project { exprs } => exprs.iter().map(CompiledExpr::rung).max_by_key(|r| *r as u8).unwrap_or(Rung::Native),
            StageKind::Filter(expr) | StageKind::Branch(expr) => expr.rung(),
            StageKind::User { function, .. } => function.rung(),
            StageKind::EventTime { watermarks: WatermarksOf::Function { .. }, .. } => Rung::Batch,
            StageKind::Reduce { function, .. } => function.rung(),
            StageKind::Process(stage) => stage.function.rung(),
            StageKind::MapAsync(stage) => stage.function.rung(),
            StageKind::KeptWindow { compute: WindowCompute::Reduce(function), .. } => function.rung(),
            StageKind::KeptWindow { compute: WindowCompute::Apply(function), .. } => function.rung(),
            StageKind::Aggregate { aggregates, .. }
            | StageKind::WindowAggregate { aggregates, .. }
            | StageKind::SessionAggregate { aggregates, .. }
            | StageKind::TriggeredAggregate { aggregates, .. }
            | StageKind::KeptWindow { compute: WindowCompute::Aggregates(aggregates), .. } => {
                let is_user = |spec: &AggregateSpec| matches!(spec.kind, AggregateKind::User(_));
                if aggregates.iter().any(is_user) { Rung::Batch } else { Rung::Native }
            }
            StageKind::TopN { by, .. } => by.iter().map(|by| by.expr.rung()).max_by_key(|r| *r as u8).unwrap_or(Rung::Native),
            StageKind::Shift { columns, .. } => columns.iter().map(|of| of.expr.rung()).max_by_key(|r| *r as u8).unwrap_or(Rung::Native),
            StageKind::Explode { .. }
            | StageKind::Unnest { .. }
            | StageKind::Limit(_)
            | StageKind::EventTime { .. }
            | StageKind::Deduplicate { .. }
            | StageKind::ToChangelog { .. }
            | StageKind::LatestRows { .. }
            | StageKind::FromChangelog { .. }
            | StageKind::Join(_)
            | StageKind::RegularJoin(_)
            | StageKind::Lookup(_)
            | StageKind::PartialAggregate { .. }
            | StageKind::Sink(_)
            | StageKind::Pass => Rung::Native,
        }
    }

    /// How many records its function gets a call at most, if the user has said so.
    pub fn batch_rows(&self) -> Option<usize> {
        match self {
            StageKind::User { function, .. } => function.batch_rows(),
            _ => None,
        }
    }

    /// How many inputs it has.
    pub fn inputs(&self) -> usize {
        match self {
            StageKind::Join(_) | StageKind::RegularJoin(_) | StageKind::Lookup(_) => 2,
            StageKind::Process(stage) if stage.broadcast.is_some() => 2,
            _ => 1,
        }
    }

    /// Whether it keeps state that a checkpoint holds.
    pub fn is_stateful(&self) -> bool {
        match self {
            StageKind::Limit(_)
            | StageKind::EventTime { .. }
            | StageKind::Aggregate { .. }
            | StageKind::WindowAggregate { .. }
            | StageKind::SessionAggregate { .. }
            | StageKind::TriggeredAggregate { .. }
            | StageKind::KeptWindow { .. }
            | StageKind::Reduce { .. }
            | StageKind::TopN { .. }
            | StageKind::Deduplicate { .. }
            | StageKind::Shift { .. }
            | StageKind::ToChangelog { .. }
            | StageKind::LatestRows { .. }
            | StageKind::Join(_)
            | StageKind::RegularJoin(_)
            | StageKind::Lookup(_)
            | StageKind::Process(_)
            | StageKind::MapAsync(_)
            | StageKind::Sink(_) => true,
            StageKind::Project { .. }
            | StageKind::Filter(_)
            | StageKind::Branch(_)
            | StageKind::Explode { .. }
            | StageKind::Unnest { .. }
            | StageKind::User { .. }
            | StageKind::PartialAggregate { .. }
            | StageKind::FromChangelog { .. }
            | StageKind::Pass => false,
        }
    }

    /// What it does, in a line; `schema` is that of its result.
    pub(super) fn detail(&self, schema: &arrow::datatypes::Schema) -> String {
        let by = |first: usize, keys: &[usize]| {
            let places: Vec<usize> = (first..first + keys.len()).collect();
            if places.is_empty() { "nothing".to_owned() } else { names(schema, &places) }
        };
        match self {
            StageKind::Project { exprs } => projected(exprs),
            StageKind::Filter(predicate) | StageKind::Branch(predicate) => predicate.to_string(),
            StageKind::Explode { column, keep_empty } => {
                format!("{}{}", names(schema, &[*column]), if *keep_empty { ", keep_empty=True" } else { "" })
            }
            StageKind::Unnest { column } => format!("column {column}"),
            StageKind::Limit(rows) => rows.to_string(),
            StageKind::User { function, .. } => function.name(),
            StageKind::EventTime { column, watermarks, idleness_us, alignment } => {
                let made = match watermarks {
                    WatermarksOf::Bound(us) => format!("{:?}", duration(*us)),
                    WatermarksOf::Column(column) => format!("the column {}", names(schema, &[*column])),
                    WatermarksOf::Function { function, .. } => function.name(),
                };
                let mut text = format!("{}, watermark={made}", names(schema, &[*column]));
                if let Some(idle) = idleness_us {
                    text.push_str(&format!(", idle after {:?}", duration(*idle)));
                }
                if let Some(alignment) = alignment {
                    text.push_str(&format!(", drift of at most {:?}", duration(alignment.drift_us_max)));
                }
                text
            }
            StageKind::PartialAggregate { keys, aggregates: specs, window, .. } => match window {
                Some(spec) => {
                    let first = if spec.window.is_overlapping() { 2 } else { 1 };
                    format!("by {}, {}: {}", by(first, keys), spec.window, aggregates(specs))
                }
                None => format!("by {}: {}", by(0, keys), aggregates(specs)),
            },
            StageKind::Aggregate { keys, aggregates: specs, emit, .. } => {
                let emit = if *emit == Emit::Default { String::new() } else { format!(", emit={:?}", emit.to_string()) };
                format!("by {}: {}{emit}", by(0, keys), aggregates(specs))
            }
            StageKind::WindowAggregate { keys, aggregates: specs, window: spec, .. } => {
                format!("by {}, {}{}: {}", by(0, keys), spec.window, lateness(spec.allowed_lateness_us), aggregates(specs))
            }
            StageKind::SessionAggregate { keys, aggregates: specs, gap, allowed_lateness_us } => {
                let lateness = match allowed_lateness_us {
                    0 => String::new(),
                    us => format!(", allowed_lateness={:?}", duration(*us)),
                };
                let window = kept_window(&KeptWindow::Session(*gap));
                format!("by {}, {window}{lateness}: {}", by(0, keys), aggregates(specs))
            }
            StageKind::TriggeredAggregate { keys, aggregates: specs, spec } => {
                format!("by {}, {}: {}", by(0, keys), windows(spec), aggregates(specs))
            }
            StageKind::KeptWindow { keys, spec, compute, .. } => {
                let text = format!("by {}, {}", by(0, keys), windows(spec));
                let computed = match compute {
                    WindowCompute::Aggregates(specs) => aggregates(specs),
                    WindowCompute::Reduce(function) => function.name(),
                    WindowCompute::Apply(function) => function.name(),
                };
                format!("{text}: {computed}; keeps the records of open windows")
            }
            StageKind::Reduce { keys, function, emit } => {
                format!("by {}: {}, emit={:?}", names(schema, keys), function.name(), emit.to_string())
            }
            StageKind::TopN { keys, by, rows, emit, window } => {
                let key = if keys.is_empty() { "nothing".to_owned() } else { names(schema, keys) };
                let order: Vec<String> =
                    by.iter().map(|by| format!("{}{}", by.expr, if by.is_descending { " desc" } else { "" })).collect();
                let order = order.join(", ");
                match window {
                    None => format!("by {key}: first {rows} by {order}, emit={:?}; keeps {} a key", emit.to_string(), counted(rows, "row")),
                    Some(spec) => format!(
                        "by {key}, {}{}: first {rows} by {order}; keeps {} a key and open window",
                        spec.window,
                        lateness(spec.allowed_lateness_us),
                        counted(rows, "row")
                    ),
                }
            }
            StageKind::Deduplicate { keys, within_us } => {
                let key = if keys.is_empty() { "nothing".to_owned() } else { names(schema, keys) };
                match within_us {
                    None => format!("by {key}; keeps every key for ever"),
                    Some(us) => format!(
                        "by {key} within {:?}; keeps a key until the watermark is {:?} after its row",
                        duration(*us),
                        duration(us.saturating_mul(2))
                    ),
                }
            }
            StageKind::Shift { keys, rows, columns } => {
                let texts: Vec<String> = columns.iter().map(|of| of.expr.to_string()).collect();
                format!("by {}, {rows} back: {}", names(schema, keys), texts.join(", "))
            }
            StageKind::ToChangelog { keys } => {
                let places: Vec<usize> = keys.iter().map(|key| key + 1).collect();
                let key = if places.is_empty() { "nothing".to_owned() } else { names(schema, &places) };
                format!("by {key}; keeps the latest row of each key")
            }
            StageKind::LatestRows { keys, by } => {
                format!("by {}, which may change {}", names(schema, keys), names(schema, by))
            }
            StageKind::FromChangelog { op } => format!("op in column {op}"),
            StageKind::Join(plan) => plan.to_string(),
            StageKind::RegularJoin(plan) => plan.to_string(),
            StageKind::Lookup(plan) => plan.to_string(),
            StageKind::Process(stage) => stage.detail(),
            StageKind::MapAsync(stage) => stage.detail(),
            StageKind::Sink(sink) => Sink::name(sink.as_ref()),
            StageKind::Pass => String::new(),
        }
    }
}

impl ProcessStage {
    fn detail(&self) -> String {
        let key = if self.keys.is_empty() { "nothing".to_owned() } else { names(&self.records, &self.keys) };
        format!("{} by {key}", self.function.name())
    }

    /// What it keeps of each key.
    pub(super) fn keeps(&self) -> String {
        let states: Vec<String> = self.states.iter().map(described_state).collect();
        let mut text = match states.as_slice() {
            [] => "keeps the timers of each key until they fire".to_owned(),
            states => format!("keeps {} of each key, and its timers until they fire", states.join(", ")),
        };
        if let Some(broadcast) = &self.broadcast {
            let states: Vec<String> = broadcast.states.iter().map(described_state).collect();
            text.push_str(&format!("; keeps {} in every task", states.join(", ")));
            text.push_str(match broadcast.until_loaded {
                UntilLoaded::Pass => "; which of its records have come when a keyed one comes depends on timing",
                UntilLoaded::Hold => "; the keyed stream is read once the broadcast one has ended",
                UntilLoaded::Keep => "; keeps keyed records until the broadcast stream has ended, as it depends on their source",
            });
        }
        text
    }
}

impl AsyncStage {
    fn detail(&self) -> String {
        let AsyncCalls { capacity, batch_rows, is_ordered, .. } = self.calls;
        let rows = batch_rows.map_or_else(String::new, |rows| format!(" of at most {}", counted(rows, "record")));
        let order = if is_ordered { "results in the order of the records" } else { "results as they come" };
        format!("{}, at most {}{rows} in flight in each task, {order}", self.function.name(), counted(capacity, "call"))
    }
}

/// `value last (float64) for "1d"`, `value n (int64, default 1)`, `list items (str)`, `map seen (str to int64)`.
pub(crate) fn described_state(state: &StateSpec) -> String {
    let columns: Vec<String> = state
        .columns
        .iter()
        .enumerate()
        .filter(|(place, _)| state.ttl.is_none_or(|ttl| ttl.written != *place))
        .map(|(_, field)| match field.data_type() {
            // What the state has many of is a list of one row.
            DataType::List(item) if state.kind == "list" || state.kind == "map" => item,
            _ => field,
        })
        .map(|field| match (is_object(field), holds_objects(field)) {
            (true, _) => "object, pickled".to_owned(),
            (false, true) => format!("{}, of pickled objects", type_name(field.data_type())),
            (false, false) => type_name(field.data_type()),
        })
        .collect();
    let columns = match (&*state.kind, columns.as_slice()) {
        ("map", [value, key, ..]) => format!("{key} to {value}"),
        _ => columns.join(", "),
    };
    let age = state.ttl.map_or_else(String::new, |ttl| {
        let clock = match ttl.clock {
            TimerClock::Event => "",
            TimerClock::Processing => " of processing time",
        };
        format!(" for {:?}{clock}", duration(ttl.us))
    });
    let default = state.default.as_ref().map_or_else(String::new, |default| format!(", default {default}"));
    format!("{} {} ({columns}{default}){age}", state.kind, state.name)
}

/// Windows with what is said of them beside their bounds.
fn windows(spec: &KeptWindowSpec) -> String {
    let mut text = kept_window(&spec.window) + &lateness(spec.allowed_lateness_us);
    if !spec.trigger.is_default() {
        text.push_str(&format!(", {}", spec.trigger));
    }
    text
}

/// The windows as a user writes them.
fn kept_window(window: &KeptWindow) -> String {
    match window {
        KeptWindow::Aligned(window) => window.to_string(),
        KeptWindow::Session(SessionGap::Fixed(us)) => format!("session({:?})", duration(*us)),
        KeptWindow::Session(SessionGap::Column(_)) => "session(of each record)".to_owned(),
        KeptWindow::Count(count) => WindowKind::Count(*count).to_string(),
        KeptWindow::Global => WindowKind::Global.to_string(),
        KeptWindow::Rolling(us) => WindowKind::Rolling(*us).to_string(),
    }
}

/// `, allowed_lateness="5s"`; nothing if there is none.
fn lateness(us: i64) -> String {
    match us {
        0 => String::new(),
        us => format!(", allowed_lateness={:?}", duration(us)),
    }
}

/// Computed columns; those that only pass are counted.
fn projected(exprs: &[CompiledExpr]) -> String {
    let mut computed = Vec::new();
    let mut passed = Vec::new();
    for expr in exprs {
        let name = expr.field().name();
        let text = expr.to_string();
        let plain = format!("col({name:?})");
        if text == plain {
            passed.push(name.clone());
        } else {
            let alias = format!(".alias({name:?})");
            let text = match text.strip_suffix(&alias) {
                // The brackets were there for the alias.
                Some(inner) => without_brackets(inner).to_owned(),
                None => text,
            };
            computed.push(format!("{name} = {text}"));
        }
    }
    match (passed.is_empty(), computed.is_empty()) {
        (_, true) => passed.join(", "),
        (true, false) => computed.join(", "),
        (false, false) => format!("{}, {}", passed.join(", "), computed.join(", ")),
    }
}

/// The text without a pair of brackets around all of it.
fn without_brackets(text: &str) -> &str {
    let Some(inner) = text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) else { return text };
    let mut depth = 0_i32;
    let is_pair = inner.chars().all(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth >= 0
    });
    if is_pair { inner } else { text }
}

fn aggregates(specs: &[AggregateSpec]) -> String {
    specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
