use arrow::datatypes::DataType;
use mill_plan::{AggregateKind, Emit};
use mill_protocol::testkit::{Compare, Input, batch, check, integers};
use mill_protocol::{Batch, Outbox, Progress};

use crate::accumulator::tests::{make, random, spec};
use crate::fixture::context;

fn specs() -> Vec<mill_plan::AggregateSpec> {
    vec![spec(AggregateKind::Count, None, None), spec(AggregateKind::Sum, Some((1, DataType::Int64)), None)]
}

fn frame(rows: usize, keys: u64, seed: &mut u64) -> Batch {
    let mut ints = |of: u64| integers(&(0..rows).map(|_| Some((random(seed) % of) as i64)).collect::<Vec<_>>());
    batch(&[("k", ints(keys)), ("x", ints(100))])
}

#[test]
fn every_emission_leaves_the_same_latest_rows() {
    let mut seed = 5;
    let mut inputs = Vec::new();
    for round in 0..6 {
        inputs.push(Input::Batch(frame(25, 12, &mut seed)));
        inputs.push(Input::Time(round * 700_000));
        if round % 2 == 0 {
            inputs.push(Input::Barrier);
        }
    }
    let mut expected = None;
    for is_partial in [false, true] {
        for emit in [Emit::End, Emit::Every(1_000_000), Emit::Checkpoint, Emit::Each] {
            let make = || make(DataType::Int64, &specs(), None, emit, is_partial, &context());
            let transcript = check(make, &inputs, &Compare::Latest(1));
            assert_eq!(&transcript, expected.get_or_insert_with(|| transcript.clone()), "{emit}, partial: {is_partial}");
        }
    }
    assert_eq!(expected.unwrap().rows.len(), 12);
}

fn rows_of(out: &mut Outbox) -> usize {
    let mut rows = 0;
    while let Some(mill_protocol::Emission::Batch(_, batch)) = out.pop() {
        rows += batch.rows();
    }
    rows
}

#[test]
fn only_changed_keys_are_given() {
    let mut seed = 6;
    let mut out = Outbox::default();
    let mut operator = make(DataType::Int64, &specs(), None, Emit::Every(1_000_000), false, &context());
    let mut at = |operator: &mut Box<dyn mill_protocol::Operator>, now: i64| {
        let mut progress = operator.on_time(now, &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut out).unwrap();
        }
        rows_of(&mut out)
    };
    assert_eq!(operator.next_time(), Some(i64::MIN));
    assert_eq!(at(&mut operator, 300_000), 0);
    assert_eq!(operator.next_time(), Some(1_000_000));
    let many = frame(20_000, 50_000, &mut seed);
    let _ = operator.on_batch(many, &mut Outbox::default()).unwrap();
    let first = at(&mut operator, 1_000_000);
    assert!(first > 10_000);
    let _ = operator.on_batch(frame(3, 50_000, &mut seed), &mut Outbox::default()).unwrap();
    assert_eq!(at(&mut operator, 1_500_000), 0);
    assert_eq!(at(&mut operator, 2_000_001), 3);
    assert_eq!(operator.next_time(), Some(3_000_000));
    assert_eq!(at(&mut operator, 3_000_000), 0);
}

#[test]
fn a_step_without_keys_has_one_group() {
    let stage = crate::accumulator::tests::stage(
        mill_plan::StageKind::Aggregate { keys: vec![], aggregates: specs(), is_partial: false, emit: Emit::End },
        specs().iter().map(mill_plan::AggregateSpec::field).collect(),
    );
    let mut seed = 8;
    let inputs = [Input::Batch(frame(30, 5, &mut seed)), Input::Batch(frame(5, 5, &mut seed))];
    let transcript = check(|| crate::build(&stage, &context()).unwrap(), &inputs, &Compare::Ordered);
    assert_eq!(transcript.rows.len(), 1);
    assert!(transcript.rows[0].starts_with("0: 35, "), "{:?}", transcript.rows);
}
