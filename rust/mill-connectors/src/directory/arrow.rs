//! Writes Arrow IPC files, in record batches of a size that readers like.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{BatchCoalescer, CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions};
use mill_frame::types::check_fields;
use mill_protocol::{Error, Result};

use super::Encoder;
use super::output::{Output, Packing};

/// How many rows a record batch has at most.
const BATCH_ROWS: usize = 64 << 10;

/// How the buffers of record batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffers {
    Plain,
    Lz4,
    Zstd(i32),
}

/// Refuses columns that no reader takes.
pub(super) fn check(schema: &SchemaRef) -> Result<()> {
    check_fields(schema.fields()).map_err(|e| Error::schema(e.to_string()))
}

/// The columns of the file: dictionaries, which differ from frame to frame and which a file has once, are written as their values.
pub(super) fn file_schema(schema: &SchemaRef) -> SchemaRef {
    Arc::new(Schema::new_with_metadata(schema.fields().iter().map(values_field).collect::<Vec<_>>(), schema.metadata().clone()))
}

fn values_field(field: &FieldRef) -> FieldRef {
    let of = values_type(field.data_type());
    if of == *field.data_type() { Arc::clone(field) } else { Arc::new(field.as_ref().clone().with_data_type(of)) }
}

fn values_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => values_type(values),
        DataType::List(item) => DataType::List(values_field(item)),
        DataType::LargeList(item) => DataType::LargeList(values_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(values_field(item), *size),
        DataType::Map(entries, is_sorted) => DataType::Map(values_field(entries), *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(values_field).collect()),
        other => other.clone(),
    }
}

fn failed(e: ArrowError) -> Error {
    Error::connector(format!("cannot write Arrow: {e}")).because(e)
}

/// How batches are written.
pub(super) fn write_options(buffers: Buffers) -> Result<IpcWriteOptions> {
    let (kind, level) = match buffers {
        Buffers::Plain => (None, None),
        Buffers::Lz4 => (Some(CompressionType::LZ4_FRAME), None),
        Buffers::Zstd(level) => (Some(CompressionType::ZSTD), Some(level)),
    };
    let options = IpcWriteOptions::default().try_with_compression(kind);
    options.and_then(|options| options.try_with_compression_level(level)).map_err(failed)
}

fn file_writer(schema: &Schema, file: File, buffers: Buffers) -> Result<FileWriter<Output>> {
    let output = Output::new(file, Packing::None).map_err(|e| failed(e.into()))?;
    FileWriter::try_new_with_options(output, schema, write_options(buffers)?).map_err(failed)
}

/// The records with the columns of the file.
pub(super) fn in_file(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() { Ok(Arc::clone(column)) } else { cast_with_options(column, field.data_type(), &options) }
    });
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(failed)?;
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(failed)
}

fn finished(writer: FileWriter<Output>) -> Result<File> {
    writer.into_inner().map_err(failed)?.finish().map_err(|e| failed(e.into()))
}

pub(super) struct ArrowEncoder {
    writer: FileWriter<Output>,
    schema: SchemaRef,
    /// Rows that wait for their batch to be full.
    gathered: BatchCoalescer,
}

impl ArrowEncoder {
    pub(super) fn new(schema: &SchemaRef, file: File, buffers: Buffers) -> Result<ArrowEncoder> {
        let schema = file_schema(schema);
        let gathered = BatchCoalescer::new(Arc::clone(&schema), BATCH_ROWS);
        Ok(ArrowEncoder { writer: file_writer(&schema, file, buffers)?, schema, gathered })
    }

    fn write_gathered(&mut self) -> Result<()> {
        while let Some(batch) = self.gathered.next_completed_batch() {
            self.writer.write(&batch).map_err(failed)?;
        }
        Ok(())
    }
}

impl Encoder for ArrowEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = in_file(batch, &self.schema)?;
        self.gathered.push_batch(batch).map_err(failed)?;
        self.write_gathered()
    }

    fn flush(&mut self) -> Result<()> {
        Err(Error::internal("an Arrow file is of use as a whole"))
    }

    fn bytes(&self) -> u64 {
        self.writer.get_ref().bytes() + self.gathered.size() as u64
    }

    fn memory(&self) -> usize {
        self.gathered.size()
    }

    fn release(&mut self) -> Result<()> {
        self.gathered.finish_buffered_batch().map_err(failed)?;
        self.write_gathered()
    }

    fn finish(mut self: Box<Self>) -> Result<File> {
        self.release()?;
        finished(self.writer)
    }
}

/// Brings the record batches of several files of one schema into one file.
pub(super) fn join(parts: &[PathBuf], file: File, buffers: Buffers) -> Result<File> {
    let mut writer: Option<FileWriter<Output>> = None;
    let mut file = Some(file);
    for path in parts {
        let input = File::open(path).map_err(|e| Error::connector(format!("cannot open {path:?}: {e}")).because(e))?;
        let reader = FileReader::try_new_buffered(input, None).map_err(failed)?;
        if let Some(file) = file.take() {
            writer = Some(file_writer(&reader.schema(), file, buffers)?);
        }
        let Some(writer) = &mut writer else { continue };
        for batch in reader {
            writer.write(&batch.map_err(failed)?).map_err(failed)?;
        }
    }
    finished(writer.ok_or_else(|| Error::internal("there is a file to join"))?)
}
