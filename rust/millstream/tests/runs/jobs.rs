//! Whole jobs through the engine, from the Rust side.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use millstream::connectors::{CollectSink, GenerateSource, Received};
use millstream::plan::{BinaryOp, Expr, ScalarValue, Stream};
use millstream::{JobState, Options, Restart, start};

fn numbers(rows: u64) -> Stream {
    Stream::source(Arc::new(GenerateSource::new(Some(rows), None).expect("a bounded generator is sound")))
}

fn is_third() -> Expr {
    let index = Expr::Column("index".into());
    let literal = |value: i64| Box::new(Expr::Literal(ScalarValue::Int64(Some(value))));
    let rest = Expr::Binary { left: Box::new(index), op: BinaryOp::Mod, right: literal(3) };
    Expr::Binary { left: Box::new(rest), op: BinaryOp::Eq, right: literal(0) }
}

#[test]
fn a_filter_keeps_exactly_what_it_should_under_every_parallelism() {
    for parallelism in [1, 2, 3, 8] {
        let (sink, rows) = CollectSink::new(None, 16);
        let sink = numbers(100_000).filter(is_third()).and_then(|s| s.sink(Arc::new(sink))).expect("the plan is sound");
        let options = Options { parallelism: Some(parallelism), ..Options::default() };
        let job = start(&[sink], options).expect("the job starts");
        let mut seen = HashSet::new();
        let mut outcome = None;
        loop {
            match rows.receive(Duration::from_millis(1)) {
                Received::Batch(batch) => {
                    let values = batch.data.column(0).as_primitive::<Int64Type>();
                    seen.extend(values.values().iter().copied());
                }
                _ if outcome.is_some() => break,
                _ => outcome = job.wait(Some(Duration::ZERO)),
            }
        }
        let report = outcome.expect("the loop ends with an outcome").expect("the job ends well");
        assert_eq!(seen, (0..100_000).step_by(3).collect::<HashSet<i64>>(), "parallelism={parallelism}");
        assert_eq!(report.metrics.progress.rows_read, 100_000);
        assert_eq!(job.status().state, JobState::Finished);
    }
}

#[test]
fn restart_without_checkpoints_is_refused() {
    let (sink, _rows) = CollectSink::new(None, 16);
    let sink = numbers(1).sink(Arc::new(sink)).expect("the plan is sound");
    let restart = Restart::FixedDelay { attempts: 1, delay: Duration::ZERO };
    let error = start(&[sink], Options { restart, ..Options::default() }).err().expect("it is refused");
    assert!(error.message().contains("restart needs a checkpoint"), "{error}");
}

#[test]
fn a_task_without_splits_does_not_end_time_for_the_others() {
    use arrow::datatypes::{DataType, TimeUnit};
    use millstream::plan::{AggregateCall, AggregateKind, WatermarkStrategy, Window};
    for parallelism in [1, 2, 2, 3, 4] {
        let (sink, rows) = CollectSink::new(None, 16);
        let index = Expr::Column("index".into());
        let lit = |value: i64| Expr::Literal(ScalarValue::Int64(Some(value)));
        let time = index.clone().binary(BinaryOp::Mul, lit(1000)).cast(DataType::Timestamp(TimeUnit::Microsecond, None), true).alias("t");
        let count = Expr::Aggregate(AggregateCall { kind: AggregateKind::Count, input: None, filter: None });
        let sink = numbers(2000)
            .with_columns(vec![time])
            .and_then(|s| s.event_time("t", WatermarkStrategy::bounded(100_000)))
            .and_then(|s| s.key_by(vec![index.binary(BinaryOp::Mod, lit(50)).alias("k")]))
            .and_then(|k| k.window(Window::Tumbling { size_us: 60_000, offset_us: 0 }, 0))
            .and_then(|w| w.agg(vec![count.alias("n")]))
            .and_then(|s| s.sink(Arc::new(sink)))
            .expect("the plan is sound");
        let job = start(&[sink], Options { parallelism: Some(parallelism), ..Options::default() }).expect("the job starts");
        let mut total = 0;
        let mut outcome = None;
        loop {
            match rows.receive(Duration::from_millis(1)) {
                Received::Batch(batch) => total += batch.data.column(3).as_primitive::<Int64Type>().values().iter().sum::<i64>(),
                _ if outcome.is_some() => break,
                _ => outcome = job.wait(Some(Duration::ZERO)),
            }
        }
        println!("parallelism={parallelism} total={total}");
        assert_eq!(total, 2000, "parallelism={parallelism}");
    }
}

#[test]
fn a_rate_is_kept_by_one_task_that_reads_all_splits() {
    let numbers = GenerateSource::new(Some(2000), Some(4000.0)).expect("a bounded generator is sound");
    let (sink, _rows) = CollectSink::new(None, 4096);
    let sink = Stream::source(Arc::new(numbers)).sink(Arc::new(sink)).expect("anything can be collected");
    let options = Options { parallelism: Some(1), ..Options::default() };
    let started = std::time::Instant::now();
    let job = start(&[sink], options).expect("the job is sound");
    job.wait(None).expect("no time limit was given").expect("the job succeeds");
    let seconds = started.elapsed().as_secs_f64();
    assert!((0.45..2.0).contains(&seconds), "2000 rows at 4000 a second took {seconds} s");
}
