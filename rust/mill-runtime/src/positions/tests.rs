use super::*;

fn sample() -> Positions {
    let split = |name: &str, position: Option<&[u8]>, is_ended| {
        let position = position.map(<[u8]>::to_vec);
        (SplitId::of(name), SplitPosition { name: name.to_owned(), position, is_ended })
    };
    Positions::from([split("a", None, false), split("b", Some(b""), false), split("c", Some(b"xyz"), true)])
}

#[test]
fn positions_come_back() {
    assert_eq!(decode(&encode(&sample())).unwrap(), sample());
    assert_eq!(decode(&encode(&Positions::new())).unwrap(), Positions::new());
}

#[test]
fn damaged_positions_are_refused() {
    let bytes = encode(&sample());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "length={length}");
    }
    assert!(decode(&[bytes, vec![0]].concat()).is_err());
}
