//! PostgreSQL, as a source, as a sink, and to look rows up in: `read_postgres`, `read_postgres_changes`, `write_postgres`,
//! `lookup_postgres`.
//!
//! ```text
//!   read       COPY (SELECT … WHERE key > last ORDER BY key) TO STDOUT ─► columns; the position is the last key
//!   and then, to follow a table, those up to the greatest key below which no transaction can add a row any more
//!
//!   changes    a snapshot of a table ─► logical replication from the point of the snapshot; the position is a place in the log
//!
//!   write      rows in the server's binary form: in memory while few, in a file that the checkpoint names when many
//!   commit     one transaction: COPY, and in `_millstream_epochs` up to which epoch rows were applied
//!   recover    takes the sink over, reads which epochs are noted, applies the others
//!
//!   look up    one query for the keys of a frame
//! ```
//!
//! The protocol is the client's (`postgres`), but for replication (`wire.rs`, `pgoutput.rs`); values in their binary form
//! are made and read here, a column at a time. `docs/design/058` proves that the sink is exact, and `docs/design/063` that
//! changes are.

mod acknowledge;
mod address;
mod change_place;
mod change_queue;
mod change_reader;
mod change_stream;
mod changes;
mod committer;
mod decode;
mod encode;
mod follow;
mod form;
mod growing;
mod keys;
mod lookup;
mod name;
mod notes;
mod numeric;
mod pgoutput;
mod reader;
mod session;
mod sink;
mod source;
mod table;
mod two_phase;
mod wire;
mod writer;

pub use changes::{PostgresChanges, PostgresChangesOptions};
pub use lookup::{FoundRows, PostgresLookup, PostgresLookupOptions};
pub use sink::{PostgresSink, PostgresSinkOptions};
pub use source::{PostgresSource, PostgresSourceOptions};
