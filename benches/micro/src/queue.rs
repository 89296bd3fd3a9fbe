//! The queue between two tasks, both ends on one thread: what a frame costs on its way, besides what it holds.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use mill_frame::Batch;
use mill_protocol::{Epoch, Watermark};
use mill_queue::{Consumer, Producer, queue};

use crate::Case;

/// How many envelopes are pushed before they are popped, and how many have room.
const RUN: usize = 24;
const CAPACITY: usize = 32;

pub(crate) const CASES: &[Case] =
    &[Case { name: "queue_push_pop", records: RUN << 14, make: |envelopes| push_and_pop(envelopes) }];

/// What travels between tasks, as `mill-runtime` has it.
enum Envelope {
    Batch(Batch),
    Watermark(Watermark),
    Barrier(Epoch),
}

fn push_and_pop(envelopes: usize) -> Box<dyn FnMut()> {
    let column = Arc::new(Int64Array::from_iter_values(0..8192)) as _;
    let batch = Batch::new(RecordBatch::try_from_iter([("key", column)]).expect("the column has one length"));
    let mut waiting: Vec<Envelope> = (0..RUN as u64)
        .map(|number| match number % 12 {
            10 => Envelope::Watermark(Watermark(number as i64)),
            11 => Envelope::Barrier(Epoch(number)),
            _ => Envelope::Batch(batch.clone()),
        })
        .collect();
    let (mut producer, mut consumer): (Producer<Envelope>, Consumer<Envelope>) = queue(CAPACITY);
    Box::new(move || {
        let mut seen = 0;
        for _ in 0..envelopes / RUN {
            for envelope in waiting.drain(..) {
                assert!(producer.try_push(envelope).is_ok(), "there is room for a run");
            }
            while let Some(envelope) = consumer.pop() {
                seen += match &envelope {
                    Envelope::Batch(batch) => batch.rows() as u64,
                    Envelope::Watermark(watermark) => watermark.0 as u64,
                    Envelope::Barrier(epoch) => epoch.0,
                };
                waiting.push(envelope);
            }
        }
        std::hint::black_box(seen);
    })
}
