use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_protocol::Source;

use super::{JsonLayout, JsonOptions, JsonSource};
use crate::file::{FileOptions, PathSpec};
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
    write(&path, b"price,qty\n1,2\n");
    assert!(error(&path, None).contains("no line of the file's head is a JSON object"));
    write(&path, b"");
    assert!(error(&path, None).contains("no record to infer"));
}

#[test]
fn following_takes_complete_lines() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let options = JsonOptions { files: FileOptions { follow: true, ..FileOptions::default() }, ..JsonOptions::default() };
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

/// What a column of this type has for each of these values: a row, or what is wrong with the line.
fn values(data_type: DataType, values: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let lines: String = values.iter().map(|value| format!("{{\"a\":{value}}}\n")).collect();
    write(&path, lines.as_bytes());
    let source = open(&path, Some(schema(&[("a", data_type)])));
    let mut rows = check(&source, 1);
    let sorted = |mut rows: Vec<String>| {
        rows.sort();
        rows
    };
    assert_eq!(sorted(rows.clone()), sorted(check(&source, 100)), "rows do not depend on how they are batched");
    rows.iter_mut().filter(|row| row.starts_with('!')).for_each(|row| *row = row.split(": ").skip(1).collect::<Vec<_>>().join(": "));
    rows
}

#[test]
fn a_value_is_its_columns_to_the_last_digit_or_its_line_is_malformed() {
    let list = |item| DataType::List(Arc::new(Field::new("item", item, true)));
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    for (data_type, given, expected) in [
        (DataType::Int64, &["1", "1.0", "1e3", "9007199254740993", "\"5\""][..], &["1", "1", "1000", "9007199254740993", "5"][..]),
        (DataType::Int64, &["1.75"], &["column \"a\": 1.75 is not a whole number, which int64 needs"]),
        (DataType::Int64, &["9223372036854775808"], &["column \"a\": 9223372036854775808 is too large or too small for int64"]),
        (DataType::Int64, &["true"], &["column \"a\": true is not an integer (int64)"]),
        (DataType::Int64, &["\"\""], &["column \"a\": \"\" is not an integer (int64)"]),
        (DataType::Int64, &["[1]"], &["column \"a\": [1] is not an integer (int64)"]),
        (DataType::UInt8, &["255", "256"], &["255", "column \"a\": 256 is too large or too small for uint8"]),
        (DataType::Float64, &["9007199254740993"], &["column \"a\": 9007199254740993 has more digits than float64 holds"]),
        (DataType::Float64, &["0.1", "1e400"], &["0.1", "column \"a\": 1e400 is too large or too small for float64"]),
        (DataType::Decimal128(20, 2), &["123456789012345678.25", "0.001"], &[
            "123456789012345678.25", "column \"a\": 0.001 has more digits than decimal[20, 2] holds",
        ]),
        (DataType::Utf8, &["92233720368547758089", "1.50", "true", "\"\\u00e9\"", "[1, 2]", "{\"b\": null}"], &[
            "92233720368547758089", "1.50", "true", "\u{e9}", "[1, 2]", "{\"b\": null}",
        ]),
        (DataType::Boolean, &["true", "1", "\"true\""], &[
            "true", "column \"a\": 1 is not true or false", "column \"a\": \"true\" is not true or false",
        ]),
        (millis.clone(), &["1704164645123", "\"2024-01-02T03:04\""], &["2024-01-02T03:04:05.123", "2024-01-02T03:04:00"]),
        (millis, &["1.5", "\"2024-01-02T03:04:05.0001\""], &[
            "column \"a\": 1.5 has a finer fraction of a second than timestamp[ms] holds",
            "column \"a\": 2024-01-02T03:04:05.0001 has a finer fraction of a second than timestamp[ms] holds",
        ]),
        (DataType::Date32, &["\"2024-01-02\"", "1", "1.5"], &[
            "2024-01-02", "1970-01-02", "column \"a\": 1.5 has more digits than date holds",
        ]),
        (DataType::Duration(TimeUnit::Millisecond), &["\"PT90S\"", "1500", "0.5"], &[
            "PT90S", "PT1.5S", "column \"a\": 0.5 has a finer fraction of a second than duration[ms] holds",
        ]),
        (DataType::Time64(TimeUnit::Microsecond), &["\"05:15\"", "86400000000"], &[
            "05:15:00", "column \"a\": 86400000000 is too large or too small for time[us]",
        ]),
        (DataType::Binary, &["\"0aff\"", "\"0af\""], &["0aff", "column \"a\": 0af is not bytes in hexadecimal digits"]),
        (list(DataType::Int64), &["[1, 2]", "[]", "null", "[1.5]", "7"], &[
            "[1, 2]", "[]", "\u{2205}", "column \"a\": 1.5 is not a whole number, which int64 needs", "column \"a\": 7 is not list[int64]",
        ]),
        (list(DataType::Utf8), &["[1, \"x\", [true]]"], &["[1, x, [true]]"]),
    ] {
        assert_eq!(values(data_type, given), expected);
    }
}

#[test]
fn what_is_not_json_is_told_and_what_is_wrong_with_it() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for (value, expected) in [
        ("NaN", "NaN and Infinity are not JSON"),
        ("-Infinity", "NaN and Infinity are not JSON"),
        (deep.as_str(), "nested more than 128 deep"),
        ("\"\\ud800\"", "half of a surrogate pair"),
        ("\"\\x\"", "an escape that is not JSON"),
        ("\"a\tb\"", "a control character"),
        ("01", "'1' is not expected at its byte 7"),
        ("1,", "'}' is not expected at its byte 8"),
        ("1, \"a\": 2", "the object has the key \"a\" twice"),
        ("'x'", "'\\'' is not expected at its byte 6"),
    ] {
        let told = values(DataType::Utf8, &[value, "1"]);
        assert!(told[0].contains(expected) && told[1] == "1", "{value}: {told:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    write(&path, b"{\"a\": NaN}\n");
    let message = error(&path, Some(schema(&[("a", DataType::Float64)])));
    assert!(message.contains("line 1: NaN and Infinity are not JSON"), "{message}");
}

#[test]
fn values_of_several_kinds_become_text_that_keeps_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    write(&path, b"{\"a\":1,\"b\":[1],\"c\":{}}\n{\"a\":\"x\",\"b\":{\"k\":2},\"c\":null}\n{\"a\":[1.50,null]}\n");
    let source = open(&path, None);
    assert_eq!(source.schema(), schema(&[("a", DataType::Utf8), ("b", DataType::Utf8), ("c", DataType::Utf8)]));
    assert_eq!(check(&source, 10), ["1|[1]|{}", "x|{\"k\":2}|\u{2205}", "[1.50,null]|\u{2205}|\u{2205}"]);
}

#[test]
fn late_keys_and_floats_are_seen_at_the_ends_of_files_or_told_with_their_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let many = "{\"a\":5}\n".repeat(140_000);
    write(&path, format!("{many}{{\"a\":1.75,\"b\":3}}\n").as_bytes());
    let source = open(&path, None);
    assert_eq!(source.schema(), schema(&[("a", DataType::Float64), ("b", DataType::Int64)]));
    // Between the pieces that are looked at.
    write(&path, format!("{many}{many}{{\"a\":1.75}}\n{{\"b\":3}}\n{{\"a\":{{\"b\":3}}}}\n{many}{many}").as_bytes());
    let source = open(&path, None);
    assert_eq!(source.schema(), schema(&[("a", DataType::Int64)]));
    let rows = drain(source.open(&source.splits(true).unwrap()[0], None).unwrap().as_mut(), 8192);
    let told: Vec<&String> = rows.iter().filter(|row| row.starts_with('!')).collect();
    assert_eq!((rows.len(), told.len()), (560_003, 3));
    assert!(told[0].contains("line 280001: column \"a\": 1.75 is not a whole number") && told[0].contains("schema="), "{}", told[0]);
    assert!(told[1].contains("line 280002: the key \"b\"") && told[1].contains("schema="), "{}", told[1]);
    assert!(told[2].contains("line 280003: column \"a\""), "{}", told[2]);
    // A given schema chooses its keys.
    let source = open(&path, Some(schema(&[("a", DataType::Utf8), ("b", DataType::Int64)])));
    let rows = drain(source.project(&[1]).unwrap().open(&source.splits(true).unwrap()[0], None).unwrap().as_mut(), 8192);
    assert_eq!(rows.iter().filter(|row| *row == "3").count(), 1);
}

#[test]
fn keys_first_seen_in_nested_objects_are_told_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let many = "{\"a\":{\"x\":5}}\n".repeat(80_000);
    write(&path, format!("{many}{many}{{\"a\":{{\"x\":1,\"y\":2}}}}\n{many}{many}").as_bytes());
    let source = open(&path, None);
    let rows = drain(source.open(&source.splits(true).unwrap()[0], None).unwrap().as_mut(), 8192);
    let told: Vec<&String> = rows.iter().filter(|row| row.starts_with('!')).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("line 160001: column \"a\": the key \"y\""), "{}", told[0]);
}

#[test]
fn a_first_record_of_megabytes_and_files_without_records_decide_as_little_as_they_can() {
    let directory = tempfile::tempdir().unwrap();
    for (name, bytes) in [("0", String::new()), ("1", "\n\n".to_owned()), ("3", "{\"a\":\"x\"}\n".to_owned())] {
        write(&directory.path().join(name), bytes.as_bytes());
    }
    let long = "x".repeat(3 << 20);
    write(&directory.path().join("2"), format!("{{\"a\":1,\"s\":\"{long}\"}}\n{{\"a\":2,\"s\":\"y\"}}\n").as_bytes());
    let source = open(directory.path(), None);
    assert_eq!(source.schema(), schema(&[("a", DataType::Utf8), ("s", DataType::Utf8)]));
    assert_eq!(check(&source, 10)[1..], ["2|y".to_owned(), "x|\u{2205}".to_owned()]);
}

#[test]
fn large_integers_keep_their_digits_beside_larger_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    write(&path, b"{\"a\":9007199254740993,\"b\":-1}\n{\"a\":9223372036854775808,\"b\":18446744073709551616}\n");
    let source = open(&path, None);
    assert_eq!(source.schema(), schema(&[("a", DataType::UInt64), ("b", DataType::Decimal128(38, 0))]));
    assert_eq!(check(&source, 10), ["9007199254740993|-1", "9223372036854775808|18446744073709551616"]);
}

#[test]
fn objects_with_any_keys_are_maps() {
    let map = |key| {
        let entries = vec![Field::new("keys", key, false), Field::new("values", DataType::Int64, true)];
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries.into()), false)), false)
    };
    assert_eq!(values(map(DataType::Utf8), &["{\"a\\n\": 1, \"b\": null}", "{}", "null", "[1]"]), [
        "{a\n: 1, b: \u{2205}}", "{}", "\u{2205}", "column \"a\": [1] is not an object",
    ]);
    assert_eq!(values(map(DataType::Int64), &["{\"1\": 1}", "{\"x\": 1, \"2\": 2}", "{\"3\": 3}"]), [
        "{1: 1}", "column \"a\": x is not an integer (int64)", "{3: 3}",
    ]);
    assert_eq!(values(map(DataType::Boolean), &["{\"true\": 1, \"false\": 0}", "{\"1\": 1}", "{\"false\": 3}"]), [
        "{true: 1, false: 0}", "column \"a\": \"1\" is not true or false", "{false: 3}",
    ]);
}

#[test]
fn arrays_and_values_are_read_whatever_their_line_breaks() {
    let directory = tempfile::tempdir().unwrap();
    let items: Vec<String> = (0..50).map(|i| format!("{{\"a\":\n{i}, \"b\": [{{\"c\": \"]\\\"\"}}]\n}}")).collect();
    let given = schema(&[("a", DataType::Int64)]);
    let expected: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    for name in ["a.json", "a.json.gz"] {
        let path = directory.path().join(name);
        write(&path, format!("\u{feff} [{}\n]\n", items.join(",\n")).as_bytes());
        assert_eq!(check(&open(&path, Some(given.clone())), 7), expected);
        assert_eq!(open(&path, None).schema().fields().len(), 2);
        write(&path, items.join("\n\n").as_bytes());
        let options = JsonOptions { layout: JsonLayout::Values, ..JsonOptions::default() };
        let source = JsonSource::new(PathSpec::from(path.as_path()), Some(given.clone()), options).unwrap();
        assert_eq!(check(&source, 7), expected);
    }
    let path = directory.path().join("bad.json");
    write(&path, b"[{\"a\":1},\n{\"a\":\"x\"},\n3, {\"a\":4}]");
    let (bad, good): (Vec<String>, Vec<String>) =
        check(&open(&path, Some(given.clone())), 2).into_iter().partition(|row| row.starts_with('!'));
    assert_eq!((good, bad.len()), (vec!["1".to_owned(), "4".to_owned()], 2));
    assert!(bad[0].contains("line 2: column \"a\"") && bad[1].contains("line 3: the value is not a JSON object"), "{bad:?}");
    write(&path, b"[{\"a\":1},\n{\"a\":2}");
    let source = open(&path, Some(given));
    let error = source.open(&source.splits(true).unwrap()[0], None).unwrap().next(10).unwrap_err();
    assert!(error.message().contains("is no whole JSON, at \"{\\\"a\\\":2}\": the array is not closed"), "{error}");
}
