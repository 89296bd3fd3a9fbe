//! The time of the clock as a column.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, TimeUnit};
use mill_protocol::{Result, shown_time};

use crate::function::{ColumnFunction, Rung};

const ZONE: &str = "UTC";

/// What time it is when a batch passes: one time for all its records.
///
/// It is a function like those of users: its result is not the same each time, so it must neither be computed beforehand
/// nor be moved or repeated.
#[derive(Debug)]
pub(crate) struct Now;

impl ColumnFunction for Now {
    fn name(&self) -> String {
        "now".to_owned()
    }

    fn return_type(&self, _args: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())))
    }

    fn call(&self, _args: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let times = TimestampMicrosecondArray::from_value(shown_time(), rows);
        Ok(Arc::new(times.with_timezone(ZONE)))
    }

    fn rung(&self) -> Rung {
        Rung::Native
    }

    fn is_builtin(&self) -> bool {
        true
    }
}
