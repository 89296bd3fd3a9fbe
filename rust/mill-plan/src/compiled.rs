//! Expressions bound to a schema: typed, checked, and ready to run over batches.
//!
//! ```text
//!   Expr ──bind──► Typed { node, type, constant? } ──► CompiledExpr
//!                    coercions are inserted, constants folded, functions chosen by the types of their arguments
//! ```
//!
//! A compiled expression is a tree of kernels over Arrow arrays. A kernel is chosen once, when the expression is bound;
//! running it costs a call a batch and nothing a row. A column costs a reference count, a comparison or an operation with
//! a constant goes straight to one loop.
//!
//! A value that cannot be computed (an overflow, a failed cast) is an error that names the expression and the values;
//! the operator that runs the expression then finds out which records to reject. DataFusion's physical expressions were
//! the obvious other way; they differ from Polars in the sign of `%`, in division, in floats (-0.0, NaN) and in what
//! overflows, so only DataFusion's functions are used, behind the table in [`functions`](crate::functions).

pub(crate) mod arithmetic;
pub(crate) mod bind;
pub(crate) mod compare;
mod decimals;
mod exact;
pub(crate) mod numbers;
mod spans;
pub(crate) mod value;
pub(crate) mod wide;

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast_with_options, filter_record_batch, interleave, not};
use arrow::datatypes::{DataType, Field, Schema};
use mill_protocol::{Error, ErrorKind, Result};

use self::value::{Value, failed, truths};
use crate::expr::Expr;
use crate::function::{ColumnFunction, Rung};

/// What a kernel does: values in, one value out, for so many rows.
pub(crate) type Kernel = Arc<dyn Fn(&[Value], usize) -> Result<Value> + Send + Sync>;

/// An expression bound to a schema.
#[derive(Clone)]
pub struct CompiledExpr {
    node: Arc<Node>,
    field: Field,
    text: Arc<str>,
    rung: Rung,
}

/// A node of the tree.
#[derive(Clone)]
pub(crate) enum Node {
    Column(usize),
    Constant(Value),
    Call { kernel: Kernel, args: Vec<Node>, text: Arc<str> },
    Case { branches: Vec<(Node, Node)>, otherwise: Box<Node>, data_type: DataType },
    User { function: Arc<dyn ColumnFunction>, args: Vec<Node>, data_type: DataType },
}

impl CompiledExpr {
    /// Binds an expression to the columns of a schema.
    ///
    /// # Errors
    /// When a column or function does not exist, or types don't fit.
    pub fn new(expr: &Expr, schema: &Schema) -> Result<CompiledExpr> {
        CompiledExpr::compile(expr, schema, false)
    }

    /// As [`new`](CompiledExpr::new); in a generator, `index()` and `random()` may stand in it.
    pub(crate) fn compile(expr: &Expr, schema: &Schema, is_generator: bool) -> Result<CompiledExpr> {
        let typed = bind::bind(expr, &bind::Scope { schema, is_generator })?;
        let name = expr.output_name();
        let field = match &typed.node {
            Node::Column(index) => schema.field(*index).clone().with_name(name),
            _ => Field::new(name, typed.data_type.clone(), true),
        };
        let rung = |expr: &Expr| match expr {
            Expr::User { function, .. } => Some(function.rung()),
            _ => None,
        };
        Ok(CompiledExpr { node: Arc::new(typed.node), field, text: expr.to_string().into(), rung: slowest(expr, &rung) })
    }

    /// The values of the expression, one a row.
    ///
    /// # Errors
    /// When a value cannot be computed, or the user's code fails.
    pub fn evaluate(&self, data: &RecordBatch) -> Result<ArrayRef> {
        match self.node.as_ref() {
            Node::Column(index) => Ok(Arc::clone(data.column(*index))),
            node => node.run(data)?.into_array(data.num_rows()),
        }
    }

    /// The values of a boolean expression.
    ///
    /// # Errors
    /// When a value cannot be computed, or the expression is not boolean.
    pub fn evaluate_mask(&self, data: &RecordBatch) -> Result<BooleanArray> {
        let array = self.evaluate(data)?;
        match array.as_any().downcast_ref::<BooleanArray>() {
            Some(mask) => Ok(mask.clone()),
            None if array.data_type() == &DataType::Null => Ok(BooleanArray::new_null(array.len())),
            None => Err(Error::internal(format!("{} is {} and not boolean", self.text, array.data_type()))),
        }
    }

    /// The resulting column.
    pub fn field(&self) -> &Field {
        &self.field
    }

    /// The place of the column, if the expression is nothing but a column.
    pub fn as_column(&self) -> Option<usize> {
        match self.node.as_ref() {
            Node::Column(index) => Some(*index),
            _ => None,
        }
    }

    /// On which rung of the ladder it runs.
    pub fn rung(&self) -> Rung {
        self.rung
    }
}

fn slowest(expr: &Expr, rung: &dyn Fn(&Expr) -> Option<Rung>) -> Rung {
    let mut found = rung(expr).unwrap_or(Rung::Native);
    expr.for_each_child(&mut |child| {
        let other = slowest(child, rung);
        if other as u8 > found as u8 {
            found = other;
        }
    });
    found
}

impl fmt::Debug for CompiledExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for CompiledExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Node {
    /// Runs the tree over a batch.
    pub(crate) fn run(&self, data: &RecordBatch) -> Result<Value> {
        let rows = data.num_rows();
        match self {
            Node::Column(index) => Ok(Value::Array(Arc::clone(data.column(*index)))),
            Node::Constant(value) => Ok(value.clone()),
            Node::Call { kernel, args, text } => {
                let values = run_all(args, data)?;
                kernel(&values, rows).map_err(|error| locate(kernel, &values, rows, text, error))
            }
            Node::Case { branches, otherwise, data_type } => {
                // All branches over all rows is fastest. If one fails, it may have failed on rows that are not its own.
                match run_case(branches, otherwise, data) {
                    Err(error) if matches!(error.kind(), ErrorKind::Data | ErrorKind::UserFunction) => {
                        run_case_by_rows(branches, otherwise, data_type, data)
                    }
                    result => result,
                }
            }
            Node::User { function, args, data_type } => {
                let arrays: Result<Vec<ArrayRef>> =
                    args.iter().map(|arg| arg.run(data)?.into_array(rows)).collect();
                let result = function.call(&arrays?, rows)?;
                check_user_result(function.as_ref(), &result, data_type, rows)?;
                Ok(Value::Array(result))
            }
        }
    }
}

fn run_all(args: &[Node], data: &RecordBatch) -> Result<Vec<Value>> {
    args.iter().map(|arg| arg.run(data)).collect()
}

fn check_user_result(function: &dyn ColumnFunction, result: &ArrayRef, wanted: &DataType, rows: usize) -> Result<()> {
    if result.data_type() != wanted || result.len() != rows {
        return Err(Error::new(
            ErrorKind::UserFunction,
            format!(
                "function {} returned {} of type {}, and should return {rows} of type {}",
                function.name(),
                mill_frame::words::counted(result.len(), "value"),
                crate::types::type_name(result.data_type()),
                crate::types::type_name(wanted)
            ),
        ));
    }
    Ok(())
}

/// Finds the first row on which a kernel fails, and says with which values.
fn locate(kernel: &Kernel, values: &[Value], rows: usize, text: &str, error: Error) -> Error {
    if error.kind() != ErrorKind::Data || rows == 0 {
        return error;
    }
    let fails = |offset: usize, length: usize| {
        let part: Vec<Value> = values.iter().map(|value| value.slice(offset, length)).collect();
        kernel(&part, length).err()
    };
    let (mut start, mut length) = (0, rows);
    while length > 1 {
        let half = length / 2;
        if fails(start, half).is_some() {
            length = half;
        } else {
            start += half;
            length -= half;
        }
    }
    let error = fails(start, 1).unwrap_or(error);
    let message = error.message();
    let operands: Vec<String> = values.iter().filter(|v| v.is_array()).map(|value| value.format(start)).collect();
    // A message that shows the values itself need not show them again.
    let is_shown = operands.iter().all(|value| message.contains(value.trim_matches('"')));
    let with = if is_shown { String::new() } else { format!(" (for {})", operands.join(" and ")) };
    Error::data(format!("{text}: {message}{with}"))
}

fn run_case(branches: &[(Node, Node)], otherwise: &Node, data: &RecordBatch) -> Result<Value> {
    let mut result = otherwise.run(data)?;
    for (condition, value) in branches.iter().rev() {
        let mask = mask_of(condition.run(data)?, data.num_rows())?;
        let value = value.run(data)?;
        result = Value::Array(zip(&truths(&mask), value.datum(), result.datum()).map_err(failed)?);
    }
    Ok(result)
}

/// Each branch over its own rows alone.
fn run_case_by_rows(branches: &[(Node, Node)], otherwise: &Node, data_type: &DataType, data: &RecordBatch) -> Result<Value> {
    let rows = data.num_rows();
    let mut parts: Vec<ArrayRef> = vec![new_null_array(data_type, 1)];
    let mut places: Vec<(usize, usize)> = vec![(0, 0); rows];
    let mut left: Vec<usize> = (0..rows).collect();
    let mut rest = data.clone();
    let mut place = |node: &Node, part: &RecordBatch, own: &[usize]| -> Result<()> {
        if !own.is_empty() {
            parts.push(node.run(part)?.into_array(part.num_rows())?);
            for (i, &row) in own.iter().enumerate() {
                places[row] = (parts.len() - 1, i);
            }
        }
        Ok(())
    };
    for (condition, value) in branches {
        let mask = truths(&mask_of(condition.run(&rest)?, rest.num_rows())?);
        let (own, other): (Vec<usize>, Vec<usize>) = {
            let mut own = Vec::new();
            let mut other = Vec::new();
            for (i, &row) in left.iter().enumerate() {
                if mask.value(i) { own.push(row) } else { other.push(row) }
            }
            (own, other)
        };
        place(value, &filter_record_batch(&rest, &mask).map_err(failed)?, &own)?;
        rest = filter_record_batch(&rest, &not(&mask).map_err(failed)?).map_err(failed)?;
        left = other;
    }
    place(otherwise, &rest, &left)?;
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    Ok(Value::Array(interleave(&parts, &places).map_err(failed)?))
}

fn mask_of(value: Value, rows: usize) -> Result<BooleanArray> {
    let array = value.into_array(rows)?;
    let array = match array.data_type() {
        DataType::Boolean => array,
        _ => cast_with_options(&array, &DataType::Boolean, &value::STRICT).map_err(failed)?,
    };
    Ok(arrow::array::AsArray::as_boolean(array.as_ref()).clone())
}

#[cfg(test)]
mod tests;
