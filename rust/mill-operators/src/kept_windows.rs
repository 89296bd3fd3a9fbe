//! Windows that keep their records until they have a result.
//!
//! ```text
//!   record ──► records of the key, by event time (or arrival)     `records`
//!        └───► a deadline of the key                              when its next window may be due
//!
//!   watermark ──► keys that are due ──cut──► windows ──compute──► results       `cut`, `due`
//!                                       └──► the next deadline of the key
//!   trigger ────► keys that changed ──────► windows ──compute──► results        `trigger`
//! ```
//!
//! It is how windows are made whose bounds no record knows alone (sessions, numbers of records), and what is computed of
//! all records at once: functions of whole windows. What a window is follows from the records that are there, so nothing
//! has to be merged when two sessions become one.
//!
//! Invariants:
//!
//! - A key with records in a window that may still have a result has a deadline that is not after that window's. So no
//!   window is forgotten. A deadline may be too early; then it is set again.
//! - A record is taken if its split's watermark and that of the stream leave its window open, so no record joins a window
//!   that has had its last result. Sessions of a key never overlap.

mod counted;
mod cut;
mod due;
mod records;
mod trigger;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use mill_frame::text::record_json;
use mill_plan::{KeptWindow, KeptWindowSpec, SessionGap, Stage, WindowCompute};
use mill_protocol::{
    Batch, Error, Operator, Outbox, Progress, Rejected, Restored, Result, Snapshot, TaskContext, Watermark,
};
use mill_state::KeyEncoder;

use crate::accumulator::state_error;
use crate::description::{Described, Description, Shape, own};
use crate::windows::{Aligned, Gaps, Timing, Triggers, push_late, within_reach};
use due::{Computer, Due};
use records::{Key, KeyRef, Records};
use trigger::{Cause, Changed, listed};

/// How many records are gathered before results are computed of them.
const GATHER_ROWS: usize = 16_384;
/// How many keys are asked at a time whether they are due.
const GATHER_KEYS: usize = 256;

/// What a stage of this kind is made of.
#[derive(Clone, Copy)]
pub(crate) struct KeptParts<'a> {
    pub(crate) keys: &'a [usize],
    pub(crate) kept: &'a [usize],
    pub(crate) records: &'a SchemaRef,
    pub(crate) spec: &'a KeptWindowSpec,
    pub(crate) compute: &'a WindowCompute,
}

/// Keeps the records of each key and open window.
pub(crate) struct KeptWindows {
    keys: Vec<usize>,
    kept: Vec<usize>,
    spec: KeptWindowSpec,
    /// Of windows whose bounds follow from time.
    aligned: Option<Aligned>,
    encoder: KeyEncoder,
    records: Records,
    computer: Computer,
    triggers: Option<Triggers<Changed>>,
    watermark: Watermark,
    work: Option<Work>,
    described: Described,
}

/// What is under way while the operator says that there is more.
enum Work {
    /// Windows that the watermark makes due.
    Due,
    /// What is left at the end: a key group, and the key after which to continue.
    End(u16, Option<Key>),
    /// Keys whose windows a trigger fires, the last first, each list with its timing.
    Triggered(Vec<(Timing, Vec<Key>)>),
}

impl KeptWindows {
    pub(crate) fn new(stage: &Stage, context: &TaskContext, parts: KeptParts<'_>) -> Result<KeptWindows> {
        let KeptParts { keys, kept, records, spec, compute } = parts;
        let place = |key: &usize| {
            let place = kept.iter().position(|column| column == key);
            place.ok_or_else(|| Error::internal("a key is not among the kept columns"))
        };
        let key_places = keys.iter().map(place).collect::<Result<Vec<usize>>>()?;
        let key_types: Vec<_> = key_places.iter().map(|&place| records.field(place).data_type().clone()).collect();
        let aligned = match spec.window {
            KeptWindow::Aligned(window) => Some(Aligned::new(window, spec.allowed_lateness_us)),
            KeptWindow::Session(_) | KeptWindow::Count(_) | KeptWindow::Global | KeptWindow::Rolling(_) => None,
        };
        let aggregates = match compute {
            WindowCompute::Aggregates(specs) => Some(specs.clone()),
            WindowCompute::Reduce(_) | WindowCompute::Apply(_) => None,
        };
        let shape = Shape::Kept { keys: key_places.clone(), records: records.clone(), spec: *spec, aggregates };
        let described = Description { schema: stage.schema.clone(), keeps_pending: false, shape }.described();
        let triggers = (!spec.trigger.is_default()).then(|| Triggers::new(spec.trigger));
        Ok(KeptWindows {
            keys: keys.to_vec(),
            kept: kept.to_vec(),
            spec: *spec,
            aligned,
            encoder: KeyEncoder::new(&key_types).map_err(state_error)?,
            records: Records::new(records, context)?,
            computer: Computer::new(&stage.schema, records, &key_places, spec, compute)?,
            triggers,
            watermark: Watermark::MIN,
            work: None,
            described,
        })
    }

    /// Whether windows are of event time, so that records may be late.
    fn is_timed(&self) -> bool {
        self.spec.window.is_timed()
    }

    /// Takes records of windows that event time or the end completes.
    fn take(&mut self, batch: &Batch, out: &mut Outbox) -> Result<Vec<u32>> {
        let gaps = match self.spec.window {
            KeptWindow::Session(SessionGap::Column(column)) => Some(Gaps::of(batch, column, self.computer.bound_type().as_ref())?),
            _ => None,
        };
        let rows = self.records.encode(batch, &self.kept)?;
        let (mut late, mut due, mut bytes) = (Vec::new(), Due::default(), Vec::new());
        for record in 0..batch.rows() {
            let Some(time) = self.time_of(batch, record)? else {
                late.push(record as u32);
                continue;
            };
            let mark = match (&gaps, self.spec.window) {
                (Some(gaps), _) => match gaps.end(record, time.at) {
                    Ok(end) => end,
                    Err(error) => {
                        out.reject(Rejected::of(error, record_json(batch.data(), record)));
                        continue;
                    }
                },
                (None, KeptWindow::Session(SessionGap::Fixed(gap))) => time.at.saturating_add(gap),
                (None, _) => time.first_end,
            };
            let hash = self.encoder.batch().hashes()[record];
            bytes.clear();
            self.encoder.batch().write_key(self.encoder.kind(), record, &mut bytes);
            let key = KeyRef { hash, bytes: &bytes };
            let is_sooner = self.records.insert(key, time.at, mark, rows.row(record))?;
            if let KeptWindow::Rolling(_) = self.spec.window {
                self.records.set_deadline(time.at.saturating_add(1), key)?;
            } else if self.is_timed() && (is_sooner || self.triggers.is_some()) {
                // With triggers a window may be due twice, so the first record of a key says nothing of the others.
                let due_at = if self.fires_late() { mark } else { mark.saturating_add(self.spec.allowed_lateness_us) };
                self.records.set_deadline(due_at, key)?;
            }
            if self.triggers.is_some() {
                self.note_change(key, time.at, &mut due, out)?;
            }
        }
        self.flush(&mut due, out)?;
        Ok(late)
    }

    /// The time of a record in its windows, by which they are in order, unless it is too late for all of them.
    fn time_of(&self, batch: &Batch, record: usize) -> Result<Option<Time>> {
        if !self.is_timed() {
            // Before the end of the window, which is that of all time.
            let at = batch.times().map_or(0, |times| times[record].min(i64::MAX - 1));
            return Ok(Some(Time { at, first_end: i64::MAX }));
        }
        let times = batch.times().ok_or_else(|| Error::internal("a window needs event time"))?;
        let at = times[record];
        let behind = batch.behind().map(|behind| behind[record]).filter(|&behind| behind > at);
        let watermark = behind.map_or(self.watermark, |behind| self.watermark.max(Watermark(behind)));
        let first_end = match &self.aligned {
            Some(aligned) => aligned.first_open_end(&aligned.pane(at), watermark),
            None => {
                let is_late = watermark == Watermark::MAX || at.saturating_add(self.spec.allowed_lateness_us) < watermark.0;
                (!is_late).then_some(at)
            }
        };
        Ok(first_end.map(|first_end| Time { at, first_end }))
    }

    /// Whether a window has a result when the watermark reaches its end, and others for records that come later.
    fn fires_late(&self) -> bool {
        self.spec.trigger.late.is_some()
    }

    /// Emits the results of what was gathered.
    fn flush(&mut self, due: &mut Due, out: &mut Outbox) -> Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        self.computer.compute(std::mem::take(due), out)
    }

    fn go_on(&mut self, out: &mut Outbox) -> Result<Progress> {
        let mut due = Due::default();
        let Some(work) = self.work.take() else { return Ok(Progress::Done) };
        self.work = match work {
            Work::Due => self.gather_due(&mut due)?.then_some(Work::Due),
            Work::End(group, after) => self.gather_rest(group, after, &mut due)?,
            Work::Triggered(mut lists) => {
                while due.rows() < GATHER_ROWS
                    && let Some((timing, keys)) = lists.last_mut()
                {
                    match keys.pop() {
                        Some(key) => {
                            let timing = *timing;
                            self.fire_key(key.borrowed(), Cause::Trigger(timing), &mut due)?;
                        }
                        None => {
                            lists.pop();
                        }
                    }
                }
                (!lists.is_empty()).then_some(Work::Triggered(lists))
            }
        };
        self.flush(&mut due, out)?;
        Ok(if self.work.is_some() { Progress::More } else { Progress::Done })
    }
}

/// The event time of a record, and the end of the first window that takes it.
#[derive(Clone, Copy)]
struct Time {
    at: i64,
    first_end: i64,
}

impl Operator for KeptWindows {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Outbox) -> Result<Progress> {
        let reach = match self.spec.window {
            KeptWindow::Aligned(_) => Some(self.aligned.map_or(0, |aligned| aligned.reach())),
            KeptWindow::Session(SessionGap::Fixed(us)) | KeptWindow::Rolling(us) => {
                Some(us.saturating_add(self.spec.allowed_lateness_us).saturating_add(1))
            }
            // A gap of its own is looked at with the record.
            KeptWindow::Session(SessionGap::Column(_)) => Some(self.spec.allowed_lateness_us.saturating_add(1)),
            KeptWindow::Count(_) | KeptWindow::Global => None,
        };
        let batch = match reach {
            Some(reach) => within_reach(batch, reach, self.computer.bound_type().as_ref(), out)?,
            None => batch,
        };
        let keys: Vec<ArrayRef> = self.keys.iter().map(|&key| ArrayRef::clone(batch.column(key))).collect();
        self.encoder.encode(&keys, batch.rows()).map_err(state_error)?;
        if let KeptWindow::Count(window) = self.spec.window {
            self.take_counted(&batch, window, out)?;
            return Ok(Progress::Done);
        }
        let late = self.take(&batch, out)?;
        push_late(&batch, late, out)?;
        match self.triggers.as_mut().and_then(|triggers| listed(triggers.after_batch())) {
            Some(lists) => {
                self.work = Some(Work::Triggered(lists));
                self.go_on(out)
            }
            None => Ok(Progress::Done),
        }
    }

    fn on_watermark(&mut self, _input: usize, at: Watermark, out: &mut Outbox) -> Result<Progress> {
        self.watermark = self.watermark.max(at);
        if !self.is_timed() {
            return Ok(Progress::Done);
        }
        self.work = Some(Work::Due);
        self.go_on(out)
    }

    fn earliest_result(&self) -> Watermark {
        let lateness = self.spec.allowed_lateness_us;
        if !self.is_timed() || lateness == 0 || matches!(self.watermark, Watermark::MIN | Watermark::MAX) {
            // Without lateness, windows that are not complete end after the watermark.
            return Watermark::MAX;
        }
        match &self.aligned {
            Some(aligned) => aligned.earliest_result(self.watermark),
            None => Watermark(self.watermark.0.saturating_sub(lateness)),
        }
    }

    fn knows_time(&self) -> bool {
        true
    }

    fn can_replay(&self) -> bool {
        !self.triggers.as_ref().is_some_and(Triggers::are_by_clock)
    }

    fn next_time(&self) -> Option<i64> {
        self.triggers.as_ref().and_then(Triggers::next_time)
    }

    fn on_time(&mut self, now: i64, out: &mut Outbox) -> Result<Progress> {
        match self.triggers.as_mut().and_then(|triggers| listed(triggers.on_time(now))) {
            Some(lists) => {
                self.work = Some(Work::Triggered(lists));
                self.go_on(out)
            }
            None => Ok(Progress::Done),
        }
    }

    fn on_end(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.work = Some(if self.is_timed() {
            self.watermark = Watermark::MAX;
            Work::Due
        } else {
            Work::End(self.records.groups().start, None)
        });
        self.go_on(out)
    }

    fn resume(&mut self, out: &mut Outbox) -> Result<Progress> {
        self.go_on(out)
    }

    fn snapshot(&mut self, snapshot: &mut Snapshot) -> Result<()> {
        let mut bytes = self.watermark.0.to_le_bytes().to_vec();
        self.records.snapshot(snapshot, &mut bytes);
        snapshot.bytes = Some(self.described.of(&bytes));
        Ok(())
    }

    fn restore(&mut self, restored: &Restored) -> Result<()> {
        let damaged = || Error::checkpoint("the state of a window is damaged: it ends too early");
        let mut least: Option<i64> = None;
        let mut parts = Vec::with_capacity(restored.bytes.len());
        for bytes in &restored.bytes {
            let (at, rest) = own(bytes)?.split_first_chunk::<8>().ok_or_else(damaged)?;
            let at = i64::from_le_bytes(*at);
            least = Some(least.map_or(at, |least| least.min(at)));
            parts.push(rest);
        }
        // At an aligned barrier all instances have the same; without alignment nothing may be lost.
        self.watermark = least.map_or(Watermark::MIN, Watermark);
        self.records.restore(&parts, &restored.blocks)?;
        // Any of the keys may have changed before the checkpoint.
        let waiting = |timing| self.triggers.as_mut().and_then(|triggers| triggers.waiting(timing).map(|_| timing));
        let waiting: Vec<Timing> = [Timing::Early, Timing::Late].into_iter().filter_map(waiting).collect();
        let keys = if waiting.is_empty() { Vec::new() } else { self.records.all_keys() };
        for timing in waiting {
            if let Some(changed) = self.triggers.as_mut().and_then(|triggers| triggers.waiting(timing)) {
                changed.extend(keys.iter().cloned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
