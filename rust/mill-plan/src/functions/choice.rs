//! Functions that choose between values: nulls, NaN, bounds, membership.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{and_kleene, is_not_null, or_kleene};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Float64Type};
use datafusion_common::ScalarValue;
use mill_protocol::{Error, Result};

use super::arguments::{as_float, constant_str, first, mapped, needs, zipped};
use super::{ANY, Function, free, method};
use crate::compiled::bind::{Typed, common_type};
use crate::compiled::compare;
use crate::compiled::value::{failed, refused, truths};
use crate::expr::{BinaryOp, UnaryOp};

pub(super) const FUNCTIONS: &[Function] = &[
    method("is_null", 1, 1, is_null),
    method("is_not_null", 1, 1, is_null),
    method("fill_null", 2, 2, coalesce),
    free("coalesce", 1, ANY, coalesce),
    method("is_nan", 1, 1, float_class),
    method("is_not_nan", 1, 1, float_class),
    method("is_finite", 1, 1, float_class),
    method("is_infinite", 1, 1, float_class),
    method("fill_nan", 2, 2, fill_nan),
    method("is_in", 1, ANY, is_in),
    method("is_between", 3, 4, is_between),
    method("clip", 2, 3, clip),
    free("min_horizontal", 1, ANY, extreme),
    free("max_horizontal", 1, ANY, extreme),
    free("all_horizontal", 1, ANY, truth),
    free("any_horizontal", 1, ANY, truth),
    method("any", 1, 1, truth),
    method("all", 1, 1, truth),
];

fn is_null(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let op = if name == "is_null" { UnaryOp::IsNull } else { UnaryOp::IsNotNull };
    crate::compiled::bind::unary(op, first(args)?, text)
}

/// All arguments in the type in which they meet.
fn alike(name: &str, args: Vec<Typed>) -> Result<(Vec<Typed>, DataType)> {
    let data_type = common_type(&args, &format!("{name}()"))?;
    let args = args.into_iter().map(|arg| arg.coerce_exactly(&data_type)).collect::<Result<Vec<_>>>()?;
    Ok((args, data_type))
}

/// The first value that is not null.
fn coalesce(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (args, data_type) = alike(name, args)?;
    let kernel = zipped(|arrays| {
        let mut result = Arc::clone(&arrays[0]);
        for array in &arrays[1..] {
            if result.logical_null_count() == 0 {
                break;
            }
            result = zip(&is_not_null(&result).map_err(failed)?, &result, array).map_err(failed)?;
        }
        Ok(result)
    });
    Typed::call(kernel, args, data_type, text)
}

fn float_class(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let arg = as_float(name, first(args)?)?;
    let f: fn(f64) -> bool = match name {
        "is_nan" => f64::is_nan,
        "is_not_nan" => |x| !x.is_nan(),
        "is_finite" => f64::is_finite,
        _ => f64::is_infinite,
    };
    let kernel = mapped(move |array| Ok(Arc::new(floats_where(array, f)) as _));
    Typed::call(kernel, vec![arg], DataType::Boolean, text)
}

fn floats_where(array: &ArrayRef, f: fn(f64) -> bool) -> BooleanArray {
    let values = match array.data_type() {
        DataType::Float32 => {
            let numbers = array.as_primitive::<Float32Type>().values();
            BooleanBuffer::collect_bool(numbers.len(), |i| f(f64::from(numbers[i])))
        }
        DataType::Float16 => {
            let numbers = array.as_primitive::<Float16Type>().values();
            BooleanBuffer::collect_bool(numbers.len(), |i| f(numbers[i].to_f64()))
        }
        _ => {
            let numbers = array.as_primitive::<Float64Type>().values();
            BooleanBuffer::collect_bool(numbers.len(), |i| f(numbers[i]))
        }
    };
    BooleanArray::new(values, array.nulls().cloned())
}

fn fill_nan(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    if !args[0].data_type.is_floating() {
        return Err(needs(name, "a float", &args[0]));
    }
    let data_type = args[0].data_type.clone();
    let args = args.into_iter().map(|arg| arg.coerce(&data_type)).collect::<Result<Vec<_>>>()?;
    let kernel = zipped(|arrays| {
        let mask = truths(&floats_where(&arrays[0], f64::is_nan));
        zip(&mask, &arrays[1], &arrays[0]).map_err(failed)
    });
    Typed::call(kernel, args, data_type, text)
}

/// `is_in(a, b, …)`, or of one constant list; null is never in, and null in anything is null.
fn is_in(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let mut args = args;
    let candidates = args.split_off(1);
    let value = first(args)?;
    let mut literals: Vec<Typed> = Vec::new();
    for candidate in candidates {
        match &candidate.constant {
            Some(ScalarValue::List(list)) => {
                let elements = list.value(0);
                for i in 0..elements.len() {
                    let element = ScalarValue::try_from_array(&elements, i).map_err(refused)?;
                    literals.push(Typed::literal(element)?);
                }
            }
            _ => literals.push(candidate),
        }
    }
    let strings = literals.iter().map(|candidate| match &candidate.constant {
        Some(ScalarValue::Utf8(Some(text))) => Some(text.clone()),
        _ => None,
    });
    // Many strings are looked up, not compared one by one.
    let strings: Option<std::collections::HashSet<String>> = strings.collect();
    if let Some(strings) = strings.filter(|strings| strings.len() > 4 && crate::types::is_string(&value.data_type)) {
        let value = value.coerce(&DataType::Utf8)?;
        let kernel = mapped(move |array| {
            let texts = array.as_string::<i32>();
            let found = BooleanBuffer::collect_bool(texts.len(), |i| strings.contains(texts.value(i)));
            Ok(Arc::new(BooleanArray::new(found, texts.nulls().cloned())) as _)
        });
        return Typed::call(kernel, vec![value], DataType::Boolean, text);
    }
    let literals: Vec<Typed> = literals.into_iter().filter(|c| !matches!(&c.constant, Some(value) if value.is_null())).collect();
    if literals.is_empty() {
        let kernel = mapped(|array| {
            Ok(Arc::new(BooleanArray::new(BooleanBuffer::new_unset(array.len()), array.logical_nulls())) as _)
        });
        return Typed::call(kernel, vec![value], DataType::Boolean, text);
    }
    // Each comparison is bound by the rules of `==`, then all are joined.
    let mut kernels = Vec::with_capacity(literals.len());
    for literal in literals {
        let described = literal.describe();
        let side = Typed { constant: None, is_literal: false, ..value.like() };
        let bound = compare::bind(BinaryOp::Eq, side, literal, text)
            .map_err(|error| Error::schema(format!("{name}(): {} (for {described})", error.message())))?;
        kernels.push(bound.node);
    }
    let kernel = mapped(move |array| {
        let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new("x", array.data_type().clone(), true)]);
        let batch = arrow::array::RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(array)]).map_err(failed)?;
        let mut result: Option<BooleanArray> = None;
        for node in &kernels {
            let found = node.run(&batch)?.into_array(batch.num_rows())?;
            let found = found.as_boolean();
            result = Some(match result {
                None => found.clone(),
                Some(so_far) => or_kleene(&so_far, found).map_err(failed)?,
            });
        }
        Ok(Arc::new(result.unwrap_or_else(|| BooleanArray::new_null(array.len()))) as _)
    });
    Typed::call(kernel, vec![value], DataType::Boolean, text)
}

/// `is_between(low, high, closed="both")`.
fn is_between(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let closed = args.get(3).map(|arg| constant_str(name, "closed", arg)).transpose()?.flatten();
    let closed = closed.unwrap_or_else(|| "both".to_owned());
    let (low_op, high_op) = match closed.as_str() {
        "both" => (BinaryOp::GtEq, BinaryOp::LtEq),
        "left" => (BinaryOp::GtEq, BinaryOp::Lt),
        "right" => (BinaryOp::Gt, BinaryOp::LtEq),
        "none" => (BinaryOp::Gt, BinaryOp::Lt),
        other => {
            return Err(Error::plan(format!(
                "is_between() takes closed=\"both\", \"left\", \"right\" or \"none\", found {other:?}"
            )));
        }
    };
    let mut args = args.into_iter();
    let (Some(value), Some(low), Some(high)) = (args.next(), args.next(), args.next()) else {
        return Err(Error::internal("is_between without bounds"));
    };
    let again = value.duplicate()?;
    let low = compare::bind(low_op, value, low, text)?;
    let high = compare::bind(high_op, again, high, text)?;
    let kernel = zipped(|arrays| {
        Ok(Arc::new(and_kleene(arrays[0].as_boolean(), arrays[1].as_boolean()).map_err(failed)?) as _)
    });
    Typed::call(kernel, vec![low, high], DataType::Boolean, text)
}

/// `clip(lower, upper)`; a bound that is null is none, and NaN stays NaN.
fn clip(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let data_type = args[0].data_type.clone();
    if data_type.is_nested() || crate::types::is_string(&data_type) {
        return Err(needs(name, "a number or time", &args[0]));
    }
    let args = args.into_iter().map(|arg| arg.coerce(&data_type)).collect::<Result<Vec<_>>>()?;
    let kernel = zipped(|arrays| {
        let mut clipped = Arc::clone(&arrays[0]);
        for (bound, beyond) in arrays[1..].iter().zip([BinaryOp::Lt, BinaryOp::Gt]) {
            // NaN is larger than all numbers in comparisons, and in no range of them.
            let is_beyond = truths(&compare::arrays(beyond, &clipped, bound)?);
            let is_beyond = if clipped.data_type().is_floating() {
                arrow::compute::and_not(&is_beyond, &truths(&floats_where(&clipped, f64::is_nan))).map_err(failed)?
            } else {
                is_beyond
            };
            clipped = zip(&is_beyond, bound, &clipped).map_err(failed)?;
        }
        Ok(clipped)
    });
    Typed::call(kernel, args, data_type, text)
}

/// The smaller or larger of both; where one is null, the other.
fn pick(a: &ArrayRef, b: &ArrayRef, smaller: bool) -> Result<ArrayRef> {
    let is_b = compare::arrays(if smaller { BinaryOp::Lt } else { BinaryOp::Gt }, b, a)?;
    let is_b = truths(&is_b);
    let a_is_null = arrow::compute::is_null(a).map_err(failed)?;
    let is_b = arrow::compute::or(&is_b, &a_is_null).map_err(failed)?;
    zip(&is_b, b, a).map_err(failed)
}

fn extreme(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let (args, data_type) = alike(name, args)?;
    if data_type.is_nested() {
        return Err(needs(name, "values with an order", &args[0]));
    }
    let smaller = name == "min_horizontal";
    let kernel = zipped(move |arrays| {
        let mut result = Arc::clone(&arrays[0]);
        for array in &arrays[1..] {
            result = pick(&result, array, smaller)?;
        }
        Ok(result)
    });
    Typed::call(kernel, args, data_type, text)
}

fn truth(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let mut booleans = Vec::with_capacity(args.len());
    for arg in args {
        match arg.data_type {
            DataType::Boolean | DataType::Null => booleans.push(arg.coerce(&DataType::Boolean)?),
            _ => return Err(needs(name, "booleans", &arg)),
        }
    }
    let join = if name.starts_with("all") { and_kleene } else { or_kleene };
    let kernel = zipped(move |arrays| {
        let mut result = arrays[0].as_boolean().clone();
        for array in &arrays[1..] {
            result = join(&result, array.as_boolean()).map_err(failed)?;
        }
        Ok(Arc::new(result) as _)
    });
    Typed::call(kernel, booleans, DataType::Boolean, text)
}
