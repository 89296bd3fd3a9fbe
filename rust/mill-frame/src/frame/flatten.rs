//! Arrow arrays into nodes and slabs.
//!
//! What is written is what the array shows: of a slice only its rows, of a list only the elements its rows refer to, of
//! a dictionary or of string views that are larger than what uses them only what is used. So a frame never ships the
//! parent of a slice.

use arrow::array::{
    Array, ArrayRef, AsArray, GenericByteArray, GenericByteViewArray, OffsetSizeTrait, UInt32Array, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{
    ArrowNativeType, BinaryType, BinaryViewType, ByteArrayType, ByteViewType, DataType, LargeBinaryType, LargeUtf8Type,
    StringViewType, Utf8Type,
};

use super::format::{BYTES_MAX, Node, Offsets, ROWS_MAX, Slab, Width};
use crate::FrameError;

/// Nodes and slabs of columns, in the order in which they are written.
#[derive(Default)]
pub(crate) struct Flat {
    pub nodes: Vec<Node>,
    pub slabs: Vec<Slab>,
}

impl Flat {
    /// Adds a buffer as it is.
    pub fn push(&mut self, buffer: Buffer) {
        self.slabs.push(Slab::Whole(buffer));
    }

    /// Adds an array as it is.
    pub fn array(&mut self, array: &dyn Array) -> Result<(), FrameError> {
        let at = self.open(array.len(), array.null_count())?;
        if array.null_count() > 0 && array.data_type() != &DataType::Null {
            let nulls = array.nulls().ok_or_else(|| unsupported(array))?;
            self.push(compact_bits(nulls.inner()));
        }
        match array.data_type() {
            DataType::Null => {}
            DataType::Boolean => self.push(compact_bits(array.as_boolean().values())),
            DataType::Utf8 => self.bytes(array.as_bytes::<Utf8Type>()),
            DataType::LargeUtf8 => self.bytes(array.as_bytes::<LargeUtf8Type>()),
            DataType::Binary => self.bytes(array.as_bytes::<BinaryType>()),
            DataType::LargeBinary => self.bytes(array.as_bytes::<LargeBinaryType>()),
            DataType::Utf8View => self.views(array.as_byte_view::<StringViewType>()),
            DataType::BinaryView => self.views(array.as_byte_view::<BinaryViewType>()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                self.elements(at, list.offsets(), list.values().as_ref())?;
            }
            DataType::LargeList(_) => {
                let list = array.as_list::<i64>();
                self.elements(at, list.offsets(), list.values().as_ref())?;
            }
            DataType::Map(..) => {
                let map = array.as_map();
                self.elements(at, map.offsets(), map.entries())?;
            }
            DataType::FixedSizeList(..) => {
                let list = array.as_fixed_size_list();
                let (first, width) = (list.value_offset(0) as usize, list.value_length() as usize);
                self.close(at);
                self.array(list.values().slice(first, width * list.len()).as_ref())?;
            }
            DataType::Struct(_) => {
                self.close(at);
                for column in array.as_struct().columns() {
                    self.array(column.as_ref())?;
                }
            }
            DataType::Dictionary(..) => {
                let (keys, values) = compact_dictionary(array)?;
                self.push(fixed_values(keys.as_ref())?.0);
                self.close(at);
                self.array(values.as_ref())?;
            }
            _ => self.push(fixed_values(array)?.0),
        }
        self.close(at);
        Ok(())
    }

    /// Adds the given rows of an array. Fixed-width values and plain text go from where they are straight into the
    /// frame; the rest is taken first.
    ///
    /// # Panics
    /// If a row is out of bounds.
    pub fn gather(&mut self, array: &ArrayRef, rows: &ScalarBuffer<u32>) -> Result<(), FrameError> {
        match array.data_type() {
            DataType::Boolean => {
                let at = self.open_gathered(array, rows)?;
                self.push(gather_bits(array.as_boolean().values(), rows).into_inner());
                self.close(at);
            }
            DataType::Utf8 => self.gather_bytes(array, array.as_bytes::<Utf8Type>(), rows, Offsets::Small)?,
            DataType::Binary => self.gather_bytes(array, array.as_bytes::<BinaryType>(), rows, Offsets::Small)?,
            DataType::LargeUtf8 => self.gather_bytes(array, array.as_bytes::<LargeUtf8Type>(), rows, Offsets::Large)?,
            DataType::LargeBinary => {
                self.gather_bytes(array, array.as_bytes::<LargeBinaryType>(), rows, Offsets::Large)?;
            }
            DataType::Struct(_) => {
                let at = self.open_gathered(array, rows)?;
                self.close(at);
                for column in array.as_struct().columns() {
                    self.gather(column, rows)?;
                }
            }
            data_type => match data_type.primitive_width().and_then(Width::of) {
                Some(width) => {
                    let at = self.open_gathered(array, rows)?;
                    let values = fixed_values(array.as_ref())?.0;
                    self.slabs.push(Slab::Gathered { values, width, rows: rows.clone() });
                    self.close(at);
                }
                None => {
                    self.array(take_all(array, &UInt32Array::new(rows.clone(), None))?.as_ref())?;
                }
            },
        }
        Ok(())
    }

    /// Starts a node; `at` of [`close`](Flat::close) is what it gives.
    fn open(&mut self, rows: usize, nulls: usize) -> Result<(usize, usize), FrameError> {
        if rows > ROWS_MAX {
            return Err(FrameError::TooLarge { bytes: rows, bytes_max: BYTES_MAX });
        }
        self.nodes.push(Node { rows: rows as u32, nulls: nulls as u32, slabs: 0 });
        Ok((self.nodes.len() - 1, self.slabs.len()))
    }

    fn open_gathered(&mut self, array: &ArrayRef, rows: &[u32]) -> Result<(usize, usize), FrameError> {
        let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) else {
            return self.open(rows.len(), 0);
        };
        let bits = gather_bits(nulls.inner(), rows);
        let at = self.open(rows.len(), rows.len() - bits.count_set_bits())?;
        if self.nodes[at.0].nulls > 0 {
            self.push(bits.into_inner());
        }
        Ok(at)
    }

    /// Ends a node: the slabs added since are its own. Called before the first child; calls after that change nothing.
    fn close(&mut self, (node, slabs): (usize, usize)) {
        if node + 1 == self.nodes.len() {
            self.nodes[node].slabs = (self.slabs.len() - slabs) as u32;
        }
    }

    fn bytes<T: ByteArrayType>(&mut self, array: &GenericByteArray<T>) {
        let (first, last) = self.offsets(array.offsets());
        self.push(array.values().slice_with_length(first, last - first));
    }

    fn elements<O: OffsetSizeTrait>(
        &mut self,
        at: (usize, usize),
        offsets: &OffsetBuffer<O>,
        elements: &dyn Array,
    ) -> Result<(), FrameError> {
        let (first, last) = self.offsets(offsets);
        self.close(at);
        self.array(elements.slice(first, last - first).as_ref())
    }

    /// Adds offsets so that they start at zero, and returns where the range that they refer to starts and ends.
    fn offsets<O: ArrowNativeType>(&mut self, offsets: &OffsetBuffer<O>) -> (usize, usize)
    where
        O: std::ops::Sub<Output = O>,
    {
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        if first.as_usize() == 0 {
            self.push(offsets.inner().inner().clone());
        } else {
            let shifted: Vec<O> = offsets.iter().map(|&offset| offset - first).collect();
            self.push(Buffer::from_vec(shifted));
        }
        (first.as_usize(), last.as_usize())
    }

    fn views<T: ByteViewType + ?Sized>(&mut self, array: &GenericByteViewArray<T>) {
        let held: usize = array.data_buffers().iter().map(Buffer::len).sum();
        let used: usize = array.lengths().filter(|&bytes| bytes > 12).map(|bytes| bytes as usize).sum();
        let compacted = (held > used + used / 2 + 4096).then(|| array.gc());
        let array = compacted.as_ref().unwrap_or(array);
        self.push(array.views().inner().clone());
        for buffer in array.data_buffers().iter() {
            self.push(buffer.clone());
        }
    }

    fn gather_bytes<T: ByteArrayType>(
        &mut self,
        array: &ArrayRef,
        texts: &GenericByteArray<T>,
        rows: &ScalarBuffer<u32>,
        wrap: impl Fn(ScalarBuffer<T::Offset>) -> Offsets,
    ) -> Result<(), FrameError> {
        let at = self.open_gathered(array, rows)?;
        let offsets = texts.offsets().inner();
        let mut bytes = 0;
        let mut gathered = Vec::with_capacity(rows.len() + 1);
        gathered.push(T::Offset::default());
        for &row in rows.iter() {
            bytes += offsets[row as usize + 1].as_usize() - offsets[row as usize].as_usize();
            // Never truncates: no row comes twice in a partition, so this is at most what the column itself has; the
            // check stands for callers to come.
            let offset = T::Offset::from_usize(bytes).ok_or(FrameError::TooLarge { bytes, bytes_max: BYTES_MAX })?;
            gathered.push(offset);
        }
        self.push(Buffer::from_vec(gathered));
        let values = texts.values().clone();
        self.slabs.push(Slab::Texts { values, offsets: wrap(offsets.clone()), rows: rows.clone(), bytes });
        self.close(at);
        Ok(())
    }
}

fn unsupported(array: &dyn Array) -> FrameError {
    FrameError::Unsupported { operation: "encode", data_type: array.data_type().clone() }
}

/// The rows of an array. Arrow forgets how many rows a list of size zero has: that is an error and no fewer rows.
fn take_all(array: &ArrayRef, rows: &dyn Array) -> Result<ArrayRef, FrameError> {
    let taken = take(array, rows, None)?;
    if taken.len() != rows.len() {
        return Err(FrameError::Unsupported { operation: "gather", data_type: array.data_type().clone() });
    }
    Ok(taken)
}

/// The values of a fixed-width array, and how wide they are.
fn fixed_values(array: &dyn Array) -> Result<(Buffer, usize), FrameError> {
    let width = match array.data_type() {
        DataType::FixedSizeBinary(width) => *width as usize,
        other => other.primitive_width().ok_or_else(|| unsupported(array))?,
    };
    let data = array.to_data();
    Ok((data.buffers()[0].slice_with_length(data.offset() * width, data.len() * width), width))
}

/// The bits of a bitmap, starting at the first bit of a byte.
pub(crate) fn compact_bits(bits: &BooleanBuffer) -> Buffer {
    let bytes = bits.len().div_ceil(8);
    if bits.offset().is_multiple_of(8) {
        bits.inner().slice_with_length(bits.offset() / 8, bytes)
    } else {
        let sliced = bits.sliced();
        sliced.slice_with_length(0, bytes)
    }
}

/// The bits of these rows.
pub(crate) fn gather_bits(bits: &BooleanBuffer, rows: &[u32]) -> BooleanBuffer {
    BooleanBuffer::collect_bool(rows.len(), |i| bits.value(rows[i] as usize))
}

/// Keys and values of a dictionary, without values that no key refers to if there are more values than keys.
fn compact_dictionary(array: &dyn Array) -> Result<(ArrayRef, ArrayRef), FrameError> {
    let dictionary = array.as_any_dictionary();
    let keys = arrow::array::make_array(dictionary.keys().to_data());
    let values = dictionary.values();
    if values.len() <= keys.len() {
        return Ok((keys, values.clone()));
    }
    let codes = cast(&keys, &DataType::UInt64)?;
    let codes: &UInt64Array = codes.as_primitive();
    let mut used: Vec<u64> = codes.iter().flatten().collect();
    used.sort_unstable();
    used.dedup();
    // A new code is never above the old one, so it fits the type of the keys.
    let renamed: UInt64Array = codes
        .iter()
        .map(|code| Some(code.and_then(|code| used.binary_search(&code).ok()).unwrap_or(0) as u64))
        .collect();
    let renamed = cast(&renamed, keys.data_type())?;
    Ok((renamed, take_all(values, &UInt64Array::from(used))?))
}
