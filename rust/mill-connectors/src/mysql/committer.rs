//! Applies the rows of epochs, each once.
//!
//! ```text
//!   recover   lock ─► a note that this run holds the sink ─► which epochs are in the table ─► apply the others
//!   commit    begin ─► lock ─► is this run the holder? is the epoch noted? ─► INSERT, DELETE ─► the note ─► commit
//!             a connection is lost, a deadlock: connect ─► all of that again
//! ```
//!
//! A commit whose answer is lost has happened or not. The next attempt waits for the lock that the former transaction holds until
//! its end, and then reads whether the epoch is noted. A job that keeps no state has no notes: there rows without a key are not sent a
//! second time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::mysql::Conn;
use ::mysql::prelude::Queryable as _;
use mill_protocol::{Commit, Committer, Delivery, Ending, Epoch, Error, Recovered, Result, Run};

use super::address::{Attempt, Failure};
use super::notes::{Notes, Receipt, lost};
use super::send::Sender;
use super::sink::Shared;
use super::table::{self, Layout};
use crate::attempt::retry;
use crate::spool::{self, Handle, Place};

/// How long a commit is tried before the job fails; the next start tries again.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// How long a server is waited for before the first record.
const BEGIN_WAIT: Duration = Duration::from_secs(10);
/// Whatever the server or the user has by default: a value that does not fit is an error, 0 is no number that the server replaces, a
/// backslash escapes; each statement sees what was committed before it; a lock of somebody else's is waited for that long at a time;
/// the server gives up a peer that has gone without a word, which would hold locks; and it keeps all warnings, since some of them count.
const SETTINGS: [&str; 3] = [
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,\
     NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION autocommit = 1, foreign_key_checks = 1, unique_checks = 1, innodb_lock_wait_timeout = 10, wait_timeout = 60, \
     max_error_count = 65535",
];

/// What the sink calls its files.
static FILES: spool::Names = spool::Names {
    directory: "mysql",
    function: "write_sql",
    create: "mysql.create",
    write: "mysql.spool",
    sync: "mysql.sync",
    remove: "mysql.remove",
};

pub(super) struct MysqlCommitter {
    shared: Arc<Shared>,
    delivery: Delivery,
    restored: Option<Epoch>,
    /// Where is noted what was applied; nowhere, if nobody will ask.
    notes: Option<Notes>,
    place: Place,
    sink: String,
    receipt: Option<Receipt>,
    ending: Ending,
    layout: Option<Arc<Layout>>,
    client: Option<Conn>,
}

impl MysqlCommitter {
    pub(super) fn new(shared: Arc<Shared>) -> MysqlCommitter {
        MysqlCommitter {
            shared,
            delivery: Delivery::ExactlyOnce,
            restored: None,
            notes: None,
            place: Place::new(&FILES, None, ""),
            sink: String::new(),
            receipt: None,
            ending: Ending::default(),
            layout: None,
            client: None,
        }
    }

    /// Tries until it succeeds, never will, or the time is over. After a failure everything begins with a new connection, and the server
    /// rolls back what the former one has begun.
    fn attempt<T>(&mut self, wait: Duration, mut attempt: impl FnMut(&mut MysqlCommitter, &mut Conn) -> Attempt<T>) -> Result<T> {
        let (shared, ending) = (Arc::clone(&self.shared), self.ending.clone());
        retry(&|| shared.call(), &ending, wait, || {
            let mut client = match self.client.take() {
                Some(client) => client,
                None => {
                    let mut client = self.shared.address.connect(&self.shared.call())?;
                    for setting in SETTINGS {
                        client.query_drop(setting).map_err(|e| self.shared.failure("connect", &e))?;
                    }
                    client
                }
            };
            let outcome = attempt(self, &mut client)?;
            self.client = Some(client);
            Ok(outcome)
        })
    }

    /// Makes or checks the table, and lets writers begin.
    fn open(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let layout = self.attempt(BEGIN_WAIT, |own, client| {
            own.shared.reach("mysql.open")?;
            let layout = table::open(&own.shared, client)?;
            if let Some(notes) = &mut own.notes {
                notes.set_database(layout.table.database.as_deref().unwrap_or_default());
                notes.create(&own.shared, client)?;
            }
            Ok(layout)
        })?;
        let layout = Arc::new(layout);
        shared.set_way(Some((Arc::clone(&layout), self.place.clone())));
        self.layout = Some(layout);
        Ok(())
    }

    /// Notes that this run holds the sink from now on.
    fn take_over(&mut self) -> Result<()> {
        let Some(notes) = self.notes.clone() else { return Ok(()) };
        self.attempt(COMMIT_WAIT, |own, client| {
            let shared = Arc::clone(&own.shared);
            begin(&shared, client)?;
            notes.lock(&shared, client)?;
            notes.take_over(&shared, client, shared.run())?;
            client.query_drop("COMMIT").map_err(|e| shared.failure("note the run", &e))
        })
    }

    /// Compares the database with what the checkpoint knows to be committed, before anything is made that is not there: a
    /// table that was dropped must not come back empty and look whole to the next run.
    fn check_committed(&mut self, receipt: Receipt) -> Result<()> {
        self.attempt(BEGIN_WAIT, |own, client| {
            let shared = Arc::clone(&own.shared);
            if !table::exists(&shared, client)? {
                return Err(lost(&shared.call(), receipt, &format!("has no table {} any more", shared.table.sql())));
            }
            let layout = table::open(&shared, client)?;
            let Some(notes) = &mut own.notes else { return Ok(()) };
            notes.set_database(layout.table.database.as_deref().unwrap_or_default());
            if !notes.exist(&shared, client)? {
                return Err(lost(&shared.call(), receipt, "has no notes of what was applied"));
            }
            Ok(())
        })
    }

    /// With the sink taken over: a transaction of a former run is over by now.
    fn check_notes(&mut self) -> Result<()> {
        let Some(notes) = self.notes.clone() else { return Ok(()) };
        let (delivery, restored, receipt) = (self.delivery, self.restored, self.receipt);
        self.attempt(COMMIT_WAIT, |own, client| {
            let shared = &own.shared;
            if let Some(receipt) = receipt {
                notes.check(shared, client, receipt)?;
            }
            // An exactly-once table that appends cannot take back what a later checkpoint than the restored one wrote.
            let (Delivery::ExactlyOnce, Some(restored), None) = (delivery, restored, &shared.key) else { return Ok(()) };
            match notes.newest(shared, client)? {
                Some(newest) if newest > restored => Err(Failure::Final(Error::connector(format!(
                    "{}: the table has rows of checkpoint {}, later than {}, which was restored, and they would come again: restore \
                     the later checkpoint, or write into another table",
                    shared.call(),
                    newest.0,
                    restored.0
                )))),
                _ => Ok(()),
            }
        })
    }

    /// Applies handles whose epochs are not noted, all in one transaction.
    fn apply(&mut self, commits: &[Commit], place: &Place) -> Result<()> {
        if commits.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let layout = self.layout.clone().ok_or_else(|| Error::internal("a committer has opened its table before it commits"))?;
        let mut handles = Vec::with_capacity(commits.len());
        for commit in commits {
            handles.push((commit.epoch, decoded(&shared, commit, place)?));
        }
        let notes = self.notes.clone();
        let newest = self.attempt(COMMIT_WAIT, |own, client| {
            shared.reach("mysql.begin").map_err(Failure::Again)?;
            begin(&shared, client)?;
            if let Some(notes) = &notes {
                notes.lock(&shared, client)?;
                notes.check_holder(&shared, client, shared.run())?;
                // A server that took over without the last commits, or was put back, must not be written on.
                if let Some(receipt) = own.receipt {
                    notes.check(&shared, client, receipt)?;
                }
            }
            table::check_unchanged(&shared, &layout, client)?;
            // The newest epoch of each run: as the database has it, and as it will.
            let mut runs: BTreeMap<u64, (Option<Epoch>, Epoch)> = BTreeMap::new();
            let mut due: Vec<&Handle> = Vec::new();
            for (epoch, handle) in &handles {
                let applied = match (runs.get(&handle.run), &notes) {
                    (Some((applied, _)), _) => *applied,
                    (None, Some(notes)) => notes.applied(&shared, client, handle.run)?,
                    (None, None) => None,
                };
                let newest = runs.entry(handle.run).or_insert((applied, *epoch));
                newest.1 = newest.1.max(*epoch);
                if applied.is_none_or(|applied| applied < *epoch) {
                    due.push(handle);
                }
            }
            send(&shared, &layout, client, &due, place)?;
            let mut receipt: Option<Receipt> = None;
            for (run, (_, epoch)) in runs {
                let applied = Receipt { run, epoch };
                if let Some(notes) = &notes {
                    notes.note(&shared, client, applied)?;
                }
                if receipt.is_none_or(|receipt| receipt.epoch <= epoch) {
                    receipt = Some(applied);
                }
            }
            shared.reach("mysql.commit").map_err(Failure::Again)?;
            let committed = client.query_drop("COMMIT").map_err(|e| shared.failure("commit", &e));
            let committed = committed.and_then(|()| shared.reach("mysql.committed").map_err(Failure::Again));
            match committed {
                Ok(()) => Ok(receipt),
                Err(Failure::Again(error)) if notes.is_none() && layout.key.is_none() => Err(Failure::Final(Error::connector(format!(
                    "{}: whether rows were committed is not known: the connection was lost, and a job that keeps no state has no notes of it; \
                     run it with a checkpoint path ({})",
                    shared.call(),
                    error.message()
                )))),
                Err(failure) => Err(failure),
            }
        })?;
        if let Some(newest) = newest
            && self.receipt.is_none_or(|receipt| receipt.epoch <= newest.epoch)
        {
            self.receipt = Some(newest);
        }
        for (_, handle) in &handles {
            handle.remove(place);
        }
        Ok(())
    }
}

fn decoded(shared: &Shared, commit: &Commit, place: &Place) -> Result<Handle> {
    Handle::decode(&commit.handle, place).ok_or_else(|| {
        Error::checkpoint(format!("{}: the rows kept for epoch {} are damaged, or not those of this sink", shared.call(), commit.epoch.0))
    })
}

fn begin(shared: &Shared, client: &mut Conn) -> Attempt<()> {
    client.query_drop("START TRANSACTION READ WRITE").map_err(|e| shared.failure("begin a transaction", &e))
}

/// Sends the rows of handles.
fn send(shared: &Shared, layout: &Layout, client: &mut Conn, handles: &[&Handle], place: &Place) -> Attempt<()> {
    let columns = layout.fingerprint();
    let mut sender = Sender::new(shared, layout, client);
    for handle in handles {
        if handle.columns != columns {
            return Err(Failure::Final(Error::schema(format!(
                "{}: rows that wait for their commit were written for the columns {}, and the table has {columns} now; put the columns back \
                 as they were, until the job has run once",
                shared.call(),
                handle.columns
            ))));
        }
        sender.send(handle, place)?;
        shared.reach("mysql.sent").map_err(Failure::Again)?;
    }
    sender.flush()
}

impl Committer for MysqlCommitter {
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        self.delivery = run.delivery;
        self.restored = run.restored;
        // At most once nothing is committed a second time, so nobody asks.
        self.notes = Notes::new(run, &self.shared.table.table).filter(|_| run.delivery != Delivery::AtMostOnce);
        self.sink = run.sink.to_owned();
        self.place = Place::new(&FILES, run.directory, run.sink);
        self.ending = run.ending.cloned().unwrap_or_default();
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.open()?;
        self.place.clear()?;
        self.take_over()
    }

    fn files(&self, commit: &Commit) -> Vec<String> {
        Handle::decode(&commit.handle, &self.place).and_then(|handle| handle.file(&self.place)).into_iter().collect()
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        let place = self.place.clone();
        self.apply(commits, &place)
    }

    fn receipt(&self) -> Option<String> {
        self.receipt.map(Receipt::encode)
    }

    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        let call = self.shared.call();
        recovered.target.map_or(Ok(()), |was| self.shared.check_target(was))?;
        let from = match recovered.directory {
            Some(directory) => Place::new(&FILES, Some(directory), &self.sink),
            None => self.place.clone(),
        };
        if let Some(text) = recovered.receipt {
            let receipt = Receipt::decode(text)
                .ok_or_else(|| Error::checkpoint(format!("{call}: the receipt in the checkpoint is damaged")))?;
            self.check_committed(receipt)?;
            self.receipt = Some(receipt);
        }
        self.open()?;
        self.take_over()?;
        self.check_notes()?;
        if !recovered.is_settled {
            self.apply(recovered.commits, &from)?;
        }
        self.place.clear()
    }

    fn abort(&mut self) -> Result<()> {
        // What waits is in files that the next recovery applies or removes; those without a name go with the process.
        self.client = None;
        Ok(())
    }
}

impl Drop for MysqlCommitter {
    fn drop(&mut self) {
        self.shared.set_way(None);
    }
}
