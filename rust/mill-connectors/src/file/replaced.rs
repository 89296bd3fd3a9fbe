//! Reads an object that was replaced or deleted before its reader began: nothing. What is there now has a split of its own.

use mill_protocol::{Position, Read, Result, SplitReader};

use super::position::FilePosition;

pub(super) struct Replaced;

impl SplitReader for Replaced {
    fn next(&mut self, _: usize) -> Result<Read> {
        Ok(Read::End)
    }

    fn position(&self) -> Position {
        FilePosition::default().encode()
    }
}
