//! PostgreSQL, as a source, as a sink, and to look rows up in: `read_postgres`, `write_postgres`, `lookup_postgres`.
//!
//! ```text
//!   read       COPY (SELECT … WHERE key > last ORDER BY key) TO STDOUT ─► columns; the position is the last key
//!
//!   write      rows in the server's binary form: in memory while few, in a file that the checkpoint names when many
//!   commit     one transaction: COPY, and in `_millstream_epochs` up to which epoch rows were applied
//!   recover    takes the sink over, reads which epochs are noted, applies the others
//!
//!   look up    one query for the keys of a frame
//! ```
//!
//! The protocol is the client's (`postgres`); values in their binary form are made and read here, a column at a time. What makes the
//! sink exact is argued in `docs/design/058`.

mod address;
mod committer;
mod decode;
mod encode;
mod form;
mod keys;
mod lookup;
mod name;
mod notes;
mod numeric;
mod reader;
mod sink;
mod source;
mod spool;
mod table;
mod writer;

pub use lookup::{FoundRows, PostgresLookup, PostgresLookupOptions};
pub use sink::{PostgresSink, PostgresSinkOptions};
pub use source::{PostgresSource, PostgresSourceOptions};
