use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use mill_plan::{
    AggregateKind, CountWindow, Firing, KeptWindow, KeptWindowSpec, SessionGap, StageKind, Trigger, Window, WindowCompute,
    WindowFunction, WindowRecords,
};
use mill_protocol::testkit::{Compare, Input, batch, check, integers};
use mill_protocol::{Emission, Operator, Outbox, Progress, Result, Watermark};

use crate::accumulator::tests::{random, spec, stage};
use crate::fixture::context;

const EVERY: Trigger = Trigger { early: Some(Firing::Every(10)), late: None };
const EACH: Trigger = Trigger { early: Some(Firing::Each), late: Some(Firing::Each) };
const ROWS: Trigger = Trigger { early: Some(Firing::Rows(3)), late: Some(Firing::Rows(1)) };

fn records() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("x", DataType::Int64, true)]))
}

fn make(window: KeptWindow, allowed_lateness_us: i64, trigger: Trigger) -> Box<dyn Operator> {
    let aggregates = vec![
        spec(AggregateKind::Count, None, None),
        spec(AggregateKind::Sum, Some((1, DataType::Int64)), None),
        spec(AggregateKind::Collect, Some((1, DataType::Int64)), None),
    ];
    let mut fields = vec![Field::new("k", DataType::Int64, true)];
    if window.is_timed() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        fields.extend(["window_start", "window_end"].map(|name| Field::new(name, time.clone(), true)));
    }
    if !trigger.is_default() {
        fields.extend([Field::new("pane", DataType::Int64, true), Field::new("pane_timing", DataType::Utf8, true)]);
    }
    fields.extend(aggregates.iter().map(|spec| spec.field()));
    let kind = StageKind::KeptWindow {
        keys: vec![0],
        kept: vec![0, 1],
        records: records(),
        spec: KeptWindowSpec { window, allowed_lateness_us, trigger },
        compute: WindowCompute::Aggregates(aggregates),
    };
    crate::build(&stage(kind, fields), &context()).unwrap()
}

/// A record: key, value, time, and the watermark of its split when it was read.
pub(crate) type Known = (i64, i64, i64, i64);

pub(crate) fn stream(seed: &mut u64, bound: i64, rows: usize) -> (Vec<Input>, Vec<Known>) {
    let (mut inputs, mut all) = (Vec::new(), Vec::new());
    let (mut now, mut latest) = (-100i64, i64::MIN);
    let mut left = rows;
    while left > 0 {
        let count = (1 + random(seed) as usize % 7).min(left);
        left -= count;
        let (mut keys, mut values, mut times, mut behind) = (vec![], vec![], vec![], vec![]);
        for _ in 0..count {
            now += (random(seed) % 14) as i64;
            let time = now - (random(seed) % 40) as i64;
            let watermark = latest.saturating_sub(bound);
            latest = latest.max(time);
            let (key, value) = ((random(seed) % 3) as i64, (random(seed) % 100) as i64);
            all.push((key, value, time, watermark));
            keys.push(Some(key));
            values.push(Some(value));
            times.push(time);
            behind.push(watermark);
        }
        let is_behind = times.iter().zip(&behind).any(|(time, behind)| behind > time);
        let records = batch(&[("k", integers(&keys)), ("x", integers(&values))])
            .with_times(Some(times.into()))
            .with_behind(is_behind.then(|| behind.into()));
        inputs.extend([Input::Batch(records), Input::Watermark(latest - bound), Input::Time(now)]);
        if random(seed).is_multiple_of(4) {
            inputs.push(Input::Barrier);
        }
    }
    (inputs, all)
}

/// The sessions of records: key, start, end, values by time.
pub(crate) fn sessions(all: &[Known], gap: i64, lateness: i64) -> Vec<(i64, i64, i64, Vec<i64>)> {
    let mut by_key: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    for &(key, value, time, watermark) in all {
        if watermark <= time + lateness {
            by_key.entry(key).or_default().push((time, value));
        }
    }
    let mut found: Vec<(i64, i64, i64, Vec<i64>)> = Vec::new();
    for (key, mut records) in by_key {
        records.sort_by_key(|&(time, _)| time);
        for (time, value) in records {
            match found.last_mut().filter(|last| last.0 == key && time < last.2) {
                Some(last) => {
                    last.2 = time + gap;
                    last.3.push(value);
                }
                None => found.push((key, time, time + gap, vec![value])),
            }
        }
    }
    found
}

fn sessions_of(gap: i64) -> KeptWindow {
    KeptWindow::Session(SessionGap::Fixed(gap))
}

#[test]
fn sessions_are_those_of_the_definition() {
    let mut late = 0;
    for (round, (gap, lateness, bound)) in [(12, 0, 40), (12, 0, 10), (30, 0, 5), (5, 20, 10), (12, 7, 0)].into_iter().enumerate() {
        let mut seed = 7000 + round as u64;
        let (inputs, all) = stream(&mut seed, bound, 60);
        let transcript = check(|| make(sessions_of(gap), lateness, Trigger::default()), &inputs, &Compare::Unordered);
        let expected = sessions(&all, gap, lateness);
        let ends: Vec<String> = {
            let mut ends: Vec<String> =
                expected.iter().map(|(key, _, end, values)| format!("{key} {} {} @{}", values.len(), values.iter().sum::<i64>(), end - 1)).collect();
            ends.sort();
            ends
        };
        let mut found: Vec<String> = transcript
            .rows
            .iter()
            .filter(|line| line.starts_with("0: "))
            .map(|line| {
                let parts: Vec<&str> = line[3..].split(", ").collect();
                let at = line.rsplit('@').next().unwrap();
                format!("{} {} {} @{at}", parts[0], parts[3], parts[4])
            })
            .collect();
        found.sort();
        assert_eq!(found, ends, "gap {gap}, lateness {lateness}, bound {bound}");
        let taken: usize = expected.iter().map(|(.., values)| values.len()).sum();
        assert_eq!(transcript.late as usize, all.len() - taken);
        late += transcript.late;
    }
    assert!(late > 5, "some records should be late, found {late}");
}

#[test]
fn triggers_end_with_what_there_is_without() {
    let tumbling = KeptWindow::Aligned(Window::Tumbling { size_us: 25, offset_us: 3 });
    let sliding = KeptWindow::Aligned(Window::Sliding { size_us: 30, slide_us: 12, offset_us: 0 });
    for (round, window) in [tumbling, sliding, sessions_of(12)].into_iter().enumerate() {
        for (trigger, lateness) in [(EVERY, 0), (EVERY, 15), (EACH, 20), (ROWS, 20), (ROWS, 0)] {
            let mut seed = 900 + round as u64;
            let (inputs, _) = stream(&mut seed, 10, 50);
            // The numbers of panes depend on how records are cut into frames, unless they are counted.
            let plain = check(|| make(window, lateness, Trigger::default()), &inputs, &Compare::Unordered);
            let mut operator = make(window, lateness, trigger);
            let mut latest: BTreeMap<String, String> = BTreeMap::new();
            let mut out = Outbox::default();
            for input in inputs.iter().cloned().chain([Input::Watermark(i64::MAX)]) {
                let mut progress = match input {
                    Input::Batch(batch) => operator.on_batch(0, batch, &mut out).unwrap(),
                    Input::Watermark(at) => operator.on_watermark(0, Watermark(at), &mut out).unwrap(),
                    Input::Time(now) => operator.on_time(now, &mut out).unwrap(),
                    _ => Progress::Done,
                };
                while progress == Progress::More {
                    progress = operator.resume(&mut out).unwrap();
                }
                while let Some(emission) = out.pop() {
                    let Emission::Batch(0, batch) = emission else { continue };
                    for row in 0..batch.rows() {
                        let text = |column: usize| {
                            arrow::util::display::array_value_to_string(batch.column(column), row).unwrap()
                        };
                        let key = format!("{} {} {}", text(0), text(1), text(2));
                        if batch.deletes().is_some_and(|deletes| deletes.value(row)) {
                            assert!(latest.remove(&key).is_some(), "{key} is withdrawn and was not there");
                        } else {
                            latest.insert(key, format!("{} {} {}", text(5), text(6), text(7)));
                        }
                    }
                }
            }
            let lines = plain.rows.iter().filter(|line| line.starts_with("0: ")).count();
            assert_eq!(latest.len(), lines, "{window:?} {trigger} {lateness}: {latest:#?}, {:#?}", plain.rows);
            let mut counts: Vec<String> = latest.values().map(|value| value.split(' ').take(2).collect::<Vec<_>>().join(", ")).collect();
            let mut expected: Vec<String> = (plain.rows.iter().filter(|line| line.starts_with("0: ")))
                .map(|line| line[3..].split(", ").skip(3).take(2).collect::<Vec<_>>().join(", "))
                .collect();
            counts.sort();
            expected.sort();
            assert_eq!(counts, expected, "{window:?} {trigger} {lateness}");
        }
    }
}

#[test]
fn counted_triggers_depend_on_no_frame() {
    for window in [KeptWindow::Aligned(Window::Tumbling { size_us: 25, offset_us: 3 }), sessions_of(12), KeptWindow::Global] {
        let mut seed = 31;
        let (inputs, _) = stream(&mut seed, 10, 50);
        let lateness = if window.is_timed() { 20 } else { 0 };
        check(|| make(window, lateness, ROWS), &inputs, &Compare::Latest(if window.is_timed() { 3 } else { 1 }));
    }
}

/// The number of records where it is odd, and nothing where it is even.
#[derive(Debug)]
struct OddCounts;

impl WindowFunction for OddCounts {
    fn name(&self) -> String {
        "odd_counts".to_owned()
    }
    fn apply(&self, window: &WindowRecords<'_>) -> Result<RecordBatch> {
        let rows = window.rows.num_rows() as i64;
        Ok(batch(&[("n", integers(&[Some(rows)]))]).data().slice(0, (rows % 2) as usize))
    }
}

#[test]
fn withdrawals_and_results_of_a_function_go_out_in_the_order_of_their_windows() {
    let make = || {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let mut fields = vec![Field::new("k", DataType::Int64, true)];
        fields.extend(["window_start", "window_end"].map(|name| Field::new(name, time.clone(), true)));
        fields.extend([Field::new("pane", DataType::Int64, true), Field::new("pane_timing", DataType::Utf8, true)]);
        fields.push(Field::new("n", DataType::Int64, true));
        let window = KeptWindow::Aligned(Window::Tumbling { size_us: 100, offset_us: 0 });
        let trigger = Trigger { early: Some(Firing::Rows(1)), late: None };
        let kind = StageKind::KeptWindow {
            keys: vec![0],
            kept: vec![0, 1],
            records: records(),
            spec: KeptWindowSpec { window, allowed_lateness_us: 0, trigger },
            compute: WindowCompute::Apply(Arc::new(OddCounts)),
        };
        crate::build(&stage(kind, fields), &context()).unwrap()
    };
    let key = |key: i64, rows: usize| vec![Some(key); rows];
    // Key 1 ends with nothing, key 2 with three, and key 3 begins between the records of the others.
    let keys = [key(1, 2), key(2, 1), key(1, 1), key(3, 1), key(1, 1), key(2, 2)].concat();
    let all = batch(&[("k", integers(&keys)), ("x", integers(&keys))]).with_times(Some(vec![5; keys.len()].into()));

    let mut operator = make();
    let mut out = Outbox::default();
    assert_eq!(operator.on_batch(0, all.clone(), &mut out).unwrap(), Progress::Done);
    let mut changes = Vec::new();
    while let Some(emission) = out.pop() {
        let Emission::Batch(_, batch) = emission else { continue };
        let column = |place: usize| batch.column(place).as_primitive::<Int64Type>();
        let is_delete = |row: usize| batch.deletes().is_some_and(|deletes| deletes.value(row));
        let change = |row: usize| (column(0).value(row), (!is_delete(row)).then(|| column(5).value(row)));
        changes.extend((0..batch.rows()).map(change));
    }
    let expected = [(1, Some(1)), (1, None), (2, Some(1)), (1, Some(3)), (3, Some(1)), (1, None), (2, None), (2, Some(3))];
    assert_eq!(changes, expected);

    let transcript = check(make, &[Input::Batch(all)], &Compare::Latest(3));
    assert!(!transcript.rows.iter().any(|row| row.starts_with("0: 1,")), "{:#?}", transcript.rows);
}

#[test]
fn windows_of_so_many_records_depend_on_no_frame() {
    for (rows, slide, is_partial) in [(3, 3, false), (4, 1, true), (5, 2, false), (1, 1, false)] {
        let mut seed = 77;
        let (inputs, all) = stream(&mut seed, 10, 60);
        let window = KeptWindow::Count(CountWindow { rows, slide, is_partial });
        let transcript = check(|| make(window, 0, Trigger::default()), &inputs, &Compare::Unordered);
        let mut expected = Vec::new();
        for key in 0..3 {
            let values: Vec<i64> = all.iter().filter(|known| known.0 == key).map(|known| known.1).collect();
            for start in (0..values.len()).step_by(slide as usize) {
                let window = &values[start..values.len().min(start + rows as usize)];
                if window.len() == rows as usize || is_partial {
                    expected.push(format!("0: {key}, {}, {}, {window:?}", window.len(), window.iter().sum::<i64>()));
                }
            }
        }
        expected.sort();
        assert_eq!(transcript.rows, expected);
    }
}

#[test]
fn sessions_that_are_over_leave_no_state() {
    let mut operator = make(sessions_of(10), 0, EACH);
    let mut out = Outbox::default();
    for round in 0..50i64 {
        let keys: Vec<Option<i64>> = (0..500).map(|key| Some(key + round * 500)).collect();
        let records = batch(&[("k", integers(&keys)), ("x", integers(&keys))])
            .with_times(Some(vec![round * 100; 500].into()));
        for is_watermark in [false, true] {
            let mut progress = match is_watermark {
                false => operator.on_batch(0, records.clone(), &mut out).unwrap(),
                true => operator.on_watermark(0, Watermark(round * 100 + 50), &mut out).unwrap(),
            };
            while progress == Progress::More {
                progress = operator.resume(&mut out).unwrap();
            }
        }
        while out.pop().is_some() {}
        let mut snapshot = mill_protocol::Snapshot::default();
        operator.snapshot(&mut snapshot).unwrap();
        let full = snapshot.blocks.make().iter().filter(|block| block.kind != mill_frame::block::BlockKind::Drop).count();
        assert_eq!(full, 0, "nothing is open any more");
    }
}
