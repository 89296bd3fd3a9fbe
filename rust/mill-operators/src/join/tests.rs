use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mill_plan::{How, JoinKind, JoinPlan, JoinedColumn, StageKind, Window};
use mill_protocol::testkit::{Compare, Input, batch, check_inputs, integers};
use mill_protocol::{Emission, Operator, Outbox, Progress, TaskContext, Watermark};

use super::buffer::{Buffer, Row};
use super::chains::Chains;
use super::heads::NONE;
use super::panes::{Found, Panes, number};
use super::records::{Noted, Records, Wanted};
use super::spans::Spans;
use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

fn input() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("x", DataType::Int64, true)]))
}

fn make(kind: JoinKind, how: How, context: &TaskContext) -> Box<dyn Operator> {
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let mut fields = vec![number("k"), number("x")];
    let mut columns = vec![JoinedColumn::Left(0), JoinedColumn::Left(1)];
    if how.has_pairs() {
        columns = vec![JoinedColumn::Key { left: 0, right: 0 }, JoinedColumn::Left(1), JoinedColumn::Right(1)];
        fields.push(number("x_right"));
    }
    if !matches!(kind, JoinKind::Interval { .. }) {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        fields.push(Field::new("window_end", time, true));
        columns.push(JoinedColumn::WindowEnd);
    }
    let plan = JoinPlan {
        kind,
        how,
        keys: [vec![0], vec![0]],
        inputs: [input(), input()],
        own: [2, 2],
        columns,
        on: "k".to_owned(),
    };
    crate::build(&stage(StageKind::Join(Arc::new(plan)), fields), context).unwrap()
}

/// A record, and the watermark of its split when it was read.
#[derive(Clone, Copy, Debug)]
struct Known {
    key: Option<i64>,
    value: i64,
    time: i64,
    behind: i64,
}

fn stream(seed: &mut u64, bound: i64, rows: usize, from: i64) -> (Vec<Input>, Vec<Known>) {
    let (mut inputs, mut all) = (Vec::new(), Vec::new());
    let (mut now, mut latest) = (from, i64::MIN);
    while all.len() < rows {
        let first = all.len();
        for _ in 0..(1 + random(seed) as usize % 7).min(rows - first) {
            now += (random(seed) % 9) as i64;
            let time = now - (random(seed) % 25) as i64;
            let behind = latest.saturating_sub(bound);
            latest = latest.max(time);
            let key = (!random(seed).is_multiple_of(8)).then_some((random(seed) % 3) as i64);
            all.push(Known { key, value: all.len() as i64, time, behind });
        }
        let new = &all[first..];
        let is_behind = new.iter().any(|record| record.behind > record.time);
        let column = |of: &dyn Fn(&Known) -> Option<i64>| integers(&new.iter().map(of).collect::<Vec<_>>());
        let records = batch(&[("k", column(&|record| record.key)), ("x", column(&|record| Some(record.value)))])
            .with_times(Some(new.iter().map(|record| record.time).collect()))
            .with_behind(is_behind.then(|| new.iter().map(|record| record.behind).collect()));
        inputs.extend([Input::Batch(records), Input::Watermark(latest - bound)]);
        if random(seed).is_multiple_of(4) {
            inputs.push(Input::Barrier);
        }
    }
    (inputs, all)
}

fn shown(number: Option<i64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// The ends of the windows that take a record.
fn ends(window: Window, record: &Known) -> Vec<i64> {
    let (size, slide, is_cumulative) = match window {
        Window::Tumbling { size_us, .. } => (size_us, size_us, false),
        Window::Sliding { size_us, slide_us, .. } => (size_us, slide_us, false),
        Window::Cumulative { step_us, size_us, .. } => (size_us, step_us, true),
    };
    // Sliding windows begin at multiples of the slide, cumulative ones end at multiples of the step.
    let all = (-1000..1000).map(|number| number * slide + if is_cumulative { 0 } else { size });
    let holds = |end: &i64| {
        let start = if is_cumulative { (end - 1).div_euclid(size) * size } else { end - size };
        start <= record.time && record.time < *end && *end > record.behind
    };
    all.filter(holds).collect()
}

/// Sets the end of each record's session; sessions of a key have different ends.
fn set_sessions(left: &mut [(Known, Option<i64>)], right: &mut [(Known, Option<i64>)], gap: i64) {
    let mut all: Vec<&mut (Known, Option<i64>)> = left.iter_mut().chain(right).filter(|(record, _)| record.key.is_some()).collect();
    all.sort_by_key(|(record, _)| (record.key, record.time));
    // From the last record of a session to the first.
    for place in (1..all.len()).rev() {
        let ((record, end), before) = (*all[place], &mut all[place - 1]);
        if before.0.key == record.key && record.time < before.0.time + gap {
            before.1 = end;
        }
    }
}

/// All rows of a join, from every pair of records.
fn expected(kind: JoinKind, how: How, left: &[Known], right: &[Known]) -> Vec<String> {
    let mut rows = Vec::new();
    let late = |record: &Known| match kind {
        JoinKind::Interval { .. } | JoinKind::Session { .. } => record.time < record.behind,
        JoinKind::Window(window) => ends(window, record).is_empty(),
    };
    for (port, side) in [(1, left), (2, right)] {
        rows.extend(side.iter().filter(|record| late(record)).map(|record| {
            let behind = if record.behind > record.time { format!(" behind {}", record.behind) } else { String::new() };
            format!("{port}: {}, {} @{}{behind}", shown(record.key), record.value, record.time)
        }));
    }
    // A record once for each of its windows; without windows once, with no end.
    let spread = |side: &[Known]| -> Vec<(Known, Option<i64>)> {
        let taken = side.iter().filter(|record| !late(record));
        taken
            .flat_map(|record| match kind {
                JoinKind::Interval { .. } => vec![(*record, None)],
                JoinKind::Session { gap_us } => vec![(*record, Some(record.time + gap_us))],
                JoinKind::Window(window) => ends(window, record).into_iter().map(|end| (*record, Some(end))).collect(),
            })
            .collect()
    };
    let (mut left, mut right) = (spread(left), spread(right));
    if let JoinKind::Session { gap_us } = kind {
        set_sessions(&mut left, &mut right, gap_us);
    }
    let is_pair = |(a, a_end): &(Known, Option<i64>), (b, b_end): &(Known, Option<i64>)| {
        let is_near = match kind {
            JoinKind::Interval { lower_us, upper_us } => (lower_us..=upper_us).contains(&(b.time - a.time)),
            JoinKind::Window(_) | JoinKind::Session { .. } => a_end == b_end,
        };
        a.key.is_some() && a.key == b.key && is_near
    };
    let (mut left_matched, mut right_matched) = (BTreeSet::new(), BTreeSet::new());
    let line = |key: Option<i64>, values: &[Option<i64>], end: Option<i64>, time: i64| {
        let mut columns: Vec<String> = std::iter::once(key).chain(values.iter().copied()).map(shown).collect();
        columns.extend(end.map(|end| format!("1970-01-01T00:00:00.{end:06}")));
        format!("0: {} @{}", columns.join(", "), end.map_or(time, |end| end - 1))
    };
    for (i, a) in left.iter().enumerate() {
        for (j, b) in right.iter().enumerate().filter(|(_, b)| is_pair(a, *b)) {
            left_matched.insert(i);
            right_matched.insert(j);
            if how.has_pairs() {
                rows.push(line(a.0.key, &[Some(a.0.value), Some(b.0.value)], a.1, a.0.time.max(b.0.time)));
            }
        }
    }
    for (i, (record, end)) in left.iter().enumerate() {
        let is_matched = left_matched.contains(&i);
        match how {
            How::Semi if is_matched => rows.push(line(record.key, &[Some(record.value)], *end, record.time)),
            How::Anti if !is_matched => rows.push(line(record.key, &[Some(record.value)], *end, record.time)),
            How::Left | How::Full if !is_matched => {
                rows.push(line(record.key, &[Some(record.value), None], *end, record.time));
            }
            _ => {}
        }
    }
    for (j, (record, end)) in right.iter().enumerate() {
        if how.is_padded(1) && !right_matched.contains(&j) {
            rows.push(line(record.key, &[None, Some(record.value)], *end, record.time));
        }
    }
    rows.sort();
    rows
}

fn compare(kind: JoinKind, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random_seed = 77 + seed * 1_000_003;
        let (left, of_left) = stream(&mut random_seed, 12, 24, 500);
        let (right, of_right) = stream(&mut random_seed, 5, 24, 500 + (seed as i64 % 3) * 20);
        for how in How::ALL {
            let got = check_inputs(|| make(kind, how, &context()), &[&left[..], &right[..]], &Compare::Unordered);
            assert_eq!(got.rows, expected(kind, how, &of_left, &of_right), "seed {seed}, {kind:?}, {how:?}");
        }
    }
}

#[test]
fn an_interval_joins_every_pair_once() {
    for (lower_us, upper_us) in [(-10, 10), (0, 15), (-20, -5), (3, 3), (10, 30)] {
        compare(JoinKind::Interval { lower_us, upper_us }, 0..1);
    }
}

#[test]
fn windows_join_every_pair_once_each() {
    compare(JoinKind::Window(Window::Tumbling { size_us: 20, offset_us: 0 }), 0..2);
    compare(JoinKind::Window(Window::Sliding { size_us: 25, slide_us: 10, offset_us: 0 }), 0..1);
    compare(JoinKind::Window(Window::Cumulative { step_us: 10, size_us: 30, offset_us: 0 }), 0..1);
}

#[test]
fn sessions_of_both_sides_join_every_pair_once() {
    for gap_us in [4, 15] {
        compare(JoinKind::Session { gap_us }, 0..1);
    }
}

#[test]
fn what_is_not_persistent_gives_the_same() {
    let kind = JoinKind::Interval { lower_us: -10, upper_us: 10 };
    let plain = TaskContext { is_persistent: false, ..context() };
    let (left, of_left) = stream(&mut 5, 12, 60, 0);
    let (right, of_right) = stream(&mut 6, 12, 60, 0);
    let mut operator = make(kind, How::Full, &plain);
    let mut out = Outbox::default();
    let mut rows = 0;
    let mut events = (left.iter(), right.iter());
    loop {
        let next = (events.0.next(), events.1.next());
        for (side, event) in [(0, next.0), (1, next.1)] {
            let progress = match event {
                Some(Input::Batch(batch)) => operator.on_batch(side, batch.clone(), &mut out).unwrap(),
                Some(Input::Watermark(at)) => operator.on_watermark(side, Watermark(*at), &mut out).unwrap(),
                _ => Progress::Done,
            };
            assert_eq!(progress, Progress::Done);
        }
        if next.0.is_none() && next.1.is_none() {
            break;
        }
    }
    for side in 0..2 {
        assert_eq!(operator.on_watermark(side, Watermark::MAX, &mut out).unwrap(), Progress::Done);
    }
    while let Some(emission) = out.pop() {
        if let Emission::Batch(_, batch) = emission {
            rows += batch.rows();
        }
    }
    assert_eq!(rows, expected(kind, How::Full, &of_left, &of_right).len());
}

/// Pairs of a hot key are emitted a few at a time.
#[test]
fn many_pairs_come_in_pieces() {
    pairs_come_in_pieces(JoinKind::Interval { lower_us: -1000, upper_us: 1000 });
    pairs_come_in_pieces(JoinKind::Window(Window::Tumbling { size_us: 1000, offset_us: 0 }));
}

fn pairs_come_in_pieces(kind: JoinKind) {
    let mut operator = make(kind, How::Inner, &context());
    let mut out = Outbox::default();
    let records = |rows: i64| {
        batch(&[("k", integers(&vec![Some(1); rows as usize])), ("x", integers(&(0..rows).map(Some).collect::<Vec<_>>()))])
            .with_times(Some((0..rows).collect()))
    };
    assert_eq!(operator.on_batch(0, records(300), &mut out).unwrap(), Progress::Done);
    let mut progress = operator.on_batch(1, records(400), &mut out).unwrap();
    let (mut pairs, mut pieces) = (0, 0);
    loop {
        while let Some(Emission::Batch(_, batch)) = out.pop() {
            assert!(batch.rows() <= super::EMIT_ROWS);
            pairs += batch.rows();
            pieces += 1;
        }
        if progress == Progress::Done {
            break;
        }
        progress = operator.resume(&mut out).unwrap();
    }
    assert_eq!((pairs, pieces), (120_000, 120_000_usize.div_ceil(super::EMIT_ROWS)));
}

#[test]
fn a_left_row_that_has_been_judged_is_asked_for_no_more() {
    left_rows_are_judged_once(JoinKind::Interval { lower_us: -1_000_000, upper_us: 1_000_000 });
    left_rows_are_judged_once(JoinKind::Window(Window::Tumbling { size_us: 10_000_000, offset_us: 0 }));
}

fn left_rows_are_judged_once(kind: JoinKind) {
    for (how, emitted) in [(How::Semi, 40_002), (How::Anti, 1)] {
        let mut operator = make(kind, how, &context());
        let mut out = Outbox::default();
        let mut pieces = 0;
        let mut emit = |operator: &mut dyn Operator, mut progress: Progress, out: &mut Outbox| {
            let mut rows = 0;
            loop {
                while let Some(emission) = out.pop() {
                    if let Emission::Batch(0, batch) = emission {
                        rows += batch.rows();
                    }
                }
                if progress == Progress::Done {
                    return rows;
                }
                pieces += 1;
                progress = operator.resume(out).unwrap();
            }
        };
        let frame = |key: i64, times: std::ops::Range<i64>| {
            let keys: Vec<Option<i64>> = times.clone().map(|_| Some(key)).collect();
            let values: Vec<Option<i64>> = times.clone().map(Some).collect();
            batch(&[("k", integers(&keys)), ("x", integers(&values))]).with_times(Some(times.collect()))
        };
        let mut rows = 0;
        // One that is too early for the right ones, those that they find, one that comes after them, and one of another key.
        for left in [frame(1, -1_500_000..-1_499_999), frame(1, 0..40_000), frame(2, 0..1)] {
            let progress = operator.on_batch(0, left, &mut out).unwrap();
            rows += emit(operator.as_mut(), progress, &mut out);
        }
        for from in [0, 100, 200] {
            let progress = operator.on_batch(1, frame(1, from..from + 100), &mut out).unwrap();
            rows += emit(operator.as_mut(), progress, &mut out);
        }
        let progress = operator.on_batch(0, frame(1, 50_000..50_001), &mut out).unwrap();
        rows += emit(operator.as_mut(), progress, &mut out);
        let progress = operator.on_batch(1, frame(2, 7..8), &mut out).unwrap();
        rows += emit(operator.as_mut(), progress, &mut out);
        for side in [0, 1] {
            let progress = operator.on_watermark(side, Watermark::MAX, &mut out).unwrap();
            rows += emit(operator.as_mut(), progress, &mut out);
        }
        assert_eq!(rows, emitted, "{how:?}");
        assert!(pieces < 20, "{how:?}: {pieces} pieces for 300 right rows of a key");
    }
}

/// Rows that come and go leave neither frames nor keys behind, and those that stay keep their columns.
#[test]
fn a_buffer_stays_small() {
    let mut buffer = Buffer::default();
    let (mut random_seed, mut rows_max) = (3, 0);
    for step in 0..3000_i64 {
        let values: Vec<i64> = (0..40).map(|row| step * 40 + row).collect();
        // One row of each batch stays for ever.
        let rows = values.iter().map(|&value| {
            let due = if value % 40 == 7 { i64::MAX - 1 } else { step + (random(&mut random_seed) % 20) as i64 };
            Row::new(due, 0, value as u64)
        });
        let keys: Vec<[u8; 8]> = values.iter().map(|value| (value % 1000).to_le_bytes()).collect();
        buffer
            .add(vec![integers(&values.iter().copied().map(Some).collect::<Vec<_>>())], rows.collect(), |row| {
                (u64::from(keys[row][0]), &keys[row][..])
            })
            .unwrap();
        let gone = buffer.take_due(step);
        if step % 100 == 0 {
            let columns = buffer.gather(&gone).unwrap();
            let known = buffer.known(&gone);
            let values: Vec<String> = known.iter().map(|row| row.durable.to_string()).collect();
            let column = &columns[0];
            let found: Vec<String> = (0..gone.len())
                .map(|row| arrow::util::display::array_value_to_string(column, row).unwrap())
                .collect();
            assert_eq!(found, values);
        }
        buffer.remove(&gone, step);
        buffer.sweep().unwrap();
        rows_max = rows_max.max(buffer.stored());
    }
    assert!((3000..3000 + 40 * 21).contains(&buffer.len()), "{}", buffer.len());
    assert!(rows_max < 2 * buffer.len() + 40_000, "{rows_max}");
    assert_eq!(buffer.of_key(7, &7_i64.to_le_bytes()).len(), 120);
}

/// A row as a list keeps it.
#[derive(Debug)]
struct Listed {
    key: u64,
    value: i64,
    due: i64,
    is_matched: bool,
    is_out: bool,
}

/// Records with keys of which some share a hash, unless the keys are their own words.
fn records(keys: &[u64], dues: &[i64], is_word: bool) -> Records {
    let mut records = Records { dues: dues.to_vec(), ..Records::default() };
    records.hashes = keys.iter().map(|key| (key / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    records.words = if is_word { keys.to_vec() } else { records.hashes.clone() };
    if !is_word {
        keys.iter().for_each(|key| records.keys.push(&key.to_le_bytes()[..1 + (*key % 3) as usize]));
    }
    records
}

/// The partners of a record among the rows that are due from a time on for a length, `at_once` of them at a time.
fn partners(panes: &mut dyn Panes, asked: &Records, record: usize, from: i64, length: i64, at_once: usize) -> Vec<u64> {
    let mut found = Vec::new();
    panes.find_all(&mut found, record, &asked.hashes[record..=record], &[from], length);
    let mut numbers = Vec::new();
    for at in found {
        assert_eq!(at.record as usize, record);
        let mut row = at.row;
        while row != NONE {
            let before = numbers.len();
            row = panes.rows_mut(at.pane as usize).walk(row, &wanted(asked, record, from, length), |row, _| {
                let has_room = numbers.len() < before + at_once;
                if has_room {
                    numbers.push(number(at.pane, row));
                }
                has_room
            });
            assert!(row == NONE || numbers.len() == before + at_once);
        }
    }
    numbers
}

/// Takes the partners of a record out, and marks them.
fn take_out(panes: &mut dyn Panes, asked: &Records, record: usize, from: i64, length: i64) -> Vec<u64> {
    let (mut found, mut out) = (Vec::new(), Vec::new());
    panes.find_all(&mut found, record, &asked.hashes[record..=record], &[from], length);
    for at in found {
        let wanted = wanted(asked, record, from, length);
        while panes.rows_mut(at.pane as usize).take_out(at.row, &wanted, 2, |row| out.push(number(at.pane, row))) {}
    }
    let mut marked = out.clone();
    panes.mark(&mut marked);
    out
}

fn wanted(asked: &Records, record: usize, from: i64, length: i64) -> Wanted<'_> {
    Wanted { word: asked.words[record], key: asked.keys.get(record), from, to: from + length }
}

fn durable(panes: &dyn Panes, numbers: &[u64]) -> Vec<i64> {
    panes.known(numbers).iter().map(|(_, noted)| noted.durable as i64).collect()
}

#[test]
fn panes_find_what_a_list_has() {
    // Windows that end every slide, or within a time.
    for (slide, length, is_word) in
        [(1, None, true), (1, None, false), (10, None, true), (10, None, false), (1, Some(0), true), (1, Some(7), false), (1, Some(300), true)]
    {
        let mut panes: Box<dyn Panes> = match length {
            None => Box::new(Chains::new(slide, true)),
            Some(length) => Box::new(Spans::new(length, true)),
        };
        let length = length.unwrap_or(0);
        let mut list: Vec<Listed> = Vec::new();
        let (mut seed, mut next, mut found_rows, mut panes_max) = (17 + slide as u64, 0_i64, 0, 0);
        // When a window is over that is soon.
        let window = |step: i64, ahead: i64| (step + ahead).div_euclid(slide) * slide + slide - 1;
        for step in 0..900_i64 {
            // Mostly a few rows, and many at times; in no order, and some far ahead.
            let rows = if random(&mut seed).is_multiple_of(60) { 3000 } else { 1 + random(&mut seed) % 60 } as usize;
            let keys: Vec<u64> = (0..rows).map(|_| random(&mut seed) % 50).collect();
            let ahead = |seed: &mut u64| match random(seed).is_multiple_of(500) {
                true => random(seed) % 1_000_000,
                false => random(seed) % (30 + length as u64),
            };
            let dues: Vec<i64> = (0..rows).map(|_| window(step, ahead(&mut seed) as i64)).collect();
            let values: Vec<i64> = (next..next + rows as i64).collect();
            next += rows as i64;
            let noted: Vec<Noted> =
                values.iter().map(|&value| Noted { hash: 0, durable: value as u64, is_matched: value % 7 == 0 }).collect();
            let column = integers(&values.iter().map(|&value| Some(value)).collect::<Vec<_>>());
            panes.add(&[column], &records(&keys, &dues, is_word), &noted).unwrap();
            list.extend(keys.iter().zip(&dues).zip(&values).map(|((&key, &due), &value)| {
                Listed { key, value, due, is_matched: value % 7 == 0, is_out: false }
            }));
            let count = if step % 100 < 20 { 0 } else { random(&mut seed) % 40 } as usize;
            let keys: Vec<u64> = (0..count).map(|_| random(&mut seed) % 60).collect();
            let times: Vec<i64> = (0..count).map(|_| window(step, ahead(&mut seed) as i64)).collect();
            let asked = records(&keys, &times, is_word);
            for record in 0..count {
                let (key, from) = (keys[record], times[record]);
                let is_partner = |row: &Listed| !row.is_out && row.key == key && (from..=from + length).contains(&row.due);
                let expected: Vec<i64> = list.iter().filter(|row| is_partner(row)).map(|row| row.value).collect();
                let mut numbers = partners(&mut *panes, &asked, record, from, length, 3);
                let mut got = durable(&*panes, &numbers);
                if !numbers.is_empty() {
                    assert_eq!(&panes.gather(&numbers).unwrap()[0], &integers(&got.iter().map(|&value| Some(value)).collect::<Vec<_>>()));
                }
                got.sort_unstable();
                assert_eq!(got, expected, "step {step}, slide {slide}, length {length}");
                found_rows += got.len();
                if record % 8 == 0 && !numbers.is_empty() {
                    panes.mark(&mut numbers);
                    let new = list.iter_mut().filter(|row| is_partner(row) && !row.is_matched);
                    assert_eq!(new.map(|row| row.is_matched = true).count(), numbers.len());
                }
                if step % 3 == 0 && record + 2 > count {
                    let out = take_out(&mut *panes, &asked, record, from, length);
                    let mut out = durable(&*panes, &out);
                    out.sort_unstable();
                    assert_eq!(out, expected);
                    // What is taken out has had a partner.
                    list.iter_mut().filter(|row| is_partner(row)).for_each(|row| (row.is_out, row.is_matched) = (true, true));
                }
            }
            let (mut unmatched, mut has_more) = (Vec::new(), true);
            let mut got = Vec::new();
            while has_more {
                unmatched.clear();
                has_more = panes.drop_before(step, 7, &mut unmatched);
                got.extend(panes.known(&unmatched).iter().map(|(due, noted)| (*due, noted.durable as i64)));
            }
            panes.sweep(step);
            got.sort_unstable();
            let mut expected: Vec<(i64, i64)> =
                list.extract_if(.., |row| row.due < step).filter(|row| !row.is_matched).map(|row| (row.due, row.value)).collect();
            expected.sort_unstable();
            assert_eq!(got, expected);
            panes_max = panes_max.max(panes.panes());
        }
        assert!(found_rows > 2000 && panes_max < 120, "{found_rows} rows in {panes_max} panes");
    }
}

/// Rows of one key and time, one row a key of many, at once or in pieces, in any order: a few rows are passed in vain for each that is found,
/// whichever of them are looked for.
#[test]
fn few_rows_are_passed_in_vain() {
    const ROWS: i64 = 200_000;
    for (order, asked_from) in [("rising", 0), ("falling", 0), ("random", 0), ("rising", ROWS / 2), ("random", ROWS / 2)] {
        for keys in [1, 100] {
            let mut spans = Spans::new(200, false);
            let mut seed = 3;
            let mut dues: Vec<i64> = (0..ROWS).collect();
            match order {
                "falling" => dues.reverse(),
                "random" => dues.sort_by_cached_key(|_| random(&mut seed)),
                _ => {}
            }
            let (mut visited, mut passed) = (0, 0);
            for (step, dues) in dues.chunks(4000).enumerate() {
                let own: Vec<u64> = dues.iter().map(|due| *due as u64 % keys).collect();
                let values: Vec<Option<i64>> = dues.iter().copied().map(Some).collect();
                spans.add(&[integers(&values)], &records(&own, dues, true), &[]).unwrap();
                let until = (step as i64 + 1) * 4000;
                // Late ones among those that are there, early ones, or any.
                let times: Vec<i64> = (0..500).map(|_| asked_from + (random(&mut seed) as i64 & i64::MAX) % until).collect();
                let keys: Vec<u64> = times.iter().map(|time| *time as u64 % keys).collect();
                let asked = records(&keys, &times, true);
                let mut found = Vec::new();
                spans.find_all(&mut found, 0, &asked.hashes, &times, 200);
                let mut at = 0;
                while let Some(&Found { record, pane, row, .. }) = found.get(at) {
                    let rows = spans.rows_mut(pane as usize);
                    let before = rows.vain();
                    let wanted = wanted(&asked, record as usize, times[record as usize], 200);
                    rows.walk(row, &wanted, |_, _| {
                        visited += 1;
                        true
                    });
                    passed += rows.vain() - before;
                    at += 1;
                    if rows.is_tired() {
                        rows.sort();
                        found[at..].iter_mut().filter(|left| left.pane == pane).for_each(|left| left.row = rows.first_of(left.tag));
                    }
                }
            }
            // Each record looks at up to eight rows before it jumps, in each of its panes.
            let asked = 500 * (ROWS as usize / 4000);
            assert!(visited > 0 && passed < 200 * ROWS as usize + 60 * asked, "{order}, {keys} keys: {passed} for {visited} of {asked}");
        }
    }
}

/// However long the interval is and however far a clock is ahead, a side has little more than the rows that are not due.
#[test]
fn rows_within_a_time_stay_little_longer_than_they_must() {
    for (late, ahead, is_noted) in [(0, 0, false), (0, 40, true), (0, 7, false), (2000, 0, false), (50_000, 40, false)] {
        let mut spans = Spans::new(1000, is_noted);
        let (mut seed, mut kept_max, mut unmatched, mut panes_max) = (5, 0, 0, 0);
        let mut far = 0;
        for step in 0..3000_i64 {
            // A row a moment is due a moment later, or up to so much later; one of so many is of a clock that is far ahead.
            let dues: Vec<i64> = (0..400)
                .map(|row| match ahead > 0 && row % ahead == 0 {
                    true => 50_000_000 + 400 * step + row,
                    false => 400 * step + row + if late > 0 { random(&mut seed) as i64 & 0xffff_ffff } else { 0 } % (late + 1),
                })
                .collect();
            far += dues.iter().filter(|&&due| due >= 50_000_000).count();
            let keys: Vec<u64> = dues.iter().map(|_| random(&mut seed) % 1000).collect();
            let noted = keys.iter().map(|&hash| Noted { hash, durable: 0, is_matched: false });
            let noted: Vec<Noted> = if is_noted { noted.collect() } else { Vec::new() };
            let values: Vec<Option<i64>> = dues.iter().copied().map(Some).collect();
            spans.add(&[integers(&values)], &records(&keys, &dues, true), &noted).unwrap();
            let before = 400 * step;
            let mut gone = Vec::new();
            if is_noted {
                assert!(!spans.drop_before(before, usize::MAX, &mut gone));
                let columns = spans.gather(&gone).unwrap();
                let dues: Vec<Option<i64>> = spans.known(&gone).iter().map(|(due, _)| Some(*due)).collect();
                assert!(gone.is_empty() || columns[0] == integers(&dues));
                unmatched += gone.len();
            }
            spans.sweep(before);
            let live = far + 400 + late as usize / 2;
            kept_max = kept_max.max(spans.kept().saturating_sub(2 * live));
            panes_max = panes_max.max(spans.panes());
        }
        assert!(kept_max < 40_000 && panes_max < 12, "{kept_max} rows too many in {panes_max} panes, {late} {ahead}");
        assert!(unmatched == 0 || unmatched > 3000 * 380);
    }
}

/// Windows of few records share panes, windows of many do not, and either go with the watermark.
#[test]
fn panes_have_many_rows_and_go_with_their_windows() {
    for (rows, panes_max) in [(1, 8), (10_000, 4)] {
        let mut chains = Chains::new(10, true);
        let (mut most, mut unmatched) = (0, 0);
        for window in 0..3000_i64.min(100_000 / rows) {
            let due = 10 * window + 9;
            let keys: Vec<u64> = (0..rows as u64).collect();
            let noted: Vec<Noted> = keys.iter().map(|&key| Noted { hash: key, durable: key, is_matched: false }).collect();
            let values: Vec<Option<i64>> = (0..rows).map(|row| Some(window * rows + row)).collect();
            let new = records(&keys, &vec![due; keys.len()], true);
            chains.add(&[integers(&values)], &new, &noted).unwrap();
            // A key has its own row.
            let last = keys.len() - 1;
            let partners = partners(&mut chains, &new, last, due, 0, 100);
            let columns = chains.gather(&partners).unwrap();
            assert_eq!((columns[0].len(), &columns[0]), (1, &integers(&[Some(window * rows + rows - 1)])));
            // Three windows are open.
            let before = due - 30;
            let mut gone = Vec::new();
            assert!(!chains.drop_before(before, usize::MAX, &mut gone));
            unmatched += gone.len() as i64;
            assert!(chains.known(&gone).iter().all(|(due, _)| (before - 10..before).contains(due)));
            chains.sweep(before);
            most = most.max(chains.panes());
        }
        assert!(most <= panes_max, "{most} panes for windows of {rows} rows");
        assert_eq!(unmatched, rows * (3000_i64.min(100_000 / rows) - 4));
        chains.sweep(i64::MAX);
        assert_eq!(chains.panes(), 0);
    }
}

/// Records that come thick after a long time of few do not stay for as long as those few did.
#[test]
fn a_pane_of_many_windows_takes_no_more_once_it_has_many_records() {
    let mut chains = Chains::new(10, false);
    let mut most = 0;
    for step in 0..1200_i64 {
        // A window in a thousand has a record, and then each has 200.
        let (window, rows) = if step < 200 { (1000 * step, 1) } else { (200_000 + step, 200) };
        let due = 10 * window + 9;
        let keys: Vec<u64> = (0..rows).collect();
        let new = records(&keys, &vec![due; keys.len()], true);
        chains.add(&[integers(&vec![Some(step); keys.len()])], &new, &[]).unwrap();
        chains.sweep(due);
        most = most.max(chains.kept());
    }
    assert!((200..20_000).contains(&most), "{most} rows of 200 a window");
}

/// A record of each batch has a clock that is far ahead: the others go with their windows all the same.
#[test]
fn records_far_ahead_hold_no_others() {
    for is_noted in [false, true] {
        let mut chains = Chains::new(10, is_noted);
        let (mut most, mut unmatched, mut next) = (0, 0, 0);
        for step in 0..1500_i64 {
            // Few at first, so that panes have many windows.
            let rows = if step < 100 { 3 } else { 400 };
            let mut dues = vec![10 * step + 9; rows];
            dues[0] += 10_000_000 + 10 * (step % 7);
            let keys: Vec<u64> = (0..rows as u64).collect();
            let noted = keys.iter().map(|&hash| Noted { hash, durable: 0, is_matched: false });
            let noted: Vec<Noted> = if is_noted { noted.collect() } else { Vec::new() };
            let values: Vec<Option<i64>> = (next..next + rows as i64).map(Some).collect();
            next += rows as i64;
            let new = records(&keys, &dues, true);
            chains.add(&[integers(&values)], &new, &noted).unwrap();
            // The last of this batch, and the one far ahead.
            for place in [rows - 1, 0] {
                let partners = partners(&mut chains, &new, place, dues[place], 0, 10_000);
                assert!(!partners.is_empty(), "step {step}, place {place}");
                let columns = chains.gather(&partners[..1]).unwrap();
                assert_eq!(&columns[0], &integers(&values[place..=place]), "the newest is the first");
            }
            let mut gone = Vec::new();
            if is_noted {
                assert!(!chains.drop_before(10 * step, usize::MAX, &mut gone));
                unmatched += gone.len();
            }
            chains.sweep(10 * step);
            most = most.max(chains.kept());
        }
        assert!(most < 60_000, "{most} rows of 400 a window");
        let mut gone = Vec::new();
        assert!(!is_noted || !chains.drop_before(i64::MAX, usize::MAX, &mut gone));
        assert_eq!(unmatched + gone.len(), if is_noted { 100 * 3 + 1400 * 400 } else { 0 });
    }
}

/// Records far ahead that have been taken out leave nothing to part with, and what comes after them keeps its columns.
#[test]
fn records_far_ahead_that_are_taken_out_are_parted_with() {
    let mut chains = Chains::new(10, true);
    let add = |chains: &mut Chains, keys: &[u64], due: i64| {
        let noted: Vec<Noted> = keys.iter().map(|&hash| Noted { hash, durable: 0, is_matched: false }).collect();
        let values: Vec<Option<i64>> = keys.iter().map(|&key| Some(key as i64)).collect();
        chains.add(&[integers(&values)], &records(keys, &vec![due; keys.len()], true), &noted).unwrap();
    };
    // Panes of ever more windows, the last of which has one far ahead.
    for step in 0..200_i64 {
        add(&mut chains, &[1], 10 * step + 9);
    }
    add(&mut chains, &[7], 12_009);
    assert_eq!(take_out(&mut chains, &records(&[7], &[12_009], true), 0, 12_009, 0).len(), 1);
    for step in 200..1400_i64 {
        let keys: Vec<u64> = (0..200).collect();
        add(&mut chains, &keys, 10 * step + 9);
        let due = 10 * step + 9;
        let partners = partners(&mut chains, &records(&[150], &[due], true), 0, due, 0, 10);
        assert_eq!(&chains.gather(&partners).unwrap()[..], &[integers(&[Some(150)])], "step {step}");
    }
}

/// A batch whose first record is far ahead, in a pane that has had such records before and parts with them at the next one.
#[test]
fn a_record_far_ahead_is_found_in_a_pane_that_parts_with_the_time_after_the_others() {
    let mut chains = Chains::new(10, true);
    let add = |chains: &mut Chains, keys: &[u64], dues: &[i64]| {
        let noted: Vec<Noted> = keys.iter().map(|&hash| Noted { hash, durable: 0, is_matched: false }).collect();
        let values: Vec<Option<i64>> = keys.iter().map(|&key| Some(key as i64)).collect();
        chains.add(&[integers(&values)], &records(keys, dues, true), &noted).unwrap();
    };
    for step in 0..200_i64 {
        add(&mut chains, &[1], &[10 * step + 9]);
    }
    for step in 200..1100_i64 {
        let keys: Vec<u64> = (0..100).collect();
        let mut dues = vec![10 * step + 9; keys.len()];
        dues[0] = 12_009;
        add(&mut chains, &keys, &dues);
        let asked = records(&[0, 99], &[12_009, dues[99]], true);
        assert_eq!(partners(&mut chains, &asked, 1, dues[99], 0, 10).len(), 1, "step {step}");
        assert_eq!(take_out(&mut chains, &asked, 0, 12_009, 0).len(), 1, "step {step}");
    }
}
