//! The bytes of one range of a file, as far as they have been read and not been used.
//!
//! ```text
//!   file     ….\n|aaaa\nbb|bb\ncc…            | range borders: a record belongs to the range of its first byte
//!                 └─ first byte after the      so the range begins after the first line end at or after start-1,
//!                    line end                  and ends after the first line end at or after end-1
//!
//!   buffer   [ used | data … | free ]          data() is what is left, cut at the end of the range
//!              └ of what was used, the last bytes are kept: they are how a position is known again
//!
//! A file that is followed may be cut off or rewritten at any time. So every read of one begins with bytes that were read
//! before: if these have changed, so has the file, and nothing of it is taken.
//! ```

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::Path;

use memchr::memchr;
use mill_protocol::{Error, Result};

use super::content::{Compression, Content};
use super::input::Input;
use super::position::{Member, PRINT_BYTES};
use super::stamp::open_file;

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
    /// Where in the buffer the data begin and end. What is before them was used.
    start: usize,
    end: usize,
    /// The offset of the data in the uncompressed file.
    offset: u64,
    /// Where the range ends, if it is one: as given, then as found.
    range_end: Option<u64>,
    owned_end: Option<u64>,
    is_at_end: bool,
    /// Of a compressed file: the members that the data come from, the one of `offset` first.
    members: VecDeque<Member>,
    /// Whether each read begins with bytes read before, and whether these were found changed.
    is_checked: bool,
    is_changed: bool,
}

impl ChunkReader {
    /// The records from `offset` on, which is the first byte of a record and at or after the start of `member`.
    pub(crate) fn at(
        path: &Path,
        file: Input,
        member: Member,
        offset: u64,
        range_end: Option<u64>,
    ) -> Result<ChunkReader> {
        let compression = Compression::of(path);
        let mut content = Content::of(path, compression, file, member);
        let begin = match compression {
            Compression::None => offset.saturating_sub(PRINT_BYTES as u64),
            _ => member.content,
        };
        if compression == Compression::None {
            content.seek_plain(begin);
        }
        let mut chunk = ChunkReader {
            content,
            buffer: SPARE.take(),
            start: 0,
            end: 0,
            offset: begin,
            range_end: None,
            owned_end: None,
            is_at_end: false,
            members: VecDeque::new(),
            is_checked: false,
            is_changed: false,
        };
        while chunk.offset < offset {
            if chunk.data().is_empty() && chunk.fill()? == 0 {
                return Err(Error::connector(format!(
                    "{path:?} is shorter than when the checkpoint was taken; put the former file back, or start with \
                     another checkpoint directory"
                )));
            }
            let bytes = chunk.data().len().min(usize::try_from(offset - chunk.offset).unwrap_or(usize::MAX));
            chunk.consume(bytes);
        }
        chunk.set_range_end(range_end);
        Ok(chunk)
    }

    /// The records whose first byte is in this range of a plain file.
    pub(crate) fn of_range(path: &Path, file: Input, start: u64, end: Option<u64>) -> Result<ChunkReader> {
        let mut chunk = ChunkReader::at(path, file, Member::default(), start.saturating_sub(1), None)?;
        if start > 0 {
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
        }
        chunk.set_range_end(end);
        Ok(chunk)
    }

    /// The same of the file at this path.
    pub(crate) fn of_range_at(path: &Path, start: u64, end: u64) -> Result<ChunkReader> {
        ChunkReader::of_range(path, open_file(path)?, start, Some(end))
    }

    fn set_range_end(&mut self, end: Option<u64>) {
        self.range_end = end;
        self.owned_end = end.filter(|&end| self.offset >= end).map(|_| self.offset);
        self.find_owned_end(self.offset);
    }

    /// From now on looks whether the file was changed, or written to the middle of a compressed member.
    pub(crate) fn follow(&mut self) {
        self.is_checked = Compression::of(self.content.path()) == Compression::None;
        self.content.allow_cut();
    }

    /// Whether bytes that were read have changed since.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Whether a compressed file has ended within a member.
    pub(crate) fn is_cut(&self) -> bool {
        self.content.is_cut()
    }

    /// The error for that.
    pub(crate) fn cut_error(&self) -> Error {
        self.content.cut_error()
    }

    /// Lets go of the file, which is plain, and of the room for data that are not there.
    pub(crate) fn close(&mut self) {
        let from = self.start.saturating_sub(PRINT_BYTES);
        self.buffer = self.buffer[from..self.end].to_vec();
        self.start -= from;
        self.end -= from;
        self.content.close();
    }

    /// Takes the file up again.
    pub(crate) fn reopen(&mut self, file: Input) {
        self.content.reopen(file);
    }

    /// What has been read, not used, and belongs to this range.
    pub(crate) fn data(&self) -> &[u8] {
        let available = &self.buffer[self.start..self.end];
        match self.owned_end {
            Some(end) => &available[..available.len().min((end - self.offset) as usize)],
            None => available,
        }
    }

    /// The last bytes before the data, as far as they are in the same member.
    pub(crate) fn tail(&self) -> &[u8] {
        let in_member = self.offset - self.member().content;
        let bytes = self.start.min(PRINT_BYTES).min(usize::try_from(in_member).unwrap_or(usize::MAX));
        &self.buffer[self.start - bytes..self.start]
    }

    /// The byte before the data, if it is still there.
    pub(crate) fn last_byte(&self) -> Option<u8> {
        self.start.checked_sub(1).map(|at| self.buffer[at])
    }

    /// The member that the offset is in.
    pub(crate) fn member(&self) -> Member {
        self.members.front().copied().unwrap_or_default()
    }

    /// Whether the data are the last of the range.
    pub(crate) fn is_last(&self) -> bool {
        self.is_at_end || self.owned_end.is_some_and(|end| self.known() >= end)
    }

    /// Whether more should be read before records are made of the data.
    pub(crate) fn is_low(&self) -> bool {
        self.end - self.start < LOW_BYTES && !self.is_last()
    }

    /// The offset of the data in the uncompressed file.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The offset of what has not been read.
    pub(crate) fn known(&self) -> u64 {
        self.offset + (self.end - self.start) as u64
    }

    /// Up to where the file on disk has been read, once its end was seen.
    pub(crate) fn disk_end(&self) -> u64 {
        if Compression::of(self.content.path()) == Compression::None { self.known() } else { self.content.disk_end() }
    }

    /// Marks the first bytes of the data as used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
        while self.members.get(1).is_some_and(|member| member.content <= self.offset) {
            self.members.pop_front();
        }
    }

    /// Reads more; returns how many bytes came, 0 at the end of the file (for now), or if it was changed.
    pub(crate) fn fill(&mut self) -> Result<usize> {
        let dropped = self.start.saturating_sub(PRINT_BYTES);
        if dropped > 0 {
            self.buffer.copy_within(dropped..self.end, 0);
            self.end -= dropped;
            self.start -= dropped;
        }
        let held = self.end - self.start;
        // A record longer than what is read at once doubles the reads, so that its bytes are not scanned too often.
        let mut more = READ_BYTES.max(held);
        if let Some(end) = self.range_end {
            // After the range only the rest of its last record is of interest.
            let left = usize::try_from(end.saturating_sub(self.known())).unwrap_or(usize::MAX);
            more = more.min(left.saturating_add(BEYOND_BYTES.max(held)));
        }
        let wanted = self.end + more;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let known = self.known();
        let bytes = if self.is_checked { self.read_checked(wanted)? } else { self.content.read(&mut self.buffer[self.end..wanted])? };
        self.end += bytes;
        if bytes > 0 && self.members.back() != Some(&self.content.member()) {
            self.members.push_back(self.content.member());
        }
        self.find_owned_end(known);
        Ok(bytes)
    }

    /// Reads up to `wanted` with the bytes before once more.
    fn read_checked(&mut self, wanted: usize) -> Result<usize> {
        let overlap = self.end.min(PRINT_BYTES);
        let from = self.end - overlap;
        let mut before = [0; PRINT_BYTES];
        before[..overlap].copy_from_slice(&self.buffer[from..self.end]);
        let offset = self.known();
        let bytes = self.content.read_plain_at(&mut self.buffer[from..wanted], offset - overlap as u64)?;
        if bytes < overlap || self.buffer[from..self.end] != before[..overlap] {
            self.buffer[from..self.end].copy_from_slice(&before[..overlap]);
            self.is_changed = true;
            return Ok(0);
        }
        self.content.seek_plain(offset + (bytes - overlap) as u64);
        Ok(bytes - overlap)
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
