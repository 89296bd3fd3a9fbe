use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use mill_frame::block::SharedBytes;
use mill_plan::{
    Migration, ProcessCall, ProcessEvents, ProcessFailure, ProcessFunction, ProcessOrigin, ProcessOutput, ProcessRows, ProcessStage,
    ProcessTask, StageKind, StateSpec, TimerAction, TimerChange, TimerClock, Ttl,
};
use mill_protocol::testkit::{Compare, Input, batch, check, integers, restored_block};
use mill_protocol::{
    Emission, Error, ErrorKind, Operator, Outbox, Progress, Restored, Result, Snapshot, TaskContext, Watermark,
};

use crate::accumulator::tests::{random, stage};
use crate::fixture::context;

/// Counts records of a key, sets and deletes timers as the value of a record says, and fails on some values.
///
/// A record `x` adds one to the count and emits it. 0 mod 3: a timer `x` after the record; 1 mod 7: deletes the timer of
/// that time; 5 mod 11: a timer of processing time ten later. A timer emits the negative count; if the count is even, it sets
/// one 4 later. 13 fails.
#[derive(Debug)]
struct Counting {
    has_end: bool,
}

impl ProcessFunction for Counting {
    fn name(&self) -> String {
        "process(Counting)".to_owned()
    }
    fn open(&self) -> Result<Box<dyn ProcessTask>> {
        Ok(Box::new(CountingTask))
    }
    fn has_end(&self) -> bool {
        self.has_end
    }
}

struct CountingTask;

/// How long a count is kept after it was written.
const TTL: i64 = 60;

impl ProcessTask for CountingTask {
    fn call(&mut self, call: &ProcessCall<'_>) -> std::result::Result<ProcessOutput, ProcessFailure> {
        let column = |place: usize| call.states.column(place).as_primitive::<Int64Type>();
        let value = |place: usize, row: usize| column(place).is_valid(row).then(|| column(place).value(row));
        let mut states: Vec<Option<(i64, i64)>> =
            (0..call.states.num_rows()).map(|row| Some((value(0, row)?, value(1, row)?))).collect();
        let mut changed: BTreeSet<u32> = BTreeSet::new();
        let mut output = ProcessOutput::default();
        let (mut rows, mut records, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let is_of_records = matches!(call.events, ProcessEvents::Records { .. });
        let key_of = |key: u32| call.keys.column(0).as_primitive::<Int64Type>().value(key as usize);
        let read = |states: &mut Vec<Option<(i64, i64)>>, key: u32, at: i64| {
            let clock = at.max(call.floor);
            states[key as usize].filter(|(_, written)| clock - written < TTL).map_or(0, |(count, _)| count)
        };
        match &call.events {
            ProcessEvents::Records { rows: of, keys, times: at } => {
                let values = of.column(1).as_primitive::<Int64Type>();
                // In pieces, so that what is left is asked for again.
                output.done = keys.len().min(3);
                for record in 0..output.done {
                    let (key, x, at) = (keys[record], values.value(record), at.expect("the records have a time")[record]);
                    if x == 13 {
                        let error = Error::new(ErrorKind::UserFunction, "13 is refused");
                        return Err(ProcessFailure { error, at: (record % 2 == 1).then_some(record) });
                    }
                    let count = read(&mut states, key, at) + 1;
                    states[key as usize] = Some((count, at.max(call.floor)));
                    changed.insert(key);
                    rows.push((key_of(key), count));
                    records.push(record as u32);
                    let mut change = |clock, at, action| output.timers.push(TimerChange { key, clock, at, action });
                    if x % 3 == 0 {
                        change(TimerClock::Event, at + x, TimerAction::Set { stamp: at + x });
                    }
                    if x % 7 == 1 {
                        change(TimerClock::Event, at + x, TimerAction::Delete);
                    }
                    if x % 11 == 5 {
                        change(TimerClock::Processing, call.now + 10, TimerAction::Set { stamp: at });
                    }
                }
            }
            ProcessEvents::Timers { clock, times: at, keys, stamps, until } => {
                let mut due: BTreeSet<(i64, u32, i64)> =
                    at.iter().zip(keys.iter()).zip(stamps.iter()).map(|((&at, &key), &stamp)| (at, key, stamp)).collect();
                while let Some((at, key, stamp)) = due.pop_first() {
                    let time = if *clock == TimerClock::Event { at } else { stamp };
                    let count = read(&mut states, key, time);
                    rows.push((key_of(key), -count));
                    times.push(time);
                    output.done += 1;
                    if count % 2 == 1 || call.is_draining {
                        continue;
                    }
                    let next = at + 4;
                    let stamp = if *clock == TimerClock::Event { next } else { stamp };
                    if next <= *until && count > 0 {
                        due.insert((next, key, stamp));
                        states[key as usize] = Some((count + 1, time.max(call.floor)));
                        changed.insert(key);
                    }
                    if next > *until && count > 0 {
                        output.timers.push(TimerChange { key, clock: *clock, at: next, action: TimerAction::Set { stamp } });
                        states[key as usize] = Some((count + 1, time.max(call.floor)));
                        changed.insert(key);
                    }
                }
            }
            ProcessEvents::End { stamps } => {
                output.done = stamps.len();
                for (key, &stamp) in stamps.iter().enumerate() {
                    let count = read(&mut states, key as u32, stamp);
                    rows.push((key_of(key as u32), 1000 + count));
                    times.push(stamp);
                }
            }
            ProcessEvents::Broadcast { .. } => return Err(Error::internal("there is no broadcast stream").into()),
            ProcessEvents::Expire { .. } => {
                for (key, state) in states.iter_mut().enumerate() {
                    if state.is_some_and(|(_, written)| call.floor - written >= TTL) {
                        *state = None;
                        changed.insert(key as u32);
                    }
                }
            }
        }
        let columns = [
            rows.iter().map(|(key, _)| *key).collect::<Int64Array>(),
            rows.iter().map(|(_, count)| *count).collect::<Int64Array>(),
        ];
        let data = RecordBatch::try_new(results(), columns.map(|column| Arc::new(column) as ArrayRef).to_vec());
        let data = data.map_err(|error| Error::internal(error.to_string()))?;
        let origin = if is_of_records { ProcessOrigin::Records(records) } else { ProcessOrigin::Times(times) };
        output.rows.push(ProcessRows { port: 0, data, origin });
        output.changed = changed.into_iter().collect();
        let of = |part: fn((i64, i64)) -> i64| -> Int64Array {
            output.changed.iter().map(|&key| states[key as usize].map(part)).collect()
        };
        let columns = vec![Arc::new(of(|state| state.0)) as ArrayRef, Arc::new(of(|state| state.1)) as ArrayRef];
        output.states = (!output.changed.is_empty())
            .then(|| RecordBatch::try_new(call.states.schema(), columns))
            .transpose()
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(output)
    }
}

fn results() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("n", DataType::Int64, true)]))
}

fn count(names: [&str; 2]) -> StateSpec {
    StateSpec {
        name: names[0].to_owned(),
        kind: "value".to_owned(),
        columns: names.iter().map(|name| Arc::new(Field::new(*name, DataType::Int64, true))).collect(),
        default: None,
        ttl: Some(Ttl { us: TTL, clock: TimerClock::Event, written: 1 }),
        migration: Migration::None,
    }
}

fn operator(states: Vec<StateSpec>, function: Arc<dyn ProcessFunction>, context: &TaskContext) -> Box<dyn Operator> {
    let records = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("x", DataType::Int64, true)]));
    let process = ProcessStage { keys: vec![0], records, function, states, sides: Vec::new(), is_timed: true, broadcast: None };
    let fields = results().fields().iter().map(|field| field.as_ref().clone()).collect();
    crate::build(&stage(StageKind::Process(Box::new(process)), fields), context).unwrap()
}

fn counting(has_end: bool) -> Box<dyn Operator> {
    operator(vec![count(["count", "count@written"])], Arc::new(Counting { has_end }), &context())
}

/// The same by itself, event by event, for event time alone.
#[derive(Default)]
struct Oracle {
    counts: BTreeMap<i64, (i64, i64)>,
    timers: BTreeSet<(i64, i64)>,
    watermark: i64,
    rows: Vec<String>,
}

impl Oracle {
    fn count(&self, key: i64, clock: i64) -> i64 {
        self.counts.get(&key).filter(|(_, written)| clock - written < TTL).map_or(0, |(count, _)| *count)
    }

    fn record(&mut self, key: i64, x: i64, at: i64) {
        if x == 13 {
            return;
        }
        let clock = at.max(self.watermark);
        let count = self.count(key, clock) + 1;
        self.counts.insert(key, (count, clock));
        self.rows.push(format!("0: {key}, {count} @{at}"));
        if x % 3 == 0 {
            self.timers.insert((at + x, key));
        }
        if x % 7 == 1 {
            self.timers.remove(&(at + x, key));
        }
    }

    fn advance(&mut self, watermark: i64) {
        if watermark <= self.watermark {
            return;
        }
        let floor = std::mem::replace(&mut self.watermark, watermark);
        while let Some((at, key)) = self.timers.first().copied().filter(|(at, _)| *at < watermark) {
            self.timers.pop_first();
            let clock = at.max(floor);
            let count = self.count(key, clock);
            self.rows.push(format!("0: {key}, {} @{}", -count, at.max(floor)));
            if count % 2 == 0 && count > 0 && watermark < i64::MAX {
                self.timers.insert((at + 4, key));
                self.counts.insert(key, (count + 1, clock));
            }
        }
    }

    fn sorted(mut self) -> Vec<String> {
        self.rows.sort();
        self.rows
    }
}

/// Records and watermarks at random: late ones, ties in time, timers of the past.
fn events(seed: u64, with_time: bool) -> (Vec<Input>, Vec<String>) {
    let (mut seed, mut inputs, mut oracle) = (seed, Vec::new(), Oracle { watermark: i64::MIN, ..Oracle::default() });
    let mut now = 100;
    for _ in 0..30 {
        let (mut keys, mut values, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..1 + random(&mut seed) % 8 {
            now += (random(&mut seed) % 5) as i64;
            let (key, mut x) = ((random(&mut seed) % 4) as i64, (random(&mut seed) % 40) as i64 - 5);
            if !with_time && x.rem_euclid(11) == 5 {
                x += 1;
            }
            let at = now - (random(&mut seed) % 20) as i64;
            oracle.record(key, x, at);
            keys.push(Some(key));
            values.push(Some(x));
            times.push(at);
        }
        let records = batch(&[("k", integers(&keys)), ("x", integers(&values))]).with_times(Some(times.into()));
        inputs.push(Input::Batch(records));
        if random(&mut seed).is_multiple_of(2) {
            inputs.push(Input::Watermark(now - 15));
            oracle.advance(now - 15);
        }
        if with_time {
            inputs.push(Input::Time(now));
        }
    }
    oracle.advance(i64::MAX);
    (inputs, oracle.sorted())
}

#[test]
fn results_are_those_of_a_plain_interpreter_however_the_stream_is_cut() {
    for seed in 1..16 {
        let (inputs, expected) = events(seed * 7919, false);
        let transcript = check(|| counting(false), &inputs, &Compare::Ordered);
        let mut rows = transcript.rows;
        rows.sort();
        assert_eq!(rows, expected, "seed {seed}");
        assert!(transcript.rejected.iter().all(|rejected| rejected.contains("13 is refused | {\"k\"")), "seed {seed}");
    }
}

#[test]
fn timers_of_both_clocks_and_the_end_do_not_depend_on_cuts() {
    for seed in 1..10 {
        let (inputs, _) = events(seed * 104_729, true);
        // At the end, keys come in no order.
        let transcript = check(|| counting(true), &inputs, &Compare::Unordered);
        // At the end a key has the number 1000 and its count, which is far less; other rows have less than that.
        let of_end = transcript.rows.iter().filter_map(|row| {
            let (key, rest) = row.strip_prefix("0: ")?.split_once(", ")?;
            let number: i64 = rest.split(' ').next()?.parse().ok()?;
            (1000..2000).contains(&number).then(|| key.to_owned())
        });
        let mut called: Vec<String> = of_end.collect();
        called.sort();
        assert_eq!(called, keys_of(&inputs), "keys are called once each at the end, seed {seed}: {:#?}", transcript.rows);
    }
}

/// The keys that have a record that is not refused.
fn keys_of(inputs: &[Input]) -> Vec<String> {
    let mut keys = BTreeSet::new();
    for input in inputs {
        let Input::Batch(batch) = input else { continue };
        let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().values().to_vec();
        let taken = column(0).into_iter().zip(column(1)).filter(|&(_, x)| x != 13);
        keys.extend(taken.map(|(key, _)| key.to_string()));
    }
    keys.into_iter().collect()
}

/// All that an operator emits, as lines.
fn drained(operator: &mut dyn Operator, mut progress: Progress, out: &mut Outbox) -> Vec<(i64, i64, i64)> {
    let mut rows = Vec::new();
    loop {
        while let Some(emission) = out.pop() {
            let Emission::Batch(_, batch) = emission else { continue };
            let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().values().to_vec();
            let times = batch.times().unwrap().to_vec();
            rows.extend(column(0).into_iter().zip(column(1)).zip(times).map(|((key, n), at)| (key, n, at)));
        }
        if progress == Progress::Done {
            return rows;
        }
        progress = operator.resume(out).unwrap();
    }
}

fn taken(operator: &mut dyn Operator) -> Restored {
    let mut snapshot = Snapshot { is_full: true, ..Snapshot::default() };
    operator.snapshot(&mut snapshot).unwrap();
    let blocks = snapshot.blocks.make().iter().map(restored_block).collect();
    Restored { bytes: snapshot.bytes.map(SharedBytes::from).into_iter().collect(), blocks, has_other_parts: false }
}

/// As many timers as `MILL_TIMERS` says: a million takes some seconds.
#[test]
fn pending_timers_fire_once_each_in_order_of_time_at_another_parallelism() {
    let timers: i64 = std::env::var("MILL_TIMERS").ok().and_then(|n| n.parse().ok()).unwrap_or(30_000);
    let mut operator = counting(false);
    let mut out = Outbox::default();
    // A timer as much later as the value says, which is a multiple of 3, 7 and 11. The count is too old by then, so that no
    // timer sets another one.
    let mut seed = 20_240_101;
    for from in (0..timers).step_by(8192) {
        let keys: Vec<Option<i64>> = (from..timers.min(from + 8192)).map(Some).collect();
        let values: Vec<Option<i64>> = keys.iter().map(|_| Some(231 * (1 + random(&mut seed) % 4000) as i64)).collect();
        let times = vec![0; keys.len()];
        let records = batch(&[("k", integers(&keys)), ("x", integers(&values))]).with_times(Some(times.into()));
        let progress = operator.on_batch(0, records, &mut out).unwrap();
        drained(operator.as_mut(), progress, &mut out);
    }
    let restored = taken(operator.as_mut());
    let mut fired = Vec::new();
    for (index, groups) in [0..50, 50..128].into_iter().enumerate() {
        let context = TaskContext { index, parallelism: 2, groups, ..context() };
        let mut operator = operator_of(&context);
        operator.restore(&restored).unwrap();
        let mut last = i64::MIN;
        for watermark in [500_000, 1_000_000, i64::MAX] {
            let progress = operator.on_watermark(0, Watermark(watermark), &mut out).unwrap();
            for (key, _, at) in drained(operator.as_mut(), progress, &mut out) {
                assert!(last <= at && at <= watermark, "{at} after {last} at {watermark}");
                last = at;
                fired.push(key);
            }
        }
    }
    fired.sort_unstable();
    assert_eq!(fired, (0..timers).collect::<Vec<i64>>());
}

fn operator_of(context: &TaskContext) -> Box<dyn Operator> {
    operator(vec![count(["count", "count@written"])], Arc::new(Counting { has_end: false }), context)
}

#[test]
fn keys_whose_values_are_too_old_leave_nothing_behind() {
    let mut operator = counting(false);
    let mut out = Outbox::default();
    let mut sizes = Vec::new();
    for round in 0..200 {
        let keys: Vec<Option<i64>> = (0..100).map(|key| Some(round * 100 + key)).collect();
        let values = vec![Some(2); 100];
        let records = batch(&[("k", integers(&keys)), ("x", integers(&values))])
            .with_times(Some(vec![round * TTL; 100].into()));
        let progress = operator.on_batch(0, records, &mut out).unwrap();
        drained(operator.as_mut(), progress, &mut out);
        let progress = operator.on_watermark(0, Watermark(round * TTL), &mut out).unwrap();
        drained(operator.as_mut(), progress, &mut out);
        let bytes: usize = taken(operator.as_mut()).blocks.iter().map(|block| block.bytes.len()).sum();
        sizes.push(bytes);
    }
    let (early, late) = (sizes[20], sizes[199]);
    assert!(late <= early * 2, "{early} bytes of state became {late}");
}

#[test]
fn a_state_that_is_added_is_empty_and_one_that_is_gone_is_refused() {
    let mut first = counting(false);
    let mut out = Outbox::default();
    let records = batch(&[("k", integers(&[Some(1)])), ("x", integers(&[Some(2)]))]).with_times(Some(vec![5].into()));
    let progress = first.on_batch(0, records.clone(), &mut out).unwrap();
    drained(first.as_mut(), progress, &mut out);
    let restored = taken(first.as_mut());

    let added = StateSpec { ttl: None, ..count(["other", "other@more"]) };
    let states = vec![count(["count", "count@written"]), added.clone()];
    let mut second = operator(states.clone(), Arc::new(Padded), &context());
    second.restore(&restored).unwrap();
    let progress = second.on_batch(0, records.clone(), &mut out).unwrap();
    assert_eq!(drained(second.as_mut(), progress, &mut out), [(1, 2, 5)], "it goes on counting");

    // What the second one has written goes on as well, and what the first one wrote is still read.
    let mut third = operator(states, Arc::new(Padded), &context());
    third.restore(&taken(second.as_mut())).unwrap();
    let progress = third.on_batch(0, records, &mut out).unwrap();
    assert_eq!(drained(third.as_mut(), progress, &mut out), [(1, 3, 5)]);

    let mut gone = operator(vec![added], Arc::new(Counting { has_end: false }), &context());
    let error = gone.restore(&restored).unwrap_err().to_string();
    assert!(error.contains("state \"count\" is in it, and the function keeps it no more"), "{error}");
    let mut text = count(["count", "count@written"]);
    text.columns[0] = Arc::new(Field::new("count", DataType::Utf8, true));
    let mut retyped = operator(vec![text], Arc::new(Counting { has_end: false }), &context());
    let error = retyped.restore(&restored).unwrap_err().to_string();
    assert!(error.contains("state \"count\" holds int64 and would hold str"), "{error}");
}

/// [`Counting`] with two columns more, which it leaves alone.
#[derive(Debug)]
struct Padded;

impl ProcessFunction for Padded {
    fn name(&self) -> String {
        "process(Padded)".to_owned()
    }
    fn open(&self) -> Result<Box<dyn ProcessTask>> {
        Ok(Box::new(PaddedTask))
    }
}

struct PaddedTask;

impl ProcessTask for PaddedTask {
    fn call(&mut self, call: &ProcessCall<'_>) -> std::result::Result<ProcessOutput, ProcessFailure> {
        let states = call.states.project(&[0, 1]).map_err(|error| Error::internal(error.to_string()))?;
        let ProcessEvents::Records { rows, keys, times } = &call.events else {
            return Err(Error::internal("only records are expected").into());
        };
        let events = ProcessEvents::Records { rows: *rows, keys: *keys, times: *times };
        let inner = ProcessCall { events, keys: call.keys, states: &states, ..*call };
        let mut output = CountingTask.call(&inner)?;
        if let Some(states) = &output.states {
            let mut columns = states.columns().to_vec();
            columns.extend([2, 3].map(|place| arrow::array::new_null_array(call.states.column(place).data_type(), states.num_rows())));
            let states = RecordBatch::try_new(call.states.schema(), columns);
            output.states = Some(states.map_err(|error| Error::internal(error.to_string()))?);
        }
        Ok(output)
    }
}

/// Sets a state where the value of a record is greater than zero, and clears it otherwise. At the end it emits the keys that have it.
#[derive(Debug)]
struct Switch;

impl ProcessFunction for Switch {
    fn name(&self) -> String {
        "process(Switch)".to_owned()
    }
    fn open(&self) -> Result<Box<dyn ProcessTask>> {
        Ok(Box::new(Switch))
    }
    fn has_end(&self) -> bool {
        true
    }
}

impl ProcessTask for Switch {
    fn call(&mut self, call: &ProcessCall<'_>) -> std::result::Result<ProcessOutput, ProcessFailure> {
        let column = |place: usize| call.states.column(place).as_primitive::<Int64Type>().iter().collect::<Vec<Option<i64>>>();
        let mut on = column(0);
        let mut written = if call.states.num_columns() > 1 { column(1) } else { vec![None; on.len()] };
        let mut output = ProcessOutput::default();
        match &call.events {
            ProcessEvents::Records { rows, keys, times } => {
                output.done = keys.len();
                let values = rows.column(1).as_primitive::<Int64Type>();
                for (record, &key) in keys.iter().enumerate() {
                    let is_on = values.value(record) > 0;
                    on[key as usize] = is_on.then_some(1);
                    written[key as usize] = is_on.then(|| times.expect("the records have a time")[record].max(call.floor));
                }
            }
            ProcessEvents::Expire { .. } => {
                for (on, written) in on.iter_mut().zip(&mut written).filter(|(on, _)| on.is_some()) {
                    if call.floor - *written.get_or_insert(call.floor) >= TTL {
                        (*on, *written) = (None, None);
                    }
                }
            }
            ProcessEvents::End { stamps } => {
                output.done = stamps.len();
                let columns = vec![ArrayRef::clone(call.keys.column(0)), Arc::new(Int64Array::from(on.clone())) as ArrayRef];
                let data = RecordBatch::try_new(results(), columns).map_err(|error| Error::internal(error.to_string()))?;
                output.rows.push(ProcessRows { port: 0, data, origin: ProcessOrigin::Times(stamps.to_vec()) });
            }
            ProcessEvents::Timers { .. } | ProcessEvents::Broadcast { .. } => {
                return Err(Error::internal("no timers are set, and there is no broadcast stream").into());
            }
        }
        output.changed = (0..on.len() as u32).collect();
        let columns = [on, written].map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
        let states = RecordBatch::try_new(call.states.schema(), columns[..call.states.num_columns()].to_vec());
        output.states = Some(states.map_err(|error| Error::internal(error.to_string()))?);
        Ok(output)
    }
}

fn switch(clock: Option<TimerClock>) -> Box<dyn Operator> {
    let mut state = count(["on", "on@written"]);
    match clock {
        Some(clock) => state.ttl = Some(Ttl { us: TTL, clock, written: 1 }),
        None => {
            state.ttl = None;
            state.columns.truncate(1);
        }
    }
    operator(vec![state], Arc::new(Switch), &context())
}

#[test]
fn a_value_that_is_set_and_cleared_in_turn_keeps_no_deadlines() {
    for clock in [TimerClock::Event, TimerClock::Processing] {
        let mut operator = switch(Some(clock));
        let mut out = Outbox::default();
        let mut sizes = Vec::new();
        for round in 0..300 {
            for (at, x) in [(3 * round, 1), (3 * round + 1, 0)] {
                let records = batch(&[("k", integers(&[Some(1)])), ("x", integers(&[Some(x)]))]).with_times(Some(vec![at].into()));
                let progress = operator.on_batch(0, records, &mut out).unwrap();
                drained(operator.as_mut(), progress, &mut out);
            }
            sizes.push(taken(operator.as_mut()).blocks.iter().map(|block| block.bytes.len()).sum::<usize>());
        }
        assert_eq!(sizes[299], sizes[10], "{clock:?}: {} bytes of state became {}", sizes[10], sizes[299]);
    }
}

#[test]
fn a_ttl_that_is_added_counts_from_the_restart_for_keys_that_nobody_touches() {
    for clock in [TimerClock::Event, TimerClock::Processing] {
        let mut out = Outbox::default();
        let keys: Vec<Option<i64>> = (0..3000).map(Some).collect();
        let records = batch(&[("k", integers(&keys)), ("x", integers(&vec![Some(1); keys.len()]))]);
        let mut first = switch(None);
        let progress = first.on_batch(0, records.with_times(Some(vec![5; keys.len()].into())), &mut out).unwrap();
        drained(first.as_mut(), progress, &mut out);
        let mut restored = taken(first.as_mut());

        // It is stopped again before the values are too old, and continues with the time that they had.
        for (round, left) in [(0, 3000), (1, 3000), (2, 0)] {
            let mut operator = switch(Some(clock));
            operator.restore(&restored).unwrap();
            let now = 1000 + round * (TTL - 1);
            let progress = match clock {
                TimerClock::Event => operator.on_watermark(0, Watermark(now), &mut out).unwrap(),
                TimerClock::Processing => operator.on_time(now, &mut out).unwrap(),
            };
            drained(operator.as_mut(), progress, &mut out);
            restored = taken(operator.as_mut());
            let progress = operator.on_end(&mut out).unwrap();
            assert_eq!(drained(operator.as_mut(), progress, &mut out).len(), left, "{clock:?}, round {round}");
        }
    }
}
