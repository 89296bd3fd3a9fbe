//! Reads records that end with a line end, in whatever format, out of one split.

use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use memchr::memchr_iter;
use mill_protocol::{Error, Position, Read, Rejected, Result, Split, SplitReader};

use super::chunk::ChunkReader;
use super::content::{Compression, Content};
use super::follow::FollowedReader;
use super::identity::{FileIdentity, Since};
use super::pipe::PipeReader;
use super::input::try_open;
use super::position::{FilePosition, Member, PRINT_BYTES, Print};
use super::replaced::Replaced;
use super::split::{FileSet, FileSplit};
use super::stamp::{Stamp, open_failed};
use super::{BYTE_ORDER_MARK, RECORD_BYTES_MAX};

/// How much is read at once to count lines.
const COUNT_BYTES: usize = 256 << 10;

/// Makes records of bytes.
pub(crate) trait LineFormat: Send {
    /// Reads what comes before the first record (a header) from the start of the file; returns the offset of the first
    /// record, or `None` if that is not complete yet. An empty file has its first record at 0.
    fn prepare(&mut self, content: Content, is_followed: bool) -> Result<Option<u64>> {
        let _ = (content, is_followed);
        Ok(Some(0))
    }

    /// Makes at most `rows_max` records of complete records at the front of `data`; with `is_last` also of the rest.
    fn parse(&mut self, data: &[u8], is_last: bool, rows_max: usize) -> Result<Parsed>;

    /// Where in the data the last call of [`parse`](LineFormat::parse) has failed, and why, if the file goes no further than that.
    fn fault(&self) -> Option<(usize, &str)> {
        None
    }
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
        let file = FileSplit::of(split)?;
        if self.is_pipe() {
            return Ok(Box::new(PipeReader::new(format)?));
        }
        let position = position.map(|bytes| FilePosition::decode(bytes, &split.name)).transpose()?;
        if self.may_change() {
            return Ok(Box::new(FollowedReader::new(file, position, format, self)));
        }
        if position.is_none() && self.is_replaced(&file)? {
            return Ok(Box::new(Replaced));
        }
        let path = file.path;
        let opened = try_open(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::connector(format!(
                "{path:?} was there when the job listed its input and is gone; put it back and run the job again"
            )),
            _ => open_failed(&path, e),
        })?;
        let identity = FileIdentity::new(&path, opened);
        let Some(position) = position else {
            return Ok(Box::new(LineReader::of(path, identity, file.range, format)?));
        };
        match resume_chunk(&path, &identity, file.range, &position)? {
            Resumed::Chunk(chunk) => Ok(Box::new(LineReader::new(path, identity, *chunk, &position, format))),
            Resumed::Changed(since) => Err(since.refused(&path).unwrap_or_else(|| Error::internal("a file is the same and is not"))),
        }
    }
}

/// A file opened at a position.
pub(super) enum Resumed {
    Chunk(Box<ChunkReader>),
    /// It is not the file of the position any more.
    Changed(Since),
}

/// The rest of a file at a position, if it is still the file of that position.
pub(super) fn resume_chunk(
    path: &Path,
    identity: &FileIdentity,
    range: Option<(u64, u64)>,
    position: &FilePosition,
) -> Result<Resumed> {
    let is_compressed = Compression::of(path) != Compression::None;
    match identity.since(position, is_compressed)? {
        Since::Same => {}
        since => return Ok(Resumed::Changed(since)),
    }
    let range_end = range.map(|(_, end)| end).filter(|&end| end < u64::MAX);
    let chunk = ChunkReader::at(path, identity.shared(), position.member, position.offset, range_end)?;
    if is_compressed && Print::of(chunk.tail()) != position.tail {
        return Ok(Resumed::Changed(Since::Other));
    }
    Ok(Resumed::Chunk(Box::new(chunk)))
}

/// The result of reading a file.
pub(super) enum LineRead {
    Records(RecordBatch, Vec<Rejected>),
    /// All that there is has been read; the file may grow.
    Exhausted,
    End,
}

/// Reads a file as it is: what may become of one that is followed is not its concern.
pub(super) struct LineReader<F> {
    path: PathBuf,
    /// `None` while it is closed.
    identity: Option<FileIdentity>,
    chunk: ChunkReader,
    format: F,
    is_prepared: bool,
    /// Whether more may come at the end of the file.
    is_followed: bool,
    /// Whether nothing more was there when it was last looked for.
    is_exhausted: bool,
    /// The offset after a last record that had no line end.
    open_record: Option<u64>,
    /// The fingerprint of the head when it was closed.
    closed_head: Print,
    /// An offset, how many lines end before it, and of a compressed file what reads on from there.
    counted: (u64, u64, Option<Content>),
}

impl<F: LineFormat> LineReader<F> {
    /// Reads from the start.
    pub(super) fn of(path: PathBuf, identity: FileIdentity, range: Option<(u64, u64)>, format: F) -> Result<LineReader<F>> {
        let chunk = match range {
            Some((start, end)) => {
                ChunkReader::of_range(&path, identity.shared(), start, Some(end).filter(|&end| end < u64::MAX))?
            }
            None => ChunkReader::at(&path, identity.shared(), Member::default(), 0, None)?,
        };
        Ok(LineReader::new(path, identity, chunk, &FilePosition::default(), format))
    }

    /// Reads what a chunk has, which begins at this position.
    pub(super) fn new(
        path: PathBuf,
        identity: FileIdentity,
        chunk: ChunkReader,
        position: &FilePosition,
        format: F,
    ) -> LineReader<F> {
        LineReader {
            path,
            identity: Some(identity),
            chunk,
            format,
            is_prepared: false,
            is_followed: false,
            is_exhausted: false,
            open_record: position.has_open_record.then_some(position.offset),
            closed_head: Print::default(),
            counted: (0, 0, None),
        }
    }

    /// The same file, which may grow.
    pub(super) fn followed(mut self) -> LineReader<F> {
        self.is_followed = true;
        self.chunk.follow();
        self
    }

    /// Whether more may come.
    pub(super) fn is_following(&self) -> bool {
        self.is_followed
    }

    pub(super) fn chunk(&self) -> &ChunkReader {
        &self.chunk
    }

    pub(super) fn identity(&self) -> Option<&FileIdentity> {
        self.identity.as_ref()
    }

    /// Whether the head is as it was when this was last asked, as far as it had been read then.
    pub(super) fn has_same_head(&self) -> bool {
        let Some(identity) = &self.identity else { return true };
        let is_same = identity.has_same_head();
        identity.head(self.chunk.offset());
        is_same
    }

    /// Takes the fingerprint of the head as far as it has been read, so that it is known once the file has changed.
    pub(super) fn note_head(&self) {
        if let Some(identity) = &self.identity {
            identity.head(self.chunk.offset());
        }
    }

    /// Where it is in a copy of what the file was: nothing of the file as it is now is looked at.
    pub(super) fn position_in_copy(&self) -> FilePosition {
        let offset = self.chunk.offset();
        let head = self.identity.as_ref().map_or(self.closed_head, FileIdentity::known_head);
        FilePosition { offset, known: offset, head, tail: Print::of(self.chunk.tail()), ..FilePosition::default() }
    }

    pub(super) fn into_format(self) -> F {
        self.format
    }

    /// The file will not grow any more: what is left without a line end is its last record.
    pub(super) fn finish(&mut self) {
        self.is_followed = false;
        self.chunk.end();
    }

    /// Lets go of the file.
    pub(super) fn close(&mut self) {
        if let Some(identity) = self.identity.take() {
            self.closed_head = identity.head(self.chunk.offset());
        }
        self.chunk.close();
    }

    /// Takes it up again, under the name it has now.
    pub(super) fn reopen(&mut self, identity: FileIdentity) {
        self.chunk.reopen(identity.shared());
        self.identity = Some(identity.with_head(self.closed_head));
    }

    /// Passes the header and a byte order mark; whether records may be read.
    fn prepare(&mut self) -> Result<bool> {
        let content = match &self.identity {
            Some(identity) => Content::of(&self.path, Compression::of(&self.path), identity.shared(), Member::default()),
            None => return Ok(false),
        };
        let Some(first) = self.format.prepare(content, self.is_followed)? else { return Ok(false) };
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

    /// A record that was given without its line end must not have gone on since.
    fn close_record(&mut self) -> Result<()> {
        if self.open_record != Some(self.chunk.offset()) || self.chunk.data().is_empty() {
            return Ok(());
        }
        self.open_record = None;
        let line_end = [&b"\n"[..], b"\r\n"].into_iter().find(|line_end| self.chunk.data().starts_with(line_end));
        match line_end {
            Some(line_end) => self.chunk.consume(line_end.len()),
            None => {
                return Err(Error::connector(format!(
                    "the last record of {:?} had no line end when it was read, and has been added to since: what was read is \
                     not a record of the file any more; end the last line of a file before a job reads it",
                    self.path
                )));
            }
        }
        Ok(())
    }

    fn rejected(&mut self, bad: Vec<BadRecord>) -> Result<Vec<Rejected>> {
        let mut rejected = Vec::with_capacity(bad.len());
        for BadRecord { start, end, message } in bad {
            let line = match self.line_at(start)? {
                Some(lines) => format!(" line {}", lines + 1),
                None => String::new(),
            };
            let text = &self.chunk.data()[start..end];
            rejected.push(Rejected::new(format!("{:?}{line}: {message}", self.path), as_it_was(text)));
        }
        Ok(rejected)
    }

    /// The error of a format, with the number of the line where the format knows the place.
    fn with_line(&mut self, error: Error) -> Result<Error> {
        let Some((at, message)) = self.format.fault().map(|(at, message)| (at, message.to_owned())) else { return Ok(error) };
        let line = self.line_at(at)?;
        Ok(line.map_or(error, |lines| Error::data(format!("{:?} line {}: {message}", self.path, lines + 1))))
    }

    /// How many lines end before this byte of the data; `None` if the file is no longer there to count them.
    fn line_at(&mut self, at: usize) -> Result<Option<u64>> {
        let Some(identity) = &self.identity else { return Ok(None) };
        let target = self.chunk.offset() + at as u64;
        let (mut offset, mut lines, content) = std::mem::take(&mut self.counted);
        if offset > target {
            (offset, lines) = (0, 0);
        }
        let compression = Compression::of(&self.path);
        let mut content = match content.filter(|content| content.at() == offset) {
            Some(content) => content,
            None => {
                let mut content = Content::of(&self.path, compression, identity.shared(), Member::default());
                if compression == Compression::None {
                    content.seek_plain(offset);
                } else {
                    (offset, lines) = (0, 0);
                }
                content
            }
        };
        let mut scratch = vec![0; COUNT_BYTES.min((target - offset) as usize)];
        while offset < target {
            let wanted = scratch.len().min((target - offset) as usize);
            let bytes = content.read(&mut scratch[..wanted])?;
            if bytes == 0 {
                return Ok(None);
            }
            lines += memchr_iter(b'\n', &scratch[..bytes]).count() as u64;
            offset += bytes as u64;
        }
        self.counted = (offset, lines, (compression != Compression::None).then_some(content));
        Ok(Some(lines))
    }

    /// The next records.
    pub(super) fn read(&mut self, rows_max: usize) -> Result<LineRead> {
        if !self.is_prepared && !self.prepare()? {
            self.is_exhausted = true;
            return Ok(if self.is_followed { LineRead::Exhausted } else { LineRead::End });
        }
        loop {
            let mut is_exhausted = false;
            while self.chunk.is_low() && !is_exhausted {
                is_exhausted = self.chunk.fill()? == 0;
            }
            self.is_exhausted = is_exhausted || self.is_exhausted && self.chunk.is_last();
            if is_exhausted && !self.is_followed {
                self.chunk.end();
            }
            self.close_record()?;
            let is_last = self.chunk.is_last();
            let data = self.chunk.data();
            if !data.is_empty() {
                let parsed = match self.format.parse(data, is_last, rows_max.max(1)) {
                    Ok(parsed) => parsed,
                    Err(error) => return Err(self.with_line(error)?),
                };
                assert!(parsed.bytes <= data.len(), "used {} of {} bytes", parsed.bytes, data.len());
                if parsed.bytes > 0 {
                    let rejected = self.rejected(parsed.rejected)?;
                    self.chunk.consume(parsed.bytes);
                    if parsed.batch.num_rows() > 0 || !rejected.is_empty() {
                        return Ok(LineRead::Records(parsed.batch, rejected));
                    }
                    continue;
                }
            }
            if is_last {
                return Ok(LineRead::End);
            }
            if self.chunk.data().len() > RECORD_BYTES_MAX {
                let line = self.line_at(0)?.map_or(String::new(), |lines| format!(" line {}", lines + 1));
                return Err(Error::data(format!(
                    "{:?}{line}: the record is longer than {} MiB",
                    self.path,
                    RECORD_BYTES_MAX >> 20
                )));
            }
            if is_exhausted || self.chunk.fill()? == 0 {
                self.is_exhausted = true;
                if self.is_followed {
                    return Ok(LineRead::Exhausted);
                }
                self.chunk.end();
            }
        }
    }

    /// Where it is, in a file that was like this when it was last looked at.
    pub(super) fn file_position(&self, stamp: Stamp) -> FilePosition {
        let chunk = &self.chunk;
        let (offset, known, member) = (chunk.offset(), chunk.known(), chunk.member());
        let is_compressed = Compression::of(&self.path) != Compression::None;
        let is_at_end = self.is_exhausted && offset == known && !chunk.is_cut();
        let mut stamp = self.identity.as_ref().and_then(|identity| identity.stamp().ok()).unwrap_or(stamp);
        if is_at_end {
            // What has come since the end was seen is not known of.
            stamp.size = chunk.disk_end();
        }
        let disk = member.disk.min(PRINT_BYTES as u64) as u32;
        let print = |print: Option<Print>, bytes: u32| print.unwrap_or(Print { bytes, hash: 0 });
        let (head, disk) = match &self.identity {
            Some(identity) => {
                let head = identity.head(if is_compressed { stamp.size } else { offset });
                (head, print(identity.print(member.disk - u64::from(disk), disk), disk))
            }
            None => (self.closed_head, Print::default()),
        };
        FilePosition {
            offset,
            known,
            is_at_end,
            has_open_record: is_at_end && offset > 0 && chunk.last_byte().map_or(self.open_record == Some(offset), |last| last != b'\n'),
            stamp,
            member,
            head,
            disk,
            tail: Print::of(chunk.tail()),
        }
    }
}

/// A malformed record as text; bytes that are not UTF-8 become `\xff`.
pub(super) fn as_it_was(record: &[u8]) -> String {
    let mut text = String::with_capacity(record.len());
    for chunk in record.utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

impl<F: LineFormat> SplitReader for LineReader<F> {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        match self.read(rows_max)? {
            LineRead::Records(batch, rejected) if rejected.is_empty() => Ok(Read::Batch(batch)),
            LineRead::Records(batch, rejected) => Ok(Read::Partial(batch, rejected)),
            LineRead::Exhausted | LineRead::End => Ok(Read::End),
        }
    }

    fn position(&self) -> Position {
        self.file_position(Stamp::default()).encode()
    }
}
