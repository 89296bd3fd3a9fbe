//! A description out of its bytes, of which nothing is trusted.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_frame::schema;
use mill_frame::types::canonical_type;
use mill_plan::{
    AggregateFunction, AggregateKind, AggregateSpec, CountWindow, Firing, JoinedColumn, KeptWindow, KeptWindowSpec,
    ScalarValue, SessionGap, TableRows, Trigger, Window, WindowSpec,
};
use mill_protocol::{Error, ErrorKind, Result};

use super::{
    AGGREGATE, AGGREGATE_WINDOWED, ASOF, BY_TIME, CHANGELOG, CUMULATIVE, DEDUPLICATE, DEDUPLICATE_WITHIN, Description, ENRICH,
    FLAG_PENDING, HAS_FILTER, HAS_INPUT, JOIN, JoinShape, JoinWindow, PROCESS, REDUCE, REGULAR_JOIN, SESSIONS,
    SHIFT, SLIDING, Shape, TOP_N, TOP_N_WINDOWED, TRIGGERED, TUMBLING, damaged, parts,
};

impl Description {
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
                let before = keys.saturating_add(if kind == AGGREGATE { 0 } else { 2 });
                let aggregates = reader.aggregates_after(before, &mut fields)?;
                if kind == SESSIONS && !aggregates.iter().all(|spec| spec.kind.is_mergeable()) {
                    return Err(damaged("it has sessions with an aggregate that cannot be merged"));
                }
                if kind == SESSIONS { Shape::Sessions { keys, aggregates } } else { Shape::Aggregate { keys, aggregates, window } }
            }
            TRIGGERED => {
                let keys = reader.number()?;
                let spec = reader.kept_window()?;
                let added = 2 * (usize::from(spec.window.has_bounds()) + usize::from(!spec.trigger.is_default()));
                let aggregates = reader.aggregates_after(keys.saturating_add(added), &mut fields)?;
                if !spec.is_of_rows(&aggregates) {
                    return Err(damaged("it has rows of windows that keep their records"));
                }
                let bounds = fields.iter().skip(keys).take(if spec.window.has_bounds() { 2 } else { 0 }).map(Field::data_type);
                if !bounds.into_iter().all(|bound| matches!(bound, DataType::Timestamp(..))) {
                    return Err(damaged("the bounds of its windows are no times"));
                }
                let beside = fields.iter().take(keys + added).rev().take(if spec.trigger.is_default() { 0 } else { 2 });
                if !beside.map(Field::data_type).all(|of| matches!(of, DataType::Int64 | DataType::Utf8)) {
                    return Err(damaged("its results are not numbered"));
                }
                Shape::Triggered { keys, spec, aggregates }
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
            SHIFT => {
                let keys = reader.number()?;
                if keys == 0 || keys >= fields.len() {
                    return Err(damaged("it has too few columns"));
                }
                Shape::Shift { keys }
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
        17 => AggregateKind::Product,
        18 => AggregateKind::MinBy,
        19 => AggregateKind::MaxBy,
        16 => AggregateKind::User(Arc::new(RawState { name })),
        _ => return None,
    })
}

/// Stands for a user's aggregate that is not at hand: returns its state as it is.
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

/// What is left to be read.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

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

    pub(super) fn byte(&mut self) -> Result<u8> {
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

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
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

    /// The aggregates whose results come after so many columns, which are the last of these.
    fn aggregates_after(&mut self, before: usize, fields: &mut [Field]) -> Result<Vec<AggregateSpec>> {
        let count = self.count()?;
        let aggregates = (0..count).map(|_| self.aggregate()).collect::<Result<Vec<_>>>()?;
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
        Ok(aggregates)
    }

    fn aggregate(&mut self) -> Result<AggregateSpec> {
        let (code, flags) = (self.byte()?, self.byte()?);
        if flags > HAS_INPUT | HAS_FILTER | BY_TIME {
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
        let by_time = flags & BY_TIME != 0;
        Ok(AggregateSpec { kind, input: input_type.as_ref().map(|_| 0), filter, by_time, name, input_type, output_type })
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(damaged("there are bytes after its end")) }
    }
}
