use super::*;
use crate::queue;

#[test]
fn a_token_left_before_ends_the_next_park_only() {
    let mut parker = Parker::new();
    let unparker = parker.unparker();
    unparker.unpark();
    unparker.clone().unpark();
    parker.park();
    assert!(!parker.park_timeout(Duration::from_millis(1)));
    unparker.unpark();
    assert!(parker.park_timeout(Duration::ZERO));
    assert!(!parker.park_timeout(Duration::ZERO));
}

#[test]
fn a_timeout_leaves_nothing_behind() {
    let mut parker = Parker::new();
    for _ in 0..3 {
        assert!(!parker.park_timeout(Duration::from_millis(1)));
    }
    parker.unparker().unpark();
    assert!(parker.park_timeout(Duration::MAX));
}

#[test]
fn one_parker_serves_many_queues() {
    const COUNT: u64 = if cfg!(miri) { 50 } else { 20_000 };
    let mut parker = Parker::new();
    let mut consumers = Vec::new();
    let mut threads = Vec::new();
    for _ in 0..3 {
        let (mut producer, consumer) = queue(4);
        consumers.push(consumer);
        let unparker = parker.unparker();
        threads.push(std::thread::spawn(move || {
            for i in 1..=COUNT {
                while producer.try_push(i).is_err() {
                    std::thread::yield_now();
                }
                unparker.unpark();
            }
            drop(producer);
            unparker.unpark();
        }));
    }
    let mut sum = 0;
    while !consumers.is_empty() {
        let mut is_quiet = true;
        consumers.retain_mut(|consumer| {
            let is_closed = consumer.is_closed();
            match consumer.pop() {
                Some(value) => {
                    is_quiet = false;
                    sum += value;
                    true
                }
                None => !is_closed,
            }
        });
        if is_quiet && !consumers.is_empty() {
            parker.park();
        }
    }
    assert_eq!(sum, 3 * COUNT * (COUNT + 1) / 2);
    for thread in threads {
        thread.join().unwrap();
    }
}
