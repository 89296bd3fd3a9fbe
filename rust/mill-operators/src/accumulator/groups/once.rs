//! Records of a pane that all come at once, and whose results go out at once: no row of theirs is kept.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use mill_protocol::{Error, Result};
use mill_state::{GridTable, Span};

use super::read::finished;
use super::{Groups, own};
use crate::accumulator::input::state_error;
use crate::accumulator::{Selection, Wraps};

/// The rows of the records at hand, where their keys are numbers near each other.
pub(super) struct Once {
    grid: GridTable,
    /// The key columns of the records.
    keys: Vec<ArrayRef>,
    /// Where rows are read on.
    from: usize,
}

impl Once {
    pub(super) fn new(grid: GridTable) -> Once {
        Once { grid, keys: Vec::new(), from: 0 }
    }
}

impl Groups {
    /// Takes up all records of a pane, which has none and gets none; [`results_once`](Groups::results_once) then are its results.
    /// Returns whether that was possible: if not, nothing has been taken. The last key column is this one, if it is none of the
    /// frame's; its numbers are multiples of `step` apart.
    pub(crate) fn update_once(&mut self, pane: i64, batch: &RecordBatch, last: Option<ArrayRef>, step: u64) -> Result<bool> {
        let columns = self.key_columns(batch, last);
        let rows = batch.num_rows();
        let Some(Once { grid, keys, from }) = &mut self.once else { return Ok(false) };
        if !grid.aim(&columns, rows, step).map_err(state_error)? {
            return Ok(false);
        }
        (*keys, *from) = (columns, 0);
        self.accumulators.iter_mut().try_for_each(|accumulator| accumulator.prepare(batch, &[]))?;
        // Counts of sums that wrap around belong to keys, which are encoded only if there are some.
        let mut wrapped = Vec::new();
        for start in (0..rows).step_by(self.lookup_rows) {
            let select = Span { start, len: self.lookup_rows.min(rows - start) };
            let mut found = grid.find_or_insert(select);
            for (index, accumulator) in self.accumulators.iter_mut().enumerate() {
                accumulator.update(&mut found, Selection::Span(select), &mut self.problems)?;
                let wraps = accumulator.wraps().map(Wraps::take).filter(|wraps| !wraps.is_empty());
                wrapped.extend(wraps.map(|wraps| (index, wraps)));
            }
        }
        let Some(carries) = &mut self.carries else { return Ok(true) };
        carries.prepare(batch);
        if !wrapped.is_empty() || carries.has_merged() {
            let columns = &*keys;
            let keys = self.encoder.encode(columns, rows).map_err(state_error)?;
            if let Some((owners, room)) = &mut self.owners {
                own(keys, &columns[..*owners], room)?;
            }
            wrapped.iter().for_each(|(index, wraps)| carries.add(pane, keys, *index, wraps));
            carries.merge(pane, keys, Span { start: 0, len: rows });
        }
        Ok(true)
    }

    /// How many rows there are of the records at hand.
    pub(crate) fn rows_once(&self) -> usize {
        self.once.as_ref().map_or(0, |once| once.grid.len())
    }

    /// Reads on in the results of the records that were taken at once, as [`results`](Groups::results) has them; they are gone at
    /// the end.
    pub(crate) fn results_once(&mut self, pane: i64, rows_max: usize) -> Result<Option<(Vec<ArrayRef>, Vec<ArrayRef>)>> {
        let Some(Once { grid, keys, from }) = &mut self.once else { return Ok(None) };
        let Some((rows, firsts)) = grid.scan(*from, rows_max) else { return Ok(None) };
        *from += rows.len();
        let firsts = UInt32Array::from(firsts.to_vec());
        let keys = keys.iter().map(|key| take(key, &firsts, None)).collect::<std::result::Result<_, _>>();
        let keys = keys.map_err(|error| Error::internal(error.to_string()))?;
        finished(&self.accumulators, &mut self.carries, &mut self.unfit, pane, (keys, Vec::new()), &rows).map(Some)
    }

    /// Forgets the records that were taken at once.
    pub(crate) fn close_once(&mut self) {
        if let Some(once) = &mut self.once {
            once.grid.clear();
            once.keys.clear();
        }
    }
}
