//! How long a barrier holds a task up: the time a table of a million keys takes to hand over what changed.

use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array};

use crate::keys::Dice;
use crate::table;

const KEYS: i64 = 1_000_000;
const ROUNDS: usize = 200;

/// Prints the pauses for several shares of changed keys. Half of the keys are those of one of two tasks.
pub(crate) fn measure() {
    println!("pause of a task at a barrier, table of {KEYS} keys, {ROUNDS} barriers");
    for share in [0.001, 0.01, 0.1, 1.0] {
        let mut pauses = pauses((KEYS as f64 * share) as usize);
        pauses.sort();
        let at = |part: f64| pauses[((pauses.len() - 1) as f64 * part) as usize];
        println!(
            "{:5.1} % changed: p50 {:9.1?}  p99 {:9.1?}  max {:9.1?}",
            share * 100.0,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

fn pauses(changed: usize) -> Vec<Duration> {
    let (mut state, place) = table::table(2, true);
    let mut encoder = table::encoder();
    let all: Vec<i64> = (0..KEYS).collect();
    table::columns(&all).iter().for_each(|column| table::run(&mut state, place, &mut encoder, column));
    state.snapshot(0, true, &mut Vec::new());
    let mut dice = Dice(1);
    (0..ROUNDS)
        .map(|_| {
            let keys: Vec<i64> = (0..changed).map(|_| (dice.next() % KEYS as u64) as i64).collect();
            for keys in keys.chunks(8192) {
                let column: ArrayRef = std::sync::Arc::new(Int64Array::from(keys.to_vec()));
                table::run(&mut state, place, &mut encoder, &column);
            }
            let mut blocks = Vec::new();
            let began = Instant::now();
            state.snapshot(0, false, &mut blocks);
            began.elapsed()
        })
        .collect()
}
