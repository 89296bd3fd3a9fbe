//! Random batches of every type that frames carry.
#![allow(dead_code)] // Each test takes what it needs.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::*;
use mill_frame::Batch;

/// A small generator of random numbers (splitmix64), so that a seed gives the same batch forever.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Types without children.
pub fn plain_types() -> Vec<DataType> {
    use DataType::*;
    let mut types = vec![
        Null,
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Decimal32(9, 2),
        Decimal64(18, 3),
        Decimal128(38, 10),
        Decimal256(76, 20),
        Utf8,
        LargeUtf8,
        Utf8View,
        Binary,
        LargeBinary,
        BinaryView,
        FixedSizeBinary(5),
        FixedSizeBinary(16),
        Date32,
        Date64,
        Time32(TimeUnit::Second),
        Time32(TimeUnit::Millisecond),
        Time64(TimeUnit::Microsecond),
        Time64(TimeUnit::Nanosecond),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
    ];
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        types.extend([Timestamp(unit, None), Timestamp(unit, Some("Europe/Zurich".into())), Duration(unit)]);
    }
    types
}

/// Types made of other types, one level.
pub fn nested_types(inner: &DataType) -> Vec<DataType> {
    let field = |is_nullable| Arc::new(Field::new_list_field(inner.clone(), is_nullable));
    let pair = Fields::from(vec![Field::new("keys", DataType::Utf8, false), Field::new("values", inner.clone(), true)]);
    let mut types = vec![
        DataType::List(field(true)),
        DataType::LargeList(field(true)),
        DataType::FixedSizeList(field(true), 3),
        DataType::Struct(pair.clone()),
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false),
    ];
    // Nulls of these two are in their values, where a parent that allows none still finds them.
    if !matches!(inner, DataType::Null | DataType::Dictionary(..)) {
        types.push(DataType::List(field(false)));
    }
    for key in [DataType::Int8, DataType::UInt16, DataType::Int32, DataType::UInt64] {
        types.push(DataType::Dictionary(Box::new(key), Box::new(inner.clone())));
    }
    types
}

pub fn random_type(random: &mut Random, depth: usize) -> DataType {
    let plain = plain_types();
    let inner = plain[random.below(plain.len())].clone();
    if depth == 0 || random.below(2) == 0 {
        return inner;
    }
    let inner = random_type(random, depth - 1);
    let nested = nested_types(&inner);
    nested[random.below(nested.len())].clone()
}

fn random_text(random: &mut Random) -> String {
    const WORDS: [&str; 6] = ["", "a", "JFK", "größe 大", "exactly twelve", "well beyond the sixteen bytes of a view"];
    match random.below(3) {
        0 => format!("{:x}", random.next() % 50),
        _ => WORDS[random.below(WORDS.len())].to_owned(),
    }
}

/// Random values; nulls only where they may be.
pub fn random_array(random: &mut Random, data_type: &DataType, rows: usize, is_nullable: bool) -> ArrayRef {
    use DataType::*;
    let nulls = (is_nullable && random.below(3) > 0 && data_type != &Null)
        .then(|| NullBuffer::from((0..rows).map(|_| random.below(4) > 0).collect::<Vec<_>>()));
    let is_valid = |i: usize| nulls.as_ref().is_none_or(|n: &NullBuffer| n.is_valid(i));
    match data_type {
        Null => Arc::new(NullArray::new(rows)),
        Boolean => {
            let bits: BooleanBuffer = (0..rows).map(|_| random.below(2) == 0).collect();
            Arc::new(BooleanArray::new(bits, nulls))
        }
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => {
            let texts: StringArray = (0..rows).map(|i| is_valid(i).then(|| random_text(random))).collect();
            arrow::compute::cast(&texts, data_type).unwrap()
        }
        FixedSizeBinary(width) => {
            let bytes: Vec<u8> = (0..rows * *width as usize).map(|_| random.next() as u8).collect();
            Arc::new(FixedSizeBinaryArray::new(*width, Buffer::from_vec(bytes), nulls))
        }
        List(field) => {
            let offsets = random_offsets(random, rows);
            let values =
                random_array(random, field.data_type(), *offsets.last().unwrap() as usize, field.is_nullable());
            Arc::new(ListArray::new(field.clone(), OffsetBuffer::new(offsets.into()), values, nulls))
        }
        LargeList(field) => {
            let offsets: Vec<i64> = random_offsets(random, rows).iter().map(|&o| i64::from(o)).collect();
            let values =
                random_array(random, field.data_type(), *offsets.last().unwrap() as usize, field.is_nullable());
            Arc::new(LargeListArray::new(field.clone(), OffsetBuffer::new(offsets.into()), values, nulls))
        }
        Map(field, is_sorted) => {
            let offsets = random_offsets(random, rows);
            let values = random_array(random, field.data_type(), *offsets.last().unwrap() as usize, false);
            let entries = values.as_struct().clone();
            Arc::new(MapArray::new(field.clone(), OffsetBuffer::new(offsets.into()), entries, nulls, *is_sorted))
        }
        FixedSizeList(field, width) => {
            let values = random_array(random, field.data_type(), rows * *width as usize, field.is_nullable());
            Arc::new(FixedSizeListArray::try_new_with_length(field.clone(), *width, values, nulls, rows).unwrap())
        }
        Struct(fields) => {
            let columns = fields.iter().map(|f| random_array(random, f.data_type(), rows, f.is_nullable())).collect();
            Arc::new(StructArray::new(fields.clone(), columns, nulls))
        }
        Dictionary(key, value) => {
            let size = 1 + random.below(100);
            let values = random_array(random, value, size, true);
            let keys: Int32Array = (0..rows).map(|i| is_valid(i).then(|| random.below(size) as i32)).collect();
            let keys = arrow::compute::cast(&keys, key).unwrap();
            let data = ArrayData::builder(data_type.clone()).len(rows).nulls(keys.nulls().cloned());
            let data = data.add_buffer(keys.to_data().buffers()[0].clone()).add_child_data(values.to_data());
            make_array(data.build().unwrap())
        }
        Float16 | Float32 | Float64 => {
            let values: Float64Array = (0..rows).map(|_| Some(random.next() as i32 as f64 / 4.0)).collect();
            let values = arrow::compute::cast(&values, data_type).unwrap();
            make_array(values.to_data().into_builder().nulls(nulls).build().unwrap())
        }
        other => {
            let width = other.primitive_width().unwrap();
            let mut bytes = arrow::buffer::MutableBuffer::new(rows * width);
            bytes.extend((0..rows * width).map(|_| random.next() as u8));
            make_array(
                ArrayData::builder(other.clone()).len(rows).nulls(nulls).add_buffer(bytes.into()).build().unwrap(),
            )
        }
    }
}

fn random_offsets(random: &mut Random, rows: usize) -> Vec<i32> {
    let mut offsets = vec![0];
    for _ in 0..rows {
        offsets.push(offsets.last().unwrap() + random.below(4) as i32);
    }
    offsets
}

/// A batch of these types, some parts beside the columns, columns nullable.
pub fn random_batch(random: &mut Random, types: &[DataType], rows: usize) -> Batch {
    let fields: Vec<Field> =
        types.iter().enumerate().map(|(i, t)| Field::new(format!("c{i}"), t.clone(), true)).collect();
    let columns = types.iter().map(|t| random_array(random, t, rows, true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let data = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options).unwrap();
    let parts = random.next();
    let mut longs =
        |is_there: bool| is_there.then(|| (0..rows).map(|_| random.next() as i64 >> 20).collect::<ScalarBuffer<i64>>());
    let (times, behind) = (longs(parts & 1 > 0), longs(parts & 2 > 0));
    let deletes = (parts & 4 > 0).then(|| (0..rows).map(|_| random.below(5) == 0).collect::<BooleanBuffer>());
    Batch::new(data).with_times(times).with_behind(behind).with_deletes(deletes)
}

/// Two batches have the same records, and the same beside them.
pub fn assert_same(a: &Batch, b: &Batch) {
    assert_eq!(a.rows(), b.rows());
    assert_eq!(a.times(), b.times());
    assert_eq!(a.behind(), b.behind());
    assert_eq!(a.deletes(), b.deletes());
    for (i, (a, b)) in a.data().columns().iter().zip(b.data().columns()).enumerate() {
        assert_eq!(a.data_type(), b.data_type());
        assert_eq!(a, b, "column {i} of type {}", a.data_type());
    }
}
