use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::DataType;

use super::*;
use crate::table::tests::laid_out;
use crate::{Cursor, KeyEncoder, KeyKind, Span};

#[test]
fn closed_panes_leave_checkpoints_and_memory() {
    let types = [DataType::Int64];
    let mut builder = RowLayout::builder(KeyKind::of(&types).unwrap());
    let sum = builder.words(1);
    let layout = Arc::new(builder.finish("sum").unwrap());
    let options = TableOptions { groups: 0..128, state: 0, is_persistent: true, tracks_changes: false };
    let mut panes = PaneTables::new(Arc::clone(&layout), options.clone());
    let mut encoder = KeyEncoder::new(&types).unwrap();
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..2000));
    let keys = encoder.encode(&[column], 2000).unwrap();
    let mut chain = Vec::new();
    for pane in [-10, 0, 10, 20] {
        panes.open(pane).find_or_insert(keys, Span { start: 0, len: 1000 }).each::<1>(sum, |_, sum| sum[0] += 1);
        let mut blocks = Blocks::default();
        panes.snapshot(false, &mut blocks);
        chain.extend(blocks.make().iter().map(laid_out));
    }
    let memory = panes.memory();
    // Chunks double after the last snapshot, so what the checkpoint holds of the pane has other slots by now.
    panes.open(0).find_or_insert(keys, Span { start: 1000, len: 1000 }).each::<1>(sum, |_, sum| sum[0] += 1);
    panes.close(-10);
    panes.close(0);
    assert!(panes.memory() <= memory / 2);
    let mut blocks = Blocks::default();
    panes.snapshot(false, &mut blocks);
    chain.extend(blocks.make().iter().map(laid_out));
    let mut restored = PaneTables::new(layout, options);
    restored.restore(&chain).unwrap();
    assert_eq!(restored.starts().collect::<Vec<_>>(), [10, 20]);
    assert_eq!(restored.first(), Some(10));
    assert_eq!(restored.rows(), 2000);
    let mut cursor = Cursor::default();
    let rows = restored.open(10).scan(&mut cursor, 5000);
    assert!(rows.words(sum).iter().all(|&sum| sum == 1));
}

#[test]
fn the_chunks_of_a_pane_that_no_checkpoint_has_seen_serve_the_next() {
    let types = [DataType::Utf8];
    let mut builder = RowLayout::builder(KeyKind::of(&types).unwrap());
    let (sum, cell) = (builder.words(1), builder.cell());
    let layout = Arc::new(builder.finish("sum").unwrap());
    let options = TableOptions { groups: 0..128, state: 0, is_persistent: true, tracks_changes: false };
    let mut panes = PaneTables::new(Arc::clone(&layout), options.clone());
    let mut encoder = KeyEncoder::new(&types).unwrap();
    let mut chain = Vec::new();
    let fill = |panes: &mut PaneTables, encoder: &mut KeyEncoder, pane: i64, from: i64| {
        // Keys that are too long to be in the row.
        let names = (from..from + 1000).map(|name| format!("a name that is long, {name}"));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(names));
        let keys = encoder.encode(&[column], 1000).unwrap();
        let mut rows = panes.open_for(pane, 1000).find_or_insert(keys, Span { start: 0, len: 1000 });
        rows.each::<1>(sum, |_, sum| sum[0] += pane as u64);
        (0..1000).for_each(|row| rows.cell_mut(row, cell).extend_from_slice(&[pane as u8]));
    };
    let snapshot = |panes: &mut PaneTables, chain: &mut Vec<RestoredBlock>| {
        let mut blocks = Blocks::default();
        panes.snapshot(false, &mut blocks);
        chain.extend(blocks.make().iter().map(laid_out));
    };
    let restored = |chain: &[RestoredBlock]| {
        let mut restored = PaneTables::new(Arc::clone(&layout), options.clone());
        restored.restore(chain).unwrap();
        restored
    };
    fill(&mut panes, &mut encoder, 1, 0);
    panes.close(1);
    assert!(panes.spare.is_some() && panes.is_empty());
    // Other keys in the same chunks; nothing of the former ones is left.
    fill(&mut panes, &mut encoder, 2, 5000);
    assert!(panes.spare.is_none());
    snapshot(&mut panes, &mut chain);
    let mut found = restored(&chain);
    assert_eq!((found.starts().collect::<Vec<_>>(), found.rows()), (vec![2], 1000));
    let mut cursor = Cursor::default();
    let rows = found.open(2).scan(&mut cursor, 5000);
    assert!(rows.words(sum).iter().all(|&sum| sum == 2));
    assert!((0..1000).all(|row| rows.cell(row, cell) == Some(&[2][..])));
    // One that a checkpoint holds is dropped, and so is one of few keys whose chunks would only be written.
    panes.close(2);
    assert!(panes.spare.is_none());
    snapshot(&mut panes, &mut chain);
    assert_eq!(restored(&chain).rows(), 0);
}
