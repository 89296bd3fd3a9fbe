//! Apache Kafka: topics as sources and sinks, with the options from Python.
//!
//! A build without Kafka also has the two functions, so that the package is the same; they raise an error that says what is
//! missing.

use pyo3::prelude::*;

use crate::stream::{RawSink, RawStream};
use crate::types::RawSchema;

/// What Python says of a place in topics: its kind, a time in milliseconds, offsets by topic and partition.
pub type Place = (String, Option<i64>, Vec<(String, i32, i64)>);

/// What Python says of the form of messages that are read.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "nothing is made of it in a build without Kafka"))]
pub struct Reading {
    format: String,
    key: Vec<String>,
    avro_schema: Option<String>,
    registry: Option<Py<PyAny>>,
}

/// What it says of the form of those that are written.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
#[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "nothing is made of it in a build without Kafka"))]
pub struct Writing {
    format: String,
    avro_schema: Option<String>,
    registry: Option<Py<PyAny>>,
}

/// Reads topics.
#[pyfunction]
#[pyo3(signature = (brokers, topics, reading, schema, metadata, start, until, group, options))]
#[expect(clippy::too_many_arguments, reason = "it takes what the Python function takes")]
pub fn read_kafka(
    brokers: &str,
    topics: Vec<String>,
    reading: Reading,
    schema: Option<PyRef<'_, RawSchema>>,
    metadata: Vec<String>,
    start: Place,
    until: Option<Place>,
    group: Option<String>,
    options: Vec<(String, String)>,
) -> PyResult<RawStream> {
    let schema = schema.map(|schema| schema.schema.clone());
    with_kafka::read(brokers, topics, reading, schema, &metadata, start, until, group, options)
}

/// Writes a topic.
#[pyfunction]
#[pyo3(signature = (stream, brokers, topic, writing, key, partition, headers, timestamp, left_out, delivery, options))]
#[expect(clippy::too_many_arguments, reason = "it takes what the Python function takes")]
pub fn write_kafka(
    stream: PyRef<'_, RawStream>,
    brokers: &str,
    topic: &str,
    writing: Writing,
    key: Option<Vec<String>>,
    partition: Option<String>,
    headers: Option<String>,
    timestamp: Option<String>,
    left_out: Vec<String>,
    delivery: Option<&str>,
    options: Vec<(String, String)>,
) -> PyResult<RawSink> {
    let (is_raw, avro) = (writing.format == "raw", with_kafka::avro_of(topic, writing));
    let columns = with_kafka::Columns { is_raw, avro, key, partition, headers, timestamp, left_out };
    with_kafka::write(&stream, brokers, topic, columns, delivery, options)
}

#[cfg(feature = "kafka")]
mod with_kafka {
    use std::sync::Arc;

    use arrow::datatypes::SchemaRef;
    use mill_protocol::{Delivery, Error, ErrorKind};
    use millstream::connectors::{
        Avro, AvroWriting, KafkaFormat, KafkaMetadata, KafkaPartition, KafkaSink, KafkaSinkOptions, KafkaSource, KafkaSourceOptions, KafkaStart,
        KafkaUntil, SchemaRegistry,
    };
    pub use millstream::connectors::MessageColumns as Columns;

    use super::*;
    use crate::attach::{attach, call_method};
    use crate::error::{IntoPython, PlanError, kind_of, message};

    /// A registry that Python asks.
    struct PythonRegistry {
        object: Py<PyAny>,
        shown: String,
    }

    impl PythonRegistry {
        fn of(object: Py<PyAny>) -> Arc<dyn SchemaRegistry> {
            let shown = attach(|py| object.bind(py).repr().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned()));
            Arc::new(PythonRegistry { object, shown })
        }

        /// Asks it, which may take seconds.
        fn call<T>(&self, ask: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> millstream::Result<T> {
            attach(|py| {
                ask(self.object.bind(py)).map_err(|exception| {
                    let kind = kind_of(py, &exception, ErrorKind::Connector);
                    Error::new(kind, message(py, &exception)).because(exception)
                })
            })
        }
    }

    impl std::fmt::Debug for PythonRegistry {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.shown)
        }
    }

    impl SchemaRegistry for PythonRegistry {
        fn schema(&self, id: u32) -> millstream::Result<Result<String, String>> {
            let (schema, reason) = self.call(|registry| call_method(registry, "schema", (id,))?.extract::<(Option<String>, String)>())?;
            Ok(schema.ok_or(reason))
        }

        fn register(&self, subject: &str, schema: &str) -> millstream::Result<u32> {
            self.call(|registry| call_method(registry, "register", (subject, schema))?.extract())
        }
    }

    /// How values in Avro are written, if they are.
    pub fn avro_of(topic: &str, writing: Writing) -> Option<Arc<AvroWriting>> {
        let registry = writing.registry.map(PythonRegistry::of);
        (writing.format == "avro").then(|| Arc::new(AvroWriting::new(topic, writing.avro_schema, registry)))
    }

    #[expect(clippy::too_many_arguments, reason = "it takes what the Python function takes")]
    pub fn read(
        brokers: &str,
        topics: Vec<String>,
        reading: Reading,
        schema: Option<SchemaRef>,
        metadata: &[String],
        start: Place,
        until: Option<Place>,
        group: Option<String>,
        options: Vec<(String, String)>,
    ) -> PyResult<RawStream> {
        let unknown = |what: &str, kind: &str| PlanError::new_err(format!("{what} is {kind:?}, which no topic has"));
        let start = match start {
            (kind, _, _) if kind == "earliest" => KafkaStart::Earliest,
            (kind, _, _) if kind == "latest" => KafkaStart::Latest,
            (kind, _, _) if kind == "committed" => KafkaStart::Committed,
            (kind, Some(time), _) if kind == "time" => KafkaStart::Time(time),
            (kind, _, given) if kind == "offsets" => KafkaStart::Offsets(offsets(given)),
            (kind, _, _) => return Err(unknown("start", &kind)),
        };
        let until = match until {
            None => None,
            Some((kind, _, _)) if kind == "end" => Some(KafkaUntil::End),
            Some((kind, Some(time), _)) if kind == "time" => Some(KafkaUntil::Time(time)),
            Some((kind, _, given)) if kind == "offsets" => Some(KafkaUntil::Offsets(offsets(given))),
            Some((kind, _, _)) => return Err(unknown("until", &kind)),
        };
        let metadata = metadata.iter().map(|name| KafkaMetadata::named(name)).collect::<millstream::Result<_>>().into_python()?;
        let format = match (reading.format.as_str(), schema) {
            ("json", Some(schema)) => KafkaFormat::Json(schema),
            ("debezium-json", Some(columns)) => KafkaFormat::Debezium { columns, key: reading.key },
            ("raw", None) => KafkaFormat::Raw,
            ("avro", None) => {
                let schema = reading.avro_schema.as_deref().unwrap_or_default();
                KafkaFormat::Avro(Arc::new(Avro::new(schema, reading.registry.map(PythonRegistry::of)).into_python()?))
            }
            (other, _) => return Err(unknown("format", other)),
        };
        let options = KafkaSourceOptions { format, metadata, start, until, group, options };
        KafkaSource::new(brokers, topics, options).and_then(RawStream::of).into_python()
    }

    pub fn write(
        stream: &RawStream,
        brokers: &str,
        topic: &str,
        columns: Columns,
        delivery: Option<&str>,
        options: Vec<(String, String)>,
    ) -> PyResult<RawSink> {
        let delivery = match delivery {
            None => None,
            Some("exactly_once") => Some(Delivery::ExactlyOnce),
            Some("at_least_once") => Some(Delivery::AtLeastOnce),
            Some(other) => return Err(PlanError::new_err(format!("delivery is {other:?}, which no sink has"))),
        };
        let sink = KafkaSink::new(brokers, topic, KafkaSinkOptions { columns, delivery, options }).into_python()?;
        Ok(RawSink { node: stream.stream.sink(Arc::new(sink)).into_python()? })
    }

    fn offsets(given: Vec<(String, i32, i64)>) -> std::collections::HashMap<KafkaPartition, i64> {
        given.into_iter().map(|(topic, number, offset)| (KafkaPartition { topic, number }, offset)).collect()
    }
}

#[cfg(not(feature = "kafka"))]
mod with_kafka {
    use arrow::datatypes::SchemaRef;

    use super::*;
    use crate::error::PlanError;

    #[expect(dead_code, reason = "nothing is made of it in a build without Kafka")]
    pub struct Columns {
        pub is_raw: bool,
        pub avro: (),
        pub key: Option<Vec<String>>,
        pub partition: Option<String>,
        pub headers: Option<String>,
        pub timestamp: Option<String>,
        pub left_out: Vec<String>,
    }

    pub fn avro_of(_: &str, _: Writing) {}

    fn missing() -> PyErr {
        PlanError::new_err("this build of Millstream has no Kafka: it was made without the feature \"kafka\"")
    }

    #[expect(clippy::too_many_arguments, reason = "it takes what the Python function takes")]
    pub fn read(
        _: &str,
        _: Vec<String>,
        _: Reading,
        _: Option<SchemaRef>,
        _: &[String],
        _: Place,
        _: Option<Place>,
        _: Option<String>,
        _: Vec<(String, String)>,
    ) -> PyResult<RawStream> {
        Err(missing())
    }

    pub fn write(_: &RawStream, _: &str, _: &str, _: Columns, _: Option<&str>, _: Vec<(String, String)>) -> PyResult<RawSink> {
        Err(missing())
    }
}
