//! Standard input: bytes that can be read once, as they arrive.
//!
//! ```text
//!   fd 0 ──look──► held: what the reader has looked at for the columns, while the plan is declared
//!                    │ take, once, when the job begins
//!                    ▼
//!                  PipeReader: held bytes, then what poll() says is there ──► LineFormat ──► Read
//! ```
//!
//! What has been looked at is kept for the job that reads it, whichever stream that is of. No wait is longer than
//! [`POLL_MILLIS`], so a job ends when it is stopped. What was read cannot be read again, so a position has no meaning.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mill_protocol::{Error, Position, Read, Rejected, Result, SplitReader};

use super::content::Content;
use super::reader::{LineFormat, as_it_was};
use super::{BYTE_ORDER_MARK, RECORD_BYTES_MAX};

/// The name that it has where files have a path. Those are absolute.
pub(crate) const STANDARD_INPUT: &str = "standard input";
/// What users write for it.
pub(crate) const DASH: &str = "-";
/// How much is read at once.
const READ_BYTES: usize = 256 << 10;
/// How long a reader waits for bytes before it looks whether the job has ended.
const POLL_MILLIS: i32 = 100;
/// How long more is waited for, once what has come is enough to find the columns.
const QUIET_MILLIS: i32 = 50;

/// What has been read of it and not been taken.
static PIPE: Mutex<State> = Mutex::new(State { held: Vec::new(), is_at_end: false, is_taken: false });

struct State {
    held: Vec<u8>,
    is_at_end: bool,
    is_taken: bool,
}

fn state() -> MutexGuard<'static, State> {
    PIPE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this is the name of standard input.
pub(crate) fn is_pipe(path: &Path) -> bool {
    path.as_os_str() == STANDARD_INPUT
}

/// The first bytes, and whether they are all: enough of them, and then what has come by then, up to `bytes`. They are not used
/// up.
///
/// # Errors
/// When standard input cannot be read, or was read before.
pub(crate) fn look(bytes: usize, is_enough: impl Fn(&[u8]) -> bool) -> Result<(Vec<u8>, bool)> {
    let mut state = state();
    if state.is_taken {
        return Err(read_before());
    }
    let mut input = None;
    while !state.is_at_end && state.held.len() < RECORD_BYTES_MAX {
        let has_enough = is_enough(&state.held);
        if has_enough && state.held.len() >= bytes {
            break;
        }
        let input = match &mut input {
            Some(input) => input,
            None => input.insert(open()?),
        };
        if !is_ready(input, if has_enough { QUIET_MILLIS } else { -1 })? {
            break;
        }
        let State { held, is_at_end, .. } = &mut *state;
        *is_at_end = read(input, held)? == 0;
    }
    refuse_compressed(&state.held)?;
    Ok((state.held.clone(), state.is_at_end))
}

/// The first lines, for whoever looks into a file before it is read.
pub(super) fn content() -> Result<Content> {
    const LINES_BYTES: usize = 4 << 10;
    let (bytes, is_whole) = look(1, |data| data.contains(&b'\n') || data.len() >= LINES_BYTES)?;
    Ok(Content::held(Path::new(STANDARD_INPUT), bytes, is_whole))
}

fn read_before() -> Error {
    Error::connector(
        "standard input was read before, and can be read once: use branch(), or one stream several times within one job, \
         or write it into a file first",
    )
}

/// What some programs compress files as a whole with begins with, and what undoes it.
const COMPRESSED: [(&[u8], &str, &str); 4] = [
    (&[0x1f, 0x8b], "gzip", "gunzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "Zstandard", "zstd -d"),
    (b"BZh", "bzip2", "bunzip2"),
    (&[0xfd, b'7', b'z', b'X', b'Z'], "xz", "unxz"),
];

fn refuse_compressed(data: &[u8]) -> Result<()> {
    match COMPRESSED.iter().find(|(begin, _, _)| data.starts_with(begin)) {
        None => Ok(()),
        Some((_, kind, command)) => {
            Err(Error::connector(format!("standard input is compressed with {kind}: decompress it before, as in {command} < file | …")))
        }
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::connector(format!("cannot read standard input: {e}")).because(e)
}

fn open() -> Result<File> {
    std::io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(failed)
}

/// Whether there is something to read, or the end, after at most so many milliseconds; of -1, after however long.
fn is_ready(input: &File, millis: i32) -> Result<bool> {
    let mut wanted = libc::pollfd { fd: input.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `wanted` is one valid entry, which lives as long as the call, and the count says so.
    let ready = unsafe { libc::poll(&raw mut wanted, 1, millis) };
    match ready {
        0 => Ok(false),
        1.. => Ok(true),
        _ => {
            let error = std::io::Error::last_os_error();
            match error.kind() {
                // Of a signal, whoever waits for long is to hear.
                ErrorKind::Interrupted if millis >= 0 => Ok(false),
                _ => Err(failed(error)),
            }
        }
    }
}

/// Appends what is there; returns how many bytes came.
fn read(input: &mut File, data: &mut Vec<u8>) -> Result<usize> {
    let before = data.len();
    data.resize(before + READ_BYTES, 0);
    let bytes = loop {
        match input.read(&mut data[before..]) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    data.truncate(before + *bytes.as_ref().unwrap_or(&0));
    bytes.map_err(failed)
}

/// The bytes of standard input, for the one who reads them.
pub(crate) struct PipeBytes {
    input: File,
    data: Vec<u8>,
    /// How many of the data have been used.
    used: usize,
    is_at_end: bool,
    is_checked: bool,
}

impl PipeBytes {
    /// Takes it, with what was looked at.
    ///
    /// # Errors
    /// When it was taken before.
    pub(crate) fn take() -> Result<PipeBytes> {
        let mut state = state();
        if std::mem::replace(&mut state.is_taken, true) {
            return Err(read_before());
        }
        let (data, is_at_end) = (std::mem::take(&mut state.held), state.is_at_end);
        Ok(PipeBytes { input: open()?, data, used: 0, is_at_end, is_checked: false })
    }

    /// What has come and was not used.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data[self.used..]
    }

    /// Whether nothing follows the data.
    pub(crate) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.used += bytes;
        assert!(self.used <= self.data.len(), "used {} of {} bytes", self.used, self.data.len());
    }

    /// Waits a short while for more; whether more has come, or the end.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        if self.is_at_end || !is_ready(&self.input, POLL_MILLIS)? {
            return Ok(false);
        }
        self.data.drain(..std::mem::take(&mut self.used));
        self.is_at_end = read(&mut self.input, &mut self.data)? == 0;
        const KIND_BYTES: usize = 8;
        if !self.is_checked && (self.data.len() >= KIND_BYTES || self.is_at_end) {
            self.is_checked = true;
            refuse_compressed(&self.data)?;
        }
        Ok(true)
    }
}

/// Reads lines of standard input.
pub(super) struct PipeReader<F> {
    bytes: PipeBytes,
    format: F,
    is_prepared: bool,
    /// How many lines end before the data.
    lines: u64,
}

impl<F: LineFormat> PipeReader<F> {
    pub(super) fn new(format: F) -> Result<PipeReader<F>> {
        Ok(PipeReader { bytes: PipeBytes::take()?, format, is_prepared: false, lines: 0 })
    }

    fn consume(&mut self, bytes: usize) {
        self.lines += memchr::memchr_iter(b'\n', &self.bytes.data()[..bytes]).count() as u64;
        self.bytes.consume(bytes);
    }

    /// Passes the header and a byte order mark; whether records may be read.
    fn prepare(&mut self) -> Result<bool> {
        let (data, is_at_end) = (self.bytes.data(), self.bytes.is_at_end());
        if !is_at_end && !data.contains(&b'\n') && data.len() < READ_BYTES {
            return Ok(false);
        }
        let content = Content::held(Path::new(STANDARD_INPUT), data.to_vec(), is_at_end);
        let Some(first) = self.format.prepare(content, !is_at_end)? else {
            self.is_prepared = is_at_end;
            return Ok(is_at_end);
        };
        let has_mark = first == 0 && data.starts_with(BYTE_ORDER_MARK);
        self.consume(if has_mark { BYTE_ORDER_MARK.len() } else { first as usize });
        self.is_prepared = true;
        Ok(true)
    }
}

impl<F: LineFormat> SplitReader for PipeReader<F> {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        loop {
            if !self.is_prepared && !self.prepare()? {
                match self.bytes.fill()? {
                    true => continue,
                    false => return Ok(Read::Pending(Duration::ZERO)),
                }
            }
            let (data, is_last) = (self.bytes.data(), self.bytes.is_at_end());
            if !data.is_empty() {
                let parsed = self.format.parse(data, is_last, rows_max.max(1)).map_err(|error| match self.format.fault() {
                    Some((at, message)) => {
                        let line = self.lines + memchr::memchr_iter(b'\n', &data[..at]).count() as u64 + 1;
                        Error::data(format!("{STANDARD_INPUT} line {line}: {message}"))
                    }
                    None => error,
                })?;
                let mut rejected = Vec::with_capacity(parsed.rejected.len());
                for bad in parsed.rejected {
                    let line = self.lines + memchr::memchr_iter(b'\n', &data[..bad.start]).count() as u64 + 1;
                    rejected.push(Rejected::new(format!("{STANDARD_INPUT} line {line}: {}", bad.message), as_it_was(&data[bad.start..bad.end])));
                }
                if parsed.bytes > 0 {
                    self.consume(parsed.bytes);
                    match (parsed.batch.num_rows(), rejected.is_empty()) {
                        (0, true) => continue,
                        (_, true) => return Ok(Read::Batch(parsed.batch)),
                        _ => return Ok(Read::Partial(parsed.batch, rejected)),
                    }
                }
            }
            if is_last {
                return Ok(Read::End);
            }
            if self.bytes.data().len() > RECORD_BYTES_MAX {
                return Err(Error::data(format!(
                    "{STANDARD_INPUT} line {}: the record is longer than {} MiB",
                    self.lines + 1,
                    RECORD_BYTES_MAX >> 20
                )));
            }
            if !self.bytes.fill()? {
                return Ok(Read::Pending(Duration::ZERO));
            }
        }
    }

    fn position(&self) -> Position {
        Position::new()
    }
}
