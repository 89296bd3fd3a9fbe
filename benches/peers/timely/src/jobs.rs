//! The dataflows. Workers take turns with batches of the input; each gives what it has in the end.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::vec::{Filter, Map as _};
use timely::dataflow::operators::{Input as _, Operator};
use timely::dataflow::{InputHandle, StreamVec};
use timely::worker::Worker;

const BATCH: usize = 8192;
const WINDOW_MS: i64 = 10_000;

/// One multiplication for integers, one for each eight bytes of a word.
#[derive(Default)]
pub struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_i64(i64::from_le_bytes(word));
        }
    }
    fn write_i64(&mut self, value: i64) {
        let product = u128::from(value as u64 ^ self.0) * 0xF39C_C060_5CED_C835;
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Folded>>;
type Sums = Map<i64, (i64, i64)>;

/// The highest price of a key's bids in a window, and how many there are.
pub struct Window {
    pub auction: i64,
    pub start_ms: i64,
    pub count: i64,
    pub top: i64,
}

/// Says which worker a key belongs to, by other bits than the maps use.
fn spread(key: i64) -> u64 {
    (key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

/// Runs a dataflow: `feed` makes batch after batch of a worker's records, `build` the steps behind them.
fn run<D, R>(
    threads: usize,
    batches: usize,
    feed: impl Fn(usize) -> Vec<D> + Send + Sync + 'static,
    build: impl Fn(StreamVec<'_, u64, D>, Rc<RefCell<R>>) + Send + Sync + 'static,
) -> (f64, Vec<R>)
where
    D: Clone + Send + 'static,
    R: Default + Send + 'static,
{
    let began = Instant::now();
    let workers = timely::execute(timely::Config::process(threads), move |worker: &mut Worker| {
        let result = Rc::new(RefCell::new(R::default()));
        let mut input = InputHandle::new();
        let kept = Rc::clone(&result);
        worker.dataflow::<u64, _, _>(|scope| build(scope.input_from(&mut input), kept));
        for batch in (worker.index()..batches).step_by(worker.peers()) {
            let mut records = feed(batch);
            input.send_batch(&mut records);
            worker.step();
        }
        input.close();
        while worker.step() {}
        result.take()
    });
    let results: Result<Vec<R>, String> = workers.and_then(|workers| workers.join().into_iter().collect());
    let results = results.expect("workers end well, or the program with them");
    (began.elapsed().as_secs_f64(), results)
}

fn pairs(auction: Arc<Vec<i64>>, price: Arc<Vec<i64>>) -> impl Fn(usize) -> Vec<(i64, i64)> + Send + Sync {
    move |batch| {
        let rows = batch * BATCH..auction.len().min((batch + 1) * BATCH);
        auction[rows.clone()].iter().copied().zip(price[rows].iter().copied()).collect()
    }
}

/// Scales whole prices.
pub fn map(threads: usize, price: Arc<Vec<i64>>) -> (f64, Vec<Vec<f64>>) {
    let batches = price.len().div_ceil(BATCH);
    let feed = move |batch| price[batch * BATCH..price.len().min((batch + 1) * BATCH)].to_vec();
    let (seconds, kept) = run(threads, batches, feed, |stream, kept: Rc<RefCell<Vec<Vec<f64>>>>| {
        keep(stream.map(|price| price as f64 * 0.908), kept);
    });
    (seconds, kept.concat())
}

/// Keeps the bids on every 123rd auction.
pub fn filter(threads: usize, auction: Arc<Vec<i64>>, price: Arc<Vec<i64>>) -> (f64, Vec<Vec<(i64, i64)>>) {
    let batches = auction.len().div_ceil(BATCH);
    let (seconds, kept) = run(threads, batches, pairs(auction, price), |stream, kept: Rc<RefCell<Vec<Vec<(i64, i64)>>>>| {
        keep(stream.filter(|bid| bid.0 % 123 == 0), kept);
    });
    (seconds, kept.concat())
}

fn keep<D: Clone + Send + 'static>(stream: StreamVec<'_, u64, D>, kept: Rc<RefCell<Vec<Vec<D>>>>) {
    stream.sink(Pipeline, "keep", move |(input, _)| {
        input.for_each_time(|_, batches| kept.borrow_mut().extend(batches.map(std::mem::take)));
    });
}

/// Counts and sums by key.
pub fn keyed(threads: usize, auction: Arc<Vec<i64>>, price: Arc<Vec<i64>>) -> (f64, Vec<(i64, (i64, i64))>) {
    let batches = auction.len().div_ceil(BATCH);
    let (seconds, sums) = run(threads, batches, pairs(auction, price), |stream, sums: Rc<RefCell<Sums>>| {
        stream.sink(Exchange::new(|bid: &(i64, i64)| spread(bid.0)), "sum", move |(input, _)| {
            let mut sums = sums.borrow_mut();
            input.for_each_time(|_, batches| {
                for (auction, price) in batches.flat_map(|batch| batch.drain(..)) {
                    let sum = sums.entry(auction).or_default();
                    sum.0 += 1;
                    sum.1 += price;
                }
            });
        });
    });
    (seconds, sums.into_iter().flatten().collect())
}

/// Counts by key and window, with the highest price. All records have one timely time, so windows close when the input ends:
/// with a time of their own for each batch, two workers that do not wait for each other's batches came to no end (0.31).
pub fn window(threads: usize, auction: Arc<Vec<i64>>, price: Arc<Vec<i64>>, at_ms: Arc<Vec<i64>>) -> (f64, Vec<Window>) {
    let batches = auction.len().div_ceil(BATCH);
    let feed = move |batch: usize| {
        let rows = batch * BATCH..auction.len().min((batch + 1) * BATCH);
        rows.map(|row| (auction[row], price[row], at_ms[row])).collect()
    };
    let (seconds, windows) = run(threads, batches, feed, |stream, windows: Rc<RefCell<Vec<(i64, Sums)>>>| {
        stream.sink(Exchange::new(|bid: &(i64, i64, i64)| spread(bid.0)), "window", move |(input, _)| {
            let mut windows = windows.borrow_mut();
            input.for_each_time(|_, batches| {
                for (auction, price, at) in batches.flat_map(|batch| batch.drain(..)) {
                    let start = at.div_euclid(WINDOW_MS) * WINDOW_MS;
                    let place = windows.iter().rposition(|window| window.0 == start).unwrap_or_else(|| {
                        windows.push((start, Sums::default()));
                        windows.len() - 1
                    });
                    let sum = windows[place].1.entry(auction).or_insert((0, i64::MIN));
                    sum.0 += 1;
                    sum.1 = sum.1.max(price);
                }
            });
        });
    });
    let rows = |(start_ms, sums): (i64, Sums)| {
        sums.into_iter().map(move |(auction, (count, top))| Window { auction, start_ms, count, top })
    };
    (seconds, windows.into_iter().flatten().flat_map(rows).collect())
}

/// Counts words of letters and apostrophes, in lower case; the file is read while the clock runs.
pub fn words(threads: usize, path: &str) -> io::Result<(f64, Vec<(Vec<u8>, i64)>)> {
    const LINES: usize = 512;
    let began = Instant::now();
    let text = fs::read(path)?;
    let lines: Vec<Vec<u8>> = text.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    let batches = lines.len().div_ceil(LINES);
    let feed = move |batch: usize| lines[batch * LINES..lines.len().min((batch + 1) * LINES)].to_vec();
    let (_, counts) = run(threads, batches, feed, |stream, counts: Rc<RefCell<Map<Vec<u8>, i64>>>| {
        let key = |word: &Vec<u8>| {
            let mut hasher = Folded::default();
            hasher.write(word);
            hasher.finish() >> 40
        };
        let is_word = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'\'';
        let words = stream.flat_map(move |line: Vec<u8>| {
            let lower = line.to_ascii_lowercase();
            let words = lower.split(|byte| !is_word(byte)).filter(|word| !word.is_empty());
            words.map(<[u8]>::to_vec).collect::<Vec<_>>()
        });
        words.sink(Exchange::new(key), "count", move |(input, _)| {
            let mut counts = counts.borrow_mut();
            input.for_each_time(|_, batches| {
                for word in batches.flat_map(|batch| batch.drain(..)) {
                    match counts.entry(word) {
                        Entry::Occupied(mut count) => *count.get_mut() += 1,
                        Entry::Vacant(count) => {
                            count.insert(1);
                        }
                    }
                }
            });
        });
    });
    Ok((began.elapsed().as_secs_f64(), counts.into_iter().flatten().collect()))
}
