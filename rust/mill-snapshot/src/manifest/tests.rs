use std::time::{Duration, Instant};

use super::*;

fn manifest() -> Manifest {
    let segment = |epoch: u64| SegmentRef {
        file: format!("segment-{epoch:020}-0000"),
        epoch,
        bytes: 4096,
        keyed_bytes: 1024,
        blocks: 7,
        digest: 0xdead_beef,
        is_full: epoch == 1,
    };
    let entry = OperatorEntry { name: "hourly".into(), signature: "key: origin utf8".into(), parallelism: 2, since: 1, parts: Vec::new() };
    Manifest {
        id: 3,
        state: u64::MAX,
        created: 1_700_000_000_000_000,
        mode: "exactly_once".into(),
        plan_fingerprint: "0123".into(),
        version: "0.1.0".into(),
        is_finished: false,
        is_savepoint: false,
        operators: BTreeMap::from([("window-3".to_owned(), entry)]),
        segments: vec![segment(1), segment(2), segment(3)],
        bytes: 12288,
        files: Vec::new(),
        new_bytes: 4096,
        notes: BTreeMap::from([("ended".to_owned(), "[\"ü\"]".to_owned())]),
    }
}

fn decode(raw: &[u8]) -> Result<Manifest> {
    Manifest::decode("manifest".as_ref(), raw)
}

/// Puts the right checksum at the end of what was changed.
fn reseal(covered: &[u8]) -> Vec<u8> {
    let mut raw = covered.to_vec();
    raw.extend(format!("{TRAILER}{:08x}\n", crc32c::crc32c(covered)).bytes());
    raw
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    assert_eq!(decode(&manifest().encode()).unwrap(), manifest());
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let raw = manifest().encode();
    for bit in 0..raw.len() * 8 {
        let mut flipped = raw.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(decode(&flipped), Err(Error::Damaged { .. })), "bit {bit}");
    }
    for length in 0..raw.len() {
        assert!(matches!(decode(&raw[..length]), Err(Error::Damaged { .. })), "length {length}");
    }
}

#[test]
fn a_newer_manifest_is_refused_by_name() {
    let raw = manifest().encode();
    let text = String::from_utf8(raw[..raw.len() - TRAILER_BYTES].to_vec()).unwrap();
    let newer = reseal(text.replacen("manifest 1", "manifest 2", 1).as_bytes());
    assert!(matches!(decode(&newer), Err(Error::NewerFormat { found: 2, known: 1, .. })));
}

#[test]
fn a_segment_cannot_lie_outside_of_the_directory() {
    for file in ["../segment-1", "segment-/../../etc", "/segment-1", "segment-1/x", "manifest-1"] {
        let mut evil = manifest();
        evil.segments[0].file = file.to_owned();
        assert!(matches!(decode(&evil.encode()), Err(Error::Damaged { .. })), "{file}");
    }
}

#[test]
fn only_names_of_twenty_digits_are_manifests() {
    assert_eq!(Manifest::id_of(&Manifest::file_name(42)), Some(42));
    assert_eq!(Manifest::id_of(&Manifest::file_name(1 << 60)), Some(1 << 60));
    assert_eq!(Manifest::id_of(&Manifest::file_name((1 << 60) + 1)), None);
    assert_eq!(Manifest::id_of(&Manifest::file_name(u64::MAX)), None);
    for name in ["manifest-42", "manifest-00000000000000000042-new", "manifest-99999999999999999999", "manifest-é"] {
        assert_eq!(Manifest::id_of(name), None, "{name}");
    }
}

/// Random changes with right checksums: whatever is read is a manifest that can be written again, and nothing panics.
/// `MILL_FUZZ_SECONDS` lets it run longer, `MILL_FUZZ_SEED` repeats a run.
#[test]
fn no_byte_string_gets_past_unsafely() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("MILL_FUZZ_SECONDS").unwrap_or(0);
    let seed = number("MILL_FUZZ_SEED").unwrap_or(1);
    println!("MILL_FUZZ_SEED={seed}");
    let raw = manifest().encode();
    let covered = &raw[..raw.len() - TRAILER_BYTES];
    let mut random = crate::fault_disk::Splitmix(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut rounds, mut read) = (0_u64, 0_u64);
    while rounds < 3000 || Instant::now() < end {
        let mut changed = covered.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(changed.len() as u64) as usize;
            match random.below(5) {
                0 => changed[at] = random.next() as u8,
                1 => changed[at] = b"0123456789-\"{}[],:"[random.below(18) as usize],
                2 => changed.truncate(at.max(1)),
                3 => changed.insert(at, b"0123456789-\"{}[],:"[random.below(18) as usize]),
                _ => {
                    let from = random.below(changed.len() as u64) as usize;
                    let piece = changed[from.min(at)..from.max(at)].to_vec();
                    changed.splice(at..at, piece);
                    changed.truncate(1 << 16);
                }
            }
        }
        if let Ok(manifest) = decode(&reseal(&changed)) {
            assert_eq!(decode(&manifest.encode()).unwrap(), manifest, "seed {seed}, round {rounds}");
            read += 1;
        }
        rounds += 1;
    }
    println!("{rounds} rounds, {read} read");
    assert!(read > 0);
}
