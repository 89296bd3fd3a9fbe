//! The notes in a database about the epochs that are in one of its tables.
//!
//! ```sql
//!   CREATE TABLE _millstream_epochs (job text, sink text, "table" text, run text, epoch bigint, taken bigint, PRIMARY KEY (job, sink, "table", run))
//! ```
//!
//! It is in the schema of the table. A run of a job applies its epochs in order, each as a whole, so one row says of all handles of
//! a run which of them were applied: those up to `epoch`. Such a row is kept for good: a savepoint may name a handle of the run.
//! The run with the highest `taken` holds the sink, and no other applies anything.
//!
//! All of it is read and written under a lock of the transaction. So a transaction whose answer was lost has come to its end, one
//! way or the other, before anybody reads here whether it was applied.
//!
//! The receipt of a checkpoint is `<run>:<epoch>`: a row that the database must have. One that lacks it was lost, or
//! restored from a backup that is older than the checkpoint.

use ::postgres::{Client, GenericClient, Transaction};
use mill_protocol::{Epoch, Error, Run};
use xxhash_rust::xxh3::xxh3_64;

use super::address::{Attempt, Failure};
use super::name::identifier;
use super::sink::Shared;
pub(super) use crate::receipt::{Receipt, lost};

/// The table of the notes.
pub(super) const TABLE: &str = "_millstream_epochs";

/// The notes of one sink of one job, on one table.
#[derive(Clone)]
pub(super) struct Notes {
    job: String,
    sink: String,
    table: String,
    /// The table of the notes as SQL.
    place: String,
}

impl Notes {
    /// The notes of a run, made if there are none yet; `None` if the run keeps no state, so that nobody will ask.
    pub(super) fn new(run: &Run<'_>, table: &str) -> Option<Notes> {
        let job = format!("{:016x}", run.job?);
        Some(Notes { job, sink: run.sink.to_owned(), table: table.to_owned(), place: String::new() })
    }

    /// Learns in which schema the table is.
    pub(super) fn set_schema(&mut self, schema: &str) {
        self.place = format!("{}.{}", identifier(schema), identifier(TABLE));
    }

    /// Whether the database has notes at all.
    pub(super) fn exist(&self, shared: &Shared, client: &mut Client) -> Attempt<bool> {
        let row = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&self.place]);
        Ok(row.map_err(|e| shared.failure("read what was applied", &e))?.get(0))
    }

    /// Makes the table, if there is none.
    pub(super) fn create(&self, shared: &Shared, client: &mut Client) -> Attempt<()> {
        if !self.exist(shared, client)? {
            let sql = format!(
                "CREATE TABLE IF NOT EXISTS {} (job text NOT NULL, sink text NOT NULL, \"table\" text NOT NULL, run text NOT NULL, \
                 epoch bigint NOT NULL, taken bigint NOT NULL, PRIMARY KEY (job, sink, \"table\", run))",
                self.place
            );
            client.batch_execute(&sql).map_err(|e| match e.code().map(|code| code.code()) {
                // Two that make it at once: it is there when the loser looks again.
                Some("23505" | "42P07" | "42710") => Failure::Again(shared.failure("make the table of notes", &e).into_error()),
                _ => shared.failure(&format!("make the table {TABLE}"), &e),
            })?;
        }
        let found = client.prepare(&format!("SELECT job, sink, \"table\", run, epoch, taken FROM {}", self.place));
        found.map(drop).map_err(|e| match shared.failure("read what was applied", &e) {
            Failure::Final(error) => Failure::Final(Error::connector(format!(
                "{}: the table {TABLE}, in which is noted what was applied, cannot be used: it is of another version or another program, or \
                 must not be read; rename it, or write into another schema ({})",
                shared.call(),
                error.message()
            ))),
            again => again,
        })
    }

    /// Waits until nobody else reads or writes the notes of this sink in a transaction.
    pub(super) fn lock(&self, shared: &Shared, transaction: &mut Transaction<'_>) -> Attempt<()> {
        let name = xxh3_64(format!("{}\0{}\0{}\0{}", self.place, self.job, self.sink, self.table).as_bytes()) as i64;
        let locked = transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&name]);
        locked.map(drop).map_err(|e| shared.failure("lock what was applied", &e))
    }

    /// Notes that this run holds the sink from now on.
    pub(super) fn take_over(&self, shared: &Shared, transaction: &mut Transaction<'_>, run: u64) -> Attempt<()> {
        let sql = format!(
            "INSERT INTO {0} (job, sink, \"table\", run, epoch, taken) SELECT $1, $2, $3, $4, 0, coalesce(max(taken), 0) + 1 FROM {0} \
             WHERE job = $1 AND sink = $2 AND \"table\" = $3 ON CONFLICT (job, sink, \"table\", run) DO UPDATE SET taken = excluded.taken",
            self.place
        );
        let run = format!("{run:016x}");
        let noted = transaction.execute(&sql, &[&self.job, &self.sink, &self.table, &run]);
        noted.map(drop).map_err(|e| shared.failure("note the run", &e))
    }

    /// Refuses to continue for a run that another has taken over from.
    pub(super) fn check_holder(&self, shared: &Shared, transaction: &mut Transaction<'_>, run: u64) -> Attempt<()> {
        let sql = format!("SELECT run FROM {} WHERE job = $1 AND sink = $2 AND \"table\" = $3 ORDER BY taken DESC LIMIT 1", self.place);
        let row = transaction.query_opt(&sql, &[&self.job, &self.sink, &self.table]);
        let row = row.map_err(|e| shared.failure("read what was applied", &e))?;
        match row.map(|row| row.get::<_, String>(0)) {
            Some(holder) if holder == format!("{run:016x}") => Ok(()),
            Some(_) => Err(Failure::Final(Error::connector(format!(
                "{}: another run of this job has taken over, the table {TABLE} says so: a job runs once at a time, and a job that goes on \
                 from a copy of its state needs a table of its own",
                shared.call()
            )))),
            None => Err(Failure::Final(Error::checkpoint(format!(
                "{}: the notes of what was applied are gone from the table {TABLE} while the job runs; nothing was written",
                shared.call()
            )))),
        }
    }

    /// The last epoch of a run that was applied.
    pub(super) fn applied(&self, shared: &Shared, client: &mut impl GenericClient, run: u64) -> Attempt<Option<Epoch>> {
        let sql = format!("SELECT epoch FROM {} WHERE job = $1 AND sink = $2 AND \"table\" = $3 AND run = $4 AND epoch > 0", self.place);
        let row = client.query_opt(&sql, &[&self.job, &self.sink, &self.table, &format!("{run:016x}")]);
        let row = row.map_err(|e| shared.failure("read what was applied", &e))?;
        Ok(row.map(|row| Epoch(row.get::<_, i64>(0) as u64)))
    }

    /// The last epoch of any run that was applied.
    pub(super) fn newest(&self, shared: &Shared, client: &mut impl GenericClient) -> Attempt<Option<Epoch>> {
        let sql = format!("SELECT max(epoch) FROM {} WHERE job = $1 AND sink = $2 AND \"table\" = $3 AND epoch > 0", self.place);
        let row = client.query_one(&sql, &[&self.job, &self.sink, &self.table]).map_err(|e| shared.failure("read what was applied", &e))?;
        Ok(row.get::<_, Option<i64>>(0).map(|epoch| Epoch(epoch as u64)))
    }

    /// Notes that the epochs of a run were applied up to this one.
    pub(super) fn note(&self, shared: &Shared, transaction: &mut Transaction<'_>, applied: Receipt) -> Attempt<()> {
        let sql = format!(
            "INSERT INTO {} AS n (job, sink, \"table\", run, epoch, taken) VALUES ($1, $2, $3, $4, $5, 0) \
             ON CONFLICT (job, sink, \"table\", run) DO UPDATE SET epoch = greatest(n.epoch, excluded.epoch)",
            self.place
        );
        let (run, epoch) = (format!("{:016x}", applied.run), applied.epoch.0 as i64);
        let noted = transaction.execute(&sql, &[&self.job, &self.sink, &self.table, &run, &epoch]);
        noted.map(drop).map_err(|e| shared.failure("note the epoch", &e))
    }

    /// Refuses a database that lacks what the checkpoint knows to be committed to it.
    pub(super) fn check(&self, shared: &Shared, client: &mut impl GenericClient, receipt: Receipt) -> Attempt<()> {
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
