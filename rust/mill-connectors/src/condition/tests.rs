use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, StringArray};
use proptest::prelude::*;

use super::*;

const ALL: [Comparison; 5] = [Comparison::Eq, Comparison::Lt, Comparison::LtEq, Comparison::Gt, Comparison::GtEq];

fn condition(comparison: Comparison, value: ArrayRef) -> Condition {
    Condition { column: "a".to_owned(), comparison, value }
}

fn met(comparison: Comparison, values: &[Option<f64>], bound: f64) -> Vec<Option<bool>> {
    let column = Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    meets(&condition(comparison, Arc::new(Float64Array::from(vec![bound]))), &column).unwrap().iter().collect()
}

#[test]
fn floats_are_ordered_as_the_engine_orders_them() {
    let values = [Some(-0.0), Some(1.5), Some(f64::NAN), None, Some(f64::INFINITY)];
    let some = |found: [bool; 4]| vec![Some(found[0]), Some(found[1]), Some(found[2]), None, Some(found[3])];
    assert_eq!(met(Comparison::Eq, &values, 0.0), some([true, false, false, false]));
    assert_eq!(met(Comparison::Lt, &values, 1.5), some([true, false, false, false]));
    assert_eq!(met(Comparison::LtEq, &values, 1.5), some([true, true, false, false]));
    assert_eq!(met(Comparison::Gt, &values, 1.5), some([false, false, true, true]));
    assert_eq!(met(Comparison::GtEq, &values, 0.0), some([true, true, true, true]));
}

#[test]
fn a_condition_reads_like_an_expression() {
    assert_eq!(condition(Comparison::GtEq, Arc::new(Int64Array::from(vec![7]))).to_string(), "a >= 7");
    assert_eq!(condition(Comparison::Eq, Arc::new(StringArray::from(vec!["x"]))).to_string(), "a == \"x\"");
}

proptest! {
    #[test]
    fn no_block_with_a_value_that_meets_is_left_out(
        values in proptest::collection::vec(prop_oneof![Just(f64::NAN), Just(-0.0), (-3i32..4).prop_map(f64::from)], 1..6),
        bound in (-3i32..4).prop_map(f64::from),
    ) {
        let (mut least, mut greatest) = (None::<f64>, None::<f64>);
        for &value in values.iter().filter(|value| !value.is_nan()) {
            least = Some(least.map_or(value, |least| least.min(value)));
            greatest = Some(greatest.map_or(value, |greatest| greatest.max(value)));
        }
        let (low, high) = (Arc::new(Float64Array::from(vec![least])) as ArrayRef, Arc::new(Float64Array::from(vec![greatest])) as ArrayRef);
        for comparison in ALL {
            let condition = condition(comparison, Arc::new(Float64Array::from(vec![bound])));
            let column = Arc::new(Float64Array::from(values.clone())) as ArrayRef;
            let is_there = meets(&condition, &column).unwrap().true_count() > 0;
            let may = may_meet(&condition, &low, &high).unwrap();
            prop_assert!(!is_there || may.is_null(0) || may.value(0), "{condition} in {values:?}");
        }
        let whole: Vec<i64> = values.iter().filter(|value| !value.is_nan()).map(|&value| value as i64).collect();
        if let (Some(&least), Some(&greatest)) = (whole.iter().min(), whole.iter().max()) {
            for comparison in ALL {
                let condition = condition(comparison, Arc::new(Int64Array::from(vec![bound as i64])));
                let column = Arc::new(Int64Array::from(whole.clone())) as ArrayRef;
                let is_there = meets(&condition, &column).unwrap().true_count() > 0;
                let (low, high) = (Arc::new(Int64Array::from(vec![least])) as ArrayRef, Arc::new(Int64Array::from(vec![greatest])) as ArrayRef);
                let may = may_meet(&condition, &low, &high).unwrap();
                prop_assert!(!is_there || may.value(0), "{condition} in {whole:?}");
            }
        }
    }
}
