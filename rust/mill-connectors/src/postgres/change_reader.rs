//! Reads a table and then its changes, on a thread of its own.
//!
//! ```text
//!   new slot, or a temporary one ─► its snapshot ─► COPY in the order of the key ─┐
//!                                                                                 ├─► pieces ─► a queue of two ─► the reader
//!   START_REPLICATION ─► transactions, each as a whole ─► changes of the table ───┘
//!        ▲    signs of life, and what completed checkpoints have read
//!        └────────────────────────────────────────────────────────────── also while the queue is full, or nothing happens
//! ```
//!
//! The place of a piece is that after its last row; it can be cut after any row of the table, and after all changes of one place in the
//! log (one record of the log may hold many rows of a `COPY`). Changes are counted by their places, so nothing depends on how the server
//! cuts its stream. A connection that is lost is made again, and reading goes on after the last piece.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::postgres::{CancelToken, IsolationLevel, NoTls};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use mill_frame::text::record_json;
use mill_protocol::{Error, Position, Read, Rejected, Result, SplitReader};

use super::address::{Attempt, Failure};
use super::change_place::{Place, Snapshot, Within};
use super::changes::Shared;
use super::decode::Builder;
use super::keys::{At, KeyColumn};
use super::name::constant;
use super::pgoutput::{self, Lsn, Message, Relation, Streamed, Value};
use super::reader::copy_rows;
use super::session::Session;
use super::wire::{self, POLL};
use crate::client_thread;

const ROWS_DEFAULT: usize = 8192;
/// A piece has about so many bytes at most.
const BYTES_MAX: usize = 8 << 20;
/// So many pieces wait at most.
const PIECES_MAX: usize = 2;
/// How long a server that went away is asked again, without an answer from it.
const RETRY_WAIT: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a call waits for a piece before it says that there is none yet.
const ANSWER_WAIT: Duration = Duration::from_millis(20);
/// How often the server is told how far the job is, if there is nothing new about that. It gives up a silent reader after a minute.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How long the server may be silent, though it was asked: one that goes through a large transaction of other tables does not answer.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How often it is passed on that the log has grown without a change of the table.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

const INSERT: &str = "insert";
const UPDATE: &str = "update";
const DELETE: &str = "delete";

/// Rows and what becomes of their keys, and the places after them.
struct Piece {
    batch: RecordBatch,
    bad: Vec<(usize, String)>,
    places: Places,
}

enum Places {
    /// Of rows of the table: the place at the start, and the point of the snapshot.
    Rows(Place, Lsn),
    /// The place before them, and those after so many changes; the last one is after all of them.
    Changes(Place, Vec<Mark>),
}

/// The place after so many changes.
#[derive(Clone, Copy)]
struct Mark {
    end: usize,
    lsn: Lsn,
    within: Option<Within>,
}

enum Item {
    Piece(Piece),
    End,
    Failed(Error),
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    is_over: bool,
    cancel: Option<CancelToken>,
}

/// What the thread and the reader share.
#[derive(Default)]
struct Link {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Link {
    fn is_over(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_over
    }

    /// Waits until there is room; meanwhile calls `idle` now and then. Returns whether the item is wanted.
    fn push(&self, item: Item, idle: &mut dyn FnMut() -> Attempt<()>) -> Attempt<bool> {
        loop {
            let held = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let is_full = |waiting: &mut Waiting| !waiting.is_over && waiting.items.len() >= PIECES_MAX;
            let (mut held, _) = self.changed.wait_timeout_while(held, POLL, is_full).unwrap_or_else(PoisonError::into_inner);
            if held.is_over {
                return Ok(false);
            }
            if held.items.len() < PIECES_MAX {
                held.items.push_back(item);
                self.changed.notify_all();
                return Ok(true);
            }
            drop(held);
            idle()?;
        }
    }

    fn pop(&self) -> Option<Item> {
        let held = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = self.changed.wait_timeout_while(held, ANSWER_WAIT, |waiting| waiting.items.is_empty());
        let item = wait.unwrap_or_else(PoisonError::into_inner).0.items.pop_front();
        self.changed.notify_all();
        item
    }
}

/// Gives the rows of a table and their changes.
pub(super) struct ChangeReader {
    shared: Arc<Shared>,
    schema: SchemaRef,
    place: Option<Place>,
    until: Option<Lsn>,
    rows_most: usize,
    thread: Option<(JoinHandle<()>, Arc<Link>)>,
    /// The piece that is handed out, and how much of it was.
    piece: Option<(Piece, usize)>,
    is_ended: bool,
}

impl ChangeReader {
    pub(super) fn new(shared: Arc<Shared>, schema: SchemaRef, place: Option<Place>, until: Option<Lsn>) -> ChangeReader {
        ChangeReader { shared, schema, place, until, rows_most: ROWS_DEFAULT, thread: None, piece: None, is_ended: false }
    }

    fn link(&mut self) -> Result<Arc<Link>> {
        if let Some((_, link)) = &self.thread {
            return Ok(Arc::clone(link));
        }
        let link = Arc::new(Link::default());
        let mut follow = Follow {
            shared: Arc::clone(&self.shared),
            place: self.place.clone(),
            until: self.until,
            rows_most: self.rows_most,
            link: Arc::clone(&link),
            heard: Instant::now(),
        };
        let thread = client_thread::start("mill-postgres", move || follow.run())?;
        self.thread = Some((thread, Arc::clone(&link)));
        Ok(link)
    }
}

impl SplitReader for ChangeReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if self.is_ended {
            return Ok(Read::End);
        }
        let link = self.link()?;
        if self.piece.is_none() {
            match link.pop() {
                Some(Item::Piece(piece)) => self.piece = Some((piece, 0)),
                Some(Item::End) => {
                    self.is_ended = true;
                    return Ok(Read::End);
                }
                Some(Item::Failed(error)) => return Err(error),
                None => return Ok(Read::Pending(Duration::from_millis(1))),
            }
        }
        let Some((piece, from)) = self.piece.take() else { return Err(Error::internal("a piece has just come")) };
        let rows = piece.batch.num_rows();
        let (end, place) = match &piece.places {
            Places::Rows(start, point) => {
                let end = rows.min(from + rows_max.max(1));
                let at = At::of(&self.shared.rows.key, piece.batch.columns(), end - 1)?;
                (end, Place { snapshot: Some(Snapshot { point: *point, at: Some(at) }), ..start.clone() })
            }
            Places::Changes(start, marks) => {
                // As many changes as there is room for, and those of one place at least.
                let next = marks.partition_point(|mark| mark.end <= from && mark.end < rows);
                let fit = marks.partition_point(|mark| mark.end <= from + rows_max.max(1));
                let mark = marks[(fit.max(next + 1) - 1).min(marks.len() - 1)];
                let mut place = Place { lsn: mark.lsn, within: mark.within, ..start.clone() };
                place.forget_parts();
                (mark.end, place)
            }
        };
        self.place = Some(place);
        let part = piece.batch.slice(from, end - from);
        let bad: Vec<(usize, String)> =
            piece.bad.iter().filter(|(row, _)| (from..end).contains(row)).map(|(row, why)| (row - from, why.clone())).collect();
        if end < rows {
            self.piece = Some((piece, end));
        }
        let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
        let chosen = self.schema.fields().iter().map(|field| part.schema().index_of(field.name())).collect::<std::result::Result<Vec<_>, _>>();
        let wanted = chosen.and_then(|chosen| part.project(&chosen)).and_then(|part| part.with_schema(Arc::clone(&self.schema)));
        let wanted = wanted.map_err(internal)?;
        if bad.is_empty() {
            return Ok(Read::Batch(wanted));
        }
        let rejected = bad.iter().map(|(row, why)| Rejected::new(why.clone(), record_json(&part, *row))).collect();
        let is_good: BooleanArray = (0..part.num_rows()).map(|row| Some(bad.iter().all(|(bad, _)| *bad != row))).collect();
        Ok(Read::Partial(filter_record_batch(&wanted, &is_good).map_err(internal)?, rejected))
    }

    fn set_rows_most(&mut self, rows: usize) {
        self.rows_most = rows.max(1);
    }

    fn position(&self) -> Position {
        self.place.as_ref().map(Place::encode).unwrap_or_default()
    }
}

impl Drop for ChangeReader {
    fn drop(&mut self) {
        let Some((thread, link)) = self.thread.take() else { return };
        let cancel = {
            let mut held = link.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            held.is_over = true;
            link.changed.notify_all();
            held.cancel.take()
        };
        if let Some(token) = cancel {
            // If it does not arrive, the query ends with its connection.
            let _ = match self.shared.rows.address.tls("read_postgres_changes()") {
                Ok(Some(connector)) => token.cancel_query(connector),
                _ => token.cancel_query(NoTls),
            };
        }
        let _ = thread.join();
    }
}

/// The thread's side.
struct Follow {
    shared: Arc<Shared>,
    /// The place after the last piece that was sent.
    place: Option<Place>,
    until: Option<Lsn>,
    rows_most: usize,
    link: Arc<Link>,
    /// When the server has answered last.
    heard: Instant,
}

impl Follow {
    fn run(&mut self) {
        let mut pause = Duration::from_millis(50);
        self.heard = Instant::now();
        // Since when attempts have failed without a word of the server between them.
        let mut failing: Option<Instant> = None;
        let item = loop {
            let before = self.heard;
            let outcome = self.follow();
            self.link.waiting.lock().unwrap_or_else(PoisonError::into_inner).cancel = None;
            match outcome {
                Ok(()) if self.link.is_over() => return,
                Ok(()) => break Item::End,
                Err(Failure::Final(error)) => break Item::Failed(error),
                Err(Failure::Again(_)) if self.link.is_over() => return,
                Err(Failure::Again(error)) => {
                    if self.heard != before {
                        pause = Duration::from_millis(50);
                        failing = None;
                    }
                    // Not since its last word: one that is cut off is silent for longer before that is a failure.
                    if failing.get_or_insert_with(Instant::now).elapsed() >= RETRY_WAIT {
                        break Item::Failed(error);
                    }
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        };
        // Nobody is there to hear it if this fails.
        let _ = self.link.push(item, &mut || Ok(()));
    }

    fn call(&self) -> String {
        self.shared.call()
    }

    fn reach(&self, step: &'static str) -> Attempt<()> {
        mill_fault::reach(step).map_err(|e| Failure::Again(Error::connector(format!("{}: {step}: {e}", self.call()))))
    }

    /// Reads on until the end, if there is one.
    fn follow(&mut self) -> Attempt<()> {
        let link = Arc::clone(&self.link);
        let is_over = || link.is_over();
        let shared = Arc::clone(&self.shared);
        self.reach("postgres.follow")?;
        let mut session = Session::open(&shared)?;
        let confirmed = session.check_slot(&shared, self.place.as_ref(), &is_over)?;
        let reads_table = match &self.place {
            None => shared.has_snapshot,
            Some(place) => place.snapshot.is_some(),
        };
        if reads_table {
            let exported = match confirmed {
                None => session.create_slot(&shared, true, &is_over)?,
                Some(_) => session.export(&shared, &is_over)?,
            };
            self.reach("postgres.exported")?;
            if !self.read_table(session, exported.point, &exported.name)? {
                return Ok(());
            }
            session = Session::open(&shared)?;
            session.check_slot(&shared, self.place.as_ref(), &is_over)?;
        } else if self.place.is_none() {
            let lsn = match confirmed {
                None => session.create_slot(&shared, false, &is_over)?.point,
                Some(confirmed) => confirmed,
            };
            self.place =
                Some(Place { system: session.system.clone(), table: shared.number, lsn, within: None, parts: Arc::default(), snapshot: None });
        }
        let place = self.place.clone().ok_or_else(|| Failure::Final(Error::internal("a place was just found")))?;
        self.reach("postgres.start")?;
        session.start(&shared, place.lsn, &is_over)?;
        self.heard = Instant::now();
        Changes::new(self, session, place)?.read()
    }

    /// Reads the rest of the table from a snapshot; `false` if nobody wants it any more.
    fn read_table(&mut self, session: Session, point: Lsn, snapshot: &str) -> Attempt<bool> {
        let shared = Arc::clone(&self.shared);
        let call = self.call();
        let failed = |e: &::postgres::Error| shared.rows.address.failure(&call, "read the table", e);
        let mut client = shared.rows.address.connect(&call)?;
        {
            let mut held = self.link.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if held.is_over {
                return Ok(false);
            }
            held.cancel = Some(client.cancel_token());
        }
        let begun = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start();
        let mut transaction = begun.map_err(|e| failed(&e))?;
        // A policy that hides rows is an error: changes are sent without regard to it.
        let sql = format!("SET TRANSACTION SNAPSHOT {}; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0", constant(snapshot));
        transaction.batch_execute(&sql).map_err(|e| match e.code().map(|code| code.code()) {
            // The session that has made the snapshot was cut off meanwhile.
            Some("22023" | "42704") => Failure::Again(failed(&e).into_error()),
            _ => failed(&e),
        })?;
        let system = session.system.clone();
        // The snapshot is the transaction's from here on.
        drop(session);
        let mut start = match self.place.take() {
            Some(mut place) => {
                place.leave_snapshot();
                place
            }
            None => Place { system, table: shared.number, lsn: point, within: None, parts: Arc::default(), snapshot: None },
        };
        let after = start.last_key().cloned();
        start.snapshot = Some(Snapshot { point, at: None });
        self.place = Some(start.clone());
        let (link, op) = (Arc::clone(&self.link), shared.op.clone());
        let (place, heard) = (&mut self.place, &mut self.heard);
        let mut broken = None;
        let mut give = |chunk: super::reader::Chunk, last: At| {
            let ops: ArrayRef = Arc::new(StringArray::from(vec![INSERT; chunk.batch.num_rows()]));
            let batch = match with_ops(&chunk.batch, &op, ops) {
                Ok(batch) => batch,
                Err(error) => {
                    broken = Some(error);
                    return false;
                }
            };
            let piece = Piece { batch, bad: chunk.bad, places: Places::Rows(start.clone(), point) };
            let is_wanted = matches!(link.push(Item::Piece(piece), &mut || Ok(())), Ok(true));
            if is_wanted {
                *heard = Instant::now();
                *place = Some(Place { snapshot: Some(Snapshot { point, at: Some(last) }), ..start.clone() });
            }
            is_wanted
        };
        let is_whole = copy_rows(&shared.rows, &mut transaction, after.as_ref(), self.rows_most, &mut give)?;
        if let Some(error) = broken {
            return Err(Failure::Final(Error::internal(error.to_string())));
        }
        if !is_whole {
            return Ok(false);
        }
        transaction.commit().map_err(|e| failed(&e))?;
        self.heard = Instant::now();
        if let Some(place) = &mut self.place {
            place.end_snapshot();
        }
        Ok(true)
    }
}

fn with_ops(batch: &RecordBatch, op: &str, ops: ArrayRef) -> std::result::Result<RecordBatch, arrow::error::ArrowError> {
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(op, DataType::Utf8, false)));
    let mut columns = batch.columns().to_vec();
    columns.push(ops);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// A stream of changes.
struct Changes<'a> {
    follow: &'a mut Follow,
    shared: Arc<Shared>,
    session: Session,
    /// The places before and after what was gathered.
    start: Place,
    place: Place,
    /// Whether it is further than what was sent.
    has_moved: bool,
    sent: Instant,
    /// The commit of the transaction that comes, and the place of its last change.
    transaction: Option<(Lsn, Lsn)>,
    /// Where the columns are in the rows that come, once the table was told of.
    columns: Option<Vec<usize>>,
    gathered: Gathered,
    /// What was told to the server, and when.
    told: Lsn,
    told_at: Instant,
}

/// What is gathered of a piece.
struct Gathered {
    builders: Vec<Builder>,
    ops: Vec<&'static str>,
    bytes: usize,
    bad: Vec<(usize, String)>,
    marks: Vec<Mark>,
}

impl Changes<'_> {
    fn new(follow: &mut Follow, session: Session, place: Place) -> Attempt<Changes<'_>> {
        let shared = Arc::clone(&follow.shared);
        let builders = shared.rows.columns.iter().map(|(_, form)| Builder::new(form)).collect::<std::result::Result<Vec<_>, _>>();
        let builders = builders.map_err(|e: String| Failure::Final(Error::internal(e)))?;
        let gathered = Gathered { builders, ops: Vec::new(), bytes: 0, bad: Vec::new(), marks: Vec::new() };
        let now = Instant::now();
        Ok(Changes {
            follow,
            shared,
            session,
            start: place.clone(),
            place,
            // That the table was read to its end has to be told.
            has_moved: true,
            sent: now,
            transaction: None,
            columns: None,
            gathered,
            told: Lsn(0),
            told_at: now,
        })
    }

    fn read(&mut self) -> Attempt<()> {
        loop {
            if self.is_at_end(self.place.lsn) {
                self.send()?;
                return Ok(());
            }
            if !self.session.wire.has_message() && self.transaction.is_none() && !self.gathered.ops.is_empty() && !self.send()? {
                return Ok(());
            }
            match self.session.wire.next()? {
                wire::Streamed::Data(data) => {
                    self.follow.heard = Instant::now();
                    if !self.take(&data)? {
                        return Ok(());
                    }
                }
                wire::Streamed::Nothing => {
                    if self.follow.link.is_over() {
                        return Ok(());
                    }
                    if self.follow.heard.elapsed() >= SILENCE_MAX {
                        let call = self.shared.call();
                        return Err(Failure::Again(Error::connector(format!("{call}: cannot read changes: the server does not answer"))));
                    }
                    self.tell(self.follow.until.is_some())?;
                }
            }
            self.tell(false)?;
            if self.has_moved && self.transaction.is_none() && self.sent.elapsed() >= PROGRESS_EVERY && !self.send()? {
                return Ok(());
            }
        }
    }

    /// Whether all is there that was to be read, where the log was read up to here.
    fn is_at_end(&self, lsn: Lsn) -> bool {
        self.transaction.is_none() && self.follow.until.is_some_and(|until| lsn >= until.max(self.place.whole_at()))
    }

    /// Takes a message; `false` if nobody wants more, or it is behind the end.
    fn take(&mut self, data: &[u8]) -> Attempt<bool> {
        let damaged = || Failure::Final(Error::connector(format!("{}: changes come in a form that is not known", self.shared.call())));
        let (at, message) = match pgoutput::read(data).ok_or_else(damaged)? {
            Streamed::Alive(end, asks) => {
                // Within a transaction it says nothing: the server may be ahead of what it has sent.
                if self.transaction.is_none() && end > self.place.lsn {
                    // A transaction of which a part was read is still to come, unless its commit lies before that.
                    let within = self.place.within.filter(|within| within.commit >= end);
                    self.move_to(end, within);
                }
                if asks {
                    self.tell(true)?;
                }
                return Ok(true);
            }
            Streamed::Data(at, message) => (at, message),
        };
        match message {
            Message::Begin(commit) => {
                if self.is_at_end(commit) {
                    self.move_to(commit, None);
                    self.send()?;
                    return Ok(false);
                }
                self.transaction = Some((commit, Lsn(0)));
            }
            Message::Commit(end) => {
                self.transaction = None;
                self.move_to(end, None);
                if self.gathered.is_full(self.follow.rows_most) {
                    return self.send();
                }
            }
            Message::Relation(relation) => self.meet(&relation)?,
            Message::Truncate(tables) if tables.contains(&self.shared.number) => {
                return Err(Failure::Final(Error::data(format!(
                    "{}: the table was emptied by TRUNCATE, which says of no key that it is gone. Start anew, with another checkpoint path \
                     and slot; a publication with publish = 'insert, update, delete' leaves TRUNCATE out",
                    self.shared.call()
                ))));
            }
            Message::Insert(table, row) if table == self.shared.number => return self.change(at, INSERT, None, Some(&row), data.len()),
            Message::Update(table, former, row) if table == self.shared.number => {
                return self.change(at, UPDATE, former.as_deref(), Some(&row), data.len());
            }
            Message::Delete(table, former) if table == self.shared.number => {
                return self.change(at, DELETE, Some(&former), None, data.len());
            }
            _ => {}
        }
        Ok(true)
    }

    /// All transactions whose commit lies before this place were read.
    fn move_to(&mut self, lsn: Lsn, within: Option<Within>) {
        self.place.lsn = lsn;
        self.place.within = within;
        self.place.forget_parts();
        self.has_moved = true;
        self.gathered.mark(&self.place);
    }

    /// Compares a table, as it was when it was changed, with what it was when the source was declared.
    fn meet(&mut self, relation: &Relation) -> Attempt<()> {
        let shared = &self.shared;
        let call = shared.call();
        let is_ours = relation.number == shared.number;
        let is_named_so = relation.table == shared.table.table && shared.table.schema.as_deref() == Some(relation.schema.as_str());
        if !is_ours {
            if is_named_so {
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: the table is another one now: it was dropped and made anew; start anew, with another checkpoint path and slot"
                ))));
            }
            return Ok(());
        }
        let mut columns = Vec::with_capacity(shared.kinds.len());
        for ((field, form), (kind, modifier)) in shared.rows.columns.iter().zip(&shared.kinds) {
            let Some(place) = relation.columns.iter().position(|column| column.name == *field.name()) else {
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: column {:?} is not in the changes of the table after {}: it was dropped, renamed, added later or left out of the \
                     publication; leave it out with columns=, or start anew, with another checkpoint path and slot",
                    field.name(),
                    self.place.lsn
                ))));
            };
            let column = &relation.columns[place];
            if (column.kind, column.modifier) != (*kind, *modifier) {
                return Err(Failure::Final(Error::schema(format!(
                    "{call}: column {:?} is of another type in the changes of the table after {} than {}, which it was when the source was \
                     declared: the table was altered; leave the column out with columns=, or start anew, with another checkpoint path and slot",
                    field.name(),
                    self.place.lsn,
                    form.declared()
                ))));
            }
            columns.push(place);
        }
        self.columns = Some(columns);
        Ok(())
    }

    /// Takes up a change; `false` if nobody wants more.
    fn change(&mut self, at: Lsn, op: &'static str, former: Option<&[Value<'_>]>, row: Option<&[Value<'_>]>, bytes: usize) -> Attempt<bool> {
        let shared = Arc::clone(&self.shared);
        let damaged = || Failure::Final(Error::connector(format!("{}: changes come in a form that is not known", shared.call())));
        let Some((commit, last)) = self.transaction.as_mut() else { return Err(damaged()) };
        let commit = *commit;
        if self.place.within.is_some_and(|within| within.commit == commit && at <= within.at && *last == Lsn(0)) {
            // It was read before the connection was lost.
            return Ok(true);
        }
        let is_next = *last < at;
        *last = at;
        if is_next && self.gathered.is_begun() {
            self.gathered.mark(&self.place);
            if self.gathered.is_full(self.follow.rows_most) && !self.send()? {
                return Ok(false);
            }
        }
        let Some(columns) = self.columns.take() else { return Err(damaged()) };
        let outcome = self.rows(&columns, op, commit, former, row, bytes);
        self.columns = Some(columns);
        outcome?;
        self.place.within = Some(Within { commit, at });
        self.has_moved = true;
        Ok(true)
    }

    /// Adds what a change does to its key, or to two if it changes the key.
    fn rows(
        &mut self,
        columns: &[usize],
        op: &'static str,
        commit: Lsn,
        former: Option<&[Value<'_>]>,
        row: Option<&[Value<'_>]>,
        bytes: usize,
    ) -> Attempt<()> {
        let shared = Arc::clone(&self.shared);
        let damaged = || Failure::Final(Error::connector(format!("{}: changes come in a form that is not known", shared.call())));
        let key = &shared.rows.key;
        let keys_of = |row: &[Value<'_>]| key.iter().all(|column| columns.get(column.place).and_then(|place| row.get(*place)).is_some());
        if !former.is_none_or(keys_of) || !row.is_none_or(keys_of) {
            return Err(damaged());
        }
        let place = |column: &KeyColumn| columns[column.place];
        let key_has_changed = match (former, row) {
            (Some(former), Some(row)) => key.iter().any(|column| {
                let now = row[place(column)];
                now != Value::Unchanged && now != former[place(column)]
            }),
            _ => false,
        };
        let has_parts = !self.place.parts.is_empty();
        if let Some(former) = former.filter(|_| row.is_none() || key_has_changed)
            && !(has_parts && self.place.shows(&self.key_of(columns, former)?, commit, key))
        {
            self.push(columns, DELETE, None, former, bytes)?;
        }
        if let Some(row) = row {
            if has_parts {
                let whole: Vec<Value<'_>> = row.iter().enumerate().map(|(place, value)| whole(*value, former, place)).collect();
                if self.place.shows(&self.key_of(columns, &whole)?, commit, key) {
                    return Ok(());
                }
            }
            self.push(columns, op, former, row, bytes)?;
        }
        Ok(())
    }

    /// The key of a row.
    fn key_of(&self, columns: &[usize], row: &[Value<'_>]) -> Attempt<At> {
        let mut arrays = Vec::new();
        let mut key = self.shared.rows.key.clone();
        for (number, column) in key.iter_mut().enumerate() {
            let mut builder = Builder::new(&column.form).map_err(|e| Failure::Final(Error::internal(e)))?;
            let pushed = match row[columns[column.place]] {
                Value::Binary(bytes) => builder.push(Some(bytes)),
                _ => Err("it is not sent".to_owned()),
            };
            pushed.map_err(|why| self.no_key(&column.name, &why))?;
            arrays.push(builder.finish().map_err(|e| Failure::Final(Error::internal(e)))?);
            column.place = number;
        }
        Ok(At::of(&key, &arrays, 0)?)
    }

    fn no_key(&self, name: &str, why: &str) -> Failure {
        Failure::Final(Error::data(format!("{}: column {name:?} of the key: {why}", self.shared.call())))
    }

    /// Adds a row; of one that is deleted only the key.
    fn push(&mut self, columns: &[usize], op: &'static str, former: Option<&[Value<'_>]>, row: &[Value<'_>], bytes: usize) -> Attempt<()> {
        let shared = Arc::clone(&self.shared);
        let mut wrong = None;
        for (number, (field, form)) in shared.rows.columns.iter().enumerate() {
            let is_key = shared.rows.key.iter().any(|column| column.place == number);
            let builder = &mut self.gathered.builders[number];
            let pushed = match row.get(columns[number]).map(|value| whole(*value, former, columns[number])) {
                _ if op == DELETE && !is_key => builder.push(None),
                Some(Value::Null) if is_key => Err("it is null".to_owned()),
                Some(Value::Null) => builder.push(None),
                Some(Value::Binary(bytes)) => builder.push(Some(bytes)),
                Some(Value::Unchanged) => Err("the server does not send a long value that an update leaves as it is; ALTER TABLE … REPLICA \
                                               IDENTITY FULL makes it do so, or leave the column out with columns="
                    .to_owned()),
                Some(Value::Text) => Err(format!("a {} comes as text", form.declared())),
                None => Err("it is not sent".to_owned()),
            };
            if let Err(why) = pushed {
                if is_key {
                    return Err(self.no_key(field.name(), &why));
                }
                let _ = builder.push(None);
                wrong.get_or_insert_with(|| format!("{}: column {:?}: {why}", shared.call(), field.name()));
            }
        }
        if let Some(why) = wrong {
            self.gathered.bad.push((self.gathered.ops.len(), why));
        }
        self.gathered.ops.push(op);
        self.gathered.bytes += bytes;
        Ok(())
    }

    /// Sends what was gathered, and the place after it; `false` if nobody wants it any more.
    fn send(&mut self) -> Attempt<bool> {
        if !self.has_moved {
            return Ok(true);
        }
        self.follow.reach("postgres.changes")?;
        self.gathered.mark(&self.place);
        let piece = self.gathered.finish(&self.shared, std::mem::replace(&mut self.start, self.place.clone()))?;
        let (session, told_at, told, shared) = (&mut self.session, &mut self.told_at, &mut self.told, &self.shared);
        let received = self.place.lsn;
        let mut idle = || tell(session, shared, received, told, told_at, false);
        if !self.follow.link.push(Item::Piece(piece), &mut idle)? {
            return Ok(false);
        }
        self.follow.place = Some(self.place.clone());
        self.has_moved = false;
        self.sent = Instant::now();
        // The wait for room was not the server's.
        self.follow.heard = self.sent;
        Ok(true)
    }

    /// Tells the server how far the job is, if that is new or it is time to.
    fn tell(&mut self, asks: bool) -> Attempt<()> {
        tell(&mut self.session, &self.shared, self.place.lsn, &mut self.told, &mut self.told_at, asks)
    }
}

fn tell(session: &mut Session, shared: &Shared, received: Lsn, told: &mut Lsn, told_at: &mut Instant, asks: bool) -> Attempt<()> {
    let kept = shared.kept();
    if kept <= *told && told_at.elapsed() < STATUS_EVERY && !asks {
        return Ok(());
    }
    // A server that has nothing to send says that it is there if it is asked.
    session.wire.send(&pgoutput::status(received.max(kept), kept, asks || told_at.elapsed() >= STATUS_EVERY))?;
    (*told, *told_at) = (kept.max(*told), Instant::now());
    Ok(())
}

/// A value, or the former one if it was not changed and that is known.
fn whole<'a>(value: Value<'a>, former: Option<&[Value<'a>]>, place: usize) -> Value<'a> {
    match value {
        Value::Unchanged => former.and_then(|former| former.get(place)).copied().filter(|former| *former != Value::Null).unwrap_or(value),
        value => value,
    }
}

impl Gathered {
    fn is_full(&self, rows_most: usize) -> bool {
        self.ops.len() >= rows_most || self.bytes >= BYTES_MAX
    }

    /// Whether there are rows after the last place.
    fn is_begun(&self) -> bool {
        self.marks.last().map_or(0, |mark| mark.end) < self.ops.len()
    }

    /// What was gathered ends at this place.
    fn mark(&mut self, place: &Place) {
        let mark = Mark { end: self.ops.len(), lsn: place.lsn, within: place.within };
        match self.marks.last_mut() {
            Some(last) if last.end == mark.end => *last = mark,
            _ => self.marks.push(mark),
        }
    }

    fn finish(&mut self, shared: &Shared, start: Place) -> Attempt<Piece> {
        self.bytes = 0;
        let columns = self.builders.iter_mut().map(Builder::finish).collect::<std::result::Result<Vec<_>, _>>();
        let columns = columns.map_err(|e| Failure::Final(Error::internal(e)))?;
        let schema = Arc::new(Schema::new(shared.rows.columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
        let ops: ArrayRef = Arc::new(StringArray::from(std::mem::take(&mut self.ops)));
        let batch = RecordBatch::try_new(schema, columns).and_then(|batch| with_ops(&batch, &shared.op, ops));
        let batch = batch.map_err(|e| Failure::Final(Error::internal(e.to_string())))?;
        Ok(Piece { batch, bad: std::mem::take(&mut self.bad), places: Places::Changes(start, std::mem::take(&mut self.marks)) })
    }
}
