//! Applies the rows of epochs, each once.
//!
//! ```text
//!   recover   lock ─► a note that this run holds the sink ─► which epochs are in the table ─► apply the others
//!             via="two_phase": prepared transactions of this sink are ended before (`two_phase.rs`)
//!   commit    begin ─► lock ─► is this run the holder? is the epoch noted? ─► COPY ─► the note ─► commit
//!             a connection is lost: connect ─► all of that again
//! ```
//!
//! A commit whose answer is lost has happened or not. The next attempt waits for the lock that the former transaction holds until
//! its end, and then reads whether the epoch is noted. A job that keeps no state has no notes; there the server is asked what became
//! of the transaction, by its number.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ::postgres::{Client, IsolationLevel, Transaction};
use mill_protocol::{Commit, Committer, Delivery, Ending, Epoch, Error, Recovered, Result, Run};

use super::address::{Attempt, Failure};
use super::notes::{Notes, Receipt, lost};
use super::sink::Shared;
use super::table::{self, Layout};
use super::two_phase::{self, Names, Preparing};
use crate::attempt::retry;
use crate::spool::{self, Handle, Place};

/// How long a commit is tried before the job fails; the next start tries again.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// How long a server is waited for before the first record.
const BEGIN_WAIT: Duration = Duration::from_secs(10);
/// What every binary COPY begins with, and ends with.
const BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: &[u8] = &(-1i16).to_be_bytes();
/// For a connection: the server gives up a peer that has gone without a word, which would hold the lock, after half a minute.
pub(super) const SILENCE: &str = "SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
     SET idle_in_transaction_session_timeout = '60s'";
/// For this transaction, whatever the role or the database has by default: a lock of somebody else's is waited for that long at a
/// time, a statement takes as long as it takes, a policy that hides rows is an error, and a commit is durable.
const SETTINGS: &str = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = 0; SET LOCAL row_security = off; \
     SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";

/// What the sink calls its files.
static FILES: spool::Names = spool::Names {
    directory: "postgres",
    function: "write_postgres",
    create: "postgres.create",
    write: "postgres.spool",
    sync: "postgres.sync",
    remove: "postgres.remove",
};

pub(super) struct PostgresCommitter {
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
    link: Option<Link>,
    /// The names of prepared transactions, which also another run than one with `via="two_phase"` may have left.
    names: Option<Names>,
    /// How transactions are prepared, if they are.
    preparing: Option<Arc<Preparing>>,
    /// The transaction of a run without notes of which it is not known whether it was committed.
    doubtful: Option<i64>,
}

/// A connection.
struct Link {
    client: Client,
    /// Whether it has the table in which rows are gathered.
    has_stage: bool,
}

impl PostgresCommitter {
    pub(super) fn new(shared: Arc<Shared>) -> PostgresCommitter {
        PostgresCommitter {
            shared,
            delivery: Delivery::ExactlyOnce,
            restored: None,
            notes: None,
            place: Place::new(&FILES, None, ""),
            sink: String::new(),
            receipt: None,
            ending: Ending::default(),
            layout: None,
            link: None,
            names: None,
            preparing: None,
            doubtful: None,
        }
    }

    /// Tries until it succeeds, never will, or the time is over. After a failure everything begins with a new connection.
    fn attempt<T>(&mut self, wait: Duration, mut attempt: impl FnMut(&mut PostgresCommitter, &mut Link) -> Attempt<T>) -> Result<T> {
        let (shared, ending) = (Arc::clone(&self.shared), self.ending.clone());
        retry(&|| shared.call(), &ending, wait, || {
            let mut link = match self.link.take() {
                Some(link) if !link.client.is_closed() => link,
                _ => {
                    let mut client = self.shared.address.connect(&self.shared.call())?;
                    client.batch_execute(SILENCE).map_err(|e| self.shared.failure("connect", &e))?;
                    Link { client, has_stage: false }
                }
            };
            let outcome = attempt(self, &mut link)?;
            self.link = Some(link);
            Ok(outcome)
        })
    }

    /// Makes or checks the table, and lets writers begin.
    fn open(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let layout = self.attempt(BEGIN_WAIT, |own, link| {
            own.shared.reach("postgres.open")?;
            let layout = table::open(&own.shared, &mut link.client)?;
            if let Some(notes) = &mut own.notes {
                notes.set_schema(layout.table.schema.as_deref().unwrap_or_default());
                notes.create(&own.shared, &mut link.client)?;
            }
            if own.prepares() {
                two_phase::check(&own.shared, &mut link.client)?;
            }
            Ok(layout)
        })?;
        let layout = Arc::new(layout);
        self.preparing = match (&self.names, &self.notes) {
            (Some(names), Some(notes)) if self.prepares() => {
                Some(Arc::new(Preparing::new(names.clone(), notes.clone(), self.ending.clone())))
            }
            _ => None,
        };
        shared.set_way(Some((Arc::clone(&layout), self.place.clone(), self.preparing.clone())));
        self.layout = Some(layout);
        Ok(())
    }

    /// Whether transactions are prepared before their checkpoint. Where nobody continues after a crash, nobody would end them.
    fn prepares(&self) -> bool {
        self.shared.is_two_phase && self.delivery == Delivery::ExactlyOnce && self.notes.is_some()
    }

    /// Ends the prepared transactions of this job and sink: those of these handles are committed, others are rolled back.
    fn end_prepared(&mut self, commits: &[Commit], from: &Place) -> Result<()> {
        let Some(names) = self.names.clone() else { return Ok(()) };
        let named = self.named(&names, commits, from)?;
        self.attempt(COMMIT_WAIT, |own, link| {
            for name in names.prepared(&own.shared, &mut link.client)? {
                own.shared.reach("postgres.end_prepared").map_err(Failure::Again)?;
                two_phase::end(&own.shared, &mut link.client, &name, named.contains(&name))?;
            }
            Ok(())
        })
    }

    /// The names of the transactions of handles, if they were prepared.
    fn named(&self, names: &Names, commits: &[Commit], from: &Place) -> Result<Vec<String>> {
        let name = |commit: &Commit| Ok(names.of(decoded(&self.shared, commit, from)?.run, commit.epoch));
        commits.iter().map(name).collect()
    }

    /// Notes that this run holds the sink from now on.
    fn take_over(&mut self) -> Result<()> {
        let Some(notes) = self.notes.clone() else { return Ok(()) };
        self.attempt(COMMIT_WAIT, |own, link| {
            let shared = Arc::clone(&own.shared);
            let mut transaction = begin(&shared, &mut link.client)?;
            notes.lock(&shared, &mut transaction)?;
            notes.take_over(&shared, &mut transaction, shared.run())?;
            transaction.commit().map_err(|e| shared.failure("note the run", &e))
        })
    }

    /// Compares the database with what the checkpoint knows to be committed, before anything is made that is not there: a
    /// table that was dropped must not come back empty and look whole to the next run.
    fn check_committed(&mut self, receipt: Receipt) -> Result<()> {
        self.attempt(BEGIN_WAIT, |own, link| {
            let shared = Arc::clone(&own.shared);
            if !table::exists(&shared, &mut link.client)? {
                return Err(lost(&shared.call(), receipt, &format!("has no table {} any more", shared.table.sql())));
            }
            let layout = table::open(&shared, &mut link.client)?;
            let Some(notes) = &mut own.notes else { return Ok(()) };
            notes.set_schema(layout.table.schema.as_deref().unwrap_or_default());
            if !notes.exist(&shared, &mut link.client)? {
                return Err(lost(&shared.call(), receipt, "has no notes of what was applied"));
            }
            Ok(())
        })?;
        Ok(())
    }

    /// With the sink taken over: a transaction of a former run is over by now.
    fn check_notes(&mut self) -> Result<()> {
        let Some(notes) = self.notes.clone() else { return Ok(()) };
        let (delivery, restored, receipt) = (self.delivery, self.restored, self.receipt);
        self.attempt(COMMIT_WAIT, |own, link| {
            let shared = &own.shared;
            if let Some(receipt) = receipt {
                notes.check(shared, &mut link.client, receipt)?;
            }
            // An exactly-once table that appends cannot take back what a later checkpoint than the restored one wrote.
            let (Delivery::ExactlyOnce, Some(restored), None) = (delivery, restored, &shared.key) else { return Ok(()) };
            match notes.newest(shared, &mut link.client)? {
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
        let newest = self.attempt(COMMIT_WAIT, |own, link| {
            if let Some(number) = own.doubtful
                && became(&shared, &mut link.client, number)?
            {
                own.doubtful = None;
                return Ok(None);
            }
            own.doubtful = None;
            shared.reach("postgres.begin").map_err(Failure::Again)?;
            if layout.key.is_some() && !link.has_stage {
                let made = link.client.batch_execute(&layout.create_stage());
                made.map_err(|e| shared.failure("make a temporary table", &e))?;
                link.has_stage = true;
            }
            let mut transaction = begin(&shared, &mut link.client)?;
            if let Some(notes) = &notes {
                notes.lock(&shared, &mut transaction)?;
                notes.check_holder(&shared, &mut transaction, shared.run())?;
                // A server that took over without the last commits, or was put back, must not be written on.
                if let Some(receipt) = own.receipt {
                    notes.check(&shared, &mut transaction, receipt)?;
                }
            }
            table::check_unchanged(&shared, &layout, &mut transaction)?;
            // The newest epoch of each run: as the database has it, and as it will.
            let mut runs: BTreeMap<u64, (Option<Epoch>, Epoch)> = BTreeMap::new();
            let (mut is_gathered, mut has_deletes) = (false, false);
            for (epoch, handle) in &handles {
                let applied = match (runs.get(&handle.run), &notes) {
                    (Some((applied, _)), _) => *applied,
                    (None, Some(notes)) => notes.applied(&shared, &mut transaction, handle.run)?,
                    (None, None) => None,
                };
                let newest = runs.entry(handle.run).or_insert((applied, *epoch));
                newest.1 = newest.1.max(*epoch);
                if applied.is_none_or(|applied| applied < *epoch) {
                    send_handle(&shared, &layout, &mut transaction, handle, place)?;
                    is_gathered = true;
                    has_deletes |= handle.deletes > 0;
                }
            }
            if let Some(key) = layout.key.as_ref().filter(|_| is_gathered) {
                merge(&shared, &layout, key, has_deletes, &mut transaction)?;
            }
            let mut receipt: Option<Receipt> = None;
            for (run, (_, epoch)) in runs {
                let applied = Receipt { run, epoch };
                if let Some(notes) = &notes {
                    notes.note(&shared, &mut transaction, applied)?;
                }
                if receipt.is_none_or(|receipt| receipt.epoch <= epoch) {
                    receipt = Some(applied);
                }
            }
            if notes.is_none() {
                let number = transaction.query_one("SELECT txid_current()", &[]);
                own.doubtful = Some(number.map_err(|e| shared.failure("number the transaction", &e))?.get(0));
            }
            shared.reach("postgres.commit").map_err(Failure::Again)?;
            transaction.commit().map_err(|e| shared.failure("commit", &e))?;
            shared.reach("postgres.committed").map_err(Failure::Again)?;
            own.doubtful = None;
            Ok(receipt)
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

/// Begins a transaction in which each statement sees what was committed before it: the holder is read after the lock is had.
pub(super) fn begin<'c>(shared: &Shared, client: &'c mut Client) -> Attempt<Transaction<'c>> {
    let begun = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false).start();
    let mut transaction = begun.map_err(|e| shared.failure("begin a transaction", &e))?;
    transaction.batch_execute(SETTINGS).map_err(|e| shared.failure("begin a transaction", &e))?;
    Ok(transaction)
}

/// Whether a transaction was committed; one that is still in progress is asked about again.
fn became(shared: &Shared, client: &mut Client, number: i64) -> Attempt<bool> {
    let row = client.query_one("SELECT txid_status($1)", &[&number]);
    match row.map_err(|e| shared.failure("ask what became of a transaction", &e))?.get::<_, Option<String>>(0).as_deref() {
        Some("committed") => Ok(true),
        Some("aborted") => Ok(false),
        Some(_) => Err(Failure::Again(Error::connector(format!("{}: a transaction of this job is still in progress", shared.call())))),
        None => Err(Failure::Final(Error::connector(format!(
            "{}: whether rows were committed is not known: the connection was lost, and the server no longer knows the transaction",
            shared.call()
        )))),
    }
}

/// Sends the rows of a handle: into the table, or to where those of an epoch are gathered.
pub(super) fn send_handle(shared: &Shared, layout: &Layout, transaction: &mut Transaction<'_>, handle: &Handle, place: &Place) -> Attempt<()> {
    let columns = layout.fingerprint();
    if handle.columns != columns {
        return Err(Failure::Final(Error::schema(format!(
            "{}: rows that wait for their commit were written for the columns {}, and the table has {columns} now; put the columns back \
             as they were, until the job has run once",
            shared.call(),
            handle.columns
        ))));
    }
    let sql = match &layout.key {
        None => layout.copy(),
        Some(_) => layout.copy_to_stage(),
    };
    let copied = copy(shared, transaction, &sql, handle, place)?;
    shared.reach("postgres.copied").map_err(Failure::Again)?;
    if copied == handle.rows { Ok(()) } else { Err(dropped(shared, copied, handle.rows)) }
}

/// Deletes and replaces the rows whose keys were gathered, as the last record of each key says.
pub(super) fn merge(shared: &Shared, layout: &Layout, key: &[usize], has_deletes: bool, transaction: &mut Transaction<'_>) -> Attempt<()> {
    if has_deletes {
        transaction.execute(&layout.delete(key), &[]).map_err(|e| shared.failure("delete rows", &e))?;
    }
    let upserted = transaction.execute(&layout.upsert(key), &[]).map_err(|e| shared.failure("write rows", &e))?;
    let mut count = |sql: String| -> Attempt<u64> {
        let row = transaction.query_one(&sql, &[]).map_err(|e| shared.failure("count rows", &e))?;
        Ok(row.get::<_, i64>(0) as u64)
    };
    if has_deletes {
        // Counted afterwards, since a row need not be there to be deleted.
        let undeleted = count(layout.count_undeleted(key))?;
        if undeleted > 0 {
            return Err(Failure::Final(Error::schema(format!(
                "{}: {} nevertheless: a trigger or a rule of the table keeps what is deleted; nothing was written",
                shared.call(),
                if undeleted == 1 { "1 row was deleted and is there".to_owned() } else { format!("{undeleted} rows were deleted and are there") }
            ))));
        }
    }
    let wanted = count(layout.count(key))?;
    // A table of nothing but the key leaves its rows as they are, and the server does not count those.
    let there = if layout.counts_all(key) { upserted } else { count(layout.count_there(key))? };
    if there == wanted { Ok(()) } else { Err(dropped(shared, there, wanted)) }
}

fn dropped(shared: &Shared, written: u64, wanted: u64) -> Failure {
    Failure::Final(Error::schema(format!(
        "{}: {} sent and {written} arrived: a trigger or a rule of the table leaves rows out, so they would be missing \
         without an error; nothing was written",
        shared.call(),
        if wanted == 1 { "1 row was".to_owned() } else { format!("{wanted} rows were") }
    )))
}

/// Sends the rows of a handle; returns how many the server has taken.
fn copy(shared: &Shared, transaction: &mut Transaction<'_>, sql: &str, handle: &Handle, place: &Place) -> Attempt<u64> {
    let mut output = transaction.copy_in(sql).map_err(|e| shared.failure("write rows", &e))?;
    let mut failed = None;
    let mut send = |bytes: &[u8]| {
        output.write_all(bytes).map_err(|e| {
            failed = Some(match e.get_ref().and_then(|inner| inner.downcast_ref::<::postgres::Error>()) {
                Some(inner) => shared.failure("write rows", inner),
                None => Failure::Again(Error::connector(format!("{}: cannot write rows: {e}", shared.call()))),
            });
            Error::internal("told below")
        })
    };
    let sent = send(BEGIN).and_then(|()| handle.for_each(place, &mut send)).and_then(|()| send(END));
    if let Err(error) = sent {
        return Err(failed.unwrap_or(Failure::Final(error)));
    }
    output.finish().map_err(|e| shared.failure("write rows", &e))
}

impl Committer for PostgresCommitter {
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        self.delivery = run.delivery;
        self.restored = run.restored;
        // At most once nothing is committed a second time, so nobody asks.
        self.notes = Notes::new(run, &self.shared.table.table).filter(|_| run.delivery != Delivery::AtMostOnce);
        // Without notes nobody could tell one that is gone from one that was never there.
        self.names = self.notes.as_ref().and(run.job).map(|job| Names::new(job, run.sink, &self.shared.target()));
        self.sink = run.sink.to_owned();
        self.place = Place::new(&FILES, run.directory, run.sink);
        self.ending = run.ending.cloned().unwrap_or_default();
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.open()?;
        self.end_prepared(&[], &self.place.clone())?;
        self.place.clear()?;
        self.take_over()
    }

    fn files(&self, commit: &Commit) -> Vec<String> {
        Handle::decode(&commit.handle, &self.place).and_then(|handle| handle.file(&self.place)).into_iter().collect()
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        let place = self.place.clone();
        if let Some(preparing) = self.preparing.clone() {
            let named = self.named(&preparing.names, commits, &place)?;
            self.attempt(COMMIT_WAIT, |own, link| {
                for name in &named {
                    own.shared.reach("postgres.commit_prepared").map_err(Failure::Again)?;
                    two_phase::end(&own.shared, &mut link.client, name, true)?;
                    own.shared.reach("postgres.committed_prepared").map_err(Failure::Again)?;
                }
                Ok(())
            })?;
        }
        // Then they are noted, and this only makes sure of it; a transaction that somebody has rolled back is made again.
        self.apply(commits, &place)?;
        if let Some(preparing) = &self.preparing {
            preparing.committed(commits.iter().map(|commit| commit.epoch));
        }
        Ok(())
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
        self.end_prepared(recovered.commits, &from)?;
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
        // What waits is in files that the next recovery applies or removes; those without a name go with the process. A prepared
        // transaction would hold its locks until then.
        if let Some(Preparing { names, .. }) = self.preparing.as_deref() {
            let shared = &self.shared;
            let mut client = shared.address.connect(&shared.call()).map_err(Failure::into_error)?;
            for name in names.prepared_by(shared.run(), shared, &mut client).map_err(Failure::into_error)? {
                two_phase::end(shared, &mut client, &name, false).map_err(Failure::into_error)?;
            }
        }
        self.link = None;
        Ok(())
    }
}

impl Drop for PostgresCommitter {
    fn drop(&mut self) {
        self.shared.set_way(None);
    }
}
