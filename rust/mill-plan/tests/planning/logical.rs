//! The logical plan as data, and the outputs of steps by name.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use mill_plan::{
    AggregateCall, AggregateKind, BinaryOp, Emit, Expr, LogicalPlan, Stream, WatermarkStrategy, Window,
};
use serde_json::{Value, json};
use crate::support::{Memory, TestSink};

fn source() -> Stream {
    let columns = [("k", DataType::Utf8), ("x", DataType::Int64), ("t", DataType::Timestamp(TimeUnit::Microsecond, None))];
    Stream::source(Arc::new(Memory::new("read_csv(\"a.csv\")", &columns)))
}

fn positive() -> Expr {
    Expr::column("x").binary(BinaryOp::Gt, Expr::literal(1_i64))
}

fn count() -> Vec<Expr> {
    vec![Expr::Aggregate(AggregateCall { kind: AggregateKind::Count, input: None, filter: None }).alias("n")]
}

fn windowed() -> Stream {
    let strategy = WatermarkStrategy::bounded(5_000_000);
    let timed = source().event_time("t", strategy).unwrap();
    let window = Window::Tumbling { size_us: 60_000_000, offset_us: 0 };
    timed.key_by(vec![Expr::column("k")]).unwrap().window(window, 0).unwrap().agg(count()).unwrap()
}

#[test]
fn a_plan_is_a_tree_of_plain_values() {
    let stream = source().filter(positive()).unwrap().name("large").unwrap();
    let stream = stream.key_by(vec![Expr::column("k")]).unwrap().agg(count(), Emit::Every(1_000_000)).unwrap();
    let column = |name: &str, of: &str| json!({ "name": name, "type": of, "is_nullable": true });
    let columns = json!([column("k", "str"), column("x", "int64"), column("t", "timestamp[us]")]);
    let failed = json!(["step", "error", "traceback", "record"].map(|name| column(name, "str")));
    let output = |name: &str, columns: &Value, updating: Value| {
        json!({
            "name": name, "columns": columns, "is_bounded": true, "event_time": null, "updating": updating, "withdraws": false
        })
    };
    let errors = output("errors", &failed, Value::Null);
    let expected = json!({ "steps": [
        {
            "uid": "read_csv", "name": "read_csv", "label": "source", "is_stateful": true,
            "parameters": { "source": "read_csv(\"a.csv\")" },
            "inputs": [],
            "outputs": [output("result", &columns, Value::Null), errors],
        },
        {
            "uid": "large", "name": "large", "label": "filter", "is_stateful": false,
            "parameters": { "predicate": "col(\"x\") > 1" },
            "inputs": [{ "step": 0, "output": "result" }],
            "outputs": [output("result", &columns, Value::Null), errors],
        },
        {
            "uid": "large/agg", "name": "agg", "label": "agg", "is_stateful": true,
            "parameters": { "keys": ["k"], "aggregates": ["count().alias(\"n\")"], "emit": "1s" },
            "inputs": [{ "step": 1, "output": "result" }],
            "outputs": [output("result", &json!([column("k", "str"), column("n", "int64")]), json!(["k"])), errors],
        },
    ] });
    assert_eq!(stream.to_json().unwrap(), expected);
}

#[test]
fn each_output_has_a_name_columns_and_facts() {
    let windows = windowed();
    let described: Vec<(String, usize, bool)> = windows
        .outputs()
        .iter()
        .map(|output| (output.name.to_string(), output.schema.fields().len(), output.facts.event_time.is_some()))
        .collect();
    let expected = [("result", 4, true), ("late", 3, true), ("errors", 4, false)];
    assert_eq!(described, expected.map(|(name, columns, has_time)| (name.to_owned(), columns, has_time)));
    let late = windows.side("late").unwrap();
    assert_eq!((late.output().name.as_ref(), late.schema()), ("late", source().schema()));

    let (yes, no) = source().branch(positive()).unwrap();
    assert_eq!((yes.output().name.as_ref(), no.output().name.as_ref()), ("yes", "no"));
}

#[test]
fn an_output_that_a_step_does_not_have_is_refused_by_name() {
    let message = |of: &Stream, name: &str| of.side(name).unwrap_err().message().to_owned();
    assert_eq!(message(&windowed(), "lates"), "window() has no output \"lates\"; its outputs are \"result\", \"late\", \"errors\"");
    assert_eq!(message(&source().limit(3).unwrap(), "errors"), "limit() has no output \"errors\"; its outputs are \"result\"");
}

#[test]
fn inputs_of_sinks_name_the_outputs_they_take() {
    let windows = windowed();
    let sinks = [&windows, &windows.late().unwrap(), &windows.errors().unwrap()];
    let sinks: Vec<_> = sinks.iter().map(|stream| stream.sink(TestSink::files("write_csv(\"out/\")")).unwrap()).collect();
    let plan = LogicalPlan::new(&sinks).unwrap();
    let taken: Vec<(&str, &str, &str)> = plan
        .steps
        .iter()
        .filter(|step| step.label == "sink")
        .map(|step| (step.uid.as_str(), plan.steps[step.inputs[0].0].label, step.inputs[0].1.as_str()))
        .collect();
    let window = "read_csv/event_time/window";
    let uids = [format!("{window}/write_csv"), format!("{window}/late/write_csv"), format!("{window}/errors/write_csv")];
    let expected = [(uids[0].as_str(), "window", "result"), (&uids[1], "window", "late"), (&uids[2], "window", "errors")];
    assert_eq!(taken, expected);
    assert!(plan.steps.iter().filter(|step| step.label == "sink").all(|step| step.outputs.is_empty()));
    assert_eq!(plan.steps.iter().filter(|step| step.label == "window").count(), 1, "a step is listed once");
}
