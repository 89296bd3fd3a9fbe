//! Reads one partition.

use std::ffi::CString;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mill_protocol::{Error, Position, Read, Result, Split, SplitReader};
use rdkafka::bindings as native;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaType;

use super::client::{Partition, Silent, missing_permission};
use super::config::Cluster;
use super::format::Decoder;
use super::message::{Message, Messages, Queue};
use super::offsets::{self, Detail};
use super::source::Shared;

/// How long a read waits for the first message; a job that ends waits as long.
const WAIT_MS: i32 = 100;
/// About so many bytes of values make a batch, however many more rows it could have.
const BATCH_BYTES: usize = 16 << 20;

/// A client that any number of partitions are read with.
pub(super) struct Connection {
    client: Client<Silent>,
    /// Whoever reads also takes what the client has to tell; one at a time is enough.
    telling: Mutex<()>,
}

impl Connection {
    /// Connects to a cluster.
    pub(super) fn new(call: &str, cluster: &Cluster) -> Result<Connection> {
        let config = cluster.config(
            &[
                ("isolation.level", "read_committed"),
                ("auto.offset.reset", "error"),
                ("fetch.wait.max.ms", "100"),
                ("fetch.queue.backoff.ms", "5"),
            ],
            &[("enable.partition.eof", "true"), ("enable.auto.commit", "false")],
        );
        let failed = |e| cluster.error(call, &e);
        let native = config.create_native_config().map_err(failed)?;
        let client = Client::new(&config, native, RDKafkaType::RD_KAFKA_CONSUMER, Silent).map_err(failed)?;
        Ok(Connection { client, telling: Mutex::new(()) })
    }

    /// Takes what the client tells; what matters comes with the messages of a partition.
    fn take_news(&self) {
        let Ok(_telling) = self.telling.try_lock() else { return };
        let client = self.client.native_ptr();
        // SAFETY: the client lives; the queue is given back, and each event too.
        unsafe {
            let main = native::rd_kafka_queue_get_main(client);
            loop {
                let event = native::rd_kafka_queue_poll(main, 0);
                if event.is_null() {
                    break;
                }
                native::rd_kafka_event_destroy(event);
            }
            native::rd_kafka_queue_destroy(main);
        }
    }
}

/// A partition that is being read into a queue of its own.
struct Fetch {
    // Before the connection, so that they go first.
    queue: Queue,
    topic: *mut native::rd_kafka_topic_t,
    number: i32,
    connection: Arc<Connection>,
}

impl Fetch {
    fn start(connection: Arc<Connection>, partition: &Partition, offset: i64) -> Result<Fetch> {
        let failed = |what: &str| Error::connector(format!("cannot read {partition}: {what}"));
        let name = CString::new(partition.topic.as_str()).map_err(|_| failed("the name has a zero byte"))?;
        let client = connection.client.native_ptr();
        // SAFETY: the client lives as long as `connection`, and the name through the call. Null is checked for.
        let topic = unsafe { native::rd_kafka_topic_new(client, name.as_ptr(), std::ptr::null_mut()) };
        if topic.is_null() {
            return Err(failed("the client refuses the topic"));
        }
        let queue = Queue::new(client);
        let fetch = Fetch { queue, topic, number: partition.number, connection };
        // SAFETY: topic and queue live as long as `fetch`, which stops reading before it lets go of them.
        let code = unsafe { native::rd_kafka_consume_start_queue(topic, partition.number, offset, fetch.queue.pointer()) };
        if code == -1 {
            // SAFETY: it asks what the call before has left for this thread.
            let error: RDKafkaErrorCode = unsafe { native::rd_kafka_last_error() }.into();
            return Err(failed(&error.to_string()));
        }
        Ok(fetch)
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // SAFETY: the topic is ours and is given back once; stopping waits until nothing more comes into the queue.
        unsafe {
            native::rd_kafka_consume_stop(self.topic, self.number);
            native::rd_kafka_topic_destroy(self.topic);
        }
        self.connection.take_news();
    }
}

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Fetch {}

/// Reads a partition from an offset on.
pub(super) struct KafkaReader {
    shared: Arc<Shared>,
    // Before the client, to which they go back.
    messages: Messages,
    fetch: Option<Fetch>,
    _connection: Arc<Connection>,
    decoder: Decoder,
    partition: Partition,
    /// The offset of the next message.
    offset: i64,
    /// The offset at which the input ends.
    end: Option<i64>,
}

impl KafkaReader {
    pub(super) fn new(
        shared: Arc<Shared>,
        connection: Arc<Connection>,
        schema: SchemaRef,
        split: &Split,
        position: Option<&[u8]>,
    ) -> Result<KafkaReader> {
        let detail = Detail::of(split)?;
        let partition = detail.at();
        let offset = match position {
            Some(position) => offsets::decode(position, &partition)?,
            None => detail.start,
        };
        let decoder = Decoder::new(&shared.format, &shared.metadata, schema, partition.clone())?;
        let has_more = detail.end.is_none_or(|end| offset < end);
        let fetch = has_more.then(|| Fetch::start(Arc::clone(&connection), &partition, offset)).transpose()?;
        Ok(KafkaReader {
            shared,
            messages: Messages::default(),
            fetch,
            _connection: connection,
            decoder,
            partition,
            offset,
            end: detail.end,
        })
    }

    fn failed(&self, message: Message<'_>, code: RDKafkaErrorCode) -> Error {
        if matches!(code, RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) {
            return self.removed();
        }
        let text = message.error_text();
        let text = if text.is_empty() { code.to_string() } else { self.shared.cluster.without_secrets(&text) };
        let hint = missing_permission(code).unwrap_or_default();
        Error::connector(format!("{}: cannot read {}: {text}{hint}", self.shared.call(), self.partition))
    }

    fn removed(&self) -> Error {
        Error::connector(format!(
            "{}: the messages from offset {} on that were to be read next from {} were removed meanwhile, by retention or with the \
             topic; options={{\"auto.offset.reset\": \"earliest\"}} and a restart continue with what is left",
            self.shared.call(),
            self.offset,
            self.partition
        ))
    }
}

/// Whether librdkafka continues by itself after this error of a partition.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::OffsetNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
    )
}

impl SplitReader for KafkaReader {
    fn next(&mut self, rows_max: usize) -> Result<Read> {
        let Some(fetch) = &self.fetch else { return Ok(Read::End) };
        if self.messages.is_done() {
            self.messages.take(&fetch.queue, rows_max.max(1), WAIT_MS);
        }
        fetch.connection.take_news();
        let end = self.end.unwrap_or(i64::MAX);
        let mut taken = Vec::new();
        let (mut next, mut used, mut bytes) = (self.offset, 0, 0);
        for message in self.messages.iter() {
            match message.error() {
                None if message.offset() >= end => next = end,
                // librdkafka may begin at the start of a batch.
                None if message.offset() < next => {}
                None => {
                    next = message.offset() + 1;
                    bytes += message.value().map_or(0, <[u8]>::len);
                    taken.push(message);
                }
                // After the last message there may be marks of transactions, and messages of those that were aborted: they have
                // offsets and never come. The end of the partition counts them.
                Some(RDKafkaErrorCode::PartitionEOF) if message.offset() >= end => next = end,
                Some(RDKafkaErrorCode::PartitionEOF) => {}
                Some(code) if is_passing(code) => {}
                // What came before it is given first.
                Some(_) if !taken.is_empty() => break,
                Some(code) => return Err(self.failed(message, code)),
            }
            used += 1;
            if next >= end || bytes >= BATCH_BYTES || taken.len() >= rows_max {
                break;
            }
        }
        let read = match taken.is_empty() {
            true => None,
            false => Some(self.decoder.decode(&taken)?),
        };
        drop(taken);
        self.messages.finish(used);
        self.offset = next;
        if next >= end {
            self.fetch = None;
        }
        Ok(match read {
            None if next >= end => Read::End,
            None => Read::Pending(Duration::ZERO),
            Some((batch, rejected)) if rejected.is_empty() => Read::Batch(batch),
            Some((batch, rejected)) => Read::Partial(batch, rejected),
        })
    }

    fn position(&self) -> Position {
        offsets::encode(self.offset)
    }
}

