use super::*;

/// The variance of whole numbers, exactly: (n Σx² − (Σx)²) / (n (n − 1)), the offset taken off first.
fn exact(steps: &[i128]) -> f64 {
    let n = steps.len() as i128;
    let (sum, squares) = (steps.iter().sum::<i128>(), steps.iter().map(|x| x * x).sum::<i128>());
    (n * squares - sum * sum) as f64 / (n * (n - 1)) as f64
}

fn spread(values: &[f64]) -> Spread {
    values.iter().fold(Spread::default(), |spread, &value| spread.add(Double::of(value)))
}

/// Whole numbers that repeat without a period.
fn steps(n: usize) -> Vec<i128> {
    (0..n as i128).map(|i| (i * i * 7919 + i * 104_729) % 1000 - 500).collect()
}

#[test]
fn the_variance_of_large_values_keeps_its_digits() {
    for offset in [0.0, 1e3, 1e9, 1e12, 1.7e15, -4e15] {
        for n in [2, 3, 10, 1000] {
            let steps = steps(n);
            let values: Vec<f64> = steps.iter().map(|&step| offset + step as f64).collect();
            let (found, expected) = (spread(&values).variance(), exact(&steps));
            assert!((found - expected).abs() <= expected * 4e-16, "{offset} {n}: {found} {expected}");
        }
    }
}

#[test]
fn order_and_merging_do_not_matter() {
    let mut values: Vec<f64> = steps(2000).iter().map(|&step| 1e9 + step as f64 * 0.1).collect();
    let expected = spread(&values).variance().to_bits();
    let merged = values.chunks(37).fold(Spread::default(), |all, part| all.merge(spread(part)));
    assert_eq!(merged.variance().to_bits(), expected);
    values.sort_by(f64::total_cmp);
    assert_eq!(spread(&values).variance().to_bits(), expected);
    values.reverse();
    let pairs: Vec<Spread> = values.chunks(2).map(spread).collect();
    assert_eq!(pairs.into_iter().fold(Spread::default(), Spread::merge).variance().to_bits(), expected);
}

#[test]
fn equal_values_have_no_variance() {
    for value in [0.1, 1e15 / 3.0, -7e-300, 1e140, 0.0] {
        assert_eq!(spread(&[value; 1000]).variance(), 0.0, "{value}");
        assert_eq!(spread(&[value; 3]).merge(spread(&[value; 77])).variance(), 0.0, "{value}");
    }
    let next = 0.1f64.next_up();
    assert!(spread(&[0.1, next]).variance() > 0.0);
}

#[test]
fn what_is_no_number_has_no_variance() {
    assert!(spread(&[1.0, f64::NAN, 2.0]).variance().is_nan());
    assert!(spread(&[f64::INFINITY, 1.0]).variance().is_nan());
    assert!(spread(&[1.0, f64::NEG_INFINITY]).variance().is_nan());
    assert_eq!(spread(&[1e200, -1e200]).variance(), f64::INFINITY);
}

#[test]
fn deviations_of_the_smallest_and_largest_numbers_are_floats() {
    let at = |factor: f64| [1.0, 2.0, 4.0, 8.0].map(|value| value * factor);
    let expected = spread(&at(1.0)).deviation();
    for exponent in [-1022, -900, -664, -330, -320, 0, 320, 330, 700, 1020] {
        let factor = 2f64.powi(exponent);
        let values = at(factor);
        assert_eq!(spread(&values).deviation(), expected * factor, "2^{exponent}");
        let (a, b) = values.split_at(1);
        assert_eq!(spread(a).merge(spread(b)).deviation(), expected * factor, "2^{exponent}");
        assert_eq!(spread(b).merge(spread(a)).deviation(), expected * factor, "2^{exponent}");
        let kept = |of: &[f64]| Spread::from_words(spread(of).to_words());
        assert_eq!(kept(a).merge(kept(b)).deviation(), expected * factor, "2^{exponent}");
    }
    // Zeros have no scale of their own, and the largest value decides.
    let small = 2f64.powi(-700);
    for order in [[0.0, 0.0, small], [small, 0.0, 0.0], [0.0, small, 0.0]] {
        assert_eq!(spread(&order).deviation(), spread(&[0.0, 0.0, 1.0]).deviation() * small);
    }
    for order in [[small, 1.0, 3.0], [3.0, 1.0, small]] {
        assert_eq!(spread(&order).deviation(), spread(&[0.0, 1.0, 3.0]).deviation());
    }
    assert_eq!(spread(&[f64::MAX, -f64::MAX, f64::MAX, -f64::MAX]).variance(), f64::INFINITY);
}
