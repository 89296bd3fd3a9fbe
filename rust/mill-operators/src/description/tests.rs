use arrow::datatypes::TimeUnit;

use super::*;
use crate::accumulator::tests::{random, result_fields, spec};

fn description() -> Description {
    let sum = spec(AggregateKind::Sum, Some((1, DataType::Float64)), Some(2));
    let aggregates = vec![spec(AggregateKind::Count, None, None), sum, spec(AggregateKind::Quantile(0.9), Some((1, DataType::Int64)), None)];
    let schema = Arc::new(Schema::new(result_fields(DataType::Utf8, true, &aggregates)));
    let window = Some(Window::Tumbling { size_us: 60_000_000, offset_us: -5 });
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
    assert_eq!(window, Window::Tumbling { size_us: 60_000_000, offset_us: -5 });
    // What is shown becomes part of the fingerprint of the rows, so it must be the same to the letter.
    let shown: Vec<String> = aggregates.iter().map(|spec| format!("{spec} {}", spec.output_type)).collect();
    assert_eq!(shown, ["count_0=count() Int64", "sum_1=sum(float64).filter Float64", "quantile_1=quantile[0.9](float64) Float64"]);
}

#[test]
fn every_shortened_state_is_refused() {
    let whole = description().described().of(&[]);
    for end in 0..whole.len() {
        let error = Description::read(&whole[..end]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Checkpoint, "{end}: {error}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(own(&longer).unwrap_err().message().contains("behind its end"));
}

#[test]
fn another_version_is_named() {
    let mut bytes = description().described().of(&[]);
    bytes[8] = 9;
    let error = own(&bytes).unwrap_err();
    assert!(error.message().contains("has format 9"), "{error}");
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
        *window = Some(Window::Tumbling { size_us: 0, offset_us: 0 });
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
