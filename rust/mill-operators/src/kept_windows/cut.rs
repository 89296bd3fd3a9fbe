//! Which windows of a key are due.

use mill_plan::KeptWindow;
use mill_protocol::{Result, Watermark};

use super::due::{Due, WindowOf};
use super::records::{Key, KeyRef};
use super::trigger::Cause;
use super::{GATHER_KEYS, GATHER_ROWS, KeptWindows, Work};
use crate::windows::{Aligned, Timing};

impl KeptWindows {
    /// Gathers windows that the watermark makes due; whether there may be more of them.
    pub(super) fn gather_due(&mut self, due: &mut Due) -> Result<bool> {
        while due.work() < GATHER_ROWS {
            let keys = self.records.pop_due(self.watermark.0, GATHER_KEYS);
            if keys.is_empty() {
                return Ok(false);
            }
            for (at, key) in &keys {
                if self.triggers.is_some() {
                    self.fire_key(key.borrowed(), Cause::Watermark, due)?;
                } else if let KeptWindow::Rolling(length) = self.spec.window {
                    self.cut_rolling(key.borrowed(), *at, length, due)?;
                } else if self.aligned.is_some() {
                    self.cut_aligned(key.borrowed(), at.saturating_sub(self.spec.allowed_lateness_us), due)?;
                } else {
                    self.cut_sessions(key.borrowed(), due)?;
                }
            }
        }
        Ok(true)
    }

    /// Gathers the sessions of a key that can get no more records.
    fn cut_sessions(&mut self, key: KeyRef<'_>, due: &mut Due) -> Result<()> {
        let last_end = match self.watermark {
            Watermark::MAX => i64::MAX,
            Watermark(at) => at.saturating_sub(self.spec.allowed_lateness_us),
        };
        // The sessions up to the first that is not complete: start, end, records.
        let mut complete: Vec<(i64, i64, usize)> = Vec::new();
        let mut open: Option<(i64, i64, usize)> = None;
        for record in self.records.of(key) {
            match &mut open {
                Some((_, end, rows)) if record.time < *end => {
                    *end = record.mark.max(*end);
                    *rows += 1;
                }
                _ => {
                    if open.is_some_and(|(_, end, _)| end > last_end) {
                        break;
                    }
                    complete.extend(open.replace((record.time, record.mark, 1)));
                }
            }
        }
        complete.extend(open.take_if(|(_, end, _)| *end <= last_end));
        let mut records = self.records.of(key);
        let mut count = 0;
        for (start, end, rows) in complete {
            due.begin(WindowOf { start, end, pane: 0, timing: Timing::OnTime });
            records.by_ref().take(rows).for_each(|record| due.push(record.row));
            count += rows;
        }
        drop(records);
        if count > 0 {
            self.records.remove_first(key, count);
        }
        if let Some((_, end, _)) = open {
            self.records.set_deadline(end.saturating_add(self.spec.allowed_lateness_us), key)?;
        }
        Ok(())
    }

    /// Gathers what is before each record of a key that the watermark has passed; those before the first deadline have had
    /// their results.
    fn cut_rolling(&mut self, key: KeyRef<'_>, deadline: i64, length: i64, due: &mut Due) -> Result<()> {
        let from = deadline.saturating_sub(1);
        let first_row = due.rows();
        let (mut times, mut fired): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        let is_passed = |time: i64| self.watermark == Watermark::MAX || time < self.watermark.0;
        for record in self.records.from(key, from.saturating_sub(length)).take_while(|record| is_passed(record.time)) {
            due.push(record.row);
            times.push(record.time);
        }
        let (mut start, mut end) = (0, 0);
        for (place, &time) in times.iter().enumerate().filter(|&(_, &time)| time >= from) {
            while times[start] <= time.saturating_sub(length) {
                start += 1;
            }
            while end < times.len() && times[end] <= time {
                end += 1;
            }
            due.roll(WindowOf { start: time, end: time.saturating_add(1), ..WindowOf::whole() }, first_row + start..first_row + end, first_row + place);
            if fired.last() != Some(&time) {
                fired.push(time);
            }
        }
        for time in fired {
            self.records.remove_deadline(time.saturating_add(1), key);
        }
        let is_gone = |time: i64| match self.watermark {
            Watermark::MAX => true,
            Watermark(at) => time <= at.saturating_sub(length),
        };
        let gone = self.records.of(key).take_while(|record| is_gone(record.time)).count();
        if gone > 0 {
            self.records.remove_first(key, gone);
        }
        // What stays must be dropped some day, also if no other record of the key comes.
        match times.last() {
            Some(&last) if !is_gone(last) => self.records.set_deadline(last.saturating_add(length), key),
            _ => Ok(()),
        }
    }

    /// Gathers the windows of a key that are complete, where their bounds follow from time; those that end before `from` have
    /// had their results.
    fn cut_aligned(&mut self, key: KeyRef<'_>, from: i64, due: &mut Due) -> Result<()> {
        let Some(aligned) = self.aligned else { return Ok(()) };
        let mut from = from;
        while let Some(end) = self.next_end(key, &aligned, from) {
            let deadline = end.saturating_add(self.spec.allowed_lateness_us);
            if !aligned.is_complete(end, self.watermark) {
                return self.records.set_deadline(deadline, key);
            }
            self.records.remove_deadline(deadline, key);
            let start = aligned.start_of(end);
            let rows = self.records.from(key, start).take_while(|record| record.time < end).filter(|record| record.mark <= end);
            let mut is_begun = false;
            for record in rows {
                if !is_begun {
                    due.begin(WindowOf { start, end, pane: 0, timing: Timing::OnTime });
                    is_begun = true;
                }
                due.push(record.row);
            }
            let gone = self.records.of(key).take_while(|record| aligned.last_end(aligned.pane(record.time).start) <= end).count();
            if gone > 0 {
                self.records.remove_first(key, gone);
            }
            from = aligned.next_end(end);
        }
        Ok(())
    }

    /// The end of the first window that holds a record and does not end before `from`.
    fn next_end(&self, key: KeyRef<'_>, aligned: &Aligned, from: i64) -> Option<i64> {
        let mut least: Option<i64> = None;
        for record in self.records.of(key) {
            let pane = aligned.pane(record.time);
            if least.is_some_and(|least| pane.first_end >= least) {
                break;
            }
            let mut end = pane.first_end.max(record.mark);
            if end < from {
                end = aligned.first_end_from(end, from);
            }
            if end <= aligned.last_end(pane.start) {
                least = Some(least.map_or(end, |least| least.min(end)));
            }
        }
        least
    }

    /// Gathers what is left at the end of the input, key by key; where to continue.
    pub(super) fn gather_rest(&mut self, group: u16, after: Option<Key>, due: &mut Due) -> Result<Option<Work>> {
        let (mut group, mut after) = (group, after);
        let end = self.records.groups().end;
        while group < end {
            let Some(key) = self.records.next_key(group, after.as_ref()) else {
                (group, after) = (group + 1, None);
                continue;
            };
            if due.rows() >= GATHER_ROWS {
                return Ok(Some(Work::End(group, after)));
            }
            match self.spec.window {
                KeptWindow::Count(window) => self.cut_rest(key.borrowed(), window, due)?,
                _ if self.triggers.is_some() => self.fire_key(key.borrowed(), Cause::End, due)?,
                _ => {
                    due.begin(WindowOf::whole());
                    self.records.of(key.borrowed()).for_each(|record| due.push(record.row));
                    self.records.remove_first(key.borrowed(), usize::MAX);
                }
            }
            after = Some(key);
        }
        Ok(None)
    }
}
