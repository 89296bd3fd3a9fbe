use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int16Array, Int64Array, ListArray, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, TimeUnit};
use arrow_row::{RowConverter, SortField};
use mill_plan::{AggregateKind, CountWindow, Firing, KeptWindow, SessionGap, Trigger};
use mill_protocol::ErrorKind;

use super::*;
use crate::accumulator::tests::{random, result_fields, spec};

fn description() -> Description {
    let sum = spec(AggregateKind::Sum, Some((1, DataType::Float64)), Some(2));
    let aggregates = vec![spec(AggregateKind::Count, None, None), sum, spec(AggregateKind::Quantile(0.9), Some((1, DataType::Int64)), None)];
    let schema = Arc::new(Schema::new(result_fields(DataType::Utf8, true, &aggregates)));
    let window = Some(WindowSpec::new(Window::Tumbling { size_us: 60_000_000, offset_us: -5 }, 0));
    Description { schema, keeps_pending: true, shape: Shape::Aggregate { keys: 1, aggregates, window } }
}

#[test]
fn what_is_written_is_read() {
    let original = description();
    let bytes = original.described().of(&[7; 8]);
    assert_eq!(own(&bytes).unwrap(), [7; 8]);
    let read = Description::read(&bytes).unwrap();
    assert_eq!(read.schema, original.schema);
    assert!(read.keeps_pending);
    let Shape::Aggregate { keys: 1, aggregates, window: Some(window) } = read.shape else { panic!("{read:?}") };
    assert_eq!(window.window, Window::Tumbling { size_us: 60_000_000, offset_us: -5 });
    // What is shown becomes part of the fingerprint of the rows, so it must be the same to the letter.
    let shown: Vec<String> = aggregates.iter().map(|spec| format!("{spec} {}", spec.output_type)).collect();
    assert_eq!(shown, ["count_0=count() Int64", "sum_1=sum(float64).filter Float64", "quantile_1=quantile[0.9](int64) Float64"]);
}

#[test]
fn every_shortened_state_is_refused() {
    let whole = description().described().of(&[]);
    for end in 0..whole.len() {
        let error = Description::read(&whole[..end]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Checkpoint, "{end}: {error}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(own(&longer).unwrap_err().message().contains("after its end"));
}

#[test]
fn another_version_is_named() {
    let mut bytes = description().described().of(&[]);
    bytes[8] = 9;
    let error = own(&bytes).unwrap_err();
    assert!(error.message().contains("has format 9"), "{error}");
}

#[test]
fn another_encoding_of_rows_is_named() {
    let mut bytes = description().described().of(&[]);
    bytes[9] = 7;
    let error = own(&bytes).unwrap_err();
    assert!(error.message().contains("version 7 of their encoding"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Checkpoint);
}

#[test]
fn state_that_names_no_encoding_is_of_the_first() {
    let mut bytes = description().described().of(&[7; 8]);
    bytes[8] = 1;
    bytes.remove(9);
    assert_eq!(own(&bytes).unwrap(), [7; 8]);
    Description::read(&bytes).unwrap();
}

/// If this fails, `arrow-row` has changed its bytes: raise [`ROW_ENCODING`], and put the new bytes here.
#[test]
fn rows_are_encoded_as_they_were_when_the_version_was_made() {
    let ints = Int64Array::from(vec![Some(-2), None]);
    let floats = Float64Array::from(vec![Some(1.5), None]);
    let texts = StringArray::from(vec![Some("Stück für Stück, und noch ein Stück"), None]);
    let flags = BooleanArray::from(vec![Some(true), None]);
    let bytes = BinaryArray::from_opt_vec(vec![Some(&b"\x00\xff"[..]), None]);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let fields = Fields::from(vec![Field::new("a", DataType::Int16, true)]);
    let members: Vec<ArrayRef> = vec![Arc::new(Int16Array::from(vec![Some(3), None]))];
    let record = StructArray::new(fields, members, Some(vec![true, false].into()));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ints),
        Arc::new(floats),
        Arc::new(texts),
        Arc::new(flags),
        Arc::new(bytes),
        Arc::new(list),
        Arc::new(record),
    ];
    let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(fields).unwrap().convert_columns(&columns).unwrap();
    let shown: Vec<String> = rows
        .iter()
        .map(|row| row.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    assert_eq!(shown, ENCODED, "{ENCODED:?}");
    let back = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect()).unwrap();
    let parser = back.parser();
    let kept: Vec<Vec<u8>> = ENCODED.iter().map(|hex| from_hex(hex)).collect();
    let decoded = back.convert_rows(kept.iter().map(|row| parser.parse(row))).unwrap();
    assert_eq!(decoded, columns);
}

const ENCODED: [&str; 2] = [
    "017ffffffffffffffe01bff8000000000000025374c3bc636b2066ffc3bc72205374c3bcff636b2c20756e6420ff6e6f63682065696eff205374c3\
     bc636b000000000000000000000000000000000000000000000000000701010200ff0000000000000202018000000100000005020000000000000000\
     050101018003",
    "000000000000000000000000000000000000000000000000000000",
];

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn changed_bytes_never_make_a_reader_panic() {
    let whole = description().described().of(&[]);
    let mut seed = 0x5eed;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(&mut seed) % 3 {
            let place = random(&mut seed) as usize % bytes.len();
            bytes[place] = random(&mut seed) as u8;
        }
        // Either it is refused, or it says something that can be built.
        let _ = crate::read_state(&[bytes.into()], &[]);
    }
}

#[test]
fn windows_without_length_are_refused() {
    let mut description = description();
    if let Shape::Aggregate { window, .. } = &mut description.shape {
        *window = Some(WindowSpec::new(Window::Tumbling { size_us: 0, offset_us: 0 }, 0));
    }
    let error = Description::read(&description.described().of(&[])).unwrap_err();
    assert!(error.message().contains("a window of 0 microseconds"), "{error}");
}

#[test]
fn columns_that_cannot_be_described_are_told() {
    let mut description = description();
    let union = arrow::datatypes::UnionFields::empty();
    let odd = DataType::Union(union, arrow::datatypes::UnionMode::Dense);
    let time = DataType::Timestamp(TimeUnit::Second, None);
    description.schema = Arc::new(Schema::new(vec![Field::new("u", odd, true), Field::new("t", time, true)]));
    let bytes = description.described().of(&[1]);
    assert_eq!(own(&bytes).unwrap(), [1]);
    assert!(Description::read(&bytes).unwrap_err().message().contains("cannot be described"));
}

#[test]
fn kept_windows_are_read_or_refused() {
    let records = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8, true), Field::new("x", DataType::Float64, true)]));
    let aggregates = vec![spec(AggregateKind::Sum, Some((1, DataType::Float64)), None)];
    let schema = Arc::new(Schema::new(result_fields(DataType::Utf8, true, &aggregates)));
    let windows = [
        KeptWindow::Session(SessionGap::Fixed(7)),
        KeptWindow::Session(SessionGap::Column(2)),
        KeptWindow::Count(CountWindow { rows: 5, slide: 2, is_partial: false }),
        KeptWindow::Aligned(Window::Sliding { size_us: 10, slide_us: 3, offset_us: 1 }),
        KeptWindow::Global,
    ];
    for window in windows {
        for trigger in [Trigger::default(), Trigger { early: Some(Firing::Rows(3)), late: None }] {
            let spec = KeptWindowSpec { window, allowed_lateness_us: 3, trigger };
            let shape =
                Shape::Kept { keys: vec![0], records: records.clone(), spec, aggregates: Some(aggregates.clone()) };
            let bytes = Description { schema: schema.clone(), keeps_pending: false, shape }.described().of(&[]);
            let Shape::Kept { keys, records: read, spec, aggregates: Some(aggregates) } = Description::read(&bytes).unwrap().shape
            else {
                panic!("another shape")
            };
            assert_eq!((keys, read, aggregates[0].input), (vec![0], records.clone(), Some(1)));
            assert_eq!(std::mem::discriminant(&spec.window), std::mem::discriminant(&window));
            assert_eq!(spec.trigger.is_default(), trigger.is_default());
            for end in 0..bytes.len() {
                assert_eq!(Description::read(&bytes[..end]).unwrap_err().kind(), ErrorKind::Checkpoint);
            }
            let mut seed = 5;
            for _ in 0..2000 {
                let mut other = bytes.clone();
                let place = random(&mut seed) as usize % other.len();
                other[place] ^= 1 << (random(&mut seed) % 8);
                drop(Description::read(&other));
            }
        }
    }
}
