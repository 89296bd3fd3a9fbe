use arrow::datatypes::{DataType, Field, TimeUnit};
use mill_plan::{AggregateKind, SessionGap, StageKind};
use mill_protocol::testkit::{Compare, Input, batch, check, integers};
use mill_protocol::{Operator, Outbox, Progress, Watermark};

use super::*;
use crate::accumulator::tests::{random, spec, stage};
use crate::fixture::context;
use crate::kept_windows::tests::{sessions, stream};

fn make(gap: SessionGap, allowed_lateness_us: i64) -> Box<dyn Operator> {
    make_in(TimeUnit::Microsecond, gap, allowed_lateness_us)
}

/// With bounds in this unit.
fn make_in(unit: TimeUnit, gap: SessionGap, allowed_lateness_us: i64) -> Box<dyn Operator> {
    let aggregates = vec![
        spec(AggregateKind::Count, None, None),
        spec(AggregateKind::Sum, Some((1, DataType::Int64)), None),
        spec(AggregateKind::Max, Some((1, DataType::Int64)), None),
    ];
    let time = DataType::Timestamp(unit, None);
    let mut fields = vec![Field::new("k", DataType::Int64, true)];
    fields.extend(["window_start", "window_end"].map(|name| Field::new(name, time.clone(), true)));
    fields.extend(aggregates.iter().map(|spec| spec.field()));
    let kind = StageKind::SessionAggregate { keys: vec![0], aggregates, gap, allowed_lateness_us };
    crate::build(&stage(kind, fields), &context()).unwrap()
}

/// `key count sum max @time` of each result, sorted.
fn results(rows: &[String]) -> Vec<String> {
    let line = |line: &str| {
        let parts: Vec<&str> = line.split(" @").next().unwrap().split(", ").collect();
        format!("{} {} {} {} @{}", parts[0], parts[3], parts[4], parts[5], line.rsplit('@').next().unwrap())
    };
    let mut found: Vec<String> = rows.iter().filter_map(|row| row.strip_prefix("0: ")).map(line).collect();
    found.sort();
    found
}

#[test]
fn sessions_are_those_of_the_definition() {
    let mut late = 0;
    let rounds = [(12, 0, 40), (12, 0, 10), (30, 0, 5), (5, 20, 10), (12, 7, 0), (1, 0, 40), (16, 3, 200), (400, 0, 20)];
    for (round, (gap, lateness, bound)) in rounds.into_iter().enumerate() {
        for seed in 0..4 {
            let mut seed = 7000 + 10 * round as u64 + seed;
            let (inputs, all) = stream(&mut seed, bound, 60);
            let transcript = check(|| make(SessionGap::Fixed(gap), lateness), &inputs, &Compare::Unordered);
            let expected = sessions(&all, gap, lateness);
            let line = |(key, _, end, values): &(i64, i64, i64, Vec<i64>)| {
                let (sum, max) = (values.iter().sum::<i64>(), values.iter().max().unwrap());
                format!("{key} {} {sum} {max} @{}", values.len(), end - 1)
            };
            let mut lines: Vec<String> = expected.iter().map(line).collect();
            lines.sort();
            assert_eq!(results(&transcript.rows), lines, "gap {gap}, lateness {lateness}, bound {bound}");
            let taken: usize = expected.iter().map(|(.., values)| values.len()).sum();
            assert_eq!(transcript.late as usize, all.len() - taken);
            late += transcript.late;
        }
    }
    assert!(late > 20, "some records should be late, found {late}");
}

/// Records in any order, each far from or near to those before, so that many join sessions that there are.
#[test]
fn sessions_that_become_one_are_added_up() {
    for round in 0..40 {
        let mut seed = 500 + round;
        let (keys, span) = (1 + random(&mut seed) % 3, 40 + random(&mut seed) % 400);
        let (mut inputs, mut all) = (Vec::new(), Vec::new());
        for _ in 0..12 {
            let rows = 1 + random(&mut seed) as usize % 9;
            let drawn: Vec<(i64, i64, i64)> = (0..rows)
                .map(|_| ((random(&mut seed) % keys) as i64, (random(&mut seed) % 9) as i64, (random(&mut seed) % span) as i64))
                .collect();
            all.extend(drawn.iter().map(|&(key, value, time)| (key, value, time, i64::MIN)));
            let column = |of: fn(&(i64, i64, i64)) -> i64| integers(&drawn.iter().map(|row| Some(of(row))).collect::<Vec<_>>());
            let times: Vec<i64> = drawn.iter().map(|row| row.2).collect();
            inputs.push(Input::Batch(batch(&[("k", column(|row| row.0)), ("x", column(|row| row.1))]).with_times(Some(times.into()))));
            inputs.push(Input::Barrier);
        }
        let gap = 1 + (random(&mut seed) % 30) as i64;
        let transcript = check(|| make(SessionGap::Fixed(gap), 0), &inputs, &Compare::Unordered);
        let expected = sessions(&all, gap, 0);
        let total: usize = expected.iter().map(|(.., values)| values.len()).sum();
        assert_eq!(total, all.len());
        let found: Vec<String> = results(&transcript.rows);
        let mut lines: Vec<String> = (expected.iter())
            .map(|(key, _, end, values)| {
                format!("{key} {} {} {} @{}", values.len(), values.iter().sum::<i64>(), values.iter().max().unwrap(), end - 1)
            })
            .collect();
        lines.sort();
        assert_eq!(found, lines, "round {round}, gap {gap}");
    }
}

#[test]
fn a_session_that_would_end_after_the_last_nanosecond_is_an_error_of_its_record() {
    let last = i64::MAX / 1000;
    let times = [0, last - 12, -last, last, last - 13, last - 100];
    let gaps: ArrayRef = Arc::new(arrow::array::DurationMicrosecondArray::from(vec![12, 12, 12, 1, 12, 101]));
    let numbers = integers(&(0..6).map(Some).collect::<Vec<_>>());
    let records = batch(&[("k", numbers.clone()), ("x", numbers), ("gap", gaps)]).with_times(Some(times.to_vec().into()));
    for (gap, is_kept) in [(SessionGap::Fixed(12), [0, 4, 5].as_slice()), (SessionGap::Column(2), [0, 1, 4].as_slice())] {
        let make = || make_in(TimeUnit::Nanosecond, gap, 0);
        let transcript = check(make, &[Input::Batch(records.clone())], &Compare::Unordered);
        let mut keys: Vec<i64> = transcript.rows.iter().map(|row| row[3..4].parse().unwrap()).collect();
        keys.sort_unstable();
        let rejected: Vec<&String> = transcript.rejected.iter().collect();
        assert_eq!((keys.as_slice(), rejected.len()), (is_kept, 6 - is_kept.len()), "{gap:?}: {rejected:?}");
    }
}

#[test]
fn sessions_that_are_not_over_when_they_are_asked_for_are_asked_for_some_at_a_time() {
    let mut operator = make(SessionGap::Fixed(1600), 0);
    let mut out = Outbox::default();
    let count = 3 * EMIT_ROWS as i64;
    let keys: Vec<Option<i64>> = (0..count).map(Some).collect();
    for at in [0, 1500] {
        let records =
            batch(&[("k", integers(&keys)), ("x", integers(&keys))]).with_times(Some(vec![at; count as usize].into()));
        assert_eq!(operator.on_batch(0, records, &mut out).unwrap(), Progress::Done);
    }
    let mut progress = operator.on_watermark(0, Watermark(2000), &mut out).unwrap();
    let mut turns = 1;
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
        turns += 1;
    }
    assert!(out.pop().is_none(), "no session is over");
    assert!(turns > 3, "{count} sessions are asked for in {turns} turns");
}

#[test]
fn sessions_that_are_over_leave_no_state() {
    let mut operator = make(SessionGap::Fixed(10), 0);
    let mut out = Outbox::default();
    for round in 0..50i64 {
        let keys: Vec<Option<i64>> = (0..500).map(|key| Some(key / 2 + round * 500)).collect();
        // Two sessions a key, of which the first is there when the second begins.
        let times: Vec<i64> = (0..500).map(|row| round * 100 + row % 2 * 20).collect();
        let records = batch(&[("k", integers(&keys)), ("x", integers(&keys))]).with_times(Some(times.into()));
        for is_watermark in [false, true] {
            let mut progress = match is_watermark {
                false => operator.on_batch(0, records.clone(), &mut out).unwrap(),
                true => operator.on_watermark(0, Watermark(round * 100 + 50), &mut out).unwrap(),
            };
            while progress == Progress::More {
                progress = operator.resume(&mut out).unwrap();
            }
        }
        let mut rows = 0;
        while let Some(emission) = out.pop() {
            if let mill_protocol::Emission::Batch(0, batch) = emission {
                rows += batch.rows();
            }
        }
        assert_eq!(rows, 500);
    }
    let mut snapshot = Snapshot::default();
    operator.snapshot(&mut snapshot).unwrap();
    let full = snapshot.blocks.make().iter().filter(|block| block.kind != mill_frame::block::BlockKind::Drop).count();
    assert!(full <= 128, "at most an empty chunk a key group, found {full} blocks");
}
