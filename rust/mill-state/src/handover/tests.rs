//! Snapshots that another thread reads while the table goes on changing, against a `HashMap`.

use std::collections::HashMap;
use std::sync::mpsc::sync_channel;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use mill_frame::block::{Blocks, RestoredBlock};

use super::*;
use crate::table::tests::laid_out;
use crate::{Cursor, KeyDecoder, KeyEncoder, KeyKind, PaneTables, Span, StateTable, TableOptions};

const ROUNDS: u64 = if cfg!(miri) { 3 } else { 40 };
const CHANGES: u64 = 3000;

/// Numbers without an order, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Keys and rows of one kind: with `is_plain` all that a chunk has is in its rows, else also in its arena and cells.
#[derive(Clone)]
struct Kind {
    is_plain: bool,
    layout: Arc<RowLayout>,
    sum: usize,
}

impl Kind {
    fn new(is_plain: bool) -> Kind {
        let mut builder = RowLayout::builder(KeyKind::of(&Kind::types(is_plain)).unwrap());
        let sum = builder.words(1);
        if !is_plain {
            builder.cell();
        }
        Kind { is_plain, sum, layout: Arc::new(builder.finish("sum").unwrap()) }
    }

    fn types(is_plain: bool) -> [DataType; 1] {
        [if is_plain { DataType::Int64 } else { DataType::Utf8 }]
    }

    fn options() -> TableOptions {
        TableOptions { is_persistent: true, ..TableOptions::new(0..128) }
    }

    fn table(&self) -> StateTable {
        StateTable::new(Arc::clone(&self.layout), Kind::options())
    }

    fn encoder(&self) -> KeyEncoder {
        KeyEncoder::new(&Kind::types(self.is_plain)).unwrap()
    }

    fn column(&self, keys: &[i64]) -> [ArrayRef; 1] {
        let text = |key: &i64| Some(format!("the key with the number {key}"));
        [if self.is_plain { Arc::new(Int64Array::from(keys.to_vec())) } else { Arc::new(keys.iter().map(text).collect::<StringArray>()) }]
    }

    /// Adds the value to each key.
    fn add(&self, table: &mut StateTable, encoder: &mut KeyEncoder, keys: &[i64], value: u64) {
        let encoded = encoder.encode(&self.column(keys), keys.len()).unwrap();
        for start in (0..keys.len()).step_by(100) {
            let len = (keys.len() - start).min(100);
            let mut rows = table.find_or_insert(encoded, Span { start, len });
            rows.each::<1>(self.sum, |_, sum| sum[0] = sum[0].wrapping_add(value));
            for record in 0..if self.is_plain { 0 } else { len } {
                let sum = rows.row(record)[self.sum];
                *rows.cell_mut(record, 0) = sum.to_le_bytes().to_vec();
            }
        }
    }

    fn remove(&self, table: &mut StateTable, encoder: &mut KeyEncoder, key: i64) -> bool {
        table.remove(encoder.encode(&self.column(&[key]), 1).unwrap(), 0)
    }

    fn content(&self, table: &mut StateTable) -> HashMap<i64, u64> {
        let decoder = KeyDecoder::new(&Kind::types(self.is_plain)).unwrap();
        let mut cursor = Cursor::default();
        let mut content = HashMap::new();
        loop {
            let rows = table.scan(&mut cursor, 1000);
            if rows.is_empty() {
                return content;
            }
            let keys = decoder.decode(&rows).unwrap();
            for row in 0..rows.len() {
                let key = if self.is_plain {
                    keys[0].as_primitive::<Int64Type>().value(row)
                } else {
                    keys[0].as_string::<i32>().value(row).rsplit_once(' ').unwrap().1.parse().unwrap()
                };
                let sum = rows.word(row, self.sum);
                if !self.is_plain {
                    assert_eq!(rows.cell(row, 0).unwrap(), sum.to_le_bytes(), "the cell of key {key}");
                }
                assert!(content.insert(key, sum).is_none(), "key {key} has two rows");
            }
        }
    }
}

/// What a snapshot has to hold, and whether it holds everything.
struct Expected {
    blocks: Blocks,
    is_full: bool,
    content: HashMap<i64, u64>,
}

fn a_writer_reads_what_stood_at_the_barrier(is_plain: bool) {
    let kind = Kind::new(is_plain);
    let (send, receive) = sync_channel::<Expected>(2);
    std::thread::scope(|scope| {
        let writer = kind.clone();
        scope.spawn(move || {
            let mut chain: Vec<RestoredBlock> = Vec::new();
            for (number, Expected { blocks, is_full, content }) in receive.into_iter().enumerate() {
                if is_full {
                    chain.clear();
                }
                for block in blocks.make() {
                    chain.push(laid_out(&block));
                    std::thread::yield_now();
                }
                let mut restored = writer.table();
                restored.restore(&chain).unwrap();
                assert!(writer.content(&mut restored) == content, "snapshot {number}");
            }
        });
        let (mut table, mut encoder, mut dice) = (kind.table(), kind.encoder(), Dice(is_plain.into()));
        let mut oracle: HashMap<i64, u64> = HashMap::new();
        for round in 0..ROUNDS {
            // A few keys of all, so that most chunks change a little, or some new ones, so that chunks double and split.
            let limit = (round + 1) * CHANGES / 2;
            let changes = if round % 3 == 0 { CHANGES } else { 200 };
            for _ in 0..3 {
                let keys: Vec<i64> = (0..changes / 3).map(|_| dice.below(limit) as i64).collect();
                let value = dice.below(1 << 40);
                keys.iter().for_each(|&key| {
                    let sum = oracle.entry(key).or_default();
                    *sum = sum.wrapping_add(value);
                });
                kind.add(&mut table, &mut encoder, &keys, value);
            }
            for _ in 0..dice.below(3) {
                let key = dice.below(limit) as i64;
                assert_eq!(kind.remove(&mut table, &mut encoder, key), oracle.remove(&key).is_some());
            }
            if round == ROUNDS / 2 {
                table.clear();
                oracle.clear();
            }
            let is_full = round % 11 == 10;
            let mut blocks = Blocks::default();
            table.snapshot(0, is_full, &mut blocks);
            send.send(Expected { blocks, is_full, content: oracle.clone() }).unwrap();
        }
        drop(send);
        assert!(kind.content(&mut table) == oracle);
    });
}

#[test]
fn a_writer_reads_the_rows_that_stood_at_the_barrier() {
    a_writer_reads_what_stood_at_the_barrier(true);
}

#[test]
fn a_writer_reads_the_keys_and_cells_that_stood_at_the_barrier() {
    a_writer_reads_what_stood_at_the_barrier(false);
}

#[test]
fn a_handover_outlives_its_table_and_the_pane_it_was() {
    let kind = Kind::new(true);
    let (mut table, mut encoder) = (kind.table(), kind.encoder());
    let keys: Vec<i64> = (0..40_000).collect();
    kind.add(&mut table, &mut encoder, &keys, 1);
    let mut blocks = Blocks::default();
    table.snapshot(0, false, &mut blocks);
    kind.add(&mut table, &mut encoder, &keys, 1);
    drop(table);
    let mut panes = PaneTables::new(Arc::clone(&kind.layout), Kind::options());
    kind.add(panes.open(5), &mut encoder, &keys, 3);
    let mut of_panes = Blocks::default();
    panes.snapshot(false, &mut of_panes);
    panes.close(5);
    // The next pane takes memory out of the pool that the closed one had, but what the handover holds is not free.
    kind.add(panes.open(6), &mut encoder, &keys, 7);
    for (blocks, sum) in [(blocks, 1), (of_panes, 3)] {
        let chain: Vec<RestoredBlock> = blocks.make().iter().map(laid_out).collect();
        let mut restored = kind.table();
        restored.restore(&chain).unwrap();
        let content = kind.content(&mut restored);
        assert!(content.len() == 40_000 && content.values().all(|&value| value == sum));
    }
}

#[test]
fn a_chunk_is_copied_only_while_it_is_held() {
    let kind = Kind::new(true);
    let (mut table, mut encoder) = (kind.table(), kind.encoder());
    kind.add(&mut table, &mut encoder, &[1], 1);
    let start = |table: &StateTable| table.chunks[0].data().start();
    let first = start(&table);
    table.snapshot(0, false, &mut Blocks::default());
    kind.add(&mut table, &mut encoder, &[1], 1);
    assert_eq!(start(&table), first, "nobody held it any more");
    let mut blocks = Blocks::default();
    table.snapshot(0, false, &mut blocks);
    // A few changed rows are laid out as the blocks are made, and the data is free.
    let made = blocks.make();
    kind.add(&mut table, &mut encoder, &[1], 1);
    assert_eq!((start(&table), made.len()), (first, 1));
    let mut blocks = Blocks::default();
    table.snapshot(0, false, &mut blocks);
    kind.add(&mut table, &mut encoder, &[1], 1);
    assert_ne!(start(&table), first, "the writer has yet to read it");
}
