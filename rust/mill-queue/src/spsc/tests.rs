use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Counts how many of its kind are alive.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Counted {
        alive.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_full_queue_gives_the_value_back() {
    let (mut producer, mut consumer) = queue(3);
    assert_eq!(producer.capacity(), 4);
    for i in 0..4 {
        assert_eq!(producer.try_push(i), Ok(()));
    }
    assert!(producer.is_full() && consumer.is_full());
    assert_eq!(producer.try_push(4), Err(4));
    assert_eq!(consumer.pop(), Some(0));
    assert_eq!(producer.try_push(4), Ok(()));
    assert_eq!((producer.len(), consumer.len()), (4, 4));
    assert_eq!(std::iter::from_fn(|| consumer.pop()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(consumer.is_empty() && producer.is_empty());
}

#[test]
fn indices_may_wrap_around() {
    let (mut producer, mut consumer) = queue(2);
    let start = usize::MAX - 2;
    producer.tail = start;
    producer.head_seen = start;
    consumer.head = start;
    consumer.tail_seen = start;
    producer.ring.head.store(start, Ordering::SeqCst);
    producer.ring.tail.store(start, Ordering::SeqCst);
    for i in 0..10 {
        assert_eq!(producer.try_push(i), Ok(()));
        assert_eq!(producer.try_push(i + 100), Ok(()));
        assert_eq!(producer.try_push(7), Err(7));
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(i), Some(i + 100), None));
    }
}

#[test]
fn values_left_behind_are_dropped_once() {
    let alive = Arc::new(AtomicUsize::new(0));
    let (mut producer, mut consumer) = queue(8);
    for _ in 0..6 {
        assert!(producer.try_push(Counted::new(&alive)).is_ok());
    }
    drop(consumer.pop());
    drop(consumer.pop());
    assert_eq!(alive.load(Ordering::SeqCst), 4);
    drop(consumer);
    assert_eq!(alive.load(Ordering::SeqCst), 4);
    assert!(producer.is_closed());
    assert!(producer.try_push(Counted::new(&alive)).is_err());
    drop(producer);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn closing_keeps_what_was_pushed() {
    let (mut producer, mut consumer) = queue(4);
    producer.try_push(1).unwrap();
    assert!(!consumer.is_closed());
    drop(producer);
    assert!(consumer.is_closed());
    assert_eq!((consumer.pop(), consumer.pop()), (Some(1), None));
}

#[test]
fn two_threads_keep_the_order() {
    const COUNT: usize = if cfg!(miri) { 200 } else { 200_000 };
    let (mut producer, mut consumer) = queue(16);
    let thread = std::thread::spawn(move || {
        for i in 0..COUNT {
            let mut value = Box::new(i);
            while let Err(refused) = producer.try_push(value) {
                value = refused;
                std::thread::yield_now();
            }
        }
    });
    let mut next = 0;
    loop {
        let is_closed = consumer.is_closed();
        match consumer.pop() {
            Some(value) => {
                assert_eq!(*value, next);
                next += 1;
            }
            None if is_closed => break,
            None => std::thread::yield_now(),
        }
    }
    assert_eq!(next, COUNT);
    thread.join().unwrap();
}

#[test]
#[should_panic(expected = "capacity=0")]
fn a_queue_of_nothing_is_a_bug() {
    let _ = queue::<u8>(0);
}
