//! A topic as a sink.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::types::type_name;
use mill_protocol::{Committer, Delivery, Error, Result, Sink, SinkKind, SinkWriter, TaskContext};

use super::avro::AvroWriting;
use super::committer::KafkaCommitter;
use super::config::{Cluster, Shown};
use super::limits::Limits;
use super::producer::Producer;
use super::spool::Place;
use super::writer::{DirectWriter, Encoder, SpoolWriter};
use crate::directory::{fresh_nonce, json};
use crate::nearest::{did_you_mean, quoted};
use crate::updating::check_key;
use crate::objects::check_written;

/// What becomes what of a message: names of columns.
#[derive(Clone, Debug, Default)]
pub struct MessageColumns {
    /// Whether the value is the column `value` as it is; otherwise it is a JSON object of the columns.
    pub is_raw: bool,
    /// Whether, and how, the value is a record in Avro of the columns.
    pub avro: Option<Arc<AvroWriting>>,
    /// The key: one column as it is, several as a JSON object.
    pub key: Option<Vec<String>>,
    /// The partition, where the partitioner is not to choose it.
    pub partition: Option<String>,
    /// A struct, a map, or a list of names with values.
    pub headers: Option<String>,
    /// The time; by default that at which the broker or the client takes the message.
    pub timestamp: Option<String>,
    /// Columns that are no part of the value.
    pub left_out: Vec<String>,
}

/// How a topic is written.
#[derive(Clone, Default)]
pub struct KafkaSinkOptions {
    /// What becomes what of a message.
    pub columns: MessageColumns,
    /// What is promised; `None`: what the job promises.
    pub delivery: Option<Delivery>,
    /// Options of librdkafka.
    pub options: Vec<(String, String)>,
}

impl fmt::Debug for KafkaSinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KafkaSinkOptions { columns, delivery, options } = self;
        let mut shown = f.debug_struct("KafkaSinkOptions");
        shown.field("columns", columns).field("delivery", delivery).field("options", &Shown(options)).finish()
    }
}

/// A topic of a cluster as a sink.
pub struct KafkaSink {
    shared: Arc<Shared>,
}

/// What sink, writers and the committer share.
pub(super) struct Shared {
    pub(super) cluster: Cluster,
    pub(super) topic: String,
    pub(super) columns: MessageColumns,
    pub(super) delivery: Option<Delivery>,
    /// Tells what this run writes from what others do; another for each committer.
    run: AtomicU64,
    /// Numbers the parts.
    parts: AtomicU64,
    /// How the run that continues now writes, once the committer was told.
    way: Mutex<Way>,
}

/// How records go out.
#[derive(Clone, Default)]
pub(super) enum Way {
    #[default]
    Undecided,
    /// As they come; the barrier waits until they were delivered.
    Direct(Arc<Producer>, Arc<Limits>),
    /// Kept until their checkpoint is durable, then sent in a transaction.
    Spooled(Place, Arc<Limits>),
}

impl KafkaSink {
    /// Messages for this topic.
    ///
    /// # Errors
    /// When something is wrong that can be known without asking the cluster.
    pub fn new(brokers: &str, topic: &str, options: KafkaSinkOptions) -> Result<KafkaSink> {
        let KafkaSinkOptions { columns, delivery, options } = options;
        let cluster = Cluster::new("write_kafka()", brokers, options)?;
        cluster.check_idempotence("write_kafka()")?;
        if topic.is_empty() || topic.contains('\0') {
            return Err(Error::plan("write_kafka() needs the name of a topic"));
        }
        if columns.key.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::plan("write_kafka(): the key needs at least one column; leave it out for messages without a key"));
        }
        let shared = Shared {
            cluster,
            topic: topic.to_owned(),
            columns,
            delivery,
            run: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            way: Mutex::new(Way::Undecided),
        };
        Ok(KafkaSink { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// The call, for messages.
    pub(super) fn call(&self) -> String {
        format!("write_kafka({:?}, {:?})", self.cluster.brokers, self.topic)
    }

    /// The run that writes now.
    pub(super) fn run(&self) -> u64 {
        // Relaxed: the committer sets it before writers are made, which is when threads are started.
        self.run.load(Ordering::Relaxed)
    }

    /// Another number for a part.
    pub(super) fn part_number(&self) -> u64 {
        // Relaxed: only that each gets another one counts.
        self.parts.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn way(&self) -> Way {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_way(&self, way: Way) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    /// A step that a test may let fail.
    pub(super) fn reach(&self, step: &'static str) -> Result<()> {
        mill_fault::reach(step).map_err(|error| Error::connector(format!("{}: {step}: {error}", self.call())).because(error))
    }
}

impl fmt::Debug for KafkaSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> String {
        format!("write_kafka({:?})", self.shared.topic)
    }

    fn identity(&self) -> Option<String> {
        Some(self.shared.call())
    }

    fn kind(&self) -> SinkKind {
        match self.shared.delivery {
            Some(Delivery::AtLeastOnce | Delivery::AtMostOnce) => SinkKind::WriteAheadAtLeastOnce,
            Some(Delivery::ExactlyOnce) | None => SinkKind::WriteAhead,
        }
    }

    fn keeps(&self, delivery: Option<Delivery>) -> Option<&'static str> {
        match (delivery, self.shared.delivery.or(delivery)) {
            (None, _) => Some("none (no checkpoint): delivered as it comes"),
            (Some(Delivery::AtMostOnce), _) | (_, Some(Delivery::ExactlyOnce)) => None,
            _ => Some("at_least_once: delivered as it comes, acknowledged before the checkpoint"),
        }
    }

    fn check(&self, schema: &SchemaRef, key: Option<&[String]>) -> Result<()> {
        let columns = &self.shared.columns;
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let find = |column: &String, what: &str| {
            schema.field_with_name(column).map_err(|_| {
                let near = did_you_mean(column, names.iter().copied());
                Error::schema(format!("write_kafka(): {what} is to be column {column:?}, which the stream does not have{near}"))
            })
        };
        let wrong = |column: &str, what: &str, wanted: &str, found: &DataType| {
            Error::schema(format!("write_kafka(): {what} is to be column {column:?}, {}; it has to be {wanted}", mill_frame::words::with_article(type_name(found))))
        };
        check_written(schema)?;
        for column in columns.key.iter().flatten() {
            find(column, "the key")?;
        }
        if let Some(column) = &columns.partition {
            let found = find(column, "the partition")?.data_type();
            if !found.is_integer() {
                return Err(wrong(column, "the partition", "a whole number", found));
            }
        }
        if let Some(column) = &columns.timestamp {
            let found = find(column, "the timestamp")?.data_type();
            if !matches!(found, DataType::Timestamp(..)) {
                return Err(wrong(column, "the timestamp", "a timestamp", found));
            }
        }
        if let Some(column) = &columns.headers {
            let found = find(column, "headers")?.data_type();
            if !super::writer::is_headers(found) {
                return Err(wrong(column, "headers", "a map of text, a struct, or a list of structs with key and value", found));
            }
        }
        match (key, columns.key.as_deref()) {
            (Some(key), Some(own)) if own.iter().any(|column| columns.left_out.contains(column)) => {
                return Err(Error::plan(format!("it is written with an expression as its key: pass key=[{}]", quoted(key, ", "))));
            }
            (key, own) => check_key(key, own)?,
        }
        // Whether all columns have a form.
        Encoder::new(columns, schema)?;
        if columns.is_raw || columns.avro.is_some() { Ok(()) } else { json::check(schema) }
    }

    fn target(&self) -> Option<String> {
        // Without the brokers: the same cluster can be reached by other addresses.
        Some(self.shared.topic.clone())
    }

    fn writer(&self, schema: &SchemaRef, context: &TaskContext) -> Result<Box<dyn SinkWriter>> {
        let mut encoder = Encoder::new(&self.shared.columns, schema)?;
        encoder.register()?;
        Ok(match self.shared.way() {
            Way::Undecided => return Err(Error::internal("a committer learns of its run before writers are made")),
            Way::Direct(producer, limits) => {
                Box::new(DirectWriter::new(Arc::clone(&self.shared), encoder, limits, producer, context.waker.clone()))
            }
            Way::Spooled(place, limits) => {
                Box::new(SpoolWriter::new(Arc::clone(&self.shared), encoder, limits, place, context.index))
            }
        })
    }

    fn of_run(&self) -> Result<Option<Arc<dyn Sink>>> {
        // Several runs of one plan may write at a time, each with its own number and place.
        let from = &self.shared;
        let shared = Shared {
            cluster: from.cluster.clone(),
            topic: from.topic.clone(),
            columns: from.columns.clone(),
            delivery: from.delivery,
            run: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            way: Mutex::new(Way::Undecided),
        };
        Ok(Some(Arc::new(KafkaSink { shared: Arc::new(shared) })))
    }

    fn committer(&self) -> Result<Box<dyn Committer>> {
        // Relaxed: as in `Shared::run`.
        self.shared.run.store(fresh_nonce(), Ordering::Relaxed);
        Ok(Box::new(KafkaCommitter::new(Arc::clone(&self.shared))))
    }
}
