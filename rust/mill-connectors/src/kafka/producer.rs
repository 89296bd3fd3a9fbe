//! Sends messages: a client whose events have to be polled, and the results that they report.
//!
//! No wait is unbounded: for room and for deliveries only as long as some come, and no longer than the job runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mill_protocol::{Ending, Error, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::client_thread;
use super::client::missing_permission;
use super::config::Cluster;
use super::limits::cancelled;
use super::spool::Outgoing;

/// Writers wait while more messages than this are under way.
const UNDER_WAY_MAX: usize = 100_000;
/// The same of their keys and values, in kilobytes; the client holds this much twice.
const UNDER_WAY_KBYTES: usize = 131_072;
/// How long a client may take to learn of partitions that were added.
const UNKNOWN_WAIT: Duration = Duration::from_secs(30);
/// How long a call that can be taken up again waits at once.
const PIECE: Duration = Duration::from_millis(500);
/// How much librdkafka puts into a batch, unless `batch.size` says otherwise.
const BATCH_BYTES: usize = 1_000_000;
/// How long events are waited for at once.
const POLL: Duration = Duration::from_millis(20);

/// What the events of a client have told.
#[derive(Default)]
pub(super) struct Told {
    /// Why the first message that could not be delivered was not.
    failure: Mutex<Option<RDKafkaErrorCode>>,
    /// What the client said of itself last (it cannot log in, say).
    trouble: Mutex<Option<String>>,
    wakers: Mutex<Vec<Waker>>,
    under_way: Load,
}

/// How much has been handed to the client and is neither delivered nor given up.
#[derive(Default)]
struct Load {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Load {
    // Relaxed in all of them: counts with which no other memory is published. A failure is left in a mutex before its count goes down, and is
    // looked for after the count was seen.
    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.messages.fetch_sub(1, Ordering::Release);
    }

    fn messages(&self) -> usize {
        // Pairs with the Release in remove.
        self.messages.load(Ordering::Acquire)
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Messages that are waited for together: those of an epoch and a task.
#[derive(Clone, Default)]
pub(super) struct Part(Arc<AtomicUsize>);

impl Part {
    /// Whether it is this one.
    pub(super) fn is(&self, other: &Part) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// How many of them are under way.
    fn left(&self) -> usize {
        // Pairs with the Release where a message was delivered.
        self.0.load(Ordering::Acquire)
    }
}

/// Why a message was not taken.
pub(super) enum Refused {
    /// There is no room.
    Full,
    Failed(KafkaError),
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
    type DeliveryOpaque = Arc<AtomicUsize>;

    fn delivery(&self, result: &DeliveryResult<'_>, part: Arc<AtomicUsize>) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            let mut failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
            // What is thrown away after a failure is not its reason.
            if failure.is_none_or(is_purged) {
                *failure = Some(code);
            }
        }
        let (Ok(message) | Err((_, message))) = result;
        self.0.under_way.remove(message.key_len() + message.payload_len());
        // Pairs with the Acquire in Part::left.
        part.fetch_sub(1, Ordering::Release);
    }
}

/// Whether a message was thrown away because of another failure.
fn is_purged(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
}

/// A client that sends.
pub(super) struct Producer {
    call: String,
    topic: String,
    cluster: Cluster,
    client: Arc<BaseProducer<Context>>,
    told: Arc<Told>,
    ending: Ending,
    messages_max: usize,
    bytes_max: usize,
    /// When a partition was first asked for that the client did not know.
    unknown_since: Mutex<Option<Instant>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    /// A client for this topic, with a transactional identity if its messages are to be sent in transactions. A batch has no more
    /// than `batch_bytes`, if the topic takes no larger ones.
    pub(super) fn new(
        call: &str,
        cluster: &Cluster,
        topic: &str,
        transactional: Option<&str>,
        batch_bytes: Option<usize>,
        ending: &Ending,
    ) -> Result<Producer> {
        let number = |option: &str, unless_set: usize| cluster.option(option).and_then(|text| text.parse().ok()).unwrap_or(unless_set);
        let batch_bytes = batch_bytes.unwrap_or(usize::MAX).min(number("batch.size", BATCH_BYTES)).to_string();
        let mut ours = vec![("enable.idempotence", "true"), ("delivery.report.only.error", "false"), ("batch.size", batch_bytes.as_str())];
        if let Some(id) = transactional {
            ours.push(("transactional.id", id));
        }
        // Keys go to the partitions that other clients send them to, but those of librdkafka.
        let defaults = [("partitioner", "murmur2_random"), ("queue.buffering.max.messages", "1000000"), ("queue.buffering.max.kbytes", "262144")];
        let told = Arc::new(Told::default());
        let client = cluster.config(&defaults, &ours).create_with_context::<_, BaseProducer<Context>>(Context(Arc::clone(&told)));
        let client = Arc::new(client.map_err(|e| cluster.error(call, &e))?);
        let messages_max = UNDER_WAY_MAX.min(number("queue.buffering.max.messages", usize::MAX) / 2).max(1);
        let bytes_max = UNDER_WAY_KBYTES.min(number("queue.buffering.max.kbytes", usize::MAX) / 2).max(1) << 10;
        let is_over = Arc::new(AtomicBool::new(false));
        let (polled, over, news) = (Arc::clone(&client), Arc::clone(&is_over), Arc::clone(&told));
        let poll = move || {
            // Relaxed: no other memory is published with the flag.
            while !over.load(Ordering::Relaxed) {
                polled.poll(POLL);
                let load = &news.under_way;
                if load.messages() <= messages_max / 2 && load.bytes() <= bytes_max / 2 {
                    for waker in news.wakers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                        waker.wake();
                    }
                }
            }
        };
        let thread = client_thread::start("mill-kafka-send", poll)?;
        let (call, topic, cluster, ending) = (call.to_owned(), topic.to_owned(), cluster.clone(), ending.clone());
        let (unknown_since, thread) = (Mutex::new(None), Some(thread));
        Ok(Producer { call, topic, cluster, client, told, ending, messages_max, bytes_max, unknown_since, is_over, thread })
    }

    /// Whether more messages may be given; if not, the waker is woken once that has changed.
    pub(super) fn is_ready(&self, waker: &Waker) -> bool {
        let load = &self.told.under_way;
        if load.messages() <= self.messages_max && load.bytes() <= self.bytes_max {
            return true;
        }
        self.wake(waker);
        false
    }

    /// Wakes once there is room.
    pub(super) fn wake(&self, waker: &Waker) {
        let mut wakers = self.told.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Hands a message over, if there is room.
    pub(super) fn try_send(&self, message: &Outgoing<'_>, part: &Part) -> std::result::Result<(), Refused> {
        let mut record: BaseRecord<'_, [u8], [u8], Arc<AtomicUsize>> = BaseRecord::with_opaque_to(&self.topic, Arc::clone(&part.0));
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
        let bytes = message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len);
        // Relaxed: what takes it down again comes after it.
        part.0.fetch_add(1, Ordering::Relaxed);
        self.told.under_way.add(bytes);
        let sent = self.client.send(record);
        if sent.is_ok() && message.partition.is_some() {
            *self.unknown_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        sent.map_err(|(error, _)| {
            part.0.fetch_sub(1, Ordering::Relaxed);
            self.told.under_way.remove(bytes);
            match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Refused::Full,
                KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition) if self.may_be_new() => Refused::Full,
                other => Refused::Failed(other),
            }
        })
    }

    /// Whether a partition that the client does not know may have been added, as whoever names it has found out: lets the client
    /// look. It gets some time for it.
    fn may_be_new(&self) -> bool {
        let since = *self.unknown_since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        let _ = self.client.client().fetch_metadata(Some(&self.topic), Duration::from_secs(1));
        since.elapsed() < UNKNOWN_WAIT
    }

    /// How many messages are under way.
    pub(super) fn under_way(&self) -> usize {
        self.told.under_way.messages()
    }

    /// Waits no longer than this without any message that is delivered.
    pub(super) fn patience(&self, wait: Duration) -> Patience<'_> {
        Patience { producer: self, wait, end: Instant::now() + wait, least: usize::MAX }
    }

    /// Hands a message over; waits while there is no room, no longer than this without any message that is delivered.
    pub(super) fn send(&self, message: &Outgoing<'_>, part: &Part, wait: Duration) -> std::result::Result<(), KafkaError> {
        let mut patience = self.patience(wait);
        loop {
            match self.try_send(message, part) {
                Ok(()) => return Ok(()),
                Err(Refused::Failed(error)) => return Err(error),
                Err(Refused::Full) => patience.pause(self.under_way())?,
            }
        }
    }

    /// Waits until all messages of a part have been delivered; no longer than this without any that is.
    pub(super) fn flush(&self, part: &Part, wait: Duration) -> std::result::Result<(), KafkaError> {
        let mut patience = self.patience(wait);
        loop {
            let left = part.left();
            if left == 0 {
                // The last event may tell of a failure: it is taken before the count goes down.
                return self.check();
            }
            patience.pause(left)?;
        }
    }

    /// Whether all messages were delivered so far, or still may be.
    pub(super) fn check(&self) -> std::result::Result<(), KafkaError> {
        self.failure().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<KafkaError> {
        let failure = self.told.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|code| KafkaError::MessageProduction(*code))
    }

    /// Takes up the transactional identity: whoever had it before is fenced, and its open transaction is aborted.
    pub(super) fn init(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.in_pieces(wait, |piece| self.client.init_transactions(piece))
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
        let end = Instant::now() + wait;
        // Unlike the others it starts over after a wait, so the pieces get longer.
        let mut piece = 2 * PIECE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.client.send_offsets_to_transaction(offsets, group, piece.min(left)) {
                Err(_) if self.ending.is_set() => return Err(KafkaError::Canceled),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => piece *= 2,
                result => return result,
            }
        }
    }

    /// Commits the open transaction, all of whose messages were delivered.
    pub(super) fn commit(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.in_pieces(wait, |piece| self.client.commit_transaction(piece))
    }

    /// Aborts the open transaction.
    pub(super) fn abort(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.in_pieces(wait, |piece| self.client.abort_transaction(piece))
    }

    /// A call that goes on in the background while it is not waited for, and is taken up by being called again.
    fn in_pieces(
        &self,
        wait: Duration,
        call: impl Fn(Duration) -> std::result::Result<(), KafkaError>,
    ) -> std::result::Result<(), KafkaError> {
        let end = Instant::now() + wait;
        loop {
            if self.ending.is_set() {
                return Err(KafkaError::Canceled);
            }
            match call(PIECE) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => {
                    // One that returns at once would be called without a pause.
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result,
            }
        }
    }

    /// An error of the client as the job tells it.
    pub(super) fn error(&self, doing: &str, error: KafkaError) -> Error {
        if matches!(error, KafkaError::Canceled) {
            return cancelled(&self.call);
        }
        let trouble = self.told.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let trouble = trouble.map(|text| self.cluster.without_secrets(&text));
        let hint = match (&error.rdkafka_error_code(), trouble) {
            (Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::MessageTimedOut), Some(trouble)) => format!(" ({trouble})"),
            (Some(code), Some(trouble)) if is_purged(*code) => format!(" ({trouble})"),
            (Some(RDKafkaErrorCode::InvalidTransactionTimeout), _) => {
                "; the broker's transaction.max.timeout.ms is lower than transaction.timeout.ms: set that in options=".to_owned()
            }
            (Some(code), _) => missing_permission(*code).unwrap_or_default().to_owned(),
            _ => String::new(),
        };
        let text = self.cluster.without_secrets(&error.to_string());
        Error::connector(format!("{}: cannot {doing}: {text}{hint}", self.call)).because(error)
    }
}

/// Waits while something is delivered now and then.
pub(super) struct Patience<'p> {
    producer: &'p Producer,
    wait: Duration,
    end: Instant,
    least: usize,
}

impl Patience<'_> {
    /// A short pause, while so many messages are waited for.
    pub(super) fn pause(&mut self, left: usize) -> std::result::Result<(), KafkaError> {
        self.producer.check()?;
        if self.producer.ending.is_set() {
            return Err(KafkaError::Canceled);
        }
        if left < self.least {
            (self.end, self.least) = (Instant::now() + self.wait, left);
        } else if Instant::now() >= self.end {
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        // Lets the client send what it gathers, and gives it time for it.
        let _ = self.producer.client.flush(Duration::from_millis(10));
        Ok(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Relaxed: no other memory is published with the flag.
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
