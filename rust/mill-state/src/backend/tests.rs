use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;

use super::*;
use crate::table::tests::laid_out;
use crate::{Cursor, KeyEncoder, KeyKind, Span};

fn layout() -> Arc<RowLayout> {
    let mut builder = RowLayout::builder(KeyKind::of(&[DataType::Int64]).unwrap());
    builder.words(1);
    Arc::new(builder.finish("sum").unwrap())
}

fn add(panes: &mut PaneTables, pane: i64, keys: Range<i64>) {
    let mut encoder = KeyEncoder::new(&[DataType::Int64]).unwrap();
    let len = (keys.end - keys.start) as usize;
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
    let keys = encoder.encode(&[column], len).unwrap();
    panes.open(pane).find_or_insert(keys, Span { start: 0, len }).each::<1>(2, |_, sum| sum[0] += 1);
}

fn sums(panes: &mut PaneTables, pane: i64) -> u64 {
    let rows = panes.open(pane).scan(&mut Cursor::default(), 10_000);
    rows.words(2).iter().sum()
}

/// States that are declared in another order find their blocks, and what they add joins what was there.
#[test]
fn states_are_found_by_name_whatever_their_numbers() {
    let mut backend = StateBackend::new(0..128, true);
    let panes = backend.keyed("panes", layout(), false);
    let pairs = backend.keyed("pairs", layout(), false);
    let timers = backend.ordered("timers", "key");
    let carts = backend.multimap("carts", "item");
    add(&mut backend[panes], 5, 0..300);
    add(&mut backend[pairs], 5, 0..20);
    backend[timers].insert(10, 7, b"key", b"").unwrap();
    backend[carts].push(7, b"key", b"pear").unwrap();
    let mut blocks = Blocks::default();
    let description = backend.snapshot(true, &mut blocks);
    let mut chain: Vec<RestoredBlock> = blocks.make().iter().map(laid_out).collect();
    let mut descriptions = vec![description.clone(), description];
    for round in 1..4 {
        let mut backend = StateBackend::new(0..128, true);
        let carts = backend.multimap("carts", "item");
        let timers = backend.ordered("timers", "key");
        let pairs = backend.keyed("pairs", layout(), false);
        let panes = backend.keyed("panes", layout(), false);
        backend.restore(&descriptions, &chain).unwrap();
        assert_eq!((sums(&mut backend[panes], 5), sums(&mut backend[pairs], 5)), (round * 300, 20));
        assert_eq!((backend[timers].len() as u64, backend[carts].entries(7, b"key").count() as u64), (round, round));
        add(&mut backend[panes], 5, 0..300);
        backend[timers].insert(10 + round as i64, 7, b"key", b"").unwrap();
        backend[carts].push(7, b"key", b"apple").unwrap();
        assert!(backend.memory() > 0);
        let mut blocks = Blocks::default();
        descriptions = vec![backend.snapshot(false, &mut blocks)];
        chain.extend(blocks.make().iter().map(laid_out));
    }
}

#[test]
fn states_that_do_not_fit_are_named() {
    let declared = |declare: &dyn Fn(&mut StateBackend)| {
        let mut backend = StateBackend::new(0..128, true);
        declare(&mut backend);
        backend
    };
    let description = declared(&|backend| {
        backend.ordered("timers", "key");
        backend.multimap("carts", "item");
    })
    .snapshot(true, &mut Blocks::default());
    let error = |descriptions: &[Vec<u8>], declare: &dyn Fn(&mut StateBackend)| {
        declared(declare).restore(descriptions, &[]).unwrap_err().to_string()
    };
    let text = error(&[description.clone()], &|backend| {
        backend.ordered("timers", "key");
        backend.ordered("deadlines", "key");
    });
    assert!(text.contains("\"carts\"") && text.contains("\"deadlines\"") && !text.contains("timers"), "{text}");
    let text = error(&[description.clone()], &|backend| {
        backend.multimap("timers", "key");
        backend.multimap("carts", "item");
    });
    assert!(text.contains("\"timers\"") && text.contains("rows in order of time, this step keeps entries per key"), "{text}");
    let both = |backend: &mut StateBackend| {
        backend.ordered("timers", "key");
        backend.multimap("carts", "item");
    };
    assert!(declared(&both).restore(&[description.clone()], &[]).is_ok());
    // The version of the last encoding, just before its name.
    let name = description.windows(10).position(|bytes| bytes == b"Arrow rows").unwrap();
    let mut newer = description.clone();
    newer[name - 3] = 2;
    let text = error(&[newer.clone()], &both);
    assert!(text.contains("Arrow rows") && text.contains("version 2") && text.contains("version 1"), "{text}");
    assert!(error(&[description.clone(), newer], &both).contains("different states"));
    for length in 0..description.len() {
        assert!(declared(&both).restore(&[&description[..length]], &[]).is_err(), "cut to {length}");
    }
    for bit in 0..description.len() * 8 {
        let mut bytes = description.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A number that is another one is none that can be known; all else is noticed.
        let _ = declared(&both).restore(&[bytes], &[]);
    }
}

#[test]
#[should_panic(expected = "declared twice")]
fn a_name_is_of_one_state() {
    let mut backend = StateBackend::new(0..128, true);
    backend.ordered("timers", "key");
    backend.multimap("timers", "key");
}
