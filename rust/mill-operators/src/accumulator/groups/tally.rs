//! Rows that have results before they are complete: each knows of how many records it is and what has been emitted of it.
//!
//! ```text
//!   frame ──count──► the tally of each row, record by record          which records bring their row to a result
//!         ──take───► accumulators, all at once, or in rounds:         first the records up to the first result of their row,
//!                      round 0 ─► results ─► round 1 ─► results ─► …  then those up to the second, …
//! ```
//!
//! A result is one of exactly the records that were counted for it, however records are cut into frames. There is a second
//! round only if a row has a result amid the few hundred records that are taken at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use mill_protocol::{Error, Result};
use mill_state::{Cursor, KeyBatch, LOOKUP_ROWS_MAX, Rows, RowsRead, Span};

use super::read::{decoded, finished};
use super::{Groups, Selection, Taking};
use crate::accumulator::WrittenKeys;
use crate::accumulator::input::state_error;
use crate::windows::{Emitted, Timing};

/// How many words of a row its tally takes.
pub(super) const TALLY_WORDS: usize = 3;
/// Groups with tallies have one table.
const PANE: i64 = 0;

/// What a row knows of the window that it is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many records the window has.
    pub(crate) records: u64,
    /// How many records the last result was of.
    emitted: u64,
    /// How many results there were.
    results: u64,
    /// Whether there was one for the end of the window.
    pub(crate) is_on_time: bool,
}

impl Tally {
    #[inline(always)]
    fn read(words: &[u64; TALLY_WORDS]) -> Tally {
        Tally { records: words[0], emitted: words[1], results: words[2] >> 1, is_on_time: words[2] & 1 != 0 }
    }

    #[inline(always)]
    fn write(self, words: &mut [u64; TALLY_WORDS]) {
        *words = [self.records, self.emitted, self.results << 1 | u64::from(self.is_on_time)];
    }

    /// How many records have come since the last result.
    #[inline(always)]
    pub(crate) fn new_records(&self) -> u64 {
        self.records.saturating_sub(self.emitted)
    }

    /// Counts a record of a window of so many; the result that it fills the window for, after which the next one begins.
    pub(crate) fn fill(&mut self, rows: u64) -> Option<Emitted> {
        self.records += 1;
        if self.records < rows {
            return None;
        }
        self.records = 0;
        Some(Emitted { pane: 0, timing: Timing::OnTime })
    }

    /// What the next result is.
    pub(crate) fn next(&self, timing: Timing) -> Emitted {
        Emitted { pane: self.results as i64, timing }
    }

    /// There is a result of all records that have come.
    pub(crate) fn emit(&mut self, timing: Timing) -> Emitted {
        let emitted = self.next(timing);
        self.emitted = self.records;
        self.results += 1;
        self.is_on_time |= timing == Timing::OnTime;
        emitted
    }
}

/// Keys, followed by `pane` and `pane_timing`, and results.
pub(crate) type Results = (Vec<ArrayRef>, Vec<ArrayRef>);

/// Records that are taken together, and those of them that bring their row to a result.
#[derive(Default)]
struct Round {
    records: Vec<u32>,
    emitted: Vec<(u32, Emitted)>,
}

/// The rounds in which these records are taken, each in the row with its place; `emitted` are in the order of the records.
fn rounds(rows: &Rows<'_>, span: Span, emitted: &[(u32, Emitted)]) -> Vec<Round> {
    let place_of = |record: u32| record as usize - span.start;
    let mut passed: HashMap<usize, usize> = emitted.iter().map(|&(record, _)| (rows.identity(place_of(record)), 0)).collect();
    let mut rounds: Vec<Round> = vec![Round::default()];
    let mut emitted = emitted.iter().peekable();
    for record in (span.start..span.start + span.len).map(|record| record as u32) {
        let results = passed.get_mut(&rows.identity(place_of(record)));
        let round = results.as_ref().map_or(0, |results| **results);
        if round == rounds.len() {
            rounds.push(Round::default());
        }
        rounds[round].records.push(record);
        if let Some(&result) = emitted.next_if(|(at, _)| *at == record) {
            rounds[round].emitted.push(result);
            results.into_iter().for_each(|results| *results += 1);
        }
    }
    rounds
}

impl Groups {
    fn tally_word(&self) -> Result<usize> {
        self.tally.ok_or_else(|| Error::internal("these rows have no tally"))
    }

    /// Takes all records of the frame, so many. `count` is called for each, in order, with the tally of its row, and returns which
    /// result its row has once the record is in, if any. With `restarts` a row starts over after a result, and is gone if no
    /// record is left. Returns the results, those of a row in their order.
    pub(crate) fn update_counted(
        &mut self,
        records: usize,
        restarts: bool,
        mut count: impl FnMut(usize, &mut Tally) -> Option<Emitted>,
    ) -> Result<Vec<Results>> {
        let word = self.tally_word()?;
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.open(PANE));
        let (mut results, mut emitted) = (Vec::new(), Vec::new());
        for start in (0..records).step_by(self.lookup_rows) {
            let span = Span { start, len: self.lookup_rows.min(records - start) };
            let keys = self.encoder.batch();
            let mut rows = self.panes.open(PANE).find_or_insert(keys, span);
            self.firsts.extend(rows.inserted().iter().map(|&new| (start + new as usize) as u32));
            emitted.clear();
            rows.each::<TALLY_WORDS>(word, |place, words| {
                let mut tally = Tally::read(words);
                if let Some(result) = count(start + place, &mut tally) {
                    emitted.push(((start + place) as u32, result));
                }
                tally.write(words);
            });
            if emitted.is_empty() {
                let taking = Taking {
                    accumulators: &mut self.accumulators,
                    problems: &mut self.problems,
                    carries: &mut self.carries,
                    spilled: &mut self.spilled,
                };
                taking.take(PANE, keys, &mut rows, Selection::Span(span))?;
                continue;
            }
            for round in rounds(&rows, span, &emitted) {
                self.take_round(&round, restarts, &mut results)?;
            }
            if restarts {
                self.remove_empty(&emitted)?;
            }
        }
        Ok(results)
    }

    /// Takes the records of a round, and adds the results to which they bring their rows.
    fn take_round(&mut self, round: &Round, restarts: bool, results: &mut Vec<Results>) -> Result<()> {
        let word = self.tally_word()?;
        let keys = self.encoder.batch();
        let records = &round.records[..];
        let taking = Taking {
            accumulators: &mut self.accumulators,
            problems: &mut self.problems,
            carries: &mut self.carries,
            spilled: &mut self.spilled,
        };
        let table = self.panes.open(PANE);
        taking.take(PANE, keys, &mut table.find_or_insert(keys, records), Selection::Picked(records))?;
        if round.emitted.is_empty() {
            return Ok(());
        }
        let emitted: Vec<u32> = round.emitted.iter().map(|&(record, _)| record).collect();
        let (rows, _) = table.find_selected(keys, &emitted[..]);
        let of_rows = decoded(&self.decoder, &rows, self.keys.len())?;
        let beside = Emitted::columns(round.emitted.iter().map(|&(_, result)| result));
        let found = finished(&self.accumulators, &mut self.carries, &mut self.unfit, PANE, (of_rows.clone(), beside), &rows)?;
        results.push(found);
        if restarts {
            let layout = Arc::clone(table.layout());
            let mut rows = table.find_or_insert(keys, &emitted[..]);
            let mut tallies = Vec::with_capacity(emitted.len());
            rows.each::<TALLY_WORDS>(word, |_, words| tallies.push(*words));
            rows.clear(&layout);
            rows.each::<TALLY_WORDS>(word, |place, words| *words = tallies[place]);
            if let Some(carries) = &mut self.carries {
                carries.remove(PANE, &of_rows, |_| true, emitted.len())?;
            }
        }
        Ok(())
    }

    /// Removes those rows of these records of the frame that have no record.
    fn remove_empty(&mut self, emitted: &[(u32, Emitted)]) -> Result<()> {
        let word = self.tally_word()?;
        let (keys, table) = (self.encoder.batch(), self.panes.open(PANE));
        let records: Vec<u32> = emitted.iter().map(|&(record, _)| record).collect();
        let (rows, _) = table.find_selected(keys, &records[..]);
        let is_empty: Vec<bool> = (0..rows.len()).map(|row| rows.word(row, word) == 0).collect();
        for (&record, _) in records.iter().zip(is_empty).filter(|(_, is_empty)| *is_empty) {
            table.remove(keys, record as usize);
        }
        Ok(())
    }

    /// The results of those of these written keys that have a row and for which `count` returns one; it is called with the place
    /// of the key and the tally of its row. A key may be there twice, unless `is_over`, with which all these rows are removed.
    pub(crate) fn emit_written<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        is_over: bool,
        mut count: impl FnMut(usize, &mut Tally) -> Option<Emitted>,
    ) -> Result<Option<Results>> {
        let word = self.tally_word()?;
        let keys = KeyBatch::of_written(self.encoder.kind(), keys).map_err(state_error)?;
        let table = self.panes.open(PANE);
        let (rows, found) = table.find(&keys);
        let (mut records, mut emitted) = (Vec::new(), Vec::new());
        let mut result_of = |record: u32, tally: &mut Tally| {
            if let Some(result) = count(record as usize, tally) {
                records.push(record);
                emitted.push(result);
            }
        };
        if is_over {
            found.iter().enumerate().for_each(|(row, &record)| result_of(record, &mut tally_of(&rows, row, word)));
        } else {
            // A key may be there twice, so each tally is written before the next one is read.
            for found in found.chunks(LOOKUP_ROWS_MAX) {
                table.find_or_insert(&keys, found).each::<TALLY_WORDS>(word, |place, words| {
                    let mut tally = Tally::read(words);
                    result_of(found[place], &mut tally);
                    tally.write(words);
                });
            }
        }
        let mut results = None;
        if !records.is_empty() {
            let (rows, _) = table.find_selected(&keys, &records[..]);
            let beside = (decoded(&self.decoder, &rows, self.keys.len())?, Emitted::columns(emitted.iter().copied()));
            results = Some(finished(&self.accumulators, &mut self.carries, &mut self.unfit, PANE, beside, &rows)?);
        }
        if is_over {
            if let Some(carries) = self.carries.as_mut().filter(|carries| carries.has(PANE)) {
                let (rows, _) = table.find_selected(&keys, &found[..]);
                let of_rows = decoded(&self.decoder, &rows, self.keys.len())?;
                carries.remove(PANE, &of_rows, |_| true, found.len())?;
            }
            for &record in &found {
                table.remove(&keys, record as usize);
            }
        }
        Ok(results)
    }

    /// Reads on in the rows: the results of the next ones, about `rows_max` of them; `None` at the end. `count` returns which
    /// result each has.
    pub(crate) fn counted_results(
        &mut self,
        cursor: &mut Cursor,
        rows_max: usize,
        count: impl Fn(&Tally) -> Emitted,
    ) -> Result<Option<Results>> {
        let word = self.tally_word()?;
        let Some(table) = self.panes.pane(PANE) else { return Ok(None) };
        let rows = table.scan(cursor, rows_max);
        if rows.is_empty() {
            return Ok(None);
        }
        let emitted = (0..rows.len()).map(|row| count(&tally_of(&rows, row, word)));
        let beside = (decoded(&self.decoder, &rows, self.keys.len())?, Emitted::columns(emitted));
        finished(&self.accumulators, &mut self.carries, &mut self.unfit, PANE, beside, &rows).map(Some)
    }

    /// Goes over the rows: the key columns of the next ones, each key as it is written, and their tallies. `None` at the end.
    pub(crate) fn counted_keys(&mut self, cursor: &mut Cursor) -> Result<Option<(Vec<ArrayRef>, WrittenKeys, Vec<Tally>)>> {
        let word = self.tally_word()?;
        let Some(table) = self.panes.pane(PANE) else { return Ok(None) };
        let rows = table.scan(cursor, LOOKUP_ROWS_MAX);
        if rows.is_empty() {
            return Ok(None);
        }
        let tallies: Vec<Tally> = (0..rows.len()).map(|row| tally_of(&rows, row, word)).collect();
        let columns = decoded(&self.decoder, &rows, self.keys.len())?;
        self.encode(&columns, tallies.len())?;
        let mut written = WrittenKeys::default();
        (0..tallies.len()).for_each(|row| written.push_of(self, row as u32));
        Ok(Some((columns, written, tallies)))
    }
}

fn tally_of(rows: &RowsRead<'_>, row: usize, word: usize) -> Tally {
    Tally::read(&[rows.word(row, word), rows.word(row, word + 1), rows.word(row, word + 2)])
}
