//! How fast frames are, one thread: `cargo test --release -p mill-frame --test speed -- --ignored --nocapture`.

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::*;
use mill_frame::{Batch, Frame, hash::hash_columns, partition_by_hash};

const ROWS: usize = 8192;

/// The best of some rounds, in rows a second.
fn measure(name: &str, rows: usize, mut run: impl FnMut()) {
    let mut best = f64::MAX;
    let started = Instant::now();
    while started.elapsed().as_millis() < 300 {
        let one = Instant::now();
        run();
        best = best.min(one.elapsed().as_secs_f64());
    }
    println!("{name:44} {:9.1} M rows/s {:9.2} µs a call", rows as f64 / best / 1e6, best * 1e6);
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn frames_and_hashes() {
    let mut random = support::Random(9);
    let ints: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| random.next() as i64)));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter_values((0..ROWS).map(|_| random.next() as f64)));
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|_| format!("w{}", random.below(5000)))));
    let numbers = Batch::new(
        RecordBatch::try_from_iter([("a", ints.clone()), ("b", floats.clone()), ("c", ints.clone()), ("d", floats)])
            .unwrap(),
    )
    .with_times(Some((0..ROWS as i64).collect()));
    let words = Batch::new(RecordBatch::try_from_iter([("w", texts.clone()), ("n", ints.clone())]).unwrap());
    let mut out = Vec::new();
    measure("hash int64", ROWS, || hash_columns(black_box(std::slice::from_ref(&ints)), &mut out).unwrap());
    measure("hash utf8, 5 bytes", ROWS, || hash_columns(black_box(std::slice::from_ref(&texts)), &mut out).unwrap());
    for (name, batch) in [("4 numbers + time", &numbers), ("utf8 + int64", &words)] {
        let frame = Frame::encode(batch).unwrap();
        let (schema, bytes) = (batch.schema(), frame.to_shared_bytes());
        measure(&format!("encode {name}, {} bytes", bytes.len()), ROWS, || {
            drop(black_box(Frame::encode(batch).unwrap()))
        });
        measure(&format!("decode {name}"), ROWS, || drop(black_box(frame.decode(&schema).unwrap())));
        measure(&format!("check {name}"), ROWS, || drop(black_box(Frame::from_bytes(bytes.clone(), &schema).unwrap())));
        for tasks in [2, 8] {
            measure(&format!("hash + partition {name} to {tasks}"), ROWS, || {
                drop(black_box(partition_by_hash(batch, &[0], tasks).unwrap()));
            });
        }
    }
}
