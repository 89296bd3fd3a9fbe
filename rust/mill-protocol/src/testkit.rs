//! The test kit that every operator passes.
//!
//! A stream has one meaning, whatever the schedule: how records are cut into frames, when the outbox is emptied and
//! where a checkpoint falls must not show in the output of an operator (invariant I9). The kit runs the same inputs
//! through fresh instances in every mode and demands the same transcript each time:
//!
//! ```text
//!             frames                    outbox                       state
//!   plain     as given                  emptied after every call     kept
//!   cut       single rows, then random  …                            …
//!   full      as given and cut          emptied every other call     kept
//!   restored  as given and cut          …                            snapshot and restore after every step,
//!                                                                    all of it or only what changed
//! ```
//!
//! An operator with several inputs gets a list of events for each; the kit also runs them in several orders, of which
//! each keeps the order within an input: one input after another, in turn, and at random. An input ends with its list.
//!
//! A transcript is text, a line a record, so that a test reads as data and a failure as a difference:
//!
//! ```text
//!   0: 7, "a" @1000            port 0, the columns, event time in microseconds
//!   1: 8, null @10 behind 900  read behind the watermark 900 of its split
//!   0: 7, "a" delete           withdraws the row of its key
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, StringArray};
use arrow::buffer::MutableBuffer;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use mill_frame::block::{Block, BlockKind, RestoredBlock, SharedBytes};
use mill_frame::{Batch, SplitId};

use crate::operator::{Emission, Operator, Outbox, Progress, Watermark};
use crate::snapshot::{Epoch, Restored, Snapshot};
use crate::source::Mark;
use crate::watermarks::Watermarks;

#[cfg(test)]
mod tests;

/// How often an operator may say [`Progress::More`] in a row before it counts as stuck.
const RESUMES_MAX: usize = 1_000_000;
/// How long an operator that waits for something outside is left alone.
const PENDING_PAUSE: std::time::Duration = std::time::Duration::from_micros(50);

/// One thing that happens to an input of an operator. The end of the input comes by itself after the last one.
#[derive(Clone, Debug)]
pub enum Input {
    /// Records; the kit cuts them as it likes.
    Batch(Batch),
    /// Event time in microseconds has come this far.
    Watermark(i64),
    /// Processing time in microseconds has come this far.
    Time(i64),
    /// The splits that are still read or yet to be read.
    Splits(Vec<SplitId>),
    /// A split was asked for records and has none.
    Quiet(SplitId),
    /// What the reader of a split has told of its time.
    Mark(SplitId, Mark),
    /// The inputs whose time a quiet operator takes on have come this far; nothing to one that is not quiet.
    Follow(i64),
    /// A checkpoint's barrier, in every mode.
    Barrier,
}

/// What must agree between two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The rows of each port, in order.
    Ordered,
    /// The rows of each port, and what was rejected, in any order.
    Unordered,
    /// The latest row of each key of an updating stream; the key is the first columns, this many.
    Latest(usize),
    /// The same with these columns as the key.
    LatestOf(Vec<usize>),
}

/// The output of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// A line a record, by port.
    pub rows: Vec<String>,
    /// Records that could not be processed: `error | record`.
    pub rejected: Vec<String>,
    /// How many records were counted as late.
    pub late: u64,
    /// The greatest watermark of the operator's own making.
    pub watermark: Option<i64>,
}

/// Runs the inputs through the operator in every mode and returns its output.
///
/// # Panics
/// If two modes differ, if a watermark goes back, or if the operator fails; the message names the mode and the seed.
pub fn check(make: impl Fn() -> Box<dyn Operator>, inputs: &[Input], compare: &Compare) -> Transcript {
    check_inputs(make, &[inputs], compare)
}

/// Runs the events of several inputs, a list each, through the operator in every mode and in several orders, and returns
/// its output. The output must depend on no order but the one within each input.
///
/// # Panics
/// If two modes differ, if a watermark goes back, or if the operator fails; the message names the mode and the seed.
pub fn check_inputs(make: impl Fn() -> Box<dyn Operator>, inputs: &[&[Input]], compare: &Compare) -> Transcript {
    let plain = Mode { order: Order::Single, cut: Cut::Whole, is_outbox_full: false, restore: Restore::Never };
    let expected = transcript(&make, inputs, compare, plain);
    let orders = [Order::Single, Order::Reverse, Order::Turns, Order::Random(seed()), Order::Random(seed() ^ 0x51ed_270b)];
    let orders = if inputs.len() > 1 { &orders[..] } else { &orders[..1] };
    for &order in orders {
        check_order(&make, inputs, compare, order, (plain, &expected));
    }
    expected
}

fn check_order(
    make: &dyn Fn() -> Box<dyn Operator>,
    inputs: &[&[Input]],
    compare: &Compare,
    order: Order,
    (plain, expected): (Mode, &Transcript),
) {
    for cut in [Cut::Whole, Cut::Single, Cut::Random(seed()), Cut::Random(seed() ^ 0x9e37_79b9)] {
        for is_outbox_full in [false, true] {
            for restore in [Restore::Never, Restore::Full, Restore::Changes] {
                let mode = Mode { order, cut, is_outbox_full, restore };
                let got = transcript(make, inputs, compare, mode);
                assert_eq!(&got, expected, "{mode:?} differs from {plain:?}");
            }
        }
    }
}

/// The seed of random cuts: `MILL_SEED`, or a fixed one.
fn seed() -> u64 {
    std::env::var("MILL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_130_101)
}

/// How a run differs from the plain one.
#[derive(Clone, Copy, Debug)]
struct Mode {
    order: Order,
    cut: Cut,
    is_outbox_full: bool,
    restore: Restore,
}

/// In which order the events of several inputs come.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// One input after another.
    Single,
    /// One input after another, the last one first.
    Reverse,
    /// An event of each in turn.
    Turns,
    Random(u64),
}

#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Single,
    Random(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restore {
    Never,
    Full,
    Changes,
}

fn transcript(make: &dyn Fn() -> Box<dyn Operator>, inputs: &[&[Input]], compare: &Compare, mode: Mode) -> Transcript {
    let mut run = Run {
        make,
        mode,
        operator: make(),
        out: Outbox::default(),
        calls: 0,
        epoch: 0,
        blocks: Vec::new(),
        splits: None,
        is_quiet: false,
        times: Watermarks::new(inputs.len()),
        has_ended: vec![false; inputs.len()],
        now: 0,
        promised: None,
        late_times: HashSet::new(),
        watermark: None,
        rows: Vec::new(),
        transcript: Transcript::default(),
    };
    let mut places = vec![0; inputs.len()];
    let mut random = match mode.order {
        Order::Random(seed) => seed,
        Order::Single | Order::Reverse | Order::Turns => 0,
    };
    let mut turn = 0;
    while let Some(input) = next_input(mode.order, &run.has_ended, &mut random, &mut turn) {
        match inputs[input].get(places[input]) {
            Some(event) => run.input(input, event),
            None => run.end_input(input),
        }
        places[input] += 1;
    }
    run.end();
    run.finish(compare)
}

/// The input whose turn it is, of those that have not ended.
fn next_input(order: Order, has_ended: &[bool], random: &mut u64, turn: &mut usize) -> Option<usize> {
    let open: Vec<usize> = (0..has_ended.len()).filter(|&input| !has_ended[input]).collect();
    *turn += 1;
    match order {
        _ if open.is_empty() => None,
        Order::Single => open.first().copied(),
        Order::Reverse => open.last().copied(),
        Order::Turns => Some(open[*turn % open.len()]),
        Order::Random(_) => Some(open[(next_random(random) % open.len() as u64) as usize]),
    }
}

struct Run<'a> {
    make: &'a dyn Fn() -> Box<dyn Operator>,
    mode: Mode,
    operator: Box<dyn Operator>,
    out: Outbox,
    calls: usize,
    epoch: u64,
    /// Every block since the beginning, as a chain of incremental checkpoints holds them.
    blocks: Vec<RestoredBlock>,
    splits: Option<Vec<SplitId>>,
    /// Whether the operator has declared that it is quiet.
    is_quiet: bool,
    /// How far each input has come, and which have ended.
    times: Watermarks,
    has_ended: Vec<bool>,
    /// How far processing time has come.
    now: i64,
    /// The greatest watermark that the runtime would have passed on by now.
    promised: Option<i64>,
    /// Times of records that came after a watermark that promised they would not.
    late_times: HashSet<i64>,
    /// The last watermark of this instance. One that takes up from a checkpoint may say again what was said before.
    watermark: Option<i64>,
    rows: Vec<Row>,
    transcript: Transcript,
}

/// A record of the output: port, the columns as text, whether it withdraws, and the whole line.
struct Row {
    port: usize,
    columns: Vec<String>,
    is_delete: bool,
    line: String,
}

impl Run<'_> {
    fn input(&mut self, number: usize, input: &Input) {
        match input {
            Input::Batch(batch) => {
                let mut random = match self.mode.cut {
                    Cut::Random(seed) => seed,
                    Cut::Whole | Cut::Single => 0,
                };
                let mut from = 0;
                while from < batch.rows() && !self.operator.is_finished() {
                    let left = batch.rows() - from;
                    let rows = match self.mode.cut {
                        Cut::Whole => left,
                        Cut::Single => 1,
                        Cut::Random(_) => 1 + (next_random(&mut random) % 7) as usize,
                    };
                    let rows = rows.min(left);
                    let times = batch.times().map_or(&[][..], |times| &times[from..from + rows]);
                    self.late_times.extend(times.iter().filter(|&&time| Some(time) < self.promised));
                    self.step(|operator, out| operator.on_batch(number, batch.slice(from, rows), out));
                    from += rows;
                }
            }
            Input::Watermark(at) => {
                self.advance(number, Watermark(*at));
            }
            Input::Time(now) => {
                self.now = self.now.max(*now);
                if self.operator.next_time().is_some_and(|at| at <= *now) {
                    self.step(|operator, out| operator.on_time(*now, out));
                }
            }
            Input::Splits(open) => {
                self.splits = Some(open.clone());
                self.step(|operator, out| operator.on_splits(open, out).map(|()| Progress::Done));
            }
            Input::Quiet(split) => self.operator.on_quiet(*split),
            Input::Mark(split, mark) => {
                self.step(|operator, out| operator.on_mark(*split, *mark, out).map(|()| Progress::Done));
            }
            Input::Follow(at) => {
                if self.is_quiet {
                    self.operator.follow(Watermark(*at));
                }
            }
            Input::Barrier => {
                self.call(|operator, out| operator.on_barrier(Epoch(1), out));
                self.drain();
            }
        }
    }

    fn advance(&mut self, input: usize, at: Watermark) {
        self.times.advance(input, at);
        self.step(|operator, out| operator.on_watermark(input, at, out));
        self.promise();
    }

    /// The runtime passes on a watermark.
    fn promise(&mut self) {
        if !self.operator.makes_watermarks() {
            // As in the runtime, what was emitted is sent before the watermark.
            self.drain();
            let passed_on = self.operator.combine(&self.times).min(self.operator.earliest_result());
            self.promised = self.promised.max(Some(passed_on.0));
        }
    }

    /// Wakes an operator that awaits results.
    fn wake(&mut self) {
        self.call(|operator, out| operator.on_wake(out));
        self.promise();
    }

    fn end_input(&mut self, input: usize) {
        if !self.operator.is_finished() {
            self.advance(input, Watermark::MAX);
            self.step(|operator, out| operator.on_input_end(input, out));
        }
        self.has_ended[input] = true;
    }

    fn end(&mut self) {
        let mut wakes = 0;
        while self.operator.awaits() {
            self.wake();
            wakes += 1;
            assert!(wakes <= RESUMES_MAX, "{:?}: the operator awaits results for ever", self.mode);
            std::thread::sleep(PENDING_PAUSE);
        }
        self.step(|operator, out| operator.on_end(out));
        self.drain();
    }

    /// One event, until it is done, and after it whatever the mode asks for.
    fn step(&mut self, event: impl FnMut(&mut dyn Operator, &mut Outbox) -> crate::Result<Progress>) {
        self.call(event);
        // Results come at any time; here at every third event.
        if self.operator.awaits() && self.calls.is_multiple_of(3) {
            self.wake();
        }
        if self.mode.restore != Restore::Never {
            self.call(|operator, out| operator.on_barrier(Epoch(1), out));
            self.drain();
            self.restore();
        }
    }

    fn call(&mut self, mut event: impl FnMut(&mut dyn Operator, &mut Outbox) -> crate::Result<Progress>) {
        if self.operator.uses_now() {
            self.operator.set_now(self.now);
        }
        let mut progress = event(self.operator.as_mut(), &mut self.out);
        let mut resumes = 0;
        loop {
            let now = progress.unwrap_or_else(|error| panic!("{:?}: the operator failed: {error}", self.mode));
            self.calls += 1;
            if !self.mode.is_outbox_full || self.calls.is_multiple_of(2) {
                self.drain();
            }
            if now == Progress::Done {
                return;
            }
            if now == Progress::Pending {
                // Who answers is not known here; a short sleep keeps the number of looks far below the limit.
                std::thread::sleep(PENDING_PAUSE);
            }
            resumes += 1;
            assert!(resumes <= RESUMES_MAX, "{:?}: the operator goes on forever", self.mode);
            progress = self.operator.resume(&mut self.out);
        }
    }

    /// Replaces the operator by one that takes up its state from a checkpoint.
    fn restore(&mut self) {
        let is_full = self.mode.restore == Restore::Full || self.epoch == 0;
        self.epoch += 1;
        let mut snapshot = Snapshot { is_full, ..Snapshot::default() };
        self.operator.snapshot(&mut snapshot).unwrap_or_else(|error| panic!("{:?}: snapshot: {error}", self.mode));
        if is_full {
            self.blocks.clear();
        }
        self.blocks.extend(snapshot.blocks.make().iter().map(restored_block));
        drop_superseded(&mut self.blocks);
        let restored = Restored {
            bytes: snapshot.bytes.take().map(SharedBytes::from).into_iter().collect(),
            blocks: self.blocks.clone(),
            has_other_parts: false,
        };
        self.operator = (self.make)();
        self.watermark = None;
        self.is_quiet = false;
        self.operator.restore(&restored).unwrap_or_else(|error| panic!("{:?}: restore: {error}", self.mode));
        if let Some(splits) = &self.splits {
            let told = self.operator.on_splits(splits, &mut self.out);
            told.unwrap_or_else(|error| panic!("{:?}: on_splits: {error}", self.mode));
        }
        // What the other inputs had said of time and ends is in no checkpoint; it comes again.
        let inputs = self.has_ended.len();
        for input in (0..inputs).filter(|_| inputs > 1) {
            let at = self.times.of(input);
            if at > Watermark::MIN {
                self.call(|operator, out| operator.on_watermark(input, at, out));
            }
            if self.has_ended[input] {
                self.call(|operator, out| operator.on_input_end(input, out));
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(emission) = self.out.pop() {
            match emission {
                Emission::Batch(port, batch) => {
                    self.check_promise(port, &batch);
                    render(port, &batch, &mut self.rows);
                }
                Emission::Watermark(at) => {
                    assert!(self.watermark <= Some(at.0), "{:?}: {at:?} goes back behind {:?}", self.mode, self.watermark);
                    self.watermark = Some(at.0);
                    self.is_quiet = false;
                    self.transcript.watermark = self.transcript.watermark.max(self.watermark);
                }
                Emission::Quiet(_) => self.is_quiet = true,
            }
        }
        let rejected = self.out.take_rejected();
        self.transcript.rejected.extend(rejected.iter().map(|r| format!("{} | {}", r.error, r.record)));
        self.transcript.late += self.out.take_late();
    }

    /// No result is older than a watermark that was passed on, unless it is a record that itself came too late (I16).
    fn check_promise(&self, port: usize, batch: &Batch) {
        let Some(times) = batch.times().filter(|_| port == 0) else { return };
        let broken = times.iter().find(|&&time| Some(time) < self.promised && !self.late_times.contains(&time));
        assert!(broken.is_none(), "{:?}: a result at {broken:?} after the watermark {:?}", self.mode, self.promised);
    }

    fn finish(mut self, compare: &Compare) -> Transcript {
        self.transcript.rows = match compare {
            Compare::Ordered => {
                // Frames that go to two ports interleave as they are cut; the order within a port is what counts.
                self.rows.sort_by_key(|row| row.port);
                self.rows.into_iter().map(|row| row.line).collect()
            }
            Compare::Unordered => {
                let mut lines: Vec<String> = self.rows.into_iter().map(|row| row.line).collect();
                lines.sort();
                self.transcript.rejected.sort();
                lines
            }
            Compare::Latest(columns) => latest(self.rows, &(0..*columns).collect::<Vec<usize>>()),
            Compare::LatestOf(key) => latest(self.rows, key),
        };
        self.transcript
    }
}

/// The latest row of each key, in the order of keys.
fn latest(rows: Vec<Row>, key: &[usize]) -> Vec<String> {
    let mut latest = BTreeMap::new();
    for row in rows {
        let key = (row.port, key.iter().map(|&column| row.columns[column].clone()).collect::<Vec<String>>());
        if row.is_delete {
            latest.remove(&key);
        } else {
            latest.insert(key, row.line);
        }
    }
    latest.into_values().collect()
}

/// Lays a block out as the checkpoint writer does, in memory aligned as a mapped segment is.
pub fn restored_block(block: &Block) -> RestoredBlock {
    let mut bytes = MutableBuffer::from_len_zeroed(block.payload.size());
    block.payload.write(bytes.as_slice_mut());
    let bytes = SharedBytes::new(Arc::new(Aligned(bytes)));
    RestoredBlock { address: block.address, kind: block.settled_kind(), bytes, seen: 0 }
}

/// Arrow's buffers are aligned to 64 bytes or more.
struct Aligned(MutableBuffer);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Leaves out what recovery need not give: blocks before a later full one, and those of namespaces that are gone.
fn drop_superseded(blocks: &mut Vec<RestoredBlock>) {
    let mut full_from = HashMap::new();
    let mut gone_from = HashMap::new();
    for (place, block) in blocks.iter().enumerate() {
        match block.kind {
            BlockKind::Full | BlockKind::Drop => {
                full_from.insert(block.address, place);
            }
            BlockKind::DropTable => {
                gone_from.insert((block.address.state, block.address.namespace), place);
            }
            BlockKind::Rows => {}
        }
    }
    let mut place = 0;
    blocks.retain(|block| {
        let here = place;
        place += 1;
        full_from.get(&block.address).is_none_or(|&from| here >= from)
            && gone_from.get(&(block.address.state, block.address.namespace)).is_none_or(|&from| here >= from)
    });
}

fn render(port: usize, batch: &Batch, rows: &mut Vec<Row>) {
    let options = FormatOptions::new().with_null("null");
    let data: &RecordBatch = batch.data();
    let columns: Vec<ArrayFormatter<'_>> = data
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("every type can be shown"))
        .collect();
    for row in 0..batch.rows() {
        let columns: Vec<String> = columns
            .iter()
            .zip(data.columns())
            .map(|(shown, column)| match column.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if column.is_valid(row) => {
                    format!("{:?}", shown.value(row).to_string())
                }
                _ => shown.value(row).to_string(),
            })
            .collect();
        let mut line = format!("{port}: {}", columns.join(", "));
        if let Some(times) = batch.times() {
            line.push_str(&format!(" @{}", times[row]));
            if let Some(behind) = batch.behind().filter(|behind| behind[row] > times[row]) {
                line.push_str(&format!(" behind {}", behind[row]));
            }
        }
        let is_delete = batch.deletes().is_some_and(|deletes| deletes.value(row));
        if is_delete {
            line.push_str(" delete");
        }
        rows.push(Row { port, columns, is_delete, line });
    }
}

/// The next number of a xorshift sequence.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// A column of text for tests.
pub fn texts(values: &[Option<&str>]) -> arrow::array::ArrayRef {
    Arc::new(values.iter().copied().collect::<StringArray>())
}

/// A column of booleans for tests.
pub fn booleans(values: &[Option<bool>]) -> arrow::array::ArrayRef {
    Arc::new(values.iter().copied().collect::<BooleanArray>())
}

/// A column of integers for tests.
pub fn integers(values: &[Option<i64>]) -> arrow::array::ArrayRef {
    Arc::new(values.iter().copied().collect::<arrow::array::Int64Array>())
}

/// A batch of these columns for tests; every column may hold null.
///
/// # Panics
/// If the columns have different lengths.
pub fn batch(columns: &[(&str, arrow::array::ArrayRef)]) -> Batch {
    let columns = columns.iter().map(|(name, column)| (*name, Arc::clone(column), true));
    RecordBatch::try_from_iter_with_nullable(columns).expect("columns of one length").into()
}
