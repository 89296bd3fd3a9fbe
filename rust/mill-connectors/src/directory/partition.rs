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

/// The columns that partition, and the others.
pub(super) struct Partitioning {
    keys: Vec<(usize, String)>,
    others: Vec<usize>,
    /// The columns of the files.
    schema: SchemaRef,
}

impl Partitioning {
    pub(super) fn new(schema: &SchemaRef, by: &[String]) -> Result<Partitioning> {
        let place = |name: &String| {
            schema.index_of(name).map(|place| (place, name.clone())).map_err(|e| Error::schema(format!("partition_by: {e}")))
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
        let columns = self.keys.iter().map(|(place, name)| {
            let column = TextColumn::new(batch.column(*place)).map_err(|e| Error::data(format!("partition_by {name:?}: {e}")))?;
            Ok((column.ok_or_else(|| Error::internal("the types were checked"))?, name))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let mut rows_of: HashMap<String, usize> = HashMap::new();
        let mut found: Vec<(String, Vec<u32>)> = Vec::new();
        let (mut directory, mut value) = (String::new(), String::new());
        for row in 0..batch.num_rows() {
            directory.clear();
            for (index, (column, name)) in columns.iter().enumerate() {
                if index > 0 {
                    directory.push('/');
                }
                encode(name, &mut directory);
                directory.push('=');
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
            let at = match rows_of.get(&directory) {
                Some(&at) => at,
                None => {
                    rows_of.insert(directory.clone(), found.len());
                    found.push((directory.clone(), Vec::new()));
                    found.len() - 1
                }
            };
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
