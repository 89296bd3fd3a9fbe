//! One queue between two tasks, with the wake-ups that belong to it.
//!
//! A push wakes the worker of the consumer, a pop the worker of the producer, which may wait for room. Both are skipped
//! when one worker owns both tasks: a worker only sleeps after a round in which none of its tasks did anything.
//!
//! A queue is full when it holds so many envelopes, or more rows than the consumer allows ([`Allowance`]): a slow one
//! accepts few, so that a barrier after them arrives soon. One envelope always has room in a queue without rows. So a
//! producer that waits for room has rows in that queue, and popping them wakes it.

use std::sync::Arc;

use mill_queue::sync::atomic::{AtomicU64, Ordering};
use mill_queue::{Consumer, Producer, Unparker, queue};

use crate::envelope::Envelope;
use crate::portion::Allowance;

/// The end that a task writes to.
pub(crate) struct Sender {
    queue: Producer<Envelope>,
    wake: Wake,
    /// Rows pushed so far.
    sent: u64,
    /// Rows popped so far; the other end counts them.
    taken: Arc<AtomicU64>,
    allowance: Arc<Allowance>,
}

/// The end that a task reads from.
pub(crate) struct Receiver {
    queue: Consumer<Envelope>,
    wake: Wake,
    taken: Arc<AtomicU64>,
}

/// A worker as seen by the channels of its tasks.
#[derive(Clone, Debug)]
pub(crate) struct WorkerRef {
    /// Which worker it is.
    pub(crate) index: usize,
    /// Wakes it.
    pub(crate) unparker: Unparker,
}

/// Makes the queue between a task of one worker and a task of another or the same.
pub(crate) fn channel(
    capacity: usize,
    producer: &WorkerRef,
    consumer: &WorkerRef,
    allowance: &Arc<Allowance>,
) -> (Sender, Receiver) {
    let (push, pop) = queue(capacity);
    let is_remote = producer.index != consumer.index;
    let wake = |worker: &WorkerRef| Wake(is_remote.then(|| worker.unparker.clone()));
    let taken = Arc::new(AtomicU64::new(0));
    let (allowance, sees) = (Arc::clone(allowance), Arc::clone(&taken));
    (
        Sender { queue: push, wake: wake(consumer), sent: 0, taken: sees, allowance },
        Receiver { queue: pop, wake: wake(producer), taken },
    )
}

impl Sender {
    /// Sends an envelope, or returns it when the queue is full. To a consumer that is gone everything can be sent.
    pub(crate) fn try_send(&mut self, envelope: Envelope) -> Result<(), Envelope> {
        let rows = envelope.rows();
        if !self.has_room_for(rows) {
            return if self.queue.is_closed() { Ok(()) } else { Err(envelope) };
        }
        match self.queue.try_push(envelope) {
            Ok(()) => {
                self.sent += rows;
                self.wake.wake();
                Ok(())
            }
            Err(_) if self.queue.is_closed() => Ok(()),
            Err(envelope) => Err(envelope),
        }
    }

    fn has_room_for(&self, rows: u64) -> bool {
        // Acquire pairs with the Release in try_receive.
        let waiting = self.sent - self.taken.load(Ordering::Acquire);
        rows == 0 || waiting == 0 || waiting + rows <= self.allowance.waiting() as u64
    }

    /// How many rows an envelope should have at most.
    pub(crate) fn piece(&self) -> usize {
        self.allowance.piece()
    }

    /// How many rows should be sent at once at least.
    pub(crate) fn floor(&self) -> usize {
        self.allowance.floor()
    }

    /// Whether the consumer needs nothing any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// How many envelopes wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Receiver {
    /// Takes the oldest envelope.
    pub(crate) fn try_receive(&mut self) -> Option<Envelope> {
        let envelope = self.queue.pop();
        if let Some(envelope) = &envelope {
            let rows = envelope.rows();
            if rows > 0 {
                // Release pairs with the Acquire in has_room_for. One thread writes, so no read-modify-write.
                self.taken.store(self.taken.load(Ordering::Relaxed) + rows, Ordering::Release);
            }
            self.wake.wake();
        }
        envelope
    }
}

/// Wakes the other end once more when this end is gone. It comes after the queue in the struct, so that it is dropped
/// after it: who is woken sees a queue that is closed.
struct Wake(Option<Unparker>);

impl Wake {
    fn wake(&self) {
        if let Some(unparker) = &self.0 {
            unparker.unpark();
        }
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        self.wake();
    }
}
