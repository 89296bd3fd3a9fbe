//! Transactions that are prepared before their checkpoint, and committed after it: `via="two_phase"`.
//!
//! ```text
//!   pre-commit   begin ─► lock ─► COPY ─► the note ─► PREPARE TRANSACTION 'millstream:<job>:<sink>:<run>:<epoch>'
//!   commit       COMMIT PREPARED, if it is there ─► what the notes lack is written from the kept rows
//!   recover      those that the checkpoint names are committed, those of this job and sink that it does not name are rolled back
//! ```
//!
//! What the database refuses (a unique constraint, a check) is an error before the checkpoint, and all sinks of a job have prepared
//! theirs before one commits. The rows are kept until the commit all the same: whoever rolls a prepared transaction back by
//! hand loses nothing. A prepared transaction holds the lock of the notes, so whoever has that lock meets none.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::postgres::Client;
use mill_protocol::{Ending, Epoch, Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::address::{Attempt, Failure};
use super::committer::{self, SILENCE};
use super::name::constant;
use super::notes::{Notes, Receipt};
use super::sink::Shared;
use super::table::{self, Layout};
use crate::spool::{Handle, Place};

/// How long a transaction is tried to be prepared before the checkpoint fails.
const PREPARE_WAIT: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The names of the transactions of a sink of a job.
#[derive(Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(job: u64, sink: &str, table: &str) -> Names {
        Names { prefix: format!("millstream:{job:016x}:{:016x}:", xxh3_64(format!("{sink}\0{table}").as_bytes())) }
    }

    /// The transaction of an epoch.
    pub(super) fn of(&self, run: u64, epoch: Epoch) -> String {
        format!("{}{run:016x}:{}", self.prefix, epoch.0)
    }

    /// Those of a run that are prepared in this database. Those of others are ended when a run begins: later, a run whose sink was
    /// taken over would roll back what its successor has prepared.
    pub(super) fn prepared_by(&self, run: u64, shared: &Shared, client: &mut Client) -> Attempt<Vec<String>> {
        let own = format!("{}{run:016x}:", self.prefix);
        Ok(self.prepared(shared, client)?.into_iter().filter(|name| name.starts_with(&own)).collect())
    }

    /// Those that are prepared in this database.
    pub(super) fn prepared(&self, shared: &Shared, client: &mut Client) -> Attempt<Vec<String>> {
        let sql = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, $1) ORDER BY prepared";
        let rows = client.query(sql, &[&self.prefix]).map_err(|e| shared.failure("look for prepared transactions", &e))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// Commits a prepared transaction, or rolls it back; one that is not there any more has come to its end.
pub(super) fn end(shared: &Shared, client: &mut Client, name: &str, commits: bool) -> Attempt<()> {
    let verb = if commits { "COMMIT" } else { "ROLLBACK" };
    match client.batch_execute(&format!("{verb} PREPARED {}", constant(name))) {
        Ok(()) => Ok(()),
        Err(e) => match e.code().map(|code| code.code()) {
            Some("42704") => Ok(()),
            // Another session is just about to end it.
            Some("55000") => Err(Failure::Again(shared.failure("end a prepared transaction", &e).into_error())),
            _ => Err(shared.failure("end a prepared transaction", &e)),
        },
    }
}

/// Refuses a server that prepares nothing.
pub(super) fn check(shared: &Shared, client: &mut Client) -> Attempt<()> {
    let row = client.query_one("SELECT current_setting('max_prepared_transactions')::int", &[]);
    if row.map_err(|e| shared.failure("look at the server", &e))?.get::<_, i32>(0) > 0 {
        return Ok(());
    }
    Err(Failure::Final(Error::connector(format!(
        "{}: via=\"two_phase\" needs prepared transactions, and the server allows none: set max_prepared_transactions in postgresql.conf (one \
         for each sink) and start it anew, or leave via= out, which is exactly once without them",
        shared.call()
    ))))
}

/// What a run prepares transactions with.
pub(super) struct Preparing {
    pub(super) names: Names,
    pub(super) notes: Notes,
    pub(super) ending: Ending,
    link: Mutex<Option<Client>>,
    /// The epochs that were handed over and are not known to be committed.
    pending: Mutex<BTreeSet<Epoch>>,
}

impl Preparing {
    pub(super) fn new(names: Names, notes: Notes, ending: Ending) -> Preparing {
        Preparing { names, notes, ending, link: Mutex::new(None), pending: Mutex::default() }
    }

    /// These epochs were committed.
    pub(super) fn committed(&self, epochs: impl Iterator<Item = Epoch>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for epoch in epochs {
            pending.remove(&epoch);
        }
    }

    /// Writes the rows of an epoch in a transaction, and prepares it. Notes say up to which epoch a run was applied, so none is
    /// prepared after one that is not committed, as after a checkpoint that has failed: all of them are written from their kept rows
    /// then, in one transaction.
    ///
    /// # Errors
    /// When the database refuses them, or the server has been away for a minute.
    pub(super) fn prepare(&self, shared: &Shared, layout: &Layout, place: &Place, handle: &Handle, epoch: Epoch) -> Result<()> {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + PREPARE_WAIT;
        let mut pause = Duration::from_millis(50);
        loop {
            let outcome = self.attempt(shared, layout, place, handle, epoch, &mut link);
            let error = match outcome {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(error)) => error,
            };
            // What has become of the transaction is looked up with another connection.
            *link = None;
            if self.ending.is_set() || Instant::now() >= end {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn attempt(
        &self,
        shared: &Shared,
        layout: &Layout,
        place: &Place,
        handle: &Handle,
        epoch: Epoch,
        link: &mut Option<Client>,
    ) -> Attempt<()> {
        let again = |error: Error| Failure::Again(error);
        let is_after_others = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.insert(epoch);
            pending.first().is_some_and(|first| *first < epoch)
        };
        let client = match link {
            Some(client) if !client.is_closed() => client,
            none => {
                let mut client = shared.address.connect(&shared.call())?;
                client.batch_execute(SILENCE).map_err(|e| shared.failure("connect", &e))?;
                none.insert(client)
            }
        };
        let name = self.names.of(handle.run, epoch);
        let prepared = self.names.prepared_by(shared.run(), shared, client)?;
        if is_after_others {
            return prepared.iter().try_for_each(|name| end(shared, client, name, false));
        }
        if prepared.contains(&name) {
            // The answer was lost.
            return Ok(());
        }
        let mut transaction = committer::begin(shared, client)?;
        self.notes.lock(shared, &mut transaction)?;
        self.notes.check_holder(shared, &mut transaction, shared.run())?;
        table::check_unchanged(shared, layout, &mut transaction)?;
        // A transaction with a temporary table cannot be prepared; one with a table that was made and dropped in it can.
        let layout = layout.with_own_stage(&name);
        if layout.key.is_some() {
            transaction.batch_execute(&layout.create_stage()).map_err(|e| shared.failure("make a table for a moment", &e))?;
        }
        committer::send_handle(shared, &layout, &mut transaction, handle, place)?;
        if let Some(key) = &layout.key {
            committer::merge(shared, &layout, key, handle.deletes > 0, &mut transaction)?;
            transaction.batch_execute(&layout.drop_stage()).map_err(|e| shared.failure("drop a table", &e))?;
        }
        self.notes.note(shared, &mut transaction, Receipt { run: handle.run, epoch })?;
        shared.reach("postgres.prepare").map_err(again)?;
        let prepared = transaction.batch_execute(&format!("PREPARE TRANSACTION {}", constant(&name)));
        prepared.map_err(|e| shared.failure("prepare a transaction", &e))?;
        shared.reach("postgres.prepared").map_err(again)?;
        // It is not the session's any more: this ends nothing.
        transaction.commit().map_err(|e| shared.failure("go on after a prepared transaction", &e))
    }
}
