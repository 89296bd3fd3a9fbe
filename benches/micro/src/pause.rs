//! How long a barrier holds a task up: the time a table takes to hand over what changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array};

use mill_frame::block::Blocks;

use crate::keys::Dice;
use crate::table;

/// Prints the pauses of a table of so many keys, if this share of them changes, or for several shares.
pub(crate) fn measure(keys: i64, rounds: usize, percent: Option<f64>) {
    println!("pause of a task at a barrier, table of {keys} keys, {rounds} barriers");
    for share in percent.map_or(vec![0.001, 0.01, 0.1, 1.0], |percent| vec![percent / 100.0]) {
        let mut pauses = pauses(keys, rounds, (keys as f64 * share) as usize);
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

fn pauses(keys: i64, rounds: usize, changed: usize) -> Vec<Duration> {
    let (mut state, place) = table::table(2, true);
    let mut encoder = table::encoder();
    let mut add = |state: &mut _, keys: &[i64]| {
        let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        table::run(state, place, &mut encoder, &column);
    };
    for start in (0..keys).step_by(8192) {
        let some: Vec<i64> = (start..keys.min(start + 8192)).collect();
        add(&mut state, &some);
    }
    state.snapshot(0, true, &mut Blocks::default());
    let mut dice = Dice(1);
    (0..rounds)
        .map(|_| {
            for start in (0..changed).step_by(8192) {
                let some: Vec<i64> =
                    (start..changed.min(start + 8192)).map(|_| (dice.next() % keys as u64) as i64).collect();
                add(&mut state, &some);
            }
            let mut blocks = Blocks::default();
            let began = Instant::now();
            state.snapshot(0, false, &mut blocks);
            began.elapsed()
        })
        .collect()
}
