use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;
use mill_frame::block::{BlockKind, RestoredBlock};

use crate::layout::TAG_HASH;
use crate::table::tests::{blocks_of, fixture, laid_out};
use crate::{Cursor, KeyBatch, KeyDecoder, KeyEncoder, Span, StateTable};

/// Removed rows are a list in a short block, and come off a restored table too.
#[test]
fn a_few_removed_rows_are_a_short_block() {
    for types in [[DataType::Int64], [DataType::Utf8]] {
        let fixture = fixture(&types);
        let mut encoder = KeyEncoder::new(&types).unwrap();
        let mut table = fixture.table(0..128);
        let column = |keys: Range<i64>| -> ArrayRef {
            match types[0] {
                DataType::Int64 => Arc::new(Int64Array::from_iter_values(keys)),
                _ => Arc::new(keys.map(|key| Some(format!("a rather long key {key}"))).collect::<StringArray>()),
            }
        };
        fixture.add(&mut table, &mut encoder, &[column(0..50_000)]);
        let mut chain: Vec<RestoredBlock> = blocks_of(&mut table, 7, false).iter().map(laid_out).collect();
        let keys = encoder.encode(&[column(0..10)], 10).unwrap();
        assert!((0..10).all(|record| table.remove(keys, record) && !table.remove(keys, record)));
        let blocks = blocks_of(&mut table, 7, false);
        assert!(blocks.len() <= 10 && blocks.iter().all(|block| block.settled_kind() == BlockKind::Rows));
        assert!(blocks.iter().all(|block| block.payload.size() < 1000), "of 16 KiB");
        chain.extend(blocks.iter().map(laid_out));
        let mut restored = fixture.table(0..128);
        restored.restore(&chain).unwrap();
        assert_eq!(restored.len(), 49_990);
        assert_eq!(fixture.content(&mut restored), fixture.content(&mut table));
    }
}

/// New keys come as old ones go, for long: neither memory nor what is written grows. When all are gone, so is their memory.
#[test]
fn keys_that_come_and_go_leave_nothing() {
    for types in [vec![DataType::Int64], vec![DataType::Utf8], vec![DataType::Int64, DataType::Utf8]] {
        let fixture = fixture(&types);
        let mut encoder = KeyEncoder::new(&types).unwrap();
        let mut table = fixture.table(0..128);
        let columns = |keys: Range<i64>| -> Vec<ArrayRef> {
            let of_type = |data_type: &DataType| -> ArrayRef {
                match data_type {
                    DataType::Int64 => Arc::new(Int64Array::from_iter_values(keys.clone())),
                    _ => Arc::new(keys.clone().map(|key| Some(format!("{}{key}", "long ".repeat(20)))).collect::<StringArray>()),
                }
            };
            types.iter().map(of_type).collect()
        };
        const STEP: i64 = if cfg!(miri) { 20 } else { 1000 };
        const ROUNDS: i64 = if cfg!(miri) { 4 } else { 60 };
        let (mut memory, mut written) = (Vec::new(), Vec::new());
        let remove = |table: &mut StateTable, encoder: &mut KeyEncoder, round: i64| {
            let keys = encoder.encode(&columns(round * STEP..(round + 1) * STEP), STEP as usize).unwrap();
            assert!((0..STEP as usize).all(|record| table.remove(keys, record)));
        };
        for round in 0..ROUNDS {
            fixture.add(&mut table, &mut encoder, &columns(round * STEP..(round + 1) * STEP));
            if round >= 10 {
                remove(&mut table, &mut encoder, round - 10);
            }
            memory.push(table.memory());
            written.push(blocks_of(&mut table, 0, false).iter().map(|block| block.payload.size()).sum::<usize>());
        }
        for round in (ROUNDS - 10).max(0)..ROUNDS {
            remove(&mut table, &mut encoder, round);
        }
        if !cfg!(miri) {
            for sizes in [&memory, &written] {
                let (early, late) = (sizes[15..25].iter().max().unwrap(), sizes[50..].iter().max().unwrap());
                assert!(late * 10 <= early * 13, "{types:?}: {sizes:?}");
            }
            let left = table.memory();
            assert!(left * 4 < memory[ROUNDS as usize - 1], "{types:?}: {left} bytes of nothing, {memory:?}");
        }
        assert!(table.is_empty());
        let chain: Vec<RestoredBlock> = blocks_of(&mut table, 0, true).iter().map(laid_out).collect();
        let mut restored = fixture.table(0..128);
        restored.restore(&chain).unwrap();
        assert!(restored.is_empty());
    }
}

/// Damaged blocks that remove rows, by bits and by a list.
#[test]
fn damaged_removals_are_errors_or_other_rows() {
    let fixture = fixture(&[DataType::Int64]);
    let mut encoder = KeyEncoder::new(&[DataType::Int64]).unwrap();
    for (count, flags) in [(1500, [4 | 8, 1 | 4 | 8]), (60_000, [4, 4])] {
        let mut table = fixture.table(0..128);
        fixture.add(&mut table, &mut encoder, &[Arc::new(Int64Array::from_iter_values(0..count))]);
        let whole: Vec<RestoredBlock> = blocks_of(&mut table, 0, false).iter().map(laid_out).collect();
        let keys = encoder.encode(&[Arc::new(Int64Array::from_iter_values(0..40))], 40).unwrap();
        (0..40).for_each(|record| assert!(table.remove(keys, record)));
        let blocks: Vec<RestoredBlock> = blocks_of(&mut table, 0, false).iter().map(laid_out).collect();
        let chosen = blocks.iter().filter(|block| block.kind == BlockKind::Rows && flags.contains(&block.bytes[1]));
        let chosen: Vec<&RestoredBlock> = chosen.take(4).collect();
        assert_eq!(chosen.len(), 4);
        for sound in chosen {
            let base = whole.iter().find(|block| block.address == sound.address).unwrap();
            let groups = sound.address.group..sound.address.group + 1;
            let restore = |bytes: Vec<u8>| {
                let mut table = fixture.table(groups.clone());
                table.restore(&[base.clone(), RestoredBlock { bytes: bytes.into(), ..sound.clone() }]).map(|()| table)
            };
            // Other chunks of the group are missing where there are several.
            let is_alone = whole.iter().filter(|block| block.address.group == sound.address.group).count() == 1;
            assert_eq!(restore(sound.bytes.to_vec()).is_ok(), is_alone);
            for length in 0..sound.bytes.len() {
                assert!(restore(sound.bytes[..length].to_vec()).is_err(), "cut to {length}");
            }
            for bit in 0..sound.bytes.len() * 8 {
                let mut bytes = sound.bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                if let Ok(mut table) = restore(bytes) {
                    let mut cursor = Cursor::default();
                    let _ = KeyDecoder::new(&[DataType::Int64]).unwrap().decode(&table.scan(&mut cursor, 100_000));
                }
            }
        }
    }
}

/// Chunks that split and merge again, with a snapshot after each step and a restore from all of them: thousands of keys in
/// one key group.
#[test]
fn chunks_split_and_merge_through_snapshots() {
    const KEYS: u64 = if cfg!(miri) { 100 } else { 6000 };
    let fixture = fixture(&[DataType::Int64]);
    let hash = |key: u64| (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & TAG_HASH;
    let keys = KeyBatch { hashes: (0..KEYS).map(hash).collect(), words: (0..KEYS).collect(), stride: 1, ..KeyBatch::default() };
    let mut table = fixture.table(0..1);
    let mut chain: Vec<RestoredBlock> = Vec::new();
    let (mut most, mut there) = (0, BTreeSet::new());
    // So many of a hundred keys are there after each step.
    for share in [100, 30, 2, 100, 0, 60, 5, 1, 90, 40, 0, 3] {
        for key in 0..KEYS {
            let is_wanted = key * 7919 % 100 < share;
            if is_wanted && there.insert(key) {
                let mut rows = table.find_or_insert(&keys, Span { start: key as usize, len: 1 });
                rows.each::<1>(fixture.sum, |_, sum| sum[0] = 1);
                rows.cell_mut(0, fixture.cell).push(1);
            } else if !is_wanted && there.remove(&key) {
                assert!(table.remove(&keys, key as usize));
            }
        }
        most = most.max(table.chunks.len());
        chain.extend(blocks_of(&mut table, 0, false).iter().map(laid_out));
        let mut restored = fixture.table(0..1);
        restored.restore(&chain).unwrap();
        let expected: HashMap<String, u64> = there.iter().map(|key| (key.to_string(), 1)).collect();
        assert_eq!(fixture.content(&mut restored), expected);
        assert_eq!(fixture.content(&mut table), expected);
        if share == 0 {
            assert_eq!(table.chunks.len(), 1, "all chunks have merged");
        }
    }
    assert!(cfg!(miri) || most > 8, "{most} chunks");
}
