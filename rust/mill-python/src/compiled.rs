//! Column functions compiled to machine code (`udf(compiled=True)`): called over whole columns, without the interpreter.
//!
//! ```text
//!   adapter.address(types)  ──numba──►  i64 loop(n, columns: *const *const u8, out: *mut u8)
//!                                        -1: all rows done; i: row i raised
//!
//!   columns ─exact─► 64 bits ─► loop ─► 64 bits ─exact─► declared type
//! ```
//!
//! As in the interpreter, all integers are computed as wide ones and all floats as doubles: arguments are widened before
//! the call, and results are converted to the declared type exactly ([`mill_frame::convert`]) or refused. Rows with a null
//! argument are left out before the call and null in the result.
//!
//! Invariant of the unsafe call: an address is used only with columns of the very types it was made for, all of the length
//! that is passed, and an output of the type that came with the address and that length; the adapter keeps the machine
//! code alive as long as the function lives.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayData, ArrayRef, BooleanArray, UInt32Array, make_array, new_null_array};
use arrow::buffer::{BooleanBuffer, MutableBuffer, NullBuffer};
use arrow::compute::{cast, filter, take};
use arrow::datatypes::{DataType, Field};
use mill_frame::convert::{Inexact, exact};
use mill_plan::{ColumnFunction, Rung};
use mill_protocol::{Error, Result};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::attach::{attach, call_method};
use crate::error;
use crate::expr::RawExpr;
use crate::to_python::column_to_list;
use crate::types::PyDataType;

/// The loop that numba compiles.
type Loop = unsafe extern "C" fn(i64, *const *const u8, *mut u8) -> i64;

/// A compiled function of values.
struct CompiledFunction {
    name: String,
    /// `address(types)` and `again(values)`.
    adapter: Py<PyAny>,
    returns: Field,
    loops: Mutex<HashMap<Vec<DataType>, Compiled>>,
}

/// A loop in machine code.
#[derive(Clone)]
struct Compiled {
    address: usize,
    /// The type of its results: a truth value, or a number of 64 bits.
    results: DataType,
}

impl fmt::Debug for CompiledFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The type in which compiled code takes values of a type; `None` for types that it does not take.
fn widened(data_type: &DataType) -> Option<DataType> {
    match data_type {
        DataType::Boolean => Some(DataType::Boolean),
        other if other.is_integer() => Some(DataType::Int64),
        other if other.is_floating() => Some(DataType::Float64),
        _ => None,
    }
}

/// The name of such a type in numpy.
fn numpy_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "bool_",
        DataType::Int64 => "int64",
        _ => "float64",
    }
}

/// How many bytes a value has for compiled code; a truth value has one.
fn width(data_type: &DataType) -> usize {
    data_type.primitive_width().unwrap_or(1)
}

fn arrow_error(error: arrow::error::ArrowError) -> Error {
    Error::internal(format!("arrow: {error}"))
}

impl CompiledFunction {
    /// The loop for arguments of these types, compiled when first asked for.
    fn compiled(&self, types: &[DataType]) -> Result<Compiled> {
        let wide = types.iter().map(|data_type| self.wide(data_type)).collect::<Result<Vec<_>>>()?;
        if let Some(known) = self.loops.lock().get(&wide) {
            return Ok(known.clone());
        }
        let names: Vec<&str> = wide.iter().map(numpy_name).collect();
        let (address, kind) = attach(|py| {
            let found = call_method(self.adapter.bind(py), "address", (names,));
            found.and_then(|found| found.extract::<(usize, String)>()).map_err(|exception| {
                Error::plan(format!("{} cannot be compiled: {}", self.name, error::describe(py, &exception))).because(exception)
            })
        })?;
        let results = match kind.as_str() {
            "bool_" => DataType::Boolean,
            "int64" => DataType::Int64,
            "uint64" => DataType::UInt64,
            _ => DataType::Float64,
        };
        let returns = self.returns.data_type();
        self.wide(returns)?;
        if (returns == &DataType::Boolean) != (results == DataType::Boolean) {
            let (returns, results) = (mill_plan::type_name(returns), mill_plan::type_name(&results));
            return Err(Error::schema(format!("{} returns {results}, not {returns}; change returns=", self.name)));
        }
        let compiled = Compiled { address, results };
        self.loops.lock().insert(wide, compiled.clone());
        Ok(compiled)
    }

    fn wide(&self, data_type: &DataType) -> Result<DataType> {
        widened(data_type).ok_or_else(|| {
            Error::schema(format!(
                "{} is compiled and takes numbers and truth values, not {}; leave compiled=True out",
                self.name,
                mill_plan::type_name(data_type)
            ))
        })
    }

    /// The arguments as compiled code reads them: truth values take a byte, numbers 64 bits.
    fn argument(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let to = match self.wide(array.data_type())? {
            DataType::Boolean => return cast(array, &DataType::UInt8).map_err(arrow_error),
            wide => wide,
        };
        exact(array, &to).map_err(|inexact| {
            Error::data(format!("{} is compiled and cannot take {}: it {}", self.name, inexact.value, inexact.reason))
        })
    }

    fn misfit(&self, inexact: &Inexact) -> Error {
        let message = format!(
            "column {:?} is {} and cannot hold {}: it {}",
            self.returns.name(),
            mill_plan::type_name(self.returns.data_type()),
            inexact.value,
            inexact.reason
        );
        error::misfit(&self.name, &message)
    }

    /// What the interpreter says of the row at which compiled code raised.
    fn failure(&self, args: &[ArrayRef], row: usize) -> Error {
        attach(|py| {
            let value = |array: &ArrayRef| {
                let field = Field::new("value", array.data_type().clone(), true);
                column_to_list(py, &array.slice(row, 1), &field).and_then(|list| list.get_item(0))
            };
            let values: PyResult<Vec<_>> = args.iter().map(value).collect();
            let again = values.and_then(|values| {
                let shown = error::repr_text(PyList::new(py, &values)?.as_any());
                Ok((call_method(self.adapter.bind(py), "again", (values,)), shown))
            });
            match again {
                Ok((Err(exception), _)) | Err(exception) => error::from_python(py, exception, &self.name),
                Ok((Ok(_), shown)) => Error::data(format!(
                    "{} raised in compiled code, whose numbers have 64 bits, for {shown}; leave compiled=True out",
                    self.name
                )),
            }
        })
    }
}

impl ColumnFunction for CompiledFunction {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        self.compiled(args)?;
        Ok(self.returns.data_type().clone())
    }

    fn call(&self, args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let types: Vec<DataType> = args.iter().map(|array| array.data_type().clone()).collect();
        let compiled = self.compiled(&types)?;
        let nulls = args.iter().fold(None, |nulls, array| NullBuffer::union(nulls.as_ref(), array.nulls()));
        let nulls = nulls.filter(|nulls| nulls.null_count() > 0);
        let kept: Vec<ArrayRef> = match &nulls {
            None => args.to_vec(),
            Some(nulls) => {
                let mask = BooleanArray::new(nulls.inner().clone(), None);
                args.iter().map(|array| filter(array, &mask).map_err(arrow_error)).collect::<Result<_>>()?
            }
        };
        let count = nulls.as_ref().map_or(rows, |nulls| rows - nulls.null_count());
        if count == 0 {
            return Ok(new_null_array(self.returns.data_type(), rows));
        }
        let columns: Vec<ArrayRef> = kept.iter().map(|array| self.argument(array)).collect::<Result<_>>()?;
        let data: Vec<_> = columns.iter().map(|array| array.to_data()).collect();
        let pointers: Vec<*const u8> = data
            .iter()
            .zip(&columns)
            .map(|(data, array)| {
                assert!(array.len() == count, "a column has {} rows of {count}", array.len());
                let width = width(array.data_type());
                data.buffers()[0].as_slice()[data.offset() * width..][..count * width].as_ptr()
            })
            .collect();
        let mut out = MutableBuffer::from_len_zeroed(count * width(&compiled.results));
        // SAFETY: the adapter made the address for these argument types and this result type, and keeps the code alive.
        let run = unsafe { std::mem::transmute::<usize, Loop>(compiled.address) };
        // SAFETY: every pointer is to `count` values of the type the code was made for, as sliced above; `out` has room
        // for `count` results; the code reads and writes nothing else.
        let failed = unsafe { run(count as i64, pointers.as_ptr(), out.as_mut_ptr()) };
        if failed >= 0 {
            return Err(self.failure(&kept, failed as usize));
        }
        let results = results(&compiled.results, out, count)?;
        let results = exact(&results, self.returns.data_type()).map_err(|inexact| self.misfit(&inexact))?;
        let Some(nulls) = nulls else { return Ok(results) };
        let mut next = 0;
        let places = nulls.iter().map(|is_there| {
            is_there.then(|| {
                next += 1;
                next - 1
            })
        });
        take(&results, &UInt32Array::from_iter(places), None).map_err(arrow_error)
    }

    fn rung(&self) -> Rung {
        Rung::Compiled
    }
}

/// What compiled code has written, as a column.
fn results(data_type: &DataType, out: MutableBuffer, count: usize) -> Result<ArrayRef> {
    if data_type == &DataType::Boolean {
        let bytes = out.as_slice();
        let values = BooleanBuffer::collect_bool(count, |row| bytes[row] != 0);
        return Ok(Arc::new(BooleanArray::new(values, None)));
    }
    let data = ArrayData::builder(data_type.clone()).len(count).add_buffer(out.into()).build();
    data.map(make_array).map_err(arrow_error)
}

/// Calls a compiled `udf` in an expression.
#[pyfunction]
pub fn compiled_function(
    name: String,
    adapter: Py<PyAny>,
    returns: PyRef<'_, PyDataType>,
    args: Vec<PyRef<'_, RawExpr>>,
) -> RawExpr {
    let returns = returns.named(&name);
    let function = CompiledFunction { name, adapter, returns, loops: Mutex::default() };
    RawExpr::of_function(Arc::new(function), &args)
}
