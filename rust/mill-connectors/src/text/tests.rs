use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use mill_protocol::{Read, Source};

use super::{TextOptions, TextSource};
use crate::file::PathSpec;
use crate::testing::{check, drain, write};

fn source(path: &Path, follow: bool) -> TextSource {
    TextSource::new(PathSpec::from(path), TextOptions { follow }).unwrap()
}

fn lines(count: usize) -> (Vec<String>, Vec<u8>) {
    let lines: Vec<String> = (0..count).map(|i| format!("{i}:{}", "é".repeat(i * 31 % 97))).collect();
    let bytes = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
    (lines, bytes)
}

#[test]
fn lines_come_back_from_every_position_plain_and_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let (lines, bytes) = lines(20_000);
    for name in ["a.txt", "a.txt.gz", "a.txt.zst"] {
        let path = directory.path().join(name);
        write(&path, &bytes);
        assert_eq!(check(&source(&path, false), 1000), lines, "{name}");
    }
}

#[test]
fn endings_of_all_kinds_are_taken_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes, expected) in [
        (&b""[..], vec![]),
        (b"\n", vec![""]),
        (b"a", vec!["a"]),
        (b"a\r\nb\r\n", vec!["a", "b"]),
        (b"a\n\nb", vec!["a", "", "b"]),
        (b"\xEF\xBB\xBFa\nb\n", vec!["a", "b"]),
    ] {
        for name in ["a.txt", "a.txt.gz", "a.txt.zst"] {
            let path = directory.path().join(name);
            write(&path, bytes);
            for rows_max in [1, 2, 100] {
                assert_eq!(check(&source(&path, false), rows_max), expected, "{bytes:?}");
            }
        }
    }
}

#[test]
fn a_large_file_is_cut_into_ranges_that_own_each_line_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.txt");
    // Lines whose ends fall around the borders of the ranges, one of them longer than a range.
    let mut bytes = Vec::new();
    let mut count = 0;
    while bytes.len() < 70 << 20 {
        let length = if count == 900 { 5 << 20 } else { 16_384 - 1 - count % 3 % 2 };
        bytes.extend(format!("{count:08}").bytes());
        bytes.resize(bytes.len() + length - 8, b'x');
        bytes.push(b'\n');
        count += 1;
    }
    write(&path, &bytes);
    let source = source(&path, false);
    let splits = source.splits(false).unwrap();
    assert_eq!(splits.len(), bytes.len().div_ceil(1 << 20));
    let mut numbers = Vec::new();
    for split in splits {
        let mut reader = source.open(&split, None).unwrap();
        let mut rows = Vec::new();
        loop {
            let mut again = source.open(&split, Some(&reader.position())).unwrap();
            let next = reader.next(500).unwrap();
            match (next, again.next(500).unwrap()) {
                (Read::Batch(a), Read::Batch(b)) => {
                    assert_eq!(a.slice(0, 1), b.slice(0, 1));
                    rows.push(a);
                }
                (Read::End, Read::End) => break,
                other => panic!("{other:?}"),
            }
        }
        for batch in rows {
            let column = arrow::array::AsArray::as_string::<i32>(batch.column(0));
            numbers.extend(column.iter().map(|line| line.unwrap()[..8].parse::<usize>().unwrap()));
        }
    }
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

#[test]
fn a_line_that_is_not_text_is_rejected_with_its_number_and_the_others_kept() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.txt", "a.txt.gz"] {
        let path = directory.path().join(name);
        write(&path, b"one\ntw\xFFo\nthree\n");
        let rows = check(&source(&path, false), 2);
        assert_eq!(rows.len(), 3);
        assert!(rows.contains(&format!("!{path:?} line 2: the line is not UTF-8 (byte 3)")), "{rows:?}");
    }
}

#[test]
fn a_file_that_changed_since_the_checkpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.txt", "a.txt.gz"] {
        let path = directory.path().join(name);
        let (_, bytes) = lines(1000);
        write(&path, &bytes);
        let source = source(&path, false);
        let split = &source.splits(true).unwrap()[0];
        let mut reader = source.open(split, None).unwrap();
        let Read::Batch(_) = reader.next(900).unwrap() else { panic!() };
        let position = reader.position();
        let refused = |bytes: &[u8]| {
            write(&path, bytes);
            source.open(split, Some(&position)).err().unwrap().message().to_owned()
        };
        let other: Vec<u8> = bytes.iter().map(|b| b.to_ascii_uppercase() ^ 1).collect();
        assert!(refused(&other).contains("another file"), "{name}");
        let error = refused(&bytes[..100]);
        assert!(error.contains("shorter") || error.contains("another file"), "{name}: {error}");
        write(&path, &bytes);
        assert_eq!(drain(source.open(split, Some(&position)).unwrap().as_mut(), 10).len(), 100);
    }
}

#[test]
fn following_takes_complete_lines_of_growing_and_new_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    std::fs::write(&path, "one\ntw").unwrap();
    let source = source(directory.path(), true);
    assert!(!source.properties().is_bounded && source.properties().discovers_splits);
    let split = &source.splits(false).unwrap()[0];
    let mut reader = source.open(split, None).unwrap();
    assert_eq!(drain(reader.as_mut(), 10), ["one"]);
    let position = reader.position();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"o\nthree\n").unwrap();
    assert_eq!(drain(reader.as_mut(), 10), ["two", "three"]);
    assert_eq!(drain(source.open(split, Some(&position)).unwrap().as_mut(), 10), ["two", "three"]);
    std::fs::write(directory.path().join("b.txt"), "x\n").unwrap();
    std::fs::write(directory.path().join(".c.txt"), "x\n").unwrap();
    assert_eq!(source.splits(false).unwrap().len(), 2);

    file.set_len(2).unwrap();
    assert!(reader.next(10).unwrap_err().message().contains("truncated"));
    std::fs::remove_file(&path).unwrap();
    assert!(reader.next(10).unwrap_err().message().contains("deleted"));
    std::fs::write(&path, "a new file that is longer than the old one\n").unwrap();
    assert!(reader.next(10).unwrap_err().message().contains("replaced"));
}

#[test]
fn a_truncated_compressed_file_is_an_error_and_not_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt.gz");
    write(&path, &lines(5000).1);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let source = source(&path, false);
    let mut reader = source.open(&source.splits(true).unwrap()[0], None).unwrap();
    let error = loop {
        match reader.next(100) {
            Ok(Read::Batch(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.message().contains("middle of its compressed data"), "{error}");
}
