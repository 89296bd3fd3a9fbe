//! What functions ask of their arguments.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::ScalarValue;
use datafusion_common::config::ConfigOptions;
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use mill_protocol::{Error, Result};

use crate::compiled::Kernel;
use crate::compiled::bind::Typed;
use crate::compiled::value::{One, Value, refused};
use crate::types::{is_decimal, is_number, is_string};

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

/// A string in Arrow's plain form.
pub(super) fn as_string(name: &str, arg: Typed) -> Result<Typed> {
    match &arg.data_type {
        t if is_string(t) => arg.coerce(&DataType::Utf8),
        DataType::Null => arg.coerce(&DataType::Utf8),
        DataType::Dictionary(_, values) if is_string(values) => arg.coerce(&DataType::Utf8),
        _ => Err(needs(name, "a string", &arg)),
    }
}

/// A list in Arrow's plain form, and the type of its elements.
pub(super) fn as_list(name: &str, arg: Typed) -> Result<(Typed, DataType)> {
    match &arg.data_type {
        DataType::List(field) => {
            let element = field.data_type().clone();
            Ok((arg, element))
        }
        DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            let (element, to) = (field.data_type().clone(), DataType::List(Arc::clone(field)));
            Ok((arg.coerce(&to)?, element))
        }
        _ => Err(needs(name, "a list", &arg)),
    }
}

/// An integer as int64.
pub(super) fn as_int64(name: &str, arg: Typed) -> Result<Typed> {
    match &arg.data_type {
        DataType::Null => arg.coerce(&DataType::Int64),
        t if t.is_integer() => arg.coerce(&DataType::Int64),
        _ => Err(needs(name, "an integer", &arg)),
    }
}

/// An argument that must be the same for all rows.
fn constant<'a>(name: &str, what: &str, arg: &'a Typed) -> Result<&'a ScalarValue> {
    arg.constant.as_ref().ok_or_else(|| {
        Error::plan(format!("{name}() needs a constant for its {what}, found {}", arg.describe()))
    })
}

/// A constant string; `None` if it is null.
pub(super) fn constant_str(name: &str, what: &str, arg: &Typed) -> Result<Option<String>> {
    let value = constant(name, what, arg)?;
    match value {
        value if value.is_null() => Ok(None),
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            Ok(Some(text.clone()))
        }
        _ => Err(needs(name, &format!("a string for its {what}"), arg)),
    }
}

/// A constant integer; `None` if it is null.
pub(super) fn constant_int(name: &str, what: &str, arg: &Typed) -> Result<Option<i64>> {
    let value = constant(name, what, arg)?;
    if value.is_null() {
        return Ok(None);
    }
    match value.cast_to(&DataType::Int64) {
        Ok(ScalarValue::Int64(Some(number))) if value.data_type().is_integer() => Ok(Some(number)),
        _ => Err(needs(name, &format!("an integer for its {what}"), arg)),
    }
}

/// A constant truth value, false if there is none.
pub(super) fn constant_bool(name: &str, what: &str, arg: Option<&Typed>, default: bool) -> Result<bool> {
    let Some(arg) = arg else { return Ok(default) };
    match constant(name, what, arg)? {
        ScalarValue::Boolean(Some(value)) => Ok(*value),
        value if value.is_null() => Ok(default),
        _ => Err(needs(name, &format!("True or False for its {what}"), arg)),
    }
}

/// The only argument, or the first.
pub(super) fn first(args: Vec<Typed>) -> Result<Typed> {
    args.into_iter().next().ok_or_else(|| Error::internal("a function was bound without arguments"))
}

/// A kernel of one array that returns as many values.
pub(super) fn mapped(f: impl Fn(&ArrayRef) -> Result<ArrayRef> + Send + Sync + 'static) -> Kernel {
    Arc::new(move |args, _| args[0].map(&f))
}

/// A kernel of several arrays of one length that returns as many values.
pub(super) fn zipped(f: impl Fn(&[ArrayRef]) -> Result<ArrayRef> + Send + Sync + 'static) -> Kernel {
    Arc::new(move |args, rows| {
        let is_array = args.iter().any(Value::is_array);
        let rows = if is_array { rows } else { 1 };
        let arrays = args.iter().map(|arg| arg.clone().into_array(rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let result = f(&arrays)?;
        Ok(if is_array { Value::Array(result) } else { Value::Scalar(One::new(result)) })
    })
}

/// A function of DataFusion over arguments of types that it takes.
pub(super) fn of_datafusion(udf: &Arc<ScalarUDF>, args: Vec<Typed>, text: &Arc<str>) -> Result<Typed> {
    let fields: Vec<FieldRef> =
        args.iter().map(|arg| Arc::new(Field::new("arg", arg.data_type.clone(), true))).collect();
    let constants: Vec<Option<&ScalarValue>> = args.iter().map(|arg| arg.constant.as_ref()).collect();
    let asked = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &constants };
    let return_field = udf.return_field_from_args(asked).map_err(|error| Error::schema(refused(error).message()))?;
    let data_type = return_field.data_type().clone();
    let options = Arc::new(ConfigOptions::default());
    let udf = Arc::clone(udf);
    let kernel: Kernel = Arc::new(move |values, rows| {
        let is_array = values.iter().any(Value::is_array);
        let number_rows = if is_array { rows } else { 1 };
        let args = values
            .iter()
            .map(|value| match value {
                Value::Array(array) => Ok(ColumnarValue::Array(Arc::clone(array))),
                one => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(one.values(), 0).map_err(refused)?)),
            })
            .collect::<Result<Vec<_>>>()?;
        let call = ScalarFunctionArgs {
            args,
            arg_fields: fields.clone(),
            number_rows,
            return_field: Arc::clone(&return_field),
            config_options: Arc::clone(&options),
        };
        let array = udf.invoke_with_args(call).and_then(|value| value.into_array(number_rows)).map_err(refused)?;
        Ok(if is_array { Value::Array(array) } else { Value::Scalar(One::new(array)) })
    });
    Typed::call(kernel, args, data_type, text)
}
