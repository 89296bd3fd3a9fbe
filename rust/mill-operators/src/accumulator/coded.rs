//! When keys of several columns, or of text, get numbers before the exchange, so that their rows need no search.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use mill_protocol::Result;
use mill_state::{KeyCoder, KeyRange};

use super::input::state_error;
use super::near::NearTables;

/// For how many records it is not tried again after it has turned out not to pay; doubles each time it still does not.
const PAUSE_RECORDS: usize = 1 << 20;
const PAUSE_RECORDS_MAX: usize = 1 << 25;
/// For how many frames, if there was merely no table for one.
const PAUSE_FRAMES: usize = 8;

/// Numbers for the keys of frames, as long as that pays.
pub(super) struct CodedKeys {
    coder: KeyCoder,
    /// Whether there are too many values, so that no more numbers are given until the tables are empty.
    is_full: bool,
    /// The records that got numbers since the dictionaries were begun.
    taken: usize,
    /// The records for which it is not tried.
    paused: usize,
    pause_next: usize,
}

impl CodedKeys {
    /// Those of key columns of these types; `None` if such keys have no numbers.
    pub(super) fn new(types: &[DataType]) -> Result<Option<CodedKeys>> {
        let coder = KeyCoder::new(types).map_err(state_error)?;
        Ok(coder.map(|coder| CodedKeys { coder, is_full: false, taken: 0, paused: 0, pause_next: PAUSE_RECORDS }))
    }

    /// Assigns numbers for the rows of `near` to the keys of a frame, and returns their range; `None` if they have to be hashed.
    pub(super) fn encode(&mut self, columns: &[ArrayRef], rows: usize, near: &mut NearTables) -> Result<Option<KeyRange>> {
        if self.paused > 0 {
            self.paused = self.paused.saturating_sub(rows);
            return Ok(None);
        }
        if !near.may_take(rows) || self.is_full && !near.is_empty() {
            return Ok(None);
        }
        if std::mem::take(&mut self.is_full) {
            self.coder.reset();
            self.taken = 0;
        }
        let keys_max = near.keys_max();
        match self.coder.encode(columns, rows, keys_max).map_err(state_error)? {
            Some(renumbering) => {
                if let Some(renumbering) = renumbering {
                    near.renumber(self.coder.range(), |number| renumbering.of(number));
                }
                self.taken += rows;
                Ok(Some(self.coder.range()))
            }
            None => {
                self.is_full = true;
                // Where values come and go, dictionaries that were of use for long enough are simply started over.
                if self.taken as u64 >= keys_max {
                    self.pause_next = PAUSE_RECORDS;
                } else {
                    self.paused = self.pause_next;
                    self.pause_next = (self.pause_next * 2).min(PAUSE_RECORDS_MAX);
                }
                Ok(None)
            }
        }
    }

    /// There was no table for a frame of so many records.
    pub(super) fn pause(&mut self, rows: usize) {
        self.paused = rows * PAUSE_FRAMES;
    }

    /// The numbers of the keys of the frame.
    pub(super) fn numbers(&self) -> &[u64] {
        self.coder.numbers()
    }

    /// The key columns of these numbers.
    pub(super) fn decode(&mut self, numbers: Vec<u64>) -> Result<Vec<ArrayRef>> {
        self.coder.decode(numbers).map_err(state_error)
    }
}
