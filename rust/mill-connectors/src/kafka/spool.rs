//! The records of an epoch as messages, kept until they are known to be in their topic.
//!
//! ```text
//!   message   length u32 | parts u8 | [partition i32] [timestamp i64]
//!                        | [key: length u32, bytes] [value: length u32, bytes]
//!                        | [headers: count u16, each: name length u16, bytes, value length i32 (-1: null), bytes]
//!   handle    header length u32 | header as JSON | xxh3 of the messages u64 | messages        few: they lie in the checkpoint
//!             header length u32 | header as JSON with file, bytes, hash                       many: they lie in a file
//!   file      <state directory>/kafka/<sink>-<run>-<task>-<n>.messages
//! ```
//!
//! A handle can only name a file of its own sink, and that only as a regular file of the length and the checksum it says.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mill_protocol::{Error, Result};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Messages up to this many bytes are in the checkpoint itself.
pub(super) const INLINE_BYTES_MAX: usize = 32 << 10;
/// Messages beyond this many bytes are not held in memory.
pub(super) const HELD_BYTES_MAX: usize = 1 << 20;
/// How many bytes of a file are read at once.
const READ_BYTES: usize = 256 << 10;
/// The directory within the state directory.
const DIRECTORY: &str = "kafka";
const SUFFIX: &str = ".messages";

const PARTITION: u8 = 1;
const TIMESTAMP: u8 = 2;
const KEY: u8 = 4;
const VALUE: u8 = 8;
const HEADERS: u8 = 16;

/// How many headers a message has at most, and how many bytes the name of each.
const HEADERS_MAX: usize = u16::MAX as usize;

/// A message on its way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outgoing<'m> {
    pub(super) partition: Option<i32>,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<&'m [u8]>,
    pub(super) value: Option<&'m [u8]>,
    pub(super) headers: Vec<(&'m str, Option<&'m [u8]>)>,
}

impl<'m> Outgoing<'m> {
    /// Appends the message.
    ///
    /// # Errors
    /// When a name is longer than a message can have.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&[0; 5]);
        let mut parts = 0;
        if let Some(partition) = self.partition {
            parts |= PARTITION;
            out.extend_from_slice(&partition.to_le_bytes());
        }
        if let Some(timestamp) = self.timestamp {
            parts |= TIMESTAMP;
            out.extend_from_slice(&timestamp.to_le_bytes());
        }
        for (part, bytes) in [(KEY, self.key), (VALUE, self.value)] {
            if let Some(bytes) = bytes {
                parts |= part;
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                out.extend_from_slice(bytes);
            }
        }
        if !self.headers.is_empty() {
            parts |= HEADERS;
            let count = u16::try_from(self.headers.len()).map_err(|_| Error::data("a message has more than 65535 headers"))?;
            out.extend_from_slice(&count.to_le_bytes());
            for (name, value) in &self.headers {
                push_name(out, name)?;
                out.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_le_bytes());
                out.extend_from_slice(value.unwrap_or_default());
            }
        }
        let length = u32::try_from(out.len() - start - 4).map_err(|_| Error::data("a message is longer than 4 GiB"))?;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4] = parts;
        Ok(())
    }

    /// What no message can have of its headers, if they have it.
    pub(super) fn wrong_headers(&self) -> Option<String> {
        if self.headers.len() > HEADERS_MAX {
            return Some(format!("{} of them, and a message has {HEADERS_MAX} at most", self.headers.len()));
        }
        let (name, _) = self.headers.iter().find(|(name, _)| name.len() > HEADERS_MAX)?;
        let start: String = name.chars().take(40).collect();
        Some(format!("the name {start:?}… has {} bytes, and can have {HEADERS_MAX}", name.len()))
    }

    /// Takes a message off the front; `None` if it is damaged.
    pub(super) fn decode(bytes: &mut &'m [u8]) -> Option<Outgoing<'m>> {
        let mut message = Outgoing::default();
        let length = u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?);
        let mut rest = take(bytes, length as usize)?;
        let parts = take(&mut rest, 1)?[0];
        if parts & PARTITION > 0 {
            message.partition = Some(i32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?));
        }
        if parts & TIMESTAMP > 0 {
            message.timestamp = Some(i64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?));
        }
        for part in [KEY, VALUE] {
            if parts & part > 0 {
                let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
                let bytes = Some(take(&mut rest, length as usize)?);
                if part == KEY { message.key = bytes } else { message.value = bytes }
            }
        }
        if parts & HEADERS > 0 {
            let count = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
            for _ in 0..count {
                let name = name(&mut rest)?;
                let length = i32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
                let value = match usize::try_from(length) {
                    Ok(length) => Some(take(&mut rest, length)?),
                    Err(_) => None,
                };
                message.headers.push((name, value));
            }
        }
        rest.is_empty().then_some(message)
    }
}

fn push_name(out: &mut Vec<u8>, name: &str) -> Result<()> {
    let length = u16::try_from(name.len())
        .map_err(|_| Error::data(format!("{:?}… is longer than a name can be", name.chars().take(40).collect::<String>())))?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    Ok(())
}

fn take<'m>(bytes: &mut &'m [u8], count: usize) -> Option<&'m [u8]> {
    let (front, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(front)
}

fn name<'m>(bytes: &mut &'m [u8]) -> Option<&'m str> {
    let length = u16::from_le_bytes(take(bytes, 2)?.try_into().ok()?);
    std::str::from_utf8(take(bytes, usize::from(length))?).ok()
}

/// Where a sink keeps its files.
#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
    /// Tells the sink from the others of the job.
    sink: String,
}

impl Place {
    pub(super) fn new(state: &Path, sink: &str) -> Place {
        Place { directory: state.join(DIRECTORY), sink: format!("{:016x}", xxh3_64(sink.as_bytes())) }
    }

    /// Creates a file for a part.
    pub(super) fn create(&self, part: &str) -> Result<Spool> {
        // As all of the state directory: records are for nobody else's eyes.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|e| cannot("create", &self.directory, e))?;
        let name = self.name(part);
        let path = self.directory.join(&name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = mill_fault::reach("kafka.create").and_then(|()| options.open(&path));
        let file = file.map_err(|e| cannot("create", &path, e))?;
        Ok(Spool { name, path, directory: self.directory.clone(), file, bytes: 0, hash: Box::new(Xxh3::new()), is_kept: false })
    }

    fn name(&self, part: &str) -> String {
        format!("{}-{part}{SUFFIX}", self.sink)
    }

    /// Removes all files of the sink.
    pub(super) fn clear(&self) -> Result<()> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(cannot("list", &self.directory, e)),
        };
        for entry in entries {
            let path = entry.map_err(|e| cannot("list", &self.directory, e))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(&format!("{}-", self.sink)) && name.ends_with(SUFFIX) {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.directory.join(name);
        match mill_fault::reach("kafka.remove").and_then(|()| std::fs::remove_file(&path)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(cannot("remove", &path, e)),
            _ => Ok(()),
        }
    }
}

/// A file that messages go to; it goes again unless a handle names it.
pub(super) struct Spool {
    name: String,
    path: PathBuf,
    directory: PathBuf,
    file: File,
    bytes: u64,
    hash: Box<Xxh3>,
    is_kept: bool,
}

impl Spool {
    pub(super) fn push(&mut self, messages: &[u8]) -> Result<()> {
        mill_fault::reach("kafka.spool")
            .and_then(|()| self.file.write_all(messages))
            .map_err(|e| cannot("write", &self.path, e))?;
        self.hash.update(messages);
        self.bytes += messages.len() as u64;
        Ok(())
    }

    /// Makes it durable, and says what a checkpoint has to know of it.
    pub(super) fn finish(mut self) -> Result<Spooled> {
        mill_fault::reach("kafka.sync").and_then(|()| self.file.sync_data()).map_err(|e| cannot("sync", &self.path, e))?;
        let sync = |path: &Path| File::open(path).and_then(|directory| directory.sync_all());
        sync(&self.directory).map_err(|e| cannot("sync", &self.directory, e))?;
        if let Some(parent) = self.directory.parent() {
            sync(parent).map_err(|e| cannot("sync", parent, e))?;
        }
        self.is_kept = true;
        Ok(Spooled { file: std::mem::take(&mut self.name), bytes: self.bytes, hash: self.hash.digest() })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nothing names this file. What cannot be removed now is removed by the next recovery.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn cannot(doing: &str, path: &Path, e: std::io::Error) -> Error {
    Error::connector(format!("write_kafka: cannot {doing} {path:?}: {e}")).because(e)
}

/// What a checkpoint knows of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spooled {
    file: String,
    bytes: u64,
    hash: u64,
}

/// What a checkpoint holds of a task's share of an epoch.
#[derive(Debug)]
pub(super) struct Handle {
    /// The run that wrote it.
    pub(super) run: u64,
    pub(super) held: Held,
}

/// Where the messages are.
#[derive(Debug)]
pub(super) enum Held {
    Inline(Vec<u8>),
    Spooled(Spooled),
}

#[derive(Serialize, Deserialize)]
struct Header {
    run: String,
    spooled: Option<Spooled>,
}

impl Handle {
    pub(super) fn encode(self) -> Result<Vec<u8>> {
        let (spooled, messages) = match self.held {
            Held::Inline(messages) => (None, messages),
            Held::Spooled(spooled) => (Some(spooled), Vec::new()),
        };
        let header = serde_json::to_vec(&Header { run: format!("{:016x}", self.run), spooled })
            .map_err(|e| Error::internal("a header is names and numbers").because(e))?;
        let mut bytes = (header.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&xxh3_64(&messages).to_le_bytes());
        bytes.extend_from_slice(&messages);
        Ok(bytes)
    }

    /// Reads a handle; `None` if it is damaged, or not of this sink.
    pub(super) fn decode(bytes: &[u8], place: &Place) -> Option<Handle> {
        let mut rest = bytes;
        let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
        let Header { run, spooled } = serde_json::from_slice(take(&mut rest, length as usize)?).ok()?;
        let hash = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
        if xxh3_64(rest) != hash {
            return None;
        }
        let held = match spooled {
            None => Held::Inline(rest.to_vec()),
            Some(spooled) => {
                let part = spooled.file.strip_prefix(&format!("{}-", place.sink)).and_then(|name| name.strip_suffix(SUFFIX))?;
                let is_own = part.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') && rest.is_empty();
                Held::Spooled(is_own.then_some(spooled)?)
            }
        };
        Some(Handle { run: u64::from_str_radix(&run, 16).ok()?, held })
    }

    /// The file of the state directory that the messages are in, if they are not in the handle.
    pub(super) fn file(&self) -> Option<String> {
        match &self.held {
            Held::Inline(_) => None,
            Held::Spooled(spooled) => Some(format!("{DIRECTORY}/{}", spooled.file)),
        }
    }

    /// Calls with pieces of several messages each, all whole, in order.
    ///
    /// # Errors
    /// When a message is lost or damaged: then what was called with must not count.
    pub(super) fn for_each_piece(&self, place: &Place, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Spooled { file, bytes, hash } = match &self.held {
            Held::Inline(messages) if whole(messages) < messages.len() => return Err(damaged("a message is cut off")),
            Held::Inline(messages) => return each(messages),
            Held::Spooled(spooled) => spooled,
        };
        let path = place.directory.join(file);
        let found = std::fs::symlink_metadata(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::checkpoint(format!(
                "write_kafka: the messages of an epoch are lost: {path:?} does not exist, and they were not committed; put the \
                 state directory back as it was, restore an older checkpoint, or start over with another one"
            )),
            _ => cannot("look at", &path, e),
        })?;
        if !found.is_file() || found.len() != *bytes {
            return Err(damaged(&format!("{path:?} has {} bytes, and had {bytes}", found.len())));
        }
        let mut input = File::open(&path).map_err(|e| cannot("open", &path, e))?;
        let (mut left, mut sum, mut piece) = (*bytes, Xxh3::new(), Vec::new());
        while left > 0 {
            // What is left of the piece is the beginning of a message.
            let begin = piece.len();
            let count = left.min(READ_BYTES as u64);
            let read = Read::by_ref(&mut input).take(count).read_to_end(&mut piece).map_err(|e| cannot("read", &path, e))?;
            if read as u64 != count {
                return Err(damaged(&format!("{path:?} has become shorter")));
            }
            sum.update(&piece[begin..]);
            left -= count;
            let end = whole(&piece);
            if end > 0 {
                each(&piece[..end])?;
                piece.drain(..end);
            }
            let next = piece.first_chunk::<4>().map_or(0, |length| u64::from(u32::from_le_bytes(*length)) + 4);
            if next > piece.len() as u64 + left {
                return Err(damaged("a message is longer than its file"));
            }
        }
        if !piece.is_empty() {
            return Err(damaged("a message is cut off"));
        }
        if sum.digest() == *hash { Ok(()) } else { Err(damaged("the checksum does not match")) }
    }

    /// Removes its file; what cannot be removed now is removed by the next recovery.
    pub(super) fn remove(&self, place: &Place) {
        if let Held::Spooled(spooled) = &self.held {
            let _ = place.remove(&spooled.file);
        }
    }
}

/// How many bytes of the messages are those of whole ones.
fn whole(messages: &[u8]) -> usize {
    let mut end = 0;
    while let Some(length) = messages.get(end..).and_then(<[u8]>::first_chunk::<4>) {
        let after = end + 4 + u32::from_le_bytes(*length) as usize;
        if after > messages.len() {
            break;
        }
        end = after;
    }
    end
}

pub(super) fn damaged(what: &str) -> Error {
    Error::checkpoint(format!("write_kafka: the messages kept for an epoch are damaged: {what}"))
}

/// `<run>-<task>-<n>`: tells a handle from every other one of every run.
pub(super) fn part(run: u64, task: usize, number: u64) -> String {
    format!("{run:016x}-{task}-{number}")
}
