use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, Field};
use mill_plan::StageKind;
use mill_protocol::testkit::{Compare, Input, batch, check, integers, texts};

use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

fn fields() -> Vec<Field> {
    vec![Field::new("k", DataType::Utf8, true), Field::new("x", DataType::Int64, true)]
}

#[test]
fn the_first_row_of_each_key_passes() {
    let names = [Some("a"), Some("a key longer than what fits a word of state"), None, Some(""), Some("b")];
    let mut seed = 17;
    let (mut inputs, mut expected, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for frame in 0..6 {
        let picked: Vec<Option<&str>> = (0..random(&mut seed) % 8).map(|_| names[(random(&mut seed) % 5) as usize]).collect();
        let numbers: Vec<Option<i64>> = (0..picked.len() as i64).map(|row| Some(frame * 100 + row)).collect();
        for (name, number) in picked.iter().zip(&numbers) {
            if seen.insert(*name) {
                let name = name.map_or("null".to_owned(), |name| format!("{name:?}"));
                expected.push(format!("0: {name}, {}", number.unwrap()));
            }
        }
        inputs.push(Input::Batch(batch(&[("k", texts(&picked)), ("x", integers(&numbers))])));
        inputs.push(Input::Barrier);
    }
    let stage = stage(StageKind::Deduplicate { keys: vec![0], within_us: None }, fields());
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
    assert_eq!(transcript.rows, expected);
    assert_eq!(expected.len(), 5, "each of them came at least once");
}

#[test]
fn a_row_passes_unless_one_has_passed_that_is_near() {
    for (round, within) in [(1, 10), (2, 25), (3, 1), (4, 40)] {
        let (mut seed, bound) = (round, 30i64);
        let (mut inputs, mut expected) = (Vec::new(), Vec::new());
        // The oracle keeps all that has passed and drops nothing.
        let mut passed = BTreeMap::<i64, Vec<i64>>::new();
        let (mut now, mut latest, mut late) = (-100i64, i64::MIN / 2, 0);
        let mut number = 0;
        for _ in 0..30 {
            let (mut keys, mut numbers, mut times, mut behind) = (vec![], vec![], vec![], vec![]);
            for _ in 0..random(&mut seed) % 9 {
                now += (random(&mut seed) % 6) as i64;
                let time = now - (random(&mut seed) % 50) as i64;
                let watermark = latest - bound;
                latest = latest.max(time);
                let key = (random(&mut seed) % 3) as i64;
                number += 1;
                let line = |port: u64| format!("{port}: \"{key}\", {number} @{time}");
                let of_key = passed.entry(key).or_default();
                if time < watermark {
                    late += 1;
                    expected.push(format!("{} behind {watermark}", line(1)));
                } else if of_key.iter().all(|p| (p - time).abs() >= within) {
                    of_key.push(time);
                    expected.push(line(0));
                }
                keys.push(key.to_string());
                numbers.push(Some(number));
                times.push(time);
                behind.push(watermark);
            }
            let is_behind = times.iter().zip(&behind).any(|(time, behind)| behind > time);
            let keys: Vec<Option<&str>> = keys.iter().map(|key| Some(key.as_str())).collect();
            let records = batch(&[("k", texts(&keys)), ("x", integers(&numbers))])
                .with_times(Some(times.into()))
                .with_behind(is_behind.then(|| behind.into()));
            inputs.push(Input::Batch(records));
            inputs.push(Input::Watermark(latest - bound));
            inputs.push(Input::Barrier);
        }
        let stage = stage(StageKind::Deduplicate { keys: vec![0], within_us: Some(within) }, fields());
        let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Unordered);
        expected.sort();
        let mut rows = transcript.rows;
        rows.sort();
        assert_eq!(rows, expected, "within {within}");
        assert_eq!(transcript.late, late);
        assert!(late > 0, "some rows are late");
    }
}

#[test]
fn keys_are_forgotten_as_time_goes_on() {
    use mill_protocol::{Outbox, Watermark};
    let stage = stage(StageKind::Deduplicate { keys: vec![0], within_us: Some(10) }, fields());
    let mut operator = super::DeduplicateWithin::new(&stage, &context(), &[0], 10).unwrap();
    for time in 0..500i64 {
        let name = time.to_string();
        let records = batch(&[("k", texts(&[Some(&name)])), ("x", integers(&[Some(time)]))]);
        let mut out = Outbox::default();
        use mill_protocol::Operator;
        let _ = operator.on_batch(0, records.with_times(Some(vec![time].into())), &mut out).unwrap();
        let _ = operator.on_watermark(0, Watermark(time), &mut out).unwrap();
        let kept: usize = operator.kept().unwrap().iter().map(|batch| batch.num_rows()).sum();
        assert!(kept <= 30, "{kept} keys are kept at {time}");
        assert!(kept >= 10.min(time as usize + 1), "{kept} keys are kept at {time}");
    }
}
