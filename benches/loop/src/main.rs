//! Hand-written single-threaded loops for the benchmark jobs: what no engine would cost.
//!
//! `mill-loop JOB ROWS [FILE]` makes the same records as `benches/jobs/first.py` (or reads FILE), runs the job several
//! times, and prints the median of the seconds and a checksum of the result. `mill-loop serve` takes jobs from
//! `benches/peers`.

mod jobs;
mod serve;

use std::time::Instant;

use jobs::Map;

const RUNS: usize = 5;
const KEYS: i64 = 100_000;
const AUCTIONS: i64 = 600_000;
const WINDOW_MS: i64 = 10_000;

struct Events {
    key: Vec<i64>,
    price: Vec<f64>,
    at_ms: Vec<i64>,
}

fn events(rows: i64) -> Events {
    Events {
        key: (0..rows).map(|i| (i * 7919) % KEYS).collect(),
        price: (0..rows).map(|i| (i % 1000) as f64).collect(),
        at_ms: (0..rows).map(|i| i / 100).collect(),
    }
}

/// Pseudo-random numbers (splitmix64).
fn dice(index: i64) -> u64 {
    let mut mixed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

struct Bids {
    auction: Vec<i64>,
    price: Vec<i64>,
    at_ms: Vec<i64>,
}

/// Bids on one of the latest hundred auctions, which move on; or on any of a million.
fn bids(rows: i64, is_moving: bool) -> Bids {
    let auction = |index: i64| match is_moving {
        true => (index * AUCTIONS / rows - (dice(index) % 100) as i64).max(0),
        false => (dice(index) % 1_000_000) as i64,
    };
    Bids {
        auction: (0..rows).map(auction).collect(),
        price: (0..rows).map(|index| (dice(index) >> 40) as i64 % 10_000).collect(),
        at_ms: (0..rows).map(|index| index / 100).collect(),
    }
}

fn median(mut job: impl FnMut() -> f64) -> (f64, f64) {
    let mut seconds = Vec::new();
    let mut sum = 0.0;
    for _ in 0..RUNS {
        let began = Instant::now();
        sum = job();
        seconds.push(began.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    (seconds[RUNS / 2], sum)
}

fn map(events: &Events) -> f64 {
    let out: Vec<f64> = std::hint::black_box(&events.price).iter().map(|price| price * 0.908).collect();
    std::hint::black_box(&out).len() as f64
}

fn filter(events: &Events) -> f64 {
    let mut kept = Vec::new();
    for (key, price) in events.key.iter().zip(&events.price) {
        if key % 123 == 0 {
            kept.push((*key, *price));
        }
    }
    std::hint::black_box(&kept).len() as f64
}

fn keyed(events: &Events) -> f64 {
    let mut sums: Map<i64, (i64, f64)> = Map::default();
    for (key, price) in events.key.iter().zip(&events.price) {
        let entry = sums.entry(*key).or_default();
        entry.0 += 1;
        entry.1 += price;
    }
    sums.values().map(|entry| entry.1).sum()
}

fn window(events: &Events) -> f64 {
    let mut open: Map<i64, (i64, f64)> = Map::default();
    let (mut current, mut closed) = (0, 0.0);
    for ((key, price), at) in events.key.iter().zip(&events.price).zip(&events.at_ms) {
        let start = at.div_euclid(WINDOW_MS);
        if start != current {
            closed += open.drain().map(|(_, entry)| entry.0 as f64).sum::<f64>();
            current = start;
        }
        let entry = open.entry(*key).or_insert((0, f64::MIN));
        entry.0 += 1;
        entry.1 = entry.1.max(*price);
    }
    closed + open.values().map(|entry| entry.0 as f64).sum::<f64>()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|job| job == "serve") {
        if let Err(problem) = serve::serve() {
            eprintln!("mill-loop serve: {problem}");
            std::process::exit(1);
        }
        return;
    }
    let (Some(job), Some(rows)) = (arguments.get(1), arguments.get(2).and_then(|rows| rows.parse::<i64>().ok())) else {
        eprintln!("usage: mill-loop map|filter|keyed|window|bids-keyed|bids-window|million ROWS | mill-loop words 0 FILE | mill-loop serve");
        std::process::exit(2);
    };
    let (seconds, sum) = match job.as_str() {
        "words" => {
            let Some(Ok(text)) = arguments.get(3).map(std::fs::read) else {
                eprintln!("mill-loop words needs a file that can be read");
                std::process::exit(2);
            };
            median(|| jobs::words(&text).values().sum::<i64>() as f64)
        }
        "bids-keyed" | "bids-window" | "million" => {
            let bids = bids(rows, job != "million");
            if job == "bids-window" {
                median(|| jobs::window(&bids.auction, &bids.price, &bids.at_ms).iter().map(|window| window.count as f64).sum())
            } else {
                median(|| jobs::keyed(&bids.auction, &bids.price).values().map(|sum| sum.1 as f64).sum())
            }
        }
        name => {
            let events = events(rows);
            match name {
                "map" => median(|| map(&events)),
                "filter" => median(|| filter(&events)),
                "keyed" => median(|| keyed(&events)),
                "window" => median(|| window(&events)),
                other => {
                    eprintln!("no job {other:?}; there are map, filter, keyed, window, bids-keyed, bids-window, million and words");
                    std::process::exit(2);
                }
            }
        }
    };
    println!("{seconds} {sum}");
}
