//! Windows of a number of records.

use std::collections::HashMap;

use mill_plan::CountWindow;
use mill_protocol::{Batch, Outbox, Result};

use super::due::{Due, WindowOf};
use super::records::{Key, KeyRef};
use super::{GATHER_ROWS, KeptWindows};

impl KeptWindows {
    /// Takes records, and emits the windows that they fill.
    pub(super) fn take_counted(&mut self, batch: &Batch, window: CountWindow, out: &mut Outbox) -> Result<()> {
        let rows = self.records.encode(batch, &self.kept)?;
        let (size, slide) = (window.rows as usize, window.slide as usize);
        let mut places: HashMap<Key, usize> = HashMap::new();
        let mut of_keys: Vec<(Key, Vec<usize>)> = Vec::new();
        let mut bytes = Vec::new();
        for record in 0..batch.rows() {
            bytes.clear();
            self.encoder.batch().write_key(self.encoder.kind(), record, &mut bytes);
            let key = KeyRef { hash: self.encoder.batch().hashes()[record], bytes: &bytes }.owned();
            let place = *places.entry(key).or_insert_with_key(|key| {
                of_keys.push((key.clone(), Vec::new()));
                of_keys.len() - 1
            });
            of_keys[place].1.push(record);
        }
        let mut due = Due::default();
        for (key, new) in of_keys {
            let key = key.borrowed();
            let before = self.records.of(key).count();
            let total = before + new.len();
            let full = if total >= size { (total - size) / slide + 1 } else { 0 };
            for number in 0..full {
                due.begin(WindowOf::whole());
                let (start, end) = (number * slide, number * slide + size);
                if start < before {
                    self.records.of(key).take(end).skip(start).for_each(|record| due.push(record.row));
                }
                let of_new = start.saturating_sub(before)..end.saturating_sub(before);
                new[of_new].iter().for_each(|&record| due.push(rows.row(record)));
                if due.rows() >= GATHER_ROWS {
                    self.flush(&mut due, out)?;
                }
            }
            // Records of windows that have begun stay.
            let gone = (full * slide).min(total);
            if gone > 0 && before > 0 {
                self.records.remove_first(key, gone.min(before));
            }
            for &record in new.iter().skip(gone.saturating_sub(before)) {
                self.records.insert(key, 0, 0, rows.row(record))?;
            }
        }
        self.flush(&mut due, out)
    }

    /// Gathers the windows of a key that the end of the input leaves incomplete, or drops them.
    pub(super) fn cut_rest(&mut self, key: KeyRef<'_>, window: CountWindow, due: &mut Due) -> Result<()> {
        if window.is_partial {
            let total = self.records.of(key).count();
            for start in (0..total).step_by(window.slide as usize) {
                due.begin(WindowOf::whole());
                self.records.of(key).skip(start).take(window.rows as usize).for_each(|record| due.push(record.row));
            }
        }
        self.records.remove_first(key, usize::MAX);
        Ok(())
    }
}
