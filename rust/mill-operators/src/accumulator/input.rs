//! From a frame to the values of one aggregate.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use mill_plan::AggregateSpec;
use mill_protocol::{Error, Result};
use mill_state::StateError;

/// Where an aggregate finds its values.
#[derive(Clone, Debug)]
pub(super) struct Input {
    column: Option<usize>,
    filter: Option<usize>,
    name: String,
}

impl Input {
    pub(super) fn of(spec: &AggregateSpec) -> Input {
        Input { column: spec.input, filter: spec.filter, name: spec.name.clone() }
    }

    /// Whether there are values; without, rows are counted.
    pub(super) fn has_values(&self) -> bool {
        self.column.is_some()
    }

    /// The column that is `offset` columns after the first one of the input, as this type.
    pub(super) fn column(&self, batch: &RecordBatch, offset: usize, as_type: &DataType) -> Result<ArrayRef> {
        let plain = self.plain(batch, offset)?;
        if plain.data_type() == as_type {
            return Ok(plain);
        }
        cast(&plain, as_type).map_err(|error| Error::schema(format!("aggregate {:?}: {error}", self.name)))
    }

    /// The column that is `offset` columns after the first one of the input.
    pub(super) fn plain(&self, batch: &RecordBatch, offset: usize) -> Result<ArrayRef> {
        let index = self.column.ok_or_else(|| Error::internal(format!("aggregate {:?} has no input", self.name)))? + offset;
        batch.columns().get(index).cloned().ok_or_else(|| {
            Error::internal(format!("aggregate {:?} reads column {index} of {}", self.name, batch.num_columns()))
        })
    }

    /// The records for which the filter holds; `None` for all.
    pub(super) fn filter(&self, batch: &RecordBatch) -> Result<Option<BooleanBuffer>> {
        let Some(filter) = self.filter else { return Ok(None) };
        let Some(array) = batch.column(filter).as_boolean_opt() else {
            return Err(Error::schema(format!("the filter of aggregate {:?} is not boolean", self.name)));
        };
        let holds = match array.nulls() {
            None => array.values().clone(),
            Some(nulls) => array.values() & nulls.inner(),
        };
        Ok((holds.count_set_bits() < holds.len()).then_some(holds))
    }

    /// The records whose value is not null and for which the filter holds; `None` for all.
    pub(super) fn mask(&self, batch: &RecordBatch, values: &dyn Array) -> Result<Option<BooleanBuffer>> {
        let valid = values.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        Ok(match (self.filter(batch)?, valid) {
            (None, None) => None,
            (Some(filter), None) => Some(filter),
            (None, Some(nulls)) => Some(nulls.inner().clone()),
            (Some(filter), Some(nulls)) => Some(&filter & nulls.inner()),
        })
    }
}

/// Whether a mask lets a record through.
#[inline(always)]
pub(super) fn passes(mask: Option<&BooleanBuffer>, record: usize) -> bool {
    mask.is_none_or(|mask| mask.value(record))
}

/// A failure of the state as one of the operator.
pub(crate) fn state_error(error: StateError) -> Error {
    match &error {
        StateError::Layout { .. } | StateError::Version { .. } | StateError::Damaged { .. } => {
            Error::checkpoint(error.to_string())
        }
        StateError::KeyType(_) | StateError::RowTooLarge { .. } => Error::schema(error.to_string()),
        _ => Error::data(error.to_string()),
    }
}
