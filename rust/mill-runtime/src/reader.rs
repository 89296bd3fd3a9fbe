//! Reading a split: on the worker's thread, or on a thread of its own when reading may block.
//!
//! ```text
//!   reader thread:  next ─► (read, position after it) ─► small bounded channel ─► task
//! ```
//!
//! The position of a split is that after what the task has taken: what waits in the channel will be read again after a
//! restart.
//!
//! A reader thread ends when its split has ended, when it fails, or between two calls of its source once the task has let
//! go of it; then it drops the reader, which closes it. [`Closing`] is how long that is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use mill_protocol::{Error, Position, Read, Result, Source, Split, SplitReader};
use mill_queue::sync::atomic::{AtomicUsize, Ordering};

use crate::channel::WorkerRef;
use crate::threads::{self, Owner};

/// The name of the threads.
const NAME: &str = "mill-reader";

/// How many reads may wait in front of the task.
const READS_AHEAD: usize = 2;
/// How long a task sleeps at most when its reader thread has nothing for it; the thread wakes it before.
const PENDING: Duration = Duration::from_secs(3600);

/// How many rows are read at once: as many as a frame has, or fewer while what follows is slow.
#[derive(Debug)]
pub(crate) struct ReadRows {
    most: usize,
    now: AtomicUsize,
}

impl ReadRows {
    /// So many, until told otherwise.
    pub(crate) fn new(most: usize) -> Arc<ReadRows> {
        Arc::new(ReadRows { most, now: AtomicUsize::new(most) })
    }

    /// From now on so many.
    pub(crate) fn set(&self, rows: usize) {
        // Relaxed: no other data depends on the number.
        self.now.store(rows, Ordering::Relaxed);
    }

    fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }
}

/// An open split.
pub(crate) enum OpenSplit {
    /// Read when asked.
    Inline(Box<dyn SplitReader>),
    /// Read ahead by a thread.
    Threaded(ThreadedSplit),
}

/// A split that a thread reads.
pub(crate) struct ThreadedSplit {
    reads: Receiver<Result<(Read, Position)>>,
    position: Option<Position>,
    closing: Closing,
    /// Dropped to let the thread end.
    _wanted: Sender<()>,
}

/// A reader thread that is to end.
pub(crate) struct Closing {
    split: String,
    /// Disconnected when the thread has dropped its reader.
    running: Receiver<()>,
}

impl Closing {
    /// The name of the split.
    pub(crate) fn split(&self) -> &str {
        &self.split
    }

    /// Waits for the end; returns whether it has come.
    pub(crate) fn closes_until(&mut self, until: Instant) -> bool {
        self.running.recv_deadline(until) == Err(RecvTimeoutError::Disconnected)
    }
}

impl OpenSplit {
    /// Opens the split at `position`, on a thread of its own if there is a `wake`.
    pub(crate) fn open(
        source: &Arc<dyn Source>,
        split: &Split,
        position: Option<Position>,
        rows: &Arc<ReadRows>,
        wake: Option<(&WorkerRef, Owner)>,
    ) -> Result<OpenSplit> {
        match wake {
            None => {
                let mut reader = source.open(split, position.as_deref())?;
                reader.set_rows_most(rows.most);
                Ok(OpenSplit::Inline(reader))
            }
            Some(wake) => Ok(OpenSplit::Threaded(ThreadedSplit::start(source, split, position, rows, wake)?)),
        }
    }

    /// Lets go of the reader; one that a thread reads is closed by that thread.
    pub(crate) fn close(self) -> Option<Closing> {
        match self {
            OpenSplit::Inline(_) => None,
            OpenSplit::Threaded(split) => Some(split.closing),
        }
    }

    /// The next records.
    pub(crate) fn next(&mut self, rows: &ReadRows) -> Result<Read> {
        match self {
            OpenSplit::Inline(reader) => reader.next(rows.now()),
            OpenSplit::Threaded(split) => split.next(),
        }
    }

    /// The position of the reader, unless nothing was read yet.
    pub(crate) fn position(&self) -> Option<Position> {
        match self {
            OpenSplit::Inline(reader) => Some(reader.position()),
            OpenSplit::Threaded(split) => split.position.clone(),
        }
    }
}

impl ThreadedSplit {
    fn start(
        source: &Arc<dyn Source>,
        split: &Split,
        position: Option<Position>,
        rows: &Arc<ReadRows>,
        (wake, owner): (&WorkerRef, Owner),
    ) -> Result<ThreadedSplit> {
        let (send, reads) = bounded(READS_AHEAD);
        let (wanted, is_wanted) = bounded::<()>(0);
        let (runs, running) = bounded::<()>(0);
        let closing = Closing { split: split.name.clone(), running };
        let (source, split, from) = (Arc::clone(source), split.clone(), position.clone());
        // A send fails when the task is gone, which then needs to know nothing.
        let (told, unparker) = (send.clone(), wake.unparker.clone());
        let failed = move |error| {
            drop(told.send(Err(error)));
            unparker.unpark();
        };
        let unparker = wake.unparker.clone();
        let rows = Arc::clone(rows);
        let read = move || {
            let _runs = runs;
            let give = |item| {
                let is_taken = send.send(item).is_ok();
                unparker.unpark();
                is_taken
            };
            if let Err(error) = read_all(&source, &split, from, &rows, &is_wanted, &give) {
                give(Err(error));
            }
        };
        threads::spawn(NAME, owner, read, failed)?;
        Ok(ThreadedSplit { reads, position, closing, _wanted: wanted })
    }

    fn next(&mut self) -> Result<Read> {
        match self.reads.try_recv() {
            Ok(Ok((read, position))) => {
                self.position = Some(position);
                Ok(read)
            }
            Ok(Err(error)) => Err(error),
            Err(TryRecvError::Empty) => Ok(Read::Pending(PENDING)),
            Err(TryRecvError::Disconnected) => Err(Error::internal("a reader thread ended before its split did")),
        }
    }
}

/// Reads a split to its end, or until nobody wants it any more.
fn read_all(
    source: &Arc<dyn Source>,
    split: &Split,
    from: Option<Position>,
    rows: &ReadRows,
    is_wanted: &Receiver<()>,
    give: &dyn Fn(Result<(Read, Position)>) -> bool,
) -> Result<()> {
    let mut reader = source.open(split, from.as_deref())?;
    reader.set_rows_most(rows.most);
    loop {
        mill_fault::pass("thread.reader");
        if is_wanted.try_recv() == Err(TryRecvError::Disconnected) {
            return Ok(());
        }
        match reader.next(rows.now())? {
            Read::Pending(pause) => {
                if is_wanted.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                    return Ok(());
                }
            }
            read => {
                let is_end = matches!(read, Read::End);
                if !give(Ok((read, reader.position()))) || is_end {
                    return Ok(());
                }
            }
        }
    }
}
