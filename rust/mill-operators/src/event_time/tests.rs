use std::sync::Arc;

use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{Array, ArrayRef, AsArray, Date32Array, RecordBatch, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampSecondArray};
use mill_plan::{WatermarkFunction, WatermarkGenerator, Watermarked};
use mill_protocol::Emission;
use mill_protocol::testkit::{Compare, Input, batch, check};

use super::*;
use crate::fixture::context;

const A: SplitId = SplitId(1);
const B: SplitId = SplitId(2);

fn strategy(disorder: i64, idleness: Option<i64>) -> (WatermarksOf, Option<i64>) {
    (WatermarksOf::Bound(disorder), idleness)
}

fn event_time((watermarks, idleness): (WatermarksOf, Option<i64>)) -> Box<dyn Operator> {
    let schema = records(A, &[]).schema();
    Box::new(EventTime::new(0, &watermarks, idleness, None, &schema, &context()).expect("a time column"))
}

fn records(split: SplitId, times: &[Option<i64>]) -> Batch {
    let times: ArrayRef = Arc::new(times.iter().copied().collect::<TimestampMicrosecondArray>());
    batch(&[("at", times)]).with_split(split)
}

fn some(split: SplitId, times: &[i64]) -> Input {
    Input::Batch(records(split, &times.iter().copied().map(Some).collect::<Vec<_>>()))
}

/// The watermarks that come out, and `None` where the operator turns quiet.
fn watermarks(operator: &mut dyn Operator, event: &Input) -> Vec<Option<i64>> {
    let mut out = Outbox::default();
    let _ = match event {
        Input::Batch(batch) => operator.on_batch(0, batch.clone(), &mut out),
        Input::Time(now) => operator.on_time(*now, &mut out),
        Input::Splits(open) => operator.on_splits(open, &mut out).map(|()| Progress::Done),
        Input::Quiet(split) => {
            operator.on_quiet(*split);
            Ok(Progress::Done)
        }
        Input::Mark(split, mark) => operator.on_mark(*split, *mark, &mut out).map(|()| Progress::Done),
        Input::Follow(at) => {
            operator.follow(Watermark(*at));
            Ok(Progress::Done)
        }
        other => panic!("{other:?} is not used here"),
    }
    .expect("times are good");
    let mut given = Vec::new();
    while let Some(emission) = out.pop() {
        match emission {
            Emission::Watermark(at) => given.push(Some(at.0)),
            Emission::Quiet(_) => given.push(None),
            Emission::Batch(..) => {}
        }
    }
    given
}

#[test]
fn records_behind_their_own_split_carry_its_watermark() {
    let inputs = [
        Input::Splits(vec![A, B]),
        some(A, &[100, 90, 120, 109, 120]),
        some(B, &[10, 5, 0, 40]),
        some(A, &[110, 111, 300, 290, 289]),
    ];
    let given = check(|| event_time(strategy(10, None)), &inputs, &Compare::Ordered);
    let behind: Vec<&str> =
        given.rows.iter().filter(|row| row.contains("behind")).map(|row| row.split('@').next_back().expect("a time")).collect();
    assert_eq!(behind, ["109 behind 110", "289 behind 290"]);
    assert_eq!(given.rows.len(), 14);
    assert_eq!(given.watermark, Some(i64::MAX));
}

/// One record after the other, as the definition says.
fn behind_one_by_one(times: &[i64], mut latest: Option<i64>, disorder: i64) -> Vec<i64> {
    let mut behind = Vec::new();
    for &time in times {
        behind.push(latest.map_or(i64::MIN, |latest| latest - disorder));
        latest = latest.max(Some(time));
    }
    behind
}

#[test]
fn shortcuts_give_what_the_definition_says() {
    use proptest::prelude::*;
    let cases = (proptest::collection::vec(0_i64..200, 1..40), proptest::option::of(0_i64..200), 0_i64..60);
    proptest!(|((times, latest, disorder) in cases)| {
        let expected = behind_one_by_one(&times, latest, disorder);
        let is_any = times.iter().zip(&expected).any(|(time, behind)| time < behind);
        let (after, behind) = times::behind(&times, latest, disorder);
        prop_assert_eq!(after, times.iter().copied().chain(latest).max().expect("a time"));
        prop_assert_eq!(behind.map(|behind| behind.to_vec()), is_any.then_some(expected));
    });
}

#[test]
fn a_batch_without_such_records_carries_nothing() {
    let mut out = Outbox::default();
    let mut operator = event_time(strategy(10, None));
    let rows = records(A, &[Some(100), Some(90), Some(200), Some(195)]);
    let _ = operator.on_batch(0, rows, &mut out).expect("times are good");
    let Some(Emission::Batch(0, batch)) = out.pop() else { panic!("a batch comes out") };
    assert!(batch.behind().is_none());
    assert_eq!(batch.times().map(|times| times.to_vec()), Some(vec![100, 90, 200, 195]));
}

#[test]
fn split_that_has_not_started_holds_the_watermark_back() {
    let mut operator = event_time(strategy(10, None));
    assert_eq!(watermarks(operator.as_mut(), &Input::Splits(vec![A, B])), []);
    assert_eq!(watermarks(operator.as_mut(), &some(A, &[100])), []);
    assert_eq!(watermarks(operator.as_mut(), &some(B, &[50])), [Some(40)]);
    assert_eq!(watermarks(operator.as_mut(), &some(B, &[20])), []);
    assert_eq!(watermarks(operator.as_mut(), &some(B, &[500])), [Some(90)]);
    assert_eq!(watermarks(operator.as_mut(), &Input::Splits(vec![B])), [Some(490)]);
    assert_eq!(watermarks(operator.as_mut(), &Input::Splits(vec![])), [None]);
}

#[test]
fn idle_split_no_longer_holds_the_watermark_back() {
    let mut operator = event_time(strategy(0, Some(1000)));
    let mut steps = |inputs: &[(Input, &[Option<i64>], Option<i64>)]| {
        for (input, expected, deadline) in inputs {
            assert_eq!(watermarks(operator.as_mut(), input), *expected, "{input:?}");
            assert_eq!(operator.next_time(), *deadline, "{input:?}");
        }
    };
    steps(&[
        (Input::Splits(vec![A, B]), &[], None),
        // Nobody has asked B, however long that takes.
        (some(A, &[100]), &[], None),
        (Input::Quiet(B), &[], Some(i64::MIN)),
        (Input::Time(10_000), &[], Some(11_000)),
        (Input::Time(11_000), &[Some(100)], None),
        // It wakes up: time does not move, for it cannot go back.
        (some(B, &[50]), &[], None),
        (some(A, &[200]), &[], None),
        (Input::Quiet(A), &[], Some(i64::MIN)),
        (Input::Quiet(B), &[], Some(i64::MIN)),
        (Input::Time(12_000), &[], Some(13_000)),
        // Somebody has set the clock back.
        (Input::Time(500), &[], Some(1_500)),
        (Input::Time(1_500), &[None], None),
        (Input::Follow(200), &[], None),
        (Input::Follow(150), &[], None),
        // Others wait again, from where time is now.
        (some(B, &[150]), &[Some(200)], None),
        (some(A, &[300]), &[], None),
        (some(B, &[250]), &[Some(250)], None),
    ]);
}

#[test]
fn a_task_without_splits_is_quiet_and_idle_after_a_while() {
    let mut operator = event_time(strategy(0, Some(1000)));
    let mut out = Outbox::default();
    let mut declared = |operator: &mut dyn Operator, input: &Input| {
        let _ = match input {
            Input::Time(now) => operator.on_time(*now, &mut out).expect("no records"),
            Input::Splits(open) => {
                operator.on_splits(open, &mut out).expect("no records");
                Progress::Done
            }
            other => panic!("{other:?} is not used here"),
        };
        match out.pop() {
            Some(Emission::Quiet(quiet)) => Some(Some(quiet.is_idle)),
            Some(Emission::Watermark(_)) => Some(None),
            _ => None,
        }
    };
    assert_eq!(declared(operator.as_mut(), &Input::Splits(vec![])), Some(Some(false)));
    assert_eq!(declared(operator.as_mut(), &Input::Time(5_000)), None);
    assert_eq!(declared(operator.as_mut(), &Input::Time(6_000)), Some(Some(true)));
    assert_eq!(declared(operator.as_mut(), &Input::Splits(vec![A])), Some(None));
}

#[test]
fn an_instance_goes_on_from_the_least_watermark_that_any_had_sent() {
    let restored = |parts: &[Vec<u8>]| {
        let parts: Vec<_> = parts.iter().cloned().map(Into::into).collect();
        splits::Splits::decode(&parts, 0, 3).expect("whole state")
    };
    let mut first = splits::Splits::default();
    first.saw(A, Some(100));
    let second = splits::Splits::default();
    let ended = splits::Splits::default();
    let parts = [first.encode(0, 3, 90, &[]), second.encode(1, 3, 70, &[]), ended.encode(2, 3, i64::MAX, &[])];
    let Decoded { splits, emitted, .. } = restored(&parts);
    assert_eq!((emitted, splits.greatest()), (70, Some(100)));
    // State of version 1 has neither.
    let mut old = vec![1; 1];
    old.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
    old.extend_from_slice(&A.0.to_le_bytes());
    old.extend_from_slice(&33_i64.to_le_bytes());
    let Decoded { splits, emitted, .. } = restored(&[old]);
    assert_eq!((emitted, splits.latest_of(A)), (i64::MIN, Some(33)));
}

#[test]
fn record_without_a_time_is_rejected() {
    let inputs = [Input::Batch(records(A, &[Some(1), None, Some(3)]))];
    let given = check(|| event_time(strategy(0, None)), &inputs, &Compare::Ordered);
    assert_eq!(given.rows.len(), 2);
    assert_eq!(
        given.rejected,
        ["the event time in column \"at\" is null; filter such records out before event_time() | {\"at\":null}"]
    );
}

#[test]
fn every_unit_becomes_microseconds() {
    let columns: [(ArrayRef, i64); 3] = [
        (Arc::new(Date32Array::from(vec![2])), 172_800_000_000),
        (Arc::new(TimestampMillisecondArray::from(vec![-3])), -3000),
        (Arc::new(TimestampSecondArray::from(vec![4])), 4_000_000),
    ];
    for (column, expected) in columns {
        let rows = batch(&[("at", column)]);
        let mut out = Outbox::default();
        let with_times = times::with_times(rows, 0, "at", &mut out).expect("a time column").expect("one record");
        assert_eq!(with_times.times().map(|times| times.to_vec()), Some(vec![expected]));
    }
}

#[test]
fn time_beyond_sixty_four_bits_is_rejected() {
    let column: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(1), Some(i64::MAX / 10), None]));
    assert_eq!(column.len(), 3);
    let mut out = Outbox::default();
    let kept = times::with_times(batch(&[("at", column)]), 0, "at", &mut out).expect("a time column");
    assert_eq!(kept.map(|batch| batch.rows()), Some(1));
    assert_eq!(out.take_rejected().len(), 2);

    let last = (i64::MAX / 86_400_000_000) as i32;
    let column: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX, last, last + 1, -last, -last - 1, i32::MIN]));
    let kept = times::with_times(batch(&[("at", column)]), 0, "at", &mut out).expect("a time column").expect("two records");
    let times = kept.times().map(|times| times.to_vec());
    assert_eq!(times, Some([last, -last].map(|days| i64::from(days) * 86_400_000_000).to_vec()));
    let rejected = out.take_rejected();
    assert_eq!(rejected.len(), 4);
    assert!(rejected[0].error.contains("the event time in column \"at\" is beyond"), "{rejected:?}");
}

#[test]
fn state_moves_to_another_parallelism() {
    let known = |parts: &[Vec<u8>], index, parallelism| {
        let parts: Vec<_> = parts.iter().cloned().map(Into::into).collect();
        splits::Splits::decode(&parts, index, parallelism).expect("whole state").splits
    };
    let mut first = splits::Splits::default();
    first.saw(A, Some(100));
    first.saw(SplitId::NONE, Some(7));
    let mut second = splits::Splits::default();
    second.saw(B, Some(50));
    second.saw(SplitId::NONE, Some(5));
    let parts = [first.encode(0, 2, 5, &[]), second.encode(1, 2, 5, &[])];
    let mut one = known(&parts, 0, 1);
    assert_eq!(one.latest_of(SplitId::NONE), Some(5));
    one.open(&[A, B]);
    assert_eq!(one.latest(), splits::Latest::Of(50));
    assert_eq!(known(&parts, 0, 2).latest_of(SplitId::NONE), Some(7));
}

#[test]
fn what_an_instance_was_restored_with_is_older_than_what_the_reader_saw() {
    let restored = |parts: &[Vec<u8>], index| {
        let parts: Vec<_> = parts.iter().cloned().map(Into::into).collect();
        splits::Splits::decode(&parts, index, 2).expect("whole state").splits
    };
    let mut before = splits::Splits::default();
    before.saw(A, Some(100));
    let parts = [before.encode(0, 1, 0, &[])];
    // Both begin with all that was known; the barrier comes before the second one is told that it has no splits.
    let (mut reader, untold) = (restored(&parts, 0), restored(&parts, 1));
    reader.open(&[A]);
    reader.saw(A, Some(500));
    for parts in [[reader.encode(0, 2, 0, &[]), untold.encode(1, 2, 0, &[])], [untold.encode(0, 2, 0, &[]), reader.encode(1, 2, 0, &[])]] {
        assert_eq!(restored(&parts, 0).latest_of(A), Some(500));
    }
}

#[test]
fn damaged_state_is_refused() {
    for bytes in [vec![], vec![2; 9], vec![1; 10], vec![3; 25], vec![2; 26], b"MILLTIME".to_vec(), b"MILLTIME\x02".to_vec()] {
        let error = splits::Splits::decode(&[bytes.into()], 0, 1).expect_err("damaged");
        assert!(error.message().contains("damaged"), "{error}");
    }
}

#[test]
fn the_split_that_the_watermark_waits_for_is_at_hand() {
    let mut operator = event_time(strategy(10, Some(50)));
    let operator = operator.as_mut();
    let waits = |split, at, furthest| {
        Some(Waiting { furthest: Watermark(furthest), split: Some((split, Watermark(at))) })
    };
    watermarks(operator, &Input::Splits(vec![A, B]));
    watermarks(operator, &some(A, &[100]));
    assert_eq!(operator.waiting(), waits(B, i64::MIN, 90), "B has had no records");
    watermarks(operator, &some(B, &[40]));
    assert_eq!(operator.waiting(), waits(B, 30, 90));
    watermarks(operator, &some(A, &[300]));
    assert_eq!(operator.waiting(), waits(B, 30, 290));
    watermarks(operator, &some(B, &[500]));
    assert_eq!(operator.waiting(), waits(A, 290, 490));
    // A is skipped, and then B as well.
    watermarks(operator, &Input::Quiet(A));
    watermarks(operator, &Input::Time(0));
    watermarks(operator, &Input::Time(60));
    assert_eq!(operator.waiting(), waits(B, 490, 490));
    watermarks(operator, &Input::Quiet(B));
    watermarks(operator, &Input::Time(70));
    watermarks(operator, &Input::Time(130));
    assert_eq!(operator.waiting(), Some(Waiting { furthest: Watermark(490), split: None }));
    // A has records again, and is waited for.
    watermarks(operator, &some(A, &[310]));
    assert_eq!(operator.waiting(), waits(A, 300, 490));
    watermarks(operator, &Input::Splits(vec![]));
    assert_eq!(operator.waiting(), Some(Waiting { furthest: Watermark(490), split: None }));
}

#[test]
fn a_watermark_of_a_reader_counts_as_the_watermark_of_its_split() {
    let mut operator = event_time(strategy(10, None));
    let mut steps = |inputs: &[(Input, &[Option<i64>])]| {
        for (input, expected) in inputs {
            assert_eq!(watermarks(operator.as_mut(), input), *expected, "{input:?}");
        }
    };
    let at = |split, at| Input::Mark(split, Mark::Watermark(Watermark(at)));
    steps(&[
        (Input::Splits(vec![A, B]), &[]),
        (some(A, &[100]), &[]),
        // A split without records may have a watermark all the same.
        (at(B, 70), &[Some(70)]),
        // What records have led to is not taken back.
        (at(A, 50), &[]),
        (at(B, 200), &[Some(90)]),
        (at(A, 95), &[Some(95)]),
        (some(A, &[300]), &[Some(200)]),
        // The end of time is for the input to tell.
        (Input::Splits(vec![A]), &[Some(290)]),
        (at(A, i64::MAX), &[Some(i64::MAX - 10)]),
    ]);
}

#[test]
fn records_behind_a_watermark_of_the_reader_carry_it() {
    let inputs = [
        Input::Splits(vec![A]),
        some(A, &[100]),
        Input::Mark(A, Mark::Watermark(Watermark(150))),
        some(A, &[149, 150, 155]),
        Input::Barrier,
        some(A, &[140]),
    ];
    let given = check(|| event_time(strategy(10, None)), &inputs, &Compare::Ordered);
    let times: Vec<&str> = given.rows.iter().map(|row| row.split('@').next_back().expect("a time")).collect();
    assert_eq!(times, ["100", "149 behind 150", "150", "155", "140 behind 150"]);
}

#[test]
fn a_split_that_is_idle_by_its_reader_is_waited_for_again_once_it_has_something() {
    let mut operator = event_time(strategy(0, None));
    let mut steps = |inputs: &[(Input, &[Option<i64>])]| {
        for (input, expected) in inputs {
            assert_eq!(watermarks(operator.as_mut(), input), *expected, "{input:?}");
        }
    };
    steps(&[
        (Input::Splits(vec![A, B]), &[]),
        (some(A, &[100]), &[]),
        (Input::Mark(B, Mark::Idle), &[Some(100)]),
        (Input::Quiet(B), &[]),
        (some(A, &[120]), &[Some(120)]),
        (some(B, &[110]), &[]),
        (some(A, &[130]), &[]),
        (Input::Mark(B, Mark::Watermark(Watermark(125))), &[Some(125)]),
        (Input::Mark(B, Mark::Idle), &[Some(130)]),
        (Input::Mark(A, Mark::Idle), &[None]),
    ]);
}

/// Returns the value of its second column after each record, and adds how many records it has had before.
#[derive(Debug)]
struct Counting {
    period_us: Option<i64>,
}

struct Counter(i64);

impl WatermarkFunction for Counting {
    fn name(&self) -> String {
        "Counting".to_owned()
    }

    fn columns(&self) -> Option<&[String]> {
        None
    }

    fn period_us(&self) -> Option<i64> {
        self.period_us
    }

    fn open(&self, state: Option<&[u8]>) -> Result<Box<dyn WatermarkGenerator>> {
        let had = state.map_or(0, |state| i64::from_le_bytes(state.try_into().expect("eight bytes")));
        Ok(Box::new(Counter(had)))
    }
}

impl WatermarkGenerator for Counter {
    fn on_batch(&mut self, times: &ArrayRef, columns: &RecordBatch) -> Result<Watermarked> {
        assert_eq!(times.len(), columns.num_rows());
        let marks = columns.column(1).as_primitive::<TimestampMicrosecondType>();
        let had = self.0;
        self.0 += times.len() as i64;
        let each: TimestampMicrosecondArray = (0_i64..).zip(marks).map(|(row, mark)| Some(mark? + had + row)).collect();
        Ok(Watermarked::AfterEach(Arc::new(each)))
    }

    fn on_periodic(&mut self) -> Result<Option<i64>> {
        Ok(Some(1_000 + self.0))
    }

    fn state(&self) -> Result<Vec<u8>> {
        Ok(self.0.to_le_bytes().to_vec())
    }
}

fn marked(split: SplitId, rows: &[(i64, Option<i64>)]) -> Input {
    let times: ArrayRef = Arc::new(rows.iter().map(|(at, _)| Some(*at)).collect::<TimestampMicrosecondArray>());
    let marks: ArrayRef = Arc::new(rows.iter().map(|(_, mark)| *mark).collect::<TimestampMicrosecondArray>());
    Input::Batch(batch(&[("at", times), ("mark", marks)]).with_split(split))
}

fn by(watermarks: &WatermarksOf) -> Box<dyn Operator> {
    let Input::Batch(rows) = marked(A, &[]) else { panic!("records") };
    Box::new(EventTime::new(0, watermarks, None, None, &rows.schema(), &context()).expect("a time column"))
}

fn counting(period_us: Option<i64>) -> WatermarksOf {
    WatermarksOf::Function { function: Arc::new(Counting { period_us }), columns: vec![0, 1] }
}

#[test]
fn watermarks_of_a_column_count_after_their_record_and_never_go_back() {
    let inputs = [
        Input::Splits(vec![A, B]),
        marked(B, &[(500, Some(1_000))]),
        marked(A, &[(10, None), (5, Some(8)), (7, Some(3)), (8, None), (2, Some(20))]),
        marked(A, &[(19, None), (20, None), (100, Some(50)), (50, None), (49, None)]),
    ];
    let given = check(|| by(&WatermarksOf::Column(1)), &inputs, &Compare::Ordered);
    let behind: Vec<&str> =
        given.rows.iter().filter(|row| row.contains("behind")).map(|row| row.split('@').next_back().expect("a time")).collect();
    assert_eq!(behind, ["7 behind 8", "2 behind 8", "19 behind 20", "49 behind 50"]);
    assert_eq!(given.rows.len(), 11);
}

#[test]
fn a_split_without_a_watermark_in_its_column_holds_the_others() {
    let mut operator = by(&WatermarksOf::Column(1));
    let operator = operator.as_mut();
    assert_eq!(watermarks(operator, &Input::Splits(vec![A, B])), []);
    assert_eq!(watermarks(operator, &marked(A, &[(1, Some(70))])), []);
    assert_eq!(watermarks(operator, &marked(B, &[(1, None)])), []);
    assert_eq!(operator.waiting().and_then(|waiting| waiting.split), Some((B, Watermark::MIN)));
    assert_eq!((operator.time_of(A), operator.time_of(B)), (Some(Watermark(70)), None));
    assert_eq!(watermarks(operator, &marked(B, &[(1, Some(40))])), [Some(40)]);
    assert_eq!(watermarks(operator, &marked(B, &[(90, Some(i64::MAX))])), [Some(70)], "no record is the end");
    assert_eq!(operator.time_of(B), Some(Watermark(i64::MAX - 1)));
}

#[test]
fn a_watermark_beyond_sixty_four_bits_is_rejected() {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]));
    let marks: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(1), Some(i64::MAX / 10), None]));
    let rows = batch(&[("at", times), ("mark", marks)]).with_split(A);
    let make = || Box::new(EventTime::new(0, &WatermarksOf::Column(1), None, None, &rows.schema(), &context()).expect("times")) as _;
    let given = check(make, &[Input::Batch(rows.clone())], &Compare::Ordered);
    assert_eq!(given.rows.len(), 2);
    assert!(given.rejected[0].starts_with("the watermark in column \"mark\" is beyond"), "{:?}", given.rejected);
}

#[test]
fn a_function_goes_on_from_its_state_and_each_split_has_its_own() {
    let inputs = [
        Input::Splits(vec![A, B]),
        marked(A, &[(0, Some(0)), (0, Some(0)), (0, Some(0))]),
        marked(B, &[(5, Some(0)), (0, None)]),
        marked(A, &[(2, None), (1, None), (9, Some(5)), (7, None)]),
    ];
    // After record n of a split the watermark is its mark and n, whatever was cut or restored in between.
    let given = check(|| by(&counting(None)), &inputs, &Compare::Ordered);
    let behind: Vec<&str> =
        given.rows.iter().filter(|row| row.contains("behind")).map(|row| row.split('@').next_back().expect("a time")).collect();
    assert_eq!(behind, ["0 behind 1", "1 behind 2", "7 behind 10"]);
}

#[test]
fn a_period_raises_the_watermark_without_records() {
    let mut operator = by(&counting(Some(100)));
    let operator = operator.as_mut();
    assert_eq!(watermarks(operator, &Input::Splits(vec![A])), []);
    assert_eq!(operator.next_time(), Some(i64::MIN));
    assert_eq!(watermarks(operator, &Input::Time(50)), [], "the first period begins now");
    assert_eq!(operator.next_time(), Some(150));
    assert_eq!(watermarks(operator, &Input::Time(149)), []);
    assert_eq!(watermarks(operator, &Input::Time(150)), [Some(1_000)]);
    assert_eq!(operator.next_time(), Some(250));
    assert_eq!(watermarks(operator, &marked(A, &[(1, Some(0)), (2, Some(0))])), []);
    assert_eq!(watermarks(operator, &Input::Time(250)), [Some(1_002)]);
    assert_eq!(watermarks(operator, &Input::Splits(vec![])), [None]);
    assert_eq!(operator.next_time(), None);
}

#[test]
fn the_state_of_a_split_is_that_of_the_instance_that_read_it() {
    let decoded = |parts: [Vec<u8>; 3]| {
        let parts: Vec<_> = parts.into_iter().map(Into::into).collect();
        splits::Splits::decode(&parts, 0, 2).expect("whole state").states
    };
    let (mut reader, untold) = (splits::Splits::default(), splits::Splits::default());
    reader.open(&[A]);
    let of_reader = reader.encode(0, 2, 0, &[(A, vec![7])]);
    let of_untold = untold.encode(1, 2, 0, &[(A, vec![3])]);
    let of_other = untold.encode(2, 3, 0, &[(A, vec![4])]);
    let parts = [of_reader, of_untold, of_other];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(decoded(order.map(|part| parts[part].clone()))[&A], [7], "{order:?}");
    }
}

#[test]
fn a_function_must_return_a_watermark_for_each_record() {
    #[derive(Debug)]
    struct Short;
    struct One;
    impl WatermarkFunction for Short {
        fn name(&self) -> String {
            "Short".to_owned()
        }
        fn columns(&self) -> Option<&[String]> {
            None
        }
        fn period_us(&self) -> Option<i64> {
            None
        }
        fn open(&self, _state: Option<&[u8]>) -> Result<Box<dyn WatermarkGenerator>> {
            Ok(Box::new(One))
        }
    }
    impl WatermarkGenerator for One {
        fn on_batch(&mut self, times: &ArrayRef, _columns: &RecordBatch) -> Result<Watermarked> {
            Ok(Watermarked::AfterEach(times.slice(0, 1)))
        }
        fn on_periodic(&mut self) -> Result<Option<i64>> {
            Ok(None)
        }
        fn state(&self) -> Result<Vec<u8>> {
            Ok(Vec::new())
        }
    }
    let mut operator = by(&WatermarksOf::Function { function: Arc::new(Short), columns: vec![0] });
    let Input::Batch(rows) = marked(A, &[(1, None), (2, None)]) else { panic!("records") };
    let error = operator.on_batch(0, rows, &mut Outbox::default()).expect_err("one for two");
    assert_eq!(
        error.message(),
        "Short returned 1 watermark for 2 records; return one for each record, or one for all of them"
    );
}
