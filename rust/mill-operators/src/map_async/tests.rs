use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, AsArray, Int64Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use mill_plan::{AsyncFunction, StageKind};
use mill_protocol::testkit::{Compare, Input, batch, check, integers};

use super::*;
use crate::fixture::{context, records};

/// Answers some of what it was given at each look, in an order of its own. Records without a number fail.
#[derive(Debug, Default)]
struct Slow {
    /// How many calls are in flight, over all instances, and how many were at most.
    in_flight: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    batch_rows: Option<usize>,
    /// Calls of which the first record has this number are never answered.
    stuck: Option<i64>,
}

struct Call {
    first: u64,
    records: RecordBatch,
}

struct Working {
    calls: Vec<Call>,
    seed: u64,
    batch_rows: Option<usize>,
    stuck: Option<i64>,
    in_flight: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl AsyncFunction for Slow {
    fn name(&self) -> String {
        "slow".to_owned()
    }

    fn open(&self, _waker: Waker) -> Result<Box<dyn AsyncTask>> {
        Ok(Box::new(Working {
            calls: Vec::new(),
            seed: 7,
            batch_rows: self.batch_rows,
            stuck: self.stuck,
            in_flight: Arc::clone(&self.in_flight),
            most: Arc::clone(&self.most),
        }))
    }
}

impl AsyncTask for Working {
    fn start(&mut self, first: u64, records: &RecordBatch) -> Result<()> {
        let before = self.calls.len();
        match self.batch_rows {
            Some(_) => self.calls.push(Call { first, records: records.clone() }),
            None => self.calls.extend(
                (0..records.num_rows()).map(|row| Call { first: first + row as u64, records: records.slice(row, 1) }),
            ),
        }
        let started = self.calls.len() - before;
        let now = self.in_flight.fetch_add(started, Ordering::Relaxed) + started;
        self.most.fetch_max(now, Ordering::Relaxed);
        Ok(())
    }

    fn take(&mut self) -> Result<AsyncAnswers> {
        let mut answers = AsyncAnswers::default();
        let mut place = 0;
        while place < self.calls.len() {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let numbers = self.calls[place].records.column(0).as_primitive::<Int64Type>().clone();
            let is_stuck = numbers.is_valid(0) && self.stuck == Some(numbers.value(0));
            if is_stuck || self.seed >> 62 != 0 {
                place += 1;
                continue;
            }
            let Call { first, records } = self.calls.swap_remove(place);
            let rows = records.num_rows() as u64;
            let good: UInt32Array =
                (0..rows as u32).filter(|&row| numbers.is_valid(row as usize)).collect::<Vec<u32>>().into();
            let bad = (0..rows).filter(|&row| numbers.is_null(row as usize));
            answers.failed.extend(bad.map(|row| (first + row..first + row + 1, Rejected::new("no number", ""))));
            let origin = good.values().iter().map(|&row| first + u64::from(row)).collect();
            answers.results.push((take_record_batch(&records, &good).expect("rows are there"), origin));
            answers.answered.push(first..first + rows);
            answers.calls += 1;
        }
        self.in_flight.fetch_sub(answers.calls, Ordering::Relaxed);
        Ok(answers)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.calls.len(), Ordering::Relaxed);
    }
}

fn made(function: Slow, capacity: usize, is_ordered: bool, context: &TaskContext) -> Box<dyn Operator> {
    let schema = records().schema();
    let calls = AsyncCalls { capacity, batch_rows: function.batch_rows, is_ordered, is_lookup: false };
    let stage = AsyncStage { function: Arc::new(function), calls, records: SchemaRef::clone(&schema) };
    let stage = mill_plan::Stage {
        uid: "uid".to_owned(),
        name: "step".to_owned(),
        step: "step".to_owned(),
        kind: StageKind::MapAsync(Box::new(stage)),
        schema,
        ports: vec![Vec::new()],
        outputs: vec!["result".into()],
        errors: Vec::new(),
        signature: "s".to_owned(),
        parts: Vec::new(),
        updating: None,
    };
    crate::build(&stage, context).expect("the stage fits")
}

/// Records with watermarks among them, of which one comes late.
fn inputs() -> Vec<Input> {
    let numbers = |from: i64, times: &[i64]| {
        let n = (0..times.len() as i64).map(|row| Some(from + row)).collect::<Vec<_>>();
        let s: Vec<Option<&str>> = vec![None; n.len()];
        let columns = [("n", integers(&n)), ("s", mill_protocol::testkit::texts(&s))];
        Input::Batch(batch(&columns).with_times(Some(times.to_vec().into())))
    };
    vec![
        Input::Batch(records()),
        Input::Watermark(30),
        numbers(100, &[90, 40, 70, 31, 55]),
        Input::Barrier,
        Input::Watermark(60),
        numbers(200, &[61, 20, 99]),
        Input::Watermark(100),
    ]
}

#[test]
fn any_schedule_gives_the_same_results_in_order() {
    for capacity in [1, 3, 100] {
        let run = || made(Slow::default(), capacity, true, &context());
        let given = check(run, &inputs(), &Compare::Ordered);
        assert_eq!(given.rows.len(), 14);
        assert_eq!(given.rows[0], "0: 1, \"a\" @0");
        assert_eq!(given.rows[13], "0: 202, null @99");
        assert_eq!(given.rejected, ["no number | {\"n\":null,\"s\":\"b\"}"]);
    }
}

#[test]
fn results_that_come_as_they_like_are_never_older_than_a_watermark() {
    for capacity in [1, 4, 100] {
        let given = check(|| made(Slow::default(), capacity, false, &context()), &inputs(), &Compare::Unordered);
        assert_eq!((given.rows.len(), given.rejected.len()), (14, 1));
    }
}

#[test]
fn calls_of_batches_pass_the_same_kit() {
    for (batch_rows, is_ordered) in [(1, true), (2, false), (3, true), (100, true)] {
        let compare = if is_ordered { Compare::Ordered } else { Compare::Unordered };
        let function = || Slow { batch_rows: Some(batch_rows), ..Slow::default() };
        let given = check(|| made(function(), 2, is_ordered, &context()), &inputs(), &compare);
        assert_eq!((given.rows.len(), given.rejected.len()), (14, 1));
    }
}

#[test]
fn no_more_calls_are_in_flight_than_the_capacity_allows() {
    for (capacity, is_ordered) in [(1, true), (5, true), (5, false)] {
        let most = Arc::new(AtomicUsize::new(0));
        let function = Slow { most: Arc::clone(&most), ..Slow::default() };
        let mut operator = made(function, capacity, is_ordered, &context());
        let mut out = Outbox::default();
        for _ in 0..20 {
            assert_eq!(operator.on_batch(0, records(), &mut out).expect("it cannot fail"), Progress::Done);
        }
        assert_eq!(operator.room(), Room::ForBarrier);
        while operator.awaits() {
            assert_eq!(operator.on_wake(&mut out).expect("it cannot fail"), Progress::Done);
        }
        assert_eq!((most.load(Ordering::Relaxed), operator.room()), (capacity, Room::ForAll));
    }
}

/// Numbers of the records that come out until nothing more comes.
fn numbers(operator: &mut dyn Operator, looks: usize) -> Vec<i64> {
    let mut out = Outbox::default();
    for _ in 0..looks {
        assert_eq!(operator.on_wake(&mut out).expect("it cannot fail"), Progress::Done);
    }
    let mut numbers = Vec::new();
    while let Some(emission) = out.pop() {
        let mill_protocol::Emission::Batch(_, batch) = emission else { continue };
        numbers.extend(batch.column(0).as_primitive::<Int64Type>().values().iter().copied());
    }
    numbers
}

fn pushed(operator: &mut dyn Operator, numbers: std::ops::Range<i64>) {
    let n: Vec<Option<i64>> = numbers.clone().map(Some).collect();
    let s: Vec<Option<&str>> = vec![None; n.len()];
    let batch = batch(&[("n", integers(&n)), ("s", mill_protocol::testkit::texts(&s))]);
    let times = numbers.collect::<Vec<i64>>();
    let _ = operator.on_batch(0, batch.with_times(Some(times.into())), &mut Outbox::default()).expect("it cannot fail");
}

#[test]
fn one_call_that_hangs_holds_up_its_watermark_and_what_comes_after_it_in_order() {
    let stuck = || Slow { stuck: Some(13), ..Slow::default() };
    let mut unordered = made(stuck(), 5, false, &context());
    pushed(&mut *unordered, 10..30);
    let mut given = numbers(&mut *unordered, 500);
    given.sort_unstable();
    assert_eq!(given, (10..30).filter(|&n| n != 13).collect::<Vec<i64>>());
    assert_eq!(unordered.earliest_result(), Watermark(13));

    let most = Arc::new(AtomicUsize::new(0));
    let mut ordered = made(Slow { most: Arc::clone(&most), ..stuck() }, 5, true, &context());
    pushed(&mut *ordered, 10..30);
    assert_eq!(numbers(&mut *ordered, 500), [10, 11, 12]);
    assert_eq!(ordered.earliest_result(), Watermark(13));
    assert_eq!(most.load(Ordering::Relaxed), 5);
}

#[test]
fn what_is_not_settled_is_in_the_snapshot_and_is_shared_out_among_other_instances() {
    let mut restored = Restored::default();
    for instance in 0..3_i64 {
        let mut operator = made(Slow { stuck: Some(100 * instance + 1), ..Slow::default() }, 4, false, &context());
        pushed(&mut *operator, 100 * instance..100 * instance + 3);
        assert_eq!(numbers(&mut *operator, 200).len(), 2);
        pushed(&mut *operator, 100 * instance + 50..100 * instance + 60);
        let mut snapshot = Snapshot::default();
        operator.snapshot(&mut snapshot).expect("it cannot fail");
        restored.bytes.push(snapshot.bytes.expect("it has state").into());
    }
    let mut given = Vec::new();
    for index in 0..2 {
        let context = TaskContext { index, parallelism: 2, ..context() };
        let mut operator = made(Slow::default(), 4, true, &context);
        operator.restore(&restored).expect("the state is whole");
        assert!(operator.awaits());
        let of_instance = numbers(&mut *operator, 2_000);
        assert!(!operator.awaits());
        if index == 1 {
            assert_eq!(of_instance, [vec![101], (150..160).collect()].concat());
        }
        given.extend(of_instance);
    }
    given.sort_unstable();
    let expected: Vec<i64> = (0..3).flat_map(|i| [vec![100 * i + 1], (100 * i + 50..100 * i + 60).collect()].concat()).collect();
    assert_eq!(given, expected);
}

#[test]
fn damaged_bytes_are_refused() {
    let mut operator = made(Slow { stuck: Some(0), ..Slow::default() }, 1, false, &context());
    pushed(&mut *operator, 0..3);
    let mut snapshot = Snapshot::default();
    operator.snapshot(&mut snapshot).expect("it cannot fail");
    let bytes = snapshot.bytes.expect("it has state");
    let restore = |bytes: Vec<u8>| {
        let restored = Restored { bytes: vec![bytes.into()], ..Restored::default() };
        made(Slow::default(), 1, false, &context()).restore(&restored)
    };
    assert!(restore(bytes.clone()).is_ok());
    for length in 0..bytes.len() {
        assert!(restore(bytes[..length].to_vec()).is_err(), "{length} of {} bytes were taken", bytes.len());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(restore(longer).is_err());
    let mut newer = bytes;
    newer[8] = 9;
    assert!(restore(newer).expect_err("a later version").message().contains("have format 9"));
}

/// Answers what it was never given.
#[derive(Debug)]
struct Broken(Mutex<Option<AsyncAnswers>>);

struct Answers(Option<AsyncAnswers>);

impl AsyncFunction for Broken {
    fn name(&self) -> String {
        "broken".to_owned()
    }

    fn open(&self, _waker: Waker) -> Result<Box<dyn AsyncTask>> {
        Ok(Box::new(Answers(self.0.lock().expect("nobody panics").take())))
    }
}

impl AsyncTask for Answers {
    fn start(&mut self, _first: u64, _records: &RecordBatch) -> Result<()> {
        Ok(())
    }

    fn take(&mut self) -> Result<AsyncAnswers> {
        Ok(self.0.take().unwrap_or_default())
    }
}

#[test]
fn an_adapter_that_breaks_its_rules_is_an_error_and_no_panic() {
    let row = |ticket: u64| {
        let columns = [("n", Arc::new(Int64Array::from(vec![1])) as _), ("s", mill_protocol::testkit::texts(&[None]))];
        (batch(&columns).data().clone(), vec![ticket])
    };
    let cases = [
        AsyncAnswers { results: vec![row(7)], answered: vec![7..8], calls: 1, ..AsyncAnswers::default() },
        AsyncAnswers { results: vec![row(0), row(0)], answered: vec![0..1], calls: 1, ..AsyncAnswers::default() },
        AsyncAnswers { results: vec![(row(0).0, vec![])], answered: vec![0..1], calls: 1, ..AsyncAnswers::default() },
        AsyncAnswers { failed: vec![(9..10, Rejected::new("x", ""))], answered: vec![9..10], calls: 1, ..AsyncAnswers::default() },
        AsyncAnswers { results: vec![row(0)], answered: vec![0..1], calls: 2, ..AsyncAnswers::default() },
        AsyncAnswers {
            results: vec![(row(0).0.project(&[1, 0]).expect("two columns"), vec![0])],
            answered: vec![0..1],
            calls: 1,
            ..AsyncAnswers::default()
        },
    ];
    for answers in cases {
        let shown = format!("{answers:?}");
        let calls = AsyncCalls { capacity: 1, batch_rows: None, is_ordered: true, is_lookup: false };
        let function = Arc::new(Broken(Mutex::new(Some(answers))));
        let stage = AsyncStage { function, calls, records: records().schema() };
        let mut operator = MapAsync::new(&stage, records().schema(), &context()).expect("the stage fits");
        pushed(&mut operator, 0..1);
        let error = operator.on_wake(&mut Outbox::default()).expect_err(&shown);
        assert!(error.message().starts_with("broken: "), "{error}");
    }
}
