//! Files in a directory, exactly once: `write_csv`, `write_json`, `write_parquet`, `write_arrow`.
//!
//! ```text
//!   write        .part-<nonce>-<task>-<n>.csv      hidden: readers of the directory pass over it
//!   pre-commit   closed; synced in the background; its name and its final name go into the checkpoint
//!   commit       renamed to part-<epoch>-<task>.csv, or key=value/part-<epoch>-<task>.csv, the directory synced
//!   recover      what the checkpoint names is renamed, every other hidden file is removed
//! ```
//!
//! A prefix in an object store is written by uploads ([`uploads`]).
//!
//! A path that names one file is written as a directory of parts beside it, which is joined at the end of the input
//! ([`joined`]).
//!
//! What holds:
//!
//! - A file under its final name is complete and is never written, replaced or removed by the job that created it.
//! - Renaming is atomic, so of the hidden and the final file exactly one exists from pre-commit on. Both: another job's
//!   output is in the way. None: somebody removed it. Either is an error, not a guess.
//! - One job at a time commits into a directory: the committer holds a lock on it.
//! - A job that starts from nothing refuses a directory that has part files, unless told to replace them.

mod arrow;
mod committer;
mod csv;
mod ending;
mod group;
mod joined;
pub(crate) mod json;
mod lines;
mod name;
mod options;
mod output;
mod parquet;
mod partition;
mod stdout;
mod uploads;
mod writer;

pub use csv::CsvWriting;
pub use options::WriteOptions;
pub use stdout::StdoutSink;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use ::arrow::array::RecordBatch;
use ::arrow::datatypes::SchemaRef;
use mill_frame::types::type_name;
use mill_protocol::{Committer, Epoch, Error, Result, Sink, SinkKind, SinkWriter, TaskContext};

use crate::handover::Handover;
use crate::file::real;
use crate::object::is_object;
use crate::lock::FileLock;
use crate::updating::check_key;
use crate::objects::check_written;
use crate::target;
use committer::DirectoryCommitter;
pub(crate) use joined::parts_of;
use options::Compressed;
use uploads::{Target, UploadCommitter};
use writer::DirectoryWriter;

/// The format of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Comma-separated, with a header; null is an empty field, empty text is `""`.
    Csv,
    /// A JSON object a line.
    Json,
    /// Parquet, compressed with Snappy.
    Parquet,
    /// Arrow IPC, not compressed.
    Arrow,
}

/// What a job that starts from nothing does about part files that are already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnExisting {
    /// It is an error.
    #[default]
    Refuse,
    /// The part files of former runs are removed; other files are not touched.
    Replace,
}

/// A directory as a sink.
pub struct DirectorySink {
    shared: Arc<Shared>,
    on_existing: OnExisting,
}

/// What sink, writers and committers share.
struct Shared {
    /// What the user has named.
    named: PathBuf,
    /// Where files are made; absolute, as the working directory may change while the job runs.
    directory: PathBuf,
    /// The one file that they are joined into at the end, if the user has named one.
    joined: Option<PathBuf>,
    /// Where objects are made, if it is a store.
    objects: Option<Arc<Target>>,
    format: FileFormat,
    options: WriteOptions,
    compressed: Compressed,
    /// What the names of files end with.
    extension: String,
    /// Tells hidden files of this run from those of others.
    nonce: u64,
    /// Numbers the hidden files.
    files: AtomicU64,
    lock: Mutex<Weak<FileLock>>,
    /// Whether the one file is complete: no part follows.
    is_complete: AtomicBool,
    /// The columns, known once the plan has been checked.
    columns: OnceLock<String>,
}

impl FileFormat {
    const ALL: [FileFormat; 4] = [FileFormat::Csv, FileFormat::Json, FileFormat::Parquet, FileFormat::Arrow];

    fn extension(self) -> &'static str {
        match self {
            FileFormat::Csv => "csv",
            FileFormat::Json => "json",
            FileFormat::Parquet => "parquet",
            FileFormat::Arrow => "arrow",
        }
    }

    fn check(self, schema: &SchemaRef, options: &WriteOptions) -> Result<()> {
        match self {
            FileFormat::Csv => csv::check(schema, &options.csv),
            FileFormat::Json => json::check(schema),
            FileFormat::Parquet => parquet::check(schema),
            FileFormat::Arrow => arrow::check(schema),
        }
    }
}

/// Writes batches into one file.
trait Encoder: Send {
    /// Writes records.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;
    /// About how many bytes the file has so far.
    fn bytes(&self) -> u64;
    /// How much memory is held for what has not been written.
    fn memory(&self) -> usize {
        0
    }
    /// Writes what is held, as far as the format can.
    fn release(&mut self) -> Result<()> {
        Ok(())
    }
    /// Hands on what is held, so that a reader of the file sees it.
    fn flush(&mut self) -> Result<()>;
    /// Writes what is still buffered and returns the file, not yet synced.
    fn finish(self: Box<Self>) -> Result<File>;
}

impl DirectorySink {
    /// Files of this format in this directory, which is made if it does not exist; or the one file of this path, if its name
    /// ends as names of such files do.
    ///
    /// # Errors
    /// When there is a file with the name of a directory.
    pub fn new(path: impl Into<PathBuf>, format: FileFormat) -> Result<DirectorySink> {
        DirectorySink::with_options(path, format, WriteOptions::default())
    }

    /// The same, written so.
    ///
    /// # Errors
    /// When there is a file with the name of a directory, the path has the ending of a file that is not written, or options
    /// contradict each other.
    pub fn with_options(path: impl Into<PathBuf>, format: FileFormat, options: WriteOptions) -> Result<DirectorySink> {
        let path = path.into();
        let named = ending::names_file(&path, format, options.csv.separator)?;
        options.check(format, named.is_some())?;
        let call = format!("write_{}", format.extension());
        if is_object(&path) && named.is_some() {
            return Err(Error::plan(format!(
                "{call}: {path:?} names one object, and one file is written on this machine only, so far: give a prefix that ends with \"/\", \
                 which gets an object for each checkpoint and task"
            )));
        }
        let objects = if is_object(&path) { Some(Arc::new(Target::new(&path, &call)?)) } else { None };
        if named.is_none() && path.exists() && !path.is_dir() {
            return Err(Error::connector(format!(
                "{path:?} is a file; output goes into a directory, one file for each checkpoint and task, or into one file whose \
                 name ends with \".{}\"",
                format.extension()
            )));
        }
        let compressed = options.compressed(format, named)?;
        let absolute = match &objects {
            Some(_) => PathBuf::from(path.to_string_lossy().trim_end_matches('/')),
            None => std::path::absolute(&path)
                .map_err(|e| Error::connector(format!("cannot tell which directory {path:?} is in: {e}")).because(e))?,
        };
        let ending = if let Compressed::Text(packing) = compressed { packing.ending() } else { "" };
        let shared = Shared {
            directory: if named.is_some() { joined::parts_of(&absolute) } else { absolute.clone() },
            joined: named.map(|_| absolute),
            objects,
            named: path,
            format,
            options,
            compressed,
            extension: format!("{}{ending}", format.extension()),
            nonce: fresh_nonce(),
            files: AtomicU64::new(0),
            lock: Mutex::new(Weak::new()),
            is_complete: AtomicBool::new(false),
            columns: OnceLock::new(),
        };
        Ok(DirectorySink { shared: Arc::new(shared), on_existing: OnExisting::default() })
    }

    /// The one file that is written, if it is one: it is complete at the end of the input only.
    pub fn one_file(&self) -> Option<&Path> {
        self.shared.joined.is_some().then_some(&*self.shared.named)
    }

    /// The same sink, doing this about part files of former runs.
    #[must_use]
    pub fn on_existing(mut self, on_existing: OnExisting) -> DirectorySink {
        self.on_existing = on_existing;
        self
    }
}

/// A number that no other run has: the time, the process and a count.
pub(crate) fn fresh_nonce() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    // Relaxed: only that each call gets another number counts.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{now} {} {count}", std::process::id());
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

impl Shared {
    fn name(&self) -> String {
        format!("write_{}({:?}{})", self.format.extension(), self.named, self.options.text())
    }

    /// The same for one run, if objects are written.
    fn of_objects_run(&self) -> Option<Shared> {
        let objects = self.objects.as_ref()?;
        Some(Shared {
            named: self.named.clone(),
            directory: self.directory.clone(),
            joined: self.joined.clone(),
            objects: Some(Arc::new(objects.of_run())),
            format: self.format,
            options: self.options.clone(),
            compressed: self.compressed,
            extension: self.extension.clone(),
            nonce: self.nonce,
            files: AtomicU64::new(0),
            lock: Mutex::new(Weak::new()),
            is_complete: AtomicBool::new(false),
            columns: self.columns.clone(),
        })
    }

    /// The file or directory that the user has named.
    fn path(&self) -> &Path {
        self.joined.as_deref().unwrap_or(&self.directory)
    }

    /// Where the output goes, as a checkpoint keeps it.
    fn target(&self) -> String {
        match &self.objects {
            Some(_) => self.directory.to_string_lossy().into_owned(),
            None => target::text_of(self.path()),
        }
    }

    /// Refuses a former target of which this one is no continuation.
    fn check_target(&self, was: &str) -> Result<()> {
        let is = self.target();
        match &self.objects {
            None => target::check_unmoved(&self.name(), was, self.path()),
            Some(_) if was == is => Ok(()),
            Some(_) => Err(target::moved(&self.name(), "path", &format!("{was:?}"), &format!("{is:?}"))),
        }
    }

    /// Whether the one file is complete.
    fn is_complete(&self) -> bool {
        // Relaxed: a recovery sets it before the writers are made, and a commit once they have ended.
        self.is_complete.load(Ordering::Relaxed)
    }

    fn set_complete(&self, is_complete: bool) {
        self.is_complete.store(is_complete, Ordering::Relaxed);
    }

    /// What writes a file of a task; one file is written by one task, for which all threads of the job may work.
    fn encoder(&self, schema: &SchemaRef, file: File, threads: usize) -> Result<Box<dyn Encoder>> {
        let threads = if self.joined.is_some() { threads } else { 1 };
        Ok(match (self.format, self.compressed) {
            (FileFormat::Csv, Compressed::Text(packing)) => {
                Box::new(csv::CsvEncoder::new(schema, file, packing, &self.options.csv, threads)?)
            }
            (FileFormat::Json, Compressed::Text(packing)) => Box::new(json::JsonEncoder::new(schema, file, packing, threads)?),
            (FileFormat::Parquet, Compressed::Pages(codec)) => {
                Box::new(parquet::ParquetEncoder::new(schema, file, codec, &self.options, threads)?)
            }
            (FileFormat::Arrow, Compressed::Buffers(buffers)) => Box::new(arrow::ArrowEncoder::new(schema, file, buffers)?),
            _ => return Err(Error::internal("a format is compressed in its own way")),
        })
    }

    fn lock(&self) -> Result<Arc<FileLock>> {
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = held.upgrade() {
            return Ok(lock);
        }
        let directory = &self.directory;
        let lock = FileLock::of_directory(directory)
            .map_err(|e| Error::connector(format!("cannot open the directory {directory:?}: {e}")).because(e))?;
        let lock = lock.map(Arc::new).ok_or_else(|| {
            let (to, what) = if self.joined.is_some() { ("", "file") } else { ("in", "directory") };
            Error::connector(format!(
                "another job, or another sink of this job, writes {to}to {:?}; give each its own {what}",
                self.path()
            ))
        })?;
        *held = Arc::downgrade(&lock);
        Ok(lock)
    }
}

impl fmt::Debug for DirectorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Sink for DirectorySink {
    fn name(&self) -> String {
        self.shared.name()
    }

    fn identity(&self) -> Option<String> {
        let Shared { format, options, .. } = self.shared.as_ref();
        Some(format!("write_{}({:?}{})", format.extension(), real(self.shared.path()), options.text()))
    }

    fn kind(&self) -> SinkKind {
        SinkKind::Transactional
    }

    fn check(&self, schema: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        check_key(key, None)?;
        if schema.fields().is_empty() {
            return Err(Error::schema(format!("{}: the stream has no columns", self.name())));
        }
        check_written(schema)?;
        self.shared.options.check_columns(schema)?;
        let columns = schema.fields().iter().map(|field| format!("{:?} {}", field.name(), type_name(field.data_type())));
        self.shared.columns.get_or_init(|| columns.collect::<Vec<_>>().join(", "));
        let of_files = partition::Partitioning::new(schema, &self.shared.options.partition_by)?;
        self.shared.format.check(of_files.schema(), &self.shared.options)
    }

    fn parallelism_max(&self) -> Option<usize> {
        self.shared.joined.is_some().then_some(1)
    }

    fn writes(&self) -> Option<PathBuf> {
        let Shared { directory, joined, extension, options, .. } = self.shared.as_ref();
        let directories = options.partition_by.iter().map(|key| format!("{key}=0"));
        let part = || directory.join(directories.collect::<PathBuf>()).join(name::committed(Epoch(1), 0, 1, extension));
        Some(joined.clone().unwrap_or_else(part))
    }

    fn target(&self) -> Option<String> {
        Some(self.shared.target())
    }

    fn check_target(&self, was: &str) -> Result<()> {
        self.shared.check_target(was)
    }

    fn handover(&self) -> Option<String> {
        // One file is complete with the last of its parts only, and objects are completed by the store they are in.
        let is_directory = self.shared.joined.is_none() && self.shared.objects.is_none();
        is_directory.then(|| Handover::Directory { path: self.shared.directory.clone() })?.encode()
    }

    fn writer(&self, schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(DirectoryWriter::new(Arc::clone(&self.shared), schema, context)?))
    }

    fn of_run(&self) -> Result<Option<Arc<dyn Sink>>> {
        // A directory is locked by a run, and so has only one. A prefix of a store may have several at a time.
        let shared = self.shared.of_objects_run();
        Ok(shared.map(|shared| Arc::new(DirectorySink { shared: Arc::new(shared), on_existing: self.on_existing }) as Arc<dyn Sink>))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        if let Some(target) = &self.shared.objects {
            return Ok(Box::new(UploadCommitter::new(Arc::clone(&self.shared), Arc::clone(target), self.on_existing)));
        }
        let lock = make(&self.shared.directory).and_then(|()| self.shared.lock())?;
        Ok(Box::new(DirectoryCommitter::new(Arc::clone(&self.shared), self.on_existing, lock)))
    }
}

/// Makes a directory and those above it, each name durable in the directory that holds it.
fn make(directory: &Path) -> Result<()> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = directory.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(directory)
        .map_err(|e| Error::connector(format!("cannot make the directory {directory:?}: {e}")).because(e))?;
    missing.iter().try_for_each(|made| match made.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    })
}

/// Makes entries of a directory durable.
fn sync_directory(directory: &Path) -> Result<()> {
    mill_fault::reach("file.sync_dir")
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|e| Error::connector(format!("cannot sync the directory {directory:?}: {e}")).because(e))
}

#[cfg(test)]
mod tests;
