use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use arrow::util::display::array_value_to_string;
use mill_plan::{
    AggregateKind, AggregateSpec, CountWindow, Firing, KeptWindow, KeptWindowSpec, StageKind, Trigger, Window, WindowCompute,
};
use mill_protocol::testkit::{Compare, Input, batch, check, integers};
use mill_protocol::{Emission, Operator, Outbox, Progress, Restored, Snapshot, Watermark};

use crate::accumulator::tests::{spec, stage};
use crate::fixture::context;
use crate::kept_windows::tests::stream;

const TUMBLING: KeptWindow = KeptWindow::Aligned(Window::Tumbling { size_us: 25, offset_us: 3 });
const SLIDING: KeptWindow = KeptWindow::Aligned(Window::Sliding { size_us: 30, slide_us: 12, offset_us: 0 });
const CUMULATIVE: KeptWindow = KeptWindow::Aligned(Window::Cumulative { step_us: 10, size_us: 40, offset_us: 5 });

/// What the windows are computed by.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Rows,
    Records,
}

fn aggregates() -> Vec<AggregateSpec> {
    let of_x = |kind| spec(kind, Some((1, DataType::Int64)), None);
    vec![
        spec(AggregateKind::Count, None, None),
        of_x(AggregateKind::Sum),
        of_x(AggregateKind::Max),
        of_x(AggregateKind::Mean),
        of_x(AggregateKind::First),
        of_x(AggregateKind::Last),
    ]
}

fn make_of(form: Form, window: KeptWindow, allowed_lateness_us: i64, trigger: Trigger, mut aggregates: Vec<AggregateSpec>) -> Box<dyn Operator> {
    // Kept records of all time are in order of event time.
    let is_of_all = form == Form::Rows && window == KeptWindow::Global;
    aggregates.iter_mut().for_each(|spec| spec.by_time = is_of_all && spec.kind.is_ordered());
    let mut fields = vec![Field::new("k", DataType::Int64, true)];
    if window.is_timed() {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        fields.extend(["window_start", "window_end"].map(|name| Field::new(name, time.clone(), true)));
    }
    if !trigger.is_default() {
        fields.extend([Field::new("pane", DataType::Int64, true), Field::new("pane_timing", DataType::Utf8, true)]);
    }
    fields.extend(aggregates.iter().map(|spec| spec.field()));
    let spec = KeptWindowSpec { window, allowed_lateness_us, trigger };
    let kind = match form {
        Form::Rows => StageKind::TriggeredAggregate { keys: vec![0], aggregates, spec },
        Form::Records => {
            let columns = vec![Field::new("k", DataType::Int64, true), Field::new("x", DataType::Int64, true)];
            let (records, compute) = (Arc::new(Schema::new(columns)), WindowCompute::Aggregates(aggregates));
            StageKind::KeptWindow { keys: vec![0], kept: vec![0, 1], records, spec, compute }
        }
    };
    crate::build(&stage(kind, fields), &context()).unwrap()
}

fn make(form: Form, window: KeptWindow, allowed_lateness_us: i64, trigger: Trigger) -> Box<dyn Operator> {
    make_of(form, window, allowed_lateness_us, trigger, aggregates())
}

/// All results of each key and window, in order; then the late records.
type Changes = BTreeMap<String, Vec<String>>;

fn drain(out: &mut Outbox, keys: usize, changes: &mut Changes) {
    while let Some(emission) = out.pop() {
        let Emission::Batch(port, batch) = emission else { continue };
        for row in 0..batch.rows() {
            let text = |column: usize| array_value_to_string(batch.column(column), row).unwrap();
            let texts: Vec<String> = (0..batch.data().num_columns()).map(text).collect();
            let time = batch.times().map_or(0, |times| times[row]);
            let key = if port == 0 { texts[..keys].join(" ") } else { format!("late {}", texts.join(" ")) };
            changes.entry(key).or_default().push(format!("{} @{time}", texts.join(" ")));
        }
    }
}

fn feed(operator: &mut dyn Operator, input: &Input, out: &mut Outbox) {
    let mut progress = match input.clone() {
        Input::Batch(batch) => operator.on_batch(0, batch, out).unwrap(),
        Input::Watermark(at) => operator.on_watermark(0, Watermark(at), out).unwrap(),
        Input::Time(now) => operator.on_time(now, out).unwrap(),
        _ => Progress::Done,
    };
    while progress == Progress::More {
        progress = operator.resume(out).unwrap();
    }
}

fn changes_of(mut operator: Box<dyn Operator>, inputs: &[Input], keys: usize) -> Changes {
    let (mut changes, mut out) = (Changes::new(), Outbox::default());
    for input in inputs {
        feed(&mut *operator, input, &mut out);
        drain(&mut out, keys, &mut changes);
    }
    let mut progress = operator.on_end(&mut out).unwrap();
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
    }
    drain(&mut out, keys, &mut changes);
    changes
}

fn triggers() -> Vec<Trigger> {
    let firings = [None, Some(Firing::Rows(1)), Some(Firing::Rows(3)), Some(Firing::Each), Some(Firing::Every(10)), Some(Firing::Every(35))];
    let all = firings.iter().flat_map(|&early| firings.iter().map(move |&late| Trigger { early, late }));
    all.filter(|trigger| !trigger.is_default()).collect()
}

#[test]
fn what_triggers_emit_is_what_they_emit_of_kept_records() {
    let (mut late, mut several) = (0, 0);
    for (round, window) in [TUMBLING, SLIDING, CUMULATIVE, KeptWindow::Global].into_iter().enumerate() {
        for (number, trigger) in triggers().into_iter().enumerate() {
            for (lateness, bound) in [(0, 10), (20, 10), (60, 0)] {
                let is_allowed = if window.is_timed() { lateness > 0 || trigger.late.is_none() } else { lateness == 0 && trigger.late.is_none() };
                if !is_allowed {
                    continue;
                }
                let mut seed = 4000 + 100 * round as u64 + number as u64;
                let (inputs, _) = stream(&mut seed, bound, 90);
                let keys = if window.is_timed() { 3 } else { 1 };
                let rows = changes_of(make(Form::Rows, window, lateness, trigger), &inputs, keys);
                let records = changes_of(make(Form::Records, window, lateness, trigger), &inputs, keys);
                assert_eq!(rows, records, "{window:?} {trigger} lateness {lateness} bound {bound}");
                late += rows.keys().filter(|key| key.starts_with("late")).count();
                several += rows.values().filter(|results| results.len() > 2).count();
            }
        }
    }
    assert!(late > 20 && several > 100, "{late} records are late, {several} windows have several results");
}

#[test]
fn windows_without_end_and_of_so_many_records_have_the_results_of_kept_records() {
    let none = Trigger::default();
    for (rows, is_partial) in [(1, false), (3, true), (3, false), (50, true)] {
        let mut seed = 500 + rows;
        let (inputs, _) = stream(&mut seed, 10, 120);
        let window = KeptWindow::Count(CountWindow { rows, slide: rows, is_partial });
        let changes = changes_of(make(Form::Rows, window, 0, none), &inputs, 1);
        assert_eq!(changes, changes_of(make(Form::Records, window, 0, none), &inputs, 1), "{rows} {is_partial}");
        check(|| make(Form::Rows, window, 0, none), &inputs, &Compare::Unordered);
    }
    let mut seed = 77;
    let (inputs, _) = stream(&mut seed, 10, 60);
    let changes = changes_of(make(Form::Rows, KeptWindow::Global, 0, none), &inputs, 1);
    assert_eq!(changes, changes_of(make(Form::Records, KeptWindow::Global, 0, none), &inputs, 1));
    check(|| make(Form::Rows, KeptWindow::Global, 0, none), &inputs, &Compare::Unordered);
}

#[test]
fn counted_results_depend_on_no_frame_and_no_restart() {
    for (early, late) in [(Some(3), Some(1)), (Some(1), None), (Some(4), Some(2)), (None, Some(2))] {
        for window in [TUMBLING, SLIDING, CUMULATIVE, KeptWindow::Global] {
            let is_timed = window.is_timed();
            let trigger = Trigger { early: early.map(Firing::Rows), late: late.filter(|_| is_timed).map(Firing::Rows) };
            if trigger.is_default() {
                continue;
            }
            let mut seed = 31;
            let (inputs, _) = stream(&mut seed, 10, 50);
            check(|| make(Form::Rows, window, if is_timed { 20 } else { 0 }, trigger), &inputs, &Compare::Unordered);
        }
    }
}

#[test]
fn other_triggers_end_with_the_same_rows_however_frames_are_cut() {
    for (early, late) in [(Firing::Each, Firing::Each), (Firing::Every(10), Firing::Each), (Firing::Each, Firing::Every(30))] {
        for window in [TUMBLING, SLIDING, CUMULATIVE] {
            let trigger = Trigger { early: Some(early), late: Some(late) };
            let mut seed = 37;
            let (inputs, _) = stream(&mut seed, 10, 50);
            // How many results there were depends on the frames.
            let without_panes = |inputs: &[Input]| {
                let changes = changes_of(make(Form::Rows, window, 20, trigger), inputs, 3);
                changes.into_values().map(|results| results.last().unwrap().split(' ').skip(5).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
            };
            let singles: Vec<Input> = inputs
                .iter()
                .flat_map(|input| match input {
                    Input::Batch(batch) => (0..batch.rows()).map(|row| Input::Batch(batch.slice(row, 1))).collect(),
                    other => vec![other.clone()],
                })
                .collect();
            assert_eq!(without_panes(&singles), without_panes(&inputs), "{window:?} {trigger}");
        }
    }
}

/// Records of these keys, all at one time.
fn at(time: i64, keys: impl Iterator<Item = i64>) -> Input {
    let keys: Vec<Option<i64>> = keys.map(Some).collect();
    let times = vec![time; keys.len()];
    Input::Batch(batch(&[("k", integers(&keys)), ("x", integers(&keys))]).with_times(Some(times.into())))
}

/// How many bytes of rows a full snapshot has.
fn state_bytes(operator: &mut dyn Operator) -> usize {
    let mut snapshot = Snapshot { is_full: true, ..Snapshot::default() };
    operator.snapshot(&mut snapshot).unwrap();
    let blocks = snapshot.blocks.make();
    blocks.iter().filter(|block| block.kind != mill_frame::block::BlockKind::Drop).map(|block| block.payload.size()).sum()
}

#[test]
fn state_grows_with_keys_and_windows_and_not_with_records() {
    let trigger = Trigger { early: Some(Firing::Rows(7)), late: None };
    for window in [TUMBLING, SLIDING, KeptWindow::Global, KeptWindow::Count(CountWindow { rows: 1000, slide: 1000, is_partial: false })] {
        let trigger = if let KeptWindow::Count(_) = window { Trigger::default() } else { trigger };
        let mut operator = make(Form::Rows, window, 0, trigger);
        let mut out = Outbox::default();
        let mut sizes = Vec::new();
        for _ in 0..20 {
            feed(&mut *operator, &at(10, 0..40), &mut out);
            while out.pop().is_some() {}
            sizes.push(state_bytes(&mut *operator));
        }
        assert!(sizes[0] > 0 && sizes.iter().all(|&size| size == sizes[0]), "{window:?}: {sizes:?}");
    }
}

#[test]
fn windows_that_are_over_and_full_leave_no_state() {
    let each = Trigger { early: Some(Firing::Each), late: Some(Firing::Rows(1)) };
    let pairs = KeptWindow::Count(CountWindow { rows: 2, slide: 2, is_partial: true });
    for (window, trigger) in [(TUMBLING, each), (SLIDING, each), (pairs, Trigger::default())] {
        let mut operator = make(Form::Rows, window, if window.is_timed() { 5 } else { 0 }, trigger);
        let (mut out, mut sizes) = (Outbox::default(), Vec::new());
        for round in 0..30i64 {
            let time = 100 * round;
            let keys = round * 500..round * 500 + 500;
            for input in [at(time, keys.clone()), Input::Watermark(time + 40), at(time + 38, keys), Input::Watermark(time + 90)] {
                feed(&mut *operator, &input, &mut out);
            }
            while out.pop().is_some() {}
            sizes.push(state_bytes(&mut *operator));
        }
        // Of a key group with rows a small chunk stays.
        assert!(sizes.iter().all(|&size| size <= sizes[0] * 2), "{window:?}: {sizes:?}");
        let transcript = changes_of(operator, &[], 1);
        assert!(transcript.is_empty(), "{window:?}: {transcript:?}");
    }
}

#[test]
fn a_window_whose_first_record_is_late_begins_with_the_result_of_its_end() {
    for late in [Firing::Rows(1), Firing::Rows(2), Firing::Each, Firing::Every(10)] {
        for form in [Form::Rows, Form::Records] {
            let trigger = Trigger { early: None, late: Some(late) };
            let inputs = [Input::Watermark(100), at(10, [1].into_iter()), Input::Watermark(101), at(11, [1, 1].into_iter()), Input::Time(5)];
            let inputs: Vec<Input> = inputs.into_iter().chain([Input::Time(20)]).collect();
            let changes = changes_of(make(form, TUMBLING, 1000, trigger), &inputs, 3);
            let results: Vec<String> = changes.into_values().flatten().collect();
            let timings: Vec<&str> = results.iter().map(|result| result.split(' ').nth(4).unwrap()).collect();
            let expected: &[&str] = if late == Firing::Rows(1) { &["on_time", "late", "late"] } else { &["on_time", "late"] };
            assert_eq!(timings, expected, "{late:?}");
        }
    }
}

#[test]
fn each_trigger_fires_for_its_own_time_alone() {
    // A trigger after each batch for late records once fired the windows that wait for processing time too.
    for form in [Form::Rows, Form::Records] {
        let trigger = Trigger { early: Some(Firing::Every(1000)), late: Some(Firing::Each) };
        let inputs = [Input::Time(1), at(100, [1].into_iter()), at(101, [1].into_iter()), Input::Time(500), at(102, [1].into_iter())];
        let mut operator = make(form, TUMBLING, 50, trigger);
        let (mut changes, mut out) = (Changes::new(), Outbox::default());
        for input in &inputs {
            feed(&mut *operator, input, &mut out);
            drain(&mut out, 3, &mut changes);
        }
        assert!(changes.is_empty(), "{changes:?}");
        feed(&mut *operator, &Input::Time(1000), &mut out);
        drain(&mut out, 3, &mut changes);
        assert_eq!(changes.into_values().map(|results| results.len()).collect::<Vec<_>>(), [1]);
    }
}

#[test]
fn sums_that_leave_their_range_are_counted_row_by_row() {
    let sum = vec![spec(AggregateKind::Sum, Some((1, DataType::Int64)), None)];
    let trigger = Trigger { early: Some(Firing::Rows(2)), late: None };
    let values = [Some(i64::MAX), Some(5), Some(-10), Some(3), Some(-7)];
    let records = batch(&[("k", integers(&[Some(1); 5])), ("x", integers(&values))]).with_times(Some(vec![10; 5].into()));
    let mut operator = make_of(Form::Rows, TUMBLING, 0, trigger, sum.clone());
    let mut out = Outbox::default();
    feed(&mut *operator, &Input::Batch(records), &mut out);
    feed(&mut *operator, &Input::Watermark(1000), &mut out);
    let mut sums = Vec::new();
    while let Some(emission) = out.pop() {
        let Emission::Batch(0, batch) = emission else { continue };
        sums.extend(batch.column(5).as_primitive::<Int64Type>().iter().flatten());
    }
    // The first result, of two records, does not fit; the others do.
    assert_eq!(sums, [i64::MAX - 2, i64::MAX - 9]);
    assert_eq!(out.take_rejected().len(), 1);
}

#[test]
fn state_of_kept_records_is_refused_and_not_misread() {
    let trigger = Trigger { early: Some(Firing::Rows(2)), late: None };
    let mut kept = make(Form::Records, TUMBLING, 0, trigger);
    let mut out = Outbox::default();
    feed(&mut *kept, &at(10, 0..5), &mut out);
    let mut snapshot = Snapshot { is_full: true, ..Snapshot::default() };
    kept.snapshot(&mut snapshot).unwrap();
    let restored = Restored { bytes: snapshot.bytes.into_iter().map(Into::into).collect(), blocks: Vec::new(), has_other_parts: false };
    let error = make(Form::Rows, TUMBLING, 0, trigger).restore(&restored).unwrap_err();
    assert!(error.to_string().contains("kept their records when the checkpoint was written"), "{error}");
}
