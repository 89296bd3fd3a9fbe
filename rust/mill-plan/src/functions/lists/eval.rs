//! An expression over the elements of lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema};
use mill_protocol::{Error, Result};

use crate::compiled::CompiledExpr;
use crate::compiled::bind::Typed;
use crate::compiled::value::failed;
use crate::expr::{ELEMENT_COLUMN, Expr};
use crate::functions::arguments::{as_list, mapped};

/// `list.eval(body)`: a list of what the body makes of each element. It sees the element and nothing else.
pub(crate) fn list_eval(list: Typed, body: &Expr, text: &Arc<str>) -> Result<Typed> {
    let (list, element) = as_list("list.eval", list)?;
    let mut columns = std::collections::BTreeSet::new();
    body.add_columns(&mut columns);
    if let Some(name) = columns.iter().find(|name| *name != ELEMENT_COLUMN) {
        return Err(Error::plan(format!(
            "list.eval() is about the elements of a list, which mill.element() stands for, and not about column {name:?}; use \
             explode() to bring columns and elements together"
        )));
    }
    if let Some(what) = unfit(body) {
        return Err(Error::plan(format!("list.eval() takes an expression that makes a value of each element, and {what}")));
    }
    let schema = Arc::new(Schema::new(vec![Field::new(ELEMENT_COLUMN, element, true)]));
    let compiled = CompiledExpr::new(body, &schema)?;
    let field = Arc::new(Field::new("item", compiled.field().data_type().clone(), true));
    let data_type = DataType::List(Arc::clone(&field));
    let kernel = mapped(move |array| {
        let list = array.as_list::<i32>();
        let (values, lengths) = own_values(list)?;
        let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), vec![values], &options).map_err(failed)?;
        let values = compiled.evaluate(&batch)?;
        let list = ListArray::try_new(Arc::clone(&field), OffsetBuffer::from_lengths(lengths), values, list.nulls().cloned());
        Ok(Arc::new(list.map_err(failed)?) as ArrayRef)
    });
    Typed::call(kernel, vec![list], data_type, text)
}

/// What in an expression does not make one value of one element.
fn unfit(body: &Expr) -> Option<&'static str> {
    if body.any(&|part| matches!(part, Expr::Aggregate(_))) {
        return Some("an aggregate is of many; use .list.sum() and the like");
    }
    if body.any(&|part| matches!(part, Expr::User { .. })) {
        return Some("a function of yours is called for the columns of a stream; use explode() before it");
    }
    None
}

/// The elements that lists have, without those that are in null lists or between lists, and how many each has.
fn own_values(list: &ListArray) -> Result<(ArrayRef, Vec<usize>)> {
    let offsets = list.value_offsets();
    let span = |row: usize| if list.is_null(row) { 0..0 } else { offsets[row] as usize..offsets[row + 1] as usize };
    let lengths: Vec<usize> = (0..list.len()).map(|row| span(row).len()).collect();
    let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
    if lengths.iter().sum::<usize>() == last - first {
        return Ok((list.values().slice(first, last - first), lengths));
    }
    let places: UInt32Array = (0..list.len()).flat_map(span).map(|at| at as u32).collect();
    Ok((take(list.values(), &places, None).map_err(failed)?, lengths))
}
