//! The limits of a topic, known before a message is stored for its epoch: one that can never be sent would hold up the job
//! forever, since its checkpoint names it.
//!
//! A record whose message does not fit is rejected, as one that an operator cannot process: `on_error` decides how it is
//! handled.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use mill_protocol::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::ANSWER_WAIT;
use super::client::{Asker, Silent};
use super::config::Cluster;
use super::sink::MessageColumns;
use super::spool::Outgoing;

/// How long is waited for the configuration of a topic. The cluster of the unit tests has none to tell.
const SETTINGS_WAIT: Duration = if cfg!(test) { Duration::from_millis(300) } else { ANSWER_WAIT };
/// What librdkafka sends at most, unless `message.max.bytes` says otherwise.
const CLIENT_BYTES_MAX: usize = 1_000_000;
/// What librdkafka counts for a message beside its key, value and headers.
const OVERHEAD_BYTES: usize = 36;
/// No less than the broker counts beside the content that is counted here: the head of a batch, and lengths of at most ten bytes.
const BESIDE_BYTES_MAX: usize = 128;
/// The head of a batch: the broker counts it, with the only message there is.
const BATCH_HEAD_BYTES: usize = 61;

/// What a topic takes.
pub(super) struct Limits {
    call: String,
    cluster: Cluster,
    topic: String,
    /// How many partitions it has, as far as is known: it can be given more.
    partitions: AtomicI32,
    /// What the client sends at most.
    client_bytes: usize,
    pub(super) settings: Settings,
}

/// Settings of a topic, those that are known: to ask for them needs a permission.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// `max.message.bytes`.
    pub(super) bytes_max: Option<usize>,
    /// Whether a message without a key is refused: the topic is compacted.
    pub(super) needs_key: bool,
    /// `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`, unless the broker sets the time itself.
    pub(super) times: Option<(i64, i64)>,
}

impl Limits {
    /// Asks for the limits of a topic.
    ///
    /// # Errors
    /// When there is no such topic, or the cluster cannot be asked.
    pub(super) fn learn(call: &str, cluster: &Cluster, asker: &Asker, topic: &str) -> Result<Limits> {
        let partitions = AtomicI32::new(asker.partitions(topic)?);
        let settings = config(cluster, asker, ResourceSpecifier::Topic(topic))?.map(|found| Settings::of(&found)).unwrap_or_default();
        Ok(Limits::new(call, cluster, topic, partitions.into_inner(), settings))
    }

    pub(super) fn new(call: &str, cluster: &Cluster, topic: &str, partitions: i32, settings: Settings) -> Limits {
        let client_bytes = cluster.option("message.max.bytes").and_then(|text| text.parse().ok()).unwrap_or(CLIENT_BYTES_MAX);
        let (call, cluster, topic) = (call.to_owned(), cluster.clone(), topic.to_owned());
        Limits { call, cluster, topic, partitions: AtomicI32::new(partitions), client_bytes, settings }
    }

    /// What is wrong with a message, if it can never be sent.
    ///
    /// # Errors
    /// When the cluster does not say whether the topic has been given more partitions.
    pub(super) fn refuses(&self, message: &Outgoing<'_>, columns: &MessageColumns, has_looked: &mut bool) -> Result<Option<String>> {
        let Outgoing { partition, timestamp, key, value, headers } = message;
        if let Some(partition) = *partition {
            // Relaxed: no other memory is published with the number, which only grows.
            if partition >= self.partitions.load(Ordering::Relaxed) && !std::mem::replace(has_looked, true) {
                let there = Asker::new(&self.call, &self.cluster)?.partitions(&self.topic)?;
                self.partitions.fetch_max(there, Ordering::Relaxed);
            }
            let there = self.partitions.load(Ordering::Relaxed);
            if partition >= there {
                let column = columns.named("the partition", columns.partition.as_deref());
                return Ok(Some(format!("{column} is {partition}, and topic {:?} has {}, from 0", self.topic, mill_frame::words::counted(there, "partition"))));
            }
        }
        let header_bytes: usize = headers.iter().map(|(name, value)| 10 + name.len() + value.map_or(0, <[u8]>::len)).sum();
        let (key_bytes, value_bytes) = (key.map_or(0, <[u8]>::len), value.map_or(0, <[u8]>::len));
        let content = key_bytes + value_bytes + header_bytes;
        let of = |bytes: usize| {
            format!("the message has {bytes} bytes (key: {key_bytes}, value: {value_bytes}, headers: {header_bytes})")
        };
        if content + OVERHEAD_BYTES > self.client_bytes {
            return Ok(Some(format!(
                "{}, more than the {} of message.max.bytes, which options= can raise",
                of(content + OVERHEAD_BYTES),
                self.client_bytes
            )));
        }
        // What a message has beside its content is counted only where it may matter.
        if let Some(most) = self.settings.bytes_max.filter(|most| content + BESIDE_BYTES_MAX > *most) {
            let bytes = wire_bytes(message);
            if bytes > most {
                let topic = &self.topic;
                return Ok(Some(format!("{}, more than the {most} that topic {topic:?} takes (max.message.bytes)", of(bytes))));
            }
        }
        if self.settings.needs_key && key.is_none() {
            let key = columns.key.as_deref().and_then(|key| key.first()).map(String::as_str);
            let what = if key.is_some() { format!("{} is null", columns.named("the key", key)) } else { "the message has no key".to_owned() };
            return Ok(Some(format!("{what}, and topic {:?} is compacted, so it takes only messages with a key", self.topic)));
        }
        if let (Some(at), Some((before, after))) = (*timestamp, self.settings.times) {
            let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
            let is_early = now.saturating_sub(at) > before;
            if is_early || at.saturating_sub(now) > after {
                let column = columns.named("the timestamp", columns.timestamp.as_deref());
                let (side, setting, limit) = if is_early { ("before", "before", before) } else { ("after", "after", after) };
                return Ok(Some(format!(
                    "{column} is {at} ms since 1970, more than {limit} ms {side} now, which topic {:?} refuses \
                     (message.timestamp.{setting}.max.ms)",
                    self.topic
                )));
            }
        }
        Ok(None)
    }
}

impl Settings {
    fn of(found: &ConfigResource) -> Settings {
        let text = |name: &str| found.get(name).and_then(|entry| entry.value.as_deref());
        let milliseconds = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        let is_of_broker = text("message.timestamp.type") == Some("LogAppendTime");
        let times = milliseconds("message.timestamp.before.max.ms").zip(milliseconds("message.timestamp.after.max.ms"));
        Settings {
            bytes_max: text("max.message.bytes").and_then(|text| text.parse().ok()),
            needs_key: text("cleanup.policy").is_some_and(|policy| policy.split(',').any(|one| one.trim() == "compact")),
            times: times.filter(|_| !is_of_broker),
        }
    }
}

/// How long the brokers keep an offset of a group that nobody has joined; `None`: they do not say.
pub(super) fn offsets_retention(cluster: &Cluster, asker: &Asker) -> Result<Option<Duration>> {
    let broker = asker.broker()?;
    // Only how often a note is written depends on it: a broker that does not answer this is no reason to fail.
    let found = config(cluster, asker, ResourceSpecifier::Broker(broker)).unwrap_or(None);
    let minutes = found.as_ref().and_then(|found| found.get("offsets.retention.minutes")?.value.as_deref()?.parse::<u64>().ok());
    Ok(minutes.map(|minutes| Duration::from_secs(60 * minutes)))
}

/// The configuration of a topic or broker; `None` if the user may not see it.
fn config(cluster: &Cluster, asker: &Asker, what: ResourceSpecifier<'_>) -> Result<Option<ConfigResource>> {
    let client = AdminClient::from_config_and_context(&cluster.config(&[], &[]), Silent);
    let client = client.map_err(|e| cluster.error(asker.call(), &e))?;
    use RDKafkaErrorCode as Code;
    let found = asker.again(|wait| {
        let options = AdminOptions::new().request_timeout(Some(wait.min(SETTINGS_WAIT)));
        let answer = wait_for(client.describe_configs([&what], &options));
        let one = answer.and_then(|mut answer| answer.pop().unwrap_or(Err(Code::Fail)).map_err(KafkaError::AdminOp));
        match one {
            Err(KafkaError::AdminOp(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed)) => Ok(None),
            // A broker that answers others, and not this, is one that does not know the question.
            Err(KafkaError::AdminOp(Code::UnsupportedFeature | Code::OperationTimedOut | Code::RequestTimedOut)) => Ok(None),
            one => one.map(Some),
        }
    });
    found.map_err(|error| asker.failed("cannot learn what the topic takes", error))
}

/// What a message alone in a batch has, as the broker counts it, before compression.
fn wire_bytes(message: &Outgoing<'_>) -> usize {
    let part = |bytes: Option<&[u8]>| bytes.map_or(varint_bytes(-1), |bytes| varint_bytes(bytes.len() as i64) + bytes.len());
    let mut bytes = 3 + part(message.key) + part(message.value) + varint_bytes(message.headers.len() as i64);
    for (name, value) in &message.headers {
        bytes += part(Some(name.as_bytes())) + part(*value);
    }
    BATCH_HEAD_BYTES + varint_bytes(bytes as i64) + bytes
}

/// How long a number is as Kafka writes it: zigzag, seven bits a byte.
fn varint_bytes(number: i64) -> usize {
    let bits = 64 - (((number << 1) ^ (number >> 63)) as u64 | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Waits for a future on this thread.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

impl MessageColumns {
    /// The column that a part of a message comes from; the part itself where it comes from an expression.
    pub(super) fn named(&self, part: &str, column: Option<&str>) -> String {
        match column {
            Some(column) if !self.left_out.iter().any(|name| name == column) => format!("column {column:?}"),
            _ => part.to_owned(),
        }
    }
}

/// That there is nothing to wait for any more.
pub(super) fn cancelled(call: &str) -> Error {
    Error::new(mill_protocol::ErrorKind::Cancelled, format!("{call}: the job ends while the cluster has not answered"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_as_the_broker_does() {
        assert_eq!([-1, 0, 1, 63, 64, 8191, 8192, i64::MAX].map(varint_bytes), [1, 1, 1, 1, 2, 2, 3, 10]);
        // A value of 10 bytes: length 1, attributes 1, time 1, offset 1, key 1, length 1, value 10, headers 1.
        assert_eq!(wire_bytes(&Outgoing { value: Some(&[0; 10]), ..Outgoing::default() }), 61 + 17);
    }

    #[test]
    fn what_a_topic_does_not_take_is_told_with_its_column() {
        let cluster = Cluster::new("write_kafka()", "localhost:1", vec![("message.max.bytes".to_owned(), "2000".to_owned())]).unwrap();
        let settings = Settings { bytes_max: Some(1000), needs_key: true, times: Some((1000, 3_600_000)) };
        let limits = Limits::new("write_kafka()", &cluster, "out", 4, settings);
        let columns = MessageColumns {
            key: Some(vec!["k".to_owned()]),
            partition: Some("p".to_owned()),
            timestamp: Some("__kafka_timestamp".to_owned()),
            left_out: vec!["__kafka_timestamp".to_owned()],
            ..MessageColumns::default()
        };
        let told = |message: Outgoing<'_>| limits.refuses(&message, &columns, &mut true).unwrap();
        let good = Outgoing { key: Some(b"k"), partition: Some(3), value: Some(b"v"), ..Outgoing::default() };
        assert_eq!(told(good.clone()), None);
        assert_eq!(told(Outgoing { partition: Some(4), ..good.clone() }).unwrap(), "column \"p\" is 4, and topic \"out\" has 4 partitions, from 0");
        assert_eq!(told(Outgoing { key: None, ..good.clone() }).unwrap(), "column \"k\" is null, and topic \"out\" is compacted, so it takes only messages with a key");
        assert!(told(Outgoing { value: Some(&[0; 950]), ..good.clone() }).unwrap().contains("more than the 1000 that topic \"out\" takes"));
        assert_eq!(told(Outgoing { value: Some(&[0; 925]), ..good.clone() }), None);
        assert!(told(Outgoing { value: Some(&[0; 2000]), ..good.clone() }).unwrap().contains("more than the 2000 of message.max.bytes"));
        assert!(told(Outgoing { timestamp: Some(5), ..good.clone() }).unwrap().starts_with("the timestamp is 5 ms since 1970, more than 1000 ms before now"));
        assert!(told(Outgoing { timestamp: Some(i64::MAX), ..good }).unwrap().contains("more than 3600000 ms after now"));
    }
}
