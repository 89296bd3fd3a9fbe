use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use mill_plan::{Expr, StageKind};
use mill_protocol::testkit::{Compare, Input, batch, check, integers, texts};

use super::*;
use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

fn input() -> Vec<Field> {
    vec![Field::new("k", DataType::Utf8, true), Field::new("x", DataType::Int64, true)]
}

fn stage_of(rows: usize, is_difference: bool) -> Stage {
    let before: SchemaRef = Arc::new(Schema::new(input()));
    let columns = vec![Shifted::new(&Expr::column("x").alias("y"), &before, is_difference).unwrap()];
    let fields = input().into_iter().chain([columns[0].field()]).collect();
    stage(StageKind::Shift { keys: vec![0], rows, columns }, fields)
}

#[test]
fn each_row_has_what_came_so_many_rows_before() {
    let names = [Some("a"), Some("a key longer than what fits a word of state"), None, Some("")];
    for (rows, is_difference) in [(1, false), (1, true), (2, false), (3, true), (7, false)] {
        let mut seed = 5 + rows as u64;
        let (mut inputs, mut expected, mut seen) = (Vec::new(), Vec::new(), BTreeMap::<_, Vec<Option<i64>>>::new());
        for _ in 0..7 {
            let picked: Vec<Option<&str>> = (0..random(&mut seed) % 9).map(|_| names[(random(&mut seed) % 4) as usize]).collect();
            let numbers: Vec<Option<i64>> =
                picked.iter().map(|_| (!random(&mut seed).is_multiple_of(5)).then(|| (random(&mut seed) % 100) as i64)).collect();
            for (name, number) in picked.iter().zip(&numbers) {
                let of_key = seen.entry(*name).or_default();
                let earlier = of_key.len().checked_sub(rows).and_then(|place| of_key[place]);
                of_key.push(*number);
                let added = if is_difference { number.zip(earlier).map(|(now, earlier)| now - earlier) } else { earlier };
                let name = name.map_or("null".to_owned(), |name| format!("{name:?}"));
                let shown = |number: Option<i64>| number.map_or("null".to_owned(), |number| number.to_string());
                expected.push(format!("0: {name}, {}, {}", shown(*number), shown(added)));
            }
            inputs.push(Input::Batch(batch(&[("k", texts(&picked)), ("x", integers(&numbers))])));
            inputs.push(Input::Barrier);
        }
        let stage = stage_of(rows, is_difference);
        let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
        assert_eq!(transcript.rows, expected, "{rows} {is_difference}");
    }
}

#[test]
fn a_row_whose_difference_fails_counts_as_if_it_had_not_come() {
    let stage = stage_of(1, true);
    let rows = batch(&[("k", texts(&[Some("a"); 4])), ("x", integers(&[Some(-2), Some(i64::MAX), Some(5), Some(9)]))]);
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &[Input::Batch(rows)], &Compare::Ordered);
    assert_eq!(transcript.rows, ["0: \"a\", -2, null", "0: \"a\", 5, 7", "0: \"a\", 9, 4"]);
    assert_eq!(transcript.rejected.len(), 1);
}

#[test]
fn many_rows_of_many_keys_at_once() {
    let stage = stage_of(2, false);
    let mut operator = crate::build(&stage, &context()).unwrap();
    let count = 3 * LOOKUP_ROWS_MAX as i64 + 17;
    let names: Vec<String> = (0..count).map(|n| format!("k{}", n % 7)).collect();
    let names: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
    let numbers: Vec<Option<i64>> = (0..count).map(Some).collect();
    let mut out = Outbox::default();
    assert_eq!(operator.on_batch(0, batch(&[("k", texts(&names)), ("x", integers(&numbers))]), &mut out).unwrap(), Progress::Done);
    let mut found = Vec::new();
    while let Some(emission) = out.pop() {
        if let mill_protocol::Emission::Batch(0, batch) = emission {
            found.extend(batch.column(2).as_primitive::<Int64Type>().iter());
        }
    }
    assert_eq!(found, (0..count).map(|n| (n >= 14).then(|| n - 14)).collect::<Vec<_>>());
}
