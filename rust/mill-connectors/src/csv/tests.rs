use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_protocol::{Read, Source};

use super::{CsvOptions, CsvSource};
use crate::file::{FileOptions, PathSpec};
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
    for name in ["a.csv", "a.csv.gz", "a.csv.zst", "a.csv.bz2", "a.csv.lz4", "a.csv.xz"] {
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
                "line 3: column \"id\": \"x\" is not an integer (int64)",
                "line 6: 1 field where 2 are expected",
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
    assert!(rows[2].contains("line 4: column \"u\": \"256\" is too large or too small for uint8"), "{}", rows[2]);
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
    let options = CsvOptions { files: FileOptions { follow: true, ..FileOptions::default() }, ..CsvOptions::default() };
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
        separator: b'\t',
        has_header: false,
        null_values: vec!["NA".into()],
        ..CsvOptions::default()
    };
    let source = CsvSource::new(PathSpec::from(path.as_path()), None, options).unwrap();
    assert_eq!(source.schema(), schema(&[("column_1", DataType::Int64), ("column_2", DataType::Int64)]));
    assert_eq!(check(&source, 1), ["1|∅", "2|5"]);
}

/// What a column of this type has for each of these fields: a row, or what is wrong with the line.
fn values(data_type: DataType, fields: &[&str]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, format!("a,b\n{}", fields.iter().map(|field| format!("{field},x\n")).collect::<String>()).as_bytes());
    let source = open(&path, Some(schema(&[("a", data_type), ("b", DataType::Utf8)]))).project(&[0]).unwrap();
    let told = |row: String| if row.starts_with('!') { row.split(": ").skip(1).collect::<Vec<_>>().join(": ") } else { row };
    check(source.as_ref(), 10).into_iter().map(told).collect()
}

#[test]
fn a_field_is_its_columns_to_the_last_digit_or_its_record_is_malformed() {
    let millis = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Millisecond, zone.map(Into::into));
    for (data_type, given, expected) in [
        (DataType::Int64, &["+1", "007", "1e5", "\"\"", " 2 "][..], &["1", "7", "100000", "\u{2205}", "2"][..]),
        (DataType::Int64, &["1.5"], &["column \"a\": \"1.5\" is not a whole number, which int64 needs"]),
        (DataType::Float64, &["1e309"], &["column \"a\": \"1e309\" is too large or too small for float64"]),
        (DataType::Float32, &["1e39"], &["column \"a\": \"1e39\" is too large or too small for float32"]),
        (DataType::Decimal128(5, 2), &["1.25", "1.255", "12345"], &[
            "1.25", "column \"a\": \"1.255\" has more digits than decimal[5, 2] holds",
            "column \"a\": \"12345\" is too large or too small for decimal[5, 2]",
        ]),
        (millis(None), &["1704164645123", "2024-01-02T03:04:05.123456"], &[
            "2024-01-02T03:04:05.123",
            "column \"a\": \"2024-01-02T03:04:05.123456\" has a finer fraction of a second than timestamp[ms] holds",
        ]),
        (millis(None), &["2024-01-02T03:04:05Z", "2024-01-02T03:04:05+02:00"], &[
            "2024-01-02T03:04:05",
            "column \"a\": \"2024-01-02T03:04:05+02:00\" has an offset, and timestamp[ms] has no time zone \
             (mill.Timestamp(unit, tz=\"UTC\") has one)",
        ]),
        (DataType::Date32, &["20240102", "19000"], &["2024-01-02", "column \"a\": \"19000\" is not a date in ISO 8601"]),
        (DataType::Duration(TimeUnit::Second), &["PT1H", "90", "P1Y"], &[
            "PT3600S", "PT90S", "column \"a\": \"P1Y\" is not a duration in ISO 8601, such as PT1.5S",
        ]),
        (DataType::Boolean, &["True", "0", "yes"], &["true", "false", "column \"a\": \"yes\" is not true or false"]),
        (DataType::Utf8, &["", "\"\"", "\"say \"\"x\"\"\""], &["\u{2205}", "", "say \"x\""]),
    ] {
        assert_eq!(values(data_type, given), expected);
    }
}

#[test]
fn a_carriage_return_alone_ends_no_line_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, b"a,b\r1,x\r2,y\r");
    assert!(error(&path, None).contains("a carriage return without a line feed"));
    assert!(error(&path, Some(schema(&[("a", DataType::Int64), ("b", DataType::Utf8)]))).contains("a carriage return"));
    write(&path, b"a,b\r\n1,x\r2,y\r\n3,\"z\rz\"\r\n4,w\r5,v\r\n6,u\r");
    let rows = check(&open(&path, Some(schema(&[("a", DataType::Int64), ("b", DataType::Utf8)]))), 10);
    assert_eq!((rows[0].as_str(), rows[1].as_str()), ("3|z\rz", "6|u"));
    assert!(rows[2].contains("line 2: 3 fields") && rows[3].contains("line 4"), "{rows:?}");
    write(&path, b"a,b\n1,x\ry\n");
    let rows = check(&open(&path, None), 10);
    assert!(rows[0].contains("line 2: a carriage return without a line feed"), "{rows:?}");
}

#[test]
fn files_without_records_and_pieces_of_the_rest_decide_types() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("0", ""), ("1", "a,b\n"), ("2", "b,a\n\n"), ("3", "a,b\n1,x\n"), ("4", "a,b\n")] {
        write(&directory.path().join(name), text.as_bytes());
    }
    let source = open(directory.path(), None);
    assert_eq!(source.schema(), schema(&[("a", DataType::Int64), ("b", DataType::Utf8)]));
    let path = directory.path().join("3");
    write(&path, format!("a,b\n{}1.5,x\n", "1,x\n".repeat(500_000)).as_bytes());
    assert_eq!(open(&path, None).schema(), schema(&[("a", DataType::Float64), ("b", DataType::Utf8)]));
    let many = "1,x\n".repeat(500_000);
    write(&path, format!("a,b\n{many}{many}1.5,x\n{many}{many}").as_bytes());
    let source = open(&path, None);
    let rows = drain(source.open(&source.splits(true).unwrap()[0], None).unwrap().as_mut(), 8192);
    let told: Vec<&String> = rows.iter().filter(|row| row.starts_with('!')).collect();
    assert!(told.len() == 1 && told[0].contains("line 1000002: column \"a\": \"1.5\"") && told[0].contains("schema="), "{told:?}");
}

#[test]
fn integers_of_more_than_64_bits_and_codes_keep_their_digits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, b"id,big,code,phone\n9007199254740993,-1,007,+49\n9223372036854775808,18446744073709551616,8,1\n");
    let source = open(&path, None);
    let types: Vec<DataType> = source.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [DataType::UInt64, DataType::Decimal128(38, 0), DataType::Utf8, DataType::Utf8]);
    assert_eq!(check(&source, 10), ["9007199254740993|-1|007|+49", "9223372036854775808|18446744073709551616|8|1"]);
}

#[test]
fn errors_name_no_option_that_python_does_not_have() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, b"a,a\n1,2\n");
    let message = error(&path, None);
    assert!(message.contains("two columns \"a\"") && !message.contains("has_header"), "{message}");
}

/// The rows of a file read so.
fn read_by(text: &[u8], options: CsvOptions) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, text);
    let source = CsvSource::new(PathSpec::from(path.as_path()), None, options).unwrap();
    let told = |row: String| if row.starts_with('!') { row.split(": ").skip(1).collect::<Vec<_>>().join(": ") } else { row };
    check(&source, 2).into_iter().map(told).collect()
}

fn refused(text: &[u8], options: CsvOptions) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, text);
    CsvSource::new(PathSpec::from(path.as_path()), None, options).unwrap_err().message().to_owned()
}

#[test]
fn what_comes_before_the_records_is_passed_over() {
    let options = CsvOptions {
        skip_lines: 1,
        skip_rows: 2,
        skip_rows_after_header: 1,
        comment_prefix: Some("#".into()),
        ..CsvOptions::default()
    };
    let text = b"\xEF\xBB\xBFa 5\" pipe\n#c\nx\n\"y\nz\"\n#c\na,b\nint,text\n1,x\n#\"\n\"#2\",y\n";
    assert_eq!(read_by(text, options.clone()), ["1|x", "#2|y"]);
    assert_eq!(read_by(b"a 5\" pipe\nx\ny\na,b\n", options.clone()), Vec::<String>::new());
    let message = refused(b"1\n2\n", options);
    assert!(message.contains("has no line after those that skip_lines=1"), "{message}");
    let options = CsvOptions { skip_rows: 1, has_header: false, ..CsvOptions::default() };
    assert_eq!(read_by(b"x\n1,2\n3,4\n", options), ["1|2", "3|4"]);
}

#[test]
fn names_of_the_user_go_by_position_in_files_of_one_header() {
    let options = CsvOptions { new_columns: Some(vec!["x".into(), "y".into()]), ..CsvOptions::default() };
    assert_eq!(read_by(b"a,a\n1,2\n", options.clone()), ["1|2"]);
    assert!(refused(b"a,b,c\n1,2,3\n", options.clone()).contains("has 3 columns (\"a\", \"b\", \"c\"), and new_columns names 2"));
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("1.csv"), b"a,b\n1,2\n");
    write(&directory.path().join("2.csv"), b"b,a\n1,2\n");
    let source = CsvSource::new(PathSpec::from(directory.path()), None, options.clone()).unwrap();
    let splits = source.splits(true).unwrap();
    source.open(&splits[0], None).unwrap().next(10).unwrap();
    let error = source.open(&splits[1], None).unwrap().next(10).unwrap_err();
    assert!(error.message().contains("have the same header"), "{error}");
    let options = CsvOptions { has_header: false, ..options };
    assert_eq!(read_by(b"1,2\n", options), ["1|2"]);
}

#[test]
fn numbers_may_have_a_comma_and_then_have_no_point() {
    let options = CsvOptions { separator: b';', decimal_comma: true, ..CsvOptions::default() };
    assert_eq!(read_by(b"a;b;c\n1,5;1.5;2024-01-01\n2;2.25;2024-01-02\n", options.clone()), ["1.5|1.5|2024-01-01", "2.0|2.25|2024-01-02"]);
    let many = "a;b\n1,5;x\n1.234;x\n";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    write(&path, many.as_bytes());
    let given = Some(schema(&[("a", DataType::Float64), ("b", DataType::Utf8)]));
    let source = CsvSource::new(PathSpec::from(path.as_path()), given, options.clone()).unwrap();
    let rows = drain(source.open(&source.splits(true).unwrap()[0], None).unwrap().as_mut(), 10);
    assert!(rows[1].ends_with("line 3: column \"a\": \"1.234\" is not a number"), "{rows:?}");
    assert!(refused(b"a\n", CsvOptions { separator: b',', ..options }).contains("with decimal_comma the separator is another"));
}

#[test]
fn nulls_dates_ragged_lines_and_bytes_are_read_as_told() {
    let nulls = CsvOptions {
        null_values: vec!["NA".into()],
        column_nulls: vec![("b".into(), vec!["-\"".into()])],
        ..CsvOptions::default()
    };
    assert_eq!(read_by(b"a,b\nNA,\"NA\"\n1,\"-\"\"\"\n2,2\n", nulls.clone()), ["\u{2205}|\u{2205}", "1|\u{2205}", "2|2"]);
    let other = CsvOptions { column_nulls: vec![("bb".into(), Vec::new())], ..nulls };
    assert!(refused(b"aa,b\n1,2\n", other).contains("there is no column \"bb\"; did you mean"));
    let dates = CsvOptions { try_parse_dates: false, ..CsvOptions::default() };
    assert_eq!(read_by(b"a,b\n2024-01-31 05:15,20240131\n", dates), ["2024-01-31 05:15|20240131"]);
    let ragged = CsvOptions { truncate_ragged_lines: true, ..CsvOptions::default() };
    assert_eq!(read_by(b"a,b\n1,2,3\n4\n\n5,6\n", ragged), ["1|2", "4|\u{2205}", "5|6"]);
    let lossy = CsvOptions { is_lossy: true, ..CsvOptions::default() };
    assert_eq!(read_by(b"\xFF,b\nx\xFFy,\"\xFF\"\"\"\nz,w\n", lossy), ["x\u{fffd}y|\u{fffd}\"", "z|w"]);
}

#[test]
fn columns_that_a_file_lacks_are_null_if_they_may_be() {
    let directory = tempfile::tempdir().unwrap();
    write(&directory.path().join("1.csv"), b"a,b\n1,x\n");
    write(&directory.path().join("2.csv"), b"c,a\n2.5,2\n");
    let files = FileOptions { insert_missing_columns: true, ..FileOptions::default() };
    let options = CsvOptions { files, ..CsvOptions::default() };
    let source = CsvSource::new(PathSpec::from(directory.path()), None, options).unwrap();
    assert_eq!(check(&source, 10), ["1|x|\u{2205}", "2|\u{2205}|2.5"]);
    let only_b = source.project(&[1]).unwrap();
    assert_eq!(check(only_b.as_ref(), 10), ["x", "\u{2205}"]);
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let by = CsvOptions::default;
    for (options, expected) in [
        (CsvOptions { separator: b'"', ..by() }, "separator and quote_char are the same character"),
        (CsvOptions { separator: b'\n', ..by() }, "separator is one ASCII character that ends no line"),
        (CsvOptions { quote: None, escape: Some(b'\\'), ..by() }, "escape_char has a meaning within quotes only"),
        (CsvOptions { escape: Some(b','), ..by() }, "separator and escape_char are the same"),
        (CsvOptions { comment_prefix: Some(String::new()), ..by() }, "comment_prefix is a text"),
        (CsvOptions { comment_prefix: Some("\"#".into()), ..by() }, "begins as a record may"),
        (CsvOptions { has_header: false, skip_rows_after_header: 1, ..by() }, "use skip_rows"),
        (CsvOptions { new_columns: Some(vec!["a".into(), "a".into()]), ..by() }, "new_columns has \"a\" twice"),
    ] {
        let message = refused(b"a,b\n1,2\n", options);
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(CsvOptions { escape: Some(b'\\'), separator: b'\t', quote: None, ..by() }.text(), ", separator=\"\\t\", quote_char=None, escape_char=\"\\\\\"");
}
