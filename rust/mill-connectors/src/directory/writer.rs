//! Writes one task's share of the output into hidden files: one an epoch, or several where files are cut or partitioned.
//!
//! At most [`OPEN_FILES_MAX`] files are open at once. Where there are more partitions than that, the file that was written
//! to longest ago is closed, and its partition gets another one if more records come.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use mill_protocol::{Batch, Epoch, Error, PreCommit, Result, SinkWriter, TaskContext};
use serde::{Deserialize, Serialize};

use super::partition::Partitioning;
use super::uploads::{self, Piece, Pool};
use super::{Encoder, FileFormat, Shared, make, name, sync_directory};

/// How many files a task writes at once.
const OPEN_FILES_MAX: usize = 64;
/// How many files that are closed wait for the checkpoint to be synced.
const CLOSED_FILES_MAX: usize = 64;
/// All files of a task together hold about so much memory for what they have not written.
const MEMORY_BYTES_MAX: usize = 128 << 20;

/// What a checkpoint holds of a pre-committed file: its names, within the directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Handle {
    pub(super) hidden: String,
    pub(super) name: String,
    /// Whether it has no rows: it becomes visible only if no other file does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_empty: bool,
    /// Of one file that is written as parts: that no part follows, and how many bytes the header of each has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<usize>,
}

/// The files of a task and epoch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Handles {
    One(Handle),
    Several(Vec<Handle>),
}

impl Handles {
    pub(super) fn into_vec(self) -> Vec<Handle> {
        match self {
            Handles::One(handle) => vec![handle],
            Handles::Several(handles) => handles,
        }
    }
}

impl Handle {
    /// Whether these are the names that a file of this epoch has, and none of another. A former run may have written another format.
    pub(super) fn is_of(&self, epoch: Epoch) -> bool {
        let path = Path::new(&self.name);
        let directories = path.parent().into_iter().flat_map(Path::components);
        let is_within = directories.into_iter().all(
            |directory| matches!(directory, Component::Normal(name) if name.to_str().is_some_and(|name| name.contains('='))),
        );
        let task = name::task_of(&self.hidden);
        let (Some(task), Some(name)) = (task, path.file_name().and_then(|name| name.to_str())) else { return false };
        let number = usize::try_from(name::order_of(name).1).unwrap_or(0);
        // Past the point that hides it, the extension begins at the first one.
        let extension = self.hidden.get(1..).and_then(|hidden| hidden.split_once('.')).map_or("", |(_, extension)| extension);
        is_within && name == name::committed(epoch, task, number, extension)
    }
}

pub(super) struct DirectoryWriter {
    shared: Arc<Shared>,
    partitioning: Partitioning,
    task: usize,
    /// How many threads the job has.
    threads: usize,
    /// The files that are written, by their directories.
    open: HashMap<String, OpenFile>,
    /// Those that are complete, in the order in which they were.
    closed: Vec<ClosedFile>,
    /// Where files that become objects are kept if they are many.
    pool: Pool,
    /// How many batches have been written.
    batches: u64,
    has_rows: bool,
    has_ended: bool,
}

struct OpenFile {
    hidden: String,
    path: PathBuf,
    encoder: Box<dyn Encoder>,
    rows: u64,
    /// When it was last written to.
    batch: u64,
}

struct ClosedFile {
    directory: String,
    hidden: String,
    path: PathBuf,
    /// `None` if it has been synced, or is kept for an upload.
    file: Option<File>,
    /// What is to be uploaded, where it becomes an object.
    piece: Option<Piece>,
    is_empty: bool,
}

impl DirectoryWriter {
    pub(super) fn new(shared: Arc<Shared>, schema: &SchemaRef, context: &TaskContext) -> Result<DirectoryWriter> {
        let partitioning = Partitioning::new(schema, &shared.options.partition_by)?;
        Ok(DirectoryWriter {
            shared,
            partitioning,
            task: context.index,
            threads: context.threads,
            open: HashMap::new(),
            closed: Vec::new(),
            pool: Pool::default(),
            batches: 0,
            has_rows: false,
            has_ended: false,
        })
    }

    fn create(&self) -> Result<OpenFile> {
        let Shared { directory, extension, nonce, .. } = self.shared.as_ref();
        if self.shared.objects.is_none() {
            make(directory)?;
        }
        // Relaxed: only that each file gets another number counts.
        let number = self.shared.files.fetch_add(1, Ordering::Relaxed);
        let hidden = name::hidden(*nonce, self.task, number, extension);
        let path = directory.join(&hidden);
        let file: File = mill_fault::reach("file.create")
            .and_then(|()| match self.shared.objects {
                Some(_) => crate::object::spool().map_err(std::io::Error::other),
                None => OpenOptions::new().write(true).create_new(true).open(&path),
            })
            .map_err(|e| Error::connector(format!("cannot create {path:?}: {e}")).because(e))?;
        let encoder = self.shared.encoder(self.partitioning.schema(), file, self.threads)?;
        Ok(OpenFile { hidden, path, encoder, rows: 0, batch: 0 })
    }

    /// Writes records of one directory, into as many files as they need.
    fn write_into(&mut self, directory: &str, mut batch: RecordBatch) -> Result<()> {
        let options = &self.shared.options;
        let (rows_max, bytes_max) =
            (options.max_rows_per_file.unwrap_or(u64::MAX), options.approximate_bytes_per_file.unwrap_or(u64::MAX));
        while batch.num_rows() > 0 {
            if !self.open.contains_key(directory) {
                if self.open.len() >= OPEN_FILES_MAX {
                    let oldest = self.open.iter().min_by_key(|(_, open)| open.batch).map(|(directory, _)| directory.clone());
                    oldest.map_or(Ok(()), |oldest| self.close(&oldest))?;
                }
                let open = self.create()?;
                self.open.insert(directory.to_owned(), open);
            }
            let Some(open) = self.open.get_mut(directory) else { return Err(Error::internal("the file was opened")) };
            let rows = usize::try_from(rows_max - open.rows).unwrap_or(usize::MAX).min(batch.num_rows());
            let (these, rest) = (batch.slice(0, rows), batch.slice(rows, batch.num_rows() - rows));
            mill_fault::reach("file.write")
                .map_err(|e| Error::connector(format!("cannot write {:?}: {e}", open.path)).because(e))?;
            open.encoder.write(&these).map_err(|e| in_file(&open.path, e))?;
            open.rows += rows as u64;
            open.batch = self.batches;
            if open.rows >= rows_max || open.encoder.bytes() >= bytes_max {
                self.close(directory)?;
            }
            batch = rest;
        }
        Ok(())
    }

    /// Completes the file of a directory.
    fn close(&mut self, directory: &str) -> Result<()> {
        let Some(OpenFile { hidden, path, encoder, rows, .. }) = self.open.remove(directory) else { return Ok(()) };
        let file = encoder.finish().map_err(|e| in_file(&path, e))?;
        let is_empty = rows == 0;
        let mut closed = ClosedFile { directory: directory.to_owned(), hidden, path, file: Some(file), piece: None, is_empty };
        if self.shared.objects.is_some() {
            let piece = closed.to_piece()?;
            let is_many = self.closed.len() >= CLOSED_FILES_MAX;
            closed.piece = Some(if is_many { self.pool.add(&piece)? } else { piece });
        } else if self.closed.len() >= CLOSED_FILES_MAX {
            closed.sync()?;
        }
        self.closed.push(closed);
        Ok(())
    }

    /// Keeps the memory of all files together within a bound.
    fn release(&mut self) -> Result<()> {
        while self.open.len() > 1 && self.open.values().map(|open| open.encoder.memory()).sum::<usize>() > MEMORY_BYTES_MAX {
            let Some(open) = self.open.values_mut().max_by_key(|open| open.encoder.memory()) else { break };
            let before = open.encoder.memory();
            open.encoder.release().map_err(|e| in_file(&open.path, e))?;
            if open.encoder.memory() >= before {
                break;
            }
        }
        Ok(())
    }
}

impl ClosedFile {
    /// The bytes of a file without a name, which are to be uploaded.
    fn to_piece(&mut self) -> Result<Piece> {
        let file = self.file.take().ok_or_else(|| Error::internal("a file that was closed is there"))?;
        let found = file.metadata().map_err(|e| Error::connector(format!("cannot write {:?}: {e}", self.path)).because(e))?;
        Ok(Piece { file: Arc::new(file), start: 0, bytes: found.len(), is_empty: self.is_empty })
    }

    fn sync(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        // After a failed sync the pages are gone: the epoch must fail, and is rewritten from the checkpoint.
        mill_fault::reach("file.sync")
            .and_then(|()| file.sync_all())
            .map_err(|e| Error::connector(format!("cannot sync {:?}: {e}", self.path)).because(e))
    }
}

/// The same error, naming the file.
fn in_file(path: &Path, error: Error) -> Error {
    Error::new(error.kind(), format!("{path:?}: {}", error.message())).because(error)
}

impl SinkWriter for DirectoryWriter {
    fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.rows() == 0 {
            return Ok(());
        }
        if self.shared.is_complete() {
            return Err(Error::checkpoint(format!(
                "{:?} was complete when an earlier run of the job came to its end, and new records came: it is left as it is; write \
                 into a directory to add to what there is, or start over with mill.Checkpoint(…, restart=True)",
                self.shared.path()
            )));
        }
        self.batches += 1;
        self.has_rows = true;
        for (directory, records) in self.partitioning.split(batch.data())? {
            self.write_into(&directory, records)?;
        }
        self.release()
    }

    fn end(&mut self) -> Result<()> {
        if self.shared.is_complete() {
            return Ok(());
        }
        self.has_ended = true;
        // A result without rows is a file with its columns. The other tasks may have had rows: the committer decides. One
        // file that is written as parts has a last one always, which says that it is the last.
        let is_needed = self.task == 0 && !self.has_rows && !self.partitioning.is_partitioned();
        let is_last = self.shared.joined.is_some() && self.open.is_empty() && self.closed.is_empty();
        if is_needed || is_last {
            let open = self.create()?;
            self.open.insert(String::new(), open);
        }
        Ok(())
    }

    fn pre_commit(&mut self, epoch: Epoch) -> Result<Option<PreCommit>> {
        let mut directories: Vec<String> = self.open.keys().cloned().collect();
        directories.sort();
        for directory in directories {
            self.close(&directory)?;
        }
        if self.closed.is_empty() {
            return Ok(None);
        }
        let mut closed = std::mem::take(&mut self.closed);
        if let Some(target) = self.shared.objects.clone() {
            let (task, extension) = (self.task, self.shared.extension.clone());
            self.pool = Pool::default();
            return Ok(Some(Box::new(move || {
                let mut uploaded = Vec::with_capacity(closed.len());
                for (index, file) in closed.iter().enumerate() {
                    let piece = file.piece.as_ref().ok_or_else(|| Error::internal("what becomes an object is kept until then"))?;
                    uploaded.push(target.upload(piece, &file.directory, (epoch, task, index + 1), &extension)?);
                }
                uploads::encode(uploaded)
            })));
        }
        let mut handles: Vec<Handle> = Vec::with_capacity(closed.len());
        for (index, file) in closed.iter().enumerate() {
            let name = name::committed(epoch, self.task, index + 1, &self.shared.extension);
            let name = if file.directory.is_empty() { name } else { format!("{}/{name}", file.directory) };
            handles.push(Handle { hidden: file.hidden.clone(), name, is_empty: file.is_empty, last: None });
        }
        if let (true, true, Some(handle)) = (self.has_ended, self.shared.joined.is_some(), handles.last_mut()) {
            let is_csv = self.shared.format == FileFormat::Csv;
            handle.last = Some(if is_csv { self.shared.options.csv.header(self.partitioning.schema()).len() } else { 0 });
        }
        let directory = self.shared.directory.clone();
        Ok(Some(Box::new(move || {
            closed.iter_mut().try_for_each(ClosedFile::sync)?;
            sync_directory(&directory)?;
            let handles = if handles.len() == 1 { Handles::One(handles.remove(0)) } else { Handles::Several(handles) };
            serde_json::to_vec(&handles).map_err(|e| Error::internal("a handle is two names").because(e))
        })))
    }
}

impl Drop for DirectoryWriter {
    fn drop(&mut self) {
        // What becomes an object has no name, and goes by itself.
        if self.shared.objects.is_some() {
            return;
        }
        // Nothing names these files yet. What cannot be removed now is removed by the next recovery.
        let open = self.open.drain().map(|(_, open)| open.path);
        for path in open.chain(self.closed.drain(..).map(|closed| closed.path)) {
            let _ = mill_fault::reach("file.remove").and_then(|()| std::fs::remove_file(path));
        }
    }
}
