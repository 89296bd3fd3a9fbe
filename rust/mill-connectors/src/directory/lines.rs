//! The rows of a batch as text, on their way to a file.
//!
//! ```text
//!   one thread     rows 0..1024 ─► text ─► file      rows 1024..2048 ─► text ─► file      …
//!   two threads    rows 0..n/2  ─► text ─┐
//!                  rows n/2..n  ─► text ─┴► file, in this order
//! ```
//!
//! A task that writes a file alone makes the text on all threads of its job. The bytes of the file are the same either way.

use std::io::{self, Write as _};
use std::ops::Range;

use mill_frame::spread;
use mill_protocol::{Error, Result};

use super::output::Output;

/// How many rows become text at once, and how many a thread gets at least.
const ROWS: usize = 1024;

/// Makes text of rows, in buffers that are used again.
pub(super) struct Lines {
    threads: usize,
    texts: Vec<String>,
}

impl Lines {
    /// On so many threads at most.
    pub(super) fn new(threads: usize) -> Lines {
        Lines { threads: threads.max(1), texts: vec![String::new()] }
    }

    /// Writes so many rows; `push` adds the text of some of them.
    pub(super) fn write(
        &mut self,
        rows: usize,
        output: &mut Output,
        push: impl Fn(Range<usize>, &mut String) -> Result<()> + Sync,
        failed: impl Fn(io::Error) -> Error,
    ) -> Result<()> {
        let pieces = self.threads.min(rows / ROWS);
        if pieces <= 1 {
            let text = &mut self.texts[0];
            for start in (0..rows).step_by(ROWS) {
                text.clear();
                push(start..rows.min(start + ROWS), text)?;
                output.write_all(text.as_bytes()).map_err(&failed)?;
            }
            return Ok(());
        }
        if self.texts.len() < pieces {
            self.texts.resize_with(pieces, String::new);
        }
        let texts = &mut self.texts[..pieces];
        spread(pieces, texts.iter_mut().enumerate().collect(), |(piece, text)| {
            text.clear();
            push(rows * piece / pieces..rows * (piece + 1) / pieces, text)
        })?;
        texts.iter().try_for_each(|text| output.write_all(text.as_bytes()).map_err(&failed))
    }
}
