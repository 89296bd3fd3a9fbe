//! Results before and after the end of a window.
//!
//! What has been fired of a window is kept until it takes no more records: how many results, and of how many records the last
//! one was. A window has changed if it has more records than that. A session that grew is another window; the result of the
//! one that is no more is withdrawn.

use std::collections::HashSet;

use mill_plan::KeptWindow;
use mill_protocol::{Outbox, Result, Watermark};

use super::due::{Due, WindowOf};
use super::records::{Fired, Key, KeyRef};
use super::{GATHER_ROWS, KeptWindows};
use crate::windows::Timing;

/// Why windows of a key may have results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The watermark has come to a deadline of the key.
    Watermark,
    /// A trigger fires, the one for this timing.
    Trigger(Timing),
    /// The input has ended.
    End,
}

/// Keys that have changed.
pub(super) type Changed = HashSet<Key>;

/// Those that have changed, in an order that is the same each time, each list with the timing whose trigger fires.
pub(super) fn listed(due: Vec<(Timing, Changed)>) -> Option<Vec<(Timing, Vec<Key>)>> {
    let lists = due.into_iter().filter(|(_, changed)| !changed.is_empty()).map(|(timing, changed)| {
        let mut keys: Vec<Key> = changed.into_iter().collect();
        keys.sort_unstable_by(|a, b| (a.hash, &a.bytes).cmp(&(b.hash, &b.bytes)));
        (timing, keys)
    });
    let lists: Vec<_> = lists.collect();
    (!lists.is_empty()).then_some(lists)
}

/// A window of a key that has records.
#[derive(Clone, Copy, Debug)]
struct Cut {
    start: i64,
    end: i64,
    records: u64,
}

impl KeptWindows {
    /// A record of the key has come: notes it, and fires windows that it fills.
    pub(super) fn note_change(&mut self, key: KeyRef<'_>, time: i64, due: &mut Due, out: &mut Outbox) -> Result<()> {
        let Some(triggers) = &mut self.triggers else { return Ok(()) };
        for timing in [Timing::Early, Timing::Late] {
            triggers.waiting(timing).map(|changed| changed.insert(key.owned()));
        }
        let counts = triggers.rows(Timing::Early).is_some() || triggers.rows(Timing::Late).is_some();
        if !counts {
            return Ok(());
        }
        for cut in self.cuts(key).into_iter().filter(|cut| cut.start <= time && time < cut.end) {
            let timing = self.timing_now(&cut);
            let Some(rows) = self.triggers.as_ref().and_then(|triggers| triggers.rows(timing)) else { continue };
            let fired: u64 = match self.spec.window {
                // Records that earlier results of its parts were of.
                KeptWindow::Session(_) => {
                    let within = |&(start, end, _): &(i64, i64, Fired)| cut.start <= start && end <= cut.end;
                    self.records.all_fired(key).iter().filter(|found| within(found)).map(|(.., fired)| fired.records).sum()
                }
                _ => self.records.fired(key, cut.start, cut.end).map_or(0, |fired| fired.records),
            };
            if cut.records >= fired.saturating_add(rows) {
                if let KeptWindow::Session(_) = self.spec.window {
                    // What is withdrawn may be among the results that have not gone out yet.
                    self.flush(due, out)?;
                }
                // After the end the first result is that of the end.
                let is_on_time = self.records.fired(key, cut.start, cut.end).is_some_and(|fired| fired.is_on_time);
                let timing = if timing == Timing::Late && !is_on_time { Timing::OnTime } else { timing };
                self.fire_cut(key, &cut, timing, due)?;
                if due.rows() >= GATHER_ROWS {
                    self.flush(due, out)?;
                }
            }
        }
        Ok(())
    }

    /// Fires the windows of a key that are due, or that changed where a trigger says so, and drops those that are complete.
    pub(super) fn fire_key(&mut self, key: KeyRef<'_>, cause: Cause, due: &mut Due) -> Result<()> {
        let cuts = self.cuts(key);
        let mut next: Option<i64> = None;
        let mut complete_to = i64::MIN;
        for cut in &cuts {
            let fired = self.records.fired(key, cut.start, cut.end).unwrap_or_default();
            let is_changed = fired.records < cut.records;
            let is_over = self.is_reached(cut.end);
            let last = cut.end.saturating_add(self.spec.allowed_lateness_us);
            let is_complete = cause == Cause::End || self.is_reached(last);
            let timing = match () {
                () if is_complete && !fired.is_on_time => Some(Timing::OnTime),
                () if is_complete => is_changed.then_some(Timing::Late),
                () if is_over && self.fires_late() && !fired.is_on_time => Some(Timing::OnTime),
                () if is_changed && cause == Cause::Trigger(self.timing_now(cut)) => Some(self.timing_now(cut)),
                () => None,
            };
            if let Some(timing) = timing {
                self.fire_cut(key, cut, timing, due)?;
            }
            if is_complete {
                self.records.forget_fired(key, cut.start, cut.end);
                complete_to = complete_to.max(cut.end);
            } else {
                let at = if self.fires_late() && !is_over { cut.end } else { last };
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        if complete_to > i64::MIN {
            self.drop_complete(key, complete_to)?;
        }
        if let Some(at) = next.filter(|_| self.is_timed()) {
            self.records.set_deadline(at, key)?;
        }
        Ok(())
    }

    fn is_reached(&self, at: i64) -> bool {
        self.is_timed() && (self.watermark == Watermark::MAX || self.watermark.0 >= at)
    }

    fn timing_now(&self, cut: &Cut) -> Timing {
        if self.is_reached(cut.end) && self.fires_late() { Timing::Late } else { Timing::Early }
    }

    /// Withdraws the results of sessions that are part of this one now.
    fn withdraw_parts(&mut self, key: KeyRef<'_>, cut: &Cut, due: &mut Due) {
        let is_part = |&(start, end, _): &(i64, i64, Fired)| {
            cut.start <= start && end <= cut.end && (start, end) != (cut.start, cut.end)
        };
        let parts: Vec<_> = self.records.all_fired(key).into_iter().filter(is_part).collect();
        let Some(row) = self.records.of(key).next().map(|record| record.row.to_vec()) else { return };
        for (start, end, _) in parts {
            due.withdraw(start, end, &row);
            self.records.forget_fired(key, start, end);
        }
    }

    fn fire_cut(&mut self, key: KeyRef<'_>, cut: &Cut, timing: Timing, due: &mut Due) -> Result<()> {
        if matches!(self.spec.window, KeptWindow::Session(_)) {
            self.withdraw_parts(key, cut, due);
        }
        let fired = self.records.fired(key, cut.start, cut.end).unwrap_or_default();
        due.begin(WindowOf { start: cut.start, end: cut.end, pane: fired.panes, timing });
        let is_of = |mark: i64| self.aligned.is_none() || mark <= cut.end;
        let of_window = self.records.from(key, cut.start).take_while(|record| record.time < cut.end);
        of_window.filter(|record| is_of(record.mark)).for_each(|record| due.push(record.row));
        let is_on_time = fired.is_on_time || timing == Timing::OnTime;
        let fired = Fired { panes: fired.panes + 1, records: cut.records, is_on_time };
        self.records.set_fired(key, (cut.start, cut.end), fired)
    }

    /// Drops records that belong to no window that ends after this.
    fn drop_complete(&mut self, key: KeyRef<'_>, end: i64) -> Result<()> {
        let gone = match &self.aligned {
            Some(aligned) => {
                let is_gone = |time: i64| aligned.last_end(aligned.pane(time).start) <= end;
                self.records.of(key).take_while(|record| is_gone(record.time)).count()
            }
            None => self.records.of(key).take_while(|record| record.time < end).count(),
        };
        if gone > 0 {
            self.records.remove_first(key, gone);
        }
        if self.aligned.is_some_and(|aligned| aligned.is_overlapping()) {
            let is_empty = self.records.of(key).next().is_none();
            self.records.set_dropped(key, (!is_empty).then_some(end))?;
        }
        Ok(())
    }

    /// The windows of a key that have records and may still have results, in order of their ends.
    fn cuts(&self, key: KeyRef<'_>) -> Vec<Cut> {
        let mut cuts: Vec<Cut> = Vec::new();
        match (&self.spec.window, &self.aligned) {
            (_, Some(aligned)) => {
                let mut by_end = std::collections::BTreeMap::<i64, u64>::new();
                for record in self.records.of(key) {
                    let pane = aligned.pane(record.time);
                    let last = aligned.last_end(pane.start);
                    let mut end = pane.first_end.max(record.mark);
                    while end <= last {
                        *by_end.entry(end).or_default() += 1;
                        end = aligned.next_end(end);
                    }
                }
                // Records of windows that are complete may still be in others.
                let dropped = self.records.dropped(key);
                let open = by_end.into_iter().filter(|&(end, _)| dropped.is_none_or(|dropped| end > dropped));
                cuts.extend(open.map(|(end, records)| Cut { start: aligned.start_of(end), end, records }));
            }
            (KeptWindow::Session(_), _) => {
                for record in self.records.of(key) {
                    match cuts.last_mut() {
                        Some(last) if record.time < last.end => {
                            last.end = last.end.max(record.mark);
                            last.records += 1;
                        }
                        _ => cuts.push(Cut { start: record.time, end: record.mark, records: 1 }),
                    }
                }
            }
            _ => {
                let records = self.records.of(key).count() as u64;
                if records > 0 {
                    cuts.push(Cut { start: i64::MIN, end: i64::MAX, records });
                }
            }
        }
        cuts
    }
}
