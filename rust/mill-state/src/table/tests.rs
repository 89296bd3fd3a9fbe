use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use mill_frame::block::{Block, BlockAddress, BlockKind, Blocks, RestoredBlock};
use proptest::prelude::*;

use mill_frame::hash::key_group;

use super::*;
use crate::{Flag, KeyBatch, KeyDecoder, KeyEncoder, Span};

/// Lays a block out as the checkpoint writer would, in memory aligned to 64.
pub(crate) fn laid_out(block: &Block) -> RestoredBlock {
    #[repr(align(64))]
    #[derive(Clone, Copy)]
    struct Aligned([u8; 64]);
    struct Memory(Vec<Aligned>, usize);
    impl AsRef<[u8]> for Memory {
        fn as_ref(&self) -> &[u8] {
            // SAFETY: the vector holds so many lines of 64 initialised bytes without padding, and is borrowed.
            let bytes: &[u8] = unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 64) };
            &bytes[..self.1]
        }
    }
    let size = block.payload.size();
    let mut bytes = vec![0xa5; size];
    block.payload.write(&mut bytes);
    let mut lines = vec![Aligned([0; 64]); size.div_ceil(64)];
    for (line, chunk) in lines.iter_mut().zip(bytes.chunks(64)) {
        line.0[..chunk.len()].copy_from_slice(chunk);
    }
    let bytes = mill_frame::block::SharedBytes::new(Arc::new(Memory(lines, size)));
    let kind = block.settled_kind();
    let seen = if kind == BlockKind::Full { crate::inspect(&bytes) } else { 0 };
    RestoredBlock { address: block.address, kind, bytes, seen }
}

/// The blocks of a snapshot.
pub(crate) fn blocks_of(table: &mut StateTable, address: i64, is_full: bool) -> Vec<Block> {
    let mut blocks = Blocks::default();
    table.snapshot(address, is_full, &mut blocks);
    blocks.make()
}

pub(crate) struct Fixture {
    types: Vec<DataType>,
    layout: Arc<RowLayout>,
    pub(crate) sum: usize,
    pub(crate) cell: usize,
    flag: Flag,
}

pub(crate) fn fixture(types: &[DataType]) -> Fixture {
    let mut builder = RowLayout::builder(crate::KeyKind::of(types).unwrap());
    let sum = builder.words(1);
    let flag = builder.flag();
    let cell = builder.cell();
    Fixture { types: types.to_vec(), layout: Arc::new(builder.finish("sum").unwrap()), sum, cell, flag }
}

impl Fixture {
    pub(crate) fn table(&self, groups: Range<u16>) -> StateTable {
        let options = TableOptions { groups, state: 3, is_persistent: true, tracks_changes: true };
        StateTable::new(Arc::clone(&self.layout), options)
    }

    pub(crate) fn add(&self, table: &mut StateTable, encoder: &mut KeyEncoder, columns: &[ArrayRef]) {
        let rows = columns[0].len();
        let keys = encoder.encode(columns, rows).unwrap();
        let mut from = 0;
        while from < rows {
            let len = (rows - from).min(100);
            let mut found = table.find_or_insert(keys, Span { start: from, len });
            found.each_with::<1>(self.sum, self.flag.word, |_, sum, flags| {
                sum[0] += 1;
                *flags |= self.flag.mask;
            });
            for record in 0..len {
                found.cell_mut(record, self.cell).push(1);
            }
            from += len;
        }
    }

    /// Every key as text with its sum.
    pub(crate) fn content(&self, table: &mut StateTable) -> HashMap<String, u64> {
        let decoder = KeyDecoder::new(&self.types).unwrap();
        let mut content = HashMap::new();
        let mut cursor = Cursor::default();
        loop {
            let rows = table.scan(&mut cursor, 37);
            if rows.is_empty() {
                break;
            }
            let columns = decoder.decode(&rows).unwrap();
            for row in 0..rows.len() {
                let key = text(&columns, row);
                let sum = rows.word(row, self.sum);
                assert_eq!(rows.cell(row, self.cell).unwrap().len() as u64, sum);
                assert!(content.insert(key, sum).is_none(), "each key has one row");
            }
        }
        assert_eq!(content.len(), table.len());
        content
    }
}

fn text(columns: &[ArrayRef], row: usize) -> String {
    let format = arrow::util::display::FormatOptions::default().with_null("null");
    columns
        .iter()
        .map(|column| arrow::util::display::ArrayFormatter::try_new(column, &format).unwrap().value(row).to_string())
        .collect::<Vec<_>>()
        .join("|")
}

pub(crate) fn columns_of(kind: usize, keys: &[u16]) -> (Vec<DataType>, Vec<ArrayRef>) {
    let ints: ArrayRef = Arc::new(keys.iter().map(|&k| (k % 7 != 3).then_some(i64::from(k))).collect::<Int64Array>());
    let small: ArrayRef = Arc::new(keys.iter().map(|&k| (k % 5 != 3).then_some(i32::from(k % 11))).collect::<Int32Array>());
    let floats: ArrayRef = Arc::new(
        keys.iter()
            .map(|&k| match k % 9 {
                0 => Some(f64::NAN),
                1 => Some(-0.0),
                2 => Some(0.0),
                3 => None,
                _ => Some(f64::from(k)),
            })
            .collect::<Float64Array>(),
    );
    let short: ArrayRef = Arc::new(keys.iter().map(|&k| (k % 7 != 3).then(|| format!("k{k}"))).collect::<StringArray>());
    let long: ArrayRef = Arc::new(
        keys.iter().map(|&k| (k % 7 != 3).then(|| format!("{}{k}", "same beginning ".repeat(k as usize % 3)))).collect::<StringArray>(),
    );
    match kind {
        0 => (vec![DataType::Int64], vec![ints]),
        1 => (vec![DataType::Float64], vec![floats]),
        2 => (vec![DataType::Int32, DataType::Int64], vec![small, ints]),
        3 => (vec![DataType::Utf8], vec![short]),
        4 => (vec![DataType::Utf8], vec![long]),
        _ => (vec![DataType::Int32, DataType::Utf8, DataType::Float64], vec![small, long, floats]),
    }
}

pub(crate) fn expected_key(columns: &[ArrayRef], row: usize) -> String {
    text(columns, row).replace("-0.0", "0.0")
}

fn key_group_of(columns: &[ArrayRef], row: usize) -> u16 {
    let mut hashes = Vec::new();
    mill_frame::hash::hash_columns(columns, &mut hashes).unwrap();
    key_group(hashes[row])
}

#[derive(Clone, Debug)]
enum Step {
    Add(Vec<u16>),
    Remove(u16),
    /// Of all keys that were ever added, one in so many.
    Thin(u16),
    /// Of everything, or of changes; made blocks of at once, or only after the table has gone on.
    Snapshot(bool, bool),
    Restore,
    Rescale,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = prop_oneof![
        proptest::collection::vec(0u16..40, 0..60),
        proptest::collection::vec(any::<u16>(), 0..1500),
    ];
    let step = prop_oneof![
        6 => keys.prop_map(Step::Add),
        3 => (0u16..40).prop_map(Step::Remove),
        2 => (1u16..5).prop_map(Step::Thin),
        3 => (proptest::bool::weighted(0.2), any::<bool>()).prop_map(|(is_full, is_late)| Step::Snapshot(is_full, is_late)),
        1 => Just(Step::Restore),
        1 => Just(Step::Rescale),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 150 }))]

    /// The table against a HashMap, with snapshots, restores from the chain of blocks and restores into two tables of
    /// half the key groups, at random points.
    #[test]
    fn table_is_a_map_through_snapshots_and_rescaling(kind in 0usize..6, steps in steps()) {
        let types = columns_of(kind, &[]).0;
        let fixture = fixture(&types);
        let mut encoder = KeyEncoder::new(&types).unwrap();
        let mut tables = vec![fixture.table(0..128)];
        let mut oracle: HashMap<String, u64> = HashMap::new();
        let mut chain: Vec<RestoredBlock> = Vec::new();
        let mut late: Vec<Blocks> = Vec::new();
        let mut durable: HashMap<String, u64> = HashMap::new();
        let mut added = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Add(keys) => {
                    added.extend(keys.iter().copied());
                    let columns = columns_of(kind, &keys).1;
                    for row in 0..keys.len() {
                        *oracle.entry(expected_key(&columns, row)).or_default() += 1;
                    }
                    if tables.len() == 1 {
                        fixture.add(&mut tables[0], &mut encoder, &columns);
                    } else {
                        let mut half = [Vec::new(), Vec::new()];
                        for row in 0..keys.len() {
                            half[usize::from(key_group_of(&columns, row) >= 64)].push(keys[row]);
                        }
                        for (table, keys) in tables.iter_mut().zip(&half) {
                            fixture.add(table, &mut encoder, &columns_of(kind, keys).1);
                        }
                    }
                }
                Step::Remove(key) => {
                    let columns = columns_of(kind, &[key]).1;
                    let place = if tables.len() == 1 { 0 } else { usize::from(key_group_of(&columns, 0) >= 64) };
                    let keys = encoder.encode(&columns, 1).unwrap();
                    let was_there = tables[place].remove(keys, 0);
                    prop_assert_eq!(was_there, oracle.remove(&expected_key(&columns, 0)).is_some());
                }
                Step::Thin(one_in) => {
                    let gone: Vec<u16> = added.iter().copied().filter(|key| key % one_in == 0).collect();
                    let columns = columns_of(kind, &gone).1;
                    let keys = encoder.encode(&columns, gone.len()).unwrap();
                    for row in 0..gone.len() {
                        let place = if tables.len() == 1 { 0 } else { usize::from(key_group_of(&columns, row) >= 64) };
                        let was_there = tables[place].remove(keys, row);
                        prop_assert_eq!(was_there, oracle.remove(&expected_key(&columns, row)).is_some());
                    }
                }
                Step::Snapshot(is_full, is_late) => {
                    if is_full {
                        chain.clear();
                        late.clear();
                    }
                    for table in &mut tables {
                        let mut blocks = Blocks::default();
                        table.snapshot(0, is_full, &mut blocks);
                        late.push(blocks);
                    }
                    if !is_late {
                        chain.extend(late.drain(..).flat_map(Blocks::make).map(|block| laid_out(&block)));
                    }
                    durable = oracle.clone();
                }
                Step::Restore | Step::Rescale => {
                    chain.extend(late.drain(..).flat_map(Blocks::make).map(|block| laid_out(&block)));
                    let count = if matches!(step, Step::Rescale) { 3 - tables.len() } else { tables.len() };
                    tables = match count {
                        1 => vec![fixture.table(0..128)],
                        _ => vec![fixture.table(0..64), fixture.table(64..128)],
                    };
                    for table in &mut tables {
                        table.restore(&chain).unwrap();
                    }
                    oracle = durable.clone();
                }
            }
            let mut content = HashMap::new();
            for table in &mut tables {
                content.extend(fixture.content(table));
            }
            prop_assert_eq!(&content, &oracle);
        }
    }

    /// Changed rows are told once, wherever they move meanwhile.
    #[test]
    fn scan_changed_tells_each_change_once(rounds in proptest::collection::vec(proptest::collection::vec(0u16..3000, 0..800), 1..8)) {
        let fixture = fixture(&[DataType::Int64]);
        let mut encoder = KeyEncoder::new(&[DataType::Int64]).unwrap();
        let decoder = KeyDecoder::new(&[DataType::Int64]).unwrap();
        let mut table = fixture.table(0..128);
        for keys in rounds {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().map(|&k| i64::from(k))));
            fixture.add(&mut table, &mut encoder, &[column]);
            let mut told: Vec<i64> = Vec::new();
            let mut cursor = Cursor::default();
            loop {
                let rows = table.scan_changed(&mut cursor, 50, Some(fixture.flag));
                if rows.is_empty() { break; }
                told.extend(decoder.decode(&rows).unwrap()[0].as_primitive::<Int64Type>().values());
            }
            told.sort_unstable();
            let mut expected: Vec<i64> = keys.iter().map(|&k| i64::from(k)).collect();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(told, expected);
        }
        table.mark_changed();
        prop_assert!(table.scan_changed(&mut Cursor::default(), 50, Some(fixture.flag)).is_empty());
    }
}

#[test]
fn snapshot_is_what_stood_at_the_barrier() {
    let fixture = fixture(&[DataType::Int32]);
    let mut encoder = KeyEncoder::new(&[DataType::Int32]).unwrap();
    let mut table = fixture.table(0..128);
    let column: ArrayRef = Arc::new(Int32Array::from_iter_values(0..5000));
    fixture.add(&mut table, &mut encoder, std::slice::from_ref(&column));
    let blocks = blocks_of(&mut table, 0, false);
    // The state moves on before the writer gets to lay the blocks out.
    fixture.add(&mut table, &mut encoder, &[column]);
    let more: ArrayRef = Arc::new(Int32Array::from_iter_values(5000..20000));
    fixture.add(&mut table, &mut encoder, &[more]);
    let chain: Vec<RestoredBlock> = blocks.iter().map(laid_out).collect();
    let mut restored = fixture.table(0..128);
    restored.restore(&chain).unwrap();
    let content = fixture.content(&mut restored);
    assert_eq!(content.len(), 5000);
    assert!(content.values().all(|&sum| sum == 1));
}

#[test]
fn unchanged_chunks_are_not_written_again() {
    let fixture = fixture(&[DataType::Int64]);
    let mut encoder = KeyEncoder::new(&[DataType::Int64]).unwrap();
    let mut table = fixture.table(0..128);
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..50_000));
    fixture.add(&mut table, &mut encoder, &[column]);
    let blocks = blocks_of(&mut table, 7, false);
    assert!(blocks.iter().all(|block| block.settled_kind() == BlockKind::Full && block.address.namespace == 7));
    assert!(blocks_of(&mut table, 7, false).is_empty());
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..3));
    fixture.add(&mut table, &mut encoder, &[column]);
    let blocks = blocks_of(&mut table, 7, false);
    assert!(blocks.len() <= 3 && blocks.iter().all(|block| block.settled_kind() == BlockKind::Rows));
    assert!(blocks.iter().all(|block| block.payload.size() < 128));
}

#[test]
fn damaged_blocks_are_errors() {
    let fixture = fixture(&[DataType::Utf8]);
    let mut encoder = KeyEncoder::new(&[DataType::Utf8]).unwrap();
    let mut table = fixture.table(0..128);
    let names: ArrayRef = Arc::new((0..400).map(|i| Some(format!("a rather long key {i}"))).collect::<StringArray>());
    fixture.add(&mut table, &mut encoder, &[names]);
    let blocks = blocks_of(&mut table, 0, false);
    let sound = laid_out(&blocks[0]);
    for length in 0..sound.bytes.len() {
        let cut = RestoredBlock { bytes: sound.bytes[..length].to_vec().into(), ..sound.clone() };
        assert!(fixture.table(0..128).restore(&[cut]).is_err(), "cut to {length}");
    }
    for bit in 0..sound.bytes.len() * 8 {
        let mut bytes = sound.bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let seen = crate::inspect(&bytes);
        let flipped = RestoredBlock { bytes: bytes.into(), seen, ..sound.clone() };
        let unseen = fixture.table(0..128).restore(&[RestoredBlock { seen: 0, ..flipped.clone() }]);
        let mut table = fixture.table(0..128);
        let restored = table.restore(&[flipped]);
        assert_eq!(restored.as_ref().err().map(ToString::to_string), unseen.err().map(|error| error.to_string()));
        if restored.is_ok() {
            let mut cursor = Cursor::default();
            let rows = table.scan(&mut cursor, 10_000);
            let _ = KeyDecoder::new(&[DataType::Utf8]).unwrap().decode(&rows);
        }
    }
    let address = BlockAddress { chunk: sound.address.chunk + 1, ..sound.address };
    assert!(fixture.table(0..128).restore(&[RestoredBlock { address, ..sound.clone() }]).is_err());
    assert!(fixture.table(0..128).restore(&[RestoredBlock { kind: BlockKind::Rows, ..sound.clone() }]).is_err());
    let other = self::fixture(&[DataType::Int64]);
    let error = other.table(0..128).restore(&[sound]).unwrap_err();
    assert!(matches!(error, crate::StateError::Layout { .. }));
}

/// A few changed rows, with bytes of keys and cells: their block is short, and whatever is wrong with it, it is an error or
/// other rows, and nothing worse.
#[test]
fn damaged_rows_are_errors_or_other_rows() {
    let fixture = fixture(&[DataType::Utf8]);
    let mut encoder = KeyEncoder::new(&[DataType::Utf8]).unwrap();
    let names = |range: Range<u32>| -> ArrayRef {
        Arc::new(range.map(|i| Some(format!("a rather long key {i}"))).collect::<StringArray>())
    };
    // Small chunks say by bits which rows are given, larger ones by a list.
    for (count, says_bits) in [(1500, 1), (20_000, 0)] {
        let mut table = fixture.table(0..128);
        fixture.add(&mut table, &mut encoder, &[names(0..count)]);
        let whole: Vec<RestoredBlock> = blocks_of(&mut table, 0, false).iter().map(laid_out).collect();
        // A handful of old keys, and new ones: with bytes of an arena, and without.
        fixture.add(&mut table, &mut encoder, &[names(0..10)]);
        fixture.add(&mut table, &mut encoder, &[names(count..count + 20)]);
        let blocks = blocks_of(&mut table, 0, false);
        let rows: Vec<RestoredBlock> =
            blocks.iter().map(laid_out).filter(|block| block.kind == BlockKind::Rows).collect();
        let with = |flags: u8| rows.iter().filter(move |block| block.bytes[1] == flags).take(2);
        let chosen: Vec<&RestoredBlock> = with(says_bits).chain(with(says_bits | 2)).collect();
        assert_eq!(chosen.len(), 4);
        for sound in chosen {
            let base = whole.iter().find(|block| block.address == sound.address).unwrap();
            let groups = sound.address.group..sound.address.group + 1;
            let restore = |bytes: Vec<u8>| {
                let mut table = fixture.table(groups.clone());
                table.restore(&[base.clone(), RestoredBlock { bytes: bytes.into(), ..sound.clone() }]).map(|()| table)
            };
            assert!(restore(sound.bytes.to_vec()).is_ok());
            for length in 0..sound.bytes.len() {
                assert!(restore(sound.bytes[..length].to_vec()).is_err(), "cut to {length}");
            }
            for bit in 0..sound.bytes.len() * 8 {
                let mut bytes = sound.bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                if let Ok(mut table) = restore(bytes) {
                    let mut cursor = Cursor::default();
                    let _ = KeyDecoder::new(&[DataType::Utf8]).unwrap().decode(&table.scan(&mut cursor, 10_000));
                }
            }
        }
    }
}

#[test]
fn what_was_not_given_before_a_checkpoint_is_given_after_it() {
    let fixture = fixture(&[DataType::Int64]);
    let mut encoder = KeyEncoder::new(&[DataType::Int64]).unwrap();
    let decoder = KeyDecoder::new(&[DataType::Int64]).unwrap();
    let told = |table: &mut StateTable| {
        let (mut cursor, mut told) = (Cursor::default(), Vec::<i64>::new());
        loop {
            let rows = table.scan_changed(&mut cursor, 50, Some(fixture.flag));
            if rows.is_empty() {
                break;
            }
            told.extend(decoder.decode(&rows).unwrap()[0].as_primitive::<Int64Type>().values());
        }
        told.sort_unstable();
        told
    };
    let mut table = fixture.table(0..128);
    let all: ArrayRef = Arc::new(Int64Array::from_iter_values(0..60_000));
    fixture.add(&mut table, &mut encoder, &[all]);
    assert_eq!(told(&mut table).len(), 60_000);
    let some: Vec<i64> = (0..60_000).step_by(1234).collect();
    fixture.add(&mut table, &mut encoder, &[Arc::new(Int64Array::from(some.clone()))]);
    let chain: Vec<RestoredBlock> = blocks_of(&mut table, 0, true).iter().map(laid_out).collect();
    let mut restored = fixture.table(0..128);
    restored.restore(&chain).unwrap();
    restored.mark_changed();
    // Keys that come before anything is given: chunks grow and split with rows that may or may not have to be given.
    let more: Vec<i64> = (60_000..90_000).collect();
    fixture.add(&mut restored, &mut encoder, &[Arc::new(Int64Array::from(more.clone()))]);
    assert_eq!(told(&mut restored), [some, more].concat());
    assert!(told(&mut restored).is_empty());
}

#[test]
fn keys_that_agree_in_every_bit_of_the_hash_are_kept_apart() {
    // Hashes are forged: adopt_groups can only forge the group, so the words do the rest.
    let fixture = fixture(&[DataType::Int64]);
    let mut table = fixture.table(0..128);
    let keys = KeyBatch { hashes: vec![42; 3000], words: (0..3000).collect(), stride: 1, ..KeyBatch::default() };
    for start in (0..3000).step_by(100) {
        table.find_or_insert(&keys, Span { start, len: 100 }).each::<1>(fixture.sum, |_, sum| sum[0] += 1);
    }
    assert_eq!(table.len(), 3000);
    let mut cursor = Cursor::default();
    let rows = table.scan(&mut cursor, 5000);
    assert!(rows.words(fixture.sum).iter().all(|&sum| sum == 1));
    let blocks = blocks_of(&mut table, 0, false);
    let chain: Vec<RestoredBlock> = blocks.iter().map(laid_out).collect();
    let mut restored = fixture.table(0..128);
    restored.restore(&chain).unwrap();
    assert_eq!(restored.len(), 3000);
}

/// Keys of one length and beginning, so many that the table has what is read of them fetched ahead; and others among them.
#[test]
fn long_keys_of_a_large_table_are_found_again() {
    let fixture = fixture(&[DataType::Utf8]);
    let (mut table, mut encoder) = (fixture.table(0..128), KeyEncoder::new(&fixture.types).unwrap());
    let key = |value: u64| match value % 5 {
        0 => format!("{value}"),
        1 => format!("the same beginning, and then {value:09} in the middle of what is the same again"),
        _ => format!("the same beginning, and then {value:09}"),
    };
    let mut expected = HashMap::new();
    for round in 0..4 {
        let keys: Vec<String> = (0..9000).map(|record| key((record * 7 + round * 4000) % 20_011)).collect();
        keys.iter().for_each(|key| *expected.entry(key.clone()).or_default() += 1_u64);
        fixture.add(&mut table, &mut encoder, &[Arc::new(StringArray::from(keys))]);
    }
    assert!(table.len() > 15_000, "{} rows", table.len());
    assert_eq!(fixture.content(&mut table), expected);
}

#[test]
fn nan_is_one_key_and_zero_is_one_key() {
    let fixture = fixture(&[DataType::Float64]);
    let mut encoder = KeyEncoder::new(&[DataType::Float64]).unwrap();
    let mut table = fixture.table(0..128);
    let column: ArrayRef =
        Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-f64::NAN), Some(0.0), Some(-0.0), None, None]));
    fixture.add(&mut table, &mut encoder, &[column]);
    assert_eq!(table.len(), 3);
    let mut cursor = Cursor::default();
    let rows = table.scan(&mut cursor, 10);
    let decoded = KeyDecoder::new(&[DataType::Float64]).unwrap().decode(&rows).unwrap();
    assert_eq!(decoded[0].null_count(), 1);
    assert!(decoded[0].as_primitive::<Float64Type>().iter().flatten().any(f64::is_nan));
}

#[test]
fn key_types_come_back_as_they_went_in() {
    use arrow::compute::cast;
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(100), Some(3)]));
    let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("a much longer text than fits"), Some("")]));
    let mut columns: Vec<ArrayRef> = vec![ints.clone(), text.clone()];
    use DataType::*;
    use arrow::datatypes::TimeUnit::*;
    for to in [Int8, Int16, Int64, UInt8, UInt64, Float32, Float64, Date32, Date64, Time32(Millisecond), Time64(Microsecond),
        Timestamp(Millisecond, None), Timestamp(Microsecond, Some("UTC".into())), Decimal128(20, 2), Decimal64(12, 2), Boolean,
        Dictionary(Box::new(Int32), Box::new(Int64))] {
        let wide = cast(&ints, &Int64).unwrap();
        columns.push(cast(&ints, &to).or_else(|_| cast(&wide, &to)).unwrap());
    }
    for to in [LargeUtf8, Utf8View, Binary, LargeBinary, BinaryView, Dictionary(Box::new(Int32), Box::new(Utf8))] {
        columns.push(cast(&text, &to).unwrap());
    }
    let fields = vec![arrow::datatypes::Field::new("a", Int32, true), arrow::datatypes::Field::new("b", Utf8, true)];
    columns.push(Arc::new(arrow::array::StructArray::new(fields.into(), vec![ints.clone(), text.clone()], None)));
    let mut cases: Vec<Vec<ArrayRef>> = columns.iter().map(|column| vec![column.clone()]).collect();
    cases.push(columns);
    cases.push(vec![ints.clone(), cast(&ints, &Decimal128(10, 0)).unwrap()]);
    for columns in cases {
        let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
        let layout = Arc::new(RowLayout::builder(crate::KeyKind::of(&types).unwrap()).finish("").unwrap());
        let mut table = StateTable::new(layout, TableOptions::new(0..128));
        let mut encoder = KeyEncoder::new(&types).unwrap();
        let keys = encoder.encode(&columns, 4).unwrap();
        table.find_or_insert(keys, Span { start: 0, len: 4 });
        let mut cursor = Cursor::default();
        let rows = table.scan(&mut cursor, 10);
        let decoded = KeyDecoder::new(&types).unwrap().decode(&rows).unwrap();
        let mut found: Vec<String> = (0..rows.len()).map(|row| text_of(&decoded, row)).collect();
        let mut expected: Vec<String> = (0..4).map(|row| text_of(&columns, row)).collect();
        found.sort();
        expected.sort();
        expected.dedup();
        assert_eq!(found, expected, "{types:?}");
        assert!(decoded.iter().zip(&types).all(|(column, data_type)| column.data_type() == data_type), "{types:?}");
    }
    fn text_of(columns: &[ArrayRef], row: usize) -> String {
        super::tests::text(columns, row)
    }
    let _ = ints.as_primitive::<Int32Type>();
}

/// Keys of each way in which they are held, with a number as the last column.
fn numbered_keys(ways: usize, rows: i64) -> (Vec<DataType>, Vec<ArrayRef>) {
    let number: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row % 100 - 50)));
    let text: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("{}", row / 100))));
    let other: ArrayRef = Arc::new(Int64Array::from_iter((0..rows).map(|row| (row >= 100).then_some(row / 100))));
    match ways {
        0 => (vec![DataType::Int64], vec![Arc::new(Int64Array::from_iter_values(-50..50))]),
        1 => (vec![DataType::Int64, DataType::Int64], vec![other, number]),
        _ => (vec![DataType::Utf8, DataType::Int64], vec![text, number]),
    }
}

#[test]
fn rows_are_read_by_the_number_that_their_key_ends_with() {
    for ways in 0..3 {
        let (types, columns) = numbered_keys(ways, 1000);
        let fixture = fixture(&types);
        let mut table = fixture.table(0..128);
        fixture.add(&mut table, &mut KeyEncoder::new(&types).unwrap(), &columns);
        let (mut cursor, mut found) = (Cursor::default(), 0);
        loop {
            let rows = table.scan_within(&mut cursor, 7, -3..=4);
            if rows.is_empty() {
                break;
            }
            let keys = KeyDecoder::new(&types).unwrap().decode(&rows).unwrap();
            let numbers = keys.last().unwrap().as_primitive::<Int64Type>();
            assert!(numbers.values().iter().all(|number| (-3..=4).contains(number)), "{ways}");
            found += rows.len();
        }
        assert_eq!(found, table.len() * 8 / 100, "{ways}");
    }
}

#[test]
fn values_of_rows_go_into_rows_of_other_keys() {
    let (types, columns) = numbered_keys(2, 1000);
    let plain = fixture(&types[..1]);
    let numbered = fixture(&types);
    let mut from = plain.table(0..128);
    let mut encoder = KeyEncoder::new(&types[..1]).unwrap();
    for _ in 0..2 {
        plain.add(&mut from, &mut encoder, &columns[..1]);
    }
    let rows = from.scan(&mut Cursor::default(), 100);
    let mut keys = KeyDecoder::new(&types[..1]).unwrap().decode(&rows).unwrap();
    let values: Vec<_> = (0..rows.len()).map(|row| rows.values(row)).collect();
    keys.push(Arc::new(Int64Array::from_value(5, values.len())));
    let mut into = numbered.table(0..128);
    let mut encoder = KeyEncoder::new(&types).unwrap();
    let keys = encoder.encode(&keys, values.len()).unwrap();
    let mut rows = into.find_or_insert(keys, Span { start: 0, len: values.len() });
    values.into_iter().enumerate().for_each(|(row, values)| rows.put_values(row, values));
    let rows = into.scan(&mut Cursor::default(), 100);
    assert_eq!(rows.len(), 10);
    for row in 0..rows.len() {
        assert_eq!(rows.word(row, numbered.sum), 200);
        assert_eq!(rows.word(row, numbered.flag.word) & numbered.flag.mask, numbered.flag.mask);
        assert_eq!(rows.cell(row, numbered.cell), Some(&[1; 200][..]));
    }
}
