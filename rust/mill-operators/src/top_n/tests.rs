use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Float64Array;
use arrow::datatypes::{DataType, Field, TimeUnit};
use mill_plan::{Emit, Expr, Ordering, Stage, StageKind, Window, WindowSpec};
use mill_protocol::testkit::{Compare, Input, batch, check, integers, texts};
use mill_protocol::{Batch, Outbox, Progress};

use crate::accumulator::tests::{random, stage};
use crate::fixture::{compiled, context};
use crate::windows::tests::windows_of;

/// Records of a key, a value by which they are sorted and a name for each.
fn rows(values: &[(i64, Option<i64>, String)]) -> Batch {
    let keys: Vec<Option<i64>> = values.iter().map(|(key, ..)| Some(*key)).collect();
    let by: Vec<Option<i64>> = values.iter().map(|(_, by, _)| *by).collect();
    let names: Vec<Option<&str>> = values.iter().map(|(.., name)| Some(name.as_str())).collect();
    batch(&[("k", integers(&keys)), ("x", integers(&by)), ("s", texts(&names))])
}

fn fields(added: Vec<Field>) -> Vec<Field> {
    let mut fields = vec![
        Field::new("k", DataType::Int64, true),
        Field::new("x", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ];
    fields.extend(added);
    fields
}

fn rank() -> Field {
    Field::new("rank", DataType::Int64, false)
}

fn by_x(is_descending: bool) -> Vec<Ordering> {
    let schema = rows(&[]).schema();
    vec![Ordering { expr: compiled(&Expr::column("x"), &schema), is_descending }]
}

fn top_n(keys: Vec<usize>, rows: usize, is_descending: bool, emit: Emit) -> Stage {
    stage(StageKind::TopN { keys, by: by_x(is_descending), rows, emit, window: None }, fields(vec![rank()]))
}

/// The definition: a stable sort, with nulls last.
fn first_of(mut all: Vec<(Option<i64>, String)>, rows: usize, is_descending: bool) -> Vec<(Option<i64>, String)> {
    all.sort_by_key(|(x, _)| match x {
        None => (1, 0),
        Some(x) => (0, if is_descending { -x } else { *x }),
    });
    all.truncate(rows);
    all
}

fn shown(x: Option<i64>) -> String {
    x.map_or("null".to_owned(), |x| x.to_string())
}

/// Records at random, with many equal values and some nulls.
fn stream(seed: &mut u64, frames: usize) -> (Vec<Input>, BTreeMap<i64, Vec<(Option<i64>, String)>>) {
    let (mut inputs, mut all) = (Vec::new(), BTreeMap::<i64, Vec<_>>::new());
    let mut number = 0;
    for frame in 0..frames {
        let values: Vec<(i64, Option<i64>, String)> = (0..random(seed) % 14)
            .map(|_| {
                let key = (random(seed) % 4) as i64;
                let x = (!random(seed).is_multiple_of(7)).then(|| (random(seed) % 12) as i64 - 5);
                number += 1;
                all.entry(key).or_default().push((x, format!("row {number}")));
                (key, x, format!("row {number}"))
            })
            .collect();
        inputs.push(Input::Batch(rows(&values)));
        inputs.push(Input::Time(frame as i64 * 400_000));
        if frame % 3 == 1 {
            inputs.push(Input::Barrier);
        }
    }
    (inputs, all)
}

#[test]
fn the_first_rows_are_those_of_a_stable_sort() {
    let mut seed = 11;
    for (rows, is_descending) in [(1, true), (3, true), (3, false), (100, true)] {
        let (inputs, all) = stream(&mut seed, 8);
        let mut expected = Vec::new();
        for (key, of_key) in all {
            for (place, (x, name)) in first_of(of_key, rows, is_descending).into_iter().enumerate() {
                expected.push(((key, place), format!("0: {key}, {}, {name:?}, {}", shown(x), place + 1)));
            }
        }
        expected.sort_by_key(|((key, place), _)| (key.to_string(), (place + 1).to_string()));
        let expected: Vec<String> = expected.into_iter().map(|(_, line)| line).collect();
        for emit in [Emit::End, Emit::Each, Emit::Every(1_000_000), Emit::Checkpoint] {
            let stage = top_n(vec![0], rows, is_descending, emit);
            let transcript =
                check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::LatestOf(vec![0, 3]));
            assert_eq!(transcript.rows, expected, "{emit:?}");
        }
    }
}

#[test]
fn without_a_key_all_records_share_the_places() {
    let records = |values: &[i64]| {
        let values: Vec<_> = values.iter().map(|&x| (x % 3, Some(x), format!("row {x}"))).collect();
        Input::Batch(rows(&values))
    };
    let inputs = [records(&[4, 9, 1]), Input::Barrier, records(&[7, 2])];
    let stage = top_n(Vec::new(), 2, true, Emit::End);
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
    assert_eq!(transcript.rows, ["0: 0, 9, \"row 9\", 1", "0: 1, 7, \"row 7\", 2"]);
}

/// What an operator emits for one more batch, as text.
fn emitted(operator: &mut dyn mill_protocol::Operator, batch: Batch) -> Vec<String> {
    let mut out = Outbox::default();
    let mut progress = operator.on_batch(0, batch, &mut out).unwrap();
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
    }
    let mut lines = Vec::new();
    while let Some(mill_protocol::Emission::Batch(_, batch)) = out.pop() {
        let column = |index| batch.column(index).clone();
        let (x, ranks) = (column(1), column(3));
        for row in 0..batch.rows() {
            let x = arrow::util::display::array_value_to_string(&x, row).unwrap();
            lines.push(format!("{x} at {}", arrow::util::display::array_value_to_string(&ranks, row).unwrap()));
        }
    }
    lines
}

#[test]
fn only_ranks_that_changed_are_emitted() {
    let stage = top_n(vec![0], 3, true, Emit::Each);
    let mut operator = crate::build(&stage, &context()).unwrap();
    let record = |x: i64| rows(&[(1, Some(x), String::new())]);
    assert_eq!(emitted(operator.as_mut(), record(5)), ["5 at 1"]);
    assert_eq!(emitted(operator.as_mut(), record(3)), ["3 at 2"]);
    assert_eq!(emitted(operator.as_mut(), record(4)), ["4 at 2", "3 at 3"]);
    assert_eq!(emitted(operator.as_mut(), record(1)), Vec::<String>::new(), "it is none of the first three");
    assert_eq!(emitted(operator.as_mut(), record(3)), Vec::<String>::new(), "of equal rows the first one stays");
    assert_eq!(emitted(operator.as_mut(), record(6)), ["6 at 1", "5 at 2", "4 at 3"]);
    assert_eq!(emitted(operator.as_mut(), rows(&[(1, Some(5), String::new()), (2, Some(0), String::new())])).len(), 2);
}

#[test]
fn zeros_are_equal_and_nan_is_the_greatest_number() {
    let data = |values: &[f64]| {
        let x: arrow::array::ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let names: Vec<String> = values.iter().map(|x| format!("{x:?}")).collect();
        let names: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        batch(&[("x", x), ("s", texts(&names))])
    };
    let by = vec![Ordering { expr: compiled(&Expr::column("x"), &data(&[]).schema()), is_descending: false }];
    let fields =
        vec![Field::new("x", DataType::Float64, true), Field::new("s", DataType::Utf8, true), rank()];
    let stage = stage(StageKind::TopN { keys: Vec::new(), by, rows: 5, emit: Emit::End, window: None }, fields);
    let inputs = [Input::Batch(data(&[f64::NAN, 0.0, -0.0, f64::INFINITY, -1.0, -0.0]))];
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
    let expected =
        ["0: -1.0, \"-1.0\", 1", "0: 0.0, \"0.0\", 2", "0: -0.0, \"-0.0\", 3", "0: -0.0, \"-0.0\", 4", "0: inf, \"inf\", 5"];
    assert_eq!(transcript.rows, expected);
}

#[test]
fn each_window_has_its_own_first_rows() {
    let (mut seed, bound) = (5, 20i64);
    for window in [
        Window::Tumbling { size_us: 30, offset_us: 4 },
        Window::Sliding { size_us: 30, slide_us: 10, offset_us: 0 },
        Window::Cumulative { step_us: 10, size_us: 40, offset_us: 0 },
    ] {
        for lateness in [0, 15] {
            let (mut inputs, mut all) = (Vec::new(), Vec::new());
            let (mut now, mut latest) = (-80i64, i64::MIN / 2);
            for _ in 0..12 {
                let (mut values, mut times, mut behind) = (vec![], vec![], vec![]);
                for _ in 0..1 + random(&mut seed) % 7 {
                    now += (random(&mut seed) % 9) as i64;
                    let time = now - (random(&mut seed) % 60) as i64;
                    let watermark = latest - bound;
                    latest = latest.max(time);
                    let (key, x) = ((random(&mut seed) % 2) as i64, (random(&mut seed) % 6) as i64);
                    let name = format!("row {}", all.len());
                    all.push((key, x, name.clone(), time, watermark));
                    values.push((key, Some(x), name));
                    times.push(time);
                    behind.push(watermark);
                }
                let is_behind = times.iter().zip(&behind).any(|(time, behind)| behind > time);
                let records =
                    rows(&values).with_times(Some(times.into())).with_behind(is_behind.then(|| behind.into()));
                inputs.push(Input::Batch(records));
                inputs.push(Input::Watermark(latest - bound));
            }
            let mut boards = BTreeMap::<(i64, i64, i64), Vec<(Option<i64>, String)>>::new();
            let mut late = 0;
            for (key, x, name, time, watermark) in &all {
                let open = |end: i64| *watermark <= end - 1 + lateness;
                let windows: Vec<_> = windows_of(window, *time).into_iter().filter(|(_, end)| open(*end)).collect();
                late += u64::from(windows.is_empty());
                for (start, end) in windows {
                    boards.entry((*key, start, end)).or_default().push((Some(*x), name.clone()));
                }
            }
            let bound_of = |name: &str| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, None), true);
            let fields = fields(vec![bound_of("window_start"), bound_of("window_end"), rank()]);
            let window = Some(WindowSpec::new(window, lateness));
            let kind = StageKind::TopN { keys: vec![0], by: by_x(true), rows: 2, emit: Emit::End, window };
            let stage = stage(kind, fields);
            let make = || crate::build(&stage, &context()).unwrap();
            let transcript = check(make, &inputs, &Compare::Unordered);
            assert_eq!(transcript.late, late);
            let mut expected = Vec::new();
            for ((key, _, end), of_window) in boards {
                for (place, (x, name)) in first_of(of_window, 2, true).into_iter().enumerate() {
                    expected.push(format!("{key}, {}, {name:?}, {} @{}", shown(x), place + 1, end - 1));
                }
            }
            let results = transcript.rows.iter().filter_map(|row| row.strip_prefix("0: "));
            let without_bounds = |row: &str| {
                let parts: Vec<&str> = row.split(", ").collect();
                [&parts[..3], &parts[5..]].concat().join(", ")
            };
            let mut found: Vec<String> = results.map(without_bounds).collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{window:?}");
            assert_eq!(transcript.rows.iter().filter(|row| row.starts_with("1: ")).count() as u64, late);
        }
    }
}
