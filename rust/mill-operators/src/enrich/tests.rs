use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_frame::block::{RestoredBlock, SharedBytes};
use mill_plan::{How, JoinedColumn, LookupKind, LookupPlan, TableRows, UntilLoaded};
use mill_protocol::testkit::{Compare, Input, batch, check_inputs, integers, restored_block};
use mill_protocol::{Batch, Emission, Operator, Outbox, Progress, Snapshot, Watermark};

use super::Enrich;
use crate::accumulator::tests::random;
use crate::fixture::context;
use crate::read_state;

fn schema(value: &str) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new(value, DataType::Int64, true)]))
}

fn enrich(how: How, rows: TableRows, until_loaded: UntilLoaded) -> Enrich {
    let mut columns = vec![JoinedColumn::Key { left: 0, right: 0 }, JoinedColumn::Left(1)];
    let mut names = vec!["k", "x"];
    if how.has_pairs() {
        columns.push(JoinedColumn::Right(1));
        names.push("y");
    }
    let fields: Vec<Field> = names.into_iter().map(|name| Field::new(name, DataType::Int64, true)).collect();
    let plan = LookupPlan {
        kind: LookupKind::Enrich { rows, until_loaded },
        how,
        keys: [vec![0], vec![0]],
        inputs: [schema("x"), schema("y")],
        own: [2, 2],
        columns,
        on: "k".to_owned(),
    };
    Enrich::new(&Arc::new(Schema::new(fields)), &context(), &plan, (rows, until_loaded)).unwrap()
}

type Row = (Option<i64>, i64);

fn frame(value: &str, rows: &[Row]) -> Batch {
    let keys: Vec<Option<i64>> = rows.iter().map(|row| row.0).collect();
    let values: Vec<Option<i64>> = rows.iter().map(|row| Some(row.1)).collect();
    batch(&[("k", integers(&keys)), (value, integers(&values))])
}

fn rows(seed: &mut u64, count: i64, keys: u64) -> Vec<Row> {
    (0..count).map(|number| (Some((random(seed) % (keys + 1)) as i64).filter(|&key| key < keys as i64), number)).collect()
}

fn shown(value: Option<i64>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

/// The rows by the definition.
fn expected(left: &[Row], table: &[Row], how: How) -> Vec<String> {
    let mut lines = Vec::new();
    for &(key, x) in left {
        let matches: Vec<i64> = table.iter().filter(|row| key.is_some() && row.0 == key).map(|row| row.1).collect();
        let line = |y: Option<i64>| format!("0: {}, {x}, {}", shown(key), shown(y));
        match how {
            How::Semi if !matches.is_empty() => lines.push(format!("0: {}, {x}", shown(key))),
            How::Anti if matches.is_empty() => lines.push(format!("0: {}, {x}", shown(key))),
            How::Left if matches.is_empty() => lines.push(line(None)),
            How::Left | How::Inner => lines.extend(matches.into_iter().map(|y| line(Some(y)))),
            _ => {}
        }
    }
    lines.sort();
    lines
}

#[test]
fn each_left_row_meets_the_whole_table() {
    for (round, how) in [How::Inner, How::Left, How::Semi, How::Anti].into_iter().cycle().take(8).enumerate() {
        let mut seed = 5 + round as u64 * 99;
        let (left, table) = (rows(&mut seed, 25, 6), rows(&mut seed, if round < 4 { 20 } else { 4 }, 7));
        let inputs = |value: &str, rows: &[Row]| -> Vec<Input> {
            let frames = rows.chunks(9).map(|rows| Input::Batch(frame(value, rows)));
            frames.flat_map(|frame| [frame, Input::Barrier]).collect()
        };
        let make = || -> Box<dyn Operator> { Box::new(enrich(how, TableRows::All, UntilLoaded::Hold)) };
        let transcript = check_inputs(make, &[&inputs("x", &left), &inputs("y", &table)], &Compare::Unordered);
        assert_eq!(transcript.rows, expected(&left, &table, how), "round {round}");
    }
}

/// How many bytes of memory the process has now.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0) * 4096
}

#[test]
fn pairs_of_a_batch_are_made_some_at_a_time_and_in_order() {
    let mut operator = enrich(How::Left, TableRows::All, UntilLoaded::Hold);
    let mut out = Outbox::default();
    let (lefts, rights) = (1500, 100_000_usize);
    let table: Vec<Row> = (0..rights as i64).map(|value| (Some(1), value)).collect();
    assert_eq!(operator.on_batch(1, frame("y", &table), &mut out).unwrap(), Progress::Done);
    assert_eq!(operator.on_input_end(1, &mut out).unwrap(), Progress::Done);
    let left: Vec<Row> = (0..lefts).map(|number| (Some(number % 3), number)).collect();
    let before = resident();
    // All pairs at once would take 400 MB.
    let mut progress = operator.on_batch(0, frame("x", &left), &mut out).unwrap();
    let after = resident();
    assert_eq!(progress, Progress::More);
    assert!(after < before + (150 << 20), "{} MB more", after.saturating_sub(before) >> 20);

    let mut expected = (0..lefts).flat_map(|x| {
        let matches = if x % 3 == 1 { rights as i64 } else { 0 };
        (0..matches.max(1)).map(move |y| (x, (matches > 0).then_some(y)))
    });
    loop {
        while let Some(emission) = out.pop() {
            let Emission::Batch(0, found) = emission else { continue };
            assert!(found.rows() <= super::FRAME_ROWS);
            let column = |place: usize| found.column(place).as_primitive::<Int64Type>();
            for (x, y) in column(1).iter().zip(column(2).iter()) {
                assert_eq!(expected.next(), Some((x.unwrap(), y)));
            }
        }
        if progress == Progress::Done {
            break;
        }
        progress = operator.resume(&mut out).unwrap();
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn time_lateness_and_deletes_are_kept() {
    let times = frame("x", &[(Some(1), 0), (Some(2), 1), (Some(1), 2)])
        .with_times(Some(vec![10, 20, 5].into()))
        .with_behind(Some(vec![i64::MIN, 0, 12].into()));
    let table = frame("y", &[(Some(1), 7), (Some(2), 8), (Some(1), 9), (Some(2), 0)])
        .with_deletes(Some(vec![false, false, false, true].into()));
    let make = || -> Box<dyn Operator> { Box::new(enrich(How::Left, TableRows::Latest, UntilLoaded::Keep)) };
    let inputs = [&[Input::Batch(times), Input::Watermark(12)][..], &[Input::Batch(table)][..]];
    let transcript = check_inputs(make, &inputs, &Compare::Unordered);
    assert_eq!(transcript.rows, ["0: 1, 0, 9 @10", "0: 1, 2, 9 @5 behind 12", "0: 2, 1, null @20"]);
}

#[test]
fn left_records_are_not_wanted_before_the_table_is_there() {
    let mut operator = enrich(How::Inner, TableRows::All, UntilLoaded::Hold);
    let mut out = Outbox::default();
    assert!(!operator.wants(0) && operator.wants(1));
    assert_eq!(operator.earliest_result(), Watermark::MIN);
    assert_eq!(operator.on_batch(0, frame("x", &[(Some(1), 1)]), &mut out).unwrap(), Progress::Done);
    assert_eq!(operator.on_batch(1, frame("y", &[(Some(1), 2)]), &mut out).unwrap(), Progress::Done);
    assert!(out.is_empty());
    assert_eq!(operator.on_input_end(1, &mut out).unwrap(), Progress::Done);
    assert_eq!(out.len(), 1, "what came before is answered");
    assert!(operator.wants(0));
    assert_eq!(operator.earliest_result(), Watermark::MAX);
    assert!(enrich(How::Inner, TableRows::All, UntilLoaded::Keep).wants(0));
    assert!(enrich(How::Inner, TableRows::Latest, UntilLoaded::Pass).wants(0));
}

#[test]
fn the_latest_row_of_a_key_counts_and_older_ones_are_forgotten() {
    let mut operator = enrich(How::Left, TableRows::Latest, UntilLoaded::Pass);
    let mut latest: BTreeMap<i64, i64> = BTreeMap::new();
    let (mut seed, mut largest) = (3, 0);
    for round in 0..120_i64 {
        let mut out = Outbox::default();
        let rows: Vec<Row> = (0..1000).map(|row| (Some((random(&mut seed) % 500) as i64), round * 1000 + row)).collect();
        let deletes: Vec<bool> = rows.iter().map(|_| random(&mut seed) % 3 == 0).collect();
        for (&(key, value), &is_delete) in rows.iter().zip(&deletes) {
            let key = key.unwrap();
            if is_delete {
                latest.remove(&key);
            } else {
                latest.insert(key, value);
            }
        }
        let table = frame("y", &rows).with_deletes(Some(deletes.into()));
        assert_eq!(operator.on_batch(1, table, &mut out).unwrap(), Progress::Done);
        let left: Vec<Row> = (0..500).map(|key| (Some(key), key)).collect();
        assert_eq!(operator.on_batch(0, frame("x", &left), &mut out).unwrap(), Progress::Done);
        let Some(Emission::Batch(0, found)) = out.pop() else { panic!("rows come out") };
        let expected: Vec<Option<i64>> = (0..500).map(|key| latest.get(&key).copied()).collect();
        assert_eq!(found.column(2).as_ref(), integers(&expected).as_ref());
        largest = largest.max(operator.index.store().rows());
    }
    assert!(largest < 20_000, "{largest} rows are kept of 500 keys");
}

#[test]
fn the_table_is_read_from_a_checkpoint_and_damage_is_refused() {
    let mut operator = enrich(How::Left, TableRows::All, UntilLoaded::Hold);
    let mut out = Outbox::default();
    let table = [(Some(1), 7), (None, 8), (Some(2), 9), (Some(1), 10)];
    assert_eq!(operator.on_batch(1, frame("y", &table), &mut out).unwrap(), Progress::Done);
    assert_eq!(operator.on_batch(0, frame("x", &[(Some(1), 1)]), &mut out).unwrap(), Progress::Done);
    let mut snapshot = Snapshot { is_full: true, ..Snapshot::default() };
    operator.snapshot(&mut snapshot).unwrap();
    let blocks: Vec<RestoredBlock> = snapshot.blocks.make().iter().map(restored_block).collect();
    let bytes = snapshot.bytes.unwrap();
    let read = |bytes: &[u8]| read_state(&[SharedBytes::from(bytes.to_vec())], &blocks);
    // A row whose key is null is never looked up.
    assert_eq!(read(&bytes).unwrap().num_rows(), 3);
    for end in 0..bytes.len() {
        read(&bytes[..end]).unwrap_err();
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        // Whatever it is taken for, it is no panic.
        let _ = read(&changed);
    }
}
