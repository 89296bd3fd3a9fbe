//! Plans as text: each file in `plans/` holds what `explain()` says of a plan of the same name built here.
//!
//! After a change on purpose, run with `MILL_UPDATE=1` and read the difference.

use std::sync::Arc;

use arrow::datatypes::DataType;
use mill_plan::{
    AggregateCall, AggregateKind, BinaryOp, EdgeKind, Emit, Expr, Mode, OnError, PlanOptions, SinkNode, Stream, WatermarkStrategy,
    Window, lower,
};
use crate::support::{Memory, TestSink};

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn lit(value: i64) -> Expr {
    Expr::literal(value)
}

fn aggregate(kind: AggregateKind, input: Option<Expr>) -> Expr {
    Expr::Aggregate(AggregateCall { kind, input: input.map(Box::new), filter: None })
}

fn count() -> Expr {
    aggregate(AggregateKind::Count, None)
}

fn clicks() -> Stream {
    Stream::source(Arc::new(Memory::new(
        "read_json(\"clicks/\")",
        &[
            ("user", DataType::Utf8),
            ("page", DataType::Utf8),
            ("at", DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None)),
            ("ms", DataType::Float64),
            ("tags", DataType::new_list(DataType::Utf8, true)),
        ],
    )))
}

fn options() -> PlanOptions {
    PlanOptions { parallelism: 2, is_checkpointed: true, ..PlanOptions::default() }
}

/// Compares a plan with the file of this name.
fn check(name: &str, sinks: &[SinkNode], options: &PlanOptions) {
    let plan = lower(sinks, options).expect("the plan is right");
    for (i, chain) in plan.chains.iter().enumerate() {
        for (j, stage) in chain.stages.iter().enumerate() {
            for target in stage.ports.iter().flatten().chain(&stage.errors) {
                match *target {
                    mill_plan::Target::Stage(k, _) => assert!(k > j, "stage {j} of chain {i} leads back to {k}"),
                    mill_plan::Target::Edge(k) => assert_eq!(plan.edges[k].from, i),
                }
            }
        }
    }
    assert!(plan.edges.iter().all(|edge| edge.from < edge.to), "edges lead onward");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(format!("{name}.txt"));
    let found = plan.explain();
    if std::env::var_os("MILL_UPDATE").is_some() {
        std::fs::write(&path, &found).expect("the plan's file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "the plan {name} has changed");
}

fn five_seconds() -> WatermarkStrategy {
    WatermarkStrategy::bounded(5_000_000)
}

fn minute() -> Window {
    Window::Tumbling { size_us: 60_000_000, offset_us: 0 }
}

#[test]
fn keyed_count_is_aggregated_ahead_of_the_exchange() {
    let sink = clicks()
        .explode("tags", false)
        .unwrap()
        .key_by(vec![col("tags")])
        .unwrap()
        .agg(vec![count().alias("n")], Emit::Default)
        .unwrap()
        .sink(TestSink::files("write_csv(\"out/\")"))
        .unwrap();
    check("keyed_count", &[sink], &options());
}

#[test]
fn windows_with_late_rows_keep_all_columns_for_them() {
    let pages = clicks()
        .event_time("at", five_seconds())
        .unwrap()
        .filter(col("ms").binary(BinaryOp::Gt, lit(100)))
        .unwrap()
        .key_by(vec![col("page")])
        .unwrap()
        .window(minute(), 30_000_000)
        .unwrap()
        .agg(vec![count().alias("views"), aggregate(AggregateKind::Max, Some(col("ms").binary(BinaryOp::Mul, lit(2))))])
        .unwrap();
    let late = pages.late().unwrap().sink(TestSink::files("write_json(\"late/\")")).unwrap();
    check("window_late", &[pages.sink(TestSink::files("write_parquet(\"out/\")")).unwrap(), late], &options());
}

#[test]
fn exact_quantiles_travel_as_records() {
    let result = clicks()
        .key_by(vec![col("user"), col("page").alias("site")])
        .unwrap()
        .agg(
            vec![
                aggregate(AggregateKind::Quantile(0.99), Some(col("ms"))).alias("p99"),
                aggregate(AggregateKind::Sum, Some(col("ms")))
                    .binary(BinaryOp::Div, count())
                    .alias("mean"),
            ],
            Emit::Every(1_000_000),
        )
        .unwrap()
        .name("by user")
        .unwrap();
    check("exact", &[result.sink(TestSink::keyed("write_sqlite(\"db\")")).unwrap()], &options());
}

#[test]
fn filters_go_down_and_columns_that_nobody_needs_are_not_read() {
    let result = clicks()
        .with_columns(vec![col("ms").binary(BinaryOp::Mul, Expr::literal(2.0)).alias("double")])
        .unwrap()
        .rename(&[("page".to_owned(), "site".to_owned())])
        .unwrap()
        .filter(col("site").binary(BinaryOp::Eq, Expr::literal("/")))
        .unwrap()
        .select(vec![col("site"), col("double")])
        .unwrap();
    check("pushdown", &[result.sink(TestSink::files("write_csv(\"out/\")")).unwrap()], &options());
}

#[test]
fn branches_share_what_stands_before_them() {
    let (slow, fast) = clicks().branch(col("ms").binary(BinaryOp::Gt, lit(1000))).unwrap();
    let both = slow.union(&[fast.limit(10).unwrap()]).unwrap().event_time("at", five_seconds());
    assert!(both.is_err(), "behind a limit records have no fixed order");
    let sinks = [
        slow.sink(TestSink::files("write_csv(\"slow/\")")).unwrap(),
        fast.limit(10).unwrap().sink(TestSink::single("for_each(f)")).unwrap(),
        slow.union(&[clicks()]).unwrap().rebalance().unwrap().sink(TestSink::files("write_csv(\"all/\")")).unwrap(),
    ];
    let options = PlanOptions { mode: Mode::AtLeastOnce, ..options() };
    check("branches", &sinks, &options);
}

#[test]
fn event_time_goes_ahead_of_a_union() {
    let result = clicks()
        .union(&[clicks()])
        .unwrap()
        .event_time("at", five_seconds())
        .unwrap()
        .key_by(vec![col("page")])
        .unwrap()
        .window(minute(), 0)
        .unwrap()
        .agg(vec![aggregate(AggregateKind::First, Some(col("user")))])
        .unwrap();
    check("union_event_time", &[result.sink(TestSink::files("write_csv(\"out/\")")).unwrap()], &options());
}

#[test]
fn without_chaining_only_sources_and_their_event_time_stay_together() {
    let timed = clicks()
        .filter(col("ms").binary(BinaryOp::Gt, lit(1)))
        .unwrap()
        .event_time("at", five_seconds())
        .unwrap()
        .select(vec![col("page"), col("ms").cast(DataType::Int64, true).alias("whole")])
        .unwrap();
    let errors = timed.errors().unwrap().sink(TestSink::files("write_json(\"errors/\")")).unwrap();
    let options = PlanOptions { is_chaining: false, on_error: OnError::Route, ..options() };
    check("unchained", &[timed.sink(TestSink::files("write_csv(\"out/\")")).unwrap(), errors], &options);
}

#[test]
fn all_records_together_are_in_one_task() {
    let timed = clicks().event_time("at", five_seconds()).unwrap();
    let slowest = || vec![aggregate(AggregateKind::Max, Some(col("ms"))).alias("slowest")];
    let total = timed.ungrouped().agg(slowest(), Emit::End).unwrap();
    let windowed = timed.ungrouped().window(minute(), 0).unwrap().agg(slowest()).unwrap();
    for stream in [total, windowed] {
        let plan = lower(&[stream.sink(TestSink::files("write_csv(\"out/\")")).unwrap()], &options()).unwrap();
        let last = plan.edges.last().unwrap();
        assert_eq!((&last.kind, plan.chains[last.to].parallelism), (&EdgeKind::Gather, 1));
    }
}
