use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use mill_protocol::{Read, Source, SplitReader, SplitState};

use super::MemorySource;

fn table(rows: i64, batch_rows: i64) -> MemorySource {
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true), Field::new("y", DataType::Int64, true)]));
    let batches = (0..rows)
        .step_by(batch_rows as usize)
        .map(|start| {
            let x = Arc::new(Int64Array::from_iter_values(start..(start + batch_rows).min(rows)));
            RecordBatch::try_new(Arc::clone(&schema), vec![x.clone(), x]).unwrap()
        })
        .collect();
    MemorySource::new(schema, batches).unwrap()
}

fn drain(reader: &mut dyn SplitReader, rows_max: usize) -> Vec<i64> {
    let mut values = Vec::new();
    while let Read::Batch(batch) = reader.next(rows_max).unwrap() {
        assert!(batch.num_rows() <= rows_max);
        values.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
    }
    values
}

#[test]
fn every_row_comes_once_whatever_the_splits() {
    for rows in [0, 1, 40_000, 200_001] {
        let source = table(rows, 7_001);
        for is_ordered in [true, false] {
            let mut all: Vec<i64> = Vec::new();
            for split in source.splits(is_ordered).unwrap() {
                all.extend(drain(source.open(&split, None).unwrap().as_mut(), 1024));
            }
            assert_eq!(all, (0..rows).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_reader_goes_on_from_its_position() {
    let source = table(100_000, 9_000);
    let split = &source.splits(false).unwrap()[1];
    let mut reader = source.open(split, None).unwrap();
    let whole = drain(source.open(split, None).unwrap().as_mut(), 1000);
    let mut seen = 0;
    while let Read::Batch(batch) = reader.next(1000).unwrap() {
        seen += batch.num_rows();
        let mut again = source.open(split, Some(&reader.position())).unwrap();
        assert_eq!(drain(again.as_mut(), 777), whole[seen..]);
    }
}

#[test]
fn other_data_is_refused_on_resume() {
    let split = &table(100, 10).splits(true).unwrap()[0];
    let position = table(100, 10).open(split, None).unwrap().position();
    let error = table(99, 10).open(split, Some(&position)).err().unwrap();
    assert!(error.message().contains("100 rows when the checkpoint was taken"), "{error}");
}

#[test]
fn projection_keeps_the_rows() {
    let source = table(10, 3).project(&[]).unwrap();
    let mut reader = source.open(&source.splits(true).unwrap()[0], None).unwrap();
    let mut rows = 0;
    while let Read::Batch(batch) = reader.next(2).unwrap() {
        assert_eq!(batch.num_columns(), 0);
        rows += batch.num_rows();
    }
    assert_eq!(rows, 10);
}

#[test]
fn batches_of_other_columns_are_refused() {
    let schema = Arc::new(Schema::new(vec![Field::new("z", DataType::Int64, true)]));
    let batch = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    assert!(MemorySource::new(schema, vec![batch]).unwrap_err().message().contains("other columns"));
}

#[test]
fn wide_tables_are_cut_finer_whatever_is_read_of_them() {
    let names: Vec<String> = (0..500).map(|n| format!("c{n}")).collect();
    let column: arrow::array::ArrayRef = Arc::new(Int64Array::from_iter_values(0..30_000));
    let batch = RecordBatch::try_from_iter(names.iter().map(|name| (name, Arc::clone(&column)))).unwrap();
    let wide = MemorySource::new(batch.schema(), vec![batch]).unwrap();
    let splits = wide.splits(false).unwrap();
    assert_eq!(splits.len(), 8);
    assert_eq!(wide.project(&[0]).unwrap().splits(false).unwrap(), splits);
    assert_eq!(wide.splits(true).unwrap().len(), 1);
    assert_eq!(table(30_000, 1_000).splits(false).unwrap().len(), 1);
}

#[test]
fn a_job_goes_on_with_the_splits_that_it_began_with() {
    let source = table(100_000, 9_000);
    let cut = |bounds: &[(u64, u64)]| -> Vec<SplitState> {
        bounds.iter().map(|&(start, end)| SplitState::unread(source.split(start, end))).collect()
    };
    let ids = |states: Vec<SplitState>| states.into_iter().map(|state| state.split.id).collect::<Vec<_>>();
    let once = cut(&[(60_000, 120_000), (0, 60_000)]);
    assert_eq!(ids(source.resume(false, once.clone()).unwrap()), [once[1].split.id, once[0].split.id]);
    assert_eq!(source.resume(false, cut(&[(0, u64::MAX)])).unwrap().len(), 1);
    // What is not the whole table was cut by another one.
    for other in [&[(0, 60_000)][..], &[(0, 60_000), (70_000, 120_000)], &[(0, 60_000), (60_000, 130_000), (130_000, 200_000)]] {
        assert!(source.resume(false, cut(other)).is_err(), "{other:?}");
    }
    assert!(source.resume(true, once).is_err());
}
