//! The frame: records in one aligned, immutable buffer.
//!
//! ```text
//!   Batch ─encode─► Frame ─as_bytes─► queue, log, checkpoint file
//!                     ▲                        │
//!                     └──── from_bytes ◄───────┘   checks all of it, once
//!   Frame ─decode─► Batch whose columns lie in the frame and keep it alive
//! ```
//!
//! Encoding copies each buffer once; decoding copies nothing. A frame knows the schema it was made or checked with:
//! that is what makes it safe to read its columns later without looking at their content again. The parts:
//! `format` is the layout, `flatten` and `raise` are the ways there and back, `access` is where bytes are trusted.

mod access;
mod flatten;
mod format;
mod raise;

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::buffer::{BooleanBuffer, ScalarBuffer};
use arrow::datatypes::SchemaRef;

use self::access::{Access, FrameBytes, Trust};
use self::format::{
    ALIGNMENT, ArchivedForm, BYTES_MAX, Form, HAS_BEHIND, HAS_DELETES, HAS_TIMES, MAGIC, ROWS_MAX, VERSION,
};
use self::raise::Raise;
use crate::block::SharedBytes;
use crate::{Batch, FrameError, schema};

pub(crate) use self::flatten::{Flat, compact_bits, gather_bits};
pub(crate) use self::format::{Slab, Width};

/// Records in one buffer, aligned to 64 bytes. Immutable; cloning shares it.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// use mill_frame::{Batch, Frame};
///
/// let price: ArrayRef = Arc::new(Int64Array::from(vec![3, 5, 8]));
/// let batch = Batch::new(RecordBatch::try_from_iter([("price", price)])?);
/// let frame = Frame::encode(&batch)?;
/// assert_eq!(frame.decode(&batch.schema())?.data(), batch.data());
///
/// // Bytes from a file or a socket are checked first.
/// let mut bytes = frame.as_bytes().to_vec();
/// assert_eq!(Frame::from_bytes(bytes.clone(), &batch.schema())?.rows(), 3);
/// let root = bytes.len() - 1;
/// bytes[root] ^= 0x40;
/// assert!(Frame::from_bytes(bytes, &batch.schema()).unwrap_err().is_corrupt());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Frame {
    access: Access,
    schema: SchemaRef,
}

impl Frame {
    /// Writes records into a frame. The split they were read from is not kept: after an exchange there is none.
    ///
    /// # Errors
    /// When a column has a type that frames do not carry, or the records take more than 1 GiB.
    pub fn encode(batch: &Batch) -> Result<Frame, FrameError> {
        Frame::encode_with(batch, schema::fingerprint(&batch.schema()))
    }

    /// The same, with the schema's fingerprint known.
    pub(crate) fn encode_with(batch: &Batch, fingerprint: u64) -> Result<Frame, FrameError> {
        let mut flat = Flat::default();
        let mut times = None;
        if let Some(values) = batch.times() {
            times = Some(min_max(values));
            flat.push(values.inner().clone());
        }
        if let Some(behind) = batch.behind() {
            flat.push(behind.inner().clone());
        }
        if let Some(deletes) = batch.deletes() {
            flat.push(compact_bits(deletes));
        }
        for column in batch.data().columns() {
            flat.array(column.as_ref())?;
        }
        Frame::write(flat, batch, batch.rows(), times, fingerprint)
    }

    /// Writes what has been flattened: first times, behind and deletes as far as the batch has them, then its columns.
    pub(crate) fn write(
        flat: Flat,
        batch: &Batch,
        rows: usize,
        times: Option<(i64, i64)>,
        fingerprint: u64,
    ) -> Result<Frame, FrameError> {
        let part = |is_there: bool, flag: u32| if is_there { flag } else { 0 };
        let slab_bytes: usize = flat.slabs.iter().map(|slab| slab.len().next_multiple_of(ALIGNMENT)).sum();
        // The tables and the root, with what alignment may add.
        let bytes = slab_bytes + flat.slabs.len() * 16 + flat.nodes.len() * 16 + 256;
        if bytes > BYTES_MAX || rows > ROWS_MAX {
            return Err(FrameError::TooLarge { bytes, bytes_max: BYTES_MAX });
        }
        let (min_time, max_time) = times.unwrap_or((i64::MAX, i64::MIN));
        let form = Form {
            magic: MAGIC,
            version: VERSION,
            schema: fingerprint,
            rows: rows as u32,
            parts: part(batch.times().is_some(), HAS_TIMES)
                | part(batch.behind().is_some(), HAS_BEHIND)
                | part(batch.deletes().is_some(), HAS_DELETES),
            min_time,
            max_time,
            slabs: flat.slabs,
            nodes: flat.nodes,
        };
        Ok(Frame { access: Access::write(&form, bytes)?, schema: batch.schema() })
    }

    /// Takes bytes from outside and checks all of them: that they are an archive of this schema, and that every offset,
    /// length, code, text and count in it holds. Aligned bytes are used where they are, others are copied once.
    ///
    /// # Errors
    /// When anything does not hold. No byte string panics, reads out of bounds, or allocates more than its own size.
    pub fn from_bytes(bytes: impl Into<SharedBytes>, schema: &SchemaRef) -> Result<Frame, FrameError> {
        let bytes = bytes.into();
        if bytes.len() > BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: bytes.len(), bytes_max: BYTES_MAX });
        }
        let access = Access::check(FrameBytes::new(bytes))?;
        let form = access.form();
        let (magic, version) = (form.magic.to_native(), form.version.to_native());
        if magic != MAGIC || version != VERSION {
            return Err(FrameError::corrupt(format!("magic {magic:08x} and version {version} are not known")));
        }
        let expected = schema::fingerprint(schema);
        let found = form.schema.to_native();
        if expected != found {
            return Err(FrameError::Schema { expected, found });
        }
        let batch = raise(&access, schema, Trust::None)?;
        let times = batch.times().map(|values| min_max(values)).unwrap_or((i64::MAX, i64::MIN));
        if times != (form.min_time.to_native(), form.max_time.to_native()) {
            return Err(FrameError::corrupt("the oldest or newest event time is not that of the records"));
        }
        Ok(Frame { access, schema: Arc::clone(schema) })
    }

    /// The records; columns are in the frame and keep it alive, no byte is copied.
    ///
    /// # Errors
    /// When the frame has another schema. One that differs in nullability or metadata alone is as good.
    pub fn decode(&self, schema: &SchemaRef) -> Result<Batch, FrameError> {
        if Arc::ptr_eq(schema, &self.schema) || has_same_types(schema, &self.schema) {
            return raise(&self.access, schema, Trust::Whole);
        }
        let (expected, found) = (schema::fingerprint(schema), self.form().schema.to_native());
        if expected != found {
            return Err(FrameError::Schema { expected, found });
        }
        // The types differ in what the fingerprint leaves out (nullability within lists): look at the content again.
        raise(&self.access, schema, Trust::None)
    }

    /// The schema it was encoded from or checked with.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The bytes, to be written somewhere. They start at an address that is a multiple of 64, and want to again.
    pub fn as_bytes(&self) -> &[u8] {
        self.access.bytes().as_slice()
    }

    /// The bytes, sharing the frame.
    pub fn to_shared_bytes(&self) -> SharedBytes {
        SharedBytes::new(self.access.bytes().clone())
    }

    /// How many records it has.
    pub fn rows(&self) -> usize {
        self.form().rows.to_native() as usize
    }

    /// The oldest event time, in microseconds; `None` without event time or without records.
    pub fn min_time(&self) -> Option<i64> {
        self.has_times().then(|| self.form().min_time.to_native())
    }

    /// The newest event time, in microseconds; `None` without event time or without records.
    pub fn max_time(&self) -> Option<i64> {
        self.has_times().then(|| self.form().max_time.to_native())
    }

    fn has_times(&self) -> bool {
        self.rows() > 0 && self.form().parts.to_native() & HAS_TIMES != 0
    }

    fn form(&self) -> &ArchivedForm {
        self.access.form()
    }
}

impl AsRef<[u8]> for FrameBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("rows", &self.rows()).field("bytes", &self.as_bytes().len()).finish()
    }
}

/// The least and the greatest of some times; of none the greatest and the least there are.
pub(crate) fn min_max(times: &[i64]) -> (i64, i64) {
    times.iter().fold((i64::MAX, i64::MIN), |(min, max), &time| (min.min(time), max.max(time)))
}

fn has_same_types(a: &SchemaRef, b: &SchemaRef) -> bool {
    a.fields().len() == b.fields().len()
        && a.fields().iter().zip(b.fields()).all(|(a, b)| {
            a.name() == b.name() && a.data_type() == b.data_type() && schema::is_object(a) == schema::is_object(b)
        })
}

fn raise(access: &Access, schema: &SchemaRef, trust: Trust) -> Result<Batch, FrameError> {
    let form = access.form();
    let rows = form.rows.to_native() as usize;
    let parts = form.parts.to_native();
    if rows > ROWS_MAX || parts & !(HAS_TIMES | HAS_BEHIND | HAS_DELETES) != 0 {
        return Err(FrameError::corrupt(format!("{rows} rows with parts {parts:#b}")));
    }
    let mut raise = Raise::new(access, trust);
    let longs = |raise: &mut Raise<'_>, flag: u32| -> Result<Option<ScalarBuffer<i64>>, FrameError> {
        let has_part = parts & flag != 0;
        has_part.then(|| Ok(ScalarBuffer::new(raise.slab(rows * size_of::<i64>())?, 0, rows))).transpose()
    };
    let times = longs(&mut raise, HAS_TIMES)?;
    let behind = longs(&mut raise, HAS_BEHIND)?;
    let deletes = match parts & HAS_DELETES {
        0 => None,
        _ => Some(BooleanBuffer::new(raise.slab(rows.div_ceil(8))?, 0, rows)),
    };
    let columns =
        schema.fields().iter().map(|field| raise.column(field.data_type(), rows)).collect::<Result<_, _>>()?;
    raise.finish()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let data = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| FrameError::corrupt(error.to_string()))?;
    Ok(Batch::new(data).with_times(times).with_behind(behind).with_deletes(deletes))
}
