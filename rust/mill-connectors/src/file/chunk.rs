//! The bytes of one range of a file, as far as they have been read and not been used.
//!
//! ```text
//!   file     ….\n|aaaa\nbb|bb\ncc…            | range borders: a record belongs to the range of its first byte
//!                 └─ first byte after the      so the range begins behind the first line end at or after start-1,
//!                    line end                  and ends behind the first line end at or after end-1
//!
//!   buffer   [ used | data … | free ]          data() is what is left, cut at the end of the range
//! ```

use std::cell::Cell;
use std::path::Path;

use memchr::{memchr, memchr_iter};
use mill_protocol::Result;

use super::content::Content;

/// How much is read at once.
const READ_BYTES: usize = 512 << 10;
/// With less than this left, more is read before the next records are made.
const LOW_BYTES: usize = 128 << 10;
/// How much is read beyond the end of a range at first, to find the end of its last record.
const BEYOND_BYTES: usize = 16 << 10;

thread_local! {
    /// The buffer of the reader that was closed last: the ranges of a file are read one after another.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pub(crate) struct ChunkReader {
    content: Content,
    /// Its length is the room there is; bytes are read over bytes, so nothing is cleared beforehand.
    buffer: Vec<u8>,
    /// Where in the buffer the data begin and end.
    start: usize,
    end: usize,
    /// The offset of the data in the uncompressed file.
    offset: u64,
    /// Where the range ends, if it is one: as given, then as found.
    range_end: Option<u64>,
    owned_end: Option<u64>,
    is_at_end: bool,
    /// Line ends before `offset`, counted only where `counts_lines`.
    lines: u64,
    counts_lines: bool,
}

impl ChunkReader {
    /// The records from `offset` on, which is the first byte of a record.
    pub(crate) fn at(path: &Path, offset: u64, range_end: Option<u64>, counts_lines: bool) -> Result<ChunkReader> {
        let mut content = Content::open(path)?;
        let mut lines = 0;
        content.skip_to(offset, |passed| lines += memchr_iter(b'\n', passed).count() as u64)?;
        Ok(ChunkReader {
            content,
            buffer: SPARE.take(),
            start: 0,
            end: 0,
            offset,
            range_end,
            owned_end: range_end.filter(|&end| offset >= end).map(|_| offset),
            is_at_end: false,
            lines,
            counts_lines,
        })
    }

    /// The records whose first byte lies in this range of a plain file.
    pub(crate) fn of_range(path: &Path, start: u64, end: u64) -> Result<ChunkReader> {
        if start == 0 {
            return ChunkReader::at(path, 0, Some(end), false);
        }
        let mut chunk = ChunkReader::at(path, start - 1, None, false)?;
        loop {
            if let Some(line_end) = memchr(b'\n', chunk.data()) {
                chunk.consume(line_end + 1);
                break;
            }
            let bytes = chunk.data().len();
            chunk.consume(bytes);
            if chunk.fill()? == 0 {
                break;
            }
        }
        chunk.range_end = Some(end);
        chunk.owned_end = (chunk.offset >= end).then_some(chunk.offset);
        chunk.find_owned_end(chunk.offset);
        Ok(chunk)
    }

    /// What has been read, not used, and belongs to this range.
    pub(crate) fn data(&self) -> &[u8] {
        let available = &self.buffer[self.start..self.end];
        match self.owned_end {
            Some(end) => &available[..available.len().min((end - self.offset) as usize)],
            None => available,
        }
    }

    /// Whether the data are the last of the range.
    pub(crate) fn is_last(&self) -> bool {
        self.is_at_end || self.owned_end.is_some_and(|end| self.offset + (self.end - self.start) as u64 >= end)
    }

    /// Whether more should be read before records are made of the data.
    pub(crate) fn is_low(&self) -> bool {
        self.end - self.start < LOW_BYTES && !self.is_last()
    }

    /// The offset of the data in the uncompressed file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Line ends before the data; only if it counts them.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Marks the first bytes of the data as used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        if self.counts_lines {
            self.lines += memchr_iter(b'\n', &self.buffer[self.start..self.start + bytes]).count() as u64;
        }
        self.start += bytes;
        self.offset += bytes as u64;
    }

    /// Reads more; gives how many bytes came, 0 at the end of the file (for now).
    pub(crate) fn fill(&mut self) -> Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let filled = self.end;
        // A record longer than what is read at once doubles the reads, so that its bytes are not scanned too often.
        let mut wanted = filled + READ_BYTES.max(filled);
        if let Some(end) = self.range_end {
            // Behind the range only the rest of its last record is of interest.
            let left = end.saturating_sub(self.offset + filled as u64) as usize + BEYOND_BYTES.max(filled);
            wanted = wanted.min(filled + left);
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let bytes = self.content.read(&mut self.buffer[filled..wanted])?;
        self.end += bytes;
        self.find_owned_end(self.offset + filled as u64);
        Ok(bytes)
    }

    /// The file has ended, and will not grow.
    pub(crate) fn end(&mut self) {
        self.is_at_end = true;
    }

    /// Looks for the end of the range in what came from `from` on.
    fn find_owned_end(&mut self, from: u64) {
        let (Some(end), None) = (self.range_end, self.owned_end) else { return };
        let from = from.max(end - 1);
        let Some(at) = from.checked_sub(self.offset).map(|at| self.start + at as usize) else { return };
        if let Some(line_end) = self.buffer.get(at..self.end).and_then(|rest| memchr(b'\n', rest)) {
            self.owned_end = Some(from + line_end as u64 + 1);
        }
    }
}

impl Drop for ChunkReader {
    fn drop(&mut self) {
        if self.buffer.len() <= READ_BYTES + LOW_BYTES {
            // Where the thread is ending there is nobody to leave it to.
            let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.buffer)));
        }
    }
}
