//! Looking into the state of jobs without their plan.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use millstream::connectors::{DirectorySink, FileFormat, GenerateSource};
use millstream::plan::{
    AggregateCall, AggregateKind, BinaryOp, Emit, Expr, ScalarValue, Stream, WatermarkStrategy, Window,
};
use millstream::{CheckpointOptions, Job, Options, checkpoints, read_state, start};

fn numbers(rows: Option<u64>, rate: f64) -> Stream {
    Stream::source(Arc::new(GenerateSource::new(rows, Some(rate)).expect("the generator is sound")))
}

fn key() -> Expr {
    Expr::column("index").binary(BinaryOp::Mod, Expr::literal(ScalarValue::Int64(Some(7)))).alias("k")
}

fn aggregate(kind: AggregateKind, input: Option<&str>, name: &str) -> Expr {
    let input = input.map(|input| Box::new(Expr::column(input)));
    Expr::Aggregate(AggregateCall { kind, input, filter: None }).alias(name)
}

fn run(stream: &Stream, dir: &Path, parallelism: usize) -> Job {
    let sink = DirectorySink::new(dir.join("out"), FileFormat::Json).expect("the sink is sound");
    let sink = stream.sink(Arc::new(sink)).expect("the plan is sound");
    let every = Duration::from_secs(3600);
    let checkpoint = Some(CheckpointOptions { every, retain: 10, ..CheckpointOptions::new(dir.join("state")) });
    start(&[sink], Options { checkpoint, parallelism: Some(parallelism), ..Options::default() }).expect("the job starts")
}

/// Takes a checkpoint as soon as the job lets it.
fn take_checkpoint(job: &Job) {
    let start = Instant::now();
    while let Err(error) = job.checkpoint_now() {
        assert!(start.elapsed() < Duration::from_secs(20), "{error}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn column(table: &RecordBatch, name: &str) -> Vec<i64> {
    let column = table.column_by_name(name).unwrap_or_else(|| panic!("no column {name:?} in {:?}", table.schema()));
    match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().values().to_vec(),
        _ => column.as_primitive::<TimestampMicrosecondType>().values().to_vec(),
    }
}

#[test]
fn each_checkpoint_shows_the_counts_of_its_moment() {
    for parallelism in [1, 3] {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let aggregates = vec![
            aggregate(AggregateKind::Count, None, "n"),
            aggregate(AggregateKind::Sum, Some("index"), "total"),
        ];
        let counts = numbers(Some(3000), 6000.0)
            .with_columns(vec![key()])
            .and_then(|stream| stream.key_by(vec![Expr::column("k")]))
            .and_then(|keyed| keyed.agg(aggregates, Emit::End))
            .and_then(|stream| stream.name("count"))
            .expect("the plan is sound");
        let job = run(&counts, dir.path(), parallelism);
        for _ in 0..3 {
            take_checkpoint(&job);
        }
        job.wait(None).expect("no time limit was given").expect("the job ends well");

        let path = dir.path().join("state");
        let mut ids: Vec<u64> = checkpoints(&path).expect("they are there").iter().map(|info| info.id).collect();
        ids.sort_unstable();
        assert!(ids.len() >= 4, "{ids:?}");
        let totals: Vec<i64> = ids
            .iter()
            .map(|&id| column(&read_state(&path, "count", Some(id)).expect("it is readable"), "n").iter().sum())
            .collect();
        assert!(totals.is_sorted(), "{totals:?}");

        let table = read_state(&path, "count", None).expect("it is readable");
        let mut expected: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for index in 0..3000 {
            let entry = expected.entry(index % 7).or_default();
            *entry = (entry.0 + 1, entry.1 + index);
        }
        let (keys, counts, totals) = (column(&table, "k"), column(&table, "n"), column(&table, "total"));
        let found: BTreeMap<i64, (i64, i64)> =
            keys.into_iter().zip(counts.into_iter().zip(totals)).collect();
        assert_eq!((table.num_rows(), found), (7, expected));
    }
}

#[test]
fn a_stopped_job_shows_its_open_windows() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let time = Expr::column("index").cast(DataType::Timestamp(TimeUnit::Microsecond, None), true).alias("time");
    let hour = WatermarkStrategy::bounded(3_600_000_000);
    let windows = numbers(None, 5000.0)
        .with_columns(vec![time, key()])
        .and_then(|stream| stream.event_time("time", hour))
        .and_then(|stream| stream.key_by(vec![Expr::column("k")]))
        .and_then(|keyed| keyed.window(Window::Tumbling { size_us: 100, offset_us: 0 }, 0))
        .and_then(|windowed| windowed.agg(vec![aggregate(AggregateKind::Collect, Some("index"), "all")]))
        .and_then(|stream| stream.name("windows"))
        .expect("the plan is sound");
    let job = run(&windows, dir.path(), 2);
    take_checkpoint(&job);
    while job.metrics().is_none_or(|metrics| metrics.progress.rows_read < 500) {
        std::thread::sleep(Duration::from_millis(2));
    }
    job.stop().expect("the job is of this process");
    let report = job.wait(None).expect("no time limit was given").expect("the job ends well");

    let table = read_state(&dir.path().join("state"), "windows", None).expect("it is readable");
    let lists = table.column_by_name("all").expect("the aggregate's column").as_list::<i32>();
    let (keys, starts, ends) = (column(&table, "k"), column(&table, "window_start"), column(&table, "window_end"));
    let mut seen = 0;
    for row in 0..table.num_rows() {
        assert_eq!((starts[row] % 100, ends[row] - starts[row]), (0, 100));
        for &index in lists.value(row).as_primitive::<Int64Type>().values() {
            assert_eq!((index % 7, index - index % 100), (keys[row], starts[row]));
            seen += 1;
        }
    }
    assert_eq!(seen, report.metrics.progress.rows_read);
}

#[test]
fn what_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().expect("a directory for the test");
    let error = read_state(dir.path(), "count", None).expect_err("there is nothing");
    assert!(error.message().contains("empty"), "{error}");
    let counts = numbers(Some(10), 1e6)
        .with_columns(vec![key()])
        .and_then(|stream| stream.name("keys"))
        .and_then(|stream| stream.key_by(vec![Expr::column("k")]))
        .and_then(|keyed| keyed.agg(vec![aggregate(AggregateKind::Count, None, "n")], Emit::End))
        .and_then(|stream| stream.name("count"))
        .expect("the plan is sound");
    run(&counts, dir.path(), 1).wait(None).expect("no time limit was given").expect("the job ends well");
    let path = dir.path().join("state");
    let message = |step: &str, id| read_state(&path, step, id).expect_err("it is refused").to_string();
    let found = message("cuont", None);
    assert!(found.contains("there is no step \"cuont\"") && found.contains("did you mean \"count\"?"), "{found}");
    let found = message("keys", None);
    assert!(found.contains("\"keys\" keeps no keyed state; steps with keyed state: count"), "{found}");
    let found = message("count", Some(77));
    assert!(found.contains("77"), "{found}");
}
