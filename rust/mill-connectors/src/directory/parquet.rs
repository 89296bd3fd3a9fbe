//! Writes Parquet, in row groups small enough to be held while they are encoded.
//!
//! Records are gathered until there are [`PIECE_ROWS`] of them, and then encoded a column at a time ([`group`]).

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use ::parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use ::parquet::basic::Compression;
use ::parquet::column::writer::ColumnCloseResult;
use ::parquet::file::metadata::ParquetMetaDataReader;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit};
use mill_frame::types::{check_fields, type_name};
use mill_protocol::{Error, Result};

use super::Encoder;
use super::group::{Group, Groups};
use super::options::WriteOptions;
use super::output::WRITE_BYTES;

/// How many rows a row group has at most.
const GROUP_ROWS: usize = 256 << 10;
/// A row group is written before it takes more memory than this.
const GROUP_BYTES: usize = 64 << 20;
/// So many rows are encoded at once.
const PIECE_ROWS: usize = 64 << 10;
/// Fewer if they take more memory than this.
const PIECE_BYTES: usize = 8 << 20;

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
    file: SerializedFileWriter<BufWriter<File>>,
    /// The columns of the file.
    schema: SchemaRef,
    /// Whether the records have others.
    is_converted: bool,
    groups: Groups,
    group_rows_max: usize,
    /// How many rows are gathered before they are encoded.
    piece_rows: usize,
    held: Held,
    group: Option<Group>,
}

/// Records that are not encoded yet.
#[derive(Default)]
struct Held {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

fn failed(e: ::parquet::errors::ParquetError) -> Error {
    Error::connector(format!("cannot write Parquet: {e}")).because(e)
}

impl ParquetEncoder {
    pub(super) fn new(schema: &SchemaRef, file: File, codec: Compression, options: &WriteOptions, threads: usize) -> Result<ParquetEncoder> {
        let group_rows_max = options.row_group_size.unwrap_or(GROUP_ROWS);
        let properties = WriterProperties::builder().set_compression(codec).set_max_row_group_row_count(Some(group_rows_max)).build();
        let file = BufWriter::with_capacity(WRITE_BYTES, file);
        let of_records = schema;
        let schema = file_schema(of_records);
        let is_converted = schema != *of_records;
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties.clone())).map_err(failed)?;
        let (file, factory) = writer.into_serialized_writer().map_err(failed)?;
        let groups = Groups::new(&schema, file.schema_descr(), properties, factory, threads);
        // How large a file has become shows only once its records are encoded.
        let piece_rows = if options.approximate_bytes_per_file.is_some() { 1 } else { PIECE_ROWS };
        Ok(ParquetEncoder { file, schema, is_converted, groups, group_rows_max, piece_rows, held: Held::default(), group: None })
    }

    /// How many rows the row group has that is written.
    fn group_rows(&self) -> usize {
        self.held.rows + self.group.as_ref().map_or(0, Group::rows)
    }

    fn hold(&mut self, batch: RecordBatch) {
        self.held.rows += batch.num_rows();
        self.held.bytes += batch.columns().iter().map(bytes_of).sum::<usize>();
        self.held.batches.push(batch);
    }

    /// Encodes what is held.
    fn encode(&mut self) -> Result<()> {
        let Held { batches, rows, .. } = std::mem::take(&mut self.held);
        if rows == 0 {
            return Ok(());
        }
        let group = match &mut self.group {
            Some(group) => group,
            none => none.insert(self.groups.begin(self.file.flushed_row_groups().len(), &batches, rows).map_err(failed)?),
        };
        self.groups.write(group, &batches, rows).map_err(failed)
    }

    /// Writes the row group, with what is held.
    fn write_group(&mut self) -> Result<()> {
        self.encode()?;
        let Some(group) = self.group.take() else { return Ok(()) };
        let mut out = self.file.next_row_group().map_err(failed)?;
        for chunk in self.groups.close(group).map_err(failed)? {
            chunk.append_to_row_group(&mut out).map_err(failed)?;
        }
        out.close().map_err(failed)?;
        Ok(())
    }
}

/// How much memory the rows of an array take, which may be some of a much larger one.
fn bytes_of(array: &ArrayRef) -> usize {
    fn list_bytes<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> usize {
        let offsets = list.value_offsets();
        let (start, end) = (offsets[0].as_usize(), offsets[list.len()].as_usize());
        size_of_val(offsets) + bytes_of(&list.values().slice(start, end - start))
    }
    match array.data_type() {
        DataType::List(_) => list_bytes(array.as_list::<i32>()),
        DataType::LargeList(_) => list_bytes(array.as_list::<i64>()),
        DataType::Map(..) => {
            let map = array.as_map();
            let offsets = map.value_offsets();
            let (start, end) = (offsets[0] as usize, offsets[map.len()] as usize);
            let entries: ArrayRef = Arc::new(map.entries().slice(start, end - start));
            size_of_val(offsets) + bytes_of(&entries)
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(bytes_of).sum(),
        _ => array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
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
        let mut batch = if self.is_converted { in_file(batch, &self.schema)? } else { batch.clone() };
        while batch.num_rows() > 0 {
            let rows = batch.num_rows().min(self.group_rows_max - self.group_rows());
            self.hold(batch.slice(0, rows));
            batch = batch.slice(rows, batch.num_rows() - rows);
            if self.held.rows >= self.piece_rows || self.held.bytes >= PIECE_BYTES {
                self.encode()?;
            }
            if self.group_rows() >= self.group_rows_max || self.group.as_ref().map_or(0, Group::memory) > GROUP_BYTES {
                self.write_group()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Err(Error::internal("a Parquet file is of use as a whole"))
    }

    fn bytes(&self) -> u64 {
        (self.file.bytes_written() + self.held.bytes + self.group.as_ref().map_or(0, Group::bytes)) as u64
    }

    fn memory(&self) -> usize {
        self.held.bytes + self.group.as_ref().map_or(0, Group::memory)
    }

    fn release(&mut self) -> Result<()> {
        self.write_group()
    }

    fn finish(mut self: Box<Self>) -> Result<File> {
        self.write_group()?;
        let file = self.file.into_inner().map_err(failed)?;
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
