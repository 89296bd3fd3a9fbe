//! Applies the rows of epochs, each once.

use std::fs::{File, OpenOptions, TryLockError};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Schema, SchemaRef};
use mill_frame::Frame;
use mill_protocol::{Batch, Commit, Committer, Delivery, Epoch, Error, Result};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter};

use super::spool::{Handle, Rows, directory_of, for_each_frame, prefix};
use super::statement;
use super::value::Column;
use super::{Shared, value};
use crate::nearest::{did_you_mean, quoted};

/// The table in which is noted what was applied.
pub(super) const EPOCHS: &str = "_millstream";
/// How long a database that another program holds locked is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(10);
/// Notes of epochs further back than this are removed; no checkpoint that old can still be restored exactly.
const NOTED_EPOCHS: u64 = 1000;

pub(super) struct SqliteCommitter {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    delivery: Delivery,
    restored: Option<Epoch>,
    _lock: File,
}

/// Checks, without changing the table, that one that exists can take these columns.
///
/// Not with a read-only connection: a killed process leaves a journal behind, and whoever looks first rolls it back.
pub(super) fn check_table(shared: &Shared, schema: &Schema) -> Result<()> {
    if !shared.path.exists() {
        let directory = directory_of(&shared.path);
        if !directory.is_dir() {
            return Err(Error::connector(format!("{}: there is no directory {directory:?}", shared.name())));
        }
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&shared.path, flags).map_err(|e| shared.failed("open it", e))?;
    connection.busy_timeout(BUSY_WAIT).map_err(|e| shared.failed("open it", e))?;
    match columns_of(shared, &connection)? {
        None => Ok(()),
        Some(columns) => check_columns(shared, &connection, schema, &columns),
    }
}

/// The columns of the table; `None` if there is none.
fn columns_of(shared: &Shared, connection: &Connection) -> Result<Option<Vec<String>>> {
    let failed = |e| shared.failed("look at the table", e);
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1)").map_err(failed)?;
    let names = statement.query_map([&shared.table], |row| row.get::<_, String>(0)).map_err(failed)?;
    let names = names.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    Ok((!names.is_empty()).then_some(names))
}

fn check_columns(shared: &Shared, connection: &Connection, schema: &Schema, columns: &[String]) -> Result<()> {
    for field in schema.fields() {
        if !columns.iter().any(|column| column.eq_ignore_ascii_case(field.name())) {
            return Err(Error::schema(format!(
                "{}: the table has no column {:?}{} (it has {}); rename() the column, or write into another table",
                shared.name(),
                field.name(),
                did_you_mean(field.name(), columns.iter().map(String::as_str)),
                quoted(columns, ", ")
            )));
        }
    }
    // Preparing the statement shows whether the key is one in the table.
    let sql = statement::insert(&shared.table, schema, shared.key.as_deref());
    connection.prepare(&sql).map(|_| ()).map_err(|e| match &shared.key {
        Some(key) if e.to_string().contains("ON CONFLICT") => Error::schema(format!(
            "{}: the table has no primary key or unique index on ({}); make one, or write into another table",
            shared.name(),
            quoted(key, ", ")
        )),
        _ => shared.failed("write the table", e),
    })
}

impl SqliteCommitter {
    pub(super) fn new(shared: Arc<Shared>) -> Result<SqliteCommitter> {
        let path = directory_of(&shared.path).join(format!("{}lock", prefix(&shared.path, &shared.table)));
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::connector(format!("{}: cannot make {path:?}: {e}", shared.name())).because(e))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::connector(format!(
                "another job, or another sink of this job, writes {}; give each its own table",
                shared.name()
            )));
        }
        let (delivery, restored) = (Delivery::ExactlyOnce, None);
        Ok(SqliteCommitter { shared, connection: None, delivery, restored, _lock: lock })
    }

    /// The open database, its tables made and checked.
    fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let connection = self.open()?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or_else(|| Error::internal("the database was just opened"))
    }

    fn open(&self) -> Result<Connection> {
        let shared = &self.shared;
        let schema = shared.schema()?;
        let failed = |e| shared.failed("open it", e);
        shared.reach("sqlite.open")?;
        let connection = Connection::open(&shared.path).map_err(failed)?;
        connection.busy_timeout(BUSY_WAIT).map_err(failed)?;
        // The checkpoint counts on it that what was committed stays.
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        let epochs = format!(
            "CREATE TABLE IF NOT EXISTS {EPOCHS} \
             (sink TEXT NOT NULL, epoch INTEGER NOT NULL, part TEXT NOT NULL, PRIMARY KEY (sink, epoch, part)) \
             WITHOUT ROWID"
        );
        connection.execute(&epochs, []).map_err(|e| shared.failed(&format!("make the table {EPOCHS}"), e))?;
        match columns_of(shared, &connection)? {
            Some(columns) => check_columns(shared, &connection, &schema, &columns)?,
            None => {
                let sql = statement::create(&shared.table, &schema, shared.key.as_deref());
                connection.execute(&sql, []).map_err(|e| shared.failed("make the table", e))?;
            }
        }
        Ok(connection)
    }

    /// Hidden files for this table, of this run only if asked for.
    fn spools(&self, of_this_run: bool) -> Result<Vec<std::path::PathBuf>> {
        let directory = directory_of(&self.shared.path);
        let mut prefix = prefix(&self.shared.path, &self.shared.table);
        if of_this_run {
            prefix += &format!("{:016x}-", self.shared.nonce);
        }
        let entries = std::fs::read_dir(directory).map_err(|e| {
            Error::connector(format!("cannot list the directory {directory:?}: {e}")).because(e)
        })?;
        Ok(entries
            .flatten()
            .filter(|entry| {
                let name = entry.file_name();
                name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(".rows"))
            })
            .map(|entry| entry.path())
            .collect())
    }

    fn remove_spools(&self, of_this_run: bool) -> Result<()> {
        for path in self.spools(of_this_run)? {
            match mill_fault::reach("sqlite.remove").and_then(|()| std::fs::remove_file(&path)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::connector(format!("cannot remove {path:?}: {e}")).because(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An exactly-once table that appends cannot take back what a later checkpoint than the restored one wrote.
    fn check_restored(&mut self) -> Result<()> {
        let (Delivery::ExactlyOnce, Some(restored), None) = (self.delivery, self.restored, &self.shared.key) else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let sql = format!("SELECT max(epoch) FROM {EPOCHS} WHERE sink = ?1");
        let newest: Option<i64> = self
            .connection()?
            .query_row(&sql, [&shared.table], |row| row.get(0))
            .optional()
            .map_err(|e| shared.failed("read what was applied", e))?
            .flatten();
        match newest {
            Some(newest) if newest > restored.0 as i64 => Err(Error::connector(format!(
                "{}: the table has rows of checkpoint {newest}, later than {}, which was restored, and they would come \
                 again: restore the later checkpoint, or write into another table",
                shared.name(),
                restored.0
            ))),
            _ => Ok(()),
        }
    }
}

impl Committer for SqliteCommitter {
    fn promise(&mut self, delivery: Delivery, restored: Option<Epoch>) -> Result<()> {
        self.delivery = delivery;
        self.restored = restored;
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let sql = format!("DELETE FROM {EPOCHS} WHERE sink = ?1");
        self.connection()?.execute(&sql, [&shared.table]).map_err(|e| shared.failed("begin", e))?;
        self.remove_spools(false)
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let schema = shared.schema()?;
        let mut handles = Vec::with_capacity(commits.len());
        for commit in commits {
            let handle = Handle::decode(&commit.handle).ok_or_else(|| {
                Error::checkpoint(format!("{}: the rows kept for epoch {} are damaged", shared.name(), commit.epoch.0))
            })?;
            handles.push((commit.epoch, handle));
        }
        shared.reach("sqlite.begin")?;
        let connection = self.connection()?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|e| shared.failed("begin a transaction (nothing was changed, determinate)", e))?;
        let mut newest = 0;
        for (epoch, handle) in &handles {
            newest = newest.max(epoch.0);
            if is_new(&shared, &transaction, *epoch, &handle.part)? {
                apply(&shared, &transaction, &schema, handle)?;
            }
        }
        let sql = format!("DELETE FROM {EPOCHS} WHERE sink = ?1 AND epoch < ?2");
        let before = newest.saturating_sub(NOTED_EPOCHS) as i64;
        transaction.execute(&sql, params![shared.table, before]).map_err(|e| shared.failed("note the epoch", e))?;
        shared.reach("sqlite.commit")?;
        transaction.commit().map_err(|e| {
            shared.failed("commit (whether it happened is not known, indeterminate; the next run finds out)", e)
        })?;
        for (_, handle) in &handles {
            if let Rows::Spooled(spooled) = &handle.rows {
                // What cannot be removed now is removed by the next recovery.
                let path = directory_of(&shared.path).join(&spooled.file);
                let _ = mill_fault::reach("sqlite.remove").and_then(|()| std::fs::remove_file(path));
            }
        }
        Ok(())
    }

    fn recover(&mut self, commits: &[Commit]) -> Result<()> {
        self.check_restored()?;
        self.connection()?;
        self.commit(commits)?;
        self.remove_spools(false)
    }

    fn abort(&mut self) -> Result<()> {
        self.remove_spools(true)
    }
}

/// Notes a handle as applied; whether it was not before.
fn is_new(shared: &Shared, transaction: &Transaction<'_>, epoch: Epoch, part: &str) -> Result<bool> {
    let sql = format!("INSERT INTO {EPOCHS} (sink, epoch, part) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING");
    let noted = transaction.execute(&sql, params![shared.table, epoch.0 as i64, part]);
    Ok(noted.map_err(|e| shared.failed("note the epoch", e))? == 1)
}

fn apply(shared: &Shared, transaction: &Transaction<'_>, schema: &SchemaRef, handle: &Handle) -> Result<()> {
    for_each_frame(&handle.rows, &shared.path, |bytes| {
        let batch = Frame::from_bytes(bytes, schema).and_then(|frame| frame.decode(schema)).map_err(|e| {
            Error::checkpoint(format!("{}: the rows kept in the checkpoint cannot be read: {e}", shared.name()))
                .because(e)
        })?;
        apply_batch(shared, transaction, &batch)
    })
}

fn apply_batch(shared: &Shared, transaction: &Transaction<'_>, batch: &Batch) -> Result<()> {
    shared.reach("sqlite.apply")?;
    let schema = batch.schema();
    let key = shared.key.as_deref();
    let failed = |e| shared.failed("write rows", e);
    let mut insert =
        transaction.prepare_cached(&statement::insert(&shared.table, &schema, key)).map_err(failed)?;
    let mut delete = match key {
        None => None,
        Some(key) => Some(transaction.prepare_cached(&statement::delete(&shared.table, key)).map_err(failed)?),
    };
    let columns: Vec<value::Column> = schema
        .fields()
        .iter()
        .zip(batch.data().columns())
        .map(|(field, array)| Column::new(field.name(), array))
        .collect::<Result<_>>()?;
    let key_columns: Vec<&Column> =
        key.iter().flat_map(|key| key.iter()).filter_map(|name| columns.get(schema.index_of(name).ok()?)).collect();
    for row in 0..batch.rows() {
        let is_delete = batch.deletes().is_some_and(|deletes| deletes.value(row));
        if let Some(delete) = &mut delete {
            // SQLite lets null keys stand beside each other: they are replaced by hand.
            if is_delete || key_columns.iter().any(|column| column.is_null(row)) {
                let values = key_columns.iter().map(|column| column.value(row));
                delete.execute(params_from_iter(values)).map_err(failed)?;
            }
        }
        if !is_delete {
            let values: Vec<ToSqlOutput<'_>> = columns.iter().map(|column| column.value(row)).collect();
            insert.execute(params_from_iter(values)).map_err(failed)?;
        }
    }
    Ok(())
}
