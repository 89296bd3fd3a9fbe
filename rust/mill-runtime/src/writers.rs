//! Where the slow part of a checkpoint runs: copying state into segments, syncing, pre-committing sinks.
//!
//! Threads of their own in a real job; a list that the schedule draws from when a job is stepped by hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use mill_protocol::Result;

use crate::shared::{Message, Shared};
use crate::threads;

/// The name of the threads.
const NAME: &str = "mill-writer";

/// A piece of background work; it reports by itself, also of its panic.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// Who does background work.
pub(crate) enum Writers {
    /// Threads; the queue is bounded by what one checkpoint has to write, as there is one at a time.
    Threads(Option<Sender<Work>>, Vec<JoinHandle<()>>),
    /// Nobody, until it is asked for.
    ByHand(VecDeque<Work>),
}

impl Writers {
    /// Starts threads.
    pub(crate) fn start(threads: usize, shared: &Arc<Shared>) -> Result<Writers> {
        let (send, receive) = unbounded::<Work>();
        let mut handles = Vec::new();
        for _ in 0..threads {
            let (receive, shared) = (receive.clone(), Arc::clone(shared));
            let (owner, told) = (shared.owner, Arc::clone(&shared));
            let run = move || receive.iter().for_each(|work| one(work, &shared));
            let failed = move |error| told.tell(Message::Failed(error));
            handles.push(threads::spawn(NAME, owner, run, failed)?);
        }
        Ok(Writers::Threads(Some(send), handles))
    }

    /// Hands over a piece of work.
    pub(crate) fn submit(&mut self, work: Work) {
        match self {
            Writers::Threads(Some(send), _) => drop(send.send(work)),
            Writers::Threads(None, _) => unreachable!("no work is submitted once the writers were told to finish"),
            Writers::ByHand(list) => list.push_back(work),
        }
    }

    /// Takes a piece of work that waits to be done by hand.
    pub(crate) fn take(&mut self, which: impl FnOnce(usize) -> usize) -> Option<Work> {
        match self {
            Writers::ByHand(list) if !list.is_empty() => list.remove(which(list.len())),
            _ => None,
        }
    }

    /// Waits until everything that was handed over is done.
    pub(crate) fn finish(&mut self) {
        match self {
            Writers::Threads(send, handles) => {
                *send = None;
                for handle in handles.drain(..) {
                    // A writer's panic has been reported by its work; there is nothing else to learn from the thread.
                    drop(handle.join());
                }
            }
            Writers::ByHand(list) => list.drain(..).for_each(|work| work()),
        }
    }
}

/// Does a piece of work. If it could not even report, nobody would know that it is missing: the job fails.
fn one(work: Work, shared: &Shared) {
    let done = threads::guarded(NAME, || {
        mill_fault::pass("thread.writer");
        work();
        Ok(())
    });
    if let Err(error) = done {
        shared.tell(Message::Failed(error));
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // What the threads hold, such as the store, is gone when this returns. Nobody does work by hand for the dead.
        if let Writers::Threads(..) = self {
            self.finish();
        }
    }
}
