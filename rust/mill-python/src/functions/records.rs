//! Functions that are called once a record: `map`, `flat_map`, `filter`, `inspect`.
//!
//! A record that fails (the function raises, its result does not fit the schema, Python cannot hold one of its values) is
//! rejected by itself; the others of its frame go on.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use mill_frame::text::record_json;
use mill_plan::{BatchFunction, Origin, Rung, UserCall, UserOutput, UserPieces, UserStepKind};
use mill_protocol::{Error, Progress, Rejected, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyIterator, PyList};

use super::{Adapter, arrow_error, lists};
use crate::attach::{attach, call};
use crate::error;
use crate::from_python::rows_to_batch;

/// What an adapter returns: results (of a filter: whether each row stays), the row each stems from (row by row if
/// absent), and the rows that raised.
type Answer<'py> = (Bound<'py, PyList>, Option<Vec<u32>>, Vec<(usize, Bound<'py, PyAny>)>);

/// An [`Answer`] of a function that makes many records of one, and whether it is the last.
type Piece<'py> = (Bound<'py, PyList>, Option<Vec<u32>>, Vec<(usize, Bound<'py, PyAny>)>, bool);

/// The rows for which a filter returned something true; `origin` holds the row of each answer.
fn kept(answers: &Bound<'_, PyList>, origin: Option<&[u32]>) -> PyResult<UInt32Array> {
    let mut rows = Vec::with_capacity(answers.len());
    for (place, answer) in answers.iter().enumerate() {
        let is_kept = match answer.cast_exact::<PyBool>() {
            Ok(answer) => answer.is_true(),
            Err(_) => answer.is_truthy()?,
        };
        if is_kept {
            rows.push(origin.map_or(place as u32, |origin| origin[place]));
        }
    }
    Ok(UInt32Array::from(rows))
}

/// A function that is called once a record.
#[derive(Clone, Debug)]
pub struct RecordFunction {
    adapter: Arc<Adapter>,
    kind: UserStepKind,
    schema: SchemaRef,
    /// Which columns of the input the function can see, if that is known.
    used: Option<Vec<bool>>,
}

/// The records of a frame that a function is called with.
#[derive(Clone)]
struct Given {
    batch: RecordBatch,
    /// Which rows of the frame they are, where some were left out.
    rows: Option<UInt32Array>,
}

impl Given {
    /// What stems from these records, as of the rows of the whole frame.
    fn origin(&self, origin: Origin) -> Result<Origin> {
        let Some(rows) = &self.rows else { return Ok(origin) };
        Ok(match origin {
            Origin::Same => Origin::Rows(rows.clone()),
            Origin::Rows(places) => {
                let taken = take(rows, &places, None).map_err(arrow_error)?;
                Origin::Rows(UInt32Array::from(taken.to_data()))
            }
            Origin::Unknown => Origin::Unknown,
        })
    }
}

impl RecordFunction {
    /// Makes a step of this kind of an adapter; `used` marks the columns that it asks for.
    pub fn new(
        name: String,
        call: Py<PyAny>,
        kind: UserStepKind,
        schema: SchemaRef,
        used: Option<Vec<bool>>,
    ) -> RecordFunction {
        RecordFunction { adapter: Arc::new(Adapter { name, call }), kind, schema, used }
    }

    fn failed(&self, py: Python<'_>, exception: PyErr) -> Error {
        error::from_python(py, exception, &self.adapter.name)
    }

    /// The columns of a frame as Python's values. Records with a value that Python cannot hold are rejected.
    fn readable<'py>(
        &self,
        py: Python<'py>,
        batch: &RecordBatch,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(Given, Bound<'py, PyList>)> {
        let used = self.used.as_deref();
        if let Ok(lists) = lists(py, batch, used) {
            return Ok((Given { batch: batch.clone(), rows: None }, lists));
        }
        let mut rows = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            match lists(py, &batch.slice(row, 1), used) {
                Ok(_) => rows.push(row as u32),
                Err(exception) => rejected.push(Rejected {
                    error: format!("{} cannot be called: {}", self.adapter.name, error::message(py, &exception)),
                    record: record_json(batch, row),
                    ..Rejected::default()
                }),
            }
        }
        let rows = UInt32Array::from(rows);
        let batch = take_record_batch(batch, &rows).map_err(arrow_error)?;
        let lists = lists(py, &batch, used).map_err(|exception| self.failed(py, exception))?;
        Ok((Given { batch, rows: Some(rows) }, lists))
    }

    /// Turns an answer into an output; what raised and what does not fit is rejected one by one.
    fn output(
        &self,
        py: Python<'_>,
        given: &Given,
        (values, origin, failures): Answer<'_>,
        mut rejected: Vec<Rejected>,
    ) -> Result<UserOutput> {
        for (row, exception) in failures {
            let record = record_json(&given.batch, row);
            rejected.push(error::rejected(py, &self.adapter.name, PyErr::from_value(exception), record));
        }
        let rows = match self.kind {
            UserStepKind::Filter => {
                Some(kept(&values, origin.as_deref()).map_err(|exception| self.failed(py, exception))?)
            }
            UserStepKind::Inspect => Some(match &origin {
                Some(rows) => UInt32Array::from(rows.clone()),
                None => (0..given.batch.num_rows() as u32).collect::<Vec<_>>().into(),
            }),
            _ => None,
        };
        if let Some(rows) = rows {
            let data = take_record_batch(&given.batch, &rows).map_err(arrow_error)?;
            return Ok(UserOutput { data, origin: given.origin(Origin::Rows(rows))?, rejected });
        }
        let (data, origin) = self.convert(py, &given.batch, &values, origin, &mut rejected)?;
        let origin = origin.map_or(Origin::Same, |rows| Origin::Rows(UInt32Array::from(rows)));
        Ok(UserOutput { data, origin: given.origin(origin)?, rejected })
    }

    /// Turns results into columns; those that don't fit are rejected one by one.
    fn convert(
        &self,
        py: Python<'_>,
        batch: &RecordBatch,
        values: &Bound<'_, PyList>,
        origin: Option<Vec<u32>>,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(RecordBatch, Option<Vec<u32>>)> {
        if let Ok(data) = rows_to_batch(values, &self.schema) {
            return Ok((data, origin));
        }
        let mut parts = vec![RecordBatch::new_empty(Arc::clone(&self.schema))];
        let mut kept = Vec::new();
        for (place, value) in values.iter().enumerate() {
            let row = origin.as_ref().map_or(place as u32, |origin| origin[place]);
            let one = PyList::new(py, [value]).map_err(|exception| self.failed(py, exception))?;
            match rows_to_batch(&one, &self.schema) {
                Ok(part) => {
                    parts.push(part);
                    kept.push(row);
                }
                Err(misfit) => {
                    let error = format!("{} returned a result that does not fit: {}", self.adapter.name, misfit.message);
                    let cause: PyErr = error::SchemaError::new_err(misfit.message);
                    rejected.push(Rejected {
                        error,
                        traceback: String::new(),
                        record: record_json(batch, row as usize),
                        cause: Some(Arc::new(cause)),
                    });
                }
            }
        }
        Ok((concat_batches(&self.schema, &parts).map_err(arrow_error)?, Some(kept)))
    }
}

impl BatchFunction for RecordFunction {
    fn name(&self) -> String {
        self.adapter.name.clone()
    }

    fn call(&self, batch: &RecordBatch) -> Result<UserCall> {
        attach(|py| {
            let mut rejected = Vec::new();
            let (given, lists) = self.readable(py, batch, &mut rejected)?;
            let called = call(self.adapter.call.bind(py), (lists, given.batch.num_rows()));
            let called = called.map_err(|exception| self.failed(py, exception))?;
            if self.kind == UserStepKind::FlatMap {
                let pieces = called.cast_into::<PyIterator>().map_err(|error| self.failed(py, error.into()))?.unbind();
                return Ok(UserCall::Pieces(Box::new(Pieces { function: self.clone(), given, pieces, rejected })));
            }
            let answer = called.extract::<Answer<'_>>().map_err(|exception| self.failed(py, exception))?;
            if self.kind == UserStepKind::Inspect && answer.1.is_none() && given.rows.is_none() {
                return Ok(UserCall::Whole(UserOutput { data: batch.clone(), origin: Origin::Same, rejected }));
            }
            self.output(py, &given, answer, rejected).map(UserCall::Whole)
        })
    }

    fn rung(&self) -> Rung {
        Rung::Record
    }
}

/// The results of a function that makes many records of one, made as they are asked for.
struct Pieces {
    function: RecordFunction,
    given: Given,
    /// Yields a [`Piece`] at a time.
    pieces: Py<PyIterator>,
    /// The records that could not be given to the function; they go with the first piece.
    rejected: Vec<Rejected>,
}

impl UserPieces for Pieces {
    fn next(&mut self) -> Result<(UserOutput, Progress)> {
        attach(|py| {
            let mut pieces = self.pieces.bind(py).clone();
            let piece = pieces.next().unwrap_or_else(|| Err(error::MillstreamError::new_err("no piece is left")));
            let piece = piece.and_then(|piece| piece.extract::<Piece<'_>>());
            let (values, origin, failures, is_last) = piece.map_err(|exception| self.function.failed(py, exception))?;
            let rejected = std::mem::take(&mut self.rejected);
            let output = self.function.output(py, &self.given, (values, origin, failures), rejected)?;
            Ok((output, if is_last { Progress::Done } else { Progress::More }))
        })
    }
}
