//! Objects in stores: `s3://`, `gs://`, `az://`, `hdfs://`, and `http(s)://` to read.
//!
//! ```text
//!   s3://bucket/key ─► Place ─► Bucket (a client, by the options of mill.storage() and the environment)
//!                                 │ list, look, get, upload: on one runtime of its own; callers wait
//!   readers   Object   fetched data is in an unnamed file; each request asks for one version only
//!   sinks     Upload   parts, put before the checkpoint, completed after it; in HDFS a hidden file, which is renamed after it
//! ```
//!
//! What holds:
//!
//! - An object is known by its entity tag. One with another tag is another object: a reader never sees bytes of two.
//! - No secret of the options is in a message.

mod bucket;
mod client;
#[cfg(feature = "hdfs")]
mod hdfs;
mod list;
mod options;
mod place;
mod prefix;
mod spooled;
mod whole;

pub use options::configure;
pub use prefix::{Condition, ObjectPrefix, Transfer, Written};
pub(crate) use bucket::{Bucket, Multipart};
pub(crate) use client::Patience;
pub(crate) use list::{files_at, is_named};
pub(crate) use place::{Place, is_object, is_of_web};
pub(crate) use spooled::{Meta, Object, look, spool};
pub(crate) use whole::Extent;

#[cfg(test)]
mod tests;
