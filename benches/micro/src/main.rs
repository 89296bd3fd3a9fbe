//! Small loops over one part of the engine each.
//!
//! `mill-micro CASE [ROUNDS]` runs a case (or `all`) that many times and prints nanoseconds a record; without a case it
//! lists them. The work of a case is the same in every run, so its instructions can be counted. `mill-micro pause
//! [KEYS] [BARRIERS] [PERCENT]` prints how long barriers hold a task up.

mod checkpoint;
mod keys;
mod operators;
mod pause;
mod queue;
mod table;

use std::time::Instant;

/// A case: its name, how many records a round has, and what makes a round.
pub(crate) struct Case {
    name: &'static str,
    records: usize,
    make: fn(usize) -> Box<dyn FnMut()>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let cases: Vec<&Case> = [table::CASES, operators::CASES, queue::CASES, checkpoint::CASES].into_iter().flatten().collect();
    let Some(wanted) = arguments.next() else {
        cases.iter().for_each(|case| println!("{}", case.name));
        return;
    };
    if wanted == "pause" {
        let mut number = || arguments.next().and_then(|number| number.parse::<f64>().ok());
        let (keys, rounds) = (number().unwrap_or(1e6), number().unwrap_or(200.0));
        return pause::measure(keys as i64, rounds as usize, number());
    }
    let rounds = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    for case in cases.into_iter().filter(|case| wanted == "all" || case.name == wanted) {
        let mut round = (case.make)(case.records);
        round();
        let mut nanoseconds: Vec<f64> = (0..rounds)
            .map(|_| {
                let began = Instant::now();
                round();
                began.elapsed().as_nanos() as f64 / case.records as f64
            })
            .collect();
        nanoseconds.sort_by(f64::total_cmp);
        let (least, median) = (nanoseconds.first().copied(), nanoseconds.get(rounds / 2).copied());
        println!("{:32} least {:7.2} ns  median {:7.2} ns", case.name, least.unwrap_or(0.0), median.unwrap_or(0.0));
    }
}
