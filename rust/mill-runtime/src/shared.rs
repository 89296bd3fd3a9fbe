//! What the tasks, the workers, the coordinator and the handle of one job share.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use mill_protocol::{Ending, Epoch, Error};
use mill_queue::Unparker;
use mill_queue::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use parking_lot::Mutex;

use crate::coordinator::Command;
use crate::input_log::{Reach, Replayed};
use crate::stage::Part;
use crate::threads::{Alive, Owner};

/// A barrier that the coordinator asks the sources for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its number.
    pub(crate) epoch: Epoch,
    /// Whether the snapshots must give everything, not only what changed.
    pub(crate) is_full: bool,
    /// Whether the sources are to emit nothing after it.
    pub(crate) is_last: bool,
}

/// What the coordinator is told.
pub(crate) enum Message {
    /// A task has passed the barrier.
    Acknowledged(Acknowledgement),
    /// A task has ended; it will answer requests directly.
    Ended,
    /// A task has failed.
    Failed(Error),
    /// A task has failed that can be brought back alone, from these checkpoints; it waits for an [`Order`].
    TaskFailed(usize, Error, Reach),
    /// A task is back where it had failed.
    TaskBack(usize, Replayed),
    /// A task keeps so much for going back that a checkpoint should be taken soon.
    LogLong,
    /// Parts of a checkpoint have been written.
    Written(crate::storage::Written),
    /// All tasks of a worker are gone.
    WorkerGone,
    /// The user wants something.
    Command(Command),
    /// A savepoint has been copied, or why it could not be.
    Copied(Option<String>),
    /// Something a user should know.
    Note(String),
}

/// What a task contributes to a checkpoint.
pub(crate) struct Acknowledgement {
    pub(crate) task: usize,
    pub(crate) epoch: Epoch,
    pub(crate) parts: Vec<Part>,
}

/// That a task which has failed is to go back to a checkpoint, after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) task: usize,
    pub(crate) checkpoint: Epoch,
    pub(crate) pause: Duration,
}

/// What the parts of a running job share.
pub(crate) struct Shared {
    /// The last request: `epoch << 2 | is_full << 1 | is_last`.
    request: AtomicU64,
    is_over: AtomicBool,
    is_draining: AtomicBool,
    /// Whether sources may read: where they begin is known to a checkpoint, if it has to be.
    is_open: AtomicBool,
    /// Tells those who wait for a server that the job ends.
    pub(crate) ending: Ending,
    /// Whose the threads of the job are.
    pub(crate) owner: Owner,
    /// The workers that still hold tasks.
    pub(crate) alive: Alive,
    pub(crate) messages: Sender<Message>,
    pub(crate) workers: Vec<Unparker>,
    /// The newest checkpoint of the job that is complete.
    pub(crate) published: Arc<AtomicU64>,
    /// Whether tasks that have failed are to make no pause: the job is to stop.
    is_hurried: AtomicBool,
    /// What tasks that have failed are to do. Only they look.
    orders: Mutex<Vec<Order>>,
}

impl Shared {
    /// The shared part of a job that continues after this epoch.
    pub(crate) fn new(restored: Epoch, messages: Sender<Message>, workers: Vec<Unparker>, ending: Ending, is_open: bool) -> Shared {
        Shared {
            request: AtomicU64::new(restored.0 << 2),
            is_over: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            is_open: AtomicBool::new(is_open),
            ending,
            owner: Owner::new(),
            alive: Alive::new(workers.len()),
            messages,
            workers,
            published: Arc::new(AtomicU64::new(0)),
            is_hurried: AtomicBool::new(false),
            orders: Mutex::new(Vec::new()),
        }
    }

    /// Lets tasks that have failed go back at once.
    pub(crate) fn hurry(&self) {
        // Release pairs with the Acquire in is_hurried.
        self.is_hurried.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether tasks that have failed make no pause.
    pub(crate) fn is_hurried(&self) -> bool {
        self.is_hurried.load(Ordering::Acquire)
    }

    /// Tells a task that has failed what to do.
    pub(crate) fn order(&self, order: Order) {
        self.orders.lock().push(order);
        self.wake_all();
    }

    /// What this task is to do, if that has been decided.
    pub(crate) fn take_order(&self, task: usize) -> Option<Order> {
        let mut orders = self.orders.lock();
        let at = orders.iter().position(|order| order.task == task)?;
        Some(orders.swap_remove(at))
    }

    /// The last barrier that was asked for.
    pub(crate) fn request(&self) -> Request {
        // Acquire pairs with the Release in ask.
        let word = self.request.load(Ordering::Acquire);
        Request { epoch: Epoch(word >> 2), is_full: word & 2 != 0, is_last: word & 1 != 0 }
    }

    /// Asks the sources for a barrier.
    pub(crate) fn ask(&self, request: Request) {
        let word = request.epoch.0 << 2 | u64::from(request.is_full) << 1 | u64::from(request.is_last);
        // Release pairs with the Acquire in request.
        self.request.store(word, Ordering::Release);
        self.wake_all();
    }

    /// Lets the sources end as if their input had.
    pub(crate) fn drain(&self) {
        // Release pairs with the Acquire in is_draining.
        self.is_draining.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether the sources are to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Acquire)
    }

    /// Lets the sources read.
    pub(crate) fn open(&self) {
        // Release pairs with the Acquire in is_open.
        self.is_open.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether sources may read.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Lets the workers drop their tasks and go.
    pub(crate) fn end(&self) {
        self.ending.set();
        // Release pairs with the Acquire in is_over.
        self.is_over.store(true, Ordering::Release);
        self.wake_all();
    }

    /// Whether the workers are to go.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// A worker has dropped its tasks.
    pub(crate) fn worker_gone(&self) {
        self.alive.end();
        self.tell(Message::WorkerGone);
    }

    /// Tells the coordinator. A coordinator that is gone needs to know nothing.
    pub(crate) fn tell(&self, message: Message) {
        drop(self.messages.send(message));
    }

    fn wake_all(&self) {
        self.workers.iter().for_each(Unparker::unpark);
    }
}
