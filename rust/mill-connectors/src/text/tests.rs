use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use mill_protocol::{Discovery, Read, Source, SplitReader, SplitState};

use super::{TextOptions, TextSource};
use crate::file::{FileOptions, PathSpec};
use crate::testing::{check, drain, write};

fn source(path: &Path, follow: bool) -> TextSource {
    TextSource::new(PathSpec::from(path), TextOptions { files: FileOptions { follow, ..FileOptions::default() } }).unwrap()
}

fn lines(count: usize) -> (Vec<String>, Vec<u8>) {
    let lines: Vec<String> = (0..count).map(|i| format!("{i}:{}", "é".repeat(i * 31 % 97))).collect();
    let bytes = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
    (lines, bytes)
}

#[test]
fn lines_come_back_from_every_position_plain_and_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let (lines, bytes) = lines(20_000);
    for name in ["a.txt", "a.txt.gz", "a.txt.zst"] {
        let path = directory.path().join(name);
        write(&path, &bytes);
        assert_eq!(check(&source(&path, false), 1000), lines, "{name}");
    }
}

#[test]
fn endings_of_all_kinds_are_taken_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    for (bytes, expected) in [
        (&b""[..], vec![]),
        (b"\n", vec![""]),
        (b"a", vec!["a"]),
        (b"a\r\nb\r\n", vec!["a", "b"]),
        (b"a\n\nb", vec!["a", "", "b"]),
        (b"\xEF\xBB\xBFa\nb\n", vec!["a", "b"]),
    ] {
        for name in ["a.txt", "a.txt.gz", "a.txt.zst"] {
            let path = directory.path().join(name);
            write(&path, bytes);
            for rows_max in [1, 2, 100] {
                assert_eq!(check(&source(&path, false), rows_max), expected, "{bytes:?}");
            }
        }
    }
}

#[test]
fn a_large_file_is_cut_into_ranges_that_own_each_line_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("large.txt");
    // Lines whose ends fall around the borders of the ranges, one of them longer than a range.
    let mut bytes = Vec::new();
    let mut count = 0;
    while bytes.len() < 70 << 20 {
        let length = if count == 900 { 5 << 20 } else { 16_384 - 1 - count % 3 % 2 };
        bytes.extend(format!("{count:08}").bytes());
        bytes.resize(bytes.len() + length - 8, b'x');
        bytes.push(b'\n');
        count += 1;
    }
    write(&path, &bytes);
    let source = source(&path, false);
    let splits = source.splits(false).unwrap();
    assert_eq!(splits.len(), bytes.len().div_ceil(1 << 20));
    let mut numbers = Vec::new();
    for split in splits {
        let mut reader = source.open(&split, None).unwrap();
        let mut rows = Vec::new();
        loop {
            let mut again = source.open(&split, Some(&reader.position())).unwrap();
            let next = reader.next(500).unwrap();
            match (next, again.next(500).unwrap()) {
                (Read::Batch(a), Read::Batch(b)) => {
                    assert_eq!(a.slice(0, 1), b.slice(0, 1));
                    rows.push(a);
                }
                (Read::End, Read::End) => break,
                other => panic!("{other:?}"),
            }
        }
        for batch in rows {
            let column = arrow::array::AsArray::as_string::<i32>(batch.column(0));
            numbers.extend(column.iter().map(|line| line.unwrap()[..8].parse::<usize>().unwrap()));
        }
    }
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

#[test]
fn a_line_that_is_not_text_is_rejected_with_its_number_and_the_others_kept() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.txt", "a.txt.gz"] {
        let path = directory.path().join(name);
        write(&path, b"one\ntw\xFFo\nthree\n");
        let rows = check(&source(&path, false), 2);
        assert_eq!(rows.len(), 3);
        assert!(rows.contains(&format!("!{path:?} line 2: the line is not UTF-8 (byte 3)")), "{rows:?}");
    }
}

#[test]
fn a_file_that_changed_since_the_checkpoint_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.txt", "a.txt.gz"] {
        let path = directory.path().join(name);
        let (_, bytes) = lines(1000);
        write(&path, &bytes);
        let source = source(&path, false);
        let split = &source.splits(true).unwrap()[0];
        let mut reader = source.open(split, None).unwrap();
        let Read::Batch(_) = reader.next(900).unwrap() else { panic!() };
        let position = reader.position();
        let refused = |bytes: &[u8]| {
            write(&path, bytes);
            source.open(split, Some(&position)).err().unwrap().message().to_owned()
        };
        let other: Vec<u8> = bytes.iter().map(|b| b.to_ascii_uppercase() ^ 1).collect();
        assert!(refused(&other).contains("another file"), "{name}");
        let error = refused(&bytes[..100]);
        assert!(error.contains("shorter") || error.contains("another file"), "{name}: {error}");
        write(&path, &bytes);
        assert_eq!(drain(source.open(split, Some(&position)).unwrap().as_mut(), 10).len(), 100);
    }
}

#[test]
fn following_takes_complete_lines_of_growing_and_new_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    std::fs::write(&path, "one\ntw").unwrap();
    let source = source(directory.path(), true);
    assert!(!source.properties().is_bounded && source.properties().discovers_splits);
    let split = &source.splits(false).unwrap()[0];
    let mut reader = source.open(split, None).unwrap();
    assert_eq!(drain(reader.as_mut(), 10), ["one"]);
    let position = reader.position();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"o\nthree\n").unwrap();
    assert_eq!(drain(reader.as_mut(), 10), ["two", "three"]);
    assert_eq!(drain(source.open(split, Some(&position)).unwrap().as_mut(), 10), ["two", "three"]);
    std::fs::write(directory.path().join("b.txt"), "x\n").unwrap();
    std::fs::write(directory.path().join(".c.txt"), "x\n").unwrap();
    assert_eq!(source.splits(false).unwrap().len(), 2);
}

#[test]
fn a_truncated_compressed_file_is_an_error_and_not_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt.gz");
    write(&path, &lines(5000).1);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let source = source(&path, false);
    let mut reader = source.open(&source.splits(true).unwrap()[0], None).unwrap();
    let error = loop {
        match reader.next(100) {
            Ok(Read::Batch(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.message().contains("middle of its compressed data"), "{error}");
}

#[test]
fn a_name_that_looks_like_a_range_of_another_file_is_a_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a.txt"), "a\n").unwrap();
    std::fs::write(directory.path().join("a.txt range 0-4"), "b\n").unwrap();
    std::fs::write(directory.path().join("a.txt\u{1}"), "c\n").unwrap();
    assert_eq!(check(&source(directory.path(), false), 10), ["a", "c", "b"]);
}

#[test]
fn a_name_that_is_not_utf8_is_read_like_any_other() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(std::ffi::OsStr::from_bytes(b"\xFF.txt")), "a\n").unwrap();
    assert_eq!(check(&source(directory.path(), false), 10), ["a"]);
}

/// The states of all splits read to their ends, but those whose names the filter lets stay as they are.
fn read_all(source: &TextSource, states: Vec<SplitState>) -> (Vec<String>, Vec<SplitState>) {
    let mut rows = Vec::new();
    let states = states
        .into_iter()
        .map(|state| {
            if state.is_ended {
                return state;
            }
            let mut reader = source.open(&state.split, state.position.as_deref()).unwrap();
            rows.extend(drain(reader.as_mut(), 100));
            SplitState { position: Some(reader.position()), is_ended: true, ..state }
        })
        .collect();
    (rows, states)
}

fn begin(source: &TextSource) -> Vec<SplitState> {
    source.splits(false).unwrap().into_iter().map(SplitState::unread).collect()
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_finished_file_that_grows_past_the_size_of_a_range_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    for (name, small) in [("small", 10), ("one range", 60_000), ("ranges", 200_000)] {
        let path = directory.path().join(name);
        let text = |range: std::ops::Range<usize>| range.map(|i| format!("{i:07}\n")).collect::<String>();
        std::fs::write(&path, text(0..small)).unwrap();
        let first = source(&path, false);
        let (rows, states) = read_all(&first, begin(&first));
        assert_eq!(rows.len(), small);
        append(&path, text(small..400_000).as_bytes());
        let second = source(&path, false);
        let (rows, states) = read_all(&second, second.resume(false, states).unwrap());
        assert_eq!(rows.first().map(String::as_str), Some(format!("{small:07}").as_str()), "{name}");
        assert_eq!(rows.len(), 400_000 - small, "{name}");
        let (rows, _) = read_all(&second, second.resume(false, states).unwrap());
        assert!(rows.is_empty(), "{name}");
    }
}

#[test]
fn what_was_read_and_has_changed_is_refused_wherever_it_changed() {
    let directory = tempfile::tempdir().unwrap();
    let text: String = (0..5000).map(|i| format!("line {i}\n")).collect();
    for name in ["a.txt", "a.txt.gz", "a.txt.zst"] {
        let path = directory.path().join(name);
        let inserted = text.replacen("line 1000\n", "line 1000\nanother\n", 1);
        let edited = text.replacen("line 2990\n", "LINE 2990\n", 1);
        let longer = format!("{}{text}", text.to_uppercase());
        let shorter = text[..200].to_owned();
        for (what, changed) in [("inserted", inserted), ("edited", edited), ("longer", longer), ("shorter", shorter)] {
            for is_finished in [false, true] {
                if what == "edited" && is_finished {
                    continue;
                }
                write(&path, text.as_bytes());
                let from = source(&path, false);
                let mut states = begin(&from);
                let mut reader = from.open(&states[0].split, None).unwrap();
                let wanted = if is_finished { 10_000 } else { 3000 };
                let mut read = 0;
                while read < wanted {
                    let Read::Batch(batch) = reader.next(wanted - read).unwrap() else { break };
                    read += batch.num_rows();
                }
                states[0].is_ended = is_finished;
                states[0].position = Some(reader.position());
                write(&path, changed.as_bytes());
                let resumed = from.resume(false, states);
                let refused = match resumed {
                    Err(error) => error,
                    Ok(states) => from.open(&states[0].split, states[0].position.as_deref()).err().unwrap_or_else(|| {
                        panic!("{name} {what} finished={is_finished} was read on")
                    }),
                };
                assert!(refused.message().contains(name), "{refused}");
            }
        }
    }
}

#[test]
fn a_last_line_that_was_given_without_its_end_may_be_ended_and_not_be_added_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.txt");
    for (added, expected) in [("\nthree\n", Ok(vec!["three"])), ("\r\nthree\n", Ok(vec!["three"])), ("more\n", Err("no line end"))] {
        std::fs::write(&path, "one\ntwo").unwrap();
        let from = source(&path, false);
        let (rows, states) = read_all(&from, begin(&from));
        assert_eq!(rows, ["one", "two"]);
        append(&path, added.as_bytes());
        let states = from.resume(false, states).unwrap();
        let mut reader = from.open(&states[0].split, states[0].position.as_deref()).unwrap();
        match expected {
            Ok(rows) => assert_eq!(drain(reader.as_mut(), 10), rows),
            Err(message) => assert!(reader.next(10).unwrap_err().message().contains(message)),
        }
    }
}

#[test]
fn a_finished_file_may_go_and_an_unfinished_one_may_not() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(directory.path().join(name), "1\n2\n").unwrap();
    }
    let from = source(directory.path(), false);
    let mut states = begin(&from);
    let mut reader = from.open(&states[0].split, None).unwrap();
    drain(reader.as_mut(), 1);
    states[0].is_ended = true;
    states[0].position = Some(reader.position());
    std::fs::remove_file(directory.path().join("a")).unwrap();
    let states = source(directory.path(), false).resume(false, states).unwrap();
    assert_eq!(states.iter().filter(|state| !state.is_ended).count(), 2);
    std::fs::remove_file(directory.path().join("b")).unwrap();
    let error = source(directory.path(), false).resume(false, states).unwrap_err();
    assert!(error.message().contains("is gone") && error.message().contains("/b"), "{error}");
}

/// A followed source, its discovery, and what each split has returned.
struct Follow {
    source: TextSource,
    discovery: Box<dyn Discovery>,
    states: Vec<SplitState>,
    readers: Vec<Option<Box<dyn SplitReader>>>,
}

impl Follow {
    fn start(path: &Path, left: Vec<SplitState>) -> Follow {
        let source = source(path, true);
        let states = if left.is_empty() { begin(&source) } else { source.resume(false, left).unwrap() };
        let discovery = source.discovery(&states).unwrap().unwrap();
        let readers = states.iter().map(|_| None).collect();
        Follow { source, discovery, states, readers }
    }

    /// What there is to read now: one look at the directory, then all splits until each has nothing more.
    fn read(&mut self) -> Vec<String> {
        for split in self.discovery.look().unwrap() {
            match self.states.iter_mut().find(|state| state.split.id == split.id) {
                Some(state) => state.is_ended = false,
                None => {
                    self.states.push(SplitState::unread(split));
                    self.readers.push(None);
                }
            }
        }
        let mut rows = Vec::new();
        for (state, slot) in self.states.iter_mut().zip(&mut self.readers).filter(|(state, _)| !state.is_ended) {
            let reader = slot.get_or_insert_with(|| self.source.open(&state.split, state.position.as_deref()).unwrap());
            // Twice: a file that was rewritten returns what was left of it first.
            rows.extend(drain(reader.as_mut(), 100));
            rows.extend(drain(reader.as_mut(), 100));
            if matches!(reader.next(100).unwrap(), Read::End) {
                state.is_ended = true;
                state.position = Some(reader.position());
                *slot = None;
            }
        }
        rows
    }

    /// What a checkpoint would hold.
    fn stop(self) -> Vec<SplitState> {
        let states = self.states.into_iter().zip(self.readers);
        states
            .map(|(state, reader)| SplitState { position: reader.map(|reader| reader.position()).or(state.position), ..state })
            .collect()
    }
}

/// Does something to the files that are followed, once while a job reads them, once between two.
fn each_way(prepare: impl Fn(&Path), change: impl Fn(&Path), before: &[&str], after: &[&str]) {
    for is_restarted in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        prepare(directory.path());
        let mut follow = Follow::start(directory.path(), Vec::new());
        assert_eq!(follow.read(), before);
        if is_restarted {
            let left = follow.stop();
            change(directory.path());
            follow = Follow::start(directory.path(), left);
        } else {
            change(directory.path());
        }
        assert_eq!(follow.read(), after, "restarted: {is_restarted}");
        assert!(follow.read().is_empty());
        // And all of it is remembered.
        let mut again = Follow::start(directory.path(), follow.stop());
        assert!(again.read().is_empty());
    }
}

fn put(name: &'static str, text: &'static str) -> impl Fn(&Path) {
    move |directory| write(&directory.join(name), text.as_bytes())
}

#[test]
fn a_rotation_by_renaming_reads_each_line_once() {
    let rotate = |directory: &Path| {
        std::fs::rename(directory.join("app.log"), directory.join("app.log.1")).unwrap();
        append(&directory.join("app.log.1"), b"three\n");
        std::fs::write(directory.join("app.log"), "four\n").unwrap();
    };
    each_way(put("app.log", "one\ntwo\n"), rotate, &["one", "two"], &["three", "four"]);
}

#[test]
fn a_rotation_by_copy_and_truncate_reads_each_line_once() {
    for (more, after) in [("", vec!["four"]), ("three\n", vec!["four", "three"])] {
        let rotate = |directory: &Path| {
            append(&directory.join("app.log"), more.as_bytes());
            std::fs::copy(directory.join("app.log"), directory.join("app.log.1")).unwrap();
            std::fs::write(directory.join("app.log"), "four\n").unwrap();
        };
        each_way(put("app.log", "one\ntwo\n"), rotate, &["one", "two"], &after);
    }
}

#[test]
fn a_rotation_that_takes_the_file_out_of_sight_is_no_failure() {
    let away = |directory: &Path| {
        std::fs::rename(directory.join("app.log"), directory.join(".app.log.1")).unwrap();
        append(&directory.join(".app.log.1"), b"late\n");
        std::fs::write(directory.join("app.log"), "three\n").unwrap();
    };
    each_way(put("app.log", "one\ntwo\n"), away, &["one", "two"], &["late", "three"]);
}

#[test]
fn a_file_written_anew_is_read_from_its_start_whatever_its_length() {
    for text in ["x\n", "ONE\nTWO\n", "ONE\ntwo\nthree\nfour\n"] {
        let expected: Vec<&str> = text.lines().collect();
        each_way(put("a", "one\ntwo\n"), put("a", text), &["one", "two"], &expected);
        let replaced = |directory: &Path| {
            std::fs::write(directory.join(".new"), text).unwrap();
            std::fs::rename(directory.join(".new"), directory.join("a")).unwrap();
        };
        each_way(put("a", "one\ntwo\n"), replaced, &["one", "two"], &expected);
    }
}

#[test]
fn a_file_that_was_read_may_be_deleted() {
    let delete = |directory: &Path| {
        std::fs::remove_file(directory.join("a")).unwrap();
        std::fs::write(directory.join("c"), "three\n").unwrap();
    };
    each_way(
        |directory| {
            put("a", "one\n")(directory);
            put("b", "two\n")(directory);
        },
        delete,
        &["one", "two"],
        &["three"],
    );
}

#[test]
fn a_compressed_file_is_read_on_where_a_member_was_appended() {
    for name in ["a.gz", "a.zst"] {
        let grow = |directory: &Path| {
            let other = directory.join(format!(".other-{name}"));
            write(&other, b"three\nfour\n");
            append(&directory.join(name), &std::fs::read(other).unwrap());
        };
        each_way(put(name, "one\ntwo\n"), grow, &["one", "two"], &["three", "four"]);
    }
}

#[test]
fn a_compressed_file_seen_while_a_member_is_written_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join(".whole.gz");
    write(&whole, &lines(3000).1);
    let bytes = std::fs::read(&whole).unwrap();
    let path = directory.path().join("a.gz");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let mut follow = Follow::start(directory.path(), Vec::new());
    let mut rows = follow.read();
    assert!(!rows.is_empty() && rows.len() < 3000, "{} rows", rows.len());
    append(&path, &bytes[bytes.len() / 2..]);
    rows.extend(follow.read());
    assert_eq!(rows, lines(3000).0);
}

#[test]
fn a_half_read_file_that_is_gone_is_an_error_and_one_that_is_written_anew_is_reported() {
    for is_deleted in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let from = source(directory.path(), true);
        let mut states = begin(&from);
        let mut reader = from.open(&states[0].split, None).unwrap();
        let Read::Batch(_) = reader.next(1).unwrap() else { panic!() };
        states[0].position = Some(reader.position());
        if is_deleted {
            std::fs::remove_file(&path).unwrap();
        } else {
            std::fs::write(&path, "other\nlines\nmore\n").unwrap();
        }
        let from = source(directory.path(), true);
        match from.resume(false, states) {
            Err(error) => assert!(is_deleted && error.message().contains("in the middle of"), "{error}"),
            Ok(states) => {
                let mut reader = from.open(&states[0].split, states[0].position.as_deref()).unwrap();
                let Read::Truncated(truncation) = reader.next(10).unwrap() else { panic!() };
                assert_eq!(truncation.bytes_lost, 4, "{}", truncation.note);
                assert!(!is_deleted && truncation.note.contains("4 of 8 bytes had not been read"), "{}", truncation.note);
                assert_eq!(drain(reader.as_mut(), 10), ["other", "lines", "more"]);
            }
        }
    }
}

#[test]
fn more_files_are_followed_than_are_held_open() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..300 {
        std::fs::write(directory.path().join(format!("{number:03}")), format!("{number}\n")).unwrap();
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().filter(|entry| {
        let target = std::fs::read_link(entry.as_ref().unwrap().path());
        target.is_ok_and(|target| target.starts_with(directory.path()))
    }).count();
    let mut follow = Follow::start(directory.path(), Vec::new());
    assert_eq!(follow.read().len(), 300);
    assert!(open() <= 64, "{} are open", open());
    for number in 0..300 {
        append(&directory.path().join(format!("{number:03}")), b"more\n");
    }
    assert_eq!(follow.read().len(), 300);
    assert!(open() <= 64, "{} are open", open());
}

#[test]
fn a_compressed_file_that_is_cut_off_anywhere_is_told() {
    let directory = tempfile::tempdir().unwrap();
    for ending in ["gz", "zst", "bz2", "lz4", "xz"] {
        let path = directory.path().join(format!("a.{ending}"));
        write(&path, b"one\ntwo\n");
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(check(&source(&path, false), 10), ["one", "two"], "{ending}");
        std::fs::write(&path, [bytes.as_slice(), bytes.as_slice()].concat()).unwrap();
        assert_eq!(check(&source(&path, false), 10), ["one", "two", "one", "two"], "{ending}");
        for end in 1..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let source = source(&path, false);
            let mut reader = source.open(&source.splits(true).unwrap()[0], None).unwrap();
            let failed = (0..3).find_map(|_| reader.next(10).err());
            let error = failed.unwrap_or_else(|| panic!("{ending} cut off at {end} of {}", bytes.len()));
            assert!(error.message().contains("compressed"), "{ending} {end}: {error}");
        }
    }
}
