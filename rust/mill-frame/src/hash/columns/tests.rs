use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;

use super::*;
use crate::hash::{KEY_GROUPS, groups_of_task, key_group, task_of_group};

fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
    let mut out = vec![1, 2, 3];
    hash_columns(columns, &mut out).unwrap();
    out
}

fn hash_one(array: impl Array + 'static) -> Vec<u64> {
    hashes(&[Arc::new(array)])
}

#[test]
fn golden_values_never_change() {
    // State on disk is addressed by these: a change here is a change of format and needs a new format version.
    let golden: Vec<(ArrayRef, u64)> = vec![
        (Arc::new(Int64Array::from(vec![0])), 0xfa80_31f5_0f88_5ba7),
        (Arc::new(Int64Array::from(vec![1])), 0x2398_5e5a_8546_a735),
        (Arc::new(Int64Array::from(vec![-1])), 0xc418_c29f_0bb5_ff6b),
        (Arc::new(Int64Array::from(vec![None])), 0x5e76_e520_ece4_c1c3),
        (Arc::new(UInt64Array::from(vec![u64::MAX])), 0xc418_c29f_0bb5_ff6b),
        (Arc::new(Float64Array::from(vec![1.5])), 0xa5c3_b50a_8313_8ce0),
        (Arc::new(BooleanArray::from(vec![true])), 0x2398_5e5a_8546_a735),
        (Arc::new(StringArray::from(vec![""])), 0xe753_4e20_ce97_0044),
        (Arc::new(StringArray::from(vec!["millstream"])), 0x9557_0576_3102_7ef5),
        (Arc::new(Decimal128Array::from(vec![12345678901234567890123])), 0x0073_8966_8ff7_d9a7),
        (Arc::new(Decimal256Array::from(vec![i256::from_i128(-5)])), 0x973b_bcb4_75bc_5909),
        (
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None])])),
            0xd83f_259c_952b_912b,
        ),
        (
            Arc::new(StructArray::from(vec![(
                Arc::new(Field::new("a", DataType::Int32, true)),
                Arc::new(Int32Array::from(vec![7])) as ArrayRef,
            )])),
            0x5613_7505_8975_ab77,
        ),
    ];
    let found: Vec<u64> = golden.iter().map(|(array, _)| hashes(&[array.clone()])[0]).collect();
    let expected: Vec<u64> = golden.iter().map(|(_, hash)| *hash).collect();
    assert_eq!(found, expected, "{found:#018x?}");
}

#[test]
fn equal_values_hash_alike_in_every_array_type() {
    let text = vec![Some("a"), None, Some("a rather long string beyond sixteen bytes"), Some("")];
    let plain = hash_one(StringArray::from(text.clone()));
    assert_eq!(plain, hash_one(LargeStringArray::from(text.clone())));
    assert_eq!(plain, hash_one(StringViewArray::from(text.clone())));
    assert_eq!(plain, hash_one(text.iter().copied().collect::<DictionaryArray<Int32Type>>()));
    assert_eq!(plain, hash_one(text.iter().copied().collect::<DictionaryArray<UInt8Type>>()));
    assert_eq!(plain, hash_one(text.iter().map(|t| t.map(str::as_bytes)).collect::<BinaryArray>()));
    let sparse = text.iter().copied().collect::<DictionaryArray<Int8Type>>().slice(2, 1);
    assert_eq!(plain[2..3], hash_one(sparse));

    let ints = hash_one(Int64Array::from(vec![Some(5), None, Some(-3)]));
    assert_eq!(ints, hash_one(Int8Array::from(vec![Some(5), None, Some(-3)])));
    assert_eq!(ints[..1], hash_one(UInt16Array::from(vec![5]))[..]);
    let keys = Int16Array::from(vec![0, 1, 2]);
    let values = Arc::new(Int64Array::from(vec![Some(5), None, Some(-3)]));
    assert_eq!(ints, hash_one(DictionaryArray::new(keys, values)));

    let floats = hash_one(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 0.5]));
    assert_eq!(floats[0], floats[1]);
    assert_eq!(floats[2], floats[3]);
    assert_eq!(floats[4], hash_one(Float32Array::from(vec![0.5]))[0]);
}

#[test]
fn a_null_is_a_key_of_its_own() {
    let found = hash_one(Int64Array::from(vec![Some(0), None, Some(1)]));
    assert_ne!(found[0], found[1]);
    assert_eq!(found[1], hash_one(StringArray::from(vec![None::<&str>]))[0]);
    assert_eq!(found[1], hash_one(NullArray::new(1))[0]);
}

#[test]
fn slices_hash_as_what_they_show() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..50).map(|i| (i % 7 != 0).then(|| (0..i % 5).map(|j| (j != 1).then_some(i * j)).collect::<Vec<_>>())),
    );
    let fixed = FixedSizeListArray::new(
        Arc::new(Field::new_list_field(DataType::Int32, true)),
        2,
        Arc::new(Int32Array::from_iter_values(0..100)),
        Some(NullBuffer::from((0..50).map(|i| i % 3 != 0).collect::<Vec<_>>())),
    );
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter((0..50).map(|i| (i % 3 != 0).then_some(i)))),
        Arc::new(BooleanArray::from_iter((0..50).map(|i| (i % 3 != 0).then_some(i % 2 == 0)))),
        Arc::new(StringArray::from_iter((0..50).map(|i| (i % 3 != 0).then(|| "x".repeat(i))))),
        Arc::new(list.clone()),
        Arc::new(fixed.clone()),
        Arc::new(StructArray::new(
            Fields::from(vec![
                Field::new("a", list.data_type().clone(), true),
                Field::new("b", fixed.data_type().clone(), true),
            ]),
            vec![Arc::new(list), Arc::new(fixed)],
            Some(NullBuffer::from((0..50).map(|i| i % 4 != 0).collect::<Vec<_>>())),
        )),
    ];
    for array in arrays {
        let whole = hashes(&[array.clone()]);
        for (offset, length) in [(0, 50), (1, 10), (17, 33), (50, 0)] {
            let part = hashes(&[array.slice(offset, length)]);
            assert_eq!(part, whole[offset..offset + length], "{}", array.data_type());
        }
    }
}

#[test]
fn columns_and_elements_are_ordered() {
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    assert_ne!(hashes(&[a.clone(), b.clone()]), hashes(&[b.clone(), a.clone()]));
    assert_ne!(hashes(&[a.clone()]), hashes(&[a.clone(), a.clone()]));
    let values = Arc::new(Int32Array::from(vec![1, 2, 2, 1]));
    let field = Arc::new(Field::new_list_field(DataType::Int32, true));
    let lists = ListArray::new(field, OffsetBuffer::new(vec![0, 2, 4, 4].into()), values, None);
    let found = hash_one(lists);
    assert_ne!(found[0], found[1]);
    assert_ne!(found[1], found[2]);
}

#[test]
fn high_and_low_bits_are_spread_evenly() {
    let rows = 1 << 17;
    let inputs: Vec<(&str, ArrayRef)> = vec![
        ("sequence", Arc::new(Int64Array::from_iter_values(0..rows))),
        ("multiples of 4096", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i << 12)))),
        ("high bits", Arc::new(Int64Array::from_iter_values((0..rows).map(|i| i << 46)))),
        ("floats", Arc::new(Float64Array::from_iter_values((0..rows).map(|i| i as f64)))),
        ("text", Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("key-{i}"))))),
        (
            "timestamps",
            Arc::new(Int64Array::from_iter_values((0..rows).map(|i| 1_700_000_000_000_000 + i * 3_600_000_000))),
        ),
    ];
    for (name, array) in inputs {
        let found = hashes(&[array]);
        let mut distinct = found.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), found.len(), "{name}: collisions");
        for (bits, of) in [("high", 0), ("next", 1), ("low", 2)] {
            let mut counts = [0usize; 128];
            for &hash in &found {
                let slot = match of {
                    0 => usize::from(key_group(hash)),
                    1 => (hash >> 50) as usize & 127,
                    _ => hash as usize & 127,
                };
                counts[slot] += 1;
            }
            // 1024 are expected in each; five standard deviations are 160.
            let (low, high) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*low > 864 && *high < 1184, "{name}: {bits} bits have {low}..{high} of 1024");
        }
    }
}

#[test]
fn columns_of_different_length_and_odd_types_are_refused() {
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let b: ArrayRef = Arc::new(Int64Array::from(vec![2, 3]));
    assert!(matches!(hash_columns(&[a, b], &mut Vec::new()), Err(FrameError::Length { expected: 1, found: 2 })));
    let interval: ArrayRef = Arc::new(IntervalYearMonthArray::from(vec![1]));
    let error = hash_columns(&[interval], &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("interval"), "{error}");
}

#[test]
fn every_task_owns_the_groups_that_are_sent_to_it() {
    for parallelism in 1..=128 {
        for group in 0..KEY_GROUPS {
            let task = task_of_group(group, parallelism);
            assert!(groups_of_task(task, parallelism).contains(&group), "group {group} of {parallelism}");
        }
    }
}
