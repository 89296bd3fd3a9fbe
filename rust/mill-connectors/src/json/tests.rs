use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_protocol::Source;

use super::{JsonOptions, JsonSource};
use crate::file::PathSpec;
use crate::testing::{check, drain, write};

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>()))
}

fn open(path: &Path, schema: Option<SchemaRef>) -> JsonSource {
    JsonSource::new(PathSpec::from(path), schema, JsonOptions::default()).unwrap()
}

fn error(path: &Path, schema: Option<SchemaRef>) -> String {
    JsonSource::new(PathSpec::from(path), schema, JsonOptions::default()).unwrap_err().message().to_owned()
}

#[test]
fn types_are_inferred_in_the_order_the_records_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    write(
        &path,
        b"{\"z\":1,\"at\":\"2013-01-01T05:15:00\",\"tags\":[\"a\",\"b\"],\"who\":{\"name\":\"x\",\"age\":null}}\n\
          {\"z\":2.5,\"ok\":true,\"at\":\"2013-01-01\",\"who\":{\"age\":3},\"none\":null}\n",
    );
    let source = open(&path, None);
    let who = DataType::Struct(
        vec![Field::new("name", DataType::Utf8, true), Field::new("age", DataType::Int64, true)].into(),
    );
    assert_eq!(
        source.schema(),
        schema(&[
            ("z", DataType::Float64),
            ("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
            ("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)))),
            ("who", who),
            ("ok", DataType::Boolean),
            ("none", DataType::Utf8),
        ])
    );
    let rows = check(source.project(&[source.schema().index_of("at").unwrap()]).unwrap().as_ref(), 1);
    assert_eq!(rows, ["2013-01-01T05:15:00", "2013-01-01T00:00:00"]);
}

#[test]
fn records_come_back_from_every_position_plain_and_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for i in 0..5000 {
        bytes.extend(format!("{{\"id\": {i}, \"text\": \"{}\\n\\u00e9\"}}\r\n", "x".repeat(i % 40)).bytes());
        if i % 100 == 0 {
            bytes.extend(b"\n  \n");
        }
        expected.push(format!("{i}|{}\né", "x".repeat(i % 40)));
    }
    let given = schema(&[("id", DataType::Int64), ("text", DataType::Utf8)]);
    for name in ["a.json", "a.json.gz", "a.json.zst"] {
        let path = directory.path().join(name);
        write(&path, &bytes);
        assert_eq!(check(&open(&path, Some(given.clone())), 333), expected, "{name}");
    }
}

#[test]
fn malformed_lines_are_told_and_the_others_kept_however_they_are_batched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    write(
        &path,
        b"{\"id\":1}\n{\"id\":\n2}\n{\"id\":3}{\"id\":4}\n{\"id\":\"x\"}\n[5]\n{\"id\":6,\"other\":{\"a\":[1]}}\n\
          {\"id\":7}\xFF\n{\"ID\":8}\n{\"id\":9",
    );
    let source = open(&path, Some(schema(&[("id", DataType::Int64)])));
    for rows_max in [1, 2, 3, 4, 100] {
        let (bad, good): (Vec<String>, Vec<String>) =
            check(&source, rows_max).into_iter().partition(|row| row.starts_with('!'));
        assert_eq!(good, ["1", "6", "∅"]);
        let lines: Vec<&str> = bad
            .iter()
            .map(|row| row.split(" line ").nth(1).unwrap().split(':').next().unwrap())
            .collect();
        assert_eq!(lines, ["2", "3", "4", "5", "6", "8", "10"], "{bad:?}");
        assert!(bad[0].contains("not one complete JSON object"), "{}", bad[0]);
    }
}

#[test]
fn a_misspelt_column_and_other_forms_of_json_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    write(&path, b"{\"price\":1}\n{\"qty\":2}\n");
    let message = error(&path, Some(schema(&[("prize", DataType::Int64)])));
    assert!(message.contains("but they have \"price\""), "{message}");
    // A column that may come later is not misspelt.
    open(&path, Some(schema(&[("discount", DataType::Int64)])));
    write(&path, b"[{\"price\":1},\n{\"price\":2}]\n");
    assert!(error(&path, None).contains("one JSON array"));
    write(&path, b"price,qty\n1,2\n");
    assert!(error(&path, None).contains("no line of its head is a JSON object"));
    write(&path, b"");
    assert!(error(&path, None).contains("no record to infer"));
}

#[test]
fn following_takes_complete_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let options = JsonOptions { follow: true };
    let given = schema(&[("a", DataType::Int64)]);
    let source = JsonSource::new(PathSpec::from(directory.path()), Some(given), options).unwrap();
    let mut bytes = Vec::new();
    let mut rows = Vec::new();
    let mut reader = None;
    for byte in b"{\"a\":1}\n{\"a\":2}\n{\"a\":3}" {
        bytes.push(*byte);
        std::fs::write(&path, &bytes).unwrap();
        let reader = reader.get_or_insert_with(|| source.open(&source.splits(true).unwrap()[0], None).unwrap());
        rows.extend(drain(reader.as_mut(), 10));
    }
    assert_eq!(rows, ["1", "2"]);
}

#[test]
fn a_large_file_is_read_in_ranges() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let mut bytes = Vec::new();
    let mut count = 0;
    while bytes.len() < 9 << 20 {
        bytes.extend(format!("{{\"id\":{count},\"text\":\"{}\"}}\n", "x".repeat(500)).bytes());
        count += 1;
    }
    write(&path, &bytes);
    let source = open(&path, Some(schema(&[("id", DataType::Int64)])));
    let splits = source.splits(false).unwrap();
    assert_eq!(splits.len(), 19);
    let mut rows = Vec::new();
    for split in &splits {
        rows.extend(drain(source.open(split, None).unwrap().as_mut(), 8192));
    }
    assert_eq!(rows, (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
}
