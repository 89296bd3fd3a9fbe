use std::collections::BTreeMap;

use arrow::datatypes::{DataType, Field};
use mill_plan::StageKind;
use mill_protocol::testkit::{Compare, Input, batch, check, integers};

use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

/// Every change of a row is emitted once; a row that moves is withdrawn from where it was, with the columns it had.
#[test]
fn a_row_that_moves_is_withdrawn_first() {
    let fields = ["k", "by", "x"].map(|name| Field::new(name, DataType::Int64, true)).to_vec();
    let stage = stage(StageKind::LatestRows { keys: vec![0], by: vec![1] }, fields);
    let (mut seed, mut inputs, mut expected) = (23, Vec::new(), Vec::new());
    let mut latest = BTreeMap::<i64, (Option<i64>, i64)>::new();
    let shown = |by: Option<i64>| by.map_or_else(|| "null".to_owned(), |by| by.to_string());
    for _ in 0..12 {
        let (mut keys, mut bys, mut values, mut deletes) = (vec![], vec![], vec![], vec![]);
        for _ in 0..random(&mut seed) % 11 {
            let (key, x) = ((random(&mut seed) % 3) as i64, (random(&mut seed) % 2) as i64);
            let by = [None, Some(5), Some(6)][(random(&mut seed) % 3) as usize];
            let is_delete = random(&mut seed).is_multiple_of(3);
            let before = if is_delete { latest.remove(&key) } else { latest.insert(key, (by, x)) };
            if let Some((old, old_x)) = before.filter(|&(old, _)| is_delete || old != by) {
                expected.push(format!("0: {key}, {}, {old_x} delete", shown(old)));
            }
            if !is_delete && before != Some((by, x)) {
                expected.push(format!("0: {key}, {}, {x}", shown(by)));
            }
            keys.push(Some(key));
            bys.push(by);
            values.push(Some(x));
            deletes.push(is_delete);
        }
        let deletes = deletes.contains(&true).then(|| deletes.into());
        let rows = batch(&[("k", integers(&keys)), ("by", integers(&bys)), ("x", integers(&values))]);
        inputs.extend([Input::Batch(rows.with_deletes(deletes)), Input::Barrier]);
    }
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
    assert_eq!(transcript.rows, expected);
    assert!(expected.iter().filter(|line| line.ends_with("delete")).count() > 10);
}
