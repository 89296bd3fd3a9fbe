use std::collections::BTreeMap;
use std::sync::Arc;

use mill_protocol::{Operator, Source, TaskContext};
use mill_runtime::{
    ChainDef, EdgeDef, EdgeKind, JobGraph, OnError, RunOptions, SourceDef, StageBody, StageDef, Target,
};

use super::{EventTime, KeyedSum, MemorySink, Random, Record, WindowSum, integers};

pub const DELAY: i64 = 5;
pub const WINDOW: i64 = 20;

/// A stage with an operator.
pub fn operator<O: Operator + 'static>(
    name: &str,
    signature: &str,
    ports: Vec<Vec<Target>>,
    make: impl Fn(&TaskContext) -> O + Send + Sync + 'static,
) -> StageDef {
    StageDef {
        uid: name.to_owned(),
        name: name.to_owned(),
        step: name.to_owned(),
        signature: signature.to_owned(),
        parts: Vec::new(),
        check: None,
        body: StageBody::Operator(Arc::new(move |context| Ok(Box::new(make(context))))),
        inputs: 1,
        ports,
        errors: Vec::new(),
        user_code: None,
    }
}

/// A stage with a sink.
pub fn sink(name: &str, sink: &MemorySink) -> StageDef {
    let schema = integers(&["key", "window", "sum"]);
    StageDef {
        uid: name.to_owned(),
        name: name.to_owned(),
        step: name.to_owned(),
        signature: String::new(),
        parts: Vec::new(),
        check: None,
        body: StageBody::Sink { sink: Arc::new(sink.clone()), schema },
        inputs: 1,
        ports: Vec::new(),
        errors: Vec::new(),
        user_code: None,
    }
}

/// A source.
pub fn source(name: &str, source: impl Source + 'static) -> SourceDef {
    SourceDef {
        uid: name.to_owned(),
        name: name.to_owned(),
        source: Arc::new(source),
        is_ordered: true,
        errors: Vec::new(),
    }
}

/// A chain.
pub fn chain(name: &str, parallelism: usize, source: Option<SourceDef>, stages: Vec<StageDef>) -> ChainDef {
    ChainDef { name: name.to_owned(), parallelism, source, entries: vec![vec![Target::Stage(0, 0)]], stages }
}

/// An edge of records as sources give them.
pub fn edge(from: usize, to: usize, kind: EdgeKind) -> EdgeDef {
    EdgeDef { from, to, entry: 0, kind, schema: integers(&["key", "value", "time"]) }
}

/// sources ─hash─► window sum and keyed sum ─gather─► sinks
///
/// All sources meet in one chain; windows go to the first sink, totals to the second.
pub fn windows_and_totals(
    sources: Vec<Arc<dyn Source>>,
    parallelism: &[usize; 3],
    sinks: &[MemorySink; 2],
) -> JobGraph {
    let count = sources.len();
    let mut chains = Vec::new();
    let mut edges = Vec::new();
    for (index, from) in sources.into_iter().enumerate() {
        let name = format!("source-{index}");
        let mut def = source(&name, super::MemorySource::new(Vec::new()));
        def.source = from;
        let stage =
            operator(&format!("time-{index}"), "time", vec![vec![Target::Edge(index)]], |_| EventTime::new(DELAY));
        chains.push(chain(&name, parallelism[0], Some(def), vec![stage]));
        edges.push(edge(index, count, EdgeKind::Hash(vec![0])));
    }
    let window = operator("window", "sum by key, 20", vec![vec![Target::Stage(2, 0)]], |c| WindowSum::new(WINDOW, c));
    let total = operator("total", "sum by key", vec![vec![Target::Edge(count)]], KeyedSum::new);
    let mut sums = chain("sums", parallelism[1], None, vec![window, total, sink("windows", &sinks[0])]);
    sums.entries = vec![vec![Target::Stage(0, 0), Target::Stage(1, 0)]];
    chains.push(sums);
    edges.push(edge(count, count + 1, EdgeKind::Gather));
    chains.push(chain("totals", parallelism[2], None, vec![sink("totals", &sinks[1])]));
    JobGraph { chains, edges }
}

/// Records whose times grow, within `DELAY`.
pub fn records(random: &mut Random, rows: u64, keys: u64) -> Vec<Record> {
    let mut time = random.below(10) as i64;
    let mut rows_made = Vec::new();
    for _ in 0..rows {
        time += random.below(4) as i64;
        let jitter = random.below(DELAY as u64 + 1) as i64;
        rows_made.push((random.below(keys) as i64, random.below(1000) as i64, time - jitter));
    }
    rows_made
}

/// What the job over these records has to give: rows of windows, rows of totals, each sorted.
pub fn expected(splits: &[Vec<Record>]) -> (Vec<Vec<i64>>, Vec<Vec<i64>>) {
    let mut windows: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let mut totals: BTreeMap<i64, i64> = BTreeMap::new();
    let long = i64::MAX / 4;
    let mut longs: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for (key, value, time) in splits.iter().flatten() {
        *windows.entry((*key, time.div_euclid(WINDOW) * WINDOW)).or_default() += value;
        *totals.entry(*key).or_default() += value;
        *longs.entry((*key, time.div_euclid(long) * long)).or_default() += value;
    }
    let rows = |sums: &BTreeMap<(i64, i64), i64>| sums.iter().map(|((k, w), s)| vec![*k, *w, *s]).collect();
    (rows(&windows), rows(&longs))
}

/// Options for small toy jobs.
pub fn options() -> RunOptions {
    RunOptions { workers: 2, on_error: OnError::Fail, frame_rows: 16, queue_capacity: 2, ..RunOptions::default() }
}
