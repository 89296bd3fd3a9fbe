//! How many count + sum updates a second one thread does: `cargo run --release -p mill-state --example updates [keys]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use mill_state::{KeyEncoder, KeyKind, RowLayout, Span, StateTable, TableOptions};

const FRAME: usize = 8192;
const LOOKUP: usize = 256;

/// The processor time of this thread, where the system tells it; then what else runs on the machine matters less.
fn processor_time(started: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|text| text.split(' ').next().and_then(|first| first.parse().ok()));
    told.map_or_else(|| started.elapsed(), Duration::from_nanos)
}

fn main() {
    let keys: u64 = std::env::args().nth(1).map_or(1_000_000, |arg| arg.parse().expect("a number of keys"));
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let frames: Vec<ArrayRef> = (0..1000)
        .map(|_| {
            let mut next = || {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                (seed % keys) as i64
            };
            Arc::new(Int64Array::from_iter_values((0..FRAME).map(|_| next()))) as ArrayRef
        })
        .collect();
    for is_persistent in [false, true] {
        let types = [DataType::Int64];
        let mut builder = RowLayout::builder(KeyKind::of(&types).expect("an integer key"));
        let values = builder.words(2);
        let layout = Arc::new(builder.finish("count, sum").expect("a small row"));
        let options = TableOptions { groups: 0..128, state: 0, is_persistent, tracks_changes: false };
        let mut table = StateTable::new(layout, options);
        let mut encoder = KeyEncoder::new(&types).expect("an integer key");
        for round in 0..3 {
            let started = Instant::now();
            let before = processor_time(started);
            for frame in &frames {
                let batch = encoder.encode(std::slice::from_ref(frame), FRAME).expect("integers");
                for start in (0..FRAME).step_by(LOOKUP) {
                    let mut rows = table.find_or_insert(batch, Span { start, len: LOOKUP });
                    rows.each::<2>(values, |i, row| {
                        row[0] += 1;
                        row[1] = row[1].wrapping_add((start + i) as u64);
                    });
                }
            }
            let rate = (frames.len() * FRAME) as f64 / (processor_time(started) - before).as_secs_f64() / 1e6;
            println!(
                "persistent {is_persistent}, round {round}: {rate:.1} M updates/s, {} rows, {} MiB",
                table.len(),
                table.memory() >> 20
            );
        }
        if is_persistent {
            let started = Instant::now();
            let mut blocks = mill_frame::block::Blocks::default();
            table.snapshot(0, false, &mut blocks);
            let pause = started.elapsed();
            println!("snapshot of {} blocks: {pause:?} pause", blocks.make().len());
        }
    }
}
