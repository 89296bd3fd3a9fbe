//! The row group of a Parquet file while it is encoded.
//!
//! ```text
//!   batches ─► column 0 ─► pages ─┐
//!           ─► column 1 ─► pages ─┼─► row group
//!           ─► column 2 ─► pages ─┘       each column on any of the threads, the pages of all in their order
//! ```
//!
//! Columns have a dictionary of their values until it takes more than [`DICTIONARY_BYTES`]; what follows is written plainly,
//! with the dictionary for what came before. Of values that do not repeat such a dictionary costs more than all the rest:
//! each value is looked for among those before it, and then written twice, as itself and as a number. So before a row group
//! begins, some of its first records are looked at. They are taken from all over the first piece, so that values that come round
//! in turn are recognized. If hardly any value is there twice, there are more different ones than a dictionary holds, and
//! the column goes without it. A row group of which the first piece is small has dictionaries.

use std::collections::HashSet;
use std::sync::Arc;

use ::parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use ::parquet::errors::{ParquetError, Result};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::SchemaDescriptor;
use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::hash::hash_columns;
use mill_frame::spread;

/// How large a dictionary grows.
const DICTIONARY_BYTES: f64 = (1 << 20) as f64;
/// How much larger it would have to grow for a column to go without.
const CERTAINTY: f64 = 2.0;
/// How many rows a first piece must have to say something of the rest.
const PIECE_ROWS_MIN: usize = 32 << 10;
/// How many values of a column are looked at.
const SAMPLE_ROWS: usize = 2048;

/// Makes the row groups of a file.
pub(super) struct Groups {
    schema: SchemaRef,
    descriptor: SchemaDescriptor,
    properties: WriterProperties,
    /// Of row groups in which all columns have dictionaries.
    factory: ArrowRowGroupWriterFactory,
    /// How many columns of the file each column of the records is.
    leaves: Vec<usize>,
    threads: usize,
}

/// A row group that is encoded.
pub(super) struct Group {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl Group {
    /// How many rows have been encoded.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes they are in the file.
    pub(super) fn bytes(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// How much memory they take.
    pub(super) fn memory(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::memory_size).sum()
    }
}

impl Groups {
    /// Those of a file with these columns, encoded on so many threads at most.
    pub(super) fn new(
        schema: &SchemaRef,
        descriptor: &SchemaDescriptor,
        properties: WriterProperties,
        factory: ArrowRowGroupWriterFactory,
        threads: usize,
    ) -> Groups {
        let mut leaves = vec![0; schema.fields().len()];
        (0..descriptor.num_columns()).for_each(|leaf| leaves[descriptor.get_column_root_idx(leaf)] += 1);
        Groups { schema: Arc::clone(schema), descriptor: descriptor.clone(), properties, factory, leaves, threads }
    }

    /// Begins a row group, of which these are the first records.
    pub(super) fn begin(&self, index: usize, batches: &[RecordBatch], rows: usize) -> Result<Group> {
        let plain = self.without_dictionary(batches, rows)?;
        let columns = if plain.is_empty() {
            self.factory.create_column_writers(index)?
        } else {
            let mut builder = self.properties.clone().into_builder();
            for leaf in plain {
                builder = builder.set_column_dictionary_enabled(self.descriptor.column(leaf).path().clone(), false);
            }
            // The library takes the properties of columns from a file: this one is written nowhere.
            let file = SerializedFileWriter::new(std::io::sink(), self.descriptor.root_schema_ptr(), Arc::new(builder.build()))?;
            ArrowRowGroupWriterFactory::new(&file, Arc::clone(&self.schema)).create_column_writers(index)?
        };
        assert_eq!(columns.len(), self.leaves.iter().sum::<usize>(), "the columns of the file are those of its schema");
        Ok(Group { columns, rows: 0 })
    }

    /// Adds records to a row group.
    pub(super) fn write(&self, group: &mut Group, batches: &[RecordBatch], rows: usize) -> Result<()> {
        let mut rest = group.columns.as_mut_slice();
        let mut columns = Vec::with_capacity(self.leaves.len());
        for (column, &leaves) in self.leaves.iter().enumerate() {
            let (these, others) = rest.split_at_mut(leaves);
            columns.push((column, these));
            rest = others;
        }
        spread(self.threads, columns, |(column, writers)| {
            for batch in batches {
                let leaves = compute_leaves(self.schema.field(column), batch.column(column))?;
                assert_eq!(leaves.len(), writers.len(), "column={column}");
                writers.iter_mut().zip(&leaves).try_for_each(|(writer, leaf)| writer.write(leaf))?;
            }
            Ok::<(), ParquetError>(())
        })?;
        group.rows += rows;
        Ok(())
    }

    /// Ends a row group: its columns, in their order.
    pub(super) fn close(&self, group: Group) -> Result<Vec<ArrowColumnChunk>> {
        let mut chunks: Vec<Option<ArrowColumnChunk>> = Vec::new();
        chunks.resize_with(group.columns.len(), || None);
        spread(self.threads, group.columns.into_iter().zip(&mut chunks).collect(), |(writer, chunk)| {
            *chunk = Some(writer.close()?);
            Ok::<(), ParquetError>(())
        })?;
        Ok(chunks.into_iter().flatten().collect())
    }

    /// The columns of the file whose values hardly repeat.
    fn without_dictionary(&self, batches: &[RecordBatch], rows: usize) -> Result<Vec<usize>> {
        let mut plain = Vec::new();
        if rows < PIECE_ROWS_MIN {
            return Ok(plain);
        }
        let sample = Sample::new(batches, rows);
        let mut leaf = 0;
        for (column, &leaves) in self.leaves.iter().enumerate() {
            if has_dictionary_of_its_own(self.schema.field(column).data_type()) && sample.outgrows_dictionary(column)? {
                plain.push(leaf);
            }
            leaf += leaves;
        }
        Ok(plain)
    }
}

/// Whether a column is one column of the file, of values that a dictionary may hold but not necessarily does.
fn has_dictionary_of_its_own(data_type: &DataType) -> bool {
    match data_type {
        // All values of a type so narrow fit a dictionary.
        other if other.primitive_width().is_some_and(|width| width <= 2) => false,
        other => other.is_primitive() || other.is_string() || other.is_binary() || matches!(other, DataType::FixedSizeBinary(_)),
    }
}

/// Rows from all over some batches.
struct Sample<'b> {
    batches: &'b [RecordBatch],
    /// Which rows of each batch.
    rows: Vec<UInt32Array>,
}

impl Sample<'_> {
    fn new(batches: &[RecordBatch], rows: usize) -> Sample<'_> {
        let mut chosen = vec![Vec::new(); batches.len()];
        let (mut batch, mut start) = (0, 0);
        let stride = rows as f64 / SAMPLE_ROWS as f64;
        for index in 0..SAMPLE_ROWS {
            // A row within each stride, and not the same one: values that come round in turn must not fall in step with it.
            let row = ((index as f64 + scattered(index)) * stride) as usize;
            while row >= start + batches[batch].num_rows() {
                start += batches[batch].num_rows();
                batch += 1;
            }
            chosen[batch].push((row - start) as u32);
        }
        Sample { batches, rows: chosen.into_iter().map(UInt32Array::from).collect() }
    }

    /// Whether a column has so many different values that a dictionary would not hold them.
    fn outgrows_dictionary(&self, column: usize) -> Result<bool> {
        let pieces = self.batches.iter().zip(&self.rows).filter(|(_, rows)| !rows.is_empty());
        let pieces = pieces.map(|(batch, rows)| take(batch.column(column), rows, None)).collect::<std::result::Result<Vec<_>, _>>()?;
        let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
        let values: ArrayRef = concat(&pieces)?;
        let mut hashes = Vec::new();
        if hash_columns(&[Arc::clone(&values)], &mut hashes).is_err() {
            return Ok(false);
        }
        let known = values.len() - values.null_count();
        if known < SAMPLE_ROWS / 2 {
            return Ok(false);
        }
        let different = hashes.iter().zip(0..).filter(|(_, row)| values.is_valid(*row)).map(|(hash, _)| hash).collect::<HashSet<_>>().len();
        // Of n values drawn from d equally likely ones, about n²/2d are there already.
        let repeated = (known - different).max(1) as f64;
        let estimated = (known * known) as f64 / (2.0 * repeated);
        let bytes = values.to_data().get_slice_memory_size().map_err(ParquetError::from)? as f64 / values.len() as f64;
        Ok(estimated * bytes > DICTIONARY_BYTES * CERTAINTY)
    }
}

/// A number from 0 to less than 1, another one for each index, and the same ones in every run.
fn scattered(index: usize) -> f64 {
    let bits = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
