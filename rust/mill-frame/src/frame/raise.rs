//! Nodes and slabs back into Arrow arrays, in place.
//!
//! The shape is checked always and costs next to nothing: each node has the rows its parent asks for, each slab exactly
//! the bytes its node asks for. The content of slabs (offsets, text, codes, counts of nulls) is validated only where it
//! is not trusted.

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::DataType;

use super::access::{Access, Trust};
use super::format::ROWS_MAX;
use crate::FrameError;

/// How deep types may nest; they come from our own plans, so this only guards the stack.
const DEPTH_MAX: usize = 64;

/// Reads columns one after the other.
pub(crate) struct Raise<'a> {
    access: &'a Access,
    trust: Trust,
    node: usize,
    slab: usize,
}

/// What a node says.
struct Shape {
    rows: usize,
    nulls: usize,
    slabs: usize,
}

impl<'a> Raise<'a> {
    pub fn new(access: &'a Access, trust: Trust) -> Raise<'a> {
        Raise { access, trust, node: 0, slab: 0 }
    }

    /// The next slab, which must have this many bytes.
    pub fn slab(&mut self, bytes: usize) -> Result<Buffer, FrameError> {
        let buffer = self.any_slab()?;
        if buffer.len() != bytes {
            let found = buffer.len();
            return Err(FrameError::corrupt(format!("slab {} has {found} bytes instead of {bytes}", self.slab - 1)));
        }
        Ok(buffer)
    }

    fn any_slab(&mut self) -> Result<Buffer, FrameError> {
        let slab = self.access.form().slabs.as_slice().get(self.slab);
        let slab = slab.ok_or_else(|| FrameError::corrupt("there are fewer slabs than columns need"))?;
        self.slab += 1;
        self.access.buffer(slab)
    }

    /// The next column.
    pub fn column(&mut self, data_type: &DataType, rows: usize) -> Result<ArrayRef, FrameError> {
        Ok(make_array(self.array(data_type, Some(rows), 0)?))
    }

    /// All nodes and slabs must have been read.
    pub fn finish(self) -> Result<(), FrameError> {
        let form = self.access.form();
        if self.node != form.nodes.len() || self.slab != form.slabs.len() {
            return Err(FrameError::corrupt("there are more nodes or slabs than columns need"));
        }
        Ok(())
    }

    fn shape(&mut self, rows: Option<usize>) -> Result<Shape, FrameError> {
        let node = self.access.form().nodes.as_slice().get(self.node);
        let node = node.ok_or_else(|| FrameError::corrupt("there are fewer nodes than columns need"))?;
        self.node += 1;
        let shape = Shape {
            rows: node.rows.to_native() as usize,
            nulls: node.nulls.to_native() as usize,
            slabs: node.slabs.to_native() as usize,
        };
        if rows.is_some_and(|rows| rows != shape.rows) || shape.rows > ROWS_MAX || shape.nulls > shape.rows {
            return Err(FrameError::corrupt(format!(
                "node {} has {} rows and {} nulls, {rows:?} rows are expected",
                self.node - 1,
                shape.rows,
                shape.nulls
            )));
        }
        Ok(shape)
    }

    fn nulls(&mut self, shape: &Shape) -> Result<Option<NullBuffer>, FrameError> {
        if shape.nulls == 0 {
            return Ok(None);
        }
        let bits = BooleanBuffer::new(self.slab(shape.rows.div_ceil(8))?, 0, shape.rows);
        self.trust.nulls(bits, shape.nulls).map(Some)
    }

    fn array(&mut self, data_type: &DataType, rows: Option<usize>, depth: usize) -> Result<ArrayData, FrameError> {
        if depth > DEPTH_MAX {
            return Err(FrameError::Unsupported { operation: "decode", data_type: data_type.clone() });
        }
        let shape = self.shape(rows)?;
        let rows = shape.rows;
        let first_slab = self.slab;
        let mut data = ArrayData::builder(data_type.clone()).len(rows);
        if data_type != &DataType::Null {
            data = data.nulls(self.nulls(&shape)?);
        } else if shape.nulls != rows && shape.nulls != 0 {
            return Err(FrameError::corrupt("a column of nulls has values"));
        }
        let own = |raise: &Self| raise.slab - first_slab;
        let mut slabs = None;
        match data_type {
            DataType::Null => {}
            DataType::Boolean => data = data.add_buffer(self.slab(rows.div_ceil(8))?),
            DataType::Utf8 | DataType::Binary => {
                data = data.add_buffer(self.slab((rows + 1) * 4)?).add_buffer(self.any_slab()?);
            }
            DataType::LargeUtf8 | DataType::LargeBinary => {
                data = data.add_buffer(self.slab((rows + 1) * 8)?).add_buffer(self.any_slab()?);
            }
            DataType::Utf8View | DataType::BinaryView => {
                data = data.add_buffer(self.slab(rows * 16)?);
                while own(self) < shape.slabs {
                    data = data.add_buffer(self.any_slab()?);
                }
            }
            DataType::List(field) | DataType::Map(field, _) => {
                data = data.add_buffer(self.slab((rows + 1) * 4)?);
                slabs = Some(own(self));
                data = data.add_child_data(self.array(field.data_type(), None, depth + 1)?);
            }
            DataType::LargeList(field) => {
                data = data.add_buffer(self.slab((rows + 1) * 8)?);
                slabs = Some(own(self));
                data = data.add_child_data(self.array(field.data_type(), None, depth + 1)?);
            }
            DataType::FixedSizeList(field, width) => {
                let elements = usize::try_from(*width).ok().and_then(|width| width.checked_mul(rows));
                let elements = elements.ok_or_else(|| FrameError::corrupt("a list of impossible size"))?;
                slabs = Some(own(self));
                data = data.add_child_data(self.array(field.data_type(), Some(elements), depth + 1)?);
            }
            DataType::Struct(fields) => {
                slabs = Some(own(self));
                for field in fields {
                    data = data.add_child_data(self.array(field.data_type(), Some(rows), depth + 1)?);
                }
            }
            DataType::Dictionary(key, value) => {
                let width = key.primitive_width().filter(|_| key.is_dictionary_key_type());
                let width = width.ok_or_else(|| unsupported(data_type))?;
                data = data.add_buffer(self.slab(rows * width)?);
                slabs = Some(own(self));
                data = data.add_child_data(self.array(value, None, depth + 1)?);
            }
            DataType::FixedSizeBinary(width) => {
                let width = usize::try_from(*width).map_err(|_| unsupported(data_type))?;
                data = data.add_buffer(self.slab(rows * width)?);
            }
            other => {
                let width = other.primitive_width().ok_or_else(|| unsupported(other))?;
                data = data.add_buffer(self.slab(rows * width)?);
            }
        }
        if slabs.unwrap_or_else(|| own(self)) != shape.slabs {
            return Err(FrameError::corrupt(format!("a node of type {data_type} has {} slabs", shape.slabs)));
        }
        self.trust.build(data)
    }
}

fn unsupported(data_type: &DataType) -> FrameError {
    FrameError::Unsupported { operation: "decode", data_type: data_type.clone() }
}
