//! The options of a client: librdkafka's own names, checked before anything is contacted.

use rdkafka::bindings as native;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{IsError, KafkaError};

use mill_protocol::{Error, Result};

use crate::nearest::did_you_mean;

/// What the engine sets itself, and why nobody else does.
const OWN: [(&str, &str); 11] = [
    ("bootstrap.servers", "the brokers are the first argument"),
    ("metadata.broker.list", "the brokers are the first argument"),
    ("group.id", "a source takes group=, and a sink notes its epochs in a group of its own"),
    ("enable.auto.commit", "positions are in the checkpoint"),
    ("enable.auto.offset.store", "positions are in the checkpoint"),
    ("enable.partition.eof", "the engine finds the end of a partition by it"),
    ("transactional.id", "it is made of the job and the sink, so that a later run can take up where this one stopped"),
    ("enable.idempotence", "a sink never runs without it"),
    ("delivery.report.only.error", "the engine counts what was delivered"),
    ("partition.assignment.strategy", "partitions are not assigned by the group"),
    ("group.instance.id", "partitions are not assigned by the group"),
];

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    /// `host:port`, separated by commas.
    pub(super) brokers: String,
    options: Vec<(String, String)>,
}

impl Cluster {
    /// The cluster of these brokers, reached with these options.
    ///
    /// # Errors
    /// When no broker is named, an option does not exist, has no such value, or is the engine's to set.
    pub(super) fn new(call: &str, brokers: &str, options: Vec<(String, String)>) -> Result<Cluster> {
        let brokers = brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty()).collect::<Vec<_>>().join(",");
        if brokers.is_empty() {
            return Err(Error::plan(format!("{call} needs at least one broker, such as \"localhost:9092\"")));
        }
        let mut config = ClientConfig::new();
        for (name, value) in &options {
            if let Some((_, why)) = OWN.iter().find(|(own, _)| own == name) {
                return Err(Error::plan(format!("{call}: options has {name:?}, which is not for you to set: {why}")));
            }
            config.set(name, value);
            // One at a time, so that the message names the right one.
            check_option(call, name, value)?;
        }
        config.create_native_config().map(drop).map_err(|e| Error::plan(format!("{call}: {e}")))?;
        Ok(Cluster { brokers, options })
    }

    /// A configuration with these settings, which go before the user's where `is_ours`.
    pub(super) fn config(&self, defaults: &[(&str, &str)], ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.options {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        for (name, value) in ours {
            config.set(*name, *value);
        }
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    /// What the user has set.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

fn check_option(call: &str, name: &str, value: &str) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    match config.create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(code, reason, ..)) if code.is_error() => {
            let unknown = matches!(code, native::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN);
            let hint = if unknown {
                let names = option_names();
                format!("{}; options are those of librdkafka", did_you_mean(name, names.iter().map(String::as_str)))
            } else {
                format!(" ({})", reason.trim_end_matches('.'))
            };
            let what = if unknown { format!("there is no option {name:?}") } else { format!("option {name:?} cannot be {value:?}") };
            Err(Error::plan(format!("{call}: {what}{hint}")))
        }
        Err(e) => Err(Error::plan(format!("{call}: option {name:?}: {e}"))),
    }
}

/// The names of all options.
fn option_names() -> Vec<String> {
    let Ok(config) = ClientConfig::new().create_native_config() else { return Vec::new() };
    let mut count = 0;
    // SAFETY: the configuration lives until the end of the function, and the count is written to a number of ours.
    let listed = unsafe { native::rd_kafka_conf_dump(config.ptr(), &mut count) };
    if listed.is_null() {
        return Vec::new();
    }
    let names = (0..count / 2).map(|index| {
        // SAFETY: the list has `count` strings, names and values in turn, until it is freed below.
        let name = unsafe { std::ffi::CStr::from_ptr(*listed.add(index * 2)) };
        name.to_string_lossy().into_owned()
    });
    let names = names.collect();
    // SAFETY: the list is the one that the dump has given, and is not used after this.
    unsafe { native::rd_kafka_conf_dump_free(listed, count) };
    names
}
