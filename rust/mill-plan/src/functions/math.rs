//! Functions of numbers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array};
use arrow::compute::{binary, unary};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type};
use mill_protocol::{Error, Result};

use super::{Function, method};
use crate::compiled::Kernel;
use crate::compiled::bind::Typed;
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
    method("pow", 2, 2, pow),
];

/// Says what a function needs and what it found.
pub(super) fn needs(name: &str, what: &str, found: &Typed) -> Error {
    Error::schema(format!("{name}() needs {what}, found {}", found.describe()))
}

/// A number as float64, or float32 if it is that already.
pub(super) fn as_float(name: &str, arg: Typed) -> Result<Typed> {
    match &arg.data_type {
        DataType::Float64 | DataType::Float32 => Ok(arg),
        DataType::Null | DataType::Boolean => arg.coerce(&DataType::Float64),
        t if is_number(t) || is_decimal(t) => arg.coerce(&DataType::Float64),
        _ => Err(needs(name, "a number", &arg)),
    }
}

/// A kernel of one array.
pub(super) fn mapped(f: impl Fn(&ArrayRef) -> Result<ArrayRef> + Send + Sync + 'static) -> Kernel {
    Arc::new(move |args, _| args[0].map(&f))
}

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
    let kernel = mapped(move |array| {
        Ok(match array.data_type() {
            DataType::Float32 => {
                Arc::new(unary::<_, _, Float32Type>(array.as_primitive::<Float32Type>(), |x| f(f64::from(x)) as f32)) as ArrayRef
            }
            _ => Arc::new(unary::<_, _, Float64Type>(array.as_primitive::<Float64Type>(), f)),
        })
    });
    Typed::call(kernel, args, data_type, text)
}

/// `log(base)`; natural if there is no base.
fn log(name: &str, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let mut args: Vec<Typed> =
        args.into_iter().map(|arg| as_float(name, arg)?.coerce(&DataType::Float64)).collect::<Result<_>>()?;
    if args.len() == 1 {
        let kernel = mapped(|array| Ok(Arc::new(unary::<_, _, Float64Type>(array.as_primitive::<Float64Type>(), f64::ln)) as _));
        return Typed::call(kernel, args, DataType::Float64, text);
    }
    let base = args.pop().ok_or_else(|| Error::internal("log without a base"))?;
    args.push(base);
    let kernel: Kernel = Arc::new(|args, rows| {
        let (x, base) = (args[0].clone().into_array(rows)?, args[1].clone().into_array(rows)?);
        let result: Float64Array = binary(x.as_primitive::<Float64Type>(), base.as_primitive::<Float64Type>(), |x: f64, base: f64| {
            x.ln() / base.ln()
        })
        .map_err(crate::compiled::value::failed)?;
        Ok(crate::compiled::value::Value::Array(Arc::new(result)))
    });
    Typed::call(kernel, args, DataType::Float64, text)
}

fn pow(_: &str, mut args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    match (args.pop(), args.pop()) {
        (Some(exponent), Some(base)) => crate::compiled::arithmetic::bind(BinaryOp::Pow, base, exponent, text),
        _ => Err(Error::internal("pow without arguments")),
    }
}

/// Numbers in [0, 1) from the seed and the record's number alone, so that a generator read again gives the same.
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
