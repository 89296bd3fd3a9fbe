//! Sends the messages of epochs, each epoch once.
//!
//! ```text
//!   recover   init_transactions: fences and aborts ─► read the note ─► send what it lacks ─► take over: a note of this run
//!   commit    begin ─► the messages of the epoch ─► the note ─► commit
//!             whatever goes wrong: init_transactions ─► read the note ─► it has the epoch, or all of that again
//! ```
//!
//! Order: an epoch is sent after the one before it was committed, all by one producer, so the messages of a key are in the topic in
//! the order of the epochs, and within one in that of the stream.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mill_protocol::{Commit, Committer, Delivery, Ending, Epoch, Error, Recovered, Result, Run};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use xxhash_rust::xxh3::xxh3_64;

use super::client::{Asker, Partition, SilentConsumer, group_client, noted};
use super::limits::{Limits, cancelled, offsets_retention};
use super::note::{Note, Told};
use super::producer::{Producer, Refused};
use super::sink::{Shared, Way};
use super::spool::{self, Handle, Place};

/// How long a commit is tried before the job fails; the next start tries again.
const COMMIT_WAIT: Duration = Duration::from_secs(60);
/// How long one call to the cluster may take.
const CALL_WAIT: Duration = Duration::from_secs(30);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A note is rewritten when it is this old, or a quarter as old as the cluster lets it become.
const NOTE_AGE_MAX: Duration = Duration::from_secs(3600);

pub(super) struct KafkaCommitter {
    shared: Arc<Shared>,
    delivery: Delivery,
    job: Option<u64>,
    sink: String,
    restored: Option<Epoch>,
    place: Option<Place>,
    /// The state directory.
    directory: Option<PathBuf>,
    ending: Ending,
    exact: Option<Exact>,
}

/// What an exactly-once sink holds.
struct Exact {
    shared: Arc<Shared>,
    job: u64,
    sink: String,
    /// The transactional identity, and the name of the group of the notes.
    name: String,
    /// The largest batch that the topic takes, if it is known.
    batch_bytes: Option<usize>,
    /// What the note says, as far as this run knows.
    note: Option<Note>,
    /// When it is to be written again, so that the cluster does not forget it.
    renew_at: Instant,
    note_age: Duration,
    link: Option<Link>,
    ending: Ending,
}

/// A connection that holds the transactional identity.
struct Link {
    producer: Producer,
    /// Only its name counts: nobody joins the group.
    group: BaseConsumer<SilentConsumer>,
}

/// Why an attempt came to nothing.
enum Failure {
    /// It may succeed when it is done again, unless it did already.
    Again(Error),
    /// It never will.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

impl KafkaCommitter {
    pub(super) fn new(shared: Arc<Shared>) -> KafkaCommitter {
        let (delivery, sink) = (Delivery::ExactlyOnce, String::new());
        let ending = Ending::default();
        KafkaCommitter { shared, delivery, job: None, sink, restored: None, place: None, directory: None, ending, exact: None }
    }

    fn open(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let asker = Asker::new(&shared.call(), &shared.cluster)?;
        let limits = Arc::new(Limits::learn(&shared.call(), &shared.cluster, &asker, &shared.topic)?);
        match (self.delivery, self.job, &self.place) {
            (Delivery::ExactlyOnce, Some(job), Some(place)) => {
                let mut exact = self.exact(job, &limits);
                let kept = offsets_retention(&shared.cluster, &asker)?;
                exact.note_age = kept.map_or(NOTE_AGE_MAX, |kept| NOTE_AGE_MAX.min(kept / 4));
                shared.set_way(Way::Spooled(place.clone(), limits));
                self.exact = Some(exact);
            }
            _ => {
                let batch_bytes = limits.settings.bytes_max;
                let producer = Producer::new(&shared.call(), &shared.cluster, &shared.topic, None, batch_bytes, &self.ending)?;
                shared.set_way(Way::Direct(Arc::new(producer), limits));
            }
        }
        Ok(())
    }

    fn exact(&self, job: u64, limits: &Limits) -> Exact {
        let (shared, sink, ending) = (Arc::clone(&self.shared), self.sink.clone(), self.ending.clone());
        // With the topic: a job that continues from a copy of a state, and writes elsewhere, is another one to the cluster.
        let place = format!("{sink}\0{}", shared.topic);
        let name = format!("millstream-{job:016x}-{:016x}", xxh3_64(place.as_bytes()));
        let (batch_bytes, renew_at) = (limits.settings.bytes_max, Instant::now());
        Exact { shared, job, sink, name, batch_bytes, note: None, renew_at, note_age: NOTE_AGE_MAX, link: None, ending }
    }

    /// What a run that sent in transactions has left unsent: this one promises less, and still takes that up as the other would have.
    fn deliver_pending(&self, recovered: &Recovered<'_>) -> Result<()> {
        let Some(own) = &self.place else { return Ok(()) };
        let is_pending = !recovered.is_settled && recovered.commits.iter().any(|commit| !commit.handle.is_empty());
        if let (true, Some(job), Way::Direct(_, limits)) = (is_pending, self.job, self.shared.way()) {
            let mut exact = self.exact(job, &limits);
            exact.take_up()?;
            exact.commit(recovered.commits, &self.spool_of(recovered, own))?;
        }
        own.clear()
    }

    /// Where the files are that the checkpoint names: it may be elsewhere, if the job begins with one of another directory.
    fn spool_of(&self, recovered: &Recovered<'_>, own: &Place) -> Place {
        recovered.directory.map_or_else(|| own.clone(), |directory| Place::new(directory, &self.sink))
    }

    /// Whether the checkpoint was taken while the sink wrote another topic.
    ///
    /// # Errors
    /// When it is the job's own: what it has written is there, and would not be continued here.
    fn is_moved(&self, recovered: &Recovered<'_>) -> Result<bool> {
        let Some(was) = recovered.target.filter(|was| *was != self.shared.topic) else { return Ok(false) };
        if recovered.directory != self.directory.as_deref() {
            return Ok(true);
        }
        Err(Error::checkpoint(format!(
            "{}: the topic was {was:?} when the checkpoint was taken: what the job has written is there, and would not be continued \
             here; write to the former topic again, or give another state directory, with Checkpoint(restore_from=) to begin with \
             what is kept here",
            self.shared.call()
        )))
    }
}

fn damaged(shared: &Shared, epoch: Epoch) -> Error {
    Error::checkpoint(format!("{}: the messages kept for epoch {} are damaged, or not those of this sink", shared.call(), epoch.0))
}

impl Committer for KafkaCommitter {
    fn promise(&mut self, run: &Run<'_>) -> Result<()> {
        let call = self.shared.call();
        self.delivery = match (self.shared.delivery, run.delivery) {
            (Some(Delivery::ExactlyOnce), _) if run.job.is_none() => {
                return Err(Error::plan(format!(
                    "{call}: delivery=\"exactly_once\" needs a checkpoint, by which a restart knows what was sent; run the job with \
                     checkpoint=, or leave delivery out"
                )));
            }
            (Some(Delivery::ExactlyOnce), Delivery::AtLeastOnce | Delivery::AtMostOnce) => {
                return Err(Error::plan(format!(
                    "{call}: delivery=\"exactly_once\" cannot be kept in a job that promises less; leave delivery out, or run it with \
                     checkpoint=mill.Checkpoint(path, mode=\"exactly_once\")"
                )));
            }
            (Some(own), _) => own,
            (None, of_job) => of_job,
        };
        self.job = run.job;
        self.sink = run.sink.to_owned();
        self.restored = run.restored;
        self.place = run.directory.map(|directory| Place::new(directory, run.sink));
        self.directory = run.directory.map(Path::to_owned);
        self.ending = run.ending.cloned().unwrap_or_default();
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.open()?;
        if let Some(place) = &self.place {
            place.clear()?;
        }
        let Some(exact) = &mut self.exact else { return Ok(()) };
        exact.take_up()?;
        if let Some(note) = exact.note.as_ref().filter(|note| note.epoch > 0) {
            return Err(Error::connector(format!(
                "{call}: the topic has the output of this job's epochs up to {}, and the job starts from nothing: its checkpoints are \
                 gone; put the state directory back, or give another one",
                note.epoch,
                call = self.shared.call()
            )));
        }
        exact.take_over(0)
    }

    fn files(&self, commit: &Commit) -> Vec<String> {
        let handle = self.place.as_ref().and_then(|place| Handle::decode(&commit.handle, place));
        handle.and_then(|handle| handle.file()).into_iter().collect()
    }

    fn commit(&mut self, commits: &[Commit]) -> Result<()> {
        let (Some(exact), Some(place)) = (&mut self.exact, &self.place) else { return Ok(()) };
        exact.commit(commits, place)
    }

    fn keep_up(&mut self) -> Result<()> {
        self.exact.as_mut().map_or(Ok(()), Exact::keep_up)
    }

    fn receipt(&self) -> Option<String> {
        self.exact.as_ref()?.note.as_ref()?.encode().ok()
    }

    fn recover(&mut self, recovered: &Recovered<'_>) -> Result<()> {
        let call = self.shared.call();
        let is_moved = self.is_moved(recovered)?;
        self.open()?;
        if self.exact.is_none() {
            return self.deliver_pending(recovered);
        }
        let from = self.place.as_ref().map(|own| self.spool_of(recovered, own));
        let (Some(exact), Some(place), Some(from)) = (&mut self.exact, &self.place, from) else { return Ok(()) };
        exact.take_up()?;
        let is_pending = !recovered.is_settled && recovered.commits.iter().any(|commit| !commit.handle.is_empty());
        let restored = self.restored.map_or(0, |epoch| epoch.0);
        let receipt = recovered.receipt.filter(|_| !is_moved).and_then(|text| Note::decode(text, exact.job, &exact.sink));
        match (&exact.note, receipt) {
            (Some(note), _) if note.epoch > restored => {
                return Err(Error::connector(format!(
                    "{call}: the topic has the output of checkpoint {}, later than {restored}, which was restored, and it would come \
                     again: restore the later checkpoint, or write into another topic with another state directory",
                    note.epoch
                )));
            }
            (Some(note), Some(receipt)) if note.epoch < receipt.epoch => {
                return Err(Error::checkpoint(format!(
                    "{call}: the checkpoint knows that epoch {} was committed, and group {:?} of the cluster says {}: the cluster was put \
                     back from a copy, or the group's offset was changed; nothing was sent",
                    receipt.epoch, exact.name, note.epoch
                )));
            }
            (None, _) if is_pending && !is_moved => return Err(exact.note_is_gone(restored)),
            _ => {}
        }
        if !recovered.is_settled {
            exact.commit(recovered.commits, &from)?;
        }
        exact.take_over(restored)?;
        place.clear()
    }

    fn abort(&mut self) -> Result<()> {
        // What was sent is committed, or is aborted when the identity is taken up again; what waits is in files that the next
        // recovery removes, or is given up with its writer.
        if let Some(exact) = &mut self.exact {
            exact.link = None;
        }
        Ok(())
    }
}

impl Drop for KafkaCommitter {
    fn drop(&mut self) {
        // Its client goes before the job is over.
        self.shared.set_way(Way::Undecided);
    }
}

impl Exact {
    /// Commits epochs in their order.
    fn commit(&mut self, commits: &[Commit], place: &Place) -> Result<()> {
        let mut epochs: BTreeMap<u64, Vec<Handle>> = BTreeMap::new();
        // An empty handle is of a run that sent as records came: they were delivered before their checkpoint.
        for commit in commits.iter().filter(|commit| !commit.handle.is_empty()) {
            let handle = Handle::decode(&commit.handle, place).ok_or_else(|| damaged(&self.shared, commit.epoch))?;
            epochs.entry(commit.epoch.0).or_default().push(handle);
        }
        for (epoch, handles) in epochs {
            let run = handles[0].run;
            if handles.iter().any(|handle| handle.run != run) {
                return Err(Error::checkpoint(format!("{}: epoch {epoch} has messages of two runs", self.shared.call())));
            }
            let is_there = match &self.note {
                None => false,
                Some(note) => match note.tells(run, epoch) {
                    Told::Committed => true,
                    Told::NotCommitted => false,
                    Told::Unknown => return Err(self.taken_by_another()),
                },
            };
            if !is_there {
                let note = match &self.note {
                    Some(note) => note.of_run(run, epoch),
                    None => Note::first(self.job, &self.sink, run, epoch),
                };
                self.settle(&note, &handles, place)?;
            }
            for handle in &handles {
                handle.remove(place);
            }
        }
        Ok(())
    }

    /// Takes up the transactional identity and reads the note.
    fn take_up(&mut self) -> Result<()> {
        let end = Instant::now() + CALL_WAIT;
        self.attempt(end, |exact| exact.connect())
    }

    /// Notes that this run holds the sink from now on.
    fn take_over(&mut self, restored: u64) -> Result<()> {
        let run = self.shared.run();
        let note = match &self.note {
            Some(note) => note.taken_over(run),
            None => Note::first(self.job, &self.sink, run, restored),
        };
        self.settle(&note, &[], &nowhere())
    }

    /// Rewrites the note if the cluster might forget it. A cluster that is away is asked again later: there is time.
    fn keep_up(&mut self) -> Result<()> {
        let Some(note) = self.note.clone().filter(|_| Instant::now() >= self.renew_at) else { return Ok(()) };
        self.renew_at = Instant::now() + self.note_age / 4;
        let mut renew = || {
            if self.link.is_none() {
                self.connect()?;
                self.check_note(Some(&note))?;
            }
            self.send(&note, &[], &nowhere())
        };
        match renew() {
            Ok(()) => self.renew_at = Instant::now() + self.note_age,
            Err(Failure::Again(_)) => self.link = None,
            Err(Failure::Final(error)) => {
                self.link = None;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the note is what this run has left.
    fn check_note(&self, left: Option<&Note>) -> std::result::Result<(), Failure> {
        match (&self.note, left) {
            (found, left) if found.as_ref() == left => Ok(()),
            (None, Some(left)) => Err(Failure::Final(self.note_is_gone(left.epoch))),
            _ => Err(Failure::Final(self.taken_by_another())),
        }
    }

    fn note_is_gone(&self, epoch: u64) -> Error {
        Error::checkpoint(format!(
            "{}: whether the output of checkpoint {epoch} is in the topic is not known: the cluster has no offset of group {:?}, in \
             which it was noted (the job was away for longer than offsets.retention.minutes, or the topic or the group was deleted); \
             nothing was sent: look whether it is there, and start over with another state directory",
            self.shared.call(),
            self.name
        ))
    }

    /// Makes these messages and the note visible, together and once.
    fn settle(&mut self, note: &Note, handles: &[Handle], place: &Place) -> Result<()> {
        let before = self.note.clone();
        let end = Instant::now() + COMMIT_WAIT;
        self.attempt(end, |exact| {
            if exact.link.is_none() {
                exact.connect()?;
                if exact.note.as_ref() == Some(note) {
                    // It took effect, and only the answer was lost.
                    return Ok(());
                }
                exact.check_note(before.as_ref())?;
            }
            exact.send(note, handles, place)
        })?;
        self.note = Some(note.clone());
        self.renew_at = Instant::now() + self.note_age;
        Ok(())
    }

    /// Tries until it succeeds, never will, or the time is over. After a failure everything begins with a new connection.
    fn attempt(&mut self, end: Instant, mut attempt: impl FnMut(&mut Exact) -> std::result::Result<(), Failure>) -> Result<()> {
        let mut pause = Duration::from_millis(50);
        loop {
            let error = match attempt(self) {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => {
                    self.link = None;
                    return Err(error);
                }
                Err(Failure::Again(error)) => error,
            };
            self.link = None;
            if self.ending.is_set() {
                return Err(cancelled(&self.shared.call()));
            }
            if Instant::now() >= end {
                return Err(error);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Connects, fences whoever had the identity before, and reads the note.
    fn connect(&mut self) -> std::result::Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let call = shared.call();
        shared.reach("kafka.connect")?;
        let (name, batch_bytes) = (Some(self.name.as_str()), self.batch_bytes);
        let producer = Producer::new(&call, &shared.cluster, &shared.topic, name, batch_bytes, &self.ending)?;
        producer.init(CALL_WAIT).map_err(|e| failure(&producer, "take up its transactional identity", e))?;
        let group = group_client(&call, &shared.cluster, &self.name)?;
        let found = noted(&call, &group, &self.name, &[self.partition()], CALL_WAIT, &self.ending).map_err(Failure::Again)?;
        self.note = match found.into_iter().flatten().next() {
            None => None,
            Some((_, text)) => Some(Note::decode(&text, self.job, &self.sink).ok_or_else(|| {
                Failure::Final(Error::connector(format!(
                    "{call}: group {:?} of the cluster holds offsets of somebody else ({text:?})",
                    self.name
                )))
            })?),
        };
        self.link = Some(Link { producer, group });
        Ok(())
    }

    /// One transaction.
    fn send(&mut self, note: &Note, handles: &[Handle], place: &Place) -> std::result::Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        let partition = self.partition();
        let Some(Link { producer, group }) = &self.link else {
            return Err(Failure::Final(Error::internal("the sink has just connected")));
        };
        shared.reach("kafka.begin")?;
        producer.begin().map_err(|e| failure(producer, "begin a transaction", e))?;
        let (mut failed, part) = (None, producer.part());
        for handle in handles {
            let sent = handle.for_each_piece(place, |messages| {
                producer.send(messages, &part, COMMIT_WAIT).map_err(|refused| match refused {
                    Refused::Damaged => spool::damaged("a message is cut off"),
                    Refused::Failed(e) => {
                        failed = Some(failure(producer, "send", e));
                        Error::internal("told below")
                    }
                })
            });
            if let Err(error) = sent {
                let _ = producer.abort(CALL_WAIT);
                return Err(failed.unwrap_or(Failure::Final(error)));
            }
        }
        shared.reach("kafka.sent")?;
        let mut offsets = TopicPartitionList::new();
        {
            let mut element = offsets.add_partition(&partition.topic, partition.number);
            element.set_offset(Offset::Offset(note.epoch as i64)).map_err(|e| failure(producer, "note the epoch", e))?;
            element.set_metadata(note.encode()?);
        }
        let group = group
            .group_metadata()
            .ok_or_else(|| Failure::Final(Error::internal("a consumer with a group has its metadata")))?;
        // The messages first: what cannot be delivered is reported as such.
        producer.flush(&part, COMMIT_WAIT).map_err(|e| failure(producer, "deliver what was sent", e))?;
        producer.note(&offsets, &group, CALL_WAIT).map_err(|e| failure(producer, "note the epoch", e))?;
        shared.reach("kafka.noted")?;
        producer.commit(CALL_WAIT).map_err(|e| failure(producer, "commit the transaction", e))?;
        shared.reach("kafka.committed")?;
        Ok(())
    }

    /// Where the note is: the first partition of the topic, which every topic has.
    fn partition(&self) -> Partition {
        Partition { topic: self.shared.topic.clone(), number: 0 }
    }

    fn taken_by_another(&self) -> Error {
        Error::connector(format!(
            "{}: another run of this job has taken over (group {:?} of the cluster says so): a job runs once at a time, and a job that \
             continues from a copy of its state needs a topic of its own",
            self.shared.call(),
            self.name
        ))
    }
}

/// The place of no files.
fn nowhere() -> Place {
    Place::new(Path::new(""), "")
}

/// Whether an error of the client passes when everything is started over.
fn failure(producer: &Producer, doing: &str, error: KafkaError) -> Failure {
    use RDKafkaErrorCode as Code;
    let is_final = matches!(
        error.rdkafka_error_code(),
        Some(
            Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::MessageSizeTooLarge
                | Code::InvalidTransactionTimeout
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::InvalidRecord
                | Code::InvalidTimestamp
                | Code::InvalidTopic
                | Code::InvalidArgument
                | Code::UnsupportedVersion
                | Code::Authentication
                | Code::SaslAuthenticationFailed
        )
    );
    let error = producer.error(doing, error);
    if is_final { Failure::Final(error) } else { Failure::Again(error) }
}
