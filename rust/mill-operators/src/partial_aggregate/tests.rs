use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use mill_plan::{AggregateKind, AggregateSpec, StageKind, Window, WindowSpec};
use mill_protocol::testkit::{batch, integers};
use mill_protocol::{Batch, Emission, Epoch, Operator, Outbox, Progress, Watermark};
use arrow::datatypes::Field;
use proptest::prelude::*;

use super::{HELD_ROWS_MAX, WAIT_US};
use crate::accumulator::tests::{random, spec, stage};
use crate::fixture::context;

fn specs() -> Vec<AggregateSpec> {
    vec![
        spec(AggregateKind::Count, None, None),
        spec(AggregateKind::Sum, Some((1, DataType::Int64)), None),
        spec(AggregateKind::Var, Some((1, DataType::Float64)), None),
    ]
}

fn partial(window: Option<Window>) -> Box<dyn Operator> {
    let mut fields: Vec<Field> = Vec::new();
    fields.extend(window.map(|_| Field::new("window_start", DataType::Int64, false)));
    fields.push(Field::new("k", DataType::Int64, true));
    fields.extend(specs().iter().flat_map(AggregateSpec::partial_fields));
    let kind = StageKind::PartialAggregate {
        keys: vec![0],
        aggregates: specs(),
        window: window.map(|window| WindowSpec::new(window, 0)),
        bound_type: window.map(|_| DataType::Timestamp(TimeUnit::Microsecond, None)),
    };
    crate::build(&stage(kind, fields), &context()).unwrap()
}

#[test]
fn a_window_beyond_the_last_nanosecond_is_an_error_of_its_record() {
    let window = WindowSpec::new(Window::Tumbling { size_us: 100, offset_us: 0 }, 0);
    let mut fields = vec![Field::new("window_start", DataType::Int64, false), Field::new("k", DataType::Int64, true)];
    fields.extend(specs().iter().flat_map(AggregateSpec::partial_fields));
    let bound_type = Some(DataType::Timestamp(TimeUnit::Nanosecond, None));
    let kind = StageKind::PartialAggregate { keys: vec![0], aggregates: specs(), window: Some(window), bound_type };
    let mut operator = crate::build(&stage(kind, fields), &context()).unwrap();
    let last = i64::MAX / 1000;
    let numbers = integers(&[Some(1), Some(2), Some(3), Some(4)]);
    let records = batch(&[("k", numbers.clone()), ("x", numbers)]).with_times(Some(vec![0, last, -last, last - 300].into()));
    let mut out = Outbox::default();
    let progress = operator.on_batch(0, records, &mut out).unwrap();
    let rejected = out.take_rejected();
    assert_eq!(rejected.len(), 2, "{rejected:?}");
    assert!(rejected[0].error.contains("cast the event time to mill.Timestamp(\"us\")"), "{rejected:?}");
    assert_eq!(progress, Progress::Done);
}

fn frame(rows: usize, keys: u64, seed: &mut u64) -> Batch {
    let mut ints = |of: u64| integers(&(0..rows).map(|_| Some((random(seed) % of) as i64)).collect::<Vec<_>>());
    batch(&[("k", ints(keys)), ("x", ints(100))])
}

/// Rows that came out, and the records they stand for.
fn drain(operator: &mut dyn Operator, mut progress: Progress, out: &mut Outbox, count: usize) -> (usize, i64) {
    let (mut rows, mut records) = (0, 0);
    loop {
        while let Some(Emission::Batch(0, batch)) = out.pop() {
            rows += batch.rows();
            records += batch.column(count).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        }
        if progress == Progress::Done {
            return (rows, records);
        }
        progress = operator.resume(out).unwrap();
    }
}

#[test]
fn few_keys_are_combined_and_many_are_passed_on() {
    for (keys, is_combined) in [(500, true), (u64::MAX / 2, false)] {
        let (mut seed, mut out) = (9, Outbox::default());
        let mut operator = partial(None);
        let (mut rows, mut records) = (0, 0);
        for _ in 0..100 {
            let progress = operator.on_batch(0, frame(4096, keys, &mut seed), &mut out).unwrap();
            let (r, n) = drain(operator.as_mut(), progress, &mut out, 1);
            rows += r;
            records += n;
        }
        if is_combined {
            assert_eq!(rows, 0, "nothing goes out before it must");
        } else {
            assert!(rows > 409_600 - 4096 - HELD_ROWS_MAX);
        }
        let progress = operator.on_barrier(Epoch(1), &mut out).unwrap();
        let (r, n) = drain(operator.as_mut(), progress, &mut out, 1);
        assert_eq!(records + n, 409_600);
        assert_eq!(rows + r == 500, is_combined);
    }
}

#[test]
fn results_wait_a_moment_and_no_longer() {
    let (mut seed, mut out) = (10, Outbox::default());
    let mut operator = partial(None);
    assert_eq!(operator.next_time(), None);
    let _ = operator.on_batch(0, frame(10, 3, &mut seed), &mut out).unwrap();
    assert_eq!(operator.next_time(), Some(i64::MIN));
    let _ = operator.on_time(1000, &mut out).unwrap();
    assert_eq!(operator.next_time(), Some(1000 + WAIT_US));
    let progress = operator.on_time(1000 + WAIT_US, &mut out).unwrap();
    assert_eq!(drain(operator.as_mut(), progress, &mut out, 1), (3, 10));
    assert_eq!(operator.next_time(), None);
}

#[test]
fn windows_pass_on_too_when_keys_are_many() {
    let (mut seed, mut out) = (11, Outbox::default());
    let mut operator = partial(Some(Window::Tumbling { size_us: 100, offset_us: 0 }));
    let (mut rows, mut records) = (0, 0);
    for round in 0..60i64 {
        let times = (0..4096).map(|row| round * 150 + row % 200).collect();
        let records_in = frame(4096, 1 << 40, &mut seed).with_times(Some(times));
        let progress = operator.on_batch(0, records_in, &mut out).unwrap();
        let (r, n) = drain(operator.as_mut(), progress, &mut out, 2);
        rows += r;
        records += n;
    }
    let progress = operator.on_end(&mut out).unwrap();
    let (r, n) = drain(operator.as_mut(), progress, &mut out, 2);
    assert_eq!(records + n, 60 * 4096);
    assert!(rows > r, "most went out at once");
}

/// Windows of a thousand records leave with the next watermark, so there are never too many rows.
#[test]
fn windows_that_are_complete_soon_are_combined_only_where_that_pays() {
    for (keys, is_combined) in [(20, true), (2_000, false)] {
        let (mut seed, mut out) = (12, Outbox::default());
        let mut operator = partial(Some(Window::Tumbling { size_us: 1000, offset_us: 0 }));
        let (mut rows, mut records) = (Vec::new(), 0);
        for round in 0..40i64 {
            let times = (0..4096).map(|row| round * 4096 + row).collect();
            let progress = operator.on_batch(0, frame(4096, keys, &mut seed).with_times(Some(times)), &mut out).unwrap();
            let (r, n) = drain(operator.as_mut(), progress, &mut out, 2);
            let progress = operator.on_watermark(0, Watermark(round * 4096 + 4095), &mut out).unwrap();
            let (later, more) = drain(operator.as_mut(), progress, &mut out, 2);
            rows.push(r + later);
            records += n + more;
        }
        let progress = operator.on_end(&mut out).unwrap();
        records += drain(operator.as_mut(), progress, &mut out, 2).1;
        assert_eq!(records, 40 * 4096);
        let last = rows[20..].iter().max().unwrap();
        assert!(if is_combined { *last < 200 } else { *last == 4096 }, "{rows:?}");
    }
}

/// What came out by window and key: how many records, and the sum of their values.
fn totals(operator: &mut dyn Operator, mut progress: Progress, out: &mut Outbox, found: &mut BTreeMap<(i64, Option<i64>), (i64, i64)>) {
    loop {
        while let Some(Emission::Batch(port, batch)) = out.pop() {
            assert_eq!(port, 0, "none is late");
            let columns: Vec<_> = (0..4).map(|column| batch.column(column).as_primitive::<Int64Type>()).collect();
            for row in 0..batch.rows() {
                let key = columns[1].is_valid(row).then(|| columns[1].value(row));
                let total = found.entry((columns[0].value(row), key)).or_default();
                total.0 += columns[2].value(row);
                total.1 += columns[3].value(row);
            }
        }
        if progress == Progress::Done {
            return;
        }
        progress = operator.resume(out).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Numbers near each other, far apart, in several ranges at once, null among them, large frames and small ones.
    #[test]
    fn what_goes_out_adds_up_to_what_came_in(
        frames in prop::collection::vec(
            (
                prop_oneof![Just(0), Just(1 << 40), Just(i64::MIN), Just(i64::MAX - (1 << 20)), any::<i64>(), -70_000i64..70_000],
                prop_oneof![Just(1i64), 1i64..100, 1i64..5_000, Just(60_000), Just(1 << 20)],
                prop_oneof![1usize..40, Just(2048), Just(8192)],
                prop_oneof![4 => Just(false), 1 => Just(true)],
                1i64..500,
            ),
            1..30,
        ),
        barrier_each in 1usize..20,
        seed in any::<u64>(),
    ) {
        let mut seed = seed | 1;
        let (mut out, mut found, mut expected) = (Outbox::default(), BTreeMap::new(), BTreeMap::new());
        let mut operator = partial(Some(Window::Tumbling { size_us: 100, offset_us: 0 }));
        for (number, (low, width, rows, has_nulls, spread)) in frames.into_iter().enumerate() {
            let low = low.min(i64::MAX - width);
            let keys: Vec<Option<i64>> = (0..rows)
                .map(|row| (!has_nulls || row % 7 > 0).then(|| low + (random(&mut seed) % width as u64) as i64))
                .collect();
            let values: Vec<Option<i64>> = (0..rows).map(|_| Some((random(&mut seed) % 1000) as i64)).collect();
            let times: Vec<i64> = (0..rows).map(|_| number as i64 * 20 + (random(&mut seed) % spread as u64) as i64).collect();
            for ((key, value), time) in keys.iter().zip(&values).zip(&times) {
                let total: &mut (i64, i64) = expected.entry((time.div_euclid(100) * 100, *key)).or_default();
                total.0 += 1;
                total.1 += value.unwrap();
            }
            let frame = batch(&[("k", integers(&keys)), ("x", integers(&values))]).with_times(Some(times.into()));
            let progress = operator.on_batch(0, frame, &mut out).unwrap();
            totals(operator.as_mut(), progress, &mut out, &mut found);
            if number % barrier_each == 0 {
                let progress = operator.on_barrier(Epoch(1), &mut out).unwrap();
                totals(operator.as_mut(), progress, &mut out, &mut found);
            }
            if number % 3 == 2 {
                let progress = operator.on_watermark(0, Watermark(number as i64 * 20), &mut out).unwrap();
                totals(operator.as_mut(), progress, &mut out, &mut found);
            }
        }
        let progress = operator.on_end(&mut out).unwrap();
        totals(operator.as_mut(), progress, &mut out, &mut found);
        prop_assert_eq!(found, expected);
    }
}

/// A partial aggregate by a text and a number.
fn partial_by_two(window: Option<Window>) -> Box<dyn Operator> {
    let mut fields: Vec<Field> = Vec::new();
    fields.extend(window.map(|_| Field::new("window_start", DataType::Int64, false)));
    fields.push(Field::new("name", DataType::Utf8, true));
    fields.push(Field::new("k", DataType::Int64, true));
    let specs = vec![spec(AggregateKind::Count, None, None), spec(AggregateKind::Sum, Some((2, DataType::Int64)), None)];
    fields.extend(specs.iter().flat_map(AggregateSpec::partial_fields));
    let kind = StageKind::PartialAggregate {
        keys: vec![0, 1],
        aggregates: specs,
        window: window.map(|window| WindowSpec::new(window, 0)),
        bound_type: window.map(|_| DataType::Timestamp(TimeUnit::Microsecond, None)),
    };
    crate::build(&stage(kind, fields), &context()).unwrap()
}

/// A record: its key, which is a text and a number, and its value.
type Named = (Option<String>, Option<i64>, i64);

fn named(records: &[Named]) -> Batch {
    let names: StringArray = records.iter().map(|(name, ..)| name.clone()).collect();
    let numbers = |of: fn(&Named) -> Option<i64>| integers(&records.iter().map(of).collect::<Vec<_>>());
    batch(&[("name", Arc::new(names)), ("k", numbers(|record| record.1)), ("x", numbers(|record| Some(record.2)))])
}

/// What came out by key: how many records, and the sum of their values; and in how many rows.
fn named_totals(
    operator: &mut dyn Operator,
    mut progress: Progress,
    out: &mut Outbox,
    found: &mut BTreeMap<(i64, Option<String>, Option<i64>), (i64, i64)>,
) -> usize {
    let mut rows = 0;
    loop {
        while let Some(Emission::Batch(port, batch)) = out.pop() {
            assert_eq!(port, 0, "none is late");
            let names = batch.column(1).as_string::<i32>();
            let [starts, keys, counts, sums] = [0, 2, 3, 4].map(|column| batch.column(column).as_primitive::<Int64Type>().clone());
            rows += batch.rows();
            for row in 0..batch.rows() {
                let name = names.is_valid(row).then(|| names.value(row).to_owned());
                let total = found.entry((starts.value(row), name, keys.is_valid(row).then(|| keys.value(row)))).or_default();
                total.0 += counts.value(row);
                total.1 += sums.value(row);
            }
        }
        if progress == Progress::Done {
            return rows;
        }
        progress = operator.resume(out).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Few values and many, new ones in every frame, long texts and null among them, large frames and small ones, several windows.
    #[test]
    fn keys_of_two_columns_add_up(
        frames in prop::collection::vec(
            (
                prop_oneof![Just(3u64), Just(90), Just(400), Just(6_000)],
                prop_oneof![Just(1u64), Just(24), Just(300)],
                0u64..3,
                prop_oneof![1usize..40, Just(1500), Just(6000)],
                1i64..900,
            ),
            1..16,
        ),
        barrier_each in 1usize..12,
        seed in any::<u64>(),
    ) {
        let mut seed = seed | 1;
        let (mut out, mut found, mut expected) = (Outbox::default(), BTreeMap::new(), BTreeMap::new());
        let mut operator = partial_by_two(Some(Window::Tumbling { size_us: 100, offset_us: 0 }));
        for (number, (names, numbers, shift, rows, spread)) in frames.into_iter().enumerate() {
            let mut records = Vec::with_capacity(rows);
            let mut times = Vec::with_capacity(rows);
            for _ in 0..rows {
                let name = shift * number as u64 * 7 + random(&mut seed) % names;
                let name = if name % 5 == 0 { format!("{name} and so on and on") } else { format!("n{name}") };
                let is_null = random(&mut seed) % 50;
                let key = (random(&mut seed) % numbers) as i64 * 1_000_003 - 5;
                let record: Named = ((is_null > 0).then_some(name), (is_null != 1).then_some(key), (random(&mut seed) % 1000) as i64);
                let time = number as i64 * 20 + (random(&mut seed) % spread as u64) as i64;
                let total: &mut (i64, i64) =
                    expected.entry((time.div_euclid(100) * 100, record.0.clone(), record.1)).or_default();
                total.0 += 1;
                total.1 += record.2;
                records.push(record);
                times.push(time);
            }
            let progress = operator.on_batch(0, named(&records).with_times(Some(times.into())), &mut out).unwrap();
            named_totals(operator.as_mut(), progress, &mut out, &mut found);
            if number % barrier_each == 0 {
                let progress = operator.on_barrier(Epoch(1), &mut out).unwrap();
                named_totals(operator.as_mut(), progress, &mut out, &mut found);
            }
            if number % 3 == 2 {
                let progress = operator.on_watermark(0, Watermark(number as i64 * 20), &mut out).unwrap();
                named_totals(operator.as_mut(), progress, &mut out, &mut found);
            }
        }
        let progress = operator.on_end(&mut out).unwrap();
        named_totals(operator.as_mut(), progress, &mut out, &mut found);
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn keys_of_two_columns_whose_values_come_and_go_are_combined() {
    const ROUNDS: u64 = 300;
    let (mut seed, mut out, mut found) = (13, Outbox::default(), BTreeMap::new());
    let mut operator = partial_by_two(Some(Window::Tumbling { size_us: 1 << 40, offset_us: 0 }));
    let mut rows = 0;
    for round in 0..ROUNDS {
        let records: Vec<Named> = (0..8192)
            .map(|_| (Some(format!("n{}", round * 40 + random(&mut seed) % 200)), Some((random(&mut seed) % 3) as i64), 1))
            .collect();
        let frame = named(&records).with_times(Some(vec![round as i64; 8192].into()));
        let progress = operator.on_batch(0, frame, &mut out).unwrap();
        rows += named_totals(operator.as_mut(), progress, &mut out, &mut found);
        if round % 20 == 19 {
            let progress = operator.on_barrier(Epoch(round), &mut out).unwrap();
            rows += named_totals(operator.as_mut(), progress, &mut out, &mut found);
        }
    }
    let progress = operator.on_end(&mut out).unwrap();
    rows += named_totals(operator.as_mut(), progress, &mut out, &mut found);
    assert_eq!(found.values().map(|total| total.0).sum::<i64>(), ROUNDS as i64 * 8192);
    assert!((rows as u64) < ROUNDS * 8192 / 8, "{rows} rows went out");
}

#[test]
fn keys_that_move_are_combined_and_go_out_meanwhile() {
    const ROUNDS: i64 = 200;
    let (mut seed, mut out) = (12, Outbox::default());
    let mut operator = partial(Some(Window::Tumbling { size_us: 1 << 40, offset_us: 0 }));
    let (mut rows, mut records) = (0, 0);
    for round in 0..ROUNDS {
        let keys: Vec<Option<i64>> =
            (0..8192).map(|row| Some(round * 3000 + row / 16 - (random(&mut seed) % 100) as i64)).collect();
        let frame = batch(&[("k", integers(&keys)), ("x", integers(&keys))]).with_times(Some(vec![round; 8192].into()));
        let progress = operator.on_batch(0, frame, &mut out).unwrap();
        let (r, n) = drain(operator.as_mut(), progress, &mut out, 2);
        rows += r;
        records += n;
    }
    assert!(rows > 1 << 15, "{rows} rows went out, though the keys behind are not coming back");
    let progress = operator.on_end(&mut out).unwrap();
    let (r, n) = drain(operator.as_mut(), progress, &mut out, 2);
    assert_eq!(records + n, ROUNDS * 8192);
    assert!(((rows + r) as i64) < ROUNDS * 8192 / 8, "a key has some 13 records, and {} rows went out", rows + r);
}
