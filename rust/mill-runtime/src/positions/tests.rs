use super::*;

fn sample() -> Positions {
    let split = |name: &str, detail: &[u8], position: Option<&[u8]>, is_ended| {
        let split = Split::with_detail(SplitId::of(name), name, detail.to_vec());
        (split.id, SplitState { split, position: position.map(<[u8]>::to_vec), is_ended })
    };
    Positions::from([
        split("a", b"", None, false),
        split("b", b"range", Some(b""), false),
        split("c", b"\xFF\x00", Some(b"xyz"), true),
    ])
}

fn encode(positions: &Positions) -> Vec<u8> {
    let mut encoded = Encoded::default();
    for state in positions.values() {
        encoded.add(&state.split, state.position.as_deref(), state.is_ended);
    }
    encoded.finish()
}

#[test]
fn positions_come_back() {
    assert_eq!(decode(&encode(&sample())).unwrap(), sample());
    assert_eq!(decode(&encode(&Positions::new())).unwrap(), Positions::new());
    for (id, state) in sample() {
        assert_eq!(decode(&encode_one(&state)).unwrap(), Positions::from([(id, state)]));
    }
}

#[test]
fn damaged_positions_are_refused() {
    let bytes = encode(&sample());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "length={length}");
    }
    assert!(decode(&[bytes, vec![0]].concat()).is_err());
}

#[test]
fn the_form_of_earlier_versions_is_named_as_such() {
    // One split: id, name "a", no position.
    let former = [&1u32.to_le_bytes()[..], &7u64.to_le_bytes(), &1u32.to_le_bytes(), b"a", &[0], &0u32.to_le_bytes()].concat();
    let error = decode(&former).unwrap_err();
    assert!(error.message().contains("another version"), "{error}");
}
