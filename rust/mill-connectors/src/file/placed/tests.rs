use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use mill_protocol::{Result, Source};

use super::decode;
use crate::file::{FileOptions, PathSpec};
use crate::testing::{check, write};
use crate::{CsvOptions, CsvSource, TextOptions, TextSource};

fn csv(path: &Path, files: FileOptions) -> Result<Arc<dyn Source>> {
    CsvSource::new(PathSpec::from(path), None, CsvOptions { files, ..CsvOptions::default() }).and_then(CsvSource::with_options)
}

fn hive(path: &Path) -> Result<Arc<dyn Source>> {
    csv(path, FileOptions { hive_partitioning: true, ..FileOptions::default() })
}

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        write(&path, text.as_bytes());
    }
    directory
}

#[test]
fn directories_that_name_a_key_are_columns() {
    let files = [
        ("day=2024-01-31/n=1/a.csv", "a\n1\n2\n"),
        ("day=2024-02-01/n=2/a.csv", "a\n3\n"),
        ("day=__HIVE_DEFAULT_PARTITION__/n=-3/a.csv", "a\n4\n"),
        ("day=2024-02-01/n=2/.part.csv", "x"),
        ("_delta_log/n=2/a.csv", "x"),
    ];
    let directory = tree(&files);
    let source = hive(directory.path()).unwrap();
    let types: Vec<_> = source.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
    assert_eq!(types, [("a".into(), DataType::Int64), ("day".into(), DataType::Date32), ("n".into(), DataType::Int64)]);
    assert_eq!(check(source.as_ref(), 1), ["1|2024-01-31|1", "2|2024-01-31|1", "3|2024-02-01|2", "4|∅|-3"]);
    let only_day = source.project(&[1]).unwrap();
    assert_eq!(check(only_day.as_ref(), 10), ["2024-01-31", "2024-01-31", "2024-02-01", "∅"]);
    assert!(source.reads(&directory.path().join("day=2025-01-01/n=1/b.csv")));
    assert!(!source.reads(&directory.path().join("day=2025-01-01/_n/b.csv")));
}

#[test]
fn values_of_partitions_are_exact_or_an_error() {
    let directory = tree(&[("k=01/a.csv", "a\n1\n"), ("k=a%2Fb%20%zz/a.csv", "a\n2\n")]);
    assert_eq!(check(hive(directory.path()).unwrap().as_ref(), 10), ["1|01", "2|a/b %zz"]);
    let types = |data_type| Some(Arc::new(Schema::new(vec![Field::new("k", data_type, true)])));
    let options = FileOptions { hive_partitioning: true, hive_schema: types(DataType::Int64), ..FileOptions::default() };
    let error = csv(directory.path(), options).unwrap_err();
    assert!(error.message().contains("the partition k=a/b %zz is not an integer"), "{error}");
    let directory = tree(&[("k=1/a.csv", "a\n1\n"), ("j=1/a.csv", "a\n2\n")]);
    let error = hive(directory.path()).unwrap_err();
    assert!(error.message().contains("partitions of \"k\", and other files in those of \"j\""), "{error}");
    let error = hive(tree(&[("a.csv", "a\n1\n")]).path()).unwrap_err();
    assert!(error.message().contains("in no directory key=value"), "{error}");
    let directory = tree(&[("a=1/a.csv", "a,b\n7,x\n")]);
    assert_eq!(check(hive(directory.path()).unwrap().as_ref(), 10), ["x|1"]);
    assert_eq!(decode("%E4"), None);
}

#[test]
fn paths_and_rows_are_told_from_every_position() {
    let directory = tree(&[("a.csv", "a\n1\nx\n3\n"), ("b.csv", "a\n4\n5\n")]);
    let options = FileOptions { include_file_paths: Some("path".into()), row_index: Some(("row".into(), 10)), ..FileOptions::default() };
    let source = CsvSource::new(
        PathSpec::from(directory.path()),
        Some(Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]))),
        CsvOptions { files: options, ..CsvOptions::default() },
    );
    let source = source.unwrap().with_options().unwrap();
    let path = |name: &str| directory.path().canonicalize().unwrap().join(name).display().to_string();
    let (a, b) = (path("a.csv"), path("b.csv"));
    for rows_max in [1, 2, 10] {
        let rows: Vec<String> = check(source.as_ref(), rows_max).into_iter().filter(|row| !row.starts_with('!')).collect();
        assert_eq!(rows, [format!("10|1|{a}"), format!("11|3|{a}"), format!("10|4|{b}"), format!("11|5|{b}")]);
    }
    // What a job does that goes on: the positions of the splits come back with their numbers.
    let splits = source.splits(true).unwrap();
    let mut reader = source.open(&splits[1], None).unwrap();
    reader.next(1).unwrap();
    let left = splits.iter().enumerate().map(|(index, split)| mill_protocol::SplitState {
        split: split.clone(),
        position: (index == 1).then(|| reader.position()),
        is_ended: false,
    });
    let states = source.resume(false, left.collect()).unwrap();
    let mut reader = source.open(&states[1].split, states[1].position.as_deref()).unwrap();
    assert_eq!(crate::testing::drain(reader.as_mut(), 10), [format!("11|5|{b}")]);
}

#[test]
fn other_formats_have_the_same_columns() {
    let directory = tree(&[("k=1/a.log", "x\ny\n")]);
    let files = FileOptions {
        hive_partitioning: true,
        row_index: Some(("row".into(), 0)),
        columns: Some(vec!["k".into(), "line".into()]),
        ..FileOptions::default()
    };
    let source = TextSource::new(PathSpec::from(directory.path()), TextOptions { files: files.clone() }).unwrap();
    assert_eq!(check(source.with_options().unwrap().as_ref(), 10), ["0|1|x", "1|1|y"]);
    let error = csv(directory.path(), FileOptions { columns: Some(vec!["kk".into()]), ..files.clone() }).unwrap_err();
    assert!(error.message().contains("no such column"), "{error}");
    let error = csv(directory.path(), FileOptions { follow: true, ..files }).unwrap_err();
    assert!(error.message().contains("leave out one of row_index_name and follow"), "{error}");
}
