//! One queue between two tasks, with the wake-ups that belong to it.
//!
//! A push wakes the worker of the consumer, a pop the worker of the producer, which may wait for room. Both are skipped
//! when one worker owns both tasks: a worker only sleeps after a round in which none of its tasks did anything.

use mill_queue::{Consumer, Producer, Unparker, queue};

use crate::envelope::Envelope;

/// The end that a task writes to.
pub(crate) struct Sender {
    queue: Producer<Envelope>,
    wake: Wake,
}

/// The end that a task reads from.
pub(crate) struct Receiver {
    queue: Consumer<Envelope>,
    wake: Wake,
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
pub(crate) fn channel(capacity: usize, producer: &WorkerRef, consumer: &WorkerRef) -> (Sender, Receiver) {
    let (push, pop) = queue(capacity);
    let is_remote = producer.index != consumer.index;
    let wake = |worker: &WorkerRef| Wake(is_remote.then(|| worker.unparker.clone()));
    (Sender { queue: push, wake: wake(consumer) }, Receiver { queue: pop, wake: wake(producer) })
}

impl Sender {
    /// Sends an envelope, or gives it back when the queue is full. To a consumer that is gone everything can be sent.
    pub(crate) fn try_send(&mut self, envelope: Envelope) -> Result<(), Envelope> {
        match self.queue.try_push(envelope) {
            Ok(()) => {
                self.wake.wake();
                Ok(())
            }
            Err(_) if self.queue.is_closed() => Ok(()),
            Err(envelope) => Err(envelope),
        }
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
        if envelope.is_some() {
            self.wake.wake();
        }
        envelope
    }
}

/// Wakes the other end once more when this end is gone. It stands behind the queue in the struct, so that it is dropped
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
