use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, StringArray};
use arrow::datatypes::{Decimal128Type, Int64Type};

use super::view_length;
use crate::table::tests::fixture;
use crate::{Cursor, KeyDecoder, KeyEncoder, Span};

type Key = (Option<String>, Option<i64>, Option<i128>);

/// Texts and numbers around each length at which a key is written in another way.
fn keys() -> Vec<Key> {
    let lengths = [0, 1, 7, 8, 9, 10, 11, 12, 13, 16, 252, 253, 254, 255, 256, 300, 70_000];
    let texts = lengths.map(|length| Some("é".repeat(length / 2) + &"x".repeat(length % 2)));
    let bytes = (0..63).step_by(4).flat_map(|bits| [(1_i64 << bits) - 1, 1 << bits, -(1 << bits), -(1 << bits) - 1]);
    let numbers: Vec<Option<i64>> = bytes.chain([i64::MIN, i64::MAX]).map(Some).chain([None]).collect();
    let largest = 10_i128.pow(38) - 1;
    let decimals = [0, 1, -1, 255, -256, i128::from(i64::MAX) + 1, largest, -largest].map(Some);
    let mut keys = Vec::new();
    for text in texts.into_iter().chain([None]) {
        for (place, number) in numbers.iter().enumerate() {
            let decimal = decimals.get(place % 9).copied().flatten();
            keys.push((text.clone(), *number, decimal));
            keys.push((text.clone(), *number, Some(0)));
        }
    }
    keys
}

fn columns(keys: &[Key]) -> Vec<ArrayRef> {
    let decimals: Decimal128Array = keys.iter().map(|(.., decimal)| *decimal).collect();
    vec![
        Arc::new(keys.iter().map(|(text, ..)| text.clone()).collect::<StringArray>()),
        Arc::new(keys.iter().map(|(_, number, _)| *number).collect::<Int64Array>()),
        Arc::new(decimals.with_precision_and_scale(38, 0).unwrap()),
    ]
}

#[test]
fn keys_of_text_and_numbers_come_back_as_they_were() {
    let keys = keys();
    // In the other order texts end elsewhere within their column, so that some are read in one go and others are not.
    for keys in [keys.clone(), keys.into_iter().rev().collect()] {
        let columns = columns(&keys);
        let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
        let mut encoder = KeyEncoder::new(&types).unwrap();
        let mut table = fixture(&types).table(0..128);
        for start in (0..keys.len()).step_by(500) {
            let span = Span { start, len: (keys.len() - start).min(500) };
            table.find_or_insert(encoder.encode(&columns, keys.len()).unwrap(), span);
        }
        let (mut found, mut cursor) = (BTreeSet::new(), Cursor::default());
        let decoder = KeyDecoder::new(&types).unwrap();
        loop {
            let rows = table.scan(&mut cursor, 1000);
            if rows.is_empty() {
                break;
            }
            let decoded = decoder.decode(&rows).unwrap();
            let texts = decoded[0].as_string::<i32>();
            let (numbers, decimals) = (decoded[1].as_primitive::<Int64Type>(), decoded[2].as_primitive::<Decimal128Type>());
            for row in 0..rows.len() {
                let text = texts.is_valid(row).then(|| texts.value(row).to_owned());
                let number = numbers.is_valid(row).then(|| numbers.value(row));
                assert!(found.insert((text, number, decimals.is_valid(row).then(|| decimals.value(row)))), "a key has one row");
            }
        }
        assert_eq!(found, keys.into_iter().collect());
    }
}

#[test]
fn a_short_text_and_a_small_number_are_a_view_in_place() {
    let keys = [("id042", 1), ("id042", -128), ("", i32::MAX.into()), ("elevenbytes", 0)];
    let keys: Vec<Key> = keys.map(|(text, number)| (Some(text.to_owned()), Some(number), Some(0))).into();
    let columns = columns(&keys);
    let columns: Vec<ArrayRef> = columns[..2].to_vec();
    let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
    let mut encoder = KeyEncoder::new(&types).unwrap();
    let batch = encoder.encode(&columns, keys.len()).unwrap();
    let lengths: Vec<usize> = (0..keys.len()).map(|row| view_length(batch.key(row))).collect();
    assert_eq!(lengths, [1 + 5 + 1 + 1, 1 + 5 + 1 + 1, 1 + 1 + 4, 1 + 11 + 1]);
}
