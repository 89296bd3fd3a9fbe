//! Whether a CSV file may be cut at any line end, to be read in ranges.
//!
//! It may if every line end ends a record, that is, if no quoted field continues in the next line. That is a property
//! of each line by itself: if each one, taken to begin outside of quotes, is well-formed and ends outside of quotes, then
//! each one does begin outside of quotes. So the parts of a large file are looked through by several threads. Of a file
//! without quotes that is a search for one byte.
//!
//! The check is strict: a quote in the middle of an unquoted field, or text after a closing quote, and the file is read
//! as a whole by the tokenizer, which knows what to do with these.

use std::path::Path;
use std::thread;

use memchr::{memchr, memchr2_iter, memrchr};
use mill_protocol::{Error, Result};

use super::tokens::Dialect;
use crate::file::{BYTE_ORDER_MARK, ChunkReader, FileIdentity};

/// How many threads look through a file at most.
const THREADS_MAX: u64 = 8;
/// What is worth a thread.
const THREAD_BYTES_MIN: u64 = 4 << 20;
/// A line longer than this is taken for one whose quote is not closed.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Whether all line ends of a plain file end records.
pub(super) fn can_cut(path: &Path, dialect: Dialect<'_>) -> Result<bool> {
    let size = FileIdentity::open(path)?.size()?;
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let threads = cores.min(THREADS_MAX).min(size / THREAD_BYTES_MIN).max(1);
    let part = size.div_ceil(threads).max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|number| scope.spawn(move || are_lines_closed(path, number * part, (number + 1) * part, dialect)))
            .collect();
        let mut can_cut = true;
        for part in parts {
            can_cut &= part.join().map_err(|_| Error::internal(format!("looking through {path:?} panicked")))??;
        }
        Ok(can_cut)
    })
}

/// Whether each line that begins in this range ends outside of quotes.
fn are_lines_closed(path: &Path, start: u64, end: u64, dialect: Dialect<'_>) -> Result<bool> {
    let mut chunk = ChunkReader::of_range_at(path, start, end)?;
    loop {
        let mut is_exhausted = false;
        while chunk.is_low() && !is_exhausted {
            is_exhausted = chunk.fill()? == 0;
        }
        let data = chunk.data();
        let is_last = is_exhausted || chunk.is_last();
        let complete = if is_last { data.len() } else { memrchr(b'\n', data).map_or(0, |at| at + 1) };
        let is_first = chunk.offset() == 0;
        let lines = &data[..complete];
        let lines = if is_first { lines.strip_prefix(BYTE_ORDER_MARK).unwrap_or(lines) } else { lines };
        if !are_closed(lines, dialect) {
            return Ok(false);
        }
        if is_last {
            return Ok(true);
        }
        if complete == 0 && (data.len() > LINE_BYTES_MAX || chunk.fill()? == 0) {
            return Ok(false);
        }
        chunk.consume(complete);
    }
}

/// The same for whole lines in memory.
fn are_closed(lines: &[u8], dialect: Dialect<'_>) -> bool {
    let mut at = 0;
    while let Some(quote) = dialect.find_quote(&lines[at..]) {
        let quote = at + quote;
        let start = memrchr(b'\n', &lines[at..quote]).map_or(at, |line_end| at + line_end + 1);
        let end = memchr(b'\n', &lines[quote..]).map_or(lines.len(), |line_end| quote + line_end);
        if !is_closed(&lines[start..end], dialect) {
            return false;
        }
        at = (end + 1).min(lines.len());
    }
    true
}

/// Whether all quotes of a line enclose whole fields, or are doubled or escaped within such.
fn is_closed(line: &[u8], Dialect { delimiter, quote, escape, .. }: Dialect<'_>) -> bool {
    let Some(quote) = quote else { return true };
    let mut is_open = false;
    let mut closed_at = None;
    let mut escaped_at = None;
    for at in memchr2_iter(quote, escape.unwrap_or(quote), line) {
        if escaped_at == Some(at) {
            continue;
        }
        if line[at] != quote {
            escaped_at = is_open.then_some(at + 1);
            continue;
        }
        if is_open {
            let is_end = match &line[at + 1..] {
                [] | [b'\r'] => true,
                [next, ..] => *next == delimiter || *next == quote,
            };
            if !is_end {
                return false;
            }
            closed_at = Some(at + 1);
        } else if at > 0 && line[at - 1] != delimiter && closed_at != Some(at) {
            return false;
        }
        is_open = !is_open;
    }
    !is_open
}

#[cfg(test)]
mod tests;
