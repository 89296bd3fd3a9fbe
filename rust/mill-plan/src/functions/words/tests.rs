use arrow::array::AsArray;
use proptest::prelude::*;

use super::*;

fn lists(array: &ArrayRef) -> Vec<Option<Vec<String>>> {
    let array = array.as_list::<i32>();
    (0..array.len())
        .map(|row| {
            array.is_valid(row).then(|| {
                array.value(row).as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
            })
        })
        .collect()
}

#[test]
fn words_are_found_and_null_stays_null() {
    let texts = StringArray::from(vec![Some("the cat's hat"), None, Some(""), Some("--"), Some("x")]);
    let class = ByteClass::of_pattern("[a-z']+").unwrap();
    let found = extract_all(&texts, Some(&class), &Regex::new("[a-z']+").unwrap()).unwrap();
    let expected = vec![
        Some(vec!["the".to_owned(), "cat's".to_owned(), "hat".to_owned()]),
        None,
        Some(vec![]),
        Some(vec![]),
        Some(vec!["x".to_owned()]),
    ];
    assert_eq!(lists(&found), expected);
}

#[test]
fn only_single_classes_are_taken_from_the_engine() {
    for pattern in ["[a-z']+", r"\w+", "[^, ]+", r"[\d.]+", r"[A-Za-z0-9_\-]+", r"\d+", r"\S+", r"[^\w]+"] {
        assert!(ByteClass::of_pattern(pattern).is_some(), "{pattern}");
    }
    for pattern in ["[a-z]", "a+", "[[:alpha:]]+", "[é]+", "[a-z]+b+", r"\b+", "(ab)+", "[z-a]+", r"[a-\d]+", "[]+"] {
        assert!(ByteClass::of_pattern(pattern).is_none(), "{pattern}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn runs_are_what_the_engine_finds(
        texts in proptest::collection::vec(proptest::option::of("[a-cé ,_0-9']{0,200}"), 1..5),
        pattern in proptest::sample::select(vec![
            "[a-z']+", r"\w+", "[^, ]+", r"[\d.]+", r"\s+", "[a]+", r"\S+", r"[^\s,]+", r"\D+", r"\W+", "[ac '02468_,-]+",
        ]),
        skipped in 0usize..4,
    ) {
        // A slice of an array has bytes before its first row.
        let texts = StringArray::from(texts);
        let texts = texts.slice(skipped.min(texts.len()), texts.len() - skipped.min(texts.len()));
        let regex = Regex::new(pattern).unwrap();
        let class = ByteClass::of_pattern(pattern);
        prop_assert!(class.is_some());
        let fast = extract_all(&texts, class.as_ref(), &regex).unwrap();
        let slow = extract_all(&texts, None, &regex).unwrap();
        prop_assert_eq!(lists(&fast), lists(&slow));
    }

    #[test]
    fn parts_are_what_std_splits(
        texts in proptest::collection::vec(proptest::option::of("[a-cé ,]{0,150}"), 1..5),
        separator in proptest::sample::select(vec![" ", ",", "é", ", ", "a", "  "]),
        skipped in 0usize..4,
    ) {
        let array = StringArray::from(texts.clone());
        let skipped = skipped.min(texts.len());
        let found = split(&array.slice(skipped, texts.len() - skipped), separator).unwrap();
        let expected: Vec<_> = texts[skipped..]
            .iter()
            .map(|text| text.as_ref().map(|text| text.split(separator).map(str::to_owned).collect::<Vec<_>>()))
            .collect();
        prop_assert_eq!(lists(&found), expected);
    }
}
