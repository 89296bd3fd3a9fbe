use std::sync::Arc;

use super::*;
use crate::disk::Disk as _;
use crate::fault_disk::FaultDisk;

const COPY_BYTES: usize = 64;

/// A slot in which 1, 2, … `count` were noted.
fn noted(count: u64) -> Vec<u8> {
    let mut slot = vec![0; COPIES_AT + 2 * COPY_BYTES];
    write_slot(&mut slot, 0, "a");
    (1..=count).for_each(|n| write_note(&mut slot, COPY_BYTES, n, format!("position {n}").as_bytes()));
    slot
}

#[test]
fn a_kill_in_the_middle_of_a_note_leaves_the_note_before_or_this_one() {
    for count in 0..4 {
        let (before, after) = (noted(count), noted(count + 1));
        let copy_at = COPIES_AT + ((count + 1) as usize % 2) * COPY_BYTES;
        // The order of the stores, as `write_note` has it.
        let order = [INTENT_AT..INTENT_AT + 16, copy_at..copy_at + COPY_BYTES, DONE_AT..DONE_AT + 16];
        let bytes: Vec<usize> = order.into_iter().flatten().collect();
        for cut in 0..=bytes.len() {
            let mut slot = before.clone();
            bytes[..cut].iter().for_each(|at| slot[*at] = after[*at]);
            let sequence = read_note(&slot, COPY_BYTES).unwrap().map_or(0, |(sequence, _)| sequence);
            assert!(sequence == count || sequence == count + 1, "cut after {cut} bytes of note {}", count + 1);
        }
    }
}

#[test]
fn a_flipped_bit_never_brings_an_older_note_back() {
    for count in 1..4 {
        let whole = noted(count);
        for bit in INTENT_AT * 8..whole.len() * 8 {
            let mut slot = whole.clone();
            slot[bit / 8] ^= 1 << (bit % 8);
            match read_note(&slot, COPY_BYTES) {
                Ok(Some((sequence, position))) => {
                    assert_eq!((sequence, position), (count, format!("position {count}").into_bytes()), "bit {bit}");
                }
                Ok(None) => panic!("bit {bit}: the note is forgotten"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn positions_come_back_however_many_and_however_large() {
    let disk: Arc<FaultDisk> = Arc::new(FaultDisk::new());
    let store = Store::open("state", disk.clone()).unwrap();
    let positions = store.positions().unwrap();
    for number in 0..100 {
        let slot = positions.slot(&format!("source/{number}")).unwrap();
        assert_eq!(slot, number);
        for round in 0..=number {
            positions.note(slot, &vec![round as u8; round * 7]).unwrap();
        }
    }
    drop((positions, store));
    let store = Store::open("state", disk.clone()).unwrap();
    let read = store.read_positions().unwrap();
    assert_eq!(read.len(), 100);
    for (number, (name, position)) in read.iter().enumerate() {
        assert_eq!((name, position), (&format!("source/{number}"), &vec![number as u8; number * 7]));
    }
    let positions = store.positions().unwrap();
    assert_eq!(positions.position("source/3").unwrap().unwrap(), [3; 21]);
    assert_eq!(positions.position("source/100").unwrap(), None);
    let slot = positions.slot("source/3").unwrap();
    positions.note(slot, b"new").unwrap();
    assert_eq!(positions.position("source/3").unwrap().unwrap(), b"new");
}

#[test]
fn damaged_positions_are_an_error_or_make_no_difference() {
    let disk = Arc::new(FaultDisk::new());
    let store = Store::open("state", disk.clone()).unwrap();
    let positions = store.positions().unwrap();
    for number in 0..3 {
        let slot = positions.slot(&format!("source/{number}")).unwrap();
        (0..5).for_each(|round| positions.note(slot, format!("{number} {round}").as_bytes()).unwrap());
    }
    drop((positions, store));
    let whole = Store::inspect("state", disk.clone()).unwrap().read_positions().unwrap();
    let bytes = disk.bytes_of("state/positions").unwrap();
    let mut refused = 0;
    for bit in (0..bytes.len() * 8).step_by(5) {
        disk.damage("state/positions", |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        match Store::inspect("state", disk.clone()).unwrap().read_positions() {
            Ok(read) => assert_eq!(read, whole, "bit {bit}"),
            Err(Error::Damaged { .. }) => refused += 1,
            Err(other) => panic!("bit {bit}: {other}"),
        }
        disk.damage("state/positions", |raw| raw.copy_from_slice(&bytes));
    }
    assert!(refused > 100, "{refused}");
    for length in [0, 1, 63, 64, bytes.len() / 2, bytes.len() - 1, bytes.len() + 1] {
        disk.damage("state/positions", |raw| raw.resize(length, 0));
        let store = Store::open("state", disk.clone()).unwrap();
        assert!(matches!(store.positions(), Err(Error::Damaged { .. })), "length {length}");
    }
    disk.remove("state/positions".as_ref()).unwrap();
    let store = Store::open("state", disk.clone()).unwrap();
    let error = store.positions().unwrap_err();
    assert!(error.to_string().contains("the file is gone"), "{error}");
    assert!(store.read_positions().is_err());
}

#[test]
fn what_is_too_large_is_refused() {
    let store = Store::open("state", Arc::new(FaultDisk::new())).unwrap();
    let positions = store.positions().unwrap();
    assert!(matches!(positions.slot(&"x".repeat(249)), Err(Error::TooLarge { size: 249, .. })));
    let slot = positions.slot("x").unwrap();
    assert!(matches!(positions.note(slot, &vec![0; POSITION_BYTES_MAX + 1]), Err(Error::TooLarge { .. })));
    positions.note(slot, b"fits").unwrap();
}
