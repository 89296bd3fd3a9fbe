use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_plan::{How, JoinedColumn, LookupKind, LookupPlan};
use mill_protocol::testkit::{Compare, Input, batch, check_inputs, integers};
use mill_protocol::{Emission, Operator, Outbox, Progress};

use super::AsofJoin;
use crate::accumulator::tests::random;
use crate::fixture::context;

/// A record: key, value, time, and the watermark of its split when it was read.
type Known = (Option<i64>, i64, i64, i64);

fn schema(value: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new(value, DataType::Int64, true)]))
}

fn make(how: How, tolerance_us: Option<i64>) -> Box<dyn Operator> {
    let columns =
        vec![JoinedColumn::Key { left: 0, right: 0 }, JoinedColumn::Left(1), JoinedColumn::Right(1), JoinedColumn::Right(0)];
    let fields = ["k", "x", "y", "k_right"].map(|name| Field::new(name, DataType::Int64, true));
    let result: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
    let plan = LookupPlan {
        kind: LookupKind::Asof { tolerance_us },
        how,
        keys: [vec![0], vec![0]],
        inputs: [schema("x"), schema("y")],
        own: [2, 2],
        columns,
        on: "k".to_owned(),
    };
    Box::new(AsofJoin::new(&result, &context(), &plan, tolerance_us).unwrap())
}

fn stream(seed: &mut u64, value: &str, rows: usize, bound: i64) -> (Vec<Input>, Vec<Known>) {
    let (mut inputs, mut all) = (Vec::new(), Vec::new());
    let (mut now, mut latest) = (-50i64, i64::MIN);
    let mut left = rows;
    while left > 0 {
        let count = (1 + random(seed) as usize % 6).min(left);
        left -= count;
        let (mut keys, mut values, mut times, mut behind) = (vec![], vec![], vec![], vec![]);
        for _ in 0..count {
            now += (random(seed) % 8) as i64;
            let time = now - (random(seed) % 25) as i64;
            let watermark = latest.saturating_sub(bound);
            latest = latest.max(time);
            let key = Some((random(seed) % 4) as i64).filter(|&key| key < 3);
            let number = all.len() as i64;
            all.push((key, number, time, watermark));
            keys.push(key);
            values.push(Some(number));
            times.push(time);
            behind.push(watermark);
        }
        let is_behind = times.iter().zip(&behind).any(|(time, behind)| behind > time);
        let records = batch(&[("k", integers(&keys)), (value, integers(&values))])
            .with_times(Some(times.into()))
            .with_behind(is_behind.then(|| behind.into()));
        inputs.extend([Input::Batch(records), Input::Watermark(latest - bound)]);
        if random(seed).is_multiple_of(5) {
            inputs.push(Input::Barrier);
        }
    }
    (inputs, all)
}

/// The answers by the definition: of every left record on its own, from all right records.
fn answers(left: &[Known], right: &[Known], how: How, tolerance: Option<i64>) -> (Vec<String>, usize) {
    let mut lines = Vec::new();
    let shown = |key: Option<i64>| key.map_or("null".to_owned(), |key| key.to_string());
    for &(key, x, time, watermark) in left {
        if time < watermark {
            continue;
        }
        let mut best: Option<(i64, i64)> = None;
        for &(other, y, at, watermark) in right {
            let is_match = key.is_some() && other == key && at <= time && tolerance.is_none_or(|tolerance| time - at <= tolerance);
            if is_match && at >= watermark && best.is_none_or(|(best, _)| at >= best) {
                best = Some((at, y));
            }
        }
        match best {
            Some((_, y)) => lines.push(format!("0: {}, {x}, {y}, {} @{time}", shown(key), shown(key))),
            None if how == How::Left => lines.push(format!("0: {}, {x}, null, null @{time}", shown(key))),
            None => {}
        }
    }
    lines.sort();
    let late = left.iter().chain(right).filter(|(_, _, time, watermark)| time < watermark).count();
    (lines, late)
}

#[test]
fn answers_are_those_of_the_definition_in_any_order() {
    let mut late_rows = 0;
    for round in 0..6_u64 {
        let mut seed = 77 + round * 1001;
        let bound = [30, 8, 0][round as usize % 3];
        let (left, all_left) = stream(&mut seed, "x", 30, bound);
        let (right, all_right) = stream(&mut seed, "y", 30, bound);
        let how = if round % 2 == 0 { How::Left } else { How::Inner };
        let tolerance = [None, Some(12), Some(0)][(round / 2) as usize % 3];
        let transcript = check_inputs(|| make(how, tolerance), &[&left, &right], &Compare::Unordered);
        let (expected, late) = answers(&all_left, &all_right, how, tolerance);
        let results: Vec<&String> = transcript.rows.iter().filter(|line| line.starts_with("0:")).collect();
        assert_eq!(results, expected.iter().collect::<Vec<_>>(), "round {round}");
        assert_eq!(transcript.late as usize, late, "round {round}");
        assert_eq!(transcript.rows.len(), expected.len() + late, "late records of both sides come out as they came");
        late_rows += late;
    }
    assert!(late_rows > 10, "streams without late records show little: {late_rows}");
}

#[test]
fn versions_that_nobody_can_ask_for_are_dropped() {
    let mut operator = super::AsofJoin::new(
        &schema("x"),
        &context(),
        &LookupPlan {
            kind: LookupKind::Asof { tolerance_us: Some(5_000) },
            how: How::Inner,
            keys: [vec![0], vec![0]],
            inputs: [schema("x"), schema("y")],
            own: [2, 2],
            columns: vec![JoinedColumn::Left(0), JoinedColumn::Right(1)],
            on: "k".to_owned(),
        },
        Some(5_000),
    )
    .unwrap();
    let mut out = Outbox::default();
    let mut largest = 0;
    // Every key comes a few times and never again.
    for frame in 0..200_i64 {
        let numbers: Vec<i64> = (frame * 1000..(frame + 1) * 1000).collect();
        let keys: Vec<Option<i64>> = numbers.iter().map(|number| Some(number / 3)).collect();
        let values: Vec<Option<i64>> = numbers.iter().copied().map(Some).collect();
        let rows = batch(&[("k", integers(&keys)), ("y", integers(&values))]).with_times(Some(numbers.into()));
        assert_eq!(operator.on_batch(1, rows, &mut out).unwrap(), Progress::Done);
        for input in [0, 1] {
            let at = mill_protocol::Watermark(frame * 1000);
            assert_eq!(operator.on_watermark(input, at, &mut out).unwrap(), Progress::Done);
        }
        largest = largest.max(operator.versions.store().rows());
    }
    assert!(largest < 20_000, "{largest} rows were kept of those that 6,000 could be asked for");
    let left = batch(&[("k", integers(&[Some(199_998 / 3)])), ("x", integers(&[Some(1)]))]).with_times(Some(vec![199_999].into()));
    assert_eq!(operator.on_batch(0, left, &mut out).unwrap(), Progress::Done);
    assert!(out.is_empty(), "the right side has not passed it yet");
    assert_eq!(operator.on_watermark(1, mill_protocol::Watermark(200_000), &mut out).unwrap(), Progress::Done);
    let Some(Emission::Batch(0, found)) = out.pop() else { panic!("a row comes out") };
    assert_eq!(found.column(1).as_ref(), integers(&[Some(199_999)]).as_ref());
}

#[test]
fn times_of_a_key_that_come_twice_are_taken_as_fast_as_once() {
    let mut operator = make(How::Left, None);
    let mut out = Outbox::default();
    let rows = 200_000_i64;
    let mut took = Vec::new();
    for round in 0..2 {
        let start = std::time::Instant::now();
        for from in (0..rows).step_by(8192) {
            let times: Vec<i64> = (from..rows.min(from + 8192)).collect();
            let keys = vec![Some(1); times.len()];
            let values: Vec<Option<i64>> = times.iter().map(|time| Some(10 * time + round)).collect();
            let table = batch(&[("k", integers(&keys)), ("y", integers(&values))]).with_times(Some(times.into()));
            assert_eq!(operator.on_batch(1, table, &mut out).unwrap(), Progress::Done);
        }
        took.push(start.elapsed());
    }
    // Row by row, the second round moves 20,000 million rows.
    assert!(took[1] < 100 * took[0] + std::time::Duration::from_secs(1), "{took:?}");

    let mut progress = operator.on_input_end(1, &mut out).unwrap();
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
    }
    let times: Vec<i64> = (0..rows).step_by(997).collect();
    let left: Vec<Option<i64>> = times.iter().copied().map(Some).collect();
    let left = batch(&[("k", integers(&vec![Some(1); left.len()])), ("x", integers(&left))]).with_times(Some(times.clone().into()));
    progress = operator.on_batch(0, left, &mut out).unwrap();
    if progress == Progress::Done {
        progress = operator.on_watermark(1, mill_protocol::Watermark::MAX, &mut out).unwrap();
    }
    let mut found = Vec::new();
    loop {
        while let Some(emission) = out.pop() {
            let Emission::Batch(0, batch) = emission else { continue };
            let column = |place: usize| batch.column(place).as_primitive::<Int64Type>();
            found.extend(column(1).iter().zip(column(2).iter()).map(|(x, y)| (x.unwrap(), y)));
        }
        if progress == Progress::Done {
            break;
        }
        progress = operator.resume(&mut out).unwrap();
    }
    // Of rows of one time the one that came last counts.
    assert_eq!(found, times.iter().map(|&time| (time, Some(10 * time + 1))).collect::<Vec<_>>());
}
