use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use mill_protocol::{Clock, ManualClock, Read, Source, SplitReader};

use super::GenerateSource;

fn drain(reader: &mut dyn SplitReader, rows_max: usize) -> Vec<i64> {
    let mut values = Vec::new();
    while let Read::Batch(batch) = reader.next(rows_max).unwrap() {
        assert!(batch.num_rows() <= rows_max && batch.num_rows() > 0);
        values.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
    }
    values
}

#[test]
fn every_number_comes_once_whatever_the_splits() {
    for rows in [0, 1, 4095, 4097, 100_000] {
        let source = GenerateSource::new(Some(rows), None).unwrap();
        for is_ordered in [true, false] {
            let splits = source.splits(is_ordered).unwrap();
            let mut all: Vec<i64> =
                splits.iter().flat_map(|split| drain(source.open(split, None).unwrap().as_mut(), 1000)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..rows as i64).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_reader_goes_on_from_its_position() {
    let source = GenerateSource::new(Some(50_000), None).unwrap();
    for split in source.splits(false).unwrap() {
        let whole = drain(source.open(&split, None).unwrap().as_mut(), 900);
        let mut reader = source.open(&split, None).unwrap();
        let mut seen = 0;
        while let Read::Batch(batch) = reader.next(900).unwrap() {
            seen += batch.num_rows();
            let mut again = source.open(&split, Some(&reader.position())).unwrap();
            assert_eq!(drain(again.as_mut(), 333), whole[seen..]);
        }
    }
}

#[test]
fn a_position_goes_on_with_or_without_a_rate() {
    let clock = Arc::new(ManualClock::default());
    let free = GenerateSource::new(Some(50_000), None).unwrap();
    let paced = GenerateSource::new(Some(50_000), Some(80_000.0)).unwrap().with_clock(clock.clone());
    let read = |reader: &mut dyn SplitReader| {
        clock.set(clock.now() + 1_000_000);
        let Read::Batch(batch) = reader.next(1000).unwrap() else { panic!("a thousand rows are due") };
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    };
    for (first, second) in [(&free, &paced), (&paced, &free)] {
        let mut all = Vec::new();
        for split in first.splits(false).unwrap() {
            let mut reader = first.open(&split, None).unwrap();
            all.extend(read(reader.as_mut()));
            let mut reader = second.open(&split, Some(&reader.position())).unwrap();
            all.extend(read(reader.as_mut()));
            let mut reader = free.open(&split, Some(&reader.position())).unwrap();
            all.extend(drain(reader.as_mut(), 777));
        }
        all.sort_unstable();
        assert_eq!(all, (0..50_000).collect::<Vec<_>>());
    }
}

#[test]
fn the_rate_is_kept_and_does_not_count_what_came_before_a_restart() {
    let clock = Arc::new(ManualClock::default());
    let source = GenerateSource::new(None, Some(100.0)).unwrap().with_clock(clock.clone());
    let split = &source.splits(true).unwrap()[0];
    let mut reader = source.open(split, Some(&500u64.to_le_bytes())).unwrap();
    let Read::Pending(wait) = reader.next(1000).unwrap() else { panic!("nothing is due yet") };
    assert_eq!(wait, Duration::from_millis(10));
    clock.set(50_000);
    let Read::Batch(batch) = reader.next(1000).unwrap() else { panic!("five rows are due") };
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[500, 501, 502, 503, 504]);
    assert!(matches!(reader.next(1000).unwrap(), Read::Pending(_)));
}

#[test]
fn a_rate_of_nothing_is_refused() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(GenerateSource::new(None, Some(rate)).is_err());
    }
}
