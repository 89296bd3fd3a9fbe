use super::*;

/// Runs pieces of a function that takes this long for so many rows; returns the rows and times of the last of them.
fn settle(portion: &mut Portion, pieces: usize, cost: impl Fn(usize) -> f64) -> Vec<(usize, f64)> {
    let mut all = Vec::new();
    for _ in 0..pieces {
        let rows = portion.rows();
        let us = cost(rows);
        portion.note(rows, us as i64);
        all.push((rows, us));
    }
    all.split_off(pieces / 2)
}

#[test]
fn a_slow_function_gets_pieces_of_twenty_milliseconds() {
    for per_row in [3.0, 8.0, 100.0, 2_000.0, 15_000.0] {
        let mut portion = Portion::new(8);
        let pieces = settle(&mut portion, 40, |rows| rows as f64 * per_row + 50.0);
        for (rows, us) in pieces {
            assert!((5_000.0..=25_000.0).contains(&us), "{per_row} µs a row: {rows} rows took {us} µs");
        }
    }
}

#[test]
fn a_function_slower_than_a_piece_gets_one_row() {
    let mut portion = Portion::new(8);
    assert!(settle(&mut portion, 20, |rows| rows as f64 * 300_000.0).iter().all(|(rows, _)| *rows == 1));
}

#[test]
fn a_fast_function_gets_whole_frames_after_few_pieces() {
    let mut portion = Portion::new(8);
    let mut pieces = 0;
    while portion.rows() < 8192 {
        let rows = portion.rows();
        portion.note(rows, rows as i64 / 5 + 30);
        pieces += 1;
    }
    assert!(pieces <= 6, "{pieces}");
}

#[test]
fn a_call_that_costs_the_same_for_any_rows_is_not_cut() {
    for per_row in [0.0, 0.2] {
        let mut portion = Portion::new(64);
        let pieces = settle(&mut portion, 40, |rows| 50_000.0 + rows as f64 * per_row);
        for (rows, us) in pieces {
            let share = 50_000.0 / us;
            assert!(rows >= 65_536 || share < 0.6, "{per_row} µs a row, 50 ms a call: {rows} rows, {share} of it the call");
        }
        assert_eq!(portion.floor(), portion.rows(), "the task has to take as many");
    }
    let mut portion = Portion::new(8);
    settle(&mut portion, 40, |rows| 2_000.0 * rows as f64);
    assert_eq!(portion.floor(), 1);
}

#[test]
fn one_long_call_is_forgotten() {
    let mut portion = Portion::new(8);
    portion.note(8, 2_000_000);
    assert_eq!(portion.rows(), 1, "at 250 ms a row");
    let pieces = settle(&mut portion, 20, |rows| rows as f64 * 2_000.0);
    assert!(pieces.iter().all(|(_, us)| (5_000.0..=40_000.0).contains(us)), "{pieces:?}");
    settle(&mut portion, 10, |rows| rows as f64 * 0.1);
    assert!(portion.rows() >= 8192);
    // A pause in the middle of fast work.
    portion.note(8192, 500_000);
    assert!(portion.rows() < 8192);
    settle(&mut portion, 6, |rows| rows as f64 * 0.1);
    assert!(portion.rows() >= 8192);
}

#[test]
fn a_function_that_becomes_slow_is_cut_at_the_next_piece() {
    let mut portion = Portion::new(8);
    settle(&mut portion, 10, |rows| rows as f64 * 0.1);
    portion.note(8192, 8192 * 2_000);
    assert!(portion.rows() <= 20, "{}", portion.rows());
}

#[test]
fn noise_of_half_as_much_again_does_not_make_pieces_long() {
    // What a piece takes is drawn between once and one and a half times what its rows cost.
    let mut state = 1u64;
    let mut noise = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        1.0 + (state >> 33) as f64 / (1u64 << 32) as f64
    };
    let mut portion = Portion::new(8);
    let mut longest = 0.0f64;
    for piece in 0..5_000 {
        let us = portion.rows() as f64 * 2_000.0 * noise();
        portion.note(portion.rows(), us as i64);
        if piece > 20 {
            longest = longest.max(us);
        }
    }
    assert!(longest < 150_000.0, "{longest}");
}

#[test]
fn few_rows_say_nothing_of_many() {
    let mut portion = Portion::new(1000);
    let mut of_task = TaskPortion::new(1000, 1, 8192);
    for _ in 0..20 {
        portion.note(3, 1);
        of_task.note(3, 1, 1);
    }
    assert_eq!((portion.rows(), of_task.rows()), (1000, 1000));
}

/// Runs pieces of a task that takes this long for so many rows.
fn run(portion: &mut TaskPortion, pieces: usize, cost: impl Fn(usize) -> f64) {
    for _ in 0..pieces {
        let rows = portion.rows();
        portion.note(rows, cost(rows) as i64, 1);
    }
}

#[test]
fn rows_of_a_task_are_multiples_of_the_unit() {
    let mut portion = TaskPortion::new(8, 64, 8192);
    assert_eq!(portion.rows(), 64, "not less than a unit");
    run(&mut portion, 20, |rows| rows as f64 * 10_000.0);
    assert_eq!(portion.rows(), 64, "a unit is what the user has asked for");
    run(&mut portion, 60, |rows| rows as f64 * 100.0);
    assert_eq!(portion.rows(), 192);
    run(&mut portion, 60, |rows| rows as f64 * 0.01);
    assert!(portion.is_most());
    let mut portion = TaskPortion::new(8, 100, 8192);
    run(&mut portion, 60, |rows| rows as f64 * 0.01);
    assert_eq!(portion.rows(), 8100);
    assert!(portion.is_most());
    assert_eq!(TaskPortion::new(usize::MAX, 1, 8192).rows(), 8192, "nothing that is slow is known of");
}

#[test]
fn a_task_that_is_held_up_by_a_queue_takes_what_the_consumer_works_off() {
    // Room comes in lumps: three pieces take no time, the fourth takes that of four.
    let mut portion = TaskPortion::new(8, 1, 8192);
    let (mut rows_since, mut largest) = (0, 0);
    for piece in 0..2_000 {
        let rows = portion.rows();
        rows_since += rows;
        let us = if piece % 4 == 3 { std::mem::take(&mut rows_since) * 2_000 } else { 0 };
        portion.note(rows, us as i64, 1);
        if piece > 40 {
            largest = largest.max(portion.rows());
        }
    }
    assert!((5..=50).contains(&largest), "{largest} rows at 2 ms");
}

#[test]
fn a_task_takes_at_least_what_a_call_has_to_have() {
    let mut portion = TaskPortion::new(8, 1, 65_536);
    portion.note(8, 50_000, 12);
    assert_eq!(portion.rows(), 12);
    portion.note(12, 50_000, 100_000);
    assert_eq!(portion.rows(), 65_536);
    let allowance = Allowance::unlimited();
    allowance.set(&portion, 1);
    assert_eq!(allowance.floor(), 100_000);
    portion.note(65_536, 50_000, 1);
    assert!(portion.rows() < 65_536, "it is known no more");
}

#[test]
fn what_may_wait_is_at_least_a_piece() {
    let mut portion = TaskPortion::new(8, 1, 8192);
    assert_eq!(portion.waiting(), 32);
    run(&mut portion, 20, |rows| rows as f64 * 2_000.0);
    assert!((20..=30).contains(&portion.waiting()), "{}", portion.waiting());
    run(&mut portion, 20, |rows| rows as f64 * 300_000.0);
    assert_eq!(portion.waiting(), 1);
    run(&mut portion, 60, |_| 0.0);
    assert!(portion.is_most());
    assert!(portion.waiting() >= portion.rows());
}

#[test]
fn an_allowance_is_shared_by_the_channels() {
    let mut portion = TaskPortion::new(8, 1, 8192);
    run(&mut portion, 20, |rows| rows as f64 * 2_000.0);
    let allowance = Allowance::unlimited();
    allowance.set(&portion, 4);
    assert!((4..=8).contains(&allowance.waiting()), "{}", allowance.waiting());
    assert!(allowance.piece() <= allowance.waiting());
    allowance.set(&portion, 64);
    assert!((4..=8).contains(&allowance.waiting()), "half a piece in each: {}", allowance.waiting());
    run(&mut portion, 60, |rows| rows as f64 * 0.01);
    allowance.set(&portion, 4);
    assert_eq!((allowance.piece(), allowance.waiting()), (usize::MAX, usize::MAX));
}
