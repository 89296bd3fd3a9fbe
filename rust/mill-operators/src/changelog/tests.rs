use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use mill_plan::StageKind;
use mill_protocol::testkit::{Compare, Input, batch, check, integers, texts};

use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

fn columns() -> Vec<Field> {
    vec![
        Field::new("k", DataType::Int64, true),
        Field::new("x", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ]
}

fn to_changelog() -> mill_plan::Stage {
    let mut fields = vec![Field::new("op", DataType::Utf8, false)];
    fields.extend(columns());
    stage(StageKind::ToChangelog { keys: vec![0] }, fields)
}

#[test]
fn each_change_is_named_once() {
    let mut seed = 23;
    let names = ["", "a", "a text that is longer than a word of state"];
    let (mut inputs, mut expected) = (Vec::new(), Vec::new());
    let mut latest = BTreeMap::<i64, (i64, &str)>::new();
    let mut time = 0;
    for _ in 0..12 {
        let (mut keys, mut values, mut parts, mut deletes, mut times) = (vec![], vec![], vec![], vec![], vec![]);
        for _ in 0..random(&mut seed) % 11 {
            let (key, x) = ((random(&mut seed) % 3) as i64, (random(&mut seed) % 2) as i64);
            let (name, is_delete) = (names[(random(&mut seed) % 3) as usize], random(&mut seed).is_multiple_of(3));
            time += 1;
            if is_delete {
                if let Some((x, name)) = latest.remove(&key) {
                    expected.push(format!("0: \"delete\", {key}, {x}, {name:?} @{time}"));
                }
            } else {
                let op = match latest.insert(key, (x, name)) {
                    None => Some("insert"),
                    Some(before) if before == (x, name) => None,
                    Some(_) => Some("update"),
                };
                expected.extend(op.map(|op| format!("0: {op:?}, {key}, {x}, {name:?} @{time}")));
            }
            keys.push(Some(key));
            values.push(Some(x));
            parts.push(Some(name));
            deletes.push(is_delete);
            times.push(time);
        }
        let deletes = deletes.contains(&true).then(|| deletes.into());
        let rows = batch(&[("k", integers(&keys)), ("x", integers(&values)), ("s", texts(&parts))]);
        inputs.push(Input::Batch(rows.with_deletes(deletes).with_times(Some(times.into()))));
        inputs.push(Input::Barrier);
    }
    let stage = to_changelog();
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
    assert_eq!(transcript.rows, expected);
    for op in ["insert", "update", "delete"] {
        assert!(expected.iter().any(|line| line.contains(op)), "no {op} among the changes");
    }
}

#[test]
fn withdrawn_keys_take_no_state() {
    use mill_protocol::{Operator, Outbox};
    let mut operator = super::ToChangelog::of(&to_changelog(), &context(), &[0]).unwrap();
    let keys: Vec<Option<i64>> = (0..5000).map(Some).collect();
    let names = vec![Some("name"); keys.len()];
    let rows = batch(&[("k", integers(&keys)), ("x", integers(&keys)), ("s", texts(&names))]);
    let _ = operator.on_batch(0, rows.clone(), &mut Outbox::default()).unwrap();
    assert_eq!(operator.kept().unwrap().iter().map(|batch| batch.num_rows()).sum::<usize>(), 5000);
    let all = rows.rows();
    let withdrawn = rows.with_deletes(Some((0..all).map(|_| true).collect()));
    let _ = operator.on_batch(0, withdrawn, &mut Outbox::default()).unwrap();
    assert!(operator.kept().unwrap().is_empty());
}

#[test]
fn changes_become_rows_and_withdrawals_again() {
    let mut fields = columns();
    fields.remove(2);
    let stage = stage(StageKind::FromChangelog { op: 1 }, fields);
    let ops = ["insert", "update", "delete", "+I", "-U", "+U", "-D"];
    let keys: Vec<Option<i64>> = (0..7).map(Some).collect();
    let ops: Vec<Option<&str>> = ops.iter().copied().map(Some).collect();
    let rows = batch(&[("k", integers(&keys)), ("op", texts(&ops)), ("x", integers(&keys))]);
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &[Input::Batch(rows)], &Compare::Ordered);
    let expected = [
        "0: 0, 0",
        "0: 1, 1",
        "0: 2, 2 delete",
        "0: 3, 3",
        "0: 4, 4 delete",
        "0: 5, 5",
        "0: 6, 6 delete",
    ];
    assert_eq!(transcript.rows, expected);
    assert!(transcript.rejected.is_empty());
}

#[test]
fn an_unknown_change_is_an_error_of_its_record() {
    let mut fields = columns();
    fields.remove(2);
    let stage = stage(StageKind::FromChangelog { op: 1 }, fields);
    let keys: Vec<Option<i64>> = (0..4).map(Some).collect();
    let ops = [Some("insert"), Some("Insert"), None, Some("delete")];
    let rows = batch(&[("k", integers(&keys)), ("op", texts(&ops)), ("x", integers(&keys))]);
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &[Input::Batch(rows)], &Compare::Ordered);
    assert_eq!(transcript.rows, ["0: 0, 0", "0: 3, 3 delete"]);
    assert_eq!(transcript.rejected.len(), 2);
    assert!(transcript.rejected[0].contains("column \"op\" is \"Insert\""), "{:?}", transcript.rejected);
    assert!(transcript.rejected[1].contains("column \"op\" is null"), "{:?}", transcript.rejected);
}
