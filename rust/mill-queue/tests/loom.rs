//! The queue, the parker, the signal and the hand-over of chunks to the checkpoint writer, under every schedule.
//!
//! The command that runs them stands in the crate's documentation; without `--cfg loom` this file is empty.
#![cfg(loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use mill_queue::sync::UnsafeCell;
use mill_queue::{Parker, Signal, queue};

/// Counts its drops, so that a value dropped twice or never is seen.
struct Counted(usize, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// Allowed: the values come in order, however often the queue is found empty or full. Forbidden: any other value, a
/// gap, a value after the end.
#[test]
fn values_come_in_order_and_none_is_lost() {
    loom::model(|| {
        let (mut producer, mut consumer) = queue(2);
        let pushing = thread::spawn(move || {
            let mut pushed = 0;
            for _ in 0..4 {
                if pushed < 3 && producer.try_push(Box::new(pushed)).is_ok() {
                    pushed += 1;
                }
            }
            pushed
        });
        let mut popped = 0;
        for _ in 0..3 {
            if let Some(value) = consumer.pop() {
                assert_eq!(*value, popped);
                popped += 1;
            }
        }
        let pushed = pushing.join().unwrap();
        assert!(pushed >= 2);
        while let Some(value) = consumer.pop() {
            assert_eq!(*value, popped);
            popped += 1;
        }
        assert_eq!(popped, pushed);
    });
}

/// Allowed: the consumer leaves with values unread. Forbidden: a value that is dropped twice or never.
#[test]
fn every_value_is_dropped_once() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = queue(2);
        let counter = drops.clone();
        let pushing = thread::spawn(move || {
            for i in 0..3 {
                // A refused value comes back and is dropped here.
                let _ = producer.try_push(Counted(i, counter.clone()));
            }
        });
        if let Some(value) = consumer.pop() {
            assert_eq!(value.0, 0);
        }
        drop(consumer);
        pushing.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 3);
    });
}

/// Allowed: the close is seen late. Forbidden: a queue that was seen closed, returned nothing, and returns something later.
#[test]
fn a_closed_and_empty_queue_stays_empty() {
    loom::model(|| {
        let (mut producer, mut consumer) = queue(2);
        let pushing = thread::spawn(move || {
            producer.try_push(1).unwrap();
        });
        let is_closed = consumer.is_closed();
        let first = consumer.pop();
        if is_closed {
            assert_eq!(first, Some(1));
        }
        pushing.join().unwrap();
        assert!(consumer.is_closed());
        assert_eq!(first.or(consumer.pop()), Some(1));
        assert_eq!(consumer.pop(), None);
    });
}

/// Allowed: parks that end without work. Forbidden: sleeping while a value waits (loom reports it as a deadlock).
#[test]
fn no_wake_up_is_lost() {
    loom::model(|| {
        let (mut producer, mut consumer) = queue(2);
        let mut parker = Parker::new();
        let unparker = parker.unparker();
        let pushing = thread::spawn(move || {
            for i in 0..2 {
                producer.try_push(i).unwrap();
                unparker.unpark();
            }
        });
        for expected in 0..2 {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => parker.park(),
                }
            };
            assert_eq!(value, expected);
        }
        pushing.join().unwrap();
    });
}

/// One parker, two producers. Forbidden: sleeping while either has pushed.
#[test]
fn no_wake_up_is_lost_between_two_queues() {
    loom::model(|| {
        let mut parker = Parker::new();
        let (mut first, mut from_first) = queue(1);
        let (mut second, mut from_second) = queue(1);
        let (wake_first, wake_second) = (parker.unparker(), parker.unparker());
        let threads = [
            thread::spawn(move || {
                first.try_push(1).unwrap();
                wake_first.unpark();
            }),
            thread::spawn(move || {
                second.try_push(2).unwrap();
                wake_second.unpark();
            }),
        ];
        let mut sum = 0;
        while sum < 3 {
            let found = from_first.pop().unwrap_or(0) + from_second.pop().unwrap_or(0);
            if found == 0 {
                parker.park();
            }
            sum += found;
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Backpressure: both sides park, each wakes the other. Forbidden: both asleep (a deadlock).
#[test]
fn a_full_queue_wakes_its_producer() {
    loom::model(|| {
        let (mut producer, mut consumer) = queue(1);
        let (mut for_room, mut for_values) = (Parker::new(), Parker::new());
        let (room, values) = (for_room.unparker(), for_values.unparker());
        let pushing = thread::spawn(move || {
            for i in 0..2 {
                while producer.try_push(i).is_err() {
                    for_room.park();
                }
                values.unpark();
            }
        });
        for expected in 0..2 {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => for_values.park(),
                }
            };
            room.unpark();
            assert_eq!(value, expected);
        }
        pushing.join().unwrap();
    });
}

/// A stage that waits for answers of two threads, each published without a lock and then signalled. Allowed: a mark for an
/// answer that was found already. Forbidden: sleeping while an answer waits (loom reports it as a deadlock), a mark that is
/// taken before its answer can be seen.
#[test]
fn no_answer_from_outside_is_overlooked() {
    loom::model(|| {
        let mut parker = Parker::new();
        let signal = Arc::new(Signal::new(parker.unparker()));
        let answers = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
        let threads = answers.clone().map(|answer| {
            let signal = signal.clone();
            thread::spawn(move || {
                // Relaxed: the signal alone makes it visible.
                answer.store(1, Ordering::Relaxed);
                signal.raise();
            })
        });
        let mut found = 0;
        let mut marks = 0;
        while found < 2 {
            if signal.take() {
                marks += 1;
                let now = answers.iter().map(|answer| answer.load(Ordering::Relaxed)).sum();
                assert!(now >= found);
                found = now;
            } else {
                parker.park();
            }
        }
        assert!((1..=2).contains(&marks));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// A signal that is raised again while its stage looks. Forbidden: losing the second answer.
#[test]
fn a_signal_that_is_raised_during_a_look_is_seen_again() {
    loom::model(|| {
        let mut parker = Parker::new();
        let signal = Arc::new(Signal::new(parker.unparker()));
        let answer = Arc::new(AtomicUsize::new(0));
        let (raised, given) = (signal.clone(), answer.clone());
        let answering = thread::spawn(move || {
            for value in 1..=2 {
                given.store(value, Ordering::Relaxed);
                raised.raise();
            }
        });
        while answer.load(Ordering::Relaxed) < 2 {
            if !signal.take() {
                parker.park();
            }
        }
        answering.join().unwrap();
    });
}

/// A chunk of state as the checkpoint writer sees it: shared by reference count, read without a lock.
struct Chunk(UnsafeCell<u64>);

// SAFETY: the test is about just this: it is written only while it is not shared, which loom checks.
unsafe impl Sync for Chunk {}
// SAFETY: as above.
unsafe impl Send for Chunk {}

impl Chunk {
    fn new(value: u64) -> Arc<Chunk> {
        Arc::new(Chunk(UnsafeCell::new(value)))
    }

    fn read(&self) -> u64 {
        // SAFETY: nobody writes to a chunk that is shared; loom fails the test otherwise.
        self.0.with(|value| unsafe { *value })
    }
}

/// Changes a chunk in place if nobody else holds it, otherwise a copy of it: what a state table does.
fn add(chunk: &mut Arc<Chunk>, amount: u64) {
    if Arc::get_mut(chunk).is_none() {
        *chunk = Chunk::new(chunk.read());
    }
    let unique = Arc::get_mut(chunk).expect("just made unique");
    // SAFETY: the reference count says that this is the only handle; loom checks that the writer's reads came before.
    unique.0.with_mut(|value| unsafe { *value += amount });
}

/// Allowed: the task copies the chunk, or changes it in place once the writer has let go. Forbidden: the writer seeing
/// anything but the state at the barrier, a race between the writer's read and the task's change, a lost update.
#[test]
fn the_checkpoint_writer_sees_the_state_at_the_barrier() {
    loom::model(|| {
        let (mut to_writer, mut from_task) = queue::<Arc<Chunk>>(2);
        let mut parker = Parker::new();
        let wake = parker.unparker();
        let writer = thread::spawn(move || {
            let mut seen = Vec::new();
            while seen.len() < 2 {
                match from_task.pop() {
                    Some(chunk) => seen.push(chunk.read()),
                    None => parker.park(),
                }
            }
            seen
        });
        let mut chunk = Chunk::new(0);
        let mut expected = Vec::new();
        for barrier in 1..=2 {
            add(&mut chunk, 1);
            expected.push(barrier);
            assert!(to_writer.try_push(chunk.clone()).is_ok());
            wake.unpark();
        }
        add(&mut chunk, 1);
        assert_eq!(writer.join().unwrap(), expected);
        assert_eq!(chunk.read(), 3);
    });
}
