//! What sources are told of the filters after them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::ScalarValue;
use mill_plan::{BinaryOp, Expr, PlanOptions, Stream, UnaryOp, lower};
use mill_protocol::{Condition, Error, Result, Source, SourceProperties, Split, SplitReader};

use crate::support::TestSink;

/// A source whose name says what it was told.
#[derive(Clone, Debug)]
struct Told(Vec<Condition>);

impl Source for Told {
    fn name(&self) -> String {
        let conditions: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        format!("read(\"a\") told [{}]", conditions.join(", "))
    }
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("small", DataType::Int32, true),
            Field::new("real", DataType::Float64, true),
            Field::new("text", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ]))
    }
    fn properties(&self) -> SourceProperties {
        SourceProperties { is_bounded: true, is_replayable: true, discovers_splits: false, may_block: false }
    }
    fn splits(&self, _: bool) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }
    fn open(&self, _: &Split, _: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        Err(Error::internal("never opened"))
    }
    fn filter(&self, conditions: &[Condition]) -> Option<Arc<dyn Source>> {
        Some(Arc::new(Told(conditions.to_vec())))
    }
}

fn source() -> Stream {
    Stream::source(Arc::new(Told(Vec::new())))
}

fn col(name: &str) -> Expr {
    Expr::column(name)
}

fn binary(left: Expr, op: BinaryOp, right: Expr) -> Expr {
    Expr::Binary { left: Box::new(left), op, right: Box::new(right) }
}

fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::function(name, args).unwrap()
}

/// What the source of a plan is told.
fn told(stream: &Stream) -> String {
    let plan = lower(&[stream.sink(TestSink::files("out")).unwrap()], &PlanOptions::default()).unwrap();
    let text = plan.explain();
    let line = text.lines().find(|line| line.contains("told [")).unwrap();
    let (_, rest) = line.split_once("told [").unwrap();
    rest.split_once(']').unwrap().0.to_owned()
}

fn told_of(predicate: Expr) -> String {
    told(&source().filter(predicate).unwrap())
}

#[test]
fn comparisons_with_constants_are_told() {
    use BinaryOp::{And, Eq, Gt, GtEq, Lt, NotEq, Or};
    let at_least = binary(col("small"), GtEq, Expr::literal(3i64));
    let turned = binary(Expr::literal(2.5), Gt, col("real"));
    assert_eq!(told_of(at_least.clone()), "small >= 3");
    assert_eq!(told_of(binary(at_least.clone(), And, turned.clone())), "small >= 3, real < 2.5");
    assert_eq!(told_of(binary(col("text"), Eq, Expr::literal("x"))), "text == \"x\"");
    assert_eq!(told_of(binary(col("real"), Lt, Expr::literal(3i64))), "real < 3.0");
    let at = Expr::literal(ScalarValue::TimestampMicrosecond(Some(1_767_323_045_000_000), None));
    assert_eq!(told_of(binary(col("at"), GtEq, at)), "at >= 2026-01-02T03:04:05");
    let between = call("is_between", vec![col("small"), Expr::literal(1i64), Expr::literal(4i64)]);
    assert_eq!(told_of(between), "small >= 1, small <= 4");

    // What is no comparison with a constant may stand beside one, but is not told.
    assert_eq!(told_of(binary(at_least.clone(), Or, turned.clone())), "");
    assert_eq!(told_of(Expr::Unary { op: UnaryOp::Not, input: Box::new(at_least.clone()) }), "");
    let other = binary(binary(col("small"), NotEq, Expr::literal(5i64)), And, at_least.clone());
    assert_eq!(told_of(other), "small >= 3");
    let contains = call("str.contains", vec![col("text"), Expr::literal("x")]);
    assert_eq!(told_of(binary(contains, And, at_least.clone())), "small >= 3");
    let two = source().filter(at_least).unwrap().filter(turned).unwrap();
    assert_eq!(told(&two), "small >= 3, real < 2.5");
}

#[test]
fn what_would_be_another_comparison_or_hide_an_error_is_not_told() {
    use BinaryOp::{Add, And, Eq, Gt, GtEq};
    let at_least = binary(col("small"), GtEq, Expr::literal(3i64));
    // Compared as floats, in which other integers are equal too.
    assert_eq!(told_of(binary(col("small"), Eq, Expr::literal(3.0))), "");
    // Too large for the column's type.
    assert_eq!(told_of(binary(col("small"), Gt, Expr::literal(1i64 << 40))), "");
    assert_eq!(told_of(binary(col("real"), GtEq, Expr::literal(f64::NAN))), "");
    // Finer than the column.
    let at = Expr::literal(ScalarValue::TimestampMicrosecond(Some(1_767_323_045_000_001), None));
    assert_eq!(told_of(binary(col("at"), GtEq, at)), "");
    // A sum can overflow, and a record left out would not.
    let overflows = binary(binary(col("small"), Add, col("small")), Gt, Expr::literal(0i64));
    assert_eq!(told_of(binary(at_least.clone(), And, overflows.clone())), "");
    assert_eq!(told(&source().filter(overflows).unwrap().filter(at_least.clone()).unwrap()), "");

    // Somebody else wants all records.
    let source = source();
    let sinks = [
        source.filter(at_least).unwrap().sink(TestSink::files("some")).unwrap(),
        source.sink(TestSink::files("all")).unwrap(),
    ];
    assert!(lower(&sinks, &PlanOptions::default()).unwrap().explain().contains("told []"));
}
