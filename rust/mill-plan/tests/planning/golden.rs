//! Many plans, put together by a seeded generator, and all that a user or a checkpoint sees of them: what is refused and in
//! which words, `explain()`, the fingerprint, identities, signatures and columns of stages.
//!
//! `plans/random.txt` holds the first of them in full and a digest for each hundred of the rest. After a change on purpose,
//! run with `MILL_UPDATE=1` and read the difference. With `MILL_PLANS=directory` all of them are written there in full, to
//! be compared with those of another version.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, TimeUnit};
use mill_plan::{
    AggregateCall, AggregateKind, BatchFunction, BinaryOp, Emit, Expr, Mode, OnError, PlanOptions, ReduceFunction, SinkNode,
    Stream, UnaryOp, UserCall, UserStepKind, WatermarkStrategy, Window, lower,
};
use mill_protocol::{Error, Result};
use crate::support::{Memory, TestSink};

/// How many plans stand in the file in full.
const SHOWN: u64 = 40;
/// How many plans there are.
const PLANS: u64 = 4040;
/// How many plans share a digest.
const PER_DIGEST: u64 = 100;

/// Splitmix64: the same numbers for the same seed, forever.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("smaller than a usize")
    }
}

#[derive(Debug)]
struct Named(&'static str);

impl BatchFunction for Named {
    fn name(&self) -> String {
        self.0.to_owned()
    }
    fn call(&self, _: &RecordBatch) -> Result<UserCall> {
        Err(Error::internal("never called"))
    }
}

impl ReduceFunction for Named {
    fn name(&self) -> String {
        self.0.to_owned()
    }
    fn reduce(&self, _: Option<&RecordBatch>, _: &RecordBatch) -> Result<RecordBatch> {
        Err(Error::internal("never called"))
    }
}

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn source(i: usize) -> Stream {
    let inner = DataType::Struct(vec![Field::new("p", DataType::Int64, true), Field::new("q", DataType::Utf8, true)].into());
    let columns = [
        ("a", DataType::Int64),
        ("b", DataType::Utf8View),
        ("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("x", DataType::Float32),
        ("l", DataType::new_list(DataType::Int32, true)),
        ("st", inner),
    ];
    Stream::source(Arc::new(Memory::new(&format!("read_{}(\"in/\")", i % 2), &columns).with(i % 5 != 3, i % 7 != 6)))
}

fn aggregates(choice: usize) -> Vec<Expr> {
    let call = |kind, input: Option<Expr>, filter: Option<Expr>| {
        Expr::Aggregate(AggregateCall { kind, input: input.map(Box::new), filter: filter.map(Box::new) })
    };
    let positive = || col("a").binary(BinaryOp::Gt, Expr::literal(0_i64));
    match choice % 5 {
        0 => vec![call(AggregateKind::Count, None, None).alias("a")],
        1 => vec![
            call(AggregateKind::Sum, Some(col("a")), Some(positive())).alias("a"),
            call(AggregateKind::Max, Some(col("b")), None).alias("m"),
        ],
        2 => vec![
            call(AggregateKind::First, Some(col("b")), None).alias("f"),
            call(AggregateKind::Mean, Some(col("x")), None)
                .binary(BinaryOp::Div, call(AggregateKind::Count, Some(col("a")), Some(positive())))
                .alias("a"),
        ],
        3 => vec![call(AggregateKind::Collect, Some(col("t")), None).alias("l"), call(AggregateKind::Count, None, None)],
        _ => vec![call(AggregateKind::Std, Some(col("a").binary(BinaryOp::Mul, col("x"))), None).alias("a")],
    }
}

fn window(choice: usize) -> (Window, i64) {
    let size_us = [10_000, 60_000_000, 500][choice % 3];
    (Window::Tumbling { size_us, offset_us: [0, 3_000, -1_000][choice % 4 % 3] }, [0, 5_000, -1][choice % 7 % 3])
}

/// Adds the streams that a step makes.
fn add(streams: &mut Vec<Stream>, random: &mut Random) -> Result<()> {
    let (kind, choice) = (random.below(26), random.below(60));
    // Mostly the last stream, so that plans get long.
    let back = if random.below(3) == 0 { random.below(streams.len()) } else { 0 };
    let stream = streams[streams.len() - 1 - back].clone();
    let other = streams[random.below(streams.len())].clone();
    let emit = [Emit::Default, Emit::End, Emit::Every(5), Emit::Checkpoint, Emit::Each][choice % 5];
    let function = Arc::new(Named(["f", "g"][choice % 2]));
    let positive = col("a").binary(BinaryOp::Gt, Expr::literal(choice as i64));
    let made = match kind {
        0 | 1 => stream.filter(positive)?,
        2 => stream.filter(col("b").unary(UnaryOp::IsNotNull).binary(BinaryOp::And, positive))?,
        3 => stream.with_columns(vec![col("a").binary(BinaryOp::Add, Expr::literal(1_i64)).alias("n"), col("x")])?,
        4 => stream.select(["b", "a", "x", "t"].map(col).to_vec())?,
        5 => stream.explode("l", choice % 2 == 0)?,
        6 => stream.unnest("st")?,
        7 => stream.limit(choice as u64)?,
        8 => stream.union(&[other])?,
        9 => stream.rebalance()?,
        10 | 11 => {
            let idleness_us = (choice % 3 == 0).then_some(7);
            stream.event_time("t", WatermarkStrategy::bounded(10).with_idleness(idleness_us))?
        }
        12 => stream.drop(&["l".to_owned()])?,
        13 => stream.rename(&[("a".to_owned(), "z".to_owned()), ("n".to_owned(), "a".to_owned())])?,
        14 => {
            let (yes, no) = stream.branch(col("a").unary(UnaryOp::IsNull))?;
            streams.push(yes);
            no
        }
        15 => stream.key_by(vec![col("b")])?.agg(aggregates(choice), emit)?,
        16 => stream.key_by(vec![col("b"), col("a")])?.reduce(function, emit)?,
        17..=19 => {
            let by = vec![col("b"), col("a").binary(BinaryOp::Mod, Expr::literal(3_i64)).alias("k")];
            let (window, lateness) = window(choice);
            let windowed = stream.key_by(by)?.window(window, lateness)?.agg(aggregates(choice / 3))?;
            if choice % 2 == 0 {
                streams.push(windowed.late()?);
            }
            windowed
        }
        20 => stream.errors()?,
        21 => stream.late()?,
        22 => stream.cast(&[("a".to_owned(), DataType::Float64)])?,
        23 => {
            let kind = [UserStepKind::Map, UserStepKind::FlatMap, UserStepKind::MapBatches][choice % 3];
            let schema = stream.schema();
            let kept = schema.project(&(0..schema.fields().len().min(4)).collect::<Vec<_>>()).expect("they are there");
            stream.apply(kind, function, Arc::new(kept))?
        }
        24 => {
            let kind = [UserStepKind::Filter, UserStepKind::Inspect][choice % 2];
            stream.apply(kind, function, stream.schema())?
        }
        _ => stream.name(&format!("step {}", choice % 9))?,
    };
    streams.push(made);
    Ok(())
}

/// Everything there is to see of the plan of this seed.
fn plan(seed: u64) -> String {
    let mut random = Random(seed);
    let mut out = format!("=== {seed}\n");
    let mut streams = vec![source(random.below(70)), source(random.below(70))];
    if random.below(3) != 0 {
        let strategy = WatermarkStrategy::bounded(10);
        streams.push(source(random.below(70)).event_time("t", strategy).expect("it has a column t"));
    }
    for _ in 0..1 + random.below(14) {
        if let Err(error) = add(&mut streams, &mut random) {
            writeln!(out, "refused: {error}").unwrap();
        }
    }
    let mut sinks: Vec<SinkNode> = Vec::new();
    for i in 0..1 + random.below(3) {
        let stream = &streams[(streams.len() - 1).saturating_sub(random.below(5))];
        let (is_bounded, time, updating) = (stream.is_bounded(), stream.event_time_column(), stream.is_updating());
        writeln!(out, "sink {i}: {stream:?}, bounded: {is_bounded}, time: {time:?}, updating: {updating:?}").unwrap();
        let sink = match random.below(4) {
            0 => TestSink::files("write_csv(\"out/\")"),
            1 => TestSink::single("write_http()"),
            _ => TestSink::keyed("write_sqlite(\"t\")"),
        };
        match stream.sink(sink) {
            Ok(sink) if random.below(6) == 0 => sinks.push(sink.named("out")),
            Ok(sink) => sinks.push(sink),
            Err(error) => writeln!(out, "refused: {error}").unwrap(),
        }
    }
    let mut options = PlanOptions {
        parallelism: 1 + random.below(3),
        mode: [Mode::AtLeastOnce, Mode::AtLeastOnce, Mode::ExactlyOnce, Mode::None][random.below(4)],
        is_checkpointed: random.below(2) == 0,
        is_chaining: random.below(4) != 0,
        on_error: OnError::Fail,
    };
    let plan = lower(&sinks, &options).or_else(|error| {
        writeln!(out, "refused: {error}").unwrap();
        if error.message().contains("on_error") {
            options.on_error = OnError::Route;
        } else if error.message().contains("mode=") {
            options.mode = Mode::None;
        }
        lower(&sinks, &options)
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(error) => {
            writeln!(out, "refused: {error}").unwrap();
            return out;
        }
    };
    writeln!(out, "fingerprint {}\n{}", plan.fingerprint(), plan.explain()).unwrap();
    for chain in &plan.chains {
        if let Some(source) = &chain.source {
            writeln!(out, "source {:?} {:?} ordered: {}", source.uid, source.name, source.is_ordered).unwrap();
        }
        for stage in &chain.stages {
            let columns: Vec<String> =
                stage.schema.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
            writeln!(
                out,
                "stage {:?} {:?} {:?} updating: {:?} ports: {:?} errors: {:?}: {}",
                stage.uid,
                stage.name,
                stage.signature,
                stage.updating,
                stage.ports,
                stage.errors,
                columns.join(", ")
            )
            .unwrap();
        }
    }
    for edge in plan.graph().edges {
        writeln!(out, "edge {} {} {:?}", edge.from, edge.to, edge.label).unwrap();
    }
    out
}

fn digest(text: &str, state: u64) -> u64 {
    text.bytes().fold(state, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[test]
fn plans_stay_what_they_are() {
    let mut found = String::new();
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut whole = String::new();
    for seed in 0..PLANS {
        let text = plan(seed);
        whole.push_str(&text);
        if seed < SHOWN {
            found.push_str(&text);
            continue;
        }
        hash = digest(&text, hash);
        if (seed + 1 - SHOWN) % PER_DIGEST == 0 {
            writeln!(found, "to {seed}: {hash:016x}").unwrap();
        }
    }
    if let Some(directory) = std::env::var_os("MILL_PLANS") {
        let path = std::path::Path::new(&directory).join("plans.txt");
        std::fs::write(path, &whole).expect("the plans can be written");
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans/random.txt");
    if std::env::var_os("MILL_UPDATE").is_some() {
        std::fs::write(&path, &found).expect("the plans' file can be written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let place = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "plans have changed, first in line {:?}: {:?}, was {:?}",
        place.map(|line| line + 1),
        place.and_then(|line| found.lines().nth(line)),
        place.and_then(|line| expected.lines().nth(line))
    );
}
