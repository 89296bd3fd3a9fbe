//! Random plans: whatever steps are put together, every stage finds the columns it was made for.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_plan::{
    AggregateCall, AggregateKind, AggregateSpec, BinaryOp, Emit, Expr, OnError, PhysicalPlan, PlanOptions, SinkNode, Stage,
    StageKind, Stream, Target, WatermarkStrategy, Window, error_schema, lower,
};
use proptest::prelude::*;
use crate::support::{Memory, TestSink};

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn source(i: usize) -> Stream {
    let inner = DataType::Struct(vec![Field::new("p", DataType::Int64, true), Field::new("q", DataType::Utf8, true)].into());
    Stream::source(Arc::new(Memory::new(
        &format!("read_{}()", i % 2),
        &[
            ("a", DataType::Int64),
            ("b", DataType::Utf8View),
            ("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("x", DataType::Float32),
            ("l", DataType::new_list(DataType::Int32, true)),
            ("st", inner),
        ],
    )))
}

fn aggregates(choice: usize) -> Vec<Expr> {
    let call = |kind, input: Option<Expr>, filter: Option<Expr>| {
        Expr::Aggregate(AggregateCall { kind, input: input.map(Box::new), filter: filter.map(Box::new) })
    };
    let positive = || col("a").binary(BinaryOp::Gt, Expr::literal(0_i64));
    match choice % 4 {
        0 => vec![call(AggregateKind::Count, None, None)],
        1 => vec![
            call(AggregateKind::Sum, Some(col("a")), Some(positive())).alias("s"),
            call(AggregateKind::Max, Some(col("b")), None).alias("m"),
        ],
        2 => vec![
            call(AggregateKind::First, Some(col("b")), None).alias("f"),
            call(AggregateKind::Mean, Some(col("x")), None)
                .binary(BinaryOp::Div, call(AggregateKind::Count, Some(col("a")), Some(positive())))
                .alias("r"),
        ],
        _ => vec![call(AggregateKind::Std, Some(col("a").binary(BinaryOp::Mul, col("x"))), None).alias("sd")],
    }
}

/// Windows of one of the kinds, some with a trigger.
fn windowed(keyed: &mill_plan::KeyedStream, choice: usize) -> mill_protocol::Result<mill_plan::WindowedStream> {
    use mill_plan::{CountWindow, Firing, Gap, Trigger, WindowKind};
    let kind = match choice % 5 {
        0 => WindowKind::Session(Gap::Fixed(7)),
        1 => WindowKind::Count(CountWindow { rows: 3, slide: 2, is_partial: true }),
        2 => WindowKind::Aligned(Window::Sliding { size_us: 10, slide_us: 5, offset_us: 0 }),
        _ => WindowKind::Aligned(Window::Tumbling { size_us: 10, offset_us: 0 }),
    };
    let lateness = if kind.is_timed() { 5 } else { 0 };
    let windowed = keyed.window(kind, lateness)?;
    match choice % 10 {
        0 | 8 => windowed.trigger(Trigger { early: Some(Firing::Rows(2)), late: Some(Firing::Each) }),
        _ => Ok(windowed),
    }
}

/// Adds a step, if it fits.
fn step(streams: &mut Vec<Stream>, kind: usize, at: usize, choice: usize) {
    let stream = streams[at % streams.len()].clone();
    let other = streams[choice % streams.len()].clone();
    let emit = [Emit::Default, Emit::End, Emit::Every(5)][choice % 3];
    let lateness = WatermarkStrategy::bounded(10);
    let result = match kind {
        0 => stream.filter(col("a").binary(BinaryOp::Gt, Expr::literal(choice as i64))),
        1 => stream.with_columns(vec![col("a").binary(BinaryOp::Add, Expr::literal(1_i64)).alias("n"), col("x")]),
        2 => stream.select(["b", "a", "x", "t"].map(col).to_vec()),
        3 => stream.explode("l", choice % 2 == 0),
        4 => stream.unnest("st"),
        5 => stream.limit(choice as u64),
        6 => stream.union(&[other]),
        7 => stream.rebalance(),
        8 => stream.event_time("t", lateness),
        9 => stream.drop(&["l".to_owned()]),
        10 => stream.rename(&[("a".to_owned(), "z".to_owned()), ("n".to_owned(), "a".to_owned())]),
        11 => stream.branch(col("a").unary(mill_plan::UnaryOp::IsNull)).map(|(yes, no)| {
            streams.push(yes);
            no
        }),
        12 => stream.key_by(vec![col("b")]).and_then(|keyed| keyed.agg(aggregates(choice), emit)),
        13 => stream
            .key_by(vec![col("b"), col("a").binary(BinaryOp::Mod, Expr::literal(3_i64)).alias("k")])
            .and_then(|keyed| windowed(&keyed, choice)?.agg(aggregates(choice)))
            .inspect(|windowed| {
                if choice % 2 == 0 {
                    streams.extend(windowed.late());
                }
            }),
        14 => stream.errors(),
        _ => stream.name(&format!("step {}", streams.len())),
    };
    streams.extend(result);
}

fn shape(schema: &Schema) -> Vec<(String, DataType)> {
    schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
}

/// Checks that what reaches each stage is what the stage was made for.
fn validate(plan: &PhysicalPlan) {
    for (i, chain) in plan.chains.iter().enumerate() {
        let mut incoming: Vec<Option<SchemaRef>> = vec![None; chain.stages.len()];
        let reach = |incoming: &mut Vec<Option<SchemaRef>>, targets: &[Target], schema: &SchemaRef| {
            for target in targets {
                let found = match *target {
                    Target::Stage(index, _) => incoming[index].get_or_insert_with(|| Arc::clone(schema)),
                    Target::Edge(index) => {
                        assert_eq!(plan.edges[index].from, i);
                        &plan.edges[index].schema
                    }
                };
                assert_eq!(shape(found), shape(schema), "chain {i}, {target:?}");
            }
        };
        match &chain.source {
            Some(source) => {
                reach(&mut incoming, &chain.entries[0], &source.source.schema());
                reach(&mut incoming, &source.errors, &error_schema());
            }
            None => {
                let edges: Vec<_> = plan.edges.iter().filter(|edge| edge.to == i).collect();
                assert!(!edges.is_empty(), "chain {i} has no input");
                edges.iter().for_each(|edge| reach(&mut incoming, &chain.entries[edge.entry], &edge.schema));
            }
        }
        for (index, stage) in chain.stages.iter().enumerate() {
            let input = incoming[index].clone().unwrap_or_else(|| panic!("stage {} has no input", stage.name));
            check_stage(stage, &input);
            for (port, targets) in stage.ports.iter().enumerate() {
                let is_late = port == 1 && !matches!(stage.kind, StageKind::Branch(_));
                reach(&mut incoming, targets, if is_late { &input } else { &stage.schema });
            }
            reach(&mut incoming, &stage.errors, &error_schema());
        }
    }
    let mut uids: Vec<&str> = plan.chains.iter().flat_map(|chain| &chain.stages).map(|stage| stage.uid.as_str()).collect();
    uids.sort_unstable();
    let count = uids.len();
    uids.dedup();
    assert_eq!(uids.len(), count, "identities are unique");
}

fn check_stage(stage: &Stage, input: &SchemaRef) {
    let empty = RecordBatch::new_empty(Arc::clone(input));
    let same = || assert_eq!(shape(&stage.schema), shape(input), "{}", stage.name);
    let check_specs = |specs: &[AggregateSpec]| {
        for spec in specs {
            if let Some(place) = spec.input {
                assert_eq!(Some(input.field(place).data_type()), spec.input_type.as_ref(), "{spec}");
            }
            if let Some(place) = spec.filter {
                assert_eq!(input.field(place).data_type(), &DataType::Boolean, "{spec}");
            }
        }
    };
    let check_partial = |specs: &[AggregateSpec]| {
        for spec in specs {
            let first = spec.input.expect("a partial result has a place");
            for (i, field) in spec.partial_fields().iter().enumerate() {
                assert_eq!(input.field(first + i).name(), field.name());
                assert_eq!(input.field(first + i).data_type(), field.data_type());
            }
        }
    };
    match &stage.kind {
        StageKind::Project { exprs } => {
            assert_eq!(exprs.len(), stage.schema.fields().len());
            for (expr, field) in exprs.iter().zip(stage.schema.fields()) {
                assert_eq!(expr.field().name(), field.name());
                assert_eq!(expr.evaluate(&empty).unwrap().data_type(), field.data_type(), "{expr}");
            }
        }
        StageKind::Filter(predicate) | StageKind::Branch(predicate) => {
            predicate.evaluate_mask(&empty).unwrap();
            same();
        }
        StageKind::Explode { column, .. } => assert!(input.field(*column).data_type().is_nested()),
        StageKind::Unnest { column } => assert!(input.field(*column).data_type().is_nested()),
        StageKind::EventTime { column, .. } => {
            assert!(input.field(*column).data_type().is_temporal());
            same();
        }
        StageKind::PartialAggregate { keys, aggregates, .. } => {
            assert!(keys.iter().all(|&key| key < input.fields().len()));
            check_specs(aggregates);
        }
        StageKind::Aggregate { keys, aggregates, is_partial, .. } | StageKind::WindowAggregate { keys, aggregates, is_partial, .. } => {
            for (i, &key) in keys.iter().enumerate() {
                assert_eq!(input.field(key).data_type(), stage.schema.field(i).data_type());
            }
            if *is_partial { check_partial(aggregates) } else { check_specs(aggregates) }
        }
        StageKind::SessionAggregate { keys, aggregates, .. } | StageKind::TriggeredAggregate { keys, aggregates, .. } => {
            for (i, &key) in keys.iter().enumerate() {
                assert_eq!(input.field(key).data_type(), stage.schema.field(i).data_type());
            }
            check_specs(aggregates);
        }
        StageKind::KeptWindow { keys, kept, records, compute, .. } => {
            assert!(keys.iter().all(|key| kept.contains(key)));
            for (&column, field) in kept.iter().zip(records.fields()) {
                assert_eq!(input.field(column).data_type(), field.data_type());
            }
            let mill_plan::WindowCompute::Aggregates(aggregates) = compute else { return };
            for spec in aggregates {
                let input = spec.input.map(|place| records.field(place).data_type().clone());
                assert_eq!(input, spec.input_type, "{spec}");
            }
        }
        StageKind::Sink(_) | StageKind::Limit(_) | StageKind::Pass | StageKind::LatestRows { .. } => same(),
        StageKind::TopN { keys, .. } | StageKind::Deduplicate { keys, .. } => {
            for &key in keys {
                assert_eq!(input.field(key), stage.schema.field(key));
            }
        }
        StageKind::Shift { columns, .. } => {
            let (before, added) = stage.schema.fields().split_at(input.fields().len());
            assert_eq!(before, &input.fields()[..]);
            assert!(added.iter().map(|field| field.as_ref().clone()).eq(columns.iter().map(mill_plan::Shifted::field)));
        }
        StageKind::ToChangelog { .. } => assert_eq!(input.fields()[..], stage.schema.fields()[1..]),
        StageKind::FromChangelog { op } => assert!(stage.schema.field_with_name(input.field(*op).name()).is_err()),
        StageKind::Join(plan) => {
            assert_eq!(shape(&plan.inputs[0]), shape(input));
            let types = |side: usize| plan.keys[side].iter().map(move |&key| plan.inputs[side].field(key).data_type());
            assert!(types(0).eq(types(1)));
            assert_eq!(plan.columns.len(), stage.schema.fields().len());
        }
        StageKind::RegularJoin(plan) => {
            assert_eq!(shape(&plan.inputs[0]), shape(input));
            assert_eq!(plan.columns.len(), stage.schema.fields().len());
        }
        StageKind::Lookup(plan) => {
            assert_eq!(shape(&plan.inputs[0]), shape(input));
            assert_eq!(plan.columns.len(), stage.schema.fields().len());
        }
        StageKind::Process(process) => assert_eq!(shape(&process.records), shape(input)),
        StageKind::MapAsync(stage) => assert_eq!(shape(&stage.records), shape(input)),
        StageKind::User { .. } | StageKind::Reduce { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn every_stage_finds_its_columns(
        steps in proptest::collection::vec((0_usize..16, 0_usize..50, 0_usize..50), 1..14),
        sinks in proptest::collection::vec(0_usize..50, 1..4),
        parallelism in 1_usize..4,
        is_chaining in any::<bool>(),
    ) {
        let mut streams = vec![source(0), source(1)];
        for (kind, at, choice) in steps {
            step(&mut streams, kind, at, choice);
        }
        let sinks: Vec<SinkNode> = sinks
            .iter()
            .map(|at| &streams[(streams.len() - 1).saturating_sub(at % 7)])
            .map(|stream| stream.sink(TestSink::keyed("write_sqlite(…)")).unwrap())
            .collect();
        let mut options = PlanOptions { parallelism, is_chaining, is_checkpointed: true, ..PlanOptions::default() };
        let plan = lower(&sinks, &options).or_else(|error| {
            // Whether failing records are routed must fit the plan.
            if !error.message().contains("on_error") {
                return Err(error);
            }
            options.on_error = OnError::Route;
            lower(&sinks, &options)
        });
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                prop_assert!(error.message().contains("two names") || error.message().contains("named"), "{}", error);
                return Ok(());
            }
        };
        validate(&plan);
        let text = plan.explain();
        prop_assert!(text.contains("chain 0"));
        let graph = plan.graph();
        prop_assert!(graph.edges.iter().all(|edge| edge.from < graph.nodes.len() && edge.to < graph.nodes.len()));
        let declared: Vec<_> = sinks.iter().map(|sink| shape(&sink.input().schema())).collect();
        let mut found: Vec<_> = Vec::new();
        for stage in plan.chains.iter().flat_map(|chain| &chain.stages) {
            if let StageKind::Sink(_) = stage.kind {
                found.push(shape(&stage.schema));
            }
        }
        found.sort_by_key(|s| format!("{s:?}"));
        let mut declared_sorted = declared;
        declared_sorted.sort_by_key(|s| format!("{s:?}"));
        prop_assert_eq!(found, declared_sorted, "sinks get what their streams declare");
    }
}
