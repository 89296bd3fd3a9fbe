//! Reads the rows of a table after a key, on a thread of its own: what all databases have in common.
//!
//! ```text
//!   attempt ─► rows in the order of their key ─► chunks that end where the key changes ─► a queue of two ─► the reader
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

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use mill_frame::text::record_json;
use mill_protocol::{Error, Position, Read, Rejected, Result, SplitReader};
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Failure};
use crate::client_thread;

/// Rows in a chunk, unless the runtime asks for fewer at most.
const ROWS_DEFAULT: usize = 8192;
/// How long a server that went away is asked again, without an answer from it.
const RETRY_WAIT: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a call waits for rows before it says that there are none yet.
const ANSWER_WAIT: Duration = Duration::from_millis(20);

/// A chunk has about so many bytes at most.
pub(crate) const BYTES_MAX: usize = 8 << 20;
/// Rows that may have one key.
pub(crate) const GROUP_ROWS_MAX: usize = 1 << 20;

/// A key that was read last, as texts that a checkpoint keeps.
///
/// ```json
///   {"by": ["day", "id"], "at": ["20500", "17"]}
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct At {
    pub(crate) by: Vec<String>,
    pub(crate) at: Vec<String>,
    /// What the rows are of, if another table of the same name may not be continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) of: Option<String>,
}

impl At {
    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and texts have a form in JSON")
    }

    /// Reads a key that a checkpoint has kept. `is_valid` refuses one that is not of the form of its columns.
    pub(crate) fn read(call: &str, bytes: &[u8], names: &[&str], is_valid: impl FnOnce(&At) -> bool) -> Result<At> {
        let damaged = || Error::checkpoint(format!("{call}: the position in the checkpoint is damaged"));
        let at: At = serde_json::from_slice(bytes).map_err(|_| damaged())?;
        if !at.by.iter().eq(names) {
            return Err(Error::checkpoint(format!(
                "{call}: the checkpoint is in the middle of the rows in the order of {}, and order_by is {} now; put it back, or start \
                 with another checkpoint directory",
                crate::nearest::quoted(&at.by, ", "),
                crate::nearest::quoted(names, ", ")
            )));
        }
        if at.at.len() != names.len() || !is_valid(&at) {
            return Err(damaged());
        }
        Ok(at)
    }
}

/// The rows of a table or a query in the order of a key.
pub(crate) trait KeyedRows: Send + Sync + 'static {
    /// The name of the thread that reads them.
    const THREAD: &'static str;

    /// The call, for messages.
    fn call(&self) -> String;

    /// How many of the columns the stream has; those of the key alone come after them.
    fn width(&self) -> usize;

    /// The key of a row.
    fn key_of(&self, columns: &[ArrayRef], row: usize) -> Result<At>;

    /// Passes on the rows after a key, in chunks with their last keys, until there are no more or nobody wants them.
    fn pull(&self, after: Option<&At>, rows_most: usize, link: &Link, give: &mut dyn FnMut(Chunk, At) -> bool) -> Attempt<()>;
}

/// Rows that end where the key changes.
pub(crate) struct Chunk {
    pub(crate) batch: RecordBatch,
    /// Where keys end: each the number of a row after the last one of a key; the last is the number of rows.
    pub(crate) ends: Vec<usize>,
    /// The rows that cannot be read, and why.
    pub(crate) bad: Vec<(usize, String)>,
}

enum Message {
    Rows(Chunk),
    End,
    Failed(Error),
}

/// Ends a query that runs on a server.
type Cancel = Box<dyn FnOnce() + Send>;

/// What the thread and the reader share.
#[derive(Default)]
pub(crate) struct Link {
    is_over: AtomicBool,
    /// Whether the server has answered since an attempt began.
    was_heard: AtomicBool,
    cancel: Mutex<Option<Cancel>>,
}

impl Link {
    /// Whether nobody wants more rows.
    pub(crate) fn is_over(&self) -> bool {
        // Relaxed: no other memory is published with the flag.
        self.is_over.load(Ordering::Relaxed)
    }

    /// Says that nobody wants more rows.
    pub(crate) fn end(&self) {
        // Relaxed: as in `is_over`.
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Says that the server has answered, though it has no rows.
    pub(crate) fn hear(&self) {
        // Relaxed: as in `is_over`.
        self.was_heard.store(true, Ordering::Relaxed);
    }

    /// Says how the query of this attempt is ended.
    pub(crate) fn set_cancel(&self, cancel: impl FnOnce() + Send + 'static) {
        *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(cancel));
    }

    fn take_cancel(&self) -> Option<Cancel> {
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Returns the rows of a table or a query.
pub(crate) struct TableReader<R: KeyedRows> {
    rows: Arc<R>,
    schema: SchemaRef,
    at: Option<At>,
    rows_most: usize,
    thread: Option<(JoinHandle<()>, Receiver<Message>, Arc<Link>)>,
    /// The chunk that is handed out, and how much of it was.
    chunk: Option<(Chunk, usize)>,
    is_ended: bool,
}

impl<R: KeyedRows> TableReader<R> {
    pub(crate) fn new(rows: Arc<R>, schema: SchemaRef, at: Option<At>) -> TableReader<R> {
        TableReader { rows, schema, at, rows_most: ROWS_DEFAULT, thread: None, chunk: None, is_ended: false }
    }

    fn start(&mut self) -> Result<()> {
        if self.thread.is_some() {
            return Ok(());
        }
        let (send, receive) = sync_channel(2);
        let link = Arc::new(Link::default());
        let (rows, last) = (Arc::clone(&self.rows), self.at.clone());
        let mut pull = Pull { rows, last, rows_most: self.rows_most, send, link: Arc::clone(&link) };
        let thread = client_thread::start(R::THREAD, move || pull.run())?;
        self.thread = Some((thread, receive, link));
        Ok(())
    }
}

impl<R: KeyedRows> SplitReader for TableReader<R> {
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
                    return Err(Error::internal(format!("{}: the thread that reads has ended", self.rows.call())));
                }
            }
        }
        let Some((chunk, from)) = self.chunk.take() else { return Err(Error::internal("a chunk has just come")) };
        // As many whole keys as there is room for, and one at least.
        let next = chunk.ends.partition_point(|end| *end <= from);
        let fit = chunk.ends.partition_point(|end| *end <= from + rows_max.max(1));
        let end = chunk.ends[fit.max(next + 1) - 1];
        let piece = chunk.batch.slice(from, end - from);
        self.at = Some(self.rows.key_of(chunk.batch.columns(), end - 1)?);
        let bad = bad_within(&chunk.bad, from..end);
        if end < chunk.batch.num_rows() {
            self.chunk = Some((chunk, end));
        }
        let chosen: Vec<usize> = (0..self.rows.width()).collect();
        delivered(&piece, &chosen, &self.schema, bad)
    }

    fn set_rows_most(&mut self, rows: usize) {
        self.rows_most = rows.max(1);
    }

    fn position(&self) -> Position {
        self.at.as_ref().map(At::encode).unwrap_or_default()
    }
}

impl<R: KeyedRows> Drop for TableReader<R> {
    fn drop(&mut self) {
        let Some((thread, receive, link)) = self.thread.take() else { return };
        link.end();
        drop(receive);
        // A query that still runs on the server is cancelled; if that does not arrive, it ends with its connection.
        if let Some(cancel) = link.take_cancel() {
            cancel();
        }
        let _ = thread.join();
    }
}

/// Of rows that cannot be read those within a range, counted from its start.
pub(crate) fn bad_within(bad: &[(usize, String)], range: Range<usize>) -> Vec<(usize, String)> {
    bad.iter().filter(|(row, _)| range.contains(row)).map(|(row, why)| (row - range.start, why.clone())).collect()
}

/// These columns of rows under the names of a schema, but for the rows that cannot be read; each of those is rejected as a whole.
pub(crate) fn delivered(rows: &RecordBatch, columns: &[usize], schema: &SchemaRef, bad: Vec<(usize, String)>) -> Result<Read> {
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
struct Pull<R: KeyedRows> {
    rows: Arc<R>,
    /// The key of the last row that was sent.
    last: Option<At>,
    rows_most: usize,
    send: SyncSender<Message>,
    link: Arc<Link>,
}

impl<R: KeyedRows> Pull<R> {
    fn run(&mut self) {
        let mut end = Instant::now() + RETRY_WAIT;
        let mut pause = Duration::from_millis(50);
        loop {
            let before = self.last.clone();
            let outcome = self.pull();
            self.link.take_cancel();
            let message = match outcome {
                Ok(()) => Message::End,
                Err(Failure::Final(error)) => Message::Failed(error),
                Err(Failure::Again(error)) => {
                    if self.last != before || self.link.was_heard.swap(false, Ordering::Relaxed) {
                        (end, pause) = (Instant::now() + RETRY_WAIT, Duration::from_millis(50));
                    }
                    if self.link.is_over() {
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

    /// Sends the rows after the last key until there are no more.
    fn pull(&mut self) -> Attempt<()> {
        let (rows, link, after) = (Arc::clone(&self.rows), Arc::clone(&self.link), self.last.clone());
        let mut give = |chunk, last| {
            let is_taken = self.send.send(Message::Rows(chunk)).is_ok();
            if is_taken {
                self.last = Some(last);
            }
            is_taken && !self.link.is_over()
        };
        rows.pull(after.as_ref(), self.rows_most, &link, &mut give)
    }
}
