use mill_plan::{Expr, UnaryOp};
use mill_protocol::testkit::{Compare, check};

use super::*;
use crate::fixture::{compiled, input, records};

#[test]
fn every_record_goes_to_exactly_one_port() {
    let schema = records().schema();
    let has_text = Expr::Unary { op: UnaryOp::IsNotNull, input: Box::new(Expr::Column("s".to_owned())) };
    let make = || -> Box<dyn Operator> { Box::new(Branch::new(compiled(&has_text, &schema))) };
    let given = check(make, &input(records()), &Compare::Ordered);
    assert_eq!(given.rows.len(), 7);
    assert_eq!(given.rows[6], "1: 3, null @20");
}
