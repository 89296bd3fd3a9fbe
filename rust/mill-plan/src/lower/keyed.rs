//! Keyed steps: what is computed ahead, what travels, what is kept.
//!
//! ```text
//!   input ─► project ─► partial ═hash(keys)═► aggregate ─► project        all aggregates can be merged
//!   input ─► project ═══hash(keys)═════════► aggregate ─► project        else
//! ```
//!
//! Where one task reads a large source in order, the partial stage comes after an edge of its own, over which batches go in
//! turns to all tasks: `input ═rebalance═► project ─► partial …`. The projections are left out where there is nothing to
//! compute. Whether a row is late for its window is decided where rows are first put into windows, so with partial results
//! late rows come out of the partial stage. No window of the stage after it fires before the same window of the partial
//! stage: time reaches the one by way of the other. There are no partial results with `emit="each"`, where holding back is
//! the opposite of what is asked.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_frame::schema::computed_field;
use mill_protocol::{Error, Result};

use super::chains::{Builder, Place, Placed};
use super::graph::Tap;
use super::identities::unique;
use super::lineage::Lineage;
use crate::aggregate::AggregateSpec;
use crate::compiled::CompiledExpr;
use crate::expr::Expr;
use crate::physical::{EdgeKind, StageKind, WindowCompute};
use crate::steps::AggregateParts;
use crate::stream::checks::column_index;
use crate::stream::{ERRORS, Emit, LATE, key_fields};
use crate::types::type_name;
use crate::window::{Gap, KeptWindow, KeptWindowSpec, SessionGap, Trigger, WindowKind, WindowSpec};

/// What a keyed aggregation is made of.
pub(crate) struct Aggregation {
    pub(crate) keys: Vec<String>,
    pub(crate) parts: AggregateParts,
    pub(crate) windowing: Windowing,
    pub(crate) emit: Emit,
}

/// The windows of a keyed aggregation.
pub(crate) enum Windowing {
    None,
    /// Rows of accumulators are kept.
    Panes(WindowSpec),
    /// Records are kept.
    Kept(KeptWindows),
}

/// Windows that keep their records.
#[derive(Clone, Debug)]
pub(crate) struct KeptWindows {
    pub(crate) kind: WindowKind,
    pub(crate) allowed_lateness_us: i64,
    pub(crate) trigger: Trigger,
    /// Whether the window is of all records, and these have event time, which then is their order.
    pub(crate) by_time: bool,
}

/// What a function of whole windows is made of.
pub(crate) struct WindowCall {
    pub(crate) keys: Vec<String>,
    pub(crate) windows: KeptWindows,
    pub(crate) compute: WindowCompute,
    /// The word for it in signatures.
    pub(crate) name: &'static str,
}

impl KeptWindows {
    /// The gap of each record as a column in microseconds, if records have their own.
    fn gap(&self) -> Option<Expr> {
        let WindowKind::Session(Gap::Each(gap)) = &self.kind else { return None };
        Some(gap.without_alias().clone().cast(DataType::Duration(TimeUnit::Microsecond), true).alias("__gap"))
    }

    /// The windows for the operator, which finds the gap in this column.
    fn spec(&self, gap: Option<usize>) -> Result<KeptWindowSpec> {
        let window = match &self.kind {
            WindowKind::Aligned(window) => KeptWindow::Aligned(*window),
            WindowKind::Session(Gap::Fixed(us)) => KeptWindow::Session(SessionGap::Fixed(*us)),
            WindowKind::Session(Gap::Each(_)) => {
                let gap = gap.ok_or_else(|| Error::internal("a session without the column of its gap"))?;
                KeptWindow::Session(SessionGap::Column(gap))
            }
            WindowKind::Count(count) => KeptWindow::Count(*count),
            WindowKind::Global => KeptWindow::Global,
            WindowKind::Rolling(us) => KeptWindow::Rolling(*us),
        };
        Ok(KeptWindowSpec { window, allowed_lateness_us: self.allowed_lateness_us, trigger: self.trigger })
    }

    /// What must stay the same for the state of these windows to be of use: the order of records too, where these are kept.
    fn signature(&self, lineage: &Lineage, keeps_records: bool) -> String {
        let kind = match &self.kind {
            WindowKind::Session(Gap::Each(gap)) => format!("session({})", lineage.resolve(gap)),
            kind => kind.to_string(),
        };
        let order = if keeps_records && self.by_time { " by event time" } else { "" };
        format!("window {kind}{order}{}", if self.trigger.is_default() { "" } else { " with a trigger" })
    }
}

impl Builder<'_> {
    /// Places the stages of a keyed aggregation.
    pub(crate) fn aggregate(&mut self, at: usize, aggregation: Aggregation) -> Result<()> {
        aggregate(self, at, aggregation)
    }

    /// Places the stages of a user's function of whole windows.
    pub(crate) fn window_function(&mut self, at: usize, call: WindowCall) -> Result<()> {
        window_function(self, at, call)
    }

    /// What of a step's keys must stay the same, for its signature.
    pub(crate) fn described_keys(&self, at: usize, schema: &SchemaRef, keys: &[String]) -> Result<String> {
        described(schema, keys, &self.graph.steps[at].lineage)
    }
}

/// `page str, bucket int64 = col("x") % 10`: what of the keys must stay the same.
fn described(schema: &SchemaRef, keys: &[String], lineage: &Lineage) -> Result<String> {
    let fields = key_fields(schema, keys)?;
    let described = fields.iter().map(|f| lineage.described(f.name(), f.data_type()));
    Ok(described.collect::<Vec<_>>().join(", "))
}

fn is_mergeable(specs: &[AggregateSpec]) -> bool {
    specs.iter().all(|spec| spec.kind.is_mergeable())
}

/// Whether records are combined before the exchange. Sketches are only without key columns, where otherwise one task would do all
/// the work: with keys the tasks share it, and each would have a sketch of every key.
fn is_partial(specs: &[AggregateSpec], keys: &[String], window: Option<WindowSpec>, emit: Emit) -> bool {
    // Overlapping windows share their panes by what is mergeable.
    let takes_sketches = keys.is_empty() && window.is_none_or(|spec| !spec.window.is_overlapping());
    let is_combined = |spec: &AggregateSpec| spec.kind.is_mergeable() || takes_sketches && spec.kind.is_sketch();
    specs.iter().all(is_combined) && !matches!(emit, Emit::Each)
}

fn aggregate(builder: &mut Builder<'_>, at: usize, aggregation: Aggregation) -> Result<()> {
    let Aggregation { keys, mut parts, windowing, emit } = aggregation;
    let window = if let Windowing::Panes(window) = &windowing { Some(*window) } else { None };
    let kept = if let Windowing::Kept(kept) = &windowing { Some(kept) } else { None };
    let gap = kept.and_then(KeptWindows::gap);
    parts.inputs.extend(gap.clone());
    let (uid, name) = (builder.graph.steps[at].uid.clone(), builder.graph.steps[at].name.clone());
    let late_tap = builder.graph.tap(at, LATE);
    let takes_late = builder.graph.is_taken(at, LATE);
    let original = builder.input(at, 0)?;
    let before = Arc::clone(&original.schema);

    // Columns that keys and aggregates are over.
    let is_of_records = kept.is_some_and(|kept| matches!(kept.kind, WindowKind::Rolling(_)));
    // Records that cannot be taken in are shown as they came.
    let is_whole = takes_late || is_of_records || builder.graph.is_taken(at, ERRORS);
    let (exprs, places) = input_columns(&parts, &before, is_whole)?;
    let key_columns: Vec<usize> = places[..parts.keys].to_vec();
    let specs: Vec<AggregateSpec> = parts
        .specs
        .iter()
        .map(|spec| AggregateSpec {
            input: spec.input.map(|input| places[input]),
            filter: spec.filter.map(|filter| places[filter]),
            ..spec.clone()
        })
        .collect();
    let mut input = original;
    let is_partial = kept.is_none() && is_partial(&specs, &keys, window, emit);
    if is_partial && builder.is_read_by_one(&input) {
        // None of these aggregates asks for the order, and lateness has been decided where the records were read.
        input = builder.exchange(&input, EdgeKind::Rebalance, builder.options.parallelism);
    }
    if let Some(exprs) = &exprs {
        let compiled = exprs.iter().map(|expr| CompiledExpr::new(expr, &before)).collect::<Result<Vec<_>>>()?;
        let schema = if is_whole { with_computed(&compiled, before.fields().len()) } else { schema_of(&compiled) };
        let placed = builder.stage(&input, StageKind::Project { exprs: compiled }, at, Arc::clone(&schema), String::new())?;
        rename(builder, &placed, &uid, &name, "input");
        builder.publish_errors(at, &placed);
        input = placed.port(0, schema);
    }
    let own_keys = key_fields(&before, &keys)?;

    // What goes before the exchange.
    let mut late: Option<Place> = None;
    let (final_keys, final_specs) = if is_partial {
        let mut fields: Vec<Field> = Vec::new();
        fields.extend(window.map(|_| Field::new("window_start", DataType::Int64, false)));
        if window.is_some_and(|spec| spec.window.is_overlapping()) {
            fields.push(Field::new("is_window", DataType::Boolean, false));
        }
        let first_key = fields.len();
        fields.extend(own_keys.iter().cloned());
        let mut final_specs = Vec::with_capacity(specs.len());
        for spec in &specs {
            final_specs.push(AggregateSpec { input: Some(fields.len()), filter: None, ..spec.clone() });
            fields.extend(spec.partial_fields());
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let kind = StageKind::PartialAggregate {
            keys: key_columns,
            aggregates: specs,
            window,
            bound_type: own_fields(builder, at, &windowing)?.first().map(|field| field.data_type().clone()),
        };
        let late_schema = Arc::clone(&input.schema);
        let placed = builder.stage(&input, kind, at, Arc::clone(&schema), String::new())?;
        rename(builder, &placed, &uid, &name, "partial");
        builder.publish_errors(at, &placed);
        if let Some(tap) = late_tap {
            builder.open_ports(at, &placed);
            late = Some(builder.outlet(tap, &placed, late_schema)?);
        }
        input = placed.port(0, schema);
        ((first_key..first_key + keys.len()).collect(), final_specs)
    } else {
        (key_columns, specs)
    };

    // What follows it.
    let (final_keys, final_specs): (Vec<usize>, Vec<AggregateSpec>) = (final_keys, final_specs);
    input = builder.exchange_by_key(&input, &final_keys);
    // What results begin with: the keys and the bounds of windows, or the whole record.
    let own: Vec<Field> = match is_of_records {
        true => before.fields().iter().map(|field| field.as_ref().clone()).collect(),
        false => own_keys.iter().cloned().chain(own_fields(builder, at, &windowing)?).collect(),
    };
    let mut fields = own.clone();
    fields.extend(parts.spec_fields());
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let lineage = &builder.graph.steps[at].lineage;
    let listed: Vec<String> = parts.specs.iter().map(|spec| identity(&parts, spec, lineage, window.is_some())).collect();
    let mut signature = format!("key({}) agg({})", described(&before, &keys, lineage)?, listed.join(", "));
    let late_schema = Arc::clone(&input.schema);
    let kind = match &windowing {
        Windowing::Panes(window) => {
            signature = format!("{signature} window {}", window.window);
            StageKind::WindowAggregate { keys: final_keys, aggregates: final_specs, is_partial, window: *window }
        }
        Windowing::Kept(windows) => {
            let spec = windows.spec(gap.and(places.last().copied()))?;
            let of_windows = windows.signature(lineage, !spec.is_of_rows(&final_specs));
            signature = format!("{signature} {of_windows}");
            match spec.window {
                KeptWindow::Session(gap) if spec.trigger.is_default() && is_mergeable(&final_specs) => {
                    let allowed_lateness_us = spec.allowed_lateness_us;
                    StageKind::SessionAggregate { keys: final_keys, aggregates: final_specs, gap, allowed_lateness_us }
                }
                _ if spec.is_of_rows(&final_specs) => {
                    StageKind::TriggeredAggregate { keys: final_keys, aggregates: final_specs, spec }
                }
                _ => {
                    let mut first: Vec<usize> = if is_of_records { (0..before.fields().len()).collect() } else { Vec::new() };
                    first.extend(final_keys.iter().filter(|&&key| !is_of_records || key >= before.fields().len()));
                    let (kept, aggregates) = kept_columns(first, final_specs);
                    let records = Arc::new(input.schema.project(&kept).map_err(|error| Error::internal(error.to_string()))?);
                    let compute = WindowCompute::Aggregates(aggregates);
                    StageKind::KeptWindow { keys: final_keys, kept, records, spec, compute }
                }
            }
        }
        Windowing::None => StageKind::Aggregate { keys: final_keys, aggregates: final_specs, is_partial, emit },
    };
    // Columns that are made of several aggregates are not taken apart: such a step changes as a whole.
    let named = parts.specs.iter().map(|spec| spec.name.clone()).zip(listed).filter(|_| parts.post.is_none()).collect();
    let placed = builder.stage(&input, kind, at, Arc::clone(&schema), signature)?;
    builder.stage_at(&placed).parts = named;
    builder.publish_errors(at, &placed);
    builder.open_ports(at, &placed);
    if let Some(tap) = late_tap.filter(|_| late.is_none()) {
        late = Some(builder.outlet(tap, &placed, late_schema)?);
    }
    let mut result = placed.port(0, Arc::clone(&schema));

    // Expressions over the results.
    if let Some(post) = &parts.post {
        let kept = own.iter().map(|field| Expr::column(field.name()));
        let compiled = kept.chain(post.iter().cloned()).map(|expr| CompiledExpr::new(&expr, &schema)).collect::<Result<Vec<_>>>()?;
        let schema = schema_of(&compiled);
        let placed = builder.stage(&result, StageKind::Project { exprs: compiled }, at, Arc::clone(&schema), String::new())?;
        rename(builder, &placed, &uid, &name, "result");
        builder.publish_errors(at, &placed);
        result = placed.port(0, schema);
    }
    builder.put(Tap::result(at), result);
    if let Some(tap) = late_tap.filter(|_| takes_late)
        && let Some(late) = late
    {
        let late = without_computed(builder, at, late, &before)?;
        builder.put(tap, late);
    }
    Ok(())
}

/// Late rows as they came, without what was computed for the step.
fn without_computed(builder: &mut Builder<'_>, at: usize, late: Place, before: &SchemaRef) -> Result<Place> {
    if late.schema == *before {
        return Ok(late);
    }
    let (uid, name) = (builder.graph.steps[at].uid.clone(), builder.graph.steps[at].name.clone());
    let own = before.fields().iter().map(|field| CompiledExpr::new(&Expr::column(field.name()), &late.schema));
    let kind = StageKind::Project { exprs: own.collect::<Result<Vec<_>>>()? };
    let placed = builder.stage(&late, kind, at, Arc::clone(before), String::new())?;
    rename(builder, &placed, &uid, &name, "late");
    Ok(placed.port(0, Arc::clone(before)))
}

fn window_function(builder: &mut Builder<'_>, at: usize, call: WindowCall) -> Result<()> {
    let WindowCall { keys, windows, compute, name: verb } = call;
    let (uid, name) = (builder.graph.steps[at].uid.clone(), builder.graph.steps[at].name.clone());
    let mut input = builder.input(at, 0)?;
    let before = Arc::clone(&input.schema);
    let gap = windows.gap();
    if let Some(gap) = &gap {
        let mut own: Vec<Expr> = before.fields().iter().map(|field| Expr::column(field.name())).collect();
        own.push(named_by_text(gap, &own));
        let exprs = own.iter().map(|expr| CompiledExpr::new(expr, &before)).collect::<Result<Vec<_>>>()?;
        let schema = with_computed(&exprs, before.fields().len());
        let placed = builder.stage(&input, StageKind::Project { exprs }, at, Arc::clone(&schema), String::new())?;
        rename(builder, &placed, &uid, &name, "input");
        builder.publish_errors(at, &placed);
        input = placed.port(0, schema);
    }
    let places = keys.iter().map(|key| column_index(&before, key)).collect::<Result<Vec<usize>>>()?;
    input = builder.exchange_by_key(&input, &places);
    let lineage = &builder.graph.steps[at].lineage;
    let row: Vec<String> = before.fields().iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
    let signature =
        format!("key({}) {verb}({}) {}", described(&before, &keys, lineage)?, row.join(", "), windows.signature(lineage, true));
    let spec = windows.spec(gap.map(|_| before.fields().len()))?;
    let (kept, records) = ((0..before.fields().len()).collect(), Arc::clone(&before));
    let kind = StageKind::KeptWindow { keys: places, kept, records, spec, compute };
    let schema = Arc::clone(&builder.graph.steps[at].schema);
    let late_schema = Arc::clone(&input.schema);
    let placed = builder.stage(&input, kind, at, Arc::clone(&schema), signature)?;
    builder.publish_errors(at, &placed);
    builder.open_ports(at, &placed);
    builder.put(Tap::result(at), placed.port(0, schema));
    if let Some(tap) = builder.graph.tap(at, LATE)
        && builder.graph.is_taken(at, LATE)
    {
        let late = builder.outlet(tap, &placed, late_schema)?;
        let late = without_computed(builder, at, late, &before)?;
        builder.put(tap, late);
    }
    Ok(())
}

/// The columns that results with windows have between keys and aggregates.
fn own_fields(builder: &Builder<'_>, at: usize, windowing: &Windowing) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    let is_timed = match windowing {
        Windowing::None => false,
        Windowing::Panes(_) => true,
        Windowing::Kept(kept) => kept.kind.has_bounds(),
    };
    if is_timed {
        let Some(time) = &builder.graph.steps[at].facts.event_time else {
            return Err(Error::internal("a window without event time"));
        };
        fields.extend(["window_start", "window_end"].map(|bound| Field::new(bound, time.data_type.clone(), true)));
    }
    if let Windowing::Kept(kept) = windowing
        && !kept.trigger.is_default()
    {
        fields.push(Field::new("pane", DataType::Int64, true));
        fields.push(Field::new("pane_timing", DataType::Utf8, true));
    }
    Ok(fields)
}

/// The columns of records that are kept, these first, and the aggregates over those columns.
fn kept_columns(first: Vec<usize>, specs: Vec<AggregateSpec>) -> (Vec<usize>, Vec<AggregateSpec>) {
    let mut columns = first;
    let mut place = |column: usize| {
        columns.iter().position(|&kept| kept == column).unwrap_or_else(|| {
            columns.push(column);
            columns.len() - 1
        })
    };
    let specs = specs
        .into_iter()
        // Kept records are in the order of their window.
        .map(|spec| AggregateSpec { input: spec.input.map(&mut place), filter: spec.filter.map(&mut place), by_time: false, ..spec })
        .collect();
    (columns, specs)
}

/// What of an aggregate must stay the same: its name, kind and type, and what it is over.
fn identity(parts: &AggregateParts, spec: &AggregateSpec, lineage: &Lineage, is_of_panes: bool) -> String {
    let described = |place: Option<usize>| Some(lineage.resolve(&parts.inputs[place?]).to_string());
    let mut text = spec.to_string();
    if let Some(input) = described(spec.input) {
        text = format!("{text} of {input}");
    }
    if let Some(filter) = described(spec.filter) {
        text = format!("{text} where {filter}");
    }
    // Panes have no other order, so it goes without saying.
    if spec.by_time && !is_of_panes {
        text.push_str(" by event time");
    }
    text
}

pub(crate) fn rename(builder: &mut Builder<'_>, placed: &Placed, uid: &str, name: &str, part: &str) {
    let stage = builder.stage_at(placed);
    stage.uid = format!("{uid}/{part}");
    stage.name = format!("{name}.{part}");
}

pub(super) fn schema_of(exprs: &[CompiledExpr]) -> SchemaRef {
    Arc::new(Schema::new(exprs.iter().map(|expr| expr.field().clone()).collect::<Vec<Field>>()))
}

/// The columns of records, so many, and those that are computed for the step.
fn with_computed(exprs: &[CompiledExpr], own: usize) -> SchemaRef {
    let fields = exprs.iter().enumerate().map(|(place, expr)| match place < own {
        true => expr.field().clone(),
        false => computed_field(expr.field().clone()),
    });
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

/// An expression under a name that says what it is to the user, who sees it where a record cannot be taken in.
fn named_by_text(expr: &Expr, others: &[Expr]) -> Expr {
    const CHARACTERS_MAX: usize = 80;
    let expr = expr.without_alias();
    let text: String = match expr {
        Expr::Column(name) => name.clone(),
        _ => expr.to_string().chars().take(CHARACTERS_MAX).collect(),
    };
    let mut taken: HashSet<String> = others.iter().map(Expr::output_name).collect();
    expr.clone().alias(unique(&text, " #", &mut taken))
}

/// The columns to be computed before aggregation, unless the input has them all, and where each of the parts' inputs stands.
fn input_columns(parts: &AggregateParts, before: &SchemaRef, keeps_all: bool) -> Result<(Option<Vec<Expr>>, Vec<usize>)> {
    let is_column = |expr: &Expr| match expr.without_alias() {
        Expr::Column(name) => before.index_of(name).ok(),
        _ => None,
    };
    let columns: Vec<Option<usize>> = parts.inputs.iter().map(is_column).collect();
    if columns.iter().all(Option::is_some) {
        // Everything is there. Only a narrower batch is worth a projection, and it costs nothing.
        let places: Vec<usize> = columns.iter().flatten().copied().collect();
        let used: std::collections::BTreeSet<usize> = places.iter().copied().collect();
        if keeps_all || used.len() == before.fields().len() {
            return Ok((None, places));
        }
    }
    let mut exprs: Vec<Expr> = match keeps_all {
        true => before.fields().iter().map(|field| Expr::column(field.name())).collect(),
        false => Vec::new(),
    };
    let mut places = Vec::with_capacity(parts.inputs.len());
    for (expr, column) in parts.inputs.iter().zip(columns) {
        match column.filter(|_| keeps_all) {
            Some(column) => places.push(column),
            None => {
                let is_key = places.len() < parts.keys && !keeps_all;
                let named = if is_key { expr.clone() } else { named_by_text(expr, &exprs) };
                exprs.push(named);
                places.push(exprs.len() - 1);
            }
        }
    }
    Ok((Some(exprs), places))
}
