//! What kernels take and give: an array, or one value for all rows.

use arrow::array::{Array, ArrayRef, BooleanArray, Datum, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, prep_null_mask_filter, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::util::display::FormatOptions;
use datafusion_common::ScalarValue;
use mill_frame::convert::{Inexact, show};
use mill_protocol::{Error, Result};

/// A cast in which a value that does not fit is an error.
pub(crate) const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FORMAT };
const FORMAT: FormatOptions<'static> = FormatOptions::new().with_display_error(false).with_null("None");

/// An array, or one value for all rows.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Array(ArrayRef),
    Scalar(One),
}

/// An array of one value that stands for all rows.
#[derive(Clone, Debug)]
pub(crate) struct One(ArrayRef);

impl One {
    pub(crate) fn new(array: ArrayRef) -> One {
        assert_eq!(array.len(), 1, "one value stands for all rows");
        One(array)
    }
}

impl Datum for One {
    fn get(&self) -> (&dyn Array, bool) {
        (self.0.as_ref(), true)
    }
}

impl Value {
    /// One value for all rows.
    pub(crate) fn scalar(value: &ScalarValue) -> Result<Value> {
        Ok(Value::Scalar(One::new(value.to_array().map_err(refused)?)))
    }

    /// What Arrow's kernels take.
    pub(crate) fn datum(&self) -> &dyn Datum {
        match self {
            Value::Array(array) => array,
            Value::Scalar(scalar) => scalar,
        }
    }

    /// The values that are there: all, or the one.
    pub(crate) fn values(&self) -> &ArrayRef {
        match self {
            Value::Array(array) => array,
            Value::Scalar(One(array)) => array,
        }
    }

    pub(crate) fn data_type(&self) -> &DataType {
        self.values().data_type()
    }

    pub(crate) fn is_array(&self) -> bool {
        matches!(self, Value::Array(_))
    }

    /// One value a row.
    pub(crate) fn into_array(self, rows: usize) -> Result<ArrayRef> {
        match self {
            Value::Array(array) => Ok(array),
            Value::Scalar(One(array)) if array.is_null(0) => Ok(new_null_array(array.data_type(), rows)),
            Value::Scalar(One(array)) => {
                let places = UInt32Array::from_value(0, rows);
                take(&array, &places, None).map_err(failed)
            }
        }
    }

    /// The same with the values put through `kernel`, which must keep their number.
    pub(crate) fn map(&self, kernel: impl FnOnce(&ArrayRef) -> Result<ArrayRef>) -> Result<Value> {
        let result = kernel(self.values())?;
        Ok(match self {
            Value::Array(_) => Value::Array(result),
            Value::Scalar(_) => Value::Scalar(One::new(result)),
        })
    }

    /// These rows.
    pub(crate) fn slice(&self, offset: usize, length: usize) -> Value {
        match self {
            Value::Array(array) => Value::Array(array.slice(offset, length)),
            Value::Scalar(scalar) => Value::Scalar(scalar.clone()),
        }
    }

    /// The value of a row as text, cut where it is long.
    pub(crate) fn format(&self, row: usize) -> String {
        let row = if self.is_array() { row } else { 0 };
        show(self.values(), row)
    }
}

/// The mask with null as false.
pub(crate) fn truths(mask: &BooleanArray) -> BooleanArray {
    if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() }
}

/// An error of Arrow's kernels as an error of a record.
pub(crate) fn failed(error: ArrowError) -> Error {
    match error {
        ArrowError::ArithmeticOverflow(text) => {
            let text = text.strip_prefix("Overflow happened on: ").unwrap_or(&text).to_owned();
            Error::data(format!("integer overflow: {text}"))
        }
        ArrowError::CastError(text) | ArrowError::ComputeError(text) | ArrowError::ParseError(text) => {
            Error::data(lower_first(&text))
        }
        other => Error::data(lower_first(&other.to_string())),
    }
}

/// A value that cannot be converted as an error of a record.
pub(crate) fn inexact(found: Inexact) -> Error {
    Error::data(found.to_string())
}

/// An error of DataFusion's functions as an error of a record.
pub(crate) fn refused(error: datafusion_common::DataFusionError) -> Error {
    match error {
        datafusion_common::DataFusionError::ArrowError(error, _) => failed(*error),
        other => Error::data(lower_first(&other.strip_backtrace())),
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
