//! Writes Parquet, in row groups small enough to be held while they are encoded.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use ::parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use ::parquet::basic::Compression;
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::file::metadata::ParquetMetaDataReader;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit};
use mill_frame::types::{check_fields, type_name};
use mill_protocol::{Error, Result};

use super::Encoder;
use super::output::WRITE_BYTES;

/// How many rows a row group has at most.
const GROUP_ROWS: usize = 256 << 10;
/// A row group is written before it takes more memory than this.
const GROUP_BYTES: usize = 64 << 20;

/// Refuses columns that Parquet has no type for.
pub(super) fn check(schema: &SchemaRef) -> Result<()> {
    check_fields(schema.fields()).map_err(|e| Error::schema(e.to_string()))?;
    for field in schema.fields() {
        if has_nested_values(field.data_type()) {
            return Err(Error::schema(format!(
                "column {:?} is {}, and Parquet has no dictionaries of lists, structs or maps; drop it, or make it plain \
                 lists or structs with map() or map_batches()",
                field.name(),
                type_name(field.data_type())
            )));
        }
        let one = Schema::new(vec![Arc::clone(field)]);
        // The library has a type for intervals, and then no way to write one.
        if has_intervals(field.data_type()) {
            return Err(Error::schema(format!(
                "column {:?} is {}, which cannot be written as Parquet; cast it to str, or write it with write_arrow()",
                field.name(),
                type_name(field.data_type())
            )));
        }
        if let Err(error) = ArrowSchemaConverter::new().convert(&one) {
            let name = type_name(field.data_type());
            let message = format!("column {:?} is {name}, which cannot be written as Parquet; drop or cast it", field.name());
            return Err(Error::schema(message).because(error));
        }
    }
    Ok(())
}

/// Whether a type has dictionaries whose values are nested.
fn has_nested_values(data_type: &DataType) -> bool {
    has(data_type, &|part| matches!(part, DataType::Dictionary(_, values) if values.is_nested()))
}

fn has_intervals(data_type: &DataType) -> bool {
    has(data_type, &|part| matches!(part, DataType::Interval(IntervalUnit::MonthDayNano)))
}

/// Whether a type is one of these, or has one.
fn has(data_type: &DataType, is_it: &dyn Fn(&DataType) -> bool) -> bool {
    if is_it(data_type) {
        return true;
    }
    match data_type {
        DataType::Dictionary(_, values) => has(values, is_it),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has(item.data_type(), is_it),
        DataType::Struct(fields) => fields.iter().any(|field| has(field.data_type(), is_it)),
        _ => false,
    }
}

/// The columns of the file. Parquet counts no seconds: times in seconds become milliseconds, which every reader takes for times.
fn file_schema(schema: &SchemaRef) -> SchemaRef {
    let fields = |fields: &Fields| fields.iter().map(|field| file_field(field)).collect::<Fields>();
    Arc::new(Schema::new_with_metadata(fields(schema.fields()), schema.metadata().clone()))
}

fn file_field(field: &FieldRef) -> FieldRef {
    let of = |item: &FieldRef| file_field(item);
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::List(item) => DataType::List(of(item)),
        DataType::LargeList(item) => DataType::LargeList(of(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(of(item), *size),
        DataType::Map(item, is_sorted) => DataType::Map(of(item), *is_sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(of).collect()),
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

pub(super) struct ParquetEncoder {
    writer: ArrowWriter<BufWriter<File>>,
    /// The columns of the file, where they are others than those of the records.
    schema: Option<SchemaRef>,
}

fn failed(e: ::parquet::errors::ParquetError) -> Error {
    Error::connector(format!("cannot write Parquet: {e}")).because(e)
}

impl ParquetEncoder {
    pub(super) fn new(schema: &SchemaRef, file: File, codec: Compression, group_rows: Option<usize>) -> Result<ParquetEncoder> {
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_max_row_group_row_count(Some(group_rows.unwrap_or(GROUP_ROWS)))
            .build();
        let file = BufWriter::with_capacity(WRITE_BYTES, file);
        let of_file = file_schema(schema);
        let writer = ArrowWriter::try_new(file, Arc::clone(&of_file), Some(properties)).map_err(failed)?;
        Ok(ParquetEncoder { writer, schema: (of_file != *schema).then_some(of_file) })
    }
}

/// Records with the columns of the file.
fn in_file(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        if column.data_type() == field.data_type() {
            return Ok(Arc::clone(column));
        }
        cast_with_options(column, field.data_type(), &options).map_err(|error| {
            let name = type_name(column.data_type());
            Error::schema(format!("column {:?} is {name}, and a value is out of range in the milliseconds of Parquet: {error}", field.name()))
        })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(|error| Error::internal(error.to_string()))
}

impl Encoder for ParquetEncoder {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &self.schema {
            None => self.writer.write(batch).map_err(failed)?,
            Some(schema) => self.writer.write(&in_file(batch, schema)?).map_err(failed)?,
        }
        if self.writer.memory_size() > GROUP_BYTES {
            self.writer.flush().map_err(failed)?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Err(Error::internal("a Parquet file is of use as a whole"))
    }

    fn bytes(&self) -> u64 {
        (self.writer.bytes_written() + self.writer.in_progress_size()) as u64
    }

    fn memory(&self) -> usize {
        self.writer.memory_size()
    }

    fn release(&mut self) -> Result<()> {
        self.writer.flush().map_err(failed)
    }

    fn finish(self: Box<Self>) -> Result<File> {
        let file = self.writer.into_inner().map_err(failed)?;
        file.into_inner().map_err(|e| Error::connector(format!("cannot write Parquet: {e}")))
    }
}

/// Brings the row groups of several files of one schema into one file, as they are.
pub(super) fn join(parts: &[std::path::PathBuf], file: File) -> Result<File> {
    let open = |path: &std::path::PathBuf| {
        File::open(path).map_err(|e| Error::connector(format!("cannot open {path:?}: {e}")).because(e))
    };
    let mut writer: Option<SerializedFileWriter<BufWriter<File>>> = None;
    let mut file = Some(BufWriter::with_capacity(WRITE_BYTES, file));
    for path in parts {
        let input = open(path)?;
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&input).map_err(failed)?;
        let of_file = metadata.file_metadata();
        if let Some(file) = file.take() {
            let properties = WriterProperties::builder().set_key_value_metadata(of_file.key_value_metadata().cloned()).build();
            let schema = of_file.schema_descr().root_schema_ptr();
            writer = Some(SerializedFileWriter::new(file, schema, Arc::new(properties)).map_err(failed)?);
        }
        let Some(writer) = &mut writer else { continue };
        for group in metadata.row_groups() {
            let mut out = writer.next_row_group().map_err(failed)?;
            for column in group.columns() {
                let closed = ColumnCloseResult {
                    bytes_written: column.compressed_size() as u64,
                    rows_written: group.num_rows() as u64,
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                out.append_column(&input, closed).map_err(failed)?;
            }
            out.close().map_err(failed)?;
        }
    }
    let writer = writer.ok_or_else(|| Error::internal("there is a file to join"))?;
    let file = writer.into_inner().map_err(failed)?;
    file.into_inner().map_err(|e| Error::connector(format!("cannot write Parquet: {e}")))
}
