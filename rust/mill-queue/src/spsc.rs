//! A bounded queue with one producer and one consumer.
//!
//! ```text
//!   slots   [ ][ ][c][d][e][ ][ ][ ]      capacity is a power of two; index & mask is the slot
//!                  ▲        ▲
//!                head      tail           both only grow (wrapping); head <= tail <= head + capacity
//! ```
//!
//! Invariants, on which the `unsafe` below stands:
//!
//! - **Q1** Only the producer stores `tail`, only the consumer stores `head`. There is one of each: neither end can be
//!   cloned, and both need `&mut self` to move on.
//! - **Q2** The slots from `head` up to `tail` hold a value and belong to the consumer; all others hold none and belong
//!   to the producer.
//! - **Q3** A slot changes hands by a Release store of the index, seen by an Acquire load at the other end: so what one
//!   end did with the slot happens before what the other does.
//!
//! Each end keeps a copy of the opposite index and looks at the shared one only when the copy says that the queue is
//! full or empty; the shared indices lie on cache lines of their own. So in a stream that flows, the two threads touch
//! each other's line once every few values.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Deref;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, UnsafeCell};

/// The highest capacity of a queue; a limit against mistakes, far beyond what backpressure wants.
const CAPACITY_MAX: usize = 1 << 20;

/// Makes a queue that holds at least `capacity` values (rounded up to a power of two).
///
/// # Panics
/// If `capacity` is zero or over a million.
///
/// # Examples
/// ```
/// let (mut producer, mut consumer) = mill_queue::queue(2);
/// assert_eq!(producer.try_push('a'), Ok(()));
/// assert_eq!(producer.try_push('b'), Ok(()));
/// assert_eq!(producer.try_push('c'), Err('c'));
/// drop(producer);
/// assert_eq!(consumer.pop(), Some('a'));
/// assert_eq!(consumer.pop(), Some('b'));
/// assert!(consumer.pop().is_none() && consumer.is_closed());
/// ```
pub fn queue<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!((1..=CAPACITY_MAX).contains(&capacity), "capacity={capacity} must be 1..={CAPACITY_MAX}");
    let slots: Box<[_]> = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring {
        mask: slots.len() - 1,
        slots,
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        is_producer_gone: AtomicBool::new(false),
        is_consumer_gone: AtomicBool::new(false),
    });
    let producer = Producer { ring: Arc::clone(&ring), tail: 0, head_seen: 0 };
    (producer, Consumer { ring, head: 0, tail_seen: 0 })
}

/// A value alone on its cache lines (two, as processors fetch them in pairs).
#[repr(align(128))]
struct Padded<T>(T);

impl<T> Deref for Padded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

struct Ring<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: usize,
    head: Padded<AtomicUsize>,
    tail: Padded<AtomicUsize>,
    is_producer_gone: AtomicBool,
    is_consumer_gone: AtomicBool,
}

// SAFETY: by Q1-Q3 a slot is touched by one end at a time, and values move from one thread to the other, which T: Send
// allows. No reference to a T is ever given out.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: as above; the ring owns its values.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T> Ring<T> {
    fn capacity(&self) -> usize {
        self.mask + 1
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        // Both ends are gone and their stores came before through the Arc, so Relaxed loads see the last values.
        let tail = self.tail.load(Ordering::Relaxed);
        let mut head = self.head.load(Ordering::Relaxed);
        while head != tail {
            // SAFETY: by Q2 the slot holds a value, and nobody else can reach it any more.
            self.slots[head & self.mask].with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that pushes. Dropping it closes the queue: the consumer gets what is left and then sees that it is closed.
pub struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    head_seen: usize,
}

impl<T: Send> Producer<T> {
    /// Pushes a value.
    ///
    /// # Errors
    /// Returns the value when the queue is full, or when the consumer is gone ([`is_closed`](Producer::is_closed)
    /// tells which).
    #[inline]
    pub fn try_push(&mut self, value: T) -> Result<(), T> {
        let capacity = self.ring.capacity();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            // Pairs with the Release in pop: the consumer is done with the slots before head.
            self.head_seen = self.ring.head.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == capacity {
                return Err(value);
            }
        }
        if self.is_closed() {
            return Err(value);
        }
        self.ring.slots[self.tail & self.ring.mask].with_mut(|slot| {
            // SAFETY: tail - head < capacity, so by Q2 the slot is the producer's and holds no value to be dropped.
            unsafe { (*slot).write(value) };
        });
        self.tail = self.tail.wrapping_add(1);
        // Pairs with the Acquire in pop: the value is in its slot before tail says so.
        self.ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether a push would be refused for want of room.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() == self.ring.capacity()
    }

    /// How many values wait; the consumer may be taking some right now.
    #[inline]
    pub fn len(&self) -> usize {
        // Relaxed: no slot is touched on the strength of it.
        self.tail.wrapping_sub(self.ring.head.load(Ordering::Relaxed))
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the queue holds.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Whether the consumer is gone, so that nothing pushed will ever be popped.
    #[inline]
    pub fn is_closed(&self) -> bool {
        // Pairs with the Release in the consumer's drop.
        self.ring.is_consumer_gone.load(Ordering::Acquire)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // Pairs with the Acquire in Consumer::is_closed: all pushes come before it.
        self.ring.is_producer_gone.store(true, Ordering::Release);
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("capacity", &self.ring.capacity()).finish_non_exhaustive()
    }
}

/// The end that pops. Dropping it closes the queue: the producer's pushes are refused from then on.
pub struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    tail_seen: usize,
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest value; `None` when there is none now.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if !self.has_next() {
            return None;
        }
        // SAFETY: head != tail, so by Q2 the slot holds a value and is the consumer's. It is read once: head moves on.
        let value = self.ring.slots[self.head & self.ring.mask].with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        // Pairs with the Acquire in try_push: the value is out of its slot before head says so.
        self.ring.head.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether [`pop`](Consumer::pop) would give a value.
    #[inline]
    pub fn has_next(&mut self) -> bool {
        if self.head == self.tail_seen {
            // Pairs with the Release in try_push: the values before tail are in their slots.
            self.tail_seen = self.ring.tail.load(Ordering::Acquire);
        }
        self.head != self.tail_seen
    }

    /// How many values wait; the producer may be pushing more right now.
    #[inline]
    pub fn len(&self) -> usize {
        // Relaxed: no slot is touched on the strength of it.
        self.ring.tail.load(Ordering::Relaxed).wrapping_sub(self.head)
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the queue is full, so that its producer may be waiting for room.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() == self.ring.capacity()
    }

    /// How many values the queue holds.
    pub fn capacity(&self) -> usize {
        self.ring.capacity()
    }

    /// Whether the producer is gone. Ask before the last [`pop`](Consumer::pop): a queue that was closed and then returned
    /// nothing will never give anything again.
    #[inline]
    pub fn is_closed(&self) -> bool {
        // Pairs with the Release in the producer's drop.
        self.ring.is_producer_gone.load(Ordering::Acquire)
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Pairs with the Acquire in Producer::is_closed.
        self.ring.is_consumer_gone.store(true, Ordering::Release);
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("capacity", &self.ring.capacity()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
