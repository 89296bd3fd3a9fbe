use super::{buckets, registers};

fn hash(value: u64) -> u64 {
    let mut hashes = Vec::new();
    let column: arrow::array::ArrayRef = std::sync::Arc::new(arrow::array::UInt64Array::from(vec![value]));
    mill_frame::hash::hash_columns(&[column], &mut hashes).unwrap();
    hashes[0]
}

#[test]
fn distinct_is_within_five_percent() {
    let mut cell = Vec::new();
    let mut next = 1000.0;
    for value in 1..=100_000u64 {
        registers::add(&mut cell, hash(value));
        registers::add(&mut cell, hash(value / 2));
        if value as f64 >= next {
            let found = registers::estimate(&cell) as f64;
            assert!((found / value as f64 - 1.0).abs() < 0.05, "{found} of {value}");
            next *= 1.7;
        }
    }
    let mut few = Vec::new();
    for value in 0..10 {
        registers::add(&mut few, hash(value));
    }
    assert_eq!(registers::estimate(&few), 10);
    assert_eq!(registers::estimate(&[]), 0);
}

#[test]
fn quantile_is_within_one_percent() {
    let mut cell = Vec::new();
    let values: Vec<f64> = (-500..=1500).map(|i| f64::from(i) * 3.5).collect();
    for i in 0..values.len() {
        buckets::add(&mut cell, values[i * 1009 % values.len()]);
    }
    for at in [0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0] {
        let exact = values[(at * (values.len() - 1) as f64) as usize];
        let found = buckets::quantile(&cell, at).unwrap();
        assert!((found - exact).abs() <= exact.abs() * 0.0101, "{at}: {found} for {exact}");
    }
    assert_eq!(buckets::quantile(&[], 0.5), None);
}

#[test]
fn extreme_values_have_buckets_in_order() {
    let values = [f64::NEG_INFINITY, f64::MIN, -1.0, -5e-324, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY, f64::NAN];
    let mut cell = Vec::new();
    for &value in values.iter().rev() {
        buckets::add(&mut cell, value);
    }
    for (place, value) in values.iter().enumerate() {
        let found = buckets::quantile(&cell, place as f64 / (values.len() - 1) as f64 + 1e-12).unwrap();
        let is_near = found == *value || found.is_nan() && value.is_nan() || (found - value).abs() <= value.abs() * 0.011 || value.abs() < 1e-300;
        assert!(is_near, "{found} for {value}");
    }
}

#[test]
fn sketches_of_parts_merge_into_that_of_all_values() {
    // Lists, all registers, and both of them, in either order.
    for (left, right) in [(0, 0), (0, 40), (40, 30), (200, 200), (100_000, 40), (40, 100_000), (100_000, 90_000)] {
        let sketch = |values: std::ops::Range<u64>| {
            let mut cell = Vec::new();
            registers::add_all(&mut cell, values.map(hash));
            cell
        };
        let all = sketch(0..left + right);
        let mut merged = sketch(0..left);
        registers::merge(&mut merged, &sketch(left..left + right));
        assert_eq!(registers::estimate(&merged), registers::estimate(&all), "{left} and {right}");
        if merged.len() == all.len() {
            assert_eq!(merged, all);
        }
    }
    let mut singles = Vec::new();
    hashes_of(500).for_each(|hash| registers::merge(&mut singles, &registers::single(hash)));
    let mut all = Vec::new();
    registers::add_all(&mut all, hashes_of(500));
    assert_eq!(singles, all);
}

fn hashes_of(values: u64) -> impl Iterator<Item = u64> {
    (0..values).map(hash)
}

#[test]
fn buckets_of_parts_merge_into_those_of_all_values() {
    let values: Vec<f64> = (-50i32..950).map(|i| f64::from(i * i % 331) * 0.37 * f64::from(i.signum())).collect();
    let sketch = |values: &[f64]| {
        let mut cell = Vec::new();
        values.iter().for_each(|&value| buckets::add(&mut cell, value));
        cell
    };
    let all = sketch(&values);
    for cut in [0, 1, 2, 500, 998, 999, 1000] {
        let mut merged = sketch(&values[..cut]);
        buckets::merge(&mut merged, &sketch(&values[cut..]));
        assert_eq!(merged, all, "cut at {cut}");
    }
    let mut singles = Vec::new();
    values.iter().for_each(|&value| buckets::merge(&mut singles, &buckets::single(value)));
    assert_eq!(singles, all);
}
