use proptest::prelude::*;

use super::*;
use crate::csv::tokens::{Tokens, tokenize};

const DIALECT: Dialect<'static> = Dialect { delimiter: b',', quote: Some(b'"'), escape: None, comment: None, is_ragged: false };

#[test]
fn only_files_without_quoted_line_ends_are_cut() {
    for text in ["", "a,b\n1,2\n", "\"a\",\"b\"\n1,\"x\"\n", "a\r\n\"x\"\r\n", "\"a\"\"b\",\"\"\n", "\"\"\"\"\n", "a\n\"x,y\""] {
        assert!(are_closed(text.as_bytes(), DIALECT), "{text:?}");
    }
    for text in ["\"a\nb\"\n", "a\"b,\"c\n\"\n", "5\" pipe\n", "\"a\"b\n", "a, \"b\"\n", "\"a\"\"\n\"\n", "\"\n"] {
        assert!(!are_closed(text.as_bytes(), DIALECT), "{text:?}");
    }
}

#[test]
fn escaped_quotes_open_and_close_nothing() {
    let dialect = Dialect { escape: Some(b'\\'), ..DIALECT };
    for text in ["a,\"x\\\"y\"\n", "\"\\\\\"\n", "\\\n\"a\"\n"] {
        assert!(are_closed(text.as_bytes(), dialect), "{text:?}");
    }
    for text in ["a,\"x\\\"\ny\"\n", "\"x\\\n\"\n", "\"x\\\"\n", "\"\\\n\n"] {
        assert!(!are_closed(text.as_bytes(), dialect), "{text:?}");
    }
    let dialect = Dialect { quote: None, ..DIALECT };
    assert!(are_closed(b"5\" pipe\n\"\n", dialect));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_field() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    std::fs::write(&path, "\u{feff}\"a\"\n1\n").unwrap();
    assert!(can_cut(&path, DIALECT).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_may_be_cut_has_a_record_a_line(text in "([a,\"\n]|\"\"|\",\"|\"\n){0,14}") {
        if are_closed(text.as_bytes(), DIALECT) {
            let mut tokens = Tokens::default();
            tokenize(text.as_bytes(), DIALECT, Some(1), true, usize::MAX, &mut tokens);
            // A record of another number of fields is malformed, and ends at a line end as well.
            let starts = tokens.records.iter().map(|record| record.0 as usize).chain(tokens.malformed.iter().map(|bad| bad.start));
            for start in starts {
                prop_assert!(start == 0 || text.as_bytes()[start - 1] == b'\n');
            }
            let ends = tokens.records.iter().map(|record| record.1 as usize).chain(tokens.malformed.iter().map(|bad| bad.end));
            for end in ends {
                prop_assert!(end == text.len() || text.as_bytes()[end] == b'\n');
            }
            let filled = text.lines().filter(|line| !line.is_empty()).count();
            prop_assert!(tokens.records.len() + tokens.malformed.len() >= filled);
        }
    }
}
