use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, TimestampMicrosecondType};
use mill_plan::{AggregateKind, AggregateSpec, Window};
use mill_protocol::testkit::{batch, integers, restored_block, texts};
use mill_protocol::{Batch, Snapshot, Watermark};

use super::*;
use crate::accumulator::tests::{make, random, result_fields, spec, stage};
use crate::fixture::context;

/// A checkpoint that grows: a full snapshot, then those of changes.
#[derive(Default)]
struct Checkpoints {
    bytes: Vec<SharedBytes>,
    blocks: Vec<RestoredBlock>,
}

impl Checkpoints {
    fn take(&mut self, operator: &mut dyn Operator) {
        let mut snapshot = Snapshot { is_full: self.blocks.is_empty(), ..Snapshot::default() };
        operator.snapshot(&mut snapshot).unwrap();
        self.bytes = vec![snapshot.bytes.unwrap().into()];
        self.blocks.extend(snapshot.blocks.make().iter().map(restored_block));
    }

    fn read(&self) -> RecordBatch {
        // As a store does: what a pane that was dropped had is not given back.
        let last = |address| self.blocks.iter().rposition(|block| block.address == address && is_end(block));
        let kept: Vec<RestoredBlock> = (0..self.blocks.len())
            .filter(|&at| last(self.blocks[at].address).is_none_or(|end| at > end))
            .map(|at| self.blocks[at].clone())
            .collect();
        read_state(&self.bytes, &kept).unwrap()
    }
}

fn is_end(block: &RestoredBlock) -> bool {
    block.kind == mill_frame::block::BlockKind::Drop
}

fn feed(operator: &mut dyn Operator, batch: Batch) {
    let mut out = Outbox::default();
    let mut progress = operator.on_batch(0, batch, &mut out).unwrap();
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
    }
}

fn ints(seed: &mut u64, rows: usize, of: u64) -> Vec<Option<i64>> {
    (0..rows).map(|_| Some((random(seed) % of) as i64)).collect()
}

fn numbers(table: &RecordBatch, name: &str) -> Int64Array {
    table.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone()
}

fn specs() -> Vec<AggregateSpec> {
    vec![
        spec(AggregateKind::Count, None, None),
        spec(AggregateKind::Sum, Some((1, DataType::Int64)), None),
        spec(AggregateKind::NUnique, Some((1, DataType::Int64)), None),
        spec(AggregateKind::Collect, Some((1, DataType::Int64)), None),
        spec(AggregateKind::Max, Some((1, DataType::Int64)), None),
    ]
}

#[test]
fn a_table_has_what_was_counted_after_each_checkpoint() {
    for emit in [Emit::End, Emit::Each, Emit::Every(1_000_000)] {
        let mut seed = 11;
        let mut operator = make(DataType::Int64, &specs(), None, emit, false, &context());
        let mut checkpoints = Checkpoints::default();
        let mut expected: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for rows in [3000, 40, 1, 2000] {
            let (keys, values) = (ints(&mut seed, rows, 1000), ints(&mut seed, rows, 50));
            for (key, value) in keys.iter().flatten().zip(values.iter().flatten()) {
                expected.entry(*key).or_default().push(*value);
            }
            feed(operator.as_mut(), batch(&[("k", integers(&keys)), ("x", integers(&values))]));
            checkpoints.take(operator.as_mut());
            let table = checkpoints.read();
            assert_eq!(table.num_rows(), expected.len(), "{emit}");
            let [keys, counts, sums, distinct, max] =
                ["k", "count_0", "sum_1", "n_unique_1", "max_1"].map(|name| numbers(&table, name));
            let lists = table.column_by_name("collect_1").unwrap().as_list::<i32>();
            for row in 0..table.num_rows() {
                let values = &expected[&keys.value(row)];
                assert_eq!(counts.value(row), values.len() as i64);
                assert_eq!(sums.value(row), values.iter().sum::<i64>());
                assert_eq!(distinct.value(row) as usize, values.iter().collect::<std::collections::BTreeSet<_>>().len());
                assert_eq!(max.value(row), *values.iter().max().unwrap());
                assert_eq!(lists.value(row).as_primitive::<Int64Type>().values(), values.as_slice());
            }
        }
    }
}

#[test]
fn open_windows_are_rows_and_closed_ones_are_not() {
    let window = Window::Tumbling { size_us: 100, offset_us: 0 };
    for is_partial in [false, true] {
        let specs = [spec(AggregateKind::Count, None, None), spec(AggregateKind::Sum, Some((1, DataType::Int64)), None)];
        let mut operator = make(DataType::Int64, &specs, Some((window, 0)), Emit::End, is_partial, &context());
        let mut checkpoints = Checkpoints::default();
        let records = |times: &[i64]| {
            let ones = vec![Some(1); times.len()];
            batch(&[("k", integers(&ones)), ("x", integers(&ones))]).with_times(Some(times.to_vec().into()))
        };
        feed(operator.as_mut(), records(&[5, 99, 100, 250]));
        let mut out = Outbox::default();
        let mut progress = operator.on_barrier(mill_protocol::Epoch(1), &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut out).unwrap();
        }
        checkpoints.take(operator.as_mut());
        let shown = |table: RecordBatch| {
            let bounds = ["window_start", "window_end"].map(|name| {
                table.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
            });
            let counts = numbers(&table, "count_0");
            let rows = (0..table.num_rows()).map(|row| (bounds[0][row], bounds[1][row], counts.value(row)));
            rows.collect::<Vec<_>>()
        };
        assert_eq!(shown(checkpoints.read()), [(0, 100, 2), (100, 200, 1), (200, 300, 1)], "{is_partial}");
        let mut progress = operator.on_watermark(0, Watermark(150), &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut out).unwrap();
        }
        checkpoints.take(operator.as_mut());
        assert_eq!(shown(checkpoints.read()), [(100, 200, 1), (200, 300, 1)], "{is_partial}");
    }
}

/// Keeps the last record.
#[derive(Debug)]
struct Latest;

impl ReduceFunction for Latest {
    fn name(&self) -> String {
        "latest".to_owned()
    }
    fn reduce(&self, _accumulator: Option<&RecordBatch>, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.slice(rows.num_rows() - 1, 1))
    }
}

#[test]
fn a_reduce_gives_its_rows() {
    let fields = vec![Field::new("s", DataType::Utf8, true), Field::new("k", DataType::Int64, true)];
    let kind = StageKind::Reduce { keys: vec![1], function: Arc::new(Latest), emit: Emit::Every(10) };
    let mut operator = crate::build(&stage(kind, fields), &context()).unwrap();
    let mut checkpoints = Checkpoints::default();
    let records = |texts_: &[&str], keys: &[i64]| {
        let texts_: Vec<_> = texts_.iter().map(|text| Some(*text)).collect();
        let keys: Vec<_> = keys.iter().map(|key| Some(*key)).collect();
        batch(&[("s", texts(&texts_)), ("k", integers(&keys))])
    };
    feed(operator.as_mut(), records(&["a", "b", "c"], &[1, 2, 1]));
    checkpoints.take(operator.as_mut());
    feed(operator.as_mut(), records(&["d"], &[2]));
    checkpoints.take(operator.as_mut());
    let table = checkpoints.read();
    let texts = table.column(0).as_string::<i32>().iter().flatten().map(str::to_owned);
    let mut rows: Vec<(i64, String)> = numbers(&table, "k").values().iter().copied().zip(texts).collect();
    rows.sort();
    assert_eq!(rows, [(1, "c".to_owned()), (2, "d".to_owned())]);
}

/// Keeps how many values there were, as one byte.
#[derive(Debug)]
struct Tally;

impl mill_plan::AggregateFunction for Tally {
    fn name(&self) -> String {
        "tally".to_owned()
    }
    fn return_type(&self, _input: &DataType) -> Result<DataType> {
        Ok(DataType::Int64)
    }
    fn update(&self, state: Option<&[u8]>, values: &arrow::array::ArrayRef) -> Result<Vec<u8>> {
        Ok(vec![state.map_or(0, |state| state[0]) + values.len() as u8])
    }
    fn merge(&self, a: &[u8], b: &[u8]) -> Result<Vec<u8>> {
        Ok(vec![a[0] + b[0]])
    }
    fn finish(&self, state: Option<&[u8]>) -> Result<mill_plan::ScalarValue> {
        Ok(mill_plan::ScalarValue::Int64(state.map(|state| state[0].into())))
    }
}

#[test]
fn a_users_aggregate_gives_its_bytes() {
    let specs = [
        spec(AggregateKind::User(Arc::new(Tally)), Some((1, DataType::Int64)), None),
        spec(AggregateKind::Count, None, None),
    ];
    let mut operator = make(DataType::Int64, &specs, None, Emit::End, false, &context());
    let ones = integers(&[Some(1), Some(1), Some(1)]);
    feed(operator.as_mut(), batch(&[("k", Arc::clone(&ones)), ("x", ones)]));
    let mut checkpoints = Checkpoints::default();
    checkpoints.take(operator.as_mut());
    let table = checkpoints.read();
    assert_eq!(table.column(1).as_binary::<i32>().value(0), [3]);
    assert_eq!(numbers(&table, "count_0").value(0), 3);
}

#[test]
fn steps_without_keyed_state_are_told_apart() {
    let limit: SharedBytes = 5u64.to_le_bytes().to_vec().into();
    assert!(!has_keyed_state(std::slice::from_ref(&limit)));
    assert!(read_state(&[limit], &[]).unwrap_err().message().contains("no keyed state"));
    let empty = make(DataType::Int64, &specs(), None, Emit::End, false, &context());
    let mut checkpoints = Checkpoints::default();
    let mut empty = empty;
    checkpoints.take(empty.as_mut());
    assert!(has_keyed_state(&checkpoints.bytes));
    let table = checkpoints.read();
    assert_eq!((table.num_rows(), table.num_columns()), (0, result_fields(DataType::Int64, false, &specs()).len()));
}
