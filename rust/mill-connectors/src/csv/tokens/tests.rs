use proptest::prelude::*;

use super::{Dialect, Tokens, tokenize, unescape};

const DIALECT: Dialect = Dialect { delimiter: b',', quote: b'"' };

fn cut(data: &[u8], columns: usize, is_last: bool) -> (Vec<Vec<String>>, Vec<(usize, usize)>, usize) {
    let mut tokens = Tokens::default();
    tokenize(data, DIALECT, Some(columns), is_last, usize::MAX, &mut tokens);
    let rows = tokens
        .fields
        .chunks(columns)
        .map(|fields| {
            fields
                .iter()
                .map(|field| {
                    let mut out = Vec::new();
                    if field.is_quoted() {
                        unescape(field.bytes(data), b'"', &mut out);
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
