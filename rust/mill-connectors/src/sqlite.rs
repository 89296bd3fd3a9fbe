//! A table in SQLite, exactly once: `write_sqlite`.
//!
//! ```text
//!   write        rows gathered as frames: in memory while few, in a hidden file beside the database when many
//!   pre-commit   the frames, or the synced file's name and checksum, go into the checkpoint
//!   commit       one transaction: the rows of all handles, and in `_millstream` up to which epoch they were applied
//!   recover      `_millstream` is compared with what the checkpoint knows to be committed; what is pending is applied
//! ```
//!
//! The row in `_millstream` and the rows of the epoch become durable together, so a handle that is committed again after
//! a crash is seen to be applied and is skipped. With a key rows are upserts and withdrawals are deletes; without
//! one they are appended. Notes, hidden files and the lock belong to one sink of one job ([`owner`]), so several jobs, and
//! several sinks of a job, can write one table.

mod committer;
mod locks;
mod nan;
mod notes;
mod owner;
mod spool;
mod statement;
mod table;
mod value;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Committer, Error, Result, Sink, SinkKind, SinkWriter, TaskContext};

use crate::directory::fresh_nonce;
use crate::file::real;
use crate::handover::{self, Handover};
use crate::nearest::did_you_mean;
use crate::updating::check_key;
use crate::objects::check_written;
use crate::target;
use committer::SqliteCommitter;
use owner::Owner;
use spool::SqliteWriter;

/// How long a database that another program holds locked is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// A table as a sink.
pub struct SqliteSink {
    shared: Arc<Shared>,
}

/// What sink, writers and the committer share.
struct Shared {
    /// The database as the user wrote it, for messages.
    shown: PathBuf,
    /// The file itself, so that what is kept beside it does not depend on how it was written.
    path: PathBuf,
    table: String,
    key: Option<Vec<String>>,
    /// Tells what this run writes from what others do; another for each committer.
    run: AtomicU64,
    /// Whose files this run's are, once the committer was told.
    owner: Mutex<Option<Arc<Owner>>>,
    /// Numbers the handles.
    handles: AtomicU64,
    /// The columns of the stream, known once it was checked.
    schema: Mutex<Option<SchemaRef>>,
}

impl SqliteSink {
    /// Rows of this table; made if it does not exist. With a key a row replaces the row of its key.
    ///
    /// # Errors
    /// When the name of the table or the key is empty, or the database would be one in memory.
    pub fn new(path: impl Into<PathBuf>, table: impl Into<String>, key: Option<Vec<String>>) -> Result<SqliteSink> {
        let (path, table) = (path.into(), table.into());
        if is_of_memory(&path) {
            return Err(Error::plan(format!(
                "write_sqlite: {path:?} is a database in memory, which is gone when the job ends: give the path of a file, or \
                 use collect() for rows in memory"
            )));
        }
        if table.is_empty() || table.contains('\0') {
            return Err(Error::plan("write_sqlite: the table needs a name"));
        }
        if table.eq_ignore_ascii_case(notes::TABLE) || table.eq_ignore_ascii_case(nan::TABLE) {
            return Err(Error::plan(format!("write_sqlite: {table:?} is where the engine notes what it has written")));
        }
        if key.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::plan("write_sqlite: the key needs at least one column; leave it out to append rows"));
        }
        if path.as_os_str() == ":memory:" || path.as_os_str().is_empty() {
            return Err(Error::plan(format!(
                "write_sqlite({path:?}, {table:?}): a database in memory is gone when the job ends; give the path of a file"
            )));
        }
        let shared = Shared {
            path: real(&path),
            shown: path,
            table,
            key,
            run: AtomicU64::new(0),
            owner: Mutex::new(None),
            handles: AtomicU64::new(0),
            schema: Mutex::new(None),
        };
        Ok(SqliteSink { shared: Arc::new(shared) })
    }

    /// The same sink, for rows with these columns.
    pub(crate) fn with_columns(self, schema: &SchemaRef) -> SqliteSink {
        self.shared.set_schema(schema);
        self
    }
}

/// Whether SQLite would keep the database in memory, or in a file that it deletes.
fn is_of_memory(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.is_empty() || path == ":memory:" || path.starts_with("file::memory:")
}

impl Shared {
    /// The run that writes now.
    fn run(&self) -> u64 {
        // Relaxed: the committer sets it before writers are made, which is when threads are started.
        self.run.load(Ordering::Relaxed)
    }

    fn owner(&self) -> Result<Arc<Owner>> {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        owner.ok_or_else(|| Error::internal("a committer learns of its run before anything else"))
    }

    fn set_owner(&self, owner: Option<Arc<Owner>>) {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
    }

    /// The name of the hidden file for a part.
    fn spool_name(&self, part: &str) -> Result<String> {
        Ok(self.owner()?.spool_name(&self.path, part))
    }

    /// Where the rows go, as a checkpoint keeps it: the database, and after a `#` the table.
    fn target(&self) -> String {
        format!("{}#{}", target::text_of(&self.path), self.table)
    }

    /// Refuses a former target of which this one is no continuation.
    fn check_target(&self, was: &str) -> Result<()> {
        // Targets of older checkpoints are databases alone.
        let (path, table) = was.rsplit_once('#').map_or((was, None), |(path, table)| (path, Some(table)));
        target::check_unmoved(&self.name(), path, &self.path)?;
        match table.filter(|table| !table.eq_ignore_ascii_case(&self.table)) {
            None => Ok(()),
            Some(table) => Err(target::moved(&self.name(), "table", &format!("{table:?}"), &format!("{:?}", self.table))),
        }
    }

    fn schema(&self) -> Result<SchemaRef> {
        let schema = self.schema.lock().unwrap_or_else(PoisonError::into_inner).clone();
        schema.ok_or_else(|| Error::internal("a sink is checked before it is used"))
    }

    fn set_schema(&self, schema: &SchemaRef) {
        *self.schema.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(schema));
    }

    fn name(&self) -> String {
        format!("write_sqlite({:?}, {:?})", self.shown, self.table)
    }

    /// A step that a test may let fail.
    fn reach(&self, step: &'static str) -> Result<()> {
        mill_fault::reach(step)
            .map_err(|error| Error::connector(format!("{}: {step}: {error}", self.name())).because(error))
    }

    fn failed(&self, doing: &str, error: rusqlite::Error) -> Error {
        let hint = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
                "; another program holds the database locked: let it finish, and run the job again"
            }
            Some(rusqlite::ErrorCode::DiskFull) => "; free some space and run the job again",
            Some(rusqlite::ErrorCode::ReadOnly) => "; make the file and its directory writable and run the job again",
            Some(rusqlite::ErrorCode::NotADatabase) => "; write into another file",
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => "; put it back from a copy, or write into another file",
            _ => "",
        };
        // A transaction that fails is rolled back as a whole; what is not known is only the fate of a COMMIT.
        Error::connector(format!("{}: cannot {doing}: {error}{hint}", self.name())).because(error)
    }
}

impl fmt::Debug for SqliteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Sink for SqliteSink {
    fn name(&self) -> String {
        self.shared.name()
    }

    fn kind(&self) -> SinkKind {
        if self.shared.key.is_some() { SinkKind::Idempotent } else { SinkKind::WriteAhead }
    }

    fn identity(&self) -> Option<String> {
        Some(format!("write_sqlite({:?}, {:?})", self.shared.path, self.shared.table.to_lowercase()))
    }

    fn writes(&self) -> Option<PathBuf> {
        Some(self.shared.path.clone())
    }

    fn check(&self, schema: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        if names.is_empty() {
            return Err(Error::schema(format!("{}: the stream has no columns", self.name())));
        }
        check_written(schema)?;
        value::check(schema)?;
        for column in self.shared.key.iter().flatten() {
            if !names.contains(&column.as_str()) {
                return Err(Error::schema(format!(
                    "{}: key column {column:?} is not a column of the stream{}",
                    self.name(),
                    did_you_mean(column, names.iter().copied())
                )));
            }
        }
        check_key(key, self.shared.key.as_deref())?;
        // SQLite takes names of columns that differ in case alone for the same.
        for (index, name) in names.iter().enumerate() {
            if let Some(other) = names[..index].iter().find(|other| other.eq_ignore_ascii_case(name)) {
                return Err(Error::schema(format!(
                    "{}: SQLite does not tell the columns {other:?} and {name:?} apart; rename() one",
                    self.name()
                )));
            }
        }
        table::check(&self.shared, schema)?;
        self.shared.set_schema(schema);
        Ok(())
    }

    fn target(&self) -> Option<String> {
        Some(self.shared.target())
    }

    fn check_target(&self, was: &str) -> Result<()> {
        self.shared.check_target(was)
    }

    fn handover(&self) -> Option<String> {
        let Shared { path, table, key, .. } = &*self.shared;
        let path = std::path::absolute(path).ok()?;
        let schema = handover::encoded(&self.shared.schema().ok()?)?;
        Handover::Sqlite { path, table: table.clone(), key: key.clone(), schema }.encode()
    }

    fn writer(&self, schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        self.shared.set_schema(schema);
        Ok(Box::new(SqliteWriter::new(Arc::clone(&self.shared), context.index)))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        // Relaxed: as in `Shared::run`.
        self.shared.run.store(fresh_nonce(), Ordering::Relaxed);
        Ok(Box::new(SqliteCommitter::new(Arc::clone(&self.shared))))
    }
}

#[cfg(test)]
mod tests;
