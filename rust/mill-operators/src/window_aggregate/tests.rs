use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use mill_plan::{AggregateKind, AggregateSpec, Emit, Window};
use mill_protocol::testkit::{Compare, Input, batch, check, integers};
use mill_protocol::{Outbox, Progress, TaskContext, Watermark};

use crate::accumulator::tests::{make, random, spec};
use crate::fixture::context;
use crate::windows::tests::windows_of;

fn specs(is_mergeable: bool) -> Vec<AggregateSpec> {
    let mut specs = vec![
        spec(AggregateKind::Count, None, None),
        spec(AggregateKind::Sum, Some((1, DataType::Int64)), None),
        spec(AggregateKind::Max, Some((1, DataType::Int64)), None),
    ];
    if !is_mergeable {
        specs.push(spec(AggregateKind::NUnique, Some((1, DataType::Int64)), None));
        specs.push(spec(AggregateKind::Median, Some((1, DataType::Int64)), None));
    }
    specs
}

/// A disordered stream of one split: frames, each followed by its watermark.
fn stream(seed: &mut u64, bound: i64, rows: usize) -> (Vec<Input>, Vec<(i64, i64, i64, i64)>) {
    let mut inputs = Vec::new();
    let mut all = Vec::new();
    let (mut now, mut latest) = (-300i64, i64::MIN);
    let mut left = rows;
    while left > 0 {
        let count = (1 + random(seed) as usize % 9).min(left);
        left -= count;
        let (mut keys, mut values, mut times, mut behind) = (vec![], vec![], vec![], vec![]);
        for _ in 0..count {
            now += (random(seed) % 12) as i64;
            let time = now - (random(seed) % 90) as i64;
            let watermark = latest.saturating_sub(bound);
            latest = latest.max(time);
            let (key, value) = ((random(seed) % 4) as i64, (random(seed) % 10) as i64);
            all.push((key, value, time, watermark));
            keys.push(Some(key));
            values.push(Some(value));
            times.push(time);
            behind.push(watermark);
        }
        let is_behind = times.iter().zip(&behind).any(|(time, behind)| behind > time);
        let records = batch(&[("k", integers(&keys)), ("x", integers(&values))])
            .with_times(Some(times.into()))
            .with_behind(is_behind.then(|| behind.into()));
        inputs.push(Input::Batch(records));
        inputs.push(Input::Watermark(latest - bound));
        if random(seed).is_multiple_of(4) {
            inputs.push(Input::Barrier);
        }
    }
    (inputs, all)
}

#[test]
fn windows_and_late_records_are_those_of_the_definition() {
    let tumbling = |size_us, offset_us| Window::Tumbling { size_us, offset_us };
    let sliding = |size_us, slide_us, offset_us| Window::Sliding { size_us, slide_us, offset_us };
    let cumulative = |step_us, size_us, offset_us| Window::Cumulative { step_us, size_us, offset_us };
    let cases = [
        (tumbling(50, 0), 0, 20),
        (tumbling(64, 7), 25, 10),
        (tumbling(40, -9), 1000, 0),
        (sliding(50, 10, 0), 0, 20),
        (sliding(50, 20, 3), 0, 10),
        (sliding(64, 7, 5), 25, 10),
        (sliding(40, 40, 0), 0, 10),
        (sliding(300, 10, 0), 7, 5),
        (cumulative(10, 50, 0), 0, 20),
        (cumulative(25, 100, 9), 13, 5),
    ];
    let mut all_late = 0;
    for (round, (window, lateness, bound)) in cases.into_iter().enumerate() {
        let mut seed = 1000 + round as u64;
        let (inputs, all) = stream(&mut seed, bound, 70);
        let mut expected: BTreeMap<(i64, i64, i64), Vec<i64>> = BTreeMap::new();
        let mut late = 0;
        for &(key, value, time, watermark) in &all {
            let taking: Vec<(i64, i64)> = windows_of(window, time)
                .into_iter()
                .filter(|&(_, end)| !(watermark > time && watermark > end - 1 + lateness))
                .collect();
            late += usize::from(taking.is_empty());
            for (start, end) in taking {
                expected.entry((key, start, end)).or_default().push(value);
            }
        }
        for (is_partial, is_mergeable) in [(false, false), (false, true), (true, true)] {
            let specs = specs(is_mergeable);
            let make = || make(DataType::Int64, &specs, Some((window, lateness)), Emit::End, is_partial, &context());
            let transcript = check(make, &inputs, &Compare::Unordered);
            let lines: Vec<&String> = transcript.rows.iter().filter(|line| line.starts_with("0: ")).collect();
            let mut lines_expected: Vec<String> = expected
                .iter()
                .map(|((key, start, end), values)| {
                    let time = |at: i64| {
                        chrono_text(at)
                    };
                    let mut sorted = values.clone();
                    sorted.sort_unstable();
                    let mut line = format!(
                        "0: {key}, {}, {}, {}, {}, {}",
                        time(*start), time(*end), values.len(), values.iter().sum::<i64>(), sorted.last().unwrap()
                    );
                    if !is_mergeable {
                        let middle = (sorted.len() - 1) as f64 / 2.0;
                        let median = (sorted[middle.floor() as usize] + sorted[middle.ceil() as usize]) as f64 / 2.0;
                        sorted.dedup();
                        line += &format!(", {}, {median:?}", sorted.len());
                    }
                    line + &format!(" @{}", end - 1)
                })
                .collect();
            lines_expected.sort();
            assert_eq!(lines, lines_expected.iter().collect::<Vec<_>>(), "{window}, {lateness}, {is_partial}, {is_mergeable}");
            assert_eq!(transcript.late, late as u64);
            assert_eq!(transcript.rows.len() - lines.len(), late);
        }
        all_late += late;
    }
    assert!(all_late > 10, "the streams should have late records, found {all_late}");
}

#[test]
fn only_the_totals_of_windows_decide_whether_they_fit() {
    const LARGE: [i64; 10] =
        [i64::MAX, i64::MIN, i64::MAX - 3, i64::MIN + 7, 1 << 62, -(1 << 62), i64::MAX, i64::MIN, 5, -1];
    let windows = [
        Window::Tumbling { size_us: 50, offset_us: 0 },
        Window::Sliding { size_us: 64, slide_us: 7, offset_us: 5 },
        Window::Cumulative { step_us: 10, size_us: 50, offset_us: 0 },
    ];
    let specs = [spec(AggregateKind::Count, None, None), spec(AggregateKind::Sum, Some((1, DataType::Int64)), None)];
    for window in windows {
        let (inputs, all) = stream(&mut 77, 100, 60);
        let enlarged = |input: &Input| match input {
            Input::Batch(records) => {
                let small = records.column(1).as_primitive::<Int64Type>().clone();
                let large: Vec<Option<i64>> = small.iter().map(|value| Some(LARGE[value? as usize])).collect();
                let keys = records.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
                Input::Batch(batch(&[("k", integers(&keys)), ("x", integers(&large))]).with_times(records.times().cloned()))
            }
            other => other.clone(),
        };
        let inputs: Vec<Input> = inputs.iter().map(enlarged).collect();
        let mut totals: BTreeMap<(i64, i64, i64), (usize, i128)> = BTreeMap::new();
        for &(key, value, time, _) in &all {
            for (start, end) in windows_of(window, time) {
                let total = totals.entry((key, start, end)).or_default();
                *total = (total.0 + 1, total.1 + i128::from(LARGE[value as usize]));
            }
        }
        let fits = |total: i128| i64::try_from(total).is_ok();
        let line = |(&(key, start, end), &(count, total)): (&(i64, i64, i64), &(usize, i128))| {
            format!("0: {key}, {}, {}, {count}, {total} @{}", chrono_text(start), chrono_text(end), end - 1)
        };
        let mut expected: Vec<String> = totals.iter().filter(|(_, (_, total))| fits(*total)).map(line).collect();
        expected.sort();
        let beyond = totals.len() - expected.len();
        assert!(beyond > 5 && expected.len() > 5, "{window}: {beyond} of {} are beyond", totals.len());
        for is_partial in [false, true] {
            let make = || make(DataType::Int64, &specs, Some((window, 0)), Emit::End, is_partial, &context());
            let transcript = check(make, &inputs, &Compare::Unordered);
            assert_eq!(transcript.rows, expected, "{window}, {is_partial}");
            assert_eq!(transcript.rejected.len(), beyond, "{window}, {is_partial}");
        }
    }
}

fn chrono_text(micros: i64) -> String {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let array = TimestampMicrosecondArray::from(vec![micros]);
    ArrayFormatter::try_new(&array, &FormatOptions::new()).unwrap().value(0).to_string()
}

#[test]
fn closed_windows_give_their_memory_back() {
    let window = Window::Tumbling { size_us: 10, offset_us: 0 };
    let mut operator = make(DataType::Int64, &specs(false), Some((window, 0)), Emit::End, false, &context());
    let mut out = Outbox::default();
    let mut given = 0;
    for round in 0..50i64 {
        let keys: Vec<Option<i64>> = (0..3000).map(Some).collect();
        let records = batch(&[("k", integers(&keys)), ("x", integers(&keys))])
            .with_times(Some(vec![round * 10 + 5; 3000].into()));
        let _ = operator.on_batch(0, records, &mut out).unwrap();
        let mut progress = operator.on_watermark(0, Watermark(round * 10 + 10), &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut out).unwrap();
        }
        while let Some(mill_protocol::Emission::Batch(0, batch)) = out.pop() {
            given += batch.rows();
        }
        let mut snapshot = mill_protocol::Snapshot::default();
        operator.snapshot(&mut snapshot).unwrap();
        let full = snapshot.blocks.make().iter().filter(|block| block.kind != mill_frame::block::BlockKind::Drop).count();
        assert_eq!(full, 0, "nothing is open any more");
    }
    assert_eq!(given, 150_000);
}

#[test]
fn a_record_for_a_window_that_has_fired_is_late_whatever_its_split_says() {
    // A split that had been idle continues to read behind the watermark that the others made without it.
    let window = Window::Tumbling { size_us: 10, offset_us: 0 };
    let record = |time: i64| {
        Input::Batch(batch(&[("k", integers(&[Some(1)])), ("x", integers(&[Some(1)]))]).with_times(Some(vec![time].into())))
    };
    let inputs = [record(5), Input::Watermark(10), record(7), record(12)];
    let specs = vec![spec(AggregateKind::Count, None, None)];
    let make = || make(DataType::Int64, &specs, Some((window, 0)), Emit::End, false, &context());
    let transcript = check(make, &inputs, &Compare::Unordered);
    assert_eq!(transcript.rows.len(), 3);
    assert_eq!(transcript.late, 1);
}

/// Frames whose records are scattered over many windows of ten microseconds, each followed by a watermark: in each a record
/// has been late for its window for some time, and some frames are of one moment.
fn scattered_stream(seed: &mut u64, frames: usize, has_late: bool) -> (Vec<Input>, Vec<Vec<(i64, i64, i64)>>) {
    let (mut inputs, mut all) = (Vec::new(), Vec::new());
    for frame in 0..frames as i64 {
        let now = frame * 40;
        let mut records = Vec::new();
        for _ in 0..24 + random(seed) % 30 {
            let behind = if frame % 5 == 4 { 0 } else { (random(seed) % 700) as i64 };
            records.push(((random(seed) % 5) as i64, (random(seed) % 10) as i64, now - behind));
        }
        if has_late {
            records.push((7, 7, now - 900));
        }
        inputs.push(Input::Batch(records_of(&records)));
        inputs.push(Input::Watermark(now - 690));
        if random(seed).is_multiple_of(3) {
            inputs.push(Input::Barrier);
        }
        all.push(records);
    }
    (inputs, all)
}

fn records_of(records: &[(i64, i64, i64)]) -> mill_protocol::Batch {
    let column = |of: fn(&(i64, i64, i64)) -> i64| integers(&records.iter().map(|record| Some(of(record))).collect::<Vec<_>>());
    let times: Vec<i64> = records.iter().map(|record| record.2).collect();
    batch(&[("k", column(|record| record.0)), ("x", column(|record| record.1))]).with_times(Some(times.into()))
}

/// What windows of ten microseconds give: the number, the sum and the greatest of each key.
fn expected_of(records: impl IntoIterator<Item = (i64, i64, i64)>) -> Vec<String> {
    let mut windows: BTreeMap<(i64, i64), (usize, i64, i64)> = BTreeMap::new();
    for (key, value, time) in records {
        let (count, sum, greatest) = windows.entry((key, time.div_euclid(10) * 10)).or_insert((0, 0, i64::MIN));
        (*count, *sum, *greatest) = (*count + 1, *sum + value, value.max(*greatest));
    }
    let line = |((key, start), (count, sum, greatest)): (&(i64, i64), &(usize, i64, i64))| {
        format!("0: {key}, {}, {}, {count}, {sum}, {greatest} @{}", chrono_text(*start), chrono_text(start + 10), start + 9)
    };
    let mut lines: Vec<String> = windows.iter().map(line).collect();
    lines.sort();
    lines
}

const TEN: Window = Window::Tumbling { size_us: 10, offset_us: 0 };

#[test]
fn windows_of_few_records_are_those_of_the_definition() {
    for is_partial in [false, true] {
        // Ahead of an exchange the watermark says what is late, and is in no checkpoint: it comes again, which the kit leaves out.
        let (inputs, all) = scattered_stream(&mut 5, 12, !is_partial);
        let mut at = i64::MIN;
        let mut taken = Vec::new();
        for (frame, records) in all.iter().enumerate() {
            taken.extend(records.iter().filter(|(_, _, time)| at < time.div_euclid(10) * 10 + 10));
            at = frame as i64 * 40 - 690;
        }
        let make = || make(DataType::Int64, &specs(true), Some((TEN, 0)), Emit::End, is_partial, &context());
        let transcript = check(make, &inputs, &Compare::Unordered);
        let lines: Vec<&String> = transcript.rows.iter().filter(|line| line.starts_with("0: ")).collect();
        let late = all.iter().map(Vec::len).sum::<usize>() - taken.len();
        assert_eq!(lines, expected_of(taken).iter().collect::<Vec<_>>(), "{is_partial}");
        assert_eq!(transcript.late, late as u64);
        assert_eq!(late > 5, !is_partial);
    }
}

/// Windows of several records a key, so that the records of complete ones come and go at once; values whose sums leave their range
/// on the way, and sums that do not fit.
#[test]
fn windows_that_come_and_go_at_once_are_those_of_the_definition() {
    const LARGE: [i64; 10] = [i64::MAX, i64::MIN, i64::MAX - 3, i64::MIN + 7, 1 << 62, -(1 << 62), i64::MAX, i64::MIN, 5, -1];
    let specs = [spec(AggregateKind::Count, None, None), spec(AggregateKind::Sum, Some((1, DataType::Int64)), None)];
    for (is_partial, keys) in [(false, 4), (true, 4), (false, 1), (true, 0)] {
        let mut seed = 11;
        let (mut inputs, mut totals) = (Vec::new(), BTreeMap::<(i64, i64), (usize, i128)>::new());
        for frame in 0..5_i64 {
            let records: Vec<(i64, i64, i64)> = (0..100)
                .map(|_| {
                    // No key at all is one key; some are far from the others, and then records are looked for.
                    let far = if frame == 3 && keys > 1 { 1 << 40 } else { 1 };
                    let key = (random(&mut seed) % keys.max(1)) as i64 * far;
                    (key, LARGE[(random(&mut seed) % 10) as usize], frame * 70 - (random(&mut seed) % 100) as i64)
                })
                .collect();
            for (key, value, time) in &records {
                let total = totals.entry((*key, time.div_euclid(10) * 10)).or_default();
                *total = (total.0 + 1, total.1 + i128::from(*value));
            }
            inputs.push(Input::Batch(records_of(&records)));
            inputs.push(Input::Watermark(frame * 70 - 100));
            if frame % 3 == 2 {
                inputs.push(Input::Barrier);
            }
        }
        let fits = |total: i128| i64::try_from(total).is_ok();
        let line = |(&(key, start), &(count, total)): (&(i64, i64), &(usize, i128))| {
            format!("0: {key}, {}, {}, {count}, {total} @{}", chrono_text(start), chrono_text(start + 10), start + 9)
        };
        let mut expected: Vec<String> = totals.iter().filter(|(_, (_, total))| fits(*total)).map(line).collect();
        expected.sort();
        let beyond = totals.len() - expected.len();
        assert!(beyond > 5 && expected.len() > 5, "{beyond} of {} are beyond", totals.len());
        let make = || make(DataType::Int64, &specs, Some((TEN, 0)), Emit::End, is_partial, &context());
        let transcript = check(make, &inputs, &Compare::Unordered);
        assert_eq!(transcript.rows, expected, "{is_partial}, {keys}");
        assert_eq!(transcript.rejected.len(), beyond, "{is_partial}, {keys}");
    }
}

/// All rows that an operator emits at the end of its input.
fn ended(operator: &mut dyn mill_protocol::Operator, mut out: Outbox) -> Vec<String> {
    let mut progress = operator.on_end(&mut out).unwrap();
    while progress == Progress::More {
        progress = operator.resume(&mut out).unwrap();
    }
    let mut lines = Vec::new();
    while let Some(emission) = out.pop() {
        if let mill_protocol::Emission::Batch(0, batch) = emission {
            use arrow::util::display::{ArrayFormatter, FormatOptions};
            let options = FormatOptions::new();
            let columns: Vec<_> =
                batch.data().columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
            for (row, time) in batch.times().unwrap().iter().enumerate() {
                let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
                lines.push(format!("0: {} @{time}", values.join(", ")));
            }
        }
    }
    lines.sort();
    lines
}

#[test]
fn instances_whose_windows_lie_in_other_tables_become_one() {
    use mill_frame::hash::{hash_columns, key_group};
    let keys: Vec<i64> = (0..40).collect();
    let mut hashes = Vec::new();
    hash_columns(&[integers(&keys.iter().copied().map(Some).collect::<Vec<_>>())], &mut hashes).unwrap();
    let (lower, upper): (Vec<i64>, Vec<i64>) = keys.into_iter().partition(|&key| key_group(hashes[key as usize]) < 64);
    let mut seed = 11;
    let mut all = Vec::new();
    let mut blocks = Vec::new();
    let mut bytes = Vec::new();
    // One sees many windows at first, the other few, and some in which all its records are: those have tables of their own.
    for (groups, keys, spans) in [(0..64, &lower, [4000, 800, 900]), (64..128, &upper, [9, 200, 3000])] {
        let context = TaskContext { groups, ..context() };
        let mut operator = make(DataType::Int64, &specs(true), Some((TEN, 0)), Emit::End, false, &context);
        let mut out = Outbox::default();
        for (span, base) in spans.into_iter().zip([300, 100, 0]) {
            let key = |seed: &mut u64| keys[random(seed) as usize % keys.len()];
            let records: Vec<(i64, i64, i64)> = (0..200)
                .map(|_| (key(&mut seed), (random(&mut seed) % 9) as i64, base + (random(&mut seed) % span) as i64))
                .collect();
            let _ = operator.on_batch(0, records_of(&records), &mut out).unwrap();
            all.extend(records);
        }
        let mut snapshot = mill_protocol::Snapshot { is_full: true, ..Default::default() };
        let _ = operator.on_barrier(mill_protocol::Epoch(1), &mut out).unwrap();
        operator.snapshot(&mut snapshot).unwrap();
        blocks.extend(snapshot.blocks.make().iter().map(mill_protocol::testkit::restored_block));
        bytes.extend(snapshot.bytes.map(mill_frame::block::SharedBytes::from));
    }
    let mut operator = make(DataType::Int64, &specs(true), Some((TEN, 0)), Emit::End, false, &context());
    operator.restore(&mill_protocol::Restored { bytes: bytes.clone(), blocks: blocks.clone(), has_other_parts: false }).unwrap();
    let mut out = Outbox::default();
    // All keys go on, in scattered and in dense frames.
    for span in [4000, 15] {
        let records: Vec<(i64, i64, i64)> = (0..500)
            .map(|_| ((random(&mut seed) % 40) as i64, (random(&mut seed) % 9) as i64, 300 + (random(&mut seed) % span) as i64))
            .collect();
        let _ = operator.on_batch(0, records_of(&records), &mut out).unwrap();
        all.extend(records);
    }
    // What has moved is in the next checkpoint where it is now.
    let mut snapshot = mill_protocol::Snapshot::default();
    let _ = operator.on_barrier(mill_protocol::Epoch(2), &mut out).unwrap();
    operator.snapshot(&mut snapshot).unwrap();
    blocks.extend(snapshot.blocks.make().iter().map(mill_protocol::testkit::restored_block));
    let mut again = make(DataType::Int64, &specs(true), Some((TEN, 0)), Emit::End, false, &context());
    again.restore(&mill_protocol::Restored { bytes, blocks, has_other_parts: false }).unwrap();
    let expected = expected_of(all);
    assert_eq!(ended(operator.as_mut(), out), expected);
    assert_eq!(ended(again.as_mut(), Outbox::default()), expected);
}

#[test]
fn state_of_windows_of_few_records_stays_as_large_as_what_is_open() {
    let mut operator = make(DataType::Int64, &specs(true), Some((TEN, 0)), Emit::End, false, &context());
    let (mut out, mut seed) = (Outbox::default(), 3);
    let (mut given, mut sizes) = (0, Vec::new());
    for round in 0..120i64 {
        let now = round * 200;
        let record = |_| ((random(&mut seed) % 500) as i64, 1, now - (random(&mut seed) % 4000) as i64);
        let _ = operator.on_batch(0, records_of(&(0..2000).map(record).collect::<Vec<_>>()), &mut out).unwrap();
        let mut progress = operator.on_watermark(0, Watermark(now - 4000), &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut out).unwrap();
        }
        while let Some(emission) = out.pop() {
            if let mill_protocol::Emission::Batch(0, batch) = emission {
                given += batch.column(2).len();
            }
        }
        if round % 20 == 19 {
            let mut snapshot = mill_protocol::Snapshot { is_full: true, ..Default::default() };
            let _ = operator.on_barrier(mill_protocol::Epoch(1), &mut out).unwrap();
            operator.snapshot(&mut snapshot).unwrap();
            sizes.push(snapshot.blocks.make().iter().map(|block| block.payload.size()).sum::<usize>());
        }
    }
    assert!(given > 100_000, "{given} rows");
    let (least, greatest) = (sizes[1..].iter().min().unwrap(), sizes[1..].iter().max().unwrap());
    assert!(*greatest < least * 2, "{sizes:?}");
    // Some 40,000 records are open, in rows of seven words that take half of their table.
    assert!(*greatest < 40_000 * 56 * 3, "{sizes:?}");
}
