use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type};
use mill_plan::{Emit, ReduceFunction, StageKind};
use mill_protocol::testkit::{Compare, Input, batch, check, integers, texts};
use mill_protocol::{Error, ErrorKind, Result};

use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

/// Sums `x`, joins `s`; fails for a text "bad".
#[derive(Debug)]
struct Fold;

impl ReduceFunction for Fold {
    fn name(&self) -> String {
        "fold".to_owned()
    }
    fn reduce(&self, accumulator: Option<&RecordBatch>, rows: &RecordBatch) -> Result<RecordBatch> {
        let (mut sum, mut text) = (0, String::new());
        for batch in accumulator.into_iter().chain([rows]) {
            sum += batch.column(1).as_primitive::<Int64Type>().iter().flatten().sum::<i64>();
            for part in batch.column(2).as_string::<i32>().iter().flatten() {
                if part == "bad" {
                    return Err(Error::new(ErrorKind::UserFunction, "bad text"));
                }
                text.push_str(part);
            }
        }
        let columns = vec![
            rows.column(0).slice(0, 1),
            Arc::new(Int64Array::from(vec![sum])) as _,
            Arc::new(StringArray::from(vec![text])) as _,
        ];
        Ok(RecordBatch::try_new(rows.schema(), columns).unwrap())
    }
}

#[test]
fn folds_are_the_same_however_frames_are_cut() {
    let mut seed = 3;
    let mut inputs = Vec::new();
    let mut expected = [(0, String::new(), 0), (0, String::new(), 0), (0, String::new(), 0)];
    let mut bad = 0;
    for round in 0..4 {
        let (mut keys, mut values, mut parts) = (vec![], vec![], vec![]);
        for _ in 0..20 {
            let (key, value) = ((random(&mut seed) % 3) as i64, (random(&mut seed) % 10) as i64);
            let part = ["a", "b", "c", "bad"][(random(&mut seed) % 4) as usize];
            keys.push(Some(key));
            values.push(Some(value));
            parts.push(Some(part));
            if part == "bad" {
                bad += 1;
            } else {
                let state = &mut expected[key as usize];
                state.0 += value;
                state.1.push_str(part);
                state.2 += 1;
            }
        }
        inputs.push(Input::Batch(batch(&[("k", integers(&keys)), ("x", integers(&values)), ("s", texts(&parts))])));
        inputs.push(Input::Time(round * 600_000));
    }
    let fields = vec![
        Field::new("k", DataType::Int64, true),
        Field::new("x", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ];
    for emit in [Emit::End, Emit::Each, Emit::Every(1_000_000), Emit::Checkpoint] {
        let kind = StageKind::Reduce { keys: vec![0], function: Arc::new(Fold), emit };
        let stage = stage(kind, fields.clone());
        let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Latest(1));
        let lines: Vec<String> =
            expected.iter().enumerate().map(|(key, (sum, text, _))| format!("0: {key}, {sum}, {text:?}")).collect();
        assert_eq!(transcript.rows, lines);
        assert_eq!(transcript.rejected.len(), bad);
    }
}

#[test]
fn without_key_columns_all_records_fold_into_one() {
    let fields = vec![
        Field::new("k", DataType::Int64, true),
        Field::new("x", DataType::Int64, true),
        Field::new("s", DataType::Utf8, true),
    ];
    let records = |keys: &[i64], part: &str| {
        let keys: Vec<Option<i64>> = keys.iter().copied().map(Some).collect();
        Input::Batch(batch(&[("k", integers(&keys)), ("x", integers(&keys)), ("s", texts(&vec![Some(part); keys.len()]))]))
    };
    let kind = StageKind::Reduce { keys: Vec::new(), function: Arc::new(Fold), emit: Emit::End };
    let stage = stage(kind, fields);
    let inputs = [records(&[4, 5, 6], "a"), Input::Barrier, records(&[7], "b")];
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
    assert_eq!(transcript.rows.len(), 1);
    assert!(transcript.rows[0].ends_with(", 22, \"aaab\""), "{:?}", transcript.rows);
}
