//! Sinks that are no longer in a plan: their pending output is committed by a run that knows only what a checkpoint has
//! stored.
//!
//! ```text
//!   sink ── handover() ──► note in the manifest ──► left_sink() ──► committer() ──► recover() with the handles of the checkpoint
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mill_protocol::Sink;
use serde::{Deserialize, Serialize};

use crate::directory::{DirectorySink, FileFormat};
use crate::sqlite::SqliteSink;

/// What is known of a sink.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Handover {
    /// A directory of files, whatever their format: what is pending are files that are there under another name.
    Directory { path: PathBuf },
    /// A table; `schema` is a stream of Arrow IPC without batches, as base64.
    Sqlite { path: PathBuf, table: String, key: Option<Vec<String>>, schema: String },
}

impl Handover {
    pub(crate) fn encode(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

/// A sink that can commit what is pending of another one, made of what that has [handed over](Sink::handover); `None` if that says
/// nothing to this version, or there is something else in its place. Nothing is opened.
pub fn left_sink(handover: &str) -> Option<Arc<dyn Sink>> {
    Some(match serde_json::from_str(handover).ok()? {
        Handover::Directory { path } => Arc::new(DirectorySink::new(path, FileFormat::Json).ok()?),
        Handover::Sqlite { path, table, key, schema } => Arc::new(SqliteSink::new(path, table, key).ok()?.with_columns(&decoded(&schema)?)),
    })
}

/// A schema as text.
pub(crate) fn encoded(schema: &SchemaRef) -> Option<String> {
    let mut bytes = Vec::new();
    StreamWriter::try_new(&mut bytes, schema).and_then(|mut writer| writer.finish()).ok()?;
    Some(STANDARD.encode(bytes))
}

fn decoded(text: &str) -> Option<SchemaRef> {
    let bytes = STANDARD.decode(text).ok()?;
    Some(StreamReader::try_new(&*bytes, None).ok()?.schema())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn a_schema_comes_back_with_all_it_says() {
        let fields = [Field::new("k", DataType::Int64, true), Field::new("o", DataType::Binary, true).with_metadata([("a".into(), "b".into())].into())];
        let schema: SchemaRef = Arc::new(Schema::new(fields.to_vec()));
        assert_eq!(decoded(&encoded(&schema).unwrap()).unwrap(), schema);
    }

    #[test]
    fn words_of_another_version_are_no_sink() {
        for text in ["", "{}", "{\"kind\":\"other\"}", "{\"kind\":\"sqlite\",\"path\":\"a\",\"table\":\"t\",\"key\":null,\"schema\":\"?\"}"] {
            assert!(left_sink(text).is_none(), "{text}");
        }
    }
}
