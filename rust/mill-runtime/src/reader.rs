//! Reading a split: on the worker's thread, or on a thread of its own when reading may block.
//!
//! ```text
//!   reader thread:  next ─► (read, position behind it) ─► small bounded channel ─► task
//! ```
//!
//! The position of a split is that behind what the task has taken: what waits in the channel will be read again after a
//! restart.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use mill_protocol::{Error, Position, Read, Result, Source, Split, SplitReader};

use crate::channel::WorkerRef;
use crate::panics;

/// How many reads may wait in front of the task.
const READS_AHEAD: usize = 2;
/// How long a task sleeps at most when its reader thread has nothing for it; the thread wakes it before.
const PENDING: Duration = Duration::from_secs(3600);

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
}

impl OpenSplit {
    /// Opens the split behind `position`, on a thread of its own if `wake` is given.
    pub(crate) fn open(
        source: &Arc<dyn Source>,
        split: &Split,
        position: Option<Position>,
        rows_max: usize,
        wake: Option<&WorkerRef>,
    ) -> Result<OpenSplit> {
        match wake {
            None => Ok(OpenSplit::Inline(source.open(split, position.as_deref())?)),
            Some(wake) => Ok(OpenSplit::Threaded(ThreadedSplit::start(source, split, position, rows_max, wake)?)),
        }
    }

    /// The next records.
    pub(crate) fn next(&mut self, rows_max: usize) -> Result<Read> {
        match self {
            OpenSplit::Inline(reader) => reader.next(rows_max),
            OpenSplit::Threaded(split) => split.next(),
        }
    }

    /// Where the reader stands, unless nothing was read yet.
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
        rows_max: usize,
        wake: &WorkerRef,
    ) -> Result<ThreadedSplit> {
        let (send, reads) = bounded(READS_AHEAD);
        let (source, split, from, wake) = (Arc::clone(source), split.clone(), position.clone(), wake.clone());
        let read = move || {
            // A send fails when the task is gone; the thread then ends.
            let give = |item| {
                let is_taken = send.send(item).is_ok();
                wake.unparker.unpark();
                is_taken
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<()> {
                let mut reader = source.open(&split, from.as_deref())?;
                loop {
                    let read = reader.next(rows_max)?;
                    match read {
                        Read::Pending(pause) => std::thread::sleep(pause),
                        read => {
                            let is_end = matches!(read, Read::End);
                            if !give(Ok((read, reader.position()))) || is_end {
                                return Ok(());
                            }
                        }
                    }
                }
            }));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => drop(give(Err(error))),
                Err(panic) => drop(give(Err(panics::as_error(panic)))),
            }
        };
        std::thread::Builder::new()
            .name("mill-reader".to_owned())
            .spawn(read)
            .map_err(|error| Error::connector("cannot start a reader thread").because(error))?;
        Ok(ThreadedSplit { reads, position })
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
