//! What must be the same for state to be taken up again: the signatures of steps that have some.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use mill_plan::{
    AggregateCall, AggregateKind, BinaryOp, Emit, Expr, Firing, PlanOptions, Stream, Trigger, UnaryOp, WatermarkStrategy, Window,
    WindowKind, lower,
};
use crate::support::{Memory, TestSink};

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn modulo(of: Expr, by: i64) -> Expr {
    of.binary(BinaryOp::Mod, Expr::literal(by))
}

fn source() -> Stream {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let columns = [("x", DataType::Int64), ("y", DataType::Int64), ("at", time.clone()), ("sent", time)];
    Stream::source(Arc::new(Memory::new("from_iter(rows)", &columns)))
}

fn sum(of: &str) -> Vec<Expr> {
    vec![Expr::Aggregate(AggregateCall { kind: AggregateKind::Sum, input: Some(Box::new(col(of))), filter: None }).alias("s")]
}

/// The signatures of a plan, in the order of its stages.
fn signatures(result: Stream) -> Vec<String> {
    let sink = result.sink(TestSink::files("write_csv(\"out/\")")).unwrap();
    let plan = lower(&[sink], &PlanOptions { parallelism: 3, ..PlanOptions::default() }).unwrap();
    let stages = plan.chains.iter().flat_map(|chain| &chain.stages);
    let stateful = stages.filter(|stage| !stage.signature.is_empty() && !stage.signature.starts_with("sink"));
    stateful.map(|stage| stage.signature.clone()).collect()
}

fn counted(stream: &Stream, key: Expr, of: &str) -> String {
    let result = stream.key_by(vec![key.alias("k")]).unwrap().agg(sum(of), Emit::End).unwrap();
    signatures(result).pop().expect("the aggregate has a signature")
}

/// A job counted by `x % 3`, was changed to count by `x % 5`, and went on with the counts it had.
#[test]
fn key_expressions_count() {
    let by = |by: i64| counted(&source(), modulo(col("x"), by), "y");
    assert_eq!(by(3), "key(k int64 = col(\"x\") % 3) agg(s=sum(int64) of col(\"y\"))");
    assert_ne!(by(3), by(5));
    assert_eq!(counted(&source(), col("x"), "y"), "key(k int64 = col(\"x\")) agg(s=sum(int64) of col(\"y\"))");
    let plain = source().key_by(vec![col("x")]).unwrap().agg(sum("y"), Emit::End).unwrap();
    assert_eq!(signatures(plain), ["key(x int64) agg(s=sum(int64) of col(\"y\"))"]);
}

#[test]
fn it_does_not_matter_where_a_column_is_computed() {
    let direct = counted(&source(), modulo(col("x"), 3), "y");
    let earlier = source().with_columns(vec![modulo(col("x"), 3).alias("m")]).unwrap();
    assert_eq!(counted(&earlier, col("m"), "y"), direct);
    let renamed = earlier.rename(&[("m".to_owned(), "q".to_owned())]).unwrap().filter(col("y").unary(UnaryOp::IsNull)).unwrap();
    assert_eq!(counted(&renamed.select(vec![col("q"), col("y")]).unwrap(), col("q"), "y"), direct);
    let (yes, no) = earlier.branch(col("y").unary(UnaryOp::IsNull)).unwrap();
    assert_eq!(counted(&yes.union(&[no]).unwrap().rebalance().unwrap(), col("m"), "y"), direct);
    // Other expressions are another plan, however they came about.
    let other = source().with_columns(vec![modulo(col("x"), 5).alias("m")]).unwrap();
    assert_ne!(counted(&other, col("m"), "y"), direct);
    assert_ne!(counted(&earlier.union(&[other]).unwrap(), col("m"), "y"), direct);
    let doubled = source().with_columns(vec![modulo(col("y"), 2).alias("y")]).unwrap();
    assert_ne!(counted(&doubled, modulo(col("x"), 3), "y"), direct);
}

#[test]
fn event_time_and_windows_count() {
    let window = |time: Expr, size_us: i64| {
        let strategy = WatermarkStrategy::bounded(0);
        let timed = source().with_columns(vec![time.alias("t")]).unwrap().event_time("t", strategy).unwrap();
        let window = Window::Tumbling { size_us, offset_us: 0 };
        signatures(timed.key_by(vec![col("x")]).unwrap().window(window, 0).unwrap().agg(sum("y")).unwrap())
    };
    let one = window(col("at"), 1_000_000);
    assert_eq!(one[0], "event_time(t timestamp[us] = col(\"at\"))");
    assert_ne!(one[0], window(col("sent"), 1_000_000)[0]);
    assert_ne!(one[1], window(col("at"), 2_000_000)[1]);
}

/// Windows of all records order what they keep by event time. Those that keep sums have none, so their state is what it was.
#[test]
fn the_order_of_records_counts_where_they_are_kept() {
    let of_all = |stream: Stream, kind: AggregateKind| {
        let call = AggregateCall { kind, input: Some(Box::new(col("y"))), filter: None };
        let trigger = Trigger { early: Some(Firing::Rows(2)), late: None };
        let windowed = stream.key_by(vec![col("x")]).unwrap().window(WindowKind::Global, 0).unwrap().trigger(trigger).unwrap();
        let changes = windowed.agg(vec![Expr::Aggregate(call).alias("s")]).unwrap().to_changelog("op").unwrap();
        signatures(changes).into_iter().find(|it| it.starts_with("key")).expect("the window has a signature")
    };
    let timed = || source().event_time("at", WatermarkStrategy::bounded(0)).unwrap();
    assert_eq!(of_all(timed(), AggregateKind::Sum), of_all(source(), AggregateKind::Sum));
    assert_eq!(
        of_all(timed(), AggregateKind::Collect),
        "key(x int64) agg(s=collect(int64) of col(\"y\") by event time) window global_window() by event time with a trigger"
    );
    for kind in [AggregateKind::First, AggregateKind::Collect] {
        assert_ne!(of_all(timed(), kind.clone()), of_all(source(), kind.clone()));
        let without = |stream: Stream| {
            let call = AggregateCall { kind: kind.clone(), input: Some(Box::new(col("y"))), filter: None };
            let of_keys = stream.key_by(vec![col("x")]).unwrap();
            signatures(of_keys.agg(vec![Expr::Aggregate(call).alias("s")], Emit::End).unwrap()).pop()
        };
        assert_ne!(without(timed()), without(source()));
    }
}

#[test]
fn columns_computed_from_each_other_over_and_over_stay_small() {
    let mut stream = source();
    let mut other = source().with_columns(vec![modulo(col("x"), 7).alias("x")]).unwrap();
    for _ in 0..100 {
        let doubled = || vec![col("x").binary(BinaryOp::Add, col("x")).alias("x")];
        stream = stream.with_columns(doubled()).unwrap();
        other = other.with_columns(doubled()).unwrap();
    }
    let signature = counted(&stream, col("x"), "y");
    assert!(signature.len() < 600, "{} bytes", signature.len());
    assert_ne!(signature, counted(&other, col("x"), "y"));
}
