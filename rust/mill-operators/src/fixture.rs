//! What the operators' tests share.

use arrow::datatypes::SchemaRef;
use mill_plan::{CompiledExpr, Expr};
use mill_protocol::testkit::{Input, batch, integers, texts};
use mill_protocol::{Batch, TaskContext};

/// The only instance of a step.
pub(crate) fn context() -> TaskContext {
    TaskContext { step: "step".to_owned(), index: 0, parallelism: 1, threads: 1, groups: 0..128, is_persistent: true, waker: std::task::Waker::noop().clone() }
}

/// An expression over the columns of a batch.
pub(crate) fn compiled(expr: &Expr, schema: &SchemaRef) -> CompiledExpr {
    CompiledExpr::new(expr, schema).expect("the expression fits the columns")
}

/// Records with a number and a text, some of them null.
pub(crate) fn records() -> Batch {
    batch(&[
        ("n", integers(&[Some(1), None, Some(3), Some(-4), Some(5), Some(6), Some(-7)])),
        ("s", texts(&[Some("a"), Some("b"), None, Some("d"), Some("e"), Some("f"), Some("g")])),
    ])
    .with_times(Some((0..7).map(|row| row * 10).collect()))
}

/// One batch of input.
pub(crate) fn input(batch: Batch) -> Vec<Input> {
    vec![Input::Batch(batch)]
}
