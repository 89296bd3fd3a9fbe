//! The notes in a database about the epochs that are in one of its tables.
//!
//! ```sql
//!   CREATE TABLE _millstream_epochs (job char(16), sink char(16), `table` varbinary(256), run char(16), epoch bigint, taken bigint,
//!                                    PRIMARY KEY (job, sink, `table`, run))
//! ```
//!
//! It is in the database of the table. A run of a job applies its epochs in order, each as a whole, so one row says of all handles of
//! a run which of them were applied: those up to `epoch`. Such a row is kept for good: a savepoint may name a handle of the run.
//! The run with the highest `taken` holds the sink, and no other applies anything.
//!
//! All of it is read and written with the row locked whose `run` is empty. So a transaction whose answer was lost has come to its end,
//! one way or the other, before anybody reads here whether it was applied.

use ::mysql::Conn;
use ::mysql::prelude::Queryable as _;
use mill_protocol::{Epoch, Error, Run};
use xxhash_rust::xxh3::xxh3_64;

use super::address::{Attempt, Failure};
use super::name::{bytes, constant, identifier};
use super::sink::Shared;
pub(super) use crate::receipt::{Receipt, lost};

/// The table of the notes.
pub(super) const TABLE: &str = "_millstream_epochs";

/// The notes of one sink of one job, on one table.
#[derive(Clone)]
pub(super) struct Notes {
    /// Job, sink and table as constants.
    own: [String; 3],
    database: String,
}

impl Notes {
    /// The notes of a run, made if there are none yet; `None` if the run keeps no state, so that nobody will ask.
    pub(super) fn new(run: &Run<'_>, table: &str) -> Option<Notes> {
        let number = |number: u64| format!("'{number:016x}'");
        let own = [number(run.job?), number(xxh3_64(run.sink.as_bytes())), bytes(table.as_bytes())];
        Some(Notes { own, database: String::new() })
    }

    /// Learns in which database the table is.
    pub(super) fn set_database(&mut self, database: &str) {
        self.database = database.to_owned();
    }

    /// The table of the notes as SQL.
    fn place(&self) -> String {
        format!("{}.{}", identifier(&self.database), identifier(TABLE))
    }

    /// The condition for the rows of this sink.
    fn is_own(&self) -> String {
        let [job, sink, table] = &self.own;
        format!("job = {job} AND sink = {sink} AND `table` = {table}")
    }

    /// Whether the database has notes at all.
    pub(super) fn exist(&self, shared: &Shared, client: &mut Conn) -> Attempt<bool> {
        Ok(self.engine(shared, client)?.is_some())
    }

    /// The engine of the table, if there is one.
    fn engine(&self, shared: &Shared, client: &mut Conn) -> Attempt<Option<String>> {
        let sql = format!(
            "SELECT COALESCE(ENGINE, '') FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = '{TABLE}'",
            constant(&self.database)
        );
        client.query_first(sql).map_err(|e| shared.failure("read what was applied", &e))
    }

    /// Makes the table, if there is none, and the row that is locked.
    pub(super) fn create(&self, shared: &Shared, client: &mut Conn) -> Attempt<()> {
        if !self.exist(shared, client)? {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (job CHAR(16) NOT NULL, sink CHAR(16) NOT NULL, `table` VARBINARY(256) NOT NULL, \
                 run CHAR(16) NOT NULL, epoch BIGINT UNSIGNED NOT NULL, taken BIGINT UNSIGNED NOT NULL, \
                 PRIMARY KEY (job, sink, `table`, run)) ENGINE = InnoDB DEFAULT CHARACTER SET ascii COLLATE ascii_bin",
                self.place()
            );
            client.query_drop(sql).map_err(|e| shared.failure(&format!("make the table {TABLE}"), &e))?;
        }
        let is_transactional = self.engine(shared, client)?.is_some_and(|engine| engine.eq_ignore_ascii_case("InnoDB"));
        let found = client.query_drop(format!("SELECT job, sink, `table`, run, epoch, taken FROM {} LIMIT 0", self.place()));
        let why = match found.map_err(|e| shared.failure("read what was applied", &e)) {
            Ok(()) if is_transactional => None,
            Ok(()) => Some("its engine is not InnoDB".to_owned()),
            Err(Failure::Final(error)) => Some(error.message().to_owned()),
            Err(again) => return Err(again),
        };
        if let Some(why) = why {
            return Err(Failure::Final(Error::connector(format!(
                "{}: the table {TABLE}, in which is noted what was applied, cannot be used: it is of another version or another program, or \
                 must not be read; rename it, or write into another database ({why})",
                shared.call()
            ))));
        }
        let [job, sink, table] = &self.own;
        let sql = format!("INSERT IGNORE INTO {} (job, sink, `table`, run, epoch, taken) VALUES ({job}, {sink}, {table}, '', 0, 0)", self.place());
        client.query_drop(sql).map_err(|e| shared.failure("note the sink", &e))
    }

    /// Waits until nobody else reads or writes the notes of this sink in a transaction.
    pub(super) fn lock(&self, shared: &Shared, client: &mut Conn) -> Attempt<()> {
        let sql = format!("SELECT 1 FROM {} WHERE {} AND run = '' FOR UPDATE", self.place(), self.is_own());
        match client.query_first::<u8, _>(sql).map_err(|e| shared.failure("lock what was applied", &e))? {
            Some(_) => Ok(()),
            None => Err(gone(shared)),
        }
    }

    /// Notes that this run holds the sink from now on.
    pub(super) fn take_over(&self, shared: &Shared, client: &mut Conn, run: u64) -> Attempt<()> {
        let sql = format!("SELECT COALESCE(MAX(taken), 0) + 1 FROM {} WHERE {}", self.place(), self.is_own());
        let taken: Option<u64> = client.query_first(sql).map_err(|e| shared.failure("read what was applied", &e))?;
        let [job, sink, table] = &self.own;
        let sql = format!(
            "INSERT INTO {} (job, sink, `table`, run, epoch, taken) VALUES ({job}, {sink}, {table}, '{run:016x}', 0, {}) \
             ON DUPLICATE KEY UPDATE taken = VALUES(taken)",
            self.place(),
            taken.unwrap_or(1)
        );
        client.query_drop(sql).map_err(|e| shared.failure("note the run", &e))
    }

    /// Refuses to continue for a run that another has taken over from.
    pub(super) fn check_holder(&self, shared: &Shared, client: &mut Conn, run: u64) -> Attempt<()> {
        let sql = format!("SELECT run FROM {} WHERE {} AND run <> '' ORDER BY taken DESC LIMIT 1", self.place(), self.is_own());
        match client.query_first::<String, _>(sql).map_err(|e| shared.failure("read what was applied", &e))? {
            Some(holder) if holder == format!("{run:016x}") => Ok(()),
            Some(_) => Err(Failure::Final(Error::connector(format!(
                "{}: another run of this job has taken over, the table {TABLE} says so: a job runs once at a time, and a job that goes on \
                 from a copy of its state needs a table of its own",
                shared.call()
            )))),
            None => Err(gone(shared)),
        }
    }

    /// The last epoch of a run that was applied.
    pub(super) fn applied(&self, shared: &Shared, client: &mut Conn, run: u64) -> Attempt<Option<Epoch>> {
        let sql = format!("SELECT epoch FROM {} WHERE {} AND run = '{run:016x}' AND epoch > 0", self.place(), self.is_own());
        let epoch: Option<u64> = client.query_first(sql).map_err(|e| shared.failure("read what was applied", &e))?;
        Ok(epoch.map(Epoch))
    }

    /// The last epoch of any run that was applied.
    pub(super) fn newest(&self, shared: &Shared, client: &mut Conn) -> Attempt<Option<Epoch>> {
        let sql = format!("SELECT MAX(epoch) FROM {} WHERE {} AND epoch > 0", self.place(), self.is_own());
        let epoch: Option<Option<u64>> = client.query_first(sql).map_err(|e| shared.failure("read what was applied", &e))?;
        Ok(epoch.flatten().map(Epoch))
    }

    /// Notes that the epochs of a run were applied up to this one.
    pub(super) fn note(&self, shared: &Shared, client: &mut Conn, applied: Receipt) -> Attempt<()> {
        let [job, sink, table] = &self.own;
        let sql = format!(
            "INSERT INTO {} (job, sink, `table`, run, epoch, taken) VALUES ({job}, {sink}, {table}, '{:016x}', {}, 0) \
             ON DUPLICATE KEY UPDATE epoch = GREATEST(epoch, VALUES(epoch))",
            self.place(),
            applied.run,
            applied.epoch.0
        );
        client.query_drop(sql).map_err(|e| shared.failure("note the epoch", &e))
    }

    /// Refuses a database that lacks what the checkpoint knows to be committed to it.
    pub(super) fn check(&self, shared: &Shared, client: &mut Conn, receipt: Receipt) -> Attempt<()> {
        if self.applied(shared, client, receipt.run)?.is_some_and(|applied| applied >= receipt.epoch) {
            return Ok(());
        }
        let found = match self.newest(shared, client)? {
            None => "has no note of any epoch of this job".to_owned(),
            Some(epoch) => format!("has this job's epochs up to {} only", epoch.0),
        };
        Err(lost(&shared.call(), receipt, &found))
    }
}

fn gone(shared: &Shared) -> Failure {
    Failure::Final(Error::checkpoint(format!(
        "{}: the notes of what was applied are gone from the table {TABLE} while the job runs; nothing was written",
        shared.call()
    )))
}
