//! Which directory a record goes into: one for each value of the columns that partition, `key=value` as Hive writes them.
//!
//! Characters that a name cannot have, or that have a meaning in one, are written as `%` and two hexadecimal digits, byte by
//! byte; so are those of a text that would be taken for null. `read_…(hive_partitioning=True)` reads the same value back.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use mill_frame::text::TextColumn;
use mill_protocol::{Error, Result};

use crate::file::NULL_PARTITION;

/// How long the name of a directory can be.
const NAME_BYTES_MAX: usize = 255;

/// The columns that partition, and the others.
pub(super) struct Partitioning {
    /// Where they are, and what the names of their directories begin with: `key=`.
    keys: Vec<(usize, String)>,
    others: Vec<usize>,
    /// The columns of the files.
    schema: SchemaRef,
}

impl Partitioning {
    pub(super) fn new(schema: &SchemaRef, by: &[String]) -> Result<Partitioning> {
        let place = |name: &String| {
            let key = |place| {
                let mut key = String::new();
                encode(name, &mut key);
                key.push('=');
                (place, key)
            };
            schema.index_of(name).map(key).map_err(|e| Error::schema(format!("partition_by: {e}")))
        };
        let keys = by.iter().map(place).collect::<Result<Vec<_>>>()?;
        let others: Vec<usize> =
            (0..schema.fields().len()).filter(|place| !keys.iter().any(|(key, _)| key == place)).collect();
        let fields: Vec<_> = others.iter().map(|&place| Arc::clone(&schema.fields()[place])).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Ok(Partitioning { keys, others, schema })
    }

    /// The columns of the files.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether there are partitions.
    pub(super) fn is_partitioned(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The records of each directory, in order; the directory has no name where there are no partitions.
    pub(super) fn split(&self, batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        if self.keys.is_empty() {
            return Ok(vec![(String::new(), batch.clone())]);
        }
        let columns = self.keys.iter().map(|(place, key)| {
            let column = TextColumn::new(batch.column(*place)).map_err(|e| Error::data(format!("partition_by {key}: {e}")))?;
            Ok((column.ok_or_else(|| Error::internal("the types were checked"))?, key))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mut rows_of: HashMap<String, usize> = HashMap::new();
        let mut found: Vec<(String, Vec<u32>)> = Vec::new();
        let (mut directory, mut value) = (String::new(), String::new());
        // Where the directory of the row before is: neighbours often have the same.
        let mut at = 0;
        for row in 0..batch.num_rows() {
            directory.clear();
            for (index, (column, key)) in columns.iter().enumerate() {
                if index > 0 {
                    directory.push('/');
                }
                directory.push_str(key);
                if column.is_null(row) {
                    directory.push_str(NULL_PARTITION);
                    continue;
                }
                match column.text(row) {
                    Some(NULL_PARTITION) => {
                        directory.push_str("%5F");
                        directory.push_str(&NULL_PARTITION[1..]);
                    }
                    Some(text) => encode(text, &mut directory),
                    None => {
                        value.clear();
                        column.push(row, &mut value);
                        encode(&value, &mut directory);
                    }
                }
            }
            if found.get(at).is_none_or(|(former, _)| *former != directory) {
                at = match rows_of.get(&directory) {
                    Some(&at) => at,
                    None => {
                        check_length(&directory)?;
                        rows_of.insert(directory.clone(), found.len());
                        found.push((directory.clone(), Vec::new()));
                        found.len() - 1
                    }
                };
            }
            found[at].1.push(row as u32);
        }
        let others = batch.project(&self.others).map_err(|e| Error::internal(e.to_string()))?;
        let taken = found.into_iter().map(|(directory, rows)| {
            let taken = if rows.len() == others.num_rows() { Ok(others.clone()) } else { take_record_batch(&others, &UInt32Array::from(rows)) };
            Ok((directory, taken.map_err(|e| Error::internal(e.to_string()))?))
        });
        taken.collect()
    }
}

/// Refuses directories that no filesystem takes. The commit would notice it too late: the checkpoint would name the file.
fn check_length(directory: &str) -> Result<()> {
    match directory.split('/').find(|name| name.len() > NAME_BYTES_MAX) {
        None => Ok(()),
        Some(name) => Err(Error::data(format!(
            "partition_by: the name of a directory has at most {NAME_BYTES_MAX} bytes, and this one has {}: {:?}…; shorten the value",
            name.len(),
            name.chars().take(60).collect::<String>()
        ))),
    }
}

/// Adds a text as the name of a directory has it.
fn encode(text: &str, out: &mut String) {
    for character in text.chars() {
        let is_plain = character.is_alphanumeric() || matches!(character, '-' | '_' | '.' | '+' | ' ' | ',' | '@' | '(' | ')');
        if is_plain {
            out.push(character);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in character.encode_utf8(&mut bytes).bytes() {
            write!(out, "%{byte:02X}").expect("a string takes all");
        }
    }
}
