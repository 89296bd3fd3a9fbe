//! MySQL and MariaDB, as a source and as a sink: `read_sql`, `write_sql`.
//!
//! ```text
//!   read       SELECT … WHERE key > last ORDER BY key, in the binary protocol ─► columns; the position is the last key
//!
//!   write      rows as SQL: in memory while few, in a file that the checkpoint names when many
//!   commit     one transaction: INSERT, and in `_millstream_epochs` up to which epoch rows were applied
//!   recover    takes the sink over, reads which epochs are noted, applies the others
//! ```
//!
//! The protocol is the client's (`mysql`). What a position is and what follows a lost connection is that of every database
//! (`table_reader.rs`), and so is how rows are kept (`spool.rs`). `docs/design/069` says why this client, and why the sink is exact.

mod address;
mod calendar;
mod committer;
mod decode;
mod encode;
mod form;
mod keys;
mod name;
mod notes;
mod reader;
mod send;
mod sink;
mod source;
mod table;
mod writer;

pub use sink::{MysqlSink, MysqlSinkOptions};
pub use source::{MysqlSource, MysqlSourceOptions};
