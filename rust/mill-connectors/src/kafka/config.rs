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

/// The names of all options: the first column of the list that librdkafka prints.
fn option_names() -> Vec<String> {
    let (mut text, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: the stream writes text and length when it is closed; both places live until then.
    let printed = unsafe {
        let stream = libc::open_memstream(&mut text, &mut length);
        if stream.is_null() {
            return Vec::new();
        }
        native::rd_kafka_conf_properties_show(stream);
        libc::fclose(stream) == 0 && !text.is_null()
    };
    if !printed {
        return Vec::new();
    }
    // SAFETY: the stream was closed well, so the text has that many bytes; it is ours to free, and not used after that.
    let list = unsafe {
        let list = String::from_utf8_lossy(std::slice::from_raw_parts(text.cast::<u8>(), length)).into_owned();
        libc::free(text.cast());
        list
    };
    let names = list.lines().filter_map(|line| Some(line.split_once('|')?.0.trim()));
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._0123456789".contains(&byte));
    names.filter(is_name).map(str::to_owned).collect()
}
