//! Frames: immutable columnar batches of records, the form in which records are sent between threads and stored on disk.
//!
//! Two shapes of the same records:
//!
//! ```text
//!   Batch  ──encode / partition──►  Frame  ──decode (no copy)──►  Batch
//!   Arrow arrays, inside a chain    one aligned rkyv archive,      Arrow arrays that point into the frame
//!                                   between threads and on disk
//! ```
//!
//! Inside an operator chain records are a [`Batch`]: Arrow columns plus metadata of each record (its event time, how far it
//! lags behind the watermark, whether it withdraws an earlier row). Between threads and on disk they are a [`Frame`]. This
//! crate also owns the stable hash of keys ([`hash`]), the key groups derived from it, the blocks of bytes that state and
//! checkpoints exchange ([`block`]), and the conversion of columns to other types ([`convert`]).

mod batch;
pub mod block;
pub mod convert;
mod error;
mod frame;
pub mod hash;
pub mod json;
mod parallel;
mod partition;
pub mod schema;
mod shown;
pub mod text;
pub mod types;
pub mod words;
pub mod zone;

pub use batch::{Batch, SplitId};
pub use error::FrameError;
pub use frame::Frame;
pub use parallel::{on_all_cores, spread};
pub use partition::{partition, partition_by_hash};
pub use shown::shown_bytes;
