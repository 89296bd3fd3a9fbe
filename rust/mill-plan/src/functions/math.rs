//! Functions of numbers.

mod round;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::kernels::cmp::{gt, lt};
use arrow::compute::kernels::numeric;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{binary, cast, unary};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use datafusion_common::ScalarValue;
use mill_protocol::{Error, Result};

use self::round::rounded;
use super::arguments::{as_float, first, mapped, needs, zipped};
use super::{Function, method};
use crate::compiled::{Kernel, arithmetic};
use crate::compiled::bind::Typed;
use crate::compiled::value::{failed, refused, truths};
use crate::expr::BinaryOp;
use crate::types::{is_decimal, is_number};

pub(super) const FUNCTIONS: &[Function] = &[
    method("sqrt", 1, 1, of_float),
    method("cbrt", 1, 1, of_float),
    method("exp", 1, 1, of_float),
    method("log10", 1, 1, of_float),
    method("log1p", 1, 1, of_float),
    method("sin", 1, 1, of_float),
    method("cos", 1, 1, of_float),
    method("tan", 1, 1, of_float),
    method("arcsin", 1, 1, of_float),
    method("arccos", 1, 1, of_float),
    method("arctan", 1, 1, of_float),
    method("sinh", 1, 1, of_float),
    method("cosh", 1, 1, of_float),
    method("tanh", 1, 1, of_float),
    method("degrees", 1, 1, of_float),
    method("radians", 1, 1, of_float),
    method("log", 1, 2, log),
    method("abs", 1, 1, abs),
    method("ceil", 1, 1, rounded),
    method("floor", 1, 1, rounded),
    method("round", 1, 2, rounded),
    method("trunc", 1, 1, rounded),
    method("sign", 1, 1, sign),
    method("pow", 2, 2, pow),
];

fn of_float(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let f: fn(f64) -> f64 = match name {
        "sqrt" => f64::sqrt,
        "cbrt" => f64::cbrt,
        "exp" => f64::exp,
        "log10" => f64::log10,
        "log1p" => f64::ln_1p,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "arcsin" => f64::asin,
        "arccos" => f64::acos,
        "arctan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "degrees" => f64::to_degrees,
        _ => f64::to_radians,
    };
    let args: Vec<Typed> = args.into_iter().map(|arg| as_float(name, arg)).collect::<Result<_>>()?;
    let data_type = args[0].data_type.clone();
    Typed::call(floats_mapped(f), args, data_type, text)
}

/// `log(base)`; natural if there is no base.
fn log(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let args: Vec<Typed> =
        args.into_iter().map(|arg| as_float(name, arg)?.coerce(&DataType::Float64)).collect::<Result<_>>()?;
    if args.len() == 1 {
        let kernel = mapped(|array| Ok(Arc::new(unary::<_, _, Float64Type>(array.as_primitive::<Float64Type>(), f64::ln)) as _));
        return Typed::call(kernel, args, DataType::Float64, text);
    }
    let kernel = zipped(|arrays| {
        let (x, base) = (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_primitive::<Float64Type>());
        let result: Float64Array = binary(x, base, |x: f64, base: f64| x.ln() / base.ln()).map_err(failed)?;
        Ok(Arc::new(result) as _)
    });
    Typed::call(kernel, args, DataType::Float64, text)
}

fn pow(_: &str, mut args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    match (args.pop(), args.pop()) {
        (Some(exponent), Some(base)) => arithmetic::bind(BinaryOp::Pow, base, exponent, text),
        _ => Err(Error::internal("pow without arguments")),
    }
}

fn abs(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let arg = first(args)?;
    let data_type = arg.data_type.clone();
    match &data_type {
        t if t.is_unsigned_integer() => return Ok(arg),
        DataType::Duration(_) => {
            let kernel = mapped(move |array| {
                let numbers = cast(array, &DataType::Int64).map_err(failed)?;
                cast(&absolute(&numbers)?, array.data_type()).map_err(failed)
            });
            return Typed::call(kernel, vec![arg], data_type, text);
        }
        DataType::Null => {}
        t if is_number(t) || is_decimal(t) => {}
        _ => return Err(needs(name, "a number or duration", &arg)),
    }
    Typed::call(mapped(absolute), vec![arg], data_type, text)
}

/// Negates what is below zero; checked, for the lowest integer has no counterpart.
fn absolute(array: &ArrayRef) -> Result<ArrayRef> {
    if array.data_type() == &DataType::Null {
        return Ok(Arc::clone(array));
    }
    if let DataType::Float64 = array.data_type() {
        return Ok(Arc::new(unary::<_, _, Float64Type>(array.as_primitive::<Float64Type>(), f64::abs)));
    }
    if let DataType::Float32 = array.data_type() {
        return Ok(Arc::new(unary::<_, _, Float32Type>(array.as_primitive::<Float32Type>(), f32::abs)));
    }
    let zero = ScalarValue::new_zero(array.data_type()).and_then(|zero| zero.to_scalar()).map_err(refused)?;
    let is_negative = lt(array, &zero).map_err(failed)?;
    let is_negative = truths(&is_negative);
    // Only the negative ones are negated: the others cannot overflow.
    let masked = zip(&is_negative, array, &zero).map_err(failed)?;
    let negated = numeric::neg(&masked).map_err(failed)?;
    zip(&is_negative, &negated, array).map_err(failed)
}

fn floats_mapped(f: impl Fn(f64) -> f64 + Send + Sync + 'static) -> Kernel {
    mapped(move |array| {
        Ok(match array.data_type() {
            DataType::Float32 => {
                let numbers = array.as_primitive::<Float32Type>();
                Arc::new(unary::<_, _, Float32Type>(numbers, |x| f(f64::from(x)) as f32)) as ArrayRef
            }
            _ => Arc::new(unary::<_, _, Float64Type>(array.as_primitive::<Float64Type>(), &f)),
        })
    })
}

/// -1, 0 or 1, in the type of the number.
fn sign(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let arg = first(args)?;
    if arg.data_type.is_floating() {
        let data_type = arg.data_type.clone();
        let f = |x: f64| if x == 0.0 || x.is_nan() { x } else { x.signum() };
        return Typed::call(floats_mapped(f), vec![arg], data_type, text);
    }
    if !arg.data_type.is_integer() {
        return Err(needs(name, "a number", &arg));
    }
    let data_type = arg.data_type.clone();
    let to = data_type.clone();
    let kernel = mapped(move |array| {
        if to.is_unsigned_integer() {
            let zero = ScalarValue::new_zero(&to).and_then(|zero| zero.to_scalar()).map_err(refused)?;
            return cast(&gt(array, &zero).map_err(failed)?, &to).map_err(failed);
        }
        let wide = cast(array, &DataType::Int64).map_err(failed)?;
        let signs = unary::<_, _, Int64Type>(wide.as_primitive::<Int64Type>(), i64::signum);
        cast(&signs, &to).map_err(failed)
    });
    Typed::call(kernel, vec![arg], data_type, text)
}

/// Numbers in [0, 1) from the seed and the record's number alone, so that a generator read again returns the same.
pub(crate) fn random(seed: u64, index: Typed, text: &Arc<str>) -> Result<Typed> {
    let kernel = mapped(move |array| {
        let numbers = unary::<_, _, Float64Type>(array.as_primitive::<Int64Type>(), |index| unit_interval(seed, index as u64));
        Ok(Arc::new(numbers) as _)
    });
    Typed::call(kernel, vec![index], DataType::Float64, text)
}

/// SplitMix64's output function over seed and index; the upper 53 bits make the fraction.
#[inline]
fn unit_interval(seed: u64, index: u64) -> f64 {
    let start = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let bits = mix(start.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
