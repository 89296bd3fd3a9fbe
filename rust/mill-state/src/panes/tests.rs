use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
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
