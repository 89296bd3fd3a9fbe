//! The state of a keyed step as a table, from a checkpoint alone.
//!
//! ```text
//!   bytes ──Description──► the very operator, without input
//!   blocks of all key groups ──restore──► it ──all that it would give──► one table
//! ```
//!
//! State contains sums and counts; people want to see results. Only the operator that keeps the state knows how to turn one
//! into the other, so it is built again and queried, instead of reading its rows in a second way.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_frame::block::{RestoredBlock, SharedBytes};
use mill_frame::schema::holds_objects;
use mill_plan::{
    AggregateKind, Emit, How, KeptWindowSpec, LookupKind, LookupPlan, ReduceFunction, SessionGap, Stage, StageKind, Trigger, UntilLoaded,
    WindowCompute, WindowFunction, WindowRecords,
};
use mill_protocol::{Emission, Error, ErrorKind, Operator, Outbox, Progress, Restored, Result, TaskContext};

use crate::aggregate::Aggregate;
use crate::asof_join::AsofJoin;
use crate::changelog::ToChangelog;
use crate::deduplicate::{Deduplicate, DeduplicateWithin};
use crate::event_time::has_generators;
use crate::description::{Description, Shape, is_described};
use crate::enrich::Enrich;
use crate::join;
use crate::kept_windows::{KeptParts, KeptWindows};
use crate::reduce::Reduce;
use crate::regular_join;
use crate::session_aggregate::{SessionAggregate, SessionParts};
use crate::top_n::{TopN, WindowTopN};
use crate::triggered_aggregate::TriggeredAggregate;
use crate::window_aggregate::WindowAggregate;

/// How many key groups there are.
const GROUPS: u16 = 128;

/// Whether this is the state without key of a step that also keeps keyed state, which [`read_state`] can read.
pub fn has_keyed_state(bytes: &[SharedBytes]) -> bool {
    bytes.iter().any(|bytes| is_described(bytes))
}

/// The parts of a step's state that are pickled Python objects, each as a person would name it.
///
/// # Errors
/// When the bytes are damaged, or do not say of what types the state is.
pub fn pickled_state(bytes: &[SharedBytes]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if bytes.iter().any(|bytes| has_generators(bytes)) {
        found.push("watermark generators, objects of a class of yours whose attributes are pickled".to_owned());
    }
    for bytes in bytes.iter().filter(|bytes| is_described(bytes)) {
        let Description { schema, shape, .. } = Description::read(bytes)?;
        let aggregates = match &shape {
            Shape::Aggregate { aggregates, .. } | Shape::Sessions { aggregates, .. } | Shape::Triggered { aggregates, .. } => Some(aggregates),
            Shape::Kept { aggregates, .. } => aggregates.as_ref(),
            _ => None,
        };
        if let Some(aggregates) = aggregates {
            let own = aggregates.iter().filter(|spec| matches!(spec.kind, AggregateKind::User(_)));
            found.extend(own.map(|spec| format!("aggregate {:?}, a function of yours whose states are pickled", spec.name)));
        }
        // Rows that are kept may have columns that results do not; and the function of a window may make objects of plain records.
        let kept: Vec<&SchemaRef> = match &shape {
            Shape::Kept { records, .. } => vec![records],
            Shape::Asof { left, .. } | Shape::Enrich { left, .. } => vec![&schema, left],
            Shape::Join(join) | Shape::RegularJoin(join) => join.kept.iter().chain([&schema]).collect(),
            _ => vec![&schema],
        };
        let objects = kept.into_iter().flat_map(|kept| kept.fields()).filter(|field| holds_objects(field));
        found.extend(objects.map(|field| format!("column {:?}, of type object", field.name())));
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// The keyed state of a step as a table: a row a key, or a key and open window, with the results as of the checkpoint.
///
/// `bytes` is the state without key of all instances, `blocks` are those of all key groups, oldest first. Rows come in
/// any order. The state of a user's aggregate is a binary column, as the function is not at hand.
///
/// # Errors
/// When the bytes are not those of a keyed step, or they or the blocks are damaged.
pub fn read_state(bytes: &[SharedBytes], blocks: &[RestoredBlock]) -> Result<RecordBatch> {
    let Some(first) = bytes.iter().find(|bytes| is_described(bytes)) else {
        return Err(Error::checkpoint("the step keeps no keyed state"));
    };
    let Description { schema, keeps_pending, shape } = Description::read(first)?;
    let restored = Restored { bytes: bytes.to_vec(), blocks: blocks.to_vec(), has_other_parts: false };
    let context =
        TaskContext { step: String::new(), index: 0, parallelism: 1, threads: 1, groups: 0..GROUPS, is_persistent: true, waker: std::task::Waker::noop().clone() };
    let stage = Stage {
        uid: String::new(),
        name: String::new(),
        step: String::new(),
        kind: StageKind::Pass,
        schema: Arc::clone(&schema),
        ports: Vec::new(),
        outputs: Vec::new(),
        errors: Vec::new(),
        signature: String::new(),
        parts: Vec::new(),
        updating: None,
    };
    // Rows that record whether they are yet to be emitted have a flag more.
    let emit = if keeps_pending { Emit::Every(i64::MAX) } else { Emit::End };
    let nothing: SchemaRef = Arc::new(Schema::empty());
    let mut out = Outbox::default();
    let batches = match shape {
        Shape::Aggregate { keys, aggregates, window: None } => {
            let keys: Vec<usize> = (0..keys).collect();
            let mut operator = Aggregate::new(&stage, &context, &keys, &aggregates, false, emit)?;
            operator.restore(&restored)?;
            let progress = operator.emit(false, &mut out)?;
            drain(&mut operator, progress, out)?
        }
        Shape::Aggregate { keys, aggregates, window: Some(window) } => {
            let keys: Vec<usize> = (0..keys).collect();
            let mut operator = WindowAggregate::new(&stage, &context, &keys, &aggregates, false, &window)?;
            operator.restore(&restored)?;
            let progress = operator.on_end(&mut out)?;
            drain(&mut operator, progress, out)?
        }
        Shape::Sessions { keys, aggregates } => {
            let keys: Vec<usize> = (0..keys).collect();
            let parts = SessionParts { keys: &keys, aggregates: &aggregates, gap: SessionGap::Fixed(1), allowed_lateness_us: 0 };
            let mut operator = SessionAggregate::new(&stage, &context, parts)?;
            operator.restore(&restored)?;
            let progress = operator.on_end(&mut out)?;
            drain(&mut operator, progress, out)?
        }
        Shape::Triggered { keys, spec, aggregates } => {
            let keys: Vec<usize> = (0..keys).collect();
            let mut operator = TriggeredAggregate::new(&stage, &context, &keys, &aggregates, &spec)?;
            operator.restore(&restored)?;
            let progress = operator.emit_rows(&mut out)?;
            drain(&mut operator, progress, out)?
        }
        Shape::Kept { keys, records, spec, aggregates } => {
            let kept: Vec<usize> = (0..records.fields().len()).collect();
            // Without the function there is no result: the records are shown, with the bounds of their windows.
            let shown = match &aggregates {
                Some(_) => Arc::clone(&schema),
                None if spec.window.has_bounds() => with_bounds(&schema, &records),
                None => Arc::clone(&records),
            };
            // Records are those of their windows, whatever has been fired of them.
            let trigger = if aggregates.is_some() { spec.trigger } else { Trigger::default() };
            let spec = KeptWindowSpec { trigger, ..spec };
            let compute = match aggregates {
                Some(aggregates) => WindowCompute::Aggregates(aggregates),
                None => WindowCompute::Apply(Arc::new(RecordsOfWindows(Arc::clone(&shown)))),
            };
            let stage = Stage { schema: Arc::clone(&shown), ..stage };
            let parts = KeptParts { keys: &keys, kept: &kept, records: &records, spec: &spec, compute: &compute };
            let mut operator = KeptWindows::new(&stage, &context, parts)?;
            operator.restore(&restored)?;
            let progress = operator.on_end(&mut out)?;
            let batches = drain(&mut operator, progress, out)?;
            return one_table(&shown, &batches);
        }
        Shape::TopN { keys, window: None } => {
            let mut operator = TopN::new(&stage, &context, &keys, Vec::new(), 1, emit)?;
            operator.restore(&restored)?;
            let progress = operator.emit(false, &mut out)?;
            drain(&mut operator, progress, out)?
        }
        Shape::TopN { keys, window: Some(window) } => {
            let mut operator = WindowTopN::new(&stage, &context, &keys, Vec::new(), 1, &window)?;
            operator.restore(&restored)?;
            let progress = operator.on_end(&mut out)?;
            drain(&mut operator, progress, out)?
        }
        Shape::Deduplicate { keys, within_us: None } => {
            let keys: Vec<usize> = (0..keys).collect();
            let mut operator = Deduplicate::new(&stage, &context, &keys)?;
            operator.restore(&restored)?;
            operator.kept()?
        }
        Shape::Deduplicate { keys, within_us: Some(us) } => {
            let keys: Vec<usize> = (0..keys).collect();
            let mut operator = DeduplicateWithin::new(&stage, &context, &keys, us)?;
            operator.restore(&restored)?;
            operator.kept()?
        }
        Shape::Shift { keys } => crate::shift::kept(&schema, keys, &restored, &context)?,
        Shape::Changelog { keys } => {
            let mut operator = ToChangelog::new(Arc::clone(&schema), Arc::clone(&schema), &context, &keys)?;
            operator.restore(&restored)?;
            operator.kept()?
        }
        Shape::Join(shape) => {
            let batches = join::kept_rows(&shape, &schema, &restored, &context)?;
            return one_table(&join::shown_schema(&schema), &batches);
        }
        Shape::RegularJoin(shape) => {
            let batches = regular_join::kept_rows(&shape, &schema, &restored, &context)?;
            return one_table(&regular_join::shown_schema(&schema), &batches);
        }
        Shape::Asof { left, keys, tolerance_us } => {
            let plan = lookup(LookupKind::Asof { tolerance_us }, keys, [left, Arc::clone(&schema)]);
            let mut operator = AsofJoin::new(&nothing, &context, &plan, tolerance_us)?;
            operator.restore(&restored)?;
            operator.kept()?
        }
        Shape::Enrich { left, keys, rows } => {
            let until_loaded = UntilLoaded::Keep;
            let plan = lookup(LookupKind::Enrich { rows, until_loaded }, keys, [left, Arc::clone(&schema)]);
            let mut operator = Enrich::new(&nothing, &context, &plan, (rows, until_loaded))?;
            operator.restore(&restored)?;
            operator.kept()?
        }
        Shape::Process { keys } => crate::process::read(&schema, keys, &restored, &context)?,
        Shape::Reduce { keys } => {
            let mut operator = Reduce::new(&stage, &context, &keys, Arc::new(NotAtHand), emit)?;
            operator.restore(&restored)?;
            let progress = operator.emit(false, &mut out)?;
            drain(&mut operator, progress, out)?
        }
    };
    one_table(&schema, &batches)
}

/// A look-up whose result has no columns: its state is all there is to be seen.
fn lookup(kind: LookupKind, keys: [Vec<usize>; 2], inputs: [SchemaRef; 2]) -> LookupPlan {
    LookupPlan { kind, how: How::Left, keys, inputs, own: [0, 0], columns: Vec::new(), on: String::new() }
}

fn one_table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    concat_batches(schema, batches)
        .map_err(|error| Error::checkpoint(format!("the state does not fit into one table: {error}")))
}

/// All that the operator emits on port 0.
fn drain(operator: &mut dyn Operator, mut progress: Progress, mut out: Outbox) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    loop {
        while let Some(emission) = out.pop() {
            // What is withdrawn is not there.
            if let Emission::Batch(0, batch) = emission
                && batch.deletes().is_none()
            {
                batches.push(batch.data().clone());
            }
        }
        if let Some(unfit) = out.take_rejected().into_iter().next() {
            return Err(unfit.into_error());
        }
        if progress == Progress::Done {
            return Ok(batches);
        }
        progress = operator.resume(&mut out)?;
    }
}

/// The columns of records after those of the bounds of their windows, which have the type that results have.
fn with_bounds(results: &SchemaRef, records: &SchemaRef) -> SchemaRef {
    let plain = DataType::Timestamp(TimeUnit::Microsecond, None);
    let bound = results.field_with_name("window_start").map_or(plain, |field| field.data_type().clone());
    let named = ["window_start", "window_end"].map(|name| {
        // Windows over the results of windows keep records with such columns.
        let is_taken = records.field_with_name(name).is_ok();
        let name = if is_taken { format!("of_{name}") } else { name.to_owned() };
        Arc::new(Field::new(name, bound.clone(), true))
    });
    Arc::new(Schema::new(named.into_iter().chain(records.fields().iter().cloned()).collect::<Vec<_>>()))
}

/// Stands for a function of windows: its results are their records, after their bounds where they have such.
#[derive(Debug)]
struct RecordsOfWindows(SchemaRef);

impl WindowFunction for RecordsOfWindows {
    fn name(&self) -> String {
        "apply".to_owned()
    }
    fn apply(&self, window: &WindowRecords<'_>) -> Result<RecordBatch> {
        let Some(bounds) = window.bounds else { return Ok(window.rows.clone()) };
        let unfit = |error: arrow::error::ArrowError| Error::checkpoint(format!("the state does not fit into one table: {error}"));
        let mut columns = Vec::with_capacity(2 + window.rows.num_columns());
        for (bound, field) in bounds.iter().zip(self.0.fields()) {
            let repeated = take(bound, &UInt32Array::from(vec![0; window.rows.num_rows()]), None).map_err(unfit)?;
            columns.push(cast(&repeated, field.data_type()).map_err(unfit)?);
        }
        columns.extend(window.rows.columns().iter().cloned());
        RecordBatch::try_new(Arc::clone(&self.0), columns).map_err(unfit)
    }
}

/// Stands for the function of a reduce, which reading does not need.
#[derive(Debug)]
struct NotAtHand;

impl ReduceFunction for NotAtHand {
    fn name(&self) -> String {
        "reduce".to_owned()
    }
    fn reduce(&self, _accumulator: Option<&RecordBatch>, _rows: &RecordBatch) -> Result<RecordBatch> {
        Err(Error::new(ErrorKind::Internal, "the function of this reduce is not at hand"))
    }
}

#[cfg(test)]
mod tests;
