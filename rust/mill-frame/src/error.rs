//! The errors of frames.

use std::error::Error;
use std::fmt;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use crate::types::type_name;

/// Why a frame could not be made or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// A column has a type that frames or key hashes do not carry.
    Unsupported {
        /// What was asked for: "hash", "encode".
        operation: &'static str,
        /// The type in question.
        data_type: DataType,
    },
    /// Columns that belong together have different numbers of rows.
    Length {
        /// How many rows there should be.
        expected: usize,
        /// How many rows there are.
        found: usize,
    },
    /// The frame would be larger than a frame may be; cut the batch into smaller ones.
    TooLarge {
        /// How many bytes it would take.
        bytes: usize,
        /// How many bytes a frame may have.
        bytes_max: usize,
    },
    /// The frame was written with another schema than the one it is read with.
    Schema {
        /// Fingerprint of the schema it is read with.
        expected: u64,
        /// Fingerprint of the schema it was written with.
        found: u64,
    },
    /// The bytes are not a frame, or not an undamaged one.
    Corrupt {
        /// What does not hold.
        what: String,
    },
    /// An index into tasks, columns or rows is out of range.
    OutOfRange {
        /// What the index is of.
        what: &'static str,
        /// The index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// Columns that no stream carries: two of one name, types that nest too deep.
    Columns {
        /// What is wrong with them.
        what: String,
    },
    /// Arrow refused.
    Arrow(ArrowError),
}

impl FrameError {
    pub(crate) fn corrupt(what: impl Into<String>) -> FrameError {
        FrameError::Corrupt { what: what.into() }
    }

    /// Whether it is the bytes that are at fault, not the call.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, FrameError::Corrupt { .. } | FrameError::Schema { .. })
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Unsupported { operation, data_type } => {
                write!(f, "cannot {operation} a column of type {}; cast it to another type first", type_name(data_type))
            }
            FrameError::Length { expected, found } => write!(f, "expected {expected} rows, found {found}"),
            FrameError::TooLarge { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes is larger than the limit of {bytes_max}; use smaller batches")
            }
            FrameError::Schema { expected, found } => {
                write!(f, "the frame has schema {found:016x}, but {expected:016x} was expected")
            }
            FrameError::Corrupt { what } => write!(f, "damaged frame: {what}"),
            FrameError::OutOfRange { what, index, count } => {
                write!(f, "{what} {index} is out of range: there are {count}")
            }
            FrameError::Columns { what } => f.write_str(what),
            FrameError::Arrow(error) => write!(f, "arrow: {error}"),
        }
    }
}

impl Error for FrameError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            FrameError::Arrow(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ArrowError> for FrameError {
    fn from(error: ArrowError) -> FrameError {
        FrameError::Arrow(error)
    }
}
