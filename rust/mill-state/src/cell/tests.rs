use std::sync::Arc;

use super::{Cell, SHORT_MAX};

#[test]
fn values_of_every_length_are_set_over_each_other_and_read_back() {
    let value = |length: usize| -> Vec<u8> { (0..length).map(|at| (at * 7 + length) as u8).collect() };
    let lengths = [0, 1, 8, SHORT_MAX - 1, SHORT_MAX, SHORT_MAX + 1, 100];
    assert_eq!(Cell::default().bytes(), None);
    for before in lengths {
        for after in lengths {
            let mut cell = Cell::from(&value(before)[..]);
            let kept = cell.clone();
            cell.set(&value(after));
            assert_eq!(cell.bytes(), Some(&value(after)[..]));
            assert_eq!(cell.long().is_some(), after > SHORT_MAX);
            assert_eq!(kept.bytes(), Some(&value(before)[..]), "a copy keeps what it was made of");
            assert_eq!(cell.take().bytes(), Some(&value(after)[..]));
            assert!(cell.is_empty() && !kept.is_empty());
        }
    }
}

#[test]
fn what_is_made_long_keeps_its_value() {
    for value in [None, Some(&b"ab"[..]), Some(&[7; 60][..])] {
        let mut cell = value.map(Cell::from).unwrap_or_default();
        Arc::make_mut(cell.long_mut()).push(1);
        let expected = [value.unwrap_or_default(), &[1]].concat();
        assert_eq!(cell.bytes(), Some(&expected[..]));
    }
}
