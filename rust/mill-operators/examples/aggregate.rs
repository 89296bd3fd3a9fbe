//! How many records a second one thread aggregates: `cargo run --release -p mill-operators --example aggregate`.
//!
//! Frames of 8192 records go into one operator by plain calls; neither queues nor exchange are part of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use mill_operators::build;
use mill_plan::{AggregateKind, AggregateSpec, Emit, Stage, StageKind, Window, WindowSpec};
use mill_protocol::{Batch, Outbox, Progress, TaskContext, Watermark};

const FRAME: usize = 8192;
const FRAMES: usize = 600;

/// The processor time of this thread, where the system tells it; then what else runs on the machine matters less.
fn processor_time(started: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let told = told.and_then(|text| text.split(' ').next().and_then(|first| first.parse().ok()));
    told.map_or_else(|| started.elapsed(), Duration::from_nanos)
}

fn spec(kind: AggregateKind, input: Option<usize>) -> AggregateSpec {
    let input_type = input.map(|_| DataType::Int64);
    let output_type = kind.output_type(input_type.as_ref()).expect("an aggregate of integers");
    AggregateSpec { name: kind.name(), kind, input, filter: None, by_time: false, input_type, output_type }
}

fn frames(keys: u64, as_text: bool, seed: &mut u64) -> Vec<Batch> {
    let mut next = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    };
    let mut time = 0i64;
    (0..FRAMES)
        .map(|_| {
            let numbers: Vec<i64> = (0..FRAME).map(|_| (next() % keys) as i64).collect();
            let key: ArrayRef = if as_text {
                Arc::new(StringArray::from_iter_values(numbers.iter().map(|number| format!("word{number}"))))
            } else {
                Arc::new(Int64Array::from(numbers))
            };
            let value: ArrayRef = Arc::new(Int64Array::from_iter_values((0..FRAME).map(|_| (next() % 1000) as i64)));
            let times = (0..FRAME).map(|_| {
                time += 10;
                time
            });
            let data = RecordBatch::try_from_iter_with_nullable([("k", key, true), ("x", value, true)]).expect("two columns");
            Batch::new(data).with_times(Some(times.collect()))
        })
        .collect()
}

fn main() {
    let context =
        TaskContext { step: "agg".to_owned(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: true, waker: std::task::Waker::noop().clone() };
    let window = Window::Tumbling { size_us: 10_000_000, offset_us: 0 };
    for (keys, as_text) in [(100, false), (10_000, false), (100_000, false), (1_000_000, false), (30_000, true)] {
        let frames = frames(keys, as_text, &mut 0x9e37_79b9_7f4a_7c15);
        let aggregates = vec![spec(AggregateKind::Count, None), spec(AggregateKind::Sum, Some(1))];
        let aggregate =
            StageKind::Aggregate { keys: vec![0], aggregates: aggregates.clone(), is_partial: false, emit: Emit::End };
        let partial = StageKind::PartialAggregate {
            keys: vec![0],
            aggregates: aggregates.clone(),
            window: None,
            bound_type: None,
        };
        let windowed = StageKind::WindowAggregate {
            keys: vec![0],
            aggregates: aggregates.clone(),
            is_partial: false,
            window: WindowSpec::new(window, 0),
        };
        for kind in [aggregate, partial, windowed] {
            let key = Field::new("k", if as_text { DataType::Utf8 } else { DataType::Int64 }, true);
            let mut fields = vec![key];
            match kind {
                StageKind::PartialAggregate { .. } => fields.extend(aggregates.iter().flat_map(AggregateSpec::partial_fields)),
                StageKind::WindowAggregate { .. } => {
                    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
                    fields.extend(["window_start", "window_end"].map(|name| Field::new(name, time.clone(), true)));
                    fields.extend(aggregates.iter().map(AggregateSpec::field));
                }
                _ => fields.extend(aggregates.iter().map(AggregateSpec::field)),
            }
            let label = kind.label();
            let stage = Stage {
                uid: label.to_owned(),
                name: label.to_owned(),
                step: label.to_owned(),
                kind,
                schema: Arc::new(Schema::new(fields)),
                ports: vec![Vec::new(), Vec::new()],
                outputs: Vec::new(),
                errors: Vec::new(),
                signature: String::new(),
                parts: Vec::new(),
                updating: None,
            };
            let mut operator = build(&stage, &context).expect("a plan that can be");
            let mut out = Outbox::default();
            let mut rows = 0;
            let before = processor_time(Instant::now());
            let started = Instant::now();
            for batch in &frames {
                let watermark = batch.times().and_then(|times| times.last().copied()).unwrap_or(0);
                let mut progress = operator.on_batch(0, batch.clone(), &mut out).expect("sums that fit");
                while progress == Progress::More {
                    progress = operator.resume(&mut out).expect("sums that fit");
                }
                progress = operator.on_watermark(0, Watermark(watermark), &mut out).expect("sums that fit");
                loop {
                    while let Some(emission) = out.pop() {
                        if let mill_protocol::Emission::Batch(_, batch) = emission {
                            rows += batch.rows();
                        }
                    }
                    if progress == Progress::Done {
                        break;
                    }
                    progress = operator.resume(&mut out).expect("sums that fit");
                }
            }
            let rate = (FRAMES * FRAME) as f64 / (processor_time(started) - before).as_secs_f64() / 1e6;
            println!("{label:8} {keys:8} keys, text: {as_text:5}  {rate:6.1} M records/s, {rows} rows out before the end");
        }
    }
}
