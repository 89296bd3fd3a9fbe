//! Gathers the rows of an epoch until they may be applied.
//!
//! ```text
//!   frames   [length u64][frame] [length u64][frame] …
//!   handle   0 | frames                                        few rows: they lie in the checkpoint
//!            1 | {"file": …, "bytes": …, "hash": …}            many: they lie in a file beside the database
//! ```
//!
//! A handle can only name the file that its own part has ([`Owner::spool_name`](super::owner::Owner::spool_name)), and
//! that only as a regular file of the length and the checksum it says.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mill_frame::Frame;
use mill_protocol::{Batch, Epoch, Error, PreCommit, Result, SinkWriter};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::Shared;
use super::owner::{self, directory_of, run_of};

/// Rows up to this many bytes are in the checkpoint itself.
const INLINE_BYTES_MAX: usize = 32 << 10;
/// Rows beyond this many bytes are not held in memory.
const HELD_BYTES_MAX: usize = 1 << 20;
/// A frame in a spool may not be larger than this.
const FRAME_BYTES_MAX: u64 = 1 << 30;

/// What a checkpoint holds of an epoch's rows.
#[derive(Debug)]
pub(super) struct Handle {
    /// Tells it from every other handle of every run.
    pub(super) part: String,
    /// The run that wrote it.
    pub(super) run: u64,
    pub(super) rows: Rows,
}

/// Where the rows are.
#[derive(Debug)]
pub(super) enum Rows {
    Inline(Vec<u8>),
    Spooled(Spooled),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spooled {
    pub(super) file: String,
    bytes: u64,
    hash: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    part: String,
    spooled: Option<Spooled>,
}

impl Handle {
    /// `header length u32 | header as JSON | xxh3 of the frames u64 | frames`
    fn encode(self) -> Result<Vec<u8>> {
        let (spooled, frames) = match self.rows {
            Rows::Inline(frames) => (None, frames),
            Rows::Spooled(spooled) => (Some(spooled), Vec::new()),
        };
        let header = serde_json::to_vec(&Header { part: self.part, spooled })
            .map_err(|e| Error::internal("a header is names and numbers").because(e))?;
        let mut bytes = (header.len() as u32).to_le_bytes().to_vec();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&xxh3_64(&frames).to_le_bytes());
        bytes.extend_from_slice(&frames);
        Ok(bytes)
    }

    /// Reads a handle; `None` if it is damaged.
    pub(super) fn decode(bytes: &[u8], shared: &Shared) -> Option<Handle> {
        let (length, rest) = bytes.split_at_checked(4)?;
        let (header, rest) = rest.split_at_checked(u32::from_le_bytes(length.try_into().ok()?) as usize)?;
        let (hash, frames) = rest.split_at_checked(8)?;
        let Header { part, spooled } = serde_json::from_slice(header).ok()?;
        let run = run_of(&part)?;
        if xxh3_64(frames) != u64::from_le_bytes(hash.try_into().ok()?) {
            return None;
        }
        let rows = match spooled {
            None => Rows::Inline(frames.to_vec()),
            Some(spooled) => {
                let is_own = spooled.file == shared.spool_name(&part).ok()? && spooled.bytes > 0 && frames.is_empty();
                Rows::Spooled(is_own.then_some(spooled)?)
            }
        };
        Some(Handle { part, run, rows })
    }
}

pub(super) struct SqliteWriter {
    shared: Arc<Shared>,
    task: usize,
    held: Vec<u8>,
    spool: Option<Spool>,
}

/// A hidden file that rows go to.
struct Spool {
    part: String,
    name: String,
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
    hash: Box<Xxh3>,
}

impl Spool {
    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| cannot("write", &self.path, e))?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

fn cannot(doing: &str, path: &Path, e: std::io::Error) -> Error {
    Error::connector(format!("cannot {doing} {path:?}: {e}")).because(e)
}

impl SqliteWriter {
    pub(super) fn new(shared: Arc<Shared>, task: usize) -> SqliteWriter {
        SqliteWriter { shared, task, held: Vec::new(), spool: None }
    }

    fn part(&self) -> String {
        // Relaxed: only that each handle gets another number counts.
        let number = self.shared.handles.fetch_add(1, Ordering::Relaxed);
        owner::part(self.shared.run(), self.task, number)
    }

    /// Moves what is held into the spool, which is made if there is none.
    fn spill(&mut self) -> Result<&mut Spool> {
        if self.spool.is_none() {
            let part = self.part();
            let name = self.shared.spool_name(&part)?;
            let path = directory_of(&self.shared.path).join(&name);
            let file = mill_fault::reach("sqlite.create")
                .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path));
            let file = BufWriter::new(file.map_err(|e| cannot("create", &path, e))?);
            self.spool = Some(Spool { part, name, path, file, bytes: 0, hash: Box::new(Xxh3::new()) });
        }
        let Some(spool) = &mut self.spool else { return Err(Error::internal("the spool was just made")) };
        spool.push(&self.held)?;
        self.held.clear();
        Ok(spool)
    }
}

impl SinkWriter for SqliteWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.rows() == 0 {
            return Ok(());
        }
        let mut rows = Batch::new(batch.data().clone());
        if let Some(deletes) = batch.deletes() {
            rows = rows.with_deletes(Some(deletes.clone()));
        }
        let frame = Frame::encode(&rows)
            .map_err(|e| Error::data(format!("{}: rows cannot be kept: {e}", self.shared.name())).because(e))?;
        let bytes = frame.as_bytes();
        self.held.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.held.extend_from_slice(bytes);
        if self.held.len() > HELD_BYTES_MAX {
            self.spill()?;
        }
        Ok(())
    }

    fn pre_commit(&mut self, _epoch: Epoch) -> Result<Option<PreCommit>> {
        if self.held.is_empty() && self.spool.is_none() {
            return Ok(None);
        }
        let run = self.shared.run();
        if self.spool.is_none() && self.held.len() <= INLINE_BYTES_MAX {
            let (part, rows) = (self.part(), Rows::Inline(std::mem::take(&mut self.held)));
            return Ok(Some(Box::new(move || Handle { part, run, rows }.encode())));
        }
        self.spill()?;
        let Some(Spool { part, name, path, file, bytes, hash }) = self.spool.take() else { return Ok(None) };
        let directory = directory_of(&self.shared.path).to_owned();
        Ok(Some(Box::new(move || {
            let file = file.into_inner().map_err(|e| cannot("write", &path, e.into_error()))?;
            mill_fault::reach("sqlite.sync").and_then(|()| file.sync_all()).map_err(|e| cannot("sync", &path, e))?;
            File::open(&directory).and_then(|file| file.sync_all()).map_err(|e| cannot("sync", &directory, e))?;
            Handle { part, run, rows: Rows::Spooled(Spooled { file: name, bytes, hash: hash.digest() }) }.encode()
        })))
    }
}

impl Drop for SqliteWriter {
    fn drop(&mut self) {
        // Nothing names this file yet. What cannot be removed now is removed by the next recovery.
        if let Some(spool) = self.spool.take() {
            let _ = mill_fault::reach("sqlite.remove").and_then(|()| std::fs::remove_file(spool.path));
        }
    }
}

/// Calls `apply` with each frame's bytes, in order.
pub(super) fn for_each_frame(
    rows: &Rows,
    database: &Path,
    mut apply: impl FnMut(Vec<u8>) -> Result<()>,
) -> Result<()> {
    let damaged = |what: &str| Error::checkpoint(format!("rows kept for {database:?} are damaged: {what}"));
    match rows {
        Rows::Inline(bytes) => {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (length, tail) = rest.split_at_checked(8).ok_or_else(|| damaged("a length is cut off"))?;
                let length = u64::from_le_bytes(std::array::from_fn(|i| length[i]));
                let length = usize::try_from(length).map_err(|_| damaged("a frame is too long"))?;
                let (frame, tail) = tail.split_at_checked(length).ok_or_else(|| damaged("a frame is cut off"))?;
                apply(frame.to_vec())?;
                rest = tail;
            }
            Ok(())
        }
        Rows::Spooled(Spooled { file, bytes, hash }) => {
            let path = directory_of(database).join(file);
            let found = std::fs::symlink_metadata(&path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => Error::checkpoint(format!(
                    "the rows of an epoch are lost: {path:?} does not exist, and the database does not note that they \
                     were applied (they were not); put the file or the database back as they were when the \
                     checkpoint was taken, or start over with another checkpoint path and table"
                )),
                _ => cannot("look at", &path, e),
            })?;
            if !found.is_file() || found.len() != *bytes {
                return Err(damaged(&format!("{path:?} is not the file that was written: it has {} bytes of {bytes}", found.len())));
            }
            let opened = File::open(&path).map_err(|e| cannot("open", &path, e))?;
            let mut input = BufReader::with_capacity(1 << 20, opened);
            let mut found = Xxh3::new();
            let mut left = *bytes;
            while left > 0 {
                let mut length = [0; 8];
                input.read_exact(&mut length).map_err(|e| cannot("read", &path, e))?;
                found.update(&length);
                let length = u64::from_le_bytes(length);
                if length > FRAME_BYTES_MAX || length + 8 > left {
                    return Err(damaged("a frame is longer than its file"));
                }
                let mut frame = vec![0; length as usize];
                input.read_exact(&mut frame).map_err(|e| cannot("read", &path, e))?;
                found.update(&frame);
                apply(frame)?;
                left -= length + 8;
            }
            // A difference undoes what was applied: the caller's transaction is not committed.
            if found.digest() == *hash { Ok(()) } else { Err(damaged("the checksum does not match")) }
        }
    }
}
