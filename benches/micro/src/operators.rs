//! Stages as the plan makes them: frames of records go through one operator, without queues and threads.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use mill_connectors::{CollectSink, MemorySource};
use mill_frame::{Batch, partition_by_hash};
use mill_plan::{
    AggregateCall, AggregateKind, BinaryOp, Emit, Expr, How, JoinCall, JoinOn, Mode, OnError, PlanOptions, Stage, StageKind, Stream,
    WatermarkStrategy, Window, WindowKind, lower,
};
use mill_protocol::{Operator, Outbox, Progress, TaskContext, Watermark};

use crate::{Case, keys};

const FRAME: usize = 8192;
const RECORDS: usize = 1 << 21;

pub(crate) const CASES: &[Case] = &[
    Case { name: "project_multiply", records: RECORDS, make: |records| project(records) },
    Case { name: "filter_modulo", records: RECORDS, make: |records| filter(records) },
    Case { name: "aggregate_near_keys", records: RECORDS, make: |records| aggregate(records, 1) },
    Case { name: "aggregate_far_keys", records: RECORDS, make: |records| aggregate(records, 1_000_003) },
    Case { name: "window_panes", records: RECORDS, make: |records| panes(records) },
    Case { name: "join_interval_moving_keys", records: RECORDS, make: |records| join(records, None, false) },
    Case { name: "join_interval_1000_keys", records: RECORDS, make: |records| join(records, Some(1000), false) },
    Case { name: "join_window_moving_keys", records: RECORDS, make: |records| join(records, None, true) },
    Case { name: "partition_into_frames", records: RECORDS, make: |records| partition(records) },
];

fn frames(records: usize, keys: u64) -> Vec<Batch> {
    frames_of(&keys::even(records, keys))
}

fn frames_of(keys: &[i64]) -> Vec<Batch> {
    let batch = |keys: &[i64]| {
        let prices = keys.iter().map(|&key| (key % 1000) as f64).collect::<Float64Array>();
        let columns = [("key", Arc::new(Int64Array::from(keys.to_vec())) as _), ("price", Arc::new(prices) as _)];
        Batch::new(RecordBatch::try_from_iter(columns).expect("the columns have one length"))
    };
    keys.chunks(FRAME).map(batch).collect()
}

/// The stages of what a stream over the frames becomes.
fn stages(frames: &[Batch], make: impl Fn(&Stream) -> mill_protocol::Result<Stream>) -> Vec<Stage> {
    let data: Vec<RecordBatch> = frames.iter().map(|frame| frame.data().clone()).collect();
    let source = MemorySource::new(frames[0].schema(), data).expect("all frames have one schema");
    let (sink, _receiver) = CollectSink::new(None, 1);
    let stream = make(&Stream::source(Arc::new(source))).expect("the plan is sound");
    let options = PlanOptions {
        parallelism: 1,
        mode: Mode::ExactlyOnce,
        is_checkpointed: false,
        is_chaining: true,
        on_error: OnError::Fail,
    };
    let plan = lower(&[stream.sink(Arc::new(sink)).expect("anything can be collected")], &options);
    plan.expect("the plan is sound").chains.into_iter().flat_map(|chain| chain.stages).collect()
}

fn operator(stages: &[Stage], is_wanted: impl Fn(&StageKind) -> bool) -> Box<dyn Operator> {
    let stage = stages.iter().find(|stage| is_wanted(&stage.kind)).expect("the plan has such a stage");
    let context =
        TaskContext { step: stage.name.clone(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: false, waker: std::task::Waker::noop().clone() };
    mill_operators::build(stage, &context).expect("the stage is sound")
}

/// Sends all frames through an operator; what comes out is dropped.
fn through(mut operator: Box<dyn Operator>, frames: Vec<Batch>) -> Box<dyn FnMut()> {
    let mut out = Outbox::default();
    Box::new(move || {
        for frame in &frames {
            let progress = operator.on_batch(0, frame.clone(), &mut out).expect("the records are sound");
            empty(&mut *operator, progress, &mut out);
        }
    })
}

/// Drops what an operator gives until it is through.
fn empty(operator: &mut dyn Operator, mut progress: Progress, out: &mut Outbox) {
    while out.pop().is_some() || progress == Progress::More {
        if out.is_empty() && progress == Progress::More {
            progress = operator.resume(out).expect("the records are sound");
        }
    }
}

/// Two inputs in turns, each with a watermark after each frame: the left one has a record every 100 microseconds, and every second
/// of them has a right one up to ten seconds later. Keys are new ones all the time, or these many for ever.
fn join(records: usize, keys: Option<u64>, is_windowed: bool) -> Box<dyn FnMut()> {
    const STEP_US: i64 = 100;
    const SECOND_US: i64 = 1_000_000;
    let left = records * 2 / 3;
    let ids = keys.map_or_else(|| (0..left as i64).collect(), |keys| keys::even(left, keys));
    let delays = keys::even(left, 10 * SECOND_US as u64);
    let lefts = (0..left).map(|row| (row as i64 * STEP_US, ids[row])).collect::<Vec<_>>();
    let mut rights: Vec<_> = (0..left).step_by(2).map(|row| (row as i64 * STEP_US + delays[row], ids[row])).collect();
    rights.sort_unstable();
    let frames = |rows: &[(i64, i64)], frame: usize| -> Vec<Batch> {
        let made = |rows: &[(i64, i64)]| {
            let times: Vec<i64> = rows.iter().map(|row| row.0).collect();
            let columns = [
                ("id", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()) as ArrayRef),
                ("x", Arc::new(rows.iter().map(|row| row.1 % 100).collect::<Int64Array>()) as ArrayRef),
                ("t", Arc::new(TimestampMicrosecondArray::from(times.clone())) as ArrayRef),
            ];
            let data = RecordBatch::try_from_iter(columns).expect("the columns have one length");
            Batch::new(data).with_times(Some(times.into()))
        };
        rows.chunks(frame).map(made).collect()
    };
    // Of both the same time in a frame.
    let inputs = [frames(&lefts, FRAME), frames(&rights, FRAME / 2)];
    let stages = stages(&inputs[0], |left| {
        let data: Vec<RecordBatch> = inputs[1].iter().map(|frame| frame.data().clone()).collect();
        let right = Stream::source(Arc::new(MemorySource::new(inputs[1][0].schema(), data)?));
        let [left, right] = [left, &right].map(|side| side.event_time("t", WatermarkStrategy::bounded(0)));
        let (left, right) = (left?, right?);
        let call = JoinCall { on: JoinOn::Columns(vec!["id".to_owned()]), how: How::Inner, suffix: "_right".to_owned() };
        match is_windowed {
            true => {
                let window = Window::Tumbling { size_us: 10 * SECOND_US, offset_us: 0 };
                left.join_window(&right, call, &WindowKind::Aligned(window))
            }
            false => left.join_interval(&right, call, 0, if keys.is_some() { SECOND_US } else { 10 * SECOND_US }),
        }
    });
    let mut operator = operator(&stages, |kind| matches!(kind, StageKind::Join(_)));
    let mut out = Outbox::default();
    let mut started = 0;
    let span = left as i64 * STEP_US + 20 * SECOND_US;
    Box::new(move || {
        for at in 0..inputs[0].len().max(inputs[1].len()) {
            for (input, frames) in inputs.iter().enumerate() {
                let Some(frame) = frames.get(at) else { continue };
                let times = frame.times().expect("they were set");
                let moved: Vec<i64> = times.iter().map(|time| time + started).collect();
                let last = moved.last().copied().unwrap_or_default();
                let frame = frame.clone().with_times(Some(moved.into()));
                let progress = operator.on_batch(input, frame, &mut out).expect("the records are sound");
                empty(&mut *operator, progress, &mut out);
                let progress = operator.on_watermark(input, Watermark(last), &mut out).expect("the records are sound");
                empty(&mut *operator, progress, &mut out);
            }
        }
        started += span;
    })
}

fn price() -> Expr {
    Expr::column("price")
}

fn project(records: usize) -> Box<dyn FnMut()> {
    let frames = frames(records, 100_000);
    let stages = stages(&frames, |stream| {
        stream.with_columns(vec![price().binary(BinaryOp::Mul, Expr::literal(0.908)).alias("price")])
    });
    through(operator(&stages, |kind| matches!(kind, StageKind::Project { .. })), frames)
}

fn filter(records: usize) -> Box<dyn FnMut()> {
    let frames = frames(records, 100_000);
    let stages = stages(&frames, |stream| {
        let rest = Expr::column("key").binary(BinaryOp::Mod, Expr::literal(123i64));
        stream.with_columns(vec![price().alias("kept")])?.filter(rest.binary(BinaryOp::Eq, Expr::literal(0i64)))
    });
    through(operator(&stages, |kind| matches!(kind, StageKind::Filter(_))), frames)
}

/// The stage ahead of the exchange, over keys that it has room for: records go into an array if the keys, `apart` from each
/// other, are near enough, or else into its hash table, and nothing comes out.
fn aggregate(records: usize, apart: i64) -> Box<dyn FnMut()> {
    let keys: Vec<i64> = keys::even(records, 10_000).into_iter().map(|key| key * apart).collect();
    let frames = frames_of(&keys);
    let stages = stages(&frames, |stream| {
        let call = |kind, input| Expr::Aggregate(AggregateCall { kind, input, filter: None });
        let count = call(AggregateKind::Count, None).alias("n");
        let sum = call(AggregateKind::Sum, Some(Box::new(price()))).alias("total");
        stream.key_by(vec![Expr::column("key")])?.agg(vec![count, sum], Emit::End)
    });
    through(operator(&stages, |kind| matches!(kind, StageKind::PartialAggregate { .. })), frames)
}

/// Windows of all records as they come, without a stage ahead: each record goes into the pane of its time, of which two are
/// being filled at any time, and eight are given a round.
fn panes(records: usize) -> Box<dyn FnMut()> {
    const PANES: i64 = 8;
    let size_us = records as i64 / PANES;
    let late = keys::even(records, size_us as u64 / 2);
    let times: Vec<i64> = late.iter().enumerate().map(|(at, late)| at as i64 + size_us / 2 - late).collect();
    let frames: Vec<Batch> = frames(records, 10_000)
        .into_iter()
        .zip(times.chunks(FRAME))
        .map(|(frame, times)| {
            let time = Arc::new(TimestampMicrosecondArray::from(times.to_vec())) as ArrayRef;
            let columns = frame.data().columns().iter().cloned().chain([time]);
            let named = ["key", "price", "time"].into_iter().zip(columns);
            Batch::new(RecordBatch::try_from_iter(named).expect("the columns have one length"))
        })
        .collect();
    let stages = stages(&frames, |stream| {
        let call = |kind, input| Expr::Aggregate(AggregateCall { kind, input, filter: None });
        let count = call(AggregateKind::Count, None).alias("n");
        let sum = call(AggregateKind::Sum, Some(Box::new(price()))).alias("total");
        let strategy = WatermarkStrategy::bounded(size_us / 2);
        let window = Window::Tumbling { size_us, offset_us: 0 };
        stream.event_time("time", strategy)?.key_by(vec![Expr::column("key")])?.window(window, 0)?.agg(vec![count, sum])
    });
    let mut operator = operator(&in_one_step(stages), |kind| matches!(kind, StageKind::WindowAggregate { .. }));
    let mut out = Outbox::default();
    let mut round = 0;
    Box::new(move || {
        let origin = round * (PANES + 2) * size_us;
        round += 1;
        for (at, (frame, times)) in frames.iter().zip(times.chunks(FRAME)).enumerate() {
            let times: Vec<i64> = times.iter().map(|time| time + origin).collect();
            let seen = origin + at as i64 * FRAME as i64 - 1;
            let given = operator.on_batch(0, frame.clone().with_times(Some(times.into())), &mut out);
            assert!(given.expect("the records are sound") == Progress::Done && out.is_empty());
            let progress = operator.on_watermark(0, Watermark(seen), &mut out).expect("the records are sound");
            empty(&mut *operator, progress, &mut out);
        }
        let end = Watermark(origin + (PANES + 2) * size_us - 1);
        let progress = operator.on_watermark(0, end, &mut out).expect("the records are sound");
        empty(&mut *operator, progress, &mut out);
    })
}

/// The aggregate of a window without the stage ahead of the exchange: it takes that one's input.
fn in_one_step(stages: Vec<Stage>) -> Vec<Stage> {
    let ahead = stages.iter().find_map(|stage| match &stage.kind {
        StageKind::PartialAggregate { keys, aggregates, .. } => Some((keys.clone(), aggregates.clone())),
        _ => None,
    });
    let (own_keys, own_aggregates) = ahead.expect("counts and sums are prepared ahead of the exchange");
    let mut stages = stages;
    for stage in &mut stages {
        if let StageKind::WindowAggregate { keys, aggregates, is_partial, .. } = &mut stage.kind {
            (*keys, *aggregates, *is_partial) = (own_keys.clone(), own_aggregates.clone(), false);
        }
    }
    stages
}

fn partition(records: usize) -> Box<dyn FnMut()> {
    let frames = frames(records, 100_000);
    Box::new(move || {
        for frame in &frames {
            let parts = partition_by_hash(frame, &[0], 2).expect("integers can be keys");
            assert_eq!(parts.iter().flatten().map(|part| part.rows()).sum::<usize>(), frame.data().column(0).len());
        }
    })
}
