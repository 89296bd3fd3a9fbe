//! Sources and sinks: where records come from and where results go.
//!
//! ```text
//!   files    PathSpec ─► splits (a file, or fixed byte ranges of it) ─► ChunkReader ─► LineFormat ─► Read
//!                                                                        bytes          text, csv, json
//!   memory   MemorySource, GenerateSource            parquet  ParquetSource (row groups)
//!            NexmarkSource                         ipc      ArrowSource (record batches)
//!
//!   DirectorySink   hidden file ─ pre-commit: close, sync ─► named in the checkpoint ─ commit: rename
//!   SqliteSink      rows kept by the epoch ─ pre-commit ─► handle in the checkpoint ─ commit: one transaction
//!   KafkaSource     partitions ─► offsets              KafkaSink   messages kept by the epoch ─ commit: one transaction
//!   PostgresSource  rows after a key ─► columns        PostgresSink   rows kept by the epoch ─ commit: one transaction
//!   MysqlSource     rows after a key ─► columns        MysqlSink      rows kept by the epoch ─ commit: one transaction
//!   CollectSink     bounded queue to the caller
//!
//!   PushedSource ─► job under test ─► LedgerSink     what a test pushes by hand, and what has been committed of the results
//! ```
//!
//! What all of them keep:
//!
//! - A split is the same in every run and under every parallelism: cuts depend on the input alone.
//! - A reader opened at a position returns exactly the records that the reader at that position had not returned yet. A file
//!   that is no longer the one the position was taken in is an error, never a guess.
//! - An error in one record affects that record alone: the good ones around it are kept.
//! - Nothing is visible in a target before its checkpoint is durable, and committing twice changes nothing.

#[cfg(any(feature = "mysql", feature = "postgres"))]
mod attempt;
#[cfg(any(feature = "kafka", feature = "mysql", feature = "postgres"))]
mod client_thread;
mod collect;
mod columns;
mod condition;
mod csv;
mod directory;
mod file;
mod fit;
mod generate;
mod guard;
mod handover;
mod infer;
mod ipc;
mod json;
#[cfg(feature = "kafka")]
mod kafka;
mod latest;
mod ledger;
mod lock;
mod looking;
mod marks;
mod memory;
#[cfg(feature = "mysql")]
mod mysql;
mod nearest;
mod nexmark;
mod object;
mod objects;
mod parquet;
#[cfg(feature = "postgres")]
mod postgres;
mod pushed;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod receipt;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod relation;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod spool;
mod sqlite;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod table_reader;
mod target;
#[cfg(test)]
mod testing;
mod text;
mod updating;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod url;

pub use csv::{CsvOptions, CsvSource};
pub use collect::{CollectReceiver, CollectSink, Collected, Received};
pub use file::{FileOptions, PathSpec};
pub use generate::GenerateSource;
pub use handover::left_sink;
pub use ipc::{ArrowOptions, ArrowSource};
pub use json::{JsonLayout, JsonOptions, JsonSource};
#[cfg(feature = "kafka")]
pub use kafka::{
    Avro, AvroWriting, KafkaFormat, KafkaMetadata, KafkaPartition, KafkaSink, KafkaSinkOptions, KafkaSource, KafkaSourceOptions, KafkaStart,
    KafkaUntil, MessageColumns, SchemaRegistry,
};
pub use latest::{Change, LatestRows, latest_rows};
pub use ledger::{Entries, Ledger, LedgerSink};
pub use parquet::{ParquetOptions, ParquetSource};
#[cfg(feature = "mysql")]
pub use mysql::{MysqlSink, MysqlSinkOptions, MysqlSource, MysqlSourceOptions};
#[cfg(feature = "postgres")]
pub use postgres::{
    FoundRows, PostgresChanges, PostgresChangesOptions, PostgresLookup, PostgresLookupOptions, PostgresSink, PostgresSinkOptions, PostgresSource, PostgresSourceOptions,
};
pub use directory::{CsvWriting, DirectorySink, FileFormat, OnExisting, StdoutSink, WriteOptions};
pub use memory::MemorySource;
pub use object::configure as configure_storage;
pub use object::{Condition, ObjectPrefix, Transfer, Written};
pub use nexmark::{NexmarkKind, NexmarkOptions, NexmarkSource};
pub use pushed::{Allowance, PushedSource};
pub use sqlite::SqliteSink;
pub use text::{TextOptions, TextSource};
