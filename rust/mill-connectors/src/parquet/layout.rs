//! The types in which the columns of a file are read.
//!
//! A file has its own types, and often the Arrow schema it was written from as a hint. The types it is read in follow the
//! file where the two disagree on values, and are otherwise as plain as the library can read them, so that nothing need be
//! converted later:
//!
//! - A time has a zone if and only if the file says that it is adjusted to UTC. The name of the zone comes from the hint,
//!   also where the file's unit is another than the hint's (seconds are stored as milliseconds).
//! - `INT96` times reach from 4713 BC to millions of years from now, which no unit of Arrow holds with all its digits; see
//!   [`super::int96`].
//! - Dictionaries get codes of 32 bits, which they do not outgrow within a file.

use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ArrowReaderMetadata;
use ::parquet::arrow::{ARROW_SCHEMA_META_KEY, parquet_to_arrow_schema};
use ::parquet::basic::Type as PhysicalType;
use ::parquet::errors::Result;
use ::parquet::schema::types::SchemaDescriptor;
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::root_as_message;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// How the columns of a file are read.
pub(super) struct Layout {
    /// With `INT96` times in microseconds.
    pub(super) micros: SchemaRef,
    /// With `INT96` times in nanoseconds.
    pub(super) nanos: SchemaRef,
    /// Which columns hold `INT96` times, at any depth.
    pub(super) has_int96: Vec<bool>,
}

impl Layout {
    pub(super) fn of(metadata: &ArrowReaderMetadata) -> Result<Layout> {
        let descriptor = metadata.parquet_schema();
        let bare = parquet_to_arrow_schema(descriptor, None)?;
        let hint = hint_of(metadata);
        let mut has_int96 = Vec::new();
        let mut read = |unit: TimeUnit| {
            let mut leaves = Leaves { descriptor, next: 0, unit, has_int96: false };
            has_int96.clear();
            let mut fields = Vec::with_capacity(metadata.schema().fields().len());
            for (index, field) in metadata.schema().fields().iter().enumerate() {
                let hinted = hint.as_ref().and_then(|hint| hint.fields().get(index));
                leaves.has_int96 = false;
                fields.push(leaves.field(field, bare.fields().get(index), hinted));
                has_int96.push(leaves.has_int96);
            }
            Arc::new(Schema::new_with_metadata(fields, metadata.schema().metadata().clone()))
        };
        let (micros, nanos) = (read(TimeUnit::Microsecond), read(TimeUnit::Nanosecond));
        Ok(Layout { micros, nanos, has_int96 })
    }
}

/// The Arrow schema that the file was written from, if it holds one.
fn hint_of(metadata: &ArrowReaderMetadata) -> Option<Schema> {
    let pairs = metadata.metadata().file_metadata().key_value_metadata()?;
    let text = pairs.iter().find(|pair| pair.key == ARROW_SCHEMA_META_KEY)?.value.as_ref()?;
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    // A marker of four bytes and a length stand before the message in all but the oldest files.
    let message = if bytes.starts_with(&[0xff; 4]) { bytes.get(8..)? } else { bytes.as_slice() };
    Some(fb_to_schema(root_as_message(message).ok()?.header_as_schema()?))
}

/// Walks the columns of a file, leaf by leaf in the order of its own schema.
struct Leaves<'a> {
    descriptor: &'a SchemaDescriptor,
    next: usize,
    /// The unit of `INT96` times.
    unit: TimeUnit,
    has_int96: bool,
}

impl Leaves<'_> {
    /// `field` as the library would read it, `bare` without the hint, `hint` as it was written.
    fn field(&mut self, field: &FieldRef, bare: Option<&FieldRef>, hint: Option<&FieldRef>) -> FieldRef {
        let data_type = self.data_type(field.data_type(), bare.map(|f| f.data_type()), hint.map(|f| f.data_type()));
        Arc::new(field.as_ref().clone().with_data_type(data_type))
    }

    fn data_type(&mut self, data_type: &DataType, bare: Option<&DataType>, hint: Option<&DataType>) -> DataType {
        let within = |data_type: Option<&DataType>| data_type.and_then(element).cloned();
        match data_type {
            DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
                DataType::List(self.field(item, within(bare).as_ref(), within(hint).as_ref()))
            }
            DataType::FixedSizeList(item, size) => {
                DataType::FixedSizeList(self.field(item, within(bare).as_ref(), within(hint).as_ref()), *size)
            }
            DataType::Map(entries, is_sorted) => {
                DataType::Map(self.field(entries, within(bare).as_ref(), within(hint).as_ref()), *is_sorted)
            }
            DataType::Struct(fields) => {
                let part = |parent: Option<&DataType>, index: usize| match parent {
                    Some(DataType::Struct(parts)) if parts.len() == fields.len() => Some(Arc::clone(&parts[index])),
                    _ => None,
                };
                let mut read = Vec::with_capacity(fields.len());
                for (index, field) in fields.iter().enumerate() {
                    read.push(self.field(field, part(bare, index).as_ref(), part(hint, index).as_ref()));
                }
                DataType::Struct(Fields::from(read))
            }
            leaf => {
                let is_int96 = self.next < self.descriptor.num_columns()
                    && self.descriptor.column(self.next).physical_type() == PhysicalType::INT96;
                self.next += 1;
                self.has_int96 |= is_int96;
                self.leaf(leaf, bare, hint, is_int96)
            }
        }
    }

    fn leaf(&self, leaf: &DataType, bare: Option<&DataType>, hint: Option<&DataType>, is_int96: bool) -> DataType {
        let zone_of = |data_type: Option<&DataType>| match data_type {
            Some(DataType::Timestamp(_, zone)) => zone.clone(),
            _ => None,
        };
        match leaf {
            DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
            DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
            DataType::Dictionary(_, values) => {
                let hint = match hint {
                    Some(DataType::Dictionary(_, values)) => Some(values.as_ref()),
                    other => other,
                };
                let values = self.leaf(values, bare, hint, is_int96);
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(values))
            }
            DataType::RunEndEncoded(_, values) => self.leaf(values.data_type(), bare, None, is_int96),
            DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
                DataType::Decimal128(*precision, *scale)
            }
            DataType::Timestamp(..) if is_int96 => DataType::Timestamp(self.unit, zone_of(hint)),
            DataType::Timestamp(unit, Some(zone)) => match bare {
                Some(DataType::Timestamp(_, None)) => DataType::Timestamp(*unit, None),
                Some(DataType::Timestamp(_, Some(_))) => {
                    DataType::Timestamp(*unit, Some(zone_of(hint).unwrap_or_else(|| Arc::clone(zone))))
                }
                _ => leaf.clone(),
            },
            other => other.clone(),
        }
    }
}

fn element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => Some(item),
        _ => None,
    }
}
