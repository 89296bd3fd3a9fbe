use std::sync::Arc;

use arrow::datatypes::Schema;
use mill_plan::{BinaryOp, Expr, ScalarValue};
use mill_protocol::testkit::{Compare, batch, check, integers};
use mill_protocol::Operator;

use super::*;
use crate::fixture::{compiled, input, records};

fn add(column: &str, number: i64) -> Expr {
    Expr::Binary {
        left: Box::new(Expr::Column(column.to_owned())),
        op: BinaryOp::Add,
        right: Box::new(Expr::Literal(ScalarValue::Int64(Some(number)))),
    }
}

fn project_of(exprs: &[Expr], input: &SchemaRef) -> Box<dyn Operator> {
    let exprs: Vec<CompiledExpr> = exprs.iter().map(|expr| compiled(expr, input)).collect();
    let fields: Vec<_> = exprs.iter().map(|expr| expr.field().clone()).collect();
    Box::new(Project::new(exprs, Arc::new(Schema::new(fields))))
}

#[test]
fn columns_are_computed_and_event_time_stays() {
    let schema = records().schema();
    let exprs = [Expr::Column("s".to_owned()), add("n", 1)];
    let given = check(|| project_of(&exprs, &schema), &input(records()), &Compare::Ordered);
    assert_eq!(given.rows[..3], ["0: \"a\", 2 @0", "0: \"b\", null @10", "0: null, 4 @20"]);
    assert_eq!(given.rows.len(), 7);
}

#[test]
fn only_the_record_that_overflows_is_rejected() {
    let rows = batch(&[("n", integers(&[Some(1), Some(i64::MAX), Some(3), None]))]);
    let schema = rows.schema();
    let given = check(|| project_of(&[add("n", 1)], &schema), &input(rows.clone()), &Compare::Ordered);
    assert_eq!(given.rows, ["0: 2", "0: 4", "0: null"]);
    assert_eq!(given.rejected.len(), 1);
    assert!(given.rejected[0].ends_with("| {\"n\":9223372036854775807}"), "{:?}", given.rejected);
}
