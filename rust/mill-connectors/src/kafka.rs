//! Apache Kafka, as a source and as a sink: `read_kafka`, `write_kafka`.
//!
//! ```text
//!   splits     partitions; each has where it begins, and where it ends if the input is bounded
//!   reader     librdkafka's queue of one partition ─► columns; its position is the offset of the next message
//!
//!   writer     records as messages ─► a file that the checkpoint names
//!   commit     one transaction: the messages, and a note of the epoch in a consumer group of the sink's own
//!   recover    fences what a former run has left open; the note says which epochs are in the topic, the others are sent from
//!              their files
//! ```
//!
//! The group protocol is not used: the runtime decides which task reads a partition, and positions are in the checkpoint.
//! `docs/design/050` proves that the sink is exact.

mod avro;
mod client;
mod committer;
mod config;
mod connect;
mod debezium;
mod format;
mod lag;
mod limits;
mod message;
mod note;
mod offsets;
mod producer;
mod reader;
mod sink;
mod source;
mod spool;
mod writer;

pub use avro::{Avro, AvroWriting, SchemaRegistry};
pub use client::Partition as KafkaPartition;
pub use sink::{KafkaSink, KafkaSinkOptions, MessageColumns};
pub use source::{KafkaFormat, KafkaSource, KafkaSourceOptions, Metadata as KafkaMetadata, Start as KafkaStart, Until as KafkaUntil};

use std::time::Duration;

/// How long brokers are waited for before the first record.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
