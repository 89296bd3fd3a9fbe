//! Tells sources which records the filters right after them want, so that what is not wanted need not be read.
//!
//! A filter stays where it is: a source may leave out what does not meet a condition, but need not. So only the parts of a
//! predicate that are comparisons of a column with a constant are told, and the result is the same.
//!
//! ```text
//!   filter((col("at") >= t) & col("name").str.contains("x"))   tells   at >= t
//! ```
//!
//! Nothing is told when another part of the predicate could fail for a record that would be left out: the failure would
//! be gone, too.

use std::sync::Arc;

use datafusion_common::ScalarValue;
use mill_protocol::{Comparison, Condition, Result};

use super::graph::{StepGraph, Tap};
use crate::compiled::bind::{Scope, bind, meet};
use crate::expr::{BinaryOp, Expr, UnaryOp};
use crate::steps::SourceStep;
use arrow::datatypes::{DataType, Schema};

/// Functions that take any value of the types they are bound to.
const TOTAL_FUNCTIONS: [&str; 7] =
    ["is_null", "is_not_null", "is_between", "is_in", "str.contains", "str.starts_with", "str.ends_with"];

/// Tells all sources.
pub(super) fn into_sources(graph: &mut StepGraph) -> Result<()> {
    for at in 0..graph.steps.len() {
        let Some(source) = graph.steps[at].step.source() else { continue };
        let schema = source.schema();
        let mut conditions = Vec::new();
        let mut output = Tap::result(at);
        while let Some(filter) = only_consumer(graph, output) {
            let Some(predicate) = graph.steps[filter].step.predicate() else { break };
            if !is_total(predicate, &schema) {
                break;
            }
            collect(predicate, &schema, &mut conditions)?;
            output = Tap::result(filter);
        }
        if conditions.is_empty() {
            continue;
        }
        if let Some(source) = source.filter(&conditions) {
            graph.steps[at].step = Arc::new(SourceStep { source });
        }
    }
    Ok(())
}

/// The step that takes this output, if it is only one, and takes it once.
fn only_consumer(graph: &StepGraph, output: Tap) -> Option<usize> {
    let mut consumers = graph.steps.iter().enumerate().flat_map(|(at, step)| {
        step.inputs.iter().filter(move |input| **input == output).map(move |_| at)
    });
    consumers.next().filter(|_| consumers.next().is_none())
}

/// Whether a predicate has a value for every record, and never an error.
fn is_total(predicate: &Expr, schema: &Schema) -> bool {
    match predicate.without_alias() {
        Expr::Column(_) | Expr::Literal(_) => true,
        Expr::Unary { op: UnaryOp::Not | UnaryOp::IsNull | UnaryOp::IsNotNull, input } => is_total(input, schema),
        Expr::Binary { left, op, right } if op.is_logical() => is_total(left, schema) && is_total(right, schema),
        Expr::Binary { left, op, right } if op.is_comparison() => {
            // Columns that meet something of another type are cast, and casts can fail.
            let equal = Expr::Binary { left: left.clone(), op: BinaryOp::Eq, right: right.clone() };
            matches!(condition(&equal, schema), Ok(Some(_)))
        }
        Expr::Function { name, args } if TOTAL_FUNCTIONS.contains(&name.as_str()) => {
            args.iter().all(|arg| matches!(arg.without_alias(), Expr::Column(_) | Expr::Literal(_)))
        }
        _ => false,
    }
}

/// Adds the conditions that a predicate implies.
fn collect(predicate: &Expr, schema: &Schema, conditions: &mut Vec<Condition>) -> Result<()> {
    match predicate.without_alias() {
        Expr::Binary { left, op: BinaryOp::And, right } => {
            collect(left, schema, conditions)?;
            collect(right, schema, conditions)
        }
        Expr::Function { name, args } if name == "is_between" && args.len() == 3 => {
            for (op, bound) in [(BinaryOp::GtEq, &args[1]), (BinaryOp::LtEq, &args[2])] {
                let comparison = Expr::Binary { left: Box::new(args[0].clone()), op, right: Box::new(bound.clone()) };
                conditions.extend(condition(&comparison, schema)?);
            }
            Ok(())
        }
        other => {
            conditions.extend(condition(other, schema)?);
            Ok(())
        }
    }
}

/// A comparison of a column with a constant as a condition; `None` for everything else.
fn condition(predicate: &Expr, schema: &Schema) -> Result<Option<Condition>> {
    let Expr::Binary { left, op, right } = predicate else { return Ok(None) };
    let (column, constant, is_turned) = match (left.without_alias(), right.without_alias()) {
        (Expr::Column(name), constant) => (name, constant, false),
        (constant, Expr::Column(name)) => (name, constant, true),
        _ => return Ok(None),
    };
    let comparison = match (op, is_turned) {
        (BinaryOp::Eq, _) => Comparison::Eq,
        (BinaryOp::Lt, false) | (BinaryOp::Gt, true) => Comparison::Lt,
        (BinaryOp::LtEq, false) | (BinaryOp::GtEq, true) => Comparison::LtEq,
        (BinaryOp::Gt, false) | (BinaryOp::Lt, true) => Comparison::Gt,
        (BinaryOp::GtEq, false) | (BinaryOp::LtEq, true) => Comparison::GtEq,
        _ => return Ok(None),
    };
    if constant.any(&|part| matches!(part, Expr::Column(_) | Expr::User { .. } | Expr::Index | Expr::Random { .. })) {
        return Ok(None);
    }
    let scope = Scope { schema, is_generator: false };
    let (column_bound, constant) = (bind(&Expr::column(column.clone()), &scope)?, bind(constant, &scope)?);
    // The comparison must be one of values of the column's type, or the condition would be another one.
    let data_type = column_bound.data_type.clone();
    if !has_order(&data_type) || meet(&column_bound, &constant).as_ref() != Some(&data_type) {
        return Ok(None);
    }
    let Some(value) = constant.coerce(&data_type)?.constant else { return Ok(None) };
    let is_nan = match &value {
        ScalarValue::Float64(Some(value)) => value.is_nan(),
        ScalarValue::Float32(Some(value)) => value.is_nan(),
        _ => false,
    };
    if value.is_null() || is_nan {
        return Ok(None);
    }
    let Ok(value) = value.to_array_of_size(1) else { return Ok(None) };
    Ok(Some(Condition { column: column.clone(), comparison, value }))
}

/// Types whose values all readers order as the engine does.
fn has_order(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Float64 | DataType::Float32 | DataType::Utf8 | DataType::Timestamp(..) | DataType::Date32
        )
}
