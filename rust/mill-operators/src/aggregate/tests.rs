use arrow::datatypes::DataType;
use mill_plan::{AggregateKind, AggregateSpec, Emit};
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
    let _ = operator.on_batch(0, many, &mut Outbox::default()).unwrap();
    let first = at(&mut operator, 1_000_000);
    assert!(first > 10_000);
    let _ = operator.on_batch(0, frame(3, 50_000, &mut seed), &mut Outbox::default()).unwrap();
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

/// Blocks as recovery returns them: all of them, to every instance that may own some.
fn store(snapshot: mill_protocol::Snapshot, stored: &mut mill_protocol::Restored) {
    stored.bytes.extend(snapshot.bytes.map(Into::into));
    stored.blocks.extend(snapshot.blocks.make().iter().map(mill_protocol::testkit::restored_block));
}

#[test]
fn what_a_checkpoint_held_back_is_given_at_the_first_look_at_the_clock() {
    let make = || make(DataType::Int64, &specs(), None, Emit::Every(1_000_000), false, &context());
    let at = |operator: &mut Box<dyn mill_protocol::Operator>, now: i64| {
        let mut out = Outbox::default();
        let mut progress = operator.on_time(now, &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut out).unwrap();
        }
        rows_of(&mut out)
    };
    let mut operator = make();
    assert_eq!(at(&mut operator, 300_000), 0);
    let of = |keys: std::ops::Range<i64>| {
        let keys: Vec<Option<i64>> = keys.map(Some).collect();
        batch(&[("k", integers(&keys)), ("x", integers(&keys))])
    };
    let _ = operator.on_batch(0, of(0..500), &mut Outbox::default()).unwrap();
    assert_eq!(at(&mut operator, 1_000_000), 500);
    let _ = operator.on_batch(0, of(100..107), &mut Outbox::default()).unwrap();
    let (mut snapshot, mut stored) = (mill_protocol::Snapshot::default(), mill_protocol::Restored::default());
    operator.snapshot(&mut snapshot).unwrap();
    store(snapshot, &mut stored);
    let mut restored = make();
    restored.restore(&stored).unwrap();
    assert_eq!(at(&mut restored, 1_300_000), 7);
    assert_eq!(restored.next_time(), Some(2_000_000));
    assert_eq!(at(&mut restored, 2_000_000), 0);
}

#[test]
fn state_moves_to_another_parallelism() {
    use mill_frame::hash::{groups_of_task, hash_columns, key_group, task_of_group};
    // Each n_unique has a state of its own; there is no small limit to how many.
    let distinct = AggregateSpec { name: String::new(), ..spec(AggregateKind::NUnique, Some((1, DataType::Int64)), None) };
    let mut specs: Vec<_> = (0..20).map(|n| AggregateSpec { name: format!("u{n}"), ..distinct.clone() }).collect();
    specs.push(spec(AggregateKind::Count, None, None));
    specs.push(spec(AggregateKind::Collect, Some((1, DataType::Int64)), None));
    let mut seed = 12;
    let frames: Vec<Batch> = (0..5).map(|_| frame(200, 90, &mut seed)).collect();
    let task = |index: usize, parallelism: usize| {
        let groups = groups_of_task(index, parallelism);
        let context = mill_protocol::TaskContext { index, parallelism, groups, ..context() };
        make(DataType::Int64, &specs, None, Emit::End, false, &context)
    };
    let run = |parallelisms: &[usize]| {
        let mut tasks = vec![task(0, 1)];
        let mut stored = mill_protocol::Restored::default();
        for (round, batch) in frames.iter().enumerate() {
            let count = parallelisms[round % parallelisms.len()];
            // Into other hands: what the former tasks leave, the new ones take up.
            for task in &mut tasks {
                let mut snapshot = mill_protocol::Snapshot::default();
                task.snapshot(&mut snapshot).unwrap();
                store(snapshot, &mut stored);
            }
            tasks = (0..count).map(|index| task(index, count)).collect();
            for task in &mut tasks {
                task.restore(&stored).unwrap();
            }
            let mut hashes = Vec::new();
            hash_columns(&batch.data().columns()[..1], &mut hashes).unwrap();
            for (index, task) in tasks.iter_mut().enumerate() {
                let of_task = |&row: &u32| task_of_group(key_group(hashes[row as usize]), count) == index;
                let rows: Vec<u32> = (0..batch.rows() as u32).filter(of_task).collect();
                let _ = task.on_batch(0, batch.take(&rows.into()).unwrap(), &mut Outbox::default()).unwrap();
            }
        }
        let mut lines = Vec::new();
        for task in &mut tasks {
            let mut out = Outbox::default();
            let mut progress = task.on_end(&mut out).unwrap();
            while progress == Progress::More {
                progress = task.resume(&mut out).unwrap();
            }
            while let Some(mill_protocol::Emission::Batch(_, batch)) = out.pop() {
                let shown = arrow::util::pretty::pretty_format_batches(&[batch.data().clone()]).unwrap().to_string();
                lines.extend(shown.lines().filter(|line| line.starts_with("| ")).map(|line| {
                    line.split_whitespace().collect::<Vec<_>>().join(" ")
                }));
            }
        }
        lines.sort();
        lines.dedup();
        lines
    };
    let expected = run(&[1]);
    assert_eq!(expected.len(), 91, "a heading and 90 keys");
    let counts = |line: &str| line.split(" | ").skip(1).take(20).map(str::to_owned).collect::<Vec<_>>();
    for line in expected.iter().filter(|line| !line.contains("u0")) {
        let counts = counts(line);
        assert!(counts.iter().all(|count| *count == counts[0] && count.parse::<u32>().is_ok()), "{line}");
    }
    for parallelisms in [&[2, 1][..], &[1, 3, 8], &[8, 2, 128]] {
        assert_eq!(run(parallelisms), expected, "{parallelisms:?}");
    }
}
