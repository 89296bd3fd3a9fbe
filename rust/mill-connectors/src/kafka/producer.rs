//! Sends messages: a client whose events somebody has to take, and what they tell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mill_protocol::{Error, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::config::Cluster;
use super::spool::Outgoing;
use super::thread;

/// Writers wait while more messages than this are under way.
const UNDER_WAY_MAX: i32 = 100_000;
/// How long events are waited for at once.
const POLL: Duration = Duration::from_millis(20);

/// What the events of a client have told.
#[derive(Default)]
pub(super) struct Told {
    /// The first message that could not be delivered, and why.
    failure: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// What the client said of itself last (it cannot log in, say).
    trouble: Mutex<Option<String>>,
    wakers: Mutex<Vec<Waker>>,
}

#[derive(Clone)]
struct Context(Arc<Told>);

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let text = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        use rdkafka::Message as _;
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            let at = format!("{:?}", message.topic());
            self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((code, at));
        }
    }
}

/// A client that sends.
pub(super) struct Producer {
    call: String,
    topic: String,
    client: Arc<BaseProducer<Context>>,
    told: Arc<Told>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    /// A client for this topic, with a transactional identity if its messages are to be sent in transactions.
    pub(super) fn new(call: &str, cluster: &Cluster, topic: &str, transactional: Option<&str>) -> Result<Producer> {
        let mut ours = vec![("enable.idempotence", "true"), ("delivery.report.only.error", "true")];
        if let Some(id) = transactional {
            ours.push(("transactional.id", id));
        }
        // Keys go to the partitions that other clients send them to, but those of librdkafka.
        let defaults = [("partitioner", "murmur2_random"), ("queue.buffering.max.messages", "1000000"), ("queue.buffering.max.kbytes", "262144")];
        let told = Arc::new(Told::default());
        let client = cluster.config(&defaults, &ours).create_with_context::<_, BaseProducer<Context>>(Context(Arc::clone(&told)));
        let client = Arc::new(client.map_err(|e| Error::connector(format!("{call}: {e}")).because(e))?);
        let is_over = Arc::new(AtomicBool::new(false));
        let (polled, over, news) = (Arc::clone(&client), Arc::clone(&is_over), Arc::clone(&told));
        let poll = move || {
            // Relaxed: the flag stands for itself.
            while !over.load(Ordering::Relaxed) {
                polled.poll(POLL);
                if polled.in_flight_count() <= UNDER_WAY_MAX / 2 {
                    for waker in news.wakers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                        waker.wake();
                    }
                }
            }
        };
        let thread = thread::start("mill-kafka-send", poll)?;
        Ok(Producer { call: call.to_owned(), topic: topic.to_owned(), client, told, is_over, thread: Some(thread) })
    }

    /// Whether more messages may be given; if not, the waker is woken once that has changed.
    pub(super) fn is_ready(&self, waker: &Waker) -> bool {
        if self.client.in_flight_count() <= UNDER_WAY_MAX {
            return true;
        }
        let mut wakers = self.told.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        false
    }

    /// Hands a message over; waits while there is no room.
    pub(super) fn send(&self, message: &Outgoing<'_>) -> std::result::Result<(), KafkaError> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic);
        record.key = message.key;
        record.payload = message.value;
        record.partition = message.partition;
        record.timestamp = message.timestamp;
        if !message.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
            for (name, value) in &message.headers {
                headers = headers.insert(Header { key: name, value: *value });
            }
            record.headers = Some(headers);
        }
        loop {
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.check()?;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until all messages have been delivered; no longer than this without any that is.
    pub(super) fn flush(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        let (mut end, mut least) = (Instant::now() + wait, i32::MAX);
        loop {
            self.check()?;
            let left = self.client.in_flight_count();
            if left == 0 {
                // The last event may tell of a failure: it is taken before the count goes down.
                return self.check();
            }
            if left < least {
                (end, least) = (Instant::now() + wait, left);
            } else if Instant::now() >= end {
                return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
            }
            // Lets the client send what it gathers, and gives it time for it.
            let _ = self.client.flush(Duration::from_millis(10));
        }
    }

    /// Whether all messages were delivered so far, or still may be.
    pub(super) fn check(&self) -> std::result::Result<(), KafkaError> {
        self.failure().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<KafkaError> {
        let failure = self.told.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|(code, _)| KafkaError::MessageProduction(*code))
    }

    /// Takes up the transactional identity: whoever had it before is fenced, and its open transaction is aborted.
    pub(super) fn init(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.client.init_transactions(wait)
    }

    pub(super) fn begin(&self) -> std::result::Result<(), KafkaError> {
        self.client.begin_transaction()
    }

    /// Puts offsets of a group into the transaction.
    pub(super) fn note(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        wait: Duration,
    ) -> std::result::Result<(), KafkaError> {
        self.client.send_offsets_to_transaction(offsets, group, wait)
    }

    /// Commits the open transaction, once all its messages were delivered.
    pub(super) fn commit(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.flush(wait)?;
        self.client.commit_transaction(wait)
    }

    /// Gives the open transaction up.
    pub(super) fn abort(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.client.abort_transaction(wait)
    }

    /// An error of the client as the job tells it.
    pub(super) fn error(&self, doing: &str, error: KafkaError) -> Error {
        let trouble = self.told.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let hint = match (&error.rdkafka_error_code(), trouble) {
            (Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::MessageTimedOut), Some(trouble)) => format!(" ({trouble})"),
            (Some(RDKafkaErrorCode::InvalidTransactionTimeout), _) => {
                "; the broker's transaction.max.timeout.ms is lower than transaction.timeout.ms: set that in options=".to_owned()
            }
            _ => String::new(),
        };
        Error::connector(format!("{}: cannot {doing}: {error}{hint}", self.call)).because(error)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Relaxed: the flag stands for itself.
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
