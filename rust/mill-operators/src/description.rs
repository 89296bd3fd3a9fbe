//! What a keyed step writes about itself into a checkpoint, so that its state can be read without the plan.
//!
//! ```text
//!   the step ──Description──► Described ──of(own)──► Snapshot::bytes = own state without key + description
//!   Snapshot::bytes ──own()──► the step again                      (the plan knows the rest)
//!                   ──Description::read()──► read_state()          (there is no plan)
//! ```
//!
//! `docs/format/operator-state.md` draws the bytes. A step that goes on from a checkpoint reads its own part alone: whether
//! it fits is decided by signatures and by the fingerprint of the rows. The description is for readers, who rebuild the
//! very operator from it; so it names what decides about the layout of rows and about results, and nothing else.
//!
//! Invariant: nothing in the bytes is trusted. Each length is checked before it is used, and what they describe is
//! checked as a plan would check it, so that no bytes make a reader panic.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_frame::schema;
use mill_frame::types::canonical_type;
use mill_plan::{
    AggregateFunction, AggregateKind, AggregateSpec, CountWindow, Firing, JoinedColumn, KeptWindow, KeptWindowSpec, ScalarValue, SessionGap,
    TableRows, Trigger, Window, WindowSpec,
};
use mill_protocol::{Error, ErrorKind, Result};

/// What the bytes begin with.
const MAGIC: &[u8; 8] = b"MILLKEYS";
/// The version that is written; version 1, which did not name the encoding of rows, is read too.
const VERSION: u8 = 2;
/// The version of Arrow's row encoding, in which keys of lists and structs, rows of a reduce and values too large for words
/// are kept. `arrow-row` does not promise that its bytes stay: a test compares them with those of this version, and when they
/// change the number goes up.
const ROW_ENCODING: u8 = 1;

const FLAG_PENDING: u8 = 1;
const AGGREGATE: u8 = 1;
const AGGREGATE_WINDOWED: u8 = 2;
const REDUCE: u8 = 3;
const TOP_N: u8 = 32;
const TOP_N_WINDOWED: u8 = 33;
const DEDUPLICATE: u8 = 34;
const DEDUPLICATE_WITHIN: u8 = 35;
const CHANGELOG: u8 = 36;
const SESSIONS: u8 = 37;
const JOIN: u8 = 48;
const ASOF: u8 = 49;
const ENRICH: u8 = 50;
const REGULAR_JOIN: u8 = 51;
const PROCESS: u8 = 64;
const TUMBLING: u8 = 1;
const SLIDING: u8 = 2;
const CUMULATIVE: u8 = 3;
const HAS_INPUT: u8 = 1;
const HAS_FILTER: u8 = 2;

/// The part of a keyed step that decides how its state reads.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// The resulting columns.
    pub(crate) schema: SchemaRef,
    /// Whether rows tell if they changed since they were last given.
    pub(crate) keeps_pending: bool,
    /// What the step is.
    pub(crate) shape: Shape,
}

/// Which keyed step it is.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// The results are the keys, the start and end of the window if there is one, and the aggregates.
    Aggregate { keys: usize, aggregates: Vec<AggregateSpec>, window: Option<WindowSpec> },
    /// The same with the start and end of a session.
    Sessions { keys: usize, aggregates: Vec<AggregateSpec> },
    /// The results are right rows. Left rows with these columns wait; these are the key columns of both.
    Asof { left: SchemaRef, keys: [Vec<usize>; 2], tolerance_us: Option<i64> },
    /// The same.
    Enrich { left: SchemaRef, keys: [Vec<usize>; 2], rows: TableRows },
    /// These columns are the keys.
    Reduce { keys: Vec<usize> },
    /// Records with these columns are kept, of which these are the keys; results are as those of [`Shape::Aggregate`], or
    /// what a function returns.
    Kept { keys: Vec<usize>, records: SchemaRef, spec: KeptWindowSpec, aggregates: Option<Vec<AggregateSpec>> },
    /// The results are the columns of a row, of which these are the keys, then the start and end of the window if there is
    /// one, then the rank.
    TopN { keys: Vec<usize>, window: Option<WindowSpec> },
    /// The results are the keys, and with `within_us` when the row of each has passed.
    Deduplicate { keys: usize, within_us: Option<i64> },
    /// The results are the columns of a row, of which these are the keys.
    Changelog { keys: Vec<usize> },
    /// The results are so many keys, the states of a user's function, and its timers.
    Process { keys: usize },
    /// Records of two inputs are kept.
    Join(JoinShape),
    /// The same by a join whose result changes with them, without windows.
    RegularJoin(JoinShape),
}

/// What a join keeps.
#[derive(Clone, Debug)]
pub(crate) struct JoinShape {
    /// The columns that are kept of each side.
    pub(crate) kept: [SchemaRef; 2],
    /// The columns of the result; places are among those that are kept.
    pub(crate) columns: Vec<JoinedColumn>,
    /// The windows, if any.
    pub(crate) window: Option<JoinWindow>,
}

/// In which windows a join joins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JoinWindow {
    /// Those whose bounds follow from the time of a record.
    Aligned(Window),
    /// Sessions of this gap in microseconds.
    Session(i64),
}

/// A description in bytes; empty if a type cannot be written, which readers are told.
pub(crate) struct Described(Vec<u8>);

impl Described {
    /// The state of a step: `own`, and what it is.
    pub(crate) fn of(&self, own: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + 10 + own.len() + self.0.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[VERSION, ROW_ENCODING]);
        put_bytes(&mut out, own);
        put_bytes(&mut out, &self.0);
        out
    }
}

/// Whether these bytes are those of a keyed step.
pub(crate) fn is_described(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// What the step itself keeps without key.
pub(crate) fn own(bytes: &[u8]) -> Result<&[u8]> {
    Ok(parts(bytes)?.0)
}

/// The step's own part and the description.
fn parts(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    if !is_described(bytes) {
        return Err(damaged("it does not begin as such state does"));
    }
    let mut reader = Reader(&bytes[MAGIC.len()..]);
    let version = reader.byte()?;
    if !(1..=VERSION).contains(&version) {
        return Err(Error::checkpoint(format!(
            "the state of the step has format {version}, this version of Millstream reads up to {VERSION}"
        )));
    }
    let encoding = if version == 1 { 1 } else { reader.byte()? };
    if encoding != ROW_ENCODING {
        return Err(Error::checkpoint(format!(
            "the state of the step keeps rows in version {encoding} of their encoding, this version of Millstream reads \
             version {ROW_ENCODING}; go on with the version of Millstream that wrote it, or give an empty directory"
        )));
    }
    let (own, description) = (reader.bytes()?, reader.bytes()?);
    reader.end()?;
    Ok((own, description))
}

impl Description {
    /// The description in bytes.
    pub(crate) fn described(&self) -> Described {
        Described(self.write().unwrap_or_default())
    }

    fn write(&self) -> Option<Vec<u8>> {
        let mut out = vec![if self.keeps_pending { FLAG_PENDING } else { 0 }];
        put_bytes(&mut out, &schema::to_bytes(&self.schema).ok()?);
        match &self.shape {
            Shape::Aggregate { keys, aggregates, window } => {
                out.push(if window.is_some() { AGGREGATE_WINDOWED } else { AGGREGATE });
                put_number(&mut out, *keys);
                if let Some(spec) = window {
                    put_window(&mut out, &spec.window);
                }
                put_number(&mut out, aggregates.len());
                for spec in aggregates {
                    put_aggregate(&mut out, spec)?;
                }
            }
            Shape::Sessions { keys, aggregates } => {
                out.push(SESSIONS);
                put_number(&mut out, *keys);
                put_number(&mut out, aggregates.len());
                for spec in aggregates {
                    put_aggregate(&mut out, spec)?;
                }
            }
            Shape::Asof { left, keys, tolerance_us } => {
                out.push(ASOF);
                put_bytes(&mut out, &schema::to_bytes(left).ok()?);
                keys.iter().for_each(|keys| put_keys(&mut out, keys));
                out.extend_from_slice(&tolerance_us.unwrap_or(i64::MAX).to_le_bytes());
            }
            Shape::Enrich { left, keys, rows } => {
                out.push(ENRICH);
                put_bytes(&mut out, &schema::to_bytes(left).ok()?);
                keys.iter().for_each(|keys| put_keys(&mut out, keys));
                out.push(u8::from(*rows == TableRows::Latest));
            }
            Shape::Reduce { keys } => {
                out.push(REDUCE);
                put_keys(&mut out, keys);
            }
            Shape::TopN { keys, window: None } => {
                out.push(TOP_N);
                put_keys(&mut out, keys);
            }
            Shape::TopN { keys, window: Some(spec) } => {
                out.push(TOP_N_WINDOWED);
                put_keys(&mut out, keys);
                put_window(&mut out, &spec.window);
            }
            Shape::Deduplicate { keys, within_us: None } => {
                out.push(DEDUPLICATE);
                put_number(&mut out, *keys);
            }
            Shape::Deduplicate { keys, within_us: Some(us) } => {
                out.push(DEDUPLICATE_WITHIN);
                put_number(&mut out, *keys);
                out.extend_from_slice(&us.to_le_bytes());
            }
            Shape::Changelog { keys } => {
                out.push(CHANGELOG);
                put_keys(&mut out, keys);
            }
            Shape::Process { keys } => {
                out.push(PROCESS);
                put_number(&mut out, *keys);
            }
            Shape::Join(shape) | Shape::RegularJoin(shape) => {
                let JoinShape { kept, columns, window } = shape;
                out.push(if let Shape::Join(_) = self.shape { JOIN } else { REGULAR_JOIN });
                for schema in kept {
                    put_bytes(&mut out, &schema::to_bytes(schema).ok()?);
                }
                put_number(&mut out, columns.len());
                for column in columns {
                    let (code, place, other) = match *column {
                        JoinedColumn::Left(place) => (1, place, 0),
                        JoinedColumn::Right(place) => (2, place, 0),
                        JoinedColumn::Key { left, right } => (3, left, right),
                        JoinedColumn::WindowStart => (4, 0, 0),
                        JoinedColumn::WindowEnd => (5, 0, 0),
                    };
                    out.push(code);
                    put_number(&mut out, place);
                    put_number(&mut out, other);
                }
                match window {
                    None => out.push(0),
                    Some(JoinWindow::Aligned(window)) => {
                        out.push(1);
                        put_window(&mut out, window);
                    }
                    Some(JoinWindow::Session(gap)) => {
                        out.push(2);
                        out.extend_from_slice(&gap.to_le_bytes());
                    }
                }
            }
            Shape::Kept { keys, records, spec, aggregates } => {
                out.push(4);
                put_number(&mut out, keys.len());
                keys.iter().for_each(|&key| put_number(&mut out, key));
                put_bytes(&mut out, &schema::to_bytes(records).ok()?);
                put_kept_window(&mut out, spec);
                out.push(u8::from(aggregates.is_some()));
                let aggregates = aggregates.as_deref().unwrap_or_default();
                put_number(&mut out, aggregates.len());
                for spec in aggregates {
                    put_aggregate(&mut out, spec)?;
                    put_number(&mut out, spec.input.unwrap_or(0));
                    put_number(&mut out, spec.filter.unwrap_or(0));
                }
            }
        }
        Some(out)
    }

    /// The description in the state of a step. A user's aggregates become such that give their state as it is.
    pub(crate) fn read(bytes: &[u8]) -> Result<Description> {
        let (_, description) = parts(bytes)?;
        if description.is_empty() {
            return Err(Error::checkpoint("the step has columns of types that cannot be described, so its state is not readable without its plan"));
        }
        let mut reader = Reader(description);
        let flags = reader.byte()?;
        if flags > FLAG_PENDING {
            return Err(damaged("unknown flags are set"));
        }
        let mut fields: Vec<Field> = reader.schema()?.fields().iter().map(|field| field.as_ref().clone()).collect();
        let shape = match reader.byte()? {
            kind @ (AGGREGATE | AGGREGATE_WINDOWED | SESSIONS) => {
                let keys = reader.number()?;
                let window = if kind == AGGREGATE_WINDOWED { Some(reader.window()?) } else { None };
                let count = reader.count()?;
                let aggregates = (0..count).map(|_| reader.aggregate()).collect::<Result<Vec<_>>>()?;
                let before = keys.saturating_add(if kind == AGGREGATE { 0 } else { 2 });
                if before.saturating_add(count) != fields.len() {
                    return Err(damaged("its columns are not those of its keys and aggregates"));
                }
                for (field, spec) in fields[before..].iter_mut().zip(&aggregates) {
                    if let AggregateKind::User(_) = spec.kind {
                        *field = Field::new(field.name(), DataType::Binary, true);
                    } else if *field.data_type() != spec.output_type {
                        return Err(damaged(&format!("aggregate {:?} has another type than its column", spec.name)));
                    }
                }
                if kind == SESSIONS && !aggregates.iter().all(|spec| spec.kind.is_mergeable()) {
                    return Err(damaged("it has sessions with an aggregate that cannot be merged"));
                }
                if kind == SESSIONS { Shape::Sessions { keys, aggregates } } else { Shape::Aggregate { keys, aggregates, window } }
            }
            ASOF => {
                let (left, keys) = reader.pair(&fields)?;
                let tolerance = i64::from_le_bytes(reader.array()?);
                if tolerance < 0 {
                    return Err(damaged(&format!("a tolerance of {tolerance} microseconds")));
                }
                Shape::Asof { left, keys, tolerance_us: (tolerance < i64::MAX).then_some(tolerance) }
            }
            ENRICH => {
                let (left, keys) = reader.pair(&fields)?;
                let rows = match reader.byte()? {
                    0 => TableRows::All,
                    1 => TableRows::Latest,
                    other => return Err(damaged(&format!("rows of kind {other} are looked up"))),
                };
                Shape::Enrich { left, keys, rows }
            }
            REDUCE => Shape::Reduce { keys: reader.keys(fields.len())? },
            TOP_N => {
                let rows = added(&fields, &[DataType::Int64])?;
                Shape::TopN { keys: reader.keys(rows)?, window: None }
            }
            4 => reader.kept()?,
            TOP_N_WINDOWED => {
                let rows = fields.len().checked_sub(3).ok_or_else(|| damaged("it has no bounds of windows"))?;
                let bounds = fields[rows..rows + 2].iter().map(Field::data_type);
                if !bounds.clone().all(|bound| matches!(bound, DataType::Timestamp(..))) {
                    return Err(damaged("the bounds of its windows are no times"));
                }
                added(&fields, &[DataType::Int64])?;
                Shape::TopN { keys: reader.keys(rows)?, window: Some(reader.window()?) }
            }
            DEDUPLICATE => Shape::Deduplicate { keys: reader.all_keys(fields.len())?, within_us: None },
            DEDUPLICATE_WITHIN => {
                let keys = added(&fields, &[DataType::Timestamp(TimeUnit::Microsecond, None)])?;
                let keys = reader.all_keys(keys)?;
                let within_us = i64::from_le_bytes(reader.array()?);
                if within_us <= 0 {
                    return Err(damaged(&format!("keys that are kept for {within_us} microseconds")));
                }
                Shape::Deduplicate { keys, within_us: Some(within_us) }
            }
            PROCESS => {
                let keys = reader.number()?;
                // The times of its timers come last.
                if keys.saturating_add(2) > fields.len() {
                    return Err(damaged("it has too few columns"));
                }
                Shape::Process { keys }
            }
            CHANGELOG => Shape::Changelog { keys: reader.keys(fields.len())? },
            JOIN => Shape::Join(reader.join(&fields)?),
            REGULAR_JOIN => match reader.join(&fields)? {
                shape @ JoinShape { window: None, .. } => Shape::RegularJoin(shape),
                _ => return Err(damaged("a join of all rows has windows")),
            },
            other => return Err(damaged(&format!("step kind {other} is not known"))),
        };
        reader.end()?;
        Ok(Description { schema: Arc::new(Schema::new(fields)), keeps_pending: flags & FLAG_PENDING != 0, shape })
    }
}

/// How many columns come before the last ones, which have these types.
fn added(fields: &[Field], types: &[DataType]) -> Result<usize> {
    let rows = fields.len().checked_sub(types.len()).ok_or_else(|| damaged("it has too few columns"))?;
    match fields[rows..].iter().map(Field::data_type).eq(types) {
        true => Ok(rows),
        false => Err(damaged("its last columns have other types")),
    }
}

fn put_keys(out: &mut Vec<u8>, keys: &[usize]) {
    put_number(out, keys.len());
    keys.iter().for_each(|&key| put_number(out, key));
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).expect("a step has fewer than 2^32 columns and bytes of description");
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_window(out: &mut Vec<u8>, window: &Window) {
    let (kind, numbers) = match *window {
        Window::Tumbling { size_us, offset_us } => (TUMBLING, vec![size_us, offset_us]),
        Window::Sliding { size_us, slide_us, offset_us } => (SLIDING, vec![size_us, slide_us, offset_us]),
        Window::Cumulative { step_us, size_us, offset_us } => (CUMULATIVE, vec![step_us, size_us, offset_us]),
    };
    out.push(kind);
    numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn put_kept_window(out: &mut Vec<u8>, spec: &KeptWindowSpec) {
    match &spec.window {
        KeptWindow::Aligned(window) => {
            out.push(1);
            put_window(out, window);
        }
        KeptWindow::Session(SessionGap::Fixed(us)) => {
            out.push(2);
            out.extend_from_slice(&us.to_le_bytes());
        }
        KeptWindow::Session(SessionGap::Column(_)) => out.push(3),
        KeptWindow::Count(CountWindow { rows, slide, is_partial }) => {
            out.push(4);
            out.extend_from_slice(&rows.to_le_bytes());
            out.extend_from_slice(&slide.to_le_bytes());
            out.push(u8::from(*is_partial));
        }
        KeptWindow::Global => out.push(5),
        KeptWindow::Rolling(us) => {
            out.push(6);
            out.extend_from_slice(&us.to_le_bytes());
        }
    }
    out.push(u8::from(!spec.trigger.is_default()));
}

/// The number of an aggregate in the format, and its parameter.
fn code(kind: &AggregateKind) -> (u8, f64) {
    match kind {
        AggregateKind::Count => (1, 0.0),
        AggregateKind::Sum => (2, 0.0),
        AggregateKind::Mean => (3, 0.0),
        AggregateKind::Min => (4, 0.0),
        AggregateKind::Max => (5, 0.0),
        AggregateKind::First => (6, 0.0),
        AggregateKind::Last => (7, 0.0),
        AggregateKind::NUnique => (8, 0.0),
        AggregateKind::ApproxNUnique => (9, 0.0),
        AggregateKind::Std => (10, 0.0),
        AggregateKind::Var => (11, 0.0),
        AggregateKind::Quantile(at) => (12, *at),
        AggregateKind::ApproxQuantile(at) => (13, *at),
        AggregateKind::Median => (14, 0.0),
        AggregateKind::Collect => (15, 0.0),
        AggregateKind::User(_) => (16, 0.0),
    }
}

fn kind_of(code: u8, parameter: f64, name: String) -> Option<AggregateKind> {
    Some(match code {
        1 => AggregateKind::Count,
        2 => AggregateKind::Sum,
        3 => AggregateKind::Mean,
        4 => AggregateKind::Min,
        5 => AggregateKind::Max,
        6 => AggregateKind::First,
        7 => AggregateKind::Last,
        8 => AggregateKind::NUnique,
        9 => AggregateKind::ApproxNUnique,
        10 => AggregateKind::Std,
        11 => AggregateKind::Var,
        12 => AggregateKind::Quantile(parameter),
        13 => AggregateKind::ApproxQuantile(parameter),
        14 => AggregateKind::Median,
        15 => AggregateKind::Collect,
        16 => AggregateKind::User(Arc::new(RawState { name })),
        _ => return None,
    })
}

fn put_aggregate(out: &mut Vec<u8>, spec: &AggregateSpec) -> Option<()> {
    let (code, parameter) = code(&spec.kind);
    out.push(code);
    out.push(if spec.input_type.is_some() { HAS_INPUT } else { 0 } | if spec.filter.is_some() { HAS_FILTER } else { 0 });
    out.extend_from_slice(&parameter.to_bits().to_le_bytes());
    put_bytes(out, spec.name.as_bytes());
    put_bytes(out, if code == 16 { spec.kind.name() } else { String::new() }.as_bytes());
    let input = spec.input_type.clone().unwrap_or(DataType::Null);
    let types = Schema::new(vec![Field::new("input", input, true), Field::new("output", spec.output_type.clone(), true)]);
    put_bytes(out, &schema::to_bytes(&types).ok()?);
    Some(())
}

/// Stands for a user's aggregate that is not at hand: gives its state as it is.
#[derive(Debug)]
struct RawState {
    name: String,
}

impl RawState {
    fn refuse<T>(&self) -> Result<T> {
        Err(Error::new(ErrorKind::Internal, format!("aggregate {:?} is only there to be looked at", self.name)))
    }
}

impl AggregateFunction for RawState {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn return_type(&self, _input: &DataType) -> Result<DataType> {
        Ok(DataType::Binary)
    }
    fn update(&self, _state: Option<&[u8]>, _values: &arrow::array::ArrayRef) -> Result<Vec<u8>> {
        self.refuse()
    }
    fn merge(&self, _a: &[u8], _b: &[u8]) -> Result<Vec<u8>> {
        self.refuse()
    }
    fn finish(&self, state: Option<&[u8]>) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(state.map(<[u8]>::to_vec)))
    }
}

fn damaged(what: &str) -> Error {
    Error::checkpoint(format!("the state of a keyed step is damaged: {what}"))
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn number(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    /// How many things follow; each takes at least a byte.
    fn count(&mut self) -> Result<usize> {
        let count = self.number()?;
        if count > self.0.len() {
            return Err(damaged("it ends too early"));
        }
        Ok(count)
    }

    /// Columns that are keys, among the first ones.
    fn keys(&mut self, columns: usize) -> Result<Vec<usize>> {
        let count = self.count()?;
        let keys = (0..count).map(|_| self.number()).collect::<Result<Vec<_>>>()?;
        match keys.iter().any(|&key| key >= columns) {
            true => Err(damaged("a key is none of its columns")),
            false => Ok(keys),
        }
    }

    /// How many keys there are, which is how many columns.
    fn all_keys(&mut self, columns: usize) -> Result<usize> {
        let keys = self.number()?;
        if keys == columns { Ok(keys) } else { Err(damaged("its columns are not its keys")) }
    }

    /// The columns of a left input, and the keys of both inputs, the right one of which has these columns.
    fn pair(&mut self, right: &[Field]) -> Result<(SchemaRef, [Vec<usize>; 2])> {
        let left = Arc::new(self.schema()?);
        let keys = [self.keys(left.fields().len())?, self.keys(right.len())?];
        let types = |of: &[usize], field: &dyn Fn(usize) -> DataType| of.iter().map(|&key| field(key)).collect::<Vec<_>>();
        let own = types(&keys[0], &|key| canonical_type(left.field(key).data_type()));
        if own.is_empty() || own != types(&keys[1], &|key| canonical_type(right[key].data_type())) {
            return Err(damaged("its inputs have no key in common"));
        }
        Ok((left, keys))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        self.take(length)
    }

    fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| damaged("a name is not UTF-8"))
    }

    fn schema(&mut self) -> Result<Schema> {
        schema::from_bytes(self.bytes()?).map_err(|error| damaged(&error.to_string()))
    }

    fn window(&mut self) -> Result<WindowSpec> {
        let kind = self.byte()?;
        let mut number = || Ok::<i64, Error>(i64::from_le_bytes(self.array()?));
        let (window, lengths) = match kind {
            TUMBLING => {
                let (size_us, offset_us) = (number()?, number()?);
                (Window::Tumbling { size_us, offset_us }, [size_us, size_us])
            }
            SLIDING => {
                let (size_us, slide_us, offset_us) = (number()?, number()?, number()?);
                (Window::Sliding { size_us, slide_us, offset_us }, [size_us, slide_us])
            }
            CUMULATIVE => {
                let (step_us, size_us, offset_us) = (number()?, number()?, number()?);
                (Window::Cumulative { step_us, size_us, offset_us }, [size_us, step_us])
            }
            _ => return Err(damaged(&format!("window kind {kind} is not known"))),
        };
        let [size, part] = lengths;
        if part <= 0 || size < part {
            return Err(damaged(&format!("a window of {size} microseconds in parts of {part}")));
        }
        Ok(WindowSpec::new(window, 0))
    }

    fn kept_window(&mut self) -> Result<KeptWindowSpec> {
        let window = match self.byte()? {
            1 => KeptWindow::Aligned(self.window()?.window),
            2 => KeptWindow::Session(SessionGap::Fixed(i64::from_le_bytes(self.array()?))),
            // The gap of each record is in its mark; the column is that of an input that readers do not have.
            3 => KeptWindow::Session(SessionGap::Column(0)),
            4 => {
                let (rows, slide) = (u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?));
                if slide == 0 || slide > rows {
                    return Err(damaged(&format!("windows of {rows} records every {slide}")));
                }
                // What is incomplete is what there is to be seen.
                let _ = self.byte()?;
                KeptWindow::Count(CountWindow { rows, slide, is_partial: true })
            }
            5 => KeptWindow::Global,
            6 => KeptWindow::Rolling(i64::from_le_bytes(self.array()?)),
            other => return Err(damaged(&format!("window kind {other} is not known"))),
        };
        // Which trigger it is does not change what is kept.
        let early = (self.byte()? != 0).then_some(Firing::Each);
        Ok(KeptWindowSpec { window, allowed_lateness_us: 0, trigger: Trigger { early, late: None } })
    }

    /// What a join keeps, whose result has these columns.
    fn join(&mut self, fields: &[Field]) -> Result<JoinShape> {
        let kept = [Arc::new(self.schema()?), Arc::new(self.schema()?)];
        let count = self.count()?;
        if count != fields.len() {
            return Err(damaged("a join has another number of columns than its result"));
        }
        let mut columns = Vec::with_capacity(count);
        for field in fields {
            let (code, place, other) = (self.byte()?, self.number()?, self.number()?);
            let fits = |side: usize, place: usize| {
                let found: Option<&Arc<Field>> = kept[side].fields().get(place);
                found.is_some_and(|found| found.data_type() == field.data_type())
            };
            let is_time = matches!(field.data_type(), DataType::Timestamp(..));
            columns.push(match code {
                1 if fits(0, place) => JoinedColumn::Left(place),
                2 if fits(1, place) => JoinedColumn::Right(place),
                3 if fits(0, place) && fits(1, other) => JoinedColumn::Key { left: place, right: other },
                4 if is_time => JoinedColumn::WindowStart,
                5 if is_time => JoinedColumn::WindowEnd,
                _ => return Err(damaged(&format!("column {:?} of a join comes from no side", field.name()))),
            });
        }
        let has_bounds = columns.iter().any(|column| matches!(column, JoinedColumn::WindowStart | JoinedColumn::WindowEnd));
        let window = match self.byte()? {
            0 if has_bounds => return Err(damaged("a join has bounds of windows and no windows")),
            0 => None,
            1 => Some(JoinWindow::Aligned(self.window()?.window)),
            2 => Some(JoinWindow::Session(i64::from_le_bytes(self.array()?))),
            other => return Err(damaged(&format!("windows of kind {other} of a join are not known"))),
        };
        Ok(JoinShape { kept, columns, window })
    }

    fn kept(&mut self) -> Result<Shape> {
        let count = self.count()?;
        let keys = (0..count).map(|_| self.number()).collect::<Result<Vec<_>>>()?;
        let records = Arc::new(self.schema()?);
        let columns = records.fields().len();
        if keys.iter().any(|&key| key >= columns) {
            return Err(damaged("a key is none of its columns"));
        }
        let spec = self.kept_window()?;
        let has_aggregates = self.byte()? != 0;
        let count = self.count()?;
        let mut aggregates = Vec::with_capacity(count);
        for _ in 0..count {
            let mut aggregate = self.aggregate()?;
            let (input, filter) = (self.number()?, self.number()?);
            let fits = |place: Option<usize>, at: usize| place.is_none() || at < columns;
            if !fits(aggregate.input, input) || !fits(aggregate.filter, filter) {
                return Err(damaged("an aggregate is over a column that is not there"));
            }
            aggregate.input = aggregate.input.map(|_| input);
            aggregate.filter = aggregate.filter.map(|_| filter);
            aggregates.push(aggregate);
        }
        // A user's aggregate computes nothing here; without it the records are what there is to be seen.
        let is_users = aggregates.iter().any(|spec| matches!(spec.kind, AggregateKind::User(_)));
        Ok(Shape::Kept { keys, records, spec, aggregates: (has_aggregates && !is_users).then_some(aggregates) })
    }

    fn aggregate(&mut self) -> Result<AggregateSpec> {
        let (code, flags) = (self.byte()?, self.byte()?);
        if flags > HAS_INPUT | HAS_FILTER {
            return Err(damaged("unknown flags of an aggregate are set"));
        }
        let parameter = f64::from_bits(u64::from_le_bytes(self.array()?));
        let (name, function) = (self.text()?, self.text()?);
        let types = self.schema()?;
        let [input, output] = &types.fields()[..] else { return Err(damaged("an aggregate has an input and an output")) };
        let (input_type, output_type) = (input.data_type().clone(), output.data_type().clone());
        let input_type = (flags & HAS_INPUT != 0).then_some(input_type);
        let kind = kind_of(code, parameter, function)
            .ok_or_else(|| damaged(&format!("aggregate {code} is not known")))?;
        if !matches!(kind, AggregateKind::User(_)) {
            let taken = input_type.as_ref().map(|input| kind.input_type(input)).transpose()?;
            if taken != input_type || kind.output_type(input_type.as_ref())? != output_type {
                return Err(damaged(&format!("aggregate {name:?} cannot make {output_type} of {input_type:?}")));
            }
        }
        let filter = (flags & HAS_FILTER != 0).then_some(0);
        Ok(AggregateSpec { kind, input: input_type.as_ref().map(|_| 0), filter, name, input_type, output_type })
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(damaged("there are bytes behind its end")) }
    }
}

#[cfg(test)]
mod tests;
