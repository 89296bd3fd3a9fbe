//! Topics as a source.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use mill_frame::types::type_name;
use mill_protocol::{Discovery, Error, PositionListener, Result, Source, SourceChanges, SourceProperties, Split, SplitReader, SplitState};
use regex::Regex;

use super::avro::Avro;
use super::client::{Asker, Partition};
use super::config::{Cluster, Shown};
use super::format;
use super::lag::GroupCommits;
use super::offsets;
use super::reader::{Connection, KafkaReader};
use crate::json::check_types;
use crate::looking::Looking;
use crate::nearest::did_you_mean;
use crate::objects::check_read;

/// How often new partitions are looked for, unless `topic.metadata.refresh.interval.ms` says otherwise.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);

/// What a message is.
#[derive(Clone, Debug)]
pub enum KafkaFormat {
    /// The value is a JSON object with these columns.
    Json(SchemaRef),
    /// A change event of Debezium: the columns of the rows, and which of them are the key.
    Debezium {
        /// The columns of a row.
        columns: SchemaRef,
        /// The names of those that the key of a message has.
        key: Vec<String>,
    },
    /// The value is a record in Avro.
    Avro(Arc<Avro>),
    /// Bytes: the columns `key` and `value`.
    Raw,
}

/// What is known of a message beside its value, as a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metadata {
    /// `_key`, bytes.
    Key,
    /// `_topic`.
    Topic,
    /// `_partition`.
    Partition,
    /// `_offset`.
    Offset,
    /// `_timestamp`.
    Timestamp,
    /// `_headers`, a list of names with bytes.
    Headers,
}

/// Where a job begins that has no checkpoint to continue from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first message there is.
    Earliest,
    /// After the last one.
    Latest,
    /// The committed offset of the consumer group.
    Committed,
    /// At the first message that is not older than this, in milliseconds since 1970.
    Time(i64),
    /// At these offsets.
    Offsets(HashMap<Partition, i64>),
}

/// Where a bounded input ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// At what can be read when the job starts.
    End,
    /// Before the first message that is not older than this, in milliseconds since 1970.
    Time(i64),
    /// Before these offsets.
    Offsets(HashMap<Partition, i64>),
}

/// How topics are read.
#[derive(Clone)]
pub struct KafkaSourceOptions {
    /// What a message is.
    pub format: KafkaFormat,
    /// What is added as columns.
    pub metadata: Vec<Metadata>,
    /// Where to begin.
    pub start: Start,
    /// Where to end; `None`: nowhere.
    pub until: Option<Until>,
    /// The consumer group whose offsets [`Start::Committed`] means.
    pub group: Option<String>,
    /// Options of librdkafka.
    pub options: Vec<(String, String)>,
}

impl fmt::Debug for KafkaSourceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KafkaSourceOptions { format, metadata, start, until, group, options } = self;
        let mut shown = f.debug_struct("KafkaSourceOptions");
        shown.field("format", format).field("metadata", metadata).field("start", start).field("until", until).field("group", group);
        shown.field("options", &Shown(options)).finish()
    }
}

/// Topics of a cluster as a source: a split is a partition.
#[derive(Clone)]
pub struct KafkaSource {
    shared: Arc<Shared>,
    /// The columns that are read.
    schema: SchemaRef,
}

/// Which topics are read.
pub(super) enum Topics {
    Named(Vec<String>),
    Like(Box<Regex>),
}

/// What the source, its readers and whoever looks for new partitions share.
pub(super) struct Shared {
    pub(super) cluster: Cluster,
    topics: Topics,
    shown: String,
    pub(super) format: KafkaFormat,
    pub(super) metadata: Vec<Metadata>,
    pub(super) start: Start,
    pub(super) until: Option<Until>,
    pub(super) group: Option<String>,
    connection: Mutex<Weak<Connection>>,
}

impl Shared {
    /// The call as the user wrote it, for messages.
    pub(super) fn call(&self) -> String {
        format!("read_kafka({:?}, {})", self.cluster.brokers, self.shown)
    }

    /// Where a partition is read that does not have what was wanted.
    ///
    /// # Errors
    /// Unless the user has said where.
    pub(super) fn reset(&self, partition: &Partition, (first, last): (i64, i64), why: &str) -> Result<i64> {
        match self.cluster.option("auto.offset.reset") {
            Some("earliest" | "smallest" | "beginning") => Ok(first),
            Some("latest" | "largest" | "end") => Ok(last),
            _ => Err(Error::connector(format!(
                "{}: {why}; {partition} has messages from offset {first} to {last}: options={{\"auto.offset.reset\": \"earliest\"}} reads \
                 all that is there, \"latest\" what comes from now on",
                self.call()
            ))),
        }
    }

    /// The partitions there are now of what is read.
    fn partitions(&self, asker: &Asker) -> Result<Vec<Partition>> {
        let there = asker.topics()?;
        let mut found = Vec::new();
        let mut add = |topic: &str, partitions: i32| {
            found.extend((0..partitions).map(|number| Partition { topic: topic.to_owned(), number }));
        };
        match &self.topics {
            Topics::Named(names) => {
                for name in names {
                    add(name, asker.find(&there, name)?);
                }
            }
            Topics::Like(pattern) => {
                for (name, _) in there.iter().filter(|(name, _)| pattern.is_match(name)) {
                    add(name, asker.find(&there, name)?);
                }
                if found.is_empty() && self.until.is_some() {
                    return Err(Error::connector(format!("{}: no topic matches the pattern", self.call())));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// The client that all readers of a run share.
    fn connection(&self) -> Result<Arc<Connection>> {
        let mut held = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = held.upgrade() {
            return Ok(connection);
        }
        let connection = Arc::new(Connection::new(&self.call(), &self.cluster)?);
        *held = Arc::downgrade(&connection);
        Ok(connection)
    }
}

impl KafkaSource {
    /// The messages of these topics; one that begins with `^` is a pattern, and is alone.
    ///
    /// # Errors
    /// When something is wrong that can be known without asking the cluster.
    pub fn new(brokers: &str, topics: Vec<String>, options: KafkaSourceOptions) -> Result<KafkaSource> {
        let KafkaSourceOptions { format, metadata, start, until, group, options } = options;
        let call = "read_kafka()";
        let cluster = Cluster::new(call, brokers, options)?;
        let shown = match topics.as_slice() {
            [one] => format!("{one:?}"),
            _ => format!("{topics:?}"),
        };
        if topics.is_empty() || topics.iter().any(String::is_empty) {
            return Err(Error::plan(format!("{call} needs the name of a topic")));
        }
        let topics = match topics.iter().find(|name| name.starts_with('^')) {
            None => {
                let mut topics = topics;
                topics.sort();
                topics.dedup();
                Topics::Named(topics)
            }
            Some(_) if topics.len() > 1 => {
                return Err(Error::plan(format!("{call}: a pattern must be the only topic; write ^(a|b) in place of a list")));
            }
            Some(pattern) => Topics::Like(Box::new(
                // As in Kafka's own clients, the whole name has to match.
                Regex::new(&format!("^(?:{})$", pattern.trim_start_matches('^').trim_end_matches('$')))
                    .map_err(|e| Error::plan(format!("{call}: the pattern {pattern:?} cannot be read: {e}")).because(e))?,
            )),
        };
        if let KafkaFormat::Debezium { columns, key } = &format {
            check_key(call, columns, key)?;
        }
        if let KafkaFormat::Json(schema) | KafkaFormat::Debezium { columns: schema, .. } = &format {
            check_read(call, schema)?;
            check_types(schema)?;
        }
        let value = match &format {
            KafkaFormat::Json(schema) | KafkaFormat::Debezium { columns: schema, .. } => Some(schema),
            KafkaFormat::Avro(avro) => Some(avro.columns()),
            KafkaFormat::Raw => None,
        };
        let both = metadata.iter().find(|kind| value.is_some_and(|value| value.field_with_name(kind.column()).is_ok()));
        if let Some(kind) = both {
            return Err(Error::schema(format!("{call}: {:?} is a column of the schema and of the metadata", kind.column())));
        }
        let mut seen = HashSet::new();
        if let Some(kind) = metadata.iter().find(|kind| !seen.insert(**kind)) {
            return Err(Error::plan(format!("{call}: metadata names {:?} twice", kind.column().trim_start_matches('_'))));
        }
        let times = [("start", matches!(start, Start::Time(..0))), ("until", matches!(until, Some(Until::Time(..0))))];
        if let Some((argument, _)) = times.into_iter().find(|(_, is_early)| *is_early) {
            return Err(Error::plan(format!("{call}: {argument} is a time before 1970, and messages have times since then")));
        }
        if matches!(start, Start::Committed) && group.is_none() {
            return Err(Error::plan(format!("{call}: start=\"committed\" begins at the committed offsets of a consumer group: name it with group=")));
        }
        let schema = format::schema(&format, &metadata);
        let shared = Shared {
            cluster,
            topics,
            shown,
            format,
            metadata,
            start,
            until,
            group,
            connection: Mutex::new(Weak::new()),
        };
        Ok(KafkaSource { shared: Arc::new(shared), schema })
    }
}

/// Whether these columns can be a key of which the latest row counts.
fn check_key(call: &str, columns: &SchemaRef, key: &[String]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::plan(format!("{call}: change events need key=, the columns of the key of their messages, as in key=\"id\"")));
    }
    for (at, name) in key.iter().enumerate() {
        let Ok(field) = columns.field_with_name(name) else {
            let near = did_you_mean(name, columns.fields().iter().map(|field| field.name().as_str()));
            return Err(Error::schema(format!("{call}: the schema has no column {name:?}, which key= names{near}")));
        };
        if key[..at].contains(name) {
            return Err(Error::plan(format!("{call}: key= names {name:?} twice")));
        }
        if field.data_type().is_nested() || field.data_type().is_floating() {
            return Err(Error::schema(format!("{call}: column {name:?} is {}, which is no key", type_name(field.data_type()))));
        }
    }
    Ok(())
}

impl Metadata {
    /// The metadata of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Metadata> {
        const ALL: [Metadata; 6] = [
            Metadata::Key,
            Metadata::Topic,
            Metadata::Partition,
            Metadata::Offset,
            Metadata::Timestamp,
            Metadata::Headers,
        ];
        let short = |kind: &Metadata| kind.column().trim_start_matches('_');
        ALL.into_iter().find(|kind| short(kind) == name).ok_or_else(|| {
            Error::plan(format!(
                "read_kafka(): a message has no metadata {name:?}{}; there are {}",
                did_you_mean(name, ALL.iter().map(short)),
                ALL.iter().map(|kind| format!("{:?}", short(kind))).collect::<Vec<_>>().join(", ")
            ))
        })
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Source for KafkaSource {
    fn name(&self) -> String {
        format!("read_kafka({})", self.shared.shown)
    }

    fn identity(&self) -> Option<String> {
        Some(self.shared.call())
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn changes(&self) -> Option<SourceChanges> {
        match &self.shared.format {
            KafkaFormat::Debezium { columns, key } => Some(SourceChanges { key: key.clone(), op: format::op_column(columns) }),
            KafkaFormat::Json(_) | KafkaFormat::Avro(_) | KafkaFormat::Raw => None,
        }
    }

    fn properties(&self) -> SourceProperties {
        let is_bounded = self.shared.until.is_some();
        SourceProperties { is_bounded, is_replayable: true, discovers_splits: !is_bounded, may_block: true }
    }

    fn begins_alike(&self) -> bool {
        matches!(self.shared.start, Start::Earliest | Start::Offsets(_))
    }

    fn splits(&self, _is_ordered: bool) -> Result<Vec<Split>> {
        let asker = Asker::new(&self.shared.call(), &self.shared.cluster)?;
        offsets::begin(&asker, &self.shared, &self.shared.partitions(&asker)?)
    }

    fn resume(&self, _is_ordered: bool, left: Vec<SplitState>) -> Result<Vec<SplitState>> {
        let asker = Asker::new(&self.shared.call(), &self.shared.cluster)?;
        offsets::resume(&asker, &self.shared, &self.shared.partitions(&asker)?, left)
    }

    fn discovery(&self, begun_with: &[SplitState]) -> Result<Option<Box<dyn Discovery>>> {
        let mut known: HashSet<String> = begun_with.iter().map(|state| state.split.name.clone()).collect();
        let shared = Arc::clone(&self.shared);
        let interval = shared.cluster.option("topic.metadata.refresh.interval.ms").and_then(|text| text.parse::<u64>().ok());
        let interval = interval.map_or(LOOK_INTERVAL, |ms| Duration::from_millis(ms.max(10)));
        let looking = Looking::start("mill-kafka-look", interval, move || {
            // What cannot be asked now is asked next time; readers tell what is wrong with the cluster.
            let Ok(asker) = Asker::new(&shared.call(), &shared.cluster) else { return Ok(Vec::new()) };
            let Ok(partitions) = shared.partitions(&asker) else { return Ok(Vec::new()) };
            let mut new = Vec::new();
            for partition in partitions {
                let name = partition.to_string();
                if known.contains(&name) {
                    continue;
                }
                let Ok(split) = offsets::found(&asker, &shared, &partition) else { continue };
                known.insert(name);
                new.push(split);
            }
            Ok(new)
        })?;
        Ok(Some(Box::new(looking)))
    }

    fn position_listener(&self) -> Result<Option<Box<dyn PositionListener>>> {
        let Some(group) = &self.shared.group else { return Ok(None) };
        Ok(Some(Box::new(GroupCommits::start(&self.shared, group)?)))
    }

    fn open(&self, split: &Split, position: Option<&[u8]>) -> Result<Box<dyn SplitReader>> {
        let connection = self.shared.connection()?;
        let reader = KafkaReader::new(Arc::clone(&self.shared), connection, Arc::clone(&self.schema), split, position)?;
        Ok(Box::new(reader))
    }

    fn project(&self, columns: &[usize]) -> Option<Arc<dyn Source>> {
        let schema = Arc::new(self.schema.project(columns).ok()?);
        // Without any column of the value a malformed one would pass, and what is skipped would depend on what is read.
        let value = match &self.shared.format {
            KafkaFormat::Raw => None,
            KafkaFormat::Json(value) | KafkaFormat::Debezium { columns: value, .. } => Some(value),
            KafkaFormat::Avro(avro) => Some(avro.columns()),
        };
        let has_value = value.is_none_or(|value| schema.fields().iter().any(|field| value.field_with_name(field.name()).is_ok()));
        has_value.then(|| Arc::new(KafkaSource { schema, ..self.clone() }) as _)
    }

    fn is_read_in_turn(&self) -> bool {
        true
    }
}
