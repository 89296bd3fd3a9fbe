//! Reads the rows after a key, on a thread of its own.
//!
//! ```text
//!   BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY
//!   COPY (SELECT … WHERE key > last ORDER BY key) TO STDOUT (FORMAT binary)  ─►  chunks ─►  a queue of two ─►  the reader
//! ```
//!
//! A position is a key, so it can only be after all rows that have it: a chunk ends, and is cut, where the key changes. That is all
//! that rows of one key ask for. A connection that is lost is made again, and the rows after the last chunk are asked for.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::postgres::{CancelToken, IsolationLevel, Transaction};
use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use mill_frame::text::record_json;
use mill_protocol::{Error, Position, Read, Rejected, Result, SplitReader};

use super::address::{Attempt, Failure};
use super::decode::Builder;
use super::form::Form;
use super::keys::{At, KeyColumn};
use super::name::identifier;
use super::source::Shared;
use crate::client_thread;

/// Rows in a chunk, unless the runtime asks for fewer at most.
const ROWS_DEFAULT: usize = 8192;
/// A chunk has about so many bytes at most.
const BYTES_MAX: usize = 8 << 20;
/// Rows that may have one key.
const GROUP_ROWS_MAX: usize = 1 << 20;
/// A row that is longer is none.
const ROW_BYTES_MAX: usize = 1 << 31;
/// How long a server that went away is asked again, without a row from it.
const RETRY_WAIT: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a call waits for rows before it says that there are none yet.
const ANSWER_WAIT: Duration = Duration::from_millis(20);
const BEGIN: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Rows that end where the key changes.
pub(super) struct Chunk {
    pub(super) batch: RecordBatch,
    /// Where keys end: each the number of a row after the last one of a key; the last is the number of rows.
    ends: Vec<usize>,
    /// The rows that cannot be read, and why.
    pub(super) bad: Vec<(usize, String)>,
}

enum Message {
    Rows(Chunk),
    End,
    Failed(Error),
}

/// What the thread and the reader share.
#[derive(Default)]
struct Link {
    is_over: AtomicBool,
    cancel: Mutex<Option<CancelToken>>,
}

/// Returns the rows of a table or a query.
pub(super) struct PostgresReader {
    shared: Arc<Shared>,
    schema: SchemaRef,
    at: Option<At>,
    rows_most: usize,
    thread: Option<(JoinHandle<()>, Receiver<Message>, Arc<Link>)>,
    /// The chunk that is handed out, and how much of it was.
    chunk: Option<(Chunk, usize)>,
    is_ended: bool,
}

impl PostgresReader {
    pub(super) fn new(shared: Arc<Shared>, schema: SchemaRef, at: Option<At>) -> PostgresReader {
        PostgresReader { shared, schema, at, rows_most: ROWS_DEFAULT, thread: None, chunk: None, is_ended: false }
    }

    fn start(&mut self) -> Result<()> {
        if self.thread.is_some() {
            return Ok(());
        }
        let (send, receive) = sync_channel(2);
        let link = Arc::new(Link::default());
        let (shared, last) = (Arc::clone(&self.shared), self.at.clone());
        let mut pull = Pull { shared, last, rows_most: self.rows_most, send, link: Arc::clone(&link) };
        let thread = client_thread::start("mill-postgres", move || pull.run())?;
        self.thread = Some((thread, receive, link));
        Ok(())
    }
}

impl SplitReader for PostgresReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        if self.is_ended {
            return Ok(Read::End);
        }
        self.start()?;
        if self.chunk.is_none() {
            let Some((_, receive, _)) = &self.thread else { return Err(Error::internal("the thread was just started")) };
            match receive.recv_timeout(ANSWER_WAIT) {
                Ok(Message::Rows(chunk)) => self.chunk = Some((chunk, 0)),
                Ok(Message::End) => {
                    self.is_ended = true;
                    return Ok(Read::End);
                }
                Ok(Message::Failed(error)) => return Err(error),
                Err(RecvTimeoutError::Timeout) => return Ok(Read::Pending(Duration::from_millis(1))),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal(format!("{}: the thread that reads has ended", self.shared.call())));
                }
            }
        }
        let Some((chunk, from)) = self.chunk.take() else { return Err(Error::internal("a chunk has just come")) };
        // As many whole keys as there is room for, and one at least.
        let next = chunk.ends.partition_point(|end| *end <= from);
        let fit = chunk.ends.partition_point(|end| *end <= from + rows_max.max(1));
        let end = chunk.ends[fit.max(next + 1) - 1];
        let piece = chunk.batch.slice(from, end - from);
        self.at = Some(At::of(&self.shared.key, chunk.batch.columns(), end - 1)?);
        let bad = bad_within(&chunk.bad, from..end);
        if end < chunk.batch.num_rows() {
            self.chunk = Some((chunk, end));
        }
        let chosen: Vec<usize> = (0..self.shared.width).collect();
        delivered(&piece, &chosen, &self.schema, bad)
    }

    fn set_rows_most(&mut self, rows: usize) {
        self.rows_most = rows.max(1);
    }

    fn position(&self) -> Position {
        self.at.as_ref().map(At::encode).unwrap_or_default()
    }
}

impl Drop for PostgresReader {
    fn drop(&mut self) {
        let Some((thread, receive, link)) = self.thread.take() else { return };
        // Relaxed: no other memory is published with the flag.
        link.is_over.store(true, Ordering::Relaxed);
        drop(receive);
        // A query that still runs on the server is cancelled; if that does not arrive, it ends with its connection.
        if let Some(token) = link.cancel.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.shared.address.cancel(&token, "read_postgres()");
        }
        let _ = thread.join();
    }
}

/// Of rows that cannot be read those within a range, counted from its start.
pub(super) fn bad_within(bad: &[(usize, String)], range: Range<usize>) -> Vec<(usize, String)> {
    bad.iter().filter(|(row, _)| range.contains(row)).map(|(row, why)| (row - range.start, why.clone())).collect()
}

/// These columns of rows under the names of a schema, but for the rows that cannot be read; each of those is rejected as a whole.
pub(super) fn delivered(rows: &RecordBatch, columns: &[usize], schema: &SchemaRef, bad: Vec<(usize, String)>) -> Result<Read> {
    let internal = |e: ArrowError| Error::internal(e.to_string());
    let wanted = rows.project(columns).and_then(|wanted| wanted.with_schema(Arc::clone(schema))).map_err(internal)?;
    if bad.is_empty() {
        return Ok(Read::Batch(wanted));
    }
    let mut is_good = vec![true; rows.num_rows()];
    bad.iter().for_each(|(row, _)| is_good[*row] = false);
    let kept = filter_record_batch(&wanted, &is_good.into()).map_err(internal)?;
    let rejected = bad.into_iter().map(|(row, why)| Rejected::new(why, record_json(rows, row))).collect();
    Ok(Read::Partial(kept, rejected))
}

/// The thread's side.
struct Pull {
    shared: Arc<Shared>,
    /// The key of the last row that was sent.
    last: Option<At>,
    rows_most: usize,
    send: SyncSender<Message>,
    link: Arc<Link>,
}

/// What is gathered of a chunk.
struct Gathered {
    builders: Vec<Builder>,
    rows: usize,
    bytes: usize,
    ends: Vec<usize>,
    bad: Vec<(usize, String)>,
    /// The key of the row before, as the server sends it.
    key: Vec<u8>,
}

impl Pull {
    fn run(&mut self) {
        let mut end = Instant::now() + RETRY_WAIT;
        let mut pause = Duration::from_millis(50);
        loop {
            let before = self.last.clone();
            let outcome = self.pull();
            self.link.cancel.lock().unwrap_or_else(PoisonError::into_inner).take();
            let message = match outcome {
                Ok(()) => Message::End,
                Err(Failure::Final(error)) => Message::Failed(error),
                Err(Failure::Again(error)) => {
                    if self.last != before {
                        (end, pause) = (Instant::now() + RETRY_WAIT, Duration::from_millis(50));
                    }
                    if self.is_over() {
                        return;
                    }
                    if Instant::now() < end {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(PAUSE_MAX);
                        continue;
                    }
                    Message::Failed(error)
                }
            };
            // Nobody is there to hear it if this fails.
            let _ = self.send.send(message);
            return;
        }
    }

    fn is_over(&self) -> bool {
        // Relaxed: as in `Drop`.
        self.link.is_over.load(Ordering::Relaxed)
    }

    /// Sends the rows after the last key until there are no more.
    fn pull(&mut self) -> Attempt<()> {
        let shared = Arc::clone(&self.shared);
        let call = shared.call();
        let failed = |e: &::postgres::Error| shared.address.failure(&call, "read rows", e);
        mill_fault::reach("postgres.read").map_err(|e| Failure::Again(Error::connector(format!("{call}: {e}"))))?;
        let mut client = shared.address.connect(&call)?;
        *self.link.cancel.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.cancel_token());
        if self.is_over() {
            return Ok(());
        }
        let mut transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .map_err(|e| failed(&e))?;
        let (rows_most, after) = (self.rows_most, self.last.clone());
        let mut give = |chunk, last| {
            let is_taken = self.send.send(Message::Rows(chunk)).is_ok();
            if is_taken {
                self.last = Some(last);
            }
            is_taken && !self.is_over()
        };
        if copy_rows(&shared, &mut transaction, after.as_ref(), rows_most, &mut give)? {
            transaction.commit().map_err(|e| failed(&e))?;
        }
        Ok(())
    }
}

/// Passes on the rows after a key, in chunks with their last keys, until there are no more or nobody wants them; returns whether it was
/// all.
pub(super) fn copy_rows(
    shared: &Shared,
    transaction: &mut Transaction<'_>,
    after: Option<&At>,
    rows_most: usize,
    give: &mut dyn FnMut(Chunk, At) -> bool,
) -> Attempt<bool> {
    let call = shared.call();
    let failed = |e: &::postgres::Error| shared.address.failure(&call, "read rows", e);
    for column in shared.key.iter().filter(|column| !column.is_never_null) {
        let sql = format!("SELECT 1 FROM {} AS q WHERE q.{} IS NULL LIMIT 1", shared.relation, identifier(&column.name));
        if !transaction.query(&sql, &[]).map_err(|e| failed(&e))?.is_empty() {
            return Err(Failure::Final(Error::data(format!(
                "{call}: column {:?} of order_by has a null, which no key has; leave such rows out in a query, or read in another order",
                column.name
            ))));
        }
    }
    let condition = match after {
        None => String::new(),
        Some(at) => {
            let condition = at.after(&shared.key).ok_or_else(|| Error::internal("the key was checked when it was read"))?;
            format!(" WHERE {condition}")
        }
    };
    let names = shared.columns.iter().map(|(field, _)| format!("q.{}", identifier(field.name()))).collect::<Vec<_>>();
    let by = shared.key.iter().map(KeyColumn::sql).collect::<Vec<_>>();
    let sql = format!(
        "COPY (SELECT {} FROM {} AS q{condition} ORDER BY {}) TO STDOUT (FORMAT binary)",
        names.join(", "),
        shared.relation,
        by.join(", ")
    );
    // Binary rows do not say what they are, and the table may have been altered since it was looked at.
    let selected = format!("SELECT {} FROM {} AS q", names.join(", "), shared.relation);
    let statement = transaction.prepare(&selected).map_err(|e| failed(&e))?;
    for ((field, form), column) in shared.columns.iter().zip(statement.columns()) {
        if Form::of(column.type_(), column.type_modifier()).as_ref() != Some(form) {
            return Err(Failure::Final(Error::schema(format!(
                "{call}: the column {:?} is {} now, and was {} when the source was declared; declare it again",
                field.name(),
                column.type_().name(),
                form.declared()
            ))));
        }
    }
    let mut input = transaction.copy_out(&sql).map_err(|e| failed(&e))?;
    let mut buffer = Buffer { bytes: Vec::new(), start: 0, is_ended: false };
    let mut fill = |buffer: &mut Buffer| -> Attempt<bool> {
        buffer.fill(&mut input).map_err(|e| match e.get_ref().and_then(|inner| inner.downcast_ref::<::postgres::Error>()) {
            Some(inner) => failed(inner),
            None => Failure::Again(Error::connector(format!("{call}: cannot read rows: {e}"))),
        })
    };
    let damaged = || Failure::Final(Error::connector(format!("{call}: rows come in a form that is not known")));
    while buffer.rest().len() < 19 {
        if !fill(&mut buffer)? {
            return Err(damaged());
        }
    }
    if !buffer.rest().starts_with(BEGIN) {
        return Err(damaged());
    }
    let extra = u32::from_be_bytes(std::array::from_fn(|at| buffer.rest()[15 + at])) as usize;
    if extra > 1 << 20 {
        return Err(damaged());
    }
    while buffer.rest().len() < 19 + extra {
        if !fill(&mut buffer)? {
            return Err(damaged());
        }
    }
    buffer.start += 19 + extra;
    let mut gathered = Gathered::new(shared)?;
    let mut fields = Vec::with_capacity(shared.columns.len());
    loop {
        match row(buffer.rest(), shared.columns.len(), &mut fields).map_err(|()| damaged())? {
            Row::Cut => {
                if buffer.rest().len() > ROW_BYTES_MAX || !fill(&mut buffer)? {
                    return Err(damaged());
                }
            }
            Row::End => break,
            Row::Whole(length) => {
                let bytes = &buffer.rest()[..length];
                let is_full = gathered.rows >= rows_most || gathered.bytes >= BYTES_MAX;
                if gathered.begins_key(shared, &fields, bytes)? && is_full && !gathered.give(shared, give)? {
                    return Ok(false);
                }
                gathered.push(shared, &fields, bytes)?;
                buffer.start += length;
            }
        }
    }
    // What the server has to say at the end: that it was all.
    while fill(&mut buffer)? {}
    drop(input);
    Ok(gathered.rows == 0 || gathered.give(shared, give)?)
}

impl Gathered {
    fn new(shared: &Shared) -> Attempt<Gathered> {
        let builders = shared.columns.iter().map(|(_, form)| Builder::new(form)).collect::<std::result::Result<_, _>>();
        let builders = builders.map_err(|e: String| Error::internal(e))?;
        Ok(Gathered { builders, rows: 0, bytes: 0, ends: Vec::new(), bad: Vec::new(), key: Vec::new() })
    }

    /// Whether a row has another key than the one before, which then is over.
    fn begins_key(&mut self, shared: &Shared, fields: &[Field], bytes: &[u8]) -> Attempt<bool> {
        let mut rest = self.key.as_slice();
        let mut is_same = self.rows > 0;
        for column in &shared.key {
            let value = fields[column.place].of(bytes);
            let Some(value) = value else {
                return Err(Failure::Final(Error::data(format!("{}: column {:?} of order_by is null", shared.call(), column.name))));
            };
            let end = 4 + value.len();
            is_same = is_same && rest.len() >= end && rest[..4] == (value.len() as u32).to_be_bytes() && &rest[4..end] == value;
            rest = if is_same { &rest[end..] } else { &[] };
        }
        if is_same {
            let first = self.ends.last().copied().unwrap_or(0);
            if self.rows - first >= GROUP_ROWS_MAX {
                return Err(Failure::Final(Error::data(format!(
                    "{}: more than {GROUP_ROWS_MAX} rows have one key of order_by; add a column to it that tells them apart",
                    shared.call()
                ))));
            }
            return Ok(false);
        }
        if self.rows > 0 {
            self.ends.push(self.rows);
        }
        self.key.clear();
        for column in &shared.key {
            let value = fields[column.place].of(bytes).unwrap_or_default();
            self.key.extend_from_slice(&(value.len() as u32).to_be_bytes());
            self.key.extend_from_slice(value);
        }
        Ok(true)
    }

    fn push(&mut self, shared: &Shared, fields: &[Field], bytes: &[u8]) -> Attempt<()> {
        let mut wrong = None;
        for (place, (builder, field)) in self.builders.iter_mut().zip(fields).enumerate() {
            if let Err(why) = builder.push(field.of(bytes)) {
                let why = format!("{}: column {:?}: {why}", shared.call(), shared.columns[place].0.name());
                if shared.key.iter().any(|column| column.place == place) {
                    return Err(Failure::Final(Error::data(why)));
                }
                let _ = builder.push(None);
                wrong.get_or_insert(why);
            }
        }
        if let Some(why) = wrong {
            self.bad.push((self.rows, why));
        }
        self.rows += 1;
        self.bytes += bytes.len();
        Ok(())
    }

    /// Passes on what was gathered; `false` if nobody wants more.
    fn give(&mut self, shared: &Shared, give: &mut dyn FnMut(Chunk, At) -> bool) -> Attempt<bool> {
        let chunk = self.finish(shared)?;
        let last = At::of(&shared.key, chunk.batch.columns(), chunk.batch.num_rows() - 1)?;
        Ok(give(chunk, last))
    }

    fn finish(&mut self, shared: &Shared) -> Result<Chunk> {
        let columns = self.builders.iter_mut().map(Builder::finish).collect::<std::result::Result<Vec<_>, _>>();
        let columns = columns.map_err(Error::internal)?;
        let schema = Arc::new(Schema::new(shared.columns.iter().map(|(field, _)| field.clone()).collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema, columns).map_err(|e| Error::internal(e.to_string()))?;
        let mut ends = std::mem::take(&mut self.ends);
        if ends.last() != Some(&self.rows) {
            ends.push(self.rows);
        }
        (self.rows, self.bytes) = (0, 0);
        Ok(Chunk { batch, ends, bad: std::mem::take(&mut self.bad) })
    }
}

/// Bytes that have come and were not read yet.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    /// The client must not be asked again after the end: it would wait for more.
    is_ended: bool,
}

impl Buffer {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Adds what comes next; `false` at the end.
    fn fill(&mut self, input: &mut impl std::io::Read) -> std::io::Result<bool> {
        if self.is_ended {
            return Ok(false);
        }
        self.bytes.drain(..self.start);
        self.start = 0;
        let before = self.bytes.len();
        self.bytes.resize(before + (64 << 10), 0);
        let mut filled = before;
        // Each message of the protocol is a row: many of them are taken at once.
        let outcome = loop {
            match input.read(&mut self.bytes[filled..]) {
                Ok(0) => {
                    self.is_ended = true;
                    break Ok(filled > before);
                }
                Ok(count) => {
                    filled += count;
                    if filled == self.bytes.len() {
                        break Ok(true);
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // What came before it is whole.
                Err(e) => break Err(e),
            }
        };
        self.bytes.truncate(filled);
        outcome
    }
}

/// Where a value is in its row.
#[derive(Clone, Copy)]
pub(super) struct Field {
    start: usize,
    /// `None`: null.
    length: Option<usize>,
}

impl Field {
    fn of(self, row: &[u8]) -> Option<&[u8]> {
        self.length.map(|length| &row[self.start..self.start + length])
    }
}

enum Row {
    /// There is more to come of it.
    Cut,
    End,
    /// How many bytes it has.
    Whole(usize),
}

/// Takes a row apart into its values.
fn row(bytes: &[u8], width: usize, fields: &mut Vec<Field>) -> std::result::Result<Row, ()> {
    let Some((count, _)) = bytes.split_first_chunk::<2>() else { return Ok(Row::Cut) };
    match i16::from_be_bytes(*count) {
        -1 => return Ok(Row::End),
        count if usize::try_from(count) != Ok(width) => return Err(()),
        _ => {}
    }
    fields.clear();
    let mut at = 2;
    for _ in 0..width {
        let Some(length) = bytes.get(at..at + 4) else { return Ok(Row::Cut) };
        let length = i32::from_be_bytes(length.try_into().map_err(|_| ())?);
        at += 4;
        match usize::try_from(length) {
            Ok(length) => {
                fields.push(Field { start: at, length: Some(length) });
                at += length;
            }
            Err(_) if length == -1 => fields.push(Field { start: at, length: None }),
            Err(_) => return Err(()),
        }
    }
    Ok(if bytes.len() < at { Row::Cut } else { Row::Whole(at) })
}
