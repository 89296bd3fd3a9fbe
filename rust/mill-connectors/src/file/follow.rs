//! Reads a file that is followed: one that grows, is renamed, cut off, written anew or deleted while it is read.
//!
//! ```text
//!   what is found at the end of the file                    what follows
//!   the file under its name, or renamed in its directory    wait; ask again soon, later if it stays quiet
//!   bytes that were read have changed                       it was truncated: it is read from its start
//!   no file                                                 it was deleted or moved away: the split ends
//!   renamed, and nothing came for some time                 a rotation is over: the split ends
//!   a compressed file, between two members                  the split ends; opened again when the file has grown
//! ```
//!
//! A file that is truncated before all of it was read has lost the rest. If a copy of it is among the followed files, the rest is
//! read from there ([`copies`](super::copies)); otherwise the reader reports how many bytes were seen and not read. What was written
//! after the last look and before the truncation, nobody knows of. The same holds for a file that was truncated while no job ran.
//!
//! There may be more files than descriptors: a plain file is closed between two calls unless one of a few slots is free, and
//! a quiet one always. A compressed file waits for a slot, since to open it again is to decompress it again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mill_protocol::{Error, Position, Read, Result, SplitReader, Truncation};

use super::content::Compression;
use super::copies::{Copies, RotatedCopy, Start, Suspect};
use super::identity::FileIdentity;
use super::input::try_open;
use super::position::FilePosition;
use super::reader::{LineFormat, LineRead, LineReader, Resumed, resume_chunk};
use super::slots::{Slot, Slots};
use super::split::{FileSet, FileSplit};
use super::stamp::{FileKey, Stamp, open_failed};
use super::whereabouts::{self, Whereabouts};

/// How long a file that has not grown is left alone, and how much longer after each look in vain.
const FOLLOW_WAIT: Duration = Duration::from_millis(20);
const FOLLOW_WAIT_MORE: Duration = Duration::from_millis(4);
/// After this many looks in vain, which take about five seconds, a file counts as quiet.
const QUIET_LOOKS: u32 = 45;
/// How long a quiet one is left alone, unless it is found to have grown when the files are listed.
const QUIET_WAIT: Duration = Duration::from_secs(10);

/// Reads one followed file of lines.
pub(super) struct FollowedReader<F> {
    path: PathBuf,
    key: Option<FileKey>,
    is_compressed: bool,
    state: State<F>,
    slots: Arc<Slots>,
    slot: Option<Slot>,
    copies: Arc<Copies>,
    /// Whether it is known where to start: a new file may be a copy.
    is_begun: bool,
    suspect: Option<Suspect>,
    /// The largest size that was seen since it was last read from its start, and the largest with which it was found to have the same
    /// content as before.
    size_seen: u64,
    size_known: u64,
    /// To be reported before anything else.
    truncation: Option<Truncation>,
    /// The file before it was last read. Later it may be another already without that having been read.
    stamp: Stamp,
    /// The time of change at which its head was last compared.
    head_at: i64,
    /// The size at which a compressed file was found to end within a member.
    cut_at: Option<u64>,
    /// How often it was looked for more in vain, since there was any.
    looks: u32,
    is_renamed: bool,
}

enum State<F> {
    /// Not opened; to be read from this position.
    Unopened(F, Option<FilePosition>),
    Open(Box<LineReader<F>>),
    /// Read to its end, or gone.
    Over(Option<FilePosition>),
}

impl<F: LineFormat> FollowedReader<F> {
    pub(super) fn new(file: FileSplit, position: Option<FilePosition>, format: F, files: &FileSet) -> FollowedReader<F> {
        FollowedReader {
            is_compressed: Compression::of(&file.path) != Compression::None,
            path: file.path,
            key: file.key,
            state: State::Unopened(format, position),
            slots: Arc::clone(&files.slots),
            slot: None,
            copies: Arc::clone(&files.copies),
            is_begun: position.is_some_and(|position| position.offset > 0 || position.is_at_end),
            suspect: None,
            size_seen: 0,
            size_known: 0,
            truncation: None,
            stamp: Stamp::default(),
            head_at: 0,
            cut_at: None,
            looks: 0,
            is_renamed: false,
        }
    }

    /// Opens the file; whether it can be read now.
    fn open(&mut self) -> Result<bool> {
        if self.slot.is_none() {
            self.slot = self.slots.try_take();
        }
        if self.is_compressed && self.slot.is_none() {
            return Ok(false);
        }
        let identity = self.find()?;
        let mut start = None;
        if let Some(identity) = identity.as_ref().filter(|_| !self.is_begun && !self.is_compressed) {
            match self.copies.start(&self.path, identity, &mut self.suspect) {
                Start::First => {}
                Start::At(position) => start = Some(position),
                Start::NotYet => {
                    self.slot = None;
                    return Ok(false);
                }
            }
        }
        self.is_begun = true;
        let (format, position) = match std::mem::replace(&mut self.state, State::Over(None)) {
            State::Unopened(format, position) => (format, start.or(position)),
            other => {
                self.state = other;
                return Ok(true);
            }
        };
        let Some(identity) = identity else {
            if let Some(position) = position.filter(|position| !position.is_at_end && position.offset > 0) {
                return Err(self.half_read(&position));
            }
            self.state = State::Over(position);
            return Ok(true);
        };
        self.see(identity.stamp()?);
        let reader = match position {
            None => LineReader::of(self.path.clone(), identity, None, format)?,
            Some(position) => match resume_chunk(&self.path, &identity, None, &position)? {
                Resumed::Chunk(chunk) => LineReader::new(self.path.clone(), identity, *chunk, &position, format),
                Resumed::Changed(_) => {
                    let seen = if self.is_compressed { position.known } else { position.stamp.size.max(position.known) };
                    self.was_truncated(&position, position.offset, seen);
                    LineReader::of(self.path.clone(), identity, None, format)?
                }
            },
        };
        self.state = State::Open(Box::new(reader.followed()));
        Ok(true)
    }

    fn half_read(&self, position: &FilePosition) -> Error {
        Error::connector(format!(
            "the checkpoint is in the middle of {:?} ({} of at least {} bytes were read), which is gone; put the former file \
             back, or start with another checkpoint directory",
            self.path, position.offset, position.known
        ))
    }

    /// Opens the file under the name it has now; `None` if it is gone.
    fn find(&mut self) -> Result<Option<FileIdentity>> {
        if let Some(key) = self.key {
            match whereabouts::look(&self.path, key) {
                Whereabouts::Here(_) => {}
                Whereabouts::Renamed(path, _) => self.renamed(path),
                Whereabouts::Gone => return Ok(None),
            }
        }
        let path = &self.path;
        let file = match try_open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(open_failed(path, e)),
        };
        let identity = FileIdentity::new(path, file);
        // It may have been renamed in between: then it is looked for again at the next call.
        let is_other = self.key.is_some_and(|key| identity.stamp().is_ok_and(|stamp| stamp.key != key));
        if is_other { self.find() } else { Ok(Some(identity)) }
    }

    /// Takes note of what the file is now.
    fn see(&mut self, stamp: Stamp) {
        self.stamp = stamp;
        self.size_seen = self.size_seen.max(stamp.size);
    }

    /// Reports that the file was truncated after `read` of the `seen` bytes had been read, and looks for its copy, whose reader reads the
    /// rest.
    fn was_truncated(&mut self, position: &FilePosition, read: u64, seen: u64) {
        let copy = if self.is_compressed { None } else { self.copies.find(&self.path, position) };
        let path = &self.path;
        let (bytes_lost, what) = match &copy {
            Some(RotatedCopy { path: copy, size, is_followed: true }) => match seen.saturating_sub(*size) {
                0 => (0, format!("what had not been read is read from its copy {copy:?}")),
                lost => (lost, format!("{lost} bytes that had not been read are lost, and the rest is read from its copy {copy:?}")),
            },
            _ => match seen.saturating_sub(read) {
                0 => (0, format!("all {read} bytes that were seen of it had been read")),
                lost => (lost, format!("{lost} of {seen} bytes had not been read and are lost")),
            },
        };
        let mut note = format!("{path:?} was truncated, and is read from its start: {what}");
        if let Some(RotatedCopy { path: copy, is_followed: false, .. }) = copy.as_ref().filter(|_| bytes_lost > 0) {
            note.push_str(&format!("; {copy:?} is a copy that has them, which the job does not read"));
        }
        self.truncation = Some(Truncation { bytes_lost, note });
    }

    /// The open file was found truncated, and all of its records that were read as a whole have been returned. One that had begun is in the
    /// copy as a whole, or lost: what there is of it is no record.
    fn restart_truncated(&mut self) {
        let State::Open(reader) = &mut self.state else { return };
        let (position, end) = (reader.position_in_copy(), reader.chunk().disk_end());
        let read = if self.is_compressed { end } else { position.offset };
        // The size that was seen last may be that of what was written since.
        self.was_truncated(&position, read, self.size_known.max(end));
        if let State::Open(reader) = std::mem::replace(&mut self.state, State::Over(None)) {
            self.state = State::Unopened(reader.into_format(), None);
        }
        self.looks = 0;
        (self.size_seen, self.size_known) = (0, 0);
    }

    fn renamed(&mut self, path: PathBuf) {
        self.path = path;
        self.is_renamed = true;
    }

    /// Takes up a file that was closed; whether there is something to read.
    fn take_up(&mut self) -> Result<bool> {
        let State::Open(reader) = &mut self.state else { return Ok(true) };
        if let Some(identity) = reader.identity() {
            let stamp = identity.stamp()?;
            self.see(stamp);
            return Ok(true);
        }
        let found = match self.key.map(|key| whereabouts::look(&self.path, key)) {
            Some(Whereabouts::Here(stamp)) => Some(stamp),
            Some(Whereabouts::Renamed(path, stamp)) => {
                self.renamed(path);
                Some(stamp)
            }
            Some(Whereabouts::Gone) | None => None,
        };
        let is_over = self.is_renamed && self.looks >= QUIET_LOOKS;
        if found == Some(self.stamp) && self.looks > 0 && !is_over {
            return Ok(false);
        }
        if self.slot.is_none() {
            self.slot = self.slots.try_take();
        }
        let identity = self.find()?;
        let State::Open(reader) = &mut self.state else { return Ok(true) };
        match identity {
            Some(identity) => {
                let stamp = identity.stamp()?;
                reader.reopen(identity);
                self.see(stamp);
            }
            None => reader.finish(),
        }
        Ok(true)
    }

    /// Lets go of the file, if it is plain.
    fn close(&mut self) {
        if let State::Open(reader) = &mut self.state
            && !self.is_compressed
        {
            reader.close();
            self.slot = None;
        }
    }

    /// Nothing more is there now: what has become of the file?
    fn wait(&mut self) -> Result<()> {
        let State::Open(reader) = &mut self.state else { return Ok(()) };
        if reader.chunk().is_changed() {
            self.restart_truncated();
            return Ok(());
        }
        let found = self.key.map_or(Whereabouts::Here(self.stamp), |key| whereabouts::look(&self.path, key));
        let stamp = match found {
            Whereabouts::Here(stamp) => Some(stamp),
            Whereabouts::Renamed(path, stamp) => {
                self.renamed(path);
                Some(stamp)
            }
            Whereabouts::Gone => None,
        };
        let State::Open(reader) = &mut self.state else { return Ok(()) };
        let is_quiet = self.looks >= QUIET_LOOKS;
        match stamp {
            _ if reader.chunk().is_cut() => {
                let cut_at = *self.cut_at.get_or_insert(self.stamp.size);
                match stamp {
                    Some(stamp) if stamp.size != cut_at => self.open_member_again()?,
                    Some(_) if !is_quiet => {}
                    _ => return Err(reader.chunk().cut_error()),
                }
            }
            None => reader.finish(),
            Some(_) if self.is_compressed || self.is_renamed && is_quiet => reader.finish(),
            Some(stamp) if stamp.changed != self.head_at => {
                self.head_at = stamp.changed;
                if !reader.has_same_head() {
                    self.restart_truncated();
                    return Ok(());
                }
            }
            Some(_) => {}
        }
        self.size_known = self.size_seen;
        self.looks = self.looks.saturating_add(1);
        Ok(())
    }

    /// A compressed file that had ended within a member has grown: the member is read again.
    fn open_member_again(&mut self) -> Result<()> {
        let stamp = self.stamp;
        self.cut_at = None;
        if let State::Open(reader) = std::mem::replace(&mut self.state, State::Over(None)) {
            let position = reader.file_position(stamp);
            self.state = State::Unopened(reader.into_format(), Some(position));
            self.open()?;
        }
        Ok(())
    }

    fn pending(&mut self) -> Read {
        if self.looks < QUIET_LOOKS {
            if self.slot.is_none() {
                self.close();
            }
            return Read::Pending(FOLLOW_WAIT + FOLLOW_WAIT_MORE * self.looks);
        }
        self.close();
        Read::Pending(QUIET_WAIT)
    }
}

impl<F: LineFormat> SplitReader for FollowedReader<F> {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        loop {
            if let Some(truncation) = self.truncation.take() {
                return Ok(Read::Truncated(truncation));
            }
            match &mut self.state {
                State::Over(_) => return Ok(Read::End),
                State::Unopened(..) => {
                    if !self.open()? {
                        return Ok(Read::Pending(FOLLOW_WAIT));
                    }
                    continue;
                }
                State::Open(_) => {}
            }
            if !self.take_up()? {
                self.looks = self.looks.saturating_add(1);
                return Ok(self.pending());
            }
            let State::Open(reader) = &mut self.state else { continue };
            match reader.read(rows_max)? {
                LineRead::Records(batch, rejected) => {
                    self.looks = 0;
                    self.size_known = self.size_seen;
                    reader.note_head();
                    if self.slot.is_none() {
                        self.close();
                    }
                    return Ok(if rejected.is_empty() { Read::Batch(batch) } else { Read::Partial(batch, rejected) });
                }
                LineRead::End => {
                    let position = reader.file_position(self.stamp);
                    self.state = State::Over(Some(position));
                    self.slot = None;
                    return Ok(Read::End);
                }
                LineRead::Exhausted => {
                    let was_following = reader.is_following();
                    self.wait()?;
                    let is_following = matches!(&self.state, State::Open(reader) if reader.is_following());
                    if was_following && is_following {
                        return Ok(self.pending());
                    }
                }
            }
        }
    }

    fn position(&self) -> Position {
        let start = FilePosition::default();
        match &self.state {
            State::Open(reader) => reader.file_position(self.stamp),
            State::Unopened(_, position) | State::Over(position) => position.unwrap_or(start),
        }
        .encode()
    }
}
