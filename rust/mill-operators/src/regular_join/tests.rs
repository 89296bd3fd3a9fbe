//! Random changes of both sides against a join of what is there, computed again after every batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::array_value_to_string;
use mill_frame::block::{RestoredBlock, SharedBytes};
use mill_plan::{How, JoinedColumn, RegularJoinPlan, RowIdentity, StageKind, TimerClock};
use mill_protocol::testkit::{Compare, Input, batch, check_inputs, integers, restored_block};
use mill_protocol::{Batch, Emission, Operator, Outbox, Progress, Restored, Snapshot, TaskContext, Watermark};

use super::RegularJoin;
use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

/// How a side tells its rows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Each row stays as it came.
    Append,
    /// The latest row of `k` and `id` counts.
    Updating,
    /// The latest row of `k` counts.
    Unique,
}

const KINDS: [Kind; 3] = [Kind::Append, Kind::Updating, Kind::Unique];

#[derive(Clone, Copy, Debug)]
struct Case {
    how: How,
    kinds: [Kind; 2],
    ttl: Option<(i64, TimerClock)>,
    waits_for_end: bool,
    is_timed: bool,
}

impl Case {
    fn new(how: How, kinds: [Kind; 2]) -> Case {
        Case { how, kinds, ttl: None, waits_for_end: false, is_timed: false }
    }

    /// Of which sides the key of the result has what tells their rows apart; see the plan.
    fn tells_apart(&self) -> [bool; 2] {
        let is_unique = self.kinds.map(|kind| kind == Kind::Unique);
        match self.how {
            How::Inner => [!is_unique[0] || is_unique[1], !is_unique[1]],
            How::Left => [true, !is_unique[1]],
            How::Right => [!is_unique[0], true],
            How::Full => [true, true],
            How::Semi | How::Anti => [true, false],
        }
    }

    fn is_ambiguous(&self) -> bool {
        self.how == How::Full && self.kinds.iter().all(|kind| *kind != Kind::Append)
    }

    fn numbers(&self) -> [bool; 2] {
        let apart = self.tells_apart();
        [0, 1].map(|side| !self.waits_for_end && apart[side] && self.kinds[side] == Kind::Append)
    }

    /// The places of the key in the result.
    fn key(&self) -> Vec<usize> {
        let mut key = vec![0];
        let (apart, numbers) = (self.tells_apart(), self.numbers());
        key.extend((0..2).filter(|&side| apart[side] && self.kinds[side] == Kind::Updating).map(|side| 1 + 2 * side));
        let own = if self.how.has_pairs() { 5 } else { 3 };
        key.extend(own..own + numbers.iter().filter(|has| **has).count());
        key
    }

    /// How many columns the result has but for the numbers.
    fn own(&self) -> usize {
        if self.how.has_pairs() { 5 } else { 3 }
    }

    fn make(&self, context: &TaskContext) -> RegularJoin {
        let number = |name: &str| Field::new(name, DataType::Int64, true);
        let mut fields = vec![number("k"), number("id"), number("x")];
        let mut columns = vec![JoinedColumn::Left(0), JoinedColumn::Left(1), JoinedColumn::Left(2)];
        if self.how.has_pairs() {
            columns[0] = JoinedColumn::Key { left: 0, right: 0 };
            columns.extend([JoinedColumn::Right(1), JoinedColumn::Right(2)]);
            fields.extend([number("id_right"), number("x_right")]);
        }
        let numbers = self.numbers();
        if numbers[0] {
            columns.push(JoinedColumn::Left(3));
            fields.push(number("left_row"));
        }
        if numbers[1] {
            columns.push(JoinedColumn::Right(3));
            fields.push(number("right_row"));
        }
        let apart = self.kinds.map(|kind| if kind == Kind::Updating { vec![1] } else { Vec::new() });
        let plan = RegularJoinPlan {
            how: self.how,
            ttl: self.ttl,
            is_timed: self.is_timed,
            waits_for_end: self.waits_for_end,
            keys: [vec![0], vec![0]],
            identities: self.kinds.map(|kind| match kind {
                Kind::Append => RowIdentity::Number,
                Kind::Updating => RowIdentity::Columns(vec![0, 1]),
                Kind::Unique => RowIdentity::Key,
            }),
            numbers,
            tells_apart: self.tells_apart(),
            ambiguous: self.is_ambiguous().then_some(apart),
            is_shared: true,
            inputs: [input(), input()],
            own: [3, 3],
            columns,
            on: "k".to_owned(),
        };
        let stage = stage(StageKind::Pass, fields);
        RegularJoin::new(&stage, context, &plan).unwrap()
    }
}

fn input() -> SchemaRef {
    Arc::new(Schema::new(["k", "id", "x"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()))
}

#[derive(Clone, Copy, Debug)]
struct Change {
    key: Option<i64>,
    id: i64,
    x: i64,
    is_delete: bool,
    time: i64,
}

/// Random changes of a side, some of them withdrawing what is not there.
fn changes(seed: &mut u64, kind: Kind, has_nulls: bool, rows: usize) -> Vec<Change> {
    let mut change = |number: usize| {
        let is_null = has_nulls && random(seed).is_multiple_of(7);
        Change {
            key: (!is_null).then_some((random(seed) % 4) as i64),
            id: (random(seed) % 3) as i64,
            x: if random(seed).is_multiple_of(3) { 0 } else { number as i64 },
            is_delete: kind != Kind::Append && random(seed) % 5 < 2,
            time: 0,
        }
    };
    (0..rows).map(&mut change).collect()
}

fn records(changes: &[Change], is_timed: bool) -> Batch {
    let column = |of: &dyn Fn(&Change) -> Option<i64>| integers(&changes.iter().map(of).collect::<Vec<_>>());
    let deletes = changes.iter().any(|change| change.is_delete);
    batch(&[
        ("k", column(&|change| change.key)),
        ("id", column(&|change| Some(change.id))),
        ("x", column(&|change| Some(change.x))),
    ])
    .with_deletes(deletes.then(|| changes.iter().map(|change| change.is_delete).collect()))
    .with_times(is_timed.then(|| changes.iter().map(|change| change.time).collect()))
}

type Values = (Option<i64>, i64, i64);

/// The rows of a side that are there.
fn apply(rows: &mut Vec<Values>, kind: Kind, change: &Change) {
    let is_same = |row: &Values| match kind {
        Kind::Append => false,
        Kind::Updating => (row.0, row.1) == (change.key, change.id),
        Kind::Unique => row.0 == change.key,
    };
    rows.retain(|row| !is_same(row));
    if !change.is_delete {
        rows.push((change.key, change.id, change.x));
    }
}

fn text(values: &[Option<i64>]) -> String {
    let shown = values.iter().map(|value| value.map_or_else(|| "null".to_owned(), |value| value.to_string()));
    shown.collect::<Vec<_>>().join(", ")
}

/// The join of these rows, from every pair.
fn joined(how: How, left: &[Values], right: &[Values]) -> Vec<String> {
    let is_pair = |a: &Values, b: &Values| a.0.is_some() && a.0 == b.0;
    let mut rows = Vec::new();
    for a in left {
        let of_a = right.iter().filter(|b| is_pair(a, b));
        let own = [a.0, Some(a.1), Some(a.2)];
        match how {
            How::Semi if of_a.clone().next().is_some() => rows.push(text(&own)),
            How::Anti if of_a.clone().next().is_none() => rows.push(text(&own)),
            How::Semi | How::Anti => {}
            _ => {
                rows.extend(of_a.clone().map(|b| text(&[a.0, Some(a.1), Some(a.2), Some(b.1), Some(b.2)])));
                if matches!(how, How::Left | How::Full) && of_a.count() == 0 {
                    rows.push(text(&[a.0, Some(a.1), Some(a.2), None, None]));
                }
            }
        }
    }
    if matches!(how, How::Right | How::Full) {
        let alone = right.iter().filter(|b| !left.iter().any(|a| is_pair(a, b)));
        rows.extend(alone.map(|b| text(&[b.0, None, None, Some(b.1), Some(b.2)])));
    }
    rows.sort();
    rows
}

/// What an operator's changes leave: by key the row, without numbers.
#[derive(Default)]
struct Shown {
    rows: BTreeMap<String, String>,
    withdrawn: usize,
}

impl Shown {
    fn take(&mut self, case: &Case, out: &mut Outbox) {
        while let Some(emission) = out.pop() {
            let Emission::Batch(0, batch) = emission else { panic!("only a result is emitted") };
            for row in 0..batch.rows() {
                let value = |column: usize| match batch.column(column).is_null(row) {
                    true => "null".to_owned(),
                    false => array_value_to_string(batch.column(column), row).unwrap(),
                };
                let of = |columns: &mut dyn Iterator<Item = usize>| columns.map(value).collect::<Vec<_>>().join(", ");
                let key = of(&mut case.key().into_iter());
                if batch.deletes().is_some_and(|deletes| deletes.value(row)) {
                    self.withdrawn += 1;
                    assert!(self.rows.remove(&key).is_some(), "{case:?}: ({key}) is withdrawn and was not there");
                } else {
                    self.rows.insert(key, of(&mut (0..case.own())));
                }
            }
        }
    }

    fn values(&self) -> Vec<String> {
        let mut values: Vec<String> = self.rows.values().cloned().collect();
        values.sort();
        values
    }
}

fn run(operator: &mut RegularJoin, mut progress: Progress, out: &mut Outbox, each: &mut dyn FnMut(&mut Outbox)) {
    loop {
        each(out);
        if progress == Progress::Done {
            return;
        }
        progress = operator.resume(out).unwrap();
    }
}

fn cases() -> Vec<Case> {
    let pairs = KINDS.into_iter().flat_map(|left| KINDS.map(|right| [left, right]));
    pairs.flat_map(|kinds| How::ALL.map(|how| Case::new(how, kinds))).collect()
}

/// Null keys of a side whose rows are told apart by the key alone are errors in a full join of updating streams.
fn has_nulls(case: &Case, side: usize) -> bool {
    !(case.is_ambiguous() && case.kinds[side] == Kind::Unique)
}

#[test]
fn every_prefix_is_the_join_of_what_is_there() {
    let mut withdrawn = 0;
    for case in cases().into_iter().filter(|case| case.kinds != [Kind::Append; 2] || !matches!(case.how, How::Inner | How::Semi)) {
        for seed in 0..12 {
            let mut seed = 11 + seed * 1_000_003;
            let mut operator = case.make(&context());
            let (mut out, mut shown) = (Outbox::default(), Shown::default());
            let mut sides = [Vec::new(), Vec::new()];
            for _ in 0..30 {
                let side = (random(&mut seed) % 2) as usize;
                let rows = 1 + (random(&mut seed) % 4) as usize;
                let new = changes(&mut seed, case.kinds[side], has_nulls(&case, side), rows);
                let progress = operator.on_batch(side, records(&new, false), &mut out).unwrap();
                run(&mut operator, progress, &mut out, &mut |out| shown.take(&case, out));
                new.iter().for_each(|change| apply(&mut sides[side], case.kinds[side], change));
                assert_eq!(shown.values(), joined(case.how, &sides[0], &sides[1]), "{case:?}, seed {seed}");
            }
            withdrawn += shown.withdrawn;
        }
    }
    assert!(withdrawn > 9000, "{withdrawn} rows were withdrawn");
}

/// Of several changes of a row in one batch the last one counts, and nothing is emitted of the others.
#[test]
fn changes_of_a_row_in_one_batch_are_one() {
    let change = |key: i64, x: i64, is_delete: bool| Change { key: Some(key), id: 0, x, is_delete, time: 0 };
    for kind in [Kind::Updating, Kind::Unique] {
        let case = Case::new(How::Inner, [kind, Kind::Append]);
        let mut operator = case.make(&context());
        let mut out = Outbox::default();
        let right = [change(1, 7, false), change(2, 8, false), change(3, 9, false)];
        assert_eq!(operator.on_batch(1, records(&right, false), &mut out).unwrap(), Progress::Done);
        assert_eq!(operator.on_batch(0, records(&[change(3, 30, false)], false), &mut out).unwrap(), Progress::Done);
        let pairs = |out: &mut Outbox| {
            let mut pairs = Vec::new();
            while let Some(Emission::Batch(0, batch)) = out.pop() {
                let x = |row: usize| array_value_to_string(batch.column(2), row).unwrap();
                let is_delete = |row: usize| batch.deletes().is_some_and(|deletes| deletes.value(row));
                pairs.extend((0..batch.rows()).map(|row| (x(row), is_delete(row))));
            }
            pairs
        };
        assert_eq!(pairs(&mut out), [("30".to_owned(), false)]);
        let several = [
            change(1, 10, false),
            change(2, 20, false),
            change(3, 31, false),
            change(1, 11, false),
            change(2, 20, true),
            change(3, 30, true),
            change(3, 30, false),
        ];
        assert_eq!(operator.on_batch(0, records(&several, false), &mut out).unwrap(), Progress::Done);
        assert_eq!(pairs(&mut out), [("11".to_owned(), false)], "{kind:?}: a row as it was before is no change");
    }
}

/// Without checkpoints, rows that are only found from the other side are kept until that one ends.
#[test]
fn rows_go_when_nobody_can_look_for_them() {
    let change = |key: i64, x: i64| Change { key: Some(key), id: 0, x, is_delete: false, time: 0 };
    for (how, is_kept) in [(How::Inner, false), (How::Semi, false), (How::Right, false), (How::Left, true), (How::Anti, true)] {
        for is_persistent in [false, true] {
            let case = Case { waits_for_end: !matches!(how, How::Inner | How::Semi), ..Case::new(how, [Kind::Append; 2]) };
            let mut operator = case.make(&TaskContext { is_persistent, ..context() });
            let mut out = Outbox::default();
            let mut rows = 0;
            let mut count = |out: &mut Outbox| {
                while let Some(Emission::Batch(0, batch)) = out.pop() {
                    rows += batch.rows();
                }
            };
            let some = |keys: std::ops::Range<i64>| records(&keys.map(|key| change(key, key)).collect::<Vec<_>>(), false);
            assert_eq!(operator.on_batch(0, some(0..4), &mut out).unwrap(), Progress::Done);
            assert_eq!(operator.on_batch(1, some(2..6), &mut out).unwrap(), Progress::Done);
            assert_eq!(operator.on_input_end(1, &mut out).unwrap(), Progress::Done);
            assert_eq!(operator.on_batch(0, some(4..8), &mut out).unwrap(), Progress::Done);
            count(&mut out);
            let kept = [0, 1].map(|side| operator.kept.sides[side].some_from(0, 100).map_or(0, |(rows, _)| rows.len()));
            assert_eq!(kept, [if is_kept || is_persistent { 8 } else { 0 }, 4], "{how:?}");
            assert_eq!(operator.on_input_end(0, &mut out).unwrap(), Progress::Done);
            let progress = operator.on_end(&mut out).unwrap();
            run(&mut operator, progress, &mut out, &mut count);
            assert_eq!(rows, if how == How::Left { 8 } else { 4 }, "{how:?}");
        }
    }
}

#[test]
fn changes_pass_the_kit() {
    for case in cases() {
        let mut seed = 5;
        let (mut inputs, mut sides) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for side in 0..2 {
            for _ in 0..3 {
                let new = changes(&mut seed, case.kinds[side], has_nulls(&case, side), 4);
                new.iter().for_each(|change| apply(&mut sides[side], case.kinds[side], change));
                inputs[side].extend([Input::Batch(records(&new, false)), Input::Barrier]);
            }
        }
        let is_updating = case.kinds != [Kind::Append; 2] || !matches!(case.how, How::Inner | How::Semi);
        let compare = if is_updating { Compare::LatestOf(case.key()) } else { Compare::Unordered };
        let got = check_inputs(|| Box::new(case.make(&context())), &[&inputs[0], &inputs[1]], &compare);
        let values = |line: &String| line["0: ".len()..].split(", ").take(case.own()).collect::<Vec<_>>().join(", ");
        let mut rows: Vec<String> = got.rows.iter().map(values).collect();
        rows.sort();
        assert_eq!(rows, joined(case.how, &sides[0], &sides[1]), "{case:?}");
        assert!(got.rejected.is_empty());
    }
}

/// Of bounded sides that are kept forever rows without a partner come once, at the end.
#[test]
fn rows_alone_wait_for_the_end() {
    for how in [How::Left, How::Right, How::Full, How::Anti] {
        let case = Case { waits_for_end: true, ..Case::new(how, [Kind::Append; 2]) };
        let (mut inputs, mut sides) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let mut seed = 9;
        for side in 0..2 {
            for _ in 0..3 {
                let new = changes(&mut seed, Kind::Append, true, 5);
                new.iter().for_each(|change| apply(&mut sides[side], Kind::Append, change));
                inputs[side].extend([Input::Batch(records(&new, false)), Input::Barrier]);
            }
        }
        let got = check_inputs(|| Box::new(case.make(&context())), &[&inputs[0], &inputs[1]], &Compare::Unordered);
        let values = |line: &String| line["0: ".len()..].split(", ").take(case.own()).collect::<Vec<_>>().join(", ");
        let mut rows: Vec<String> = got.rows.iter().map(values).collect();
        rows.sort();
        assert_eq!(rows, joined(how, &sides[0], &sides[1]), "{how:?}");
    }
}

#[test]
fn joined_rows_have_the_later_time_and_late_ones_a_port() {
    let case = Case {
        ttl: Some((50, TimerClock::Event)),
        is_timed: true,
        ..Case::new(How::Left, [Kind::Append; 2])
    };
    let mut operator = case.make(&context());
    let mut out = Outbox::default();
    let change = |key: i64, x: i64, time: i64| Change { key: Some(key), id: 0, x, is_delete: false, time };
    let mut lines = Vec::new();
    let mut take = |out: &mut Outbox| {
        while let Some(Emission::Batch(port, batch)) = out.pop() {
            let times = batch.times().unwrap();
            for row in 0..batch.rows() {
                let deletes = batch.deletes().is_some_and(|deletes| deletes.value(row));
                let x = |column: usize| array_value_to_string(batch.column(column), row).unwrap();
                let right = if port == 0 { x(4) } else { String::new() };
                lines.push(format!("{port}: {} {right} @{}{}", x(2), times[row], if deletes { " delete" } else { "" }));
            }
        }
    };
    let mut on_batch = |operator: &mut RegularJoin, side: usize, new: &[Change]| {
        assert_eq!(operator.on_batch(side, records(new, true), &mut out).unwrap(), Progress::Done);
        take(&mut out);
    };
    on_batch(&mut operator, 0, &[change(1, 10, 100), change(2, 20, 100)]);
    // In time for the first, used by it; at 150 the second one is too old, though nothing has dropped it.
    on_batch(&mut operator, 1, &[change(1, 11, 149), change(2, 21, 150)]);
    let mut idle = Outbox::default();
    for side in 0..2 {
        assert_eq!(operator.on_watermark(side, Watermark(160), &mut idle).unwrap(), Progress::Done);
    }
    // Used at 149, so it is there until 199; a record before the watermark of its side is late.
    on_batch(&mut operator, 1, &[change(1, 12, 198), change(1, 13, 159)]);
    on_batch(&mut operator, 0, &[change(1, 14, 159)]);
    assert_eq!(
        lines,
        [
            "0: 10  @100",
            "0: 20  @100",
            "0: 10  @149 delete",
            "0: 10 11 @149",
            "2: 13  @159",
            "0: 10 12 @198",
            "1: 14  @159",
        ]
    );
}

/// A row that is there by the clock of the machine, with the time of its last use.
#[derive(Clone, Debug)]
struct Aged {
    row: Values,
    last: i64,
}

/// What the checkpoints of an operator hold, one after another, and a new operator that continues from it.
#[derive(Default)]
struct Checkpoints {
    blocks: Vec<RestoredBlock>,
}

impl Checkpoints {
    fn restarted(&mut self, case: &Case, operator: &mut RegularJoin, is_full: bool) -> RegularJoin {
        let mut snapshot = Snapshot { is_full, ..Snapshot::default() };
        operator.snapshot(&mut snapshot).unwrap();
        if is_full {
            self.blocks.clear();
        }
        self.blocks.extend(snapshot.blocks.make().iter().map(restored_block));
        let bytes = snapshot.bytes.map(SharedBytes::from).into_iter().collect();
        let mut restarted = case.make(&context());
        restarted.restore(&Restored { bytes, blocks: self.blocks.clone(), has_other_parts: false }).unwrap();
        restarted
    }
}

/// Random changes and a clock moved by hand, against rows that are looked through one by one. The operator is restarted now and then.
#[test]
fn rows_are_dropped_once_they_are_not_used() {
    const TTL: i64 = 20;
    for case in cases().into_iter().filter(|case| case.kinds == [Kind::Append; 2] && !matches!(case.how, How::Inner | How::Semi)) {
        for seed in 0..20 {
            let mut seed = 3 + seed * 1_000_003;
            let case = Case { ttl: Some((TTL, TimerClock::Processing)), ..case };
            let (mut operator, mut checkpoints) = (case.make(&context()), Checkpoints::default());
            let (mut out, mut shown) = (Outbox::default(), Shown::default());
            let mut sides: [Vec<Aged>; 2] = [Vec::new(), Vec::new()];
            let mut gone: Vec<String> = Vec::new();
            let mut now = 0;
            for _ in 0..60 {
                now += (random(&mut seed) % 12) as i64;
                if random(&mut seed).is_multiple_of(6) {
                    let is_full = random(&mut seed).is_multiple_of(3);
                    operator = checkpoints.restarted(&case, &mut operator, is_full);
                }
                operator.set_now(now);
                let live = |sides: &[Vec<Aged>; 2]| {
                    let rows = [0, 1].map(|side: usize| sides[side].iter().map(|aged| aged.row).collect::<Vec<Values>>());
                    joined(case.how, &rows[0], &rows[1])
                };
                // What a dropped row has made stays as it is.
                let before = live(&sides);
                for side in &mut sides {
                    side.retain(|aged| now < aged.last + TTL);
                }
                let mut after = live(&sides);
                for row in before {
                    match after.iter().position(|other| *other == row) {
                        Some(place) => _ = after.remove(place),
                        None => gone.push(row),
                    }
                }
                assert!(after.is_empty(), "{case:?}: dropping a row makes no row: {after:?}");
                if random(&mut seed).is_multiple_of(3) && operator.next_time().is_some_and(|due| due <= now) {
                    let progress = operator.on_time(now, &mut out).unwrap();
                    run(&mut operator, progress, &mut out, &mut |out| shown.take(&case, out));
                }
                let side = (random(&mut seed) % 2) as usize;
                for change in changes(&mut seed, Kind::Append, true, 2) {
                    for aged in sides[1 - side].iter_mut().filter(|aged| change.key.is_some() && aged.row.0 == change.key) {
                        aged.last = now;
                    }
                    sides[side].push(Aged { row: (change.key, change.id, change.x), last: now });
                    let progress = operator.on_batch(side, records(&[change], false), &mut out).unwrap();
                    run(&mut operator, progress, &mut out, &mut |out| shown.take(&case, out));
                }
                let mut expected = live(&sides);
                expected.extend(gone.iter().cloned());
                expected.sort();
                assert_eq!(shown.values(), expected, "{case:?}, seed {seed}");
            }
        }
    }
}

#[test]
fn unused_rows_take_no_memory() {
    let case = Case { ttl: Some((100, TimerClock::Processing)), ..Case::new(How::Full, [Kind::Append, Kind::Updating]) };
    let mut operator = case.make(&context());
    let mut out = Outbox::default();
    let mut memory_max = 0;
    for step in 0..4000_i64 {
        operator.set_now(step * 10);
        if operator.next_time().is_some_and(|due| due <= step * 10) {
            assert_eq!(operator.on_time(step * 10, &mut out).unwrap(), Progress::Done);
        }
        for side in 0..2 {
            // Keys that never come again.
            let new: Vec<Change> = (0..20)
                .map(|row| Change { key: Some(step * 20 + row), id: 0, x: row, is_delete: false, time: 0 })
                .collect();
            assert_eq!(operator.on_batch(side, records(&new, false), &mut out).unwrap(), Progress::Done);
        }
        while out.pop().is_some() {}
        if step % 100 == 99 {
            // As a checkpoint does, which takes the log of what changed.
            let mut snapshot = Snapshot::default();
            operator.snapshot(&mut snapshot).unwrap();
        }
        match step {
            0..1000 => memory_max = memory_max.max(operator.kept.memory()),
            _ => assert!(operator.kept.memory() <= memory_max * 3 / 2, "{} of {memory_max} at {step}", operator.kept.memory()),
        }
    }
}

#[test]
fn a_null_that_no_key_could_tell_apart_is_an_error_of_its_record() {
    let case = Case::new(How::Full, [Kind::Unique; 2]);
    let mut operator = case.make(&context());
    let mut out = Outbox::default();
    let new = [None, Some(1)].map(|key| Change { key, id: 0, x: 7, is_delete: false, time: 0 });
    assert_eq!(operator.on_batch(1, records(&new, false), &mut out).unwrap(), Progress::Done);
    let rejected = out.take_rejected();
    assert_eq!(rejected.len(), 1);
    let message = rejected[0].error.to_string();
    assert!(message.contains("the key of this right row is null") && message.contains("is_not_null()"), "{message}");
}

/// The pairs of a hot key are emitted a few at a time.
#[test]
fn many_pairs_come_in_pieces() {
    let case = Case::new(How::Full, [Kind::Append; 2]);
    let mut operator = case.make(&context());
    let (mut out, mut shown) = (Outbox::default(), Shown::default());
    let rows = |count: i64| {
        let new: Vec<Change> = (0..count).map(|x| Change { key: Some(1), id: 0, x, is_delete: false, time: 0 }).collect();
        records(&new, false)
    };
    let mut pieces = 0;
    for (side, count) in [(0, 9000), (1, 5)] {
        let progress = operator.on_batch(side, rows(count), &mut out).unwrap();
        run(&mut operator, progress, &mut out, &mut |out| {
            pieces += 1;
            shown.take(&case, out);
        });
    }
    assert_eq!((shown.rows.len(), shown.withdrawn), (45_000, 9000));
    assert!(pieces > 6, "{pieces}");
}
