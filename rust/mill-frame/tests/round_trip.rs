//! Whatever goes into a frame comes out of it: every type, nulls, slices, partitions.

mod support;

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use mill_frame::{Batch, Frame, hash, partition, partition_by_hash, schema};
use proptest::prelude::*;
use support::*;

fn check(batch: &Batch) {
    let schema = batch.schema();
    let frame = Frame::encode(batch).unwrap();
    assert_eq!(frame.rows(), batch.rows());
    assert_eq!(frame.min_time(), batch.times().and_then(|t| t.iter().min().copied()));
    assert_eq!(frame.max_time(), batch.times().and_then(|t| t.iter().max().copied()));
    assert_eq!(frame.as_bytes().as_ptr() as usize % 64, 0);
    let decoded = frame.decode(&schema).unwrap();
    assert_same(&decoded, batch);
    for column in decoded.data().columns() {
        column.to_data().validate_full().unwrap();
    }
    let checked = Frame::from_bytes(frame.as_bytes().to_vec(), &schema).unwrap();
    assert_same(&checked.decode(&schema).unwrap(), batch);
    // A frame of a frame is the same frame: nothing grows or moves from hop to hop.
    let again = Frame::encode(&decoded).unwrap();
    assert_eq!(again.as_bytes(), frame.as_bytes());
}

#[test]
fn every_type_round_trips() {
    let mut random = Random(1);
    let mut types = plain_types();
    for inner in [DataType::Int32, DataType::Utf8, DataType::Boolean, DataType::Utf8View, DataType::Null] {
        types.extend(nested_types(&inner));
        for middle in nested_types(&inner) {
            types.extend(nested_types(&middle));
        }
    }
    types.push(DataType::FixedSizeList(Arc::new(Field::new_list_field(DataType::Utf8, true)), 0));
    for data_type in types {
        for rows in [0, 1, 7, 64, 300] {
            let batch = random_batch(&mut random, std::slice::from_ref(&data_type), rows);
            check(&batch);
            if rows > 10 {
                check(&batch.slice(3, rows - 10));
                check(&batch.slice(8, 0));
            }
        }
    }
}

#[test]
fn a_batch_without_columns_keeps_its_rows() {
    check(&random_batch(&mut Random(2), &[], 5));
    check(&random_batch(&mut Random(3), &[], 0));
}

#[test]
fn a_slice_does_not_ship_its_parent() {
    let mut random = Random(4);
    for data_type in [
        DataType::Int64,
        DataType::Utf8,
        DataType::Utf8View,
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
    ] {
        let batch = match &data_type {
            DataType::Dictionary(..) => {
                let values: StringArray = (0..100_000).map(|i| Some(format!("value {i}"))).collect();
                let keys = Int32Array::from_iter_values(0..100_000);
                let column: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(values)));
                Batch::new(RecordBatch::try_from_iter([("c", column)]).unwrap())
            }
            _ => random_batch(&mut random, std::slice::from_ref(&data_type), 100_000),
        };
        let part = batch.slice(50_000, 10);
        check(&part);
        let bytes = Frame::encode(&part).unwrap().as_bytes().len();
        assert!(bytes < 8192, "{data_type}: {bytes} bytes for ten rows");
    }
}

/// Addresses show that decoding copies nothing: each buffer is within the frame.
#[test]
fn columns_lie_in_the_frame() {
    fn visit(data: &ArrayData, within: &std::ops::Range<*const u8>, seen: &mut usize) {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            if !buffer.is_empty() {
                let range = buffer.as_slice().as_ptr_range();
                assert!(within.start <= range.start && range.end <= within.end, "{}", data.data_type());
                assert_eq!(range.start as usize % 64, 0, "{}", data.data_type());
                *seen += 1;
            }
        }
        data.child_data().iter().for_each(|child| visit(child, within, seen));
    }
    let mut random = Random(5);
    let mut types = plain_types();
    types.extend(nested_types(&DataType::Utf8));
    let batch = random_batch(&mut random, &types, 100);
    let frame = Frame::encode(&batch).unwrap();
    let within = frame.as_bytes().as_ptr_range();
    let decoded = frame.decode(&batch.schema()).unwrap();
    drop(frame);
    let mut seen = 0;
    for column in decoded.data().columns() {
        visit(&column.to_data(), &within, &mut seen);
    }
    assert!(seen > 80, "{seen} buffers");
    // The columns keep the frame alive.
    assert_same(&decoded, &batch);
}

/// A frame is the currency between threads.
#[test]
fn a_frame_is_shared_between_threads() {
    fn assert_shared<T: Send + Sync + Clone + 'static>(_: &T) {}
    let batch = random_batch(&mut Random(10), &[DataType::Utf8, DataType::Int64], 500);
    let frame = Frame::encode(&batch).unwrap();
    assert_shared(&frame);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (frame, schema) = (frame.clone(), batch.schema());
            std::thread::spawn(move || frame.decode(&schema).unwrap())
        })
        .collect();
    drop(frame);
    for thread in threads {
        assert_same(&thread.join().unwrap(), &batch);
    }
}

/// Aligned bytes from outside are used where they are, too.
#[test]
fn checked_bytes_are_not_copied() {
    let batch = random_batch(&mut Random(6), &[DataType::Int64, DataType::Utf8], 1000);
    let shared = Frame::encode(&batch).unwrap().to_shared_bytes();
    let frame = Frame::from_bytes(shared.clone(), &batch.schema()).unwrap();
    assert_eq!(frame.as_bytes().as_ptr(), shared.as_ptr());
    let mut crooked = vec![0; 7];
    crooked.extend_from_slice(&shared);
    let crooked = mill_frame::block::SharedBytes::from(crooked);
    let copied = Frame::from_bytes(crooked.slice(7, crooked.len()), &batch.schema()).unwrap();
    assert_same(&copied.decode(&batch.schema()).unwrap(), &batch);
}

/// Frames lie on disk: a change here needs a new format version.
#[test]
fn the_bytes_never_change() {
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("name", Arc::new(StringArray::from(vec![Some("EWR"), None, Some("JFK")]))),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int16Type, _, _>([Some(vec![Some(1)]), None, Some(vec![])])),
        ),
    ];
    let times = vec![30, 10, 20].into();
    let batch = Batch::new(RecordBatch::try_from_iter(columns).unwrap()).with_times(Some(times));
    let frame = Frame::encode(&batch).unwrap();
    let bytes = frame.as_bytes();
    assert_eq!(bytes.len(), 712);
    let root = &bytes[bytes.len() - 56..];
    assert_eq!(&root[..8], b"MSFR\x01\0\0\0");
    assert_eq!(&root[16..24], [3, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(&root[24..40], [10, 0, 0, 0, 0, 0, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(xxhash_rust::xxh3::xxh3_64(bytes), 0x4dbf_c1c3_5627_6ac6);
}

#[test]
fn another_schema_is_refused() {
    let batch = random_batch(&mut Random(7), &[DataType::Int64], 3);
    let frame = Frame::encode(&batch).unwrap();
    for (name, data_type) in [("c0", DataType::UInt64), ("d", DataType::Int64)] {
        let other: SchemaRef = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
        assert!(frame.decode(&other).unwrap_err().is_corrupt());
        assert!(Frame::from_bytes(frame.as_bytes().to_vec(), &other).unwrap_err().is_corrupt());
    }
    let with_metadata = Schema::clone(&batch.schema()).with_metadata([("a".to_owned(), "b".to_owned())].into());
    assert_same(&frame.decode(&Arc::new(with_metadata)).unwrap(), &batch);
}

/// Nullability within a list is not part of the fingerprint, so the content decides.
#[test]
fn nulls_where_none_may_be_are_refused() {
    let list = |is_nullable| {
        let item = Arc::new(Field::new_list_field(DataType::Int32, is_nullable));
        Arc::new(Schema::new(vec![Field::new("c", DataType::List(item), true)]))
    };
    let array: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]));
    let batch = Batch::new(RecordBatch::try_new(list(true), vec![array]).unwrap());
    let frame = Frame::encode(&batch).unwrap();
    assert!(frame.decode(&list(true)).is_ok());
    assert!(frame.decode(&list(false)).is_err());
    assert!(Frame::from_bytes(frame.as_bytes().to_vec(), &list(false)).is_err());
}

#[test]
fn a_type_that_is_not_carried_is_named() {
    let runs = RunArray::<Int32Type>::from_iter(["a", "a", "b"]);
    let batch = Batch::new(RecordBatch::try_from_iter([("c", Arc::new(runs) as ArrayRef)]).unwrap());
    let error = Frame::encode(&batch).unwrap_err().to_string();
    assert!(error.contains("run_end_encoded[str]"), "{error}");
}

fn check_partition(batch: &Batch, task_of_row: &[u16], tasks: usize) {
    let frames = partition(batch, task_of_row, tasks).unwrap();
    for (task, frame) in frames.iter().enumerate() {
        let rows: UInt32Array = (0..batch.rows() as u32)
            .filter(|&row| usize::from(task_of_row[row as usize]) == task)
            .collect::<Vec<_>>()
            .into();
        match frame {
            None => assert!(rows.is_empty()),
            Some(frame) => {
                let expected = batch.take(&rows).unwrap();
                assert_same(&frame.decode(&batch.schema()).unwrap(), &expected);
                let checked = Frame::from_bytes(frame.as_bytes().to_vec(), &batch.schema()).unwrap();
                assert_eq!(checked.min_time(), expected.times().and_then(|t| t.iter().min().copied()));
            }
        }
    }
}

#[test]
fn partitions_follow_the_key_groups() {
    let mut random = Random(8);
    let batch = random_batch(&mut random, &[DataType::Utf8, DataType::Int64, DataType::Boolean], 1000);
    let mut hashes = Vec::new();
    hash::hash_columns(&batch.data().columns()[..2], &mut hashes).unwrap();
    for tasks in [1, 2, 3, 128] {
        let frames = partition_by_hash(&batch, &[0, 1], tasks).unwrap();
        assert_eq!(frames.len(), tasks);
        let mut rows = 0;
        for (task, frame) in frames.iter().enumerate() {
            let Some(frame) = frame else { continue };
            rows += frame.rows();
            let decoded = frame.decode(&batch.schema()).unwrap();
            let mut found = Vec::new();
            hash::hash_columns(&decoded.data().columns()[..2], &mut found).unwrap();
            let groups = hash::groups_of_task(task, tasks);
            assert!(found.iter().all(|&hash| groups.contains(&hash::key_group(hash))));
        }
        assert_eq!(rows, 1000);
    }
    assert!(partition_by_hash(&batch, &[3], 2).is_err());
    assert!(partition_by_hash(&batch.slice(0, 0), &[0], 2).unwrap().iter().all(Option::is_none));
    assert_eq!(partition_by_hash(&batch, &[], 2).unwrap().iter().flatten().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_batches_round_trip(seed: u64, columns in 0usize..6, rows in 0usize..400, skip in 0usize..400, keep in 0usize..400) {
        let mut random = Random(seed);
        let types: Vec<DataType> = (0..columns).map(|_| random_type(&mut random, 3)).collect();
        let batch = random_batch(&mut random, &types, rows);
        check(&batch);
        let skip = skip.min(rows);
        let slice = batch.slice(skip, keep.min(rows - skip));
        check(&slice);
        let stored = schema::to_bytes(&batch.schema()).unwrap();
        prop_assert_eq!(Arc::new(schema::from_bytes(&stored).unwrap()), batch.schema());
    }

    #[test]
    fn random_partitions_hold_their_rows(seed: u64, columns in 0usize..5, rows in 0usize..300, tasks in 1usize..9) {
        let mut random = Random(seed);
        let types: Vec<DataType> = (0..columns).map(|_| random_type(&mut random, 2)).collect();
        let batch = random_batch(&mut random, &types, rows + 10).slice(5, rows);
        let task_of_row: Vec<u16> = (0..rows).map(|_| random.below(tasks) as u16).collect();
        check_partition(&batch, &task_of_row, tasks);
    }
}
