//! How the files of a directory are written, as far as the user may choose.

use std::fmt::Write as _;

use ::parquet::basic::{BrotliLevel, Compression as Codec, GzipLevel, ZstdLevel};
use arrow::datatypes::{DataType, SchemaRef};
use mill_frame::text::TextColumn;
use mill_protocol::{Error, Result};

use super::FileFormat;
use super::arrow::Buffers;
use super::csv::CsvWriting;
use super::output::Packing;
use crate::nearest::{did_you_mean, quoted};

/// How files are written.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// How they are compressed, as Python calls it; `None`: as usual for the format, or as the name of the one file says.
    pub compression: Option<String>,
    /// How hard; the scale is that of the compression.
    pub compression_level: Option<i32>,
    /// What CSV looks like.
    pub csv: CsvWriting,
    /// How many rows a row group of Parquet has at most.
    pub row_group_size: Option<usize>,
    /// The columns whose values name the directory of a file, and are not in it.
    pub partition_by: Vec<String>,
    /// How many rows a file has at most.
    pub max_rows_per_file: Option<u64>,
    /// A file that has become larger than this is not written any further.
    pub approximate_bytes_per_file: Option<u64>,
}

/// How the bytes of a file are made from what a format writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compressed {
    /// The bytes of a format of text, compressed as a whole.
    Text(Packing),
    /// The pages of Parquet.
    Pages(Codec),
    /// The buffers of Arrow's record batches.
    Buffers(Buffers),
}

const TEXT: [&str; 3] = ["uncompressed", "gzip", "zstd"];
const BUFFERS: [&str; 3] = ["uncompressed", "lz4", "zstd"];
const PAGES: [&str; 6] = ["uncompressed", "snappy", "gzip", "lz4", "zstd", "brotli"];

impl WriteOptions {
    /// How files of this format are compressed; `named` is what the name of the one file says, if it is one of text.
    pub(super) fn compressed(&self, format: FileFormat, named: Option<&str>) -> Result<Compressed> {
        let refused = |message: String| Err(Error::plan(format!("write_{}: {message}", format.extension())));
        let choices: &[&str] = match format {
            FileFormat::Csv | FileFormat::Json => &TEXT,
            FileFormat::Parquet => &PAGES,
            FileFormat::Arrow => &BUFFERS,
        };
        let usual = if format == FileFormat::Parquet { "snappy" } else { "uncompressed" };
        // What is compressed in Parquet and Arrow are parts of a file, of which its name says nothing.
        let named = named.filter(|_| matches!(format, FileFormat::Csv | FileFormat::Json));
        let chosen = self.compression.as_deref().or(named).unwrap_or(usual);
        if !choices.contains(&chosen) {
            let near = did_you_mean(chosen, choices.iter().copied());
            return refused(format!("compression is {chosen:?}{near} (it is one of {})", quoted(choices, ", ")));
        }
        if let Some(named) = named
            && named != chosen
        {
            return refused(format!("the name of the file says that it is {named}, and compression is {chosen:?}"));
        }
        let (least, most) = match chosen {
            "gzip" => (0, 9),
            "zstd" => (1, 22),
            "brotli" => (0, 11),
            _ if self.compression_level.is_some() => return refused(format!("{chosen} has no compression_level")),
            _ => (0, 0),
        };
        if let Some(level) = self.compression_level.filter(|level| *level < least || *level > most) {
            return refused(format!("compression_level of {chosen} is {least} to {most}, not {level}"));
        }
        let level = |usual: i32| self.compression_level.unwrap_or(usual);
        let wrong = |e: ::parquet::errors::ParquetError| Error::plan(format!("write_parquet: {e}"));
        Ok(match (format, chosen) {
            (FileFormat::Parquet, "snappy") => Compressed::Pages(Codec::SNAPPY),
            (FileFormat::Parquet, "gzip") => Compressed::Pages(Codec::GZIP(GzipLevel::try_new(level(6) as u32).map_err(wrong)?)),
            (FileFormat::Parquet, "lz4") => Compressed::Pages(Codec::LZ4_RAW),
            (FileFormat::Parquet, "zstd") => Compressed::Pages(Codec::ZSTD(ZstdLevel::try_new(level(3)).map_err(wrong)?)),
            (FileFormat::Parquet, "brotli") => {
                Compressed::Pages(Codec::BROTLI(BrotliLevel::try_new(level(4) as u32).map_err(wrong)?))
            }
            (FileFormat::Parquet, _) => Compressed::Pages(Codec::UNCOMPRESSED),
            (FileFormat::Arrow, "lz4") => Compressed::Buffers(Buffers::Lz4),
            (FileFormat::Arrow, "zstd") => Compressed::Buffers(Buffers::Zstd(level(3))),
            (FileFormat::Arrow, _) => Compressed::Buffers(Buffers::Plain),
            (_, "gzip") => Compressed::Text(Packing::Gzip(level(6) as u32)),
            (_, "zstd") => Compressed::Text(Packing::Zstd(level(3))),
            _ => Compressed::Text(Packing::None),
        })
    }

    /// Refuses options that contradict each other.
    pub(super) fn check(&self, format: FileFormat, is_one_file: bool) -> Result<()> {
        let refused = |message: &str| Err(Error::plan(format!("write_{}: {message}", format.extension())));
        if self.max_rows_per_file == Some(0) || self.row_group_size == Some(0) || self.approximate_bytes_per_file == Some(0) {
            return refused("a file or row group has at least one row");
        }
        let is_cut = self.max_rows_per_file.is_some() || self.approximate_bytes_per_file.is_some();
        if is_one_file && (is_cut || !self.partition_by.is_empty()) {
            return refused(
                "the path names one file, and partition_by, max_rows_per_file and approximate_bytes_per_file make several: give a \
                 directory, as in \"out/\"",
            );
        }
        self.csv.check()
    }

    /// Refuses keys of partitions that no column has, and columns that the options cannot write.
    pub(super) fn check_columns(&self, schema: &SchemaRef) -> Result<()> {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        for (index, key) in self.partition_by.iter().enumerate() {
            let Ok(field) = schema.field_with_name(key) else {
                let near = did_you_mean(key, names.iter().copied());
                return Err(Error::schema(format!("partition_by: there is no column {key:?}{near} (there are {})", quoted(&names, ", "))));
            };
            if self.partition_by[..index].contains(key) {
                return Err(Error::schema(format!("partition_by names {key:?} twice")));
            }
            let array = arrow::array::new_empty_array(field.data_type());
            let is_text = TextColumn::new(&array).is_ok_and(|column| column.is_some());
            if !is_text || matches!(field.data_type(), DataType::Null) {
                return Err(Error::schema(format!("partition_by: {key:?} is of a type that no name of a directory can show")));
            }
            if key.is_empty() || key.starts_with(['.', '_']) {
                return Err(Error::schema(format!(
                    "partition_by: directories whose names begin with '.' or '_' are skipped by readers: rename() the column {key:?}"
                )));
            }
        }
        if !self.partition_by.is_empty() && self.partition_by.len() == names.len() {
            return Err(Error::schema("partition_by names all columns, so that nothing is left for the files"));
        }
        Ok(())
    }

    /// The options that are not as they are by default, as Python spells them.
    pub(super) fn text(&self) -> String {
        let mut text = self.csv.text();
        let mut add = |name: &str, value: String| write!(text, ", {name}={value}").expect("a string takes all");
        if let Some(compression) = &self.compression {
            add("compression", format!("{compression:?}"));
        }
        if let Some(level) = self.compression_level {
            add("compression_level", level.to_string());
        }
        if let Some(rows) = self.row_group_size {
            add("row_group_size", rows.to_string());
        }
        if !self.partition_by.is_empty() {
            add("partition_by", format!("{:?}", self.partition_by));
        }
        if let Some(rows) = self.max_rows_per_file {
            add("max_rows_per_file", rows.to_string());
        }
        if let Some(bytes) = self.approximate_bytes_per_file {
            add("approximate_bytes_per_file", bytes.to_string());
        }
        text
    }
}
