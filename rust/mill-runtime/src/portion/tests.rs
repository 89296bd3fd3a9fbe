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
        let mut portion = Portion::new(8, 1, 65_536);
        let pieces = settle(&mut portion, 40, |rows| rows as f64 * per_row + 50.0);
        for (rows, us) in pieces {
            assert!((5_000.0..=25_000.0).contains(&us), "{per_row} µs a row: {rows} rows took {us} µs");
        }
    }
}

#[test]
fn a_function_slower_than_a_piece_gets_one_row() {
    let mut portion = Portion::new(8, 1, 8192);
    assert!(settle(&mut portion, 20, |rows| rows as f64 * 300_000.0).iter().all(|(rows, _)| *rows == 1));
}

#[test]
fn a_fast_function_gets_the_most_after_few_pieces() {
    let mut portion = Portion::new(8, 1, 8192);
    let mut pieces = 0;
    while !portion.is_most() {
        let rows = portion.rows();
        portion.note(rows, rows as i64 / 5 + 30);
        pieces += 1;
    }
    assert!(pieces <= 6, "{pieces}");
    assert_eq!(portion.rows(), 8192);
}

#[test]
fn a_call_that_costs_the_same_for_any_rows_is_not_cut() {
    for per_row in [0.0, 0.2] {
        let mut portion = Portion::new(64, 1, 65_536);
        let pieces = settle(&mut portion, 40, |rows| 50_000.0 + rows as f64 * per_row);
        for (rows, us) in pieces {
            let share = 50_000.0 / us;
            assert!(rows == 65_536 || share < 0.6, "{per_row} µs a row and 50 ms a call: {rows} rows, {share} of it the call");
        }
    }
}

#[test]
fn one_long_call_is_forgotten() {
    let mut portion = Portion::new(8, 1, 8192);
    portion.note(8, 2_000_000);
    assert_eq!(portion.rows(), 1, "at 250 ms a row");
    let pieces = settle(&mut portion, 20, |rows| rows as f64 * 2_000.0);
    assert!(pieces.iter().all(|(_, us)| (5_000.0..=40_000.0).contains(us)), "{pieces:?}");
    settle(&mut portion, 10, |rows| rows as f64 * 0.1);
    assert!(portion.is_most());
    // A pause in the middle of fast work.
    portion.note(8192, 500_000);
    assert!(portion.rows() < 8192);
    settle(&mut portion, 6, |rows| rows as f64 * 0.1);
    assert!(portion.is_most());
}

#[test]
fn a_function_that_becomes_slow_is_cut_at_the_next_piece() {
    let mut portion = Portion::new(8, 1, 8192);
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
    let mut portion = Portion::new(8, 1, 8192);
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
fn rows_are_multiples_of_the_unit() {
    let mut portion = Portion::new(8, 64, 8192);
    assert_eq!(portion.rows(), 64, "not less than a unit");
    settle(&mut portion, 20, |rows| rows as f64 * 10_000.0);
    assert_eq!(portion.rows(), 64, "a unit is what the user has asked for");
    settle(&mut portion, 20, |rows| rows as f64 * 100.0);
    assert_eq!(portion.rows() % 64, 0);
    settle(&mut portion, 20, |rows| rows as f64 * 0.01);
    assert!(portion.is_most());
    let portion = Portion::new(8, 100, 8192);
    assert_eq!(portion.most, 8192);
    let portion = Portion::new(8, 100_000, 8192);
    assert_eq!(portion.rows(), 100_000);
}

#[test]
fn few_rows_say_nothing_of_many() {
    let mut portion = Portion::new(1000, 1, 8192);
    for _ in 0..20 {
        portion.note(3, 1);
    }
    assert_eq!(portion.rows(), 1000);
}

#[test]
fn what_may_wait_is_at_least_a_piece() {
    let mut portion = Portion::new(8, 1, 8192);
    assert_eq!(portion.waiting(), 32);
    settle(&mut portion, 20, |rows| rows as f64 * 2_000.0);
    assert!((20..=30).contains(&portion.waiting()), "{}", portion.waiting());
    settle(&mut portion, 20, |rows| rows as f64 * 300_000.0);
    assert_eq!(portion.waiting(), 1);
    portion.note(1, 0);
    portion.note(8, 0);
    assert!(portion.waiting() >= portion.rows());
}

#[test]
fn short_pieces_are_measured_together() {
    let mut measured = Measured::default();
    assert_eq!(measured.add(10, 1_000, 100), None);
    assert_eq!(measured.add(20, 1_000, 100), None);
    assert_eq!(measured.add(30, 4_000, 100), Some((20, 2_000)));
    assert_eq!(measured.add(100, 1, 100), Some((100, 1)));
}

#[test]
fn an_allowance_is_shared_by_the_channels() {
    let mut portion = Portion::new(8, 1, 8192);
    settle(&mut portion, 20, |rows| rows as f64 * 2_000.0);
    let allowance = Allowance::unlimited();
    allowance.set(&portion, 4);
    assert!((4..=8).contains(&allowance.waiting()), "{}", allowance.waiting());
    assert!(allowance.piece() <= allowance.waiting());
    settle(&mut portion, 20, |rows| rows as f64 * 0.01);
    allowance.set(&portion, 4);
    assert_eq!((allowance.piece(), allowance.waiting()), (usize::MAX, usize::MAX));
}
