//! The options of a client: librdkafka's own names, checked before anything is contacted.

use std::fmt;

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

/// What the name of an option has whose value nobody may see: not in messages, not in logs, not in files.
const SECRET: [&str; 7] = ["password", "secret", "key", "token", "jaas", "oauthbearer.config", "kinit"];

/// Values that are shorter are in every text by chance; the client repeats none on its own.
const SECRET_LENGTH_MIN: usize = 3;

/// Whether the value of an option of this name must not be shown.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|part| name.contains(part))
}

/// Options for a person to see: values that are secret are left out.
pub(super) struct Shown<'a>(pub(super) &'a [(String, String)]);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &'_ str, is_secret: bool| if is_secret { "…".to_owned() } else { value.to_owned() };
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, shown(value, is_secret(name))))).finish()
    }
}

/// How a cluster is reached.
#[derive(Clone)]
pub(super) struct Cluster {
    /// `host:port`, separated by commas.
    pub(super) brokers: String,
    options: Vec<(String, String)>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("brokers", &self.brokers).field("options", &Shown(&self.options)).finish()
    }
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
        let cluster = Cluster { brokers, options };
        config.create_native_config().map(drop).map_err(|e| Error::plan(format!("{call}: {}", cluster.text(&e))))?;
        Ok(cluster)
    }

    /// Refuses options without which a retry could write a message twice, or in another order.
    pub(super) fn check_idempotence(&self, call: &str) -> Result<()> {
        for (name, value) in &self.options {
            let number = value.parse::<i64>().ok();
            let wanted = match name.as_str() {
                "acks" | "request.required.acks" if !matches!(value.as_str(), "all" | "-1") => "\"all\"",
                "max.in.flight" | "max.in.flight.requests.per.connection" if number.is_some_and(|number| number > 5) => "at most 5",
                "retries" | "message.send.max.retries" if number == Some(0) => "at least 1",
                "queuing.strategy" if value != "fifo" => "\"fifo\"",
                _ => continue,
            };
            return Err(Error::plan(format!(
                "{call}: option {name:?} is {value:?}, and has to be {wanted}: the sink writes each message once and in order"
            )));
        }
        Ok(())
    }

    /// An error of a client, without the secrets that its text may repeat. It has no source: that would repeat them, too.
    pub(super) fn error(&self, call: &str, error: &KafkaError) -> Error {
        Error::connector(format!("{call}: {}", self.text(error)))
    }

    fn text(&self, error: &KafkaError) -> String {
        match error {
            // Its text ends with the name and the value.
            KafkaError::ClientConfig(_, reason, name, _) => format!("option {name:?}: {}", self.without_secrets(reason)),
            other => self.without_secrets(&other.to_string()),
        }
    }

    /// A text of the client's without values that are secret.
    pub(super) fn without_secrets(&self, text: &str) -> String {
        let secrets = self.options.iter().filter(|(name, value)| is_secret(name) && value.len() >= SECRET_LENGTH_MIN);
        secrets.fold(text.to_owned(), |text, (_, value)| text.replace(value.as_str(), "…"))
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
            Err(Error::plan(if unknown {
                let names = option_names();
                let near = did_you_mean(name, names.iter().map(String::as_str));
                format!("{call}: there is no option {name:?}{near}; options are those of librdkafka")
            } else if is_secret(name) {
                format!("{call}: option {name:?} cannot have the value that it has, which is not shown here")
            } else {
                format!("{call}: option {name:?} cannot be {value:?} ({})", reason.trim_end_matches('.'))
            }))
        }
        Err(_) => Err(Error::plan(format!("{call}: option {name:?} cannot be set"))),
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
