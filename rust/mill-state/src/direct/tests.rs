use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{KeyKind, Span};
use arrow::datatypes::DataType;

fn layout(words: usize) -> Arc<RowLayout> {
    let mut builder = RowLayout::builder(KeyKind::of(&[DataType::Int64]).unwrap());
    builder.words(words);
    Arc::new(builder.finish("test").unwrap())
}

fn range(keys: &[i64]) -> KeyRange {
    KeyRange::of(&words(keys)).unwrap()
}

fn words(keys: &[i64]) -> Vec<u64> {
    keys.iter().map(|&key| key as u64).collect()
}

fn read(table: &mut DirectTable, rows_max: usize) -> Vec<(i64, u64)> {
    let (mut from, mut found) = (0, Vec::new());
    loop {
        let rows = table.scan(&mut from, rows_max);
        if rows.is_empty() {
            return found;
        }
        assert!(rows.len() <= rows_max);
        found.extend(rows.words(1).into_iter().map(|key| key as i64).zip(rows.words(2)));
    }
}

proptest! {
    #[test]
    fn it_counts_like_a_map(
        base in prop_oneof![Just(0), Just(-3), Just(i64::MIN), Just(i64::MAX - 5000), any::<i64>()],
        frames in prop::collection::vec(prop::collection::vec(0i64..5000, 1..600), 1..6),
        rows_max in 1usize..700,
        row_words in 1usize..5,
    ) {
        let base = base.min(i64::MAX - 5000);
        let layout = layout(row_words);
        let mut table: Option<DirectTable> = None;
        for _ in 0..2 {
            let mut expected: BTreeMap<i64, u64> = BTreeMap::new();
            for frame in &frames {
                let keys: Vec<i64> = frame.iter().map(|offset| base + offset).collect();
                let table = table.get_or_insert_with(|| DirectTable::new(&layout, range(&keys)));
                if table.is_empty() {
                    table.aim(KeyRange { low: base, high: base + 4999 });
                }
                prop_assert!(table.holds(range(&keys)));
                let (before, picked) = keys.split_at(keys.len() / 2);
                table.find_or_insert(&words(&keys), Span { start: 0, len: before.len() }).each::<1>(2, |_, n| n[0] += 1);
                let rest: Vec<u32> = (before.len() as u32..).take(picked.len()).collect();
                table.find_or_insert(&words(&keys), rest.as_slice()).each::<1>(2, |_, n| n[0] += 1);
                keys.iter().for_each(|&key| *expected.entry(key).or_default() += 1);
                prop_assert_eq!(table.len(), expected.len());
            }
            let table = table.as_mut().unwrap();
            prop_assert_eq!(read(table, rows_max), expected.into_iter().collect::<Vec<_>>());
            table.clear();
            prop_assert!(table.is_empty() && read(table, rows_max).is_empty());
        }
    }
}

#[test]
fn it_holds_what_is_near_and_nothing_else() {
    let layout = layout(2);
    let slots = DirectTable::slots_of(&layout, false) as i64;
    let table = DirectTable::new(&layout, range(&[1000, 1010]));
    let first = 1000 - (slots - 11) / ROOM_BELOW as i64;
    assert!(table.holds(range(&[first, first + slots - 1])));
    assert!(!table.holds(range(&[first - 1])) && !table.holds(range(&[first + slots])));
    assert!(!table.holds(range(&[i64::MIN, i64::MAX])));
    let table = DirectTable::new(&layout, range(&[0, slots - 1]));
    assert!(table.holds(range(&[0, slots - 1])), "a range as wide as the table leaves no room below");
    let table = DirectTable::new(&layout, range(&[i64::MIN]));
    assert!(table.holds(range(&[i64::MIN, i64::MIN + slots - 1])));
    let table = DirectTable::new(&layout, range(&[i64::MAX]));
    assert!(table.holds(range(&[i64::MAX])));
    assert_eq!(range(&[i64::MIN, i64::MAX]).keys(), u64::MAX);
}

#[test]
#[should_panic(expected = "above the first")]
fn a_key_that_it_does_not_hold_touches_nothing() {
    let layout = layout(1);
    let mut table = DirectTable::new(&layout, range(&[5]));
    table.find_or_insert(&words(&[5, 5 + (1 << 30)]), Span { start: 0, len: 2 });
}

#[test]
fn text_and_cells_are_not_for_it() {
    let mut builder = RowLayout::builder(KeyKind::of(&[DataType::Int64]).unwrap());
    builder.cell();
    assert_eq!(DirectTable::slots_of(&builder.finish("cell").unwrap(), true), 0);
    let builder = RowLayout::builder(KeyKind::of(&[DataType::Utf8]).unwrap());
    let layout = builder.finish("text").unwrap();
    assert_eq!(DirectTable::slots_of(&layout, false), 0);
    assert!(DirectTable::slots_of(&layout, true) > 0, "texts have numbers, if not by themselves");
}

#[test]
fn rows_move_to_other_numbers() {
    let layout = layout(2);
    let keys: Vec<i64> = (0..300).map(|key| key * 7 % 1000).collect();
    let mut table = DirectTable::new(&layout, KeyRange::up_to(1000));
    table.find_or_insert(&words(&keys), Span { start: 0, len: keys.len() }).each::<1>(2, |record, n| n[0] = record as u64);
    let mut other = DirectTable::new(&layout, KeyRange::up_to(5000));
    table.move_into(&mut other, |key| 4999 - 3 * key);
    assert!(table.is_empty() && read(&mut table, 100).is_empty());
    assert_eq!(other.len(), 300);
    let found: BTreeMap<i64, u64> = read(&mut other, 100).into_iter().collect();
    let expected = keys.iter().enumerate().map(|(record, key)| (4999 - 3 * key, record as u64)).collect();
    assert_eq!(found, expected);
}
