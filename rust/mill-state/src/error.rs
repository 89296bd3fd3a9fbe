//! The errors of keyed state.

use std::fmt;

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use mill_frame::FrameError;
use mill_frame::types::type_name;

/// A failure of a state table. The world's fault, never a bug: bugs panic.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// A column of this type cannot be a key.
    KeyType(DataType),
    /// A key is longer than a table can hold.
    KeyTooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        bytes_max: usize,
    },
    /// A key with its value is longer than a sorted table can hold.
    ValueTooLong {
        /// How long they are.
        bytes: usize,
        /// How long they may be.
        bytes_max: usize,
    },
    /// A row would need more bytes than a table can hold.
    RowTooLarge {
        /// How many words of 8 bytes it would need.
        words: usize,
    },
    /// A block from a checkpoint was written with another row layout: the keys' types or the aggregates differ.
    Layout {
        /// The fingerprint the table expects.
        expected: u64,
        /// The fingerprint the block has.
        found: u64,
    },
    /// A block from a checkpoint was written by another version of the format.
    Version {
        /// The version the block has.
        found: u32,
        /// The version this build reads.
        expected: u32,
    },
    /// A part of what a checkpoint holds is written in another version of its encoding.
    Encoding {
        /// The encoding.
        of: String,
        /// The version the checkpoint has; 0 if it has none.
        found: u32,
        /// The version this build reads; 0 if it does not know the encoding.
        expected: u32,
    },
    /// The states of a checkpoint are not those that the step declares.
    States {
        /// Declared, and not in the checkpoint.
        missing: Vec<String>,
        /// In the checkpoint, and not declared.
        unknown: Vec<String>,
    },
    /// What a checkpoint says of a step's states contradicts itself or the step.
    Description(String),
    /// A block from a checkpoint contradicts itself, though its checksum holds.
    Damaged {
        /// The key group of the block.
        group: u16,
        /// The chunk of the block.
        chunk: u32,
        /// What is wrong with it.
        what: String,
    },
    /// Keys could not be turned into columns or back.
    Arrow(ArrowError),
    /// Keys could not be hashed.
    Hash(String),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StateError::KeyType(data_type) => write!(f, "a column of type {} cannot be a key; cast it first", type_name(data_type)),
            StateError::KeyTooLong { bytes, bytes_max } => {
                write!(f, "a key of {bytes} bytes is longer than the {bytes_max} a key may have; use a hash of it")
            }
            StateError::ValueTooLong { bytes, bytes_max } => {
                write!(f, "a key and its value have {bytes} bytes, more than the {bytes_max} that state can hold; keep less per key")
            }
            StateError::RowTooLarge { words } => {
                write!(f, "a row of state needs {} bytes, more than fits; use fewer aggregates in one step", words * 8)
            }
            StateError::Layout { expected, found } => write!(
                f,
                "the checkpoint's rows have layout {found:016x}, this step's have {expected:016x}: its keys or aggregates \
                 have changed; give the step another name to start it empty"
            ),
            StateError::Version { found, expected } => {
                write!(f, "the checkpoint's state has format version {found}, this build reads version {expected}")
            }
            StateError::Encoding { of, found, expected } => write!(
                f,
                "the checkpoint's state has {of} of version {found}, this build reads version {expected}; use the version of \
                 millstream that wrote it"
            ),
            StateError::States { missing, unknown } => {
                let list = |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
                write!(f, "the checkpoint was written by another version of this step:")?;
                if !unknown.is_empty() {
                    write!(f, " it has the states {}, which the step does not know", list(unknown))?;
                }
                if !missing.is_empty() {
                    let and = if unknown.is_empty() { "" } else { ", and" };
                    write!(f, "{and} it lacks the states {}", list(missing))?;
                }
                write!(f, "; give the step another name to start it empty")
            }
            StateError::Description(what) => {
                write!(f, "what the checkpoint says of the states of this step does not hold: {what}")
            }
            StateError::Damaged { group, chunk, what } => {
                write!(f, "state of key group {group}, chunk {chunk:#x} is damaged: {what}")
            }
            StateError::Arrow(error) => write!(f, "{error}"),
            StateError::Hash(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StateError::Arrow(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ArrowError> for StateError {
    fn from(error: ArrowError) -> StateError {
        StateError::Arrow(error)
    }
}

impl From<FrameError> for StateError {
    fn from(error: FrameError) -> StateError {
        match error {
            FrameError::Arrow(error) => StateError::Arrow(error),
            other => StateError::Hash(other.to_string()),
        }
    }
}

/// The result of what a state table does.
pub type Result<T> = std::result::Result<T, StateError>;
