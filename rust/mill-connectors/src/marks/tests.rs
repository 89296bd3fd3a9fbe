use proptest::prelude::*;

use super::*;

fn places(marks: Marks, data: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    marks.each(data, |at| {
        found.push(at);
        true
    });
    found
}

proptest! {
    #[test]
    fn all_are_found_in_order(
        data in proptest::collection::vec(0u8..5, 0..3 * 64).prop_flat_map(|tail| (Just(tail), 0usize..2 * PIECE_BYTES)),
        a in 0u8..5, b in 0u8..5,
    ) {
        let (tail, filled) = data;
        let mut data: Vec<u8> = (0..filled).map(|i| (i * i / 7 % 251) as u8).collect();
        data.extend(tail);
        let expected: Vec<usize> = (0..data.len()).filter(|&at| data[at] == a || data[at] == b).collect();
        prop_assert_eq!(&places(Marks::new(a, b), &data), &expected);
        prop_assert_eq!(&places(Marks { bytes: [a, b], find }, &data), &expected);
    }
}

#[test]
fn visiting_stops_where_it_is_told_to() {
    let mut visited = 0;
    Marks::new(b'x', b'y').each(&[b'x'; 5000], |at| {
        visited += 1;
        at < 4100
    });
    assert_eq!(visited, 4101);
}
