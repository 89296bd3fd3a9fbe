//! What a later run is told of a plan that has changed.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use mill_plan::{
    AggregateCall, AggregateKind, BinaryOp, Emit, Expr, Outline, PlanOptions, SinkNode, Stream, WatermarkStrategy, Window, lower,
};
use crate::support::{Memory, TestSink};

fn read(path: &str) -> Stream {
    let columns = [("k", DataType::Utf8), ("x", DataType::Int64), ("t", DataType::Timestamp(TimeUnit::Microsecond, None))];
    Stream::source(Arc::new(Memory::new(&format!("read_csv({path:?})"), &columns)))
}

fn above(stream: &Stream, limit: i64) -> Stream {
    stream.filter(Expr::column("x").binary(BinaryOp::Gt, Expr::literal(limit))).unwrap()
}

fn doubled(stream: &Stream) -> Stream {
    stream.with_columns(vec![Expr::column("x").binary(BinaryOp::Mul, Expr::literal(2)).alias("x")]).unwrap()
}

fn counted(stream: &Stream) -> Stream {
    let count = Expr::Aggregate(AggregateCall { kind: AggregateKind::Count, input: None, filter: None }).alias("n");
    stream.key_by(vec![Expr::column("k")]).unwrap().agg(vec![count], Emit::End).unwrap()
}

fn windowed(lateness_us: i64) -> SinkNode {
    let count = Expr::Aggregate(AggregateCall { kind: AggregateKind::Count, input: None, filter: None }).alias("n");
    let timed = read("a").event_time("t", WatermarkStrategy::bounded(0)).unwrap();
    let window = Window::Tumbling { size_us: 1_000_000, offset_us: 0 };
    let keyed = timed.key_by(vec![Expr::column("k")]).unwrap();
    into(&keyed.window(window, lateness_us).unwrap().agg(vec![count]).unwrap())
}

fn into(stream: &Stream) -> SinkNode {
    stream.sink(TestSink::files("write_csv(\"out\")")).unwrap()
}

fn outline(sink: SinkNode) -> Outline {
    let outline = lower(&[sink], &PlanOptions::default()).unwrap().outline;
    // As it comes back from a checkpoint.
    Outline::decode(&outline.encode()).unwrap()
}

fn changes(now: SinkNode, former: SinkNode) -> Vec<String> {
    told(&outline(now), &outline(former), &[])
}

fn told(now: &Outline, former: &Outline, renamed: &[(&str, &str)]) -> Vec<String> {
    let renamed = renamed.iter().map(|(now, then)| ((*now).to_owned(), (*then).to_owned())).collect();
    now.differences(former, &renamed).into_iter().map(|difference| difference.text).collect()
}

#[test]
fn the_same_plan_has_no_changes_under_any_parallelism() {
    let plan = || into(&counted(&above(&doubled(&read("a")), 1)));
    assert_eq!(changes(plan(), plan()), Vec::<String>::new());
    let options = PlanOptions { parallelism: 4, is_chaining: false, ..PlanOptions::default() };
    assert_eq!(told(&lower(&[plan()], &options).unwrap().outline, &outline(plan()), &[]), Vec::<String>::new());
}

#[test]
fn an_expression_that_was_edited_is_shown_before_and_after() {
    let found = changes(into(&above(&read("a"), 2)), into(&above(&read("a"), 1)));
    assert_eq!(found, ["filter: predicate was col(\"x\") > 1, is col(\"x\") > 2"]);
}

#[test]
fn steps_that_come_and_go_are_named_and_their_neighbours_are_not() {
    let plain = || into(&counted(&read("a")));
    let filtered = || into(&counted(&above(&read("a"), 1)));
    assert_eq!(changes(filtered(), plain()), ["new step: filter(predicate: col(\"x\") > 1)"]);
    assert_eq!(changes(plain(), filtered()), ["no longer there: filter(predicate: col(\"x\") > 1)"]);
    // One more in front shifts the numbers of the others, which are what they were.
    let two = || into(&above(&above(&read("a"), 1), 2));
    let three = || into(&above(&above(&above(&read("a"), 0), 1), 2));
    assert_eq!(changes(three(), two()), ["new step: filter(predicate: col(\"x\") > 0)"]);
}

#[test]
fn steps_in_another_order_are_told() {
    let one = || into(&above(&doubled(&read("a")), 1));
    let other = || into(&doubled(&above(&read("a"), 1)));
    let found = changes(other(), one());
    assert_eq!(found, [
        "filter: reads from read_csv, was with_columns",
        "with_columns: reads from filter, was read_csv",
        "write_csv: reads from with_columns, was filter",
    ]);
}

#[test]
fn another_input_or_output_is_told() {
    assert_eq!(changes(into(&read("b")), into(&read("a"))), ["read_csv: source was read_csv(\"a\"), is read_csv(\"b\")"]);
    let elsewhere = read("a").sink(TestSink::files("write_csv(\"new\")")).unwrap();
    let found = changes(elsewhere, into(&read("a")));
    assert_eq!(found, ["write_csv: sink was write_csv(\"out\"), is write_csv(\"new\")"]);
}

#[test]
fn columns_are_told_where_they_come_to_be_others() {
    let typed = |kind: DataType, more: &[&str]| {
        let columns: Vec<(&str, DataType)> = [("x", kind)].into_iter().chain(more.iter().map(|name| (*name, DataType::Utf8))).collect();
        let source = Stream::source(Arc::new(Memory::new("read_csv(\"a\")", &columns)));
        into(&above(&source, 1).select(vec![Expr::column("x")]).unwrap())
    };
    let of = |now: SinkNode, former: SinkNode| changes(now, former);
    assert_eq!(of(typed(DataType::Float64, &[]), typed(DataType::Int64, &[])), ["read_csv: column x was int64, is float64"]);
    assert_eq!(of(typed(DataType::Int64, &["s"]), typed(DataType::Int64, &[])), ["read_csv: column s str is new"]);
    assert_eq!(of(typed(DataType::Int64, &[]), typed(DataType::Int64, &["s"])), ["read_csv: column s str is gone"]);
    // Those that follow from an expression are told with it.
    let squared = Expr::column("x").binary(BinaryOp::Div, Expr::literal(2)).alias("x");
    let found = changes(into(&read("a").with_columns(vec![squared]).unwrap()), into(&doubled(&read("a"))));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("with_columns: columns was"), "{found:?}");
}

#[test]
fn a_sink_with_another_name_is_another_sink() {
    let named = |name: &str| {
        read("a").sink(TestSink::files("write_csv(\"out\")")).unwrap().named(name)
    };
    let found = told(&outline(named("b")), &outline(named("a")), &[]);
    assert_eq!(found, ["new step: b(sink: write_csv(\"out\"))", "no longer there: a(sink: write_csv(\"out\"))"]);
    assert_eq!(told(&outline(named("b")), &outline(named("a")), &[("b", "a")]), Vec::<String>::new());
    assert_eq!(told(&outline(into(&read("a"))), &outline(into(&read("a"))), &[]), Vec::<String>::new());
}

#[test]
fn what_may_change_of_a_window_is_told() {
    assert_eq!(changes(windowed(2_000_000), windowed(0)), ["window: allowed_lateness was 0s, is 2s"]);
}

#[test]
fn long_parameters_are_shown_where_they_differ() {
    let long = |last: i64| {
        let all = (0..100).map(|i| Expr::column("x").binary(BinaryOp::Gt, Expr::literal(i)));
        let last = Expr::column("x").binary(BinaryOp::Lt, Expr::literal(last));
        into(&read("a").filter(all.chain([last]).reduce(|a, b| a.binary(BinaryOp::And, b)).unwrap()).unwrap())
    };
    let found = changes(long(7), long(8));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("< 8") && found[0].contains("< 7") && found[0].len() < 600, "{}", found[0]);
}

#[test]
fn streams_that_part_and_meet_many_times_are_compared_at_once() {
    // Each way through the new steps was walked on its own: two to the power of how often they part.
    let many = |times: i64| {
        let meets = |stream: Stream, limit: i64| above(&stream, limit).union(&[above(&stream, -limit - 1)]).unwrap();
        into(&(0..times).fold(read("a"), meets))
    };
    assert_eq!(changes(many(40), into(&read("a"))).len(), 3 * 40);
}

#[test]
fn what_is_no_outline_is_none() {
    let broken = outline(into(&read("a"))).encode().replace("\"inputs\":[0]", "\"inputs\":[7]");
    for text in ["", "{}", "[]", "{\"steps\": 1}", broken.as_str()] {
        assert_eq!(Outline::decode(text), None, "{text}");
    }
}
