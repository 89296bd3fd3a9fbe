//! Reads records that end with a line end, in whatever format, out of one split.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use memchr::memchr_iter;
use mill_protocol::{Error, Position, Read, Rejected, Result, Split, SplitReader};

use super::chunk::ChunkReader;
use super::content::Compression;
use super::identity::{FileIdentity, FilePosition};
use super::split::{FileSet, FileSplit};
use super::{BYTE_ORDER_MARK, RECORD_BYTES_MAX};

/// How long a followed file that has not grown is left alone, and how long one that has not for a while.
const FOLLOW_WAIT: Duration = Duration::from_millis(20);
const QUIET_WAIT: Duration = Duration::from_millis(100);
/// After this many looks in vain a file counts as quiet.
const QUIET_LOOKS: u32 = 250;
/// How much of a malformed record is shown.
const RECORD_CHARS_MAX: usize = 1000;
/// How much is read at once to count lines.
const COUNT_BYTES: usize = 256 << 10;

/// Makes records of bytes.
pub(crate) trait LineFormat: Send {
    /// Reads what stands before the first record (a header); gives the offset of the first record, or `None` if that
    /// is not complete yet. An empty file has its first record at 0.
    fn prepare(&mut self, path: &Path, is_followed: bool) -> Result<Option<u64>> {
        let _ = (path, is_followed);
        Ok(Some(0))
    }

    /// Makes at most `rows_max` records of complete records at the front of `data`; with `is_last` also of the rest.
    fn parse(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed>;
}

/// What a format made of bytes.
pub(crate) struct Parsed {
    /// How many bytes it used; 0 if there is no complete record.
    pub(crate) bytes: usize,
    pub(crate) batch: RecordBatch,
    pub(crate) rejected: Vec<BadRecord>,
}

/// Bytes that are no record.
pub(crate) struct BadRecord {
    /// Where in the data it begins.
    pub(crate) start: usize,
    /// Where it ends, without its line end.
    pub(crate) end: usize,
    pub(crate) message: String,
}

impl FileSet {
    /// Opens a split of these files.
    pub(crate) fn open<F: LineFormat + 'static>(
        &self,
        split: &Split,
        position: Option<&[u8]>,
        format: F,
    ) -> Result<Box<dyn SplitReader>> {
        let FileSplit { path, range } = FileSplit::of(split);
        let identity = FileIdentity::open(&path)?;
        let counts_lines = Compression::of(&path) != Compression::None;
        let range_end = range.map(|(_, end)| end);
        let chunk = match (position, range) {
            (Some(position), _) => {
                let position = FilePosition::decode(position, &split.name)?;
                identity.verify(&position)?;
                ChunkReader::at(&path, position.offset, range_end, counts_lines)?
            }
            (None, Some((start, end))) => ChunkReader::of_range(&path, start, end)?,
            (None, None) => ChunkReader::at(&path, 0, None, counts_lines)?,
        };
        Ok(Box::new(LineReader {
            path,
            identity,
            chunk,
            format,
            is_prepared: false,
            looks: 0,
            is_followed: self.is_followed && !counts_lines,
            counts_lines,
            counted: (0, 0),
        }))
    }
}

struct LineReader<F> {
    path: PathBuf,
    identity: FileIdentity,
    chunk: ChunkReader,
    format: F,
    is_prepared: bool,
    /// How often it was looked for more in vain, since there was any.
    looks: u32,
    /// Whether the file may grow; compressed files are taken as complete.
    is_followed: bool,
    /// Whether the chunk counts lines as it goes; else they are counted when a number is asked for.
    counts_lines: bool,
    /// An offset, and how many lines end before it.
    counted: (u64, u64),
}

impl<F: LineFormat> LineReader<F> {
    /// Passes the header and a byte order mark; whether records may be read.
    fn prepare(&mut self) -> Result<bool> {
        let Some(first) = self.format.prepare(&self.path, self.is_followed)? else { return Ok(false) };
        if first > self.chunk.offset() {
            let mut left = (first - self.chunk.offset()) as usize;
            while left > 0 {
                let bytes = self.chunk.data().len().min(left);
                self.chunk.consume(bytes);
                left -= bytes;
                if left > 0 && self.chunk.fill()? == 0 {
                    return Ok(false);
                }
            }
        }
        if self.chunk.offset() == 0 {
            while self.chunk.data().len() < BYTE_ORDER_MARK.len() && self.chunk.fill()? > 0 {}
            if self.chunk.data().starts_with(BYTE_ORDER_MARK) {
                self.chunk.consume(BYTE_ORDER_MARK.len());
            } else if self.is_followed && BYTE_ORDER_MARK.starts_with(self.chunk.data()) {
                return Ok(false);
            }
        }
        self.is_prepared = true;
        Ok(true)
    }

    /// Nothing now: the file must still be the same, and is looked at again later.
    fn wait(&mut self) -> Result<Read> {
        self.identity.verify_followed(self.chunk.offset())?;
        self.looks = self.looks.saturating_add(1);
        Ok(Read::Pending(if self.looks < QUIET_LOOKS { FOLLOW_WAIT } else { QUIET_WAIT }))
    }

    fn rejected(&mut self, bad: Vec<BadRecord>) -> Result<Vec<Rejected>> {
        let mut rejected = Vec::with_capacity(bad.len());
        for BadRecord { start, end, message } in bad {
            let line = self.line_at(start)? + 1;
            let text = &self.chunk.data()[start..end];
            let text = &text[..text.len().min(4 * RECORD_CHARS_MAX)];
            let record: String = String::from_utf8_lossy(text).chars().take(RECORD_CHARS_MAX).collect();
            rejected.push(Rejected::new(format!("{:?} line {line}: {message}", self.path), record));
        }
        Ok(rejected)
    }

    /// How many lines end before this byte of the data.
    fn line_at(&mut self, at: usize) -> Result<u64> {
        let before = |data: &[u8]| memchr_iter(b'\n', data).count() as u64;
        if self.counts_lines {
            return Ok(self.chunk.lines() + before(&self.chunk.data()[..at]));
        }
        let (mut offset, mut lines) = self.counted;
        let target = self.chunk.offset() + at as u64;
        let mut scratch = vec![0; COUNT_BYTES.min((target - offset) as usize)];
        while offset < target {
            let bytes = scratch.len().min((target - offset) as usize);
            self.identity.read_at(&mut scratch[..bytes], offset)?;
            lines += before(&scratch[..bytes]);
            offset += bytes as u64;
        }
        self.counted = (offset, lines);
        Ok(lines)
    }
}

impl<F: LineFormat> SplitReader for LineReader<F> {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if !self.is_prepared && !self.prepare()? {
            if !self.is_followed {
                return Ok(Read::End);
            }
            return self.wait();
        }
        loop {
            let mut is_exhausted = false;
            while self.chunk.is_low() && !is_exhausted {
                is_exhausted = self.chunk.fill()? == 0;
            }
            if is_exhausted && !self.is_followed {
                self.chunk.end();
            }
            let is_last = self.chunk.is_last();
            let data = self.chunk.data();
            if !data.is_empty() {
                let parsed = self.format.parse(data, is_last, rows_max.max(1))?;
                assert!(parsed.bytes <= data.len(), "used {} of {} bytes", parsed.bytes, data.len());
                if parsed.bytes > 0 {
                    let rejected = self.rejected(parsed.rejected)?;
                    self.chunk.consume(parsed.bytes);
                    self.looks = 0;
                    if !rejected.is_empty() {
                        return Ok(Read::Partial(parsed.batch, rejected));
                    }
                    if parsed.batch.num_rows() > 0 {
                        return Ok(Read::Batch(parsed.batch));
                    }
                    continue;
                }
            }
            if is_last {
                return Ok(Read::End);
            }
            if self.chunk.data().len() > RECORD_BYTES_MAX {
                let line = self.line_at(0)? + 1;
                return Err(Error::data(format!(
                    "{:?} line {line}: the record is longer than {} MiB",
                    self.path,
                    RECORD_BYTES_MAX >> 20
                )));
            }
            if is_exhausted || self.chunk.fill()? == 0 {
                if !self.is_followed {
                    self.chunk.end();
                    continue;
                }
                return self.wait();
            }
        }
    }

    fn position(&self) -> Position {
        self.identity.position(self.chunk.offset()).encode()
    }
}
