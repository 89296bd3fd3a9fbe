use super::{Double, SMALL_MAX};

fn total(values: &[f64]) -> f64 {
    values.iter().fold(Double::default(), |sum, &value| sum.add(value)).total()
}

#[test]
fn order_does_not_matter() {
    let mut values: Vec<f64> = (1..2000).map(|i| (f64::from(i) * 0.1).sin() * 10f64.powi(i % 17 - 8)).collect();
    let forward = total(&values);
    values.reverse();
    assert_eq!(total(&values).to_bits(), forward.to_bits());
    values.sort_by(f64::total_cmp);
    assert_eq!(total(&values).to_bits(), forward.to_bits());
    let (left, right) = values.split_at(700);
    let part = |values: &[f64]| values.iter().fold(Double::default(), |sum, &value| sum.add(value));
    assert_eq!(part(left).merge(part(right)).total().to_bits(), forward.to_bits());
}

#[test]
fn cancellation_loses_nothing() {
    assert_eq!(total(&[1e16, 1.0, -1e16]), 1.0);
    assert_eq!(total(&[f64::INFINITY, 1.0]), f64::INFINITY);
    assert!(total(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
}

#[test]
fn a_quotient_is_rounded_once() {
    let sum = [0.1; 10].iter().fold(Double::default(), |sum, &value| sum.add(value));
    assert_eq!(sum.divided(10.0).total(), 0.1);
    assert_eq!(Double::of(f64::INFINITY).divided(3.0).total(), f64::INFINITY);
}

#[test]
fn small_whole_numbers_scale_and_divide_as_others_do() {
    let bits = |number: Double| number.to_words();
    for at in 0..2000 {
        let value = Double::of((f64::from(at) * 0.37).sin() * 10f64.powi(at % 160 - 80)).divided(3.0);
        for by in [1.0, 2.0, 3.0, 7.0, 1000.0, 8191.0 * 8192.0, SMALL_MAX - 1.0, SMALL_MAX] {
            assert_eq!(bits(value.scaled_by_small(by)), bits(value.scaled(by)), "{value:?} by {by}");
            assert_eq!(bits(value.divided_by_small(by)), bits(value.divided(by)), "{value:?} by {by}");
        }
    }
}
