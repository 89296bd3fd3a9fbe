//! How fast the queue is: `cargo test --release -p mill-queue --test speed -- --ignored --nocapture`.
#![cfg(not(loom))]

use std::time::Instant;

use mill_queue::{Parker, queue};

#[test]
#[ignore = "prints figures, checks nothing"]
fn throughput_and_round_trip() {
    const COUNT: u64 = 20_000_000;
    let (mut producer, mut consumer) = queue::<u64>(1024);
    let started = Instant::now();
    let pushing = std::thread::spawn(move || {
        for i in 0..COUNT {
            while producer.try_push(i).is_err() {
                std::hint::spin_loop();
            }
        }
    });
    let mut next = 0;
    while next < COUNT {
        match consumer.pop() {
            Some(value) => {
                assert_eq!(value, next);
                next += 1;
            }
            None => std::hint::spin_loop(),
        }
    }
    pushing.join().unwrap();
    println!("one way, two threads      {:7.1} M values/s", COUNT as f64 / started.elapsed().as_secs_f64() / 1e6);

    let (mut producer, mut consumer) = queue::<u64>(1024);
    let started = Instant::now();
    for i in 0..COUNT {
        producer.try_push(i).unwrap();
        assert_eq!(consumer.pop(), Some(i));
    }
    println!("push and pop, one thread  {:7.2} ns", started.elapsed().as_secs_f64() * 1e9 / COUNT as f64);

    const TRIPS: u64 = 20_000;
    let (mut there, mut from_here) = queue::<u64>(4);
    let (mut back, mut from_there) = queue::<u64>(4);
    let (mut mine, mut theirs) = (Parker::new(), Parker::new());
    let (wake_me, wake_them) = (mine.unparker(), theirs.unparker());
    let echo = std::thread::spawn(move || {
        for _ in 0..TRIPS {
            let value = loop {
                match from_here.pop() {
                    Some(value) => break value,
                    None => theirs.park(),
                }
            };
            back.try_push(value).unwrap();
            wake_me.unpark();
        }
    });
    let started = Instant::now();
    for i in 0..TRIPS {
        there.try_push(i).unwrap();
        wake_them.unpark();
        while from_there.pop().is_none() {
            mine.park();
        }
    }
    println!("round trip with parking   {:7.2} µs", started.elapsed().as_secs_f64() * 1e6 / TRIPS as f64);
    echo.join().unwrap();
}
