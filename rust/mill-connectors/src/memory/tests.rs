use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use mill_protocol::{Read, Source, SplitReader};

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
