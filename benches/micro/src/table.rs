//! The state table: a count and a sum a key.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use mill_state::{KeyEncoder, KeyKind, RowLayout, Span, StateTable, TableOptions};

use crate::{Case, keys};

const FRAME: usize = 8192;
const LOOKUP: usize = 256;

pub(crate) const CASES: &[Case] = &[
    Case { name: "table_100k_keys", records: 1 << 22, make: |records| update(keys::even(records, 100_000), 2, false) },
    Case { name: "table_1m_keys", records: 1 << 22, make: |records| update(keys::even(records, 1_000_000), 2, false) },
    Case { name: "table_1m_keys_persistent", records: 1 << 22, make: |records| update(keys::even(records, 1_000_000), 2, true) },
    Case { name: "table_100k_keys_wide_row", records: 1 << 22, make: |records| update(keys::even(records, 100_000), 3, false) },
    Case { name: "table_moving_keys", records: 1 << 22, make: |records| update(keys::moving(records, 250_000), 2, false) },
    Case { name: "table_fill", records: 1 << 20, make: |records| fill(records) },
    Case { name: "encode_keys", records: 1 << 22, make: |records| encode(keys::even(records, 1_000_000)) },
];

pub(crate) fn columns(keys: &[i64]) -> Vec<ArrayRef> {
    keys.chunks(FRAME).map(|keys| Arc::new(Int64Array::from(keys.to_vec())) as ArrayRef).collect()
}

pub(crate) fn table(words: usize, is_persistent: bool) -> (StateTable, usize) {
    let kind = KeyKind::of(&[DataType::Int64]).expect("integers can be keys");
    let mut layout = RowLayout::builder(kind);
    let place = layout.words(words);
    let layout = layout.finish("bench").expect("the row is small");
    let options = TableOptions { is_persistent, ..TableOptions::new(0..128) };
    (StateTable::new(Arc::new(layout), options), place)
}

pub(crate) fn run(table: &mut StateTable, place: usize, encoder: &mut KeyEncoder, column: &ArrayRef) {
    let rows = column.len();
    let keys = encoder.encode(std::slice::from_ref(column), rows).expect("integers can be keys");
    for start in (0..rows).step_by(LOOKUP) {
        let mut found = table.find_or_insert(keys, Span { start, len: LOOKUP.min(rows - start) });
        found.each::<2>(place, |record, words| {
            words[0] += 1;
            words[1] = words[1].wrapping_add(record as u64);
        });
    }
}

pub(crate) fn encoder() -> KeyEncoder {
    KeyEncoder::new(&[DataType::Int64]).expect("integers can be keys")
}

/// Updates rows that are there.
fn update(keys: Vec<i64>, words: usize, is_persistent: bool) -> Box<dyn FnMut()> {
    let columns = columns(&keys);
    let (mut table, place) = table(words, is_persistent);
    let mut encoder = encoder();
    Box::new(move || columns.iter().for_each(|column| run(&mut table, place, &mut encoder, column)))
}

/// Fills an empty table.
fn fill(records: usize) -> Box<dyn FnMut()> {
    let keys: Vec<i64> = (0..records as i64).collect();
    let columns = columns(&keys);
    let mut encoder = encoder();
    Box::new(move || {
        let (mut table, place) = table(2, false);
        columns.iter().for_each(|column| run(&mut table, place, &mut encoder, column));
    })
}

/// Hashes and encodes, without a table.
fn encode(keys: Vec<i64>) -> Box<dyn FnMut()> {
    let columns = columns(&keys);
    let mut encoder = encoder();
    Box::new(move || {
        for column in &columns {
            let keys = encoder.encode(std::slice::from_ref(column), column.len()).expect("integers can be keys");
            std::hint::black_box(keys.hashes());
        }
    })
}
