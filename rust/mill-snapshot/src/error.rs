//! The errors of checkpoints, each with advice on what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything that touches the disk.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure to write or read checkpoints, named by what happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The file system is full, or a quota is used up.
    NoSpace {
        /// The file that could not be allocated.
        path: PathBuf,
        /// How many bytes it would have had.
        needed: u64,
        /// How many bytes are free, where known.
        free: Option<u64>,
    },
    /// The process may not read or write there.
    Permission {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Another job uses the state directory.
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds the lock, where it could be read.
        holder: Option<u32>,
    },
    /// A newer version of Millstream wrote this.
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format version it has.
        found: u32,
        /// The newest format version this program reads.
        known: u32,
    },
    /// An older version of Millstream wrote this, in a form that is no longer read.
    OlderFormat {
        /// The file.
        path: PathBuf,
        /// The format version it has.
        found: u32,
        /// The oldest format version this program reads.
        known: u32,
    },
    /// A file is not what was written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A directory that is neither empty nor a state directory.
    NotACheckpoint {
        /// The directory.
        path: PathBuf,
        /// What was looked for, or what is in the way.
        what: String,
    },
    /// State was here, but all of it is gone.
    StateMissing {
        /// The directory.
        path: PathBuf,
        /// The newest checkpoint that is known to have been published.
        epoch: u64,
    },
    /// Checkpoints are here, but none of them is whole.
    NothingVerifies {
        /// The directory.
        path: PathBuf,
        /// One line a checkpoint, newest first: what is wrong with it.
        reasons: Vec<String>,
    },
    /// There is no checkpoint of this number.
    NoSuchCheckpoint {
        /// The directory.
        path: PathBuf,
        /// The number asked for.
        epoch: u64,
    },
    /// The system could not make written bytes durable; the file is given up and never written again.
    SyncFailed {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The checkpoint may or may not have become durable: treat it as failed, but never reuse its number.
    Indeterminate {
        /// The number of the checkpoint.
        epoch: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A checkpoint number that is not above all numbers used before.
    EpochTaken {
        /// The number asked for.
        epoch: u64,
        /// The smallest number that is free.
        next: u64,
    },
    /// A checkpoint of changes was asked for where only a full one has something to build on.
    NeedsFull {
        /// The number of the checkpoint.
        epoch: u64,
    },
    /// The checkpoint was finished or abandoned before.
    Closed {
        /// The number of the checkpoint.
        epoch: u64,
    },
    /// The store was opened for looking only.
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// Something is larger than the format allows.
    TooLarge {
        /// What it is.
        what: String,
        /// Its size.
        size: u64,
        /// The largest size allowed.
        limit: u64,
    },
    /// A savepoint cannot be written where something else is.
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// An object store did not answer, or refused.
    Unreachable {
        /// What it said, which names the object.
        source: io::Error,
    },
    /// Another job has the lease of a place in an object store.
    Leased {
        /// The place.
        url: String,
        /// Who has it.
        holder: String,
        /// Whether that is a process of this machine.
        is_here: bool,
    },
    /// Another job has taken the lease of a place in an object store over from this one.
    LeaseLost {
        /// The place.
        url: String,
        /// Who has it now, or what has become of it.
        what: String,
    },
    /// The system refused for another reason.
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// Names what the system said: full, forbidden, or something else.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Error {
        use io::ErrorKind as Kind;
        let path = path.to_path_buf();
        match source.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => Error::NoSpace { path, needed: 0, free: None },
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Error::Permission { path, doing, source },
            _ => Error::Io { path, doing, source },
        }
    }

    /// A file that is not what was written.
    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Error {
        Error::Damaged { path: path.to_path_buf(), offset, what: what.into() }
    }

    /// What an object store said.
    pub(crate) fn unreachable(source: io::Error) -> Error {
        Error::Unreachable { source }
    }

    /// Whether another, older checkpoint may still serve: what was written is lost. Where it may only be out of reach
    /// (too many open files, no memory), going back would throw away good state.
    pub(crate) fn allows_fallback(&self) -> bool {
        match self {
            Error::Damaged { .. } => true,
            Error::Io { source, .. } => {
                source.raw_os_error() == Some(libc::EIO) || source.kind() == io::ErrorKind::NotFound
            }
            _ => false,
        }
    }

    /// Whether a retry on new files at the next interval may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::NoSpace { .. }
                | Error::Permission { .. }
                | Error::SyncFailed { .. }
                | Error::Indeterminate { .. }
                | Error::NeedsFull { .. }
                | Error::Unreachable { .. }
                | Error::Io { .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSpace { path, needed, free } => {
                write!(f, "no space left on disk for {}", path.display())?;
                if *needed > 0 {
                    write!(f, " ({needed} bytes needed")?;
                    if let Some(free) = free {
                        write!(f, ", {free} free")?;
                    }
                    write!(f, ")")?;
                }
                write!(f, "; free some space or give another checkpoint directory")
            }
            Error::Permission { path, doing, source } => write!(
                f,
                "not allowed to {doing} {}: {source}; check owner and mode, or give another checkpoint directory",
                path.display()
            ),
            Error::Locked { path, holder } => {
                write!(f, "state directory {} is in use by ", path.display())?;
                match holder {
                    Some(pid) if *pid == std::process::id() => {
                        write!(f, "another job of this process (pid {pid}); stop that job first")
                    }
                    Some(pid) => {
                        write!(f, "process {pid} (or one it has started); stop it first, or give another directory")
                    }
                    None => write!(f, "another process; stop it first, or give another directory"),
                }
            }
            Error::NewerFormat { path, found, known } => write!(
                f,
                "{} has format version {found}, this program reads up to {known}; use a newer version of millstream",
                path.display()
            ),
            Error::OlderFormat { path, found, known } => write!(
                f,
                "{} has format version {found}, this program reads version {known}; finish the job with the version of \
                 millstream that wrote it, or start over with another state directory",
                path.display()
            ),
            Error::Damaged { path, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", path.display())
            }
            Error::NotACheckpoint { path, what } => {
                write!(f, "{} is not a millstream state directory: {what}", path.display())
            }
            Error::StateMissing { path, epoch } => write!(
                f,
                "the checkpoints in {} are gone: checkpoint {epoch} was published, but no manifest is left; \
                 put the files back, or give an empty directory to start from nothing",
                path.display()
            ),
            Error::NothingVerifies { path, reasons } => {
                write!(
                    f,
                    "no checkpoint in {} is whole; put the files back, restore from a savepoint, or give an empty \
                     directory to start from nothing",
                    path.display()
                )?;
                reasons.iter().try_for_each(|reason| write!(f, "\n  {reason}"))
            }
            Error::NoSuchCheckpoint { path, epoch } => {
                write!(f, "{} has no checkpoint {epoch}; `millstream state list` shows those there are", path.display())
            }
            Error::SyncFailed { path, source } => write!(
                f,
                "could not make {} durable: {source}; this checkpoint is given up, the next one uses new files",
                path.display()
            ),
            Error::Indeterminate { epoch, source } => write!(
                f,
                "checkpoint {epoch} may or may not be durable: {source}; it counts as failed until a later one succeeds"
            ),
            Error::EpochTaken { epoch, next } => {
                write!(f, "checkpoint number {epoch} is taken; the next free one is {next}")
            }
            Error::NeedsFull { epoch } => write!(
                f,
                "checkpoint {epoch} holds only changes, but what it builds on was not stored; the next must be full"
            ),
            Error::Closed { epoch } => write!(f, "checkpoint {epoch} was finished or abandoned before"),
            Error::ReadOnly { path } => {
                write!(f, "{} was opened for looking only; open it as a store to write", path.display())
            }
            Error::TooLarge { what, size, limit } => write!(f, "{what} is too large: {size}, at most {limit}"),
            Error::NotEmpty { path } => {
                write!(f, "{} is not empty; give a new directory for the savepoint", path.display())
            }
            Error::Unreachable { source } => write!(f, "{source}"),
            Error::Leased { url, holder, is_here: true } => {
                write!(f, "{url} is in use by {holder}, which is this machine; stop that job first, or give another prefix")
            }
            Error::Leased { url, holder, is_here: false } => {
                write!(f, "{url} is in use by {holder}, which is running; stop that job first, or give another prefix")
            }
            Error::LeaseLost { url, what } => write!(
                f,
                "this job no longer has the lease of {url}: {what}; it ends without another checkpoint, since only one job can continue from there"
            ),
            Error::Io { path, doing, source } => write!(f, "could not {doing} {}: {source}", path.display()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Permission { source, .. }
            | Error::SyncFailed { source, .. }
            | Error::Indeterminate { source, .. }
            | Error::Unreachable { source }
            | Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
