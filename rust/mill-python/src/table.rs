//! Results as Python holds them: batches of records in memory, handed on through Arrow's C interface.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StructArray};
use arrow::datatypes::{Field, SchemaRef};
use mill_frame::schema::holds_objects;
use mill_frame::text::{record_json, shortened};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyList, PyString};
use pyo3_arrow::PyRecordBatch;
use pyo3_arrow::ffi::{ArrayIterator, to_stream_pycapsule};

use crate::error::SchemaError;
use crate::from_python::rows_to_batch;
use crate::polars;
use crate::to_python::column_to_list;
use crate::types::RawSchema;

/// Records in memory.
#[pyclass(frozen, skip_from_py_object, module = "millstream._millstream")]
#[derive(Debug)]
pub struct RawTable {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl RawTable {
    /// These batches as a table.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> RawTable {
        RawTable { schema, batches }
    }

    /// Columns and batches; batches are shared, not copied.
    pub fn parts(&self) -> (SchemaRef, Vec<RecordBatch>) {
        (Arc::clone(&self.schema), self.batches.clone())
    }
}

#[pymethods]
impl RawTable {
    fn schema(&self) -> RawSchema {
        RawSchema { schema: Arc::clone(&self.schema) }
    }

    fn __len__(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn nbytes(&self) -> usize {
        self.batches.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// Returns the places of the columns that hold Python objects, at any depth.
    fn object_columns(&self) -> Vec<usize> {
        let fields = self.schema.fields().iter().enumerate();
        fields.filter(|(_, field)| holds_objects(field)).map(|(place, _)| place).collect()
    }

    /// Returns the columns at these places as a table of their own, without a copy.
    fn select(&self, places: Vec<usize>) -> PyResult<RawTable> {
        let failed = |error: arrow::error::ArrowError| PyIndexError::new_err(error.to_string());
        let schema = Arc::new(self.schema.project(&places).map_err(failed)?);
        let batches: Result<Vec<_>, _> = self.batches.iter().map(|batch| batch.project(&places)).collect();
        Ok(RawTable { schema, batches: batches.map_err(failed)? })
    }

    /// Refuses columns that Polars would change, or that it has no type for.
    fn check_for_polars(&self) -> PyResult<()> {
        polars::check(&self.schema, &self.batches)
    }

    /// Returns some rows as a table of their own, without a copy.
    fn slice(&self, offset: usize, length: usize) -> RawTable {
        let (mut skip, mut left) = (offset, length);
        let mut batches = Vec::new();
        for batch in &self.batches {
            if skip >= batch.num_rows() {
                skip -= batch.num_rows();
                continue;
            }
            let taken = (batch.num_rows() - skip).min(left);
            if taken == 0 {
                break;
            }
            batches.push(batch.slice(skip, taken));
            (skip, left) = (0, left - taken);
        }
        RawTable { schema: Arc::clone(&self.schema), batches }
    }

    /// Returns the rows as dicts.
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let out = PyList::empty(py);
        let fields = self.schema.fields();
        let names: Vec<Bound<'_, PyString>> = fields.iter().map(|field| PyString::intern(py, field.name())).collect();
        for batch in &self.batches {
            let columns: PyResult<Vec<_>> =
                batch.columns().iter().zip(fields).map(|(column, field)| column_to_list(py, column, field)).collect();
            let columns = columns?;
            for row in 0..batch.num_rows() {
                let value = PyDict::new(py);
                for (name, column) in names.iter().zip(&columns) {
                    value.set_item(name, column.get_item(row)?)?;
                }
                out.append(value)?;
            }
        }
        Ok(out)
    }

    /// One row as messages show records.
    fn row_text(&self, row: usize) -> PyResult<String> {
        let mut left = row;
        for batch in &self.batches {
            if left < batch.num_rows() {
                return Ok(shortened(&record_json(batch, left)).into_owned());
            }
            left -= batch.num_rows();
        }
        Err(PyIndexError::new_err(format!("no row {row}")))
    }

    /// Returns the values of one column.
    fn column<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyList>> {
        if index >= self.schema.fields().len() {
            return Err(PyIndexError::new_err(format!("no column {index}")));
        }
        let out = PyList::empty(py);
        for batch in &self.batches {
            let values = column_to_list(py, batch.column(index), self.schema.field(index))?;
            out.call_method1("extend", (values,))?;
        }
        Ok(out)
    }

    /// Returns the batches as `pyarrow.RecordBatch`.
    fn batches<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let batches: PyResult<Vec<_>> =
            self.batches.iter().map(|batch| PyRecordBatch::new(batch.clone()).into_pyarrow(py)).collect();
        PyList::new(py, batches?)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let field = struct_field(&self.schema);
        let arrays: Vec<Result<ArrayRef, arrow::error::ArrowError>> =
            self.batches.iter().map(|batch| Ok(Arc::new(StructArray::from(batch.clone())) as ArrayRef)).collect();
        let reader = Box::new(ArrayIterator::new(arrays, Arc::new(field)));
        Ok(to_stream_pycapsule(py, reader, requested_schema)?)
    }
}

fn struct_field(schema: &SchemaRef) -> Field {
    Field::new_struct("", schema.fields().clone(), false).with_metadata(schema.metadata().clone())
}

/// Makes a table of Python records, and refuses the first that does not fit.
#[pyfunction]
pub fn rows_to_table(schema: PyRef<'_, RawSchema>, rows: &Bound<'_, PyList>) -> PyResult<RawTable> {
    let batch = rows_to_batch(rows, &schema.schema)
        .map_err(|misfit| SchemaError::new_err(format!("record {}: {}", misfit.row, misfit.message)))?;
    Ok(RawTable::new(Arc::clone(&schema.schema), vec![batch]))
}
