use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, Int64Array, LargeStringArray, ListArray, RecordBatch, StringViewArray, StructArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_protocol::{Read, Source};

use super::{ParquetOptions, ParquetSource};
use crate::file::PathSpec;
use crate::testing::{check, drain};

fn write(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_dictionary_enabled(false)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn table(rows: i64) -> RecordBatch {
    let id = Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef;
    let view = Arc::new(StringViewArray::from_iter_values((0..rows).map(|i| format!("view {i} {}", i * 7919)))) as ArrayRef;
    let large = Arc::new(LargeStringArray::from_iter((0..rows).map(|i| (i % 3 > 0).then(|| i.to_string())))) as ArrayRef;
    let list = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
        (0..rows).map(|i| Some((0..i % 4).map(Some).collect::<Vec<_>>())),
    )) as ArrayRef;
    let inner = Arc::new(Field::new("id", DataType::Int64, false));
    let nested = Arc::new(StructArray::from(vec![(inner, id.clone())])) as ArrayRef;
    RecordBatch::try_from_iter([("id", id), ("view", view), ("large", large), ("list", list), ("nested", nested)]).unwrap()
}

fn open(path: &Path, schema: Option<SchemaRef>) -> ParquetSource {
    ParquetSource::new(PathSpec::from(path), schema, ParquetOptions::default()).unwrap()
}

#[test]
fn rows_come_back_from_every_position_and_text_is_plain() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    write(&path, &table(5000), 700);
    let source = open(&path, None);
    assert_eq!(source.schema().field(1).data_type(), &DataType::Utf8);
    assert_eq!(source.schema().field(2).data_type(), &DataType::Utf8);
    assert_eq!(source.rows_hint(), Some(5000));
    let rows = check(&source, 333);
    assert_eq!(rows.len(), 5000);
    assert_eq!(rows[4999], "4999|view 4999 39587081|4999|[0, 1, 2]|{id: 4999}");
    let projected = source.project(&[2, 0]).unwrap();
    assert_eq!(check(projected.as_ref(), 1000)[4998], "∅|4998");
    assert_eq!(check(source.project(&[]).unwrap().as_ref(), 1000).len(), 5000);
}

#[test]
fn a_large_file_is_cut_at_row_groups() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    let text = Arc::new(LargeStringArray::from_iter_values((0..60_000u64).map(|i| {
        (0..80u64).map(|k| char::from(b'!' + (i.wrapping_mul(0x9E37_79B9).wrapping_add(k * k * 31 + i * k) % 90) as u8)).collect::<String>().repeat(10)
    }))) as ArrayRef;
    let id = Arc::new(Int64Array::from_iter_values(0..60_000)) as ArrayRef;
    write(&path, &RecordBatch::try_from_iter([("text", text), ("id", id)]).unwrap(), 5000);
    let source = open(&path, None).project(&[1]).unwrap();
    let splits = source.splits(false).unwrap();
    assert_eq!(splits.len(), 12, "{splits:?}");
    let mut rows = Vec::new();
    for split in &splits {
        rows.extend(drain(source.open(split, None).unwrap().as_mut(), 8192));
    }
    assert_eq!(rows, (0..60_000).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[test]
fn columns_are_matched_by_name_and_cast() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("1.parquet"), &table(3), 10);
    let narrow = RecordBatch::try_from_iter([
        ("extra", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ("id", Arc::new(arrow::array::Int32Array::from(vec![7])) as ArrayRef),
    ]);
    write(&directory.path().join("2.parquet"), &narrow.unwrap(), 10);
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    assert_eq!(check(&open(directory.path(), Some(schema)), 10), ["0", "1", "2", "7"]);
    let schema = Arc::new(Schema::new(vec![Field::new("idd", DataType::Int64, true)]));
    let error = ParquetSource::new(PathSpec::from(directory.path()), Some(schema), ParquetOptions::default()).unwrap_err();
    assert!(error.message().contains("did you mean \"id\""), "{error}");
}

#[test]
fn what_is_not_parquet_or_not_the_same_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    write(&path, &table(100), 10);
    let source = open(&path, None);
    let split = &source.splits(true).unwrap()[0];
    let mut reader = source.open(split, None).unwrap();
    let Read::Batch(_) = reader.next(10).unwrap() else { panic!() };
    let position = reader.position();
    write(&path, &table(101), 10);
    let error = source.open(split, Some(&position)).err().unwrap();
    assert!(error.message().contains("another file"), "{error}");
    std::fs::write(&path, "a,b\n1,2\n").unwrap();
    let error = ParquetSource::new(PathSpec::from(path.as_path()), None, ParquetOptions::default()).unwrap_err();
    assert!(error.message().contains("not a complete Parquet file"), "{error}");
}
