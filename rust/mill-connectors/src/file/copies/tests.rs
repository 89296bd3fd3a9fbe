use std::fs;

use super::*;

fn originals_of(name: &str) -> Vec<String> {
    originals(name).collect()
}

#[test]
fn names_of_rotations_lead_to_their_originals() {
    for name in ["app.log.1", "app.log-20240131", "app-20240131.log", "app.1.log", "app_old.log"] {
        assert!(originals_of(name).contains(&"app.log".to_owned()), "{name}: {:?}", originals_of(name));
    }
    assert!(originals_of("app").is_empty());
    assert!(!originals_of("app.log").contains(&"app.log".to_owned()));
    assert!(originals_of(&"a.".repeat(1000)).len() <= ORIGINALS_MAX);
}

#[test]
fn a_copy_is_read_from_where_its_original_had_been_read() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let log = at("app.log");
    fs::write(&log, "one\ntwo\nthree\n").unwrap();
    fs::write(at("app.log.1"), "one\ntwo\nthree\n").unwrap();
    fs::write(at("app.log.2"), "one\nTWO\nthree\n").unwrap();
    let copies = Copies::new(PathSpec::new(vec![directory.path().to_str().unwrap().to_owned()]));
    let position = FilePosition {
        offset: 8,
        known: 8,
        head: Print::of(b"one\ntwo\n"),
        tail: Print::of(b"one\ntwo\n"),
        ..FilePosition::default()
    };
    fs::write(&log, "").unwrap();
    let found = copies.find(&log, &position).unwrap();
    assert_eq!((found.path, found.size, found.is_followed), (at("app.log.1"), 14, true));
    let start = |name: &str| copies.start(&at(name), &FileIdentity::open(&at(name)).unwrap(), &mut None);
    assert!(matches!(start("app.log.1"), Start::At(FilePosition { offset: 8, .. })));
    assert!(matches!(start("app.log.1"), Start::First), "what was left for it is taken once");
    assert!(matches!(start("app.log.2"), Start::First));
}

#[test]
fn a_copy_waits_until_its_original_is_truncated_or_it_is_a_file_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("app.log"), "one\ntwo\n").unwrap();
    fs::write(at("app.log.1"), "one\n").unwrap();
    let copies = Copies::new(PathSpec::new(vec![directory.path().to_str().unwrap().to_owned()]));
    let identity = FileIdentity::open(&at("app.log.1")).unwrap();
    let mut suspect = None;
    let looks = (0..=LOOKS_MAX + 1).take_while(|_| matches!(copies.start(&at("app.log.1"), &identity, &mut suspect), Start::NotYet));
    assert_eq!(looks.count() as u32, LOOKS_MAX);
    let mut suspect = None;
    assert!(matches!(copies.start(&at("app.log.1"), &identity, &mut suspect), Start::NotYet));
    // Lines that were read after the copy was made are not in it: all that it has was read.
    let read = FilePosition { offset: 8, known: 8, head: Print::of(b"one\n"), tail: Print::of(b"one\ntwo\n"), ..FilePosition::default() };
    fs::write(at("app.log"), "new\n").unwrap();
    assert!(copies.find(&at("app.log"), &read).is_none());
    assert!(matches!(copies.start(&at("app.log.1"), &identity, &mut suspect), Start::At(FilePosition { offset: 4, .. })));
}
