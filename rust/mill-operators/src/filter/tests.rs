use arrow::datatypes::SchemaRef;
use mill_plan::{BinaryOp, Expr, ScalarValue};
use mill_protocol::testkit::{Compare, check};
use mill_protocol::Operator;

use super::*;
use crate::fixture::{compiled, input, records};

fn is_positive() -> Expr {
    Expr::Binary {
        left: Box::new(Expr::Column("n".to_owned())),
        op: BinaryOp::Gt,
        right: Box::new(Expr::Literal(ScalarValue::Int64(Some(0)))),
    }
}

fn filter_of(schema: &SchemaRef, is_updating: bool) -> Box<dyn Operator> {
    Box::new(Filter::new(compiled(&is_positive(), schema), is_updating))
}

#[test]
fn records_that_pass_are_kept_and_null_does_not_pass() {
    let schema = records().schema();
    let given = check(|| filter_of(&schema, false), &input(records()), &Compare::Ordered);
    assert_eq!(given.rows, ["0: 1, \"a\" @0", "0: 3, null @20", "0: 5, \"e\" @40", "0: 6, \"f\" @50"]);
}

#[test]
fn a_key_that_no_longer_passes_is_withdrawn_from_an_updating_stream() {
    let rows = records().with_times(None);
    let schema = rows.schema();
    let rows = rows.with_deletes(Some((0..7).map(|row| row == 0).collect()));
    let given = check(|| filter_of(&schema, true), &input(rows), &Compare::Ordered);
    let expected = [
        "0: 1, \"a\" delete",
        "0: null, \"b\" delete",
        "0: 3, null",
        "0: -4, \"d\" delete",
        "0: 5, \"e\"",
        "0: 6, \"f\"",
        "0: -7, \"g\" delete",
    ];
    assert_eq!(given.rows, expected);
}
