//! Applies the rows of epochs, each once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use mill_frame::Frame;
use mill_protocol::{Batch, Commit, Committer, Delivery, Epoch, Error, Recovered, Result, Run};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::notes::{Notes, Receipt, lost};
use super::owner::{Owner, directory_of};
use super::spool::{Handle, Rows, for_each_frame};
use super::table::{check_columns, columns_of, rowid_alias};
use super::value::Column;
use super::{BUSY_WAIT, Shared, locks, nan, statement};

pub(super) struct SqliteCommitter {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    delivery: Delivery,
    restored: Option<Epoch>,
    /// Where is noted what was applied; nowhere, if nobody will ask.
    notes: Option<Notes>,
    receipt: Option<Receipt>,
    /// The column of the stream in which the table cannot hold a null.
    alias: Option<String>,
}

impl SqliteCommitter {
    pub(super) fn new(shared: Arc<Shared>) -> SqliteCommitter {
        SqliteCommitter {
            shared,
            connection: None,
            delivery: Delivery::ExactlyOnce,
            restored: None,
            notes: None,
            receipt: None,
            alias: None,
        }
    }

    /// The open database, its tables made and checked.
    pub(super) fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let connection = self.open()?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().ok_or_else(|| Error::internal("the database was just opened"))
    }

    fn open(&mut self) -> Result<Connection> {
        let shared = Arc::clone(&self.shared);
        let schema = shared.schema()?;
        let failed = |e| shared.failed("open it", e);
        shared.reach("sqlite.open")?;
        let connection = locks::open(&shared.path).map_err(failed)?;
        connection.busy_timeout(BUSY_WAIT).map_err(failed)?;
        // The checkpoint counts on it that what was committed stays.
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        if self.notes.is_some() {
            Notes::create(&shared, &connection)?;
        }
        if columns_of(&shared, &connection)?.is_none() {
            let sql = statement::create(&shared.table, &schema, shared.key.as_deref());
            connection.execute(&sql, []).map_err(|e| shared.failed("make the table", e))?;
        }
        let columns = columns_of(&shared, &connection)?
            .ok_or_else(|| Error::connector(format!("{}: the table was made and is gone", shared.name())))?;
        check_columns(&shared, &connection, &schema, &columns)?;
        let is_alias = |name: &str| rowid_alias(&columns).is_some_and(|alias| alias.eq_ignore_ascii_case(name));
        self.alias = schema.fields().iter().map(|field| field.name()).find(|name| is_alias(name)).cloned();
        Ok(connection)
    }

    fn remove_spools(&self, run: Option<u64>) -> Result<()> {
        for path in self.shared.owner()?.spools(&self.shared.path, run)? {
            match mill_fault::reach("sqlite.remove").and_then(|()| std::fs::remove_file(&path)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::connector(format!("cannot remove {path:?}: {e}")).because(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Compares the database with what the checkpoint knows to be committed, before anything is made that is not there: a
    /// table that was dropped must not come back empty and look whole to the next run.
    fn check_committed(&mut self, receipt: Receipt) -> Result<()> {
        if !self.shared.path.exists() {
            // An empty one has no notes, so the next run refuses it too; and whoever reads the table finds it empty.
            self.connection()?;
            return Err(lost(&self.shared, receipt, "did not exist"));
        }
        let (shared, Some(notes)) = (&self.shared, &self.notes) else { return Ok(()) };
        let connection = locks::open(&shared.path).map_err(|e| shared.failed("open it", e))?;
        connection.busy_timeout(BUSY_WAIT).map_err(|e| shared.failed("open it", e))?;
        if !Notes::exist(shared, &connection)? {
            return Err(lost(shared, receipt, "has no notes of what was applied"));
        }
        notes.check(shared, &connection, receipt)?;
        if columns_of(shared, &connection)?.is_none() {
            return Err(lost(shared, receipt, &format!("has no table {:?} any more", shared.table)));
        }
        Ok(())
    }

    /// An exactly-once table that appends cannot take back what a later checkpoint than the restored one wrote.
    fn check_restored(&mut self) -> Result<()> {
        let (Delivery::ExactlyOnce, Some(restored), None) = (self.delivery, self.restored, &self.shared.key) else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        self.connection()?;
        let (Some(notes), Some(connection)) = (&self.notes, &self.connection) else { return Ok(()) };
        match notes.newest(&shared, connection)? {
            Some(newest) if newest > restored => Err(Error::connector(format!(
                "{}: the table has rows of checkpoint {}, later than {}, which was restored, and they would come again: \
                 restore the later checkpoint, or write into another table",
                shared.name(),
                newest.0,
                restored.0
            ))),
            _ => Ok(()),
        }
    }
}

impl Committer for SqliteCommitter {
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        self.delivery = run.delivery;
        self.restored = run.restored;
        // At most once nothing is committed a second time, so nobody asks.
        self.notes = Notes::of(run, &self.shared.table).filter(|_| run.delivery != Delivery::AtMostOnce);
        let owner = Owner::take(&self.shared.path, &self.shared.table, run)?;
        self.shared.set_owner(Some(Arc::new(owner)));
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.connection()?;
        self.remove_spools(None)
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let schema = shared.schema()?;
        let mut handles = Vec::with_capacity(commits.len());
        for commit in commits {
            let handle = Handle::decode(&commit.handle, &shared).ok_or_else(|| {
                Error::checkpoint(format!(
                    "{}: the rows kept for epoch {} are damaged, or not those of this sink",
                    shared.name(),
                    commit.epoch.0
                ))
            })?;
            handles.push((commit.epoch, handle));
        }
        self.connection()?;
        let (Some(connection), notes) = (&mut self.connection, &self.notes) else {
            return Err(Error::internal("the database was just opened"));
        };
        shared.reach("sqlite.begin")?;
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|e| shared.failed("begin a transaction (nothing was changed)", e))?;
        // The newest epoch of each run: as the database has it, and as it will.
        let mut runs: BTreeMap<u64, (Option<Epoch>, Epoch)> = BTreeMap::new();
        for (epoch, handle) in &handles {
            let applied = match (runs.get(&handle.run), notes) {
                (Some((applied, _)), _) => *applied,
                (None, Some(notes)) => notes.applied(&shared, &transaction, handle.run)?,
                (None, None) => None,
            };
            let newest = runs.entry(handle.run).or_insert((applied, *epoch));
            newest.1 = newest.1.max(*epoch);
            if applied.is_none_or(|applied| applied < *epoch) {
                apply(&shared, &transaction, &schema, handle, self.alias.as_deref())?;
            }
        }
        let mut receipt = self.receipt;
        for (run, (_, epoch)) in runs {
            let applied = Receipt { run, epoch };
            if let Some(notes) = notes {
                notes.note(&shared, &transaction, applied)?;
            }
            if receipt.is_none_or(|receipt| receipt.epoch <= epoch) {
                receipt = Some(applied);
            }
        }
        shared.reach("sqlite.commit")?;
        transaction.commit().map_err(|e| {
            shared.failed("commit (whether it happened is not known; the next run finds out)", e)
        })?;
        self.receipt = receipt;
        for (_, handle) in &handles {
            if let Rows::Spooled(spooled) = &handle.rows {
                // What cannot be removed now is removed by the next recovery.
                let path = directory_of(&shared.path).join(&spooled.file);
                let _ = mill_fault::reach("sqlite.remove").and_then(|()| std::fs::remove_file(path));
            }
        }
        Ok(())
    }

    fn receipt(&self) -> Option<String> {
        self.receipt.map(Receipt::encode)
    }

    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        recovered.target.map_or(Ok(()), |was| self.shared.check_target(was))?;
        if let Some(text) = recovered.receipt {
            let receipt = Receipt::decode(text)
                .ok_or_else(|| Error::checkpoint(format!("{}: the receipt in the checkpoint is damaged", self.shared.name())))?;
            self.check_committed(receipt)?;
            self.receipt = Some(receipt);
        }
        self.check_restored()?;
        self.connection()?;
        self.commit(recovered.commits)?;
        self.remove_spools(None)
    }

    fn abort(&mut self) -> Result<()> {
        self.remove_spools(Some(self.shared.run()))
    }
}

impl Drop for SqliteCommitter {
    fn drop(&mut self) {
        // The lock goes before the job is over: whoever hears of its end may start the next run.
        self.shared.set_owner(None);
    }
}

fn apply(
    shared: &Shared,
    transaction: &Transaction<'_>,
    schema: &SchemaRef,
    handle: &Handle,
    alias: Option<&str>,
) -> Result<()> {
    for_each_frame(&handle.rows, &shared.path, |bytes| {
        let batch = Frame::from_bytes(bytes, schema).and_then(|frame| frame.decode(schema)).map_err(|e| {
            Error::checkpoint(format!("{}: the rows kept in the checkpoint cannot be read: {e}", shared.name()))
                .because(e)
        })?;
        apply_batch(shared, transaction, &batch, alias)
    })
}

fn apply_batch(shared: &Shared, transaction: &Transaction<'_>, batch: &Batch, alias: Option<&str>) -> Result<()> {
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
    let columns: Vec<Column> = schema
        .fields()
        .iter()
        .zip(batch.data().columns())
        .map(|(field, array)| Column::new(field.name(), array))
        .collect::<Result<_>>()?;
    let key_columns: Vec<&Column> =
        key.iter().flat_map(|key| key.iter()).filter_map(|name| columns.get(schema.index_of(name).ok()?)).collect();
    let alias = alias.and_then(|name| Some((name, columns.get(schema.index_of(name).ok()?)?)));
    for row in 0..batch.rows() {
        let is_delete = batch.deletes().is_some_and(|deletes| deletes.value(row));
        if let (Some(delete), Some(names)) = (&mut delete, key) {
            if nan::is_doubtful(&key_columns, row) {
                nan::check(shared, transaction, names, &key_columns, row, is_delete)?;
            }
            // SQLite lets null keys stand beside each other: they are replaced by hand.
            if is_delete || key_columns.iter().any(|column| column.is_null(row) || column.is_nan(row)) {
                bind(delete, key_columns.iter().map(|column| column.value(row))).map_err(failed)?;
            }
        }
        if is_delete {
            continue;
        }
        match alias {
            Some((name, column)) if column.is_null(row) => {
                return Err(Error::data(format!(
                    "{}: column {name:?} has a null, which the table cannot hold: as INTEGER PRIMARY KEY it would become a \
                     number that SQLite chooses; declare the column INT PRIMARY KEY, or write into another table",
                    shared.name()
                )));
            }
            _ => bind(&mut insert, columns.iter().map(|column| column.value(row))).map_err(failed)?,
        }
    }
    Ok(())
}

/// Executes a statement with these values, without a list of them.
fn bind<'a>(
    statement: &mut rusqlite::CachedStatement<'_>,
    values: impl Iterator<Item = ToSqlOutput<'a>>,
) -> rusqlite::Result<()> {
    for (place, value) in (1..).zip(values) {
        statement.raw_bind_parameter(place, value)?;
    }
    statement.raw_execute().map(drop)
}
