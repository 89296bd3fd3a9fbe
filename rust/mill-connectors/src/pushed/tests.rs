use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use mill_protocol::{Mark, Read, Source, SplitReader, Watermark};

use super::{Allowance, PushedSource};
use crate::testing::rows_of;

fn source(splits: usize) -> PushedSource {
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    PushedSource::new("pushed", &schema, splits, false).unwrap()
}

fn batch(values: std::ops::Range<i64>) -> RecordBatch {
    let x = Arc::new(Int64Array::from_iter_values(values)) as _;
    RecordBatch::try_from_iter([("x", x)]).unwrap()
}

/// What a reader returns until it has nothing: rows as text, marks as they are.
fn read(reader: &mut dyn SplitReader, rows_max: usize) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match reader.next(rows_max).unwrap() {
            Read::Batch(batch) => found.extend(rows_of(&batch)),
            Read::Mark(mark) => found.push(format!("{mark:?}")),
            Read::Pending(_) => return found,
            Read::End => {
                found.push("end".to_owned());
                return found;
            }
            Read::Partial(..) | Read::Truncated(_) => panic!("nothing here is malformed, or a file"),
        }
    }
}

fn filled() -> PushedSource {
    let source = source(1);
    source.push(0, &batch(0..3)).unwrap();
    source.mark(0, Mark::Watermark(Watermark(7))).unwrap();
    source.push(0, &batch(3..5)).unwrap();
    source.mark(0, Mark::Idle).unwrap();
    source.push(0, &batch(5..6)).unwrap();
    source.end(0).unwrap();
    source
}

#[test]
fn a_reader_opened_at_any_position_returns_the_rest() {
    let source = filled();
    let split = source.splits(true).unwrap().remove(0);
    let all = ["0", "1", "2", "Watermark(Watermark(7))", "3", "4", "Idle", "5", "end"];
    assert_eq!(read(&mut *source.open(&split, None).unwrap(), 2), all);
    let mut reader = source.open(&split, None).unwrap();
    for read_before in 0..all.len() - 1 {
        let mut rest: Vec<&str> = all[read_before..].to_vec();
        if read_before > 0 && all[read_before - 1] == "Idle" {
            rest.insert(0, "Idle");
        }
        assert_eq!(read(&mut *source.open(&split, Some(&reader.position())).unwrap(), 100), rest);
        drop(reader.next(1).unwrap());
    }
}

#[test]
fn what_is_pushed_later_is_read_later() {
    let source = source(2);
    let splits = source.splits(false).unwrap();
    let mut reader = source.open(&splits[1], None).unwrap();
    assert!(read(&mut *reader, 10).is_empty());
    source.push(0, &batch(0..1)).unwrap();
    assert!(read(&mut *reader, 10).is_empty());
    source.push(1, &batch(1..2)).unwrap();
    assert_eq!(read(&mut *reader, 10), ["1"]);
}

#[test]
fn no_reader_hands_out_more_than_is_allowed() {
    let source = source(2);
    let splits = source.splits(false).unwrap();
    source.push(0, &batch(0..4)).unwrap();
    source.push(1, &batch(4..8)).unwrap();
    let allowance = Allowance::new(5);
    source.allow(Some(allowance.clone()));
    let mut first = source.open(&splits[0], None).unwrap();
    let mut second = source.open(&splits[1], None).unwrap();
    assert_eq!(read(&mut *first, 3), ["0", "1", "2", "3"]);
    assert_eq!((read(&mut *second, 3), allowance.left()), (vec!["4".to_owned()], 0));
    source.allow(None);
    assert_eq!(read(&mut *second, 3), ["5", "6", "7"]);
}

#[test]
fn nothing_follows_the_end_of_a_split() {
    let source = filled();
    source.end(0).unwrap();
    let refused = source.push(0, &batch(0..1)).unwrap_err();
    assert_eq!(refused.message(), "split 0 of pushed has ended; nothing follows its end");
    let refused = source.mark(3, Mark::Idle).unwrap_err();
    assert_eq!(refused.message(), "pushed has no split 3; there are 1, numbered from 0");
}

#[test]
fn a_position_after_the_log_is_refused() {
    let source = filled();
    let split = source.splits(true).unwrap().remove(0);
    let mut reader = source.open(&split, None).unwrap();
    read(&mut *reader, 10);
    let Err(refused) = self::source(1).open(&split, Some(&reader.position())) else { panic!("it is refused") };
    assert!(refused.message().contains("read more of \"pushed split 0\" than was pushed"), "{refused}");
}
