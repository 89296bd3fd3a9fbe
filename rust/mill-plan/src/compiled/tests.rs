use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, UInt8Array};
use arrow::datatypes::{Int64Type, UInt8Type};
use proptest::prelude::*;

use super::*;
use crate::expr::BinaryOp;

const OPS: [BinaryOp; 5] = [BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::FloorDiv, BinaryOp::Mod];

/// The result of an operation on integers: nothing where the divisor is zero.
fn oracle(op: BinaryOp, a: i128, b: i128) -> Option<i128> {
    match op {
        BinaryOp::Add => Some(a + b),
        BinaryOp::Sub => Some(a - b),
        BinaryOp::Mul => Some(a * b),
        _ if b == 0 => None,
        BinaryOp::FloorDiv => Some((a - a.rem_euclid(b.abs())).div_euclid(b) - i128::from(b < 0 && a.rem_euclid(b.abs()) != 0)),
        _ => {
            let r = a.rem_euclid(b.abs());
            Some(if b < 0 && r != 0 { r + b } else { r })
        }
    }
}

fn number() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        Just(None),
        (-20_i64..20).prop_map(Some),
        any::<i64>().prop_map(Some),
        Just(Some(i64::MIN)),
        Just(Some(i64::MAX)),
        (0..i64::from(u32::MAX) * 2).prop_map(Some),
    ]
}

fn expected(op: BinaryOp, a: Option<i64>, b: Option<i64>) -> Option<i128> {
    oracle(op, i128::from(a?), i128::from(b?))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn integers_are_exact_or_refused(
        rows in proptest::collection::vec((number(), number()), 1..20),
        op in proptest::sample::select(OPS.to_vec()),
        constant in proptest::option::of(number()),
    ) {
        let a: Int64Array = rows.iter().map(|row| row.0).collect();
        let b: Int64Array = rows.iter().map(|row| row.1).collect();
        let batch = RecordBatch::try_from_iter_with_nullable([("a", Arc::new(a) as ArrayRef, true), ("b", Arc::new(b) as _, true)]).unwrap();
        let right = match constant {
            Some(value) => Expr::Literal(datafusion_common::ScalarValue::Int64(value)),
            None => Expr::column("b"),
        };
        let expected: Vec<Option<i128>> = rows.iter().map(|row| expected(op, row.0, constant.unwrap_or(row.1))).collect();
        let fits = |value: &Option<i128>| value.is_none_or(|value| i64::try_from(value).is_ok());
        let compiled = CompiledExpr::new(&Expr::column("a").binary(op, right), &batch.schema()).unwrap();
        match compiled.evaluate(&batch) {
            Ok(array) => {
                let found: Vec<Option<i128>> = array.as_primitive::<Int64Type>().iter().map(|v| v.map(i128::from)).collect();
                prop_assert_eq!(found, expected);
            }
            Err(error) => {
                prop_assert!(!expected.iter().all(fits), "{}", error);
                prop_assert!(error.message().contains("integer overflow"), "{}", error);
            }
        }
    }
}

#[test]
fn rows_that_are_null_do_not_overflow() {
    // Below the null lies a value that would overflow.
    let values = UInt8Array::new(vec![1, 255, 3].into(), Some(vec![true, false, true].into()));
    let batch = RecordBatch::try_from_iter_with_nullable([("x", Arc::new(values) as ArrayRef, true)]).unwrap();
    let expr = Expr::column("x").binary(BinaryOp::Add, Expr::literal(1_i64));
    let array = CompiledExpr::new(&expr, &batch.schema()).unwrap().evaluate(&batch).unwrap();
    let found: Vec<Option<u8>> = array.as_primitive::<UInt8Type>().iter().collect();
    assert_eq!(found, [Some(2), None, Some(4)]);
}

#[test]
fn a_column_is_handed_on_without_a_copy() {
    let batch = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let compiled = CompiledExpr::new(&Expr::column("x").alias("y"), &batch.schema()).unwrap();
    assert_eq!(compiled.as_column(), Some(0));
    assert_eq!(compiled.field().name(), "y");
    assert!(Arc::ptr_eq(&compiled.evaluate(&batch).unwrap(), batch.column(0)));
    assert_eq!(batch.column(0).len(), 1);
}
