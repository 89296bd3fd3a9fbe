use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use mill_plan::{AggregateKind, AggregateSpec, StageKind, Window};
use mill_protocol::testkit::{batch, integers};
use mill_protocol::{Batch, Emission, Epoch, Operator, Outbox, Progress};
use arrow::datatypes::Field;

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
    let kind = StageKind::PartialAggregate { keys: vec![0], aggregates: specs(), window, allowed_lateness_us: 0 };
    crate::build(&stage(kind, fields), &context()).unwrap()
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
            let progress = operator.on_batch(frame(4096, keys, &mut seed), &mut out).unwrap();
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
    let _ = operator.on_batch(frame(10, 3, &mut seed), &mut out).unwrap();
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
        let progress = operator.on_batch(records_in, &mut out).unwrap();
        let (r, n) = drain(operator.as_mut(), progress, &mut out, 2);
        rows += r;
        records += n;
    }
    let progress = operator.on_end(&mut out).unwrap();
    let (r, n) = drain(operator.as_mut(), progress, &mut out, 2);
    assert_eq!(records + n, 60 * 4096);
    assert!(rows > r, "most went out at once");
}
