use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_protocol::{Read, Source};

use super::{CsvOptions, CsvSource};
use crate::file::PathSpec;
use crate::testing::{check, drain, write};

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>()))
}

fn open(path: &Path, schema: Option<SchemaRef>) -> CsvSource {
    CsvSource::new(PathSpec::from(path), schema, CsvOptions::default()).unwrap()
}

fn error(path: &Path, schema: Option<SchemaRef>) -> String {
    CsvSource::new(PathSpec::from(path), schema, CsvOptions::default()).unwrap_err().message().to_owned()
}

#[test]
fn types_are_inferred_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(
        &path,
        b"\xEF\xBB\xBFid,price,ok,day,at,zoned,code,name,none\n\
          1,2.5,true,2013-01-01,2013-01-01T05:15:00,2013-01-01T05:15:00+02:00,007,\"a, \"\"b\"\"\",\n\
          -2,3,false,2013-01-02,2013-01-01 05:15:00.25,2013-01-01T05:15:00Z,010,\"\",\n",
    );
    let source = open(&path, None);
    let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
    assert_eq!(
        source.schema(),
        schema(&[
            ("id", DataType::Int64),
            ("price", DataType::Float64),
            ("ok", DataType::Boolean),
            ("day", DataType::Date32),
            ("at", micros(None)),
            ("zoned", micros(Some("UTC"))),
            ("code", DataType::Utf8),
            ("name", DataType::Utf8),
            ("none", DataType::Utf8),
        ])
    );
    assert_eq!(
        check(&source, 1),
        [
            "1|2.5|true|2013-01-01|2013-01-01T05:15:00|2013-01-01T03:15:00Z|007|a, \"b\"|∅",
            "-2|3.0|false|2013-01-02|2013-01-01T05:15:00.250|2013-01-01T05:15:00Z|010||∅",
        ]
    );
}

#[test]
fn quoted_line_ends_come_back_from_every_position() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = b"a,b\r\n".to_vec();
    let mut expected = Vec::new();
    for i in 0..3000 {
        let text = format!("x{}\ny\"{}", "é".repeat(i % 50), i);
        bytes.extend(format!("{i},\"{}\"\r\n", text.replace('"', "\"\"")).bytes());
        expected.push(format!("{i}|{text}"));
    }
    for name in ["a.csv", "a.csv.gz", "a.csv.zst"] {
        let path = directory.path().join(name);
        write(&path, &bytes);
        assert_eq!(check(&open(&path, None), 271), expected, "{name}");
    }
}

#[test]
fn malformed_records_are_told_with_file_and_line_and_the_others_kept() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.csv", "a.csv.gz"] {
        let path = directory.path().join(name);
        write(&path, b"id,name\n1,a\nx,b\n3,\"c\nc\"\n4\n5,e,5\n6,\"f\"f\n7,\xFF\n8,h\n\n9,\"open\n10,j\n");
        let source = open(&path, Some(schema(&[("id", DataType::Int64), ("name", DataType::Utf8)])));
        for rows_max in [1, 2, 3, 100] {
            let (bad, good): (Vec<String>, Vec<String>) =
                check(&source, rows_max).into_iter().partition(|row| row.starts_with('!'));
            assert_eq!(good, ["1|a", "3|c\nc", "8|h", "10|j"]);
            let expected = [
                "line 3: column \"id\": \"x\" is not an integer (Int64)",
                "line 6: 1 fields where 2 are expected",
                "line 7: 3 fields where 2 are expected",
                "line 8: text after the closing quote of a field",
                "line 9: column \"name\": \"\u{fffd}\" is not UTF-8",
                "line 12: a quote is opened and not closed",
            ]
            .map(|message| format!("!{path:?} {message}"));
            assert_eq!(bad, expected);
        }
        let mut reader = source.open(&source.splits(true).unwrap()[0], None).unwrap();
        let Read::Partial(_, rejected) = reader.next(2).unwrap() else { panic!() };
        assert_eq!(rejected[0].record, "x,b");
    }
}

#[test]
fn columns_are_matched_by_name_in_each_file() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("1.csv"), b"a,b\n1,x\n");
    write(&directory.path().join("2.csv"), b"b,a\ny,2.5\n");
    let source = open(directory.path(), None);
    assert_eq!(source.schema(), schema(&[("a", DataType::Float64), ("b", DataType::Utf8)]));
    assert_eq!(check(&source, 10), ["1.0|x", "2.5|y"]);
    let only_b = source.project(&[1]).unwrap();
    assert_eq!(check(only_b.as_ref(), 10), ["x", "y"]);
    let none = source.project(&[]).unwrap();
    assert_eq!(check(none.as_ref(), 10).len(), 2);

    write(&directory.path().join("3.csv"), b"a,c\n1,x\n");
    let source = open(directory.path(), None);
    let mut reader = source.open(&source.splits(true).unwrap()[2], None).unwrap();
    let message = reader.next(10).unwrap_err().message().to_owned();
    assert!(message.contains("3.csv") && message.contains("no column \"b\""), "{message}");
}

#[test]
fn a_schema_that_does_not_fit_is_told_with_the_nearest_names() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, b"price,qty\n1,2\n");
    let message = error(&path, Some(schema(&[("prize", DataType::Int64), ("qty", DataType::Int64)])));
    assert!(message.contains("no column \"prize\"; did you mean \"price\"?"), "{message}");
    let message = error(&path, Some(schema(&[("price", DataType::Int64)])));
    assert!(message.contains("\"qty\"") && message.contains("add them to the schema"), "{message}");
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    assert!(error(&path, Some(schema(&[("price", list)]))).contains("cannot be read from CSV"));
    write(&path, b"a,a\n1,2\n");
    assert!(error(&path, None).contains("two columns \"a\""));
    write(&path, b"");
    assert!(error(&path, None).contains("is empty"));
}

#[test]
fn every_type_that_can_be_read_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, b"u,f,d,t,s,dec\n255,1.5,2013-01-01,2013-01-01T05:15:00.123456789,05:15:00,12.345\n,,,,,\n256,1,1,1,1,x\n");
    let source = open(
        &path,
        Some(schema(&[
            ("u", DataType::UInt8),
            ("f", DataType::Float32),
            ("d", DataType::Date32),
            ("t", DataType::Timestamp(TimeUnit::Nanosecond, None)),
            ("s", DataType::Time64(TimeUnit::Microsecond)),
            ("dec", DataType::Decimal128(10, 3)),
        ])),
    );
    let rows = check(&source, 10);
    assert_eq!(rows[0], "255|1.5|2013-01-01|2013-01-01T05:15:00.123456789|05:15:00|12.345");
    assert_eq!(rows[1], "∅|∅|∅|∅|∅|∅");
    assert!(rows[2].contains("line 4: column \"u\": \"256\" is not an integer (UInt8)"), "{}", rows[2]);
}

#[test]
fn a_large_file_is_read_in_ranges_but_with_line_ends_in_quotes_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    let row = |i: usize| format!("{i},{}\n", "x".repeat(200));
    let mut bytes = b"id,text\n".to_vec();
    let mut count = 0;
    while bytes.len() < 9 << 20 {
        bytes.extend(row(count).bytes());
        count += 1;
    }
    write(&path, &bytes);
    let source = open(&path, None).project(&[0]).unwrap();
    let splits = source.splits(false).unwrap();
    assert_eq!(splits.len(), 19);
    let mut rows = Vec::new();
    for split in &splits {
        rows.extend(drain(source.open(split, None).unwrap().as_mut(), 8192));
    }
    assert_eq!(rows, (0..count).map(|i| i.to_string()).collect::<Vec<_>>());
    bytes.extend(b"1,\"x\"\n");
    write(&path, &bytes);
    assert_eq!(open(&path, None).splits(false).unwrap().len(), 19);
    bytes.extend(b"1,\"x\ny\"\n");
    write(&path, &bytes);
    assert_eq!(open(&path, None).splits(false).unwrap().len(), 1);
}

#[test]
fn a_followed_file_may_have_no_header_yet() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    let options = CsvOptions { follow: true, ..CsvOptions::default() };
    let given = schema(&[("a", DataType::Int64), ("b", DataType::Utf8)]);
    let error = CsvSource::new(PathSpec::from(directory.path()), None, options.clone()).unwrap_err();
    assert!(error.message().contains("give schema="), "{error}");
    let source = CsvSource::new(PathSpec::from(directory.path()), Some(given), options).unwrap();
    let mut bytes = Vec::new();
    let mut reader = None;
    let mut rows = Vec::new();
    for byte in b"a,b\n1,x\n2,\"y\nz\"\n3,w" {
        bytes.push(*byte);
        std::fs::write(&path, &bytes).unwrap();
        let reader = reader.get_or_insert_with(|| source.open(&source.splits(true).unwrap()[0], None).unwrap());
        rows.extend(drain(reader.as_mut(), 10));
    }
    assert_eq!(rows, ["1|x", "2|y\nz"]);
}

#[test]
fn without_a_header_columns_are_numbered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.tsv");
    write(&path, b"1\tNA\n2\t5\n");
    let options = CsvOptions {
        delimiter: b'\t',
        has_header: false,
        null_values: vec!["NA".into()],
        ..CsvOptions::default()
    };
    let source = CsvSource::new(PathSpec::from(path.as_path()), None, options).unwrap();
    assert_eq!(source.schema(), schema(&[("column_1", DataType::Int64), ("column_2", DataType::Int64)]));
    assert_eq!(check(&source, 1), ["1|∅", "2|5"]);
}
