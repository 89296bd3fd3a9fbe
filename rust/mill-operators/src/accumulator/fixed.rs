//! Values of 8 bytes in the form that [`Codec`](super::cells::Codec) writes, without its detours.
//!
//! ```text
//!   1 │ the value, its highest byte first, as an unsigned number in the order of the values        0 │ eight zeros: null
//! ```

use arrow::array::{Array, ArrayData, ArrayRef, make_array};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use mill_protocol::{Error, Result};

/// How many bytes a value takes.
pub(super) const FIXED_BYTES: usize = 9;
const SIGN: u64 = 1 << 63;

/// How values become numbers in their order.
#[derive(Clone, Copy)]
pub(super) enum Fixed {
    Signed,
    Unsigned,
    Float,
}

impl Fixed {
    /// That of this type; `None` of those that do not have 8 bytes.
    pub(super) fn of(data_type: &DataType) -> Option<Fixed> {
        use DataType::*;
        match data_type {
            Int64 | Date64 | Time64(_) | Timestamp(..) | Duration(_) => Some(Fixed::Signed),
            UInt64 => Some(Fixed::Unsigned),
            Float64 => Some(Fixed::Float),
            _ => None,
        }
    }

    /// All bits of a float but the sign are turned around if it is negative; and back.
    #[inline(always)]
    fn turned(bits: u64) -> u64 {
        bits ^ ((bits as i64 >> 63) as u64 >> 1)
    }

    #[inline(always)]
    fn ordered(self, bits: u64) -> u64 {
        match self {
            Fixed::Signed => bits ^ SIGN,
            Fixed::Unsigned => bits,
            Fixed::Float => Fixed::turned(bits) ^ SIGN,
        }
    }

    #[inline(always)]
    fn bits(self, ordered: u64) -> u64 {
        match self {
            Fixed::Signed => ordered ^ SIGN,
            Fixed::Unsigned => ordered,
            Fixed::Float => Fixed::turned(ordered ^ SIGN),
        }
    }
}

/// The values of a frame.
pub(super) struct FixedValues {
    fixed: Fixed,
    bits: ScalarBuffer<u64>,
    nulls: Option<NullBuffer>,
}

impl FixedValues {
    pub(super) fn new(fixed: Fixed, values: &ArrayRef) -> FixedValues {
        let data = values.to_data();
        let bits = ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len());
        FixedValues { fixed, bits, nulls: values.nulls().filter(|nulls| nulls.null_count() > 0).cloned() }
    }

    #[inline(always)]
    pub(super) fn write(&self, record: usize) -> [u8; FIXED_BYTES] {
        let mut out = [0; FIXED_BYTES];
        if self.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(record)) {
            out[0] = 1;
            out[1..].copy_from_slice(&self.fixed.ordered(self.bits[record]).to_be_bytes());
        }
        out
    }
}

/// Values that are read.
pub(super) struct FixedReader {
    fixed: Fixed,
    bits: Vec<u64>,
    is_valid: Vec<bool>,
}

impl FixedReader {
    pub(super) fn new(fixed: Fixed) -> FixedReader {
        FixedReader { fixed, bits: Vec::new(), is_valid: Vec::new() }
    }

    #[inline(always)]
    pub(super) fn read(&mut self, bytes: &[u8; FIXED_BYTES]) {
        let [head, value @ ..] = bytes;
        let is_valid = *head == 1;
        self.bits.push(if is_valid { self.fixed.bits(u64::from_be_bytes(*value)) } else { 0 });
        self.is_valid.push(is_valid);
    }

    /// The column of this type.
    pub(super) fn finish(self, data_type: &DataType) -> Result<ArrayRef> {
        let nulls = Some(NullBuffer::from(self.is_valid)).filter(|nulls| nulls.null_count() > 0);
        let data = ArrayData::builder(data_type.clone())
            .len(self.bits.len())
            .add_buffer(Buffer::from_vec(self.bits))
            .nulls(nulls)
            .build()
            .map_err(|error| Error::internal(error.to_string()))?;
        Ok(make_array(data))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, UInt64Array};
    use arrow::compute::cast;
    use arrow::datatypes::TimeUnit;

    use super::super::cells::Codec;
    use super::*;

    #[test]
    fn values_are_written_as_the_codec_writes_them_and_come_back() {
        let bits = [0, 1, 2, 255, 256, SIGN - 1, SIGN, SIGN + 1, u64::MAX - 1, u64::MAX, 0x7ff0 << 48, 0xfff0 << 48, 0x7ff8 << 48];
        let nullable = |bits: u64| (bits != 2).then_some(bits);
        let signed: Int64Array = bits.iter().map(|&bits| nullable(bits).map(|bits| bits as i64)).collect();
        let unsigned: UInt64Array = bits.iter().map(|&bits| nullable(bits)).collect();
        let floats: Float64Array = bits.iter().map(|&bits| nullable(bits).map(f64::from_bits)).collect();
        let signed: ArrayRef = Arc::new(signed);
        let times = [DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), DataType::Duration(TimeUnit::Nanosecond), DataType::Date64];
        let mut arrays: Vec<ArrayRef> = times.iter().map(|data_type| cast(&signed, data_type).unwrap()).collect();
        arrays.extend([signed, Arc::new(unsigned), Arc::new(floats)]);
        // Also parts of arrays, which begin elsewhere.
        arrays.extend(arrays.clone().iter().map(|array| array.slice(3, 7)));
        for array in arrays {
            let fixed = Fixed::of(array.data_type()).unwrap();
            let (values, encoded) = (FixedValues::new(fixed, &array), Codec::new(array.data_type()).unwrap().encode(&array).unwrap());
            let mut reader = FixedReader::new(fixed);
            for record in 0..array.len() {
                assert_eq!(values.write(record), encoded.row(record).as_ref(), "{:?} {record}", array.data_type());
                reader.read(&values.write(record));
            }
            let read = reader.finish(array.data_type()).unwrap();
            let bits = |array: &ArrayRef| -> Vec<Option<u64>> {
                let data = array.to_data();
                (0..array.len()).map(|row| array.is_valid(row).then(|| data.buffer::<u64>(0)[row])).collect()
            };
            assert_eq!((read.data_type(), bits(&read)), (array.data_type(), bits(&array)));
        }
    }
}
