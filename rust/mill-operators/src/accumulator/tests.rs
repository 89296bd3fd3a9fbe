//! Every aggregate against a plain computation over the list of its values.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListBuilder, StringArray,
    StringBuilder, UInt64Array, Int64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mill_plan::{AggregateFunction, AggregateKind, AggregateSpec, Emit, ScalarValue, Stage, StageKind, Window, WindowSpec};
use mill_protocol::testkit::{Compare, Input, batch, check};
use mill_protocol::{Batch, Epoch, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark};
use mill_protocol::{Emission, Error};

use crate::fixture::context;

/// An aggregate of a column; the type of its input is that column's.
pub(crate) fn spec(kind: AggregateKind, input: Option<(usize, DataType)>, filter: Option<usize>) -> AggregateSpec {
    let input_type = input.as_ref().map(|(_, data_type)| kind.input_type(data_type).expect("a type it takes"));
    let output_type = kind.output_type(input_type.as_ref()).expect("a type it takes");
    let name = format!("{}_{}", kind.name(), input.as_ref().map_or(0, |(column, _)| *column));
    AggregateSpec { kind, input: input.map(|(column, _)| column), filter, by_time: false, name, input_type, output_type }
}

pub(crate) fn stage(kind: StageKind, fields: Vec<Field>) -> Stage {
    Stage {
        uid: "step".to_owned(),
        name: "step".to_owned(),
        step: "step".to_owned(),
        kind,
        schema: Arc::new(Schema::new(fields)),
        ports: vec![Vec::new(), Vec::new()],
        outputs: Vec::new(),
        errors: Vec::new(),
        signature: String::new(),
        parts: Vec::new(),
        updating: None,
    }
}

pub(crate) fn result_fields(key: DataType, is_windowed: bool, specs: &[AggregateSpec]) -> Vec<Field> {
    let mut fields = vec![Field::new("k", key, true)];
    if is_windowed {
        let time = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        fields.extend(["window_start", "window_end"].map(|name| Field::new(name, time.clone(), true)));
    }
    fields.extend(specs.iter().map(AggregateSpec::field));
    fields
}

/// What follows a partial stage, as one operator.
struct Two {
    ahead: Box<dyn Operator>,
    behind: Box<dyn Operator>,
}

impl Two {
    fn through(
        &mut self,
        out: &mut Outbox,
        event: impl FnOnce(&mut dyn Operator, &mut Outbox) -> Result<Progress>,
    ) -> Result<Progress> {
        let mut between = Outbox::default();
        let mut progress = event(self.ahead.as_mut(), &mut between)?;
        loop {
            while let Some(emission) = between.pop() {
                match emission {
                    Emission::Batch(0, batch) => {
                        let mut progress = self.behind.on_batch(0, batch, out)?;
                        while progress == Progress::More {
                            progress = self.behind.resume(out)?;
                        }
                    }
                    Emission::Batch(port, batch) => out.push_to(port, batch),
                    other => panic!("{other:?}"),
                }
            }
            between.take_rejected().into_iter().for_each(|rejected| out.reject(rejected));
            out.count_late(between.take_late());
            if progress == Progress::Done {
                return Ok(Progress::Done);
            }
            progress = self.ahead.resume(&mut between)?;
        }
    }
}

impl Operator for Two {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        self.through(out, |ahead, between| ahead.on_batch(0, batch, between))
    }
    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        let _ = self.through(out, |ahead, between| ahead.on_watermark(0, at, between))?;
        self.behind.on_watermark(0, at, out)
    }
    fn earliest_result(&self) -> Watermark {
        self.behind.earliest_result()
    }
    fn on_barrier(&mut self, epoch: Epoch, out: &mut Outbox) -> Result<Progress> {
        let _ = self.through(out, |ahead, between| ahead.on_barrier(epoch, between))?;
        self.behind.on_barrier(epoch, out)
    }
    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        let _ = self.through(out, |ahead, between| ahead.on_end(between))?;
        self.behind.on_end(out)
    }
    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.behind.resume(out)
    }
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let mut nothing = Snapshot { is_full: snapshot.is_full, ..Snapshot::default() };
        self.ahead.snapshot(&mut nothing)?;
        assert!(nothing.bytes.is_none() && nothing.blocks.make().is_empty(), "a partial stage keeps nothing past a barrier");
        self.behind.snapshot(snapshot)
    }
    fn restore(&mut self, restored: &Restored) -> Result<()> {
        self.behind.restore(restored)
    }
}

/// The stage by itself, or cut in two by an exchange.
pub(crate) fn make(
    key: DataType,
    specs: &[AggregateSpec],
    window: Option<(Window, i64)>,
    emit: Emit,
    is_partial: bool,
    context: &TaskContext,
) -> Box<dyn Operator> {
    let fields = result_fields(key.clone(), window.is_some(), specs);
    let last = |keys: Vec<usize>, aggregates: Vec<AggregateSpec>, is_partial| match window {
        Some((window, lateness)) => {
            StageKind::WindowAggregate { keys, aggregates, is_partial, window: WindowSpec::new(window, lateness) }
        }
        None => StageKind::Aggregate { keys, aggregates, is_partial, emit },
    };
    if !is_partial {
        return crate::build(&stage(last(vec![0], specs.to_vec(), false), fields), context).unwrap();
    }
    let mut between: Vec<Field> = Vec::new();
    between.extend(window.map(|_| Field::new("window_start", DataType::Int64, false)));
    if window.is_some_and(|(window, _)| window.is_overlapping()) {
        between.push(Field::new("is_window", DataType::Boolean, false));
    }
    between.push(Field::new("k", key, true));
    let first_key = between.len() - 1;
    let mut merged = Vec::new();
    for spec in specs {
        merged.push(AggregateSpec { input: Some(between.len()), filter: None, ..spec.clone() });
        between.extend(spec.partial_fields());
    }
    let ahead = StageKind::PartialAggregate {
        keys: vec![0],
        aggregates: specs.to_vec(),
        window: window.map(|(window, lateness)| WindowSpec::new(window, lateness)),
        bound_type: window.map(|_| DataType::Timestamp(TimeUnit::Microsecond, None)),
    };
    Box::new(Two {
        ahead: crate::build(&stage(ahead, between), context).unwrap(),
        behind: crate::build(&stage(last(vec![first_key], merged, true), fields), context).unwrap(),
    })
}

pub(crate) fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// A user's aggregate: the bytes of all values as text, joined.
#[derive(Debug)]
struct Join;

impl AggregateFunction for Join {
    fn name(&self) -> String {
        "join".to_owned()
    }
    fn return_type(&self, _input: &DataType) -> Result<DataType> {
        Ok(DataType::Utf8)
    }
    fn update(&self, state: Option<&[u8]>, values: &ArrayRef) -> Result<Vec<u8>> {
        let mut state = state.unwrap_or_default().to_vec();
        let shown = ArrayFormatter::try_new(values, &FormatOptions::new()).unwrap();
        for row in 0..values.len() {
            let text = shown.value(row).to_string();
            if text == "13" {
                return Err(Error::new(mill_protocol::ErrorKind::UserFunction, "unlucky"));
            }
            state.extend(text.bytes());
        }
        Ok(state)
    }
    fn merge(&self, a: &[u8], b: &[u8]) -> Result<Vec<u8>> {
        Ok([a, b].concat())
    }
    fn finish(&self, state: Option<&[u8]>) -> Result<ScalarValue> {
        Ok(ScalarValue::Utf8(state.map(|state| String::from_utf8(state.to_vec()).unwrap())))
    }
}

#[derive(Clone, Debug)]
struct Record {
    key: Option<String>,
    int: Option<i64>,
    float: Option<f64>,
    text: Option<String>,
    is_in: Option<bool>,
}

fn random_records(rows: usize, keys: u64, seed: &mut u64) -> Vec<Record> {
    (0..rows)
        .map(|_| Record {
            key: Some(random(seed) % keys).filter(|&k| k != 2).map(|k| format!("key number {k}").split_off((k % 2) as usize * 4)),
            int: Some(random(seed) as i64 % 20).filter(|&v| v % 7 != 0),
            float: match random(seed) % 12 {
                0 => None,
                1 => Some(f64::NAN),
                v => Some(v as f64 * 0.1 - 0.5),
            },
            text: Some(random(seed) % 9).filter(|&v| v != 0).map(|v| "ab".repeat(v as usize)),
            is_in: [Some(true), Some(false), None][(random(seed) % 3) as usize],
        })
        .collect()
}

fn batch_of(records: &[Record]) -> Batch {
    let texts = |value: fn(&Record) -> Option<&str>| Arc::new(records.iter().map(value).collect::<StringArray>()) as ArrayRef;
    let ints: Int64Array = records.iter().map(|r| r.int).collect();
    let decimals = Decimal128Array::from_iter(records.iter().map(|r| r.int.map(i128::from))).with_precision_and_scale(10, 1).unwrap();
    let dates: Date32Array = records.iter().map(|r| r.int.map(|v| v as i32)).collect();
    let unsigned: UInt64Array = records.iter().map(|r| r.int.map(|v| v.unsigned_abs())).collect();
    batch(&[
        ("k", texts(|r| r.key.as_deref())),
        ("i", Arc::new(ints)),
        ("f", Arc::new(records.iter().map(|r| r.float).collect::<Float64Array>())),
        ("s", texts(|r| r.text.as_deref())),
        ("b", Arc::new(records.iter().map(|r| r.is_in).collect::<BooleanArray>())),
        ("d", Arc::new(decimals)),
        ("t", Arc::new(dates)),
        ("u", Arc::new(unsigned)),
    ])
}

const INT: usize = 1;
const FLOAT: usize = 2;
const TEXT: usize = 3;
const IN: usize = 4;
const DECIMAL: usize = 5;
const DATE: usize = 6;
const UNSIGNED: usize = 7;

fn order(a: &f64, b: &f64) -> std::cmp::Ordering {
    a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn column_type(column: usize) -> DataType {
    batch_of(&[]).column(column).data_type().clone()
}

/// The result of one aggregate over one key, as an array of one value.
fn oracle(kind: &AggregateKind, column: Option<usize>, records: &[&Record]) -> ArrayRef {
    let floats = || -> Vec<f64> {
        let value = |r: &&Record| if column == Some(FLOAT) { r.float } else { r.int.map(|v| v as f64) };
        records.iter().filter_map(value).collect()
    };
    let ints = || -> Vec<i64> { records.iter().filter_map(|r| r.int).collect() };
    let quantile = |at: f64| {
        let mut values = floats();
        values.sort_by(order);
        (!values.is_empty()).then(|| {
            let place = at * (values.len() - 1) as f64;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            if low == high || place.fract() == 0.0 { low } else { low + (high - low) * place.fract() }
        })
    };
    let variance = || {
        let values = floats();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (values.len() > 1).then(|| values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0))
    };
    let float = |value: Option<f64>| Arc::new(Float64Array::from(vec![value])) as ArrayRef;
    let int = |value: Option<i64>| -> ArrayRef {
        match column {
            Some(DECIMAL) => {
                let precision = if matches!(kind, AggregateKind::Sum) { 38 } else { 10 };
                Arc::new(Decimal128Array::from(vec![value.map(i128::from)]).with_precision_and_scale(precision, 1).unwrap())
            }
            Some(DATE) => Arc::new(Date32Array::from(vec![value.map(|v| v as i32)])),
            Some(UNSIGNED) => Arc::new(UInt64Array::from(vec![value.map(|v| v as u64)])),
            _ => Arc::new(Int64Array::from(vec![value])),
        }
    };
    let text = |value: Option<String>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let place = |record: Option<&&Record>| match column {
        Some(TEXT) => text(record.and_then(|r| r.text.clone())),
        Some(FLOAT) => float(record.and_then(|r| r.float)),
        _ => int(record.and_then(|r| r.int)),
    };
    let count = |n: usize| Arc::new(Int64Array::from(vec![n as i64])) as ArrayRef;
    match (kind, column) {
        (AggregateKind::Count, None) => count(records.len()),
        (AggregateKind::Count, Some(TEXT)) => count(records.iter().filter(|r| r.text.is_some()).count()),
        (AggregateKind::Count, _) => count(ints().len()),
        (AggregateKind::Sum, Some(FLOAT)) => float(Some(floats()).filter(|v| !v.is_empty()).map(|v| v.iter().sum())),
        (AggregateKind::Sum, Some(UNSIGNED)) => {
            int(Some(ints()).filter(|v| !v.is_empty()).map(|v| v.iter().map(|v| v.abs()).sum()))
        }
        (AggregateKind::Sum, _) => int(Some(ints()).filter(|v| !v.is_empty()).map(|v| v.iter().sum())),
        (AggregateKind::Mean, _) => {
            float(Some(floats()).filter(|v| !v.is_empty()).map(|v| v.iter().sum::<f64>() / v.len() as f64))
        }
        (AggregateKind::Var, _) => float(variance()),
        (AggregateKind::Std, _) => float(variance().map(f64::sqrt)),
        (AggregateKind::Min, Some(FLOAT)) => float(floats().into_iter().min_by(order)),
        (AggregateKind::Max, Some(FLOAT)) => float(floats().into_iter().max_by(order)),
        (AggregateKind::Min, Some(TEXT)) => text(records.iter().filter_map(|r| r.text.clone()).min()),
        (AggregateKind::Max, Some(TEXT)) => text(records.iter().filter_map(|r| r.text.clone()).max()),
        (AggregateKind::Min, _) => int(ints().into_iter().min()),
        (AggregateKind::Max, _) => int(ints().into_iter().max()),
        (AggregateKind::First, _) => place(records.first()),
        (AggregateKind::Last, _) => place(records.last()),
        (AggregateKind::NUnique | AggregateKind::ApproxNUnique, _) => {
            let mut values: Vec<String> = records
                .iter()
                .map(|r| if column == Some(TEXT) { format!("{:?}", r.text) } else { format!("{:?}", r.float) })
                .collect();
            values.sort();
            values.dedup();
            count(values.len())
        }
        (AggregateKind::Quantile(at), _) => float(quantile(*at)),
        (AggregateKind::Median, _) => float(quantile(0.5)),
        (AggregateKind::Collect, Some(TEXT)) => {
            let mut list = ListBuilder::new(StringBuilder::new());
            records.iter().for_each(|r| list.values().append_option(r.text.as_deref()));
            list.append(true);
            Arc::new(list.finish())
        }
        (AggregateKind::Collect, _) => {
            let mut list = ListBuilder::new(Int64Builder::new());
            records.iter().for_each(|r| list.values().append_option(r.int));
            list.append(true);
            Arc::new(list.finish())
        }
        (AggregateKind::User(_), _) => {
            let texts: Vec<String> = records.iter().map(|r| r.int.map_or(String::new(), |v| v.to_string())).filter(|t| t != "13").collect();
            text((!texts.is_empty()).then(|| texts.concat()))
        }
        other => panic!("no oracle for {other:?}"),
    }
}

/// Floats to ten digits, so that plain sums and exact ones agree.
fn shown(array: &dyn Array, row: usize) -> String {
    let options = FormatOptions::new().with_null("null");
    let text = ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string();
    match text.parse::<f64>() {
        Ok(value) if *array.data_type() == DataType::Float64 => format!("{value:.10}").replace("-0.0000000000", "0.0000000000"),
        _ => text,
    }
}

fn check_against_oracle(specs: &[AggregateSpec], is_partial: bool, records: &[Record], cuts: usize) {
    let batches: Vec<Input> = records.chunks(cuts).map(|records| Input::Batch(batch_of(records))).collect();
    let make = || make(DataType::Utf8, specs, None, Emit::End, is_partial, &context());
    check(make, &batches, &Compare::Unordered);
    // The transcript is text; results are compared as values, from a run of its own.
    let mut operator = make();
    let mut out = Outbox::default();
    for input in &batches {
        let Input::Batch(batch) = input else { unreachable!() };
        let _ = operator.on_batch(0, batch.clone(), &mut out).unwrap();
    }
    let mut progress = operator.on_end(&mut out).unwrap();
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
    }
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(Emission::Batch(0, batch)) = out.pop() {
        for row in 0..batch.rows() {
            let values = batch.data().columns()[1..].iter().map(|column| shown(column.as_ref(), row)).collect();
            assert!(found.insert(shown(batch.column(0).as_ref(), row), values).is_none());
        }
    }
    let mut by_key: BTreeMap<String, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_key.entry(record.key.clone().unwrap_or("null".to_owned())).or_default().push(record);
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), by_key.keys().collect::<Vec<_>>());
    for (key, records) in by_key {
        for (spec, found) in specs.iter().zip(&found[&key]) {
            let filtered: Vec<&Record> =
                records.iter().filter(|r| spec.filter.is_none() || r.is_in == Some(true)).copied().collect();
            let expected = shown(oracle(&spec.kind, spec.input, &filtered).as_ref(), 0);
            assert_eq!(found, &expected, "{spec} of {key}");
        }
    }
}

fn specs(kinds: &[(AggregateKind, Option<usize>)]) -> Vec<AggregateSpec> {
    let of = |filter: Option<usize>| {
        kinds.iter().map(move |(kind, column)| spec(kind.clone(), column.map(|c| (c, column_type(c))), filter))
    };
    of(None).chain(of(Some(IN))).collect()
}

#[test]
fn mergeable_aggregates_are_right_with_and_without_partials() {
    use AggregateKind::*;
    let columns = [INT, DECIMAL, DATE, UNSIGNED];
    let mut kinds = vec![(Count, None), (Count, Some(INT)), (Count, Some(TEXT)), (Min, Some(TEXT)), (Max, Some(TEXT))];
    kinds.extend(columns.iter().filter(|&&c| c != UNSIGNED).flat_map(|&c| [(Min, Some(c)), (Max, Some(c))]));
    kinds.extend([INT, DECIMAL, UNSIGNED, FLOAT].map(|c| (Sum, Some(c))));
    kinds.extend([(Mean, Some(INT)), (Std, Some(INT)), (Var, Some(INT)), (Mean, Some(FLOAT)), (Var, Some(FLOAT)), (Min, Some(FLOAT)), (Max, Some(FLOAT))]);
    let mut seed = 77;
    for is_partial in [false, true] {
        check_against_oracle(&specs(&kinds), is_partial, &random_records(40, 5, &mut seed), 17);
        check_against_oracle(&specs(&kinds), is_partial, &[], 17);
    }
}

#[test]
fn other_aggregates_are_right() {
    use AggregateKind::*;
    let kinds = [
        (First, Some(INT)), (Last, Some(INT)), (First, Some(TEXT)), (Last, Some(TEXT)), (First, Some(FLOAT)), (Last, Some(DECIMAL)),
        (NUnique, Some(FLOAT)), (NUnique, Some(TEXT)), (ApproxNUnique, Some(FLOAT)), (Median, Some(INT)),
        (Quantile(0.95), Some(FLOAT)), (Quantile(0.0), Some(INT)), (Quantile(1.0), Some(INT)), (Collect, Some(TEXT)), (Collect, Some(INT)),
    ];
    let mut seed = 78;
    check_against_oracle(&specs(&kinds), false, &random_records(40, 5, &mut seed), 11);
}

#[test]
fn records_a_users_aggregate_fails_for_are_rejected_alone() {
    let join: Arc<dyn AggregateFunction> = Arc::new(Join);
    let specs = vec![spec(AggregateKind::User(join), Some((INT, DataType::Int64)), None), spec(AggregateKind::Count, None, None)];
    let mut seed = 79;
    let mut records = random_records(40, 4, &mut seed);
    records[7].int = Some(13);
    records[23].int = Some(13);
    check_against_oracle(&specs, false, &records, 40);
    let make = || make(DataType::Utf8, &specs, None, Emit::End, false, &context());
    let transcript = check(make, &[Input::Batch(batch_of(&records))], &Compare::Unordered);
    let unlucky = records.iter().filter(|record| record.int == Some(13)).count();
    assert!(unlucky >= 2 && transcript.rejected.len() == unlucky, "{:?}", transcript.rejected);
    assert!(transcript.rejected[0].starts_with("unlucky | {\"k\":"), "{:?}", transcript.rejected);
}

#[test]
fn only_the_total_decides_whether_a_sum_fits() {
    let specs = [spec(AggregateKind::Sum, Some((INT, DataType::Int64)), None), spec(AggregateKind::Count, None, None)];
    let record = |key: &str, int| Record { key: Some(key.to_owned()), int: Some(int), float: None, text: None, is_in: None };
    let fits = [i64::MAX, i64::MAX, 1, i64::MIN, i64::MIN, 1, 7];
    let beyond = [i64::MIN, -1, 0];
    let mut records: Vec<Record> = fits.iter().map(|&int| record("fits", int)).collect();
    records.extend(beyond.iter().map(|&int| record("beyond", int)));
    records.extend([record("small", 1), record("small", 2)]);
    for is_partial in [false, true] {
        let make = || make(DataType::Utf8, &specs, None, Emit::End, is_partial, &context());
        let transcript = check(make, &[Input::Batch(batch_of(&records))], &Compare::Unordered);
        assert_eq!(transcript.rows, ["0: \"fits\", 7, 7", "0: \"small\", 3, 2"]);
        let expected = "sum \"sum_1\" is -9223372036854775809 and overflows int64";
        assert_eq!(transcript.rejected.len(), 1);
        assert!(transcript.rejected[0].starts_with(expected), "{:?}", transcript.rejected);
        assert!(transcript.rejected[0].contains("{\"k\":\"beyond\",\"sum_1\":null,"), "{:?}", transcript.rejected);
    }
}

#[test]
fn sums_and_means_of_floats_leave_the_range_and_come_back() {
    let column = Some((FLOAT, DataType::Float64));
    let specs = [spec(AggregateKind::Sum, column.clone(), None), spec(AggregateKind::Mean, column, None)];
    let record = |float| Record { key: None, int: None, float: Some(float), text: None, is_in: None };
    let large = 2f64.powi(1023);
    let cases: [(&[f64], f64, f64); 5] = [
        (&[large, large, -large], large, large / 3.0),
        (&[-large, -large, -large, large, large, 3.0], 3.0 - large, (3.0 - large) / 6.0),
        (&[large, large], f64::INFINITY, large),
        (&[f64::MAX, f64::MAX, f64::MAX, f64::MAX], f64::INFINITY, f64::MAX),
        (&[large, large, f64::INFINITY], f64::INFINITY, f64::INFINITY),
    ];
    for (values, sum, mean) in cases {
        let records: Vec<Record> = values.iter().map(|&value| record(value)).collect();
        for is_partial in [false, true] {
            let make = || make(DataType::Utf8, &specs, None, Emit::End, is_partial, &context());
            let transcript = check(make, &[Input::Batch(batch_of(&records))], &Compare::Unordered);
            let row = transcript.rows[0].trim_start_matches("0: null, ");
            let found: Vec<f64> = row.split(", ").map(|value| value.parse().unwrap()).collect();
            assert_eq!(found, [sum, mean], "{values:?}");
        }
    }
}

#[test]
fn sums_of_decimals_leave_the_range_and_come_back() {
    use crate::accumulator::number::add_decimals;
    let most = 10i128.pow(38) - 1;
    assert_eq!(add_decimals(most, 1), (0, 1));
    assert_eq!(add_decimals(most, most), (most - 1, 1));
    assert_eq!(add_decimals(-most, -1), (0, -1));
    assert_eq!(add_decimals(-most, -most), (1 - most, -1));
    assert_eq!(add_decimals(most, -most), (0, 0));
    assert_eq!(add_decimals(5, -7), (-2, 0));
}

#[test]
fn quantiles_of_numbers_that_floats_do_not_hold_are_rounded_once() {
    let specs = [spec(AggregateKind::Median, Some((INT, DataType::Int64)), None), spec(AggregateKind::Quantile(0.25), Some((INT, DataType::Int64)), None)];
    let record = |int| Record { key: None, int: Some(int), float: None, text: None, is_in: None };
    let records: Vec<Record> = [i64::MIN, i64::MAX].map(record).into();
    let make = || make(DataType::Utf8, &specs, None, Emit::End, false, &context());
    let transcript = check(make, &[Input::Batch(batch_of(&records))], &Compare::Unordered);
    // -2^63 + (2^64 - 1) / 4 is -2^62 - 0.25.
    assert_eq!(transcript.rows, [format!("0: null, -0.5, {:?}", -(2f64.powi(62)))]);
}

#[test]
fn approximate_quantile_is_near() {
    let specs = [spec(AggregateKind::ApproxQuantile(0.9), Some((FLOAT, DataType::Float64)), None)];
    let record = |v: i32| Record { key: None, int: None, float: Some(f64::from(v)), text: None, is_in: None };
    let records: Vec<Record> = (1..=100).map(record).collect();
    let make = || make(DataType::Utf8, &specs, None, Emit::End, false, &context());
    let transcript = check(make, &[Input::Batch(batch_of(&records))], &Compare::Unordered);
    let value: f64 = transcript.rows[0].trim_start_matches("0: null, ").parse().unwrap();
    assert!((value - 90.0).abs() < 1.0, "{value}");
}
