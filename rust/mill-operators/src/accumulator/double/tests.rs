use super::Double;

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
fn variance_is_that_of_two_passes() {
    for offset in [0.0, 1e3, 1e9, 1e12] {
        let values: Vec<f64> = (0..100).map(|i| offset + f64::from(i % 10) * 0.25).collect();
        let n = values.len() as f64;
        let mean = total(&values) / n;
        let expected = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / (n - 1.0);
        let sum = values.iter().fold(Double::default(), |sum, &value| sum.add(value));
        let squares = values.iter().fold(Double::default(), |sum, &value| sum.merge(Double::square(value)));
        let found = Double::variance(100, sum, squares);
        assert!((found - expected).abs() <= expected * 1e-6, "{found} {expected}");
    }
    let equal = |value: f64, n: i64| {
        let sum = (0..n).fold(Double::default(), |sum, _| sum.add(value));
        let squares = (0..n).fold(Double::default(), |sum, _| sum.merge(Double::square(value)));
        Double::variance(n, sum, squares)
    };
    assert_eq!(equal(0.1, 1000), 0.0);
    assert_eq!(equal(1e15 / 3.0, 77), 0.0);
}
