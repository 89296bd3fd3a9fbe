use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, UInt64Array};
use proptest::prelude::*;

use super::*;
use crate::{KeyKind, Span};

fn layout(types: &[DataType]) -> Arc<RowLayout> {
    let mut builder = RowLayout::builder(KeyKind::of(types).unwrap());
    builder.words(1);
    Arc::new(builder.finish("test").unwrap())
}

proptest! {
    #[test]
    fn it_counts_like_a_map(
        bases in (any::<i64>(), any::<i32>(), -1000_i64..1000),
        frames in prop::collection::vec(prop::collection::vec((0_i64..60, 0_i32..6, 0_i64..7), 1..900), 1..4),
        step in 1_i64..5000,
        rows_max in 1_usize..700,
    ) {
        let (a, b) = (bases.0.min(i64::MAX - 100), bases.1.min(i32::MAX - 100));
        let layout = layout(&[DataType::Int64, DataType::Int32, DataType::Int64]);
        let count = layout.row_words - 1;
        let mut grid = GridTable::new(&layout).unwrap();
        for frame in &frames {
            let keys: Vec<(i64, i32, i64)> =
                frame.iter().map(|&(x, y, window)| (a + x, b + y, (bases.2 + window) * step)).collect();
            let columns: Vec<ArrayRef> = vec![
                Arc::new(keys.iter().map(|key| Some(key.0)).collect::<Int64Array>()),
                Arc::new(keys.iter().map(|key| Some(key.1)).collect::<Int32Array>()),
                Arc::new(keys.iter().map(|key| Some(key.2)).collect::<Int64Array>()),
            ];
            let span = |of: &dyn Fn(&(i64, i32, i64)) -> i64| {
                let all = || keys.iter().map(of);
                (all().max().unwrap() - all().min().unwrap() + 1) as usize
            };
            let places = span(&|key| key.0) * span(&|key| i64::from(key.1)) * span(&|key| key.2 / step);
            let is_aimed = grid.aim(&columns, keys.len(), step as u64).unwrap();
            prop_assert_eq!(is_aimed, places <= keys.len() * PLACES_PER_RECORD as usize, "{} places, {} records", places, keys.len());
            if !is_aimed {
                continue;
            }
            let mut expected: BTreeMap<(i64, i32, i64), (usize, u64)> = BTreeMap::new();
            for (record, &key) in keys.iter().enumerate() {
                expected.entry(key).or_insert((record, 0)).1 += 1;
            }
            let half = keys.len() / 2;
            grid.find_or_insert(Span { start: 0, len: half }).each::<1>(count, |_, n| n[0] += 1);
            let rest: Vec<u32> = (half as u32..keys.len() as u32).collect();
            grid.find_or_insert(rest.as_slice()).each::<1>(count, |_, n| n[0] += 1);
            prop_assert_eq!(grid.len(), expected.len());
            let (mut from, mut found) = (0, BTreeMap::new());
            while let Some((rows, firsts)) = grid.scan(from, rows_max) {
                prop_assert!(rows.len() <= rows_max && rows.len() == firsts.len());
                from += rows.len();
                for (n, &first) in rows.words(count).into_iter().zip(firsts) {
                    prop_assert!(found.insert(keys[first as usize], (first as usize, n)).is_none());
                }
            }
            prop_assert_eq!(found, expected);
            grid.clear();
            prop_assert!(grid.is_empty());
        }
    }
}

#[test]
fn it_is_for_numbers_near_each_other() {
    let windows: ArrayRef = Arc::new(Int64Array::from(vec![0, 10, 20, 20]));
    let mut grid = GridTable::new(&layout(&[DataType::Int64, DataType::Int64])).unwrap();
    let mut aim = |keys: ArrayRef, step: u64| grid.aim(&[keys, Arc::clone(&windows)], 4, step).unwrap();
    assert!(aim(Arc::new(Int64Array::from(vec![5, 6, 25, 5])), 10), "63 places");
    assert!(!aim(Arc::new(Int64Array::from(vec![5, 6, 25, 5])), 5), "105 places");
    assert!(!aim(Arc::new(Int64Array::from(vec![5, 6, 26, 5])), 10), "66 places");
    assert!(!aim(Arc::new(Int64Array::from(vec![i64::MIN, 6, i64::MAX, 5])), 10));
    assert!(!aim(Arc::new(Int64Array::from(vec![Some(5), None, Some(9), Some(5)])), 10), "null is no number");
    assert!(!aim(Arc::new(StringArray::from(vec!["5", "6", "9", "5"])), 10));
    assert!(aim(Arc::new(UInt64Array::from(vec![u64::MAX, u64::MAX - 1, u64::MAX, u64::MAX])), 10));
    let mut whole = GridTable::new(&layout(&[DataType::Int64])).unwrap();
    assert!(whole.aim(&[windows], 4, 10).unwrap(), "windows of all records have no other key");
    let mut builder = RowLayout::builder(KeyKind::of(&[DataType::Int64]).unwrap());
    builder.cell();
    assert!(GridTable::new(&Arc::new(builder.finish("cell").unwrap())).is_none());
}
