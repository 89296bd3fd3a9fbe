use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    BinaryArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array, StringArray, StringViewArray,
};
use arrow::util::display::array_value_to_string;
use proptest::prelude::*;

use super::*;

const KEYS_MAX: u64 = 100_000;

/// One of a few values of a column, and now and then null.
type Drawn = Vec<Option<u16>>;

/// Short texts and long ones that begin alike, none of them twice.
fn text(value: u16) -> String {
    match value % 4 {
        0 => value.to_string(),
        1 => format!("{value:012}"),
        2 => format!("{value:013}"),
        _ => format!("https://example.com/{value}/{}", "x".repeat(usize::from(value))),
    }
}

/// The column of these values; types take turns.
fn column(kind: usize, drawn: &Drawn) -> ArrayRef {
    let texts = || drawn.iter().map(|value| value.map(text));
    match kind {
        0 => Arc::new(texts().collect::<StringArray>()),
        1 => Arc::new(drawn.iter().map(|value| value.map(|value| i64::from(value) * 1_000_003 - 7)).collect::<Int64Array>()),
        2 => Arc::new(drawn.iter().map(|value| value.map(|value| f64::from(value) / 8.0)).collect::<Float64Array>()),
        3 => Arc::new(drawn.iter().map(|value| value.map(|value| i128::from(value) << 70)).collect::<Decimal128Array>()),
        4 => Arc::new(texts().collect::<StringViewArray>()),
        5 => Arc::new(texts().map(|text| text.map(String::into_bytes)).collect::<BinaryArray>()),
        6 => {
            let texts: Vec<Option<String>> = texts().collect();
            Arc::new(texts.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>())
        }
        _ => {
            let values = drawn.iter().map(|value| value.map(|value| (u128::from(value) << 3).to_le_bytes()));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(values, 16).unwrap())
        }
    }
}

fn written(columns: &[ArrayRef], row: usize) -> Vec<Option<String>> {
    columns.iter().map(|column| column.is_valid(row).then(|| array_value_to_string(column, row).unwrap())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Each number is of one key, each key has one number, numbers become keys again, and change as the renumbering says.
    #[test]
    fn numbers_stand_for_keys(
        kinds in prop::collection::vec(0usize..8, 2..4),
        frames in prop::collection::vec((prop_oneof![Just(3u16), Just(12), Just(40)], 1usize..120, any::<u64>()), 1..6),
    ) {
        let frames: Vec<Vec<ArrayRef>> = frames
            .iter()
            .map(|&(values, rows, seed)| {
                kinds
                    .iter()
                    .enumerate()
                    .map(|(index, &kind)| {
                        let draw = |row: usize| {
                            let noise = xxh3_64(&(seed ^ ((index as u64) << 32) ^ row as u64).to_le_bytes());
                            (noise % 13 > 0).then_some((noise >> 8) as u16 % values)
                        };
                        column(kind, &(0..rows).map(draw).collect())
                    })
                    .collect()
            })
            .collect();
        let types: Vec<DataType> = frames[0].iter().map(|column| column.data_type().clone()).collect();
        let mut coder = KeyCoder::new(&types).unwrap().unwrap();
        let (mut of_key, mut of_number) = (HashMap::new(), HashMap::new());
        for columns in &frames {
            let rows = columns[0].len();
            let Some(renumbering) = coder.encode(columns, rows, KEYS_MAX).unwrap() else { return Ok(()) };
            if let Some(renumbering) = renumbering {
                of_key.values_mut().for_each(|number| *number = renumbering.of(*number));
                of_number = of_key.iter().map(|(key, &number)| (number, Vec::clone(key))).collect();
                prop_assert_eq!(of_key.len(), of_number.len(), "two keys have got one number");
            }
            prop_assert!(coder.range().keys() <= KEYS_MAX);
            for (row, &number) in coder.numbers().iter().enumerate() {
                prop_assert!(number < coder.range().keys());
                let key = written(columns, row);
                prop_assert_eq!(*of_key.entry(key.clone()).or_insert(number), number);
                prop_assert_eq!(of_number.entry(number).or_insert(key.clone()), &key);
            }
            let numbers: Vec<u64> = of_number.keys().copied().collect();
            let decoded = coder.decode(numbers.clone()).unwrap();
            prop_assert_eq!(decoded.iter().map(|column| column.data_type().clone()).collect::<Vec<_>>(), types.clone());
            for (row, number) in numbers.iter().enumerate() {
                prop_assert_eq!(&written(&decoded, row), &of_number[number]);
            }
        }
    }
}

fn texts(range: std::ops::Range<u32>) -> ArrayRef {
    Arc::new(range.map(|value| Some(format!("{value}"))).collect::<StringArray>())
}

#[test]
fn what_rows_hold_as_one_key_has_one_number() {
    let mut coder = KeyCoder::new(&[DataType::Float64, DataType::Utf8]).unwrap().unwrap();
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.0]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a"; 5]));
    coder.encode(&[floats, names], 5, KEYS_MAX).unwrap().unwrap();
    assert_eq!(coder.numbers(), [0, 0, 1, 1, 2]);
}

#[test]
fn too_many_values_have_no_numbers_and_those_before_hold() {
    let mut coder = KeyCoder::new(&[DataType::Utf8]).unwrap().unwrap();
    assert_eq!(coder.encode(&[texts(0..1000)], 1000, KEYS_MAX).unwrap(), Some(None));
    assert_eq!(coder.encode(&[texts(500..501 + VALUES_MAX as u32)], VALUES_MAX + 1, KEYS_MAX).unwrap(), None);
    let decoded = coder.decode(vec![7, 999]).unwrap();
    assert_eq!(decoded[0].as_string::<i32>().iter().collect::<Vec<_>>(), [Some("7"), Some("999")]);
    coder.reset();
    assert_eq!(coder.encode(&[texts(2000..2002)], 2, KEYS_MAX).unwrap(), Some(None));
    assert_eq!(coder.numbers(), [0, 1]);

    // Each column has few values, and both together have too many.
    let mut coder = KeyCoder::new(&[DataType::Utf8, DataType::Utf8]).unwrap().unwrap();
    assert_eq!(coder.encode(&[texts(0..400), texts(0..400)], 400, KEYS_MAX).unwrap(), None);

    // Long texts are kept, so there are not to be many bytes of them.
    let mut coder = KeyCoder::new(&[DataType::Utf8]).unwrap().unwrap();
    let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(BYTES_MAX + 1)]));
    assert_eq!(coder.encode(&[long], 1, KEYS_MAX).unwrap(), None);
}

#[test]
fn numbers_and_lists_and_nothing_get_none() {
    let list = DataType::List(Arc::new(arrow::datatypes::Field::new_list_field(DataType::Int64, true)));
    for types in [vec![], vec![DataType::Int64], vec![DataType::Utf8, list]] {
        assert!(KeyCoder::new(&types).unwrap().is_none());
    }
}
