use proptest::prelude::*;

use super::{Dialect, Tokens, tokenize};

const DIALECT: Dialect<'static> = Dialect { delimiter: b',', quote: Some(b'"'), escape: None, comment: None, is_ragged: false };

fn cut(data: &[u8], columns: usize, is_last: bool) -> (Vec<Vec<String>>, Vec<(usize, usize)>, usize) {
    cut_by(DIALECT, data, columns, is_last)
}

fn cut_by(dialect: Dialect<'_>, data: &[u8], columns: usize, is_last: bool) -> (Vec<Vec<String>>, Vec<(usize, usize)>, usize) {
    let mut tokens = Tokens::default();
    tokenize(data, dialect, Some(columns), is_last, usize::MAX, &mut tokens);
    let rows = tokens
        .fields
        .chunks(columns)
        .map(|fields| {
            fields
                .iter()
                .map(|field| {
                    let mut out = Vec::new();
                    if field.is_quoted() {
                        dialect.unescape(field.bytes(data), &mut out);
                    } else {
                        out.extend_from_slice(field.bytes(data));
                    }
                    String::from_utf8(out).unwrap()
                })
                .collect()
        })
        .collect();
    (rows, tokens.malformed.iter().map(|m| (m.start, m.end)).collect(), tokens.bytes)
}

fn rows(expected: &[&[&str]]) -> Vec<Vec<String>> {
    expected.iter().map(|row| row.iter().map(|field| (*field).to_owned()).collect()).collect()
}

#[test]
fn quotes_escapes_and_line_ends_are_cut() {
    let data = b"a,b\r\n\"x,\"\"y\"\"\n\",2\n,\n\n5\" pipe,z";
    let (found, bad, bytes) = cut(data, 2, true);
    assert_eq!(found, rows(&[&["a", "b"], &["x,\"y\"\n", "2"], &["", ""], &["5\" pipe", "z"]]));
    assert!(bad.is_empty());
    assert_eq!(bytes, data.len());
}

#[test]
fn what_is_not_complete_waits() {
    for data in [&b"a,b\n\"c"[..], b"a,b\n\"c\"", b"a,b\nc,d", b"a,b\nc,\"d\"", b"a,b\nc,\"d\"\r"] {
        let (found, bad, bytes) = cut(data, 2, false);
        assert_eq!((found, bad.len(), bytes), (rows(&[&["a", "b"]]), 0, 4), "{:?}", String::from_utf8_lossy(data));
    }
}

#[test]
fn a_malformed_line_costs_only_itself() {
    let (found, bad, _) = cut(b"a,b\nc\nd,e,f\ng,h\n", 2, true);
    assert_eq!((found, bad), (rows(&[&["a", "b"], &["g", "h"]]), vec![(4, 5), (6, 11)]));
    let (found, bad, _) = cut(b"a,b\n1,\"open\nc,d\ne,f\n", 2, true);
    assert_eq!((found, bad), (rows(&[&["a", "b"], &["c", "d"], &["e", "f"]]), vec![(4, 11)]));
    let (found, bad, _) = cut(b"a,\"b\"x\nc,d\n", 2, true);
    assert_eq!((found, bad), (rows(&[&["c", "d"]]), vec![(0, 6)]));
}

#[test]
fn comments_escapes_and_ragged_lines_are_cut() {
    let dialect = Dialect { comment: Some(b"//"), ..DIALECT };
    let data = b"//it's 5\"\na,b\n\"//c\",d\n/,e\n//\n//end";
    let (found, bad, bytes) = cut_by(dialect, data, 2, true);
    assert_eq!((found, bad.len(), bytes), (rows(&[&["a", "b"], &["//c", "d"], &["/", "e"]]), 0, data.len()));
    let (found, _, bytes) = cut_by(dialect, data, 2, false);
    assert_eq!((found.len(), bytes), (3, data.len() - 5));

    let dialect = Dialect { escape: Some(b'\\'), ..DIALECT };
    let (found, bad, _) = cut_by(dialect, b"\"a\\\"b,\",\"\\\\\"\n\\x,\"c\"\"\\\nd\"\n", 2, true);
    assert_eq!((found, bad.len()), (rows(&[&["a\"b,", "\\"], &["\\x", "c\"\nd"]]), 0));
    let (found, bad, bytes) = cut_by(dialect, b"a,b\nc,\"\\", 2, false);
    assert_eq!((found, bad.len(), bytes), (rows(&[&["a", "b"]]), 0, 4));

    let dialect = Dialect { is_ragged: true, ..DIALECT };
    let (found, bad, _) = cut_by(dialect, b"a\n\nb,c,d,\n\"e\"\n,\n", 2, true);
    assert_eq!((found, bad.len()), (rows(&[&["a", ""], &["b", "c"], &["e", ""], &["", ""]]), 0));

    let dialect = Dialect { quote: None, ..DIALECT };
    let (found, bad, _) = cut_by(dialect, b"\"a,b\n\"\"\",\"\n", 2, true);
    assert_eq!((found, bad.len()), (rows(&[&["\"a", "b"], &["\"\"\"", "\""]]), 0));
}

#[test]
fn rows_are_skipped_by_their_line_ends_outside_of_quotes() {
    let dialect = Dialect { comment: Some(b"#"), ..DIALECT };
    let data = b"# 5\" pipe\nx\n\"a\nb\"\n\n#\nrest";
    assert_eq!(dialect.skip(data, 0), Some(0));
    assert_eq!(dialect.skip(data, 1), Some(12));
    assert_eq!(dialect.skip(data, 2), Some(18));
    assert_eq!(dialect.skip(data, 3), Some(19));
    assert_eq!(dialect.skip(data, 4), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn fields_come_back_wherever_the_bytes_are_cut(
        table in proptest::collection::vec(proptest::collection::vec("[a,\"\n\r é]{0,5}", 3), 1..8),
        cut_at in 0usize..200,
    ) {
        let mut bytes = Vec::new();
        for row in &table {
            let fields: Vec<String> = row.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            bytes.extend(fields.join(",").bytes());
            bytes.push(b'\n');
        }
        let cut_at = cut_at.min(bytes.len());
        let (mut found, bad, used) = cut(&bytes[..cut_at], 3, false);
        prop_assert!(bad.is_empty());
        let (rest, bad, _) = cut(&bytes[used..], 3, true);
        prop_assert!(bad.is_empty());
        found.extend(rest);
        prop_assert_eq!(found, table);
    }
}
