use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn case_is_changed_as_std_does(
        texts in proptest::collection::vec(proptest::option::of("[a-dA-DéÉßİΣσKŉ ,]{0,40}|[a-zA-Z ]{0,300}"), 1..8),
        skipped in 0usize..4,
    ) {
        let array = StringArray::from(texts.clone());
        let skipped = skipped.min(texts.len());
        let array = array.slice(skipped, texts.len() - skipped);
        let std = |f: fn(&str) -> String| -> StringArray { texts[skipped..].iter().map(|text| text.as_deref().map(f)).collect() };
        let lower = cased(&array, <[u8]>::make_ascii_lowercase, str::to_lowercase).unwrap();
        prop_assert_eq!(lower.as_string::<i32>(), &std(str::to_lowercase));
        let upper = cased(&array, <[u8]>::make_ascii_uppercase, str::to_uppercase).unwrap();
        prop_assert_eq!(upper.as_string::<i32>(), &std(str::to_uppercase));
    }
}
