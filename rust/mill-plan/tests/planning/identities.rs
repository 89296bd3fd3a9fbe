//! Identities of steps do not depend on the order in which sinks and streams are listed, and say what each step is.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use mill_plan::{
    AggregateCall, AggregateKind, BinaryOp, Emit, Expr, LogicalPlan, PlanOptions, SinkNode, Stream, WatermarkStrategy, WatermarksFrom,
    lower,
};
use crate::support::{Memory, TestSink};

fn read(path: &str) -> Stream {
    let columns = [("k", DataType::Utf8), ("x", DataType::Int64), ("t", DataType::Timestamp(TimeUnit::Microsecond, None))];
    Stream::source(Arc::new(Memory::new(&format!("read_csv({path:?})"), &columns)))
}

fn above(stream: &Stream, limit: i64) -> Stream {
    stream.filter(Expr::column("x").binary(BinaryOp::Gt, Expr::literal(limit))).unwrap()
}

fn counted(stream: &Stream) -> Stream {
    let count = Expr::Aggregate(AggregateCall { kind: AggregateKind::Count, input: None, filter: None }).alias("n");
    stream.key_by(vec![Expr::column("k")]).unwrap().agg(vec![count], Emit::End).unwrap()
}

fn into(stream: &Stream, table: &str) -> SinkNode {
    stream.sink(TestSink::files(&format!("write_sqlite(\"o.db\", {table:?})"))).unwrap()
}

/// Each step: its identity, what it is, and the identities of what it takes.
fn steps(sinks: &[SinkNode]) -> BTreeSet<(String, String, BTreeSet<String>)> {
    let steps = LogicalPlan::new(sinks).unwrap().steps;
    let of = |step: &mill_plan::LogicalStep| {
        let parameters = serde_json::to_string(&step.parameters).unwrap();
        let inputs: Vec<String> = step.inputs.iter().map(|(input, _)| steps[*input].uid.clone()).collect();
        (step.uid.clone(), parameters, inputs)
    };
    // The numbers of steps without state follow the order; nothing is kept for them.
    steps.iter().filter(|step| step.is_stateful).map(of).map(|(uid, what, inputs)| {
        (uid, what, inputs.into_iter().filter(|input| !input.contains("filter")).collect())
    }).collect()
}

fn reversed(mut sinks: Vec<SinkNode>) -> Vec<SinkNode> {
    sinks.reverse();
    sinks
}

#[test]
fn the_order_of_sinks_leaves_no_trace() {
    type Make = fn() -> Vec<SinkNode>;
    let plans: [Make; 4] = [
        || {
            let shared = read("a");
            vec![into(&counted(&above(&shared, 1)), "some"), into(&counted(&above(&shared, 0)), "all")]
        },
        // Two readers of one file: only what is downstream tells them apart.
        || vec![into(&counted(&above(&read("a"), 1)), "some"), into(&counted(&above(&read("a"), 0)), "all")],
        || vec![into(&above(&read("a"), 1), "one"), into(&above(&read("b"), 1), "two"), into(&read("b"), "three")],
        || {
            let named = counted(&above(&read("a"), 1)).name("low").unwrap();
            vec![into(&named, "x"), into(&counted(&above(&read("a"), 0)), "y")]
        },
    ];
    for make in plans {
        let sinks = make();
        assert_eq!(steps(&sinks), steps(&reversed(make())));
        assert_eq!(steps(&sinks).len(), LogicalPlan::new(&sinks).unwrap().steps.iter().filter(|step| step.is_stateful).count());
    }
}

#[test]
fn the_order_of_a_union_leaves_no_trace() {
    let (a, b, c) = (read("a"), above(&read("b"), 1), read("c"));
    let sink = |streams: &[&Stream]| {
        let others: Vec<Stream> = streams[1..].iter().map(|&stream| stream.clone()).collect();
        vec![into(&counted(&streams[0].union(&others).unwrap()), "o")]
    };
    assert_eq!(steps(&sink(&[&a, &b, &c])), steps(&sink(&[&c, &a, &b])));
    assert_eq!(steps(&sink(&[&a, &b, &c])), steps(&sink(&[&b, &c, &a])));
}

#[test]
fn event_time_keeps_its_state_per_stream_of_a_union() {
    let strategy = WatermarkStrategy { from: WatermarksFrom::Bound(5_000_000), idleness_us: None, drift: None };
    let uids = |first: &Stream, second: &Stream| {
        let timed = first.union(&[second.clone()]).unwrap().event_time("t", strategy.clone()).unwrap();
        let plan = lower(&[into(&timed, "o")], &PlanOptions::default()).unwrap();
        let of_chain = |chain: &mill_plan::Chain| {
            let source = chain.source.as_ref()?;
            let stage = chain.stages.iter().find(|stage| stage.signature.starts_with("event_time"))?;
            Some((format!("{:?}", source.source), stage.uid.clone()))
        };
        plan.chains.iter().filter_map(of_chain).collect::<BTreeSet<_>>()
    };
    let (a, b) = (read("a"), read("b"));
    assert_eq!(uids(&a, &b).len(), 2);
    assert_eq!(uids(&a, &b), uids(&b, &a));
}

#[test]
fn a_step_that_is_alone_in_its_place_is_its_place() {
    let uids = |stream: &Stream| {
        let steps = LogicalPlan::new(&[into(stream, "o")]).unwrap().steps;
        steps.into_iter().filter(|step| step.is_stateful).map(|step| step.uid).collect::<Vec<_>>()
    };
    let expected = ["read_csv", "read_csv/agg", "read_csv/agg/write_sqlite"];
    assert_eq!(uids(&counted(&read("a"))), expected);
    assert_eq!(uids(&counted(&above(&read("b"), 1))), expected);
}
