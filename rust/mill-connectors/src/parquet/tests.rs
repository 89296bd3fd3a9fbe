use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use ::parquet::file::metadata::PageIndexPolicy;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, Int64Array, LargeStringArray, ListArray, RecordBatch, StringViewArray, StructArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_protocol::{Comparison, Condition, Read, Source};
use proptest::prelude::*;

use super::{ParquetOptions, ParquetSource};
use crate::file::PathSpec;
use crate::condition::meets;
use crate::testing::{check, check_kept, drain, rows_of};

/// Small, so that there are several pages in a row group.
const PAGE_ROWS: usize = 40;

fn write(path: &Path, batch: &RecordBatch, group_rows: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
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

/// Three columns whose values come in runs, so that some row groups are ruled out, some are met by few rows and some by all.
fn runs(rows: i64) -> RecordBatch {
    let number = Arc::new(Int64Array::from_iter((0..rows).map(|i| (i % 11 > 0).then_some(i / 10)))) as ArrayRef;
    let real = Arc::new(arrow::array::Float64Array::from_iter((0..rows).map(|i| match i % 97 {
        0 => None,
        1 => Some(f64::NAN),
        _ => Some((i / 50) as f64 / 2.0),
    }))) as ArrayRef;
    let text = Arc::new(LargeStringArray::from_iter((0..rows).map(|i| (i % 13 > 0).then(|| format!("{:03}", i / 40))))) as ArrayRef;
    RecordBatch::try_from_iter([("number", number), ("real", real), ("text", text)]).unwrap()
}

fn conditions(number: (Comparison, i64), real: (Comparison, f64), text: (Comparison, &str), which: u8) -> Vec<Condition> {
    let condition = |column: &str, comparison, value| Condition { column: column.to_owned(), comparison, value };
    let all = [
        condition("number", number.0, Arc::new(Int64Array::from(vec![number.1])) as ArrayRef),
        condition("real", real.0, Arc::new(arrow::array::Float64Array::from(vec![real.1]))),
        condition("text", text.0, Arc::new(arrow::array::StringArray::from(vec![text.1]))),
    ];
    all.into_iter().enumerate().filter(|(i, _)| which >> i & 1 == 1).map(|(_, condition)| condition).collect()
}

fn comparison() -> impl Strategy<Value = Comparison> {
    proptest::sample::select(vec![Comparison::Eq, Comparison::Lt, Comparison::LtEq, Comparison::Gt, Comparison::GtEq])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn every_row_that_meets_the_conditions_is_given_once_from_any_position(
        number in (comparison(), -2i64..44), real in (comparison(), -1i64..6), text in (comparison(), 0u32..12),
        which in 1u8..8, group_rows in 20usize..500, rows_max in 1usize..90,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        let table = runs(410);
        write(&path, &table, group_rows);
        let text_bound = format!("{:03}", text.1);
        let conditions = conditions(number, (real.0, real.1 as f64), (text.0, &text_bound), which);
        let all = open(&path, None);
        let filtered = all.filter(&conditions).unwrap();

        // The oracle: rows of the whole table that meet all of them.
        let plain = RecordBatch::try_new(all.schema(), vec![
            table.column(0).clone(), table.column(1).clone(), arrow::compute::cast(table.column(2), &DataType::Utf8).unwrap(),
        ]).unwrap();
        let is_met = |row: usize| conditions.iter().all(|condition| {
            let column = plain.column_by_name(&condition.column).unwrap();
            let found = meets(condition, column).unwrap();
            arrow::array::Array::is_valid(&found, row) && found.value(row)
        });
        let wanted: Vec<String> =
            rows_of(&plain).into_iter().enumerate().filter(|(row, _)| is_met(*row)).map(|(_, text)| text).collect();
        let given = check_kept(filtered.as_ref(), rows_max, |row| wanted.iter().any(|wanted| wanted == row));
        let kept: Vec<&String> = given.iter().filter(|row| wanted.contains(row)).collect();
        prop_assert_eq!(kept, wanted.iter().collect::<Vec<_>>());
        let total = rows_of(&plain);
        prop_assert!(given.iter().all(|row| total.contains(row)));
    }
}

#[test]
fn a_position_means_the_same_with_and_without_conditions() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    write(&path, &runs(400), 100);
    let all = open(&path, None).project(&[0]).unwrap();
    let filtered = all.filter(&conditions((Comparison::GtEq, 15), (Comparison::Eq, 0.0), (Comparison::Eq, ""), 1)).unwrap();
    let split = &all.splits(true).unwrap()[0];
    let mut reader = filtered.open(split, None).unwrap();
    let Read::Batch(first) = reader.next(7).unwrap() else { panic!() };
    assert_eq!(rows_of(&first), ["15", "15", "15", "15", "15", "15", "15"]);
    // Row 150 is the first with 15, and 154 has none.
    let rest = drain(all.open(split, Some(&reader.position())).unwrap().as_mut(), 1000);
    assert_eq!(rest.len(), 400 - 158);
    assert_eq!(filtered.name(), format!("read_parquet({path:?}) where number >= 15"));
}

#[test]
fn row_groups_that_are_ruled_out_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    write(&path, &runs(400), 100);
    // Damages the pages of all row groups but the last; the footer stays as it is.
    let mut bytes = std::fs::read(&path).unwrap();
    let source = open(&path, None);
    let (_, file) = source.open_file(&path).unwrap();
    let last = file.metadata.metadata().row_group(3).column(0).byte_range().0 as usize;
    bytes[4..last].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let wanted = conditions((Comparison::Gt, 30), (Comparison::Eq, 0.0), (Comparison::Eq, ""), 1);
    assert_eq!(check(source.filter(&wanted).unwrap().as_ref(), 1000).len(), 82);
}

#[test]
fn pages_that_are_ruled_out_are_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    write(&path, &runs(400), 400);
    let wanted = conditions((Comparison::Gt, 30), (Comparison::Eq, 0.0), (Comparison::Eq, ""), 1);
    let source = open(&path, None).project(&[0]).unwrap().filter(&wanted).unwrap();
    let expected = check(source.as_ref(), 1000);
    // Rows from 310 on are wanted; the seven pages before the one they begin in are damaged.
    let file = File::open(&path).unwrap();
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&file, options).unwrap();
    let pages = metadata.metadata().offset_index().unwrap()[0][0].page_locations().clone();
    assert_eq!(pages.len(), 10);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[pages[0].offset as usize..pages[7].offset as usize].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(expected.len(), 82);
    assert_eq!(check(source.as_ref(), 1000), expected);
}
