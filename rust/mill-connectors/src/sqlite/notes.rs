//! What a database notes of the epochs that were applied to it.
//!
//! ```sql
//!   CREATE TABLE _millstream (job TEXT, sink TEXT, "table" TEXT, run TEXT, epoch INTEGER, PRIMARY KEY (job, sink, "table", run))
//! ```
//!
//! A run of a job applies its epochs in order, each as a whole: every handle that is durable is committed before a later
//! one is. So one row says of all handles of a run which of them were applied: those up to `epoch`. Such a row is as long
//! as a checkpoint or a savepoint may name a handle of the run, which is to say for good; a job that was started a
//! thousand times has a thousand rows.
//!
//! The receipt of a checkpoint is `<run>:<epoch>`: a row that the database must have. One that lacks it was lost, or put
//! back from a copy that is older than the checkpoint.

use mill_protocol::{Epoch, Error, Result, Run};
use rusqlite::{Connection, OptionalExtension, params};

use super::Shared;

/// The table of the notes.
pub(super) const TABLE: &str = "_millstream";

/// The notes of one sink of one job, on one table.
pub(super) struct Notes {
    job: String,
    sink: String,
    table: String,
}

/// The last epoch that is known to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) run: u64,
    pub(super) epoch: Epoch,
}

impl Receipt {
    pub(super) fn encode(self) -> String {
        format!("{:016x}:{}", self.run, self.epoch.0)
    }

    pub(super) fn decode(text: &str) -> Option<Receipt> {
        let (run, epoch) = text.split_once(':')?;
        Some(Receipt { run: u64::from_str_radix(run, 16).ok()?, epoch: Epoch(epoch.parse().ok()?) })
    }
}

impl Notes {
    /// The notes of a run; `None` if it keeps no state, so that nobody will ask.
    pub(super) fn of(run: &Run<'_>, table: &str) -> Option<Notes> {
        let job = run.job?;
        // SQLite takes names that differ in case alone for the same table.
        Some(Notes { job: format!("{job:016x}"), sink: run.sink.to_owned(), table: table.to_ascii_lowercase() })
    }

    /// Makes the table, if there is none.
    pub(super) fn create(shared: &Shared, connection: &Connection) -> Result<()> {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {TABLE} (job TEXT NOT NULL, sink TEXT NOT NULL, \"table\" TEXT NOT NULL, \
             run TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (job, sink, \"table\", run)) WITHOUT ROWID"
        );
        connection.execute(&sql, []).map_err(|e| shared.failed(&format!("make the table {TABLE}"), e))?;
        let found = connection.prepare(&format!("SELECT job, sink, \"table\", run, epoch FROM {TABLE}"));
        found.map(drop).map_err(|e| {
            Error::connector(format!(
                "{}: the table {TABLE}, in which is noted what was applied, is of another version or another program ({e}); \
                 rename it, or write into another database",
                shared.name()
            ))
            .because(e)
        })
    }

    /// Whether the database has notes at all.
    pub(super) fn exist(shared: &Shared, connection: &Connection) -> Result<bool> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        let count: i64 =
            connection.query_row(sql, [TABLE], |row| row.get(0)).map_err(|e| shared.failed("read what was applied", e))?;
        Ok(count > 0)
    }

    /// The last epoch of a run that was applied.
    pub(super) fn applied(&self, shared: &Shared, connection: &Connection, run: u64) -> Result<Option<Epoch>> {
        let sql = format!("SELECT epoch FROM {TABLE} WHERE job = ?1 AND sink = ?2 AND \"table\" = ?3 AND run = ?4");
        let run = format!("{run:016x}");
        let epoch: Option<i64> = connection
            .query_row(&sql, params![self.job, self.sink, self.table, run], |row| row.get(0))
            .optional()
            .map_err(|e| shared.failed("read what was applied", e))?;
        Ok(epoch.map(|epoch| Epoch(epoch as u64)))
    }

    /// The last epoch of any run that was applied.
    pub(super) fn newest(&self, shared: &Shared, connection: &Connection) -> Result<Option<Epoch>> {
        let sql = format!("SELECT max(epoch) FROM {TABLE} WHERE job = ?1 AND sink = ?2 AND \"table\" = ?3");
        let epoch: Option<i64> = connection
            .query_row(&sql, params![self.job, self.sink, self.table], |row| row.get(0))
            .map_err(|e| shared.failed("read what was applied", e))?;
        Ok(epoch.map(|epoch| Epoch(epoch as u64)))
    }

    /// Notes that the epochs of a run were applied up to this one.
    pub(super) fn note(&self, shared: &Shared, connection: &Connection, applied: Receipt) -> Result<()> {
        let sql = format!(
            "INSERT INTO {TABLE} (job, sink, \"table\", run, epoch) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET epoch = max(epoch, excluded.epoch)"
        );
        let (run, epoch) = (format!("{:016x}", applied.run), applied.epoch.0 as i64);
        connection
            .execute(&sql, params![self.job, self.sink, self.table, run, epoch])
            .map(drop)
            .map_err(|e| shared.failed("note the epoch", e))
    }

    /// Refuses a database that lacks what the checkpoint knows to be committed to it.
    pub(super) fn check(&self, shared: &Shared, connection: &Connection, receipt: Receipt) -> Result<()> {
        if self.applied(shared, connection, receipt.run)?.is_some_and(|applied| applied >= receipt.epoch) {
            return Ok(());
        }
        let found = match self.newest(shared, connection)? {
            None => "has no note of any epoch of this job".to_owned(),
            Some(epoch) => format!("has this job's epochs up to {} only", epoch.0),
        };
        Err(lost(shared, receipt, &found))
    }
}

/// The error for a database without rows that were committed to it.
pub(super) fn lost(shared: &Shared, receipt: Receipt, found: &str) -> Error {
    Error::checkpoint(format!(
        "{}: the checkpoint knows that the rows of epoch {} were committed, and the database {found}: it was removed, put \
         back from an older copy, or replaced; no rows were written: put the database back as it was when the \
         job last ran, or start over with another checkpoint path and an empty table",
        shared.name(),
        receipt.epoch.0
    ))
}
