//! Sends messages: a client whose events have to be polled, and the results that they report.
//!
//! ```text
//!   encoded messages ─► lots of those that need no more than key, value and partition ─► rd_kafka_produce_batch
//!                       one at a time: with a time or headers of its own              ─► rd_kafka_producev
//!   reports           ─► taken by whoever sends or waits, and else by a thread now and then
//! ```
//!
//! A call of the client for each message costs about as much as the message: it finds the topic by its name and reads the clock four
//! times. A lot does that once. Reports are taken where messages are made, because librdkafka allocates and counts a message under locks
//! that another thread, which frees it, would contend for.
//!
//! No wait is unbounded: for room and for deliveries only as long as some come, and no longer than the job runs.

use std::collections::HashMap;
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
use super::message::{Lot, Outlet, Report};
use super::spool::Outgoing;

/// Writers wait while more messages than this are under way.
const UNDER_WAY_MAX: usize = 100_000;
/// The same of their keys and values, in kilobytes; the client holds this much twice.
const UNDER_WAY_KBYTES: usize = 131_072;
/// How many messages are handed over at once.
const LOT_MESSAGES: usize = 512;
/// How long a client may take to learn of partitions that were added.
const UNKNOWN_WAIT: Duration = Duration::from_secs(30);
/// How long a call that can be taken up again waits at once.
const PIECE: Duration = Duration::from_millis(500);
/// How much librdkafka puts into a batch, unless `batch.size` says otherwise.
const BATCH_BYTES: usize = 1_000_000;
/// How long whoever waits for deliveries waits for a report at once.
const REPORT_WAIT: Duration = Duration::from_millis(10);
/// How often reports are taken when nobody sends or waits.
const REPORT_PAUSE: Duration = Duration::from_millis(10);

/// What the events of a client have told.
#[derive(Default)]
pub(super) struct Told {
    /// Why the first message that could not be delivered was not.
    failure: Mutex<Option<RDKafkaErrorCode>>,
    /// What the client said of itself last (it cannot log in, say).
    trouble: Mutex<Option<String>>,
    wakers: Mutex<Vec<Waker>>,
    under_way: Load,
    parts: Mutex<Parts>,
}

/// The parts that messages may be under way of, by the tag that their reports have.
#[derive(Default)]
struct Parts {
    last: usize,
    left: HashMap<usize, Arc<AtomicUsize>>,
}

impl Told {
    /// Another part.
    fn part(&self) -> Part {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody else holds, with nothing under way, are over. Relaxed: nothing is published with the count.
        parts.left.retain(|_, left| Arc::strong_count(left) > 1 || left.load(Ordering::Relaxed) > 0);
        parts.last += 1;
        let (tag, left) = (parts.last, Arc::default());
        parts.left.insert(tag, Arc::clone(&left));
        Part { tag, left }
    }

    /// Messages of a part are no more under way: what went wrong with one is told before.
    fn settle(&self, tag: usize, messages: usize, bytes: usize) {
        if messages == 0 {
            return;
        }
        self.under_way.remove(messages, bytes);
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let left = parts.left.get(&tag).expect("a part stays while messages of it are under way");
        // Pairs with the Acquire in Part::left.
        let was = left.fetch_sub(messages, Ordering::Release);
        assert!(was >= messages, "{messages} messages of {was} were reported");
    }

    fn fail(&self, code: RDKafkaErrorCode) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        // What is thrown away after a failure is not its reason.
        if failure.is_none_or(is_purged) {
            *failure = Some(code);
        }
    }

    fn trouble(&self, error: &KafkaError, reason: &str) {
        let text = if reason.is_empty() { error.to_string() } else { reason.to_owned() };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
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
    fn add(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, messages: usize, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.messages.fetch_sub(messages, Ordering::Release);
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
#[derive(Clone)]
pub(super) struct Part {
    tag: usize,
    left: Arc<AtomicUsize>,
}

impl Part {
    /// Whether it is this one.
    pub(super) fn is(&self, other: &Part) -> bool {
        Arc::ptr_eq(&self.left, &other.left)
    }

    /// How many of them are under way.
    fn left(&self) -> usize {
        // Pairs with the Release where a message was delivered.
        self.left.load(Ordering::Acquire)
    }
}

/// Why messages were not taken.
pub(super) enum Refused {
    /// One of them is not whole.
    Damaged,
    Failed(KafkaError),
}

impl From<KafkaError> for Refused {
    fn from(error: KafkaError) -> Refused {
        Refused::Failed(error)
    }
}

#[derive(Clone)]
struct Context(Arc<Told>);

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.trouble(&error, reason);
    }
}

/// For reports that the crate takes itself: when a transaction is committed or aborted, and at the end.
impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        if let Err((error, _)) = result {
            self.0.fail(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail));
        }
        let (Ok(message) | Err((_, message))) = result;
        self.0.settle(tag, 1, message.key_len() + message.payload_len());
    }
}

/// Whether a message was thrown away because of another failure.
fn is_purged(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
}

/// What the thread that takes reports shares with the producer.
struct Link {
    // Before the client, to which it belongs.
    outlet: Outlet,
    client: BaseProducer<Context>,
    told: Arc<Told>,
    messages_max: usize,
    bytes_max: usize,
}

impl Link {
    /// Takes the next report, for which it waits this long; whether there was one.
    fn serve(&self, wait: Duration) -> bool {
        // Most messages of a report are of one part: counts change once.
        let (mut of, mut messages, mut bytes) = (0, 0, 0);
        let is_any = self.outlet.serve(wait, |report| match report {
            Report::Message { tag, bytes: more, error } => {
                if tag != of {
                    self.told.settle(of, messages, bytes);
                    (of, messages, bytes) = (tag, 0, 0);
                }
                if let Some(code) = error {
                    self.told.fail(code);
                }
                (messages, bytes) = (messages + 1, bytes + more);
            }
            Report::Trouble { error, reason } => self.told.trouble(&KafkaError::Global(error), &reason),
        });
        self.told.settle(of, messages, bytes);
        is_any
    }

    /// Takes the reports that there are.
    fn serve_all(&self) {
        while self.serve(Duration::ZERO) {}
    }

    /// Whether no more messages are to be under way.
    fn is_full(&self) -> bool {
        let load = &self.told.under_way;
        load.messages() > self.messages_max || load.bytes() > self.bytes_max
    }

    /// Whether whoever has waited for room goes on.
    fn has_room(&self) -> bool {
        let load = &self.told.under_way;
        load.messages() <= self.messages_max / 2 && load.bytes() <= self.bytes_max / 2
    }
}

/// A client that sends.
pub(super) struct Producer {
    call: String,
    topic: String,
    cluster: Cluster,
    link: Arc<Link>,
    ending: Ending,
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
        let client = client.map_err(|e| cluster.error(call, &e))?;
        let outlet = Outlet::new(client.client().native_ptr(), topic);
        let outlet = outlet.ok_or_else(|| Error::connector(format!("{call}: the client refuses the name of the topic")))?;
        let messages_max = UNDER_WAY_MAX.min(number("queue.buffering.max.messages", usize::MAX) / 2).max(1);
        let bytes_max = UNDER_WAY_KBYTES.min(number("queue.buffering.max.kbytes", usize::MAX) / 2).max(1) << 10;
        let link = Arc::new(Link { outlet, client, told, messages_max, bytes_max });
        let is_over = Arc::new(AtomicBool::new(false));
        let (served, over) = (Arc::clone(&link), Arc::clone(&is_over));
        let serve = move || {
            // Relaxed: no other memory is published with the flag.
            while !over.load(Ordering::Relaxed) {
                std::thread::park_timeout(REPORT_PAUSE);
                served.serve_all();
                if served.has_room() {
                    for waker in served.told.wakers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                        waker.wake();
                    }
                }
            }
        };
        let thread = client_thread::start("mill-kafka-send", serve)?;
        let (call, topic, cluster, ending) = (call.to_owned(), topic.to_owned(), cluster.clone(), ending.clone());
        let (unknown_since, thread) = (Mutex::new(None), Some(thread));
        Ok(Producer { call, topic, cluster, link, ending, unknown_since, is_over, thread })
    }

    /// Another part, of no messages yet.
    pub(super) fn part(&self) -> Part {
        self.link.told.part()
    }

    /// Whether more messages may be given; if not, the waker is woken once that has changed.
    pub(super) fn is_ready(&self, waker: &Waker) -> bool {
        if self.link.is_full() {
            self.link.serve_all();
        }
        if !self.link.is_full() {
            return true;
        }
        self.wake(waker);
        false
    }

    /// Wakes once there is room.
    pub(super) fn wake(&self, waker: &Waker) {
        let mut wakers = self.link.told.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// Hands over encoded messages that the client has room for, from the first one on; returns how many bytes they are.
    pub(super) fn try_send(&self, messages: &[u8], part: &Part) -> std::result::Result<usize, Refused> {
        let mut rest = messages;
        while !rest.is_empty() {
            let mut lot = Lot::with_capacity(LOT_MESSAGES);
            // Where each message of the lot begins.
            let mut begins = Vec::with_capacity(LOT_MESSAGES);
            let (mut partition, mut single) = (None, None);
            while !rest.is_empty() && lot.len() < LOT_MESSAGES {
                let mut after = rest;
                let message = Outgoing::decode(&mut after).ok_or(Refused::Damaged)?;
                let is_single = message.timestamp.is_some() || !message.headers.is_empty();
                if lot.len() > 0 && (is_single || message.partition != partition) {
                    break;
                }
                begins.push(rest);
                rest = after;
                if is_single {
                    single = Some(message);
                    break;
                }
                partition = message.partition;
                lot.push(message.key, message.value, part.tag);
            }
            let refused = match &single {
                Some(message) => self.send_one(message, part).err().map(|code| (0, code)),
                None => self.send_lot(lot, partition, part),
            };
            self.link.serve_all();
            let partition = single.map_or(partition, |message| message.partition);
            match refused {
                None if partition.is_some() => *self.unknown_since.lock().unwrap_or_else(PoisonError::into_inner) = None,
                None => {}
                Some((place, RDKafkaErrorCode::QueueFull)) => return Ok(messages.len() - begins[place].len()),
                // None of the lot was taken: all are of that partition.
                Some((0, RDKafkaErrorCode::UnknownPartition)) if partition.is_some() && self.may_be_new() => {
                    return Ok(messages.len() - begins[0].len());
                }
                Some((_, code)) => return Err(Refused::Failed(KafkaError::MessageProduction(code))),
            }
        }
        Ok(messages.len())
    }

    /// Hands over messages of one partition; the first that was not taken, and why.
    fn send_lot(&self, lot: Lot<'_>, partition: Option<i32>, part: &Part) -> Option<(usize, RDKafkaErrorCode)> {
        let (messages, bytes) = (lot.len(), lot.bytes());
        // Relaxed: what takes it down again comes after it.
        part.left.fetch_add(messages, Ordering::Relaxed);
        self.link.told.under_way.add(messages, bytes);
        let sent = self.link.outlet.send(lot, partition);
        self.link.told.settle(part.tag, messages - sent.messages, bytes - sent.bytes);
        sent.refused
    }

    /// Hands over a message with a time or headers of its own.
    fn send_one(&self, message: &Outgoing<'_>, part: &Part) -> std::result::Result<(), RDKafkaErrorCode> {
        let mut record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(&self.topic, part.tag);
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
        part.left.fetch_add(1, Ordering::Relaxed);
        self.link.told.under_way.add(1, bytes);
        self.link.client.send(record).map_err(|(error, _)| {
            self.link.told.settle(part.tag, 1, bytes);
            error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
        })
    }

    /// Whether a partition that the client does not know may have been added, as whoever names it has found out: lets the client
    /// look. It gets some time for it.
    fn may_be_new(&self) -> bool {
        let since = *self.unknown_since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        let _ = self.link.client.client().fetch_metadata(Some(&self.topic), Duration::from_secs(1));
        since.elapsed() < UNKNOWN_WAIT
    }

    /// How many messages are under way.
    pub(super) fn under_way(&self) -> usize {
        self.link.told.under_way.messages()
    }

    /// Waits no longer than this without any message that is delivered.
    pub(super) fn patience(&self, wait: Duration) -> Patience<'_> {
        Patience { producer: self, wait, end: Instant::now() + wait, least: usize::MAX }
    }

    /// Hands encoded messages over; waits while there is no room, no longer than this without any message that is delivered.
    pub(super) fn send(&self, mut messages: &[u8], part: &Part, wait: Duration) -> std::result::Result<(), Refused> {
        let mut patience = self.patience(wait);
        loop {
            let taken = self.try_send(messages, part)?;
            messages = &messages[taken..];
            if messages.is_empty() && !self.link.is_full() {
                return Ok(());
            }
            if taken > 0 {
                patience = self.patience(wait);
            }
            loop {
                patience.wait(self.under_way())?;
                if self.link.has_room() {
                    break;
                }
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
        let failure = self.link.told.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|code| KafkaError::MessageProduction(*code))
    }

    /// Takes up the transactional identity: whoever had it before is fenced, and its open transaction is aborted.
    pub(super) fn init(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.in_pieces(wait, |piece| self.link.client.init_transactions(piece))
    }

    pub(super) fn begin(&self) -> std::result::Result<(), KafkaError> {
        self.link.client.begin_transaction()
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
            match self.link.client.send_offsets_to_transaction(offsets, group, piece.min(left)) {
                Err(_) if self.ending.is_set() => return Err(KafkaError::Canceled),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < end => piece *= 2,
                result => return result,
            }
        }
    }

    /// Commits the open transaction, all of whose messages were delivered.
    pub(super) fn commit(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.in_pieces(wait, |piece| self.link.client.commit_transaction(piece))
    }

    /// Aborts the open transaction.
    pub(super) fn abort(&self, wait: Duration) -> std::result::Result<(), KafkaError> {
        self.in_pieces(wait, |piece| self.link.client.abort_transaction(piece))
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
        let trouble = self.link.told.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
    /// A short pause for deliveries, while so many messages are waited for: the client sends what it gathers.
    pub(super) fn pause(&mut self, left: usize) -> std::result::Result<(), KafkaError> {
        self.look(left)?;
        self.producer.link.outlet.hurry();
        if self.producer.link.serve(REPORT_WAIT) {
            self.producer.link.serve_all();
        }
        Ok(())
    }

    /// A short pause for room, while so many messages are under way: the client gathers full batches, unless nothing comes of that.
    fn wait(&mut self, left: usize) -> std::result::Result<(), KafkaError> {
        self.look(left)?;
        if !self.producer.link.serve(REPORT_WAIT) {
            self.producer.link.outlet.hurry();
        }
        Ok(())
    }

    fn look(&mut self, left: usize) -> std::result::Result<(), KafkaError> {
        self.producer.check()?;
        if self.producer.ending.is_set() {
            return Err(KafkaError::Canceled);
        }
        if left < self.least {
            (self.end, self.least) = (Instant::now() + self.wait, left);
        } else if Instant::now() >= self.end {
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        Ok(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // Relaxed: no other memory is published with the flag.
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
