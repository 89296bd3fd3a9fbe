use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_plan::{
    BroadcastStage, Migration, ProcessCall, ProcessEvents, ProcessFailure, ProcessFunction, ProcessOrigin, ProcessOutput,
    ProcessRows, ProcessStage, ProcessTask, StageKind, StateSpec, UntilLoaded,
};
use mill_protocol::testkit::{Compare, Input, batch, check_inputs, integers};
use mill_protocol::{Error, ErrorKind, Operator, Outbox, Progress, Result, Watermark};

use crate::accumulator::tests::stage;
use crate::fixture::context;

/// A broadcast record adds to the sum, and 13 fails. A keyed one emits its number and the sum.
#[derive(Debug)]
struct Summing;

impl ProcessFunction for Summing {
    fn name(&self) -> String {
        "process(Summing)".to_owned()
    }
    fn open(&self) -> Result<Box<dyn ProcessTask>> {
        Ok(Box::new(Summing))
    }
}

impl ProcessTask for Summing {
    fn call(&mut self, call: &ProcessCall<'_>) -> std::result::Result<ProcessOutput, ProcessFailure> {
        let broadcast = call.broadcast.ok_or_else(|| Error::internal("a call without broadcast states"))?;
        let sum = broadcast.row.column(0).as_primitive::<Int64Type>();
        let sum = if sum.is_valid(0) { sum.value(0) } else { 0 };
        let values = |rows: &RecordBatch| rows.column(1).as_primitive::<Int64Type>().values().to_vec();
        let made = |schema: &SchemaRef, columns: Vec<ArrayRef>| {
            RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| Error::internal(error.to_string()))
        };
        let mut output = ProcessOutput::default();
        match &call.events {
            ProcessEvents::Broadcast { rows, .. } => {
                // In pieces, so that what is left is asked for again.
                output.done = rows.num_rows().min(2);
                let added = &values(rows)[..output.done];
                if added.contains(&13) {
                    return Err(Error::new(ErrorKind::UserFunction, "13 is refused").into());
                }
                let sum: i64 = sum + added.iter().sum::<i64>();
                output.changed = vec![0];
                output.states = Some(made(&broadcast.row.schema(), vec![Arc::new(Int64Array::from(vec![sum]))])?);
            }
            ProcessEvents::Records { rows, .. } => {
                output.done = rows.num_rows();
                let sums = Int64Array::from(vec![sum; output.done]);
                let data = made(&results(), vec![Arc::clone(rows.column(1)), Arc::new(sums)])?;
                let origin = ProcessOrigin::Records((0..output.done as u32).collect());
                output.rows.push(ProcessRows { port: 0, data, origin });
            }
            _ => {}
        }
        Ok(output)
    }
}

fn columns(names: [&str; 2]) -> SchemaRef {
    Arc::new(Schema::new(names.map(|name| Field::new(name, DataType::Int64, true)).to_vec()))
}

fn results() -> SchemaRef {
    columns(["x", "sum"])
}

fn operator(until_loaded: UntilLoaded) -> Box<dyn Operator> {
    let sum = StateSpec {
        name: "sum".to_owned(),
        kind: "value".to_owned(),
        columns: vec![Arc::new(Field::new("sum", DataType::Int64, true))],
        default: None,
        ttl: None,
        migration: Migration::None,
    };
    let broadcast = BroadcastStage { records: columns(["k", "y"]), states: vec![sum], is_timed: false, until_loaded };
    let process = ProcessStage {
        keys: vec![0],
        records: columns(["k", "x"]),
        function: Arc::new(Summing),
        states: Vec::new(),
        sides: Vec::new(),
        is_timed: false,
        broadcast: Some(broadcast),
    };
    let fields = results().fields().iter().map(|field| field.as_ref().clone()).collect();
    crate::build(&stage(StageKind::Process(Box::new(process)), fields), &context()).unwrap()
}

fn frames(name: &str, values: &[i64]) -> Vec<Input> {
    let frame = |values: &[i64]| {
        let (keys, values): (Vec<Option<i64>>, Vec<Option<i64>>) = values.iter().map(|&value| (Some(value % 4), Some(value))).unzip();
        Input::Batch(batch(&[("k", integers(&keys)), (name, integers(&values))]))
    };
    values.chunks(5).flat_map(|values| [frame(values), Input::Barrier]).collect()
}

#[test]
fn keyed_records_meet_what_a_bounded_stream_has_left() {
    for until_loaded in [UntilLoaded::Hold, UntilLoaded::Keep] {
        let (keyed, broadcast): (Vec<i64>, Vec<i64>) = ((0..23).collect(), (100..112).collect());
        let inputs = [frames("x", &keyed), frames("y", &broadcast)];
        let transcript = check_inputs(|| operator(until_loaded), &[&inputs[0], &inputs[1]], &Compare::Unordered);
        let sum: i64 = broadcast.iter().sum();
        let mut expected: Vec<String> = keyed.iter().map(|x| format!("0: {x}, {sum}")).collect();
        expected.sort();
        assert_eq!(transcript.rows, expected, "{until_loaded:?}");
    }
}

#[test]
fn time_stands_still_until_records_that_wait_are_done() {
    let mut operator = operator(UntilLoaded::Keep);
    let mut out = Outbox::default();
    let Some(Input::Batch(keyed)) = frames("x", &[1, 2]).into_iter().next() else { panic!("there is a frame") };
    assert_eq!(operator.on_batch(0, keyed, &mut out).unwrap(), Progress::Done);
    assert_eq!(operator.on_watermark(0, Watermark(50), &mut out).unwrap(), Progress::Done);
    assert!(out.is_empty(), "the record waits");
    assert_eq!(operator.earliest_result(), Watermark::MIN);
    let mut progress = operator.on_watermark(1, Watermark::MAX, &mut out).unwrap();
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
    }
    assert_eq!(out.len(), 1);
    assert_eq!(operator.earliest_result(), Watermark::MAX);
}

#[test]
fn a_broadcast_record_that_fails_is_an_error_with_the_record() {
    let mut operator = operator(UntilLoaded::Pass);
    let mut out = Outbox::default();
    let Some(Input::Batch(rules)) = frames("y", &[1, 2, 13]).into_iter().next() else { panic!("there is a frame") };
    let mut progress = operator.on_batch(1, rules, &mut out);
    while let Ok(Progress::More) = progress {
        progress = operator.resume(&mut out);
    }
    let text = progress.unwrap_err().to_string();
    assert!(text.contains("13 is refused") && text.contains(r#"record: {"k":1,"y":13}"#), "{text}");
}
