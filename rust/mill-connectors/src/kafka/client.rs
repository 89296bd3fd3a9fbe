//! Queries to a cluster other than messages: which topics and partitions exist, and which offsets they have.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use mill_protocol::{Ending, Error, Result};
use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaType;

use super::ANSWER_WAIT;
use super::config::Cluster;
use super::limits::cancelled;
use crate::nearest::{did_you_mean, quoted};

/// How long an answer is waited for before it is looked whether the client can log in.
const LOGIN_LOOK: Duration = Duration::from_millis(500);

/// Nobody reads the log lines of librdkafka: what matters comes as an error of the call.
#[derive(Clone, Debug, Default)]
pub(super) struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub number: i32,
}

impl std::fmt::Display for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[{}]", self.topic, self.number)
    }
}

/// Asks a cluster.
pub(super) struct Asker {
    call: String,
    cluster: Cluster,
    client: Client<DefaultClientContext>,
}

impl Asker {
    /// A client for questions only; `call` is what the user wrote, for messages.
    pub(super) fn new(call: &str, cluster: &Cluster) -> Result<Asker> {
        let mut config = cluster.config(&[("isolation.level", "read_committed")], &[]);
        config.set_log_level(RDKafkaLogLevel::Warning);
        let failed = |e: KafkaError| cluster.error(call, &e);
        let native = config.create_native_config().map_err(failed)?;
        let client = Client::new(&config, native, RDKafkaType::RD_KAFKA_CONSUMER, DefaultClientContext).map_err(failed)?;
        Ok(Asker { call: call.to_owned(), cluster: cluster.clone(), client })
    }

    /// What the user wrote.
    pub(super) fn call(&self) -> &str {
        &self.call
    }

    /// All topics with the number of their partitions; those of Kafka's own are left out.
    pub(super) fn topics(&self) -> Result<Vec<(String, i32)>> {
        let metadata = self.metadata(None)?;
        let topics = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
        Ok(topics.map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32)).collect())
    }

    /// The number of a broker.
    pub(super) fn broker(&self) -> Result<i32> {
        Ok(self.metadata(None)?.brokers().first().map_or(0, |broker| broker.id()))
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata> {
        // In short pieces, between which the client may have told that it cannot log in.
        let refused = RefCell::new(None);
        let found = self.again(|wait| match self.client.fetch_metadata(topic, wait.min(LOGIN_LOOK)) {
            Err(error) if is_silence(&error) => {
                if let Some(words) = last_words(&self.client) {
                    refused.replace(Some(words));
                }
                let is_login = refused.borrow().as_ref().is_some_and(|words| is_about_login(words));
                Err(if is_login { KafkaError::MetadataFetch(RDKafkaErrorCode::Authentication) } else { error })
            }
            result => result,
        });
        found.map_err(|e| self.unreachable(e, refused.take()))
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// When there is none of the name; the nearest names are listed.
    pub(super) fn partitions(&self, topic: &str) -> Result<i32> {
        self.find(&self.topics()?, topic)
    }

    /// The same, among the topics there are.
    pub(super) fn find(&self, topics: &[(String, i32)], topic: &str) -> Result<i32> {
        if let Some((_, partitions)) = topics.iter().find(|(name, partitions)| name == topic && *partitions > 0) {
            return Ok(*partitions);
        }
        if let Some(partitions) = self.ask_for(topic)? {
            return Ok(partitions);
        }
        let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
        let there_are = match names.len() {
            0 => "; there is no topic at all".to_owned(),
            1..=5 => format!("; there are {}", quoted(&names, ", ")),
            _ => String::new(),
        };
        let near = did_you_mean(topic, names.iter().copied());
        let hint = if near.is_empty() { there_are } else { near };
        Err(Error::connector(format!("{}: {} has no topic {topic:?}{hint}", self.call, self.cluster.brokers)))
    }

    /// How many partitions a topic has that is not among all topics, or has none there: it may just be made, or the user may not
    /// see it.
    fn ask_for(&self, topic: &str) -> Result<Option<i32>> {
        let found = self.again(|wait| {
            let metadata = self.client.fetch_metadata(Some(topic), wait)?;
            let Some(found) = metadata.topics().first() else { return Ok(None) };
            match (found.error().map(RDKafkaErrorCode::from), found.partitions().len()) {
                (Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic), _) => Ok(None),
                (Some(code), _) => Err(KafkaError::MetadataFetch(code)),
                (None, 0) => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable)),
                (None, partitions) => Ok(Some(partitions as i32)),
            }
        });
        found.map_err(|e| self.failed(&format!("cannot learn the partitions of topic {topic:?}"), e))
    }

    /// The first offset that a partition has, and that after its last message that can be read.
    pub(super) fn bounds(&self, partition: &Partition) -> Result<(i64, i64)> {
        self.again(|wait| self.client.fetch_watermarks(&partition.topic, partition.number, wait))
            .map_err(|e| self.failed(&format!("cannot learn the offsets of {partition}"), e))
    }

    /// The offset of the first message that is not older than this time, in milliseconds; `None` if there is none.
    pub(super) fn offset_at(&self, partition: &Partition, time_ms: i64) -> Result<Option<i64>> {
        let found = self.again(|wait| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(time_ms))?;
            // SAFETY: client and list live through the call, which writes the offsets into the list.
            let code = unsafe {
                let (client, list) = (self.client.native_ptr(), list.ptr());
                native::rd_kafka_offsets_for_times(client, list, wait.as_millis() as i32)
            };
            match RDKafkaErrorCode::from(code) {
                RDKafkaErrorCode::NoError => Ok(list),
                code => Err(KafkaError::OffsetFetch(code)),
            }
        });
        let list = found.map_err(|e| self.failed(&format!("cannot find a time in {partition}"), e))?;
        let element = list.find_partition(&partition.topic, partition.number);
        Ok(match element.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            _ => None,
        })
    }

    /// Brokers that are still starting, or are choosing a leader, are asked again.
    pub(super) fn again<T>(&self, ask: impl Fn(Duration) -> std::result::Result<T, KafkaError>) -> std::result::Result<T, KafkaError> {
        let end = Instant::now() + ANSWER_WAIT;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
            match ask(left) {
                Err(error) if is_passing(&error) && Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
                result => return result,
            }
        }
    }

    fn unreachable(&self, error: KafkaError, words: Option<String>) -> Error {
        let words = words.map(|words| format!(" ({})", self.cluster.without_secrets(&words))).unwrap_or_default();
        let what = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication) => format!(
                "{} refuses the login{words}: see security.protocol, sasl.mechanism, sasl.username and sasl.password, or the \
                 certificates, in options=",
                self.cluster.brokers
            ),
            _ if is_silence(&error) => {
                format!(
                    "no broker at {} has answered within {} s{words}: see that one runs there, that its advertised.listeners can be \
                     reached from here, and that options= say how to log in",
                    self.cluster.brokers,
                    ANSWER_WAIT.as_secs()
                )
            }
            _ => format!("{} cannot be asked: {error}", self.cluster.brokers),
        };
        Error::connector(format!("{}: {what}", self.call)).because(error)
    }

    pub(super) fn failed(&self, doing: &str, error: KafkaError) -> Error {
        let text = self.cluster.without_secrets(&error.to_string());
        let hint = error.rdkafka_error_code().and_then(missing_permission).unwrap_or_default();
        Error::connector(format!("{}: {doing}: {text}{hint}", self.call)).because(error)
    }
}

/// Which permission the user lacks.
pub(super) fn missing_permission(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::TopicAuthorizationFailed => "; the user has no permission for the topic: a source needs READ, a sink WRITE",
        Code::GroupAuthorizationFailed => {
            "; the user has no permission for the group: a sink needs READ on groups that begin with \"millstream-\", start=\"committed\" \
             on group="
        }
        Code::TransactionalIdAuthorizationFailed => {
            "; the user has no permission for the transactional id: a sink needs WRITE on those that begin with \"millstream-\""
        }
        Code::ClusterAuthorizationFailed => "; the user has no permission to write idempotently (IDEMPOTENT_WRITE on the cluster)",
        _ => return None,
    })
}

/// Whether nobody has answered.
fn is_silence(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::BrokerTransportFailure | Code::OperationTimedOut | Code::AllBrokersDown | Code::RequestTimedOut)
    )
}

/// Whether what a client has logged says that trying again is of no use.
fn is_about_login(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("authentication fail") || words.contains("authentication error") || words.contains("certificate verify failed")
}

/// Whether the same question may be answered a moment later.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::UnknownPartition
                | Code::UnknownTopicOrPartition
                | Code::OffsetNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::BrokerTransportFailure
                | Code::OperationTimedOut
        )
    )
}

/// What a client has logged or told last; what is about the login goes before all else, which fails because of it.
fn last_words(client: &Client<DefaultClientContext>) -> Option<String> {
    let mut words: Option<String> = None;
    // SAFETY: the client lives; the queue is given back, and each event too, after what it says was copied.
    unsafe {
        let main = native::rd_kafka_queue_get_main(client.native_ptr());
        loop {
            let event = native::rd_kafka_queue_poll(main, 0);
            if event.is_null() {
                break;
            }
            let (mut facility, mut text, mut level) = (std::ptr::null(), std::ptr::null(), 0);
            let is_text = match native::rd_kafka_event_type(event) {
                native::RD_KAFKA_EVENT_LOG => native::rd_kafka_event_log(event, &mut facility, &mut text, &mut level) == 0,
                native::RD_KAFKA_EVENT_ERROR => {
                    text = native::rd_kafka_event_error_string(event);
                    !text.is_null()
                }
                _ => false,
            };
            if is_text {
                let line = std::ffi::CStr::from_ptr(text).to_string_lossy();
                // What comes before the last colon of the head names the client and its threads.
                if !words.as_deref().is_some_and(is_about_login) {
                    words = Some(line.rsplit_once("]: ").map_or(line.as_ref(), |(_, rest)| rest).trim().to_owned());
                }
            }
            native::rd_kafka_event_destroy(event);
        }
        native::rd_kafka_queue_destroy(main);
    }
    words
}

/// A consumer that joins no group: only what a group has noted is asked for.
pub(super) fn group_client(call: &str, cluster: &Cluster, group: &str) -> Result<BaseConsumer<SilentConsumer>> {
    let config = cluster.config(
        &[],
        &[("group.id", group), ("enable.auto.commit", "false"), ("isolation.level", "read_committed")],
    );
    let client = config.create_with_context::<_, BaseConsumer<SilentConsumer>>(SilentConsumer);
    client.map_err(|e| cluster.error(call, &e))
}

/// What a consumer group has noted for partitions: an offset, and words beside it.
pub(super) fn noted(
    call: &str,
    client: &BaseConsumer<SilentConsumer>,
    group: &str,
    partitions: &[Partition],
    wait: Duration,
    ending: &Ending,
) -> Result<Vec<Option<(i64, String)>>> {
    let failed = |e: KafkaError| {
        let hint = e.rdkafka_error_code().and_then(missing_permission).unwrap_or_default();
        Error::connector(format!("{call}: cannot read the offsets of group {group:?}: {e}{hint}")).because(e)
    };
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    let end = Instant::now() + wait;
    // In pieces that get longer, so that the end of the job is seen.
    let mut piece = Duration::from_secs(1);
    let found = loop {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let asked = client.committed_offsets(list.clone(), left.min(piece));
        piece *= 2;
        match asked {
            Err(_) if ending.is_set() => return Err(cancelled(call)),
            Err(error) if is_passing(&error) && Instant::now() < end => std::thread::sleep(Duration::from_millis(100)),
            result => break result.map_err(failed)?,
        }
    };
    let mut noted = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let Some(element) = found.find_partition(&partition.topic, partition.number) else {
            noted.push(None);
            continue;
        };
        element.error().map_err(failed)?;
        noted.push(match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        });
    }
    Ok(noted)
}

/// The same silence of a consumer.
#[derive(Clone, Debug, Default)]
pub(super) struct SilentConsumer;

impl ClientContext for SilentConsumer {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}
}

impl rdkafka::consumer::ConsumerContext for SilentConsumer {}
